//! `report.md`: the summary for pull requests and wikis.

use std::fmt::Write as _;

use super::format::{NONE, bytes, count, millis, plain, seconds, short};
use super::{Report, Verdict, words};

/// Examples shown of each class of anomaly, and characters shown of each value.
const EXAMPLES: usize = 5;
const VALUE: usize = 120;

/// The file's text.
#[must_use]
pub fn text(report: &Report) -> String {
    let mut page = String::new();
    let mark = mark(report.verdict);
    let _ = writeln!(page, "# {mark} {}: {}\n", words::verdict(report.verdict), escape(&words::scenario(report)));
    let _ = writeln!(page, "{}.\n", escape(&words::headline(report)));
    for reason in &report.reasons {
        let _ = writeln!(page, "- {}", escape(reason));
    }
    if !report.reasons.is_empty() {
        page.push('\n');
    }
    facts(&mut page, report);
    latencies(&mut page, report);
    gates(&mut page, report);
    examples(&mut page, report);
    errors(&mut page, report);
    faults(&mut page, report);
    let _ = writeln!(page, "Repeat it with\n\n    {}", plain(&report.reproduce));
    page
}

fn mark(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Pass => "✅",
        Verdict::Fail => "❌",
        Verdict::Inconclusive => "❔",
    }
}

fn facts(page: &mut String, report: &Report) {
    let environment = &report.environment;
    let machine = format!("{}, {} cores, {}, {}", environment.cpu, environment.cores, bytes(environment.memory_bytes), environment.os);
    let resources = format!("{} of CPU, {} resident at most", seconds(report.resources.cpu_seconds), bytes(report.resources.rss_bytes_max));
    page.push_str("| | |\n|---|---|\n");
    let rows = [
        ("Throughput", words::throughput(report)),
        ("Integrity", words::integrity(&report.integrity).join("; ")),
        (if report.throughput.rate.unit() == "rows" { "Rows" } else { "Requests" }, words::outcomes(report)),
        ("Target", words::target(report)),
        ("Phases", words::phases(report)),
        ("Machine", machine),
        ("Harness", resources),
        ("Run", format!("{}, seed {}, {}", report.run_id, report.seed, report.started_at)),
    ];
    for (name, value) in rows {
        let _ = writeln!(page, "| {name} | {} |", escape(&value));
    }
    for (label, text) in words::http(report) {
        let _ = writeln!(page, "| {} | {} |", capital(label), escape(&text));
    }
    for line in words::guard(report) {
        let _ = writeln!(page, "| Guard | {} |", escape(&line));
    }
    for note in &report.notes {
        let _ = writeln!(page, "| Note | {} |", escape(note));
    }
    page.push('\n');
}

fn capital(word: &str) -> String {
    let mut letters = word.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}

fn latencies(page: &mut String, report: &Report) {
    let _ = writeln!(page, "| Latency | {} |", words::PERCENTILES.join(" | "));
    let _ = writeln!(page, "|---|{}", "---:|".repeat(words::PERCENTILES.len()));
    for (name, _, latency) in words::latencies(report) {
        let values = words::percentiles(latency).map(|value| value.map_or_else(|| NONE.to_owned(), millis));
        let _ = writeln!(page, "| {name} | {} |", values.join(" | "));
    }
    let _ = writeln!(page, "\n{}.", words::latency_legend(report).join("; "));
    if let Some(reason) = words::missing_percentiles(report) {
        let _ = writeln!(page, "{reason}.");
    }
    page.push('\n');
}

fn gates(page: &mut String, report: &Report) {
    page.push_str("| | Gate | Found |\n|---|---|---|\n");
    for gate in &report.gates {
        let _ = writeln!(page, "| {} | {} | {} |", mark(gate.verdict), escape(&gate.gate), escape(&gate.message));
    }
    page.push('\n');
}

fn examples(page: &mut String, report: &Report) {
    let examples = words::examples(&report.integrity, EXAMPLES);
    if examples.is_empty() {
        return;
    }
    let what = if words::is_of_requests(&report.integrity) { "Request" } else { "Key" };
    let _ = writeln!(page, "| Anomaly | {what} | Column | Expected | Found |\n|---|---:|---|---|---|");
    let value = |text: Option<String>| text.map_or_else(String::new, |text| format!("<code>{}</code>", escape(&text)));
    for example in &examples {
        let column = example.column.as_deref().unwrap_or_default();
        let [expected, found] = words::values(example, VALUE).map(value);
        let _ = writeln!(page, "| {} | {} | {} | {expected} | {found} |", escape(&words::class(example)), example.key, escape(column));
    }
    page.push('\n');
}

fn faults(page: &mut String, report: &Report) {
    if report.faults.is_empty() {
        return;
    }
    let _ = writeln!(page, "| {} |\n|{}", super::faults::HEADS.join(" | "), "---|".repeat(super::faults::HEADS.len()));
    for fault in &report.faults {
        let _ = writeln!(page, "| {} |", super::faults::cells(fault).map(|cell| escape(&cell)).join(" | "));
    }
    page.push('\n');
}

fn errors(page: &mut String, report: &Report) {
    if report.errors.is_empty() {
        return;
    }
    page.push_str("| Error | Times | Example |\n|---|---:|---|\n");
    for (name, times) in &report.errors {
        let class = name.split_once(':').map_or(name.as_str(), |(_, class)| class);
        let example = report.error_examples.get(name).or_else(|| report.error_examples.get(class));
        let example = example.map_or_else(String::new, |message| escape(&short(message, VALUE)));
        let _ = writeln!(page, "| {} | {} | {example} |", escape(name), count(*times));
    }
    page.push('\n');
}

/// Text that means nothing to Markdown or HTML.
pub(crate) fn escape(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in plain(text).chars() {
        match c {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '\\' | '|' | '`' | '*' | '[' | ']' | '~' | '$' => {
                safe.push('\\');
                safe.push(c);
            }
            _ => safe.push(c),
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::sample;

    #[test]
    fn a_pass_reads_well() {
        insta::assert_snapshot!(text(&sample::passed()));
    }

    #[test]
    fn a_violation_reads_well() {
        insta::assert_snapshot!(text(&sample::violated()));
    }

    #[test]
    fn requests_that_passed_read_well() {
        insta::assert_snapshot!(text(&sample::answered()));
    }

    #[test]
    fn requests_with_wrong_replies_read_well() {
        insta::assert_snapshot!(text(&sample::garbled()));
    }

    #[test]
    fn foreign_text_stays_in_its_cell() {
        assert_eq!(escape("a|b `c` <img src=x> *d* \\|"), "a\\|b \\`c\\` &lt;img src=x&gt; \\*d\\* \\\\\\|");
        let mut report = sample::violated();
        report.integrity.examples[5].found = Some("x | y\n| z |".to_owned());
        let page = text(&report);
        let row = page.lines().find(|line| line.contains("x \\| y")).expect("the row");
        assert_eq!(row.replace("\\|", "").matches('|').count(), 6, "{row}");
    }
}
