//! `batchsql search` before targets whose limit is known.

use std::fs;
use std::process::Stdio;

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::browser;
use crate::database::Database;
use crate::place::{Place, until};

/// Twenty connections to a model that takes 100 ms: 200 requests a second, less what a request costs beside that.
fn two_hundred_a_second() -> Value {
    json!({
        "name": "limit",
        "target": {"http": {
            "client": {"max_per_host": 20, "max_idle_per_host": 20},
            "start": {"upstream": {"latency": {"median": "100ms"}}},
        }},
        "workload": {"proxy_request": {"requests": 1000, "replies": "mock", "mix": [{"chat": {"max_tokens": 4}}]}},
        // The machine of a test is not quiet.
        "load": {"executor": "shared-iterations", "vus": 3, "lag_limit": "10s"},
    })
}

/// The program with these arguments, to its end: code, standard output, standard error. It may take minutes.
fn search(place: &Place, scenario: &Value, more: &[&str]) -> (Option<i32>, String, String) {
    let file = place.write("search.yaml", &scenario.to_string());
    let mut command = place.command(&["search", &file, "--step-duration", "5s"]);
    let ended = command.args(more).stdout(Stdio::piped()).stderr(Stdio::piped()).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (ended.status.code(), text(ended.stdout), text(ended.stderr))
}

fn found(place: &Place, scenario: &Value, more: &[&str], code: i32) -> Value {
    let (ended, printed, said) = search(place, scenario, &[more, &["--json"]].concat());
    assert_eq!(ended, Some(code), "{said}{printed}");
    let printed: Value = serde_json::from_str(&printed).unwrap();
    let folder = place.path("reports").join(printed["search_id"].as_str().unwrap());
    let written: Value = serde_json::from_str(&fs::read_to_string(folder.join("search.json")).unwrap()).unwrap();
    assert_eq!(written, printed);
    for step in printed["steps"].as_array().unwrap() {
        let report: Value =
            serde_json::from_str(&fs::read_to_string(folder.join(step["run_id"].as_str().unwrap()).join("report.json")).unwrap()).unwrap();
        assert_eq!(report["scenario"]["load"]["executor"], "constant-arrival-rate");
        assert_eq!(report["scenario"]["load"]["rate"], step["rate_per_second"]);
        assert_eq!(report["integrity"]["verdict"], step["integrity"]);
    }
    printed
}

#[test]
fn a_known_capacity_is_found_within_the_precision() {
    let place = Place::new();
    let arguments = ["--while", "response.p95 < 400ms", "--from", "150", "--to", "600", "--precision", "20%"];
    let search = found(&place, &two_hundred_a_second(), &arguments, 0);
    assert_eq!(search["outcome"], "found", "{}", search["reasons"]);
    let [held, failed] = ["held_per_second", "failed_per_second"].map(|end| search[end].as_f64().unwrap());
    assert!((150.0..=200.0).contains(&held) && (180.0..=240.0).contains(&failed) && failed / held <= 1.2, "{held} to {failed}");
    let steps = search["steps"].as_array().unwrap();
    for rate in [held, failed] {
        let at = |shown: &str| steps.iter().filter(|step| step["rate_per_second"] == rate && step["shown"] == shown).count() as i64;
        assert!((at("held") - at("failed")).abs() >= 2, "{rate} was not decided by repeated steps: {steps:?}");
    }
    assert!(search["notes"][0].as_str().unwrap().contains("constant-arrival-rate instead of shared-iterations"), "{}", search["notes"]);
    let again = search["reproduce"].as_str().unwrap();
    assert!(again.contains("--while 'response.p95 < 400ms' --from 150 --to 600 --precision 20%"), "{again}");
    let folder = place.path("reports").join(search["search_id"].as_str().unwrap());
    assert!(fs::read_to_string(folder.join("search.md")).unwrap().contains("requests/s hold"));
    let Some(seen) = browser::open(&folder.join("search.html"), [1280, 2000]) else { return };
    assert_eq!(seen.console, Vec::<String>::new());
    assert_eq!((seen.value("held"), seen.value("failed")), (Some(held), Some(failed)));
    for chart in ["latency-by-rate\" data-drawn=\"2", "throughput-by-rate\" data-drawn=\"2"] {
        assert!(seen.dom.contains(&format!("<figure id=\"{chart}\"")), "{chart}");
    }
}

/// Ten a second too much: every gate holds for minutes to come.
#[test]
fn a_target_that_falls_behind_slowly_did_not_hold() {
    let place = Place::new();
    let arguments = ["--while", "response.p99 < 1m", "--from", "215", "--to", "215"];
    let search = found(&place, &two_hundred_a_second(), &arguments, 1);
    assert_eq!((&search["outcome"], &search["held_per_second"]), (&json!("holds_nowhere"), &Value::Null));
    for step in search["steps"].as_array().unwrap() {
        assert!(step["reason"].as_str().unwrap().starts_with("it falls behind: "), "{step}");
        assert!(step["backlog_growth_per_second"].as_f64().unwrap() > 5.0, "{step}");
        assert!(step["response_p99_ms"].as_f64().unwrap() < 5_000.0, "{step}");
    }
    assert!(search["reasons"][0].as_str().unwrap().starts_with("not even 215 a second holds: it falls behind"), "{}", search["reasons"]);
}

fn rows(db: &Database) -> Value {
    let load = json!({"executor": "constant-arrival-rate", "rate": 5, "duration": "1s", "lag_limit": "10s"});
    db.scenario(json!({"pipeline": {"flush_size": 10, "flush_interval": "10ms"}}), load)
}

#[test]
fn a_row_that_is_lost_voids_the_search() {
    let place = Place::new();
    let db = Database::sqlite(&place, "lost");
    let file = place.write("search.yaml", &rows(&db).to_string());
    let arguments = ["search", &file, "--while", "response.p99 < 1m", "--from", "200", "--step-duration", "5s", "--json"];
    let running = place.spawn(place.command(&arguments));
    until("row 7", || {
        let count = rusqlite::Connection::open(place.path("test.db")).ok()?;
        count.busy_timeout(std::time::Duration::from_secs(10)).unwrap();
        count.execute("DELETE FROM lost WHERE id = 7", []).ok().filter(|deleted| *deleted == 1)
    });
    let search = running.end().json(4);
    assert_eq!((&search["outcome"], &search["held_per_second"]), (&json!("void"), &Value::Null));
    assert_eq!(search["steps"].as_array().unwrap().len(), 1);
    assert_eq!((&search["steps"][0]["shown"], &search["steps"][0]["integrity"]), (&json!("void"), &json!("violated")));
}

#[test]
fn steps_that_say_nothing_find_nothing() {
    let place = Place::new();
    let arguments = ["--while", "response.p99 < 1s", "--from", "20", "--to", "20", "--set", "workload.batch_insert.rows=null"];
    let search = found(&place, &rows(&Database::sqlite(&place, "few")), &arguments, 3);
    assert_eq!((&search["outcome"], search["steps"].as_array().unwrap().len()), (&json!("undecided"), 2));
    let reason = search["reasons"][0].as_str().unwrap();
    assert!(reason.contains("too few samples") && reason.ends_with("lengthen --step-duration, or raise --from"), "{reason}");
}

#[test]
fn what_there_is_when_it_is_interrupted_is_written() {
    let place = Place::new();
    let db = Database::sqlite(&place, "stopped");
    let file = place.write("search.yaml", &rows(&db).to_string());
    let mut running = place.spawn(place.command(&["search", &file, "--while", "response.p99 < 1m", "--step-duration", "5s"]));
    running.until("the second step", |it| it.said().contains("step 2, 200 a second").then_some(()));
    running.signal(Signal::SIGINT);
    let ended = running.end();
    assert_eq!(ended.code(), Some(130), "{}", ended.stderr);
    assert!(ended.stderr.contains("at most ") && ended.stderr.contains("step 1, 100 a second held"), "{}", ended.stderr);
    assert!(ended.stdout.contains("interrupted: "), "{}", ended.stdout);
    let folder =
        fs::read_dir(place.path("reports")).unwrap().map(|entry| entry.unwrap().path()).find(|path| path.join("search.json").exists());
    let search: Value = serde_json::from_str(&fs::read_to_string(folder.unwrap().join("search.json")).unwrap()).unwrap();
    assert_eq!(search["outcome"], "interrupted");
    let shown: Vec<_> = search["steps"].as_array().unwrap().iter().map(|step| (&step["rate_per_second"], &step["shown"])).collect();
    assert_eq!(shown, [(&json!(100.0), &json!("held"))]);
}

#[test]
fn what_cannot_be_searched_is_refused_before_anything_runs() {
    let place = Place::new();
    let db = Database::sqlite(&place, "refused");
    let file = place.write("search.yaml", &rows(&db).to_string());
    let refused = |more: &[&str], words: &[&str]| place.batchsql(&[&["search", &file], more].concat()).refused(words);
    refused(&[], &["what is to hold? give --while"]);
    refused(&["--while", "response.p99 < 50"], &["--while", "needs a duration with its unit"]);
    refused(&["--while", "time_to_first_token.p99 < 1s"], &["time_to_first_token"]);
    let gate = ["--while", "response.p99 < 50ms"];
    refused(&[&gate[..], &["--from", "10", "--to", "5"]].concat(), &["--from (10) is above --to (5)"]);
    refused(&[&gate[..], &["--step-duration", "2s"]].concat(), &["--step-duration is 2s; at least 5s"]);
    refused(&[&gate[..], &["--precision", "0.1%"]].concat(), &["--precision is 0.1 %; write 1% to 50%"]);
    refused(&[&gate[..], &["--from", "0"]].concat(), &["--from", "0.01 to 10000000"]);
    refused(&[&gate[..], &["--set", "verify.method=off"]].concat(), &["verify.method is off"]);
    refused(&[&gate[..], &[&file]].concat(), &["search takes one scenario; 2 were named"]);
    assert!(!place.path("reports").exists());
}
