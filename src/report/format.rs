//! Numbers and foreign text as people read them.

use std::time::Duration;

/// What stands where there is no number.
pub(crate) const NONE: &str = "–";

/// `1,234,567`.
pub(crate) fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() * 4 / 3);
    for (position, digit) in digits.chars().enumerate() {
        if position > 0 && (digits.len() - position).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Three significant digits, or all of the whole ones: `0.123`, `12.3`, `1,234`.
fn number(value: f64) -> String {
    match value.abs() {
        small if small < 9.995 => format!("{value:.2}"),
        medium if medium < 99.95 => format!("{value:.1}"),
        _ => count(value.round().max(0.0) as u64),
    }
}

/// `123,457 rows/s`.
pub(super) fn rate(per_second: f64, unit: &str) -> String {
    format!("{} {unit}/s", number(per_second))
}

/// `12.3 ms`, in the unit that suits it.
pub(crate) fn millis(value: f64) -> String {
    match value {
        micro if micro < 0.9995 => format!("{} µs", number(micro * 1000.0)),
        milli if milli < 999.5 => format!("{} ms", number(milli)),
        _ => seconds(value / 1000.0),
    }
}

/// `4.00 ms`, `12.3 s`, `2m 5s`.
pub(crate) fn seconds(value: f64) -> String {
    if value < 0.0995 {
        return millis(value.max(0.0) * 1000.0);
    }
    if value < 99.95 {
        return format!("{} s", number(value));
    }
    let whole = Duration::try_from_secs_f64(value.round()).unwrap_or(Duration::MAX);
    humantime::format_duration(whole).to_string()
}

/// `61.2 MiB`.
pub(super) fn bytes(value: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let (mut scaled, mut unit) = (value as f64, 0);
    while scaled >= 1023.5 && unit + 1 < UNITS.len() {
        scaled /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{value} B") } else { format!("{} {}", number(scaled), UNITS[unit]) }
}

/// A share as a percentage that never says 100 before it is whole.
pub(crate) fn percent(share: f64) -> String {
    let percent = share * 100.0;
    if share >= 1.0 { "100 %".to_owned() } else { format!("{:.4} %", (percent * 10_000.0).floor() / 10_000.0) }
}

/// Whether `c` is shown as an escape: a control character, or one that turns the direction of reading or has no width.
fn plain_escapes(c: char) -> bool {
    let turns = matches!(c, '\u{200B}'..='\u{200F}' | '\u{2028}'..='\u{202E}' | '\u{2060}'..='\u{206F}' | '\u{061C}' | '\u{FEFF}');
    turns || c.is_control()
}

/// Foreign text on one line: whatever would move a cursor, change a colour or turn the direction of reading is shown instead.
pub(crate) fn plain(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\n' | '\r' | '\t' => safe.extend(c.escape_default()),
            _ if plain_escapes(c) => safe.extend(c.escape_unicode()),
            _ => safe.push(c),
        }
    }
    safe
}

/// Lines of foreign text, each as [`plain`] shows it; tabs stay.
pub(crate) fn lines(text: &str) -> String {
    let line = |line: &str| line.split('\t').map(plain).collect::<Vec<_>>().join("\t");
    text.split('\n').map(line).collect::<Vec<_>>().join("\n")
}

/// As [`lines`], of text that a program of ours has painted: only its colours stay.
pub(crate) fn painted(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for (place, part) in text.split("\u{1b}[").enumerate() {
        let code = part.find(|c: char| !c.is_ascii_digit() && c != ';').filter(|end| part[*end..].starts_with('m'));
        match code {
            Some(end) if place > 0 => {
                safe.push_str("\u{1b}[");
                safe.push_str(&part[..=end]);
                safe.push_str(&lines(&part[end + 1..]));
            }
            _ if place > 0 => safe.push_str(&lines(&format!("\u{1b}[{part}"))),
            _ => safe.push_str(&lines(part)),
        }
    }
    safe
}

/// JSON whose texts hold nothing that a terminal or a reader's eye obeys: written as escapes of JSON, so that it says the same.
pub(crate) fn json(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        let hidden = matches!(c, '\u{7F}'..='\u{9F}') || (plain_escapes(c) && !c.is_control());
        if hidden {
            let mut units = [0; 2];
            safe.extend(c.encode_utf16(&mut units).iter().map(|unit| format!("\\u{unit:04x}")));
        } else {
            safe.push(c);
        }
    }
    safe
}

/// [`plain`], cut to `most` characters.
pub(super) fn short(text: &str, most: usize) -> String {
    let text = plain(text);
    match text.char_indices().nth(most) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

/// A table as lines, its heads first: numbers to the right, the columns of `words` to the left.
pub(super) fn columns(heads: &[&str], rows: &[Vec<String>], words: &[usize]) -> Vec<String> {
    let heads: Vec<String> = heads.iter().map(|&head| head.to_owned()).collect();
    let lines: Vec<&Vec<String>> = std::iter::once(&heads).chain(rows).collect();
    let width = |column: usize| lines.iter().map(|cells| cells[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..heads.len()).map(width).collect();
    let cell = |(column, text): (usize, &String)| {
        let width = widths[column];
        if words.contains(&column) { format!("{text:<width$}") } else { format!("{text:>width$}") }
    };
    lines.into_iter().map(|cells| cells.iter().enumerate().map(cell).collect::<Vec<_>>().join("   ")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_well() {
        assert_eq!([0, 999, 1000, 1_234_567].map(count), ["0", "999", "1,000", "1,234,567"]);
        assert_eq!(
            [0.0, 3.27, 9.999, 12.34, 99.96, 123_456.7].map(|speed| rate(speed, "rows").replace(" rows/s", "")),
            ["0.00", "3.27", "10.0", "12.3", "100", "123,457"]
        );
        assert_eq!(
            [0.0042, 0.85, 1.234, 61.25, 850.0, 12_340.0, 125_000.0].map(millis),
            ["4.20 µs", "850 µs", "1.23 ms", "61.2 ms", "850 ms", "12.3 s", "2m 5s"]
        );
        assert_eq!([0.9999, 999.6].map(millis), ["1.00 ms", "1.00 s"]);
        assert_eq!([0.0, 0.004, 0.21, 59.96, 3600.0].map(seconds), ["0.00 µs", "4.00 ms", "0.21 s", "60.0 s", "1h"]);
        assert_eq!([512, 2048, 64_000_000, 8 << 30].map(bytes), ["512 B", "2.00 KiB", "61.0 MiB", "8.00 GiB"]);
        assert_eq!([1.0, 0.999_999_99, 0.5, 0.0].map(percent), ["100 %", "99.9999 %", "50.0000 %", "0.0000 %"]);
    }

    #[test]
    fn foreign_text_cannot_act() {
        assert_eq!(plain("a\u{1b}[31mb\nc\u{9b}2J\u{202e}d"), "a\\u{1b}[31mb\\nc\\u{9b}2J\\u{202e}d");
        assert_eq!(plain("漢字 😀 é"), "漢字 😀 é");
        assert_eq!(short("abcdef", 3), "abc…");
        assert_eq!(short("abc", 3), "abc");
    }

    #[test]
    fn lines_stay_lines_and_obey_nothing() {
        assert_eq!(lines("a\tb\nc\r\u{1b}[2Jd\u{9b}1m\n"), "a\tb\nc\\r\\u{1b}[2Jd\\u{9b}1m\n");
        assert_eq!(
            painted("\u{1b}[1;31mFAIL\u{1b}[0m x\u{1b}[2J\u{1b}]0;owned\u{7}"),
            "\u{1b}[1;31mFAIL\u{1b}[0m x\\u{1b}[2J\\u{1b}]0;owned\\u{7}"
        );
        assert_eq!(painted("\u{1b}[\u{1b}[31"), "\\u{1b}[\\u{1b}[31");
    }

    #[test]
    fn json_says_the_same_without_what_is_obeyed() {
        let text = serde_json::to_string("a\u{9b}2J\u{202e}\u{feff}\n\u{7f}é").unwrap();
        let safe = json(&text);
        assert_eq!(safe, r#""a\u009b2J\u202e\ufeff\n\u007fé""#);
        assert_eq!(serde_json::from_str::<String>(&safe).unwrap(), serde_json::from_str::<String>(&text).unwrap());
    }
}
