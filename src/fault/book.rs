//! What happened around each fault, written down as answers come in: when it began and was healed, what was tried again meanwhile,
//! and how long after healing the first operation was acknowledged.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use crate::ledger::Outcome;
use crate::report::FaultReport;
use crate::scenario::fault::Fault;

/// The faults of a run and what came of them. Without faults everything here does nothing.
pub(crate) struct Book {
    epoch: Instant,
    entries: Mutex<Vec<FaultReport>>,
    /// Whether a fault was healed after which nothing was acknowledged yet; asked at every answer.
    waiting: AtomicBool,
    empty: bool,
}

impl Book {
    pub(crate) fn new(epoch: Instant, faults: &[Fault]) -> Self {
        let entry = |fault: &Fault| FaultReport {
            kind: fault.kind.as_str().to_owned(),
            description: fault.words(),
            at_seconds: fault.at.0.as_secs_f64(),
            ..FaultReport::default()
        };
        let entries: Vec<_> = faults.iter().map(entry).collect();
        Self { epoch, empty: entries.is_empty(), entries: Mutex::new(entries), waiting: AtomicBool::new(false) }
    }

    fn entries(&self) -> MutexGuard<'_, Vec<FaultReport>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, fault: u32, how: impl FnOnce(&mut FaultReport)) {
        if let Some(entry) = self.entries().get_mut(fault as usize) {
            how(entry);
        }
    }

    fn since_start(&self, now: Instant) -> f64 {
        now.saturating_duration_since(self.epoch).as_secs_f64()
    }

    pub(super) fn begins(&self, fault: u32, now: Instant) {
        let at = self.since_start(now);
        self.change(fault, |entry| entry.begun_seconds = Some(at));
    }

    pub(super) fn heals(&self, fault: u32, now: Instant) {
        let at = self.since_start(now);
        self.change(fault, |entry| entry.healed_seconds = Some(at));
        self.waiting.store(true, Ordering::Release);
    }

    pub(super) fn problem(&self, fault: u32, problem: String) {
        self.change(fault, |entry| entry.problem = entry.problem.take().or(Some(problem)));
    }

    pub(super) fn struck(&self, fault: u32, times: Option<u64>) {
        self.change(fault, |entry| entry.struck = times);
    }

    /// An attempt failed and is tried again.
    pub(crate) fn retried(&self) {
        if !self.empty {
            self.latest(|entry| entry.retries += 1);
        }
    }

    /// Operations ended at `now`.
    pub(crate) fn finished(&self, outcome: Outcome, operations: u64, now: Instant) {
        if self.empty {
            return;
        }
        match outcome {
            Outcome::Acknowledged if self.waiting.load(Ordering::Acquire) => self.recovered(now),
            Outcome::Acknowledged => {}
            Outcome::Rejected => self.latest(|entry| entry.rejected += operations),
            Outcome::Unknown => self.latest(|entry| entry.unknown += operations),
        }
    }

    /// What is neither stored nor acknowledged is counted to the fault that began last.
    fn latest(&self, how: impl FnOnce(&mut FaultReport)) {
        let mut entries = self.entries();
        let begun = entries.iter_mut().filter(|entry| entry.begun_seconds.is_some());
        let last = begun.max_by(|a, b| a.begun_seconds.partial_cmp(&b.begun_seconds).unwrap_or(std::cmp::Ordering::Equal));
        if let Some(entry) = last {
            how(entry);
        }
    }

    fn recovered(&self, now: Instant) {
        let now = self.since_start(now);
        for entry in self.entries().iter_mut().filter(|entry| entry.recovery_seconds.is_none()) {
            entry.recovery_seconds = entry.healed_seconds.map(|healed| (now - healed).max(0.0));
        }
        self.waiting.store(false, Ordering::Release);
    }

    /// Everything until now.
    pub(crate) fn reports(&self) -> Vec<FaultReport> {
        self.entries().clone()
    }
}
