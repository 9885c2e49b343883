//! The answers of the last moments, for who decides while the load goes on.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use super::Latency;
use crate::ledger::Outcome;

/// Parts of a window: the least step by which it moves on.
const STEPS: u32 = 5;

/// What was answered in a window.
#[derive(Clone, Debug, Default)]
pub(crate) struct Recent {
    /// Operations that ended.
    pub(crate) finished: u64,
    /// Those of them that are not acknowledged.
    pub(crate) failed: u64,
    /// Response times of the acknowledged ones.
    pub(crate) response: Latency,
}

impl Recent {
    fn merge(&mut self, other: &Recent) {
        self.finished += other.finished;
        self.failed += other.failed;
        self.response.merge(&other.response);
    }
}

/// How long answers are kept, and which.
#[derive(Debug)]
pub(super) struct Span {
    step: Duration,
    /// Nanoseconds from the run's start; operations due before say nothing any more.
    due_from: AtomicU64,
    /// Answers so far, to whatever.
    answers: AtomicU64,
}

impl Span {
    pub(super) fn new(window: Duration) -> Self {
        Self { step: (window / STEPS).max(Duration::from_millis(1)), due_from: AtomicU64::new(0), answers: AtomicU64::new(0) }
    }

    pub(super) fn answers(&self) -> u64 {
        self.answers.load(Relaxed)
    }

    pub(super) fn due_from(&self, since: Duration) {
        self.due_from.store(since.as_nanos() as u64, Relaxed);
    }

    fn number(&self, since: Duration) -> u64 {
        (since.as_nanos() / self.step.as_nanos()) as u64
    }
}

/// One worker's answers, by steps.
#[derive(Debug, Default)]
pub(super) struct Slots(BTreeMap<u64, Recent>);

impl Slots {
    /// An answer at `done` to operations due at `dues`, both from the run's start.
    pub(super) fn answered(&mut self, span: &Span, dues: impl Iterator<Item = Duration>, outcome: Outcome, done: Duration) {
        span.answers.fetch_add(1, Relaxed);
        let due_from = Duration::from_nanos(span.due_from.load(Relaxed));
        let now = span.number(done);
        self.0.retain(|slot, _| slot + u64::from(STEPS) >= now);
        let recent = self.0.entry(now).or_default();
        for due in dues.filter(|due| *due >= due_from) {
            recent.finished += 1;
            if outcome == Outcome::Acknowledged {
                recent.response.record(done.saturating_sub(due));
            } else {
                recent.failed += 1;
            }
        }
    }

    /// Adds the window that ends at `now` to `sum`.
    pub(super) fn add_to(&self, span: &Span, now: Duration, sum: &mut Recent) {
        let last = span.number(now);
        let first = (last + 1).saturating_sub(u64::from(STEPS)).max(span.number(Duration::from_nanos(span.due_from.load(Relaxed))));
        for recent in self.0.range(first..=last.max(first)).map(|(_, recent)| recent) {
            sum.merge(recent);
        }
    }
}
