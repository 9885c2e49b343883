//! What is driven: the trait every database implements, the classes of what can go wrong with it, and [`connect`], the one
//! place that branches on the kind of target.

pub(crate) mod allow;
pub mod digest;
pub mod log;
pub mod mock;
pub mod mysql;
pub mod postgres;
mod server;
mod sql;
pub mod sqlite;

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use crate::scenario::TargetConfig;
use crate::table::{Row, RowBlock, Table};
use digest::RangeDigest;
pub(crate) use server::describe;
pub(crate) use sql::quoted;

/// The kinds of database that are told apart, as the `database` label of every metric. MariaDB is driven as MySQL; its real
/// name and version are in [`TargetInfo`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Database {
    /// An embedded SQLite file.
    Sqlite,
    /// PostgreSQL.
    Postgres,
    /// MySQL or MariaDB.
    Mysql,
}

impl Database {
    /// The metric label.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Database::Sqlite => "sqlite",
            Database::Postgres => "postgres",
            Database::Mysql => "mysql",
        }
    }
}

/// What a failed write is counted as. Decided from SQLSTATE, error number or SQLite result code, never from a message's text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "the names are the documentation")]
pub enum ErrorClass {
    Deadlock,
    LockTimeout,
    Serialization,
    Busy,
    Timeout,
    Connection,
    Constraint,
    TooLarge,
    Data,
    DiskFull,
    /// The database takes no writes for now.
    ReadOnly,
    Cancelled,
    Panic,
    Check,
    /// HTTP: no TCP connection within the limit.
    ConnectTimeout,
    /// HTTP: no TLS session within the limit.
    TlsTimeout,
    /// HTTP: no header of a reply within the limit.
    HeaderTimeout,
    /// HTTP: no token with content within the limit.
    FirstTokenTimeout,
    /// HTTP: no event within the limit after the one before.
    TokenGapTimeout,
    /// HTTP: the reply did not end within the limit.
    TotalTimeout,
    /// HTTP: the server's certificate is not trusted, or TLS failed otherwise.
    Tls,
    /// HTTP: an answer with an error status.
    Status,
    /// HTTP: what came is no HTTP, no event stream, or no JSON where one is needed.
    Protocol,
    /// HTTP: a redirect to another host, or too many of them.
    Redirect,
    Other,
}

impl ErrorClass {
    /// Every class, in the order of reports.
    pub const ALL: [ErrorClass; 25] = [
        ErrorClass::Deadlock,
        ErrorClass::LockTimeout,
        ErrorClass::Serialization,
        ErrorClass::Busy,
        ErrorClass::Timeout,
        ErrorClass::Connection,
        ErrorClass::Constraint,
        ErrorClass::TooLarge,
        ErrorClass::Data,
        ErrorClass::DiskFull,
        ErrorClass::ReadOnly,
        ErrorClass::Cancelled,
        ErrorClass::Panic,
        ErrorClass::Check,
        ErrorClass::ConnectTimeout,
        ErrorClass::TlsTimeout,
        ErrorClass::HeaderTimeout,
        ErrorClass::FirstTokenTimeout,
        ErrorClass::TokenGapTimeout,
        ErrorClass::TotalTimeout,
        ErrorClass::Tls,
        ErrorClass::Status,
        ErrorClass::Protocol,
        ErrorClass::Redirect,
        ErrorClass::Other,
    ];

    /// The name in reports and metric labels.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            ErrorClass::Deadlock => "deadlock",
            ErrorClass::LockTimeout => "lock_timeout",
            ErrorClass::Serialization => "serialization",
            ErrorClass::Busy => "busy",
            ErrorClass::Timeout => "timeout",
            ErrorClass::Connection => "connection",
            ErrorClass::Constraint => "constraint",
            ErrorClass::TooLarge => "too_large",
            ErrorClass::Data => "data",
            ErrorClass::DiskFull => "disk_full",
            ErrorClass::ReadOnly => "read_only",
            ErrorClass::Cancelled => "cancelled",
            ErrorClass::Panic => "panic",
            ErrorClass::Check => "check",
            ErrorClass::ConnectTimeout => "connect_timeout",
            ErrorClass::TlsTimeout => "tls_timeout",
            ErrorClass::HeaderTimeout => "header_timeout",
            ErrorClass::FirstTokenTimeout => "first_token_timeout",
            ErrorClass::TokenGapTimeout => "token_gap_timeout",
            ErrorClass::TotalTimeout => "total_timeout",
            ErrorClass::Tls => "tls",
            ErrorClass::Status => "status",
            ErrorClass::Protocol => "protocol",
            ErrorClass::Redirect => "redirect",
            ErrorClass::Other => "other",
        }
    }

    /// Whether the same write may succeed when tried again.
    #[must_use]
    pub fn is_transient(self) -> bool {
        matches!(
            self,
            ErrorClass::Deadlock
                | ErrorClass::LockTimeout
                | ErrorClass::Serialization
                | ErrorClass::Busy
                | ErrorClass::Timeout
                | ErrorClass::Connection
                | ErrorClass::ReadOnly
        )
    }
}

/// Whether a failed write can have been applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Applied {
    /// Definitely not: the server answered with an error, or nothing was sent.
    No,
    /// Nobody can say: timeout, cut connection or crash after sending.
    Unknown,
}

/// Why a batch was not acknowledged.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{}: {message}", class.as_str())]
pub struct Failure {
    /// What it is counted as.
    pub class: ErrorClass,
    /// Whether it can have been applied all the same.
    pub applied: Applied,
    /// The driver's words, without secrets; shown as an example, never branched on.
    pub message: String,
}

/// Why a target cannot be used (before a run) or read (after it).
#[derive(Debug, thiserror::Error)]
pub enum TargetError {
    /// It does not answer, refuses the login, or lacks the database. The message says what was tried and the mend.
    #[error("{0}")]
    Unreachable(String),
    /// A table of this name exists and was not made by this tool.
    #[error(
        "table {table:?} exists and was not made by batchsql: nothing was dropped; name another table in workload.batch_insert.table, or drop it yourself"
    )]
    ForeignTable {
        /// Its name.
        table: String,
    },
    /// Anything else, with the mend where there is one.
    #[error("{0}")]
    Failed(String),
}

/// What is stored when a key exists already.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Conflict {
    /// Plain INSERT: the batch is rejected.
    #[default]
    Error,
    /// The stored row stays.
    Ignore,
    /// Every non-key column is set to the new row's values.
    Replace,
    /// The same values as `replace`, by the database's update form (no delete and re-insert).
    Update,
}

/// How rows travel to the server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Method {
    /// The fastest that the conflict strategy and the batch size allow; see `docs/methods.md`.
    #[default]
    Auto,
    /// Multi-row `INSERT … VALUES (…), (…)` with bound values (all databases).
    Values,
    /// `INSERT … SELECT FROM UNNEST(arrays)` (Postgres).
    Unnest,
    /// `COPY … FROM STDIN (FORMAT binary)` (Postgres, only under `conflict: error`).
    Copy,
    /// One prepared single-row INSERT executed row by row inside the transaction (SQLite).
    Prepared,
}

/// Where and how the rows of one table are written.
#[derive(Clone, Debug)]
pub struct WritePlan {
    /// The table.
    pub table: Table,
    /// What happens to a key that exists.
    pub conflict: Conflict,
    /// How rows travel; resolved (not [`Method::Auto`]) once [`Target::resolve`] has seen it.
    pub method: Method,
}

/// What was learnt about the target when connecting.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TargetInfo {
    /// The server's own name: `SQLite`, `PostgreSQL`, `MySQL`, `MariaDB`.
    pub name: String,
    /// The server's own version string.
    pub version: String,
    /// Settings read back on the run's own connections (pragmas, durability settings), name and value.
    pub settings: Vec<(String, String)>,
    /// Most bind variables in one statement.
    pub max_binds: usize,
    /// Most bytes in one statement.
    pub max_bytes: usize,
}

/// How busy the connection pool is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PoolUse {
    /// Connections in use now.
    pub active: u32,
    /// Most connections.
    pub max: u32,
}

/// What the server said about an acknowledged batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Written {
    /// Warnings that tell of altered values (truncation, rounding, replaced characters); duplicate-key notes under
    /// `conflict: ignore` and deprecation notes are not among them.
    pub warnings: u64,
}

/// Keys `from..to`; an open end reaches to the type's limit, so that rows nobody attempted are read too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyRange {
    /// First key, or open.
    pub from: Option<i64>,
    /// First key not in the range, or open.
    pub to: Option<i64>,
}

impl KeyRange {
    /// Whether `key` lies in the range.
    #[must_use]
    pub fn holds(&self, key: i64) -> bool {
        self.from.is_none_or(|from| key >= from) && self.to.is_none_or(|to| key < to)
    }
}

/// One connection of the pool, held for one batch. Dropping it gives it back, or closes it if its last write's outcome is
/// unknown or the connection is broken.
#[async_trait]
pub trait Session: Send {
    /// The server's id of this session (`pg_backend_pid()`, `CONNECTION_ID()`); 0 where there is none (SQLite).
    fn id(&self) -> u64;

    /// Both are shared so that a blocking driver can take them to its own thread. Writes `rows` as one transaction, split into as many statements as the target's limits ask for; one statement never
    /// holds a key twice. Rows are in the order in which they must take effect.
    ///
    /// # Errors
    /// [`Failure`] says whether any of it can have been applied. Whatever could be rolled back has been.
    async fn write(&mut self, plan: &Arc<WritePlan>, rows: &Arc<Vec<Row>>) -> Result<Written, Failure>;
}

/// A consistent view of a table for reading back.
#[async_trait]
pub trait Reader: Send + Sync {
    /// Streams the rows of `range` in key order, all columns of `table` in its order, as blocks. Returns when all were sent,
    /// or when the receiver is gone.
    ///
    /// # Errors
    /// When the table cannot be read to the end.
    async fn scan(&self, table: &Table, range: KeyRange, blocks: mpsc::Sender<RowBlock>) -> Result<(), TargetError>;

    /// The hash of `row` as [`Reader::digest`] adds it up. `scratch` only saves allocations.
    fn row_hash(&self, table: &Table, row: &Row, scratch: &mut Vec<u8>) -> u64 {
        digest::row_hash(table, row, scratch)
    }

    /// The digest of each of `ranges`, computed by the database.
    ///
    /// # Errors
    /// When the database cannot compute what [`Reader::row_hash`] computes, for instance because a column's type was altered: then
    /// nothing is known, and the rows must be read.
    async fn digest(&self, table: &Table, ranges: &[KeyRange]) -> Result<Vec<RangeDigest>, TargetError>;
}

/// A database under load.
#[async_trait]
pub trait Target: Send + Sync {
    /// Its kind.
    fn database(&self) -> Database;

    /// Name, version, settings and limits as read when connecting.
    fn info(&self) -> &TargetInfo;

    /// Replaces [`Method::Auto`] by the fastest method for batches of `flush_size` rows.
    ///
    /// # Errors
    /// When the method cannot be had on this database or with this conflict strategy.
    fn resolve(&self, plan: WritePlan, flush_size: usize) -> Result<WritePlan, TargetError>;

    /// The DDL that [`Target::create`] would run, for people to read.
    fn ddl(&self, table: &Table) -> Vec<String>;

    /// Makes an empty table, replacing one only if the marker in `batchsql_owner` says this tool made it, and marks it as
    /// `run_id`'s.
    ///
    /// # Errors
    /// [`TargetError::ForeignTable`] for a table that is not ours; else when the DDL fails.
    async fn create(&self, table: &Table, run_id: &str) -> Result<(), TargetError>;

    /// The run that owns the table now, or `None` if the table does not exist or is not ours.
    ///
    /// # Errors
    /// When the marker cannot be read.
    async fn owner(&self, table: &str) -> Result<Option<String>, TargetError>;

    /// Takes a connection from the pool, waiting at most the pool's timeout.
    ///
    /// # Errors
    /// Always with [`Applied::No`].
    async fn acquire(&self) -> Result<Box<dyn Session>, Failure>;

    /// Closes the run's own connections and waits until the server knows none of `sessions` any more, at most `limit`.
    /// Returns the sessions that are still there (empty: quiet).
    ///
    /// # Errors
    /// When the server cannot be asked.
    async fn quiesce(&self, sessions: &BTreeSet<u64>, limit: Duration) -> Result<BTreeSet<u64>, TargetError>;

    /// A view for reading back, one snapshot where the database can share one over connections. Also after `quiesce`.
    ///
    /// # Errors
    /// When no view can be opened.
    async fn reader(&self) -> Result<Arc<dyn Reader>, TargetError>;

    /// How busy the pool is now.
    fn pool(&self) -> PoolUse;

    /// What was written until now; what cannot be learnt is `None`.
    async fn written(&self) -> Counters {
        Counters::default()
    }
}

/// How much a database has written since some moment; only differences mean something.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Transactions that wrote.
    pub transactions: Option<u64>,
    /// Bytes of write-ahead log.
    pub wal_bytes: Option<u64>,
}

/// How long a database may take to say what it has written.
pub(crate) const COUNTERS_LIMIT: Duration = Duration::from_secs(2);

impl Counters {
    /// What was added since `before`.
    #[must_use]
    pub fn since(&self, before: &Counters) -> Counters {
        let added = |now: Option<u64>, then: Option<u64>| now.zip(then).map(|(now, then)| now.saturating_sub(then));
        Counters { transactions: added(self.transactions, before.transactions), wal_bytes: added(self.wal_bytes, before.wal_bytes) }
    }
}

/// What [`connect`] needs to know of a run beside its target.
#[derive(Clone, Copy, Debug)]
pub struct Context<'a> {
    /// The run: what its sessions are named after.
    pub run_id: &'a str,
    /// Names the default SQLite file.
    pub scenario_name: &'a str,
    /// Where the default SQLite file lies.
    pub report_dir: &'a Path,
    /// Batches in flight, if the scenario says.
    pub concurrency: Option<usize>,
    /// Whether an SQLite file is made if it does not exist.
    pub create: bool,
}

/// Connects to the scenario's target: the one place that branches on its kind.
///
/// # Errors
/// When it cannot be reached; the message says what was tried and the mend.
pub async fn connect(config: &TargetConfig, context: &Context<'_>) -> Result<Arc<dyn Target>, TargetError> {
    let size = |database| {
        let concurrency = context.concurrency.unwrap_or_else(|| crate::pipeline::default_concurrency(database));
        config.pool.size.unwrap_or_else(|| u32::try_from(concurrency).unwrap_or(u32::MAX))
    };
    if let Some(sqlite) = &config.sqlite {
        let path = sqlite::file(sqlite, context.report_dir, context.scenario_name);
        let target = sqlite::Sqlite::connect(&path, sqlite, &config.pool, size(Database::Sqlite), context.create).await?;
        return Ok(Arc::new(target));
    }
    if let Some(server) = &config.postgres {
        let size = size(Database::Postgres);
        return Ok(Arc::new(postgres::connect(&server.url, &config.pool, size, context.run_id, config.insecure_tls).await?));
    }
    if let Some(server) = &config.mysql {
        let size = size(Database::Mysql);
        return Ok(Arc::new(mysql::connect(&server.url, &config.pool, size, context.run_id, config.insecure_tls).await?));
    }
    Err(TargetError::Failed("the scenario names no target; set target.sqlite, target.postgres or target.mysql".to_owned()))
}

/// The DDL that a database of this kind would run to make `table`.
#[must_use]
pub fn ddl(database: Database, table: &Table) -> Vec<String> {
    match database {
        Database::Sqlite => sqlite::ddl(table),
        Database::Postgres => postgres::ddl(table),
        Database::Mysql => mysql::ddl(table),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_succeed_when_tried_again_is_transient() {
        let transient: Vec<ErrorClass> = ErrorClass::ALL.into_iter().filter(|class| class.is_transient()).collect();
        let expected = ["deadlock", "lock_timeout", "serialization", "busy", "timeout", "connection", "read_only"];
        assert_eq!(transient.iter().map(|class| class.as_str()).collect::<Vec<_>>(), expected);
    }
}
