//! A model to stand behind the gateway: replies as [`reply`] says, and some that are slow, gated or cut.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Body;
use axum::extract::ws::WebSocketUpgrade;
use axum::extract::{Request, State};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{any, post};
use axum::serve::ListenerExt as _;
use batchsql::workload::reply;
use bytes::Bytes;
use futures::StreamExt as _;
use serde_json::{Value, json};
use tokio::sync::Notify;
use tokio::task::JoinHandle;

pub(crate) struct Model {
    pub(crate) name: &'static str,
    pub(crate) address: SocketAddr,
    state: Arc<Asked>,
    task: JoinHandle<()>,
}

#[derive(Default)]
struct Asked {
    /// Request id and authorization of each request.
    requests: Mutex<Vec<(String, String)>>,
    go_on: Notify,
    connections: AtomicUsize,
}

impl Model {
    pub(crate) async fn start(name: &'static str) -> Self {
        let state = Arc::new(Asked::default());
        let router =
            Router::new().route("/v1/chat/completions", post(complete)).route("/v1/realtime", any(realtime)).with_state(Arc::clone(&state));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let counted = Arc::clone(&state);
        let listener = listener.tap_io(move |_| {
            counted.connections.fetch_add(1, Ordering::Relaxed);
        });
        let task = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { name, address, state, task }
    }

    /// The model by TLS, for `localhost`; returns its port, and the PEM of the certificate that vouches for it.
    pub(crate) async fn by_tls(&self) -> (u16, String) {
        let certified = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        let key = rustls::pki_types::PrivatePkcs8KeyDer::from(certified.signing_key.serialize_der());
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let config = config.with_no_client_auth().with_single_cert(vec![certified.cert.der().clone()], key.into()).unwrap();
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (port, model) = (listener.local_addr().unwrap().port(), self.address);
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let acceptor = acceptor.clone();
                tokio::spawn(async move {
                    // Who does not trust the certificate goes away.
                    let Ok(mut stream) = acceptor.accept(stream).await else { return };
                    let mut plain = tokio::net::TcpStream::connect(model).await.unwrap();
                    let _ = tokio::io::copy_bidirectional(&mut stream, &mut plain).await;
                });
            }
        });
        (port, certified.cert.pem())
    }

    /// Nobody listens there from now on.
    pub(crate) async fn stop(&self) {
        self.task.abort();
        crate::place::until(async || tokio::net::TcpStream::connect(self.address).await.is_err()).await;
    }

    /// Ids of the requests that came, in their order.
    pub(crate) fn seen(&self) -> Vec<String> {
        self.state.requests.lock().unwrap().iter().map(|(id, _)| id.clone()).collect()
    }

    /// How many connections came.
    pub(crate) fn connections(&self) -> usize {
        self.state.connections.load(Ordering::Relaxed)
    }

    pub(crate) fn authorizations(&self) -> Vec<String> {
        self.state.requests.lock().unwrap().iter().map(|(_, authorization)| authorization.clone()).collect()
    }

    /// Lets a gated stream go on.
    pub(crate) fn go_on(&self) {
        self.state.go_on.notify_one();
    }
}

impl Drop for Model {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn complete(State(asked): State<Arc<Asked>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let header = |name: &str| parts.headers.get(name).map(|value| value.to_str().unwrap().to_owned()).unwrap_or_default();
    asked.requests.lock().unwrap().push((header("x-request-id"), header("authorization")));
    let body: Value = serde_json::from_slice(&axum::body::to_bytes(body, 1 << 20).await.unwrap()).unwrap();
    let prompt = body["messages"][0]["content"].as_str().unwrap();
    let id = reply::find_id(prompt).unwrap().to_owned();
    let count = body["max_tokens"].as_u64().unwrap() as u32;
    let usage = json!({"prompt_tokens": reply::prompt_tokens(prompt), "completion_tokens": count});
    let model = body["model"].as_str().unwrap();
    if model == "late" {
        // Until the gateway gives up.
        std::future::pending::<()>().await;
    }
    if body["stream"] == true {
        return stream(asked, &id, count, model, &usage);
    }
    let text = json!({"choices": [{"message": {"content": reply::text(&id, count)}}], "usage": usage}).to_string();
    if model == "cut" {
        let half: Vec<std::io::Result<Bytes>> = vec![Ok(Bytes::from(text[..text.len() / 2].to_owned())), Err(std::io::Error::other("cut"))];
        let length = [("content-length", text.len().to_string()), ("content-type", "application/json".to_owned())];
        return (length, Body::from_stream(futures::stream::iter(half))).into_response();
    }
    ([("content-type", "application/json")], text).into_response()
}

fn stream(asked: Arc<Asked>, id: &str, count: u32, model: &str, usage: &Value) -> Response {
    let event = |value: Value| Ok::<_, std::io::Error>(Bytes::from(format!("data: {value}\n\n")));
    let mut events = vec![event(json!({"choices": [{"delta": {"role": "assistant", "content": ""}}]}))];
    events.extend(reply::tokens(id, count).map(|token| event(json!({"choices": [{"delta": {"content": token}}]}))));
    // The gated and the cut stream stop half way.
    let half = 1 + count as usize / 2;
    let mut rest = events.split_off(half.min(events.len()));
    if model == "cut" {
        rest = vec![Err(std::io::Error::other("cut"))];
    } else {
        rest.push(event(json!({"choices": [], "usage": usage})));
        rest.push(Ok(Bytes::from_static(b"data: [DONE]\n\n")));
    }
    let gated = model == "gated";
    let gate = futures::stream::once(async move {
        if gated {
            asked.go_on.notified().await;
        } else {
            // What was sent so far is on its way before the cut.
            tokio::task::yield_now().await;
        }
        Ok(Bytes::new())
    });
    let events = futures::stream::iter(events).chain(gate).chain(futures::stream::iter(rest));
    ([("content-type", "text/event-stream")], Body::from_stream(events)).into_response()
}

async fn realtime(upgrade: WebSocketUpgrade) -> Response {
    upgrade.on_upgrade(|mut socket| async move {
        while let Some(Ok(message)) = socket.recv().await {
            if socket.send(message).await.is_err() {
                return;
            }
        }
    })
}
