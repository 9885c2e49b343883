//! What a scraper sees: during a run, between drain and verification, and while metrics linger.

use std::collections::BTreeMap;
use std::net::TcpListener;

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::database::Database;
use crate::place::{Place, get, meet, rendezvous};

/// Every sample of a scrape by its series.
fn scrape(address: std::net::SocketAddr) -> BTreeMap<String, f64> {
    let text = get(address, "/metrics");
    let samples = text.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
    samples
        .map(|line| {
            let (series, value) = line.rsplit_once(' ').unwrap();
            (series.to_owned(), value.parse().unwrap_or_else(|_| panic!("{line}")))
        })
        .collect()
}

const TABLE: &str = "{database=\"sqlite\",table=\"metered\",test_name=\"metered\"}";
const TEST: &str = "{database=\"sqlite\",test_name=\"metered\"}";

/// Asserts what the counters must say once every batch is answered.
fn assert_counts(samples: &BTreeMap<String, f64>) {
    for (series, value) in [
        (format!("batchsql_records_processed_total{TABLE}"), 1000.0),
        (
            "batchsql_records_outcome_total{database=\"sqlite\",outcome=\"acknowledged\",table=\"metered\",test_name=\"metered\"}"
                .to_owned(),
            1000.0,
        ),
        (format!("batchsql_batch_success_total{TABLE}"), 10.0),
        (format!("batchsql_batch_failed_total{TABLE}"), 0.0),
        (format!("batchsql_batch_size_sum{TABLE}"), 1000.0),
        (format!("batchsql_batch_size_count{TABLE}"), 10.0),
        (format!("batchsql_enqueue_latency_seconds_count{TEST}"), 1000.0),
        ("batchsql_response_time_seconds_count{database=\"sqlite\",operation=\"batch_insert\",test_name=\"metered\"}".to_owned(), 1000.0),
        (format!("batchsql_execute_duration_seconds_count{TEST}"), 10.0),
        (format!("batchsql_run_active{TEST}"), 0.0),
        (format!("batchsql_executor_concurrency{TEST}"), 1.0),
        ("batchsql_max_connections{database=\"sqlite\"}".to_owned(), 1.0),
    ] {
        assert_eq!(samples.get(&series), Some(&value), "{series}: {samples:#?}");
    }
}

#[test]
fn the_counters_equal_the_report_and_integrity_is_absent_until_verified() {
    let place = Place::new();
    let db = Database::sqlite(&place, "metered");
    let listen = ["--metrics-listen", "127.0.0.1:0", "--metrics-linger", "10m", "--before-verify"];
    let mut running = place.start(&db.rows(1000), &[&listen[..], &[&rendezvous(&place)]].concat());
    let address = running.metrics_address();
    meet(&place, &mut running);
    let integrity_rate = format!("batchsql_data_integrity_rate{TEST}");
    let drained = scrape(address);
    assert_counts(&drained);
    assert!(!drained.keys().any(|series| series.contains("integrity_rate")), "nothing is known yet: {drained:#?}");
    assert_eq!(drained.iter().filter(|(series, _)| series.starts_with("batchsql_tests_run_total")).map(|(_, runs)| runs).sum::<f64>(), 0.0);
    place.write("go", "");
    running.until("the report", |it| it.printed().ends_with('\n').then_some(()));
    let lingering = scrape(address);
    assert_counts(&lingering);
    assert_eq!(lingering[&integrity_rate], 1.0);
    assert_eq!(lingering["batchsql_tests_run_total{database=\"sqlite\",result=\"pass\",test_name=\"metered\"}"], 1.0);
    assert_eq!(get(address, "/health"), "{\"status\":\"ok\"}\n");
    assert!(running.said().contains("serving metrics for another 10m"), "{}", running.said());
    running.signal(Signal::SIGTERM);
    let report = running.end().json(0);
    assert_eq!((&report["outcomes"]["acknowledged"], &report["integrity"]["rate"]), (&json!(1000), &json!(1.0)));
}

#[test]
fn what_the_verifier_finds_is_counted_by_kind() {
    let place = Place::new();
    let db = Database::sqlite(&place, "metered");
    let listen = ["--metrics-listen", "127.0.0.1:0", "--metrics-linger", "10m", "--before-verify"];
    let mut running = place.start(&db.rows(1000), &[&listen[..], &[&rendezvous(&place)]].concat());
    let address = running.metrics_address();
    meet(&place, &mut running);
    db.execute("DELETE FROM {table} WHERE id <= 10");
    place.write("go", "");
    running.until("the report", |it| it.printed().ends_with('\n').then_some(()));
    let samples = scrape(address);
    let lost = "batchsql_integrity_anomalies_total{database=\"sqlite\",kind=\"lost\",test_name=\"metered\"}";
    assert_eq!((samples[lost], samples[&format!("batchsql_data_integrity_rate{TEST}")]), (10.0, 0.99));
    assert_eq!(samples["batchsql_tests_run_total{database=\"sqlite\",result=\"fail\",test_name=\"metered\"}"], 1.0);
    running.signal(Signal::SIGTERM);
    running.end().json(4);
}

#[test]
fn prefix_and_environment_are_on_every_series() {
    let place = Place::new();
    let mut scenario = Database::sqlite(&place, "metered").rows(100);
    scenario["metrics"] = json!({"prefix": "staging_", "env": "ci"});
    let mut running = place.start(&scenario, &["--metrics-listen", "127.0.0.1:0", "--metrics-linger", "10m"]);
    let address = running.metrics_address();
    running.until("the report", |it| it.printed().ends_with('\n').then_some(()));
    let samples = scrape(address);
    assert!(samples.keys().all(|series| series.starts_with("staging_batchsql_") && series.contains("env=\"ci\"")), "{samples:#?}");
    let processed = samples.iter().find(|(series, _)| series.starts_with("staging_batchsql_records_processed_total{")).unwrap();
    assert_eq!(*processed.1, 100.0);
    running.signal(Signal::SIGTERM);
    running.end().json(0);
}

#[test]
fn a_port_in_use_is_refused_when_asked_for_and_given_way_to_when_not() {
    let place = Place::new();
    let db = Database::sqlite(&place, "rows");
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    place.run(&db.rows(100), &["--metrics-listen", &address]).refused(&["--metrics-listen", &address]);
    assert!(!place.path("reports").exists() && !place.path("test.db").exists(), "nothing was begun");
    // Whoever holds the default port, this test or another, it is in use.
    let _held = TcpListener::bind("127.0.0.1:9464");
    let file = place.write("default.yaml", &db.rows(100).to_string());
    let ended = place.batchsql(&["run", "--json", "--report-dir", "reports", &file]);
    assert_eq!(ended.json(0)["outcomes"]["acknowledged"], 100);
    assert!(ended.stderr.contains("port 9464 is in use: metrics are on http://127.0.0.1:"), "{}", ended.stderr);
}

#[test]
fn no_metrics_means_no_listener() {
    let place = Place::new();
    let ended = place.run(&Database::sqlite(&place, "rows").rows(100), &["--no-metrics"]);
    let _: Value = ended.json(0);
    assert!(!ended.stderr.contains("metrics"), "{}", ended.stderr);
}
