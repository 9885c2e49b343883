//! A server on this machine that dies, stands still or is restarted: by the process id in its own file, and by the command that starts
//! it again.

use std::collections::HashMap;
use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, UNIX_EPOCH};

use anyhow::{Context as _, ensure};
use async_trait::async_trait;
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use sysinfo::{ProcessRefreshKind, ProcessStatus, ProcessesToUpdate, System};
use tokio::process::Child;

use super::open::Door;
use super::{Act, Scene};
use crate::redact::redact;
use crate::scenario::fault::{Fault, Kind};

/// Longest wait for a process to be gone.
const END: Duration = Duration::from_secs(60);
/// Longest run of the start command.
const START: Duration = Duration::from_secs(90);
/// Between two looks.
const AGAIN: Duration = Duration::from_millis(20);
/// Most of the start command's last words that are shown.
const LAST_WORDS: u64 = 2_000;
/// How much older than its process a file may seem: both count in whole seconds, and the system's boot time is rounded.
const SLACK_SECONDS: u64 = 3;

pub(super) struct Process {
    kind: Kind,
    pid_file: PathBuf,
    start: Option<String>,
    /// Ends the server in good order without waiting for its clients.
    end: Signal,
    door: Door,
    folder: PathBuf,
    secrets: Vec<String>,
    /// What was signalled and is not well again: the server and, for those with several processes, its children.
    struck: Mutex<Vec<Pid>>,
}

impl Process {
    pub(super) async fn new(fault: &Fault, scene: &Scene<'_>) -> anyhow::Result<Self> {
        let pid_file = PathBuf::from(fault.pid_file.as_ref().context("pid_file is missing")?);
        let this = Self {
            kind: fault.kind,
            pid_file,
            start: fault.start.clone(),
            end: if scene.target.postgres.is_some() { Signal::SIGINT } else { Signal::SIGTERM },
            door: Door::of(scene.target).await?,
            folder: scene.report_dir.join(scene.run_id),
            secrets: scene.secrets.to_vec(),
            struck: Mutex::default(),
        };
        let pid = read_pid(&this.pid_file)?;
        kill(pid, None).with_context(|| {
            format!("process {pid} of {} cannot be signalled; run batchsql as the server's user or as root", this.pid_file.display())
        })?;
        Ok(this)
    }

    /// Signals the file's process alone; what is returned are it and its children, which do not outlive it.
    fn signal(&self, signal: Signal) -> anyhow::Result<Vec<Pid>> {
        let pid = read_pid(&self.pid_file)?;
        let mut all = vec![pid];
        all.extend(children(pid)?);
        kill(pid, signal).with_context(|| format!("{signal} to process {pid} of {}", self.pid_file.display()))?;
        self.struck.lock().unwrap_or_else(PoisonError::into_inner).clone_from(&all);
        Ok(all)
    }

    /// Stops the file's process and, once it makes no more of them, its children, which serve the sessions.
    fn stop(&self) -> anyhow::Result<()> {
        let pid = self.signal(Signal::SIGSTOP)?[0];
        let children = children(pid)?;
        for child in &children {
            // One that has ended meanwhile stands still as well.
            let _ = kill(*child, Signal::SIGSTOP);
        }
        *self.struck.lock().unwrap_or_else(PoisonError::into_inner) = [vec![pid], children].concat();
        Ok(())
    }

    fn take_struck(&self) -> Vec<Pid> {
        std::mem::take(&mut *self.struck.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Starts the server again and waits until it lets somebody in.
    async fn start_again(&self, command: &str) -> Result<(), String> {
        let (mut said, file) = output(&self.folder).map_err(|error| format!("what the start command says has no place: {error}"))?;
        let mut child = spawn(command, &file).map_err(|error| format!("the start command cannot be run: {error}"))?;
        let failed = |found: String, said: &mut File| {
            let words = redact(&last_words(said), &self.secrets);
            format!("the start command {found}; correct `start`, a command that starts the server and returns; {words}")
        };
        tokio::select! {
            // It may be the server itself, which does not return; then it is left running.
            opened = self.door.wait() => opened.map_err(|problem| failed(format!("was given, and {problem}"), &mut said)),
            ended = tokio::time::timeout(START, child.wait()) => match ended {
                Ok(Ok(status)) if status.success() => self.door.wait().await.map_err(|problem| failed(format!("succeeded, and {problem}"), &mut said)),
                Ok(Ok(status)) => Err(failed(format!("ended with {status}"), &mut said)),
                Ok(Err(error)) => Err(failed(format!("cannot be waited for: {error}"), &mut said)),
                Err(_) => Err(failed(format!("did not end within {} s", START.as_secs()), &mut said)),
            },
        }
    }
}

#[async_trait]
impl Act for Process {
    async fn begin(&self) -> Result<(), String> {
        match self.kind {
            Kind::Pause => self.stop().map_err(words),
            Kind::Kill => gone(&self.signal(Signal::SIGKILL).map_err(words)?).await,
            _ => gone(&self.signal(self.end).map_err(words)?).await,
        }
    }

    async fn heal(&self) -> Result<(), String> {
        let struck = self.take_struck();
        if struck.is_empty() {
            return Ok(());
        }
        let Some(command) = self.start.as_ref().filter(|_| self.kind != Kind::Pause) else {
            // A stopped process keeps its number. The children first: the server looks after them.
            for pid in struck.iter().rev() {
                match kill(*pid, Signal::SIGCONT) {
                    // A stopped process does not end, unless somebody else has killed it.
                    Ok(()) | Err(Errno::ESRCH) => {}
                    Err(error) => return Err(format!("SIGCONT to process {pid}: {error}")),
                }
            }
            return self.door.wait().await;
        };
        gone(&struck).await?;
        self.start_again(command).await
    }
}

fn words(error: anyhow::Error) -> String {
    format!("{error:#}")
}

/// The process that `file` names on its first line, if it may be signalled.
fn read_pid(file: &Path) -> anyhow::Result<Pid> {
    let name = file.display();
    let text = std::fs::read_to_string(file).with_context(|| format!("pid_file {name} cannot be read; name the running server's"))?;
    let line = text.lines().next().unwrap_or_default().trim();
    let pid: i32 = line.parse().ok().with_context(|| format!("pid_file {name} begins with {line:?}, not with a process id"))?;
    ensure!(pid > 1 && pid.unsigned_abs() != std::process::id(), "pid_file {name} names process {pid}, which is no server's");
    let known = look(ProcessesToUpdate::Some(&[sysinfo::Pid::from_u32(pid.unsigned_abs())]))?;
    let process = known.process(sysinfo::Pid::from_u32(pid.unsigned_abs()));
    let process = process.with_context(|| format!("process {pid} of pid_file {name} does not run; start the server first"))?;
    // A number that is another's by now must not be signalled.
    let written = std::fs::metadata(file).and_then(|file| file.modified()).ok();
    let written = written.and_then(|time| time.duration_since(UNIX_EPOCH).ok()).map_or(u64::MAX, |time| time.as_secs());
    ensure!(
        process.start_time() <= written.saturating_add(SLACK_SECONDS),
        "pid_file {name} is older than process {pid}, which therefore is another's; start the server first"
    );
    Ok(Pid::from_raw(pid))
}

fn look(which: ProcessesToUpdate<'_>) -> anyhow::Result<System> {
    let mut system = System::new().context("the system does not tell its processes")?;
    system.refresh_processes_specifics(which, true, ProcessRefreshKind::nothing().without_tasks());
    Ok(system)
}

/// The processes below `pid`, parents before their children.
fn children(pid: Pid) -> anyhow::Result<Vec<Pid>> {
    let system = look(ProcessesToUpdate::All)?;
    let mut below: HashMap<u32, Vec<u32>> = HashMap::new();
    for process in system.processes().values() {
        if let Some(parent) = process.parent() {
            below.entry(parent.as_u32()).or_default().push(process.pid().as_u32());
        }
    }
    let mut found = vec![pid.as_raw().unsigned_abs()];
    let mut next = 0;
    while let Some(parent) = found.get(next) {
        found.extend(below.remove(parent).unwrap_or_default());
        next += 1;
    }
    Ok(found.into_iter().skip(1).map(|pid| Pid::from_raw(pid.cast_signed())).collect())
}

/// Waits until none of `pids` runs: until then files and shared memory are theirs.
async fn gone(pids: &[Pid]) -> Result<(), String> {
    let began = Instant::now();
    let numbers: Vec<sysinfo::Pid> = pids.iter().map(|pid| sysinfo::Pid::from_u32(pid.as_raw().unsigned_abs())).collect();
    loop {
        let system = look(ProcessesToUpdate::Some(&numbers)).map_err(words)?;
        // Somebody's child that was not waited for is gone all the same.
        let runs = |process: &sysinfo::Process| !matches!(process.status(), ProcessStatus::Zombie | ProcessStatus::Dead);
        let left = system.processes().values().find(|process| runs(process));
        let Some(left) = left else { return Ok(()) };
        if began.elapsed() >= END {
            return Err(format!("process {} still runs after {} s", left.pid(), END.as_secs()));
        }
        tokio::time::sleep(AGAIN).await;
    }
}

/// A file without a name: a server that goes on writing into it holds no pipe of ours, and nothing unredacted is left behind.
fn output(folder: &Path) -> std::io::Result<(File, File)> {
    let path = folder.join("start.output");
    let file = File::options().create(true).truncate(true).read(true).write(true).open(&path)?;
    std::fs::remove_file(&path)?;
    Ok((file.try_clone()?, file))
}

fn spawn(command: &str, said: &File) -> std::io::Result<Child> {
    let mut shell = tokio::process::Command::new("sh");
    shell.arg("-c").arg(command).stdin(Stdio::null()).stdout(said.try_clone()?).stderr(said.try_clone()?);
    // Ctrl-C is for this process, not for a server.
    shell.process_group(0).spawn()
}

fn last_words(said: &mut File) -> String {
    let length = said.seek(SeekFrom::End(0)).unwrap_or_default();
    let mut words = Vec::new();
    let from = SeekFrom::Start(length.saturating_sub(LAST_WORDS));
    let _ = said.seek(from).and_then(|_| said.take(LAST_WORDS).read_to_end(&mut words));
    let words = String::from_utf8_lossy(&words).trim().to_owned();
    if words.is_empty() { "it said nothing".to_owned() } else { format!("it said: {words}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_process_that_is_the_files_own_is_taken() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("pid");
        let said = |text: &str| {
            std::fs::write(&file, text).unwrap();
            format!("{:#}", read_pid(&file).unwrap_err())
        };
        for none in ["0", "1", "-1", "-2147483648", &std::process::id().to_string()] {
            assert!(said(none).ends_with("which is no server's"), "{none}: {}", said(none));
        }
        assert!(said("postgres").contains("begins with \"postgres\""));
        assert!(said("").contains("not with a process id"));
        assert!(said("2147483646\n").contains("does not run; start the server first"));
        let mut other = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        std::fs::write(&file, format!("{}\nmore\n", other.id())).unwrap();
        assert_eq!(read_pid(&file).unwrap().as_raw().unsigned_abs(), other.id());
        let old = std::time::SystemTime::now() - Duration::from_secs(3600);
        File::options().write(true).open(&file).unwrap().set_modified(old).unwrap();
        assert!(format!("{:#}", read_pid(&file).unwrap_err()).contains("is older than process"));
        other.kill().unwrap();
        other.wait().unwrap();
    }
}
