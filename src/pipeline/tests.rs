//! Every row ends in exactly one outcome, whatever the target does.

use std::collections::HashMap;
use std::sync::Mutex;

use super::observer::{BatchInfo, BatchOutcome};
use super::*;
use crate::scenario::Retry;
use crate::scenario::units::Time;
use crate::table::{Column, ColumnType, Table, Value};
use crate::target::mock::{Fault, Mock};
use crate::target::{Conflict, ErrorClass, Method};

fn plan(unique_key: bool) -> WritePlan {
    let column = Column { name: "id".into(), ty: ColumnType::Int64, nullable: false, index: false, max_len: 0 };
    let table = Table { name: "t".into(), columns: vec![column], key: 0, unique_key };
    WritePlan { table, conflict: Conflict::Error, method: Method::Auto }
}

fn config(flush_size: usize) -> PipelineConfig {
    let retry = Retry { base: Time::millis(1), max: Time::millis(2), ..Retry::default() };
    PipelineConfig { buffer_size: 100, flush_size, flush_interval: Time::millis(20), concurrency: Some(2), retry }
}

/// Notes what became of every row, and fails if a row has two outcomes.
#[derive(Default)]
struct Notes {
    outcomes: Mutex<HashMap<u64, &'static str>>,
    announced: Mutex<Vec<u64>>,
    refuse: Option<u64>,
}

impl Notes {
    fn of(&self, outcome: &str) -> Vec<u64> {
        let mut ids: Vec<u64> = self.outcomes.lock().unwrap().iter().filter(|(_, o)| **o == outcome).map(|(id, _)| *id).collect();
        ids.sort_unstable();
        ids
    }
}

impl Observer for Notes {
    fn sending(&self, batch: &BatchInfo<'_>) -> Result<(), String> {
        self.announced.lock().unwrap().push(batch.id);
        if self.refuse == Some(batch.id) { Err("the journal is full".into()) } else { Ok(()) }
    }

    fn finished(&self, batch: &BatchInfo<'_>, outcome: &BatchOutcome, _: Duration) {
        let word = match outcome {
            BatchOutcome::Acknowledged { .. } => "acknowledged",
            BatchOutcome::Rejected(_) => "rejected",
            BatchOutcome::Unknown(_) => "unknown",
        };
        for entry in batch.entries {
            assert_eq!(self.outcomes.lock().unwrap().insert(entry.id, word), None, "row {} has two outcomes", entry.id);
        }
    }
}

async fn submit(pipeline: &Pipeline, ids: std::ops::Range<u64>) {
    for id in ids {
        pipeline.submit(Submission::now(id, vec![Value::Int(id as i64)])).await.unwrap();
    }
}

struct Ran {
    totals: Totals,
    notes: Arc<Notes>,
    mock: Arc<Mock>,
}

async fn run(rows: u64, plan: WritePlan, config: PipelineConfig, notes: Notes, mock: Mock) -> Ran {
    let (mock, notes) = (Arc::new(mock), Arc::new(notes));
    let pipeline =
        Pipeline::builder(Arc::<Mock>::clone(&mock)).table(plan).config(config).with_metrics_reporter(Arc::<Notes>::clone(&notes));
    let pipeline = pipeline.start().unwrap();
    submit(&pipeline, 0..rows).await;
    Ran { totals: pipeline.close().await, notes, mock }
}

fn totals(acknowledged: u64, rejected: u64, unknown: u64) -> Totals {
    Totals { acknowledged, rejected, unknown }
}

#[tokio::test]
async fn close_waits_for_everything_and_flushes_the_rest() {
    let slow = Mock::new(2, |_, _| Fault { delay: Duration::from_millis(5), ..Fault::default() });
    let ran = run(25, plan(true), config(10), Notes::default(), slow).await;
    assert_eq!(ran.totals, totals(25, 0, 0));
    assert_eq!((ran.mock.rows().len(), ran.mock.writes()), (25, 3));
    assert_eq!(ran.notes.of("acknowledged"), (0..25).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_batch_that_does_not_fill_is_flushed_at_the_interval() {
    let mock = Arc::new(Mock::new(1, |_, _| Fault::default()));
    let pipeline = Pipeline::builder(Arc::<Mock>::clone(&mock)).table(plan(true)).config(config(10)).start().unwrap();
    let began = Instant::now();
    submit(&pipeline, 0..3).await;
    while mock.rows().is_empty() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert!(began.elapsed() >= Duration::from_millis(20), "{:?} is before the interval", began.elapsed());
    assert_eq!((mock.rows().len(), mock.writes()), (3, 1));
    pipeline.close().await;
}

#[tokio::test]
async fn a_full_queue_makes_the_submitter_wait() {
    let mock = Arc::new(Mock::new(1, |_, _| Fault { delay: Duration::from_secs(3600), ..Fault::default() }));
    let config = PipelineConfig { buffer_size: 10, concurrency: Some(1), ..config(5) };
    let pipeline = Pipeline::builder(Arc::<Mock>::clone(&mock)).table(plan(true)).config(config).start().unwrap();
    // One batch is being written, one waits for the slot, the assembler may hold another inbox, the queue holds ten.
    let mut taken = 0;
    let full = loop {
        match pipeline.try_submit(Submission::now(taken, vec![Value::Int(taken as i64)])) {
            Ok(()) => taken += 1,
            Err(SubmitError::Full(back)) => break back,
            Err(other) => panic!("{other}"),
        }
        tokio::task::yield_now().await;
    };
    assert_eq!(full.id, taken, "the row comes back");
    assert!((10..=30).contains(&taken), "{taken} rows fit into a queue of 10 and batches of 5");
    assert_eq!(pipeline.gauges().queue_length(), 10);
    assert!(tokio::time::timeout(Duration::from_millis(50), pipeline.submit(*full)).await.is_err(), "submit waits");
}

#[tokio::test]
async fn a_failing_batch_takes_no_other_with_it() {
    let second = Mock::new(1, |write, _| if write == 1 { Fault::reject(ErrorClass::Constraint) } else { Fault::default() });
    let ran = run(30, plan(true), PipelineConfig { concurrency: Some(1), ..config(10) }, Notes::default(), second).await;
    assert_eq!(ran.totals, totals(20, 10, 0));
    assert_eq!(ran.notes.of("rejected"), (10..20).collect::<Vec<_>>());
}

#[tokio::test]
async fn transient_failures_are_tried_again_up_to_the_limit() {
    let thrice = Mock::new(1, |write, _| if write < 3 { Fault::reject(ErrorClass::Deadlock) } else { Fault::default() });
    let ran = run(5, plan(true), config(10), Notes::default(), thrice).await;
    assert_eq!((ran.totals, ran.mock.writes()), (totals(5, 0, 0), 4));
    let always = Mock::new(1, |_, _| Fault::reject(ErrorClass::Busy));
    let ran = run(5, plan(true), config(10), Notes::default(), always).await;
    assert_eq!((ran.totals, ran.mock.writes()), (totals(0, 5, 0), 5));
}

#[tokio::test]
async fn an_unknown_attempt_is_repaired_by_a_retry_only_where_a_key_protects() {
    let cut_once = || Mock::new(1, |write, _| if write == 0 { Fault::cut(false) } else { Fault::default() });
    let ran = run(5, plan(true), config(10), Notes::default(), cut_once()).await;
    assert_eq!((ran.totals, ran.mock.rows().len()), (totals(5, 0, 0), 5));
    let ran = run(5, plan(false), config(10), Notes::default(), cut_once()).await;
    assert_eq!((ran.totals, ran.mock.writes()), (totals(0, 0, 5), 1), "without a unique key it is not sent again");
    let unsafely = PipelineConfig { retry: Retry { allow_duplicates: true, ..Retry::default() }, ..config(10) };
    let applied_once = Mock::new(1, |write, _| if write == 0 { Fault::cut(true) } else { Fault::default() });
    let ran = run(5, plan(false), unsafely, Notes::default(), applied_once).await;
    assert_eq!((ran.totals, ran.mock.rows().len()), (totals(5, 0, 0), 10), "the user asked for it: every row twice");
}

#[tokio::test]
async fn once_unknown_a_batch_never_becomes_rejected() {
    // The first attempt was applied and its answer lost: the retry meets its own rows.
    let ran = run(
        5,
        plan(true),
        config(10),
        Notes::default(),
        Mock::new(1, |write, _| if write == 0 { Fault::cut(true) } else { Fault::default() }),
    )
    .await;
    assert_eq!((ran.totals, ran.mock.rows().len()), (totals(0, 0, 5), 5));
    let blocked = |write, _: &[Row]| if write == 0 { Fault::cut(false) } else { Fault::reject(ErrorClass::LockTimeout) };
    let ran = run(5, plan(true), config(10), Notes::default(), Mock::new(1, blocked)).await;
    assert_eq!((ran.totals, ran.mock.writes()), (totals(0, 0, 5), 5));
}

#[tokio::test]
async fn a_panic_in_a_batch_is_an_outcome() {
    let second = Mock::new(1, |write, _| Fault { panic: write == 1, ..Fault::default() });
    let ran = run(30, plan(true), PipelineConfig { concurrency: Some(1), ..config(10) }, Notes::default(), second).await;
    assert_eq!(ran.totals, totals(20, 0, 10));
    assert_eq!(ran.notes.of("unknown"), (10..20).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_batch_that_the_journal_refuses_is_not_sent() {
    let notes = Notes { refuse: Some(1), ..Notes::default() };
    let ran =
        run(30, plan(true), PipelineConfig { concurrency: Some(1), ..config(10) }, notes, Mock::new(1, |_, _| Fault::default())).await;
    assert_eq!((ran.totals, ran.mock.writes()), (totals(20, 10, 0), 2));
    assert_eq!(ran.notes.of("rejected"), (10..20).collect::<Vec<_>>());
}

#[tokio::test]
async fn every_batch_is_announced_before_it_ends() {
    let ran = run(30, plan(true), config(10), Notes::default(), Mock::new(1, |_, _| Fault::reject(ErrorClass::Data))).await;
    let mut announced = ran.notes.announced.lock().unwrap().clone();
    announced.sort_unstable();
    assert_eq!((announced, ran.totals), (vec![0, 1, 2], totals(0, 30, 0)));
}

#[tokio::test]
async fn no_more_batches_are_in_flight_than_asked() {
    let slow = Mock::new(8, |_, _| Fault { delay: Duration::from_millis(3), ..Fault::default() });
    let ran = run(400, plan(true), PipelineConfig { concurrency: Some(3), ..config(10) }, Notes::default(), slow).await;
    assert_eq!((ran.totals, ran.mock.most_at_once()), (totals(400, 0, 0), 3));
}

#[tokio::test]
async fn rows_are_grouped_by_table() {
    let (mock, notes) = (Arc::new(Mock::new(1, |_, _| Fault::default())), Arc::new(Tables::default()));
    let other = WritePlan { table: Table { name: "u".into(), ..plan(true).table }, ..plan(true) };
    let builder = Pipeline::builder(Arc::<Mock>::clone(&mock)).table(plan(true)).table(other).config(config(10));
    let pipeline = builder.with_metrics_reporter(Arc::<Tables>::clone(&notes)).start().unwrap();
    for id in 0..20 {
        pipeline.submit(Submission { table: (id % 2) as usize, ..Submission::now(id, vec![Value::Int(id as i64)]) }).await.unwrap();
    }
    let wrong = pipeline.submit(Submission { table: 2, ..Submission::now(0, vec![Value::Int(0)]) }).await;
    assert_eq!(wrong.unwrap_err().to_string(), "the pipeline has no table number 2");
    pipeline.close().await;
    let mut batches = notes.0.lock().unwrap().clone();
    batches.sort();
    assert_eq!(batches, [("t".to_owned(), 10), ("u".to_owned(), 10)]);
}

#[derive(Default)]
struct Tables(Mutex<Vec<(String, usize)>>);

impl Observer for Tables {
    fn finished(&self, batch: &BatchInfo<'_>, _: &BatchOutcome, _: Duration) {
        self.0.lock().unwrap().push((batch.table.to_owned(), batch.rows));
    }
}

#[tokio::test]
async fn a_row_that_does_not_fit_its_table_is_refused_at_once() {
    let pipeline = Pipeline::builder(Arc::new(Mock::new(1, |_, _| Fault::default()))).table(plan(true)).start().unwrap();
    let error = pipeline.submit(Submission::now(0, vec![Value::Null])).await.unwrap_err();
    assert_eq!(error.to_string(), "column \"id\" is Int64, not null, found Null");
    assert_eq!(pipeline.close().await, totals(0, 0, 0));
}

#[tokio::test]
async fn rows_of_batches_that_ended_are_at_hand_again_up_to_two_batches() {
    let mock = Arc::new(Mock::new(1, |_, _| Fault::default()));
    let config = PipelineConfig { concurrency: Some(1), ..config(5) };
    let pipeline = Pipeline::builder(Arc::<Mock>::clone(&mock)).table(plan(true)).config(config).start().unwrap();
    assert!(pipeline.spare().is_none());
    submit(&pipeline, 0..25).await;
    let spare = |pipeline: &Pipeline| pipeline.shared.spare.lock().unwrap().len();
    // The rows of a batch are at hand a moment after it has its outcome.
    for _ in 0..5_000 {
        if mock.writes() == 5 && pipeline.gauges().in_flight() == 0 && spare(&pipeline) == 10 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert_eq!((mock.writes(), spare(&pipeline)), (5, 10));
    let row = pipeline.spare().expect("a row");
    assert!(matches!(row[..], [Value::Int(0..25)]), "{row:?}");
    assert_eq!(spare(&pipeline), 9);
    pipeline.close().await;
}

#[tokio::test]
async fn what_is_asked_for_is_told() {
    assert_eq!([Database::Sqlite, Database::Postgres, Database::Mysql].map(default_concurrency), [1, 4, 4]);
    let pipeline = Pipeline::builder(Arc::new(Mock::new(1, |_, _| Fault::default()))).table(plan(true)).config(config(5)).start().unwrap();
    assert_eq!((pipeline.concurrency(), pipeline.plan(0).method), (2, Method::Values));
    pipeline.close().await;
}

#[tokio::test]
async fn gauges_show_the_queue_and_what_is_in_flight() {
    let mock = Arc::new(Mock::new(2, |_, _| Fault { delay: Duration::from_secs(3600), ..Fault::default() }));
    let pipeline = Pipeline::builder(Arc::<Mock>::clone(&mock)).table(plan(true)).config(config(1)).start().unwrap();
    let gauges = pipeline.gauges();
    assert_eq!((gauges.queue_length(), gauges.in_flight()), (0, 0));
    submit(&pipeline, 0..5).await;
    for _ in 0..5_000 {
        if mock.writes() == 2 && gauges.queue_length() == 3 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert_eq!((mock.writes(), gauges.queue_length(), gauges.in_flight()), (2, 3, 2));
}

#[test]
fn threads_outside_the_runtime_submit_and_wait_for_room() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let guard = runtime.enter();
    let mock = Arc::new(Mock::new(1, |_, _| Fault { delay: Duration::from_millis(1), ..Fault::default() }));
    let config = PipelineConfig { buffer_size: 2, concurrency: Some(1), ..config(1) };
    let pipeline = Pipeline::builder(Arc::<Mock>::clone(&mock)).table(plan(true)).config(config).start().unwrap();
    drop(guard);
    for id in 0..20 {
        pipeline.blocking_submit(Submission::now(id, vec![Value::Int(id as i64)])).unwrap();
    }
    assert!(matches!(pipeline.blocking_submit(Submission::now(20, vec![Value::Null])), Err(SubmitError::Mismatch(_))));
    assert_eq!(runtime.block_on(pipeline.close()), totals(20, 0, 0));
    assert_eq!(mock.rows().len(), 20);
}

#[test]
fn a_pipeline_whose_runtime_is_gone_takes_nothing() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let guard = runtime.enter();
    let pipeline = Pipeline::builder(Arc::new(Mock::new(1, |_, _| Fault::default()))).table(plan(true)).start().unwrap();
    drop(guard);
    drop(runtime);
    let row = || Submission::now(0, vec![Value::Int(0)]);
    assert!(matches!(pipeline.try_submit(row()), Err(SubmitError::Closed)));
    assert!(matches!(pipeline.blocking_submit(row()), Err(SubmitError::Closed)));
}
