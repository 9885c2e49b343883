//! `comparison.html`: two sides held against each other, for people who would rather look than read. What was found first, in words;
//! then every figure, every pair, both distributions, and what the sides were.

use maud::{Markup, html};

use super::page::{class, gates, mark};
use super::{Chart, document};
use crate::compare::{ChangeKind, Comparison, Finding, Kind, MetricComparison, Values, figures};
use crate::gate::Clock;
use crate::report::format::{NONE, bytes, plain, seconds};
use crate::report::{Environment, IntegrityVerdict, Report, Verdict, versus, words};

/// The ranges of ratios there are, each from its inverse to itself; what lies beyond the last stands at the edge.
const RANGES: [f64; 8] = [1.05, 1.1, 1.25, 1.5, 2.0, 4.0, 10.0, 30.0];
/// Half the width of the plot of one figure, in its own units.
const HALF: f64 = 500.0;

/// The file's text. `reports` are those of both sides, `differences` what differs between their circumstances, in words.
#[must_use]
pub fn text(comparison: &Comparison, reports: &[Vec<Report>; 2], differences: &[String]) -> String {
    let charts = charts(reports);
    let names = [&comparison.before, &comparison.after].map(|side| plain(&side.name));
    let (colors, sign, said) = verdict(comparison);
    let body = html! {
        header class=(colors) {
            p.verdict { span.mark aria-hidden="true" { (sign) } " " (said) }
            h1 { (names[0]) " → " (names[1]) }
            p.headline { (plain(&versus::headline(comparison))) "." }
            @if !comparison.reasons.is_empty() { ul { @for reason in &comparison.reasons { li { (plain(reason)) } } } }
            p.when { time datetime=(comparison.started_at) { (words::when(&comparison.started_at)) } " · " (seconds(comparison.duration_seconds)) " · " code { (comparison.comparison_id) } }
        }
        main {
            section { h2 { "Every figure" } p { (versus::basis(comparison)) } (table(comparison)) @for sentence in versus::explanations(comparison) { p { small { (plain(&sentence)) } } } }
            (pairs(comparison))
            @if !charts.is_empty() { section { h2 { "Distributions" } @for chart in &charts { (chart.figure()) } } }
            @if !comparison.gates.is_empty() { (gates(&comparison.gates)) }
            (sides(reports, differences))
            (runs(comparison))
            section { h2 { "How to repeat it" } pre tabindex="0" { code { (plain(&comparison.reproduce)) } } }
        }
    };
    document(&format!("{said}: {} → {}", names[0], names[1]), &body, &charts)
}

/// How it ended: the class of its colours, a sign, and the words that come before all others. Without gates what was found decides.
fn verdict(comparison: &Comparison) -> (&'static str, char, &'static str) {
    let any = |wanted: Finding| comparison.metrics.iter().any(|metric| metric.verdict == wanted);
    match comparison.verdict {
        _ if comparison.void => ("fail", '✗', "Void"),
        Verdict::Fail => ("fail", '✗', "A gate was missed"),
        Verdict::Inconclusive => ("inconclusive", '?', "Inconclusive"),
        Verdict::Pass if !comparison.gates.is_empty() => ("pass", '✓', "Every gate was met"),
        Verdict::Pass if comparison.kind == Kind::SameTwice => ("same", '≈', "The noise of one side"),
        Verdict::Pass => match (any(Finding::Worse), any(Finding::Better)) {
            (true, true) => ("inconclusive", '±', "Better and worse"),
            (true, false) => ("fail", '−', "Worse"),
            (false, true) => ("pass", '+', "Better"),
            (false, false) if any(Finding::Different) => ("same", '≠', "Different"),
            (false, false) if any(Finding::NoDifferenceShown) => ("same", '=', "No difference shown"),
            (false, false) => ("inconclusive", '?', "Too noisy to say"),
        },
    }
}

/// The table of the terminal. Its values stand in it as they do in `comparison.json` too.
fn table(comparison: &Comparison) -> Markup {
    let value = |values: &Values| values.merged.or(values.median);
    html! {
        div.wide tabindex="0" role="region" aria-label="Every figure" { table.figures {
            thead { tr { @for head in versus::HEADS { th scope="col" { (head) } } } }
            tbody { @for metric in versus::known(comparison) {
                @let [name, before, after, change, interval, verdict, could] = versus::row(metric);
                @let exact = [
                    ("before", value(&metric.before), before),
                    ("after", value(&metric.after), after),
                    ("change", metric.change.map(|change| change.estimate), change),
                ];
                tr class=(finding(metric.verdict)) {
                    th scope="row" { (breakable(&name)) }
                    @for (of, value, shown) in exact { td { data id={ (name) "." (of) } value=[value] { (shown) } } }
                    td { (interval) }
                    td.finding { (verdict) @if let Some(reason) = &metric.reason { small { (plain(reason)) } } }
                    td { data id={ (name) ".detectable" } value=[metric.detectable] { (could) } }
                }
            } }
        } }
    }
}

/// A name that may go on in the next line after each of its words.
fn breakable(name: &str) -> Markup {
    html! { @for word in name.split_inclusive(['_', '.']) { (word) wbr; } }
}

fn finding(finding: Finding) -> &'static str {
    match finding {
        Finding::Better => "better",
        Finding::Worse | Finding::Void => "worse",
        Finding::TooNoisyToSay => "noisy",
        Finding::Different | Finding::NoDifferenceShown | Finding::NoData => "even",
    }
}

/// After divided by before, of every pair that has both.
fn ratios(metric: &MetricComparison) -> Vec<Option<f64>> {
    let pairs = metric.before.runs.iter().zip(&metric.after.runs);
    pairs.map(|(before, after)| (*before).zip(*after).map(|(before, after)| after / before).filter(|r| r.is_finite() && *r > 0.0)).collect()
}

/// How every pair came out, figure by figure, over one axis of ratios.
fn pairs(comparison: &Comparison) -> Markup {
    let drawn: Vec<_> = comparison
        .metrics
        .iter()
        .filter_map(|metric| Some((metric, metric.change.filter(|change| change.kind == ChangeKind::Ratio)?, ratios(metric))))
        .collect();
    let far = |ratio: f64| ratio.ln().abs();
    let ends = drawn.iter().flat_map(|(_, change, _)| [change.low, change.high, Some(change.estimate)]);
    let most = drawn.iter().flat_map(|(_, _, ratios)| ratios).copied().chain(ends).flatten().map(far).fold(0.0, f64::max);
    let range = RANGES.into_iter().find(|range| far(*range) >= most).unwrap_or(RANGES[RANGES.len() - 1]);
    let at = |ratio: f64| HALF + HALF * 0.98 * (ratio.ln() / range.ln()).clamp(-1.0, 1.0);
    let number = |ratio: Option<f64>| ratio.map_or_else(|| NONE.to_owned(), |ratio| format!("{ratio:.3}"));
    html! {
        @if !drawn.is_empty() { section {
            h2 { "Pair by pair" }
            figure id="pairs" {
                figcaption { "After divided by before: a thin line a pair, a thick one the estimate, its 95 % interval behind them. The dotted line is no change; what lies beyond is drawn at the edge." }
                div.forest {
                    div.scale { span { "÷" (range) } span { "the same" } span { "×" (range) } }
                    @for (metric, change, ratios) in &drawn {
                    @let (shown, interval) = versus::changed(metric.unit, change);
                    div.label { (breakable(&metric.metric)) }
                    svg class=(finding(metric.verdict)) viewBox="0 0 1000 24" preserveAspectRatio="none" role="img" aria-label={ (metric.metric) ": " (shown) ", interval " (interval) ", " (metric.verdict.words()) } {
                        line.same x1=(HALF) x2=(HALF) y1="0" y2="24" {}
                        @if let Some((low, high)) = change.low.zip(change.high) {
                            rect.interval x=(format!("{:.1}", at(low))) width=(format!("{:.1}", (at(high) - at(low)).max(2.0))) y="5" height="14" {}
                        }
                        @for ratio in ratios.iter().flatten() { @let x = format!("{:.1}", at(*ratio)); line.pair x1=(x) x2=(x) y1="3" y2="21" {} }
                        @let x = format!("{:.1}", at(change.estimate));
                        line.estimate x1=(x) x2=(x) y1="0" y2="24" {}
                    }
                    div.said { (shown) ", " (metric.verdict.words()) }
                } }
                details {
                    summary { "Numbers" }
                    div.wide { table {
                        thead { tr { th scope="col" { "after / before" } @for pair in 1..=drawn.iter().map(|(_, _, ratios)| ratios.len()).max().unwrap_or(0) { th scope="col" { "pair " (pair) } } } }
                        tbody { @for (metric, _, ratios) in &drawn { tr { th scope="row" { (metric.metric) } @for ratio in ratios { td { (number(*ratio)) } } } } }
                    } }
                }
            }
        } }
    }
}

/// Both sides' distributions, each merged from the histograms of its runs.
fn charts(reports: &[Vec<Report>; 2]) -> Vec<Chart> {
    let curve = |name, clock, side: usize| Some((name, figures::merged(clock, &reports[side])?));
    let both = |clock, names: [&'static str; 2]| [curve(names[0], clock, 0), curve(names[1], clock, 1)].into_iter().flatten();
    let all = both(Clock::Response, ["response before", "response after"]).chain(both(Clock::Service, ["service before", "service after"]));
    let tokens = both(Clock::TimeToFirstToken, ["first token before", "first token after"]);
    let title = |what: &str| format!("The share of {what}, over all runs of each side");
    let drawn = [
        Chart::distribution("distribution", title("operations that took no longer"), all.collect()),
        Chart::distribution("first-token", title("streams whose first token took no longer"), tokens.collect()),
    ];
    drawn.into_iter().flatten().collect()
}

/// What the first run of each side says of where it took place, beside each other.
fn sides(reports: &[Vec<Report>; 2], differences: &[String]) -> Markup {
    let known = reports.each_ref().map(|side| side.first().map(facts).unwrap_or_default());
    let mut names: Vec<&String> = Vec::new();
    for (name, _) in known.iter().flatten() {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    let value = |side: usize, name: &String| known[side].iter().find(|(known, _)| known == name).map_or(NONE, |(_, value)| value);
    html! {
        section {
            h2 { "What the sides were" }
            @if differences.is_empty() {
                p { "Nothing that was recorded differs between them." }
            } @else {
                p { "What differs:" }
                ul { @for difference in differences { li { (plain(difference)) } } }
            }
            div.wide tabindex="0" role="region" aria-label="Both sides" { table.sides {
                thead { tr { @for head in ["", "before", "after"] { th scope="col" { (head) } } } }
                tbody { @for name in names {
                    @let [before, after] = [0, 1].map(|side| value(side, name));
                    tr.differs[before != after] { th scope="row" { (name) } td { (before) } td { (after) } }
                } }
            } }
        }
    }
}

/// What is known of one side, by name.
fn facts(report: &Report) -> Vec<(String, String)> {
    let Environment { cpu, cores, memory_bytes, os, kernel, batchsql_version, git_commit, target, calibration } = &report.environment;
    let mut facts = vec![
        ("Target".to_owned(), words::target(report)),
        ("Machine".to_owned(), format!("{}, {cores} cores, {}", plain(cpu), bytes(*memory_bytes))),
        ("System".to_owned(), plain(&format!("{os}, kernel {kernel}"))),
        ("Harness".to_owned(), format!("batchsql {}", plain(batchsql_version))),
    ];
    facts.extend(git_commit.iter().map(|commit| ("Commit".to_owned(), plain(commit))));
    facts.extend(calibration.map(|found| {
        let disk = found.fsync_ms.map(|ms| format!(", {ms:.2} ms a confirmed write")).unwrap_or_default();
        ("Calibration".to_owned(), format!("{:.0} loops/s of one core{disk}", found.cpu_loops_per_second))
    }));
    facts.extend(target.settings.iter().map(|(name, value)| (plain(name), plain(value))));
    facts
}

fn integrity(verdict: IntegrityVerdict) -> &'static str {
    match verdict {
        IntegrityVerdict::Holds => "holds",
        IntegrityVerdict::Violated => "violated",
        IntegrityVerdict::Inconclusive => "not proven",
    }
}

/// Every run in its order, with the way to its own page where that lies beside this one.
fn runs(comparison: &Comparison) -> Markup {
    let here = matches!(comparison.kind, Kind::Runs | Kind::SameTwice);
    let mut left = [comparison.before.runs.iter(), comparison.after.runs.iter()];
    let ran = comparison.order.iter().filter_map(|name| Some((name, left[usize::from(name == "after")].next()?)));
    html! {
        section {
            h2 { "Runs, in their order" }
            div.wide { table {
                thead { tr { @for head in ["Side", "Run", "By its own gates", "Integrity"] { th scope="col" { (head) } } } }
                tbody { @for (side, run) in ran { tr class=(class(run.verdict)) {
                    td { (side) }
                    td { @if here { a href={ (plain(&run.run_id)) "/report.html" } { (plain(&run.run_id)) } } @else { (plain(&run.run_id)) } }
                    td { span.mark { (mark(run.verdict)) } " " (words::verdict(run.verdict)) }
                    td { (integrity(run.integrity)) }
                } } }
            } }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::comparing::sample;
    use crate::report::sample as runs;

    #[test]
    fn the_first_words_are_those_of_the_gates_and_without_gates_of_what_was_found() {
        let first = |factor: f64, gates: &[&str]| verdict(&sample(factor, gates).0);
        assert_eq!(first(1.5, &[]), ("pass", '+', "Better"));
        assert_eq!(first(0.8, &[]), ("fail", '−', "Worse"));
        assert_eq!(first(1.0, &[]), ("same", '=', "No difference shown"));
        assert_eq!(first(1.5, &["rows_per_second >= before"]), ("pass", '✓', "Every gate was met"));
        assert_eq!(first(0.8, &["rows_per_second >= before"]), ("fail", '✗', "A gate was missed"));
        assert_eq!(first(0.8, &["wal_bytes <= before"]), ("inconclusive", '?', "Inconclusive"));
        let (mut lost, _) = sample(1.5, &[]);
        (lost.void, lost.verdict) = (true, Verdict::Fail);
        assert_eq!(verdict(&lost), ("fail", '✗', "Void"));
    }

    #[test]
    fn every_pair_is_drawn_and_numbers_are_those_of_the_comparison() {
        let (comparison, reports) = sample(1.5, &["rows_per_second >= before"]);
        let page = text(&comparison, &reports, &["seed: 1 before, 2 after".to_owned()]);
        let speed = &comparison.metrics[0];
        let estimate = speed.change.unwrap().estimate;
        for exact in [speed.before.median.unwrap(), speed.after.median.unwrap(), estimate, speed.detectable.unwrap()] {
            assert!(page.contains(&format!("value=\"{exact}\"")), "{exact}");
        }
        let drawn = comparison.metrics.iter().filter(|metric| metric.change.is_some_and(|change| change.kind == ChangeKind::Ratio));
        let pairs: usize = drawn.map(|metric| ratios(metric).iter().flatten().count()).sum();
        assert!(pairs >= 6 && page.matches("<line class=\"pair\"").count() == pairs, "{pairs}");
        assert!(page.contains("<li>seed: 1 before, 2 after</li>") && page.contains("batchsql compare one.yaml other.yaml --seed 42"));
        let at = |words: &str| page.find(words).unwrap_or_else(|| panic!("{words} is missing"));
        assert!(at("Every gate was met</p>") < at("Every figure") && at("Every figure") < at("Pair by pair"));
        assert_eq!(page.matches("/report.html\">").count(), 12, "every run has its own page");
    }

    #[test]
    fn both_distributions_are_merged_and_an_empty_side_has_none() {
        let (_, mut reports) = sample(1.0, &[]);
        assert!(charts(&reports).is_empty(), "runs without histograms have no distribution");
        for (side, slowest) in [(0, 1_000), (1, 2_000)] {
            for run in &mut reports[side] {
                let mut latency = crate::recorder::Latency::default();
                (1..=slowest).for_each(|ms| latency.record(std::time::Duration::from_millis(ms)));
                run.histograms.response = latency.encode();
            }
        }
        let [chart] = &charts(&reports)[..] else { panic!("one chart") };
        let median = chart.x.iter().position(|q| (*q - 0.5).abs() < 1e-9).expect("the median");
        let medians: Vec<f64> = chart.lines.iter().map(|line| line.values[median].unwrap()).collect();
        assert!((medians[0] / 500.0 - 1.0).abs() < 0.01 && (medians[1] / 1_000.0 - 1.0).abs() < 0.01, "{medians:?}");
        let (nothing, _) = sample(1.0, &[]);
        assert!(text(&nothing, &Default::default(), &[]).contains("What the sides were"));
    }

    #[test]
    fn nothing_foreign_becomes_markup_or_script() {
        let evil = "</script><img src=x onerror=alert(1)>\u{202e}";
        let (mut comparison, mut reports) = sample(0.8, &["rows_per_second >= before"]);
        (comparison.before.name, comparison.reproduce) = (evil.to_owned(), evil.to_owned());
        (comparison.reasons, comparison.notes) = (vec![evil.to_owned()], vec![evil.to_owned()]);
        comparison.gates[0].message = evil.to_owned();
        comparison.after.runs[0].run_id = evil.to_owned();
        comparison.metrics[0].reason = Some(evil.to_owned());
        reports[0][0].environment.cpu = evil.to_owned();
        reports[1][0] = runs::violated();
        reports[1][0].environment.target.settings.insert(evil.to_owned(), evil.to_owned());
        let page = text(&comparison, &reports, &[evil.to_owned()]);
        assert!(!page.contains("<img") && !page.contains('\u{202e}'));
        assert_eq!(page.matches("</script>").count(), 2, "the data and the script themselves");
        assert!(page.matches("&lt;/script&gt;").count() >= 10);
    }
}
