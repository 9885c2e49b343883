//! Grafana's own types, as it publishes them for the version in the compose file, hold for every board; for that `npm` and its
//! registry are needed once.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::board::{boards, list, panels, root, text};

const PACKAGES: [(&str, &str); 2] = [("@grafana/schema", "12.1.1"), ("typescript", "5.9.3")];

/// Longest wait for packages.
const PATIENCE: Duration = Duration::from_secs(60);

/// Types that JSON can meet (an enum's value is its text there), with what only Prometheus knows of queries and annotations.
const TYPES: &str = r#"
import type { AnnotationQuery, Dashboard, DataQuery } from '@grafana/schema';
import type * as bargauge from '@grafana/schema/dist/types/raw/composable/bargauge/panelcfg/x/BarGaugePanelCfg_types.gen.d.ts';
import type * as heatmap from '@grafana/schema/dist/types/raw/composable/heatmap/panelcfg/x/HeatmapPanelCfg_types.gen.d.ts';
import type * as stat from '@grafana/schema/dist/types/raw/composable/stat/panelcfg/x/StatPanelCfg_types.gen.d.ts';
import type * as table from '@grafana/schema/dist/types/raw/composable/table/panelcfg/x/TablePanelCfg_types.gen.d.ts';
import type * as timeseries from '@grafana/schema/dist/types/raw/composable/timeseries/panelcfg/x/TimeSeriesPanelCfg_types.gen.d.ts';
type Plain<T> = T extends string ? `${T}` : T extends (infer U)[] ? Plain<U>[] : T extends object ? { [K in keyof T]: Plain<T[K]> } : T;
type Query = DataQuery & { expr: string; legendFormat?: string; range?: boolean; instant?: boolean; format?: 'time_series' | 'table' | 'heatmap';
  editorMode?: 'code' | 'builder'; interval?: string };
type Annotation = Omit<AnnotationQuery, 'target'> & { target: Query; titleFormat?: string; textFormat?: string; tagKeys?: string };
"#;

/// The folder with the packages in it, if they can be had.
fn packages() -> Option<PathBuf> {
    let folder = root().join("target/grafana-schema");
    let wanted: serde_json::Map<_, _> = PACKAGES.iter().map(|(name, version)| ((*name).to_owned(), Value::from(*version))).collect();
    let manifest = json!({"private": true, "dependencies": wanted}).to_string();
    let there = |name: &str| folder.join("node_modules").join(name).join("package.json").is_file();
    if fs::read_to_string(folder.join("package.json")).is_ok_and(|found| found == manifest) && PACKAGES.iter().all(|(name, _)| there(name))
    {
        return Some(folder);
    }
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("package.json"), manifest).unwrap();
    let flags = ["install", "--silent", "--no-audit", "--no-fund", "--ignore-scripts", "--fetch-retries=1", "--fetch-timeout=20000"];
    let began = Instant::now();
    let Ok(mut npm) = Command::new("npm").args(flags).current_dir(&folder).stdin(Stdio::null()).stdout(Stdio::null()).spawn() else {
        println!("left out: npm is not installed");
        return None;
    };
    while npm.try_wait().unwrap().is_none() {
        if began.elapsed() > PATIENCE {
            npm.kill().unwrap();
            npm.wait().unwrap();
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    let complete = PACKAGES.iter().all(|(name, _)| there(name));
    if !complete {
        println!("left out: npm cannot have @grafana/schema from its registry");
    }
    complete.then_some(folder)
}

/// A board as constants of Grafana's types: in one piece, and what its schema leaves open (options, queries) by itself.
fn constants(board: &Value) -> String {
    let mut said = TYPES.to_owned();
    let mut number = 0;
    let mut constant = |ty: &str, value: &Value| {
        number += 1;
        writeln!(said, "export const c{number}: Plain<{ty}> = {value};").unwrap();
    };
    let mut whole = board.clone();
    let annotations = whole["annotations"].take();
    whole.as_object_mut().unwrap().remove("annotations");
    for variable in whole["templating"]["list"].as_array_mut().unwrap() {
        // Grafana's Prometheus data source writes it; it is in no schema.
        variable.as_object_mut().unwrap().remove("definition");
    }
    constant("Dashboard", &whole);
    list(&annotations, "/list").iter().for_each(|annotation| constant("Annotation", annotation));
    for panel in panels(board) {
        let kind = text(panel, "/type");
        constant(&format!("{kind}.Options"), &panel["options"]);
        if matches!(kind, "heatmap" | "table" | "timeseries") {
            constant(&format!("Partial<{kind}.FieldConfig>"), &panel["fieldConfig"]["defaults"]["custom"]);
        }
        list(panel, "/targets").iter().for_each(|target| constant("Query", target));
    }
    said
}

/// What the compiler says to these files.
fn compiled(folder: &Path, files: &[(String, String)]) -> String {
    for (name, text) in files {
        fs::write(folder.join(format!("{name}.ts")), text).unwrap();
    }
    let flags = [
        "node_modules/typescript/bin/tsc",
        "--noEmit",
        "--strict",
        "--skipLibCheck",
        "--module",
        "esnext",
        "--moduleResolution",
        "bundler",
    ];
    let names = files.iter().map(|(name, _)| format!("{name}.ts"));
    let output = Command::new("node").args(flags).args(names).current_dir(folder).output().unwrap();
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn grafanas_own_types_take_every_board() {
    let Some(folder) = packages() else { return };
    let mut files: Vec<_> = boards().iter().map(|(name, board)| (name.clone(), constants(board))).collect();
    // Known to be wrong, so that the types are known to be looked at.
    let (_, mut wrong) = boards().remove(0);
    wrong["panels"][1]["fieldConfig"]["defaults"]["uniit"] = "s".into();
    wrong["panels"][1]["options"]["legendary"] = true.into();
    wrong["panels"][1]["targets"][0]["exprr"] = "up".into();
    wrong["annotations"]["list"][0]["colour"] = "red".into();
    wrong["templating"]["list"][1]["refresh"] = "often".into();
    files.push(("wrong".to_owned(), constants(&wrong)));
    let said = compiled(&folder, &files);
    let (expected, others): (Vec<_>, Vec<_>) =
        said.lines().filter(|line| line.contains("error TS")).partition(|line| line.starts_with("wrong.ts"));
    assert!(others.is_empty(), "{}", others.join("\n"));
    assert_eq!(expected.len(), 5, "{said}");
    for part in ["uniit", "legendary", "exprr", "colour", "VariableRefresh"] {
        assert!(expected.iter().any(|line| line.contains(part)), "{part} is not told: {said}");
    }
}
