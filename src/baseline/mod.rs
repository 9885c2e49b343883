//! Saved reports that later runs are held against: plain files in `REPORT_DIR/baselines`, made to be committed.
//!
//! Goal: what cannot be compared is refused before an hour is spent; noise does not fail identical code. Non-goal: the noise between
//! runs, of which two of them know nothing; `batchsql compare` measures it.

pub(crate) mod command;
pub(crate) mod judge;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail, ensure};
use serde_json::Value;

use crate::comparing::saved;
use crate::environment;
use crate::history::comparable;
use crate::report::{Environment, IntegrityVerdict, Report, TargetSeen, write_whole};
use crate::scenario::Scenario;

/// Most baselines that are listed.
const MOST: usize = 1_000;
/// Longest name.
const LONGEST: usize = 100;

/// A saved report under its name.
#[derive(Clone, Debug)]
pub(crate) struct Baseline {
    pub(crate) name: String,
    pub(crate) report: Report,
}

impl Baseline {
    /// The baseline `name` of `report_dir`; a name that ends with `.json` is the path of a file.
    pub(crate) fn read(report_dir: &Path, name: &str) -> anyhow::Result<Self> {
        let file = if name.ends_with(".json") { PathBuf::from(name) } else { path(report_dir, name)? };
        if !file.is_file() {
            let names: Vec<String> = all(report_dir).into_iter().map(|baseline| baseline.name).collect();
            let known = if names.is_empty() { "there is none yet".to_owned() } else { format!("there are {}", names.join(", ")) };
            bail!("baseline {name}: {} is no file; {known}; keep one with batchsql baseline save {name}", file.display());
        }
        let report = saved::read(&file).with_context(|| format!("baseline {name}"))?;
        Ok(Self { name: name.to_owned(), report })
    }

    /// Why a run of `scenario` here and now could not be held against it, as far as that is known before.
    pub(crate) fn refusal(&self, scenario: &Value, seed: u64) -> Vec<String> {
        let known = &self.report.environment;
        let environment = Environment { target: known.target.clone(), calibration: known.calibration, ..environment::fingerprint() };
        let planned = Report { scenario: scenario.clone(), seed, environment, ..self.report.clone() };
        self.differences(&planned)
    }

    /// Why a run could not be held against it, once its target has said what it is.
    pub(crate) fn refusal_of_target(&self, target: &TargetSeen) -> Vec<String> {
        if target.name.is_empty() {
            return Vec::new(); // a service says its name with its first reply
        }
        let environment = Environment { target: target.clone(), ..self.report.environment.clone() };
        self.differences(&Report { environment, ..self.report.clone() })
    }

    /// Everything that keeps `report` from being held against it, in words.
    pub(crate) fn differences(&self, report: &Report) -> Vec<String> {
        // Gates, words and names of metrics are not what was run, and a baseline is saved before a gate can speak of it.
        let bare = |report: &Report| Report { scenario: comparable(&report.scenario), ..report.clone() };
        saved::differences(&bare(&self.report), &bare(report))
    }

    /// Refuses with all differences named.
    pub(crate) fn refuse(&self, differences: &[String]) -> anyhow::Result<()> {
        ensure!(
            differences.is_empty(),
            "baseline {} was not made under the same circumstances (before: the baseline, after: this run):\n  {}\n\
             save a new one here with batchsql baseline save {}, or name another",
            self.name,
            differences.join("\n  "),
            self.name
        );
        Ok(())
    }
}

/// The baseline that a run of `scenario` is held against, checked as far as can be before it.
pub(crate) fn wanted(scenario: &Scenario, secrets: &[String], name: Option<&str>, report_dir: &Path) -> anyhow::Result<Option<Baseline>> {
    let Some(name) = name else {
        if let Some(gate) = scenario.gates.iter().find(|gate| gate.baseline.is_some()) {
            bail!("gate `{}` needs a baseline; name one with --baseline NAME (batchsql baseline list shows them)", gate.text);
        }
        return Ok(None);
    };
    let baseline = Baseline::read(report_dir, name)?;
    baseline.refuse(&baseline.refusal(&crate::redact::redacted_scenario(scenario, secrets), scenario.seed))?;
    Ok(Some(baseline))
}

/// Where a baseline lies.
fn path(report_dir: &Path, name: &str) -> anyhow::Result<PathBuf> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    ensure!(
        !name.is_empty() && name.len() <= LONGEST && !name.starts_with('.') && name.chars().all(plain),
        "baseline {name:?}: a name has letters, digits, '-', '_' and '.' only, and at most {LONGEST} of them"
    );
    Ok(folder(report_dir).join(format!("{name}.json")))
}

fn folder(report_dir: &Path) -> PathBuf {
    report_dir.join("baselines")
}

/// Keeps `report` as `name`. A run without integrity has no speed, so it is no baseline.
pub(crate) fn save(report_dir: &Path, name: &str, report: &Report) -> anyhow::Result<PathBuf> {
    let file = path(report_dir, name)?;
    let run = &report.run_id;
    ensure!(
        report.integrity.verdict == IntegrityVerdict::Holds && report.throughput.valid,
        "run {run} is no baseline: its integrity is not shown to hold, so it has no speed; save a run that passed"
    );
    ensure!(!report.interrupted, "run {run} is no baseline: it was interrupted; save a run that went to its end");
    let folder = folder(report_dir);
    fs::create_dir_all(&folder).with_context(|| format!("{} cannot be made; name another folder with --report-dir", folder.display()))?;
    write_whole(&file, &(serde_json::to_string_pretty(report)? + "\n"))?;
    Ok(file)
}

/// Every baseline that can be read, by name.
pub(crate) fn all(report_dir: &Path) -> Vec<Baseline> {
    let entries = fs::read_dir(folder(report_dir)).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries.filter_map(|entry| Some(entry.file_name().to_str()?.strip_suffix(".json")?.to_owned())).collect();
    names.sort_unstable();
    names.truncate(MOST);
    let read = |name: String| Some(Baseline { report: saved::read(&path(report_dir, &name).ok()?).ok()?, name });
    names.into_iter().filter_map(read).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::sample;

    #[test]
    fn a_baseline_is_kept_and_read_again() {
        let place = tempfile::tempdir().unwrap();
        let file = save(place.path(), "quick-1.0", &sample::passed()).unwrap();
        assert_eq!(file, place.path().join("baselines/quick-1.0.json"));
        assert_eq!(Baseline::read(place.path(), "quick-1.0").unwrap().report.run_id, sample::passed().run_id);
        assert_eq!(Baseline::read(Path::new("nowhere"), file.to_str().unwrap()).unwrap().report.seed, 42, "by its path");
        assert_eq!(all(place.path()).len(), 1);
        let error = format!("{:#}", Baseline::read(place.path(), "slow").unwrap_err());
        assert!(error.contains("there are quick-1.0") && error.contains("baseline save slow"), "{error}");
        for name in ["", "../x", ".x", "a b", "a/b", &"x".repeat(101)] {
            assert!(save(place.path(), name, &sample::passed()).unwrap_err().to_string().contains("letters, digits"), "{name:?}");
        }
        let refused = save(place.path(), "bad", &sample::violated()).unwrap_err().to_string();
        assert!(refused.contains("no speed"), "{refused}");
        let cut = Report { interrupted: true, ..sample::passed() };
        assert!(save(place.path(), "cut", &cut).unwrap_err().to_string().contains("interrupted"));
    }

    #[test]
    fn what_is_not_the_same_is_named_and_gates_are_not_looked_at() {
        let baseline = Baseline { name: "quick".to_owned(), report: sample::passed() };
        let mut other = sample::passed();
        other.scenario["gates"] = serde_json::json!(["response.p99 < baseline * 1.10"]);
        assert!(baseline.differences(&other).is_empty());
        (other.seed, other.environment.cores) = (7, 64);
        other.scenario["load"]["executor"] = "constant-vus".into();
        let found = baseline.differences(&other);
        assert_eq!(found.len(), 3, "{found:?}");
        let error = baseline.refuse(&found).unwrap_err().to_string();
        assert!(error.contains("seed: 42 before, 7 after") && error.contains("scenario.load.executor"), "{error}");
        let target = TargetSeen { version: "99".to_owned(), ..baseline.report.environment.target.clone() };
        assert_eq!(baseline.refusal_of_target(&target), ["version of the target: SQLite 3.50.4 before, SQLite 99 after"]);
        let here = baseline.refusal(&baseline.report.scenario, 42);
        assert!(here.iter().any(|difference| difference.starts_with("machine's CPU: Example CPU")), "{here:?}");
    }
}
