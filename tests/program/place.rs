//! A folder of one test's own, and the program started in it.

use std::cell::Cell;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tempfile::TempDir;

/// Longest wait for anything in these tests.
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) struct Place {
    folder: TempDir,
    /// How many programs were started.
    started: Cell<usize>,
}

impl Place {
    pub(crate) fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap(), started: Cell::new(0) }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// As [`Place::path`], for arguments.
    pub(crate) fn name(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }

    pub(crate) fn write(&self, name: &str, text: &str) -> String {
        fs::write(self.path(name), text).unwrap();
        self.name(name)
    }

    /// The program in this folder, with nothing of this process's environment that could colour what it says.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        self.command_of(Path::new(env!("CARGO_BIN_EXE_batchsql")), arguments)
    }

    pub(crate) fn command_of(&self, program: &Path, arguments: &[&str]) -> Command {
        let mut command = Command::new(program);
        command
            .args(arguments)
            .current_dir(self.folder.path())
            .env_remove("NO_COLOR")
            .env_remove("GITHUB_ACTIONS")
            .env_remove("GITHUB_STEP_SUMMARY")
            .env_remove("OTEL_EXPORTER_OTLP_ENDPOINT")
            .stdin(Stdio::null());
        command
    }

    /// The program with exactly these arguments, to its end.
    pub(crate) fn batchsql(&self, arguments: &[&str]) -> Ended {
        self.spawn(self.command(arguments)).end()
    }

    /// `batchsql run --json` of a scenario, to its end.
    pub(crate) fn run(&self, scenario: &Value, more: &[&str]) -> Ended {
        self.start(scenario, more).end()
    }

    /// `batchsql run --json` of a scenario.
    pub(crate) fn start(&self, scenario: &Value, more: &[&str]) -> Running {
        // JSON is YAML.
        let file = self.write(&format!("scenario-{}.yaml", self.started.get()), &scenario.to_string());
        let mut command = self.command(&["run", "--json", "--report-dir", "reports", &file]);
        if !more.contains(&"--metrics-listen") && !more.contains(&"--no-metrics") {
            command.arg("--no-metrics");
        }
        command.args(more);
        self.spawn(command)
    }

    /// `batchsql verify --json` of a run's folder.
    pub(crate) fn verify(&self, run: &Path, more: &[&str]) -> Ended {
        let mut command = self.command(&["verify", "--json"]);
        command.arg(run).args(more);
        self.spawn(command).end()
    }

    pub(crate) fn spawn(&self, mut command: Command) -> Running {
        let number = self.started.replace(self.started.get() + 1);
        let (stdout, stderr) = (self.path(&format!("{number}.out")), self.path(&format!("{number}.err")));
        command.stdout(File::create(&stdout).unwrap()).stderr(File::create(&stderr).unwrap());
        let before = self.run_folders();
        Running { child: command.spawn().unwrap(), stdout, stderr, reports: self.path("reports"), before }
    }

    /// The runs' folders under `reports`, the latest last.
    pub(crate) fn run_folders(&self) -> Vec<PathBuf> {
        run_folders(&self.path("reports"))
    }

    /// Everything that any file below this folder says.
    pub(crate) fn everything_written(&self) -> String {
        let mut all = String::new();
        let mut open = vec![self.folder.path().to_owned()];
        while let Some(folder) = open.pop() {
            for entry in fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
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

fn run_folders(reports: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(reports).into_iter().flatten();
    let mut folders: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).filter(|path| path.join("ledger").is_file()).collect();
    folders.sort_by_key(|folder| fs::metadata(folder.join("ledger")).unwrap().modified().unwrap());
    folders
}

/// Asks again and again until there is an answer.
pub(crate) fn until<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(began.elapsed() < PATIENCE, "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A program under way; it ends with the test at the latest.
pub(crate) struct Running {
    child: Child,
    stdout: PathBuf,
    stderr: PathBuf,
    reports: PathBuf,
    before: Vec<PathBuf>,
}

impl Running {
    /// What it has said on standard error.
    pub(crate) fn said(&self) -> String {
        fs::read_to_string(&self.stderr).unwrap()
    }

    /// What it has said on standard output.
    pub(crate) fn printed(&self) -> String {
        fs::read_to_string(&self.stdout).unwrap()
    }

    /// As [`until`], but not beyond the program's end.
    pub(crate) fn until<T>(&mut self, what: &str, mut ask: impl FnMut(&Self) -> Option<T>) -> T {
        until(what, || {
            let ended = self.child.try_wait().unwrap();
            let answer = ask(self);
            assert!(answer.is_some() || ended.is_none(), "it ended before this came true: {what}\n{}", self.said());
            answer
        })
    }

    /// The folder of its run, once it has a ledger.
    pub(crate) fn folder(&mut self) -> PathBuf {
        self.until("a run's folder", |it| run_folders(&it.reports).into_iter().find(|folder| !it.before.contains(folder)))
    }

    /// Waits until its ledger has at least so many bytes.
    pub(crate) fn until_ledger_has(&mut self, bytes: u64) -> PathBuf {
        let folder = self.folder();
        let ledger = folder.join("ledger");
        self.until("a longer ledger", |_| (fs::metadata(&ledger).unwrap().len() >= bytes).then_some(()));
        folder
    }

    /// Its process.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.id() as i32), signal).unwrap();
    }

    /// Where it serves metrics, given `--metrics-listen 127.0.0.1:0`.
    pub(crate) fn metrics_address(&mut self) -> SocketAddr {
        self.until("the metrics' address", |it| {
            let said = it.said();
            let (_, after) = said.split_once("metrics are on http://")?;
            after.split_once("/metrics\n")?.0.parse().ok()
        })
    }

    /// Waits for its end.
    pub(crate) fn end(mut self) -> Ended {
        let began = Instant::now();
        let status = until("the program's end", || self.child.try_wait().unwrap());
        let ended = Ended { status, stdout: self.printed(), stderr: self.said(), took: began.elapsed() };
        assert!(!ended.stderr.contains("panicked"), "{}", ended.stderr);
        ended
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Both fail when it has ended already, which is what is wanted.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What a program left.
#[derive(Debug)]
pub(crate) struct Ended {
    status: ExitStatus,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    /// From when its end was waited for.
    pub(crate) took: Duration,
}

impl Ended {
    /// Its exit code; a death by signal has none.
    pub(crate) fn code(&self) -> Option<i32> {
        self.status.code()
    }

    /// Asserts the exit code and returns the one JSON document on standard output.
    pub(crate) fn json(&self, code: i32) -> Value {
        let document = serde_json::from_str(&self.stdout);
        assert_eq!(self.code(), Some(code), "{}{}", self.stderr, document.as_ref().map_or(Value::Null, reasons));
        document.unwrap_or_else(|error| panic!("standard output is not one JSON document ({error}): {}", self.stdout))
    }

    /// Asserts that it could not run, said nothing on standard output, and named each of `words`.
    pub(crate) fn refused(&self, words: &[&str]) {
        assert_eq!((self.code(), self.stdout.as_str()), (Some(2), ""), "{}", self.stderr);
        for word in words {
            assert!(self.stderr.contains(word), "{word:?} is missing in: {}", self.stderr);
        }
    }
}

/// What a report says of itself, for failing assertions.
fn reasons(report: &Value) -> Value {
    let parts = ["reason", "reasons", "outcomes", "errors", "error_examples"];
    parts.into_iter().filter_map(|part| Some((part.to_owned(), report.get(part)?.clone()))).collect::<serde_json::Map<_, _>>().into()
}

/// The keys of the examples of one class, in the report's order.
pub(crate) fn keys(integrity: &Value, class: &str) -> Vec<i64> {
    let examples = integrity["examples"].as_array().unwrap().iter();
    examples.filter(|example| example["class"] == class).map(|example| example["key"].as_i64().unwrap()).collect()
}

/// Asserts the number of anomalies of each class: those of `found`, and none of any other.
pub(crate) fn assert_anomalies(integrity: &Value, found: &[(&str, u64)]) {
    for class in ["lost", "duplicated", "corrupted", "phantom", "resurrected", "stale", "partial_batches"] {
        let expected = found.iter().find(|(name, _)| *name == class).map_or(0, |(_, count)| *count);
        assert_eq!(integrity[class], expected, "{class}: {integrity:#}");
    }
    assert_eq!(integrity["verdict"], if found.is_empty() { "holds" } else { "violated" });
}

/// The answer's body to a plain HTTP GET.
pub(crate) fn get(address: SocketAddr, path: &str) -> String {
    ask(address, path).unwrap()
}

/// As [`get`], of what is no text.
pub(crate) fn get_bytes(address: SocketAddr, path: &str) -> Vec<u8> {
    exchange(address, path).unwrap()
}

/// As [`get`], of a server that may not be ready yet.
pub(crate) fn ask(address: SocketAddr, path: &str) -> Result<String, String> {
    exchange(address, path).map(|body| String::from_utf8(body).unwrap())
}

/// In HTTP/1.0, whose bodies are not chunked.
fn exchange(address: SocketAddr, path: &str) -> Result<Vec<u8>, String> {
    let mut stream = TcpStream::connect(address).map_err(|error| error.to_string())?;
    write!(stream, "GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n").map_err(|error| error.to_string())?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).map_err(|error| error.to_string())?;
    let body = memchr::memmem::find(&answer, b"\r\n\r\n").ok_or("no answer")? + 4;
    let body = answer.split_off(body);
    let head = String::from_utf8_lossy(&answer);
    if head.split(' ').nth(1) == Some("200") { Ok(body) } else { Err(format!("{head}{}", String::from_utf8_lossy(&body))) }
}

/// A shell command that says it has been reached and waits for a word; it ends too when the test's folder is gone.
pub(crate) fn rendezvous(place: &Place) -> String {
    let quoted = |name: &str| format!("'{}'", AsRef::<OsStr>::as_ref(&place.path(name)).to_str().unwrap());
    let (reached, go) = (quoted("reached"), quoted("go"));
    format!("touch {reached}; while [ -e {reached} ] && ! [ -e {go} ]; do sleep 0.01; done")
}

/// Runs a scenario, does `meddle` between drain and verification, and lets it finish.
pub(crate) fn run_and_meddle(place: &Place, scenario: &Value, meddle: impl FnOnce()) -> Ended {
    let mut running = place.start(scenario, &["--before-verify", &rendezvous(place)]);
    meet(place, &mut running);
    meddle();
    place.write("go", "");
    running.end()
}

/// Waits until the program has reached [`rendezvous`]; writing `go` lets it go on.
pub(crate) fn meet(place: &Place, running: &mut Running) {
    let reached = place.path("reached");
    running.until("--before-verify", |_| reached.exists().then_some(()));
}
