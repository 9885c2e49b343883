//! A rival writer that holds SQLite's write lock: what the load writes meanwhile waits for `busy_timeout` and is then refused.

use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use anyhow::Context as _;
use async_trait::async_trait;
use rusqlite::Connection;

use super::{Act, Scene};
use crate::target::sqlite;

pub(super) struct Busy {
    file: PathBuf,
    rival: Mutex<Option<Connection>>,
}

impl Busy {
    pub(super) fn new(scene: &Scene<'_>) -> anyhow::Result<Self> {
        let config = scene.target.sqlite.as_ref().context("busy is SQLite's")?;
        let file = sqlite::file(config, scene.report_dir, &scene.scenario.name);
        Ok(Self { file, rival: Mutex::new(None) })
    }
}

#[async_trait]
impl Act for Busy {
    async fn begin(&self) -> Result<(), String> {
        let file = self.file.clone();
        let locked = tokio::task::spawn_blocking(move || {
            let rival = Connection::open(file)?;
            rival.busy_timeout(std::time::Duration::from_secs(60))?;
            rival.execute_batch("BEGIN IMMEDIATE")?;
            Ok::<_, rusqlite::Error>(rival)
        });
        let rival = locked.await.map_err(|e| e.to_string())?.map_err(|e| format!("the rival got no lock: {e}"))?;
        *self.rival.lock().unwrap_or_else(PoisonError::into_inner) = Some(rival);
        Ok(())
    }

    async fn heal(&self) -> Result<(), String> {
        let rival = self.rival.lock().unwrap_or_else(PoisonError::into_inner).take();
        rival.map_or(Ok(()), |rival| rival.execute_batch("ROLLBACK").map_err(|e| e.to_string()))
    }
}
