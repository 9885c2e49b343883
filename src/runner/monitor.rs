//! Beside the load: the timeline, the gauges, the progress line, and gates that stop the load when missed.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::guard;
use super::progress::PhaseProgress;
use super::stage::Stage;
use super::tally::Tally;
use super::{Gauges, Run, judge};
use crate::environment::rss_now;
use crate::gate::Gate;
use crate::metrics::PrometheusMetricsReporter;
use crate::recorder::{Phase, Recorder, SecondStats};
use crate::report::format::{count, plain};
use crate::report::{GuardAct, Second};
use crate::schedule::Schedule;

/// What the monitor saw.
#[derive(Debug, Default)]
pub(crate) struct Watched {
    pub(crate) timeline: Vec<Second>,
    /// The gate that stopped the load, in words.
    pub(crate) aborted: Option<String>,
    /// What the guard did.
    pub(crate) guard: Vec<GuardAct>,
}

/// The monitor's task.
pub(crate) struct Monitor {
    task: JoinHandle<Watched>,
    drain: CancellationToken,
    done: CancellationToken,
}

const TICK: Duration = Duration::from_millis(200);

impl Monitor {
    pub(crate) fn start(run: &Run, gauges: Arc<dyn Gauges>) -> Self {
        let (drain, done) = (CancellationToken::new(), CancellationToken::new());
        let state = State {
            epoch: run.epoch,
            main: run.scenario.load.warmup.0,
            operations: run.scenario.workload.operations(),
            unit: run.scenario.workload.unit(),
            schedule: run.schedule.clone(),
            recorder: Arc::clone(&run.recorder),
            tally: Arc::clone(&run.tally),
            gauges,
            reporter: run.reporter.clone(),
            stage: Arc::clone(&run.stage),
            abort_gates: run.scenario.gates.iter().filter(|gate| gate.abort_after.is_some()).map(|gate| (gate.clone(), None)).collect(),
            guard: guard::Watch::start(run),
            stop: run.stop.clone(),
            drain: drain.clone(),
            progress: run.options.progress.phase("warmup"),
            phase: "",
            sampled: 0,
            retries: 0,
            acknowledged: 0,
            dropped: 0,
            watched: Watched::default(),
        };
        Self { task: tokio::spawn(state.run(done.clone())), drain, done }
    }

    /// The load has ended; what is in the pipeline is still being written.
    pub(crate) fn drain(&self) {
        self.drain.cancel();
    }

    pub(crate) async fn finish(self) -> Watched {
        self.done.cancel();
        self.task.await.unwrap_or_default()
    }
}

struct State {
    epoch: Instant,
    main: Duration,
    operations: Option<u64>,
    unit: &'static str,
    schedule: Schedule,
    recorder: Arc<Recorder>,
    tally: Arc<Tally>,
    gauges: Arc<dyn Gauges>,
    reporter: Option<PrometheusMetricsReporter>,
    stage: Arc<Stage>,
    /// Each with the instant since when it is missed.
    abort_gates: Vec<(Gate, Option<Instant>)>,
    guard: Option<guard::Watch>,
    stop: CancellationToken,
    drain: CancellationToken,
    progress: PhaseProgress,
    phase: &'static str,
    /// Whole seconds sampled so far.
    sampled: u64,
    retries: u64,
    acknowledged: u64,
    dropped: u64,
    watched: Watched,
}

impl State {
    async fn run(mut self, done: CancellationToken) -> Watched {
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
        loop {
            tokio::select! {
                _ = ticks.tick() => self.tick(),
                () = done.cancelled() => break,
            }
        }
        self.sample_to(self.epoch.elapsed().as_secs() + 1);
        self.fill(u64::MAX);
        // An empty last second says nothing.
        while self.watched.timeline.last().is_some_and(|last| last.offered + last.acknowledged + last.rejected + last.unknown == 0) {
            self.watched.timeline.pop();
        }
        if let Some(mut guard) = self.guard.take() {
            guard.finish(Instant::now());
            self.watched.guard = guard.acts();
        }
        if let Some(reporter) = &self.reporter {
            reporter.run_active(false);
            reporter.pool(self.gauges.pool());
            reporter.tick(Instant::now());
        }
        self.watched
    }

    fn tick(&mut self) {
        let elapsed = self.epoch.elapsed();
        self.enter(elapsed);
        self.export(elapsed);
        self.look();
        if elapsed.as_secs() > self.sampled {
            self.sample_to(elapsed.as_secs());
            // The second before last: everything answered in it is recorded by now.
            self.fill(elapsed.as_secs().saturating_sub(1));
            self.check_gates();
        }
        self.show(elapsed);
    }

    fn enter(&mut self, elapsed: Duration) {
        let phase = if self.drain.is_cancelled() {
            "drain"
        } else if elapsed < self.main {
            "warmup"
        } else {
            "main"
        };
        if phase != self.phase {
            self.phase = phase;
            self.progress.rename(phase);
            self.stage.enter(phase);
        }
    }

    fn look(&mut self) {
        let Some(guard) = &mut self.guard else { return };
        if self.drain.is_cancelled() {
            guard.finish(Instant::now());
        } else {
            guard.look(Instant::now(), self.gauges.in_flight());
        }
    }

    fn export(&mut self, elapsed: Duration) {
        let Some(reporter) = &self.reporter else { return };
        reporter.run_active(self.phase == "main");
        reporter.pool(self.gauges.pool());
        if let Schedule::Vus(vus) = &self.schedule {
            reporter.workers(if self.phase == "drain" { 0 } else { vus.at(elapsed) as usize });
        }
        let dropped = self.recorder.phase(Phase::Warmup).outcomes.dropped + self.recorder.phase(Phase::Main).outcomes.dropped;
        reporter.dropped(dropped - self.dropped);
        self.dropped = dropped;
        reporter.tick(Instant::now());
    }

    /// Adds a line for every second up to `until`, with what can only be seen now.
    fn sample_to(&mut self, until: u64) {
        let retries = self.tally.retries();
        while self.sampled < until {
            let second = self.sampled;
            let at = Duration::from_secs(second);
            let phase = if self.phase == "drain" && second + 1 == until {
                "drain"
            } else if at < self.main {
                "warmup"
            } else {
                "main"
            };
            self.watched.timeline.push(Second {
                second,
                phase: phase.to_owned(),
                retries: retries - self.retries,
                queue_length: self.gauges.queue_length() as u64,
                in_flight: self.gauges.in_flight() as u64,
                rss_bytes: rss_now(),
                ..Second::default()
            });
            self.retries = retries;
            self.sampled += 1;
        }
    }

    /// Takes what was recorded for the seconds before `before` into the timeline.
    fn fill(&mut self, before: u64) {
        for (second, stats) in self.recorder.take_seconds(before) {
            if let Some(line) = usize::try_from(second).ok().and_then(|second| self.watched.timeline.get_mut(second)) {
                add(line, &stats);
            }
        }
    }

    fn check_gates(&mut self) {
        let now = Instant::now();
        for (gate, missed_since) in &mut self.abort_gates {
            let sample = judge::so_far(&self.recorder, self.main, self.epoch.elapsed(), gate);
            if sample.as_ref().and_then(|sample| gate.missed(sample)) != Some(true) {
                *missed_since = None;
                continue;
            }
            let since = *missed_since.get_or_insert(now);
            if self.watched.aborted.is_none() && gate.abort_after.is_some_and(|limit| now.duration_since(since) >= limit) {
                self.watched.aborted =
                    Some(format!("gate `{}` was missed for {:?} and stops the load", gate.text, now.duration_since(since)));
                self.stop.cancel();
            }
        }
    }

    fn show(&mut self, elapsed: Duration) {
        let main = self.recorder.phase(Phase::Main);
        let acknowledged = main.outcomes.acknowledged + self.recorder.phase(Phase::Warmup).outcomes.acknowledged;
        let rate = (acknowledged - self.acknowledged) as f64 / TICK.as_secs_f64();
        self.acknowledged = acknowledged;
        let (operations, unit, schedule) = (self.operations, self.unit, &self.schedule);
        let held = self.guard.as_ref().and_then(guard::Watch::holding);
        self.progress.update(|| {
            if let Some(reason) = held {
                return format!("held by the guard: {}", plain(reason));
            }
            let of = operations.map(|most| format!(" of {}", count(most))).unwrap_or_default();
            let p99 = main.response.quantile(0.99).map_or_else(|| "–".to_owned(), |p99| format!("{:.1} ms", p99.as_secs_f64() * 1e3));
            let end = schedule.end().map(|end| format!("  {:.0} s left", end.saturating_sub(elapsed).as_secs_f64())).unwrap_or_default();
            format!("{} {unit}/s  p99 {p99}  {}{of} {unit}{end}", count(rate as u64), count(acknowledged))
        });
    }
}

fn add(line: &mut Second, stats: &SecondStats) {
    line.offered += stats.offered;
    line.dropped += stats.dropped;
    line.acknowledged += stats.outcomes.acknowledged;
    line.rejected += stats.outcomes.rejected;
    line.unknown += stats.outcomes.unknown;
    let ms = |latency: &crate::recorder::Latency, q| latency.quantile(q).map(|d: Duration| d.as_secs_f64() * 1e3);
    if stats.outcomes.acknowledged > 0 {
        line.response_p50_ms = ms(&stats.response, 0.5);
        line.response_p99_ms = ms(&stats.response, 0.99);
        line.service_p50_ms = ms(&stats.service, 0.5);
        line.service_p99_ms = ms(&stats.service, 0.99);
    }
}
