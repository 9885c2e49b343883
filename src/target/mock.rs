//! A database in memory that loses, duplicates, corrupts, stalls and lies on demand: a peer of the real ones, for tests of the
//! pipeline and the verifier and for users' own.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use super::digest::{self, RangeDigest};
use super::{
    Applied, Conflict, Database, ErrorClass, Failure, KeyRange, Method, PoolUse, Reader, Session, Target, TargetError, TargetInfo,
    WritePlan, Written,
};
use crate::table::{Row, RowBlock, Table};

/// What goes wrong with one write.
#[derive(Clone, Debug, Default)]
pub struct Fault {
    /// How long the write takes.
    pub delay: Duration,
    /// What is stored instead of the rows sent, if not they.
    pub stored: Option<Vec<Row>>,
    /// What is answered instead of an acknowledgement. A failure that was definitely not applied stores nothing.
    pub answer: Option<Failure>,
    /// Panics after storing.
    pub panic: bool,
}

impl Fault {
    /// Answers with `class`, having stored nothing.
    #[must_use]
    pub fn reject(class: ErrorClass) -> Self {
        Self { answer: Some(Failure { class, applied: Applied::No, message: "as asked".to_owned() }), ..Self::default() }
    }

    /// Cuts the connection: nobody can say whether the rows were stored, which they were if `applied`.
    #[must_use]
    pub fn cut(applied: bool) -> Self {
        let answer = Some(Failure { class: ErrorClass::Connection, applied: Applied::Unknown, message: "cut as asked".to_owned() });
        Self { answer, stored: (!applied).then(Vec::new), ..Self::default() }
    }
}

/// Decides what goes wrong: called with the number of the write (from 0) and its rows.
type Script = Box<dyn Fn(u64, &[Row]) -> Fault + Send + Sync>;

/// The database.
pub struct Mock {
    info: TargetInfo,
    shared: Arc<Shared>,
    size: u32,
}

struct Shared {
    /// Rows by key; several of one key only where the table's key is not unique, or a fault put them there.
    rows: Mutex<BTreeMap<i64, Vec<Row>>>,
    owner: Mutex<Option<String>>,
    script: Script,
    writes: AtomicU64,
    slots: Arc<Semaphore>,
    most_at_once: AtomicU64,
    at_once: AtomicU64,
}

impl Mock {
    /// A database with `size` connections that does what `script` says.
    #[must_use]
    pub fn new(size: u32, script: impl Fn(u64, &[Row]) -> Fault + Send + Sync + 'static) -> Self {
        let info = TargetInfo {
            name: "mock".to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            settings: Vec::new(),
            max_binds: usize::MAX,
            max_bytes: usize::MAX,
        };
        let shared = Shared {
            rows: Mutex::default(),
            owner: Mutex::default(),
            script: Box::new(script),
            writes: AtomicU64::new(0),
            slots: Arc::new(Semaphore::new(size as usize)),
            most_at_once: AtomicU64::new(0),
            at_once: AtomicU64::new(0),
        };
        Self { info, shared: Arc::new(shared), size }
    }

    /// What is stored, in key order.
    #[must_use]
    pub fn rows(&self) -> Vec<Row> {
        lock(&self.shared.rows).values().flatten().cloned().collect()
    }

    /// Writes begun so far.
    #[must_use]
    pub fn writes(&self) -> u64 {
        self.shared.writes.load(Ordering::Acquire)
    }

    /// Most writes that were ever under way together.
    #[must_use]
    pub fn most_at_once(&self) -> u64 {
        self.shared.most_at_once.load(Ordering::Acquire)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[async_trait]
impl Target for Mock {
    fn database(&self) -> Database {
        Database::Sqlite
    }

    fn info(&self) -> &TargetInfo {
        &self.info
    }

    fn resolve(&self, mut plan: WritePlan, _flush_size: usize) -> Result<WritePlan, TargetError> {
        plan.method = Method::Values;
        Ok(plan)
    }

    fn ddl(&self, _table: &Table) -> Vec<String> {
        Vec::new()
    }

    async fn create(&self, _table: &Table, run_id: &str) -> Result<(), TargetError> {
        lock(&self.shared.rows).clear();
        *lock(&self.shared.owner) = Some(run_id.to_owned());
        Ok(())
    }

    async fn owner(&self, _table: &str) -> Result<Option<String>, TargetError> {
        Ok(lock(&self.shared.owner).clone())
    }

    async fn acquire(&self) -> Result<Box<dyn Session>, Failure> {
        let slot = Arc::clone(&self.shared.slots).acquire_owned().await.map_err(|_| Failure {
            class: ErrorClass::Connection,
            applied: Applied::No,
            message: "closed".to_owned(),
        })?;
        Ok(Box::new(MockSession { shared: Arc::clone(&self.shared), _slot: slot }))
    }

    async fn quiesce(&self, _sessions: &BTreeSet<u64>, _limit: Duration) -> Result<BTreeSet<u64>, TargetError> {
        Ok(BTreeSet::new())
    }

    async fn reader(&self) -> Result<Arc<dyn Reader>, TargetError> {
        Ok(Arc::new(MockReader { rows: lock(&self.shared.rows).clone() }))
    }

    fn pool(&self) -> PoolUse {
        PoolUse { active: self.size - self.shared.slots.available_permits() as u32, max: self.size }
    }
}

struct MockSession {
    shared: Arc<Shared>,
    _slot: OwnedSemaphorePermit,
}

#[async_trait]
impl Session for MockSession {
    fn id(&self) -> u64 {
        1
    }

    async fn write(&mut self, plan: &Arc<WritePlan>, rows: &Arc<Vec<Row>>) -> Result<Written, Failure> {
        let shared = &self.shared;
        let number = shared.writes.fetch_add(1, Ordering::AcqRel);
        let at_once = shared.at_once.fetch_add(1, Ordering::AcqRel) + 1;
        shared.most_at_once.fetch_max(at_once, Ordering::AcqRel);
        let fault = (shared.script)(number, rows);
        if !fault.delay.is_zero() {
            tokio::time::sleep(fault.delay).await;
        }
        shared.at_once.fetch_sub(1, Ordering::AcqRel);
        if fault.answer.as_ref().is_none_or(|failure| failure.applied == Applied::Unknown) {
            store(&mut lock(&shared.rows), plan, fault.stored.as_deref().unwrap_or(rows))?;
        }
        assert!(!fault.panic, "a panic, as asked");
        fault.answer.map_or(Ok(Written::default()), Err)
    }
}

/// Stores all rows or none.
fn store(stored: &mut BTreeMap<i64, Vec<Row>>, plan: &WritePlan, rows: &[Row]) -> Result<(), Failure> {
    let taken = |key: &i64| plan.table.unique_key && stored.contains_key(key);
    if plan.conflict == Conflict::Error
        && let Some(key) = rows.iter().map(|row| plan.table.key_of(row)).find(taken)
    {
        return Err(Failure { class: ErrorClass::Constraint, applied: Applied::No, message: format!("key {key} exists") });
    }
    for row in rows {
        let copies = stored.entry(plan.table.key_of(row)).or_default();
        match plan.conflict {
            Conflict::Ignore if !copies.is_empty() => {}
            Conflict::Replace | Conflict::Update => *copies = vec![row.clone()],
            _ => copies.push(row.clone()),
        }
    }
    Ok(())
}

struct MockReader {
    rows: BTreeMap<i64, Vec<Row>>,
}

#[async_trait]
impl Reader for MockReader {
    async fn scan(&self, table: &Table, range: KeyRange, blocks: mpsc::Sender<RowBlock>) -> Result<(), TargetError> {
        let rows: Vec<&Row> = self.rows.iter().filter(|(key, _)| range.holds(**key)).flat_map(|(_, copies)| copies).collect();
        for rows in rows.chunks(RowBlock::ROWS) {
            if blocks.send(block(table, rows)).await.is_err() {
                break;
            }
        }
        Ok(())
    }

    async fn digest(&self, table: &Table, ranges: &[KeyRange]) -> Result<Vec<RangeDigest>, TargetError> {
        let mut scratch = Vec::new();
        let mut digest = |range: &KeyRange| {
            let mut digest = RangeDigest::default();
            let inside = self.rows.iter().filter(|(key, _)| range.holds(**key));
            inside.flat_map(|(key, copies)| copies.iter().map(move |row| (key, row))).for_each(|(key, row)| {
                digest.add(*key, self.row_hash(table, row, &mut scratch));
            });
            digest
        };
        Ok(ranges.iter().map(&mut digest).collect())
    }
}

/// Rows as a database would send them back.
#[must_use]
pub fn block(table: &Table, rows: &[&Row]) -> RowBlock {
    let mut block = RowBlock::new(table.columns.len());
    let mut decimal = String::new();
    for row in rows {
        for (column, value) in table.columns.iter().zip(*row) {
            block.push(digest::cell_of(column.ty, value, &mut decimal));
        }
    }
    block
}
