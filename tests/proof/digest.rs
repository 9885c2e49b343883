//! Method `digest`: it must find what `full` finds, read no more than differs, and, of many rows on Postgres, need less time.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::database::{COLUMNS, Database};
use crate::place::Place;
use crate::tally::{Tally, full};

/// Rows of the comparison of speed, and how often each method has its turn.
const MANY_ROWS: u64 = 10_000_000;
const TURNS: usize = 3;

/// A finished run whose table is verified again and again.
struct Run<'a> {
    place: &'a Place,
    db: &'a Database,
    program: &'a Path,
    folder: PathBuf,
}

impl<'a> Run<'a> {
    fn of(place: &'a Place, db: &'a Database, program: &'a Path, rows: u64) -> Self {
        let mut scenario = db.rows(rows);
        scenario["workload"]["batch_insert"]["pipeline"]["flush_size"] = json!(5000);
        let file = place.write("scenario.yaml", &scenario.to_string());
        let arguments = ["run", "--quiet", "--no-metrics", "--no-verify", "--report-dir", "reports", &file];
        // Without verification a run is inconclusive at best. Ten million rows take minutes.
        let ended = place.command_of(program, &arguments).stdout(Stdio::null()).stderr(Stdio::inherit()).status().unwrap();
        assert_eq!(ended.code(), Some(3));
        Self { place, db, program, folder: place.run_folders().pop().unwrap() }
    }

    /// `integrity` as this method has it.
    fn verify(&self, method: &str) -> Value {
        let kept = self.folder.join("scenario.json");
        let mut scenario: Value = serde_json::from_str(&std::fs::read_to_string(&kept).unwrap()).unwrap();
        scenario["verify"]["method"] = json!(method);
        std::fs::write(&kept, scenario.to_string()).unwrap();
        let folder = self.folder.to_str().unwrap();
        let arguments = [&["verify", "--json", folder][..], &self.db.password_again()].concat();
        let ended = self.place.command_of(self.program, &arguments).stderr(Stdio::inherit()).output().unwrap();
        let integrity: Value = serde_json::from_slice(&ended.stdout).unwrap();
        assert_eq!(integrity["method"], method);
        integrity
    }
}

/// What must be the same by either method.
fn judgement(mut integrity: Value) -> Value {
    for own in ["method", "read_back", "duration_seconds"] {
        integrity.as_object_mut().unwrap().remove(own);
    }
    integrity
}

/// The anomalies, counted.
fn anomalies(integrity: &Value) -> u64 {
    ["lost", "duplicated", "corrupted", "phantom", "resurrected", "stale", "partial_batches"]
        .iter()
        .map(|class| integrity[class].as_u64().unwrap())
        .sum()
}

/// Clean, then with one more plant each time: both methods say the same, and the digest reads a leaf of 1,024 keys for each.
fn agree(db: Option<Database>, name: &str) {
    let Some(db) = db else { return };
    let place = Place::new();
    let run = Run::of(&place, &db, Path::new(env!("CARGO_BIN_EXE_batchsql")), 50_000);
    let columns = COLUMNS.trim_start_matches("id, ");
    let plants = [
        ("clean", 0, String::new(), 0),
        ("lost", 1, "DELETE FROM {table} WHERE id = 50000".to_owned(), 50_000 % 1024 - 1),
        ("corrupted", 2, "UPDATE {table} SET value = value + 1 WHERE id IN (10, 11)".to_owned(), 1024),
        ("corrupted", 1, "UPDATE {table} SET is_active = NOT is_active WHERE id = 1024".to_owned(), 0),
        ("corrupted", 1, "UPDATE {table} SET name = email WHERE id = 1025".to_owned(), 1024),
        ("phantom", 1, format!("INSERT INTO {{table}} ({COLUMNS}) SELECT -1, {columns} FROM {{table}} WHERE id = 1"), 1),
        ("phantom", 1, format!("INSERT INTO {{table}} ({COLUMNS}) SELECT 50001, {columns} FROM {{table}} WHERE id = 1"), 1),
    ];
    let mut tally = Tally::new("digest");
    let (mut planted, mut read) = (0, 0);
    for (class, rows, sql, leaf) in &plants {
        if !sql.is_empty() {
            db.execute(sql);
        }
        (planted, read) = (planted + rows, read + leaf);
        let digested = run.verify("digest");
        assert_eq!(digested["read_back"], read, "{class}: only what differs is read");
        assert_eq!(anomalies(&digested), planted, "{class}: {digested:#}");
        // Class by class where there is time.
        if full() || *class == "phantom" {
            assert_eq!(judgement(digested), judgement(run.verify("full")), "{class}: the methods must agree");
        }
        tally.add(class, name, *rows, *rows, 0, 0, "by both methods");
    }
    tally.save();
}

#[test]
fn the_methods_agree_on_sqlite() {
    let place = Place::new();
    agree(Some(Database::sqlite(&place, "digest_proof")), "SQLite");
}

#[test]
fn the_methods_agree_on_postgres() {
    agree(Database::postgres("digest_proof"), "PostgreSQL");
}

#[test]
fn the_methods_agree_on_mariadb() {
    agree(Database::mariadb("digest_proof"), "MariaDB");
}

#[test]
fn the_methods_agree_on_mysql() {
    agree(Database::mysql("digest_proof"), "MySQL");
}

/// The optimised program, which alone says anything about speed.
fn optimised() -> PathBuf {
    let built =
        Command::new(env!("CARGO")).args(["build", "--release", "--locked", "--bins"]).current_dir(env!("CARGO_MANIFEST_DIR")).status();
    assert!(built.unwrap().success());
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("target"), PathBuf::from);
    target.join("release/batchsql")
}

#[test]
fn a_digest_of_many_rows_takes_less_time() {
    if !full() {
        println!("left out: speed is measured by scripts/prove alone");
        return;
    }
    let Some(db) = Database::postgres("digest_speed") else { return };
    let (place, program) = (Place::new(), optimised());
    let run = Run::of(&place, &db, &program, MANY_ROWS);
    let mut seconds = [Vec::new(), Vec::new()];
    for turn in 0..TURNS {
        for (method, taken) in ["full", "digest"].iter().zip(&mut seconds) {
            let integrity = run.verify(method);
            assert_eq!((&integrity["verdict"], &integrity["checked"]), (&json!("holds"), &json!(MANY_ROWS)));
            assert_eq!(integrity["read_back"].as_u64().unwrap_or(0), 0);
            taken.push(integrity["duration_seconds"].as_f64().unwrap());
            println!("turn {}: {method} {:.2} s", turn + 1, taken[turn]);
        }
    }
    seconds.iter_mut().for_each(|taken| taken.sort_by(f64::total_cmp));
    let [whole, digest] = [seconds[0][TURNS / 2], seconds[1][TURNS / 2]];
    let note = format!(
        "{MANY_ROWS} rows: full {whole:.1} s, digest {digest:.1} s, {:.2} times as fast (medians of {TURNS} turns)",
        whole / digest
    );
    println!("{note}");
    db.execute("UPDATE {table} SET value = value + 1 WHERE id = 7654321");
    let found = run.verify("digest");
    assert_eq!((anomalies(&found), &found["examples"][0]["key"], &found["read_back"]), (1, &json!(7_654_321), &json!(1024)));
    let mut tally = Tally::new("digest");
    tally.add("corrupted, one of many rows", "PostgreSQL", 1, 1, 0, 0, &note);
    tally.save();
    db.execute("DROP TABLE {table}");
    assert!(digest < whole, "{note}");
}
