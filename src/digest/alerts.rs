//! The alerts that `batchsql serve` wrote down, as far as they fall into a stretch of time.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::Path;

use jiff::Timestamp;
use serde_json::Value;

/// Most of the file that is read; `serve` keeps it below.
const LARGEST: u64 = 64 << 20;

/// One alert, as last heard of.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Alert {
    pub(super) name: String,
    pub(super) severity: String,
    pub(super) started: Timestamp,
    /// When it was resolved, if it was.
    pub(super) ended: Option<Timestamp>,
}

/// The alerts that were firing at some time from `from` to `to`, the oldest first.
pub(super) fn between(report_dir: &Path, from: Timestamp, to: Timestamp) -> Vec<Alert> {
    let Ok(file) = File::open(report_dir.join("alerts.jsonl")) else { return Vec::new() };
    let mut found = BTreeMap::new();
    for line in BufReader::new(file.take(LARGEST)).lines().map_while(Result::ok) {
        let Some((key, alert)) = serde_json::from_str(&line).ok().and_then(|value| read(&value)) else { continue };
        found.insert(key, alert);
    }
    let mut found: Vec<Alert> =
        found.into_values().filter(|alert| alert.started <= to && alert.ended.is_none_or(|ended| ended >= from)).collect();
    found.sort_by_key(|alert| alert.started);
    found
}

/// An alert is told again and again until it ends: the same fingerprint and start is the same alert.
fn read(value: &Value) -> Option<((String, String), Alert)> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let started: Timestamp = value["startsAt"].as_str()?.parse().ok()?;
    let ended = (value["status"] == "resolved").then(|| value["endsAt"].as_str()?.parse().ok()).flatten();
    let labels = &value["labels"];
    let name = labels["alertname"].as_str().unwrap_or("without a name").to_owned();
    let key = (text(&value["fingerprint"]) + &name, text(&value["startsAt"]));
    Some((key, Alert { name, severity: text(&labels["severity"]), started, ended }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_alert_that_is_told_twice_is_one_and_its_time_decides() {
        let folder = tempfile::tempdir().unwrap();
        let line = |name: &str, status: &str, from: &str, to: &str| {
            serde_json::json!({"status": status, "labels": {"alertname": name, "severity": "critical"}, "startsAt": from, "endsAt": to, "fingerprint": name}).to_string()
        };
        let lines = [
            line("A", "firing", "2026-03-01T10:00:00Z", "0001-01-01T00:00:00Z"),
            line("A", "resolved", "2026-03-01T10:00:00Z", "2026-03-01T10:10:00Z"),
            "torn {".to_owned(),
            line("B", "firing", "2026-03-01T11:00:00Z", "0001-01-01T00:00:00Z"),
            line("Early", "resolved", "2026-02-01T10:00:00Z", "2026-02-01T10:10:00Z"),
        ];
        std::fs::write(folder.path().join("alerts.jsonl"), lines.join("\n")).unwrap();
        let at = |text: &str| text.parse::<Timestamp>().unwrap();
        let found = between(folder.path(), at("2026-03-01T00:00:00Z"), at("2026-03-02T00:00:00Z"));
        assert_eq!(found.iter().map(|alert| alert.name.as_str()).collect::<Vec<_>>(), ["A", "B"]);
        assert_eq!((found[0].ended, found[1].ended), (Some(at("2026-03-01T10:10:00Z")), None));
        assert!(between(folder.path(), at("2026-03-01T10:20:00Z"), at("2026-03-01T10:30:00Z")).is_empty());
        assert!(between(&folder.path().join("none"), Timestamp::MIN, Timestamp::MAX).is_empty());
    }
}
