//! Faults that rival sessions make, and SQLite's.

use std::time::Duration;

use serde_json::{Value, json};

use super::{assert_recovered_within, count, database, number, only_fault, scenario};
use crate::database::{Database, Kind};
use crate::place::{Place, assert_anomalies};
use crate::servers::Server;

/// One of each with its settings, a place, and a table there.
fn servers(table: &str, postgres: &[&str], mariadb: &[&str]) -> impl Iterator<Item = (Server, Place, Database)> {
    let servers = [Server::postgres(postgres), Server::mariadb(mariadb)];
    servers.into_iter().flatten().map(move |server| {
        let db = database(&server, table);
        (server, Place::new(), db)
    })
}

/// Everything was acknowledged in the end, and is there.
fn assert_whole(report: &Value, rows: u64) {
    assert_anomalies(&report["integrity"], &[]);
    assert_eq!((count(report, "acknowledged"), count(report, "rejected")), (rows, 0), "{} {}", report["outcomes"], report["errors"]);
}

fn errors(report: &Value, class: &str) -> u64 {
    report["errors"].get(class).map_or(0, |count| count.as_u64().unwrap())
}

#[test]
fn a_lock_makes_writes_wait_until_their_limit() {
    for (_server, place, db) in servers("locked", &["lock_timeout=300ms"], &["innodb_lock_wait_timeout=1"]) {
        let faults = json!([{"at": "1s", "for": "2500ms", "kind": "lock"}]);
        let report = place.run(&scenario(&db, 400, "5s", faults), &[]).json(0);
        assert_whole(&report, 2000);
        let fault = only_fault(&report);
        assert_recovered_within(fault, Duration::from_secs(2));
        assert!(errors(&report, "retry:lock_timeout") >= 2, "{}", report["errors"]);
        assert_eq!(number(&fault["retries"]), errors(&report, "retry:lock_timeout") as f64, "{}", report["errors"]);
        assert!(number(&report["latency"]["response"]["max_ms"]) > 2000.0, "{}", report["latency"]["response"]);
    }
}

#[test]
fn a_lock_beyond_all_retries_rejects() {
    for (_server, place, db) in servers("locked_out", &["lock_timeout=200ms"], &["innodb_lock_wait_timeout=1"]) {
        let mut scenario = scenario(&db, 200, "4s", json!([{"at": "1s", "for": "2s", "kind": "lock"}]));
        scenario["workload"]["batch_insert"]["pipeline"]["retry"] = json!({"attempts": 1});
        scenario["gates"] = json!(["error_rate < 90%", "integrity.lost == 0"]);
        let report = place.run(&scenario, &[]).json(0);
        assert_anomalies(&report["integrity"], &[]);
        assert!(count(&report, "rejected") > 0 && count(&report, "unknown") == 0, "{}", report["outcomes"]);
        assert!(errors(&report, "final:lock_timeout") > 0, "{}", report["errors"]);
        assert_eq!(number(&only_fault(&report)["rejected"]), count(&report, "rejected") as f64);
        assert_eq!(report["integrity"]["checked"].as_u64().unwrap(), count(&report, "acknowledged"));
    }
}

#[test]
fn a_rival_makes_real_deadlocks() {
    for (_server, place, db) in servers("deadlocked", &["deadlock_timeout=50ms"], &[]) {
        let faults = json!([{"at": "500ms", "for": "3s", "kind": "deadlock", "pause": "20ms"}]);
        let report = place.run(&scenario(&db, 1000, "4s", faults), &[]).json(0);
        assert_whole(&report, 4000);
        let struck = number(&only_fault(&report)["struck"]);
        assert!(struck >= 2.0, "{} {}", report["faults"], report["errors"]);
        assert!(errors(&report, "retry:deadlock") as f64 >= struck, "{}", report["errors"]);
    }
}

#[test]
fn transactions_of_several_statements_deadlock_as_a_whole() {
    for (_server, place, db) in servers("deadlocked_parts", &["deadlock_timeout=50ms"], &[]) {
        let faults = json!([{"at": "200ms", "for": "5s", "kind": "deadlock", "pause": "10ms"}]);
        let mut scenario = scenario(&db, 3000, "6s", faults);
        // 65,535 bind variables are 1,638 rows of 40 columns: two statements a batch.
        let mut columns = vec![json!({"name": "id", "type": "int64", "key": true})];
        columns.extend((1..40).map(|number| json!({"name": format!("c{number}"), "type": "int64"})));
        let insert = &mut scenario["workload"]["batch_insert"];
        (insert["columns"], insert["method"]) = (json!(columns), json!("values"));
        insert["pipeline"]["flush_size"] = json!(1700);
        insert["pipeline"]["flush_interval"] = json!("5s");
        insert["pipeline"]["concurrency"] = json!(1);
        insert["pipeline"]["buffer_size"] = json!(20000);
        let report = place.run(&scenario, &[]).json(0);
        assert_whole(&report, 18_000);
        let struck = number(&only_fault(&report)["struck"]);
        assert!(struck >= 1.0 && errors(&report, "retry:deadlock") as f64 >= struck, "{} {}", report["faults"], report["errors"]);
    }
}

#[test]
fn without_connections_batches_wait_and_come_through() {
    for (_server, place, db) in servers("crowded_out", &["max_connections=20"], &["max_connections=20"]) {
        let faults = json!([{"at": "1s", "for": "1500ms", "kind": "exhaust_connections"}]);
        let report = place.run(&scenario(&db, 400, "4s", faults), &[]).json(0);
        assert_whole(&report, 1600 - count(&report, "unknown"));
        assert_recovered_within(only_fault(&report), Duration::from_secs(3));
        assert!(errors(&report, "retry:connection") > 0, "{}", report["errors"]);
        assert!(number(&report["latency"]["response"]["max_ms"]) > 700.0, "{}", report["latency"]["response"]);
    }
}

#[test]
fn a_read_only_server_refuses_and_takes_writes_again() {
    for (_server, place, db) in servers("read_only", &[], &[]) {
        let faults = json!([{"at": "1s", "for": "1s", "kind": "read_only"}]);
        let report = place.run(&scenario(&db, 400, "4s", faults), &[]).json(0);
        assert_whole(&report, 1600 - count(&report, "unknown"));
        assert_recovered_within(only_fault(&report), Duration::from_secs(3));
        assert!(errors(&report, "retry:read_only") > 0, "{}", report["errors"]);
        db.execute("CREATE TABLE written_afterwards (id INT)");
    }
}

#[test]
fn a_missing_right_is_named_before_the_run_begins() {
    for (_server, place, mut db) in servers("no_right", &[], &[]) {
        let (make, right) = if db.kind == Kind::Postgres {
            ("CREATE ROLE plain LOGIN PASSWORD 'batchsql-test'", "the ownership of the database")
        } else {
            ("CREATE USER plain IDENTIFIED BY 'batchsql-test'", "the right to set global variables")
        };
        db.execute(make);
        if db.kind == Kind::Mysql {
            db.execute("GRANT ALL ON batchsql_test.* TO plain");
        }
        db.url = db.url.replace("://batchsql:", "://plain:");
        let faults = json!([{"at": "1s", "for": "1s", "kind": "read_only"}]);
        let ended = place.run(&scenario(&db, 100, "2s", faults), &[]);
        ended.refused(&["faults.0 (read_only)", "give the user of the target's URL", right]);
    }
}

/// Two seconds of rows into SQLite, with this fault in the middle and no retries.
fn on_sqlite(place: &Place, kind: &str) -> (Database, Value) {
    let db = Database::sqlite(place, kind);
    let mut scenario = scenario(&db, 1000, "3s", json!([{"at": "1s", "for": "1s", "kind": kind}]));
    scenario["workload"]["batch_insert"]["pipeline"]["retry"] = json!({"attempts": 1});
    scenario["gates"] = json!(["error_rate < 60%", "integrity.rate == 100%"]);
    let report = place.run(&scenario, &[]).json(0);
    (db, report)
}

#[test]
fn a_full_disk_and_a_read_only_file_reject_until_they_are_healed() {
    for (kind, class) in [("disk_full", "final:disk_full"), ("read_only", "final:read_only")] {
        let place = Place::new();
        let (db, report) = on_sqlite(&place, kind);
        assert_anomalies(&report["integrity"], &[]);
        let fault = only_fault(&report);
        let (acknowledged, rejected) = (count(&report, "acknowledged"), count(&report, "rejected"));
        assert_eq!((acknowledged + rejected, count(&report, "unknown")), (3000, 0));
        // A full file has room left in its last pages.
        assert!((600..=1200).contains(&rejected), "{kind}: {}", report["outcomes"]);
        assert!(errors(&report, class) > 0 && report["errors"].as_object().unwrap().len() == 1, "{}", report["errors"]);
        assert_eq!(number(&fault["rejected"]), rejected as f64);
        assert_recovered_within(fault, Duration::from_secs(1));
        assert_eq!(db.number("SELECT count(*) FROM {table}") as u64, acknowledged);
    }
}
