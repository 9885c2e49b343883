//! Faults of a database, made by rival sessions with the run's login, or on SQLite by the run's own connections.

mod deadlock;
mod exhaust;
mod lock;
mod own;
mod read_only;
mod restrain;

use std::sync::Arc;

use tokio::sync::Mutex;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::{Act, Scene};
use crate::scenario::TargetConfig;
use crate::scenario::fault::{Fault, Kind};

/// What rivals do from a fault's beginning to its healing.
#[derive(Default)]
struct Rivalry(Mutex<Option<Ongoing>>);

struct Ongoing {
    end: CancellationToken,
    task: JoinHandle<Result<(), String>>,
}

impl Rivalry {
    /// `doing` goes on until `end`.
    async fn begin(&self, end: CancellationToken, doing: impl Future<Output = Result<(), String>> + Send + 'static) {
        *self.0.lock().await = Some(Ongoing { end, task: tokio::spawn(doing) });
    }

    async fn end(&self) -> Result<(), String> {
        let Some(Ongoing { end, task }) = self.0.lock().await.take() else { return Ok(()) };
        end.cancel();
        task.await.map_err(|error| error.to_string())?
    }
}

/// Makes a fault of this family.
pub(super) async fn make(fault: &Fault, scene: &Scene<'_>, target: &mut TargetConfig) -> anyhow::Result<Arc<dyn Act>> {
    if let Some(sqlite) = &mut target.sqlite {
        return Ok(Arc::new(restrain::Restrain::new(fault.kind, sqlite)));
    }
    Ok(match fault.kind {
        Kind::Lock => Arc::new(lock::Lock::new(scene).await?),
        Kind::Deadlock => Arc::new(deadlock::Deadlock::new(fault, scene).await?),
        Kind::ExhaustConnections => Arc::new(exhaust::Exhaust::new(scene).await?),
        Kind::ReadOnly => Arc::new(read_only::ReadOnly::new(scene).await?),
        kind => anyhow::bail!("{} is SQLite's", kind.as_str()),
    })
}
