//! From the values of two sides to what follows for each figure.

use super::figures::{Figure, all};
use super::stats::{self, benjamini_hochberg, holm, mann_whitney, median, shift};
use super::{ALPHA, Better, Change, ChangeKind, Finding, MetricComparison, Values, within};
use crate::gate::{Gate, Metric};
use crate::report::Report;

/// A difference of this share should be found, unless the caller says otherwise.
pub(crate) const DETECT: f64 = 0.1;

/// What is asked of a comparison.
pub(crate) struct Question<'a> {
    pub(crate) gates: &'a [Gate],
    /// A smaller difference than this share need not be found.
    pub(crate) detect: f64,
    /// Values are related to each machine's own calibration.
    pub(crate) calibrated: bool,
    pub(crate) seed: u64,
}

/// What the values of both sides tell, before it is known how many questions are asked.
pub(super) struct Sides {
    pub(super) change: Option<Change>,
    pub(super) p_value: Option<f64>,
    /// At `alpha`.
    pub(super) detectable: Option<f64>,
    /// The error that one of several questions may have, at worst.
    pub(super) alpha: f64,
}

/// Every figure of both sides, each with its verdict.
pub(crate) fn compare(before: &[Report], after: &[Report], question: &Question<'_>) -> Vec<MetricComparison> {
    let Some(first) = before.first().or(after.first()) else { return Vec::new() };
    let gated = |metric: Metric| question.gates.iter().any(|gate| gate.metric == metric);
    let figures = all(first.throughput.rate);
    let asked = figures.iter().filter(|figure| gated(figure.metric)).count();
    let questions = |figure: &Figure| if gated(figure.metric) { asked } else { 1 };
    let found: Vec<_> = figures.iter().map(|figure| one(figure, before, after, question, questions(figure))).collect();
    let adjusted = adjusted(&figures, &found, gated);
    let mut compared = Vec::new();
    for ((figure, (values, sides)), p_adjusted) in figures.into_iter().zip(found).zip(adjusted) {
        let (verdict, reason) = finding(&sides, p_adjusted, figure.better, question.detect);
        let correction = if gated(figure.metric) { "holm" } else { "benjamini-hochberg" };
        let [before, after] = values;
        compared.push(MetricComparison {
            metric: figure.metric.to_string(),
            unit: figure.unit,
            better: figure.better,
            before,
            after,
            change: sides.change,
            p_value: sides.p_value,
            p_adjusted,
            correction: correction.to_owned(),
            detectable: sides.detectable,
            verdict,
            reason,
        });
    }
    compared
}

/// Corrected p-values: Holm's among the figures that carry a gate, because they decide; Benjamini and Hochberg's among the rest.
fn adjusted(figures: &[Figure], found: &[([Values; 2], Sides)], gated: impl Fn(Metric) -> bool) -> Vec<Option<f64>> {
    let mut adjusted = vec![None; figures.len()];
    for (family, correct) in [(true, holm as fn(&[f64]) -> Vec<f64>), (false, benjamini_hochberg)] {
        let places: Vec<usize> =
            (0..figures.len()).filter(|place| gated(figures[*place].metric) == family && found[*place].1.p_value.is_some()).collect();
        let p: Vec<f64> = places.iter().filter_map(|place| found[*place].1.p_value).collect();
        for (place, p) in places.into_iter().zip(correct(&p)) {
            adjusted[place] = Some(p);
        }
    }
    adjusted
}

fn one(figure: &Figure, before: &[Report], after: &[Report], question: &Question<'_>, questions: usize) -> ([Values; 2], Sides) {
    let value = |report: &Report| {
        let value = figure.of(report).filter(|value| value.is_finite())?;
        if question.calibrated { figure.calibrated(value, report) } else { Some(value) }
    };
    let values = [before, after].map(|reports| {
        let runs: Vec<Option<f64>> = reports.iter().map(value).collect();
        let known: Vec<f64> = runs.iter().flatten().copied().collect();
        let merged = if question.calibrated { None } else { figure.merged(reports) };
        Values { median: median(&known), merged, runs }
    });
    let known = [0, 1].map(|side| values[side].runs.iter().flatten().copied().collect::<Vec<f64>>());
    let mut found = sides(&known[0], &known[1], questions);
    if let ([before], [after], [_], [_]) = (before, after, &known[0][..], &known[1][..])
        && let Some(change) = found.change.as_mut().filter(|change| change.kind == ChangeKind::Ratio && !question.calibrated)
        && let Some((low, high)) = within::ratio(&figure.seconds(before), &figure.seconds(after), question.seed)
    {
        (change.low, change.high, change.within_runs) = (Some(low), Some(high), true);
    }
    (values, found)
}

/// Change, test and what could have been found, of the values of both sides; as one of so many `questions` that share an error.
pub(super) fn sides(before: &[f64], after: &[f64], questions: usize) -> Sides {
    let alpha = ALPHA / questions.max(1) as f64;
    let both = || before.iter().chain(after);
    let ratio = both().all(|value| *value > 0.0);
    let scaled = |values: &[f64]| values.iter().map(|value| if ratio { value.ln() } else { *value }).collect::<Vec<f64>>();
    let (before, after) = (scaled(before), scaled(after));
    let detectable = stats::detectable(&before, &after, alpha).and_then(|shift| {
        let largest = median(&before)?.abs().max(median(&after)?.abs());
        if ratio {
            Some(shift.exp_m1())
        } else if shift == 0.0 {
            Some(0.0)
        } else {
            (largest > 0.0).then(|| shift / largest)
        }
    });
    let change = shift(&before, &after, ALPHA).map(|shift| {
        let scale = |value: f64| if ratio { value.exp() } else { value };
        Change {
            kind: if ratio { ChangeKind::Ratio } else { ChangeKind::Difference },
            estimate: scale(shift.estimate),
            low: shift.interval.map(|(low, _)| scale(low)),
            high: shift.interval.map(|(_, high)| scale(high)),
            within_runs: false,
        }
    });
    Sides { change, p_value: mann_whitney(&before, &after), detectable, alpha }
}

/// What follows, and why it is not more.
pub(super) fn finding(sides: &Sides, p_adjusted: Option<f64>, better: Better, detect: f64) -> (Finding, Option<String>) {
    let (Some(change), Some(p)) = (sides.change, p_adjusted) else {
        return (Finding::NoData, Some("a side has no such figure".to_owned()));
    };
    let neutral = if change.kind == ChangeKind::Ratio { 1.0 } else { 0.0 };
    if p <= ALPHA && change.estimate != neutral {
        return match (better, change.estimate > neutral) {
            (Better::Neither, _) => (Finding::Different, None),
            (Better::Higher, true) | (Better::Lower, false) => (Finding::Better, None),
            (Better::Higher, false) | (Better::Lower, true) => (Finding::Worse, None),
        };
    }
    if let Some(alone) = sides.p_value.filter(|alone| *alone <= ALPHA && change.estimate != neutral) {
        let why = format!(
            "it differs by itself (p {alone:.4}), but not among all that is looked at (corrected {p:.3}); run more pairs, or put a gate on it"
        );
        return (Finding::TooNoisyToSay, Some(why));
    }
    match sides.detectable {
        Some(least) if least <= detect => (Finding::NoDifferenceShown, None),
        Some(least) => {
            let [least, detect] = [least, detect].map(|share| share * 100.0);
            (Finding::TooNoisyToSay, Some(format!("only a change of {least:.0} % would have been found, asked for {detect:.0} %")))
        }
        None => (
            Finding::TooNoisyToSay,
            Some(format!("so few runs show nothing, however great it is; {} pairs are the fewest", stats::fewest(sides.alpha))),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::{Rate, Throughput, sample};

    /// A run of this speed.
    fn run(speed: f64) -> Report {
        Report { throughput: Throughput { rate: Rate::Rows(Some(speed)), valid: true }, ..sample::passed() }
    }

    fn judged(before: &[f64], after: &[f64], gates: &[&str]) -> MetricComparison {
        let gates: Vec<Gate> = gates.iter().map(|gate| gate.parse().unwrap()).collect();
        let question = Question { gates: &gates, detect: DETECT, calibrated: false, seed: 1 };
        let [before, after] = [before, after].map(|speeds| speeds.iter().copied().map(run).collect::<Vec<_>>());
        compare(&before, &after, &question).swap_remove(0)
    }

    #[test]
    fn each_verdict_is_given_where_it_is_due() {
        let speeds = [100.0, 101.0, 99.0, 100.5, 99.5, 100.2, 99.8, 100.1];
        let times = |factor: f64| speeds.map(|speed| speed * factor);
        let faster = judged(&speeds, &times(1.2), &["rows_per_second >= before"]);
        assert_eq!((faster.verdict, faster.correction.as_str(), faster.metric.as_str()), (Finding::Better, "holm", "rows_per_second"));
        let change = faster.change.unwrap();
        assert!((change.estimate - 1.2).abs() < 1e-9 && change.low.unwrap() > 1.18 && change.high.unwrap() < 1.22, "{change:?}");
        let slower = judged(&speeds, &times(0.8), &["rows_per_second >= before"]);
        assert_eq!((slower.verdict, slower.before.median, slower.after.runs.len()), (Finding::Worse, Some(100.05), 8));
        let same = judged(&speeds, &speeds, &[]);
        assert_eq!((same.verdict, same.p_value), (Finding::NoDifferenceShown, Some(1.0)));
        assert!(same.detectable.is_some_and(|share| share < 0.02), "{same:?}");
        let wild = judged(&[50.0, 150.0, 90.0, 200.0, 70.0], &[60.0, 140.0, 100.0, 190.0, 75.0], &[]);
        assert_eq!(wild.verdict, Finding::TooNoisyToSay);
        assert!(wild.reason.unwrap().ends_with("would have been found, asked for 10 %"));
    }

    #[test]
    fn one_pair_zero_variance_and_no_data_are_said_as_they_are() {
        let one = judged(&[100.0], &[50.0], &[]);
        assert_eq!((one.verdict, one.detectable), (Finding::TooNoisyToSay, None));
        assert_eq!(one.reason.as_deref(), Some("so few runs show nothing, however great it is; 4 pairs are the fewest"));
        let change = one.change.unwrap();
        assert!((change.estimate - 0.5).abs() < 1e-9 && change.low.is_none(), "{change:?}");
        let constant = judged(&[100.0; 5], &[100.0; 5], &[]);
        assert_eq!((constant.verdict, constant.detectable), (Finding::NoDifferenceShown, Some(0.0)));
        let moved = judged(&[100.0; 5], &[110.0; 5], &["rows_per_second >= before"]);
        assert_eq!((moved.verdict, moved.change.unwrap().low.map(|low| (low * 1e6).round())), (Finding::Better, Some(1_100_000.0)));
        let none = judged(&[100.0; 5], &[], &[]);
        assert_eq!((none.verdict, none.change, none.after.median), (Finding::NoData, None, None));
    }

    #[test]
    fn what_is_mostly_zero_is_compared_by_difference() {
        let found = sides(&[0.0; 6], &[0.02, 0.03, 0.01, 0.02, 0.04, 0.025], 1);
        let change = found.change.unwrap();
        assert_eq!(change.kind, ChangeKind::Difference);
        assert!(change.low.unwrap() > 0.0 && found.p_value.unwrap() < 0.05);
        assert_eq!(finding(&found, found.p_value, Better::Lower, DETECT).0, Finding::Worse);
        let (verdict, why) = finding(&found, Some(0.2), Better::Lower, DETECT);
        assert_eq!(verdict, Finding::TooNoisyToSay);
        assert!(why.unwrap().starts_with("it differs by itself (p 0.0022), but not among all that is looked at (corrected 0.200)"));
        let none = sides(&[0.0; 6], &[0.0; 6], 1);
        assert_eq!(finding(&none, none.p_value, Better::Lower, DETECT).0, Finding::NoDifferenceShown);
    }

    #[test]
    fn percentiles_of_a_side_come_from_merged_histograms() {
        use crate::recorder::Latency;
        use std::time::Duration;
        // Nine runs of 1 ms and one of 100 ms: the p95 of all is 100 ms, the mean of the p95 would be 10.9 and their median 1.
        let run = |millis: u64| {
            let mut latency = Latency::default();
            latency.record_n(Duration::from_millis(millis), 1_000);
            let mut report = sample::passed();
            report.histograms.response = latency.encode();
            report.latency.response.p95_ms = Some(millis as f64);
            report
        };
        let runs: Vec<Report> = [1, 1, 1, 100, 1, 1, 1, 1, 1, 1].map(run).to_vec();
        let question = Question { gates: &[], detect: DETECT, calibrated: false, seed: 1 };
        let all = compare(&runs, &runs, &question);
        let p95 = all.iter().find(|metric| metric.metric == "response.p95").unwrap();
        assert!((p95.before.merged.unwrap() - 100.0).abs() < 0.2, "{p95:?}");
        assert_eq!(p95.before.median, Some(1.0));
    }
}
