//! Metrics and traces that the program pushes, as real receivers have them.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::database::Database;
use crate::place::{Place, ask, until};

/// A program that is there only for its test.
struct Receiver {
    child: Child,
    port: u16,
}

impl Receiver {
    /// Nothing, and a line, if it is not installed.
    fn start(program: &str, arguments: &[String], port: u16) -> Option<Self> {
        let started = Command::new(program).args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let Ok(child) = started else {
            println!("left out: {program} is not installed");
            return None;
        };
        let receiver = Self { child, port };
        until("a receiver that listens", || std::net::TcpStream::connect(("127.0.0.1", port)).ok());
        Some(receiver)
    }

    fn prometheus(place: &Place, port: u16) -> Option<Self> {
        let configuration = place.write("prometheus.yml", "{}");
        let arguments = [
            format!("--config.file={configuration}"),
            format!("--storage.tsdb.path={}", place.name("prometheus")),
            format!("--web.listen-address=127.0.0.1:{port}"),
            "--web.enable-remote-write-receiver".to_owned(),
        ];
        let receiver = Self::start("prometheus", &arguments, port)?;
        until("a Prometheus that is ready", || ask(([127, 0, 0, 1], port).into(), "/-/ready").ok());
        Some(receiver)
    }

    fn victoria_metrics(place: &Place, port: u16) -> Option<Self> {
        let arguments = [
            format!("-storageDataPath={}", place.name("victoria")),
            format!("-httpListenAddr=127.0.0.1:{port}"),
            "-search.latencyOffset=0s".to_owned(),
            "-retentionPeriod=12".to_owned(),
        ];
        Self::start("victoria-metrics", &arguments, port)
    }

    fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// What a query says, by the labels of each series.
    fn query(&self, query: &str) -> Vec<(BTreeMap<String, String>, Value)> {
        let query: String = url::form_urlencoded::byte_serialize(query.as_bytes()).collect();
        let answer = ask(([127, 0, 0, 1], self.port).into(), &format!("/api/v1/query?query={query}"));
        let answer: Value = serde_json::from_str(&answer.unwrap()).unwrap();
        let series = answer["data"]["result"].as_array().unwrap().iter();
        series
            .map(|one| {
                let labels = one["metric"].as_object().unwrap().iter();
                let labels = labels.map(|(label, value)| (label.clone(), value.as_str().unwrap().to_owned())).collect();
                let value = if one["value"].is_null() { &one["values"] } else { &one["value"] };
                (labels, value.clone())
            })
            .collect()
    }

    /// The one number that a query says.
    fn number(&self, query: &str) -> f64 {
        let answer = self.query(query);
        let [(_, value)] = answer.as_slice() else { panic!("{query}: {answer:#?}") };
        value[1].as_str().unwrap().parse().unwrap()
    }

    /// Every sample of a series of the last hour, in the order of time.
    fn samples(&self, series: &str) -> Vec<(f64, f64)> {
        let answer = self.query(&format!("{series}[1h]"));
        let [(_, samples)] = answer.as_slice() else { panic!("{series}: {answer:#?}") };
        let samples = samples.as_array().unwrap().iter();
        samples.map(|sample| (sample[0].as_f64().unwrap(), sample[1].as_str().unwrap().parse().unwrap())).collect()
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        // SIGKILL, as a machine's memory killer would.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// So many seconds of at most 500 rows each.
fn paced(place: &Place, seconds: u64) -> Value {
    let load = json!({"executor": "constant-vus", "vus": 5, "duration": format!("{seconds}s"), "think_time": "10ms"});
    Database::sqlite(place, "pushed").scenario(json!({"pipeline": {"flush_size": 50}}), load)
}

/// What a receiver must have of a run of `rows` rows that passed.
fn assert_run(receiver: &Receiver, rows: f64) {
    let last = |series: &str| receiver.samples(series).last().unwrap().1;
    let processed = receiver.samples("batchsql_records_processed_total");
    assert_eq!(processed.first().unwrap().1, 0.0, "rate() sees only what grew from a first sample: {processed:?}");
    assert_eq!(processed.last().unwrap().1, rows, "{processed:?}");
    assert!(processed.windows(2).all(|two| two[0].0 < two[1].0 && two[0].1 <= two[1].1), "{processed:?}");
    assert!(receiver.number("increase(batchsql_records_processed_total[5m])") >= rows * 0.99);
    assert!(receiver.number("rate(batchsql_batch_execution_duration_ms_count[5m])") > 0.0);
    assert_eq!(last("batchsql_data_integrity_rate"), 1.0);
    assert_eq!(last("batchsql_tests_run_total{result=\"pass\"}"), 1.0);
    assert_eq!(last("batchsql_response_time_seconds_bucket{le=\"+Inf\"}"), rows);
    assert_eq!((last("batchsql_run_active"), last("batchsql_current_rps")), (0.0, 0.0));
    let labels = &receiver.query("batchsql_run_active")[0].0;
    assert_eq!((labels["job"].as_str(), labels["instance"].as_str()), ("batchsql", "here"));
}

fn three_seconds_are_seen(receiver: fn(&Place, u16) -> Option<Receiver>) {
    let place = Place::new();
    let Some(receiver) = receiver(&place, free_port()) else { return };
    let ended = place.run(&paced(&place, 3), &["--remote-write", &receiver.url(), "--instance", "here"]);
    let rows = ended.json(0)["outcomes"]["acknowledged"].as_f64().unwrap();
    assert!(rows > 100.0, "{rows}");
    assert!(!ended.stderr.contains("remote write"), "{}", ended.stderr);
    // What was taken may be shown a moment later.
    until("the last sample", || (!receiver.query("batchsql_data_integrity_rate").is_empty()).then_some(()));
    assert_run(&receiver, rows);
    assert!(receiver.samples("batchsql_run_active").iter().any(|(_, active)| *active == 1.0), "the load was seen as well");
}

#[test]
fn a_run_of_three_seconds_is_in_prometheus() {
    three_seconds_are_seen(Receiver::prometheus);
}

#[test]
fn a_run_of_three_seconds_is_in_victoria_metrics() {
    three_seconds_are_seen(Receiver::victoria_metrics);
}

/// Killed between two pushes, so that what it had acknowledged and not written is missed too; away long enough that a push fails.
#[test]
fn a_receiver_that_is_killed_in_mid_run_misses_nothing_of_it() {
    let place = Place::new();
    let port = free_port();
    let Some(receiver) = Receiver::victoria_metrics(&place, port) else { return };
    let url = receiver.url();
    let mut running = place.start(&paced(&place, 12), &["--remote-write", &url, "--instance", "here"]);
    let pushed = || receiver.query("batchsql_records_processed_total").first().map(|(_, value)| value[1].clone());
    running.until("a push of the load", |_| pushed().filter(|rows| rows != "0"));
    let before = receiver.samples("batchsql_records_processed_total");
    drop(receiver);
    std::thread::sleep(Duration::from_secs(4)); // the outage
    let receiver = Receiver::victoria_metrics(&place, port).unwrap();
    let ended = running.end();
    let rows = ended.json(0)["outcomes"]["acknowledged"].as_f64().unwrap();
    until("the last sample", || (!receiver.query("batchsql_data_integrity_rate").is_empty()).then_some(()));
    let processed = receiver.samples("batchsql_records_processed_total");
    for sample in before {
        assert!(processed.contains(&sample), "{sample:?} was there before: {processed:?}");
    }
    let widest = processed.windows(2).map(|two| two[1].0 - two[0].0).fold(0.0, f64::max);
    assert!(widest < 3.5, "nothing was pushed for {widest} s: {processed:?}");
    assert_eq!((processed.first().unwrap().1, processed.last().unwrap().1), (0.0, rows));
    assert_eq!(receiver.samples("batchsql_data_integrity_rate").last().unwrap().1, 1.0);
}

#[test]
fn without_a_receiver_a_run_passes_and_one_line_says_so() {
    let place = Place::new();
    let url = format!("http://someone:hunter2@127.0.0.1:{}", free_port());
    let began = Instant::now();
    let ended = place.run(&Database::sqlite(&place, "rows").rows(1000), &["--remote-write", &url]);
    assert_eq!(ended.json(0)["outcomes"]["acknowledged"], 1000);
    let said: Vec<_> = ended.stderr.lines().filter(|line| line.contains("remote write")).collect();
    assert!(matches!(said[..], [line] if line.contains("were not delivered") && line.contains("refused")), "{}", ended.stderr);
    assert!(!ended.stderr.contains("hunter2"), "{}", ended.stderr);
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
}

#[test]
fn a_receiver_that_takes_no_writes_is_told_of_once_in_its_own_words() {
    let place = Place::new();
    let port = free_port();
    let arguments = [
        format!("--config.file={}", place.write("prometheus.yml", "{}")),
        format!("--storage.tsdb.path={}", place.name("prometheus")),
        format!("--web.listen-address=127.0.0.1:{port}"),
    ];
    let Some(receiver) = Receiver::start("prometheus", &arguments, port) else { return };
    until("a Prometheus that is ready", || ask(([127, 0, 0, 1], port).into(), "/-/ready").ok());
    let ended = place.run(&Database::sqlite(&place, "rows").rows(1000), &["--remote-write", &receiver.url()]);
    let _: Value = ended.json(0);
    let said: Vec<_> = ended.stderr.lines().filter(|line| line.contains("remote write to")).collect();
    assert!(matches!(said[..], [line] if line.contains("404") && line.contains("receiver needs to be enabled")), "{}", ended.stderr);
}

#[test]
fn what_is_no_address_is_refused_before_anything_is_begun() {
    let place = Place::new();
    let scenario = Database::sqlite(&place, "rows").rows(100);
    place.run(&scenario, &["--remote-write", "ftp://bob:hunter2@127.0.0.1"]).refused(&[
        "--remote-write",
        "ftp://bob:***@",
        "http://127.0.0.1:9090",
    ]);
    place.run(&scenario, &["--otlp", "127.0.0.1:4318"]).refused(&["--otlp", "127.0.0.1:4318", "http://127.0.0.1:4318"]);
    place.run(&scenario, &["--otlp-sample", "2"]).refused(&["--otlp-sample", "between 0 and 1"]);
    assert!(!place.path("reports").exists() && !place.path("test.db").exists(), "nothing was begun");
}

/// The collector of a Python package, if it can be had: `BATCHSQL_TEST_ROTEL` is its program.
fn rotel() -> Option<String> {
    let program = std::env::var("BATCHSQL_TEST_ROTEL").ok().filter(|program| Path::new(program).exists());
    if program.is_none() {
        println!("left out: BATCHSQL_TEST_ROTEL names no collector (pip install rotel)");
    }
    program
}

#[test]
fn a_collector_takes_metrics_and_traces() {
    let Some(program) = rotel() else { return };
    let place = Place::new();
    let (port, grpc) = (free_port(), free_port());
    let log = std::fs::File::create(place.path("rotel.log")).unwrap();
    let mut command = Command::new(program);
    command.args([
        "start",
        "--exporter",
        "blackhole",
        "--debug-log",
        "traces",
        "--debug-log",
        "metrics",
        "--debug-log-verbosity",
        "detailed",
    ]);
    command.args(["--otlp-http-endpoint", &format!("127.0.0.1:{port}"), "--otlp-grpc-endpoint", &format!("127.0.0.1:{grpc}")]);
    let child = command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap();
    let receiver = Receiver { child, port };
    until("a collector that listens", || std::net::TcpStream::connect(("127.0.0.1", port)).ok());
    let ended = place.run(&Database::sqlite(&place, "rows").rows(1000), &["--otlp", &receiver.url(), "--otlp-sample", "100%"]);
    assert_eq!(ended.json(0)["outcomes"]["acknowledged"], 1000);
    assert!(!ended.stderr.contains("OTLP"), "{}", ended.stderr);
    let seen = || std::fs::read_to_string(place.path("rotel.log")).unwrap();
    for word in ["batchsql_records_processed_total", "batchsql_batch_execution_duration_ms", "batch insert", "verify", "acknowledged"] {
        until(word, || seen().contains(word).then_some(()));
    }
}
