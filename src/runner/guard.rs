//! The scenario's guard: looks at the target while the load goes on, and holds or stops the load while it is in trouble.
//!
//! While held nothing is offered: the workers of closed executors wait, and what an arrival rate makes due is dropped, and counted.
//! What was handed over before goes on. Held time is in no response time and no lag, for nothing was due in it that ran.

mod up;

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::Run;
use crate::metrics::PrometheusMetricsReporter;
use crate::recorder::{Recent, Recorder};
use crate::report::GuardAct;
use crate::report::format::count;
use crate::scenario::guard::{Action, Guard};
use crate::telemetry::log::{self, Level};
use up::Down;

/// Whether the load is held: what every part of the generator asks before it offers an operation.
pub(crate) struct Hold {
    on: watch::Sender<bool>,
    ever: AtomicBool,
    /// Past and present, so that what was due in one is known afterwards; as many as `max_holds`.
    spans: Mutex<Vec<(Instant, Option<Instant>)>>,
}

impl Default for Hold {
    fn default() -> Self {
        Self { on: watch::Sender::new(false), ever: AtomicBool::new(false), spans: Mutex::default() }
    }
}

impl Hold {
    /// Whether an operation due at `due` is not offered: the load is held now, or was then.
    pub(crate) fn keeps_back(&self, due: Instant) -> bool {
        if !self.ever.load(Relaxed) {
            return false;
        }
        let spans = self.spans.lock().unwrap_or_else(PoisonError::into_inner);
        spans.iter().any(|(from, until)| until.is_none_or(|until| *from <= due && due < until))
    }

    /// Waits while the load is held, and says whether it had to.
    pub(crate) async fn wait(&self, stop: &CancellationToken) -> bool {
        if !self.ever.load(Relaxed) || !*self.on.borrow() {
            return false;
        }
        let mut on = self.on.subscribe();
        tokio::select! {
            // The sender lives as long as this.
            _ = on.wait_for(|on| !on) => {}
            () = stop.cancelled() => {}
        }
        true
    }

    fn begin(&self, now: Instant) {
        self.spans.lock().unwrap_or_else(PoisonError::into_inner).push((now, None));
        self.ever.store(true, Relaxed);
        self.on.send_replace(true);
    }

    fn end(&self, now: Instant) {
        for (_, until) in self.spans.lock().unwrap_or_else(PoisonError::into_inner).iter_mut() {
            until.get_or_insert(now);
        }
        self.on.send_replace(false);
    }
}

/// Why the target is in trouble.
#[derive(Clone, Debug, PartialEq)]
struct Trouble {
    condition: &'static str,
    reason: String,
}

/// What is known of the target at one moment.
struct Seen<'a> {
    recent: &'a Recent,
    /// How long something was in flight and nothing answered.
    silent: Duration,
    /// How long `up` has been 0.
    down: Option<Duration>,
}

/// The first condition of `guard` that is met.
fn trouble(guard: &Guard, seen: &Seen<'_>) -> Option<Trouble> {
    let found = |condition, reason| Some(Trouble { condition, reason });
    let window = humantime::format_duration(guard.window.0);
    let shown = |time: Duration| humantime::format_duration(Duration::from_millis(time.as_millis() as u64)).to_string();
    if let (Some(up), Some(down)) = (&guard.up, seen.down)
        && down >= up.lasts.0
    {
        return found("up", format!("{} has been 0 for {} (guard.up.for: {})", up.query, shown(down), shown(up.lasts.0)));
    }
    let Recent { finished, failed, response } = seen.recent;
    if let Some(limit) = guard.error_rate
        && *finished > 0
        && *failed as f64 >= limit.0 * *finished as f64
    {
        let share = *failed as f64 / *finished as f64 * 100.0;
        let of = count(*finished);
        return found(
            "error_rate",
            format!("{share:.1} % of {of} answers of the last {window} failed (guard.error_rate: {:.1} %)", limit.0 * 100.0),
        );
    }
    let limit = guard.p99?.0;
    let p99 = response.roughly(0.99);
    if response.count() > 0 && p99 >= limit {
        return found("p99", format!("the response p99 of the last {window} is {} (guard.p99: {})", shown(p99), shown(limit)));
    }
    if seen.silent >= limit {
        return found("p99", format!("nothing was answered for {} (guard.p99: {})", shown(seen.silent), shown(limit)));
    }
    None
}

/// The guard of one run; asked a few times a second.
pub(super) struct Watch {
    guard: Guard,
    epoch: Instant,
    /// When the schedule is over, if it ever is of itself.
    end: Option<Duration>,
    recorder: Arc<Recorder>,
    hold: Arc<Hold>,
    stop: CancellationToken,
    reporter: Option<PrometheusMetricsReporter>,
    down: Option<Down>,
    /// Since when something is in flight and nothing was answered, and the answers until then.
    silent: Option<(Instant, u64)>,
    held_since: Option<Instant>,
    holds: u32,
    over: bool,
    acts: Vec<GuardAct>,
}

impl Watch {
    pub(super) fn start(run: &Run) -> Option<Self> {
        let guard = run.scenario.guard.clone()?;
        Some(Self {
            down: guard.up.clone().map(Down::start),
            guard,
            epoch: run.epoch,
            end: run.schedule.end(),
            recorder: Arc::clone(&run.recorder),
            hold: Arc::clone(&run.hold),
            stop: run.stop.clone(),
            reporter: run.reporter.clone(),
            silent: None,
            held_since: None,
            holds: 0,
            over: false,
            acts: Vec::new(),
        })
    }

    /// Whether the load is held, in words.
    pub(super) fn holding(&self) -> Option<&str> {
        self.held_since.and(self.acts.last()).map(|act| act.reason.as_str())
    }

    /// Looks at the target and does what is due. `in_flight`: what is sent and not answered.
    pub(super) fn look(&mut self, now: Instant, in_flight: usize) {
        if self.over {
            return;
        }
        if self.stop.is_cancelled() || self.end.is_some_and(|end| now >= self.epoch + end) {
            return self.finish(now);
        }
        let silent = self.silence(now, in_flight);
        let down = self.down.as_ref().and_then(|down| down.lasting(now));
        match self.held_since {
            Some(since) if now < since + self.guard.cooldown.0 => {}
            Some(_) => {
                // Held, nothing is answered: only `up` has something to say.
                let seen = Seen { recent: &Recent::default(), silent: Duration::ZERO, down };
                self.release(now, trouble(&self.guard, &seen));
            }
            None => {
                let seen = Seen { recent: &self.recorder.recent(now), silent, down };
                if let Some(trouble) = trouble(&self.guard, &seen) {
                    self.act(now, trouble);
                }
            }
        }
    }

    /// The load is over; whatever is held is let go.
    pub(super) fn finish(&mut self, now: Instant) {
        self.over = true;
        self.down = None;
        if self.held_since.is_some() {
            self.end_act(now);
            self.hold.end(now);
            self.show(false);
        }
    }

    pub(super) fn acts(self) -> Vec<GuardAct> {
        self.acts
    }

    fn silence(&mut self, now: Instant, in_flight: usize) -> Duration {
        let answers = self.recorder.answers();
        match self.silent {
            Some((since, before)) if before == answers && in_flight > 0 => now.saturating_duration_since(since),
            _ => {
                self.silent = (in_flight > 0).then_some((now, answers));
                Duration::ZERO
            }
        }
    }

    fn act(&mut self, now: Instant, trouble: Trouble) {
        let Trouble { condition, mut reason } = trouble;
        let spent = self.guard.action == Action::Hold && self.holds == self.guard.max_holds;
        if spent {
            reason.push_str(&format!("; it was held {} times already (guard.max_holds)", self.holds));
        }
        let action = if spent { Action::Stop } else { self.guard.action };
        let at_seconds = now.saturating_duration_since(self.epoch).as_secs_f64();
        let word = if action == Action::Hold { "holds" } else { "stops" };
        let fields = json!({"event": format!("guard_{}", word.trim_end_matches('s')), "condition": condition, "reason": reason});
        log::event(Level::Warn, &format!("the guard {word} the load: {reason}"), fields);
        self.acts.push(GuardAct { action, condition: condition.to_owned(), reason, at_seconds, duration_seconds: 0.0 });
        if action == Action::Stop {
            // Before the load is let go, so that nothing slips through.
            self.stop.cancel();
            return self.finish(now);
        }
        self.holds += 1;
        if self.held_since.replace(now).is_none() {
            self.hold.begin(now);
        }
        if let Some(reporter) = &self.reporter {
            reporter.guard_held();
        }
        self.show(true);
    }

    /// A hold has lasted its time: the load goes on, or another hold follows.
    fn release(&mut self, now: Instant, still: Option<Trouble>) {
        self.end_act(now);
        if let Some(trouble) = still {
            return self.act(now, trouble);
        }
        self.held_since = None;
        self.silent = None;
        self.recorder.judge_from(now);
        self.hold.end(now);
        self.show(false);
        log::event(Level::Info, "the guard lets the load go on", json!({"event": "guard_release"}));
    }

    fn end_act(&mut self, now: Instant) {
        if let (Some(since), Some(act)) = (self.held_since, self.acts.iter_mut().rev().find(|act| act.action == Action::Hold)) {
            act.duration_seconds = now.saturating_duration_since(since).as_secs_f64();
        }
    }

    fn show(&self, holding: bool) {
        if let Some(reporter) = &self.reporter {
            reporter.guard_holding(holding);
        }
    }
}

/// What the run's verdict says of the guard, if it did anything.
pub(super) fn told(acts: &[GuardAct]) -> Option<String> {
    let first = acts.first()?;
    let holds = acts.iter().filter(|act| act.action == Action::Hold).count();
    let held: f64 = acts.iter().map(|act| act.duration_seconds).sum();
    let times = if holds == 1 { "once".to_owned() } else { format!("{holds} times") };
    let stopped = acts.last().filter(|act| act.action == Action::Stop);
    Some(match (holds, stopped) {
        (0, _) => format!("its guard stopped it after {:.1} s: {}", first.at_seconds, first.reason),
        (_, None) => format!("its guard held it {times}, {held:.1} s in all, first after {:.1} s: {}", first.at_seconds, first.reason),
        (_, Some(stop)) => {
            format!("its guard held it {times}, {held:.1} s in all, and stopped it after {:.1} s: {}", stop.at_seconds, stop.reason)
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::Outcome;
    use crate::scenario::guard::Up;
    use crate::scenario::units::{Share, Time};

    const MS: Duration = Duration::from_millis(1);

    /// A guard whose clock the test turns.
    struct Bench {
        watch: Watch,
        epoch: Instant,
    }

    impl Bench {
        fn new(guard: Guard) -> Self {
            let epoch = Instant::now();
            let recorder = Recorder::new(epoch, Duration::ZERO, Vec::new(), 2).keeping_recent(Some(guard.window.0));
            let watch = Watch {
                guard,
                epoch,
                end: None,
                recorder: Arc::new(recorder),
                hold: Arc::default(),
                stop: CancellationToken::new(),
                reporter: None,
                down: None,
                silent: None,
                held_since: None,
                holds: 0,
                over: false,
                acts: Vec::new(),
            };
            Self { watch, epoch }
        }

        fn at(&self, ms: u32) -> Instant {
            self.epoch + MS * ms
        }

        /// One operation, answered `took` after it was due.
        fn answer(&self, worker: u64, due: u32, took: u32, outcome: Outcome) {
            self.watch.recorder.answered(worker, std::iter::once(self.at(due)), outcome, self.at(due + took), MS);
        }

        /// Looks, and says what was done so far: action, condition, at and for how many milliseconds.
        fn look(&mut self, ms: u32, in_flight: usize) -> Vec<(Action, String, u64, u64)> {
            self.watch.look(self.at(ms), in_flight);
            let milliseconds = |seconds: f64| (seconds * 1000.0).round() as u64;
            let acts = self.watch.acts.iter();
            acts.map(|act| (act.action, act.condition.clone(), milliseconds(act.at_seconds), milliseconds(act.duration_seconds))).collect()
        }
    }

    fn guard() -> Guard {
        Guard { window: Time::secs(1), cooldown: Time::secs(2), max_holds: 2, ..Guard::default() }
    }

    fn hold(condition: &str, at: u64, lasted: u64) -> (Action, String, u64, u64) {
        (Action::Hold, condition.to_owned(), at, lasted)
    }

    #[test]
    fn a_share_of_errors_holds_the_load_for_the_cooldown_and_what_was_due_before_counts_no_more() {
        let mut bench = Bench::new(Guard { error_rate: Some(Share(0.5)), ..guard() });
        assert_eq!(bench.look(0, 4), [], "nothing answered is no trouble");
        bench.answer(0, 10, 5, Outcome::Acknowledged);
        bench.answer(1, 10, 6, Outcome::Acknowledged);
        bench.answer(0, 20, 5, Outcome::Rejected);
        assert_eq!(bench.look(200, 4), [], "a third failed");
        bench.answer(1, 30, 5, Outcome::Unknown);
        assert_eq!(bench.look(400, 4), [hold("error_rate", 400, 0)], "half is reached");
        assert!(bench.watch.acts[0].reason.starts_with("50.0 % of 4 answers of the last 1s failed (guard.error_rate: 50.0 %)"));
        assert!(bench.watch.hold.keeps_back(bench.at(300)), "held: nothing at all is offered");
        // A straggler from before the hold.
        bench.answer(0, 390, 2_000, Outcome::Rejected);
        assert_eq!(bench.look(2_399, 0), [hold("error_rate", 400, 0)]);
        assert_eq!(bench.look(2_400, 0), [hold("error_rate", 400, 2_000)], "goes on");
        assert_eq!(
            [399, 400, 2_399, 2_400].map(|due| bench.watch.hold.keeps_back(bench.at(due))),
            [false, true, true, false],
            "what was due while held is not offered later"
        );
        bench.answer(1, 395, 2_010, Outcome::Rejected);
        assert_eq!(bench.look(2_600, 4), [hold("error_rate", 400, 2_000)], "due before it went on");
        bench.answer(1, 2_500, 5, Outcome::Rejected);
        assert_eq!(bench.look(2_800, 4), [hold("error_rate", 400, 2_000), hold("error_rate", 2_800, 0)]);
    }

    #[test]
    fn answers_older_than_the_window_do_not_count() {
        let mut bench = Bench::new(Guard { error_rate: Some(Share(0.5)), ..guard() });
        bench.answer(0, 10, 5, Outcome::Rejected);
        assert_eq!(bench.look(1_015, 0), []);
        let mut bench = Bench::new(Guard { error_rate: Some(Share(0.5)), ..guard() });
        bench.answer(0, 10, 5, Outcome::Rejected);
        assert_eq!(bench.look(999, 0).len(), 1);
    }

    #[test]
    fn slow_answers_and_none_at_all_reach_a_p99() {
        let mut bench = Bench::new(Guard { p99: Some(Time::millis(300)), ..guard() });
        bench.answer(0, 0, 299, Outcome::Acknowledged);
        assert_eq!(bench.look(300, 1), []);
        assert_eq!(bench.look(500, 1), [], "silent for 200 ms");
        assert_eq!(bench.look(550, 0), [], "nothing in flight is no silence");
        assert_eq!(bench.look(600, 1), []);
        assert_eq!(bench.look(899, 1), []);
        assert_eq!(bench.look(900, 1), [hold("p99", 900, 0)]);
        assert_eq!(bench.watch.acts[0].reason, "nothing was answered for 300ms (guard.p99: 300ms)");
        let mut bench = Bench::new(Guard { p99: Some(Time::millis(300)), ..guard() });
        bench.answer(0, 0, 301, Outcome::Acknowledged);
        assert_eq!(bench.look(400, 0), [hold("p99", 400, 0)]);
        assert!(bench.watch.acts[0].reason.starts_with("the response p99 of the last 1s is 301ms"), "{}", bench.watch.acts[0].reason);
    }

    #[test]
    fn trouble_after_the_last_hold_stops_the_load() {
        let mut bench = Bench::new(Guard { error_rate: Some(Share(0.5)), ..guard() });
        for due in [0, 2_500, 5_000] {
            bench.look(due + 200, 0);
            bench.answer(0, due + 210, 1, Outcome::Rejected);
            bench.look(due + 220, 0);
        }
        let stop = (Action::Stop, "error_rate".to_owned(), 5_220, 0);
        assert_eq!(bench.look(6_000, 0), [hold("error_rate", 220, 2_480), hold("error_rate", 2_720, 2_480), stop]);
        assert!(bench.watch.acts[2].reason.ends_with("; it was held 2 times already (guard.max_holds)"));
        assert!(bench.watch.stop.is_cancelled() && !bench.watch.hold.keeps_back(bench.at(6_000)));
        let told = told(&bench.watch.acts).unwrap();
        assert!(told.starts_with("its guard held it 2 times, 5.0 s in all, and stopped it after 5.2 s: 100.0 % of 1"), "{told}");
    }

    #[test]
    fn a_stop_ends_the_load_at_once_and_a_hold_ends_with_the_schedule() {
        let mut bench = Bench::new(Guard { error_rate: Some(Share(0.5)), action: Action::Stop, ..guard() });
        bench.answer(0, 0, 1, Outcome::Rejected);
        assert_eq!(bench.look(200, 0), [(Action::Stop, "error_rate".to_owned(), 200, 0)]);
        assert!(bench.watch.stop.is_cancelled());
        assert!(told(&bench.watch.acts).unwrap().starts_with("its guard stopped it after 0.2 s: 100.0 % of 1 answers"));
        let mut bench = Bench::new(Guard { error_rate: Some(Share(0.5)), ..guard() });
        bench.watch.end = Some(MS * 1_000);
        bench.answer(0, 0, 1, Outcome::Rejected);
        bench.look(200, 0);
        assert_eq!(bench.look(1_000, 0), [hold("error_rate", 200, 800)]);
        assert!(!*bench.watch.hold.on.borrow(), "workers that wait see the end");
        assert_eq!(told(&[]), None);
    }

    #[tokio::test]
    async fn a_series_that_stays_0_prolongs_a_hold_by_another() {
        let up = Up { prometheus: "http://127.0.0.1:1".to_owned(), query: "up".to_owned(), lasts: Time::secs(1) };
        let mut bench = Bench::new(Guard { up: Some(up), ..guard() });
        let since = Arc::new(Mutex::new(Some(bench.epoch)));
        bench.watch.down = Some(Down { since: Arc::clone(&since), task: tokio::spawn(std::future::pending()) });
        assert_eq!(bench.look(999, 0), []);
        assert_eq!(bench.look(1_000, 0), [hold("up", 1_000, 0)]);
        assert_eq!(bench.watch.acts[0].reason, "up has been 0 for 1s (guard.up.for: 1s)");
        assert_eq!(bench.look(3_000, 0), [hold("up", 1_000, 2_000), hold("up", 3_000, 0)]);
        assert!(*bench.watch.hold.on.borrow(), "nothing slips through in between");
        *since.lock().unwrap() = None;
        assert_eq!(bench.look(5_000, 0), [hold("up", 1_000, 2_000), hold("up", 3_000, 2_000)]);
        assert!(!*bench.watch.hold.on.borrow());
    }
}
