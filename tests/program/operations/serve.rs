//! `batchsql serve`: what it shows, what it takes and from whom.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::symlink;
use std::process::{Command, Stdio};

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use super::parts::{self, request, serve};
use crate::history;
use crate::place::{Place, until};

const TOKEN: &str = "a-token-of-serve-1234";

fn scenario() -> Value {
    json!({"name": "served <b>", "target": {"sqlite": {}}, "workload": {"batch_insert": {"rows": 500}}, "load": {"executor": "shared-iterations"}})
}

fn webhook(name: &str) -> String {
    let alert = json!({"status": "firing", "labels": {"alertname": name}, "annotations": {}, "startsAt": "2026-01-01T00:00:00Z",
        "endsAt": "0001-01-01T00:00:00Z", "generatorURL": "http://p/graph", "fingerprint": "f"});
    json!({"version": "4", "groupKey": "g", "status": "firing", "receiver": "serve", "alerts": [alert]}).to_string()
}

fn bearer(token: &str) -> String {
    format!("Authorization: Bearer {token}")
}

#[test]
fn runs_are_shown_and_nothing_else_of_their_folders() {
    let place = Place::new();
    let id = place.run(&scenario(), &[]).json(0)["run_id"].as_str().unwrap().to_owned();
    fs::create_dir_all(place.path("reports/damaged")).unwrap();
    place.write("reports/damaged/report.json", "{\"schema_version\": 1");
    place.write("secret.json", "{}");
    fs::remove_file(place.path(&format!("reports/{id}/report.html"))).unwrap();
    symlink(place.path("secret.json"), place.path(&format!("reports/{id}/report.html"))).unwrap();
    let (running, address) = serve(&place, &[], None);
    let get = |path: &str| request(address, "GET", path, &[], "");
    let health = get("/health").json();
    assert_eq!((&health["status"], &health["runs"], &health["skipped"]), (&json!("ok"), &json!(1), &json!(1)), "{health}");
    let list = get("/api/runs").json();
    let run = &list["runs"][0];
    assert_eq!((&run["id"], &run["verdict"], &run["integrity"]), (&json!(id), &json!("pass"), &json!("holds")));
    assert_eq!(run["files"], json!(["report.json", "report.md", "junit.xml", "timeline.csv"]), "a link is none of its files");
    assert!(run["rows_per_second"].as_f64().unwrap() > 0.0, "{run}");
    let written = fs::read_to_string(place.path(&format!("reports/{id}/report.json"))).unwrap();
    assert_eq!(get(&format!("/api/runs/{id}")).body, written);
    let junit = get(&format!("/api/runs/{id}/junit.xml"));
    assert!(junit.status == 200 && junit.head.contains("application/xml") && junit.head.contains("nosniff"), "{junit:?}");
    for path in [
        format!("/api/runs/{id}/report.html"),
        format!("/api/runs/{id}/ledger"),
        format!("/api/runs/{id}/..%2F{id}%2Freport.json"),
        "/api/runs/..%2F..%2Fetc/report.json".to_owned(),
        "/api/runs/%2e%2e/secret.json".to_owned(),
        "/api/runs/damaged".to_owned(),
        "/api/runs/none".to_owned(),
    ] {
        let answer = get(&path);
        // A damaged report may be looked at; it is a report all the same.
        assert!(answer.status == 404 || path.ends_with("damaged"), "{path}: {answer:?}");
    }
    for limit in ["0", "-1", "1001", "x", ""] {
        assert_eq!(get(&format!("/api/runs?limit={limit}")).status, 400, "{limit}");
    }
    let page = get("/");
    assert!(page.body.contains(&id) && page.body.contains("served &lt;b&gt;") && !page.body.contains("<b>"), "{}", page.body);
    assert!(page.head.contains("content-security-policy: default-src 'none'"), "{}", page.head);
    running.signal(Signal::SIGTERM);
    let ended = running.end();
    assert_eq!((ended.code(), ended.stderr.contains("stopped")), (Some(0), true), "{}", ended.stderr);
}

#[test]
fn the_last_run_of_a_scenario_is_a_metric_that_promtool_takes() {
    let place = Place::new();
    place.run(&scenario(), &[]).json(0);
    place.run(&scenario(), &["--no-verify"]).json(3);
    let (_running, address) = serve(&place, &[], None);
    let text = request(address, "GET", "/metrics", &[], "").body;
    let labels = r#"{database="sqlite",test_name="served <b>"}"#;
    assert!(text.contains(&format!("batchsql_last_run_verdict{labels} 0\n")), "the last is the one without verification: {text}");
    assert!(!text.contains("batchsql_last_run_integrity_rate{") && !text.contains("operations_per_second{"), "{text}");
    let Ok(mut promtool) = Command::new("promtool").args(["check", "metrics"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn() else {
        println!("left out: promtool is not installed");
        return;
    };
    promtool.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let output = promtool.wait_with_output().unwrap();
    assert!(output.status.success() && output.stdout.is_empty(), "{output:?}");
}

#[test]
fn changes_need_the_token_and_are_written_down_without_it() {
    let place = Place::new();
    let (running, address) = serve(&place, &[], Some(TOKEN));
    let post = |headers: &[&str], body: &str| request(address, "POST", "/api/alerts", headers, body);
    let right = bearer(TOKEN);
    for headers in [vec![], vec!["Authorization: Basic YTpi".to_owned()], vec![bearer("another")], vec![bearer("")]] {
        let headers: Vec<&str> = headers.iter().map(String::as_str).collect();
        let answer = post(&headers, &webhook("Refused"));
        assert_eq!((answer.status, answer.head.contains("www-authenticate: bearer")), (401, true), "{answer:?}");
    }
    for name in ["First", "Second"] {
        assert_eq!(post(&[&right], &webhook(name)).json(), json!({"stored": 1}));
    }
    assert_eq!(post(&[&right], &webhook("Old").replace("\"4\"", "\"3\"")).status, 400);
    assert_eq!(post(&[&right], "{").status, 400);
    assert_eq!(post(&[&right], &" ".repeat((1 << 20) + 1)).status, 413);
    let recent = request(address, "GET", "/api/alerts/recent?limit=5", &[], "").json();
    let names: Vec<_> = recent["alerts"].as_array().unwrap().iter().map(|alert| alert["labels"]["alertname"].as_str().unwrap()).collect();
    assert_eq!(names, ["Second", "First"]);
    drop(running);
    let audit = fs::read_to_string(place.path("reports/audit.jsonl")).unwrap();
    let lines: Vec<Value> = audit.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let statuses: Vec<_> = lines.iter().map(|line| line["status"].as_u64().unwrap()).collect();
    assert_eq!(statuses, [401, 401, 401, 401, 200, 200, 400, 400, 413]);
    assert!(lines.iter().all(|line| line["address"] == "127.0.0.1" && line["path"] == "/api/alerts"), "{audit}");
    assert!(!place.everything_written().contains(TOKEN));
}

#[test]
fn without_a_token_nothing_can_be_changed_and_the_mend_is_said() {
    let place = Place::new();
    let (running, address) = serve(&place, &[], None);
    assert!(running.said().contains("no token is configured"), "{}", running.said());
    let answer = request(address, "POST", "/api/alerts", &[&bearer("any")], &webhook("A"));
    assert!(answer.status == 403 && answer.body.contains("--token-file") && answer.body.contains("BATCHSQL_SERVE_TOKEN"), "{answer:?}");
    assert_eq!(request(address, "DELETE", "/api/runs/x", &[], "").status, 403, "whatever it is");
    place.write("token", "two words\n");
    place.batchsql(&["serve", "--token-file", "token"]).refused(&["--token-file token", "one word"]);
    place.batchsql(&["serve", "--token-file", "none"]).refused(&["--token-file none", "cannot be read"]);
}

#[test]
fn an_address_that_asks_too_often_is_told_when_to_come_again() {
    let place = Place::new();
    place.write("token", &format!("{TOKEN}\n"));
    let (_running, address) = serve(&place, &["--token-file", "token"], Some("not this one"));
    let statuses: Vec<_> = (0..102).map(|n| request(address, "POST", "/api/alerts", &[&bearer(TOKEN)], &webhook(&n.to_string()))).collect();
    assert_eq!(statuses.iter().position(|answer| answer.status != 200), Some(100));
    let refused = &statuses[101];
    let wait = refused.head.split("retry-after: ").nth(1).unwrap().split("\r\n").next().unwrap().parse::<u64>().unwrap();
    assert!(refused.status == 429 && (1..=60).contains(&wait), "{refused:?}");
    assert_eq!(request(address, "GET", "/health", &[], "").status, 200, "reading goes on");
    let audit = fs::read_to_string(place.path("reports/audit.jsonl")).unwrap();
    assert_eq!((audit.lines().count(), audit.matches("too many").count()), (101, 1), "one line each time the limit is reached");
}

#[test]
fn a_run_becomes_a_baseline_with_the_token_only_and_deviations_are_shown() {
    let place = Place::new();
    let ids: Vec<String> = (0..2).map(|_| place.run(&scenario(), &[]).json(0)["run_id"].as_str().unwrap().to_owned()).collect();
    let (running, address) = serve(&place, &[], Some(TOKEN));
    let report = || request(address, "GET", "/api/baselines/report", &[], "").json();
    let right = bearer(TOKEN);
    let post = |headers: &[&str], body: &Value| request(address, "POST", "/api/baselines/update", headers, &body.to_string());
    let update = json!({"name": "served", "run_id": ids[0]});
    assert_eq!((report(), post(&[], &update).status), (json!({"baselines": []}), 401));
    let kept = post(&[&right], &update);
    assert_eq!(kept.json(), json!({"name": "served", "run_id": ids[0], "file": "baselines/served.json"}));
    assert!(place.path("reports/baselines/served.json").is_file());
    let wrong = [
        (json!({"name": "../served", "run_id": ids[0]}), 400),
        (json!({"name": "served", "run_id": "../served"}), 404),
        (json!({"name": "served", "run_id": "none"}), 404),
        (json!({"name": "served"}), 400),
        (json!({"name": "served", "run_id": ids[0], "more": 1}), 400),
    ];
    for (body, status) in &wrong {
        assert_eq!(post(&[&right], body).status, *status, "{body}");
    }
    let found = report()["baselines"][0].clone();
    assert_eq!((&found["name"], &found["baseline_run_id"], &found["run_id"]), (&json!("served"), &json!(ids[0]), &json!(ids[1])));
    let rate = found["deviations"].as_array().unwrap().iter().find(|one| one["figure"] == "rows_per_second").unwrap();
    let [before, after, percent] = ["baseline", "current", "deviation_percent"].map(|key| rate[key].as_f64().unwrap());
    assert!(((after / before - 1.0) * 100.0 - percent).abs() < 1e-6, "{rate}");
    drop(running);
    let audit = fs::read_to_string(place.path("reports/audit.jsonl")).unwrap();
    let lines: Vec<Value> = audit.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let statuses: Vec<_> = lines.iter().map(|line| line["status"].as_u64().unwrap()).collect();
    assert_eq!(statuses, [401, 200, 400, 404, 404, 400, 400]);
    assert!(lines.iter().all(|line| line["path"] == "/api/baselines/update") && !audit.contains(TOKEN), "{audit}");
    let (_running, address) = serve(&place, &[], None);
    assert_eq!(request(address, "POST", "/api/baselines/update", &[&right], &update.to_string()).status, 403);
    let many = (0..101).map(|_| request(address, "POST", "/api/baselines/update", &[], "").status).collect::<Vec<_>>();
    assert_eq!((many[98], many[100]), (403, 429));
}

#[test]
fn recent_anomalies_have_scores() {
    let place = Place::new();
    let report = place.run(&history::scenario(), &[]).json(0);
    fs::remove_dir_all(place.path("reports")).unwrap();
    for number in 0..12 {
        history::plant(&place, &report, number, 10.0 * history::noise(number), "a");
    }
    let (_running, address) = serve(&place, &[], None);
    let recent = |query: &str| request(address, "GET", &format!("/api/anomalies/recent{query}"), &[], "");
    let quiet = recent("").json();
    assert_eq!((&quiet["anomalies"], &quiet["runs"]), (&json!([]), &json!(12)));
    let odd = history::plant(&place, &report, 12, 30.0, "a");
    let found = recent("?limit=5").json();
    let [anomaly] = &found["anomalies"].as_array().unwrap()[..] else { panic!("{found}") };
    let score = anomaly["score"].as_f64().unwrap();
    assert!(anomaly["run_id"] == json!(odd) && score > 0.8 && score <= 1.0 && anomaly["scenario"] == "kept", "{anomaly}");
    assert_eq!(recent("?limit=0").status, 400);
    place.write("reports/history.db", "no database, but long enough to be looked at as one, or so it seems to be");
    let damaged = recent("").json();
    assert_eq!(damaged["anomalies"].as_array().unwrap().len(), 1);
    assert!(damaged["notes"].to_string().contains("is damaged"), "{}", damaged["notes"]);
}

#[test]
fn a_real_alertmanager_delivers_its_alerts() {
    let place = Place::new();
    let (_running, address) = serve(&place, &[], Some(TOKEN));
    let config = format!(
        "route: {{receiver: serve, group_wait: 0s, group_interval: 1s}}\nreceivers:\n- name: serve\n  webhook_configs:\n  \
         - url: http://{address}/api/alerts\n    http_config: {{authorization: {{credentials: {TOKEN}}}}}\n"
    );
    let config = place.write("alertmanager.yml", &config);
    let Some(alertmanager) = parts::alertmanager(&place, &config) else { return };
    let alert = json!([{"labels": {"alertname": "Planted", "severity": "critical"}, "annotations": {"action": "look"}}]).to_string();
    let sent = request(alertmanager.address, "POST", "/api/v2/alerts", &["Content-Type: application/json"], &alert);
    assert_eq!(sent.status, 200, "{sent:?}");
    let got = until("the alert", || {
        let recent = request(address, "GET", "/api/alerts/recent", &[], "").json();
        recent["alerts"].as_array().unwrap().first().cloned()
    });
    assert_eq!((&got["status"], &got["labels"]["alertname"], &got["receiver"]), (&json!("firing"), &json!("Planted"), &json!("serve")));
    assert_eq!(got["annotations"]["action"], "look");
}
