//! Watches the pipeline for a run: every answer goes into the recorder and the ledger.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;

use crate::fault::{Book, Marks};
use crate::ledger::{LedgerWriter, Mark, Outcome};
use crate::metrics::PrometheusMetricsReporter;
use crate::pipeline::observer::{BatchInfo, BatchOutcome, Observer};
use crate::recorder::Recorder;
use crate::runner::Run;
use crate::runner::tally::Tally;
use crate::target::{ErrorClass, Failure};

/// The run's own observer.
pub(crate) struct Watch {
    recorder: Arc<Recorder>,
    ledger: LedgerWriter,
    tally: Arc<Tally>,
    faults: Arc<Book>,
    /// Free places of `load.max_in_flight`.
    in_flight: Option<Semaphore>,
    reporter: Option<PrometheusMetricsReporter>,
}

impl Watch {
    pub(crate) fn new(run: &Run, ledger: LedgerWriter) -> Self {
        let places = |most| Semaphore::new(usize::try_from(most).unwrap_or(Semaphore::MAX_PERMITS));
        Self {
            recorder: Arc::clone(&run.recorder),
            ledger,
            tally: Arc::clone(&run.tally),
            faults: Arc::clone(&run.faults),
            in_flight: run.scenario.load.max_in_flight.map(places),
            reporter: run.reporter.clone(),
        }
    }

    /// Places for operations that are submitted and not answered, if the scenario bounds them.
    pub(crate) fn in_flight(&self) -> Option<&Semaphore> {
        self.in_flight.as_ref()
    }

    /// Every batch has its outcome.
    pub(crate) fn close(&self) {
        self.tally.keep(self.ledger.close());
    }
}

impl Marks for Watch {
    fn mark(&self, mark: Mark) {
        self.tally.keep(self.ledger.mark(mark));
    }
}

impl Observer for Watch {
    fn sending(&self, batch: &BatchInfo<'_>) -> Result<(), String> {
        let members = batch.entries.iter().map(|entry| entry.id);
        let written = self.ledger.intent(batch.id, batch.session, members);
        written.map_err(|error| {
            let reason = format!("the ledger cannot be written: {error}");
            self.tally.keep(Err(error));
            reason
        })
    }

    fn attempt_failed(&self, _: &BatchInfo<'_>, failure: &Failure, will_retry: bool) {
        if will_retry {
            self.tally.retried(failure);
            self.faults.retried();
        }
    }

    fn finished(&self, batch: &BatchInfo<'_>, outcome: &BatchOutcome, took: Duration) {
        let now = Instant::now();
        let (kind, after_unknown) = match outcome {
            BatchOutcome::Acknowledged { warnings, after_unknown } => {
                if *warnings > 0 {
                    let message = "the server warned that it altered values".to_owned();
                    let altered = Failure { class: ErrorClass::Data, applied: crate::target::Applied::No, message };
                    self.tally.failed(&altered, *warnings);
                }
                (Outcome::Acknowledged, *after_unknown)
            }
            BatchOutcome::Rejected(failure) => {
                self.tally.failed(failure, 1);
                (Outcome::Rejected, false)
            }
            BatchOutcome::Unknown(failure) => {
                self.tally.failed(failure, 1);
                (Outcome::Unknown, true)
            }
        };
        self.tally.keep(self.ledger.outcome(batch.id, kind, after_unknown));
        let dues = batch.entries.iter().map(|entry| entry.due);
        self.recorder.answered(batch.id, dues, kind, now, took);
        self.faults.finished(kind, batch.rows as u64, now);
        if let (Some(reporter), Outcome::Acknowledged) = (&self.reporter, kind) {
            let times: Vec<Duration> = batch.entries.iter().map(|entry| now.saturating_duration_since(entry.due)).collect();
            reporter.observe_responses(&times);
        }
        if let Some(places) = &self.in_flight {
            places.add_permits(batch.rows);
        }
    }
}
