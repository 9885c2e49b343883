//! The wall clock jumps by an hour, forth and back, while a load goes on: nothing that was measured may notice.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::{count, number};
use crate::database::Database;
use crate::place::{Place, Running, assert_anomalies};

/// What answers the program's questions for the wall clock, from Debian's package libfaketime.
fn libfaketime() -> Option<PathBuf> {
    let mut folders =
        std::fs::read_dir("/usr/lib").ok()?.filter_map(Result::ok).map(|entry| entry.path().join("faketime/libfaketime.so.1"));
    let found = folders.find(|path| path.exists());
    if found.is_none() {
        println!("left out: libfaketime is not installed");
    }
    found
}

/// Runs `scenario` with a wall clock that jumps an hour ahead, and then an hour behind where it began. The clock of durations is the
/// system's own.
fn with_jumps(library: &Path, place: &Place, scenario: &Value) -> Value {
    let offset = |text: &str| {
        place.write("offset.new", text);
        std::fs::rename(place.path("offset.new"), place.path("offset")).unwrap();
    };
    offset("+0");
    let file = place.write("scenario.yaml", &scenario.to_string());
    let log = place.name("log.jsonl");
    let arguments = ["run", "--json", "--no-metrics", "--report-dir", "reports", "--log-format", "json", "--log-file", &log, &file];
    let mut command = place.command(&arguments);
    command.env("LD_PRELOAD", library).env("FAKETIME_TIMESTAMP_FILE", place.path("offset")).env("FAKETIME_NO_CACHE", "1");
    command.env("FAKETIME_DONT_FAKE_MONOTONIC", "1").env("NO_FAKE_STAT", "1");
    let mut running = place.spawn(command);
    let folder = running.folder();
    let grows = |running: &mut Running| {
        let length = || std::fs::metadata(folder.join("ledger")).unwrap().len();
        let before = length();
        running.until("a longer ledger", |_| (length() > before + 2_000).then_some(()));
    };
    for jump in ["+3600s", "-3600s"] {
        grows(&mut running);
        offset(jump);
    }
    grows(&mut running);
    let report = running.end().json(0);
    let log = std::fs::read_to_string(log).unwrap();
    let time = |line: &str| serde_json::from_str::<Value>(line).unwrap()["timestamp"].as_str().unwrap()[..13].to_owned();
    let hours: BTreeSet<String> = log.lines().map(time).collect();
    assert!(hours.len() > 1, "the clock has not jumped: {hours:?}");
    report
}

fn assert_like_without(report: &Value, seconds: f64, rate: u64) {
    assert_anomalies(&report["integrity"], &[]);
    let main = report["phases"].as_array().unwrap().iter().find(|phase| phase["name"] == "main").unwrap();
    assert!((seconds - 0.1..seconds + 1.0).contains(&number(&main["duration_seconds"])), "{main}");
    assert!((seconds..seconds + 20.0).contains(&number(&report["duration_seconds"])), "{}", report["duration_seconds"]);
    let timeline = report["timeline"].as_array().unwrap();
    assert!((seconds as usize..=seconds as usize + 2).contains(&timeline.len()), "{timeline:?}");
    for (second, line) in timeline.iter().take(seconds as usize).enumerate() {
        assert_eq!(line["second"], second, "{line}");
        assert!(rate == 0 || line["offered"].as_u64().unwrap().abs_diff(rate) <= rate / 50, "{line}");
    }
    for time in ["response", "service", "lag"] {
        let most = &report["latency"][time]["max_ms"];
        // Closed executors have no lag.
        assert!(most.as_f64().is_some_and(|most| most < 3_000.0) || (rate == 0 && time == "lag"), "{time}: {}", report["latency"][time]);
    }
}

#[test]
fn batches_do_not_notice_a_clock_that_jumps() {
    let Some(library) = libfaketime() else { return };
    let open = json!({"executor": "constant-arrival-rate", "rate": 1000, "duration": "4s", "lag_limit": "10s"});
    let closed = json!({"executor": "constant-vus", "vus": 2, "duration": "4s", "think_time": "2ms"});
    for (rate, load) in [(1000, open), (0, closed)] {
        let place = Place::new();
        let db = Database::sqlite(&place, "clock");
        let scenario = db.scenario(json!({"pipeline": {"flush_size": 10, "flush_interval": "20ms"}}), load);
        let report = with_jumps(&library, &place, &scenario);
        assert_like_without(&report, 4.0, rate);
        if rate > 0 {
            assert_eq!((count(&report, "offered"), count(&report, "dropped")), (4 * rate, 0));
        }
    }
}

#[test]
fn requests_do_not_notice_a_clock_that_jumps() {
    let Some(library) = libfaketime() else { return };
    let open = json!({"executor": "constant-arrival-rate", "rate": 300, "duration": "4s", "lag_limit": "10s"});
    let closed = json!({"executor": "constant-vus", "vus": 2, "duration": "4s", "think_time": "5ms"});
    for (rate, load) in [(300, open), (0, closed)] {
        let scenario = json!({
            "name": "clock",
            "target": {"http": {"start": {"upstream": {"token_interval": "2ms"}, "gateway": {"access_log": false}}}},
            "workload": {"proxy_request": {"replies": "mock", "users": [{"name": "ann"}], "mix": [
                {"name": "chat", "weight": 1, "chat": {"max_tokens": 4}},
                {"name": "stream", "weight": 1, "chat": {"stream": true, "max_tokens": 4}},
            ]}},
            "load": load,
            "reconcile": {},
        });
        let report = with_jumps(&library, &Place::new(), &scenario);
        assert_like_without(&report, 4.0, rate);
        if rate > 0 {
            assert_eq!((count(&report, "acknowledged"), count(&report, "dropped")), (4 * rate, 0));
        }
        let gap = &report["http"]["streams"]["token_gap"]["max_ms"];
        assert!(gap.is_null() || number(gap) < 2_000.0, "{gap}");
    }
}
