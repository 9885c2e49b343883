//! Faults between the load and an HTTP service: requests cut at each place, streams cut in the middle, and what a log lost by it.

use serde_json::{Value, json};

use super::{ended, harm, number, outcomes};
use crate::place::Place;

/// 80 requests in 1.6 s to a gateway of our own, and `fault` in force from 0.1 s on.
fn scenario(mix: Value, mut fault: Value) -> Value {
    fault["at"] = json!("100ms");
    if fault["for"].is_null() {
        fault["for"] = json!("1300ms");
    }
    json!({
        "name": "network_requests",
        "target": {"http": {"start": {
            "upstream": {"latency": {"median": "10ms"}},
            "gateway": {"access_log": false, "log": {"batch": {"size": 10, "flush_interval": "100ms"}}},
        }}},
        "workload": {"proxy_request": {"requests": 80, "replies": "mock", "users": [{"name": "ann"}], "mix": [mix]}},
        "load": {"executor": "constant-arrival-rate", "rate": 50, "duration": "1600ms", "lag_limit": "60s"},
        "reconcile": {"wait": "20s"},
        "faults": [fault],
        "gates": ["error_rate <= 100%", "offered_rate > 0"],
    })
}

fn chat() -> Value {
    json!({"chat": {"max_tokens": 8}})
}

#[test]
fn requests_that_are_cut_before_their_end_do_not_reach_the_log() {
    for when in ["before_request", "within_request"] {
        let fault = json!({"kind": "cut", "when": when, "most": 3});
        let (report, fault) = ended(&Place::new(), &scenario(chat(), fault), 0, &[]);
        let [acknowledged, rejected, unknown] = outcomes(&report);
        assert_eq!(number(&fault["struck"]), 3, "{when}");
        // What was cut before it began, on a connection that was idle, may be sent again.
        assert_eq!((acknowledged + unknown, rejected), (80, 0), "{when}: {}", report["errors"]);
        let [lost, stored, absent, duplicated] = harm(&fault);
        assert_eq!((lost, stored + absent, duplicated), (0, unknown, 0), "{when}");
        // Of a request that has come in part the gateway may log that it failed.
        assert!(when != "before_request" || stored == 0, "{fault}");
        assert!(unknown <= 3, "{when}: {unknown}");
    }
}

#[test]
fn requests_that_are_cut_behind_their_end_are_unknown() {
    for when in ["after_request", "within_answer"] {
        let fault = json!({"kind": "cut", "when": when, "most": 3});
        let (report, fault) = ended(&Place::new(), &scenario(chat(), fault), 0, &[]);
        assert_eq!((number(&fault["struck"]), outcomes(&report)), (3, [77, 0, 3]), "{when}");
        let [lost, stored, absent, duplicated] = harm(&fault);
        assert_eq!((lost, stored + absent, duplicated), (0, 3, 0), "{when}");
        // An answer that had begun came from a gateway that knows of the request.
        assert!(when != "within_answer" || stored == 3, "{fault}");
    }
}

#[test]
fn a_stream_that_is_cut_in_the_middle_is_unknown_and_never_right() {
    let fault = json!({"kind": "cut", "when": "within_answer", "most": 5});
    let stream = json!({"chat": {"stream": true, "max_tokens": 60}});
    let (report, fault) = ended(&Place::new(), &scenario(stream, fault), 0, &[]);
    assert_eq!((number(&fault["struck"]), outcomes(&report)), (5, [75, 0, 5]));
    assert_eq!(report["integrity"]["sources"][0], json!({"name": "replies", "must_be_there": 75, "right": 75}));
}

#[test]
fn a_reset_and_latency_are_felt_by_requests_too() {
    let fault = json!({"kind": "latency", "latency": "100ms", "for": "1500ms"});
    let (report, _) = ended(&Place::new(), &scenario(chat(), fault), 0, &[]);
    let service = &report["latency"]["service"];
    assert!(service["p75_ms"].as_f64().unwrap() >= 200.0, "{service}");
    assert_eq!(outcomes(&report), [80, 0, 0]);
    let (report, fault) = ended(&Place::new(), &scenario(chat(), json!({"kind": "reset"})), 0, &[]);
    let [acknowledged, rejected, unknown] = outcomes(&report);
    assert_eq!(acknowledged + rejected + unknown, 80);
    assert!(acknowledged >= 10 && rejected + unknown >= 10 && number(&fault["struck"]) >= 10, "{fault} {:?}", outcomes(&report));
}

#[test]
fn http2_is_bytes_to_the_proxy_and_that_is_said() {
    let mut refused = scenario(chat(), json!({"kind": "cut", "when": "after_request"}));
    refused["target"]["http"]["version"] = json!("http2");
    Place::new().run(&refused, &[]).refused(&["faults.0", "HTTP/2", "within_answer"]);
    let mut within = scenario(chat(), json!({"kind": "cut", "when": "within_answer", "most": 2}));
    within["target"]["http"]["version"] = json!("http2");
    let (report, fault) = ended(&Place::new(), &within, 0, &[]);
    assert_eq!(number(&fault["struck"]), 2);
    assert!(outcomes(&report)[0] >= 40, "{:?}", outcomes(&report));
}
