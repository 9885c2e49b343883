//! Two sides held against each other: from the reports of their runs to a verdict a figure. Plain arithmetic, no I/O; how the runs
//! come about is in [`crate::comparing`].
//!
//! Goal: noise is called noise, in at most one of twenty identical pairs anything else. Non-goal: which side is the right one.

pub(crate) mod figures;
pub(crate) mod gates;
pub(crate) mod judge;
#[cfg(test)]
mod known_truth;
pub mod simulate;
mod stats;
pub(crate) mod within;

use serde::{Deserialize, Serialize};

use crate::report::{Environment, GateResult, IntegrityVerdict, Verdict};

/// Version of the shape of `comparison.json`; it grows with every change that a reader could notice.
pub const SCHEMA_VERSION: u32 = 1;

/// The error that every statement here keeps: one in twenty.
pub(crate) const ALPHA: f64 = 0.05;

/// Everything a comparison found: `comparison.json` as it is.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Comparison {
    /// [`SCHEMA_VERSION`].
    pub schema_version: u32,
    /// Its id, also its folder's name.
    pub comparison_id: String,
    /// What was compared with what.
    pub kind: Kind,
    /// RFC 3339 start.
    pub started_at: String,
    /// How long it took.
    pub duration_seconds: f64,
    /// The command that repeats it, secrets redacted.
    pub reproduce: String,
    /// Where the first run took place.
    pub environment: Environment,
    /// Pairs asked for.
    pub pairs: usize,
    /// The order in which the sides ran, `before` or `after` a run.
    pub order: Vec<String>,
    /// A smaller difference than this share need not be found for "no difference shown".
    pub detect: f64,
    /// How the gates ended; pass without gates.
    pub verdict: Verdict,
    /// Integrity was violated: nothing here has speed.
    pub void: bool,
    /// Whether it was stopped from outside.
    pub interrupted: bool,
    /// Why not pass, in sentences.
    pub reasons: Vec<String>,
    /// Things worth knowing that changed no verdict.
    pub notes: Vec<String>,
    /// The first side.
    pub before: Side,
    /// The second side.
    pub after: Side,
    /// Each figure, in the order of the table.
    pub metrics: Vec<MetricComparison>,
    /// Each gate.
    pub gates: Vec<GateResult>,
}

/// What was compared with what.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Two sides, run in turns.
    Runs,
    /// One side against itself: what is found is noise.
    SameTwice,
    /// Two saved reports.
    Saved,
    /// Two saved reports of different circumstances, each related to its own machine's calibration.
    Calibrated,
}

/// One side.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Side {
    /// The scenario's name, with what was set for this side.
    pub name: String,
    /// Its runs, in order.
    pub runs: Vec<RunSeen>,
}

/// One run of a side.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RunSeen {
    /// Its folder below the comparison's.
    pub run_id: String,
    /// How it ended by its own gates.
    pub verdict: Verdict,
    /// Whether what was acknowledged is stored.
    pub integrity: IntegrityVerdict,
}

/// One figure of both sides.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct MetricComparison {
    /// Its name, as gates say it.
    pub metric: String,
    /// The unit of its values.
    pub unit: FigureUnit,
    /// Which way is better.
    pub better: Better,
    /// The first side.
    pub before: Values,
    /// The second side.
    pub after: Values,
    /// How `after` lies to `before`; null without data.
    pub change: Option<Change>,
    /// Mann–Whitney on the runs, exact.
    pub p_value: Option<f64>,
    /// Corrected for the number of questions asked at once.
    pub p_adjusted: Option<f64>,
    /// `holm` among the figures that carry a gate, `benjamini-hochberg` among the others.
    pub correction: String,
    /// The smallest change, as a share, that these pairs would have shown nine times in ten; null if none, however large.
    pub detectable: Option<f64>,
    /// What follows.
    pub verdict: Finding,
    /// Why it is too noisy, or without data.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// The values of one side.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Values {
    /// The median of the runs.
    pub median: Option<f64>,
    /// Of percentiles: that of all runs' histograms merged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub merged: Option<f64>,
    /// Each run's, null where it has none.
    pub runs: Vec<Option<f64>>,
}

/// How the second side lies to the first.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Change {
    /// What the numbers are.
    pub kind: ChangeKind,
    /// Hodges–Lehmann; of a single pair the plain one.
    pub estimate: f64,
    /// Lower end of the 95 % interval; null where there are too few runs for one.
    pub low: Option<f64>,
    /// Upper end of the 95 % interval.
    pub high: Option<f64>,
    /// Whether the interval speaks of the seconds within one pair of runs, and not of how runs differ.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub within_runs: bool,
}

/// What the numbers of a [`Change`] are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ChangeKind {
    /// After divided by before.
    Ratio,
    /// After less before, where a value is zero.
    Difference,
}

/// The unit of a figure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "the names are the documentation")]
pub enum FigureUnit {
    PerSecond,
    Milliseconds,
    Share,
    Seconds,
    Bytes,
}

/// Which way is better.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "the names are the documentation")]
pub enum Better {
    Higher,
    Lower,
    /// Neither: it only says how the sides work.
    Neither,
}

/// What follows for one figure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Finding {
    /// Shown to be better.
    Better,
    /// Shown to be worse.
    Worse,
    /// Shown to differ, where neither way is better.
    Different,
    /// A difference worth naming would have been shown, and none was.
    NoDifferenceShown,
    /// Not shown, but the noise would have hidden a difference worth naming.
    TooNoisyToSay,
    /// A side has no such figure.
    NoData,
    /// Integrity was violated.
    Void,
}

impl Finding {
    /// In words.
    #[must_use]
    pub fn words(self) -> &'static str {
        match self {
            Finding::Better => "better",
            Finding::Worse => "worse",
            Finding::Different => "different",
            Finding::NoDifferenceShown => "no difference shown",
            Finding::TooNoisyToSay => "too noisy to say",
            Finding::NoData => "no data",
            Finding::Void => "void",
        }
    }
}
