//! Every server dies by SIGKILL in the middle of runs whose settings are safe: everything that was acknowledged is there, what was
//! unknown is resolved, and the report says how long recovery took.

use serde_json::{Value, json};

use crate::due::{Due, database, report, times, unlike};
use crate::place::Place;
use crate::servers::Server;

/// Two and a half seconds of rows; the server dies at some moment of the middle one, by the seed.
fn scenario(server: &Server, seed: u64) -> Value {
    let db = database(server, "recovery");
    let retry = json!({"attempts": 60, "base": "20ms", "factor": 1.5, "max": "200ms"});
    let load = json!({"executor": "constant-arrival-rate", "rate": 1000, "duration": "2500ms", "lag_limit": "30s"});
    let mut scenario = db.scenario(json!({"pipeline": {"flush_size": 20, "flush_interval": "10ms", "retry": retry}}), load);
    let at = 500 + seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) % 1000;
    scenario["seed"] = json!(seed);
    scenario["target"]["pool"] = json!({"statement_timeout": "5s"});
    scenario["faults"] = json!([{
        "at": format!("{at}ms"), "for": "100ms", "kind": "kill",
        "pid_file": server.pid_file.to_str().unwrap(), "start": server.start,
    }]);
    // What matters here is what is stored.
    scenario["gates"] = json!(["error_rate <= 100%"]);
    scenario
}

/// What is unlike a server that keeps its word.
fn broken(report: &Value) -> Option<String> {
    let fault = &report["faults"][0];
    let number = |value: &Value| value.as_u64().unwrap_or(u64::MAX);
    let resolved = number(&fault["harm"]["unknown_stored"]).wrapping_add(number(&fault["harm"]["unknown_absent"]));
    let healed = fault["problem"].is_null() && fault["recovery_seconds"].as_f64().is_some();
    let kept = fault["harm"]["lost"] == 0 && resolved == number(&report["outcomes"]["unknown"]);
    unlike(report, &[]).or_else(|| (!healed || !kept).then(|| format!("{fault} {}", report["outcomes"])))
}

fn proven(server: Option<Server>, name: &'static str) {
    let Some(server) = server else { return };
    let note = "safe settings: no acknowledged row lost (RPO 0), recovery time reported, unknown outcomes resolved";
    let mut due = Due::new("recovery", "kill -9 of the server", name, note);
    for seed in 1..=times(20) {
        due.run(broken(&report(&Place::new().run(&scenario(&server, seed), &[]))));
    }
    due.close(false);
}

#[test]
fn postgres_keeps_what_it_acknowledged() {
    proven(Server::postgres(&[]), "PostgreSQL");
}

#[test]
fn mariadb_keeps_what_it_acknowledged() {
    proven(Server::mariadb(&[]), "MariaDB");
}
