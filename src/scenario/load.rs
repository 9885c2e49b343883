//! A scenario file → [`Scenario`], or everything that is wrong with it at once, each with its place and the mend.

use std::fmt;
use std::io::Read;
use std::path::Path;

use serde_json::Value;

use super::tree::{At, MAX_BYTES, Node, Refusal};
use super::{Scenario, interpolate, overrides, rules, schema, tree};
use crate::redact::{redact, secrets_of_url};

/// A scenario and what it was made from.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// As resolved: interpolated, overridden, checked.
    pub scenario: Scenario,
    /// What must be redacted wherever it shows.
    pub secrets: Vec<String>,
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

/// Reads, resolves and checks the scenario in `file`; `overrides` are `path.to.key=value`.
///
/// # Errors
/// All [`Problems`] of the file.
pub fn load(file: &Path, overrides: &[String], env: &dyn Fn(&str) -> Option<String>) -> Result<Loaded, Problems> {
    let name = file.display().to_string();
    let text = read(file).map_err(|message| Problems {
        file: name.clone(),
        overrides: Vec::new(),
        list: vec![Problem { at: None, path: String::new(), message }],
    })?;
    from_text(&name, &text, overrides, env)
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
pub fn from_text(file: &str, text: &str, overrides: &[String], env: &dyn Fn(&str) -> Option<String>) -> Result<Loaded, Problems> {
    let mut secrets = Vec::new();
    match resolve(text, overrides, env, &mut secrets) {
        Ok(scenario) => Ok(Loaded { scenario, secrets, text: text.to_owned() }),
        Err(mut list) => {
            for problem in &mut list {
                problem.message = redact(&problem.message, &secrets);
            }
            list.sort();
            list.dedup();
            Err(Problems { file: file.to_owned(), overrides: overrides.to_owned(), list })
        }
    }
}

fn resolve(
    text: &str,
    overrides: &[String],
    env: &dyn Fn(&str) -> Option<String>,
    secrets: &mut Vec<String>,
) -> Result<Scenario, Vec<Problem>> {
    let (tree, mut refusals) = tree::parse(text);
    let Some(mut tree) = tree else { return Err(as_problems(refusals)) };
    let interpolated = interpolate::interpolate(&mut tree, env);
    secrets.extend(interpolated.secrets);
    // What stands there in place of a value that could not be had says nothing.
    let without_value: Vec<At> = interpolated.refusals.iter().map(|r| r.at).collect();
    refusals.extend(interpolated.refusals);
    refusals.extend(overrides::apply(&mut tree, overrides));
    let instance = tree.to_json();
    collect_url_secrets(&instance, secrets);
    secrets.sort();
    secrets.dedup();
    let mut found = Vec::new();
    let scenario = check(&tree, &instance, &mut found);
    found.retain(|problem| problem.at.is_none_or(|at| !without_value.contains(&at)));
    found.extend(as_problems(refusals));
    scenario.filter(|_| found.is_empty()).ok_or(found)
}

fn as_problems(refusals: Vec<Refusal>) -> Vec<Problem> {
    refusals.into_iter().map(|r| Problem { at: Some(r.at), path: String::new(), message: r.message }).collect()
}

/// Passwords written in the file or an override are as secret as those of the environment.
fn collect_url_secrets(value: &Value, secrets: &mut Vec<String>) {
    match value {
        Value::String(text) => secrets.extend(secrets_of_url(text)),
        Value::Array(items) => items.iter().for_each(|item| collect_url_secrets(item, secrets)),
        Value::Object(entries) => entries.values().for_each(|item| collect_url_secrets(item, secrets)),
        _ => {}
    }
}

/// Holds the tree against the schema and, as far as a typed scenario can be had, against the rules.
fn check(tree: &Node, instance: &Value, problems: &mut Vec<Problem>) -> Option<Scenario> {
    let findings = schema::validate(instance);
    for finding in &findings {
        let at = if finding.is_key { tree.locate_key(&finding.path) } else { tree.locate(&finding.path) };
        problems.push(Problem { at: Some(at), path: finding.path.join("."), message: finding.message.clone() });
    }
    let (readable, gone) = schema::without_spoilt(instance, &findings);
    let scenario = match serde_json::from_value::<Scenario>(readable) {
        Ok(scenario) => scenario,
        Err(_) if !findings.is_empty() => return None,
        Err(error) => {
            problems.push(Problem { at: Some(tree.at), path: String::new(), message: format!("cannot be read: {error}") });
            return None;
        }
    };
    for (path, message) in rules::check(&scenario) {
        let steps: Vec<String> = path.split('.').filter(|s| !s.is_empty()).map(str::to_owned).collect();
        // What a rule says of a value that was left out is said already.
        let told = gone.iter().any(|gone| steps.starts_with(gone) || gone.split_last().is_some_and(|(_, parent)| parent == steps));
        if !told {
            problems.push(Problem { at: Some(tree.locate(&steps)), path, message });
        }
    }
    Some(scenario)
}
