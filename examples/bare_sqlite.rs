//! The bare loop that `scripts/peers` holds the pipeline against: one prepared INSERT on one connection, rows made beforehand, the
//! same table, indexes and pragmas, BATCH rows a transaction, and nothing else. Prints rows a second.
//!
//! `cargo run --release --example bare_sqlite -- FILE ROWS BATCH SEED`

use std::time::Instant;

use anyhow::{Context as _, bail};
use batchsql::scenario::{BatchInsert, PragmaProfile, PragmaValue};
use batchsql::table::{ColumnType, Row, Table, Value, write_decimal};
use batchsql::target::{self, Database};
use batchsql::workload::batch_insert::Generator;
use rusqlite::types::Null;
use rusqlite::{Connection, Statement, TransactionBehavior};

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [file, rows, batch, seed] = &arguments[..] else { bail!("usage: bare_sqlite FILE ROWS BATCH SEED") };
    let workload: BatchInsert = serde_json::from_value(serde_json::json!({}))?;
    let (table, generator) = (workload.table(), Generator::new(seed.parse().context("SEED is a number")?, &workload));
    let rows: Vec<Row> = (0..rows.parse().context("ROWS is a number")?).map(|index| generator.row(index)).collect();
    let mut connection = open(file)?;
    for statement in target::ddl(Database::Sqlite, &table) {
        connection.execute_batch(&statement)?;
    }
    let began = Instant::now();
    for rows in rows.chunks(batch.parse().context("BATCH is a number")?) {
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let mut statement = transaction.prepare_cached(&insert_sql(&table))?;
        for row in rows {
            bind(&mut statement, &table, row)?;
            statement.raw_execute()?;
        }
        drop(statement);
        transaction.commit()?;
    }
    println!("{:.0}", rows.len() as f64 / began.elapsed().as_secs_f64());
    Ok(())
}

/// A connection with the pragmas of the profile `default`.
fn open(file: &str) -> anyhow::Result<Connection> {
    use batchsql::scenario::Pragma::{
        BusyTimeout, CacheSize, ForeignKeys, JournalMode, MmapSize, Synchronous, TempStore, WalAutocheckpoint,
    };
    let connection = Connection::open(file)?;
    for pragma in [BusyTimeout, JournalMode, Synchronous, CacheSize, MmapSize, TempStore, WalAutocheckpoint, ForeignKeys] {
        match PragmaProfile::Default.value(pragma) {
            Some(PragmaValue::Number(number)) => connection.pragma_update(None, pragma.name(), number)?,
            Some(PragmaValue::Word(word)) => connection.pragma_update(None, pragma.name(), word)?,
            None => {}
        }
    }
    Ok(connection)
}

fn insert_sql(table: &Table) -> String {
    let names: Vec<String> = table.columns.iter().map(|column| format!("\"{}\"", column.name)).collect();
    format!("INSERT INTO \"{}\" ({}) VALUES ({})", table.name, names.join(", "), vec!["?"; names.len()].join(", "))
}

fn bind(statement: &mut Statement<'_>, table: &Table, row: &Row) -> rusqlite::Result<()> {
    let mut text = String::new();
    for (position, value) in row.iter().enumerate() {
        let place = position + 1;
        match value {
            Value::Null => statement.raw_bind_parameter(place, Null)?,
            Value::Int(number) | Value::Timestamp(number) => statement.raw_bind_parameter(place, number)?,
            Value::Float(number) => statement.raw_bind_parameter(place, number)?,
            Value::Bool(flag) => statement.raw_bind_parameter(place, flag)?,
            Value::Text(text) => statement.raw_bind_parameter(place, text.as_str())?,
            Value::Bytes(bytes) => statement.raw_bind_parameter(place, bytes.as_slice())?,
            Value::Uuid(uuid) => statement.raw_bind_parameter(place, uuid.as_slice())?,
            Value::Decimal(unscaled) => {
                let scale = if let ColumnType::Decimal { scale, .. } = table.columns[position].ty { scale } else { 0 };
                text.clear();
                write_decimal(&mut text, *unscaled, scale);
                statement.raw_bind_parameter(place, text.as_str())?;
            }
        }
    }
    Ok(())
}
