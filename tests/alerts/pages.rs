//! The pages of advice: every alert is explained, every query and command in them is one that works.

use std::collections::BTreeSet;
use std::fs;

use crate::{read, rules, tool};

const OPERATIONS: &str = "docs/operations.md";
const TROUBLESHOOTING: &str = "docs/troubleshooting.md";

/// What stands between a heading and the next of its level.
pub(crate) fn chapter(page: &str, heading: &str) -> String {
    let text = read(page);
    let level = heading.split(' ').next().unwrap();
    let (_, after) = text.split_once(&format!("\n{heading}\n")).unwrap_or_else(|| panic!("{page} has no {heading}"));
    after.split(&format!("\n{level} ")).next().unwrap().to_owned()
}

/// The fenced blocks of a language.
pub(crate) fn blocks(text: &str, language: &str) -> Vec<String> {
    let fence = format!("```{language}\n");
    let fences = text.split(&fence).skip(1);
    fences.map(|rest| rest.split("```").next().unwrap().trim().to_owned()).collect()
}

#[test]
fn every_alert_has_its_heading_and_every_heading_its_alert() {
    let alerts = chapter(OPERATIONS, "## Alerts");
    let headings: BTreeSet<_> = alerts.lines().filter_map(|line| line.strip_prefix("### ")).map(str::to_owned).collect();
    let mut names: BTreeSet<_> = rules::alerts().iter().map(|rule| rule["alert"].as_str().unwrap().to_owned()).collect();
    names.insert("数据完整性告警".to_owned()); // Grafana's
    assert_eq!(headings, names);
}

#[test]
fn the_table_of_golden_signals_has_the_rules_limits() {
    let table = chapter(OPERATIONS, "## Golden signals");
    let alerts = rules::alerts();
    let mut rows = 0;
    for row in table.lines().filter(|line| line.starts_with("| ") && line.contains(":")) {
        let cells: Vec<_> = row.trim_matches('|').split('|').map(|cell| cell.trim().trim_matches('`')).collect();
        for (severity, cell) in [("warning", cells[2]), ("critical", cells[3])] {
            let (operator, limit) = cell.split_once(' ').unwrap();
            let (number, unit) = limit.split_once(' ').unwrap();
            let factor = if unit == "%" { 100.0 } else { 1.0 };
            let found = alerts.iter().filter(|rule| rule["labels"]["severity"] == severity).any(|rule| {
                let first = rule["expr"].as_str().unwrap().lines().next().unwrap().split(" or ").next().unwrap().to_owned();
                first
                    .strip_prefix(&format!("{} {operator} ", cells[1]))
                    .is_some_and(|value| (value.trim().parse::<f64>().unwrap() * factor - number.parse::<f64>().unwrap()).abs() < 1e-9)
            });
            assert!(found, "no alert has {} {operator} {limit} as {severity}", cells[1]);
        }
        rows += 1;
    }
    assert_eq!(rows, 6, "{table}");
}

#[test]
fn prometheus_parses_every_query_of_the_pages() {
    let mut queries = blocks(&read(OPERATIONS), "promql");
    for line in read(TROUBLESHOOTING).lines().filter(|line| line.contains("--data-urlencode '")) {
        queries.push(line.split_once("'query=").unwrap().1.trim_end_matches('\'').to_owned());
    }
    assert!(queries.len() >= 12, "{queries:?}");
    let rules = queries
        .iter()
        .enumerate()
        .map(|(number, query)| format!("  - record: query_{number}\n    expr: {}\n", serde_json::to_string(query).unwrap()));
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("pages.yml");
    fs::write(&file, format!("groups:\n- name: pages\n  rules:\n{}", rules.collect::<String>())).unwrap();
    let Some(said) = tool("promtool", &["check", "rules", file.to_str().unwrap()]) else { return };
    assert!(said.contains(&format!("{} rules found", queries.len())), "{said}");
}

#[test]
fn the_pages_name_files_and_headings_that_exist() {
    for page in [OPERATIONS, TROUBLESHOOTING] {
        let text = read(page);
        let mut links = 0;
        for link in text.split("](").skip(1).map(|rest| rest.split(')').next().unwrap()) {
            let (file, anchor) = link.split_once('#').unwrap_or((link, ""));
            let target = read(&format!("docs/{file}"));
            let anchors = target
                .lines()
                .filter(|line| line.starts_with('#'))
                .map(|line| line.trim_start_matches('#').trim().to_lowercase().replace(' ', "-"));
            assert!(anchor.is_empty() || anchors.clone().any(|found| found == anchor), "{page}: {link}");
            links += 1;
        }
        assert!(links >= 2, "{page}");
    }
}
