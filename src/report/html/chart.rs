//! A chart as data: what `page.js` draws, and the table that says the same to those who do not see it.

use maud::{Markup, html};
use serde::Serialize;

use crate::recorder::Latency;
use crate::report::format::NONE;

/// Lines of a chart over one axis.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Chart {
    /// Also the id of its place in the page.
    pub(crate) id: &'static str,
    /// What it shows.
    pub(crate) title: String,
    pub(crate) axis: Axis,
    /// Of all lines.
    pub(crate) unit: &'static str,
    pub(crate) x: Vec<f64>,
    pub(crate) lines: Vec<Line>,
    pub(crate) bands: Vec<Band>,
}

/// What runs along the bottom.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Axis {
    /// Seconds of the run.
    Seconds,
    /// Shares of all operations, spread towards the tail as HDR plots are.
    Quantile,
    /// Operations asked for a second.
    Rate,
}

/// One line; a gap where there is no value.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Line {
    pub(crate) name: &'static str,
    pub(crate) values: Vec<Option<f64>>,
}

/// A stretch of the axis with a name: a phase, a fault.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Band {
    pub(crate) name: String,
    /// Drawn so that it is told from a phase.
    pub(crate) fault: bool,
    pub(crate) from: f64,
    pub(crate) to: f64,
}

/// Rows of the table that stands for a chart.
const ROWS: usize = 60;

impl Chart {
    /// Whole distributions, as HDR plots show them; nothing of empty ones.
    pub(crate) fn distribution(id: &'static str, title: String, mut curves: Vec<(&'static str, Latency)>) -> Option<Chart> {
        curves.retain(|(_, latency)| latency.count() > 0);
        // The quantiles of the largest are those of all: a histogram says its value at any.
        let x: Vec<f64> = curves.iter().map(|(_, latency)| latency.curve()).max_by_key(Vec::len)?.into_iter().map(|(q, _)| q).collect();
        let values = |latency: &Latency| x.iter().map(|&q| Some(latency.roughly(q).as_secs_f64() * 1e3)).collect();
        let lines = curves.iter().map(|(name, latency)| Line { name, values: values(latency) }).collect();
        Some(Chart { id, title, axis: Axis::Quantile, unit: "ms", x, lines, bands: Vec::new() })
    }

    /// Its place in the page.
    pub(crate) fn figure(&self) -> Markup {
        let step = self.x.len().div_ceil(ROWS).max(1);
        html! {
            figure id=(self.id) {
                figcaption id={ (self.id) "-title" } { (self.title) }
                div.plot tabindex="0" role="group" aria-labelledby={ (self.id) "-title" }
                    aria-description="Chart. Left and right arrow keys move along it, Escape leaves it; the table below has its numbers." {}
                p.readout aria-live="polite" {}
                details {
                    summary { "Numbers" @if step > 1 { " (every " (step) ". of " (self.x.len()) ")" } }
                    div.wide { table {
                        thead { tr {
                            th scope="col" { (self.axis.name()) }
                            @for line in &self.lines { th scope="col" { (line.name) ", " (self.unit) } }
                        } }
                        tbody { @for row in (0..self.x.len()).step_by(step) { tr {
                            th scope="row" { (self.axis.show(self.x[row])) }
                            @for line in &self.lines { td { (number(line.values[row])) } }
                        } } }
                    } }
                }
            }
        }
    }
}

impl Axis {
    fn name(self) -> &'static str {
        match self {
            Axis::Seconds => "second",
            Axis::Quantile => "percentile",
            Axis::Rate => "asked for a second",
        }
    }

    fn show(self, x: f64) -> String {
        match self {
            Axis::Seconds | Axis::Rate => format!("{x}"),
            Axis::Quantile => {
                let percent = format!("{:.4}", x * 100.0);
                percent.trim_end_matches('0').trim_end_matches('.').to_owned()
            }
        }
    }
}

fn number(value: Option<f64>) -> String {
    match value {
        None => NONE.to_owned(),
        Some(value) if value.fract() == 0.0 => format!("{value}"),
        Some(value) => format!("{value:.3}"),
    }
}
