//! Who is told: Alertmanager's tiers and inhibitions, and the way of the alert that Grafana evaluates.

use std::fs;

use serde_json::{Value, json};

use crate::{read, root, tool, yaml};

const ALERTMANAGER: &str = "config/alertmanager/alertmanager.yml";

#[test]
fn alertmanager_takes_the_configuration_and_its_examples() {
    let Some(said) = tool("amtool", &["check-config", ALERTMANAGER]) else { return };
    assert!(said.contains("SUCCESS") && said.contains("2 inhibit rules") && said.contains("3 receivers"), "{said}");
    // The examples of mail and Slack, no longer comments.
    let examples = ["smtp_", "email_configs", "slack_configs", "  "];
    let active: Vec<String> = read(ALERTMANAGER)
        .lines()
        .map(|line| match line.split_once("# ") {
            Some((margin, rest))
                if !margin.is_empty() && margin.trim().is_empty() && examples.iter().any(|start| rest.starts_with(start)) =>
            {
                format!("{margin}{rest}")
            }
            _ => line.to_owned(),
        })
        .collect();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("alertmanager.yml");
    fs::write(&file, active.join("\n")).unwrap();
    let active = fs::read_to_string(&file).unwrap();
    assert!(active.contains("\n  smtp_smarthost: ") && active.contains("\n    slack_configs:\n      - api_url_file: "), "{active}");
    assert!(tool("amtool", &["check-config", file.to_str().unwrap()]).unwrap().contains("SUCCESS"));
}

#[test]
fn each_alert_goes_to_its_tier() {
    for (labels, receiver) in [
        (&["alertname=BatchSQLLowDataIntegrity", "severity=critical", "service=batchsql"][..], "critical"),
        (&["alertname=ServiceHighLatency", "severity=warning", "service=gateway"], "warning"),
        (&["alertname=ServiceSlowerThanUsual", "severity=info", "service=gateway"], "info"),
        (&["alertname=DatasourceNoData", "severity=critical", "service=batchsql"], "info"),
        (&["alertname=SomethingOfYours"], "warning"),
    ] {
        let arguments = [&["config", "routes", "test", "--config.file", ALERTMANAGER, "--verify.receivers", receiver], labels].concat();
        if tool("amtool", &arguments).is_none() {
            return;
        }
    }
}

#[test]
fn tiers_are_grouped_told_again_and_inhibited_as_promised() {
    let config = yaml(ALERTMANAGER);
    let route = &config["route"];
    assert_eq!(
        (&route["group_by"], &route["group_wait"], &route["group_interval"]),
        (&json!(["service", "severity", "env"]), &json!("30s"), &json!("5m"))
    );
    let again = |receiver: &str| {
        let routes = route["routes"].as_array().unwrap().iter().chain([route]);
        routes
            .filter(|route| route["receiver"] == receiver)
            .map(|route| route["repeat_interval"].as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(
        (again("critical"), again("warning"), again("info")),
        (vec!["15m".into()], vec!["2h".into()], vec!["24h".into(), "24h".into()])
    );
    let inhibit = config["inhibit_rules"].as_array().unwrap();
    assert_eq!(
        (&inhibit[0]["source_matchers"], &inhibit[0]["target_matchers"]),
        (&json!(["severity=\"critical\""]), &json!(["severity=\"warning\""]))
    );
    assert_eq!(inhibit[1]["source_matchers"], json!(["alertname=\"ServiceDown\""]));
    assert!(inhibit[1]["target_matchers"][0].as_str().unwrap().contains("ServiceHighLatency"));
    for receiver in config["receivers"].as_array().unwrap() {
        let webhook = &receiver["webhook_configs"][0];
        assert_eq!(webhook["url"], "http://serve:3009/api/alerts", "{receiver}");
        assert_eq!(webhook["http_config"]["authorization"], json!({"credentials_file": "/run/alertmanager/serve-token"}), "{receiver}");
    }
}

#[test]
fn grafana_watches_integrity_and_hands_it_to_alertmanager() {
    let group = &yaml("grafana/provisioning/alerting/rules.yml")["groups"][0];
    assert_eq!((&group["interval"], &group["folder"]), (&json!("10s"), &json!("batchsql")));
    let rule = &group["rules"][0];
    assert_eq!((&rule["title"], &rule["for"]), (&json!("数据完整性告警"), &json!("1m")));
    assert_eq!((&rule["noDataState"], &rule["execErrState"]), (&json!("NoData"), &json!("Alerting")));
    let [query, last, below] = rule["data"].as_array().unwrap().as_slice() else { panic!("{rule:#}") };
    assert_eq!((&query["datasourceUid"], &query["model"]["expr"]), (&json!("prometheus"), &json!("batchsql_data_integrity_rate * 100")));
    assert_eq!(
        (&last["model"]["type"], &last["model"]["reducer"], &last["model"]["expression"]),
        (&json!("reduce"), &json!("last"), &query["refId"])
    );
    assert_eq!((&below["model"]["type"], &below["model"]["expression"]), (&json!("threshold"), &last["refId"]));
    assert_eq!(below["model"]["conditions"], json!([{"evaluator": {"type": "lt", "params": [95]}}]));
    assert_eq!(rule["condition"], below["refId"]);
    for part in rule["data"].as_array().unwrap() {
        assert_eq!(part["refId"], part["model"]["refId"], "{part:#}");
    }
    let named: Vec<Value> = data_sources();
    assert!(named.contains(&query["datasourceUid"]), "{named:?}");

    let way = yaml("grafana/provisioning/alerting/notifications.yml");
    let (contact, policy) = (&way["contactPoints"][0], &way["policies"][0]);
    assert_eq!(policy["receiver"], contact["name"]);
    let receiver = &contact["receivers"][0];
    assert_eq!((&receiver["type"], &receiver["settings"]["url"]), (&json!("prometheus-alertmanager"), &json!("http://alertmanager:9093")));
    // Said again before Alertmanager takes it for over.
    assert_eq!((&policy["repeat_interval"], &yaml(ALERTMANAGER)["global"]["resolve_timeout"]), (&json!("1m"), &json!("5m")));
}

/// The identifiers of all provisioned data sources.
fn data_sources() -> Vec<Value> {
    let folder = "grafana/provisioning/datasources";
    let files = fs::read_dir(root().join(folder)).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let sources = files.flat_map(|file| yaml(&format!("{folder}/{file}"))["datasources"].as_array().unwrap().clone());
    sources.map(|source| source["uid"].clone()).collect()
}
