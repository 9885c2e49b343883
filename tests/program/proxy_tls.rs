//! Requests over TLS, in HTTP/1.1 and HTTP/2, from the scenario to the verdict.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use rustls::pki_types::PrivatePkcs8KeyDer;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use crate::gateway;
use crate::place::{Place, assert_anomalies};

/// Ends TLS before a server that speaks in the clear, HTTP/1.1 or HTTP/2 as was agreed on.
struct Front {
    url: String,
    /// What was agreed on (ALPN), of all connections.
    agreed: Arc<Mutex<BTreeSet<String>>>,
    _runtime: tokio::runtime::Runtime,
}

impl Front {
    /// Offers `protocols`; its certificate becomes `ca.pem`.
    fn start(place: &Place, server: SocketAddr, protocols: &[&str]) -> Self {
        let certified = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        place.write("ca.pem", &certified.cert.pem());
        let key = PrivatePkcs8KeyDer::from(certified.signing_key.serialize_der());
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let mut config = config.with_no_client_auth().with_single_cert(vec![certified.cert.der().clone()], key.into()).unwrap();
        config.alpn_protocols = protocols.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let url = format!("https://localhost:{}", listener.local_addr().unwrap().port());
        let agreed = Arc::default();
        runtime.spawn(accept(listener, TlsAcceptor::from(Arc::new(config)), server, Arc::clone(&agreed)));
        Self { url, agreed, _runtime: runtime }
    }
}

async fn accept(listener: TcpListener, acceptor: TlsAcceptor, server: SocketAddr, agreed: Arc<Mutex<BTreeSet<String>>>) {
    while let Ok((stream, _)) = listener.accept().await {
        let (acceptor, agreed) = (acceptor.clone(), Arc::clone(&agreed));
        tokio::spawn(async move {
            // Who does not trust the certificate goes away.
            let Ok(mut stream) = acceptor.accept(stream).await else { return };
            let protocol = stream.get_ref().1.alpn_protocol().map(|protocol| String::from_utf8_lossy(protocol).into_owned());
            agreed.lock().unwrap().insert(protocol.unwrap_or_default());
            let mut plain = TcpStream::connect(server).await.unwrap();
            // However the connection ends.
            let _ = tokio::io::copy_bidirectional(&mut stream, &mut plain).await;
        });
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
    for (version, offered, agreed) in
        [("http1", &both[..], "http/1.1"), ("http2", &both, "h2"), ("auto", &both, "h2"), ("auto", &both[1..], "http/1.1"), ("auto", &[], "")]
    {
        let front = Front::start(&place, upstream, offered);
        let http = json!({"url": front.url, "version": version, "ca_file": place.path("ca.pem")});
        assert_holds(&place.run(&scenario(&place, http), &[]).json(0));
        assert_eq!(*front.agreed.lock().unwrap(), BTreeSet::from([agreed.to_owned()]), "{version} where {offered:?} is offered");
    }
}

#[test]
fn replies_are_right_in_every_version_without_tls() {
    let place = Place::new();
    let (_upstream, upstream) = gateway::upstream(&place);
    for version in ["http1", "http2", "auto"] {
        let http = json!({"url": format!("http://{upstream}"), "version": version});
        assert_holds(&place.run(&scenario(&place, http), &[]).json(0));
    }
}

#[test]
fn a_certificate_that_is_not_trusted_is_an_error_of_every_request() {
    let place = Place::new();
    let (_upstream, upstream) = gateway::upstream(&place);
    let front = Front::start(&place, upstream, &["h2"]);
    let report = place.run(&scenario(&place, json!({"url": front.url})), &[]).json(1);
    assert_eq!((&report["outcomes"]["rejected"], &report["outcomes"]["unknown"]), (&json!(120), &json!(0)), "{}", report["outcomes"]);
    assert_eq!(report["errors"], json!({"final:tls": 120}));
    let message = report["error_examples"]["tls"].as_str().unwrap();
    assert!(message.contains("target.http.ca_file"), "{message}");
    assert!(front.agreed.lock().unwrap().is_empty());
}

#[test]
fn a_version_that_the_server_does_not_speak_is_told() {
    let place = Place::new();
    let (_upstream, upstream) = gateway::upstream(&place);
    let front = Front::start(&place, upstream, &["http/1.1"]);
    let http = json!({"url": front.url, "version": "http2", "ca_file": place.path("ca.pem")});
    let report = place.run(&scenario(&place, http), &[]).json(1);
    assert_eq!((&report["outcomes"]["rejected"], &report["outcomes"]["acknowledged"]), (&json!(120), &json!(0)), "{}", report["outcomes"]);
    assert!(report["errors"].as_object().unwrap().keys().all(|class| ["final:protocol", "final:tls"].contains(&class.as_str())), "{}", report["errors"]);
}
