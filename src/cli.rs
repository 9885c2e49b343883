//! The command line, and nothing but its shape: no other module knows clap.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::scenario::units::Share;

/// Load for databases and gateways that proves what it was told is stored, and says how fast it honestly was.
///
/// Throughput is void unless integrity holds: after every run each row is read back and compared with what was acknowledged.
#[derive(Debug, Parser)]
#[command(
    version,
    after_help = "Example: batchsql run scenarios/quickstart.yaml\n\n\
    Exit codes: 0 pass, 1 a gate was missed, 2 could not run, 3 inconclusive, 4 integrity violated, 130 interrupted"
)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
    /// What standard error is made of.
    #[arg(long, global = true, value_enum, default_value = "text")]
    pub log_format: LogFormat,
    /// Append everything that is said to this file too, as JSON lines.
    #[arg(long, global = true, value_name = "PATH")]
    pub log_file: Option<PathBuf>,
}

/// What standard error is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// Lines for people.
    Text,
    /// A JSON object a line.
    Json,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run scenarios, one after the other, and judge them.
    #[command(after_help = "Examples:\n  batchsql run scenarios/quickstart.yaml\n  \
        batchsql run scenarios/quickstart.yaml --database-url postgres://user:password@127.0.0.1/test\n  \
        batchsql run scenarios/quickstart.yaml --set workload.batch_insert.pipeline.flush_size=1000")]
    Run(Box<RunArgs>),
    /// Hold two sides against each other: scenarios run in turns, or saved reports.
    ///
    /// Every figure gets a ratio with a 95 % interval and a verdict: better, worse, no difference shown, or too noisy to say. Without
    /// gates the exit code is 0 even if a side is worse.
    #[command(after_help = "Examples:\n  \
        batchsql compare scenarios/compare/sqlite_off.yaml scenarios/compare/sqlite_aggressive.yaml\n  \
        batchsql compare scenarios/quickstart.yaml --before workload.batch_insert.pipeline.flush_size=50 \
        --after workload.batch_insert.pipeline.flush_size=500\n  \
        batchsql compare scenarios/quickstart.yaml --aa --pairs 5\n  \
        batchsql compare old.yaml new.yaml --gate 'response.p99 <= before * 1.10'\n  \
        batchsql compare reports/RUN-BEFORE reports/RUN-AFTER")]
    Compare(CompareArgs),
    /// Validate scenarios and print their plans; connects to nothing.
    #[command(after_help = "Example: batchsql check scenarios/arrival_rate.yaml")]
    Check(CheckArgs),
    /// Read a finished or killed run's table back and judge it again by the run's ledger.
    #[command(after_help = "Example: batchsql verify reports/20260102-030405-quickstart-1a2b")]
    Verify(VerifyArgs),
    /// Say of each part of the stack whether it is well, ill or absent, and the mend.
    ///
    /// Exit code 0: all that is there is well; 1: something is ill; 2: it could not look.
    #[command(after_help = "Examples:\n  batchsql doctor\n  \
        batchsql doctor --database-url postgres://user:password@127.0.0.1/test --prometheus-url http://127.0.0.1:9090")]
    Doctor(DoctorArgs),
    /// Keep reports that later runs are held against: plain files in baselines/ of the report folder, made to be committed.
    #[command(
        after_help = "Examples:\n  batchsql baseline save quickstart\n  batchsql run scenarios/quickstart.yaml --baseline quickstart\n  \
        batchsql baseline check quickstart 20260102-030405-quickstart-1a2b"
    )]
    Baseline(BaselineArgs),
    /// List and draw past runs: what moved and after which commit, and which runs are unlike the others.
    ///
    /// What is not in the store yet is picked up from the reports first; a damaged store is put aside and made again from them.
    #[command(after_help = "Examples:\n  batchsql history\n  batchsql history quickstart")]
    History(HistoryArgs),
    /// Write what the runs of some weeks say together, or one run as an incident, as Markdown into the report folder.
    #[command(after_help = "Examples:\n  batchsql report --since 30d\n  batchsql report --incident 20260102-030405-quickstart-1a2b")]
    Report(ReportArgs),
    /// Serve the reference AI gateway: OpenAI-compatible, logging each request to a database.
    ///
    /// Its optimisations are switched by the configuration, or by environment variables (also in .env), which win.
    #[command(after_help = "Example: batchsql proxy --config config/gateway.yaml")]
    Proxy(ProxyArgs),
    /// Print the JSON Schema of a scenario, for editors.
    #[command(after_help = "Example: batchsql schema > scenario.schema.json")]
    Schema,
    /// Find the highest arrival rate at which the gates hold, as an interval, every step verified.
    ///
    /// Exit code 0: found; 1: not even the lowest rate holds; 3: undecided; 4: integrity violated, no rate counts.
    #[command(after_help = "Example: batchsql search scenarios/arrival_rate.yaml --while \"response.p99 < 50ms\" --from 1000 --to 100000")]
    Search(Box<SearchArgs>),
    /// Serve past runs, their metrics and the alerts that came, over HTTP; Ctrl-C ends it.
    ///
    /// Whatever changes something needs a bearer token: the one of --token-file, or of BATCHSQL_SERVE_TOKEN.
    #[command(after_help = "Example: batchsql serve --listen 127.0.0.1:3009 --report-dir reports")]
    Serve(ServeArgs),
    /// Run a scenario with every combination of values, and name the best that passes its gates.
    ///
    /// The same command goes on where it was interrupted. Exit code 0: a best cell was found; 1: none passes; 4: integrity violated in one.
    #[command(
        after_help = "Example: batchsql sweep scenarios/quickstart.yaml --vary workload.batch_insert.pipeline.flush_size=50,200,1000"
    )]
    Sweep(Box<SweepArgs>),
    /// Serve a mock model that speaks the OpenAI API, for gateways to stand before; Ctrl-C ends it.
    #[command(after_help = "Examples:\n  batchsql upstream --listen 127.0.0.1:3002\n  \
        batchsql upstream --config upstream.yaml, with e.g. in it:\n    \
        latency: {median: 50ms, p99: 400ms}\n    token_interval: 10ms\n    errors: 1%\n    \
        stalls: {share: 0.5%, for: 3s}\n    cuts: 0.5%\n    ledger: upstream.jsonl")]
    Upstream(UpstreamArgs),
}

/// Which scenarios, and what is changed in them.
#[derive(Clone, Debug, Args)]
pub struct Scenarios {
    /// Scenario files (YAML).
    #[arg(required = true, value_name = "SCENARIO")]
    pub files: Vec<PathBuf>,
    /// Override a value of the scenario; may be given several times.
    #[arg(long, value_name = "PATH.TO.KEY=VALUE")]
    pub set: Vec<String>,
    /// Drive this database instead of the scenario's: sqlite://…, postgres://… or mysql://….
    #[arg(long, value_name = "URL")]
    pub database_url: Option<String>,
    /// Send requests to this service instead of the scenario's: http://… or https://….
    #[arg(long, value_name = "URL", conflicts_with = "database_url")]
    pub target_url: Option<String>,
    /// Let this host beyond loopback be driven; may be given several times, and replaces the scenario's target.allow_hosts.
    #[arg(long, value_name = "HOST")]
    pub allow_host: Vec<String>,
    /// Let a server beyond loopback be driven without verified TLS.
    #[arg(long)]
    pub insecure_tls: bool,
    /// Use this seed instead of the scenario's.
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,
}

/// `batchsql run`.
#[derive(Debug, Args)]
pub struct RunArgs {
    /// Which scenarios.
    #[command(flatten)]
    pub scenarios: Scenarios,
    /// Where each run's folder of reports is made.
    #[arg(long, value_name = "DIR", default_value = "reports")]
    pub report_dir: PathBuf,
    /// Hold the run against this baseline (its name, or the path of its file), and refuse before it what cannot be compared.
    #[arg(long, value_name = "NAME")]
    pub baseline: Option<String>,
    /// Where the run is put among past ones [default: history.db in the report folder].
    #[arg(long, value_name = "FILE")]
    pub history: Option<PathBuf>,
    /// Serve Prometheus metrics here [default: 127.0.0.1:9464].
    #[arg(long, value_name = "ADDR", env = "BATCHSQL_METRICS_LISTEN")]
    pub metrics_listen: Option<SocketAddr>,
    /// Keep serving metrics this long after the last run, so that a scraper sees its end.
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration, default_value = "0s")]
    pub metrics_linger: Duration,
    /// Put this in front of every metric's name, instead of the scenario's metrics.prefix: e.g. prod_.
    #[arg(long, value_name = "PREFIX")]
    pub metrics_prefix: Option<String>,
    /// Give every metric this label env, instead of the scenario's metrics.env.
    #[arg(long, value_name = "NAME")]
    pub env: Option<String>,
    /// Serve no metrics, whatever address is set.
    #[arg(long, conflicts_with = "metrics_linger")]
    pub no_metrics: bool,
    /// Leave the container of a scenario's target running after the run, and say how to reach it.
    #[arg(long)]
    pub keep_containers: bool,
    /// Where metrics and traces are pushed.
    #[command(flatten)]
    pub push: PushArgs,
    /// Register the metrics in Consul while it runs: http://127.0.0.1:8500; a token is read from CONSUL_HTTP_TOKEN [env: CONSUL_HTTP_ADDR=].
    #[arg(long, value_name = "URL", conflicts_with = "no_metrics")]
    pub consul: Option<String>,
    /// Serve CPU profiles of this program here, on loopback: e.g. 127.0.0.1:6060.
    #[arg(long, value_name = "ADDR")]
    pub pprof_listen: Option<SocketAddr>,
    /// Push CPU profiles of this program to Pyroscope: http://127.0.0.1:4040.
    #[arg(long, value_name = "URL", conflicts_with = "pprof_listen")]
    pub pyroscope: Option<String>,
    /// Shell command to run between drain and verification.
    #[arg(long, value_name = "CMD")]
    pub before_verify: Option<String>,
    /// Leave verification out: nothing is proven and the run is inconclusive.
    #[arg(long)]
    pub no_verify: bool,
    /// Print the report as JSON on standard output and nothing else.
    #[arg(long)]
    pub json: bool,
    /// Show no progress and no summary.
    #[arg(long, short)]
    pub quiet: bool,
}

/// Where metrics and traces are pushed.
#[derive(Debug, Args)]
pub struct PushArgs {
    /// Push metrics to this Prometheus remote-write receiver (Prometheus, VictoriaMetrics), every 2 s and at the end.
    #[arg(long, value_name = "URL", env = "BATCHSQL_REMOTE_WRITE", hide_env_values = true)]
    pub remote_write: Option<String>,
    /// Push metrics and traces to this OpenTelemetry collector (OTLP over HTTP, usually port 4318).
    #[arg(long, value_name = "URL", env = "OTEL_EXPORTER_OTLP_ENDPOINT", hide_env_values = true)]
    pub otlp: Option<String>,
    /// Share of batches and requests that become a span.
    #[arg(long, value_name = "SHARE", default_value = "1%")]
    pub otlp_sample: Share,
    /// Name of this harness in what is pushed [default: host:pid].
    #[arg(long, value_name = "NAME", env = "BATCHSQL_INSTANCE")]
    pub instance: Option<String>,
}

/// `batchsql compare`.
#[derive(Debug, Args)]
pub struct CompareArgs {
    /// The sides: one scenario or two, or two saved reports (`report.json`, or the folder of a run).
    #[command(flatten)]
    pub scenarios: Scenarios,
    /// Override a value of the first side alone; may be given several times.
    #[arg(long, value_name = "PATH.TO.KEY=VALUE")]
    pub before: Vec<String>,
    /// Override a value of the second side alone; may be given several times.
    #[arg(long, value_name = "PATH.TO.KEY=VALUE")]
    pub after: Vec<String>,
    /// Run one scenario against itself: what is found is noise.
    #[arg(long)]
    pub aa: bool,
    /// Runs of each side.
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = pairs)]
    pub pairs: usize,
    /// A condition on the second side, e.g. "response.p99 <= before * 1.10"; may be given several times.
    #[arg(long, value_name = "GATE")]
    pub gate: Vec<String>,
    /// Where the noise would have hidden a change of this share, "too noisy to say" is said.
    #[arg(long, value_name = "SHARE", default_value = "10%", value_parser = crate::comparing::command::share)]
    pub detect: f64,
    /// Compare saved reports of different circumstances too, each related to its own machine's calibration.
    #[arg(long)]
    pub across_machines: bool,
    /// Where the comparison's folder is made, with those of its runs in it.
    #[arg(long, value_name = "DIR", default_value = "reports")]
    pub report_dir: PathBuf,
    /// Print the comparison as JSON on standard output and nothing else.
    #[arg(long)]
    pub json: bool,
    /// Show no progress and no table.
    #[arg(long, short)]
    pub quiet: bool,
}

fn pairs(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|pairs| (1..=50).contains(pairs)).ok_or_else(|| "write a number from 1 to 50".to_owned())
}

/// `batchsql check`.
#[derive(Debug, Args)]
pub struct CheckArgs {
    /// Which scenarios.
    #[command(flatten)]
    pub scenarios: Scenarios,
}

/// `batchsql verify`.
#[derive(Debug, Args)]
pub struct VerifyArgs {
    /// A run's id or the path of its folder.
    #[arg(value_name = "RUN")]
    pub run: PathBuf,
    /// The database again, if its URL carried a password.
    #[arg(long, value_name = "URL")]
    pub database_url: Option<String>,
    /// Where run ids are looked up.
    #[arg(long, value_name = "DIR", default_value = "reports")]
    pub report_dir: PathBuf,
    /// Print the findings as JSON.
    #[arg(long)]
    pub json: bool,
    /// Show no progress and no summary.
    #[arg(long, short)]
    pub quiet: bool,
}

/// `batchsql baseline`.
#[derive(Debug, Args)]
pub struct BaselineArgs {
    /// What to do with baselines.
    #[command(subcommand)]
    pub action: BaselineAction,
}

/// What to do with baselines.
#[derive(Debug, Subcommand)]
pub enum BaselineAction {
    /// Keep the report of a run under a name; one of that name is replaced.
    Save {
        /// Its name.
        name: String,
        /// Whose report: a run's id or folder [default: the newest run].
        #[arg(long, value_name = "RUN")]
        from: Option<PathBuf>,
        /// Where runs have their folders, and baselines theirs.
        #[arg(long, value_name = "DIR", default_value = "reports")]
        report_dir: PathBuf,
    },
    /// List the baselines.
    List {
        /// Where runs have their folders, and baselines theirs.
        #[arg(long, value_name = "DIR", default_value = "reports")]
        report_dir: PathBuf,
        /// Print them as JSON.
        #[arg(long)]
        json: bool,
    },
    /// Show the report that a baseline keeps.
    Show {
        /// Its name.
        name: String,
        /// Where runs have their folders, and baselines theirs.
        #[arg(long, value_name = "DIR", default_value = "reports")]
        report_dir: PathBuf,
        /// Print the report as JSON.
        #[arg(long)]
        json: bool,
    },
    /// Hold a finished run against a baseline: every figure's deviation, and the gates of its scenario that speak of a baseline.
    Check {
        /// Its name.
        name: String,
        /// A run's id or folder.
        run: PathBuf,
        /// Where runs have their folders, and baselines theirs.
        #[arg(long, value_name = "DIR", default_value = "reports")]
        report_dir: PathBuf,
        /// Print what was found as JSON.
        #[arg(long)]
        json: bool,
    },
}

/// `batchsql history`.
#[derive(Debug, Args)]
pub struct HistoryArgs {
    /// A scenario's name: all its runs instead of a line a scenario.
    #[arg(value_name = "SCENARIO")]
    pub scenario: Option<String>,
    /// Where runs have their folders.
    #[arg(long, value_name = "DIR", default_value = "reports")]
    pub report_dir: PathBuf,
    /// The store of past runs [default: history.db in the report folder].
    #[arg(long, value_name = "FILE")]
    pub history: Option<PathBuf>,
    /// Print everything as JSON.
    #[arg(long)]
    pub json: bool,
}

/// `batchsql report`.
#[derive(Debug, Args)]
pub struct ReportArgs {
    /// The runs from so long ago until now, into monthly-report-YYYY-MM.md.
    #[arg(long, value_name = "DURATION", value_parser = crate::digest::command::since, required_unless_present = "incident")]
    pub since: Option<Duration>,
    /// This run (its id or folder), into incident-report-YYYYMMDD-HHMM.md; what people filled in is never overwritten.
    #[arg(long, value_name = "RUN", conflicts_with = "since")]
    pub incident: Option<PathBuf>,
    /// Where runs have their folders, and reports are written.
    #[arg(long, value_name = "DIR", default_value = "reports")]
    pub report_dir: PathBuf,
    /// The store of past runs [default: history.db in the report folder].
    #[arg(long, value_name = "FILE")]
    pub history: Option<PathBuf>,
}

/// `batchsql search`.
#[derive(Debug, Args)]
pub struct SearchArgs {
    /// Which scenario.
    #[command(flatten)]
    pub scenarios: Scenarios,
    /// What must hold, instead of the scenario's gates: `metric op limit`; may be given several times.
    #[arg(long, value_name = "GATE")]
    pub r#while: Vec<String>,
    /// The lowest rate, operations a second.
    #[arg(long, value_name = "RATE", value_parser = crate::search::command::rate, default_value = "100")]
    pub from: f64,
    /// The highest rate, operations a second.
    #[arg(long, value_name = "RATE", value_parser = crate::search::command::rate, default_value = "1000000")]
    pub to: f64,
    /// How close the ends of the interval must come.
    #[arg(long, value_name = "SHARE", default_value = "5%")]
    pub precision: Share,
    /// How long each rate is kept up, warm-up not included.
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration, default_value = "10s")]
    pub step_duration: Duration,
    /// Where the search's folder is made.
    #[arg(long, value_name = "DIR", default_value = "reports")]
    pub report_dir: PathBuf,
    /// Print what was found as JSON on standard output and nothing else.
    #[arg(long)]
    pub json: bool,
    /// Show no progress and no summary.
    #[arg(long, short)]
    pub quiet: bool,
}

/// `batchsql sweep`.
#[derive(Debug, Args)]
pub struct SweepArgs {
    /// Which scenario.
    #[command(flatten)]
    pub scenarios: Scenarios,
    /// A value of the scenario and what it is to be in turn; may be given several times.
    #[arg(long, required = true, value_name = "PATH.TO.KEY=VALUE,VALUE")]
    pub vary: Vec<String>,
    /// Runs of each combination.
    #[arg(long, value_name = "N", default_value = "1", value_parser = clap::value_parser!(u32).range(1..=50))]
    pub repeat: u32,
    /// Where the sweep's folder is.
    #[arg(long, value_name = "DIR", default_value = "reports")]
    pub report_dir: PathBuf,
    /// Print what was found as JSON on standard output and nothing else.
    #[arg(long)]
    pub json: bool,
    /// Show no progress and no summary.
    #[arg(long, short)]
    pub quiet: bool,
}

/// `batchsql upstream`.
#[derive(Debug, Args)]
pub struct UpstreamArgs {
    /// Where it listens; port 0 is any that is free.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:3002")]
    pub listen: SocketAddr,
    /// File (YAML) that says how it behaves: seed, latency, token_interval, token_jitter, errors, stalls, cuts, ledger.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

/// `batchsql proxy`.
#[derive(Debug, Args)]
pub struct ProxyArgs {
    /// Upstreams, users and settings (YAML or TOML).
    #[arg(long, value_name = "FILE")]
    pub config: PathBuf,
    /// Where to listen.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:3001")]
    pub listen: SocketAddr,
}

/// `batchsql serve`.
#[derive(Debug, Args)]
pub struct ServeArgs {
    /// Where it listens; port 0 is any that is free.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:3009")]
    pub listen: SocketAddr,
    /// Where runs have their folders; alerts.jsonl and audit.jsonl are written there.
    #[arg(long, value_name = "DIR", default_value = "reports")]
    pub report_dir: PathBuf,
    /// File that holds the token which changes need (else BATCHSQL_SERVE_TOKEN; without either nothing can be changed).
    #[arg(long, value_name = "FILE")]
    pub token_file: Option<PathBuf>,
}

/// `batchsql doctor`.
#[derive(Debug, Args)]
pub struct DoctorArgs {
    /// Scenarios (YAML) whose targets are looked at.
    #[arg(value_name = "SCENARIO")]
    pub scenarios: Vec<PathBuf>,
    /// Databases to look at; may be given several times [default: those of the compose file].
    #[arg(long, value_name = "URL")]
    pub database_url: Vec<String>,
    /// Accept databases beyond loopback without verified TLS.
    #[arg(long)]
    pub insecure_tls: bool,
    /// The gateway [default: http://127.0.0.1:3001].
    #[arg(long, value_name = "URL", env = "BATCHSQL_GATEWAY_URL", hide_env_values = true)]
    pub gateway_url: Option<String>,
    /// Prometheus, and by it each of its targets [default: http://127.0.0.1:9090].
    #[arg(long, value_name = "URL", env = "BATCHSQL_PROMETHEUS_URL", hide_env_values = true)]
    pub prometheus_url: Option<String>,
    /// VictoriaMetrics [default: http://127.0.0.1:8428].
    #[arg(long, value_name = "URL", env = "BATCHSQL_VICTORIAMETRICS_URL", hide_env_values = true)]
    pub victoriametrics_url: Option<String>,
    /// Grafana [default: http://127.0.0.1:3000].
    #[arg(long, value_name = "URL", env = "BATCHSQL_GRAFANA_URL", hide_env_values = true)]
    pub grafana_url: Option<String>,
    /// Alertmanager [default: http://127.0.0.1:9093].
    #[arg(long, value_name = "URL", env = "BATCHSQL_ALERTMANAGER_URL", hide_env_values = true)]
    pub alertmanager_url: Option<String>,
    /// `batchsql serve` [default: http://127.0.0.1:3009].
    #[arg(long, value_name = "URL", env = "BATCHSQL_SERVE_URL", hide_env_values = true)]
    pub serve_url: Option<String>,
    /// Whose disk is looked at.
    #[arg(long, value_name = "DIR", default_value = "reports")]
    pub report_dir: PathBuf,
    /// Print the findings as JSON.
    #[arg(long)]
    pub json: bool,
}
