//! The scenarios of requests in `scenarios/`, made small: each runs and ends with the code it promises.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use super::gateway;
use crate::place::{Place, assert_anomalies};

const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/scenarios");

/// `batchsql run --json` of a scenario with these values over its own.
fn command(place: &Place, name: &str, set: &[&str]) -> Command {
    let mut command = place.command(&["run", "--json", "--no-metrics", "--report-dir", "reports", &format!("{FOLDER}/{name}.yaml")]);
    for set in set {
        command.args(["--set", set]);
    }
    command
}

/// The report of a run that must pass with everything there.
fn passed(place: &Place, name: &str, command: Command) -> Value {
    let report = place.spawn(command).end().json(0);
    assert_eq!((&report["scenario"]["name"], &report["verdict"]), (&json!(name), &json!("pass")), "{}", report["reasons"]);
    assert_anomalies(&report["integrity"], &[]);
    let sources: Vec<_> = report["integrity"]["sources"].as_array().unwrap().iter().map(|source| &source["name"]).collect();
    assert_eq!(sources, ["replies", "upstream records", "log rows"]);
    report
}

fn run(name: &str, set: &[&str]) -> Value {
    let place = Place::new();
    passed(&place, name, command(&place, name, set))
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
    let set =
        ["workload.proxy_request.requests=1000", "target.http.timeouts.first_token=300ms", "target.http.timeouts.between_tokens=300ms"];
    let report = run("proxy_faults", &[&set[..], &[SOON, "target.http.start.upstream.stalls.for=2s"]].concat());
    let (outcomes, errors) = (&report["outcomes"], report["errors"].as_object().unwrap());
    assert!(outcomes["rejected"].as_u64().unwrap() > 0 && outcomes["unknown"].as_u64().unwrap() > 0, "{outcomes}");
    assert!(errors.len() >= 2, "{errors:?}");
}

#[test]
fn a_crash_loses_what_it_may() {
    let place = Place::new();
    let (_upstream, upstream) = gateway::upstream(&place);
    let mut proxy =
        place.command(&["proxy", "--config", concat!(env!("CARGO_MANIFEST_DIR"), "/config/gateway.yaml"), "--listen", "127.0.0.1:0"]);
    let log = place.name("gateway.db");
    proxy.env("UPSTREAM_URL", format!("http://{upstream}")).env("GATEWAY_DB", &log).env("LOG_BATCH_FLUSH_INTERVAL", "2");
    let (proxy, address) = gateway::proxy(&place, proxy);
    // The second batch is open from about 2 s to 4 s; the kill comes at 3.2 s.
    let mut command = command(&place, "proxy_crash", &["load.duration=3200ms", "verify.allow_lost.within=2s", "reconcile.wait=200ms"]);
    command.env("GATEWAY_URL", format!("http://{address}")).env("GATEWAY_DB", &log).env("UPSTREAM_LEDGER", place.name("upstream.jsonl"));
    command.args(["--before-verify", &format!("kill -9 {}", proxy.id())]);
    let report = passed(&place, "proxy_crash", command);
    let lost = report["integrity"]["allowed_lost"].as_u64().unwrap();
    let acknowledged = report["outcomes"]["acknowledged"].as_u64().unwrap();
    assert!(0 < lost && lost < acknowledged, "{lost} of {acknowledged}");
    assert!(report["integrity"]["lost_window_seconds"].as_f64().unwrap() <= 2.0);
}

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
