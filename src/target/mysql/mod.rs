//! MySQL and MariaDB as one target: connecting, the table and its marker, waiting for sessions. Writing is in `write`, reading
//! in `scan`, digests in `digest`.

mod digest;
mod scan;
mod time;
mod write;

use std::collections::BTreeSet;
use std::str::FromStr as _;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use sqlx::mysql::{MySqlConnectOptions, MySqlConnection, MySqlDatabaseError, MySqlRow, MySqlSslMode};
use sqlx::{AssertSqlSafe, ConnectOptions as _, Row as _};

use super::server::{self, Address, Patience, Pool, describe};
use super::sql::quoted;
use super::{Conflict, Counters, Database, Failure, Method, PoolUse, Reader, Session, Target, TargetError, TargetInfo, WritePlan};
use crate::scenario;
use crate::table::{Column, ColumnType, SURROGATE_KEY, Table};
use write::{MyLink, Options};

/// Settings that decide what an acknowledgement is worth, what becomes of values that do not fit, and how fast it can be.
const SETTINGS: &str = "SHOW SESSION VARIABLES WHERE Variable_name IN ('innodb_flush_log_at_trx_commit', 'sync_binlog', 'log_bin', \
     'sql_mode', 'default_storage_engine', 'character_set_server', 'collation_server', 'innodb_doublewrite', \
     'innodb_buffer_pool_size', 'innodb_flush_method', 'innodb_lock_wait_timeout', 'innodb_rollback_on_timeout', \
     'transaction_isolation', 'tx_isolation', 'max_allowed_packet', 'lower_case_table_names')";
const MARKER_TABLE: &str = "CREATE TABLE IF NOT EXISTS batchsql_owner (table_name VARCHAR(64) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin \
     NOT NULL PRIMARY KEY, run_id VARCHAR(255) NOT NULL, created_by VARCHAR(255) NOT NULL, \
     created_at DATETIME NOT NULL DEFAULT CURRENT_TIMESTAMP) DEFAULT CHARSET = utf8mb4";
const EXISTS: &str = "SELECT COUNT(*) FROM information_schema.tables WHERE table_schema = DATABASE() AND table_name = ?";
const MARK: &str = "REPLACE INTO batchsql_owner (table_name, run_id, created_by) VALUES (?, ?, ?)";
/// The table's name is bound twice. Bytes are compared, because the two sides may have different collations.
const MARKED: &str = "SELECT o.run_id FROM batchsql_owner o, information_schema.tables t WHERE o.table_name = ? \
     AND t.table_schema = DATABASE() AND t.table_name = ? \
     AND CAST(t.table_comment AS BINARY) = CAST(CONCAT('batchsql run ', o.run_id) AS BINARY)";

/// Most characters of a VARCHAR in utf8mb4, most bytes of a VARBINARY that are kept in a row.
const MAX_VARCHAR: u32 = 16_383;
/// Bytes that the VAR… columns of a row may take together; the server's limit for a row is 65,535.
const ROW_BYTES: u32 = 60_000;
/// Longest piece of a value that is indexed: 250 characters of four bytes fit MyISAM's 1,000 bytes as well.
const INDEX_PREFIX: u32 = 250;

/// A MySQL or MariaDB server.
pub struct Mysql {
    info: TargetInfo,
    pool: Arc<Pool<MyLink>>,
    /// For connections beside the pool: DDL, waiting, reading back.
    beside: MySqlConnectOptions,
}

/// The options of a connection by `url`: TLS is verified beyond loopback, unless `insecure_tls`.
pub(crate) async fn options(url: &str, insecure_tls: bool) -> Result<MySqlConnectOptions, TargetError> {
    const FORM: &str = "mysql://user:password@host:port/database";
    let options = MySqlConnectOptions::from_str(url)
        .map_err(|e| TargetError::Unreachable(format!("the URL of the MySQL server cannot be read ({e}); write {FORM}")))?;
    let address = address(&options);
    if address.database.is_empty() {
        return Err(address.unreachable("the URL names no database", &format!("write {FORM}")));
    }
    let mut connect = options.pipes_as_concat(false).no_engine_substitution(false).timezone(Some("+00:00".to_owned()));
    connect = connect.charset("utf8mb4").disable_statement_logging().statement_cache_capacity(16);
    if !insecure_tls && !address.is_loopback().await? {
        connect = connect.ssl_mode(MySqlSslMode::VerifyIdentity);
    }
    Ok(connect)
}

/// Connects with `url` and reads the server's name, version and settings. The run's id is not needed: MySQL knows sessions by
/// number alone.
///
/// # Errors
/// [`TargetError::Unreachable`] with one sentence that says where, what was found and the mend.
pub async fn connect(url: &str, pool: &scenario::Pool, size: u32, _run_id: &str, insecure_tls: bool) -> Result<Mysql, TargetError> {
    let connect = options(url, insecure_tls).await?;
    let address = address(&connect);
    let beside = connect.clone();
    let mut options = Options { connect, max_bytes: 0, mariadb: false };
    let opened = server::open::<MyLink>(&options, pool.connect_timeout.0).await;
    let (mut link, id) = opened.map_err(|e| refused(&address, &e))?;
    let info =
        learn(link.connection()).await.map_err(|e| address.unreachable(&describe(&e), "let this user read the server's variables"))?;
    (options.max_bytes, options.mariadb) = (info.max_bytes, info.name == "MariaDB");
    link.set_mariadb(options.mariadb);
    let pool = Pool::new(options, pool.clone(), size);
    pool.put(link, id);
    Ok(Mysql { info, pool, beside })
}

fn address(options: &MySqlConnectOptions) -> Address {
    Address {
        kind: "MySQL or MariaDB",
        key: "target.mysql.url",
        host: options.get_socket().map_or_else(|| options.get_host().to_owned(), |path| path.display().to_string()),
        port: options.get_port(),
        database: options.get_database().unwrap_or_default().to_owned(),
        user: options.get_username().to_owned(),
    }
}

/// Why the first connection could not be had.
fn refused(address: &Address, error: &sqlx::Error) -> TargetError {
    let sqlx::Error::Database(answer) = error else { return address.no_connection(error) };
    let found = describe(error);
    let key = address.key;
    match answer.try_downcast_ref::<MySqlDatabaseError>().map_or(0, MySqlDatabaseError::number) {
        1045 | 1698 => {
            address.unreachable(&format!("it refused the login, {found}"), &format!("correct user and password in {key} or --database-url"))
        }
        1044 => address.unreachable(&found, "grant this user all privileges on the database"),
        1049 => {
            let create = quoted(&address.database, '`');
            address.unreachable(
                &format!("it has no such database, {found}"),
                &format!("create it with CREATE DATABASE {create}, or name another one"),
            )
        }
        1040 | 1203 => address.unreachable(&found, "end other sessions, or raise max_connections"),
        _ => address.unreachable(&found, &format!("let this user log in, or correct {key} or --database-url")),
    }
}

async fn learn(connection: &mut MySqlConnection) -> Result<TargetInfo, sqlx::Error> {
    let about = sqlx::raw_sql("SELECT @@version, @@version_comment, @@max_allowed_packet").fetch_one(&mut *connection).await?;
    let (version, comment): (String, String) = (about.try_get_unchecked(0)?, about.try_get_unchecked(1)?);
    let packet: u64 = about.try_get_unchecked(2)?;
    let name = if [&version, &comment].iter().any(|text| text.to_ascii_lowercase().contains("mariadb")) { "MariaDB" } else { "MySQL" };
    let mut settings = Vec::new();
    for row in sqlx::raw_sql(SETTINGS).fetch_all(connection).await? {
        settings.push((row.try_get_unchecked(0)?, row.try_get_unchecked(1)?));
    }
    let max_bytes = usize::try_from(packet).unwrap_or(usize::MAX);
    Ok(TargetInfo { name: name.to_owned(), version, settings, max_binds: write::MAX_BINDS, max_bytes })
}

/// The statements that create `table`.
#[must_use]
pub fn ddl(table: &Table) -> Vec<String> {
    let key = quoted(&table.columns[table.key].name, '`');
    let mut room = ROW_BYTES;
    let kept: Vec<bool> = table.columns.iter().map(|column| fits_row(column, &mut room)).collect();
    let mut lines: Vec<String> = table.columns.iter().zip(&kept).map(|(column, kept)| column_ddl(column, *kept)).collect();
    if table.unique_key {
        lines.push(format!("PRIMARY KEY ({key})"));
    } else {
        lines.insert(0, format!("{} BIGINT NOT NULL AUTO_INCREMENT PRIMARY KEY", quoted(SURROGATE_KEY, '`')));
        lines.push(format!("KEY ({key})"));
    }
    for (index, (column, kept)) in table.columns.iter().zip(&kept).enumerate() {
        if column.index && index != table.key {
            let variable = matches!(column.ty, ColumnType::Text | ColumnType::Bytes);
            let prefix = if variable && (!kept || column.max_len > INDEX_PREFIX) { format!("({INDEX_PREFIX})") } else { String::new() };
            lines.push(format!("KEY ({}{prefix})", quoted(&column.name, '`')));
        }
    }
    vec![format!("CREATE TABLE {} (\n  {}\n) DEFAULT CHARSET = utf8mb4", quoted(&table.name, '`'), lines.join(",\n  "))]
}

/// Whether the column's values have room in the row itself (VARCHAR, VARBINARY), or lie beside it (LONGTEXT, LONGBLOB).
fn fits_row(column: &Column, room: &mut u32) -> bool {
    let bytes = match column.ty {
        ColumnType::Text if column.max_len <= MAX_VARCHAR => column.max_len * 4 + 2,
        ColumnType::Bytes if column.max_len <= MAX_VARCHAR => column.max_len + 2,
        ColumnType::Text | ColumnType::Bytes => return false,
        _ => 17,
    };
    let fits = bytes <= *room;
    if fits {
        *room -= bytes;
    }
    fits
}

fn column_ddl(column: &Column, in_row: bool) -> String {
    let len = column.max_len.max(1);
    let ty = match column.ty {
        ColumnType::Int64 => "BIGINT".to_owned(),
        ColumnType::Float64 => "DOUBLE".to_owned(),
        ColumnType::Decimal { precision, scale } => format!("DECIMAL({precision},{scale})"),
        ColumnType::Bool => "BOOLEAN".to_owned(),
        ColumnType::Text if in_row => format!("VARCHAR({len})"),
        ColumnType::Text => "LONGTEXT".to_owned(),
        ColumnType::Bytes if in_row => format!("VARBINARY({len})"),
        ColumnType::Bytes => "LONGBLOB".to_owned(),
        ColumnType::Timestamp => "DATETIME(6)".to_owned(),
        ColumnType::Uuid => "BINARY(16)".to_owned(),
    };
    format!("{} {ty}{}", quoted(&column.name, '`'), if column.nullable { " NULL" } else { " NOT NULL" })
}

impl Mysql {
    async fn beside(&self) -> Result<MySqlConnection, TargetError> {
        let opened = async {
            let mut connection = self.beside.connect().await?;
            write::prepare(&mut connection).await?;
            Ok(connection)
        };
        opened.await.map_err(|e: sqlx::Error| refused(&address(&self.beside), &e))
    }

    async fn replace(&self, connection: &mut MySqlConnection, table: &Table, run_id: &str) -> Result<Result<(), TargetError>, sqlx::Error> {
        sqlx::raw_sql(MARKER_TABLE).execute(&mut *connection).await?;
        let exists: i64 = sqlx::query_scalar(EXISTS).bind(&table.name).fetch_one(&mut *connection).await?;
        let owner: Option<String> = sqlx::query_scalar(MARKED).bind(&table.name).bind(&table.name).fetch_optional(&mut *connection).await?;
        if exists > 0 && owner.is_none() {
            return Ok(Err(TargetError::ForeignTable { table: table.name.clone() }));
        }
        if exists > 0 {
            sqlx::raw_sql(AssertSqlSafe(format!("DROP TABLE {}", quoted(&table.name, '`')))).execute(&mut *connection).await?;
        }
        // DDL commits at once here. Marked first: a crash in between must not leave a table that no run may replace.
        sqlx::query(MARK).bind(&table.name).bind(run_id).bind(super::sql::CREATED_BY).execute(&mut *connection).await?;
        let signature = quoted(&super::sql::signature(run_id), '\'');
        for statement in ddl(table) {
            let statement = format!("{statement} COMMENT = {signature}");
            if let Err(error) = sqlx::raw_sql(AssertSqlSafe(statement)).execute(&mut *connection).await {
                sqlx::query("DELETE FROM batchsql_owner WHERE table_name = ?").bind(&table.name).execute(&mut *connection).await?;
                return Err(error);
            }
        }
        Ok(Ok(()))
    }

    /// Those of `sessions` that the server still knows as this user's on this database: numbers begin anew when a server does.
    async fn remaining(&self, watcher: &mut MySqlConnection, sessions: &BTreeSet<u64>) -> Result<BTreeSet<u64>, sqlx::Error> {
        let mut remaining = BTreeSet::new();
        let (user, database) = (self.beside.get_username(), self.beside.get_database());
        // The watcher may have been given the number of a session from before a restart.
        let own: u64 = sqlx::query_scalar("SELECT CONNECTION_ID()").fetch_one(&mut *watcher).await?;
        for row in sqlx::raw_sql("SHOW PROCESSLIST").fetch_all(watcher).await? {
            let id: u64 = row.try_get_unchecked("Id")?;
            let (its_user, its_database): (String, Option<String>) = (row.try_get_unchecked("User")?, row.try_get_unchecked("db")?);
            if id != own && sessions.contains(&id) && its_user == user && its_database.as_deref() == database {
                remaining.insert(id);
            }
        }
        Ok(remaining)
    }
}

fn failed(doing: &str, table: &str, error: &sqlx::Error) -> TargetError {
    TargetError::Failed(format!("{doing} table {table:?} on the MySQL server failed: {}", describe(error)))
}

#[async_trait]
impl Target for Mysql {
    fn database(&self) -> Database {
        Database::Mysql
    }

    fn info(&self) -> &TargetInfo {
        &self.info
    }

    fn resolve(&self, mut plan: WritePlan, _flush_size: usize) -> Result<WritePlan, TargetError> {
        let refuse = |message: &str| Err(TargetError::Failed(message.to_owned()));
        if plan.conflict != Conflict::Error && !plan.table.unique_key {
            return refuse("workload.batch_insert.conflict: ignore, replace and update need unique_key: true, found false");
        }
        match plan.method {
            Method::Auto | Method::Values => plan.method = Method::Values,
            Method::Unnest | Method::Copy => {
                return refuse("workload.batch_insert.method: unnest and copy are Postgres's; on MySQL use auto or values");
            }
            Method::Prepared => return refuse("workload.batch_insert.method: prepared is SQLite's; on MySQL use auto or values"),
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
        for name in ["batchsql_owner", table] {
            let exists: i64 = sqlx::query_scalar(EXISTS)
                .bind(name)
                .fetch_one(&mut connection)
                .await
                .map_err(|e| failed("reading the owner of", table, &e))?;
            if exists == 0 {
                return Ok(None);
            }
        }
        let owner = sqlx::query_scalar(MARKED).bind(table).bind(table).fetch_optional(&mut connection).await;
        owner.map_err(|e| failed("reading the owner of", table, &e))
    }

    async fn acquire(&self) -> Result<Box<dyn Session>, Failure> {
        self.pool.acquire().await
    }

    async fn quiesce(&self, sessions: &BTreeSet<u64>, limit: Duration) -> Result<BTreeSet<u64>, TargetError> {
        let mut patience = Patience::new(limit);
        self.pool.close().await;
        let mut watcher = self.beside().await?;
        loop {
            let remaining = self.remaining(&mut watcher, sessions).await;
            let remaining =
                remaining.map_err(|e| TargetError::Failed(format!("the server's process list cannot be read: {}", describe(&e))))?;
            if remaining.is_empty() || !patience.wait().await {
                return Ok(remaining);
            }
        }
    }

    async fn reader(&self) -> Result<Arc<dyn Reader>, TargetError> {
        Ok(Arc::new(scan::MyReader { options: self.beside.clone() }))
    }

    fn pool(&self) -> PoolUse {
        self.pool.usage()
    }

    async fn written(&self) -> Counters {
        let asked = async {
            let mut connection = self.beside().await.ok()?;
            let sql = "SHOW GLOBAL STATUS WHERE Variable_name IN ('Handler_commit', 'Innodb_os_log_written')";
            sqlx::raw_sql(sql).fetch_all(&mut connection).await.ok()
        };
        let rows = tokio::time::timeout(super::COUNTERS_LIMIT, asked).await.ok().flatten().unwrap_or_default();
        let value = |name: &str| {
            let named = |row: &&MySqlRow| row.try_get_unchecked::<String, _>(0).is_ok_and(|found| found.eq_ignore_ascii_case(name));
            rows.iter().find(named)?.try_get_unchecked::<String, _>(1).ok()?.parse().ok()
        };
        Counters { transactions: value("Handler_commit"), wal_bytes: value("Innodb_os_log_written") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn column(name: &str, ty: ColumnType, index: bool, max_len: u32) -> Column {
        Column { name: name.into(), ty, nullable: false, index, max_len }
    }

    #[test]
    fn long_values_leave_the_row_and_long_indexes_get_a_prefix() {
        let columns = vec![
            column("id", ColumnType::Int64, false, 0),
            column("short", ColumnType::Text, true, 40),
            column("long", ColumnType::Text, true, 300),
            column("longest", ColumnType::Text, true, 20_000),
            column("wide", ColumnType::Text, false, 14_000),
            column("no_room", ColumnType::Text, false, 14_000),
            column("raw", ColumnType::Bytes, false, 16),
        ];
        let table = Table { name: "t".into(), columns, key: 0, unique_key: false };
        let expected = "CREATE TABLE `t` (\n  `batchsql_row` BIGINT NOT NULL AUTO_INCREMENT PRIMARY KEY,\n  `id` BIGINT NOT NULL,\n  \
                        `short` VARCHAR(40) NOT NULL,\n  `long` VARCHAR(300) NOT NULL,\n  `longest` LONGTEXT NOT NULL,\n  \
                        `wide` VARCHAR(14000) NOT NULL,\n  `no_room` LONGTEXT NOT NULL,\n  `raw` VARBINARY(16) NOT NULL,\n  \
                        KEY (`id`),\n  KEY (`short`),\n  KEY (`long`(250)),\n  KEY (`longest`(250))\n) DEFAULT CHARSET = utf8mb4";
        assert_eq!(ddl(&table), [expected]);
    }
}
