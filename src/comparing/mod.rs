//! How the two sides of a comparison come about: runs in turns, each in a process of its own, or saved reports; then what
//! [`crate::compare`] makes of them is written down.

pub(crate) mod command;
mod order;
mod process;
pub(crate) mod saved;
mod turns;

use std::path::{Path, PathBuf};

use anyhow::Context as _;

use crate::compare::judge::{Question, compare};
use crate::compare::{Comparison, Finding, Kind, RunSeen, SCHEMA_VERSION, Side, gates};
use crate::gate::Gate;
use crate::report::{IntegrityVerdict, Report, Verdict, html, versus, write_whole};

/// What both sides did, and what is asked of it.
pub(super) struct Done {
    pub(super) kind: Kind,
    pub(super) names: [String; 2],
    pub(super) reports: [Vec<Report>; 2],
    pub(super) order: Vec<usize>,
    pub(super) pairs: usize,
    pub(super) interrupted: bool,
    pub(super) notes: Vec<String>,
    pub(super) started_at: String,
    pub(super) seconds: f64,
}

/// What is asked of a comparison.
pub(super) struct Asked {
    pub(super) gates: Vec<Gate>,
    pub(super) detect: f64,
    pub(super) reproduce: String,
    pub(super) seed: u64,
}

/// Judges what was done.
pub(super) fn judge(id: &str, done: &Done, asked: &Asked) -> Comparison {
    let [before, after] = &done.reports;
    let calibrated = done.kind == Kind::Calibrated;
    let question = Question { gates: &asked.gates, detect: asked.detect, calibrated, seed: asked.seed };
    let mut metrics = compare(before, after, &question);
    let mut results = gates::judge(&asked.gates, &metrics, asked.detect);
    let all = || before.iter().chain(after);
    let void = all().any(|report| report.integrity.verdict == IntegrityVerdict::Violated);
    if void {
        metrics.iter_mut().for_each(|metric| metric.verdict = Finding::Void);
        for gate in &mut results {
            (gate.verdict, gate.message) = (Verdict::Inconclusive, "void: integrity is violated".to_owned());
        }
    }
    let reasons = reasons(done, &results, void);
    let mut verdict = results.iter().map(|gate| gate.verdict).max().unwrap_or(Verdict::Pass);
    if void {
        verdict = Verdict::Fail;
    } else if !reasons.is_empty() {
        verdict = verdict.max(Verdict::Inconclusive);
    }
    let side = |place: usize| Side { name: done.names[place].clone(), runs: done.reports[place].iter().map(seen).collect() };
    Comparison {
        schema_version: SCHEMA_VERSION,
        comparison_id: id.to_owned(),
        kind: done.kind,
        started_at: done.started_at.clone(),
        duration_seconds: done.seconds,
        reproduce: asked.reproduce.clone(),
        environment: all().next().map(|report| report.environment.clone()).unwrap_or_default(),
        pairs: done.pairs,
        order: done.order.iter().map(|side| ["before", "after"][*side].to_owned()).collect(),
        detect: asked.detect,
        verdict,
        void,
        interrupted: done.interrupted,
        reasons,
        notes: notes(done),
        before: side(0),
        after: side(1),
        metrics,
        gates: results,
    }
}

fn seen(report: &Report) -> RunSeen {
    RunSeen { run_id: report.run_id.clone(), verdict: report.verdict, integrity: report.integrity.verdict }
}

/// Why a comparison does not pass.
fn reasons(done: &Done, gates: &[crate::report::GateResult], void: bool) -> Vec<String> {
    let mut reasons: Vec<String> =
        gates.iter().filter(|gate| gate.verdict != Verdict::Pass && !void).map(|gate| format!("{}: {}", gate.gate, gate.message)).collect();
    for (name, reports) in ["before", "after"].into_iter().zip(&done.reports) {
        for report in reports {
            let run = &report.run_id;
            match report.integrity.verdict {
                IntegrityVerdict::Holds => {}
                IntegrityVerdict::Violated => {
                    reasons.push(format!("{name}: integrity is violated in run {run}, so the comparison is void"))
                }
                IntegrityVerdict::Inconclusive => {
                    let why = report.integrity.reason.as_deref().unwrap_or("it was not verified");
                    reasons.push(format!("{name}: run {run} proves nothing ({why}), so it has no throughput"));
                }
            }
        }
    }
    if done.interrupted {
        reasons.push("interrupted before all pairs were run".to_owned());
    }
    reasons
}

fn notes(done: &Done) -> Vec<String> {
    let mut notes = done.notes.clone();
    for (name, reports) in ["before", "after"].into_iter().zip(&done.reports) {
        let missed = reports.iter().filter(|report| report.verdict != Verdict::Pass && !report.interrupted).count();
        if missed > 0 {
            notes.push(format!("{name}: {missed} of {} runs did not pass by the scenario's own gates; see their reports", reports.len()));
        }
    }
    for note in ["too short", "too few", "noisy"] {
        let with: Vec<&String> =
            done.reports.iter().flatten().filter_map(|report| report.notes.iter().find(|found| found.contains(note))).collect();
        if let Some(first) = with.first() {
            notes.push(format!("{} of {} runs say: {first}", with.len(), done.reports.iter().flatten().count()));
        }
    }
    notes
}

/// Writes every format into `folder`.
pub(super) fn write(folder: &Path, comparison: &Comparison, reports: &[Vec<Report>; 2]) -> anyhow::Result<()> {
    let differences = match reports.each_ref().map(|side| side.first()) {
        [Some(before), Some(after)] => saved::differences(before, after),
        _ => Vec::new(),
    };
    let page = html::comparison::text(comparison, reports, &differences);
    let texts = [serde_json::to_string_pretty(comparison)? + "\n", versus::markdown(comparison), page];
    for (name, text) in versus::FILES.into_iter().zip(texts) {
        write_whole(&folder.join(name), &text)?;
    }
    Ok(())
}

/// Makes the folder of a comparison: `<UTC time>-compare-<name>-<four hex digits>`.
pub(super) fn make_folder(report_dir: &Path, name: &str) -> anyhow::Result<(String, PathBuf)> {
    let id = crate::runner::new_id(&format!("compare-{name}"));
    let folder = report_dir.join(&id);
    let made = std::fs::create_dir_all(report_dir).and_then(|()| std::fs::create_dir(&folder));
    made.with_context(|| format!("folder {} cannot be made; name one that can be written with --report-dir", folder.display()))?;
    Ok((id, folder))
}

/// 4 integrity, 130 interrupted, 1 a gate missed, 3 something could not be judged, 0.
pub(super) fn exit_code(comparison: &Comparison) -> u8 {
    match comparison.verdict {
        _ if comparison.void => 4,
        _ if comparison.interrupted => crate::commands::INTERRUPTED,
        Verdict::Fail => 1,
        Verdict::Inconclusive => 3,
        Verdict::Pass => 0,
    }
}

/// Six pairs, the second side so many times as fast.
#[cfg(test)]
pub(crate) fn sample(factor: f64, gates: &[&str]) -> (Comparison, [Vec<Report>; 2]) {
    let done = tests::done(&tests::SPEEDS, &tests::SPEEDS.map(|speed| speed * factor));
    (judge("id", &done, &tests::asked(gates)), done.reports)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::{Rate, Throughput, sample};

    fn run(speed: f64) -> Report {
        Report { throughput: Throughput { rate: Rate::Rows(Some(speed)), valid: true }, ..sample::passed() }
    }

    pub(super) fn done(before: &[f64], after: &[f64]) -> Done {
        Done {
            kind: Kind::Runs,
            names: ["one | side".to_owned(), "<b>other".to_owned()],
            reports: [before.iter().copied().map(run).collect(), after.iter().copied().map(run).collect()],
            order: [0, 1, 1, 0].into_iter().cycle().take(before.len() + after.len()).collect(),
            pairs: before.len(),
            interrupted: false,
            notes: Vec::new(),
            started_at: "2026-03-01T10:15:00Z".to_owned(),
            seconds: 12.0,
        }
    }

    pub(super) fn asked(gates: &[&str]) -> Asked {
        let gates = gates.iter().map(|gate| gate.parse().unwrap()).collect();
        Asked { gates, detect: 0.1, reproduce: "batchsql compare one.yaml other.yaml --seed 42".to_owned(), seed: 42 }
    }

    pub(super) const SPEEDS: [f64; 6] = [1000.0, 1010.0, 990.0, 1005.0, 995.0, 1002.0];

    #[test]
    fn a_comparison_reads_well_and_its_exit_code_follows() {
        let faster = judge("id", &done(&SPEEDS, &SPEEDS.map(|speed| speed * 1.5)), &asked(&["rows_per_second >= before * 1.2"]));
        assert_eq!((exit_code(&faster), faster.verdict), (0, Verdict::Pass));
        let text = versus::terminal(&faster, Path::new("reports/id"), false);
        assert!(text.starts_with("\nbetter: rows_per_second\n"), "{text}");
        assert!(text.contains("no data on either side: ") && !text.contains("\n  wal_bytes "), "{text}");
        let row = text.lines().find(|line| line.starts_with("  rows_per_second")).unwrap();
        let cells: Vec<&str> = row.split("  ").map(str::trim).filter(|cell| !cell.is_empty()).collect();
        assert_eq!(cells, ["rows_per_second", "1,001/s", "1,502/s", "+50 %", "+49 % to +52 %", "better", "±1.6 %"], "{text}");
        let markdown = versus::markdown(&faster);
        assert!(markdown.contains("Before: one \\| side. After: &lt;b>other."), "{markdown}");
        assert!(markdown.contains("| rows_per_second | 1,001/s | 1,502/s | +50 % | +49 % to +52 % | **better** | ±1.6 % |"), "{markdown}");
        assert!(
            markdown.contains("| ✓ | rows_per_second >= before * 1.2 |") || markdown.contains("| ✓ | `rows_per_second >= before * 1.2` |")
        );
        let mut torn = faster.clone();
        let p95 = torn.metrics.iter_mut().find(|metric| metric.metric == "response.p95").unwrap();
        (p95.before.merged, p95.after.merged) = (Some(7.0), Some(12.0));
        p95.change.as_mut().unwrap().estimate = 0.6;
        let said = "response.p95: over all runs together it lies the other way than run by run";
        assert!(versus::terminal(&torn, Path::new("reports/id"), false).contains(said) && !text.contains("the other way"));
        let missed = judge("id", &done(&SPEEDS, &SPEEDS.map(|speed| speed * 0.8)), &asked(&["rows_per_second >= before * 0.95"]));
        assert_eq!(exit_code(&missed), 1);
        let same = judge("id", &done(&SPEEDS, &SPEEDS), &asked(&[]));
        assert_eq!((exit_code(&same), versus::headline(&same).as_str()), (0, "no difference shown"));
    }

    #[test]
    fn what_went_wrong_with_a_run_decides() {
        let mut lost = done(&SPEEDS, &SPEEDS);
        lost.reports[1][2].integrity = sample::violated().integrity;
        let void = judge("id", &lost, &asked(&["rows_per_second >= before"]));
        assert_eq!((exit_code(&void), void.void, versus::headline(&void).split(':').next()), (4, true, Some("void")));
        let mut unproven = done(&SPEEDS, &SPEEDS);
        unproven.reports[0][0].integrity = crate::report::Integrity::inconclusive("verification was switched off".to_owned());
        let found = judge("id", &unproven, &asked(&[]));
        assert_eq!(exit_code(&found), 3);
        assert!(found.reasons[0].contains("proves nothing (verification was switched off)"), "{:?}", found.reasons);
        let stopped = judge("id", &Done { interrupted: true, ..done(&SPEEDS, &SPEEDS) }, &asked(&[]));
        assert_eq!(exit_code(&stopped), 130);
        let nothing = judge("id", &done(&[], &[]), &asked(&[]));
        assert_eq!(versus::headline(&nothing), "no data on either side");
    }

    #[test]
    fn a_file_that_cannot_be_written_is_named() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("comparison.md")).unwrap();
        let comparison = judge("id", &done(&SPEEDS, &SPEEDS), &asked(&[]));
        let error = format!("{:#}", write(folder.path(), &comparison, &Default::default()).unwrap_err());
        assert!(error.contains("comparison.md") && error.contains("free space there"), "{error}");
        let written = std::fs::read_to_string(folder.path().join("comparison.json")).unwrap();
        let read: Comparison = serde_json::from_str(&written).unwrap();
        assert_eq!(serde_json::to_value(read).unwrap(), serde_json::to_value(comparison).unwrap(), "what was written before stays whole");
        let file = folder.path().join("comparison.json");
        assert!(format!("{:#}", make_folder(&file, "x").unwrap_err()).contains("--report-dir"));
    }
}
