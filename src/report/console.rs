//! The summary people read at the end of a run: verdict first, then what it rests on.

use std::fmt::Write as _;
use std::path::Path;

use super::format::{NONE, bytes, count, millis, plain, rate, seconds, short};
use super::{FILES, Integrity, IntegrityVerdict, Report, Second, Verdict, words};

/// Width of the first column.
const LABEL: usize = 12;
/// Columns of a line of the legend.
const LEGEND: usize = 110;
/// Columns of the rate's curve.
const CURVE: usize = 60;
/// Examples shown of each class of anomaly, and characters shown of each value.
const EXAMPLES: usize = 3;
const VALUE: usize = 48;

/// The summary, ending in a newline. `folder` is where the reports were written, `color` whether the terminal shows colours.
#[must_use]
pub fn summary(report: &Report, folder: &Path, color: bool) -> String {
    let mut page = Page { text: String::new(), color };
    verdict(&mut page, report);
    page.line("scenario", &format!("{} · run {} · seed {}", words::scenario(report), plain(&report.run_id), report.seed));
    page.line("target", &words::target(report));
    page.gap();
    let throughput = words::throughput(report);
    page.line("throughput", &if report.throughput.valid { page.paint(BOLD, &throughput) } else { page.paint(RED, &throughput) });
    if let Some((curve, peak)) = curve(&report.timeline) {
        page.line("over time", &format!("{curve}  peak {}", rate(peak as f64, report.throughput.rate.unit())));
    }
    page.gap();
    latencies(&mut page, report);
    page.gap();
    page.line(report.throughput.rate.unit(), &words::outcomes(report));
    for (label, text) in words::http(report) {
        page.line(label, &text);
    }
    errors(&mut page, report);
    integrity(&mut page, &report.integrity);
    let mut label = "faults";
    for fault in &report.faults {
        page.line(label, &super::faults::sentence(fault));
        label = "";
    }
    gates(&mut page, report);
    for line in words::guard(report) {
        page.line("guard", &line);
    }
    page.gap();
    page.line("phases", &words::phases(report));
    let resources = &report.resources;
    page.line("harness", &format!("{} of CPU, {} resident at most", seconds(resources.cpu_seconds), bytes(resources.rss_bytes_max)));
    for note in &report.notes {
        page.line("note", &plain(note));
    }
    page.line("reports", &format!("{} ({})", plain(&folder.display().to_string()), FILES.join(", ")));
    page.line("repeat", &plain(&report.reproduce));
    page.text
}

const BOLD: &str = "1";
const RED: &str = "1;31";
const GREEN: &str = "1;32";
const YELLOW: &str = "1;33";
const DIM: &str = "2";

struct Page {
    text: String,
    color: bool,
}

impl Page {
    fn paint(&self, style: &str, text: &str) -> String {
        if self.color { format!("\u{1b}[{style}m{text}\u{1b}[0m") } else { text.to_owned() }
    }

    fn gap(&mut self) {
        self.text.push('\n');
    }

    /// A line under a label; none for a line that goes on from the one before.
    fn line(&mut self, label: &str, text: &str) {
        let label = self.paint(DIM, &format!("{label:<LABEL$}"));
        let line = format!("  {label}{text}");
        self.text.push_str(line.trim_end());
        self.text.push('\n');
    }
}

fn style(verdict: Verdict) -> (&'static str, char) {
    match verdict {
        Verdict::Pass => (GREEN, '✓'),
        Verdict::Fail => (RED, '✗'),
        Verdict::Inconclusive => (YELLOW, '?'),
    }
}

fn verdict(page: &mut Page, report: &Report) {
    let word = page.paint(style(report.verdict).0, words::verdict(report.verdict));
    let _ = writeln!(page.text, "\n{word}  {}", words::headline(report));
    for reason in &report.reasons {
        let _ = writeln!(page.text, "  - {}", plain(reason));
    }
    page.gap();
}

/// Acknowledged rows a second as a curve, and its peak. Nothing for runs too short to have one.
fn curve(timeline: &[Second]) -> Option<(String, u64)> {
    const STEPS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let peak = timeline.iter().map(|second| second.acknowledged).max().filter(|peak| *peak > 0 && timeline.len() >= 3)?;
    let columns =
        timeline.chunks(timeline.len().div_ceil(CURVE)).map(|part| part.iter().map(|s| s.acknowledged).sum::<u64>() / part.len() as u64);
    let curve = columns.map(|rows| if rows == 0 { ' ' } else { STEPS[(rows as f64 / peak as f64 * 7.0).round() as usize] });
    Some((curve.collect(), peak))
}

fn latencies(page: &mut Page, report: &Report) {
    let cells = |cells: &[String]| cells.iter().fold(String::new(), |line, cell| format!("{line}{cell:>10}"));
    page.line("latency", &cells(&words::PERCENTILES.map(str::to_owned)));
    for (name, _, latency) in words::latencies(report) {
        let values = words::percentiles(latency).map(|value| value.map_or_else(|| NONE.to_owned(), millis));
        page.line(&format!("  {name}"), &cells(&values));
    }
    for line in filled(&words::latency_legend(report)) {
        let line = page.paint(DIM, &line);
        page.line("", &line);
    }
    if let Some(reason) = words::missing_percentiles(report) {
        let reason = page.paint(DIM, reason);
        page.line("", &reason);
    }
}

/// Phrases on as many lines as they need.
fn filled(phrases: &[String]) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for phrase in phrases {
        match lines.last_mut() {
            Some(line) if line.chars().count() + phrase.chars().count() + 2 <= LEGEND => {
                line.push_str("; ");
                line.push_str(phrase);
            }
            _ => lines.push(phrase.clone()),
        }
    }
    lines
}

fn errors(page: &mut Page, report: &Report) {
    let mut label = "errors";
    for (name, times) in &report.errors {
        let class = name.split_once(':').map_or(name.as_str(), |(_, class)| class);
        let example = report.error_examples.get(name).or_else(|| report.error_examples.get(class));
        let example = example.map_or_else(String::new, |message| format!("  e.g. {}", short(message, 90)));
        page.line(label, &format!("{:<22}{:>9}{example}", plain(name), count(*times)));
        label = "";
    }
}

/// What a verification alone found, ending in a newline.
#[must_use]
pub fn findings(found: &Integrity, color: bool) -> String {
    let mut page = Page { text: String::new(), color };
    integrity(&mut page, found);
    page.text
}

fn integrity(page: &mut Page, integrity: &Integrity) {
    let said = words::integrity(integrity);
    let colour = match integrity.verdict {
        IntegrityVerdict::Holds => GREEN,
        IntegrityVerdict::Violated => RED,
        IntegrityVerdict::Inconclusive => YELLOW,
    };
    let mut label = "integrity";
    for sentence in &said {
        let sentence = if label.is_empty() { sentence.clone() } else { page.paint(colour, sentence) };
        page.line(label, &sentence);
        label = "";
    }
    for example in words::examples(integrity, EXAMPLES) {
        let what = if words::is_of_requests(integrity) { "request" } else { "key" };
        let mut text = format!("{:<22}{what} {}", words::class(example), example.key);
        let column = example.column.as_deref().map_or_else(String::new, |column| format!(" {}", plain(column)));
        for (word, value) in ["expected", "found"].into_iter().zip(words::values(example, VALUE)) {
            if let Some(value) = value {
                let _ = write!(text, "  {word}{column} {value}");
            }
        }
        page.line("", &text);
    }
    let hidden = integrity.examples.len() - words::examples(integrity, EXAMPLES).len();
    if hidden > 0 {
        page.line("", &format!("… {hidden} more in {}", FILES[0]));
    }
}

fn gates(page: &mut Page, report: &Report) {
    let width = report.gates.iter().map(|gate| gate.gate.chars().count()).max().unwrap_or(0);
    let mut label = "gates";
    for gate in &report.gates {
        let (colour, mark) = style(gate.verdict);
        let mark = page.paint(colour, &mark.to_string());
        page.line(label, &format!("{mark} {:<width$}  {}", plain(&gate.gate), plain(&gate.message)));
        label = "";
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::sample;

    fn shown(report: &Report) -> String {
        summary(report, Path::new("reports/run"), false)
    }

    #[test]
    fn a_pass_reads_well() {
        insta::assert_snapshot!(shown(&sample::passed()));
    }

    #[test]
    fn a_violation_reads_well() {
        insta::assert_snapshot!(shown(&sample::violated()));
    }

    #[test]
    fn requests_that_passed_read_well() {
        insta::assert_snapshot!(shown(&sample::answered()));
    }

    #[test]
    fn requests_with_wrong_replies_read_well() {
        insta::assert_snapshot!(shown(&sample::garbled()));
    }

    #[test]
    fn colour_changes_nothing_but_colour() {
        let report = sample::violated();
        let coloured = summary(&report, Path::new("reports/run"), true);
        assert!(coloured.contains("\u{1b}[1;31mFAIL\u{1b}[0m"), "{coloured}");
        let mut stripped = String::new();
        let mut rest = coloured.as_str();
        while let Some((before, after)) = rest.split_once("\u{1b}[") {
            stripped += before;
            rest = after.split_once('m').expect("a style ends in m").1;
        }
        assert_eq!(stripped + rest, shown(&report));
    }

    #[test]
    fn nothing_foreign_reaches_the_terminal_as_a_command() {
        let mut report = sample::violated();
        let evil = "\u{1b}]0;owned\u{7}\r\n";
        report.scenario["name"] = evil.into();
        report.environment.target.version = evil.to_owned();
        report.reasons = vec![evil.to_owned()];
        report.notes = vec![evil.to_owned()];
        report.gates[0].message = evil.to_owned();
        report.gates[0].gate = evil.to_owned();
        report.error_examples = [("deadlock".to_owned(), evil.to_owned())].into();
        report.integrity.reason = Some(evil.to_owned());
        let text = shown(&report);
        assert!(text.chars().all(|c| c == '\n' || !c.is_control()), "{text:?}");
    }

    #[test]
    fn a_run_without_anything_is_said_to_have_none() {
        let mut report = sample::passed();
        report.verdict = Verdict::Inconclusive;
        report.throughput = crate::report::Throughput { rate: crate::report::Rate::Rows(None), valid: false };
        report.integrity = crate::report::Integrity {
            verdict: IntegrityVerdict::Inconclusive,
            reason: Some("no row was acknowledged".to_owned()),
            rate: None,
            checked: 0,
            ..report.integrity
        };
        report.latency = crate::report::Latencies::default();
        report.timeline.clear();
        let text = shown(&report);
        for words in [
            "INCONCLUSIVE",
            "none: no row of phase main was acknowledged",
            "not proven: no row was acknowledged",
            "too few answers to know this percentile",
        ] {
            assert!(text.contains(words), "{words}\n{text}");
        }
        report.throughput.rate = crate::report::Rate::Rows(Some(5000.0));
        assert!(shown(&report).contains("not proven: 5,000 rows/s were timed, but integrity is not proven"), "{}", shown(&report));
    }
}
