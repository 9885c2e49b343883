//! The shipped stack: compose file, Prometheus configuration, rules and boards ask only for what the exporter has.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use batchsql::metrics::names::{self, Kind};
use saphyr_parser::{Event, Parser};
use serde_json::Value;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Every file of a folder with that ending, relative to the root.
fn files(folder: &str, ending: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut open = vec![root().join(folder)];
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
            } else if path.extension().is_some_and(|e| e == ending) {
                found.push(path.strip_prefix(root()).unwrap().to_str().unwrap().to_owned());
            }
        }
    }
    found.sort();
    found
}

/// What a name in a query is called in the exporter's table, or nothing.
fn known(name: &str) -> Option<&'static str> {
    names::ALL.iter().find_map(|spec| {
        let parts: &[&str] = if matches!(spec.kind, Kind::Histogram(_)) { &["_bucket", "_sum", "_count"] } else { &[""] };
        parts.iter().any(|part| name.strip_suffix(part) == Some(spec.name)).then_some(spec.name)
    })
}

/// All metric names of ours in a text; what a rule records (`level:metric:operations`) is none.
fn metric_names(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || "_:".contains(c)));
    let words = words.map(|word| word.trim_end_matches(':'));
    words.filter(|word| word.starts_with("batchsql_") || word.starts_with("aiproxy_")).map(str::to_owned).collect()
}

fn board() -> Value {
    serde_json::from_str(&read("grafana/dashboards/batchsql-performance.json")).unwrap()
}

/// Every board that is shipped.
fn boards() -> Vec<Value> {
    files("grafana/dashboards", "json").iter().map(|file| serde_json::from_str(&read(file)).unwrap()).collect()
}

/// Every query of a board's panels and annotations.
fn queries(board: &Value) -> Vec<String> {
    let panels = board["panels"].as_array().unwrap().iter();
    let targets = panels.flat_map(|panel| panel["targets"].as_array().into_iter().flatten());
    let annotations = board["annotations"]["list"].as_array().unwrap().iter().map(|annotation| &annotation["target"]);
    targets.chain(annotations).map(|target| target["expr"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn the_board_has_the_panels_asked_for_by_name() {
    let board = board();
    let panels = board["panels"].as_array().unwrap();
    for (title, kind) in [
        ("实时 RPS", "stat"),
        ("累计处理记录数", "stat"),
        ("数据完整性率", "table"),
        ("RPS 趋势", "timeseries"),
        ("批次执行耗时 P95 / P50", "timeseries"),
        ("请求速率", "timeseries"),
        ("请求成功率", "timeseries"),
    ] {
        let panel =
            panels.iter().find(|panel| panel["title"].as_str().unwrap().starts_with(title)).unwrap_or_else(|| panic!("no panel {title}"));
        assert_eq!(panel["type"], kind, "{title}");
        let english = panel["title"].as_str().unwrap().strip_prefix(title).unwrap();
        assert!(english.starts_with(" / ") && english.is_ascii(), "{title}: {english}");
    }
    let integrity = panels.iter().find(|panel| panel["title"].as_str().unwrap().starts_with("数据完整性率")).unwrap();
    let defaults = &integrity["fieldConfig"]["defaults"];
    assert_eq!(defaults["unit"], "percent");
    let steps: Vec<_> =
        defaults["thresholds"]["steps"].as_array().unwrap().iter().map(|s| (s["color"].as_str().unwrap(), s["value"].as_f64())).collect();
    assert_eq!(steps, [("red", None), ("red", Some(0.0)), ("yellow", Some(95.0)), ("green", Some(99.0))]);
}

#[test]
fn every_panel_has_a_place_and_an_id_of_its_own() {
    boards().iter().for_each(has_places_and_ids);
}

fn has_places_and_ids(board: &Value) {
    let panels = board["panels"].as_array().unwrap();
    let ids: BTreeSet<_> = panels.iter().map(|panel| panel["id"].as_u64().unwrap()).collect();
    assert_eq!(ids.len(), panels.len());
    let area = |panel: &Value| ["x", "y", "w", "h"].map(|side| panel["gridPos"][side].as_u64().unwrap());
    for (position, panel) in panels.iter().enumerate() {
        let [x, y, w, h] = area(panel);
        assert!(x + w <= 24, "{}", panel["title"]);
        for other in &panels[..position] {
            let [x2, y2, w2, h2] = area(other);
            assert!(x + w <= x2 || x2 + w2 <= x || y + h <= y2 || y2 + h2 <= y, "{} covers {}", panel["title"], other["title"]);
        }
    }
}

#[test]
fn boards_and_rules_ask_only_for_metrics_the_exporter_has() {
    let mut asked = BTreeSet::new();
    for board in boards() {
        for query in queries(&board) {
            asked.extend(metric_names(&query));
        }
        asked.extend(metric_names(&board["templating"].to_string()));
    }
    for rules in files("config/prometheus", "yml") {
        asked.extend(metric_names(&read(&rules)));
    }
    let unknown: Vec<_> = asked.iter().filter(|name| known(name).is_none()).collect();
    assert!(unknown.is_empty(), "{unknown:?}");
    let used: BTreeSet<_> = asked.iter().filter_map(|name| known(name)).collect();
    assert!(used.len() >= 20, "only {used:?}");
}

#[test]
fn every_yaml_file_parses() {
    let mut yaml = files("config", "yml");
    yaml.extend(files("grafana", "yml"));
    yaml.push("docker-compose.integration.yml".to_owned());
    assert!(yaml.len() >= 5, "{yaml:?}");
    for path in yaml {
        let text = read(&path);
        let events: Vec<Event<'_>> =
            Parser::new_from_str(&text).map(|event| event.unwrap_or_else(|error| panic!("{path}: {error}")).0).collect();
        assert!(events.iter().any(|event| matches!(event, Event::MappingStart(..))), "{path} is empty");
    }
}

/// The services of the compose file with what is written below each.
fn services(compose: &str) -> Vec<(&str, String)> {
    let mut found: Vec<(&str, String)> = Vec::new();
    for line in compose.split("\nservices:\n").nth(1).unwrap().lines().take_while(|line| line.is_empty() || line.starts_with(' ')) {
        match line.strip_prefix("  ").filter(|line| line.starts_with(|c: char| c.is_ascii_alphabetic())) {
            Some(name) => found.push((name.strip_suffix(':').unwrap(), String::new())),
            None => found.iter_mut().last().into_iter().for_each(|(_, body)| *body += &format!("{line}\n")),
        }
    }
    found
}

#[test]
fn the_compose_file_pins_images_and_opens_loopback_ports_only() {
    let text = read("docker-compose.integration.yml");
    let images: Vec<_> = text.lines().filter_map(|line| line.trim().strip_prefix("image: ")).filter(|image| !image.contains('$')).collect();
    assert!(images.len() >= 15, "{images:?}");
    for image in images {
        let tag = image.rsplit_once(':').unwrap_or_else(|| panic!("{image} has no tag")).1;
        assert!(tag.contains(|c: char| c.is_ascii_digit()), "{image} is not pinned");
    }
    let ports: Vec<_> = text.lines().map(str::trim).filter(|line| line.starts_with("- \"") && line.contains("_PORT")).collect();
    assert!(ports.len() >= 15, "{ports:?}");
    assert!(ports.iter().all(|port| port.starts_with("- \"127.0.0.1:${")), "{ports:?}");
    let sections = text.lines().filter(|line| *line == "    ports:").count();
    assert!(sections <= ports.len() && !text.contains("network_mode: host"), "a port that is not on loopback");
}

#[test]
fn every_service_has_a_health_check_and_limits() {
    let text = read("docker-compose.integration.yml");
    let services = services(&text);
    let names: Vec<_> = services.iter().map(|(name, _)| *name).collect();
    let expected = [
        "postgres",
        "mysql",
        "mariadb",
        "upstream",
        "gateway",
        "serve",
        "harness",
        "prometheus",
        "alertmanager",
        "grafana",
        "victoriametrics",
        "node-exporter",
        "mysqld-exporter",
        "postgres-exporter",
        "consul-server1",
        "consul-server2",
        "consul-server3",
        "consul-exporter",
        "alloy",
        "jaeger",
        "pyroscope",
    ];
    assert_eq!(names, expected);
    for (name, body) in services {
        let template = body.lines().find_map(|line| line.trim().strip_prefix("<<: *")).unwrap_or_else(|| panic!("{name} has no template"));
        let template = text.split(&format!("&{template}\n")).nth(1).unwrap().split("\n\n").next().unwrap();
        for part in ["mem_limit:", "cpus:", "restart:"] {
            assert!(template.contains(part) || body.contains(part), "{name}: {part}");
        }
        assert!(template.contains("healthcheck:") || body.contains("healthcheck:"), "{name} has no health check");
    }
}

#[test]
fn only_a_profile_starts_what_is_not_the_core() {
    let text = read("docker-compose.integration.yml");
    let profiles = |name: &str| {
        let body = services(&text).into_iter().find(|(service, _)| *service == name).unwrap().1;
        let own = body.lines().find_map(|line| line.trim().strip_prefix("profiles: ").map(str::to_owned));
        own.or_else(|| body.contains("<<: *consul\n").then(|| "[discovery]".to_owned()))
    };
    assert_eq!(profiles("harness").as_deref(), Some("[harness]"));
    for name in ["consul-server1", "consul-server2", "consul-server3", "consul-exporter"] {
        assert_eq!(profiles(name).as_deref(), Some("[discovery]"), "{name}");
    }
    for name in ["alloy", "jaeger", "pyroscope"] {
        assert_eq!(profiles(name).as_deref(), Some("[telemetry]"), "{name}");
    }
    for name in ["postgres", "gateway", "serve", "prometheus", "alertmanager", "grafana", "victoriametrics", "postgres-exporter"] {
        assert_eq!(profiles(name), None, "{name}");
    }
}

#[test]
fn the_image_has_the_projects_rust_an_ordinary_user_and_a_health_check() {
    let (image, package) = (read("Dockerfile"), read("Cargo.toml"));
    let rust = package.lines().find_map(|line| line.strip_prefix("rust-version = ")).unwrap().trim_matches('"');
    assert!(image.contains(&format!("FROM rust:{rust}-")), "rust {rust}");
    for part in ["\nUSER batchsql\n", "\nHEALTHCHECK ", "\nENTRYPOINT [\"batchsql\"]\n", "\nVOLUME /work/reports\n"] {
        assert!(image.contains(part), "{part}");
    }
    // What the builder is sent is what the image is made of.
    let sent: BTreeSet<_> = read(".dockerignore").lines().filter_map(|line| line.strip_prefix('!').map(str::to_owned)).collect();
    let copied = image.lines().filter_map(|line| line.strip_prefix("COPY ")).filter(|line| !line.starts_with("--from"));
    let copied: BTreeSet<_> = copied.flat_map(|line| line.split(' ').rev().skip(1)).map(str::to_owned).collect();
    assert_eq!(sent, copied);
}

#[test]
fn files_that_the_stack_mounts_are_there() {
    let text = read("docker-compose.integration.yml");
    let mounts: Vec<_> =
        text.lines().filter_map(|line| line.trim().strip_prefix("- ./")).map(|rest| rest.split(':').next().unwrap()).collect();
    assert!(mounts.len() >= 10, "{mounts:?}");
    for mount in mounts {
        assert!(root().join(mount).exists(), "{mount}");
    }
}

#[test]
fn the_example_environment_names_every_variable_with_its_default() {
    let compose = read("docker-compose.integration.yml").replace("$$", "");
    let example = read(".env.example");
    let mut variables = BTreeSet::new();
    for part in compose.split("${").skip(1) {
        let (name, default) = part.split_once('}').unwrap().0.split_once(":-").expect("a variable without a default needs a .env");
        assert!(example.lines().any(|line| line == format!("{name}={default}")), "{name}={default} is missing");
        variables.insert(name);
    }
    let named = example.lines().filter_map(|line| line.split_once('=')).map(|(name, _)| name).filter(|name| !name.starts_with("COMPOSE_"));
    assert_eq!(named.collect::<BTreeSet<_>>(), variables);
}

#[test]
fn compose_takes_the_file_with_every_profile() {
    let mut command = Command::new("docker");
    command.args([
        "compose",
        "-f",
        "docker-compose.integration.yml",
        "--env-file",
        ".env.example",
        "--profile",
        "*",
        "config",
        "--services",
    ]);
    let said = command.env_remove("COMPOSE_FILE").env_remove("COMPOSE_PROFILES").current_dir(root()).output();
    let Some(said) =
        said.ok().filter(|said| said.status.success() || !String::from_utf8_lossy(&said.stderr).contains("not a docker command"))
    else {
        println!("left out: docker compose is not installed");
        return;
    };
    assert!(said.status.success() && said.stderr.is_empty(), "{}", String::from_utf8_lossy(&said.stderr));
    assert_eq!(String::from_utf8(said.stdout).unwrap().lines().count(), services(&read("docker-compose.integration.yml")).len());
}

/// What promtool says, or nothing if it is not there.
fn promtool(arguments: &[&str]) -> Option<String> {
    let program = std::env::var("BATCHSQL_TEST_PROMTOOL").unwrap_or_else(|_| "promtool".to_owned());
    let Ok(output) = Command::new(program).args(arguments).current_dir(root()).output() else {
        println!("left out: promtool is not installed");
        return None;
    };
    let said = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
    assert!(output.status.success(), "promtool {}: {said}", arguments.join(" "));
    Some(said)
}

#[test]
fn prometheus_takes_the_configuration_and_finds_the_rules() {
    let Some(said) = promtool(&["check", "config", "config/prometheus/prometheus.yml"]) else { return };
    let rules = files("config/prometheus/rules", "yml").len();
    assert!(rules > 0 && said.contains(&format!("{rules} rule files found")), "{said}");
}

#[test]
fn prometheus_can_parse_every_query_of_the_boards() {
    let queries: Vec<_> = boards().iter().flat_map(queries).collect();
    assert!(queries.len() >= 100, "{queries:?}");
    let mut rules = "groups:\n- name: board\n  rules:\n".to_owned();
    for (number, query) in queries.iter().enumerate() {
        let query = query.replace("$__rate_interval", "1m").replace("$__range", "15m");
        let query = ["database", "test_name", "env", "job", "channel", "user_name", "model", "test_a", "test_b"]
            .iter()
            .fold(query, |query, name| query.replace(&format!("${name}"), ".*"));
        rules += &format!("  - record: query_{number}\n    expr: {}\n", serde_json::to_string(&query).unwrap());
    }
    let folder = tempfile::tempdir().unwrap();
    let file: PathBuf = folder.path().join("board.yml");
    fs::write(&file, rules).unwrap();
    let Some(said) = promtool(&["check", "rules", file.to_str().unwrap()]) else { return };
    assert!(said.contains(&format!("{} rules found", queries.len())), "{said}");
}
