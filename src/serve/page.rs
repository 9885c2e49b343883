//! The last runs as a page, without script.

use std::fmt::Write as _;
use std::sync::Arc;

use axum::extract::State;
use axum::http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS};
use axum::response::{IntoResponse, Response};

use super::{Found, Run, Served, USUAL_LIMIT, look};
use crate::http::served::escaped;

const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
const HEAD: &str = "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\">\
    <title>batchsql: last runs</title><style>\
    body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:75rem;padding:0 1rem;color-scheme:light dark}\
    table{border-collapse:collapse;width:100%}th,td{text-align:left;padding:.3rem .6rem;border-bottom:1px solid #8884}\
    .number{text-align:right}.pass,.holds{color:#18794e}.fail,.violated{color:#cd2b31;font-weight:bold}.inconclusive{color:#ad5700}\
    </style><h1>Last runs</h1>";

pub(super) async fn index(State(served): State<Arc<Served>>) -> Result<Response, Response> {
    let found = look(&served).await?;
    let headers = [
        (CONTENT_TYPE, "text/html; charset=utf-8"),
        (CONTENT_SECURITY_POLICY, POLICY),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (CACHE_CONTROL, "no-store"),
    ];
    Ok((headers, page(&found)).into_response())
}

fn page(found: &Found) -> String {
    let mut html = HEAD.to_owned();
    // Writing to a string cannot fail.
    let _ = write!(html, "<p>{} runs", found.runs.len());
    if found.skipped > 0 {
        let _ = write!(html, "; {} folders hold no report that can be read", found.skipped);
    }
    html += ". <a href=\"/api/alerts/recent\">alerts</a> · <a href=\"/metrics\">metrics</a> · <a href=\"/health\">health</a></p>";
    html += "<table><tr><th>Started<th>Scenario<th>Verdict<th>Integrity<th class=number>Throughput<th class=number>p99<th>Report</tr>";
    html.extend(found.runs.iter().take(USUAL_LIMIT).map(|run| row(run)));
    html += "</table></html>\n";
    html
}

fn row(run: &Run) -> String {
    let speed = match run.throughput.per_second() {
        Some(rate) if run.throughput_valid => format!("{rate:.0} {}/s", run.throughput.unit()),
        Some(_) => "void".to_owned(),
        None => "–".to_owned(),
    };
    let p99 = run.response_p99_ms.map_or("–".to_owned(), |ms| format!("{ms:.2} ms"));
    let (verdict, integrity) = (word(&run.verdict), word(&run.integrity));
    let links: String = run.files.iter().map(|file| format!("<a href=\"/api/runs/{0}/{file}\">{file}</a> ", escaped(&run.id))).collect();
    format!(
        "<tr><td>{}<td>{} ({})<td class={verdict}>{verdict}<td class={integrity}>{integrity}<td class=number>{speed}<td class=number>{p99}<td>{links}</tr>",
        escaped(&run.started_at),
        escaped(&run.scenario),
        escaped(&run.database),
    )
}

/// As it is called in reports.
fn word(verdict: &impl serde::Serialize) -> String {
    serde_json::to_value(verdict).ok().and_then(|value| value.as_str().map(str::to_owned)).unwrap_or_default()
}
