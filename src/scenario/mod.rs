//! One experiment as a file: the types below are the single source of what a scenario may say. Their JSON Schema validates the
//! file ([`load`]), their `serde` form is what reports keep, and [`rules`] refuses what no type can.

pub mod container;
pub mod database_url;
pub mod fault;
pub mod guard;
pub mod http;
pub mod interpolate;
pub mod load;
pub mod overrides;
pub mod plan;
pub mod proxy;
pub mod rules;
pub mod schema;
pub mod switch;
pub mod tree;
pub mod units;

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::gate::Gate;
use crate::target::{Conflict, Method};
use units::{Share, Time};

/// A whole scenario file.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    /// Name, as it appears in reports and in the `test_name` label.
    pub name: String,
    /// What the scenario is for and for whom.
    #[serde(default)]
    pub description: String,
    /// Everything random comes from it.
    #[serde(default = "default_seed")]
    #[schemars(range(max = 18_446_744_073_709_551_615_u64))]
    pub seed: u64,
    /// What is driven: exactly one of `sqlite`, `postgres`, `mysql`, `http`.
    #[serde(default)]
    pub target: TargetConfig,
    /// What is done to it.
    pub workload: Workload,
    /// How it is offered.
    pub load: Load,
    /// How what is stored is checked afterwards.
    #[serde(default)]
    pub verify: Verify,
    /// The gateway's request log, which is held against the requests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reconcile: Option<proxy::Reconcile>,
    /// What goes wrong on purpose while the load is offered.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100))]
    pub faults: Vec<fault::Fault>,
    /// Conditions the run must meet.
    #[serde(default)]
    #[schemars(length(max = 1000))]
    pub gates: Vec<Gate>,
    /// Holds or stops the load while the target is in trouble.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub guard: Option<guard::Guard>,
    /// What is exported.
    #[serde(default)]
    pub metrics: Metrics,
}

/// The one of `known` that `word` was probably meant to be.
#[must_use]
pub fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let distance = |candidate: &&str| strsim::damerau_levenshtein(word, candidate);
    // A slip in every third letter, two at most; or a long common beginning.
    let near = |candidate: &&str| distance(candidate) <= word.len().min(6) / 3 || strsim::jaro_winkler(word, candidate) > 0.85;
    known.into_iter().filter(near).min_by_key(distance)
}

fn default_seed() -> u64 {
    42
}

/// The target; exactly one kind is set.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TargetConfig {
    /// An embedded SQLite file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sqlite: Option<SqliteConfig>,
    /// A PostgreSQL server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub postgres: Option<ServerConfig>,
    /// A MySQL or MariaDB server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mysql: Option<ServerConfig>,
    /// An HTTP service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http: Option<http::HttpTarget>,
    /// Starts that kind of target for the run, in a container.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container: Option<container::Container>,
    /// Connections to a database and their time limits.
    #[serde(default)]
    pub pool: Pool,
    /// Hosts beyond loopback that may be driven.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100))]
    pub allow_hosts: Vec<String>,
    /// Lets a server beyond loopback be driven without verified TLS.
    #[serde(default)]
    pub insecure_tls: bool,
}

/// An embedded SQLite file and its pragmas.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SqliteConfig {
    /// The database file; by default `<report-dir>/data/<scenario name>.db`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// A named set of pragmas.
    #[serde(default)]
    pub profile: PragmaProfile,
    /// Single pragmas, over the profile's.
    #[serde(default)]
    pub pragmas: BTreeMap<Pragma, PragmaValue>,
    /// What a fault keeps its connections from.
    #[serde(skip)]
    #[doc(hidden)]
    pub restraint: switch::Switch<crate::target::sqlite::Restraint>,
}

/// Named sets of pragmas; the values stand in the README.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum PragmaProfile {
    /// journal DELETE, synchronous FULL: SQLite as it comes.
    Off,
    /// WAL with a smaller cache.
    Conservative,
    /// WAL, synchronous NORMAL, 64 MB cache, 256 MiB mapped.
    #[default]
    Default,
    /// WAL with twice the cache and twice the mapping.
    Aggressive,
}

/// The pragmas a scenario may set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "SQLite's own names")]
pub enum Pragma {
    JournalMode,
    Synchronous,
    CacheSize,
    MmapSize,
    TempStore,
    BusyTimeout,
    WalAutocheckpoint,
    ForeignKeys,
    PageSize,
    MaxPageCount,
}

/// A pragma's value: a number or a word.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum PragmaValue {
    /// e.g. `cache_size: -64000`.
    Number(#[schemars(range(min = -9_223_372_036_854_775_808_i64, max = 9_223_372_036_854_775_807_i64))] i64),
    /// e.g. `journal_mode: WAL`.
    Word(String),
}

/// A database server.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ServerConfig {
    /// `postgres://user:password@host:port/database` or `mysql://…`; passwords belong into `${ENV}`. Absent: what `target.container`
    /// starts.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub url: String,
}

/// Connections and their time limits.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Pool {
    /// Most connections; by default what the pipeline's concurrency needs.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1000))]
    pub size: Option<u32>,
    /// Longest wait for a server to accept a connection.
    pub connect_timeout: Time,
    /// Longest wait for a free connection.
    pub acquire_timeout: Time,
    /// Longest time for the answer to one batch; beyond it the outcome is unknown.
    pub statement_timeout: Time,
}

impl Default for Pool {
    fn default() -> Self {
        Self { size: None, connect_timeout: Time::secs(5), acquire_timeout: Time::secs(30), statement_timeout: Time::secs(30) }
    }
}

/// What is done to the target.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Workload {
    /// Rows through the batch pipeline.
    BatchInsert(BatchInsert),
    /// Requests to an HTTP service.
    ProxyRequest(proxy::ProxyRequest),
}

impl Workload {
    /// Operations in all, if the workload says so.
    #[must_use]
    pub fn operations(&self) -> Option<u64> {
        match self {
            Workload::BatchInsert(insert) => insert.rows,
            Workload::ProxyRequest(proxy) => proxy.requests,
        }
    }

    /// What one operation is called, for people.
    #[must_use]
    pub fn unit(&self) -> &'static str {
        match self {
            Workload::BatchInsert(_) => "rows",
            Workload::ProxyRequest(_) => "requests",
        }
    }

    /// The batch inserts, if it is those.
    #[must_use]
    pub fn batch_insert(&self) -> Option<&BatchInsert> {
        if let Workload::BatchInsert(insert) = self { Some(insert) } else { None }
    }
}

/// A mapping with one of the two: what editors and error messages take better than a choice of mappings.
impl JsonSchema for Workload {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Workload".into()
    }

    fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        let mut schema = schemars::json_schema!({
            "description": "What is done to the target: exactly one of `batch_insert`, `proxy_request`.",
            "type": "object",
            "additionalProperties": false,
            "minProperties": 1,
            "maxProperties": 1,
            "properties": {
                "batch_insert": generator.subschema_for::<BatchInsert>(),
                "proxy_request": generator.subschema_for::<proxy::ProxyRequest>(),
            }
        });
        schema.remove("title");
        schema
    }
}

/// Rows through the batch pipeline.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BatchInsert {
    /// Table to create and fill.
    #[serde(default = "default_table")]
    pub table: String,
    /// Rows in all, warm-up included: required by shared-iterations, a cap for the others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 10_000_000_000_u64))]
    pub rows: Option<u64>,
    /// The table's columns; by default the seven of `integration_test`.
    #[serde(default = "default_columns")]
    #[schemars(length(min = 1, max = 100))]
    pub columns: Vec<ColumnConfig>,
    /// Whether the key is unique. `false` gives the table a surrogate primary key, so that duplicates can be stored and seen.
    #[serde(default = "yes")]
    pub unique_key: bool,
    /// What the values are like.
    #[serde(default)]
    pub content: Content,
    /// Share of rows whose key was used by an earlier row.
    #[serde(default)]
    pub duplicate_keys: Share,
    /// What happens to a key that exists.
    #[serde(default)]
    pub conflict: Conflict,
    /// How rows travel.
    #[serde(default)]
    pub method: Method,
    /// The batch pipeline's settings.
    #[serde(default)]
    pub pipeline: PipelineConfig,
}

fn default_table() -> String {
    "integration_test".to_owned()
}

fn yes() -> bool {
    true
}

/// One column.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ColumnConfig {
    /// Its name.
    pub name: String,
    /// `int64`, `float64`, `decimal(p,s)`, `bool`, `text`, `bytes`, `timestamp` or `uuid`.
    #[serde(rename = "type")]
    pub ty: units::TypeName,
    /// Marks the key: exactly one `int64` column.
    #[serde(default, skip_serializing_if = "is_false")]
    pub key: bool,
    /// Whether NULL may be stored.
    #[serde(default, skip_serializing_if = "is_false")]
    pub nullable: bool,
    /// Whether a secondary index is kept on it.
    #[serde(default, skip_serializing_if = "is_false")]
    pub index: bool,
    /// Sizes of this column's texts (characters) or byte strings (bytes), over `content.size`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<SizeRange>,
}

fn is_false(flag: &bool) -> bool {
    !flag
}

/// The seven columns of `integration_test`.
#[must_use]
pub fn default_columns() -> Vec<ColumnConfig> {
    use crate::table::ColumnType as T;
    let column = |name: &str, ty: T| ColumnConfig {
        name: name.to_owned(),
        ty: units::TypeName(ty),
        key: name == "id",
        nullable: false,
        index: matches!(name, "name" | "email"),
        size: None,
    };
    vec![
        column("id", T::Int64),
        column("name", T::Text),
        column("email", T::Text),
        column("data", T::Text),
        column("value", T::Decimal { precision: 10, scale: 2 }),
        column("is_active", T::Bool),
        column("created_at", T::Timestamp),
    ]
}

/// What the values are like.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Content {
    /// Sizes of texts (characters) and byte strings (bytes).
    pub size: SizeRange,
    /// Which characters texts are made of.
    pub charset: Charset,
    /// Where the texts of indexed columns fall in their index.
    pub index_order: IndexOrder,
    /// Share of NULLs in nullable columns.
    pub nulls: Share,
    /// Share of values that are an extreme of their type (longest, empty, least, greatest).
    pub extremes: Share,
}

impl Default for Content {
    fn default() -> Self {
        Self {
            size: SizeRange { min: 12, max: 40 },
            charset: Charset::Ascii,
            index_order: IndexOrder::Ascending,
            nulls: Share(0.0),
            extremes: Share(0.0),
        }
    }
}

/// A range of sizes, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SizeRange {
    /// Least.
    #[schemars(range(max = 1_048_576))]
    pub min: u32,
    /// Greatest.
    #[schemars(range(max = 1_048_576))]
    pub max: u32,
}

/// Which characters texts are made of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Charset {
    /// Letters, digits and punctuation.
    #[default]
    Ascii,
    /// Characters of one to four bytes in UTF-8, emoji among them.
    Unicode,
}

/// Where the texts of indexed columns fall in their index.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum IndexOrder {
    /// Each begins with the row's number, as serial names do: an index grows at its end, and the writing is what is measured.
    #[default]
    Ascending,
    /// Anywhere, as e-mail addresses do: an index larger than the cache is what is measured.
    Random,
}

/// The batch pipeline's settings.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct PipelineConfig {
    /// Rows the queue holds before `submit` waits.
    #[schemars(range(min = 1, max = 10_000_000))]
    pub buffer_size: usize,
    /// Rows in a batch.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub flush_size: usize,
    /// Longest wait of a row for its batch to fill.
    pub flush_interval: Time,
    /// Batches in flight at once; by default 1 on SQLite and 4 on a server.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1000))]
    pub concurrency: Option<usize>,
    /// What happens after a failed attempt.
    pub retry: Retry,
}

impl Default for PipelineConfig {
    fn default() -> Self {
        Self { buffer_size: 5000, flush_size: 200, flush_interval: Time::millis(100), concurrency: None, retry: Retry::default() }
    }
}

/// What happens after a failed attempt: exponential backoff with jitter, for transient classes only.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Retry {
    /// Attempts in all; 1 means no retry.
    #[schemars(range(min = 1, max = 100))]
    pub attempts: u32,
    /// Wait before the first retry.
    pub base: Time,
    /// Longest wait.
    pub max: Time,
    /// Factor from one wait to the next.
    #[schemars(range(min = 1, max = 100))]
    pub factor: f64,
    /// Random share added to or taken from each wait.
    pub jitter: Share,
    /// Retries a batch of unknown outcome although the table has no unique key: may store rows twice.
    #[serde(rename = "unsafe")]
    pub allow_duplicates: bool,
}

impl Default for Retry {
    fn default() -> Self {
        Self { attempts: 5, base: Time::millis(20), max: Time::secs(2), factor: 2.0, jitter: Share(0.2), allow_duplicates: false }
    }
}

/// How operations are offered.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Load {
    /// Which of the five executors.
    pub executor: Executor,
    /// Workers of the closed executors (`shared-iterations`, `constant-vus`); by default 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100_000))]
    pub vus: Option<u32>,
    /// Length of `constant-vus` and `constant-arrival-rate`, warm-up not included.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duration: Option<Time>,
    /// Operations a second of `constant-arrival-rate`, and the rate `ramping-arrival-rate` starts from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = 10_000_000), extend("exclusiveMinimum" = 0))]
    pub rate: Option<f64>,
    /// The ramps of `ramping-vus` (`target` = workers) and `ramping-arrival-rate` (`target` = operations a second).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 1000))]
    pub stages: Vec<Stage>,
    /// How starts are spread (arrival-rate executors).
    #[serde(default)]
    pub arrivals: Arrivals,
    /// Time before phase `main` under the first load of the schedule; verified, not measured.
    #[serde(default)]
    pub warmup: Time,
    /// Pause of a worker after each operation (closed executors).
    #[serde(default)]
    pub think_time: Time,
    /// Most operations submitted and not yet answered; by default bounded by the pipeline's queue and batches alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000_000))]
    pub max_in_flight: Option<u64>,
    /// What happens to an operation that is due while no slot is free (arrival-rate executors).
    #[serde(default)]
    pub saturation: Saturation,
    /// Greatest p99 of the generator's own lateness at which the load counts as offered.
    #[serde(default = "default_lag_limit")]
    pub lag_limit: Time,
}

fn default_lag_limit() -> Time {
    Time::millis(10)
}

/// How load is offered, by k6's names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[expect(missing_docs, reason = "k6's names")]
pub enum Executor {
    SharedIterations,
    ConstantVus,
    RampingVus,
    ConstantArrivalRate,
    RampingArrivalRate,
}

/// One piece of a ramp: from the value before it, in a straight line, to `target`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Stage {
    /// How long it takes.
    pub duration: Time,
    /// Workers, or operations a second, at its end.
    #[schemars(range(min = 0, max = 10_000_000))]
    pub target: f64,
}

/// How starts are spread over time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Arrivals {
    /// Evenly.
    #[default]
    Uniform,
    /// With exponentially distributed gaps, as independent users make them.
    Poisson,
}

/// What happens to an operation that is due while no slot is free.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Saturation {
    /// It waits; its response time counts from its intended start.
    #[default]
    Queue,
    /// It is counted as dropped.
    Drop,
    /// The load stops.
    Abort,
}

/// How what is stored is checked afterwards.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Verify {
    /// The method.
    pub method: VerifyMethod,
    /// Longest wait for the run's sessions to end before reading.
    pub quiesce_timeout: Time,
    /// Key ranges read in parallel; by default one a core.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 256))]
    pub readers: Option<usize>,
    /// The mock upstream's own ledger, which says how often each request reached it; of an upstream that the scenario starts it is
    /// known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub upstream_ledger: Option<String>,
    /// Rows that the gateway's log may lack; without it none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allow_lost: Option<proxy::AllowLost>,
}

impl Default for Verify {
    fn default() -> Self {
        Self { method: VerifyMethod::Full, quiesce_timeout: Time::secs(60), readers: None, upstream_ledger: None, allow_lost: None }
    }
}

/// How what is stored is compared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum VerifyMethod {
    /// Every row is read back and compared byte by byte.
    #[default]
    Full,
    /// The database sums up ranges of rows, and those whose sums are not as expected are read back and compared.
    Digest,
    /// Nothing is checked: the run is inconclusive.
    Off,
}

/// What is exported.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Metrics {
    /// Goes in front of every metric name, e.g. `staging_`.
    pub prefix: String,
    /// Constant label `env` on every series; none if empty.
    pub env: String,
}
