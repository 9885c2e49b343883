//! API keys arrive where they must and are in nothing that the program writes.

use serde_json::{Value, json};

use super::{assert_outcomes, requests};
use crate::place::{Place, get, meet, rendezvous};

/// Chats through the reference gateway, which knows two users: the key of one stands in the file, the other's in the environment.
fn scenario() -> Value {
    let users = json!([{"name": "ann", "key": "canary-in-the-file"}, {"name": "bob", "key": "${CANARY_KEY}"}]);
    let mut scenario = requests(
        "",
        100,
        &json!([
            {"chat": {"max_tokens": 8, "headers": {"x-copy": "{{key}}", "x-api-key": "canary-in-a-header"}}},
            {"chat": {"max_tokens": 8}, "checks": {"body_contains": "{{key}}"}},
        ]),
    );
    scenario["workload"]["proxy_request"]["users"] = users.clone();
    scenario["workload"]["proxy_request"]["replies"] = json!("mock");
    scenario["target"]["http"] = json!({"start": {"upstream": {}, "gateway": {
        "access_log": false,
        "users": users,
        "channels": [{"name": "up", "url": "http://127.0.0.1:9", "api_key": "canary-of-a-channel"}],
    }}});
    scenario["reconcile"] = json!({});
    scenario
}

#[test]
fn api_keys_are_in_no_file_no_output_and_no_metric() {
    let place = Place::new();
    let mut scenario = scenario();
    // Without channels of its own the gateway leads to the upstream.
    scenario["target"]["http"]["start"]["gateway"]["channels"] = json!([]);
    let file = place.write("keys.yaml", &scenario.to_string());
    let hook = rendezvous(&place);
    let mut command =
        place.command(&["run", "--json", "--report-dir", "reports", "--metrics-listen", "127.0.0.1:0", "--before-verify", &hook, &file]);
    command.args(["--set", "workload.proxy_request.users.0.key=canary-in-an-override"]);
    command.args(["--set", "target.http.start.gateway.users.0.key=canary-in-an-override"]);
    command.env("CANARY_KEY", "canary-of-the-environment");
    let mut running = place.spawn(command);
    let address = running.metrics_address();
    meet(&place, &mut running);
    let metrics = get(address, "/metrics");
    place.write("go", "");
    let ended = running.end();
    let report = ended.json(1);
    assert_eq!(report["error_examples"]["check"], "the body does not contain \"***\"", "an example is shown, its key is not");
    std::fs::remove_file(file).unwrap();
    assert_eq!(canaries(&(place.everything_written() + &metrics + &ended.stdout + &ended.stderr)), [""; 0]);
    let acknowledged = report["outcomes"]["acknowledged"].as_u64().unwrap();
    assert_outcomes(&report, [acknowledged, 100 - acknowledged, 0]);
    assert!((20..80).contains(&acknowledged), "the keys of both users let them in: {}", report["outcomes"]);
    let again = place.verify(&place.run_folders()[0], &[]).json(0);
    assert_eq!(again["must_be_there"], 3 * acknowledged, "and what was kept is enough to judge again");
}

/// The words of `text` that begin with `canary`.
fn canaries(text: &str) -> Vec<&str> {
    text.match_indices("canary").map(|(at, _)| text[at..].split(|c: char| !c.is_ascii_alphanumeric() && c != '-').next().unwrap()).collect()
}

#[test]
fn keys_are_in_no_refusal_and_no_plan() {
    let place = Place::new();
    let mut scenario = scenario();
    let run = |scenario: &Value, command: &str| {
        let file = place.write("keys.yaml", &scenario.to_string());
        let mut command = place.command(&[command, &file]);
        command.env("CANARY_KEY", "canary-of-the-environment");
        place.spawn(command).end()
    };
    let plan = run(&scenario, "check");
    assert_eq!((plan.code(), canaries(&(plan.stdout + &plan.stderr))), (Some(0), vec![]));
    scenario["workload"]["proxy_request"]["users"][0]["key"] = json!("canary\u{7}bell");
    scenario["target"]["http"]["start"]["gateway"]["users"][1]["key"] = json!("canary-in-the-file");
    let refused = run(&scenario, "run");
    refused.refused(&["users.0.key: is empty or has characters that no header can carry"]);
    assert_eq!(canaries(&refused.stderr), [""; 0], "{}", refused.stderr);
}
