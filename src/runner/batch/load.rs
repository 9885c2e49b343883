//! Offers the schedule's operations to the pipeline: one loop for workers that wait (closed), one for starts that do not (open).

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::observe::Watch;
use crate::pipeline::{Pipeline, Submission, SubmitError};
use crate::recorder::Recorder;
use crate::runner::guard::Hold;
use crate::runner::{Offered, Run};
use crate::scenario::{Arrivals, BatchInsert, Saturation};
use crate::schedule::{Rate, Schedule, Vus};
use crate::table::Row;
use crate::workload::batch_insert::Generator;

/// What both loops use.
struct Loop {
    pipeline: Arc<Pipeline>,
    recorder: Arc<Recorder>,
    watch: Arc<Watch>,
    generator: Generator,
    epoch: Instant,
    rows: u64,
    stop: CancellationToken,
    hold: Arc<Hold>,
    next: AtomicU64,
    think_time: Duration,
    saturation: Saturation,
    /// The recorder's shard of the generator.
    worker: u64,
}

/// Offers the load of `run` until the schedule, the rows or a stop ends it.
pub(super) async fn offer(run: &Run, workload: &BatchInsert, watch: &Arc<Watch>, pipeline: &Arc<Pipeline>) -> Offered {
    let work = Arc::new(Loop {
        pipeline: Arc::clone(pipeline),
        recorder: Arc::clone(&run.recorder),
        watch: Arc::clone(watch),
        generator: Generator::new(run.scenario.seed, workload),
        epoch: run.epoch,
        rows: workload.rows.unwrap_or(u64::MAX),
        stop: run.stop.clone(),
        hold: Arc::clone(&run.hold),
        next: AtomicU64::new(0),
        think_time: run.scenario.load.think_time.0,
        saturation: run.scenario.load.saturation,
        worker: pipeline.concurrency() as u64,
    });
    match run.schedule.clone() {
        Schedule::Vus(vus) => closed(work, vus).await,
        Schedule::Arrivals(rate) => {
            let (arrivals, seed, runtime) = (run.scenario.load.arrivals, run.scenario.seed, tokio::runtime::Handle::current());
            // A thread of its own: the runtime's timer counts in milliseconds, and a late start is the generator's fault.
            let generator = tokio::task::spawn_blocking(move || open(&work, &rate, arrivals, seed, &runtime));
            generator
                .await
                .unwrap_or_else(|error| Offered { aborted: Some(format!("the load generator failed: {error}")), ..Offered::default() })
        }
    }
}

async fn closed(work: Arc<Loop>, vus: Vus) -> Offered {
    let vus = Arc::new(vus);
    let mut workers = JoinSet::new();
    for number in 0..vus.most() {
        workers.spawn(worker(Arc::clone(&work), Arc::clone(&vus), number));
    }
    let mut offered = Offered { whole_schedule: true, ..Offered::default() };
    while let Some(result) = workers.join_next().await {
        match result {
            Ok(mine) => offered.merge(Offered { whole_schedule: true, ..mine }),
            Err(error) => offered.aborted = Some(format!("a worker failed: {error}")),
        }
    }
    offered
}

/// One worker of a closed executor: its next operation is due when the queue has taken the last one.
async fn worker(work: Arc<Loop>, vus: Arc<Vus>, number: u32) -> Offered {
    let mut offered = Offered::default();
    let mut now = Instant::now();
    while !work.stop.is_cancelled() {
        if work.hold.wait(&work.stop).await {
            now = Instant::now();
            continue;
        }
        let since = now.duration_since(work.epoch);
        let Some(active) = vus.active_from(number, since) else { break };
        if active > since {
            work.pause_until(work.epoch + active).await;
            now = Instant::now();
            continue;
        }
        let index = work.next.fetch_add(1, Ordering::Relaxed);
        if index >= work.rows {
            break;
        }
        let due = now;
        work.take_place().await;
        let submission = Submission { table: 0, id: index, due, row: work.row(index) };
        if work.pipeline.submit(submission).await.is_err() {
            break;
        }
        offered.operations += 1;
        offered.last_due = due.duration_since(work.epoch);
        now = Instant::now();
        offered.last_started = now.duration_since(work.epoch);
        if !work.think_time.is_zero() {
            work.pause_until(now + work.think_time).await;
            now = Instant::now();
        }
        // A queue with room never makes this task wait: it must let others onto its thread of its own accord.
        tokio::task::coop::consume_budget().await;
    }
    offered
}

impl Loop {
    fn row(&self, index: u64) -> Row {
        let mut row = self.pipeline.spare().unwrap_or_default();
        self.generator.fill(index, &mut row);
        row
    }

    async fn pause_until(&self, instant: Instant) {
        tokio::select! {
            () = tokio::time::sleep_until(instant.into()) => {}
            () = self.stop.cancelled() => {}
        }
    }

    async fn take_place(&self) {
        if let Some(places) = self.watch.in_flight() {
            // The semaphore is never closed.
            places.acquire().await.expect("places are never closed").forget();
        }
    }
}

/// How an open operation that found no room ended.
enum Handed {
    AtOnce,
    AfterWaiting,
    Dropped,
    Stopped(String),
}

/// Starts at computed instants. An operation that is late because the queue was full is the target's doing and no lag.
fn open(work: &Loop, rate: &Rate, arrivals: Arrivals, seed: u64, runtime: &tokio::runtime::Handle) -> Offered {
    let mut offered = Offered::default();
    let mut free_since = work.epoch;
    let mut starts = rate.starts(arrivals, seed);
    for index in 0..work.rows {
        let Some(start) = starts.next() else {
            offered.whole_schedule = true;
            break;
        };
        let due = work.epoch + start;
        // Made before it is due, so that making it costs no lag.
        let row = work.row(index);
        if !sleep_until(due, &work.stop) {
            break;
        }
        let now = Instant::now();
        work.recorder.lag(work.worker, due, now.saturating_duration_since(due.max(free_since)));
        match hand_over(work, Submission { table: 0, id: index, due, row }, runtime) {
            Handed::AtOnce => offered.last_started = now.duration_since(work.epoch),
            Handed::AfterWaiting => {
                free_since = Instant::now();
                offered.last_started = free_since.duration_since(work.epoch);
            }
            Handed::Dropped => work.recorder.dropped(work.worker, due),
            Handed::Stopped(reason) => {
                // It was due and could not start.
                work.recorder.dropped(work.worker, due);
                offered.operations += 1;
                offered.aborted = Some(reason);
                break;
            }
        }
        offered.operations += 1;
        offered.last_due = start;
    }
    offered
}

fn hand_over(work: &Loop, submission: Submission, runtime: &tokio::runtime::Handle) -> Handed {
    if work.hold.keeps_back(submission.due) {
        return Handed::Dropped;
    }
    let places = work.watch.in_flight();
    let mut waited = false;
    if let Some(places) = places {
        match (places.try_acquire(), work.saturation) {
            (Ok(place), _) => place.forget(),
            (Err(_), Saturation::Queue) => {
                runtime.block_on(places.acquire()).expect("places are never closed").forget();
                waited = true;
            }
            (Err(_), saturation) => return saturated(saturation, "load.max_in_flight operations are unanswered"),
        }
    }
    match work.pipeline.try_submit(submission) {
        Ok(()) if waited => Handed::AfterWaiting,
        Ok(()) => Handed::AtOnce,
        Err(SubmitError::Full(submission)) if work.saturation == Saturation::Queue => match work.pipeline.blocking_submit(*submission) {
            Ok(()) => Handed::AfterWaiting,
            Err(error) => Handed::Stopped(error.to_string()),
        },
        Err(SubmitError::Full(_)) => {
            give_back(places);
            saturated(work.saturation, "the pipeline's queue is full")
        }
        Err(error) => Handed::Stopped(error.to_string()),
    }
}

fn give_back(places: Option<&Semaphore>) {
    if let Some(places) = places {
        places.add_permits(1);
    }
}

fn saturated(saturation: Saturation, what: &str) -> Handed {
    match saturation {
        Saturation::Drop | Saturation::Queue => Handed::Dropped,
        Saturation::Abort => Handed::Stopped(format!("{what}, and load.saturation is abort")),
    }
}

/// Longest sleep in one piece, so that a stop is seen.
const NAP: Duration = Duration::from_millis(50);

/// Sleeps until `due`; false if the load was stopped.
fn sleep_until(due: Instant, stop: &CancellationToken) -> bool {
    loop {
        if stop.is_cancelled() {
            return false;
        }
        let left = due.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return true;
        }
        std::thread::sleep(left.min(NAP));
    }
}
