//! `/metrics` and `/health` over HTTP, on loopback unless another address is asked for.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum::http::header::CONTENT_TYPE;
use axum::routing::get;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::{MetricsError, PrometheusMetrics};

/// Where metrics are served when nobody says otherwise.
pub const DEFAULT_LISTEN: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 9464);

/// The type of what [`PrometheusMetrics::render`] writes.
pub const TEXT_FORMAT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Longest wait for a scrape under way when stopping.
const STOP_LIMIT: Duration = Duration::from_secs(2);

/// Where metrics are served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listening {
    /// The address, with the port that was taken.
    pub address: SocketAddr,
    /// Says so if it is not the address that was named.
    pub note: Option<String>,
}

/// A running listener.
pub(super) struct Server {
    pub(super) address: SocketAddr,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Server {
    pub(super) async fn stop(mut self) {
        self.stop.cancel();
        if tokio::time::timeout(STOP_LIMIT, &mut self.task).await.is_err() {
            self.task.abort();
        }
    }
}

pub(super) async fn start(metrics: PrometheusMetrics, asked: SocketAddr, explicit: bool) -> Result<(Server, Option<String>), MetricsError> {
    let failed = |source: std::io::Error| match source.kind() {
        ErrorKind::AddrInUse => MetricsError::InUse(asked),
        _ => MetricsError::Listen { address: asked, source },
    };
    let (listener, moved) = match TcpListener::bind(asked).await {
        Err(error) if error.kind() == ErrorKind::AddrInUse && !explicit => {
            (TcpListener::bind(SocketAddr::new(asked.ip(), 0)).await.map_err(failed)?, true)
        }
        bound => (bound.map_err(failed)?, false),
    };
    let address = listener.local_addr().map_err(failed)?;
    let place = format!("metrics are on http://{address}/metrics");
    let note = match (moved, asked.port()) {
        (true, port) => Some(format!("port {port} is in use: {place}")),
        (false, 0) => Some(place),
        (false, _) => None,
    };
    let stop = CancellationToken::new();
    let service = axum::serve(listener, router(metrics)).with_graceful_shutdown(stop.clone().cancelled_owned());
    let task = tokio::spawn(async move {
        // Accept errors are retried inside; nothing else ends it but `stop`.
        let _ = service.await;
    });
    Ok((Server { address, stop, task }, note))
}

fn router(metrics: PrometheusMetrics) -> Router {
    let text = [(CONTENT_TYPE, TEXT_FORMAT)];
    let json = [(CONTENT_TYPE, "application/json")];
    Router::new()
        .route("/metrics", get(move || async move { (text, metrics.render()) }))
        .route("/health", get(move || async move { (json, "{\"status\":\"ok\"}\n") }))
}
