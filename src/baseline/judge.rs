//! A run beside its baseline: gates judged by the 95 % interval of the ratio of their seconds, and every figure's deviation.

use serde::Serialize;

use super::Baseline;
use crate::compare::figures::{Figure, all};
use crate::compare::judge::DETECT;
use crate::compare::within;
use crate::gate::{Gate, Op, Shown};
use crate::history::changes::median;
use crate::history::figures;
use crate::report::{GateResult, Report, Verdict};

/// A ratio of the run to its baseline: the medians of their seconds, and the 95 % interval within them.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Ratio {
    estimate: f64,
    low: f64,
    high: f64,
}

/// Judges those of `gates` that speak of the baseline.
pub(crate) fn gates(gates: &[Gate], baseline: &Baseline, report: &Report) -> Vec<GateResult> {
    gates.iter().filter_map(|gate| Some(one(gate, gate.baseline?, baseline, report))).collect()
}

/// `report` with its gates against the baseline judged, and the verdict that follows.
pub(crate) fn judged(wanted: &[Gate], baseline: &Baseline, mut report: Report) -> Report {
    for result in gates(wanted, baseline, &report) {
        if result.verdict != Verdict::Pass {
            report.verdict = report.verdict.max(result.verdict);
            report.reasons.push(format!("{}: {}", result.gate, result.message));
        }
        report.gates.push(result);
    }
    if wanted.iter().all(|gate| gate.baseline.is_none()) {
        report.notes.push(format!("no gate speaks of the baseline {}; write e.g. response.p99 < baseline * 1.10", baseline.name));
    }
    report
}

fn one(gate: &Gate, shown: Shown, baseline: &Baseline, report: &Report) -> GateResult {
    let result = |verdict, actual, message: String| GateResult { gate: gate.text.clone(), implicit: false, verdict, actual, message };
    let name = gate.metric.to_string();
    let found = all(report.throughput.rate, report.scenario["load"]["executor"].as_str().unwrap_or_default())
        .into_iter()
        .find(|figure| figure.metric == gate.metric);
    let ratio = match found.map(|figure| ratio(&figure, baseline, report)) {
        Some(Ok(ratio)) => ratio,
        Some(Err(why)) => return result(Verdict::Inconclusive, None, format!("{name}: {why}")),
        None => return result(Verdict::Inconclusive, None, format!("{name}: no data")),
    };
    let Ratio { estimate, low, high } = ratio;
    let upper = matches!(gate.op, Op::Below | Op::AtMost);
    let (worse, better) = if upper { (high, low) } else { (low, high) };
    let unsure = if upper { high / estimate } else { estimate / low } - 1.0;
    let (verdict, words) = if gate.op.holds(worse, gate.limit) {
        (Verdict::Pass, "the whole interval keeps it".to_owned())
    } else if !gate.op.holds(better, gate.limit) {
        (Verdict::Fail, "the miss is shown".to_owned())
    } else if shown == Shown::Kept {
        (Verdict::Inconclusive, "it is not shown to be kept; run longer, or allow more".to_owned())
    } else if unsure <= DETECT {
        (Verdict::Pass, "no miss is shown".to_owned())
    } else {
        (Verdict::Inconclusive, format!("too noisy: {:.0} % more could hide in it; run longer", unsure * 100.0))
    };
    let message = format!(
        "{name} is {estimate:.3} [{low:.3}, {high:.3}] times the baseline {}, asked for {} {}: {words}",
        baseline.name, gate.op, gate.limit
    );
    result(verdict, Some(estimate), message)
}

fn ratio(figure: &Figure, baseline: &Baseline, report: &Report) -> Result<Ratio, String> {
    let (before, after) = (figure.seconds(&baseline.report), figure.seconds(report));
    for (whose, seconds) in [("the run", &after), ("the baseline", &before)] {
        if seconds.len() < within::LEAST {
            return Err(format!(
                "{whose} has {} whole seconds with this figure, an interval needs {}; run longer, or at a higher rate",
                seconds.len(),
                within::LEAST
            ));
        }
    }
    let estimate = median(&after).zip(median(&before)).filter(|(_, before)| *before > 0.0).map(|(after, before)| after / before);
    estimate
        .zip(within::ratio(&before, &after, report.seed))
        .map(|(estimate, (low, high))| Ratio { estimate, low, high })
        .ok_or_else(|| "it is zero in most seconds, so there is no ratio".to_owned())
}

/// How a figure of a run lies to its baseline.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Deviation {
    pub(crate) figure: String,
    pub(crate) baseline: f64,
    pub(crate) current: f64,
    /// Null where the baseline is zero.
    pub(crate) deviation_percent: Option<f64>,
}

/// Every figure that both have.
pub(crate) fn deviations(baseline: &Report, report: &Report) -> Vec<Deviation> {
    let current = figures(report);
    let both = figures(baseline).into_iter().filter_map(|(figure, before)| Some((current.get(&figure).copied()?, figure, before)));
    both.map(|(current, figure, baseline)| Deviation {
        figure,
        baseline,
        current,
        deviation_percent: (baseline != 0.0).then(|| (current / baseline - 1.0) * 100.0),
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use rand::{RngExt as _, SeedableRng as _};
    use rand_xoshiro::Xoshiro256PlusPlus;

    use super::*;
    use crate::report::{Second, sample};

    /// A run of 30 whole seconds, each around `level` with some noise.
    fn run(level: f64, noise: f64, seed: u64) -> Report {
        let mut random = Xoshiro256PlusPlus::seed_from_u64(seed);
        let mut around = |middle: f64| middle * (1.0 + noise * ((0..12).map(|_| random.random::<f64>()).sum::<f64>() - 6.0)).max(0.01);
        let second = |second| Second {
            second,
            phase: "main".to_owned(),
            acknowledged: around(1000.0 / level) as u64,
            response_p99_ms: Some(around(10.0 * level)),
            ..Second::default()
        };
        Report { timeline: (0..32).map(second).collect(), ..sample::passed() }
    }

    fn verdicts(noise: f64, slower: f64, seed: u64) -> [Verdict; 4] {
        let baseline = Baseline { name: "b".to_owned(), report: run(1.0, noise, seed) };
        let wanted: Vec<Gate> = [
            "response.p99 < baseline * 1.10",
            "rows_per_second > baseline * 0.90",
            "upper95(response.p99) < baseline * 1.10",
            "lower95(rows_per_second) > baseline * 0.90",
        ]
        .map(|gate| gate.parse().unwrap())
        .to_vec();
        let results = gates(&wanted, &baseline, &run(slower, noise, seed + 1000));
        [0, 1, 2, 3].map(|place| results[place].verdict)
    }

    #[test]
    fn identical_code_does_not_fail_and_a_fifth_slower_does() {
        for seed in 0..50 {
            assert_eq!(verdicts(0.05, 1.0, seed), [Verdict::Pass; 4], "{seed}");
            assert_eq!(verdicts(0.05, 1.25, seed), [Verdict::Fail; 4], "{seed}");
            assert!(!verdicts(0.5, 1.0, seed).contains(&Verdict::Fail), "noise alone never fails: {seed}");
        }
        let noisy = (0..50).filter(|seed| verdicts(0.6, 1.0, *seed)[0] == Verdict::Inconclusive).count();
        assert!(noisy > 25, "{noisy}: noise that would hide a miss is no pass");
    }

    #[test]
    fn few_seconds_are_inconclusive_and_the_verdict_follows_the_gates() {
        let baseline = Baseline { name: "b".to_owned(), report: run(1.0, 0.05, 1) };
        let gate: Gate = "response.p99 < baseline".parse().unwrap();
        let short = judged(std::slice::from_ref(&gate), &baseline, sample::passed());
        assert_eq!(short.verdict, Verdict::Inconclusive);
        assert!(short.reasons[0].contains("the run has 0 whole seconds with this figure, an interval needs 10"), "{:?}", short.reasons);
        let slow = judged(&[gate], &baseline, run(1.5, 0.05, 2));
        assert_eq!((slow.verdict, slow.gates.last().unwrap().verdict), (Verdict::Fail, Verdict::Fail));
        assert!(slow.reasons[0].ends_with("times the baseline b, asked for < 1: the miss is shown"), "{:?}", slow.reasons);
        let without = judged(&[], &baseline, run(1.0, 0.05, 2));
        assert!(without.notes.iter().any(|note| note.contains("no gate speaks of the baseline b")));
    }

    #[test]
    fn deviations_are_percentages_of_the_baseline() {
        let mut report = sample::passed();
        report.latency.response.p99_ms = report.latency.response.p99_ms.map(|p99| p99 * 1.5);
        let found = deviations(&sample::passed(), &report);
        let of = |name: &str| found.iter().find(|deviation| deviation.figure == name).unwrap().deviation_percent;
        assert_eq!((of("response.p99"), of("rows_per_second"), of("error_rate")), (Some(50.0), Some(0.0), None));
    }
}
