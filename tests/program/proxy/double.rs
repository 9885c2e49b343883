//! A gateway that does wrong on demand, before the mock upstream: it answers as the upstream did, logs each request to an SQLite table
//! of its own, and does to the requests that it was told about what the verifier must tell.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::Response;
use batchsql::proxy::upstream;
use batchsql::workload::reply;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::{Value, json};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use crate::place::Place;

/// The index of a request that no test sends.
pub(crate) const NEVER_SENT: i64 = 999_999;

/// What is done to one request.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Fault {
    /// Two requests that have it get each other's reply.
    Swap,
    /// The event at this place of a stream is left out, counted from its end if negative.
    Drop(isize),
    /// The event at this place of a stream is sent twice.
    Repeat(usize),
    /// The event at this place of a stream and the next one change places.
    Exchange(usize),
    /// A stream ends in good order after so many events.
    End(usize),
    /// The connection is closed after so many events of a stream, or after half of a reply.
    Cut(usize),
    /// One text of the reply becomes another.
    Alter(&'static str, &'static str),
    /// The reply lacks its last token.
    Short,
    /// The reply to a request that was never sent.
    Invented,
    /// The upstream is asked twice.
    Retry,
    /// The upstream is not asked.
    Cached,
    /// The upstream is also asked for what nobody sent.
    AskUnsent,
    /// Two log rows.
    LogTwice,
    /// No log row.
    LogNothing,
    /// This column of the log row has this value.
    LogWrong(&'static str, Option<&'static str>),
    /// A second log row, of a request that nobody sent.
    LogUnsent,
    /// The log row comes this much later than the reply.
    LogLate(Duration),
}

/// A running gateway; it ends with the test.
pub(crate) struct Double {
    pub(crate) url: String,
    log: PathBuf,
    upstream_ledger: PathBuf,
    _runtime: tokio::runtime::Runtime,
}

/// Which fault a request has, by its index.
type Faults = Box<dyn Fn(u64) -> Option<Fault> + Send + Sync>;

impl Double {
    /// Does these to the requests of these indexes.
    pub(crate) fn start(place: &Place, faults: &[(u64, Fault)]) -> Self {
        let faults: BTreeMap<u64, Fault> = faults.iter().copied().collect();
        Self::start_with(place, Box::new(move |index| faults.get(&index).copied()))
    }

    pub(crate) fn start_with(place: &Place, faults: Faults) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let (log, upstream_ledger) = (place.path("gw.db"), place.path("upstream.jsonl"));
        let connection = rusqlite::Connection::open(&log).unwrap();
        let table = "CREATE TABLE IF NOT EXISTS gw_log (rid TEXT, who TEXT, model TEXT, pt INTEGER, ct INTEGER, st INTEGER)";
        connection.execute_batch(&format!("PRAGMA journal_mode = WAL; PRAGMA synchronous = OFF; {table}")).unwrap();
        let config = upstream::Config { ledger: Some(upstream_ledger.clone()), ..upstream::Config::default() };
        let url = runtime.block_on(async {
            let upstream = upstream::start(config, "127.0.0.1:0".parse().unwrap(), CancellationToken::new()).await.unwrap();
            let gateway = Arc::new(Gateway {
                faults,
                upstream: format!("http://{}/v1/chat/completions", upstream.address),
                client: Client::builder(TokioExecutor::new()).build_http(),
                log: Mutex::new(connection),
                waiting: Mutex::new(None),
            });
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            let url = format!("http://{}", listener.local_addr().unwrap());
            let router = Router::new().fallback(answer).with_state(gateway);
            tokio::spawn(async move { axum::serve(listener, router).await });
            url
        });
        Self { url, log, upstream_ledger, _runtime: runtime }
    }

    /// Chats through this gateway, everything held against everything.
    pub(crate) fn scenario(&self, requests: u64, stream: bool) -> Value {
        json!({
            "name": "planted",
            "target": {"http": {"url": self.url}},
            "workload": {"proxy_request": {
                "requests": requests,
                "replies": "mock",
                "users": [{"name": "ann", "key": "key-of-ann"}, {"name": "bob", "key": "key-of-bob"}],
                "models": ["small", "large"],
                "mix": [{"chat": {"stream": stream, "max_tokens": 8}}],
            }},
            "load": {"executor": "shared-iterations", "vus": 8},
            "verify": {"upstream_ledger": self.upstream_ledger, "quiesce_timeout": "1s"},
            "reconcile": {
                "database": {"sqlite": {"path": self.log}},
                "query": "SELECT * FROM gw_log WHERE rid LIKE '{{ids}}%'",
                "columns": {"id": "rid", "user": "who", "model": "model", "prompt_tokens": "pt", "completion_tokens": "ct", "status": "st"},
                "wait": "1s",
            },
        })
    }
}

struct Gateway {
    faults: Faults,
    upstream: String,
    client: Client<HttpConnector, Full<Bytes>>,
    log: Mutex<rusqlite::Connection>,
    /// The first of two that swap their replies.
    waiting: Mutex<Option<(String, oneshot::Sender<String>)>>,
}

/// A request, as far as the gateway reads it.
struct Asked {
    id: String,
    user: String,
    model: String,
    prompt_tokens: u64,
    max_tokens: u32,
    stream: bool,
    body: Bytes,
}

impl Asked {
    fn new(headers: &HeaderMap, body: Bytes) -> Self {
        let header = |name: &str| headers[name].to_str().unwrap().to_owned();
        let json: Value = serde_json::from_slice(&body).unwrap();
        Self {
            id: header("x-request-id"),
            user: header("authorization").trim_start_matches("Bearer key-of-").to_owned(),
            model: json["model"].as_str().unwrap().to_owned(),
            prompt_tokens: reply::prompt_tokens(json["messages"][0]["content"].as_str().unwrap()),
            max_tokens: json["max_tokens"].as_u64().unwrap() as u32,
            stream: json["stream"].as_bool().unwrap(),
            body,
        }
    }

    fn index(&self) -> u64 {
        reply::parse_id(&self.id).unwrap().1
    }

    /// The id of a request of the same run that is never sent.
    fn unsent(&self) -> String {
        reply::request_id(reply::parse_id(&self.id).unwrap().0, NEVER_SENT as u64)
    }

    /// A reply made up here, with `tokens` of the right reply to `id`.
    fn composed(&self, id: &str, tokens: u32) -> String {
        let text = reply::text(id, tokens);
        let usage = json!({"prompt_tokens": self.prompt_tokens, "completion_tokens": self.max_tokens});
        if !self.stream {
            let choice = json!({"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"});
            return json!({"choices": [choice], "usage": usage}).to_string();
        }
        let chunks = [
            json!({"choices": [{"index": 0, "delta": {"content": text}}]}),
            json!({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}),
            json!({"choices": [], "usage": usage}),
        ];
        chunks.iter().map(|chunk| format!("data: {chunk}\n\n")).collect::<String>() + "data: [DONE]\n\n"
    }
}

async fn answer(State(gateway): State<Arc<Gateway>>, headers: HeaderMap, body: Bytes) -> Response {
    let asked = Asked::new(&headers, body);
    let fault = (gateway.faults)(asked.index());
    let reply = match fault {
        Some(Fault::Cached) => asked.composed(&asked.id, asked.max_tokens),
        Some(Fault::Short) => {
            gateway.ask(&asked, &asked.id).await;
            asked.composed(&asked.id, asked.max_tokens - 1)
        }
        Some(Fault::Invented) => {
            gateway.ask(&asked, &asked.id).await;
            asked.composed(&asked.unsent(), asked.max_tokens)
        }
        _ => gateway.ask(&asked, &asked.id).await,
    };
    let reply = match fault {
        Some(Fault::Swap) => gateway.swapped(reply).await,
        Some(Fault::Retry) => gateway.ask(&asked, &asked.id).await,
        Some(Fault::AskUnsent) => {
            gateway.ask(&asked, &asked.unsent()).await;
            reply
        }
        Some(fault) => edited(reply, fault),
        None => reply,
    };
    gateway.note(&asked, fault);
    let response = Response::builder().status(StatusCode::OK);
    let response = response.header(header::CONTENT_TYPE, if asked.stream { "text/event-stream" } else { "application/json" });
    match fault {
        Some(Fault::Cut(events)) => {
            let sent =
                if asked.stream { reply.split_inclusive("\n\n").take(events).collect() } else { reply[..reply.len() / 2].to_owned() };
            let pieces = [Ok(Bytes::from(sent)), Err(std::io::Error::other("cut as asked for"))];
            response.body(Body::from_stream(futures::stream::iter(pieces))).unwrap()
        }
        _ => response.body(Body::from(reply)).unwrap(),
    }
}

/// The reply with what the fault does to its text.
fn edited(reply: String, fault: Fault) -> String {
    let mut events: Vec<&str> = reply.split_inclusive("\n\n").collect();
    match fault {
        Fault::Drop(at) => drop(events.remove(at.rem_euclid(events.len() as isize) as usize)),
        Fault::Repeat(at) => events.insert(at, events[at]),
        Fault::Exchange(at) => events.swap(at, at + 1),
        Fault::End(after) => events.truncate(after),
        Fault::Alter(from, to) => {
            assert!(reply.contains(from), "{from:?} is not in {reply}");
            return reply.replacen(from, to, 1);
        }
        _ => return reply,
    }
    events.concat()
}

impl Gateway {
    /// The upstream's reply to `asked`, in the name of `id`.
    async fn ask(&self, asked: &Asked, id: &str) -> String {
        let body = String::from_utf8(asked.body.to_vec()).unwrap().replace(&asked.id, id);
        let request = hyper::Request::post(&self.upstream).body(Full::new(Bytes::from(body))).unwrap();
        let answer = self.client.request(request).await.unwrap();
        assert_eq!(answer.status(), StatusCode::OK);
        String::from_utf8(answer.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap()
    }

    /// The reply of the other one that swaps, once it is there.
    async fn swapped(&self, reply: String) -> String {
        let first = self.waiting.lock().unwrap().take();
        if let Some((other, tell)) = first {
            tell.send(reply).unwrap();
            return other;
        }
        let (tell, told) = oneshot::channel();
        *self.waiting.lock().unwrap() = Some((reply, tell));
        told.await.unwrap()
    }

    /// Writes the log row, or what the fault makes of it.
    fn note(self: &Arc<Self>, asked: &Asked, fault: Option<Fault>) {
        let row = (asked.id.clone(), asked.user.clone(), asked.model.clone(), asked.prompt_tokens as i64, asked.max_tokens);
        match fault {
            Some(Fault::LogNothing) => {}
            Some(Fault::LogTwice) => (0..2).for_each(|_| self.insert(&row)),
            Some(Fault::LogUnsent) => {
                self.insert(&row);
                self.insert(&(asked.unsent(), row.1, row.2, row.3, row.4));
            }
            Some(Fault::LogWrong(column, value)) => {
                self.insert(&row);
                let sql = format!("UPDATE gw_log SET {column} = ?1 WHERE rid = ?2");
                self.log.lock().unwrap().execute(&sql, (value, &row.0)).unwrap();
            }
            Some(Fault::LogLate(length)) => {
                let gateway = Arc::clone(self);
                tokio::spawn(async move {
                    tokio::time::sleep(length).await;
                    gateway.insert(&row);
                });
            }
            _ => self.insert(&row),
        }
    }

    fn insert(&self, row: &(String, String, String, i64, u32)) {
        let log = self.log.lock().unwrap();
        let mut insert = log.prepare_cached("INSERT INTO gw_log VALUES (?1, ?2, ?3, ?4, ?5, 200)").unwrap();
        insert.execute((&row.0, &row.1, &row.2, row.3, row.4)).unwrap();
    }
}
