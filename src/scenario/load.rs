//! A scenario file → [`Scenario`], or everything that is wrong with it at once, each with its place and the mend.

use std::fmt;
use std::io::Read;
use std::path::Path;

use serde_json::Value;

use super::database_url::{replace_database, replace_service};
use super::tree::{At, MAX_BYTES, Node, Refusal};
use super::{Scenario, container, interpolate, overrides, rules, schema, tree};
use crate::redact::{redact, secrets_of_url};

/// A scenario and what it was made from.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// As resolved: interpolated, overridden, checked.
    pub scenario: Scenario,
    /// What must be redacted wherever it shows.
    pub secrets: Vec<String>,
    /// What of the file has no meaning under the changes.
    pub notes: Vec<String>,
    /// The file's text as it stands, references not replaced: with the same overrides it gives the same scenario again.
    pub text: String,
}

/// Everything that is wrong with a scenario, sorted by place.
#[derive(Debug)]
pub struct Problems {
    file: String,
    overrides: Vec<String>,
    list: Vec<Problem>,
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Problem {
    /// `None` for the file as a whole.
    at: Option<At>,
    path: String,
    message: String,
}

impl std::error::Error for Problems {}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, Problem { at, path, message }) in self.list.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            let mut path = path.as_str();
            match at {
                None => write!(f, "{}: ", self.file)?,
                Some(At::Text { line, column }) => write!(f, "{}:{line}:{column}: ", self.file)?,
                Some(At::Override(n)) => {
                    let set = self.overrides.get(*n).map_or("", |text| overrides::path_of(text));
                    write!(f, "--set {set}: ")?;
                    path = if path == set { "" } else { path };
                }
            }
            write!(f, "{path}{}{message}", if path.is_empty() { "" } else { ": " })?;
        }
        Ok(())
    }
}

/// What the command line changes in a scenario.
#[derive(Clone, Copy, Debug, Default)]
pub struct Changes<'a> {
    /// `path.to.key=value`.
    pub set: &'a [String],
    /// `--database-url`.
    pub database_url: Option<&'a str>,
    /// `--target-url`.
    pub target_url: Option<&'a str>,
}

/// Reads, resolves and checks the scenario in `file` under `changes`.
///
/// # Errors
/// All [`Problems`] of the file.
pub fn load(file: &Path, changes: Changes<'_>, env: &dyn Fn(&str) -> Option<String>) -> Result<Loaded, Problems> {
    let name = file.display().to_string();
    let text = read(file).map_err(|message| Problems {
        file: name.clone(),
        overrides: Vec::new(),
        list: vec![Problem { at: None, path: String::new(), message }],
    })?;
    from_text(&name, &text, changes, env)
}

fn read(file: &Path) -> Result<String, String> {
    let cannot = |error: std::io::Error| format!("cannot be read ({error}); give the path of a scenario file");
    // One byte more than allowed is enough to know that it is too long.
    let mut bytes = Vec::new();
    std::fs::File::open(file).map_err(cannot)?.take(MAX_BYTES as u64 + 1).read_to_end(&mut bytes).map_err(cannot)?;
    if bytes.len() > MAX_BYTES {
        return Err(format!("more than {MAX_BYTES} bytes (1 MiB); a scenario is shorter"));
    }
    String::from_utf8(bytes).map_err(|error| format!("not UTF-8 (byte {}); save it as UTF-8", error.utf8_error().valid_up_to() + 1))
}

/// [`load`] for a text that is already there; `file` is the name that problems show.
///
/// # Errors
/// All [`Problems`] of the text.
pub fn from_text(file: &str, text: &str, changes: Changes<'_>, env: &dyn Fn(&str) -> Option<String>) -> Result<Loaded, Problems> {
    let mut secrets: Vec<String> = changes.database_url.map(secrets_of_url).unwrap_or_default();
    match resolve(text, changes, env, &mut secrets) {
        Ok((scenario, notes)) => Ok(Loaded { scenario, secrets, notes, text: text.to_owned() }),
        Err(mut list) => {
            for problem in &mut list {
                problem.message = redact(&problem.message, &secrets);
            }
            list.sort();
            list.dedup();
            Err(Problems { file: file.to_owned(), overrides: changes.set.to_owned(), list })
        }
    }
}

fn resolve(
    text: &str,
    changes: Changes<'_>,
    env: &dyn Fn(&str) -> Option<String>,
    secrets: &mut Vec<String>,
) -> Result<(Scenario, Vec<String>), Vec<Problem>> {
    let (tree, mut refusals) = tree::parse(text);
    let Some(mut tree) = tree else { return Err(as_problems(refusals)) };
    let interpolated = interpolate::interpolate(&mut tree, env);
    secrets.extend(interpolated.secrets);
    // What stands there in place of a value that could not be had says nothing.
    let without_value: Vec<At> = interpolated.refusals.iter().map(|r| r.at).collect();
    refusals.extend(interpolated.refusals);
    refusals.extend(overrides::apply(&mut tree, changes.set));
    let instance = tree.to_json();
    collect_secrets(&instance, secrets);
    secrets.extend(container::secrets(&instance["target"]["container"]["env"]));
    secrets.sort();
    secrets.dedup();
    let mut found = Vec::new();
    let scenario = check(&tree, &instance, changes, &mut found);
    found.retain(|problem| problem.at.is_none_or(|at| !without_value.contains(&at)));
    found.extend(as_problems(refusals));
    scenario.filter(|_| found.is_empty()).ok_or(found)
}

fn as_problems(refusals: Vec<Refusal>) -> Vec<Problem> {
    refusals.into_iter().map(|r| Problem { at: Some(r.at), path: String::new(), message: r.message }).collect()
}

/// Passwords and keys written in the file or an override are as secret as those of the environment.
fn collect_secrets(value: &Value, secrets: &mut Vec<String>) {
    match value {
        Value::String(text) => secrets.extend(secrets_of_url(text)),
        Value::Array(items) => items.iter().for_each(|item| collect_secrets(item, secrets)),
        Value::Object(entries) => {
            for (name, item) in entries {
                // A key that is the user's name is none: the name is shown.
                let key = item.as_str().filter(|_| holds_key(name) && entries.get("name") != Some(item));
                secrets.extend(key.and_then(secret_of_key));
                collect_secrets(item, secrets);
            }
        }
        _ => {}
    }
}

/// Whether `name` is that of a setting or of a header whose value is a key.
fn holds_key(name: &str) -> bool {
    let known = ["key", "api_key", "api-key", "x-api-key", "authorization", "proxy-authorization", "cookie"];
    known.iter().any(|known| name.eq_ignore_ascii_case(known))
}

/// What must not be shown of `value`; of `Bearer …` what follows. A template has no secret but those it is filled with.
fn secret_of_key(value: &str) -> Option<String> {
    let key = ["Bearer ", "Basic "].iter().find_map(|scheme| value.strip_prefix(scheme)).unwrap_or(value).trim();
    (!key.is_empty() && !key.contains("{{")).then(|| key.to_owned())
}

/// Holds the tree against the schema and, as far as a typed scenario can be had, against the rules.
fn check(tree: &Node, instance: &Value, changes: Changes<'_>, problems: &mut Vec<Problem>) -> Option<(Scenario, Vec<String>)> {
    let findings = schema::validate(instance);
    for finding in &findings {
        let at = if finding.is_key { tree.locate_key(&finding.path) } else { tree.locate(&finding.path) };
        problems.push(Problem { at: Some(at), path: finding.path.join("."), message: finding.message.clone() });
    }
    let (readable, gone) = schema::without_spoilt(instance, &findings);
    let mut scenario = match serde_json::from_value::<Scenario>(readable) {
        Ok(scenario) => scenario,
        Err(_) if !findings.is_empty() => return None,
        Err(error) => {
            problems.push(Problem { at: Some(tree.at), path: String::new(), message: format!("cannot be read: {error}") });
            return None;
        }
    };
    let (flag, replaced) = match (changes.database_url, changes.target_url) {
        (Some(url), _) => ("--database-url", replace_database(&mut scenario, url)),
        (None, Some(url)) => ("--target-url", replace_service(&mut scenario, url)),
        (None, None) => ("", Ok(Vec::new())),
    };
    let notes = replaced.unwrap_or_else(|message| {
        problems.push(Problem { at: None, path: String::new(), message });
        Vec::new()
    });
    for (path, message) in rules::check(&scenario) {
        if !flag.is_empty() && path.starts_with("target") {
            problems.push(Problem { at: None, path: String::new(), message: format!("{flag}: {path}: {message}") });
            continue;
        }
        let steps: Vec<String> = path.split('.').filter(|s| !s.is_empty()).map(str::to_owned).collect();
        // What a rule says of a value that was left out is said already.
        let told = gone.iter().any(|gone| steps.starts_with(gone) || gone.split_last().is_some_and(|(_, parent)| parent == steps));
        if !told {
            problems.push(Problem { at: Some(tree.locate(&steps)), path, message });
        }
    }
    Some((scenario, notes))
}

#[cfg(test)]
mod tests {
    use super::*;

    const FINE: &str = "name: t\ntarget: {sqlite: {}}\nworkload: {batch_insert: {rows: 10}}\nload: {executor: shared-iterations}\n";

    fn env(name: &str) -> Option<String> {
        match name {
            "PW" => Some("hunter22".into()),
            "ROWS" => Some("77".into()),
            _ => None,
        }
    }

    fn loaded(text: &str, overrides: &[&str]) -> Result<Loaded, String> {
        let overrides: Vec<String> = overrides.iter().map(|&o| o.to_owned()).collect();
        from_text("x.yaml", text, Changes { set: &overrides, ..Changes::default() }, &env).map_err(|problems| problems.to_string())
    }

    fn problems(text: &str, overrides: &[&str]) -> Vec<String> {
        loaded(text, overrides).unwrap_err().lines().map(str::to_owned).collect()
    }

    #[test]
    fn what_the_command_line_puts_in_the_place_of_the_target_is_judged_with_it() {
        let text = FINE.replace("sqlite: {}", "postgres: {url: 'postgres://u@127.0.0.1/d'}");
        let set = ["workload.batch_insert.method=prepared".to_owned()];
        let changed = |url| {
            let changes = Changes { set: &set, database_url: url, target_url: None };
            from_text("x.yaml", &text, changes, &env).map_err(|problems| problems.to_string())
        };
        assert_eq!(
            changed(Some("sqlite://x.db")).unwrap().scenario.workload.batch_insert().unwrap().method,
            crate::target::Method::Prepared
        );
        assert!(changed(None).unwrap_err().contains("`prepared` is not for Postgres"), "{:?}", changed(None));
        let told = changed(Some("mysql://u@db.example/d")).unwrap_err();
        assert!(told.contains("x.yaml: --database-url: target.mysql.url: host `db.example` is beyond loopback"), "{told}");
        let changes = Changes { target_url: Some("http://127.0.0.1:1"), ..Changes::default() };
        let told = from_text("x.yaml", FINE, changes, &env).unwrap_err().to_string();
        assert_eq!(told, "x.yaml: --target-url: this scenario inserts rows; give --database-url");
    }

    #[test]
    fn every_file_of_the_scenario_set_is_valid_under_the_schema_and_loads() {
        let schema = schema::json_schema();
        let mut names = Vec::new();
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios");
        let read = |folder: std::path::PathBuf| std::fs::read_dir(folder).unwrap().map(|file| file.unwrap().path());
        for path in
            ["", "compare", "compose", "containers"].into_iter().flat_map(|part| read(folder.join(part))).filter(|path| path.is_file())
        {
            let text = std::fs::read_to_string(&path).unwrap();
            let mut tree = tree::parse(&text).0.unwrap();
            assert_eq!(interpolate::interpolate(&mut tree, &|_| None).refusals, []);
            let instance = tree.to_json();
            assert!(jsonschema::is_valid(&schema, &instance), "{path:?}");
            let loaded = load(&path, Changes::default(), &|_| None).map_err(|p| p.to_string()).unwrap();
            // Of compose they say so, beside a scenario of the same database elsewhere.
            let name = loaded.scenario.name.strip_prefix("compose_").unwrap_or(&loaded.scenario.name);
            assert_eq!(name, path.file_stem().unwrap().to_str().unwrap());
            let of_compose = path.parent().is_some_and(|folder| folder.ends_with("compose"));
            let program = if of_compose { "--rm --use-aliases harness run" } else { "batchsql run" };
            assert!(
                text.starts_with("# For ")
                    && [format!("{program} {}", path.strip_prefix(env!("CARGO_MANIFEST_DIR")).unwrap().display())]
                        .into_iter()
                        .chain([format!("batchsql compare scenarios/compare/{name}.yaml"), format!(".yaml scenarios/compare/{name}.yaml")])
                        .any(|command| text.contains(&command)),
                "{path:?}"
            );
            // What reports keep is a valid scenario again.
            let resolved = serde_json::to_value(&loaded.scenario).unwrap();
            assert_eq!(schema::validate(&resolved), [], "{path:?}");
            names.push(loaded.scenario.name);
        }
        assert!(names.len() >= 12, "{names:?}");
    }

    #[test]
    fn what_was_loaded_is_typed_and_knows_its_secrets() {
        let text = "name: t\ntarget: {postgres: {url: \"postgres://bob:${PW}@localhost/x\"}}\nworkload: {batch_insert: {rows: '${NO:-x}'}}\nload: {executor: shared-iterations}\n";
        let loaded = loaded(text, &["workload.batch_insert.rows=1e3", "workload.batch_insert.duplicate_keys=5%"]).unwrap();
        assert_eq!(loaded.scenario.workload.operations(), Some(1000));
        assert_eq!(loaded.scenario.workload.batch_insert().unwrap().duplicate_keys.0, 0.05);
        assert_eq!(loaded.scenario.target.postgres.as_ref().unwrap().url, "postgres://bob:hunter22@localhost/x");
        assert_eq!(loaded.secrets, ["hunter22"]);
        assert_eq!(loaded.text, text);
        let kept = crate::redact::redacted_scenario(&loaded.scenario, &loaded.secrets);
        assert_eq!(kept["target"]["postgres"]["url"], "postgres://bob:***@localhost/x");
        assert!(!kept.to_string().contains("hunter22"));
    }

    #[test]
    fn keys_in_the_file_are_secrets_and_templates_and_names_are_none() {
        let text = "\
name: t
target: {http: {url: \"http://127.0.0.1:1\"}}
workload:
  proxy_request:
    requests: 1
    users: [{name: alice, key: in-the-file}, {name: dora, key: dora}, {name: bob}]
    mix: [{http: {path: /, headers: {Authorization: Bearer in-a-header, x-api-key: \"{{key}}\", x-other: shown}}}]
load: {executor: shared-iterations}
";
        assert_eq!(loaded(text, &[]).unwrap().secrets, ["in-a-header", "in-the-file"]);
        assert_eq!(loaded(text, &["workload.proxy_request.users.0.key=other"]).unwrap().secrets, ["in-a-header", "other"]);
    }

    #[test]
    fn all_problems_are_told_at_once_in_the_order_of_the_text() {
        let text = "\
name: t
target:
  sqlite: { profile: agressive, pragmas: { page_size: 1000, cachesize: 5 } }
  postgres:
workload:
  batch_insert:
    rows: 200_000
    rowz: 5
    method: copy
    columns:
      - { name: id, type: int65, key: yes }
    pipeline:
      flush_interval: 5 parsecs
      flush_size: 0
      retry: { attempts: 500, base: -1s, factor: 0.5 }
load:
  executor: constant-vus
  rate: 0
  stages: [{ duration: 10s }]
  think_time: 5
gates:
  - integrity.lots == 0
  - { gate: response.p99 < 50ms, windw: 10s }
  - response.p99 < 50
  - 5
color: red
";
        insta::assert_snapshot!(problems(text, &["load.vuz=5", "name=a/b"]).join("\n"));
    }

    #[test]
    fn rules_are_told_beside_what_the_schema_says() {
        let text =
            "name: t\ntarget: {sqlite: {}}\nworkload: {batch_insert: {colour: 1, method: copy}}\nload: {executor: constant-vus, vus: 0}\n";
        assert_eq!(
            problems(text, &[]),
            [
                "x.yaml:3:27: workload.batch_insert.colour: unknown key (known: table, rows, columns, unique_key, content, duplicate_keys, conflict, method, pipeline)",
                "x.yaml:3:46: workload.batch_insert.method: `copy` is not for SQLite; write method: auto",
                "x.yaml:4:7: load.duration: is missing; constant-vus needs duration",
                "x.yaml:4:37: load.vus: is 0; at least 1 is needed",
            ]
        );
    }

    #[test]
    fn numbers_that_offer_nothing_are_refused() {
        let with = |set: &[&str]| problems(FINE, set);
        assert_eq!(with(&["workload.batch_insert.rows=0"]), ["--set workload.batch_insert.rows: is 0; at least 1 is needed"]);
        let arrival = ["load.executor=constant-arrival-rate", "load.duration=1s"];
        assert_eq!(with(&[arrival[0], arrival[1], "load.rate=0"]), ["--set load.rate: is 0; more than 0 is needed"]);
        assert_eq!(
            with(&[arrival[0], "load.rate=5", "load.duration=-1s"]),
            ["--set load.duration: \"-1s\" does not fit; expected a duration with its unit: 100ms, 5s, 1m 30s"]
        );
        assert_eq!(
            with(&[arrival[0], "load.rate=5", "load.duration=10"]),
            ["--set load.duration: expected a duration with its unit: 100ms, 5s, 1m 30s, found the number 10; write 10s or 10ms"]
        );
        assert_eq!(with(&[arrival[0], "load.rate=5", "load.duration=0s"]), ["--set load.duration: is 0s; write 1ms to 30days"]);
        assert_eq!(
            with(&["load.vuz=3"]),
            [
                "--set load.vuz: unknown key; did you mean `vus`? (known: executor, vus, duration, rate, stages, arrivals, warmup, think_time, max_in_flight, saturation, lag_limit)"
            ]
        );
        assert_eq!(with(&["load.vus=null", "wrkload.x=1"]).len(), 1);
    }

    #[test]
    fn unknown_variables_and_duplicate_keys_do_not_hide_the_rest() {
        let text = "name: ${NOPE}\ntarget: {sqlite: {}}\nworkload: {batch_insert: {rows: \"${ROWS}\", rows: 5}}\nload: {executor: ${EXEC}, vus: x}\n";
        let text = text.replace("executor: ${EXEC}", "executor: '${EXEC}'");
        assert_eq!(
            problems(&text, &[]),
            [
                "x.yaml:1:7: name: environment variable NOPE is not set; set it, or give a default: ${NOPE:-value}",
                "x.yaml:3:33: workload.batch_insert.rows: expected a whole number, found \"77\"; write 77",
                "x.yaml:3:44: key `rows` stands here a second time (first on line 3); keep one",
                "x.yaml:4:18: load.executor: environment variable EXEC is not set; set it, or give a default: ${EXEC:-value}",
                "x.yaml:4:34: load.vus: expected a whole number, found \"x\"",
            ]
        );
    }

    #[test]
    fn secrets_are_in_no_message() {
        let text = FINE.replace("executor: shared-iterations", "executor: '${PW}'");
        let told = problems(&text, &["target.postgres.url=postgres://u:s3cret@127.0.0.1", "target.sqlite=null"]).join("\n");
        assert!(told.contains("***") && !told.contains("hunter22") && !told.contains("s3cret"), "{told}");
    }

    #[test]
    fn a_file_that_cannot_be_read_says_so() {
        let directory = tempfile::tempdir().unwrap();
        let told = |path: &Path| load(path, Changes::default(), &env).unwrap_err().to_string();
        let missing = directory.path().join("no.yaml");
        assert!(told(&missing).starts_with(&format!("{}: cannot be read (", missing.display())));
        assert!(told(directory.path()).contains("cannot be read ("));
        let file = directory.path().join("long.yaml");
        std::fs::write(&file, "#".repeat(MAX_BYTES + 1)).unwrap();
        assert!(told(&file).ends_with("more than 1048576 bytes (1 MiB); a scenario is shorter"));
        std::fs::write(&file, b"name: \xff\n").unwrap();
        assert!(told(&file).ends_with("not UTF-8 (byte 7); save it as UTF-8"));
        std::fs::write(&file, "").unwrap();
        assert!(told(&file).ends_with(":1:1: empty; a scenario needs at least name, workload and load"));
        std::fs::write(&file, "just text").unwrap();
        assert!(told(&file).ends_with(":1:1: expected a mapping, found \"just text\""), "{}", told(&file));
    }

    #[test]
    fn numbers_beyond_their_type_have_a_place_too() {
        assert_eq!(problems(FINE, &["seed=1e20"]), ["--set seed: is 1e+20; at most 18446744073709551615 is possible"]);
        assert_eq!(
            problems(FINE, &["target.sqlite.pragmas.cache_size=1e19"]),
            ["--set target.sqlite.pragmas.cache_size: is 1e+19; at most 9223372036854775807 is possible"]
        );
        assert_eq!(loaded(FINE, &["seed=18446744073709551615"]).unwrap().scenario.seed, u64::MAX);
    }

    proptest::proptest! {
        #[test]
        fn no_text_brings_it_down(at in 0..FINE.len(), length in 0usize..20, patch in "[ -~\\n]{0,12}|&a|\\*a|[0-9e.+-]{1,24}|[\\[\\]{}]{0,90}") {
            let end = (at + length).min(FINE.len());
            let text = format!("{}{patch}{}", &FINE[..at], &FINE[end..]);
            if let Err(told) = loaded(&text, &[]) {
                proptest::prop_assert!(told.starts_with("x.yaml:") && !told.contains("cannot be read"), "{told}\n{text}");
            }
        }
    }
}
