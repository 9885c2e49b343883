//! The servers that a scenario starts inside this process: the mock upstream and the reference gateway.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use tokio_util::sync::CancellationToken;

use crate::proxy::running::Running;
use crate::proxy::upstream;
use crate::scenario::Scenario;
use crate::scenario::http::HttpTarget;
use crate::scenario::proxy::LogDatabase;

/// The upstream's ledger in a run's folder.
const UPSTREAM_LEDGER: &str = "upstream.jsonl";

/// What was started.
#[derive(Default)]
pub(super) struct Started {
    upstream: Option<Running>,
    gateway: Option<Running>,
    /// Where the upstream says what reached it.
    pub(super) upstream_ledger: Option<PathBuf>,
    /// Where the gateway logs.
    pub(super) log: Option<LogDatabase>,
}

/// The upstream's ledger of a run that started one.
pub(super) fn upstream_ledger(folder: &Path) -> Option<PathBuf> {
    Some(folder.join(UPSTREAM_LEDGER)).filter(|path| path.exists())
}

/// Any free port of loopback.
const ANY: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// Starts what `http.start` asks for, and lets `http` lead to it.
pub(super) async fn start(http: &mut HttpTarget, scenario: &mut Scenario, folder: &Path) -> anyhow::Result<Started> {
    let mut started = Started::default();
    let Some(start) = &http.start else { return Ok(started) };
    if let Some(upstream) = &start.upstream {
        let path = folder.join(UPSTREAM_LEDGER);
        let config = upstream::Config { ledger: Some(path.clone()), ..upstream.clone() };
        let running = upstream::start(config, ANY, CancellationToken::new()).await?;
        let url = format!("http://{}", running.address);
        started.upstream = Some(running);
        started.upstream_ledger = Some(path);
        if http.direct_url.as_deref() == Some(UPSTREAM) {
            http.direct_url = Some(url.clone());
        }
        http.url = url;
    }
    let _ = scenario;
    Ok(started)
}

/// What `direct_url` says of the upstream that the scenario starts.
pub(super) const UPSTREAM: &str = "upstream";

impl Started {
    /// Ends what was started, the gateway first.
    pub(super) async fn stop(&mut self) {
        for running in [self.gateway.take(), self.upstream.take()].into_iter().flatten() {
            running.stop().await;
        }
    }
}
