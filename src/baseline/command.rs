//! `batchsql baseline`: save, list, show and check.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::Context as _;
use serde::Serialize;

use super::judge::{Deviation, deviations, gates};
use super::{Baseline, all, save};
use crate::cli::{BaselineAction, BaselineArgs};
use crate::commands;
use crate::digest::command::read_run;
use crate::gate::Gate;
use crate::history::folders;
use crate::history::show::value;
use crate::report::format::{NONE, plain};
use crate::report::{GateResult, IntegrityVerdict, Report, Verdict, console};

/// Does what is asked for.
pub(crate) fn baseline(args: &BaselineArgs) -> u8 {
    let done = match &args.action {
        BaselineAction::Save { name, from, report_dir } => keep(report_dir, name, from.as_deref()),
        BaselineAction::List { report_dir, json } => Ok(list(report_dir, *json)),
        BaselineAction::Show { name, report_dir, json } => show(report_dir, name, *json),
        BaselineAction::Check { name, run, report_dir, json } => check(report_dir, name, run, *json),
    };
    done.unwrap_or_else(|error| commands::failed(&error, &[]))
}

fn keep(report_dir: &Path, name: &str, from: Option<&Path>) -> anyhow::Result<u8> {
    let report = match from {
        Some(run) => read_run(report_dir, run)?,
        None => newest(report_dir)?,
    };
    let file = save(report_dir, name, &report)?;
    Ok(commands::print(&format!(
        "{} keeps run {}; commit it, and hold runs against it with --baseline {name}\n",
        file.display(),
        report.run_id
    )))
}

/// The newest run that has a report.
fn newest(report_dir: &Path) -> anyhow::Result<Report> {
    let file = folders::newest(report_dir)
        .with_context(|| format!("no run has a report in {}; make one with batchsql run, or name one with --from", report_dir.display()))?;
    crate::comparing::saved::read(&file)
}

#[derive(Serialize)]
struct Listed<'a> {
    name: &'a str,
    scenario: &'a str,
    run_id: &'a str,
    started_at: &'a str,
    batchsql_version: &'a str,
    git_commit: Option<&'a str>,
}

fn list(report_dir: &Path, json: bool) -> u8 {
    let baselines = all(report_dir);
    let listed: Vec<Listed<'_>> = baselines
        .iter()
        .map(|Baseline { name, report }| Listed {
            name,
            scenario: report.scenario["name"].as_str().unwrap_or_default(),
            run_id: &report.run_id,
            started_at: &report.started_at,
            batchsql_version: &report.environment.batchsql_version,
            git_commit: report.environment.git_commit.as_deref(),
        })
        .collect();
    if json {
        return commands::print_json(&listed);
    }
    if listed.is_empty() {
        return commands::print(&format!("no baselines in {}; keep one with batchsql baseline save NAME\n", report_dir.display()));
    }
    let mut text = format!("{:24}  {:24}  {:10}  run\n", "baseline", "scenario", "from");
    for one in listed {
        let day: String = one.started_at.chars().take(10).collect();
        let _ = writeln!(text, "{:24}  {:24}  {day:10}  {}", one.name, plain(one.scenario), plain(one.run_id));
    }
    commands::print(&text)
}

fn show(report_dir: &Path, name: &str, json: bool) -> anyhow::Result<u8> {
    let baseline = Baseline::read(report_dir, name)?;
    if json {
        return Ok(commands::print_json(&baseline.report));
    }
    let folder = report_dir.join(&baseline.report.run_id);
    Ok(commands::print(&(console::summary(&baseline.report, &folder, commands::color()) + "\n")))
}

#[derive(Serialize)]
struct Checked {
    baseline: String,
    run_id: String,
    verdict: Verdict,
    deviations: Vec<Deviation>,
    gates: Vec<GateResult>,
}

fn check(report_dir: &Path, name: &str, run: &Path, json: bool) -> anyhow::Result<u8> {
    let baseline = Baseline::read(report_dir, name)?;
    let report = read_run(report_dir, run)?;
    baseline.refuse(&baseline.differences(&report))?;
    let wanted: Vec<Gate> = match report.scenario.get("gates") {
        Some(gates) => serde_json::from_value(gates.clone()).with_context(|| format!("the gates of {} cannot be read", report.run_id))?,
        None => Vec::new(),
    };
    let gates = gates(&wanted, &baseline, &report);
    let verdict = gates.iter().map(|gate| gate.verdict).max().unwrap_or(Verdict::Pass);
    let checked = Checked {
        baseline: baseline.name.clone(),
        run_id: report.run_id.clone(),
        verdict,
        deviations: deviations(&baseline.report, &report),
        gates,
    };
    let shown = if json { commands::print_json(&checked) } else { commands::print(&words(&checked)) };
    let code = match (report.integrity.verdict, verdict) {
        (IntegrityVerdict::Violated, _) => 4,
        (_, Verdict::Fail) => 1,
        (_, Verdict::Inconclusive) => 3,
        (_, Verdict::Pass) => 0,
    };
    Ok(commands::gravest(&[code, shown]))
}

fn words(checked: &Checked) -> String {
    let mut text = format!("{} beside the baseline {}\n", plain(&checked.run_id), checked.baseline);
    let _ = writeln!(text, "  {:20}  {:>12}  {:>12}  {:>9}", "figure", "baseline", "run", "deviation");
    for Deviation { figure, baseline, current, deviation_percent } in &checked.deviations {
        let percent = deviation_percent.map_or(NONE.to_owned(), |percent| format!("{percent:+.1} %"));
        let _ = writeln!(text, "  {figure:20}  {:>12}  {:>12}  {percent:>9}", value(figure, *baseline), value(figure, *current));
    }
    for gate in &checked.gates {
        let mark = match gate.verdict {
            Verdict::Pass => "✓",
            Verdict::Fail => "✗",
            Verdict::Inconclusive => "?",
        };
        let _ = writeln!(text, "  {mark} {}: {}", plain(&gate.gate), plain(&gate.message));
    }
    if checked.gates.is_empty() {
        text += "  no gate of the scenario speaks of a baseline; write e.g. response.p99 < baseline * 1.10\n";
    }
    text
}
