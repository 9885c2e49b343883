//! The diagnosis as people read it.

use std::fmt::Write as _;

use super::signals::Level;
use super::{Diagnosis, State};
use crate::report::format::plain;

/// A line a part, the mend below what needs one.
pub(super) fn text(diagnosis: &Diagnosis, color: bool) -> String {
    let paint = |code: &str, word: &str, width: usize| {
        let padded = format!("{word:width$}");
        if color { format!("\x1b[{code}m{padded}\x1b[0m") } else { padded }
    };
    let mut text = String::new();
    let width = diagnosis.parts.iter().map(|part| part.part.chars().count()).max().unwrap_or(0);
    // Writing to a string cannot fail.
    for part in &diagnosis.parts {
        let state = match part.state {
            State::Well => paint("32", "well", 6),
            State::Absent => paint("2", "absent", 6),
            State::Ill => paint("31", "ill", 6),
        };
        let _ = writeln!(text, "{state}  {:width$}  {}", plain(&part.part), plain(&part.found));
        if let (State::Ill, Some(mend)) = (part.state, &part.mend) {
            let _ = writeln!(text, "{:8}{:width$}  mend: {}", "", "", plain(mend));
        }
    }
    text += "\nGolden signals of the service under test, over the last five minutes\n";
    for signal in &diagnosis.signals {
        let level = match signal.level {
            Level::Ok => paint("32", "ok", 8),
            Level::Warning => paint("33", "warning", 8),
            Level::Critical => paint("31", "critical", 8),
            Level::NoData => paint("2", "–", 8),
        };
        let [name, value, thresholds] = signal.words();
        let grade = signal.grade.map_or(String::new(), |grade| format!("  {grade}"));
        let _ = writeln!(text, "{level}  {name:12}  {value:>10}  {thresholds}{grade}");
    }
    if let Some(reason) = diagnosis.signals.iter().find_map(|signal| signal.reason.as_deref()) {
        let _ = writeln!(text, "no data because {}", plain(reason));
    }
    let count = |state| diagnosis.parts.iter().filter(|part| part.state == state).count();
    let critical = diagnosis.signals.iter().filter(|signal| signal.is_critical()).count();
    let _ = writeln!(
        text,
        "\n{} well, {} ill, {} absent; {critical} signals critical",
        count(State::Well),
        count(State::Ill),
        count(State::Absent)
    );
    text
}
