//! A server of ours that runs inside this process.

use std::net::SocketAddr;

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

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
