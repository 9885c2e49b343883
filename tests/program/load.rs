//! Load is offered as asked or said not to be, and response time counts from when an operation was due.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::database::{Database, silent_start};
use crate::place::{Place, get};

/// Gates that keep a busy machine's lateness from deciding these tests.
pub(crate) const LATE_IS_FINE: [&str; 2] = ["lag.max < 60s", "offered_rate > 0"];

pub(crate) fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or_else(|| panic!("{value} is no count"))
}

pub(crate) fn seconds(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("{value} is no number"))
}

/// Asserts that every operation is accounted for.
pub(crate) fn adds_up(report: &Value) {
    let count = |name: &str| number(&report["outcomes"][name]);
    assert_eq!(count("offered"), count("attempted") + count("dropped"));
    assert_eq!(count("attempted"), count("acknowledged") + count("rejected") + count("unknown"));
    let in_phases: u64 = report["phases"].as_array().unwrap().iter().map(|phase| number(&phase["outcomes"]["offered"])).sum();
    assert_eq!(count("offered"), in_phases);
    let in_timeline: u64 = report["timeline"].as_array().unwrap().iter().map(|second| number(&second["acknowledged"])).sum();
    assert_eq!(count("acknowledged"), in_timeline);
}

/// Runs this load with small batches; the report of a run that passed.
fn passed(insert: Value, load: Value) -> Value {
    let place = Place::new();
    let mut insert = insert;
    insert["pipeline"] = json!({"flush_size": 50, "flush_interval": "10ms"});
    let mut scenario = Database::sqlite(&place, "rows").scenario(insert, load);
    scenario["gates"] = json!(if scenario["load"]["executor"].as_str().unwrap().contains("arrival") { &LATE_IS_FINE[..] } else { &[] });
    let report = place.run(&scenario, &[]).json(0);
    adds_up(&report);
    report
}

#[test]
fn shared_iterations_offer_exactly_the_rows() {
    let report = passed(json!({"rows": 1234}), json!({"executor": "shared-iterations", "vus": 3}));
    assert_eq!((&report["outcomes"]["offered"], &report["integrity"]["checked"]), (&json!(1234), &json!(1234)));
}

#[test]
fn constant_vus_last_their_time_or_until_the_rows_are_through() {
    let load = json!({"executor": "constant-vus", "vus": 2, "duration": "1s", "think_time": "2ms"});
    let report = passed(json!({}), load.clone());
    let took = seconds(&report["phases"][0]["duration_seconds"]);
    assert!((1.0..3.0).contains(&took), "{took}");
    // Two workers that pause for two milliseconds after each row.
    assert!((1..=1000).contains(&number(&report["outcomes"]["offered"])), "{}", report["outcomes"]);
    let capped = passed(json!({"rows": 30}), load);
    assert_eq!(capped["outcomes"]["offered"], 30);
    assert!(seconds(&capped["phases"][0]["duration_seconds"]) < 1.0);
}

#[test]
fn ramping_vus_follow_their_stages() {
    let stages = json!([{"duration": "500ms", "target": 2}, {"duration": "500ms", "target": 0}]);
    let report = passed(json!({}), json!({"executor": "ramping-vus", "stages": stages, "think_time": "5ms"}));
    let took = seconds(&report["phases"][0]["duration_seconds"]);
    assert!((0.5..3.0).contains(&took), "{took}");
    assert!((1..=400).contains(&number(&report["outcomes"]["offered"])), "{}", report["outcomes"]);
}

#[test]
fn a_constant_arrival_rate_offers_rate_times_duration_warm_up_apart() {
    let report = passed(json!({}), json!({"executor": "constant-arrival-rate", "rate": 400, "duration": "1s", "warmup": "500ms"}));
    let offered = |phase: usize| (report["phases"][phase]["name"].clone(), report["phases"][phase]["outcomes"]["offered"].clone());
    assert_eq!(offered(0), (json!("warmup"), json!(200)));
    assert_eq!(offered(1), (json!("main"), json!(400)));
    assert_eq!((&report["outcomes"]["offered"], &report["integrity"]["checked"]), (&json!(600), &json!(600)));
    assert_eq!(report["latency"]["response"]["count"], 400, "the warm-up is verified, not measured");
}

#[test]
fn a_ramping_arrival_rate_offers_the_area_under_its_stages() {
    let stages = json!([{"duration": "500ms", "target": 800}, {"duration": "500ms", "target": 800}]);
    let report = passed(json!({}), json!({"executor": "ramping-arrival-rate", "stages": stages}));
    let offered = number(&report["outcomes"]["offered"]);
    assert!((599..=601).contains(&offered), "200 + 400: {offered}");
}

#[test]
fn poisson_arrivals_come_from_the_seed() {
    let load = json!({"executor": "constant-arrival-rate", "rate": 500, "duration": "1s", "arrivals": "poisson"});
    let [first, second] = [passed(json!({}), load.clone()), passed(json!({}), load)];
    let offered = number(&first["outcomes"]["offered"]);
    assert_eq!(number(&second["outcomes"]["offered"]), offered);
    assert!((400..=600).contains(&offered), "500 in the mean: {offered}");
}

/// Offers 400 rows in a second to a file that another has locked, until operations were dropped; the run's end.
fn saturated(saturation: &str, gates: &[&str]) -> crate::place::Ended {
    let place = Place::new();
    let db = Database::sqlite(&place, "saturated");
    let mut load = silent_start(800);
    load["saturation"] = json!(saturation);
    let mut scenario = db.scenario(json!({"pipeline": {"buffer_size": 20, "flush_size": 20, "flush_interval": "10ms"}}), load);
    scenario["target"]["sqlite"]["pragmas"] = json!({"busy_timeout": 60000});
    scenario["gates"] = json!([&LATE_IS_FINE[..], gates].concat());
    let mut running = place.start(&scenario, &["--metrics-listen", "127.0.0.1:0"]);
    let address = running.metrics_address();
    let mut user = db.await_table(&mut running);
    user.execute("BEGIN IMMEDIATE");
    let series = "batchsql_dropped_total{test_name=\"saturated\"} ";
    running.until("a dropped operation", |_| {
        let metrics = get(address, "/metrics");
        let dropped = metrics.lines().find_map(|line| line.strip_prefix(series)).map(|count| count.parse::<u64>().unwrap());
        dropped.filter(|dropped| *dropped > 0)
    });
    user.execute("COMMIT");
    running.end()
}

#[test]
fn what_cannot_start_is_dropped_and_the_run_inconclusive() {
    let report = saturated("drop", &[]).json(3);
    adds_up(&report);
    assert!((399..=401).contains(&number(&report["outcomes"]["offered"])), "{}", report["outcomes"]);
    let dropped = number(&report["outcomes"]["dropped"]);
    assert!(dropped > 0);
    let reason = format!("dropped == 0: {dropped} of {} operations could not be started", report["outcomes"]["offered"]);
    assert_eq!(report["reasons"], json!([reason]));
    assert_eq!(report["integrity"]["verdict"], "holds");
}

#[test]
fn a_gate_that_names_dropped_decides_about_drops() {
    let report = saturated("drop", &["dropped <= 400"]).json(0);
    assert!(number(&report["outcomes"]["dropped"]) > 0);
    saturated("drop", &["dropped == 0"]).json(1);
}

#[test]
fn saturation_abort_stops_the_load() {
    let report = saturated("abort", &[]).json(3);
    adds_up(&report);
    assert_eq!(report["outcomes"]["dropped"], 1);
    assert!(number(&report["outcomes"]["offered"]) < 399);
    let reason = "the load was not offered as asked: the pipeline's queue is full, and load.saturation is abort";
    assert!(report["reasons"].as_array().unwrap().contains(&json!(reason)), "{}", report["reasons"]);
}

#[test]
fn an_abort_gate_stops_the_load() {
    let place = Place::new();
    let db = Database::sqlite(&place, "aborted");
    let mut scenario =
        db.scenario(json!({"pipeline": {"flush_size": 50}}), json!({"executor": "constant-vus", "duration": "10m", "think_time": "1ms"}));
    scenario["gates"] = json!([{"gate": "rows_per_second > 100000000", "abort": true, "for": "1s"}]);
    let began = Instant::now();
    let report = place.run(&scenario, &[]).json(1);
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
    adds_up(&report);
    let reasons = report["reasons"].to_string();
    assert!(reasons.contains("gate `rows_per_second > 100000000` was missed for") && reasons.contains("stops the load"), "{reasons}");
    assert_eq!((&report["interrupted"], &report["integrity"]["verdict"]), (&json!(false), &json!("holds")));
}

/// The whole point of intended starts: an operation that was due while the target stood still has waited since then, though the
/// batch that it went in was quick.
#[test]
fn a_stall_shows_in_response_time_and_not_in_service_time() {
    const LOAD: f64 = 2000.0;
    const RATE: u64 = 200;
    let place = Place::new();
    let db = Database::sqlite(&place, "stalled");
    let load = json!({"executor": "constant-arrival-rate", "rate": RATE, "duration": "2s"});
    let mut scenario = db.scenario(json!({"pipeline": {"flush_size": 10, "flush_interval": "10ms"}}), load);
    scenario["target"]["sqlite"]["pragmas"] = json!({"busy_timeout": 60000});
    scenario["gates"] = json!(LATE_IS_FINE);
    let mut running = place.start(&scenario, &[]);
    running.folder();
    db.await_rows();
    let mut user = db.user();
    user.execute("BEGIN IMMEDIATE");
    let stalled = Instant::now();
    // This is the stall itself, not a wait for something.
    std::thread::sleep(Duration::from_millis(1500));
    user.execute("COMMIT");
    let stall = stalled.elapsed().as_secs_f64() * 1000.0;
    let report = running.end().json(0);
    adds_up(&report);
    assert_eq!(report["outcomes"]["offered"], 2 * RATE);
    let (response, service) = (&report["latency"]["response"], &report["latency"]["service"]);
    // Waits fall evenly from the stall's length to nothing, over stall / load of all operations.
    let expected = |quantile: f64| stall - (1.0 - quantile) * LOAD;
    for (name, quantile) in [("p50_ms", 0.5), ("p75_ms", 0.75)] {
        let (found, expected) = (seconds(&response[name]), expected(quantile));
        assert!((found - expected).abs() < 250.0, "{name}: {found} ms, {expected} ms by arithmetic: {report:#}");
        assert!(seconds(&service[name]) < 100.0, "{name}: {}", service[name]);
    }
    assert!((seconds(&response["max_ms"]) - stall).abs() < 250.0 && (seconds(&service["max_ms"]) - stall).abs() < 250.0);
    assert!(seconds(&report["latency"]["lag"]["p50_ms"]) < 100.0, "the generator itself was in time");
}
