//! SQL text that all databases share: quoted names and lists of them, the split of a batch into statements, and what servers read back.

use std::collections::HashSet;
use std::ops::Range;

use super::{Applied, Conflict, ErrorClass, Failure, KeyRange};
use crate::table::{Row, SURROGATE_KEY, Table};

/// How this program signs its tables in `batchsql_owner`.
pub(super) const CREATED_BY: &str = concat!("batchsql ", env!("CARGO_PKG_VERSION"));

/// What a table that this program made for a run carries in itself (a comment), beside its row in `batchsql_owner`: the row alone
/// would outlive a table that somebody drops, and vouch for another that they make under the same name.
pub(super) fn signature(run_id: &str) -> String {
    format!("batchsql run {run_id}")
}

/// `name` between `quote` characters, those inside it doubled.
#[must_use]
pub(crate) fn quoted(name: &str, quote: char) -> String {
    let mut out = String::with_capacity(name.len() + 2);
    out.push(quote);
    for c in name.chars() {
        if c == quote {
            out.push(quote);
        }
        out.push(c);
    }
    out.push(quote);
    out
}

/// The table's columns, quoted, with commas between them.
#[must_use]
pub(super) fn column_list(table: &Table, quote: char) -> String {
    table.columns.iter().map(|column| quoted(&column.name, quote)).collect::<Vec<_>>().join(",")
}

/// How a server writes what all of them read back.
#[derive(Clone, Copy)]
pub(super) struct Dialect {
    quote: char,
    /// A key as a constant of its type.
    constant: fn(i64) -> String,
}

pub(super) const MYSQL: Dialect = Dialect { quote: '`', constant: |key| key.to_string() };
pub(super) const POSTGRES: Dialect = Dialect { quote: '"', constant: |key| format!("'{key}'::bigint") };

/// What is read for a range: its rows, and with the lowest those whose key somebody let be NULL. Apart, because together they could
/// not be read in the order of the index.
pub(super) fn selects(table: &Table, range: KeyRange, dialect: Dialect) -> Vec<String> {
    let quote = dialect.quote;
    let key = quoted(&table.columns[table.key].name, quote);
    let surrogate = if table.unique_key { String::new() } else { format!(", {}", quoted(SURROGATE_KEY, quote)) };
    let select = |filter: &str| {
        format!("SELECT {} FROM {}{filter} ORDER BY {key}{surrogate}", column_list(table, quote), quoted(&table.name, quote))
    };
    let without_key = is_lowest(range).then(|| select(&format!(" WHERE {key} IS NULL")));
    std::iter::once(select(&filter(&key, range, dialect))).chain(without_key).collect()
}

/// The condition that the column quoted as `key` lies in `range`; rows whose key somebody let be NULL are in the lowest.
pub(super) fn filter_with_null(key: &str, range: KeyRange, dialect: Dialect) -> String {
    let without_key = if is_lowest(range) { format!(" OR {key} IS NULL") } else { String::new() };
    filter(key, range, dialect) + &without_key
}

/// Whether it is the lowest of several: a range open at both ends holds every row, also without a key.
fn is_lowest(range: KeyRange) -> bool {
    range.from.is_none() && range.to.is_some()
}

fn filter(key: &str, range: KeyRange, dialect: Dialect) -> String {
    let constant = dialect.constant;
    let mut bounds = Vec::new();
    bounds.extend(range.from.map(|from| format!("{key} >= {}", constant(from))));
    bounds.extend(range.to.map(|to| format!("{key} < {}", constant(to))));
    if bounds.is_empty() { String::new() } else { format!(" WHERE {}", bounds.join(" AND ")) }
}

/// Limits of one statement.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Most rows.
    pub(super) rows: usize,
    /// Most bytes.
    pub(super) bytes: usize,
}

/// Bytes a statement needs beside its rows: its text up to the first value, packet heads.
const STATEMENT_BYTES: usize = 1024;
/// Bytes a value needs beside itself, in the statement's text (`$12345,`) or in its head.
const VALUE_BYTES: usize = 7;

/// Cuts `rows` into statements: as few as the limits allow, in order, and none that holds a key twice unless the conflict
/// strategy rejects such a batch anyway.
///
/// # Errors
/// [`ErrorClass::TooLarge`] for a row that fits no statement; nothing has been sent then.
pub(super) fn split(table: &Table, conflict: Conflict, rows: &[Row], limits: Limits) -> Result<Vec<Range<usize>>, Failure> {
    let mut parts = Vec::with_capacity(1);
    let mut keys = HashSet::new();
    let (mut start, mut bytes) = (0, STATEMENT_BYTES);
    for (index, row) in rows.iter().enumerate() {
        let len: usize = row.iter().map(|value| value.wire_len() + VALUE_BYTES).sum();
        if STATEMENT_BYTES + len > limits.bytes {
            return Err(too_large(table, row, len, limits.bytes));
        }
        let repeated = conflict != Conflict::Error && !keys.insert(table.key_of(row));
        if index > start && (repeated || index - start >= limits.rows || bytes + len > limits.bytes) {
            parts.push(start..index);
            (start, bytes) = (index, STATEMENT_BYTES);
            keys.clear();
            keys.insert(table.key_of(row));
        }
        bytes += len;
    }
    if start < rows.len() {
        parts.push(start..rows.len());
    }
    Ok(parts)
}

fn too_large(table: &Table, row: &Row, len: usize, limit: usize) -> Failure {
    Failure {
        class: ErrorClass::TooLarge,
        applied: Applied::No,
        message: format!(
            "the row with key {} of table {:?} takes {len} bytes, one statement to this server at most {limit}: make its values smaller, or raise the server's limit",
            table.key_of(row),
            table.name
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::{Column, ColumnType, Value};

    fn table() -> Table {
        let column = |name: &str, ty| Column { name: name.into(), ty, nullable: true, index: false, max_len: 10 };
        Table { name: "t".into(), columns: vec![column("id", ColumnType::Int64), column("v", ColumnType::Text)], key: 0, unique_key: true }
    }

    fn rows(keys: &[i64]) -> Vec<Row> {
        keys.iter().map(|key| vec![Value::Int(*key), Value::Text("x".repeat(100))]).collect()
    }

    #[test]
    fn names_are_quoted_with_their_quotes_doubled() {
        assert_eq!(quoted(r#"a"b"#, '"'), r#""a""b""#);
        assert_eq!(quoted("a`b`", '`'), "`a``b```");
        assert_eq!(column_list(&table(), '`'), "`id`,`v`");
    }

    #[test]
    fn batches_split_by_rows_and_bytes_and_keep_their_order() {
        let by_rows = split(&table(), Conflict::Error, &rows(&[1, 2, 3, 4, 5]), Limits { rows: 2, bytes: 1 << 20 }).unwrap();
        assert_eq!(by_rows, [0..2, 2..4, 4..5]);
        // A row is 9 + 109 + 2 × 7 = 132 bytes.
        let by_bytes = split(&table(), Conflict::Error, &rows(&[1, 2, 3]), Limits { rows: 100, bytes: 1024 + 2 * 132 }).unwrap();
        assert_eq!(by_bytes, [0..2, 2..3]);
        assert!(split(&table(), Conflict::Error, &[], Limits { rows: 1, bytes: 5000 }).unwrap().is_empty());
    }

    #[test]
    fn a_statement_holds_no_key_twice_where_both_rows_would_be_stored() {
        let limits = Limits { rows: 100, bytes: 1 << 20 };
        assert_eq!(split(&table(), Conflict::Replace, &rows(&[1, 2, 1, 1, 3, 2]), limits).unwrap(), [0..2, 2..3, 3..6]);
        assert_eq!(split(&table(), Conflict::Error, &rows(&[1, 2, 1]), limits).unwrap().len(), 1);
    }

    #[test]
    fn a_row_that_fits_no_statement_is_told_before_anything_is_sent() {
        let failure = split(&table(), Conflict::Error, &rows(&[7]), Limits { rows: 100, bytes: 1024 + 131 }).unwrap_err();
        assert_eq!((failure.class, failure.applied), (ErrorClass::TooLarge, Applied::No));
        assert!(failure.message.contains("key 7") && failure.message.contains("132 bytes"), "{failure}");
    }
}
