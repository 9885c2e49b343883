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
        let (ready, batches) = mpsc::channel(1);
        let batches = Arc::new(Mutex::new(batches));
        let mut slots = JoinSet::new();
        for _ in 0..concurrency.max(1) {
            slots.spawn(slot(Arc::clone(&shared), Arc::clone(&batches)));
        }
        let assembler = Assembler {
            shared: Arc::clone(&shared),
            groups: shared.plans.iter().map(|_| Group::default()).collect(),
            flush_size,
            flush_interval: self.config.flush_interval.0,
            next_batch: 0,
            ready,
            slots,
        };
        Ok(Pipeline { queue, concurrency, assembler: tokio::spawn(assembler.run(rows)), shared })
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
    assembler: JoinHandle<()>,
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
        // The assembler itself runs no foreign code; should it panic, the totals say what is missing.
        let _ = self.assembler.await;
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

/// One of the places in which batches are written. It takes the next batch, which stands ready, on the thread on which the last one
/// ended: waking others in between would cost a batch of 200 rows as much time as SQLite takes for 50 of them.
async fn slot(shared: Arc<Shared>, ready: Arc<Mutex<mpsc::Receiver<Batch>>>) {
    loop {
        let batch = ready.lock().await.recv().await;
        let Some(batch) = batch else { break };
        shared.in_flight.fetch_add(1, Ordering::Relaxed);
        // A panic that is left here is an observer's; the slot must outlive it.
        let _ = AssertUnwindSafe(batch.run(&shared)).catch_unwind().await;
        shared.in_flight.fetch_sub(1, Ordering::Relaxed);
        batch.recycle(&shared);
    }
}

/// Rows of one table that wait for their batch to fill.
#[derive(Default)]
struct Group {
    entries: Vec<Entry>,
    rows: Vec<Row>,
    first: Option<Instant>,
}

/// Forms batches and hands them to the slots: the one consumer of the queue.
struct Assembler {
    shared: Arc<Shared>,
    groups: Vec<Group>,
    flush_size: usize,
    flush_interval: Duration,
    next_batch: u64,
    /// Takes one batch, so that it is formed while the last ones are written.
    ready: mpsc::Sender<Batch>,
    slots: JoinSet<()>,
}

impl Assembler {
    async fn run(mut self, mut queue: mpsc::Receiver<Submission>) {
        let mut inbox = Vec::with_capacity(self.flush_size.min(1024));
        loop {
            let due = self.groups.iter().filter_map(|group| group.first).min().map(|first| first + self.flush_interval);
            let received = tokio::select! {
                biased;
                received = queue.recv_many(&mut inbox, self.flush_size.min(1024)) => Some(received),
                () = sleep_until(due) => None,
            };
            for submission in inbox.drain(..) {
                self.add(submission, &queue).await;
            }
            if received == Some(0) {
                break;
            }
            self.flush_due(&queue).await;
        }
        for table in 0..self.groups.len() {
            self.flush(table, &queue).await;
        }
        drop(self.ready);
        while self.slots.join_next().await.is_some() {}
        self.shared.observer.gauges(0, 0);
    }

    async fn add(&mut self, submission: Submission, queue: &mpsc::Receiver<Submission>) {
        let table = submission.table;
        let group = &mut self.groups[table];
        if group.first.is_none() {
            group.first = Some(Instant::now());
            group.rows.reserve_exact(self.flush_size.min(65_536));
            group.entries.reserve_exact(self.flush_size.min(65_536));
        }
        group.entries.push(Entry { id: submission.id, due: submission.due });
        group.rows.push(submission.row);
        if group.rows.len() >= self.flush_size {
            self.flush(table, queue).await;
        }
    }

    async fn flush_due(&mut self, queue: &mpsc::Receiver<Submission>) {
        let now = Instant::now();
        for table in 0..self.groups.len() {
            if self.groups[table].first.is_some_and(|first| now.duration_since(first) >= self.flush_interval) {
                self.flush(table, queue).await;
            }
        }
    }

    /// Hands the group over as a batch, waiting until the last one has been taken: what makes the queue fill and `submit` wait.
    async fn flush(&mut self, table: usize, queue: &mpsc::Receiver<Submission>) {
        let group = std::mem::take(&mut self.groups[table]);
        let Some(first) = group.first else { return };
        self.shared.observer.assembled(&self.shared.plans[table].table.name, group.rows.len(), first.elapsed());
        self.shared.observer.gauges(queue.len(), self.shared.in_flight.load(Ordering::Relaxed));
        let batch = Batch { id: self.next_batch, table, entries: group.entries, rows: Arc::new(group.rows) };
        self.next_batch += 1;
        // The slots stay as long as there is a sender.
        let _ = self.ready.send(batch).await;
    }
}

async fn sleep_until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due.into()).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests;
