//! The last run of a scenario, as `batchsql serve` shows it to a scraper long after the run has exited.

use super::PrometheusMetrics;
use super::names::{self, Spec};
use super::series::Shape;
use crate::report::Verdict;

/// What is shown of a run; what is `None` is absent, never zero.
pub(crate) struct LastRun<'a> {
    pub(crate) database: &'a str,
    pub(crate) test_name: &'a str,
    pub(crate) verdict: Verdict,
    pub(crate) integrity_rate: Option<f64>,
    pub(crate) operations_per_second: Option<f64>,
    pub(crate) response_p99_seconds: Option<f64>,
    pub(crate) started_seconds: f64,
}

impl LastRun<'_> {
    /// Shows it in `metrics`.
    pub(crate) fn show(&self, metrics: &PrometheusMetrics) {
        let verdict = match self.verdict {
            Verdict::Pass => 1.0,
            Verdict::Inconclusive => 0.0,
            Verdict::Fail => -1.0,
        };
        let values: [(Spec, Option<f64>); 5] = [
            (names::LAST_RUN_VERDICT, Some(verdict)),
            (names::LAST_RUN_INTEGRITY, self.integrity_rate),
            (names::LAST_RUN_THROUGHPUT, self.operations_per_second),
            (names::LAST_RUN_P99, self.response_p99_seconds),
            (names::LAST_RUN_STARTED, Some(self.started_seconds)),
        ];
        for (spec, value) in values.into_iter().filter_map(|(spec, value)| Some((spec, value?))) {
            let labels = [("database", self.database), ("test_name", self.test_name)];
            metrics.shared.series.get(spec.name, spec.help, &labels, Shape::of(&spec, 0)).gauge().set(value);
        }
    }
}
