//! A server under test, a table of the test's own on it, and a second connection that does what a user might.

use std::sync::Arc;
use std::time::{Duration, Instant};

use batchsql::scenario::{self, units::Time};
use batchsql::table::{Cell, Column, ColumnType, Row, Table, Value};
use batchsql::target::{Conflict, Failure, KeyRange, Method, Session, Target, WritePlan, Written, mysql, postgres};
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _};
use tokio::sync::mpsc;

use crate::common::server_url;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Postgres,
    Mysql,
}

pub(crate) struct Server {
    pub(crate) kind: Kind,
    pub(crate) url: String,
    /// The table of this test; other tests leave it alone.
    pub(crate) table: String,
}

/// All rows there are.
pub(crate) const ALL: KeyRange = KeyRange { from: None, to: None };

impl Server {
    fn new(kind: Kind, variable: &str, test: &str) -> Option<Self> {
        server_url(variable).map(|url| Self { kind, url, table: test.to_owned() })
    }

    pub(crate) fn postgres(test: &str) -> Option<Self> {
        Self::new(Kind::Postgres, "BATCHSQL_TEST_POSTGRES", test)
    }

    pub(crate) fn mariadb(test: &str) -> Option<Self> {
        Self::new(Kind::Mysql, "BATCHSQL_TEST_MARIADB", test)
    }

    pub(crate) fn mysql(test: &str) -> Option<Self> {
        Self::new(Kind::Mysql, "BATCHSQL_TEST_MYSQL", test)
    }

    pub(crate) async fn connect(&self) -> Box<dyn Target> {
        self.connect_with(&scenario::Pool::default(), 4).await
    }

    pub(crate) async fn connect_with(&self, pool: &scenario::Pool, size: u32) -> Box<dyn Target> {
        match self.kind {
            Kind::Postgres => Box::new(postgres::connect(&self.url, pool, size, &self.table, false).await.unwrap()),
            Kind::Mysql => Box::new(mysql::connect(&self.url, pool, size, &self.table, false).await.unwrap()),
        }
    }

    pub(crate) async fn user(&self) -> User {
        match self.kind {
            Kind::Postgres => User::Postgres(sqlx::PgConnection::connect(&self.url).await.unwrap()),
            Kind::Mysql => User::Mysql(self.url.parse::<sqlx::mysql::MySqlConnectOptions>().unwrap().connect().await.unwrap()),
        }
    }

    /// The name in this server's quotes.
    pub(crate) fn quoted(&self, name: &str) -> String {
        match self.kind {
            Kind::Postgres => format!("\"{}\"", name.replace('"', "\"\"")),
            Kind::Mysql => format!("`{}`", name.replace('`', "``")),
        }
    }

    /// A table `id`, `v` of this test.
    pub(crate) fn small_table(&self) -> Table {
        Table {
            name: self.table.clone(),
            columns: vec![column("id", ColumnType::Int64, false, 0), column("v", ColumnType::Text, true, 40)],
            key: 0,
            unique_key: true,
        }
    }

    /// The methods that rows can travel by under `conflict`.
    pub(crate) fn methods(&self, conflict: Conflict) -> Vec<Method> {
        match (self.kind, conflict) {
            (Kind::Postgres, Conflict::Error) => vec![Method::Values, Method::Unnest, Method::Copy],
            (Kind::Postgres, _) => vec![Method::Values, Method::Unnest],
            (Kind::Mysql, _) => vec![Method::Values],
        }
    }
}

pub(crate) fn column(name: &str, ty: ColumnType, nullable: bool, max_len: u32) -> Column {
    Column { name: name.to_owned(), ty, nullable, index: false, max_len }
}

pub(crate) fn pair(id: i64, v: &str) -> Row {
    vec![Value::Int(id), Value::Text(v.to_owned())]
}

pub(crate) fn plan(table: &Table, conflict: Conflict, method: Method) -> WritePlan {
    WritePlan { table: table.clone(), conflict, method }
}

/// A plan by the target's own choice of method.
pub(crate) fn auto(target: &dyn Target, table: &Table, conflict: Conflict) -> WritePlan {
    target.resolve(plan(table, conflict, Method::Auto), 200).unwrap()
}

pub(crate) fn times(statement: Duration) -> scenario::Pool {
    scenario::Pool { statement_timeout: Time(statement), ..scenario::Pool::default() }
}

/// One batch through a session of its own.
pub(crate) async fn write(target: &dyn Target, plan: &WritePlan, rows: &[Row]) -> Result<Written, Failure> {
    send(&mut target.acquire().await.unwrap(), plan, rows).await
}

/// One batch through `session`.
pub(crate) async fn send(session: &mut Box<dyn Session>, plan: &WritePlan, rows: &[Row]) -> Result<Written, Failure> {
    session.write(&Arc::new(plan.clone()), &Arc::new(rows.to_vec())).await
}

/// A cell as a value that outlives its block.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Found {
    Null,
    Int(i64),
    /// By its bits.
    Float(u64),
    Bool(bool),
    Text(String),
    Bytes(Vec<u8>),
    Timestamp(i64),
    Uuid([u8; 16]),
}

pub(crate) fn text(v: &str) -> Found {
    Found::Text(v.to_owned())
}

/// Everything stored in `range`, as it comes.
pub(crate) async fn stored(target: &dyn Target, table: &Table, range: KeyRange) -> Vec<Vec<Found>> {
    let reader = target.reader().await.unwrap();
    let (sender, mut blocks) = mpsc::channel::<batchsql::table::RowBlock>(2);
    let collect = async {
        let mut rows = Vec::new();
        while let Some(block) = blocks.recv().await {
            for row in 0..block.rows() {
                rows.push((0..table.columns.len()).map(|column| found(block.cell(row, column))).collect());
            }
        }
        rows
    };
    let (scanned, rows) = tokio::join!(reader.scan(table, range, sender), collect);
    scanned.unwrap();
    rows
}

fn found(cell: Cell<'_>) -> Found {
    match cell {
        Cell::Null => Found::Null,
        Cell::Int(v) => Found::Int(v),
        Cell::Float(v) => Found::Float(v.to_bits()),
        Cell::Bool(v) => Found::Bool(v),
        Cell::Text(v) => Found::Text(String::from_utf8(v.to_vec()).unwrap()),
        Cell::Bytes(v) => Found::Bytes(v.to_vec()),
        Cell::Timestamp(v) => Found::Timestamp(v),
        Cell::Uuid(v) => Found::Uuid(v),
    }
}

/// Somebody else on the same server.
pub(crate) enum User {
    Postgres(sqlx::PgConnection),
    Mysql(sqlx::MySqlConnection),
}

impl User {
    pub(crate) async fn run(&mut self, sql: &str) -> Result<(), sqlx::Error> {
        let sql = AssertSqlSafe(sql.to_owned());
        match self {
            User::Postgres(connection) => sqlx::raw_sql(sql).execute(connection).await.map(drop),
            User::Mysql(connection) => sqlx::raw_sql(sql).execute(connection).await.map(drop),
        }
    }

    pub(crate) async fn execute(&mut self, sql: &str) {
        self.run(sql).await.unwrap_or_else(|e| panic!("{sql}: {e}"));
    }

    pub(crate) async fn number(&mut self, sql: &str) -> i64 {
        use sqlx::Row as _;
        let sql = AssertSqlSafe(sql.to_owned());
        match self {
            User::Postgres(connection) => sqlx::raw_sql(sql).fetch_one(connection).await.unwrap().get_unchecked(0),
            User::Mysql(connection) => sqlx::raw_sql(sql).fetch_one(connection).await.unwrap().get_unchecked(0),
        }
    }

    /// Waits until the session waits for a lock.
    pub(crate) async fn wait_until_blocked(&mut self, session: u64) {
        let begun = Instant::now();
        while !self.is_blocked(session).await {
            assert!(begun.elapsed() < Duration::from_secs(20), "session {session} never waited for a lock");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn is_blocked(&mut self, session: u64) -> bool {
        use sqlx::Row as _;
        let User::Mysql(connection) = self else {
            let waiting = format!("SELECT count(*) FROM pg_stat_activity WHERE pid = {session} AND wait_event_type = 'Lock'");
            return self.number(&waiting).await > 0;
        };
        // information_schema.innodb_trx stays as it was while somebody keeps reading it: other tests do.
        let status: String = sqlx::raw_sql("SHOW ENGINE INNODB STATUS").fetch_one(connection).await.unwrap().get_unchecked(2);
        status.split("---TRANSACTION").any(|one| one.contains(&format!("thread id {session},")) && one.contains("LOCK WAIT"))
    }

    pub(crate) async fn end_session(&mut self, session: u64) {
        match self {
            User::Postgres(_) => self.execute(&format!("SELECT pg_terminate_backend({session})")).await,
            User::Mysql(_) => self.execute(&format!("KILL {session}")).await,
        }
    }
}
