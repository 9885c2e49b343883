//! The history as people read it: a line a scenario, or one scenario with its spark lines, changes, anomalies and runs.

use std::fmt::Write as _;

use super::Entry;
use super::command::{Group, Moved};
use crate::report::format::{NONE, count, millis, percent, plain};

/// Runs in the table.
const ROWS: usize = 20;
/// Runs in a spark line, the newest at its end.
const SPARKS: usize = 60;

/// The value of a figure with its unit.
pub(crate) fn value(figure: &str, value: f64) -> String {
    match figure {
        "error_rate" | "integrity" => percent(value),
        rate if rate.ends_with("_per_second") => format!("{}/s", count(value.round() as u64)),
        _ => millis(value),
    }
}

/// A line of bars, each as high as its value between the least and the greatest; gaps where a run has none.
pub(crate) fn spark(values: &[Option<f64>]) -> String {
    const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let known = || values.iter().flatten().copied();
    let (low, high) = (known().fold(f64::INFINITY, f64::min), known().fold(f64::NEG_INFINITY, f64::max));
    let bar = |value: f64| if high > low { BARS[((value - low) / (high - low) * 7.0).round() as usize] } else { BARS[3] };
    values.iter().map(|value| value.map_or('·', bar)).collect()
}

/// The newest values of a figure, the oldest of them first.
pub(crate) fn series(runs: &[Entry], figure: &str) -> Vec<Option<f64>> {
    runs.iter().take(SPARKS).rev().map(|run| run.figures.get(figure).copied().filter(|_| run.counts())).collect()
}

/// A line a group.
pub(super) fn overview(groups: &[Group]) -> String {
    let mut text = String::new();
    let width = groups.iter().map(|group| group.scenario.chars().count()).max().unwrap_or(0).clamp(8, 40);
    let _ = writeln!(text, "{:width$}  {:>5}  {:12}  {:24}  last run", "scenario", "runs", "last verdict", "rate");
    for group in groups {
        let Some(last) = group.runs.first() else { continue };
        let rates = spark(&series(&group.runs[..group.runs.len().min(24)], last.rate_name()));
        let warned = match (group.changes.len(), group.anomalies.len()) {
            (0, 0) => String::new(),
            (changes, anomalies) => format!("  ({changes} changes, {anomalies} anomalies)"),
        };
        let name: String = plain(&group.scenario).chars().take(40).collect();
        let verdict = word(&last.verdict);
        let _ = writeln!(text, "{name:width$}  {:>5}  {verdict:12}  {rates:24}  {}{warned}", group.runs.len(), last.run_id);
    }
    text + "\nMore of one: batchsql history SCENARIO\n"
}

/// One group in full.
pub(super) fn details(group: &Group) -> String {
    let mut text = String::new();
    let Some(last) = group.runs.first() else { return text };
    let here = &last.fingerprint;
    let _ = writeln!(text, "{} ({}), {} runs", plain(&group.scenario), group.scenario_hash, group.runs.len());
    let _ = writeln!(
        text,
        "  {} {} on {}, {} cores, {} GiB, {}",
        plain(&here.server),
        plain(&here.server_version),
        plain(&here.cpu),
        here.cores,
        here.memory_bytes >> 30,
        plain(&here.os)
    );
    for figure in [last.rate_name(), "response.p50", "response.p99"] {
        let newest = last.figures.get(figure).map_or(NONE.to_owned(), |found| value(figure, *found));
        let _ = writeln!(text, "  {figure:20} {}  {newest}", spark(&series(&group.runs, figure)));
    }
    if let Some(p99) = group.response.p99_ms {
        let p50 = group.response.p50_ms.map_or(NONE.to_owned(), millis);
        let _ = writeln!(text, "  response over all of them: p50 {p50}, p99 {} ({} operations)", millis(p99), count(group.response.count));
    }
    for moved in &group.changes {
        let _ = writeln!(text, "  change: {}", change(moved));
    }
    for anomaly in &group.anomalies {
        let shown = |found: Option<f64>| found.map_or(NONE.to_owned(), |found| value(&anomaly.figure, found));
        let (is, usual) = (shown(anomaly.value), shown(anomaly.usual));
        let _ = writeln!(text, "  anomaly {:.2}: {} is {is}, usually {usual}, in {}", anomaly.score, anomaly.figure, anomaly.run_id);
    }
    table(&mut text, &group.runs);
    text.push('\n');
    text
}

/// A change in words.
pub(crate) fn change(moved: &Moved) -> String {
    let way = if moved.after > moved.before { "rose" } else { "fell" };
    let by = moved.change_percent.map_or(String::new(), |percent| format!(" by {:.0} %", percent.abs()));
    let commit = |commit: &Option<String>| plain(&commit.as_deref().unwrap_or("unknown").chars().take(12).collect::<String>());
    format!(
        "{} {way}{by} ({} → {}, {}) after commit {}, first seen with {} in {}",
        moved.figure,
        value(&moved.figure, moved.before),
        value(&moved.figure, moved.after),
        if moved.worse { "worse" } else { "better" },
        commit(&moved.last_commit_before),
        commit(&moved.commit),
        moved.run_id
    )
}

fn table(text: &mut String, runs: &[Entry]) {
    let _ = writeln!(
        text,
        "  {:19}  {:12}  {:9}  {:>12}  {:>9}  {:>9}  {:12}  run",
        "started (UTC)", "verdict", "integrity", "rate", "p50", "p99", "commit"
    );
    for run in runs.iter().take(ROWS) {
        let shown = |figure: &str| run.figures.get(figure).map_or(NONE.to_owned(), |found| value(figure, *found));
        let started: String = run.started_at.chars().take(19).collect::<String>().replace('T', " ");
        let commit: String = plain(run.fingerprint.git_commit.as_deref().unwrap_or(NONE)).chars().take(12).collect();
        let (verdict, integrity) = (word(&run.verdict), word(&run.integrity));
        let rate = if run.valid { shown(run.rate_name()) } else { "void".to_owned() };
        let (p50, p99) = (shown("response.p50"), shown("response.p99"));
        let _ = writeln!(text, "  {started}  {verdict:12}  {integrity:9}  {rate:>12}  {p50:>9}  {p99:>9}  {commit:12}  {}", run.run_id);
    }
    if runs.len() > ROWS {
        let _ = writeln!(text, "  and {} older; --json has all", runs.len() - ROWS);
    }
}

/// A verdict as reports call it.
pub(crate) fn word(verdict: &impl serde::Serialize) -> String {
    serde_json::to_value(verdict).ok().and_then(|value| value.as_str().map(str::to_owned)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spark_line_goes_from_the_least_to_the_greatest() {
        assert_eq!(spark(&[Some(1.0), None, Some(4.5), Some(8.0)]), "▁·▅█");
        assert_eq!(spark(&[Some(2.0), Some(2.0)]), "▄▄");
        assert_eq!(spark(&[None]), "·");
    }

    #[test]
    fn values_have_their_units() {
        assert_eq!(
            [value("rows_per_second", 1234.6), value("response.p99", 12.34), value("error_rate", 0.5)],
            ["1,235/s", "12.3 ms", "50.0000 %"]
        );
    }
}
