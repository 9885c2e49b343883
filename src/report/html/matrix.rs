//! `sweep.html`: the best cell, heat maps, and the table of all cells.

use maud::{Markup, html};

use super::document;
use super::page::{class, mark};
use crate::report::format::{plain, seconds};
use crate::report::matrix::{Map, columns_of, headline, heads, in_map, maps, row, shades, verdict};
use crate::sweep::{CellVerdict, Sweep};

/// The file's text.
#[must_use]
pub fn text(sweep: &Sweep) -> String {
    let verdict = verdict(sweep.outcome);
    let name = plain(&sweep.scenario);
    let body = html! {
        header class=(class(verdict)) {
            p.verdict { span.mark aria-hidden="true" { (mark(verdict)) } " " (plain(&headline(sweep))) }
            h1 { (name) }
            p.when { time datetime=(sweep.started_at) { (sweep.started_at) } " · " (seconds(sweep.duration_seconds)) " · " code { (sweep.sweep_id) } }
        }
        main {
            section {
                h2 { "Heat map" }
                p { small { "The deeper the blue, the better. ★ is the best that passes; ✗ missed a gate, ? could not be judged, void lost or altered rows." } }
                @for map in maps(sweep) { (heat(sweep, &map)) }
            }
            (table(sweep))
            section {
                h2 { "How to repeat or continue it" }
                pre tabindex="0" { code { (plain(&sweep.reproduce)) } }
                @for note in &sweep.notes { p { (plain(note)) } }
            }
        }
    };
    document(&format!("Sweep of {name}"), &body, &[])
}

fn heat(sweep: &Sweep, map: &Map) -> Markup {
    let shades = shades(sweep);
    let keys = heads(sweep);
    let last = keys.len().saturating_sub(1);
    let shade = |place: usize| {
        let depth = shades[place].map_or(String::new(), |shade| format!("heat-{shade}"));
        if sweep.best == Some(place) { format!("{depth} best") } else { depth }
    };
    html! {
        div.wide { table.heat {
            caption { (plain(&map.title)) " " (plain(&keys[last])) " to the right" @if last > 0 { ", " (plain(&keys[last - 1])) " down" } }
            thead { tr {
                @if last > 0 { th scope="col" { (plain(&keys[last - 1])) } }
                @for place in &map.rows[0] { th scope="col" { (plain(&sweep.cells[*place].values[last])) } }
            } }
            tbody { @for row in &map.rows { tr {
                @if last > 0 { th scope="row" { (plain(&sweep.cells[row[0]].values[last - 1])) } }
                @for place in row { td class=(shade(*place)) { (in_map(sweep, *place)) } }
            } } }
        } }
    }
}

fn table(sweep: &Sweep) -> Markup {
    let shade = |verdict: CellVerdict| match verdict {
        CellVerdict::Pass => "pass",
        CellVerdict::Fail | CellVerdict::Void => "fail",
        CellVerdict::Inconclusive | CellVerdict::Missing => "inconclusive",
    };
    html! {
        section {
            h2 { "Cells" }
            div.wide { table.figures {
                thead { tr { @for head in columns_of(sweep) { th scope="col" { (plain(&head)) } } th scope="col" { "why, and the runs" } } }
                tbody { @for (place, cell) in sweep.cells.iter().enumerate() { tr class=(shade(cell.verdict)) {
                    @for (column, text) in row(sweep, place).into_iter().enumerate() {
                        @if column == sweep.vary.len() { td { span.mark { (text) } } } @else { td { (text) } }
                    }
                    td {
                        (plain(cell.reason.as_deref().unwrap_or_default()))
                        @for (number, run) in cell.runs.iter().enumerate() { " " a href={ (run.run_id) "/report.html" } { "run " (number + 1) } }
                    }
                } } }
            } }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::matrix::sample;

    #[test]
    fn the_page_has_every_cell_and_nothing_foreign_is_markup() {
        let page = text(&sample());
        assert!(page.contains("<td class=\"heat-4 best\">25,000 rows/s ★</td>"), "the best");
        assert!(page.contains("<td class=\"heat-7\">40,000 rows/s ✗</td>"), "the fastest");
        assert!(page.contains("<td class=\"\">void</td>"), "void");
        assert!(page.contains("&lt;i&gt;|") && !page.contains("<i>"));
    }
}
