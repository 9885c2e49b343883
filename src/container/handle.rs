//! What a fault does to the container of its run, by the engine.

use std::time::{Duration, Instant};

use testcontainers::bollard::Docker;
use testcontainers::bollard::errors::Error;
use testcontainers::bollard::query_parameters::{KillContainerOptionsBuilder, StopContainerOptionsBuilder};

use super::{Facts, engine};

/// How long a server may take to end in good order; then the engine kills it.
const STOP_SECONDS: i32 = 60;
/// Longest wait for the engine to see that a container has ended.
const END: Duration = Duration::from_secs(20);
/// Between two looks.
const AGAIN: Duration = Duration::from_millis(20);

/// A hold on a running container.
pub(crate) struct Handle {
    docker: Docker,
    name: String,
}

impl Handle {
    pub(crate) async fn of(container: &Facts) -> anyhow::Result<Self> {
        Ok(Self { docker: engine::connect().await?, name: container.name.clone() })
    }

    fn said(&self, doing: &str, answer: Result<(), Error>) -> Result<(), String> {
        answer.map_err(|error| format!("container {} cannot be {doing}: {error}", self.name))
    }

    /// SIGKILL to everything in it.
    pub(crate) async fn kill(&self) -> Result<(), String> {
        let options = KillContainerOptionsBuilder::new().signal("SIGKILL").build();
        self.said("killed", self.docker.kill_container(&self.name, Some(options)).await)?;
        // The engine starts nothing that it still takes for running.
        let began = Instant::now();
        while self.runs().await? {
            if began.elapsed() >= END {
                return Err(format!("container {} still runs {} s after SIGKILL", self.name, END.as_secs()));
            }
            tokio::time::sleep(AGAIN).await;
        }
        Ok(())
    }

    async fn runs(&self) -> Result<bool, String> {
        let found = engine::inspect(&self.docker, &self.name).await;
        let found = found.map_err(|error| format!("container {} cannot be looked up: {error}", self.name))?;
        Ok(found.state.and_then(|state| state.running).unwrap_or(false))
    }

    pub(crate) async fn stop(&self) -> Result<(), String> {
        let options = StopContainerOptionsBuilder::new().t(STOP_SECONDS).build();
        self.said("stopped", self.docker.stop_container(&self.name, Some(options)).await)
    }

    pub(crate) async fn start(&self) -> Result<(), String> {
        self.said("started", self.docker.start_container(&self.name, None).await)
    }

    pub(crate) async fn pause(&self) -> Result<(), String> {
        self.said("paused", self.docker.pause_container(&self.name).await)
    }

    pub(crate) async fn unpause(&self) -> Result<(), String> {
        self.said("unpaused", self.docker.unpause_container(&self.name).await)
    }
}
