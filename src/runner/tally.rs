//! What went wrong in a run, counted by class, with an example of each.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};

use crate::target::Failure;

/// Counts that many threads add to; nothing of it is on the way of what goes well.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    errors: Mutex<Errors>,
    retries: AtomicU64,
    ledger_failure: OnceLock<String>,
}

/// Failed attempts by `retry:<class>` and `final:<class>`, with the first message of each class.
#[derive(Clone, Debug, Default)]
pub(crate) struct Errors {
    pub(crate) counts: BTreeMap<String, u64>,
    pub(crate) examples: BTreeMap<String, String>,
}

impl Tally {
    /// Retries begun so far.
    pub(crate) fn retries(&self) -> u64 {
        self.retries.load(Ordering::Relaxed)
    }

    pub(crate) fn errors(&self) -> Errors {
        self.errors.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn ledger_failure(&self) -> Option<&str> {
        self.ledger_failure.get().map(String::as_str)
    }

    /// Takes note of a write to the ledger; the first that failed is kept.
    pub(crate) fn keep(&self, written: std::io::Result<()>) {
        if let Err(error) = written {
            let _ = self.ledger_failure.set(error.to_string());
        }
    }

    /// An attempt that failed and is tried again.
    pub(crate) fn retried(&self, failure: &Failure) {
        self.retries.fetch_add(1, Ordering::Relaxed);
        self.error("retry", failure, 1);
    }

    /// What ended an operation, or told of `count` altered values.
    pub(crate) fn failed(&self, failure: &Failure, count: u64) {
        self.error("final", failure, count);
    }

    fn error(&self, kind: &str, failure: &Failure, count: u64) {
        let class = failure.class.as_str();
        let mut errors = self.errors.lock().unwrap_or_else(PoisonError::into_inner);
        *errors.counts.entry(format!("{kind}:{class}")).or_default() += count;
        errors.examples.entry(class.to_owned()).or_insert_with(|| failure.message.clone());
    }
}
