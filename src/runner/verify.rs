//! Reading everything back: wait until the run's sessions have ended, stream the key ranges in parallel, and let the verifier judge.
//! Also `batchsql verify RUN`, which does it from the ledger and the scenario kept beside it.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::progress::PhaseProgress;
use super::{Progress, Run};
use crate::ledger;
use crate::redact::HIDDEN;
use crate::report::Integrity;
use crate::report::format::count;
use crate::scenario::Scenario;
use crate::table::Table;
use crate::target::{self, KeyRange, Reader, Target, TargetError};
use crate::verifier::{Expectation, Findings, RangeCheck};
use crate::workload::batch_insert::Generator;

/// The scenario as resolved, kept in the run's folder.
pub const SCENARIO_FILE: &str = "scenario.json";

/// Blocks in flight between a reader and its check.
const BLOCKS: usize = 4;

/// Reads the table back and judges it by the ledger. Whatever keeps it from being read to the end makes the result inconclusive.
pub(crate) async fn verify(
    target: &dyn Target,
    scenario: &Scenario,
    ledger: &Path,
    table: Table,
    generator: Generator,
    progress: &PhaseProgress,
) -> Integrity {
    let began = Instant::now();
    let conflict = scenario.workload.batch_insert.conflict;
    let expectation = match Expectation::read(ledger, table, conflict, generator) {
        Ok(expectation) => Arc::new(expectation),
        Err(error) => return Integrity::inconclusive(error.to_string()),
    };
    let limit = scenario.verify.quiesce_timeout.0;
    match target.quiesce(&expectation.ledger().sessions, limit).await {
        Ok(left) if left.is_empty() => {}
        Ok(left) => {
            let sessions = left.len();
            return Integrity::inconclusive(format!(
                "{sessions} sessions of the run were still open after {limit:?}; raise verify.quiesce_timeout"
            ));
        }
        Err(error) => return Integrity::inconclusive(format!("whether the run's sessions have ended cannot be asked: {error}")),
    }
    let readers = scenario.verify.readers.unwrap_or_else(|| std::thread::available_parallelism().map_or(2, usize::from));
    match read_back(target, &expectation, readers, progress).await {
        Ok(findings) => expectation.conclude(findings, began.elapsed().as_secs_f64()),
        Err(error) => Integrity::inconclusive(error.to_string()),
    }
}

async fn read_back(
    target: &dyn Target,
    expectation: &Arc<Expectation>,
    readers: usize,
    progress: &PhaseProgress,
) -> Result<Findings, TargetError> {
    let reader = target.reader().await?;
    let checked = Arc::new(AtomicU64::new(0));
    let mut ranges = JoinSet::new();
    for (place, range) in expectation.ranges(readers).into_iter().enumerate() {
        let check = check_range(Arc::clone(&reader), Arc::clone(expectation), range, Arc::clone(&checked));
        ranges.spawn(async move { (place, check.await) });
    }
    // In the order of keys, whichever range is through first, so that the examples of a class are those of its least keys.
    let mut findings = BTreeMap::new();
    let mut ticks = tokio::time::interval(Duration::from_millis(200));
    loop {
        tokio::select! {
            done = ranges.join_next() => match done {
                None => return Ok(findings.into_values().fold(Findings::default(), Findings::merge)),
                Some(Ok((place, found))) => drop(findings.insert(place, found?)),
                Some(Err(error)) => return Err(TargetError::Failed(format!("verification failed: {error}"))),
            },
            _ = ticks.tick() => progress.update(|| format!("{} rows read back", count(checked.load(Ordering::Relaxed)))),
        }
    }
}

async fn check_range(
    reader: Arc<dyn Reader>,
    expectation: Arc<Expectation>,
    range: KeyRange,
    checked: Arc<AtomicU64>,
) -> Result<Findings, TargetError> {
    let (sender, mut blocks) = mpsc::channel(BLOCKS);
    let mut check = RangeCheck::new(Arc::clone(&expectation), range);
    // Comparing keeps a core busy: on a thread of its own it runs beside the reading.
    let compare = tokio::task::spawn_blocking(move || {
        while let Some(block) = blocks.blocking_recv() {
            check.block(&block);
            checked.fetch_add(block.rows() as u64, Ordering::Relaxed);
        }
        check
    });
    reader.scan(expectation.table(), range, sender).await?;
    let check = compare.await.map_err(|error| TargetError::Failed(format!("verification failed: {error}")))?;
    Ok(check.finish())
}

/// Waits for the run's sessions, then runs the user's command; what it changes is what the verifier must see.
pub(crate) async fn quiesce_and_hook(run: &Run, command: &str) -> Result<(), String> {
    let limit = run.scenario.verify.quiesce_timeout.0;
    let sessions = ledger::Ledger::read(&run.folder.join(ledger::FILE), |_| {}).map_err(|e| e.to_string())?.sessions;
    run.target.quiesce(&sessions, limit).await.map_err(|e| e.to_string())?;
    let mut shell = tokio::process::Command::new("sh");
    shell.arg("-c").arg(command).env("BATCHSQL_RUN_ID", &run.id).env("BATCHSQL_TABLE", &run.plan.table.name);
    // Standard output is the report's alone.
    let output = shell.stdin(std::process::Stdio::null()).output().await.map_err(|e| format!("--before-verify cannot be run: {e}"))?;
    let said = [output.stdout, output.stderr].concat();
    if !said.is_empty() {
        super::say(crate::redact::redact(&String::from_utf8_lossy(&said), &run.options.secrets).trim_end_matches('\n'));
    }
    if output.status.success() { Ok(()) } else { Err(format!("--before-verify ended with {}", output.status)) }
}

/// Judges a run again from its folder: the ledger, the scenario kept beside it, and what is stored now.
///
/// # Errors
/// When the folder, the ledger or the target cannot be used, or the table belongs to another run by now.
pub async fn verify_run(folder: &Path, database_url: Option<&str>, progress: &Progress) -> anyhow::Result<Integrity> {
    let kept = folder.join(SCENARIO_FILE);
    let text = std::fs::read(&kept).with_context(|| format!("{} cannot be read; name a run's id or its folder", kept.display()))?;
    let mut scenario: Scenario = serde_json::from_slice(&text).with_context(|| format!("{} is damaged", kept.display()))?;
    if let Some(url) = database_url {
        crate::scenario::database_url::apply_database_url(&mut scenario, url).map_err(anyhow::Error::msg)?;
    } else if [&scenario.target.postgres, &scenario.target.mysql].into_iter().flatten().any(|server| server.url.contains(HIDDEN)) {
        bail!("the database's URL carried a password, which is not kept in {}; give the URL again with --database-url", kept.display());
    }
    let path = folder.join(ledger::FILE);
    let run_id = ledger::Ledger::read(&path, |_| {})?.header.run_id;
    let report_dir = folder.parent().unwrap_or(Path::new("."));
    let target = target::connect(&scenario.target, &super::context(&scenario, report_dir, &run_id, false)).await?;
    let table = scenario.workload.batch_insert.table();
    match target.owner(&table.name).await? {
        Some(owner) if owner == run_id => {}
        Some(owner) => bail!("table {:?} belongs to run {owner} by now, so run {run_id} can no longer be verified", table.name),
        None => bail!("table {:?} does not exist or was not made by batchsql; was run {run_id} on another database?", table.name),
    }
    let generator = Generator::new(scenario.seed, &scenario.workload.batch_insert);
    Ok(verify(target.as_ref(), &scenario, &path, table, generator, &progress.phase("verify")).await)
}
