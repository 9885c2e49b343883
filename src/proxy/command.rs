//! `batchsql proxy`: the gateway as a program.

use std::collections::HashMap;
use std::io::ErrorKind;

use anyhow::Context as _;
use tokio_util::sync::CancellationToken;

use super::{env, gateway};
use crate::cli::ProxyArgs;
use crate::commands;
use crate::telemetry::log::{self, say};

/// Serves until it is told to stop; everything is written then.
pub(crate) async fn proxy(args: &ProxyArgs) -> u8 {
    let mut secrets = Vec::new();
    match serve(args, &mut secrets).await {
        Ok(()) => 0,
        Err(error) => commands::failed(&error, &secrets),
    }
}

async fn serve(args: &ProxyArgs, secrets: &mut Vec<String>) -> anyhow::Result<()> {
    let file = dotenv()?;
    // What the environment says counts, then `.env`.
    let lookup = |name: &str| std::env::var(name).ok().or_else(|| file.get(name).cloned());
    let config = gateway::load(&args.config, &lookup)?;
    secrets.extend(config.secrets());
    log::hide(secrets);
    let config = env::apply(config, &lookup).map_err(|problems| anyhow::Error::msg(problems.join("\n")))?;
    let stop = CancellationToken::new();
    let running = gateway::start(config, args.listen, stop.clone()).await?;
    say(&format!("[SYS] listening on http://{}", running.address));
    tokio::spawn(async move {
        commands::signal().await;
        say("[SYS] stopping: running requests end, then the log is written (once more to stop at once)");
        stop.cancel();
        commands::signal().await;
        std::process::exit(130);
    });
    running.ended().await;
    say("[SYS] stopped");
    Ok(())
}

/// The variables of `.env` in the working directory, if it is there.
fn dotenv() -> anyhow::Result<HashMap<String, String>> {
    match dotenvy::from_path_iter(".env") {
        Ok(variables) => variables.collect::<Result<_, _>>().context(".env: a line is not NAME=value"),
        Err(dotenvy::Error::Io(error)) if error.kind() == ErrorKind::NotFound => Ok(HashMap::new()),
        Err(error) => Err(error).context(".env cannot be read"),
    }
}
