//! Faults of a target that the run started for itself.

use serde_json::{Value, json};

use crate::{MYSQL, POSTGRES, Place, is_here};

/// Rows into a container for so long, through these faults, with patience.
fn scenario(place: &Place, kind: &str, container: Value, duration: &str, faults: Value) -> Value {
    let mut scenario = place.inserts(kind, container);
    scenario["load"] = json!({"executor": "constant-arrival-rate", "rate": 200, "duration": duration, "lag_limit": "30s"});
    scenario["workload"]["batch_insert"] = json!({"pipeline": {
        "flush_size": 20, "flush_interval": "20ms", "retry": {"attempts": 60, "base": "50ms", "max": "500ms"},
    }});
    scenario["faults"] = faults;
    scenario["gates"] = json!(["integrity.lost == 0", "error_rate < 20%"]);
    scenario
}

#[test]
fn a_container_that_dies_stands_still_or_is_restarted_keeps_its_rows_and_its_port() {
    if !is_here(POSTGRES) {
        return;
    }
    for kind in ["kill", "pause", "restart"] {
        let place = Place::new(&format!("fault_{kind}"));
        let faults = json!([{"at": "1s", "for": "500ms", "kind": kind}]);
        let report = place.run(&scenario(&place, "postgres", json!({"image": POSTGRES}), "4s", faults), &[]).json(0);
        assert_eq!(report["integrity"]["verdict"], "holds", "{kind}: {}", report["integrity"]);
        let fault = &report["faults"][0];
        assert!(fault["problem"].is_null() && fault["recovery_seconds"].as_f64().unwrap() < 30.0, "{kind}: {fault}");
        assert_eq!((&fault["harm"]["lost"], &report["outcomes"]["rejected"]), (&json!(0), &json!(0)), "{kind}: {}", report["outcomes"]);
        assert_eq!(place.containers(), Vec::<String>::new());
    }
}

/// Settings and rivals that only MariaDB is asked for elsewhere, on the other one.
#[test]
fn a_real_mysql_goes_through_every_fault_of_a_database() {
    if !is_here(MYSQL) {
        return;
    }
    let place = Place::new("fault_mysql");
    let faults = json!([
        {"at": "1s", "for": "2s", "kind": "lock"},
        {"at": "5s", "for": "3s", "kind": "deadlock", "pause": "20ms"},
        {"at": "9s", "for": "1s", "kind": "read_only"},
        {"at": "12s", "for": "3s", "kind": "exhaust_connections"},
        {"at": "17s", "for": "2s", "kind": "cut", "when": "after_commit", "most": 2},
        {"at": "20s", "for": "500ms", "kind": "kill"},
    ]);
    let container = json!({"image": MYSQL, "args": ["--innodb-lock-wait-timeout=1", "--max-connections=30"]});
    let report = place.run(&scenario(&place, "mysql", container, "24s", faults), &[]).json(0);
    assert_eq!((&report["integrity"]["verdict"], &report["outcomes"]["rejected"]), (&json!("holds"), &json!(0)), "{report}");
    for fault in report["faults"].as_array().unwrap() {
        assert!(fault["problem"].is_null() && fault["recovery_seconds"].as_f64().unwrap() < 30.0, "{fault}");
        assert_eq!(fault["harm"]["lost"], 0, "{fault}");
    }
    for class in ["lock_timeout", "deadlock", "read_only"] {
        assert!(report["errors"][format!("retry:{class}")].as_u64().is_some_and(|count| count > 0), "{class}: {}", report["errors"]);
    }
    for crowded_out_or_dead in [3, 5] {
        assert!(report["faults"][crowded_out_or_dead]["retries"].as_u64().unwrap() > 0, "{}", report["faults"]);
    }
    let cut = &report["faults"][4];
    assert_eq!((&cut["struck"], &cut["harm"]["unknown_absent"]), (&json!(2), &json!(0)), "{cut}");
    assert!(cut["harm"]["unknown_stored"].as_u64().unwrap() > 0, "{cut}");
    assert_eq!(place.containers(), Vec::<String>::new());
}

#[test]
fn folders_in_memory_and_a_death_do_not_go_together() {
    let place = Place::new("fault_tmpfs");
    let mut scenario = place.inserts("mysql", json!({"image": MYSQL, "tmpfs": ["/var/lib/mysql"]}));
    scenario["faults"] = json!([{"at": "1s", "for": "1s", "kind": "kill"}]);
    place.run(&scenario, &[]).refused(&["kill empties the folders that target.container.tmpfs keeps in memory"]);
}
