//! What surrounds the pipeline in its model: a target that answers when it is told to, an observer that notes what it sees, and one
//! that chooses.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use tokio::sync::oneshot;

use super::{PAUSE, Scope};
use crate::pipeline::clock::driven;
use crate::pipeline::observer::{BatchInfo, BatchOutcome, Observer};
use crate::table::{Row, Table, Value};
use crate::target::{
    Applied, Database, ErrorClass, Failure, PoolUse, Reader, Session, Target, TargetError, TargetInfo, WritePlan, Written,
};

/// What may be answered to the pipeline, or befall it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    Connection,
    NoConnection,
    /// A panic before anything was sent.
    PanicAtConnection,
    Refused,
    Stored,
    Transient,
    Final,
    /// The rows are stored, and the connection is cut.
    CutAfter,
    CutBefore,
    Panic,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Acknowledged,
    Rejected,
    Unknown,
}

/// A question of the pipeline that is not answered yet.
pub(super) struct Gate {
    /// Of a write its batch, of a connection nothing.
    pub(super) batch: Option<u64>,
    answer: oneshot::Sender<Answer>,
}

/// What was seen of a batch.
#[derive(Debug, Default)]
pub(super) struct Seen {
    pub(super) rows: Vec<u64>,
    announced: u32,
    written: u32,
    /// When the next attempt may begin.
    resumes: Option<Instant>,
    /// What became of each attempt.
    pub(super) answers: Vec<Answer>,
    /// Whether each failed attempt was to be followed by another.
    pub(super) retried: Vec<bool>,
    pub(super) finished: Option<Outcome>,
}

pub(super) type Choose = Box<dyn FnMut(usize) -> usize + Send>;

pub(super) struct World {
    pub(super) scope: Scope,
    choose: Choose,
    /// How much may still go wrong.
    pub(super) faults: u32,
    pub(super) gates: Vec<Gate>,
    pub(super) batches: BTreeMap<u64, Seen>,
    /// Rows in the database.
    pub(super) stored: Vec<u64>,
    pub(super) closed: bool,
    writing: usize,
    /// Everything that happened, for people.
    pub(super) story: Vec<String>,
    /// Everything that should not have.
    pub(super) wrong: Vec<String>,
}

impl World {
    pub(super) fn new(scope: Scope, choose: Choose) -> Self {
        Self {
            scope,
            choose,
            faults: scope.faults,
            gates: Vec::new(),
            batches: BTreeMap::new(),
            stored: Vec::new(),
            closed: false,
            writing: 0,
            story: Vec::new(),
            wrong: Vec::new(),
        }
    }

    /// One of `count` ways to go on.
    pub(super) fn choose(&mut self, count: usize) -> usize {
        if count < 2 { 0 } else { (self.choose)(count) }
    }

    /// What can be answered to a gate. A row that is stored already cannot be stored again: its key is unique.
    pub(super) fn answers(&self, gate: usize) -> Vec<Answer> {
        let Some(batch) = self.gates[gate].batch else {
            let faults = [Answer::NoConnection, Answer::PanicAtConnection];
            return std::iter::once(Answer::Connection).chain(faults.into_iter().filter(|_| self.faults > 0)).collect();
        };
        let stored = self.batches[&batch].rows.iter().any(|row| self.stored.contains(row));
        let (usual, cut) = if stored { (Answer::Final, None) } else { (Answer::Stored, Some(Answer::CutAfter)) };
        let faults = [Answer::Transient, Answer::CutBefore, Answer::Panic].into_iter().chain(cut);
        let faults = faults.chain((!stored).then_some(Answer::Final)).filter(|_| self.faults > 0);
        std::iter::once(usual).chain(faults).collect()
    }

    pub(super) fn answer(&mut self, gate: usize, answer: Answer) {
        let usual = self.answers(gate)[0] == answer;
        self.faults -= u32::from(!usual);
        let gate = self.gates.remove(gate);
        self.story.push(format!("{answer:?} to {:?}", gate.batch));
        if gate.answer.send(answer).is_err() {
            self.wrong.push("nobody waits for an answer any more".to_owned());
        }
    }

    fn ask(&mut self, batch: Option<u64>) -> oneshot::Receiver<Answer> {
        let (answer, asked) = oneshot::channel();
        self.gates.push(Gate { batch, answer });
        asked
    }

    /// A write begins: it was announced, with these rows.
    fn begin(&mut self, rows: &[u64]) -> Option<oneshot::Receiver<Answer>> {
        self.writing += 1;
        if self.writing > self.scope.concurrency {
            self.wrong.push(format!("{} writes at once", self.writing));
        }
        let Some((batch, seen)) = self.batches.iter_mut().find(|(_, seen)| seen.rows == rows) else {
            self.wrong.push(format!("rows {rows:?} are written and no batch of them was announced"));
            return None;
        };
        seen.written += 1;
        if seen.announced != seen.written {
            self.wrong.push(format!("write {} of batch {batch} was not announced", seen.written));
        }
        let batch = *batch;
        self.story.push(format!("batch {batch} is written"));
        Some(self.ask(Some(batch)))
    }

    fn end(&mut self, rows: &[u64], answer: Answer) -> Result<Written, Failure> {
        self.writing -= 1;
        if let Some(seen) = self.batches.values_mut().find(|seen| seen.rows == rows) {
            seen.answers.push(answer);
        }
        if matches!(answer, Answer::Stored | Answer::CutAfter) {
            self.stored.extend(rows);
        }
        match answer {
            Answer::Transient => Err(failure(ErrorClass::Deadlock, Applied::No)),
            Answer::Final => Err(failure(ErrorClass::Constraint, Applied::No)),
            Answer::CutAfter | Answer::CutBefore => Err(failure(ErrorClass::Connection, Applied::Unknown)),
            _ => Ok(Written::default()),
        }
    }
}

fn failure(class: ErrorClass, applied: Applied) -> Failure {
    Failure { class, applied, message: String::new() }
}

/// The world as the pipeline sees it.
pub(super) struct Surroundings {
    pub(super) world: Arc<Mutex<World>>,
    pub(super) info: TargetInfo,
}

impl Surroundings {
    fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap()
    }
}

impl Observer for Surroundings {
    fn assembled(&self, _: &str, rows: usize, took: Duration) {
        let mut world = self.world();
        let scope = world.scope;
        if rows == 0 || rows > scope.flush || (rows < scope.flush && took < scope.interval && !world.closed) {
            world.wrong.push(format!("a batch of {rows} rows was formed after {took:?}"));
        }
    }

    fn gauges(&self, _: usize, in_flight: usize) {
        let mut world = self.world();
        if in_flight > world.scope.concurrency || (in_flight == 0 && !world.closed) {
            world.wrong.push(format!("{in_flight} batches are said to be in flight"));
        }
    }

    fn sending(&self, batch: &BatchInfo<'_>) -> Result<(), String> {
        let mut world = self.world();
        let rows: Vec<u64> = batch.entries.iter().map(|entry| entry.id).collect();
        let seen = world.batches.entry(batch.id).or_default();
        if seen.finished.is_some() || (seen.announced > 0 && seen.rows != rows) {
            let what = format!("batch {} is announced with {rows:?} after {seen:?}", batch.id);
            world.wrong.push(what);
            return Ok(());
        }
        let early = seen.resumes.zip(driven::now()).is_some_and(|(resumes, now)| now < resumes);
        seen.rows = rows;
        seen.announced += 1;
        // A batch that was refused is announced once more, so that it stands in the journal if there is room now.
        let refused = seen.answers.contains(&Answer::Refused);
        if early {
            world.wrong.push(format!("batch {} is tried again without a pause", batch.id));
        }
        if refused || batch.session == 0 || world.faults == 0 || world.choose(2) == 0 {
            return Ok(());
        }
        world.faults -= 1;
        world.story.push(format!("batch {} is refused", batch.id));
        world.batches.entry(batch.id).or_default().answers.push(Answer::Refused);
        Err("refused".to_owned())
    }

    fn attempt_failed(&self, batch: &BatchInfo<'_>, failure: &Failure, will_retry: bool) {
        let rows: Vec<u64> = batch.entries.iter().map(|entry| entry.id).collect();
        let mut world = self.world();
        let seen = world.batches.entry(batch.id).or_default();
        seen.rows = rows;
        seen.retried.push(will_retry);
        seen.resumes = driven::now().filter(|_| will_retry).map(|now| now + PAUSE.0);
        if failure.class == ErrorClass::Busy {
            seen.answers.push(Answer::NoConnection);
        }
    }

    fn finished(&self, batch: &BatchInfo<'_>, outcome: &BatchOutcome, _: Duration) {
        let mut world = self.world();
        let (outcome, failure) = match outcome {
            BatchOutcome::Acknowledged { .. } => (Outcome::Acknowledged, None),
            BatchOutcome::Rejected(failure) => (Outcome::Rejected, Some(failure)),
            BatchOutcome::Unknown(failure) => (Outcome::Unknown, Some(failure)),
        };
        world.story.push(format!("batch {} is {outcome:?}", batch.id));
        let seen = world.batches.entry(batch.id).or_default();
        if failure.is_some_and(|failure| failure.message.ends_with("at the connection")) {
            seen.answers.push(Answer::PanicAtConnection);
        }
        let twice = seen.finished.replace(outcome).is_some();
        if twice || seen.announced == 0 {
            world.wrong.push(format!("batch {} was finished twice, or before it was announced", batch.id));
        }
    }
}

struct Connection(Arc<Mutex<World>>);

#[async_trait]
impl Session for Connection {
    fn id(&self) -> u64 {
        1
    }

    async fn write(&mut self, _: &Arc<WritePlan>, rows: &Arc<Vec<Row>>) -> Result<Written, Failure> {
        let rows: Vec<u64> = rows.iter().map(|row| if let Value::Int(id) = row[0] { id as u64 } else { u64::MAX }).collect();
        let asked = self.0.lock().unwrap().begin(&rows);
        let answer = match asked {
            Some(asked) => asked.await.unwrap_or(Answer::Final),
            None => Answer::Final,
        };
        let result = self.0.lock().unwrap().end(&rows, answer);
        if answer == Answer::Panic {
            // As a panic does, without its words on standard error.
            std::panic::resume_unwind(Box::new("in a write"));
        }
        result
    }
}

#[async_trait]
impl Target for Surroundings {
    fn database(&self) -> Database {
        Database::Sqlite
    }

    fn info(&self) -> &TargetInfo {
        &self.info
    }

    fn resolve(&self, plan: WritePlan, _: usize) -> Result<WritePlan, TargetError> {
        Ok(plan)
    }

    fn ddl(&self, _: &Table) -> Vec<String> {
        Vec::new()
    }

    async fn create(&self, _: &Table, _: &str) -> Result<(), TargetError> {
        Ok(())
    }

    async fn owner(&self, _: &str) -> Result<Option<String>, TargetError> {
        Ok(None)
    }

    async fn acquire(&self) -> Result<Box<dyn Session>, Failure> {
        let asked = self.world().ask(None);
        match asked.await {
            Ok(Answer::Connection) => Ok(Box::new(Connection(Arc::clone(&self.world)))),
            Ok(Answer::PanicAtConnection) => std::panic::resume_unwind(Box::new("at the connection")),
            // A class that nothing else here has, and that the retries of the model take for transient.
            _ => Err(failure(ErrorClass::Busy, Applied::No)),
        }
    }

    async fn quiesce(&self, _: &BTreeSet<u64>, _: Duration) -> Result<BTreeSet<u64>, TargetError> {
        Ok(BTreeSet::new())
    }

    async fn reader(&self) -> Result<Arc<dyn Reader>, TargetError> {
        Err(TargetError::Failed("the model is not read".to_owned()))
    }

    fn pool(&self) -> PoolUse {
        PoolUse::default()
    }
}
