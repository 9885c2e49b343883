//! A database between which and the pipeline things go wrong on demand: batches cut before or after they were written, written late
//! by a connection that was given up, refused, or ending in a panic. The rows are the real database's.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use batchsql::table::{Row, Table};
use batchsql::target::{
    Applied, Database, ErrorClass, Failure, PoolUse, Reader, Session, Target, TargetError, TargetInfo, WritePlan, Written,
};
use tokio::task::JoinSet;

use crate::random::Random;

/// What becomes of one write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    None,
    /// Written after this many milliseconds.
    Slow(u64),
    /// Nobody can say, and it was not written.
    CutBefore,
    /// Nobody can say, and it was written.
    CutAfter,
    /// Nobody can say, and it is written this many milliseconds later.
    Late(u64),
    Refused,
    Deadlock,
    PanicAfter,
}

pub(crate) struct Faulty {
    inner: Arc<dyn Target>,
    shared: Arc<Shared>,
}

struct Shared {
    seed: u64,
    /// Faults in a hundred writes.
    percent: u64,
    writes: AtomicU64,
    faults: AtomicU64,
    /// Writes by connections that were given up.
    late: Mutex<JoinSet<()>>,
}

impl Faulty {
    pub(crate) fn new(inner: Arc<dyn Target>, seed: u64, percent: u64) -> Self {
        let (writes, faults, late) = (AtomicU64::new(0), AtomicU64::new(0), Mutex::default());
        Self { inner, shared: Arc::new(Shared { seed, percent, writes, faults, late }) }
    }

    /// Writes that something happened to.
    pub(crate) fn faults(&self) -> u64 {
        self.shared.faults.load(Ordering::Acquire)
    }
}

impl Shared {
    fn next(&self) -> Fault {
        let mut random = Random::new(self.seed ^ (self.writes.fetch_add(1, Ordering::AcqRel) << 32));
        if !random.percent(self.percent) {
            return Fault::None;
        }
        self.faults.fetch_add(1, Ordering::AcqRel);
        let millis = random.between(1, 30);
        let faults = [Fault::CutBefore, Fault::CutAfter, Fault::Late(millis), Fault::Refused, Fault::Deadlock, Fault::Slow(millis)];
        if random.percent(3) { Fault::PanicAfter } else { *random.one(&faults) }
    }
}

#[async_trait]
impl Target for Faulty {
    fn database(&self) -> Database {
        self.inner.database()
    }

    fn info(&self) -> &TargetInfo {
        self.inner.info()
    }

    fn resolve(&self, plan: WritePlan, flush_size: usize) -> Result<WritePlan, TargetError> {
        self.inner.resolve(plan, flush_size)
    }

    fn ddl(&self, table: &Table) -> Vec<String> {
        self.inner.ddl(table)
    }

    async fn create(&self, table: &Table, run_id: &str) -> Result<(), TargetError> {
        self.inner.create(table, run_id).await
    }

    async fn owner(&self, table: &str) -> Result<Option<String>, TargetError> {
        self.inner.owner(table).await
    }

    async fn acquire(&self) -> Result<Box<dyn Session>, Failure> {
        let inner = Some(self.inner.acquire().await?);
        Ok(Box::new(FaultySession { inner, shared: Arc::clone(&self.shared) }))
    }

    async fn quiesce(&self, sessions: &BTreeSet<u64>, limit: Duration) -> Result<BTreeSet<u64>, TargetError> {
        let mut late = std::mem::take(&mut *self.shared.late.lock().unwrap());
        while late.join_next().await.is_some() {}
        self.inner.quiesce(sessions, limit).await
    }

    async fn reader(&self) -> Result<Arc<dyn Reader>, TargetError> {
        self.inner.reader().await
    }

    fn pool(&self) -> PoolUse {
        self.inner.pool()
    }
}

struct FaultySession {
    /// Gone once it was given up.
    inner: Option<Box<dyn Session>>,
    shared: Arc<Shared>,
}

fn failure<T>(class: ErrorClass, applied: Applied) -> Result<T, Failure> {
    Err(Failure { class, applied, message: "as the proof asked".to_owned() })
}

#[async_trait]
impl Session for FaultySession {
    fn id(&self) -> u64 {
        self.inner.as_ref().map_or(0, |session| session.id())
    }

    async fn write(&mut self, plan: &Arc<WritePlan>, rows: &Arc<Vec<Row>>) -> Result<Written, Failure> {
        let Some(mut session) = self.inner.take() else { return failure(ErrorClass::Connection, Applied::No) };
        let fault = self.shared.next();
        match fault {
            Fault::CutBefore => return failure(ErrorClass::Connection, Applied::Unknown),
            Fault::Refused => return failure(ErrorClass::Constraint, Applied::No),
            Fault::Deadlock => return failure(ErrorClass::Deadlock, Applied::No),
            Fault::Late(millis) => {
                let (plan, rows) = (Arc::clone(plan), Arc::clone(rows));
                self.shared.late.lock().unwrap().spawn(async move {
                    tokio::time::sleep(Duration::from_millis(millis)).await;
                    // What came of it nobody learns.
                    let _ = session.write(&plan, &rows).await;
                });
                return failure(ErrorClass::Timeout, Applied::Unknown);
            }
            Fault::Slow(millis) => tokio::time::sleep(Duration::from_millis(millis)).await,
            Fault::None | Fault::CutAfter | Fault::PanicAfter => {}
        }
        let written = session.write(plan, rows).await?;
        assert!(fault != Fault::PanicAfter, "a panic, as the proof asked");
        self.inner = Some(session);
        if fault == Fault::CutAfter { failure(ErrorClass::Connection, Applied::Unknown) } else { Ok(written) }
    }
}
