//! HTTP/2 by hyper: many requests share a connection, and as few connections as will do are opened.

use std::cell::{Cell, RefCell};
use std::error::Error as _;
use std::rc::Rc;
use std::time::Instant;

use bytes::Bytes;
use futures::FutureExt as _;
use futures::future::{LocalBoxFuture, Shared};
use http::{HeaderMap, HeaderName, Uri, Version, header};
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Body as _, Incoming};
use hyper::client::conn::http2::{Builder, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::sync::{Semaphore, SemaphorePermit};

use super::answer::{Answer, Call};
use super::codec::{self, HEADERS_MAX};
use super::connect::{Connector, Offer, Stream};
use super::deadline::{Alarm, Deadlines};
use super::failure::{protocol, unknown, unsent};
use super::intake::{self, About, Encoding, Intake};
use super::{Config, Failed, Headers, Reply};
use crate::scenario::http::ClientSettings;
use crate::target::{Applied, ErrorClass, Failure};

/// Most requests that share a connection; most servers allow as many.
const STREAMS_MAX: usize = 100;

/// Headers larger than allowed by this factor are not even decoded.
const HEADER_SLACK: usize = 16;

/// The connections.
pub(super) struct Http2 {
    connector: Rc<Connector>,
    settings: ClientSettings,
    header_bytes: usize,
    connections: RefCell<Vec<Rc<Connection>>>,
    /// One permit a stream; who waits is served in turn.
    permits: Option<Semaphore>,
}

type Sender = SendRequest<Full<Bytes>>;
type Opening = Shared<LocalBoxFuture<'static, Result<Sender, Failure>>>;

/// One connection, open or being opened by all who wait for it.
struct Connection {
    sender: Opening,
    streams: Cell<usize>,
    /// Whether it has carried a request.
    used: Cell<bool>,
    idle_since: Cell<Instant>,
}

/// One request's place on a connection.
struct Place<'a> {
    pool: &'a Http2,
    connection: Rc<Connection>,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.connection.streams.update(|streams| streams - 1);
        if self.connection.streams.get() == 0 {
            self.connection.idle_since.set(Instant::now());
            self.pool.drop_idle();
        }
    }
}

impl Http2 {
    pub(super) fn new(connector: Rc<Connector>, config: &Config) -> Self {
        let settings = config.settings;
        let permits = settings.max_per_host.map(|max| Semaphore::new(max.saturating_mul(STREAMS_MAX).min(Semaphore::MAX_PERMITS)));
        Self { connector, settings, header_bytes: config.limits.header_bytes, connections: RefCell::default(), permits }
    }

    /// Connections with a request on them.
    pub(super) fn active(&self) -> u32 {
        self.connections.borrow().iter().filter(|connection| connection.streams.get() > 0).count() as u32
    }

    pub(super) fn close(&self) {
        self.connections.borrow_mut().retain(|connection| connection.streams.get() > 0);
    }

    /// Takes over a connection that was opened to find out what the server speaks.
    pub(super) fn adopt(&self, stream: Stream) {
        let opening = handshake(stream, self.header_bytes).boxed_local().shared();
        self.connections.borrow_mut().push(Rc::new(Connection::new(opening)));
    }

    /// One request and its answer.
    pub(super) async fn exchange(&self, call: &Call<'_>) -> Result<Reply, Failed> {
        let _permit = self.enter().await;
        loop {
            let place = self.place().await;
            let sender = place.connection.sender.clone().await;
            let sender = sender.map_err(|failure| Failed { failure, sent: None, partial: None })?;
            let reused = place.connection.used.replace(true);
            match exchange(sender, call).await {
                // The server had closed it, and got nothing: another connection is as good.
                Err(failed) if reused && failed.sent.is_none() => self.forget(&place.connection),
                outcome => return outcome,
            }
        }
    }

    async fn enter(&self) -> Option<SemaphorePermit<'_>> {
        match &self.permits {
            Some(permits) => Some(permits.acquire().await.expect("the semaphore is never closed")),
            None => None,
        }
    }

    /// A place on a connection with room, or on a new one. With a permit there is always one of both.
    async fn place(&self) -> Place<'_> {
        if self.connections.borrow().iter().all(|connection| connection.streams.get() == 0) {
            // Lets a connection that the server has closed notice.
            tokio::task::yield_now().await;
        }
        self.drop_idle();
        let mut connections = self.connections.borrow_mut();
        let open = connections.iter().find(|connection| connection.streams.get() < STREAMS_MAX && connection.is_usable()).cloned();
        let connection = open.unwrap_or_else(|| {
            let connection = Rc::new(Connection::new(self.open()));
            connections.push(Rc::clone(&connection));
            connection
        });
        connection.streams.update(|streams| streams + 1);
        Place { pool: self, connection }
    }

    fn open(&self) -> Opening {
        let (connector, header_bytes) = (Rc::clone(&self.connector), self.header_bytes);
        async move { handshake(connector.connect(Offer::Http2).await?.0, header_bytes).await }.boxed_local().shared()
    }

    fn forget(&self, gone: &Rc<Connection>) {
        self.connections.borrow_mut().retain(|connection| !Rc::ptr_eq(connection, gone));
    }

    /// Lets go of idle connections that are too many, too old, or closed.
    fn drop_idle(&self) {
        let most = self.settings.max_idle.min(self.settings.max_idle_per_host);
        let mut kept = 0;
        self.connections.borrow_mut().retain(|connection| {
            if connection.streams.get() > 0 {
                return true;
            }
            let fresh = connection.is_usable() && connection.idle_since.get().elapsed() <= self.settings.idle_timeout.0;
            kept += usize::from(fresh);
            fresh && kept <= most
        });
    }
}

impl Connection {
    fn new(sender: Opening) -> Self {
        Self { sender, streams: Cell::new(0), used: Cell::new(false), idle_since: Cell::new(Instant::now()) }
    }

    fn is_usable(&self) -> bool {
        match self.sender.peek() {
            None => true,
            Some(Ok(sender)) => !sender.is_closed(),
            Some(Err(_)) => false,
        }
    }
}

async fn handshake(stream: Stream, header_bytes: usize) -> Result<Sender, Failure> {
    let most = header_bytes.saturating_mul(HEADER_SLACK).min(16 << 20);
    let handshake = Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .max_header_list_size(u32::try_from(most).unwrap_or(u32::MAX))
        .handshake(TokioIo::new(stream))
        .await;
    let (sender, connection) = handshake.map_err(|error| unsent(ErrorClass::Protocol, format!("no HTTP/2 session: {}", told(&error))))?;
    // Drives the connection until it is closed and no one can send on it. Its failures reach the requests on it.
    tokio::spawn(async move {
        let _ = connection.await;
    });
    Ok(sender)
}

async fn exchange(mut sender: Sender, call: &Call<'_>) -> Result<Reply, Failed> {
    let request = request(call).map_err(|failure| Failed { failure, sent: None, partial: None })?;
    let sent = Instant::now();
    let began = call.began.unwrap_or(sent);
    let deadlines = Deadlines::new(call.config, began, sent);
    let mut alarm = Alarm::default();
    let until = deadlines.head(call.asks_for_stream());
    let response = match alarm.within(until.at, sender.try_send_request(request)).await {
        Some(Ok(response)) => response,
        Some(Err(mut error)) => {
            let unsent = error.take_message().is_some();
            let failure = classify(error.error());
            return Err(if unsent {
                Failed { failure: Failure { applied: Applied::No, ..failure }, sent: None, partial: None }
            } else {
                Failed { failure, sent: Some(began), partial: None }
            });
        }
        None => return Err(Failed { failure: deadlines.missed(until), sent: Some(began), partial: None }),
    };
    let now = Instant::now();
    let (head, mut body) = response.into_parts();
    let about = about(head.status.as_u16(), &head.headers, &body);
    let fits = fits(&head.headers, call);
    let mut answer = Answer {
        status: about.status,
        headers: Headers::Map(head.headers),
        intake: Intake::new(&about, &call.request.kind, &call.config.limits, now),
        sent: began,
        first_byte: now,
        bytes_sent: call.request.body.len() as u64,
        bytes_received: 0,
    };
    let read = match fits.and_then(|()| answer.intake.expect(&about)) {
        Ok(()) => read(&mut body, &mut answer, &deadlines, &mut alarm).await,
        Err(failure) => Err(failure),
    };
    match read {
        Ok(done) => answer.finish(done),
        Err(failure) => Err(answer.fail(failure)),
    }
}

async fn read(body: &mut Incoming, answer: &mut Answer, deadlines: &Deadlines<'_>, alarm: &mut Alarm) -> Result<Instant, Failure> {
    let mut now = answer.first_byte;
    while !body.is_end_stream() {
        let until = answer.intake.until(deadlines);
        let frame = alarm.within(until.at, body.frame()).await.ok_or_else(|| deadlines.missed(until))?;
        now = Instant::now();
        let Some(frame) = frame else { break };
        let frame = frame.map_err(|error| Failure { applied: Applied::Unknown, ..classify(&error) })?;
        // Trailers say nothing that is asked for.
        if let Ok(data) = frame.into_data() {
            answer.bytes_received += data.len() as u64;
            answer.intake.push(&data, now)?;
        }
    }
    Ok(now)
}

fn request(call: &Call<'_>) -> Result<http::Request<Full<Bytes>>, Failure> {
    /// What belongs to a connection of HTTP/1.1 (RFC 9113, 8.2.2).
    const OF_HTTP1: [HeaderName; 3] = [header::CONNECTION, header::UPGRADE, header::TE];
    let scheme = call.config.url.scheme();
    let wrong = |error: http::Error| unsent(ErrorClass::Data, format!("the request cannot be sent by HTTP/2: {error}"));
    let uri = format!("{scheme}://{}{}{}", call.host, call.prefix, call.request.target);
    let uri = Uri::try_from(uri).map_err(|error| wrong(error.into()))?;
    let mut request = http::Request::new(Full::new(call.request.body.clone()));
    *request.method_mut() = call.request.method.clone();
    *request.uri_mut() = uri;
    *request.version_mut() = Version::HTTP_2;
    for (name, value) in &call.request.headers {
        if !codec::is_ours(name) && !OF_HTTP1.contains(name) {
            request.headers_mut().append(name, value.clone());
        }
    }
    Ok(request)
}

fn about(status: u16, headers: &HeaderMap, body: &Incoming) -> About {
    let value = |name| headers.get(name).map_or(&b""[..], |value: &http::HeaderValue| value.as_bytes());
    About {
        status,
        encoding: Encoding::parse(value(header::CONTENT_ENCODING)),
        event_stream: intake::is_event_stream(value(header::CONTENT_TYPE)),
        length: body.size_hint().exact(),
    }
}

/// Whether a header is within what is allowed, counted as HTTP/2 counts it (RFC 9113, 6.5.2).
fn fits(headers: &HeaderMap, call: &Call<'_>) -> Result<(), Failure> {
    let bytes: usize = headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 32).sum();
    match () {
        () if headers.len() > HEADERS_MAX => Err(codec::too_many_headers()),
        () if bytes > call.config.limits.header_bytes => Err(codec::header_too_large(&call.config.limits)),
        () => Ok(()),
    }
}

/// What an exchange failed of. Only a server that says so has not seen a request: it refused its stream, or went away before it.
fn classify(error: &hyper::Error) -> Failure {
    let mut source = error.source();
    while let Some(cause) = source {
        if let Some(http2) = cause.downcast_ref::<h2::Error>() {
            let message = match http2.reason() {
                Some(reason) if http2.is_go_away() && http2.is_remote() => format!("HTTP/2: the server went away (GOAWAY, {reason:?})"),
                _ => format!("HTTP/2: {http2}"),
            };
            let refused = http2.is_reset() && http2.is_remote() && http2.reason() == Some(h2::Reason::REFUSED_STREAM);
            return match () {
                () if refused || (http2.is_go_away() && http2.is_remote()) => unsent(ErrorClass::Connection, message),
                () if http2.is_io() || http2.is_remote() => unknown(ErrorClass::Connection, message),
                () => protocol(message),
            };
        }
        source = cause.source();
    }
    let class = if error.is_parse() || error.is_user() { ErrorClass::Protocol } else { ErrorClass::Connection };
    unknown(class, format!("HTTP/2: {}", told(error)))
}

/// An error with its causes.
fn told(error: &hyper::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}
