//! The scenarios of faults of the network in `scenarios/`: each ends as its head promises.

use serde_json::Value;

use super::{harm, number, outcomes};
use crate::database::Database;
use crate::place::{Place, assert_anomalies};

/// The report of a shipped scenario, made shorter, which must pass.
fn passed(name: &str, db: Option<&Database>, duration: &str) -> Value {
    let place = Place::new();
    let file = format!("{}/scenarios/{name}.yaml", env!("CARGO_MANIFEST_DIR"));
    let duration = format!("load.duration={duration}");
    let mut command = place.command(&["run", "--json", "--no-metrics", "--report-dir", "reports", "--set", &duration, &file]);
    // A machine with much other work to do is late.
    command.args(["--set", "load.lag_limit=60s"]);
    if let Some(db) = db {
        command.env("DATABASE_URL", &db.url);
    }
    let report = place.spawn(command).end().json(0);
    assert_anomalies(&report["integrity"], &[]);
    report
}

#[test]
fn commits_that_were_cut_are_recovered() {
    let servers = [("fault_commit_cut_postgres", Database::postgres("")), ("fault_commit_cut_mariadb", Database::mariadb(""))];
    for (name, db) in servers {
        let Some(db) = db.map(|db| db.own_database(name, "")) else { continue };
        let report = passed(name, Some(&db), "3s");
        let (fault, [_, _, unknown]) = (&report["faults"][0], outcomes(&report));
        assert!(number(&fault["struck"]) >= 1 && unknown > 0, "{fault}");
        assert_eq!((harm(fault), &report["integrity"]["recovered"]), ([0, unknown, 0, 0], &Value::from(unknown)));
    }
}

#[test]
fn a_bad_network_loses_nothing() {
    let Some(db) = Database::postgres("").map(|db| db.own_database("fault_network", "")) else { return };
    let report = passed("fault_network", Some(&db), "8s");
    let kinds: Vec<_> = report["faults"].as_array().unwrap().iter().map(|fault| fault["kind"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["latency", "bandwidth", "black_hole"]);
    assert_eq!(outcomes(&report), [8000, 0, 0]);
}

#[test]
fn half_a_stream_is_never_a_whole_one() {
    let report = passed("fault_stream_cut", None, "5s");
    let (fault, [acknowledged, _, unknown]) = (&report["faults"][0], outcomes(&report));
    assert_eq!((number(&fault["struck"]), acknowledged + unknown), (unknown, 250));
    assert!(unknown > 0, "{fault}");
}
