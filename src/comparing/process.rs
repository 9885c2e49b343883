//! One run of a side: this program, started once more, so that memory, CPU time and every cache of the process begin anew.

use std::ffi::OsString;
use std::process::Stdio;

use anyhow::{Context as _, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::io::AsyncReadExt as _;
use tokio::process::Command;
use tokio_util::sync::CancellationToken;

use crate::report::Report;

/// Most bytes of a report that are read, and of what a run says when it fails.
const REPORT_BYTES: u64 = 256 << 20;
const SAID_BYTES: u64 = 64 << 10;

/// Runs `batchsql run --json` with these arguments to its end. Once `stop` is cancelled the run drains, verifies and reports.
pub(super) async fn run(arguments: &[OsString], stop: &CancellationToken) -> anyhow::Result<Report> {
    let program = std::env::current_exe().context("this program's own file cannot be found")?;
    let mut command = Command::new(&program);
    command.args(["run", "--json", "--quiet", "--no-metrics"]).args(arguments);
    // What the comparison found is told to GitHub, not each of its runs.
    command.env_remove("GITHUB_ACTIONS").env_remove("GITHUB_STEP_SUMMARY");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    // Ctrl-C reaches the run through this process, once.
    command.process_group(0);
    let mut child = command.spawn().with_context(|| format!("{} cannot be started", program.display()))?;
    let (mut stdout, mut stderr) = child.stdout.take().zip(child.stderr.take()).context("a run's output is piped")?;
    let id = child.id().and_then(|id| i32::try_from(id).ok());
    let (mut report, mut said) = (Vec::new(), Vec::new());
    let reading = async {
        let mut limited = (&mut stdout).take(REPORT_BYTES);
        let mut few = (&mut stderr).take(SAID_BYTES);
        let (report, said) = tokio::join!(limited.read_to_end(&mut report), few.read_to_end(&mut said));
        // What is said beyond the limit must not make the run wait.
        tokio::io::copy(&mut stderr, &mut tokio::io::sink()).await.and(report).and(said)
    };
    let stopping = async {
        stop.cancelled().await;
        if let Some(id) = id {
            // It may have ended by itself.
            let _ = kill(Pid::from_raw(id), Signal::SIGTERM);
        }
        std::future::pending::<()>().await;
    };
    tokio::select! {
        read = reading => read.context("a run's report cannot be read")?,
        () = stopping => unreachable!("it waits for ever"),
    };
    let status = child.wait().await.context("a run cannot be waited for")?;
    let said = String::from_utf8_lossy(&said);
    if report.is_empty() {
        let said = said.trim().trim_start_matches("batchsql: ");
        bail!("{}", if said.is_empty() { format!("it ended with {status} and said nothing") } else { said.to_owned() });
    }
    serde_json::from_slice(&report).with_context(|| format!("it ended with {status}, and its report cannot be read: {}", said.trim()))
}
