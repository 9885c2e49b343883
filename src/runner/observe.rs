//! Watches the pipeline for a run: every answer goes into the recorder and the ledger.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;

use crate::ledger::{LedgerWriter, Outcome};
use crate::metrics::PrometheusMetricsReporter;
use crate::pipeline::observer::{BatchInfo, BatchOutcome, Observer};
use crate::recorder::Recorder;
use crate::target::{ErrorClass, Failure};

/// The run's own observer.
pub(crate) struct Watch {
    recorder: Arc<Recorder>,
    ledger: LedgerWriter,
    ledger_failure: OnceLock<String>,
    errors: Mutex<Errors>,
    retries: AtomicU64,
    /// Free places of `load.max_in_flight`.
    in_flight: Option<Semaphore>,
    reporter: Option<PrometheusMetricsReporter>,
}

/// Failed attempts by `retry:<class>` and `final:<class>`, with the first message of each class.
#[derive(Clone, Debug, Default)]
pub(crate) struct Errors {
    pub(crate) counts: BTreeMap<String, u64>,
    pub(crate) examples: BTreeMap<String, String>,
}

impl Watch {
    pub(crate) fn new(
        recorder: Arc<Recorder>,
        ledger: LedgerWriter,
        max_in_flight: Option<u64>,
        reporter: Option<PrometheusMetricsReporter>,
    ) -> Self {
        Self {
            recorder,
            ledger,
            ledger_failure: OnceLock::new(),
            errors: Mutex::default(),
            retries: AtomicU64::new(0),
            in_flight: max_in_flight.map(|most| Semaphore::new(usize::try_from(most).unwrap_or(Semaphore::MAX_PERMITS))),
            reporter,
        }
    }

    /// Places for operations that are submitted and not answered, if the scenario bounds them.
    pub(crate) fn in_flight(&self) -> Option<&Semaphore> {
        self.in_flight.as_ref()
    }

    /// Retries begun so far.
    pub(crate) fn retries(&self) -> u64 {
        self.retries.load(Ordering::Relaxed)
    }

    pub(crate) fn errors(&self) -> Errors {
        self.errors.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Every batch has its outcome.
    pub(crate) fn close(&self) {
        self.keep(self.ledger.close());
    }

    pub(crate) fn ledger_failure(&self) -> Option<&str> {
        self.ledger_failure.get().map(String::as_str)
    }

    fn keep(&self, written: std::io::Result<()>) {
        if let Err(error) = written {
            let _ = self.ledger_failure.set(error.to_string());
        }
    }

    fn error(&self, kind: &str, failure: &Failure, count: u64) {
        let class = failure.class.as_str();
        let mut errors = self.errors.lock().unwrap_or_else(PoisonError::into_inner);
        *errors.counts.entry(format!("{kind}:{class}")).or_default() += count;
        errors.examples.entry(class.to_owned()).or_insert_with(|| failure.message.clone());
    }
}

impl Observer for Watch {
    fn sending(&self, batch: &BatchInfo<'_>) -> Result<(), String> {
        let members = batch.entries.iter().map(|entry| entry.id);
        let written = self.ledger.intent(batch.id, batch.session, members);
        written.map_err(|error| {
            let reason = format!("the ledger cannot be written: {error}");
            let _ = self.ledger_failure.set(reason.clone());
            reason
        })
    }

    fn attempt_failed(&self, _: &BatchInfo<'_>, failure: &Failure, will_retry: bool) {
        if will_retry {
            self.retries.fetch_add(1, Ordering::Relaxed);
            self.error("retry", failure, 1);
        }
    }

    fn finished(&self, batch: &BatchInfo<'_>, outcome: &BatchOutcome, took: Duration) {
        let now = Instant::now();
        let (kind, after_unknown) = match outcome {
            BatchOutcome::Acknowledged { warnings, after_unknown } => {
                if *warnings > 0 {
                    let message = "the server warned that it altered values".to_owned();
                    let altered = Failure { class: ErrorClass::Data, applied: crate::target::Applied::No, message };
                    self.error("final", &altered, *warnings);
                }
                (Outcome::Acknowledged, *after_unknown)
            }
            BatchOutcome::Rejected(failure) => {
                self.error("final", failure, 1);
                (Outcome::Rejected, false)
            }
            BatchOutcome::Unknown(failure) => {
                self.error("final", failure, 1);
                (Outcome::Unknown, true)
            }
        };
        self.keep(self.ledger.outcome(batch.id, kind, after_unknown));
        let dues = batch.entries.iter().map(|entry| entry.due);
        self.recorder.answered(batch.id, dues, kind, now, took);
        if let (Some(reporter), Outcome::Acknowledged) = (&self.reporter, kind) {
            let times: Vec<Duration> = batch.entries.iter().map(|entry| now.saturating_duration_since(entry.due)).collect();
            reporter.observe_responses(&times);
        }
        if let Some(places) = &self.in_flight {
            places.add_permits(batch.rows);
        }
    }
}
