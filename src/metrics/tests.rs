//! The exporter as Prometheus sees it.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::aiproxy::{self, AiProxyMetrics};
use super::last_run::LastRun;
use super::*;
use crate::pipeline::observer::{BatchInfo, BatchOutcome, Observer};
use crate::report::{Integrity, IntegrityVerdict, Verdict};
use crate::target::{Applied, ErrorClass, Failure, PoolUse, TargetInfo};

/// The contract, written a second time on purpose: a renamed metric breaks users' boards.
const CONTRACT: &str = "
batchsql_records_processed_total counter database,table,test_name
batchsql_records_outcome_total counter database,table,test_name,outcome
batchsql_current_rps gauge database,table,test_name
batchsql_batch_execution_duration_ms histogram database,table,test_name
batchsql_batch_size histogram database,table,test_name
batchsql_response_time_seconds histogram database,test_name,operation
batchsql_enqueue_latency_seconds histogram database,test_name
batchsql_batch_assemble_duration_seconds histogram database,test_name
batchsql_execute_duration_seconds histogram database,test_name
batchsql_pool_wait_seconds histogram database,test_name
batchsql_data_integrity_rate gauge database,test_name
batchsql_integrity_anomalies_total counter database,test_name,kind
batchsql_error_rate gauge database,test_name
batchsql_batch_success_total counter database,table,test_name
batchsql_batch_failed_total counter database,table,test_name
batchsql_errors_total counter database,test_name,error_type
batchsql_tests_run_total counter database,test_name,result
batchsql_dropped_total counter test_name
batchsql_run_active gauge database,test_name
batchsql_run_phase gauge database,test_name,phase
batchsql_fault_active gauge database,test_name,kind
batchsql_memory_usage_bytes gauge database,test_name
batchsql_active_connections gauge database
batchsql_max_connections gauge database
batchsql_buffer_utilization gauge database,test_name
batchsql_pipeline_queue_length gauge database,test_name
batchsql_inflight_batches gauge database,test_name
batchsql_executor_concurrency gauge database,test_name
batchsql_concurrent_workers gauge database,test_name
batchsql_test_duration_seconds histogram database,test_name
batchsql_guard_holding gauge database,test_name
batchsql_guard_holds_total counter database,test_name
batchsql_target_info gauge database,name,version
batchsql_last_run_verdict gauge database,test_name
batchsql_last_run_integrity_rate gauge database,test_name
batchsql_last_run_operations_per_second gauge database,test_name
batchsql_last_run_response_p99_seconds gauge database,test_name
batchsql_last_run_start_time_seconds gauge database,test_name
batchsql_series_dropped_total counter 
batchsql_push_dropped_total counter destination
aiproxy_requests_total counter channel,user_name,model,status,protocol
aiproxy_response_time_seconds histogram channel,model,protocol
aiproxy_time_to_first_token_seconds histogram channel,model
aiproxy_inter_token_latency_seconds histogram channel,model
aiproxy_tokens_total counter channel,model,kind
aiproxy_cost_total counter channel,model,kind
aiproxy_request_size_bytes gauge channel,user_name
aiproxy_response_size_bytes gauge channel,user_name
aiproxy_request_body_bytes histogram channel
aiproxy_response_body_bytes histogram channel
aiproxy_websocket_connections_total counter channel
aiproxy_uptime_seconds gauge 
aiproxy_api_keys_total gauge 
aiproxy_sqlite_wal_bytes gauge ";

const PIPELINE: Pipeline = Pipeline { buffer_size: 100, flush_size: 200, concurrency: 3 };

fn reporter(metrics: &PrometheusMetrics) -> PrometheusMetricsReporter {
    let reporter = PrometheusMetricsReporter::new(metrics, "sqlite", "quickstart", PIPELINE);
    reporter.expect_table("t");
    reporter
}

fn batch(rows: usize) -> BatchInfo<'static> {
    BatchInfo { id: 0, table: "t", rows, entries: &[], attempt: 1, session: 0 }
}

fn failure(class: ErrorClass) -> Failure {
    Failure { class, applied: Applied::No, message: "no".to_owned() }
}

fn integrity(rate: Option<f64>) -> Integrity {
    Integrity {
        verdict: IntegrityVerdict::Violated,
        reason: None,
        method: "full".to_owned(),
        rate,
        checked: 99,
        must_be_there: 100,
        lost: 1,
        duplicated: 2,
        surplus_copies: 2,
        corrupted: 3,
        phantom: 4,
        resurrected: 5,
        stale: 6,
        recovered: 7,
        partial_batches: 8,
        examples: Vec::new(),
        duration_seconds: 0.1,
        ..Integrity::inconclusive(String::new())
    }
}

/// Everything a run does to the exporter.
fn exercise(reporter: &PrometheusMetricsReporter) {
    reporter.target(&TargetInfo { name: "SQLite".into(), version: "3.50".into(), settings: vec![], max_binds: 1, max_bytes: 1 });
    reporter.run_active(true);
    reporter.fault_active("kill", true);
    reporter.workers(4);
    reporter.pool(PoolUse { active: 2, max: 5 });
    reporter.enqueued(Duration::from_micros(3));
    reporter.assembled("t", 200, Duration::from_millis(2));
    reporter.connection_acquired(Duration::from_micros(50));
    reporter.executed(&batch(200), Duration::from_millis(7));
    reporter.attempt_failed(&batch(200), &failure(ErrorClass::Busy), true);
    reporter.attempt_failed(&batch(50), &failure(ErrorClass::Constraint), false);
    reporter.finished(&batch(200), &BatchOutcome::Acknowledged { warnings: 2, after_unknown: false }, Duration::from_millis(9));
    reporter.finished(&batch(50), &BatchOutcome::Rejected(failure(ErrorClass::Constraint)), Duration::from_millis(1));
    reporter.finished(&batch(30), &BatchOutcome::Unknown(failure(ErrorClass::Timeout)), Duration::from_millis(1));
    reporter.gauges(25, 2);
    reporter.observe_responses(&[Duration::from_millis(1), Duration::from_millis(30)]);
    reporter.dropped(11);
    reporter.verified(&integrity(Some(0.99)));
    reporter.run_finished(Verdict::Fail, Duration::from_secs(12));
}

fn value(text: &str, series: &str) -> Option<f64> {
    text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' ')?.parse().ok())
}

/// Name → (type, labels), read from the text as a scraper would.
fn families(text: &str) -> BTreeMap<String, (String, BTreeSet<String>)> {
    let mut families: BTreeMap<String, (String, BTreeSet<String>)> = BTreeMap::new();
    let mut current = String::new();
    for line in text.lines() {
        if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' ')) {
            name.clone_into(&mut current);
            families.insert(current.clone(), (kind.to_owned(), BTreeSet::new()));
        } else if let Some((_, labels)) = line.split_once('{').filter(|_| !line.starts_with('#')) {
            let labels = labels.rsplit_once('}').unwrap().0;
            let names = labels.split("\",").map(|pair| pair.split_once('=').unwrap().0.to_owned()).filter(|name| name != "le");
            families.get_mut(&current).unwrap().1.extend(names);
        }
    }
    families
}

#[test]
fn names_types_and_labels_are_the_contract() {
    let metrics = PrometheusMetrics::new();
    let reporter = reporter(&metrics);
    exercise(&reporter);
    let proxy = AiProxyMetrics::new(&metrics);
    proxy.set_api_keys(3);
    proxy.set_wal_bytes(4096);
    proxy.record(&aiproxy::tests::WEBSOCKET);
    let last = LastRun {
        database: "sqlite",
        test_name: "quickstart",
        verdict: Verdict::Pass,
        integrity_rate: Some(1.0),
        operations_per_second: Some(5.0),
        response_p99_seconds: Some(0.1),
        started_seconds: 1.0,
    };
    last.show(&metrics);
    metrics.push_dropped("remote_write");
    let expected: BTreeMap<_, _> = CONTRACT
        .trim_start()
        .lines()
        .map(|line| {
            let mut parts = line.splitn(3, ' ');
            let (name, kind, labels) = (parts.next().unwrap(), parts.next().unwrap(), parts.next().unwrap());
            let labels = labels.split(',').filter(|label| !label.is_empty()).map(str::to_owned).collect();
            (name.to_owned(), (kind.to_owned(), labels))
        })
        .collect();
    assert_eq!(families(&metrics.render()), expected);
    assert_eq!(names::ALL.len(), expected.len());
}

#[test]
fn every_event_reaches_its_series() {
    let metrics = PrometheusMetrics::new();
    let reporter = reporter(&metrics);
    exercise(&reporter);
    let text = metrics.render();
    let test = r#"database="sqlite",test_name="quickstart""#;
    let table = r#"database="sqlite",table="t",test_name="quickstart""#;
    for (series, expected) in [
        (format!("batchsql_records_processed_total{{{table}}}"), 200.0),
        (r#"batchsql_records_outcome_total{database="sqlite",outcome="acknowledged",table="t",test_name="quickstart"}"#.to_owned(), 200.0),
        (r#"batchsql_records_outcome_total{database="sqlite",outcome="rejected",table="t",test_name="quickstart"}"#.to_owned(), 50.0),
        (r#"batchsql_records_outcome_total{database="sqlite",outcome="unknown",table="t",test_name="quickstart"}"#.to_owned(), 30.0),
        (format!("batchsql_batch_success_total{{{table}}}"), 1.0),
        (format!("batchsql_batch_failed_total{{{table}}}"), 2.0),
        (format!("batchsql_batch_execution_duration_ms_count{{{table}}}"), 1.0),
        (format!("batchsql_batch_execution_duration_ms_sum{{{table}}}"), 9.0),
        (format!("batchsql_batch_size_bucket{{{table},le=\"100\"}}"), 0.0),
        (format!("batchsql_batch_size_bucket{{{table},le=\"200\"}}"), 1.0),
        (r#"batchsql_response_time_seconds_count{database="sqlite",operation="batch_insert",test_name="quickstart"}"#.to_owned(), 2.0),
        (format!("batchsql_enqueue_latency_seconds_count{{{test}}}"), 1.0),
        (format!("batchsql_pool_wait_seconds_bucket{{{test},le=\"0.0001\"}}"), 1.0),
        (format!("batchsql_execute_duration_seconds_sum{{{test}}}"), 0.007),
        (format!("batchsql_batch_assemble_duration_seconds_sum{{{test}}}"), 0.002),
        (r#"batchsql_errors_total{database="sqlite",error_type="retry:busy",test_name="quickstart"}"#.to_owned(), 1.0),
        (r#"batchsql_errors_total{database="sqlite",error_type="final:constraint",test_name="quickstart"}"#.to_owned(), 1.0),
        (r#"batchsql_errors_total{database="sqlite",error_type="retry:constraint",test_name="quickstart"}"#.to_owned(), 0.0),
        (r#"batchsql_errors_total{database="sqlite",error_type="final:timeout",test_name="quickstart"}"#.to_owned(), 1.0),
        (r#"batchsql_errors_total{database="sqlite",error_type="final:data",test_name="quickstart"}"#.to_owned(), 2.0),
        (r#"batchsql_integrity_anomalies_total{database="sqlite",kind="lost",test_name="quickstart"}"#.to_owned(), 1.0),
        (r#"batchsql_integrity_anomalies_total{database="sqlite",kind="partial_batch",test_name="quickstart"}"#.to_owned(), 8.0),
        (r#"batchsql_integrity_anomalies_total{database="sqlite",kind="stale",test_name="quickstart"}"#.to_owned(), 6.0),
        (format!("batchsql_data_integrity_rate{{{test}}}"), 0.99),
        (r#"batchsql_tests_run_total{database="sqlite",result="fail",test_name="quickstart"}"#.to_owned(), 1.0),
        (r#"batchsql_tests_run_total{database="sqlite",result="pass",test_name="quickstart"}"#.to_owned(), 0.0),
        (r#"batchsql_dropped_total{test_name="quickstart"}"#.to_owned(), 11.0),
        (format!("batchsql_run_active{{{test}}}"), 0.0),
        (r#"batchsql_active_connections{database="sqlite"}"#.to_owned(), 2.0),
        (r#"batchsql_max_connections{database="sqlite"}"#.to_owned(), 5.0),
        (format!("batchsql_buffer_utilization{{{test}}}"), 0.25),
        (format!("batchsql_pipeline_queue_length{{{test}}}"), 25.0),
        (format!("batchsql_inflight_batches{{{test}}}"), 2.0),
        (format!("batchsql_executor_concurrency{{{test}}}"), 3.0),
        (format!("batchsql_concurrent_workers{{{test}}}"), 4.0),
        (format!("batchsql_test_duration_seconds_sum{{{test}}}"), 12.0),
        (r#"batchsql_target_info{database="sqlite",name="SQLite",version="3.50"}"#.to_owned(), 1.0),
        ("batchsql_series_dropped_total".to_owned(), 0.0),
    ] {
        assert_eq!(value(&text, &series), Some(expected), "{series}\n{text}");
    }
    assert!(value(&text, &format!("batchsql_memory_usage_bytes{{{test}}}")).unwrap() > 1e6);
    assert_eq!(value(&text, &format!("batchsql_error_rate{{{test}}}")), Some(80.0 / 280.0));
}

#[test]
fn errors_are_indexed_in_the_order_of_declaration() {
    for (position, class) in ErrorClass::ALL.into_iter().enumerate() {
        assert_eq!(class as usize, position, "{}", class.as_str());
    }
}

#[test]
fn rates_cover_the_last_seconds_and_fall_to_zero_when_idle() {
    let metrics = PrometheusMetrics::new();
    let reporter = reporter(&metrics);
    let start = Instant::now();
    let seconds = |s: f64| start + Duration::from_secs_f64(s);
    let table = [("database", "sqlite"), ("table", "t"), ("test_name", "quickstart")];
    let shown = metrics.shared.series.get(names::CURRENT_RPS.name, names::CURRENT_RPS.help, &table, series::Shape::Gauge).gauge();
    let rps = || shown.get();
    let acknowledge =
        |rows| reporter.finished(&batch(rows), &BatchOutcome::Acknowledged { warnings: 0, after_unknown: false }, Duration::ZERO);
    reporter.tick(seconds(1.0));
    for tenth in 1..=20 {
        acknowledge(100);
        reporter.tick(seconds(1.0 + f64::from(tenth) / 5.0));
    }
    assert!((rps() - 500.0).abs() < 1.0, "{}", rps());
    reporter.tick(seconds(5.5));
    assert!(rps() < 500.0 && rps() > 100.0, "{}", rps());
    reporter.tick(seconds(6.5));
    assert_eq!(rps(), 0.0);
}

#[test]
fn the_error_rate_forgets_after_ten_seconds() {
    let start = Instant::now();
    let mut recent = reporter::Recent::new(Duration::from_secs(10), start, [0, 0]);
    assert_eq!(recent.advance(start + Duration::from_secs(1), [100, 20]).0, [100, 20]);
    assert_eq!(recent.advance(start + Duration::from_secs(9), [150, 20]).0, [150, 20]);
    assert_eq!(recent.advance(start + Duration::from_secs(11), [200, 20]).0, [100, 0]);
    assert_eq!(recent.advance(start + Duration::from_secs(40), [200, 20]).0, [0, 0]);
}

#[test]
fn frequent_scrapes_do_not_make_the_window_grow() {
    let start = Instant::now();
    let mut recent = reporter::Recent::new(Duration::from_secs(10), start, [0, 0]);
    for millis in 0..60_000 {
        recent.advance(start + Duration::from_millis(millis), [millis, 0]);
    }
    assert!(recent.len() <= 102, "{}", recent.len());
}

#[test]
fn integrity_is_absent_until_verified_and_again_in_the_next_run() {
    let metrics = PrometheusMetrics::new();
    let first = reporter(&metrics);
    assert!(!metrics.render().contains("batchsql_data_integrity_rate"));
    first.verified(&integrity(None));
    assert!(!metrics.render().contains("batchsql_data_integrity_rate"));
    first.verified(&integrity(Some(1.0)));
    assert!(metrics.render().contains("batchsql_data_integrity_rate{"));
    let _second = reporter(&metrics);
    assert!(!metrics.render().contains("batchsql_data_integrity_rate"));
}

#[test]
fn what_moves_is_zero_once_nobody_reports() {
    let metrics = PrometheusMetrics::new();
    let reporter = reporter(&metrics);
    exercise(&reporter);
    reporter.run_active(true);
    drop(reporter);
    let text = metrics.render();
    for name in ["batchsql_current_rps", "batchsql_run_active", "batchsql_inflight_batches", "batchsql_pipeline_queue_length"] {
        assert!(text.lines().any(|line| line.starts_with(name) && line.ends_with(" 0")), "{name}\n{text}");
    }
    assert!(text.contains("batchsql_data_integrity_rate{"), "{text}");
}

#[test]
fn prefix_and_environment_hold_whenever_they_are_set() {
    let metrics = PrometheusMetrics::new();
    let reporter = reporter(&metrics);
    metrics.register_counter("mine_total", "Mine", &[]).unwrap().with(&[]).inc_by(3);
    metrics.set_environment("pre\"prod");
    metrics.set_metrics_prefix("prod_").unwrap();
    exercise(&reporter);
    let text = metrics.render();
    assert_eq!(value(&text, r#"prod_mine_total{env="pre\"prod"}"#), Some(3.0), "{text}");
    for line in text.lines() {
        let name = line.strip_prefix("# HELP ").or(line.strip_prefix("# TYPE ")).unwrap_or(line);
        assert!(name.starts_with("prod_") && (line.starts_with('#') || line.contains(r#"env="pre\"prod""#)), "{line}");
    }
    for bad in ["9_", "a-", "a b"] {
        assert!(metrics.set_metrics_prefix(bad).unwrap_err().to_string().contains("staging_"), "{bad}");
    }
}

#[test]
fn a_users_metrics_stand_beside_ours() {
    let metrics = PrometheusMetrics::new();
    let operations = metrics.register_counter("batchsql_custom_operations_total", "Operations", &["kind", "env"]).unwrap();
    operations.with(&["a", "mine"]).inc_by(2);
    metrics.register_counter("batchsql_custom_operations_total", "Operations", &["kind", "env"]).unwrap().with(&["a", "mine"]).inc();
    let duration = metrics.register_histogram("batchsql_custom_duration_seconds", "Duration", &[], &[0.1, 1.0]).unwrap();
    duration.with(&[]).observe(0.5);
    metrics.set_environment("prod");
    let text = metrics.render();
    assert_eq!(value(&text, r#"batchsql_custom_operations_total{env="mine",kind="a"}"#), Some(3.0), "{text}");
    assert_eq!(value(&text, r#"batchsql_custom_duration_seconds_bucket{env="prod",le="1"}"#), Some(1.0), "{text}");

    for (name, labels) in [("batchsql_current_rps", &[][..]), ("bad name", &[]), ("a_total", &["bad-label"]), ("b_total", &["x", "x"])] {
        assert!(metrics.register_counter(name, "Help", labels).is_err(), "{name}");
    }
    assert!(metrics.register_counter("batchsql_custom_operations_total", "Operations", &["kind"]).is_err());
    assert!(metrics.register_histogram("c_seconds", "Help", &["le"], &[1.0]).is_err());
    assert!(metrics.register_histogram("d_seconds", "Help", &[], &[2.0, 1.0]).is_err());
}

#[test]
fn series_never_exceed_the_limit_and_what_did_not_fit_is_counted() {
    let shown = |metrics: &PrometheusMetrics| metrics.render().lines().filter(|line| !line.starts_with('#')).count();
    let metrics = PrometheusMetrics::new();
    let run = reporter(&metrics);
    exercise(&run);
    let one_run = shown(&metrics);
    assert!((150..=300).contains(&one_run), "one run shows {one_run} series");
    let custom = metrics.register_counter("users_total", "By user", &["user"]).unwrap();
    for user in 0..2000 {
        custom.with(&[&user.to_string()]).inc();
    }
    assert_eq!(shown(&metrics), DEFAULT_SERIES_LIMIT);
    assert_eq!(value(&metrics.render(), "batchsql_series_dropped_total"), Some((2000 - (DEFAULT_SERIES_LIMIT - one_run)) as f64));
    let late = PrometheusMetricsReporter::new(&metrics, "mysql", "late", PIPELINE);
    exercise(&late);
    assert_eq!(shown(&metrics), DEFAULT_SERIES_LIMIT);
}

#[test]
fn larger_batches_get_buckets_that_reach_them() {
    let metrics = PrometheusMetrics::new();
    drop(reporter(&metrics));
    assert!(
        !metrics.render().contains(r#"le="5000""#)
            || !metrics.render().contains("batch_size_bucket{database=\"sqlite\",table=\"t\",test_name=\"quickstart\",le=\"5000\"")
    );
    let large = PrometheusMetricsReporter::new(&metrics, "sqlite", "quickstart", Pipeline { flush_size: 5000, ..PIPELINE });
    large.assembled("t", 5000, Duration::ZERO);
    let text = metrics.render();
    let bucket = r#"batchsql_batch_size_bucket{database="sqlite",table="t",test_name="quickstart",le="5000"}"#;
    assert_eq!(value(&text, bucket), Some(1.0), "{text}");
}

#[test]
fn tables_beyond_the_sixteenth_are_counted_as_other() {
    let metrics = PrometheusMetrics::with_series_limit(10_000);
    let reporter = PrometheusMetricsReporter::new(&metrics, "sqlite", "many", PIPELINE);
    for table in 0..20 {
        let table = format!("t{table}");
        reporter.finished(
            &BatchInfo { table: &table, ..batch(10) },
            &BatchOutcome::Acknowledged { warnings: 0, after_unknown: false },
            Duration::ZERO,
        );
    }
    let text = metrics.render();
    assert_eq!(value(&text, r#"batchsql_records_processed_total{database="sqlite",table="t15",test_name="many"}"#), Some(10.0));
    assert_eq!(value(&text, r#"batchsql_records_processed_total{database="sqlite",table="other",test_name="many"}"#), Some(40.0));
}

/// Head and body of a GET.
async fn http_get(address: SocketAddr, path: &str) -> (String, String) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.to_owned(), body.to_owned())
}

const ANY_PORT: &str = "127.0.0.1:0";

#[tokio::test]
async fn metrics_and_health_are_served_until_stopped() {
    let metrics = PrometheusMetrics::new();
    let reporter = reporter(&metrics);
    exercise(&reporter);
    let address = metrics.start_server(ANY_PORT.parse().unwrap()).await.unwrap();
    let (head, body) = http_get(address, "/metrics").await;
    assert!(head.starts_with("HTTP/1.1 200") && head.contains("content-type: text/plain; version=0.0.4; charset=utf-8"), "{head}");
    assert!(body.contains("# TYPE batchsql_batch_execution_duration_ms histogram"), "{body}");
    let (head, body) = http_get(address, "/health").await;
    assert!(head.starts_with("HTTP/1.1 200") && body.contains(r#""status":"ok""#), "{head}\n{body}");
    assert!(http_get(address, "/").await.0.starts_with("HTTP/1.1 404"));
    metrics.stop_server().await;
    assert!(TcpStream::connect(address).await.is_err());
    metrics.stop_server().await;
}

#[tokio::test]
async fn a_connection_kept_open_does_not_hold_the_stop_up() {
    let metrics = PrometheusMetrics::new();
    let address = metrics.start_server(ANY_PORT.parse().unwrap()).await.unwrap();
    let _idle = TcpStream::connect(address).await.unwrap();
    tokio::time::timeout(Duration::from_secs(10), metrics.stop_server()).await.unwrap();
    assert!(TcpStream::connect(address).await.is_err());
}

#[tokio::test]
async fn a_port_in_use_is_an_error_when_asked_for_and_gives_way_when_not() {
    let taken = TcpListener::bind(ANY_PORT).await.unwrap();
    let address = taken.local_addr().unwrap();
    let metrics = PrometheusMetrics::new();
    let error = metrics.listen(address, true).await.unwrap_err().to_string();
    assert!(error.contains(&format!("--metrics-listen {address}")) && error.contains("in use"), "{error}");
    let listening = metrics.listen(address, false).await.unwrap();
    assert_ne!(listening.address.port(), address.port());
    let note = listening.note.unwrap();
    assert!(note.contains(&format!("port {} is in use", address.port())) && note.contains(&listening.address.to_string()), "{note}");
    assert!(http_get(listening.address, "/metrics").await.0.starts_with("HTTP/1.1 200"));
    let foreign = metrics.listen("203.0.113.7:0".parse().unwrap(), true).await.unwrap_err().to_string();
    assert!(foreign.contains("--metrics-listen 203.0.113.7:0"), "{foreign}");
    metrics.stop_server().await;
}

/// What `promtool check metrics` says of `text`; `None`, and said so, where it is not installed.
pub(super) fn promtool(text: &str) -> Option<String> {
    let promtool = std::env::var("BATCHSQL_TEST_PROMTOOL").unwrap_or_else(|_| "promtool".to_owned());
    let child =
        Command::new(promtool).args(["check", "metrics"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let Ok(mut child) = child else {
        println!("left out: promtool is not installed");
        return None;
    };
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    Some(String::from_utf8([output.stdout, output.stderr].concat()).unwrap())
}

#[test]
fn promtool_complains_of_the_excused_name_alone() {
    let metrics = PrometheusMetrics::new();
    let reporter = reporter(&metrics);
    exercise(&reporter);
    let Some(said) = promtool(&metrics.render()) else { return };
    let complained: BTreeSet<&str> = said.lines().filter_map(|line| line.split(' ').find(|word| word.starts_with("batchsql_"))).collect();
    assert_eq!(complained, BTreeSet::from(["batchsql_batch_execution_duration_ms"]), "{said}");
    assert_eq!(said.lines().filter(|line| !line.is_empty()).count(), 1, "{said}");
}
