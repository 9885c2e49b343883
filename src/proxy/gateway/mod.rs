//! The reference gateway: an OpenAI-compatible reverse proxy that knows its users, spreads requests over its upstreams by weight and
//! logs each request to a database. Small and real: what it is for is being measured and checked.
//!
//! A request: `forward` (who asks, for which model, to which channel) → `outbound` → `relay` or `websocket` → `ticket` (log, quota,
//! counts, a line), which no request escapes.

mod accounts;
mod channels;
pub mod config;
mod forward;
mod load;
mod log;
mod outbound;
mod refusal;
mod relay;
mod scan;
mod store;
mod ticket;
mod websocket;

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use axum::extract::{Request, State};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get};
use axum::serve::ListenerExt as _;
use axum::{Json, Router};
use http::{HeaderName, HeaderValue, StatusCode};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::accounts::{Account, Accounts};
use self::channels::Channels;
pub use self::config::{Channel, Config, User};
pub use self::load::load;
use self::log::Log;
use self::outbound::Outbound;
use self::refusal::Refusal;
use self::store::Store;
use crate::proxy::running::{self, Running};
use crate::proxy::seen::Seen;
use crate::proxy::stats::{self, Stats};
use crate::target::{self, Context, Database, Target, TargetInfo};
use crate::telemetry::log::{say, warn};
use crate::telemetry::profile;

/// The SQLite file where none is named.
const DEFAULT_FILE: &str = "reports/data/gateway.db";
/// How long a stop waits for running requests.
const GRACE: Duration = Duration::from_secs(30);
/// How long requests that were ended at last may take to be written down.
const LAST_WORDS: Duration = Duration::from_secs(10);

/// A running gateway.
struct Gateway {
    config: Config,
    accounts: Accounts,
    channels: Channels,
    outbound: Outbound,
    log: Log,
    store: Arc<Store>,
    target: Arc<dyn Target>,
    stats: Stats,
    /// SQLite's write-ahead log, if there can be one, and the most bytes it was seen with.
    wal: Option<PathBuf>,
    wal_bytes_max: AtomicU64,
    /// Whatever has to be done after a reply has ended.
    tasks: TaskTracker,
    /// Ends running requests.
    kill: CancellationToken,
    /// For ids of requests that bring none.
    made: AtomicU64,
    /// Seconds since 1970 at the start, so that ids of two starts differ.
    epoch: u64,
    started: Instant,
}

/// Starts a gateway on `listen`; it ends, with everything written, once `stop` is cancelled.
///
/// # Errors
/// When `config` contradicts itself, or the database or the address cannot be had.
pub async fn start(config: Config, listen: SocketAddr, stop: CancellationToken) -> anyhow::Result<Running> {
    let problems: Vec<String> = config.problems().into_iter().map(|(path, message)| format!("{path}: {message}")).collect();
    anyhow::ensure!(problems.is_empty(), "{}", problems.join("\n"));
    let in_use = || format!("--listen {listen} cannot be had; name a free address");
    let listener = running::listen(listen).with_context(in_use)?;
    let address = listener.local_addr().with_context(in_use)?;
    let gateway = Arc::new(Gateway::open(config).await?);
    if gateway.config.access_log {
        gateway.target.info().settings.iter().for_each(|setting| say(&setting_line(gateway.target.info(), setting)));
    }
    if gateway.config.pprof.enabled {
        let port = gateway.config.pprof.port;
        let asked = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let address = profile::start(asked, &format!("PPROF_PORT {port}"), stop.clone()).await?;
        say(&format!("[SYS] CPU profile on http://{address}/debug/pprof/"));
    }
    let router = router(&gateway);
    let task = tokio::spawn(serve(gateway, listener, router, stop.clone()));
    Ok(Running::new(address, stop, task))
}

/// `[SYS] SQLite PRAGMA: journal_mode = WAL`, as the program's own connection has it.
fn setting_line(info: &TargetInfo, (name, value): &(String, String)) -> String {
    let kind = if info.name == "SQLite" { "PRAGMA" } else { "setting" };
    format!("[SYS] {} {kind}: {name} = {value}", info.name)
}

impl Gateway {
    async fn open(mut config: Config) -> anyhow::Result<Self> {
        let sqlite = config.log.database.sqlite_mut();
        let path = sqlite.map(|sqlite| PathBuf::from(&*sqlite.path.get_or_insert_with(|| DEFAULT_FILE.to_owned())));
        let context =
            Context { run_id: "gateway", scenario_name: "gateway", report_dir: Path::new("reports"), concurrency: None, create: true };
        // The target speaks of a scenario's keys.
        let here = |error: target::TargetError| {
            anyhow::Error::msg(error.to_string().replace(" or --database-url", "").replace("target.", "log.database."))
        };
        let target = target::connect(&config.log.database.target(), &context).await.map_err(here)?;
        let stats = Stats::new(config.metrics.clone()).context("metrics")?;
        stats.set_api_keys(config.users.len());
        let store = Arc::new(Store::open(&config.log.database, path.clone().unwrap_or_default(), stats.clone()).await?);
        let last_id = store.prepare(target.as_ref(), &log::table(), &config.users).await.context("log.database")?;
        Ok(Self {
            accounts: Accounts::new(&config, Arc::clone(&store)),
            channels: Channels::new(config.channels.clone()),
            outbound: Outbound::new(&config.channels, &config.http.settings())?,
            log: Log::start(&config.log, Arc::clone(&target), last_id, stats.clone())?,
            store,
            target,
            stats,
            wal: path.map(|path| {
                let mut path = path.into_os_string();
                path.push("-wal");
                path.into()
            }),
            wal_bytes_max: AtomicU64::new(0),
            tasks: TaskTracker::new(),
            kill: CancellationToken::new(),
            made: AtomicU64::new(0),
            epoch: SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs(),
            started: Instant::now(),
            config,
        })
    }

    /// A request has ended: its quota, its log row, its counts and its line. Returns whether its reply may end well.
    async fn ended(&self, seen: &Seen, account: Option<&Account>, line: &str) -> bool {
        if let Some(account) = account
            && let Err(error) = self.accounts.spend(account, seen.prompt_tokens + seen.completion_tokens).await
        {
            warn(&format!("[SYS] quota: {error:#}"));
        }
        let well = self.log.write(seen).await;
        self.stats.record(seen);
        if self.config.access_log {
            say(&access_line(seen, line, self.config.slow_request.0));
        }
        well
    }

    /// Bytes of SQLite's write-ahead log now; 0 where there is none.
    fn wal_bytes(&self) -> u64 {
        let bytes = self.wal.as_ref().and_then(|path| std::fs::metadata(path).ok()).map_or(0, |file| file.len());
        self.wal_bytes_max.fetch_max(bytes, Ordering::Relaxed);
        if self.wal.is_some() {
            self.stats.set_wal_bytes(bytes);
        }
        bytes
    }

    /// What recurs until `kill`: used quota is written back, the write-ahead log is looked at.
    async fn keep_house(self: Arc<Self>, until: CancellationToken) {
        loop {
            self.wal_bytes();
            tokio::select! {
                () = tokio::time::sleep(self.config.quota_updates.interval.0) => {}
                () = until.cancelled() => break,
            }
            self.flush_quota().await;
        }
    }

    async fn flush_quota(&self) {
        if let Err(error) = self.accounts.flush().await {
            warn(&format!("[SYS] quota: {error:#}; tried again at the next turn"));
        }
    }

    /// Writes what is not written yet, and ends the connections.
    async fn close(&self) {
        self.flush_quota().await;
        self.wal_bytes();
        self.log.close().await;
        self.store.close().await;
        // SQLite's write-ahead log is written back and cut here.
        if let Err(error) = self.target.quiesce(&BTreeSet::new(), LAST_WORDS).await {
            warn(&format!("[SYS] log: {error}"));
        }
        let lost = self.log.state().lost;
        if lost > 0 {
            warn(&format!("[SYS] log: {lost} rows of request_logs were not written since the start"));
        }
    }
}

/// One line a request, its response time at the end.
fn access_line(seen: &Seen, line: &str, slow: Duration) -> String {
    let Seen { request_id, user, channel, model, status, header_after, .. } = seen;
    let slow = if *header_after >= slow { "slow request " } else { "" };
    let model = model.escape_debug();
    format!("{slow}{request_id} {status} {line} user={user} channel={channel} model={model} {:.2}ms", header_after.as_secs_f64() * 1e3)
}

fn router(gateway: &Arc<Gateway>) -> Router {
    Router::new()
        .route("/v1/{*path}", any(forward::forward))
        .route("/health", get(health))
        .fallback(|request: Request| async move {
            let message = format!("nothing is at {}; models are at /v1/…, the gateway's state at /health", request.uri().path());
            Refusal::new(StatusCode::NOT_FOUND, "unknown_url", message)
        })
        .with_state(Arc::clone(gateway))
        .merge(stats::routes(gateway.stats.clone()))
        .layer(middleware::from_fn_with_state(Arc::clone(gateway), timed))
}

/// When a request came, and what it is called.
#[derive(Clone)]
struct Arrival {
    began: Instant,
    request_id: String,
}

/// Names each request and says on each reply how long it took (a stream: to its header).
async fn timed(State(gateway): State<Arc<Gateway>>, mut request: Request, next: Next) -> Response {
    const ID: HeaderName = HeaderName::from_static("x-request-id");
    const TIME: HeaderName = HeaderName::from_static("x-response-time-ms");
    let began = Instant::now();
    let fits = |id: &&str| !id.is_empty() && id.len() <= log::ID_CHARS as usize && id.bytes().all(|byte| byte.is_ascii_graphic());
    let brought = request.headers().get(ID).and_then(|id| id.to_str().ok()).filter(fits).map(str::to_owned);
    let request_id = brought.unwrap_or_else(|| {
        let number = gateway.made.fetch_add(1, Ordering::Relaxed);
        format!("gw-{:x}-{number}", gateway.epoch)
    });
    request.extensions_mut().insert(Arrival { began, request_id: request_id.clone() });
    let mut reply = next.run(request).await;
    let milliseconds = format!("{:.2}", began.elapsed().as_secs_f64() * 1e3);
    for (name, value) in [(ID, request_id), (TIME, milliseconds)] {
        if let Ok(value) = HeaderValue::try_from(value) {
            reply.headers_mut().insert(name, value);
        }
    }
    reply
}

async fn health(State(gateway): State<Arc<Gateway>>) -> impl IntoResponse {
    let info = gateway.target.info();
    let settings: serde_json::Map<_, _> = info.settings.iter().map(|(name, value)| (name.clone(), value.clone().into())).collect();
    let wal = (gateway.target.database() == Database::Sqlite)
        .then(|| serde_json::json!({"bytes": gateway.wal_bytes(), "bytes_max": gateway.wal_bytes_max.load(Ordering::Relaxed)}));
    let log = gateway.log.state();
    Json(serde_json::json!({
        "status": if log.lost == 0 { "ok" } else { "degraded" },
        "uptime_seconds": gateway.started.elapsed().as_secs(),
        "users": gateway.accounts.len(),
        "database": {"name": info.name, "version": info.version, "settings": settings, "wal": wal,
            "writes": gateway.store.committed() + log.committed},
        "log": {"batched": gateway.config.log.batch.enabled, "pending": log.pending, "lost": log.lost},
    }))
}

/// Serves until `stop`, lets what is running end, and writes everything down.
async fn serve(gateway: Arc<Gateway>, listener: TcpListener, router: Router, stop: CancellationToken) {
    // A token must not wait for the acknowledgement of the one before.
    let listener = listener.tap_io(|stream| drop(stream.set_nodelay(true)));
    let ended = CancellationToken::new();
    let house = tokio::spawn(Arc::clone(&gateway).keep_house(ended.clone()));
    let serving = axum::serve(listener, router).with_graceful_shutdown(stop.clone().cancelled_owned());
    let mut serving = tokio::spawn(serving.into_future());
    // Closed or not, it takes tasks; it is waited for once nothing can start any.
    gateway.tasks.close();
    let out_of_patience = async {
        stop.cancelled().await;
        tokio::time::sleep(GRACE).await;
    };
    // Sessions of WebSockets are no longer served by then, but may be running.
    let all_done = async {
        let _ = (&mut serving).await;
        gateway.tasks.wait().await;
    };
    tokio::select! {
        () = all_done => {}
        () = out_of_patience => {}
    }
    gateway.kill.cancel();
    let _ = tokio::time::timeout(LAST_WORDS, gateway.tasks.wait()).await;
    serving.abort();
    ended.cancel();
    let _ = house.await;
    gateway.close().await;
}
