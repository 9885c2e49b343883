//! Fixed reports that every format is tested against: one that passed, one where everything went wrong.

use std::collections::BTreeMap;

use serde_json::json;

use super::{
    Anomaly, Environment, GateResult, Histograms, Integrity, IntegrityVerdict, Latencies, LatencySummary, Outcomes, Phase, Rate, Report,
    Resources, SCHEMA_VERSION, Second, TargetSeen, Throughput, Verdict,
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
            },
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
        gates: vec![
            gate("integrity holds", true, Verdict::Pass, None, "every row is stored once, whole and right"),
            gate("error_rate == 0", true, Verdict::Pass, Some(0.0), "0 of 200,000"),
            gate("response.p99 < 50ms", false, Verdict::Pass, Some(8.5), "8.50 ms"),
        ],
        resources: Resources { cpu_seconds: 1.43, rss_bytes_max: 64_000_000 },
        histograms: Histograms::default(),
        http: None,
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
        resources: Resources { cpu_seconds: 31.4, rss_bytes_max: 91_000_000 },
        ..passed()
    }
}
