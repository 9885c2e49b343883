//! The gateway's log on every database: held against the requests when it is right, and told exactly what is wrong when it is not.

use serde_json::{Value, json};

use crate::database::{Database, Kind};
use crate::on_each_database;
use crate::place::{Place, assert_anomalies, keys, run_and_meddle, until};

on_each_database!(every_request_has_its_row, what_is_wrong_with_a_log_is_told_by_class_and_key);

const REQUESTS: u64 = 300;

/// The quickstart's workload with the gateway's log on `log`.
fn quickstart(log: &Database) -> Value {
    let gateway = json!({"access_log": false, "log": {"database": log.target(), "batch": {"size": 50, "flush_interval": "300ms"}}});
    json!({
        "name": "reconcile",
        "target": {"http": {"start": {"upstream": {}, "gateway": gateway}}},
        "workload": {"proxy_request": {
            "requests": REQUESTS,
            "replies": "mock",
            "users": [{"name": "ann"}, {"name": "bob"}, {"name": "cem"}],
            "models": ["mock-small", "mock-large"],
            "mix": [{"name": "chat", "weight": 9, "chat": {"max_tokens": 16}}, {"name": "stream", "weight": 1, "chat": {"stream": true, "max_tokens": 32}}],
        }},
        "load": {"executor": "shared-iterations", "vus": 8},
        "reconcile": {"wait": "20s"},
    })
}

/// The log of the gateway in a database of the test's own, since one gateway writes to a database.
fn log(db: &Database) -> Database {
    db.own_database(&format!("reconcile_{}", db.table), "request_logs")
}

fn every_request_has_its_row(place: &Place, db: &Database) {
    let log = log(db);
    let report = place.run(&quickstart(&log), &[]).json(0);
    let integrity = &report["integrity"];
    assert_anomalies(integrity, &[]);
    let sources: Vec<Value> = integrity["sources"].as_array().unwrap().clone();
    let right = |name: &str| json!({"name": name, "must_be_there": REQUESTS, "right": REQUESTS});
    assert_eq!(sources, [right("replies"), right("upstream records"), right("log rows")]);
    assert_eq!((&integrity["rate"], &report["throughput"]["valid"]), (&json!(1.0), &json!(true)));
    assert!(integrity["log_lag_seconds"].as_f64().is_some_and(|lag| lag < 20.0), "{integrity}");
    assert_eq!(log.number("SELECT count(*) FROM {table}"), REQUESTS as i64);
    assert_eq!(log.number("SELECT count(DISTINCT user_name) FROM {table}"), 3);
    let run = place.run_folders().remove(0);
    if log.kind != Kind::Sqlite {
        place.verify(&run, &[]).refused(&["carried a password, which is not kept in", "give the URL again with --database-url"]);
    }
    // Judged again, and a second run beside the first in the same log.
    let mut again = place.verify(&run, &log.password_again()).json(0);
    again["duration_seconds"] = integrity["duration_seconds"].clone();
    again["log_lag_seconds"] = integrity["log_lag_seconds"].clone();
    assert_eq!(&again, integrity);
    assert_anomalies(&place.run(&quickstart(&log), &["--seed", "7"]).json(0)["integrity"], &[]);
    assert_eq!(log.number("SELECT count(*) FROM {table}"), 2 * REQUESTS as i64);
    assert_eq!(place.verify(&run, &log.password_again()).json(0)["sources"], integrity["sources"]);
}

fn what_is_wrong_with_a_log_is_told_by_class_and_key(place: &Place, db: &Database) {
    let log = log(db);
    let columns = "user_name, channel, model, stream, status, prompt_tokens, completion_tokens, duration_ms, created_at";
    let mut scenario = quickstart(&log);
    // A deleted row will not come however long it is waited for.
    scenario["reconcile"]["wait"] = json!("200ms");
    let report = run_and_meddle(place, &scenario, || {
        until("every row", || (log.number("SELECT count(*) FROM {table}") == REQUESTS as i64).then_some(()));
        log.execute("DELETE FROM {table} WHERE request_id LIKE '%-7'");
        log.execute("DELETE FROM {table} WHERE request_id LIKE '%-11'");
        log.execute(&format!(
            "INSERT INTO {{table}} (id, request_id, {columns}) SELECT id + 1000000, request_id, {columns} FROM {{table}} WHERE request_id LIKE '%-20'"
        ));
        log.execute("UPDATE {table} SET status = 500 WHERE request_id LIKE '%-30'");
        log.execute("UPDATE {table} SET user_name = 'eve' WHERE request_id LIKE '%-31'");
        log.execute("UPDATE {table} SET model = 'mock-huge' WHERE request_id LIKE '%-32'");
        log.execute("UPDATE {table} SET prompt_tokens = prompt_tokens + 1 WHERE request_id LIKE '%-33'");
        log.execute("UPDATE {table} SET completion_tokens = 0 WHERE request_id LIKE '%-34'");
    })
    .json(4);
    let integrity = &report["integrity"];
    assert_anomalies(integrity, &[("lost", 2), ("duplicated", 1), ("corrupted", 5)]);
    assert_eq!((keys(integrity, "lost"), keys(integrity, "duplicated")), (vec![7, 11], vec![20]));
    let corrupted: Vec<(i64, &str, &str)> = integrity["examples"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|example| example["class"] == "corrupted")
        .map(|example| (example["key"].as_i64().unwrap(), example["column"].as_str().unwrap(), example["found"].as_str().unwrap()))
        .collect();
    let [tokens] = corrupted.iter().filter(|(key, ..)| *key == 33).map(|(.., found)| *found).collect::<Vec<_>>()[..] else {
        panic!("{corrupted:?}")
    };
    assert_eq!(
        corrupted,
        [
            (30, "log.status", "500"),
            (31, "log.user", "eve"),
            (32, "log.model", "mock-huge"),
            (33, "log.prompt_tokens", tokens),
            (34, "log.completion_tokens", "0"),
        ]
    );
    assert_eq!((&integrity["surplus_copies"], &report["throughput"]["valid"]), (&json!(1), &json!(false)));
    let rows = &integrity["sources"][2];
    // The duplicated row is there, but not once.
    assert_eq!((&rows["must_be_there"], &rows["right"]), (&json!(REQUESTS), &json!(REQUESTS - 2 - 1 - 5)));
}

#[test]
fn rows_of_failed_requests_are_not_taken_for_those_that_are_awaited() {
    let place = Place::new();
    let mut scenario = quickstart(&Database::sqlite(&place, "request_logs"));
    scenario["workload"]["proxy_request"]["requests"] = json!(320);
    // Half of the requests fail and are logged too; the last rows fill no batch and come a second later.
    let start = &mut scenario["target"]["http"]["start"];
    start["upstream"]["errors"] = json!(0.5);
    start["gateway"]["log"]["batch"]["flush_interval"] = json!("1s");
    scenario["gates"] = json!(["error_rate < 90%"]);
    let report = place.run(&scenario, &[]).json(0);
    assert_anomalies(&report["integrity"], &[]);
    let (acknowledged, rows) = (&report["outcomes"]["acknowledged"], &report["integrity"]["sources"][2]);
    assert_eq!((&rows["must_be_there"], &rows["right"]), (acknowledged, acknowledged));
    assert!(report["outcomes"]["rejected"].as_u64().unwrap() > 50, "{}", report["outcomes"]);
}
