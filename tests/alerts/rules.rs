//! The rules: each says what a reader needs, asks for its board, and passes its unit tests.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use serde_json::Value;

use crate::{read, root, tool, yaml, yaml_files};

/// All alert rules that are shipped.
pub(crate) fn alerts() -> Vec<Value> {
    let groups = yaml_files("config/prometheus/rules").into_iter().flat_map(|file| yaml(&file)["groups"].as_array().unwrap().clone());
    let rules = groups.flat_map(|group| group["rules"].as_array().unwrap().clone());
    rules.filter(|rule| rule.get("alert").is_some()).collect()
}

fn text<'a>(rule: &'a Value, path: &str) -> &'a str {
    rule.pointer(path).and_then(Value::as_str).unwrap_or_else(|| panic!("{path} is missing in {rule:#}"))
}

/// The identifiers of the boards.
fn boards() -> BTreeSet<String> {
    let folder = fs::read_dir(root().join("grafana/dashboards")).unwrap();
    let files = folder.map(|entry| entry.unwrap().path()).filter(|path| path.extension().is_some_and(|end| end == "json"));
    files
        .map(|path| serde_json::from_str::<Value>(&fs::read_to_string(path).unwrap()).unwrap()["uid"].as_str().unwrap().to_owned())
        .collect()
}

#[test]
fn the_alerts_asked_for_by_name_have_their_limits() {
    let alerts = alerts();
    for (name, severity, limit, pending) in [
        ("BatchSQLHighErrorRate", "warning", "batchsql_error_rate > 0.05 ", "2m"),
        ("BatchSQLLowDataIntegrity", "critical", "batchsql_data_integrity_rate < 0.95", "1m"),
        ("BatchSQLLowPerformance", "warning", "(batchsql_current_rps) < 1000 ", "5m"),
        ("BatchSQLHighMemoryUsage", "warning", "batchsql_memory_usage_bytes > 1024 * 1024 * 1024 ", "3m"),
        ("ServiceDown", "critical", "up{job!~\"batchsql.*\"} == 0", "2m"),
        ("ServiceLowSuccessRate", "warning", ":ratio_rate1m < 0.95 ", "5m"),
        ("ServiceLowSuccessRate", "critical", ":ratio_rate1m < 0.90 ", "2m"),
        ("ServiceHighErrorRate", "warning", ":ratio_rate1m > 0.02 ", "5m"),
        ("ServiceHighErrorRate", "critical", ":ratio_rate1m > 0.05 ", "2m"),
        ("ServiceHighLatency", "warning", ":p95_rate1m > 1.5 ", "5m"),
        ("ServiceHighLatency", "critical", ":p95_rate1m > 3 ", "2m"),
        ("HostHighCpu", "warning", ":ratio_rate1m > 0.80 ", "5m"),
        ("HostHighCpu", "critical", ":ratio_rate1m > 0.90 ", "2m"),
        ("HostHighMemory", "warning", ":ratio > 0.85 ", "5m"),
        ("HostHighMemory", "critical", ":ratio > 0.95 ", "2m"),
        ("HostDiskFilling", "warning", ":ratio > 0.85 ", "5m"),
        ("HostDiskFilling", "critical", ":ratio > 0.90 ", "2m"),
    ] {
        let rule = alerts.iter().find(|rule| rule["alert"] == name && rule["labels"]["severity"] == severity);
        let rule = rule.unwrap_or_else(|| panic!("no {name} of severity {severity}"));
        let expression = text(rule, "/expr").replace('\n', " ") + " ";
        assert!(expression.contains(limit), "{name}: {expression}");
        assert_eq!(rule["for"], pending, "{name}");
    }
}

#[test]
fn every_alert_says_how_grave_it_is_and_what_to_do() {
    let (alerts, boards) = (alerts(), boards());
    assert!(alerts.len() >= 20, "{}", alerts.len());
    for rule in &alerts {
        let name = text(rule, "/alert");
        assert!(["critical", "warning", "info"].contains(&text(rule, "/labels/severity")), "{name}");
        assert!(!text(rule, "/labels/service").is_empty() && !text(rule, "/for").is_empty(), "{name}");
        assert!(!text(rule, "/keep_firing_for").is_empty() && text(rule, "/annotations/summary").contains(" / "), "{name}");
        assert!(text(rule, "/annotations/description").contains("{{ $value"), "{name}");
        assert!(text(rule, "/annotations/action").len() > 40, "{name}");
        let board = text(rule, "/annotations/dashboard").rsplit_once("/d/").unwrap().1;
        assert!(boards.contains(board), "{name}: there is no board {board}");
        assert_eq!(text(rule, "/annotations/runbook"), format!("docs/operations.md#{}", name.to_lowercase()));
    }
}

#[test]
fn what_wavers_is_held_until_it_is_well_inside_its_limit() {
    let (mut held, mut free) = (BTreeSet::new(), BTreeSet::new());
    for rule in alerts() {
        let (name, severity) = (text(&rule, "/alert"), text(&rule, "/labels/severity"));
        let expression = text(&rule, "/expr");
        if expression.contains("ALERTS{") {
            assert!(expression.contains(&format!("ALERTS{{alertname=\"{name}\"")), "{name} is held by another: {expression}");
            // Two rules of one name are held each by itself.
            let own = format!("severity=\"{severity}\"");
            assert!(!expression.contains("severity=") || expression.contains(&own), "{name}: {expression}");
            held.insert(name.to_owned());
        } else {
            free.insert(name.to_owned());
        }
    }
    assert!(held.contains("BatchSQLHighErrorRate") && held.contains("ServiceHighLatency") && held.len() >= 10, "{held:?}");
    let states = ["BatchSQLLowDataIntegrity", "ServiceDown", "DatabaseDown", "HostDiskFullSoon"];
    let others =
        free.iter().filter(|name| !states.contains(&name.as_str()) && !read("config/prometheus/rules/monitoring.yml").contains(*name));
    assert_eq!(others.count(), 0, "{free:?}");
}

#[test]
fn the_slow_tiers_are_recorded_as_often_as_their_name_says() {
    let golden = yaml("config/prometheus/rules/golden.yml");
    let mut names = BTreeMap::new();
    for group in golden["groups"].as_array().unwrap() {
        for rule in group["rules"].as_array().unwrap() {
            let name = text(rule, "/record").to_owned();
            assert_eq!(name.split(':').count(), 3, "{name} is not level:metric:operations");
            assert!(names.insert(name.clone(), group["interval"].as_str().unwrap_or("").to_owned()).is_none(), "{name} twice");
        }
    }
    let tier = |end: &str| names.iter().filter(|(name, _)| name.ends_with(end)).map(|(_, interval)| interval.as_str()).collect::<Vec<_>>();
    let (fast, slow) = (tier("5m"), tier("1h"));
    assert!(fast.len() >= 8 && fast.iter().all(|interval| *interval == "5m"), "{names:?}");
    assert!(slow.len() == fast.len() && slow.iter().all(|interval| *interval == "1h"), "{names:?}");
}

#[test]
fn the_rules_pass_their_unit_tests_and_each_alert_has_one() {
    let files = yaml_files("config/prometheus/tests");
    let tested: String = files.iter().map(|file| read(file)).collect();
    for rule in alerts() {
        let (name, severity) = (text(&rule, "/alert"), text(&rule, "/labels/severity"));
        let fires = yaml_files("config/prometheus/tests").iter().any(|file| {
            let tests = yaml(file)["tests"].as_array().unwrap().clone();
            let expected = tests.iter().flat_map(|test| test["alert_rule_test"].as_array().cloned().unwrap_or_default());
            let mut of_this = expected.filter(|test| test["alertname"] == name);
            of_this.any(|test| test.pointer("/exp_alerts/0/exp_labels/severity").is_some_and(|found| found == severity))
        });
        assert!(fires, "no test sees {name} of severity {severity} fire");
        let quiet = format!("alertname: {name}\n");
        assert!(tested.matches(&quiet).count() > 1, "no test sees {name} quiet");
    }
    let rules = yaml_files("config/prometheus/rules");
    let Some(said) = tool("promtool", &[&["check", "rules"], &names(&rules)[..]].concat()) else { return };
    assert_eq!(said.matches("SUCCESS").count(), rules.len(), "{said}");
    let said = tool("promtool", &[&["test", "rules"], &names(&files)[..]].concat()).unwrap();
    assert_eq!(said.matches("SUCCESS").count(), files.len(), "{said}");
}

fn names(files: &[String]) -> Vec<&str> {
    files.iter().map(String::as_str).collect()
}
