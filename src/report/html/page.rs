//! `report.html`: a run for people who would rather look than read. The verdict first, in words; then what it rests on.

use maud::{Markup, html};

use super::{Axis, Band, Chart, Line, document};
use crate::recorder::Latency;
use crate::report::faults::{HEADS, cells, sentence};
use crate::report::format::{NONE, bytes, count, millis, percent, plain, seconds, short};
use crate::report::{GateResult, Integrity, IntegrityVerdict, Report, Second, Verdict, words};

/// Characters shown of a value of an anomaly or of an error's message.
const VALUE: usize = 200;
/// The percentiles' lines in the plot of the distribution, by their histograms.
const DISTRIBUTIONS: [&str; 3] = ["response", "service", "lag"];

/// The file's text.
#[must_use]
pub fn text(report: &Report) -> String {
    let charts = charts(report);
    let name = words::scenario(report);
    let body = html! {
        header class=(class(report.verdict)) {
            p.verdict { span.mark aria-hidden="true" { (mark(report.verdict)) } " " (words::verdict(report.verdict)) }
            h1 { (name) }
            p.headline { (words::headline(report)) "." }
            @if !report.reasons.is_empty() { ul { @for reason in &report.reasons { li { (plain(reason)) } } } }
            p.when { time datetime=(report.started_at) { (words::when(&report.started_at)) } " · " (seconds(report.duration_seconds)) " · " code { (report.run_id) } }
        }
        main {
            (tiles(report))
            (integrity(&report.integrity))
            section { h2 { "Over time" } @for chart in charts.iter().filter(|chart| chart.axis == Axis::Seconds) { (chart.figure()) } }
            section { h2 { "Latency" } (latencies(report)) @for chart in charts.iter().filter(|chart| chart.axis == Axis::Quantile) { (chart.figure()) } }
            (gates(&report.gates))
            (errors(report))
            (faults(report))
            (phases(report))
            (surroundings(report))
        }
    };
    document(&format!("{}: {name}", words::verdict(report.verdict)), &body, &charts)
}

pub(super) fn class(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Pass => "pass",
        Verdict::Fail => "fail",
        Verdict::Inconclusive => "inconclusive",
    }
}

pub(super) fn mark(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Pass => "✓",
        Verdict::Fail => "✗",
        Verdict::Inconclusive => "?",
    }
}

/// The figures asked for first. Each carries the value of `report.json` as it stands there.
fn tiles(report: &Report) -> Markup {
    let milliseconds = |value: Option<f64>| value.map_or_else(|| NONE.to_owned(), millis);
    let speed = report.throughput.rate.per_second();
    let unit = report.throughput.rate.unit();
    let response = &report.latency.response;
    let tile = |name: &str, id: &str, exact: Option<f64>, shown: String, note: &str| {
        html! {
            div.tile {
                dt { (name) }
                dd { data id=(id) value=[exact] { (shown) } @if !note.is_empty() { small { (note) } } }
            }
        }
    };
    let void = match (report.throughput.valid, report.integrity.verdict) {
        (true, _) => "",
        (false, IntegrityVerdict::Violated) => "void: integrity is violated",
        (false, _) => "does not count: integrity is not proven",
    };
    html! {
        dl.tiles {
            (tile("Throughput", "throughput", speed, speed.map_or_else(|| NONE.to_owned(), |speed| format!("{} {unit}/s", count(speed as u64))), void))
            (tile("Response p50", "p50", response.p50_ms, milliseconds(response.p50_ms), ""))
            (tile("Response p99", "p99", response.p99_ms, milliseconds(response.p99_ms), "from the intended start"))
            (tile("Right of what must be there", "integrity", report.integrity.rate, report.integrity.rate.map_or_else(|| NONE.to_owned(), percent), ""))
            (tile("Acknowledged", "acknowledged", Some(report.outcomes.acknowledged as f64), count(report.outcomes.acknowledged), ""))
            (tile("Rejected, unknown, dropped", "others", None,
                [report.outcomes.rejected, report.outcomes.unknown, report.outcomes.dropped].map(count).join(" · "), ""))
        }
    }
}

fn integrity(integrity: &Integrity) -> Markup {
    let what = if words::is_of_requests(integrity) { "Request" } else { "Key" };
    html! {
        section {
            h2 { "Integrity" }
            @for sentence in words::integrity(integrity) { p { (sentence) } }
            @if !integrity.examples.is_empty() {
                div.wide { table {
                    caption { "Examples of every anomaly" }
                    thead { tr { @for head in ["Anomaly", what, "Column", "Expected", "Found"] { th scope="col" { (head) } } } }
                    tbody { @for example in &integrity.examples {
                        @let [expected, found] = words::values(example, VALUE);
                        tr {
                            td { (words::class(example)) }
                            td { (example.key) }
                            td { (example.column.as_deref().map(plain).unwrap_or_default()) }
                            td { @if let Some(value) = expected { code { (value) } } }
                            td { @if let Some(value) = found { code { (value) } } }
                        }
                    } }
                } }
            }
        }
    }
}

fn latencies(report: &Report) -> Markup {
    html! {
        div.wide { table {
            thead { tr { th scope="col" { "Milliseconds" } @for name in words::PERCENTILES { th scope="col" { (name) } } } }
            tbody { @for (name, meaning, latency) in words::latencies(report) { tr {
                th scope="row" { (name) " " small { (meaning) } }
                @for value in words::percentiles(latency) { td { (value.map_or_else(|| NONE.to_owned(), |ms| format!("{ms:.2}"))) } }
            } } }
        } }
        @if let Some(reason) = words::missing_percentiles(report) { p { small { (reason) } } }
    }
}

pub(super) fn gates(gates: &[GateResult]) -> Markup {
    html! {
        section {
            h2 { "Gates" }
            div.wide { table {
                thead { tr { @for head in ["", "Gate", "Found"] { th scope="col" { (head) } } } }
                tbody { @for gate in gates { tr class=(class(gate.verdict)) {
                    td { span.mark { (mark(gate.verdict)) } " " (words::verdict(gate.verdict)) }
                    td { code { (plain(&gate.gate)) } @if gate.implicit { " " small { "always asked" } } }
                    td { (plain(&gate.message)) }
                } } }
            } }
        }
    }
}

fn errors(report: &Report) -> Markup {
    html! {
        @if !report.errors.is_empty() {
            section {
                h2 { "Errors" }
                div.wide { table {
                    thead { tr { @for head in ["Class", "Times", "Example"] { th scope="col" { (head) } } } }
                    tbody { @for (name, times) in &report.errors {
                        @let class = name.split_once(':').map_or(name.as_str(), |(_, class)| class);
                        @let example = report.error_examples.get(name).or_else(|| report.error_examples.get(class));
                        tr {
                            td { (plain(name)) }
                            td { (count(*times)) }
                            td { @if let Some(message) = example { code { (short(message, VALUE)) } } }
                        }
                    } }
                } }
            }
        }
    }
}

fn faults(report: &Report) -> Markup {
    html! {
        @if !report.faults.is_empty() {
            section {
                h2 { "Faults" }
                div.wide { table {
                    thead { tr { @for head in HEADS { th scope="col" { (head) } } } }
                    tbody { @for fault in &report.faults { @let [name, rest @ ..] = cells(fault); tr {
                        th scope="row" { (name) }
                        @for cell in rest { td { (cell) } }
                    } } }
                } }
                @for fault in &report.faults { p { (sentence(fault)) "." } }
            }
        }
    }
}

fn phases(report: &Report) -> Markup {
    html! {
        section {
            h2 { "Phases" }
            div.wide { table {
                thead { tr { @for head in ["Phase", "From", "Took", "Offered", "Acknowledged", "Rejected", "Unknown", "Dropped"] { th scope="col" { (head) } } } }
                tbody { @for phase in &report.phases { tr {
                    @let o = &phase.outcomes;
                    th scope="row" { (plain(&phase.name)) }
                    td { (seconds(phase.start_seconds)) }
                    td { (seconds(phase.duration_seconds)) }
                    @for value in [o.offered, o.acknowledged, o.rejected, o.unknown, o.dropped] { td { (count(value)) } }
                } } }
            } }
        }
    }
}

fn surroundings(report: &Report) -> Markup {
    let environment = &report.environment;
    let mut facts = vec![
        ("Target".to_owned(), words::target(report)),
        ("Machine".to_owned(), format!("{}, {} cores, {}", plain(&environment.cpu), environment.cores, bytes(environment.memory_bytes))),
        ("System".to_owned(), plain(&format!("{}, kernel {}", environment.os, environment.kernel))),
        ("Harness".to_owned(), format!("batchsql {}", plain(&environment.batchsql_version))),
        (
            "Used".to_owned(),
            format!("{} of CPU, {} resident at most", seconds(report.resources.cpu_seconds), bytes(report.resources.rss_bytes_max)),
        ),
    ];
    facts.extend(environment.git_commit.iter().map(|commit| ("Commit".to_owned(), plain(commit))));
    facts.extend(words::http(report).into_iter().map(|(label, text)| (label.to_owned(), text)));
    facts.extend(environment.target.settings.iter().map(|(name, value)| (plain(name), plain(value))));
    facts.extend(report.notes.iter().map(|note| ("Note".to_owned(), plain(note))));
    html! {
        section {
            h2 { "Where it ran, and how to repeat it" }
            pre tabindex="0" { code { (plain(&report.reproduce)) } }
            dl.facts { @for (name, value) in &facts { dt { (name) } dd { (value) } } }
        }
    }
}

fn charts(report: &Report) -> Vec<Chart> {
    let timeline = &report.timeline;
    let line = |name, of: &dyn Fn(&Second) -> Option<f64>| Line { name, values: timeline.iter().map(of).collect() };
    let over_time = |id, title: String, unit, lines| Chart {
        id,
        title,
        axis: Axis::Seconds,
        unit,
        x: timeline.iter().map(|second| second.second as f64).collect(),
        lines,
        bands: bands(report),
    };
    let unit = report.throughput.rate.unit();
    let latency = vec![
        line("response p50", &|second| second.response_p50_ms),
        line("response p99", &|second| second.response_p99_ms),
        line("service p50", &|second| second.service_p50_ms),
        line("service p99", &|second| second.service_p99_ms),
    ];
    let speed = vec![
        line("acknowledged", &|second| Some(second.acknowledged as f64)),
        line("offered", &|second| Some(second.offered as f64)),
        line("rejected", &|second| Some(second.rejected as f64)),
        line("unknown", &|second| Some(second.unknown as f64)),
        line("dropped", &|second| Some(second.dropped as f64)),
    ];
    let waiting =
        vec![line("in the queue", &|second| Some(second.queue_length as f64)), line("in flight", &|second| Some(second.in_flight as f64))];
    let mut charts = vec![
        over_time("throughput-over-time", format!("Throughput: {unit} in every second"), unit, speed),
        over_time("latency-over-time", "Latency of what was answered in every second".to_owned(), "ms", latency),
        over_time("waiting-over-time", "What waits at the end of every second".to_owned(), "", waiting),
    ];
    charts.extend(distribution(report));
    charts
}

/// Phases that have a length, and faults, as stretches of the time axis.
fn bands(report: &Report) -> Vec<Band> {
    let phases = report.phases.iter().filter(|phase| phase.duration_seconds > 0.0 && phase.name != "verify");
    let phases =
        phases.map(|p| Band { name: plain(&p.name), fault: false, from: p.start_seconds, to: p.start_seconds + p.duration_seconds });
    let faults = report.faults.iter().filter_map(|fault| {
        let (from, to) = fault.begun_seconds.zip(fault.healed_seconds)?;
        Some(Band { name: plain(&fault.kind), fault: true, from, to })
    });
    phases.chain(faults).collect()
}

/// The whole distribution, as HDR plots show it; nothing of a report without histograms.
fn distribution(report: &Report) -> Option<Chart> {
    let histograms = [&report.histograms.response, &report.histograms.service, &report.histograms.lag];
    let curves = DISTRIBUTIONS
        .into_iter()
        .zip(histograms)
        .filter(|(name, _)| *name != "lag" || words::is_open(report))
        .filter_map(|(name, histogram)| Some((name, Latency::decode(histogram).ok()?)))
        .collect();
    Chart::distribution("distribution", "Distribution: the share of operations that took no longer".to_owned(), curves)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::sample;

    #[test]
    fn the_verdict_and_its_reasons_come_first() {
        let page = text(&sample::violated());
        let at = |words: &str| page.find(words).unwrap_or_else(|| panic!("{words} is missing"));
        assert!(at("FAIL") < at("what was acknowledged is not what is stored") && at("is not what is stored") < at("Integrity</h2>"));
        assert!(page.contains("void: integrity is violated"));
        assert!(page.contains("<td>corrupted (truncated)</td>"));
        assert!(text(&sample::passed()).contains("321,456 rows/s"));
    }

    #[test]
    fn nothing_foreign_becomes_markup_or_script() {
        let evil = "</script><img src=x onerror=alert(1)>\u{202e}";
        let mut report = sample::violated();
        report.scenario["name"] = evil.into();
        report.reasons = vec![evil.to_owned()];
        report.notes = vec![evil.to_owned()];
        report.reproduce = evil.to_owned();
        report.phases[0].name = evil.to_owned();
        report.gates[0].message = evil.to_owned();
        report.integrity.examples[5].found = Some(evil.to_owned());
        report.environment.target.settings.insert(evil.to_owned(), evil.to_owned());
        report.error_examples = report.errors.keys().map(|class| (class.clone(), evil.to_owned())).collect();
        let page = text(&report);
        assert!(!page.contains("<img") && !page.contains('\u{202e}'));
        assert_eq!(page.matches("</script>").count(), 2, "the data and the script themselves");
        assert!(page.matches("&lt;/script&gt;").count() >= 7);
    }

    #[test]
    fn charts_have_the_numbers_of_the_report() {
        let mut report = sample::violated();
        let mut latency = Latency::default();
        (1..=1_000).for_each(|n| latency.record(std::time::Duration::from_millis(n)));
        report.histograms.response = latency.encode();
        let charts = charts(&report);
        assert_eq!(
            charts.iter().map(|chart| chart.id).collect::<Vec<_>>(),
            ["throughput-over-time", "latency-over-time", "waiting-over-time", "distribution"]
        );
        let acknowledged: Vec<_> = report.timeline.iter().map(|second| Some(second.acknowledged as f64)).collect();
        assert_eq!(charts[0].lines[0].values, acknowledged);
        for chart in &charts {
            assert!(chart.lines.iter().all(|line| line.values.len() == chart.x.len()), "{}", chart.id);
        }
        let median = charts[3].x.iter().position(|q| (*q - 0.5).abs() < 1e-9).expect("the median");
        assert!((charts[3].lines[0].values[median].unwrap() / 500.0 - 1.0).abs() < 0.01);
        assert!(self::charts(&sample::passed()).iter().all(|chart| chart.axis == Axis::Seconds), "no histogram, no distribution");
    }
}
