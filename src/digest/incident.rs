//! One run as an incident: what is known filled in, what only people know left open.

use std::fmt::Write as _;

use anyhow::Context as _;
use jiff::{SignedDuration, Timestamp};

use super::alerts::Alert;
use crate::report::format::{count, percent};
use crate::report::markdown::escape;
use crate::report::{IntegrityVerdict, Report, Second, Verdict, words};

/// Keys that are named of each class of anomaly.
const KEYS: usize = 20;

/// From the run's first intended start to its end.
pub(super) fn span(report: &Report) -> anyhow::Result<(Timestamp, Timestamp)> {
    let from: Timestamp =
        report.started_at.parse().with_context(|| format!("{}: its start {:?} is no time", report.run_id, report.started_at))?;
    Ok((from, after(from, report.duration_seconds)))
}

fn after(from: Timestamp, seconds: f64) -> Timestamp {
    SignedDuration::try_from_secs_f64(seconds).ok().and_then(|time| from.checked_add(time).ok()).unwrap_or(from)
}

/// The page.
pub(super) fn text(report: &Report, alerts: &[Alert]) -> anyhow::Result<String> {
    let (from, to) = span(report)?;
    let name = report.scenario["name"].as_str().unwrap_or("without a name");
    let mut page = format!("# INC-{}: {}\n\n", from.strftime("%Y%m%d-%H%M"), escape(name));
    let severity = match (report.integrity.verdict, report.verdict) {
        (IntegrityVerdict::Violated, _) => "1: what was acknowledged is not what is stored",
        (_, Verdict::Fail) => "2: a gate was missed",
        (_, Verdict::Inconclusive) => "3: nothing could be proven",
        (_, Verdict::Pass) => "none: the run passed",
    };
    let target = &report.environment.target;
    let commit = report.environment.git_commit.as_deref().unwrap_or("unknown");
    let time = |at: Timestamp| at.strftime("%Y-%m-%d %H:%M:%S UTC").to_string();
    page.push_str("| | |\n|---|---|\n");
    for (name, value) in [
        ("Run", report.run_id.clone()),
        ("Severity", severity.to_owned()),
        ("Began", time(from)),
        ("Ended", time(to)),
        ("Target", format!("{} {}", target.name, target.version)),
        ("Commit", commit.to_owned()),
        ("Repeat it with", report.reproduce.clone()),
    ] {
        let _ = writeln!(page, "| {name} | {} |", escape(&value));
    }
    impact(&mut page, report);
    timeline(&mut page, report, alerts, from);
    gates(&mut page, report);
    keys(&mut page, report);
    for (title, ask) in [
        ("Cause", "What was changed or failed, and why it had this effect:"),
        ("Resolution", "What ended it, when, and by whom:"),
        ("Prevention", "What will find it earlier or keep it from happening, who does it, until when:"),
    ] {
        let _ = writeln!(page, "\n## {title}\n\n{ask}\n\n_to be filled in_");
    }
    Ok(page)
}

fn impact(page: &mut String, report: &Report) {
    let (outcomes, integrity) = (&report.outcomes, &report.integrity);
    page.push_str("\n## Impact\n\n");
    let failed = outcomes.rejected + outcomes.unknown;
    let share = if outcomes.attempted > 0 { percent(failed as f64 / outcomes.attempted as f64) } else { "none".to_owned() };
    let _ = writeln!(
        page,
        "- {} of {} attempted operations failed ({share}): {} rejected, {} of unknown outcome; {} were never started",
        count(failed),
        count(outcomes.attempted),
        count(outcomes.rejected),
        count(outcomes.unknown),
        count(outcomes.dropped)
    );
    let wrong: Vec<String> = words::anomalies(integrity).into_iter().map(|(class, times)| format!("{} {class}", count(times))).collect();
    let _ = match integrity.verdict {
        IntegrityVerdict::Holds => {
            let how = if integrity.read_back.is_some() { "checked by digests" } else { "read back" };
            writeln!(page, "- Everything acknowledged is stored: {} {how}", count(integrity.checked))
        }
        IntegrityVerdict::Violated => writeln!(page, "- Integrity is violated: {}", wrong.join(", ")),
        IntegrityVerdict::Inconclusive => {
            writeln!(page, "- What is stored is not known: {}", escape(integrity.reason.as_deref().unwrap_or("it was not verified")))
        }
    };
    let silent = report.timeline.iter().filter(|second| is_silent(second)).count();
    let _ = writeln!(page, "- {silent} seconds under load without an acknowledgement");
    for (class, times) in report.errors.iter().filter(|(class, _)| class.starts_with("final:")) {
        let example = report.error_examples.get(class).or_else(|| report.error_examples.get(class.trim_start_matches("final:")));
        let example = example.map_or(String::new(), |text| format!(", e.g. {}", escape(text)));
        let _ = writeln!(page, "- Error {}: {} times{example}", escape(class), count(*times));
    }
}

fn is_silent(second: &Second) -> bool {
    second.phase == "main" && second.acknowledged == 0 && second.offered + second.rejected + second.unknown > 0
}

fn timeline(page: &mut String, report: &Report, alerts: &[Alert], from: Timestamp) {
    let mut events: Vec<(Timestamp, String)> = Vec::new();
    for phase in &report.phases {
        events.push((after(from, phase.start_seconds), format!("phase {} begins", phase.name)));
    }
    let failing = |second: &&Second| second.rejected + second.unknown > 0;
    if let Some(first) = report.timeline.iter().find(failing) {
        events.push((
            after(from, first.second as f64),
            format!("first failures: {} rejected, {} unknown in this second", first.rejected, first.unknown),
        ));
    }
    if let Some(last) = report.timeline.iter().rev().find(failing) {
        events.push((after(from, last.second as f64 + 1.0), "last failures".to_owned()));
    }
    let silent: Vec<u64> = report.timeline.iter().filter(|second| is_silent(second)).map(|second| second.second).collect();
    for stretch in silent.chunk_by(|a, b| a + 1 == *b) {
        events.push((after(from, stretch[0] as f64), format!("no acknowledgement for {} s", stretch.len())));
    }
    for alert in alerts {
        let severity = if alert.severity.is_empty() { String::new() } else { format!(" ({})", alert.severity) };
        events.push((alert.started, format!("alert {}{severity} fires", alert.name)));
        events.extend(alert.ended.map(|at| (at, format!("alert {} is resolved", alert.name))));
    }
    events.push((after(from, report.duration_seconds), format!("verdict: {}", crate::history::show::word(&report.verdict))));
    events.sort_by_key(|(at, _)| *at);
    page.push_str("\n## Timeline\n\n| Time (UTC) | What happened |\n|---|---|\n");
    for (at, what) in events {
        let _ = writeln!(page, "| {} | {} |", at.strftime("%H:%M:%S"), escape(&what));
    }
    if let Some(faults) = report.scenario.get("faults").and_then(|faults| faults.as_array()).filter(|faults| !faults.is_empty()) {
        page.push_str("\nFaults that the scenario planted:\n\n");
        for fault in faults {
            let _ = writeln!(page, "- {}", escape(&fault.to_string()));
        }
    }
}

fn gates(page: &mut String, report: &Report) {
    page.push_str("\n## Gates that were not met\n\n");
    let missed: Vec<_> = report.gates.iter().filter(|gate| gate.verdict != Verdict::Pass).collect();
    for gate in &missed {
        let verdict = crate::history::show::word(&gate.verdict);
        let _ = writeln!(page, "- {verdict}: {}: {}", escape(&gate.gate), escape(&gate.message));
    }
    for reason in report.reasons.iter().filter(|reason| !missed.iter().any(|gate| reason.starts_with(&gate.gate))) {
        let _ = writeln!(page, "- {}", escape(reason));
    }
    if missed.is_empty() && report.reasons.is_empty() {
        page.push_str("None.\n");
    }
}

fn keys(page: &mut String, report: &Report) {
    page.push_str("\n## Affected keys\n\n");
    let mut classes: Vec<&str> = report.integrity.examples.iter().map(|example| example.class.as_str()).collect();
    classes.dedup();
    for class in &classes {
        let of = report.integrity.examples.iter().filter(|example| example.class == *class);
        let keys: Vec<String> = of.take(KEYS).map(|example| example.key.to_string()).collect();
        let _ = writeln!(page, "- {}: {}", escape(class), keys.join(", "));
    }
    if classes.is_empty() {
        page.push_str("None is known.\n");
    } else {
        page.push_str("\nUp to 20 a class; `report.json` has what was expected and found.\n");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::sample;

    #[test]
    fn what_is_known_is_filled_in_and_the_rest_is_left_open() {
        let mut report = sample::violated();
        report.timeline = (0..4)
            .map(|second| Second {
                second,
                phase: "main".to_owned(),
                offered: 10,
                acknowledged: if second == 2 { 0 } else { 9 },
                rejected: u64::from(second == 1),
                ..Second::default()
            })
            .collect();
        report.reasons.push("<script>".to_owned());
        let (from, _) = span(&report).unwrap();
        let alert = Alert { name: "IntegrityViolated".to_owned(), severity: "critical".to_owned(), started: after(from, 2.0), ended: None };
        let page = text(&report, &[alert]).unwrap();
        assert!(page.starts_with(&format!("# INC-{}: ", from.strftime("%Y%m%d-%H%M"))), "{page}");
        for expected in [
            "| Severity | 1: what was acknowledged is not what is stored |",
            "## Impact",
            "- Integrity is violated: ",
            "- 1 seconds under load without an acknowledgement",
            "first failures: 1 rejected, 0 unknown in this second",
            "no acknowledgement for 1 s",
            "alert IntegrityViolated (critical) fires",
            "- fail: response.p99 &lt; 50ms: 61.2 ms",
            "## Affected keys\n\n- lost: ",
            "## Cause",
            "## Resolution",
            "## Prevention",
            "&lt;script&gt;",
        ] {
            assert!(page.contains(expected), "{expected} is missing in:\n{page}");
        }
        assert!(!page.contains("<script>"));
        assert_eq!(page.matches("_to be filled in_").count(), 3);
        let lost: Vec<i64> =
            report.integrity.examples.iter().filter(|example| example.class == "lost").map(|example| example.key).collect();
        assert!(!lost.is_empty() && page.contains(&format!("- lost: {}", lost[0])), "{page}");
    }
}
