//! Runs that are stopped, killed, or whose ledger is hurt: the verdict is right or there is none.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use batchsql::ledger::Ledger;
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::database::Database;
use crate::on_each_database;
use crate::place::{Place, assert_anomalies, keys, meet, rendezvous};

on_each_database!(
    one_signal_drains_verifies_and_reports,
    a_killed_run_is_verified_from_its_ledger,
    a_row_lost_after_a_kill_is_found,
    a_run_whose_table_a_later_one_owns_cannot_be_verified,
    a_run_whose_table_another_takes_over_accuses_nobody,
);

/// More rows than any test waits for.
fn endless(db: &Database) -> Value {
    let load = json!({"executor": "constant-vus", "vus": 2, "duration": "10m"});
    db.scenario(json!({"pipeline": {"flush_size": 20, "buffer_size": 100}}), load)
}

fn one_signal_drains_verifies_and_reports(place: &Place, db: &Database) {
    let mut running = place.start(&endless(db), &[]);
    running.until_ledger_has(1000);
    running.signal(Signal::SIGINT);
    let ended = running.end();
    let report = ended.json(130);
    assert_eq!((&report["interrupted"], &report["verdict"]), (&json!(true), &json!("inconclusive")));
    assert_anomalies(&report["integrity"], &[]);
    let outcomes = &report["outcomes"];
    assert_eq!(outcomes["offered"], outcomes["acknowledged"]);
    assert_eq!((&report["integrity"]["checked"], &report["throughput"]["valid"]), (&outcomes["acknowledged"], &json!(true)));
    assert_eq!(db.number("SELECT count(*) FROM {table}"), outcomes["acknowledged"].as_i64().unwrap());
    let saved = fs::read_to_string(place.run_folders()[0].join("report.json")).unwrap();
    assert_eq!(serde_json::from_str::<Value>(&saved).unwrap(), report);
    assert!(ended.stderr.contains("once more to stop at once"), "{}", ended.stderr);
}

/// Kills a run once its ledger has so many bytes; its folder.
fn killed(place: &Place, db: &Database, bytes: u64) -> PathBuf {
    let mut running = place.start(&endless(db), &[]);
    let folder = running.until_ledger_has(bytes);
    running.signal(Signal::SIGKILL);
    assert_eq!(running.end().code(), None);
    folder
}

/// Verifies and asserts that the findings add up with the ledger and with what is stored; returns them.
fn verified(place: &Place, db: &Database, run: &Path) -> Value {
    let integrity = place.verify(run, &db.password_again()).json(0);
    assert_anomalies(&integrity, &[]);
    let [acknowledged, rejected, unknown] = Ledger::read(&run.join("ledger"), |_| {}).unwrap().totals();
    assert_eq!((&integrity["must_be_there"], rejected), (&json!(acknowledged), 0));
    let recovered = integrity["recovered"].as_u64().unwrap();
    assert!(recovered <= unknown, "{recovered} recovered of {unknown} unknown");
    assert_eq!(integrity["checked"], acknowledged + recovered);
    assert_eq!(db.number("SELECT count(*) FROM {table}"), integrity["checked"].as_i64().unwrap());
    integrity
}

fn a_killed_run_is_verified_from_its_ledger(place: &Place, db: &Database) {
    for bytes in [400, 1000, 3000, 9000] {
        let run = killed(place, db, bytes);
        let first = verified(place, db, &run);
        assert!(first["must_be_there"].as_u64().unwrap() > 0, "{bytes}: {first}");
        let mut again = verified(place, db, &run);
        again["duration_seconds"] = first["duration_seconds"].clone();
        assert_eq!(again, first, "a second look finds the same");
        assert!(!run.join("report.json").exists());
    }
}

fn a_row_lost_after_a_kill_is_found(place: &Place, db: &Database) {
    let run = killed(place, db, 2000);
    // The first batch was answered long before the ledger grew that long.
    db.execute("DELETE FROM {table} WHERE id = 7");
    let integrity = place.verify(&run, &db.password_again()).json(4);
    assert_anomalies(&integrity, &[("lost", 1)]);
    assert_eq!(keys(&integrity, "lost"), [7]);
}

fn a_run_whose_table_a_later_one_owns_cannot_be_verified(place: &Place, db: &Database) {
    place.run(&db.rows(100), &[]).json(0);
    let first = place.run_folders().remove(0);
    place.run(&db.rows(100), &[]).json(0);
    let second = place.run_folders().into_iter().find(|folder| *folder != first).unwrap();
    let name = |folder: &Path| folder.file_name().unwrap().to_str().unwrap().to_owned();
    let ended = place.verify(&first, &db.password_again());
    ended.refused(&[&format!("belongs to run {}", name(&second)), &format!("run {} can no longer be verified", name(&first))]);
    // By its id too.
    let ended = place.verify(Path::new(&name(&second)), &[&db.password_again()[..], &["--report-dir", "reports"]].concat());
    assert_eq!(ended.json(0)["checked"], 100);
    db.execute("DROP TABLE {table}");
    place.verify(&second, &db.password_again()).refused(&["does not exist or was not made by batchsql"]);
}

fn a_run_whose_table_another_takes_over_accuses_nobody(place: &Place, db: &Database) {
    let mut running = place.start(&db.rows(200), &["--before-verify", &rendezvous(place)]);
    meet(place, &mut running);
    let other = place.run(&db.rows(100), &[]).json(0);
    place.write("go", "");
    let report = running.end().json(3);
    let reason = report["integrity"]["reason"].as_str().unwrap();
    assert!(reason.starts_with(&format!("run {} took table {:?} over", other["run_id"].as_str().unwrap(), db.table)), "{reason}");
    assert_eq!((&report["integrity"]["lost"], &report["throughput"]["valid"]), (&json!(0), &json!(false)));
}

#[test]
fn a_second_signal_stops_at_once_and_the_ledger_stays_usable() {
    let place = Place::new();
    let db = Database::sqlite(&place, "stopped");
    let mut running = place.start(&endless(&db), &[]);
    let run = running.until_ledger_has(1000);
    // Nothing can be drained while another holds the write lock.
    let mut user = db.user();
    user.execute("BEGIN IMMEDIATE");
    running.signal(Signal::SIGINT);
    running.until("the first signal's answer", |it| it.said().contains("once more to stop at once").then_some(()));
    running.signal(Signal::SIGINT);
    let ended = running.end();
    assert_eq!((ended.code(), ended.stdout.as_str()), (Some(130), ""));
    assert!(ended.took < Duration::from_secs(5), "{:?}", ended.took);
    assert!(!run.join("report.json").exists());
    user.execute("COMMIT");
    verified(&place, &db, &run);
}

#[test]
fn a_flipped_byte_of_the_ledger_is_damage_and_no_verdict() {
    let place = Place::new();
    place.run(&Database::sqlite(&place, "rows").rows(1000), &[]).json(0);
    let run = place.run_folders().remove(0);
    let whole = fs::read(run.join("ledger")).unwrap();
    for at in (0..whole.len()).step_by(whole.len() / 12) {
        let mut bytes = whole.clone();
        bytes[at] ^= 0x10;
        fs::write(run.join("ledger"), bytes).unwrap();
        place.verify(&run, &[]).refused(&["is damaged at byte", "run the scenario again"]);
    }
    fs::write(run.join("ledger"), b"").unwrap();
    place.verify(&run, &[]).refused(&["it has no header"]);
}

#[test]
fn a_torn_tail_of_the_ledger_still_gives_the_right_verdict() {
    let place = Place::new();
    let db = Database::sqlite(&place, "rows");
    place.run(&db.rows(1000), &[]).json(0);
    let run = place.run_folders().remove(0);
    let whole = fs::read(run.join("ledger")).unwrap();
    // The last records: an outcome of 16 bytes, and 13 that say that nothing is open.
    for (cut, recovered) in [(1, 0), (12, 0), (13, 0), (14, 100), (20, 100), (29, 100)] {
        fs::write(run.join("ledger"), &whole[..whole.len() - cut]).unwrap();
        let integrity = verified(&place, &db, &run);
        assert_eq!((&integrity["recovered"], &integrity["checked"]), (&json!(recovered), &json!(1000)), "{cut} bytes cut");
    }
    db.execute("DELETE FROM {table} WHERE id = 1");
    let integrity = place.verify(&run, &[]).json(4);
    assert_eq!(keys(&integrity, "lost"), [1]);
}

#[test]
fn a_hidden_password_must_be_given_again() {
    for db in [Database::postgres("hidden"), Database::mariadb("hidden"), Database::mysql("hidden")].into_iter().flatten() {
        let place = Place::new();
        place.run(&db.rows(100), &[]).json(0);
        let run = place.run_folders().remove(0);
        place.verify(&run, &[]).refused(&["carried a password, which is not kept in", "give the URL again with --database-url"]);
        assert_eq!(place.verify(&run, &db.password_again()).json(0)["checked"], 100);
    }
}

#[test]
fn what_is_no_run_cannot_be_verified() {
    let place = Place::new();
    place.verify(Path::new("nowhere"), &[]).refused(&["scenario.json cannot be read", "name a run's id or its folder"]);
    place.run(&Database::sqlite(&place, "rows").rows(100), &[]).json(0);
    let run = place.run_folders().remove(0);
    fs::write(run.join("scenario.json"), "{").unwrap();
    place.verify(&run, &[]).refused(&["scenario.json is damaged"]);
    fs::remove_file(run.join("ledger")).unwrap();
    place.verify(&run, &[]).refused(&["scenario.json"]);
}

#[test]
fn a_verify_of_a_vanished_file_makes_no_new_one() {
    let place = Place::new();
    place.run(&Database::sqlite(&place, "rows").rows(100), &[]).json(0);
    fs::remove_file(place.path("test.db")).unwrap();
    place.verify(&place.run_folders()[0], &[]).refused(&["test.db does not exist", "--database-url"]);
    assert!(!place.path("test.db").exists());
}
