//! What a part of the proof found, as rows of its table. Written as `<part>.<number>.json` into the folder that BATCHSQL_PROOF
//! names, where `scripts/prove` collects them; a part may be several tests, each with a tally of its own.

use std::path::PathBuf;

use serde::Serialize;

/// Whether all of the work is wanted, and not just the fast share of it.
pub(crate) fn full() -> bool {
    folder().is_some()
}

fn folder() -> Option<PathBuf> {
    std::env::var_os("BATCHSQL_PROOF").filter(|folder| !folder.is_empty()).map(PathBuf::from)
}

pub(crate) struct Tally {
    part: String,
    rows: Vec<Row>,
}

#[derive(Serialize)]
struct Row {
    part: String,
    class: String,
    database: String,
    planted: u64,
    found: u64,
    missed: u64,
    #[serde(rename = "false")]
    false_alarms: u64,
    note: String,
}

impl Tally {
    pub(crate) fn new(part: &str) -> Self {
        Self { part: part.to_owned(), rows: Vec::new() }
    }

    /// Adds to the row of this class and database.
    #[expect(clippy::too_many_arguments, reason = "they are the columns of the table")]
    pub(crate) fn add(&mut self, class: &str, database: &str, planted: u64, found: u64, missed: u64, false_alarms: u64, note: &str) {
        let known = self.rows.iter().position(|row| (row.class.as_str(), row.database.as_str()) == (class, database));
        let at = known.unwrap_or_else(|| {
            let (part, class, database, note) = (self.part.clone(), class.to_owned(), database.to_owned(), String::new());
            self.rows.push(Row { part, class, database, planted: 0, found: 0, missed: 0, false_alarms: 0, note });
            self.rows.len() - 1
        });
        let row = &mut self.rows[at];
        row.planted += planted;
        row.found += found;
        row.missed += missed;
        row.false_alarms += false_alarms;
        note.clone_into(&mut row.note);
    }

    /// Writes the rows, if a proof is under way.
    pub(crate) fn save(&self) {
        let Some(folder) = folder() else { return };
        // The tests of one part have different rows, and the same test has the same ones whenever it is run.
        let names: String = self.rows.iter().map(|row| format!("{} {};", row.class, row.database)).collect();
        let file = format!("{}.{:08x}.json", self.part, crc32fast::hash(names.as_bytes()));
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join(file), serde_json::to_vec_pretty(&self.rows).unwrap()).unwrap();
    }
}
