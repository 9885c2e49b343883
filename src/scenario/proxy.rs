//! `workload.proxy_request` and `reconcile`: what is asked of a gateway, what its replies must be, and where it keeps its log.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::units::Time;
use super::{ServerConfig, SizeRange, SqliteConfig};

/// Requests to an HTTP service.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ProxyRequest {
    /// Requests in all, warm-up included: required by shared-iterations, a cap for the others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 10_000_000_000_u64))]
    pub requests: Option<u64>,
    /// Who asks; drawn evenly.
    #[serde(default = "default_users")]
    #[schemars(length(min = 1, max = 100))]
    pub users: Vec<User>,
    /// Models asked for; drawn evenly.
    #[serde(default = "default_models")]
    #[schemars(length(min = 1, max = 100))]
    pub models: Vec<String>,
    /// Values of `{{channel}}`, for gateways that are told their upstream; drawn evenly.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100))]
    pub channels: Vec<String>,
    /// Words in a prompt, its id included.
    #[serde(default = "default_prompt")]
    pub prompt: SizeRange,
    /// Where a request carries its id, beside the prompt of a chat.
    #[serde(default)]
    pub id: IdPlace,
    /// Whose replies come back.
    #[serde(default)]
    pub replies: Replies,
    /// What is asked, each in proportion to its weight.
    #[schemars(length(min = 1, max = 100))]
    pub mix: Vec<Mix>,
}

fn default_users() -> Vec<User> {
    vec![User { name: "load".to_owned(), key: None }]
}

fn default_models() -> Vec<String> {
    vec!["mock-1".to_owned()]
}

fn default_prompt() -> SizeRange {
    SizeRange { min: 8, max: 32 }
}

/// One who asks.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct User {
    /// The name, as it appears in metrics and in the gateway's log.
    pub name: String,
    /// API key, sent as `authorization: Bearer …`; belongs into `${ENV}`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
}

/// Where a request carries its id, beside the prompt of a chat.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct IdPlace {
    /// A header; `""` for none.
    pub header: String,
    /// The field `user` of a chat's body.
    pub user_field: bool,
}

impl Default for IdPlace {
    fn default() -> Self {
        Self { header: "x-request-id".to_owned(), user_field: false }
    }
}

/// Whose replies come back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Replies {
    /// Nobody knows what they must be: they are held against `checks`, and chats must be whole.
    #[default]
    Any,
    /// The mock model's (`batchsql upstream`): every request has one right reply.
    Mock,
}

/// One kind of request; exactly one of `chat`, `http` and `websocket` is set.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Mix {
    /// Its name in reports and metrics; by default its path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Its share of all requests, relative to the other weights.
    #[serde(default = "one")]
    #[schemars(range(max = 1_000_000), extend("exclusiveMinimum" = 0))]
    pub weight: f64,
    /// An OpenAI-compatible chat completion.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chat: Option<ChatRequest>,
    /// A plain HTTP request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http: Option<PlainRequest>,
    /// A WebSocket session whose messages come back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub websocket: Option<EchoSession>,
    /// What a reply must be like to count as acknowledged.
    #[serde(default)]
    pub checks: Checks,
    /// Whether the gateway logs it, for `reconcile`; by default chats are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub logged: Option<bool>,
}

impl Mix {
    /// Whether the gateway's log must have a row of it.
    #[must_use]
    pub fn is_logged(&self) -> bool {
        self.logged.unwrap_or(self.chat.is_some())
    }

    /// Its name in reports and metrics.
    #[must_use]
    pub fn route(&self) -> &str {
        let paths = [self.chat.as_ref().map(|c| &c.path), self.http.as_ref().map(|h| &h.path), self.websocket.as_ref().map(|s| &s.path)];
        self.name.as_deref().or_else(|| paths.into_iter().flatten().next().map(String::as_str)).unwrap_or("request")
    }
}

fn one() -> f64 {
    1.0
}

/// An OpenAI-compatible chat completion.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ChatRequest {
    /// Path, in front of which the target's stands.
    pub path: String,
    /// Whether the reply is asked for as a stream.
    pub stream: bool,
    /// Tokens asked for.
    #[schemars(range(min = 1, max = 100_000))]
    pub max_tokens: u32,
    /// Headers beside those that are always sent; values are templates.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, String>,
}

impl Default for ChatRequest {
    fn default() -> Self {
        Self { path: "/v1/chat/completions".to_owned(), stream: false, max_tokens: 32, headers: BTreeMap::new() }
    }
}

/// A plain HTTP request. Path, query, header values and body are templates: `{{id}}`, `{{index}}`, `{{user}}`, `{{key}}`,
/// `{{model}}`, `{{channel}}` and `{{prompt}}` are replaced.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PlainRequest {
    /// GET, POST, …
    #[serde(default = "get")]
    pub method: String,
    /// Path, in front of which the target's stands.
    #[serde(default = "root")]
    pub path: String,
    /// Query parameters.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub query: BTreeMap<String, String>,
    /// Headers.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, String>,
    /// Body.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub body: String,
}

fn get() -> String {
    "GET".to_owned()
}

fn root() -> String {
    "/".to_owned()
}

/// A WebSocket session whose messages come back.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct EchoSession {
    /// Path, in front of which the target's stands.
    pub path: String,
    /// Messages sent, each after the one before has come back.
    #[schemars(range(min = 1, max = 10_000))]
    pub messages: u32,
}

impl Default for EchoSession {
    fn default() -> Self {
        Self { path: "/v1/realtime".to_owned(), messages: 4 }
    }
}

/// What a reply must be like; one that is not is rejected with class `check`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Checks {
    /// Statuses that are right; by default 200 to 299, and others are rejected with class `status`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub status: Vec<u16>,
    /// Headers and their values; `""` asks for no value, only that the header is there.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, String>,
    /// JSON pointers (RFC 6901) and the values that must stand there.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub json: BTreeMap<String, serde_json::Value>,
    /// Text that the body must contain; a template.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub body_contains: Option<String>,
    /// The whole body; a template.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub body: Option<String>,
}

impl Checks {
    /// Whether anything is asked for.
    #[must_use]
    pub fn any(&self) -> bool {
        *self != Self::default()
    }
}

/// The gateway's request log: after the run every acknowledged request must have exactly one row in it, with the right values.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Reconcile {
    /// Where the log is; absent: the log of the gateway that the scenario starts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub database: Option<LogDatabase>,
    /// The rows of this run: a SELECT whose columns are named below. `{{ids}}` is replaced by what all ids of the run begin with,
    /// e.g. `… WHERE request_id LIKE '{{ids}}%'`.
    #[serde(default = "default_query")]
    pub query: String,
    /// Which columns of the query hold what.
    #[serde(default)]
    pub columns: LogColumns,
    /// Longest wait for a log that is written late.
    #[serde(default = "default_wait")]
    pub wait: Time,
}

fn default_query() -> String {
    "SELECT request_id, user_name, model, prompt_tokens, completion_tokens, status FROM request_logs WHERE request_id LIKE '{{ids}}%'"
        .to_owned()
}

fn default_wait() -> Time {
    Time::secs(30)
}

/// Where a log is; exactly one is set.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct LogDatabase {
    /// An SQLite file (`path`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sqlite: Option<SqliteConfig>,
    /// A PostgreSQL server.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub postgres: Option<ServerConfig>,
    /// A MySQL or MariaDB server.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mysql: Option<ServerConfig>,
}

/// Which columns of the log's query hold what; what is `""` is not compared.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct LogColumns {
    /// The request's id; it may stand anywhere in the column's text.
    pub id: String,
    /// The user's name.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub user: String,
    /// The model.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub model: String,
    /// Tokens of the prompt, as the reply told them.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub prompt_tokens: String,
    /// Tokens of the completion, as the reply told them.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub completion_tokens: String,
    /// The status.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub status: String,
}

impl Default for LogColumns {
    fn default() -> Self {
        Self {
            id: "request_id".to_owned(),
            user: "user_name".to_owned(),
            model: "model".to_owned(),
            prompt_tokens: "prompt_tokens".to_owned(),
            completion_tokens: "completion_tokens".to_owned(),
            status: "status".to_owned(),
        }
    }
}

/// Log rows that may be missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AllowLost {
    /// Rows of requests answered at most this long before the run's last answer: what a gateway that writes its log in batches may
    /// lose when it is killed.
    pub within: Time,
}
