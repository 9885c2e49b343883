//! A sweep as people read it: the table, and heat maps of two keys each, on the terminal and as Markdown.

use std::fmt::Write as _;
use std::path::Path;

use super::Verdict;
use super::format::{NONE, columns, millis, plain, rate};
use super::markdown::escape;
use crate::sweep::{Cell, CellVerdict, FILES, Objective, Outcome, Sweep};

/// Shades of a heat map, from worst to best.
pub(super) const SHADES: usize = 8;

/// What was found, in one sentence.
#[must_use]
pub fn headline(sweep: &Sweep) -> String {
    let best = sweep.best.map(|best| format!("best: {} ({})", settings(sweep, best), value(sweep, &sweep.cells[best])));
    match sweep.outcome {
        Outcome::Found => best.unwrap_or_default(),
        _ => {
            let reason = sweep.reasons.first().cloned().unwrap_or_default();
            best.map_or(reason.clone(), |best| format!("{reason}; of the others, {best}"))
        }
    }
}

/// `flush_size=200 concurrency=4`: keys by their last step, as long as that is enough to tell them apart.
pub(super) fn settings(sweep: &Sweep, cell: usize) -> String {
    let keys = heads(sweep);
    keys.iter().zip(&sweep.cells[cell].values).map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(" ")
}

/// The keys, short.
pub(super) fn heads(sweep: &Sweep) -> Vec<String> {
    let last = |key: &str| key.rsplit('.').next().unwrap_or(key).to_owned();
    let keys: Vec<String> = sweep.vary.iter().map(|varied| last(&varied.key)).collect();
    let unique = |key: &String| keys.iter().filter(|other| *other == key).count() == 1;
    sweep.vary.iter().zip(&keys).map(|(varied, key)| if unique(key) { key.clone() } else { varied.key.clone() }).collect()
}

/// What the cell is compared by.
pub(super) fn value(sweep: &Sweep, cell: &Cell) -> String {
    match sweep.objective {
        Objective::Throughput => cell.throughput_per_second.map_or_else(|| NONE.to_owned(), |speed| rate(speed, &sweep.unit)),
        Objective::ResponseP99 => cell.response_p99_ms.map_or_else(|| NONE.to_owned(), |p99| format!("p99 {}", millis(p99))),
    }
}

/// The outcome as runs have it.
pub(super) fn verdict(outcome: Outcome) -> Verdict {
    match outcome {
        Outcome::Found => Verdict::Pass,
        Outcome::NonePasses | Outcome::Violated => Verdict::Fail,
        Outcome::Undecided | Outcome::Incomplete | Outcome::Interrupted => Verdict::Inconclusive,
    }
}

/// The heads of the table.
pub(super) fn columns_of(sweep: &Sweep) -> Vec<String> {
    let fixed = ["", "throughput", "least to most", "p50", "p99", "runs"].map(str::to_owned);
    heads(sweep).into_iter().chain(fixed).collect()
}

/// The table's cells of one combination.
pub(super) fn row(sweep: &Sweep, place: usize) -> Vec<String> {
    let cell = &sweep.cells[place];
    let time = |value: Option<f64>| value.map_or_else(|| NONE.to_owned(), millis);
    let speed = cell.throughput_per_second.map_or_else(|| NONE.to_owned(), |speed| rate(speed, &sweep.unit));
    let range = cell.throughput_low.zip(cell.throughput_high).filter(|(low, high)| low < high);
    let range = range.map_or_else(
        || NONE.to_owned(),
        |(low, high)| format!("{} to {}", rate(low, "").trim_end_matches(" /s"), rate(high, "").trim_end_matches(" /s")),
    );
    let word = if sweep.best == Some(place) { "best" } else { cell.verdict.words() };
    let fixed = [word.to_owned(), speed, range, time(cell.response_p50_ms), time(cell.response_p99_ms), cell.runs.len().to_string()];
    cell.values.iter().map(|value| plain(value)).chain(fixed).collect()
}

/// One heat map: two keys, the others at one value each.
pub(super) struct Map {
    /// What the other keys are, if there are others.
    pub(super) title: String,
    /// The cells' places, row by row.
    pub(super) rows: Vec<Vec<usize>>,
}

/// Every heat map: the last key runs to the right, the one before it down.
pub(super) fn maps(sweep: &Sweep) -> Vec<Map> {
    let Some((across, others)) = sweep.vary.split_last() else { return Vec::new() };
    let across = across.values.len().max(1);
    let down = others.last().map_or(1, |varied| varied.values.len().max(1));
    let places: Vec<usize> = (0..sweep.cells.len()).collect();
    let fixed = others.len().saturating_sub(1);
    let keys = heads(sweep);
    places
        .chunks(across * down)
        .map(|cells| Map {
            title: (0..fixed).map(|key| format!("{}={}", keys[key], sweep.cells[cells[0]].values[key])).collect::<Vec<_>>().join(" "),
            rows: cells.chunks(across).map(<[usize]>::to_vec).collect(),
        })
        .collect()
}

/// How good each cell is among all that have integrity, from 0 to [`SHADES`] − 1; none where there is no value.
pub(super) fn shades(sweep: &Sweep) -> Vec<Option<usize>> {
    let worth = |cell: &Cell| match sweep.objective {
        _ if matches!(cell.verdict, CellVerdict::Void | CellVerdict::Missing) => None,
        Objective::Throughput => cell.throughput_per_second,
        Objective::ResponseP99 => cell.response_p99_ms.map(|p99| -p99),
    };
    let worths: Vec<Option<f64>> = sweep.cells.iter().map(worth).collect();
    let known = || worths.iter().flatten().copied();
    let (low, high) = (known().fold(f64::INFINITY, f64::min), known().fold(f64::NEG_INFINITY, f64::max));
    let shade = |worth: f64| if high > low { ((worth - low) / (high - low) * (SHADES - 1) as f64).round() as usize } else { SHADES - 1 };
    worths.iter().map(|worth| worth.map(shade)).collect()
}

/// What a cell of a heat map says.
pub(super) fn in_map(sweep: &Sweep, place: usize) -> String {
    let cell = &sweep.cells[place];
    match cell.verdict {
        CellVerdict::Void | CellVerdict::Missing => cell.verdict.words().to_owned(),
        CellVerdict::Pass => format!("{}{}", value(sweep, cell), if sweep.best == Some(place) { " ★" } else { "" }),
        CellVerdict::Fail => format!("{} ✗", value(sweep, cell)),
        CellVerdict::Inconclusive => format!("{} ?", value(sweep, cell)),
    }
}

/// Blue of growing depth, of the 256 that terminals know, with letters that can be read on it.
const COLORS: [(u8, u8); SHADES] = [(16, 255), (16, 195), (16, 159), (16, 117), (16, 75), (255, 32), (255, 25), (255, 18)];
const BLOCKS: [char; SHADES] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

fn heat(sweep: &Sweep, color: bool) -> String {
    let shades = shades(sweep);
    let keys = heads(sweep);
    let mut page = String::new();
    let (across, others) = keys.split_last().map_or(("", &[][..]), |(last, others)| (last.as_str(), others));
    let width = (0..sweep.cells.len()).map(|place| in_map(sweep, place).chars().count() + 2).max().unwrap_or(0);
    let down = others.last().map_or("", String::as_str);
    let last = sweep.vary.len().saturating_sub(1);
    let label = |place: usize| if last > 0 { plain(&sweep.cells[place].values[last - 1]) } else { String::new() };
    let side = (0..sweep.cells.len()).map(|place| label(place).chars().count()).chain([down.chars().count()]).max().unwrap_or(0);
    for Map { title, rows } in maps(sweep) {
        let _ = writeln!(page, "  {}{}{across} →", plain(&title), if title.is_empty() { "" } else { ", " });
        let heads = rows[0].iter().map(|place| format!("{:^width$}", plain(&sweep.cells[*place].values[last]))).collect::<Vec<_>>();
        let _ = writeln!(page, "  {down:<side$}  {}", heads.join(" ").trim_end());
        for row in rows {
            let cells = row.iter().map(|place| match (shades[*place], color) {
                (Some(shade), true) => {
                    let (ink, paper) = COLORS[shade];
                    format!("\u{1b}[38;5;{ink};48;5;{paper}m{:^width$}\u{1b}[0m", in_map(sweep, *place))
                }
                (Some(shade), false) => format!("{:^width$}", format!("{} {}", BLOCKS[shade], in_map(sweep, *place))),
                (None, _) => format!("{:^width$}", in_map(sweep, *place)),
            });
            let _ = writeln!(page, "  {:<side$}  {}", label(row[0]), cells.collect::<Vec<_>>().join(" ").trim_end());
        }
        page.push('\n');
    }
    page
}

/// The summary on a terminal, ending in a newline.
#[must_use]
pub fn terminal(sweep: &Sweep, folder: &Path, color: bool) -> String {
    let paint = |style: &str, text: &str| if color { format!("\u{1b}[{style}m{text}\u{1b}[0m") } else { text.to_owned() };
    let style = match verdict(sweep.outcome) {
        Verdict::Pass => "1;32",
        Verdict::Fail => "1;31",
        Verdict::Inconclusive => "1;33",
    };
    let mut page = format!("\n{}\n\n", paint(style, &plain(&headline(sweep))));
    let heads = columns_of(sweep);
    let heads: Vec<&str> = heads.iter().map(String::as_str).collect();
    let rows: Vec<Vec<String>> = (0..sweep.cells.len()).map(|place| row(sweep, place)).collect();
    for (place, line) in columns(&heads, &rows, &[sweep.vary.len()]).into_iter().enumerate() {
        let cell = place.checked_sub(1);
        let style = match cell.map(|cell| sweep.cells[cell].verdict) {
            None => "2",
            Some(_) if cell == sweep.best => "1;32",
            Some(CellVerdict::Pass) => "0",
            Some(CellVerdict::Fail | CellVerdict::Void) => "31",
            Some(CellVerdict::Inconclusive | CellVerdict::Missing) => "33",
        };
        let _ = writeln!(page, "  {}", paint(style, &line));
    }
    page.push('\n');
    page += &heat(sweep, color);
    for note in &sweep.notes {
        let _ = writeln!(page, "  note      {}", plain(note));
    }
    let _ = writeln!(page, "  reports   {} ({})", plain(&folder.display().to_string()), FILES.join(", "));
    let _ = writeln!(page, "  repeat    {}", plain(&sweep.reproduce));
    page
}

/// The file's text.
#[must_use]
pub fn markdown(sweep: &Sweep) -> String {
    let mut page = format!("# Sweep of {}\n\n**{}**\n\n", escape(&sweep.scenario), escape(&headline(sweep)));
    let cells = |cells: &[String]| cells.iter().map(|cell| escape(cell)).collect::<Vec<_>>().join(" | ");
    let heads = columns_of(sweep);
    let _ = writeln!(page, "| {} |\n|{}", cells(&heads), "---|".repeat(heads.len()));
    for place in 0..sweep.cells.len() {
        let _ = writeln!(page, "| {} |", cells(&row(sweep, place)));
    }
    page.push('\n');
    for note in &sweep.notes {
        let _ = writeln!(page, "- {}", escape(note));
    }
    let _ = writeln!(page, "\nRepeat or continue it with\n\n    {}", plain(&sweep.reproduce));
    page
}

#[cfg(test)]
pub(super) fn sample() -> Sweep {
    use crate::report::IntegrityVerdict;
    use crate::sweep::{RunSeen, Varied};
    let cell = |values: [&str; 2], verdict: CellVerdict, speed: Option<f64>| Cell {
        values: values.map(str::to_owned).to_vec(),
        verdict,
        reason: None,
        throughput_per_second: speed,
        throughput_low: speed.map(|speed| speed * 0.9),
        throughput_high: speed.map(|speed| speed * 1.1),
        response_p50_ms: Some(4.0),
        response_p99_ms: Some(9.0),
        runs: vec![RunSeen { run_id: "r".to_owned(), verdict: Verdict::Pass, integrity: IntegrityVerdict::Holds }; 2],
    };
    use CellVerdict::{Fail, Pass, Void};
    let varied = |key: &str, values: [&str; 2]| Varied { key: key.to_owned(), values: values.map(str::to_owned).to_vec() };
    Sweep {
        schema_version: crate::sweep::SCHEMA_VERSION,
        sweep_id: "sweep-orders-1a2b3c4d".to_owned(),
        scenario: "orders".to_owned(),
        unit: "rows".to_owned(),
        seed: 42,
        started_at: "2026-03-01T10:15:00Z".to_owned(),
        duration_seconds: 60.0,
        reproduce: "batchsql sweep orders.yaml --vary a.size=50,200 --vary b.mode='<i>|','y' --repeat 2 --seed 42".to_owned(),
        environment: super::Environment::default(),
        vary: vec![varied("a.size", ["50", "200"]), varied("b.mode", ["<i>|", "y"])],
        repeat: 2,
        objective: Objective::Throughput,
        outcome: Outcome::Violated,
        cells: vec![
            cell(["50", "<i>|"], Pass, Some(10_000.0)),
            cell(["50", "y"], Fail, Some(40_000.0)),
            cell(["200", "<i>|"], Pass, Some(25_000.0)),
            cell(["200", "y"], Void, None),
        ],
        best: Some(2),
        kept_runs: 0,
        reasons: vec!["integrity is violated in 1 of 4 cells; they have no speed".to_owned()],
        notes: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sweep_reads_well() {
        let sweep = sample();
        insta::assert_snapshot!(terminal(&sweep, Path::new("reports/sweep-orders-1a2b3c4d"), false));
        let markdown = markdown(&sweep);
        assert!(
            markdown.contains("| 200 | &lt;i&gt;\\| | best | 25,000 rows/s | 22,500 to 27,500 | 4.00 ms | 9.00 ms | 2 |"),
            "{markdown}"
        );
        assert!(terminal(&sweep, Path::new("x"), true).contains("\u{1b}[38;5;255;48;5;18m"));
    }

    #[test]
    fn the_deepest_shade_is_the_fastest_and_void_has_none() {
        assert_eq!(shades(&sample()), [Some(0), Some(7), Some(4), None]);
        let maps = maps(&sample());
        assert_eq!(maps.iter().map(|map| map.rows.clone()).collect::<Vec<_>>(), [[[0, 1], [2, 3]]]);
        let mut three = sample();
        three.vary.insert(0, crate::sweep::Varied { key: "c.size".to_owned(), values: vec!["k".to_owned()] });
        three.cells.iter_mut().for_each(|cell| cell.values.insert(0, "k".to_owned()));
        assert_eq!(super::maps(&three)[0].title, "c.size=k");
        assert_eq!(settings(&three, 1), "c.size=k a.size=50 mode=y");
    }
}
