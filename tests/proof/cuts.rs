//! Connections cut at every place of a batch, by seed: what is stored is asked for by plain SQL and held against the outcomes in the
//! ledger, without the verifier; and the verifier must raise no alarm.

use std::collections::BTreeSet;
use std::path::Path;

use batchsql::ledger::{BatchRecord, Ledger, Outcome};
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, Row as _};

use crate::database::{Database, Kind, User};
use crate::place::Place;
use crate::tally::{Tally, full};

const PLACES: [&str; 6] = ["after_commit", "within_answer", "after_request", "within_request", "before_request", "at_byte"];
const ROWS: u64 = 400;

#[test]
fn cuts_on_postgres() {
    prove("PostgreSQL", Database::postgres);
}

#[test]
fn cuts_on_mariadb() {
    prove("MariaDB", Database::mariadb);
}

#[test]
fn cuts_on_mysql() {
    prove("MySQL", Database::mysql);
}

fn prove(name: &str, database: impl Fn(&str) -> Option<Database>) {
    let mut tally = Tally::new("cuts");
    for when in PLACES {
        let Some(db) = database(&format!("proof_cut_{when}")) else { return };
        for seed in 1..=if full() { 60 } else { 2 } {
            let found = run(&db, when, seed);
            let note = "a cut batch is stored whole or not at all, as its outcome allows, by plain SQL";
            tally.add(&format!("cut {when}"), name, found.struck, found.right, found.struck - found.right, found.false_alarms, note);
            assert_eq!((found.struck, found.false_alarms), (found.right, 0), "{when}, seed {seed} on {name}");
        }
    }
    tally.save();
}

struct Found {
    struck: u64,
    /// Cuts whose batch has the outcome that it must have.
    right: u64,
    false_alarms: u64,
}

/// 20 batches of 20 rows, some of them cut.
fn run(db: &Database, when: &str, seed: u64) -> Found {
    let place = Place::new();
    let report = place.run(&scenario(db, when, seed), &["--seed", &seed.to_string()]).json(0);
    let classes = ["lost", "duplicated", "corrupted", "phantom", "resurrected", "stale", "partial_batches"];
    let alarms: u64 = classes.iter().map(|class| report["integrity"][class].as_u64().unwrap()).sum();
    let struck = report["faults"][0]["struck"].as_u64().unwrap();
    let stored = keys(db);
    let (in_doubt, wrong) = judge(&place.run_folders()[0].join("ledger"), &stored, when);
    // A batch can be struck more than once, in its retries; without any, each cut leaves one in doubt.
    let attempts = report["scenario"]["workload"]["batch_insert"]["pipeline"]["retry"]["attempts"].as_u64().unwrap();
    let accounted = if attempts == 1 {
        in_doubt
    } else if in_doubt > 0 || struck == 0 {
        struck
    } else {
        0
    };
    Found { struck, right: accounted.min(struck), false_alarms: alarms + wrong }
}

/// What is tried beside the place of the cut comes from the seed.
fn scenario(db: &Database, when: &str, seed: u64) -> Value {
    let (attempts, conflict) = [(1, "error"), (5, "error"), (5, "ignore"), (1, "update"), (5, "replace")][seed as usize % 5];
    let methods: &[&str] = match (db.kind, conflict) {
        (Kind::Postgres, "error") => &["values", "unnest", "copy"],
        (Kind::Postgres, _) => &["values", "unnest"],
        _ => &["values"],
    };
    let mut fault = json!({"at": "50ms", "for": "10s", "kind": "cut", "when": when, "share": 0.4, "most": 1 + seed % 4});
    if when == "at_byte" {
        fault["bytes"] = json!(500 + seed * 131 % 9000);
    }
    let pipeline =
        json!({"flush_size": 20, "flush_interval": "10s", "concurrency": 1 + seed % 3, "retry": {"attempts": attempts, "base": "5ms"}});
    let insert = json!({"rows": ROWS, "method": methods[seed as usize / 5 % methods.len()], "conflict": conflict, "pipeline": pipeline});
    let mut scenario =
        db.scenario(insert, json!({"executor": "constant-arrival-rate", "rate": 1000, "duration": "400ms", "lag_limit": "60s"}));
    scenario["faults"] = json!([fault]);
    scenario["gates"] = json!(["error_rate <= 100%", "offered_rate > 0"]);
    scenario
}

/// Every key that is stored, as often as it is.
fn keys(db: &Database) -> Vec<i64> {
    let sql = db.filled("SELECT id FROM {table} ORDER BY id");
    match db.user() {
        User::Postgres(runtime, mut connection) => {
            let rows = runtime.block_on(sqlx::raw_sql(AssertSqlSafe(sql)).fetch_all(&mut connection)).unwrap();
            rows.iter().map(|row| row.get_unchecked(0)).collect()
        }
        User::Mysql(runtime, mut connection) => {
            let rows = runtime.block_on(sqlx::raw_sql(AssertSqlSafe(sql)).fetch_all(&mut connection)).unwrap();
            rows.iter().map(|row| row.get_unchecked(0)).collect()
        }
        User::Sqlite(_) => unreachable!("SQLite has no network"),
    }
}

/// How many batches were in doubt, and how many are not stored as their outcome demands; row k has key k + 1.
fn judge(ledger: &Path, stored: &[i64], when: &str) -> (u64, u64) {
    let mut members: Vec<Vec<i64>> = Vec::new();
    let ledger = Ledger::read(ledger, |member| {
        let batch = member.batch as usize;
        members.resize_with(members.len().max(batch + 1), Vec::new);
        members[batch].push(member.index as i64 + 1);
    })
    .unwrap();
    let there: BTreeSet<i64> = stored.iter().copied().collect();
    let (mut in_doubt, mut wrong) = (0, (stored.len() - there.len()) as u64);
    wrong += there.iter().filter(|key| !(1..=ROWS as i64).contains(*key)).count() as u64;
    for (record, keys) in ledger.batches.iter().zip(&members) {
        in_doubt += u64::from(record.after_unknown || record.outcome == Outcome::Unknown);
        let found = keys.iter().filter(|key| there.contains(key)).count();
        wrong += u64::from(!allowed(record, found, keys.len(), when));
    }
    (in_doubt, wrong)
}

/// Whether `found` of a batch's `all` rows may be stored.
fn allowed(record: &BatchRecord, found: usize, all: usize, when: &str) -> bool {
    let (whole, none) = (found == all, found == 0);
    match record.outcome {
        Outcome::Acknowledged => whole,
        Outcome::Rejected => none,
        Outcome::Unknown => match when {
            "after_commit" | "within_answer" => whole,
            "before_request" | "within_request" => none,
            _ => whole || none,
        },
    }
}
