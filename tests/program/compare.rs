//! `batchsql compare`: two sides run in turns, or saved reports, to a table, files and an exit code.

use std::fs;
use std::path::PathBuf;

use batchsql::compare::{ChangeKind, Comparison, Finding, Kind};
use batchsql::report::{Report, Verdict};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::browser;
use crate::place::{Ended, Place, run_and_meddle};
use crate::proxy::double::{Double, Fault};

/// Rows at a pace that a pause sets, and not the machine.
fn paced(pause: &str) -> Value {
    json!({
        "name": "paced",
        "target": {"sqlite": {}},
        "workload": {"batch_insert": {"pipeline": {"flush_size": 2}}},
        "load": {"executor": "constant-vus", "vus": 2, "duration": "1s", "think_time": pause},
    })
}

/// A scenario as a file.
fn file(place: &Place, name: &str, scenario: &Value) -> String {
    place.write(&format!("{name}.yaml"), &scenario.to_string())
}

fn compare(place: &Place, arguments: &[&str]) -> Ended {
    place.batchsql(&[&["compare"], arguments].concat())
}

/// What a comparison that ended with `code` printed, which is what it wrote.
fn comparison(place: &Place, ended: &Ended, code: i32) -> Comparison {
    let printed = ended.json(code);
    let found: Comparison = serde_json::from_value(printed.clone()).unwrap();
    let folder = place.path("reports").join(&found.comparison_id);
    let written: Value = serde_json::from_str(&fs::read_to_string(folder.join("comparison.json")).unwrap()).unwrap();
    assert_eq!(written, printed);
    let runs = found.before.runs.iter().chain(&found.after.runs);
    for run in runs.filter(|_| matches!(found.kind, Kind::Runs | Kind::SameTwice)) {
        let report: Report = serde_json::from_str(&fs::read_to_string(folder.join(&run.run_id).join("report.json")).unwrap()).unwrap();
        assert_eq!(report.run_id, run.run_id, "every run's report is kept");
    }
    found
}

fn metric<'a>(found: &'a Comparison, name: &str) -> &'a batchsql::compare::MetricComparison {
    found.metrics.iter().find(|metric| metric.metric == name).unwrap_or_else(|| panic!("{name} is missing"))
}

#[test]
fn a_planted_slowdown_is_worse_and_misses_its_gate() {
    let place = Place::new();
    let scenario = file(&place, "paced", &paced("8ms"));
    // A worker waits 8 ms, or 16: more than a busy machine adds to both.
    let gate = "rows_per_second >= before * 0.95";
    let arguments = [&scenario, "--before", "load.think_time=8ms", "--after", "load.think_time=16ms", "--pairs", "4", "--gate", gate];
    let ended = compare(&place, &arguments);
    assert_eq!(ended.code(), Some(1), "{}{}", ended.stdout, ended.stderr);
    for words in
        ["worse: rows_per_second", "✗ rows_per_second >= before * 0.95", "the miss is shown", "comparison.json, comparison.md", "indicator"]
    {
        assert!(ended.stdout.contains(words), "{words:?} is missing in:\n{}", ended.stdout);
    }
    for words in ["pair 1 of 4: ", "run 8 of 8", " left", "(paced (load.think_time=16ms))"] {
        assert!(ended.stderr.contains(words), "{words:?} is missing in:\n{}", ended.stderr);
    }
    let found = comparison(&place, &compare(&place, &[&arguments[..], &["--json"]].concat()), 1);
    assert_eq!((found.verdict, found.kind, found.order.len()), (Verdict::Fail, Kind::Runs, 8));
    let speed = metric(&found, "rows_per_second");
    let change = speed.change.unwrap();
    assert_eq!((speed.verdict, speed.correction.as_str(), change.kind), (Finding::Worse, "holm", ChangeKind::Ratio));
    assert!(change.high.unwrap() < 0.95 && change.low.unwrap() > 0.4, "{change:?}");
    assert!(found.order.chunks(4).all(|block| block[0] == block[3] && block[1] == block[2] && block[0] != block[1]), "{:?}", found.order);
    let writes = metric(&found, "database_writes_per_second");
    assert!(writes.before.median.unwrap() > writes.after.median.unwrap() && writes.after.median.unwrap() > 10.0, "{writes:?}");
    assert!(metric(&found, "cpu_seconds_per_operation").before.median.unwrap() > 0.0);
    assert!(metric(&found, "memory_bytes_max").before.median.unwrap() > 1e6);
    assert!(metric(&found, "response.p50").before.merged.is_some());
    assert!(found.reproduce.contains("--before load.think_time=8ms --after load.think_time=16ms --pairs 4 --gate"), "{}", found.reproduce);
    assert!(!place.path("reports").join(&found.comparison_id).join("data").exists(), "databases of measured runs are not kept");
}

#[test]
fn the_page_draws_both_sides_and_says_what_the_comparison_says() {
    let place = Place::new();
    let scenario = file(&place, "paced", &paced("5ms"));
    let arguments = [&scenario, "--before", "load.vus=1", "--after", "load.vus=4", "--pairs", "4", "--json"];
    let found = comparison(&place, &compare(&place, &arguments), 0);
    let page = place.path("reports").join(&found.comparison_id).join("comparison.html");
    let Some(seen) = browser::open(&page, [1280, 2600]) else { return };
    assert_eq!(seen.console, Vec::<String>::new());
    assert!(seen.dom.contains("<figure id=\"distribution\" data-drawn=\"4\""), "both clocks of both sides are drawn");
    for metric in &found.metrics {
        let of = |what: &str| seen.value(&format!("{}.{what}", metric.metric));
        assert_eq!(of("before"), metric.before.merged.or(metric.before.median), "{metric:?}");
        assert_eq!(of("after"), metric.after.merged.or(metric.after.median), "{metric:?}");
        assert_eq!(of("change"), metric.change.map(|change| change.estimate), "{metric:?}");
        assert_eq!(of("detectable"), metric.detectable, "{metric:?}");
    }
    assert!(seen.value("rows_per_second.change").unwrap() > 2.0);
    let ratios = found.metrics.iter().filter(|metric| metric.change.is_some_and(|change| change.kind == ChangeKind::Ratio)).count();
    assert!(ratios >= 9, "{ratios}");
    assert_eq!(seen.dom.matches("<line class=\"pair\"").count(), ratios * 4, "a line a pair");
    // The colours of "better", and of the first and second curve.
    let [better, first, second] = [[0x0a, 0x6b, 0x3d], [0x00, 0x72, 0xb2], [0xd5, 0x5e, 0x00]].map(|color| seen.pixels(color));
    assert!(better > 60 && first > 300 && second > 150, "{better} {first} {second}");
    for words in ["scenario.load.vus: 1 before, 4 after", "--before load.vus=1 --after load.vus=4", "Better"] {
        assert!(seen.dom.contains(words), "{words}");
    }
    let written = fs::read_to_string(&page).unwrap();
    assert!(written.contains("default-src 'none'"));
    let addresses = written.split("http").filter(|after| after.starts_with("://") || after.starts_with("s://"));
    assert_eq!(addresses.filter(|after| !after.contains("github.com/leeoniya/uPlot")).count(), 0, "no network is asked for anything");
}

#[test]
fn one_side_against_itself_shows_the_noise_and_passes() {
    let place = Place::new();
    let scenario = file(&place, "paced", &paced("5ms"));
    let found = comparison(&place, &compare(&place, &[&scenario, "--aa", "--pairs", "4", "--json"]), 0);
    assert_eq!((found.kind, found.verdict, found.before.runs.len(), found.after.runs.len()), (Kind::SameTwice, Verdict::Pass, 4, 4));
    let speed = metric(&found, "rows_per_second");
    // A change of a factor of two would be no noise of a paced load.
    let change = speed.change.unwrap();
    assert!(change.estimate > 0.5 && change.estimate < 2.0 && speed.detectable.is_some(), "{speed:?}");
    let markdown = fs::read_to_string(place.path("reports").join(&found.comparison_id).join("comparison.md")).unwrap();
    assert!(markdown.contains("| indicator | before | after | change | 95 % interval | verdict | could find |"), "{markdown}");
    assert!(markdown.contains("noise floor") && markdown.contains("| rows_per_second |"), "{markdown}");
}

#[test]
fn one_pair_shows_nothing_and_a_gate_on_it_is_inconclusive() {
    let place = Place::new();
    let scenario = file(&place, "paced", &paced("5ms"));
    let arguments = [&scenario, "--before", "load.vus=2", "--after", "load.vus=4", "--pairs", "1", "--json"];
    let found = comparison(&place, &compare(&place, &arguments), 0);
    assert_eq!(metric(&found, "rows_per_second").verdict, Finding::TooNoisyToSay);
    assert!(metric(&found, "rows_per_second").reason.as_ref().unwrap().contains("4 pairs are the fewest"));
    let gated = compare(&place, &[&arguments[..], &["--gate", "rows_per_second >= before"]].concat());
    let found = comparison(&place, &gated, 3);
    assert_eq!((found.verdict, found.gates[0].verdict), (Verdict::Inconclusive, Verdict::Inconclusive));
}

#[test]
fn a_side_whose_integrity_is_violated_voids_everything() {
    let place = Place::new();
    let double = Double::start(&place, &[(7, Fault::Short)]);
    let scenario = file(&place, "garbled", &double.scenario(50, false));
    let found = comparison(&place, &compare(&place, &[&scenario, "--aa", "--pairs", "3", "--json"]), 4);
    assert!(found.void && found.verdict == Verdict::Fail);
    assert_eq!(found.before.runs.len() + found.after.runs.len(), 1, "nothing is run after it");
    assert!(found.metrics.iter().all(|metric| metric.verdict == Finding::Void), "{:#?}", found.metrics);
    assert!(found.reasons[0].contains("integrity is violated in run"), "{:?}", found.reasons);
}

#[test]
fn a_side_that_cannot_run_is_named() {
    let place = Place::new();
    let good = file(&place, "good", &paced("5ms"));
    let mut elsewhere = paced("5ms");
    elsewhere["target"] = json!({"postgres": {"url": "postgres://nobody@127.0.0.1:1/none"}});
    elsewhere["name"] = json!("elsewhere");
    let elsewhere = file(&place, "elsewhere", &elsewhere);
    let ended = compare(&place, &[&elsewhere, &elsewhere, "--pairs", "2"]);
    ended.refused(&["could not run", "(elsewhere)", "127.0.0.1:1"]);
    assert_eq!(fs::read_dir(place.path("reports")).unwrap().count(), 0, "what never began leaves nothing");
    // With one side fine, what it did is kept.
    let ended = compare(&place, &[&good, &elsewhere, "--pairs", "2", "--json"]);
    assert_eq!(ended.code(), Some(2), "{}", ended.stderr);
    assert!(ended.stderr.contains("side after (elsewhere) could not run"), "{}", ended.stderr);
}

#[test]
fn what_cannot_be_compared_is_refused_before_anything_runs() {
    let place = Place::new();
    let good = file(&place, "good", &paced("5ms"));
    let bad = place.write("bad.yaml", "name: bad\nload: {executor: constant-vus, vux: 1}\n");
    compare(&place, &[&good]).refused(&["what is", "to be compared with", "--aa"]);
    compare(&place, &[&good, &bad]).refused(&["bad.yaml"]);
    compare(&place, &[&good, &good, "--aa"]).refused(&["--aa runs one scenario against itself"]);
    compare(&place, &[&good, &good, &good]).refused(&["3 scenarios were named"]);
    compare(&place, &[&good, "--after", "load.vus=3", "--gate", "response.p99 < 5ms"])
        .refused(&["--gate `response.p99 < 5ms`", "before * 1.10"]);
    compare(&place, &[&good, "--after", "load.vus=3", "--gate", "time_to_first_token.p50 <= before"]).refused(&["is not compared here"]);
    compare(&place, &[&good, "--after", "load.vus=3", "--gate", "response.p99 <= before +1"]).refused(&["is no limit"]);
    compare(&place, &[&good, "report.json"]).refused(&["a saved report is compared with a saved report"]);
    compare(&place, &[&good, "--after", "load.vus=3", "--pairs", "0"]).refused(&["write a number from 1 to 50"]);
    let mut gated = paced("5ms");
    gated["gates"] = json!(["response.p99 <= before * 1.1"]);
    compare(&place, &[&file(&place, "gated", &gated), "--aa"]).refused(&["needs another side"]);
    assert!(!place.path("reports").exists(), "nothing has run");
}

#[test]
fn an_interrupted_comparison_says_what_there_is() {
    let place = Place::new();
    let scenario = file(&place, "paced", &paced("5ms"));
    let mut running = place.spawn(place.command(&["compare", &scenario, "--aa", "--pairs", "20"]));
    running.until("the third run", |it| it.said().contains("run 3 of 40").then_some(()));
    running.signal(Signal::SIGTERM);
    let ended = running.end();
    assert_eq!(ended.code(), Some(130), "{}{}", ended.stdout, ended.stderr);
    assert!(ended.stdout.contains("interrupted before all pairs were run"), "{}", ended.stdout);
    let mut there = fs::read_dir(place.path("reports")).unwrap().map(|entry| entry.unwrap().path());
    let folder: PathBuf = there.find(|path| path.is_dir()).unwrap(); // the history lies beside it
    let found: Comparison = serde_json::from_str(&fs::read_to_string(folder.join("comparison.json")).unwrap()).unwrap();
    assert!(found.interrupted && (2..=4).contains(&(found.before.runs.len() + found.after.runs.len())), "{:?}", found.order);
}

/// Runs a scenario and gives the path of its report.
fn saved(place: &Place, seed: &str, pause: &str) -> String {
    let report = place.run(&paced(pause), &["--seed", seed]).json(0);
    place.name(&format!("reports/{}/report.json", report["run_id"].as_str().unwrap()))
}

#[test]
fn saved_reports_are_compared_only_where_they_may_be() {
    let place = Place::new();
    let [one, same, other] = [saved(&place, "1", "5ms"), saved(&place, "1", "5ms"), saved(&place, "2", "9ms")];
    let found = comparison(&place, &compare(&place, &[&one, &same, "--json"]), 0);
    assert_eq!((found.kind, found.before.runs.len(), metric(&found, "rows_per_second").verdict), (Kind::Saved, 1, Finding::TooNoisyToSay));
    let folder = PathBuf::from(&one).parent().unwrap().to_str().unwrap().to_owned();
    assert_eq!(compare(&place, &[&folder, &same]).code(), Some(0), "the folder of a run is its report");
    compare(&place, &[&one, &other]).refused(&[
        "not made under the same circumstances",
        "seed: 1 before, 2 after",
        "scenario.load.think_time: \"5ms\" before, \"9ms\" after",
        "--across-machines",
    ]);
    let found = comparison(&place, &compare(&place, &[&one, &other, "--across-machines", "--json"]), 0);
    let speed = metric(&found, "rows_per_second");
    assert_eq!((found.kind, metric(&found, "memory_bytes_max").verdict), (Kind::Calibrated, Finding::NoData));
    assert!(speed.change.unwrap().estimate < 1.5 && speed.before.median.unwrap() < 1.0, "related to the machine's own loops: {speed:?}");

    let text = fs::read_to_string(&one).unwrap();
    let cut = place.write("cut.json", &text[..text.len() / 2]);
    compare(&place, &[&cut, &one]).refused(&["cut.json", "is cut short or damaged"]);
    let newer = place.write("newer.json", &text.replacen("\"schema_version\": 1", "\"schema_version\": 9", 1));
    compare(&place, &[&one, &newer]).refused(&["newer.json", "schema version 9, this program knows 1"]);
    compare(&place, &[&one, &place.name("none.json")]).refused(&["none.json", "name a report.json or a run's folder"]);
    compare(&place, &[&one, &same, "--set", "load.vus=3"]).refused(&["saved reports are compared as they are"]);
}

#[test]
fn a_saved_side_without_a_figure_has_no_data() {
    let place = Place::new();
    let one = saved(&place, "1", "5ms");
    let mut report: Value = serde_json::from_str(&fs::read_to_string(&one).unwrap()).unwrap();
    report["throughput"] = json!({"rows_per_second": null, "valid": false});
    let without = place.write("without.json", &report.to_string());
    let ended = compare(&place, &[&one, &without, "--gate", "rows_per_second >= before", "--json"]);
    let found = comparison(&place, &ended, 3);
    assert_eq!((metric(&found, "rows_per_second").verdict, found.gates[0].message.as_str()), (Finding::NoData, "no data"));
    let violated = run_and_meddle(&place, &paced("5ms"), || {
        let database = rusqlite::Connection::open(place.path("reports/data/paced.db")).unwrap();
        database.execute("DELETE FROM integration_test WHERE id = (SELECT MIN(id) FROM integration_test)", []).unwrap();
    });
    let run = violated.json(4)["run_id"].as_str().unwrap().to_owned();
    let found = comparison(&place, &compare(&place, &[&without, &place.name(&format!("reports/{run}")), "--across-machines", "--json"]), 4);
    assert!(found.void, "a saved side that lost a row is void");
}
