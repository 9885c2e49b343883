//! Runs of requests, as their users meet them: the real binary before the mock upstream, before a gateway that does wrong on demand,
//! and before servers that do everything a server must not.

mod checks;
mod crash;
pub(crate) mod double;
mod gateway;
mod hostile;
mod load;
mod planted;
mod reconcile;
mod refused;
mod scenarios;
mod secrets;
#[allow(dead_code, reason = "the tests of the client, whose it is, need more of it")]
#[path = "../../http/server.rs"]
mod server;
mod tls;
mod websocket;

use serde_json::{Value, json};

/// So many requests at full speed, eight at a time, each one of `mix`.
fn requests(url: &str, requests: u64, mix: &Value) -> Value {
    json!({
        "name": "requests",
        "target": {"http": {"url": url}},
        "workload": {"proxy_request": {"requests": requests, "mix": mix}},
        "load": {"executor": "shared-iterations", "vus": 8},
    })
}

/// Asserts the outcomes of all requests: acknowledged, rejected, unknown.
#[track_caller]
fn assert_outcomes(report: &Value, [acknowledged, rejected, unknown]: [u64; 3]) {
    let all = acknowledged + rejected + unknown;
    let expected = json!({
        "offered": all, "attempted": all, "acknowledged": acknowledged, "rejected": rejected, "unknown": unknown, "dropped": 0
    });
    assert_eq!(report["outcomes"], expected, "{} {}", report["errors"], report["error_examples"]);
}
