//! A search as people read it: the rate, what leads there, on the terminal and as Markdown.

use std::fmt::Write as _;
use std::path::Path;

use super::Verdict;
use super::format::{NONE, columns, count, millis, plain, rate, seconds};
use super::markdown::escape;
use crate::search::{FILES, Outcome, Point, Search, Shown};

const HEADS: [&str; 7] = ["asked for", "", "steps held", "acknowledged", "p50", "p99", "dropped"];

/// A rate as it was asked for: no digit is left out.
pub(super) fn asked(per_second: f64) -> String {
    if per_second.fract() == 0.0 { count(per_second as u64) } else { format!("{per_second}") }
}

/// What was found, in one sentence.
#[must_use]
pub fn headline(search: &Search) -> String {
    let unit = &search.unit;
    let between = match (search.held_per_second, search.failed_per_second) {
        (Some(held), Some(failed)) => format!("{} {unit}/s hold, {} do not", asked(held), asked(failed)),
        (Some(held), None) => format!("{} {unit}/s hold", asked(held)),
        (None, Some(failed)) => format!("{} {unit}/s do not hold", asked(failed)),
        (None, None) => "no rate was shown to hold or not to".to_owned(),
    };
    match search.outcome {
        Outcome::Found => between,
        Outcome::HoldsEverywhere => format!("{between}, and so the limit lies above --to"),
        Outcome::HoldsNowhere => format!("not even the lowest rate holds: {between}"),
        Outcome::Undecided => format!("undecided: {between}"),
        Outcome::Void => "void: integrity is violated, so no rate counts".to_owned(),
        Outcome::Interrupted => format!("interrupted: {between}"),
    }
}

/// The outcome as runs have it.
pub(super) fn verdict(outcome: Outcome) -> Verdict {
    match outcome {
        Outcome::Found | Outcome::HoldsEverywhere => Verdict::Pass,
        Outcome::HoldsNowhere | Outcome::Void => Verdict::Fail,
        Outcome::Undecided | Outcome::Interrupted => Verdict::Inconclusive,
    }
}

/// What was asked, and how.
pub(super) fn basis(search: &Search) -> String {
    format!(
        "{} to {} {}/s, within {} %, {} steps of {}",
        asked(search.from_per_second),
        asked(search.to_per_second),
        search.unit,
        search.precision * 100.0,
        search.steps.len(),
        seconds(search.step_seconds)
    )
}

pub(super) fn row(point: &Point, unit: &str) -> [String; 7] {
    let time = |value: Option<f64>| value.map_or_else(|| NONE.to_owned(), millis);
    let speed = |value: Option<f64>| value.map_or_else(|| NONE.to_owned(), |value| rate(value, unit));
    [
        asked(point.rate_per_second),
        point.shown.words().to_owned(),
        format!("{} of {}", point.held, point.steps),
        speed(point.throughput_per_second),
        time(point.response_p50_ms),
        time(point.response_p99_ms),
        speed(point.dropped_per_second),
    ]
}

/// The summary on a terminal, ending in a newline.
#[must_use]
pub fn terminal(search: &Search, folder: &Path, color: bool) -> String {
    let paint = |style: &str, text: &str| if color { format!("\u{1b}[{style}m{text}\u{1b}[0m") } else { text.to_owned() };
    let style = match verdict(search.outcome) {
        Verdict::Pass => "1;32",
        Verdict::Fail => "1;31",
        Verdict::Inconclusive => "1;33",
    };
    let mut page = format!("\n{}\n", paint(style, &plain(&headline(search))));
    for reason in &search.reasons {
        let _ = writeln!(page, "  - {}", plain(reason));
    }
    let _ = writeln!(page, "\n  scenario  {}\n  while     {}", plain(&search.scenario), plain(&search.gates.join("; ")));
    let _ = writeln!(page, "  looked    {}\n", basis(search));
    let rows: Vec<Vec<String>> = search.curve.iter().map(|point| row(point, &search.unit).to_vec()).collect();
    for (place, line) in columns(&HEADS, &rows, &[1]).into_iter().enumerate() {
        let shown = place.checked_sub(1).map(|row| search.curve[row].shown);
        let style = match shown {
            None => "2",
            Some(Shown::Held) => "32",
            Some(Shown::Failed | Shown::Void) => "31",
            Some(Shown::Undecided) => "33",
        };
        let _ = writeln!(page, "  {}", paint(style, &line));
    }
    page.push('\n');
    for note in &search.notes {
        let _ = writeln!(page, "  note      {}", plain(note));
    }
    let _ = writeln!(page, "  reports   {} ({})", plain(&folder.display().to_string()), FILES.join(", "));
    let _ = writeln!(page, "  repeat    {}", plain(&search.reproduce));
    page
}

/// The file's text.
#[must_use]
pub fn markdown(search: &Search) -> String {
    let mut page = format!("# Limit of {}\n\n**{}**\n\n", escape(&search.scenario), escape(&headline(search)));
    for reason in &search.reasons {
        let _ = writeln!(page, "- {}", escape(reason));
    }
    let _ = writeln!(page, "\nWhile {}; {}.\n", escape(&search.gates.join("; ")), escape(&basis(search)));
    let _ = writeln!(page, "| {} |\n|---:|---|---|---:|---:|---:|---:|", HEADS.join(" | "));
    for point in &search.curve {
        let _ = writeln!(page, "| {} |", row(point, &search.unit).join(" | "));
    }
    page.push('\n');
    for note in &search.notes {
        let _ = writeln!(page, "- {}", escape(note));
    }
    let _ = writeln!(page, "\nRepeat it with\n\n    {}", plain(&search.reproduce));
    page
}

#[cfg(test)]
pub(super) fn sample() -> Search {
    let point = |rate: f64, shown: Shown, held: usize, steps: usize, p99: f64| Point {
        rate_per_second: rate,
        shown,
        held,
        steps,
        throughput_per_second: Some(rate.min(200.0)),
        response_p50_ms: Some(20.5),
        response_p99_ms: Some(p99),
        dropped_per_second: Some(0.0),
    };
    Search {
        schema_version: crate::search::SCHEMA_VERSION,
        search_id: "20260301-101500-search_orders-1a2b".to_owned(),
        scenario: "orders | <b>".to_owned(),
        unit: "requests".to_owned(),
        started_at: "2026-03-01T10:15:00Z".to_owned(),
        duration_seconds: 130.0,
        reproduce: "batchsql search orders.yaml --while 'response.p99 < 50ms' --seed 42".to_owned(),
        environment: super::Environment::default(),
        gates: vec!["response.p99 < 50ms".to_owned()],
        from_per_second: 100.0,
        to_per_second: 1_000_000.0,
        precision: 0.05,
        step_seconds: 10.0,
        outcome: Outcome::Found,
        held_per_second: Some(194.5),
        failed_per_second: Some(203.1),
        reasons: Vec::new(),
        notes: Vec::new(),
        curve: vec![
            point(100.0, Shown::Held, 1, 1, 22.0),
            point(194.5, Shown::Held, 3, 4, 41.0),
            point(203.1, Shown::Failed, 0, 2, 350.0),
            point(400.0, Shown::Failed, 0, 2, 5_000.0),
        ],
        steps: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_search_reads_well() {
        let search = sample();
        insta::assert_snapshot!(terminal(&search, Path::new("reports/20260301-101500-search_orders-1a2b"), false));
        let markdown = markdown(&search);
        assert!(markdown.contains("# Limit of orders \\| &lt;b&gt;"), "{markdown}");
        assert!(markdown.contains("| 194.5 | held | 3 of 4 | 195 requests/s | 20.5 ms | 41.0 ms | 0.00 requests/s |"), "{markdown}");
        assert!(terminal(&search, Path::new("x"), true).contains("\u{1b}[1;32m194.5 requests/s hold, 203.1 do not\u{1b}[0m"));
    }

    #[test]
    fn every_end_has_its_sentence() {
        let said = |outcome: Outcome, held: Option<f64>, failed: Option<f64>| {
            headline(&Search { outcome, held_per_second: held, failed_per_second: failed, ..sample() })
        };
        assert_eq!(said(Outcome::HoldsEverywhere, Some(1e6), None), "1,000,000 requests/s hold, and so the limit lies above --to");
        assert_eq!(said(Outcome::HoldsNowhere, None, Some(100.0)), "not even the lowest rate holds: 100 requests/s do not hold");
        assert_eq!(said(Outcome::Undecided, None, None), "undecided: no rate was shown to hold or not to");
        assert_eq!(said(Outcome::Void, Some(100.0), None), "void: integrity is violated, so no rate counts");
        assert_eq!(said(Outcome::Interrupted, Some(100.0), None), "interrupted: 100 requests/s hold");
    }
}
