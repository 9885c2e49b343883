//! The golden signals of the service under test, as a time-series database has them, with their thresholds and grades.

use futures::future::join_all;
use serde::Serialize;

use super::LIMIT;
use crate::http::service::Service;

/// Where a signal begins to be bad.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(super) struct Threshold {
    name: &'static str,
    unit: &'static str,
    /// Whether less is worse; else more is.
    #[serde(skip)]
    falls: bool,
    pub(super) warning: f64,
    pub(super) critical: f64,
    /// Beyond the first it is excellent, then good, then acceptable, then poor.
    #[serde(skip)]
    grades: Option<[f64; 3]>,
    #[serde(skip)]
    query: &'static str,
}

const SUCCESS: Threshold = Threshold {
    name: "success rate",
    unit: "%",
    falls: true,
    warning: 95.0,
    critical: 90.0,
    grades: Some([98.0, 95.0, 90.0]),
    query: r#"(sum(rate(aiproxy_requests_total{status="success"}[5m])) or vector(0)) / sum(rate(aiproxy_requests_total[5m])) * 100"#,
};
const P95: Threshold = Threshold {
    name: "P95",
    unit: "s",
    falls: false,
    warning: 1.5,
    critical: 3.0,
    grades: Some([1.0, 1.5, 3.0]),
    query: "histogram_quantile(0.95, sum by (le) (rate(aiproxy_response_time_seconds_bucket[5m])))",
};
const ERRORS: Threshold = Threshold {
    name: "error rate",
    unit: "%",
    falls: false,
    warning: 2.0,
    critical: 5.0,
    grades: None,
    query: r#"(sum(rate(aiproxy_requests_total{status="error"}[5m])) or vector(0)) / sum(rate(aiproxy_requests_total[5m])) * 100"#,
};
const CPU: Threshold = Threshold {
    name: "CPU",
    unit: "%",
    falls: false,
    warning: 80.0,
    critical: 90.0,
    grades: None,
    query: r#"max(100 - avg by (instance) (rate(node_cpu_seconds_total{mode="idle"}[5m])) * 100)"#,
};
const MEMORY: Threshold = Threshold {
    name: "memory",
    unit: "%",
    falls: false,
    warning: 85.0,
    critical: 95.0,
    grades: None,
    query: "max((1 - node_memory_MemAvailable_bytes / node_memory_MemTotal_bytes) * 100)",
};
pub(super) const DISK: Threshold = Threshold {
    name: "disk",
    unit: "%",
    falls: false,
    warning: 85.0,
    critical: 90.0,
    grades: None,
    query: r#"max((1 - node_filesystem_avail_bytes{fstype!~"tmpfs|ramfs|overlay|squashfs|iso9660"} / node_filesystem_size_bytes) * 100)"#,
};
const ALL: [Threshold; 6] = [SUCCESS, P95, ERRORS, CPU, MEMORY, DISK];

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Level {
    Ok,
    Warning,
    Critical,
    /// Nobody measured it in the last five minutes.
    NoData,
}

/// One signal as it is now.
#[derive(Debug, Serialize)]
pub(super) struct Signal {
    #[serde(flatten)]
    pub(super) threshold: Threshold,
    pub(super) value: Option<f64>,
    pub(super) level: Level,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) grade: Option<&'static str>,
    /// Why there is no value, if it could not be asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) reason: Option<String>,
}

impl Threshold {
    /// The threshold itself is not beyond it.
    fn is_beyond(self, value: f64, limit: f64) -> bool {
        if self.falls { value < limit } else { value > limit }
    }

    fn level(self, value: f64) -> Level {
        if self.is_beyond(value, self.critical) {
            Level::Critical
        } else if self.is_beyond(value, self.warning) {
            Level::Warning
        } else {
            Level::Ok
        }
    }

    fn grade(self, value: f64) -> Option<&'static str> {
        let better = |limit: f64| if self.falls { value > limit } else { value < limit };
        let reached = self.grades?.iter().position(|limit| better(*limit)).unwrap_or(3);
        Some(["excellent", "good", "acceptable", "poor"][reached])
    }

    fn signal(self, value: Result<Option<f64>, String>) -> Signal {
        let (value, reason) = match value {
            Ok(value) => (value.filter(|value| value.is_finite()), None),
            Err(reason) => (None, Some(reason)),
        };
        let level = value.map_or(Level::NoData, |value| self.level(value));
        Signal { threshold: self, value, level, grade: value.and_then(|value| self.grade(value)), reason }
    }
}

impl Signal {
    pub(super) fn is_critical(&self) -> bool {
        self.level == Level::Critical
    }

    /// `99.5 %`, with the sign that says which side of the threshold is bad.
    pub(super) fn words(&self) -> [String; 3] {
        let Threshold { unit, falls, warning, critical, .. } = self.threshold;
        let value = self.value.map_or("no data".to_owned(), |value| format!("{value:.2} {unit}"));
        let sign = if falls { '<' } else { '>' };
        [self.threshold.name.to_owned(), value, format!("warning {sign} {warning} {unit}, critical {sign} {critical} {unit}")]
    }
}

/// All of them, at once.
pub(super) async fn all(source: Option<Service>) -> Vec<Signal> {
    let Some(source) = source else {
        let why = "neither Prometheus nor VictoriaMetrics answers";
        return ALL.into_iter().map(|threshold| threshold.signal(Err(why.to_owned()))).collect();
    };
    let ask = async |threshold: Threshold| threshold.signal(query(&source, threshold.query).await.map_err(|error| format!("{error:#}")));
    join_all(ALL.into_iter().map(ask)).await
}

async fn query(source: &Service, query: &str) -> anyhow::Result<Option<f64>> {
    let body = source.get("/api/v1/query", &[("query", query)], LIMIT).await?.success()?;
    let answer: serde_json::Value = serde_json::from_slice(&body)?;
    Ok(answer.pointer("/data/result/0/value/1").and_then(serde_json::Value::as_str).and_then(|value| value.parse().ok()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_change_just_beyond_their_thresholds() {
        use Level::{Critical, Ok, Warning};
        // Below, at and above the warning; below, at and above the critical threshold.
        for (threshold, step, expected) in [
            (SUCCESS, 0.01, [Warning, Ok, Ok, Critical, Warning, Warning]),
            (P95, 0.001, [Ok, Ok, Warning, Warning, Warning, Critical]),
            (ERRORS, 0.01, [Ok, Ok, Warning, Warning, Warning, Critical]),
            (CPU, 0.01, [Ok, Ok, Warning, Warning, Warning, Critical]),
            (MEMORY, 0.01, [Ok, Ok, Warning, Warning, Warning, Critical]),
            (DISK, 0.01, [Ok, Ok, Warning, Warning, Warning, Critical]),
        ] {
            let around = |limit: f64| [limit - step, limit, limit + step];
            let values = [around(threshold.warning), around(threshold.critical)].concat();
            let levels: Vec<_> = values.into_iter().map(|value| threshold.level(value)).collect();
            assert_eq!(levels, expected, "{}", threshold.name);
        }
        let limits = ALL.map(|threshold| (threshold.warning, threshold.critical));
        assert_eq!(limits, [(95.0, 90.0), (1.5, 3.0), (2.0, 5.0), (80.0, 90.0), (85.0, 95.0), (85.0, 90.0)]);
    }

    #[test]
    fn grades_change_at_their_limits() {
        let grade = |threshold: Threshold, value| threshold.grade(value).unwrap();
        for (value, expected) in [
            (100.0, "excellent"),
            (98.01, "excellent"),
            (98.0, "good"),
            (95.01, "good"),
            (95.0, "acceptable"),
            (90.01, "acceptable"),
            (90.0, "poor"),
            (0.0, "poor"),
        ] {
            assert_eq!(grade(SUCCESS, value), expected, "{value}");
        }
        for (value, expected) in [
            (0.0, "excellent"),
            (0.999, "excellent"),
            (1.0, "good"),
            (1.499, "good"),
            (1.5, "acceptable"),
            (2.999, "acceptable"),
            (3.0, "poor"),
        ] {
            assert_eq!(grade(P95, value), expected, "{value}");
        }
        assert_eq!(CPU.grade(1.0), None);
    }

    #[test]
    fn what_is_no_number_is_no_data() {
        for value in [Ok(None), Ok(Some(f64::NAN)), Err("down".to_owned())] {
            let signal = P95.signal(value);
            assert_eq!((signal.level, signal.value, signal.grade), (Level::NoData, None, None));
        }
    }
}
