//! A server of ours that runs inside this process.

use std::net::SocketAddr;

use tokio::net::{TcpListener, TcpSocket};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// Connections that wait to be accepted: a thousand streams that begin at once overflow the usual queue, and each that is turned
/// away comes back a whole second later.
const BACKLOG: u32 = 4096;

/// Listens at `address`.
pub(crate) fn listen(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// A server that listens.
pub struct Running {
    /// Where.
    pub address: SocketAddr,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Running {
    pub(crate) fn new(address: SocketAddr, stop: CancellationToken, task: JoinHandle<()>) -> Self {
        Self { address, stop, task }
    }

    /// Lets what is running end, and waits for it.
    pub async fn stop(self) {
        self.stop.cancel();
        // A server that panicked has said so.
        let _ = self.task.await;
    }

    /// Waits until it ends.
    pub async fn ended(self) {
        let _ = self.task.await;
    }
}
