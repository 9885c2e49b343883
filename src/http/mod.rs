//! The HTTP client of the load: requests in, what came back and when out. One [`Client`] belongs to one thread; its connections are
//! its own, so that nothing is locked on the way. Plain HTTP/1.1 goes through a small codec of our own (the load loop is what this
//! project exists for), over TLS too; HTTP/2 goes through hyper. Beside it, `service` asks what
//! is not under load.

mod answer;
mod chat;
mod client;
mod codec;
mod connect;
mod deadline;
mod echo;
mod failure;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
mod headers;
mod http1;
mod http2;
mod intake;
pub(crate) mod served;
pub(crate) mod service;
mod sse;

use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method};

use crate::scenario::http::{ClientSettings, HttpVersion, ReplyLimits, ReplyTimeouts};
use crate::target::Failure;
pub use client::Client;

/// Where requests go and how.
#[derive(Clone, Debug)]
pub struct Config {
    /// `http://host:port/path` or `https://…`; the path goes in front of every request's.
    pub url: url::Url,
    /// Which HTTP is spoken.
    pub version: HttpVersion,
    /// PEM file of trusted authorities instead of the system's.
    pub ca_file: Option<std::path::PathBuf>,
    /// Connections of this client. The bounds are this client's share: whoever runs several divides them.
    pub settings: ClientSettings,
    /// How long replies may take.
    pub timeouts: ReplyTimeouts,
    /// How large replies may be.
    pub limits: ReplyLimits,
    /// Where connections go instead of the URL's host and port; names stay the URL's.
    pub via: Option<std::net::SocketAddr>,
}

/// One request.
#[derive(Clone, Debug)]
pub struct Request {
    /// GET, POST, …
    pub method: Method,
    /// Path and query, percent-encoded; begins with `/`.
    pub target: String,
    /// Headers beside `host` and `content-length`, which the client adds. Replies are decompressed, but only asked for in a compressed
    /// form by an `accept-encoding` that stands here.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// The body; empty for none.
    pub body: Bytes,
    /// What is expected to come back.
    pub kind: Kind,
}

/// What is expected to come back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A body, kept up to [`ReplyLimits::body_bytes`].
    Plain,
    /// An OpenAI-compatible answer: JSON, or, where the reply is `text/event-stream`, a stream of `data:` events that ends with
    /// `data: [DONE]`.
    Chat,
    /// A WebSocket session: each message is sent once the one before has come back.
    Echo(Vec<String>),
}

/// What came back.
#[derive(Debug)]
pub struct Reply {
    /// The status of the last answer.
    pub status: u16,
    /// Its header.
    pub headers: Headers,
    /// The body, decompressed; for a stream and a WebSocket session empty.
    pub body: Vec<u8>,
    /// What was read of a stream, of a WebSocket session, or of the JSON of a chat answer.
    pub chat: Option<Chat>,
    /// When the request's first byte was sent.
    pub sent: Instant,
    /// When the answer's first byte came.
    pub first_byte: Instant,
    /// When its last byte had come.
    pub done: Instant,
    /// Bytes of the request as sent (head and body; of HTTP/2 the body alone).
    pub bytes_sent: u64,
    /// Bytes of the answer as received (head and body; of HTTP/2 the body alone).
    pub bytes_received: u64,
}

/// A reply's header, looked up rarely: left as it came.
#[derive(Debug)]
pub enum Headers {
    /// The bytes of the head as HTTP/1.1 sends them.
    Raw(Vec<u8>),
    /// As hyper gives them.
    Map(http::HeaderMap),
}

/// What a model said.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Chat {
    /// Whether it came as a stream of events (or messages).
    pub streamed: bool,
    /// The text of `choices[0]`, pieces joined as they came (of a WebSocket session: the messages that came back, each ended by a
    /// line feed).
    pub content: String,
    /// Events (or messages) with content.
    pub events: u64,
    /// When the first of them came.
    pub first_token: Option<Instant>,
    /// From each of them to the next.
    pub gaps: Vec<Duration>,
    /// `usage.prompt_tokens` and `usage.completion_tokens`, if they were told.
    pub usage: Option<(u64, u64)>,
    /// `finish_reason` of `choices[0]`, if it was told.
    pub finish_reason: Option<String>,
    /// Whether `data: [DONE]` came (of a WebSocket session: whether every message came back).
    pub done: bool,
}

/// An exchange that brought no whole reply.
#[derive(Debug)]
pub struct Failed {
    /// What it is counted as, and whether the request can have been served.
    pub failure: Failure,
    /// When the request was sent, if it was.
    pub sent: Option<Instant>,
    /// What had come of the answer, if its head had.
    pub partial: Option<Box<Reply>>,
}
