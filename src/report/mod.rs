//! The one value that says what a run found, `report.json` as it is; every other format is a file beside this one that reads it.

pub mod console;
mod faults;
pub(crate) mod format;
pub(crate) mod github;
pub mod html;
pub mod junit;
pub mod limits;
pub mod markdown;
pub mod matrix;
#[cfg(test)]
pub(crate) mod sample;
pub mod timeline;
pub mod versus;
pub(crate) mod words;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::Context as _;
use serde::{Deserialize, Serialize};

use crate::scenario::guard::Action;

/// Version of the shape of `report.json`; it grows with every change that a reader could notice.
pub const SCHEMA_VERSION: u32 = 1;

/// How a run, a gate or a comparison ended. Several merge to the gravest: fail, then inconclusive, then pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// Everything asked for was shown.
    Pass,
    /// Something asked for could not be judged.
    Inconclusive,
    /// Something asked for was shown not to hold.
    Fail,
}

/// Everything a run found.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Report {
    /// [`SCHEMA_VERSION`].
    pub schema_version: u32,
    /// The run's id, also its folder's name.
    pub run_id: String,
    /// The seed that was used.
    pub seed: u64,
    /// The scenario as resolved, secrets redacted.
    pub scenario: serde_json::Value,
    /// The command that repeats the run.
    pub reproduce: String,
    /// Where it ran.
    pub environment: Environment,
    /// How it ended.
    pub verdict: Verdict,
    /// Why, in sentences; empty on a pass.
    pub reasons: Vec<String>,
    /// Things worth knowing that changed no verdict.
    pub notes: Vec<String>,
    /// RFC 3339 start of the run.
    pub started_at: String,
    /// Whole run, from connecting to the verdict.
    pub duration_seconds: f64,
    /// Whether the run was stopped from outside.
    pub interrupted: bool,
    /// The phases, in order.
    pub phases: Vec<Phase>,
    /// One line a second.
    pub timeline: Vec<Second>,
    /// Speed of phase `main`.
    pub throughput: Throughput,
    /// Latencies of phase `main`.
    pub latency: Latencies,
    /// What became of every operation, warm-up included.
    pub outcomes: Outcomes,
    /// Errors of the whole run by class, `retry:<class>` and `final:<class>`.
    pub errors: BTreeMap<String, u64>,
    /// One example message a class.
    pub error_examples: BTreeMap<String, String>,
    /// What is stored, held against the ledger.
    pub integrity: Integrity,
    /// What went wrong on purpose, in the scenario's order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub faults: Vec<FaultReport>,
    /// Every gate, implicit ones included.
    pub gates: Vec<GateResult>,
    /// What the scenario's guard did, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub guard: Vec<GuardAct>,
    /// What the harness itself used.
    pub resources: Resources,
    /// HDR histograms of phase `main`, V2+DEFLATE, base64, nanoseconds.
    pub histograms: Histograms,
    /// What only requests have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http: Option<HttpReport>,
    /// What the load cost the target, as far as it can be seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<TargetUse>,
}

/// A hold or stop of the load by the scenario's guard.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GuardAct {
    /// What was done.
    pub action: Action,
    /// The condition that was met: `error_rate`, `p99` or `up`.
    pub condition: String,
    /// What was found, in words.
    pub reason: String,
    /// From the run's first intended start.
    pub at_seconds: f64,
    /// How long the load was held; 0 for a stop.
    pub duration_seconds: f64,
}

/// Where a run took place.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Environment {
    /// Version of this program.
    pub batchsql_version: String,
    /// Git commit it was built from or run in, if known.
    pub git_commit: Option<String>,
    /// CPU model.
    pub cpu: String,
    /// Logical cores.
    pub cores: usize,
    /// Memory of the machine.
    pub memory_bytes: u64,
    /// Operating system and its version.
    pub os: String,
    /// Kernel version.
    pub kernel: String,
    /// What was driven.
    pub target: TargetSeen,
    /// What this machine could do just before the run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub calibration: Option<Calibration>,
}

/// A fixed piece of work, so that figures of different machines can be related to it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Calibration {
    /// Rounds of 1,000 dependent multiplications a second on one core, the best of several tries.
    pub cpu_loops_per_second: f64,
    /// Median time to write 4 KiB to a file in the report folder and have the disk confirm it; null where that failed.
    pub fsync_ms: Option<f64>,
}

/// What the load cost the target.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct TargetUse {
    /// Transactions that wrote: of the whole server (Postgres, MySQL), of the run (SQLite), of the gateway's log and quotas.
    pub database_writes: Option<u64>,
    /// The same a second, from the first intended start to the end of the drain.
    pub database_writes_per_second: Option<f64>,
    /// Bytes of write-ahead log: written (Postgres, MySQL), or the greatest size of its file (SQLite).
    pub wal_bytes: Option<u64>,
    /// User and system time of the gateway's process, from its start to its end.
    pub cpu_seconds: Option<f64>,
    /// Greatest resident set of the gateway's process.
    pub rss_bytes_max: Option<u64>,
}

/// The target as it named itself.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct TargetSeen {
    /// `SQLite`, `PostgreSQL`, `MySQL`, `MariaDB`; of a service its `server` header, if it has one.
    pub name: String,
    /// Its own version string.
    pub version: String,
    /// `sqlite`, `postgres`, `mysql`, `http`.
    pub database: String,
    /// Settings read back on the run's own connections.
    pub settings: BTreeMap<String, String>,
    /// How rows travelled.
    pub method: String,
    /// The container it was in, if it was started for the run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container: Option<ContainerSeen>,
}

/// The container of a target.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ContainerSeen {
    /// The image, as the scenario names it.
    pub image: String,
    /// What that name stood for: the digest at its registry, or, of an image that has none, its id.
    pub digest: String,
}

/// One phase of a run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Phase {
    /// `warmup`, `main`, `drain`, `verify`.
    pub name: String,
    /// From the run's first intended start.
    pub start_seconds: f64,
    /// Its length.
    pub duration_seconds: f64,
    /// Operations whose intended start lies in it (none for `drain` and `verify`).
    pub outcomes: Outcomes,
}

/// One second of the run, by wall time since the first intended start.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Second {
    /// Which second, from 0.
    pub second: u64,
    /// The phase at its start.
    pub phase: String,
    /// Operations due in it.
    pub offered: u64,
    /// Rows acknowledged in it.
    pub acknowledged: u64,
    /// Rows rejected in it.
    pub rejected: u64,
    /// Rows whose outcome became unknown in it.
    pub unknown: u64,
    /// Operations dropped in it.
    pub dropped: u64,
    /// Retries begun in it.
    pub retries: u64,
    /// Response time of the rows answered in it.
    pub response_p50_ms: Option<f64>,
    /// Response time of the rows answered in it.
    pub response_p99_ms: Option<f64>,
    /// Service time of the rows answered in it.
    pub service_p50_ms: Option<f64>,
    /// Service time of the rows answered in it.
    pub service_p99_ms: Option<f64>,
    /// Rows in the queue at its end.
    pub queue_length: u64,
    /// Batches in flight at its end.
    pub in_flight: u64,
    /// Resident memory of the harness at its end.
    pub rss_bytes: u64,
    /// The kinds of faults that were not healed in it, joined by `+`.
    #[serde(default)]
    pub faults: String,
}

/// Speed of phase `main`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Throughput {
    /// `rows_per_second` or `requests_per_second`.
    #[serde(flatten)]
    pub rate: Rate,
    /// False unless integrity holds: a fast run that lost a row has no speed.
    pub valid: bool,
}

/// Acknowledged operations of phase `main` a second, from its first intended start to the last acknowledgement, drain included;
/// null when nothing was acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub enum Rate {
    /// Batch inserts.
    #[serde(rename = "rows_per_second")]
    Rows(Option<f64>),
    /// Requests.
    #[serde(rename = "requests_per_second")]
    Requests(Option<f64>),
}

impl Rate {
    /// Operations a second.
    #[must_use]
    pub fn per_second(self) -> Option<f64> {
        let (Rate::Rows(rate) | Rate::Requests(rate)) = self;
        rate
    }

    /// What an operation is called.
    #[must_use]
    pub fn unit(self) -> &'static str {
        match self {
            Rate::Rows(_) => "rows",
            Rate::Requests(_) => "requests",
        }
    }
}

/// What only requests have, all of phase `main`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct HttpReport {
    /// From the send to the first byte of the answer.
    pub time_to_first_byte: LatencySummary,
    /// From the send to the first token with content (streams).
    pub time_to_first_token: LatencySummary,
    /// From each token to the next, all of them pooled (streams).
    pub inter_token: LatencySummary,
    /// The longest gap of each stream.
    pub longest_stall: LatencySummary,
    /// What the server says it took (`X-Response-Time-Ms`).
    pub server: LatencySummary,
    /// What the client saw beyond that: the network and queues.
    pub network: LatencySummary,
    /// What the gateway adds: the service time of a proxied request less that of the direct one that followed it. May be negative.
    pub overhead: LatencySummary,
    /// Replies that came as streams, WebSocket sessions among them.
    pub streams: u64,
    /// Tokens of prompts, as replies told them.
    pub prompt_tokens: u64,
    /// Tokens of completions, as replies told them.
    pub completion_tokens: u64,
    /// Tokens of completions a second of phase `main`.
    pub tokens_per_second: Option<f64>,
    /// Bytes of all requests.
    pub bytes_sent: u64,
    /// Bytes of all answers.
    pub bytes_received: u64,
    /// Each kind of request.
    pub routes: Vec<Route>,
    /// The distribution of `time_to_first_token`, as in `histograms`; empty without streams.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub time_to_first_token_histogram: String,
}

/// One kind of request.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Route {
    /// Its name in the scenario, or its path.
    pub name: String,
    /// What became of its requests, warm-up included.
    pub outcomes: Outcomes,
    /// From the send to the answer, phase `main`.
    pub service: LatencySummary,
}

/// The latencies of phase `main`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Latencies {
    /// From the intended start to the acknowledgement.
    pub response: LatencySummary,
    /// From the actual send to the acknowledgement.
    pub service: LatencySummary,
    /// The generator's own lateness while a slot was free.
    pub lag: LatencySummary,
}

/// A distribution in milliseconds. A percentile with too few samples behind it is null.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the names are the documentation")]
pub struct LatencySummary {
    pub count: u64,
    pub mean_ms: Option<f64>,
    pub p50_ms: Option<f64>,
    pub p75_ms: Option<f64>,
    pub p90_ms: Option<f64>,
    pub p95_ms: Option<f64>,
    pub p99_ms: Option<f64>,
    pub p999_ms: Option<f64>,
    pub max_ms: Option<f64>,
}

/// What became of operations: `offered = attempted + dropped`, `attempted = acknowledged + rejected + unknown`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the words of the design")]
pub struct Outcomes {
    pub offered: u64,
    pub attempted: u64,
    pub acknowledged: u64,
    pub rejected: u64,
    pub unknown: u64,
    pub dropped: u64,
}

impl Outcomes {
    /// Adds what became of other operations.
    pub fn add(&mut self, more: &Outcomes) {
        self.offered += more.offered;
        self.attempted += more.attempted;
        self.acknowledged += more.acknowledged;
        self.rejected += more.rejected;
        self.unknown += more.unknown;
        self.dropped += more.dropped;
    }
}

/// Whether what was acknowledged is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum IntegrityVerdict {
    /// Every acknowledged row is stored once, whole and right, and nothing else is.
    Holds,
    /// At least one anomaly was found.
    Violated,
    /// Not verified, nothing to check, or not read to the end.
    Inconclusive,
}

/// What is stored, held against the ledger.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the classes are described in the README")]
pub struct Integrity {
    pub verdict: IntegrityVerdict,
    /// Why not `holds`, if so.
    pub reason: Option<String>,
    pub method: String,
    /// Right / must be there, 0 to 1; null if not verified.
    pub rate: Option<f64>,
    /// Rows checked: read back, or by a digest that agrees.
    pub checked: u64,
    /// By method `digest`: of the rows checked, those that were read back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub read_back: Option<u64>,
    pub must_be_there: u64,
    pub lost: u64,
    pub duplicated: u64,
    /// Copies beyond the first of every duplicated key.
    pub surplus_copies: u64,
    pub corrupted: u64,
    pub phantom: u64,
    pub resurrected: u64,
    pub stale: u64,
    /// Outcome unknown, found stored: legal.
    pub recovered: u64,
    pub partial_batches: u64,
    /// Up to 20 a class.
    pub examples: Vec<Anomaly>,
    /// How long reading and comparing took.
    pub duration_seconds: f64,
    /// What was held against the ledger, where it is more than a table: replies, the upstream's ledger, the gateway's log.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sources: Vec<Source>,
    /// Log rows that were lost within what `verify.allow_lost` allows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allowed_lost: Option<u64>,
    /// How long before the last answer the first lost log row was answered, in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lost_window_seconds: Option<f64>,
    /// What each fault did, while the report is made; then it stands in `faults`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub by_fault: Vec<FaultHarm>,
    /// How long after the load the last row came into the gateway's log, at most, in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log_lag_seconds: Option<f64>,
}

/// One thing that was held against the ledger.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Source {
    /// `replies`, `upstream records`, `log rows`.
    pub name: String,
    /// How many must be there.
    pub must_be_there: u64,
    /// How many of them are right.
    pub right: u64,
}

impl Integrity {
    /// A verdict without findings.
    #[must_use]
    pub fn inconclusive(reason: String) -> Self {
        Self {
            verdict: IntegrityVerdict::Inconclusive,
            reason: Some(reason),
            method: "none".to_owned(),
            rate: None,
            checked: 0,
            read_back: None,
            must_be_there: 0,
            lost: 0,
            duplicated: 0,
            surplus_copies: 0,
            corrupted: 0,
            phantom: 0,
            resurrected: 0,
            stale: 0,
            recovered: 0,
            partial_batches: 0,
            examples: Vec::new(),
            duration_seconds: 0.0,
            sources: Vec::new(),
            allowed_lost: None,
            lost_window_seconds: None,
            by_fault: Vec::new(),
            log_lag_seconds: None,
        }
    }
}

/// What went wrong on purpose, and what came of it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct FaultReport {
    /// As the scenario writes it.
    pub kind: String,
    /// Kind and parameters, for people.
    pub description: String,
    /// When it was to begin, from the run's first intended start.
    pub at_seconds: f64,
    /// When it began; null if the load had ended before.
    pub begun_seconds: Option<f64>,
    /// When its healing began.
    pub healed_seconds: Option<f64>,
    /// From there to the first acknowledged operation (RTO); null if none came.
    pub recovery_seconds: Option<f64>,
    /// What kept it from beginning or from being healed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
    /// How often it struck, where that is counted: connections cut, answers held back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub struck: Option<u64>,
    /// Attempts that were tried again, from its begin to the next fault's.
    pub retries: u64,
    /// Operations rejected in that time.
    pub rejected: u64,
    /// Operations whose outcome was unknown in that time.
    pub unknown: u64,
    /// What it did to what is stored; null if that was not verified.
    pub harm: Option<FaultHarm>,
}

/// What one fault did to what is stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FaultHarm {
    /// Its place in the scenario's `faults`, from 0.
    pub fault: u32,
    /// Acknowledged rows that are lost (RPO): of those acknowledged before it was healed, and after any fault before it was.
    pub lost: u64,
    /// Rows of unknown outcome that are stored.
    pub unknown_stored: u64,
    /// Rows of unknown outcome that are not.
    pub unknown_absent: u64,
    /// Keys that are stored more than once.
    pub duplicated: u64,
}

/// One anomaly, by its key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Anomaly {
    /// `lost`, `duplicated`, `corrupted`, `phantom`, `resurrected`, `stale`, `partial_batch`.
    pub class: String,
    /// For `corrupted`: truncated, charset, rounded, padded, case, type, null, swapped, other; of replies also crosstalk, gap,
    /// reordered, repeated, altered.
    pub sub_kind: Option<String>,
    /// The row's key, or the request's number.
    pub key: i64,
    /// The column that differs first.
    pub column: Option<String>,
    /// What must be there.
    pub expected: Option<String>,
    /// What is there.
    pub found: Option<String>,
}

/// How one gate ended.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct GateResult {
    /// The condition as written.
    pub gate: String,
    /// Whether the scenario asked for it (implicit gates are always there).
    pub implicit: bool,
    /// How it ended.
    pub verdict: Verdict,
    /// The value that was judged (in a window gate the worst), in the unit of the condition.
    pub actual: Option<f64>,
    /// In words: what was found, and for windows where.
    pub message: String,
}

/// What the harness itself used.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct Resources {
    /// User and system time of the process, load and verification.
    pub cpu_seconds: f64,
    /// Greatest resident set.
    pub rss_bytes_max: u64,
    /// User and system time from the first intended start to the end of the drain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub load_cpu_seconds: Option<f64>,
    /// Greatest resident set until the end of the drain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub load_rss_bytes_max: Option<u64>,
}

/// HDR histograms, V2+DEFLATE, base64, nanoseconds.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[expect(missing_docs, reason = "as in `latency`")]
pub struct Histograms {
    pub response: String,
    pub service: String,
    pub lag: String,
}

/// The files [`write_all`] writes.
pub const FILES: [&str; 5] = ["report.json", "report.md", "report.html", "junit.xml", "timeline.csv"];

/// Writes every format into `folder`, which is made if need be. Each file appears whole or not at all.
///
/// # Errors
/// When a file cannot be written; the message names it.
pub fn write_all(folder: &Path, report: &Report) -> anyhow::Result<()> {
    fs::create_dir_all(folder)
        .with_context(|| format!("cannot make the report folder {}; name another one with --report-dir", folder.display()))?;
    let json = serde_json::to_string_pretty(report)? + "\n";
    let texts = [json, markdown::text(report), html::text(report), junit::xml(report)?, timeline::csv(&report.timeline)?];
    for (name, text) in FILES.into_iter().zip(texts) {
        write_whole(&folder.join(name), &text)?;
    }
    Ok(())
}

/// Under another name first, so that nobody ever reads half a report.
pub(crate) fn write_whole(path: &Path, text: &str) -> anyhow::Result<()> {
    let unfinished = path.with_added_extension("tmp");
    let written = fs::write(&unfinished, text).and_then(|()| fs::rename(&unfinished, path));
    if written.is_err() {
        // What is left of it helps nobody; that it could not be written is said below.
        let _ = fs::remove_file(&unfinished);
    }
    written.with_context(|| format!("cannot write {}; free space there or name another folder with --report-dir", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn every_format_is_written_and_nothing_unfinished_stays() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().join("deep/run");
        let report = sample::violated();
        write_all(&folder, &report).unwrap();
        let mut expected = FILES.map(str::to_owned).to_vec();
        expected.sort();
        assert_eq!(names(&folder), expected);
        let text = fs::read_to_string(folder.join("report.json")).unwrap();
        let read: Report = serde_json::from_str(&text).unwrap();
        assert_eq!(serde_json::to_value(read).unwrap(), serde_json::to_value(report).unwrap());
        write_all(&folder, &sample::passed()).unwrap();
        assert_eq!(names(&folder), expected);
        assert!(fs::read_to_string(folder.join("report.md")).unwrap().contains("PASS"));
    }

    #[test]
    fn a_file_that_cannot_be_written_is_named_and_leaves_nothing_half() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("junit.xml")).unwrap();
        let error = format!("{:#}", write_all(folder.path(), &sample::passed()).unwrap_err());
        assert!(error.contains("junit.xml") && error.contains("--report-dir"), "{error}");
        assert_eq!(names(folder.path()), ["junit.xml", "report.html", "report.json", "report.md"]);
        let file = folder.path().join("report.md");
        let error = format!("{:#}", write_all(&file, &sample::passed()).unwrap_err());
        assert!(error.contains("report.md") && error.contains("--report-dir"), "{error}");
    }
}
