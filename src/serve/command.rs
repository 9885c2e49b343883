//! `batchsql serve`: past runs as a program.

use anyhow::{Context as _, bail};
use tokio_util::sync::CancellationToken;

use crate::cli::ServeArgs;
use crate::commands;
use crate::runner::say;

/// Holds the token where no file does.
const TOKEN: &str = "BATCHSQL_SERVE_TOKEN";

/// Serves until it is told to stop.
pub(crate) async fn serve(args: &ServeArgs) -> u8 {
    match run(args).await {
        Ok(()) => 0,
        Err(error) => commands::failed(&error, &[]),
    }
}

async fn run(args: &ServeArgs) -> anyhow::Result<()> {
    let token = token(args)?;
    let stop = CancellationToken::new();
    let closed = if token.is_some() { "" } else { "; nothing can be changed: no token is configured" };
    let running = super::start(args.listen, &args.report_dir, token, stop.clone()).await?;
    say(&format!("[SYS] listening on http://{}{closed}", running.address));
    tokio::spawn(async move {
        commands::signal().await;
        say("[SYS] stopping (once more to stop at once)");
        stop.cancel();
        commands::signal().await;
        std::process::exit(i32::from(commands::INTERRUPTED));
    });
    running.ended().await;
    say("[SYS] stopped");
    Ok(())
}

fn token(args: &ServeArgs) -> anyhow::Result<Option<String>> {
    let Some(file) = &args.token_file else {
        return Ok(std::env::var(TOKEN).ok().map(|token| token.trim().to_owned()).filter(|token| !token.is_empty()));
    };
    let text = std::fs::read_to_string(file)
        .with_context(|| format!("--token-file {}: it cannot be read; name a file that holds the token alone", file.display()))?;
    let token = text.trim();
    if token.is_empty() || token.contains(char::is_whitespace) {
        bail!("--token-file {}: one word is expected, the token alone; make one with `openssl rand -hex 32`", file.display());
    }
    Ok(Some(token.to_owned()))
}
