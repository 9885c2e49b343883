//! SQLite, embedded, by rusqlite: a synchronous library whose calls run on blocking threads, one connection a batch in flight.
//!
//! sqlx is the driver of the servers only: its SQLite driver puts a channel and a thread of its own before each statement, and cannot
//! be linked beside the rusqlite that gives the raw speed of a prepared statement, the limits and the interrupt handle safely.

mod pragma;
mod restraint;
mod scan;
mod write;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use rusqlite::limits::Limit;
use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension as _};
use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::{
    Applied, Conflict, Counters, Database, ErrorClass, Failure, Method, PoolUse, Reader, Session, Target, TargetError, TargetInfo,
    WritePlan, sql,
};
use crate::scenario::{Pool, SqliteConfig};
use crate::table::{ColumnType, SURROGATE_KEY, Table};
pub use restraint::Restraint;

/// An SQLite file and the run's connections to it.
pub struct Sqlite {
    info: TargetInfo,
    shared: Arc<Shared>,
}

/// What the target and its sessions share.
struct Shared {
    path: PathBuf,
    config: SqliteConfig,
    idle: Mutex<Vec<Connection>>,
    slots: Arc<Semaphore>,
    size: u32,
    acquire_timeout: Duration,
    statement_timeout: Duration,
    /// Batches that were committed.
    committed: AtomicU64,
}

/// The scenario's file: `<report-dir>/data/<scenario name>.db` unless it names one.
pub(crate) fn file(config: &SqliteConfig, report_dir: &Path, scenario_name: &str) -> PathBuf {
    config.path.as_ref().map_or_else(|| report_dir.join("data").join(format!("{scenario_name}.db")), PathBuf::from)
}

impl Sqlite {
    /// Opens the file (makes it if `create`), sets the pragmas and reads them back.
    ///
    /// # Errors
    /// When the file cannot be opened or written; the message says which and the mend.
    pub async fn connect(path: &Path, config: &SqliteConfig, pool: &Pool, size: u32, create: bool) -> Result<Self, TargetError> {
        let (path, config) = (path.to_owned(), config.clone());
        let (acquire_timeout, statement_timeout) = (pool.acquire_timeout.0, pool.statement_timeout.0);
        blocking(move || {
            if let Some(folder) = path.parent().filter(|_| create) {
                std::fs::create_dir_all(folder).map_err(|e| unreachable(&path, &e))?;
            }
            if !create && !path.exists() {
                return Err(TargetError::Unreachable(format!(
                    "SQLite file {} does not exist; name the file that the run wrote in target.sqlite.path or --database-url",
                    path.display()
                )));
            }
            let connection = open(&path, &config).map_err(|e| unreachable(&path, &e))?;
            let info = info(&connection).map_err(|e| unreachable(&path, &e))?;
            let slots = Arc::new(Semaphore::new(size as usize));
            let idle = Mutex::new(vec![connection]);
            let committed = AtomicU64::new(0);
            let shared = Shared { path, config, idle, slots, size, acquire_timeout, statement_timeout, committed };
            Ok(Self { info, shared: Arc::new(shared) })
        })
        .await
    }
}

fn unreachable(path: &Path, error: &dyn std::fmt::Display) -> TargetError {
    TargetError::Unreachable(format!(
        "SQLite file {} cannot be used: {error}; name a file in a folder that can be written, in target.sqlite.path or --database-url",
        path.display()
    ))
}

/// A connection with the run's pragmas set.
pub(crate) fn open(path: &Path, config: &SqliteConfig) -> rusqlite::Result<Connection> {
    // Each connection is used by one thread at a time, so SQLite's own locks would only cost.
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    pragma::set(&connection, config)?;
    Ok(connection)
}

/// The pragmas of a connection with the run's settings, except those that would change the file.
pub(crate) fn look(path: &Path, config: &SqliteConfig) -> rusqlite::Result<Vec<(String, String)>> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    pragma::set_of_connection(&connection, config)?;
    // Nothing of the file is read before the first question.
    connection.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(()))?;
    pragma::read_back(&connection)
}

fn info(connection: &Connection) -> rusqlite::Result<TargetInfo> {
    Ok(TargetInfo {
        name: "SQLite".to_owned(),
        version: rusqlite::version().to_owned(),
        settings: pragma::read_back(connection)?,
        max_binds: connection.limit(Limit::SQLITE_LIMIT_VARIABLE_NUMBER)? as usize,
        max_bytes: connection.limit(Limit::SQLITE_LIMIT_LENGTH)? as usize,
    })
}

/// Runs `work` on a blocking thread; a panic in it goes on in the caller.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(value) => value,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_) => panic!("the runtime is shutting down"),
        },
    }
}

fn quote(name: &str) -> String {
    sql::quoted(name, '"')
}

/// The statements that make `table`, STRICT so that every type is enforced; decimals are TEXT in canonical form, timestamps INTEGER
/// microseconds since 1970, booleans 0 and 1, UUIDs 16-byte BLOBs.
#[must_use]
pub fn ddl(table: &Table) -> Vec<String> {
    let mut columns = Vec::new();
    if !table.unique_key {
        columns.push(format!("{} INTEGER PRIMARY KEY", quote(SURROGATE_KEY)));
    }
    for (position, column) in table.columns.iter().enumerate() {
        let ty = match column.ty {
            ColumnType::Int64 | ColumnType::Bool | ColumnType::Timestamp => "INTEGER",
            ColumnType::Float64 => "REAL",
            ColumnType::Decimal { .. } | ColumnType::Text => "TEXT",
            ColumnType::Bytes | ColumnType::Uuid => "BLOB",
        };
        let null = if column.nullable { "" } else { " NOT NULL" };
        let key = if position == table.key && table.unique_key { " PRIMARY KEY" } else { "" };
        columns.push(format!("{} {ty}{null}{key}", quote(&column.name)));
    }
    let mut statements = vec![format!("CREATE TABLE {} (\n  {}\n) STRICT", quote(&table.name), columns.join(",\n  "))];
    for (position, column) in table.columns.iter().enumerate() {
        if column.index || (position == table.key && !table.unique_key) {
            let index = quote(&format!("{}_{}_idx", table.name, column.name));
            statements.push(format!("CREATE INDEX {index} ON {} ({})", quote(&table.name), quote(&column.name)));
        }
    }
    statements
}

const OWNER_DDL: &str = "CREATE TABLE IF NOT EXISTS batchsql_owner (table_name TEXT PRIMARY KEY, run_id TEXT NOT NULL, \
     created_by TEXT NOT NULL, created_at TEXT NOT NULL DEFAULT CURRENT_TIMESTAMP) STRICT";

fn table_exists(connection: &Connection, table: &str) -> rusqlite::Result<bool> {
    connection
        .query_row("SELECT count(*) FROM sqlite_schema WHERE name = ?1 COLLATE NOCASE", [table], |row| row.get::<_, i64>(0))
        .map(|n| n > 0)
}

fn owner(connection: &Connection, table: &str) -> rusqlite::Result<Option<String>> {
    if !table_exists(connection, "batchsql_owner")? {
        return Ok(None);
    }
    // SQLite keeps the text that made a table, comments in it included.
    let made = "SELECT o.run_id, s.sql FROM batchsql_owner o JOIN sqlite_schema s ON s.name = o.table_name AND s.type = 'table' \
                WHERE o.table_name = ?1";
    let marked = connection.query_row(made, [table], |row| Ok((row.get(0)?, row.get(1)?))).optional()?;
    Ok(marked.filter(|(run_id, made): &(String, String)| made.contains(&signed(run_id))).map(|(run_id, _)| run_id))
}

/// A comment within the statement that makes the table.
fn signed(run_id: &str) -> String {
    format!("/* {} */", sql::signature(run_id).replace("*/", "* /"))
}

fn create(connection: &mut Connection, table: &Table, run_id: &str) -> Result<(), TargetError> {
    let failed = |e: rusqlite::Error| TargetError::Failed(format!("table {:?} cannot be created in SQLite: {e}", table.name));
    let transaction = connection.transaction().map_err(failed)?;
    if table_exists(&transaction, &table.name).map_err(failed)? {
        if owner(&transaction, &table.name).map_err(failed)?.is_none() {
            return Err(TargetError::ForeignTable { table: table.name.clone() });
        }
        transaction.execute_batch(&format!("DROP TABLE {}", quote(&table.name))).map_err(failed)?;
    }
    transaction.execute_batch(OWNER_DDL).map_err(failed)?;
    for statement in ddl(table) {
        let signed = statement.replacen(" (\n", &format!(" ({}\n", signed(run_id)), usize::from(statement.starts_with("CREATE TABLE")));
        transaction.execute_batch(&signed).map_err(failed)?;
    }
    let mark = "INSERT OR REPLACE INTO batchsql_owner (table_name, run_id, created_by) VALUES (?1, ?2, ?3)";
    transaction.execute(mark, [&table.name, run_id, sql::CREATED_BY]).map_err(failed)?;
    transaction.commit().map_err(failed)
}

/// What an error is counted as, by result code.
fn classify(error: &rusqlite::Error) -> ErrorClass {
    let rusqlite::Error::SqliteFailure(code, _) = error else { return ErrorClass::Other };
    match code.code {
        ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked => ErrorClass::Busy,
        ErrorCode::ConstraintViolation => ErrorClass::Constraint,
        ErrorCode::TooBig => ErrorClass::TooLarge,
        ErrorCode::TypeMismatch => ErrorClass::Data,
        ErrorCode::DiskFull => ErrorClass::DiskFull,
        ErrorCode::ReadOnly => ErrorClass::ReadOnly,
        ErrorCode::OperationInterrupted => ErrorClass::Timeout,
        _ => ErrorClass::Other,
    }
}

impl Shared {
    /// Takes an idle connection or opens one.
    async fn connection(self: &Arc<Self>) -> rusqlite::Result<Connection> {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        match idle {
            Some(connection) => Ok(connection),
            None => {
                let shared = Arc::clone(self);
                blocking(move || open(&shared.path, &shared.config)).await
            }
        }
    }

    async fn run<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&mut Connection) -> Result<T, TargetError> + Send + 'static,
    ) -> Result<T, TargetError> {
        let mut connection = self.connection().await.map_err(|e| unreachable(&self.path, &e))?;
        let (connection, result) = blocking(move || {
            let result = work(&mut connection);
            (connection, result)
        })
        .await;
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(connection);
        result
    }
}

#[async_trait]
impl Target for Sqlite {
    fn database(&self) -> Database {
        Database::Sqlite
    }

    fn info(&self) -> &TargetInfo {
        &self.info
    }

    fn resolve(&self, mut plan: WritePlan, _flush_size: usize) -> Result<WritePlan, TargetError> {
        match plan.method {
            Method::Auto => plan.method = Method::Prepared,
            Method::Prepared | Method::Values => {}
            Method::Unnest | Method::Copy => {
                return Err(TargetError::Failed("SQLite has no method unnest or copy; use auto, prepared or values".to_owned()));
            }
        }
        Ok(plan)
    }

    fn ddl(&self, table: &Table) -> Vec<String> {
        ddl(table)
    }

    async fn create(&self, table: &Table, run_id: &str) -> Result<(), TargetError> {
        let (table, run_id) = (table.clone(), run_id.to_owned());
        self.shared.run(move |connection| create(connection, &table, &run_id)).await
    }

    async fn owner(&self, table: &str) -> Result<Option<String>, TargetError> {
        let table = table.to_owned();
        let failed = |e| TargetError::Failed(format!("batchsql_owner cannot be read: {e}"));
        self.shared.run(move |connection| owner(connection, &table).map_err(failed)).await
    }

    async fn acquire(&self) -> Result<Box<dyn Session>, Failure> {
        let failure = |class, message| Failure { class, applied: Applied::No, message };
        let wait = tokio::time::timeout(self.shared.acquire_timeout, Arc::clone(&self.shared.slots).acquire_owned()).await;
        let slot = wait
            .map_err(|_| failure(ErrorClass::Timeout, "no connection became free within target.pool.acquire_timeout".to_owned()))?
            .map_err(|_| failure(ErrorClass::Connection, "the run's connections are closed".to_owned()))?;
        let connection = self.shared.connection().await.map_err(|e| failure(classify(&e), e.to_string()))?;
        Ok(Box::new(SqliteSession { shared: Arc::clone(&self.shared), connection: Some(connection), _slot: slot }))
    }

    /// SQLite has no session list: the run is quiet when its own connections are closed.
    async fn quiesce(&self, _sessions: &BTreeSet<u64>, limit: Duration) -> Result<BTreeSet<u64>, TargetError> {
        let Ok(Ok(_slots)) = tokio::time::timeout(limit, self.shared.slots.acquire_many(self.shared.size)).await else {
            return Ok(BTreeSet::from([0]));
        };
        let connections = std::mem::take(&mut *self.shared.idle.lock().unwrap_or_else(PoisonError::into_inner));
        blocking(move || {
            // A WAL that a reader still holds is only left longer.
            for connection in connections {
                let _ = connection.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)");
            }
        })
        .await;
        Ok(BTreeSet::new())
    }

    async fn reader(&self) -> Result<Arc<dyn Reader>, TargetError> {
        Ok(Arc::new(scan::SqliteReader { path: self.shared.path.clone() }))
    }

    fn pool(&self) -> PoolUse {
        let free = u32::try_from(self.shared.slots.available_permits()).unwrap_or(u32::MAX);
        PoolUse { active: self.shared.size.saturating_sub(free), max: self.shared.size }
    }

    /// The write-ahead log's file never shrinks while it is open: its size is the most that was in it.
    async fn written(&self) -> Counters {
        let mut wal = self.shared.path.clone().into_os_string();
        wal.push("-wal");
        let wal = std::fs::metadata(wal);
        Counters { transactions: Some(self.shared.committed.load(Ordering::Relaxed)), wal_bytes: Some(wal.map_or(0, |file| file.len())) }
    }
}

/// A connection held for one batch.
struct SqliteSession {
    shared: Arc<Shared>,
    /// Gone while a batch runs on its thread, and for good if it must not be used again.
    connection: Option<Connection>,
    _slot: OwnedSemaphorePermit,
}

#[async_trait]
impl Session for SqliteSession {
    fn id(&self) -> u64 {
        0
    }

    async fn write(&mut self, plan: &Arc<WritePlan>, rows: &Arc<Vec<crate::table::Row>>) -> Result<super::Written, Failure> {
        let mut connection = self.connection.take().expect("a session without its connection is never used again");
        let limit = self.shared.statement_timeout;
        if let Err(error) = restraint::apply(&connection, &self.shared.config) {
            let message = error.to_string();
            return Err(Failure { class: classify(&error), applied: Applied::No, message });
        }
        let (connection, result) = if Handle::current().runtime_flavor() == RuntimeFlavor::MultiThread {
            // Here, and not on another thread: a batch of 200 rows is written in less time than it takes to wake one, twice.
            tokio::task::block_in_place(move || {
                let result = write::batch(&mut connection, plan, rows, limit);
                (connection, result)
            })
        } else {
            let (plan, rows) = (Arc::clone(plan), Arc::clone(rows));
            blocking(move || {
                let result = write::batch(&mut connection, &plan, &rows, limit);
                (connection, result)
            })
            .await
        };
        if connection.is_autocommit() {
            self.connection = Some(connection);
        }
        result.map(|()| {
            self.shared.committed.fetch_add(1, Ordering::Relaxed);
            super::Written::default()
        })
    }
}

impl Drop for SqliteSession {
    fn drop(&mut self) {
        if let Some(connection) = self.connection.take() {
            self.shared.idle.lock().unwrap_or_else(PoisonError::into_inner).push(connection);
        }
    }
}

/// How a conflict strategy is said in SQLite: what stands before INTO and at the statement's end.
fn conflict_sql(plan: &WritePlan) -> (&'static str, String) {
    let key = quote(&plan.table.columns[plan.table.key].name);
    match plan.conflict {
        Conflict::Error => ("INSERT", String::new()),
        Conflict::Ignore => ("INSERT", format!(" ON CONFLICT ({key}) DO NOTHING")),
        Conflict::Replace => ("INSERT OR REPLACE", String::new()),
        Conflict::Update => {
            let others = plan.table.columns.iter().enumerate().filter(|(position, _)| *position != plan.table.key);
            let sets: Vec<String> = others.map(|(_, column)| format!("{0} = excluded.{0}", quote(&column.name))).collect();
            let action = if sets.is_empty() { "NOTHING".to_owned() } else { format!("UPDATE SET {}", sets.join(", ")) };
            ("INSERT", format!(" ON CONFLICT ({key}) DO {action}"))
        }
    }
}

#[cfg(test)]
mod tests;
