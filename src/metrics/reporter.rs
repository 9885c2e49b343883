//! One run (or one pipeline of a user's own) as its metrics: handles resolved at the start, then atomics only.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use prometheus::{Gauge, Histogram, IntCounter};

use super::names::{self, Spec};
use super::series::{Handle, Shape};
use super::striped::StripedHistogram;
use super::{PrometheusMetrics, Tick, lock};
use crate::environment::rss_now;
use crate::pipeline::observer::{BatchInfo, BatchOutcome, Observer};
use crate::report::{Integrity, Verdict};
use crate::target::{ErrorClass, PoolUse, TargetInfo};

/// Tables told apart by name; rows of any further table are counted under `table="other"`.
const MOST_TABLES: usize = 16;

/// The label `operation` of response times.
fn operation(database: &str) -> &'static str {
    if database == "http" { "proxy_request" } else { "batch_insert" }
}

/// The phases of a run, in order.
pub const PHASES: [&str; 4] = ["warmup", "main", "drain", "verify"];

/// The settings of the pipeline that is watched.
#[derive(Clone, Copy, Debug)]
pub struct Pipeline {
    /// Rows the queue holds.
    pub buffer_size: usize,
    /// Most rows in a batch: where the buckets of `batchsql_batch_size` end.
    pub flush_size: usize,
    /// Most batches in flight at once.
    pub concurrency: usize,
}

/// Feeds [`PrometheusMetrics`] from a pipeline, as its [`Observer`], and from the run around it. Clones share everything.
///
/// The gauges of the last seconds are computed by [`Self::tick`], and once more at every scrape.
#[derive(Clone)]
pub struct PrometheusMetricsReporter {
    state: Arc<State>,
}

pub(super) struct State {
    metrics: PrometheusMetrics,
    database: String,
    test_name: String,
    pipeline: Pipeline,
    tables: [OnceLock<TableSeries>; MOST_TABLES],
    other_tables: OnceLock<TableSeries>,
    enqueue: StripedHistogram,
    assemble: Histogram,
    execute: Histogram,
    pool_wait: Histogram,
    response: Histogram,
    /// `retry:<class>`, in the order of [`ErrorClass::ALL`].
    retried: Vec<IntCounter>,
    /// `final:<class>`, in the order of [`ErrorClass::ALL`].
    failed: Vec<IntCounter>,
    dropped: IntCounter,
    guard_holding: Gauge,
    guard_holds: IntCounter,
    run_active: Gauge,
    /// In the order of [`PHASES`].
    phases: [Gauge; 4],
    memory: Gauge,
    error_rate: Gauge,
    queue_length: Gauge,
    in_flight: Gauge,
    utilization: Gauge,
    workers: Gauge,
    active_connections: Gauge,
    max_connections: Gauge,
    /// Rows with a final outcome, and those of them that are not acknowledged.
    attempted: AtomicU64,
    unacknowledged: AtomicU64,
    recent: Mutex<Recent>,
}

/// What is counted a table.
struct TableSeries {
    table: String,
    processed: IntCounter,
    acknowledged: IntCounter,
    rejected: IntCounter,
    unknown: IntCounter,
    succeeded_batches: IntCounter,
    failed_batches: IntCounter,
    duration_ms: Histogram,
    size: Histogram,
    rps: Gauge,
    recent: Mutex<Recent>,
}

impl PrometheusMetricsReporter {
    /// A reporter for the run `test_name` on `database` (`sqlite`, `postgres`, `mysql`, `http`). All its counters are shown at zero from
    /// now on, those of a table once [`Self::expect_table`] or its first batch has named it.
    #[must_use]
    pub fn new(metrics: &PrometheusMetrics, database: &str, test_name: &str, pipeline: Pipeline) -> Self {
        let state = Arc::new(State::new(metrics, database, test_name, pipeline));
        for kind in ["lost", "duplicated", "corrupted", "phantom", "resurrected", "partial_batch", "stale"] {
            state.anomalies(kind);
        }
        for verdict in [Verdict::Pass, Verdict::Fail, Verdict::Inconclusive] {
            state.tests_run(verdict);
        }
        state.test_series(&names::TEST_DURATION);
        state.test_series(&names::EXECUTOR_CONCURRENCY).gauge().set(pipeline.concurrency as f64);
        // An earlier run of this name says nothing about this one.
        metrics.shared.series.remove(names::INTEGRITY_RATE.name, &[database, test_name]);
        let ticking: Arc<dyn Tick> = state.clone();
        lock(&metrics.shared.reporters).push(Arc::downgrade(&ticking));
        Self { state }
    }

    /// Shows the counters of a table at zero before its first batch.
    pub fn expect_table(&self, table: &str) {
        self.state.table(table);
    }

    /// What the target is.
    pub fn target(&self, info: &TargetInfo) {
        let state = &self.state;
        state.series(&names::TARGET_INFO, &[&state.database, &info.name, &info.version]).gauge().set(1.0);
    }

    /// Whether phase `main` runs.
    pub fn run_active(&self, active: bool) {
        self.state.run_active.set(f64::from(u8::from(active)));
    }

    /// Which of [`PHASES`] the run is in; none once it has ended.
    pub fn phase(&self, now: Option<&str>) {
        for (phase, gauge) in PHASES.iter().zip(&self.state.phases) {
            gauge.set(f64::from(u8::from(now == Some(phase))));
        }
    }

    /// Whether a fault of this kind is in force; shown from the first on that is announced.
    pub fn fault_active(&self, kind: &str, active: bool) {
        let series = self.state.series(&names::FAULT_ACTIVE, &[&self.state.database, &self.state.test_name, kind]);
        series.gauge().set(f64::from(u8::from(active)));
    }

    /// How many workers offer load now.
    pub fn workers(&self, workers: usize) {
        self.state.workers.set(workers as f64);
    }

    /// How busy the pool is.
    pub fn pool(&self, pool: PoolUse) {
        self.state.active_connections.set(f64::from(pool.active));
        self.state.max_connections.set(f64::from(pool.max));
    }

    /// Response times of rows just answered, best a batch at a time.
    pub fn observe_responses(&self, times: &[Duration]) {
        if let [time] = times {
            return self.state.response.observe(time.as_secs_f64());
        }
        let local = self.state.response.local();
        times.iter().for_each(|time| local.observe(time.as_secs_f64()));
    } // dropping it adds it up

    /// Operations that were due and could not start.
    pub fn dropped(&self, operations: u64) {
        self.state.dropped.inc_by(operations);
    }

    /// Whether the scenario's guard holds the load.
    pub(crate) fn guard_holding(&self, holding: bool) {
        self.state.guard_holding.set(f64::from(u8::from(holding)));
    }

    /// The scenario's guard holds the load, from now on or for another time.
    pub(crate) fn guard_held(&self) {
        self.state.guard_holds.inc();
    }

    /// Computes what covers the last seconds (rows a second, error rate) and what is read off (buffer use, memory). Called a few
    /// times a second; every scrape calls it too.
    pub fn tick(&self, now: Instant) {
        self.state.tick(now);
    }

    /// What a finished verification found. The integrity rate is absent until then, and stays so if it has none.
    pub fn verified(&self, integrity: &Integrity) {
        let state = &self.state;
        for (kind, count) in [
            ("lost", integrity.lost),
            ("duplicated", integrity.duplicated),
            ("corrupted", integrity.corrupted),
            ("phantom", integrity.phantom),
            ("resurrected", integrity.resurrected),
            ("partial_batch", integrity.partial_batches),
            ("stale", integrity.stale),
        ] {
            state.anomalies(kind).inc_by(count);
        }
        if let Some(rate) = integrity.rate {
            state.test_series(&names::INTEGRITY_RATE).gauge().set(rate);
        }
    }

    /// How the run ended.
    pub fn run_finished(&self, verdict: Verdict, duration: Duration) {
        self.run_active(false);
        self.state.tests_run(verdict).inc();
        self.state.test_series(&names::TEST_DURATION).histogram().observe(duration.as_secs_f64());
    }
}

impl State {
    fn new(metrics: &PrometheusMetrics, database: &str, test_name: &str, pipeline: Pipeline) -> Self {
        let series = |spec: &Spec, labels: &[&str]| get(metrics, pipeline, spec, labels);
        let test = |spec: &Spec| series(spec, &[database, test_name]);
        let errors = |kind: &str| {
            let counter =
                |class: &ErrorClass| series(&names::ERRORS, &[database, test_name, &format!("{kind}:{}", class.as_str())]).counter();
            ErrorClass::ALL.iter().map(counter).collect()
        };
        Self {
            metrics: metrics.clone(),
            database: database.to_owned(),
            test_name: test_name.to_owned(),
            pipeline,
            tables: Default::default(),
            other_tables: OnceLock::new(),
            enqueue: test(&names::ENQUEUE_LATENCY).striped(),
            assemble: test(&names::BATCH_ASSEMBLE).histogram(),
            execute: test(&names::EXECUTE).histogram(),
            pool_wait: test(&names::POOL_WAIT).histogram(),
            response: series(&names::RESPONSE_TIME, &[database, test_name, operation(database)]).histogram(),
            retried: errors("retry"),
            failed: errors("final"),
            dropped: series(&names::DROPPED, &[test_name]).counter(),
            guard_holding: test(&names::GUARD_HOLDING).gauge(),
            guard_holds: test(&names::GUARD_HOLDS).counter(),
            run_active: test(&names::RUN_ACTIVE).gauge(),
            phases: PHASES.map(|phase| series(&names::RUN_PHASE, &[database, test_name, phase]).gauge()),
            memory: test(&names::MEMORY_USAGE).gauge(),
            error_rate: test(&names::ERROR_RATE).gauge(),
            queue_length: test(&names::QUEUE_LENGTH).gauge(),
            in_flight: test(&names::INFLIGHT_BATCHES).gauge(),
            utilization: test(&names::BUFFER_UTILIZATION).gauge(),
            workers: test(&names::CONCURRENT_WORKERS).gauge(),
            active_connections: series(&names::ACTIVE_CONNECTIONS, &[database]).gauge(),
            max_connections: series(&names::MAX_CONNECTIONS, &[database]).gauge(),
            attempted: AtomicU64::new(0),
            unacknowledged: AtomicU64::new(0),
            recent: Mutex::new(Recent::new(Duration::from_secs(10), Instant::now(), [0, 0])),
        }
    }

    fn series(&self, spec: &Spec, labels: &[&str]) -> Handle {
        get(&self.metrics, self.pipeline, spec, labels)
    }

    fn test_series(&self, spec: &Spec) -> Handle {
        self.series(spec, &[&self.database, &self.test_name])
    }

    fn anomalies(&self, kind: &str) -> IntCounter {
        self.series(&names::INTEGRITY_ANOMALIES, &[&self.database, &self.test_name, kind]).counter()
    }

    fn tests_run(&self, verdict: Verdict) -> IntCounter {
        let result = match verdict {
            Verdict::Pass => "pass",
            Verdict::Fail => "fail",
            Verdict::Inconclusive => "inconclusive",
        };
        self.series(&names::TESTS_RUN, &[&self.database, &self.test_name, result]).counter()
    }

    /// The series of a table: in the first places, found by comparing names, without a lock once they exist.
    fn table(&self, table: &str) -> &TableSeries {
        for place in &self.tables {
            let series = place.get_or_init(|| TableSeries::new(self, table));
            if series.table == table {
                return series;
            }
        }
        self.other_tables.get_or_init(|| TableSeries::new(self, "other"))
    }

    fn error(counters: &[IntCounter], class: ErrorClass, count: u64) {
        // ErrorClass::ALL is in the order of declaration.
        if let Some(counter) = counters.get(class as usize) {
            counter.inc_by(count);
        }
    }
}

impl Tick for State {
    fn tick(&self, now: Instant) {
        let tables = self.tables.iter().map_while(OnceLock::get).chain(self.other_tables.get());
        for table in tables {
            let ([rows, _], seconds) = lock(&table.recent).advance(now, [table.processed.get(), 0]);
            table.rps.set(if seconds > 0.0 { rows as f64 / seconds } else { 0.0 });
        }
        let totals = [self.attempted.load(Relaxed), self.unacknowledged.load(Relaxed)];
        let ([attempted, unacknowledged], _) = lock(&self.recent).advance(now, totals);
        self.error_rate.set(if attempted > 0 { unacknowledged as f64 / attempted as f64 } else { 0.0 });
        self.utilization.set(self.queue_length.get() / self.pipeline.buffer_size.max(1) as f64);
        self.memory.set(rss_now() as f64);
    }
}

impl Drop for State {
    /// Nothing moves any more once nobody reports; without this the last rate would be shown for ever.
    fn drop(&mut self) {
        for table in self.tables.iter().map_while(OnceLock::get).chain(self.other_tables.get()) {
            table.rps.set(0.0);
        }
        for gauge in [
            &self.run_active,
            &self.error_rate,
            &self.queue_length,
            &self.in_flight,
            &self.utilization,
            &self.workers,
            &self.active_connections,
        ]
        .into_iter()
        .chain(&self.phases)
        {
            gauge.set(0.0);
        }
    }
}

impl TableSeries {
    fn new(state: &State, table: &str) -> Self {
        let labels = [state.database.as_str(), table, &state.test_name];
        let series = |spec| state.series(spec, &labels);
        let outcome = |outcome| state.series(&names::RECORDS_OUTCOME, &[labels[0], labels[1], labels[2], outcome]).counter();
        let processed = series(&names::RECORDS_PROCESSED).counter();
        Self {
            table: table.to_owned(),
            acknowledged: outcome("acknowledged"),
            rejected: outcome("rejected"),
            unknown: outcome("unknown"),
            succeeded_batches: series(&names::BATCH_SUCCESS).counter(),
            failed_batches: series(&names::BATCH_FAILED).counter(),
            duration_ms: series(&names::BATCH_EXECUTION_MS).histogram(),
            size: series(&names::BATCH_SIZE).histogram(),
            rps: series(&names::CURRENT_RPS).gauge(),
            recent: Mutex::new(Recent::new(Duration::from_secs(1), Instant::now(), [processed.get(), 0])),
            processed,
        }
    }
}

fn get(metrics: &PrometheusMetrics, pipeline: Pipeline, spec: &Spec, values: &[&str]) -> Handle {
    debug_assert_eq!(spec.labels.len(), values.len(), "{}", spec.name);
    let labels: Vec<_> = spec.labels.iter().copied().zip(values.iter().copied()).collect();
    metrics.shared.series.get(spec.name, spec.help, &labels, Shape::of(spec, pipeline.flush_size))
}

impl Observer for PrometheusMetricsReporter {
    fn enqueued(&self, waited: Duration) {
        self.state.enqueue.observe(waited.as_secs_f64());
    }

    fn assembled(&self, table: &str, rows: usize, took: Duration) {
        self.state.table(table).size.observe(rows as f64);
        self.state.assemble.observe(took.as_secs_f64());
    }

    fn connection_acquired(&self, waited: Duration) {
        self.state.pool_wait.observe(waited.as_secs_f64());
    }

    fn executed(&self, _: &BatchInfo<'_>, took: Duration) {
        self.state.execute.observe(took.as_secs_f64());
    }

    fn attempt_failed(&self, _: &BatchInfo<'_>, failure: &crate::target::Failure, will_retry: bool) {
        // A final failure is counted by `finished`.
        if will_retry {
            State::error(&self.state.retried, failure.class, 1);
        }
    }

    fn finished(&self, batch: &BatchInfo<'_>, outcome: &BatchOutcome, took: Duration) {
        let (state, table, rows) = (&*self.state, self.state.table(batch.table), batch.rows as u64);
        state.attempted.fetch_add(rows, Relaxed);
        match outcome {
            BatchOutcome::Acknowledged { warnings, .. } => {
                table.processed.inc_by(rows);
                table.acknowledged.inc_by(rows);
                table.succeeded_batches.inc();
                table.duration_ms.observe(took.as_secs_f64() * 1000.0);
                State::error(&state.failed, ErrorClass::Data, *warnings);
            }
            BatchOutcome::Rejected(failure) | BatchOutcome::Unknown(failure) => {
                let rejected = matches!(outcome, BatchOutcome::Rejected(_));
                if rejected { &table.rejected } else { &table.unknown }.inc_by(rows);
                table.failed_batches.inc();
                state.unacknowledged.fetch_add(rows, Relaxed);
                State::error(&state.failed, failure.class, 1);
            }
        }
    }

    fn gauges(&self, queue_length: usize, in_flight: usize) {
        self.state.queue_length.set(queue_length as f64);
        self.state.in_flight.set(in_flight as f64);
    }
}

/// Two totals over time, kept as far back as a span asks for.
pub(super) struct Recent {
    span: Duration,
    samples: VecDeque<(Instant, [u64; 2])>,
}

impl Recent {
    /// Shortest time between two samples that are kept, so that frequent scrapes cannot make the list grow.
    const STEP: Duration = Duration::from_millis(100);

    pub(super) fn new(span: Duration, now: Instant, totals: [u64; 2]) -> Self {
        Self { span, samples: VecDeque::from([(now, totals)]) }
    }

    /// How much the totals grew over the span before `now` (or since the start, if that is later), and its length in seconds.
    pub(super) fn advance(&mut self, now: Instant, totals: [u64; 2]) -> ([u64; 2], f64) {
        while self.samples.get(1).is_some_and(|(at, _)| now.saturating_duration_since(*at) >= self.span) {
            self.samples.pop_front();
        }
        let (base_at, base) = self.samples.front().copied().unwrap_or((now, totals));
        if self.samples.back().is_none_or(|(at, _)| now.saturating_duration_since(*at) >= Self::STEP) {
            self.samples.push_back((now, totals));
        }
        let grown = [totals[0].saturating_sub(base[0]), totals[1].saturating_sub(base[1])];
        (grown, now.saturating_duration_since(base_at).as_secs_f64())
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.samples.len()
    }
}
