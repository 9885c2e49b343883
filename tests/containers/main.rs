//! Targets that a scenario starts for itself, by the real program on a real container engine. Each test asks the engine itself what is
//! left of its run.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod faults;

use std::fs::{self, File};
use std::net::{Ipv4Addr, TcpListener};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use tempfile::TempDir;

const POSTGRES: &str = "postgres:17-alpine";
const MYSQL: &str = "mysql:9.4";
const MARIADB: &str = "mariadb:11.8";
const PROMETHEUS: &str = "prom/prometheus:v3.5.0";
/// Longest wait for anything.
const PATIENCE: Duration = Duration::from_secs(120);
/// Nothing listens there.
const DEAD: &str = "unix:///nonexistent/docker.sock";

/// What the engine's own client prints, if it succeeds.
fn docker(arguments: &[&str]) -> Option<String> {
    let output = Command::new("docker").args(arguments).stdin(Stdio::null()).output().ok()?;
    output.status.success().then(|| String::from_utf8(output.stdout).unwrap().trim().to_owned())
}

/// Whether the image is here; pulling it is not what is tested.
fn is_here(image: &str) -> bool {
    let here = docker(&["image", "inspect", "-f", "{{.Id}}", image]).is_some();
    if !here {
        println!("left out: no container engine, or no image {image}");
    }
    here
}

/// A folder and a scenario's name of one test's own.
struct Place {
    folder: TempDir,
    name: String,
}

impl Place {
    fn new(name: &str) -> Self {
        Self { folder: tempfile::tempdir().unwrap(), name: format!("{name}_{}", std::process::id()) }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn inserts(&self, kind: &str, container: Value) -> Value {
        json!({
            "name": self.name, "target": {kind: {}, "container": container},
            "workload": {"batch_insert": {"rows": 2000}}, "load": {"executor": "shared-iterations"}
        })
    }

    fn command(&self, command: &str, more: &[&str]) -> Command {
        let mut program = Command::new(env!("CARGO_BIN_EXE_batchsql"));
        program.arg(command).args(more).current_dir(self.folder.path()).stdin(Stdio::null());
        program
    }

    fn spawn(&self, mut command: Command) -> Running {
        let [out, err] = ["out", "err"].map(|name| self.path(name));
        command.stdout(File::create(&out).unwrap()).stderr(File::create(&err).unwrap());
        Running { child: command.spawn().unwrap(), out, err }
    }

    /// `batchsql run --json` of `scenario`.
    fn run_command(&self, scenario: &Value, more: &[&str]) -> Command {
        // JSON is YAML.
        fs::write(self.path("scenario.yaml"), scenario.to_string()).unwrap();
        self.command("run", &[&["scenario.yaml", "--json", "--no-metrics"], more].concat())
    }

    fn run(&self, scenario: &Value, more: &[&str]) -> Ended {
        self.spawn(self.run_command(scenario, more)).end()
    }

    /// The containers of this test's runs, running or not.
    fn containers(&self) -> Vec<String> {
        let names = docker(&["ps", "-a", "--filter", "label=batchsql.run", "--format", "{{.Names}}"]).unwrap();
        names.lines().filter(|name| name.contains(&self.name)).map(str::to_owned).collect()
    }

    /// Everything that files below this folder say.
    fn everything_written(&self) -> String {
        let mut all = String::new();
        let mut open = vec![self.folder.path().to_owned()];
        while let Some(folder) = open.pop() {
            for path in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
                if path.is_dir() {
                    open.push(path);
                } else {
                    all += &String::from_utf8_lossy(&fs::read(&path).unwrap());
                }
            }
        }
        all
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // Of a failed or killed run.
        if docker(&["version"]).is_some() {
            for name in self.containers() {
                docker(&["rm", "-f", "-v", &name]);
            }
        }
    }
}

struct Running {
    child: Child,
    out: PathBuf,
    err: PathBuf,
}

struct Ended {
    code: Option<i32>,
    out: String,
    err: String,
}

impl Running {
    fn until<T>(&mut self, what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
        let began = Instant::now();
        loop {
            if let Some(answer) = ask() {
                return answer;
            }
            let ended = self.child.try_wait().unwrap();
            assert!(ended.is_none() && began.elapsed() < PATIENCE, "{what}: {}", fs::read_to_string(&self.err).unwrap());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Waits until rows are acknowledged.
    fn until_loaded(&mut self, place: &Place) {
        let reports = place.path("reports");
        self.until("a ledger that grows", || {
            let folders = fs::read_dir(&reports).into_iter().flatten();
            folders.map(|folder| folder.unwrap().path().join("ledger")).find(|ledger| fs::metadata(ledger).is_ok_and(|it| it.len() > 500))
        });
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(i32::try_from(self.child.id()).unwrap()), signal).unwrap();
    }

    fn end(mut self) -> Ended {
        let began = Instant::now();
        let code = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status.code();
            }
            assert!(began.elapsed() < PATIENCE, "it does not end: {}", fs::read_to_string(&self.err).unwrap());
            std::thread::sleep(Duration::from_millis(20));
        };
        let read = |path: &PathBuf| fs::read_to_string(path).unwrap();
        Ended { code, out: read(&self.out), err: read(&self.err) }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Both fail when it has ended already, which is what is wanted.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Ended {
    fn json(&self, code: i32) -> Value {
        assert_eq!(self.code, Some(code), "{}{}", self.err, self.out);
        serde_json::from_str(&self.out).unwrap()
    }

    fn refused(&self, words: &[&str]) {
        assert_eq!((self.code, self.out.as_str()), (Some(2), ""), "{}", self.err);
        for word in words {
            assert!(self.err.contains(word), "{word:?} is missing in: {}", self.err);
        }
    }
}

/// Rows into a database that was started with limits and one setting, which the report shows; nothing stays.
fn inserts_and_verifies(name: &str, kind: &str, image: &str, product: &str, args: [&str; 2], setting: (&str, &str)) {
    if !is_here(image) {
        return;
    }
    let place = Place::new(name);
    let args: Vec<&str> = args.into_iter().filter(|word| !word.is_empty()).collect();
    let container = json!({"image": image, "args": args, "memory": "1GiB", "cpus": 1.5, "tmpfs": ["/scratch:size=1m"]});
    let hook = "docker inspect -f '{{.HostConfig.Memory}} {{.HostConfig.NanoCpus}} {{.HostConfig.Tmpfs}}' $BATCHSQL_CONTAINER >limits";
    let report = place.run(&place.inserts(kind, container), &["--before-verify", hook]).json(0);
    assert_eq!(
        (&report["integrity"]["verdict"], &report["integrity"]["checked"], &report["throughput"]["valid"]),
        (&json!("holds"), &json!(2000), &json!(true))
    );
    let target = &report["environment"]["target"];
    assert_eq!((&target["name"], &target["container"]["image"]), (&json!(product), &json!(image)));
    assert!(!target["version"].as_str().unwrap().is_empty());
    assert!(target["container"]["digest"].as_str().unwrap().starts_with("sha256:"), "{target}");
    assert_eq!(target["settings"][setting.0], setting.1, "{target}");
    let limits = fs::read_to_string(place.path("limits")).unwrap();
    assert_eq!(limits.trim(), "1073741824 1500000000 map[/scratch:size=1m]");
    assert_eq!(report["scenario"]["target"][kind], json!({}), "where it was is of no use any more");
    assert_eq!(place.containers(), [""; 0]);
}

#[test]
fn postgres_is_started_filled_verified_and_gone() {
    let args = ["-c", "synchronous_commit=off"];
    inserts_and_verifies("pg", "postgres", POSTGRES, "PostgreSQL", args, ("synchronous_commit", "off"));
}

#[test]
fn mysql_is_started_filled_verified_and_gone() {
    let args = ["--innodb-flush-log-at-trx-commit=2", ""];
    inserts_and_verifies("my", "mysql", MYSQL, "MySQL", args, ("innodb_flush_log_at_trx_commit", "2"));
}

#[test]
fn mariadb_is_started_filled_verified_and_gone() {
    let args = ["--innodb-flush-log-at-trx-commit=2", ""];
    inserts_and_verifies("maria", "mysql", MARIADB, "MariaDB", args, ("innodb_flush_log_at_trx_commit", "2"));
}

#[test]
fn any_image_that_speaks_http_is_started() {
    if !is_here(PROMETHEUS) {
        return;
    }
    let place = Place::new("http");
    let scenario = json!({
        "name": place.name, "target": {"http": {}, "container": {"image": PROMETHEUS, "port": 9090, "ready": "/-/ready"}},
        "workload": {"proxy_request": {
            "requests": 200, "id": {"header": ""}, "mix": [{"http": {"path": "/-/healthy"}, "checks": {"status": [200]}}]
        }},
        "load": {"executor": "shared-iterations", "vus": 2}
    });
    let report = place.run(&scenario, &[]).json(0);
    assert_eq!((&report["outcomes"]["acknowledged"], &report["integrity"]["verdict"]), (&json!(200), &json!("holds")));
    assert_eq!(report["environment"]["target"]["container"]["image"], PROMETHEUS);
    assert_eq!(place.containers(), [""; 0]);
}

#[test]
fn a_row_deleted_in_the_container_is_found() {
    if !is_here(POSTGRES) {
        return;
    }
    let place = Place::new("deleted");
    let scenario = place.inserts("postgres", json!({"image": POSTGRES}));
    let delete = "docker exec $BATCHSQL_CONTAINER psql -U postgres batchsql -c \"DELETE FROM $BATCHSQL_TABLE WHERE id = 7\"";
    let report = place.run(&scenario, &["--before-verify", delete]).json(4);
    assert_eq!((&report["integrity"]["lost"], &report["integrity"]["examples"][0]["key"]), (&json!(1), &json!(7)));
    assert_eq!(place.containers(), [""; 0]);
}

/// A run that does not end by itself, under load.
fn endless(place: &Place) -> Running {
    let mut scenario = place.inserts("postgres", json!({"image": POSTGRES}));
    scenario["workload"] = json!({"batch_insert": {"pipeline": {"flush_size": 50}}});
    scenario["load"] = json!({"executor": "constant-vus", "vus": 1, "duration": "10m"});
    let mut running = place.spawn(place.run_command(&scenario, &[]));
    running.until_loaded(place);
    assert_eq!(place.containers().len(), 1);
    running
}

#[test]
fn a_signal_ends_the_run_and_the_container() {
    for signal in [Signal::SIGINT, Signal::SIGTERM].into_iter().take_while(|_| is_here(POSTGRES)) {
        let place = Place::new("signal");
        let running = endless(&place);
        running.signal(signal);
        let report = running.end().json(130);
        assert_eq!((&report["interrupted"], &report["integrity"]["verdict"]), (&json!(true), &json!("holds")), "{signal}");
        assert_eq!(place.containers(), [""; 0], "{signal}");
    }
}

#[test]
fn a_second_signal_ends_the_program_at_once_and_the_container() {
    if !is_here(POSTGRES) {
        return;
    }
    let place = Place::new("twice");
    let mut running = endless(&place);
    // So that nothing ends by itself between the two.
    let paused = place.containers().remove(0);
    docker(&["pause", &paused]).unwrap();
    running.signal(Signal::SIGINT);
    let err = running.err.clone();
    running.until("the first signal is heard", || fs::read_to_string(&err).unwrap().contains("once more").then_some(()));
    running.signal(Signal::SIGINT);
    let ended = running.end();
    assert_eq!((ended.code, ended.out.as_str()), (Some(130), ""), "{}", ended.err);
    assert_eq!(place.containers(), [""; 0]);
}

#[test]
fn a_signal_while_it_starts_ends_it_too() {
    if !is_here(MYSQL) {
        return;
    }
    let place = Place::new("starting");
    let mut running = place.spawn(place.run_command(&place.inserts("mysql", json!({"image": MYSQL})), &[]));
    running.until("a container", || place.containers().pop());
    running.signal(Signal::SIGINT);
    let ended = running.end();
    assert_eq!((ended.code, ended.out.as_str()), (Some(130), ""), "{}", ended.err);
    assert_eq!(place.containers(), [""; 0]);
}

#[test]
fn what_a_killed_run_leaves_is_named_by_the_next() {
    if !is_here(POSTGRES) {
        return;
    }
    let place = Place::new("killed");
    let running = endless(&place);
    running.signal(Signal::SIGKILL);
    assert_eq!(running.end().code, None);
    let left = place.containers();
    assert_eq!(left.len(), 1);
    let next = Place::new("after_killed");
    let ended = next.run(&next.inserts("postgres", json!({"image": POSTGRES})), &[]);
    ended.json(0);
    let told = format!("container {0} was left by a run that was killed; remove it with: docker rm -f -v {0}", left[0]);
    assert!(ended.err.contains(&told), "{}", ended.err);
}

#[test]
fn a_kept_container_is_verified_again_and_removed_by_the_command_it_names() {
    if !is_here(POSTGRES) {
        return;
    }
    let place = Place::new("kept");
    let ended = place.run(&place.inserts("postgres", json!({"image": POSTGRES})), &["--keep-containers"]);
    let report = ended.json(0);
    let run = report["run_id"].as_str().unwrap();
    let name = format!("batchsql-{run}");
    assert_eq!(place.containers(), [name.as_str()]);
    let port = docker(&["port", &name, "5432"]).unwrap();
    assert!(port.starts_with("127.0.0.1:"), "{port}");
    for line in [
        format!("container {name} is kept"),
        format!("{port}, database batchsql, user postgres"),
        format!("docker exec {name} printenv POSTGRES_PASSWORD"),
        format!("docker rm -f -v {name}"),
    ] {
        assert!(ended.err.contains(&line), "{line:?} is missing in: {}", ended.err);
    }
    let password = docker(&["exec", &name, "printenv", "POSTGRES_PASSWORD"]).unwrap();
    assert_eq!(password.len(), 32);
    assert!(!place.everything_written().contains(&password));
    let verify = || place.spawn(place.command("verify", &[run, "--json"])).end();
    assert_eq!(verify().json(0)["checked"], 2000);
    docker(&["rm", "-f", "-v", &name]).unwrap();
    verify().refused(&[&format!("run {run} had its database in a container, which is gone"), "--keep-containers"]);
}

#[test]
fn without_an_engine_it_says_what_to_do() {
    let place = Place::new("dead");
    let mut scenario = place.inserts("postgres", json!({"image": POSTGRES, "args": ["-c", "fsync=off"], "host_port": 5555}));
    let mut command = place.run_command(&scenario, &[]);
    command.env("DOCKER_HOST", DEAD);
    place.spawn(command).end().refused(&["no container engine answers at unix:///nonexistent", "start Docker", "--database-url"]);
    // Neither a plan nor a database that is there needs one.
    let mut command = place.command("check", &["scenario.yaml"]);
    command.env("DOCKER_HOST", DEAD);
    let plan = place.spawn(command).end();
    let told = "Postgres: a container of postgres:17-alpine, started for the run; arguments: -c fsync=off; port: 5555";
    assert!(plan.code == Some(0) && plan.out.contains(told), "{}{}", plan.out, plan.err);
    scenario["gates"] = json!(["integrity.lost == 0"]);
    let mut command = place.run_command(&scenario, &["--database-url", "sqlite://rows.db"]);
    command.env("DOCKER_HOST", DEAD);
    let report = place.spawn(command).end().json(0);
    assert!(report["notes"].to_string().contains("ignored: target.container"), "{}", report["notes"]);
    // An engine elsewhere puts the load there.
    let mut command = place.run_command(&scenario, &[]);
    command.env("DOCKER_HOST", "tcp://engine.example:2375");
    place.spawn(command).end().refused(&["on host `engine.example`, beyond loopback", "--allow-host engine.example"]);
}

#[test]
fn an_image_that_cannot_be_had_is_refused() {
    if !is_here(POSTGRES) {
        return;
    }
    let place = Place::new("none");
    let ended = place.run(&place.inserts("postgres", json!({"image": "registry.invalid/none:1"})), &[]);
    ended.refused(&["target.container.image: registry.invalid/none:1 is not on this machine and cannot be pulled", "docker pull"]);
}

#[test]
fn a_container_that_ends_at_the_start_shows_its_last_lines() {
    if !is_here(POSTGRES) {
        return;
    }
    let place = Place::new("ends");
    let ended = place.run(&place.inserts("postgres", json!({"image": POSTGRES, "args": ["-c", "no_such_setting=1"]})), &[]);
    ended.refused(&["ended with code", "before it answered", "target.container.args", "its log ends:", "no_such_setting"]);
    assert_eq!(place.containers(), [""; 0]);
}

#[test]
fn a_container_that_never_answers_is_given_up() {
    if !is_here(POSTGRES) {
        return;
    }
    let place = Place::new("deaf");
    let container = json!({"image": POSTGRES, "port": 5433, "ready_timeout": "3s"});
    place.run(&place.inserts("postgres", container), &[]).refused(&["did not answer within 3s", "target.container.ready_timeout"]);
    assert_eq!(place.containers(), [""; 0]);
}

#[test]
fn a_fixed_port_is_used_or_said_to_be_taken() {
    if !is_here(POSTGRES) {
        return;
    }
    let place = Place::new("port");
    let held = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = held.local_addr().unwrap().port();
    let scenario = place.inserts("postgres", json!({"image": POSTGRES, "host_port": port}));
    place.run(&scenario, &[]).refused(&[&format!("port {port} is taken"), "target.container.host_port"]);
    assert_eq!(place.containers(), [""; 0]);
    drop(held);
    place.run(&scenario, &["--before-verify", "docker port $BATCHSQL_CONTAINER >port"]).json(0);
    assert!(fs::read_to_string(place.path("port")).unwrap().contains(&format!("127.0.0.1:{port}")));
}

#[test]
fn a_run_that_fails_after_the_start_leaves_nothing() {
    if !is_here(POSTGRES) {
        return;
    }
    let place = Place::new("fails");
    fs::write(place.path("file"), "").unwrap();
    let ended = place.run(&place.inserts("postgres", json!({"image": POSTGRES})), &["--report-dir", "file"]);
    ended.refused(&["report folder", "--report-dir"]);
    assert_eq!(place.containers(), [""; 0]);
}
