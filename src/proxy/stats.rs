//! What one sees of the gateway: its API of figures since the last reset, `/metrics`, `/stats` and the dashboard.
//!
//! All of it is fed by [`Stats::record`]. `/metrics` and `/stats` cover the life of the process, `/api/metrics/` the time since the
//! last reset.

mod dashboard;
mod settings;
mod summary;
mod vm;
mod window;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Result;
use axum::extract::State;
use axum::http::header::{CONTENT_TYPE, WWW_AUTHENTICATE};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::Serialize;
use serde_json::json;

use crate::http::served::has_token;
use crate::metrics::aiproxy::{AiProxyMetrics, Request};
use crate::metrics::{PrometheusMetrics, TEXT_FORMAT};
use crate::proxy::seen::Seen;
use crate::runner::say;
pub use settings::{Price, Settings};
pub use summary::{Cost, Group, Summary, Times, Tokens, Totals};
use vm::Vm;
use window::{Recent, Window};

/// The statistics of one gateway. Clones share everything.
#[derive(Clone)]
pub struct Stats {
    shared: Arc<Shared>,
}

struct Shared {
    settings: Settings,
    began: Instant,
    exporter: PrometheusMetrics,
    metrics: AiProxyMetrics,
    live: Mutex<Live>,
    vm: Option<Vm>,
}

/// What is held no longer than it takes to add a request.
struct Live {
    window: Window,
    recent: Recent,
}

/// What `/stats` and `/stats/legacy` answer.
#[derive(Clone, Debug, Serialize)]
struct Answer {
    /// `victoriametrics` or `memory`.
    source: &'static str,
    /// Whether memory answers because the database does not.
    fallback: bool,
    /// Why it does not.
    reason: Option<String>,
    /// Of this process.
    uptime_seconds: f64,
    /// Requests a second that this process saw in each five seconds of the last five minutes.
    requests_per_second: Vec<f64>,
    #[serde(flatten)]
    summary: Summary,
}

impl Stats {
    /// Counts from now on.
    ///
    /// # Errors
    /// When `vm_url` is no URL of an HTTP service.
    pub fn new(settings: Settings) -> Result<Self> {
        let vm = settings.vm_url.as_deref().map(Vm::new).transpose()?;
        let exporter = PrometheusMetrics::with_series_limit(settings.max_series);
        let metrics = AiProxyMetrics::new(&exporter);
        metrics.set_api_keys(0);
        let began = Instant::now();
        let live = Live { window: Window::new(began, settings.reset_interval.0), recent: Recent::new(began) };
        Ok(Self { shared: Arc::new(Shared { settings, began, exporter, metrics, live: Mutex::new(live), vm }) })
    }

    /// How many API keys the gateway knows.
    pub fn set_api_keys(&self, keys: usize) {
        self.shared.metrics.set_api_keys(keys);
    }

    /// How long the write-ahead log of the gateway's SQLite file is.
    pub fn set_wal_bytes(&self, bytes: u64) {
        self.shared.metrics.set_wal_bytes(bytes);
    }

    /// What `/metrics` shows, for whoever has more to show there.
    #[must_use]
    pub fn exporter(&self) -> &PrometheusMetrics {
        &self.shared.exporter
    }

    /// Counts a request that has ended.
    pub fn record(&self, seen: &Seen) {
        let shared = &*self.shared;
        if !shared.settings.enabled {
            return;
        }
        let price = shared.settings.prices.get(&seen.model).copied().unwrap_or_default();
        shared.metrics.record(&Request {
            channel: &seen.channel,
            user_name: &seen.user,
            model: &seen.model,
            protocol: seen.protocol,
            success: seen.success,
            response_time: seen.duration,
            first_token: seen.first_token,
            gaps: &seen.gaps,
            tokens: [seen.prompt_tokens, seen.completion_tokens],
            cost: [
                seen.prompt_tokens as f64 / 1000.0 * price.prompt_per_1k,
                seen.completion_tokens as f64 / 1000.0 * price.completion_per_1k,
            ],
            request_bytes: seen.request_bytes,
            response_bytes: seen.response_bytes,
        });
        let now = Instant::now();
        let mut live = self.live();
        live.window.record(seen, now);
        live.recent.record(now);
    }

    /// Counts a statement the gateway ran on its database.
    pub fn database_query(&self, took: Duration) {
        if self.shared.settings.enabled {
            self.live().window.query(took, Instant::now());
        }
    }

    fn live(&self) -> MutexGuard<'_, Live> {
        self.shared.live.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From the database if there is one and it answers, else from memory.
    async fn answer(&self) -> Answer {
        let memory = self.memory();
        let Some(vm) = &self.shared.vm else { return memory };
        let reason = match vm.samples().await {
            Ok(samples) if samples.is_empty() && memory.summary.totals.requests > 0 => {
                "it has no aiproxy_* series of a gateway yet; let it scrape the gateway's /metrics".to_owned()
            }
            Ok(samples) => return Answer { source: "victoriametrics", summary: Summary::of(&samples), ..memory },
            Err(error) => format!("{error:#}"),
        };
        Answer { fallback: true, reason: Some(format!("{}: {reason}", vm.shown())), ..memory }
    }

    fn memory(&self) -> Answer {
        let now = Instant::now();
        Answer {
            source: "memory",
            fallback: false,
            reason: None,
            uptime_seconds: now.duration_since(self.shared.began).as_secs_f64(),
            requests_per_second: self.live().recent.per_second(now),
            summary: Summary::of(&self.shared.metrics.samples()),
        }
    }

    /// Whether this is the administrator; the answer to send if not.
    fn admitted(&self, headers: &HeaderMap) -> Result<(), Box<Response>> {
        let refused = |status, message| Err(Box::new((status, Json(json!({"success": false, "message": message}))).into_response()));
        let Some(token) = self.shared.settings.admin_token.as_deref().filter(|token| !token.is_empty()) else {
            return refused(StatusCode::FORBIDDEN, "closed: the gateway has no admin_token; configure one");
        };
        if has_token(headers, token) {
            return Ok(());
        }
        refused(StatusCode::UNAUTHORIZED, "the admin token is expected: Authorization: Bearer TOKEN").map_err(|mut response| {
            response.headers_mut().insert(WWW_AUTHENTICATE, axum::http::HeaderValue::from_static("Bearer"));
            response
        })
    }
}

/// Everything one can see of these statistics, or nothing if they are switched off.
pub fn routes(stats: Stats) -> Router {
    if !stats.shared.settings.enabled {
        return Router::new();
    }
    Router::new()
        .route("/metrics", get(metrics))
        .route("/api/metrics", get(figures))
        .route("/api/metrics/", get(figures))
        .route("/api/metrics/reset", post(reset))
        .route("/stats", get(async |State(stats): State<Stats>| Json(stats.answer().await)))
        .route("/stats/legacy", get(async |State(stats): State<Stats>| Json(stats.memory())))
        .route("/health/vm", get(health))
        .route("/dashboard", get(dashboard::page))
        .with_state(stats)
}

async fn metrics(State(stats): State<Stats>) -> impl IntoResponse {
    ([(CONTENT_TYPE, TEXT_FORMAT)], stats.shared.exporter.render())
}

async fn figures(State(stats): State<Stats>, headers: HeaderMap) -> Response {
    match stats.admitted(&headers) {
        Ok(()) => Json(json!({"success": true, "data": stats.live().window.figures(Instant::now())})).into_response(),
        Err(refused) => *refused,
    }
}

async fn reset(State(stats): State<Stats>, headers: HeaderMap) -> Response {
    let admitted = stats.admitted(&headers);
    // The one thing here that changes something is written down.
    let outcome = if admitted.is_ok() { "done" } else { "refused" };
    say(&format!("[SYS] POST /api/metrics/reset: {outcome}"));
    match admitted {
        Ok(()) => {
            stats.live().window.reset(Instant::now());
            Json(json!({"success": true, "message": "the figures begin anew"})).into_response()
        }
        Err(refused) => *refused,
    }
}

async fn health(State(stats): State<Stats>) -> impl IntoResponse {
    let down = |url, reason| (StatusCode::SERVICE_UNAVAILABLE, Json(json!({"status": "down", "url": url, "reason": reason})));
    let Some(vm) = &stats.shared.vm else { return down(None, "VM_URL is not set".to_owned()) };
    match vm.check().await {
        Ok(()) => (StatusCode::OK, Json(json!({"status": "ok", "url": vm.shown()}))),
        Err(error) => down(Some(vm.shown()), format!("{error:#}")),
    }
}

#[cfg(test)]
mod tests;
