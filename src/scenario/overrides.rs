//! `--set path.to.key=value`: a value over the file's, before it is validated.

use super::tree::{At, Entry, Kind, Node, Refusal, parse};

/// The path of an override, as people typed it.
#[must_use]
pub fn path_of(text: &str) -> &str {
    text.split_once('=').map_or(text, |(path, _)| path)
}

/// Puts every override into the tree, in their order. What the path lacks is made; what it cannot pass is told.
pub fn apply(root: &mut Node, overrides: &[String]) -> Vec<Refusal> {
    let mut refusals = Vec::new();
    for (index, text) in overrides.iter().enumerate() {
        let at = At::Override(index);
        if let Err(message) = apply_one(root, text, at) {
            refusals.push(Refusal { at, message });
        }
    }
    refusals
}

fn apply_one(root: &mut Node, text: &str, at: At) -> Result<(), String> {
    let (path, value) = text.split_once('=').ok_or("write path.to.key=value")?;
    if path.is_empty() || path.split('.').any(str::is_empty) {
        return Err("write path.to.key=value, the path without empty parts".to_owned());
    }
    if value.trim().is_empty() {
        return Err("has no value; write null to remove the setting, or \"''\" for an empty text".to_owned());
    }
    let (node, refusals) = parse(value);
    let Some(mut node) = node.filter(|_| refusals.is_empty()) else {
        return Err(refusals.into_iter().map(|r| r.message).collect::<Vec<_>>().join("; "));
    };
    place_at(&mut node, at);
    let steps: Vec<&str> = path.split('.').collect();
    put(root, &steps, node, at)
}

fn place_at(node: &mut Node, at: At) {
    node.at = at;
    match &mut node.kind {
        Kind::Scalar { .. } => {}
        Kind::List(items) => items.iter_mut().for_each(|item| place_at(item, at)),
        Kind::Map(entries) => entries.iter_mut().for_each(|entry| {
            entry.at = at;
            place_at(&mut entry.value, at);
        }),
    }
}

fn put(node: &mut Node, steps: &[&str], value: Node, at: At) -> Result<(), String> {
    let [step, rest @ ..] = steps else {
        *node = value;
        return Ok(());
    };
    // `key:` without a value is an empty place, as long as something is put there.
    if matches!(node.kind, Kind::Scalar { .. }) && node.to_json().is_null() {
        node.kind = Kind::Map(Vec::new());
    }
    match &mut node.kind {
        Kind::Map(entries) => {
            let position = entries.iter().position(|e| e.key == *step);
            if rest.is_empty() && value.to_json().is_null() {
                position.map(|p| entries.remove(p));
                return Ok(());
            }
            let position = position.unwrap_or_else(|| {
                entries.push(Entry { key: (*step).to_owned(), at, value: Node { at, kind: Kind::Map(Vec::new()) } });
                entries.len() - 1
            });
            put(&mut entries[position].value, rest, value, at)
        }
        Kind::List(items) => {
            let length = items.len();
            let item = step.parse::<usize>().ok().and_then(|index| items.get_mut(index));
            put(item.ok_or_else(|| format!("`{step}` is no item of a list of {length}; they are numbered from 0"))?, rest, value, at)
        }
        Kind::Scalar { text, .. } => Err(format!("cannot set `{step}` inside the value {text:?}")),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn set(text: &str, overrides: &[&str]) -> (serde_json::Value, Vec<String>) {
        let mut tree = parse(text).0.unwrap();
        let refusals = apply(&mut tree, &overrides.iter().map(|&o| o.to_owned()).collect::<Vec<_>>());
        (tree.to_json(), refusals.into_iter().map(|r| r.message).collect())
    }

    #[test]
    fn values_are_yaml_and_indexes_numbers() {
        let text = "a: {b: 1}\nl: [{x: 1}, 2]\nn:\n";
        let overrides = ["a.b=2", "a.c.d='3'", "l.0.x=5s", "l.1=[1, {k: v}]", "n.m=true", "e=x=y"];
        assert_eq!(
            set(text, &overrides),
            (json!({"a": {"b": 2, "c": {"d": "3"}}, "l": [{"x": "5s"}, [1, {"k": "v"}]], "n": {"m": true}, "e": "x=y"}), vec![])
        );
        assert_eq!(set("a: 1\nb: 2\n", &["a=null"]).0, json!({"b": 2}));
    }

    #[test]
    fn a_path_that_leads_nowhere_is_told() {
        let errors = set("a: 1\nl: [1]\n", &["a.b=1", "l.1=2", "l.x=2", "novalue", "=1", "a..b=1", "a=", "a=[1"]).1;
        assert_eq!(
            errors[..7],
            [
                "cannot set `b` inside the value \"1\"",
                "`1` is no item of a list of 1; they are numbered from 0",
                "`x` is no item of a list of 1; they are numbered from 0",
                "write path.to.key=value",
                "write path.to.key=value, the path without empty parts",
                "write path.to.key=value, the path without empty parts",
                "has no value; write null to remove the setting, or \"''\" for an empty text",
            ]
        );
        assert!(errors[7].starts_with("not YAML"));
    }
}
