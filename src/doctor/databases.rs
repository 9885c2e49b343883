//! Databases: reached by a real login, named by their own version; of SQLite the pragmas of a connection as the program opens it, and
//! how long the write-ahead log is.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use futures::future::join_all;
use tokio::net::TcpStream;
use url::Url;

use super::{Finding, LIMIT};
use crate::redact::{redact, redact_url, secrets_of_url};
use crate::scenario::units::Time;
use crate::scenario::{Pool, SqliteConfig, TargetConfig};
use crate::target::{self, Context, sqlite};

/// A write-ahead log of this length is no longer checkpointed as it should be.
const LONG_WAL_BYTES: u64 = 256 << 20;
/// How long saying good-bye may take.
const GOOD_BYE: Duration = Duration::from_millis(500);

/// A database to look at.
pub(super) struct Wanted {
    pub(super) target: TargetConfig,
    /// Names the default SQLite file.
    pub(super) scenario_name: String,
    pub(super) report_dir: PathBuf,
    pub(super) named: bool,
}

pub(super) async fn all(wanted: &[Wanted]) -> Vec<Finding> {
    join_all(wanted.iter().map(one)).await
}

async fn one(wanted: &Wanted) -> Finding {
    if let Some(config) = &wanted.target.sqlite {
        let default = || wanted.report_dir.join("data").join(format!("{}.db", wanted.scenario_name));
        let path = config.path.as_ref().map_or_else(default, PathBuf::from);
        return embedded(path, config.clone(), wanted.named).await;
    }
    let Some(server) = wanted.target.postgres.as_ref().or(wanted.target.mysql.as_ref()) else {
        return Finding::ill("database", "the scenario names none", "give a scenario of a database, or --database-url");
    };
    let part = if wanted.target.postgres.is_some() { "postgres" } else { "mysql" };
    if !wanted.named && !listens(&server.url).await {
        let shown = redact_url(&server.url);
        return Finding::missing(false, part, format!("nothing listens at {shown}"), "start it, or name another with --database-url");
    }
    let began = Instant::now();
    let answer = tokio::time::timeout(LIMIT, connect(wanted)).await;
    match answer.unwrap_or_else(|_| Err(format!("no answer within {}", humantime::format_duration(LIMIT)))) {
        Ok(found) => Finding::well(part, format!("{found}, {} ms", began.elapsed().as_millis())),
        Err(error) => {
            let error = redact(&error, &secrets_of_url(&server.url));
            Finding::ill(part, format!("{}: {error}", redact_url(&server.url)), "start it, or correct --database-url or the scenario")
        }
    }
}

async fn connect(wanted: &Wanted) -> Result<String, String> {
    let times = Pool { size: Some(1), connect_timeout: Time(LIMIT), ..wanted.target.pool.clone() };
    let config = TargetConfig { pool: times, ..wanted.target.clone() };
    let context = Context {
        run_id: "doctor",
        scenario_name: &wanted.scenario_name,
        report_dir: &wanted.report_dir,
        concurrency: Some(1),
        create: false,
    };
    let target = target::connect(&config, &context).await.map_err(|error| error.to_string())?;
    let info = target.info();
    let said = format!("{} {} answers", info.name, info.version);
    // What is left open is closed with this process.
    let _ = tokio::time::timeout(GOOD_BYE, target.quiesce(&std::collections::BTreeSet::new(), GOOD_BYE)).await;
    Ok(said)
}

async fn listens(url: &str) -> bool {
    let Ok(url) = Url::parse(url) else { return false };
    let port = url.port().unwrap_or(if url.scheme().starts_with("postgres") { 5432 } else { 3306 });
    let host = url.host_str().unwrap_or("127.0.0.1").to_owned();
    matches!(tokio::time::timeout(LIMIT, TcpStream::connect((host, port))).await, Ok(Ok(_)))
}

async fn embedded(path: PathBuf, config: SqliteConfig, named: bool) -> Finding {
    let part = "sqlite";
    if !path.exists() {
        let mend = "run a scenario that makes it, or name another file";
        return Finding::missing(named, part, format!("there is no file {}", path.display()), mend);
    }
    let file = path.clone();
    let opened = tokio::time::timeout(LIMIT, sqlite::blocking(move || sqlite::look(&file, &config))).await;
    let wal = wal_bytes(&path);
    match opened
        .map_err(|_| format!("no answer within {}", humantime::format_duration(LIMIT)))
        .and_then(|look| look.map_err(|e| e.to_string()))
    {
        Ok(_) if wal >= LONG_WAL_BYTES => Finding::ill(
            part,
            format!("{}: the write-ahead log has {} MiB", path.display(), wal >> 20),
            "end what reads for long, then: sqlite3 FILE 'PRAGMA wal_checkpoint(TRUNCATE)'",
        ),
        Ok(pragmas) => {
            let pragmas: Vec<String> = pragmas.into_iter().map(|(name, value)| format!("{name} = {value}")).collect();
            Finding::well(part, format!("{}: {}; write-ahead log {wal} bytes", path.display(), pragmas.join(", ")))
        }
        Err(error) => Finding::ill(part, format!("{}: {error}", path.display()), "name an SQLite file that can be read"),
    }
}

fn wal_bytes(path: &Path) -> u64 {
    let mut wal = path.as_os_str().to_owned();
    wal.push("-wal");
    std::fs::metadata(wal).map_or(0, |metadata| metadata.len())
}
