//! The harness in Consul's catalogue while it runs, so that Prometheus finds `/metrics` by service discovery: Consul's HTTP API of an
//! agent, `PUT /v1/agent/service/register` and `/v1/agent/service/deregister/:id`.
//!
//! A task of its own talks to the agent; the runs never wait for it but at the very end, and not for long.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use bytes::Bytes;
use http::Method;
use http::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::log::warn;
use crate::http::service::Service;

/// Longest wait for an answer of the agent.
const PATIENCE: Duration = Duration::from_secs(2);
/// Runs whose registration may wait; a later one says no more than the one before.
const WAITING: usize = 16;

/// A registration that lasts until [`Registration::end`].
pub(crate) struct Registration {
    runs: mpsc::Sender<Value>,
    task: JoinHandle<()>,
    id: String,
    address: SocketAddr,
}

impl Registration {
    /// A run begins: the service is registered, or its tags are changed.
    pub(crate) fn run(&self, env: &str, test_name: &str) {
        // An agent that has not answered for so many runs answers no more.
        let _ = self.runs.try_send(service(&self.id, self.address, env, test_name));
    }

    /// Takes the service out again.
    pub(crate) async fn end(self) {
        drop(self.runs);
        let mut task = self.task;
        if tokio::time::timeout(2 * PATIENCE, &mut task).await.is_err() {
            task.abort();
        }
    }
}

/// An agent of Consul.
pub(crate) struct Agent {
    service: Service,
    headers: Vec<(HeaderName, HeaderValue)>,
}

impl Agent {
    /// # Errors
    /// When `url` is no URL of an HTTP service, or `token` cannot be sent.
    pub(crate) fn new(url: &str, token: Option<&str>) -> Result<Self> {
        // The environment variable often has no scheme.
        let url = if url.contains("://") { url.to_owned() } else { format!("http://{url}") };
        let service = Service::new("--consul", &url, "http://127.0.0.1:8500")?;
        let mut headers = vec![(CONTENT_TYPE, HeaderValue::from_static("application/json"))];
        if let Some(token) = token {
            let token = HeaderValue::from_str(token);
            let mut token = token.ok().context("CONSUL_HTTP_TOKEN: has characters that no header may have; give the token alone")?;
            token.set_sensitive(true);
            headers.push((HeaderName::from_static("x-consul-token"), token));
        }
        Ok(Self { service, headers })
    }

    /// A service at `metrics`, which nobody knows of until its first [`Registration::run`].
    pub(crate) fn begin(self, metrics: SocketAddr) -> Registration {
        let address = reachable(metrics, self.service.shown());
        let host = sysinfo::System::host_name().unwrap_or_default();
        let host = host.replace(|c: char| !(c.is_ascii_alphanumeric() || c == '-'), "-");
        let id = format!("batchsql-{host}-{}-{}", std::process::id(), address.port());
        let (runs, waiting) = mpsc::channel(WAITING);
        let task = tokio::spawn(self.serve(waiting, id.clone()));
        Registration { runs, task, id, address }
    }

    async fn serve(self, mut waiting: mpsc::Receiver<Value>, id: String) {
        let mut registered = false;
        let mut failed = false;
        while let Some(service) = waiting.recv().await {
            match self.put("/v1/agent/service/register", service.to_string()).await {
                Ok(()) => registered = true,
                Err(error) if !failed => {
                    failed = true;
                    self.fail("the metrics are not registered", &error);
                }
                Err(_) => {}
            }
        }
        if registered && let Err(error) = self.put(&format!("/v1/agent/service/deregister/{id}"), String::new()).await {
            self.fail("the metrics are still registered; Consul drops them once they do not answer", &error);
        }
    }

    async fn put(&self, path: &str, body: String) -> Result<()> {
        let answer = self.service.send(Method::PUT, path, &[], &self.headers, Bytes::from(body), PATIENCE).await?;
        match answer.status.as_u16() {
            200..=299 => Ok(()),
            403 => bail!("it answered 403 Forbidden; give a token with service:write in CONSUL_HTTP_TOKEN"),
            _ => answer.success().map(drop),
        }
    }

    fn fail(&self, what: &str, error: &anyhow::Error) {
        warn(&format!("batchsql: --consul {}: {what}: {error:#}", self.service.shown()));
    }
}

/// What Consul is told.
fn service(id: &str, address: SocketAddr, env: &str, test_name: &str) -> Value {
    let tags = [("env", env), ("test_name", test_name)].into_iter().filter(|(_, value)| !value.is_empty());
    json!({
        "ID": id,
        "Name": "batchsql",
        "Address": address.ip().to_string(),
        "Port": address.port(),
        "Tags": tags.map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>(),
        "Check": {
            "HTTP": format!("http://{address}/health"),
            "Interval": "10s",
            "Timeout": "5s",
            "DeregisterCriticalServiceAfter": "1m",
        },
    })
}

/// Where Consul reaches the metrics: a listener on every address is named by the one that this machine talks to Consul from.
fn reachable(metrics: SocketAddr, consul: &str) -> SocketAddr {
    if !metrics.ip().is_unspecified() {
        return metrics;
    }
    let own = || -> Option<IpAddr> {
        let url = url::Url::parse(consul).ok()?;
        let host = url.host_str()?.trim_matches(['[', ']']);
        let any: IpAddr = if metrics.is_ipv4() { [0; 4].into() } else { [0; 16].into() };
        let socket = UdpSocket::bind((any, 0)).ok()?;
        // Nothing is sent: the system only chooses the way.
        socket.connect((host, url.port_or_known_default()?)).ok()?;
        Some(socket.local_addr().ok()?.ip())
    };
    SocketAddr::new(own().unwrap_or(metrics.ip()), metrics.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_on_every_address_is_named_by_one_that_can_be_reached() {
        let named = |metrics: &str| reachable(metrics.parse().unwrap(), "http://127.0.0.1:8500").to_string();
        assert_eq!(named("127.0.0.1:9464"), "127.0.0.1:9464");
        assert_eq!(named("0.0.0.0:9464"), "127.0.0.1:9464");
    }
}
