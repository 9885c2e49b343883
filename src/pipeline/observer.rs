//! What can be watched of the pipeline, without changing it.

use std::time::Duration;

use crate::target::Failure;

/// One batch, as its observers see it.
#[derive(Clone, Copy, Debug)]
pub struct BatchInfo<'a> {
    /// Its number, from 0.
    pub id: u64,
    /// The table it goes to.
    pub table: &'a str,
    /// Rows in it.
    pub rows: usize,
    /// Which attempt, from 1.
    pub attempt: u32,
    /// The database session that carries it; 0 where there is none.
    pub session: u64,
}

/// How a batch ended.
#[derive(Clone, Debug)]
pub enum BatchOutcome {
    /// The server confirmed it.
    Acknowledged {
        /// Warnings that tell of altered values.
        warnings: u64,
    },
    /// Definitely not applied.
    Rejected(Failure),
    /// Nobody can say.
    Unknown(Failure),
}

/// Sees every stage of the pipeline. Every method has an empty default; all are called from the hot path and must not block.
#[expect(unused_variables, reason = "the defaults ignore what they are told")]
pub trait Observer: Send + Sync {
    /// A row is in the queue, after waiting for room.
    fn enqueued(&self, waited: Duration) {}
    /// A batch is complete; `took` from its first row.
    fn assembled(&self, table: &str, rows: usize, took: Duration) {}
    /// A batch has its connection.
    fn connection_acquired(&self, waited: Duration) {}
    /// One attempt, send to answer.
    fn executed(&self, batch: &BatchInfo<'_>, took: Duration) {}
    /// One attempt failed.
    fn attempt_failed(&self, batch: &BatchInfo<'_>, failure: &Failure, will_retry: bool) {}
    /// A batch has its final answer; `took` from its first send.
    fn finished(&self, batch: &BatchInfo<'_>, outcome: &BatchOutcome, took: Duration) {}
    /// How full the pipeline is.
    fn gauges(&self, queue_length: usize, in_flight: usize) {}
}
