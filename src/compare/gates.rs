//! Gates of a comparison, `metric op before * factor`: missed only where the miss is shown, inconclusive where noise would have
//! hidden it, so that the same code on both sides does not fail.

use anyhow::ensure;

use super::judge::{Sides, sides};
use super::stats::{fewest, holm};
use super::{ALPHA, ChangeKind, MetricComparison};
use crate::gate::{Gate, Op};
use crate::report::{GateResult, Verdict};

/// Refuses gates that no comparison of this workload can judge.
pub(crate) fn check(gates: &[Gate], known: &[String]) -> anyhow::Result<()> {
    for gate in gates {
        let text = &gate.text;
        ensure!(
            gate.relative,
            "--gate `{text}`: a comparison is judged against its other side; write e.g. `response.p99 <= before * 1.10`"
        );
        ensure!(!matches!(gate.op, Op::Equal | Op::NotEqual), "--gate `{text}`: two sides are never equal; write <, <=, > or >=");
        ensure!(
            known.contains(&gate.metric.to_string()),
            "--gate `{text}`: {} is not compared here (known: {})",
            gate.metric,
            known.join(", ")
        );
    }
    Ok(())
}

/// Judges every gate.
pub(crate) fn judge(gates: &[Gate], metrics: &[MetricComparison], detect: f64) -> Vec<GateResult> {
    let measured: Vec<_> = gates.iter().map(|gate| metrics.iter().find(|metric| metric.metric == gate.metric.to_string())).collect();
    let limits: Vec<_> =
        gates.iter().zip(&measured).map(|(gate, metric)| metric.map(|metric| at_the_limit(gate, metric, gates.len()))).collect();
    let known: Vec<usize> = (0..gates.len()).filter(|place| limits[*place].as_ref().is_some_and(|found| found.p_value.is_some())).collect();
    let p: Vec<f64> = known.iter().filter_map(|place| limits[*place].as_ref()?.p_value).collect();
    let corrected = holm(&p);
    let mut results: Vec<GateResult> = gates.iter().map(|gate| result(gate, Verdict::Inconclusive, None, "no data".to_owned())).collect();
    for (place, p) in known.into_iter().zip(corrected) {
        if let (Some(metric), Some(found)) = (measured[place], &limits[place]) {
            results[place] = one(&gates[place], metric, found, p, detect);
        }
    }
    results
}

/// The second side beside the limit, which is the first side times the factor.
fn at_the_limit(gate: &Gate, metric: &MetricComparison, questions: usize) -> Sides {
    let limit: Vec<f64> = metric.before.runs.iter().flatten().map(|value| value * gate.limit).collect();
    let after: Vec<f64> = metric.after.runs.iter().flatten().copied().collect();
    sides(&limit, &after, questions)
}

fn one(gate: &Gate, metric: &MetricComparison, at_limit: &Sides, p: f64, detect: f64) -> GateResult {
    let Some((change, beyond)) = metric.change.zip(at_limit.change) else {
        return result(gate, Verdict::Inconclusive, None, "no data".to_owned());
    };
    let neutral = if beyond.kind == ChangeKind::Ratio { 1.0 } else { 0.0 };
    let upper = matches!(gate.op, Op::Below | Op::AtMost);
    let misses = |value: f64| if upper { value > neutral } else { value < neutral };
    let inside = |end: Option<f64>| end.is_some_and(|value| !misses(value));
    let kept = if upper { inside(beyond.high) } else { inside(beyond.low) };
    let (verdict, words) = if p <= ALPHA && misses(beyond.estimate) {
        (Verdict::Fail, "the miss is shown".to_owned())
    } else if kept {
        (Verdict::Pass, "the whole interval keeps it".to_owned())
    } else {
        match at_limit.detectable {
            Some(least) if least <= detect => (Verdict::Pass, "no miss is shown".to_owned()),
            Some(least) => (Verdict::Inconclusive, format!("too noisy: only a change of {:.0} % would have been found", least * 100.0)),
            None => (Verdict::Inconclusive, format!("too few runs to show anything; {} pairs are the fewest", fewest(at_limit.alpha))),
        }
    };
    let interval = match (change.low, change.high) {
        (Some(low), Some(high)) => format!(" [{low:.3}, {high:.3}]"),
        _ => String::new(),
    };
    let kind = if change.kind == ChangeKind::Ratio { "times before" } else { "more than before" };
    let message = format!("{} is {:.3}{interval} {kind}, corrected p {p:.4}: {words}", metric.metric, change.estimate);
    result(gate, verdict, Some(change.estimate), message)
}

fn result(gate: &Gate, verdict: Verdict, actual: Option<f64>, message: String) -> GateResult {
    GateResult { gate: gate.text.clone(), implicit: false, verdict, actual, message }
}

#[cfg(test)]
mod tests {
    use super::super::judge::{DETECT, Question, compare};
    use super::*;
    use crate::report::{Rate, Report, Throughput, sample};

    const SPEEDS: [f64; 8] = [100.0, 102.0, 98.0, 101.0, 99.0, 100.5, 99.5, 100.2];

    fn judged(after: &[f64], gates: &[&str]) -> Vec<GateResult> {
        let run = |speed: &f64| Report { throughput: Throughput { rate: Rate::Rows(Some(*speed)), valid: true }, ..sample::passed() };
        let gates: Vec<Gate> = gates.iter().map(|gate| gate.parse().unwrap()).collect();
        let [before, after] = [&SPEEDS[..after.len().min(8)], after].map(|side| side.iter().map(run).collect::<Vec<_>>());
        let metrics = compare(&before, &after, &Question { gates: &gates, detect: DETECT, calibrated: false, seed: 1 });
        judge(&gates, &metrics, DETECT)
    }

    #[test]
    fn a_gate_is_missed_only_where_the_miss_is_shown() {
        let slower = SPEEDS.map(|speed| speed * 0.8);
        let results = judged(&slower, &["rows_per_second >= before * 0.95", "rows_per_second > before * 0.7"]);
        assert_eq!((results[0].verdict, results[1].verdict), (Verdict::Fail, Verdict::Pass));
        assert_eq!(results[0].message, "rows_per_second is 0.800 [0.788, 0.812] times before, corrected p 0.0003: the miss is shown");
        assert!(results[1].message.ends_with("the whole interval keeps it"), "{}", results[1].message);
        let same = judged(&SPEEDS, &["rows_per_second >= before", "rows_per_second >= before * 1.2"]);
        assert_eq!((same[0].verdict, same[1].verdict), (Verdict::Pass, Verdict::Fail), "the same is not 20 % more");
        assert!(same[0].message.ends_with("no miss is shown"));
    }

    #[test]
    fn noise_and_missing_data_are_no_pass() {
        let wild =
            judged(&[40.0, 160.0, 90.0, 200.0, 70.0, 130.0, 60.0, 110.0], &["rows_per_second >= before * 0.99", "wal_bytes <= before"]);
        assert_eq!(wild[0].verdict, Verdict::Inconclusive);
        assert!(wild[0].message.contains("too noisy: only a change of"), "{}", wild[0].message);
        assert_eq!((wild[1].verdict, wild[1].message.as_str()), (Verdict::Inconclusive, "no data"));
        let one = judged(&[10.0], &["rows_per_second >= before * 0.9"]);
        assert_eq!(one[0].verdict, Verdict::Inconclusive, "one pair shows nothing");
        let three = ["rows_per_second >= before * 0.99", "rows_per_second >= before * 0.9", "rows_per_second >= before"];
        let few = judged(&SPEEDS[..4], &three);
        assert!(few[2].message.ends_with("too few runs to show anything; 5 pairs are the fewest"), "{}", few[2].message);
        assert_eq!(few[2].verdict, Verdict::Inconclusive, "of three gates four pairs could never show a miss");
    }

    #[test]
    fn a_gate_that_cannot_be_judged_is_refused() {
        let known = ["rows_per_second".to_owned(), "response.p99".to_owned()];
        let told = |gate: &str| check(&[gate.parse().unwrap()], &known).map_err(|error| error.to_string());
        assert_eq!(told("response.p99 <= before * 1.1"), Ok(()));
        assert!(told("response.p99 < 50ms").unwrap_err().ends_with("write e.g. `response.p99 <= before * 1.10`"));
        assert!(told("response.p99 == before").unwrap_err().ends_with("write <, <=, > or >="));
        assert!(
            told("response.p90 <= before")
                .unwrap_err()
                .ends_with("response.p90 is not compared here (known: rows_per_second, response.p99)")
        );
    }
}
