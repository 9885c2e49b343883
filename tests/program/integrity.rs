//! What is done to the rows between drain and verification, or by the database itself, is found: class, count and key, on every database.

use serde_json::{Value, json};

use crate::database::{COLUMNS, Database, Kind, silent_start};
use crate::on_each_database;
use crate::place::{Place, assert_anomalies, keys, run_and_meddle};

on_each_database!(
    a_deleted_row_is_lost,
    an_altered_row_is_corrupted,
    a_row_stored_twice_is_duplicated,
    an_added_row_is_a_phantom,
    an_altered_type_is_corrupted,
    a_digest_reads_only_what_differs,
    several_anomalies_are_told_apart,
    a_rejected_row_that_turns_up_is_resurrected,
    a_rejected_batch_stored_in_part_is_a_partial_batch,
    every_type_and_extreme_comes_back,
    duplicate_keys_hold_under_every_strategy,
    rows_that_the_database_rejects_are_no_pass,
);

/// Verifies the last run again by method `digest`, which must find the same, and returns how many rows were read for it.
fn digested(place: &Place, db: &Database, integrity: &Value) -> u64 {
    let folder = place.run_folders().pop().unwrap();
    let kept = folder.join("scenario.json");
    let mut scenario: Value = serde_json::from_str(&std::fs::read_to_string(&kept).unwrap()).unwrap();
    scenario["verify"]["method"] = json!("digest");
    std::fs::write(&kept, scenario.to_string()).unwrap();
    let ended = place.verify(&folder, &db.password_again());
    let mut found = ended.json(if integrity["verdict"] == "holds" { 0 } else { 4 });
    let read_back = found.as_object_mut().unwrap().remove("read_back").unwrap().as_u64().unwrap();
    assert_eq!(found["method"], "digest");
    (found["method"], found["duration_seconds"]) = (integrity["method"].clone(), integrity["duration_seconds"].clone());
    assert_eq!(&found, integrity, "the methods must agree");
    read_back
}

/// Asserts exit 4 with these anomalies, by both methods, and that the speed is void; returns `integrity`.
fn violated(place: &Place, db: &Database, ended: &crate::place::Ended, found: &[(&str, u64)]) -> Value {
    let report = ended.json(4);
    digested(place, db, &report["integrity"]);
    assert_eq!((&report["verdict"], &report["throughput"]["valid"]), (&json!("fail"), &json!(false)));
    assert!(report["reasons"][0].as_str().unwrap().starts_with("integrity holds: "), "{}", report["reasons"]);
    assert_anomalies(&report["integrity"], found);
    report["integrity"].clone()
}

fn a_deleted_row_is_lost(place: &Place, db: &Database) {
    let ended = run_and_meddle(place, &db.rows(2000), || db.execute("DELETE FROM {table} WHERE id IN (1, 777, 2000)"));
    let integrity = violated(place, db, &ended, &[("lost", 3)]);
    assert_eq!(keys(&integrity, "lost"), [1, 777, 2000]);
    assert_eq!((&integrity["checked"], &integrity["must_be_there"], &integrity["rate"]), (&json!(1997), &json!(2000), &json!(0.9985)));
}

fn an_altered_row_is_corrupted(place: &Place, db: &Database) {
    let altered = || {
        let mut user = db.user();
        user.execute(&db.filled("UPDATE {table} SET name = 'nobody' WHERE id = 42"));
        user.execute(&db.filled("UPDATE {table} SET data = substr(data, 1, 3) WHERE id = 43"));
    };
    let ended = run_and_meddle(place, &db.rows(1000), altered);
    let integrity = violated(place, db, &ended, &[("corrupted", 2)]);
    assert_eq!(keys(&integrity, "corrupted"), [42, 43]);
    let [name, data] = [&integrity["examples"][0], &integrity["examples"][1]];
    assert_eq!((&name["column"], &name["sub_kind"], &name["found"]), (&json!("name"), &json!("other"), &json!("nobody")));
    assert_eq!((&data["column"], &data["sub_kind"]), (&json!("data"), &json!("truncated")));
    assert_ne!(data["expected"], data["found"]);
}

fn a_row_stored_twice_is_duplicated(place: &Place, db: &Database) {
    let mut scenario = db.rows(1000);
    scenario["workload"]["batch_insert"]["unique_key"] = json!(false);
    let copy = format!("INSERT INTO {{table}} ({COLUMNS}) SELECT {COLUMNS} FROM {{table}} WHERE id = 99");
    let twice = || {
        db.execute(&copy);
        db.execute(&copy.replace("= 99", "= 500 LIMIT 1"));
        db.execute(&copy.replace("= 99", "= 500 LIMIT 1"));
    };
    let integrity = violated(place, db, &run_and_meddle(place, &scenario, twice), &[("duplicated", 2)]);
    assert_eq!(keys(&integrity, "duplicated"), [99, 500]);
    assert_eq!((&integrity["surplus_copies"], &integrity["checked"]), (&json!(3), &json!(1003)));
}

/// Stores row 1 of the default table once more under another key.
fn copy_to(db: &Database, key: i64) {
    let columns = COLUMNS.trim_start_matches("id, ");
    db.execute(&format!("INSERT INTO {{table}} ({COLUMNS}) SELECT {key}, {columns} FROM {{table}} WHERE id = 1"));
}

fn an_added_row_is_a_phantom(place: &Place, db: &Database) {
    let add = || [-5, 0, 1001, i64::MAX].into_iter().for_each(|key| copy_to(db, key));
    let integrity = violated(place, db, &run_and_meddle(place, &db.rows(1000), add), &[("phantom", 4)]);
    assert_eq!(keys(&integrity, "phantom"), [-5, 0, 1001, i64::MAX]);
    assert_eq!((&integrity["checked"], &integrity["must_be_there"], &integrity["rate"]), (&json!(1004), &json!(1000), &json!(1.0)));
}

/// What the database would hash alike is told all the same: a boolean that became a text.
fn an_altered_type_is_corrupted(place: &Place, db: &Database) {
    let alter = match db.kind {
        // STRICT tables cannot be altered so.
        Kind::Sqlite => return,
        Kind::Postgres => "ALTER TABLE {table} ALTER is_active TYPE text",
        Kind::Mysql => "ALTER TABLE {table} MODIFY is_active VARCHAR(5) NOT NULL",
    };
    let ended = run_and_meddle(place, &db.rows(300), || db.execute(alter));
    let integrity = violated(place, db, &ended, &[("corrupted", 300)]);
    assert!(integrity["examples"].as_array().unwrap().iter().all(|e| e["column"] == "is_active" && e["sub_kind"] == "type"));
    assert_eq!(digested(place, db, &integrity), 300, "nothing is taken for granted");
}

/// One wrong row of many is found without reading the others.
fn a_digest_reads_only_what_differs(place: &Place, db: &Database) {
    let ended = run_and_meddle(place, &db.rows(70_000), || {
        db.execute("UPDATE {table} SET value = -value WHERE id = 66000");
        db.execute("DELETE FROM {table} WHERE id = 3");
    });
    let integrity = violated(place, db, &ended, &[("corrupted", 1), ("lost", 1)]);
    assert_eq!((keys(&integrity, "corrupted"), keys(&integrity, "lost")), (vec![66_000], vec![3]));
    assert_eq!(digested(place, db, &integrity), 1023 + 1024, "two leaves of 1,024 keys, one of them a row short");
}

fn several_anomalies_are_told_apart(place: &Place, db: &Database) {
    let meddle = || {
        copy_to(db, 5000);
        db.execute("DELETE FROM {table} WHERE id BETWEEN 101 AND 125");
        db.execute("UPDATE {table} SET email = name WHERE id = 300");
    };
    let integrity = violated(place, db, &run_and_meddle(place, &db.rows(1000), meddle), &[("lost", 25), ("corrupted", 1), ("phantom", 1)]);
    assert_eq!(keys(&integrity, "lost"), (101..=120).collect::<Vec<_>>(), "twenty examples a class");
    assert_eq!((keys(&integrity, "corrupted"), keys(&integrity, "phantom")), (vec![300], vec![5000]));
    assert_eq!(integrity["examples"].as_array().unwrap().iter().filter(|e| e["column"] == "email").count(), 1);
}

/// Makes the database refuse key 50, with an error.
fn refuse_key_50(db: &Database) -> &'static str {
    match db.kind {
        Kind::Sqlite => "CREATE TRIGGER {trigger} BEFORE INSERT ON {table} WHEN NEW.id = 50 BEGIN SELECT RAISE(ABORT, 'not 50'); END",
        Kind::Postgres => "ALTER TABLE {table} ADD CONSTRAINT {trigger} CHECK (id <> 50)",
        Kind::Mysql => {
            "CREATE TRIGGER {trigger} BEFORE INSERT ON {table} FOR EACH ROW
             IF NEW.id = 50 THEN SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = 'not 50'; END IF"
        }
    }
}

fn refuse_key_50_no_more(db: &Database) -> &'static str {
    if db.kind == Kind::Postgres { "ALTER TABLE {table} DROP CONSTRAINT {trigger}" } else { "DROP TRIGGER {trigger}" }
}

/// A run of 200 rows in which the batch that key 50 is in is rejected; key 50 is stored before verification all the same.
fn rejected_and_stored(place: &Place, db: &Database, flush_size: u64) -> crate::place::Ended {
    let named = |sql: &str| db.filled(&sql.replace("{trigger}", &format!("{}_50", db.table)));
    let mut scenario =
        db.scenario(json!({"rows": 200, "pipeline": {"flush_size": flush_size, "flush_interval": "10s"}}), silent_start(1000));
    scenario["gates"] = json!(["error_rate <= 10%"]);
    let mut running = place.start(&scenario, &["--before-verify", &crate::place::rendezvous(place)]);
    db.await_table(&mut running).execute(&named(refuse_key_50(db)));
    crate::place::meet(place, &mut running);
    db.execute(&named(refuse_key_50_no_more(db)));
    copy_to(db, 50);
    place.write("go", "");
    running.end()
}

fn a_rejected_row_that_turns_up_is_resurrected(place: &Place, db: &Database) {
    let ended = rejected_and_stored(place, db, 1);
    let integrity = violated(place, db, &ended, &[("resurrected", 1)]);
    assert_eq!(keys(&integrity, "resurrected"), [50]);
    assert_eq!(ended.json(4)["outcomes"]["rejected"], 1);
}

fn a_rejected_batch_stored_in_part_is_a_partial_batch(place: &Place, db: &Database) {
    let ended = rejected_and_stored(place, db, 10);
    let integrity = violated(place, db, &ended, &[("partial_batches", 1)]);
    assert_eq!(ended.json(4)["outcomes"]["rejected"], 10);
    assert_eq!((keys(&integrity, "partial_batch"), &integrity["must_be_there"]), (vec![50], &json!(190)));
}

fn every_type_and_extreme_comes_back(place: &Place, db: &Database) {
    let mut columns = vec![json!({"name": "id", "type": "int64", "key": true})];
    for ty in ["int64", "float64", "decimal(18,6)", "bool", "text", "bytes", "timestamp", "uuid"] {
        let name = ty.trim_end_matches("(18,6)");
        columns.push(json!({"name": format!("{name}_or_null"), "type": ty, "nullable": true}));
        columns.push(json!({"name": format!("some {name}"), "type": ty, "index": ty != "text" && ty != "bytes"}));
    }
    let content = json!({"charset": "unicode", "nulls": 0.2, "extremes": 0.3, "size": {"min": 0, "max": 60}});
    let insert = json!({"rows": 1000, "columns": columns, "content": content, "pipeline": {"flush_size": 100}});
    let report = place.run(&db.scenario(insert, json!({"executor": "shared-iterations"})), &[]).json(0);
    assert_anomalies(&report["integrity"], &[]);
    assert_eq!(report["integrity"]["checked"], 1000);
    assert_eq!(digested(place, db, &report["integrity"]), 0, "rows read, because the database does not hash them as we do");
}

fn duplicate_keys_hold_under_every_strategy(place: &Place, db: &Database) {
    for conflict in ["ignore", "replace", "update"] {
        let insert = json!({"rows": 1000, "conflict": conflict, "duplicate_keys": 0.3, "pipeline": {"flush_size": 50}});
        let report = place.run(&db.scenario(insert, json!({"executor": "shared-iterations", "vus": 3})), &[]).json(0);
        let stored = db.number("SELECT count(*) FROM {table}");
        assert!((600..=800).contains(&stored), "{conflict}: {stored} keys of 1000 rows, three of ten duplicates");
        assert_anomalies(&report["integrity"], &[]);
        assert_eq!((&report["outcomes"]["acknowledged"], &report["integrity"]["checked"]), (&json!(1000), &json!(stored)), "{conflict}");
        digested(place, db, &report["integrity"]);
    }
    // A plain INSERT refuses them, batch by batch, and what it refused is not there.
    let insert = json!({"rows": 1000, "duplicate_keys": 0.01, "pipeline": {"flush_size": 10}});
    let report = place.run(&db.scenario(insert, json!({"executor": "shared-iterations"})), &[]).json(1);
    let rejected = report["outcomes"]["rejected"].as_u64().unwrap();
    assert!(rejected > 0 && rejected.is_multiple_of(10), "{}", report["outcomes"]);
    assert_eq!(report["errors"]["final:constraint"], rejected / 10);
    assert_anomalies(&report["integrity"], &[]);
    assert_eq!(report["integrity"]["must_be_there"], 1000 - rejected);
}

fn rows_that_the_database_rejects_are_no_pass(place: &Place, db: &Database) {
    let mut scenario = db.scenario(json!({"rows": 50, "pipeline": {"flush_interval": "10s"}}), silent_start(1000));
    scenario["gates"] = json!(["error_rate <= 100%"]);
    let mut running = place.start(&scenario, &[]);
    // The one batch there is holds key 50.
    db.await_table(&mut running).execute(&db.filled(&refuse_key_50(db).replace("{trigger}", &format!("{}_50", db.table))));
    let report = running.end().json(3);
    assert_eq!((&report["outcomes"]["rejected"], &report["outcomes"]["acknowledged"]), (&json!(50), &json!(0)));
    assert_eq!((&report["integrity"]["verdict"], &report["throughput"]["valid"]), (&json!("inconclusive"), &json!(false)));
    assert_eq!(report["throughput"]["rows_per_second"], Value::Null);
    assert!(report["reasons"].as_array().unwrap().contains(&json!("no row was acknowledged")), "{}", report["reasons"]);
}

/// Runs 3,000 rows while the database drops every thousandth without a word.
fn every_thousandth_row_is_dropped(place: &Place, db: &Database, triggers: &[&str]) {
    let scenario = db.scenario(json!({"rows": 3000, "pipeline": {"flush_size": 100}}), silent_start(8000));
    let mut running = place.start(&scenario, &[]);
    let mut user = db.await_table(&mut running);
    triggers.iter().for_each(|trigger| user.execute(&db.filled(trigger)));
    let ended = running.end();
    let integrity = violated(place, db, &ended, &[("lost", 3)]);
    assert_eq!(keys(&integrity, "lost"), [1000, 2000, 3000]);
    assert_eq!((&ended.json(4)["outcomes"]["acknowledged"], &integrity["checked"]), (&json!(3000), &json!(2997)));
}

#[test]
fn a_trigger_that_drops_every_thousandth_row_on_sqlite_is_told() {
    let place = Place::new();
    let db = Database::sqlite(&place, "dropping");
    let trigger = "CREATE TRIGGER dropping_1000 BEFORE INSERT ON {table} WHEN NEW.id % 1000 = 0 BEGIN SELECT RAISE(IGNORE); END";
    every_thousandth_row_is_dropped(&place, &db, &[trigger]);
}

#[test]
fn a_trigger_that_drops_every_thousandth_row_on_postgres_is_told() {
    let Some(db) = Database::postgres("dropping") else { return };
    let function = "CREATE OR REPLACE FUNCTION dropping_1000() RETURNS trigger LANGUAGE plpgsql AS
        'BEGIN IF NEW.id % 1000 = 0 THEN RETURN NULL; END IF; RETURN NEW; END'";
    let trigger = "CREATE TRIGGER dropping_1000 BEFORE INSERT ON {table} FOR EACH ROW EXECUTE FUNCTION dropping_1000()";
    every_thousandth_row_is_dropped(&Place::new(), &db, &[function, trigger]);
}

/// INSERT IGNORE stores what fits into a column that is too narrow, with a warning only.
fn insert_ignore_truncates(db: Option<Database>) {
    let Some(db) = db else { return };
    let place = Place::new();
    let insert = json!({"rows": 300, "conflict": "ignore", "content": {"size": {"min": 4, "max": 8}}, "pipeline": {"flush_size": 50}});
    let mut scenario = db.scenario(insert, silent_start(1000));
    scenario["workload"]["batch_insert"]["columns"] = json!([
        {"name": "id", "type": "int64", "key": true},
        {"name": "data", "type": "text"},
        {"name": "long", "type": "text", "size": {"min": 20, "max": 20}},
    ]);
    let mut running = place.start(&scenario, &[]);
    db.await_table(&mut running).execute(&db.filled("ALTER TABLE {table} MODIFY `long` VARCHAR(15) NOT NULL"));
    let ended = running.end();
    let integrity = violated(&place, &db, &ended, &[("corrupted", 300)]);
    assert_eq!(keys(&integrity, "corrupted"), (1..=20).collect::<Vec<_>>());
    for example in integrity["examples"].as_array().unwrap() {
        assert_eq!((&example["column"], &example["sub_kind"]), (&json!("long"), &json!("truncated")));
    }
    let report = ended.json(4);
    assert_eq!((&report["outcomes"]["acknowledged"], &report["outcomes"]["rejected"]), (&json!(300), &json!(0)), "rows stay acknowledged");
    assert_eq!(report["errors"], json!({"final:data": 300}), "one warning a row");
}

#[test]
fn an_insert_ignore_that_truncates_on_mariadb_is_told() {
    insert_ignore_truncates(Database::mariadb("truncating"));
}

#[test]
fn an_insert_ignore_that_truncates_on_mysql_is_told() {
    insert_ignore_truncates(Database::mysql("truncating"));
}

#[test]
fn a_command_that_fails_before_verification_leaves_nothing_proven() {
    let place = Place::new();
    let report = place.run(&Database::sqlite(&place, "rows").rows(100), &["--before-verify", "echo oh >&2; exit 7"]).json(3);
    assert_eq!(report["integrity"]["reason"], "--before-verify ended with exit status: 7");
    assert_eq!((&report["integrity"]["verdict"], &report["throughput"]["valid"]), (&json!("inconclusive"), &json!(false)));
}

#[test]
fn the_command_knows_the_run_and_the_table_and_standard_output_stays_the_report() {
    let place = Place::new();
    let ended = place.run(&Database::sqlite(&place, "rows").rows(100), &["--before-verify", "echo $BATCHSQL_RUN_ID $BATCHSQL_TABLE"]);
    let report = ended.json(0);
    assert!(ended.stderr.contains(&format!("{} rows\n", report["run_id"].as_str().unwrap())), "{}", ended.stderr);
}
