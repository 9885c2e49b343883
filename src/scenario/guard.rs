//! `guard`: when the load leaves a target in trouble alone.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::units::{Share, Time};

/// Holds or stops the load while the target is in trouble: while any of its conditions is met.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Guard {
    /// Share of the operations answered in the last `window` that failed (rejected or unknown): trouble once it is reached.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error_rate: Option<Share>,
    /// p99 of the response times of the last `window`: trouble once it is reached, or once nothing is answered for so long.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub p99: Option<Time>,
    /// What a Prometheus server says of the target.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub up: Option<Up>,
    /// How far `error_rate` and `p99` look back.
    pub window: Time,
    /// What is done about trouble.
    pub action: Action,
    /// How long the load is held before it goes on and is judged anew.
    pub cooldown: Time,
    /// Most holds; trouble after the last one stops the load.
    #[schemars(range(min = 1, max = 1000))]
    pub max_holds: u32,
}

impl Default for Guard {
    fn default() -> Self {
        Self { error_rate: None, p99: None, up: None, window: Time::secs(5), action: Action::Hold, cooldown: Time::secs(10), max_holds: 10 }
    }
}

/// A series that is 0 while the target is down.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Up {
    /// URL of the Prometheus server; a password belongs into `${ENV}`.
    pub prometheus: String,
    /// What it is asked, e.g. `up{job="postgres"}`.
    pub query: String,
    /// How long the answer (of several series, the least) must be 0 without a break to be trouble.
    #[serde(rename = "for")]
    pub lasts: Time,
}

/// What is done about trouble.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// Nothing is offered for the cooldown.
    #[default]
    Hold,
    /// The load ends.
    Stop,
}
