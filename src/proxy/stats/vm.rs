//! A time-series database that scrapes the gateway, VictoriaMetrics or Prometheus, asked over its HTTP API. One attempt, one second.

use std::collections::HashMap;
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde::Deserialize;

use crate::http::service::Service;
use crate::metrics::aiproxy::Sample;

/// Longest wait for an answer.
const LIMIT: Duration = Duration::from_secs(1);

/// Sums over all instances of the gateway: of whoever has the series that clients have not, so that a load client's view of the same
/// requests in the same database is not counted beside.
const QUERY: &str = r#"sum by (__name__, channel, user_name, model, status, kind, le) ({__name__=~"aiproxy_(requests_total|tokens_total|cost_total|(response_time|time_to_first_token)_seconds_(bucket|sum|count))"} and on (instance, job) aiproxy_api_keys_total)"#;

/// The database at a base URL.
#[derive(Clone)]
pub(super) struct Vm(Service);

#[derive(Deserialize)]
struct Answer {
    data: Data,
}

#[derive(Deserialize)]
struct Data {
    result: Vec<Series>,
}

#[derive(Deserialize)]
struct Series {
    metric: HashMap<String, String>,
    /// Time and value.
    value: (f64, String),
}

impl Vm {
    /// # Errors
    /// When this is no URL of an HTTP service.
    pub(super) fn new(base: &str) -> Result<Self> {
        Service::new("VM_URL", base, "http://127.0.0.1:8428").map(Self)
    }

    /// Its address, without a password.
    pub(super) fn shown(&self) -> &str {
        self.0.shown()
    }

    /// Whether it answers queries.
    pub(super) async fn check(&self) -> Result<()> {
        self.query("vector(1)").await.map(drop)
    }

    /// The gateway's series as they were scraped last.
    pub(super) async fn samples(&self) -> Result<Vec<Sample>> {
        self.query(QUERY).await
    }

    async fn query(&self, query: &str) -> Result<Vec<Sample>> {
        let answer = self.0.get("/api/v1/query", &[("query", query)], LIMIT).await?.success()?;
        let answer: Answer = serde_json::from_slice(&answer).context("its answer is none of a time-series database")?;
        answer.data.result.into_iter().map(Sample::try_from).collect()
    }
}

impl TryFrom<Series> for Sample {
    type Error = anyhow::Error;

    fn try_from(mut series: Series) -> Result<Self> {
        let value = series.value.1.parse().with_context(|| format!("its answer has {:?} for a number", series.value.1))?;
        Ok(Self { name: series.metric.remove("__name__").unwrap_or_default(), labels: series.metric, value })
    }
}
