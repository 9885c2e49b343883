//! What every kind of error means at every stage of a batch, and what becomes of its connection: a link that answers as told.

use std::borrow::Cow;
use std::collections::VecDeque;

use sqlx::error::ErrorKind;

use super::*;
use crate::scenario::units::Time;
use crate::table::{Column, ColumnType, Table, Value};
use crate::target::{Conflict, Method};

/// What is answered to one call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reply {
    Ok,
    /// An error answer with this code.
    Code(&'static str),
    /// The socket is cut.
    Cut,
    /// No answer ever.
    Silence,
}
use Reply::{Code, Cut, Ok as Fine, Silence};

#[derive(Clone, Default)]
struct Script {
    replies: Arc<Mutex<VecDeque<Reply>>>,
    /// What was called.
    calls: Arc<Mutex<Vec<&'static str>>>,
}

struct Scripted(Script);

impl Scripted {
    async fn call(&mut self, what: &'static str) -> Result<(), sqlx::Error> {
        self.0.calls.lock().unwrap().push(what);
        let reply = self.0.replies.lock().unwrap().pop_front();
        match reply {
            None | Some(Fine) => Ok(()),
            Some(Code(code)) => Err(sqlx::Error::Database(Box::new(Answer(code)))),
            Some(Cut) => Err(sqlx::Error::Io(std::io::ErrorKind::ConnectionReset.into())),
            Some(Silence) => std::future::pending().await,
        }
    }
}

#[derive(Debug)]
struct Answer(&'static str);

impl std::fmt::Display for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("as told")
    }
}

impl std::error::Error for Answer {}

impl DatabaseError for Answer {
    fn message(&self) -> &str {
        "as told"
    }
    fn code(&self) -> Option<Cow<'_, str>> {
        Some(Cow::Borrowed(self.0))
    }
    fn as_error(&self) -> &(dyn std::error::Error + Send + Sync + 'static) {
        self
    }
    fn as_error_mut(&mut self) -> &mut (dyn std::error::Error + Send + Sync + 'static) {
        self
    }
    fn into_error(self: Box<Self>) -> Box<dyn std::error::Error + Send + Sync + 'static> {
        self
    }
    fn kind(&self) -> ErrorKind {
        ErrorKind::Other
    }
}

impl Link for Scripted {
    type Options = Script;

    async fn open(script: &Script) -> Result<(Self, u64), sqlx::Error> {
        Ok((Self(script.clone()), 7))
    }

    async fn close(self) {}

    /// One row a statement: two rows are a transaction of BEGIN, two inserts and COMMIT.
    fn limits(_: &Script, _: &WritePlan) -> Limits {
        Limits { rows: 1, bytes: 1 << 20 }
    }

    async fn insert(&mut self, _: &WritePlan, _: &[Row]) -> Result<(), sqlx::Error> {
        self.call("INSERT").await
    }

    async fn warnings(&mut self) -> Result<u64, sqlx::Error> {
        self.call("warnings").await.map(|()| 2)
    }

    async fn control(&mut self, statement: &'static str) -> Result<(), sqlx::Error> {
        self.call(statement).await
    }

    fn class(error: &dyn DatabaseError) -> ErrorClass {
        match error.code().as_deref() {
            Some("08006") => ErrorClass::Connection,
            Some("54000") => ErrorClass::TooLarge,
            Some("40P01") => ErrorClass::Deadlock,
            _ => ErrorClass::Other,
        }
    }
}

/// Writes so many rows to a server that answers so; what came of it, what the server saw, and whether the connection is kept.
async fn write(rows: usize, replies: &[Reply]) -> (Result<u64, (ErrorClass, Applied)>, Vec<&'static str>, bool) {
    let script = Script { replies: Arc::new(Mutex::new(replies.iter().copied().collect())), ..Script::default() };
    let times = scenario::Pool { statement_timeout: Time::millis(20), ..scenario::Pool::default() };
    let pool = Pool::<Scripted>::new(script.clone(), times, 1);
    let column = Column { name: "id".into(), ty: ColumnType::Int64, nullable: false, index: false, max_len: 0 };
    let table = Table { name: "t".into(), columns: vec![column], key: 0, unique_key: true };
    let plan = Arc::new(WritePlan { table, conflict: Conflict::Error, method: Method::Values });
    let rows: Arc<Vec<Row>> = Arc::new((0..rows as i64).map(|id| vec![Value::Int(id)]).collect());
    let mut session = pool.acquire().await.unwrap();
    assert_eq!((session.id(), pool.usage()), (7, PoolUse { active: 1, max: 1 }));
    let written = session.write(&plan, &rows).await;
    drop(session);
    let calls = script.calls.lock().unwrap().clone();
    (written.map(|written| written.warnings).map_err(|failure| (failure.class, failure.applied)), calls, pool.idle().len() == 1)
}

const ALL: [&str; 6] = ["BEGIN", "INSERT", "warnings", "INSERT", "warnings", "COMMIT"];

#[tokio::test]
async fn a_batch_is_one_statement_or_one_transaction() {
    assert_eq!(write(0, &[]).await, (Ok(0), vec![], true));
    assert_eq!(write(1, &[]).await, (Ok(2), vec!["INSERT", "warnings"], true));
    assert_eq!(write(2, &[]).await, (Ok(4), ALL.to_vec(), true));
}

#[tokio::test]
async fn an_error_answer_is_rolled_back_and_its_connection_kept() {
    let dead = Err((ErrorClass::Deadlock, Applied::No));
    for (before, rows) in [(0, 1), (0, 2), (1, 2), (2, 2), (3, 2), (4, 2), (5, 2)] {
        let replies: Vec<Reply> = std::iter::repeat_n(Fine, before).chain([Code("40P01")]).collect();
        let calls = if rows == 1 { &["INSERT"][..] } else { &ALL[..=before] };
        assert_eq!(write(rows, &replies).await, (dead, [calls, &["ROLLBACK"]].concat(), true), "{before} of {rows}");
    }
    for rollback in [Code("XX000"), Cut, Silence] {
        let (failed, calls, kept) = write(1, &[Code("40P01"), rollback]).await;
        assert_eq!((failed, calls, kept), (dead, vec!["INSERT", "ROLLBACK"], false), "{rollback:?}");
    }
}

#[tokio::test]
async fn who_ends_the_session_while_it_commits_leaves_it_open_what_came_first() {
    let connection = |applied| Err((ErrorClass::Connection, applied));
    // A single insert decides, as COMMIT does; before that nothing can have been applied. The connection is closed either way.
    assert_eq!(write(1, &[Code("08006")]).await, (connection(Applied::Unknown), vec!["INSERT"], false));
    assert_eq!(write(2, &[Code("08006")]).await, (connection(Applied::No), vec!["BEGIN"], false));
    assert_eq!(write(2, &[Fine, Code("08006")]).await, (connection(Applied::No), vec!["BEGIN", "INSERT"], false));
    let commit: Vec<Reply> = std::iter::repeat_n(Fine, 5).chain([Code("08006")]).collect();
    assert_eq!(write(2, &commit).await, (connection(Applied::Unknown), ALL.to_vec(), false));
}

#[tokio::test]
async fn an_answer_that_is_in_doubt_itself_is_unknown() {
    assert_eq!(write(2, &[Fine, Code("40003")]).await, (Err((ErrorClass::Other, Applied::Unknown)), vec!["BEGIN", "INSERT"], false));
    // Committed, and then the question after its warnings fails.
    assert_eq!(write(1, &[Fine, Code("40P01")]).await, (Err((ErrorClass::Deadlock, Applied::Unknown)), vec!["INSERT", "warnings"], false));
}

#[tokio::test]
async fn a_statement_that_is_too_large_costs_the_connection() {
    assert_eq!(write(2, &[Fine, Code("54000")]).await, (Err((ErrorClass::TooLarge, Applied::No)), vec!["BEGIN", "INSERT"], false));
}

#[tokio::test]
async fn without_an_answer_only_what_was_not_sent_is_certain() {
    for (reply, class) in [(Cut, ErrorClass::Connection), (Silence, ErrorClass::Timeout)] {
        for before in 0..6 {
            let replies: Vec<Reply> = std::iter::repeat_n(Fine, before).chain([reply]).collect();
            let applied = if before == 0 { Applied::No } else { Applied::Unknown };
            assert_eq!(write(2, &replies).await, (Err((class, applied)), ALL[..=before].to_vec(), false), "{reply:?} after {before}");
        }
        assert_eq!(write(1, &[reply]).await, (Err((class, Applied::Unknown)), vec!["INSERT"], false), "{reply:?}");
    }
}
