//! Runs of requests that cannot begin: exit 2, one sentence a problem, with its place and the mend, and nothing left behind.

use std::fs;
use std::net::TcpListener;

use serde_json::{Value, json};

use super::requests;
use crate::place::Place;

/// A port on which nobody listens.
fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn left_behind(place: &Place) -> Vec<std::ffi::OsString> {
    fs::read_dir(place.path("reports")).into_iter().flatten().map(|entry| entry.unwrap().file_name()).collect()
}

/// Runs `scenario` and asserts that it was refused with these words.
#[track_caller]
fn refused(scenario: &Value, more: &[&str], words: &[&str]) {
    let place = Place::new();
    let ended = place.run(scenario, more);
    ended.refused(words);
    assert_eq!(ended.stderr.lines().count(), 1, "{}", ended.stderr);
    assert!(left_behind(&place).is_empty(), "{:?}", left_behind(&place));
}

fn get(path: &str) -> Value {
    json!([{"http": {"path": path}, "checks": {"status": [200]}}])
}

#[test]
fn a_service_that_nobody_runs_is_named_with_its_key_and_the_mend() {
    let url = format!("http://127.0.0.1:{}", free_port());
    let words = [url.as_str(), "nothing answers at", "start the service, or correct target.http.url or --target-url"];
    refused(&requests(&url, 10, &get("/")), &[], &words);
    let mut started = requests("", 10, &json!([{"chat": {}}]));
    started["target"]["http"] = json!({"start": {"upstream": {}}});
    refused(&started, &["--target-url", &url], &words);
    started["target"]["http"]["direct_url"] = json!(url);
    refused(&started, &[], &[&url, "nothing answers at", "correct target.http.direct_url"]);
}

#[test]
fn what_is_wrong_in_the_file_is_told_with_its_place() {
    let place = Place::new();
    let file = place.write(
        "wrong.yaml",
        "\
name: wrong
target:
  http:
    url: http://192.0.2.7:8080
    profile: agressive
workload:
  proxy_request:
    requests: 10
    mix:
      - http: {path: '/{{idx}}'}
      - {chat: {}, http: {path: /}}
load:
  executor: shared-iterations
gates:
  - rows_per_second > 5
",
    );
    let ended = place.batchsql(&["run", "--no-metrics", "--report-dir", "reports", &file]);
    let told: Vec<&str> =
        ended.stderr.trim_start_matches("batchsql: ").lines().map(|line| line.strip_prefix(&file).unwrap_or(line)).collect();
    ended.refused(&[]);
    for (line, told) in [
        ":4:10: target.http.url: host `192.0.2.7` is beyond loopback; if it may be put under load, add it to target.allow_hosts or give --allow-host 192.0.2.7",
        ":5:14: target.http.profile: \"agressive\" is none of the choices; did you mean `aggressive`? write one of off, conservative, default, aggressive",
        ":10:22: workload.proxy_request.mix.0.http.path: `{{idx}}` is no placeholder; known: {{id}}, {{index}}, {{user}}, {{key}}, {{model}}, {{channel}}, {{prompt}}",
        ":11:9: workload.proxy_request.mix.1: has 2 of chat, http and websocket; write exactly one",
        ":15:5: gates.0: rows_per_second is of batch inserts; write requests_per_second",
    ]
    .iter()
    .zip(&told)
    {
        assert_eq!(told, line);
    }
    assert_eq!(told.len(), 5, "{told:#?}");
    assert!(left_behind(&place).is_empty());
}

#[test]
fn flags_that_do_not_fit_are_named_with_the_one_that_does() {
    let url = format!("http://127.0.0.1:{}", free_port());
    let chats = requests(&url, 10, &json!([{"chat": {}}]));
    refused(&chats, &["--database-url", "sqlite://x.db"], &["--database-url", "sends requests", "--target-url"]);
    refused(
        &chats,
        &["--target-url", "ftp://127.0.0.1/"],
        &["--target-url", "begins with `ftp:`", "write http://host:port or https://host:port"],
    );
    refused(
        &chats,
        &["--target-url", "http://u:p4ssword@127.0.0.1/"],
        &["--target-url", "carries a login", "workload.proxy_request.users"],
    );
    refused(&chats, &["--target-url", "http://192.0.2.7/"], &["--target-url", "192.0.2.7", "beyond loopback", "--allow-host 192.0.2.7"]);
    refused(
        &chats,
        &["--target-url", "http://192.0.2.7/", "--allow-host", "192.0.2.7"],
        &["--target-url", "without TLS", "https://", "--insecure-tls"],
    );
    let rows = json!({
        "name": "rows", "target": {"sqlite": {}}, "workload": {"batch_insert": {"rows": 10}}, "load": {"executor": "shared-iterations"}
    });
    refused(&rows, &["--target-url", &url], &["--target-url", "this scenario inserts rows; give --database-url"]);
    let mut both = rows.clone();
    both["target"]["http"] = json!({"url": url});
    refused(&both, &[], &["target.http: is for workload.proxy_request; remove it"]);
    let mut none = chats.clone();
    none["target"] = json!({});
    refused(&none, &[], &["target: has no HTTP service; add http: {url: …}"]);
    let mut gateway = requests("", 10, &json!([{"chat": {}}]));
    gateway["target"]["http"] = json!({"start": {"gateway": {}}});
    refused(&gateway, &[], &["target.http.start.gateway.channels: has nobody to lead to"]);
    let mut log = chats;
    log["reconcile"] = json!({});
    refused(&log, &[], &["reconcile.database: is missing; say where the gateway keeps its log"]);
}
