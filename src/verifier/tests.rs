//! Every anomaly, planted by hand: exactly its class, its count and its key, whatever the ranges are.

use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::ledger::{FILE, Header, LedgerWriter, Outcome, VERSION};
use crate::report::{Integrity, IntegrityVerdict};
use crate::scenario::units::Share;
use crate::scenario::{BatchInsert, default_columns};
use crate::table::{Row, Value};
use crate::target::digest::{RangeDigest, row_hash};
use crate::target::mock::block;
use crate::target::{Conflict, KeyRange};
use crate::workload::batch_insert::Generator;

mod digests;
mod harms;

const SEED: u64 = 42;

fn workload(duplicates: f64) -> BatchInsert {
    BatchInsert { duplicate_keys: Share(duplicates), columns: default_columns(), ..serde_json::from_value(serde_json::json!({})).unwrap() }
}

/// What happens to batches, in the order of the ledger.
#[derive(Clone)]
enum Event {
    Send(u64, Vec<u64>),
    Answer(u64, Outcome, bool),
    /// A fault begins, or is healed.
    Mark(u32, bool),
}
use Event::{Answer, Mark, Send};
use Outcome::{Acknowledged, Rejected, Unknown};

fn acknowledged(batch: u64, members: impl IntoIterator<Item = u64>) -> Vec<Event> {
    vec![Send(batch, members.into_iter().collect()), Answer(batch, Acknowledged, false)]
}

struct Case {
    workload: BatchInsert,
    conflict: Conflict,
    events: Vec<Event>,
    stored: Vec<Row>,
}

impl Case {
    /// 20 rows in two acknowledged batches, all stored right.
    fn clean() -> Self {
        let events = acknowledged(0, 0..10).into_iter().chain(acknowledged(1, 10..20)).collect();
        let workload = workload(0.0);
        let generator = Generator::new(SEED, &workload);
        Self { conflict: Conflict::Error, events, stored: (0..20).map(|index| generator.row(index)).collect(), workload }
    }

    fn row(&self, index: u64) -> Row {
        Generator::new(SEED, &self.workload).row(index)
    }

    /// The judgement of method `full`, which `digest` must share.
    fn judge(&self) -> Integrity {
        let judged: Vec<Integrity> = [1, 2, 3, 7].map(|parts| self.judge_in(parts)).into();
        for other in &judged[1..] {
            assert_eq!(Integrity { duration_seconds: 0.0, ..other.clone() }.examples, judged[0].examples, "ranges must not matter");
            assert_eq!(counts(other), counts(&judged[0]), "ranges must not matter");
        }
        for leaf in [1, 4, 1000] {
            let (digested, _) = self.judge_by_digests(leaf);
            assert_eq!(format!("{digested:?}"), format!("{:?}", judged[0]), "the methods must agree");
        }
        judged.into_iter().next().unwrap()
    }

    fn expectation(&self) -> Arc<Expectation> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(FILE);
        let writer = LedgerWriter::create(&path, &Header { version: VERSION, run_id: "r".into(), seed: SEED }).unwrap();
        for event in &self.events {
            match event {
                Send(batch, members) => writer.intent(*batch, 1, members.iter().copied()).unwrap(),
                Answer(batch, outcome, after_unknown) => writer.outcome(*batch, *outcome, *after_unknown).unwrap(),
                Mark(fault, healed) => writer.mark(crate::ledger::Mark { fault: *fault, healed: *healed }).unwrap(),
            }
        }
        Arc::new(Expectation::read(&path, self.workload.table(), self.conflict, Generator::new(SEED, &self.workload)).unwrap())
    }

    /// What is stored, in the order of keys.
    fn sorted(&self) -> Vec<Row> {
        let mut stored = self.stored.clone();
        stored.sort_by_key(|row| self.workload.table().key_of(row));
        stored
    }

    fn judge_in(&self, parts: usize) -> Integrity {
        let (expectation, stored) = (self.expectation(), self.sorted());
        let read = expectation.ranges(parts).into_iter().map(|range| self.read(&expectation, &stored, range));
        let findings = read.fold(Findings::default(), Findings::merge);
        expectation.conclude(findings, 0.0)
    }

    fn read(&self, expectation: &Arc<Expectation>, stored: &[Row], range: KeyRange) -> Findings {
        let table = self.workload.table();
        let mut check = RangeCheck::new(Arc::clone(expectation), range);
        // Small blocks, so that copies of a key lie on both sides of a block's edge.
        for rows in stored.iter().filter(|row| range.holds(table.key_of(row))).collect::<Vec<_>>().chunks(3) {
            check.block(&block(&table, rows));
        }
        check.finish()
    }

    /// The judgement of method `digest` with leaves of so many keys, and how many rows were read for it.
    fn judge_by_digests(&self, leaf: u64) -> (Integrity, u64) {
        let (expectation, stored, table) = (self.expectation(), self.sorted(), self.workload.table());
        let mut scratch = Vec::new();
        let mut hash = |row: &Row| row_hash(&table, row, &mut scratch);
        let mut findings = Findings::default();
        for mut stretch in Stretch::all(&expectation, leaf) {
            let mut pieces = stretch.pieces();
            stretch.expect(&mut hash);
            while !pieces.is_empty() {
                let mut found = vec![RangeDigest::default(); pieces.len()];
                for (piece, digest) in pieces.iter().zip(&mut found) {
                    let inside = stored.iter().filter(|row| piece.range.holds(table.key_of(row)));
                    inside.for_each(|row| digest.add(table.key_of(row), hash(row)));
                }
                pieces = stretch.judge(&pieces, &found);
            }
            let (agreed, ranges) = stretch.finish();
            findings = findings.merge(agreed);
            for range in ranges {
                findings = findings.merge(self.read(&expectation, &stored, range));
            }
        }
        let read_back = findings.read_back();
        (expectation.conclude(findings, 0.0), read_back)
    }
}

/// lost, duplicated, corrupted, phantom, resurrected, stale, recovered, partial batches.
fn counts(found: &Integrity) -> [u64; 8] {
    [found.lost, found.duplicated, found.corrupted, found.phantom, found.resurrected, found.stale, found.recovered, found.partial_batches]
}

fn keys(found: &Integrity, class: &str) -> Vec<i64> {
    found.examples.iter().filter(|example| example.class == class).map(|example| example.key).collect()
}

fn violated(case: &Case, class: &str, expected_keys: &[i64], expected: [u64; 8]) -> Integrity {
    let found = case.judge();
    assert_eq!((counts(&found), found.verdict), (expected, IntegrityVerdict::Violated));
    assert_eq!(keys(&found, class), expected_keys);
    assert_eq!(found.examples.len(), expected_keys.len(), "no example of another class");
    found
}

#[test]
fn everything_stored_once_and_right_holds() {
    let found = Case::clean().judge();
    assert_eq!((counts(&found), found.verdict, found.rate), ([0; 8], IntegrityVerdict::Holds, Some(1.0)));
    assert_eq!((found.checked, found.must_be_there), (20, 20));
}

#[test]
fn a_missing_acknowledged_row_is_lost() {
    for indexes in [vec![0], vec![19], vec![9, 10], (0..10).collect::<Vec<u64>>()] {
        let mut case = Case::clean();
        let lost: Vec<i64> = indexes.iter().map(|index| *index as i64 + 1).collect();
        case.stored.retain(|row| !lost.contains(&case.workload.table().key_of(row)));
        let found = violated(&case, "lost", &lost, [lost.len() as u64, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(found.rate, Some((20 - lost.len()) as f64 / 20.0));
        let row = found.examples[0].expected.as_deref().unwrap_or_default();
        assert!(row.starts_with(&format!("id={} name=", lost[0])), "{row}");
    }
}

#[test]
fn nothing_stored_at_all_is_lost_not_vacuous() {
    let mut case = Case::clean();
    case.stored.clear();
    let found = case.judge();
    assert_eq!((found.lost, found.checked, found.verdict), (20, 0, IntegrityVerdict::Violated));
}

#[test]
fn nothing_acknowledged_is_inconclusive() {
    let mut case = Case::clean();
    case.events = vec![Send(0, vec![0, 1]), Answer(0, Rejected, false)];
    case.stored.clear();
    let found = case.judge();
    assert_eq!((counts(&found), found.verdict, found.rate), ([0; 8], IntegrityVerdict::Inconclusive, None));
}

#[test]
fn a_row_stored_twice_is_duplicated_once_and_its_copies_are_surplus() {
    let mut case = Case::clean();
    case.stored.push(case.row(4));
    case.stored.push(case.row(4));
    case.stored.push(case.row(19));
    let found = violated(&case, "duplicated", &[5, 20], [0, 2, 0, 0, 0, 0, 0, 0]);
    assert_eq!((found.surplus_copies, found.checked), (3, 23));
    let example = &found.examples[0];
    assert_eq!((example.expected.as_deref(), example.found.as_deref()), (Some("1 row"), Some("3 rows")));
}

#[test]
fn a_changed_column_is_corrupted_and_the_change_is_named() {
    let change = |index: usize, column: usize, value: Value| {
        let mut case = Case::clean();
        case.stored[index][column] = value;
        case
    };
    let Value::Text(name) = Case::clean().stored[7][1].clone() else { panic!("name is a text") };
    let cases = [
        (change(7, 1, Value::Text(name[..5].into())), "name", "truncated"),
        (change(7, 1, Value::Text(format!("{name} "))), "name", "padded"),
        (change(7, 1, Value::Null), "name", "null"),
        (change(7, 3, Value::Int(7)), "data", "type"),
        (change(7, 5, Value::Int(1)), "is_active", "type"),
        (change(7, 1, Case::clean().stored[7][2].clone()), "name", "other"),
    ];
    for (case, column, sub_kind) in cases {
        let found = violated(&case, "corrupted", &[8], [0, 0, 1, 0, 0, 0, 0, 0]);
        assert_eq!(found.examples[0].column.as_deref(), Some(column));
        assert_eq!(found.examples[0].sub_kind.as_deref(), Some(sub_kind), "{:?}", found.examples[0]);
    }
}

#[test]
fn the_same_change_in_two_rows_is_seen_in_both() {
    // What a checksum by XOR cannot see.
    let mut case = Case::clean();
    for index in [3, 12] {
        case.stored[index][6] = Value::Timestamp(0);
    }
    violated(&case, "corrupted", &[4, 13], [0, 0, 2, 0, 0, 0, 0, 0]);
}

#[test]
fn swapped_values_are_called_so() {
    let mut within = Case::clean();
    within.stored[2].swap(1, 2);
    let found = violated(&within, "corrupted", &[3], [0, 0, 1, 0, 0, 0, 0, 0]);
    assert_eq!(found.examples[0].sub_kind.as_deref(), Some("swapped"));
    let mut across = Case::clean();
    let (a, b) = (across.stored[2][3].clone(), across.stored[15][3].clone());
    across.stored[2][3] = b;
    across.stored[15][3] = a;
    let found = violated(&across, "corrupted", &[3, 16], [0, 0, 2, 0, 0, 0, 0, 0]);
    assert!(found.examples.iter().all(|example| example.sub_kind.as_deref() == Some("swapped")));
}

#[test]
fn a_row_nobody_attempted_is_phantom() {
    for key in [-5, 0, 21, i64::MAX, i64::MIN] {
        let mut case = Case::clean();
        let mut row = case.row(3);
        row[0] = Value::Int(key);
        case.stored.push(row);
        violated(&case, "phantom", &[key], [0, 0, 0, 1, 0, 0, 0, 0]);
    }
}

#[test]
fn one_lost_and_one_added_row_do_not_cancel_out() {
    let mut case = Case::clean();
    case.stored[6][0] = Value::Int(999);
    let found = case.judge();
    assert_eq!((counts(&found), found.checked), ([1, 0, 0, 1, 0, 0, 0, 0], 20));
}

#[test]
fn a_stored_row_of_a_rejected_batch_is_resurrected() {
    let mut case = Case::clean();
    case.events.extend([Send(2, vec![20]), Answer(2, Rejected, false)]);
    case.stored.push(case.row(20));
    violated(&case, "resurrected", &[21], [0, 0, 0, 0, 1, 0, 0, 0]);
}

#[test]
fn an_unknown_batch_is_recovered_whole_or_absent_whole() {
    for (outcome, stored, expected) in [(Some(Unknown), 5, 5), (Some(Unknown), 0, 0), (None, 5, 5), (None, 0, 0)] {
        let mut case = Case::clean();
        case.events.push(Send(2, (20..25).collect()));
        case.events.extend(outcome.map(|outcome| Answer(2, outcome, true)));
        case.stored.extend((20..20 + stored).map(|index| Generator::new(SEED, &workload(0.0)).row(index)));
        let found = case.judge();
        assert_eq!((counts(&found), found.verdict), ([0, 0, 0, 0, 0, 0, expected, 0], IntegrityVerdict::Holds));
    }
}

#[test]
fn a_batch_stored_in_part_is_counted_once_and_its_rows_in_no_other_class() {
    for outcome in [Unknown, Rejected] {
        let mut case = Case::clean();
        case.events.extend([Send(2, (20..25).collect()), Answer(2, outcome, false)]);
        case.stored.extend([case.row(21), case.row(23)]);
        let found = violated(&case, "partial_batch", &[22], [0, 0, 0, 0, 0, 0, 0, 1]);
        let example = &found.examples[0];
        assert_eq!(
            (example.expected.as_deref(), example.found.as_deref()),
            (Some("all 5 rows of the batch, or none"), Some("2 of 5 rows"))
        );
    }
}

#[test]
fn a_wrong_row_of_a_recovered_batch_is_corrupted() {
    let mut case = Case::clean();
    case.events.extend([Send(2, vec![20, 21]), Answer(2, Unknown, true)]);
    let mut wrong = case.row(20);
    wrong[6] = Value::Timestamp(1);
    case.stored.extend([wrong, case.row(21)]);
    violated(&case, "corrupted", &[21], [0, 0, 1, 0, 0, 0, 1, 0]);
}

#[test]
fn a_row_is_in_the_first_class_that_fits() {
    let mut case = Case::clean();
    let mut phantom = case.row(0);
    phantom[0] = Value::Int(100);
    let mut wrong = case.row(5);
    wrong[1] = Value::Null;
    // A phantom twice, and a corrupted row twice: both are duplicated and nothing else.
    case.stored.extend([phantom.clone(), phantom, wrong]);
    let found = case.judge();
    assert_eq!((counts(&found), keys(&found, "duplicated")), ([0, 2, 0, 0, 0, 0, 0, 0], vec![6, 100]));
}

/// Two operations on one key: 1 is a duplicate of 0, found by a seed search so that the test states its own premise.
fn pair() -> (BatchInsert, u64, u64) {
    let workload = workload(0.3);
    let generator = Generator::new(SEED, &workload);
    let (first, second) = (1..200)
        .filter_map(|index| Some((generator.slot(index), index)).filter(|(slot, index)| slot != index && generator.slot(*slot) == *slot))
        .find(|(slot, index)| (0..300).filter(|other| generator.slot(*other) == *slot).all(|other| other == *slot || other == *index))
        .expect("a key with exactly two writers");
    (workload, first, second)
}

fn stored_after(conflict: Conflict, events: fn(u64, u64) -> Vec<Event>, stored: fn(u64, u64) -> u64) -> Integrity {
    let (workload, first, second) = pair();
    let row = Generator::new(SEED, &workload).row(stored(first, second));
    Case { workload, conflict, events: events(first, second), stored: vec![row] }.judge()
}

#[test]
fn the_last_write_must_win_under_replace_and_the_first_under_ignore() {
    let sequential = |a, b| acknowledged(0, [a]).into_iter().chain(acknowledged(1, [b])).collect::<Vec<_>>();
    for (conflict, good) in [(Conflict::Replace, true), (Conflict::Update, true), (Conflict::Ignore, false)] {
        let second = stored_after(conflict, sequential, |_, b| b);
        let first = stored_after(conflict, sequential, |a, _| a);
        let (right, wrong) = if good { (second, first) } else { (first, second) };
        assert_eq!((counts(&right), right.verdict), ([0; 8], IntegrityVerdict::Holds), "{conflict:?}");
        assert_eq!((counts(&wrong), wrong.verdict), ([0, 0, 0, 0, 0, 1, 0, 0], IntegrityVerdict::Violated), "{conflict:?}");
    }
}

#[test]
fn writes_that_overlap_may_end_either_way() {
    let overlapping = |a, b| vec![Send(0, vec![a]), Send(1, vec![b]), Answer(1, Acknowledged, false), Answer(0, Acknowledged, false)];
    for conflict in [Conflict::Replace, Conflict::Ignore] {
        for stored in [|a, _| a, |_, b| b] as [fn(u64, u64) -> u64; 2] {
            assert_eq!(stored_after(conflict, overlapping, stored).verdict, IntegrityVerdict::Holds, "{conflict:?}");
        }
    }
}

#[test]
fn rows_of_one_batch_take_effect_in_its_order() {
    let together = |a, b| vec![Send(0, vec![a, b]), Answer(0, Acknowledged, false)];
    assert_eq!(stored_after(Conflict::Replace, together, |_, b| b).verdict, IntegrityVerdict::Holds);
    assert_eq!(stored_after(Conflict::Replace, together, |a, _| a).stale, 1);
    assert_eq!(stored_after(Conflict::Ignore, together, |a, _| a).verdict, IntegrityVerdict::Holds);
    assert_eq!(stored_after(Conflict::Ignore, together, |_, b| b).stale, 1);
}

#[test]
fn an_attempt_of_unknown_outcome_may_take_effect_late() {
    // The first write was tried twice and its first attempt may still have been under way when the second write was done.
    let late = |a, b| vec![Send(0, vec![a]), Answer(0, Acknowledged, true), Send(1, vec![b]), Answer(1, Acknowledged, false)];
    assert_eq!(stored_after(Conflict::Replace, late, |a, _| a).verdict, IntegrityVerdict::Holds);
    assert_eq!(stored_after(Conflict::Replace, late, |_, b| b).verdict, IntegrityVerdict::Holds);
    assert_eq!(stored_after(Conflict::Ignore, late, |_, b| b).stale, 1, "the key was taken when the second began");
    // As it may where nothing but an unknown outcome was written of it.
    let unknown = |a, b| [vec![Send(0, vec![a]), Answer(0, Unknown, false)], acknowledged(1, [b])].into_iter().flatten().collect();
    for stored in [|a, _| a, |_, b| b] as [fn(u64, u64) -> u64; 2] {
        assert_eq!(stored_after(Conflict::Replace, unknown, stored).verdict, IntegrityVerdict::Holds);
    }
}

#[test]
fn a_duplicate_key_that_was_rejected_must_not_show() {
    let rejected = |a, b| acknowledged(0, [a]).into_iter().chain([Send(1, vec![b]), Answer(1, Rejected, false)]).collect();
    assert_eq!(stored_after(Conflict::Error, rejected, |a, _| a).verdict, IntegrityVerdict::Holds);
    assert_eq!(counts(&stored_after(Conflict::Error, rejected, |_, b| b)), [0, 0, 0, 0, 0, 1, 0, 0]);
    let both =
        |a, b| [0, 1].into_iter().zip([a, b]).flat_map(|(batch, op)| [Send(batch, vec![op]), Answer(batch, Rejected, false)]).collect();
    let found = stored_after(Conflict::Error, both, |a, _| a);
    assert_eq!(counts(&found), [0, 0, 0, 0, 1, 0, 0, 0]);
}

#[test]
fn a_shared_key_is_lost_recovered_and_corrupted_like_any_other() {
    let (workload, first, second) = pair();
    let case = |events, stored| Case { workload: workload.clone(), conflict: Conflict::Replace, events, stored };
    let sequential = || acknowledged(0, [first]).into_iter().chain(acknowledged(1, [second])).collect::<Vec<_>>();
    assert_eq!(counts(&case(sequential(), vec![]).judge()), [1, 0, 0, 0, 0, 0, 0, 0]);
    let row = Generator::new(SEED, &workload).row(second);
    let mut wrong = row.clone();
    wrong[6] = Value::Timestamp(0);
    let found = case(sequential(), vec![wrong]).judge();
    assert_eq!((counts(&found), found.examples[0].column.as_deref()), ([0, 0, 1, 0, 0, 0, 0, 0], Some("created_at")));
    let unknown = vec![Send(0, vec![first]), Answer(0, Rejected, false), Send(1, vec![second]), Answer(1, Unknown, true)];
    // Nothing was acknowledged, so nothing is proven although nothing is wrong.
    let found = case(unknown, vec![row]).judge();
    assert_eq!((counts(&found), found.verdict), ([0, 0, 0, 0, 0, 0, 1, 0], IntegrityVerdict::Inconclusive));
}

#[test]
fn examples_are_bounded_and_counts_are_not() {
    let mut case = Case::clean();
    case.events = acknowledged(0, 0..500);
    case.stored.clear();
    let found = case.judge();
    assert_eq!((found.lost, found.examples.len()), (500, EXAMPLES));
}

#[test]
fn what_was_found_is_said_in_words() {
    let mut case = Case::clean();
    case.events.extend([Send(2, (20..25).collect()), Answer(2, Unknown, false), Send(3, vec![25]), Answer(3, Rejected, false)]);
    case.stored.remove(0);
    case.stored[10][6] = Value::Timestamp(0);
    case.stored.extend([case.row(5), case.row(20), case.row(25)]);
    let mut phantom = case.row(1);
    phantom[0] = Value::Int(-1);
    case.stored.push(phantom);
    let found = case.judge();
    let told = "1 lost, 1 duplicated, 1 corrupted, 1 phantom, 1 resurrected, 1 batches stored in part";
    assert_eq!((counts(&found), found.reason.as_deref()), ([1, 1, 1, 1, 1, 0, 0, 1], Some(told)));
    assert_eq!((found.method.as_str(), found.rate, found.must_be_there), ("full", Some(17.0 / 20.0), 20));
    let classes: Vec<&str> = found.examples.iter().map(|example| example.class.as_str()).collect();
    assert_eq!(classes, ["corrupted", "duplicated", "lost", "partial_batch", "phantom", "resurrected"]);
    assert_eq!(Case::clean().judge().reason, None);
}

#[test]
fn copies_and_changes_within_a_batch_that_was_not_acknowledged_are_counted_once() {
    for (outcome, expected) in [(Unknown, [0, 1, 1, 0, 0, 0, 3, 0]), (Rejected, [0, 1, 0, 0, 4, 0, 0, 0])] {
        let mut case = Case::clean();
        case.events.extend([Send(2, (20..25).collect()), Answer(2, outcome, false)]);
        case.stored.extend((20..25).map(|index| Generator::new(SEED, &workload(0.0)).row(index)));
        case.stored.push(case.row(22));
        let last = case.stored.len() - 2;
        case.stored[last][6] = Value::Timestamp(0);
        let found = case.judge();
        assert_eq!((counts(&found), found.surplus_copies), (expected, 1), "{outcome:?}");
    }
}

#[test]
fn examples_of_a_batch_are_bounded_and_its_counts_are_not() {
    for (outcome, expected) in [(Unknown, [0, 0, 50, 0, 0, 0, 0, 0]), (Rejected, [0, 0, 0, 0, 50, 0, 0, 0])] {
        let mut case = Case::clean();
        case.events.extend([Send(2, (20..70).collect()), Answer(2, outcome, false)]);
        for index in 20..70 {
            let mut wrong = case.row(index);
            wrong[6] = Value::Timestamp(0);
            case.stored.push(wrong);
        }
        let found = case.judge();
        assert_eq!((counts(&found), found.examples.len()), (expected, EXAMPLES), "{outcome:?}");
        assert_eq!(found.examples[0].key, 21);
    }
}

#[test]
fn a_row_whose_key_is_no_integer_is_nobodys() {
    let case = Case::clean();
    let table = case.workload.table();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(FILE);
    drop(LedgerWriter::create(&path, &Header { version: VERSION, run_id: "r".into(), seed: SEED }).unwrap());
    let generator = Generator::new(SEED, &case.workload);
    let expectation = Arc::new(Expectation::read(&path, table.clone(), Conflict::Error, generator).unwrap());
    assert_eq!((expectation.table(), expectation.ledger().header.seed), (&table, SEED));
    let mut check = RangeCheck::new(Arc::clone(&expectation), expectation.ranges(1)[0]);
    let (mut text, mut null) = (case.row(0), case.row(1));
    text[0] = Value::Text("1".into());
    null[0] = Value::Null;
    check.block(&block(&table, &[&text, &null]));
    let findings = check.finish();
    assert_eq!(findings.checked(), 2);
    let found = expectation.conclude(findings, 1.5);
    assert_eq!((counts(&found), found.checked, found.duration_seconds), ([0, 0, 0, 2, 0, 0, 0, 0], 2, 1.5));
}

#[test]
fn of_two_legal_versions_the_nearer_one_was_meant() {
    let (workload, first, second) = pair();
    let overlapping = || vec![Send(0, vec![first]), Send(1, vec![second]), Answer(1, Acknowledged, false), Answer(0, Acknowledged, false)];
    let generator = Generator::new(SEED, &workload);
    for meant in [first, second] {
        let mut stored = generator.row(meant);
        stored[6] = Value::Timestamp(0);
        let case = Case { workload: workload.clone(), conflict: Conflict::Replace, events: overlapping(), stored: vec![stored] };
        let found = case.judge();
        assert_eq!((counts(&found), found.examples[0].column.as_deref()), ([0, 0, 1, 0, 0, 0, 0, 0], Some("created_at")), "{meant}");
    }
}

#[test]
fn a_stale_version_is_told_beside_the_legal_ones() {
    let sequential = |a, b| acknowledged(0, [a]).into_iter().chain(acknowledged(1, [b])).collect::<Vec<_>>();
    let (_, first, second) = pair();
    let found = stored_after(Conflict::Replace, sequential, |a, _| a);
    let example = &found.examples[0];
    let version = |operation: u64| Some(format!("the version of operation {operation}"));
    assert_eq!((example.class.as_str(), &example.expected, &example.found), ("stale", &version(second), &version(first)));
    assert_eq!(example.key, Generator::key(first));
}

#[test]
fn a_batch_is_judged_by_the_rows_whose_keys_are_its_own() {
    let (workload, first, second) = pair();
    let generator = Generator::new(SEED, &workload);
    let alone = |index: &u64| (0..400).all(|other| (generator.slot(other) == *index) == (other == *index));
    let own: Vec<u64> = (0..300).filter(alone).take(2).collect();
    for (theirs, shared) in [(first, second), (second, first)] {
        let batch = [Send(1, vec![shared, own[0], own[1]]), Answer(1, Unknown, false)];
        let case = |stored: &[u64]| Case {
            workload: workload.clone(),
            conflict: Conflict::Replace,
            events: acknowledged(0, [theirs]).into_iter().chain(batch.iter().cloned()).collect(),
            stored: stored.iter().map(|index| generator.row(*index)).collect(),
        };
        // Whichever version the shared key has, the batch is stored whole with its own keys, and in part with one of them.
        for version in [first, second] {
            assert_eq!(counts(&case(&[version, own[0], own[1]]).judge()), [0, 0, 0, 0, 0, 0, 2, 0]);
            let part = case(&[version, own[0]]).judge();
            assert_eq!((counts(&part), part.examples[0].found.as_deref()), ([0, 0, 0, 0, 0, 0, 0, 1], Some("1 of 2 rows")));
        }
    }
}

#[test]
fn ranges_cover_every_key_once_and_are_no_more_than_there_are_rows() {
    let case = Case::clean();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(FILE);
    let writer = LedgerWriter::create(&path, &Header { version: VERSION, run_id: "r".into(), seed: SEED }).unwrap();
    writer.intent(0, 1, 0..20).unwrap();
    let expectation = Expectation::read(&path, case.workload.table(), Conflict::Error, Generator::new(SEED, &case.workload)).unwrap();
    let bounds = |parts| expectation.ranges(parts).iter().map(|range| (range.from, range.to)).collect::<Vec<_>>();
    assert_eq!(bounds(0), [(None, None)]);
    assert_eq!(bounds(1), [(None, None)]);
    assert_eq!(bounds(4), [(None, Some(6)), (Some(6), Some(11)), (Some(11), Some(16)), (Some(16), None)]);
    assert_eq!(bounds(1000).len(), 20);
}

proptest! {
    /// Any mixture of planted losses, surplus copies, changes, phantoms and outcomes is counted exactly.
    #[test]
    fn planted_anomalies_are_counted_exactly(fates in prop::collection::vec(0u8..8, 1..120), batch_size in 1usize..12) {
        let workload = workload(0.0);
        let generator = Generator::new(SEED, &workload);
        let mut expected = [0u64; 8];
        let (mut events, mut stored) = (Vec::new(), Vec::new());
        for (batch, indexes) in (0..fates.len() as u64).collect::<Vec<_>>().chunks(batch_size).enumerate() {
            // The fate of a batch's first row decides what its answer was.
            let outcome = match fates[indexes[0] as usize] { 6 => Unknown, 7 => Rejected, _ => Acknowledged };
            events.extend([Send(batch as u64, indexes.to_vec()), Answer(batch as u64, outcome, outcome == Unknown)]);
            if outcome != Acknowledged {
                // All or nothing of it is stored.
                if fates[*indexes.last().unwrap() as usize] % 2 == 0 {
                    expected[if outcome == Unknown { 6 } else { 4 }] += indexes.len() as u64;
                    stored.extend(indexes.iter().map(|index| generator.row(*index)));
                }
                continue;
            }
            for index in indexes {
                let mut row = generator.row(*index);
                match fates[*index as usize] {
                    0 => { expected[0] += 1; continue; }
                    1 => { expected[1] += 1; stored.push(row.clone()); }
                    2 => { expected[2] += 1; row[6] = Value::Timestamp(-7); }
                    3 => {
                        expected[3] += 1;
                        let mut phantom = row.clone();
                        phantom[0] = Value::Int(-(*index as i64));
                        stored.push(phantom);
                    }
                    _ => {}
                }
                stored.push(row);
            }
        }
        let case = Case { workload, conflict: Conflict::Error, events, stored };
        for parts in [1, 4] {
            prop_assert_eq!(counts(&case.judge_in(parts)), expected);
        }
    }
}
