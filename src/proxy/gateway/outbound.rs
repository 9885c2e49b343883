//! Connections to the upstreams, kept and bounded as the HTTP profile says. A request is sent once; only one that no byte of was
//! written, because a kept connection had ended, goes out on another.

use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, Uri};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper_rustls::MaybeHttpsStream;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;
use tower_service::Service;

use super::config::Channel;
use crate::scenario::http::ClientSettings;

/// Why there is no reply.
#[derive(Debug)]
pub(super) enum Trouble {
    /// No connection, or none that lasted to the header.
    Failed(String),
    /// No header within the limit.
    Late(Duration),
    /// No free connection within the limit.
    Busy,
}

/// The client of all upstreams.
pub(super) struct Outbound {
    client: Client<Connector, Full<Bytes>>,
    /// By channel; channels of one host share theirs.
    free: Vec<Option<Arc<Semaphore>>>,
    header_timeout: Option<Duration>,
}

impl Outbound {
    pub(super) fn new(channels: &[Channel], settings: &ClientSettings) -> anyhow::Result<Self> {
        let authority = |channel: &Channel| channel.url.parse::<Uri>().ok().and_then(|uri| uri.authority().map(ToString::to_string));
        let mut hosts = HashMap::new();
        let mut bound = |channel| {
            let most = settings.max_per_host?;
            let host: &mut Arc<Semaphore> = hosts.entry(authority(channel)).or_insert_with(|| Arc::new(Semaphore::new(most)));
            Some(Arc::clone(host))
        };
        let free = channels.iter().map(&mut bound).collect();
        let mut names: Vec<_> = channels.iter().map(authority).collect();
        names.sort();
        names.dedup();
        // The pool bounds idle connections a host; shared out like this they keep the bound on all of them too.
        let max_idle = settings.max_idle_per_host.min(settings.max_idle / names.len().max(1));
        let client = Client::builder(TokioExecutor::new())
            .pool_idle_timeout(settings.idle_timeout.0)
            .pool_max_idle_per_host(max_idle)
            .pool_timer(TokioTimer::new())
            .build(Connector::new(channels, settings)?);
        Ok(Self { client, free, header_timeout: settings.response_header_timeout.map(|time| time.0) })
    }

    /// Sends `request` to channel number `channel`. The permit is to be held until the reply has ended.
    pub(super) async fn send(
        &self,
        channel: usize,
        request: Request<Full<Bytes>>,
    ) -> Result<(Response<Incoming>, Option<OwnedSemaphorePermit>), Trouble> {
        let limit = self.header_timeout.unwrap_or(Duration::from_secs(3600));
        let permit = match &self.free[channel] {
            Some(free) => {
                let permit = timeout(limit, Arc::clone(free).acquire_owned()).await.map_err(|_| Trouble::Busy)?;
                Some(permit.map_err(|_| Trouble::Busy)?)
            }
            None => None,
        };
        match timeout(limit, self.client.request(request)).await {
            Ok(Ok(reply)) => Ok((reply, permit)),
            Ok(Err(error)) => Err(Trouble::Failed(causes(&error))),
            Err(_) => Err(Trouble::Late(limit)),
        }
    }
}

/// An error with what caused it.
fn causes(error: &dyn std::error::Error) -> String {
    let mut words = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        words = format!("{words}: {error}");
        cause = error.source();
    }
    words
}

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Opens TCP and TLS connections, each within its limit.
#[derive(Clone)]
struct Connector {
    tcp: HttpConnector,
    tls: Option<tokio_rustls::TlsConnector>,
    tls_timeout: Duration,
}

impl Connector {
    fn new(channels: &[Channel], settings: &ClientSettings) -> anyhow::Result<Self> {
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_connect_timeout(Some(settings.connect_timeout.0));
        tcp.set_keepalive(Some(settings.keep_alive.0).filter(|interval| !interval.is_zero()));
        // Reading the system's certificates takes longer than all the rest of a start.
        let tls = channels.iter().any(|channel| channel.url.starts_with("https:")).then(trusted).transpose()?;
        Ok(Self { tcp, tls, tls_timeout: settings.tls_timeout.0 })
    }
}

/// TLS that trusts the system's authorities.
fn trusted() -> anyhow::Result<tokio_rustls::TlsConnector> {
    let mut roots = rustls::RootCertStore::empty();
    // A single certificate that cannot be read takes nothing from the others.
    let (added, _) = roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    anyhow::ensure!(added > 0, "a channel is https, and this system has no trusted certificates; install ca-certificates");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    Ok(Arc::new(config.with_root_certificates(roots).with_no_client_auth()).into())
}

impl Service<Uri> for Connector {
    type Response = MaybeHttpsStream<TokioIo<TcpStream>>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.tcp.poll_ready(context).map_err(Into::into)
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let host = uri.host().unwrap_or_default().trim_matches(['[', ']']).to_owned();
        let tls = self.tls.clone().filter(|_| uri.scheme_str() == Some("https"));
        let limit = self.tls_timeout;
        let tcp = self.tcp.call(uri);
        Box::pin(async move {
            let stream = tcp.await?;
            let Some(tls) = tls else { return Ok(MaybeHttpsStream::Http(stream)) };
            let handshake = tls.connect(ServerName::try_from(host)?, TokioIo::new(stream));
            let stream = timeout(limit, handshake).await.map_err(|_| format!("no TLS session within {limit:?}"))??;
            Ok(MaybeHttpsStream::Https(TokioIo::new(stream)))
        })
    }
}
