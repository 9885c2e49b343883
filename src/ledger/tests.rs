//! What is written comes back; what a crash cuts off is recognised; what is damaged is refused.

use std::path::PathBuf;

use proptest::prelude::*;

use super::*;

fn header() -> Header {
    Header { version: VERSION, run_id: "r1".into(), seed: 7 }
}

fn ledger(write: impl FnOnce(&LedgerWriter)) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(FILE);
    write(&LedgerWriter::create(&path, &header()).unwrap());
    (folder, path)
}

#[test]
fn batches_members_sessions_and_outcomes_come_back() {
    let (_folder, path) = ledger(|writer| {
        writer.intent(0, 11, [4, 5, 6, 2].into_iter()).unwrap();
        writer.intent(1, 12, [0, 1, 3].into_iter()).unwrap();
        writer.outcome(0, Outcome::Acknowledged, false).unwrap();
        writer.intent(1, 13, std::iter::empty()).unwrap();
        writer.outcome(1, Outcome::Acknowledged, true).unwrap();
        writer.intent(2, 0, [7].into_iter()).unwrap();
        writer.outcome(2, Outcome::Rejected, false).unwrap();
        writer.close().unwrap();
    });
    let mut seen = Vec::new();
    let ledger = Ledger::read(&path, |member| seen.push(member)).unwrap();
    assert_eq!(ledger.header, header());
    assert!(ledger.closed && !ledger.torn);
    assert_eq!(ledger.sessions.iter().copied().collect::<Vec<_>>(), [11, 12, 13]);
    assert_eq!(
        ledger.batches,
        [
            BatchRecord { sent: 1, answered: 3, outcome: Outcome::Acknowledged, after_unknown: false },
            BatchRecord { sent: 2, answered: 5, outcome: Outcome::Acknowledged, after_unknown: true },
            BatchRecord { sent: 6, answered: 7, outcome: Outcome::Rejected, after_unknown: false },
        ]
    );
    let run = |start, len, batch| Run { start, len, batch };
    assert_eq!(ledger.runs, [run(0, 2, 1), run(2, 1, 0), run(3, 1, 1), run(4, 3, 0), run(7, 1, 2)]);
    assert_eq!(seen.iter().map(|m| m.index).collect::<Vec<_>>(), [4, 5, 6, 2, 0, 1, 3, 7]);
    assert_eq!(seen[3], Member { index: 2, batch: 0, position: 3 });
    assert_eq!((ledger.batch_of(5), ledger.batch_of(8), ledger.end()), (Some(0), None, 8));
    assert_eq!(ledger.totals(), [7, 1, 0]);
    let batches: Vec<Option<u32>> = (0..9).map(|index| ledger.batch_of(index)).collect();
    assert_eq!(batches, [Some(1), Some(1), Some(0), Some(1), Some(0), Some(0), Some(0), Some(2), None]);
}

#[test]
fn an_intent_without_an_outcome_is_unknown() {
    let (_folder, path) = ledger(|writer| writer.intent(0, 1, 0..3).unwrap());
    let ledger = Ledger::read(&path, |_| {}).unwrap();
    assert_eq!(ledger.batches[0], BatchRecord { sent: 1, answered: u32::MAX, outcome: Outcome::Unknown, after_unknown: false });
    assert!(!ledger.closed);
}

#[test]
fn every_cut_of_the_tail_is_torn_and_never_wrong() {
    let (_folder, path) = ledger(|writer| {
        writer.intent(0, 1, 0..3).unwrap();
        writer.outcome(0, Outcome::Acknowledged, false).unwrap();
    });
    let whole = std::fs::read(&path).unwrap();
    let outcome_bytes = FRAME + 4;
    for cut in 1..outcome_bytes {
        std::fs::write(&path, &whole[..whole.len() - cut]).unwrap();
        let ledger = Ledger::read(&path, |_| {}).unwrap();
        assert!(ledger.torn, "cut {cut}");
        assert_eq!(ledger.batches[0].outcome, Outcome::Unknown, "cut {cut}");
        assert_eq!(ledger.sound_bytes, (whole.len() - outcome_bytes) as u64);
    }
}

#[test]
fn every_flipped_byte_is_damage() {
    let (_folder, path) = ledger(|writer| {
        writer.intent(0, 1, 0..3).unwrap();
        writer.outcome(0, Outcome::Acknowledged, false).unwrap();
    });
    let whole = std::fs::read(&path).unwrap();
    for at in 0..whole.len() {
        let mut bytes = whole.clone();
        bytes[at] ^= 0x10;
        std::fs::write(&path, &bytes).unwrap();
        assert!(matches!(Ledger::read(&path, |_| {}), Err(LedgerError::Damaged { .. })), "byte {at}");
    }
}

#[test]
fn a_ledger_is_never_overwritten() {
    let (_folder, path) = ledger(|_| {});
    assert_eq!(LedgerWriter::create(&path, &header()).err().unwrap().kind(), std::io::ErrorKind::AlreadyExists);
}

#[test]
fn a_batch_of_more_rows_than_any_can_have_is_damage() {
    let (_folder, path) = ledger(|writer| writer.intent(0, 1, 0..1_000_000).unwrap());
    assert_eq!(Ledger::read(&path, |_| {}).unwrap().end(), 1_000_000);
    for last in [1_000_000, 2_000_000] {
        let (_folder, path) = ledger(|writer| writer.intent(0, 1, (0..1_000_000).chain([last])).unwrap());
        assert!(Ledger::read(&path, |_| {}).unwrap_err().to_string().contains("a batch has more operations than any can"));
    }
}

#[test]
fn every_outcome_comes_back() {
    let (_folder, path) = ledger(|writer| {
        for (batch, outcome) in [(0, Outcome::Acknowledged), (1, Outcome::Rejected), (2, Outcome::Unknown)] {
            writer.intent(batch, 1, std::iter::once(batch)).unwrap();
            writer.outcome(batch, outcome, false).unwrap();
        }
    });
    let ledger = Ledger::read(&path, |_| {}).unwrap();
    let outcomes: Vec<(u32, Outcome)> = ledger.batches.iter().map(|batch| (batch.answered, batch.outcome)).collect();
    assert_eq!(outcomes, [(2, Outcome::Acknowledged), (4, Outcome::Rejected), (6, Outcome::Unknown)]);
    assert_eq!(ledger.totals(), [1, 1, 1]);
}

#[test]
fn members_of_a_batch_that_follow_each_other_are_one_run() {
    let (_folder, path) = ledger(|writer| {
        writer.intent(0, 1, [5, 4, 6, 9].into_iter()).unwrap();
        writer.intent(1, 1, [7, 8].into_iter()).unwrap();
    });
    let run = |start, len, batch| Run { start, len, batch };
    assert_eq!(Ledger::read(&path, |_| {}).unwrap().runs, [run(4, 3, 0), run(7, 2, 1), run(9, 1, 0)]);
    let before = std::fs::metadata(&path).unwrap().len();
    let (_folder, path) = ledger(|writer| writer.intent(0, 1, 100..10_100).unwrap());
    assert!(std::fs::metadata(&path).unwrap().len() < before, "consecutive members take a few bytes");
}

#[test]
fn what_cannot_be_the_length_of_a_record_is_damage_and_what_may_be_is_torn() {
    let (_folder, path) = ledger(|_| {});
    let whole = std::fs::read(&path).unwrap();
    let told = |tail: &[u8]| {
        std::fs::write(&path, [&whole, tail].concat()).unwrap();
        Ledger::read(&path, |_| {}).map(|ledger| ledger.torn).map_err(|error| error.to_string())
    };
    let frame = |length: u32| {
        let length = length.to_le_bytes();
        [length, crc32fast::hash(&length).to_le_bytes(), [0; 4]].concat()
    };
    for impossible in [0, MAX_PAYLOAD as u32 + 1] {
        assert!(told(&frame(impossible)).unwrap_err().contains("a record has an impossible length"), "{impossible}");
    }
    assert_eq!([told(&frame(1)), told(&frame(MAX_PAYLOAD as u32))], [Ok(true), Ok(true)]);
    assert_eq!(told(&[0xff; FRAME - 1]), Ok(true));
    assert!(told(&[0xfe; FRAME]).unwrap_err().contains("the length of a record does not match its checksum"));
}

proptest! {
    #[test]
    fn varints_come_back(value: u64, signed: i64) {
        let mut bytes = Vec::new();
        put_varint(&mut bytes, value);
        prop_assert_eq!(take_varint(&mut bytes.as_slice()), Some(value));
        prop_assert_eq!(unzigzag(zigzag(signed)), signed);
    }

    #[test]
    fn members_in_any_order_come_back(members in prop::collection::hash_set(0u64..500, 1..60)) {
        let members: Vec<u64> = members.into_iter().collect();
        let (_folder, path) = ledger(|writer| writer.intent(0, 1, members.iter().copied()).unwrap());
        let mut seen = Vec::new();
        Ledger::read(&path, |member| seen.push(member.index)).unwrap();
        prop_assert_eq!(seen, members);
    }
}
