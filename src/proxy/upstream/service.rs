//! What the mock model server answers to one request.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Either, Full, LengthLimitError, Limited};
use hyper::body::{Body as _, Incoming};
use hyper::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::chat::{self, ChatRequest, Reply};
use super::config::Config;
use super::ledger::{Ended, Entry, Ledger, UpstreamRecord};
use super::stream::{self, Body, Streaming};
use super::websocket;
use crate::workload::reply;

/// Most bytes of a request's body, and of a WebSocket message.
pub(super) const MAX_BYTES: usize = 16 << 20;
/// Most ids whose sightings are counted, about 300 MB; later ones are seen for the first time each time.
const MAX_IDS: usize = 10_000_000;
/// The kind of error that is the client's fault, in the API's words.
const INVALID: &str = "invalid_request_error";
/// Most characters of a client's text in the ledger.
const MAX_CHARS: usize = 256;

/// What all connections share.
pub(super) struct Service {
    pub(super) config: Config,
    pub(super) ledger: Option<Arc<Ledger>>,
    pub(super) seen: Seen,
    /// Ends every wait.
    pub(super) stop: CancellationToken,
    /// Ends every connection.
    pub(super) end: CancellationToken,
    /// Connections, WebSockets among them.
    pub(super) tasks: TaskTracker,
}

/// How often each id was seen, by its hash.
#[derive(Default)]
pub(super) struct Seen(Mutex<HashMap<u64, u32>>);

impl Seen {
    /// Counts a sighting; how many there are now.
    pub(super) fn count(&self, id: &str) -> u32 {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let hash = reply::fnv1a(id.as_bytes());
        if seen.len() >= MAX_IDS && !seen.contains_key(&hash) {
            return 1;
        }
        let n = seen.entry(hash).or_default();
        *n = n.saturating_add(1);
        *n
    }
}

impl Service {
    pub(super) async fn answer(self: Arc<Self>, request: Request<Incoming>) -> Response<Body> {
        match (request.method(), request.uri().path()) {
            (&Method::POST, "/v1/chat/completions") => self.chat(request).await,
            (&Method::GET, "/v1/models") => json(StatusCode::OK, chat::models()),
            (&Method::GET, "/health") => json(StatusCode::OK, Bytes::from_static(b"{\"status\":\"ok\"}")),
            (&Method::GET, "/v1/realtime") => websocket::upgrade(&self, request),
            (method, path) => {
                let message = format!("{method} {path} is not there; POST /v1/chat/completions, GET /v1/models, /v1/realtime, /health are");
                self.refuse(&request, StatusCode::NOT_FOUND, &message)
            }
        }
    }

    async fn chat(&self, request: Request<Incoming>) -> Response<Body> {
        let (head, body) = request.into_parts();
        let header = request_id(&head.headers);
        let path = head.uri.path();
        let body = match read(body).await {
            Ok(body) => body,
            Err((status, message)) => return refused(self.entry(chat::id_of(&[header]), path), status, INVALID, &message),
        };
        match ChatRequest::parse(&body) {
            Ok(request) => self.reply(&request, path, header).await,
            Err(message) => refused(self.entry(chat::id_of(&[header]), path), StatusCode::BAD_REQUEST, INVALID, &message),
        }
    }

    async fn reply(&self, request: &ChatRequest<'_>, path: &str, header: Option<&str>) -> Response<Body> {
        let mut entry = self.entry(request.id(header), path);
        entry.record.user = request.user.as_deref().map(clipped);
        entry.record.model = Some(clipped(&request.model));
        entry.record.stream = request.streams();
        let plan = self.config.trouble.plan(&self.config, &entry.record.id, entry.record.n, request.tokens());
        stream::pause(plan.latency, &self.stop).await;
        if plan.error {
            return refused(entry, StatusCode::INTERNAL_SERVER_ERROR, "server_error", "the mock model fails as asked for");
        }
        let reply = Reply::new(request, &entry.record.id);
        if request.streams() {
            let body = Streaming::new(reply, plan, entry, self.stop.clone()).into_body();
            return response(StatusCode::OK, "text/event-stream; charset=utf-8", body);
        }
        if let Some((_, length)) = plan.stall {
            stream::pause(length, &self.stop).await;
        }
        let bytes = reply.whole();
        if plan.cut.is_some() {
            entry.end(Ended::Cut);
            let mut response = response(StatusCode::OK, "application/json", stream::half(&bytes));
            response.headers_mut().insert(CONTENT_LENGTH, bytes.len().into());
            return response;
        }
        entry.record.tokens = request.tokens();
        entry.end(Ended::Whole);
        json(StatusCode::OK, bytes)
    }

    /// Answers `request` with an error that is told to the ledger.
    pub(super) fn refuse(&self, request: &Request<Incoming>, status: StatusCode, message: &str) -> Response<Body> {
        let id = chat::id_of(&[request_id(request.headers())]);
        refused(self.entry(id, request.uri().path()), status, INVALID, message)
    }

    /// What the ledger is told of a request unless it fares better.
    pub(super) fn entry(&self, id: String, path: &str) -> Entry {
        let n = self.seen.count(&id);
        let path = clipped(path);
        let (status, ended) = (StatusCode::OK.as_u16(), Ended::Gone);
        let record = UpstreamRecord { id, n, path, user: None, model: None, stream: false, status, tokens: 0, ended };
        Entry::new(record, self.ledger.clone())
    }
}

async fn read(body: Incoming) -> Result<Bytes, (StatusCode, String)> {
    let too_large = || (StatusCode::PAYLOAD_TOO_LARGE, format!("the body has more than {MAX_BYTES} bytes"));
    // What is announced need not come first.
    if body.size_hint().lower() > MAX_BYTES as u64 {
        return Err(too_large());
    }
    let body = Limited::new(body, MAX_BYTES).collect().await.map_err(|error| match error.is::<LengthLimitError>() {
        true => too_large(),
        false => (StatusCode::BAD_REQUEST, format!("the body cannot be read: {error}")),
    })?;
    Ok(body.to_bytes())
}

/// What the client calls its request.
pub(super) fn request_id(headers: &HeaderMap) -> Option<&str> {
    headers.get("x-request-id").and_then(|value| value.to_str().ok())
}

fn clipped(text: &str) -> String {
    text.chars().take(MAX_CHARS).collect()
}

fn refused(mut entry: Entry, status: StatusCode, kind: &str, message: &str) -> Response<Body> {
    entry.record.status = status.as_u16();
    entry.end(Ended::Error);
    json(status, chat::error(message, kind))
}

fn json(status: StatusCode, bytes: Bytes) -> Response<Body> {
    response(status, "application/json", Either::Left(Full::new(bytes)))
}

fn response(status: StatusCode, content_type: &'static str, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}
