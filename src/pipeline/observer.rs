//! Who watches the pipeline: a trait with one method a stage, for recorders, ledgers, exporters and users' own code.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::target::Failure;

/// One submitted row, without its values.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    /// The submitter's own number for it.
    pub id: u64,
    /// The instant it was due: what response time counts from.
    pub due: Instant,
}

/// A batch as observers see it.
#[derive(Clone, Copy, Debug)]
pub struct BatchInfo<'a> {
    /// Its number in the pipeline, from 0.
    pub id: u64,
    /// The table it goes to.
    pub table: &'a str,
    /// Rows in it.
    pub rows: usize,
    /// The rows, in the order in which they take effect.
    pub entries: &'a [Entry],
    /// Which attempt this is, from 1.
    pub attempt: u32,
    /// The database session it is sent on; 0 if none.
    pub session: u64,
}

/// What became of a batch.
#[derive(Clone, Debug)]
pub enum BatchOutcome {
    /// The target confirmed its transaction.
    Acknowledged {
        /// Warnings of altered values.
        warnings: u64,
        /// Whether an earlier attempt's outcome was unknown, so that the rows may have been applied twice.
        after_unknown: bool,
    },
    /// Definitely not applied.
    Rejected(Failure),
    /// Nobody can say.
    Unknown(Failure),
}

/// Sees every stage of the pipeline. Every method has an empty default; all are called in the hot path and must not block.
#[expect(unused_variables, reason = "defaults do nothing")]
pub trait Observer: Send + Sync {
    /// A row was put into the queue after waiting this long for room.
    fn enqueued(&self, waited: Duration) {}

    /// A batch was formed; `took` is the time from its first row to its last.
    fn assembled(&self, table: &str, rows: usize, took: Duration) {}

    /// A connection was taken from the pool after this long.
    fn connection_acquired(&self, waited: Duration) {}

    /// An attempt is about to be sent. Called at least once for every batch before [`Observer::finished`] (with session 0 if
    /// nothing could be sent), so that a journal can write down what is about to happen.
    ///
    /// # Errors
    /// An error refuses the batch: it is not sent and ends rejected.
    fn sending(&self, batch: &BatchInfo<'_>) -> Result<(), String> {
        Ok(())
    }

    /// An attempt was answered, or given up; `took` is from its send.
    fn executed(&self, batch: &BatchInfo<'_>, took: Duration) {}

    /// An attempt failed.
    fn attempt_failed(&self, batch: &BatchInfo<'_>, failure: &Failure, will_retry: bool) {}

    /// The batch has its outcome; `took` is from its first send (zero if nothing was sent).
    fn finished(&self, batch: &BatchInfo<'_>, outcome: &BatchOutcome, took: Duration) {}

    /// Rows in the queue and batches in flight, told whenever a batch was formed and when the pipeline has closed.
    fn gauges(&self, queue_length: usize, in_flight: usize) {}
}

/// Watches nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoObserver;

impl Observer for NoObserver {}

/// Several observers, called in order; the first that refuses a batch refuses it for all.
impl Observer for Vec<Arc<dyn Observer>> {
    fn enqueued(&self, waited: Duration) {
        self.iter().for_each(|o| o.enqueued(waited));
    }

    fn assembled(&self, table: &str, rows: usize, took: Duration) {
        self.iter().for_each(|o| o.assembled(table, rows, took));
    }

    fn connection_acquired(&self, waited: Duration) {
        self.iter().for_each(|o| o.connection_acquired(waited));
    }

    fn sending(&self, batch: &BatchInfo<'_>) -> Result<(), String> {
        self.iter().try_for_each(|o| o.sending(batch))
    }

    fn executed(&self, batch: &BatchInfo<'_>, took: Duration) {
        self.iter().for_each(|o| o.executed(batch, took));
    }

    fn attempt_failed(&self, batch: &BatchInfo<'_>, failure: &Failure, will_retry: bool) {
        self.iter().for_each(|o| o.attempt_failed(batch, failure, will_retry));
    }

    fn finished(&self, batch: &BatchInfo<'_>, outcome: &BatchOutcome, took: Duration) {
        self.iter().for_each(|o| o.finished(batch, outcome, took));
    }

    fn gauges(&self, queue_length: usize, in_flight: usize) {
        self.iter().for_each(|o| o.gauges(queue_length, in_flight));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::target::{Applied, ErrorClass};

    #[derive(Default)]
    struct Hears {
        heard: Mutex<Vec<String>>,
        refuses: bool,
    }

    impl Hears {
        fn note(&self, what: impl Into<String>) {
            self.heard.lock().unwrap().push(what.into());
        }
    }

    impl Observer for Hears {
        fn enqueued(&self, waited: Duration) {
            self.note(format!("enqueued {waited:?}"));
        }
        fn assembled(&self, table: &str, rows: usize, took: Duration) {
            self.note(format!("assembled {table} {rows} {took:?}"));
        }
        fn connection_acquired(&self, waited: Duration) {
            self.note(format!("acquired {waited:?}"));
        }
        fn sending(&self, batch: &BatchInfo<'_>) -> Result<(), String> {
            self.note(format!("sending {}", batch.id));
            if self.refuses { Err("full".to_owned()) } else { Ok(()) }
        }
        fn executed(&self, batch: &BatchInfo<'_>, took: Duration) {
            self.note(format!("executed {} {took:?}", batch.id));
        }
        fn attempt_failed(&self, batch: &BatchInfo<'_>, failure: &Failure, will_retry: bool) {
            self.note(format!("failed {} {} {will_retry}", batch.id, failure.class.as_str()));
        }
        fn finished(&self, batch: &BatchInfo<'_>, outcome: &BatchOutcome, took: Duration) {
            self.note(format!("finished {} {} {took:?}", batch.id, matches!(outcome, BatchOutcome::Rejected(_))));
        }
        fn gauges(&self, queue_length: usize, in_flight: usize) {
            self.note(format!("gauges {queue_length} {in_flight}"));
        }
    }

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn each_of_several_hears_everything_until_one_refuses() {
        let hears = [false, false, true, false].map(|refuses| Arc::new(Hears { refuses, ..Hears::default() }));
        let of = |range: std::ops::Range<usize>| -> Vec<Arc<dyn Observer>> {
            hears[range].iter().map(|hears| Arc::<Hears>::clone(hears) as Arc<dyn Observer>).collect()
        };
        let batch = BatchInfo { id: 4, table: "t", rows: 2, entries: &[], attempt: 1, session: 9 };
        let failure = Failure { class: ErrorClass::Busy, applied: Applied::No, message: String::new() };
        let all = of(0..2);
        all.enqueued(SECOND);
        all.assembled("t", 2, SECOND);
        all.connection_acquired(SECOND);
        assert_eq!(all.sending(&batch), Ok(()));
        all.executed(&batch, SECOND);
        all.attempt_failed(&batch, &failure, true);
        all.finished(&batch, &BatchOutcome::Rejected(failure), SECOND);
        all.gauges(3, 1);
        let expected = [
            "enqueued 1s",
            "assembled t 2 1s",
            "acquired 1s",
            "sending 4",
            "executed 4 1s",
            "failed 4 busy true",
            "finished 4 true 1s",
            "gauges 3 1",
        ];
        for hears in &hears[..2] {
            assert_eq!(*hears.heard.lock().unwrap(), expected);
        }
        assert_eq!(of(1..4).sending(&batch), Err("full".to_owned()));
        let heard = hears.each_ref().map(|hears| hears.heard.lock().unwrap().len());
        assert_eq!(heard, [8, 9, 1, 0], "who comes after the one that refuses is not asked");
    }
}
