//! Reading back from MySQL and MariaDB: a connection a scan, each in a consistent snapshot of its own, since connections cannot
//! share one. Call it once no session of the run is left.

use async_trait::async_trait;
use futures::TryStreamExt as _;
use sqlx::mysql::{MySqlConnectOptions, MySqlConnection, MySqlRow, MySqlValueRef};
use sqlx::{AssertSqlSafe, Column as _, ConnectOptions as _, Decode, MySql, Row as _, TypeInfo as _};
use tokio::sync::mpsc;

use super::digest;
use super::time::Fields;
use crate::table::{Cell, ColumnType, Row, RowBlock, Table};
use crate::target::digest::RangeDigest;
use crate::target::server::describe;
use crate::target::sql;
use crate::target::{KeyRange, Reader, TargetError};

/// Reads through connections of its own.
pub(super) struct MyReader {
    pub(super) options: MySqlConnectOptions,
}

/// The verifier may let the server wait for longer than the minute after which it gives up a client that does not read.
const BEGIN: &str = "SET net_write_timeout = 3600; SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ; \
                     START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY";

impl MyReader {
    /// A connection with a snapshot of its own.
    async fn begin(&self) -> Result<MySqlConnection, sqlx::Error> {
        let mut connection = self.options.connect().await?;
        sqlx::raw_sql(BEGIN).execute(&mut connection).await?;
        Ok(connection)
    }

    async fn stream(&self, table: &Table, range: KeyRange, blocks: mpsc::Sender<RowBlock>) -> Result<(), sqlx::Error> {
        let mut connection = self.begin().await?;
        let mut kinds = Vec::new();
        let mut block = RowBlock::new(table.columns.len());
        for select in sql::selects(table, range, sql::MYSQL) {
            let mut rows = sqlx::query(AssertSqlSafe(select)).fetch(&mut connection);
            while let Some(row) = rows.try_next().await? {
                if kinds.is_empty() {
                    kinds = kinds_of(table, &row);
                }
                for (column, kind) in kinds.iter().enumerate() {
                    push_cell(&mut block, *kind, row.try_get_raw(column)?);
                }
                if block.is_full() {
                    let full = std::mem::replace(&mut block, RowBlock::new(table.columns.len()));
                    if blocks.send(full).await.is_err() {
                        return Ok(());
                    }
                }
            }
        }
        if block.rows() > 0 {
            // Whether the receiver is still there does not matter any more.
            let _ = blocks.send(block).await;
        }
        Ok(())
    }
}

#[async_trait]
impl Reader for MyReader {
    async fn scan(&self, table: &Table, range: KeyRange, blocks: mpsc::Sender<RowBlock>) -> Result<(), TargetError> {
        self.stream(table, range, blocks)
            .await
            .map_err(|e| TargetError::Failed(format!("table {:?} cannot be read back: {}", table.name, describe(&e))))
    }

    fn row_hash(&self, table: &Table, row: &Row, scratch: &mut Vec<u8>) -> u64 {
        digest::row_hash(table, row, scratch)
    }

    async fn digest(&self, table: &Table, ranges: &[KeyRange]) -> Result<Vec<RangeDigest>, TargetError> {
        let asked = async {
            let mut connection = self.begin().await?;
            match digest::obstacle(&mut connection, table).await? {
                Some(obstacle) => Ok(Err(obstacle)),
                None => digest::ranges(&mut connection, table, ranges).await.map(Ok),
            }
        };
        asked.await.unwrap_or_else(|e: sqlx::Error| Err(describe(&e))).map_err(TargetError::Failed)
    }
}

/// How a column's bytes are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// 1, 2, 4 or 8 bytes, with a sign.
    Int,
    /// The same without.
    Unsigned,
    Bool,
    Float,
    Double,
    Time,
    Text,
    Bytes,
    Uuid,
}

/// By the type the server names; where several of ours look alike there, by what the column was declared as.
fn kinds_of(table: &Table, row: &MySqlRow) -> Vec<Kind> {
    let kind = |name: &str, declared: ColumnType| match name {
        "TINYINT" | "BOOLEAN" if declared == ColumnType::Bool => Kind::Bool,
        "TINYINT" | "BOOLEAN" | "SMALLINT" | "MEDIUMINT" | "INT" | "BIGINT" => Kind::Int,
        "YEAR" => Kind::Unsigned,
        name if name.ends_with(" UNSIGNED") => Kind::Unsigned,
        "DOUBLE" => Kind::Double,
        "FLOAT" => Kind::Float,
        "DATETIME" | "TIMESTAMP" | "DATE" => Kind::Time,
        "DECIMAL" | "JSON" => Kind::Text,
        _ if declared == ColumnType::Text => Kind::Text,
        "CHAR" | "VARCHAR" | "TINYTEXT" | "TEXT" | "MEDIUMTEXT" | "LONGTEXT" | "ENUM" | "SET" if declared != ColumnType::Bytes => {
            Kind::Text
        }
        _ if declared == ColumnType::Uuid => Kind::Uuid,
        _ => Kind::Bytes,
    };
    row.columns().iter().zip(&table.columns).map(|(found, declared)| kind(found.type_info().name(), declared.ty)).collect()
}

fn push_cell(block: &mut RowBlock, kind: Kind, value: MySqlValueRef<'_>) {
    // Undecoded bytes; the only error is that there are none.
    let Ok(bytes) = <&[u8] as Decode<MySql>>::decode(value) else {
        block.push(Cell::Null);
        return;
    };
    let unread = Cell::Bytes(bytes);
    match kind {
        Kind::Text => block.push(Cell::Text(bytes)),
        Kind::Bytes => block.push(unread),
        Kind::Int => block.push(signed(bytes).map_or(unread, Cell::Int)),
        // Anything but 0 and 1 is no boolean of ours.
        Kind::Bool => block.push(match bytes {
            [0] => Cell::Bool(false),
            [1] => Cell::Bool(true),
            _ => signed(bytes).map_or(unread, Cell::Int),
        }),
        Kind::Unsigned => match unsigned(bytes).map(|v| (v, i64::try_from(v))) {
            Some((_, Ok(v))) => block.push(Cell::Int(v)),
            Some((v, Err(_))) => block.push(Cell::Text(v.to_string().as_bytes())),
            None => block.push(unread),
        },
        Kind::Float => block.push(bytes.try_into().map_or(unread, |b| Cell::Float(f32::from_le_bytes(b).into()))),
        Kind::Double => block.push(bytes.try_into().map_or(unread, |b| Cell::Float(f64::from_le_bytes(b)))),
        Kind::Uuid => block.push(bytes.try_into().map_or(unread, Cell::Uuid)),
        Kind::Time => match Fields::read(bytes).map(|fields| (fields, fields.micros())) {
            Some((_, Some(micros))) => block.push(Cell::Timestamp(micros)),
            Some((fields, None)) => block.push(Cell::Text(fields.text().as_bytes())),
            None => block.push(unread),
        },
    }
}

fn signed(bytes: &[u8]) -> Option<i64> {
    Some(match *bytes {
        [a] => i64::from(i8::from_le_bytes([a])),
        [a, b] => i64::from(i16::from_le_bytes([a, b])),
        [a, b, c, d] => i64::from(i32::from_le_bytes([a, b, c, d])),
        _ => i64::from_le_bytes(bytes.try_into().ok()?),
    })
}

fn unsigned(bytes: &[u8]) -> Option<u64> {
    let mut wide = [0; 8];
    wide.get_mut(..bytes.len())?.copy_from_slice(bytes);
    Some(u64::from_le_bytes(wide))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_of_every_width_are_read() {
        assert_eq!(signed(&[0xFF]), Some(-1));
        assert_eq!(signed(&[0, 0x80]), Some(-32_768));
        assert_eq!(signed(&i32::MIN.to_le_bytes()), Some(i64::from(i32::MIN)));
        assert_eq!(signed(&i64::MIN.to_le_bytes()), Some(i64::MIN));
        assert_eq!(signed(&[1, 2, 3]), None);
        assert_eq!(unsigned(&u64::MAX.to_le_bytes()), Some(u64::MAX));
        assert_eq!(unsigned(&[0xFF]), Some(255));
        assert_eq!(unsigned(&[0; 9]), None);
    }
}
