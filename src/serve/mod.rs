//! Past runs over HTTP: their reports, the last run of each scenario as metrics, and the alerts that came.
//!
//! What reads is open; whatever changes something passes [`guard`]. Another part of the API is one file with `routes()`, merged in
//! [`router`].

mod alerts;
mod anomalies;
mod baselines;
pub(crate) mod command;
mod guard;
mod lines;
mod page;
mod runs;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use axum::extract::{DefaultBodyLimit, Path as UrlPath, Query, State};
use axum::http::header::{CONTENT_SECURITY_POLICY, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS};
use axum::http::{HeaderValue, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router, middleware};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use self::guard::Guard;
use self::lines::Lines;
use self::runs::{Found, Run, Runs};
use crate::metrics::last_run::LastRun;
use crate::metrics::{PrometheusMetrics, TEXT_FORMAT};
use crate::proxy::running::{self, Running};

/// Largest body of a request.
const LARGEST_BODY: usize = 1 << 20;
/// How many entries a list has unless told otherwise, and at most.
const USUAL_LIMIT: usize = 50;
const MOST_LIMIT: usize = 1000;
/// How long a stop waits for running requests.
const GRACE: Duration = Duration::from_secs(5);
/// A report in a browser may draw, but belongs to nobody: it reaches neither this server nor any other.
const REPORT_POLICY: &str =
    "sandbox allow-scripts; default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:";

/// What every handler knows.
struct Served {
    runs: Runs,
    alerts: Lines,
    report_dir: PathBuf,
    began: Instant,
}

/// Starts to serve `report_dir` on `listen`; it ends once `stop` is cancelled.
///
/// # Errors
/// When the folder cannot be written or the address cannot be had.
pub async fn start(listen: SocketAddr, report_dir: &Path, token: Option<String>, stop: CancellationToken) -> anyhow::Result<Running> {
    let unusable = || format!("--report-dir {}: it cannot be used; name a folder that can be written", report_dir.display());
    std::fs::create_dir_all(report_dir).with_context(unusable)?;
    let lines = |name: &str| Lines::open(report_dir.join(name)).with_context(unusable);
    let guard = Arc::new(Guard::new(token, lines("audit.jsonl")?));
    let (runs, alerts) = (Runs::new(report_dir.to_owned()), lines("alerts.jsonl")?);
    let served = Arc::new(Served { runs, alerts, report_dir: report_dir.to_owned(), began: Instant::now() });
    let taken = || format!("--listen {listen}: cannot listen there; name a free address of this machine, or port 0");
    let listener = running::listen(listen).with_context(taken)?;
    let address = listener.local_addr().with_context(taken)?;
    let service = router(served, guard).into_make_service_with_connect_info::<SocketAddr>();
    let stopped = stop.clone();
    let task = tokio::spawn(async move {
        let serving = axum::serve(listener, service).with_graceful_shutdown(stopped.clone().cancelled_owned());
        let out_of_patience = async {
            stopped.cancelled().await;
            tokio::time::sleep(GRACE).await;
        };
        tokio::select! {
            _ = serving => {}
            () = out_of_patience => {}
        }
    });
    Ok(Running::new(address, stop, task))
}

fn router(served: Arc<Served>, guard: Arc<Guard>) -> Router {
    Router::new()
        .route("/", get(page::index))
        .route("/health", get(health))
        .route("/metrics", get(metrics))
        .route("/api/runs", get(list))
        .route("/api/runs/{id}", get(report))
        .route("/api/runs/{id}/{file}", get(file))
        .merge(alerts::routes())
        .merge(anomalies::routes())
        .merge(baselines::routes())
        .fallback(|uri: Uri| async move { absent(&format!("nothing is at {}; runs are at /, alerts at /api/alerts/recent", uri.path())) })
        .with_state(served)
        .layer(DefaultBodyLimit::max(LARGEST_BODY))
        .layer(middleware::from_fn_with_state(guard, guard::guarded))
}

fn answer(status: StatusCode, message: &str) -> Response {
    (status, Json(json!({"error": message}))).into_response()
}

fn absent(message: &str) -> Response {
    answer(StatusCode::NOT_FOUND, message)
}

fn refused(message: &str) -> Response {
    answer(StatusCode::BAD_REQUEST, message)
}

fn failed(what: &str, error: &dyn std::fmt::Display) -> Response {
    answer(StatusCode::INTERNAL_SERVER_ERROR, &format!("{what}: {error}"))
}

/// How much of a list is asked for.
#[derive(Deserialize)]
struct Limited {
    limit: Option<String>,
}

fn limit(asked: &Limited) -> Result<usize, String> {
    match asked.limit.as_deref().map_or(Ok(USUAL_LIMIT), str::parse) {
        Ok(limit @ 1..=MOST_LIMIT) => Ok(limit),
        _ => Err(format!("limit: a whole number from 1 to {MOST_LIMIT} is expected")),
    }
}

/// Looks at the report folder, on a thread that may wait for the disk.
async fn look(served: &Arc<Served>) -> Result<Found, Response> {
    let served = Arc::clone(served);
    match tokio::task::spawn_blocking(move || served.runs.look()).await {
        Ok(Ok(found)) => Ok(found),
        Ok(Err(error)) => Err(failed("the report folder cannot be read", &error)),
        Err(error) => Err(failed("the report folder was not read", &error)),
    }
}

async fn health(State(served): State<Arc<Served>>) -> Result<Json<Value>, Response> {
    let found = look(&served).await?;
    Ok(Json(json!({
        "status": "ok",
        "version": env!("CARGO_PKG_VERSION"),
        "uptime_seconds": served.began.elapsed().as_secs(),
        "runs": found.runs.len(),
        "skipped": found.skipped,
    })))
}

async fn list(State(served): State<Arc<Served>>, Query(asked): Query<Limited>) -> Result<Json<Value>, Response> {
    let limit = limit(&asked).map_err(|why| refused(&why))?;
    let found = look(&served).await?;
    let runs: Vec<&Run> = found.runs.iter().take(limit).map(AsRef::as_ref).collect();
    Ok(Json(json!({"runs": runs, "total": found.runs.len(), "skipped": found.skipped})))
}

async fn report(served: State<Arc<Served>>, UrlPath(id): UrlPath<String>) -> Response {
    file(served, UrlPath((id, "report.json".to_owned()))).await
}

async fn file(State(served): State<Arc<Served>>, UrlPath((id, file)): UrlPath<(String, String)>) -> Response {
    let found = tokio::task::spawn_blocking(move || served.runs.file(&id, &file)).await;
    let Ok(Some((kind, bytes))) = found else { return absent("there is no such file of a run; /api/runs lists what there is") };
    let fixed = HeaderValue::from_static;
    let headers =
        [(CONTENT_TYPE, fixed(kind)), (X_CONTENT_TYPE_OPTIONS, fixed("nosniff")), (CONTENT_SECURITY_POLICY, fixed(REPORT_POLICY))];
    (headers, bytes).into_response()
}

/// The last run of each scenario on each kind of database.
async fn metrics(State(served): State<Arc<Served>>) -> Result<Response, Response> {
    let found = look(&served).await?;
    let mut last: BTreeMap<(&str, &str), &Run> = BTreeMap::new();
    for run in &found.runs {
        last.entry((&run.scenario, &run.database)).or_insert(run);
    }
    // Made anew each time, so that a scenario whose runs were removed is gone.
    let metrics = PrometheusMetrics::new();
    let mut newest_first: Vec<&Run> = last.into_values().collect();
    newest_first.sort_by(|a, b| b.started_at.cmp(&a.started_at));
    for run in newest_first {
        let started = run.started_at.parse::<jiff::Timestamp>().unwrap_or_default();
        let shown = LastRun {
            database: &run.database,
            test_name: &run.scenario,
            verdict: run.verdict,
            integrity_rate: run.integrity_rate,
            operations_per_second: run.throughput.per_second().filter(|_| run.throughput_valid),
            response_p99_seconds: run.response_p99_ms.map(|ms| ms / 1000.0),
            started_seconds: started.as_millisecond() as f64 / 1000.0,
        };
        shown.show(&metrics);
    }
    Ok(([(CONTENT_TYPE, TEXT_FORMAT)], metrics.render()).into_response())
}
