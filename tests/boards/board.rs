//! The boards as they are committed: their panels, queries, variables and annotations.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A query of a board and whose it is.
#[derive(Debug)]
pub(crate) struct Query {
    /// Board and panel, or board and annotation.
    pub(crate) of: String,
    pub(crate) expr: String,
    /// Asked for the last moment alone.
    pub(crate) instant: bool,
}

/// Name and JSON of every board, the names in order.
pub(crate) fn boards() -> Vec<(String, Value)> {
    let files = fs::read_dir(root().join("grafana/dashboards")).unwrap().map(|entry| entry.unwrap().path());
    let mut boards: Vec<_> = files
        .map(|file| (file.file_stem().unwrap().to_str().unwrap().to_owned(), serde_json::from_slice(&fs::read(&file).unwrap()).unwrap()))
        .collect();
    boards.sort_by(|(one, _), (other, _)| one.cmp(other));
    boards
}

pub(crate) fn list<'a>(value: &'a Value, pointer: &str) -> &'a [Value] {
    value.pointer(pointer).and_then(Value::as_array).unwrap_or_else(|| panic!("no list {pointer}"))
}

pub(crate) fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_else(|| panic!("no text {pointer} in {value}"))
}

/// Panels that show something: rows are headings.
pub(crate) fn panels(board: &Value) -> impl Iterator<Item = &Value> {
    list(board, "/panels").iter().filter(|panel| panel["type"] != "row")
}

/// Every query of a board's panels and annotations.
pub(crate) fn queries(name: &str, board: &Value) -> Vec<Query> {
    let panels = panels(board).flat_map(|panel| {
        list(panel, "/targets").iter().map(move |target| Query {
            of: format!("{name}: {}", text(panel, "/title")),
            expr: text(target, "/expr").to_owned(),
            instant: target["instant"] == true,
        })
    });
    let annotations = list(board, "/annotations/list").iter().map(|annotation| Query {
        of: format!("{name}: annotation {}", text(annotation, "/name")),
        expr: text(annotation, "/target/expr").to_owned(),
        instant: false,
    });
    panels.chain(annotations).collect()
}

#[test]
fn the_committed_boards_are_what_their_source_says() {
    let Ok(checked) = Command::new("python3").args(["-B", "grafana/boards.py", "--check"]).current_dir(root()).output() else {
        println!("left out: python3 is not installed");
        return;
    };
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
}

#[test]
fn every_board_can_be_read_by_whoever_has_not_made_it() {
    let boards = boards();
    let uids: Vec<_> = boards.iter().map(|(_, board)| text(board, "/uid")).collect();
    let kinds = ["batch", "compare", "integrity", "overview", "performance", "proxy", "system"].map(|kind| format!("batchsql-{kind}"));
    assert_eq!(uids, kinds);
    for (name, board) in &boards {
        assert_eq!(text(board, "/uid"), name, "its file is named so");
        assert_eq!(list(board, "/templating/list")[0]["type"], "datasource", "{name}");
        assert_eq!(board["links"][0]["tags"], board["tags"], "{name}: a link to every board");
        let titles: BTreeSet<_> = list(board, "/annotations/list").iter().map(|annotation| text(annotation, "/name")).collect();
        assert_eq!(titles, BTreeSet::from(["阶段 / Phases", "判定 / Verdicts"]), "{name}");
        for panel in panels(board) {
            let title = text(panel, "/title");
            let defaults = "/fieldConfig/defaults";
            for said in ["/description", &format!("{defaults}/unit"), &format!("{defaults}/noValue")] {
                assert!(!text(panel, said).is_empty(), "{name}: {title} has no {said}");
            }
            assert_eq!(text(panel, "/datasource/uid"), "${datasource}", "{name}: {title}");
            for target in list(panel, "/targets") {
                assert_eq!(text(target, "/datasource/uid"), "${datasource}", "{name}: {title}");
            }
        }
    }
}
