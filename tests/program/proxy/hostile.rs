//! Servers that do what a server must not: each request ends as a counted class, in bounded memory, and the run with its report.

use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;
use tokio_rustls::TlsAcceptor;

use super::server::{Server, chunk, ok, request, stream, token};
use super::{assert_outcomes, requests};
use crate::place::Place;

const REQUESTS: u64 = 24;

/// What a client that bounds what it takes in never comes near, however much is sent to it.
const RSS_BYTES_MAX: u64 = 300 << 20;

fn plain() -> Value {
    json!([{"http": {"path": "/"}, "checks": {"status": [200]}}])
}

fn chat(stream: bool) -> Value {
    json!([{"chat": {"stream": stream, "max_tokens": 8}}])
}

/// Runs requests against a server whose every answer is wrong; asserts that each ended so, and returns the report.
#[track_caller]
fn all_fail(scenario: &Value, outcomes: [u64; 3], class: &str) -> Value {
    let report = Place::new().run(scenario, &[]).json(1);
    assert_outcomes(&report, outcomes);
    assert_eq!(report["errors"], json!({ format!("final:{class}"): REQUESTS }), "{}", report["error_examples"]);
    assert_eq!((&report["verdict"], &report["throughput"]["valid"]), (&json!("fail"), &json!(false)));
    assert_eq!(report["integrity"]["verdict"], "inconclusive", "nothing was acknowledged, so nothing is proven");
    let rss = report["resources"]["rss_bytes_max"].as_u64().unwrap();
    assert!(rss < RSS_BYTES_MAX, "{rss} bytes");
    report
}

fn all_unknown(scenario: &Value, class: &str) -> Value {
    all_fail(scenario, [0, 0, REQUESTS], class)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn replies_cut_in_their_middle_are_unknown() {
    let half = "HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{\"choices\":";
    let server = Server::closing_after(half).await;
    for mix in [plain(), chat(false)] {
        all_unknown(&requests(&server.url, REQUESTS, &mix), "connection");
    }
    let server = Server::closing_after(stream(&[&token("bq-")])).await;
    all_unknown(&requests(&server.url, REQUESTS, &chat(true)), "connection");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_gigabyte_is_not_taken_in() {
    for head in ["content-length: 1073741824", "transfer-encoding: chunked"] {
        let server = Server::start(move |_, mut stream| async move {
            request(&mut stream).await;
            let _ = stream.write_all(format!("HTTP/1.1 200 OK\r\n{head}\r\n\r\n").as_bytes()).await;
            let piece = chunk(&"x".repeat(65_536));
            for _ in 0..16_384 {
                if stream.write_all(piece.as_bytes()).await.is_err() {
                    return;
                }
            }
        })
        .await;
        let report = all_unknown(&requests(&server.url, REQUESTS, &plain()), "too_large");
        assert_eq!(report["error_examples"]["too_large"], "the body is larger than 16777216 bytes (target.http.limits.body_bytes)");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_decompression_bomb_does_not_go_off() {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    for _ in 0..256 {
        encoder.write_all(&vec![0; 1 << 20]).unwrap();
    }
    let server = Server::answering(ok("content-encoding: gzip\r\n", encoder.finish().unwrap())).await;
    all_unknown(&requests(&server.url, REQUESTS, &plain()), "too_large");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn ten_thousand_headers_are_too_many() {
    let server = Server::closing_after(format!("HTTP/1.1 200 OK\r\n{}\r\n", "name: value\r\n".repeat(10_000))).await;
    all_unknown(&requests(&server.url, REQUESTS, &plain()), "too_large");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_stream_that_never_ends_is_ended_by_a_limit() {
    // Events without end, then none, then none with content.
    let server = Server::start(|_, mut stream| async move {
        request(&mut stream).await;
        let _ = stream.write_all(&super::server::stream(&[])).await;
        let event = chunk(&format!("data: {}\n\n", token(&"x".repeat(10_000))));
        while stream.write_all(event.as_bytes()).await.is_ok() {}
    })
    .await;
    all_unknown(&requests(&server.url, REQUESTS, &chat(true)), "too_large");
    let short = json!({"first_token": "300ms", "between_tokens": "300ms", "total": "1s"});
    let limited = |url: &str| {
        let mut scenario = requests(url, REQUESTS, &chat(true));
        scenario["target"]["http"]["timeouts"] = short.clone();
        scenario
    };
    let server = Server::stalling_after(stream(&[&token("bq-")])).await;
    all_unknown(&limited(&server.url), "token_gap_timeout");
    let server = Server::stalling_after(stream(&["{\"choices\":[]}"])).await;
    all_unknown(&limited(&server.url), "first_token_timeout");
    let server = Server::start(|_, mut stream| async move {
        request(&mut stream).await;
        let _ = stream.write_all(&super::server::stream(&[&token("bq-")])).await;
        let event = chunk(&format!("data: {}\n\n", token("x")));
        // Paced, or the limit on bytes would be first.
        while stream.write_all(event.as_bytes()).await.is_ok() {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    })
    .await;
    all_unknown(&limited(&server.url), "total_timeout");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn what_is_no_event_stream_or_no_json_is_told() {
    for (streamed, answer) in [
        (true, ok("content-type: text/event-stream\r\n", "<html>\nnot one event\n</html>\n")),
        (true, stream(&["{\"choices\":[{\"delta\""])),
        (true, stream(&["[1, 2]"])),
        (false, ok("content-type: application/json\r\n", "{\"choices\":[{\"index\":0,\"message\"")),
        (false, ok("content-type: text/html\r\n", "<html>no model here</html>")),
        (false, ok("content-type: application/json\r\n", "{}")),
    ] {
        let server = Server::closing_after(answer).await;
        all_unknown(&requests(&server.url, REQUESTS, &chat(streamed)), "protocol");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_redirect_to_another_host_brings_it_nothing() {
    let other = Server::answering(ok("", "yes")).await;
    let server =
        Server::answering(format!("HTTP/1.1 307 Temporary Redirect\r\nlocation: {}/\r\ncontent-length: 0\r\n\r\n", other.url)).await;
    for mix in [plain(), chat(true)] {
        let mut scenario = requests(&server.url, REQUESTS, &mix);
        scenario["target"]["http"]["limits"] = json!({"redirects": 5});
        scenario["workload"]["proxy_request"]["users"] = json!([{"name": "ann", "key": "key-of-ann"}]);
        all_unknown(&scenario, "redirect");
        assert_eq!(other.accepted(), 0);
    }
}

/// Answers `ok` to so many requests, then closes every connection and listens no more.
async fn leaving_after(requests: usize) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let (left, end) = (Arc::new(AtomicUsize::new(requests)), tokio_util::sync::CancellationToken::new());
    tokio::spawn(async move {
        let mut connections = tokio::task::JoinSet::new();
        loop {
            let mut stream = tokio::select! {
                accepted = listener.accept() => accepted.unwrap().0,
                () = end.cancelled() => return,
            };
            let (left, end) = (Arc::clone(&left), end.clone());
            connections.spawn(async move {
                while !request(&mut stream).await.is_empty() {
                    let taken = left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
                    if taken.is_err() {
                        return end.cancel();
                    }
                    let _ = stream.write_all(&ok("", "ok")).await;
                }
            });
        }
    });
    url
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_service_that_went_away_during_the_run_leaves_it_inconclusive() {
    let url = leaving_after(100).await;
    let report = Place::new().run(&requests(&url, 300, &plain()), &[]).json(3);
    let count = |outcome: &str| report["outcomes"][outcome].as_u64().unwrap();
    // An answer may lie in a connection that is closed before it is read.
    assert!((90..=100).contains(&count("acknowledged")), "{}", report["outcomes"]);
    assert_eq!((count("offered"), count("dropped")), (300, 0));
    assert_eq!(report["errors"], json!({"final:connection": count("rejected") + count("unknown")}));
    assert_eq!((&report["verdict"], &report["integrity"]["verdict"]), (&json!("inconclusive"), &json!("holds")));
    assert!(report["reasons"][0].as_str().unwrap().ends_with("the target was gone"), "{}", report["reasons"]);
    // Where the scenario says how many errors it bears, that decides.
    let mut scenario = requests(&leaving_after(100).await, 300, &plain());
    scenario["gates"] = json!(["error_rate < 50%"]);
    Place::new().run(&scenario, &[]).json(1);
}

/// A frame of HTTP/2 on stream 0.
fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
    [&(payload.len() as u32).to_be_bytes()[1..], &[kind, 0, 0, 0, 0, 0], payload].concat()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn requests_that_a_goaway_did_not_take_are_rejected() {
    let server = Server::start(|_, mut stream| async move {
        // SETTINGS, then GOAWAY: the last stream that was served is 0, NO_ERROR.
        let _ = stream.write_all(&[frame(4, &[]), frame(7, &[0; 8])].concat()).await;
        // Until the client has gone.
        let _ = tokio::io::copy(&mut stream, &mut tokio::io::sink()).await;
    })
    .await;
    let mut scenario = requests(&server.url, REQUESTS, &plain());
    scenario["target"]["http"]["version"] = json!("http2");
    all_fail(&scenario, [0, REQUESTS, 0], "connection");
}

/// A server over TLS that answers `ok`, the PEM of its own certificate, and how often a handshake succeeded.
async fn secure() -> (Server, String, Arc<AtomicUsize>) {
    let rcgen::CertifiedKey { cert, signing_key } = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let key = rustls::pki_types::PrivateKeyDer::try_from(signing_key.serialize_der()).unwrap();
    let tls = rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![cert.der().clone()], key)
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(tls));
    let sessions = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&sessions);
    let server = Server::start(move |_, stream| {
        let (acceptor, counter) = (acceptor.clone(), Arc::clone(&counter));
        async move {
            let Ok(stream) = acceptor.accept(stream).await else { return };
            counter.fetch_add(1, Ordering::Relaxed);
            let answer = hyper::service::service_fn(|_| async {
                Ok::<_, std::convert::Infallible>(hyper::Response::new(http_body_util::Full::new(bytes::Bytes::from_static(b"ok"))))
            });
            // However the connection ends.
            let _ = hyper::server::conn::http1::Builder::new().serve_connection(hyper_util::rt::TokioIo::new(stream), answer).await;
        }
    })
    .await;
    (server, cert.pem(), sessions)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_certificate_is_trusted_by_ca_file_or_not_at_all() {
    let (server, pem, sessions) = secure().await;
    let url = server.url.replace("http://127.0.0.1", "https://localhost");
    let mut scenario = requests(&url, REQUESTS, &json!([{"http": {"path": "/"}, "checks": {"body": "ok"}}]));
    let report = all_fail(&scenario, [0, REQUESTS, 0], "tls");
    assert!(report["error_examples"]["tls"].as_str().unwrap().contains("target.http.ca_file"), "{}", report["error_examples"]);
    assert_eq!(sessions.load(Ordering::Relaxed), 0);
    let place = Place::new();
    scenario["target"]["http"]["ca_file"] = json!(place.write("ca.pem", &pem));
    let report = place.run(&scenario, &[]).json(0);
    assert_outcomes(&report, [REQUESTS, 0, 0]);
    assert_eq!((&report["integrity"]["verdict"], &report["integrity"]["checked"]), (&json!("holds"), &json!(REQUESTS)));
    assert!((1..=8).contains(&sessions.load(Ordering::Relaxed)), "connections are kept");
}
