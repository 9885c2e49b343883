//! The log of requests: one row each, through the same batch writer that this program measures others with. In batches the reply does
//! not wait; otherwise the row is acknowledged before the reply ends.

use std::collections::HashMap;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::sync::{RwLock, oneshot};

use super::config;
use crate::pipeline::observer::{BatchInfo, BatchOutcome, Observer};
use crate::pipeline::{Pipeline, Submission};
use crate::proxy::seen::Seen;
use crate::proxy::stats::Stats;
use crate::scenario::PipelineConfig;
use crate::table::{Column, ColumnType, Row, Table, Value};
use crate::target::{Conflict, Method, Target, TargetError, WritePlan};
use crate::telemetry::log::warn;

/// The longest id of a request that is taken over.
pub(super) const ID_CHARS: u32 = 128;
const NAME_CHARS: u32 = 64;
const MODEL_CHARS: u32 = 200;
/// Rows that may wait before replies do.
const BUFFER: usize = 10_000;

/// `request_logs`.
pub(super) fn table() -> Table {
    let column = |name: &str, ty, max_len| Column { name: name.to_owned(), ty, nullable: false, index: false, max_len };
    Table {
        name: "request_logs".to_owned(),
        columns: vec![
            column("id", ColumnType::Int64, 0),
            column("request_id", ColumnType::Text, ID_CHARS),
            column("user_name", ColumnType::Text, NAME_CHARS),
            column("channel", ColumnType::Text, NAME_CHARS),
            column("model", ColumnType::Text, MODEL_CHARS),
            column("stream", ColumnType::Bool, 0),
            column("status", ColumnType::Int64, 0),
            column("prompt_tokens", ColumnType::Int64, 0),
            column("completion_tokens", ColumnType::Int64, 0),
            column("duration_ms", ColumnType::Float64, 0),
            column("created_at", ColumnType::Timestamp, 0),
        ],
        key: 0,
        unique_key: true,
    }
}

/// Writes rows.
pub(super) struct Log {
    /// `None` once it has ended.
    pipeline: RwLock<Option<Pipeline>>,
    watch: Arc<Watch>,
    last_id: AtomicI64,
    waits: bool,
    consume: bool,
}

/// How the log is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct State {
    /// Rows not yet in the database.
    pub(super) pending: u64,
    /// Rows that will never be there, or of which nobody can say.
    pub(super) lost: u64,
    /// Batches that were committed.
    pub(super) committed: u64,
}

impl Log {
    /// Writes to `target`; ids go on after `last_id`.
    pub(super) fn start(config: &config::Log, target: Arc<dyn Target>, last_id: i64, stats: Stats) -> Result<Self, TargetError> {
        let waits = !config.batch.enabled;
        let pipeline = PipelineConfig {
            buffer_size: BUFFER,
            flush_size: if waits { 1 } else { config.batch.size },
            flush_interval: config.batch.flush_interval,
            concurrency: Some(target.pool().max as usize),
            ..PipelineConfig::default()
        };
        let watch = Arc::new(Watch {
            waiting: Mutex::default(),
            pending: AtomicU64::new(0),
            lost: AtomicU64::new(0),
            committed: AtomicU64::new(0),
            stats,
        });
        // A key that is there already is another gateway's row: it must be told, not ignored.
        let plan = WritePlan { table: table(), conflict: Conflict::Error, method: Method::Auto };
        let observer: Arc<dyn Observer> = watch.clone();
        let pipeline = Pipeline::builder(target).table(plan).config(pipeline).with_metrics_reporter(observer).start()?;
        let last_id = AtomicI64::new(last_id);
        Ok(Self { pipeline: RwLock::new(Some(pipeline)), watch, last_id, waits, consume: config.consume })
    }

    /// Logs a request that has ended. Returns whether its reply may end well: without batches only once the row is committed.
    pub(super) async fn write(&self, seen: &Seen) -> bool {
        if seen.success && !self.consume {
            return true;
        }
        let id = self.last_id.fetch_add(1, Ordering::Relaxed) + 1;
        let pipeline = self.pipeline.read().await;
        self.watch.pending.fetch_add(1, Ordering::Relaxed);
        let committed = self.waits.then(|| self.watch.announce(id.unsigned_abs()));
        let taken = match pipeline.as_ref() {
            Some(pipeline) => pipeline.submit(Submission::now(id.unsigned_abs(), row(id, seen))).await.map_err(|e| e.to_string()),
            None => Err("the gateway has ended".to_owned()),
        };
        drop(pipeline);
        if let Err(reason) = taken {
            self.watch.ended(&[id.unsigned_abs()], Some(&reason));
            return false;
        }
        match committed {
            Some(committed) => committed.await.unwrap_or(false),
            None => true,
        }
    }

    pub(super) fn state(&self) -> State {
        let number = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let watch = &self.watch;
        State { pending: number(&watch.pending), lost: number(&watch.lost), committed: number(&watch.committed) }
    }

    /// Writes what waits, and ends.
    pub(super) async fn close(&self) {
        let pipeline = self.pipeline.write().await.take();
        if let Some(pipeline) = pipeline {
            pipeline.close().await;
        }
    }
}

fn row(id: i64, seen: &Seen) -> Row {
    let number = |n: u64| Value::Int(i64::try_from(n).unwrap_or(i64::MAX));
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    vec![
        Value::Int(id),
        text(&seen.request_id, ID_CHARS),
        text(&seen.user, NAME_CHARS),
        text(&seen.channel, NAME_CHARS),
        text(&seen.model, MODEL_CHARS),
        Value::Bool(seen.protocol == "sse"),
        number(u64::from(seen.status)),
        number(seen.prompt_tokens),
        number(seen.completion_tokens),
        Value::Float(seen.duration.as_secs_f64() * 1e3),
        Value::Timestamp(i64::try_from(now.as_micros()).unwrap_or(i64::MAX)),
    ]
}

/// What somebody sent, as every database stores it: one odd name must not have a whole batch rejected.
fn text(text: &str, chars: u32) -> Value {
    Value::Text(text.chars().filter(|c| !c.is_control()).take(chars as usize).collect())
}

/// Sees the outcome of every row.
struct Watch {
    waiting: Mutex<HashMap<u64, oneshot::Sender<bool>>>,
    pending: AtomicU64,
    lost: AtomicU64,
    committed: AtomicU64,
    stats: Stats,
}

impl Watch {
    fn waiting(&self) -> std::sync::MutexGuard<'_, HashMap<u64, oneshot::Sender<bool>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn announce(&self, id: u64) -> oneshot::Receiver<bool> {
        let (sender, receiver) = oneshot::channel();
        self.waiting().insert(id, sender);
        receiver
    }

    fn ended(&self, ids: &[u64], failure: Option<&str>) {
        let rows = ids.len() as u64;
        if let Some(reason) = failure {
            self.lost.fetch_add(rows, Ordering::Relaxed);
            warn(&format!("[SYS] log: {rows} rows of request_logs were not written: {reason}"));
        }
        self.pending.fetch_sub(rows, Ordering::Relaxed);
        let mut waiting = self.waiting();
        for sender in ids.iter().filter_map(|id| waiting.remove(id)) {
            // Who does not wait any more need not know.
            let _ = sender.send(failure.is_none());
        }
    }
}

impl Observer for Watch {
    fn executed(&self, _: &BatchInfo<'_>, took: Duration) {
        self.stats.database_query(took);
    }

    fn finished(&self, batch: &BatchInfo<'_>, outcome: &BatchOutcome, _: Duration) {
        let ids: Vec<u64> = batch.entries.iter().map(|entry| entry.id).collect();
        let reason = match outcome {
            BatchOutcome::Acknowledged { .. } => {
                self.committed.fetch_add(1, Ordering::Relaxed);
                None
            }
            BatchOutcome::Rejected(failure) => Some(failure.to_string()),
            BatchOutcome::Unknown(failure) => Some(format!("nobody can say whether: {failure}")),
        };
        self.ended(&ids, reason.as_deref());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_fits_its_table_whatever_was_sent() {
        let seen = Seen {
            request_id: "r".into(),
            user: "-".into(),
            channel: "-".into(),
            model: format!("a\0b\u{1F600}{}", "x".repeat(500)),
            protocol: "sse",
            status: 429,
            success: false,
            duration: Duration::from_micros(145_320),
            header_after: Duration::ZERO,
            first_token: None,
            gaps: Vec::new(),
            prompt_tokens: u64::MAX,
            completion_tokens: 2,
            request_bytes: 0,
            response_bytes: 0,
        };
        let row = row(7, &seen);
        assert_eq!(table().mismatch(&row), None);
        assert_eq!((table().key_of(&row), &row[5], &row[6], &row[9]), (7, &Value::Bool(true), &Value::Int(429), &Value::Float(145.32)));
        assert_eq!(row[7], Value::Int(i64::MAX));
        let Value::Text(model) = &row[4] else { panic!("a model is text") };
        assert!(model.starts_with("ab\u{1F600}x") && model.chars().count() == 200);
    }
}
