//! The databases that the program is tried on, and a user of them beside it.

use std::time::Duration;

use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _, Row as _};

use crate::common::server_url;
use crate::place::{Place, Running, until};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Sqlite,
    Postgres,
    Mysql,
}

/// A database and a table of the test's own in it.
pub(crate) struct Database {
    pub(crate) kind: Kind,
    /// As `--database-url` takes it.
    pub(crate) url: String,
    pub(crate) table: String,
}

/// The columns that every row of the default table has.
pub(crate) const COLUMNS: &str = "id, name, email, data, value, is_active, created_at";

impl Database {
    pub(crate) fn sqlite(place: &Place, table: &str) -> Self {
        Self { kind: Kind::Sqlite, url: format!("sqlite://{}", place.name("test.db")), table: table.to_owned() }
    }

    fn server(kind: Kind, variable: &str, table: &str) -> Option<Self> {
        server_url(variable).map(|url| Self { kind, url, table: table.to_owned() })
    }

    pub(crate) fn postgres(table: &str) -> Option<Self> {
        Self::server(Kind::Postgres, "BATCHSQL_TEST_POSTGRES", table)
    }

    pub(crate) fn mariadb(table: &str) -> Option<Self> {
        Self::server(Kind::Mysql, "BATCHSQL_TEST_MARIADB", table)
    }

    pub(crate) fn mysql(table: &str) -> Option<Self> {
        Self::server(Kind::Mysql, "BATCHSQL_TEST_MYSQL", table)
    }

    /// A new, empty database of this name on the same server, and a table in it; SQLite's file is the test's own already.
    pub(crate) fn own_database(&self, name: &str, table: &str) -> Self {
        let mut url = self.url.clone();
        if self.kind != Kind::Sqlite {
            let mut user = self.user();
            user.execute(&format!("DROP DATABASE IF EXISTS {name}"));
            user.execute(&format!("CREATE DATABASE {name}"));
            let mut parsed = url::Url::parse(&url).unwrap();
            parsed.set_path(name);
            url = parsed.to_string();
        }
        Self { kind: self.kind, url, table: table.to_owned() }
    }

    /// What `verify` needs beside the run: the URL again, where it carries a password.
    pub(crate) fn password_again(&self) -> Vec<&str> {
        if self.kind == Kind::Sqlite { Vec::new() } else { vec!["--database-url", &self.url] }
    }

    /// The scenario's `target`.
    pub(crate) fn target(&self) -> Value {
        match self.kind {
            Kind::Sqlite => json!({"sqlite": {"path": self.url.trim_start_matches("sqlite://")}}),
            Kind::Postgres => json!({"postgres": {"url": self.url}}),
            Kind::Mysql => json!({"mysql": {"url": self.url}}),
        }
    }

    /// A scenario with this `workload.batch_insert` (the table's name is added) and `load`.
    pub(crate) fn scenario(&self, mut insert: Value, load: Value) -> Value {
        insert["table"] = json!(self.table);
        json!({"name": self.table, "target": self.target(), "workload": {"batch_insert": insert}, "load": load})
    }

    /// So many rows at full speed, in batches of 100.
    pub(crate) fn rows(&self, rows: u64) -> Value {
        self.scenario(json!({"rows": rows, "pipeline": {"flush_size": 100}}), json!({"executor": "shared-iterations"}))
    }

    /// The table's name, quoted.
    pub(crate) fn quoted(&self) -> String {
        match self.kind {
            Kind::Mysql => format!("`{}`", self.table.replace('`', "``")),
            _ => format!("\"{}\"", self.table.replace('"', "\"\"")),
        }
    }

    pub(crate) fn user(&self) -> User {
        let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        match self.kind {
            Kind::Sqlite => {
                let connection = rusqlite::Connection::open(self.url.trim_start_matches("sqlite://")).unwrap();
                connection.busy_timeout(Duration::from_secs(30)).unwrap();
                User::Sqlite(connection)
            }
            Kind::Postgres => {
                let runtime = runtime();
                let connection = runtime.block_on(sqlx::PgConnection::connect(&self.url)).unwrap();
                User::Postgres(runtime, connection)
            }
            Kind::Mysql => {
                let runtime = runtime();
                let options: sqlx::mysql::MySqlConnectOptions = self.url.parse().unwrap();
                let connection = runtime.block_on(options.connect()).unwrap();
                User::Mysql(runtime, connection)
            }
        }
    }

    /// Does `sql` with the table's name in the place of `{table}`.
    pub(crate) fn execute(&self, sql: &str) {
        self.user().execute(&self.filled(sql));
    }

    /// The one number that `sql` asks for.
    pub(crate) fn number(&self, sql: &str) -> i64 {
        self.user().number(&self.filled(sql))
    }

    pub(crate) fn filled(&self, sql: &str) -> String {
        sql.replace("{table}", &self.quoted())
    }

    /// Waits until the program has made this table anew, and returns with it still empty; for scenarios with [`silent_start`].
    pub(crate) fn await_table(&self, running: &mut Running) -> User {
        running.folder();
        let mut user = self.user();
        assert_eq!(user.number(&self.filled("SELECT count(*) FROM {table}")), 0, "the silent start was too short");
        user
    }

    /// A key that is stored; waits for one.
    pub(crate) fn await_rows(&self) -> i64 {
        let mut user = self.user();
        let sql = self.filled("SELECT count(*) FROM {table}");
        until("a stored row", || Some(user.number(&sql)).filter(|rows| *rows > 0))
    }
}

/// A load that offers nothing for a second and a half, so that a test can meddle with the empty table, and `rate` operations a
/// second one second later.
pub(crate) fn silent_start(rate: u32) -> Value {
    let stages = json!([{"duration": "1500ms", "target": 0}, {"duration": "1s", "target": rate}]);
    json!({"executor": "ramping-arrival-rate", "stages": stages, "lag_limit": "10s"})
}

/// Somebody else on the same database.
pub(crate) enum User {
    Sqlite(rusqlite::Connection),
    Postgres(tokio::runtime::Runtime, sqlx::PgConnection),
    Mysql(tokio::runtime::Runtime, sqlx::MySqlConnection),
}

impl User {
    pub(crate) fn execute(&mut self, sql: &str) {
        self.attempt(sql).unwrap_or_else(|error| panic!("{sql}: {error}"));
    }

    /// As [`User::execute`], of what may fail.
    pub(crate) fn attempt(&mut self, sql: &str) -> Result<(), String> {
        match self {
            User::Sqlite(connection) => connection.execute_batch(sql).map_err(|e| e.to_string()),
            User::Postgres(runtime, connection) => {
                let done = runtime.block_on(sqlx::raw_sql(AssertSqlSafe(sql)).execute(connection));
                done.map(drop).map_err(|e| e.to_string())
            }
            User::Mysql(runtime, connection) => {
                let done = runtime.block_on(sqlx::raw_sql(AssertSqlSafe(sql)).execute(connection));
                done.map(drop).map_err(|e| e.to_string())
            }
        }
    }

    pub(crate) fn number(&mut self, sql: &str) -> i64 {
        match self {
            User::Sqlite(connection) => connection.query_row(sql, [], |row| row.get(0)).unwrap(),
            User::Postgres(runtime, connection) => {
                runtime.block_on(sqlx::raw_sql(AssertSqlSafe(sql)).fetch_one(connection)).unwrap().get_unchecked(0)
            }
            User::Mysql(runtime, connection) => {
                runtime.block_on(sqlx::raw_sql(AssertSqlSafe(sql)).fetch_one(connection)).unwrap().get_unchecked(0)
            }
        }
    }
}
