//! `batchsql sweep`: every cell runs what it says, once, also when it was interrupted.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::browser;
use crate::database::Database;
use crate::place::{Place, until};

const FLUSH_SIZE: &str = "workload.batch_insert.pipeline.flush_size";

/// The folder of the only sweep.
fn folder(place: &Place) -> PathBuf {
    let folders = fs::read_dir(place.path("reports")).unwrap().map(|entry| entry.unwrap().path());
    let sweeps: Vec<PathBuf> = folders.filter(|path| path.join("sweep.json").exists()).collect();
    let [folder] = &sweeps[..] else { panic!("{sweeps:?}") };
    folder.clone()
}

fn read(file: PathBuf) -> Value {
    serde_json::from_str(&fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()))).unwrap()
}

/// The ids of all runs that the sweep names.
fn runs(sweep: &Value) -> BTreeSet<String> {
    let cells = sweep["cells"].as_array().unwrap().iter();
    cells.flat_map(|cell| cell["runs"].as_array().unwrap()).map(|run| run["run_id"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn every_cell_runs_what_it_says_and_the_best_is_named() {
    let place = Place::new();
    let db = Database::sqlite(&place, "swept");
    let file = place.write("sweep.yaml", &db.rows(600).to_string());
    let sizes = format!("{FLUSH_SIZE}=1,300");
    let arguments = ["sweep", &file, "--vary", &sizes, "--vary", "target.sqlite.profile=off,default", "--json"];
    let sweep = place.batchsql(&arguments).json(0);
    assert_eq!((&sweep["outcome"], &sweep["kept_runs"]), (&json!("found"), &json!(0)));
    let cells = sweep["cells"].as_array().unwrap();
    let values: Vec<_> = cells.iter().map(|cell| [cell["values"][0].as_str().unwrap(), cell["values"][1].as_str().unwrap()]).collect();
    assert_eq!(values, [["1", "off"], ["1", "default"], ["300", "off"], ["300", "default"]]);
    for (cell, [size, profile]) in cells.iter().zip(values) {
        let run = cell["runs"][0]["run_id"].as_str().unwrap();
        let report = read(folder(&place).join(run).join("report.json"));
        assert_eq!(report["scenario"]["workload"]["batch_insert"]["pipeline"]["flush_size"].to_string(), size);
        assert_eq!(report["scenario"]["target"]["sqlite"]["profile"], profile);
        assert_eq!(cell["throughput_per_second"], report["throughput"]["rows_per_second"]);
        let again = report["reproduce"].as_str().unwrap();
        assert!(again.contains(&format!("--set {FLUSH_SIZE}={size} --set target.sqlite.profile={profile}")), "{again}");
        assert!(!again.contains("--vary"), "{again}");
    }
    let speed = |place: usize| cells[place]["throughput_per_second"].as_f64().unwrap();
    let fastest = (0..4).max_by(|one, other| speed(*one).total_cmp(&speed(*other))).unwrap();
    assert_eq!(sweep["best"], json!(fastest));
    assert!(fastest >= 2, "a row a transaction beats 300: {cells:?}");
    page_of(&place);
    // The same command has nothing left to do; more repetitions have as many runs more.
    let kept = place.batchsql(&arguments).json(0);
    assert_eq!((&kept["kept_runs"], &kept["cells"], runs(&kept)), (&json!(4), &sweep["cells"], runs(&sweep)));
    let more = place.batchsql(&[&arguments[..], &["--repeat", "2"]].concat()).json(0);
    assert_eq!((&more["kept_runs"], runs(&more).len()), (&json!(4), 8));
    assert!(runs(&more).is_superset(&runs(&sweep)));
}

fn page_of(place: &Place) {
    let Some(seen) = browser::open(&folder(place).join("sweep.html"), [1280, 1500]) else { return };
    assert_eq!(seen.console, Vec::<String>::new());
    assert!(seen.dom.contains("class=\"heat-7 best\"") && seen.dom.contains("class=\"heat-0\""), "{}", seen.dom);
    // The deepest shade: 56 % of the first line's blue on white.
    let blue = seen.pixels([0x70, 0xb0, 0xd4]);
    assert!(blue > 100, "{blue}");
}

#[test]
fn what_was_interrupted_goes_on_where_it_was() {
    let place = Place::new();
    let db = Database::sqlite(&place, "resumed");
    let load = json!({"executor": "constant-vus", "vus": 1, "duration": "1s"});
    let file = place.write("sweep.yaml", &db.scenario(json!({}), load).to_string());
    let sizes = format!("{FLUSH_SIZE}=10,20,40,80");
    let arguments = ["sweep", &file, "--vary", &sizes];
    let mut running = place.spawn(place.command(&arguments));
    running.until("the third run", |it| it.said().contains("run 3 of 4").then_some(()));
    // A second call would take the first one's table away.
    place.batchsql(&arguments).refused(&["the same sweep is at work in"]);
    running.signal(Signal::SIGINT);
    let ended = running.end();
    assert_eq!(ended.code(), Some(130), "{}", ended.stderr);
    let stopped = read(folder(&place).join("sweep.json"));
    assert_eq!(stopped["outcome"], "interrupted");
    let before = runs(&stopped);
    assert_eq!(before.len(), 2, "{stopped}");
    assert!(ended.stdout.contains("2 of 4 cells are missing, and the same command goes on"), "{}", ended.stdout);
    // A report cut short is none.
    let cut = folder(&place).join("20260101-000000-cut-0000");
    fs::create_dir(&cut).unwrap();
    fs::write(cut.join("report.json"), "{\"schema_version\": 1,").unwrap();
    let ended = place.batchsql(&arguments);
    assert_eq!(ended.code(), Some(0), "{}", ended.stderr);
    assert!(ended.stderr.contains("2 of 4 runs are to be made"), "{}", ended.stderr);
    let whole = read(folder(&place).join("sweep.json"));
    assert_eq!((&whole["kept_runs"], runs(&whole).len()), (&json!(2), 4));
    assert!(runs(&whole).is_superset(&before));
    assert!(whole["notes"].to_string().contains("is no whole report"), "{}", whole["notes"]);
    let ran: BTreeSet<String> = whole["cells"].as_array().unwrap().iter().map(|cell| cell["values"][0].to_string()).collect();
    assert_eq!(ran.len(), 4);
}

#[test]
fn a_cell_that_lost_a_row_is_never_the_best() {
    let place = Place::new();
    let db = Database::sqlite(&place, "void");
    let load = json!({"executor": "constant-vus", "vus": 1, "duration": "2s"});
    let file = place.write("sweep.yaml", &db.scenario(json!({}), load).to_string());
    let running = place.spawn(place.command(&["sweep", &file, "--vary", "workload.batch_insert.table=good,bad", "--json"]));
    until("a row of the bad table", || {
        let user = rusqlite::Connection::open(place.path("test.db")).ok()?;
        user.busy_timeout(std::time::Duration::from_secs(10)).unwrap();
        user.execute("DELETE FROM bad WHERE id = 7", []).ok().filter(|deleted| *deleted == 1)
    });
    let sweep = running.end().json(4);
    let verdicts: Vec<_> = sweep["cells"].as_array().unwrap().iter().map(|cell| &cell["verdict"]).collect();
    assert_eq!((verdicts, &sweep["best"], &sweep["outcome"]), (vec![&json!("pass"), &json!("void")], &json!(0), &json!("violated")));
    assert_eq!(sweep["cells"][1]["throughput_per_second"], Value::Null);
}

#[test]
fn no_cell_that_passes_is_a_missed_gate() {
    let place = Place::new();
    let mut scenario = Database::sqlite(&place, "slow").rows(100);
    scenario["gates"] = json!(["rows_per_second > 1000000000"]);
    let file = place.write("sweep.yaml", &scenario.to_string());
    let sweep = place.batchsql(&["sweep", &file, "--vary", &format!("{FLUSH_SIZE}=10,100"), "--json"]).json(1);
    assert_eq!((&sweep["outcome"], &sweep["best"]), (&json!("none_passes"), &Value::Null));
    assert!(sweep["cells"][0]["reason"].as_str().unwrap().contains("rows_per_second"), "{}", sweep["cells"]);
}

#[test]
fn a_matrix_that_is_not_what_it_says_is_refused_before_anything_runs() {
    let place = Place::new();
    let file = place.write("sweep.yaml", &Database::sqlite(&place, "refused").rows(10).to_string());
    let refused = |vary: &[&str], words: &[&str]| {
        let flags: Vec<&str> = vary.iter().flat_map(|vary| ["--vary", *vary]).collect();
        place.batchsql(&[&["sweep", &file][..], &flags].concat()).refused(words);
    };
    refused(&["workload.batch_insert.pipeline.flush_sise=1,2"], &["the cell", "flush_sise", "did you mean `flush_size`?"]);
    refused(&[&format!("{FLUSH_SIZE}=10,many")], &["the cell workload.batch_insert.pipeline.flush_size=many", "many"]);
    refused(&[&format!("{FLUSH_SIZE}=10,0")], &["at least 1 is needed"]);
    refused(
        &["workload.batch_insert.pipeline.flush_interval=1s,20ms,1000ms"],
        &["1s and 1000ms are the same once the scenario is resolved"],
    );
    refused(&["description=one,other"], &["--vary description: it changes nothing that runs"]);
    refused(&[&format!("{FLUSH_SIZE}=10")], &["one value varies nothing"]);
    refused(&[FLUSH_SIZE], &["write path.to.key=value,value"]);
    refused(&["target.sqlite={profile: off},{}", "target.sqlite.profile=off,default"], &["one is the other or a part of it"]);
    // What --database-url replaces changes nothing.
    let other = ["sweep", &file, "--vary", "target.sqlite.profile=off,default", "--database-url", "postgres://u@127.0.0.1/d"];
    place.batchsql(&other).refused(&["--vary target.sqlite.profile: off and default are the same"]);
    assert!(!place.path("reports").exists());
}
