//! Every finished run in short, over time: the store beside the reports, what moved in it and what is unlike the rest.
//!
//! Goal: the reports are the truth and the store is made from them, so that a store that is locked, damaged or gone loses nothing.
//! Non-goal: a time-series store; metrics of a run while it goes on are Prometheus's.

pub(crate) mod anomaly;
pub(crate) mod changes;
pub(crate) mod command;
pub(crate) mod folders;
pub(crate) mod show;
mod store;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use crate::report::{IntegrityVerdict, Outcomes, Report, Verdict};
pub(crate) use store::{Store, StoreError};

/// The store's name in a report folder.
const FILE: &str = "history.db";
/// Most runs that are looked at, the newest.
pub(crate) const MOST: usize = 5_000;
/// Reasons of a verdict that are kept.
const MOST_REASONS: usize = 5;

/// Where the store lies unless told otherwise.
pub(crate) fn default_file(report_dir: &Path) -> PathBuf {
    report_dir.join(FILE)
}

/// One run, in short.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Entry {
    pub(crate) run_id: String,
    /// RFC 3339 with milliseconds, so that it sorts.
    pub(crate) started_at: String,
    pub(crate) duration_seconds: f64,
    pub(crate) scenario: String,
    /// Of what was run: see [`scenario_hash`].
    pub(crate) scenario_hash: String,
    /// Of where it ran: see [`machine_hash`].
    pub(crate) machine_hash: String,
    pub(crate) fingerprint: Fingerprint,
    pub(crate) seed: u64,
    pub(crate) verdict: Verdict,
    pub(crate) integrity: IntegrityVerdict,
    pub(crate) integrity_rate: Option<f64>,
    pub(crate) valid: bool,
    pub(crate) interrupted: bool,
    pub(crate) reasons: Vec<String>,
    pub(crate) outcomes: Outcomes,
    pub(crate) errors: BTreeMap<String, u64>,
    /// Seconds of phase main in which operations were due or answered, and those of them in which one was acknowledged.
    pub(crate) seconds: u64,
    pub(crate) seconds_answered: u64,
    /// By the names of gates; one that the run does not have is missing.
    pub(crate) figures: BTreeMap<String, f64>,
    /// HDR histograms of the response and service time, as in the report; kept beside, not shown.
    #[serde(skip)]
    pub(crate) histograms: [String; 2],
}

/// Where a run took place, and what it drove.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Fingerprint {
    pub(crate) cpu: String,
    pub(crate) cores: usize,
    pub(crate) memory_bytes: u64,
    pub(crate) os: String,
    pub(crate) kernel: String,
    pub(crate) server: String,
    pub(crate) server_version: String,
    pub(crate) batchsql_version: String,
    pub(crate) git_commit: Option<String>,
}

impl Entry {
    /// A report in short; `None` if it has no start that can be read.
    pub(crate) fn of(report: &Report) -> Option<Self> {
        let here = &report.environment;
        let started: jiff::Timestamp = report.started_at.parse().ok()?;
        let main = || report.timeline.iter().filter(|second| second.phase == "main");
        let busy = main().filter(|second| second.offered + second.acknowledged + second.rejected + second.unknown > 0);
        Some(Self {
            run_id: report.run_id.clone(),
            started_at: format!("{started:.3}"),
            duration_seconds: report.duration_seconds,
            scenario: report.scenario["name"].as_str().unwrap_or_default().to_owned(),
            scenario_hash: scenario_hash(&report.scenario),
            machine_hash: machine_hash(report),
            fingerprint: Fingerprint {
                cpu: here.cpu.clone(),
                cores: here.cores,
                memory_bytes: here.memory_bytes,
                os: here.os.clone(),
                kernel: here.kernel.clone(),
                server: here.target.name.clone(),
                server_version: here.target.version.clone(),
                batchsql_version: here.batchsql_version.clone(),
                git_commit: here.git_commit.clone(),
            },
            seed: report.seed,
            verdict: report.verdict,
            integrity: report.integrity.verdict,
            integrity_rate: report.integrity.rate,
            valid: report.throughput.valid,
            interrupted: report.interrupted,
            reasons: report.reasons.iter().take(MOST_REASONS).cloned().collect(),
            outcomes: report.outcomes,
            errors: report.errors.clone(),
            seconds: busy.count() as u64,
            seconds_answered: main().filter(|second| second.acknowledged > 0).count() as u64,
            figures: figures(report),
            histograms: [report.histograms.response.clone(), report.histograms.service.clone()],
        })
    }

    /// What runs must share to be held against each other.
    pub(crate) fn group(&self) -> [&str; 3] {
        [&self.scenario, &self.scenario_hash, &self.machine_hash]
    }

    /// Whether its figures say something of the target: it was not cut short, and integrity holds.
    pub(crate) fn counts(&self) -> bool {
        self.valid && !self.interrupted
    }

    /// `rows_per_second` or `requests_per_second`.
    pub(crate) fn rate_name(&self) -> &'static str {
        if self.figures.contains_key("requests_per_second") { "requests_per_second" } else { "rows_per_second" }
    }
}

/// Which way a figure is better.
pub(crate) fn higher_is_better(figure: &str) -> bool {
    figure.ends_with("_per_second")
}

/// The figures of a run; throughput only where it is valid.
pub(crate) fn figures(report: &Report) -> BTreeMap<String, f64> {
    let mut found = BTreeMap::new();
    let mut add = |name: &str, value: Option<f64>| {
        if let Some(value) = value.filter(|value| value.is_finite()) {
            found.insert(name.to_owned(), value);
        }
    };
    let rate = report.throughput.rate;
    add(&format!("{}_per_second", rate.unit()), rate.per_second().filter(|_| report.throughput.valid));
    for (clock, latency) in [("response", &report.latency.response), ("service", &report.latency.service)] {
        for (point, value) in [("p50", latency.p50_ms), ("p95", latency.p95_ms), ("p99", latency.p99_ms)] {
            add(&format!("{clock}.{point}"), value);
        }
    }
    let main = report.phases.iter().find(|phase| phase.name == "main").map(|phase| phase.outcomes).filter(|main| main.attempted > 0);
    add("error_rate", main.map(|main| (main.rejected + main.unknown) as f64 / main.attempted as f64));
    found
}

/// What a run did, without what may differ between runs of the same: its seed, its words, its gates, the names of its metrics and
/// where its file lies. Secrets are not in a report.
pub(crate) fn comparable(scenario: &Value) -> Value {
    let mut scenario = scenario.clone();
    if let Some(scenario) = scenario.as_object_mut() {
        scenario.retain(|key, _| !matches!(key.as_str(), "seed" | "description" | "gates" | "metrics"));
    }
    if let Some(sqlite) = scenario.pointer_mut("/target/sqlite").and_then(Value::as_object_mut) {
        sqlite.retain(|key, _| key != "path");
    }
    scenario
}

/// Twelve hex digits of the SHA-256 of [`comparable`], whatever the order of its keys.
pub(crate) fn scenario_hash(scenario: &Value) -> String {
    let mut text = String::new();
    canonical(&comparable(scenario), &mut text);
    short_hash(&text)
}

fn canonical(value: &Value, out: &mut String) {
    match value {
        Value::Object(map) => {
            let sorted: BTreeMap<&String, &Value> = map.iter().collect();
            for (key, value) in sorted {
                out.push_str(&Value::String(key.clone()).to_string());
                out.push(':');
                canonical(value, out);
                out.push(';');
            }
        }
        Value::Array(items) => {
            out.push('[');
            for item in items {
                canonical(item, out);
                out.push(',');
            }
            out.push(']');
        }
        plain => out.push_str(&plain.to_string()),
    }
}

/// Where a run took place, as far as its figures depend on it: CPU, cores, memory to the nearest GiB (kernels keep a little of it),
/// system, kernel, and the server's name and version. Not the commit and not this program's version: they are what moves figures.
fn machine_hash(report: &Report) -> String {
    let here = &report.environment;
    let memory = (here.memory_bytes + (1 << 29)) >> 30;
    let target = &here.target;
    short_hash(&format!("{}|{}|{memory}|{}|{}|{}|{}", here.cpu, here.cores, here.os, here.kernel, target.name, target.version))
}

fn short_hash(text: &str) -> String {
    Sha256::digest(text.as_bytes()).iter().take(6).map(|byte| format!("{byte:02x}")).collect()
}

/// Puts a finished run into the store at `file`.
///
/// # Errors
/// When the store is locked, damaged, of a newer version or cannot be written: the report is whole all the same.
pub(crate) fn record(file: &Path, report: &Report) -> Result<(), StoreError> {
    let Some(entry) = Entry::of(report) else { return Ok(()) };
    Store::open(file)?.add(&[entry])
}

/// What the store and the report folders know together, the oldest first; the store is only read.
pub(crate) struct Known {
    pub(crate) entries: Vec<Entry>,
    /// Those of them that are in folders only.
    pub(crate) missing: Vec<Entry>,
    /// What could not be read, in sentences.
    pub(crate) notes: Vec<String>,
}

/// Looks at the store, if there is one, and at every report beside it.
pub(crate) fn known(report_dir: &Path, stored: Vec<Entry>) -> Known {
    let mut by_id: BTreeMap<String, Entry> = stored.into_iter().map(|entry| (entry.run_id.clone(), entry)).collect();
    let (mut missing, mut notes) = (Vec::new(), Vec::new());
    let unreadable = folders::each(report_dir, &|id| by_id.contains_key(id), &mut |entry| missing.push(entry));
    if unreadable > 0 {
        notes.push(format!("{unreadable} folders of {} hold no report that can be read", report_dir.display()));
    }
    by_id.extend(missing.iter().map(|entry| (entry.run_id.clone(), entry.clone())));
    let mut entries: Vec<Entry> = by_id.into_values().collect();
    entries.sort_by(|a, b| a.started_at.cmp(&b.started_at).then_with(|| a.run_id.cmp(&b.run_id)));
    let beyond = entries.len().saturating_sub(MOST);
    if beyond > 0 {
        entries.drain(..beyond);
        notes.push(format!("{beyond} older runs are left out"));
    }
    Known { entries, missing, notes }
}

/// As [`known`], of a store that may be in trouble: then the folders alone, with the trouble as a note.
pub(crate) fn known_or_folders(report_dir: &Path, file: &Path) -> Known {
    let stored = if file.is_file() { Store::read(file).and_then(|store| store.entries()) } else { Ok(Vec::new()) };
    let (stored, trouble) = match stored {
        Ok(stored) => (stored, None),
        Err(error) => (Vec::new(), Some(format!("{error}; what follows is from the report folders alone"))),
    };
    let mut known = known(report_dir, stored);
    known.notes.extend(trouble);
    known
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::report::sample;

    #[test]
    fn a_scenario_is_known_by_what_it_does() {
        let scenario =
            json!({"name": "a", "seed": 1, "load": {"vus": 4, "executor": "constant-vus"}, "target": {"sqlite": {"path": "/x"}}});
        let same = json!({"target": {"sqlite": {"path": "/y"}}, "load": {"executor": "constant-vus", "vus": 4}, "seed": 2, "name": "a",
            "description": "words", "gates": ["integrity.lost == 0"], "metrics": {"env": "ci"}});
        assert_eq!(scenario_hash(&scenario), scenario_hash(&same));
        assert_eq!(scenario_hash(&scenario).len(), 12);
        let other = json!({"name": "a", "load": {"vus": 5, "executor": "constant-vus"}, "target": {"sqlite": {}}});
        assert_ne!(scenario_hash(&scenario), scenario_hash(&other));
        assert_ne!(scenario_hash(&json!({"a": ["1", "2"]})), scenario_hash(&json!({"a": ["1,2"]})), "lists are not run together");
    }

    #[test]
    fn a_run_in_short_has_what_its_report_says() {
        let entry = Entry::of(&sample::passed()).unwrap();
        assert_eq!((entry.scenario.as_str(), entry.started_at.as_str()), ("quickstart", "2026-03-01T10:15:00.000Z"));
        assert_eq!(entry.figures["rows_per_second"], 321_456.7);
        assert_eq!((entry.figures["response.p99"], entry.figures["error_rate"]), (8.5, 0.0));
        assert_eq!((entry.seconds, entry.seconds_answered, entry.counts(), entry.rate_name()), (1, 1, true, "rows_per_second"));
        let mut another = sample::passed();
        another.environment.git_commit = None;
        another.environment.memory_bytes -= 1000;
        assert_eq!(Entry::of(&another).unwrap().group(), entry.group(), "another commit is what is looked at");
        another.environment.kernel = "7".to_owned();
        assert_ne!(Entry::of(&another).unwrap().group(), entry.group());
        let violated = Entry::of(&sample::violated()).unwrap();
        assert!(!violated.counts() && !violated.figures.contains_key("rows_per_second"), "void throughput is no figure: {violated:?}");
    }
}
