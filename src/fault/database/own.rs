//! The run's own sessions, seen and ended from beside them.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use sqlx::Row as _;

use crate::fault::Scene;
use crate::fault::rival::{Login, Rival};
use crate::ledger::{self, Ledger};

/// From then on sessions are ended in the middle of a statement too.
const POLITE: Duration = Duration::from_millis(500);
/// Longest wait for all of them to be gone.
const LIMIT: Duration = Duration::from_secs(10);
/// Between two looks.
const AGAIN: Duration = Duration::from_millis(10);

/// How the run's sessions are told from others: Postgres knows them by name, MySQL by the numbers in the run's ledger.
pub(super) struct Own {
    login: Login,
    name: String,
    ledger: PathBuf,
}

/// A session of the run.
struct Session {
    id: u64,
    idle: bool,
}

impl Own {
    pub(super) async fn of(scene: &Scene<'_>) -> anyhow::Result<Self> {
        let ledger = scene.report_dir.join(scene.run_id).join(ledger::FILE);
        Ok(Self { login: Login::of(scene.target).await?, name: format!("batchsql/{}", scene.run_id), ledger })
    }

    pub(super) fn login(&self) -> &Login {
        &self.login
    }

    async fn sessions(&self, rival: &mut Rival) -> Result<Vec<Session>, sqlx::Error> {
        match rival {
            Rival::Postgres(connection) => {
                // The server cuts names at 63 bytes.
                let sql = "SELECT pid, state FROM pg_stat_activity WHERE application_name = left($1, 63) AND datname = current_database()";
                let rows: Vec<(i32, Option<String>)> = sqlx::query_as(sql).bind(&self.name).fetch_all(connection).await?;
                let session =
                    |(pid, state): (i32, Option<String>)| Session { id: pid.unsigned_abs().into(), idle: state.as_deref() == Some("idle") };
                Ok(rows.into_iter().map(session).collect())
            }
            Rival::Mysql(connection) => {
                let mut ids = self.ids().await;
                // The rival may have been given the number of a session from before a restart.
                let own: u64 = sqlx::query_scalar("SELECT CONNECTION_ID()").fetch_one(&mut *connection).await?;
                ids.remove(&own);
                let mut found = Vec::new();
                for row in sqlx::raw_sql("SHOW PROCESSLIST").fetch_all(connection).await? {
                    let (id, command): (u64, String) = (row.try_get_unchecked("Id")?, row.try_get_unchecked("Command")?);
                    if ids.contains(&id) {
                        found.push(Session { id, idle: command == "Sleep" });
                    }
                }
                Ok(found)
            }
        }
    }

    /// What the ledger says until now; one that cannot be read yet has no sessions.
    async fn ids(&self) -> BTreeSet<u64> {
        let path = self.ledger.clone();
        let read = tokio::task::spawn_blocking(move || Ledger::read(&path, |_| {}).map(|ledger| ledger.sessions));
        read.await.ok().and_then(Result::ok).unwrap_or_default()
    }

    /// Ends those of the run's sessions that wait for their next batch.
    pub(super) async fn end_idle(&self, rival: &mut Rival) -> Result<(), sqlx::Error> {
        for session in self.sessions(rival).await?.into_iter().filter(|session| session.idle) {
            end(rival, session.id).await?;
        }
        Ok(())
    }

    /// Ends all sessions that the run has now; what it opens afterwards stays.
    pub(super) async fn end_all(&self, rival: &mut Rival) -> Result<(), String> {
        let failed = |error: sqlx::Error| format!("the run's sessions cannot be ended: {}", crate::target::describe(&error));
        let began = Instant::now();
        let old: BTreeSet<u64> = self.sessions(rival).await.map_err(failed)?.iter().map(|session| session.id).collect();
        loop {
            let mut left = self.sessions(rival).await.map_err(failed)?;
            left.retain(|session| old.contains(&session.id));
            if left.is_empty() {
                return Ok(());
            }
            if began.elapsed() > LIMIT {
                return Err(format!("{} of the run's sessions could not be ended within {} s", left.len(), LIMIT.as_secs()));
            }
            for session in left.iter().filter(|session| session.idle || began.elapsed() > POLITE) {
                end(rival, session.id).await.map_err(failed)?;
            }
            tokio::time::sleep(AGAIN).await;
        }
    }
}

async fn end(rival: &mut Rival, id: u64) -> Result<(), sqlx::Error> {
    /// It has ended by itself.
    const UNKNOWN_THREAD: &str = "HY000";
    match rival {
        Rival::Postgres(_) => rival.execute(&format!("SELECT pg_terminate_backend({id})")).await,
        Rival::Mysql(_) => match rival.execute(&format!("KILL {id}")).await {
            Err(sqlx::Error::Database(answer)) if answer.code().as_deref() == Some(UNKNOWN_THREAD) => Ok(()),
            done => done,
        },
    }
}
