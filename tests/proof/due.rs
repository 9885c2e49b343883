//! Runs that are due to end one way: counted, written for the table, and asserted in the end.

use serde_json::Value;

use crate::database::{Database, Kind};
use crate::place::Ended;
use crate::servers::Server;
use crate::tally::{Tally, full};

/// A row of the table: runs of one control on one database.
pub(crate) struct Due {
    part: &'static str,
    class: &'static str,
    database: &'static str,
    note: &'static str,
    runs: u64,
    unlike: Vec<String>,
}

impl Due {
    pub(crate) fn new(part: &'static str, class: &'static str, database: &'static str, note: &'static str) -> Self {
        Self { part, class, database, note, runs: 0, unlike: Vec::new() }
    }

    /// One run, and what was unlike what it was due to be.
    pub(crate) fn run(&mut self, unlike: Option<String>) {
        self.runs += 1;
        self.unlike.extend(unlike);
    }

    /// Writes the row. `red`: a run unlike what is due is a miss; else a false alarm.
    pub(crate) fn close(self, red: bool) {
        let unlike = self.unlike.len() as u64;
        let (missed, alarms) = if red { (unlike, 0) } else { (0, unlike) };
        let mut tally = Tally::new(self.part);
        tally.add(self.class, self.database, self.runs, self.runs - unlike, missed, alarms, self.note);
        tally.save();
        assert!(self.runs > 0 && self.unlike.is_empty(), "{} on {}: {:#?}", self.class, self.database, self.unlike);
    }
}

/// How often something is done: once in the fast share.
pub(crate) fn times(all: u64) -> u64 {
    if full() { all } else { 1 }
}

/// The report of a run, however it ended.
pub(crate) fn report(ended: &Ended) -> Value {
    serde_json::from_str(&ended.stdout).unwrap_or_else(|error| panic!("no report ({error}): {}", ended.stderr))
}

/// What of `integrity` is not as it is due: a verdict, and so many anomalies of one class and none of any other.
pub(crate) fn unlike(report: &Value, found: &[(&str, u64)]) -> Option<String> {
    let integrity = &report["integrity"];
    let classes = ["lost", "duplicated", "corrupted", "phantom", "resurrected", "stale", "partial_batches"];
    let expected = |class: &str| found.iter().find(|(name, _)| *name == class).map_or(0, |(_, count)| *count);
    let counted = classes.iter().all(|class| integrity[*class] == expected(class));
    let verdict = if found.is_empty() { "holds" } else { "violated" };
    let wrong = !counted || integrity["verdict"] != verdict;
    wrong.then(|| format!("due {verdict} {found:?}, found {integrity:#} in {} {}", report["outcomes"], report["errors"]))
}

/// A table on a server of the test's own.
pub(crate) fn database(server: &Server, table: &str) -> Database {
    let kind = if server.url.starts_with("postgres") { Kind::Postgres } else { Kind::Mysql };
    Database { kind, url: server.url.clone(), table: table.to_owned() }
}
