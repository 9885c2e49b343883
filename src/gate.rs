//! Conditions a run must meet: the one-line grammar `metric op limit`, and how a scenario writes it. Judging is in [`judge`].
//!
//! Goal: a gate that was accepted can be judged from what every run measures. Non-goal: arithmetic between metrics.

mod against;
mod judge;

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize, de::Error as _};

use crate::scenario::units::Time;
pub use against::Shown;
pub use judge::{Evidence, Sample, implicit, judge};

/// One condition of a scenario. In a file either the condition alone (`- integrity.lost == 0`) or a mapping
/// (`- {gate: "response.p99 < 50ms", window: 10s}`).
#[derive(Clone, Debug, PartialEq)]
pub struct Gate {
    /// The condition as written.
    pub text: String,
    /// What is looked at.
    pub metric: Metric,
    /// How it is compared.
    pub op: Op,
    /// What it is compared with, in `unit`.
    pub limit: f64,
    /// The unit of `limit`, and of what reports show beside it.
    pub unit: Unit,
    /// The phase it is judged over.
    pub phase: Phase,
    /// Judged in every whole window of this length instead of over the phase as a whole; whole seconds.
    pub window: Option<Duration>,
    /// Stops the load once the condition was missed for this long; whole seconds.
    pub abort_after: Option<Duration>,
    /// Whether `limit` is a factor of a comparison's first side (`before * 1.10`).
    pub relative: bool,
    /// Whether `limit` is a factor of a saved baseline (`baseline * 1.10`), and what must be shown.
    pub baseline: Option<Shown>,
}

/// How long a gate with `abort: true` must be missed when it does not say `for`.
pub const ABORT_AFTER: Duration = Duration::from_secs(5);

/// What a gate looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the words of the design and of report.json")]
pub enum Metric {
    Integrity(Finding),
    Latency(Clock, Point),
    RowsPerSecond,
    RequestsPerSecond,
    ErrorRate,
    Offered,
    OfferedRate,
    Attempted,
    Acknowledged,
    Rejected,
    Unknown,
    Dropped,
    CpuSecondsPerOperation,
    MemoryBytesMax,
    DatabaseWritesPerSecond,
    WalBytes,
}

/// A field of `integrity` in `report.json`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the words of integrity in report.json")]
pub enum Finding {
    Lost,
    Duplicated,
    Corrupted,
    Phantom,
    Resurrected,
    Stale,
    Recovered,
    PartialBatches,
    Rate,
    Checked,
}

/// Which latency.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the words of the design")]
pub enum Clock {
    Response,
    Service,
    Lag,
    TimeToFirstByte,
    TimeToFirstToken,
    InterToken,
    LongestStall,
    Server,
    Network,
    Overhead,
}

impl Clock {
    /// Whether only requests have it.
    #[must_use]
    pub fn is_of_requests(self) -> bool {
        !matches!(self, Clock::Response | Clock::Service | Clock::Lag)
    }
}

/// Which point of a distribution.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the words of report.json")]
pub enum Point {
    Mean,
    P50,
    P75,
    P90,
    P95,
    P99,
    P999,
    Max,
}

const FINDINGS: [(&str, Finding); 10] = [
    ("lost", Finding::Lost),
    ("duplicated", Finding::Duplicated),
    ("corrupted", Finding::Corrupted),
    ("phantom", Finding::Phantom),
    ("resurrected", Finding::Resurrected),
    ("stale", Finding::Stale),
    ("recovered", Finding::Recovered),
    ("partial_batches", Finding::PartialBatches),
    ("rate", Finding::Rate),
    ("checked", Finding::Checked),
];
const CLOCKS: [(&str, Clock); 10] = [
    ("response", Clock::Response),
    ("service", Clock::Service),
    ("lag", Clock::Lag),
    ("time_to_first_byte", Clock::TimeToFirstByte),
    ("time_to_first_token", Clock::TimeToFirstToken),
    ("inter_token", Clock::InterToken),
    ("longest_stall", Clock::LongestStall),
    ("server", Clock::Server),
    ("network", Clock::Network),
    ("overhead", Clock::Overhead),
];
const POINTS: [(&str, Point); 8] = [
    ("mean", Point::Mean),
    ("p50", Point::P50),
    ("p75", Point::P75),
    ("p90", Point::P90),
    ("p95", Point::P95),
    ("p99", Point::P99),
    ("p999", Point::P999),
    ("max", Point::Max),
];
const COUNTS: [(&str, Metric); 14] = [
    ("rows_per_second", Metric::RowsPerSecond),
    ("requests_per_second", Metric::RequestsPerSecond),
    ("error_rate", Metric::ErrorRate),
    ("offered", Metric::Offered),
    ("offered_rate", Metric::OfferedRate),
    ("attempted", Metric::Attempted),
    ("acknowledged", Metric::Acknowledged),
    ("rejected", Metric::Rejected),
    ("unknown", Metric::Unknown),
    ("dropped", Metric::Dropped),
    ("cpu_seconds_per_operation", Metric::CpuSecondsPerOperation),
    ("memory_bytes_max", Metric::MemoryBytesMax),
    ("database_writes_per_second", Metric::DatabaseWritesPerSecond),
    ("wal_bytes", Metric::WalBytes),
];
const OPS: [(&str, Op); 6] =
    [("<=", Op::AtMost), (">=", Op::AtLeast), ("==", Op::Equal), ("!=", Op::NotEqual), ("<", Op::Below), (">", Op::Above)];
const UNITS: [(&str, Unit); 8] = [
    ("%", Unit::Percent),
    ("ns", Unit::Nanos),
    ("us", Unit::Micros),
    ("µs", Unit::Micros),
    ("ms", Unit::Millis),
    ("s", Unit::Seconds),
    ("m", Unit::Minutes),
    ("", Unit::None),
];
const PHASES: [(&str, Phase); 2] = [("warmup", Phase::Warmup), ("main", Phase::Main)];

fn name_in<T: PartialEq + Copy>(table: &[(&'static str, T)], wanted: T) -> &'static str {
    table.iter().find(|(_, value)| *value == wanted).map_or("", |(name, _)| name)
}

fn value_in<T: Copy>(table: &[(&'static str, T)], wanted: &str) -> Option<T> {
    table.iter().find(|(name, _)| *name == wanted).map(|(_, value)| *value)
}

/// How a metric is compared with its limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// `<`
    Below,
    /// `<=`
    AtMost,
    /// `>`
    Above,
    /// `>=`
    AtLeast,
    /// `==`
    Equal,
    /// `!=`
    NotEqual,
}

/// The unit of a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are the documentation")]
pub enum Unit {
    None,
    Percent,
    Nanos,
    Micros,
    Millis,
    Seconds,
    Minutes,
}

/// The phase a gate is judged over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "the words of the design")]
pub enum Phase {
    Warmup,
    #[default]
    Main,
}

impl Phase {
    /// Its name in reports.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        name_in(&PHASES, self)
    }
}

impl Op {
    /// Whether `actual op limit` holds.
    #[must_use]
    pub fn holds(self, actual: f64, limit: f64) -> bool {
        match self {
            Op::Below => actual < limit,
            Op::AtMost => actual <= limit,
            Op::Above => actual > limit,
            Op::AtLeast => actual >= limit,
            Op::Equal => actual == limit,
            Op::NotEqual => actual != limit,
        }
    }
}

impl Unit {
    /// What one of it is in the unit that metrics are measured in (milliseconds, shares, numbers), as a fraction: the
    /// numerator and denominator are exact, so that 50 ms stay 50 ms.
    fn ratio(self) -> (f64, f64) {
        match self {
            Unit::None | Unit::Millis => (1.0, 1.0),
            Unit::Percent => (1.0, 100.0),
            Unit::Nanos => (1.0, 1_000_000.0),
            Unit::Micros => (1.0, 1_000.0),
            Unit::Seconds => (1_000.0, 1.0),
            Unit::Minutes => (60_000.0, 1.0),
        }
    }

    /// `measured` (milliseconds, a share, a number) in this unit.
    #[must_use]
    pub fn of(self, measured: f64) -> f64 {
        let (numerator, denominator) = self.ratio();
        measured * denominator / numerator
    }
}

impl fmt::Display for Metric {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Metric::Integrity(finding) => write!(f, "integrity.{}", name_in(&FINDINGS, finding)),
            Metric::Latency(clock, point) => write!(f, "{}.{}", name_in(&CLOCKS, clock), name_in(&POINTS, point)),
            other => f.write_str(name_in(&COUNTS, other)),
        }
    }
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(name_in(&OPS, *self))
    }
}

impl fmt::Display for Unit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(name_in(&UNITS, *self))
    }
}

impl FromStr for Metric {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = match text.split_once('.') {
            Some(("integrity", field)) => value_in(&FINDINGS, field).map(Metric::Integrity),
            Some((clock, point)) => value_in(&CLOCKS, clock).zip(value_in(&POINTS, point)).map(|(c, p)| Metric::Latency(c, p)),
            None => value_in(&COUNTS, text),
        };
        found.ok_or_else(|| {
            let names = Metric::names();
            let near = crate::scenario::nearest(text, names.iter().map(String::as_str))
                .map_or(String::new(), |n| format!("; did you mean `{n}`?"));
            format!("unknown metric `{text}`{near} (known: {})", Metric::families())
        })
    }
}

impl Metric {
    /// Every metric's name.
    #[must_use]
    pub fn names() -> Vec<String> {
        let findings = FINDINGS.iter().map(|(_, f)| Metric::Integrity(*f));
        let latencies = CLOCKS.iter().flat_map(|(_, c)| POINTS.iter().map(|(_, p)| Metric::Latency(*c, *p)));
        findings.chain(latencies).chain(COUNTS.iter().map(|(_, m)| *m)).map(|m| m.to_string()).collect()
    }

    fn families() -> String {
        let list = |names: Vec<&str>| names.join(",");
        format!(
            "integrity.{{{}}}, {{{}}}.{{{}}}, {}",
            list(FINDINGS.iter().map(|(n, _)| *n).collect()),
            list(CLOCKS.iter().map(|(n, _)| *n).collect()),
            list(POINTS.iter().map(|(n, _)| *n).collect()),
            COUNTS.iter().map(|(n, _)| *n).collect::<Vec<_>>().join(", ")
        )
    }

    /// Whether only `batchsql compare` knows it.
    fn is_of_comparisons(self) -> bool {
        matches!(self, Metric::CpuSecondsPerOperation | Metric::MemoryBytesMax | Metric::DatabaseWritesPerSecond | Metric::WalBytes)
    }

    /// Says what is wrong with `unit` for this metric, if anything.
    fn unit_problem(self, unit: Unit) -> Option<&'static str> {
        match (self, unit) {
            (metric, _) if metric.is_of_comparisons() => Some("is known to comparisons: write e.g. `<= before * 1.10` in compare --gate"),
            (Metric::Latency(..), Unit::None | Unit::Percent) => Some("needs a duration with its unit, e.g. 50ms"),
            (Metric::Latency(..), _) | (_, Unit::None) => None,
            (Metric::ErrorRate | Metric::Integrity(Finding::Rate), Unit::Percent) => None,
            (Metric::ErrorRate | Metric::Integrity(Finding::Rate), _) => Some("is a share: write e.g. 0.1% or 0.001"),
            _ => Some("is a plain number without a unit"),
        }
    }
}

impl FromStr for Gate {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        const SHAPE: &str = "write `metric op limit`, e.g. `response.p99 < 50ms`";
        let text = text.trim();
        let at = text.find(['<', '>', '=', '!']).ok_or_else(|| format!("`{text}` has no comparison; {SHAPE}"))?;
        let (metric, rest) = text.split_at(at);
        let (sign, op) = OPS
            .into_iter()
            .find(|(sign, _)| rest.starts_with(sign))
            .ok_or_else(|| format!("`{text}`: the comparison is one of <, <=, >, >=, == and !="))?;
        let limit = rest[sign.len()..].trim();
        if let Some(factor) = limit.strip_prefix("baseline") {
            return against::read(text, metric.trim(), op, factor);
        }
        let metric: Metric = metric.trim().parse()?;
        if let Some(factor) = limit.strip_prefix("before") {
            let limit =
                factor_of(factor).ok_or_else(|| format!("`{text}`: `{limit}` is no limit; write `before` or e.g. `before * 1.10`"))?;
            let (text, unit, phase) = (text.to_owned(), Unit::None, Phase::Main);
            return Ok(Self { text, metric, op, limit, unit, phase, window: None, abort_after: None, relative: true, baseline: None });
        }
        let end = limit.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(limit.len());
        let (digits, suffix) = limit.split_at(end);
        let number = digits.parse::<f64>().ok().filter(|n| n.is_finite());
        let number = number.ok_or_else(|| format!("`{text}`: `{limit}` is no limit; {SHAPE}, a number of 0 or more"))?;
        let unit = value_in(&UNITS, suffix.trim())
            .ok_or_else(|| format!("`{text}`: unknown unit `{}`; write %, ns, us, ms, s or m", suffix.trim()))?;
        if let Some(problem) = metric.unit_problem(unit) {
            return Err(format!("`{text}`: {metric} {problem}"));
        }
        Ok(Self {
            text: text.to_owned(),
            metric,
            op,
            limit: number,
            unit,
            phase: Phase::Main,
            window: None,
            abort_after: None,
            relative: false,
            baseline: None,
        })
    }
}

/// What stands behind `before`: nothing, or `* factor`.
fn factor_of(text: &str) -> Option<f64> {
    let text = text.trim();
    if text.is_empty() {
        return Some(1.0);
    }
    text.strip_prefix('*')?.trim().parse().ok().filter(|factor: &f64| factor.is_finite() && *factor > 0.0)
}

/// The mapping form.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Form {
    gate: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    phase: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    window: Option<Time>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    abort: bool,
    #[serde(default, rename = "for", skip_serializing_if = "Option::is_none")]
    hold: Option<Time>,
}

impl Form {
    fn read(self) -> Result<Gate, String> {
        let mut gate: Gate = self.gate.parse()?;
        if let Some(phase) = &self.phase {
            gate.phase = value_in(&PHASES, phase).ok_or_else(|| format!("phase `{phase}` has no gates; write warmup or main"))?;
        }
        if matches!(gate.metric, Metric::Integrity(_)) && (self.phase.is_some() || self.window.is_some() || self.abort) {
            return Err(format!("{} is known for the whole run, after it; remove phase, window and abort", gate.metric));
        }
        if matches!(gate.metric, Metric::Latency(clock, _) if clock.is_of_requests())
            && (self.phase.is_some() || self.window.is_some() || self.abort)
        {
            return Err(format!("{} is known for phase main as a whole, after it; remove phase, window and abort", gate.metric));
        }
        if self.hold.is_some() && !self.abort {
            return Err("`for` says how long a gate must be missed before it aborts; add `abort: true` or remove it".to_owned());
        }
        if gate.baseline.is_some() && (self.phase.is_some() || self.window.is_some() || self.abort) {
            return Err("a baseline is held against phase main as a whole, after it; remove phase, window and abort".to_owned());
        }
        gate.window = self.window.map(|w| whole_seconds(w, "window")).transpose()?;
        let hold = self.hold.map(|h| whole_seconds(h, "for")).transpose()?;
        gate.abort_after = self.abort.then(|| hold.unwrap_or(ABORT_AFTER));
        Ok(gate)
    }
}

/// Windows are cut out of the run's seconds.
fn whole_seconds(time: Time, key: &str) -> Result<Duration, String> {
    if time.0.subsec_nanos() == 0 && (1..=86_400).contains(&time.0.as_secs()) {
        return Ok(time.0);
    }
    Err(format!("{key} is {}; write whole seconds, from 1s to 1day", humantime::format_duration(time.0)))
}

impl Serialize for Gate {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.phase == Phase::Main && self.window.is_none() && self.abort_after.is_none() {
            return serializer.serialize_str(&self.text);
        }
        let form = Form {
            gate: self.text.clone(),
            phase: (self.phase != Phase::Main).then(|| self.phase.as_str().to_owned()),
            window: self.window.map(Time),
            abort: self.abort_after.is_some(),
            hold: self.abort_after.map(Time),
        };
        form.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Gate {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Written {
            Line(String),
            Mapping(Form),
        }
        match Written::deserialize(deserializer)? {
            Written::Line(text) => text.parse(),
            Written::Mapping(form) => form.read(),
        }
        .map_err(D::Error::custom)
    }
}

impl JsonSchema for Gate {
    fn schema_name() -> Cow<'static, str> {
        "Gate".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let line = json_schema!({
            "type": "string",
            "pattern": r"^\s*([a-z0-9_.]+|(upper95|lower95)\(\s*[a-z0-9_.]+\s*\))\s*(<=|>=|==|!=|<|>)\s*([0-9.]+\s*(%|ns|us|µs|ms|s|m)?|baseline(\s*\*\s*[0-9.]+)?)\s*$",
            "description": format!("`metric op limit`, e.g. `response.p99 < 50ms`; metrics: {}", Metric::families())
        });
        let time = generator.subschema_for::<Time>();
        json_schema!({
            "description": "A condition the run must meet: the condition alone, or a mapping with phase, window or abort.",
            "anyOf": [line, {
                "type": "object", "additionalProperties": false, "required": ["gate"],
                "properties": {
                    "gate": line,
                    "phase": { "enum": ["warmup", "main"], "default": "main", "description": "The phase it is judged over." },
                    "window": { "allOf": [time], "description": "Judged in every whole window of this many seconds." },
                    "abort": { "type": "boolean", "default": false, "description": "Stops the load once missed for `for`." },
                    "for": { "allOf": [time], "default": "5s", "description": "How long it must be missed before it aborts." }
                }
            }]
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proptest::sample::select;
    use serde_json::json;

    use super::*;

    #[test]
    fn a_line_is_metric_comparison_and_limit() {
        let gate: Gate = " response.p99<50ms ".parse().unwrap();
        assert_eq!(
            (gate.metric, gate.op, gate.limit, gate.unit),
            (Metric::Latency(Clock::Response, Point::P99), Op::Below, 50.0, Unit::Millis)
        );
        assert_eq!(gate.text, "response.p99<50ms");
        let gate: Gate = "error_rate <= 0.1 %".parse().unwrap();
        assert_eq!((gate.metric, gate.op, gate.limit, gate.unit), (Metric::ErrorRate, Op::AtMost, 0.1, Unit::Percent));
        assert_eq!(Metric::names().len(), 10 + 10 * 8 + 14);
        let gate: Gate = "wal_bytes<=before*1.10".parse().unwrap();
        assert_eq!((gate.metric, gate.op, gate.limit, gate.relative), (Metric::WalBytes, Op::AtMost, 1.1, true));
        assert_eq!("response.p99 <= before".parse::<Gate>().map(|gate| gate.limit), Ok(1.0));
    }

    #[test]
    fn a_wrong_line_says_what_to_write() {
        let error = |text: &str| text.parse::<Gate>().unwrap_err();
        assert_eq!(error("response.p99"), "`response.p99` has no comparison; write `metric op limit`, e.g. `response.p99 < 50ms`");
        assert_eq!(error("response.p99 < 50"), "`response.p99 < 50`: response.p99 needs a duration with its unit, e.g. 50ms");
        assert_eq!(error("error_rate < 1s"), "`error_rate < 1s`: error_rate is a share: write e.g. 0.1% or 0.001");
        assert_eq!(error("dropped == 0%"), "`dropped == 0%`: dropped is a plain number without a unit");
        assert_eq!(error("response.p99 < 5 parsecs"), "`response.p99 < 5 parsecs`: unknown unit `parsecs`; write %, ns, us, ms, s or m");
        assert_eq!(error("dropped = 0"), "`dropped = 0`: the comparison is one of <, <=, >, >=, == and !=");
        assert_eq!(
            error("wal_bytes < 5"),
            "`wal_bytes < 5`: wal_bytes is known to comparisons: write e.g. `<= before * 1.10` in compare --gate"
        );
        assert_eq!(
            error("response.p99 <= before + 5"),
            "`response.p99 <= before + 5`: `before + 5` is no limit; write `before` or e.g. `before * 1.10`"
        );
        assert!(error("dropped == -1").contains("`-1` is no limit"));
        assert!(error("dropped == 1.2.3").contains("`1.2.3` is no limit"));
        assert!(
            error("respons.p99 < 5ms").starts_with("unknown metric `respons.p99`; did you mean `response.p99`? (known: integrity.{lost,")
        );
    }

    #[test]
    fn the_mapping_form_is_read_and_written_back() {
        let value = json!({"gate": "response.p99 < 50ms", "phase": "warmup", "window": "10s", "abort": true, "for": "3s"});
        let gate: Gate = serde_json::from_value(value.clone()).unwrap();
        assert_eq!(gate.phase, Phase::Warmup);
        assert_eq!((gate.window, gate.abort_after), (Some(Duration::from_secs(10)), Some(Duration::from_secs(3))));
        assert_eq!(serde_json::to_value(&gate).unwrap(), value);
        let gate: Gate = serde_json::from_value(json!({"gate": "dropped == 0", "abort": true})).unwrap();
        assert_eq!(gate.abort_after, Some(ABORT_AFTER));
        let error = |value: serde_json::Value| serde_json::from_value::<Gate>(value).unwrap_err().to_string();
        assert_eq!(error(json!({"gate": "dropped == 0", "window": "1500ms"})), "window is 1s 500ms; write whole seconds, from 1s to 1day");
        assert_eq!(
            error(json!({"gate": "integrity.lost == 0", "window": "10s"})),
            "integrity.lost is known for the whole run, after it; remove phase, window and abort"
        );
        assert!(error(json!({"gate": "dropped == 0", "for": "5s"})).starts_with("`for` says how long"));
    }

    #[test]
    fn the_plain_form_is_written_as_a_line() {
        for value in [
            json!("response.p99 < 50ms"),
            json!({"gate": "response.p99 < 50ms", "phase": "warmup"}),
            json!({"gate": "response.p99 < 50ms", "window": "10s"}),
            json!({"gate": "dropped == 0", "abort": true, "for": "5s"}),
        ] {
            let gate: Gate = serde_json::from_value(value.clone()).unwrap();
            assert_eq!(serde_json::to_value(&gate).unwrap(), value);
        }
    }

    #[test]
    fn what_is_known_only_of_a_whole_phase_takes_no_phase_window_or_abort() {
        for gate in ["integrity.lost == 0", "server.p99 < 5ms", "response.p99 < baseline"] {
            for (key, given) in [("phase", json!("main")), ("window", json!("10s")), ("abort", json!(true))] {
                let told = serde_json::from_value::<Gate>(json!({"gate": gate, key: given})).unwrap_err().to_string();
                assert!(told.ends_with("remove phase, window and abort"), "{gate}, {key}: {told}");
            }
        }
        let windowed = |gate: &str| serde_json::from_value::<Gate>(json!({"gate": gate, "window": "10s"}));
        for gate in ["response.p99 < 5ms", "service.p99 < 5ms", "lag.p99 < 5ms"] {
            assert_eq!(windowed(gate).unwrap().window, Some(Duration::from_secs(10)), "{gate}");
        }
    }

    #[test]
    fn comparisons_are_exact_at_the_limit() {
        let held = |op: Op| [0.9, 1.0, 1.1].map(|actual| op.holds(actual, 1.0));
        assert_eq!(held(Op::Below), [true, false, false]);
        assert_eq!(held(Op::AtMost), [true, true, false]);
        assert_eq!(held(Op::Above), [false, false, true]);
        assert_eq!(held(Op::AtLeast), [false, true, true]);
        assert_eq!(held(Op::Equal), [false, true, false]);
        assert_eq!(held(Op::NotEqual), [true, false, true]);
    }

    #[test]
    fn a_factor_is_a_positive_number() {
        assert_eq!([" * 1.5 ", "", "*0.001"].map(factor_of), [Some(1.5), Some(1.0), Some(0.001)]);
        assert_eq!(["* 0", "* -1", "* inf", "* nan", "1.5", "* x"].map(factor_of), [None; 6]);
    }

    #[test]
    fn the_schema_knows_every_key_of_the_mapping() {
        let schema = serde_json::to_value(schemars::schema_for!(Gate)).unwrap();
        assert_eq!(schema["title"], "Gate");
        let keys: Vec<&String> = schema["anyOf"][1]["properties"].as_object().unwrap().keys().collect();
        assert_eq!(keys, ["gate", "phase", "window", "abort", "for"]);
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(name in select(Metric::names()), op in select(OPS.to_vec()), limit in 0u32..1_000_000, tenths in 0u8..10, unit in select(UNITS.to_vec()), space in " {0,2}") {
            let text = format!("{name}{space}{}{space}{limit}.{tenths}{space}{}", op.0, unit.0);
            let metric: Metric = name.parse().unwrap();
            let read = text.parse::<Gate>();
            if metric.unit_problem(unit.1).is_some() {
                prop_assert!(read.is_err());
            } else {
                let gate = read.unwrap();
                prop_assert_eq!((gate.metric, gate.op, gate.unit), (metric, op.1, unit.1));
                prop_assert_eq!(gate.limit, format!("{limit}.{tenths}").parse::<f64>().unwrap());
                let again: Gate = serde_json::from_value(serde_json::to_value(&gate).unwrap()).unwrap();
                prop_assert_eq!(again, gate.clone());
                let canonical: Gate = format!("{} {} {}{}", gate.metric, gate.op, gate.limit, gate.unit).parse().unwrap();
                prop_assert_eq!((canonical.metric, canonical.op, canonical.limit, canonical.unit), (gate.metric, gate.op, gate.limit, gate.unit));
            }
        }
    }
}
