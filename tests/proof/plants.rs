//! Planted corruption: every class of anomaly × {one row, two rows with the same change, the edges of what is read, a whole batch}, made
//! by SQL in a table that a run left, and found by the verifier: exact class, exact keys, nothing else.

use std::collections::BTreeSet;

use batchsql::report::{Integrity, IntegrityVerdict};
use tokio::runtime::Runtime;

use crate::classes::{Expected, Picker, Plant, SHAPES, Shape, classes, designs};
use crate::database::{Database, Kind};
use crate::place::Place;
use crate::random::Random;
use crate::server::own;
use crate::tally::{Tally, full};
use crate::world::World;

/// What each plant is verified with; all must find the same.
const METHODS: [&str; 2] = ["full", "digest"];

/// Worlds of different seeds, and plants of each class and shape in each of them.
const FULL: (u64, u64) = (4, 10);
const FAST: (u64, u64) = (1, 1);

/// What of the expected was not found, and what was found beside it.
fn compare(base: &Integrity, found: &Integrity, expected: &Expected) -> (Vec<String>, Vec<String>) {
    let (mut missed, mut invented) = (Vec::new(), Vec::new());
    let signed = |number: u64| i64::try_from(number).unwrap();
    let counts = [
        ("lost", signed(found.lost), signed(expected.lost)),
        ("duplicated", signed(found.duplicated), signed(expected.duplicated)),
        ("surplus copies", signed(found.surplus_copies), signed(expected.surplus)),
        ("corrupted", signed(found.corrupted), signed(expected.corrupted)),
        ("phantom", signed(found.phantom), signed(expected.phantom)),
        ("resurrected", signed(found.resurrected), signed(expected.resurrected)),
        ("stale", signed(found.stale), signed(expected.stale)),
        ("partial batches", signed(found.partial_batches), signed(expected.partial)),
        ("recovered", signed(found.recovered), signed(base.recovered) + expected.recovered),
        ("checked", signed(found.checked), signed(base.checked) + expected.checked),
        ("must be there", signed(found.must_be_there), signed(base.must_be_there)),
    ];
    for (what, found, expected) in counts {
        let list = if found < expected { &mut missed } else { &mut invented };
        if found != expected {
            list.push(format!("{what}: {found}, not {expected}"));
        }
    }
    let seen: BTreeSet<_> = found.examples.iter().map(|a| (a.class.clone(), a.key, a.sub_kind.clone(), a.column.clone())).collect();
    missed.extend(expected.examples.difference(&seen).map(|example| format!("{example:?}")));
    invented.extend(seen.difference(&expected.examples).map(|example| format!("{example:?}")));
    let wanted = if expected.examples.is_empty() { IntegrityVerdict::Holds } else { IntegrityVerdict::Violated };
    if found.verdict != wanted {
        let list = if wanted == IntegrityVerdict::Violated { &mut missed } else { &mut invented };
        list.push(format!("{:?} ({:?})", found.verdict, found.reason));
    }
    (missed, invented)
}

/// All plants on one database.
fn on(database: &Database, name: &str) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let mut tally = Tally::new("plants");
    let mut wrong = Vec::new();
    let (seeds, rounds) = if full() { FULL } else { FAST };
    for seed in 1..=seeds {
        let mut worlds: Vec<World> = designs(seed).iter().map(|design| World::new(&runtime, database, design)).collect();
        let bases = bases(&runtime, &mut worlds);
        let mut random = Random::new(seed);
        for round in 0..rounds {
            for class in classes() {
                for shape in SHAPES {
                    let world = &mut worlds[class.world];
                    let Some(plant) = (class.make)(&mut Picker { world, random: &mut random }, shape) else {
                        assert!(leaves_out(&class.label, shape), "no {shape:?} of {} on {name}, seed {seed}", class.label);
                        continue;
                    };
                    let (missed, invented) = judge(&runtime, world, &bases[class.world], &plant);
                    let no = [&missed, &invented].map(|list| u64::from(!list.is_empty()));
                    tally.add(&class.label, name, 1, 1 - no[0], no[0], no[1], "");
                    if no != [0, 0] {
                        wrong.push(format!(
                            "{} {shape:?}, seed {seed}, round {round}: missed {missed:?}, invented {invented:?}",
                            class.label
                        ));
                    }
                }
            }
            // Whatever was planted has been undone.
            assert_eq!(
                crate::plants::bases(&runtime, &mut worlds).iter().map(shown).collect::<Vec<_>>(),
                bases.iter().map(shown).collect::<Vec<_>>()
            );
        }
    }
    tally.save();
    assert!(
        wrong.is_empty(),
        "{} plants on {name} were judged wrong, the first of them:\n{}",
        wrong.len(),
        wrong[..wrong.len().min(10)].join("\n")
    );
}

/// Shapes that a class cannot have: only two rows can hold each other's values.
fn leaves_out(label: &str, shape: Shape) -> bool {
    label == "corrupted: swapped between rows" && shape != Shape::Two
}

/// The worlds without a plant; they must hold.
fn bases(runtime: &Runtime, worlds: &mut [World]) -> Vec<Integrity> {
    let mut bases = Vec::new();
    for world in worlds {
        let found: Vec<Integrity> = METHODS.iter().map(|method| world.verify(runtime, method, 2)).collect();
        for base in &found {
            assert_eq!((base.verdict, base.examples.len()), (IntegrityVerdict::Holds, 0), "{}: {base:#?}", world.database.table);
            assert_eq!(base.checked, world.stored.len() as u64);
        }
        bases.extend(found.into_iter().next());
    }
    bases
}

fn shown(integrity: &Integrity) -> [u64; 3] {
    [integrity.checked, integrity.must_be_there, integrity.recovered]
}

fn judge(runtime: &Runtime, world: &mut World, base: &Integrity, plant: &Plant) -> (Vec<String>, Vec<String>) {
    world.apply(&plant.edits);
    let (mut missed, mut invented) = (Vec::new(), Vec::new());
    for method in METHODS {
        let (not_found, beside) = compare(base, &world.verify(runtime, method, plant.readers), &plant.expected);
        missed.extend(not_found.into_iter().map(|what| format!("{method}: {what}")));
        invented.extend(beside.into_iter().map(|what| format!("{method}: {what}")));
    }
    world.undo(&plant.edits);
    (missed, invented)
}

#[test]
fn on_sqlite() {
    let place = Place::new();
    on(&Database::sqlite(&place, "plants"), "SQLite");
}

#[test]
fn on_postgres() {
    if let Some(database) = Database::postgres("plants") {
        on(&own(&database, "proof_plants"), "PostgreSQL");
    }
}

#[test]
fn on_mariadb() {
    if let Some(database) = Database::mariadb("plants") {
        on(&own(&database, "proof_plants"), "MariaDB");
    }
}

#[test]
fn on_mysql() {
    if let Some(database) = Database::mysql("plants") {
        assert_eq!(database.kind, Kind::Mysql);
        on(&own(&database, "proof_plants"), "MySQL");
    }
}
