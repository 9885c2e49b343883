//! What a job of GitHub Actions shows: annotations beside the change, and a summary on the job's page.

use std::fs::OpenOptions;
use std::io::Write as _;

use super::format::plain;
use super::{GateResult, Verdict};
use crate::runner::say;

/// GitHub drops a step's summary beyond this.
const LARGEST: u64 = 1 << 20;
/// GitHub shows so many annotations of a step.
const MOST: usize = 10;

/// Tells GitHub, where there is one: `title` is what was judged, `markdown` its page.
pub(crate) fn tell(title: &str, verdict: Verdict, reasons: &[String], gates: &[GateResult], markdown: &str) {
    if std::env::var("GITHUB_ACTIONS").is_ok_and(|value| value == "true") {
        let lines: String = annotations(title, verdict, reasons, gates).iter().map(|line| format!("{line}\n")).collect();
        // Standard output may be promised to JSON; GitHub reads both.
        let _ = std::io::stderr().lock().write_all(lines.as_bytes());
    }
    if let Some(file) = std::env::var_os("GITHUB_STEP_SUMMARY").filter(|file| !file.is_empty())
        && let Err(error) = append(std::path::Path::new(&file), markdown)
    {
        say(&format!("batchsql: the summary cannot be appended to GITHUB_STEP_SUMMARY: {error}"));
    }
}

fn append(file: &std::path::Path, markdown: &str) -> std::io::Result<()> {
    let mut file = OpenOptions::new().append(true).create(true).open(file)?;
    if file.metadata()?.len() + markdown.len() as u64 + 1 > LARGEST {
        return Err(std::io::Error::other("it would be larger than the 1 MiB that GitHub shows"));
    }
    file.write_all(format!("{markdown}\n").as_bytes())
}

/// A line a gate that was not met, and one for each other reason.
fn annotations(title: &str, verdict: Verdict, reasons: &[String], gates: &[GateResult]) -> Vec<String> {
    let level = |verdict: Verdict| if verdict == Verdict::Fail { "error" } else { "warning" };
    let line = |verdict: Verdict, text: &str| format!("::{} title={}::{}", level(verdict), property(title), data(text));
    let missed: Vec<_> = gates.iter().filter(|gate| gate.verdict != Verdict::Pass).collect();
    let others = reasons.iter().filter(|reason| !missed.iter().any(|gate| reason.starts_with(&gate.gate)));
    let of_gates = missed.iter().map(|gate| line(gate.verdict, &format!("{}: {}", gate.gate, gate.message)));
    of_gates.chain(others.map(|reason| line(verdict, reason))).take(MOST).collect()
}

/// As <https://github.com/actions/toolkit> writes the text of a workflow command.
fn data(text: &str) -> String {
    plain(&text.replace('%', "%25").replace('\r', "%0D").replace('\n', "%0A"))
}

/// The same of its properties.
fn property(text: &str) -> String {
    data(text).replace(':', "%3A").replace(',', "%2C")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::sample;

    #[test]
    fn what_was_missed_is_an_annotation_that_nothing_foreign_can_leave() {
        let mut report = sample::violated();
        report.gates.retain(|gate| gate.verdict != Verdict::Pass && !gate.implicit);
        report.reasons = vec!["line one\n::error::forged 5 %".to_owned()];
        let lines = annotations("batchsql: a,b", report.verdict, &report.reasons, &report.gates);
        assert_eq!(
            lines,
            [
                "::error title=batchsql%3A a%2Cb::response.p99 < 50ms: 61.2 ms",
                "::warning title=batchsql%3A a%2Cb::response.p999 < 80ms: too few samples for p99.9",
                "::error title=batchsql%3A a%2Cb::line one%0A::error::forged 5 %25",
            ]
        );
        assert!(annotations("x", Verdict::Pass, &[], &sample::passed().gates).is_empty());
    }

    #[test]
    fn a_summary_is_appended_and_bounded() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("summary");
        append(&file, "one").unwrap();
        append(&file, "two").unwrap();
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "one\ntwo\n");
        assert!(append(&file, &"x".repeat(1 << 20)).is_err());
    }
}
