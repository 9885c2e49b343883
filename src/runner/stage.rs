//! The phase a run is in, told to whoever watches: metrics, which boards draw as annotations, and the log.

use std::sync::{Mutex, PoisonError};

use serde_json::json;

use crate::metrics::{PHASES, PrometheusMetricsReporter};
use crate::report::{Report, Verdict};
use crate::scenario::Scenario;
use crate::telemetry::exports::Exports;
use crate::telemetry::log::{self, Level};

/// The phase of a run: it only goes forward, whoever says so first.
pub(crate) struct Stage {
    reporter: Option<PrometheusMetricsReporter>,
    /// Sees every phase, however short, and the counters at zero before the first.
    exports: Option<Exports>,
    /// Position in [`PHASES`].
    now: Mutex<Option<usize>>,
}

impl Stage {
    pub(crate) fn new(reporter: Option<PrometheusMetricsReporter>, exports: Option<Exports>) -> Self {
        Self { reporter, exports, now: Mutex::new(None) }
    }

    /// The phase of this name begins, and the one before has ended.
    pub(crate) fn enter(&self, phase: &str) {
        let position = PHASES.iter().position(|known| *known == phase);
        let mut now = self.now.lock().unwrap_or_else(PoisonError::into_inner);
        if position <= *now {
            return;
        }
        tell_end(*now);
        *now = position;
        if let Some(reporter) = &self.reporter {
            reporter.phase(Some(phase));
        }
        if let Some(exports) = &self.exports {
            exports.push_metrics();
        }
        log::in_phase(Some(phase));
        log::event(Level::Info, &format!("phase {phase} begins"), json!({"event": "phase_start"}));
    }

    /// The last phase has ended.
    pub(crate) fn end(&self) {
        let now = self.now.lock().unwrap_or_else(PoisonError::into_inner);
        tell_end(*now);
        if let Some(reporter) = &self.reporter {
            reporter.phase(None);
        }
        log::in_phase(None);
    }
}

fn tell_end(phase: Option<usize>) {
    if let Some(phase) = phase {
        log::event(Level::Info, &format!("phase {} ends", PHASES[phase]), json!({"event": "phase_end"}));
    }
}

/// A run begins; what is said from now on is about it.
pub(super) fn tell_start(id: &str, scenario: &Scenario, secrets: &[String]) {
    log::hide(secrets);
    log::run_began(id, &scenario.name);
    log::event(Level::Info, &format!("run {id} begins"), json!({"event": "run_start", "seed": scenario.seed}));
}

/// How a run ended, with the numbers of its report, under the report's names.
pub(super) fn tell_verdict(report: &Report) {
    let (word, level) = match report.verdict {
        Verdict::Pass => ("pass", Level::Info),
        Verdict::Fail => ("fail", Level::Error),
        Verdict::Inconclusive => ("inconclusive", Level::Warn),
    };
    let integrity = &report.integrity;
    let fields = json!({
        "event": "run_end",
        "verdict": report.verdict,
        "reasons": report.reasons,
        "duration_seconds": report.duration_seconds,
        "throughput": report.throughput,
        "outcomes": report.outcomes,
        "response": report.latency.response,
        "integrity": {
            "verdict": integrity.verdict, "rate": integrity.rate, "checked": integrity.checked, "lost": integrity.lost,
            "duplicated": integrity.duplicated, "corrupted": integrity.corrupted, "phantom": integrity.phantom,
            "resurrected": integrity.resurrected, "stale": integrity.stale, "partial_batches": integrity.partial_batches,
        },
    });
    log::event(level, &format!("run {} ended: {word}", report.run_id), fields);
}
