//! What the commands print and how they end.

use std::fs;

use serde_json::{Value, json};

use crate::database::Database;
use crate::place::Place;

/// 3,000 rows into an embedded file, as a user would write it.
const QUICK: &str = "\
name: quick
target:
  sqlite: {}
workload:
  batch_insert:
    rows: 3000
load:
  executor: shared-iterations
gates:
  - integrity.lost == 0
";

/// Five things wrong, in five places.
const WRONG: &str = "\
name: wrong
target:
  sqlite: {}
workload:
  batch_insert:
    rows: 0
    tabel: x
load:
  executor: constant-arrival-rate
  rate: 0
  duration: -5s
gates:
  - response.p99 < 50
";

fn quick(place: &Place, more: &[&str]) -> crate::place::Ended {
    let file = place.write("quick.yaml", QUICK);
    place.batchsql(&[&["run", "--no-metrics", "--report-dir", "reports", &file], more].concat())
}

fn saved(place: &Place, file: &str) -> String {
    fs::read_to_string(place.run_folders()[0].join(file)).unwrap()
}

#[test]
fn a_run_passes_and_leaves_its_reports() {
    let place = Place::new();
    let ended = quick(&place, &[]);
    assert_eq!(ended.code(), Some(0), "{}", ended.stderr);
    for words in ["PASS", "quick", "3,000", "rows/s", "p99", "holds"] {
        assert!(ended.stdout.contains(words), "{words:?} is missing in: {}", ended.stdout);
    }
    let folder = place.run_folders().remove(0);
    assert!(ended.stdout.contains(folder.file_name().unwrap().to_str().unwrap()), "the summary says where the reports are");
    let report: Value = serde_json::from_str(&saved(&place, "report.json")).unwrap();
    let run_id = report["run_id"].as_str().unwrap();
    assert_eq!(run_id, folder.file_name().unwrap().to_str().unwrap());
    assert_eq!((&report["schema_version"], &report["seed"], &report["verdict"]), (&json!(1), &json!(42), &json!("pass")));
    assert_eq!((&report["reasons"], &report["interrupted"], &report["errors"]), (&json!([]), &json!(false), &json!({})));
    let outcomes = json!({"offered": 3000, "attempted": 3000, "acknowledged": 3000, "rejected": 0, "unknown": 0, "dropped": 0});
    assert_eq!(report["outcomes"], outcomes);
    let integrity = &report["integrity"];
    assert_eq!((&integrity["verdict"], &integrity["method"], &integrity["rate"]), (&json!("holds"), &json!("full"), &json!(1.0)));
    assert_eq!((&integrity["checked"], &report["throughput"]["valid"]), (&json!(3000), &json!(true)));
    assert!(report["throughput"]["rows_per_second"].as_f64().unwrap() > 0.0);
    assert_eq!(report["phases"].as_array().unwrap().iter().map(|p| &p["name"]).collect::<Vec<_>>(), ["main", "drain", "verify"]);
    assert_eq!((&report["environment"]["target"]["name"], &report["latency"]["service"]["count"]), (&json!("SQLite"), &json!(3000)));
    assert_eq!(report["scenario"]["workload"]["batch_insert"]["table"], "integration_test");
    assert!(saved(&place, "report.md").contains(run_id) && saved(&place, "report.md").contains("PASS"));
    assert!(saved(&place, "junit.xml").starts_with("<?xml") && saved(&place, "junit.xml").contains("failures=\"0\""));
    let timeline = saved(&place, "timeline.csv");
    let (head, lines) = timeline.split_once('\n').unwrap();
    let column = head.split(',').position(|name| name == "acknowledged").unwrap();
    let acknowledged = lines.lines().map(|line| line.split(',').nth(column).unwrap().parse::<u64>().unwrap());
    assert_eq!(acknowledged.sum::<u64>(), 3000);
}

#[test]
fn json_prints_the_report_and_nothing_else() {
    let place = Place::new();
    let ended = quick(&place, &["--json"]);
    assert_eq!(ended.stdout.matches('\n').count(), 1, "one line, for JSON Lines");
    assert_eq!(ended.json(0), serde_json::from_str::<Value>(&saved(&place, "report.json")).unwrap());
}

#[test]
fn several_scenarios_give_json_lines_in_their_order() {
    let place = Place::new();
    let (first, second) =
        (place.write("quick.yaml", QUICK), place.write("b.yaml", &QUICK.replace("quick", "other").replace("3000", "500")));
    let ended = place.batchsql(&["run", "--json", "--no-metrics", "--report-dir", "reports", &first, &second]);
    assert_eq!(ended.code(), Some(0), "{}", ended.stderr);
    let reports: Vec<Value> = ended.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let seen: Vec<_> = reports.iter().map(|report| (&report["scenario"]["name"], &report["integrity"]["checked"])).collect();
    assert_eq!(seen, [(&json!("quick"), &json!(3000)), (&json!("other"), &json!(500))]);
}

#[test]
fn quiet_is_silent_and_still_writes_its_reports() {
    let place = Place::new();
    let ended = quick(&place, &["--quiet"]);
    assert_eq!((ended.code(), ended.stdout.as_str(), ended.stderr.as_str()), (Some(0), "", ""));
    assert!(saved(&place, "report.json").contains("\"pass\""));
}

#[test]
fn nothing_is_coloured_beyond_a_terminal() {
    let place = Place::new();
    let good = quick(&place, &[]);
    let bad = quick(&place, &["--no-verify"]);
    let refused = place.batchsql(&["run", "nowhere.yaml"]);
    for ended in [good, bad, refused] {
        assert!(!ended.stdout.contains('\u{1b}') && !ended.stderr.contains('\u{1b}'), "{ended:?}");
    }
}

#[test]
fn check_prints_the_plan_and_connects_to_nothing() {
    let place = Place::new();
    let file = place.write("quick.yaml", QUICK);
    let ended = place.batchsql(&["check", &file]);
    assert_eq!((ended.code(), ended.stderr.as_str()), (Some(0), ""));
    for words in ["3,000", "shared-iterations", "CREATE TABLE", "integrity.lost == 0", "SQLite"] {
        assert!(ended.stdout.contains(words), "{words:?} is missing in: {}", ended.stdout);
    }
    assert!(!place.path("reports").exists());
    // Nobody listens on port 1.
    let ended = place.batchsql(&["check", &file, "--database-url", "postgres://me:hidden-word@127.0.0.1:1/db"]);
    assert_eq!(ended.code(), Some(0), "{}", ended.stderr);
    assert!(ended.stdout.contains("127.0.0.1:1") && ended.stdout.contains("bigint"), "{}", ended.stdout);
    assert!(!ended.stdout.contains("hidden-word"), "{}", ended.stdout);
}

#[test]
fn schema_is_valid_and_describes_the_shipped_scenarios() {
    let ended = Place::new().batchsql(&["schema"]);
    let schema = ended.json(0);
    let validator = jsonschema::validator_for(&schema).unwrap();
    assert!(validator.is_valid(&json!({
        "name": "a", "target": {"sqlite": {}}, "workload": {"batch_insert": {"rows": 5}}, "load": {"executor": "shared-iterations"}
    })));
    assert!(!validator.is_valid(&json!({"name": "a", "target": {"sqlite": {}}, "workload": {"batch_insert": {"rowz": 5}}})));
}

#[test]
fn every_shipped_scenario_passes_check() {
    let folders = ["/scenarios", "/scenarios/ci", "/scenarios/compose", "/scenarios/containers"]
        .map(|folder| env!("CARGO_MANIFEST_DIR").to_owned() + folder);
    let mut files: Vec<String> = folders
        .iter()
        .flat_map(|folder| fs::read_dir(folder).unwrap())
        .map(|entry| entry.unwrap().path().to_str().unwrap().to_owned())
        .filter(|path| path.ends_with(".yaml"))
        .collect();
    files.sort();
    assert!(files.len() >= 9, "{files:?}");
    let arguments: Vec<&str> = std::iter::once("check").chain(files.iter().map(String::as_str)).collect();
    let ended = Place::new().batchsql(&arguments);
    assert_eq!((ended.code(), ended.stderr.as_str()), (Some(0), ""));
    assert_eq!(ended.stdout.matches("Scenario ").count(), files.len());
}

#[test]
fn set_and_seed_change_the_scenario_and_are_reproduced() {
    let place = Place::new();
    let first = quick(&place, &["--json", "--set", "workload.batch_insert.rows=700"]).json(0);
    assert_eq!((&first["integrity"]["checked"], &first["seed"]), (&json!(700), &json!(42)));
    let db = Database { url: format!("sqlite://{}", place.name("reports/data/quick.db")), ..Database::sqlite(&place, "integration_test") };
    let texts = || db.number("SELECT sum(unicode(data)) FROM {table} WHERE id <= 700");
    let by_42 = texts();
    let second = quick(&place, &["--json", "--set=workload.batch_insert.rows=700", "--seed", "7"]).json(0);
    assert_eq!(second["seed"], 7);
    let by_7 = texts();
    assert_ne!(by_42, by_7, "another seed, other rows");
    let reproduce = second["reproduce"].as_str().unwrap();
    assert!(reproduce.contains("--set workload.batch_insert.rows=700") && reproduce.ends_with("--seed 7"), "{reproduce}");
    quick(&place, &["--json", "--set", "workload.batch_insert.rows=700", "--seed", "42"]).json(0);
    assert_eq!(texts(), by_42, "the same seed, the same rows");
}

#[test]
fn usage_errors_end_with_2() {
    let place = Place::new();
    place.batchsql(&["frobnicate"]).refused(&["unrecognized subcommand", "frobnicate"]);
    place.batchsql(&[]).refused(&["Usage: batchsql [OPTIONS] <COMMAND>"]);
    place.batchsql(&["run"]).refused(&["<SCENARIO>"]);
    place.batchsql(&["run", "x.yaml", "--metrics-listen", "nowhere"]).refused(&["--metrics-listen", "nowhere"]);
    place.batchsql(&["run", "x.yaml", "--seed", "many"]).refused(&["--seed", "many"]);
    place.batchsql(&["run", "x.yaml", "--metrics-linger", "5 parsecs"]).refused(&["--metrics-linger"]);
    place.batchsql(&["run", "nowhere.yaml", "--no-metrics"]).refused(&["nowhere.yaml: cannot be read", "give the path of a scenario file"]);
    assert!(!place.path("reports").exists());
    let help = place.batchsql(&["--help"]);
    assert_eq!(help.code(), Some(0));
    assert!(help.stdout.contains("Exit codes: 0 pass, 1 a gate was missed, 2 could not run, 3 inconclusive, 4 integrity violated, 130"));
}

#[test]
fn all_errors_are_told_at_once_with_line_and_column() {
    let place = Place::new();
    let file = place.write("wrong.yaml", WRONG);
    for command in [&["check"][..], &["run", "--no-metrics"]] {
        let ended = place.batchsql(&[command, &[&file, "--set", "load.vuz=5"]].concat());
        ended.refused(&[
            &format!("{file}:6:11: workload.batch_insert.rows: is 0; at least 1 is needed"),
            &format!("{file}:7:5: workload.batch_insert.tabel: unknown key; did you mean `table`?"),
            &format!("{file}:10:9: load.rate: is 0; more than 0 is needed"),
            &format!("{file}:11:13: load.duration: \"-5s\" does not fit; expected a duration with its unit"),
            &format!("{file}:13:5: gates.0: `response.p99 < 50`: response.p99 needs a duration with its unit, e.g. 50ms"),
            "--set load.vuz: unknown key; did you mean `vus`?",
        ]);
        assert_eq!(ended.stderr.lines().count(), 6, "{}", ended.stderr);
    }
    assert!(!place.path("reports").exists());
}

#[test]
fn a_bad_scenario_keeps_no_later_one_from_running_and_the_gravest_code_counts() {
    let place = Place::new();
    let wrong = place.write("wrong.yaml", WRONG);
    let good = place.write("good.yaml", QUICK);
    let slow = place.write("missed.yaml", &QUICK.replace("integrity.lost == 0", "rows_per_second > 1000000000"));
    let unproven = place.write("unproven.yaml", &format!("{QUICK}verify:\n  method: off\n"));
    let run = |files: &[&str], more: &[&str]| {
        place.batchsql(&[&["run", "--json", "--no-metrics", "--report-dir", "reports"], files, more].concat())
    };
    let codes: Vec<(Option<i32>, usize)> = [
        run(&[&wrong, &good], &[]),
        run(&[&slow, &good], &[]),
        run(&[&unproven, &good], &[]),
        run(&[&unproven, &slow, &good], &[]),
        run(&[&slow, &wrong, &unproven], &[]),
        run(&[&wrong, &slow, &good], &["--before-verify", "false"]),
    ]
    .iter()
    .map(|ended| (ended.code(), ended.stdout.lines().count()))
    .collect();
    assert_eq!(codes, [(Some(2), 1), (Some(1), 2), (Some(3), 2), (Some(1), 3), (Some(2), 2), (Some(2), 2)]);
}

#[test]
fn integrity_outweighs_everything_else() {
    let place = Place::new();
    let wrong = place.write("wrong.yaml", WRONG);
    let db = Database::sqlite(&place, "rows");
    let mut scenario = db.rows(200);
    scenario["gates"] = json!(["rows_per_second > 1000000000"]);
    let mut running = place.start(&scenario, &[&wrong, "--before-verify", &crate::place::rendezvous(&place)]);
    crate::place::meet(&place, &mut running);
    db.execute("DELETE FROM {table} WHERE id = 200");
    place.write("go", "");
    let report = running.end().json(4);
    assert_eq!(report["gates"].as_array().unwrap().iter().filter(|gate| gate["verdict"] == "fail").count(), 2);
}

#[test]
fn a_missed_gate_ends_with_1_and_is_named() {
    let place = Place::new();
    let report = quick(&place, &["--json", "--set", "gates=[\"acknowledged >= 3001\", \"rejected == 0\"]"]).json(1);
    assert_eq!(report["verdict"], "fail");
    assert_eq!(report["reasons"], json!(["acknowledged >= 3001: acknowledged is 3000, asked for >= 3001"]));
    let gate = report["gates"].as_array().unwrap().iter().find(|gate| gate["gate"] == "acknowledged >= 3001").unwrap();
    assert_eq!((&gate["actual"], &gate["implicit"], &gate["verdict"]), (&json!(3000.0), &json!(false), &json!("fail")));
    assert_eq!((&report["integrity"]["verdict"], &report["throughput"]["valid"]), (&json!("holds"), &json!(true)));
    assert!(saved(&place, "junit.xml").contains("failures=\"1\""));
}

#[test]
fn a_gate_without_enough_data_is_inconclusive() {
    // Fifteen batches say nothing of one operation in a thousand.
    let report = quick(&Place::new(), &["--json", "--set", "gates=[\"response.p999 < 1m\"]"]).json(3);
    assert_eq!(report["latency"]["response"]["p999_ms"], Value::Null);
    assert_eq!(report["reasons"], json!(["response.p999 < 1m: response.p999: too few samples (3000)"]));
}

#[test]
fn without_verification_nothing_is_proven() {
    let place = Place::new();
    let ended = quick(&place, &["--json", "--no-verify"]);
    let report = ended.json(3);
    assert_eq!((&report["verdict"], &report["throughput"]["valid"]), (&json!("inconclusive"), &json!(false)));
    let integrity = &report["integrity"];
    assert_eq!((&integrity["verdict"], &integrity["rate"], &integrity["checked"]), (&json!("inconclusive"), &Value::Null, &json!(0)));
    assert!(report["reproduce"].as_str().unwrap().contains(" --no-verify"));
    // It can be made good later.
    assert_eq!(place.verify(&place.run_folders()[0], &[]).json(0)["checked"], 3000);
}

#[test]
fn the_summary_says_that_an_unproven_speed_is_none() {
    let ended = quick(&Place::new(), &["--no-verify"]);
    assert_eq!(ended.code(), Some(3));
    assert!(ended.stdout.contains("INCONCLUSIVE") && ended.stdout.contains("not proven"), "{}", ended.stdout);
}

#[test]
fn a_reader_that_has_seen_enough_changes_no_verdict() {
    let place = Place::new();
    let file = place.write("quick.yaml", QUICK);
    let ends_with = |arguments: &[&str], code: i32| {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let mut command = place.command(arguments);
        let status = command.stdout(writer.try_clone().unwrap()).stderr(writer).status().unwrap();
        assert_eq!(status.code(), Some(code), "{arguments:?}");
    };
    ends_with(&["schema"], 0);
    ends_with(&["check", &file], 0);
    ends_with(&["run", "--no-metrics", "--json", &file], 0);
    ends_with(&["run", "--no-metrics", &file, "--no-verify"], 3);
    ends_with(&["run", "--no-metrics", &file, "--set", "gates=[\"rows_per_second > 1000000000\"]"], 1);
    ends_with(&["run", "--no-metrics", &file, "--before-verify", "echo said; echo said >&2"], 0);
    ends_with(&["verify", place.run_folders().last().unwrap().to_str().unwrap()], 0);
    ends_with(&["run", "--no-metrics", "nowhere.yaml"], 2);
    // A disk that is full is told.
    let full = fs::File::options().write(true).open("/dev/full").unwrap();
    let output = place.command(&["schema"]).stdout(full).stderr(std::process::Stdio::piped()).spawn().unwrap().wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8(output.stderr).unwrap().starts_with("batchsql: standard output cannot be written: No space left"));
}
