//! What the runs of some weeks say together.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use jiff::Timestamp;

use super::alerts::Alert;
use crate::history::command::{Group, groups, merged};
use crate::history::show::{change, series, spark, value, word};
use crate::history::{Entry, anomaly};
use crate::report::format::{NONE, count, millis, percent};
use crate::report::markdown::escape;
use crate::report::{IntegrityVerdict, Outcomes, Verdict};

/// What it is made of.
pub(super) struct Month<'a> {
    /// Every run that is known, the oldest first: those before `from` are what the others are held against.
    pub(super) entries: &'a [Entry],
    pub(super) alerts: Vec<Alert>,
    pub(super) from: Timestamp,
    pub(super) to: Timestamp,
    /// Names of scenarios that have a baseline.
    pub(super) baselines: Vec<String>,
}

/// A stretch in which a scenario did not pass.
struct Outage<'a> {
    scenario: &'a str,
    run_id: &'a str,
    from: Timestamp,
    /// The next run that passed, if there was one.
    repaired: Option<Timestamp>,
}

/// The page.
pub(super) fn text(month: &Month<'_>) -> String {
    let inside = |started: &str| started.parse::<Timestamp>().is_ok_and(|started| started >= month.from && started <= month.to);
    let runs: Vec<&Entry> = month.entries.iter().filter(|entry| inside(&entry.started_at)).collect();
    let mut page = format!("# Monthly report {}\n\n", month.to.strftime("%Y-%m"));
    let (from, to) = (month.from.strftime("%Y-%m-%d %H:%M"), month.to.strftime("%Y-%m-%d %H:%M"));
    let _ = writeln!(page, "From {from} to {to} UTC: {} runs.\n", runs.len());
    if runs.is_empty() {
        page.push_str("No run was made in this time, so nothing can be said of it.\n");
        return page;
    }
    let mut groups = groups(month.entries);
    groups.retain(|group| group.runs.first().is_some_and(|run| inside(&run.started_at)));
    let mut anomalies: Vec<_> = groups.iter().flat_map(|group| &group.anomalies).filter(|anomaly| inside(&anomaly.started_at)).collect();
    anomalies.sort_by(|a, b| b.started_at.cmp(&a.started_at));
    let changes: Vec<_> = groups.iter().flat_map(|group| group.changes.iter().map(move |moved| (group, moved))).collect();
    let changes: Vec<_> = changes.into_iter().filter(|(_, moved)| inside(&moved.started_at)).collect();
    let outages = outages(&runs);
    summary(&mut page, month, &runs, &outages, anomalies.len());
    scenarios(&mut page, &groups, &runs);
    page.push_str("## Anomalies\n\n");
    for found in &anomalies {
        let shown = |number: Option<f64>| number.map_or(NONE.to_owned(), |number| value(&found.figure, number));
        let (is, usual) = (shown(found.value), shown(found.usual));
        let _ = writeln!(
            page,
            "- {:.2} {}, {}: {} is {is}, usually {usual} ({})",
            found.score,
            escape(&found.scenario),
            &found.started_at[..16].replace('T', " "),
            escape(&found.figure),
            escape(&found.run_id)
        );
    }
    none(&mut page, anomalies.is_empty(), &format!("No run scored above {}.", anomaly::SHOWN));
    page.push_str("## Changes\n\n");
    for (group, moved) in &changes {
        let _ = writeln!(page, "- {}: {}", escape(&group.scenario), escape(&change(moved)));
    }
    none(&mut page, changes.is_empty(), "No figure moved.");
    repairs(&mut page, &outages, &month.alerts);
    page.push_str("## Suggestions\n\n");
    let suggestions = suggestions(month, &runs, &groups, &outages);
    for suggestion in &suggestions {
        let _ = writeln!(page, "- {}", escape(suggestion));
    }
    none(&mut page, suggestions.is_empty(), "Nothing in these runs asks for anything.");
    page
}

fn none(page: &mut String, is_empty: bool, words: &str) {
    if is_empty {
        page.push_str(words);
        page.push('\n');
    }
    page.push('\n');
}

fn share(part: u64, whole: u64) -> String {
    if whole == 0 { NONE.to_owned() } else { percent(part as f64 / whole as f64) }
}

fn total(runs: &[&Entry]) -> Outcomes {
    let mut all = Outcomes::default();
    runs.iter().for_each(|run| all.add(&run.outcomes));
    all
}

fn summary(page: &mut String, month: &Month<'_>, runs: &[&Entry], outages: &[Outage<'_>], anomalies: usize) {
    let all = total(runs);
    let ended = |verdict: Verdict| runs.iter().filter(|run| run.verdict == verdict).count();
    let violated = runs.iter().filter(|run| run.integrity == IntegrityVerdict::Violated).count();
    let seconds: u64 = runs.iter().map(|run| run.seconds).sum();
    let answered: u64 = runs.iter().map(|run| run.seconds_answered).sum();
    let latency = merged(runs);
    let rows = [
        ("Availability", format!("{} of {} seconds under load had an acknowledgement", share(answered, seconds), count(seconds))),
        (
            "Success",
            format!("{} of {} attempted operations were acknowledged", share(all.acknowledged, all.attempted), count(all.attempted)),
        ),
        ("P95", format!("{} response time over all operations, from merged histograms", latency.p95_ms.map_or(NONE.to_owned(), millis))),
        (
            "Totals",
            format!(
                "{} offered, {} acknowledged, {} rejected, {} unknown, {} dropped",
                count(all.offered),
                count(all.acknowledged),
                count(all.rejected),
                count(all.unknown),
                count(all.dropped)
            ),
        ),
        (
            "Runs",
            format!(
                "{} passed, {} failed, {} inconclusive; integrity violated in {violated}",
                ended(Verdict::Pass),
                ended(Verdict::Fail),
                ended(Verdict::Inconclusive)
            ),
        ),
        ("Anomalies", anomalies.to_string()),
        (
            "Alerts",
            format!("{}, {} of them resolved", month.alerts.len(), month.alerts.iter().filter(|alert| alert.ended.is_some()).count()),
        ),
        ("Mean time to repair", mean(outages.iter().filter_map(|outage| Some((outage.from, outage.repaired?))))),
    ];
    page.push_str("| | |\n|---|---|\n");
    for (name, text) in rows {
        let _ = writeln!(page, "| {name} | {} |", escape(&text));
    }
    page.push('\n');
}

/// The mean length of stretches, in words.
fn mean(stretches: impl Iterator<Item = (Timestamp, Timestamp)>) -> String {
    let seconds: Vec<f64> = stretches.map(|(from, to)| (to.as_millisecond() - from.as_millisecond()).max(0) as f64 / 1e3).collect();
    if seconds.is_empty() {
        return "nothing was repaired".to_owned();
    }
    let mean = Duration::from_secs((seconds.iter().sum::<f64>() / seconds.len() as f64).round() as u64);
    format!("{} over {}", humantime::format_duration(mean), seconds.len())
}

/// Of each scenario the stretches from a failed run to the next that passed. An inconclusive run neither begins nor ends one.
fn outages<'a>(runs: &[&'a Entry]) -> Vec<Outage<'a>> {
    let mut open: BTreeMap<[&str; 3], Outage<'a>> = BTreeMap::new();
    let mut all = Vec::new();
    for run in runs {
        let Ok(at) = run.started_at.parse::<Timestamp>() else { continue };
        match run.verdict {
            Verdict::Fail => {
                open.entry(run.group()).or_insert(Outage { scenario: &run.scenario, run_id: &run.run_id, from: at, repaired: None });
            }
            Verdict::Pass => all.extend(open.remove(&run.group()).map(|outage| Outage { repaired: Some(at), ..outage })),
            Verdict::Inconclusive => {}
        }
    }
    all.extend(open.into_values());
    all.sort_by_key(|outage| outage.from);
    all
}

fn scenarios(page: &mut String, groups: &[Group], runs: &[&Entry]) {
    page.push_str("## Trends\n\n| Scenario | Runs | Passed | Success | P95 | Rate | Response p99 | Last verdict |\n|---|---:|---:|---:|---:|---|---|---|\n");
    for group in groups {
        let own: Vec<&Entry> = runs.iter().copied().filter(|run| group.runs.iter().any(|other| other.run_id == run.run_id)).collect();
        let (all, passed) = (total(&own), own.iter().filter(|run| run.verdict == Verdict::Pass).count());
        let Some(last) = group.runs.first() else { continue };
        let _ = writeln!(
            page,
            "| {} | {} | {passed} | {} | {} | {} | {} | {} |",
            escape(&group.scenario),
            own.len(),
            share(all.acknowledged, all.attempted),
            merged(&own).p95_ms.map_or(NONE.to_owned(), millis),
            spark(&series(&group.runs, last.rate_name())),
            spark(&series(&group.runs, "response.p99")),
            word(&last.verdict)
        );
    }
    page.push('\n');
}

fn repairs(page: &mut String, outages: &[Outage<'_>], alerts: &[Alert]) {
    page.push_str("## Failures and alerts\n\n");
    for outage in outages {
        let repaired = match outage.repaired {
            Some(at) => format!("repaired after {}", mean(std::iter::once((outage.from, at))).trim_end_matches(" over 1")),
            None => "not repaired yet".to_owned(),
        };
        let (from, name) = (outage.from.strftime("%Y-%m-%d %H:%M"), escape(outage.scenario));
        let _ = writeln!(page, "- {from} {name} failed ({}): {repaired}", escape(outage.run_id));
    }
    for alert in alerts {
        let ended = match alert.ended {
            Some(at) => format!("resolved after {}", mean(std::iter::once((alert.started, at))).trim_end_matches(" over 1")),
            None => "not resolved".to_owned(),
        };
        let _ = writeln!(page, "- {} alert {}: {ended}", alert.started.strftime("%Y-%m-%d %H:%M"), escape(&alert.name));
    }
    none(page, outages.is_empty() && alerts.is_empty(), "No run failed and no alert came.");
}

/// What follows from the data, one sentence each.
fn suggestions(month: &Month<'_>, runs: &[&Entry], groups: &[Group], outages: &[Outage<'_>]) -> Vec<String> {
    let mut found = Vec::new();
    for run in runs.iter().filter(|run| run.integrity == IntegrityVerdict::Violated) {
        found.push(format!(
            "{}: integrity is violated in {}; write it up with batchsql report --incident {}",
            run.scenario, run.run_id, run.run_id
        ));
    }
    for outage in outages.iter().filter(|outage| outage.repaired.is_none()) {
        found.push(format!("{}: no run has passed since {}; look at its gates first", outage.scenario, outage.run_id));
    }
    for group in groups {
        for moved in group.changes.iter().filter(|moved| moved.worse) {
            found.push(format!("{}: {}; look at what changed between the two commits", group.scenario, change(moved)));
        }
        let own: Vec<_> =
            runs.iter().filter(|run| run.group()[..] == [&group.scenario, &group.scenario_hash, &group.machine_hash][..]).collect();
        let unproven: Vec<_> = own.iter().filter(|run| run.verdict == Verdict::Inconclusive).collect();
        if unproven.len() * 5 > own.len() {
            let why = unproven.iter().rev().find_map(|run| run.reasons.first()).map_or(String::new(), |why| format!(", last: {why}"));
            found.push(format!("{}: {} of {} runs were inconclusive and prove nothing{why}", group.scenario, unproven.len(), own.len()));
        }
        let mut errors: BTreeMap<&str, u64> = BTreeMap::new();
        for (class, times) in own.iter().flat_map(|run| &run.errors) {
            *errors.entry(class).or_default() += times;
        }
        if let Some((class, times)) = errors.iter().filter(|(class, _)| class.starts_with("final:")).max_by_key(|(_, times)| **times) {
            found.push(format!("{}: the most frequent error is {class}, {} times", group.scenario, count(*times)));
        }
        if own.len() >= 3 && !month.baselines.contains(&group.scenario) {
            found.push(format!("{0}: {1} runs and no baseline; keep one with batchsql baseline save {0}", group.scenario, own.len()));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::sample;

    fn run(day: i8, verdict: Verdict) -> Entry {
        let mut entry = Entry::of(&sample::passed()).unwrap();
        (entry.run_id, entry.started_at) = (format!("run-{day:02}"), format!("2026-03-{day:02}T00:00:00.000Z"));
        entry.verdict = verdict;
        entry
    }

    fn month(entries: &[Entry]) -> Month<'_> {
        let at = |text: &str| text.parse().unwrap();
        Month { entries, alerts: Vec::new(), from: at("2026-03-01T00:00:00Z"), to: at("2026-03-31T00:00:00Z"), baselines: Vec::new() }
    }

    #[test]
    fn a_month_has_its_figures_failures_and_suggestions() {
        let mut entries: Vec<Entry> = [1, 2, 4, 5].map(|day| run(day, Verdict::Pass)).to_vec();
        entries.insert(2, run(3, Verdict::Fail));
        entries[2].outcomes.acknowledged -= 50_000;
        entries[2].outcomes.rejected = 50_000;
        entries[2].errors = [("final:busy".to_owned(), 50_000)].into();
        entries.insert(0, Entry { started_at: "2026-02-01T00:00:00.000Z".to_owned(), ..run(9, Verdict::Fail) });
        entries.push(Entry { integrity: IntegrityVerdict::Violated, ..run(6, Verdict::Fail) });
        let text = text(&month(&entries));
        for expected in [
            "# Monthly report 2026-03",
            ": 6 runs.",
            "| Success | 95.8333 % of 1,200,000 attempted operations were acknowledged |",
            "| Availability | 100 % of 6 seconds under load had an acknowledgement |",
            "| Runs | 4 passed, 2 failed, 0 inconclusive; integrity violated in 1 |",
            "| Mean time to repair | 1day over 1 |",
            "- 2026-03-03 00:00 quickstart failed (run-03): repaired after 1day",
            "- 2026-03-06 00:00 quickstart failed (run-06): not repaired yet",
            "- 1.00 quickstart, 2026-03-06 00:00: integrity is",
            "- quickstart: the most frequent error is final:busy, 50,000 times",
            "batchsql report --incident run-06",
            "no baseline; keep one with batchsql baseline save quickstart",
        ] {
            assert!(text.contains(expected), "{expected} is missing in:\n{text}");
        }
        assert!(!text.contains("run-09"), "what was before is not of this month:\n{text}");
    }

    #[test]
    fn a_month_without_runs_says_so() {
        assert!(text(&month(&[])).contains("No run was made in this time"));
    }
}
