//! Each anomaly, planted into answers, an upstream's ids and log rows, is found exactly.

use std::collections::HashMap;

use super::*;
use crate::ledger::Header;

fn workload() -> ProxyRequest {
    serde_json::from_value(serde_json::json!({
        "requests": 40, "replies": "mock", "users": [{"name": "ann"}], "models": ["m"],
        "mix": [{"chat": {"stream": true, "max_tokens": 6}}]
    }))
    .unwrap()
}

const COUNT: u64 = 40;

struct Case {
    workload: ProxyRequest,
    generator: Generator,
    ledger: RequestLedger,
}

impl Case {
    /// Everything right: 40 requests, acknowledged 100 ms apart.
    fn right() -> Self {
        let workload = workload();
        let generator = Generator::new(5, "run", &workload);
        let answers = (0..COUNT)
            .map(|index| {
                let operation = generator.operation(index);
                Answer {
                    index,
                    digest: Some(digest(&reply::text(&generator.id(&operation), 6))),
                    usage: Some((operation.words, 6)),
                    at_ms: index as u32 * 100,
                    status: 200,
                    outcome: Some(Outcome::Acknowledged),
                    streamed: true,
                    ended: true,
                    checked: false,
                }
            })
            .collect();
        let header = Header { version: 1, run_id: "run".into(), seed: 5 };
        let ledger = RequestLedger { header, end: COUNT, answers, replies: HashMap::new(), marks: Vec::new(), closed: true, torn: false };
        Self { workload, generator, ledger }
    }

    fn id(&self, index: u64) -> String {
        self.generator.id(&self.generator.operation(index))
    }

    /// Operation `index` got `text`.
    fn reply(mut self, index: u64, text: &str) -> Self {
        self.ledger.answers[index as usize].digest = Some(digest(text));
        self.ledger.replies.insert(index, text.to_owned());
        self
    }

    fn outcome(mut self, index: u64, outcome: Outcome) -> Self {
        self.ledger.answers[index as usize].outcome = Some(outcome);
        self
    }

    fn rows(&self) -> Vec<LogRow> {
        let row = |index| {
            let operation = self.generator.operation(index);
            LogRow {
                id: self.id(index),
                user: Some("ann".into()),
                model: Some("m".into()),
                prompt_tokens: Some(operation.words.to_string()),
                completion_tokens: Some("6".into()),
                status: Some("200".into()),
            }
        };
        (0..COUNT).map(row).collect()
    }

    fn judge(&self, act: impl FnOnce(&mut Requests<'_>)) -> Integrity {
        let mut requests = Requests::new(&self.ledger, &self.generator, &self.workload);
        act(&mut requests);
        requests.conclude(0.1)
    }

    fn replies(&self) -> Integrity {
        self.judge(|requests| requests.replies())
    }

    fn log(&self, rows: Vec<LogRow>) -> Integrity {
        self.judge(|requests| requests.log(rows.into_iter(), None))
    }
}

/// The one anomaly there is: class, sub-kind, key, column; all counts but its own are zero.
fn only(found: &Integrity) -> (String, Option<String>, i64, String) {
    assert_eq!(found.verdict, IntegrityVerdict::Violated, "{found:?}");
    let [example] = found.examples.as_slice() else { panic!("{:?}", found.examples) };
    let expected = ["lost", "duplicated", "corrupted", "phantom"].map(|class| u64::from(example.class == class));
    assert_eq!([found.lost, found.duplicated, found.corrupted, found.phantom], expected, "{found:?}");
    assert_eq!(found.reason, Some(format!("1 {}", example.class)));
    (example.class.clone(), example.sub_kind.clone(), example.key, example.column.clone().unwrap())
}

fn corrupted(sub_kind: &str, key: i64, column: &str) -> (String, Option<String>, i64, String) {
    ("corrupted".into(), Some(sub_kind.into()), key, column.into())
}

#[test]
fn what_is_right_holds() {
    let case = Case::right();
    let found = case.judge(|requests| {
        requests.replies();
        requests.upstream((0..COUNT).map(|index| case.id(index)));
        requests.log(case.rows().into_iter(), None);
    });
    assert_eq!((found.verdict, found.checked, found.must_be_there, found.rate), (IntegrityVerdict::Holds, 120, 120, Some(1.0)));
    assert_eq!(found.method, "replies, upstream records, log rows");
    assert!(found.sources.iter().all(|source| (source.must_be_there, source.right) == (COUNT, COUNT)));
}

#[test]
fn every_kind_of_wrong_reply_is_told() {
    let right = Case::right();
    let text = reply::text(&right.id(7), 6);
    let tokens: Vec<&str> = text.split(' ').collect();
    let swapped = [&tokens[..2], &[tokens[3], tokens[2]], &tokens[4..]].concat().join(" ");
    let twice = [&tokens[..3], &tokens[2..]].concat().join(" ");
    let gap = [&tokens[..2], &tokens[3..]].concat().join(" ");
    let cases = [
        ("crosstalk", reply::text(&right.id(8), 6)),
        ("truncated", tokens[..4].join(" ")),
        ("truncated", String::new()),
        ("reordered", swapped),
        ("repeated", twice),
        ("gap", gap),
        // A token twice in the place of another; and two that changed places before the end is missing.
        ("reordered", [&tokens[..2], &[tokens[1]], &tokens[3..]].concat().join(" ")),
        ("reordered", [&tokens[..2], &[tokens[3], tokens[2]]].concat().join(" ")),
        ("altered", text.replace("3-", "3+")),
    ];
    for (kind, found) in cases {
        assert_eq!(only(&Case::right().reply(7, &found).replies()), corrupted(kind, 7, "reply.content"), "{found}");
    }
    let never_sent = reply::text(&right.id(COUNT + 3), 6);
    assert_eq!(only(&Case::right().reply(7, &never_sent).replies()), ("phantom".into(), None, 7, "reply.content".into()));
    let another_run = reply::text(&reply::request_id(1, 7), 6);
    assert_eq!(only(&Case::right().reply(7, &another_run).replies()).0, "phantom");
}

#[test]
fn a_reply_that_does_not_say_it_is_through_is_truncated_and_wrong_usage_is_altered() {
    let mut case = Case::right();
    case.ledger.answers[3].ended = false;
    assert_eq!(only(&case.replies()), corrupted("truncated", 3, "reply.end"));
    let mut case = Case::right();
    case.ledger.answers[4].usage = Some((1, 5));
    assert_eq!(only(&case.replies()), corrupted("altered", 4, "reply.usage"));
}

#[test]
fn replies_that_were_not_acknowledged_are_not_judged() {
    let mut case = Case::right().outcome(3, Outcome::Rejected).outcome(4, Outcome::Unknown);
    case.ledger.answers[3].ended = false;
    case.ledger.answers[4].digest = None;
    let found = case.replies();
    assert_eq!((found.verdict, found.must_be_there), (IntegrityVerdict::Holds, COUNT - 2));
}

#[test]
fn the_upstreams_ledger_tells_hidden_retries_and_invented_replies() {
    let case = Case::right();
    let ids = |change: fn(&mut Vec<u64>)| {
        let mut indexes: Vec<u64> = (0..COUNT).collect();
        change(&mut indexes);
        let ids: Vec<String> = indexes.into_iter().map(|index| case.id(index)).collect();
        case.judge(|requests| requests.upstream(ids.into_iter()))
    };
    assert_eq!(only(&ids(|all| all.push(9))), ("duplicated".into(), None, 9, "upstream".into()));
    assert_eq!(only(&ids(|all| all.retain(|index| *index != 9))), ("lost".into(), None, 9, "upstream".into()));
    assert_eq!(only(&ids(|all| all.push(COUNT + 1))), ("phantom".into(), None, COUNT as i64 + 1, "upstream".into()));
    // Requests of others say nothing.
    assert_eq!(
        case.judge(|requests| requests.upstream((0..COUNT).map(|i| case.id(i)).chain(["other".into()]))).verdict,
        IntegrityVerdict::Holds
    );
    // A failed request may have reached it or not.
    for outcome in [Outcome::Rejected, Outcome::Unknown] {
        let case = Case::right().outcome(9, outcome);
        for ids in [(0..COUNT).collect::<Vec<_>>(), (0..COUNT).filter(|index| *index != 9).collect()] {
            let found = case.judge(|requests| requests.upstream(ids.into_iter().map(|index| case.id(index))));
            assert_eq!(found.verdict, IntegrityVerdict::Holds);
        }
    }
}

#[test]
fn the_log_has_one_right_row_of_each_acknowledged_request() {
    let case = Case::right();
    let changed = |change: fn(&mut Vec<LogRow>)| {
        let mut rows = case.rows();
        change(&mut rows);
        case.log(rows)
    };
    assert_eq!(only(&changed(|rows| drop(rows.remove(5)))), ("lost".into(), None, 5, "log".into()));
    let twice = changed(|rows| rows.push(rows[5].clone()));
    assert_eq!((only(&twice), twice.surplus_copies), (("duplicated".into(), None, 5, "log".into()), 1));
    assert_eq!(only(&changed(|rows| rows[5].user = Some("bob".into()))), corrupted("other", 5, "log.user"));
    assert_eq!(only(&changed(|rows| rows[5].model = Some("n".into()))), corrupted("other", 5, "log.model"));
    assert_eq!(only(&changed(|rows| rows[5].prompt_tokens = Some("0".into()))), corrupted("other", 5, "log.prompt_tokens"));
    assert_eq!(only(&changed(|rows| rows[5].completion_tokens = Some("7".into()))), corrupted("other", 5, "log.completion_tokens"));
    assert_eq!(only(&changed(|rows| rows[5].status = Some("500".into()))), corrupted("other", 5, "log.status"));
    let mut rows = case.rows();
    rows.push(LogRow { id: case.id(COUNT), ..LogRow::default() });
    assert_eq!(only(&case.log(rows)), ("phantom".into(), None, COUNT as i64, "log".into()));
    // The id may stand anywhere in its column, and what is not mapped is not compared.
    assert_eq!(
        changed(|rows| rows.iter_mut().for_each(|row| *row = LogRow { id: format!("req:{}!", row.id), ..LogRow::default() })).verdict,
        IntegrityVerdict::Holds
    );
}

#[test]
fn rows_of_failed_requests_are_legal_and_their_absence_too() {
    let case = Case::right().outcome(5, Outcome::Rejected).outcome(6, Outcome::Unknown);
    let found = case.log(case.rows());
    assert_eq!((found.verdict, found.sources[0].must_be_there, found.sources[0].right), (IntegrityVerdict::Holds, COUNT - 2, COUNT - 2));
    let rows = case.rows().into_iter().filter(|row| ![case.id(5), case.id(6)].contains(&row.id)).collect();
    assert_eq!(case.log(rows).verdict, IntegrityVerdict::Holds);
}

#[test]
fn what_a_killed_gateway_may_lose_is_measured_against_what_is_allowed() {
    let case = Case::right();
    let rows: Vec<LogRow> = case.rows().into_iter().take(35).collect();
    let found = case.judge(|requests| requests.log(rows.clone().into_iter(), Some(Duration::from_millis(400))));
    // Lost are 35 to 39, answered at 3.5 s to 3.9 s.
    assert_eq!(
        (found.verdict, found.lost, found.allowed_lost, found.lost_window_seconds),
        (IntegrityVerdict::Holds, 0, Some(5), Some(0.4))
    );
    assert_eq!((found.must_be_there, found.rate), (35, Some(1.0)));
    let found = case.judge(|requests| requests.log(rows.into_iter(), Some(Duration::from_millis(399))));
    assert_eq!(
        (found.verdict, found.lost, found.allowed_lost, found.lost_window_seconds),
        (IntegrityVerdict::Violated, 1, Some(4), Some(0.4))
    );
    assert_eq!(found.examples[0].key, 35);
}

#[test]
fn without_anything_to_hold_replies_against_nothing_is_proven() {
    let mut case = Case::right();
    case.workload.mix = serde_json::from_value(serde_json::json!([{"http": {"path": "/"}}])).unwrap();
    let found = case.replies();
    assert_eq!((found.verdict, found.rate), (IntegrityVerdict::Inconclusive, None));
    for answer in &mut case.ledger.answers {
        answer.checked = true;
    }
    assert_eq!(case.replies().verdict, IntegrityVerdict::Holds);
}

#[test]
fn what_a_fault_did_is_counted_by_the_times_of_answers() {
    use crate::ledger::Mark;
    let mut case = Case::right().outcome(12, Outcome::Unknown).outcome(13, Outcome::Unknown).outcome(30, Outcome::Unknown);
    assert!(case.log(case.rows()).by_fault.is_empty(), "there was no fault");
    // The first fault is in force from 1.0 s to 1.5 s, the second from 2.5 s to 2.8 s.
    case.ledger.marks = [(1000, 0, false), (1500, 0, true), (2500, 1, false), (2800, 1, true)]
        .map(|(at, fault, healed)| (at, Mark { fault, healed }))
        .to_vec();
    let gone = [3, 11, 13, 26, 39, 30].map(|index| case.id(index));
    let mut rows: Vec<LogRow> = case.rows().into_iter().filter(|row| !gone.contains(&row.id)).collect();
    rows.push(rows.iter().find(|row| row.id == case.id(20)).unwrap().clone());
    let by_fault = case.log(rows).by_fault;
    // 3 and 11 were answered before the first was healed, 26 before the second; 39 after all of them.
    assert_eq!(by_fault.iter().map(|harm| (harm.fault, harm.lost)).collect::<Vec<_>>(), [(0, 2), (1, 1)]);
    let unknown: Vec<_> = by_fault.iter().map(|harm| (harm.unknown_stored, harm.unknown_absent, harm.duplicated)).collect();
    assert_eq!(unknown, [(1, 1, 1), (0, 1, 0)]);
}

#[test]
fn a_wrong_row_is_not_right_and_a_right_one_is_not_blamed_for_a_wrong_reply() {
    let case = Case::right();
    let mut rows = case.rows();
    rows[5].user = Some("bob".into());
    assert_eq!(case.log(rows).sources[0].right, COUNT - 1);
    let mut case = Case::right();
    case.ledger.answers[4].usage = Some((1, 5));
    assert_eq!(case.log(case.rows()).verdict, IntegrityVerdict::Holds);
}

#[test]
fn what_a_closed_ledger_has_no_answer_of_was_never_sent() {
    let mut case = Case::right();
    case.ledger.answers.remove(9);
    let found = case.judge(|requests| requests.upstream((0..COUNT).map(|index| case.id(index))));
    assert_eq!(only(&found), ("phantom".into(), None, 9, "upstream".into()));
}

#[test]
fn a_ledger_that_claims_no_end_of_requests_and_faults_is_judged_by_what_it_has() {
    let mut case = Case::right();
    case.ledger.end = u64::MAX;
    case.ledger.closed = false;
    case.ledger.marks = vec![(10, crate::ledger::Mark { fault: u32::MAX, healed: false })];
    let far = case.id(1 << 40);
    let ids = |more: Vec<String>| (0..COUNT).map(|index| case.id(index)).chain(more).collect::<Vec<_>>();
    let found = case.judge(|requests| requests.upstream(ids(vec![far.clone()]).into_iter()));
    assert_eq!((found.verdict, found.must_be_there, found.sources[0].right), (IntegrityVerdict::Holds, COUNT, COUNT));
    assert_eq!(found.by_fault.iter().map(|harm| harm.fault).collect::<Vec<_>>(), [u32::MAX]);
    // What was never answered may have come once, not twice.
    let found = case.judge(|requests| requests.upstream(ids(vec![far.clone(), far.clone()]).into_iter()));
    assert_eq!(only(&found), ("duplicated".into(), None, 1 << 40, "upstream".into()));
    let row = LogRow { id: far.clone(), ..LogRow::default() };
    let found = case.log(case.rows().into_iter().chain([row.clone(), row]).collect());
    assert_eq!((only(&found), found.surplus_copies), (("duplicated".into(), None, 1 << 40, "log".into()), 1));
}

#[test]
fn examples_are_bounded_by_class_and_counts_are_not() {
    let mut rows = Case::right().rows();
    rows.truncate(10);
    rows[0].user = Some("bob".into());
    let found = Case::right().log(rows);
    assert_eq!((found.lost, found.corrupted, found.examples.len()), (30, 1, EXAMPLES + 1));
    assert_eq!(found.reason.as_deref(), Some("30 lost, 1 corrupted"));
}
