//! Waiting until a target that was away lets somebody in again.

use std::time::{Duration, Instant};

use url::Url;

use super::rival::Login;
use crate::scenario::TargetConfig;

/// Longest wait.
const LIMIT: Duration = Duration::from_secs(90);
/// Between two tries.
const AGAIN: Duration = Duration::from_millis(50);

/// A target that can be asked whether it is open.
pub(super) enum Door {
    Database(Box<Login>),
    Service { host: String, port: u16 },
}

impl Door {
    pub(super) async fn of(target: &TargetConfig) -> anyhow::Result<Self> {
        let Some(http) = &target.http else { return Ok(Door::Database(Box::new(Login::of(target).await?))) };
        let url = Url::parse(&http.url)?;
        let host = url.host_str().unwrap_or("127.0.0.1").trim_matches(['[', ']']).to_owned();
        Ok(Door::Service { host, port: url.port_or_known_default().unwrap_or(80) })
    }

    /// Returns once a login, or a connection to a service, succeeds.
    pub(super) async fn wait(&self) -> Result<(), String> {
        match self {
            Door::Database(login) => {
                login.rival_within(LIMIT).await?.close().await;
                Ok(())
            }
            Door::Service { host, port } => {
                let began = Instant::now();
                loop {
                    match tokio::net::TcpStream::connect((host.as_str(), *port)).await {
                        Ok(_) => return Ok(()),
                        Err(error) if began.elapsed() >= LIMIT => {
                            return Err(format!("nothing answers at {host}:{port} ({error}) for {} s", LIMIT.as_secs()));
                        }
                        Err(_) => tokio::time::sleep(AGAIN).await,
                    }
                }
            }
        }
    }
}
