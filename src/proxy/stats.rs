//! What the gateway counts: nothing yet.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::seen::Seen;
use crate::scenario::units::Time;

/// What is counted and shown.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// Whether anything is counted.
    pub enabled: bool,
    /// How often the window of `/api/metrics/` begins anew.
    pub reset_interval: Time,
}

impl Default for Settings {
    fn default() -> Self {
        Self { enabled: true, reset_interval: Time::secs(3600) }
    }
}

/// What the gateway counted.
#[derive(Clone, Debug)]
pub struct Stats;

impl Stats {
    /// Counts nothing.
    #[must_use]
    pub fn new(_: Settings) -> Self {
        Self
    }

    /// A request has ended.
    pub fn record(&self, _: &Seen) {}

    /// The database was asked.
    pub fn database_query(&self, _: Duration) {}
}

/// What is shown of it.
pub fn routes(_: Stats) -> axum::Router {
    axum::Router::new()
}
