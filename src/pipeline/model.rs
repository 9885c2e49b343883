//! A model of the pipeline: every order of what can happen to it (rows submitted, the interval over, answers good and bad, panics, a
//! submitter that gives up, a journal that refuses, closing, dropping) is tried within a small scope, and each ends with exactly one
//! outcome a row: the one that a few lines of reference say.
//!
//! The pipeline is the real one, on a runtime of one thread and a clock that stands still: after each step it runs until nothing
//! moves, or not, which is a choice as well. A history is the list of choices that made it, so it can be repeated; the explorer
//! counts that list upwards until none is left. That a pipeline cannot be submitted to once it is closed is the compiler's to prove:
//! `close` takes it away.

mod world;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures::FutureExt as _;
use futures::future::BoxFuture;
use proptest::prelude::*;
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;

use super::clock::driven;
use super::{Pipeline, Submission, SubmitError, Totals};
use crate::scenario::units::{Share, Time};
use crate::scenario::{PipelineConfig, Retry};
use crate::table::{Column, ColumnType, Table, Value};
use crate::target::{Conflict, Method, TargetInfo, WritePlan};
use world::{Answer, Choose, Outcome, Seen, Surroundings, World};

/// How much of everything there is.
#[derive(Clone, Copy, Debug)]
struct Scope {
    rows: u64,
    buffer: usize,
    flush: usize,
    interval: Duration,
    concurrency: usize,
    attempts: u32,
    unique_key: bool,
    /// Things that go wrong, submitters that give up included.
    faults: u32,
    /// How often something more happens before the pipeline has done what follows from the step before.
    haste: u32,
    /// Whether it may be closed or dropped before all rows were submitted.
    ends_early: bool,
}

const SMALL: Scope = Scope {
    rows: 2,
    buffer: 1,
    flush: 1,
    interval: Duration::from_millis(100),
    concurrency: 2,
    attempts: 2,
    unique_key: true,
    faults: 1,
    haste: 1,
    ends_early: true,
};

/// From one attempt to the next.
const PAUSE: Time = Time::millis(7);

/// Where a scope is cut off that has more histories than there is patience for.
const MOST_HISTORIES: u64 = 200_000;

/// Longer than any history: one that goes on and on is a fault too.
const MOST_STEPS: usize = 500;

#[derive(Clone, Copy, Debug)]
enum Step {
    /// Everything runs until nothing moves.
    Settle,
    Submit,
    /// A submitter that waits gives up.
    Cancel(usize),
    Answer(usize, Answer),
    /// Time goes on to what is waited for next.
    Time,
    Close,
    Drop,
}

/// A pipeline on its way through a history.
struct History {
    scope: Scope,
    world: Arc<Mutex<World>>,
    pipeline: Option<Arc<Pipeline>>,
    waiting: Vec<(u64, BoxFuture<'static, Result<(), SubmitError>>)>,
    /// Rows that the pipeline took.
    taken: Vec<u64>,
    submitted: u64,
    closing: Option<JoinHandle<Totals>>,
    settled: bool,
    haste: u32,
}

impl History {
    fn begin(scope: Scope, choose: Choose) -> Self {
        driven::begin(Instant::now());
        let world = Arc::new(Mutex::new(World::new(scope, choose)));
        let info = TargetInfo { name: String::new(), version: String::new(), settings: Vec::new(), max_binds: 9, max_bytes: 9 };
        let surroundings = Arc::new(Surroundings { world: Arc::clone(&world), info });
        let column = Column { name: "id".into(), ty: ColumnType::Int64, nullable: false, index: false, max_len: 0 };
        let table = Table { name: "t".into(), columns: vec![column], key: 0, unique_key: scope.unique_key };
        let retry = Retry { attempts: scope.attempts, base: PAUSE, max: PAUSE, jitter: Share(0.0), ..Retry::default() };
        let config = PipelineConfig {
            buffer_size: scope.buffer,
            flush_size: scope.flush,
            flush_interval: Time(scope.interval),
            concurrency: Some(scope.concurrency),
            retry,
        };
        let builder = Pipeline::builder(Arc::<Surroundings>::clone(&surroundings)).config(config);
        let builder = builder.table(WritePlan { table, conflict: Conflict::Error, method: Method::Values });
        let pipeline = Some(Arc::new(builder.with_metrics_reporter(surroundings).start().unwrap()));
        let (waiting, taken) = (Vec::new(), Vec::new());
        Self { scope, world, pipeline, waiting, taken, submitted: 0, closing: None, settled: true, haste: scope.haste }
    }

    /// What can happen next; nothing when the history is over.
    fn steps(&self) -> Vec<Step> {
        let world = self.world.lock().unwrap_or_else(PoisonError::into_inner);
        let mut steps = Vec::new();
        if !self.settled {
            steps.push(Step::Settle);
            if self.haste == 0 {
                return steps;
            }
        }
        for gate in 0..world.gates.len() {
            steps.extend(world.answers(gate).into_iter().map(|answer| Step::Answer(gate, answer)));
        }
        if driven::next().is_some() {
            steps.push(Step::Time);
        }
        if self.pipeline.is_some() {
            if self.submitted < self.scope.rows {
                steps.push(Step::Submit);
            }
            if self.waiting.is_empty() {
                let may_end = self.scope.ends_early || self.submitted == self.scope.rows;
                steps.extend([Step::Close, Step::Drop].into_iter().filter(|_| may_end));
            } else if world.faults > 0 {
                steps.extend((0..self.waiting.len()).map(Step::Cancel));
            }
        }
        steps
    }

    async fn take(&mut self, step: Step) {
        self.world.lock().unwrap().story.push(format!("{step:?}"));
        if !self.settled && !matches!(step, Step::Settle) {
            self.haste -= 1;
        }
        self.settled = false;
        match step {
            Step::Settle => self.settle().await,
            Step::Submit => self.submit(),
            Step::Cancel(place) => {
                drop(self.waiting.remove(place));
                self.world.lock().unwrap().faults -= 1;
            }
            Step::Answer(gate, answer) => self.world.lock().unwrap().answer(gate, answer),
            Step::Time => driven::next().into_iter().for_each(driven::advance),
            Step::Close | Step::Drop => {
                self.world.lock().unwrap().closed = true;
                let pipeline = self.pipeline.take().and_then(Arc::into_inner).expect("nobody waits to submit");
                if matches!(step, Step::Close) {
                    self.closing = Some(tokio::spawn(pipeline.close()));
                }
            }
        }
    }

    fn submit(&mut self) {
        let id = self.submitted;
        self.submitted += 1;
        let pipeline = Arc::clone(self.pipeline.as_ref().expect("it is open"));
        let submission = Submission::now(id, vec![Value::Int(id as i64)]);
        self.waiting.push((id, async move { pipeline.submit(submission).await }.boxed()));
        self.poll();
    }

    /// Lets the submitters that wait try again.
    fn poll(&mut self) {
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        let mut still = Vec::new();
        for (id, mut waiting) in self.waiting.drain(..) {
            match waiting.poll_unpin(&mut context) {
                std::task::Poll::Pending => still.push((id, waiting)),
                std::task::Poll::Ready(Ok(())) => self.taken.push(id),
                std::task::Poll::Ready(Err(error)) => self.world.lock().unwrap().wrong.push(format!("row {id}: {error}")),
            }
        }
        self.waiting = still;
    }

    /// A turn lets every task that can go on do so once; no chain of wake-ups here is nearly as long as this.
    async fn settle(&mut self) {
        for _ in 0..8 {
            self.poll();
            tokio::task::yield_now().await;
        }
        self.settled = true;
    }

    /// Everything that is wrong at the end.
    async fn judge(self) -> (Vec<String>, Vec<String>) {
        let mut totals = Totals::default();
        let world = std::mem::replace(&mut *self.world.lock().unwrap(), World::new(self.scope, Box::new(|_| 0)));
        let mut wrong = world.wrong;
        let mut batched: Vec<u64> = Vec::new();
        for (number, seen) in &world.batches {
            wrong.extend(judge_batch(&self.scope, &world.stored, seen).map(|what| format!("batch {number} ({seen:?}): {what}")));
            batched.extend(&seen.rows);
            let rows = seen.rows.len() as u64;
            match seen.finished {
                Some(Outcome::Acknowledged) => totals.acknowledged += rows,
                Some(Outcome::Rejected) => totals.rejected += rows,
                Some(Outcome::Unknown) => totals.unknown += rows,
                None => {}
            }
        }
        // Taken rows are in one batch each, in the order in which they came; others are in none.
        if batched != self.taken {
            wrong.push(format!("rows {:?} were taken, rows {batched:?} are in batches", self.taken));
        }
        match self.closing {
            Some(closing) if !closing.is_finished() => wrong.push("close does not return".to_owned()),
            Some(closing) => {
                let told = closing.await.unwrap_or_default();
                if told != totals {
                    wrong.push(format!("close says {told:?}, the batches say {totals:?}"));
                }
            }
            None => {}
        }
        (wrong, world.story)
    }
}

/// What is wrong with a batch's end, by its attempts' answers and by what is stored.
fn judge_batch(scope: &Scope, stored: &[u64], seen: &Seen) -> Option<String> {
    let expected = expected(scope, &seen.answers);
    if seen.finished != expected {
        return Some(format!("its outcome should be {expected:?}"));
    }
    let copies = |row: &u64| stored.iter().filter(|stored| *stored == row).count();
    let right = seen.rows.iter().map(copies).all(|copies| match seen.finished {
        Some(Outcome::Acknowledged) => copies == 1,
        Some(Outcome::Rejected) => copies == 0,
        _ => copies <= 1,
    });
    let failed = seen.answers.iter().filter(|answer| !matches!(answer, Answer::Stored | Answer::Panic | Answer::PanicAtConnection));
    let retried = (1..=failed.count()).map(|attempt| attempt < seen.answers.len());
    if !right {
        Some(format!("its outcome is contradicted by what is stored: {stored:?}"))
    } else if !retried.eq(seen.retried.iter().copied()) {
        Some("what was said of its retries is not what was done".to_owned())
    } else {
        None
    }
}

/// The reference: what the answers to a batch's attempts make of it; `None` if there was an attempt too few or too many.
fn expected(scope: &Scope, answers: &[Answer]) -> Option<Outcome> {
    let (mut sent, mut unknown) = (false, false);
    for (attempt, answer) in (1..).zip(answers) {
        sent |= !matches!(answer, Answer::NoConnection | Answer::PanicAtConnection | Answer::Refused);
        unknown |= matches!(answer, Answer::CutAfter | Answer::CutBefore);
        let transient = matches!(answer, Answer::NoConnection | Answer::Transient | Answer::CutAfter | Answer::CutBefore);
        let again = transient && attempt < scope.attempts && (!unknown || scope.unique_key);
        match (again, attempt as usize == answers.len()) {
            (true, false) => {}
            (false, true) => return Some(ended(*answer, sent, unknown)),
            _ => return None,
        }
    }
    None
}

fn ended(last: Answer, sent: bool, unknown: bool) -> Outcome {
    match last {
        Answer::Stored => Outcome::Acknowledged,
        Answer::Panic | Answer::PanicAtConnection if sent => Outcome::Unknown,
        _ if unknown => Outcome::Unknown,
        _ => Outcome::Rejected,
    }
}

/// Lives one history, and fails with its story if anything in it was wrong.
fn live(runtime: &Runtime, scope: Scope, choose: Choose) -> Result<(), String> {
    let (wrong, story) = runtime.block_on(async {
        let mut history = History::begin(scope, choose);
        for _ in 0..MOST_STEPS {
            let steps = history.steps();
            if steps.is_empty() {
                return history.judge().await;
            }
            let chosen = history.world.lock().unwrap().choose(steps.len());
            history.take(steps[chosen]).await;
        }
        (vec!["it goes on and on".to_owned()], history.world.lock().unwrap().story.clone())
    });
    if wrong.is_empty() { Ok(()) } else { Err(format!("{}\nin {scope:?}\nafter {}", wrong.join("\n"), story.join(", "))) }
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread().build().unwrap()
}

/// Lives every history of the scope, at most `most`; returns how many there were.
fn explore(scope: Scope, most: u64) -> u64 {
    let runtime = runtime();
    // Each choice and out of how many; counted upwards like the digits of a number.
    let path: Arc<Mutex<Vec<(usize, usize)>>> = Arc::default();
    for count in 1..=most {
        let (shared, mut at) = (Arc::clone(&path), 0);
        let choose = move |of| {
            let mut path = shared.lock().unwrap();
            if at == path.len() {
                path.push((0, of));
            }
            at += 1;
            assert_eq!(path[at - 1].1, of, "a history is not repeatable");
            path[at - 1].0
        };
        if let Err(told) = live(&runtime, scope, Box::new(choose)) {
            panic!("history {count}: {told}");
        }
        let mut path = path.lock().unwrap();
        while path.pop_if(|(chosen, of)| *chosen + 1 == *of).is_some() {}
        match path.last_mut() {
            Some((chosen, _)) => *chosen += 1,
            None => return count,
        }
    }
    most
}

/// The scopes: all of them with `BATCHSQL_PROOF`, else those that take a few seconds.
fn scopes(full: bool) -> Vec<Scope> {
    let calm = Scope { haste: 0, ..SMALL };
    let pairs = Scope { rows: 3, buffer: 2, flush: 2, concurrency: 1, ..calm };
    let mut scopes = vec![
        Scope { concurrency: 1, ..SMALL },
        Scope { unique_key: false, ..calm },
        pairs,
        Scope { interval: Duration::from_millis(3), faults: 0, ..pairs },
    ];
    if full {
        scopes.extend([
            SMALL,
            Scope { faults: 2, ..calm },
            Scope { unique_key: false, faults: 2, ..calm },
            Scope { haste: 1, ..pairs },
            Scope { interval: Duration::from_millis(3), haste: 1, ..pairs },
            Scope { attempts: 3, faults: 3, concurrency: 1, rows: 1, ..SMALL },
        ]);
    }
    scopes
}

#[test]
fn every_history_gives_every_row_one_outcome() {
    let proof = std::env::var_os("BATCHSQL_PROOF");
    let (mut lived, mut cut) = (0, 0);
    for scope in scopes(proof.is_some()) {
        let histories = explore(scope, MOST_HISTORIES);
        assert!(histories > 100, "only {histories} histories in {scope:?}");
        println!("{histories} histories of {scope:?}");
        lived += histories;
        cut += u64::from(histories == MOST_HISTORIES);
    }
    if let Some(folder) = proof {
        let note = format!("histories lived; {cut} scopes were cut off at {MOST_HISTORIES}, the others are whole");
        let line = serde_json::json!([{
            "part": "models", "class": "pipeline", "database": "-", "planted": lived, "found": lived, "missed": 0, "false": 0, "note": note,
        }]);
        std::fs::write(std::path::Path::new(&folder).join("models.json"), format!("{line:#}\n")).unwrap();
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if std::env::var_os("BATCHSQL_PROOF").is_some() { 5_000 } else { 150 }))]

    /// Longer than can be counted through: more rows, more at once, more that goes wrong.
    #[test]
    fn long_histories_give_every_row_one_outcome(
        choices in prop::collection::vec(any::<u8>(), 0..300), flush in 1usize..4, concurrency in 1usize..4, unique_key: bool,
    ) {
        let many = Scope { rows: 12, buffer: 4, attempts: 3, faults: 8, haste: 40, ends_early: false, ..SMALL };
        let scope = Scope { flush, concurrency, unique_key, ..many };
        let mut choices = choices.into_iter();
        // The first way to go on is always one that ends well.
        let choose = move |of: usize| choices.next().map_or(0, |choice| usize::from(choice) % of);
        prop_assert_eq!(live(&runtime(), scope, Box::new(choose)), Ok(()));
    }
}
