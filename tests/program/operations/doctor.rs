//! `batchsql doctor`: each part well, ill and absent.

use std::process::Command;

use serde_json::{Value, json};

use super::parts::{self, serve};
use crate::common::server_url;
use crate::place::{Place, until};

fn part<'a>(diagnosis: &'a Value, name: &str) -> &'a Value {
    let parts = diagnosis["parts"].as_array().unwrap();
    parts.iter().find(|part| part["part"].as_str().unwrap().starts_with(name)).unwrap_or_else(|| panic!("no {name} in {diagnosis:#}"))
}

fn assert_state(diagnosis: &Value, name: &str, state: &str) {
    assert_eq!(part(diagnosis, name)["state"], state, "{:#}", part(diagnosis, name));
}

/// `doctor --json`, whatever its exit code: other services may be ill on the machine of the test.
fn diagnose(place: &Place, arguments: &[&str]) -> (Option<i32>, Value) {
    let mut command = place.command(&["doctor", "--json"]);
    for variable in ["GATEWAY", "PROMETHEUS", "VICTORIAMETRICS", "GRAFANA", "ALERTMANAGER", "SERVE"] {
        command.env_remove(format!("BATCHSQL_{variable}_URL"));
    }
    command.args(arguments);
    let ended = place.spawn(command).end();
    (ended.code(), serde_json::from_str(&ended.stdout).unwrap_or_else(|error| panic!("{error}: {ended:?}")))
}

#[test]
fn the_monitoring_is_well_while_it_runs_and_ill_when_it_was_named_and_is_gone() {
    let place = Place::new();
    let (served, address) = serve(&place, &[], None);
    let rules = "groups: [{name: g, rules: [{alert: Always, expr: vector(1)}]}]";
    place.write("rules.yml", rules);
    let config = format!(
        "{{global: {{scrape_interval: 1s, evaluation_interval: 1s}}, rule_files: [rules.yml], scrape_configs: [\
         {{job_name: serve, static_configs: [{{targets: ['{address}']}}]}}, \
         {{job_name: gone, static_configs: [{{targets: ['127.0.0.1:1']}}]}}, \
         {{job_name: batchsql, static_configs: [{{targets: ['127.0.0.1:2']}}]}}]}}"
    );
    let config = place.write("prometheus.yml", &config);
    let alerting = place.write("alertmanager.yml", "{route: {receiver: nobody}, receivers: [{name: nobody}]}");
    let (Some(prometheus), Some(alertmanager), Some(victoria)) =
        (parts::prometheus(&place, &config), parts::alertmanager(&place, &alerting), parts::victoriametrics(&place))
    else {
        return;
    };
    until("a scrape of each target and the alert", || {
        let targets: Value = serde_json::from_str(&prometheus.get("/api/v1/targets")).unwrap();
        let targets = targets["data"]["activeTargets"].as_array()?;
        let scraped = targets.len() == 3 && targets.iter().all(|target| target["health"] != "unknown");
        (scraped && prometheus.get("/api/v1/rules").contains("\"firing\"")).then_some(())
    });
    let (one, two, three, four) = (prometheus.url(), alertmanager.url(), victoria.url(), format!("http://{address}"));
    let named = ["--prometheus-url", &one, "--alertmanager-url", &two, "--victoriametrics-url", &three, "--serve-url", &four];
    let (code, diagnosis) = diagnose(&place, &named);
    for name in ["prometheus", "alertmanager", "victoriametrics", "serve", "target serve", "clock"] {
        assert_state(&diagnosis, name, "well");
    }
    assert!(part(&diagnosis, "prometheus")["found"].as_str().unwrap().contains("firing: Always"));
    assert!(part(&diagnosis, "clock")["found"].as_str().unwrap().contains("services agree"), "{diagnosis:#}");
    assert_state(&diagnosis, "target gone", "ill");
    assert_state(&diagnosis, "target batchsql", "absent");
    assert_eq!((code, &diagnosis["state"]), (Some(1), &json!("ill")));
    assert_eq!(diagnosis["signals"].as_array().unwrap().len(), 6);
    assert!(diagnosis["signals"].as_array().unwrap().iter().all(|signal| signal["reason"].is_null()), "{diagnosis:#}");
    drop(served);
    for part in [prometheus, alertmanager, victoria] {
        part.stop();
    }
    let (code, diagnosis) = diagnose(&place, &named);
    for name in ["prometheus", "alertmanager", "victoriametrics", "serve"] {
        assert_state(&diagnosis, name, "ill");
        assert!(part(&diagnosis, name)["mend"].as_str().unwrap().contains("docker compose"), "{diagnosis:#}");
    }
    assert_eq!(code, Some(1));
}

#[test]
fn golden_signals_come_from_what_prometheus_has() {
    let place = Place::new();
    // 5 m of a service that fails 8 of 100 requests and of a machine at 95 % CPU, written by promtool as Prometheus would have.
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let mut text = String::new();
    for (name, each) in [
        (r#"aiproxy_requests_total{status="success"}"#, 92.0),
        (r#"aiproxy_requests_total{status="error"}"#, 8.0),
        (r#"aiproxy_response_time_seconds_bucket{le="1"}"#, 0.0),
        (r#"aiproxy_response_time_seconds_bucket{le="3"}"#, 100.0),
        (r#"aiproxy_response_time_seconds_bucket{le="+Inf"}"#, 100.0),
        (r#"node_cpu_seconds_total{instance="a",mode="idle"}"#, 0.5),
    ] {
        for minute in 0..=40_u64 {
            text += &format!("{name} {} {}\n", minute as f64 * each, now - 400 + minute * 10);
        }
    }
    text += "# EOF\n";
    let file = place.write("past.txt", &text);
    let data = place.name("prometheus");
    let Ok(written) = Command::new("promtool").args(["tsdb", "create-blocks-from", "openmetrics", &file, &data]).output() else {
        println!("left out: promtool is not installed");
        return;
    };
    assert!(written.status.success(), "{written:?}");
    let config = place.write("prometheus.yml", "{}");
    let Some(prometheus) = parts::prometheus(&place, &config) else { return };
    let (code, diagnosis) = diagnose(&place, &["--prometheus-url", &prometheus.url()]);
    let signals: Vec<_> = diagnosis["signals"]
        .as_array()
        .unwrap()
        .iter()
        .map(|signal| (signal["name"].as_str().unwrap(), signal["level"].as_str().unwrap(), signal["grade"].as_str().unwrap_or("")))
        .collect();
    let expected = [
        ("success rate", "warning", "acceptable"),
        ("P95", "warning", "acceptable"),
        ("error rate", "critical", ""),
        ("CPU", "critical", ""),
        ("memory", "no_data", ""),
        ("disk", "no_data", ""),
    ];
    assert_eq!(signals, expected, "{diagnosis:#}");
    assert!((diagnosis["signals"][0]["value"].as_f64().unwrap() - 92.0).abs() < 0.01);
    assert_eq!(code, Some(1), "a critical signal is ill");
}

#[test]
fn databases_are_well_or_say_why_not_and_never_a_password() {
    let place = Place::new();
    place
        .run(
            &json!({"name": "d", "target": {"sqlite": {"path": "d.db"}}, "workload": {"batch_insert": {"rows": 10}},
        "load": {"executor": "shared-iterations"}}),
            &[],
        )
        .json(0);
    let before = std::fs::read(place.path("d.db")).unwrap();
    let (_, diagnosis) = diagnose(&place, &["--database-url", "sqlite://d.db"]);
    let sqlite = part(&diagnosis, "sqlite");
    assert_eq!(sqlite["state"], "well");
    for pragma in ["journal_mode = WAL", "synchronous = NORMAL", "cache_size = -64000", "write-ahead log 0 bytes"] {
        assert!(sqlite["found"].as_str().unwrap().contains(pragma), "{pragma}: {sqlite}");
    }
    assert_eq!(std::fs::read(place.path("d.db")).unwrap(), before, "looking changes nothing");
    place.write("no.db", &"this is no database".repeat(100));
    for wrong in ["sqlite://none.db", "sqlite://no.db", "postgres://a:hunter22@127.0.0.1:1/d", "mysql://a:hunter22@127.0.0.1:1/d"] {
        let (code, diagnosis) = diagnose(&place, &["--database-url", wrong]);
        assert_eq!((code, &diagnosis["parts"][0]["state"]), (Some(1), &json!("ill")), "{diagnosis:#}");
        assert!(!diagnosis.to_string().contains("hunter22"), "{diagnosis:#}");
    }
    place.batchsql(&["doctor", "--database-url", "oracle://x:hunter22@y/z"]).refused(&["--database-url", "postgres://"]);
    for (variable, name) in [("BATCHSQL_TEST_POSTGRES", "postgres"), ("BATCHSQL_TEST_MARIADB", "mysql"), ("BATCHSQL_TEST_MYSQL", "mysql")] {
        let Some(url) = server_url(variable) else { continue };
        let (_, diagnosis) = diagnose(&place, &["--database-url", &url]);
        assert_state(&diagnosis, name, "well");
        let wrong = url.replacen("batchsql-test@", "wrong-password@", 1);
        assert_ne!(wrong, url);
        let (code, diagnosis) = diagnose(&place, &["--database-url", &wrong]);
        assert_state(&diagnosis, name, "ill");
        assert_eq!(code, Some(1));
        assert!(!diagnosis.to_string().contains("wrong-password"), "{diagnosis:#}");
    }
}

#[test]
fn where_nothing_runs_everything_is_absent_and_that_is_no_fault() {
    let place = Place::new();
    // A network of its own, in which nobody listens.
    let mut command = Command::new("unshare");
    command.args(["--user", "--map-root-user", "--net", env!("CARGO_BIN_EXE_batchsql"), "doctor"]).current_dir(place.path("."));
    command.env_remove("NO_COLOR");
    let Some(output) = command.output().ok().filter(|output| output.status.code() != Some(1) || !output.stdout.is_empty()) else {
        println!("left out: unshare cannot make a network here");
        return;
    };
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(text.matches("\nabsent  ").count() + usize::from(text.starts_with("absent  ")), 8, "{text}");
    assert!(text.contains("well    disk") && text.contains("well    clock") && text.contains("success rate     no data"), "{text}");
    assert_eq!(output.status.code(), Some(0), "{text}");
    assert!(!text.contains('\x1b'), "no colour where no terminal is: {text}");
}
