//! Saved reports as sides: read, and refused where they cannot be compared.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail, ensure};
use serde_json::Value;

use crate::report::{Report, SCHEMA_VERSION};

/// Differences that are named one by one.
const MOST_NAMED: usize = 20;
/// A report is a few hundred KiB; a timeline of a day is 20 MiB.
const LARGEST: u64 = 256 << 20;

/// The report that `path` means, if it means one: `report.json` or any other JSON file, or the folder of a run.
pub(crate) fn report_file(path: &Path) -> Option<PathBuf> {
    if path.is_dir() {
        return Some(path.join("report.json"));
    }
    path.extension().is_some_and(|extension| extension == "json").then(|| path.to_owned())
}

/// Reads a saved report.
pub(crate) fn read(file: &Path) -> anyhow::Result<Report> {
    let name = file.display();
    let size =
        std::fs::metadata(file).with_context(|| format!("report {name} cannot be read; name a report.json or a run's folder"))?.len();
    ensure!(size <= LARGEST, "report {name} has {size} bytes, which is no report; name a report.json or a run's folder");
    let text = std::fs::read_to_string(file).with_context(|| format!("report {name} cannot be read"))?;
    let value: Value =
        serde_json::from_str(&text).with_context(|| format!("report {name} is cut short or damaged; run the scenario again"))?;
    let version = value["schema_version"].as_u64().with_context(|| format!("{name} is no report: it has no schema_version"))?;
    if version > u64::from(SCHEMA_VERSION) {
        bail!("report {name} has schema version {version}, this program knows {SCHEMA_VERSION}; compare with the version that wrote it");
    }
    serde_json::from_value(value).with_context(|| format!("report {name} is not whole; run the scenario again"))
}

/// Everything that keeps two reports from being compared as they are, in words.
pub(crate) fn differences(before: &Report, after: &Report) -> Vec<String> {
    let (here, there) = (&before.environment, &after.environment);
    let mut found = Vec::new();
    let mut differ = |what: &str, before: String, after: String| {
        if before != after {
            found.push(format!("{what}: {before} before, {after} after"));
        }
    };
    differ("machine's CPU", here.cpu.clone(), there.cpu.clone());
    differ("machine's cores", here.cores.to_string(), there.cores.to_string());
    differ("machine's memory", here.memory_bytes.to_string(), there.memory_bytes.to_string());
    differ("operating system", here.os.clone(), there.os.clone());
    differ("kernel", here.kernel.clone(), there.kernel.clone());
    differ("version of batchsql", here.batchsql_version.clone(), there.batchsql_version.clone());
    differ("version of the target", target(before), target(after));
    differ("seed", before.seed.to_string(), after.seed.to_string());
    let (mut one, mut other) = (before.scenario.clone(), after.scenario.clone());
    for scenario in [&mut one, &mut other] {
        if let Some(scenario) = scenario.as_object_mut() {
            // Named above, or only words.
            scenario.retain(|key, _| !matches!(key.as_str(), "seed" | "description"));
        }
    }
    let mut paths = Vec::new();
    unlike("scenario", &one, &other, &mut paths);
    let more = paths.len().saturating_sub(MOST_NAMED);
    paths.truncate(MOST_NAMED);
    found.extend(paths);
    if more > 0 {
        found.push(format!("scenario: {more} more values"));
    }
    found
}

/// A service is known by its name only: its address is another with each start.
fn target(report: &Report) -> String {
    let target = &report.environment.target;
    if target.database == "http" { target.name.clone() } else { format!("{} {}", target.name, target.version) }
}

/// Where two values differ.
fn unlike(path: &str, before: &Value, after: &Value, found: &mut Vec<String>) {
    match (before, after) {
        (Value::Object(one), Value::Object(other)) => {
            let keys: std::collections::BTreeSet<&String> = one.keys().chain(other.keys()).collect();
            for key in keys {
                let value = |side: &serde_json::Map<String, Value>| side.get(key).cloned().unwrap_or(Value::Null);
                unlike(&format!("{path}.{key}"), &value(one), &value(other), found);
            }
        }
        _ if before != after => found.push(format!("{path}: {before} before, {after} after")),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::sample;

    #[test]
    fn every_difference_is_named() {
        let before = sample::passed();
        let mut after = before.clone();
        assert!(differences(&before, &after).is_empty());
        after.environment.git_commit = None;
        after.run_id = "another".to_owned();
        assert!(differences(&before, &after).is_empty(), "another commit is what is compared");
        after.environment.cores = 64;
        after.environment.target.version = "3.51.0".to_owned();
        after.seed = 7;
        after.scenario = serde_json::json!({"name": "quickstart", "load": {"executor": "constant-vus", "vus": 4}});
        assert_eq!(
            differences(&before, &after),
            [
                "machine's cores: 2 before, 64 after",
                "version of the target: SQLite 3.50.4 before, SQLite 3.51.0 after",
                "seed: 42 before, 7 after",
                "scenario.load.executor: \"shared-iterations\" before, \"constant-vus\" after",
                "scenario.load.vus: null before, 4 after",
            ]
        );
    }

    #[test]
    fn a_report_that_is_none_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("report.json");
        let told = |text: &str| {
            std::fs::write(&file, text).unwrap();
            format!("{:#}", read(&file).unwrap_err())
        };
        let whole = serde_json::to_string(&sample::passed()).unwrap();
        assert!(told(&whole[..whole.len() / 2]).contains("is cut short or damaged"));
        assert!(told("{\"schema_version\": 99}").contains("has schema version 99, this program knows 1; compare with the version"));
        assert!(told("{\"schema_version\": 1}").contains("is not whole"));
        assert!(told("{}").contains("is no report"));
        assert!(format!("{:#}", read(&folder.path().join("none.json")).unwrap_err()).contains("name a report.json or a run's folder"));
        std::fs::write(&file, whole).unwrap();
        assert_eq!(read(&file).unwrap().run_id, sample::passed().run_id);
        assert_eq!(report_file(folder.path()), Some(file));
        assert_eq!(report_file(Path::new("scenario.yaml")), None);
    }
}
