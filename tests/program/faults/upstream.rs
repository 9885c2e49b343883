//! A mock upstream that fails while the load goes on.

use serde_json::{Value, json};

use super::{count, number, only_fault};
use crate::place::{Place, assert_anomalies};

fn scenario(fault: Value) -> Value {
    json!({
        "name": "upstream",
        "target": {"http": {"start": {"upstream": {}}}},
        "workload": {"proxy_request": {"replies": "mock", "mix": [{"name": "chat", "weight": 1, "chat": {"max_tokens": 8}}]}},
        "load": {"executor": "constant-arrival-rate", "rate": 200, "duration": "3s", "lag_limit": "10s"},
        "faults": [fault],
        "gates": ["error_rate < 90%", "integrity.corrupted == 0"],
    })
}

#[test]
fn errors_and_cuts_begin_and_end_with_their_fault() {
    for (kind, share) in [("upstream_errors", 1.0), ("upstream_errors", 0.5), ("upstream_cuts", 1.0)] {
        let place = Place::new();
        let fault = json!({"at": "1s", "for": "1s", "kind": kind, "share": share});
        let report = place.run(&scenario(fault), &[]).json(0);
        assert_anomalies(&report["integrity"], &[]);
        let (fault, struck) = (only_fault(&report), number(&report["faults"][0]["struck"]));
        // 200 requests came in that second, give or take those at its edges.
        assert!((200.0 * share - struck).abs() < 50.0, "{kind}: {fault}");
        assert_eq!(count(&report, "acknowledged") as f64 + struck, 600.0, "{kind}: {} {fault}", report["outcomes"]);
        let failed = if kind == "upstream_errors" { "rejected" } else { "unknown" };
        assert_eq!(count(&report, failed) as f64, struck, "{kind}: {}", report["outcomes"]);
        assert!(number(&fault["recovery_seconds"]) < 1.0, "{fault}");
    }
}

#[test]
fn stalls_hold_answers_back_and_lose_none() {
    let fault = json!({"at": "1s", "for": "500ms", "kind": "upstream_stalls", "pause": "700ms", "share": 0.2});
    let report = Place::new().run(&scenario(fault), &[]).json(0);
    assert_anomalies(&report["integrity"], &[]);
    assert_eq!(count(&report, "acknowledged"), 600, "{}", report["outcomes"]);
    let struck = number(&only_fault(&report)["struck"]);
    assert!((5.0..50.0).contains(&struck), "{}", report["faults"]);
    assert!(number(&report["latency"]["service"]["max_ms"]) >= 700.0, "{}", report["latency"]["service"]);
}

#[test]
fn an_upstream_of_somebody_else_cannot_be_switched() {
    let mut scenario = scenario(json!({"at": "1s", "for": "1s", "kind": "upstream_errors"}));
    scenario["target"]["http"] = json!({"url": "http://127.0.0.1:9"});
    Place::new().run(&scenario, &[]).refused(&[
        "faults.0",
        "upstream_errors takes an upstream that the scenario starts",
        "target.http.start.upstream",
    ]);
}
