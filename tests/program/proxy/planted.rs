//! Faults of a gateway, each planted into a run of its own and told exactly: class, sub-kind, keys, column and count.

use std::time::Duration;

use serde_json::{Value, json};

use super::double::{Double, Fault, NEVER_SENT};
use crate::place::{Place, assert_anomalies};

/// Enough that the faults lie amid what is right.
const REQUESTS: u64 = 400;

/// One anomaly: class, sub-kind, key, column.
type Told = (&'static str, Option<&'static str>, i64, &'static str);

/// Asserts that these anomalies were found and no others, in the report's order.
fn assert_told(integrity: &Value, told: &[Told]) {
    let examples = integrity["examples"].as_array().unwrap();
    let found: Vec<_> = examples
        .iter()
        .map(|e| (e["class"].as_str().unwrap(), e["sub_kind"].as_str(), e["key"].as_i64().unwrap(), e["column"].as_str().unwrap()))
        .collect();
    assert_eq!(found, told, "{integrity:#}");
    let count = |class: &str| told.iter().filter(|anomaly| anomaly.0 == class).count() as u64;
    let counts: Vec<(&str, u64)> = ["lost", "duplicated", "corrupted", "phantom"]
        .map(|class| (class, count(class)))
        .into_iter()
        .filter(|(_, count)| *count > 0)
        .collect();
    assert_anomalies(integrity, &counts);
}

/// Runs chats through a gateway with these faults; the report, and what it told.
fn told(faults: &[(u64, Fault)], stream: bool, told: &[Told]) -> Value {
    let place = Place::new();
    let double = Double::start(&place, faults);
    let report = place.run(&double.scenario(REQUESTS, stream), &[]).json(if told.is_empty() { 0 } else { 4 });
    assert_told(&report["integrity"], told);
    assert_eq!(report["outcomes"]["acknowledged"], REQUESTS);
    assert_eq!(report["throughput"]["valid"], told.is_empty(), "speed is void unless integrity holds");
    report
}

const fn corrupted(sub_kind: &'static str, key: i64, column: &'static str) -> Told {
    ("corrupted", Some(sub_kind), key, column)
}

#[test]
fn a_gateway_that_does_nothing_wrong_passes() {
    for stream in [false, true] {
        let report = told(&[], stream, &[]);
        assert_eq!((&report["verdict"], &report["integrity"]["rate"]), (&json!("pass"), &json!(1.0)));
        assert_eq!(report["integrity"]["checked"], 3 * REQUESTS, "replies, upstream and log");
        assert_eq!(report["integrity"]["method"], "replies, upstream records, log rows");
    }
}

#[test]
fn two_replies_that_were_swapped_are_told_on_both() {
    for stream in [false, true] {
        let swapped = [corrupted("crosstalk", 200, "reply.content"), corrupted("crosstalk", 201, "reply.content")];
        told(&[(200, Fault::Swap), (201, Fault::Swap)], stream, &swapped);
    }
}

#[test]
fn what_is_wrong_with_the_events_of_a_stream_is_told() {
    // The role, eight tokens, the end, the usage, [DONE].
    for (fault, anomaly) in [
        (Fault::Drop(-1), corrupted("truncated", 7, "reply.end")),
        (Fault::Drop(9), corrupted("truncated", 7, "reply.end")),
        (Fault::Drop(8), corrupted("truncated", 7, "reply.content")),
        (Fault::End(5), corrupted("truncated", 7, "reply.content")),
        (Fault::Drop(4), corrupted("gap", 7, "reply.content")),
        (Fault::Repeat(4), corrupted("repeated", 7, "reply.content")),
        (Fault::Exchange(4), corrupted("reordered", 7, "reply.content")),
    ] {
        told(&[(7, fault)], true, &[anomaly]);
    }
}

#[test]
fn replies_that_were_altered_shortened_or_invented_are_told() {
    for stream in [false, true] {
        told(&[(7, Fault::Alter(" 3-", " 3+"))], stream, &[corrupted("altered", 7, "reply.content")]);
        told(&[(7, Fault::Alter("\"completion_tokens\":8", "\"completion_tokens\":9"))], stream, &[corrupted("altered", 7, "reply.usage")]);
        told(&[(7, Fault::Short)], stream, &[corrupted("truncated", 7, "reply.content")]);
        told(&[(7, Fault::Invented)], stream, &[("phantom", None, 7, "reply.content")]);
    }
}

#[test]
fn a_connection_that_was_cut_is_no_reply_and_no_anomaly() {
    for stream in [false, true] {
        let place = Place::new();
        let double = Double::start(&place, &[(7, Fault::Cut(4)), (11, Fault::Cut(4))]);
        let report = place.run(&double.scenario(REQUESTS, stream), &[]).json(1);
        assert_told(&report["integrity"], &[]);
        let outcomes =
            json!({"offered": REQUESTS, "attempted": REQUESTS, "acknowledged": REQUESTS - 2, "rejected": 0, "unknown": 2, "dropped": 0});
        assert_eq!((&report["outcomes"], &report["errors"]), (&outcomes, &json!({"final:connection": 2})));
    }
}

#[test]
fn what_the_upstream_saw_tells_of_retries_and_caches() {
    for stream in [false, true] {
        told(
            &[(7, Fault::Retry), (300, Fault::Retry)],
            stream,
            &[("duplicated", None, 7, "upstream"), ("duplicated", None, 300, "upstream")],
        );
        told(&[(7, Fault::Cached)], stream, &[("lost", None, 7, "upstream")]);
        told(&[(7, Fault::AskUnsent)], stream, &[("phantom", None, NEVER_SENT, "upstream")]);
    }
}

#[test]
fn each_wrong_log_row_is_told() {
    told(&[(7, Fault::LogTwice)], false, &[("duplicated", None, 7, "log")]);
    told(&[(7, Fault::LogUnsent)], false, &[("phantom", None, NEVER_SENT, "log")]);
    for (column, wrong, name) in [
        ("who", Some("zoe"), "log.user"),
        ("who", None, "log.user"),
        ("model", Some("medium"), "log.model"),
        ("pt", Some("0"), "log.prompt_tokens"),
        ("ct", Some("9"), "log.completion_tokens"),
        ("ct", None, "log.completion_tokens"),
        ("st", Some("500"), "log.status"),
    ] {
        told(&[(7, Fault::LogWrong(column, wrong))], false, &[corrupted("other", 7, name)]);
    }
}

#[test]
fn rows_missing_of_one_request_in_a_thousand_are_named_and_found_again_by_verify() {
    let place = Place::new();
    let double = Double::start_with(&place, Box::new(|index| (index % 1000 == 617).then_some(Fault::LogNothing)));
    let report = place.run(&double.scenario(3000, false), &[]).json(4);
    let missing = [617, 1617, 2617].map(|key| ("lost", None, key, "log"));
    assert_told(&report["integrity"], &missing);
    assert_eq!(report["integrity"]["sources"][2], json!({"name": "log rows", "must_be_there": 3000, "right": 2997}));
    assert_eq!(report["reasons"], json!(["integrity holds: 3 lost"]));
    assert_told(&place.verify(&place.run_folders()[0], &[]).json(4), &missing);
}

#[test]
fn a_log_that_comes_late_is_waited_for_and_its_lag_told() {
    let place = Place::new();
    let double = Double::start_with(&place, Box::new(|_| Some(Fault::LogLate(Duration::from_millis(1200)))));
    let mut scenario = double.scenario(REQUESTS, true);
    scenario["reconcile"]["wait"] = json!("30s");
    let report = place.run(&scenario, &[]).json(0);
    assert_told(&report["integrity"], &[]);
    let lag = report["integrity"]["log_lag_seconds"].as_f64().unwrap();
    assert!((1.0..10.0).contains(&lag), "{lag}");
}

#[test]
fn rows_that_came_twice_do_not_stand_for_those_that_come_late() {
    let late = Fault::LogLate(Duration::from_millis(500));
    let faults = [(0, Fault::LogTwice), (1, Fault::LogTwice), (398, late), (399, late)];
    told(&faults, false, &[("duplicated", None, 0, "log"), ("duplicated", None, 1, "log")]);
}

#[test]
fn many_faults_in_one_run_are_each_told() {
    let faults = [
        (3, Fault::LogTwice),
        (5, Fault::LogNothing),
        (8, Fault::Drop(4)),
        (13, Fault::Retry),
        (21, Fault::Cached),
        (34, Fault::LogWrong("model", Some("medium"))),
        (55, Fault::Swap),
        (56, Fault::Swap),
        (89, Fault::LogUnsent),
        (144, Fault::Invented),
    ];
    let anomalies = [
        corrupted("gap", 8, "reply.content"),
        corrupted("other", 34, "log.model"),
        corrupted("crosstalk", 55, "reply.content"),
        corrupted("crosstalk", 56, "reply.content"),
        ("duplicated", None, 3, "log"),
        ("duplicated", None, 13, "upstream"),
        ("lost", None, 5, "log"),
        ("lost", None, 21, "upstream"),
        ("phantom", None, 144, "reply.content"),
        ("phantom", None, NEVER_SENT, "log"),
    ];
    told(&faults, true, &anomalies);
}
