//! The client: chooses the protocol, keeps idle connections within the settings, and follows redirects on the same host.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::time::{Duration, Instant};

use http::{HeaderName, Method, header};
use tokio::sync::{Semaphore, SemaphorePermit};

use super::answer::Call;
use super::connect::{Connector, Offer, Stream};
use super::failure::{quoted, unknown, unsent};
use super::http1::Connection;
use super::http2::Http2;
use super::{Config, Failed, Kind, Reply, Request, echo};
use crate::scenario::http::HttpVersion;
use crate::target::{Applied, ErrorClass, Failure, PoolUse, TargetError};

/// A connection that was idle for longer is looked at once more before it is used: the server may have closed it meanwhile.
const SURELY_QUIET: Duration = Duration::from_millis(1);

/// One thread's client. Its futures run on that thread's runtime alone.
pub struct Client {
    config: Config,
    connector: Rc<Connector>,
    /// Host and port as requests name them.
    host: String,
    /// The path that goes in front of every request's.
    prefix: String,
    /// Whether HTTP/2 is spoken, once that is known.
    http2: Cell<Option<bool>>,
    /// Held while the first connection finds out what the server speaks; holds why and when the last one could not.
    finding_out: tokio::sync::Mutex<Option<(Instant, Failure)>>,
    /// Connections of HTTP/1.1: the longest idle in front.
    idle: RefCell<VecDeque<Connection>>,
    in_use: Cell<u32>,
    /// One permit a connection of HTTP/1.1; who waits is served in turn.
    permits: Option<Semaphore>,
    multiplexed: Http2,
}

/// One of the connections in use.
struct InUse<'a> {
    client: &'a Client,
    _permit: Option<SemaphorePermit<'a>>,
}

impl Drop for InUse<'_> {
    fn drop(&mut self) {
        self.client.in_use.update(|count| count - 1);
    }
}

impl Client {
    /// A client without connections yet. The trusted authorities are loaded here, names are looked up at each connect.
    ///
    /// # Errors
    /// When the URL cannot be driven, or the authorities cannot be loaded; the message names the key and the mend.
    pub fn new(config: Config) -> Result<Self, TargetError> {
        let connector = Rc::new(Connector::new(&config)?);
        let http2 = match config.version {
            HttpVersion::Http1 => Some(false),
            HttpVersion::Http2 => Some(true),
            HttpVersion::Auto if connector.is_tls() => None,
            HttpVersion::Auto => Some(false),
        };
        let max = config.settings.max_per_host;
        Ok(Self {
            host: config.url[url::Position::BeforeHost..url::Position::AfterPort].to_owned(),
            prefix: config.url.path().trim_end_matches('/').to_owned(),
            http2: Cell::new(http2),
            finding_out: tokio::sync::Mutex::new(None),
            idle: RefCell::new(VecDeque::new()),
            in_use: Cell::new(0),
            permits: max.map(|max| Semaphore::new(max.min(Semaphore::MAX_PERMITS))),
            multiplexed: Http2::new(Rc::clone(&connector), &config),
            connector,
            config,
        })
    }

    /// One request, its redirects included. Waits for a free connection when as many as there may be are in use.
    ///
    /// # Errors
    /// When no whole reply came; a reply that tells of an error is a reply.
    pub async fn exchange(&self, request: &Request) -> Result<Reply, Failed> {
        if let Some(message) = wrong_target(&request.target) {
            return Err(nothing_sent(unsent(ErrorClass::Data, message)));
        }
        let reply = self.once(request, &self.prefix, None).await?;
        if self.config.limits.redirects == 0 || !is_redirect(reply.status) {
            return Ok(reply);
        }
        self.follow(request, reply).await
    }

    /// Connections in use, and the most there may be; `u32::MAX` if there is no bound.
    pub fn pool(&self) -> PoolUse {
        let max = self.config.settings.max_per_host.map_or(u32::MAX, |max| u32::try_from(max).unwrap_or(u32::MAX));
        PoolUse { active: self.in_use.get() + self.multiplexed.active(), max }
    }

    /// Closes idle connections.
    pub async fn close(&self) {
        self.multiplexed.close();
        let idle = self.idle.take();
        let goodbyes = futures::future::join_all(idle.into_iter().map(Connection::close));
        // Who does not take a goodbye is left without.
        let _ = tokio::time::timeout(Duration::from_secs(1), goodbyes).await;
    }

    async fn follow(&self, first: &Request, reply: Reply) -> Result<Reply, Failed> {
        let mut request = first.clone();
        let mut url = self.config.url.clone();
        let mut reply = reply;
        let mut prefix = self.prefix.as_str();
        let (mut sent, mut received) = (0, 0);
        for _ in 0..self.config.limits.redirects {
            let Some(location) = reply.headers.get("location").filter(|_| is_redirect(reply.status)) else { break };
            let here = url.join(&format!("{prefix}{}", request.target));
            let next = here.and_then(|here| here.join(location));
            match next {
                Ok(next) if next.origin() == self.config.url.origin() => url = next,
                Ok(_) => return Err(refused(&format!("to another host, {:?}", quoted(location)), reply)),
                Err(_) => return Err(refused(&format!("to {:?}, which is no address", quoted(location)), reply)),
            }
            redirect(&mut request, reply.status, &url);
            prefix = "";
            (sent, received) = (sent + reply.bytes_sent, received + reply.bytes_received);
            reply = self.once(&request, prefix, Some(reply.sent)).await.map_err(after_redirect(reply.sent))?;
        }
        if is_redirect(reply.status) && reply.headers.get("location").is_some() {
            let most = self.config.limits.redirects;
            return Err(refused(&format!("more than {most} times (target.http.limits.redirects)"), reply));
        }
        reply.bytes_sent += sent;
        reply.bytes_received += received;
        Ok(reply)
    }

    async fn once(&self, request: &Request, prefix: &str, began: Option<Instant>) -> Result<Reply, Failed> {
        let call = Call { config: &self.config, request, prefix, host: &self.host, began };
        if let Kind::Echo(messages) = &request.kind {
            return self.echo(&call, messages).await;
        }
        let http2 = match self.http2.get() {
            Some(http2) => http2,
            None => self.find_out().await.map_err(nothing_sent)?,
        };
        if http2 { self.multiplexed.exchange(&call).await } else { self.http1(&call).await }
    }

    /// Makes the first connection where the server chooses the protocol, and keeps it.
    async fn find_out(&self) -> Result<bool, Failure> {
        let asked = Instant::now();
        let mut failed = self.finding_out.lock().await;
        if let Some(http2) = self.http2.get() {
            return Ok(http2);
        }
        // Who waited for an attempt shares its failure: waiting for one's own turn would add up to many timeouts.
        if let Some((_, failure)) = failed.as_ref().filter(|(at, _)| *at >= asked) {
            return Err(failure.clone());
        }
        match self.connector.connect(Offer::Either).await {
            Ok((stream, http2)) => {
                if http2 {
                    self.multiplexed.adopt(stream);
                } else {
                    self.idle.borrow_mut().push_back(Connection::new(stream));
                }
                self.http2.set(Some(http2));
                Ok(http2)
            }
            Err(failure) => {
                *failed = Some((Instant::now(), failure.clone()));
                Err(failure)
            }
        }
    }

    async fn http1(&self, call: &Call<'_>) -> Result<Reply, Failed> {
        let _in_use = self.enter().await;
        loop {
            let (mut connection, now, reused) = match self.take_idle().await {
                Some((connection, now)) => (connection, now, true),
                None => (self.open().await.map(Connection::new).map_err(nothing_sent)?, Instant::now(), false),
            };
            match connection.exchange(call, now).await {
                Ok((reply, keep)) => {
                    if keep {
                        self.put_back(connection, reply.done);
                    }
                    return Ok(reply);
                }
                // The server had closed it, and got nothing: another connection is as good.
                Err(failed) if reused && failed.failure.applied == Applied::No => {}
                Err(failed) => return Err(failed),
            }
        }
    }

    async fn echo(&self, call: &Call<'_>, messages: &[String]) -> Result<Reply, Failed> {
        let in_use = self.enter().await;
        let max = self.config.settings.max_per_host.unwrap_or(usize::MAX);
        if self.idle.borrow().len() + self.in_use.get() as usize > max {
            drop(self.idle.borrow_mut().pop_front());
        }
        let stream = self.open().await.map_err(nothing_sent)?;
        let reply = echo::session(stream, call, &self.connector, messages).await;
        drop(in_use);
        reply
    }

    async fn enter(&self) -> InUse<'_> {
        let permit = match &self.permits {
            Some(permits) => Some(permits.acquire().await.expect("the semaphore is never closed")),
            None => None,
        };
        self.in_use.update(|count| count + 1);
        InUse { client: self, _permit: permit }
    }

    async fn open(&self) -> Result<Stream, Failure> {
        Ok(self.connector.connect(Offer::Http1).await?.0)
    }

    /// The connection that was used last, if it can be used again, and the time.
    async fn take_idle(&self) -> Option<(Connection, Instant)> {
        loop {
            let mut connection = self.idle.borrow_mut().pop_back()?;
            let mut now = Instant::now();
            let idle = now.saturating_duration_since(connection.idle_since);
            if idle > self.config.settings.idle_timeout.0 {
                continue;
            }
            if idle > SURELY_QUIET {
                // Lets the runtime look at its sockets, so that the check below sees what has come.
                tokio::task::yield_now().await;
                now = Instant::now();
            }
            if connection.is_quiet() {
                return Some((connection, now));
            }
        }
    }

    fn put_back(&self, mut connection: Connection, now: Instant) {
        let settings = &self.config.settings;
        connection.idle_since = now;
        let mut idle = self.idle.borrow_mut();
        while idle.front().is_some_and(|oldest| now.saturating_duration_since(oldest.idle_since) > settings.idle_timeout.0) {
            idle.pop_front();
        }
        if idle.len() < settings.max_idle.min(settings.max_idle_per_host) {
            idle.push_back(connection);
        }
    }
}

fn nothing_sent(failure: Failure) -> Failed {
    Failed { failure, sent: None, partial: None }
}

/// What is wrong with a request's path, if anything.
fn wrong_target(target: &str) -> Option<String> {
    let wrong = if target.starts_with('/') {
        let found = target.chars().find(|c| !c.is_ascii_graphic() || *c == '#')?;
        format!("holds {found:?}; it must be percent-encoded")
    } else {
        "does not begin with /".to_owned()
    };
    Some(format!("the request's path {:?} {wrong}", quoted(target)))
}

fn is_redirect(status: u16) -> bool {
    matches!(status, 301 | 302 | 303 | 307 | 308)
}

/// Turns `request` into the one that a redirect asks for, as browsers do: only 307 and 308 send a body again.
fn redirect(request: &mut Request, status: u16, to: &url::Url) {
    request.target = to[url::Position::BeforePath..url::Position::AfterQuery].to_owned();
    let post = request.method == Method::POST && matches!(status, 301 | 302);
    if post || (status == 303 && request.method != Method::HEAD) {
        const OF_THE_BODY: [HeaderName; 3] = [header::CONTENT_TYPE, header::CONTENT_ENCODING, header::CONTENT_LANGUAGE];
        request.method = Method::GET;
        request.body = bytes::Bytes::new();
        request.headers.retain(|(name, _)| !OF_THE_BODY.contains(name));
    }
}

/// A redirect that is not followed.
fn refused(what: &str, reply: Reply) -> Failed {
    let failure = unknown(ErrorClass::Redirect, format!("the reply redirects {what}"));
    Failed { failure, sent: Some(reply.sent), partial: Some(Box::new(reply)) }
}

/// Once a redirect was answered, something was sent whatever became of the next request.
fn after_redirect(sent: Instant) -> impl Fn(Failed) -> Failed {
    move |mut failed| {
        failed.failure.applied = Applied::Unknown;
        failed.sent = Some(sent);
        failed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_that_would_break_a_request_are_refused() {
        assert_eq!(wrong_target("/v1/chat?q=%20&x=[1]"), None);
        for target in ["", "v1", "/a b", "/a\r\nhost: x", "/ü", "/a#b"] {
            assert!(wrong_target(target).is_some(), "{target:?}");
        }
    }
}
