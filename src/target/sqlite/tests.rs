//! The SQLite target on real files.

use super::*;
use crate::scenario::{Pragma, PragmaProfile, PragmaValue};
use crate::table::{Column, Row, RowBlock, Value};
use crate::target::KeyRange;
use tokio::sync::mpsc;

fn column(name: &str, ty: ColumnType) -> Column {
    Column { name: name.into(), ty, nullable: name != "id", index: name == "text", max_len: 100 }
}

fn table() -> Table {
    let columns = vec![
        column("id", ColumnType::Int64),
        column("int", ColumnType::Int64),
        column("float", ColumnType::Float64),
        column("decimal", ColumnType::Decimal { precision: 18, scale: 4 }),
        column("bool", ColumnType::Bool),
        column("text", ColumnType::Text),
        column("bytes", ColumnType::Bytes),
        column("timestamp", ColumnType::Timestamp),
        column("uuid", ColumnType::Uuid),
    ];
    Table { name: "odd \"name\"".into(), columns, key: 0, unique_key: true }
}

fn extremes() -> Vec<Row> {
    let row = |id, int, float, decimal, bool, text: &str, bytes: &[u8], timestamp, uuid| {
        vec![
            Value::Int(id),
            Value::Int(int),
            Value::Float(float),
            Value::Decimal(decimal),
            Value::Bool(bool),
            Value::Text(text.into()),
            Value::Bytes(bytes.into()),
            Value::Timestamp(timestamp),
            Value::Uuid([uuid; 16]),
        ]
    };
    vec![
        row(1, i64::MIN, f64::MIN, -999_999_999_999_999_999, false, "", b"", -30_610_224_000_000_000, 0),
        row(2, i64::MAX, f64::MAX, 999_999_999_999_999_999, true, "a'b\"c\\😀 ", b"\0\xff", 253_402_300_799_999_999, 255),
        row(3, 0, 5e-324, -1, true, "12abc", b"x", -1, 7),
        std::iter::once(Value::Int(4)).chain(std::iter::repeat_n(Value::Null, 8)).collect(),
    ]
}

struct Open {
    folder: tempfile::TempDir,
    target: Sqlite,
}

async fn open(config: &SqliteConfig) -> Open {
    let folder = tempfile::tempdir().unwrap();
    let target = Sqlite::connect(&folder.path().join("t.db"), config, &Pool::default(), 2, true).await.unwrap();
    Open { folder, target }
}

impl Open {
    async fn write(&self, plan: &WritePlan, rows: &[Row]) -> Result<super::super::Written, Failure> {
        let plan = Arc::new(self.target.resolve(plan.clone(), 200).unwrap());
        self.target.acquire().await.unwrap().write(&plan, &Arc::new(rows.to_vec())).await
    }

    async fn read(&self, table: &Table, range: KeyRange) -> Vec<Vec<String>> {
        let (sender, mut receiver) = mpsc::channel::<RowBlock>(100);
        self.target.reader().await.unwrap().scan(table, range, sender).await.unwrap();
        let mut rows = Vec::new();
        while let Some(block) = receiver.recv().await {
            let cells = |row| (0..table.columns.len()).map(|column| format!("{:?}", block.cell(row, column))).collect();
            rows.extend((0..block.rows()).map(cells));
        }
        rows
    }

    fn raw(&self) -> Connection {
        Connection::open(self.folder.path().join("t.db")).unwrap()
    }
}

const ALL: KeyRange = KeyRange { from: None, to: None };

fn plan(conflict: Conflict, method: Method) -> WritePlan {
    WritePlan { table: table(), conflict, method }
}

#[tokio::test]
async fn every_type_and_its_extremes_come_back_bit_for_bit() {
    for method in [Method::Prepared, Method::Values] {
        let open = open(&SqliteConfig::default()).await;
        open.target.create(&table(), "run").await.unwrap();
        let rows = extremes();
        open.write(&plan(Conflict::Error, method), &rows).await.unwrap();
        let found = open.read(&table(), ALL).await;
        let expected = super::super::mock::block(&table(), &rows.iter().collect::<Vec<_>>());
        for (row, cells) in found.iter().enumerate() {
            let wanted: Vec<String> = (0..9).map(|column| format!("{:?}", expected.cell(row, column))).collect();
            assert_eq!(*cells, wanted, "{method:?}");
        }
        assert_eq!(found.len(), 4);
    }
}

#[tokio::test]
async fn ranges_are_read_in_key_order_with_open_ends() {
    let open = open(&SqliteConfig::default()).await;
    open.target.create(&table(), "run").await.unwrap();
    open.write(&plan(Conflict::Error, Method::Auto), &extremes()).await.unwrap();
    let keys = |rows: Vec<Vec<String>>| rows.into_iter().map(|row| row[0].clone()).collect::<Vec<_>>();
    assert_eq!(keys(open.read(&table(), KeyRange { from: None, to: Some(2) }).await), ["Int(1)"]);
    assert_eq!(keys(open.read(&table(), KeyRange { from: Some(2), to: Some(4) }).await), ["Int(2)", "Int(3)"]);
    assert_eq!(keys(open.read(&table(), KeyRange { from: Some(4), to: None }).await), ["Int(4)"]);
}

#[tokio::test]
async fn conflicts_end_as_the_strategy_says_and_in_the_order_of_the_batch() {
    let version = |id, int| {
        let mut row = extremes().remove(0);
        (row[0], row[1]) = (Value::Int(id), Value::Int(int));
        row
    };
    for method in [Method::Prepared, Method::Values] {
        for (conflict, kept) in [(Conflict::Ignore, "Int(1)"), (Conflict::Replace, "Int(3)"), (Conflict::Update, "Int(3)")] {
            let open = open(&SqliteConfig::default()).await;
            open.target.create(&table(), "run").await.unwrap();
            let rows = [version(1, 1), version(2, 9), version(1, 2), version(1, 3)];
            open.write(&plan(conflict, method), &rows).await.unwrap();
            let found = open.read(&table(), ALL).await;
            assert_eq!((found.len(), found[0][1].as_str()), (2, kept), "{method:?} {conflict:?}");
        }
        let open = open(&SqliteConfig::default()).await;
        open.target.create(&table(), "run").await.unwrap();
        let failure = open.write(&plan(Conflict::Error, method), &[version(1, 1), version(2, 1), version(1, 2)]).await.unwrap_err();
        assert_eq!((failure.class, failure.applied), (ErrorClass::Constraint, Applied::No));
        assert!(open.read(&table(), ALL).await.is_empty(), "a rejected batch leaves nothing");
    }
}

#[tokio::test]
async fn a_batch_over_the_bind_limit_is_still_one_transaction() {
    let open = open(&SqliteConfig::default()).await;
    open.target.create(&table(), "run").await.unwrap();
    let row = |id: i64| std::iter::once(Value::Int(id)).chain(std::iter::repeat_n(Value::Null, 8)).collect::<Row>();
    // 9 columns × 5,000 rows are over 32,766 variables.
    let mut rows: Vec<Row> = (0..5_000).map(row).collect();
    open.write(&plan(Conflict::Error, Method::Values), &rows).await.unwrap();
    assert_eq!(open.read(&table(), ALL).await.len(), 5_000);
    rows = (10_000..15_000).map(row).chain([row(3)]).collect();
    assert_eq!(open.write(&plan(Conflict::Error, Method::Values), &rows).await.unwrap_err().class, ErrorClass::Constraint);
    assert_eq!(open.read(&table(), ALL).await.len(), 5_000);
}

#[tokio::test]
async fn a_table_without_a_unique_key_keeps_duplicates() {
    let open = open(&SqliteConfig::default()).await;
    let table = Table { unique_key: false, ..table() };
    open.target.create(&table, "run").await.unwrap();
    let plan = WritePlan { table: table.clone(), ..plan(Conflict::Error, Method::Auto) };
    open.write(&plan, &extremes()).await.unwrap();
    open.write(&plan, &extremes()[..1]).await.unwrap();
    let keys: Vec<String> = open.read(&table, ALL).await.into_iter().map(|row| row[0].clone()).collect();
    assert_eq!(keys, ["Int(1)", "Int(1)", "Int(2)", "Int(3)", "Int(4)"]);
}

#[tokio::test]
async fn only_tables_of_this_tool_are_replaced() {
    let open = open(&SqliteConfig::default()).await;
    open.raw().execute_batch("CREATE TABLE \"odd \"\"name\"\"\" (x); INSERT INTO \"odd \"\"name\"\"\" VALUES (7)").unwrap();
    let error = open.target.create(&table(), "run").await.unwrap_err();
    assert!(matches!(error, TargetError::ForeignTable { .. }), "{error}");
    assert_eq!(open.raw().query_row("SELECT x FROM \"odd \"\"name\"\"\"", [], |row| row.get::<_, i64>(0)).unwrap(), 7);
    assert_eq!(open.target.owner(&table().name).await.unwrap(), None);
    open.raw().execute_batch("DROP TABLE \"odd \"\"name\"\"\"").unwrap();
    open.target.create(&table(), "first").await.unwrap();
    open.write(&plan(Conflict::Error, Method::Auto), &extremes()).await.unwrap();
    open.target.create(&table(), "second").await.unwrap();
    assert_eq!(open.target.owner(&table().name).await.unwrap().as_deref(), Some("second"));
    assert!(open.read(&table(), ALL).await.is_empty());
}

#[tokio::test]
async fn a_table_made_by_another_after_ours_was_dropped_is_not_ours() {
    let open = open(&SqliteConfig::default()).await;
    open.target.create(&table(), "first */ run").await.unwrap();
    assert_eq!(open.target.owner(&table().name).await.unwrap().as_deref(), Some("first */ run"));
    open.raw().execute_batch("DROP TABLE \"odd \"\"name\"\"\"; CREATE TABLE \"odd \"\"name\"\"\" (x)").unwrap();
    assert_eq!(open.target.owner(&table().name).await.unwrap(), None);
    assert!(matches!(open.target.create(&table(), "second").await, Err(TargetError::ForeignTable { .. })));
}

#[tokio::test]
async fn pragmas_are_read_back_from_the_runs_own_connection() {
    let read = |open: &Open| open.target.info().settings.iter().cloned().collect::<std::collections::BTreeMap<_, _>>();
    let default = read(&open(&SqliteConfig::default()).await);
    let expected = [("journal_mode", "WAL"), ("synchronous", "NORMAL"), ("cache_size", "-64000"), ("mmap_size", "268435456")];
    for (pragma, value) in expected.into_iter().chain([("temp_store", "MEMORY"), ("busy_timeout", "5000"), ("wal_autocheckpoint", "1000")])
    {
        assert_eq!(default[pragma], value);
    }
    let off = read(&open(&SqliteConfig { profile: PragmaProfile::Off, ..SqliteConfig::default() }).await);
    assert_eq!((off["journal_mode"].as_str(), off["synchronous"].as_str()), ("DELETE", "FULL"));
    let single = [(Pragma::Synchronous, PragmaValue::Word("EXTRA".into())), (Pragma::CacheSize, PragmaValue::Number(-99))];
    let single = SqliteConfig { pragmas: single.into(), profile: PragmaProfile::Aggressive, ..SqliteConfig::default() };
    let single = read(&open(&single).await);
    assert_eq!(
        (single["synchronous"].as_str(), single["cache_size"].as_str(), single["mmap_size"].as_str()),
        ("EXTRA", "-99", "536870912")
    );
}

#[tokio::test]
async fn a_full_database_rejects_the_batch_whole() {
    let config = SqliteConfig { pragmas: [(Pragma::MaxPageCount, PragmaValue::Number(20))].into(), ..SqliteConfig::default() };
    let open = open(&config).await;
    open.target.create(&table(), "run").await.unwrap();
    let mut large = extremes();
    large[0][6] = Value::Bytes(vec![7; 200_000]);
    let failure = open.write(&plan(Conflict::Error, Method::Auto), &large).await.unwrap_err();
    assert_eq!((failure.class, failure.applied), (ErrorClass::DiskFull, Applied::No));
    assert!(open.read(&table(), ALL).await.is_empty());
}

#[tokio::test]
async fn a_rival_writer_makes_it_busy() {
    let config = SqliteConfig { pragmas: [(Pragma::BusyTimeout, PragmaValue::Number(1))].into(), ..SqliteConfig::default() };
    let open = open(&config).await;
    open.target.create(&table(), "run").await.unwrap();
    let rival = open.raw();
    rival.execute_batch("BEGIN IMMEDIATE").unwrap();
    let failure = open.write(&plan(Conflict::Error, Method::Auto), &extremes()).await.unwrap_err();
    assert_eq!((failure.class, failure.applied), (ErrorClass::Busy, Applied::No));
    rival.execute_batch("ROLLBACK").unwrap();
    open.write(&plan(Conflict::Error, Method::Auto), &extremes()).await.unwrap();
}

#[tokio::test]
async fn a_write_over_the_statement_timeout_is_rolled_back_and_says_so() {
    let open = open(&SqliteConfig::default()).await;
    open.target.create(&table(), "run").await.unwrap();
    let slow = "CREATE TRIGGER slow BEFORE INSERT ON \"odd \"\"name\"\"\" BEGIN \
                SELECT count(*) FROM (WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1000000000) SELECT i FROM n); END";
    open.raw().execute_batch(slow).unwrap();
    let pool = Pool { statement_timeout: crate::scenario::units::Time::millis(50), ..Pool::default() };
    let impatient = Sqlite::connect(&open.folder.path().join("t.db"), &SqliteConfig::default(), &pool, 1, true).await.unwrap();
    let plan = Arc::new(plan(Conflict::Error, Method::Prepared));
    let failure = impatient.acquire().await.unwrap().write(&plan, &Arc::new(extremes())).await.unwrap_err();
    assert_eq!((failure.class, failure.applied), (ErrorClass::Timeout, Applied::No));
    assert!(open.read(&table(), ALL).await.is_empty());
}

#[tokio::test]
async fn quiesce_waits_for_connections_in_use() {
    let open = open(&SqliteConfig::default()).await;
    let session = open.target.acquire().await.unwrap();
    assert_eq!(open.target.pool(), PoolUse { active: 1, max: 2 });
    assert_eq!(open.target.quiesce(&BTreeSet::new(), Duration::from_millis(20)).await.unwrap().len(), 1);
    drop(session);
    assert!(open.target.quiesce(&BTreeSet::new(), Duration::from_millis(20)).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_file_that_cannot_be_used_is_named_with_the_mend() {
    let folder = tempfile::tempdir().unwrap();
    let connect =
        |path: PathBuf, create| async move { Sqlite::connect(&path, &SqliteConfig::default(), &Pool::default(), 1, create).await };
    let error = connect(folder.path().to_owned(), true).await.err().unwrap().to_string();
    assert!(error.contains("cannot be used") && error.contains("--database-url"), "{error}");
    let error = connect(folder.path().join("absent.db"), false).await.err().unwrap().to_string();
    assert!(error.contains("does not exist"), "{error}");
    assert!(!folder.path().join("absent.db").exists(), "looking for a file does not make it");
}

#[test]
fn classes_come_from_the_result_code() {
    let cases = [
        (rusqlite::ffi::SQLITE_BUSY, ErrorClass::Busy),
        (rusqlite::ffi::SQLITE_LOCKED, ErrorClass::Busy),
        (rusqlite::ffi::SQLITE_CONSTRAINT_PRIMARYKEY, ErrorClass::Constraint),
        (rusqlite::ffi::SQLITE_TOOBIG, ErrorClass::TooLarge),
        (rusqlite::ffi::SQLITE_MISMATCH, ErrorClass::Data),
        (rusqlite::ffi::SQLITE_FULL, ErrorClass::DiskFull),
        (rusqlite::ffi::SQLITE_INTERRUPT, ErrorClass::Timeout),
        (rusqlite::ffi::SQLITE_READONLY, ErrorClass::ReadOnly),
        (rusqlite::ffi::SQLITE_CORRUPT, ErrorClass::Other),
    ];
    for (code, expected) in cases {
        assert_eq!(classify(&rusqlite::Error::SqliteFailure(rusqlite::ffi::Error::new(code), None)), expected, "{code}");
    }
    assert_eq!(classify(&rusqlite::Error::QueryReturnedNoRows), ErrorClass::Other);
}
