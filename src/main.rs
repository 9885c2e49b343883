//! Parse, run, exit.

use std::process::ExitCode;

use clap::Parser as _;

fn main() -> ExitCode {
    let cli = batchsql::cli::Cli::parse();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("batchsql: the runtime cannot start: {error}");
            return ExitCode::from(2);
        }
    };
    let code = runtime.block_on(batchsql::run(cli));
    // A blocking call that outlives an interrupted run must not hold the exit up.
    runtime.shutdown_background();
    ExitCode::from(code)
}
