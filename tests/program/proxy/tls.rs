//! Requests over TLS, in HTTP/1.1 and HTTP/2, from the scenario to the verdict.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Version};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::PrivatePkcs8KeyDer;
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::gateway;
use crate::place::{Place, assert_anomalies};

/// Leads to the upstream, in the version that was agreed on.
#[derive(Clone)]
struct Front {
    upstream: SocketAddr,
    client: Client<HttpConnector, Incoming>,
    /// The versions that requests came in.
    spoken: Arc<Mutex<BTreeSet<String>>>,
}

/// A listening front; it ends with the test.
struct Listening {
    port: u16,
    front: Front,
    _runtime: tokio::runtime::Runtime,
}

impl Listening {
    /// Over TLS it offers `protocols`; its certificate becomes `ca.pem`.
    fn by_tls(place: &Place, upstream: SocketAddr, protocols: &[&str]) -> Self {
        let certified = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        place.write("ca.pem", &certified.cert.pem());
        let key = PrivatePkcs8KeyDer::from(certified.signing_key.serialize_der());
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let mut config = config.with_no_client_auth().with_single_cert(vec![certified.cert.der().clone()], key.into()).unwrap();
        config.alpn_protocols = protocols.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
        Self::start(upstream, Some(TlsAcceptor::from(Arc::new(config))), false)
    }

    /// In the clear it speaks the one version.
    fn in_the_clear(upstream: SocketAddr, http2: bool) -> Self {
        Self::start(upstream, None, http2)
    }

    fn start(upstream: SocketAddr, tls: Option<TlsAcceptor>, http2: bool) -> Self {
        let front = Front { upstream, client: Client::builder(TokioExecutor::new()).build_http(), spoken: Arc::default() };
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let port = listener.local_addr().unwrap().port();
        let accepting = front.clone();
        runtime.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (front, tls) = (accepting.clone(), tls.clone());
                tokio::spawn(async move {
                    let Some(tls) = tls else { return front.serve(stream, http2).await };
                    // Who does not trust the certificate goes away.
                    let Ok(stream) = tls.accept(stream).await else { return };
                    let http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
                    front.serve(stream, http2).await;
                });
            }
        });
        Self { port, front, _runtime: runtime }
    }

    fn spoken(&self) -> Vec<String> {
        self.front.spoken.lock().unwrap().iter().cloned().collect()
    }
}

impl Front {
    async fn serve(self, stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, http2: bool) {
        let service = service_fn(move |request| self.clone().forward(request));
        let io = TokioIo::new(stream);
        // However the connection ends.
        let _ = if http2 {
            hyper::server::conn::http2::Builder::new(TokioExecutor::new()).serve_connection(io, service).await
        } else {
            hyper::server::conn::http1::Builder::new().serve_connection(io, service).await
        };
    }

    async fn forward(self, mut request: Request<Incoming>) -> Result<hyper::Response<Incoming>, hyper_util::client::legacy::Error> {
        self.spoken.lock().unwrap().insert(format!("{:?}", request.version()));
        *request.version_mut() = Version::HTTP_11;
        let path = request.uri().path_and_query().unwrap();
        *request.uri_mut() = format!("http://{}{path}", self.upstream).parse().unwrap();
        self.client.request(request).await
    }
}

/// 120 chats, half of them streamed, checked against the mock's replies and its ledger.
fn scenario(place: &Place, http: Value) -> Value {
    json!({
        "name": "tls",
        "target": {"http": http},
        "workload": {"proxy_request": {
            "requests": 120,
            "replies": "mock",
            "mix": [{"chat": {"max_tokens": 8}}, {"name": "stream", "chat": {"stream": true, "max_tokens": 8}}],
        }},
        "load": {"executor": "shared-iterations", "vus": 8},
        "verify": {"upstream_ledger": place.path("upstream.jsonl")},
    })
}

fn assert_holds(report: &Value) {
    assert_anomalies(&report["integrity"], &[]);
    let right = |name: &str| json!({"name": name, "must_be_there": 120, "right": 120});
    assert_eq!(report["integrity"]["sources"], json!([right("replies"), right("upstream records")]));
}

#[test]
fn replies_are_right_in_every_version_over_tls() {
    let place = Place::new();
    let (_upstream, upstream) = gateway::upstream(&place);
    let both = ["h2", "http/1.1"];
    for (version, offered, spoken) in [
        ("http1", &both[..], "HTTP/1.1"),
        ("http2", &both, "HTTP/2.0"),
        ("auto", &both, "HTTP/2.0"),
        ("auto", &both[1..], "HTTP/1.1"),
        ("auto", &[], "HTTP/1.1"),
    ] {
        let front = Listening::by_tls(&place, upstream, offered);
        let http = json!({"url": format!("https://localhost:{}", front.port), "version": version, "ca_file": place.path("ca.pem")});
        assert_holds(&place.run(&scenario(&place, http), &[]).json(0));
        assert_eq!(front.spoken(), [spoken], "{version} where {offered:?} is offered");
    }
}

#[test]
fn replies_are_right_in_every_version_in_the_clear() {
    let place = Place::new();
    let (_upstream, upstream) = gateway::upstream(&place);
    for (version, http2, spoken) in [("http1", false, "HTTP/1.1"), ("http2", true, "HTTP/2.0"), ("auto", false, "HTTP/1.1")] {
        let front = Listening::in_the_clear(upstream, http2);
        let http = json!({"url": format!("http://127.0.0.1:{}", front.port), "version": version});
        assert_holds(&place.run(&scenario(&place, http), &[]).json(0));
        assert_eq!(front.spoken(), [spoken], "{version}");
    }
}

#[test]
fn a_certificate_that_is_not_trusted_is_an_error_of_every_request() {
    let place = Place::new();
    let (_upstream, upstream) = gateway::upstream(&place);
    let front = Listening::by_tls(&place, upstream, &["h2"]);
    let report = place.run(&scenario(&place, json!({"url": format!("https://localhost:{}", front.port)})), &[]).json(1);
    assert_eq!((&report["outcomes"]["rejected"], &report["outcomes"]["unknown"]), (&json!(120), &json!(0)), "{}", report["outcomes"]);
    assert_eq!(report["errors"], json!({"final:tls": 120}));
    let message = report["error_examples"]["tls"].as_str().unwrap();
    assert!(message.contains("target.http.ca_file"), "{message}");
    assert!(front.spoken().is_empty());
}

#[test]
fn a_version_that_the_server_does_not_speak_is_told() {
    let place = Place::new();
    let (_upstream, upstream) = gateway::upstream(&place);
    let front = Listening::by_tls(&place, upstream, &["http/1.1"]);
    let http = json!({"url": format!("https://localhost:{}", front.port), "version": "http2", "ca_file": place.path("ca.pem")});
    let report = place.run(&scenario(&place, http), &[]).json(1);
    assert_eq!((&report["outcomes"]["rejected"], &report["outcomes"]["acknowledged"]), (&json!(120), &json!(0)), "{}", report["outcomes"]);
    assert_eq!(report["errors"], json!({"final:tls": 120}));
    assert!(front.spoken().is_empty());
}

#[test]
fn a_fault_proxy_in_between_changes_no_name_and_no_certificate() {
    let place = Place::new();
    let (_upstream, upstream) = gateway::upstream(&place);
    let front = Listening::by_tls(&place, upstream, &["http/1.1"]);
    let http = json!({"url": format!("https://localhost:{}", front.port), "ca_file": place.path("ca.pem")});
    let mut scenario = scenario(&place, http);
    scenario["load"] = json!({"executor": "constant-arrival-rate", "rate": 60, "duration": "2s", "lag_limit": "60s"});
    scenario["gates"] = json!(["error_rate <= 100%", "offered_rate > 0"]);
    scenario["faults"] = json!([{"at": "300ms", "for": "1500ms", "kind": "cut", "when": "within_answer", "most": 2}]);
    let report = place.run(&scenario, &[]).json(0);
    assert_anomalies(&report["integrity"], &[]);
    let [acknowledged, rejected, unknown] = ["acknowledged", "rejected", "unknown"].map(|of| report["outcomes"][of].as_u64().unwrap());
    // An answer that was cut is in doubt; a handshake that was cut is no request yet.
    assert_eq!((acknowledged, rejected + unknown, &report["faults"][0]["struck"]), (118, 2, &json!(2)), "{}", report["errors"]);
    assert_eq!(front.spoken(), ["HTTP/1.1"]);
}
