//! From a threshold to the one who is told: rules, routes, pages of advice, and one alert on its whole way.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

#[path = "../common/mod.rs"]
mod common;
mod delivery;
mod diagnosis;
mod pages;
#[allow(dead_code, reason = "most of it is for the tests of the program")]
#[path = "../program/place.rs"]
mod place;
mod routes;
mod rules;

use std::fs;
use std::path::Path;
use std::process::Command;

use batchsql::scenario::tree;
use serde_json::Value;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// A YAML file as JSON; anchors are resolved, a key that stands twice is refused.
fn yaml(path: &str) -> Value {
    let (tree, refusals) = tree::parse(&read(path));
    assert!(refusals.is_empty(), "{path}: {refusals:?}");
    tree.unwrap().to_json()
}

/// The names of a folder's YAML files, relative to the root.
fn yaml_files(folder: &str) -> Vec<String> {
    let entries = fs::read_dir(root().join(folder)).unwrap();
    let mut names: Vec<_> = entries.map(|entry| format!("{folder}/{}", entry.unwrap().file_name().to_str().unwrap())).collect();
    names.retain(|name| name.ends_with(".yml"));
    names.sort();
    names
}

/// What a tool of Prometheus or Alertmanager says in the project's folder, or nothing if it is not there; a failure of its fails.
fn tool(program: &str, arguments: &[&str]) -> Option<String> {
    let Ok(output) = Command::new(program).args(arguments).current_dir(root()).output() else {
        println!("left out: {program} is not installed");
        return None;
    };
    let said = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
    assert!(output.status.success(), "{program} {}: {said}", arguments.join(" "));
    Some(said)
}
