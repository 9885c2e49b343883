//! What a Prometheus server says of the target, asked again and again beside the load.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use serde_json::Value;
use tokio::task::JoinHandle;

use crate::http::service::{Answer, Service};
use crate::scenario::guard::Up;
use crate::telemetry::log;

/// Asks whether the target is up.
pub(super) struct Down {
    pub(super) since: Arc<Mutex<Option<Instant>>>,
    pub(super) task: JoinHandle<()>,
}

/// Between two questions, and for an answer.
const SOONEST: Duration = Duration::from_millis(250);
const LATEST: Duration = Duration::from_secs(5);

impl Down {
    pub(super) fn start(up: Up) -> Self {
        let since = Arc::<Mutex<Option<Instant>>>::default();
        let task = tokio::spawn(ask_again(up, Arc::clone(&since)));
        Self { since, task }
    }

    pub(super) fn lasting(&self, now: Instant) -> Option<Duration> {
        let since = self.since.lock().unwrap_or_else(PoisonError::into_inner);
        since.map(|since| now.saturating_duration_since(since))
    }
}

impl Drop for Down {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn ask_again(up: Up, since: Arc<Mutex<Option<Instant>>>) {
    let pause = (up.lasts.0 / 4).clamp(SOONEST, LATEST);
    let mut told = false;
    loop {
        let asked = Instant::now();
        let answer = is_down(&up, pause).await;
        if let (Err(error), false) = (&answer, told) {
            log::warn(&format!("batchsql: guard.up: {error:#}; until it answers, it says nothing of the target"));
            told = true;
        }
        {
            let mut since = since.lock().unwrap_or_else(PoisonError::into_inner);
            *since = if answer.unwrap_or(false) { since.or(Some(asked)) } else { None };
        }
        tokio::time::sleep(pause).await;
    }
}

async fn is_down(up: &Up, limit: Duration) -> anyhow::Result<bool> {
    let service = Service::new("guard.up.prometheus", &up.prometheus, "http://127.0.0.1:9090")?;
    let answer = service.get("/api/v1/query", &[("query", &up.query)], limit.max(Duration::from_secs(1))).await;
    let body = answer.and_then(Answer::success).with_context(|| format!("Prometheus at {}", service.shown()))?;
    let values =
        values(&serde_json::from_slice(&body).with_context(|| format!("{} does not answer as Prometheus does", service.shown()))?)?;
    ensure!(!values.is_empty(), "{} has no series; correct guard.up.query", up.query);
    Ok(values.contains(&0.0))
}

/// The values of an instant query's answer, of a vector or a scalar.
fn values(answer: &Value) -> anyhow::Result<Vec<f64>> {
    let result = &answer["data"]["result"];
    let number =
        |sample: &Value| sample[1].as_str().and_then(|text| text.parse::<f64>().ok()).context("a value of the answer is no number");
    match answer["data"]["resultType"].as_str() {
        Some("scalar") => Ok(vec![number(result)?]),
        Some("vector") => result.as_array().into_iter().flatten().map(|series| number(&series["value"])).collect(),
        _ => bail!("guard.up.query must give a vector or a scalar, e.g. up{{job=\"postgres\"}}"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_series_is_read_from_a_vector_and_from_a_scalar() {
        let read = |kind: &str, result: Value| values(&json!({"data": {"resultType": kind, "result": result}})).map_err(|e| e.to_string());
        assert_eq!(read("vector", json!([{"value": [1.5, "1"]}, {"value": [1.5, "0"]}])), Ok(vec![1.0, 0.0]));
        assert_eq!(read("scalar", json!([1.5, "0"])), Ok(vec![0.0]));
        assert_eq!(read("vector", json!([])), Ok(vec![]));
        assert!(read("matrix", json!([])).unwrap_err().contains("must give a vector or a scalar"));
        assert!(read("scalar", json!([1.5, "x"])).is_err());
    }
}
