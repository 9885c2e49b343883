//! Gates against a saved baseline: `metric op baseline * factor`.

use super::{Clock, Gate, Metric, Op, Phase, Point, Unit, factor_of};

/// What a gate against a baseline asks of the 95 % interval.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shown {
    /// Missed only where the miss is shown: the whole interval lies beyond the limit.
    Missed,
    /// Met only where that is shown: the whole interval keeps the limit (`upper95(…)`, `lower95(…)`).
    Kept,
}

/// The figures that a baseline is held against: those that every second of a run has, so that they have an interval.
const OF_BASELINES: [Metric; 6] = [
    Metric::RowsPerSecond,
    Metric::RequestsPerSecond,
    Metric::Latency(Clock::Response, Point::P50),
    Metric::Latency(Clock::Response, Point::P99),
    Metric::Latency(Clock::Service, Point::P50),
    Metric::Latency(Clock::Service, Point::P99),
];

/// `metric op baseline * factor`, the metric alone or as `upper95(metric)` or `lower95(metric)`.
pub(super) fn read(text: &str, metric: &str, op: Op, factor: &str) -> Result<Gate, String> {
    let limit = factor_of(factor).ok_or_else(|| format!("`{text}`: write `baseline` or e.g. `baseline * 1.10`"))?;
    let (end, wanted) = match op {
        Op::Below | Op::AtMost => ("upper95", "below"),
        Op::Above | Op::AtLeast => ("lower95", "above"),
        Op::Equal | Op::NotEqual => return Err(format!("`{text}`: two runs are never equal; write <, <=, > or >=")),
    };
    let (shown, metric) = match metric.split_once('(') {
        None => (Shown::Missed, metric),
        Some((function, inner)) if function.trim() == end && inner.ends_with(')') => (Shown::Kept, inner.trim_end_matches(')').trim()),
        Some(_) => return Err(format!("`{text}`: what must lie {wanted} is written {end}(metric)")),
    };
    let metric: Metric = metric.parse()?;
    if !OF_BASELINES.contains(&metric) {
        let known: Vec<String> = OF_BASELINES.iter().map(Metric::to_string).collect();
        return Err(format!("`{text}`: {metric} has no interval; a baseline is held against {}", known.join(", ")));
    }
    let (text, unit, phase) = (text.to_owned(), Unit::None, Phase::Main);
    Ok(Gate { text, metric, op, limit, unit, phase, window: None, abort_after: None, relative: false, baseline: Some(shown) })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_gate_against_a_baseline_says_what_must_be_shown() {
        let gate: Gate = "response.p99 < baseline * 1.10".parse().unwrap();
        assert_eq!(
            (gate.metric, gate.op, gate.limit, gate.baseline),
            (Metric::Latency(Clock::Response, Point::P99), Op::Below, 1.1, Some(Shown::Missed))
        );
        let strict: Gate = "lower95( rows_per_second )>=baseline*0.95".parse().unwrap();
        assert_eq!((strict.metric, strict.limit, strict.baseline), (Metric::RowsPerSecond, 0.95, Some(Shown::Kept)));
        let error = |text: &str| text.parse::<Gate>().unwrap_err();
        assert!(error("response.p95 < baseline").contains("response.p95 has no interval; a baseline is held against rows_per_second,"));
        assert!(error("response.p99 == baseline").ends_with("two runs are never equal; write <, <=, > or >="));
        assert!(error("lower95(response.p99) < baseline").ends_with("what must lie below is written upper95(metric)"));
        assert!(error("response.p99 < baseline + 1").ends_with("write `baseline` or e.g. `baseline * 1.10`"));
        let windowed = serde_json::from_value::<Gate>(json!({"gate": "response.p99 < baseline", "window": "10s"}));
        assert!(windowed.unwrap_err().to_string().contains("remove phase, window and abort"));
    }
}
