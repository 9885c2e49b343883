//! Checks on replies: what misses one is rejected, counted as `check`, shown with an example, and may well stand in the log.

use serde_json::{Value, json};

use super::server::{Server, ok};
use super::{assert_outcomes, requests};
use crate::place::{Place, assert_anomalies};

const REQUESTS: u64 = 40;

fn checked(url: &str, checks: &Value) -> Value {
    requests(url, REQUESTS, &json!([{"http": {"path": "/items/{{index}}"}, "checks": checks}]))
}

async fn server() -> Server {
    let body = r#"{"kind": "item", "tags": ["a", "b"], "price": 12.5, "next": null}"#;
    Server::answering(ok("x-source: shelf\r\ncontent-type: application/json\r\n", body)).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_reply_that_meets_every_check_is_acknowledged_and_held_against_it() {
    let server = server().await;
    let checks = json!({
        "status": [200, 203],
        "headers": {"X-Source": "shelf", "content-type": ""},
        "json": {"/kind": "item", "/tags/1": "b", "/price": 12.5, "/next": null},
        "body_contains": "\"price\"",
        "body": r#"{"kind": "item", "tags": ["a", "b"], "price": 12.5, "next": null}"#,
    });
    let report = Place::new().run(&checked(&server.url, &checks), &[]).json(0);
    assert_outcomes(&report, [REQUESTS, 0, 0]);
    assert_eq!((&report["integrity"]["verdict"], &report["integrity"]["checked"]), (&json!("holds"), &json!(REQUESTS)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_reply_that_misses_a_check_is_rejected_and_shown() {
    let server = server().await;
    for (checks, example) in [
        (json!({"status": [201]}), "status 200, asked for [201]: {\"kind\": \"item\""),
        (json!({"headers": {"x-source": "attic"}}), "header x-source is \"shelf\", asked for \"attic\""),
        (json!({"headers": {"x-nowhere": ""}}), "header x-nowhere is missing"),
        (json!({"json": {"/tags/0": "b"}}), "/tags/0 of the body is \"a\", asked for \"b\""),
        (json!({"json": {"/tags/7": "b"}}), "/tags/7 of the body is missing, asked for \"b\""),
        (json!({"body_contains": "nothing of it"}), "the body does not contain \"nothing of it\""),
        (json!({"body": "{}"}), "the body is \"{\\\"kind\\\": \\\"item\\\""),
    ] {
        let report = Place::new().run(&checked(&server.url, &checks), &[]).json(1);
        assert_outcomes(&report, [0, REQUESTS, 0]);
        assert_eq!(report["errors"], json!({"final:check": REQUESTS}));
        let told = report["error_examples"]["check"].as_str().unwrap();
        assert!(told.starts_with(example), "{told}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn an_error_status_is_no_missed_check_unless_it_was_asked_for() {
    let server = Server::answering("HTTP/1.1 503 Service Unavailable\r\ncontent-length: 4\r\n\r\nbusy").await;
    let report = Place::new().run(&checked(&server.url, &json!({})), &[]).json(1);
    assert_outcomes(&report, [0, REQUESTS, 0]);
    assert_eq!(report["errors"], json!({"final:status": REQUESTS}));
    assert_eq!(report["error_examples"]["status"], "status 503, asked for 200 to 299: busy");
    let report = Place::new().run(&checked(&server.url, &json!({"status": [503]})), &[]).json(0);
    assert_outcomes(&report, [REQUESTS, 0, 0]);
}

#[test]
fn a_template_is_filled_for_each_request_and_streams_are_checked_by_their_content() {
    let scenario = |contains: &str| {
        let chat = |stream: bool| json!({"chat": {"stream": stream, "max_tokens": 8}, "checks": {"body_contains": contains}});
        let mut scenario = requests("", REQUESTS, &json!([chat(false), chat(true)]));
        scenario["target"]["http"] = json!({"start": {"upstream": {}}});
        scenario["workload"]["proxy_request"]["replies"] = json!("mock");
        scenario
    };
    assert_outcomes(&Place::new().run(&scenario("{{id}} 1-"), &[]).json(0), [REQUESTS, 0, 0]);
    assert_outcomes(&Place::new().run(&scenario("{{index}} of {{user}}"), &[]).json(1), [0, REQUESTS, 0]);
}

#[test]
fn log_rows_of_requests_that_missed_a_check_are_legal() {
    let mut scenario = requests(
        "",
        200,
        &json!([
            {"name": "right", "chat": {"max_tokens": 8}},
            {"name": "missed", "chat": {"max_tokens": 8}, "checks": {"headers": {"x-nowhere": ""}}},
        ]),
    );
    scenario["target"]["http"] = json!({"start": {"upstream": {}, "gateway": {"access_log": false}}});
    scenario["workload"]["proxy_request"]["replies"] = json!("mock");
    scenario["reconcile"] = json!({});
    scenario["gates"] = json!(["error_rate < 90%"]);
    let place = Place::new();
    let report = place.run(&scenario, &[]).json(0);
    let missed = report["outcomes"]["rejected"].as_u64().unwrap();
    assert_outcomes(&report, [200 - missed, missed, 0]);
    assert!((50..150).contains(&missed), "half of them, drawn: {missed}");
    assert_anomalies(&report["integrity"], &[]);
    let rows = rusqlite::Connection::open(place.run_folders()[0].join("gateway.db")).unwrap();
    let logged: i64 = rows.query_row("SELECT count(*) FROM request_logs", [], |row| row.get(0)).unwrap();
    assert_eq!(logged, 200, "the gateway logged them all");
    assert_eq!(report["integrity"]["sources"][2], json!({"name": "log rows", "must_be_there": 200 - missed, "right": 200 - missed}));
}
