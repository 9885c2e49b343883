//! `batchsql verify RUN`: a run judged again from its folder, by the ledger and the scenario kept beside it. And the command that
//! `--before-verify` names.

use std::path::Path;

use anyhow::{Context as _, ensure};

use super::{Progress, Run, batch, proxy};
use crate::container;
use crate::ledger;
use crate::redact::{HIDDEN, redact};
use crate::report::Integrity;
use crate::scenario::{Scenario, ServerConfig, Workload};

/// The scenario as resolved, kept in the run's folder.
pub const SCENARIO_FILE: &str = "scenario.json";

/// Runs the user's command; what it changes is what the verifier must see.
pub(super) async fn hook(run: &Run, command: &str, table: Option<&str>) -> Result<(), String> {
    let mut shell = tokio::process::Command::new("sh");
    shell.arg("-c").arg(command).env("BATCHSQL_RUN_ID", &run.id).env("BATCHSQL_RUN_FOLDER", &run.folder);
    if let Some(table) = table {
        shell.env("BATCHSQL_TABLE", table);
    }
    if let Some(container) = &run.container {
        shell.env("BATCHSQL_CONTAINER", &container.name);
    }
    // Standard output is the report's alone.
    let output = shell.stdin(std::process::Stdio::null()).output().await.map_err(|e| format!("--before-verify cannot be run: {e}"))?;
    let said = [output.stdout, output.stderr].concat();
    if !said.is_empty() {
        super::say(redact(&String::from_utf8_lossy(&said), &run.options.secrets).trim_end_matches('\n'));
    }
    if output.status.success() { Ok(()) } else { Err(format!("--before-verify ended with {}", output.status)) }
}

/// Refuses a server whose URL was redacted on its way into `folder`.
pub(super) fn password_is_known(folder: &Path, postgres: &Option<ServerConfig>, mysql: &Option<ServerConfig>) -> anyhow::Result<()> {
    let hidden = [postgres, mysql].into_iter().flatten().any(|server| server.url.contains(HIDDEN));
    let kept = folder.join(SCENARIO_FILE);
    ensure!(
        !hidden,
        "the database's URL carried a password, which is not kept in {}; give the URL again with --database-url",
        kept.display()
    );
    Ok(())
}

/// Judges a run again from its folder: the ledger, the scenario kept beside it, and what is stored now.
///
/// # Errors
/// When the folder, the ledger or the target cannot be used, or the table belongs to another run by now.
pub async fn verify_run(folder: &Path, database_url: Option<&str>, progress: &Progress) -> anyhow::Result<Integrity> {
    let kept = folder.join(SCENARIO_FILE);
    let text = std::fs::read(&kept).with_context(|| format!("{} cannot be read; name a run's id or its folder", kept.display()))?;
    let mut scenario: Scenario = serde_json::from_slice(&text).with_context(|| format!("{} is damaged", kept.display()))?;
    if let Some(url) = database_url {
        crate::scenario::database_url::apply_database_url(&mut scenario, url).map_err(anyhow::Error::msg)?;
    }
    password_is_known(folder, &scenario.target.postgres, &scenario.target.mysql)?;
    let path = folder.join(ledger::FILE);
    let run_id = ledger::header(&path)?.run_id;
    if let (Workload::BatchInsert(_), Some(_)) = (&scenario.workload, &scenario.target.container) {
        scenario.target = container::kept(&run_id, &scenario).await?;
    }
    let report_dir = folder.parent().unwrap_or(Path::new("."));
    match &scenario.workload {
        Workload::BatchInsert(insert) => batch::verify_again(&scenario, insert, &path, &run_id, report_dir, progress).await,
        Workload::ProxyRequest(proxy) => proxy::verify_again(&scenario, proxy, folder, progress).await,
    }
}
