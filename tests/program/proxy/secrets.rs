//! API keys arrive where they must and are in nothing that the program writes.

use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;

use super::server::{Server, ok, request};
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

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_key_that_the_service_says_back_is_not_kept() {
    let server = Server::start(|_, mut stream| async move {
        loop {
            let asked = request(&mut stream).await;
            let Some(key) = asked.lines().find_map(|line| line.strip_prefix("authorization: Bearer ")) else { return };
            assert!(key.starts_with("canary"), "the key arrives where it must");
            let choice =
                json!({"index": 0, "message": {"role": "assistant", "content": format!("you are {key}")}, "finish_reason": "stop"});
            let _ = stream.write_all(&ok("", json!({"choices": [choice]}).to_string())).await;
        }
    })
    .await;
    let place = Place::new();
    let mut scenario = requests(&server.url, 20, &json!([{"chat": {}}]));
    scenario["workload"]["proxy_request"]["replies"] = json!("mock");
    scenario["workload"]["proxy_request"]["users"] = json!([{"name": "ann", "key": "${CANARY_KEY}"}]);
    let file = place.write("keys.yaml", &scenario.to_string());
    let mut command = place.command(&["run", "--json", "--no-metrics", "--report-dir", "reports", &file]);
    command.env("CANARY_KEY", "canary-of-the-environment");
    let report = place.spawn(command).end().json(4);
    assert_eq!((&report["integrity"]["corrupted"], &report["integrity"]["examples"][0]["found"]), (&json!(20), &json!("you are ***")));
    assert_eq!(canaries(&place.everything_written()), [""; 0]);
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
