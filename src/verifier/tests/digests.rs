//! What method `digest` reads, and what it leaves unread.

use super::*;

/// As [`Case::clean`], in one batch of so many rows.
fn large(rows: u64) -> Case {
    let clean = Case::clean();
    Case { events: acknowledged(0, 0..rows), stored: (0..rows).map(|index| clean.row(index)).collect(), ..clean }
}

#[test]
fn digests_that_agree_leave_nothing_to_be_read() {
    for rows in [0, 1, 63, 64, 65, 640, 1500] {
        assert_eq!(large(rows).judge_by_digests(1).1, 0, "{rows} rows in leaves of one");
        let (found, read) = large(rows).judge_by_digests(10);
        assert_eq!((read, found.checked, found.must_be_there, counts(&found)), (0, rows, rows, [0; 8]), "{rows} rows in leaves of ten");
    }
}

#[test]
fn only_the_leaves_that_differ_are_read() {
    // 640 keys are a piece and 5,120 a stretch.
    let mut case = large(6_000);
    for index in [0, 639, 640, 2_345, 5_119, 5_120, 5_999] {
        case.stored[index][5] = Value::Null;
    }
    let (found, read) = case.judge_by_digests(10);
    assert_eq!((found.corrupted, keys(&found, "corrupted")), (7, vec![1, 640, 641, 2346, 5120, 5121, 6000]));
    assert_eq!((read, found.checked), (70, 6_000), "a leaf of ten keys for each");
    case.stored.retain(|row| !(100..=105).contains(&case.workload.table().key_of(row)));
    case.stored.extend([-3i64, 0, 6_001, 9_999].map(|key| [vec![Value::Int(key)], case.row(1)[1..].to_vec()].concat()));
    let (found, read) = case.judge_by_digests(10);
    assert_eq!((counts(&found), keys(&found, "phantom")), ([6, 0, 7, 4, 0, 0, 0, 0], vec![-3, 0, 6_001, 9_999]));
    // Keys 91 to 99, 106 to 110, and what lies outside.
    assert_eq!((read, found.checked), (70 + 9 + 5 + 4, 5_998));
}

#[test]
fn what_the_ledger_leaves_open_is_read_and_nothing_else() {
    let mut case = large(1_000);
    case.events = acknowledged(0, (0..500).chain(505..990));
    case.events.extend([
        Send(1, (500..505).collect()),
        Answer(1, Unknown, true),
        Send(2, (990..1_000).collect()),
        Answer(2, Rejected, false),
    ]);
    case.stored.truncate(990);
    let (found, read) = case.judge_by_digests(10);
    assert_eq!((counts(&found), read, found.checked), ([0, 0, 0, 0, 0, 0, 5, 0], 10, 990));
    case.stored.push(case.row(995));
    let (found, read) = case.judge_by_digests(10);
    assert_eq!((counts(&found), read, keys(&found, "partial_batch")), ([0, 0, 0, 0, 0, 0, 5, 1], 11, vec![996]));
}

#[test]
fn versions_that_follow_each_other_are_digested() {
    let mut case = Case { workload: workload(0.3), conflict: Conflict::Replace, ..Case::clean() };
    let generator = Generator::new(SEED, &case.workload);
    case.events = (0..50).flat_map(|batch| acknowledged(batch, batch * 10..(batch + 1) * 10)).collect();
    let mut stored = std::collections::BTreeMap::new();
    (0..500).for_each(|index| drop(stored.insert(generator.slot(index), generator.row(index))));
    case.stored = stored.into_values().collect();
    let (found, read) = case.judge_by_digests(10);
    assert_eq!((read, found.checked, counts(&found)), (0, case.stored.len() as u64, [0; 8]));
    assert!((300..400).contains(&case.stored.len()), "three of ten share a key");
    // One batch under way beside the next: which came last is open for the keys they share.
    case.events.truncate(1);
    case.events.extend([Send(1, (10..20).collect()), Answer(0, Acknowledged, false), Answer(1, Acknowledged, false)]);
    case.events.extend((2..50).flat_map(|batch| acknowledged(batch, batch * 10..(batch + 1) * 10)));
    assert_eq!(counts(&case.judge()), [0; 8]);
}

#[test]
fn the_same_change_in_many_rows_does_not_cancel_out() {
    // What a checksum by XOR of CRC-32 cannot see: the change's effect on it is the same in every row, and their number is even.
    for rows in [2, 70_000] {
        let case = large(rows);
        let table = case.workload.table();
        let mut changed = case.stored.clone();
        changed.iter_mut().for_each(|row| row[6] = Value::Timestamp(if let Value::Timestamp(at) = row[6] { at ^ 0b100 } else { 0 }));
        let mut scratch = Vec::new();
        let mut sums = |rows: &[Row]| {
            let (mut xor, mut digest) = (0, RangeDigest::default());
            for row in rows {
                digest.add(table.key_of(row), row_hash(&table, row, &mut scratch));
                // `row_hash` leaves the encoded row.
                xor ^= crc32fast::hash(&scratch);
            }
            (xor, digest)
        };
        let (before, after) = (sums(&case.stored), sums(&changed));
        assert_eq!((before.0, before.1.rows, before.1.keys), (after.0, after.1.rows, after.1.keys), "what XOR and a count see");
        assert_ne!(before.1.sum, after.1.sum, "{rows} rows");
    }
}

/// 300 operations, two of which overlap on one key: which of them is stored there is open. And the slot of that key.
fn open_key() -> (Case, u64) {
    let (workload, first, second) = pair();
    let generator = Generator::new(SEED, &workload);
    let mut events: Vec<Event> =
        (0..300).filter(|index| ![first, second].contains(index)).flat_map(|index| acknowledged(index, [index])).collect();
    events.extend([Send(first, vec![first]), Send(second, vec![second])]);
    events.extend([first, second].map(|batch| Answer(batch, Acknowledged, false)));
    let mut stored = std::collections::BTreeMap::new();
    (0..300).for_each(|index| drop(stored.insert(generator.slot(index), generator.row(index))));
    (Case { workload, conflict: Conflict::Replace, events, stored: stored.into_values().collect() }, first)
}

#[test]
fn a_key_of_which_several_versions_are_legal_is_lost_when_it_has_none() {
    let (mut case, slot) = open_key();
    assert_eq!(counts(&case.judge()), [0; 8]);
    let key = Generator::key(slot);
    case.stored.retain(|row| case.workload.table().key_of(row) != key);
    violated(&case, "lost", &[key], [1, 0, 0, 0, 0, 0, 0, 0]);
}

fn keys_of(from: Option<u64>, to: Option<u64>) -> KeyRange {
    KeyRange { from: from.map(Generator::key), to: to.map(Generator::key) }
}

#[test]
fn sums_are_asked_of_pieces_between_what_is_open_and_of_what_lies_outside() {
    let (case, slot) = open_key();
    let mut stretches = Stretch::all(&case.expectation(), 1);
    let asked: Vec<KeyRange> = stretches[0].pieces().into_iter().map(|piece| piece.range).collect();
    let mut expected = vec![keys_of(None, Some(0))];
    for (from, to) in [(0, slot), (slot + 1, 300)] {
        expected.extend((from..to).step_by(64).map(|at| keys_of(Some(at), Some(to.min(at + 64)))));
    }
    expected.push(keys_of(Some(300), None));
    assert_eq!((stretches.len(), asked), (1, expected));
    assert_eq!(stretches.remove(0).finish().1, [keys_of(Some(slot), Some(slot + 1))], "what is open is read");
}

#[test]
fn stretches_follow_each_other_and_leave_no_key_out() {
    let bounds = |rows, leaf| {
        let whole = |stretch: &mut Stretch| {
            let pieces = stretch.pieces();
            let whole = stretch.whole();
            assert_eq!((pieces[0].range.from, pieces[pieces.len() - 1].range.to), (whole.from, whole.to));
            assert!(pieces.windows(2).all(|pair| pair[0].range.to == pair[1].range.from));
            whole
        };
        Stretch::all(&large(rows).expectation(), leaf).iter_mut().map(whole).collect::<Vec<_>>()
    };
    assert_eq!(bounds(0, 10), [keys_of(None, None)]);
    assert_eq!(bounds(1_005, 10), [keys_of(None, None)]);
    assert_eq!(bounds(1_024, 1), [keys_of(None, Some(512)), keys_of(Some(512), None)]);
    assert_eq!(bounds(1_025, 1), [keys_of(None, Some(512)), keys_of(Some(512), Some(1_024)), keys_of(Some(1_024), None)]);
    assert_eq!(bounds(6_000, 10), [keys_of(None, Some(5_120)), keys_of(Some(5_120), None)]);
}
