//! The diagnosis queries of docs/operations.md, each on the servers it is for.

use std::time::{Duration, Instant};

use sqlx::mysql::{MySqlConnection, MySqlRow};
use sqlx::postgres::{PgConnection, PgRow};
use sqlx::{AssertSqlSafe, Connection as _, Row as _};

use crate::common::server_url;
use crate::pages::{blocks, chapter};

/// Longest wait for one session to be seen waiting for another.
const PATIENCE: Duration = Duration::from_secs(30);

fn queries(server: &str, count: usize) -> Vec<String> {
    let found = blocks(&chapter("docs/operations.md", &format!("### {server}")), "sql");
    assert_eq!(found.len(), count, "{found:#?}");
    found
}

/// The one query of `all` that names `word`.
fn one<'a>(all: &'a [String], word: &str) -> &'a str {
    let mut named = all.iter().filter(|query| query.contains(word));
    let found = named.next().unwrap_or_else(|| panic!("no query names {word}"));
    assert!(named.next().is_none(), "two queries name {word}");
    found
}

async fn postgres(connection: &mut PgConnection, sql: &str) -> Vec<PgRow> {
    sqlx::raw_sql(AssertSqlSafe(sql)).fetch_all(connection).await.unwrap_or_else(|error| panic!("{sql}: {error}"))
}

async fn mysql(connection: &mut MySqlConnection, sql: &str) -> Vec<MySqlRow> {
    sqlx::raw_sql(AssertSqlSafe(sql)).fetch_all(connection).await.unwrap_or_else(|error| panic!("{sql}: {error}"))
}

#[tokio::test]
async fn postgres_shows_sessions_slow_statements_blockers_and_bloat() {
    let Some(url) = server_url("BATCHSQL_TEST_POSTGRES") else { return };
    let queries = queries("PostgreSQL", 4);
    let mut user = PgConnection::connect(&url).await.unwrap();
    let mut holder = PgConnection::connect(&url).await.unwrap();
    let mut waiter = PgConnection::connect(&url).await.unwrap();
    for sql in [
        "DROP TABLE IF EXISTS diagnosed",
        "CREATE TABLE diagnosed (id int PRIMARY KEY)",
        "INSERT INTO diagnosed VALUES (1), (2)",
        "DELETE FROM diagnosed WHERE id = 2",
    ] {
        postgres(&mut user, sql).await;
    }
    let pid = |rows: Vec<PgRow>| rows[0].get::<i32, _>(0);
    let (held_by, waiting) =
        (pid(postgres(&mut holder, "SELECT pg_backend_pid()").await), pid(postgres(&mut waiter, "SELECT pg_backend_pid()").await));
    postgres(&mut holder, "BEGIN").await;
    postgres(&mut holder, "UPDATE diagnosed SET id = 3 WHERE id = 1").await;
    let waits = tokio::spawn(async move {
        postgres(&mut waiter, "UPDATE diagnosed SET id = 4 WHERE id = 1").await;
    });
    let began = Instant::now();
    let blocker = loop {
        let rows = postgres(&mut user, one(&queries, "pg_blocking_pids")).await;
        if let Some(row) = rows.iter().find(|row| row.get::<i32, _>("blocked") == waiting) {
            break row.get::<i32, _>("blocking");
        }
        assert!(began.elapsed() < PATIENCE, "nobody was seen waiting");
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    assert_eq!(blocker, held_by);
    let slow = loop {
        let rows = postgres(&mut user, one(&queries, "interval '1 second'")).await;
        if rows.iter().any(|row| row.get::<i32, _>("pid") == waiting) {
            break rows;
        }
        assert!(began.elapsed() < PATIENCE, "no slow statement was seen");
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    assert!(slow.iter().any(|row| row.get::<String, _>("query").starts_with("UPDATE diagnosed SET id = 4")));
    let sessions = postgres(&mut user, one(&queries, "client backend")).await;
    assert!([held_by, waiting].iter().all(|pid| sessions.iter().any(|row| row.get::<i32, _>("pid") == *pid)), "a session is missing");
    postgres(&mut holder, "ROLLBACK").await;
    waits.await.unwrap();
    while !postgres(&mut user, one(&queries, "n_dead_tup DESC")).await.iter().any(|row| row.get::<String, _>("relname") == "diagnosed") {
        assert!(began.elapsed() < PATIENCE, "the table is not listed");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    postgres(&mut user, "DROP TABLE diagnosed").await;
}

async fn mysql_shows_sessions_slow_statements_blockers_and_bloat(url: &str) {
    let queries = queries("MySQL and MariaDB", 5);
    let mut user = MySqlConnection::connect(url).await.unwrap();
    let mut holder = MySqlConnection::connect(url).await.unwrap();
    let mut waiter = MySqlConnection::connect(url).await.unwrap();
    for sql in ["DROP TABLE IF EXISTS diagnosed", "CREATE TABLE diagnosed (id int PRIMARY KEY)", "INSERT INTO diagnosed VALUES (1)"] {
        mysql(&mut user, sql).await;
    }
    let id = |rows: Vec<MySqlRow>| rows[0].get_unchecked::<u64, _>(0);
    let (held_by, waiting) =
        (id(mysql(&mut holder, "SELECT connection_id()").await), id(mysql(&mut waiter, "SELECT connection_id()").await));
    mysql(&mut holder, "BEGIN").await;
    mysql(&mut holder, "UPDATE diagnosed SET id = 3 WHERE id = 1").await;
    let waits = tokio::spawn(async move {
        mysql(&mut waiter, "UPDATE diagnosed SET id = 4 WHERE id = 1").await;
    });
    let began = Instant::now();
    let blocker = loop {
        let rows = mysql(&mut user, one(&queries, "innodb_lock_waits")).await;
        if let Some(row) = rows.iter().find(|row| row.get_unchecked::<u64, _>("waiting_pid") == waiting) {
            break row.get_unchecked::<u64, _>("blocking_pid");
        }
        assert!(began.elapsed() < PATIENCE, "nobody was seen waiting");
        // InnoDB looks anew only when nobody has asked for 100 ms.
        tokio::time::sleep(Duration::from_millis(300)).await;
    };
    assert_eq!(blocker, held_by);
    while !mysql(&mut user, one(&queries, "time >= 1")).await.iter().any(|row| row.get_unchecked::<u64, _>(0) == waiting) {
        assert!(began.elapsed() < PATIENCE, "no slow statement was seen");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let sessions = mysql(&mut user, one(&queries, "processlist ORDER BY time DESC")).await;
    assert!([held_by, waiting].iter().all(|id| sessions.iter().any(|row| row.get_unchecked::<u64, _>(0) == *id)), "a session is missing");
    mysql(&mut user, one(&queries, "statement_analysis")).await; // empty where the server keeps no statistics
    assert!(!mysql(&mut user, one(&queries, "data_free DESC")).await.is_empty());
    mysql(&mut holder, "ROLLBACK").await;
    waits.await.unwrap();
    mysql(&mut user, "DROP TABLE diagnosed").await;
}

#[tokio::test]
async fn mysql_shows_them() {
    let Some(url) = server_url("BATCHSQL_TEST_MYSQL") else { return };
    mysql_shows_sessions_slow_statements_blockers_and_bloat(&url).await;
}

#[tokio::test]
async fn mariadb_shows_them() {
    let Some(url) = server_url("BATCHSQL_TEST_MARIADB") else { return };
    mysql_shows_sessions_slow_statements_blockers_and_bloat(&url).await;
}

#[test]
fn sqlite_shows_its_log_and_its_free_pages() {
    let queries = queries("SQLite", 2);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("diagnosed.db");
    let connection = rusqlite::Connection::open(&path).unwrap();
    connection.execute_batch("PRAGMA journal_mode = WAL; PRAGMA wal_autocheckpoint = 0; CREATE TABLE t (x); INSERT INTO t VALUES (zeroblob(100000)); DROP TABLE t;").unwrap();
    let three = |sql: &str| connection.query_row(sql, [], |row| Ok([row.get::<_, i64>(0)?, row.get(1)?, row.get(2)?])).unwrap();
    let log = std::fs::metadata(path.with_extension("db-wal")).unwrap().len() as i64;
    let [pages, free, page_size] = three(one(&queries, "freelist_count"));
    let [busy, frames, written_back] = three(one(&queries, "wal_checkpoint"));
    assert!(free > 20 && pages > free, "{pages} pages, {free} of them free");
    assert_eq!((busy, frames), (0, written_back));
    // Each page in the log has a head of 24 bytes, the log itself one of 32.
    assert_eq!(log, 32 + frames * (page_size + 24));
}
