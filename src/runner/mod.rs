//! One run from a scenario to its report: connect, load, drain, verify, judge.

mod batch;
mod guard;
mod judge;
mod monitor;
mod progress;
mod proxy;
mod stage;
mod tally;
pub mod verify;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use async_trait::async_trait;
use tokio_util::sync::CancellationToken;

use crate::baseline::{self, Baseline};
use crate::container::{self, Container};
use crate::environment;
use crate::fault::{Book, Faults, Marks, Scene};
use crate::metrics::{PrometheusMetrics, PrometheusMetricsReporter};
use crate::recorder::Recorder;
use crate::report::{Calibration, HttpReport, Integrity, IntegrityVerdict, Report, Resources, TargetSeen, TargetUse};
use crate::scenario::{Scenario, TargetConfig, VerifyMethod, Workload};
use crate::schedule::Schedule;
use crate::target::{PoolUse, allow};
use crate::telemetry::exports::Exports;
pub(crate) use crate::telemetry::log::say;
use crate::telemetry::trace::RunTrace;
use monitor::Monitor;
pub use progress::Progress;
use stage::Stage;

/// How a run is carried out: what the command line adds to a scenario.
#[derive(Clone)]
pub struct Options {
    /// Where `<run-id>/` is made.
    pub report_dir: PathBuf,
    /// Serves the metrics of all runs of this call, if wanted.
    pub metrics: Option<PrometheusMetrics>,
    /// Pushes these metrics and the traces of all runs of this call, if wanted.
    pub exports: Option<Exports>,
    /// A shell command between drain and verify.
    pub before_verify: Option<String>,
    /// Leaves verification out; the run is inconclusive.
    pub no_verify: bool,
    /// Leaves the target's container running.
    pub keep_containers: bool,
    /// What the run is held against.
    pub(crate) baseline: Option<Arc<Baseline>>,
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

/// A run between its parts: what every workload shares.
pub(crate) struct Run {
    pub(crate) id: String,
    pub(crate) folder: PathBuf,
    pub(crate) scenario: Scenario,
    pub(crate) options: Options,
    pub(crate) epoch: Instant,
    pub(crate) started_at: String,
    pub(crate) recorder: Arc<Recorder>,
    pub(crate) tally: Arc<tally::Tally>,
    /// What the scenario's faults did.
    pub(crate) faults: Arc<Book>,
    pub(crate) reporter: Option<PrometheusMetricsReporter>,
    /// The spans of this run, if they are pushed.
    pub(crate) trace: Option<Arc<RunTrace>>,
    pub(crate) schedule: Schedule,
    /// The container the target is in, if it was started for the run.
    pub(crate) container: Option<container::Facts>,
    pub(crate) stage: Arc<Stage>,
    /// Ends the load of this run alone.
    pub(crate) stop: CancellationToken,
    /// Whether the guard holds the load.
    pub(crate) hold: Arc<guard::Hold>,
    /// What the machine could do just before.
    pub(crate) calibration: Calibration,
}

/// What is done to a target, once it is connected: one file a workload.
#[async_trait]
pub(crate) trait Drive: Send {
    /// What the monitor may look at while the load goes on.
    fn gauges(&self) -> Arc<dyn Gauges>;

    /// Where marks of faults are written, if the workload's ledger has them.
    fn marks(&self) -> Option<Arc<dyn Marks>> {
        None
    }

    /// Offers the load until the schedule, the number of operations or a stop ends it.
    async fn offer(&mut self, run: &Run) -> Offered;

    /// Waits until everything that was offered has an outcome.
    async fn drain(&mut self, run: &Run);

    /// Runs `--before-verify` with what the workload tells it of the run.
    async fn before_verify(&mut self, run: &Run, command: &str) -> Result<(), String>;

    /// Holds what is stored against what was acknowledged.
    async fn prove(&mut self, run: &Run) -> Integrity;

    /// Whether the target can no longer be had, now that everything was verified.
    async fn gone(&mut self, integrity: &Integrity) -> bool {
        integrity.verdict == IntegrityVerdict::Inconclusive
    }

    /// What was driven.
    fn seen(&self) -> TargetSeen;

    /// What only requests have.
    fn http(&self) -> Option<HttpReport> {
        None
    }

    /// What the load cost the target, once it has ended.
    fn used(&self) -> Option<TargetUse> {
        None
    }

    /// Ends what was started for the run.
    async fn end(&mut self) {}
}

/// How busy a run is now.
pub(crate) trait Gauges: Send + Sync {
    /// Operations that wait.
    fn queue_length(&self) -> usize;
    /// Batches, or requests, that are sent and not answered.
    fn in_flight(&self) -> usize;
    /// Connections.
    fn pool(&self) -> PoolUse;
}

/// What was offered, seen from the generator.
#[derive(Clone, Debug, Default)]
pub(crate) struct Offered {
    /// Operations due.
    pub(crate) operations: u64,
    /// The last intended start.
    pub(crate) last_due: Duration,
    /// When the last operation was really handed over.
    pub(crate) last_started: Duration,
    /// Whether the whole schedule was offered (not cut by rows, a stop or saturation).
    pub(crate) whole_schedule: bool,
    /// Why the load stopped before its time, if the scenario asked for that.
    pub(crate) aborted: Option<String>,
}

impl Offered {
    /// Adds what another part of the generator offered.
    fn merge(&mut self, other: Offered) {
        self.operations += other.operations;
        self.last_due = self.last_due.max(other.last_due);
        self.last_started = self.last_started.max(other.last_started);
        self.whole_schedule &= other.whole_schedule;
        self.aborted = self.aborted.take().or(other.aborted);
    }
}

/// When the phases of a run ended, from its first intended start, and what ended them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Phases {
    pub(crate) load: Offered,
    pub(crate) load_end: Duration,
    pub(crate) drain_end: Duration,
    pub(crate) verify_end: Duration,
    /// Whether the target went away during the load.
    pub(crate) target_gone: bool,
    /// CPU time of the load and its drain, and the greatest resident set until then.
    pub(crate) used: Resources,
}

/// Runs `scenario` and writes its report; a container for it is started before and removed after everything else.
///
/// # Errors
/// When the run could not begin: folder, container, target, table or metrics port. Whatever goes wrong later is in the report.
pub async fn run(scenario: Scenario, mut options: Options) -> anyhow::Result<Report> {
    let id = run_id(&scenario);
    let container = container::start(&id, &scenario, &mut options).await?;
    let report = run_on(&id, scenario, options, container.as_ref()).await;
    if let Some(container) = container {
        container.end().await;
    }
    report
}

async fn run_on(id: &str, scenario: Scenario, options: Options, container: Option<&Container>) -> anyhow::Result<Report> {
    let began = Instant::now();
    let (run, mut drive, faults) = begin(id, scenario, options, container).await?;
    if let Some(baseline) = &run.options.baseline
        && let Err(error) = baseline.refuse(&baseline.refusal_of_target(&drive.seen()))
    {
        drive.end().await;
        let _ = std::fs::remove_dir_all(&run.folder);
        return Err(error);
    }
    run.stage.enter(if run.scenario.load.warmup.0.is_zero() { "main" } else { "warmup" });
    let before = environment::resources();
    let monitor = Monitor::start(&run, drive.gauges());
    let mut timeline = faults.start(run.epoch, Arc::clone(&run.faults), drive.marks(), run.reporter.clone());
    let offered = drive.offer(&run).await;
    let load_end = run.epoch.elapsed();
    timeline.end().await;
    monitor.drain();
    run.stage.enter("drain");
    drive.drain(&run).await;
    let drain_end = run.epoch.elapsed();
    let after = environment::resources();
    let used = Resources { cpu_seconds: after.cpu_seconds - before.cpu_seconds, ..after };
    let watched = monitor.finish().await;
    run.stage.enter("verify");
    let integrity = prove(&run, drive.as_mut()).await;
    let target_gone = judge::lost_connections(&run.tally.errors()) && drive.gone(&integrity).await;
    drive.end().await;
    let phases = Phases { load: offered, load_end, drain_end, verify_end: run.epoch.elapsed(), target_gone, used };
    run.stage.end();
    let mut report = judge::report(&run, drive.as_ref(), &phases, watched, integrity, began.elapsed());
    if let Some(baseline) = &run.options.baseline {
        report = baseline::judge::judged(&run.scenario.gates, baseline, report);
    }
    if let Some(reporter) = &run.reporter {
        reporter.run_finished(report.verdict, began.elapsed());
    }
    if let Some(trace) = &run.trace {
        trace.finish([phases.load_end, phases.drain_end, phases.verify_end], report.verdict);
    }
    crate::report::write_all(&run.folder, &report)
        .with_context(|| format!("the report cannot be written into {}", run.folder.display()))?;
    stage::tell_verdict(&report);
    Ok(report)
}

/// Makes the run's folder, connects and prepares the target: everything that can refuse a run before it has begun.
async fn begin(
    id: &str,
    scenario: Scenario,
    options: Options,
    container: Option<&Container>,
) -> anyhow::Result<(Run, Box<dyn Drive>, Faults)> {
    let folder = make_folder(&options.report_dir, id)?;
    let target = container.map_or_else(|| scenario.target.clone(), |container| container.target().clone());
    stage::tell_start(id, &scenario, &options.secrets);
    match connect(id, &folder, scenario, target, options, container.map(Container::facts)).await {
        Ok((run, drive, faults)) => Ok((Run { container: container.map(Container::facts), ..run }, drive, faults)),
        Err(error) => {
            // A run that never began leaves nothing behind, not even what a server started for it had written.
            let _ = std::fs::remove_dir_all(&folder);
            Err(error)
        }
    }
}

/// Makes the faults ready and connects to what they leave of the target: the one place that branches on the workload.
async fn connect(
    id: &str,
    folder: &Path,
    scenario: Scenario,
    target: TargetConfig,
    options: Options,
    container: Option<container::Facts>,
) -> anyhow::Result<(Run, Box<dyn Drive>, Faults)> {
    // The target itself: what a fault puts in front of it is on loopback.
    allow::check(&target).await?;
    let mut reached = target.clone();
    let scene = Scene {
        run_id: id,
        scenario: &scenario,
        report_dir: &options.report_dir,
        target: &target,
        container: container.as_ref(),
        secrets: &options.secrets,
    };
    let faults = Faults::prepare(&scene, &mut reached).await?;
    let (run, drive) = match &scenario.workload {
        Workload::BatchInsert(_) => batch::begin(id, folder, scenario, &reached, options).await?,
        Workload::ProxyRequest(_) => proxy::begin(id, folder, scenario, &reached, options, &faults).await?,
    };
    Ok((run, drive, faults))
}

impl Run {
    /// A run that begins now. `workers`: recorders beside each other.
    fn new(
        id: &str,
        folder: &Path,
        scenario: Scenario,
        options: Options,
        workers: usize,
        reporter: Option<PrometheusMetricsReporter>,
    ) -> anyhow::Result<Self> {
        let kept = serde_json::to_vec_pretty(&crate::redact::redacted_scenario(&scenario, &options.secrets))?;
        std::fs::write(folder.join(verify::SCENARIO_FILE), kept).with_context(|| format!("{} cannot be written", folder.display()))?;
        let calibration = environment::calibrate(folder);
        let windows = scenario.gates.iter().filter_map(|gate| gate.window).collect();
        let epoch = Instant::now();
        Ok(Self {
            id: id.to_owned(),
            folder: folder.to_owned(),
            recorder: Arc::new(
                Recorder::new(epoch, scenario.load.warmup.0, windows, workers)
                    .keeping_recent(scenario.guard.as_ref().map(|guard| guard.window.0)),
            ),
            tally: Arc::default(),
            faults: Arc::new(Book::new(epoch, &scenario.faults)),
            trace: options.exports.as_ref().and_then(|exports| exports.trace(id, &scenario, epoch)),
            schedule: Schedule::new(&scenario.load),
            container: None,
            started_at: jiff::Timestamp::now().to_string(),
            stage: Arc::new(Stage::new(reporter.clone(), options.exports.clone())),
            stop: options.stop.child_token(),
            hold: Arc::default(),
            calibration,
            epoch,
            scenario,
            options,
            reporter,
        })
    }
}

/// Runs `--before-verify` and holds what is stored against the ledger.
async fn prove(run: &Run, drive: &mut dyn Drive) -> Integrity {
    if let Some(command) = &run.options.before_verify
        && let Err(reason) = drive.before_verify(run, command).await
    {
        return Integrity::inconclusive(reason);
    }
    if run.options.no_verify || run.scenario.verify.method == VerifyMethod::Off {
        return Integrity::inconclusive("verification was switched off, so nothing is proven".to_owned());
    }
    if let Some(reason) = run.tally.ledger_failure() {
        return Integrity::inconclusive(format!("the ledger could not be written: {reason}"));
    }
    let integrity = drive.prove(run).await;
    if let Some(reporter) = &run.reporter {
        reporter.verified(&integrity);
    }
    integrity
}

/// Makes the folder of something that has an id.
pub(crate) fn make_folder(report_dir: &Path, id: &str) -> anyhow::Result<PathBuf> {
    let folder = report_dir.join(id);
    let make = std::fs::create_dir_all(report_dir).and_then(|()| std::fs::create_dir(&folder));
    make.with_context(|| format!("report folder {} cannot be made; name one that can be written with --report-dir", folder.display()))?;
    Ok(folder)
}

/// `<UTC time>-<scenario>-<four hex digits>`: sorts by time, says what it was, and differs between runs of one second.
fn run_id(scenario: &Scenario) -> String {
    new_id(&scenario.name)
}

/// An id of something called `name` that begins now.
pub(crate) fn new_id(name: &str) -> String {
    let now = jiff::Timestamp::now();
    let slug: String = name.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '_' }).take(40).collect();
    // Clock bits and process id, not the seed: two runs of one scenario must not share a folder.
    let mixed = (now.as_nanosecond() as u64 ^ u64::from(std::process::id()).rotate_left(40)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    format!("{}-{slug}-{:04x}", now.strftime("%Y%m%d-%H%M%S"), mixed >> 48)
}
