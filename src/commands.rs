//! What each command does, from parsed flags to an exit code.

use std::io::{ErrorKind, IsTerminal as _, Write as _};
use std::path::Path;
use std::sync::Arc;

use anyhow::Context as _;
use tokio_util::sync::CancellationToken;

use crate::baseline;
use crate::cli::{CheckArgs, PushArgs, RunArgs, Scenarios, VerifyArgs};
use crate::container;
use crate::history;
use crate::metrics::{DEFAULT_LISTEN, PrometheusMetrics};
use crate::redact;
use crate::report::{self, Integrity, IntegrityVerdict, Report, Verdict};
use crate::report::{format, github};
use crate::runner::{self, Options, Progress, say};
use crate::scenario::{BatchInsert, Scenario, load, plan, schema};
use crate::target;
use crate::telemetry::beside::Beside;
use crate::telemetry::exports::{Destinations, Exports};
use crate::telemetry::log;

/// Could not run: usage, bad scenario, target unreachable at the start.
pub(crate) const COULD_NOT_RUN: u8 = 2;
/// A signal ended it before all was done.
pub(crate) const INTERRUPTED: u8 = 130;

/// Runs every scenario; one that cannot run does not keep the later ones from running.
pub(crate) async fn run(args: RunArgs) -> u8 {
    let stop = CancellationToken::new();
    tokio::spawn(watch_signals(stop.clone()));
    let PushArgs { remote_write, otlp, otlp_sample, instance } = &args.push;
    let destinations = match Destinations::new(remote_write.as_deref(), otlp.as_deref(), otlp_sample.0, instance.as_deref()) {
        Ok(destinations) => destinations,
        Err(error) => return failed(&error, &[]),
    };
    let mut beside = match Beside::start(&args).await {
        Ok(beside) => beside,
        Err(error) => return failed(&error, &[]),
    };
    let mut shown = None;
    let mut codes = Vec::new();
    for file in &args.scenarios.files {
        if stop.is_cancelled() {
            // What was asked for was not all done, even if the last run was through before the signal.
            codes.push(INTERRUPTED);
            break;
        }
        match run_one(&args, file, &destinations, &mut shown, &mut beside, &stop).await {
            Ok(report) => {
                remember(&args, &report).await;
                let title = format!("batchsql {}", report.scenario["name"].as_str().unwrap_or_default());
                github::tell(&title, report.verdict, &report.reasons, &report.gates, &report::markdown::text(&report));
                codes.extend([exit_code(&report), show(&args, &report)]);
            }
            Err(Refused { error, secrets }) => {
                codes.push(failed(&error, &secrets));
                codes.extend(stop.is_cancelled().then_some(INTERRUPTED));
            }
        }
    }
    if let Some(Shown { metrics, exports }) = shown {
        linger(&args, &stop).await;
        exports.finish().await;
        beside.end().await;
        metrics.stop_server().await;
    }
    gravest(&codes)
}

/// The metrics of all runs of a call, and what pushes them.
struct Shown {
    metrics: PrometheusMetrics,
    exports: Exports,
}

/// Why a scenario did not run, and what must not be shown of it.
struct Refused {
    error: anyhow::Error,
    secrets: Vec<String>,
}

async fn run_one(
    args: &RunArgs,
    file: &Path,
    destinations: &Destinations,
    shown: &mut Option<Shown>,
    beside: &mut Beside,
    stop: &CancellationToken,
) -> Result<Report, Refused> {
    let loaded = naming(args).and_then(|more| load_scenario(&args.scenarios, &more, file));
    let Loaded { scenario, secrets, notes } = loaded.map_err(|error| Refused { error, secrets: Vec::new() })?;
    let refused = |error| Refused { error, secrets: secrets.clone() };
    let baseline = baseline::wanted(&scenario, &secrets, args.baseline.as_deref(), &args.report_dir).map_err(refused)?;
    if shown.is_none() && (!args.no_metrics || destinations.any()) {
        let metrics = serve_metrics(args, &scenario, beside).await.map_err(refused)?;
        let exports = destinations.start(&metrics);
        *shown = Some(Shown { metrics, exports });
    }
    let options = Options {
        report_dir: args.report_dir.clone(),
        metrics: shown.as_ref().map(|shown| shown.metrics.clone()),
        exports: shown.as_ref().map(|shown| shown.exports.clone()),
        before_verify: args.before_verify.clone(),
        no_verify: args.no_verify,
        keep_containers: args.keep_containers,
        baseline: baseline.map(Arc::new),
        reproduce: reproduce("run", &[file.display().to_string()], scenario.seed, &secrets),
        secrets: secrets.clone(),
        progress: progress(args.quiet || args.json),
        stop: stop.clone(),
        notes,
    };
    let profiles = beside.run(&scenario);
    let ran = runner::run(scenario, options).await.map_err(refused);
    if let Some(profiles) = profiles {
        profiles.end().await;
    }
    if let Some(Shown { exports, .. }) = shown {
        exports.push_metrics();
    }
    log::run_ended();
    ran
}

/// Puts a run among past ones. Where that cannot be, nothing is lost: its report is whole, and `batchsql history` picks it up.
async fn remember(args: &RunArgs, report: &Report) {
    let file = args.history.clone().unwrap_or_else(|| history::default_file(&args.report_dir));
    let kept = report.clone();
    let remembered = tokio::task::spawn_blocking(move || history::record(&file, &kept)).await;
    if let Ok(Err(error)) = remembered {
        say(&format!("batchsql: the report of {} is whole, but the run is not in the history yet: {error}", report.run_id));
    }
}

pub(crate) fn failed(error: &anyhow::Error, secrets: &[String]) -> u8 {
    log::error(&format!("batchsql: {}", redact::redact(&format!("{error:#}"), secrets)));
    COULD_NOT_RUN
}

/// Puts `text` on standard output. A reader that has seen enough (`| head`) is no failure; a full disk is.
pub(crate) fn print(text: &str) -> u8 {
    let text = format::painted(text);
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            failed(&anyhow::Error::new(error).context("standard output cannot be written"), &[])
        }
        _ => 0,
    }
}

/// A scenario with what was changed in it.
pub(crate) struct Loaded {
    pub(crate) scenario: Scenario,
    pub(crate) secrets: Vec<String>,
    pub(crate) notes: Vec<String>,
}

/// How metrics are named, where flags say so.
fn naming(args: &RunArgs) -> anyhow::Result<Vec<String>> {
    if let Some(prefix) = &args.metrics_prefix {
        PrometheusMetrics::new().set_metrics_prefix(prefix).context("--metrics-prefix")?;
    }
    let named = |key: &str, value: &String| format!("metrics.{key}={}", serde_json::json!(value));
    let prefix = args.metrics_prefix.iter().map(|prefix| named("prefix", prefix));
    Ok(prefix.chain(args.env.iter().map(|env| named("env", env))).collect())
}

/// `more`: overrides beside those of `--set`.
pub(crate) fn load_scenario(scenarios: &Scenarios, more: &[String], file: &Path) -> anyhow::Result<Loaded> {
    let mut overrides = scenarios.set.clone();
    overrides.extend_from_slice(more);
    if !scenarios.allow_host.is_empty() {
        overrides.push(format!("target.allow_hosts={}", serde_json::json!(scenarios.allow_host)));
    }
    if scenarios.insecure_tls {
        overrides.push("target.insecure_tls=true".to_owned());
    }
    let changes =
        load::Changes { set: &overrides, database_url: scenarios.database_url.as_deref(), target_url: scenarios.target_url.as_deref() };
    let load::Loaded { mut scenario, secrets, notes, .. } = load::load(file, changes, &|name| std::env::var(name).ok())?;
    if let Some(seed) = scenarios.seed {
        scenario.seed = seed;
    }
    Ok(Loaded { scenario, secrets, notes })
}

async fn serve_metrics(args: &RunArgs, scenario: &Scenario, beside: &mut Beside) -> anyhow::Result<PrometheusMetrics> {
    let metrics = PrometheusMetrics::new();
    metrics.set_environment(&scenario.metrics.env);
    metrics.set_metrics_prefix(&scenario.metrics.prefix)?;
    if args.no_metrics {
        return Ok(metrics); // pushed only
    }
    let listening = metrics.listen(args.metrics_listen.unwrap_or(DEFAULT_LISTEN), args.metrics_listen.is_some()).await?;
    if let Some(note) = listening.note.filter(|_| !args.quiet) {
        say(&format!("batchsql: {note}"));
    }
    beside.metrics_on(listening.address);
    Ok(metrics)
}

/// Keeps the metrics up so that who pulls them sees the end of the run.
async fn linger(args: &RunArgs, stop: &CancellationToken) {
    if !args.metrics_linger.is_zero() && !stop.is_cancelled() {
        if !args.quiet {
            say(&format!("batchsql: serving metrics for another {}", humantime::format_duration(args.metrics_linger)));
        }
        tokio::select! {
            () = tokio::time::sleep(args.metrics_linger) => {}
            () = stop.cancelled() => {}
        }
    }
}

/// The first signal ends the load and lets the run finish; the second ends the program. The ledger stays usable either way.
pub(crate) async fn watch_signals(stop: CancellationToken) {
    signal().await;
    stop.cancel();
    say("batchsql: stopping; what was submitted is drained, verified and reported (once more to stop at once)");
    signal().await;
    container::remove_all().await;
    std::process::exit(i32::from(INTERRUPTED));
}

/// Waits for SIGTERM or Ctrl-C.
pub(crate) async fn signal() {
    use tokio::signal::unix::{SignalKind, signal};
    match signal(SignalKind::terminate()) {
        Ok(mut terminate) => {
            tokio::select! {
                _ = tokio::signal::ctrl_c() => {}
                _ = terminate.recv() => {}
            }
        }
        Err(_) => {
            let _ = tokio::signal::ctrl_c().await;
        }
    }
}

pub(crate) fn progress(silent: bool) -> Progress {
    match (silent, std::io::stderr().is_terminal() && !log::is_json()) {
        (true, _) => Progress::Off,
        (false, true) => Progress::Terminal,
        (false, false) => Progress::Lines,
    }
}

/// Colour only for a terminal whose user did not decline it (<https://no-color.org>).
pub(crate) fn color() -> bool {
    std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

fn show(args: &RunArgs, report: &Report) -> u8 {
    match (args.json, args.quiet) {
        (true, _) => print_json(report),
        (false, true) => 0,
        (false, false) => print(&(report::console::summary(report, &args.report_dir.join(&report.run_id), color()) + "\n")),
    }
}

pub(crate) fn print_json(value: &impl serde::Serialize) -> u8 {
    match serde_json::to_string(value) {
        Ok(text) => print(&(format::json(&text) + "\n")),
        Err(error) => failed(&error.into(), &[]),
    }
}

/// The command that repeats a run, a comparison, a search or a sweep, secrets hidden.
pub(crate) fn reproduce(command: &str, files: &[String], seed: u64, secrets: &[String]) -> String {
    let mut words = vec!["batchsql".to_owned(), command.to_owned()];
    words.extend(files.iter().map(|file| quote(file)));
    let mut arguments = std::env::args().skip(1).peekable();
    while let Some(argument) = arguments.next() {
        let (flag, value) = match argument.split_once('=') {
            Some((flag, value)) => (flag.to_owned(), Some(value.to_owned())),
            None => (argument, None),
        };
        match flag.as_str() {
            // The steps of a search are runs of their own.
            "--while" | "--from" | "--to" | "--precision" | "--step-duration" | "--vary" | "--repeat" if command == "run" => {}
            "--set" | "--database-url" | "--target-url" | "--allow-host" | "--baseline" | "--before-verify" | "--before" | "--after"
            | "--pairs" | "--gate" | "--detect" | "--while" | "--from" | "--to" | "--precision" | "--step-duration" | "--vary"
            | "--repeat" => {
                let value = value.or_else(|| arguments.next()).unwrap_or_default();
                words.push(format!("{flag} {}", quote(&redact::redact(&value, secrets))));
            }
            "--no-verify" | "--insecure-tls" | "--aa" | "--across-machines" => words.push(flag),
            _ => {}
        }
    }
    words.push(format!("--seed {seed}"));
    words.join(" ")
}

pub(crate) fn quote(word: &str) -> String {
    let plain = !word.is_empty() && word.chars().all(|c| c.is_ascii_alphanumeric() || "-_./:=@,+%".contains(c));
    if plain { word.to_owned() } else { format!("'{}'", word.replace('\'', r"'\''")) }
}

fn exit_code(report: &Report) -> u8 {
    match (report.integrity.verdict, report.verdict) {
        (IntegrityVerdict::Violated, _) => 4,
        _ if report.interrupted => INTERRUPTED,
        (_, Verdict::Fail) => 1,
        (_, Verdict::Inconclusive) => 3,
        (_, Verdict::Pass) => 0,
    }
}

/// Over all scenarios of a call: 4 > 130 > 2 > 1 > 3 > 0.
pub(crate) fn gravest(codes: &[u8]) -> u8 {
    [4, INTERRUPTED, COULD_NOT_RUN, 1, 3].into_iter().find(|code| codes.contains(code)).unwrap_or(0)
}

/// Prints the plan of each scenario.
pub(crate) fn check(args: &CheckArgs) -> u8 {
    let mut codes = Vec::new();
    for file in &args.scenarios.files {
        codes.push(match load_scenario(&args.scenarios, &[], file) {
            Ok(Loaded { scenario, notes, .. }) => {
                let table = scenario.workload.batch_insert().map(BatchInsert::table);
                let ddl = scenario.target.database().zip(table).map(|(database, table)| target::ddl(database, &table));
                let notes: String = notes.iter().map(|note| format!("note: {note}\n")).collect();
                print(&(plan::plan(&scenario, &ddl.unwrap_or_default()) + &notes))
            }
            Err(error) => failed(&error, &[]),
        });
    }
    gravest(&codes)
}

/// Judges a run again.
pub(crate) async fn verify(args: VerifyArgs) -> u8 {
    let folder = if args.run.is_dir() { args.run.clone() } else { args.report_dir.join(&args.run) };
    let secrets = args.database_url.as_deref().map(redact::secrets_of_url).unwrap_or_default();
    match runner::verify::verify_run(&folder, args.database_url.as_deref(), &progress(args.quiet || args.json)).await {
        Ok(integrity) => gravest(&[integrity_code(&integrity), show_integrity(&args, &integrity)]),
        Err(error) => failed(&error, &secrets),
    }
}

fn show_integrity(args: &VerifyArgs, integrity: &Integrity) -> u8 {
    match (args.json, args.quiet) {
        (true, _) => print_json(integrity),
        (false, true) => 0,
        (false, false) => print(&report::console::findings(integrity, color())),
    }
}

fn integrity_code(integrity: &Integrity) -> u8 {
    match integrity.verdict {
        IntegrityVerdict::Holds => 0,
        IntegrityVerdict::Violated => 4,
        IntegrityVerdict::Inconclusive => 3,
    }
}

/// Prints the JSON Schema of a scenario.
pub(crate) fn schema() -> u8 {
    print(&format!("{:#}\n", schema::json_schema()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_gravest_code_of_several_scenarios_counts() {
        assert_eq!(gravest(&[0, 0]), 0);
        assert_eq!(gravest(&[0, 3, 1]), 1);
        assert_eq!(gravest(&[1, 2]), 2);
        assert_eq!(gravest(&[2, 130]), 130);
        assert_eq!(gravest(&[130, 4]), 4);
        assert_eq!(gravest(&[]), 0);
    }

    #[test]
    fn words_are_quoted_for_the_shell() {
        assert_eq!(quote("a/b.yaml"), "a/b.yaml");
        assert_eq!(quote("it's"), r"'it'\''s'");
        assert_eq!(quote(""), "''");
    }
}
