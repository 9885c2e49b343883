//! Fixed reports that every format is tested against: of rows and of requests, each one that passed and one that went wrong.

use std::collections::BTreeMap;

use serde_json::json;

use super::{
    Anomaly, Environment, GateResult, Histograms, HttpReport, Integrity, IntegrityVerdict, Latencies, LatencySummary, Outcomes, Phase,
    Rate, Report, Resources, Route, SCHEMA_VERSION, Second, Source, TargetSeen, Throughput, Verdict,
};

fn gate(gate: &str, implicit: bool, verdict: Verdict, actual: Option<f64>, message: &str) -> GateResult {
    GateResult { gate: gate.to_owned(), implicit, verdict, actual, message: message.to_owned() }
}

fn latency(count: u64, p50: f64) -> LatencySummary {
    let at = |factor: f64| Some(p50 * factor);
    LatencySummary {
        count,
        mean_ms: at(1.1),
        p50_ms: at(1.0),
        p75_ms: at(1.5),
        p90_ms: at(2.0),
        p95_ms: at(3.0),
        p99_ms: at(10.0),
        p999_ms: at(40.0),
        max_ms: at(55.0),
    }
}

fn all_acknowledged(rows: u64) -> Outcomes {
    Outcomes { offered: rows, attempted: rows, acknowledged: rows, ..Outcomes::default() }
}

fn phase(name: &str, start_seconds: f64, duration_seconds: f64, outcomes: Outcomes) -> Phase {
    Phase { name: name.to_owned(), start_seconds, duration_seconds, outcomes }
}

/// A quickstart on SQLite.
pub(crate) fn passed() -> Report {
    Report {
        schema_version: SCHEMA_VERSION,
        run_id: "20260301-101500-quickstart-1f3a".to_owned(),
        seed: 42,
        scenario: json!({"name": "quickstart", "load": {"executor": "shared-iterations"}}),
        reproduce: "batchsql run scenarios/quickstart.yaml --seed 42".to_owned(),
        environment: Environment {
            batchsql_version: "0.1.0".to_owned(),
            git_commit: Some("0123456789abcdef0123456789abcdef01234567".to_owned()),
            cpu: "Example CPU @ 3.00GHz".to_owned(),
            cores: 2,
            memory_bytes: 8 << 30,
            os: "Debian GNU/Linux 12".to_owned(),
            kernel: "6.1.0".to_owned(),
            target: TargetSeen {
                name: "SQLite".to_owned(),
                version: "3.50.4".to_owned(),
                database: "sqlite".to_owned(),
                settings: BTreeMap::from([("journal_mode".to_owned(), "wal".to_owned())]),
                method: "prepared".to_owned(),
                container: None,
            },
            calibration: None,
        },
        verdict: Verdict::Pass,
        reasons: Vec::new(),
        notes: vec!["port 9464 is in use: metrics are on http://127.0.0.1:40123/metrics".to_owned()],
        started_at: "2026-03-01T10:15:00Z".to_owned(),
        duration_seconds: 1.9,
        interrupted: false,
        phases: vec![
            phase("main", 0.0, 0.62, all_acknowledged(200_000)),
            phase("drain", 0.62, 0.004, Outcomes::default()),
            phase("verify", 0.624, 0.21, Outcomes::default()),
        ],
        timeline: vec![Second { phase: "main".to_owned(), offered: 200_000, acknowledged: 200_000, ..Second::default() }],
        throughput: Throughput { rate: Rate::Rows(Some(321_456.7)), valid: true },
        latency: Latencies { response: latency(200_000, 0.85), service: latency(200_000, 0.41), lag: LatencySummary::default() },
        outcomes: all_acknowledged(200_000),
        errors: BTreeMap::new(),
        error_examples: BTreeMap::new(),
        integrity: Integrity {
            verdict: IntegrityVerdict::Holds,
            reason: None,
            method: "full".to_owned(),
            rate: Some(1.0),
            checked: 200_000,
            must_be_there: 200_000,
            duration_seconds: 0.21,
            ..Integrity::inconclusive(String::new())
        },
        faults: Vec::new(),
        gates: vec![
            gate("integrity holds", true, Verdict::Pass, None, "every row is stored once, whole and right"),
            gate("error_rate == 0", true, Verdict::Pass, Some(0.0), "0 of 200,000"),
            gate("response.p99 < 50ms", false, Verdict::Pass, Some(8.5), "8.50 ms"),
        ],
        guard: Vec::new(),
        resources: Resources { cpu_seconds: 1.43, rss_bytes_max: 64_000_000, ..Resources::default() },
        histograms: Histograms::default(),
        http: None,
        target: None,
    }
}

fn anomaly(class: &str, sub_kind: Option<&str>, key: i64, column: Option<&str>, expected: Option<&str>, found: Option<&str>) -> Anomaly {
    let owned = |text: Option<&str>| text.map(str::to_owned);
    Anomaly {
        class: class.to_owned(),
        sub_kind: owned(sub_kind),
        key,
        column: owned(column),
        expected: owned(expected),
        found: owned(found),
    }
}

fn violated_integrity() -> Integrity {
    let mut examples: Vec<_> = (0..5).map(|n| anomaly("lost", None, 1000 + n, None, None, None)).collect();
    examples.push(anomaly("corrupted", Some("truncated"), 17, Some("name"), Some("Grace `Hopper`|<b>"), Some("Grace")));
    examples.push(anomaly("corrupted", Some("other"), 18, Some("data"), Some("plain"), Some("\u{1b}[2J\nevil\u{202e}")));
    examples.push(anomaly("phantom", None, -3, None, None, Some(&"x".repeat(200))));
    Integrity {
        verdict: IntegrityVerdict::Violated,
        rate: Some(0.999_992_9),
        checked: 999_990,
        must_be_there: 999_000,
        lost: 5,
        corrupted: 2,
        phantom: 1,
        recovered: 200,
        partial_batches: 1,
        examples,
        duration_seconds: 3.2,
        ..passed().integrity
    }
}

/// An open load on Postgres in which rows were lost, a gate was missed and another could not be judged.
pub(crate) fn violated() -> Report {
    let outcomes = Outcomes { offered: 1_000_000, attempted: 999_900, acknowledged: 999_000, rejected: 600, unknown: 300, dropped: 100 };
    let second = |second: u64| Second {
        second,
        phase: if second < 2 { "warmup" } else { "main" }.to_owned(),
        offered: 20_000,
        acknowledged: [12_000, 20_000, 20_100, 19_900, 0, 4_000, 30_000, 20_000][second as usize % 8],
        response_p50_ms: (second % 8 != 4).then_some(1.25),
        response_p99_ms: (second % 8 != 4).then_some(12.5),
        queue_length: 40,
        in_flight: 2,
        rss_bytes: 50_000_000,
        ..Second::default()
    };
    Report {
        run_id: "20260301-102000-arrival_rate-77c0".to_owned(),
        scenario: json!({"name": "arrival_rate", "load": {"executor": "constant-arrival-rate"}}),
        reproduce: "batchsql run scenarios/arrival_rate.yaml --database-url 'postgres://bench:***@127.0.0.1:5432/bench' --seed 42"
            .to_owned(),
        environment: Environment {
            target: TargetSeen {
                name: "PostgreSQL".to_owned(),
                version: "17.5".to_owned(),
                database: "postgres".to_owned(),
                settings: BTreeMap::new(),
                method: "unnest".to_owned(),
                container: None,
            },
            ..passed().environment
        },
        verdict: Verdict::Fail,
        reasons: vec![
            "integrity violated: lost 5, corrupted 2, phantom 1, partial batches 1".to_owned(),
            "response.p99 < 50ms: 61.2 ms".to_owned(),
        ],
        notes: Vec::new(),
        interrupted: true,
        duration_seconds: 54.6,
        phases: vec![
            phase("warmup", 0.0, 2.0, all_acknowledged(40_000)),
            phase("main", 2.0, 48.0, outcomes),
            phase("drain", 50.0, 0.3, Outcomes::default()),
            phase("verify", 50.3, 3.2, Outcomes::default()),
        ],
        timeline: (0..50).map(second).collect(),
        throughput: Throughput { rate: Rate::Rows(Some(19_812.4)), valid: false },
        latency: Latencies {
            response: LatencySummary { p999_ms: None, ..latency(8_000, 6.12) },
            service: latency(959_000, 1.4),
            lag: latency(959_900, 0.012),
        },
        outcomes,
        errors: BTreeMap::from([("final:constraint".to_owned(), 3), ("final:timeout".to_owned(), 2), ("retry:deadlock".to_owned(), 1_234)]),
        error_examples: BTreeMap::from([("deadlock".to_owned(), "deadlock detected\nDETAIL: Process 1 waits | for 2".to_owned())]),
        integrity: violated_integrity(),
        gates: vec![
            gate("integrity holds", true, Verdict::Fail, None, "lost 5, corrupted 2, phantom 1, partial batches 1"),
            gate("error_rate < 0.1%", false, Verdict::Pass, Some(0.0009), "900 of 999,900"),
            gate("response.p99 < 50ms", false, Verdict::Fail, Some(61.2), "61.2 ms"),
            gate("response.p999 < 80ms", false, Verdict::Inconclusive, None, "too few samples for p99.9"),
        ],
        guard: Vec::new(),
        resources: Resources { cpu_seconds: 31.4, rss_bytes_max: 91_000_000, ..Resources::default() },
        ..passed()
    }
}

fn source(name: &str, must_be_there: u64, right: u64) -> Source {
    Source { name: name.to_owned(), must_be_there, right }
}

/// 20,000 chats through a gateway, one in ten streamed, each paired with a direct one.
pub(crate) fn answered() -> Report {
    let route = |name: &str, requests: u64, p50: f64| Route {
        name: name.to_owned(),
        outcomes: all_acknowledged(requests),
        service: latency(requests, p50),
    };
    Report {
        run_id: "20260301-103000-proxy_quickstart-09ab".to_owned(),
        scenario: json!({"name": "proxy_quickstart", "load": {"executor": "shared-iterations"}}),
        reproduce: "batchsql run scenarios/proxy_quickstart.yaml --seed 42".to_owned(),
        environment: Environment {
            target: TargetSeen {
                name: "HTTP service".to_owned(),
                version: "at http://127.0.0.1:40125".to_owned(),
                database: "http".to_owned(),
                settings: BTreeMap::from([("max_per_host".to_owned(), "50".to_owned())]),
                method: String::new(),
                container: None,
            },
            ..passed().environment
        },
        notes: Vec::new(),
        phases: vec![
            phase("main", 0.0, 4.8, all_acknowledged(20_000)),
            phase("drain", 4.8, 0.002, Outcomes::default()),
            phase("verify", 4.802, 0.4, Outcomes::default()),
        ],
        timeline: (0..5).map(|second| Second { second, acknowledged: 3_600 + 200 * second, ..Second::default() }).collect(),
        throughput: Throughput { rate: Rate::Requests(Some(4_123.7)), valid: true },
        latency: Latencies { response: latency(20_000, 3.1), service: latency(20_000, 3.0), lag: LatencySummary::default() },
        outcomes: all_acknowledged(20_000),
        integrity: Integrity {
            method: "replies, upstream records, log rows".to_owned(),
            checked: 60_000,
            must_be_there: 60_000,
            duration_seconds: 0.37,
            sources: vec![
                source("replies", 20_000, 20_000),
                source("upstream records", 20_000, 20_000),
                source("log rows", 20_000, 20_000),
            ],
            log_lag_seconds: Some(0.28),
            ..passed().integrity
        },
        gates: vec![
            gate(
                "integrity holds",
                true,
                Verdict::Pass,
                Some(1.0),
                "60,000 replies and records held against the ledger, all of them right",
            ),
            gate("error_rate == 0", true, Verdict::Pass, Some(0.0), "0 rejected and 0 unknown of 20,000 attempted"),
            gate("time_to_first_token.p99 < 50ms", false, Verdict::Pass, Some(24.0), "time_to_first_token.p99 is 24ms, asked for < 50ms"),
        ],
        http: Some(HttpReport {
            time_to_first_byte: latency(20_000, 2.8),
            time_to_first_token: LatencySummary { p999_ms: None, ..latency(2_061, 2.4) },
            inter_token: latency(63_891, 0.004),
            longest_stall: LatencySummary { p999_ms: None, ..latency(2_061, 0.9) },
            server: latency(20_000, 1.5),
            network: latency(20_000, 1.2),
            overhead: latency(20_000, 0.14),
            streams: 2_061,
            prompt_tokens: 400_148,
            completion_tokens: 352_976,
            tokens_per_second: Some(72_812.0),
            bytes_sent: 8_300_000,
            bytes_received: 25_600_000,
            routes: vec![route("chat", 17_939, 2.9), route("stream", 2_061, 4.4)],
            time_to_first_token_histogram: String::new(),
        }),
        ..passed()
    }
}

/// The same where the gateway swapped, cut and forgot.
pub(crate) fn garbled() -> Report {
    let outcomes = Outcomes { offered: 2_003, attempted: 2_003, acknowledged: 2_000, rejected: 2, unknown: 1, dropped: 0 };
    let right = format!("bsq-0badcafe-7 {}", (0..16).map(|token| format!("t{token} ")).collect::<String>());
    let gap = right.replace("t9 ", "");
    let other = right.replace("-7 ", "-8 ");
    let examples = vec![
        anomaly("corrupted", Some("crosstalk"), 7, Some("reply.content"), Some(&right), Some(&other)),
        anomaly("corrupted", Some("gap"), 9, Some("reply.content"), Some(&right), Some(&gap)),
        anomaly("corrupted", Some("other"), 11, Some("log.completion_tokens"), Some("16"), Some("15")),
        anomaly("duplicated", None, 12, Some("upstream"), Some("one request"), Some("2 requests")),
        anomaly("lost", None, 13, Some("log"), Some("one row"), Some("none")),
    ];
    let reason = "1 lost, 1 duplicated, 3 corrupted";
    let http = answered().http.unwrap_or_default();
    let mut routes = http.routes.clone();
    routes[0].outcomes = outcomes;
    Report {
        verdict: Verdict::Fail,
        reasons: vec![format!("integrity holds: {reason}")],
        throughput: Throughput { rate: Rate::Requests(Some(4_123.7)), valid: false },
        outcomes,
        errors: BTreeMap::from([("final:status".to_owned(), 2), ("final:token_gap_timeout".to_owned(), 1)]),
        error_examples: BTreeMap::from([("status".to_owned(), "status 502, asked for 200 to 299: {\"error\"".to_owned())]),
        integrity: Integrity {
            verdict: IntegrityVerdict::Violated,
            reason: Some(reason.to_owned()),
            rate: Some(5_995.0 / 6_000.0),
            checked: 6_000,
            must_be_there: 6_000,
            lost: 1,
            duplicated: 1,
            corrupted: 3,
            examples,
            sources: vec![source("replies", 2_000, 1_998), source("upstream records", 2_000, 1_999), source("log rows", 2_000, 1_998)],
            ..answered().integrity
        },
        gates: vec![gate("integrity holds", true, Verdict::Fail, Some(5_995.0 / 6_000.0), reason)],
        http: Some(HttpReport { routes, ..http }),
        ..answered()
    }
}
