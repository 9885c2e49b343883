//! The scenarios of requests in `scenarios/`, made small: each runs and ends with the code it promises.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::{Value, json};

use crate::place::{Place, assert_anomalies};

const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/scenarios");

/// `batchsql run --json` of a scenario with these values over its own; it must pass with everything there.
fn run(name: &str, set: &[&str]) -> Value {
    let place = Place::new();
    let file = format!("{FOLDER}/{name}.yaml");
    let mut command = place.command(&["run", "--json", "--no-metrics", "--report-dir", "reports", &file]);
    for set in set {
        command.args(["--set", set]);
    }
    let report = place.spawn(command).end().json(0);
    assert_eq!((&report["scenario"]["name"], &report["verdict"]), (&json!(name), &json!("pass")), "{}", report["reasons"]);
    assert_anomalies(&report["integrity"], &[]);
    let sources: Vec<_> = report["integrity"]["sources"].as_array().unwrap().iter().map(|source| &source["name"]).collect();
    assert_eq!(sources, ["replies", "upstream records", "log rows"]);
    report
}

const FEW: &str = "workload.proxy_request.requests=200";

/// Runs it with 200 requests; each must be answered.
fn run_few(name: &str, set: &[&str]) -> Value {
    let report = run(name, &[&[FEW], set].concat());
    let outcomes = &report["outcomes"];
    assert_eq!((&outcomes["acknowledged"], &outcomes["offered"]), (&json!(200), &json!(200)), "{outcomes}");
    report
}

/// The log in short batches: nobody waits five seconds for the last rows.
const SOON: &str = "target.http.start.gateway.log.batch.flush_interval=200ms";

#[test]
fn quickstart() {
    let report = run_few("proxy_quickstart", &[SOON]);
    let streams = report["http"]["streams"].as_u64().unwrap();
    assert!((5..=50).contains(&streams), "a tenth of the requests are streams, not {streams}");
}

#[test]
fn before_and_after() {
    for (name, batch) in [("proxy_before", "target.http.start.gateway.log.batch.size=50"), ("proxy_after", SOON)] {
        let report = run_few(name, &[batch]);
        // Every request had its twin past the gateway.
        assert_eq!(report["http"]["overhead"]["count"], 200, "{name}: {}", report["http"]["overhead"]);
        // The upstream's own latency is in every reply.
        assert!(report["latency"]["service"]["p50_ms"].as_f64().unwrap() >= 10.0, "{}", report["latency"]["service"]);
    }
}

#[test]
fn before_and_after_with_streams() {
    for (name, batch) in [("proxy_before_streams", "target.http.start.gateway.log.batch.size=50"), ("proxy_after_streams", SOON)] {
        let report = run_few(name, &[batch, "target.http.start.upstream.token_interval=2ms"]);
        assert_eq!((&report["http"]["streams"], &report["http"]["completion_tokens"]), (&json!(200), &json!(200 * 32)), "{name}");
    }
}

#[test]
fn streams_lose_no_event() {
    // The gates on the 99th percentile need 500 of them.
    let set = ["workload.proxy_request.requests=600", "load.vus=200", "target.http.start.upstream.token_interval=100ms"];
    let report = run("proxy_stream", &[&set[..], &[SOON, "workload.proxy_request.mix.0.chat.max_tokens=16"]].concat());
    assert_eq!((&report["http"]["streams"], &report["http"]["completion_tokens"]), (&json!(600), &json!(600 * 16)));
    // Between 16 tokens lie 15 gaps, each seen.
    assert_eq!(report["http"]["inter_token"]["count"], 600 * 15);
    assert_eq!(report["integrity"]["sources"][0], json!({"name": "replies", "must_be_there": 600, "right": 600}));
}

#[test]
fn overload_drops_and_says_so() {
    let report = run("proxy_overload", &["load.duration=4s", SOON]);
    let outcomes = |name: &str| report["outcomes"][name].as_u64().unwrap();
    assert!(outcomes("dropped") > 0);
    assert_eq!(outcomes("offered"), outcomes("dropped") + outcomes("attempted"));
}

#[test]
fn faults_are_told_from_whole_replies() {
    let set = ["workload.proxy_request.requests=1000", "target.http.timeouts.first_token=300ms", "target.http.timeouts.between_tokens=300ms"];
    let report = run("proxy_faults", &[&set[..], &[SOON, "target.http.start.upstream.stalls.for=2s"]].concat());
    let (outcomes, errors) = (&report["outcomes"], report["errors"].as_object().unwrap());
    assert!(outcomes["rejected"].as_u64().unwrap() > 0 && outcomes["unknown"].as_u64().unwrap() > 0, "{outcomes}");
    assert!(errors.len() >= 2, "{errors:?}");
}

/// Those that start their own servers are the ones above; the others need one that runs already.
#[test]
fn no_scenario_is_forgotten() {
    let tried = [
        "proxy_quickstart",
        "proxy_before",
        "proxy_after",
        "proxy_before_streams",
        "proxy_after_streams",
        "proxy_stream",
        "proxy_overload",
        "proxy_faults",
        "proxy_crash",
    ];
    let there = std::fs::read_dir(Path::new(FOLDER)).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let there: BTreeSet<String> = there.filter_map(|name| Some(name.strip_suffix(".yaml")?.to_owned())).collect();
    let there: BTreeSet<&str> = there.iter().map(String::as_str).filter(|name| name.starts_with("proxy_")).collect();
    assert_eq!(there, BTreeSet::from(tried));
}
