//! What holds data back or strikes connections whole, under real load: how the load feels it, and that nothing is lost by it.

use serde_json::{Value, json};

use super::{ended, harm, number, once, outcomes, scenario, servers};
use crate::database::Database;
use crate::place::{Place, get};

/// One worker that writes row by row, so that a batch is a round trip or two; the load ends when nearly all of them are answered.
fn one_by_one(db: &Database, rows: u64, fault: Value) -> Value {
    let mut scenario = scenario(db, json!({"pipeline": {"concurrency": 1, "buffer_size": 1}}), fault);
    let insert = &mut scenario["workload"]["batch_insert"];
    (insert["rows"], insert["pipeline"]["flush_size"]) = (json!(rows), json!(1));
    scenario["load"] = json!({"executor": "constant-vus", "vus": 1, "duration": "3s", "think_time": "20ms"});
    scenario["faults"][0]["for"] = json!("10s");
    scenario
}

fn milliseconds(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("{value} is no time"))
}

#[test]
fn latency_is_felt_at_each_round_trip() {
    for db in servers("net_latency") {
        let fault = json!({"kind": "latency", "latency": "40ms", "jitter": "10ms"});
        let (report, fault) = ended(&Place::new(), &one_by_one(&db, 1000, fault), 0, &[]);
        let p75 = milliseconds(&report["latency"]["service"]["p75_ms"]);
        // A row is at least a round trip, 40 ms each way; MySQL's warnings are another one. The first ones came before the fault.
        assert!((80.0..1000.0).contains(&p75), "{p75}");
        assert_eq!((&fault["struck"], outcomes(&report)[1], outcomes(&report)[2]), (&Value::Null, 0, 0));
    }
}

#[test]
fn bandwidth_bounds_what_is_written() {
    for db in servers("net_bandwidth") {
        let fault = json!({"kind": "bandwidth", "bytes_per_second": 30_000});
        let mut scenario = scenario(&db, json!({"pipeline": {"concurrency": 1, "buffer_size": 100}}), fault);
        (scenario["faults"][0]["for"], scenario["target"]["pool"]["statement_timeout"]) = (json!("60s"), json!("60s"));
        let content = json!({"size": {"min": 100, "max": 100}});
        scenario["workload"]["batch_insert"]["content"] = content;
        scenario["load"] = json!({"executor": "shared-iterations", "vus": 1});
        scenario["faults"][0]["at"] = json!("0s");
        let report = Place::new().run(&scenario, &[]).json(0);
        // 800 rows of a bit more than 300 bytes at 30,000 bytes a second; the first batch may be through before.
        let took = milliseconds(&report["phases"][0]["duration_seconds"]) + milliseconds(&report["phases"][1]["duration_seconds"]);
        assert!((5.0..60.0).contains(&took), "{took}: {}", report["phases"]);
        assert_eq!(outcomes(&report), [800, 0, 0]);
    }
}

#[test]
fn slices_pass_whole() {
    for db in servers("net_slice") {
        let fault = json!({"kind": "slice", "bytes": 500, "pause": "1ms"});
        let (report, _) = ended(&Place::new(), &scenario(&db, json!({}), fault), 0, &[]);
        assert_eq!(outcomes(&report), [800, 0, 0]);
    }
}

#[test]
fn a_reset_of_idle_connections_costs_a_retry() {
    for db in servers("net_reset") {
        let mut fault = json!({"kind": "reset"});
        fault["for"] = json!("1ms");
        let mut scenario = scenario(&db, json!({"pipeline": {"concurrency": 1}}), fault);
        scenario["faults"][0]["at"] = json!("250ms");
        let (report, fault) = ended(&Place::new(), &scenario, 0, &[]);
        // The pool's connection, and that of a batch if one was under way; its outcome may stand open.
        assert!((1..=2).contains(&number(&fault["struck"])), "{fault}");
        let ([acknowledged, rejected, unknown], [lost, stored, absent, _]) = (outcomes(&report), harm(&fault));
        assert_eq!((acknowledged + unknown, rejected, lost, stored + absent), (800, 0, 0, unknown));
        assert_eq!(number(&fault["retries"]), 1);
    }
}

#[test]
fn in_a_black_hole_batches_time_out_and_afterwards_all_goes_on() {
    for db in servers("net_black_hole") {
        let fault = json!({"kind": "black_hole", "for": "500ms"});
        let mut scenario = scenario(&db, json!({"conflict": "ignore", "pipeline": {"retry": {"attempts": 20}}}), fault);
        scenario["target"]["pool"]["statement_timeout"] = json!("100ms");
        let (report, fault) = ended(&Place::new(), &scenario, 0, &[]);
        assert_eq!(outcomes(&report), [800, 0, 0]);
        assert!(number(&fault["retries"]) >= 1 && number(&fault["struck"]) >= 1, "{fault}");
        assert!(number(&report["errors"]["retry:timeout"]) >= 1, "{}", report["errors"]);
        assert!(milliseconds(&fault["recovery_seconds"]) < 10.0, "{fault}");
    }
}

#[test]
fn a_batch_on_a_half_open_connection_times_out_and_the_next_one_finds_another() {
    for db in servers("net_half_open") {
        let fault = json!({"kind": "half_open", "for": "650ms"});
        let mut scenario = scenario(&db, json!({"pipeline": once()}), fault);
        scenario["workload"]["batch_insert"]["pipeline"]["concurrency"] = json!(1);
        scenario["target"]["pool"]["statement_timeout"] = json!("300ms");
        let (report, fault) = ended(&Place::new(), &scenario, 0, &[]);
        // The pool's connection, and perhaps one that has just made the table.
        assert!((1..=2).contains(&number(&fault["struck"])), "{fault}");
        let [lost, stored, absent, _] = harm(&fault);
        // A batch that was under way may have come through on the server's side.
        assert_eq!((outcomes(&report), lost, stored + absent), ([700, 0, 100], 0, 100));
        assert_eq!(report["errors"]["final:timeout"], 1, "{}", report["errors"]);
    }
}

#[test]
fn a_fault_is_on_the_timeline_in_the_metrics_and_on_the_page() {
    let Some(db) = Database::postgres("net_shown") else { return };
    let place = Place::new();
    let fault = json!({"kind": "latency", "latency": "20ms", "for": "1s"});
    let mut scenario = scenario(&db, json!({}), fault);
    (scenario["faults"][0]["at"], scenario["load"]["duration"], scenario["workload"]["batch_insert"]["rows"]) =
        (json!("1100ms"), json!("3s"), json!(3000));
    let mut running = place.start(&scenario, &["--metrics-listen", "127.0.0.1:0"]);
    let address = running.metrics_address();
    let active = |value: &str| {
        let line = get(address, "/metrics").lines().find(|line| line.starts_with("batchsql_fault_active{")).map(str::to_owned);
        line.filter(|line| line.contains("kind=\"latency\"") && line.ends_with(value))
    };
    running.until("the fault's beginning in the metrics", |_| active(" 1"));
    running.until("its end", |_| active(" 0"));
    let report = running.end().json(0);
    let faults: Vec<_> = report["timeline"].as_array().unwrap().iter().map(|second| second["faults"].as_str().unwrap()).collect();
    assert_eq!(faults[..3], ["", "latency", "latency"], "from 1.1 s to 2.1 s");
    let folder = place.run_folders().remove(0);
    let read = |name: &str| std::fs::read_to_string(folder.join(name)).unwrap();
    let csv = read("timeline.csv");
    assert!(csv.lines().next().unwrap().ends_with(",faults") && csv.lines().nth(2).unwrap().ends_with(",latency"), "{csv}");
    assert!(read("report.html").contains("latency (latency 20ms)") && read("report.md").contains("latency (latency 20ms)"));
}
