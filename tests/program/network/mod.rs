//! Faults of the network under real load: each kind on each protocol ends with exactly the outcomes it must have.

mod cuts;
mod requests;
mod shipped;
mod weather;

use serde_json::{Value, json};

use crate::database::Database;
use crate::place::{Place, assert_anomalies};

/// 800 rows in 0.8 s, in batches of 100, and `fault` in force from 0.1 s on.
fn scenario(db: &Database, mut insert: Value, mut fault: Value) -> Value {
    let pipeline = &mut insert["pipeline"];
    if pipeline.is_null() {
        *pipeline = json!({});
    }
    pipeline["flush_size"] = json!(100);
    pipeline["flush_interval"] = json!("10s");
    insert["rows"] = json!(800);
    fault["at"] = json!("100ms");
    if fault["for"].is_null() {
        fault["for"] = json!("600ms");
    }
    let load = json!({"executor": "constant-arrival-rate", "rate": 1000, "duration": "800ms", "lag_limit": "60s"});
    let mut scenario = db.scenario(insert, load);
    scenario["target"]["pool"] = json!({"statement_timeout": "2s"});
    scenario["faults"] = json!([fault]);
    scenario["gates"] = json!(["error_rate <= 100%", "offered_rate > 0"]);
    scenario
}

/// One attempt and no more.
fn once() -> Value {
    json!({"retry": {"attempts": 1}})
}

/// The report of a run that ends with `code`, in which there is nothing wrong but what `found` says, and its only fault.
#[track_caller]
fn ended(place: &Place, scenario: &Value, code: i32, found: &[(&str, u64)]) -> (Value, Value) {
    let report = place.run(scenario, &[]).json(code);
    assert_anomalies(&report["integrity"], found);
    let fault = report["faults"][0].clone();
    assert_eq!(fault["problem"], Value::Null);
    assert!(fault["begun_seconds"].as_f64().unwrap() >= 0.1 && fault["healed_seconds"].as_f64() > fault["begun_seconds"].as_f64());
    (report, fault)
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or_else(|| panic!("{value} is no count"))
}

/// Acknowledged, rejected and unknown.
fn outcomes(report: &Value) -> [u64; 3] {
    ["acknowledged", "rejected", "unknown"].map(|outcome| number(&report["outcomes"][outcome]))
}

/// Of a fault's harm: lost, unknown and stored, unknown and not, duplicated.
fn harm(fault: &Value) -> [u64; 4] {
    ["lost", "unknown_stored", "unknown_absent", "duplicated"].map(|what| number(&fault["harm"][what]))
}

/// The servers that there are.
fn servers(table: &str) -> Vec<Database> {
    [Database::postgres(table), Database::mariadb(table), Database::mysql(table)].into_iter().flatten().collect()
}
