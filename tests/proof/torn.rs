//! Ledgers that a crash cut off at any byte, judged by what they still say, and ledgers with a flipped bit, refused.

use std::fs;

use batchsql::ledger::FILE;
use batchsql::report::IntegrityVerdict;
use batchsql::workload::batch_insert::Generator;
use tokio::runtime::Runtime;

use crate::database::Database;
use crate::place::Place;
use crate::random::Random;
use crate::tally::{Tally, full};
use crate::world::{Design, Edit, Fate, World};

/// Where each record ends, and which batch's intent or outcome it is; read here once more, apart from the program's own reader.
fn records(ledger: &[u8]) -> Vec<(usize, u8, usize)> {
    let mut records = Vec::new();
    let mut at = 0;
    while at < ledger.len() {
        let length = u32::from_le_bytes(ledger[at..at + 4].try_into().unwrap()) as usize;
        let payload = &ledger[at + 12..at + 12 + length];
        let (mut batch, mut shift) = (0, 0);
        for byte in &payload[1..] {
            batch |= usize::from(byte & 0x7f) << shift;
            shift += 7;
            if byte & 0x80 == 0 {
                break;
            }
        }
        at += 12 + length;
        records.push((at, payload[0], batch));
    }
    records
}

const INTENT: u8 = 1;
const OUTCOME: u8 = 3;

/// What must be found when the ledger ends at `cut`, and the edits that make the table what it was then: nothing that was not sent.
fn then(world: &World, records: &[(usize, u8, usize)], cut: usize) -> (u64, u64, Vec<Edit>) {
    let (mut owed, mut recovered, mut edits) = (0, 0, Vec::new());
    for (number, batch) in world.batches.iter().enumerate() {
        let written = |kind| records.iter().any(|record| (record.1, record.2) == (kind, number) && record.0 <= cut);
        let rows = batch.members.len() as u64;
        match batch.fate {
            Fate::Acknowledged if written(OUTCOME) => owed += rows,
            Fate::Acknowledged | Fate::Recovered if written(INTENT) => recovered += rows,
            Fate::Acknowledged | Fate::Recovered => edits.extend(batch.members.iter().map(|index| Edit::Delete(Generator::key(*index)))),
            Fate::Rejected | Fate::Absent | Fate::Never => {}
        }
    }
    (owed, recovered, edits)
}

/// Whether the ledger cut at `cut` is judged right; else what was found.
fn torn(runtime: &Runtime, world: &mut World, whole: &[u8], records: &[(usize, u8, usize)], cut: usize) -> Result<(), String> {
    let (owed, recovered, edits) = then(world, records, cut);
    world.apply(&edits);
    fs::write(world.folder().join(FILE), &whole[..cut]).unwrap();
    let found = world.try_verify(runtime, "full", 2);
    world.undo(&edits);
    let no_header = cut < records[0].0;
    match found {
        Err(error) if no_header && error.to_string().contains("damaged") => Ok(()),
        Ok(found) if !no_header => {
            let verdict = if owed > 0 { IntegrityVerdict::Holds } else { IntegrityVerdict::Inconclusive };
            let right = (found.verdict, found.must_be_there, found.recovered, found.examples.len()) == (verdict, owed, recovered, 0);
            if right { Ok(()) } else { Err(format!("cut at {cut}: {found:?}, not {owed} owed and {recovered} recovered")) }
        }
        other => Err(format!("cut at {cut}: {other:?}")),
    }
}

#[test]
fn cut_and_damaged_ledgers() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let place = Place::new();
    let seed = 11;
    let rows = if full() { 160 } else { 50 };
    let plain = Design { name: "torn", seed, rows, conflict: "error", unique_key: true, duplicate_keys: 0.0, edge: Fate::Acknowledged };
    let mut world = World::new(&runtime, &Database::sqlite(&place, "torn"), &plain);
    let whole = fs::read(world.folder().join(FILE)).unwrap();
    let records = records(&whole);
    let mut random = Random::new(seed);
    let mut tally = Tally::new("torn");
    let tail = records[records.len() - 3].0;
    // In the fast share every byte of the last two records, and every seventh before them.
    let cuts = (0..whole.len()).filter(|cut| full() || *cut >= tail || cut % 7 == 0);
    let judged: Vec<Result<(), String>> = cuts.map(|cut| torn(&runtime, &mut world, &whole, &records, cut)).collect();
    let wrong: Vec<&String> = judged.iter().filter_map(|result| result.as_ref().err()).collect();
    let (all, no) = (judged.len() as u64, wrong.len() as u64);
    tally.add("ledger cut off at any byte", "SQLite", all, all - no, 0, no, "judged by what is left of it");
    let mut accepted = Vec::new();
    let flips: Vec<usize> = (0..whole.len()).filter(|at| full() || at % 11 == 0).collect();
    for at in &flips {
        let mut damaged = whole.clone();
        damaged[*at] ^= 1 << random.below(8);
        fs::write(world.folder().join(FILE), damaged).unwrap();
        match world.try_verify(&runtime, "full", 2) {
            Err(error) if error.to_string().contains("damaged at byte") => {}
            other => accepted.push(format!("byte {at}: {other:?}")),
        }
    }
    // And in the program's own words: it could not run.
    place.verify(world.folder(), &[]).refused(&["ledger", "is damaged at byte", "run the scenario again"]);
    let (all, no) = (flips.len() as u64, accepted.len() as u64);
    tally.add("ledger with a flipped bit", "SQLite", all, all - no, no, 0, "found: refused");
    tally.save();
    assert!(wrong.is_empty() && accepted.is_empty(), "{} and {}: {wrong:?} {accepted:?}", wrong.len(), accepted.len());
}
