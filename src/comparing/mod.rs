//! How the two sides of a comparison come about: runs in turns, each in a process of its own, or saved reports; then what
//! [`crate::compare`] makes of them is written down.

pub(crate) mod command;
mod order;
mod process;
mod saved;
mod turns;

use std::path::{Path, PathBuf};

use anyhow::Context as _;

use crate::compare::judge::{Question, compare};
use crate::compare::{Comparison, Finding, Kind, RunSeen, SCHEMA_VERSION, Side, gates};
use crate::gate::Gate;
use crate::report::{IntegrityVerdict, Report, Verdict, versus, write_whole};

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
pub(super) fn judge(id: &str, done: Done, asked: &Asked) -> Comparison {
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
    let reasons = reasons(&done, &results, void);
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
        notes: notes(&done),
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
pub(super) fn write(folder: &Path, comparison: &Comparison) -> anyhow::Result<()> {
    let texts = [serde_json::to_string_pretty(comparison)? + "\n", versus::markdown(comparison)];
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
