//! Planted corruption: every class of anomaly × {one row, two rows with the same change, the edges of what is read, a whole batch},
//! made by SQL in a table that a run left, and found by the verifier: exact class, exact keys, nothing else.

use std::collections::BTreeSet;

use batchsql::report::{Integrity, IntegrityVerdict};
use batchsql::workload::batch_insert::Generator;
use tokio::runtime::Runtime;

use crate::corrupt::{Change, SUB_KINDS, change, literal};
use crate::database::{Database, Kind};
use crate::place::Place;
use crate::random::Random;
use crate::server::own;
use crate::tally::{Tally, full};
use crate::world::{BEYOND, Batch, Design, Edit, Fate, OTHER_RUN, World, donor};

/// What each plant is verified with; all must find the same.
const METHODS: [&str; 1] = ["full"];

/// Worlds of different seeds, and plants of each class and shape in each of them.
const FULL: (u64, u64) = (4, 10);
const FAST: (u64, u64) = (1, 1);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shape {
    One,
    /// The same change in both: what a checksum by XOR cannot see.
    Two,
    /// The first and the last key there are, and those on both sides of a bound between two readers.
    Edges,
    /// Every row of a batch; of a batch stored in part, every row but one.
    Batch,
}

const SHAPES: [Shape; 4] = [Shape::One, Shape::Two, Shape::Edges, Shape::Batch];

/// What must be found. Counts are what is added to those of the table without the plant.
#[derive(Debug, Default)]
struct Expected {
    lost: u64,
    duplicated: u64,
    surplus: u64,
    corrupted: u64,
    phantom: u64,
    resurrected: u64,
    stale: u64,
    partial: u64,
    recovered: i64,
    checked: i64,
    /// Class, key, sub-kind, column.
    examples: BTreeSet<(String, i64, Option<String>, Option<String>)>,
}

struct Plant {
    edits: Vec<Edit>,
    readers: u64,
    expected: Expected,
}

impl Plant {
    fn new(readers: u64) -> Self {
        Self { edits: Vec::new(), readers, expected: Expected::default() }
    }

    fn example(&mut self, class: &str, key: i64, how: Option<(&str, &str)>) {
        let how = how.map(|(sub_kind, column)| (sub_kind.to_owned(), column.to_owned()));
        let (sub_kind, column) = how.unzip();
        self.expected.examples.insert((class.to_owned(), key, sub_kind, column));
    }
}

/// Picks rows or batches in a world.
struct Picker<'a> {
    world: &'a World,
    random: &'a mut Random,
}

impl Picker<'_> {
    /// Bounds between ranges, by how many readers there are: the first key behind each.
    fn bounds(&self) -> impl Iterator<Item = (u64, i64)> + use<> {
        let end = self.world.end;
        (2..=16).flat_map(move |readers| (1..readers).map(move |part| (readers, Generator::key(end * part / readers))))
    }

    /// Keys among `candidates`, and for how many readers they are what the shape says.
    fn keys(&mut self, shape: Shape, candidates: &BTreeSet<i64>) -> Option<(Vec<i64>, u64)> {
        let all: Vec<i64> = candidates.iter().copied().collect();
        match shape {
            Shape::One => (!all.is_empty()).then(|| (vec![*self.random.one(&all)], 2)),
            Shape::Two => (all.len() > 1).then(|| (self.random.shuffled(all)[..2].to_vec(), 2)),
            Shape::Edges => {
                let beside = |bound: i64| candidates.contains(&bound) && candidates.contains(&(bound - 1));
                let (readers, bound) = self.bounds().find(|(_, bound)| beside(*bound))?;
                let keys: BTreeSet<i64> = [*all.first()?, *all.last()?, bound - 1, bound].into();
                Some((keys.into_iter().collect(), readers))
            }
            Shape::Batch => {
                let key = |index: &u64| Generator::key(*index);
                let whole = |batch: &&Batch| batch.members.len() >= 3 && batch.members.iter().all(|index| candidates.contains(&key(index)));
                let batches: Vec<&Batch> = self.world.batches.iter().filter(whole).collect();
                (!batches.is_empty()).then(|| (self.random.one(&batches).members.iter().map(key).collect(), 2))
            }
        }
    }

    /// Batches of one fate, of at least as many rows as `sizes` says for one row, two rows, and a whole batch.
    fn batches(&mut self, shape: Shape, fate: Fate, partial: bool) -> Option<(Vec<Batch>, u64)> {
        let fits = |batch: &Batch| match shape {
            Shape::One if partial => batch.members.len() >= 2,
            Shape::One => batch.members.len() == 1,
            Shape::Two if !partial => batch.members.len() == 1,
            Shape::Two | Shape::Batch => batch.members.len() >= 3,
            Shape::Edges => batch.members.len() >= 2,
        };
        let all: Vec<Batch> = self.world.batches.iter().filter(|batch| batch.fate == fate && fits(batch)).cloned().collect();
        if shape != Shape::Edges {
            let wanted = if shape == Shape::Two && !partial { 2 } else { 1 };
            return (all.len() >= wanted).then(|| (self.random.shuffled(all)[..wanted].to_vec(), 2));
        }
        let straddles = |batch: &&Batch, bound: i64| {
            let slot = (bound - 1) as u64;
            batch.members.len() <= 8 && batch.members[0] < slot && batch.members.contains(&slot)
        };
        let (readers, middle) = self.bounds().find_map(|(readers, bound)| Some((readers, all.iter().find(|b| straddles(b, bound))?)))?;
        Some((vec![all.first()?.clone(), middle.clone(), all.last()?.clone()], readers))
    }
}

/// One class: the world its plants are made in, and how.
struct Class {
    label: String,
    world: usize,
    make: Box<dyn Fn(&mut Picker<'_>, Shape) -> Option<Plant>>,
}

fn class(label: &str, world: usize, make: impl Fn(&mut Picker<'_>, Shape) -> Option<Plant> + 'static) -> Class {
    Class { label: label.to_owned(), world, make: Box::new(make) }
}

fn designs(seed: u64) -> Vec<Design> {
    let plain = Design {
        name: "acknowledged",
        seed,
        rows: 700,
        conflict: "error",
        unique_key: true,
        duplicate_keys: 0.0,
        edge: Fate::Acknowledged,
    };
    let shared = Design { rows: 400, duplicate_keys: 0.5, ..plain };
    vec![
        plain,
        Design { name: "rejected", edge: Fate::Rejected, ..plain },
        Design { name: "recovered", edge: Fate::Recovered, ..plain },
        Design { name: "absent", edge: Fate::Absent, ..plain },
        Design { name: "without_unique_key", unique_key: false, rows: 300, ..plain },
        Design { name: "replaced", conflict: "replace", ..shared },
        Design { name: "updated", conflict: "update", ..shared },
        Design { name: "ignored", conflict: "ignore", ..shared },
    ]
}

fn classes() -> Vec<Class> {
    let mut classes = vec![
        class("lost", 0, lost),
        class("duplicated", 4, duplicated),
        class("phantom: never attempted", 0, |picker, shape| phantom(picker, shape, false)),
        class("phantom: another run's", 0, |picker, shape| phantom(picker, shape, true)),
        class("resurrected", 1, |picker, shape| appeared(picker, shape, Fate::Rejected)),
        class("recovered", 3, |picker, shape| appeared(picker, shape, Fate::Absent)),
        class("partial batch: rejected", 1, |picker, shape| partial(picker, shape, Fate::Rejected)),
        class("partial batch: unknown, not stored", 3, |picker, shape| partial(picker, shape, Fate::Absent)),
        class("partial batch: unknown, stored", 2, |picker, shape| partial(picker, shape, Fate::Recovered)),
        class("corrupted: swapped between rows", 0, exchanged),
        class("stale: replace", 5, stale),
        class("stale: update", 6, stale),
        class("stale: ignore", 7, stale),
    ];
    for sub_kind in SUB_KINDS {
        classes.push(class(&format!("corrupted: {sub_kind}"), 0, move |picker, shape| corrupted(picker, shape, sub_kind)));
    }
    classes
}

/// Keys of operations that were acknowledged.
fn acknowledged(world: &World) -> BTreeSet<i64> {
    let batches = world.batches.iter().filter(|batch| batch.fate == Fate::Acknowledged);
    batches.flat_map(|batch| batch.members.iter().map(|index| Generator::key(*index))).collect()
}

fn lost(picker: &mut Picker<'_>, shape: Shape) -> Option<Plant> {
    let (keys, readers) = picker.keys(shape, &acknowledged(picker.world))?;
    let mut plant = Plant::new(readers);
    for key in keys {
        plant.edits.push(Edit::Delete(key));
        plant.expected.lost += 1;
        plant.expected.checked -= 1;
        plant.example("lost", key, None);
    }
    Some(plant)
}

fn duplicated(picker: &mut Picker<'_>, shape: Shape) -> Option<Plant> {
    let (keys, readers) = picker.keys(shape, &acknowledged(picker.world))?;
    let mut plant = Plant::new(readers);
    let copies = picker.random.between(1, 2);
    for key in keys {
        plant.edits.extend((0..copies).map(|_| Edit::Copy(key)));
        plant.expected.duplicated += 1;
        plant.expected.surplus += copies;
        plant.expected.checked += copies as i64;
        plant.example("duplicated", key, None);
    }
    Some(plant)
}

fn phantom(picker: &mut Picker<'_>, shape: Shape, another_run: bool) -> Option<Plant> {
    let end = picker.world.end;
    let never = picker.world.batches.iter().filter(|batch| batch.fate == Fate::Never);
    let mut candidates: BTreeSet<i64> = never.flat_map(|batch| batch.members.iter().map(|index| Generator::key(*index))).collect();
    candidates.insert(Generator::key(end));
    match (shape, another_run) {
        (_, true) => candidates.extend((end..end + BEYOND).map(Generator::key)),
        (Shape::Edges, false) => candidates.extend([0]),
        (_, false) => candidates.extend([i64::MIN, -3, 0, Generator::key(end + 1_000), i64::MAX]),
    }
    let (keys, readers) = picker.keys(shape, &candidates)?;
    let mut plant = Plant::new(readers);
    // The same row under all of them.
    let model = donor(picker.random.below(end));
    for key in keys {
        plant.edits.push(Edit::Put(key, if another_run { key + OTHER_RUN } else { model }));
        plant.expected.phantom += 1;
        plant.expected.checked += 1;
        plant.example("phantom", key, None);
    }
    Some(plant)
}

/// Batches that were rejected, or unknown and not stored, and are now there as a whole.
fn appeared(picker: &mut Picker<'_>, shape: Shape, fate: Fate) -> Option<Plant> {
    let (batches, readers) = picker.batches(shape, fate, false)?;
    let mut plant = Plant::new(readers);
    for index in batches.iter().flat_map(|batch| &batch.members) {
        plant.edits.push(Edit::Put(Generator::key(*index), donor(*index)));
        plant.expected.checked += 1;
        if fate == Fate::Rejected {
            plant.expected.resurrected += 1;
            plant.example("resurrected", Generator::key(*index), None);
        } else {
            plant.expected.recovered += 1;
        }
    }
    Some(plant)
}

fn partial(picker: &mut Picker<'_>, shape: Shape, fate: Fate) -> Option<Plant> {
    let (batches, readers) = picker.batches(shape, fate, true)?;
    let mut plant = Plant::new(readers);
    for (place, batch) in batches.iter().enumerate() {
        let members = picker.random.shuffled(batch.members.clone());
        let kept = match shape {
            Shape::One => members[..1].to_vec(),
            Shape::Two => members[..2].to_vec(),
            Shape::Batch => members[1..].to_vec(),
            // Of the first batch the first key there is, of the last the last, and in between what lies behind the bound or before it.
            Shape::Edges if place == 0 => vec![batch.members[0]],
            Shape::Edges if place == 2 => vec![*batch.members.last()?],
            Shape::Edges => {
                let bound = (1..readers).map(|part| picker.world.end * part / readers).find(|slot| batch.members[1..].contains(slot))?;
                let behind = picker.random.percent(50);
                batch.members.iter().copied().filter(|index| (*index >= bound) == behind).collect()
            }
        };
        let size = batch.members.len() as i64;
        if fate == Fate::Recovered {
            plant
                .edits
                .extend(batch.members.iter().filter(|index| !kept.contains(index)).map(|index| Edit::Delete(Generator::key(*index))));
            plant.expected.recovered -= size;
            plant.expected.checked += kept.len() as i64 - size;
        } else {
            plant.edits.extend(kept.iter().map(|index| Edit::Put(Generator::key(*index), donor(*index))));
            plant.expected.checked += kept.len() as i64;
        }
        plant.expected.partial += 1;
        plant.example("partial_batch", Generator::key(*kept.iter().min()?), None);
    }
    Some(plant)
}

fn corrupted(picker: &mut Picker<'_>, shape: Shape, sub_kind: &'static str) -> Option<Plant> {
    let world = picker.world;
    let acknowledged = acknowledged(world);
    let changed = |key: i64, column: usize| {
        change(sub_kind, world.database.kind, &world.table, column, &world.generator.row((key - Generator::key(0)) as u64))
    };
    for column in picker.random.shuffled((0..world.table.columns.len()).collect()) {
        let candidates = acknowledged.iter().copied().filter(|key| changed(*key, column).is_some()).collect();
        let Some((keys, readers)) = picker.keys(shape, &candidates) else { continue };
        let mut plant = Plant::new(readers);
        for key in keys {
            plant.edits.push(match changed(key, column)? {
                Change::To(value) => Edit::Set(key, column, value),
                Change::With(other) => Edit::Exchange(key, column, other),
            });
            plant.expected.corrupted += 1;
            plant.example("corrupted", key, Some((sub_kind, &world.table.columns[column].name)));
        }
        return Some(plant);
    }
    None
}

/// Two rows get each other's value of a column.
fn exchanged(picker: &mut Picker<'_>, shape: Shape) -> Option<Plant> {
    let world = picker.world;
    let fixed = |column: &usize| *column != world.table.key && !world.table.columns[*column].nullable;
    let column = *picker.random.one(&(0..world.table.columns.len()).filter(fixed).collect::<Vec<_>>());
    let (keys, readers) = picker.keys(shape, &acknowledged(world))?;
    let value = |key: i64| world.generator.row((key - Generator::key(0)) as u64)[column].clone();
    let ty = world.table.columns[column].ty;
    // Of more than two rows each pair exchanges.
    let [a, b, ..] = *keys else { return None };
    let (before, after) = (value(a), value(b));
    // How a literal of a double is read differs by database in the last bit.
    if shape != Shape::Two || before == after || matches!(before, batchsql::table::Value::Float(_)) {
        return None;
    }
    let mut plant = Plant::new(readers);
    for (key, value) in [(a, after), (b, before)] {
        plant.edits.push(Edit::Set(key, column, literal(world.database.kind, ty, &value)));
        plant.expected.corrupted += 1;
        plant.example("corrupted", key, Some(("swapped", &world.table.columns[column].name)));
    }
    Some(plant)
}

/// A version that another acknowledged write has replaced, that came too late, or that was rejected.
fn stale(picker: &mut Picker<'_>, shape: Shape) -> Option<Plant> {
    let world = picker.world;
    let winners: BTreeSet<(i64, u64)> = world.stored.iter().map(|(key, index)| (*key, *index)).collect();
    let attempted = world.batches.iter().filter(|batch| batch.fate != Fate::Never);
    let mut losers: Vec<(i64, u64, usize)> = Vec::new();
    for (number, batch) in attempted.enumerate() {
        for index in &batch.members {
            let key = Generator::key(world.generator.slot(*index));
            if world.stored.contains_key(&key) && !winners.contains(&(key, *index)) {
                losers.push((key, *index, number));
            }
        }
    }
    let (keys, readers) = if shape == Shape::Batch {
        // Every row of one batch that was written over.
        let numbers: BTreeSet<usize> = losers.iter().map(|(.., number)| *number).collect();
        let of = |number: usize| losers.iter().filter(|loser| loser.2 == number).map(|loser| loser.0).collect::<BTreeSet<i64>>();
        let most = numbers.into_iter().max_by_key(|number| of(*number).len())?;
        losers.retain(|loser| loser.2 == most);
        (losers.iter().map(|loser| loser.0).collect::<BTreeSet<i64>>().into_iter().collect(), 2)
    } else {
        picker.keys(shape, &losers.iter().map(|(key, ..)| *key).collect())?
    };
    let mut plant = Plant::new(readers);
    for key in keys {
        let versions: Vec<u64> = losers.iter().filter(|loser| loser.0 == key).map(|loser| loser.1).collect();
        plant.edits.push(Edit::Become(key, donor(*picker.random.one(&versions))));
        plant.expected.stale += 1;
        plant.example("stale", key, None);
    }
    Some(plant)
}

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
