//! What goes wrong before a run can begin ends with 2 and one sentence that names the mend; what goes wrong in it has the right outcome.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::database::Database;
use crate::on_each_database;
use crate::place::{Ended, Place, assert_anomalies};

on_each_database!(a_table_that_is_not_ours_is_left_alone, a_name_with_quotes_is_a_name);

/// The servers there are, and a place for each.
fn servers(table: &str) -> Vec<(Place, Database)> {
    let servers = [Database::postgres(table), Database::mariadb(table), Database::mysql(table)];
    servers.into_iter().flatten().map(|db| (Place::new(), db)).collect()
}

/// A port on which nobody listens.
fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Asserts that the run could not begin, said so in one sentence with these words, and left nothing behind.
fn refused(place: &Place, ended: &Ended, words: &[&str]) {
    ended.refused(words);
    assert_eq!(ended.stderr.lines().count(), 1, "{}", ended.stderr);
    let left: Vec<_> = fs::read_dir(place.path("reports")).into_iter().flatten().map(|entry| entry.unwrap().file_name()).collect();
    assert!(left.is_empty(), "{left:?}");
}

fn a_table_that_is_not_ours_is_left_alone(place: &Place, db: &Database) {
    // No name that another run of this test has marked as the program's on this server.
    let db = &Database { kind: db.kind, url: db.url.clone(), table: format!("not_ours_{}", std::process::id()) };
    db.execute("CREATE TABLE {table} (id INTEGER PRIMARY KEY, mine INTEGER)");
    db.execute("INSERT INTO {table} VALUES (1, 11), (2, 22)");
    let ended = place.run(&db.rows(100), &[]);
    refused(place, &ended, &[&format!("{:?}", db.table), "was not made by batchsql", "nothing was dropped", "workload.batch_insert.table"]);
    assert_eq!(db.number("SELECT count(*) FROM {table}"), 2);
    assert_eq!(db.number("SELECT mine FROM {table} WHERE id = 2"), 22);
    db.execute("DROP TABLE {table}");
    assert_eq!(place.run(&db.rows(100), &[]).json(0)["integrity"]["checked"], 100);
}

fn a_name_with_quotes_is_a_name(place: &Place, db: &Database) {
    let db = Database { kind: db.kind, url: db.url.clone(), table: "it's \"a\" `b`; DROP TABLE x -- ünï".to_owned() };
    let mut scenario = db.rows(200);
    scenario["workload"]["batch_insert"]["columns"] = json!([
        {"name": "the \"key\"", "type": "int64", "key": true},
        {"name": "a `text`'s", "type": "text", "index": true},
    ]);
    for (conflict, checked) in [("error", 200), ("update", 200)] {
        scenario["workload"]["batch_insert"]["conflict"] = json!(conflict);
        assert_eq!(place.run(&scenario, &[]).json(0)["integrity"]["checked"], checked, "{conflict}");
    }
    assert_eq!(db.number("SELECT count(*) FROM {table}"), 200);
}

#[test]
fn a_server_that_does_not_answer_is_named() {
    let place = Place::new();
    let port = free_port();
    for scheme in ["postgres", "mysql"] {
        let db = Database::sqlite(&place, "rows");
        let ended = place.run(&db.rows(100), &["--database-url", &format!("{scheme}://me:hidden-word@127.0.0.1:{port}/db")]);
        refused(&place, &ended, &[&format!("127.0.0.1:{port}"), "nothing answers there", "start the server, or correct host and port"]);
        assert!(!ended.stderr.contains("hidden-word"));
    }
}

/// The server's URL with another password or database.
fn changed(db: &Database, change: impl FnOnce(&mut url::Url)) -> String {
    let mut url = url::Url::parse(&db.url).unwrap();
    change(&mut url);
    url.to_string()
}

#[test]
fn a_wrong_password_is_told_and_never_shown() {
    for (place, db) in servers("rows") {
        let url = changed(&db, |url| url.set_password(Some("canary%21word")).unwrap());
        // From the command line, from the file, and from the environment.
        refused(&place, &place.run(&db.rows(100), &["--database-url", &url]), &["password", "--database-url"]);
        let mut scenario = db.rows(100);
        *scenario["target"].as_object_mut().unwrap().values_mut().next().unwrap() = json!({"url": "${CANARY_URL}"});
        let file = place.write("environment.yaml", &scenario.to_string());
        let mut command = place.command(&["run", "--no-metrics", "--report-dir", "reports", &file]);
        command.env("CANARY_URL", &url);
        refused(&place, &place.spawn(command).end(), &["password"]);
        assert!(!place.everything_written().contains("canary"));
    }
}

#[test]
fn the_right_password_is_in_no_file_and_no_output() {
    for (place, db) in servers("secretive") {
        let password = changed(&db, |_| {}).split(':').nth(2).unwrap().split('@').next().unwrap().to_owned();
        let scenario = Database::sqlite(&place, "secretive").rows(100);
        let hook = format!("echo the url is {} and the word {password}; echo {password} >&2", db.url);
        let ended = place.run(&scenario, &["--database-url", &db.url, "--before-verify", &hook, "--metrics-listen", "127.0.0.1:0"]);
        let report = ended.json(0);
        assert!(report["reproduce"].as_str().unwrap().contains("***"));
        assert!(ended.stderr.contains("the word ***"), "{}", ended.stderr);
        assert!(!place.everything_written().contains(&password));
    }
}

#[test]
fn a_missing_database_is_named() {
    for (place, db) in servers("rows") {
        let ended = place.run(&db.rows(100), &["--database-url", &changed(&db, |url| url.set_path("/not_there"))]);
        refused(&place, &ended, &["not_there", "create it with CREATE DATABASE", "or name another one"]);
    }
}

#[test]
fn an_sqlite_path_that_is_no_file_is_refused() {
    let place = Place::new();
    let db = Database::sqlite(&place, "rows");
    let mend = "name a file in a folder that can be written, in target.sqlite.path or --database-url";
    fs::create_dir(place.path("test.db")).unwrap();
    refused(&place, &place.run(&db.rows(100), &[]), &["test.db cannot be used", mend]);
    fs::remove_dir(place.path("test.db")).unwrap();
    fs::write(place.path("test.db"), "this is no database, but it is somebody's work\n".repeat(100)).unwrap();
    let before = fs::read(place.path("test.db")).unwrap();
    refused(&place, &place.run(&db.rows(100), &[]), &["test.db cannot be used", mend]);
    assert_eq!(fs::read(place.path("test.db")).unwrap(), before);
    let below_a_file = format!("sqlite://{}", place.name("test.db/rows.db"));
    refused(&place, &place.run(&db.rows(100), &["--database-url", &below_a_file]), &["rows.db cannot be used", mend]);
}

/// `batchsql run` by somebody who may not write what he does not own: root may write everything.
fn run_as_nobody(place: &Place, scenario: &Value, report_dir: &str) -> Ended {
    let file = place.write("scenario.yaml", &scenario.to_string());
    let program = place.path("batchsql");
    if !program.exists() {
        fs::copy(env!("CARGO_BIN_EXE_batchsql"), &program).unwrap();
    }
    let mut command = place.command_of(&program, &["run", "--json", "--no-metrics", "--report-dir", report_dir, &file]);
    if fs::metadata(&file).unwrap().uid() == 0 {
        command.uid(65534).gid(65534);
    }
    place.spawn(command).end()
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

/// A folder of the place that anybody may write.
fn open_folder(place: &Place, name: &str) -> std::path::PathBuf {
    let folder = place.path(name);
    fs::create_dir_all(&folder).unwrap();
    set_mode(&folder, 0o777);
    folder
}

#[test]
fn a_read_only_file_or_folder_is_refused() {
    let place = Place::new();
    set_mode(&place.path(""), 0o755);
    open_folder(&place, "reports");
    let data = open_folder(&place, "data");
    let mut db = Database::sqlite(&place, "rows");
    db.url = format!("sqlite://{}", place.name("data/rows.db"));
    let scenario = db.rows(100);
    // A file that is only to be read.
    db.execute("CREATE TABLE mine (id INTEGER)");
    set_mode(&data.join("rows.db"), 0o444);
    let mend = "name a file in a folder that can be written";
    refused(&place, &run_as_nobody(&place, &scenario, "reports"), &["rows.db cannot be used", mend]);
    assert_eq!(db.number("SELECT count(*) FROM mine"), 0);
    // A folder in which none can be made.
    fs::remove_file(data.join("rows.db")).unwrap();
    set_mode(&data, 0o555);
    refused(&place, &run_as_nobody(&place, &scenario, "reports"), &["rows.db cannot be used", mend]);
    // A file that may be written in a folder that may not, where no journal can be made.
    set_mode(&data, 0o755);
    fs::write(data.join("rows.db"), "").unwrap();
    set_mode(&data.join("rows.db"), 0o666);
    set_mode(&data, 0o555);
    refused(&place, &run_as_nobody(&place, &scenario, "reports"), &["rows.db", mend]);
    // The control: where it may write, it runs.
    set_mode(&data, 0o777);
    assert_eq!(run_as_nobody(&place, &scenario, "reports").json(0)["integrity"]["checked"], 100);
}

#[test]
fn a_report_folder_that_cannot_be_written_is_named() {
    let place = Place::new();
    set_mode(&place.path(""), 0o755);
    let data = open_folder(&place, "data");
    let locked = open_folder(&place, "locked");
    set_mode(&locked, 0o555);
    let mut db = Database::sqlite(&place, "rows");
    db.url = format!("sqlite://{}", place.name("data/rows.db"));
    refused(&place, &run_as_nobody(&place, &db.rows(100), "locked"), &["report folder locked/", "cannot be made", "--report-dir"]);
    let file = place.write("a_file", "");
    let ended = place.run(&db.rows(100), &["--report-dir", &format!("{file}/reports")]);
    assert_eq!(ended.code(), Some(2), "{}", ended.stderr);
    refused(&place, &run_as_nobody(&place, &db.rows(100), "a_file/reports"), &["report folder a_file/reports", "--report-dir"]);
    assert!(fs::read_dir(data).unwrap().next().is_none(), "no table was made for a run that could not begin");
}

#[test]
fn a_full_disk_rejects_batches_whole_and_keeps_what_was_acknowledged() {
    let place = Place::new();
    let db = Database::sqlite(&place, "full");
    let mut scenario = db.rows(5000);
    scenario["target"]["sqlite"]["pragmas"] = json!({"max_page_count": 100, "page_size": 4096});
    let report = place.run(&scenario, &[]).json(1);
    let count = |name: &str| report["outcomes"][name].as_u64().unwrap();
    let (acknowledged, rejected) = (count("acknowledged"), count("rejected"));
    assert!(acknowledged > 0 && rejected > 0 && count("unknown") == 0, "{}", report["outcomes"]);
    assert_eq!(acknowledged + rejected, 5000);
    assert_eq!(report["errors"], json!({"final:disk_full": rejected / 100}));
    assert_anomalies(&report["integrity"], &[]);
    assert_eq!((&report["integrity"]["checked"], &report["integrity"]["partial_batches"]), (&json!(acknowledged), &json!(0)));
    assert_eq!(db.number("SELECT count(*) FROM {table}"), acknowledged as i64);
}

#[test]
fn a_disk_too_full_for_the_table_is_refused() {
    let place = Place::new();
    let mut scenario = Database::sqlite(&place, "full").rows(100);
    scenario["target"]["sqlite"]["pragmas"] = json!({"max_page_count": 1});
    refused(&place, &place.run(&scenario, &[]), &["full"]);
}

#[test]
fn scenarios_that_offer_nothing_or_ask_the_impossible_are_refused_before_anything_is_made() {
    let place = Place::new();
    let db = Database::sqlite(&place, "rows");
    let closed = || db.rows(100);
    let open = |rate: Value, duration: &str| {
        db.scenario(json!({}), json!({"executor": "constant-arrival-rate", "rate": rate, "duration": duration}))
    };
    let with = |path: &str, value: Value| {
        let mut scenario = closed();
        *scenario.pointer_mut(path).unwrap() = value;
        scenario
    };
    for (scenario, words) in [
        (db.rows(0), ["workload.batch_insert.rows: is 0", "at least 1"]),
        (open(json!(0), "1s"), ["load.rate: is 0", "more than 0"]),
        (open(json!(5), "-1s"), ["load.duration: \"-1s\"", "a duration with its unit"]),
        (open(json!(5), "0s"), ["load.duration: is 0s", "write 1ms to 30days"]),
        (with("/workload/batch_insert/table", json!("")), ["workload.batch_insert.table: \"\" is empty", "choose another name"]),
        (with("/workload/batch_insert/table", json!("batchsql_owner")), ["is a reserved name", "choose another"]),
        (with("/target", json!({})), ["target: has no database", "sqlite: {}"]),
        (with("/name", json!("${NOBODY_SET_THIS}")), ["NOBODY_SET_THIS", "name: "]),
        (with("/name", json!("../x")), ["name: ", "without slash"]),
    ] {
        let ended = place.run(&scenario, &[]);
        ended.refused(&words);
        assert!(ended.stderr.contains("scenario-") && ended.stderr.contains(":1:"), "with its place: {}", ended.stderr);
        assert!(!place.path("reports").exists() && !place.path("test.db").exists(), "{}", ended.stderr);
    }
    let far = place.run(&closed(), &["--database-url", "postgres://me@198.51.100.7/db"]);
    far.refused(&["198.51.100.7", "beyond loopback", "--allow-host 198.51.100.7"]);
    place.run(&closed(), &["--database-url", "oracle://x"]).refused(&["oracle", "write sqlite://path, postgres://"]);
    place.run(&closed(), &["--set", "rows"]).refused(&["--set rows", "write path.to.key=value"]);
}

/// A file system of one mebibyte, until it is dropped.
struct SmallDisk(std::path::PathBuf);

impl SmallDisk {
    /// Where nobody may mount one it says that the test is left out.
    fn mount(at: std::path::PathBuf) -> Option<Self> {
        fs::create_dir_all(&at).unwrap();
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=1m", "tmpfs"]).arg(&at).output();
        if mounted.is_ok_and(|mounted| mounted.status.success()) {
            return Some(Self(at));
        }
        println!("left out: a file system of its own cannot be mounted");
        None
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // It goes with the test's namespace at the latest.
        let _ = Command::new("umount").arg(&self.0).status();
    }
}

#[test]
fn a_disk_too_full_for_the_report_is_told_and_the_run_can_be_judged_later() {
    let place = Place::new();
    let Some(_disk) = SmallDisk::mount(place.path("reports")) else { return };
    let db = Database::sqlite(&place, "rows");
    let ended = place.run(&db.rows(1000), &["--before-verify", "cat /dev/zero > reports/fill; [ -s reports/fill ]"]);
    ended.refused(&["report.json", "No space left on device", "free space there", "--report-dir"]);
    let folder = place.run_folders().pop().unwrap();
    assert!(!folder.join("report.json").exists() && !folder.join("report.json.tmp").exists(), "half a report was left");
    fs::remove_file(place.path("reports/fill")).unwrap();
    let integrity = place.verify(&folder, &[]).json(0);
    assert_eq!((&integrity["verdict"], &integrity["checked"]), (&json!("holds"), &json!(1000)));
}
