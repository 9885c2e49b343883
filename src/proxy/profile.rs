//! The CPU profile on a port of its own: not there yet.

use std::net::SocketAddr;

use tokio_util::sync::CancellationToken;

/// Serves profiles on loopback.
///
/// # Errors
/// Always.
pub async fn start(port: u16, _stop: CancellationToken) -> anyhow::Result<SocketAddr> {
    anyhow::bail!("no profile can be served on port {port}: this build has none; set pprof.enabled: false (PPROF_ENABLED=false)")
}
