//! The classes of anomalies, and how each is planted as one row, two rows, at the edges of what is read, and as a whole batch.

use std::collections::BTreeSet;

use batchsql::table::ColumnType;
use batchsql::workload::batch_insert::Generator;

use crate::corrupt::{Change, SUB_KINDS, change, literal};
use crate::random::Random;
use crate::world::{BEYOND, Batch, Design, Edit, Fate, OTHER_RUN, World, donor};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    One,
    /// The same change in both: what a checksum by XOR cannot see.
    Two,
    /// The first and the last key there are, and those on both sides of a bound between two readers.
    Edges,
    /// Every row of a batch; of a batch stored in part, every row but one.
    Batch,
}

pub(crate) const SHAPES: [Shape; 4] = [Shape::One, Shape::Two, Shape::Edges, Shape::Batch];

/// What must be found. Counts are what is added to those of the table without the plant.
#[derive(Debug, Default)]
pub(crate) struct Expected {
    pub(crate) lost: u64,
    pub(crate) duplicated: u64,
    pub(crate) surplus: u64,
    pub(crate) corrupted: u64,
    pub(crate) phantom: u64,
    pub(crate) resurrected: u64,
    pub(crate) stale: u64,
    pub(crate) partial: u64,
    pub(crate) recovered: i64,
    pub(crate) checked: i64,
    /// Class, key, sub-kind, column.
    pub(crate) examples: BTreeSet<(String, i64, Option<String>, Option<String>)>,
}

pub(crate) struct Plant {
    pub(crate) edits: Vec<Edit>,
    pub(crate) readers: u64,
    pub(crate) expected: Expected,
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
pub(crate) struct Picker<'a> {
    pub(crate) world: &'a World,
    pub(crate) random: &'a mut Random,
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

/// Makes a plant of a shape, if the world has what it takes.
type Make = Box<dyn Fn(&mut Picker<'_>, Shape) -> Option<Plant>>;

/// One class: the world its plants are made in, and how.
pub(crate) struct Class {
    pub(crate) label: String,
    pub(crate) world: usize,
    pub(crate) make: Make,
}

fn class(label: &str, world: usize, make: impl Fn(&mut Picker<'_>, Shape) -> Option<Plant> + 'static) -> Class {
    Class { label: label.to_owned(), world, make: Box::new(make) }
}

/// What the worlds are like that the classes speak of by number.
pub(crate) fn designs(seed: u64) -> Vec<Design> {
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

pub(crate) fn classes() -> Vec<Class> {
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
    let (keys, readers) = picker.keys(shape, &acknowledged(world))?;
    let [a, b] = *keys else { return None };
    let rows = [a, b].map(|key| world.generator.row((key - Generator::key(0)) as u64));
    for column in picker.random.shuffled((0..rows[0].len()).filter(|column| *column != world.table.key).collect()) {
        let crosswise = &world.table.columns[column];
        let [before, after] = [&rows[0][column], &rows[1][column]];
        // How a literal of a double is read differs by database in the last bit.
        if crosswise.nullable || crosswise.ty == ColumnType::Float64 || before == after {
            continue;
        }
        let mut plant = Plant::new(readers);
        for (key, value) in [(a, after), (b, before)] {
            plant.edits.push(Edit::Set(key, column, literal(world.database.kind, crosswise.ty, value)));
            plant.expected.corrupted += 1;
            plant.example("corrupted", key, Some(("swapped", &crosswise.name)));
        }
        return Some(plant);
    }
    None
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
