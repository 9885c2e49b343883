//! Rivals that take every connection the server gives. The run's own are ended when they wait for their next batch, and the rivals are
//! there first.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::future::join_all;
use tokio_util::sync::CancellationToken;

use super::Rivalry;
use super::own::Own;
use crate::fault::rival::Rival;
use crate::fault::{Act, Scene};
use crate::target::describe;

/// Most rivals: each is a process or a thread of the server.
const MOST: usize = 5_000;
/// Rivals that connect at once: the handshakes of TLS take their time.
const TOGETHER: usize = 16;
/// Between two looks for free places.
const AGAIN: Duration = Duration::from_millis(5);

pub(super) struct Exhaust {
    own: Arc<Own>,
    crowd: Rivalry,
}

impl Exhaust {
    pub(super) async fn new(scene: &Scene<'_>) -> anyhow::Result<Self> {
        Ok(Self { own: Arc::new(Own::of(scene).await?), crowd: Rivalry::default() })
    }
}

#[async_trait]
impl Act for Exhaust {
    async fn begin(&self) -> Result<(), String> {
        let first = self.own.login().rival().await?;
        let end = CancellationToken::new();
        self.crowd.begin(end.clone(), crowd(Arc::clone(&self.own), first, end)).await;
        Ok(())
    }

    async fn heal(&self) -> Result<(), String> {
        self.crowd.end().await
    }
}

/// Takes what is free, and what the run's sessions leave, until `end`.
async fn crowd(own: Arc<Own>, mut first: Rival, end: CancellationToken) -> Result<(), String> {
    let (mut rivals, mut together) = (Vec::new(), TOGETHER);
    let mut result = Ok(());
    while result.is_ok() && !end.is_cancelled() {
        result = tokio::select! {
            filled = fill(&own, &mut rivals, &mut together) => filled,
            () = end.cancelled() => break,
        };
        if let Err(error) = own.end_idle(&mut first).await {
            result = Err(describe(&error));
        }
        tokio::select! {
            () = tokio::time::sleep(AGAIN) => {}
            () = end.cancelled() => {}
        }
    }
    rivals.push(first);
    for rival in rivals {
        rival.close().await;
    }
    result
}

async fn fill(own: &Own, rivals: &mut Vec<Rival>, together: &mut usize) -> Result<(), String> {
    while rivals.len() < MOST {
        let before = rivals.len();
        rivals.extend(join_all((0..*together).map(|_| own.login().connect())).await.into_iter().flatten());
        // Somebody was refused, as it should be. From then on one at a time waits for what becomes free.
        if rivals.len() < before + *together {
            *together = 1;
            return Ok(());
        }
    }
    Err(format!("the server gives more than {MOST} connections; set its max_connections lower"))
}
