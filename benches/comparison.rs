//! What the verdicts of a comparison are worth: false alarms, power and coverage on data whose truth is known. It measures no time:
//! `cargo bench --bench comparison` prints the tables of `benches/README.md`.

use batchsql::compare::simulate::{Noise, throughput};

const PAIRS: [usize; 6] = [4, 5, 7, 10, 20, 30];
const SCATTER: [f64; 6] = [0.01, 0.02, 0.05, 0.08, 0.1, 0.2];
const ROUNDS: u32 = 400;

fn main() {
    table("identical sides: called worse (better or worse) in % of comparisons", 1.0, |tally| {
        format!("{:.1} ({:.1})", tally.share(tally.worse) * 100.0, tally.share(tally.worse + tally.better) * 100.0)
    });
    table("a slowdown by 10 %: called worse in % of comparisons", 0.9, |tally| format!("{:.0}", tally.share(tally.worse) * 100.0));
    table("the 95 % interval holds the truth, in % of comparisons", 0.9, |tally| format!("{:.1}", tally.share(tally.covered) * 100.0));
}

fn table(title: &str, ratio: f64, cell: impl Fn(&batchsql::compare::simulate::Tally) -> String) {
    println!("\n{title}\n\n| noise of a run | {} |", PAIRS.map(|pairs| format!("{pairs} pairs")).join(" | "));
    println!("|---|{}", "--:|".repeat(PAIRS.len()));
    let plain = SCATTER.map(|share| (format!("{:.0} %", share * 100.0), Noise::plain(share)));
    let drift = ("3 %, drift of 30 %".to_owned(), Noise { runs: 0.03, drift: 0.3, disturbed: 0.0 });
    let disturbed = ("3 %, one run in ten half as slow again".to_owned(), Noise { runs: 0.03, drift: 0.0, disturbed: 0.1 });
    for (name, noise) in plain.into_iter().chain([drift, disturbed]) {
        let cells = PAIRS.map(|pairs| cell(&throughput(pairs, noise, ratio, ROUNDS, 1)));
        println!("| {name} | {} |", cells.join(" | "));
    }
}
