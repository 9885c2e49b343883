//! One run from a scenario to its report: connect, load, drain, verify, judge.

mod judge;
mod load;
mod monitor;
mod observe;
mod progress;
pub mod verify;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use tokio_util::sync::CancellationToken;

use crate::ledger::{self, LedgerWriter};
use crate::metrics::{PrometheusMetrics, PrometheusMetricsReporter};
use crate::pipeline::observer::Observer;
use crate::pipeline::{Pipeline, default_concurrency};
use crate::recorder::Recorder;
use crate::report::{Integrity, Report};
use crate::scenario::{Scenario, VerifyMethod};
use crate::schedule::Schedule;
use crate::target::{self, Target, WritePlan};
use crate::workload::batch_insert::Generator;
use monitor::Monitor;
use observe::Watch;
pub use progress::Progress;
pub(crate) use progress::say;

/// How a run is carried out: what the command line adds to a scenario.
#[derive(Clone)]
pub struct Options {
    /// Where `<run-id>/` is made.
    pub report_dir: PathBuf,
    /// Serves the metrics of all runs of this call, if wanted.
    pub metrics: Option<PrometheusMetrics>,
    /// A shell command between drain and verify.
    pub before_verify: Option<String>,
    /// Leaves verification out; the run is inconclusive.
    pub no_verify: bool,
    /// The command that repeats the run.
    pub reproduce: String,
    /// What must not be shown.
    pub secrets: Vec<String>,
    /// Where progress goes.
    pub progress: Progress,
    /// Ends the load when cancelled; what was submitted is drained, verified and reported.
    pub stop: CancellationToken,
    /// Notes from before the run.
    pub notes: Vec<String>,
}

/// A run between its parts.
pub(crate) struct Run {
    pub(crate) id: String,
    pub(crate) folder: PathBuf,
    pub(crate) scenario: Scenario,
    pub(crate) options: Options,
    pub(crate) target: Arc<dyn Target>,
    pub(crate) plan: WritePlan,
    pub(crate) epoch: Instant,
    pub(crate) started_at: String,
    pub(crate) recorder: Arc<Recorder>,
    pub(crate) watch: Arc<Watch>,
    pub(crate) reporter: Option<PrometheusMetricsReporter>,
    pub(crate) schedule: Schedule,
    /// Ends the load of this run alone.
    pub(crate) stop: CancellationToken,
}

/// When the phases of a run ended, from its first intended start, and what ended them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Phases {
    pub(crate) load: load::Offered,
    pub(crate) load_end: Duration,
    pub(crate) drain_end: Duration,
    pub(crate) verify_end: Duration,
}

/// Runs `scenario` and writes its report.
///
/// # Errors
/// When the run could not begin: folder, target, table or metrics port. Whatever goes wrong later is in the report.
pub async fn run(scenario: Scenario, options: Options) -> anyhow::Result<Report> {
    let began = Instant::now();
    let run = begin(scenario, options).await?;
    let pipeline = start_pipeline(&run)?;
    let monitor = Monitor::start(&run, &pipeline);
    let offered = load::offer(&run, &pipeline).await;
    let load_end = run.epoch.elapsed();
    monitor.drain();
    let pipeline = Arc::into_inner(pipeline).expect("the load has ended and holds no pipeline");
    pipeline.close().await;
    let drain_end = run.epoch.elapsed();
    run.watch.close();
    let watched = monitor.finish().await;
    let integrity = prove(&run).await;
    let phases = Phases { load: offered, load_end, drain_end, verify_end: run.epoch.elapsed() };
    let report = judge::report(&run, &phases, watched, integrity, began.elapsed());
    if let Some(reporter) = &run.reporter {
        reporter.run_finished(report.verdict, began.elapsed());
    }
    crate::report::write_all(&run.folder, &report)
        .with_context(|| format!("the report cannot be written into {}", run.folder.display()))?;
    Ok(report)
}

/// Makes the run's folder, connects and creates the table: everything that can refuse a run before it has begun.
async fn begin(scenario: Scenario, options: Options) -> anyhow::Result<Run> {
    let id = run_id(&scenario);
    let folder = make_folder(&options.report_dir, &id)?;
    match connect(&scenario, &options, &id).await {
        Ok((target, plan)) => set_up(id, folder, scenario, options, target, plan),
        Err(error) => {
            // A run that never began leaves nothing behind.
            let _ = std::fs::remove_dir(&folder);
            Err(error)
        }
    }
}

async fn connect(scenario: &Scenario, options: &Options, id: &str) -> anyhow::Result<(Arc<dyn Target>, WritePlan)> {
    let workload = &scenario.workload.batch_insert;
    let target = target::connect(&scenario.target, &context(scenario, &options.report_dir, id, true)).await?;
    let plan = WritePlan { table: workload.table(), conflict: workload.conflict, method: workload.method };
    let plan = target.resolve(plan, workload.pipeline.flush_size)?;
    target.create(&plan.table, id).await?;
    Ok((target, plan))
}

pub(crate) fn context<'a>(scenario: &'a Scenario, report_dir: &'a Path, run_id: &'a str, create: bool) -> target::Context<'a> {
    let concurrency = scenario.workload.batch_insert.pipeline.concurrency;
    target::Context { run_id, scenario_name: &scenario.name, report_dir, concurrency, create }
}

fn set_up(
    id: String,
    folder: PathBuf,
    scenario: Scenario,
    options: Options,
    target: Arc<dyn Target>,
    plan: WritePlan,
) -> anyhow::Result<Run> {
    let kept = serde_json::to_vec_pretty(&crate::redact::redacted_scenario(&scenario, &options.secrets))?;
    std::fs::write(folder.join(verify::SCENARIO_FILE), kept).with_context(|| format!("{} cannot be written", folder.display()))?;
    let header = ledger::Header { version: ledger::VERSION, run_id: id.clone(), seed: scenario.seed };
    let ledger = LedgerWriter::create(&folder.join(ledger::FILE), &header)
        .with_context(|| format!("the ledger in {} cannot be written; name another --report-dir", folder.display()))?;
    let concurrency = scenario.workload.batch_insert.pipeline.concurrency.unwrap_or_else(|| default_concurrency(target.database()));
    let windows = scenario.gates.iter().filter_map(|gate| gate.window).collect();
    let reporter = options.metrics.as_ref().map(|metrics| reporter(metrics, &scenario, target.as_ref(), concurrency));
    let epoch = Instant::now();
    // One recorder a batch in flight, and one for the load generator.
    let recorder = Arc::new(Recorder::new(epoch, scenario.load.warmup.0, windows, concurrency + 1));
    let watch = Arc::new(Watch::new(Arc::clone(&recorder), ledger, scenario.load.max_in_flight, reporter.clone()));
    let schedule = Schedule::new(&scenario.load);
    let started_at = jiff::Timestamp::now().to_string();
    let stop = options.stop.child_token();
    Ok(Run { id, folder, scenario, options, target, plan, epoch, started_at, recorder, watch, reporter, schedule, stop })
}

fn reporter(metrics: &PrometheusMetrics, scenario: &Scenario, target: &dyn Target, concurrency: usize) -> PrometheusMetricsReporter {
    let pipeline = &scenario.workload.batch_insert.pipeline;
    let sizes = crate::metrics::Pipeline { buffer_size: pipeline.buffer_size, flush_size: pipeline.flush_size, concurrency };
    let reporter = PrometheusMetricsReporter::new(metrics, target.database().as_str(), &scenario.name, sizes);
    reporter.target(target.info());
    reporter.expect_table(&scenario.workload.batch_insert.table);
    reporter
}

fn start_pipeline(run: &Run) -> anyhow::Result<Arc<Pipeline>> {
    let mut observers: Vec<Arc<dyn Observer>> = vec![Arc::<Watch>::clone(&run.watch)];
    if let Some(reporter) = &run.reporter {
        observers.push(Arc::new(reporter.clone()));
    }
    let pipeline = Pipeline::builder(Arc::clone(&run.target))
        .table(run.plan.clone())
        .config(run.scenario.workload.batch_insert.pipeline.clone())
        .seed(run.scenario.seed)
        .with_metrics_reporter(Arc::new(observers))
        .start()?;
    Ok(Arc::new(pipeline))
}

/// Runs `--before-verify`, waits for the run's sessions to end, and reads everything back.
async fn prove(run: &Run) -> Integrity {
    let progress = run.options.progress.phase("verify");
    if let Some(command) = &run.options.before_verify
        && let Err(reason) = verify::quiesce_and_hook(run, command).await
    {
        return Integrity::inconclusive(reason);
    }
    if run.options.no_verify || run.scenario.verify.method == VerifyMethod::Off {
        return Integrity::inconclusive("verification was switched off, so nothing is proven".to_owned());
    }
    if let Some(reason) = run.watch.ledger_failure() {
        return Integrity::inconclusive(format!("the ledger could not be written: {reason}"));
    }
    if let Ok(Some(owner)) = run.target.owner(&run.plan.table.name).await
        && owner != run.id
    {
        let table = &run.plan.table.name;
        return Integrity::inconclusive(format!(
            "run {owner} took table {table:?} over; let runs at the same time write to tables of their own"
        ));
    }
    let generator = Generator::new(run.scenario.seed, &run.scenario.workload.batch_insert);
    let ledger = run.folder.join(ledger::FILE);
    let integrity = verify::verify(run.target.as_ref(), &run.scenario, &ledger, run.plan.table.clone(), generator, &progress).await;
    if let Some(reporter) = &run.reporter {
        reporter.verified(&integrity);
    }
    integrity
}

fn make_folder(report_dir: &Path, id: &str) -> anyhow::Result<PathBuf> {
    let folder = report_dir.join(id);
    let make = std::fs::create_dir_all(report_dir).and_then(|()| std::fs::create_dir(&folder));
    make.with_context(|| format!("report folder {} cannot be made; name one that can be written with --report-dir", folder.display()))?;
    Ok(folder)
}

/// `<UTC time>-<scenario>-<four hex digits>`: sorts by time, says what it was, and differs between runs of one second.
fn run_id(scenario: &Scenario) -> String {
    let now = jiff::Timestamp::now();
    let slug: String =
        scenario.name.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '_' }).take(40).collect();
    // Clock bits and process id, not the seed: two runs of one scenario must not share a folder.
    let mixed = (now.as_nanosecond() as u64 ^ u64::from(std::process::id()).rotate_left(40)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    format!("{}-{slug}-{:04x}", now.strftime("%Y%m%d-%H%M%S"), mixed >> 48)
}
