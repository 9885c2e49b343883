//! One batch from its slot to its outcome: take a connection, announce, send, and on failure decide whether to try again.

use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures::FutureExt as _;

use super::observer::{BatchInfo, BatchOutcome, Entry, Observer};
use super::{Counters, clock, retry};
use crate::scenario::Retry;
use crate::table::Row;
use crate::target::{Applied, ErrorClass, Failure, Session, Target, WritePlan};

/// What the assembler and all batches share.
pub(crate) struct Shared {
    pub(crate) target: Arc<dyn Target>,
    pub(crate) plans: Vec<Arc<WritePlan>>,
    pub(crate) retry: Retry,
    pub(crate) seed: u64,
    pub(crate) observer: Arc<dyn Observer>,
    /// Batches being written.
    pub(crate) in_flight: AtomicUsize,
    /// Rows of batches that have ended, at most `most_spare`.
    pub(crate) spare: Mutex<Vec<Row>>,
    pub(crate) most_spare: usize,
    pub(crate) totals: Counters,
}

/// Rows of one table that are written as one transaction.
pub(crate) struct Batch {
    pub(crate) id: u64,
    pub(crate) table: usize,
    pub(crate) entries: Vec<Entry>,
    pub(crate) rows: Arc<Vec<Row>>,
}

/// How far a batch has come; kept outside the attempts so that a panic in one still ends in the right outcome.
#[derive(Default)]
struct Progress {
    attempt: u32,
    session: u64,
    announced: bool,
    first_sent: Option<Instant>,
    unknown: Option<Failure>,
}

impl Batch {
    /// Runs the batch to its outcome and tells the observer.
    pub(crate) async fn run(&self, shared: &Shared) {
        let mut progress = Progress::default();
        let outcome = match AssertUnwindSafe(self.attempts(shared, &mut progress)).catch_unwind().await {
            Ok(outcome) => outcome,
            Err(panic) => panicked(panic.as_ref(), &progress),
        };
        let info = self.info(shared, progress.attempt, progress.session);
        if !progress.announced {
            // Nothing was sent, so there is nothing left to refuse.
            let _ = shared.observer.sending(&info);
        }
        let counter = match outcome {
            BatchOutcome::Acknowledged { .. } => &shared.totals.acknowledged,
            BatchOutcome::Rejected(_) => &shared.totals.rejected,
            BatchOutcome::Unknown(_) => &shared.totals.unknown,
        };
        counter.fetch_add(self.rows.len() as u64, Ordering::Release);
        shared.observer.finished(&info, &outcome, progress.first_sent.map_or(Duration::ZERO, |sent| sent.elapsed()));
    }

    /// Keeps the rows for [`super::Pipeline::spare`].
    pub(crate) fn recycle(self, shared: &Shared) {
        // A target that still holds them keeps them.
        let Some(mut rows) = Arc::into_inner(self.rows) else { return };
        let mut spare = shared.spare.lock().unwrap_or_else(PoisonError::into_inner);
        let room = shared.most_spare - spare.len();
        rows.truncate(room);
        spare.append(&mut rows);
    }

    async fn attempts(&self, shared: &Shared, progress: &mut Progress) -> BatchOutcome {
        let plan = &shared.plans[self.table];
        loop {
            progress.attempt += 1;
            let failure = match self.attempt(shared, plan, progress).await {
                Ok(warnings) => return BatchOutcome::Acknowledged { warnings, after_unknown: progress.unknown.is_some() },
                Err(failure) => failure,
            };
            if retry::is_unknown(&failure) {
                progress.unknown = Some(failure.clone());
            }
            let retry = retry::again(&shared.retry, progress.attempt, &failure, progress.unknown.is_some(), plan.table.unique_key);
            shared.observer.attempt_failed(&self.info(shared, progress.attempt, progress.session), &failure, retry);
            if !retry {
                // Once an attempt was unknown nothing that a retry meets (a duplicate key, a lock of the first attempt) makes
                // the batch rejected: the verifier finds out.
                return match progress.unknown.take() {
                    Some(unknown) => BatchOutcome::Unknown(unknown),
                    None => BatchOutcome::Rejected(failure),
                };
            }
            clock::sleep_until(clock::now() + retry::backoff(&shared.retry, shared.seed, self.id, progress.attempt)).await;
        }
    }

    async fn attempt(&self, shared: &Shared, plan: &Arc<WritePlan>, progress: &mut Progress) -> Result<u64, Failure> {
        let began = Instant::now();
        let mut session: Box<dyn Session> = shared.target.acquire().await?;
        shared.observer.connection_acquired(began.elapsed());
        progress.session = session.id();
        let info = self.info(shared, progress.attempt, progress.session);
        shared.observer.sending(&info).map_err(|message| Failure { class: ErrorClass::Other, applied: Applied::No, message })?;
        progress.announced = true;
        let sent = Instant::now();
        progress.first_sent.get_or_insert(sent);
        let result = session.write(plan, &self.rows).await;
        shared.observer.executed(&info, sent.elapsed());
        result.map(|written| written.warnings)
    }

    fn info<'a>(&'a self, shared: &'a Shared, attempt: u32, session: u64) -> BatchInfo<'a> {
        let table = &shared.plans[self.table].table.name;
        BatchInfo { id: self.id, table, rows: self.rows.len(), entries: &self.entries, attempt, session }
    }
}

/// A panic before anything was sent rejects the batch; after that nobody can say.
fn panicked(panic: &(dyn std::any::Any + Send), progress: &Progress) -> BatchOutcome {
    let words = panic.downcast_ref::<&str>().map(|s| (*s).to_owned()).or_else(|| panic.downcast_ref::<String>().cloned());
    let message = format!("panic: {}", words.unwrap_or_else(|| "no message".to_owned()));
    if progress.first_sent.is_some() {
        BatchOutcome::Unknown(Failure { class: ErrorClass::Panic, applied: Applied::Unknown, message })
    } else {
        BatchOutcome::Rejected(Failure { class: ErrorClass::Panic, applied: Applied::No, message })
    }
}
