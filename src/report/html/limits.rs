//! `search.html`: the limit, the curve that leads there, and every step.

use maud::html;

use super::page::{class, mark};
use super::{Axis, Band, Chart, Line, document};
use crate::report::format::{NONE, millis, plain, seconds};
use crate::report::limits::{asked, basis, headline, row, verdict};
use crate::search::{Point, Search, Shown};

/// The file's text.
#[must_use]
pub fn text(search: &Search) -> String {
    let charts = charts(search);
    let verdict = verdict(search.outcome);
    let name = plain(&search.scenario);
    let body = html! {
        header class=(class(verdict)) {
            p.verdict { span.mark aria-hidden="true" { (mark(verdict)) } " " (plain(&headline(search))) }
            h1 { (name) }
            p.headline { "While " code { (plain(&search.gates.join("; "))) } }
            @if !search.reasons.is_empty() { ul { @for reason in &search.reasons { li { (plain(reason)) } } } }
            p.when { time datetime=(search.started_at) { (search.started_at) } " · " (seconds(search.duration_seconds)) " · " code { (search.search_id) } }
        }
        main {
            dl.tiles {
                @for (id, name, value) in [("held", "Highest rate that held", search.held_per_second), ("failed", "Lowest rate that failed", search.failed_per_second)] {
                    div.tile { dt { (name) } dd { data id=(id) value=[value] { (value.map_or_else(|| NONE.to_owned(), asked)) } @if value.is_some() { " " (search.unit) "/s" } } }
                }
            }
            p { (basis(search)) "." }
            section { h2 { "The curve" } @for chart in &charts { (chart.figure()) } }
            (curve(search))
            (steps(search))
            section {
                h2 { "How to repeat it" }
                pre tabindex="0" { code { (plain(&search.reproduce)) } }
                @for note in &search.notes { p { (plain(note)) } }
            }
        }
    };
    document(&format!("{}: {name}", plain(&headline(search))), &body, &charts)
}

fn shade(shown: Shown) -> &'static str {
    match shown {
        Shown::Held => "pass",
        Shown::Failed | Shown::Void => "fail",
        Shown::Undecided => "inconclusive",
    }
}

fn curve(search: &Search) -> maud::Markup {
    html! {
        section {
            h2 { "Rates" }
            div.wide { table.figures {
                thead { tr { @for head in ["Asked for", "Shown", "Steps held", "Acknowledged", "Response p50", "Response p99", "Dropped"] { th scope="col" { (head) } } } }
                tbody { @for point in &search.curve { tr class=(shade(point.shown)) {
                    @for (column, cell) in row(point, &search.unit).into_iter().enumerate() {
                        @if column == 1 { td { span.mark { (cell) } } } @else { td { (cell) } }
                    }
                } } }
            } }
        }
    }
}

fn steps(search: &Search) -> maud::Markup {
    let growth = |value: Option<f64>| value.map_or_else(|| NONE.to_owned(), |value| format!("{value:+.2}"));
    html! {
        section {
            h2 { "Steps, as they were run" }
            div.wide { table.figures {
                thead { tr { @for head in ["Asked for", "Shown", "Why", "Response p99", "Backlog grew by, a second", "Response grew by, ms a second", "Run"] { th scope="col" { (head) } } } }
                tbody { @for (place, step) in search.steps.iter().enumerate() { tr class=(shade(step.shown)) {
                    td { (asked(step.rate_per_second)) }
                    td { span.mark { (step.shown.words()) } }
                    td { (plain(step.reason.as_deref().unwrap_or_default())) }
                    td { (step.response_p99_ms.map_or_else(|| NONE.to_owned(), millis)) }
                    td { (growth(step.backlog_growth_per_second)) }
                    td { (growth(step.response_growth_ms_per_second)) }
                    td { a href={ (step.run_id) "/report.html" } { "step " (place + 1) } }
                } } }
            } }
        }
    }
}

fn charts(search: &Search) -> Vec<Chart> {
    let x: Vec<f64> = search.curve.iter().map(|point| point.rate_per_second).collect();
    let (Some(first), Some(last)) = (x.first(), x.last()) else { return Vec::new() };
    let band = |name: &str, from: f64, to: f64| Band { name: name.to_owned(), fault: false, from, to };
    let held = search.held_per_second.map(|held| band("held", *first, held));
    let failed = search.failed_per_second.map(|failed| band("failed", failed, *last));
    // The stretch between them is nobody's: every other band is shaded.
    let between = search.held_per_second.zip(search.failed_per_second).map(|(held, failed)| band("limit", held, failed));
    let bands: Vec<Band> = held.into_iter().chain(between).chain(failed).collect();
    let line = |name, value: &dyn Fn(&Point) -> Option<f64>| Line { name, values: search.curve.iter().map(value).collect() };
    let chart = |id, title: &str, unit, lines| Chart {
        id,
        title: title.to_owned(),
        axis: Axis::Rate,
        unit,
        x: x.clone(),
        lines,
        bands: bands.clone(),
    };
    vec![
        chart(
            "latency-by-rate",
            "Response time at every rate",
            "ms",
            vec![line("p99", &|point| point.response_p99_ms), line("p50", &|point| point.response_p50_ms)],
        ),
        chart(
            "throughput-by-rate",
            "What became of what was asked for, a second",
            "/s",
            vec![line("acknowledged", &|point| point.throughput_per_second), line("dropped", &|point| point.dropped_per_second)],
        ),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::limits::sample;

    #[test]
    fn the_page_has_the_numbers_and_nothing_foreign_is_markup() {
        let page = text(&sample());
        assert!(page.contains("<data id=\"held\" value=\"194.5\">194.5</data>"), "held");
        assert!(page.contains("orders | &lt;b&gt;") && !page.contains("<b>"));
        let charts = charts(&sample());
        assert_eq!(charts[0].x, [100.0, 194.5, 203.1, 400.0]);
        assert_eq!(charts[0].lines[0].values[3], Some(5_000.0));
        assert_eq!(
            charts[1].bands.iter().map(|band| (band.from, band.to)).collect::<Vec<_>>(),
            [(100.0, 194.5), (194.5, 203.1), (203.1, 400.0)]
        );
        let empty = text(&Search { curve: Vec::new(), ..sample() });
        assert!(empty.contains("Highest rate that held"));
    }
}
