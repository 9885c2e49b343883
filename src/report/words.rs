//! What a report says in sentences, the same in every format.

use super::format::{bytes, count, millis, percent, plain, rate, seconds};
use super::{Anomaly, Integrity, IntegrityVerdict, LatencySummary, Rate, Report, Verdict};

/// The verdict as one word.
pub(super) fn verdict(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Pass => "PASS",
        Verdict::Fail => "FAIL",
        Verdict::Inconclusive => "INCONCLUSIVE",
    }
}

/// The verdict in a sentence.
pub(super) fn headline(report: &Report) -> String {
    let requests = matches!(report.throughput.rate, Rate::Requests(_));
    let logged = report.integrity.sources.iter().any(|source| source.name == crate::verifier::requests::LOG_ROWS);
    let sentence = match (report.verdict, report.integrity.verdict) {
        (Verdict::Pass, _) if requests && logged => "every reply is right, every request is logged once, and every gate was met",
        (Verdict::Pass, _) if requests => "every reply is whole and right, and every gate was met",
        (Verdict::Pass, _) => "every row is stored once, whole and right, and every gate was met",
        (Verdict::Fail, IntegrityVerdict::Violated) if requests => "what was answered is not what is right",
        (Verdict::Fail, IntegrityVerdict::Violated) => "what was acknowledged is not what is stored",
        (Verdict::Fail, _) => "a gate was missed",
        (Verdict::Inconclusive, IntegrityVerdict::Inconclusive) if requests => "nobody can say whether every reply is right",
        (Verdict::Inconclusive, IntegrityVerdict::Inconclusive) => "nobody can say whether every row is stored",
        (Verdict::Inconclusive, _) => "something asked for could not be judged",
    };
    let stopped = if report.interrupted { " (interrupted)" } else { "" };
    format!("{sentence}{stopped}")
}

/// The scenario's name.
pub(super) fn scenario(report: &Report) -> String {
    plain(report.scenario["name"].as_str().unwrap_or("(unnamed)"))
}

/// Whether starts were asked for by the clock, so that the generator can be late.
pub(super) fn is_open(report: &Report) -> bool {
    report.scenario["load"]["executor"].as_str().is_some_and(|executor| executor.ends_with("arrival-rate"))
}

/// Speed, and whether it counts.
pub(super) fn throughput(report: &Report) -> String {
    let unit = report.throughput.rate.unit();
    let Some(speed) = report.throughput.rate.per_second().map(|speed| rate(speed, unit)) else {
        return format!("none: no {} of phase main was acknowledged", unit.trim_end_matches('s'));
    };
    match report.integrity.verdict {
        _ if report.throughput.valid => speed,
        IntegrityVerdict::Violated => format!("void: integrity is violated, so the {speed} that were timed are no speed"),
        _ => format!("not proven: {speed} were timed, but integrity is not proven, so they do not count"),
    }
}

/// The anomalies there are, most telling first; empty if there are none.
pub(super) fn anomalies(integrity: &Integrity) -> Vec<(&'static str, u64)> {
    let all = [
        ("lost", integrity.lost),
        ("duplicated", integrity.duplicated),
        ("corrupted", integrity.corrupted),
        ("phantom", integrity.phantom),
        ("resurrected", integrity.resurrected),
        ("stale", integrity.stale),
        ("partial batches", integrity.partial_batches),
    ];
    all.into_iter().filter(|(_, found)| *found > 0).collect()
}

/// Whether what was acknowledged is stored: the finding, then what it rests on.
pub(super) fn integrity(integrity: &Integrity) -> Vec<String> {
    let must = must_be_there(integrity);
    let finding = match integrity.verdict {
        IntegrityVerdict::Holds => format!("holds: {must} must be there and are, once, whole and right"),
        IntegrityVerdict::Violated => {
            let found: Vec<_> = anomalies(integrity).into_iter().map(|(class, found)| format!("{class} {}", count(found))).collect();
            let right = integrity.rate.map_or_else(String::new, |rate| format!(", {} right", percent(rate)));
            format!("violated: {} (of {must} that must be there{right})", found.join(", "))
        }
        IntegrityVerdict::Inconclusive => {
            format!("not proven: {}", integrity.reason.as_deref().map_or_else(|| "it was not verified".to_owned(), plain))
        }
    };
    let mut said = vec![finding];
    if integrity.checked > 0 {
        let (rows, time) = (count(integrity.checked), seconds(integrity.duration_seconds));
        let what = if integrity.sources.is_empty() { "rows read back and compared" } else { "of them held against the ledger" };
        said.push(format!("{rows} {what} in {time}, method {}", plain(&integrity.method)));
    }
    if integrity.recovered > 0 {
        said.push(format!("{} rows of unknown outcome were found stored, which is legal", count(integrity.recovered)));
    }
    let is_complete = integrity.lost == 0 && integrity.allowed_lost.unwrap_or(0) == 0;
    if let Some(lag) = integrity.log_lag_seconds.filter(|_| is_complete) {
        said.push(format!("the gateway's log was complete {} after the load", seconds(lag)));
    }
    if let (Some(lost), Some(window)) = (integrity.allowed_lost, integrity.lost_window_seconds) {
        said.push(format!("{} log rows of the last {} before the last answer are lost, which is allowed", count(lost), seconds(window)));
    }
    said
}

/// What must be there, in words.
fn must_be_there(integrity: &Integrity) -> String {
    if integrity.sources.is_empty() {
        return format!("{} rows", count(integrity.must_be_there));
    }
    let each: Vec<String> = integrity.sources.iter().map(|source| format!("{} {}", count(source.must_be_there), source.name)).collect();
    each.join(", ")
}

/// The class of an example, with its sub-kind.
pub(super) fn class(anomaly: &Anomaly) -> String {
    match &anomaly.sub_kind {
        Some(sub_kind) => format!("{} ({})", plain(&anomaly.class), plain(sub_kind)),
        None => plain(&anomaly.class),
    }
}

/// At most `most` examples of every class, in their order.
pub(super) fn examples(integrity: &Integrity, most: usize) -> Vec<&Anomaly> {
    let mut shown: Vec<&Anomaly> = Vec::new();
    for anomaly in &integrity.examples {
        if shown.iter().filter(|other| other.class == anomaly.class).count() < most {
            shown.push(anomaly);
        }
    }
    shown
}

/// The heads of a table of latencies.
pub(super) const PERCENTILES: [&str; 7] = ["p50", "p75", "p90", "p95", "p99", "p99.9", "max"];

/// One line of a table of latencies, under [`PERCENTILES`].
pub(super) fn percentiles(latency: &LatencySummary) -> [Option<f64>; 7] {
    [latency.p50_ms, latency.p75_ms, latency.p90_ms, latency.p95_ms, latency.p99_ms, latency.p999_ms, latency.max_ms]
}

/// The distributions worth showing, by name.
pub(super) fn latencies(report: &Report) -> Vec<(&'static str, &LatencySummary)> {
    let latency = &report.latency;
    let mut rows = vec![("response", &latency.response), ("service", &latency.service)];
    if is_open(report) {
        rows.push(("lag", &latency.lag));
    }
    if let Some(http) = &report.http {
        let more = [
            ("first byte", &http.time_to_first_byte),
            ("first token", &http.time_to_first_token),
            ("token gap", &http.inter_token),
            ("stall", &http.longest_stall),
            ("server", &http.server),
            ("network", &http.network),
        ];
        rows.extend(more.into_iter().filter(|(_, latency)| latency.count > 0));
    }
    rows
}

/// What only requests have, in lines of label and text.
pub(super) fn http(report: &Report) -> Vec<(&'static str, String)> {
    let Some(http) = &report.http else { return Vec::new() };
    let mut lines = Vec::new();
    if http.completion_tokens > 0 {
        let speed = http.tokens_per_second.map(|speed| format!(", {}", rate(speed, "tokens"))).unwrap_or_default();
        let (prompt, completion) = (count(http.prompt_tokens), count(http.completion_tokens));
        lines.push(("tokens", format!("{prompt} of prompts, {completion} of completions{speed}; {} streams", count(http.streams))));
    }
    lines.push(("bytes", format!("{} sent, {} received", bytes(http.bytes_sent), bytes(http.bytes_received))));
    let overhead = &http.overhead;
    if overhead.count > 0 {
        let [mean, p50, p90, p99] =
            [overhead.mean_ms, overhead.p50_ms, overhead.p90_ms, overhead.p99_ms].map(|value| value.map_or_else(|| "–".to_owned(), millis));
        let pairs = count(overhead.count);
        lines.push(("overhead", format!("the gateway adds {p50} (p50), {p90} (p90), {p99} (p99), {mean} (mean); {pairs} pairs")));
    }
    if http.routes.len() > 1 {
        for (place, route) in http.routes.iter().enumerate() {
            let o = &route.outcomes;
            let p50 = route.service.p50_ms.map_or_else(|| "–".to_owned(), millis);
            let p99 = route.service.p99_ms.map_or_else(|| "–".to_owned(), millis);
            let failed = if o.rejected + o.unknown > 0 {
                format!(", {} rejected, {} unknown", count(o.rejected), count(o.unknown))
            } else {
                String::new()
            };
            let text = format!("{}: {} acknowledged{failed}, service p50 {p50}, p99 {p99}", plain(&route.name), count(o.acknowledged));
            lines.push((if place == 0 { "routes" } else { "" }, text));
        }
    }
    lines
}

/// Why a place of the table is empty, if one is.
pub(super) fn missing_percentiles(report: &Report) -> Option<&'static str> {
    let missing = latencies(report).iter().any(|(_, latency)| percentiles(latency).contains(&None));
    missing.then_some("– too few answers to know this percentile")
}

/// What every line of the table means.
pub(super) fn latency_legend(report: &Report) -> &'static str {
    match (&report.throughput.rate, is_open(report)) {
        (Rate::Rows(_), true) => {
            "response: from intended start; service: from the send of its batch; lag: how late the generator itself was"
        }
        (Rate::Rows(_), false) => "response: from intended start; service: from the send of its batch",
        (Rate::Requests(_), true) => {
            "response: from intended start; service and the rest: from the send; lag: how late the generator itself was"
        }
        (Rate::Requests(_), false) => "response: from intended start; service and the rest: from the send",
    }
}

/// What was driven: name, version, how rows travelled.
pub(super) fn target(report: &Report) -> String {
    let target = &report.environment.target;
    let method = if target.method.is_empty() { String::new() } else { format!(", method {}", plain(&target.method)) };
    match target.name.as_str() {
        "" => "never reached".to_owned(),
        name => format!("{} {}{method}", plain(name), plain(&target.version)),
    }
}

/// What became of operations.
pub(super) fn outcomes(report: &Report) -> String {
    let o = &report.outcomes;
    let parts = [
        ("offered", o.offered),
        ("acknowledged", o.acknowledged),
        ("rejected", o.rejected),
        ("unknown", o.unknown),
        ("dropped", o.dropped),
    ];
    parts.map(|(word, rows)| format!("{} {word}", count(rows))).join(" · ")
}

/// The phases and their lengths.
pub(super) fn phases(report: &Report) -> String {
    report.phases.iter().map(|phase| format!("{} {}", plain(&phase.name), seconds(phase.duration_seconds))).collect::<Vec<_>>().join(" · ")
}
