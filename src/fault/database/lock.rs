//! A rival session that keeps everybody else from writing to the table: what they write waits, for as long as their sessions are set to.

use anyhow::Context as _;
use async_trait::async_trait;
use tokio::sync::Mutex;

use crate::fault::rival::{Login, Rival, refused};
use crate::fault::{Act, Scene};
use crate::target::{describe, quoted};

/// How often the rival begins anew when the load's own locks get in its way.
const TRIES: u32 = 20;

pub(super) struct Lock {
    login: Login,
    table: String,
    rival: Mutex<Option<Rival>>,
}

impl Lock {
    pub(super) async fn new(scene: &Scene<'_>) -> anyhow::Result<Self> {
        let insert = scene.scenario.workload.batch_insert().context("only batch inserts have a table")?;
        Ok(Self { login: Login::of(scene.target).await?, table: insert.table.clone(), rival: Mutex::default() })
    }

    /// What takes the lock. On MySQL and MariaDB these are row and gap locks, whose waits innodb_lock_wait_timeout bounds: for LOCK
    /// TABLES others would wait a day.
    fn statements(&self) -> [String; 3] {
        match self.login {
            Login::Postgres(_) => [
                "BEGIN".to_owned(),
                "SET LOCAL lock_timeout = '100s'".to_owned(),
                format!("LOCK TABLE {} IN ACCESS EXCLUSIVE MODE", quoted(&self.table, '"')),
            ],
            Login::Mysql(_) => [
                "SET SESSION innodb_lock_wait_timeout = 100, SESSION autocommit = 0".to_owned(),
                "SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ".to_owned(),
                format!("SELECT COUNT(*) FROM {} FORCE INDEX (PRIMARY) FOR UPDATE", quoted(&self.table, '`')),
            ],
        }
    }

    async fn take(&self, rival: &mut Rival) -> Result<(), sqlx::Error> {
        for statement in self.statements() {
            rival.execute(&statement).await?;
        }
        Ok(())
    }
}

#[async_trait]
impl Act for Lock {
    async fn begin(&self) -> Result<(), String> {
        let mut rival = self.login.rival().await?;
        for attempt in 1.. {
            let Err(error) = self.take(&mut rival).await else { break };
            let answer = error.as_database_error().and_then(|answer| answer.code());
            // The rival was the victim of a deadlock with the load.
            if attempt == TRIES || !matches!(answer.as_deref(), Some("40001" | "40P01")) {
                return Err(format!("the rival got no lock: {}", refused(&error, "the right to lock the table (UPDATE)")));
            }
            rival.execute("ROLLBACK").await.map_err(|error| describe(&error))?;
        }
        *self.rival.lock().await = Some(rival);
        Ok(())
    }

    async fn heal(&self) -> Result<(), String> {
        let Some(mut rival) = self.rival.lock().await.take() else { return Ok(()) };
        // Closing it does the same, a little later.
        let released = rival.execute("ROLLBACK").await;
        rival.close().await;
        released.map_err(|error| describe(&error))
    }
}
