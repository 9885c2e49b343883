//! One thread of load: a runtime, a client and the measurements are its own, so that nothing is shared on the way but counters.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::task::{JoinSet, LocalSet};
use tokio_util::sync::CancellationToken;

use super::judge::judge;
use super::measure::Measured;
use super::meter::{Counted, Ended, Meter};
use super::request::Builder;
use super::timer::Timer;
use crate::fault::{Book, Marks};
use crate::http::{Client, Config, Failed, Kind, Reply, Request};
use crate::ledger::requests::{Answer, RequestWriter, encode};
use crate::ledger::{Mark, Outcome};
use crate::metrics::PrometheusMetricsReporter;
use crate::pipeline::observer::{BatchInfo, BatchOutcome, Entry, Observer as _};
use crate::recorder::Recorder;
use crate::redact::redact;
use crate::runner::Offered;
use crate::runner::guard::Hold;
use crate::runner::tally::Tally;
use crate::scenario::{Arrivals, Saturation};
use crate::schedule::{Rate, Schedule, Vus};
use crate::target::{Applied, ErrorClass, Failure};
use crate::telemetry::trace::{self, RunTrace};
use crate::workload::proxy_request::Operation;

/// What the lanes of a run share.
pub(super) struct Shared {
    pub(super) builder: Builder,
    /// The same requests under other ids, past the gateway.
    pub(super) direct_builder: Option<Builder>,
    pub(super) config: Config,
    pub(super) direct: Option<Config>,
    pub(super) schedule: Schedule,
    pub(super) arrivals: Arrivals,
    pub(super) saturation: Saturation,
    pub(super) think_time: Duration,
    pub(super) seed: u64,
    pub(super) epoch: Instant,
    /// When phase `main` begins.
    pub(super) main: Duration,
    /// Most requests.
    pub(super) cap: u64,
    pub(super) lanes: u64,
    pub(super) stop: CancellationToken,
    pub(super) hold: Arc<Hold>,
    pub(super) recorder: Arc<Recorder>,
    pub(super) tally: Arc<Tally>,
    pub(super) faults: Arc<Book>,
    pub(super) ledger: RequestWriter,
    pub(super) reporter: Option<PrometheusMetricsReporter>,
    pub(super) trace: Option<Arc<RunTrace>>,
    pub(super) meter: Option<Meter>,
    pub(super) routes: Vec<String>,
    /// What must not be kept of a reply.
    pub(super) secrets: Vec<String>,
    /// Places of `load.max_in_flight`, of the arrival rates.
    pub(super) places: Arc<Semaphore>,
    /// Operations below it have been begun, or were due.
    pub(super) next: AtomicU64,
    pub(super) in_flight: AtomicUsize,
    /// Connections in use, a lane each.
    pub(super) active: Vec<AtomicU32>,
    /// The `server` header of the first reply.
    pub(super) server: OnceLock<String>,
}

impl Marks for Shared {
    fn mark(&self, mark: Mark) {
        let at_ms = u32::try_from(self.epoch.elapsed().as_millis()).unwrap_or(u32::MAX);
        self.tally.keep(self.ledger.mark(mark, at_ms));
    }
}

/// Answers that are yet to be written to the ledger.
struct Unwritten {
    encoded: Vec<u8>,
    since: Instant,
}

/// Answers wait no longer for others than this.
const FLUSH_AFTER: Duration = Duration::from_millis(1);
const FLUSH_BYTES: usize = 4096;

/// Metrics wait for others no longer than this.
const METRICS_AFTER: Duration = Duration::from_millis(100);

/// Open operations begun before the lane lets replies be read.
const BURST: u32 = 16;

struct Lane {
    number: u64,
    shared: Arc<Shared>,
    client: Client,
    direct: Option<Client>,
    measured: RefCell<Measured>,
    counted: RefCell<Counted>,
    unwritten: RefCell<Unwritten>,
}

/// Runs lane `number` to its end. `offered` is told when the last operation has been begun; what it measured is returned when
/// every answer is in.
pub(super) fn run(shared: &Arc<Shared>, number: u64, offered: oneshot::Sender<Offered>) -> Result<Measured, String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|e| e.to_string())?;
    let client = Client::new(shared.config.clone()).map_err(|e| e.to_string())?;
    let direct = shared.direct.clone().map(Client::new).transpose().map_err(|e| e.to_string())?;
    let lane = Rc::new(Lane {
        number,
        shared: Arc::clone(shared),
        client,
        direct,
        measured: RefCell::new(Measured::new(shared.routes.len())),
        counted: RefCell::default(),
        unwritten: RefCell::new(Unwritten { encoded: Vec::with_capacity(2 * FLUSH_BYTES), since: Instant::now() }),
    });
    LocalSet::new().block_on(&runtime, async {
        let mut requests = JoinSet::new();
        let done = CancellationToken::new();
        let flusher = tokio::task::spawn_local(flush_now_and_then(Rc::clone(&lane), done.clone()));
        let seen = match &shared.schedule {
            Schedule::Vus(vus) => closed(&lane, vus).await,
            Schedule::Arrivals(rate) => open(&lane, rate, &mut requests).await,
        };
        // Nobody listens any more if the run has been given up.
        let _ = offered.send(seen);
        while requests.join_next().await.is_some() {}
        done.cancel();
        let _ = flusher.await;
        lane.flush();
        lane.counted.borrow().flush();
        lane.client.close().await;
        if let Some(direct) = &lane.direct {
            direct.close().await;
        }
    });
    Ok(lane.measured.take())
}

async fn flush_now_and_then(lane: Rc<Lane>, done: CancellationToken) {
    let mut ticks = tokio::time::interval(Duration::from_millis(5));
    let mut metrics = tokio::time::interval(METRICS_AFTER);
    loop {
        tokio::select! {
            _ = ticks.tick() => lane.flush(),
            _ = metrics.tick() => lane.counted.borrow().flush(),
            () = done.cancelled() => return,
        }
    }
}

/// The workers of this lane, one after the other free again when its reply is in.
async fn closed(lane: &Rc<Lane>, vus: &Vus) -> Offered {
    let vus = Rc::new(vus.clone());
    let mut workers = JoinSet::new();
    for vu in (0..vus.most()).filter(|vu| u64::from(*vu) % lane.shared.lanes == lane.number) {
        workers.spawn_local(worker(Rc::clone(lane), Rc::clone(&vus), vu));
    }
    let mut offered = Offered { whole_schedule: true, ..Offered::default() };
    while let Some(result) = workers.join_next().await {
        match result {
            Ok(mine) => offered.merge(mine),
            Err(error) => offered.aborted = Some(format!("a worker failed: {error}")),
        }
    }
    offered
}

async fn worker(lane: Rc<Lane>, vus: Rc<Vus>, vu: u32) -> Offered {
    let shared = &lane.shared;
    let mut offered = Offered { whole_schedule: true, ..Offered::default() };
    let mut now = Instant::now();
    while !shared.stop.is_cancelled() {
        if shared.hold.wait(&shared.stop).await {
            now = Instant::now();
            continue;
        }
        let since = now.saturating_duration_since(shared.epoch);
        let Some(active) = vus.active_from(vu, since) else { break };
        if active > since {
            pause_until(shared, shared.epoch + active).await;
            now = Instant::now();
            continue;
        }
        let index = shared.next.fetch_add(1, Ordering::Relaxed);
        if index >= shared.cap {
            break;
        }
        let due = now;
        now = lane.perform(index, due).await;
        offered.operations += 1;
        offered.last_due = due.saturating_duration_since(shared.epoch);
        offered.last_started = offered.last_due;
        if !shared.think_time.is_zero() {
            pause_until(shared, now + shared.think_time).await;
            now = Instant::now();
        }
    }
    offered
}

async fn pause_until(shared: &Shared, instant: Instant) {
    tokio::select! {
        () = tokio::time::sleep_until(instant.into()) => {}
        () = shared.stop.cancelled() => {}
    }
}

/// This lane's share of the starts: every `lanes`-th. A start waits for nothing but its instant, and for a place if those are bounded.
async fn open(lane: &Rc<Lane>, rate: &Rate, requests: &mut JoinSet<()>) -> Offered {
    let shared = &lane.shared;
    let mut offered = Offered::default();
    let mut timer = match Timer::new() {
        Ok(timer) => timer,
        Err(error) => return Offered { aborted: Some(format!("no timer could be had: {error}")), ..offered },
    };
    let mut free_since = shared.epoch;
    let mut burst = 0;
    let mut starts = (0u64..).zip(rate.starts(shared.arrivals, shared.seed));
    offered.whole_schedule = loop {
        let Some((index, start)) = starts.find(|(index, _)| index % shared.lanes == lane.number || *index >= shared.cap) else {
            break true;
        };
        if index >= shared.cap {
            break false;
        }
        let due = shared.epoch + start;
        if !timer.until(due, &shared.stop).await {
            break false;
        }
        let now = Instant::now();
        shared.recorder.lag(lane.number, due, now.saturating_duration_since(due.max(free_since)));
        offered.operations += 1;
        offered.last_due = start;
        // Lanes that are stopped have not come equally far.
        shared.next.fetch_max(index + 1, Ordering::Relaxed);
        match place(shared, due).await {
            Ok((place, waited)) => {
                if waited {
                    free_since = Instant::now();
                }
                offered.last_started = if waited { free_since } else { now }.saturating_duration_since(shared.epoch);
                let lane = Rc::clone(lane);
                requests.spawn_local(async move {
                    lane.perform(index, due).await;
                    drop(place);
                });
            }
            Err(None) => shared.recorder.dropped(lane.number, due),
            Err(Some(reason)) => {
                shared.recorder.dropped(lane.number, due);
                offered.aborted = Some(reason);
                shared.stop.cancel();
                break false;
            }
        }
        burst += 1;
        if burst % BURST == 0 {
            while requests.try_join_next().is_some() {}
            tokio::task::yield_now().await;
        }
    };
    offered
}

/// A place in flight, and whether it was waited for; or that there is none, and why the load stops if it does.
async fn place(shared: &Shared, due: Instant) -> Result<(OwnedSemaphorePermit, bool), Option<String>> {
    if shared.hold.keeps_back(due) {
        return Err(None);
    }
    let places = Arc::clone(&shared.places);
    match (places.try_acquire_owned(), shared.saturation) {
        (Ok(place), _) => Ok((place, false)),
        (Err(_), Saturation::Queue) => match Arc::clone(&shared.places).acquire_owned().await {
            Ok(place) => Ok((place, true)),
            Err(error) => Err(Some(error.to_string())),
        },
        (Err(_), Saturation::Drop) => Err(None),
        (Err(_), Saturation::Abort) => Err(Some("load.max_in_flight requests are unanswered, and load.saturation is abort".to_owned())),
    }
}

impl Lane {
    /// One request, from its intent to its place in recorder and ledger. Returns when the reply was in.
    async fn perform(&self, index: u64, due: Instant) -> Instant {
        let shared = &self.shared;
        let operation = shared.builder.generator().operation(index);
        if let Err(error) = shared.ledger.intend(index) {
            let message = format!("the ledger cannot be written: {error}");
            shared.tally.keep(Err(error));
            let failure = Failure { class: ErrorClass::Other, applied: Applied::No, message };
            let failed = Failed { failure, sent: None, partial: None };
            return self.record(&operation, due, 0, &Err(failed));
        }
        shared.in_flight.fetch_add(1, Ordering::Relaxed);
        let mut made = None;
        let request = shared.builder.request(&operation, &mut made);
        let result = self.client.exchange(request).await;
        shared.in_flight.fetch_sub(1, Ordering::Relaxed);
        shared.active[self.number as usize].store(self.client.pool().active, Ordering::Relaxed);
        let done = self.record(&operation, due, body_bytes(request), &result);
        if let (Some(client), Some(builder), Ok(proxied)) = (&self.direct, &shared.direct_builder, &result)
            && let Ok(direct) = client.exchange(builder.request(&operation, &mut made)).await
            && due.saturating_duration_since(shared.epoch) >= shared.main
            && (proxied.status, direct.status) == (200, 200)
        {
            self.measured.borrow_mut().pair(proxied, &direct);
        }
        done
    }

    /// `body`: bytes of the request's.
    fn record(&self, operation: &Operation, due: Instant, body: u64, result: &Result<Reply, Failed>) -> Instant {
        let shared = &self.shared;
        let judged = judge(&shared.builder, operation, result);
        let (sent, done) = match result {
            Ok(reply) => (Some(reply.sent), reply.done),
            Err(failed) => (failed.sent, Instant::now()),
        };
        let service = sent.map_or(Duration::ZERO, |sent| done.saturating_duration_since(sent));
        let outcome = judged.answer.outcome.unwrap_or(Outcome::Unknown);
        shared.recorder.answered(self.number, std::iter::once(due), outcome, done, service);
        shared.faults.finished(outcome, 1, done);
        if let Some(failure) = &judged.failure {
            shared.tally.failed(failure, 1);
        }
        if let Some(text) = &judged.wrong {
            // A service may say the key back that it was shown.
            shared.tally.keep(shared.ledger.reply(operation.index, &redact(text, &shared.secrets)));
        }
        let at_ms = u32::try_from(done.saturating_duration_since(shared.epoch).as_millis()).unwrap_or(u32::MAX);
        self.keep(&Answer { at_ms, ..judged.answer }, done);
        let mut measured = self.measured.borrow_mut();
        measured.outcome(operation.route, outcome);
        if let (Ok(reply), Outcome::Acknowledged) = (result, outcome) {
            if due.saturating_duration_since(shared.epoch) >= shared.main {
                measured.reply(operation.route, reply);
            }
            shared.server.get_or_init(|| reply.headers.get("server").unwrap_or_default().to_owned());
        }
        drop(measured);
        if let Some(meter) = &shared.meter {
            let reply = result.as_ref().map_or_else(|failed| failed.partial.as_deref(), Some);
            // What was never sent took the time until that was known.
            let took = done.saturating_duration_since(sent.unwrap_or(due));
            let ended = Ended { acknowledged: outcome == Outcome::Acknowledged, took, body, reply };
            self.counted.borrow_mut().count(meter, operation, &ended);
        }
        if let Some(trace) = shared.trace.as_ref().filter(|trace| trace.samples(operation.index)) {
            let status = judged.answer.status;
            let route = &shared.routes[operation.route];
            let error = judged.failure.as_ref().map(|failure| failure.class);
            trace.request(&trace::Request { index: operation.index, route, status, start: sent.unwrap_or(due), end: done, outcome, error });
        }
        self.export(operation, due, done, service, outcome, judged.failure);
        done
    }

    fn keep(&self, answer: &Answer, now: Instant) {
        let mut unwritten = self.unwritten.borrow_mut();
        if unwritten.encoded.is_empty() {
            unwritten.since = now;
        }
        encode(&mut unwritten.encoded, answer);
        let full = unwritten.encoded.len() >= FLUSH_BYTES || now.saturating_duration_since(unwritten.since) >= FLUSH_AFTER;
        drop(unwritten);
        if full {
            self.flush();
        }
    }

    fn flush(&self) {
        let mut unwritten = self.unwritten.borrow_mut();
        self.shared.tally.keep(self.shared.ledger.answers(&unwritten.encoded));
        unwritten.encoded.clear();
    }

    /// A record of the metrics is a request.
    fn export(&self, operation: &Operation, due: Instant, done: Instant, took: Duration, outcome: Outcome, failure: Option<Failure>) {
        let Some(reporter) = &self.shared.reporter else { return };
        let entries = [Entry { id: operation.index, due }];
        let table = &self.shared.routes[operation.route];
        let batch = BatchInfo { id: operation.index, table, rows: 1, entries: &entries, attempt: 1, session: 0 };
        let failure = failure.unwrap_or_else(|| Failure { class: ErrorClass::Other, applied: Applied::Unknown, message: String::new() });
        let outcome = match outcome {
            Outcome::Acknowledged => {
                reporter.observe_responses(&[done.saturating_duration_since(due)]);
                BatchOutcome::Acknowledged { warnings: 0, after_unknown: false }
            }
            Outcome::Rejected => BatchOutcome::Rejected(failure),
            Outcome::Unknown => BatchOutcome::Unknown(failure),
        };
        reporter.executed(&batch, took);
        reporter.finished(&batch, &outcome, took);
    }
}

fn body_bytes(request: &Request) -> u64 {
    match &request.kind {
        Kind::Echo(messages) => messages.iter().map(|message| message.len() as u64).sum(),
        Kind::Plain | Kind::Chat => request.body.len() as u64,
    }
}
