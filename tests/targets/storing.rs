//! What is written is what is stored: types, conflicts, splits, keys, owners.

use batchsql::table::{Column, ColumnType, Row, Table, Value};
use batchsql::target::{Applied, Conflict, ErrorClass, KeyRange, Method, TargetError};

use crate::on_each_server;
use crate::server::{ALL, Found, Kind, Server, auto, column, pair, plan, send, stored, text, write};

on_each_server!(
    every_type_comes_back_as_it_went,
    repeated_keys_take_effect_in_order,
    a_key_that_exists_rejects_the_batch_whole,
    more_rows_than_bind_variables_are_one_transaction,
    a_row_too_large_is_rejected_before_it_is_sent,
    a_table_of_keys_alone_knows_every_conflict,
    duplicates_can_be_stored_without_a_unique_key,
    ranges_are_read_in_order_to_the_limits_of_the_type,
    strangers_tables_are_left_alone,
    altered_columns_are_read_as_they_are,
);

/// Every type, nullable.
fn wide_table(name: &str) -> Table {
    let columns = vec![
        column("id", ColumnType::Int64, false, 0),
        column("int", ColumnType::Int64, true, 0),
        column("float", ColumnType::Float64, true, 0),
        column("money", ColumnType::Decimal { precision: 10, scale: 2 }, true, 0),
        column("exact", ColumnType::Decimal { precision: 18, scale: 18 }, true, 0),
        column("whole", ColumnType::Decimal { precision: 18, scale: 0 }, true, 0),
        column("flag", ColumnType::Bool, true, 0),
        Column { index: true, ..column("text", ColumnType::Text, true, 200) },
        column("long", ColumnType::Text, true, 100_000),
        column("bytes", ColumnType::Bytes, true, 300),
        column("at", ColumnType::Timestamp, true, 0),
        column("uuid", ColumnType::Uuid, true, 0),
    ];
    Table { name: name.to_owned(), columns, key: 0, unique_key: true }
}

const MOST: i64 = 999_999_999_999_999_999;
/// 0001-01-01 is before what MySQL promises; 1000-01-01 and the last microsecond of 9999 are within.
const FIRST: i64 = -30_610_224_000_000_000;
const LAST: i64 = 253_402_300_799_999_999;

fn wide_rows() -> Vec<Row> {
    let row = |id, int, float, money, exact, whole, flag, short: &str, long: String, bytes: Vec<u8>, at, uuid: u8| {
        vec![
            Value::Int(id),
            Value::Int(int),
            Value::Float(float),
            Value::Decimal(money),
            Value::Decimal(exact),
            Value::Decimal(whole),
            Value::Bool(flag),
            Value::Text(short.to_owned()),
            Value::Text(long),
            Value::Bytes(bytes),
            Value::Timestamp(at),
            Value::Uuid([uuid; 16]),
        ]
    };
    let mut nulls = vec![Value::Null; 12];
    nulls[0] = Value::Int(0);
    let every_byte: Vec<u8> = (0..=255).collect();
    vec![
        row(i64::MIN, i64::MIN, f64::MIN, -9_999_999_999, -MOST, -MOST, false, "", String::new(), vec![], FIRST, 0),
        row(-1, -1, -0.1, -5, -1, -1, true, "it's \"quoted\" \\ 100%", "a".repeat(100_000), vec![0], -1, 1),
        nulls,
        row(1, 1, f64::MIN_POSITIVE, 5, 1, 10_000, false, " padded \t\n", "𝄞🦀é".repeat(20_000), every_byte, 1, 0x80),
        row(i64::MAX, i64::MAX, f64::MAX, 9_999_999_999, MOST, MOST, true, &"🦀".repeat(200), "z".into(), vec![255; 300], LAST, 255),
    ]
}

fn expected(table: &Table, row: &Row) -> Vec<Found> {
    let one = |(column, value): (&Column, &Value)| match value {
        Value::Null => Found::Null,
        Value::Int(v) => Found::Int(*v),
        Value::Float(v) => Found::Float(v.to_bits()),
        Value::Bool(v) => Found::Bool(*v),
        Value::Text(v) => Found::Text(v.clone()),
        Value::Bytes(v) => Found::Bytes(v.clone()),
        Value::Timestamp(v) => Found::Timestamp(*v),
        Value::Uuid(v) => Found::Uuid(*v),
        Value::Decimal(v) => {
            let ColumnType::Decimal { scale, .. } = column.ty else { panic!("a decimal in {column:?}") };
            let mut out = String::new();
            batchsql::table::write_decimal(&mut out, *v, scale);
            Found::Text(out)
        }
    };
    table.columns.iter().zip(row).map(one).collect()
}

async fn every_type_comes_back_as_it_went(server: Server) {
    let target = server.connect().await;
    let table = wide_table(&server.table);
    let rows = wide_rows();
    for method in server.methods(Conflict::Error) {
        target.create(&table, "run").await.unwrap();
        let written = write(&*target, &plan(&table, Conflict::Error, method), &rows).await.unwrap();
        assert_eq!(written.warnings, 0, "{method:?}");
        let wanted: Vec<_> = rows.iter().map(|row| expected(&table, row)).collect();
        assert_eq!(stored(&*target, &table, ALL).await, wanted, "{method:?}");
    }
}

async fn repeated_keys_take_effect_in_order(server: Server) {
    let target = server.connect().await;
    let table = server.small_table();
    let batch = [pair(2, "b"), pair(1, "c"), pair(1, "d"), pair(2, "e"), pair(1, "f")];
    let cases = [
        (Conflict::Ignore, [("1", "a"), ("2", "b")]),
        (Conflict::Replace, [("1", "f"), ("2", "e")]),
        (Conflict::Update, [("1", "f"), ("2", "e")]),
    ];
    for (conflict, wanted) in cases {
        for method in server.methods(conflict) {
            target.create(&table, "run").await.unwrap();
            write(&*target, &plan(&table, Conflict::Error, method), &[pair(1, "a")]).await.unwrap();
            let written = write(&*target, &plan(&table, conflict, method), &batch).await.unwrap();
            assert_eq!(written.warnings, 0, "{conflict:?} by {method:?}");
            let wanted: Vec<_> = wanted.iter().map(|(id, v)| vec![Found::Int(id.parse().unwrap()), text(v)]).collect();
            assert_eq!(stored(&*target, &table, ALL).await, wanted, "{conflict:?} by {method:?}");
        }
    }
}

async fn a_key_that_exists_rejects_the_batch_whole(server: Server) {
    let target = server.connect().await;
    let table = server.small_table();
    for method in server.methods(Conflict::Error) {
        target.create(&table, "run").await.unwrap();
        let plan = plan(&table, Conflict::Error, method);
        let mut session = target.acquire().await.unwrap();
        send(&mut session, &plan, &[pair(2, "a")]).await.unwrap();
        let failure = send(&mut session, &plan, &[pair(1, "b"), pair(2, "b"), pair(3, "b")]).await.unwrap_err();
        assert_eq!((failure.class, failure.applied), (ErrorClass::Constraint, Applied::No), "{method:?}: {failure}");
        send(&mut session, &plan, &[pair(4, "c")]).await.unwrap();
        let wanted = [vec![Found::Int(2), text("a")], vec![Found::Int(4), text("c")]];
        assert_eq!(stored(&*target, &table, ALL).await, wanted, "{method:?}");
    }
}

async fn more_rows_than_bind_variables_are_one_transaction(server: Server) {
    let target = server.connect().await;
    let table = server.small_table();
    let plan = plan(&table, Conflict::Error, Method::Values);
    let mut rows: Vec<Row> = (0..70_000).map(|id| pair(id, "x")).collect();
    rows.push(pair(0, "again"));
    target.create(&table, "run").await.unwrap();
    let mut session = target.acquire().await.unwrap();
    let failure = send(&mut session, &plan, &rows).await.unwrap_err();
    assert_eq!((failure.class, failure.applied), (ErrorClass::Constraint, Applied::No), "{failure}");
    assert_eq!(stored(&*target, &table, ALL).await.len(), 0);
    rows.pop();
    send(&mut session, &plan, &rows).await.unwrap();
    let found = stored(&*target, &table, ALL).await;
    assert_eq!(found.len(), 70_000);
    assert!(found.iter().zip(0..).all(|(row, id)| *row == [Found::Int(id), text("x")]));
}

async fn a_row_too_large_is_rejected_before_it_is_sent(server: Server) {
    let target = server.connect().await;
    let table = Table {
        columns: vec![server.small_table().columns.remove(0), column("v", ColumnType::Text, true, 1 << 30)],
        ..server.small_table()
    };
    target.create(&table, "run").await.unwrap();
    let plan = auto(&*target, &table, Conflict::Error);
    let mut session = target.acquire().await.unwrap();
    let rows = [pair(1, "a"), vec![Value::Int(2), Value::Text("x".repeat(target.info().max_bytes))]];
    let failure = send(&mut session, &plan, &rows).await.unwrap_err();
    assert_eq!((failure.class, failure.applied), (ErrorClass::TooLarge, Applied::No), "{failure}");
    // Rows that fit one by one but not together travel in several statements; the largest one that fits does fit.
    let half = "x".repeat(target.info().max_bytes / 2);
    let whole = "x".repeat(target.info().max_bytes - 1_100);
    send(&mut session, &plan, &[pair(3, &half), pair(4, &half), pair(5, "b"), pair(6, &whole)]).await.unwrap();
    let lens: Vec<_> =
        stored(&*target, &table, ALL).await.into_iter().map(|row| if let Found::Text(v) = &row[1] { v.len() } else { 0 }).collect();
    assert_eq!(lens, [half.len(), half.len(), 1, whole.len()]);
}

async fn a_table_of_keys_alone_knows_every_conflict(server: Server) {
    let target = server.connect().await;
    let table = Table { columns: vec![column("id", ColumnType::Int64, false, 0)], ..server.small_table() };
    target.create(&table, "run").await.unwrap();
    for conflict in [Conflict::Ignore, Conflict::Replace, Conflict::Update] {
        for method in server.methods(conflict) {
            write(&*target, &plan(&table, conflict, method), &[vec![Value::Int(7)], vec![Value::Int(7)]]).await.unwrap();
        }
    }
    assert_eq!(stored(&*target, &table, ALL).await, [[Found::Int(7)]]);
}

async fn duplicates_can_be_stored_without_a_unique_key(server: Server) {
    let target = server.connect().await;
    let table = Table { unique_key: false, ..server.small_table() };
    for method in server.methods(Conflict::Error) {
        target.create(&table, "run").await.unwrap();
        let rows = [pair(2, "a"), pair(1, "b"), pair(2, "a"), pair(2, "c")];
        write(&*target, &plan(&table, Conflict::Error, method), &rows).await.unwrap();
        let wanted = [(1, "b"), (2, "a"), (2, "a"), (2, "c")].map(|(id, v)| vec![Found::Int(id), text(v)]);
        assert_eq!(stored(&*target, &table, ALL).await, wanted, "{method:?}");
    }
    assert!(matches!(target.resolve(plan(&table, Conflict::Ignore, Method::Auto), 200), Err(TargetError::Failed(_))));
}

async fn ranges_are_read_in_order_to_the_limits_of_the_type(server: Server) {
    let target = server.connect().await;
    let table = server.small_table();
    target.create(&table, "run").await.unwrap();
    let keys = [i64::MIN, -5, 0, 5, i64::MAX];
    let mut rows: Vec<Row> = keys.iter().map(|key| pair(*key, "x")).collect();
    rows.reverse();
    write(&*target, &auto(&*target, &table, Conflict::Error), &rows).await.unwrap();
    let cases = [
        (ALL, &keys[..]),
        (KeyRange { from: None, to: Some(0) }, &keys[..2]),
        (KeyRange { from: Some(0), to: Some(5) }, &keys[2..3]),
        (KeyRange { from: Some(5), to: None }, &keys[3..]),
        (KeyRange { from: Some(i64::MIN), to: Some(i64::MAX) }, &keys[..4]),
        (KeyRange { from: Some(6), to: Some(7) }, &[]),
    ];
    for (range, wanted) in cases {
        let found: Vec<_> = stored(&*target, &table, range).await.into_iter().map(|row| row[0].clone()).collect();
        assert_eq!(found, wanted.iter().map(|key| Found::Int(*key)).collect::<Vec<_>>(), "{range:?}");
    }
}

async fn strangers_tables_are_left_alone(server: Server) {
    let target = server.connect().await;
    let name = "a \"quoted\" `table`; --";
    let table = Table { name: name.to_owned(), ..server.small_table() };
    let mut user = server.user().await;
    user.execute(&format!("DROP TABLE IF EXISTS {}", server.quoted(name))).await;
    target.create(&table, "warm-up").await.unwrap();
    user.execute(&format!("DELETE FROM batchsql_owner WHERE run_id IN ('warm-up', 'first', 'second') AND table_name = '{name}'")).await;
    user.execute(&format!("INSERT INTO {} VALUES (1, 'theirs')", server.quoted(name))).await;
    assert_eq!(target.owner(name).await.unwrap(), None);
    assert!(matches!(target.create(&table, "first").await, Err(TargetError::ForeignTable { table }) if table == name));
    assert_eq!(stored(&*target, &table, ALL).await, [[Found::Int(1), text("theirs")]]);

    user.execute(&format!("DROP TABLE {}", server.quoted(name))).await;
    target.create(&table, "first").await.unwrap();
    write(&*target, &auto(&*target, &table, Conflict::Error), &[pair(1, "ours")]).await.unwrap();
    assert_eq!(target.owner(name).await.unwrap().as_deref(), Some("first"));
    // The next run replaces it, with the columns it needs.
    let narrow = Table { columns: vec![column("other", ColumnType::Int64, false, 0)], ..table };
    target.create(&narrow, "second").await.unwrap();
    assert_eq!(target.owner(name).await.unwrap().as_deref(), Some("second"));
    assert!(stored(&*target, &narrow, ALL).await.is_empty());
    user.execute(&format!("DROP TABLE {}", server.quoted(name))).await;
    assert_eq!(target.owner(name).await.unwrap(), None);
    // The row in batchsql_owner is still there, and must not vouch for a table that somebody else made since.
    user.execute(&format!("CREATE TABLE {} (id BIGINT)", server.quoted(name))).await;
    assert_eq!(target.owner(name).await.unwrap(), None);
    assert!(matches!(target.create(&narrow, "third").await, Err(TargetError::ForeignTable { table }) if table == name));
    user.execute(&format!("DROP TABLE {}", server.quoted(name))).await;
}

async fn altered_columns_are_read_as_they_are(server: Server) {
    let target = server.connect().await;
    let columns = vec![
        column("id", ColumnType::Int64, false, 0),
        column("a", ColumnType::Int64, true, 0),
        column("b", ColumnType::Float64, true, 0),
        column("c", ColumnType::Decimal { precision: 10, scale: 2 }, true, 0),
        column("d", ColumnType::Text, true, 20),
    ];
    let table = Table { columns, ..server.small_table() };
    target.create(&table, "run").await.unwrap();
    let row = vec![Value::Int(1), Value::Int(7), Value::Float(16_777_217.0), Value::Decimal(12_345), Value::Text("12".into())];
    write(&*target, &auto(&*target, &table, Conflict::Error), &[row]).await.unwrap();
    let name = server.quoted(&server.table);
    server
        .user()
        .await
        .execute(&match server.kind {
            Kind::Postgres => format!(
                "ALTER TABLE {name} ALTER a TYPE text, ALTER b TYPE real, ALTER c TYPE numeric(10,1), ALTER d TYPE smallint USING d::smallint"
            ),
            Kind::Mysql => format!("ALTER TABLE {name} MODIFY a VARCHAR(20), MODIFY b FLOAT, MODIFY c DECIMAL(10,1), MODIFY d SMALLINT UNSIGNED"),
        })
        .await;
    let found = stored(&*target, &table, ALL).await;
    assert_eq!(found.len(), 1);
    // Rounding half up: 123.45 becomes 123.5.
    let wanted = [Found::Int(1), text("7"), Found::Float(16_777_216f64.to_bits()), text("123.5"), Found::Int(12)];
    assert_eq!(found[0], wanted);
}
