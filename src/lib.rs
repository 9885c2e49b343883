//! `batchsql`: load for databases and gateways that proves what it was told is stored, and says how fast it honestly was.
//!
//! One straight line:
//! scenario.yaml → [`scenario::Scenario`] → [`schedule::Schedule`] → operation ([`workload`]) → [`target::Target`] → outcome →
//! [`recorder`] and [`ledger`] → drain → scan → [`verifier`] → integrity → [`gate`] → verdict → [`report::Report`] → exit code.
//!
//! - [`pipeline`]: the batch writer, also a library of its own, with [`metrics`] as one of its observers
//! - [`table`]: rows and columns, the data all of them share
//! - [`http`]: the client that drives gateways; [`proxy`]: a gateway and a mock model to be driven
//! - `history`: past runs in a store of their own; `digest`: what they say together; `baseline`: runs that others are held against
//! - [`runner`]: the phases of a run; `container`: targets that are started for it; `fault`: what goes wrong on purpose; [`compare`]: two sides held against each other
//! - [`search`] and [`sweep`]: many runs for one question, by `steps`
//! - [`serve`]: past runs over HTTP; [`doctor`]: how the stack around them is
//! - [`telemetry`]: what leaves the program while runs go on
//! - [`environment`], [`redact`]: where a run takes place, and what must not be shown

mod baseline;
pub mod cli;
mod commands;
pub mod compare;
mod comparing;
mod container;
mod digest;
pub mod doctor;
pub mod environment;
mod fault;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzz;
pub mod gate;
mod history;
pub mod http;
pub mod ledger;
pub mod metrics;
pub mod pipeline;
pub mod proxy;
pub mod recorder;
pub mod redact;
pub mod report;
pub mod runner;
pub mod scenario;
pub mod schedule;
pub mod search;
pub mod serve;
mod steps;
pub mod sweep;
pub mod table;
pub mod target;
pub mod telemetry;
pub mod verifier;
pub mod workload;

/// The README's examples compile.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

/// Does what the command line asks for and returns the exit code: 0 pass, 1 a gate was missed, 2 could not run, 3 inconclusive,
/// 4 integrity violated, 130 interrupted.
pub async fn run(cli: cli::Cli) -> u8 {
    if let Err(error) = telemetry::log::begin(cli.log_format == cli::LogFormat::Json, cli.log_file.as_deref()) {
        return commands::failed(&error, &[]);
    }
    match cli.command {
        cli::Command::Run(args) => commands::run(*args).await,
        cli::Command::Compare(args) => comparing::command::compare(args).await,
        cli::Command::Check(args) => commands::check(&args),
        cli::Command::Verify(args) => commands::verify(args).await,
        cli::Command::Doctor(args) => doctor::command::doctor(args).await,
        cli::Command::Baseline(args) => baseline::command::baseline(&args),
        cli::Command::History(args) => history::command::history(&args),
        cli::Command::Report(args) => digest::command::report(&args),
        cli::Command::Proxy(args) => proxy::command::proxy(&args).await,
        cli::Command::Schema => commands::schema(),
        cli::Command::Search(args) => search::command::search(*args).await,
        cli::Command::Serve(args) => serve::command::serve(&args).await,
        cli::Command::Sweep(args) => sweep::command::sweep(*args).await,
        cli::Command::Upstream(args) => proxy::upstream::command::upstream(args).await,
    }
}
