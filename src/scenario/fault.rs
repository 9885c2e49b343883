//! `faults:` of a scenario: what goes wrong on purpose, when, and for how long. One flat mapping a fault; which parameters a kind
//! takes stands in [`Kind::parameters`].

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::units::{Share, Time};
use super::{Scenario, TargetConfig, Workload};

/// One fault on the run's timeline.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Fault {
    /// When it begins, from the run's first intended start.
    pub at: Time,
    /// How long it lasts; then it is healed. Absent: it happens once, at `at`.
    #[serde(rename = "for", default, skip_serializing_if = "Option::is_none")]
    pub length: Option<Time>,
    /// What goes wrong.
    pub kind: Kind,
    /// latency: what every piece of data is held back by.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latency: Option<Time>,
    /// latency: random time added to it, at most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jitter: Option<Time>,
    /// bandwidth: what passes in a second, each way, on each connection.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 10_000_000_000_u64))]
    pub bytes_per_second: Option<u64>,
    /// slice: bytes in a piece; cut: the byte after which a connection is cut (`when: at_byte`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 10_000_000_000_u64))]
    pub bytes: Option<u64>,
    /// slice: between two pieces; upstream_stalls: how long an answer stands still; deadlock: between two of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pause: Option<Time>,
    /// cut: where.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub when: Option<CutWhen>,
    /// cut, upstream_…: the share of requests (commits, transactions) that it strikes, drawn from the seed; by default all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub share: Option<Share>,
    /// cut: how many it strikes at most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000_000))]
    pub most: Option<u64>,
    /// kill, pause, restart: the file with the process id of a server on this machine. Absent: the target's container.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid_file: Option<String>,
    /// kill, restart: the shell command that starts that server again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start: Option<String>,
}

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Data is held back on its way.
    Latency,
    /// Data passes slowly.
    Bandwidth,
    /// Data passes in small pieces.
    Slice,
    /// Connections are reset; new ones too, until healed.
    Reset,
    /// Connections stay open and nothing passes.
    BlackHole,
    /// The server's side of each connection is gone, the client's stays open and silent.
    HalfOpen,
    /// A connection is cut at a place in a request or its answer.
    Cut,
    /// The server dies by SIGKILL and is started again when healed.
    Kill,
    /// The server stands still (SIGSTOP) until healed.
    Pause,
    /// The server is ended in good order, and started again when healed.
    Restart,
    /// A rival session holds a lock on the table.
    Lock,
    /// A rival session makes deadlocks.
    Deadlock,
    /// A rival writer holds SQLite's write lock.
    Busy,
    /// The database may not grow.
    DiskFull,
    /// Rival sessions take every connection the server gives, and the run's are ended.
    ExhaustConnections,
    /// The database takes no writes.
    ReadOnly,
    /// The mock upstream answers with errors.
    UpstreamErrors,
    /// The mock upstream's answers stand still in the middle.
    UpstreamStalls,
    /// The mock upstream cuts its answers.
    UpstreamCuts,
}

/// Where a connection is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum CutWhen {
    /// Nothing of the request has passed.
    BeforeRequest,
    /// A part of the request has passed.
    WithinRequest,
    /// The whole request has passed, nothing of its answer.
    AfterRequest,
    /// A part of the answer has passed.
    WithinAnswer,
    /// What commits has reached the server, its answer has not come back (databases).
    AfterCommit,
    /// After `bytes` bytes from the client.
    AtByte,
}

/// Which parties a kind of fault concerns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Family {
    Network,
    Server,
    Database,
    Upstream,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Kind; 19] = [
        Kind::Latency,
        Kind::Bandwidth,
        Kind::Slice,
        Kind::Reset,
        Kind::BlackHole,
        Kind::HalfOpen,
        Kind::Cut,
        Kind::Kill,
        Kind::Pause,
        Kind::Restart,
        Kind::Lock,
        Kind::Deadlock,
        Kind::Busy,
        Kind::DiskFull,
        Kind::ExhaustConnections,
        Kind::ReadOnly,
        Kind::UpstreamErrors,
        Kind::UpstreamStalls,
        Kind::UpstreamCuts,
    ];

    /// As a scenario, a report and a metric's label write it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Latency => "latency",
            Kind::Bandwidth => "bandwidth",
            Kind::Slice => "slice",
            Kind::Reset => "reset",
            Kind::BlackHole => "black_hole",
            Kind::HalfOpen => "half_open",
            Kind::Cut => "cut",
            Kind::Kill => "kill",
            Kind::Pause => "pause",
            Kind::Restart => "restart",
            Kind::Lock => "lock",
            Kind::Deadlock => "deadlock",
            Kind::Busy => "busy",
            Kind::DiskFull => "disk_full",
            Kind::ExhaustConnections => "exhaust_connections",
            Kind::ReadOnly => "read_only",
            Kind::UpstreamErrors => "upstream_errors",
            Kind::UpstreamStalls => "upstream_stalls",
            Kind::UpstreamCuts => "upstream_cuts",
        }
    }

    /// Whom it concerns.
    pub(crate) fn family(self) -> Family {
        match self {
            Kind::Latency | Kind::Bandwidth | Kind::Slice | Kind::Reset | Kind::BlackHole | Kind::HalfOpen | Kind::Cut => Family::Network,
            Kind::Kill | Kind::Pause | Kind::Restart => Family::Server,
            Kind::Lock | Kind::Deadlock | Kind::Busy | Kind::DiskFull | Kind::ExhaustConnections | Kind::ReadOnly => Family::Database,
            Kind::UpstreamErrors | Kind::UpstreamStalls | Kind::UpstreamCuts => Family::Upstream,
        }
    }

    /// The parameters it takes; those it cannot do without come first, the number says how many they are.
    fn parameters(self) -> (usize, &'static [&'static str]) {
        match self {
            Kind::Latency => (2, &["for", "latency", "jitter"]),
            Kind::Bandwidth => (2, &["for", "bytes_per_second"]),
            Kind::Slice => (2, &["for", "bytes", "pause"]),
            Kind::Reset => (0, &["for"]),
            Kind::Restart => (0, &["for", "pid_file", "start"]),
            Kind::Kill => (1, &["for", "pid_file", "start"]),
            Kind::Pause => (1, &["for", "pid_file"]),
            Kind::Cut => (2, &["for", "when", "bytes", "share", "most"]),
            Kind::BlackHole | Kind::HalfOpen | Kind::Lock | Kind::Busy | Kind::DiskFull | Kind::ExhaustConnections | Kind::ReadOnly => {
                (1, &["for"])
            }
            Kind::Deadlock => (1, &["for", "pause"]),
            Kind::UpstreamStalls => (2, &["for", "pause", "share"]),
            Kind::UpstreamErrors | Kind::UpstreamCuts => (1, &["for", "share"]),
        }
    }
}

impl Fault {
    /// Its parameters that are set, by name, with their value for people.
    pub(crate) fn given(&self) -> Vec<(&'static str, String)> {
        let time = |name, value: &Option<Time>| value.map(|time| (name, humantime::format_duration(time.0).to_string()));
        let number = |name, value: Option<u64>| value.map(|value| (name, value.to_string()));
        let when = |when: CutWhen| serde_json::to_value(when).ok().and_then(|word| word.as_str().map(str::to_owned)).unwrap_or_default();
        let all = [
            time("for", &self.length),
            time("latency", &self.latency),
            time("jitter", &self.jitter),
            number("bytes_per_second", self.bytes_per_second),
            number("bytes", self.bytes),
            time("pause", &self.pause),
            self.when.map(|place| ("when", when(place))),
            self.share.map(|share| ("share", format!("{}", share.0))),
            number("most", self.most),
            self.pid_file.clone().map(|file| ("pid_file", file)),
            self.start.clone().map(|command| ("start", command)),
        ];
        all.into_iter().flatten().collect()
    }

    /// In one line, for reports: `cut (when after_commit, share 0.5)`. What restarts a server is not shown: it may hold secrets.
    pub(crate) fn words(&self) -> String {
        let shown = |name: &str| !["for", "pid_file", "start"].contains(&name);
        let words: Vec<String> =
            self.given().into_iter().filter(|(name, _)| shown(name)).map(|(name, value)| format!("{name} {value}")).collect();
        if words.is_empty() { self.kind.as_str().to_owned() } else { format!("{} ({})", self.kind.as_str(), words.join(", ")) }
    }

    /// How long it lasts.
    pub(crate) fn lasts(&self) -> Duration {
        self.length.map_or(Duration::ZERO, |length| length.0)
    }
}

fn starts_upstream(scenario: &Scenario) -> bool {
    scenario.target.http.as_ref().and_then(|http| http.start.as_ref()).is_some_and(|start| start.upstream.is_some())
}

/// What is impossible about the faults of `scenario`, as (path, message).
pub(super) fn problems(scenario: &Scenario) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for (number, fault) in scenario.faults.iter().enumerate() {
        let at = format!("faults.{number}");
        let mut say = |key: &str, message: String| {
            found.push((if key.is_empty() { at.clone() } else { format!("{at}.{key}") }, message));
        };
        let kind = fault.kind.as_str();
        let given = fault.given();
        let (needed, known) = fault.kind.parameters();
        for (name, _) in given.iter().filter(|(name, _)| !known.contains(name)) {
            say(name, format!("is no parameter of {kind}; it takes {}", known.join(", ")));
        }
        for name in known[..needed].iter().filter(|name| !given.iter().any(|(given, _)| given == *name)) {
            say("", format!("{kind} needs `{name}`; add it"));
        }
        if fault.length.is_some_and(|length| length.0.is_zero()) {
            say("for", "is nothing; write how long the fault lasts, e.g. 2s".to_owned());
        }
        if let Some(problem) = fault.unfit(scenario).or_else(|| fault.collides(&scenario.faults[..number])) {
            say("", problem);
        }
    }
    found
}

impl TargetConfig {
    fn keeps_in_memory(&self) -> bool {
        self.container.as_ref().is_some_and(|container| !container.tmpfs.is_empty())
    }
}

impl Fault {
    /// Why no deadlock can come about.
    fn unlocked(&self, scenario: &Scenario) -> Option<String> {
        let insert = scenario.workload.batch_insert()?;
        if !insert.unique_key {
            return Some("deadlock needs unique_key: true, for only then two sessions want the same row; found false".to_owned());
        }
        (insert.pipeline.flush_size < 2)
            .then(|| "deadlock needs batches of several rows; found workload.batch_insert.pipeline.flush_size: 1".to_owned())
    }

    /// An earlier fault that is still in force when this one begins, and that it would undo or be undone by.
    fn collides(&self, earlier: &[Fault]) -> Option<String> {
        let alike = |other: &Fault| match self.kind.family() {
            Family::Network => false,
            Family::Server => other.kind.family() == Family::Server,
            Family::Database | Family::Upstream => other.kind == self.kind,
        };
        let over = |fault: &Fault| fault.at.0.saturating_add(fault.lasts());
        let at_once = |other: &Fault| self.at.0 <= over(other) && other.at.0 <= over(self);
        let number = earlier.iter().position(|other| alike(other) && at_once(other))?;
        Some(format!(
            "is in force together with faults.{number} ({}); let one be over before the other begins",
            earlier[number].kind.as_str()
        ))
    }

    /// Why it cannot strike what this scenario drives.
    fn unfit(&self, scenario: &Scenario) -> Option<String> {
        let kind = self.kind.as_str();
        let (target, requests) = (&scenario.target, matches!(scenario.workload, Workload::ProxyRequest(_)));
        let (sqlite, container) = (target.sqlite.is_some(), target.container.is_some());
        match self.kind.family() {
            Family::Network if sqlite => Some(format!("{kind} is a fault of the network, and SQLite has none")),
            Family::Server if sqlite => Some(format!("{kind} is a fault of a server, and SQLite has none")),
            Family::Server if self.pid_file.is_none() && !container => {
                Some(format!("{kind} needs `pid_file` (and `start`), or a target in a container"))
            }
            Family::Server if self.pid_file.is_some() && self.start.is_none() && self.kind != Kind::Pause => {
                Some(format!("{kind} needs `start`, the command that starts the server again"))
            }
            Family::Server if self.pid_file.is_none() && self.kind != Kind::Pause && scenario.target.keeps_in_memory() => {
                Some(format!("{kind} empties the folders that target.container.tmpfs keeps in memory; leave tmpfs out, or use pause"))
            }
            Family::Database if requests => Some(format!("{kind} is a fault of a database under batch_insert")),
            Family::Database if sqlite && matches!(self.kind, Kind::Lock | Kind::Deadlock | Kind::ExhaustConnections) => {
                Some(format!("{kind} is a fault of a server's sessions; on SQLite use busy"))
            }
            Family::Database if !sqlite && self.kind == Kind::Busy => Some("busy is SQLite's; on a server use lock".to_owned()),
            Family::Database if !sqlite && self.kind == Kind::DiskFull => Some(
                "disk_full is SQLite's: a login to a server cannot fill its disk; give a server a small one instead, e.g. \
                 target.container.tmpfs: [/var/lib/mysql:size=300m]"
                    .to_owned(),
            ),
            Family::Database if self.kind == Kind::Deadlock => self.unlocked(scenario),
            Family::Upstream if requests && !starts_upstream(scenario) => {
                Some(format!("{kind} takes an upstream that the scenario starts; add target.http.start.upstream: {{}}"))
            }
            Family::Upstream if !requests => Some(format!("{kind} is a fault of a gateway's upstream, under proxy_request")),
            _ => match (self.kind, self.when, self.bytes) {
                (Kind::Cut, Some(CutWhen::AtByte), None) => Some("cut `when: at_byte` needs `bytes`".to_owned()),
                (Kind::Cut, Some(when), Some(_)) if when != CutWhen::AtByte => Some("`bytes` is for `when: at_byte`".to_owned()),
                (Kind::Cut, Some(CutWhen::AfterCommit), _) if requests => {
                    Some("a service has no commit; use `when: after_request`".to_owned())
                }
                _ => None,
            },
        }
    }
}
