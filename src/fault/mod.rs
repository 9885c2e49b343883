//! What goes wrong on purpose: each fault of a scenario begins and is healed at its time on the run's timeline, beside the load and
//! never by the wall clock. What it did is in the [`Book`]; what is stored in the end says the verifier.
//!
//! A new kind of fault is one file with an [`Act`] and one arm in [`make`].

mod book;
mod busy;
mod container;
mod database;
mod network;
mod open;
mod process;
mod rival;
mod upstream;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use async_trait::async_trait;
use serde_json::json;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::container::Facts;
use crate::ledger::Mark;
use crate::metrics::PrometheusMetricsReporter;
use crate::scenario::fault::{Family, Fault, Kind};
use crate::scenario::{Scenario, TargetConfig};
use crate::target;
use crate::telemetry::log::{self, Level};
pub(crate) use book::Book;
pub(crate) use network::InFront;

/// Longest time that beginning or healing a fault may take.
const LIMIT: Duration = Duration::from_secs(120);

/// Something that can go wrong and be healed.
#[async_trait]
pub(crate) trait Act: Send + Sync {
    /// Makes it go wrong. What was half done when this fails is undone by [`Act::heal`], which is called all the same.
    async fn begin(&self) -> Result<(), String>;

    /// Makes it right again; returns when the target can be used as before.
    async fn heal(&self) -> Result<(), String>;

    /// How often it struck (connections cut, answers held back), if that is counted.
    fn struck(&self) -> Option<u64> {
        None
    }
}

/// Where marks of faults are written, in the order of events.
pub(crate) trait Marks: Send + Sync {
    /// Writes `mark` behind everything that has happened.
    fn mark(&self, mark: Mark);
}

/// What a fault may need to know of the run.
pub(crate) struct Scene<'a> {
    pub(crate) run_id: &'a str,
    pub(crate) scenario: &'a Scenario,
    pub(crate) report_dir: &'a Path,
    /// What is driven, by the address it really has.
    pub(crate) target: &'a TargetConfig,
    pub(crate) container: Option<&'a Facts>,
    /// What must not be shown.
    pub(crate) secrets: &'a [String],
}

impl Scene<'_> {
    /// Connects to a server and leaves it again, so that one that cannot be used is told by its own name, and not by that of a proxy
    /// in front of it or as the trouble of a rival.
    async fn reach(&self) -> anyhow::Result<()> {
        if let (Some(insert), None) = (self.scenario.workload.batch_insert(), &self.target.sqlite) {
            let context = target::Context {
                run_id: self.run_id,
                scenario_name: &self.scenario.name,
                report_dir: self.report_dir,
                concurrency: insert.pipeline.concurrency,
                create: false,
            };
            target::connect(self.target, &context).await?;
        }
        Ok(())
    }
}

/// The faults of a run, ready to begin.
#[derive(Default)]
pub(crate) struct Faults {
    planned: Vec<(Fault, Arc<dyn Act>)>,
    /// What the load goes through, if the network has faults.
    network: Option<InFront>,
}

impl Faults {
    /// Makes everything ready that the scenario's faults need. Afterwards `target` is what the load must be offered to.
    ///
    /// # Errors
    /// When a fault cannot strike this target; nothing has gone wrong yet.
    pub(crate) async fn prepare(scene: &Scene<'_>, target: &mut TargetConfig) -> anyhow::Result<Self> {
        let mut planned = Vec::new();
        let on_network = |fault: &Fault| fault.kind.family() == Family::Network;
        let network = if scene.scenario.faults.iter().any(on_network) { Some(InFront::of(scene.scenario, target).await?) } else { None };
        if !scene.scenario.faults.is_empty() {
            scene.reach().await?;
        }
        for (number, fault) in scene.scenario.faults.iter().enumerate() {
            let made = make((number, fault), scene, target, network.as_ref()).await;
            planned.push((fault.clone(), made.with_context(|| format!("faults.{number} ({})", fault.kind.as_str()))?));
        }
        Ok(Self { planned, network })
    }

    /// Says where requests go, of a service that was started after its faults were made ready.
    ///
    /// # Errors
    /// When `url` names no place.
    pub(crate) fn lead_to(&self, url: &str) -> anyhow::Result<()> {
        self.network.as_ref().map_or(Ok(()), |network| network.leads_to(url))
    }

    /// Starts the timeline, which begins at `epoch`.
    pub(crate) fn start(
        self,
        epoch: Instant,
        book: Arc<Book>,
        marks: Option<Arc<dyn Marks>>,
        reporter: Option<PrometheusMetricsReporter>,
    ) -> Timeline {
        let end = CancellationToken::new();
        let mut tasks = JoinSet::new();
        for (number, (fault, act)) in self.planned.into_iter().enumerate() {
            let one = One { number: number as u32, fault, act, book: Arc::clone(&book), marks: marks.clone(), reporter: reporter.clone() };
            tasks.spawn(one.live(epoch, end.clone()));
        }
        Timeline { tasks, end, _network: self.network }
    }
}

/// Makes one fault: the one place that branches on its kind.
async fn make(
    (number, fault): (usize, &Fault),
    scene: &Scene<'_>,
    target: &mut TargetConfig,
    network: Option<&InFront>,
) -> anyhow::Result<Arc<dyn Act>> {
    Ok(match fault.kind.family() {
        Family::Network => network.context("the network has no proxy")?.fault(number as u32, fault),
        Family::Server if fault.pid_file.is_some() => Arc::new(process::Process::new(fault, scene).await?),
        Family::Server => Arc::new(container::Container::new(fault, scene).await?),
        Family::Database if fault.kind == Kind::Busy => Arc::new(busy::Busy::new(scene)?),
        Family::Database => database::make(fault, scene, target).await?,
        Family::Upstream => Arc::new(upstream::Upstream::new(fault, target)?),
    })
}

/// The faults while the load goes on; to be kept until nothing goes to the target any more.
pub(crate) struct Timeline {
    tasks: JoinSet<()>,
    end: CancellationToken,
    /// Drain and verification go through it too.
    _network: Option<InFront>,
}

impl Timeline {
    /// Heals what is still wrong, and returns once it is.
    pub(crate) async fn end(&mut self) {
        self.end.cancel();
        while self.tasks.join_next().await.is_some() {}
    }
}

struct One {
    number: u32,
    fault: Fault,
    act: Arc<dyn Act>,
    book: Arc<Book>,
    marks: Option<Arc<dyn Marks>>,
    reporter: Option<PrometheusMetricsReporter>,
}

impl One {
    async fn live(self, epoch: Instant, end: CancellationToken) {
        let begins = epoch + self.fault.at.0;
        tokio::select! {
            () = tokio::time::sleep_until(begins.into()) => {}
            () = end.cancelled() => return,
        }
        self.tell("begins");
        self.mark(false);
        self.book.begins(self.number, Instant::now());
        self.active(true);
        let begun = within(self.act.begin()).await;
        if let Err(problem) = begun {
            self.book.problem(self.number, format!("could not be begun: {problem}"));
        } else {
            tokio::select! {
                () = tokio::time::sleep_until((begins + self.fault.lasts()).into()) => {}
                () = end.cancelled() => {}
            }
        }
        self.tell("is healed");
        self.mark(true);
        self.book.heals(self.number, Instant::now());
        if let Err(problem) = within(self.act.heal()).await {
            self.book.problem(self.number, format!("could not be healed: {problem}"));
        }
        self.book.struck(self.number, self.act.struck());
        self.active(false);
    }

    fn mark(&self, healed: bool) {
        if let Some(marks) = &self.marks {
            marks.mark(Mark { fault: self.number, healed });
        }
    }

    fn active(&self, active: bool) {
        if let Some(reporter) = &self.reporter {
            reporter.fault_active(self.fault.kind.as_str(), active);
        }
    }

    fn tell(&self, what: &str) {
        let kind = self.fault.kind.as_str();
        log::event(Level::Info, &format!("fault {kind} {what}"), json!({"event": "fault", "fault": self.number, "kind": kind}));
    }
}

async fn within(doing: impl Future<Output = Result<(), String>>) -> Result<(), String> {
    tokio::time::timeout(LIMIT, doing).await.unwrap_or_else(|_| Err(format!("it took longer than {} s", LIMIT.as_secs())))
}
