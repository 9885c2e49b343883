//! What a gateway is told: upstreams, users, where and how it logs, and each optimisation with its switch.

use std::collections::BTreeSet;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::proxy::stats;
use crate::scenario::http::{ClientSettings, HttpClient, HttpProfile};
use crate::scenario::units::Time;
use crate::scenario::{self, ServerConfig, SqliteConfig, TargetConfig};

/// A whole configuration.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The upstreams. Of a gateway that a scenario starts: if there are none, the upstream that it starts.
    #[serde(default)]
    #[schemars(length(max = 1000))]
    pub channels: Vec<Channel>,
    /// Who may ask. Of a gateway that a scenario starts: if there are none, the scenario's users.
    #[serde(default)]
    #[schemars(length(max = 100_000))]
    pub users: Vec<User>,
    /// The log of requests.
    #[serde(default)]
    pub log: Log,
    /// The local cache of users.
    #[serde(default)]
    pub cache: Cache,
    /// How used quota is written back.
    #[serde(default)]
    pub quota_updates: QuotaUpdates,
    /// Connections to the upstreams.
    #[serde(default)]
    pub http: Http,
    /// What is counted and shown.
    #[serde(default)]
    pub metrics: stats::Settings,
    /// The CPU profile's port.
    #[serde(default)]
    pub pprof: Pprof,
    /// A reply whose header takes longer is logged as slow.
    #[serde(default = "default_slow")]
    pub slow_request: Time,
    /// Whether each request is a line on standard error.
    #[serde(default = "yes")]
    pub access_log: bool,
}

fn default_slow() -> Time {
    Time::secs(1)
}

fn yes() -> bool {
    true
}

/// One upstream.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Channel {
    /// Its name in logs and metrics.
    #[schemars(length(min = 1, max = 64))]
    pub name: String,
    /// `http://host:port` or `https://host`; a path in it goes in front of every request's.
    pub url: String,
    /// What it is shown as `Authorization: Bearer`; belongs into `${ENV}`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub api_key: Option<String>,
    /// Its share of the requests, among the channels that may serve them.
    #[serde(default = "one")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub weight: u32,
    /// The models it serves; every one if empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub models: Vec<String>,
}

fn one() -> u32 {
    1
}

/// Somebody who may ask.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct User {
    /// The name in logs and metrics.
    #[schemars(length(min = 1, max = 64))]
    pub name: String,
    /// The API key; belongs into `${ENV}`.
    #[schemars(length(min = 1, max = 1000))]
    pub key: String,
    /// Tokens that may be used; without end if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = 9_007_199_254_740_991_u64))]
    pub quota: Option<i64>,
    /// The channels that may be used; every one if empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub channels: Vec<String>,
}

/// The log of requests.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Log {
    /// Where the tables `request_logs` and `users` are.
    pub database: Database,
    /// Rows are written in batches, after the reply; otherwise each row is committed before its reply ends.
    pub batch: Batch,
    /// Whether requests that succeeded are logged.
    pub consume: bool,
}

impl Default for Log {
    fn default() -> Self {
        Self { database: Database::default(), batch: Batch::default(), consume: true }
    }
}

/// A database; at most one kind is set, and without any it is an SQLite file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Database {
    /// An SQLite file, by default `reports/data/gateway.db`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sqlite: Option<SqliteConfig>,
    /// A PostgreSQL server.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub postgres: Option<ServerConfig>,
    /// A MySQL or MariaDB server.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mysql: Option<ServerConfig>,
    /// Most connections: those that write the log, and the rest for users and quotas.
    #[schemars(range(min = 2, max = 1000))]
    pub max_open: u32,
    /// Most connections for users and quotas that are kept while idle (SQLite).
    #[schemars(range(max = 1000))]
    pub max_idle: u32,
}

impl Default for Database {
    fn default() -> Self {
        Self { sqlite: None, postgres: None, mysql: None, max_open: 5, max_idle: 2 }
    }
}

impl Database {
    /// As a target of rows.
    pub(crate) fn target(&self) -> TargetConfig {
        let Self { sqlite, postgres, mysql, .. } = self.clone();
        let sqlite = sqlite.or_else(|| (postgres.is_none() && mysql.is_none()).then(SqliteConfig::default));
        // SQLite has one writer; a server's log may take all but one.
        let size = if sqlite.is_some() { 1 } else { self.max_open.saturating_sub(1).clamp(1, 4) };
        let pool = scenario::Pool { size: Some(size), ..scenario::Pool::default() };
        TargetConfig { sqlite, postgres, mysql, pool, ..TargetConfig::default() }
    }

    /// The SQLite file's settings, made if no database is named; `None` on a server.
    pub(crate) fn sqlite_mut(&mut self) -> Option<&mut SqliteConfig> {
        let server = self.postgres.is_some() || self.mysql.is_some();
        (!server).then(|| self.sqlite.get_or_insert_default())
    }
}

/// Log rows in batches.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Batch {
    /// Whether rows are written in batches.
    pub enabled: bool,
    /// Rows in a batch.
    #[schemars(range(min = 1, max = 100_000))]
    pub size: usize,
    /// Longest wait of a row for its batch to fill: what a crash may lose.
    pub flush_interval: Time,
}

impl Default for Batch {
    fn default() -> Self {
        Self { enabled: true, size: 50, flush_interval: Time::secs(5) }
    }
}

/// The local cache of users: without it each request asks the database.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Cache {
    /// Whether it is used.
    pub enabled: bool,
    /// How long a user is remembered.
    pub ttl: Time,
}

impl Default for Cache {
    fn default() -> Self {
        Self { enabled: true, ttl: Time::secs(60) }
    }
}

/// How used quota is written back: together, or with each request before its reply ends.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct QuotaUpdates {
    /// Whether updates of many requests are written together.
    pub batched: bool,
    /// How often.
    pub interval: Time,
}

impl Default for QuotaUpdates {
    fn default() -> Self {
        Self { batched: true, interval: Time::secs(5) }
    }
}

/// Connections to the upstreams.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Http {
    /// A named set of settings.
    pub profile: HttpProfile,
    /// Single settings, over the profile's.
    pub client: HttpClient,
}

impl Http {
    /// Every value.
    pub(crate) fn settings(&self) -> ClientSettings {
        self.client.over(self.profile)
    }
}

/// The CPU profile's port.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Pprof {
    /// Whether it is served.
    pub enabled: bool,
    /// Its port on loopback.
    pub port: u16,
}

impl Default for Pprof {
    fn default() -> Self {
        Self { enabled: false, port: 6060 }
    }
}

impl Config {
    /// What no type can refuse: the path of each value that is wrong, and the mend. Keys are in no message.
    #[must_use]
    pub fn problems(&self) -> Vec<(String, String)> {
        let mut problems = Vec::new();
        for (key, empty) in [("channels", self.channels.is_empty()), ("users", self.users.is_empty())] {
            if empty {
                problems.push((key.to_owned(), "has nobody; name at least one".to_owned()));
            }
        }
        let mut names = BTreeSet::new();
        for (index, channel) in self.channels.iter().enumerate() {
            let told = |key: &str, message: String| (format!("channels.{index}.{key}"), message);
            if !names.insert(channel.name.as_str()) {
                problems.push(told("name", format!("{:?} is another channel's too; give each its own", channel.name)));
            }
            problems.extend(url_problem(&channel.url).map(|message| told("url", message)));
            if channel.api_key.as_ref().is_some_and(|key| !is_token(key)) {
                problems.push(told("api_key", "holds characters that no header can carry; write visible ASCII".to_owned()));
            }
        }
        let (mut users, mut keys) = (BTreeSet::new(), BTreeSet::new());
        for (index, user) in self.users.iter().enumerate() {
            let told = |key: &str, message: String| (format!("users.{index}.{key}"), message);
            if !users.insert(user.name.as_str()) {
                problems.push(told("name", format!("{:?} is another user's too; give each its own", user.name)));
            }
            if !keys.insert(user.key.as_str()) {
                problems.push(told("key", "is another user's too; give each its own".to_owned()));
            }
            if !is_token(&user.key) {
                problems.push(told("key", "holds characters that no header can carry; write visible ASCII".to_owned()));
            }
            if user.quota.is_some_and(|quota| quota < 0) {
                problems.push(told("quota", "is below 0; write a number of tokens, or leave it out for no end".to_owned()));
            }
            for name in user.channels.iter().filter(|name| !names.contains(name.as_str())) {
                problems.push(told("channels", format!("{name:?} is no channel; known: {}", Vec::from_iter(names.clone()).join(", "))));
            }
        }
        let Database { sqlite, postgres, mysql, .. } = &self.log.database;
        if [sqlite.is_some(), postgres.is_some(), mysql.is_some()].iter().filter(|set| **set).count() > 1 {
            problems.push(("log.database".to_owned(), "names more than one database; keep one of sqlite, postgres and mysql".to_owned()));
        }
        for (path, time) in [
            ("log.batch.flush_interval", self.log.batch.flush_interval),
            ("cache.ttl", self.cache.ttl),
            ("quota_updates.interval", self.quota_updates.interval),
        ] {
            if time.0.is_zero() || time.0.as_secs() > 86_400 {
                problems.push((path.to_owned(), "write more than 0s and at most 1 day; switch it off with its own key".to_owned()));
            }
        }
        problems
    }

    /// What must not be shown: keys and passwords, however they came here.
    #[must_use]
    pub fn secrets(&self) -> Vec<String> {
        let keys = self.channels.iter().filter_map(|channel| channel.api_key.clone()).chain(self.users.iter().map(|user| user.key.clone()));
        let urls = [&self.log.database.postgres, &self.log.database.mysql].into_iter().flatten().map(|server| &server.url);
        let keys = keys.chain(self.metrics.admin_token.clone());
        let urls = urls.chain(&self.metrics.vm_url);
        let passwords = urls.chain(self.channels.iter().map(|channel| &channel.url)).flat_map(|url| crate::redact::secrets_of_url(url));
        keys.chain(passwords).collect()
    }
}

/// Whether `key` can stand behind `Bearer`.
fn is_token(key: &str) -> bool {
    !key.is_empty() && key.bytes().all(|byte| byte.is_ascii_graphic())
}

fn url_problem(url: &str) -> Option<String> {
    let shape = "write http://host:port or https://host";
    let parsed = match url::Url::parse(url) {
        Ok(parsed) => parsed,
        Err(error) => return Some(format!("is no URL ({error}); {shape}")),
    };
    let fits = matches!(parsed.scheme(), "http" | "https") && parsed.has_host();
    if !fits {
        return Some(format!("begins with `{}:`; {shape}", parsed.scheme()));
    }
    let more = parsed.query().is_some() || parsed.fragment().is_some() || !parsed.username().is_empty() || parsed.password().is_some();
    more.then(|| format!("holds more than a host and a path; {shape}, the key in api_key"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_contradicts_itself_is_told_all_at_once_and_without_keys() {
        let config: Config = serde_json::from_value(json!({
            "channels": [{"name": "a", "url": "http://127.0.0.1:1"}, {"name": "a", "url": "ftp://x"}, {"name": "b", "url": "http://u:pw@x", "api_key": "a b"}],
            "users": [{"name": "u", "key": "s3cret"}, {"name": "u", "key": "s3cret", "channels": ["c"], "quota": -1}],
            "log": {"database": {"sqlite": {}, "mysql": {"url": "mysql://x"}}},
            "cache": {"ttl": "0s"},
        }))
        .unwrap();
        let told: Vec<String> = config.problems().into_iter().map(|(path, message)| format!("{path}: {message}")).collect();
        insta::assert_snapshot!(told.join("\n"));
        assert_eq!(config.secrets(), ["a b", "s3cret", "s3cret", "pw"]);
    }

    #[test]
    fn defaults_are_the_source_systems() {
        let config: Config = serde_json::from_value(json!({"channels": [], "users": []})).unwrap();
        assert_eq!((config.log.batch.size, config.log.batch.flush_interval.0.as_secs(), config.log.consume), (50, 5, true));
        assert_eq!((config.cache.ttl.0.as_secs(), config.quota_updates.interval.0.as_secs()), (60, 5));
        assert_eq!((config.log.database.max_open, config.log.database.max_idle, config.pprof.port), (5, 2, 6060));
        assert_eq!(config.http.settings(), HttpProfile::Default.settings());
        assert!(config.log.database.target().sqlite.is_some());
    }
}
