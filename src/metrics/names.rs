//! The names users' boards and alerts query: every metric the exporter has, its type, its labels. This table is what the
//! exporter registers from and what the shipped boards and rules are tested against.

/// What a metric counts like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only grows.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Counts observations by size.
    Histogram(Buckets),
}

/// Upper bounds of a histogram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Buckets {
    /// 0.1 ms to 60 s, in seconds.
    Seconds,
    /// The same, in milliseconds.
    Milliseconds,
    /// 0.1 ms to 60 s, in seconds, in steps fine enough for percentiles, with the thresholds of alerts (1, 1.5, 3 s) among them.
    Replies,
    /// 1 s to 4 h, in seconds.
    LongSeconds,
    /// 1 to the largest batch in use.
    Rows,
    /// 100 bytes to 10 MB.
    Bytes,
}

/// One metric.
#[derive(Clone, Copy, Debug)]
pub struct Spec {
    /// Its name, without prefix.
    pub name: &'static str,
    /// Its type.
    pub kind: Kind,
    /// Its labels, in order.
    pub labels: &'static [&'static str],
    /// Its help line.
    pub help: &'static str,
}

const TABLE: &[&str] = &["database", "table", "test_name"];
const TEST: &[&str] = &["database", "test_name"];

macro_rules! specs {
    ($($ident:ident = $name:literal, $kind:expr, $labels:expr, $help:literal;)*) => {
        $(#[doc = $help] pub const $ident: Spec = Spec { name: $name, kind: $kind, labels: $labels, help: $help };)*
        /// Every metric of the exporter, in the order of the documentation.
        pub const ALL: &[Spec] = &[$($ident),*];
    };
}

const ROUTE: &[&str] = &["channel", "model", "protocol"];
const MODEL: &[&str] = &["channel", "model"];
const TOKENS: &[&str] = &["channel", "model", "kind"];
const CHANNEL_USER: &[&str] = &["channel", "user_name"];
const CHANNEL: &[&str] = &["channel"];

use Buckets::{Bytes, LongSeconds, Milliseconds, Replies, Rows, Seconds};
use Kind::{Counter, Gauge, Histogram};

specs! {
    RECORDS_PROCESSED = "batchsql_records_processed_total", Counter, TABLE, "Rows acknowledged";
    RECORDS_OUTCOME = "batchsql_records_outcome_total", Counter, &["database", "table", "test_name", "outcome"], "Rows by outcome";
    CURRENT_RPS = "batchsql_current_rps", Gauge, TABLE, "Rows acknowledged over the last second, zero when idle";
    BATCH_EXECUTION_MS = "batchsql_batch_execution_duration_ms", Histogram(Milliseconds), TABLE, "One batch from send to acknowledgement";
    BATCH_SIZE = "batchsql_batch_size", Histogram(Rows), TABLE, "Rows in a batch";
    RESPONSE_TIME = "batchsql_response_time_seconds", Histogram(Seconds), &["database", "test_name", "operation"], "From intended start to acknowledgement";
    ENQUEUE_LATENCY = "batchsql_enqueue_latency_seconds", Histogram(Seconds), TEST, "Wait of a row for room in the queue";
    BATCH_ASSEMBLE = "batchsql_batch_assemble_duration_seconds", Histogram(Seconds), TEST, "From a batch's first row to its being complete";
    EXECUTE = "batchsql_execute_duration_seconds", Histogram(Seconds), TEST, "One attempt from send to answer";
    POOL_WAIT = "batchsql_pool_wait_seconds", Histogram(Seconds), TEST, "Wait of a batch for a connection";
    INTEGRITY_RATE = "batchsql_data_integrity_rate", Gauge, TEST, "Rows found right / rows that must be there, once verified";
    INTEGRITY_ANOMALIES = "batchsql_integrity_anomalies_total", Counter, &["database", "test_name", "kind"], "Anomalies the verifier found";
    ERROR_RATE = "batchsql_error_rate", Gauge, TEST, "(rejected + unknown) / attempted rows over the last 10 s";
    BATCH_SUCCESS = "batchsql_batch_success_total", Counter, TABLE, "Batches acknowledged";
    BATCH_FAILED = "batchsql_batch_failed_total", Counter, TABLE, "Batches rejected or of unknown outcome";
    ERRORS = "batchsql_errors_total", Counter, &["database", "test_name", "error_type"], "Errors by class, those retried and those that were final";
    TESTS_RUN = "batchsql_tests_run_total", Counter, &["database", "test_name", "result"], "Runs by verdict";
    DROPPED = "batchsql_dropped_total", Counter, &["test_name"], "Operations the schedule asked for that could not start";
    RUN_ACTIVE = "batchsql_run_active", Gauge, TEST, "1 while phase main runs";
    RUN_PHASE = "batchsql_run_phase", Gauge, &["database", "test_name", "phase"], "1 for the phase a run is in: warmup, main, drain or verify";
    FAULT_ACTIVE = "batchsql_fault_active", Gauge, &["database", "test_name", "kind"], "1 while a fault of the scenario is in force";
    MEMORY_USAGE = "batchsql_memory_usage_bytes", Gauge, TEST, "Resident set of the harness";
    ACTIVE_CONNECTIONS = "batchsql_active_connections", Gauge, &["database"], "Connections of the pool in use";
    MAX_CONNECTIONS = "batchsql_max_connections", Gauge, &["database"], "Most connections of the pool";
    BUFFER_UTILIZATION = "batchsql_buffer_utilization", Gauge, TEST, "Queue length / buffer size";
    QUEUE_LENGTH = "batchsql_pipeline_queue_length", Gauge, TEST, "Rows in the pipeline's queue";
    INFLIGHT_BATCHES = "batchsql_inflight_batches", Gauge, TEST, "Batches sent and not yet answered";
    EXECUTOR_CONCURRENCY = "batchsql_executor_concurrency", Gauge, TEST, "Most batches in flight at once";
    CONCURRENT_WORKERS = "batchsql_concurrent_workers", Gauge, TEST, "Workers offering load now";
    TEST_DURATION = "batchsql_test_duration_seconds", Histogram(LongSeconds), TEST, "Length of whole runs";
    GUARD_HOLDING = "batchsql_guard_holding", Gauge, TEST, "1 while the scenario's guard holds the load";
    GUARD_HOLDS = "batchsql_guard_holds_total", Counter, TEST, "Holds of the load by the scenario's guard";
    TARGET_INFO = "batchsql_target_info", Gauge, &["database", "name", "version"], "The target as it names itself, always 1";
    LAST_RUN_VERDICT = "batchsql_last_run_verdict", Gauge, TEST, "Verdict of a scenario's last run: 1 pass, 0 inconclusive, -1 fail; only serve has it";
    LAST_RUN_INTEGRITY = "batchsql_last_run_integrity_rate", Gauge, TEST, "Rows found right / rows that must be there in the last run, if it was verified; only serve has it";
    LAST_RUN_THROUGHPUT = "batchsql_last_run_operations_per_second", Gauge, TEST, "Rows or requests a second of the last run, if integrity held; only serve has it";
    LAST_RUN_P99 = "batchsql_last_run_response_p99_seconds", Gauge, TEST, "99th percentile of the last run's response time; only serve has it";
    LAST_RUN_STARTED = "batchsql_last_run_start_time_seconds", Gauge, TEST, "When the last run started, in seconds since 1970; only serve has it";
    SERIES_DROPPED = "batchsql_series_dropped_total", Counter, &[], "Series refused because the limit on series was reached";
    PUSH_DROPPED = "batchsql_push_dropped_total", Counter, &["destination"], "Samples and spans that a receiver refused or that did not fit the buffer";
    AI_REQUESTS = "aiproxy_requests_total", Counter, &["channel", "user_name", "model", "status", "protocol"], "Requests that have ended, by status success and error";
    AI_RESPONSE_TIME = "aiproxy_response_time_seconds", Histogram(Replies), ROUTE, "From a request to the end of its reply";
    AI_FIRST_TOKEN = "aiproxy_time_to_first_token_seconds", Histogram(Replies), MODEL, "From a request to the first token with content";
    AI_INTER_TOKEN = "aiproxy_inter_token_latency_seconds", Histogram(Seconds), MODEL, "From one token of a stream to the next";
    AI_TOKENS = "aiproxy_tokens_total", Counter, TOKENS, "Tokens of prompts and of completions";
    AI_COST = "aiproxy_cost_total", Counter, TOKENS, "What the tokens cost, in the currency of the configured prices";
    AI_REQUEST_SIZE = "aiproxy_request_size_bytes", Gauge, CHANNEL_USER, "Body of the last request";
    AI_RESPONSE_SIZE = "aiproxy_response_size_bytes", Gauge, CHANNEL_USER, "Body of the last reply";
    AI_REQUEST_BODY = "aiproxy_request_body_bytes", Histogram(Bytes), CHANNEL, "Bodies of requests";
    AI_RESPONSE_BODY = "aiproxy_response_body_bytes", Histogram(Bytes), CHANNEL, "Bodies of replies";
    AI_WEBSOCKETS = "aiproxy_websocket_connections_total", Counter, CHANNEL, "WebSocket sessions that have ended";
    AI_UPTIME = "aiproxy_uptime_seconds", Gauge, &[], "Seconds since the process began to count";
    AI_API_KEYS = "aiproxy_api_keys_total", Gauge, &[], "API keys the gateway knows; only a gateway has it";
    AI_WAL_BYTES = "aiproxy_sqlite_wal_bytes", Gauge, &[], "Write-ahead log of the gateway's SQLite file; only a gateway has it";
}

/// 1–2.5–5 steps from 0.1 ms to 10 s, then 30 s and 60 s.
const SECONDS: [f64; 18] =
    [0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0];
const MILLISECONDS: [f64; 18] =
    [0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 25.0, 50.0, 100.0, 250.0, 500.0, 1000.0, 2500.0, 5000.0, 10000.0, 30000.0, 60000.0];
const REPLIES: [f64; 33] = [
    0.0001, 0.00025, 0.0005, 0.001, 0.0015, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5,
    0.75, 1.0, 1.5, 2.0, 3.0, 5.0, 7.5, 10.0, 15.0, 20.0, 30.0, 45.0, 60.0,
];
const LONG_SECONDS: [f64; 11] = [1.0, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0, 14400.0];
const ROWS: [f64; 12] = [1.0, 10.0, 25.0, 50.0, 100.0, 200.0, 500.0, 1000.0, 2000.0, 5000.0, 10000.0, 50000.0];
const BYTES: [f64; 6] = [100.0, 1_000.0, 10_000.0, 100_000.0, 1_000_000.0, 10_000_000.0];

impl Buckets {
    /// The upper bounds; those of [`Buckets::Rows`] end at `largest_batch`, so that its own bucket is the last one filled.
    #[must_use]
    pub fn bounds(self, largest_batch: usize) -> Vec<f64> {
        match self {
            Seconds => SECONDS.to_vec(),
            Milliseconds => MILLISECONDS.to_vec(),
            Replies => REPLIES.to_vec(),
            LongSeconds => LONG_SECONDS.to_vec(),
            Bytes => BYTES.to_vec(),
            Rows => {
                let largest = largest_batch.max(1) as f64;
                ROWS.into_iter().filter(|bound| *bound < largest).chain([largest]).collect()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn row_buckets_reach_the_largest_batch_and_grow() {
        assert_eq!(Rows.bounds(200), [1.0, 10.0, 25.0, 50.0, 100.0, 200.0]);
        assert_eq!(Rows.bounds(7), [1.0, 7.0]);
        assert_eq!(Rows.bounds(0), [1.0]);
        assert_eq!(Rows.bounds(80_000).last(), Some(&80_000.0));
        for buckets in [Seconds, Milliseconds, Replies, LongSeconds, Rows, Bytes] {
            assert!(buckets.bounds(5000).windows(2).all(|pair| pair[0] < pair[1]), "{buckets:?}");
        }
    }

    #[test]
    fn time_buckets_span_a_tenth_of_a_millisecond_to_a_minute() {
        assert_eq!((SECONDS[0], SECONDS[17]), (0.0001, 60.0));
        for (seconds, milliseconds) in SECONDS.iter().zip(MILLISECONDS) {
            assert!((seconds * 1000.0 - milliseconds).abs() < 1e-9);
        }
    }

    #[test]
    fn names_are_unique() {
        let names: std::collections::BTreeSet<_> = ALL.iter().map(|spec| spec.name).collect();
        assert_eq!(names.len(), ALL.len());
    }
}
