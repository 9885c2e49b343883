//! `batchsql search`: the highest arrival rate at which the gates hold, as an interval, with the curve that leads there.
//!
//! Goal: a rate that is named was sustained, with every row proven, in steps that did not fall behind. Non-goal: the speed of a closed
//! loop, which is what `run` measures.

pub(crate) mod command;
mod judge;
pub(crate) mod trend;
mod walk;

use serde::{Deserialize, Serialize};

use crate::report::{Environment, IntegrityVerdict};

/// Version of the shape of `search.json`; it grows with every change that a reader could notice.
pub const SCHEMA_VERSION: u32 = 1;

/// The files of a search, beside the folders of its steps.
pub const FILES: [&str; 3] = ["search.json", "search.md", "search.html"];

/// Everything a search found: `search.json` as it is.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Search {
    /// [`SCHEMA_VERSION`].
    pub schema_version: u32,
    /// Its id, also its folder's name.
    pub search_id: String,
    /// The scenario's name.
    pub scenario: String,
    /// `rows` or `requests`: what the rates are of.
    pub unit: String,
    /// RFC 3339 start.
    pub started_at: String,
    /// How long it took.
    pub duration_seconds: f64,
    /// The command that repeats it, secrets redacted.
    pub reproduce: String,
    /// Where the first step took place.
    pub environment: Environment,
    /// The gates that must hold.
    pub gates: Vec<String>,
    /// The lowest rate looked at.
    pub from_per_second: f64,
    /// The highest rate looked at.
    pub to_per_second: f64,
    /// How close the ends of the interval had to come, as a share of the lower.
    pub precision: f64,
    /// Length of each step's phase `main`.
    pub step_seconds: f64,
    /// How it ended.
    pub outcome: Outcome,
    /// The highest rate shown to hold.
    pub held_per_second: Option<f64>,
    /// The lowest rate shown to fail.
    pub failed_per_second: Option<f64>,
    /// What kept it from an answer, in sentences.
    pub reasons: Vec<String>,
    /// Things worth knowing.
    pub notes: Vec<String>,
    /// Each rate, from low to high.
    pub curve: Vec<Point>,
    /// Each step, in the order they were run.
    pub steps: Vec<Step>,
}

/// How a search ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The limit lies between the two rates.
    Found,
    /// Even the highest rate holds.
    HoldsEverywhere,
    /// Not even the lowest rate holds.
    HoldsNowhere,
    /// The steps do not agree, or say nothing.
    Undecided,
    /// Integrity was violated: no rate counts.
    Void,
    /// Stopped from outside.
    Interrupted,
}

/// What a step, or a rate, showed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Shown {
    /// The gates hold, and nothing piles up.
    Held,
    /// A gate was missed, or the target fell behind.
    Failed,
    /// The load was not offered, there was no data, or the steps did not agree.
    Undecided,
    /// Integrity was violated.
    Void,
}

impl Shown {
    /// In words.
    #[must_use]
    pub fn words(self) -> &'static str {
        match self {
            Shown::Held => "held",
            Shown::Failed => "failed",
            Shown::Undecided => "undecided",
            Shown::Void => "void",
        }
    }
}

/// One rate: the medians of its steps.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Point {
    /// Operations asked for a second.
    pub rate_per_second: f64,
    /// How its steps ended together.
    pub shown: Shown,
    /// How many of its steps held.
    pub held: usize,
    /// How many steps it had.
    pub steps: usize,
    /// Acknowledged operations a second.
    pub throughput_per_second: Option<f64>,
    /// Response time.
    pub response_p50_ms: Option<f64>,
    /// Response time.
    pub response_p99_ms: Option<f64>,
    /// Operations dropped a second.
    pub dropped_per_second: Option<f64>,
}

/// One step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Step {
    /// Operations asked for a second.
    pub rate_per_second: f64,
    /// Its folder below the search's.
    pub run_id: String,
    /// How it ended.
    pub shown: Shown,
    /// Why it did not hold.
    pub reason: Option<String>,
    /// Whether what was acknowledged is stored.
    pub integrity: IntegrityVerdict,
    /// Acknowledged operations a second.
    pub throughput_per_second: Option<f64>,
    /// Response time.
    pub response_p50_ms: Option<f64>,
    /// Response time.
    pub response_p99_ms: Option<f64>,
    /// Operations dropped a second.
    pub dropped_per_second: f64,
    /// Operations a second by which what was due and not answered grew (Theil–Sen).
    pub backlog_growth_per_second: Option<f64>,
    /// By how much a second the seconds' median response time grew (Theil–Sen).
    pub response_growth_ms_per_second: Option<f64>,
}
