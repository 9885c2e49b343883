//! The JSON Schema of a scenario, and what it says of a file in sentences: every error with its path and the mend.

use std::sync::LazyLock;

use jsonschema::error::ValidationErrorKind as Kind;
use jsonschema::{ValidationError, Validator};
use serde_json::{Map, Value};

use super::{Scenario, nearest};
use crate::gate::Gate;

/// What is wrong with one value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Keys and indexes from the root to the value.
    pub path: Vec<String>,
    /// What was found, what was expected and the mend.
    pub message: String,
    /// What must go for the rest to be readable: the value, or the mapping that lacks something.
    pub spoilt: Vec<String>,
    /// Whether it is the key rather than its value.
    pub is_key: bool,
}

/// The JSON Schema (2020-12) that every scenario file is held against.
///
/// # Panics
/// Never: the schema of a struct is an object.
#[must_use]
pub fn json_schema() -> Value {
    let mut schema = schemars::schema_for!(Scenario).to_value();
    without_null(&mut schema);
    let root = schema.as_object_mut().expect("the schema of a struct is an object");
    root.insert("title".to_owned(), "batchsql scenario".into());
    schema
}

/// An optional key is left out, never `null`: so that `key:` without a value is told, and editors do not offer it.
pub(crate) fn without_null(schema: &mut Value) {
    let is_null = |branch: &Value| branch.get("type").is_some_and(|t| t == "null");
    match schema {
        Value::Object(keys) => {
            if let Some(Value::Array(types)) = keys.get_mut("type") {
                types.retain(|t| t != "null");
                if let [single] = types.as_slice() {
                    let single = single.clone();
                    keys.insert("type".to_owned(), single);
                }
            }
            if keys.get("anyOf").and_then(Value::as_array).is_some_and(|branches| branches.iter().any(is_null)) {
                let branches = keys.remove("anyOf").and_then(|b| b.as_array().cloned()).unwrap_or_default();
                let kept = branches.into_iter().filter(|b| !is_null(b)).filter_map(|b| b.as_object().cloned());
                keys.extend(kept.flatten());
            }
            keys.values_mut().for_each(without_null);
        }
        Value::Array(items) => items.iter_mut().for_each(without_null),
        _ => {}
    }
}

/// Everything the schema and the grammar of gates have against `instance`.
///
/// # Panics
/// Never: the schema is made by this program and valid.
#[must_use]
pub fn validate(instance: &Value) -> Vec<Finding> {
    // Compiling it takes a hundred times as long as asking it.
    static COMPILED: LazyLock<(Value, Validator)> = LazyLock::new(|| {
        let schema = json_schema();
        let validator = compiled(&schema);
        (schema, validator)
    });
    let (schema, validator) = &*COMPILED;
    let mut findings = found(schema, validator, instance);
    let gates = instance.get("gates").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    for (index, gate) in gates.iter().enumerate() {
        let path = vec!["gates".to_owned(), index.to_string()];
        // The grammar says more than its pattern does.
        let told = findings.iter().any(|f| f.path.starts_with(&path));
        if let (false, Err(error)) = (told, serde_json::from_value::<Gate>(gate.clone())) {
            findings.push(Finding { spoilt: path.clone(), path, message: error.to_string(), is_key: false });
        }
    }
    findings
}

/// Everything that `schema`, made of a type of this program, has against `instance`.
pub(crate) fn findings(schema: &Value, instance: &Value) -> Vec<Finding> {
    found(schema, &compiled(schema), instance)
}

fn compiled(schema: &Value) -> Validator {
    jsonschema::validator_for(schema).expect("the generated schema is valid")
}

fn found(schema: &Value, validator: &Validator, instance: &Value) -> Vec<Finding> {
    let mut findings = Vec::new();
    for error in validator.iter_errors(instance) {
        explain(schema, &error, &mut findings);
    }
    findings
}

fn explain(schema: &Value, error: &ValidationError<'_>, findings: &mut Vec<Finding>) {
    let path = steps(error.instance_path().as_str());
    let keyword = error.schema_path().as_str();
    let at = keyword.rsplit_once('/').map_or("", |(parent, _)| parent);
    let parent = schema.pointer(at).unwrap_or(&Value::Null);
    let found = error.instance().as_ref();
    let message = match error.kind() {
        Kind::AdditionalProperties { unexpected } => return findings.extend(unexpected.iter().map(|key| unknown_key(parent, &path, key))),
        Kind::Required { property } => return findings.push(missing_key(schema, parent, path, property.as_str().unwrap_or_default())),
        Kind::AnyOf { context } | Kind::OneOfNotValid { context } => match branch(context, error.instance_path().as_str()) {
            Some(errors) if !errors.iter().any(|e| matches!(e.kind(), Kind::Constant { .. })) => {
                return errors.iter().for_each(|e| explain(schema, e, findings));
            }
            _ => choices(parent, found),
        },
        Kind::Enum { .. } => choices(parent, found),
        // Told by the grammar.
        Kind::Pattern { .. } if path.first().is_some_and(|step| step == "gates") => return,
        Kind::Pattern { .. } => format!("{} does not fit; expected {}", shown(found), expected(parent)),
        Kind::Type { .. } if found.is_null() => format!("has no value; write {}, or remove the key", example(parent)),
        Kind::Type { .. } => format!("expected {}, found {}{}", expected(parent), shown(found), hint(parent, found)),
        Kind::Minimum { limit } => format!("is {found}; at least {limit} is needed"),
        Kind::Maximum { limit } => format!("is {found}; at most {limit} is possible"),
        Kind::ExclusiveMinimum { limit } => format!("is {found}; more than {limit} is needed"),
        Kind::MinItems { limit } => format!("has {} items; at least {limit} are needed", found.as_array().map_or(0, Vec::len)),
        Kind::MaxItems { limit } => format!("has {} items; at most {limit} are possible", found.as_array().map_or(0, Vec::len)),
        Kind::MinProperties { .. } | Kind::MaxProperties { .. } => one_of(parent, found),
        _ => error.to_string(),
    };
    findings.push(Finding { spoilt: path.clone(), path, message, is_key: false });
}

fn steps(pointer: &str) -> Vec<String> {
    pointer.split('/').skip(1).map(|step| step.replace("~1", "/").replace("~0", "~")).collect()
}

/// The alternative that was meant: the one whose own type fits.
fn branch<'a>(context: &'a [Vec<ValidationError<'static>>], at: &str) -> Option<&'a Vec<ValidationError<'static>>> {
    context.iter().find(|errors| !errors.iter().any(|e| e.instance_path().as_str() == at && matches!(e.kind(), Kind::Type { .. })))
}

fn unknown_key(parent: &Value, path: &[String], key: &str) -> Finding {
    let known: Vec<&str> =
        parent.get("properties").and_then(Value::as_object).map_or(Vec::new(), |keys| keys.keys().map(String::as_str).collect());
    let near = nearest(key, known.iter().copied()).map_or(String::new(), |near| format!("; did you mean `{near}`?"));
    let message = format!("unknown key{near} (known: {})", known.join(", "));
    let path = [path, &[key.to_owned()]].concat();
    Finding { spoilt: path.clone(), path, message, is_key: true }
}

fn missing_key(schema: &Value, parent: &Value, spoilt: Vec<String>, key: &str) -> Finding {
    let property = parent.get("properties").and_then(|p| p.get(key)).unwrap_or(&Value::Null);
    let target = property.get("$ref").and_then(Value::as_str).and_then(|r| schema.pointer(r.trim_start_matches('#')));
    let what = property.get("description").or_else(|| target?.get("description")).and_then(Value::as_str).unwrap_or_default();
    let path = [spoilt.as_slice(), &[key.to_owned()]].concat();
    Finding { path, message: format!("is missing; add it: {}", what.trim_end_matches('.')), spoilt, is_key: false }
}

/// The message for a value that is none of the words allowed, or of none of the types.
fn choices(parent: &Value, found: &Value) -> String {
    let consts = |key: &str| parent.get(key).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let listed = consts("enum").iter().chain(consts("oneOf").iter().filter_map(|b| b.get("const")));
    let words: Vec<&str> = listed.filter_map(Value::as_str).collect();
    if words.is_empty() {
        let types: Vec<String> = consts("anyOf").iter().chain(consts("oneOf")).map(expected).collect();
        return format!("expected {}, found {}", types.join(" or "), shown(found));
    }
    if found.is_null() {
        return format!("has no value; write one of {}, or remove the key", words.join(", "));
    }
    let near = found
        .as_str()
        .and_then(|word| nearest(word, words.iter().copied()))
        .map_or(String::new(), |near| format!("did you mean `{near}`? "));
    format!("{} is none of the choices; {near}write one of {}", shown(found), words.join(", "))
}

/// What the schema node asks for, in words.
fn expected(schema: &Value) -> String {
    if let (Some(_), Some(text)) = (schema.get("pattern"), schema.get("description").and_then(Value::as_str)) {
        return text.strip_prefix("A ").map_or_else(|| text.to_owned(), |rest| format!("a {rest}"));
    }
    let word = |name: &str| match name {
        "integer" => "a whole number",
        "number" => "a number",
        "string" => "text",
        "boolean" => "true or false",
        "object" => "a mapping",
        "array" => "a list",
        _ => "another type",
    };
    match schema.get("type") {
        Some(Value::String(name)) => word(name).to_owned(),
        Some(Value::Array(names)) => names.iter().filter_map(Value::as_str).map(word).collect::<Vec<_>>().join(" or "),
        _ => "something else".to_owned(),
    }
}

fn example(schema: &Value) -> String {
    match schema.get("type").and_then(Value::as_str) {
        Some("object") if schema.get("required").is_some() => "its keys below it, indented".to_owned(),
        Some("object") => "{} for the defaults".to_owned(),
        Some("array") => "[] for none".to_owned(),
        _ => expected(schema),
    }
}

fn shown(value: &Value) -> String {
    match value {
        Value::Null => "nothing".to_owned(),
        Value::Bool(_) => value.to_string(),
        Value::Number(number) => format!("the number {number}"),
        Value::String(text) if text.chars().count() > 60 => format!("{:?}…", text.chars().take(60).collect::<String>()),
        Value::String(text) => format!("{text:?}"),
        Value::Array(_) => "a list".to_owned(),
        Value::Object(_) => "a mapping".to_owned(),
    }
}

/// The message for a mapping that must have exactly one of its keys.
fn one_of(parent: &Value, found: &Value) -> String {
    let keys = |of: Option<&Value>| of.and_then(Value::as_object).map_or(Vec::new(), |keys| keys.keys().cloned().collect());
    format!("has {} of {}; write exactly one", keys(Some(found)).len(), keys(parent.get("properties")).join(", "))
}

/// The mend, where the slip is a usual one.
fn hint(parent: &Value, found: &Value) -> String {
    let wants = |name: &str| parent.get("type").is_some_and(|t| t == name);
    let is_time = parent.get("pattern").and_then(Value::as_str).is_some_and(|p| p.contains("ms|"));
    match found {
        Value::Number(n) if is_time => format!("; write {n}s or {n}ms"),
        Value::Number(_) | Value::Bool(_) if wants("string") => "; put it in quotes".to_owned(),
        Value::String(text) if wants("integer") || wants("number") => {
            let digits: String = text.chars().filter(|c| !matches!(c, '_' | ',' | '\'' | ' ')).collect();
            digits.parse::<f64>().ok().filter(|n| n.is_finite()).map_or(String::new(), |_| format!("; write {digits}"))
        }
        Value::String(text) if wants("boolean") => match text.to_ascii_lowercase().as_str() {
            "yes" | "on" | "y" | "true" => "; write true".to_owned(),
            "no" | "off" | "n" | "false" => "; write false".to_owned(),
            _ => String::new(),
        },
        _ => String::new(),
    }
}

/// `instance` without what `findings` say is spoilt, so that the rest can be judged too; the paths that went.
#[must_use]
pub fn without_spoilt(instance: &Value, findings: &[Finding]) -> (Value, Vec<Vec<String>>) {
    let mut rest = instance.clone();
    let mut gone = Vec::new();
    for finding in findings {
        if let Some(path) = remove(&mut rest, &finding.spoilt) {
            gone.push(path);
        }
    }
    (rest, gone)
}

/// Removes the mapping's key that leads to `path`; of a list the whole, for indexes must keep their meaning.
fn remove(root: &mut Value, path: &[String]) -> Option<Vec<String>> {
    fn holds_list(root: &Value, path: &[String]) -> bool {
        path.iter().try_fold(root, |node, step| node.get(step)).is_some_and(Value::is_array)
    }
    let end = (1..path.len()).find(|&n| holds_list(root, &path[..n])).unwrap_or(path.len());
    let (key, parents) = path[..end].split_last()?;
    let parent: &mut Map<String, Value> = parents.iter().try_fold(root, |node, step| node.get_mut(step))?.as_object_mut()?;
    parent.remove(key);
    Some(path[..end].to_vec())
}
