//! Runs in which nothing goes wrong: of every kind of scenario, and none may be called violated.

use crate::database::Database;
use crate::place::Place;
use crate::random::Random;
use crate::scenarios::{Judged, judged, scenario, several};
use crate::server::own;
use crate::tally::{Tally, full};

fn run(place: &Place, database: &Database, number: u64) -> Judged {
    judged(&place.run(&scenario(&mut Random::new(number), database, false), &[]))
}

fn tell(name: &str, runs: &[Judged]) {
    let wrong: Vec<&Judged> = runs.iter().filter(|run| !run.right).collect();
    // Batches at the same time that write the same keys block each other on servers.
    let blocked = runs.iter().filter(|run| run.faulted).count();
    let mut tally = Tally::new("clean");
    let (all, alarms) = (runs.len() as u64, wrong.len() as u64);
    tally.add("clean runs", name, all, all - alarms, 0, alarms, &format!("{blocked} runs blocked themselves"));
    tally.save();
    assert!(wrong.is_empty(), "{alarms} of {all} clean runs on {name} did not hold, the first of them: {:?}", wrong[0]);
}

#[test]
fn on_sqlite() {
    let runs = several(if full() { 1000 } else { 16 }, 3, |number| {
        let place = Place::new();
        run(&place, &Database::sqlite(&place, "clean"), number)
    });
    tell("SQLite", &runs);
}

fn on_server(server: Option<Database>, name: &str) {
    let Some(server) = server else { return };
    let place = Place::new();
    let database = own(&server, "proof_clean");
    let runs: Vec<Judged> = (0..if full() { 100 } else { 8 }).map(|number| run(&place, &database, number)).collect();
    tell(name, &runs);
}

#[test]
fn on_postgres() {
    on_server(Database::postgres("clean"), "PostgreSQL");
}

#[test]
fn on_mariadb() {
    on_server(Database::mariadb("clean"), "MariaDB");
}

#[test]
fn on_mysql() {
    on_server(Database::mysql("clean"), "MySQL");
}
