//! What the documentation says is there: flags, commands, scenarios, keys, pragmas, gates, links and the sample report.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use batchsql::gate::Metric;
use batchsql::report::{FILES, Report, Verdict};
use batchsql::scenario::http::HttpProfile;
use batchsql::scenario::{Pragma, PragmaProfile, PragmaValue, schema};
use batchsql::target::ErrorClass;
use serde_json::Value;

const READMES: [&str; 2] = ["README.md", "README.zh-CN.md"];
/// The reference of requests, in the same languages.
const REQUESTS: [&str; 2] = ["docs/requests.md", "docs/requests.zh-CN.md"];

fn read(path: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn help(arguments: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_batchsql")).args(arguments).arg("--help").output().unwrap();
    assert!(output.status.success(), "{arguments:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// The words of `text` that begin with `start`, without what cannot be part of a flag or path.
fn words(text: &str, start: &str) -> BTreeSet<String> {
    let inside = |c: char| c.is_ascii_alphanumeric() || "-_./".contains(c);
    text.split(|c: char| !inside(c)).filter(|word| word.starts_with(start)).map(|word| word.trim_end_matches('.').to_owned()).collect()
}

/// The commands of the program, by its own help.
fn commands() -> Vec<String> {
    commands_of(&help(&[]))
}

fn commands_of(help: &str) -> Vec<String> {
    let Some(list) = help.split("Commands:").nth(1) else { return Vec::new() };
    let list = list.split("\n\n").next().unwrap();
    let names =
        list.lines().filter_map(|line| line.strip_prefix("  ")?.split(' ').next()).filter(|name| !name.is_empty() && *name != "help");
    names.map(str::to_owned).collect()
}

#[test]
fn the_readmes_name_every_flag_and_no_other() {
    let of = |command: &String| {
        let own = help(&[command]);
        let inner = commands_of(&own).into_iter().map(|inner| help(&[command, &inner])).collect::<String>();
        words(&(own + &inner), "--")
    };
    let flags: BTreeSet<String> = commands().iter().flat_map(of).filter(|flag| flag != "--help").collect();
    assert!(flags.contains("--before-verify") && flags.len() > 8, "{flags:?}");
    // Of cargo, docker, git, MariaDB, Prometheus and scripts/prove.
    let others = ["--again", "--release", "--path", "--example", "--wait", "--rm", "--use-aliases", "--profile"];
    let others = [others.as_slice(), &["--innodb-flush-log-at-trx-commit", "--web.enable-remote-write-receiver"]].concat();
    for readme in READMES {
        let mut named = words(&read(readme), "--");
        named.retain(|flag| flag.len() > 2 && !flag.ends_with('-') && !others.contains(&flag.as_str()));
        assert_eq!(named, flags, "{readme}");
    }
}

#[test]
fn the_readmes_name_every_command_and_no_other() {
    let commands: BTreeSet<String> = commands().into_iter().collect();
    for readme in READMES {
        let text = read(readme);
        let named = text.split("`batchsql ").skip(1).map(|rest| rest.split([' ', '`']).next().unwrap().to_owned());
        assert_eq!(named.collect::<BTreeSet<_>>(), commands, "{readme}");
    }
}

#[test]
fn the_readmes_name_every_scenario_and_no_other() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let (mut files, mut folders) = (BTreeSet::new(), vec![root.join("scenarios")]);
    while let Some(folder) = folders.pop() {
        for path in std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
            if path.is_dir() {
                folders.push(path);
            } else {
                files.insert(path.strip_prefix(root).unwrap().to_str().unwrap().to_owned());
            }
        }
    }
    assert!(files.contains("scenarios/quickstart.yaml") && files.contains("scenarios/compose/postgres.yaml"), "{files:?}");
    for readme in READMES {
        let mut named = words(&read(readme), "scenarios/");
        named.retain(|name| !name.ends_with('/'));
        assert_eq!(named, files, "{readme}");
    }
}

#[test]
fn links_lead_to_files() {
    for page in READMES.iter().chain(&REQUESTS).chain(&[
        "reports/README.md",
        "docs/methods.md",
        "docs/verification.md",
        "docs/gateway.md",
        "docs/ci.md",
        "CHANGELOG.md",
    ]) {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(page).parent().unwrap().to_owned();
        for link in read(page).split("](").skip(1).map(|rest| rest.split(')').next().unwrap()) {
            let file = link.split('#').next().unwrap();
            assert!(link.contains("://") || folder.join(file).exists(), "{page}: {link}");
        }
    }
}

#[test]
fn the_gateways_page_names_every_variable() {
    let page = read("docs/gateway.md");
    for (name, _) in batchsql::proxy::env::VARIABLES {
        assert!(page.contains(&format!("`{name}`")), "{name}");
    }
}

/// Every property below `schema`, gates (which have a chapter of their own) left out.
fn keys(schema: &Value, found: &mut BTreeSet<String>) {
    match schema {
        Value::Object(map) => {
            for (name, value) in map {
                if let (true, Value::Object(properties)) = (name == "properties", value) {
                    found.extend(properties.keys().cloned());
                }
                keys(value, found);
            }
        }
        Value::Array(items) => items.iter().for_each(|item| keys(item, found)),
        _ => {}
    }
}

#[test]
fn the_readmes_name_every_key_of_a_scenario() {
    let mut all = BTreeSet::new();
    keys(&schema::json_schema(), &mut all);
    assert!(all.contains("flush_interval") && all.contains("lag_limit") && all.len() > 50, "{all:?}");
    for (readme, requests) in READMES.into_iter().zip(REQUESTS) {
        let text = read(readme) + &read(requests);
        // What stands in code spans and blocks; the key may be the end of a path.
        let code: BTreeSet<&str> =
            text.split('`').flat_map(|part| part.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'))).collect();
        let missing: Vec<_> = all.iter().filter(|key| !code.contains(key.as_str())).collect();
        assert!(missing.is_empty(), "{readme}: {missing:?}");
    }
}

#[test]
fn the_readmes_name_every_metric_of_a_gate() {
    for readme in READMES {
        let text = read(readme);
        for metric in Metric::names() {
            let (family, point) = metric.split_once('.').unwrap_or(("", &metric));
            let line = |line: &str| (family.is_empty() || line.contains(&format!("`{family}."))) && line.contains(point);
            assert!(text.lines().any(line), "{readme}: {metric}");
        }
    }
}

#[test]
fn the_table_of_pragmas_has_the_profiles_values() {
    const PRAGMAS: [Pragma; 8] = [
        Pragma::JournalMode,
        Pragma::Synchronous,
        Pragma::CacheSize,
        Pragma::MmapSize,
        Pragma::TempStore,
        Pragma::BusyTimeout,
        Pragma::WalAutocheckpoint,
        Pragma::ForeignKeys,
    ];
    let profiles = [PragmaProfile::Off, PragmaProfile::Conservative, PragmaProfile::Default, PragmaProfile::Aggressive];
    for readme in READMES {
        let text = read(readme);
        for pragma in PRAGMAS {
            let line = text.lines().find(|line| line.starts_with(&format!("| `{}`", pragma.name()))).unwrap();
            let cells: Vec<_> = line.trim_matches('|').split('|').skip(1).map(|cell| cell.trim().replace('−', "-")).collect();
            let values = profiles.map(|profile| match profile.value(pragma) {
                Some(PragmaValue::Number(number)) => number.to_string(),
                Some(PragmaValue::Word(word)) => word,
                None => "–".to_owned(),
            });
            assert_eq!(cells, values, "{readme}: {}", pragma.name());
        }
    }
}

#[test]
fn the_scenario_for_a_gateway_of_ones_own_is_valid() {
    for page in REQUESTS {
        let scenario = read(page).split("```yaml\n").nth(1).unwrap().split("```").next().unwrap().to_owned();
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("my_gateway.yaml"), scenario).unwrap();
        let mut check = Command::new(env!("CARGO_BIN_EXE_batchsql"));
        let output = check.args(["check", "my_gateway.yaml"]).current_dir(folder.path()).env("ALICE_KEY", "sk-alice").output().unwrap();
        let said = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
        assert!(output.status.success() && said.contains("75.0 % chat: POST /v1/chat/completions"), "{page}: {said}");
    }
}

#[test]
fn the_table_of_http_profiles_has_their_values() {
    let profiles = [HttpProfile::Off, HttpProfile::Conservative, HttpProfile::Default, HttpProfile::Aggressive];
    let settings = profiles.map(|profile| serde_json::to_value(profile.settings()).unwrap());
    for page in REQUESTS {
        let text = read(page);
        let table = text.split("| `off` | `conservative`").nth(1).unwrap();
        for key in settings[0].as_object().unwrap().keys() {
            let line = table.lines().find(|line| line.starts_with(&format!("| `{key}`"))).unwrap_or_else(|| panic!("{page}: {key}"));
            let cells: Vec<_> = line.trim_matches('|').split('|').skip(1).map(|cell| cell.trim().to_owned()).collect();
            let values = settings.clone().map(|settings| match &settings[key] {
                Value::Null => "–".to_owned(),
                // 120s are written 2m.
                Value::String(time) => format!("{}s", humantime::parse_duration(time).unwrap().as_secs()),
                number => number.to_string(),
            });
            assert_eq!(cells, values, "{page}: {key}");
        }
    }
}

#[test]
fn every_class_of_failed_requests_and_wrong_replies_is_described() {
    for page in REQUESTS {
        let text = read(page);
        for class in ErrorClass::ALL.into_iter().skip_while(|class| *class != ErrorClass::Check).filter(|class| *class != ErrorClass::Other)
        {
            assert!(text.contains(&format!("`{}`", class.as_str())), "{page}: {}", class.as_str());
        }
        for kind in ["crosstalk", "truncated", "gap", "reordered", "repeated", "altered"] {
            assert!(text.contains(&format!("`{kind}`")), "{page}: {kind}");
        }
    }
}

fn sample() -> (Value, Report) {
    let text = read("reports/sample/report.json");
    (serde_json::from_str(&text).unwrap(), serde_json::from_str(&text).unwrap())
}

#[test]
fn the_sample_report_is_one_this_version_reads_and_writes() {
    let (written, report) = sample();
    assert_eq!(serde_json::to_value(&report).unwrap(), written);
    assert_eq!((report.verdict, report.throughput.valid, report.outcomes.acknowledged), (Verdict::Pass, true, 200_000));
    assert_eq!(report.reproduce, "batchsql run scenarios/quickstart.yaml --seed 42");
    assert_eq!(read("reports/sample/timeline.csv").lines().count(), report.timeline.len() + 1);
    for name in FILES {
        let text = read(&format!("reports/sample/{name}"));
        assert!(name == "timeline.csv" || text.contains("quickstart"), "{name}");
        for path in ["/home/", "/root/", "/tmp/", "/Users/"] {
            assert!(!text.contains(path), "{name} names a path of the machine it was made on");
        }
    }
    for readme in READMES {
        assert!(read(readme).contains(&report.run_id), "{readme} shows another run than the sample's");
    }
}

#[test]
fn every_field_of_a_report_is_described() {
    let text = read("reports/README.md");
    let (written, _) = sample();
    for part in [
        &written,
        &written["integrity"],
        &written["environment"],
        &written["outcomes"],
        &written["timeline"][0],
        &written["latency"]["lag"],
    ] {
        for field in part.as_object().unwrap().keys() {
            assert!(text.contains(&format!("`{field}`")), "{field}");
        }
    }
}

#[test]
fn the_readmes_show_what_the_proof_found() {
    let proof = read("reports/proof/proof.md");
    let lines: Vec<&str> =
        proof.lines().skip_while(|line| !line.starts_with("| part | commit")).take_while(|line| !line.is_empty()).collect();
    let date = proof.lines().next().unwrap().trim_start_matches("# Proof of ");
    for readme in READMES {
        let text = read(readme);
        let shown = text.contains(&lines.join("\n")) && text.contains(date);
        assert!(shown, "{readme} does not show the table of parts of reports/proof/proof.md and its date");
    }
    let found: Value = serde_json::from_str(&read("reports/proof/proof.json")).unwrap();
    let rows = found["rows"].as_array().unwrap();
    assert_eq!(rows.iter().map(|row| row["missed"].as_u64().unwrap() + row["false"].as_u64().unwrap()).sum::<u64>(), 0);
    let plants = rows.iter().filter(|row| row["part"] == "plants").map(|row| row["planted"].as_u64().unwrap()).sum::<u64>();
    assert!(plants >= 10_000, "{plants} plants");
}
