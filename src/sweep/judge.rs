//! What the reports of a sweep's runs show: each cell, and the best that passes.

use super::{Cell, CellVerdict, Objective, Outcome, RunSeen};
use crate::report::{IntegrityVerdict, Report, Verdict};
use crate::search::trend::median;

/// A cell by the reports of its runs, of which `repeat` were asked for.
pub(super) fn cell(values: Vec<String>, reports: &[Report], repeat: u32) -> Cell {
    let violated = |report: &&Report| report.integrity.verdict == IntegrityVerdict::Violated;
    let worst = reports.iter().max_by_key(|report| (violated(report), report.verdict));
    let verdict = match worst {
        Some(report) if violated(&report) => CellVerdict::Void,
        _ if reports.len() < repeat as usize => CellVerdict::Missing,
        None => CellVerdict::Missing,
        Some(report) => match report.verdict {
            Verdict::Fail => CellVerdict::Fail,
            Verdict::Inconclusive => CellVerdict::Inconclusive,
            // A run without a speed that counts is no candidate, whatever its gates say.
            Verdict::Pass if !reports.iter().all(|report| report.throughput.valid) => CellVerdict::Inconclusive,
            Verdict::Pass => CellVerdict::Pass,
        },
    };
    let sorted = |value: &dyn Fn(&Report) -> Option<f64>| {
        let mut values: Vec<f64> = reports.iter().filter_map(value).collect();
        values.sort_by(f64::total_cmp);
        values
    };
    let middle = |mut values: Vec<f64>| (!values.is_empty()).then(|| median(&mut values));
    let speeds = sorted(&|report| report.throughput.rate.per_second().filter(|_| report.throughput.valid));
    Cell {
        values,
        verdict,
        reason: worst.filter(|_| verdict != CellVerdict::Pass).and_then(|report| report.reasons.first().cloned()),
        throughput_low: speeds.first().copied(),
        throughput_high: speeds.last().copied(),
        throughput_per_second: middle(speeds),
        response_p50_ms: middle(sorted(&|report| report.latency.response.p50_ms)),
        response_p99_ms: middle(sorted(&|report| report.latency.response.p99_ms)),
        runs: reports
            .iter()
            .map(|report| RunSeen { run_id: report.run_id.clone(), verdict: report.verdict, integrity: report.integrity.verdict })
            .collect(),
    }
}

/// The best cell among those that pass.
pub(super) fn best(cells: &[Cell], objective: Objective) -> Option<usize> {
    // Greater is better.
    let worth = |cell: &Cell| match objective {
        Objective::Throughput => cell.throughput_per_second,
        Objective::ResponseP99 => cell.response_p99_ms.map(|p99| -p99),
    };
    let candidates = cells.iter().enumerate().filter(|(_, cell)| cell.verdict == CellVerdict::Pass);
    let worths = candidates.filter_map(|(place, cell)| Some((place, worth(cell)?)));
    worths.max_by(|(_, one), (_, other)| one.total_cmp(other)).map(|(place, _)| place)
}

/// How the sweep ended, once all cells are known.
pub(super) fn outcome(cells: &[Cell], best: Option<usize>) -> Outcome {
    let any = |verdict: CellVerdict| cells.iter().any(|cell| cell.verdict == verdict);
    if any(CellVerdict::Void) {
        Outcome::Violated
    } else if any(CellVerdict::Missing) {
        Outcome::Incomplete
    } else if best.is_some() {
        Outcome::Found
    } else if any(CellVerdict::Fail) {
        Outcome::NonePasses
    } else {
        Outcome::Undecided
    }
}

/// Which cells are no worse than the best as far as their runs show: their ranges of throughput meet.
pub(super) fn as_good(cells: &[Cell], best: usize) -> Vec<usize> {
    let least = cells[best].throughput_low;
    let meets = |cell: &Cell| cell.verdict == CellVerdict::Pass && cell.throughput_high >= least && least.is_some();
    cells.iter().enumerate().filter(|(place, cell)| *place != best && meets(cell)).map(|(place, _)| place).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::{Rate, Throughput, sample};

    fn run(speed: f64, verdict: Verdict) -> Report {
        let throughput = Throughput { rate: Rate::Rows(Some(speed)), valid: true };
        Report { throughput, verdict, reasons: vec!["why".to_owned()], ..sample::passed() }
    }

    fn cell_of(reports: &[Report]) -> Cell {
        cell(vec!["1".to_owned()], reports, 2)
    }

    #[test]
    fn the_best_is_the_fastest_that_passes_with_every_row_there() {
        let mut violated = run(9e9, Verdict::Fail);
        violated.integrity.verdict = IntegrityVerdict::Violated;
        violated.throughput.valid = false;
        let mut unproven = run(8e9, Verdict::Pass);
        unproven.throughput.valid = false;
        let cells = [
            cell_of(&[run(100.0, Verdict::Pass), run(140.0, Verdict::Pass)]),
            cell_of(&[run(9e9, Verdict::Pass), violated]),
            cell_of(&[run(7e9, Verdict::Fail), run(7e9, Verdict::Pass)]),
            cell_of(&[run(9e9, Verdict::Pass)]),
            cell_of(&[unproven, run(9e9, Verdict::Pass)]),
            cell_of(&[run(125.0, Verdict::Pass), run(135.0, Verdict::Pass)]),
            cell_of(&[]),
        ];
        let verdicts = cells.each_ref().map(|cell| cell.verdict);
        use CellVerdict::{Fail, Inconclusive, Missing, Pass, Void};
        assert_eq!(verdicts, [Pass, Void, Fail, Missing, Inconclusive, Pass, Missing]);
        assert_eq!(best(&cells, Objective::Throughput), Some(5));
        assert_eq!(
            (cells[0].throughput_low, cells[0].throughput_per_second, cells[0].throughput_high),
            (Some(100.0), Some(120.0), Some(140.0))
        );
        assert_eq!(as_good(&cells, 5), [0]);
        assert_eq!(best(&cells[1..4], Objective::Throughput), None);
        assert_eq!(outcome(&cells, Some(5)), Outcome::Violated);
        assert_eq!(outcome(&cells[2..4], None), Outcome::Incomplete);
        assert_eq!(outcome(&cells[2..3], None), Outcome::NonePasses);
        assert_eq!(outcome(&cells[4..5], None), Outcome::Undecided);
        assert_eq!(outcome(&cells[..1], Some(0)), Outcome::Found);
    }

    #[test]
    fn at_a_given_rate_the_quickest_answer_is_the_best() {
        let with = |p99: f64| Cell { response_p99_ms: Some(p99), ..cell_of(&[run(100.0, Verdict::Pass), run(100.0, Verdict::Pass)]) };
        assert_eq!(best(&[with(9.0), with(3.0), with(5.0)], Objective::ResponseP99), Some(1));
    }
}
