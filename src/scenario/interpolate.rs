//! `${NAME}` and `${NAME:-default}` inside scalars, from the environment. `$$` is a dollar sign.

use super::tree::{Entry, Kind, Node, Refusal};
use crate::redact::secrets_of_url;

/// Places whose values are meant to be shown, so that what was interpolated there is no secret.
const PUBLIC: [&str; 5] = ["name", "metrics", "target.sqlite.path", "target.allow_hosts", "workload.batch_insert.table"];

/// What came from the environment.
#[derive(Debug, Default)]
pub struct Interpolated {
    /// Values to keep out of reports.
    pub secrets: Vec<String>,
    /// Unknown variables and broken references.
    pub refusals: Vec<Refusal>,
}

/// Replaces every reference below `node`. Values of an unset or empty variable are the default's, as in a shell.
pub fn interpolate(node: &mut Node, env: &dyn Fn(&str) -> Option<String>) -> Interpolated {
    let mut found = Interpolated::default();
    visit(node, &mut Vec::new(), env, &mut found);
    found
}

fn visit(node: &mut Node, path: &mut Vec<String>, env: &dyn Fn(&str) -> Option<String>, found: &mut Interpolated) {
    let at = node.at;
    match &mut node.kind {
        Kind::Scalar { text, .. } if text.contains('$') => match resolve(text, env) {
            Ok((resolved, taken)) => {
                *text = resolved;
                found.secrets.extend(secrets(node, path, taken));
            }
            Err(messages) => {
                found.refusals.extend(messages.into_iter().map(|message| Refusal { at, message: format!("{}: {message}", path.join(".")) }))
            }
        },
        Kind::Scalar { .. } => {}
        Kind::List(items) => {
            for (index, item) in items.iter_mut().enumerate() {
                step(item, index.to_string(), path, env, found);
            }
        }
        Kind::Map(entries) => {
            for Entry { key, value, .. } in entries {
                step(value, key.clone(), path, env, found);
            }
        }
    }
}

fn step(node: &mut Node, name: String, path: &mut Vec<String>, env: &dyn Fn(&str) -> Option<String>, found: &mut Interpolated) {
    path.push(name);
    visit(node, path, env, found);
    path.pop();
}

/// Of a URL its password, of other texts all that came from the environment; numbers and booleans are none.
fn secrets(node: &Node, path: &[String], taken: Vec<String>) -> Vec<String> {
    let path = path.join(".");
    let public = PUBLIC.iter().any(|p| path.strip_prefix(p).is_some_and(|rest| rest.is_empty() || rest.starts_with('.')));
    match node.to_json() {
        serde_json::Value::String(text) if text.contains("://") => secrets_of_url(&text),
        serde_json::Value::String(_) if !public => taken.into_iter().filter(|value| !value.is_empty()).collect(),
        _ => Vec::new(),
    }
}

/// The text with its references replaced, and the values that were put in.
fn resolve(text: &str, env: &dyn Fn(&str) -> Option<String>) -> Result<(String, Vec<String>), Vec<String>> {
    let (mut out, mut taken, mut problems) = (String::new(), Vec::new(), Vec::new());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('$') {
            out.push('$');
            rest = after;
            continue;
        }
        let Some(reference) = rest.strip_prefix('{') else {
            // A lone dollar sign means itself.
            out.push('$');
            continue;
        };
        let Some(end) = reference.find('}') else {
            problems.push("`${` without `}`; close it, or write `$$` for a dollar sign".to_owned());
            break;
        };
        let (name, default) = reference[..end].split_once(":-").map_or((&reference[..end], None), |(name, default)| (name, Some(default)));
        rest = &reference[end + 1..];
        match (is_name(name), env(name).filter(|v| !v.is_empty() || default.is_none()), default) {
            (false, ..) => {
                problems.push(format!("`${{{name}}}` is no variable; write ${{NAME}} or ${{NAME:-default}}, and `$$` for a dollar sign"))
            }
            (_, Some(value), _) => {
                out.push_str(&value);
                taken.push(value);
            }
            (_, None, Some(default)) => out.push_str(default),
            (_, None, None) => {
                problems.push(format!("environment variable {name} is not set; set it, or give a default: ${{{name}:-value}}"))
            }
        }
    }
    out.push_str(rest);
    if problems.is_empty() { Ok((out, taken)) } else { Err(problems) }
}

fn is_name(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_') && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::tree::{At, parse};
    use super::*;

    fn env(name: &str) -> Option<String> {
        match name {
            "ROWS" => Some("2000".into()),
            "PW" => Some("hunter22".into()),
            "EMPTY" => Some(String::new()),
            "URL" => Some("postgres://bob:s3cret@db/x".into()),
            _ => None,
        }
    }

    fn resolved(text: &str) -> (serde_json::Value, Vec<String>) {
        let mut tree = parse(text).0.unwrap();
        let found = interpolate(&mut tree, &env);
        assert_eq!(found.refusals, []);
        (tree.to_json(), found.secrets)
    }

    #[test]
    fn plain_scalars_get_their_type_after_interpolation() {
        let (value, secrets) =
            resolved("a: ${ROWS}\nb: \"${ROWS}\"\nc: ${NO:-5}\nd: ${NO:-x}-${ROWS}\ne: $$5 $ ${EMPTY:-7}\nf: x${EMPTY}y\n");
        assert_eq!(value, json!({"a": 2000, "b": "2000", "c": 5, "d": "x-2000", "e": "$5 $ 7", "f": "xy"}));
        assert_eq!(secrets, ["2000", "2000"]);
    }

    #[test]
    fn of_a_url_the_password_is_the_secret() {
        let text = "name: ${ROWS}x\ndescription: ${PW}\ntarget:\n  postgres: {url: \"${URL}\"}\n  mysql:\n    url: mysql://bob:${PW}@${NO:-db}/x\n  sqlite: {path: \"${PW}/x\"}\n";
        assert_eq!(resolved(text).1, ["hunter22", "s3cret", "hunter22"]);
    }

    fn refusal(line: usize, message: &str) -> Refusal {
        Refusal { at: At::Text { line, column: 5 }, message: message.to_owned() }
    }

    #[test]
    fn unknown_variables_are_named_all_at_once_with_their_place() {
        let mut tree = parse("a: 1\nb:\n  - ${NOPE} ${NADA}\n  - ${\n  - ${a b}\n").0.unwrap();
        let found = interpolate(&mut tree, &env).refusals;
        assert_eq!(
            found,
            [
                refusal(3, "b.0: environment variable NOPE is not set; set it, or give a default: ${NOPE:-value}"),
                refusal(3, "b.0: environment variable NADA is not set; set it, or give a default: ${NADA:-value}"),
                refusal(4, "b.1: `${` without `}`; close it, or write `$$` for a dollar sign"),
                refusal(5, "b.2: `${a b}` is no variable; write ${NAME} or ${NAME:-default}, and `$$` for a dollar sign"),
            ]
        );
    }
}
