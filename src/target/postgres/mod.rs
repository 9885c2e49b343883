//! PostgreSQL as a target: connecting, the table and its marker, waiting for sessions. Writing is in `write`, reading in `scan`,
//! digests in `digest`.

mod digest;
mod scan;
mod wire;
mod write;

use std::collections::BTreeSet;
use std::str::FromStr as _;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use sqlx::postgres::{PgConnectOptions, PgConnection, PgSslMode};
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _};

use super::server::{Address, Patience, Pool, describe};
use super::sql::quoted;
use super::{Conflict, Counters, Database, Failure, Method, PoolUse, Reader, Session, Target, TargetError, TargetInfo, WritePlan};
use crate::scenario;
use crate::table::{Column, ColumnType, SURROGATE_KEY, Table};
use write::PgLink;

/// Settings that decide what an acknowledgement is worth, and how fast it can be.
const SETTINGS: &str = "SELECT name, setting FROM pg_settings WHERE name IN ('fsync', 'synchronous_commit', 'full_page_writes', 'wal_level', \
     'wal_sync_method', 'commit_delay', 'synchronous_standby_names', 'shared_buffers', 'max_wal_size', 'server_encoding', \
     'default_transaction_isolation', 'ssl') ORDER BY name";
const MARKER_TABLE: &str = "CREATE TABLE IF NOT EXISTS batchsql_owner (table_name text PRIMARY KEY, run_id text NOT NULL, \
     created_by text NOT NULL, created_at timestamp NOT NULL DEFAULT (now() AT TIME ZONE 'UTC'))";
/// Two runs that start at once must not both create the marker table. The number is arbitrary.
const MARKER_LOCK: &str = "SELECT pg_advisory_xact_lock(6224881174905)";
/// Whether something of that name is where the table would be created.
const EXISTS: &str = "SELECT EXISTS (SELECT FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
     WHERE n.nspname = current_schema() AND c.relname = $1)";
const MARKED: &str = "SELECT o.run_id FROM batchsql_owner o JOIN pg_class c ON c.relname = o.table_name \
     JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = current_schema() AND o.table_name = $1 \
     AND obj_description(c.oid, 'pg_class') = 'batchsql run ' || o.run_id";

/// Rows a batch from which COPY is the fastest, by measurement (`docs/methods.md`); below, each batch may wait 40 ms.
const COPY_ROWS: usize = 5_000;

/// A PostgreSQL server.
pub struct Postgres {
    info: TargetInfo,
    pool: Arc<Pool<PgLink>>,
    /// For connections beside the pool: DDL, waiting, reading back.
    beside: PgConnectOptions,
    /// What the server made of the pool's application name.
    application: String,
}

/// The options of a connection by `url`: TLS is verified beyond loopback, unless `insecure_tls`.
pub(crate) async fn options(url: &str, insecure_tls: bool) -> Result<PgConnectOptions, TargetError> {
    let mut options = PgConnectOptions::from_str(url).map_err(|e| {
        TargetError::Unreachable(format!(
            "the URL of the Postgres server cannot be read ({e}); write postgres://user:password@host:port/database"
        ))
    })?;
    if !insecure_tls && !address(&options).is_loopback().await? {
        options = options.ssl_mode(PgSslMode::VerifyFull);
    }
    Ok(options.disable_statement_logging().statement_cache_capacity(16))
}

/// Connects with `url` and reads the server's name, version and settings.
///
/// # Errors
/// [`TargetError::Unreachable`] with one sentence that says where, what was found and the mend.
pub async fn connect(url: &str, pool: &scenario::Pool, size: u32, run_id: &str, insecure_tls: bool) -> Result<Postgres, TargetError> {
    let options = options(url, insecure_tls).await?;
    let address = address(&options);
    let beside = options.clone().application_name("batchsql");
    let pool = Pool::<PgLink>::new(options.application_name(&format!("batchsql/{run_id}")), pool.clone(), size);
    let (mut link, id) = pool.open().await.map_err(|e| refused(&address, &e))?;
    let learnt = learn(link.connection()).await;
    let (info, application) = learnt.map_err(|e| address.unreachable(&describe(&e), "let this user read pg_settings"))?;
    pool.put(link, id);
    Ok(Postgres { info, pool, beside, application })
}

fn address(options: &PgConnectOptions) -> Address {
    Address {
        kind: "PostgreSQL",
        key: "target.postgres.url",
        host: options.get_socket().map_or_else(|| options.get_host().to_owned(), |path| path.display().to_string()),
        port: options.get_port(),
        database: options.get_database().unwrap_or(options.get_username()).to_owned(),
        user: options.get_username().to_owned(),
    }
}

/// Why the first connection could not be had.
fn refused(address: &Address, error: &sqlx::Error) -> TargetError {
    let sqlx::Error::Database(answer) = error else { return address.no_connection(error) };
    let found = describe(error);
    match answer.code().as_deref() {
        Some("28P01" | "28000") => address.unreachable(
            &format!("it refused the login, {found}"),
            &format!("correct user and password in {} or --database-url", address.key),
        ),
        Some("3D000") => {
            let create = quoted(&address.database, '"');
            address.unreachable(
                &format!("it has no such database, {found}"),
                &format!("create it with CREATE DATABASE {create}, or name another one"),
            )
        }
        Some("53300") => address.unreachable(&found, "end other sessions, or raise max_connections"),
        _ => address.unreachable(&found, &format!("let this user log in, or correct {} or --database-url", address.key)),
    }
}

async fn learn(connection: &mut PgConnection) -> Result<(TargetInfo, String), sqlx::Error> {
    let about = "SELECT split_part(version(), ' ', 1), current_setting('server_version'), current_setting('application_name')";
    let (name, version, application): (String, String, String) = sqlx::query_as(about).fetch_one(&mut *connection).await?;
    let settings: Vec<(String, String)> = sqlx::query_as(SETTINGS).fetch_all(connection).await?;
    Ok((TargetInfo { name, version, settings, max_binds: write::MAX_BINDS, max_bytes: write::MAX_BYTES }, application))
}

/// The statements that create `table`.
#[must_use]
pub fn ddl(table: &Table) -> Vec<String> {
    let name = quoted(&table.name, '"');
    let key = quoted(&table.columns[table.key].name, '"');
    let mut lines: Vec<String> = table.columns.iter().map(column_ddl).collect();
    if table.unique_key {
        lines.push(format!("PRIMARY KEY ({key})"));
    } else {
        lines.insert(0, format!("{} bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY", quoted(SURROGATE_KEY, '"')));
    }
    let mut statements = vec![format!("CREATE TABLE {name} (\n  {}\n)", lines.join(",\n  "))];
    let indexed = |(index, column): &(usize, &Column)| if *index == table.key { !table.unique_key } else { column.index };
    statements.extend(
        (table.columns.iter().enumerate().filter(indexed))
            .map(|(_, column)| format!("CREATE INDEX ON {name} ({})", quoted(&column.name, '"'))),
    );
    statements
}

fn column_ddl(column: &Column) -> String {
    let ty = match column.ty {
        ColumnType::Int64 => "bigint".to_owned(),
        ColumnType::Float64 => "double precision".to_owned(),
        ColumnType::Decimal { precision, scale } => format!("numeric({precision},{scale})"),
        ColumnType::Bool => "boolean".to_owned(),
        ColumnType::Text => "text".to_owned(),
        ColumnType::Bytes => "bytea".to_owned(),
        ColumnType::Timestamp => "timestamp".to_owned(),
        ColumnType::Uuid => "uuid".to_owned(),
    };
    format!("{} {ty}{}", quoted(&column.name, '"'), if column.nullable { "" } else { " NOT NULL" })
}

impl Postgres {
    async fn beside(&self) -> Result<PgConnection, TargetError> {
        self.beside.connect().await.map_err(|e| refused(&address(&self.beside), &e))
    }

    async fn replace(&self, connection: &mut PgConnection, table: &Table, run_id: &str) -> Result<Result<(), TargetError>, sqlx::Error> {
        let mut transaction = connection.begin().await?;
        sqlx::raw_sql(MARKER_LOCK).execute(&mut *transaction).await?;
        sqlx::raw_sql(MARKER_TABLE).execute(&mut *transaction).await?;
        let exists: bool = sqlx::query_scalar(EXISTS).bind(&table.name).fetch_one(&mut *transaction).await?;
        let owner: Option<String> = sqlx::query_scalar(MARKED).bind(&table.name).fetch_optional(&mut *transaction).await?;
        if exists && owner.is_none() {
            return Ok(Err(TargetError::ForeignTable { table: table.name.clone() }));
        }
        if exists {
            sqlx::raw_sql(AssertSqlSafe(format!("DROP TABLE {}", quoted(&table.name, '"')))).execute(&mut *transaction).await?;
        }
        for statement in ddl(table) {
            sqlx::raw_sql(AssertSqlSafe(statement)).execute(&mut *transaction).await?;
        }
        let signature = quoted(&super::sql::signature(run_id), '\'');
        let sign = format!("COMMENT ON TABLE {} IS {signature}", quoted(&table.name, '"'));
        sqlx::raw_sql(AssertSqlSafe(sign)).execute(&mut *transaction).await?;
        let mark = "INSERT INTO batchsql_owner (table_name, run_id, created_by) VALUES ($1, $2, $3) \
                    ON CONFLICT (table_name) DO UPDATE SET run_id = EXCLUDED.run_id, created_by = EXCLUDED.created_by, created_at = EXCLUDED.created_at";
        sqlx::query(mark).bind(&table.name).bind(run_id).bind(super::sql::CREATED_BY).execute(&mut *transaction).await?;
        transaction.commit().await?;
        Ok(Ok(()))
    }

    /// The run's sessions that the server still knows, by the application name they gave themselves: a process id can be
    /// another program's by now.
    async fn remaining(&self, watcher: &mut PgConnection) -> Result<BTreeSet<u64>, sqlx::Error> {
        let pids: Vec<i32> = sqlx::query_scalar("SELECT pid FROM pg_stat_activity WHERE application_name = $1")
            .bind(&self.application)
            .fetch_all(watcher)
            .await?;
        Ok(pids.into_iter().map(|pid| u64::from(pid.unsigned_abs())).collect())
    }
}

fn failed(doing: &str, table: &str, error: &sqlx::Error) -> TargetError {
    TargetError::Failed(format!("{doing} table {table:?} on the Postgres server failed: {}", describe(error)))
}

#[async_trait]
impl Target for Postgres {
    fn database(&self) -> Database {
        Database::Postgres
    }

    fn info(&self) -> &TargetInfo {
        &self.info
    }

    fn resolve(&self, mut plan: WritePlan, flush_size: usize) -> Result<WritePlan, TargetError> {
        let refuse = |message: &str| Err(TargetError::Failed(message.to_owned()));
        if plan.conflict != Conflict::Error && !plan.table.unique_key {
            return refuse("workload.batch_insert.conflict: ignore, replace and update need unique_key: true, found false");
        }
        match plan.method {
            Method::Prepared => {
                return refuse("workload.batch_insert.method: prepared is SQLite's; on Postgres use auto, values, unnest or copy");
            }
            Method::Copy if plan.conflict != Conflict::Error => {
                return refuse("workload.batch_insert.method: copy knows no conflict strategy; use conflict: error, or method: unnest");
            }
            Method::Auto => {
                let copy = plan.conflict == Conflict::Error && flush_size >= COPY_ROWS;
                plan.method = if copy { Method::Copy } else { Method::Unnest };
            }
            _ => {}
        }
        Ok(plan)
    }

    fn ddl(&self, table: &Table) -> Vec<String> {
        ddl(table)
    }

    async fn create(&self, table: &Table, run_id: &str) -> Result<(), TargetError> {
        let mut connection = self.beside().await?;
        self.replace(&mut connection, table, run_id).await.map_err(|e| failed("creating", &table.name, &e))?
    }

    async fn owner(&self, table: &str) -> Result<Option<String>, TargetError> {
        let mut connection = self.beside().await?;
        let both = "SELECT to_regclass('batchsql_owner') IS NOT NULL AND EXISTS (SELECT FROM pg_class c JOIN pg_namespace n \
                    ON n.oid = c.relnamespace WHERE n.nspname = current_schema() AND c.relname = $1)";
        let fail = |e: &sqlx::Error| failed("reading the owner of", table, e);
        let exist: bool = sqlx::query_scalar(both).bind(table).fetch_one(&mut connection).await.map_err(|e| fail(&e))?;
        if !exist {
            return Ok(None);
        }
        sqlx::query_scalar(MARKED).bind(table).fetch_optional(&mut connection).await.map_err(|e| fail(&e))
    }

    async fn acquire(&self) -> Result<Box<dyn Session>, Failure> {
        self.pool.acquire().await
    }

    async fn quiesce(&self, _sessions: &BTreeSet<u64>, limit: Duration) -> Result<BTreeSet<u64>, TargetError> {
        let mut patience = Patience::new(limit);
        self.pool.close().await;
        let mut watcher = self.beside().await?;
        loop {
            let remaining = self.remaining(&mut watcher).await;
            let remaining = remaining.map_err(|e| TargetError::Failed(format!("pg_stat_activity cannot be read: {}", describe(&e))))?;
            if remaining.is_empty() || !patience.wait().await {
                return Ok(remaining);
            }
        }
    }

    async fn reader(&self) -> Result<Arc<dyn Reader>, TargetError> {
        match scan::PgReader::open(self.beside.clone()).await {
            Ok(reader) => Ok(Arc::new(reader)),
            Err(e) => Err(TargetError::Failed(format!("no snapshot for reading back could be had: {}", describe(&e)))),
        }
    }

    fn pool(&self) -> PoolUse {
        self.pool.usage()
    }

    /// The next transaction number and the place reached in the log: both are exact at once, which statistics views are not.
    async fn written(&self) -> Counters {
        let sql = "SELECT txid_snapshot_xmax(txid_current_snapshot()), pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')::bigint";
        let asked = async {
            let mut connection = self.beside().await.ok()?;
            sqlx::query_as::<_, (i64, i64)>(sql).fetch_one(&mut connection).await.ok()
        };
        let known = tokio::time::timeout(super::COUNTERS_LIMIT, asked).await.ok().flatten();
        let number = |value: i64| Some(value.unsigned_abs());
        known.map_or_else(Counters::default, |(transactions, wal)| Counters { transactions: number(transactions), wal_bytes: number(wal) })
    }
}
