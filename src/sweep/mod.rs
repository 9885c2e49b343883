//! `batchsql sweep`: a scenario with every combination of some of its values, and the best of them that passes.
//!
//! Goal: every cell ran what it says, and only that differs from the others. Non-goal: a proof that the best is better than the
//! second; that is what `compare` is for.

pub(crate) mod command;
mod judge;
mod matrix;

use serde::{Deserialize, Serialize};

use crate::report::{Environment, IntegrityVerdict, Verdict};

/// Version of the shape of `sweep.json`; it grows with every change that a reader could notice.
pub const SCHEMA_VERSION: u32 = 1;

/// The files of a sweep, beside the folders of its runs.
pub const FILES: [&str; 3] = ["sweep.json", "sweep.md", "sweep.html"];

/// Everything a sweep found: `sweep.json` as it is.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Sweep {
    /// [`SCHEMA_VERSION`].
    pub schema_version: u32,
    /// Its id, also its folder's name: the same for the same scenario and the same values.
    pub sweep_id: String,
    /// The scenario's name.
    pub scenario: String,
    /// `rows` or `requests`.
    pub unit: String,
    /// What the order of the runs was drawn from.
    pub seed: u64,
    /// RFC 3339 start, of the call that finished it.
    pub started_at: String,
    /// How long that call took.
    pub duration_seconds: f64,
    /// The command that repeats or continues it, secrets redacted.
    pub reproduce: String,
    /// Where the last run took place.
    pub environment: Environment,
    /// What was varied.
    pub vary: Vec<Varied>,
    /// Runs asked for of each cell.
    pub repeat: u32,
    /// What the best is best in.
    pub objective: Objective,
    /// How it ended.
    pub outcome: Outcome,
    /// Every combination; the last key varies fastest.
    pub cells: Vec<Cell>,
    /// Which cell is the best that passes, from 0.
    pub best: Option<usize>,
    /// Runs of an earlier call that were taken as they are.
    pub kept_runs: usize,
    /// Why it is not whole, in sentences.
    pub reasons: Vec<String>,
    /// Things worth knowing.
    pub notes: Vec<String>,
}

/// A key and its values, as typed, secrets redacted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Varied {
    /// Its path in the scenario.
    pub key: String,
    /// What it is in turn.
    pub values: Vec<String>,
}

/// What the best cell is best in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Objective {
    /// The most acknowledged operations a second.
    Throughput,
    /// The shortest response p99: an arrival rate is given, and no cell can be faster than it.
    ResponseP99,
}

/// How a sweep ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// All ran, and there is a best cell.
    Found,
    /// No cell passes, and at least one missed a gate.
    NonePasses,
    /// No cell passes, and none missed a gate.
    Undecided,
    /// A run could not begin.
    Incomplete,
    /// Integrity was violated in a cell.
    Violated,
    /// Stopped from outside; the same command goes on.
    Interrupted,
}

/// How a cell's runs ended together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CellVerdict {
    /// Every run passed.
    Pass,
    /// A run missed a gate.
    Fail,
    /// A run could not be judged.
    Inconclusive,
    /// A run violated integrity.
    Void,
    /// A run is missing.
    Missing,
}

impl CellVerdict {
    /// In words.
    #[must_use]
    pub fn words(self) -> &'static str {
        match self {
            CellVerdict::Pass => "pass",
            CellVerdict::Fail => "gate missed",
            CellVerdict::Inconclusive => "inconclusive",
            CellVerdict::Void => "void",
            CellVerdict::Missing => "not run",
        }
    }
}

/// One combination.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Cell {
    /// The value of each key, in the order of the keys.
    pub values: Vec<String>,
    /// How its runs ended together.
    pub verdict: CellVerdict,
    /// Why it did not pass.
    pub reason: Option<String>,
    /// Acknowledged operations a second: the median of its runs; null where integrity does not hold.
    pub throughput_per_second: Option<f64>,
    /// The least of its runs.
    pub throughput_low: Option<f64>,
    /// The greatest of its runs.
    pub throughput_high: Option<f64>,
    /// Response time: the median of its runs.
    pub response_p50_ms: Option<f64>,
    /// Response time: the median of its runs.
    pub response_p99_ms: Option<f64>,
    /// Its runs.
    pub runs: Vec<RunSeen>,
}

/// One run of a cell.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunSeen {
    /// Its folder below the sweep's.
    pub run_id: String,
    /// How it ended.
    pub verdict: Verdict,
    /// Whether what was acknowledged is stored.
    pub integrity: IntegrityVerdict,
}
