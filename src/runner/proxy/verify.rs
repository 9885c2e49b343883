//! Everything that says what became of requests, read and held against the ledger: the ledger of replies, the upstream's own ledger
//! and the gateway's log.

use std::collections::HashSet;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::ledger::Outcome;
use crate::ledger::requests::RequestLedger;
use crate::proxy::upstream;
use crate::report::Integrity;
use crate::report::format::count;
use crate::runner::progress::PhaseProgress;
use crate::scenario::Scenario;
use crate::scenario::proxy::{LogDatabase, ProxyRequest};
use crate::target::log::Log;
use crate::verifier::requests::{LogRow, Requests};
use crate::workload::proxy_request::Generator;
use crate::workload::reply;

/// Where it is told what became of a run's requests.
pub(super) struct Evidence<'a> {
    pub(super) ledger: &'a RequestLedger,
    pub(super) upstream_ledger: Option<&'a Path>,
    /// The log of `reconcile`.
    pub(super) log: Option<&'a LogDatabase>,
}

/// Judges a run. Whatever keeps something from being read makes the result inconclusive.
pub(super) async fn verify(
    scenario: &Scenario,
    proxy: &ProxyRequest,
    evidence: &Evidence<'_>,
    load_ended: Instant,
    progress: &PhaseProgress,
) -> Integrity {
    judge(scenario, proxy, evidence, load_ended, progress).await.unwrap_or_else(Integrity::inconclusive)
}

async fn judge(
    scenario: &Scenario,
    proxy: &ProxyRequest,
    evidence: &Evidence<'_>,
    load_ended: Instant,
    progress: &PhaseProgress,
) -> Result<Integrity, String> {
    let began = Instant::now();
    let ledger = evidence.ledger;
    let generator = Generator::new(scenario.seed, &ledger.header.run_id, proxy);
    let limit = scenario.verify.quiesce_timeout.0;
    let upstream = match evidence.upstream_ledger {
        Some(path) => Some(upstream_ids(path, ledger, &generator, proxy, limit, progress).await?),
        None => None,
    };
    let (log, lag) = log_rows(scenario, evidence, &generator, proxy, load_ended, progress).await?.unzip();
    let mut requests = Requests::new(ledger, &generator, proxy);
    requests.replies();
    if let Some(ids) = upstream {
        requests.upstream(ids.into_iter());
    }
    if let Some(rows) = log {
        requests.log(rows.into_iter(), scenario.verify.allow_lost.map(|allowed| allowed.within.0));
    }
    let mut integrity = requests.conclude(began.elapsed().as_secs_f64());
    integrity.log_lag_seconds = lag.map(|lag| lag.as_secs_f64());
    Ok(integrity)
}

/// Operations that were acknowledged and for which `test` holds: what must be found. Numbers alone do not tell whether it is there, for
/// requests that failed may be found too.
fn acknowledged(ledger: &RequestLedger, generator: &Generator, test: impl Fn(usize) -> bool) -> Vec<u64> {
    let acknowledged = ledger.answers.iter().filter(|answer| answer.outcome == Some(Outcome::Acknowledged));
    acknowledged.map(|answer| answer.index).filter(|index| test(generator.operation(*index).route)).collect()
}

/// Whether each operation of `must` is among `ids`.
fn all_there<'a>(must: &[u64], ids: impl Iterator<Item = &'a str>, generator: &Generator) -> bool {
    let there: HashSet<u64> = ids.filter_map(|id| generator.index_of(reply::find_id(id)?)).collect();
    must.iter().all(|index| there.contains(index))
}

/// The ids that reached the upstream. It writes a record when a request has ended, which the client may see a moment earlier.
async fn upstream_ids(
    path: &Path,
    ledger: &RequestLedger,
    generator: &Generator,
    proxy: &ProxyRequest,
    limit: Duration,
    progress: &PhaseProgress,
) -> Result<Vec<String>, String> {
    let must = acknowledged(ledger, generator, |route| proxy.mix[route].chat.is_some());
    let began = Instant::now();
    loop {
        let records = upstream::ledger::read(path).map_err(|error| format!("{error:#}"))?;
        let mut ids = Vec::new();
        for record in records {
            let record = record.map_err(|error| format!("{error:#}"))?;
            if record.id.starts_with(&generator.ids()) {
                ids.push(record.id);
            }
        }
        if all_there(&must, ids.iter().map(String::as_str), generator) || began.elapsed() >= limit.min(SETTLED) {
            return Ok(ids);
        }
        progress
            .update(|| format!("{} requests in the upstream's ledger; {} are awaited", count(ids.len() as u64), count(must.len() as u64)));
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// A record of the upstream that is not there after this long will not come: it is written before the reply's end is sent.
const SETTLED: Duration = Duration::from_secs(5);

/// The log's rows once all that must be there are, or once waiting has come to its end; and how long after the load the last came.
async fn log_rows(
    scenario: &Scenario,
    evidence: &Evidence<'_>,
    generator: &Generator,
    proxy: &ProxyRequest,
    load_ended: Instant,
    progress: &PhaseProgress,
) -> Result<Option<(Vec<LogRow>, Duration)>, String> {
    let (Some(reconcile), Some(database)) = (&scenario.reconcile, evidence.log) else { return Ok(None) };
    let query = reconcile.query.replace("{{ids}}", &generator.ids());
    let mut log = Log::open(database, &query, &scenario.target).await.map_err(|error| error.to_string())?;
    let must = acknowledged(evidence.ledger, generator, |route| proxy.mix[route].is_logged());
    let began = Instant::now();
    let mut pause = Duration::from_millis(20);
    let (mut found, mut grown, mut read) = (None, Instant::now(), None);
    loop {
        let now = log.count().await.map_err(|error| error.to_string())?;
        if found < Some(now) {
            (found, grown) = (Some(now), Instant::now());
        }
        let over = began.elapsed() >= reconcile.wait.0;
        // Whether a full log is the right one takes reading it, once for each time that it has grown.
        if over || (now >= must.len() as u64 && read < found) {
            let rows = log.rows(&reconcile.columns).await.map_err(|error| error.to_string())?;
            if over || all_there(&must, rows.iter().map(|row| row.id.as_str()), generator) {
                return Ok(Some((rows, grown.saturating_duration_since(load_ended))));
            }
            read = found;
        }
        progress.update(|| format!("{} rows in the gateway's log; {} are awaited", count(now), count(must.len() as u64)));
        tokio::time::sleep(pause.min(reconcile.wait.0.saturating_sub(began.elapsed()))).await;
        pause = (pause * 2).min(Duration::from_millis(500));
    }
}
