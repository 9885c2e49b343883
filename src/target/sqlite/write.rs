//! One batch as one SQLite transaction.

use std::ops::Range;
use std::time::{Duration, Instant};

use rusqlite::limits::Limit;
use rusqlite::{CachedStatement, Connection, TransactionBehavior};

use super::{classify, conflict_sql, quote};
use crate::table::{ColumnType, Row, Table, Value, write_decimal};
use crate::target::{Applied, ErrorClass, Failure, Method, WritePlan, sql};

/// Instructions of SQLite's machine between two looks at the clock; an INSERT takes about 30.
const LOOK: i32 = 1_000;

/// Writes `rows` and commits; on failure, and when it takes longer than `limit`, everything is rolled back and says so: better than
/// an unknown outcome.
pub(super) fn batch(connection: &mut Connection, plan: &WritePlan, rows: &[Row], limit: Duration) -> Result<(), Failure> {
    let failure = |e: &rusqlite::Error, applied| Failure { class: classify(e), applied, message: e.to_string() };
    let began = Instant::now();
    connection.progress_handler(LOOK, Some(move || began.elapsed() > limit)).map_err(|e| failure(&e, Applied::No))?;
    let limits = limits(connection, plan).map_err(|e| failure(&e, Applied::No))?;
    let statements = sql::split(&plan.table, plan.conflict, rows, limits)?;
    // IMMEDIATE takes the write lock first, so that a busy database is met before any work is done.
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(|e| failure(&e, Applied::No))?;
    let written = match plan.method {
        Method::Values => values(&transaction, plan, rows, &statements),
        _ => prepared(&transaction, plan, rows),
    };
    // Dropping the transaction rolls it back.
    written.map_err(|e| failure(&e, Applied::No))?;
    transaction.commit().map_err(|e| {
        // A busy or full database refused the commit and the drop has rolled it back; after an I/O error nobody can say.
        let refused = matches!(
            classify(&e),
            ErrorClass::Busy | ErrorClass::DiskFull | ErrorClass::Constraint | ErrorClass::Timeout | ErrorClass::ReadOnly
        );
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
    for (position, row) in rows.iter().enumerate() {
        if let Some(next) = rows.get(position + 1) {
            touch(next);
        }
        bind(&mut statement, &plan.table, 1, row, &mut scratch)?;
        statement.raw_execute()?;
    }
    Ok(())
}

/// Has the processor fetch a row while the one before is written: it was made on another core.
fn touch(row: &Row) {
    for value in row {
        if let Value::Text(text) = value {
            std::hint::black_box(text.as_bytes().first().copied());
        }
    }
}

/// Rows of one statement, and bytes: SQLite's bound on a row. `prepared` sends row by row.
fn limits(connection: &Connection, plan: &WritePlan) -> rusqlite::Result<sql::Limits> {
    let binds = connection.limit(Limit::SQLITE_LIMIT_VARIABLE_NUMBER)? as usize;
    let bytes = connection.limit(Limit::SQLITE_LIMIT_LENGTH)? as usize;
    Ok(sql::Limits { rows: (binds / plan.table.columns.len()).max(1), bytes })
}

fn values(connection: &Connection, plan: &WritePlan, rows: &[Row], statements: &[Range<usize>]) -> rusqlite::Result<()> {
    let mut scratch = String::new();
    for range in statements {
        let mut statement = connection.prepare_cached(&insert_sql(plan, range.len()))?;
        for (number, row) in rows[range.clone()].iter().enumerate() {
            bind(&mut statement, &plan.table, 1 + number * plan.table.columns.len(), row, &mut scratch)?;
        }
        statement.raw_execute()?;
    }
    Ok(())
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
