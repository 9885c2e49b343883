//! What Alertmanager sends (its webhook, version 4), an alert a line in `alerts.jsonl`.

use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Query, State};
use axum::response::Response;
use axum::routing::{get, post};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::{Limited, Served, failed, limit, refused};

/// The version of the webhook that is read.
const VERSION: &str = "4";

#[derive(Deserialize)]
struct Webhook {
    version: String,
    #[serde(default)]
    receiver: String,
    alerts: Vec<Alert>,
}

#[derive(Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
struct Alert {
    status: Status,
    #[serde(default)]
    labels: Map<String, Value>,
    #[serde(default)]
    annotations: Map<String, Value>,
    #[serde(default)]
    starts_at: String,
    #[serde(default)]
    ends_at: String,
    #[serde(default, rename = "generatorURL")]
    generator_url: String,
    #[serde(default)]
    fingerprint: String,
}

#[derive(Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
enum Status {
    Firing,
    Resolved,
}

#[derive(Serialize)]
struct Stored<'a> {
    received_at: String,
    receiver: &'a str,
    #[serde(flatten)]
    alert: &'a Alert,
}

pub(super) fn routes() -> axum::Router<Arc<Served>> {
    axum::Router::new().route("/api/alerts", post(receive)).route("/api/alerts/recent", get(recent))
}

async fn receive(State(served): State<Arc<Served>>, body: Bytes) -> Result<Json<Value>, Response> {
    let webhook: Webhook =
        serde_json::from_slice(&body).map_err(|error| refused(&format!("this is no webhook of Alertmanager: {error}")))?;
    if webhook.version != VERSION {
        return Err(refused(&format!("version {:?} of Alertmanager's webhook is not read, {VERSION:?} is", webhook.version)));
    }
    let stored = webhook.alerts.len();
    let received_at = jiff::Timestamp::now().to_string();
    let written = tokio::task::spawn_blocking(move || {
        let lines = webhook.alerts.iter();
        let lines: Vec<_> = lines.map(|alert| Stored { received_at: received_at.clone(), receiver: &webhook.receiver, alert }).collect();
        served.alerts.append(&lines)
    });
    match written.await {
        Ok(Ok(())) => Ok(Json(json!({"stored": stored}))),
        Ok(Err(error)) => Err(failed("alerts.jsonl cannot be written", &error)),
        Err(error) => Err(failed("alerts.jsonl was not written", &error)),
    }
}

async fn recent(State(served): State<Arc<Served>>, Query(asked): Query<Limited>) -> Result<Json<Value>, Response> {
    let limit = limit(&asked).map_err(|why| refused(&why))?;
    match tokio::task::spawn_blocking(move || served.alerts.recent(limit)).await {
        Ok(Ok(alerts)) => Ok(Json(json!({"alerts": alerts}))),
        Ok(Err(error)) => Err(failed("alerts.jsonl cannot be read", &error)),
        Err(error) => Err(failed("alerts.jsonl was not read", &error)),
    }
}
