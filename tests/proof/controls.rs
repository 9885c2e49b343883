//! Negative controls: settings under which databases lose or alter what they acknowledged must turn a run red, by class and by key,
//! and their safe twins must stay green.

use batchsql::scenario::BatchInsert;
use batchsql::table::{Row, Value as Cell};
use batchsql::workload::batch_insert::Generator;
use serde_json::{Value, json};

use crate::database::{Database, User, silent_start};
use crate::due::{Due, database, report, times, unlike};
use crate::place::{Place, keys, meet, rendezvous};
use crate::servers::Server;

/// Examples a class in a report.
const EXAMPLES: usize = 20;
const CRASH: &str = "a process crash shows it";

/// Three seconds of rows during which the server dies and is started again.
fn killed(server: &Server, db: &Database, seed: u64) -> Value {
    let retry = json!({"attempts": 60, "base": "20ms", "factor": 1.5, "max": "200ms"});
    let load = json!({"executor": "constant-arrival-rate", "rate": 2000, "duration": "3s", "lag_limit": "30s"});
    let mut scenario = db.scenario(json!({"pipeline": {"flush_size": 20, "flush_interval": "10ms", "retry": retry}}), load);
    scenario["seed"] = json!(seed);
    scenario["target"]["pool"] = json!({"statement_timeout": "5s"});
    scenario["faults"] = json!([{
        "at": format!("{}ms", 1500 + seed * 137 % 500), "for": "100ms", "kind": "kill",
        "pid_file": server.pid_file.to_str().unwrap(), "start": server.start,
    }]);
    scenario["gates"] = json!(["error_rate <= 100%"]);
    scenario
}

/// What is unlike a run that lost rows: some are lost and counted to the fault, and those named are really not there.
fn lost_nothing(report: &Value, db: &Database) -> Option<String> {
    let (integrity, harm) = (&report["integrity"], &report["faults"][0]["harm"]);
    let lost = integrity["lost"].as_u64().unwrap();
    let found = unlike(report, &[("lost", lost)]).filter(|_| lost > 0).or((lost == 0).then(|| "nothing was lost".to_owned()));
    let named = keys(integrity, "lost");
    let listed: Vec<String> = named.iter().map(ToString::to_string).collect();
    let there = |keys: &str| db.number(&format!("SELECT count(*) FROM {{table}} WHERE id IN ({keys})"));
    found.or_else(|| {
        let absent = !listed.is_empty() && listed.len() == EXAMPLES.min(lost as usize) && there(&listed.join(",")) == 0;
        let stored = db.number("SELECT count(*) FROM {table}") as u64;
        let sums_up = integrity["must_be_there"].as_u64().unwrap() + integrity["recovered"].as_u64().unwrap() - lost == stored;
        (!absent || !sums_up || harm["lost"] != lost).then(|| format!("{named:?} of {lost}, {stored} stored, {harm}: {integrity}"))
    })
}

/// Whether a log's own writer came between the last commits and the kill is chance: a few tries make one run, which ends with the first
/// that lost rows.
fn until_lost(server: &Server, db: &Database, seed: u64, meanwhile: impl Fn()) -> Option<String> {
    let mut last = None;
    for attempt in 0..5 {
        let place = Place::new();
        let mut running = place.start(&killed(server, db, seed * 10 + attempt), &[]);
        running.folder();
        db.await_rows();
        meanwhile();
        last = lost_nothing(&report(&running.end()), db);
        if last.is_none() {
            break;
        }
    }
    last
}

/// MariaDB under kill -9 with a redo log that is written, or not, at each commit.
fn flush_log(value: u32, name: &'static str, note: &'static str) {
    let setting = format!("innodb_flush_log_at_trx_commit={value}");
    let Some(server) = Server::mariadb(&[&setting]) else { return };
    let db = database(&server, "flush_log");
    let mut due = Due::new("controls", name, "MariaDB", note);
    for seed in 1..=times(5) {
        due.run(match value {
            0 => until_lost(&server, &db, seed, || ()),
            _ => unlike(&report(&Place::new().run(&killed(&server, &db, seed), &[])), &[]),
        });
    }
    due.close(value == 0);
}

#[test]
fn a_log_that_is_not_written_at_commit_loses_rows() {
    flush_log(0, "innodb_flush_log_at_trx_commit=0, kill -9: lost", CRASH);
}

#[test]
fn a_log_that_is_flushed_at_commit_loses_none() {
    flush_log(1, "innodb_flush_log_at_trx_commit=1, kill -9: holds", "the safe twin");
}

#[test]
fn a_log_that_is_written_and_not_flushed_survives_the_process() {
    flush_log(
        2,
        "innodb_flush_log_at_trx_commit=2, kill -9: holds",
        "survives a process crash; what power loss would take, it cannot show",
    );
}

#[test]
fn commits_that_do_not_wait_for_the_log_lose_rows() {
    let settings = ["synchronous_commit=off", "wal_writer_delay=10s", "wal_writer_flush_after=1GB"];
    let Some(server) = Server::postgres(&settings) else { return };
    let db = database(&server, "async_commit");
    let mut due = Due::new(
        "controls",
        "synchronous_commit=off, kill -9: lost",
        "PostgreSQL",
        "a process crash shows it; wal_writer_delay=10s makes it likely",
    );
    for seed in 1..=times(5) {
        // The table itself is not to be lost.
        due.run(until_lost(&server, &db, seed, || db.execute("CHECKPOINT")));
    }
    due.close(true);
}

#[test]
fn commits_that_wait_for_the_log_lose_none() {
    let Some(server) = Server::postgres(&["synchronous_commit=on", "wal_writer_delay=10s"]) else { return };
    let db = database(&server, "sync_commit");
    let mut due = Due::new("controls", "synchronous_commit=on, kill -9: holds", "PostgreSQL", "the safe twin");
    for seed in 1..=times(5) {
        due.run(unlike(&report(&Place::new().run(&killed(&server, &db, seed), &[])), &[]));
    }
    due.close(false);
}

/// A run of 200 single rows into a table that `alter` changes before the first of them, and `restore` before it is read back.
fn altered(db: &Database, insert: &Value, seed: u64, alter: &[&str], restore: &[&str]) -> Value {
    let mut insert = insert.clone();
    insert["rows"] = json!(200);
    insert["pipeline"] = json!({"flush_size": 1, "concurrency": 1});
    let mut scenario = db.scenario(insert, silent_start(2000));
    scenario["seed"] = json!(seed);
    scenario["gates"] = json!(["error_rate <= 100%"]);
    let place = Place::new();
    let mut running = place.start(&scenario, &["--before-verify", &rendezvous(&place)]);
    let mut user: User = db.await_table(&mut running);
    for statement in alter {
        user.execute(&db.filled(statement));
    }
    meet(&place, &mut running);
    for statement in restore {
        user.execute(&db.filled(statement));
    }
    place.write("go", "");
    report(&running.end())
}

/// A key and one column more.
fn two_columns(column: Value, charset: &str) -> Value {
    json!({"columns": [{"name": "id", "type": "int64", "key": true}, column], "content": {"charset": charset}})
}

/// The keys of the rows whose second column is `hit`, computed from the seed.
fn expected(insert: &Value, seed: u64, hit: impl Fn(&Cell) -> bool) -> Vec<i64> {
    let insert: BatchInsert = serde_json::from_value(insert.clone()).unwrap();
    let generator = Generator::new(seed, &insert);
    let mut row = Row::default();
    let keys = (0..200).filter(|index| {
        generator.fill(*index, &mut row);
        hit(&row[1])
    });
    keys.map(|index| index as i64 + 1).collect()
}

/// What is unlike `expected` rows that are corrupted in this way, and no others.
fn not_corrupted(report: &Value, expected: &[i64], sub_kind: &str) -> Option<String> {
    assert!(!expected.is_empty() && expected.len() < 200, "{expected:?} says nothing");
    let found = unlike(report, &[("corrupted", expected.len() as u64)]);
    let examples = report["integrity"]["examples"].as_array().unwrap();
    let first = &expected[..expected.len().min(EXAMPLES)];
    let exact = keys(&report["integrity"], "corrupted") == first
        && examples.iter().all(|example| {
            // Where nothing but spaces was cut off, they are what is missing.
            let spaces = example["expected"].as_str().is_some_and(|expected| Some(expected.trim_end()) == example["found"].as_str());
            example["sub_kind"] == if spaces { "padded" } else { sub_kind }
        });
    found.or_else(|| (!exact).then(|| format!("due {first:?} {sub_kind}, found {examples:?}")))
}

/// A control and its safe twin on MariaDB servers of their own.
struct Pair {
    names: [&'static str; 2],
    insert: Value,
    /// The server's setting for the control and for its twin.
    settings: [&'static str; 2],
    alter: [Vec<&'static str>; 2],
    restore: Vec<&'static str>,
    sub_kind: &'static str,
    /// What even the twin pads.
    padded: fn(&Cell) -> bool,
}

fn nothing(_: &Cell) -> bool {
    false
}

impl Pair {
    fn prove(self, hit: impl Fn(&Cell) -> bool) {
        for (place, red) in [(0, true), (1, false)] {
            let Some(server) = Server::mariadb(&[self.settings[place]]) else { return };
            let db = database(&server, "altered");
            let note = if red { "exact class, exact keys" } else { "the safe twin" };
            let mut due = Due::new("controls", self.names[place], "MariaDB", note);
            for seed in 1..=times(5) {
                let report = altered(&db, &self.insert, seed, &self.alter[place], &self.restore);
                let keys = if red { expected(&self.insert, seed, &hit) } else { expected(&self.insert, seed, self.padded) };
                due.run(match (red, keys.is_empty()) {
                    (true, _) => not_corrupted(&report, &keys, self.sub_kind),
                    (false, true) => unlike(&report, &[]),
                    (false, false) => not_corrupted(&report, &keys, "padded"),
                });
            }
            due.close(red);
        }
    }
}

const STRICT: &str = "sql_mode=STRICT_TRANS_TABLES";
const LAX: &str = "sql_mode=";
const NARROW: &str = "ALTER TABLE {table} MODIFY note VARCHAR(6) NOT NULL";

fn notes() -> Value {
    json!({"name": "note", "type": "text", "size": {"min": 3, "max": 10}})
}

fn longer_than_six(cell: &Cell) -> bool {
    matches!(cell, Cell::Text(text) if text.chars().count() > 6)
}

/// Too long by spaces only: those are cut off in every mode, as the standard of SQL has it.
fn longer_by_spaces(cell: &Cell) -> bool {
    longer_than_six(cell) && matches!(cell, Cell::Text(text) if text.chars().skip(6).all(|c| c == ' '))
}

#[test]
fn values_that_do_not_fit_are_cut_without_strict_mode_and_refused_with_it() {
    let names = ["non-strict mode, values too long: corrupted", "strict mode, values too long: refused, but for spaces at the end"];
    let (settings, alter) = ([LAX, STRICT], [vec![NARROW], vec![NARROW]]);
    let insert = two_columns(notes(), "ascii");
    Pair { names, insert, settings, alter, restore: vec![], sub_kind: "truncated", padded: longer_by_spaces }.prove(longer_than_six);
}

#[test]
fn insert_ignore_cuts_values_even_in_strict_mode() {
    let names = ["INSERT IGNORE, values too long: corrupted", "INSERT IGNORE, values that fit: holds"];
    let mut insert = two_columns(notes(), "ascii");
    insert["conflict"] = json!("ignore");
    Pair {
        names,
        insert,
        settings: [STRICT, STRICT],
        alter: [vec![NARROW], vec![]],
        restore: vec![],
        sub_kind: "truncated",
        padded: nothing,
    }
    .prove(longer_than_six);
}

#[test]
fn decimals_are_rounded_where_the_column_has_fewer_places() {
    let names = ["non-strict mode, too many decimal places: corrupted", "as many decimal places as needed: holds"];
    let insert = two_columns(json!({"name": "amount", "type": "decimal(12,2)"}), "ascii");
    let alter = [vec!["ALTER TABLE {table} MODIFY amount DECIMAL(12,1) NOT NULL"], vec![]];
    Pair {
        names,
        insert,
        settings: [LAX, LAX],
        alter,
        restore: vec!["ALTER TABLE {table} MODIFY amount DECIMAL(12,2) NOT NULL"],
        sub_kind: "rounded",
        padded: nothing,
    }
    .prove(|cell| matches!(cell, Cell::Decimal(value) if value % 10 != 0));
}

#[test]
fn utf8mb3_has_no_room_for_characters_of_four_bytes() {
    let names = ["utf8mb3, 4-byte characters, non-strict: corrupted", "utf8mb4, 4-byte characters: holds"];
    let insert = two_columns(json!({"name": "note", "type": "text", "size": {"min": 1, "max": 1}}), "unicode");
    let alter = [vec!["ALTER TABLE {table} MODIFY note VARCHAR(4) CHARACTER SET utf8mb3 NOT NULL"], vec![]];
    let wide = |cell: &Cell| matches!(cell, Cell::Text(text) if text.chars().any(|c| c.len_utf8() == 4));
    Pair { names, insert, settings: [LAX, LAX], alter, restore: vec![], sub_kind: "charset", padded: nothing }.prove(wide);
}

#[test]
fn an_engine_without_transactions_keeps_parts_of_a_failing_batch() {
    let Some(server) = Server::mariadb(&[]) else { return };
    let engines = [("MyISAM, a failing batch: partial_batch", "MyISAM", true), ("InnoDB, a failing batch: holds", "InnoDB", false)];
    for (name, engine, red) in engines {
        let db = database(&server, "engine");
        let mut due = Due::new("controls", name, "MariaDB", if red { "exact class, exact key" } else { "the safe twin" });
        for seed in 1..=times(5) {
            let pipeline = json!({"flush_size": 10, "flush_interval": "10s", "concurrency": 1});
            let mut scenario = db.scenario(json!({"rows": 200, "pipeline": pipeline}), silent_start(1000));
            scenario["seed"] = json!(seed);
            scenario["gates"] = json!(["error_rate <= 100%"]);
            let place = Place::new();
            let mut running = place.start(&scenario, &[]);
            let mut user = db.await_table(&mut running);
            user.execute(&db.filled(&format!("ALTER TABLE {{table}} ENGINE = {engine}")));
            user.execute(&db.filled(
                "CREATE TRIGGER refuse_50 BEFORE INSERT ON {table} FOR EACH ROW
                 IF NEW.id = 50 THEN SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = 'not 50'; END IF",
            ));
            let report = report(&running.end());
            let found = unlike(&report, if red { &[("partial_batches", 1)] } else { &[] });
            let key = keys(&report["integrity"], "partial_batch");
            due.run(found.or_else(|| (red && key != [41]).then(|| format!("due key 41, found {key:?}"))));
        }
        due.close(red);
    }
}

/// A server stands still for longer than an answer is waited for, and does in the end what it was sent, and sent again.
fn sent_again(server: Option<Server>, name: &'static str) {
    let Some(server) = server else { return };
    for (class, unique_key) in [("retry without a key (unsafe: true): duplicated", false), ("retry with a key: holds", true)] {
        let db = database(&server, "sent_again");
        let mut due = Due::new("controls", class, name, if unique_key { "the safe twin" } else { "exact class, exact keys" });
        for seed in 1..=times(5) {
            let retry = json!({"attempts": 50, "base": "50ms", "max": "200ms", "unsafe": true});
            let load = json!({"executor": "constant-arrival-rate", "rate": 1000, "duration": "2500ms", "lag_limit": "30s"});
            let insert = json!({"unique_key": unique_key, "pipeline": {"flush_size": 20, "flush_interval": "10ms", "retry": retry}});
            let mut scenario = db.scenario(insert, load);
            scenario["seed"] = json!(seed);
            scenario["target"]["pool"] = json!({"statement_timeout": "300ms", "connect_timeout": "3s"});
            scenario["faults"] = json!([{"at": "1s", "for": "900ms", "kind": "pause", "pid_file": server.pid_file.to_str().unwrap()}]);
            scenario["gates"] = json!(["error_rate <= 100%"]);
            let report = report(&Place::new().run(&scenario, &[]));
            due.run(if unique_key { unlike(&report, &[]) } else { not_duplicated(&report, &db) });
        }
        due.close(!unique_key);
    }
}

fn not_duplicated(report: &Value, db: &Database) -> Option<String> {
    let twice = "SELECT id FROM {table} GROUP BY id HAVING count(*) > 1";
    let stored = db.number(&format!("SELECT count(*) FROM ({twice}) AS twice")) as u64;
    let found =
        unlike(report, &[("duplicated", stored)]).or((stored == 0).then(|| format!("nothing was stored twice: {}", report["errors"])));
    let named = keys(&report["integrity"], "duplicated");
    let listed: Vec<String> = named.iter().map(ToString::to_string).collect();
    found.or_else(|| {
        let among = format!("SELECT count(*) FROM ({twice}) AS twice WHERE id IN ({})", listed.join(","));
        let exact = named.len() == EXAMPLES.min(stored as usize) && db.number(&among) as usize == named.len();
        (!exact || report["faults"][0]["harm"]["duplicated"] != stored).then(|| format!("{named:?} of {stored}: {}", report["faults"]))
    })
}

#[test]
fn what_is_sent_again_without_a_key_is_stored_twice_on_postgres() {
    sent_again(Server::postgres(&[]), "PostgreSQL");
}

#[test]
fn what_is_sent_again_without_a_key_is_stored_twice_on_mariadb() {
    sent_again(Server::mariadb(&[]), "MariaDB");
}
