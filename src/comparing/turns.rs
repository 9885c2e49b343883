//! The runs of a comparison, side by side in turns, each from fresh state.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Instant;

use tokio_util::sync::CancellationToken;

use super::{Done, order, process};
use crate::compare::Kind;
use crate::report::{IntegrityVerdict, Report};
use crate::runner::{Progress, say};

/// One side: how its runs are called.
#[derive(Clone, Debug)]
pub(super) struct SidePlan {
    pub(super) name: String,
    pub(super) file: PathBuf,
    /// What follows `batchsql run`, but for the file and the report folder.
    pub(super) arguments: Vec<OsString>,
}

/// All runs.
pub(super) struct Plan {
    pub(super) kind: Kind,
    pub(super) sides: [SidePlan; 2],
    pub(super) pairs: usize,
    pub(super) seed: u64,
}

/// Why the runs ended before all was done.
pub(super) struct Failed {
    pub(super) error: anyhow::Error,
    /// What there was by then.
    pub(super) done: Done,
}

/// Runs all pairs. A run that violates integrity ends them: the comparison is void, and its database stays as it is.
pub(super) async fn run(plan: &Plan, folder: &Path, progress: &Progress, stop: &CancellationToken) -> Result<Done, Box<Failed>> {
    let began = Instant::now();
    let started_at = jiff::Timestamp::now().to_string();
    let order = order::order(plan.pairs, plan.seed);
    let mut reports: [Vec<Report>; 2] = Default::default();
    let mut ran = Vec::new();
    let mut failed = None;
    for (number, side) in order.iter().copied().enumerate() {
        if stop.is_cancelled() {
            break;
        }
        tell(progress, plan, number, side, began);
        let report = match one(&plan.sides[side], folder, stop).await {
            Ok(report) => report,
            Err(error) => {
                let name = ["before", "after"][side];
                failed = Some(error.context(format!("side {name} ({}) could not run", plan.sides[side].name)));
                break;
            }
        };
        // Half a load is no measurement.
        if report.interrupted {
            break;
        }
        let violated = report.integrity.verdict == IntegrityVerdict::Violated;
        ran.push(side);
        reports[side].push(report);
        if violated {
            break;
        }
    }
    let void = reports.iter().flatten().any(|report| report.integrity.verdict == IntegrityVerdict::Violated);
    if !void {
        forget_databases(folder);
    }
    let done = Done {
        kind: plan.kind,
        names: [0, 1].map(|side| plan.sides[side].name.clone()),
        reports,
        order: ran,
        pairs: plan.pairs,
        interrupted: stop.is_cancelled(),
        notes: Vec::new(),
        started_at,
        seconds: began.elapsed().as_secs_f64(),
    };
    match failed {
        Some(error) => Err(Box::new(Failed { error, done })),
        None => Ok(done),
    }
}

/// Which pair, which side, how long still.
fn tell(progress: &Progress, plan: &Plan, number: usize, side: usize, began: Instant) {
    if matches!(progress, Progress::Off) {
        return;
    }
    let all = plan.pairs * 2;
    let left = if number == 0 {
        "the first tells how long".to_owned()
    } else {
        let left = began.elapsed().mul_f64((all - number) as f64 / number as f64);
        format!("about {} left", humantime::format_duration(std::time::Duration::from_secs(left.as_secs())))
    };
    let name = ["before", "after"][side];
    say(&format!("pair {} of {}: {name} ({}), run {} of {all}, {left}", number / 2 + 1, plan.pairs, plan.sides[side].name, number + 1));
}

async fn one(side: &SidePlan, folder: &Path, stop: &CancellationToken) -> anyhow::Result<Report> {
    forget_databases(folder);
    // The runs of a comparison are runs like all others.
    let history = crate::history::default_file(folder.parent().unwrap_or(folder));
    let mut arguments = vec!["--report-dir".into(), folder.as_os_str().to_owned(), "--history".into(), history.into_os_string()];
    arguments.extend(side.arguments.iter().cloned());
    // A file whose name looks like a flag is still a file.
    arguments.extend(["--".into(), side.file.as_os_str().to_owned()]);
    process::run(&arguments, stop).await
}

/// Removes the SQLite files that runs made in the comparison's own folder, so that the next begins without one.
fn forget_databases(folder: &Path) {
    let _ = std::fs::remove_dir_all(folder.join("data"));
}
