//! The gateway's tables in its database: `users` with their quotas, asked and updated here, and `request_logs`, which is made here
//! and written by the pipeline. Both stay when the gateway ends.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use anyhow::Context as _;
use rusqlite::OptionalExtension as _;
use sqlx::{AssertSqlSafe, MySqlPool, PgPool, Row as _};
use tokio::sync::Semaphore;

use super::config::{Database, User};
use crate::proxy::stats::Stats;
use crate::scenario::SqliteConfig;
use crate::table::Table;
use crate::target::sqlite::blocking;
use crate::target::{self, Target, mysql, postgres, sqlite};

const USERS: &str = "CREATE TABLE IF NOT EXISTS users (name VARCHAR(255) NOT NULL PRIMARY KEY, quota BIGINT, used BIGINT NOT NULL)";
const ACCOUNT: &str = "SELECT used, quota FROM users WHERE name = ?";
const SPEND: &str = "UPDATE users SET used = used + ? WHERE name = ?";
/// The quota is the configuration's, what was used the table's.
const UPSERT: &str = "INSERT INTO users (name, quota, used) VALUES (?, ?, 0) ON CONFLICT (name) DO UPDATE SET quota = excluded.quota";
const UPSERT_MYSQL: &str = "INSERT INTO users (name, quota, used) VALUES (?, ?, 0) ON DUPLICATE KEY UPDATE quota = VALUES(quota)";

/// Asks and updates.
pub(super) struct Store {
    backend: Backend,
    stats: Stats,
    /// Transactions that changed something.
    committed: AtomicU64,
}

enum Backend {
    Sqlite(Arc<Sqlite>),
    Postgres(PgPool),
    Mysql(MySqlPool),
}

/// The connections beside the log's.
struct Sqlite {
    path: PathBuf,
    config: SqliteConfig,
    idle: Mutex<Vec<rusqlite::Connection>>,
    max_idle: usize,
    open: Semaphore,
}

/// A bound value.
#[derive(Clone, Debug)]
enum Bind {
    Text(String),
    Int(Option<i64>),
}

/// Binds values to a query of either server.
macro_rules! bound {
    ($sql:expr, $binds:expr) => {
        $binds.into_iter().fold(sqlx::query(AssertSqlSafe($sql)), |query, bind| match bind {
            Bind::Text(text) => query.bind(text),
            Bind::Int(number) => query.bind(number),
        })
    };
}

impl Store {
    /// Connects as the log's `target` does.
    pub(super) async fn open(database: &Database, path: PathBuf, stats: Stats) -> anyhow::Result<Self> {
        let config = database.target();
        let most = database.max_open.saturating_sub(config.pool.size.unwrap_or(1)).max(1);
        let backend = if let Some(server) = &config.postgres {
            let options = postgres::options(&server.url, config.insecure_tls).await?;
            let pool = sqlx::postgres::PgPoolOptions::new().max_connections(most).test_before_acquire(false);
            Backend::Postgres(pool.connect_lazy_with(options.application_name("batchsql proxy")))
        } else if let Some(server) = &config.mysql {
            let options = mysql::options(&server.url, config.insecure_tls).await?;
            let pool = sqlx::mysql::MySqlPoolOptions::new().max_connections(most).test_before_acquire(false);
            Backend::Mysql(pool.connect_lazy_with(options))
        } else {
            Backend::Sqlite(Arc::new(Sqlite {
                path,
                config: config.sqlite.unwrap_or_default(),
                idle: Mutex::default(),
                max_idle: database.max_idle as usize,
                open: Semaphore::new(most as usize),
            }))
        };
        Ok(Self { backend, stats, committed: AtomicU64::new(0) })
    }

    /// Makes the tables that are not there, writes the users into theirs, and returns the log's largest id.
    pub(super) async fn prepare(&self, target: &dyn Target, log: &Table, users: &[User]) -> anyhow::Result<i64> {
        // The statement that makes the table is the first; indexes would follow, but the log has none.
        let make = target::ddl(target.database(), log).swap_remove(0).replacen("CREATE TABLE", "CREATE TABLE IF NOT EXISTS", 1);
        self.change(vec![(make, Vec::new()), (USERS.to_owned(), Vec::new())]).await.context("the tables cannot be made")?;
        let upsert = if matches!(self.backend, Backend::Mysql(_)) { UPSERT_MYSQL } else { UPSERT };
        let rows = users.iter().map(|user| (upsert.to_owned(), vec![Bind::Text(user.name.clone()), Bind::Int(user.quota)])).collect();
        self.change(rows).await.context("table users cannot be written; it must have the columns name, quota and used")?;
        let columns: Vec<&str> = log.columns.iter().map(|column| column.name.as_str()).collect();
        let unlike = || format!("table {} is not the gateway's: it must have the columns {}", log.name, columns.join(", "));
        let check = format!("SELECT id, id FROM {} WHERE id IS NULL AND ({} IS NULL)", log.name, columns.join(" IS NULL OR "));
        self.ask(check, Vec::new()).await.with_context(unlike)?;
        let largest = self.ask(format!("SELECT MAX(id), MAX(id) FROM {}", log.name), Vec::new()).await.with_context(unlike)?;
        Ok(largest.and_then(|(id, _)| id).unwrap_or(0))
    }

    /// What a user has used of which quota.
    pub(super) async fn account(&self, name: &str) -> anyhow::Result<Option<(i64, Option<i64>)>> {
        let found = self.ask(ACCOUNT.to_owned(), vec![Bind::Text(name.to_owned())]).await.context("table users cannot be read")?;
        Ok(found.map(|(used, quota)| (used.unwrap_or(0), quota)))
    }

    /// Adds to what users have used, in one transaction.
    pub(super) async fn spend(&self, tokens: impl IntoIterator<Item = (String, i64)>) -> anyhow::Result<()> {
        let updates = tokens.into_iter().map(|(name, used)| (SPEND.to_owned(), vec![Bind::Int(Some(used)), Bind::Text(name)]));
        self.change(updates.collect()).await.context("used quota cannot be written to table users")
    }

    /// Ends the connections.
    pub(super) async fn close(&self) {
        match &self.backend {
            Backend::Sqlite(sqlite) => sqlite.idle().clear(),
            Backend::Postgres(pool) => pool.close().await,
            Backend::Mysql(pool) => pool.close().await,
        }
    }

    /// The first two columns of the first row.
    async fn ask(&self, sql: String, binds: Vec<Bind>) -> anyhow::Result<Option<(Option<i64>, Option<i64>)>> {
        let began = Instant::now();
        let found = match &self.backend {
            Backend::Sqlite(sqlite) => sqlite.ask(sql, binds).await?,
            Backend::Postgres(pool) => {
                let row = bound!(numbered(&sql), binds).fetch_optional(pool).await?;
                row.map(|row| Ok::<_, sqlx::Error>((row.try_get(0)?, row.try_get(1)?))).transpose()?
            }
            Backend::Mysql(pool) => {
                let row = bound!(sql, binds).fetch_optional(pool).await?;
                row.map(|row| Ok::<_, sqlx::Error>((row.try_get(0)?, row.try_get(1)?))).transpose()?
            }
        };
        self.stats.database_query(began.elapsed());
        Ok(found)
    }

    /// All statements as one transaction.
    async fn change(&self, statements: Vec<(String, Vec<Bind>)>) -> anyhow::Result<()> {
        let began = Instant::now();
        match &self.backend {
            Backend::Sqlite(sqlite) => sqlite.change(statements).await?,
            Backend::Postgres(pool) => {
                let mut transaction = pool.begin().await?;
                for (sql, binds) in statements {
                    bound!(numbered(&sql), binds).execute(&mut *transaction).await?;
                }
                transaction.commit().await?;
            }
            Backend::Mysql(pool) => {
                let mut transaction = pool.begin().await?;
                for (sql, binds) in statements {
                    bound!(sql, binds).execute(&mut *transaction).await?;
                }
                transaction.commit().await?;
            }
        }
        self.stats.database_query(began.elapsed());
        self.committed.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// How many transactions changed something until now.
    pub(super) fn committed(&self) -> u64 {
        self.committed.load(Ordering::Relaxed)
    }
}

/// Postgres numbers its places.
fn numbered(sql: &str) -> String {
    let mut parts = sql.split('?');
    let first = parts.next().unwrap_or_default().to_owned();
    parts.enumerate().fold(first, |text, (index, part)| format!("{text}${}{part}", index + 1))
}

impl Sqlite {
    fn idle(&self) -> std::sync::MutexGuard<'_, Vec<rusqlite::Connection>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does `work` with a connection that has the profile's pragmas.
    async fn with<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&mut rusqlite::Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> anyhow::Result<T> {
        let _open = self.open.acquire().await?;
        let sqlite = Arc::clone(self);
        blocking(move || {
            let idle = sqlite.idle().pop();
            let mut connection = idle.map_or_else(|| sqlite::open(&sqlite.path, &sqlite.config), Ok)?;
            let result = work(&mut connection)?;
            let mut idle = sqlite.idle();
            if idle.len() < sqlite.max_idle {
                idle.push(connection);
            }
            Ok(result)
        })
        .await
    }

    async fn ask(self: &Arc<Self>, sql: String, binds: Vec<Bind>) -> anyhow::Result<Option<(Option<i64>, Option<i64>)>> {
        self.with(move |connection| {
            let mut statement = connection.prepare_cached(&sql)?;
            statement.query_row(rusqlite::params_from_iter(&binds), |row| Ok((row.get(0)?, row.get(1)?))).optional()
        })
        .await
    }

    async fn change(self: &Arc<Self>, statements: Vec<(String, Vec<Bind>)>) -> anyhow::Result<()> {
        self.with(move |connection| {
            let transaction = connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
            for (sql, binds) in statements {
                transaction.prepare_cached(&sql)?.execute(rusqlite::params_from_iter(&binds))?;
            }
            transaction.commit()
        })
        .await
    }
}

impl rusqlite::ToSql for Bind {
    fn to_sql(&self) -> rusqlite::Result<rusqlite::types::ToSqlOutput<'_>> {
        match self {
            Bind::Text(text) => text.to_sql(),
            Bind::Int(number) => number.to_sql(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_numbered_from_one() {
        assert_eq!(numbered(SPEND), "UPDATE users SET used = used + $1 WHERE name = $2");
        assert_eq!(numbered("SELECT 1"), "SELECT 1");
    }
}
