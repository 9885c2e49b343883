//! A configuration file, YAML or TOML, → [`Config`], or everything that is wrong with it at once.

use std::path::Path;

use anyhow::Context as _;
use serde_json::Value;

use super::Config;
use crate::redact::redact;
use crate::scenario::tree::{At, Entry, Kind, MAX_BYTES, Node};
use crate::scenario::{interpolate, schema, tree};

/// Reads and checks the configuration in `file`; `${NAME}` in it comes from `lookup`.
///
/// # Errors
/// All problems of the file, a line each, without secrets.
pub fn load(file: &Path, lookup: &dyn Fn(&str) -> Option<String>) -> anyhow::Result<Config> {
    let name = file.display();
    let text = std::fs::read_to_string(file).with_context(|| format!("{name}: cannot be read; name a YAML or TOML file with --config"))?;
    anyhow::ensure!(text.len() <= MAX_BYTES, "{name}: more than {MAX_BYTES} bytes (1 MiB); a configuration is shorter");
    let is_toml = file.extension().is_some_and(|extension| extension == "toml");
    from_text(&text, is_toml, lookup).map_err(|problems| {
        let lines: Vec<String> = problems.iter().map(|(at, message)| format!("{name}:{}{message}", place(*at, is_toml))).collect();
        anyhow::Error::msg(lines.join("\n"))
    })
}

fn place(at: At, is_toml: bool) -> String {
    match at {
        At::Text { line, column } if !is_toml => format!("{line}:{column}: "),
        _ => " ".to_owned(),
    }
}

fn from_text(text: &str, is_toml: bool, lookup: &dyn Fn(&str) -> Option<String>) -> Result<Config, Vec<(At, String)>> {
    let (tree, refusals) = if is_toml { toml_tree(text) } else { tree::parse(text) };
    let mut problems: Vec<(At, String)> = refusals.into_iter().map(|refusal| (refusal.at, refusal.message)).collect();
    let Some(mut tree) = tree else { return Err(problems) };
    let interpolated = interpolate::interpolate(&mut tree, lookup);
    // What stands in place of a value that could not be had says nothing.
    let without_value: Vec<At> = interpolated.refusals.iter().map(|refusal| refusal.at).collect();
    problems.extend(interpolated.refusals.into_iter().map(|refusal| (refusal.at, refusal.message)));
    let instance = tree.to_json();
    let mut schema = schemars::schema_for!(Config).to_value();
    schema::without_null(&mut schema);
    for finding in schema::findings(&schema, &instance) {
        let at = if finding.is_key { tree.locate_key(&finding.path) } else { tree.locate(&finding.path) };
        if is_toml || !without_value.contains(&at) {
            problems.push((at, format!("{}: {}", finding.path.join("."), finding.message)));
        }
    }
    let config = problems.is_empty().then(|| serde_json::from_value::<Config>(instance));
    let mut secrets = interpolated.secrets;
    match config {
        Some(Ok(config)) => {
            secrets.extend(config.secrets());
            problems.extend(config.problems().into_iter().map(|(path, message)| {
                let steps: Vec<String> = path.split('.').map(str::to_owned).collect();
                (tree.locate(&steps), format!("{path}: {message}"))
            }));
            if problems.is_empty() {
                return Ok(config);
            }
        }
        Some(Err(error)) => problems.push((tree.at, error.to_string())),
        None => {}
    }
    problems.iter_mut().for_each(|(_, message)| *message = redact(message, &secrets));
    problems.sort();
    Err(problems)
}

/// A TOML text as a tree, without places: its texts are texts, its numbers and booleans plain.
fn toml_tree(text: &str) -> (Option<Node>, Vec<tree::Refusal>) {
    let at = At::Text { line: 1, column: 1 };
    match toml::from_str::<Value>(text) {
        Ok(value) => (Some(node(value, at)), Vec::new()),
        Err(error) => {
            let line = error.span().map_or(1, |span| 1 + text[..span.start].matches('\n').count());
            (None, vec![tree::Refusal { at, message: format!("line {line}: not TOML: {}", error.message()) }])
        }
    }
}

fn node(value: Value, at: At) -> Node {
    let kind = match value {
        Value::Object(entries) => Kind::Map(entries.into_iter().map(|(key, value)| Entry { key, at, value: node(value, at) }).collect()),
        Value::Array(items) => Kind::List(items.into_iter().map(|item| node(item, at)).collect()),
        Value::String(text) => Kind::Scalar { text, plain: false },
        other => Kind::Scalar { text: other.to_string(), plain: true },
    };
    Node { at, kind }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env(name: &str) -> Option<String> {
        (name == "KEY").then(|| "sk-s3cret".to_owned())
    }

    fn told(text: &str, is_toml: bool) -> Vec<String> {
        let problems = from_text(text, is_toml, &env).unwrap_err();
        problems.into_iter().map(|(at, message)| format!("{}{message}", place(at, is_toml))).collect()
    }

    #[test]
    fn yaml_and_toml_say_the_same() {
        let yaml = "channels: [{name: a, url: 'http://127.0.0.1:1', weight: 3}]\nusers: [{name: u, key: '${KEY}', quota: 5}]\nlog: {batch: {flush_interval: 2s}}\n";
        let toml = "channels = [{name = \"a\", url = \"http://127.0.0.1:1\", weight = 3}]\n[[users]]\nname = \"u\"\nkey = \"${KEY}\"\nquota = 5\n[log.batch]\nflush_interval = \"2s\"\n";
        let config = from_text(yaml, false, &env).unwrap();
        assert_eq!(from_text(toml, true, &env).unwrap(), config);
        assert_eq!((config.users[0].key.as_str(), config.channels[0].weight), ("sk-s3cret", 3));
    }

    #[test]
    fn every_problem_is_told_at_its_place_and_no_key() {
        let yaml = "channels:\n  - {name: a, url: nowhere, weight: 0}\nusers:\n  - {name: u, key: '${NOPE}', qota: 5}\nlog: {batch: 5}\n";
        assert_eq!(
            told(yaml, false),
            [
                "2:37: channels.0.weight: is 0; at least 1 is needed",
                "4:20: users.0.key: environment variable NOPE is not set; set it, or give a default: ${NOPE:-value}",
                "4:31: users.0.qota: unknown key; did you mean `quota`? (known: name, key, quota, channels)",
                "5:14: log.batch: expected a mapping, found the number 5",
            ]
        );
        let twice =
            "channels: [{name: a, url: nowhere}]\nusers: [{name: u, key: '${KEY}'}, {name: '${KEY}', key: '${KEY}', channels: [b]}]\n";
        assert_eq!(
            told(twice, false),
            [
                "1:27: channels.0.url: is no URL (relative URL without a base); write http://host:port or https://host",
                "2:57: users.1.key: is another user's too; give each its own",
                "2:77: users.1.channels: \"b\" is no channel; known: a",
            ]
        );
        assert_eq!(told("a = \n", true).len(), 1);
    }

    #[test]
    fn the_sample_is_valid() {
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/config/gateway.yaml");
        let config = load(Path::new(file), &|_| None).unwrap();
        assert!(!config.channels.is_empty() && config.users.len() >= 2);
    }
}
