//! Conditions a run must meet: the one-line grammar, and judging it on what was measured.

use std::borrow::Cow;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use crate::report::{GateResult, Integrity, Latencies, Outcomes};

/// One condition of a scenario. In a file either the condition alone (`- integrity.lost == 0`) or a mapping
/// (`- {gate: "response.p99 < 50ms", window: 10s}`).
#[derive(Clone, Debug, PartialEq)]
pub struct Gate {
    /// The condition as written.
    pub text: String,
    // parsed: metric, comparison, limit; phase; window; abort; for
}

/// What was measured over some stretch of a run: a phase, or one window of it.
#[derive(Clone, Debug, Default)]
pub struct Sample {
    /// From the run's first intended start.
    pub start: Duration,
    /// Its length (of phase `main`: to the last acknowledgement, drain included).
    pub length: Duration,
    /// Operations whose intended start lies in it.
    pub outcomes: Outcomes,
    /// Rate asked for by the schedule, where it is one of arrivals.
    pub asked_rate: Option<f64>,
    /// Their latencies.
    pub latency: Latencies,
}

/// All that gates can ask about.
pub struct Evidence<'a> {
    /// The phase of that name, if the run had it.
    pub phase: &'a dyn Fn(&str) -> Option<Sample>,
    /// The whole windows of that length, by intended start, inside the phase.
    pub windows: &'a dyn Fn(&str, Duration) -> Vec<Sample>,
    /// What was found stored, once verified.
    pub integrity: Option<&'a Integrity>,
}

impl Serialize for Gate {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text)
    }
}

impl<'de> Deserialize<'de> for Gate {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self { text: String::deserialize(deserializer)? })
    }
}

impl JsonSchema for Gate {
    fn schema_name() -> Cow<'static, str> {
        "Gate".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string" })
    }
}

/// Judges one gate.
#[must_use]
pub fn judge(gate: &Gate, evidence: &Evidence<'_>) -> GateResult {
    let _ = (gate, evidence);
    unimplemented!("gate grammar")
}
