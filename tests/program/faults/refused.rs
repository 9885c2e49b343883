//! Faults that cannot be had are refused before anything is begun, each with its place and its mend.

use serde_json::{Value, json};

use crate::place::Place;

const SQLITE: &str = r#"{"sqlite": {"path": "rows.db"}}"#;
const POSTGRES: &str = r#"{"postgres": {"url": "postgres://nobody@127.0.0.1:1/none"}}"#;
const IN_MEMORY: &str = r#"{"mysql": {}, "container": {"image": "mysql:9.4", "tmpfs": ["/var/lib/mysql"]}}"#;
const HTTP: &str = r#"{"http": {"url": "http://127.0.0.1:1"}}"#;

fn scenario(target: &str, insert: Value, faults: Value) -> Value {
    let target: Value = serde_json::from_str(target).unwrap();
    let workload = if target.get("http").is_some() {
        json!({"proxy_request": {"mix": [{"http": {"path": "/"}}]}})
    } else {
        json!({"batch_insert": insert})
    };
    let load = json!({"executor": "constant-arrival-rate", "rate": 100, "duration": "10s"});
    json!({"name": "refused", "target": target, "workload": workload, "load": load, "faults": faults})
}

#[track_caller]
fn refused(target: &str, insert: Value, faults: Value, words: &[&str]) {
    let place = Place::new();
    let ended = place.run(&scenario(target, insert, faults), &[]);
    ended.refused(words);
    assert!(place.run_folders().is_empty());
}

#[test]
fn a_fault_names_what_it_takes_and_what_it_lacks() {
    let one = |fault: Value| json!([fault]);
    let said = |fault: Value, words: &[&str]| refused(POSTGRES, json!({}), one(fault), words);
    said(json!({"at": "1s", "kind": "lock"}), &["faults.0", "lock needs `for`; add it"]);
    said(json!({"at": "1s", "for": "0s", "kind": "lock"}), &["faults.0.for", "is nothing", "e.g. 2s"]);
    said(
        json!({"at": "1s", "for": "1s", "kind": "latency", "latency": "5ms", "most": 1}),
        &["faults.0.most", "is no parameter of latency; it takes for, latency, jitter"],
    );
    said(json!({"at": "1s", "for": "1s", "kind": "earthquake"}), &["faults.0.kind", "earthquake", "black_hole"]);
    said(json!({"at": "1s", "for": "1s", "kind": "cut", "when": "at_byte"}), &["faults.0", "cut `when: at_byte` needs `bytes`"]);
    said(
        json!({"at": "1s", "for": "1s", "kind": "cut", "when": "after_commit", "bytes": 5}),
        &["faults.0", "`bytes` is for `when: at_byte`"],
    );
    said(json!({"at": "1s", "for": "1s", "kind": "cut", "when": "after_commit", "share": 1.5}), &["faults.0.share", "1.5"]);
}

#[test]
fn a_fault_of_something_else_is_told_what_would_do() {
    let said = |target: &str, kind: &str, words: &[&str]| {
        refused(target, json!({}), json!([{"at": "1s", "for": "1s", "kind": kind}]), &[&["faults.0", kind], words].concat());
    };
    said(SQLITE, "reset", &["SQLite has none"]);
    said(SQLITE, "pause", &["is a fault of a server, and SQLite has none"]);
    for kind in ["lock", "deadlock", "exhaust_connections"] {
        said(SQLITE, kind, &["on SQLite use busy"]);
    }
    said(POSTGRES, "busy", &["on a server use lock"]);
    said(POSTGRES, "disk_full", &["target.container.tmpfs"]);
    said(POSTGRES, "pause", &["needs `pid_file` (and `start`), or a target in a container"]);
    said(POSTGRES, "upstream_errors", &["under proxy_request"]);
    said(HTTP, "lock", &["under batch_insert"]);
    said(HTTP, "upstream_cuts", &["add target.http.start.upstream: {}"]);
    said(IN_MEMORY, "kill", &["target.container.tmpfs keeps in memory"]);
    let kill = json!([{"at": "1s", "for": "1s", "kind": "kill", "pid_file": "pid"}]);
    refused(POSTGRES, json!({}), kill, &["faults.0", "needs `start`, the command that starts the server again"]);
    let commit = json!([{"at": "1s", "for": "1s", "kind": "cut", "when": "after_commit"}]);
    refused(HTTP, json!({}), commit, &["faults.0", "a service has no commit; use `when: after_request`"]);
}

#[test]
fn a_deadlock_needs_rows_that_two_want() {
    let fault = || json!([{"at": "1s", "for": "1s", "kind": "deadlock"}]);
    refused(POSTGRES, json!({"unique_key": false}), fault(), &["deadlock needs unique_key: true", "found false"]);
    refused(POSTGRES, json!({"pipeline": {"flush_size": 1}}), fault(), &["deadlock needs batches of several rows", "flush_size: 1"]);
}

#[test]
fn two_faults_that_would_undo_each_other_are_refused() {
    let at = |at: &str, kind: &str| json!({"at": at, "for": "2s", "kind": kind});
    let words = ["faults.1", "is in force together with faults.0 (lock); let one be over before the other begins"];
    refused(POSTGRES, json!({}), json!([at("1s", "lock"), at("3s", "lock")]), &words);
    // One after the other, or of different kinds.
    for faults in [json!([at("1s", "lock"), at("4s", "lock")]), json!([at("1s", "lock"), at("1s", "read_only")])] {
        let ended = Place::new().run(&scenario(POSTGRES, json!({}), faults), &[]);
        assert!(!ended.stderr.contains("faults."), "{}", ended.stderr);
    }
}

#[test]
fn a_server_that_is_not_there_is_told_by_its_own_address() {
    for kind in ["reset", "read_only", "lock"] {
        let faults = json!([{"at": "1s", "for": "1s", "kind": kind}]);
        refused(POSTGRES, json!({}), faults, &["PostgreSQL at 127.0.0.1:1 ", "nothing answers there", "start the server"]);
    }
}
