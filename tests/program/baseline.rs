//! Baselines: kept, held against, and refused where they are of something else.

use std::fs;

use serde_json::{Value, json};

use crate::place::{Ended, Place};

/// Rows at a pace that a pause sets, long enough for an interval.
fn paced(name: &str, gates: &[&str]) -> Value {
    json!({
        "name": name,
        "target": {"sqlite": {}},
        "workload": {"batch_insert": {"rows": 100_000, "pipeline": {"flush_size": 2}}},
        "load": {"executor": "constant-vus", "vus": 10, "duration": "13s", "think_time": "100ms"},
        "gates": gates,
    })
}

fn short(name: &str, rows: u64, gates: &[&str]) -> Value {
    json!({"name": name, "target": {"sqlite": {}}, "workload": {"batch_insert": {"rows": rows}}, "load": {"executor": "shared-iterations"}, "gates": gates})
}

fn baseline(place: &Place, arguments: &[&str]) -> Ended {
    place.batchsql(&[&["baseline"], arguments].concat())
}

fn gate(report: &Value, start: &str) -> Value {
    let gates = report["gates"].as_array().unwrap();
    gates.iter().find(|gate| gate["gate"].as_str().unwrap().starts_with(start)).unwrap_or_else(|| panic!("{start}: {gates:?}")).clone()
}

#[test]
fn identical_code_passes_and_a_planted_slowdown_misses_its_gates() {
    let place = Place::new();
    let gates = ["rows_per_second > baseline * 0.80", "lower95(rows_per_second) > baseline * 0.75", "response.p50 < baseline * 3"];
    let first = place.run(&paced("paced", &[]), &[]).json(0)["run_id"].as_str().unwrap().to_owned();
    let saved = baseline(&place, &["save", "paced"]);
    assert_eq!(saved.code(), Some(0), "{}", saved.stderr);
    assert!(saved.stdout.contains("reports/baselines/paced.json keeps run") && saved.stdout.contains(&first), "{}", saved.stdout);
    let again = place.run(&paced("paced", &gates), &["--baseline", "paced"]).json(0);
    for name in ["rows_per_second", "lower95(rows_per_second)", "response.p50"] {
        let found = gate(&again, name);
        assert_eq!((&found["verdict"], found["actual"].as_f64().is_some()), (&json!("pass"), true), "{found}");
        assert!(found["message"].as_str().unwrap().contains("times the baseline paced, asked for"), "{found}");
    }
    // The same code beside a baseline a quarter faster is a fifth slower.
    let file = place.path("reports/baselines/paced.json");
    let mut faster: Value = serde_json::from_str(&fs::read_to_string(&file).unwrap()).unwrap();
    for second in faster["timeline"].as_array_mut().unwrap() {
        second["acknowledged"] = (second["acknowledged"].as_u64().unwrap() * 5 / 4).into();
    }
    fs::write(&file, faster.to_string()).unwrap();
    let slower = place.run(&paced("paced", &["rows_per_second > baseline * 0.95"]), &["--baseline", "paced"]).json(1);
    let found = gate(&slower, "rows_per_second");
    assert!(found["verdict"] == "fail" && found["message"].as_str().unwrap().ends_with("the miss is shown"), "{found}");
    assert!(slower["reasons"][0].as_str().unwrap().starts_with("rows_per_second > baseline * 0.95: "), "{}", slower["reasons"]);
    let run = slower["run_id"].as_str().unwrap();
    let checked = baseline(&place, &["check", "paced", run, "--json"]).json(1);
    assert_eq!((&checked["verdict"], gate(&checked, "rows_per_second")), (&json!("fail"), found), "{checked:#}");
}

#[test]
fn what_cannot_be_compared_is_refused_before_it_runs() {
    let place = Place::new();
    place.run(&short("quick", 500, &[]), &[]).json(0);
    assert_eq!(baseline(&place, &["save", "quick"]).code(), Some(0));
    let runs = place.run_folders().len();
    let gated = ["response.p50 < baseline * 2"];
    place.run(&short("quick", 500, &gated), &[]).refused(&["response.p50 < baseline * 2", "--baseline NAME"]);
    place.run(&short("quick", 500, &gated), &["--baseline", "none"]).refused(&["baseline none", "there are quick", "baseline save none"]);
    place
        .run(&short("quick", 501, &gated), &["--baseline", "quick"])
        .refused(&["baseline quick", "scenario.workload.batch_insert.rows: 500 before, 501 after"]);
    place.run(&short("quick", 500, &gated), &["--baseline", "quick", "--seed", "9"]).refused(&["seed: 42 before, 9 after"]);
    let file = place.path("reports/baselines/quick.json");
    let whole = fs::read_to_string(&file).unwrap();
    let mut other: Value = serde_json::from_str(&whole).unwrap();
    other["environment"]["cores"] = 1000.into();
    other["environment"]["batchsql_version"] = "0.0.1".into();
    fs::write(&file, other.to_string()).unwrap();
    let refused = place.run(&short("quick", 500, &gated), &["--baseline", "quick"]);
    refused.refused(&["machine's cores: 1000 before", "version of batchsql: 0.0.1 before"]);
    let mut other: Value = serde_json::from_str(&whole).unwrap();
    other["environment"]["target"]["version"] = "1.0".into();
    fs::write(&file, other.to_string()).unwrap();
    place.run(&short("quick", 500, &gated), &["--baseline", "quick"]).refused(&["version of the target: SQLite 1.0 before"]);
    fs::write(&file, &whole[..whole.len() / 2]).unwrap();
    place.run(&short("quick", 500, &gated), &["--baseline", "quick"]).refused(&["baseline quick", "is cut short or damaged"]);
    fs::write(&file, whole.replacen("\"schema_version\": 1", "\"schema_version\": 99", 1)).unwrap();
    place.run(&short("quick", 500, &gated), &["--baseline", "quick"]).refused(&["schema version 99"]);
    assert_eq!(place.run_folders().len(), runs, "a run that was refused leaves nothing");
    place.run(&short("quick", 500, &["response.p95 < baseline"]), &[]).refused(&["response.p95 has no interval"]);
}

#[test]
fn baselines_are_listed_shown_and_checked() {
    let place = Place::new();
    let run = place.run(&short("quick", 500, &["response.p50 < baseline * 2"]), &["--baseline", "x"]);
    run.refused(&["there is none yet"]);
    let id = place.run(&short("quick", 500, &[]), &[]).json(0)["run_id"].as_str().unwrap().to_owned();
    let unproven = place.run(&short("quick", 500, &[]), &["--no-verify"]).json(3)["run_id"].as_str().unwrap().to_owned();
    baseline(&place, &["save", "bad", "--from", &unproven]).refused(&[&unproven, "no speed"]);
    baseline(&place, &["save", "../bad", "--from", &id]).refused(&["letters, digits"]);
    baseline(&place, &["save", "bad", "--from", "nothing"]).refused(&["nothing: there is no such run"]);
    assert_eq!(baseline(&place, &["save", "quick", "--from", &id]).code(), Some(0));
    assert_eq!(baseline(&place, &["list", "--json"]).json(0)[0]["run_id"], json!(id));
    assert!(baseline(&place, &["list"]).stdout.contains(&id));
    assert_eq!(baseline(&place, &["show", "quick", "--json"]).json(0)["run_id"], json!(id));
    let shown = baseline(&place, &["show", "quick"]).stdout;
    assert!(shown.contains("quick") && shown.contains("p99"), "{shown}");
    let same = baseline(&place, &["check", "quick", &id, "--json"]).json(0);
    let rate = same["deviations"].as_array().unwrap().iter().find(|deviation| deviation["figure"] == "rows_per_second").unwrap().clone();
    assert_eq!((&rate["deviation_percent"], rate["baseline"] == rate["current"]), (&json!(0.0), true));
    let words = baseline(&place, &["check", "quick", &id]);
    assert!(words.stdout.contains("+0.0 %") && words.stdout.contains("no gate of the scenario speaks of a baseline"), "{}", words.stdout);
}
