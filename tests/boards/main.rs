//! The shipped boards: what their source says, what Grafana's schema takes, and every query answered by a real Prometheus (and a
//! VictoriaMetrics behind it) that scraped real runs, with the configuration that is shipped.
#![allow(clippy::unwrap_used)]

mod board;
#[path = "../common/mod.rs"]
mod common;
mod import;
mod monitoring;
#[allow(dead_code, reason = "the tests of the program, whose it is, need more of it")]
#[path = "../program/place.rs"]
mod place;
mod queries;
mod runs;
mod schema;
mod yaml;
