//! Reading everything back: wait until the run's sessions have ended, stream the key ranges in parallel, and let the verifier judge;
//! or, by method `digest`, only what the database does not sum up as expected.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::digest::Digesting;
use crate::ledger::LedgerError;
use crate::report::Integrity;
use crate::report::format::count;
use crate::runner::progress::PhaseProgress;
use crate::scenario::{BatchInsert, Scenario, VerifyMethod};
use crate::target::{KeyRange, Reader, Target, TargetError};
use crate::verifier::{Expectation, Findings, RangeCheck};
use crate::workload::batch_insert::Generator;

/// Blocks in flight between a reader and its check.
const BLOCKS: usize = 4;

/// What must be stored, by the ledger.
///
/// # Errors
/// When the ledger cannot be read or is damaged.
pub(crate) fn expectation(scenario: &Scenario, insert: &BatchInsert, ledger: &Path) -> Result<Expectation, LedgerError> {
    Expectation::read(ledger, insert.table(), insert.conflict, Generator::new(scenario.seed, insert))
}

/// Reads the table back and judges it by the ledger. Whatever keeps it from being read to the end makes the result inconclusive.
pub(crate) async fn verify(target: &dyn Target, scenario: &Scenario, expectation: Expectation, progress: &PhaseProgress) -> Integrity {
    let began = Instant::now();
    let expectation = Arc::new(expectation);
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
    let digests = scenario.verify.method == VerifyMethod::Digest;
    match check(target, &expectation, readers, digests, progress).await {
        Ok(findings) => {
            let read_back = findings.read_back();
            let integrity = expectation.conclude(findings, began.elapsed().as_secs_f64());
            if digests { Integrity { method: "digest".to_owned(), read_back: Some(read_back), ..integrity } } else { integrity }
        }
        Err(error) => Integrity::inconclusive(error.to_string()),
    }
}

/// Checks everything, and says meanwhile how far it has come.
async fn check(
    target: &dyn Target,
    expectation: &Arc<Expectation>,
    readers: usize,
    digests: bool,
    progress: &PhaseProgress,
) -> Result<Findings, TargetError> {
    let reader = target.reader().await?;
    let checked = Arc::new(AtomicU64::new(0));
    let checking = async {
        if digests {
            Digesting::new(reader, expectation, Arc::clone(&checked)).all(readers).await
        } else {
            read_back(reader, expectation, readers, &checked).await
        }
    };
    tokio::pin!(checking);
    let mut ticks = tokio::time::interval(Duration::from_millis(200));
    loop {
        tokio::select! {
            findings = &mut checking => return findings,
            _ = ticks.tick() => progress.update(|| format!("{} rows checked", count(checked.load(Ordering::Relaxed)))),
        }
    }
}

async fn read_back(
    reader: Arc<dyn Reader>,
    expectation: &Arc<Expectation>,
    readers: usize,
    checked: &Arc<AtomicU64>,
) -> Result<Findings, TargetError> {
    let mut ranges = JoinSet::new();
    for (place, range) in expectation.ranges(readers).into_iter().enumerate() {
        let check = check_range(Arc::clone(&reader), Arc::clone(expectation), range, Arc::clone(checked));
        ranges.spawn(async move { (place, check.await) });
    }
    // In the order of keys, whichever range is through first, so that the examples of a class are those of its least keys.
    let mut findings = BTreeMap::new();
    while let Some(done) = ranges.join_next().await {
        let (place, found) = done.map_err(|error| TargetError::Failed(format!("verification failed: {error}")))?;
        findings.insert(place, found?);
    }
    Ok(findings.into_values().fold(Findings::default(), Findings::merge))
}

/// Reads one range in full.
pub(super) async fn check_range(
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
