//! The reports in a folder: those of runs, and those of the runs inside a comparison's folder.

use std::fs;
use std::io::Read as _;
use std::path::Path;

use super::Entry;
use crate::report::{Report, SCHEMA_VERSION};

/// Most folders that are looked into.
const MOST: usize = 20_000;
/// Largest report that is read.
const LARGEST: u64 = 64 << 20;
/// Folders that hold no runs of their own.
const OTHERS: [&str; 3] = ["data", "sample", "baselines"];

/// Reads each report whose id `is_known` does not know. Returns how many cannot be read.
pub(super) fn each(report_dir: &Path, is_known: &dyn Fn(&str) -> bool, found: &mut dyn FnMut(Entry)) -> usize {
    let mut unreadable = 0;
    let mut look = |folder: &Path, name: &str| {
        if is_known(name) {
            return;
        }
        match read(&folder.join("report.json")).filter(|report| report.run_id == name).and_then(|report| Entry::of(&report)) {
            Some(entry) => found(entry),
            None => unreadable += 1,
        }
    };
    for (name, folder) in folders(report_dir) {
        if OTHERS.contains(&name.as_str()) {
            continue;
        }
        if folder.join("report.json").is_file() {
            look(&folder, &name);
            continue;
        }
        for (name, inner) in folders(&folder) {
            if inner.join("report.json").is_file() {
                look(&inner, &name);
            }
        }
    }
    unreadable
}

/// The folders in `folder`, the newest names last; a link leads elsewhere, and is none.
fn folders(folder: &Path) -> Vec<(String, std::path::PathBuf)> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let real = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    let mut names: Vec<_> = real.filter_map(|entry| Some((entry.file_name().into_string().ok()?, entry.path()))).collect();
    names.sort_unstable();
    let beyond = names.len().saturating_sub(MOST);
    names.split_off(beyond)
}

/// The report of the newest run that lies in a folder of its own.
pub(crate) fn newest(report_dir: &Path) -> Option<std::path::PathBuf> {
    let own = folders(report_dir).into_iter().rev().filter(|(name, _)| !OTHERS.contains(&name.as_str()));
    own.map(|(_, folder)| folder.join("report.json")).find(|file| file.is_file())
}

/// A report that this version can read.
pub(crate) fn read(file: &Path) -> Option<Report> {
    let mut bytes = Vec::new();
    fs::File::open(file).ok()?.take(LARGEST + 1).read_to_end(&mut bytes).ok()?;
    let report: Report = serde_json::from_slice(&bytes).ok()?;
    (bytes.len() as u64 <= LARGEST && report.schema_version <= SCHEMA_VERSION).then_some(report)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::sample;

    #[test]
    fn reports_are_found_in_folders_of_runs_and_of_comparisons() {
        let place = tempfile::tempdir().unwrap();
        let write = |folder: &str, id: &str| {
            let folder = place.path().join(folder);
            fs::create_dir_all(&folder).unwrap();
            let report = Report { run_id: id.to_owned(), ..sample::passed() };
            fs::write(folder.join("report.json"), serde_json::to_vec(&report).unwrap()).unwrap();
        };
        write("run-1", "run-1");
        write("compare-x/run-2", "run-2");
        write("renamed", "run-3");
        write("sample", "run-4");
        write("run-5", "run-5");
        fs::write(place.path().join("run-5/report.json"), "{\"schema_version\": 1, ").unwrap();
        let mut ids = Vec::new();
        let unreadable = each(place.path(), &|id| id == "run-9", &mut |entry| ids.push(entry.run_id));
        assert_eq!((ids, unreadable), (vec!["run-2".to_owned(), "run-1".to_owned()], 2));
        let mut again = Vec::new();
        each(place.path(), &|id| id == "run-1", &mut |entry| again.push(entry.run_id));
        assert_eq!(again, ["run-2"], "what is known is not read again");
    }
}
