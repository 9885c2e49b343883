//! `batchsql search`: from what was typed to steps, and from what they showed to words and an exit code.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::walk::{self, Bounds, Found, Next};
use super::{FILES, Outcome, SCHEMA_VERSION, Search, Step, judge};
use crate::cli::SearchArgs;
use crate::commands::{self, Loaded};
use crate::gate::Gate;
use crate::report::{Environment, IntegrityVerdict, html, limits, write_whole};
use crate::runner;
use crate::scenario::units::Time;
use crate::scenario::{Executor, Load, Saturation, Scenario, VerifyMethod, Workload};
use crate::steps::{self, Steps};

/// Fewer seconds are too few to tell growth from chance.
const SHORTEST_STEP: Duration = Duration::from_secs(5);
/// Connections are opened and caches filled before what counts.
const SHORTEST_WARMUP: Duration = Duration::from_secs(1);

/// Searches, and says what was found.
pub(crate) async fn search(args: SearchArgs) -> u8 {
    let mut secrets = Vec::new();
    match searched(&args, &mut secrets).await {
        Ok((search, error)) => {
            let shown = show(&args, &search);
            let failed = error.map_or(0, |error| commands::failed(&error, &secrets));
            commands::gravest(&[exit_code(search.outcome), failed, shown])
        }
        Err(error) => commands::failed(&error, &secrets),
    }
}

/// The search, and why it is not whole if it is not.
async fn searched(args: &SearchArgs, secrets: &mut Vec<String>) -> anyhow::Result<(Search, Option<anyhow::Error>)> {
    let began = Instant::now();
    let file = steps::only("search", &args.scenarios)?;
    let Loaded { scenario, secrets: found, .. } = commands::load_scenario(&args.scenarios, &[], file)?;
    *secrets = found;
    let plan = plan(args, &scenario)?;
    commands::load_scenario(&args.scenarios, &plan.set(plan.bounds.to)?, file).context("as search would run it")?;
    let search_id = runner::new_id(&format!("search-{}", scenario.name));
    let folder = runner::make_folder(&args.report_dir, &search_id)?;
    let stop = CancellationToken::new();
    tokio::spawn(commands::watch_signals(stop.clone()));
    let progress = commands::progress(args.quiet || args.json);
    let steps = Steps { scenarios: &args.scenarios, file, folder: &folder, progress, stop };
    let started_at = jiff::Timestamp::now().to_string();
    let mut walked = walk(&plan, &steps).await;
    if let (true, Some(error)) = (walked.steps.is_empty(), walked.error.take()) {
        // What never began leaves nothing behind.
        let _ = std::fs::remove_dir_all(&folder);
        return Err(error);
    }
    let mut search = Search {
        schema_version: SCHEMA_VERSION,
        search_id,
        scenario: scenario.name.clone(),
        unit: scenario.workload.unit().to_owned(),
        started_at,
        duration_seconds: began.elapsed().as_secs_f64(),
        reproduce: commands::reproduce("search", &[file.display().to_string()], scenario.seed, secrets),
        environment: walked.environment,
        gates: plan.gates.iter().map(|gate| gate.text.clone()).collect(),
        from_per_second: plan.bounds.from,
        to_per_second: plan.bounds.to,
        precision: plan.bounds.precision,
        step_seconds: args.step_duration.as_secs_f64(),
        outcome: walked.outcome,
        held_per_second: walked.found.held,
        failed_per_second: walked.found.failed,
        reasons: Vec::new(),
        notes: plan.notes,
        curve: judge::curve(&walked.steps, &walked.found),
        steps: walked.steps,
    };
    search.reasons = reasons(&search, walked.found.unsettled);
    write(&folder, &search)?;
    Ok((search, walked.error))
}

/// What every step has in common.
struct Plan {
    bounds: Bounds,
    gates: Vec<Gate>,
    load: Load,
    /// The key that caps the number of operations.
    cap: &'static str,
    notes: Vec<String>,
}

fn plan(args: &SearchArgs, scenario: &Scenario) -> anyhow::Result<Plan> {
    let precision = args.precision.0;
    ensure!((0.01..=0.5).contains(&precision), "--precision is {} %; write 1% to 50%", precision * 100.0);
    ensure!(args.from <= args.to, "--from ({}) is above --to ({}); exchange them", args.from, args.to);
    let length = humantime::format_duration(args.step_duration);
    ensure!(args.step_duration >= SHORTEST_STEP, "--step-duration is {length}; at least 5s are needed to see whether a queue grows");
    ensure!(args.step_duration <= Duration::from_secs(3600), "--step-duration is {length}; write at most 1h");
    ensure!(scenario.verify.method != VerifyMethod::Off, "verify.method is off, and a rate without proof does not count; write full");
    let mut notes = Vec::new();
    let mut gates = Vec::new();
    for text in &args.r#while {
        gates.push(text.parse::<Gate>().map_err(|problem| anyhow::anyhow!("--while {problem}"))?);
    }
    if gates.is_empty() {
        gates.clone_from(&scenario.gates);
        ensure!(!gates.is_empty(), "what is to hold? give --while, e.g. --while \"response.p99 < 50ms\"; the scenario has no gates either");
    } else if !scenario.gates.is_empty() {
        notes.push("the scenario's own gates do not count here: --while stands in their place".to_owned());
    }
    let load = load(&scenario.load, args.step_duration);
    let beside = |load: &Load| Load { rate: None, duration: None, ..load.clone() };
    if beside(&scenario.load) != beside(&load) {
        let was = serde_json::to_value(scenario.load.executor)?;
        notes.push(format!(
            "the load is the search's: constant-arrival-rate instead of {}, {length} a step after a warm-up of {}; {}",
            was.as_str().unwrap_or_default(),
            humantime::format_duration(load.warmup.0),
            "vus, stages, think_time and the number of operations are left out"
        ));
    }
    let cap = match scenario.workload {
        Workload::BatchInsert(_) => "workload.batch_insert.rows",
        Workload::ProxyRequest(_) => "workload.proxy_request.requests",
    };
    Ok(Plan { bounds: Bounds { from: args.from, to: args.to, precision }, gates, load, cap, notes })
}

/// The load of a step: an arrival rate, whatever the scenario's executor is.
fn load(load: &Load, duration: Duration) -> Load {
    Load {
        executor: Executor::ConstantArrivalRate,
        vus: None,
        duration: Some(Time(duration)),
        rate: None,
        stages: Vec::new(),
        warmup: load.warmup.max(Time(SHORTEST_WARMUP)),
        think_time: Time::default(),
        // A load that stops at its first full queue would be no measurement.
        saturation: if load.saturation == Saturation::Abort { Saturation::Queue } else { load.saturation },
        ..load.clone()
    }
}

impl Plan {
    /// What is changed in the scenario for a step at `rate`.
    fn set(&self, rate: f64) -> anyhow::Result<Vec<String>> {
        let load = serde_json::to_value(Load { rate: Some(rate), ..self.load.clone() })?;
        Ok(vec![format!("load={load}"), format!("gates={}", json!(self.gates)), format!("{}=null", self.cap)])
    }
}

/// How far the steps came.
struct Walked {
    steps: Vec<Step>,
    found: Found,
    outcome: Outcome,
    environment: Environment,
    error: Option<anyhow::Error>,
}

async fn walk(plan: &Plan, steps: &Steps<'_>) -> Walked {
    let (most, usual) = walk::steps(&plan.bounds);
    let each = plan.load.duration.unwrap_or_default().0 + plan.load.warmup.0;
    let long = |steps: usize| humantime::format_duration(each * steps as u32);
    steps.tell(&format!(
        "search: {} a step and what draining and reading back take; usually about {usual} steps ({}), at most {most} ({})",
        long(1),
        long(usual),
        long(most)
    ));
    let mut walked = Walked {
        steps: Vec::new(),
        found: Found::default(),
        outcome: Outcome::Interrupted,
        environment: Environment::default(),
        error: None,
    };
    while !steps.stop.is_cancelled() {
        let votes: Vec<_> = walked.steps.iter().map(|step| (step.rate_per_second, step.vote())).collect();
        walked.found = walk::so_far(&votes);
        let rate = match walk::next(&plan.bounds, &votes) {
            Next::Step(rate) => rate,
            Next::Done(found) => {
                (walked.found, walked.outcome) = (found, judge::outcome(&found));
                break;
            }
        };
        let number = walked.steps.len() + 1;
        steps.tell(&format!("search: step {number}, {rate} a second"));
        match one(plan, steps, rate).await {
            Ok((None, _)) => break, // interrupted: half a load shows nothing
            Ok((Some(step), environment)) => {
                let why = step.reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default();
                steps.tell(&format!("search: step {number}, {rate} a second {}{why}", step.shown.words()));
                let violated = step.integrity == IntegrityVerdict::Violated;
                walked.environment = environment;
                walked.steps.push(step);
                if violated {
                    (walked.outcome, walked.found) = (Outcome::Void, Found::default());
                    return walked; // the database stays as it is
                }
            }
            Err(error) => {
                walked.outcome = Outcome::Undecided;
                walked.error = Some(error.context(format!("the step at {rate} a second could not run")));
                break;
            }
        }
    }
    steps.forget_databases();
    walked
}

async fn one(plan: &Plan, steps: &Steps<'_>, rate: f64) -> anyhow::Result<(Option<Step>, Environment)> {
    let set = plan.set(rate)?;
    let loaded = steps.load(&set)?;
    let report = steps.run(loaded, &set).await?;
    let step = (!report.interrupted).then(|| judge::step(rate, &report));
    Ok((step, report.environment))
}

fn reasons(search: &Search, unsettled: Option<f64>) -> Vec<String> {
    let last = |rate: Option<f64>| {
        let step = search.steps.iter().rev().filter(|step| rate.is_none_or(|rate| step.rate_per_second == rate));
        step.filter_map(|step| step.reason.clone()).next().unwrap_or_else(|| "no reason was given".to_owned())
    };
    let reason = match search.outcome {
        Outcome::Found | Outcome::HoldsEverywhere => return Vec::new(),
        Outcome::HoldsNowhere => format!("not even {} a second holds: {}; lower --from", search.from_per_second, last(None)),
        Outcome::Void => format!("integrity is violated, so no rate counts: {}", last(None)),
        Outcome::Interrupted => "interrupted before the limit was found".to_owned(),
        Outcome::Undecided => match unsettled {
            Some(rate) => {
                let why = last(Some(rate));
                let mend = if why.contains("too few samples") { "; lengthen --step-duration, or raise --from" } else { "" };
                format!("at {rate} a second the steps do not agree, or could say nothing: {why}{mend}")
            }
            None => "a step could not run".to_owned(),
        },
    };
    vec![reason]
}

/// Writes every format into `folder`.
fn write(folder: &Path, search: &Search) -> anyhow::Result<()> {
    let json = serde_json::to_string_pretty(search)? + "\n";
    let texts = [json, limits::markdown(search), html::limits::text(search)];
    for (name, text) in FILES.into_iter().zip(texts) {
        write_whole(&folder.join(name), &text)?;
    }
    Ok(())
}

fn show(args: &SearchArgs, search: &Search) -> u8 {
    let folder = args.report_dir.join(&search.search_id);
    match (args.json, args.quiet) {
        (true, _) => commands::print_json(search),
        (false, true) => 0,
        (false, false) => commands::print(&limits::terminal(search, &folder, commands::color())),
    }
}

fn exit_code(outcome: Outcome) -> u8 {
    match outcome {
        Outcome::Found | Outcome::HoldsEverywhere => 0,
        Outcome::HoldsNowhere => 1,
        Outcome::Undecided => 3,
        Outcome::Void => 4,
        Outcome::Interrupted => commands::INTERRUPTED,
    }
}

/// What `--from` and `--to` take.
pub(crate) fn rate(text: &str) -> Result<f64, String> {
    let rate = text.trim().parse::<f64>().ok().filter(|rate| (0.01..=10_000_000.0).contains(rate));
    rate.ok_or_else(|| "write operations a second, 0.01 to 10000000".to_owned())
}
