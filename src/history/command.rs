//! `batchsql history`: the store brought up to the reports, then what it knows.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail, ensure};
use serde::Serialize;

use super::anomaly::{self, Anomaly};
use super::changes::changes;
use super::{Entry, Known, Store, StoreError, default_file, higher_is_better, known, known_or_folders, show};
use crate::cli::HistoryArgs;
use crate::commands;
use crate::recorder::Latency;
use crate::report::LatencySummary;
use crate::runner::say;

/// The seed of the permutation test: the same runs always give the same changes.
const SEED: u64 = 1;
/// The figures whose changes are looked for, beside the rate.
const FIGURES: [&str; 6] = ["response.p50", "response.p95", "response.p99", "service.p50", "service.p99", "error_rate"];

/// All runs that can be held against each other.
#[derive(Serialize)]
pub(crate) struct Group {
    pub(crate) scenario: String,
    pub(crate) scenario_hash: String,
    pub(crate) machine_hash: String,
    /// Response time over all runs that count, from their histograms merged.
    pub(crate) response: LatencySummary,
    pub(crate) changes: Vec<Moved>,
    /// Those above 0.8, the newest first.
    pub(crate) anomalies: Vec<Anomaly>,
    /// The newest first.
    pub(crate) runs: Vec<Entry>,
}

/// A figure that moved.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Moved {
    pub(crate) figure: String,
    /// Medians of the runs before and from the change on.
    pub(crate) before: f64,
    pub(crate) after: f64,
    pub(crate) change_percent: Option<f64>,
    pub(crate) worse: bool,
    /// The first run of the new level, and its commit.
    pub(crate) run_id: String,
    pub(crate) started_at: String,
    pub(crate) commit: Option<String>,
    /// The commit of the last run of the old level: the figure moved after it.
    pub(crate) last_commit_before: Option<String>,
}

#[derive(Serialize)]
struct Shown<'a> {
    groups: &'a [Group],
    notes: &'a [String],
}

/// Shows what is known of past runs.
pub(crate) fn history(args: &HistoryArgs) -> u8 {
    match look(args) {
        Ok(code) => code,
        Err(error) => commands::failed(&error, &[]),
    }
}

fn look(args: &HistoryArgs) -> anyhow::Result<u8> {
    let directory = args.report_dir.display();
    ensure!(args.report_dir.is_dir(), "--report-dir {directory}: there is no such folder; name the one that runs were reported to");
    let file = args.history.clone().unwrap_or_else(|| default_file(&args.report_dir));
    let Known { entries, notes, .. } = caught_up(&args.report_dir, &file)?;
    let mut groups = groups(&entries);
    if let Some(scenario) = &args.scenario {
        let names: Vec<_> = groups.iter().map(|group| group.scenario.clone()).collect();
        groups.retain(|group| group.scenario == *scenario);
        if groups.is_empty() {
            bail!("{scenario}: no run of this scenario is known; known are: {}", unique(names).join(", "));
        }
    }
    if args.json {
        return Ok(commands::print_json(&Shown { groups: &groups, notes: &notes }));
    }
    notes.iter().for_each(|note| say(&format!("batchsql: {note}")));
    if groups.is_empty() {
        return Ok(commands::print(&format!("no runs in {directory} yet; make one with batchsql run\n")));
    }
    let text: String = if args.scenario.is_some() { groups.iter().map(show::details).collect() } else { show::overview(&groups) };
    Ok(commands::print(&text))
}

fn unique(mut names: Vec<String>) -> Vec<String> {
    names.sort_unstable();
    names.dedup();
    names
}

/// What the store and the folders know, the store made to know it all. A damaged store is put aside and made again from the reports.
fn caught_up(report_dir: &Path, file: &Path) -> anyhow::Result<Known> {
    let opened = Store::open(file).and_then(|store| store.check().map(|()| store));
    let (opened, aside) = match opened {
        Err(error @ StoreError::Damaged(..)) => {
            let aside = put_aside(file)?;
            (Store::open(file), Some(format!("{error}: it is now {}, a new one was made from the reports", aside.display())))
        }
        opened => (opened, None),
    };
    let mut store = match opened {
        Ok(store) => store,
        Err(error @ StoreError::Newer(..)) => return Err(error.into()),
        Err(error) => {
            let mut known = known_or_folders(report_dir, file);
            known.notes.push(format!("{error}; nothing was added to it"));
            return Ok(known);
        }
    };
    let mut known = known(report_dir, store.entries()?);
    known.notes.extend(aside);
    if let Err(error) = store.add(&known.missing) {
        known.notes.push(format!("{} runs were not added: {error}", known.missing.len()));
    }
    Ok(known)
}

/// Renames a damaged store, and removes its journal, which belongs to it alone.
fn put_aside(file: &Path) -> anyhow::Result<PathBuf> {
    let aside = file.with_extension(format!("db.damaged-{}", jiff::Timestamp::now().strftime("%Y%m%d-%H%M%S")));
    fs::rename(file, &aside).with_context(|| format!("the damaged history {} cannot be put aside; move it away", file.display()))?;
    for journal in ["-wal", "-shm"] {
        let mut name = file.as_os_str().to_owned();
        name.push(journal);
        let _ = fs::remove_file(PathBuf::from(name));
    }
    Ok(aside)
}

/// `entries` (the oldest first) by what they can be held against; the group of the newest run is the first.
pub(crate) fn groups(entries: &[Entry]) -> Vec<Group> {
    let mut scores = anomaly::scores(entries);
    scores.retain(|anomaly| anomaly.score > anomaly::SHOWN);
    let mut keys: Vec<[&str; 3]> = Vec::new();
    for entry in entries.iter().rev() {
        if !keys.contains(&entry.group()) {
            keys.push(entry.group());
        }
    }
    let of = |key: [&str; 3]| {
        let runs: Vec<&Entry> = entries.iter().filter(|entry| entry.group() == key).collect();
        let [scenario, scenario_hash, machine_hash] = key.map(str::to_owned);
        let anomalies = scores.iter().rev().filter(|anomaly| runs.iter().any(|run| run.run_id == anomaly.run_id)).cloned().collect();
        let response = merged(&runs);
        Group {
            scenario,
            scenario_hash,
            machine_hash,
            response,
            changes: moved(&runs),
            anomalies,
            runs: runs.into_iter().rev().cloned().collect(),
        }
    };
    keys.into_iter().map(of).collect()
}

/// The response time over several runs: percentiles come from their histograms merged, never from averaged percentiles.
pub(crate) fn merged(runs: &[&Entry]) -> LatencySummary {
    let mut all = Latency::default();
    for run in runs.iter().filter(|run| !run.interrupted) {
        if let Ok(one) = Latency::decode(&run.histograms[0]) {
            all.merge(&one);
        }
    }
    all.summary()
}

/// Every figure that moved over `runs` (the oldest first), in the order of time.
fn moved(runs: &[&Entry]) -> Vec<Moved> {
    let counting: Vec<&&Entry> = runs.iter().filter(|run| run.counts()).collect();
    let Some(rate) = counting.last().map(|run| run.rate_name()) else { return Vec::new() };
    let mut found = Vec::new();
    for figure in std::iter::once(rate).chain(FIGURES) {
        let with: Vec<(&Entry, f64)> = counting.iter().filter_map(|run| Some((**run, *run.figures.get(figure)?))).collect();
        let values: Vec<f64> = with.iter().map(|(_, value)| *value).collect();
        for change in changes(&values, SEED) {
            let (first, last) = (with[change.at].0, with[change.at - 1].0);
            found.push(Moved {
                figure: figure.to_owned(),
                before: change.before,
                after: change.after,
                change_percent: (change.before != 0.0).then(|| (change.after / change.before - 1.0) * 100.0),
                worse: (change.after > change.before) != higher_is_better(figure),
                run_id: first.run_id.clone(),
                started_at: first.started_at.clone(),
                commit: first.fingerprint.git_commit.clone(),
                last_commit_before: last.fingerprint.git_commit.clone(),
            });
        }
    }
    found.sort_by(|a, b| a.started_at.cmp(&b.started_at));
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::sample;

    fn run(number: usize, p99: f64, commit: &str) -> Entry {
        let mut entry = Entry::of(&sample::passed()).unwrap();
        (entry.run_id, entry.started_at) = (format!("run-{number:02}"), format!("2026-03-{:02}T00:00:00.000Z", number + 1));
        entry.fingerprint.git_commit = Some(commit.to_owned());
        // Ten percent of noise that repeats itself.
        entry.figures = [("response.p99".to_owned(), p99 * (1.0 + 0.01 * ((number * 7) % 10) as f64))].into();
        entry
    }

    #[test]
    fn a_change_names_the_commits_on_both_sides() {
        let mut runs: Vec<Entry> = (0..12).map(|n| run(n, 10.0, "aaaa")).collect();
        assert!(groups(&runs)[0].changes.is_empty());
        runs.extend((12..22).map(|n| run(n, 15.0, "bbbb")));
        let groups = groups(&runs);
        let [moved] = &groups[0].changes[..] else { panic!("{:?}", groups[0].changes) };
        assert_eq!((moved.figure.as_str(), moved.run_id.as_str(), moved.worse), ("response.p99", "run-12", true));
        assert_eq!((moved.last_commit_before.as_deref(), moved.commit.as_deref()), (Some("aaaa"), Some("bbbb")));
        assert!((moved.change_percent.unwrap() - 50.0).abs() < 5.0, "{moved:?}");
        let text = show::details(&groups[0]);
        assert!(text.contains("response.p99 rose by 4") || text.contains("response.p99 rose by 5"), "{text}");
        assert!(text.contains("after commit aaaa") && text.contains("with bbbb"), "{text}");
    }

    #[test]
    fn percentiles_over_runs_are_those_of_all_operations() {
        let with = |millis: u64, count: u64| {
            let mut latency = Latency::default();
            latency.record_n(std::time::Duration::from_millis(millis), count);
            Entry { histograms: [latency.encode(), String::new()], ..run(0, 1.0, "a") }
        };
        let (many, few) = (with(1, 9_900), with(100, 99));
        let summary = merged(&[&many, &few]);
        assert_eq!(summary.count, 9_999);
        assert!(summary.p99_ms.unwrap() < 1.1, "an average of the two would be 50: {summary:?}");
        assert!(summary.max_ms.unwrap() > 99.0);
    }

    #[test]
    fn groups_keep_machines_apart_and_the_newest_first() {
        let mut runs = vec![run(0, 1.0, "a"), run(1, 1.0, "a"), run(2, 1.0, "a")];
        runs[1].machine_hash = "other".to_owned();
        let groups = groups(&runs);
        assert_eq!(groups.iter().map(|group| group.runs.len()).collect::<Vec<_>>(), [2, 1]);
        assert_eq!(groups[0].runs[0].run_id, "run-02");
        assert!(show::overview(&groups).lines().count() >= 3);
    }
}
