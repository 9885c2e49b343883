//! What database servers have in common: a pool that never reuses a connection in doubt, one batch as one transaction, and the
//! sentence that says why a server cannot be used.
//!
//! The pool is our own because sqlx's pings a connection each time it comes back: a round trip a batch.

use std::future::Future;
use std::net::SocketAddr;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use sqlx::error::DatabaseError;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use super::sql::{self, Limits};
use super::{Applied, ErrorClass, Failure, PoolUse, Session, TargetError, WritePlan, Written};
use crate::scenario;
use crate::table::Row;

/// One connection, as its driver gives it.
pub(super) trait Link: Send + Sync + Sized + 'static {
    /// What it takes to open one.
    type Options: Clone + Send + Sync + 'static;

    /// Opens a connection and asks for the server's id of it.
    fn open(options: &Self::Options) -> impl Future<Output = Result<(Self, u64), sqlx::Error>> + Send;

    /// Tells the server good-bye.
    fn close(self) -> impl Future<Output = ()> + Send;

    /// Most rows and bytes in one statement of `plan`.
    fn limits(options: &Self::Options, plan: &WritePlan) -> Limits;

    /// Inserts `rows` with one statement.
    fn insert(&mut self, plan: &WritePlan, rows: &[Row]) -> impl Future<Output = Result<(), sqlx::Error>> + Send;

    /// How many warnings of altered values the last [`Link::insert`] left.
    fn warnings(&mut self) -> impl Future<Output = Result<u64, sqlx::Error>> + Send;

    /// Runs `BEGIN`, `COMMIT` or `ROLLBACK`.
    fn control(&mut self, statement: &'static str) -> impl Future<Output = Result<(), sqlx::Error>> + Send;

    /// What an error answer of the server is counted as.
    fn class(error: &dyn DatabaseError) -> ErrorClass;
}

struct Open<L> {
    link: L,
    id: u64,
}

/// At most `size` connections, opened when needed.
pub(super) struct Pool<L: Link> {
    options: L::Options,
    times: scenario::Pool,
    idle: Mutex<Vec<Open<L>>>,
    free: Arc<Semaphore>,
    size: u32,
    closed: AtomicBool,
}

impl<L: Link> Pool<L> {
    pub(super) fn new(options: L::Options, times: scenario::Pool, size: u32) -> Arc<Self> {
        let free = Arc::new(Semaphore::new(size as usize));
        Arc::new(Self { options, times, idle: Mutex::default(), free, size, closed: AtomicBool::new(false) })
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Open<L>>> {
        // A push or a pop is whole or not done: a panic elsewhere leaves the list usable.
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens a connection within the connect timeout.
    pub(super) async fn open(&self) -> Result<(L, u64), sqlx::Error> {
        open::<L>(&self.options, self.times.connect_timeout.0).await
    }

    /// Puts a connection that was opened by [`Pool::open`] among the idle ones.
    pub(super) fn put(&self, link: L, id: u64) {
        if !self.closed.load(Ordering::Acquire) {
            self.idle().push(Open { link, id });
        }
    }

    /// Takes a connection.
    pub(super) async fn acquire(self: &Arc<Self>) -> Result<Box<dyn Session>, Failure> {
        let failure = |class, message| Failure { class, applied: Applied::No, message };
        let wait = self.times.acquire_timeout;
        let permit = timeout(wait.0, Arc::clone(&self.free).acquire_owned()).await.map_err(|_| {
            let message = format!("none of the {} connections became free within {:?} (target.pool.acquire_timeout)", self.size, wait.0);
            failure(ErrorClass::Timeout, message)
        })?;
        let permit = permit.map_err(|e| failure(ErrorClass::Other, e.to_string()))?;
        let idle = self.idle().pop();
        let open = match idle {
            Some(open) => open,
            None => {
                let (link, id) = self.open().await.map_err(|e| failure(ErrorClass::Connection, describe(&e)))?;
                Open { link, id }
            }
        };
        Ok(Box::new(Lease { open: Some(open), stage: Stage::Clean, pool: Arc::clone(self), _permit: permit }))
    }

    /// Closes every idle connection, and lets none come back.
    pub(super) async fn close(&self) {
        self.closed.store(true, Ordering::Release);
        let idle = std::mem::take(&mut *self.idle());
        for open in idle {
            // A server that hangs sees the socket close instead.
            let _ = timeout(Duration::from_secs(1), open.link.close()).await;
        }
    }

    pub(super) fn usage(&self) -> PoolUse {
        PoolUse { active: self.size - self.free.available_permits() as u32, max: self.size }
    }
}

/// Opens a connection within `limit`.
pub(super) async fn open<L: Link>(options: &L::Options, limit: Duration) -> Result<(L, u64), sqlx::Error> {
    timeout(limit, L::open(options)).await.unwrap_or_else(|_| {
        let message = format!("no answer within {limit:?} (target.pool.connect_timeout)");
        Err(sqlx::Error::Io(std::io::Error::new(std::io::ErrorKind::TimedOut, message)))
    })
}

/// How far a write has come; decides what a failure means, and whether the connection may be used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// No transaction is open, no answer outstanding.
    Clean,
    /// BEGIN was sent, no row was.
    Begun,
    /// Rows were sent.
    Rows,
    /// The statement whose success commits was sent: COMMIT, or a single INSERT.
    Deciding,
    /// Committed; only its warnings are unread.
    Committed,
}

/// A connection while it is out of the pool.
struct Lease<L: Link> {
    /// Present until dropped.
    open: Option<Open<L>>,
    stage: Stage,
    pool: Arc<Pool<L>>,
    _permit: OwnedSemaphorePermit,
}

impl<L: Link> Drop for Lease<L> {
    fn drop(&mut self) {
        if let Some(open) = self.open.take()
            && self.stage == Stage::Clean
        {
            self.pool.put(open.link, open.id);
        }
    }
}

#[async_trait]
impl<L: Link> Session for Lease<L> {
    fn id(&self) -> u64 {
        self.open.as_ref().map_or(0, |open| open.id)
    }

    async fn write(&mut self, plan: &Arc<WritePlan>, rows: &Arc<Vec<Row>>) -> Result<Written, Failure> {
        let parts = sql::split(&plan.table, plan.conflict, rows, L::limits(&self.pool.options, plan))?;
        let limit = self.pool.times.statement_timeout.0;
        match timeout(limit, self.run(plan, rows, &parts)).await {
            Ok(Ok(warnings)) => {
                self.stage = Stage::Clean;
                Ok(Written { warnings })
            }
            Ok(Err(error)) => Err(self.fail(&error).await),
            Err(_) => Err(Failure {
                class: ErrorClass::Timeout,
                applied: self.applied_without_answer(),
                message: format!("no answer within {limit:?} (target.pool.statement_timeout)"),
            }),
        }
    }
}

impl<L: Link> Lease<L> {
    fn link(&mut self) -> Result<&mut L, sqlx::Error> {
        self.open.as_mut().map(|open| &mut open.link).ok_or(sqlx::Error::PoolClosed)
    }

    async fn run(&mut self, plan: &WritePlan, rows: &[Row], parts: &[Range<usize>]) -> Result<u64, sqlx::Error> {
        match parts {
            [] => Ok(0),
            // A single statement is a transaction of its own.
            [only] => {
                self.stage = Stage::Deciding;
                self.link()?.insert(plan, &rows[only.clone()]).await?;
                self.stage = Stage::Committed;
                self.link()?.warnings().await
            }
            parts => {
                self.stage = Stage::Begun;
                self.link()?.control("BEGIN").await?;
                self.stage = Stage::Rows;
                let mut warnings = 0;
                for part in parts {
                    self.link()?.insert(plan, &rows[part.clone()]).await?;
                    warnings += self.link()?.warnings().await?;
                }
                self.stage = Stage::Deciding;
                self.link()?.control("COMMIT").await?;
                Ok(warnings)
            }
        }
    }

    fn applied_without_answer(&self) -> Applied {
        if matches!(self.stage, Stage::Clean | Stage::Begun) { Applied::No } else { Applied::Unknown }
    }

    /// What `error` means, after rolling back what can be.
    async fn fail(&mut self, error: &sqlx::Error) -> Failure {
        let message = describe(error);
        let sqlx::Error::Database(answer) = error else {
            // The other connections to a server that went away are dead too.
            self.pool.idle().clear();
            return Failure { class: ErrorClass::Connection, applied: self.applied_without_answer(), message };
        };
        let class = L::class(&**answer);
        // A server that ends the session while it commits does not say which came first; nor does one that says so itself.
        let in_doubt = self.stage == Stage::Committed
            || (class == ErrorClass::Connection && self.stage == Stage::Deciding)
            || answer.code().as_deref() == Some("40003");
        // After these the server closes the connection, or may.
        let lost = matches!(class, ErrorClass::Connection | ErrorClass::TooLarge);
        if !in_doubt && !lost && self.roll_back().await {
            self.stage = Stage::Clean;
        }
        Failure { class, applied: if in_doubt { Applied::Unknown } else { Applied::No }, message }
    }

    /// Whether the connection is fit for use again. If not it is dropped, and the server rolls back.
    async fn roll_back(&mut self) -> bool {
        let limit = self.pool.times.statement_timeout.0;
        let Ok(link) = self.link() else { return false };
        matches!(timeout(limit, link.control("ROLLBACK")).await, Ok(Ok(())))
    }
}

/// Asking again and again, ever more rarely, until a limit.
pub(super) struct Patience {
    end: Instant,
    pause: Duration,
}

impl Patience {
    pub(super) fn new(limit: Duration) -> Self {
        Self { end: Instant::now() + limit, pause: Duration::from_millis(2) }
    }

    /// Waits a while; false if the limit has been reached already.
    pub(super) async fn wait(&mut self) -> bool {
        let left = self.end.saturating_duration_since(Instant::now());
        tokio::time::sleep(self.pause.min(left)).await;
        self.pause = (self.pause * 2).min(Duration::from_millis(500));
        !left.is_zero()
    }
}

/// The driver's words for an error, with the server's code.
pub(crate) fn describe(error: &sqlx::Error) -> String {
    match error {
        sqlx::Error::Database(answer) => match answer.code() {
            Some(code) => format!("{} (SQLSTATE {code})", answer.message()),
            None => answer.message().to_owned(),
        },
        other => other.to_string(),
    }
}

/// Where a server is, for messages: never with the password.
#[derive(Clone, Debug)]
pub(super) struct Address {
    /// `PostgreSQL` or `MySQL or MariaDB`.
    pub(super) kind: &'static str,
    /// The scenario's key for the URL.
    pub(super) key: &'static str,
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) database: String,
    pub(super) user: String,
}

impl Address {
    /// One sentence: where, what was found, the mend.
    pub(super) fn unreachable(&self, found: &str, mend: &str) -> TargetError {
        let Self { kind, host, port, database, user, .. } = self;
        TargetError::Unreachable(format!("{kind} at {host}:{port} (database {database:?}, user {user:?}) cannot be used: {found}; {mend}"))
    }

    /// For errors that are none of the server's answers.
    pub(super) fn no_connection(&self, error: &sqlx::Error) -> TargetError {
        let key = self.key;
        let words = describe(error);
        match error {
            sqlx::Error::Io(_) => self
                .unreachable(&format!("nothing answers there ({words})"), &format!("start the server, or correct host and port in {key} or --database-url")),
            sqlx::Error::Tls(_) => self.unreachable(
                &words,
                "give the server a certificate this machine trusts (or name its authority in the URL), or pass --insecure-tls (target.insecure_tls: true)",
            ),
            _ => self.unreachable(&words, &format!("correct {key} or --database-url")),
        }
    }

    /// Whether every address of the host is loopback. Paths of sockets are.
    pub(super) async fn is_loopback(&self) -> Result<bool, TargetError> {
        if self.host.starts_with('/') {
            return Ok(true);
        }
        let host = self.host.trim_matches(['[', ']']);
        let found: Result<Vec<SocketAddr>, _> = tokio::net::lookup_host((host, self.port)).await.map(Iterator::collect);
        match found {
            Ok(addresses) => Ok(addresses.iter().all(|address| address.ip().is_loopback())),
            Err(e) => Err(self.unreachable(
                &format!("the host's name has no address ({e})"),
                &format!("correct the host in {} or --database-url", self.key),
            )),
        }
    }
}

#[cfg(test)]
mod tests;
