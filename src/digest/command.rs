//! `batchsql report`: which of the two, and where it is written.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use jiff::Timestamp;

use super::{incident, monthly};
use crate::cli::ReportArgs;
use crate::commands;
use crate::comparing::saved;
use crate::history::{default_file, folders, known_or_folders};
use crate::report::{Report, write_whole};
use crate::runner::say;

/// Writes the report that is asked for and names its file.
pub(crate) fn report(args: &ReportArgs) -> u8 {
    let written = match (&args.incident, args.since) {
        (Some(run), _) => write_incident(args, run),
        (None, Some(since)) => write_monthly(args, since),
        (None, None) => Err(anyhow::anyhow!("nothing is asked for; name --since DURATION or --incident RUN")),
    };
    match written {
        Ok(file) => commands::print(&format!("{}\n", file.display())),
        Err(error) => commands::failed(&error, &[]),
    }
}

fn write_monthly(args: &ReportArgs, since: Duration) -> anyhow::Result<PathBuf> {
    let directory = &args.report_dir;
    let shown = directory.display();
    ensure!(directory.is_dir(), "--report-dir {shown}: there is no such folder; name the one that runs were reported to");
    let now = Timestamp::now();
    let from = now.checked_sub(jiff::SignedDuration::try_from(since)?).context("--since: so long ago there is no date; write e.g. 30d")?;
    let history = args.history.clone().unwrap_or_else(|| default_file(directory));
    let known = known_or_folders(directory, &history);
    known.notes.iter().for_each(|note| say(&format!("batchsql: {note}")));
    let text = monthly::text(&monthly::Month {
        entries: &known.entries,
        alerts: super::alerts::between(directory, from, now),
        from,
        to: now,
        baselines: baselines(directory),
    });
    let file = directory.join(format!("monthly-report-{}.md", now.strftime("%Y-%m")));
    write_whole(&file, &text)?;
    Ok(file)
}

/// The scenarios that have a baseline.
fn baselines(report_dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(report_dir.join("baselines")).into_iter().flatten().flatten();
    let reports = entries.filter_map(|entry| folders::read(&entry.path()));
    reports.filter_map(|report| report.scenario["name"].as_str().map(str::to_owned)).collect()
}

fn write_incident(args: &ReportArgs, run: &Path) -> anyhow::Result<PathBuf> {
    let report = read_run(&args.report_dir, run)?;
    let (from, to) = incident::span(&report)?;
    let text = incident::text(&report, &super::alerts::between(&args.report_dir, from, to))?;
    // Two incidents of one minute are told apart by their runs; one that people have filled in is never overwritten.
    let id: String = report.run_id.chars().rev().take(4).collect::<Vec<_>>().into_iter().rev().collect();
    let name = format!("incident-report-{}", from.strftime("%Y%m%d-%H%M"));
    for name in [format!("{name}.md"), format!("{name}-{id}.md")] {
        let file = args.report_dir.join(name);
        match std::fs::read_to_string(&file) {
            Err(_) => {
                write_whole(&file, &text)?;
                return Ok(file);
            }
            Ok(there) => {
                let shown = file.display();
                ensure!(!there.contains(&report.run_id), "{shown} is there already; rename or remove it if it is to be made anew");
            }
        }
    }
    anyhow::bail!("{}: two incidents of that minute are there already; rename them", args.report_dir.display())
}

/// The report of a run: its id, its folder, or the file itself.
pub(crate) fn read_run(report_dir: &Path, run: &Path) -> anyhow::Result<Report> {
    let folder = if run.exists() { run.to_owned() } else { report_dir.join(run) };
    let file = if folder.is_dir() { folder.join("report.json") } else { folder };
    let shown = run.display();
    ensure!(file.is_file(), "{shown}: there is no such run in {}; name its id, or the path of its folder", report_dir.display());
    saved::read(&file)
}

/// What `--since` takes: a time of at least a minute and at most ten years.
pub(crate) fn since(text: &str) -> Result<Duration, String> {
    let time = humantime::parse_duration(text).map_err(|_| "write a time, e.g. 30d".to_owned())?;
    let allowed = Duration::from_mins(1)..=Duration::from_hours(24 * 3660);
    if allowed.contains(&time) { Ok(time) } else { Err("write a time from a minute to ten years, e.g. 30d".to_owned()) }
}
