//! Faults that a scenario asks for, on real servers: what they do to the load, what is left of it, and that they are healed.

mod clock;
mod database;
mod refused;
mod server;
mod upstream;

use std::time::Duration;

use serde_json::{Value, json};

use crate::database::{Database, Kind};
use crate::servers::Server;

/// A table on a server of the test's own.
pub(crate) fn database(server: &Server, table: &str) -> Database {
    let kind = if server.url.starts_with("postgres") { Kind::Postgres } else { Kind::Mysql };
    Database { kind, url: server.url.clone(), table: table.to_owned() }
}

/// So many rows a second for so long, with these faults.
pub(crate) fn scenario(db: &Database, rate: u32, duration: &str, faults: Value) -> Value {
    let pipeline = json!({
        "flush_size": 20, "flush_interval": "20ms",
        "retry": {"attempts": 60, "base": "20ms", "factor": 1.5, "max": "200ms"}
    });
    let load = json!({"executor": "constant-arrival-rate", "rate": rate, "duration": duration, "lag_limit": "10s"});
    let mut scenario = db.scenario(json!({"pipeline": pipeline}), load);
    scenario["faults"] = faults;
    if db.kind != Kind::Sqlite {
        scenario["target"]["pool"] = json!({"statement_timeout": "10s"});
    }
    // What is unknown stays unknown until it is looked at.
    scenario["gates"] = json!(["error_rate < 20%"]);
    scenario
}

/// The one fault of a report, begun and healed without a problem.
pub(crate) fn only_fault(report: &Value) -> &Value {
    let faults = report["faults"].as_array().unwrap();
    assert_eq!(faults.len(), 1, "{faults:?}");
    assert!(faults[0].get("problem").is_none_or(Value::is_null), "{}", faults[0]);
    assert!(number(&faults[0]["begun_seconds"]) <= number(&faults[0]["healed_seconds"]), "{}", faults[0]);
    &faults[0]
}

pub(crate) fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("{value} is no number"))
}

pub(crate) fn count(report: &Value, outcome: &str) -> u64 {
    report["outcomes"][outcome].as_u64().unwrap()
}

/// The first acknowledgement came soon after healing.
pub(crate) fn assert_recovered_within(fault: &Value, limit: Duration) {
    let recovery = number(&fault["recovery_seconds"]);
    assert!((0.0..limit.as_secs_f64()).contains(&recovery), "{fault}");
}
