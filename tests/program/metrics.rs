//! What a scraper sees: during a run, between drain and verification, and while metrics linger.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::net::TcpListener;
use std::process::{Command, Stdio};

use batchsql::metrics::names::{self, Kind, Spec};
use batchsql::scenario::proxy::ProxyRequest;
use batchsql::workload::proxy_request::{Generator, Operation};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::database::Database;
use crate::place::{Place, get, meet, rendezvous};

/// Every sample of a scrape by its series.
fn scrape(address: std::net::SocketAddr) -> BTreeMap<String, f64> {
    let text = get(address, "/metrics");
    let samples = text.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
    samples
        .map(|line| {
            let (series, value) = line.rsplit_once(' ').unwrap();
            (series.to_owned(), value.parse().unwrap_or_else(|_| panic!("{line}")))
        })
        .collect()
}

const TABLE: &str = "{database=\"sqlite\",table=\"metered\",test_name=\"metered\"}";
const TEST: &str = "{database=\"sqlite\",test_name=\"metered\"}";

/// Asserts what the counters must say once every batch is answered.
fn assert_counts(samples: &BTreeMap<String, f64>) {
    for (series, value) in [
        (format!("batchsql_records_processed_total{TABLE}"), 1000.0),
        (
            "batchsql_records_outcome_total{database=\"sqlite\",outcome=\"acknowledged\",table=\"metered\",test_name=\"metered\"}"
                .to_owned(),
            1000.0,
        ),
        (format!("batchsql_batch_success_total{TABLE}"), 10.0),
        (format!("batchsql_batch_failed_total{TABLE}"), 0.0),
        (format!("batchsql_batch_size_sum{TABLE}"), 1000.0),
        (format!("batchsql_batch_size_count{TABLE}"), 10.0),
        (format!("batchsql_enqueue_latency_seconds_count{TEST}"), 1000.0),
        ("batchsql_response_time_seconds_count{database=\"sqlite\",operation=\"batch_insert\",test_name=\"metered\"}".to_owned(), 1000.0),
        (format!("batchsql_execute_duration_seconds_count{TEST}"), 10.0),
        (format!("batchsql_run_active{TEST}"), 0.0),
        (format!("batchsql_executor_concurrency{TEST}"), 1.0),
        ("batchsql_max_connections{database=\"sqlite\"}".to_owned(), 1.0),
    ] {
        assert_eq!(samples.get(&series), Some(&value), "{series}: {samples:#?}");
    }
}

#[test]
fn the_counters_equal_the_report_and_integrity_is_absent_until_verified() {
    let place = Place::new();
    let db = Database::sqlite(&place, "metered");
    let listen = ["--metrics-listen", "127.0.0.1:0", "--metrics-linger", "10m", "--before-verify"];
    let mut running = place.start(&db.rows(1000), &[&listen[..], &[&rendezvous(&place)]].concat());
    let address = running.metrics_address();
    meet(&place, &mut running);
    let integrity_rate = format!("batchsql_data_integrity_rate{TEST}");
    let drained = scrape(address);
    assert_counts(&drained);
    assert!(!drained.keys().any(|series| series.contains("integrity_rate")), "nothing is known yet: {drained:#?}");
    assert_eq!(drained.iter().filter(|(series, _)| series.starts_with("batchsql_tests_run_total")).map(|(_, runs)| runs).sum::<f64>(), 0.0);
    place.write("go", "");
    running.until("the report", |it| it.printed().ends_with('\n').then_some(()));
    let lingering = scrape(address);
    assert_counts(&lingering);
    assert_eq!(lingering[&integrity_rate], 1.0);
    assert_eq!(lingering["batchsql_tests_run_total{database=\"sqlite\",result=\"pass\",test_name=\"metered\"}"], 1.0);
    assert_eq!(get(address, "/health"), "{\"status\":\"ok\"}\n");
    assert!(running.said().contains("serving metrics for another 10m"), "{}", running.said());
    running.signal(Signal::SIGTERM);
    let report = running.end().json(0);
    assert_eq!((&report["outcomes"]["acknowledged"], &report["integrity"]["rate"]), (&json!(1000), &json!(1.0)));
}

#[test]
fn what_the_verifier_finds_is_counted_by_kind() {
    let place = Place::new();
    let db = Database::sqlite(&place, "metered");
    let listen = ["--metrics-listen", "127.0.0.1:0", "--metrics-linger", "10m", "--before-verify"];
    let mut running = place.start(&db.rows(1000), &[&listen[..], &[&rendezvous(&place)]].concat());
    let address = running.metrics_address();
    meet(&place, &mut running);
    db.execute("DELETE FROM {table} WHERE id <= 10");
    place.write("go", "");
    running.until("the report", |it| it.printed().ends_with('\n').then_some(()));
    let samples = scrape(address);
    let lost = "batchsql_integrity_anomalies_total{database=\"sqlite\",kind=\"lost\",test_name=\"metered\"}";
    assert_eq!((samples[lost], samples[&format!("batchsql_data_integrity_rate{TEST}")]), (10.0, 0.99));
    assert_eq!(samples["batchsql_tests_run_total{database=\"sqlite\",result=\"fail\",test_name=\"metered\"}"], 1.0);
    running.signal(Signal::SIGTERM);
    running.end().json(4);
}

#[test]
fn prefix_and_environment_are_on_every_series() {
    let place = Place::new();
    let mut scenario = Database::sqlite(&place, "metered").rows(100);
    scenario["metrics"] = json!({"prefix": "staging_", "env": "ci"});
    let mut running = place.start(&scenario, &["--metrics-listen", "127.0.0.1:0", "--metrics-linger", "10m"]);
    let address = running.metrics_address();
    running.until("the report", |it| it.printed().ends_with('\n').then_some(()));
    let samples = scrape(address);
    assert!(samples.keys().all(|series| series.starts_with("staging_batchsql_") && series.contains("env=\"ci\"")), "{samples:#?}");
    let processed = samples.iter().find(|(series, _)| series.starts_with("staging_batchsql_records_processed_total{")).unwrap();
    assert_eq!(*processed.1, 100.0);
    running.signal(Signal::SIGTERM);
    running.end().json(0);
}

/// The phase each of the four gauges shows, by its value.
fn phases(address: std::net::SocketAddr) -> Vec<(String, f64)> {
    let samples = scrape(address).into_iter().filter(|(series, _)| series.starts_with("batchsql_run_phase{"));
    let phase = |series: &str| series.split_once("phase=\"").unwrap().1.split_once('"').unwrap().0.to_owned();
    samples.map(|(series, value)| (phase(&series), value)).collect()
}

#[test]
fn the_phase_of_a_run_is_shown_from_its_start_to_its_end() {
    let place = Place::new();
    let mut scenario = Database::sqlite(&place, "metered").rows(1_000_000_000);
    scenario["load"] = json!({"executor": "constant-vus", "warmup": "2s", "duration": "5s", "think_time": "1ms"});
    let listen = ["--metrics-listen", "127.0.0.1:0", "--metrics-linger", "10m", "--before-verify"];
    let mut running = place.start(&scenario, &[&listen[..], &[&rendezvous(&place)]].concat());
    let address = running.metrics_address();
    let shows = |phase: &str| ["drain", "main", "verify", "warmup"].map(|name| (name.to_owned(), f64::from(u8::from(name == phase))));
    for phase in ["warmup", "main"] {
        running.until(phase, |_| (phases(address) == shows(phase)).then_some(()));
    }
    meet(&place, &mut running);
    assert_eq!(phases(address), shows("verify"));
    place.write("go", "");
    running.until("the report", |it| it.printed().ends_with('\n').then_some(()));
    assert_eq!(phases(address), shows("none"));
    running.signal(Signal::SIGTERM);
    running.end().json(0);
}

/// What a run shows that pushes to nobody and has no faults: not the past runs of `serve`, nor what a push lost.
fn of_a_run() -> impl Iterator<Item = &'static Spec> {
    let others = [names::PUSH_DROPPED.name, names::FAULT_ACTIVE.name];
    names::ALL.iter().filter(move |spec| !spec.name.starts_with("batchsql_last_run_") && !others.contains(&spec.name))
}

/// Asserts that each of `specs` is there with its type and exactly its labels.
fn assert_contract<'a>(text: &str, specs: impl Iterator<Item = &'a Spec>) {
    let mut checked = 0;
    for spec in specs {
        let (kind, part) = match spec.kind {
            Kind::Counter => ("counter", ""),
            Kind::Gauge => ("gauge", ""),
            Kind::Histogram(_) => ("histogram", "_count"),
        };
        assert!(text.contains(&format!("# TYPE {} {kind}\n", spec.name)), "{}", spec.name);
        let name = format!("{}{part}", spec.name);
        let series = text.lines().find_map(|line| line.strip_prefix(&name).filter(|rest| rest.starts_with(['{', ' '])));
        let series = series.unwrap_or_else(|| panic!("{name}")).rsplit_once(' ').unwrap().0;
        let labels: BTreeSet<_> = series.trim_matches(['{', '}']).split("\",").filter_map(|pair| Some(pair.split_once('=')?.0)).collect();
        assert_eq!(labels, spec.labels.iter().copied().collect(), "{name}");
        checked += 1;
    }
    assert!(checked > 25, "{checked}");
}

#[test]
fn a_run_of_batch_inserts_has_every_metric_of_the_contract() {
    let place = Place::new();
    let flags = ["--metrics-listen", "127.0.0.1:0", "--metrics-linger", "10m"];
    let mut running = place.start(&Database::sqlite(&place, "metered").rows(1000), &flags);
    let address = running.metrics_address();
    running.until("the report", |it| it.printed().ends_with('\n').then_some(()));
    let text = get(address, "/metrics");
    assert_contract(&text, of_a_run().filter(|spec| spec.name.starts_with("batchsql_")));
    let said = promtool_complaints(&text);
    assert!(said.is_none_or(|said| said == BTreeSet::from(["batchsql_batch_execution_duration_ms".to_owned()])));
    running.signal(Signal::SIGTERM);
    running.end().json(0);
}

#[test]
fn labels_without_end_stay_within_the_limit_on_series_and_are_counted() {
    let place = Place::new();
    let mut scenario = requests();
    let workload = &mut scenario["workload"]["proxy_request"];
    workload["models"] = (0..90).map(|number| format!("model-{number}")).collect();
    workload["channels"] = (0..90).map(|number| format!("channel-{number}")).collect();
    let mut running = place.start(&scenario, &["--metrics-listen", "127.0.0.1:0", "--metrics-linger", "10m"]);
    let address = running.metrics_address();
    running.until("the report", |it| it.printed().ends_with('\n').then_some(()));
    let samples = scrape(address);
    assert!((900..=1000).contains(&samples.len()), "{}", samples.len());
    assert!(samples["batchsql_series_dropped_total"] > 100.0, "{}", samples["batchsql_series_dropped_total"]);
    running.signal(Signal::SIGTERM);
    assert_eq!(running.end().json(0)["outcomes"]["attempted"], 400);
}

#[test]
fn flags_name_the_metrics_over_the_scenario() {
    let place = Place::new();
    let mut scenario = Database::sqlite(&place, "metered").rows(100);
    scenario["metrics"] = json!({"prefix": "staging_", "env": "ci"});
    let flags = ["--metrics-listen", "127.0.0.1:0", "--metrics-linger", "10m", "--metrics-prefix", "prod_", "--env", "live"];
    let mut running = place.start(&scenario, &flags);
    let address = running.metrics_address();
    running.until("the report", |it| it.printed().ends_with('\n').then_some(()));
    let samples = scrape(address);
    assert!(
        samples.len() > 100 && samples.keys().all(|it| it.starts_with("prod_batchsql_") && it.contains("env=\"live\"")),
        "{samples:#?}"
    );
    running.signal(Signal::SIGTERM);
    assert_eq!(running.end().json(0)["scenario"]["metrics"], json!({"prefix": "prod_", "env": "live"}));
    place.run(&scenario, &["--metrics-prefix", "9-x"]).refused(&["--metrics-prefix", "9-x", "e.g. staging_"]);
}

#[test]
fn a_port_in_use_is_refused_when_asked_for_and_given_way_to_when_not() {
    let place = Place::new();
    let db = Database::sqlite(&place, "rows");
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    place.run(&db.rows(100), &["--metrics-listen", &address]).refused(&["--metrics-listen", &address]);
    assert!(!place.path("reports").exists() && !place.path("test.db").exists(), "nothing was begun");
    // Whoever holds the default port, this test or another, it is in use.
    let _held = TcpListener::bind("127.0.0.1:9464");
    let file = place.write("default.yaml", &db.rows(100).to_string());
    let ended = place.batchsql(&["run", "--json", "--report-dir", "reports", &file]);
    assert_eq!(ended.json(0)["outcomes"]["acknowledged"], 100);
    assert!(ended.stderr.contains("port 9464 is in use: metrics are on http://127.0.0.1:"), "{}", ended.stderr);
}

#[test]
fn no_metrics_means_no_listener() {
    let place = Place::new();
    let ended = place.run(&Database::sqlite(&place, "rows").rows(100), &["--no-metrics"]);
    let _: Value = ended.json(0);
    assert!(!ended.stderr.contains("metrics"), "{}", ended.stderr);
}

/// 400 requests of every kind through a gateway to a mock model, of which those of one route are refused.
fn requests() -> Value {
    json!({
        "name": "asked", "seed": 7,
        "target": {"http": {"start": {"upstream": {}, "gateway": {"access_log": false}}}},
        "workload": {"proxy_request": {
            "requests": 400, "replies": "mock", "users": [{"name": "ann"}, {"name": "bob"}], "models": ["small", "large"],
            "channels": ["east", "west"],
            "mix": [
                {"name": "chat", "weight": 4, "chat": {"max_tokens": 5, "headers": {"x-channel": "{{channel}}"}}},
                {"name": "stream", "weight": 2, "chat": {"stream": true, "max_tokens": 9}},
                {"name": "socket", "websocket": {"messages": 3}},
                {"name": "refused", "http": {"path": "/nowhere"}}
            ]
        }},
        "load": {"executor": "shared-iterations", "vus": 4},
        "gates": ["rejected < 400"]
    })
}

/// What must be counted of [`requests`], by series: from the seed alone.
fn expected_of_requests(scenario: &Value) -> BTreeMap<String, f64> {
    let workload: ProxyRequest = serde_json::from_value(scenario["workload"]["proxy_request"].clone()).unwrap();
    let generator = Generator::new(7, "any", &workload);
    let mut expected = BTreeMap::new();
    for operation in (0..400).map(|index| generator.operation(index)) {
        let Operation { route, user, model, channel, words, .. } = operation;
        let (user, model, channel) = (&workload.users[user].name, &workload.models[model], &workload.channels[channel]);
        let (channel, model, protocol, status) = [
            (channel.as_str(), model.as_str(), "http", "success"),
            ("-", model, "sse", "success"),
            ("-", "-", "websocket", "success"),
            ("-", "-", "http", "error"),
        ][route];
        let mut add = |series: String, much: f64| *expected.entry(series).or_insert(0.0) += much;
        let named = format!("channel=\"{channel}\",model=\"{model}\"");
        add(format!("aiproxy_requests_total{{{named},protocol=\"{protocol}\",status=\"{status}\",user_name=\"{user}\"}}"), 1.0);
        add(format!("aiproxy_response_time_seconds_count{{{named},protocol=\"{protocol}\"}}"), 1.0);
        add(format!("aiproxy_request_body_bytes_count{{channel=\"{channel}\"}}"), 1.0);
        if route < 2 {
            let tokens = |kind: &str| format!("aiproxy_tokens_total{{channel=\"{channel}\",kind=\"{kind}\",model=\"{model}\"}}");
            add(tokens("prompt"), f64::from(words));
            add(tokens("completion"), [5.0, 9.0][route]);
        }
        if route == 1 {
            add(format!("aiproxy_time_to_first_token_seconds_count{{{named}}}"), 1.0);
            add(format!("aiproxy_inter_token_latency_seconds_count{{{named}}}"), 8.0);
        }
        if route == 2 {
            add("aiproxy_websocket_connections_total{channel=\"-\"}".to_owned(), 1.0);
        }
        let table = ["chat", "stream", "socket", "refused"][route];
        add(
            format!("batchsql_records_processed_total{{database=\"http\",table=\"{table}\",test_name=\"asked\"}}"),
            f64::from(u8::from(route < 3)),
        );
        if route < 3 {
            let labels = "database=\"http\",operation=\"proxy_request\",test_name=\"asked\"";
            add(format!("batchsql_response_time_seconds_count{{{labels}}}"), 1.0);
        } else {
            add("batchsql_errors_total{database=\"http\",error_type=\"final:status\",test_name=\"asked\"}".to_owned(), 1.0);
        }
    }
    expected
}

#[test]
fn every_request_is_counted_under_its_labels() {
    let place = Place::new();
    let scenario = requests();
    let mut running = place.start(&scenario, &["--metrics-listen", "127.0.0.1:0", "--metrics-linger", "10m"]);
    let address = running.metrics_address();
    running.until("the report", |it| it.printed().ends_with('\n').then_some(()));
    let samples = scrape(address);
    let expected = expected_of_requests(&scenario);
    assert!(expected.len() > 30, "{expected:#?}");
    for (series, value) in &expected {
        assert_eq!(samples.get(series), Some(value), "{series}: {samples:#?}");
    }
    let counted = |samples: &BTreeMap<String, f64>| {
        samples.iter().filter(|(s, _)| s.starts_with("aiproxy_requests_total{")).map(|(_, n)| n).sum::<f64>()
    };
    assert_eq!((counted(&samples), counted(&expected)), (400.0, 400.0));
    assert!(!samples.contains_key("aiproxy_api_keys_total"), "only a gateway has it");
    // Of a gateway, and of a database.
    let others = ["aiproxy_api_keys_total", "aiproxy_sqlite_wal_bytes", "batchsql_target_info"];
    assert_contract(&get(address, "/metrics"), of_a_run().filter(|spec| !others.contains(&spec.name)));
    let said = promtool_complaints(&get(address, "/metrics"));
    assert!(said.is_none_or(|said| said == BTreeSet::from(["batchsql_batch_execution_duration_ms".to_owned()])));
    running.signal(Signal::SIGTERM);
    let report = running.end().json(0);
    assert_eq!(report["http"]["streams"].as_u64().map(|streams| streams > 0), Some(true));
}

/// The names that `promtool check metrics` complains of, or nothing if it is not there.
fn promtool_complaints(text: &str) -> Option<BTreeSet<String>> {
    let promtool = std::env::var("BATCHSQL_TEST_PROMTOOL").unwrap_or_else(|_| "promtool".to_owned());
    let mut command = Command::new(promtool);
    command.args(["check", "metrics"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let Ok(mut child) = command.spawn() else {
        println!("left out: promtool is not installed");
        return None;
    };
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
    Some(said.lines().filter(|line| !line.is_empty()).map(|line| line.split(' ').next().unwrap().to_owned()).collect())
}
