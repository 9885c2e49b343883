//! A server that dies, stands still or is restarted in the middle of a run.

use std::time::Duration;

use nix::sys::signal::Signal;
use nix::unistd::Pid;
use serde_json::{Value, json};

use super::{assert_recovered_within, count, database, number, only_fault, scenario};
use crate::place::{Place, assert_anomalies};
use crate::servers::{Server, runs};

/// One of each, and what runs on them.
fn servers() -> impl Iterator<Item = Server> {
    [Server::postgres, Server::mariadb].into_iter().filter_map(|server| server(&[]))
}

fn fault(server: &Server, kind: &str, at: &str, length: &str) -> Value {
    let mut fault = json!({"at": at, "for": length, "kind": kind, "pid_file": server.pid_file.to_str().unwrap()});
    if kind != "pause" {
        fault["start"] = json!(server.start);
    }
    fault
}

fn stands_still(pid: Pid) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    status.rsplit_once(") ").unwrap().1.starts_with('T')
}

#[test]
fn a_killed_server_is_started_again_and_keeps_what_it_acknowledged() {
    for server in servers() {
        let (place, before) = (Place::new(), server.pid().unwrap());
        let db = database(&server, "killed");
        let report = place.run(&scenario(&db, 500, "5s", json!([fault(&server, "kill", "1s", "1s")])), &[]).json(0);
        let fault = only_fault(&report);
        assert_anomalies(&report["integrity"], &[]);
        assert_ne!(server.pid().unwrap(), before);
        assert!((1.0..1.5).contains(&number(&fault["begun_seconds"])), "{fault}");
        assert!((2.0..3.5).contains(&number(&fault["healed_seconds"])), "{fault}");
        assert_recovered_within(fault, Duration::from_secs(20));
        assert_eq!(fault["harm"]["lost"], 0);
        // Nothing was refused for good: there were retries enough for the time without a server.
        assert_eq!((count(&report, "offered"), count(&report, "rejected")), (2500, 0), "{}", report["outcomes"]);
        let resolved = number(&fault["harm"]["unknown_stored"]) + number(&fault["harm"]["unknown_absent"]);
        assert_eq!(resolved, count(&report, "unknown") as f64, "{fault}");
        assert!(number(&fault["retries"]) > 0.0, "{fault}");
        assert!(report["errors"]["retry:connection"].as_u64().unwrap() > 0, "{}", report["errors"]);
        assert_eq!(db.number("SELECT count(*) FROM {table}") as u64, report["integrity"]["checked"].as_u64().unwrap());
    }
}

#[test]
fn a_server_that_stands_still_goes_on_where_it_was() {
    for server in servers() {
        let (place, before) = (Place::new(), server.pid().unwrap());
        let mut scenario = scenario(&database(&server, "paused"), 500, "4s", json!([fault(&server, "pause", "1s", "1s")]));
        scenario["workload"]["batch_insert"]["pipeline"]["buffer_size"] = json!(5000);
        let report = place.run(&scenario, &[]).json(0);
        let fault = only_fault(&report);
        assert_anomalies(&report["integrity"], &[]);
        assert_eq!(server.pid().unwrap(), before);
        assert_recovered_within(fault, Duration::from_secs(2));
        // Nothing times out within a second: what was under way is answered late, and all of it.
        assert_eq!((count(&report, "acknowledged"), count(&report, "unknown")), (2000, 0));
        assert!(number(&report["latency"]["response"]["max_ms"]) > 700.0, "{}", report["latency"]["response"]);
    }
}

#[test]
fn a_restart_in_good_order_loses_nothing() {
    for server in servers() {
        let (place, before) = (Place::new(), server.pid().unwrap());
        let mut fault = fault(&server, "restart", "1s", "1s");
        fault.as_object_mut().unwrap().remove("for");
        let report = place.run(&scenario(&database(&server, "restarted"), 500, "4s", json!([fault])), &[]).json(0);
        assert_anomalies(&report["integrity"], &[]);
        assert_recovered_within(only_fault(&report), Duration::from_secs(20));
        assert_ne!(server.pid().unwrap(), before);
        assert_eq!((count(&report, "offered"), count(&report, "rejected")), (2000, 0), "{}", report["outcomes"]);
    }
}

#[test]
fn a_fault_is_healed_when_the_load_ends_before_it() {
    for server in servers() {
        let (place, before) = (Place::new(), server.pid().unwrap());
        let db = database(&server, "early");
        let report = place.run(&scenario(&db, 200, "2s", json!([fault(&server, "kill", "1500ms", "10min")])), &[]).json(0);
        assert_anomalies(&report["integrity"], &[]);
        let healed = number(&only_fault(&report)["healed_seconds"]);
        assert!((1.9..6.0).contains(&healed), "{healed}");
        assert!(runs(server.pid().unwrap()) && server.pid().unwrap() != before);
    }
}

#[test]
fn an_interrupted_run_heals_and_verifies() {
    for server in servers() {
        let place = Place::new();
        let db = database(&server, "interrupted");
        let mut running = place.start(&scenario(&db, 200, "60s", json!([fault(&server, "pause", "500ms", "60s")])), &[]);
        running.until("the fault", |_| stands_still(server.pid().unwrap()).then_some(()));
        running.signal(Signal::SIGTERM);
        let report = running.end().json(130);
        assert_anomalies(&report["integrity"], &[]);
        assert!(number(&only_fault(&report)["healed_seconds"]) < 30.0);
        // It answers again.
        assert_eq!(db.number("SELECT count(*) FROM {table}") as u64, report["integrity"]["checked"].as_u64().unwrap());
    }
}

#[test]
fn a_start_command_that_fails_is_told_with_its_words_and_without_secrets() {
    let Some(server) = Server::postgres(&[]) else { return };
    let place = Place::new();
    let mut fault = fault(&server, "kill", "500ms", "500ms");
    fault["start"] = json!("echo cannot start, the password is batchsql-test; exit 7");
    let mut scenario = scenario(&database(&server, "unstarted"), 100, "1s", json!([fault]));
    scenario["workload"]["batch_insert"]["pipeline"]["retry"] = json!({"attempts": 1});
    scenario["verify"] = json!({"quiesce_timeout": "1s"});
    scenario["gates"] = json!(["error_rate <= 100%"]);
    let ended = place.run(&scenario, &[]);
    let report = ended.json(3);
    let problem = report["faults"][0]["problem"].as_str().unwrap();
    assert!(problem.contains("the start command ended with exit status: 7"), "{problem}");
    assert!(problem.contains("it said: cannot start, the password is ***"), "{problem}");
    assert!(!place.everything_written().replace(&scenario.to_string(), "").contains("batchsql-test"), "the password is written");
}

#[test]
fn a_pid_file_that_names_no_server_refuses_the_run() {
    let Some(server) = Server::postgres(&[]) else { return };
    let place = Place::new();
    for (text, words) in [("1\n", "names process 1, which is no server's"), ("", "not with a process id")] {
        let file = place.write("pid", text);
        let fault = json!({"at": "1s", "for": "1s", "kind": "pause", "pid_file": file});
        let ended = place.run(&scenario(&database(&server, "no_pid"), 100, "1s", json!([fault])), &[]);
        ended.refused(&["faults.0 (pause)", words]);
    }
}
