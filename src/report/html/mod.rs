//! The pages people look at: one file each, opened from disk, that asks no network for anything. Text stands in the page itself;
//! charts are drawn from the data in it by uPlot (`uplot/`, MIT licence), which is part of the page.

mod chart;
pub mod comparison;
pub mod limits;
pub mod matrix;
mod page;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use maud::{DOCTYPE, Markup, PreEscaped, html};
use sha2::{Digest as _, Sha256};

pub(crate) use chart::{Axis, Band, Chart, Line};
pub use page::text;

const STYLE: &str = concat!(include_str!("uplot/uPlot.min.css"), "\n", include_str!("page.css"));
const SCRIPT: &str = concat!(include_str!("uplot/uPlot.iife.min.js"), "\n", include_str!("page.js"));

/// A whole page around `body`, with what its charts draw.
pub(crate) fn document(title: &str, body: &Markup, charts: &[Chart]) -> String {
    // Nothing but this style and this script may do anything, whatever text a run brought into the page.
    let policy = format!(
        "default-src 'none'; style-src '{}'; script-src '{}'; img-src data:; base-uri 'none'; form-action 'none'",
        hash(STYLE),
        hash(SCRIPT)
    );
    // JSON in a script element ends where a `<` begins a tag, so none stands there.
    let data = serde_json::to_string(charts).expect("numbers and text are always JSON").replace('<', "\\u003c");
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta http-equiv="Content-Security-Policy" content=(policy);
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                link rel="icon" href="data:,";
                title { (title) }
                style { (PreEscaped(STYLE)) }
            }
            body {
                (body)
                script type="application/json" id="charts" { (PreEscaped(data)) }
                script { (PreEscaped(SCRIPT)) }
            }
        }
    }
    .into_string()
}

/// How a content security policy names a piece of the page.
fn hash(text: &str) -> String {
    format!("sha256-{}", STANDARD.encode(Sha256::digest(text)))
}
