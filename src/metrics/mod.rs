//! The exporter, beside the run and never in its way: `/metrics` in Prometheus text, fed by atomics alone.
//!
//! Every series is resolved once and kept as a handle; the hot path touches handles only. Prefix and environment are put on when
//! the text is written, so that it does not matter when they are set. A user's own metrics stand beside ours:
//!
//! ```
//! # use batchsql::metrics::PrometheusMetrics;
//! let metrics = PrometheusMetrics::new();
//! metrics.set_metrics_prefix("staging_")?;
//! metrics.set_environment("staging");
//! let operations = metrics.register_counter("batchsql_custom_operations_total", "Imports by kind", &["kind"])?;
//! operations.with(&["nightly"]).inc();
//! assert!(metrics.render().contains(r#"staging_batchsql_custom_operations_total{kind="nightly",env="staging"} 1"#));
//! # Ok::<(), batchsql::metrics::MetricsError>(())
//! ```

pub mod aiproxy;
pub(crate) mod last_run;
mod listener;
pub mod names;
mod reporter;
mod series;
mod striped;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Instant;

pub(crate) use prometheus::IntCounter;
use prometheus::proto::LabelPair;
pub(crate) use prometheus::proto::{Metric as Series, MetricFamily, MetricType};
use prometheus::{Histogram, TextEncoder};

pub use listener::{DEFAULT_LISTEN, Listening, TEXT_FORMAT};
pub use reporter::{PHASES, Pipeline, PrometheusMetricsReporter};
use series::Shape;

/// Most series (lines of `/metrics`, each bucket of a histogram one) unless told otherwise.
pub const DEFAULT_SERIES_LIMIT: usize = 1000;

/// What the exporter cannot do.
#[derive(Debug, thiserror::Error)]
pub enum MetricsError {
    /// The address asked for is taken.
    #[error(
        "--metrics-listen {0}: this address is in use by another program; name another one, port 0 for any free one, or use --no-metrics"
    )]
    InUse(SocketAddr),
    /// The address cannot be listened on.
    #[error("--metrics-listen {address}: cannot listen there ({source}); name an address of this machine, or use --no-metrics")]
    Listen {
        /// What was asked for.
        address: SocketAddr,
        /// The system's words.
        source: std::io::Error,
    },
    /// A name, prefix, label or bucket that Prometheus does not take.
    #[error("metric {name:?}: {reason}")]
    Invalid {
        /// The metric or prefix.
        name: String,
        /// What is wrong and what would be right.
        reason: String,
    },
}

/// All metrics of this process and the listener that shows them. Clones share everything.
#[derive(Clone)]
pub struct PrometheusMetrics {
    shared: Arc<Shared>,
}

struct Shared {
    series: series::Series,
    naming: Mutex<Naming>,
    /// Computed anew before every scrape; gone when their run is.
    reporters: Mutex<Vec<Weak<dyn Tick>>>,
    server: Mutex<Option<listener::Server>>,
}

/// Whoever computes something anew before every scrape.
trait Tick: Send + Sync {
    fn tick(&self, now: Instant);
}

#[derive(Default)]
struct Naming {
    prefix: String,
    environment: String,
}

/// A lock whose data stays valid when a holder panicked.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Default for PrometheusMetrics {
    fn default() -> Self {
        Self::new()
    }
}

impl PrometheusMetrics {
    /// Metrics of their own, under [`DEFAULT_SERIES_LIMIT`].
    #[must_use]
    pub fn new() -> Self {
        Self::with_series_limit(DEFAULT_SERIES_LIMIT)
    }

    /// Metrics that never show more than `limit` series; what does not fit is counted in `batchsql_series_dropped_total`. One run
    /// needs about 250.
    #[must_use]
    pub fn with_series_limit(limit: usize) -> Self {
        Self {
            shared: Arc::new(Shared {
                series: series::Series::new(limit),
                naming: Mutex::default(),
                reporters: Mutex::default(),
                server: Mutex::default(),
            }),
        }
    }

    /// Puts the constant label `env` on every series; none if empty.
    pub fn set_environment(&self, environment: &str) {
        environment.clone_into(&mut lock(&self.shared.naming).environment);
    }

    /// Puts `prefix` in front of every name, e.g. `staging_`.
    ///
    /// # Errors
    /// When no metric's name can begin like that.
    pub fn set_metrics_prefix(&self, prefix: &str) -> Result<(), MetricsError> {
        let fits = |(position, c): (usize, char)| c.is_ascii_alphabetic() || c == '_' || (position > 0 && c.is_ascii_digit());
        if !prefix.chars().enumerate().all(fits) {
            let reason = "this is no prefix for metric names; letters, digits and _ are, not beginning with a digit, e.g. staging_";
            return Err(MetricsError::Invalid { name: prefix.to_owned(), reason: reason.to_owned() });
        }
        prefix.clone_into(&mut lock(&self.shared.naming).prefix);
        Ok(())
    }

    /// A counter of the user's own, shown under `name` (behind the prefix, if one is set). The same counter may be registered
    /// again.
    ///
    /// # Errors
    /// When Prometheus does not take the name or a label, or the name is taken by another metric.
    pub fn register_counter(&self, name: &str, help: &str, labels: &[&str]) -> Result<CounterFamily, MetricsError> {
        let family = Family::register(self, name, help, labels, Shape::Counter)?;
        Ok(CounterFamily(family))
    }

    /// A histogram of the user's own with the given upper bounds, shown under `name` (behind the prefix, if one is set). The same
    /// histogram may be registered again.
    ///
    /// # Errors
    /// When Prometheus does not take the name, a label or the bounds, or the name is taken by another metric.
    pub fn register_histogram(&self, name: &str, help: &str, labels: &[&str], bounds: &[f64]) -> Result<HistogramFamily, MetricsError> {
        let family = Family::register(self, name, help, labels, Shape::Histogram(bounds.to_vec()))?;
        Ok(HistogramFamily(family))
    }

    /// What `/metrics` answers now.
    #[must_use]
    pub fn render(&self) -> String {
        TextEncoder::new().encode_to_string(&self.gather()).expect("gathered families have a name and a metric")
    }

    /// All series as they are now, named as they are shown.
    pub(crate) fn gather(&self) -> Vec<MetricFamily> {
        let mut reporters = lock(&self.shared.reporters);
        reporters.retain(|reporter| {
            reporter.upgrade().is_some_and(|live| {
                live.tick(Instant::now());
                true
            })
        });
        drop(reporters);
        let mut families = self.shared.series.gather();
        let naming = lock(&self.shared.naming);
        families.iter_mut().for_each(|family| naming.put_on(family));
        families
    }

    /// Counts what was not delivered to `destination`.
    pub(crate) fn push_dropped(&self, destination: &str) -> IntCounter {
        let spec = &names::PUSH_DROPPED;
        self.shared.series.get(spec.name, spec.help, &[("destination", destination)], Shape::Counter).counter()
    }

    /// Serves `/metrics` and `/health` on exactly this address (port 0: any free one) until [`Self::stop_server`].
    ///
    /// # Errors
    /// When the address is in use or not this machine's.
    pub async fn start_server(&self, address: SocketAddr) -> Result<SocketAddr, MetricsError> {
        Ok(self.listen(address, true).await?.address)
    }

    /// Like [`Self::start_server`]; but if nobody asked for this address (`explicit` is false) and its port is in use, a free port
    /// is taken and [`Listening::note`] says so.
    ///
    /// # Errors
    /// When the address is in use although asked for, or not this machine's.
    pub async fn listen(&self, address: SocketAddr, explicit: bool) -> Result<Listening, MetricsError> {
        let (server, note) = listener::start(self.clone(), address, explicit).await?;
        let address = server.address;
        let before = lock(&self.shared.server).replace(server);
        if let Some(before) = before {
            before.stop().await;
        }
        Ok(Listening { address, note })
    }

    /// Stops serving once scrapes under way are answered; does nothing if nothing is served.
    pub async fn stop_server(&self) {
        let server = lock(&self.shared.server).take();
        if let Some(server) = server {
            server.stop().await;
        }
    }
}

impl Naming {
    fn put_on(&self, family: &mut MetricFamily) {
        if !self.prefix.is_empty() {
            family.set_name(format!("{}{}", self.prefix, family.name()));
        }
        if self.environment.is_empty() {
            return;
        }
        for metric in family.mut_metric() {
            let mut labels = metric.take_label();
            // A user's own label of that name says more than ours.
            if !labels.iter().any(|label| label.name() == "env") {
                let mut label = LabelPair::default();
                label.set_name("env".to_owned());
                label.set_value(self.environment.clone());
                labels.push(label);
            }
            metric.set_label(labels);
        }
    }
}

/// A metric of the user's own and the labels it has.
#[derive(Clone)]
struct Family {
    metrics: PrometheusMetrics,
    name: String,
    help: String,
    labels: Vec<String>,
    shape: Shape,
}

impl Family {
    fn register(metrics: &PrometheusMetrics, name: &str, help: &str, labels: &[&str], shape: Shape) -> Result<Self, MetricsError> {
        let invalid = |reason: String| MetricsError::Invalid { name: name.to_owned(), reason };
        if names::ALL.iter().any(|spec| spec.name == name) {
            return Err(invalid("batchsql itself has a metric of this name; choose another".to_owned()));
        }
        metrics.shared.series.declare(name, help, labels, &shape).map_err(invalid)?;
        let labels: Vec<String> = labels.iter().map(|&label| label.to_owned()).collect();
        let family = Self { metrics: metrics.clone(), name: name.to_owned(), help: help.to_owned(), labels, shape };
        if family.labels.is_empty() {
            family.series(&[]); // shown at zero from the start, or the first increase would be invisible to rate()
        }
        Ok(family)
    }

    /// # Panics
    /// When there are more or fewer values than labels.
    fn series(&self, values: &[&str]) -> series::Handle {
        assert_eq!(values.len(), self.labels.len(), "metric {} has the labels {:?}", self.name, self.labels);
        let labels: Vec<_> = self.labels.iter().map(String::as_str).zip(values.iter().copied()).collect();
        self.metrics.shared.series.get(&self.name, &self.help, &labels, self.shape.clone())
    }
}

/// A counter of the user's own.
#[derive(Clone)]
pub struct CounterFamily(Family);

impl CounterFamily {
    /// The counter with these label values, in the order of the labels. Keep it: finding it takes a lock. Beyond the limit on
    /// series the counter works but is not shown.
    ///
    /// # Panics
    /// When there are more or fewer values than labels.
    #[must_use]
    pub fn with(&self, values: &[&str]) -> IntCounter {
        self.0.series(values).counter()
    }
}

/// A histogram of the user's own.
#[derive(Clone)]
pub struct HistogramFamily(Family);

impl HistogramFamily {
    /// The histogram with these label values, in the order of the labels. Keep it: finding it takes a lock. Beyond the limit on
    /// series the histogram works but is not shown.
    ///
    /// # Panics
    /// When there are more or fewer values than labels.
    #[must_use]
    pub fn with(&self, values: &[&str]) -> Histogram {
        self.0.series(values).histogram()
    }
}

#[cfg(test)]
mod tests;
