//! What a report says the load cost its target: writes, write-ahead log, and CPU and memory of a gateway in a process of its own.

use serde_json::{Value, json};

use crate::database::{Database, Kind};
use crate::on_each_database;
use crate::place::Place;

on_each_database!(the_writes_of_a_run_are_counted);

fn the_writes_of_a_run_are_counted(place: &Place, db: &Database) {
    // 4,000 rows of up to 255 characters in 40 batches.
    let mut scenario = db.rows(4000);
    if db.kind == Kind::Sqlite {
        scenario["target"]["sqlite"]["profile"] = json!("default");
    }
    let report = place.run(&scenario, &[]).json(0);
    let target = &report["target"];
    let writes = target["database_writes"].as_u64().unwrap();
    match db.kind {
        Kind::Sqlite => assert_eq!(writes, 40, "{target}"),
        // The whole server's: other tests write too.
        _ => assert!(writes >= 40, "{target}"),
    }
    assert!(target["wal_bytes"].as_u64().unwrap() > 100_000, "{target}");
    assert!(target["database_writes_per_second"].as_f64().unwrap() > 0.0);
    assert_eq!(target["cpu_seconds"], Value::Null, "nobody can see into a server");
    let resources = &report["resources"];
    let [load, all] = ["load_cpu_seconds", "cpu_seconds"].map(|key| resources[key].as_f64().unwrap());
    assert!(load > 0.0 && load <= all, "{resources}");
    let calibration = &report["environment"]["calibration"];
    assert!(calibration["cpu_loops_per_second"].as_f64().unwrap() > 1_000.0 && calibration["fsync_ms"].as_f64().is_some(), "{calibration}");
}

/// Chats through a gateway that the scenario starts.
fn chats(own_process: bool) -> Value {
    json!({
        "name": "chats",
        "target": {"http": {"start": {
            "own_process": own_process,
            "upstream": {},
            "gateway": {"access_log": false, "log": {"batch": {"enabled": false}}, "quota_updates": {"batched": false}},
        }}},
        "workload": {"proxy_request": {
            "requests": 200,
            "replies": "mock",
            "users": [{"name": "ann", "key": "sk-ann-of-this-test"}],
            "mix": [{"chat": {"max_tokens": 4}}, {"name": "stream", "chat": {"stream": true, "max_tokens": 4}}],
        }},
        "load": {"executor": "shared-iterations", "vus": 4},
        "reconcile": {},
    })
}

#[test]
fn a_gateway_in_a_process_of_its_own_has_its_own_cost() {
    let place = Place::new();
    // What the environment says is not what the scenario says.
    let file = place.write("chats.yaml", &chats(true).to_string());
    let mut command = place.command(&["run", "--json", "--no-metrics", "--report-dir", "reports", &file]);
    command.env("LOG_BATCH_ENABLED", "true").env("SQLITE_JOURNAL_MODE", "DELETE");
    let report = place.spawn(command).end().json(0);
    let target = &report["target"];
    assert_eq!(report["integrity"]["must_be_there"], 600, "replies, upstream records and log rows");
    assert!(target["cpu_seconds"].as_f64().unwrap() > 0.0 && target["rss_bytes_max"].as_u64().unwrap() > 4 << 20, "{target}");
    // A log row and a quota a request, and a few to begin with: unbatched, as the scenario asks.
    let writes = target["database_writes"].as_u64().unwrap();
    assert!((400..420).contains(&writes), "{target}");
    assert!(target["wal_bytes"].as_u64().unwrap() > 0, "WAL, as the scenario asks: {target}");
    assert!(!report["http"]["time_to_first_token_histogram"].as_str().unwrap().is_empty());
    let everything = place.everything_written().replace(&chats(true).to_string(), "");
    assert!(!everything.contains("sk-ann-of-this-test"), "the gateway's configuration is gone with its keys");
}

#[test]
fn a_gateway_in_this_process_has_writes_and_no_cost_of_its_own() {
    let place = Place::new();
    let report = place.run(&chats(false), &[]).json(0);
    let target = &report["target"];
    assert!((400..420).contains(&target["database_writes"].as_u64().unwrap()), "{target}");
    assert_eq!((&target["cpu_seconds"], &target["rss_bytes_max"]), (&Value::Null, &Value::Null));
}
