//! A database server of one test's own: with its settings, killed and started again as the test wants, ended with it.

use std::fs;
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

/// Longest wait for a server.
const PATIENCE: Duration = Duration::from_secs(60);
const PASSWORD: &str = "batchsql-test";

pub(crate) struct Server {
    folder: TempDir,
    /// As `--database-url` takes it.
    pub(crate) url: String,
    /// The shell command that starts it.
    pub(crate) start: String,
    pub(crate) pid_file: PathBuf,
    /// What ends it at once.
    end: Signal,
}

impl Server {
    /// A Postgres with these settings (`name=value`), if it is installed.
    pub(crate) fn postgres(settings: &[&str]) -> Option<Self> {
        let Some(bin) = postgres_programs() else {
            println!("left out: Postgres is not installed");
            return None;
        };
        let (folder, port) = (folder(), free_port());
        let path = folder.path();
        fs::write(path.join("password"), PASSWORD).unwrap();
        own(path, "postgres");
        let (at, bin) = (path.display(), bin.display());
        let initdb = format!("{bin}/initdb -N -D {at}/data -U batchsql --pwfile={at}/password -A scram-sha-256 -E UTF8 --locale=C");
        shell(&as_user("postgres", &initdb));
        let options: String = settings.iter().map(|setting| format!(" -c {setting}")).collect();
        let options = format!("-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={options}");
        // After SIGKILL its number may still be there, of a process that nobody has waited for.
        let start = format!("rm -f {at}/data/postmaster.pid; ")
            + &as_user("postgres", &format!("{bin}/pg_ctl -D {at}/data -l {at}/log -w -t 60 -o '{options}' start >/dev/null </dev/null"));
        let url = format!("postgres://batchsql:{PASSWORD}@127.0.0.1:{port}/postgres");
        let pid_file = path.join("data/postmaster.pid");
        let server = Self { folder, url, start, pid_file, end: Signal::SIGQUIT };
        server.start_again();
        Some(server)
    }

    /// A MariaDB with these settings (`name=value`), if it is installed.
    pub(crate) fn mariadb(settings: &[&str]) -> Option<Self> {
        if !["mariadbd", "mariadb-install-db", "mysql"].iter().all(|program| is_here(program)) {
            println!("left out: MariaDB is not installed");
            return None;
        }
        let (folder, port) = (folder(), free_port());
        let path = folder.path();
        own(path, "mysql");
        let at = path.display();
        let install = "mariadb-install-db --no-defaults --auth-root-authentication-method=normal --skip-test-db";
        // A folder of its own for temporary tables: one that starts removes what it finds, also another server's.
        shell(&as_user("mysql", &format!("env TMPDIR={at} {install} --datadir={at}/data")));
        let options: String = settings.iter().map(|setting| format!(" --{setting}")).collect();
        let server = format!(
            "env TMPDIR={at} setsid mariadbd --no-defaults --datadir={at}/data --port={port} --bind-address=127.0.0.1 --socket={at}/sock \
             --pid-file={at}/pid --skip-name-resolve{options} >>{at}/log 2>&1 </dev/null &"
        );
        let url = format!("mysql://batchsql:{PASSWORD}@127.0.0.1:{port}/batchsql_test");
        let (start, pid_file) = (as_user("mysql", &server), path.join("pid"));
        let server = Self { folder, url, start, pid_file, end: Signal::SIGKILL };
        server.start_again();
        let grant = format!(
            "CREATE USER 'batchsql'@'%' IDENTIFIED BY '{PASSWORD}'; GRANT ALL ON *.* TO 'batchsql'@'%' WITH GRANT OPTION; \
             CREATE DATABASE batchsql_test"
        );
        shell(&format!("mysql --no-defaults -uroot --socket={at}/sock -e \"{grant}\"", at = server.folder.path().display()));
        Some(server)
    }

    /// Starts it and waits until it listens.
    pub(crate) fn start_again(&self) {
        shell(&self.start);
        let address = self.url.rsplit_once('@').unwrap().1.split_once('/').unwrap().0;
        let began = Instant::now();
        while TcpStream::connect(address).is_err() {
            assert!(began.elapsed() < PATIENCE, "the server does not listen: {}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    pub(crate) fn pid(&self) -> Option<Pid> {
        let text = fs::read_to_string(&self.pid_file).ok()?;
        text.lines().next()?.trim().parse().ok().map(Pid::from_raw)
    }

    fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let Some(pid) = self.pid() else { return };
        // A failed test may have left it, and its children, standing still.
        for pid in children(pid).into_iter().chain([pid]) {
            let _ = kill(pid, Signal::SIGCONT);
        }
        if kill(pid, self.end).is_ok() {
            until_gone(pid);
        }
    }
}

fn children(pid: Pid) -> Vec<Pid> {
    let text = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    text.split_whitespace().filter_map(|pid| pid.parse().ok()).map(Pid::from_raw).collect()
}

/// Whether a process runs; one that nobody has waited for does not.
pub(crate) fn runs(pid: Pid) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let zombie = status.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('Z'));
    !zombie && kill(pid, None) != Err(Errno::ESRCH)
}

fn until_gone(pid: Pid) {
    let began = Instant::now();
    while runs(pid) {
        assert!(began.elapsed() < PATIENCE, "process {pid} does not end");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn folder() -> TempDir {
    // Not /dev/shm: there MariaDB maps its log into memory, and no crash of a process takes what no COMMIT has written.
    let folder = tempfile::tempdir().unwrap();
    // The servers run as users of their own.
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    folder
}

fn is_root() -> bool {
    Command::new("id").arg("-u").output().is_ok_and(|output| output.stdout == b"0\n")
}

/// Servers refuse to run as root, and on another's files.
fn own(folder: &Path, user: &str) {
    if is_root() {
        shell(&format!("chown -R {user}: {}", folder.display()));
    }
}

fn as_user(user: &str, command: &str) -> String {
    if is_root() { format!("setpriv --reuid={user} --regid={user} --init-groups {command}") } else { command.to_owned() }
}

fn shell(command: &str) {
    let output = Command::new("sh").args(["-c", command]).current_dir("/").stdin(Stdio::null()).output().unwrap();
    assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&[output.stdout, output.stderr].concat()));
}

fn is_here(program: &str) -> bool {
    Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok()
}

/// The newest of Debian's, or those on the path.
fn postgres_programs() -> Option<PathBuf> {
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().filter_map(Result::ok);
    let mut found: Vec<(u32, PathBuf)> = versions
        .filter_map(|entry| Some((entry.file_name().to_str()?.parse().ok()?, entry.path().join("bin"))))
        .filter(|(_, bin)| bin.join("initdb").exists())
        .collect();
    found.sort();
    let on_path = std::env::split_paths(&std::env::var_os("PATH")?).find(|folder| folder.join("initdb").exists());
    found.pop().map(|(_, bin)| bin).or(on_path)
}

/// A port that nobody listens on, below those that the system gives to clients: it must be free again after a restart.
fn free_port() -> u16 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    (0..200)
        .map(|_| {
            let mixed = std::process::id().wrapping_mul(2_654_435_761).wrapping_add(NEXT.fetch_add(7_919, Ordering::Relaxed));
            20_000 + (mixed % 12_000) as u16
        })
        .find(|port| TcpStream::connect(("127.0.0.1", *port)).is_err())
        .expect("a free port between 20000 and 32000")
}
