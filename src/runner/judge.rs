//! From measurements and integrity to gates, verdict and report.

use std::time::Duration;

use super::monitor::Watched;
use super::tally::Errors;
use super::{Drive, Offered, Phases, Run, guard};
use crate::environment;
use crate::gate::{self, Evidence, Gate, Sample};
use crate::recorder::{Phase, Recorder, Stats};
use crate::report::{
    Environment, FaultReport, GateResult, GuardAct, Histograms, HttpReport, Integrity, IntegrityVerdict, Latencies, Outcomes,
    Phase as PhaseReport, Rate, Report, Resources, SCHEMA_VERSION, Second, TargetSeen, TargetUse, Throughput, Verdict,
};
use crate::scenario::Workload;
use crate::schedule::Schedule;

/// What was driven, and what it was in.
fn seen(run: &Run, drive: &dyn Drive) -> TargetSeen {
    TargetSeen { container: run.container.as_ref().map(|container| container.seen.clone()), ..drive.seen() }
}

/// Everything a run found, with its verdict.
pub(super) fn report(
    run: &Run,
    drive: &dyn Drive,
    phases: &Phases,
    mut watched: Watched,
    mut integrity: Integrity,
    took: Duration,
) -> Report {
    let (warmup, main) = (run.recorder.phase(Phase::Warmup), run.recorder.phase(Phase::Main));
    let mut outcomes = warmup.outcomes;
    outcomes.add(&main.outcomes);
    assert_eq!(outcomes.offered, phases.load.operations, "every offered operation must have an outcome or be dropped: {outcomes:?}");
    assert_eq!(outcomes.attempted, outcomes.acknowledged + outcomes.rejected + outcomes.unknown);
    let http = drive.http();
    let mut gates = judge_gates(run, phases, &warmup, &main, http.as_ref(), &integrity);
    let errors = run.tally.errors();
    if phases.target_gone {
        excuse_errors(&mut gates, "the target was gone");
    } else if !watched.guard.is_empty() {
        excuse_errors(&mut gates, "the guard acted on a target in trouble");
    }
    let faults = faults(run, &mut integrity);
    on_timeline(&faults, &mut watched.timeline);
    let (verdict, reasons) = verdict(run, phases, &watched, &gates, &main);
    let redact = |text: &String| crate::redact::redact(text, &run.options.secrets);
    Report {
        schema_version: SCHEMA_VERSION,
        run_id: run.id.clone(),
        seed: run.scenario.seed,
        scenario: crate::redact::redacted_scenario(&run.scenario, &run.options.secrets),
        reproduce: run.options.reproduce.clone(),
        environment: Environment { target: seen(run, drive), calibration: Some(run.calibration), ..environment::fingerprint() },
        verdict,
        reasons,
        notes: notes(run, &main, &watched),
        started_at: run.started_at.clone(),
        duration_seconds: took.as_secs_f64(),
        interrupted: run.options.stop.is_cancelled(),
        phases: phase_reports(run, phases, &warmup, &main),
        timeline: watched.timeline,
        throughput: throughput(run, &main, &integrity),
        latency: latencies(&main),
        outcomes,
        errors: errors.counts,
        error_examples: errors.examples.iter().map(|(class, message)| (class.clone(), redact(message))).collect(),
        integrity,
        faults,
        gates,
        guard: watched.guard.iter().map(|act| GuardAct { reason: redact(&act.reason), ..act.clone() }).collect(),
        resources: Resources {
            load_cpu_seconds: Some(phases.used.cpu_seconds),
            load_rss_bytes_max: Some(phases.used.rss_bytes_max),
            ..environment::resources()
        },
        histograms: Histograms { response: main.response.encode(), service: main.service.encode(), lag: main.lag.encode() },
        http,
        target: drive.used().map(|used| TargetUse { database_writes_per_second: writes_per_second(&used, phases), ..used }),
    }
}

/// The faults of the run, each with what the verifier counts to it.
fn faults(run: &Run, integrity: &mut Integrity) -> Vec<FaultReport> {
    let mut faults = run.faults.reports();
    let judged = integrity.verdict != IntegrityVerdict::Inconclusive;
    for harm in std::mem::take(&mut integrity.by_fault).into_iter().filter(|_| judged) {
        if let Some(fault) = faults.get_mut(harm.fault as usize) {
            fault.harm = Some(harm);
        }
    }
    faults
}

/// Names in every second the faults that were in force.
fn on_timeline(faults: &[FaultReport], timeline: &mut [Second]) {
    for line in timeline {
        let second = line.second as f64;
        let in_force = |fault: &&FaultReport| {
            fault.begun_seconds.is_some_and(|begun| begun < second + 1.0) && fault.healed_seconds.is_none_or(|healed| healed >= second)
        };
        let kinds: Vec<&str> = faults.iter().filter(in_force).map(|fault| fault.kind.as_str()).collect();
        line.faults = kinds.join("+");
    }
}

/// Why a fault was not what the scenario asked for.
fn unlike_asked(fault: &FaultReport) -> Option<String> {
    match (&fault.problem, fault.begun_seconds) {
        (Some(problem), _) => Some(problem.clone()),
        (None, None) => Some(format!("was due at {} s and never began, for the load had ended", fault.at_seconds)),
        (None, Some(_)) => None,
    }
}

fn writes_per_second(used: &TargetUse, phases: &Phases) -> Option<f64> {
    let length = phases.drain_end.as_secs_f64();
    used.database_writes.filter(|_| length > 0.0).map(|writes| writes as f64 / length)
}

/// Whether something failed, and whatever did lost its connection.
pub(super) fn lost_connections(errors: &Errors) -> bool {
    let lost_connection = |class: &str| ["final:connection", "final:timeout"].contains(&class);
    let mut failed = errors.counts.keys().filter(|class| class.starts_with("final:")).peekable();
    failed.peek().is_some() && failed.all(|class| lost_connection(class))
}

/// The errors of a target that is gone, or that the guard spared, say nothing about how it serves: without a gate of the scenario
/// they decide nothing.
fn excuse_errors(gates: &mut [GateResult], because: &str) {
    for gate in gates.iter_mut().filter(|gate| gate.implicit && gate.verdict == Verdict::Fail) {
        gate.verdict = Verdict::Inconclusive;
        gate.message.push_str("; ");
        gate.message.push_str(because);
    }
}

fn latencies(stats: &Stats) -> Latencies {
    Latencies { response: stats.response.summary(), service: stats.service.summary(), lag: stats.lag.summary() }
}

/// From main's first intended start to its last acknowledgement, drain included.
fn main_length(run: &Run, main: &Stats) -> Duration {
    main.last_acknowledged.saturating_sub(run.scenario.load.warmup.0)
}

fn throughput(run: &Run, main: &Stats, integrity: &Integrity) -> Throughput {
    let length = main_length(run, main).as_secs_f64();
    let per_second = (main.outcomes.acknowledged > 0 && length > 0.0).then(|| main.outcomes.acknowledged as f64 / length);
    let rate = match run.scenario.workload {
        Workload::BatchInsert(_) => Rate::Rows(per_second),
        Workload::ProxyRequest(_) => Rate::Requests(per_second),
    };
    Throughput { rate, valid: per_second.is_some() && integrity.verdict == IntegrityVerdict::Holds }
}

fn judge_gates(
    run: &Run,
    phases: &Phases,
    warmup: &Stats,
    main: &Stats,
    http: Option<&HttpReport>,
    integrity: &Integrity,
) -> Vec<GateResult> {
    let begin = run.scenario.load.warmup.0;
    let phase = |name: &str| match name {
        "warmup" if !begin.is_zero() => Some(sample(warmup, Duration::ZERO, begin, begin, None)),
        "main" if main.outcomes.offered > 0 => {
            let (scheduled, asked) = asked(run, &phases.load, main);
            Some(Sample { http: http.cloned(), ..sample(main, begin, main_length(run, main), scheduled, asked) })
        }
        _ => None,
    };
    // Whole windows only: where the load ended earlier, the rest of its window was not offered.
    let end = phases.load.last_due.min(run.schedule.end().unwrap_or(Duration::MAX));
    let windows = |name: &str, length: Duration| {
        let whole = |number: u64| begin + length * (number as u32 + 1);
        let windows = if name == "main" { run.recorder.windows(length) } else { Default::default() };
        let complete = |number: &u64| {
            phases.load.whole_schedule && run.schedule.end().is_some_and(|end| whole(*number) <= end) || whole(*number) <= end
        };
        let samples = windows.iter().filter(|(number, _)| complete(number));
        samples.map(|(number, stats)| sample(stats, begin + length * *number as u32, length, length, None)).collect()
    };
    let evidence = Evidence { phase: &phase, windows: &windows, integrity: Some(integrity) };
    let mut results = gate::implicit(&run.scenario.gates, &evidence, &run.scenario.load);
    // Those that speak of a baseline are judged from the whole report.
    let own = run.scenario.gates.iter().filter(|gate| gate.baseline.is_none());
    results.extend(own.map(|gate| gate::judge(gate, &evidence)));
    results
}

fn sample(stats: &Stats, start: Duration, length: Duration, scheduled: Duration, asked_rate: Option<f64>) -> Sample {
    Sample { start, length, scheduled, outcomes: stats.outcomes, asked_rate, latency: latencies(stats), http: None }
}

/// How long phase `main` really took to offer its starts, and the rate at which they were due.
fn asked(run: &Run, load: &Offered, main: &Stats) -> (Duration, Option<f64>) {
    let begin = run.scenario.load.warmup.0;
    let Schedule::Arrivals(_) = run.schedule else { return (load.last_started.saturating_sub(begin), None) };
    let nominal = match run.schedule.end() {
        Some(end) if load.whole_schedule => end.saturating_sub(begin),
        _ => load.last_due.saturating_sub(begin),
    };
    let rate = (!nominal.is_zero()).then(|| main.outcomes.offered as f64 / nominal.as_secs_f64());
    (nominal.max(load.last_started.saturating_sub(begin)), rate)
}

/// What an abort gate looks at while the run goes on: the last whole window, or phase `main` so far.
pub(super) fn so_far(recorder: &Recorder, main: Duration, elapsed: Duration, gate: &Gate) -> Option<Sample> {
    let into = elapsed.checked_sub(main)?;
    let Some(length) = gate.window else {
        return Some(sample(&recorder.phase(Phase::Main), main, into, into, None));
    };
    let last = (into.as_nanos() / length.as_nanos()).checked_sub(1)? as u64;
    let windows = recorder.windows(length);
    windows.get(&last).map(|stats| sample(stats, main + length * last as u32, length, length, None))
}

fn verdict(run: &Run, phases: &Phases, watched: &Watched, gates: &[GateResult], main: &Stats) -> (Verdict, Vec<String>) {
    let mut verdict = Verdict::Pass;
    let mut reasons = Vec::new();
    let mut because = |grave: Verdict, reason: String| {
        verdict = verdict.max(grave);
        reasons.push(reason);
    };
    for gate in gates.iter().filter(|gate| gate.verdict != Verdict::Pass) {
        because(gate.verdict, format!("{}: {}", gate.gate, gate.message));
    }
    if let Some(reason) = &watched.aborted {
        because(Verdict::Fail, reason.clone());
    }
    if let Some(reason) = &phases.load.aborted {
        because(Verdict::Inconclusive, format!("the load was not offered as asked: {reason}"));
    }
    for fault in run.faults.reports() {
        if let Some(problem) = unlike_asked(&fault) {
            because(Verdict::Inconclusive, format!("fault {}: {problem}", fault.description));
        }
    }
    if let Some(reason) = guard::told(&watched.guard) {
        because(Verdict::Inconclusive, format!("the load was not offered as asked: {reason}"));
    }
    if let Some(reason) = run.tally.ledger_failure() {
        because(Verdict::Inconclusive, format!("the ledger could not be written: {reason}"));
    }
    if run.options.stop.is_cancelled() {
        because(Verdict::Inconclusive, "the run was interrupted before its load was offered".to_owned());
    } else if main.outcomes.acknowledged == 0 && run.recorder.phase(Phase::Warmup).outcomes.acknowledged == 0 {
        because(Verdict::Inconclusive, format!("no {} was acknowledged", run.scenario.workload.unit().trim_end_matches('s')));
    }
    (verdict, reasons)
}

/// Seconds of phase `main` below which a rate is a guess, and the spread of the rates a second above which it is noise.
const SHORT: f64 = 1.0;
const NOISY: f64 = 0.25;

fn notes(run: &Run, main: &Stats, watched: &Watched) -> Vec<String> {
    let mut notes = run.options.notes.clone();
    let length = main_length(run, main).as_secs_f64();
    if main.outcomes.acknowledged > 0 && length < SHORT {
        notes.push(format!(
            "phase main lasted {length:.2} s: too short for its rate and percentiles to be repeatable; raise {} or duration",
            run.scenario.workload.unit()
        ));
    }
    let rates: Vec<f64> = watched.timeline.iter().filter(|line| line.phase == "main").map(|line| line.acknowledged as f64).collect();
    // The first and the last second are not whole.
    if let Some(rates) = rates.get(1..rates.len().saturating_sub(1)).filter(|rates| rates.len() >= 5) {
        let mean = rates.iter().sum::<f64>() / rates.len() as f64;
        let deviation = (rates.iter().map(|rate| (rate - mean).powi(2)).sum::<f64>() / rates.len() as f64).sqrt();
        let ramps =
            matches!(run.scenario.load.executor, crate::scenario::Executor::RampingArrivalRate | crate::scenario::Executor::RampingVus);
        if mean > 0.0 && deviation / mean > NOISY && !ramps {
            let percent = deviation / mean * 100.0;
            notes.push(format!(
                "noisy: the {} of single seconds vary by {percent:.0} % around their mean; look for other work on this machine",
                run.scenario.workload.unit()
            ));
        }
    }
    let service = latencies(main).service;
    if service.count > 0 && service.p99_ms.is_none() {
        // The rows of a batch are answered together: one whole answer must lie beyond, and five operations.
        notes.push(match run.scenario.workload {
            Workload::BatchInsert(_) => "too few batches were answered for a p99: it takes at least a hundred".to_owned(),
            Workload::ProxyRequest(_) => "too few requests were answered for a p99: it takes at least five hundred".to_owned(),
        });
    }
    notes
}

fn phase_reports(run: &Run, phases: &Phases, warmup: &Stats, main: &Stats) -> Vec<PhaseReport> {
    let begin = run.scenario.load.warmup.0.min(phases.load_end);
    let phase = |name: &str, from: Duration, to: Duration, outcomes: Outcomes| PhaseReport {
        name: name.to_owned(),
        start_seconds: from.as_secs_f64(),
        duration_seconds: to.saturating_sub(from).as_secs_f64(),
        outcomes,
    };
    let mut reports = Vec::new();
    if !begin.is_zero() {
        reports.push(phase("warmup", Duration::ZERO, begin, warmup.outcomes));
    }
    reports.push(phase("main", begin, phases.load_end, main.outcomes));
    reports.push(phase("drain", phases.load_end, phases.drain_end, Outcomes::default()));
    reports.push(phase("verify", phases.drain_end, phases.verify_end, Outcomes::default()));
    reports
}
