//! Digests on MySQL and MariaDB: the first 64 bits of the SHA-256 of every column's text or bytes, summed as an exact DECIMAL.
//!
//! What could look alike in that form (a number in a column that became text, bytes of another character set) is excluded by asking
//! for the columns' types first.

use sqlx::mysql::MySqlConnection;
use sqlx::{AssertSqlSafe, Row as _};

use super::time;
use crate::table::{Column, ColumnType, Row, Table, Value, write_decimal};
use crate::target::KeyRange;
use crate::target::digest::{RangeDigest, sha_64};
use crate::target::sql::{self, quoted};

/// Names are the server's; types without the width that MariaDB shows behind them.
const COLUMNS: &str = "SELECT COLUMN_NAME, DATA_TYPE, COLUMN_TYPE, COALESCE(CHARACTER_SET_NAME, '') FROM information_schema.columns \
     WHERE table_schema = DATABASE() AND table_name = ?";

/// Why the server's digests would not be comparable with ours, if so.
pub(super) async fn obstacle(connection: &mut MySqlConnection, table: &Table) -> Result<Option<String>, sqlx::Error> {
    let mut found = Vec::new();
    for row in sqlx::query(COLUMNS).bind(&table.name).fetch_all(connection).await? {
        let text = |position: usize| {
            // MySQL gives some of these as bytes.
            row.try_get_unchecked::<Vec<u8>, _>(position).map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
        };
        found.push([text(0)?, text(1)?, text(2)?, text(3)?]);
    }
    for column in &table.columns {
        let known = found.iter().find(|[name, ..]| name.to_lowercase() == column.name.to_lowercase());
        if !known.is_some_and(|[_, data_type, whole_type, charset]| fits(column.ty, data_type, whole_type, charset)) {
            let by_now = known.map_or("missing".to_owned(), |[_, _, whole_type, charset]| format!("{whole_type} {charset}"));
            return Ok(Some(format!("column {:?} is {} by now", column.name, by_now.trim_end())));
        }
    }
    Ok(None)
}

/// Whether a column is as it was created, as far as its text form goes.
fn fits(ty: ColumnType, data_type: &str, whole_type: &str, charset: &str) -> bool {
    let types: &[&str] = match ty {
        ColumnType::Int64 => &["bigint"],
        ColumnType::Float64 => &["double"],
        ColumnType::Decimal { .. } => &["decimal"],
        ColumnType::Bool => &["tinyint"],
        ColumnType::Text => &["varchar", "longtext"],
        ColumnType::Bytes => &["varbinary", "longblob"],
        ColumnType::Timestamp => &["datetime"],
        ColumnType::Uuid => &["binary"],
    };
    let altered = ["unsigned", "zerofill"].iter().any(|word| whole_type.contains(word));
    types.contains(&data_type) && !altered && charset == if ty == ColumnType::Text { "utf8mb4" } else { "" }
}

/// The digest of each range.
pub(super) async fn ranges(connection: &mut MySqlConnection, table: &Table, ranges: &[KeyRange]) -> Result<Vec<RangeDigest>, sqlx::Error> {
    let mut digests = Vec::with_capacity(ranges.len());
    for range in ranges {
        let row = sqlx::query(AssertSqlSafe(range_sql(table, *range))).persistent(false).fetch_one(&mut *connection).await?;
        let sum: Option<String> = row.try_get_unchecked(3)?;
        let digest =
            RangeDigest::of_answer(row.try_get_unchecked(0)?, row.try_get_unchecked(1)?, row.try_get_unchecked(2)?, sum.as_deref());
        digests.push(digest.ok_or_else(|| sqlx::Error::Protocol("the server's sum of hashes is no whole number".into()))?);
    }
    Ok(digests)
}

fn range_sql(table: &Table, range: KeyRange) -> String {
    let key = quoted(&table.columns[table.key].name, '`');
    let columns: Vec<String> = table.columns.iter().map(column_sql).collect();
    format!(
        "SELECT COUNT(*), MIN({key}), MAX({key}), CAST(SUM(CAST(CONV(LEFT(SHA2(CONCAT({}), 256), 16), 16, 10) AS UNSIGNED)) AS CHAR) FROM {}{}",
        columns.join(", "),
        quoted(&table.name, '`'),
        sql::filter_with_null(&key, range, sql::MYSQL)
    )
}

/// A column and the sign of its end; what varies in length and may hold that sign has its length in front.
fn column_sql(column: &Column) -> String {
    let name = quoted(&column.name, '`');
    let value = match column.ty {
        ColumnType::Int64 | ColumnType::Decimal { .. } | ColumnType::Bool | ColumnType::Timestamp => format!("{name}, ';'"),
        // The collation must not matter: columns of several cannot be concatenated as text.
        ColumnType::Text => format!("OCTET_LENGTH({name}), ':', CAST({name} AS BINARY)"),
        ColumnType::Bytes | ColumnType::Uuid => format!("OCTET_LENGTH({name}), ':', {name}"),
        // There is no other way to the bits of a double: the binary form of a point holds them.
        ColumnType::Float64 => format!("HEX(ST_AsWKB(POINT({name}, 0))), ';'"),
    };
    // Without a declared NULL, one makes the whole sum differ: it counts a row that it does not hash.
    if column.nullable { format!("IF({name} IS NULL, 'N;', CONCAT({value}))") } else { value }
}

/// The same hash, computed here.
pub(super) fn row_hash(table: &Table, row: &Row, scratch: &mut Vec<u8>) -> u64 {
    scratch.clear();
    let mut text = String::new();
    for (column, value) in table.columns.iter().zip(row) {
        text.clear();
        match value {
            Value::Text(bytes) => put_bytes(scratch, bytes.as_bytes()),
            Value::Bytes(bytes) => put_bytes(scratch, bytes),
            Value::Uuid(bytes) => put_bytes(scratch, bytes),
            value => {
                put_text(&mut text, column.ty, value);
                scratch.extend_from_slice(text.as_bytes());
                scratch.push(b';');
            }
        }
    }
    sha_64(scratch)
}

fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    let mut length = String::new();
    write_decimal(&mut length, bytes.len() as i64, 0);
    out.extend_from_slice(length.as_bytes());
    out.push(b':');
    out.extend_from_slice(bytes);
}

fn put_text(out: &mut String, ty: ColumnType, value: &Value) {
    use std::fmt::Write as _;
    match (value, ty) {
        (Value::Int(v), _) => write_decimal(out, *v, 0),
        (Value::Decimal(v), ColumnType::Decimal { scale, .. }) => write_decimal(out, *v, scale),
        (Value::Bool(v), _) => out.push(if *v { '1' } else { '0' }),
        (Value::Timestamp(v), _) => time::write(out, *v),
        (Value::Float(v), _) => {
            // Byte order, the number of the type "point", its two coordinates: little-endian everywhere.
            out.push_str("0101000000");
            for byte in v.to_bits().to_le_bytes().into_iter().chain([0; 8]) {
                // Writing into a String cannot fail.
                let _ = write!(out, "{byte:02X}");
            }
        }
        _ => out.push('N'),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A table with a nullable column of each type that has one, and rows for it.
    fn table() -> Table {
        let types = [ColumnType::Int64, ColumnType::Text, ColumnType::Bytes, ColumnType::Text, ColumnType::Float64];
        let column = |(position, ty)| Column { name: format!("c{position}"), ty, nullable: position > 0, index: false, max_len: 10 };
        Table { name: "t".into(), columns: types.into_iter().enumerate().map(column).collect(), key: 0, unique_key: true }
    }

    fn any_row() -> impl Strategy<Value = Row> {
        // Few letters, and those that the form itself uses.
        let text = || proptest::option::of("[N;:1]{0,3}").prop_map(|text| text.map_or(Value::Null, Value::Text));
        let bytes = proptest::option::of("[N;:1]{0,3}").prop_map(|text| text.map_or(Value::Null, |text| Value::Bytes(text.into_bytes())));
        (0i64..3, text(), bytes, text(), prop_oneof![Just(Value::Null), Just(Value::Float(0.0)), Just(Value::Float(-0.0))])
            .prop_map(|(key, a, b, c, d)| vec![Value::Int(key), a, b, c, d])
    }

    proptest! {
        #[test]
        fn no_two_rows_are_written_the_same(a in any_row(), b in any_row()) {
            let written = |row: &Row| {
                let mut out = Vec::new();
                row_hash(&table(), row, &mut out);
                out
            };
            // Debug tells 0.0 from -0.0.
            prop_assert_eq!(written(&a) == written(&b), format!("{a:?}") == format!("{b:?}"));
        }
    }

    #[test]
    fn columns_that_were_altered_do_not_fit() {
        assert!(fits(ColumnType::Int64, "bigint", "bigint(20)", "") && fits(ColumnType::Text, "longtext", "longtext", "utf8mb4"));
        assert!(!fits(ColumnType::Int64, "bigint", "bigint(20) unsigned", "") && !fits(ColumnType::Int64, "int", "int(11)", ""));
        assert!(!fits(ColumnType::Text, "varchar", "varchar(9)", "latin1") && !fits(ColumnType::Bool, "varchar", "varchar(5)", "utf8mb4"));
    }
}
