//! `batchsql sweep`: from what was typed to cells, the runs that are still missing, and what they show.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context as _, bail, ensure};
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use tokio_util::sync::CancellationToken;

use super::matrix::{self, Axis};
use super::{CellVerdict, FILES, Objective, Outcome, SCHEMA_VERSION, Sweep, Varied, judge};
use crate::cli::SweepArgs;
use crate::commands::{self, Loaded};
use crate::redact::{redact, redacted_scenario};
use crate::report::{Report, html, matrix as words, write_whole};
use crate::steps::{self, Steps};

/// Runs in a row that could not begin: then the target is gone, and the others would only wait for it.
const MOST_FAILURES: usize = 3;

/// Sweeps, and says what was found.
pub(crate) async fn sweep(args: SweepArgs) -> u8 {
    let mut secrets = Vec::new();
    match swept(&args, &mut secrets).await {
        Ok((sweep, error)) => {
            let shown = show(&args, &sweep);
            let failed = error.map_or(0, |error| commands::failed(&error, &secrets));
            commands::gravest(&[exit_code(sweep.outcome), failed, shown])
        }
        Err(error) => commands::failed(&error, &secrets),
    }
}

/// The matrix, checked: each cell with what makes it and what its reports must say they ran.
struct Matrix {
    axes: Vec<Axis>,
    sets: Vec<Vec<String>>,
    cells: Vec<Vec<usize>>,
    /// As reports keep it, secrets redacted.
    resolved: Vec<Value>,
}

/// The sweep, and why it is not whole if it is not.
async fn swept(args: &SweepArgs, secrets: &mut Vec<String>) -> anyhow::Result<(Sweep, Option<anyhow::Error>)> {
    let began = Instant::now();
    let started_at = jiff::Timestamp::now().to_string();
    let file = steps::only("sweep", &args.scenarios)?;
    let matrix = matrix(args, file, secrets)?;
    let Loaded { scenario, .. } = commands::load_scenario(&args.scenarios, &matrix.sets[0], file)?;
    let (sweep_id, folder) = folder(args, &scenario.name, &matrix)?;
    let _lock = lock(&folder)?;
    let stop = CancellationToken::new();
    tokio::spawn(commands::watch_signals(stop.clone()));
    let progress = commands::progress(args.quiet || args.json);
    let steps = Steps { scenarios: &args.scenarios, file, folder: &folder, progress, stop };
    let mut notes = Vec::new();
    let mut reports = finished(&folder, &matrix, &mut notes)?;
    let kept_runs = reports.iter().map(Vec::len).sum();
    let error = run(&matrix, &steps, args.repeat, scenario.seed, &mut reports).await.err();
    let last = reports.iter().flatten().max_by(|one, other| one.started_at.cmp(&other.started_at));
    let objective = if scenario.load.executor.is_open() { Objective::ResponseP99 } else { Objective::Throughput };
    let hidden = |text: &String| redact(text, secrets);
    let values = |cell: &[usize]| matrix.axes.iter().zip(cell).map(|(axis, value)| hidden(&axis.values[*value])).collect();
    let cells: Vec<_> = matrix.cells.iter().zip(&reports).map(|(cell, reports)| judge::cell(values(cell), reports, args.repeat)).collect();
    let best = judge::best(&cells, objective);
    let interrupted = steps.stop.is_cancelled() && cells.iter().any(|cell| cell.verdict == CellVerdict::Missing);
    let mut sweep = Sweep {
        schema_version: SCHEMA_VERSION,
        sweep_id,
        scenario: scenario.name.clone(),
        unit: scenario.workload.unit().to_owned(),
        seed: scenario.seed,
        started_at,
        duration_seconds: began.elapsed().as_secs_f64(),
        reproduce: commands::reproduce("sweep", &[file.display().to_string()], scenario.seed, secrets),
        environment: last.map(|report| report.environment.clone()).unwrap_or_default(),
        vary: matrix.axes.iter().map(|axis| Varied { key: axis.key.clone(), values: axis.values.iter().map(hidden).collect() }).collect(),
        repeat: args.repeat,
        objective,
        outcome: match judge::outcome(&cells, best) {
            Outcome::Violated => Outcome::Violated,
            _ if interrupted => Outcome::Interrupted,
            outcome => outcome,
        },
        best,
        cells,
        kept_runs,
        reasons: Vec::new(),
        notes,
    };
    sweep.reasons = reasons(&sweep);
    sweep.notes.extend(about(&sweep, &reports));
    write(&folder, &sweep)?;
    Ok((sweep, error))
}

fn matrix(args: &SweepArgs, file: &Path, secrets: &mut Vec<String>) -> anyhow::Result<Matrix> {
    let axes: Vec<Axis> = args.vary.iter().map(|text| matrix::axis(text)).collect::<anyhow::Result<_>>()?;
    let cells = matrix::cells(&axes)?;
    let sets: Vec<_> = cells.iter().map(|cell| matrix::set(&axes, cell)).collect();
    let (mut plain, mut resolved) = (Vec::new(), Vec::new());
    for set in &sets {
        let loaded = commands::load_scenario(&args.scenarios, set, file).with_context(|| format!("the cell {}", set.join(", ")))?;
        plain.push(serde_json::to_value(&loaded.scenario)?);
        resolved.push(as_read(&redacted_scenario(&loaded.scenario, &loaded.secrets))?);
        secrets.extend(loaded.secrets);
    }
    secrets.sort();
    secrets.dedup();
    matrix::differ(&axes, &cells, &plain)?;
    // Runs are told apart by what their reports say they ran.
    let hidden = (1..resolved.len()).find(|place| resolved[..*place].contains(&resolved[*place]));
    ensure!(hidden.is_none(), "--vary: the values differ in what is a secret, and reports do not show it; vary something else");
    Ok(Matrix { axes, sets, cells, resolved })
}

/// As it is once it was written and read: numbers may lose their last digit.
fn as_read(value: &Value) -> anyhow::Result<Value> {
    Ok(serde_json::from_str(&value.to_string())?)
}

/// The same for the same scenario and the same values, so that the same command finds what is there.
fn folder(args: &SweepArgs, name: &str, matrix: &Matrix) -> anyhow::Result<(String, PathBuf)> {
    let digest = Sha256::digest(serde_json::to_vec(&matrix.resolved)?);
    let slug: String = name.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '_' }).take(40).collect();
    let hash: String = digest.iter().take(4).map(|byte| format!("{byte:02x}")).collect();
    let id = format!("sweep-{slug}-{hash}");
    let folder = args.report_dir.join(&id);
    std::fs::create_dir_all(&folder)
        .with_context(|| format!("folder {} cannot be made; name one that can be written with --report-dir", folder.display()))?;
    Ok((id, folder))
}

/// Nobody else works in the folder as long as this is kept.
fn lock(folder: &Path) -> anyhow::Result<File> {
    let path = folder.join("lock");
    let file =
        File::create(&path).with_context(|| format!("{} cannot be written; name another folder with --report-dir", path.display()))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(std::fs::TryLockError::WouldBlock) => bail!("the same sweep is at work in {}; wait for it, or end it", folder.display()),
        Err(std::fs::TryLockError::Error(error)) => Err(error).with_context(|| format!("{} cannot be locked", path.display())),
    }
}

/// The runs that are there already, by the cell they ran.
fn finished(folder: &Path, matrix: &Matrix, notes: &mut Vec<String>) -> anyhow::Result<Vec<Vec<Report>>> {
    let mut reports: Vec<Vec<Report>> = matrix.cells.iter().map(|_| Vec::new()).collect();
    let entries = std::fs::read_dir(folder).with_context(|| format!("{} cannot be read", folder.display()))?;
    let mut files: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path().join("report.json"))).collect();
    files.sort();
    for file in files {
        let Ok(text) = std::fs::read_to_string(&file) else { continue };
        match serde_json::from_str::<Report>(&text) {
            Ok(report) if report.interrupted => {}
            Ok(report) => match cell_of(&report, matrix) {
                Some(cell) => reports[cell].push(report),
                None => notes.push(format!("{} is of no cell of this sweep and was left out", file.display())),
            },
            Err(error) => notes.push(format!("{} is no whole report ({error}); its cell is run again", file.display())),
        }
    }
    Ok(reports)
}

fn cell_of(report: &Report, matrix: &Matrix) -> Option<usize> {
    let ran = as_read(&report.scenario).ok()?;
    matrix.resolved.iter().position(|resolved| *resolved == ran)
}

/// Runs what is missing.
async fn run(matrix: &Matrix, steps: &Steps<'_>, repeat: u32, seed: u64, reports: &mut [Vec<Report>]) -> anyhow::Result<()> {
    let missing = |reports: &[Vec<Report>]| -> usize { reports.iter().map(|runs| (repeat as usize).saturating_sub(runs.len())).sum() };
    let all = matrix.cells.len() * repeat as usize;
    let (wanted, mut done, mut in_a_row) = (missing(reports), 0, 0);
    steps.tell(&format!("sweep: {} cells, {wanted} of {all} runs are to be made", matrix.cells.len()));
    let began = Instant::now();
    let mut failed = None;
    for round in 0..repeat {
        for cell in matrix::order(matrix.cells.len(), round, seed) {
            if reports[cell].len() > round as usize {
                continue;
            }
            if steps.stop.is_cancelled() {
                return failed.map_or(Ok(()), Err);
            }
            let set = &matrix.sets[cell];
            let loaded = steps.load(set)?;
            let left = began.elapsed().mul_f64((wanted - done) as f64 / done.max(1) as f64);
            let left = if done == 0 { String::new() } else { format!(", about {} s left", left.as_secs()) };
            steps.tell(&format!("sweep: run {} of {wanted}{left}: {}", done + 1, redact(&set.join(", "), &loaded.secrets)));
            match steps.run(loaded, set).await {
                Ok(report) if report.interrupted => {}
                Ok(report) => {
                    ensure!(cell_of(&report, matrix) == Some(cell), "run {} did not run what its cell says", report.run_id);
                    reports[cell].push(report);
                    in_a_row = 0;
                }
                Err(error) => {
                    in_a_row += 1;
                    let error = error.context(format!("the cell {} could not run", set.join(", ")));
                    if in_a_row == MOST_FAILURES {
                        return Err(error.context(format!("{MOST_FAILURES} runs in a row could not begin, so the others were left out")));
                    }
                    failed = Some(error);
                }
            }
            done += 1;
        }
    }
    steps.forget_databases();
    failed.map_or(Ok(()), Err)
}

fn reasons(sweep: &Sweep) -> Vec<String> {
    let of = |verdict: CellVerdict| sweep.cells.iter().filter(|cell| cell.verdict == verdict).count();
    let all = sweep.cells.len();
    let reason = match sweep.outcome {
        Outcome::Found => return Vec::new(),
        Outcome::NonePasses => "no cell passes its gates".to_owned(),
        Outcome::Undecided => "no cell could be judged".to_owned(),
        Outcome::Incomplete => format!("{} of {all} cells could not run", of(CellVerdict::Missing)),
        Outcome::Violated => format!("integrity is violated in {} of {all} cells; they have no speed", of(CellVerdict::Void)),
        Outcome::Interrupted => {
            format!("interrupted; {} of {all} cells are missing, and the same command goes on", of(CellVerdict::Missing))
        }
    };
    vec![reason]
}

/// What should be known beside the numbers.
fn about(sweep: &Sweep, reports: &[Vec<Report>]) -> Vec<String> {
    let mut notes = Vec::new();
    let all = || reports.iter().flatten();
    if sweep.kept_runs > 0 {
        notes.push(format!("{} runs were there already and were taken as they are; remove the folder to run all anew", sweep.kept_runs));
    }
    let place = |report: &Report| {
        let e = report.environment.clone();
        (e.batchsql_version, e.git_commit, e.cpu, e.cores, e.kernel, e.target.name, e.target.version)
    };
    if let Some(first) = all().next()
        && all().any(|report| place(report) != place(first))
    {
        notes.push("the runs were not all made under the same circumstances (machine, commit or version): see their reports".to_owned());
    }
    if let (Some(best), 2.., Objective::Throughput) = (sweep.best, sweep.repeat, sweep.objective) {
        let others = judge::as_good(&sweep.cells, best);
        if !others.is_empty() {
            let names: Vec<String> = others.iter().map(|place| sweep.cells[*place].values.join(" ")).collect();
            notes.push(format!("not told apart from the best by these runs: {}; `compare` them", names.join(", ")));
        }
    } else if sweep.repeat == 1 && sweep.best.is_some() {
        notes.push("one run a cell: small differences may be noise; --repeat, or `compare` the best two".to_owned());
    }
    notes
}

/// Writes every format into `folder`.
fn write(folder: &Path, sweep: &Sweep) -> anyhow::Result<()> {
    let texts = [serde_json::to_string_pretty(sweep)? + "\n", words::markdown(sweep), html::matrix::text(sweep)];
    for (name, text) in FILES.into_iter().zip(texts) {
        write_whole(&folder.join(name), &text)?;
    }
    Ok(())
}

fn show(args: &SweepArgs, sweep: &Sweep) -> u8 {
    match (args.json, args.quiet) {
        (true, _) => commands::print_json(sweep),
        (false, true) => 0,
        (false, false) => commands::print(&words::terminal(sweep, &args.report_dir.join(&sweep.sweep_id), commands::color())),
    }
}

fn exit_code(outcome: Outcome) -> u8 {
    match outcome {
        Outcome::Found => 0,
        Outcome::NonePasses => 1,
        Outcome::Incomplete => commands::COULD_NOT_RUN,
        Outcome::Undecided => 3,
        Outcome::Violated => 4,
        Outcome::Interrupted => commands::INTERRUPTED,
    }
}
