//! A comparison as people read it: the table on the terminal, and as Markdown for a pull request.

use std::fmt::Write as _;
use std::path::Path;

use super::Verdict;
use super::format::{NONE, bytes, count, millis, plain, rate, seconds};
use crate::compare::{Change, ChangeKind, Comparison, FigureUnit, Finding, Kind, MetricComparison, Values};

/// The files of a comparison, beside the folders of its runs.
pub const FILES: [&str; 3] = ["comparison.json", "comparison.md", "comparison.html"];

pub(super) const HEADS: [&str; 7] = ["indicator", "before", "after", "change", "95 % interval", "verdict", "could find"];

/// What was found, in one sentence.
#[must_use]
pub fn headline(comparison: &Comparison) -> String {
    if comparison.void {
        return "void: integrity is violated, so nothing here has speed".to_owned();
    }
    let those = |wanted: Finding| comparison.metrics.iter().filter(|metric| metric.verdict == wanted).collect::<Vec<_>>();
    let known = comparison.metrics.iter().filter(|metric| metric.verdict != Finding::NoData).count();
    let said = |wanted: Finding| {
        let names: Vec<&str> = those(wanted).iter().map(|metric| metric.metric.as_str()).collect();
        (!names.is_empty()).then(|| format!("{}: {}", wanted.words(), names.join(", ")))
    };
    let shown: Vec<String> = [Finding::Worse, Finding::Better, Finding::Different].into_iter().filter_map(said).collect();
    let noisy = those(Finding::TooNoisyToSay).len();
    let mut sentence = match (comparison.kind, shown.is_empty()) {
        _ if known == 0 => "no data on either side".to_owned(),
        (_, true) if noisy == known => "too noisy to say".to_owned(),
        (_, true) => "no difference shown".to_owned(),
        (Kind::SameTwice, false) => format!("by chance, one side against itself is {}", shown.join("; ")),
        (_, false) => shown.join("; "),
    };
    if noisy > 0 && noisy < known {
        let _ = write!(sentence, " ({noisy} of {known} figures too noisy to say)");
    }
    sentence
}

/// The figures that a side at least has: the rows of the table.
pub(super) fn known(comparison: &Comparison) -> Vec<&MetricComparison> {
    comparison.metrics.iter().filter(|metric| !is_unknown(metric)).collect()
}

fn is_unknown(metric: &MetricComparison) -> bool {
    metric.verdict == Finding::NoData && metric.before.median.is_none() && metric.after.median.is_none()
}

/// The summary on a terminal, ending in a newline.
#[must_use]
pub fn terminal(comparison: &Comparison, folder: &Path, color: bool) -> String {
    let mut page = String::new();
    let paint = |style: &str, text: &str| if color { format!("\u{1b}[{style}m{text}\u{1b}[0m") } else { text.to_owned() };
    let _ = writeln!(page, "\n{}\n", paint("1", &plain(&headline(comparison))));
    let _ = writeln!(page, "  before  {}\n  after   {}", plain(&comparison.before.name), plain(&comparison.after.name));
    let _ = writeln!(page, "  {}\n", basis(comparison));
    let rows: Vec<[String; 7]> = known(comparison).into_iter().map(row).collect();
    let width =
        |column: usize| rows.iter().map(|row| row[column].chars().count()).chain([HEADS[column].chars().count()]).max().unwrap_or(0);
    let widths: [usize; 7] = std::array::from_fn(width);
    let line = |cells: &[String; 7], verdict: Option<Finding>| {
        let mut line = String::from(" ");
        for (column, cell) in cells.iter().enumerate() {
            let space = " ".repeat(widths[column] - cell.chars().count());
            let cell = verdict.filter(|_| column == 5).map_or_else(|| cell.clone(), |verdict| paint(style(verdict), cell));
            // Numbers to the right, words to the left.
            line += &if matches!(column, 0 | 5) { format!(" {cell}{space} ") } else { format!(" {space}{cell} ") };
        }
        line.trim_end().to_owned() + "\n"
    };
    page += &line(&HEADS.map(str::to_owned), None);
    for (metric, row) in known(comparison).iter().zip(&rows) {
        page += &line(row, Some(metric.verdict));
    }
    page.push('\n');
    for gate in &comparison.gates {
        let _ = writeln!(page, "  {} {}  {}", mark(gate.verdict), plain(&gate.gate), plain(&gate.message));
    }
    for reason in comparison.reasons.iter().filter(|reason| !comparison.gates.iter().any(|gate| reason.starts_with(&gate.gate))) {
        let _ = writeln!(page, "  - {}", plain(reason));
    }
    for sentence in explanations(comparison) {
        let _ = writeln!(page, "  {}", paint("2", &plain(&sentence)));
    }
    let _ = writeln!(page, "  reports  {} ({})", plain(&folder.display().to_string()), FILES.join(", "));
    let _ = writeln!(page, "  repeat   {}", plain(&comparison.reproduce));
    page
}

fn style(verdict: Finding) -> &'static str {
    match verdict {
        Finding::Better => "1;32",
        Finding::Worse | Finding::Void => "1;31",
        Finding::TooNoisyToSay => "33",
        Finding::Different => "1",
        Finding::NoDifferenceShown | Finding::NoData => "2",
    }
}

fn mark(verdict: Verdict) -> char {
    match verdict {
        Verdict::Pass => '✓',
        Verdict::Fail => '✗',
        Verdict::Inconclusive => '?',
    }
}

/// Ready to be pasted into a pull request.
#[must_use]
pub fn markdown(comparison: &Comparison) -> String {
    let mut page = String::new();
    let cell = |text: &str| plain(text).replace('|', "\\|").replace('<', "&lt;").replace('`', "");
    let _ = writeln!(page, "## {}\n", cell(&headline(comparison)));
    let _ = writeln!(page, "Before: {}. After: {}. {}\n", cell(&comparison.before.name), cell(&comparison.after.name), basis(comparison));
    let _ = writeln!(page, "| {} |\n|---|--:|--:|--:|--:|---|--:|", HEADS.join(" | "));
    for metric in known(comparison) {
        let mut row = row(metric).map(|text| cell(&text));
        if matches!(metric.verdict, Finding::Better | Finding::Worse | Finding::Void) {
            row[5] = format!("**{}**", row[5]);
        }
        let _ = writeln!(page, "| {} |", row.join(" | "));
    }
    page.push('\n');
    if !comparison.gates.is_empty() {
        page.push_str("| | gate | found |\n|---|---|---|\n");
        for gate in &comparison.gates {
            let _ = writeln!(page, "| {} | `{}` | {} |", mark(gate.verdict), cell(&gate.gate), cell(&gate.message));
        }
        page.push('\n');
    }
    for reason in &comparison.reasons {
        let _ = writeln!(page, "- {}", cell(reason));
    }
    for sentence in explanations(comparison) {
        let _ = writeln!(page, "- {}", cell(&sentence));
    }
    let machine = &comparison.environment;
    let target = format!("{} {}", machine.target.name, machine.target.version);
    let _ = writeln!(
        page,
        "\n{}, {} cores, {}; {}; batchsql {}. Repeat it with\n\n    {}",
        cell(&machine.cpu),
        machine.cores,
        bytes(machine.memory_bytes),
        cell(target.trim()),
        cell(&machine.batchsql_version),
        plain(&comparison.reproduce)
    );
    page
}

/// What the numbers rest on.
pub(super) fn basis(comparison: &Comparison) -> String {
    let runs = [comparison.before.runs.len(), comparison.after.runs.len()];
    let took = seconds(comparison.duration_seconds);
    match comparison.kind {
        Kind::Saved => "Two saved reports of the same circumstances.".to_owned(),
        Kind::Calibrated => "Two saved reports, each related to its own machine's calibration: only ratios mean something.".to_owned(),
        Kind::Runs | Kind::SameTwice => {
            let of = if runs[0] == comparison.pairs && runs[1] == comparison.pairs {
                format!("{} pair{}", comparison.pairs, if comparison.pairs == 1 { "" } else { "s" })
            } else {
                format!("{} and {} runs of {} pairs asked for", runs[0], runs[1], comparison.pairs)
            };
            format!("{of}, run in turns within {took}, each from fresh state.")
        }
    }
}

pub(super) fn explanations(comparison: &Comparison) -> Vec<String> {
    let mut said = Vec::new();
    let any = |wanted: &dyn Fn(&MetricComparison) -> bool| comparison.metrics.iter().any(wanted);
    if comparison.kind == Kind::SameTwice {
        said.push("one side against itself: \"could find\" is the noise floor of this machine and scenario".to_owned());
    }
    if any(&|metric| metric.detectable.is_some()) {
        said.push("could find: the smallest change that these runs at this noise show nine times in ten".to_owned());
    }
    if any(&|metric| metric.change.is_some_and(|change| change.within_runs)) {
        said.push("one pair: intervals marked ~ speak of the seconds within it, not of how two runs of the same thing differ".to_owned());
    }
    let torn: Vec<&str> = comparison.metrics.iter().filter(|metric| is_torn(metric)).map(|metric| metric.metric.as_str()).collect();
    if !torn.is_empty() {
        said.push(format!(
            "{}: over all runs together it lies the other way than run by run; a few runs had most of the slow operations",
            torn.join(", ")
        ));
    }
    let mut reasons: Vec<&String> = comparison
        .metrics
        .iter()
        .filter(|metric| metric.verdict == Finding::TooNoisyToSay)
        .filter_map(|metric| metric.reason.as_ref())
        .collect();
    reasons.retain(|reason| reason.contains("pairs are the fewest"));
    if let Some(reason) = reasons.first() {
        said.push((*reason).clone());
    }
    let alone: Vec<&str> = comparison
        .metrics
        .iter()
        .filter(|metric| metric.reason.as_ref().is_some_and(|reason| reason.starts_with("it differs by itself")))
        .map(|metric| metric.metric.as_str())
        .collect();
    if !alone.is_empty() {
        said.push(format!(
            "{}: differs by itself, but not among all figures looked at together; run more pairs, or put a gate on it",
            alone.join(", ")
        ));
    }
    let unknown: Vec<&str> = comparison.metrics.iter().filter(|metric| is_unknown(metric)).map(|metric| metric.metric.as_str()).collect();
    if !unknown.is_empty() {
        said.push(format!("no data on either side: {}", unknown.join(", ")));
    }
    said.extend(comparison.notes.iter().map(|note| format!("note: {note}")));
    said
}

/// Whether the percentiles of the merged distributions and the change, which is one of runs, point opposite ways.
fn is_torn(metric: &MetricComparison) -> bool {
    let merged = metric.before.merged.zip(metric.after.merged).map(|(before, after)| after / before);
    let change = metric.change.filter(|change| change.kind == ChangeKind::Ratio).map(|change| change.estimate);
    merged.zip(change).is_some_and(|(merged, change)| (merged > 1.0) != (change > 1.0) && (merged / change).ln().abs() > 0.1)
}

pub(super) fn row(metric: &MetricComparison) -> [String; 7] {
    // A percentile of all runs' histograms, where there is one.
    let value = |values: &Values| values.merged.or(values.median).map_or_else(|| NONE.to_owned(), |value| shown(metric.unit, value));
    let (change, interval) = metric.change.map_or_else(|| (NONE.to_owned(), NONE.to_owned()), |change| changed(metric.unit, &change));
    let found = metric.detectable.map_or_else(|| NONE.to_owned(), |share| format!("±{}", percent(share)));
    let verdict = metric.verdict.words().to_owned();
    [metric.metric.clone(), value(&metric.before), value(&metric.after), change, interval, verdict, found]
}

fn shown(unit: FigureUnit, value: f64) -> String {
    match unit {
        FigureUnit::PerSecond => rate(value, "").trim_end_matches(" /s").to_owned() + "/s",
        FigureUnit::Milliseconds => millis(value),
        FigureUnit::Share => percent(value),
        FigureUnit::Seconds => seconds(value),
        FigureUnit::Bytes => bytes(value.max(0.0) as u64),
    }
}

/// The change and its interval.
pub(super) fn changed(unit: FigureUnit, change: &Change) -> (String, String) {
    let one = |value: f64| match change.kind {
        // Beyond three times, factors are read more easily than percentages.
        ChangeKind::Ratio if value >= 3.0 => format!("×{}", if value < 99.5 { format!("{value:.1}") } else { count(value.round() as u64) }),
        ChangeKind::Ratio => signed(value - 1.0, &percent((value - 1.0).abs())),
        ChangeKind::Difference => signed(value, &shown(unit, value.abs())),
    };
    let around = if change.within_runs { "~" } else { "" };
    let interval =
        change.low.zip(change.high).map_or_else(|| NONE.to_owned(), |(low, high)| format!("{around}{} to {}", one(low), one(high)));
    (one(change.estimate), interval)
}

fn signed(value: f64, text: &str) -> String {
    format!("{}{text}", if value < 0.0 { "−" } else { "+" })
}

/// `12 %`, `1.2 %`, `0.12 %`.
fn percent(share: f64) -> String {
    let percent = share * 100.0;
    match percent {
        whole if whole >= 99.5 => format!("{} %", count(whole.round() as u64)),
        tens if tens >= 9.95 => format!("{tens:.0} %"),
        ones if ones >= 0.995 => format!("{ones:.1} %"),
        few => format!("{few:.2} %"),
    }
}
