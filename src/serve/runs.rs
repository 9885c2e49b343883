//! The runs of a report folder, as far as their reports can be read: each is read once, and again when its file has changed.

use std::collections::HashMap;
use std::fs;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use crate::report::{IntegrityVerdict, Rate, SCHEMA_VERSION, Verdict};

/// Most runs that are shown; older ones are counted.
const MOST_RUNS: usize = 10_000;
/// Largest file that is read or sent.
const LARGEST: u64 = 64 << 20;
/// What of a run is served, and as what.
const FILES: [(&str, &str); 5] = [
    ("report.json", "application/json"),
    ("report.md", "text/markdown; charset=utf-8"),
    ("report.html", "text/html; charset=utf-8"),
    ("junit.xml", "application/xml"),
    ("timeline.csv", "text/csv; charset=utf-8"),
];
/// Folders of the report folder that are no runs, and nothing to wonder at.
const OTHERS: [&str; 3] = ["data", "sample", "baselines"];

/// One run, in short.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Run {
    pub(super) id: String,
    pub(super) scenario: String,
    pub(super) database: String,
    pub(super) verdict: Verdict,
    pub(super) integrity: IntegrityVerdict,
    pub(super) integrity_rate: Option<f64>,
    #[serde(flatten)]
    pub(super) throughput: Rate,
    pub(super) throughput_valid: bool,
    pub(super) response_p99_ms: Option<f64>,
    pub(super) started_at: String,
    pub(super) duration_seconds: f64,
    /// Which of its files are there.
    pub(super) files: Vec<&'static str>,
}

/// What is read of a report: what the short form needs, so that reports of many versions can be shown.
#[derive(Deserialize)]
struct Short {
    schema_version: u32,
    run_id: String,
    scenario: Named,
    environment: Environment,
    verdict: Verdict,
    integrity: Integrity,
    throughput: crate::report::Throughput,
    latency: crate::report::Latencies,
    started_at: String,
    duration_seconds: f64,
}

#[derive(Deserialize)]
struct Named {
    name: String,
}

#[derive(Deserialize)]
struct Environment {
    target: TargetSeen,
}

#[derive(Deserialize)]
struct TargetSeen {
    database: String,
}

#[derive(Deserialize)]
struct Integrity {
    verdict: IntegrityVerdict,
    rate: Option<f64>,
}

/// What a look at the folder found.
#[derive(Clone, Default)]
pub(super) struct Found {
    /// The newest first.
    pub(super) runs: Vec<Arc<Run>>,
    /// Folders without a report that can be read: damaged, foreign, or runs under way.
    pub(super) skipped: usize,
}

/// A report folder. What was read is kept with its file's time and length.
pub(super) struct Runs {
    folder: PathBuf,
    known: Mutex<HashMap<String, Known>>,
}

type Stamp = (Option<SystemTime>, u64);
/// What a report said, if it could be read.
type Known = (Stamp, Option<Arc<Run>>);

impl Runs {
    pub(super) fn new(folder: PathBuf) -> Self {
        Self { folder, known: Mutex::default() }
    }

    /// Looks at the folder.
    pub(super) fn look(&self) -> io::Result<Found> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.folder)? {
            let entry = entry?;
            // A link leads elsewhere, and is none.
            if entry.file_type()?.is_dir() {
                names.extend(entry.file_name().into_string().ok().filter(|name| !OTHERS.contains(&name.as_str())));
            }
        }
        // Ids begin with the time of their run.
        names.sort_unstable_by(|a, b| b.cmp(a));
        let beyond = names.len().saturating_sub(MOST_RUNS);
        names.truncate(MOST_RUNS);
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let mut seen = HashMap::with_capacity(names.len());
        let mut found = Found { runs: Vec::new(), skipped: beyond };
        for name in names {
            let stamp = self.stamp(&name);
            let run = match known.remove(&name) {
                Some((before, run)) if before == stamp => run,
                _ => self.read(&name).map(Arc::new),
            };
            match &run {
                Some(run) => found.runs.push(Arc::clone(run)),
                None => found.skipped += 1,
            }
            seen.insert(name, (stamp, run));
        }
        *known = seen;
        found.runs.sort_by(|a, b| b.started_at.cmp(&a.started_at).then_with(|| b.id.cmp(&a.id)));
        Ok(found)
    }

    fn stamp(&self, name: &str) -> Stamp {
        let metadata = fs::symlink_metadata(self.folder.join(name).join("report.json"));
        metadata.map_or((None, 0), |metadata| (metadata.modified().ok(), metadata.len()))
    }

    fn read(&self, name: &str) -> Option<Run> {
        let (_, bytes) = self.file(name, "report.json")?;
        let short: Short = serde_json::from_slice(&bytes).ok()?;
        if short.run_id != name || short.schema_version > SCHEMA_VERSION {
            return None;
        }
        Some(Run {
            id: short.run_id,
            scenario: short.scenario.name,
            database: short.environment.target.database,
            verdict: short.verdict,
            integrity: short.integrity.verdict,
            integrity_rate: short.integrity.rate,
            throughput: short.throughput.rate,
            throughput_valid: short.throughput.valid,
            response_p99_ms: short.latency.response.p99_ms,
            // Of as many digits each, so that they sort.
            started_at: format!("{:.3}", short.started_at.parse::<jiff::Timestamp>().ok()?),
            duration_seconds: short.duration_seconds,
            files: FILES.iter().map(|(file, _)| *file).filter(|file| self.path(name, file).is_some()).collect(),
        })
    }

    /// A file of a run with its type, if it is one that is served and lies where it seems to.
    pub(super) fn file(&self, id: &str, file: &str) -> Option<(&'static str, Vec<u8>)> {
        let (_, kind) = FILES.iter().find(|(name, _)| *name == file)?;
        let mut bytes = Vec::new();
        fs::File::open(self.path(id, file)?).ok()?.take(LARGEST + 1).read_to_end(&mut bytes).ok()?;
        (bytes.len() as u64 <= LARGEST).then_some((kind, bytes))
    }

    /// Where a run's file lies: no part of the way is a link or leads out of the folder.
    fn path(&self, id: &str, file: &str) -> Option<PathBuf> {
        let plain = |c: char| c.is_alphanumeric() || "-_.".contains(c);
        if id.is_empty() || id.len() > 255 || id.starts_with('.') || !id.chars().all(plain) {
            return None;
        }
        let folder = fs::canonicalize(&self.folder).ok()?;
        let path: PathBuf = [&folder, Path::new(id), Path::new(file)].iter().collect();
        (fs::canonicalize(&path).ok()? == path && path.is_file()).then_some(path)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::report::sample;

    fn write(folder: &Path, id: &str, started_at: &str) {
        let mut report = sample::passed();
        (report.run_id, report.started_at) = (id.to_owned(), started_at.to_owned());
        fs::create_dir_all(folder.join(id)).unwrap();
        fs::write(folder.join(id).join("report.json"), serde_json::to_vec(&report).unwrap()).unwrap();
    }

    #[test]
    fn the_newest_run_is_first_and_what_is_no_run_is_counted() {
        let place = tempfile::tempdir().unwrap();
        let folder = place.path();
        write(folder, "20260101-000000-b-1", "2026-01-01T00:00:00Z");
        write(folder, "20260102-000000-a-1", "2026-01-02T00:00:00.5Z");
        write(folder, "20260102-000000-a-2", "2026-01-02T00:00:00Z");
        fs::create_dir_all(folder.join("data")).unwrap();
        fs::write(folder.join("README.md"), "no folder").unwrap();
        for (name, text) in [("empty", ""), ("torn", "{\"schema_version\": 1, \"run"), ("other", "[1]")] {
            fs::create_dir_all(folder.join(name)).unwrap();
            fs::write(folder.join(name).join("report.json"), text).unwrap();
        }
        fs::create_dir_all(folder.join("under-way")).unwrap();
        fs::create_dir_all(folder.join("directory").join("report.json")).unwrap();
        fs::rename(folder.join("20260101-000000-b-1"), folder.join("renamed")).unwrap();
        write(folder, "20260101-000000-b-1", "2026-01-01T00:00:00Z");
        let runs = Runs::new(folder.to_owned());
        let found = runs.look().unwrap();
        let ids: Vec<_> = found.runs.iter().map(|run| run.id.as_str()).collect();
        assert_eq!(ids, ["20260102-000000-a-1", "20260102-000000-a-2", "20260101-000000-b-1"]);
        assert_eq!(found.skipped, 6);
        assert_eq!(found.runs[0].files, ["report.json"]);
        write(folder, "under-way", "2026-01-03T00:00:00Z");
        let found = runs.look().unwrap();
        assert_eq!((found.runs[0].id.as_str(), found.skipped), ("under-way", 5), "what has changed is read again");
        fs::remove_dir_all(folder.join("under-way")).unwrap();
        assert_eq!(runs.look().unwrap().runs.len(), 3);
    }

    #[test]
    fn no_name_and_no_link_leads_out_of_the_folder() {
        let place = tempfile::tempdir().unwrap();
        let folder = place.path().join("reports");
        write(&folder, "run-1", "2026-01-01T00:00:00Z");
        write(place.path(), "outside", "2026-01-01T00:00:00Z");
        symlink(place.path().join("outside"), folder.join("outside")).unwrap();
        fs::create_dir_all(folder.join("run-2")).unwrap();
        symlink(place.path().join("outside/report.json"), folder.join("run-2/report.json")).unwrap();
        fs::write(folder.join("run-1").join("ledger"), "secret").unwrap();
        let runs = Runs::new(folder.clone());
        assert!(runs.file("run-1", "report.json").is_some());
        let long = "x".repeat(256);
        for id in ["", ".", "..", "../outside", "outside", "run-2", "run-1/../run-1", "/etc", "run-1\0", long.as_str()] {
            assert!(runs.file(id, "report.json").is_none(), "{id:?}");
        }
        for file in ["ledger", "scenario.json", "../run-1/report.json", "", "report.md"] {
            assert!(runs.file("run-1", file).is_none(), "{file:?}");
        }
        assert_eq!(runs.look().unwrap().runs.len(), 1);
        // A report folder that is itself reached by a link is the user's choice.
        symlink(&folder, place.path().join("link")).unwrap();
        assert!(Runs::new(place.path().join("link")).file("run-1", "report.json").is_some());
    }
}
