//! Runs in which much goes wrong and nothing is lost: rejected batches, unknown outcomes, late writes, killed sessions, locks, a full
//! disk, interrupts. None may be called violated, and what was acknowledged must be proven all the same.

use std::sync::Arc;
use std::time::Duration;

use batchsql::ledger::{FILE, Header, LedgerWriter, Outcome, VERSION};
use batchsql::pipeline::observer::{BatchInfo, BatchOutcome, Observer};
use batchsql::pipeline::{Pipeline, Submission};
use batchsql::report::IntegrityVerdict;
use batchsql::runner::Progress;
use batchsql::runner::verify::{SCENARIO_FILE, verify_run};
use batchsql::scenario::Scenario;
use batchsql::target::{self, Context, Target as _, WritePlan};
use batchsql::workload::batch_insert::Generator;
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::database::{Database, Kind, User};
use crate::faulty::Faulty;
use crate::place::{Place, Running};
use crate::random::Random;
use crate::scenarios::{Judged, judged, scenario, several};
use crate::server::own;
use crate::tally::{Tally, full};

/// What happens in a run, on which databases.
type Trouble = (&'static str, fn(&Place, &Database, &mut Random) -> Judged);

const ON_SQLITE: [Trouble; 7] = [
    ("cut, late and refused batches", scripted),
    ("batches with a key that exists", existing_keys),
    ("batches that a trigger refuses", refusing_trigger),
    ("a rival that holds the lock, busy", busy_rival),
    ("a rival that holds the lock, timeouts", impatient),
    ("a full disk", full_disk),
    ("interrupted", interrupted),
];

const ON_SERVERS: [Trouble; 6] = [
    ("cut, late and refused batches", scripted),
    ("batches with a key that exists", existing_keys),
    ("sessions killed as they write", killed_sessions),
    ("a rival that holds the lock, lock timeouts", lock_timeouts),
    ("a rival that holds the lock, timeouts", impatient),
    ("interrupted", interrupted),
];

/// A pipeline of the library whose database does what a script says.
fn scripted(place: &Place, database: &Database, random: &mut Random) -> Judged {
    let mut scenario = scenario(random, database, false);
    scenario["load"] = json!({"executor": "shared-iterations"});
    let (seed, percent, crash) = (random.below(u64::MAX), random.between(5, 40), random.percent(20));
    std::fs::create_dir_all(place.path("scripted")).unwrap();
    let folder = place.path(&format!("scripted/{seed:x}"));
    std::fs::create_dir(&folder).unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let parsed: Scenario = serde_json::from_value(scenario.clone()).unwrap();
        std::fs::write(folder.join(SCENARIO_FILE), scenario.to_string()).unwrap();
        let faults = drive(&parsed, &folder, seed, percent, crash).await;
        let found = verify_run(&folder, None, &Progress::Off).await.unwrap();
        let wrong =
            found.lost + found.duplicated + found.corrupted + found.phantom + found.resurrected + found.stale + found.partial_batches;
        let verdict = if found.must_be_there > 0 { IntegrityVerdict::Holds } else { IntegrityVerdict::Inconclusive };
        // A key that is only recovered need not be there, but an acknowledged batch may have stored nothing new.
        let right = wrong == 0 && (found.verdict == verdict || found.verdict == IntegrityVerdict::Holds);
        Judged { right, faulted: faults > 0, report: format!("{found:?} {scenario}") }
    })
}

/// Writes the ledger as a run does.
struct Journal(LedgerWriter);

impl Observer for Journal {
    fn sending(&self, batch: &BatchInfo<'_>) -> Result<(), String> {
        self.0.intent(batch.id, batch.session, batch.entries.iter().map(|entry| entry.id)).map_err(|error| error.to_string())
    }

    fn finished(&self, batch: &BatchInfo<'_>, outcome: &BatchOutcome, _: Duration) {
        let (outcome, after_unknown) = match outcome {
            BatchOutcome::Acknowledged { after_unknown, .. } => (Outcome::Acknowledged, *after_unknown),
            BatchOutcome::Rejected(_) => (Outcome::Rejected, false),
            BatchOutcome::Unknown(_) => (Outcome::Unknown, true),
        };
        self.0.outcome(batch.id, outcome, after_unknown).unwrap();
    }
}

/// Submits the scenario's rows; returns how many writes something happened to.
async fn drive(scenario: &Scenario, folder: &std::path::Path, seed: u64, percent: u64, crash: bool) -> u64 {
    let insert = scenario.workload.batch_insert().unwrap();
    let run_id = format!("legal-{seed:x}");
    let context =
        Context { run_id: &run_id, scenario_name: "legal", report_dir: folder, concurrency: insert.pipeline.concurrency, create: true };
    let target = target::connect(&scenario.target, &context).await.unwrap();
    let plan = WritePlan { table: insert.table(), conflict: insert.conflict, method: insert.method };
    let plan = target.resolve(plan, insert.pipeline.flush_size).unwrap();
    target.create(&plan.table, &run_id).await.unwrap();
    let faulty = Arc::new(Faulty::new(target, seed, percent));
    let header = Header { version: VERSION, run_id, seed: scenario.seed };
    let journal = Arc::new(Journal(LedgerWriter::create(&folder.join(FILE), &header).unwrap()));
    let builder = Pipeline::builder(Arc::<Faulty>::clone(&faulty)).table(plan).config(insert.pipeline.clone()).seed(scenario.seed);
    let pipeline = builder.with_metrics_reporter(Arc::<Journal>::clone(&journal)).start().unwrap();
    let generator = Generator::new(scenario.seed, insert);
    for index in 0..insert.rows.unwrap() {
        pipeline.submit(Submission::now(index, generator.row(index))).await.unwrap();
    }
    pipeline.close().await;
    if !crash {
        journal.0.close().unwrap();
    }
    faulty.quiesce(&Default::default(), Duration::from_secs(5)).await.unwrap();
    faulty.faults()
}

fn existing_keys(place: &Place, database: &Database, random: &mut Random) -> Judged {
    let mut scenario = scenario(random, database, false);
    let insert = &mut scenario["workload"]["batch_insert"];
    insert["conflict"] = json!("error");
    insert["unique_key"] = json!(true);
    insert["rows"] = json!(random.between(100, 400));
    insert["duplicate_keys"] = json!(*random.one(&[0.02, 0.05]));
    scenario["load"] = json!({"executor": "shared-iterations", "vus": random.between(1, 4)});
    judged(&place.run(&scenario, &[]))
}

/// A run under way whose table is there, and somebody else on the database.
fn start(place: &Place, scenario: &Value, database: &Database) -> (Running, User) {
    let mut running = place.start(scenario, &[]);
    running.folder();
    (running, database.user())
}

fn refusing_trigger(place: &Place, database: &Database, random: &mut Random) -> Judged {
    let scenario = scenario(random, database, true);
    let every = random.between(7, 60);
    let (running, mut user) = start(place, &scenario, database);
    let trigger =
        format!("CREATE TRIGGER refusing BEFORE INSERT ON {{table}} WHEN NEW.id % {every} = 0 BEGIN SELECT RAISE(ABORT, 'no'); END");
    user.execute(&database.filled(&trigger));
    judged(&running.end())
}

/// Holds the write lock so many times, for about so many milliseconds: the length is what is planted, and no condition ends it.
fn hold(user: &mut User, random: &mut Random, times: u64, about: u64, [lock, unlock]: [&str; 2]) {
    for _ in 0..times {
        // A rival is refused at times, too.
        if user.attempt(lock).is_ok() {
            std::thread::sleep(Duration::from_millis(random.between(about / 3, about * 2)));
            user.execute(unlock);
        }
        std::thread::sleep(Duration::from_millis(random.between(5, 40)));
    }
}

fn busy_rival(place: &Place, database: &Database, random: &mut Random) -> Judged {
    let mut scenario = scenario(random, database, true);
    scenario["target"]["sqlite"]["pragmas"] = json!({"busy_timeout": random.between(1, 20)});
    let (running, mut user) = start(place, &scenario, database);
    let times = random.between(2, 5);
    hold(&mut user, random, times, 60, ["BEGIN IMMEDIATE", "COMMIT"]);
    judged(&running.end())
}

/// The client gives batches up that the server goes on with.
fn impatient(place: &Place, database: &Database, random: &mut Random) -> Judged {
    let mut scenario = scenario(random, database, true);
    scenario["target"]["pool"] = json!({"statement_timeout": format!("{}ms", random.between(15, 60))});
    let (lock, unlock) = match database.kind {
        Kind::Sqlite => ("BEGIN IMMEDIATE", "COMMIT"),
        Kind::Postgres => ("BEGIN; LOCK TABLE {table} IN SHARE MODE", "COMMIT"),
        Kind::Mysql => ("LOCK TABLES {table} READ", "UNLOCK TABLES"),
    };
    let (running, mut user) = start(place, &scenario, database);
    let times = random.between(2, 5);
    hold(&mut user, random, times, 60, [&database.filled(lock), unlock]);
    judged(&running.end())
}

/// The server gives batches up, by a limit of its own.
fn lock_timeouts(place: &Place, database: &Database, random: &mut Random) -> Judged {
    let Database { kind, mut url, table } = Database { kind: database.kind, url: database.url.clone(), table: database.table.clone() };
    let mut user = database.user();
    match kind {
        // Long enough for the table to be made beside what others do.
        Kind::Postgres => url.push_str("?options[lock_timeout]=200ms"),
        // The least there is on MariaDB, and of the whole server: only on one that is the proof's alone.
        _ if full() => user.execute("SET GLOBAL innodb_lock_wait_timeout = 1"),
        _ => {}
    }
    let limited = Database { kind, url, table };
    let (running, _) = start(place, &scenario(random, &limited, true), database);
    if kind == Kind::Postgres {
        let times = random.between(2, 5);
        hold(&mut user, random, times, 300, [&database.filled("BEGIN; LOCK TABLE {table} IN SHARE MODE"), "COMMIT"]);
    } else {
        // The gap behind the last key: where the next rows go.
        let gap = database.filled("BEGIN; SELECT id FROM {table} ORDER BY id DESC LIMIT 1 FOR UPDATE");
        // The load and the rival may meet in a deadlock, and the rival be its victim: then once more.
        assert!((0..100).any(|_| user.attempt(&gap).is_ok()), "a rival that is refused for good");
        std::thread::sleep(Duration::from_millis(if full() { random.between(1100, 1800) } else { 50 }));
        user.execute("COMMIT");
    }
    judged(&running.end())
}

fn full_disk(place: &Place, database: &Database, random: &mut Random) -> Judged {
    let mut scenario = scenario(random, database, false);
    scenario["workload"]["batch_insert"]["rows"] = json!(400);
    scenario["workload"]["batch_insert"]["content"]["size"] = json!({"min": 100, "max": 400});
    scenario["target"]["sqlite"]["pragmas"] = json!({"max_page_count": random.between(8, 40)});
    judged(&place.run(&scenario, &[]))
}

fn interrupted(place: &Place, database: &Database, random: &mut Random) -> Judged {
    let scenario = scenario(random, database, true);
    let mut running = place.start(&scenario, &[]);
    running.folder();
    std::thread::sleep(Duration::from_millis(random.below(300)));
    running.signal(Signal::SIGINT);
    let ended = running.end();
    let interrupted = ended.code() == Some(130);
    Judged { faulted: interrupted, ..judged(&ended) }
}

fn killed_sessions(place: &Place, database: &Database, random: &mut Random) -> Judged {
    let mut scenario = scenario(random, database, true);
    scenario["workload"]["batch_insert"]["pipeline"]["flush_size"] = json!(random.between(1, 8));
    let (running, mut user) = start(place, &scenario, database);
    // The one of information_schema fails on MySQL where a statement holds bytes that are no text; MariaDB has no other.
    let mariadb = database.kind == Kind::Mysql && user.number("SELECT VERSION() LIKE '%MariaDB%'") == 1;
    let list = if mariadb { "information_schema" } else { "performance_schema" };
    for _ in 0..random.between(20, 60) {
        match database.kind {
            Kind::Mysql => {
                let writing = format!("SELECT COALESCE(MAX(id), 0) FROM {list}.processlist WHERE db = DATABASE() AND info LIKE 'INSERT%'");
                let session = user.number(&writing);
                if session > 0 {
                    // It may have ended meanwhile.
                    let _ = user.attempt(&format!("KILL {session}"));
                }
            }
            _ => user.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() \
                 AND application_name LIKE 'batchsql/%' AND state = 'active' LIMIT 1",
            ),
        }
        std::thread::sleep(Duration::from_millis(random.between(1, 8)));
    }
    judged(&running.end())
}

/// `runs` runs of each kind of trouble; of the first, which is quick, as many as are left of `all`.
fn tell(name: &str, troubles: &[Trouble], runs: u64, all: u64, trouble: impl Fn(&Trouble, u64) -> Judged + Sync) {
    let mut tally = Tally::new("legal");
    let mut alarms = Vec::new();
    for (place, kind) in troubles.iter().enumerate() {
        let count = if place == 0 { all - runs * (troubles.len() as u64 - 1) } else { runs };
        let judged = several(count, 3, |number| trouble(kind, number));
        let right = judged.iter().filter(|run| run.right).count() as u64;
        let faulted = judged.iter().filter(|run| run.faulted).count() as u64;
        tally.add(kind.0, name, count, right, 0, count - right, &format!("{faulted} runs met the fault"));
        assert!(faulted > 0 || !full(), "{} on {name}: the fault was never met", kind.0);
        alarms.extend(judged.into_iter().filter(|run| !run.right).map(|run| format!("{}: {}", kind.0, run.report)));
    }
    tally.save();
    assert!(alarms.is_empty(), "{} runs on {name} did not hold, the first of them: {}", alarms.len(), alarms[0]);
}

#[test]
fn on_sqlite() {
    let (runs, all) = if full() { (80, 1000) } else { (2, 30) };
    tell("SQLite", &ON_SQLITE, runs, all, |(name, trouble), number| {
        let place = Place::new();
        trouble(&place, &Database::sqlite(&place, "legal"), &mut seeded(name, number))
    });
}

fn seeded(name: &str, number: u64) -> Random {
    Random::new(u64::from(crc32fast::hash(name.as_bytes())) << 32 | number)
}

fn on_server(server: Option<Database>, name: &str) {
    let Some(server) = server else { return };
    let (runs, all) = if full() { (15, 100) } else { (1, 6) };
    let database = own(&server, "proof_legal");
    tell(name, &ON_SERVERS, runs, all, |(kind, trouble), number| {
        let place = Place::new();
        // Runs at the same time have tables of their own.
        let table = format!("legal_{}", number % 3);
        trouble(&place, &Database { kind: database.kind, url: database.url.clone(), table }, &mut seeded(kind, number))
    });
}

#[test]
fn on_postgres() {
    on_server(Database::postgres("legal"), "PostgreSQL");
}

#[test]
fn on_mariadb() {
    on_server(Database::mariadb("legal"), "MariaDB");
}

#[test]
fn on_mysql() {
    on_server(Database::mysql("legal"), "MySQL");
}
