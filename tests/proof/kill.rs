//! The program killed in the middle of its load, at a seeded moment: `verify` gives the right verdict by the ledger it left, and
//! every key that the ledger calls acknowledged is stored, which SQL says apart from the verifier.

use std::time::Duration;

use batchsql::ledger::{FILE, Ledger, Outcome};
use batchsql::workload::batch_insert::Generator;
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::database::{Database, Kind};
use crate::place::Place;
use crate::random::Random;
use crate::scenarios::{Judged, scenario, several};
use crate::server::own;
use crate::tally::{Tally, full};

/// One run, killed. `None` if it had ended already.
fn kill(place: &Place, database: &Database, random: &mut Random) -> Option<Judged> {
    let mut scenario = scenario(random, database, false);
    scenario["workload"]["batch_insert"]["rows"] = json!(30_000);
    scenario["workload"]["batch_insert"]["unique_key"] = json!(true);
    scenario["workload"]["batch_insert"]["duplicate_keys"] = json!(0.0);
    scenario["load"] = json!({"executor": "shared-iterations", "vus": random.between(1, 4)});
    let mut running = place.start(&scenario, &[]);
    // The header alone is about a hundred bytes.
    let folder = running.until_ledger_has(*random.one(&[20, 150, 400, 1500, 3000]));
    std::thread::sleep(Duration::from_micros(random.below(25_000)));
    running.signal(Signal::SIGKILL);
    if running.end().code().is_some() {
        return None;
    }
    let ledger = Ledger::read(&folder.join(FILE), |_| {}).unwrap();
    if ledger.closed {
        return None;
    }
    let verified = place.verify(&folder, &[&database.password_again()[..], &["--quiet"]].concat());
    let integrity: Value = serde_json::from_str(&verified.stdout).unwrap_or_else(|e| panic!("{e}: {}{}", verified.stdout, verified.stderr));
    let [acknowledged, ..] = ledger.totals();
    let (verdict, code) = if acknowledged > 0 { ("holds", 0) } else { ("inconclusive", 3) };
    let stored = database.number("SELECT count(*) FROM {table}").unsigned_abs();
    let wrong = [
        (integrity["verdict"] != verdict).then_some("the verdict"),
        (verified.code() != Some(code)).then_some("the exit code"),
        (integrity["must_be_there"] != acknowledged).then_some("what must be there"),
        (integrity["recovered"].as_u64() != Some(stored - acknowledged)).then_some("what is there beside it"),
        (acknowledged_and_stored(database, &ledger) != acknowledged).then_some("an acknowledged key is not stored"),
    ];
    let wrong: Vec<&str> = wrong.into_iter().flatten().collect();
    let report = format!("{wrong:?}: {acknowledged} acknowledged, {stored} stored, {integrity}, {scenario}");
    Some(Judged { right: wrong.is_empty(), faulted: acknowledged > 0, report })
}

/// How many of the keys that were acknowledged are stored, by SQL.
fn acknowledged_and_stored(database: &Database, ledger: &Ledger) -> u64 {
    let acknowledged = ledger.runs.iter().filter(|run| ledger.batches[run.batch as usize].outcome == Outcome::Acknowledged);
    let key = if database.kind == Kind::Mysql { "`id`" } else { "\"id\"" };
    let mut user = database.user();
    // Runs that touch are one range: a statement is asked of so many at once.
    let mut ranges: Vec<(i64, i64)> = Vec::new();
    for run in acknowledged {
        let (first, last) = (Generator::key(run.start), Generator::key(run.start + u64::from(run.len) - 1));
        match ranges.last_mut() {
            Some((_, end)) if *end + 1 == first => *end = last,
            _ => ranges.push((first, last)),
        }
    }
    let between = |(first, last): &(i64, i64)| format!("{key} BETWEEN {first} AND {last}");
    let count = |some: &[(i64, i64)]| {
        let filter = some.iter().map(between).collect::<Vec<_>>().join(" OR ");
        user.number(&database.filled(&format!("SELECT count(*) FROM {{table}} WHERE {filter}"))).unsigned_abs()
    };
    ranges.chunks(100).map(count).sum()
}

fn tell(name: &str, kills: u64, once: impl Fn(&mut Random, u64) -> Option<Judged> + Sync) {
    let judged = several(kills, 3, |number| {
        // Now and then a run is over before it is killed.
        let attempt = |attempt| once(&mut Random::new(number << 8 | attempt), number);
        (0..20).find_map(attempt).unwrap_or_else(|| panic!("kill {number} on {name}: no run lived long enough"))
    });
    let wrong: Vec<&Judged> = judged.iter().filter(|run| !run.right).collect();
    let proven = judged.iter().filter(|run| run.faulted).count();
    let mut tally = Tally::new("kill");
    let (all, no) = (judged.len() as u64, wrong.len() as u64);
    tally.add("kill -9 of the program", name, all, all - no, 0, no, &format!("{proven} runs had acknowledged rows"));
    tally.save();
    assert!(wrong.is_empty(), "{no} of {all} killed runs on {name} were judged wrong, the first of them: {}", wrong[0].report);
    assert!(proven > 0, "no run had acknowledged anything when it was killed");
}

#[test]
fn on_sqlite() {
    tell("SQLite", if full() { 80 } else { 4 }, |random, _| {
        let place = Place::new();
        kill(&place, &Database::sqlite(&place, "killed"), random)
    });
}

fn on_server(server: Option<Database>, name: &str) {
    let Some(server) = server else { return };
    let database = own(&server, "proof_kill");
    tell(name, if full() { 70 } else { 4 }, |random, number| {
        let table = format!("killed_{}", number % 3);
        kill(&Place::new(), &Database { kind: database.kind, url: database.url.clone(), table }, random)
    });
}

#[test]
fn on_postgres() {
    on_server(Database::postgres("killed"), "PostgreSQL");
}

#[test]
fn on_mariadb() {
    on_server(Database::mariadb("killed"), "MariaDB");
}

#[test]
fn on_mysql() {
    on_server(Database::mysql("killed"), "MySQL");
}
