//! A rival that makes deadlocks with the load, one after the other: it stores a key that a batch will come to, waits until the batch
//! has, and then asks for the key before it. Whatever it stores it rolls back.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use async_trait::async_trait;
use tokio_util::sync::CancellationToken;

use super::Rivalry;
use crate::fault::rival::{Login, Rival, refused};
use crate::fault::{Act, Scene};
use crate::pipeline::default_concurrency;
use crate::scenario::fault::Fault;
use crate::table::Table;
use crate::target::quoted;

/// Between two deadlocks, unless the scenario says otherwise.
const PAUSE: Duration = Duration::from_millis(200);
/// Longest wait for a batch to come to the rival's key.
const COMES: Duration = Duration::from_secs(5);
/// Between two looks whether it has.
const AGAIN: Duration = Duration::from_millis(5);
/// InnoDB ends the transaction that has changed fewer rows: the rival changes more than any batch, in a table of its own.
const HEAVY: &str = "batchsql_heavy";

pub(super) struct Deadlock {
    login: Login,
    plan: Arc<Plan>,
    pause: Duration,
    struck: Arc<AtomicU64>,
    rivalry: Rivalry,
}

/// What the rival needs to know of the load.
struct Plan {
    table: Table,
    flush_size: i64,
    concurrency: i64,
}

impl Deadlock {
    pub(super) async fn new(fault: &Fault, scene: &Scene<'_>) -> anyhow::Result<Self> {
        let insert = scene.scenario.workload.batch_insert().context("only batch inserts have a table")?;
        let database = scene.target.database().context("the target is no database")?;
        let concurrency = insert.pipeline.concurrency.unwrap_or_else(|| default_concurrency(database));
        let number = |value: usize| i64::try_from(value).unwrap_or(i64::MAX / 4);
        let plan = Plan { table: insert.table(), flush_size: number(insert.pipeline.flush_size), concurrency: number(concurrency) };
        Ok(Self {
            login: Login::of(scene.target).await?,
            plan: Arc::new(plan),
            pause: fault.pause.map_or(PAUSE, |pause| pause.0),
            struck: Arc::default(),
            rivalry: Rivalry::default(),
        })
    }
}

#[async_trait]
impl Act for Deadlock {
    async fn begin(&self) -> Result<(), String> {
        let mut rival = self.login.rival().await?;
        let right = "the right to create temporary tables";
        self.plan.prepare(&mut rival).await.map_err(|error| refused(&error, right))?;
        let (plan, struck, pause, end) = (Arc::clone(&self.plan), Arc::clone(&self.struck), self.pause, CancellationToken::new());
        let stop = end.clone();
        let deadlocks = async move {
            while !stop.is_cancelled() {
                let won = plan.round(&mut rival, &stop).await;
                rival.execute("ROLLBACK").await.map_err(|error| refused(&error, right))?;
                struck.fetch_add(u64::from(won.map_err(|error| refused(&error, right))?), Ordering::Relaxed);
                tokio::select! {
                    () = tokio::time::sleep(pause) => {}
                    () = stop.cancelled() => {}
                }
            }
            rival.close().await;
            Ok(())
        };
        self.rivalry.begin(end, deadlocks).await;
        Ok(())
    }

    async fn heal(&self) -> Result<(), String> {
        self.rivalry.end().await
    }

    fn struck(&self) -> Option<u64> {
        Some(self.struck.load(Ordering::Relaxed))
    }
}

impl Plan {
    fn quote(rival: &Rival) -> char {
        if matches!(rival, Rival::Postgres(_)) { '"' } else { '`' }
    }

    async fn prepare(&self, rival: &mut Rival) -> Result<(), sqlx::Error> {
        if let Rival::Postgres(_) = rival {
            // Who looks first loses, and that is to be the load. Only a superuser may say so; others win by waiting later.
            let _ = rival.execute("SET deadlock_timeout = '1min'").await;
            return Ok(());
        }
        // Dirty reads show how far a batch has come.
        rival.execute("SET SESSION TRANSACTION ISOLATION LEVEL READ UNCOMMITTED").await?;
        rival.execute(&format!("CREATE TEMPORARY TABLE {HEAVY} (id INT AUTO_INCREMENT PRIMARY KEY, n INT) ENGINE = InnoDB")).await?;
        let thousand = format!("INSERT INTO {HEAVY} (n) VALUES {}", vec!["(0)"; 1000].join(", "));
        for _ in 0..=self.flush_size.min(100_000) / 1000 {
            rival.execute(&thousand).await?;
        }
        Ok(())
    }

    /// Whether a batch was rolled back for the rival's sake.
    async fn round(&self, rival: &mut Rival, stop: &CancellationToken) -> Result<bool, sqlx::Error> {
        let quote = Self::quote(rival);
        let key = quoted(&self.table.columns[self.table.key].name, quote);
        let last = rival.number(&format!("SELECT MAX({key}) FROM {}", quoted(&self.table.name, quote))).await?;
        let Some(last) = last.filter(|last| *last < i64::MAX / 2) else { return Ok(false) };
        // In the middle of a batch that has not begun: keys go up by one, and full batches end at multiples of their size.
        let batch = (last / self.flush_size + self.concurrency + 1) * self.flush_size;
        let far = batch + self.flush_size / 2 + 1;
        rival.execute("BEGIN").await?;
        if let Rival::Mysql(_) = rival {
            rival.execute(&format!("UPDATE {HEAVY} SET n = n + 1")).await?;
        }
        rival.execute(&self.copy(far, quote)).await?;
        if !self.has_come(rival, far, stop).await? {
            return Ok(false);
        }
        match rival.execute(&self.copy(far - 1, quote)).await {
            // The batch held it, and was rolled back.
            Ok(()) => Ok(true),
            // The rival was the victim, or the batch began later than at this key.
            Err(sqlx::Error::Database(_)) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Stores a row that is there already under another key.
    fn copy(&self, key: i64, quote: char) -> String {
        let name = quoted(&self.table.name, quote);
        let columns = || self.table.columns.iter().map(|column| quoted(&column.name, quote));
        let values: Vec<String> =
            columns().enumerate().map(|(at, column)| if at == self.table.key { key.to_string() } else { column }).collect();
        format!("INSERT INTO {name} ({}) SELECT {} FROM {name} LIMIT 1", columns().collect::<Vec<_>>().join(", "), values.join(", "))
    }

    /// Waits until a batch has come to the key that the rival holds.
    async fn has_come(&self, rival: &mut Rival, far: i64, stop: &CancellationToken) -> Result<bool, sqlx::Error> {
        let waits = match rival {
            Rival::Postgres(_) => "SELECT count(*) FROM pg_locks WHERE NOT granted AND locktype = 'transactionid' \
                                   AND transactionid = (txid_current() % 4294967296)::text::xid"
                .to_owned(),
            Rival::Mysql(_) => {
                let [name, key] = [&self.table.name, &self.table.columns[self.table.key].name].map(|name| quoted(name, '`'));
                format!("SELECT COUNT(*) FROM {name} WHERE {key} = {}", far - 1)
            }
        };
        let began = Instant::now();
        while began.elapsed() < COMES && !stop.is_cancelled() {
            if rival.number(&waits).await?.unwrap_or_default() > 0 {
                return Ok(true);
            }
            tokio::time::sleep(AGAIN).await;
        }
        Ok(false)
    }
}
