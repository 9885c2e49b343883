//! Batch inserts: rows through the pipeline into a table, and read back.

mod digest;
mod load;
mod observe;
mod verify;

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, bail};
use async_trait::async_trait;

use super::{Drive, Offered, Options, Progress, Run};
use crate::fault::Marks;
use crate::ledger::{self, LedgerWriter};
use crate::metrics::{PrometheusMetrics, PrometheusMetricsReporter};
use crate::pipeline::observer::Observer;
use crate::pipeline::{Pipeline, default_concurrency};
use crate::report::{Integrity, TargetSeen, TargetUse};
use crate::scenario::{BatchInsert, Scenario, TargetConfig};
use crate::target::{self, Counters, Database, PoolUse, Target, WritePlan};
use crate::telemetry::trace::RunTrace;
use observe::Watch;

struct Batch {
    insert: BatchInsert,
    target: Arc<dyn Target>,
    plan: WritePlan,
    watch: Arc<Watch>,
    /// Until it is drained.
    pipeline: Option<Arc<Pipeline>>,
    /// What the target had written before the load, and what it had when all was drained.
    written: [Counters; 2],
}

/// Connects to `reached`, makes the table and starts the pipeline.
pub(super) async fn begin(
    id: &str,
    folder: &Path,
    scenario: Scenario,
    reached: &TargetConfig,
    options: Options,
) -> anyhow::Result<(Run, Box<dyn Drive>)> {
    let insert = scenario.workload.batch_insert().context("the workload is batch inserts")?.clone();
    let target = target::connect(reached, &context(&scenario, &insert, &options.report_dir, id, true)).await?;
    let plan = WritePlan { table: insert.table(), conflict: insert.conflict, method: insert.method };
    let plan = target.resolve(plan, insert.pipeline.flush_size)?;
    target.create(&plan.table, id).await?;
    let concurrency = insert.pipeline.concurrency.unwrap_or_else(|| default_concurrency(target.database()));
    let reporter = options.metrics.as_ref().map(|metrics| reporter(metrics, &scenario.name, &insert, target.as_ref(), concurrency));
    // One recorder a batch in flight, and one for the load generator.
    let run = Run::new(id, folder, scenario, options, concurrency + 1, reporter)?;
    let header = ledger::Header { version: ledger::VERSION, run_id: run.id.clone(), seed: run.scenario.seed };
    let ledger = LedgerWriter::create(&folder.join(ledger::FILE), &header)
        .with_context(|| format!("the ledger in {} cannot be written; name another --report-dir", folder.display()))?;
    let watch = Arc::new(Watch::new(&run, ledger));
    let pipeline = Some(Arc::new(start_pipeline(&run, &insert, &target, &plan, &watch)?));
    let written = [target.written().await, Counters::default()];
    Ok((run, Box::new(Batch { insert, target, plan, watch, pipeline, written })))
}

fn context<'a>(scenario: &'a Scenario, insert: &BatchInsert, report_dir: &'a Path, run_id: &'a str, create: bool) -> target::Context<'a> {
    target::Context { run_id, scenario_name: &scenario.name, report_dir, concurrency: insert.pipeline.concurrency, create }
}

fn reporter(
    metrics: &PrometheusMetrics,
    name: &str,
    insert: &BatchInsert,
    target: &dyn Target,
    concurrency: usize,
) -> PrometheusMetricsReporter {
    let pipeline = &insert.pipeline;
    let sizes = crate::metrics::Pipeline { buffer_size: pipeline.buffer_size, flush_size: pipeline.flush_size, concurrency };
    let reporter = PrometheusMetricsReporter::new(metrics, target.database().as_str(), name, sizes);
    reporter.target(target.info());
    reporter.expect_table(&insert.table);
    reporter
}

fn start_pipeline(
    run: &Run,
    insert: &BatchInsert,
    target: &Arc<dyn Target>,
    plan: &WritePlan,
    watch: &Arc<Watch>,
) -> anyhow::Result<Pipeline> {
    let mut observers: Vec<Arc<dyn Observer>> = vec![Arc::<Watch>::clone(watch)];
    if let Some(reporter) = &run.reporter {
        observers.push(Arc::new(reporter.clone()));
    }
    if let Some(trace) = &run.trace {
        observers.push(Arc::<RunTrace>::clone(trace));
    }
    let pipeline = Pipeline::builder(Arc::clone(target))
        .table(plan.clone())
        .config(insert.pipeline.clone())
        .seed(run.scenario.seed)
        .with_metrics_reporter(Arc::new(observers))
        .start()?;
    Ok(pipeline)
}

#[async_trait]
impl Drive for Batch {
    fn gauges(&self) -> Arc<dyn super::Gauges> {
        let pipeline = self.pipeline.as_ref().expect("gauges are asked for before the drain").gauges();
        Arc::new(Gauges { pipeline, target: Arc::clone(&self.target) })
    }

    fn marks(&self) -> Option<Arc<dyn Marks>> {
        Some(Arc::<Watch>::clone(&self.watch))
    }

    async fn offer(&mut self, run: &Run) -> Offered {
        let pipeline = self.pipeline.as_ref().expect("the load is offered before the drain");
        load::offer(run, &self.insert, &self.watch, pipeline).await
    }

    async fn drain(&mut self, _: &Run) {
        if let Some(pipeline) = self.pipeline.take() {
            Arc::into_inner(pipeline).expect("the load has ended and holds no pipeline").close().await;
        }
        self.watch.close();
        self.written[1] = self.target.written().await;
    }

    async fn before_verify(&mut self, run: &Run, command: &str) -> Result<(), String> {
        let limit = run.scenario.verify.quiesce_timeout.0;
        let sessions = ledger::Ledger::read(&run.folder.join(ledger::FILE), |_| {}).map_err(|e| e.to_string())?.sessions;
        self.target.quiesce(&sessions, limit).await.map_err(|e| e.to_string())?;
        super::verify::hook(run, command, Some(&self.plan.table.name)).await
    }

    async fn prove(&mut self, run: &Run) -> Integrity {
        if let Ok(Some(owner)) = self.target.owner(&self.plan.table.name).await
            && owner != run.id
        {
            let table = &self.plan.table.name;
            return Integrity::inconclusive(format!(
                "run {owner} took table {table:?} over; let runs at the same time write to tables of their own"
            ));
        }
        let ledger = run.folder.join(ledger::FILE);
        match verify::expectation(&run.scenario, &self.insert, &ledger) {
            Ok(expectation) => {
                verify::verify(self.target.as_ref(), &run.scenario, expectation, &run.options.progress.phase("verify")).await
            }
            Err(error) => Integrity::inconclusive(error.to_string()),
        }
    }

    fn used(&self) -> Option<TargetUse> {
        let [before, after] = self.written;
        let added = after.since(&before);
        // The log of SQLite is a file whose size counts, the server's a place that is reached.
        let wal_bytes = if self.target.database() == Database::Sqlite { after.wal_bytes } else { added.wal_bytes };
        Some(TargetUse { database_writes: added.transactions, wal_bytes, ..TargetUse::default() })
    }

    fn seen(&self) -> TargetSeen {
        let info = self.target.info();
        TargetSeen {
            name: info.name.clone(),
            version: info.version.clone(),
            database: self.target.database().as_str().to_owned(),
            settings: info.settings.iter().cloned().collect(),
            method: format!("{:?}", self.plan.method).to_lowercase(),
            container: None,
        }
    }
}

struct Gauges {
    pipeline: crate::pipeline::Gauges,
    target: Arc<dyn Target>,
}

impl super::Gauges for Gauges {
    fn queue_length(&self) -> usize {
        self.pipeline.queue_length()
    }

    fn in_flight(&self) -> usize {
        self.pipeline.in_flight()
    }

    fn pool(&self) -> PoolUse {
        self.target.pool()
    }
}

/// Judges a run again by what is stored now.
pub(super) async fn verify_again(
    scenario: &Scenario,
    insert: &BatchInsert,
    ledger: &Path,
    run_id: &str,
    report_dir: &Path,
    progress: &Progress,
) -> anyhow::Result<Integrity> {
    target::allow::check(&scenario.target).await?;
    let target = target::connect(&scenario.target, &context(scenario, insert, report_dir, run_id, false)).await?;
    match target.owner(&insert.table).await? {
        Some(owner) if owner == run_id => {}
        Some(owner) => bail!("table {:?} belongs to run {owner} by now, so run {run_id} can no longer be verified", insert.table),
        None => bail!("table {:?} does not exist or was not made by batchsql; was run {run_id} on another database?", insert.table),
    }
    let expectation = verify::expectation(scenario, insert, ledger)?;
    Ok(verify::verify(target.as_ref(), scenario, expectation, &progress.phase("verify")).await)
}
