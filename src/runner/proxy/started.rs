//! The servers that a scenario starts inside this process: the mock upstream and the reference gateway.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::ensure;
use tokio_util::sync::CancellationToken;

use super::process::{self, Process};
use crate::http::service::Service;
use crate::proxy::running::Running;
use crate::proxy::{gateway, upstream};
use crate::report::TargetUse;
use crate::scenario::http::{HttpTarget, UPSTREAM};
use crate::scenario::proxy::{LogDatabase, ProxyRequest};
use crate::scenario::{Scenario, Workload};

/// The upstream's ledger in a run's folder.
const UPSTREAM_LEDGER: &str = "upstream.jsonl";
/// The gateway's log there, if it is none of the scenario's.
const GATEWAY_LOG: &str = "gateway.db";

/// What was started.
#[derive(Default)]
pub(super) struct Started {
    upstream: Option<Running>,
    gateway: Option<Running>,
    /// The gateway instead, in a process of its own.
    process: Option<Process>,
    /// What the gateway used, once it has ended.
    pub(super) used: Option<TargetUse>,
    /// Ends both when a run is given up.
    given_up: CancellationToken,
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
pub(super) async fn start(http: &mut HttpTarget, proxy: &mut ProxyRequest, folder: &Path) -> anyhow::Result<Started> {
    let mut started = Started::default();
    let Some(start) = http.start.take() else { return Ok(started) };
    if let Some(config) = start.upstream {
        let ledger = folder.join(UPSTREAM_LEDGER);
        let running = upstream::start(upstream::Config { ledger: Some(ledger.clone()), ..config }, ANY, started.given_up.clone()).await?;
        http.url = format!("http://{}", running.address);
        if http.direct_url.as_deref() == Some(UPSTREAM) {
            http.direct_url = Some(http.url.clone());
        }
        started.upstream = Some(running);
        started.upstream_ledger = Some(ledger);
    }
    if let Some(config) = start.gateway {
        let config = completed(config, &http.url, proxy, folder);
        let problems: Vec<String> =
            config.problems().into_iter().map(|(path, what)| format!("target.http.start.gateway.{path}: {what}")).collect();
        ensure!(problems.is_empty(), "{}", problems.join("\n"));
        started.log = Some(log_of(&config));
        let address = if start.own_process {
            started.process.insert(process::start(config, folder).await?).address
        } else {
            started.gateway.insert(gateway::start(config, ANY, started.given_up.clone()).await?).address
        };
        http.url = format!("http://{address}");
    }
    Ok(started)
}

/// The gateway's settings with what the scenario knows: its upstream, its users, a log in the run's folder.
fn completed(mut config: gateway::Config, upstream: &str, proxy: &mut ProxyRequest, folder: &Path) -> gateway::Config {
    if config.channels.is_empty() {
        let channel =
            gateway::Channel { name: "upstream".to_owned(), url: upstream.to_owned(), api_key: None, weight: 1, models: Vec::new() };
        config.channels.push(channel);
    }
    if config.users.is_empty() {
        for user in &mut proxy.users {
            let key = user.key.get_or_insert_with(|| format!("sk-{}", user.name.replace(|c: char| !c.is_ascii_graphic(), "-"))).clone();
            config.users.push(gateway::User { name: user.name.clone(), key, quota: None, channels: Vec::new() });
        }
    }
    let database = &mut config.log.database;
    if database.postgres.is_none() && database.mysql.is_none() {
        database.sqlite.get_or_insert_default().path.get_or_insert_with(|| folder.join(GATEWAY_LOG).display().to_string());
    }
    config
}

fn log_of(config: &gateway::Config) -> LogDatabase {
    let database = &config.log.database;
    LogDatabase { sqlite: database.sqlite.clone(), postgres: database.postgres.clone(), mysql: database.mysql.clone() }
}

/// The log of a gateway that a run started, for judging the run again.
pub(super) fn log(folder: &Path, scenario: &Scenario) -> Option<LogDatabase> {
    let gateway = scenario.target.http.as_ref()?.start.as_ref()?.gateway.clone()?;
    let Workload::ProxyRequest(mut proxy) = scenario.workload.clone() else { return None };
    Some(log_of(&completed(gateway, "", &mut proxy, folder)))
}

impl Started {
    /// What requests go to, if it was started.
    pub(super) fn name(&self) -> Option<&'static str> {
        let gateway = (self.gateway.is_some() || self.process.is_some()).then_some("batchsql proxy");
        gateway.or(self.upstream.as_ref().map(|_| "batchsql upstream"))
    }

    /// Ends what was started, the gateway first.
    pub(super) async fn stop(&mut self) {
        let own = self.process.as_ref().map(|process| process.address);
        if let Some(address) = own.or(self.gateway.as_ref().map(|running| running.address)) {
            self.used = Some(written(address).await);
        }
        if let Some(process) = self.process.take()
            && let Some(resources) = process.stop().await
            && let Some(used) = &mut self.used
        {
            (used.cpu_seconds, used.rss_bytes_max) = (Some(resources.cpu_seconds), Some(resources.rss_bytes_max));
        }
        for running in [self.gateway.take(), self.upstream.take()].into_iter().flatten() {
            running.stop().await;
        }
    }
}

/// What a gateway says of its own database.
async fn written(address: SocketAddr) -> TargetUse {
    const LIMIT: Duration = Duration::from_secs(5);
    let asked = async {
        let service = Service::new("target.http.start.gateway", &format!("http://{address}"), "http://127.0.0.1:3001").ok()?;
        let body = service.get("/health", &[], LIMIT).await.ok()?.success().ok()?;
        serde_json::from_slice::<serde_json::Value>(&body).ok()
    };
    let health = asked.await.unwrap_or_default();
    let database = &health["database"];
    TargetUse { database_writes: database["writes"].as_u64(), wal_bytes: database["wal"]["bytes_max"].as_u64(), ..TargetUse::default() }
}

impl Drop for Started {
    fn drop(&mut self) {
        self.given_up.cancel();
    }
}
