//! What the program says, as JSON lines: on standard error, and in a file that a tailer ships.

use std::fs;

use serde_json::{Value, json};

use crate::database::Database;
use crate::place::Place;

fn objects(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))).collect()
}

/// What happened, and in which phase.
fn events(lines: &[Value]) -> Vec<(&str, &str)> {
    let events = lines.iter().filter_map(|line| Some((line["event"].as_str()?, line["phase"].as_str().unwrap_or(""))));
    events.collect()
}

const EVENTS: [(&str, &str); 8] = [
    ("run_start", ""),
    ("phase_start", "main"),
    ("phase_end", "main"),
    ("phase_start", "drain"),
    ("phase_end", "drain"),
    ("phase_start", "verify"),
    ("phase_end", "verify"),
    ("run_end", ""),
];

#[test]
fn a_run_is_told_with_its_phases_and_its_verdict_and_without_secrets() {
    let place = Place::new();
    let mut scenario = Database::sqlite(&place, "told").rows(1000);
    scenario["description"] = json!("${CANARY}");
    let file = place.write("told.yaml", &scenario.to_string());
    let hook = "echo one; echo canary-of-the-environment";
    let arguments = ["run", "--json", "--no-metrics", "--report-dir", "reports", "--log-file", "told.log", "--before-verify", hook];
    let run = |more: &[&str]| {
        let mut command = place.command(&[&arguments[..], more, &[&file]].concat());
        command.env("CANARY", "canary-of-the-environment");
        place.spawn(command).end()
    };
    let ended = run(&["--log-format", "json"]);
    let report = ended.json(0);
    let lines = objects(&ended.stderr);
    assert_eq!(events(&lines), EVENTS);
    for line in &lines {
        line["timestamp"].as_str().unwrap().parse::<jiff::Timestamp>().unwrap();
        assert_eq!((&line["run_id"], &line["test_name"], &line["level"]), (&report["run_id"], &json!("told"), &json!("info")), "{line}");
    }
    let said = lines.iter().find(|line| line["message"] == "one\n***").expect("what the command said is one line");
    assert_eq!(said["phase"], "verify");
    let end = lines.last().unwrap();
    assert_eq!(end["verdict"], "pass");
    assert_eq!(
        (&end["outcomes"], &end["throughput"], &end["response"]),
        (&report["outcomes"], &report["throughput"], &report["latency"]["response"])
    );
    assert_eq!((&end["integrity"]["lost"], &end["integrity"]["checked"]), (&json!(0), &json!(1000)));
    let log = || fs::read_to_string(place.path("told.log")).unwrap();
    assert_eq!(log(), ended.stderr, "the file has the same lines");

    // Text is as ever beside the file, which is appended to.
    let again = run(&[]);
    assert_eq!(again.stderr, "one\n***\n");
    let all = objects(&log());
    assert_eq!(events(&all), [EVENTS, EVENTS].concat());
    assert_eq!(all.last().unwrap()["run_id"], again.json(0)["run_id"]);
    assert!(!place.everything_written().contains("canary-of-the-environment"));
}

#[test]
fn what_stops_a_command_is_an_error_in_json_too() {
    let place = Place::new();
    for arguments in [
        &["run", "nowhere.yaml"][..],
        &["proxy", "--config", "nowhere.yaml"],
        &["upstream", "--config", "nowhere.yaml"],
        &["verify", "nowhere"],
    ] {
        let ended = place.batchsql(&[arguments, &["--log-format", "json"]].concat());
        assert_eq!(ended.code(), Some(2));
        let lines = objects(&ended.stderr);
        assert_eq!(lines.len(), 1, "{lines:?}");
        assert_eq!(lines[0]["level"], "error");
        let message = lines[0]["message"].as_str().unwrap();
        assert!(message.contains("nowhere") && !message.starts_with("batchsql"), "{message}");
    }
}

#[test]
fn a_failed_run_is_an_error_with_its_reasons() {
    let place = Place::new();
    let mut scenario = Database::sqlite(&place, "slow").rows(100);
    scenario["gates"] = json!(["rows_per_second > 9000000000"]);
    let ended = place.run(&scenario, &["--log-format", "json"]);
    let report = ended.json(1);
    let end = objects(&ended.stderr).pop().unwrap();
    assert_eq!((&end["event"], &end["level"], &end["verdict"]), (&json!("run_end"), &json!("error"), &json!("fail")));
    assert_eq!(end["reasons"], report["reasons"]);
}

#[test]
fn a_gateways_lines_are_objects_too() {
    let place = Place::new();
    let scenario = json!({
        "name": "lines", "target": {"http": {"start": {"upstream": {}, "gateway": {}}}},
        "workload": {"proxy_request": {"requests": 20, "mix": [{"chat": {"max_tokens": 4}}]}},
        "load": {"executor": "shared-iterations"},
    });
    let ended = place.run(&scenario, &["--log-format", "json"]);
    ended.json(0);
    let lines = objects(&ended.stderr);
    let access = lines.iter().filter(|line| line["message"].as_str().unwrap().contains(" 200 POST /v1/chat/completions "));
    assert!(access.clone().count() >= 20, "{}", ended.stderr);
    assert!(access.into_iter().all(|line| line["test_name"] == "lines"), "{}", ended.stderr);
}

#[test]
fn a_log_that_cannot_be_written_is_refused_at_the_start_and_told_once_later() {
    let place = Place::new();
    let scenario = Database::sqlite(&place, "rows").rows(100);
    place.run(&scenario, &["--log-file", "/nowhere/x.log"]).refused(&[
        "--log-file /nowhere/x.log",
        "cannot be appended to",
        "No such file",
    ]);
    assert!(!place.path("reports").exists());
    let ended = place.run(&scenario, &["--log-file", "/dev/full"]);
    ended.json(0);
    assert!(ended.stderr.contains("--log-file /dev/full cannot be written (No space left on device"), "{}", ended.stderr);
    assert_eq!(ended.stderr.matches("--log-file").count(), 1, "{}", ended.stderr);
}
