//! Sessions beside the run's, with its URL and its rights: what locks, crowds out and looks after it.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use sqlx::mysql::MySqlConnectOptions;
use sqlx::postgres::PgConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _, MySqlConnection, PgConnection, Row as _};

use crate::scenario::TargetConfig;
use crate::target::{describe, mysql, postgres};

/// Longest wait for one connection.
const CONNECT: Duration = Duration::from_secs(5);
/// Between two tries to reach a server that is on its way.
const AGAIN: Duration = Duration::from_millis(50);

/// How rivals of a run connect.
#[derive(Clone)]
pub(super) enum Login {
    Postgres(PgConnectOptions),
    Mysql(MySqlConnectOptions),
}

/// A session beside the run's. Dropping it ends what it began.
pub(super) enum Rival {
    Postgres(PgConnection),
    Mysql(MySqlConnection),
}

impl Login {
    /// The login of the run's own sessions.
    pub(super) async fn of(target: &TargetConfig) -> anyhow::Result<Self> {
        if let Some(server) = &target.postgres {
            let options = postgres::options(&server.url, target.insecure_tls).await?;
            return Ok(Login::Postgres(options.application_name("batchsql")));
        }
        let server = target.mysql.as_ref().context("this fault is one of a database server")?;
        Ok(Login::Mysql(mysql::options(&server.url, target.insecure_tls).await?))
    }

    pub(super) async fn connect(&self) -> Result<Rival, sqlx::Error> {
        let connected = async {
            Ok(match self {
                Login::Postgres(options) => Rival::Postgres(options.connect().await?),
                Login::Mysql(options) => Rival::Mysql(options.connect().await?),
            })
        };
        let late = || sqlx::Error::Io(std::io::Error::new(std::io::ErrorKind::TimedOut, format!("no answer within {CONNECT:?}")));
        tokio::time::timeout(CONNECT, connected).await.unwrap_or_else(|_| Err(late()))
    }

    /// As [`Login::connect`], with the words for an error.
    pub(super) async fn rival(&self) -> Result<Rival, String> {
        self.connect().await.map_err(|error| format!("the rival cannot connect: {}", describe(&error)))
    }

    /// As [`Login::rival`], of a server that may take until `limit` to let somebody in.
    pub(super) async fn rival_within(&self, limit: Duration) -> Result<Rival, String> {
        let began = Instant::now();
        loop {
            match self.rival().await {
                Err(problem) if began.elapsed() >= limit => return Err(format!("{problem}, for {} s", limit.as_secs())),
                Err(_) => tokio::time::sleep(AGAIN).await,
                rival => return rival,
            }
        }
    }
}

impl Rival {
    pub(super) async fn execute(&mut self, sql: &str) -> Result<(), sqlx::Error> {
        let sql = sqlx::raw_sql(AssertSqlSafe(sql.to_owned()));
        match self {
            Rival::Postgres(connection) => sql.execute(connection).await.map(drop),
            Rival::Mysql(connection) => sql.execute(connection).await.map(drop),
        }
    }

    /// The one number that `sql` asks for, if there is one.
    pub(super) async fn number(&mut self, sql: &str) -> Result<Option<i64>, sqlx::Error> {
        let sql = sqlx::raw_sql(AssertSqlSafe(sql.to_owned()));
        match self {
            Rival::Postgres(connection) => sql.fetch_one(connection).await?.try_get_unchecked(0),
            Rival::Mysql(connection) => sql.fetch_one(connection).await?.try_get_unchecked(0),
        }
    }

    /// Tells the server good-bye; one that hangs sees the socket close instead.
    pub(super) async fn close(self) {
        let closed = async {
            match self {
                Rival::Postgres(connection) => connection.close().await,
                Rival::Mysql(connection) => connection.close().await,
            }
        };
        let _ = tokio::time::timeout(Duration::from_secs(1), closed).await;
    }
}

/// Why a rival could not do what it was to do, with the mend if it lacks a right.
pub(super) fn refused(error: &sqlx::Error, right: &str) -> String {
    const LACKS: [&str; 4] = ["1044", "1142", "1227", "1370"];
    let number = error.as_database_error().and_then(|answer| answer.try_downcast_ref::<sqlx::mysql::MySqlDatabaseError>());
    let lacks = match number {
        Some(answer) => LACKS.contains(&answer.number().to_string().as_str()),
        None => error.as_database_error().and_then(|answer| answer.code()).as_deref() == Some("42501"),
    };
    let found = describe(error);
    if lacks { format!("{found}; give the user of the target's URL {right}") } else { found }
}
