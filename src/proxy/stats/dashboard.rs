//! The dashboard: one page with nothing from elsewhere, kept current by its own script from `/stats`.

use std::fmt::Write as _;

use axum::extract::State;
use axum::http::HeaderName;
use axum::http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE};
use axum::response::IntoResponse;

use super::{Answer, Group, Stats};
use crate::http::served::escaped;

const PAGE: &str = include_str!("dashboard.html");

/// Nothing but what is in the page runs, and it talks to nobody but this server.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'; img-src data:; \
                      base-uri 'none'; form-action 'none'";

pub(super) async fn page(State(stats): State<Stats>) -> impl IntoResponse {
    let headers: [(HeaderName, &str); 3] =
        [(CONTENT_TYPE, "text/html; charset=utf-8"), (CONTENT_SECURITY_POLICY, POLICY), (CACHE_CONTROL, "no-store")];
    (headers, PAGE.replace("<!-- without script -->", &without_script(&stats.answer().await)))
}

/// The figures for a browser that runs no script.
fn without_script(answer: &Answer) -> String {
    let mut html = String::new();
    let summary = &answer.summary;
    let known = |value: Option<f64>, unit: &str| value.map_or("–".to_owned(), |value| format!("{value:.2} {unit}"));
    // Writing to a string cannot fail.
    let _ = write!(
        html,
        "<p>Source: {}{}</p><p>{} requests, {} errors, success {}; P50 {}, P95 {}, P99 {}.</p>",
        answer.source,
        answer.reason.as_ref().map_or(String::new(), |reason| format!(" ({})", escaped(reason))),
        summary.totals.requests,
        summary.totals.errors,
        known(summary.totals.success_rate, "%"),
        known(summary.latency.p50_ms, "ms"),
        known(summary.latency.p95_ms, "ms"),
        known(summary.latency.p99_ms, "ms"),
    );
    for (title, groups) in [("Channels", &summary.channels), ("Users", &summary.users), ("Models", &summary.models)] {
        let rows: String = groups.iter().map(row).collect();
        let _ = write!(html, "<h2>{title}</h2><table><tr><th>Name<th>Requests<th>Errors</tr>{rows}</table>");
    }
    html
}

fn row(group: &Group) -> String {
    format!("<tr><td>{}<td>{}<td>{}</tr>", escaped(&group.name), group.totals.requests, group.totals.errors)
}
