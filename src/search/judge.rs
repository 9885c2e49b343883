//! What the report of a step shows of its rate, and what all steps show together.

use super::trend::{Trend, median, trend};
use super::walk::{Found, Vote};
use super::{Outcome, Point, Shown, Step};
use crate::report::{IntegrityVerdict, Report, Verdict};

/// Growth counts when chance would bring it in at most this share of steps that do not grow,
const ALPHA: f64 = 0.01;
/// when the target falls behind by this share of the load,
const BEHIND: f64 = 0.001;
/// and when over the step it comes to this share of what is usual there, and to more than what is answered together.
const GROWTH: f64 = 0.2;

/// One step by its report.
pub(super) fn step(rate: f64, report: &Report) -> Step {
    let seconds = report.phases.iter().find(|phase| phase.name == "main").map_or(0.0, |phase| phase.duration_seconds);
    let growth = growth(report);
    let (shown, reason) = shown(rate, report, &growth);
    let dropped = report.phases.iter().find(|phase| phase.name == "main").map_or(0, |phase| phase.outcomes.dropped);
    Step {
        rate_per_second: rate,
        run_id: report.run_id.clone(),
        shown,
        reason,
        integrity: report.integrity.verdict,
        throughput_per_second: report.throughput.rate.per_second(),
        response_p50_ms: report.latency.response.p50_ms,
        response_p99_ms: report.latency.response.p99_ms,
        dropped_per_second: if seconds > 0.0 { dropped as f64 / seconds } else { 0.0 },
        backlog_growth_per_second: growth.backlog.map(|trend| trend.slope),
        response_growth_ms_per_second: growth.response.map(|trend| trend.slope),
    }
}

/// What piles up over the seconds of phase `main`.
struct Growth {
    seconds: usize,
    /// Operations that are answered together: the rows of a batch come and go at once, however steady the load is.
    grain: f64,
    backlog: Option<Trend>,
    response: Option<Trend>,
}

fn growth(report: &Report) -> Growth {
    // By the clock: the label of the last second may be that of the drain, which began in it.
    let main = report.phases.iter().find(|phase| phase.name == "main");
    let begin = main.map_or(0.0, |main| main.start_seconds.ceil());
    let end = main.map_or(0.0, |main| (main.start_seconds + main.duration_seconds).round());
    // What is due and not answered waits somewhere: in the generator, the queue, the target. Warm-up leaves some for main.
    let mut backlog = 0.0;
    let (mut waiting, mut response) = (Vec::new(), Vec::new());
    for second in report.timeline.iter().filter(|second| (second.second as f64) < end) {
        let answered = second.acknowledged + second.rejected + second.unknown + second.dropped;
        backlog += second.offered as f64 - answered as f64;
        if second.second as f64 >= begin {
            waiting.push(backlog);
            response.extend(second.response_p50_ms);
        }
    }
    let grain = report.scenario.pointer("/workload/batch_insert/pipeline/flush_size").and_then(serde_json::Value::as_f64);
    Growth { seconds: waiting.len(), grain: grain.unwrap_or(1.0), backlog: trend(&waiting), response: trend(&response) }
}

impl Growth {
    /// Says how the target falls behind, if it does.
    fn behind(&self, rate: f64) -> Option<String> {
        let counts = |trend: &Trend, least: f64, grain: f64| {
            let over_all = trend.slope * self.seconds as f64;
            trend.p_value <= ALPHA && trend.slope >= least && over_all >= GROWTH * trend.median.abs() && over_all > grain
        };
        let (backlog, response) = (self.backlog, self.response);
        let backlog = backlog.filter(|trend| counts(trend, BEHIND * rate, self.grain)).map(|trend| {
            format!("it falls behind: what is due and not answered grows by {:.1} a second (p = {:.4})", trend.slope, trend.p_value)
        });
        // Who serves all but a thousandth of the load answers a millisecond later every second.
        let response = response.filter(|trend| counts(trend, BEHIND * 1000.0, 0.0)).map(|trend| {
            format!("it falls behind: the median response time grows by {:.1} ms a second (p = {:.4})", trend.slope, trend.p_value)
        });
        backlog.or(response)
    }
}

fn shown(rate: f64, report: &Report, growth: &Growth) -> (Shown, Option<String>) {
    let gate = |wanted: &dyn Fn(&crate::report::GateResult) -> bool| {
        report.gates.iter().find(|gate| wanted(gate)).map(|gate| format!("{}: {}", gate.gate, gate.message))
    };
    let because = |shown: Shown, reason: String| (shown, Some(reason));
    if report.integrity.verdict == IntegrityVerdict::Violated {
        return because(Shown::Void, report.integrity.reason.clone().unwrap_or_else(|| "integrity is violated".to_owned()));
    }
    // The generator's own lateness is in every response time: nothing else of such a step counts.
    if let Some(reason) = gate(&|gate| gate.gate.starts_with("lag.") && gate.verdict != Verdict::Pass) {
        return because(Shown::Undecided, reason);
    }
    if let Some(reason) = gate(&|gate| gate.verdict == Verdict::Fail) {
        return because(Shown::Failed, reason);
    }
    if let Some(reason) = growth.behind(rate) {
        return because(Shown::Failed, reason);
    }
    // While the generator is in time, what it could not start is the target's: no slot was free.
    let full = |gate: &crate::report::GateResult| gate.gate.starts_with("dropped") || gate.gate.starts_with("offered_rate");
    if let Some(reason) = gate(&|gate| gate.implicit && full(gate) && gate.verdict != Verdict::Pass && gate.actual.is_some()) {
        return because(Shown::Failed, reason);
    }
    match report.verdict {
        Verdict::Pass => (Shown::Held, None),
        Verdict::Fail => because(Shown::Failed, report.reasons.join("; ")),
        Verdict::Inconclusive => because(Shown::Undecided, report.reasons.join("; ")),
    }
}

impl Step {
    /// What it says about its rate.
    pub(super) fn vote(&self) -> Vote {
        match self.shown {
            Shown::Held => Vote::Held,
            Shown::Failed => Vote::Failed,
            Shown::Undecided | Shown::Void => Vote::Undecided,
        }
    }
}

/// How a walk that came to its end ended.
pub(super) fn outcome(found: &Found) -> Outcome {
    match (found.held, found.failed, found.unsettled) {
        (_, _, Some(_)) => Outcome::Undecided,
        (Some(_), Some(_), None) => Outcome::Found,
        (Some(_), None, None) => Outcome::HoldsEverywhere,
        (None, _, None) => Outcome::HoldsNowhere,
    }
}

/// The rates from low to high, each with the medians of its steps.
pub(super) fn curve(steps: &[Step], found: &Found) -> Vec<Point> {
    let mut rates: Vec<f64> = steps.iter().map(|step| step.rate_per_second).collect();
    rates.sort_by(f64::total_cmp);
    rates.dedup();
    rates.into_iter().map(|rate| point(rate, steps, found)).collect()
}

fn point(rate: f64, steps: &[Step], found: &Found) -> Point {
    let own: Vec<&Step> = steps.iter().filter(|step| step.rate_per_second == rate).collect();
    let middle = |value: &dyn Fn(&Step) -> Option<f64>| {
        let mut values: Vec<f64> = own.iter().filter_map(|step| value(step)).collect();
        (!values.is_empty()).then(|| median(&mut values))
    };
    let count = |shown: Shown| own.iter().filter(|step| step.shown == shown).count();
    let (held, failed) = (count(Shown::Held), count(Shown::Failed));
    let shown = match held.cmp(&failed) {
        _ if count(Shown::Void) > 0 => Shown::Void,
        _ if found.unsettled == Some(rate) => Shown::Undecided,
        std::cmp::Ordering::Greater => Shown::Held,
        std::cmp::Ordering::Less => Shown::Failed,
        std::cmp::Ordering::Equal => Shown::Undecided,
    };
    Point {
        rate_per_second: rate,
        shown,
        held,
        steps: own.len(),
        throughput_per_second: middle(&|step| step.throughput_per_second),
        response_p50_ms: middle(&|step| step.response_p50_ms),
        response_p99_ms: middle(&|step| step.response_p99_ms),
        dropped_per_second: middle(&|step| Some(step.dropped_per_second)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::{GateResult, Integrity, Outcomes, Phase, Second, sample};

    /// A step of ten seconds after one of warm-up at 1,000 a second, of which `answered` are answered, each second by `response` ms.
    fn report(answered: impl Fn(u64) -> u64, response: impl Fn(u64) -> f64) -> Report {
        let timeline = (0..12)
            .map(|second| Second {
                second,
                offered: 1000,
                acknowledged: answered(second),
                response_p50_ms: Some(response(second)),
                ..Second::default()
            })
            .collect();
        let phase = |name: &str, start_seconds: f64, duration_seconds: f64| Phase {
            name: name.to_owned(),
            start_seconds,
            duration_seconds,
            outcomes: Outcomes::default(),
        };
        let phases = vec![phase("warmup", 0.0, 1.0), phase("main", 1.0, 9.997), phase("drain", 10.997, 1.2)];
        Report { timeline, phases, gates: Vec::new(), ..sample::passed() }
    }

    #[track_caller]
    fn assert_shown(report: &Report, shown: Shown, reason: &str) {
        let step = step(1000.0, report);
        assert_eq!(step.shown, shown, "{:?}", step.reason);
        assert!(step.reason.as_deref().unwrap_or_default().contains(reason), "{:?}", step.reason);
    }

    #[test]
    fn a_step_that_would_fail_later_did_not_hold() {
        let steady = |second: u64| if second.is_multiple_of(2) { 1003 } else { 997 };
        assert_shown(&report(steady, |second| 5.0 + (second % 3) as f64), Shown::Held, "");
        // 5 of 1,000 a second stay behind; every gate still holds.
        assert_shown(&report(|_| 995, |_| 5.0), Shown::Failed, "what is due and not answered grows by 5.0 a second");
        // The queue is bounded and full, and the wait before it grows.
        assert_eq!(growth(&report(steady, |_| 5.0)).seconds, 10);
        // Batches of 200 that drift against the seconds grow no queue.
        let mut batches = report(|_| 995, |_| 5.0);
        batches.scenario["workload"]["batch_insert"]["pipeline"]["flush_size"] = 200.into();
        assert_shown(&batches, Shown::Held, "");
        batches.scenario["workload"]["batch_insert"]["pipeline"]["flush_size"] = 20.into();
        assert_shown(&batches, Shown::Failed, "falls behind");
        let creeping = report(steady, |second| 20.0 + 4.0 * second as f64);
        assert_shown(&creeping, Shown::Failed, "the median response time grows by 4.0 ms a second");
        let slope = step(1000.0, &creeping).response_growth_ms_per_second.unwrap();
        assert!((slope - 4.0).abs() < 1e-9, "{slope}");
        // What grows by nothing that matters, or settles, is no saturation.
        assert_shown(&report(steady, |second| 20.0 + 0.1 * second as f64), Shown::Held, "");
        assert_shown(&report(steady, |second| 20.0 - second as f64), Shown::Held, "");
        assert_shown(&report(steady, |second| if second == 9 { 400.0 } else { 20.0 }), Shown::Held, "");
    }

    fn gated(gate: &str, implicit: bool, verdict: Verdict) -> Report {
        let result = GateResult { gate: gate.to_owned(), implicit, verdict, actual: Some(5.0), message: "as it was".to_owned() };
        let reasons = vec![format!("{gate}: as it was")];
        Report { gates: vec![result], verdict, reasons, ..report(|_| 1000, |_| 5.0) }
    }

    #[test]
    fn the_generators_lateness_is_not_the_targets() {
        assert_shown(&gated("response.p99 < 50ms", false, Verdict::Fail), Shown::Failed, "response.p99 < 50ms: as it was");
        assert_shown(&gated("lag.p99 <= 10ms", true, Verdict::Inconclusive), Shown::Undecided, "lag.p99 <= 10ms");
        assert_shown(&gated("dropped == 0", true, Verdict::Inconclusive), Shown::Failed, "dropped == 0");
        let slow = gated("offered_rate within 1 % of the rate asked for", true, Verdict::Inconclusive);
        assert_shown(&slow, Shown::Failed, "offered_rate");
        assert_shown(&gated("response.p99 < 50ms", false, Verdict::Inconclusive), Shown::Undecided, "response.p99");
    }

    #[test]
    fn a_row_that_is_missing_voids_everything() {
        assert_shown(&sample::violated(), Shown::Void, "");
        let unproven = Report {
            integrity: Integrity::inconclusive("not read".to_owned()),
            verdict: Verdict::Inconclusive,
            reasons: vec!["not read".to_owned()],
            ..report(|_| 1000, |_| 5.0)
        };
        assert_shown(&unproven, Shown::Undecided, "not read");
    }

    #[test]
    fn the_curve_has_each_rate_once_with_its_medians() {
        let step = |rate: f64, p99: f64, shown: Shown| Step { response_p99_ms: Some(p99), shown, ..step(rate, &report(|_| 1000, |_| 5.0)) };
        let steps = [
            step(400.0, 90.0, Shown::Failed),
            step(100.0, 5.0, Shown::Held),
            step(400.0, 70.0, Shown::Failed),
            step(400.0, 20.0, Shown::Held),
        ];
        let curve = curve(&steps, &Found::default());
        let seen: Vec<_> = curve.iter().map(|point| (point.rate_per_second, point.shown, point.held, point.steps)).collect();
        assert_eq!(seen, [(100.0, Shown::Held, 1, 1), (400.0, Shown::Failed, 1, 3)]);
        assert_eq!(curve[1].response_p99_ms, Some(70.0));
    }
}
