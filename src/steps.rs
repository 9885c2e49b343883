//! Runs in a row for one question (`search`, `sweep`): each of one scenario with other values, from fresh state, its reports kept in
//! the question's own folder.

use std::path::Path;

use tokio_util::sync::CancellationToken;

use crate::cli::Scenarios;
use crate::commands::{self, Loaded};
use crate::redact::redact;
use crate::report::Report;
use crate::runner::{self, Options, Progress, say};

/// What all runs share.
pub(crate) struct Steps<'a> {
    /// The one scenario, and what is changed in it for all of them.
    pub(crate) scenarios: &'a Scenarios,
    pub(crate) file: &'a Path,
    /// Where each has its folder.
    pub(crate) folder: &'a Path,
    pub(crate) progress: Progress,
    pub(crate) stop: CancellationToken,
}

/// The one scenario that was named.
pub(crate) fn only<'a>(command: &str, scenarios: &'a Scenarios) -> anyhow::Result<&'a Path> {
    match &scenarios.files[..] {
        [file] => Ok(file),
        files => anyhow::bail!("{command} takes one scenario; {} were named", files.len()),
    }
}

impl Steps<'_> {
    /// The scenario under `set`, beside what is changed for all.
    pub(crate) fn load(&self, set: &[String]) -> anyhow::Result<Loaded> {
        commands::load_scenario(self.scenarios, set, self.file)
    }

    /// Runs `loaded`, which [`Self::load`] made of `set`.
    pub(crate) async fn run(&self, loaded: Loaded, set: &[String]) -> anyhow::Result<Report> {
        self.forget_databases();
        let files = [self.file.display().to_string()];
        let words: String = set.iter().map(|set| format!(" --set {}", commands::quote(set))).collect();
        let options = Options {
            report_dir: self.folder.to_owned(),
            metrics: None,
            exports: None,
            before_verify: None,
            no_verify: false,
            keep_containers: false,
            baseline: None,
            reproduce: commands::reproduce("run", &files, loaded.scenario.seed, &loaded.secrets) + &redact(&words, &loaded.secrets),
            secrets: loaded.secrets,
            // Lines of each run would hide those that say which run it is.
            progress: if matches!(self.progress, Progress::Terminal) { Progress::Terminal } else { Progress::Off },
            stop: self.stop.clone(),
            notes: loaded.notes,
        };
        runner::run(loaded.scenario, options).await
    }

    /// Says how far it is.
    pub(crate) fn tell(&self, text: &str) {
        if !matches!(self.progress, Progress::Off) {
            say(text);
        }
    }

    /// Removes the SQLite files that runs made in the folder, so that the next begins without one.
    pub(crate) fn forget_databases(&self) {
        let _ = std::fs::remove_dir_all(self.folder.join("data"));
    }
}
