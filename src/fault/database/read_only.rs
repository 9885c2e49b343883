//! A server that takes no more writes: new sessions are read-only, and the run's old ones are ended, as when a primary is demoted.

use std::time::Duration;

use anyhow::Context as _;
use async_trait::async_trait;
use tokio::sync::Mutex;

use super::own::Own;
use crate::fault::rival::{Login, Rival, refused};
use crate::fault::{Act, Scene};
use crate::target::{describe, quoted};

/// Longest wait for the server to let the rival in that heals it.
const LIMIT: Duration = Duration::from_secs(60);

pub(super) struct ReadOnly {
    own: Own,
    /// What makes new sessions read-only, what makes them writable again, and the right that it takes.
    on: String,
    off: String,
    right: &'static str,
    begun: Mutex<bool>,
}

impl ReadOnly {
    pub(super) async fn new(scene: &Scene<'_>) -> anyhow::Result<Self> {
        let own = Own::of(scene).await?;
        let mut rival = own.login().rival().await.map_err(anyhow::Error::msg)?;
        let (on, off, right) = match own.login() {
            Login::Postgres(options) => {
                let database = quoted(options.get_database().unwrap_or(options.get_username()), '"');
                let alter = format!("ALTER DATABASE {database}");
                let on = format!("{alter} SET default_transaction_read_only = on");
                (on, format!("{alter} RESET default_transaction_read_only"), "the ownership of the database")
            }
            Login::Mysql(_) => {
                let variable = variable(&mut rival).await?;
                let set = |value: &str| format!("SET GLOBAL {variable} = {value}");
                (set("ON"), set("OFF"), "the right to set global variables (SUPER, or SYSTEM_VARIABLES_ADMIN)")
            }
        };
        // What cannot be undone is not begun: undoing nothing takes the same right.
        let allowed = rival.execute(&off).await.map_err(|error| anyhow::anyhow!("{}", refused(&error, right)));
        rival.close().await;
        allowed.context("the target cannot be made read-only")?;
        Ok(Self { own, on, off, right, begun: Mutex::default() })
    }
}

/// MariaDB's name for it before 11.1, or MySQL's.
async fn variable(rival: &mut Rival) -> anyhow::Result<&'static str> {
    let sql = "SELECT COUNT(*) FROM information_schema.global_variables WHERE variable_name = 'TX_READ_ONLY'";
    // MySQL has no such table.
    let known = rival.number(sql).await.ok().flatten();
    Ok(if known == Some(1) { "tx_read_only" } else { "transaction_read_only" })
}

#[async_trait]
impl Act for ReadOnly {
    async fn begin(&self) -> Result<(), String> {
        let mut rival = self.own.login().rival().await?;
        *self.begun.lock().await = true;
        rival.execute(&self.on).await.map_err(|error| refused(&error, self.right))?;
        let ended = self.own.end_all(&mut rival).await;
        rival.close().await;
        ended
    }

    async fn heal(&self) -> Result<(), String> {
        if !std::mem::take(&mut *self.begun.lock().await) {
            return Ok(());
        }
        let mut rival = self.own.login().rival_within(LIMIT).await?;
        let writable = match self.own.login() {
            Login::Postgres(_) => "SET default_transaction_read_only = off",
            Login::Mysql(_) => "SET SESSION TRANSACTION READ WRITE",
        };
        for statement in [writable, &self.off] {
            rival
                .execute(statement)
                .await
                .map_err(|error| format!("{}; the target is still read-only: undo it with {}", describe(&error), self.off))?;
        }
        // Sessions that were opened meanwhile would stay as they are.
        let ended = self.own.end_all(&mut rival).await;
        rival.close().await;
        ended
    }
}
