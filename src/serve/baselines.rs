//! How the newest runs lie to their baselines, and a run made one.

use std::path::Path;
use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::State;
use axum::response::Response;
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{Served, absent, failed, refused};
use crate::baseline::judge::{Deviation, deviations};
use crate::baseline::{self, Baseline};
use crate::report::Report;

/// Newest runs that are looked at for one that can be held against a baseline.
const MOST_TRIED: usize = 200;

pub(super) fn routes() -> Router<Arc<Served>> {
    Router::new().route("/api/baselines/report", get(report)).route("/api/baselines/update", post(update))
}

/// A baseline and the newest run that can be held against it.
#[derive(Serialize)]
struct Beside {
    name: String,
    scenario: String,
    baseline_run_id: String,
    /// Null if no run can be held against it.
    run_id: Option<String>,
    started_at: Option<String>,
    deviations: Vec<Deviation>,
}

async fn report(State(served): State<Arc<Served>>) -> Result<Json<Value>, Response> {
    let looked = tokio::task::spawn_blocking(move || {
        let found = served.runs.look()?;
        let beside = |baseline: Baseline| {
            let scenario = baseline.report.scenario["name"].as_str().unwrap_or_default().to_owned();
            let own = found.runs.iter().filter(|run| run.scenario == scenario && run.id != baseline.report.run_id).take(MOST_TRIED);
            let newest = own.filter_map(|run| read(&served, &run.id)).find(|report| baseline.differences(report).is_empty());
            Beside {
                scenario,
                baseline_run_id: baseline.report.run_id.clone(),
                deviations: newest.as_ref().map(|newest| deviations(&baseline.report, newest)).unwrap_or_default(),
                started_at: newest.as_ref().map(|newest| newest.started_at.clone()),
                run_id: newest.map(|newest| newest.run_id),
                name: baseline.name,
            }
        };
        std::io::Result::Ok(baseline::all(&served.report_dir).into_iter().map(beside).collect::<Vec<_>>())
    });
    match looked.await {
        Ok(Ok(baselines)) => Ok(Json(json!({"baselines": baselines}))),
        Ok(Err(error)) => Err(failed("the report folder cannot be read", &error)),
        Err(error) => Err(failed("the report folder was not read", &error)),
    }
}

fn read(served: &Served, id: &str) -> Option<Report> {
    serde_json::from_slice(&served.runs.file(id, "report.json")?.1).ok()
}

/// `{"name": "quickstart", "run_id": "…"}`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Update {
    name: String,
    run_id: String,
}

async fn update(State(served): State<Arc<Served>>, body: Bytes) -> Result<Json<Value>, Response> {
    let Update { name, run_id } =
        serde_json::from_slice(&body).map_err(|error| refused(&format!("{{\"name\": …, \"run_id\": …}} is expected: {error}")))?;
    let named = name.clone();
    let saved = tokio::task::spawn_blocking(move || {
        let report = read(&served, &run_id);
        report.map(|report| baseline::save(&served.report_dir, &name, &report).map(|file| (file, report.run_id))).transpose()
    });
    match saved.await {
        Ok(Ok(Some((file, run_id)))) => {
            let file = file.file_name().map(|file| Path::new("baselines").join(file));
            Ok(Json(json!({"name": named, "run_id": run_id, "file": file})))
        }
        Ok(Ok(None)) => Err(absent("there is no such run with a report that can be read; /api/runs lists them")),
        Ok(Err(error)) => Err(refused(&format!("{error:#}"))),
        Err(error) => Err(failed("the baseline was not saved", &error)),
    }
}
