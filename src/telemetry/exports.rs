//! Everything that is pushed during one call of `run`: which receivers, and when.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::time::{MissedTickBehavior, interval_at};
use tokio_util::sync::CancellationToken;

use super::otlp::{self, OtlpMetrics};
use super::remote_write::{self, RemoteWrite};
use super::trace::{self, RunTrace, Traces, unix_nanos};
use crate::http::service::Service;
use crate::metrics::PrometheusMetrics;
use crate::scenario::Scenario;

/// From one push of the metrics to the next.
const METRICS_EVERY: Duration = Duration::from_secs(2);
/// From one push of spans to the next.
const SPANS_EVERY: Duration = Duration::from_millis(250);

/// Where metrics and traces shall go; checked, and not yet asked.
pub(crate) struct Destinations {
    remote_write: Option<Service>,
    otlp: Option<Service>,
    /// Of batches and requests that become spans.
    share: f64,
    instance: String,
}

/// What pushes the metrics and traces of this process. Clones share everything.
#[derive(Clone)]
pub struct Exports(Arc<Inner>);

struct Inner {
    metrics: PrometheusMetrics,
    remote_write: Option<RemoteWrite>,
    otlp: Option<OtlpMetrics>,
    traces: Option<Arc<Traces>>,
    stop: CancellationToken,
}

impl Destinations {
    /// An empty URL is none, as of a variable that is set to nothing.
    ///
    /// # Errors
    /// When a URL is none of an HTTP service.
    pub(crate) fn new(remote_write: Option<&str>, otlp: Option<&str>, share: f64, instance: Option<&str>) -> anyhow::Result<Self> {
        let service = |setting, url: Option<&str>, example| {
            let url = url.filter(|url| !url.is_empty());
            url.map(|url| Service::new(setting, url, example)).transpose()
        };
        Ok(Self {
            remote_write: service("--remote-write (BATCHSQL_REMOTE_WRITE)", remote_write, "http://127.0.0.1:9090/api/v1/write")?,
            otlp: service("--otlp (OTEL_EXPORTER_OTLP_ENDPOINT)", otlp, "http://127.0.0.1:4318")?,
            share,
            instance: instance.filter(|name| !name.is_empty()).map_or_else(this_process, str::to_owned),
        })
    }

    /// Whether anything is pushed anywhere.
    pub(crate) fn any(&self) -> bool {
        self.remote_write.is_some() || self.otlp.is_some()
    }

    /// Begins to push `metrics` every few seconds.
    pub(crate) fn start(&self, metrics: &PrometheusMetrics) -> Exports {
        let instance = &self.instance;
        let dropped = |destination| metrics.push_dropped(destination);
        let remote_write = self.remote_write.clone().map(|service| RemoteWrite::start(service, instance, dropped(remote_write::NAME)));
        let otlp = self.otlp.clone().map(|service| OtlpMetrics::start(service, instance, unix_nanos(), dropped(otlp::NAME)));
        let traces = self.otlp.clone().map(|service| Arc::new(Traces::start(service, instance, self.share, dropped(trace::NAME))));
        let exports = Exports(Arc::new(Inner { metrics: metrics.clone(), remote_write, otlp, traces, stop: CancellationToken::new() }));
        if self.any() {
            tokio::spawn(exports.clone().now_and_then());
        }
        exports
    }
}

/// `<host>:<process id>`.
fn this_process() -> String {
    let host = sysinfo::System::host_name().unwrap_or_else(|_| "localhost".to_owned());
    format!("{host}:{}", std::process::id())
}

impl Exports {
    async fn now_and_then(self) {
        let every = |period| {
            let mut ticks = interval_at(tokio::time::Instant::now() + period, period);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            ticks
        };
        let (mut metrics, mut spans) = (every(METRICS_EVERY), every(SPANS_EVERY));
        loop {
            tokio::select! {
                () = self.0.stop.cancelled() => return,
                _ = metrics.tick() => self.push_metrics(),
                _ = spans.tick() => self.0.traces.iter().for_each(|traces| traces.flush()),
            }
        }
    }

    /// Pushes all metrics as they are now.
    pub(crate) fn push_metrics(&self) {
        let inner = &*self.0;
        if inner.remote_write.is_none() && inner.otlp.is_none() {
            return;
        }
        let families = inner.metrics.gather();
        let now = unix_nanos();
        if let Some(remote_write) = &inner.remote_write {
            remote_write.send(&families, (now / 1_000_000) as i64);
        }
        if let Some(otlp) = &inner.otlp {
            otlp.send(&families, now);
        }
    }

    /// The spans of a run that begins at `epoch`, if traces are pushed.
    pub(crate) fn trace(&self, run_id: &str, scenario: &Scenario, epoch: Instant) -> Option<Arc<RunTrace>> {
        let traces = Arc::clone(self.0.traces.as_ref()?);
        Some(Arc::new(RunTrace::new(traces, run_id, &scenario.name, scenario.seed, epoch, scenario.load.warmup.0)))
    }

    /// Pushes the last values and delivers what waits, within a bound. What cannot be delivered is said.
    pub(crate) async fn finish(&self) {
        self.0.stop.cancel();
        self.push_metrics();
        let Inner { remote_write, otlp, traces, .. } = &*self.0;
        tokio::join!(
            async {
                if let Some(it) = remote_write {
                    it.finish().await
                }
            },
            async {
                if let Some(it) = otlp {
                    it.finish().await
                }
            },
            async {
                if let Some(it) = traces {
                    it.finish().await
                }
            },
        );
    }
}
