//! What is measured while a run goes on: HDR histograms with three significant digits, one recorder a worker, merged when asked.

mod recent;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use base64::Engine as _;
use hdrhistogram::Histogram;
use hdrhistogram::serialization::{Deserializer, Serializer as _, V2DeflateSerializer};

use crate::ledger::Outcome;
use crate::report::{LatencySummary, Outcomes};
pub(crate) use recent::Recent;

/// Latencies in nanoseconds, from 1 ns to an hour; longer ones count as an hour.
#[derive(Clone, Debug)]
pub struct Latency {
    histogram: Histogram<u64>,
    /// Answers from the target: the rows of one batch are answered together and tell one thing about its tail.
    answers: u64,
}

const HOUR: u64 = 3_600_000_000_000;

/// A percentile is shown when at least this many operations lie beyond it, and as many answers: the rows of one batch are answered
/// together, so a single slow batch must not pass for a tail.
const OPERATIONS_BEYOND: f64 = 5.0;
const ANSWERS_BEYOND: f64 = 1.0;

impl Default for Latency {
    fn default() -> Self {
        let mut histogram = Histogram::new(3).expect("3 significant digits are allowed");
        histogram.auto(true);
        Self { histogram, answers: 0 }
    }
}

impl Latency {
    /// Records one latency.
    pub fn record(&mut self, latency: Duration) {
        self.record_n(latency, 1);
    }

    /// Records one latency for `count` operations.
    pub fn record_n(&mut self, latency: Duration, count: u64) {
        let nanos = u64::try_from(latency.as_nanos()).unwrap_or(HOUR).clamp(1, HOUR);
        self.histogram.record_n(nanos, count).expect("the histogram grows up to an hour");
    }

    /// Records one latency that an answer of its own tells.
    pub fn record_answer(&mut self, latency: Duration) {
        self.record(latency);
        self.answers += 1;
    }

    /// Adds what `other` recorded.
    pub fn merge(&mut self, other: &Latency) {
        self.histogram.add(&other.histogram).expect("the histogram grows up to an hour");
        self.answers += other.answers;
    }

    /// The value below which a share `quantile` of the operations lies; `None` if fewer than five operations or no whole answer lie
    /// beyond it.
    #[must_use]
    pub fn quantile(&self, quantile: f64) -> Option<Duration> {
        let beyond = |count: u64| count as f64 * (1.0 - quantile) + 1e-9;
        let enough = beyond(self.histogram.len()) >= OPERATIONS_BEYOND && beyond(self.answers) >= ANSWERS_BEYOND;
        enough.then(|| Duration::from_nanos(self.histogram.value_at_quantile(quantile)))
    }

    /// The value below which a share `quantile` lies, however few there are; zero of nothing. For live figures; a report judges by
    /// [`Self::quantile`].
    #[must_use]
    pub fn roughly(&self, quantile: f64) -> Duration {
        Duration::from_nanos(self.histogram.value_at_quantile(quantile))
    }

    /// The mean; zero of nothing.
    #[must_use]
    pub fn mean(&self) -> Duration {
        Duration::from_nanos(self.histogram.mean() as u64)
    }

    /// How many latencies were recorded.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.histogram.len()
    }

    /// As the report shows it.
    #[must_use]
    pub fn summary(&self) -> LatencySummary {
        let ms = |nanos: f64| nanos / 1e6;
        let quantile = |q| self.quantile(q).map(|d| ms(d.as_nanos() as f64));
        let any = !self.histogram.is_empty();
        LatencySummary {
            count: self.histogram.len(),
            mean_ms: any.then(|| ms(self.histogram.mean())),
            p50_ms: quantile(0.5),
            p75_ms: quantile(0.75),
            p90_ms: quantile(0.9),
            p95_ms: quantile(0.95),
            p99_ms: quantile(0.99),
            p999_ms: quantile(0.999),
            max_ms: any.then(|| ms(self.histogram.max() as f64)),
        }
    }

    /// Reads what [`Self::encode`] wrote. How many answers told it is not written: every operation counts as one.
    ///
    /// # Errors
    /// When `text` is no such histogram, or one that is not of nanoseconds up to an hour with three digits.
    pub fn decode(text: &str) -> Result<Self, String> {
        let unreadable = |error: &dyn std::fmt::Display| format!("a histogram of the report cannot be read: {error}");
        let bytes = base64::engine::general_purpose::STANDARD.decode(text).map_err(|error| unreadable(&error))?;
        let read: Histogram<u64> = Deserializer::new().deserialize(&mut bytes.as_slice()).map_err(|error| unreadable(&error))?;
        let mut latency = Self { answers: read.len(), ..Self::default() };
        latency.histogram.add(&read).map_err(|error| unreadable(&error))?;
        Ok(latency)
    }

    /// HDR V2+DEFLATE, base64.
    #[must_use]
    pub fn encode(&self) -> String {
        let mut bytes = Vec::new();
        V2DeflateSerializer::new().serialize(&self.histogram, &mut bytes).expect("writing into memory cannot fail");
        base64::engine::general_purpose::STANDARD.encode(bytes)
    }

    /// Quantiles and their values in milliseconds, denser towards the tail (five steps each time the rest halves), up to the last
    /// operation: what an HDR plot draws.
    #[must_use]
    pub fn curve(&self) -> Vec<(f64, f64)> {
        let last = 1.0 - 1.0 / self.histogram.len().max(1) as f64;
        let point =
            |step: hdrhistogram::iterators::IterationValue<u64>| (step.quantile_iterated_to(), step.value_iterated_to() as f64 / 1e6);
        self.histogram.iter_quantiles(5).map(point).take_while(|(quantile, _)| *quantile <= last).collect()
    }
}

/// What was measured of some operations.
#[derive(Clone, Debug, Default)]
pub struct Stats {
    /// What became of them.
    pub outcomes: Outcomes,
    /// From intended start to answer.
    pub response: Latency,
    /// From send to answer.
    pub service: Latency,
    /// The generator's lateness.
    pub lag: Latency,
    /// The last acknowledgement, from the run's start.
    pub last_acknowledged: Duration,
}

impl Stats {
    fn merge(&mut self, other: &Stats) {
        self.outcomes.add(&other.outcomes);
        self.response.merge(&other.response);
        self.service.merge(&other.service);
        self.lag.merge(&other.lag);
        self.last_acknowledged = self.last_acknowledged.max(other.last_acknowledged);
    }

    fn count(&mut self, outcome: Outcome, rows: u64) {
        self.outcomes.offered += rows;
        self.outcomes.attempted += rows;
        match outcome {
            Outcome::Acknowledged => self.outcomes.acknowledged += rows,
            Outcome::Rejected => self.outcomes.rejected += rows,
            Outcome::Unknown => self.outcomes.unknown += rows,
        }
    }

    fn answer(&mut self, outcome: Outcome, rows: u64, service: Duration, at: Duration) {
        self.count(outcome, rows);
        if outcome == Outcome::Acknowledged {
            self.service.record_n(service, rows);
            self.response.answers += 1;
            self.service.answers += 1;
            self.last_acknowledged = self.last_acknowledged.max(at);
        }
    }
}

/// What happened in one second of the run.
#[derive(Clone, Debug, Default)]
pub struct SecondStats {
    /// Operations due in it.
    pub offered: u64,
    /// Rows answered in it; `offered` and `dropped` are not kept here.
    pub outcomes: Outcomes,
    /// Operations dropped in it.
    pub dropped: u64,
    /// Response times of the rows acknowledged in it.
    pub response: Latency,
    /// Service times of the rows acknowledged in it.
    pub service: Latency,
}

/// The phases that operations belong to, by intended start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Verified, not measured.
    Warmup,
    /// Measured.
    Main,
}

#[derive(Default)]
struct Shard {
    phases: [Stats; 2],
    seconds: HashMap<u64, SecondStats>,
    /// For each asked window length, the windows of phase `main`.
    windows: Vec<BTreeMap<u64, Stats>>,
    recent: recent::Slots,
}

/// Records from many workers at once: each uses a shard of its own, so that its lock is free.
pub struct Recorder {
    epoch: Instant,
    main: Duration,
    windows: Vec<Duration>,
    shards: Vec<Mutex<Shard>>,
    recent: Option<recent::Span>,
}

impl Recorder {
    /// A recorder for a run that began at `epoch` and whose phase `main` begins `main` later. `windows`: the lengths that gates ask for.
    #[must_use]
    pub fn new(epoch: Instant, main: Duration, windows: Vec<Duration>, workers: usize) -> Self {
        let shard = || Shard { windows: vec![BTreeMap::new(); windows.len()], ..Shard::default() };
        let shards = (0..workers.max(1)).map(|_| Mutex::new(shard())).collect();
        Self { epoch, main, windows, shards, recent: None }
    }

    /// Keeps what was answered in the last `window` too, for [`Self::recent`].
    pub(crate) fn keeping_recent(self, window: Option<Duration>) -> Self {
        Self { recent: window.map(recent::Span::new), ..self }
    }

    /// What was answered in the window that ends at `now`, to operations due since [`Self::judge_from`].
    pub(crate) fn recent(&self, now: Instant) -> Recent {
        let mut sum = Recent::default();
        let Some(span) = &self.recent else { return sum };
        for worker in 0..self.shards.len() as u64 {
            self.shard(worker).recent.add_to(span, self.since(now), &mut sum);
        }
        sum
    }

    /// What was due before `now` says nothing in [`Self::recent`] from now on.
    pub(crate) fn judge_from(&self, now: Instant) {
        if let Some(span) = &self.recent {
            span.due_from(self.since(now));
        }
    }

    /// Answers so far, while recent ones are kept.
    pub(crate) fn answers(&self) -> u64 {
        self.recent.as_ref().map_or(0, recent::Span::answers)
    }

    fn shard(&self, worker: u64) -> MutexGuard<'_, Shard> {
        self.shards[(worker % self.shards.len() as u64) as usize].lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn since(&self, instant: Instant) -> Duration {
        instant.saturating_duration_since(self.epoch)
    }

    /// Records the answer to one batch whose rows were due at `dues`: its outcome, when it came, and how long it took from the send.
    pub fn answered(&self, worker: u64, dues: impl Iterator<Item = Instant> + Clone, outcome: Outcome, at: Instant, service: Duration) {
        let mut shard = self.shard(worker);
        let shard = &mut *shard;
        let done = self.since(at);
        let mut rows = [0u64; 2];
        let second = shard.seconds.entry(done.as_secs()).or_default();
        for due in dues.clone() {
            let phase = usize::from(self.since(due) >= self.main);
            rows[phase] += 1;
            if outcome == Outcome::Acknowledged {
                let response = at.saturating_duration_since(due);
                shard.phases[phase].response.record(response);
                second.response.record(response);
            }
        }
        for (stats, rows) in shard.phases.iter_mut().zip(rows).filter(|(_, rows)| *rows > 0) {
            stats.answer(outcome, rows, service, done);
        }
        let total = rows[0] + rows[1];
        match outcome {
            Outcome::Acknowledged => {
                second.outcomes.acknowledged += total;
                second.service.record_n(service, total);
                second.service.answers += 1;
                second.response.answers += 1;
            }
            Outcome::Rejected => second.outcomes.rejected += total,
            Outcome::Unknown => second.outcomes.unknown += total,
        }
        self.count_due(shard, dues.clone());
        if let Some(span) = &self.recent {
            shard.recent.answered(span, dues.clone().map(|due| self.since(due)), outcome, done);
        }
        for (number, length) in self.windows.iter().enumerate() {
            self.window(&mut shard.windows[number], *length, dues.clone(), outcome, at, service);
        }
    }

    /// Rows of a batch were due close together: they are counted in runs of the same second.
    fn count_due(&self, shard: &mut Shard, dues: impl Iterator<Item = Instant>) {
        let mut run: Option<(u64, u64)> = None;
        for due in dues {
            let second = self.since(due).as_secs();
            match &mut run {
                Some((same, count)) if *same == second => *count += 1,
                _ => {
                    if let Some((done, count)) = run.replace((second, 1)) {
                        shard.seconds.entry(done).or_default().offered += count;
                    }
                }
            }
        }
        if let Some((done, count)) = run {
            shard.seconds.entry(done).or_default().offered += count;
        }
    }

    fn window(
        &self,
        windows: &mut BTreeMap<u64, Stats>,
        length: Duration,
        dues: impl Iterator<Item = Instant>,
        outcome: Outcome,
        at: Instant,
        service: Duration,
    ) {
        let mut answered: Option<u64> = None;
        for due in dues {
            let Some(into_main) = self.since(due).checked_sub(self.main) else { continue };
            let number = (into_main.as_nanos() / length.as_nanos()) as u64;
            let stats = windows.entry(number).or_default();
            if outcome == Outcome::Acknowledged {
                stats.response.record(at.saturating_duration_since(due));
            }
            if answered == Some(number) {
                stats.count(outcome, 1);
                if outcome == Outcome::Acknowledged {
                    stats.service.record(service);
                }
            } else {
                stats.answer(outcome, 1, service, self.since(at));
                answered = Some(number);
            }
        }
    }

    /// Records how late the generator itself was with an operation.
    pub fn lag(&self, worker: u64, due: Instant, lag: Duration) {
        self.due(worker, due, |stats| stats.lag.record_answer(lag));
    }

    /// Records an operation that was due and could not start.
    pub fn dropped(&self, worker: u64, due: Instant) {
        let second = self.since(due).as_secs();
        self.due(worker, due, |stats| {
            stats.outcomes.offered += 1;
            stats.outcomes.dropped += 1;
        });
        let mut shard = self.shard(worker);
        let second = shard.seconds.entry(second).or_default();
        second.offered += 1;
        second.dropped += 1;
    }

    fn due(&self, worker: u64, due: Instant, record: impl Fn(&mut Stats)) {
        let mut shard = self.shard(worker);
        let since = self.since(due);
        let into_main = since.checked_sub(self.main);
        record(&mut shard.phases[usize::from(into_main.is_some())]);
        let Some(into_main) = into_main else { return };
        for (number, length) in self.windows.iter().enumerate() {
            record(shard.windows[number].entry((into_main.as_nanos() / length.as_nanos()) as u64).or_default());
        }
    }

    /// Everything measured so far in a phase.
    #[must_use]
    pub fn phase(&self, phase: Phase) -> Stats {
        let mut merged = Stats::default();
        for worker in 0..self.shards.len() as u64 {
            merged.merge(&self.shard(worker).phases[phase as usize]);
        }
        merged
    }

    /// The windows of `length` in phase `main`, by number; only for a length given to [`Recorder::new`].
    #[must_use]
    pub fn windows(&self, length: Duration) -> BTreeMap<u64, Stats> {
        let mut merged: BTreeMap<u64, Stats> = BTreeMap::new();
        let Some(number) = self.windows.iter().position(|known| *known == length) else { return merged };
        for worker in 0..self.shards.len() as u64 {
            for (window, stats) in &self.shard(worker).windows[number] {
                merged.entry(*window).or_default().merge(stats);
            }
        }
        merged
    }

    /// Takes out what was recorded for the seconds before `before`, so that a long run does not keep a histogram a second.
    #[must_use]
    pub fn take_seconds(&self, before: u64) -> BTreeMap<u64, SecondStats> {
        let mut taken: BTreeMap<u64, SecondStats> = BTreeMap::new();
        for worker in 0..self.shards.len() as u64 {
            let mut shard = self.shard(worker);
            let done: Vec<u64> = shard.seconds.keys().copied().filter(|second| *second < before).collect();
            for second in done {
                let Some(stats) = shard.seconds.remove(&second) else { continue };
                let merged = taken.entry(second).or_default();
                merged.offered += stats.offered;
                merged.dropped += stats.dropped;
                merged.outcomes.acknowledged += stats.outcomes.acknowledged;
                merged.outcomes.rejected += stats.outcomes.rejected;
                merged.outcomes.unknown += stats.outcomes.unknown;
                merged.response.merge(&stats.response);
                merged.service.merge(&stats.service);
            }
        }
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn percentiles_of_a_known_distribution() {
        let mut latency = Latency::default();
        for value in 1..=10_000u32 {
            latency.record(MS * value / 10);
            latency.answers += 1;
        }
        let summary = latency.summary();
        // 0.1 ms to 1,000 ms in equal steps: the quantile q lies at q × 1,000 ms, within 3 significant digits.
        for (found, expected) in [(summary.p50_ms, 500.0), (summary.p90_ms, 900.0), (summary.p99_ms, 990.0), (summary.p999_ms, 999.0)] {
            assert!((found.unwrap() / expected - 1.0).abs() < 0.001, "{found:?} for {expected}");
        }
        assert!((summary.max_ms.unwrap() / 1_000.0 - 1.0).abs() < 0.001);
        assert!((summary.mean_ms.unwrap() / 500.05 - 1.0).abs() < 0.001);
        assert_eq!(summary.count, 10_000);
    }

    #[test]
    fn a_percentile_needs_answers_beyond_it() {
        let mut latency = Latency::default();
        latency.record_n(MS, 100_000);
        latency.answers = 99;
        assert_eq!(latency.summary().p99_ms, None, "of 99 batches less than one lies beyond p99, however many rows they hold");
        latency.answers = 100;
        assert!(latency.summary().p99_ms.is_some());
        assert_eq!(latency.summary().p999_ms, None);
        assert_eq!(Latency::default().summary(), LatencySummary::default());
        let mut few = Latency::default();
        few.record_n(MS, 99);
        few.answers = 99;
        assert_eq!((few.summary().p95_ms, few.summary().p90_ms.is_some()), (None, true), "five operations beyond p95 need a hundred");
    }

    #[test]
    fn operations_belong_to_the_phase_and_the_window_of_their_intended_start() {
        let epoch = Instant::now();
        let recorder = Recorder::new(epoch, Duration::from_secs(1), vec![Duration::from_secs(10)], 2);
        let due = |seconds: f64| epoch + Duration::from_secs_f64(seconds);
        // One batch with a row of the warm-up and two of main, answered at 1.5 s.
        recorder.answered(0, [due(0.9), due(1.0), due(1.2)].into_iter(), Outcome::Acknowledged, due(1.5), MS * 100);
        recorder.answered(1, [due(11.5)].into_iter(), Outcome::Rejected, due(12.0), MS);
        recorder.dropped(0, due(11.7));
        recorder.lag(1, due(11.5), MS * 2);
        let (warmup, main) = (recorder.phase(Phase::Warmup), recorder.phase(Phase::Main));
        assert_eq!((warmup.outcomes.acknowledged, main.outcomes.acknowledged), (1, 2));
        assert_eq!(main.outcomes, Outcomes { offered: 4, attempted: 3, acknowledged: 2, rejected: 1, unknown: 0, dropped: 1 });
        assert_eq!(main.last_acknowledged, Duration::from_millis(1_500));
        assert_eq!((main.response.histogram.len(), main.service.histogram.len(), main.lag.histogram.len()), (2, 2, 1));
        let windows = recorder.windows(Duration::from_secs(10));
        assert_eq!(windows.keys().copied().collect::<Vec<_>>(), [0, 1]);
        assert_eq!(windows[&0].outcomes.acknowledged, 2);
        assert_eq!(windows[&1].outcomes, Outcomes { offered: 2, attempted: 1, acknowledged: 0, rejected: 1, unknown: 0, dropped: 1 });
        let seconds = recorder.take_seconds(100);
        assert_eq!((seconds[&0].offered, seconds[&1].offered, seconds[&11].offered), (1, 2, 2));
        assert_eq!((seconds[&1].outcomes.acknowledged, seconds[&12].outcomes.rejected, seconds[&11].dropped), (3, 1, 1));
        assert!(recorder.take_seconds(100).is_empty());
    }

    #[test]
    fn histograms_are_written_in_the_format_the_report_promises() {
        let mut latency = Latency::default();
        latency.record(MS);
        let back = Latency::decode(&latency.encode()).unwrap();
        assert_eq!((back.count(), back.histogram.max() / 10_000), (1, 100));
        let bytes = base64::engine::general_purpose::STANDARD.decode(latency.encode()).unwrap();
        assert_eq!(bytes[..4], [0x1c, 0x84, 0x93, 0x14], "the cookie of V2 in a compressed frame");
        for text in ["", "no base64!", "aGVsbG8="] {
            assert!(Latency::decode(text).unwrap_err().starts_with("a histogram of the report cannot be read: "), "{text}");
        }
    }

    #[test]
    fn a_curve_reaches_the_last_operation_and_only_rises() {
        let mut latency = Latency::default();
        for n in 1..=1_000 {
            latency.record(MS * n);
        }
        let curve = latency.curve();
        assert!(curve.windows(2).all(|pair| pair[0].0 < pair[1].0 && pair[0].1 <= pair[1].1), "{curve:?}");
        let (last, slowest) = *curve.last().unwrap();
        assert!((0.99..=0.999).contains(&last) && (990.0..=1_001.0).contains(&slowest), "{last} {slowest}");
        let middle = curve.iter().find(|(quantile, _)| *quantile >= 0.5).unwrap();
        assert!((middle.1 / 500.0 - 1.0).abs() < 0.05, "{middle:?}");
        assert_eq!(Latency::default().curve(), []);
    }
}
