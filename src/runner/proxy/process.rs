//! The gateway as a process of its own: this program, started once more, so that its CPU time and memory are told apart from the load's.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::io::{AsyncBufReadExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStderr, Command};
use tokio::time::timeout;

use crate::environment;
use crate::proxy::{env, gateway};
use crate::report::Resources;
use crate::runner::say;

/// How long it may take to listen.
const START: Duration = Duration::from_secs(20);
/// How long it may take to end: a gateway waits that long for running requests, and writes its log.
const STOP: Duration = Duration::from_secs(45);
/// What it says once it listens.
const LISTENING: &str = "[SYS] listening on http://";

/// A gateway that runs beside this process; it ends with it.
pub(super) struct Process {
    child: Child,
    pub(super) address: SocketAddr,
    /// What the children before it had used.
    before: Resources,
}

/// Starts a gateway on a free port.
pub(super) async fn start(mut config: gateway::Config, folder: &Path) -> anyhow::Result<Process> {
    let folder = std::path::absolute(folder)?;
    if let Some(path) = config.log.database.sqlite.as_mut().and_then(|sqlite| sqlite.path.as_mut()) {
        *path = std::path::absolute(&*path)?.display().to_string();
    }
    let file = folder.join("gateway.json");
    write_private(&file, &serde_json::to_vec(&config)?).with_context(|| format!("{} cannot be written", file.display()))?;
    let started = listen(&folder, &file).await;
    // It holds the users' keys, and has been read.
    std::fs::remove_file(&file).with_context(|| format!("{} cannot be removed", file.display()))?;
    started
}

async fn listen(folder: &Path, file: &Path) -> anyhow::Result<Process> {
    let program = std::env::current_exe().context("this program's own file cannot be found")?;
    let mut command = Command::new(&program);
    command.args(["proxy", "--listen", "127.0.0.1:0", "--config"]).arg(file);
    // The scenario alone says how it is set: no variable and no .env of the working directory.
    for (name, _) in env::VARIABLES {
        command.env_remove(name);
    }
    command.current_dir(folder).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).kill_on_drop(true);
    // Ctrl-C is for this process, which ends the gateway when its log was verified.
    command.process_group(0);
    let before = environment::children();
    let mut child = command.spawn().with_context(|| format!("{} proxy cannot be started", program.display()))?;
    let mut lines = BufReader::new(child.stderr.take().context("the gateway's standard error is piped")?).lines();
    let address = timeout(START, address(&mut lines)).await.with_context(|| format!("the gateway did not listen within {START:?}"))??;
    // What nobody reads would make it wait.
    tokio::spawn(async move {
        while let Ok(Some(line)) = lines.next_line().await {
            if !line.starts_with("[SYS] stop") {
                say(&line);
            }
        }
    });
    Ok(Process { child, address, before })
}

/// Reads until it says where it listens.
async fn address(lines: &mut Lines<BufReader<ChildStderr>>) -> anyhow::Result<SocketAddr> {
    let mut said = Vec::new();
    while let Some(line) = lines.next_line().await.context("the gateway's words cannot be read")? {
        if let Some(address) = line.strip_prefix(LISTENING) {
            return address.parse().with_context(|| format!("the gateway listens at {address:?}"));
        }
        said.push(line);
    }
    bail!("the gateway ended at once: {}", said.join("\n"))
}

impl Process {
    /// Lets it end, and says what it has used.
    pub(super) async fn stop(mut self) -> Option<Resources> {
        if let Some(id) = self.child.id().and_then(|id| i32::try_from(id).ok()) {
            // It may have ended by itself.
            let _ = kill(Pid::from_raw(id), Signal::SIGTERM);
        }
        if timeout(STOP, self.child.wait()).await.is_err() {
            let _ = self.child.kill().await;
        }
        let after = environment::children();
        // The largest child of all is the gateway, unless a larger one was there before.
        let used = Resources { cpu_seconds: after.cpu_seconds - self.before.cpu_seconds, ..after };
        (after.rss_bytes_max > self.before.rss_bytes_max).then_some(used)
    }
}

/// A file that only its owner reads.
fn write_private(path: &Path, text: &[u8]) -> std::io::Result<()> {
    use std::io::Write as _;
    use std::os::unix::fs::OpenOptionsExt as _;
    std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?.write_all(text)
}
