//! A table as a run left it, with batches of every outcome: written by the program's own targets, its ledger by its own writer, and
//! its rows, attempted or not, once more in a table of donors beside it, from which plants are made and undone by SQL alone.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use batchsql::ledger::{FILE, Header, LedgerWriter, Outcome, VERSION};
use batchsql::report::Integrity;
use batchsql::runner::Progress;
use batchsql::runner::verify::{SCENARIO_FILE, verify_run};
use batchsql::scenario::Scenario;
use batchsql::table::{Row, Table};
use batchsql::target::{self, Context, Target, WritePlan};
use batchsql::workload::batch_insert::Generator;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::runtime::Runtime;

use crate::database::{Database, Kind, User};
use crate::random::Random;

/// What became of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    Acknowledged,
    Rejected,
    /// Unknown, and stored.
    Recovered,
    /// Unknown, and not stored.
    Absent,
    /// Not even attempted.
    Never,
}

/// Consecutive operations.
#[derive(Clone, Debug)]
pub(crate) struct Batch {
    pub(crate) fate: Fate,
    pub(crate) members: Vec<u64>,
}

/// What a world is to be like.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Design {
    pub(crate) name: &'static str,
    pub(crate) seed: u64,
    pub(crate) rows: u64,
    pub(crate) conflict: &'static str,
    pub(crate) unique_key: bool,
    pub(crate) duplicate_keys: f64,
    /// The fate of the first and of the last batch, and of more of the others.
    pub(crate) edge: Fate,
}

/// One change by SQL. Donors are named by their own key.
#[derive(Clone, Debug)]
pub(crate) enum Edit {
    Delete(i64),
    /// Stores the values of a donor under a key that is not stored.
    Put(i64, i64),
    /// Stores a key once more.
    Copy(i64),
    /// Sets one column to an SQL expression.
    Set(i64, usize, String),
    /// Exchanges two columns of a row.
    Exchange(i64, usize, usize),
    /// Sets every column to a donor's.
    Become(i64, i64),
}

impl Edit {
    fn key(&self) -> i64 {
        match self {
            Edit::Delete(key) | Edit::Put(key, _) | Edit::Copy(key) => *key,
            Edit::Set(key, ..) | Edit::Exchange(key, ..) | Edit::Become(key, _) => *key,
        }
    }
}

/// What donors of another run's rows have added to their keys.
pub(crate) const OTHER_RUN: i64 = 1_000_000;
/// Operations behind the last attempted one that have donors too.
pub(crate) const BEYOND: u64 = 20;

pub(crate) struct World {
    pub(crate) table: Table,
    pub(crate) generator: Generator,
    pub(crate) batches: Vec<Batch>,
    /// One more than the last operation attempted.
    pub(crate) end: u64,
    /// Each stored key and the operation whose values it has.
    pub(crate) stored: BTreeMap<i64, u64>,
    pub(crate) database: Database,
    donors: Database,
    user: User,
    scenario: Value,
    written: (String, u64),
    folder: TempDir,
}

impl World {
    /// Makes a world in `database`, whose table is given the design's name.
    pub(crate) fn new(runtime: &Runtime, database: &Database, design: &Design) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let named = |name: String| Database { kind: database.kind, url: database.url.clone(), table: name };
        let (database, donors) = (named(design.name.to_owned()), named(format!("{}_donors", design.name)));
        let insert = json!({
            "columns": columns(), "conflict": design.conflict, "unique_key": design.unique_key, "duplicate_keys": design.duplicate_keys,
            "content": {"charset": "unicode", "size": {"min": 6, "max": 20}, "nulls": 0.2, "extremes": 0.04}
        });
        let mut scenario = database.scenario(insert, json!({"executor": "shared-iterations"}));
        scenario["seed"] = json!(design.seed);
        let parsed: Scenario = serde_json::from_value(scenario.clone()).unwrap();
        let insert = parsed.workload.batch_insert().unwrap();
        let generator = Generator::new(design.seed, insert);
        let (batches, end) = batches(design);
        let mut world = Self {
            table: insert.table(),
            user: database.user(),
            stored: BTreeMap::new(),
            written: (String::new(), 0),
            generator,
            batches,
            end,
            database,
            donors,
            scenario,
            folder,
        };
        runtime.block_on(world.write(&parsed, design));
        world
    }

    async fn write(&mut self, scenario: &Scenario, design: &Design) {
        let insert = scenario.workload.batch_insert().unwrap();
        let run_id = format!("proof-{}-{}", design.name, design.seed);
        let report_dir = self.folder.path();
        let context = Context { run_id: &run_id, scenario_name: "proof", report_dir, concurrency: Some(1), create: true };
        let target = target::connect(&scenario.target, &context).await.unwrap();
        let plan = WritePlan { table: self.table.clone(), conflict: insert.conflict, method: insert.method };
        let plan = Arc::new(target.resolve(plan, 20).unwrap());
        target.create(&plan.table, &run_id).await.unwrap();
        let header = Header { version: VERSION, run_id: run_id.clone(), seed: design.seed };
        let ledger = LedgerWriter::create(&self.folder.path().join(FILE), &header).unwrap();
        let mut session = target.acquire().await.unwrap();
        for (id, batch) in self.batches.iter().enumerate().filter(|(_, batch)| batch.fate != Fate::Never) {
            ledger.intent(id as u64, session.id(), batch.members.iter().copied()).unwrap();
            if matches!(batch.fate, Fate::Acknowledged | Fate::Recovered) {
                let rows = batch.members.iter().map(|index| self.generator.row(*index)).collect();
                session.write(&plan, &Arc::new(rows)).await.unwrap();
            }
            match batch.fate {
                Fate::Acknowledged => ledger.outcome(id as u64, Outcome::Acknowledged, false).unwrap(),
                Fate::Rejected => ledger.outcome(id as u64, Outcome::Rejected, false).unwrap(),
                // An intent without an outcome means the same.
                _ if id % 3 == 0 => {}
                _ => ledger.outcome(id as u64, Outcome::Unknown, true).unwrap(),
            }
        }
        for batch in self.batches.iter().filter(|batch| matches!(batch.fate, Fate::Acknowledged | Fate::Recovered)) {
            for index in &batch.members {
                let key = Generator::key(self.generator.slot(*index));
                // The first of several stays under `ignore`, the last under the others.
                if design.conflict != "ignore" || !self.stored.contains_key(&key) {
                    self.stored.insert(key, *index);
                }
            }
        }
        drop(session);
        self.write_donors(target.as_ref(), &run_id, design).await;
    }

    /// A donor for each operation, attempted or not, under the operation's own key; and another run's rows.
    async fn write_donors(&self, target: &dyn Target, run_id: &str, design: &Design) {
        let table = Table { name: self.donors.table.clone(), unique_key: true, ..self.table.clone() };
        let plan = WritePlan { table, conflict: target::Conflict::Error, method: target::Method::Auto };
        let plan = Arc::new(target.resolve(plan, 200).unwrap());
        target.create(&plan.table, run_id).await.unwrap();
        let scenario: Scenario = serde_json::from_value(self.scenario.clone()).unwrap();
        let other = Generator::new(design.seed ^ 0xffff, scenario.workload.batch_insert().unwrap());
        let mut session = target.acquire().await.unwrap();
        let operations: Vec<u64> = (0..self.end + BEYOND).collect();
        for (generator, first) in [(&self.generator, 0), (&other, OTHER_RUN)] {
            for chunk in operations.chunks(200) {
                let donor = |index: &u64| {
                    let mut row: Row = generator.row(*index);
                    row[self.table.key] = batchsql::table::Value::Int(donor(*index) + first);
                    row
                };
                session.write(&plan, &Arc::new(chunk.iter().map(donor).collect())).await.unwrap();
            }
        }
    }

    /// Judges what is stored now by the ledger.
    pub(crate) fn verify(&mut self, runtime: &Runtime, method: &str, readers: u64) -> Integrity {
        self.try_verify(runtime, method, readers).unwrap()
    }

    /// As [`World::verify`], of a ledger that may be damaged.
    pub(crate) fn try_verify(&mut self, runtime: &Runtime, method: &str, readers: u64) -> anyhow::Result<Integrity> {
        let wanted = (method.to_owned(), readers);
        if self.written != wanted {
            self.scenario["verify"] = json!({"method": method, "readers": readers});
            fs::write(self.folder.path().join(SCENARIO_FILE), self.scenario.to_string()).unwrap();
            self.written = wanted;
        }
        runtime.block_on(verify_run(self.folder.path(), None, &Progress::Off))
    }

    /// The run's folder.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Does all of `edits` in one transaction.
    pub(crate) fn apply(&mut self, edits: &[Edit]) {
        let sql: Vec<String> = edits.iter().map(|edit| self.sql(edit)).collect();
        self.transaction(&sql);
    }

    /// Stores again what was stored under the keys of `edits`.
    pub(crate) fn undo(&mut self, edits: &[Edit]) {
        let mut keys: Vec<i64> = edits.iter().map(Edit::key).collect();
        keys.sort_unstable();
        keys.dedup();
        let mut sql: Vec<String> = keys.iter().map(|key| self.sql(&Edit::Delete(*key))).collect();
        let put = |key: &i64| self.stored.get(key).map(|index| self.sql(&Edit::Put(*key, donor(*index))));
        sql.extend(keys.iter().filter_map(put));
        self.transaction(&sql);
    }

    fn transaction(&mut self, sql: &[String]) {
        self.user.execute(&format!("BEGIN; {}; COMMIT", sql.join("; ")));
    }

    fn name(&self, column: usize) -> String {
        let name = &self.table.columns[column].name;
        if self.database.kind == Kind::Mysql { format!("`{name}`") } else { format!("\"{name}\"") }
    }

    fn sql(&self, edit: &Edit) -> String {
        let (table, donors, key) = (self.database.quoted(), self.donors.quoted(), self.name(self.table.key));
        let others: Vec<String> = (0..self.table.columns.len()).filter(|at| *at != self.table.key).map(|at| self.name(at)).collect();
        let columns = others.join(", ");
        match edit {
            Edit::Delete(id) => format!("DELETE FROM {table} WHERE {key} = {id}"),
            Edit::Put(id, donor) => {
                format!("INSERT INTO {table} ({key}, {columns}) SELECT {id}, {columns} FROM {donors} WHERE {key} = {donor}")
            }
            Edit::Copy(id) => {
                format!("INSERT INTO {table} ({key}, {columns}) SELECT {key}, {columns} FROM {table} WHERE {key} = {id} LIMIT 1")
            }
            Edit::Set(id, column, value) => format!("UPDATE {table} SET {} = {value} WHERE {key} = {id}", self.name(*column)),
            Edit::Exchange(id, a, b) => {
                // MySQL assigns one column after the other: both come from the donor.
                let donor = donor(self.stored[id]);
                let of = |column: usize| format!("(SELECT d.{} FROM {donors} d WHERE d.{key} = {donor})", self.name(column));
                let (left, right) = (self.name(*a), self.name(*b));
                format!("UPDATE {table} SET {left} = {}, {right} = {} WHERE {key} = {id}", of(*b), of(*a))
            }
            Edit::Become(id, donor) => [self.sql(&Edit::Delete(*id)), self.sql(&Edit::Put(*id, *donor))].join("; "),
        }
    }
}

/// The key of an operation's donor.
pub(crate) fn donor(index: u64) -> i64 {
    index as i64 + 1
}

/// Every type; and of most, two of one kind, so that values can be swapped.
fn columns() -> Value {
    json!([
        {"name": "id", "type": "int64", "key": true},
        {"name": "name", "type": "text", "index": true},
        {"name": "title", "type": "text"},
        {"name": "words", "type": "text", "nullable": true},
        {"name": "count", "type": "int64"},
        {"name": "limit", "type": "int64"},
        {"name": "amount", "type": "decimal(10,2)"},
        {"name": "price", "type": "decimal(10,2)"},
        {"name": "score", "type": "float64"},
        {"name": "flag", "type": "bool"},
        {"name": "blob", "type": "bytes"},
        {"name": "at", "type": "timestamp"},
        {"name": "reference", "type": "uuid"},
        {"name": "maybe", "type": "int64", "nullable": true},
    ])
}

/// Batches of every fate and of a few sizes, and the end of the last one.
fn batches(design: &Design) -> (Vec<Batch>, u64) {
    let mut random = Random::new(design.seed ^ 0xba7c);
    let mut batches = Vec::new();
    let mut end = 0;
    while end < design.rows {
        let at_edge = end == 0 || end + 13 >= design.rows;
        // Few rows at the edges, so that all of a plant there are among a report's examples.
        let size = if at_edge { random.between(2, 4) } else { *random.one(&[1, 1, 2, 3, 5, 8, 13]) };
        let fates = [(Fate::Acknowledged, 60), (Fate::Rejected, 70), (Fate::Recovered, 80), (Fate::Absent, 90), (Fate::Never, 100)];
        let drawn = random.below(100);
        let fate = fates.iter().find(|(_, below)| drawn < *below).unwrap().0;
        // The fate that a world is made for is not rare in it: some batch of it lies across a bound between readers.
        let fate = if random.percent(30) { design.edge } else { fate };
        let shared_unknown = design.duplicate_keys > 0.0 && matches!(fate, Fate::Recovered | Fate::Absent);
        // Where keys are shared, which version is stored must be certain.
        let fate = if shared_unknown || !design.unique_key { Fate::Acknowledged } else { fate };
        batches.push(Batch { fate: if at_edge { design.edge } else { fate }, members: (end..end + size).collect() });
        end += size;
    }
    (batches, end)
}
