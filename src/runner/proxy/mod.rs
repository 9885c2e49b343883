//! Requests: an HTTP service under load; its replies, its upstream and its log held against what was asked.

mod judge;
mod lane;
mod measure;
mod meter;
mod process;
mod request;
mod started;
mod timer;
mod verify;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::time::Instant;

use anyhow::{Context as _, bail};
use async_trait::async_trait;
use tokio::sync::{Semaphore, oneshot};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::{Drive, Offered, Options, Progress, Run};
use crate::fault::{Faults, Marks};
use crate::http::Config;
use crate::ledger;
use crate::ledger::requests::{RequestLedger, RequestWriter};
use crate::metrics::{PrometheusMetrics, PrometheusMetricsReporter};
use crate::recorder::Phase;
use crate::report::{HttpReport, Integrity, TargetSeen, TargetUse};
use crate::scenario::http::{ClientSettings, HttpTarget};
use crate::scenario::proxy::{LogDatabase, ProxyRequest};
use crate::scenario::{Scenario, TargetConfig, Workload};
use crate::target::{PoolUse, TargetError};
use crate::workload::proxy_request::Generator;
use lane::Shared;
use measure::Measured;
use meter::Meter;
use request::Builder;
use started::Started;

/// Requests in flight at once under an arrival rate, unless the scenario says otherwise.
const MAX_IN_FLIGHT: usize = 10_000;

struct Requests {
    proxy: ProxyRequest,
    shared: Arc<Shared>,
    lanes: Vec<JoinHandle<Result<Measured, String>>>,
    report: Option<HttpReport>,
    load_ended: Instant,
    started: Started,
    upstream_ledger: Option<PathBuf>,
    log: Option<LogDatabase>,
}

/// Starts what the scenario starts, and makes sure that the service answers.
pub(super) async fn begin(
    id: &str,
    folder: &Path,
    scenario: Scenario,
    reached: &TargetConfig,
    options: Options,
    faults: &Faults,
) -> anyhow::Result<(Run, Box<dyn Drive>)> {
    let Workload::ProxyRequest(mut proxy) = scenario.workload.clone() else { bail!("the workload is requests") };
    let mut http = reached.http.clone().context("the target is an HTTP service")?;
    let started = started::start(&mut http, &mut proxy, folder).await?;
    faults.lead_to(&http.url)?;
    let settings = http.client.over(http.profile);
    for (key, url) in [("target.http.url", Some(&http.url)), ("target.http.direct_url", http.direct_url.as_ref())] {
        if let Some(url) = url {
            reach(key, url, &settings).await?;
        }
    }
    let lanes = lanes(&scenario, &settings);
    let routes: Vec<String> = proxy.mix.iter().map(|mix| mix.route().to_owned()).collect();
    let reporter = options.metrics.as_ref().map(|metrics| reporter(metrics, &scenario.name, &routes));
    let upstream_ledger = started.upstream_ledger.clone().or_else(|| scenario.verify.upstream_ledger.clone().map(PathBuf::from));
    let log = scenario.reconcile.as_ref().and_then(|reconcile| reconcile.database.clone()).or_else(|| started.log.clone());
    let log = log.filter(|_| scenario.reconcile.is_some());
    let run = Run::new(id, folder, scenario, options, lanes, reporter)?;
    let header = ledger::Header { version: ledger::VERSION, run_id: id.to_owned(), seed: run.scenario.seed };
    let writer = RequestWriter::create(&folder.join(ledger::FILE), &header)
        .with_context(|| format!("the ledger in {} cannot be written; name another --report-dir", folder.display()))?;
    let shared = Arc::new(shared(&run, &http, &proxy, &settings, lanes, writer, routes)?);
    let requests = Requests { proxy, shared, lanes: Vec::new(), report: None, load_ended: run.epoch, started, upstream_ledger, log };
    Ok((run, Box::new(requests)))
}

/// Threads of load: one a core, but no more than there are workers or connections to share.
fn lanes(scenario: &Scenario, settings: &ClientSettings) -> usize {
    let cores = std::thread::available_parallelism().map_or(2, usize::from);
    let load = &scenario.load;
    let most = load.stages.iter().map(|stage| stage.target as usize).max().unwrap_or(0).max(load.vus.unwrap_or(1) as usize);
    let workers = if load.executor.is_open() { cores } else { most };
    cores.min(workers).min(settings.max_per_host.unwrap_or(cores)).max(1)
}

fn shared(
    run: &Run,
    http: &HttpTarget,
    proxy: &ProxyRequest,
    settings: &ClientSettings,
    lanes: usize,
    ledger: RequestWriter,
    routes: Vec<String>,
) -> anyhow::Result<Shared> {
    let generator = Generator::new(run.scenario.seed, &run.id, proxy);
    let load = &run.scenario.load;
    let direct = http.direct_url.as_ref().map(|url| config(http, url, settings, lanes)).transpose()?;
    // Faults stand before the service alone.
    let direct = direct.map(|direct| Config { via: None, ..direct });
    let places = load.max_in_flight.map_or(MAX_IN_FLIGHT, |most| usize::try_from(most).unwrap_or(Semaphore::MAX_PERMITS));
    Ok(Shared {
        direct_builder: direct.is_some().then(|| Builder::new(proxy, generator.paired())),
        builder: Builder::new(proxy, generator),
        config: config(http, &http.url, settings, lanes)?,
        direct,
        schedule: run.schedule.clone(),
        arrivals: load.arrivals,
        saturation: load.saturation,
        think_time: load.think_time.0,
        seed: run.scenario.seed,
        epoch: run.epoch,
        main: load.warmup.0,
        cap: proxy.requests.unwrap_or(u64::MAX),
        lanes: lanes as u64,
        stop: run.stop.clone(),
        hold: Arc::clone(&run.hold),
        recorder: Arc::clone(&run.recorder),
        tally: Arc::clone(&run.tally),
        faults: Arc::clone(&run.faults),
        ledger,
        reporter: run.reporter.clone(),
        trace: run.trace.clone(),
        meter: run.options.metrics.as_ref().map(|metrics| Meter::new(metrics, proxy, &http.url)),
        routes,
        secrets: run.options.secrets.clone(),
        places: Arc::new(Semaphore::new(places)),
        next: AtomicU64::new(0),
        in_flight: AtomicUsize::new(0),
        active: (0..lanes).map(|_| AtomicU32::new(0)).collect(),
        server: OnceLock::new(),
    })
}

/// One lane's client: its share of the connections.
fn config(http: &HttpTarget, url: &str, settings: &ClientSettings, lanes: usize) -> anyhow::Result<Config> {
    let share = |all: usize| all.div_ceil(lanes);
    let settings = ClientSettings {
        max_idle: share(settings.max_idle),
        max_idle_per_host: share(settings.max_idle_per_host),
        max_per_host: settings.max_per_host.map(|most| (most / lanes).max(1)),
        ..*settings
    };
    Ok(Config {
        url: url.parse().with_context(|| format!("target.http.url {url:?} is no URL"))?,
        version: http.version,
        ca_file: http.ca_file.clone().map(PathBuf::from),
        settings,
        timeouts: http.timeouts,
        limits: http.limits,
        via: http.via,
    })
}

/// A service that nobody runs is told before the load begins.
async fn reach(key: &str, url: &str, settings: &ClientSettings) -> Result<(), TargetError> {
    let unreachable = |found: &str| {
        TargetError::Unreachable(format!("nothing answers at {url} ({found}); start the service, or correct {key} or --target-url"))
    };
    let parsed: url::Url = url.parse().map_err(|error: url::ParseError| unreachable(&error.to_string()))?;
    let host = parsed.host_str().unwrap_or_default().trim_matches(['[', ']']).to_owned();
    let port = parsed.port_or_known_default().unwrap_or(80);
    match timeout(settings.connect_timeout.0, tokio::net::TcpStream::connect((host, port))).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => Err(unreachable(&error.to_string())),
        Err(_) => Err(unreachable(&format!("no connection within {:?}", settings.connect_timeout.0))),
    }
}

fn reporter(metrics: &PrometheusMetrics, name: &str, routes: &[String]) -> PrometheusMetricsReporter {
    let sizes = crate::metrics::Pipeline { buffer_size: 1, flush_size: 1, concurrency: 1 };
    let reporter = PrometheusMetricsReporter::new(metrics, "http", name, sizes);
    for route in routes {
        reporter.expect_table(route);
    }
    reporter
}

#[async_trait]
impl Drive for Requests {
    fn gauges(&self) -> Arc<dyn super::Gauges> {
        Arc::new(Gauges(Arc::clone(&self.shared)))
    }

    fn marks(&self) -> Option<Arc<dyn Marks>> {
        Some(Arc::<Shared>::clone(&self.shared))
    }

    async fn offer(&mut self, run: &Run) -> Offered {
        let mut told = Vec::new();
        for number in 0..self.shared.lanes {
            let (sender, receiver) = oneshot::channel();
            let shared = Arc::clone(&self.shared);
            self.lanes.push(tokio::task::spawn_blocking(move || lane::run(&shared, number, sender)));
            told.push(receiver);
        }
        let mut offered = Offered { whole_schedule: true, ..Offered::default() };
        for receiver in told {
            // A lane that could not begin says why when it is joined.
            let lane = receiver
                .await
                .unwrap_or_else(|_| Offered { aborted: Some("a lane of the load ended early".to_owned()), ..Offered::default() });
            offered.merge(lane);
        }
        if run.stop.is_cancelled() {
            offered.whole_schedule = false;
        }
        offered
    }

    async fn drain(&mut self, run: &Run) {
        let mut all = Measured::new(self.shared.routes.len());
        for lane in std::mem::take(&mut self.lanes) {
            match lane.await {
                Ok(Ok(measured)) => all.merge(measured),
                Ok(Err(error)) => run.tally.keep(Err(std::io::Error::other(error))),
                Err(error) => run.tally.keep(Err(std::io::Error::other(format!("a lane of the load failed: {error}")))),
            }
        }
        self.load_ended = Instant::now();
        run.tally.keep(self.shared.ledger.close(self.shared.next.load(Ordering::Relaxed)));
        let main = run.recorder.phase(Phase::Main).last_acknowledged.saturating_sub(run.scenario.load.warmup.0);
        self.report = Some(all.report(self.shared.routes.clone(), main.as_secs_f64()));
    }

    async fn before_verify(&mut self, run: &Run, command: &str) -> Result<(), String> {
        super::verify::hook(run, command, None).await
    }

    async fn prove(&mut self, run: &Run) -> Integrity {
        let ledger = match RequestLedger::read(&run.folder.join(ledger::FILE)) {
            Ok(ledger) => ledger,
            Err(error) => return Integrity::inconclusive(error.to_string()),
        };
        let evidence = verify::Evidence { ledger: &ledger, upstream_ledger: self.upstream_ledger.as_deref(), log: self.log.as_ref() };
        verify::verify(&run.scenario, &self.proxy, &evidence, self.load_ended, &run.options.progress.phase("verify")).await
    }

    /// What was verified is no sign: ledgers and log outlive a service.
    async fn gone(&mut self, _: &Integrity) -> bool {
        let config = &self.shared.config;
        reach("target.http.url", config.url.as_str(), &config.settings).await.is_err()
    }

    fn seen(&self) -> TargetSeen {
        let settings = match serde_json::to_value(self.shared.config.settings) {
            Ok(serde_json::Value::Object(settings)) => {
                settings.into_iter().map(|(key, value)| (key, value.as_str().map_or_else(|| value.to_string(), str::to_owned))).collect()
            }
            _ => Default::default(),
        };
        let server = self.shared.server.get().filter(|server| !server.is_empty());
        TargetSeen {
            name: server.map(String::as_str).or(self.started.name()).unwrap_or("HTTP service").to_owned(),
            version: format!("at {}", self.shared.config.url.as_str().trim_end_matches('/')),
            database: "http".to_owned(),
            settings,
            method: String::new(),
            container: None,
        }
    }

    fn http(&self) -> Option<HttpReport> {
        self.report.clone()
    }

    fn used(&self) -> Option<TargetUse> {
        self.started.used
    }

    async fn end(&mut self) {
        self.started.stop().await;
    }
}

struct Gauges(Arc<Shared>);

impl super::Gauges for Gauges {
    fn queue_length(&self) -> usize {
        self.in_flight().saturating_sub(self.pool().active as usize)
    }

    fn in_flight(&self) -> usize {
        self.0.in_flight.load(Ordering::Relaxed)
    }

    fn pool(&self) -> PoolUse {
        let active = self.0.active.iter().map(|active| active.load(Ordering::Relaxed)).sum();
        let most = self.0.config.settings.max_per_host.map_or(0, |most| most * self.0.active.len());
        PoolUse { active, max: u32::try_from(most).unwrap_or(u32::MAX) }
    }
}

/// Judges a run again, from its ledger, the upstream's and the gateway's log.
pub(super) async fn verify_again(
    scenario: &Scenario,
    proxy: &ProxyRequest,
    folder: &Path,
    progress: &Progress,
) -> anyhow::Result<Integrity> {
    let upstream_ledger = scenario.verify.upstream_ledger.clone().map(PathBuf::from).or_else(|| started::upstream_ledger(folder));
    let log = scenario.reconcile.as_ref().and_then(|reconcile| reconcile.database.clone().or_else(|| started::log(folder, scenario)));
    if let Some(log) = &log {
        super::verify::password_is_known(folder, &log.postgres, &log.mysql)?;
    }
    let ledger = RequestLedger::read(&folder.join(ledger::FILE))?;
    let evidence = verify::Evidence { ledger: &ledger, upstream_ledger: upstream_ledger.as_deref(), log: log.as_ref() };
    let integrity = verify::verify(scenario, proxy, &evidence, Instant::now(), &progress.phase("verify")).await;
    // The load ended who knows when.
    Ok(Integrity { log_lag_seconds: None, ..integrity })
}
