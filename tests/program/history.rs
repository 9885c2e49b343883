//! Past runs: kept, found again whatever becomes of the store, and read for what moved and what is unlike the rest.

use std::fs;
use std::path::Path;

use rusqlite::Connection;
use serde_json::{Value, json};

use crate::place::{Ended, Place};

pub(crate) fn scenario() -> Value {
    json!({"name": "kept", "target": {"sqlite": {}}, "workload": {"batch_insert": {"rows": 500}}, "load": {"executor": "shared-iterations"}})
}

fn history(place: &Place, arguments: &[&str]) -> Ended {
    place.batchsql(&[&["history"], arguments].concat())
}

fn stored(file: &Path) -> i64 {
    Connection::open(file).unwrap().query_row("SELECT count(*) FROM run", [], |row| row.get(0)).unwrap()
}

/// A report of the past: that of `report`, an hour later each, with this p99 and commit.
pub(crate) fn plant(place: &Place, report: &Value, number: usize, p99: f64, commit: &str) -> String {
    let (day, hour) = (number / 20 + 1, number % 20);
    let id = format!("202601{day:02}-{hour:02}0000-kept-{number:04}");
    let mut planted = report.clone();
    planted["run_id"] = json!(id);
    planted["started_at"] = json!(format!("2026-01-{day:02}T{hour:02}:00:00Z"));
    planted["environment"]["git_commit"] = json!(commit);
    for (point, factor) in [("p50_ms", 0.3), ("p95_ms", 0.8), ("p99_ms", 1.0)] {
        planted["latency"]["response"][point] = json!(p99 * factor);
        planted["latency"]["service"][point] = json!(p99 * factor);
    }
    planted["throughput"]["rows_per_second"] = json!(10_000.0 / p99);
    let folder = place.path(&format!("reports/{id}"));
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("report.json"), planted.to_string()).unwrap();
    id
}

/// The report of a real run, of which nothing else stays.
fn template(place: &Place) -> Value {
    let report = place.run(&scenario(), &[]).json(0);
    fs::remove_dir_all(place.path("reports")).unwrap();
    report
}

/// Noise of a few percent that is the same each time.
pub(crate) fn noise(number: usize) -> f64 {
    1.0 + 0.01 * ((number * 7919 + 13) % 9) as f64
}

const BEFORE: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
const AFTER: &str = "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb";

#[test]
fn every_run_is_kept_and_shown() {
    let place = Place::new();
    let id = place.run(&scenario(), &[]).json(0)["run_id"].as_str().unwrap().to_owned();
    let file = place.path("reports/history.db");
    assert_eq!(stored(&file), 1);
    let second = place.run(&scenario(), &["--history", "elsewhere.db", "--seed", "7"]).json(0)["run_id"].as_str().unwrap().to_owned();
    assert_eq!((stored(&file), stored(&place.path("elsewhere.db"))), (1, 1));
    let found = history(&place, &["--json"]).json(0);
    let group = &found["groups"][0];
    assert_eq!((found["groups"].as_array().unwrap().len(), &group["scenario"]), (1, &json!("kept")), "another seed is the same scenario");
    assert_eq!((&group["runs"][0]["run_id"], &group["runs"][1]["run_id"]), (&json!(second), &json!(id)));
    let run = &group["runs"][1];
    assert_eq!((&run["verdict"], &run["integrity"], &run["outcomes"]["acknowledged"]), (&json!("pass"), &json!("holds"), &json!(500)));
    assert!(run["figures"]["rows_per_second"].as_f64().unwrap() > 0.0 && run["fingerprint"]["cores"].as_u64().unwrap() > 0, "{run}");
    assert_eq!(group["response"]["count"], 1000, "of both runs' histograms");
    assert_eq!(stored(&file), 2, "what was missing was picked up");
    let overview = history(&place, &[]).stdout;
    assert!(overview.contains("kept") && overview.contains(&second), "{overview}");
    let details = history(&place, &["kept"]).stdout;
    assert!(details.contains(&id) && details.contains("pass") && details.contains("rows_per_second"), "{details}");
    history(&place, &["other"]).refused(&["other: no run of this scenario is known", "kept"]);
    history(&place, &["--report-dir", "nowhere"]).refused(&["--report-dir nowhere", "no such folder"]);
}

#[test]
fn runs_of_a_comparison_are_kept_with_the_others() {
    let place = Place::new();
    let file = place.write("kept.yaml", &scenario().to_string());
    let ended = place.batchsql(&["compare", &file, "--aa", "--pairs", "1", "--json"]);
    assert_eq!(ended.code(), Some(0), "{}", ended.stderr);
    assert_eq!(stored(&place.path("reports/history.db")), 2);
    fs::remove_file(place.path("reports/history.db")).unwrap();
    assert_eq!(history(&place, &["--json"]).json(0)["groups"][0]["runs"].as_array().unwrap().len(), 2, "and found in its folder");
}

#[test]
fn a_locked_store_loses_nothing() {
    let place = Place::new();
    place.run(&scenario(), &[]).json(0);
    let file = place.path("reports/history.db");
    let holder = Connection::open(&file).unwrap();
    holder.execute_batch("BEGIN IMMEDIATE").unwrap();
    let run = place.run(&scenario(), &[]);
    let id = run.json(0)["run_id"].as_str().unwrap().to_owned();
    assert!(run.stderr.contains("is locked by another process") && run.stderr.contains("batchsql history"), "{}", run.stderr);
    assert!(place.path(&format!("reports/{id}/report.json")).is_file());
    let shown = history(&place, &["--json"]);
    let found = shown.json(0);
    assert_eq!(found["groups"][0]["runs"].as_array().unwrap().len(), 2, "{found}");
    assert!(found["notes"].to_string().contains("is locked by another process"), "{}", found["notes"]);
    drop(holder);
    assert_eq!(history(&place, &["--json"]).json(0)["notes"], json!([]));
    assert_eq!(stored(&file), 2);
}

#[test]
fn a_damaged_store_is_put_aside_and_made_again() {
    let place = Place::new();
    place.run(&scenario(), &[]).json(0);
    let file = place.path("reports/history.db");
    fs::write(&file, vec![0x5a; 20_000]).unwrap();
    let run = place.run(&scenario(), &[]);
    run.json(0);
    assert!(run.stderr.contains("is damaged"), "{}", run.stderr);
    let found = history(&place, &["--json"]).json(0);
    assert_eq!(found["groups"][0]["runs"].as_array().unwrap().len(), 2);
    assert!(found["notes"][0].as_str().unwrap().contains("history.db.damaged-"), "{}", found["notes"]);
    let aside = fs::read_dir(place.path("reports")).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let aside: Vec<String> = aside.filter(|name| name.starts_with("history.db.damaged-")).collect();
    assert_eq!(fs::read(place.path("reports").join(&aside[0])).unwrap(), vec![0x5a; 20_000], "as it was");
    assert_eq!(stored(&file), 2);
    Connection::open(&file).unwrap().pragma_update(None, "user_version", 9).unwrap();
    history(&place, &[]).refused(&["has version 9, this program knows 1"]);
}

#[test]
fn a_planted_change_names_its_commit_and_a_flat_series_has_none() {
    let place = Place::new();
    let report = template(&place);
    for number in 0..20 {
        plant(&place, &report, number, 10.0 * noise(number), BEFORE);
    }
    let flat = history(&place, &["kept", "--json"]).json(0);
    assert_eq!((&flat["groups"][0]["changes"], flat["groups"][0]["runs"].as_array().unwrap().len()), (&json!([]), 20));
    let first = [20, 21, 22, 23, 24, 25, 26, 27].map(|number| plant(&place, &report, number, 13.0 * noise(number), AFTER))[0].clone();
    let found = history(&place, &["kept", "--json"]).json(0);
    let changes = found["groups"][0]["changes"].as_array().unwrap();
    let p99 = changes.iter().find(|change| change["figure"] == "response.p99").unwrap_or_else(|| panic!("{changes:?}"));
    assert_eq!((&p99["commit"], &p99["last_commit_before"], &p99["run_id"]), (&json!(AFTER), &json!(BEFORE), &json!(first)));
    assert!((p99["change_percent"].as_f64().unwrap() - 30.0).abs() < 4.0 && p99["worse"] == true, "{p99}");
    let words = history(&place, &["kept"]).stdout;
    assert!(
        words.contains("change: response.p99 rose by") && words.contains("after commit aaaaaaaaaaaa, first seen with bbbbbbbbbbbb"),
        "{words}"
    );
}

#[test]
fn a_planted_anomaly_is_above_and_the_month_says_it() {
    let place = Place::new();
    let report = template(&place);
    for number in 0..19 {
        plant(&place, &report, number, 10.0 * noise(number), BEFORE);
    }
    assert_eq!(history(&place, &["kept", "--json"]).json(0)["groups"][0]["anomalies"], json!([]));
    let odd = plant(&place, &report, 19, 25.0, BEFORE);
    let found = history(&place, &["kept", "--json"]).json(0);
    let anomaly = &found["groups"][0]["anomalies"][0];
    assert_eq!(anomaly["run_id"], json!(odd));
    assert!(anomaly["score"].as_f64().unwrap() > 0.8 && anomaly["score"].as_f64().unwrap() <= 1.0, "{anomaly}");
    assert!(history(&place, &["kept"]).stdout.contains(&format!("in {odd}")));
    let written = place.batchsql(&["report", "--since", "3650d"]);
    assert_eq!(written.code(), Some(0), "{}", written.stderr);
    let name = written.stdout.trim();
    assert!(name.starts_with("reports/monthly-report-") && name.ends_with(".md"), "{name}");
    let page = fs::read_to_string(place.path(name)).unwrap();
    for expected in [
        "20 runs.",
        "| Availability | ",
        "| Success | 100 % of 10,000 attempted",
        "20 passed, 0 failed",
        "## Suggestions",
        &odd,
        "no baseline",
    ] {
        assert!(page.contains(expected), "{expected} is missing in:\n{page}");
    }
    place.batchsql(&["report", "--since", "soon"]).refused(&["--since", "30d"]);
    place.batchsql(&["report"]).refused(&["--since"]);
}

#[test]
fn an_incident_is_written_up_and_what_people_filled_in_stays() {
    let place = Place::new();
    let id = place.run(&scenario(), &["--set", "gates=[\"rows_per_second > 1000000000\"]"]).json(1)["run_id"].as_str().unwrap().to_owned();
    let now = jiff::Timestamp::now().to_string();
    let alert = json!({"status": "firing", "labels": {"alertname": "SlowWrites"}, "startsAt": "2026-01-01T00:00:00Z", "received_at": now, "fingerprint": "f"});
    place.write("reports/alerts.jsonl", &format!("{alert}\n"));
    let written = place.batchsql(&["report", "--incident", &id]);
    assert_eq!(written.code(), Some(0), "{}", written.stderr);
    let name = written.stdout.trim();
    let page = fs::read_to_string(place.path(name)).unwrap();
    let minute = &id[..13];
    assert_eq!(name, format!("reports/incident-report-{minute}.md"));
    for expected in [
        &format!("# INC-{minute}: kept"),
        "2: a gate was missed",
        "rows\\_per\\_second",
        "verdict: fail",
        "alert SlowWrites fires",
        "## Cause",
        "_to be filled in_",
    ] {
        let plain = expected.replace("\\_", "_");
        assert!(page.contains(expected) || page.contains(&plain), "{expected} is missing in:\n{page}");
    }
    place.batchsql(&["report", "--incident", &id]).refused(&["is there already", "rename or remove it"]);
    place.batchsql(&["report", "--incident", "nothing"]).refused(&["nothing: there is no such run"]);
}

#[test]
fn a_job_of_github_gets_annotations_and_a_summary() {
    let place = Place::new();
    let file = place.write(
        "gated.yaml",
        &json!({"name": "gated", "target": {"sqlite": {}}, "workload": {"batch_insert": {"rows": 500}},
        "load": {"executor": "shared-iterations"}, "gates": ["rows_per_second > 1000000000"]})
        .to_string(),
    );
    let mut command = place.command(&["run", "--json", "--no-metrics", &file]);
    command.env("GITHUB_ACTIONS", "true").env("GITHUB_STEP_SUMMARY", place.path("summary.md"));
    let ended = place.spawn(command).end();
    ended.json(1);
    let errors: Vec<&str> = ended.stderr.lines().filter(|line| line.starts_with("::error ")).collect();
    assert_eq!(errors.len(), 1, "{}", ended.stderr);
    assert!(errors[0].starts_with("::error title=batchsql gated::rows_per_second > 1000000000: rows_per_second is "), "{}", errors[0]);
    let summary = fs::read_to_string(place.path("summary.md")).unwrap();
    assert!(summary.contains("gated") && summary.contains("rows_per_second &gt; 1000000000"), "{summary}");
    let quiet = place.spawn(place.command(&["run", "--json", "--no-metrics", &file])).end();
    assert!(quiet.code() == Some(1) && !quiet.stderr.contains("::error"), "{}", quiet.stderr);
}
