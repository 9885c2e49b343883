//! One batch as one SQLite transaction.

use std::collections::HashSet;

use rusqlite::{CachedStatement, Connection, TransactionBehavior};

use super::{classify, conflict_sql, quote};
use crate::table::{ColumnType, Row, Table, Value, write_decimal};
use crate::target::{Applied, ErrorClass, Failure, Method, WritePlan};

/// Writes `rows` and commits; on failure everything is rolled back.
pub(super) fn batch(connection: &mut Connection, plan: &WritePlan, rows: &[Row]) -> Result<(), Failure> {
    let failure = |e: &rusqlite::Error, applied| Failure { class: classify(e), applied, message: e.to_string() };
    let limit = connection.limit(rusqlite::limits::Limit::SQLITE_LIMIT_LENGTH).map_err(|e| failure(&e, Applied::No))? as usize;
    if let Some(bytes) = rows.iter().map(|row| row.iter().map(Value::wire_len).sum::<usize>()).find(|bytes| *bytes > limit) {
        let message = format!("a row of {bytes} bytes is over SQLite's limit of {limit}");
        return Err(Failure { class: ErrorClass::TooLarge, applied: Applied::No, message });
    }
    // IMMEDIATE takes the write lock first, so that a busy database is met before any work is done.
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(|e| failure(&e, Applied::No))?;
    let written = match plan.method {
        Method::Values => values(&transaction, plan, rows),
        _ => prepared(&transaction, plan, rows),
    };
    // Dropping the transaction rolls it back.
    written.map_err(|e| failure(&e, Applied::No))?;
    transaction.commit().map_err(|e| {
        // A busy or full database refused the commit and the drop has rolled it back; after an I/O error nobody can say.
        let refused = matches!(classify(&e), ErrorClass::Busy | ErrorClass::DiskFull | ErrorClass::Constraint | ErrorClass::Timeout);
        failure(&e, if refused { Applied::No } else { Applied::Unknown })
    })
}

fn insert_sql(plan: &WritePlan, rows: usize) -> String {
    let (insert, conflict) = conflict_sql(plan);
    let columns: Vec<String> = plan.table.columns.iter().map(|column| quote(&column.name)).collect();
    let tuple = format!("({})", vec!["?"; columns.len()].join(", "));
    format!("{insert} INTO {} ({}) VALUES {}{conflict}", quote(&plan.table.name), columns.join(", "), vec![tuple; rows].join(", "))
}

fn prepared(connection: &Connection, plan: &WritePlan, rows: &[Row]) -> rusqlite::Result<()> {
    let mut statement = connection.prepare_cached(&insert_sql(plan, 1))?;
    let mut scratch = String::new();
    for row in rows {
        bind(&mut statement, &plan.table, 1, row, &mut scratch)?;
        statement.raw_execute()?;
    }
    Ok(())
}

fn values(connection: &Connection, plan: &WritePlan, rows: &[Row]) -> rusqlite::Result<()> {
    let binds = connection.limit(rusqlite::limits::Limit::SQLITE_LIMIT_VARIABLE_NUMBER)? as usize;
    let most = (binds / plan.table.columns.len()).max(1);
    let mut scratch = String::new();
    let mut rest = rows;
    while !rest.is_empty() {
        let (statement_rows, after) = rest.split_at(distinct_prefix(&plan.table, rest, most));
        let mut statement = connection.prepare_cached(&insert_sql(plan, statement_rows.len()))?;
        for (number, row) in statement_rows.iter().enumerate() {
            bind(&mut statement, &plan.table, 1 + number * plan.table.columns.len(), row, &mut scratch)?;
        }
        statement.raw_execute()?;
        rest = after;
    }
    Ok(())
}

/// How many of the first rows, at most `most`, have keys of their own: one statement never holds a key twice.
fn distinct_prefix(table: &Table, rows: &[Row], most: usize) -> usize {
    let mut seen = HashSet::with_capacity(most.min(rows.len()));
    rows.iter().take(most).take_while(|row| seen.insert(table.key_of(row))).count()
}

fn bind(statement: &mut CachedStatement<'_>, table: &Table, first: usize, row: &Row, scratch: &mut String) -> rusqlite::Result<()> {
    for (position, value) in row.iter().enumerate() {
        let index = first + position;
        match value {
            Value::Null => statement.raw_bind_parameter(index, rusqlite::types::Null)?,
            Value::Int(number) | Value::Timestamp(number) => statement.raw_bind_parameter(index, number)?,
            Value::Float(number) => statement.raw_bind_parameter(index, number)?,
            Value::Bool(flag) => statement.raw_bind_parameter(index, flag)?,
            Value::Text(text) => statement.raw_bind_parameter(index, text.as_str())?,
            Value::Bytes(bytes) => statement.raw_bind_parameter(index, bytes.as_slice())?,
            Value::Uuid(uuid) => statement.raw_bind_parameter(index, uuid.as_slice())?,
            Value::Decimal(unscaled) => {
                let scale = if let ColumnType::Decimal { scale, .. } = table.columns[position].ty { scale } else { 0 };
                scratch.clear();
                write_decimal(scratch, *unscaled, scale);
                statement.raw_bind_parameter(index, scratch.as_str())?;
            }
        }
    }
    Ok(())
}
