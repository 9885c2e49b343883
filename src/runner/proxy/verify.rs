//! Everything that says what became of requests, read and held against the ledger: the ledger of replies, the upstream's own ledger
//! and the gateway's log.

use std::collections::HashSet;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::ledger::requests::RequestLedger;
use crate::ledger::{self, Outcome};
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
    pub(super) folder: &'a Path,
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
    match judge(scenario, proxy, evidence, load_ended, progress).await {
        Ok(integrity) => integrity,
        Err(reason) => Integrity::inconclusive(reason),
    }
}

async fn judge(
    scenario: &Scenario,
    proxy: &ProxyRequest,
    evidence: &Evidence<'_>,
    load_ended: Instant,
    progress: &PhaseProgress,
) -> Result<Integrity, String> {
    let began = Instant::now();
    let ledger = RequestLedger::read(&evidence.folder.join(ledger::FILE)).map_err(|error| error.to_string())?;
    let generator = Generator::new(scenario.seed, &ledger.header.run_id, proxy);
    let limit = scenario.verify.quiesce_timeout.0;
    let upstream = match evidence.upstream_ledger {
        Some(path) => Some(upstream_ids(path, &ledger, &generator, proxy, limit, progress).await?),
        None => None,
    };
    let (log, lag) = match (evidence.log, &scenario.reconcile) {
        (Some(_), Some(_)) => {
            let (rows, lag) = log_rows(scenario, evidence, &ledger, &generator, proxy, load_ended, progress).await?;
            (Some(rows), Some(lag))
        }
        _ => (None, None),
    };
    let mut requests = Requests::new(&ledger, &generator, proxy);
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

/// The acknowledged operations on routes for which `test` holds.
fn acknowledged(ledger: &RequestLedger, generator: &Generator, test: impl Fn(usize) -> bool) -> Vec<u64> {
    let acknowledged = ledger.answers.iter().filter(|answer| answer.outcome == Some(Outcome::Acknowledged));
    acknowledged.map(|answer| answer.index).filter(|index| test(generator.operation(*index).route)).collect()
}

/// Whether `ids` has each of the operations that it `must` have. Counting is not enough: what failed, or came twice, counts too.
fn has_all<'a>(ids: impl Iterator<Item = &'a str>, must: &[u64], generator: &Generator) -> bool {
    let seen: HashSet<u64> = ids.filter_map(|id| generator.index_of(reply::find_id(id)?)).collect();
    must.iter().all(|index| seen.contains(index))
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
        if began.elapsed() >= limit.min(SETTLED) || has_all(ids.iter().map(String::as_str), &must, generator) {
            return Ok(ids);
        }
        progress.update(|| format!("{} of {} requests in the upstream's ledger", count(ids.len() as u64), count(must.len() as u64)));
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// A record of the upstream that is not there after this long will not come: it is written before the reply's end is sent.
const SETTLED: Duration = Duration::from_secs(5);

/// The log's rows once there are as many as there must be, or once waiting has come to its end; and how long after the load that was.
async fn log_rows(
    scenario: &Scenario,
    evidence: &Evidence<'_>,
    ledger: &RequestLedger,
    generator: &Generator,
    proxy: &ProxyRequest,
    load_ended: Instant,
    progress: &PhaseProgress,
) -> Result<(Vec<LogRow>, Duration), String> {
    let (Some(reconcile), Some(database)) = (&scenario.reconcile, evidence.log) else { return Ok((Vec::new(), Duration::ZERO)) };
    let query = reconcile.query.replace("{{ids}}", &generator.ids());
    let mut log = Log::open(database, &query, scenario.target.insecure_tls).await.map_err(|error| error.to_string())?;
    let must = acknowledged(ledger, generator, |route| proxy.mix[route].is_logged());
    let began = Instant::now();
    let mut pause = Duration::from_millis(20);
    let (mut found, mut grown) = (None, Instant::now());
    loop {
        let now = log.count().await.map_err(|error| error.to_string())?;
        let late = began.elapsed() >= reconcile.wait.0;
        let grows = found.replace(now) != Some(now);
        if grows {
            grown = Instant::now();
        }
        if late || (grows && now >= must.len() as u64) {
            let rows = log.rows(&reconcile.columns).await.map_err(|error| error.to_string())?;
            if late || has_all(rows.iter().map(|row| row.id.as_str()), &must, generator) {
                return Ok((rows, grown.saturating_duration_since(load_ended)));
            }
        }
        progress.update(|| format!("{} of {} rows in the gateway's log", count(now), count(must.len() as u64)));
        tokio::time::sleep(pause.min(reconcile.wait.0.saturating_sub(began.elapsed()))).await;
        pause = (pause * 2).min(Duration::from_millis(500));
    }
}
