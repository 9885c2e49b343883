//! A mock model server that speaks the OpenAI API: what a gateway stands before when it is measured.
//!
//! Its replies are pure functions of the requests' ids ([`crate::workload::reply`]), its faults and latencies of (seed, id, how
//! often the id was seen), and what reached it stands in its own [`ledger`], so that replies and gateways can be judged.
//!
//! `POST /v1/chat/completions` (streaming and not), `GET /v1/models`, `GET /health`, WebSocket echo at `/v1/realtime`.

mod chat;
pub(crate) mod command;
pub mod config;
pub mod ledger;
mod plan;
mod service;
mod stream;
pub(crate) mod trouble;
mod websocket;

use std::convert::Infallible;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use config::Config;
use ledger::Ledger;
use service::{Seen, Service};
pub use trouble::Trouble;

use super::running::{self, Running};

/// How long replies under way may take to end once the server is to stop; their pauses are skipped.
const STOP_LIMIT: Duration = Duration::from_secs(5);
/// How long the server waits before it accepts again when the system has no descriptors left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(20);

/// Starts the server at `listen` (port 0: any that is free). It ends when `stop` is cancelled.
///
/// # Errors
/// The configuration contradicts itself, the address cannot be listened at, or the ledger cannot be opened.
pub async fn start(config: Config, listen: SocketAddr, stop: CancellationToken) -> anyhow::Result<Running> {
    config.check()?;
    let stop = stop.child_token();
    let listener = running::listen(listen).map_err(|error| match error.kind() {
        ErrorKind::AddrInUse => {
            anyhow::anyhow!("upstream: {listen} is in use; end what listens there, or choose another address with --listen")
        }
        _ => anyhow::Error::new(error).context(format!("upstream: {listen} cannot be listened at; choose another address with --listen")),
    })?;
    let address = listener.local_addr().context("upstream: the listener has no address")?;
    let seen = Seen::default();
    let ledger = match &config.ledger {
        Some(path) => Some(Arc::new(Ledger::open(path, stop.clone(), |record| {
            seen.count(&record.id);
        })?)),
        None => None,
    };
    let end = CancellationToken::new();
    let service = Arc::new(Service { config, ledger, seen, stop: stop.clone(), end, tasks: TaskTracker::new() });
    Ok(Running::new(address, stop, tokio::spawn(serve(listener, service))))
}

async fn serve(listener: TcpListener, service: Arc<Service>) {
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = service.stop.cancelled() => break,
        };
        match accepted {
            Ok((stream, _)) => {
                service.tasks.spawn(connection(Arc::clone(&service), stream));
            }
            Err(_) => tokio::time::sleep(ACCEPT_PAUSE).await,
        }
    }
    drop(listener);
    service.tasks.close();
    if tokio::time::timeout(STOP_LIMIT, service.tasks.wait()).await.is_err() {
        service.end.cancel();
        service.tasks.wait().await;
    }
}

async fn connection(service: Arc<Service>, stream: TcpStream) {
    // Without it replies are as right, only later.
    let _ = stream.set_nodelay(true);
    let answer = service_fn(|request| {
        let service = Arc::clone(&service);
        async move { Ok::<_, Infallible>(service.answer(request).await) }
    });
    // A connection that fails, or is cut as asked for, has said so in the ledger.
    let mut connection = pin!(http1::Builder::new().serve_connection(TokioIo::new(stream), answer).with_upgrades());
    tokio::select! {
        _ = connection.as_mut() => return,
        () = service.stop.cancelled() => connection.as_mut().graceful_shutdown(),
    }
    tokio::select! {
        _ = connection => {}
        () = service.end.cancelled() => {}
    }
}
