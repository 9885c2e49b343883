//! `batchsql upstream`.

use tokio_util::sync::CancellationToken;

use super::Config;
use crate::cli::UpstreamArgs;
use crate::commands::{COULD_NOT_RUN, INTERRUPTED, failed, print, signal};

/// Serves until a signal, then lets replies under way end; the second signal ends the program.
pub(crate) async fn upstream(args: UpstreamArgs) -> u8 {
    let stop = CancellationToken::new();
    let config = args.config.as_deref().map_or_else(|| Ok(Config::default()), Config::load);
    let running = match config {
        Ok(config) => super::start(config, args.listen, stop.clone()).await,
        Err(error) => Err(error),
    };
    let running = match running {
        Ok(running) => running,
        Err(error) => return failed(&error, &[]),
    };
    print(&format!("upstream listens on http://{}\n", running.address));
    tokio::spawn(stop_on_signal(stop.clone()));
    running.ended().await;
    // What ends it but a signal has been said.
    if stop.is_cancelled() { 0 } else { COULD_NOT_RUN }
}

async fn stop_on_signal(stop: CancellationToken) {
    signal().await;
    stop.cancel();
    signal().await;
    std::process::exit(i32::from(INTERRUPTED));
}
