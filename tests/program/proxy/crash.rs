//! A gateway that is killed loses what it may lose and no more, and is told when it is more; a harness that is killed, stopped or
//! whose ledger is torn never accuses a gateway that did right.

use std::fs;
use std::path::Path;

use batchsql::ledger::requests::RequestLedger;
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use super::gateway::Gateway;
use crate::place::{Ended, Place, Running, assert_anomalies, get, keys};

/// Rows that wait for each other; only age writes them.
fn by_age(interval: &str) -> Value {
    json!({"size": 10_000, "flush_interval": interval})
}

fn shared(vus: u32) -> Value {
    json!({"executor": "shared-iterations", "vus": vus})
}

/// Kills the gateway between drain and verification.
fn run_and_kill(place: &Place, gateway: &Gateway, scenario: &Value) -> Ended {
    place.run(scenario, &["--before-verify", &format!("kill -9 {}", gateway.proxy.id())])
}

/// Judges the latest run again, under another bound on what may be lost.
fn verify_with(place: &Place, within: Option<&str>) -> Ended {
    let run = place.run_folders().pop().unwrap();
    let kept = run.join("scenario.json");
    let mut scenario: Value = serde_json::from_slice(&fs::read(&kept).unwrap()).unwrap();
    scenario["verify"]["allow_lost"] = within.map_or(Value::Null, |within| json!({"within": within}));
    if within.is_none() {
        scenario["verify"].as_object_mut().unwrap().remove("allow_lost");
    }
    fs::write(kept, scenario.to_string()).unwrap();
    place.verify(&run, &[])
}

#[test]
fn rows_that_a_killed_gateway_had_not_written_are_lost_one_by_one() {
    let place = Place::new();
    // 250 rows in batches of 100: 50 are never written, whatever the clock says.
    let gateway = Gateway::start(&place, &json!({"size": 100, "flush_interval": "1h"}), &[]);
    let mut scenario = gateway.scenario(Some(250), shared(4), json!({}));
    scenario["reconcile"]["wait"] = json!("200ms");
    let report = run_and_kill(&place, &gateway, &scenario).json(4);
    assert_eq!((&report["outcomes"]["acknowledged"], &report["throughput"]["valid"]), (&json!(250), &json!(false)));
    let logged = gateway.logged();
    let missing: Vec<i64> = (0..250).filter(|index| !logged.contains(index)).collect();
    assert!(missing.len() >= 50 && logged.len().is_multiple_of(100), "{} rows were written", logged.len());
    let integrity = &report["integrity"];
    assert_anomalies(integrity, &[("lost", missing.len() as u64)]);
    assert_eq!(keys(integrity, "lost"), missing[..20], "the first examples");
    let example = &integrity["examples"][0];
    assert_eq!((&example["column"], &example["expected"], &example["found"]), (&json!("log"), &json!("one row"), &json!("none")));
    assert_eq!((&integrity["allowed_lost"], &integrity["lost_window_seconds"]), (&Value::Null, &Value::Null));
}

#[test]
fn a_bound_on_what_a_crash_may_lose_is_the_gate() {
    let place = Place::new();
    let gateway = Gateway::start(&place, &by_age("2s"), &[]);
    // The third batch is open from about 4 s to 6 s; the kill comes at 4.5 s.
    let load = json!({"executor": "constant-arrival-rate", "rate": 100, "duration": "4500ms", "lag_limit": "5s"});
    let mut scenario = gateway.scenario(None, load, json!({"allow_lost": {"within": "2s"}}));
    scenario["reconcile"]["wait"] = json!("200ms");
    let report = run_and_kill(&place, &gateway, &scenario).json(0);
    let lost = report["outcomes"]["acknowledged"].as_u64().unwrap() - gateway.logged().len() as u64;
    assert!(lost > 0, "the gateway had written everything: the kill came too late to tell anything");
    assert_anomalies(&report["integrity"], &[]);
    assert_eq!(report["integrity"]["allowed_lost"], lost);
    let window = report["integrity"]["lost_window_seconds"].as_f64().unwrap();
    // At 100 a second, `lost` rows in sequence.
    assert!(window <= 2.0 && (window - (lost - 1) as f64 / 100.0).abs() < 0.5, "{lost} rows in {window} s");
    // Of the same run: a bound that is too small, and none.
    let integrity = verify_with(&place, Some("50ms")).json(4);
    let (forgiven, accused) = (integrity["allowed_lost"].as_u64().unwrap(), integrity["lost"].as_u64().unwrap());
    assert!(accused > 0 && forgiven + accused == lost, "{forgiven} + {accused} of {lost}");
    assert_eq!(integrity["lost_window_seconds"], window);
    assert_anomalies(&verify_with(&place, None).json(4), &[("lost", lost)]);
}

#[test]
fn without_batches_a_killed_gateway_loses_nothing() {
    let place = Place::new();
    let gateway = Gateway::start(&place, &by_age("1h"), &[("LOG_BATCH_ENABLED", "false")]);
    let report = run_and_kill(&place, &gateway, &gateway.scenario(Some(200), shared(4), json!({}))).json(0);
    assert_anomalies(&report["integrity"], &[]);
    assert_eq!(gateway.logged().len(), 200);
}

#[test]
fn without_batches_even_a_kill_under_load_loses_nothing() {
    let place = Place::new();
    let gateway = Gateway::start(&place, &by_age("1h"), &[("LOG_BATCH_ENABLED", "false")]);
    let mut scenario = gateway.scenario(Some(1500), shared(8), json!({}));
    scenario["reconcile"]["wait"] = json!("200ms");
    let mut running = place.start(&scenario, &[]);
    running.until_ledger_has(3000);
    gateway.proxy.signal(Signal::SIGKILL);
    // The target was gone, so the run says nothing about it; but nothing that was acknowledged is lost.
    let report = running.end().json(3);
    let outcomes = &report["outcomes"];
    assert!(outcomes["acknowledged"].as_u64().unwrap() > 0 && outcomes["rejected"].as_u64().unwrap() > 0, "{outcomes}");
    assert_anomalies(&report["integrity"], &[]);
}

/// More requests than any test waits for.
fn endless() -> Value {
    json!({"executor": "constant-vus", "vus": 4, "duration": "10m"})
}

/// Verifies and asserts that the findings add up with the ledger; returns them.
fn verified(place: &Place, run: &Path) -> Value {
    let integrity = place.verify(run, &[]).json(0);
    assert_anomalies(&integrity, &[]);
    let acknowledged = RequestLedger::read(&run.join("ledger")).unwrap().totals().get(&0).copied().unwrap_or(0);
    let sources = integrity["sources"].as_array().unwrap();
    let seen: Vec<_> = sources.iter().map(|source| (source["name"].as_str().unwrap(), source["right"].as_u64().unwrap())).collect();
    assert_eq!(seen, [("replies", acknowledged), ("upstream records", acknowledged), ("log rows", acknowledged)]);
    integrity
}

/// Waits until the gateway has logged everything that reached it.
fn quiet(gateway: &mut Gateway) {
    gateway.proxy.until("no pending row", |_| get(gateway.address, "/health").contains("\"pending\":0,").then_some(()));
}

#[test]
fn a_killed_harness_accuses_nobody() {
    let place = Place::new();
    let mut gateway = Gateway::start(&place, &by_age("300ms"), &[]);
    for bytes in [400, 4000, 20_000] {
        let mut running = place.start(&gateway.scenario(None, endless(), json!({})), &[]);
        let run = running.until_ledger_has(bytes);
        running.signal(Signal::SIGKILL);
        assert_eq!(running.end().code(), None);
        quiet(&mut gateway);
        let first = verified(&place, &run);
        let ledger = RequestLedger::read(&run.join("ledger")).unwrap();
        assert!(!ledger.closed && ledger.answers.len() < ledger.end as usize, "{bytes}: the last requests are unknown");
        assert!(!run.join("report.json").exists());
        // A row of a request whose answer nobody wrote down is legal, one that is gone is not.
        assert!(first["checked"].as_u64().unwrap() >= first["must_be_there"].as_u64().unwrap());
        let tag = gateway_id(&run, 3);
        gateway.execute(&format!("DELETE FROM request_logs WHERE request_id = '{tag}'"));
        // It will not come back: no need to wait long for it.
        let kept = run.join("scenario.json");
        fs::write(&kept, fs::read_to_string(&kept).unwrap().replace("\"20s\"", "\"200ms\"")).unwrap();
        let integrity = place.verify(&run, &[]).json(4);
        assert_anomalies(&integrity, &[("lost", 1)]);
        assert_eq!(keys(&integrity, "lost"), [3]);
    }
}

/// The id that operation `index` of a run went under.
fn gateway_id(run: &Path, index: u64) -> String {
    let scenario: Value = serde_json::from_slice(&fs::read(run.join("scenario.json")).unwrap()).unwrap();
    let scenario: batchsql::scenario::Scenario = serde_json::from_value(scenario).unwrap();
    let batchsql::scenario::Workload::ProxyRequest(proxy) = &scenario.workload else { panic!("requests") };
    let run_id = RequestLedger::read(&run.join("ledger")).unwrap().header.run_id;
    let generator = batchsql::workload::proxy_request::Generator::new(scenario.seed, &run_id, proxy);
    let operation = generator.operation(index);
    generator.id(&operation)
}

/// Stops a run in the middle with one Ctrl-C; its report, and its folder.
fn interrupted(place: &Place, mut running: Running) -> Value {
    let run = running.until_ledger_has(6000);
    running.signal(Signal::SIGINT);
    let report = running.end().json(130);
    assert_eq!((&report["interrupted"], &report["verdict"]), (&json!(true), &json!("inconclusive")));
    assert_anomalies(&report["integrity"], &[]);
    let outcomes = &report["outcomes"];
    assert!(outcomes["acknowledged"].as_u64().unwrap() > 0);
    assert_eq!((&outcomes["rejected"], &outcomes["unknown"]), (&json!(0), &json!(0)), "what was sent got its answer: {outcomes}");
    assert_eq!(report["throughput"]["valid"], true);
    let saved = fs::read_to_string(run.join("report.json")).unwrap();
    assert_eq!(serde_json::from_str::<Value>(&saved).unwrap(), report);
    assert_eq!(verified(place, &run)["must_be_there"], report["integrity"]["must_be_there"]);
    report
}

#[test]
fn one_signal_ends_the_load_and_what_was_sent_is_judged() {
    let place = Place::new();
    let gateway = Gateway::start(&place, &by_age("300ms"), &[]);
    let report = interrupted(&place, place.start(&gateway.scenario(None, endless(), json!({})), &[]));
    assert_eq!(report["outcomes"]["offered"], report["outcomes"]["acknowledged"]);
}

#[test]
fn one_signal_ends_an_arrival_rate_too() {
    let place = Place::new();
    let gateway = Gateway::start(&place, &by_age("300ms"), &[]);
    // So many that the lanes of the load have not begun equally many when the signal comes.
    for seed in ["1", "2"] {
        let load = json!({"executor": "constant-arrival-rate", "rate": 5000, "duration": "10m", "lag_limit": "1h"});
        interrupted(&place, place.start(&gateway.scenario(None, load, json!({})), &["--seed", seed]));
    }
}

#[test]
fn a_torn_tail_of_the_ledger_accuses_nobody() {
    let place = Place::new();
    let gateway = Gateway::start(&place, &by_age("300ms"), &[]);
    place.run(&gateway.scenario(Some(300), shared(4), json!({})), &[]).json(0);
    let run = place.run_folders().remove(0);
    let whole = fs::read(run.join("ledger")).unwrap();
    let mut all = Vec::new();
    for cut in [1, 5, 20, 100, 200, 500] {
        fs::write(run.join("ledger"), &whole[..whole.len() - cut]).unwrap();
        let must = verified(&place, &run)["must_be_there"].as_u64().unwrap();
        assert!(must > 0 && must <= 900, "{must}");
        all.push(must);
    }
    assert!(all.is_sorted_by(|a, b| a >= b) && all[5] < all[0], "the more is cut, the less is known: {all:?}");
    for at in (0..whole.len()).step_by(whole.len() / 8) {
        let mut bytes = whole.clone();
        bytes[at] ^= 0x10;
        fs::write(run.join("ledger"), bytes).unwrap();
        place.verify(&run, &[]).refused(&["is damaged at byte", "run the scenario again"]);
    }
}
