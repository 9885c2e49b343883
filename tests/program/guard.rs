//! A target in trouble is left alone: the guard holds or stops the load, every operation stays accounted for, and the report says so.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};

use crate::database::{Database, Kind};
use crate::gone::Way;
use crate::load::{LATE_IS_FINE, adds_up, number, seconds};
use crate::place::{Place, Running, ask, assert_anomalies, get, until};

const LOG: [&str; 2] = ["--log-file", "guard.log"];

/// Waits until the log tells of this event so many times.
fn await_event(place: &Place, running: &mut Running, event: &str, times: usize) {
    let event = format!("\"event\":\"{event}\"");
    running.until(&event, |_| {
        let told = std::fs::read_to_string(place.path("guard.log")).unwrap_or_default();
        (told.matches(&event).count() >= times).then_some(())
    });
}

/// What the guard did: action and condition.
fn acts(report: &Value) -> Vec<(&str, &str)> {
    let acts = report["guard"].as_array().unwrap_or_else(|| panic!("no guard: {}", report["reasons"])).iter();
    acts.map(|act| (act["action"].as_str().unwrap(), act["condition"].as_str().unwrap())).collect()
}

fn held_seconds(report: &Value) -> f64 {
    report["guard"].as_array().unwrap().iter().map(|act| seconds(&act["duration_seconds"])).sum()
}

fn servers(table: &str) -> impl Iterator<Item = (Place, Database)> {
    let servers = [Database::postgres(table), Database::mariadb(table), Database::mysql(table)];
    servers.into_iter().flatten().map(|db| (Place::new(), db))
}

#[test]
fn a_locked_table_holds_an_arrival_rate_and_what_was_due_meanwhile_is_dropped() {
    for (place, db) in servers("guard_locked") {
        let load = json!({"executor": "constant-arrival-rate", "rate": 200, "duration": "6s"});
        let pipeline = json!({"flush_size": 10, "flush_interval": "20ms"});
        let mut scenario = db.scenario(json!({"pipeline": pipeline}), load);
        scenario["gates"] = json!([LATE_IS_FINE[0]]);
        scenario["guard"] = json!({"p99": "700ms", "window": "1s", "cooldown": "1500ms"});
        let mut running = place.start(&scenario, &LOG);
        running.folder();
        db.await_rows();
        let mut rival = db.user();
        rival.execute(&db.filled(match db.kind {
            Kind::Postgres => "BEGIN; LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE",
            _ => "LOCK TABLES {table} WRITE",
        }));
        await_event(&place, &mut running, "guard_hold", 1);
        rival.execute(if db.kind == Kind::Postgres { "COMMIT" } else { "UNLOCK TABLES" });
        let ended = running.end();
        let report = ended.json(3);
        adds_up(&report);
        assert_anomalies(&report["integrity"], &[]);
        let outcomes = &report["outcomes"];
        assert_eq!((number(&outcomes["offered"]), number(&outcomes["rejected"]), number(&outcomes["unknown"])), (1200, 0, 0));
        assert_eq!(acts(&report), [("hold", "p99")], "{}", report["guard"]);
        let held = held_seconds(&report);
        let (began, dropped) = (seconds(&report["guard"][0]["at_seconds"]), number(&outcomes["dropped"]) as f64);
        assert!(held >= 1.5 && began + held < 6.0, "it went on afterwards: {}", report["guard"]);
        assert!((held * 200.0 - 2.0..=held * 200.0 + 20.0).contains(&dropped), "{held} s, {dropped} dropped");
        assert_eq!(report["integrity"]["checked"], outcomes["acknowledged"]);
        let reasons = report["reasons"].as_array().unwrap();
        let told = reasons.last().unwrap().as_str().unwrap();
        assert!(told.starts_with("the load was not offered as asked: its guard held it once, "), "{told}");
        assert!(told.contains("(guard.p99: 700ms)"), "{told}");
        let page = std::fs::read_to_string(place.run_folders()[0].join("report.md")).unwrap();
        assert!(page.contains("| Guard | held after "), "{page}");
    }
}

#[test]
fn a_server_that_is_away_for_a_while_holds_the_workers_and_the_metrics_say_so() {
    for (place, db) in servers("guard_away") {
        let way = Way::to(&db);
        let load = json!({"executor": "shared-iterations", "vus": 4, "think_time": "1ms"});
        let pipeline = json!({"flush_size": 10, "buffer_size": 20, "retry": {"attempts": 2, "base": "5ms"}});
        let mut scenario = db.scenario(json!({"rows": 3000, "pipeline": pipeline}), load);
        scenario["guard"] = json!({"error_rate": "50%", "window": "1s", "cooldown": "1s"});
        let mut running = place.start(&scenario, &[&LOG[..], &["--database-url", &way.url, "--metrics-listen", "127.0.0.1:0"]].concat());
        let address = running.metrics_address();
        running.until_ledger_has(2000);
        way.cut(true);
        await_event(&place, &mut running, "guard_hold", 1);
        let metrics = get(address, "/metrics");
        let shown = |name: &str| {
            let line = metrics.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("{name}\n{metrics}"));
            line.rsplit_once(' ').unwrap().1.to_owned()
        };
        assert_eq!([shown("batchsql_guard_holding{"), shown("batchsql_guard_holds_total{")], ["1", "1"]);
        way.open();
        let report = running.end().json(3);
        adds_up(&report);
        assert_anomalies(&report["integrity"], &[]);
        let outcomes = &report["outcomes"];
        assert_eq!((&outcomes["offered"], &outcomes["dropped"]), (&json!(3000), &json!(0)), "workers wait, and every row is offered");
        assert!(acts(&report).iter().all(|act| *act == ("hold", "error_rate")), "{}", report["guard"]);
        assert!(number(&outcomes["acknowledged"]) > 2000 && number(&outcomes["rejected"]) > 0, "it went on: {outcomes}");
        let errors = report["gates"].as_array().unwrap().iter().find(|gate| gate["verdict"] != "pass").unwrap();
        let message = errors["message"].as_str().unwrap();
        assert!(errors["implicit"] == true && message.ends_with("; the guard acted on a target in trouble"), "{errors}");
        // A gate of the scenario is graver than the guard's doing.
        assert_eq!(report["verdict"], "inconclusive");
    }
}

#[test]
fn a_gate_of_the_scenario_is_graver_than_a_stop() {
    let place = Place::new();
    let db = Database::sqlite(&place, "guard_stop");
    let load = json!({"executor": "constant-vus", "vus": 2, "duration": "60s", "think_time": "1ms"});
    let mut scenario = db.scenario(json!({"pipeline": {"flush_size": 10, "flush_interval": "10ms"}}), load);
    scenario["guard"] = json!({"error_rate": "20%", "window": "1s", "action": "stop"});
    for (gates, code) in [(json!([]), 3), (json!(["error_rate < 1%"]), 1)] {
        scenario["gates"] = gates;
        let mut running = place.start(&scenario, &[]);
        running.until_ledger_has(1000);
        db.execute("CREATE TRIGGER no BEFORE INSERT ON {table} BEGIN SELECT RAISE(ABORT, 'no more'); END");
        let report = running.end().json(code);
        adds_up(&report);
        assert_anomalies(&report["integrity"], &[]);
        assert_eq!(acts(&report), [("stop", "error_rate")]);
        assert!(number(&report["outcomes"]["rejected"]) > 0 && seconds(&report["duration_seconds"]) < 30.0);
        assert_eq!(report["interrupted"], false, "nobody stopped it from outside");
    }
}

/// Every executor, with as little as it needs.
fn executors() -> [Value; 5] {
    let stages = |target: u32| json!([{"duration": "5s", "target": target}]);
    [
        json!({"executor": "shared-iterations", "vus": 4, "think_time": "5ms"}),
        json!({"executor": "constant-vus", "vus": 4, "duration": "5s", "think_time": "5ms"}),
        json!({"executor": "ramping-vus", "stages": stages(8), "think_time": "5ms"}),
        json!({"executor": "constant-arrival-rate", "rate": 100, "duration": "5s"}),
        json!({"executor": "ramping-arrival-rate", "rate": 50, "stages": stages(100)}),
    ]
}

/// One hold and, because it does not help, a stop; nothing was offered in between.
fn assert_held_and_stopped(report: &Value, executor: &Value) {
    adds_up(report);
    assert_eq!(acts(report), [("hold", "p99"), ("stop", "p99")], "{executor}");
    assert_anomalies(&report["integrity"], &[]);
    let open = executor["executor"].as_str().unwrap().contains("arrival");
    assert_eq!(number(&report["outcomes"]["dropped"]) > 0, open, "{executor}: {}", report["outcomes"]);
    let (from, lasted) = (seconds(&report["guard"][0]["at_seconds"]), seconds(&report["guard"][0]["duration_seconds"]));
    assert!((0.9..2.0).contains(&lasted), "{executor}: {lasted}");
    let ran = |second: &&Value| {
        let at = number(&second["second"]) as f64;
        at >= from && at + 1.0 <= from + lasted && number(&second["offered"]) > number(&second["dropped"])
    };
    assert_eq!(report["timeline"].as_array().unwrap().iter().filter(ran).count(), 0, "{executor}: {}", report["timeline"]);
}

#[test]
fn every_executor_of_rows_can_be_held_and_stopped() {
    for executor in executors() {
        let place = Place::new();
        let rows = if executor["executor"] == "shared-iterations" { json!(100_000) } else { Value::Null };
        let mut insert = json!({"pipeline": {"flush_size": 100, "flush_interval": "60ms"}});
        if !rows.is_null() {
            insert["rows"] = rows;
        }
        let mut scenario = Database::sqlite(&place, "guard_each").scenario(insert, executor.clone());
        if executor["executor"].as_str().unwrap().contains("arrival") {
            scenario["gates"] = json!([LATE_IS_FINE[0]]);
        }
        // A batch that waits to fill takes longer than that.
        scenario["guard"] = json!({"p99": "30ms", "window": "1s", "cooldown": "1s", "max_holds": 1});
        assert_held_and_stopped(&place.run(&scenario, &[]).json(3), &executor);
    }
}

#[test]
fn every_executor_of_requests_can_be_held_and_stopped_before_an_upstream_that_stalls() {
    for executor in executors() {
        let place = Place::new();
        let mut scenario = json!({
            "name": "guard_stalls",
            "target": {"http": {"start": {"upstream": {"stalls": {"share": 1.0, "for": "300ms"}}}}},
            "workload": {"proxy_request": {"replies": "mock", "mix": [{"chat": {"stream": true, "max_tokens": 4}}]}},
            "load": executor,
            "guard": {"p99": "200ms", "window": "1s", "cooldown": "1s", "max_holds": 1},
        });
        if executor["executor"] == "shared-iterations" {
            scenario["workload"]["proxy_request"]["requests"] = json!(100_000);
        } else if executor["executor"].as_str().unwrap().contains("arrival") {
            scenario["gates"] = json!([LATE_IS_FINE[0]]);
        }
        assert_held_and_stopped(&place.run(&scenario, &[]).json(3), &executor);
    }
}

/// A real Prometheus that scrapes the job `pg` at a port; it ends with the test.
struct Prometheus {
    child: Child,
    port: u16,
}

impl Prometheus {
    fn start(place: &Place, scraped: u16) -> Option<Self> {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let jobs = json!({"global": {"scrape_interval": "200ms", "scrape_timeout": "200ms"}, "scrape_configs": [
            {"job_name": "pg", "static_configs": [{"targets": [format!("127.0.0.1:{scraped}")]}]}
        ]});
        let mut command = Command::new("prometheus");
        command.args([
            format!("--config.file={}", place.write("prometheus.yml", &jobs.to_string())),
            format!("--storage.tsdb.path={}", place.name("prometheus")),
            format!("--web.listen-address=127.0.0.1:{port}"),
        ]);
        let Ok(child) = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn() else {
            println!("left out: prometheus is not installed");
            return None;
        };
        let server = Self { child, port };
        until("a Prometheus that has scraped", || {
            let answer = ask(([127, 0, 0, 1], port).into(), "/api/v1/query?query=up").ok()?;
            answer.contains("\"pg\"").then_some(())
        });
        Some(server)
    }

    fn guard(&self) -> Value {
        json!({"up": {"prometheus": format!("http://127.0.0.1:{}", self.port), "query": "up{job=\"pg\"}", "for": "1s"}, "cooldown": "1s"})
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_target_that_prometheus_calls_down_is_left_alone_until_it_is_up() {
    let place = Place::new();
    let exporter = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = exporter.local_addr().unwrap().port();
    drop(exporter);
    let Some(prometheus) = Prometheus::start(&place, port) else { return };
    let load = json!({"executor": "shared-iterations", "vus": 1, "think_time": "1ms"});
    let mut scenario = Database::sqlite(&place, "guard_up").scenario(json!({"rows": 2500}), load);
    scenario["guard"] = prometheus.guard();
    let mut running = place.start(&scenario, &LOG);
    // The second follows the first, because the series is still 0.
    await_event(&place, &mut running, "guard_hold", 2);
    let exporter = TcpListener::bind(("127.0.0.1", port)).unwrap();
    std::thread::spawn(move || {
        for stream in exporter.incoming() {
            let mut stream = stream.unwrap();
            let _ = stream.read(&mut [0; 4096]);
            let _ = stream.write_all(
                b"HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4\r\nContent-Length: 5\r\nConnection: close\r\n\r\npg 1\n",
            );
        }
    });
    let report = running.end().json(3);
    adds_up(&report);
    assert_anomalies(&report["integrity"], &[]);
    assert_eq!((&report["outcomes"]["acknowledged"], &report["outcomes"]["dropped"]), (&json!(2500), &json!(0)));
    assert!(acts(&report).len() >= 2 && acts(&report).iter().all(|act| *act == ("hold", "up")), "{}", report["guard"]);
    let reason = report["guard"][0]["reason"].as_str().unwrap();
    assert!(reason.starts_with("up{job=\"pg\"} has been 0 for 1s") || reason.starts_with("up{job=\"pg\"} has been 0 for 1"), "{reason}");
}

#[test]
fn a_prometheus_that_does_not_answer_is_told_once_and_is_no_trouble() {
    let place = Place::new();
    let load = json!({"executor": "constant-vus", "vus": 1, "duration": "3s", "think_time": "1ms"});
    let mut scenario = Database::sqlite(&place, "guard_deaf").scenario(json!({}), load);
    scenario["guard"] = json!({"up": {"prometheus": "http://u:canary@127.0.0.1:9", "query": "up", "for": "1s"}});
    let ended = place.run(&scenario, &[]);
    let report = ended.json(0);
    assert_eq!(report.get("guard"), None);
    let told = "batchsql: guard.up: Prometheus at http://127.0.0.1:9/: not reachable: ";
    assert_eq!(ended.stderr.matches(told).count(), 1, "{}", ended.stderr);
    assert!(!ended.stderr.contains("canary") && !place.run_folders().is_empty());
    assert_eq!(report["scenario"]["guard"]["up"]["prometheus"], "http://u:***@127.0.0.1:9");
}

#[test]
fn a_guard_that_cannot_be_is_refused_with_its_place() {
    let place = Place::new();
    let file = place.write(
        "guard.yaml",
        "name: g\ntarget: {sqlite: {}}\nworkload: {batch_insert: {rows: 1}}\nload: {executor: shared-iterations}\nguard:\n  action: stop\n  cooldown: 3s\n",
    );
    let ended = place.batchsql(&["check", &file]);
    ended.refused(&["guard.yaml:6:3: guard: has no condition", "guard.yaml:7:13: guard.cooldown: action: stop has no use for cooldown"]);
}
