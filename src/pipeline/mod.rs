//! The batch writer: a bounded queue, batches by table flushed at size or at interval, a bounded number of them in flight, each one
//! transaction that ends acknowledged, rejected or unknown.
//!
//! Goals: backpressure instead of memory (`submit` waits when the queue is full); a failing batch never takes another with it;
//! [`Pipeline::close`] returns when everything submitted has an outcome, and a panic in a batch is an outcome too.
//! Non-goals: ordering between batches, durability of the queue.
//!
//! ```no_run
//! # async fn example(target: std::sync::Arc<dyn batchsql::target::Target>, plan: batchsql::target::WritePlan, row: batchsql::table::Row)
//! # -> anyhow::Result<()> {
//! use batchsql::pipeline::{Pipeline, Submission};
//!
//! let pipeline = Pipeline::builder(target).table(plan).start()?;
//! pipeline.submit(Submission::now(1, row)).await?;
//! let totals = pipeline.close().await;
//! assert_eq!(totals.acknowledged, 1);
//! # Ok(()) }
//! ```

mod batch;
mod clock;
#[cfg(test)]
mod model;
pub mod observer;
pub mod retry;

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use futures::FutureExt as _;
use tokio::sync::{Mutex, mpsc};
use tokio::task::{JoinHandle, JoinSet};

use crate::scenario::PipelineConfig;
use crate::table::Row;
use crate::target::{Database, Target, TargetError, WritePlan};
use batch::{Batch, Shared};
use observer::{Entry, NoObserver, Observer};

/// A row on its way into the pipeline.
#[derive(Clone, Debug)]
pub struct Submission {
    /// Which of the pipeline's tables, by the order of [`Builder::table`] calls.
    pub table: usize,
    /// The submitter's own number for it; observers see it again.
    pub id: u64,
    /// The instant it was due: what response time counts from.
    pub due: Instant,
    /// Its values.
    pub row: Row,
}

impl Submission {
    /// A row for the first table, due now.
    #[must_use]
    pub fn now(id: u64, row: Row) -> Self {
        Self { table: 0, id, due: Instant::now(), row }
    }
}

/// Why a row was not taken.
#[derive(Debug, thiserror::Error)]
pub enum SubmitError {
    /// The queue is full (only from [`Pipeline::try_submit`]); the row comes back.
    #[error("the pipeline's queue is full")]
    Full(Box<Submission>),
    /// The pipeline has stopped.
    #[error("the pipeline is closed")]
    Closed,
    /// The row does not fit its table.
    #[error("{0}")]
    Mismatch(String),
}

/// What became of everything submitted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Rows the target confirmed.
    pub acknowledged: u64,
    /// Rows definitely not applied.
    pub rejected: u64,
    /// Rows of which nobody can say.
    pub unknown: u64,
}

/// Sets up a [`Pipeline`].
pub struct Builder {
    target: Arc<dyn Target>,
    plans: Vec<WritePlan>,
    config: PipelineConfig,
    seed: u64,
    observer: Arc<dyn Observer>,
}

impl Builder {
    /// Adds a table; [`Submission::table`] counts them from 0.
    #[must_use]
    pub fn table(mut self, plan: WritePlan) -> Self {
        self.plans.push(plan);
        self
    }

    /// Sizes, interval, concurrency and retry; the defaults are buffer 5,000, flush at 200 rows or 100 ms.
    #[must_use]
    pub fn config(mut self, config: PipelineConfig) -> Self {
        self.config = config;
        self
    }

    /// Where the jitter of retries comes from.
    #[must_use]
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// Who watches: [`crate::metrics::PrometheusMetricsReporter`], or any other [`Observer`].
    #[must_use]
    pub fn with_metrics_reporter(mut self, observer: Arc<dyn Observer>) -> Self {
        self.observer = observer;
        self
    }

    /// Starts the pipeline on the current tokio runtime.
    ///
    /// # Errors
    /// When the target does not have the asked method.
    pub fn start(self) -> Result<Pipeline, TargetError> {
        let flush_size = self.config.flush_size.max(1);
        let plans =
            self.plans.into_iter().map(|plan| self.target.resolve(plan, flush_size).map(Arc::new)).collect::<Result<Vec<_>, _>>()?;
        let concurrency = self.config.concurrency.unwrap_or_else(|| default_concurrency(self.target.database()));
        let (queue, rows) = mpsc::channel(self.config.buffer_size.max(1));
        let shared = Arc::new(Shared {
            target: self.target,
            plans,
            retry: self.config.retry.clone(),
            seed: self.seed,
            observer: self.observer,
            in_flight: AtomicUsize::new(0),
            spare: std::sync::Mutex::default(),
            most_spare: 2 * flush_size,
            totals: Counters::default(),
        });
        let groups = shared.plans.iter().map(|_| Group::default()).collect();
        let flush_interval = self.config.flush_interval.0;
        let intake = Intake { queue: rows, inbox: Vec::new(), groups, flush_size, flush_interval, next_batch: 0 };
        let slots = tokio::spawn(slots(concurrency, intake, Arc::clone(&shared)));
        Ok(Pipeline { queue, concurrency, slots, shared })
    }
}

/// Batches in flight at once where the scenario does not say: SQLite has one writer; a server serves several.
#[must_use]
pub fn default_concurrency(database: Database) -> usize {
    match database {
        Database::Sqlite => 1,
        Database::Postgres | Database::Mysql => 4,
    }
}

#[derive(Debug, Default)]
pub(crate) struct Counters {
    acknowledged: AtomicU64,
    rejected: AtomicU64,
    unknown: AtomicU64,
}

/// A running batch writer. Dropping it without [`Pipeline::close`] still writes what was submitted, unobserved by the caller.
pub struct Pipeline {
    queue: mpsc::Sender<Submission>,
    concurrency: usize,
    slots: JoinHandle<()>,
    shared: Arc<Shared>,
}

impl Pipeline {
    /// Begins setting up a pipeline that writes to `target`.
    #[must_use]
    pub fn builder(target: Arc<dyn Target>) -> Builder {
        Builder { target, plans: Vec::new(), config: PipelineConfig::default(), seed: 0, observer: Arc::new(NoObserver) }
    }

    /// Puts a row into the queue, waiting for room.
    ///
    /// # Errors
    /// When the row does not fit its table, or the pipeline has stopped.
    pub async fn submit(&self, submission: Submission) -> Result<(), SubmitError> {
        match self.try_submit(submission) {
            Err(SubmitError::Full(submission)) => {
                let began = Instant::now();
                self.queue.send(*submission).await.map_err(|_| SubmitError::Closed)?;
                self.shared.observer.enqueued(began.elapsed());
                Ok(())
            }
            other => other,
        }
    }

    /// Puts a row into the queue if there is room.
    ///
    /// # Errors
    /// [`SubmitError::Full`] gives the row back.
    pub fn try_submit(&self, submission: Submission) -> Result<(), SubmitError> {
        let plan = self.shared.plans.get(submission.table);
        let plan = plan.ok_or_else(|| SubmitError::Mismatch(format!("the pipeline has no table number {}", submission.table)))?;
        if let Some(mismatch) = plan.table.mismatch(&submission.row) {
            return Err(SubmitError::Mismatch(mismatch));
        }
        self.queue.try_send(submission).map_err(|error| match error {
            mpsc::error::TrySendError::Full(submission) => SubmitError::Full(Box::new(submission)),
            mpsc::error::TrySendError::Closed(_) => SubmitError::Closed,
        })?;
        self.shared.observer.enqueued(Duration::ZERO);
        Ok(())
    }

    /// As [`Pipeline::submit`], for threads outside the runtime.
    ///
    /// # Errors
    /// As [`Pipeline::submit`].
    pub fn blocking_submit(&self, submission: Submission) -> Result<(), SubmitError> {
        match self.try_submit(submission) {
            Err(SubmitError::Full(submission)) => {
                let began = Instant::now();
                self.queue.blocking_send(*submission).map_err(|_| SubmitError::Closed)?;
                self.shared.observer.enqueued(began.elapsed());
                Ok(())
            }
            other => other,
        }
    }

    /// A row whose batch has ended, if one is at hand: filling it again costs half of what allocating a new one does.
    #[must_use]
    pub fn spare(&self) -> Option<Row> {
        // Waiting for the lock would cost more than the row is worth.
        self.shared.spare.try_lock().ok()?.pop()
    }

    /// A handle for looking at the pipeline that does not keep it open.
    #[must_use]
    pub fn gauges(&self) -> Gauges {
        Gauges { queue: self.queue.downgrade(), shared: Arc::clone(&self.shared) }
    }

    /// Most batches written at once.
    #[must_use]
    pub fn concurrency(&self) -> usize {
        self.concurrency
    }

    /// How rows of table number `table` travel.
    #[must_use]
    pub fn plan(&self, table: usize) -> &WritePlan {
        &self.shared.plans[table]
    }

    /// Takes no more rows, flushes what is queued, and returns when every row has its outcome.
    pub async fn close(self) -> Totals {
        drop(self.queue);
        // Panics of foreign code end in their batch; should one be left, the totals say what is missing.
        let _ = self.slots.await;
        let totals = &self.shared.totals;
        Totals {
            acknowledged: totals.acknowledged.load(Ordering::Acquire),
            rejected: totals.rejected.load(Ordering::Acquire),
            unknown: totals.unknown.load(Ordering::Acquire),
        }
    }
}

/// How full a pipeline is; stays valid after it has closed.
#[derive(Clone)]
pub struct Gauges {
    queue: mpsc::WeakSender<Submission>,
    shared: Arc<Shared>,
}

impl Gauges {
    /// Rows in the queue.
    #[must_use]
    pub fn queue_length(&self) -> usize {
        self.queue.upgrade().map_or(0, |queue| queue.max_capacity() - queue.capacity())
    }

    /// Batches being written.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.shared.in_flight.load(Ordering::Relaxed)
    }
}

/// Rows of one table that wait for their batch to fill.
#[derive(Default)]
struct Group {
    entries: Vec<Entry>,
    rows: Vec<Row>,
    first: Option<Instant>,
}

/// Writes batches in `concurrency` places at once until the queue is closed and empty.
async fn slots(concurrency: usize, intake: Intake, shared: Arc<Shared>) {
    let intake = Arc::new(Mutex::new(intake));
    let mut slots = JoinSet::new();
    for _ in 0..concurrency.max(1) {
        slots.spawn(slot(Arc::clone(&intake), Arc::clone(&shared)));
    }
    while slots.join_next().await.is_some() {}
    shared.observer.gauges(0, 0);
}

/// A free slot forms its next batch itself, on the thread on which the last one ended: having another task do it would cost a batch
/// of 200 rows more time in wake-ups than SQLite takes to write a quarter of it.
async fn slot(intake: Arc<Mutex<Intake>>, shared: Arc<Shared>) {
    loop {
        let batch = intake.lock().await.next(&shared).await;
        let Some(batch) = batch else { break };
        // A panic that is left here is an observer's; the slot must outlive it.
        let _ = AssertUnwindSafe(batch.run(&shared)).catch_unwind().await;
        shared.in_flight.fetch_sub(1, Ordering::Relaxed);
        batch.recycle(&shared);
    }
}

/// The one consumer of the queue: forms batches. While every slot is busy rows stay in the queue, which is what makes `submit` wait.
struct Intake {
    queue: mpsc::Receiver<Submission>,
    inbox: Vec<Submission>,
    groups: Vec<Group>,
    flush_size: usize,
    flush_interval: Duration,
    next_batch: u64,
}

impl Intake {
    /// The next batch: a full one, one whose interval is over, or, once the queue is closed, the rest; `None` when nothing is left.
    async fn next(&mut self, shared: &Shared) -> Option<Batch> {
        let mut closed = false;
        loop {
            if let Some(table) = self.ripe(closed) {
                return Some(self.batch(table, shared));
            }
            if closed {
                return None;
            }
            let due = self.groups.iter().filter_map(|group| group.first).min().map(|first| first + self.flush_interval);
            // No group can get more rows than it has room for.
            let room = self.flush_size - self.groups.iter().map(|group| group.rows.len()).max().unwrap_or(0);
            tokio::select! {
                biased;
                received = self.queue.recv_many(&mut self.inbox, room) => closed = received == 0,
                () = sleep_until(due) => {}
            }
            for submission in self.inbox.drain(..) {
                self.groups[submission.table].add(submission, self.flush_size);
            }
        }
    }

    /// A group that is to be written now.
    fn ripe(&self, closed: bool) -> Option<usize> {
        let over = |first: Instant| closed || clock::now().duration_since(first) >= self.flush_interval;
        self.groups.iter().position(|group| group.rows.len() >= self.flush_size || group.first.is_some_and(over))
    }

    fn batch(&mut self, table: usize, shared: &Shared) -> Batch {
        let Group { entries, rows, first } = std::mem::take(&mut self.groups[table]);
        let took = first.map_or(Duration::ZERO, |first| clock::now().duration_since(first));
        shared.observer.assembled(&shared.plans[table].table.name, rows.len(), took);
        let in_flight = shared.in_flight.fetch_add(1, Ordering::Relaxed) + 1;
        shared.observer.gauges(self.queue.len(), in_flight);
        let id = self.next_batch;
        self.next_batch += 1;
        Batch { id, table, entries, rows: Arc::new(rows) }
    }
}

impl Group {
    fn add(&mut self, submission: Submission, flush_size: usize) {
        if self.first.is_none() {
            self.first = Some(clock::now());
            self.rows.reserve_exact(flush_size.min(65_536));
            self.entries.reserve_exact(flush_size.min(65_536));
        }
        self.entries.push(Entry { id: submission.id, due: submission.due });
        self.rows.push(submission.row);
    }
}

async fn sleep_until(due: Option<Instant>) {
    match due {
        Some(due) => clock::sleep_until(due).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests;
