//! The runs that are unlike the others of their kind.

use std::sync::Arc;

use axum::extract::{Query, State};
use axum::response::Response;
use axum::routing::get;
use axum::{Json, Router};
use serde_json::{Value, json};

use super::{Limited, Served, failed, limit, refused};
use crate::history::{anomaly, default_file, known_or_folders};

pub(super) fn routes() -> Router<Arc<Served>> {
    Router::new().route("/api/anomalies/recent", get(recent))
}

/// Those above 0.8, the newest first.
async fn recent(State(served): State<Arc<Served>>, Query(asked): Query<Limited>) -> Result<Json<Value>, Response> {
    let limit = limit(&asked).map_err(|why| refused(&why))?;
    let looked = tokio::task::spawn_blocking(move || {
        let known = known_or_folders(&served.report_dir, &default_file(&served.report_dir));
        let mut found = anomaly::scores(&known.entries);
        found.retain(|anomaly| anomaly.score > anomaly::SHOWN);
        found.reverse();
        found.truncate(limit);
        (found, known.entries.len(), known.notes)
    });
    let (anomalies, runs, notes) = looked.await.map_err(|error| failed("the history was not read", &error))?;
    Ok(Json(json!({"anomalies": anomalies, "runs": runs, "notes": notes})))
}
