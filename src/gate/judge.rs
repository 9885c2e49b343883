//! Gates held against what was measured, the implicit ones among them. No data is never a pass.

use std::time::Duration;

use super::{Clock, Finding, Gate, Metric, Op, Point, Unit};
use crate::report::format::count;
use crate::report::{GateResult, HttpReport, Integrity, IntegrityVerdict, Latencies, LatencySummary, Outcomes, Verdict};
use crate::scenario::Load;

/// What was measured over some stretch of a run: a phase, or one window of it.
#[derive(Clone, Debug, Default)]
pub struct Sample {
    /// From the run's first intended start.
    pub start: Duration,
    /// Its length (of phase `main`: to the last acknowledgement, drain included).
    pub length: Duration,
    /// The part of the schedule it covers: from its first intended start to where its starts end, drain not included.
    pub scheduled: Duration,
    /// Operations whose intended start lies in it.
    pub outcomes: Outcomes,
    /// Starts a second that the schedule has in it, counted from the schedule itself (so that the chance of Poisson arrivals is
    /// no miss), where it is one of arrivals.
    pub asked_rate: Option<f64>,
    /// Their latencies.
    pub latency: Latencies,
    /// What only requests have, of phase `main` as a whole.
    pub http: Option<HttpReport>,
}

/// All that gates can ask about.
pub struct Evidence<'a> {
    /// The phase of that name, if the run had it.
    pub phase: &'a dyn Fn(&str) -> Option<Sample>,
    /// The whole windows of that length, by intended start, inside the phase.
    pub windows: &'a dyn Fn(&str, Duration) -> Vec<Sample>,
    /// What was found stored, once verified.
    pub integrity: Option<&'a Integrity>,
}

impl Gate {
    /// What this gate looks at in `sample`, in its own unit; `None` without data (or for integrity, which no sample holds).
    #[must_use]
    pub fn measure(&self, sample: &Sample) -> Option<f64> {
        measured(self.metric, sample).map(|value| self.unit.of(value))
    }

    /// Whether `sample` misses the condition; `None` without data. What stops a load early asks this.
    #[must_use]
    pub fn missed(&self, sample: &Sample) -> Option<bool> {
        self.measure(sample).map(|value| !self.op.holds(value, self.limit))
    }

    fn result(&self, verdict: Verdict, actual: Option<f64>, message: String) -> GateResult {
        GateResult { gate: self.text.clone(), implicit: false, verdict, actual, message }
    }

    fn compared(&self, actual: f64, place: &str) -> GateResult {
        let verdict = if self.op.holds(actual, self.limit) { Verdict::Pass } else { Verdict::Fail };
        let message =
            format!("{} is {}{}, asked for {} {}{}{place}", self.metric, tidy(actual), self.unit, self.op, tidy(self.limit), self.unit);
        self.result(verdict, Some(actual), message)
    }
}

/// Three decimals at most, without trailing zeros.
fn tidy(value: f64) -> String {
    let text = format!("{value:.3}");
    // A small share must not be shown as 0.
    if value != 0.0 && value.abs() < 0.001 {
        return format!("{value}");
    }
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

fn measured(metric: Metric, sample: &Sample) -> Option<f64> {
    let outcomes = &sample.outcomes;
    let count = |n: u64| (outcomes.offered > 0).then_some(n as f64);
    let over = |n: u64, time: Duration| (outcomes.offered > 0 && !time.is_zero()).then(|| n as f64 / time.as_secs_f64());
    match metric {
        Metric::Integrity(_) => None,
        Metric::Latency(clock, point) => summary(sample, clock).and_then(|summary| point_of(summary, point)),
        Metric::RowsPerSecond | Metric::RequestsPerSecond => over(outcomes.acknowledged, sample.length),
        Metric::ErrorRate => (outcomes.attempted > 0).then(|| (outcomes.rejected + outcomes.unknown) as f64 / outcomes.attempted as f64),
        Metric::OfferedRate => over(outcomes.offered, sample.scheduled),
        Metric::Offered => count(outcomes.offered),
        Metric::Attempted => count(outcomes.attempted),
        Metric::Acknowledged => count(outcomes.acknowledged),
        Metric::Rejected => count(outcomes.rejected),
        Metric::Unknown => count(outcomes.unknown),
        Metric::Dropped => count(outcomes.dropped),
        Metric::CpuSecondsPerOperation | Metric::MemoryBytesMax | Metric::DatabaseWritesPerSecond | Metric::WalBytes => None,
    }
}

fn summary(sample: &Sample, clock: Clock) -> Option<&LatencySummary> {
    let http = sample.http.as_ref();
    match clock {
        Clock::Response => Some(&sample.latency.response),
        Clock::Service => Some(&sample.latency.service),
        Clock::Lag => Some(&sample.latency.lag),
        Clock::TimeToFirstByte => http.map(|http| &http.time_to_first_byte),
        Clock::TimeToFirstToken => http.map(|http| &http.time_to_first_token),
        Clock::InterToken => http.map(|http| &http.inter_token),
        Clock::LongestStall => http.map(|http| &http.longest_stall),
        Clock::Server => http.map(|http| &http.server),
        Clock::Network => http.map(|http| &http.network),
        Clock::Overhead => http.map(|http| &http.overhead),
    }
}

fn point_of(summary: &LatencySummary, point: Point) -> Option<f64> {
    match point {
        Point::Mean => summary.mean_ms,
        Point::P50 => summary.p50_ms,
        Point::P75 => summary.p75_ms,
        Point::P90 => summary.p90_ms,
        Point::P95 => summary.p95_ms,
        Point::P99 => summary.p99_ms,
        Point::P999 => summary.p999_ms,
        Point::Max => summary.max_ms,
    }
}

fn found(integrity: &Integrity, finding: Finding) -> Option<f64> {
    Some(match finding {
        Finding::Lost => integrity.lost as f64,
        Finding::Duplicated => integrity.duplicated as f64,
        Finding::Corrupted => integrity.corrupted as f64,
        Finding::Phantom => integrity.phantom as f64,
        Finding::Resurrected => integrity.resurrected as f64,
        Finding::Stale => integrity.stale as f64,
        Finding::Recovered => integrity.recovered as f64,
        Finding::PartialBatches => integrity.partial_batches as f64,
        Finding::Checked => integrity.checked as f64,
        Finding::Rate => return integrity.rate,
    })
}

/// Judges one gate.
#[must_use]
pub fn judge(gate: &Gate, evidence: &Evidence<'_>) -> GateResult {
    if let Metric::Integrity(finding) = gate.metric {
        return judge_integrity(gate, finding, evidence.integrity);
    }
    let phase = gate.phase.as_str();
    if let Some(length) = gate.window {
        return judge_windows(gate, length, &(evidence.windows)(phase, length));
    }
    let Some(sample) = (evidence.phase)(phase) else {
        return gate.result(Verdict::Inconclusive, None, format!("the run had no phase {phase}"));
    };
    match gate.measure(&sample) {
        Some(actual) => gate.compared(actual, ""),
        None => gate.result(Verdict::Inconclusive, None, format!("{}: {}", gate.metric, missing(gate.metric, &sample))),
    }
}

fn missing(metric: Metric, sample: &Sample) -> String {
    match metric {
        Metric::Latency(clock, _) => match summary(sample, clock).map_or(0, |summary| summary.count) {
            0 => "no data".to_owned(),
            few => format!("too few samples ({few})"),
        },
        _ => "no data".to_owned(),
    }
}

fn judge_integrity(gate: &Gate, finding: Finding, integrity: Option<&Integrity>) -> GateResult {
    let inconclusive = |why: &str| gate.result(Verdict::Inconclusive, None, format!("{}: {why}", gate.metric));
    match integrity {
        None => inconclusive("not verified"),
        Some(integrity) if integrity.verdict == IntegrityVerdict::Inconclusive => {
            inconclusive(integrity.reason.as_deref().unwrap_or("verification was not finished"))
        }
        Some(integrity) => {
            found(integrity, finding).map_or_else(|| inconclusive("no data"), |value| gate.compared(gate.unit.of(value), ""))
        }
    }
}

/// A window gate must hold in every window; a miss anywhere outweighs a window without data.
fn judge_windows(gate: &Gate, length: Duration, windows: &[Sample]) -> GateResult {
    let length = humantime::format_duration(length);
    let worst = windows
        .iter()
        .filter_map(|w| gate.measure(w).map(|v| (v, w)))
        .max_by(|(a, _), (b, _)| badness(gate, *a).total_cmp(&badness(gate, *b)));
    let without = windows.iter().filter(|w| gate.measure(w).is_none()).count();
    let Some((actual, window)) = worst else {
        let why = if windows.is_empty() {
            format!("no whole window of {length} in phase {}", gate.phase.as_str())
        } else {
            "no window has data".to_owned()
        };
        return gate.result(Verdict::Inconclusive, None, format!("{}: {why}", gate.metric));
    };
    let place = format!(" (worst of {} windows of {length}, from {:.0} s)", windows.len(), window.start.as_secs_f64());
    let mut result = gate.compared(actual, &place);
    if without > 0 && result.verdict == Verdict::Pass {
        result.verdict = Verdict::Inconclusive;
        result.message.push_str(&format!("; {without} of them without data or with too few samples"));
    }
    result
}

/// Greater is worse for the gate.
fn badness(gate: &Gate, actual: f64) -> f64 {
    match gate.op {
        Op::Below | Op::AtMost => actual,
        Op::Above | Op::AtLeast => -actual,
        Op::Equal => (actual - gate.limit).abs(),
        Op::NotEqual => -(actual - gate.limit).abs(),
    }
}

/// The gates every run has: integrity holds, no errors, and (arrival rates) the load was offered as asked. Each but the first
/// gives way to a gate of the scenario that names what it looks at.
#[must_use]
pub fn implicit(gates: &[Gate], evidence: &Evidence<'_>, load: &Load) -> Vec<GateResult> {
    let named = |test: &dyn Fn(Metric) -> bool| gates.iter().any(|gate| test(gate.metric));
    let main = (evidence.phase)("main");
    let mut results = vec![integrity_holds(evidence.integrity)];
    if !named(&|m| matches!(m, Metric::ErrorRate | Metric::Rejected | Metric::Unknown)) {
        results.push(no_errors(main.as_ref()));
    }
    if !load.executor.is_open() {
        return results;
    }
    if !named(&|m| matches!(m, Metric::Latency(Clock::Lag, _))) {
        results.push(lag_within(load.lag_limit.0, main.as_ref()));
    }
    if !named(&|m| m == Metric::Dropped) {
        results.push(nothing_dropped(main.as_ref()));
    }
    if !named(&|m| matches!(m, Metric::OfferedRate | Metric::Offered)) {
        results.push(rate_offered(main.as_ref()));
    }
    results
}

fn implied(gate: &str, verdict: Verdict, actual: Option<f64>, message: String) -> GateResult {
    GateResult { gate: gate.to_owned(), implicit: true, verdict, actual, message }
}

fn integrity_holds(integrity: Option<&Integrity>) -> GateResult {
    let gate = "integrity holds";
    let Some(integrity) = integrity else {
        return implied(gate, Verdict::Inconclusive, None, "not verified".to_owned());
    };
    let reason = |default: &str| integrity.reason.clone().unwrap_or_else(|| default.to_owned());
    match integrity.verdict {
        IntegrityVerdict::Holds => {
            let things = if !integrity.sources.is_empty() {
                "replies and records held against the ledger"
            } else if integrity.read_back.is_some() {
                "rows checked"
            } else {
                "rows read back"
            };
            let found = format!("{} {things}, all of them right", count(integrity.checked));
            implied(gate, Verdict::Pass, integrity.rate, found)
        }
        IntegrityVerdict::Violated => implied(gate, Verdict::Fail, integrity.rate, reason("integrity is violated")),
        IntegrityVerdict::Inconclusive => implied(gate, Verdict::Inconclusive, integrity.rate, reason("verification was not finished")),
    }
}

fn no_errors(main: Option<&Sample>) -> GateResult {
    let gate = "error_rate == 0";
    let Some((sample, rate)) = main.and_then(|s| measured(Metric::ErrorRate, s).map(|rate| (s, rate))) else {
        return implied(gate, Verdict::Inconclusive, None, "nothing was attempted in phase main".to_owned());
    };
    let Outcomes { attempted, rejected, unknown, .. } = sample.outcomes;
    let verdict = if rejected + unknown == 0 { Verdict::Pass } else { Verdict::Fail };
    implied(
        gate,
        verdict,
        Some(rate),
        format!("{} rejected and {} unknown of {} attempted", count(rejected), count(unknown), count(attempted)),
    )
}

/// A load that was not offered as asked makes no statement about the target: inconclusive, never a fail.
fn offered(gate: &str, holds: bool, actual: f64, message: String) -> GateResult {
    implied(gate, if holds { Verdict::Pass } else { Verdict::Inconclusive }, Some(actual), message)
}

fn lag_within(limit: Duration, main: Option<&Sample>) -> GateResult {
    let gate = format!("lag.p99 <= {}", humantime::format_duration(limit));
    let limit_ms = limit.as_secs_f64() * 1000.0;
    let lag = main.map(|sample| &sample.latency.lag);
    if let Some(p99) = lag.and_then(|l| l.p99_ms) {
        let mend =
            if p99 <= limit_ms { "" } else { ": this machine could not offer the load in time; lower the rate or raise load.lag_limit" };
        return offered(&gate, p99 <= limit_ms, p99, format!("lag.p99 is {}ms{mend}", tidy(p99)));
    }
    // Too few samples for a p99, but it cannot lie above the maximum.
    if let Some(max) = lag.and_then(|l| l.max_ms).filter(|max| *max <= limit_ms) {
        return offered(&gate, true, max, format!("lag.max is {}ms", tidy(max)));
    }
    implied(&gate, Verdict::Inconclusive, None, "too few samples to know the generator's lag; run longer".to_owned())
}

fn nothing_dropped(main: Option<&Sample>) -> GateResult {
    let gate = "dropped == 0";
    let Some(Outcomes { offered: due, dropped, .. }) = main.map(|s| s.outcomes).filter(|o| o.offered > 0) else {
        return implied(gate, Verdict::Inconclusive, None, "nothing was offered in phase main".to_owned());
    };
    offered(gate, dropped == 0, dropped as f64, format!("{} of {} operations could not be started", count(dropped), count(due)))
}

fn rate_offered(main: Option<&Sample>) -> GateResult {
    let gate = "offered_rate within 1 % of the rate asked for";
    let rates = main.and_then(|s| measured(Metric::OfferedRate, s).zip(s.asked_rate));
    let Some((actual, asked)) = rates else {
        return implied(gate, Verdict::Inconclusive, None, "nothing was offered in phase main".to_owned());
    };
    let holds = (actual - asked).abs() <= asked * 0.01;
    offered(gate, holds, actual, format!("{} a second offered, {} asked for", tidy(Unit::None.of(actual)), tidy(asked)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Source;
    use crate::scenario::Executor;
    use crate::scenario::units::Time;

    fn sample(start: u64, p99: Option<f64>) -> Sample {
        let summary = |p99_ms| LatencySummary { count: 100, mean_ms: Some(2.0), p99_ms, max_ms: Some(40.0), ..LatencySummary::default() };
        Sample {
            start: Duration::from_secs(start),
            length: Duration::from_secs(4),
            scheduled: Duration::from_secs(2),
            outcomes: Outcomes { offered: 1000, attempted: 990, acknowledged: 980, rejected: 6, unknown: 4, dropped: 10 },
            asked_rate: Some(500.0),
            latency: Latencies { response: summary(p99), service: summary(Some(1.5)), lag: summary(Some(9.0)) },
            http: None,
        }
    }

    fn integrity(verdict: IntegrityVerdict, lost: u64) -> Integrity {
        Integrity {
            verdict,
            reason: (verdict != IntegrityVerdict::Holds).then(|| "3 lost".to_owned()),
            rate: Some(0.999),
            checked: 1000,
            must_be_there: 1000,
            lost,
            ..Integrity::inconclusive(String::new())
        }
    }

    /// Judges `gate` over main = `main`, windows = `windows`.
    fn judged(gate: Gate, main: Option<Sample>, windows: Vec<Sample>, integrity: Option<&Integrity>) -> (Verdict, Option<f64>, String) {
        let phase = |name: &str| main.clone().filter(|_| name == "main");
        let whole = |_: &str, _: Duration| windows.clone();
        let result = judge(&gate, &Evidence { phase: &phase, windows: &whole, integrity });
        (result.verdict, result.actual, result.message)
    }

    fn over_main(text: &str) -> (Verdict, Option<f64>, String) {
        judged(text.parse().unwrap(), Some(sample(0, Some(48.25))), Vec::new(), None)
    }

    #[test]
    fn values_are_compared_in_the_unit_of_the_condition() {
        assert_eq!(over_main("response.p99 < 50ms"), (Verdict::Pass, Some(48.25), "response.p99 is 48.25ms, asked for < 50ms".into()));
        assert_eq!(over_main("response.p99 < 0.04s"), (Verdict::Fail, Some(0.04825), "response.p99 is 0.048s, asked for < 0.04s".into()));
        assert_eq!(over_main("rows_per_second >= 245"), (Verdict::Pass, Some(245.0), "rows_per_second is 245, asked for >= 245".into()));
        assert_eq!(over_main("offered_rate == 500").0, Verdict::Pass);
        assert_eq!(over_main("dropped == 10").0, Verdict::Pass);
        assert_eq!(over_main("rejected != 6").0, Verdict::Fail);
        let (verdict, actual, _) = over_main("error_rate < 1%");
        assert_eq!(verdict, Verdict::Fail);
        assert!((actual.unwrap() - 100.0 * 10.0 / 990.0).abs() < 1e-9);
    }

    #[test]
    fn the_limit_itself_is_on_the_side_the_comparison_says() {
        let edge = |text: &str| judged(text.parse().unwrap(), Some(sample(0, Some(50.0))), Vec::new(), None).0;
        assert_eq!(edge("response.p99 < 50ms"), Verdict::Fail);
        assert_eq!(edge("response.p99 <= 0.05s"), Verdict::Pass);
        assert_eq!(edge("response.p99 >= 50000us"), Verdict::Pass);
        assert_eq!(edge("response.p99 > 50ms"), Verdict::Fail);
    }

    #[test]
    fn without_data_a_gate_is_inconclusive() {
        let judged_on = |text: &str, main: Option<Sample>| judged(text.parse().unwrap(), main, Vec::new(), None);
        assert_eq!(judged_on("dropped == 0", Some(Sample::default())), (Verdict::Inconclusive, None, "dropped: no data".into()));
        assert_eq!(judged_on("response.max < 1s", Some(Sample::default())).0, Verdict::Inconclusive);
        assert_eq!(
            judged_on("response.p99 < 50ms", Some(sample(0, None))),
            (Verdict::Inconclusive, None, "response.p99: too few samples (100)".into())
        );
        assert_eq!(judged_on("dropped == 0", None), (Verdict::Inconclusive, None, "the run had no phase main".into()));
    }

    #[test]
    fn integrity_needs_a_finished_verification() {
        let on = |integrity: Option<&Integrity>| judged("integrity.lost == 0".parse().unwrap(), None, Vec::new(), integrity);
        assert_eq!(on(None), (Verdict::Inconclusive, None, "integrity.lost: not verified".into()));
        assert_eq!(on(Some(&integrity(IntegrityVerdict::Holds, 0))).0, Verdict::Pass);
        assert_eq!(
            on(Some(&integrity(IntegrityVerdict::Violated, 3))),
            (Verdict::Fail, Some(3.0), "integrity.lost is 3, asked for == 0".into())
        );
        assert_eq!(on(Some(&integrity(IntegrityVerdict::Inconclusive, 0))).0, Verdict::Inconclusive);
        let rate = judged("integrity.rate >= 99.9%".parse().unwrap(), None, Vec::new(), Some(&integrity(IntegrityVerdict::Violated, 3)));
        assert_eq!((rate.0, rate.1), (Verdict::Pass, Some(99.9)));
    }

    #[test]
    fn what_was_held_against_what_is_said_of_integrity_that_holds() {
        let full = integrity(IntegrityVerdict::Holds, 0);
        let digest = Integrity { read_back: Some(0), ..full.clone() };
        let sources = Integrity { sources: vec![Source::default()], ..full.clone() };
        let told = [full, digest, sources].map(|integrity| integrity_holds(Some(&integrity)).message);
        let things = ["rows read back", "rows checked", "replies and records held against the ledger"];
        assert_eq!(told, things.map(|things| format!("1,000 {things}, all of them right")));
    }

    #[test]
    fn every_whole_window_must_hold_and_the_worst_is_named() {
        let gate = |text: &str| Gate { window: Some(Duration::from_secs(10)), ..text.parse().unwrap() };
        let on = |text: &str, windows: Vec<Sample>| judged(gate(text), None, windows, None);
        let windows = vec![sample(0, Some(10.0)), sample(10, Some(61.5)), sample(20, Some(20.0))];
        assert_eq!(
            on("response.p99 < 50ms", windows.clone()),
            (Verdict::Fail, Some(61.5), "response.p99 is 61.5ms, asked for < 50ms (worst of 3 windows of 10s, from 10 s)".into())
        );
        assert_eq!(on("response.p99 > 5ms", windows).1, Some(10.0));
        let gap = on("response.p99 < 50ms", vec![sample(0, Some(10.0)), sample(10, None)]);
        assert_eq!((gap.0, gap.1), (Verdict::Inconclusive, Some(10.0)));
        assert_eq!(on("response.p99 < 5ms", vec![sample(0, Some(10.0)), sample(10, None)]).0, Verdict::Fail);
        assert_eq!(
            on("response.p99 < 50ms", Vec::new()),
            (Verdict::Inconclusive, None, "response.p99: no whole window of 10s in phase main".into())
        );
    }

    fn load(executor: Executor) -> Load {
        let load = serde_json::json!({ "executor": executor });
        Load { lag_limit: Time::millis(10), ..serde_json::from_value(load).unwrap() }
    }

    fn implied_by(gates: &[&str], executor: Executor, main: Sample, integrity: Option<&Integrity>) -> Vec<(String, Verdict)> {
        let gates: Vec<Gate> = gates.iter().map(|text| text.parse().unwrap()).collect();
        let phase = |name: &str| (name == "main").then(|| main.clone());
        let evidence = Evidence { phase: &phase, windows: &|_, _| Vec::new(), integrity };
        implicit(&gates, &evidence, &load(executor)).into_iter().map(|r| (r.gate, r.verdict)).collect()
    }

    #[test]
    fn closed_executors_are_judged_by_integrity_and_errors_alone() {
        let holds = integrity(IntegrityVerdict::Holds, 0);
        let mut clean = sample(0, None);
        clean.outcomes = Outcomes { offered: 5, attempted: 5, acknowledged: 5, ..Outcomes::default() };
        assert_eq!(
            implied_by(&[], Executor::SharedIterations, clean.clone(), Some(&holds)),
            [("integrity holds".to_owned(), Verdict::Pass), ("error_rate == 0".to_owned(), Verdict::Pass)]
        );
        let failing = implied_by(&[], Executor::ConstantVus, sample(0, None), Some(&integrity(IntegrityVerdict::Violated, 3)));
        assert_eq!(failing.iter().map(|(_, v)| *v).collect::<Vec<_>>(), [Verdict::Fail, Verdict::Fail]);
        assert_eq!(
            implied_by(&["unknown <= 4"], Executor::ConstantVus, sample(0, None), None),
            [("integrity holds".to_owned(), Verdict::Inconclusive)]
        );
        assert_eq!(implied_by(&[], Executor::ConstantVus, Sample::default(), Some(&holds))[1].1, Verdict::Inconclusive);
    }

    #[test]
    fn a_load_not_offered_as_asked_is_inconclusive_until_a_gate_takes_over() {
        let holds = integrity(IntegrityVerdict::Holds, 0);
        let of = |gates: &[&str], main: Sample| implied_by(gates, Executor::ConstantArrivalRate, main, Some(&holds)).split_off(2);
        let rate_gate = "offered_rate within 1 % of the rate asked for".to_owned();
        assert_eq!(
            of(&[], sample(0, None)),
            [
                ("lag.p99 <= 10ms".to_owned(), Verdict::Pass),
                ("dropped == 0".to_owned(), Verdict::Inconclusive),
                (rate_gate.clone(), Verdict::Pass)
            ]
        );
        let mut late = sample(0, None);
        late.latency.lag.p99_ms = Some(10.5);
        late.asked_rate = Some(506.0);
        assert_eq!(of(&[], late.clone()).iter().map(|(_, v)| *v).collect::<Vec<_>>(), [Verdict::Inconclusive; 3]);
        assert_eq!(of(&["lag.max < 1s", "dropped < 100"], late.clone()), [(rate_gate, Verdict::Inconclusive)]);
        assert_eq!(of(&["lag.max < 1s", "dropped < 100", "offered_rate > 1"], late.clone()), []);
        // Less than 1 % is not missed; a lag without p99 passes by its maximum.
        late.asked_rate = Some(505.0);
        late.latency.lag = LatencySummary { count: 3, max_ms: Some(4.0), ..LatencySummary::default() };
        assert_eq!(of(&["dropped < 100"], late).iter().map(|(_, v)| *v).collect::<Vec<_>>(), [Verdict::Pass; 2]);
    }

    #[test]
    fn what_stops_a_load_early_asks_whether_the_condition_is_missed() {
        let gate: Gate = "response.p99 < 50ms".parse().unwrap();
        assert_eq!([Some(48.25), Some(50.0), None].map(|p99| gate.missed(&sample(0, p99))), [Some(false), Some(true), None]);
    }

    #[test]
    fn numbers_are_shown_short_and_never_as_zero() {
        let shown = [0.0, 48.25, 100.0, 0.04825, 0.001, 0.0004, -0.0004, -2.5].map(tidy);
        assert_eq!(shown, ["0", "48.25", "100", "0.048", "0.001", "0.0004", "-0.0004", "-2.5"]);
    }

    #[test]
    fn a_rate_needs_time_and_something_offered() {
        let rate = |main: Sample| judged("rows_per_second < 1".parse().unwrap(), Some(main), Vec::new(), None);
        let no_time = Sample { length: Duration::ZERO, ..sample(0, None) };
        let nothing = Sample { outcomes: Outcomes::default(), ..sample(0, None) };
        for main in [no_time, nothing] {
            assert_eq!(rate(main), (Verdict::Inconclusive, None, "rows_per_second: no data".into()));
        }
    }

    #[test]
    fn the_worst_window_is_the_one_farthest_on_the_wrong_side() {
        let on = |text: &str, p99s: &[f64]| {
            let gate = Gate { window: Some(Duration::from_secs(10)), ..text.parse().unwrap() };
            let windows = p99s.iter().enumerate().map(|(place, p99)| sample(10 * place as u64, Some(*p99))).collect();
            let (verdict, actual, message) = judged(gate, None, windows, None);
            (verdict, actual, message.contains("without data"))
        };
        assert_eq!(on("response.p99 == 20ms", &[1.0, 30.0]), (Verdict::Fail, Some(1.0), false));
        assert_eq!(on("response.p99 != 20ms", &[1.0, 30.0]), (Verdict::Pass, Some(30.0), false));
        assert_eq!(on("response.p99 < 50ms", &[1.0, 30.0]), (Verdict::Pass, Some(30.0), false));
    }

    #[test]
    fn rejected_and_unknown_operations_are_errors_each() {
        for (rejected, unknown, expected) in [(5, 5, Verdict::Fail), (5, 0, Verdict::Fail), (0, 5, Verdict::Fail), (0, 0, Verdict::Pass)] {
            let outcomes = Outcomes { offered: 10, attempted: 10, rejected, unknown, ..Outcomes::default() };
            let told = no_errors(Some(&Sample { outcomes, ..sample(0, None) }));
            assert_eq!((told.verdict, told.actual), (expected, Some((rejected + unknown) as f64 / 10.0)));
        }
    }

    #[test]
    fn what_the_generator_did_is_told() {
        let lag = |p99: f64| {
            let mut main = sample(0, None);
            main.latency.lag.p99_ms = Some(p99);
            lag_within(Duration::from_millis(10), Some(&main)).message
        };
        assert_eq!(lag(10.0), "lag.p99 is 10ms");
        assert!(lag(10.5).starts_with("lag.p99 is 10.5ms: this machine could not offer the load in time"));
        let dropped = |offered, dropped| {
            let outcomes = Outcomes { offered, dropped, ..Outcomes::default() };
            let told = nothing_dropped(Some(&Sample { outcomes, ..Sample::default() }));
            (told.verdict, told.actual)
        };
        assert_eq!(dropped(10, 0), (Verdict::Pass, Some(0.0)));
        assert_eq!(dropped(10, 3), (Verdict::Inconclusive, Some(3.0)));
        assert_eq!(dropped(0, 0), (Verdict::Inconclusive, None));
    }
}
