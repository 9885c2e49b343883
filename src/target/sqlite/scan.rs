//! Reading an SQLite table back, or digesting it, range by range, on connections of its own.

use std::path::{Path, PathBuf};

use async_trait::async_trait;
use rusqlite::types::ValueRef;
use rusqlite::{Connection, OpenFlags};
use tokio::sync::mpsc;

use super::{blocking, quote};
use crate::table::{Cell, ColumnType, RowBlock, SURROGATE_KEY, Table};
use crate::target::digest::{RangeDigest, put_cell, sha_64};
use crate::target::{KeyRange, Reader, TargetError};

/// Opens one connection a scan.
pub(super) struct SqliteReader {
    pub(super) path: PathBuf,
}

#[async_trait]
impl Reader for SqliteReader {
    async fn scan(&self, table: &Table, range: KeyRange, blocks: mpsc::Sender<RowBlock>) -> Result<(), TargetError> {
        let (path, table) = (self.path.clone(), table.clone());
        blocking(move || {
            scan(&path, &table, range, &blocks)
                .map_err(|e| TargetError::Failed(format!("table {:?} cannot be read back from {}: {e}", table.name, path.display())))
        })
        .await
    }

    async fn digest(&self, table: &Table, ranges: &[KeyRange]) -> Result<Vec<RangeDigest>, TargetError> {
        let (path, table, ranges) = (self.path.clone(), table.clone(), ranges.to_vec());
        blocking(move || digests(&path, &table, &ranges).map_err(|e| TargetError::Failed(e.to_string()))).await
    }
}

/// The digest of each range. SQLite runs in this process and has no hash of its own, so that its rows are hashed as they come.
fn digests(path: &Path, table: &Table, ranges: &[KeyRange]) -> rusqlite::Result<Vec<RangeDigest>> {
    let connection = open(path)?;
    let mut digests = Vec::with_capacity(ranges.len());
    let mut encoded = Vec::new();
    for range in ranges {
        let mut statement = connection.prepare_cached(&select_sql(table, *range))?;
        let mut rows = statement.query([range.from.unwrap_or(i64::MIN), range.to.unwrap_or(i64::MAX)])?;
        let mut digest = RangeDigest::default();
        while let Some(row) = rows.next()? {
            encoded.clear();
            for (position, column) in table.columns.iter().enumerate() {
                put_cell(&mut encoded, cell(column.ty, row.get_ref(position)?));
            }
            digest.add(row.get(table.key)?, sha_64(&encoded));
        }
        digests.push(digest);
    }
    Ok(digests)
}

fn open(path: &Path) -> rusqlite::Result<Connection> {
    // Read-write, because the first reader after a crash must be able to replay the journal.
    let connection = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    connection.busy_timeout(std::time::Duration::from_secs(5))?;
    // No mmap: it reads no faster, and every page read would count as this program's memory.
    Ok(connection)
}

/// The rows from `?1` up to `?2`, in the order of keys.
fn select_sql(table: &Table, range: KeyRange) -> String {
    let columns: Vec<String> = table.columns.iter().map(|column| quote(&column.name)).collect();
    let key = quote(&table.columns[table.key].name);
    let order = if table.unique_key { key.clone() } else { format!("{key}, {}", quote(SURROGATE_KEY)) };
    format!(
        "SELECT {} FROM {} WHERE {key} >= ?1 AND {key} {} ?2 ORDER BY {order}",
        columns.join(", "),
        quote(&table.name),
        if range.to.is_some() { "<" } else { "<=" },
    )
}

fn scan(path: &Path, table: &Table, range: KeyRange, blocks: &mpsc::Sender<RowBlock>) -> rusqlite::Result<()> {
    let connection = open(path)?;
    let mut statement = connection.prepare(&select_sql(table, range))?;
    let mut rows = statement.query([range.from.unwrap_or(i64::MIN), range.to.unwrap_or(i64::MAX)])?;
    let mut block = RowBlock::new(table.columns.len());
    while let Some(row) = rows.next()? {
        for (position, column) in table.columns.iter().enumerate() {
            block.push(cell(column.ty, row.get_ref(position)?));
        }
        if block.is_full() && blocks.blocking_send(std::mem::replace(&mut block, RowBlock::new(table.columns.len()))).is_err() {
            return Ok(());
        }
    }
    // A receiver that is gone needs no last block.
    let _ = blocks.blocking_send(block);
    Ok(())
}

/// What is stored, as the column's type where the storage class allows it, else as what is really there.
fn cell(ty: ColumnType, value: ValueRef<'_>) -> Cell<'_> {
    match (ty, value) {
        (_, ValueRef::Null) => Cell::Null,
        (ColumnType::Bool, ValueRef::Integer(number @ (0 | 1))) => Cell::Bool(number == 1),
        (ColumnType::Timestamp, ValueRef::Integer(number)) => Cell::Timestamp(number),
        (_, ValueRef::Integer(number)) => Cell::Int(number),
        (_, ValueRef::Real(number)) => Cell::Float(number),
        (_, ValueRef::Text(text)) => Cell::Text(text),
        (ColumnType::Uuid, ValueRef::Blob(bytes)) => bytes.try_into().map_or(Cell::Bytes(bytes), Cell::Uuid),
        (_, ValueRef::Blob(bytes)) => Cell::Bytes(bytes),
    }
}
