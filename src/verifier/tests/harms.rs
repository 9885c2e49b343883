//! What each fault did to rows, by the place of its marks among the outcomes.

use super::*;

fn batch(number: u64, outcome: Outcome) -> [Event; 2] {
    [Send(number, (number * 10..number * 10 + 10).collect()), Answer(number, outcome, outcome == Unknown)]
}

/// Two faults with a batch of ten rows before, within, between and after them.
fn struck() -> Case {
    let events: Vec<Event> = [
        batch(0, Acknowledged).into(),
        vec![Mark(0, false)],
        Vec::from(batch(1, Unknown)),
        vec![Mark(0, true)],
        batch(2, Acknowledged).into(),
        vec![Mark(1, false)],
        batch(3, Unknown).into(),
        batch(4, Acknowledged).into(),
        vec![Mark(1, true)],
        batch(5, Acknowledged).into(),
    ]
    .into_iter()
    .flatten()
    .collect();
    let clean = Case::clean();
    let stored = (0..60).filter(|index| !(30..40).contains(index)).map(|index| clean.row(index)).collect();
    Case { events, stored, ..clean }
}

/// Of each fault: its number, rows lost, unknown and stored, unknown and not, stored twice.
fn harms(case: &Case) -> Vec<[u64; 5]> {
    let told = case.judge().by_fault.into_iter();
    told.map(|harm| [harm.fault.into(), harm.lost, harm.unknown_stored, harm.unknown_absent, harm.duplicated]).collect()
}

#[test]
fn unknown_rows_are_counted_to_the_fault_that_began_last_before_their_outcome() {
    assert_eq!(harms(&struck()), [[0, 0, 10, 0, 0], [1, 0, 0, 10, 0]]);
}

#[test]
fn lost_rows_are_counted_to_the_first_fault_that_was_over_after_their_acknowledgement() {
    let mut case = struck();
    let gone = |keys: &[i64], case: &Case, row: &Row| !keys.contains(&case.workload.table().key_of(row));
    // Of the batches before, between, within the second and after all faults, rows have keys from 1.
    let keys = [1, 2, 3, 21, 22, 41, 51, 52, 53, 54];
    case.stored = case.stored.iter().filter(|row| gone(&keys, &case, row)).cloned().collect();
    assert_eq!(harms(&case), [[0, 3, 10, 0, 0], [1, 3, 0, 10, 0]]);
    assert_eq!(case.judge().lost, 10);
}

#[test]
fn rows_stored_twice_are_counted_to_the_fault_that_began_last() {
    let mut case = struck();
    // One from before all faults, two from between them, three from within the second, four from after it.
    case.stored.extend([0, 20, 21, 40, 41, 42, 50, 51, 52, 53].map(|index| case.row(index)));
    assert_eq!(harms(&case), [[0, 0, 10, 0, 2], [1, 0, 0, 10, 7]]);
    assert_eq!(case.judge().duplicated, 10);
}

#[test]
fn a_fault_that_left_no_mark_is_not_told_of() {
    let mut case = struck();
    case.events.retain(|event| !matches!(event, Mark(0, _)));
    assert_eq!(harms(&case), [[1, 0, 0, 10, 0]]);
    case.events.retain(|event| !matches!(event, Mark(..)));
    assert_eq!(harms(&case), [[0; 5]; 0]);
}
