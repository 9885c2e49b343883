//! What a report says in sentences, the same in every format.

use super::format::{bytes, count, millis, percent, plain, rate, seconds, short};
use super::{Anomaly, Integrity, IntegrityVerdict, LatencySummary, Rate, Report, Verdict};
use crate::scenario::guard::Action;

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
        (Verdict::Fail, IntegrityVerdict::Violated) if requests => "not every reply, and not every record of one, is right",
        (Verdict::Fail, IntegrityVerdict::Violated) => "what was acknowledged is not what is stored",
        (Verdict::Fail, _) => "a gate was missed",
        (Verdict::Inconclusive, IntegrityVerdict::Inconclusive) if requests => "nobody can say whether every reply is right",
        (Verdict::Inconclusive, IntegrityVerdict::Inconclusive) => "nobody can say whether every row is stored",
        (Verdict::Inconclusive, _) => "something asked for could not be judged",
    };
    let stopped = if report.interrupted { " (interrupted)" } else { "" };
    format!("{sentence}{stopped}")
}

/// An instant, to the second.
pub(super) fn when(instant: &str) -> String {
    instant.split_once('.').map_or_else(|| plain(instant), |(whole, _)| plain(whole) + "Z")
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
pub(crate) fn anomalies(integrity: &Integrity) -> Vec<(&'static str, u64)> {
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
        IntegrityVerdict::Holds if integrity.must_be_there == 1 => format!("holds: {must} must be there and is, once, whole and right"),
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
        let time = seconds(integrity.duration_seconds);
        said.push(if is_of_requests(integrity) {
            format!("{} held against the ledger of requests in {time}", many(integrity.checked, "replies and records"))
        } else {
            let rows = many(integrity.checked, "rows");
            let method = plain(&integrity.method);
            match integrity.read_back {
                None => format!("{rows} read back and compared in {time}, method {method}"),
                Some(read) => format!("{rows} checked in {time}, method {method}, {} of them read back and compared", count(read)),
            }
        });
    }
    match integrity.recovered {
        0 => {}
        1 => said.push("1 row of unknown outcome was found stored, which is legal".to_owned()),
        rows => said.push(format!("{} of unknown outcome were found stored, which is legal", many(rows, "rows"))),
    }
    let is_complete = integrity.lost == 0 && integrity.allowed_lost.unwrap_or(0) == 0;
    if let Some(lag) = integrity.log_lag_seconds.filter(|_| is_complete) {
        said.push(format!("the gateway's log was complete {} after the load", seconds(lag)));
    }
    if let (Some(lost @ 1..), Some(window)) = (integrity.allowed_lost, integrity.lost_window_seconds) {
        let rows = if lost == 1 { "1 log row is".to_owned() } else { format!("{} log rows are", count(lost)) };
        said.push(format!("{rows} lost, of the last {} before the last answer, which is allowed", seconds(window)));
    }
    said
}

/// What must be there, in words.
fn must_be_there(integrity: &Integrity) -> String {
    if !is_of_requests(integrity) {
        return many(integrity.must_be_there, "rows");
    }
    let each: Vec<String> = integrity.sources.iter().map(|source| many(source.must_be_there, &plain(&source.name))).collect();
    each.join(", ")
}

/// Whether replies and records of them were checked, not the rows of a table.
pub(super) fn is_of_requests(integrity: &Integrity) -> bool {
    !integrity.sources.is_empty()
}

/// `1 row`, `2 rows`, `1 reply`.
fn many(number: u64, plural: &str) -> String {
    let one = |word: &str| match word.strip_suffix("ies") {
        Some(stem) => format!("{stem}y"),
        None => word.strip_suffix('s').unwrap_or(word).to_owned(),
    };
    if number == 1 { format!("1 {}", one(plural)) } else { format!("{} {plural}", count(number)) }
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

/// The expected and the found value of an example, cut to `most` characters: of long ones that begin alike, from where they differ.
pub(super) fn values(anomaly: &Anomaly, most: usize) -> [Option<String>; 2] {
    /// Characters shown before the first difference.
    const BEFORE: usize = 12;
    let both = [&anomaly.expected, &anomaly.found];
    let (Some(expected), Some(found)) = (&anomaly.expected, &anomaly.found) else {
        return both.map(|value| value.as_ref().map(|text| short(text, most)));
    };
    let alike = expected.chars().zip(found.chars()).take_while(|(one, other)| one == other).count();
    let long = expected.chars().count().max(found.chars().count()) > most;
    let skipped = if long && alike > most / 2 { alike.saturating_sub(BEFORE) } else { 0 };
    both.map(|value| {
        let rest = value.as_ref()?.chars().skip(skipped).collect::<String>();
        Some(format!("{}{}", if skipped > 0 { "…" } else { "" }, short(&rest, most)))
    })
}

/// The heads of a table of latencies.
pub(super) const PERCENTILES: [&str; 7] = ["p50", "p75", "p90", "p95", "p99", "p99.9", "max"];

/// One line of a table of latencies, under [`PERCENTILES`].
pub(super) fn percentiles(latency: &LatencySummary) -> [Option<f64>; 7] {
    [latency.p50_ms, latency.p75_ms, latency.p90_ms, latency.p95_ms, latency.p99_ms, latency.p999_ms, latency.max_ms]
}

/// The distributions worth showing: name, meaning, values.
pub(super) fn latencies(report: &Report) -> Vec<(&'static str, &'static str, &LatencySummary)> {
    let latency = &report.latency;
    let sent = match report.throughput.rate {
        Rate::Rows(_) => "from the send of its batch",
        Rate::Requests(_) => "from the send to the end of the reply",
    };
    let mut rows = vec![("response", "from intended start", &latency.response), ("service", sent, &latency.service)];
    if is_open(report) {
        rows.push(("lag", "how late the generator itself was", &latency.lag));
    }
    if let Some(http) = &report.http {
        let more = [
            ("first byte", "from the send", &http.time_to_first_byte),
            ("first token", "from the send to the first content", &http.time_to_first_token),
            ("token gap", "from each token to the next", &http.inter_token),
            ("stall", "the longest gap of a stream", &http.longest_stall),
            ("server", "what X-Response-Time-Ms says", &http.server),
            ("network", "first byte less that", &http.network),
        ];
        rows.extend(more.into_iter().filter(|(_, _, latency)| latency.count > 0));
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
        lines.push(("tokens", format!("{prompt} of prompts, {completion} of completions{speed}; {}", many(http.streams, "streams"))));
    }
    lines.push(("bytes", format!("{} sent, {} received", bytes(http.bytes_sent), bytes(http.bytes_received))));
    let overhead = &http.overhead;
    if overhead.count > 0 {
        let [mean, p50, p90, p99] =
            [overhead.mean_ms, overhead.p50_ms, overhead.p90_ms, overhead.p99_ms].map(|value| value.map_or_else(|| "–".to_owned(), millis));
        let pairs = many(overhead.count, "pairs");
        lines.push(("overhead", format!("the gateway adds {p50} (p50), {p90} (p90), {p99} (p99), {mean} (mean); {pairs}")));
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
    let missing = latencies(report).iter().any(|(_, _, latency)| percentiles(latency).contains(&None));
    missing.then_some("– too few answers to know this percentile")
}

/// What every line of the table means.
pub(super) fn latency_legend(report: &Report) -> Vec<String> {
    latencies(report).iter().map(|(name, meaning, _)| format!("{name}: {meaning}")).collect()
}

/// What was driven: name, version, how rows travelled.
pub(super) fn target(report: &Report) -> String {
    let target = &report.environment.target;
    let method = if target.method.is_empty() { String::new() } else { format!(", method {}", plain(&target.method)) };
    let container =
        target.container.as_ref().map(|container| format!(", in a container of {}", plain(&container.image))).unwrap_or_default();
    match target.name.as_str() {
        "" => "never reached".to_owned(),
        name => format!("{} {}{method}{container}", plain(name), plain(&target.version)),
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

/// What the scenario's guard did, a line each.
pub(super) fn guard(report: &Report) -> Vec<String> {
    let line = |act: &super::GuardAct| match act.action {
        Action::Hold => format!("held after {} for {}: {}", seconds(act.at_seconds), seconds(act.duration_seconds), plain(&act.reason)),
        Action::Stop => format!("stopped after {}: {}", seconds(act.at_seconds), plain(&act.reason)),
    };
    report.guard.iter().map(line).collect()
}

/// The phases and their lengths.
pub(super) fn phases(report: &Report) -> String {
    report.phases.iter().map(|phase| format!("{} {}", plain(&phase.name), seconds(phase.duration_seconds))).collect::<Vec<_>>().join(" · ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::sample;

    #[test]
    fn one_of_a_thing_is_no_plural() {
        assert_eq!(["rows", "replies", "upstream records"].map(|word| many(1, word)), ["1 row", "1 reply", "1 upstream record"]);
        assert_eq!((many(0, "rows"), many(2_000, "replies")), ("0 rows".to_owned(), "2,000 replies".to_owned()));
        let one = Integrity { must_be_there: 1, checked: 1, recovered: 1, ..sample::passed().integrity };
        assert_eq!(
            self::integrity(&one),
            [
                "holds: 1 row must be there and is, once, whole and right",
                "1 row read back and compared in 0.21 s, method full",
                "1 row of unknown outcome was found stored, which is legal"
            ]
        );
        let digested = Integrity { read_back: Some(1024), method: "digest".to_owned(), ..sample::passed().integrity };
        assert_eq!(self::integrity(&digested)[1], "200,000 rows checked in 0.21 s, method digest, 1,024 of them read back and compared");
    }

    #[test]
    fn lost_log_rows_that_are_allowed_are_told() {
        let lost = |rows| Integrity {
            allowed_lost: Some(rows),
            lost_window_seconds: Some(4.2),
            log_lag_seconds: None,
            ..sample::answered().integrity
        };
        assert_eq!(self::integrity(&lost(1))[2], "1 log row is lost, of the last 4.20 s before the last answer, which is allowed");
        assert_eq!(self::integrity(&lost(250))[2], "250 log rows are lost, of the last 4.20 s before the last answer, which is allowed");
        assert_eq!(self::integrity(&lost(0)).len(), 2);
    }

    #[test]
    fn long_values_are_shown_from_where_they_differ() {
        let values = |expected: &str, found: &str| {
            let anomaly = Anomaly {
                expected: Some(expected.to_owned()),
                found: Some(found.to_owned()),
                ..sample::garbled().integrity.examples[0].clone()
            };
            self::values(&anomaly, 20).map(Option::unwrap_or_default)
        };
        assert_eq!(values("short", "shirt"), ["short", "shirt"]);
        assert_eq!(values("abcdefghijklmnopqrstuvwxyz", "abX"), ["abcdefghijklmnopqrst…", "abX"]);
        assert_eq!(values("abcdefghijklmnopqrstuvwxyz", "abcdefghijklmnopqrs"), ["…hijklmnopqrstuvwxyz", "…hijklmnopqrs"]);
        let only = Anomaly { expected: None, found: Some("é".repeat(30)), ..sample::garbled().integrity.examples[0].clone() };
        assert_eq!(self::values(&only, 20), [None, Some("é".repeat(20) + "…")]);
    }
}
