//! A gateway's request log, wherever it is kept: counted while it may still grow, then read as text.

use rusqlite::OpenFlags;
use sqlx::mysql::MySqlConnection;
use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, ConnectOptions as _, Row as _};

use super::server::describe;
use super::sql::quoted;
use super::{TargetError, allow, mysql, postgres};
use crate::scenario::TargetConfig;
use crate::scenario::proxy::{LogColumns, LogDatabase};
use crate::verifier::requests::LogRow;

/// An open log.
pub struct Log {
    connection: Connection,
    query: String,
}

enum Connection {
    Sqlite(rusqlite::Connection),
    Postgres(PgConnection),
    Mysql(MySqlConnection),
}

impl Log {
    /// Opens the log for reading. `query` selects the run's rows; `target` says which hosts may be reached, and how.
    ///
    /// # Errors
    /// When it cannot be opened; the message names the key and the mend.
    pub async fn open(database: &LogDatabase, query: &str, target: &TargetConfig) -> Result<Self, TargetError> {
        let connection = if let Some(sqlite) = &database.sqlite {
            let path = sqlite.path.clone().unwrap_or_default();
            let opened = rusqlite::Connection::open_with_flags(&path, OpenFlags::SQLITE_OPEN_READ_ONLY);
            let opened = opened.and_then(|connection| connection.busy_timeout(std::time::Duration::from_secs(5)).map(|()| connection));
            Connection::Sqlite(opened.map_err(|e| unusable("sqlite.path", &e.to_string()))?)
        } else if let Some(server) = &database.postgres {
            allow::check_url("reconcile.database.postgres.url", &server.url, &target.allow_hosts).await?;
            let options = postgres::options(&server.url, target.insecure_tls).await?;
            Connection::Postgres(options.connect().await.map_err(|e| unusable("postgres.url", &describe(&e)))?)
        } else if let Some(server) = &database.mysql {
            allow::check_url("reconcile.database.mysql.url", &server.url, &target.allow_hosts).await?;
            let options = mysql::options(&server.url, target.insecure_tls).await?;
            Connection::Mysql(options.connect().await.map_err(|e| unusable("mysql.url", &describe(&e)))?)
        } else {
            return Err(unusable("database", "none is named"));
        };
        Ok(Self { connection, query: query.trim().trim_end_matches(';').to_owned() })
    }

    /// How many rows there are now.
    ///
    /// # Errors
    /// When the query cannot be run.
    pub async fn count(&mut self) -> Result<u64, TargetError> {
        let sql = format!("SELECT COUNT(*) FROM ({}) AS batchsql_log", self.query);
        let counted = match &mut self.connection {
            Connection::Sqlite(connection) => connection.query_row(&sql, [], |row| row.get::<_, i64>(0)).map_err(|e| e.to_string()),
            Connection::Postgres(connection) => {
                sqlx::query_scalar(AssertSqlSafe(sql)).fetch_one(connection).await.map_err(|e| describe(&e))
            }
            Connection::Mysql(connection) => sqlx::query_scalar(AssertSqlSafe(sql)).fetch_one(connection).await.map_err(|e| describe(&e)),
        };
        counted.map(|count| u64::try_from(count).unwrap_or(0)).map_err(|e| unusable("query", &e))
    }

    /// Every row, the named columns as text.
    ///
    /// # Errors
    /// When the query cannot be run or has no such column.
    pub async fn rows(&mut self, columns: &LogColumns) -> Result<Vec<LogRow>, TargetError> {
        let (quote, text) = match &self.connection {
            Connection::Mysql(_) => ('`', "CHAR"),
            Connection::Sqlite(_) | Connection::Postgres(_) => ('"', "TEXT"),
        };
        let named = [&columns.id, &columns.user, &columns.model, &columns.prompt_tokens, &columns.completion_tokens, &columns.status];
        // What is not mapped is NULL and not compared; NULL in a column that is mapped is a value, and rarely the right one.
        let list: Vec<String> = named
            .iter()
            .map(|name| {
                if name.is_empty() {
                    "NULL".to_owned()
                } else {
                    format!("COALESCE(CAST(batchsql_log.{} AS {text}), 'NULL')", quoted(name, quote))
                }
            })
            .collect();
        let sql = format!("SELECT {} FROM ({}) AS batchsql_log", list.join(", "), self.query);
        let read = match &mut self.connection {
            Connection::Sqlite(connection) => sqlite_rows(connection, &sql).map_err(|e| e.to_string()),
            Connection::Postgres(connection) => sqlx::raw_sql(AssertSqlSafe(sql))
                .fetch_all(connection)
                .await
                .and_then(|rows| rows.iter().map(|row| log_row(|place| row.try_get_unchecked(place))).collect())
                .map_err(|e| describe(&e)),
            Connection::Mysql(connection) => sqlx::raw_sql(AssertSqlSafe(sql))
                .fetch_all(connection)
                .await
                .and_then(|rows| rows.iter().map(|row| log_row(|place| row.try_get_unchecked(place))).collect())
                .map_err(|e| describe(&e)),
        };
        read.map_err(|e| unusable("query", &e))
    }
}

fn sqlite_rows(connection: &rusqlite::Connection, sql: &str) -> Result<Vec<LogRow>, rusqlite::Error> {
    let mut statement = connection.prepare(sql)?;
    let mut rows = statement.query([])?;
    let mut read = Vec::new();
    while let Some(row) = rows.next()? {
        read.push(log_row(|place| row.get(place))?);
    }
    Ok(read)
}

fn log_row<E>(get: impl Fn(usize) -> Result<Option<String>, E>) -> Result<LogRow, E> {
    Ok(LogRow {
        id: get(0)?.unwrap_or_default(),
        user: get(1)?,
        model: get(2)?,
        prompt_tokens: get(3)?,
        completion_tokens: get(4)?,
        status: get(5)?,
    })
}

fn unusable(key: &str, found: &str) -> TargetError {
    let key = if key == "query" { "reconcile.query and reconcile.columns".to_owned() } else { format!("reconcile.database.{key}") };
    TargetError::Failed(format!("the gateway's log cannot be read: {found}; correct {key}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_log_is_counted_and_read_as_text_and_what_is_not_named_is_not_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log.db");
        let writer = rusqlite::Connection::open(&path).unwrap();
        writer
            .execute_batch("CREATE TABLE l (rid TEXT, who TEXT, pt INTEGER, st INTEGER); INSERT INTO l VALUES ('bq-1', 'ann', 12, 200), ('bq-2', NULL, 12, 200), ('x', NULL, NULL, 500)")
            .unwrap();
        let database: LogDatabase = serde_json::from_value(serde_json::json!({"sqlite": {"path": path}})).unwrap();
        let mut log = Log::open(&database, "SELECT * FROM l WHERE rid LIKE 'bq-%';", &TargetConfig::default()).await.unwrap();
        assert_eq!(log.count().await.unwrap(), 2);
        let columns = LogColumns {
            id: "rid".into(),
            user: "who".into(),
            model: String::new(),
            prompt_tokens: "pt".into(),
            completion_tokens: String::new(),
            status: "st".into(),
        };
        let row = LogRow {
            id: "bq-1".into(),
            user: Some("ann".into()),
            prompt_tokens: Some("12".into()),
            status: Some("200".into()),
            ..LogRow::default()
        };
        let nobody = LogRow { id: "bq-2".into(), user: Some("NULL".into()), ..row.clone() };
        assert_eq!(log.rows(&columns).await.unwrap(), [row, nobody]);
        let told = log.rows(&LogColumns::default()).await.unwrap_err().to_string();
        assert!(told.contains("correct reconcile.query and reconcile.columns"), "{told}");
        let none = LogDatabase::default();
        assert!(Log::open(&none, "", &TargetConfig::default()).await.is_err());
    }
}
