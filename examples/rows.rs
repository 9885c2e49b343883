//! Prints the rows that a run with the default columns writes, as CSV, or the statements that create their table: what
//! `scripts/peers` feeds to `.import`, `\copy` and `LOAD DATA`.
//!
//! `cargo run --release --example rows -- csv sqlite ROWS SEED` or `… -- ddl postgres`

use std::io::BufWriter;

use anyhow::{Context as _, bail};
use batchsql::scenario::BatchInsert;
use batchsql::table::{ColumnType, Table, Value, write_decimal};
use batchsql::target::{self, Database};
use batchsql::workload::batch_insert::Generator;

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let workload: BatchInsert = serde_json::from_value(serde_json::json!({}))?;
    match words[..] {
        ["ddl", database] => {
            for statement in target::ddl(kind(database)?, &workload.table()) {
                println!("{statement};");
            }
            Ok(())
        }
        ["csv", database, rows, seed] => {
            let generator = Generator::new(seed.parse().context("SEED is a number")?, &workload);
            csv(kind(database)?, &workload.table(), &generator, rows.parse().context("ROWS is a number")?)
        }
        _ => bail!("usage: rows ddl sqlite|postgres|mysql, or: rows csv sqlite|postgres|mysql ROWS SEED"),
    }
}

fn kind(word: &str) -> anyhow::Result<Database> {
    Ok(match word {
        "sqlite" => Database::Sqlite,
        "postgres" => Database::Postgres,
        "mysql" => Database::Mysql,
        other => bail!("databases are sqlite, postgres and mysql, found {other:?}"),
    })
}

fn csv(database: Database, table: &Table, generator: &Generator, rows: u64) -> anyhow::Result<()> {
    let mut out = csv::Writer::from_writer(BufWriter::new(std::io::stdout().lock()));
    let mut row = Vec::new();
    for index in 0..rows {
        generator.fill(index, &mut row);
        for (value, column) in row.iter().zip(&table.columns) {
            out.write_field(field(database, column.ty, value)?)?;
        }
        out.write_record(None::<&[u8]>)?;
    }
    Ok(out.flush()?)
}

/// A value as the database's loader reads it. SQLite keeps timestamps as microseconds, the servers as what they are.
fn field(database: Database, ty: ColumnType, value: &Value) -> anyhow::Result<String> {
    Ok(match value {
        Value::Int(number) => number.to_string(),
        Value::Text(text) => text.clone(),
        Value::Bool(flag) => u8::from(*flag).to_string(),
        Value::Timestamp(micros) if database == Database::Sqlite => micros.to_string(),
        Value::Timestamp(micros) => jiff::Timestamp::from_microsecond(*micros)?.strftime("%Y-%m-%d %H:%M:%S%.6f").to_string(),
        Value::Decimal(unscaled) => {
            let scale = if let ColumnType::Decimal { scale, .. } = ty { scale } else { 0 };
            let mut text = String::new();
            write_decimal(&mut text, *unscaled, scale);
            text
        }
        other => bail!("no default column holds {other:?}"),
    })
}
