//! Reading back from Postgres: one exported snapshot, and a connection a scan that streams `COPY … TO STDOUT` in binary.
//!
//! COPY instead of SELECT because every row then arrives as one run of bytes that is decoded straight into the block.

use async_trait::async_trait;
use futures::StreamExt as _;
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{AssertSqlSafe, Column as _, ConnectOptions as _, Executor as _, SqlSafeStr as _, Statement as _};
use tokio::sync::{Mutex, mpsc};

use super::{digest, wire};
use crate::table::{Row, RowBlock, Table};
use crate::target::digest::RangeDigest;
use crate::target::server::describe;
use crate::target::sql;
use crate::target::{KeyRange, Reader, TargetError};

/// A snapshot of the database, held open by a connection of its own.
pub(super) struct PgReader {
    options: PgConnectOptions,
    snapshot: String,
    /// The snapshot lives as long as this connection's transaction.
    _holder: Mutex<PgConnection>,
}

/// Reading may take longer than servers let a statement run or a transaction wait.
const BEGIN: &str = "SET statement_timeout = 0; SET idle_in_transaction_session_timeout = 0; \
                     BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";

impl PgReader {
    pub(super) async fn open(options: PgConnectOptions) -> Result<Self, sqlx::Error> {
        let mut holder = options.connect().await?;
        sqlx::raw_sql(BEGIN).execute(&mut holder).await?;
        let snapshot: String = sqlx::query_scalar("SELECT pg_export_snapshot()").fetch_one(&mut holder).await?;
        Ok(Self { options, snapshot, _holder: Mutex::new(holder) })
    }

    /// A connection that sees the snapshot.
    async fn begin(&self) -> Result<PgConnection, sqlx::Error> {
        let mut connection = self.options.connect().await?;
        sqlx::raw_sql(BEGIN).execute(&mut connection).await?;
        sqlx::raw_sql(AssertSqlSafe(format!("SET TRANSACTION SNAPSHOT '{}'", self.snapshot.replace('\'', "''"))))
            .execute(&mut connection)
            .await?;
        Ok(connection)
    }

    async fn stream(&self, table: &Table, range: KeyRange, blocks: mpsc::Sender<RowBlock>) -> Result<(), sqlx::Error> {
        let mut connection = self.begin().await?;
        for select in sql::selects(table, range, sql::POSTGRES) {
            let statement = connection.prepare(AssertSqlSafe(select.clone()).into_sql_str()).await?;
            let oids: Vec<u32> = statement.columns().iter().map(|column| column.type_info().oid().map_or(0, |oid| oid.0)).collect();
            let mut rows = connection.copy_out_raw(&format!("COPY ({select}) TO STDOUT (FORMAT binary)")).await?;
            let mut decoder = Decoder { oids, block: RowBlock::new(table.columns.len()), scratch: String::new(), begun: false };
            while let Some(bytes) = rows.next().await {
                decoder.decode(&bytes?).ok_or_else(|| sqlx::Error::Protocol("COPY sent something that is no row".into()))?;
                if decoder.block.is_full() && blocks.send(decoder.take()).await.is_err() {
                    return Ok(());
                }
            }
            if decoder.block.rows() > 0 && blocks.send(decoder.take()).await.is_err() {
                return Ok(());
            }
        }
        Ok(())
    }
}

#[async_trait]
impl Reader for PgReader {
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

/// Turns COPY's binary stream into blocks.
struct Decoder {
    oids: Vec<u32>,
    block: RowBlock,
    scratch: String,
    /// Whether the stream's signature has been read.
    begun: bool,
}

impl Decoder {
    fn take(&mut self) -> RowBlock {
        std::mem::replace(&mut self.block, RowBlock::new(self.oids.len()))
    }

    /// Decodes one message; `None` if it is none of COPY's.
    fn decode(&mut self, message: &[u8]) -> Option<()> {
        let mut rest = message;
        if !self.begun {
            // 11 bytes of signature, flags, the length of an extension.
            let extension = u32::from_be_bytes(rest.get(15..19)?.try_into().ok()?);
            rest = rest.get(19 + extension as usize..)?;
            self.begun = true;
        }
        while let Some((head, mut fields)) = rest.split_first_chunk::<2>() {
            let width = i16::from_be_bytes(*head);
            if width < 0 {
                return Some(());
            }
            if usize::from(width.unsigned_abs()) != self.oids.len() {
                return None;
            }
            for oid in &self.oids {
                let (len, after) = fields.split_first_chunk::<4>()?;
                let field = match usize::try_from(i32::from_be_bytes(*len)) {
                    Ok(len) => Some(after.get(..len)?),
                    Err(_) => None,
                };
                fields = &after[field.map_or(0, <[u8]>::len)..];
                wire::push_cell(&mut self.block, *oid, field, &mut self.scratch);
            }
            rest = fields;
        }
        rest.is_empty().then_some(())
    }
}
