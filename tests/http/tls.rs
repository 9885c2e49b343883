//! TLS: what is trusted, what is agreed on, and what goes wrong.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use batchsql::scenario::http::{ClientSettings, HttpProfile, HttpVersion};
use batchsql::target::{Applied, ErrorClass};
use http_body_util::Full;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls::pki_types::PrivateKeyDer;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::server::Server;
use super::{SHORT, assert_failed, client, config, get, soon};

/// A server over TLS that answers with the version it was asked in.
struct Secure {
    url: String,
    ca_file: PathBuf,
    accepted: Arc<AtomicUsize>,
    _folder: tempfile::TempDir,
}

impl Secure {
    async fn start(protocols: &[&[u8]]) -> Self {
        let CertifiedKey { cert, signing_key } = generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let ca_file = folder.path().join("ca.pem");
        std::fs::write(&ca_file, cert.pem()).unwrap();
        let key = PrivateKeyDer::try_from(signing_key.serialize_der()).unwrap();
        let mut tls = rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![cert.der().clone()], key)
            .unwrap();
        tls.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
        let acceptor = TlsAcceptor::from(Arc::new(tls));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("https://localhost:{}", listener.local_addr().unwrap().port());
        let accepted = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&accepted);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                counter.fetch_add(1, Ordering::Relaxed);
                tokio::spawn(serve(acceptor.clone(), stream));
            }
        });
        Self { url, ca_file, accepted, _folder: folder }
    }

    fn config(&self, version: HttpVersion) -> batchsql::http::Config {
        batchsql::http::Config { version, ca_file: Some(self.ca_file.clone()), ..config(&self.url) }
    }
}

async fn serve(acceptor: TlsAcceptor, stream: tokio::net::TcpStream) {
    let Ok(stream) = acceptor.accept(stream).await else { return };
    let service = service_fn(|request: hyper::Request<hyper::body::Incoming>| async move {
        Ok::<_, std::convert::Infallible>(hyper::Response::new(Full::new(bytes::Bytes::from(format!("{:?}", request.version())))))
    });
    let http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
    let io = TokioIo::new(stream);
    // However the connection ends.
    let _ = if http2 {
        hyper::server::conn::http2::Builder::new(TokioExecutor::new()).serve_connection(io, service).await
    } else {
        hyper::server::conn::http1::Builder::new().serve_connection(io, service).await
    };
}

#[tokio::test]
async fn a_certificate_that_is_not_trusted_ends_before_anything_is_sent() {
    let server = Secure::start(&[]).await;
    let other = Secure::start(&[]).await;
    // The system's authorities, and another's.
    for ca_file in [None, Some(other.ca_file.clone())] {
        let failed = soon(client(batchsql::http::Config { ca_file, ..config(&server.url) }).exchange(&get("/"))).await.unwrap_err();
        assert_failed(&failed, ErrorClass::Tls, Applied::No);
        assert!(failed.failure.message.contains("target.http.ca_file"), "{}", failed.failure.message);
        assert!(failed.sent.is_none());
    }
    let mut config = server.config(HttpVersion::Auto);
    config.url = server.url.replace("localhost", "127.0.0.1").parse().unwrap();
    let failed = soon(client(config).exchange(&get("/"))).await.unwrap_err();
    assert_failed(&failed, ErrorClass::Tls, Applied::No);
}

#[tokio::test]
async fn the_protocol_is_what_both_can_and_the_scenario_says() {
    let both: &[&[u8]] = &[b"h2", b"http/1.1"];
    let cases: [(&[&[u8]], HttpVersion, &str); 6] = [
        (both, HttpVersion::Auto, "HTTP/2.0"),
        (both, HttpVersion::Http1, "HTTP/1.1"),
        (both, HttpVersion::Http2, "HTTP/2.0"),
        (&[b"http/1.1"], HttpVersion::Auto, "HTTP/1.1"),
        (&[], HttpVersion::Auto, "HTTP/1.1"),
        (&[], HttpVersion::Http1, "HTTP/1.1"),
    ];
    for (protocols, version, spoken) in cases {
        let server = Secure::start(protocols).await;
        let client = client(server.config(version));
        let request = get("/");
        for _ in 0..3 {
            let reply = soon(client.exchange(&request)).await.unwrap();
            assert_eq!(String::from_utf8(reply.body).unwrap(), spoken, "{protocols:?} {version:?}");
        }
        assert_eq!(server.accepted.load(Ordering::Relaxed), 1, "{protocols:?} {version:?}");
        let replies = soon(futures::future::join_all((0..8).map(|_| client.exchange(&request)))).await;
        assert!(replies.into_iter().all(|reply| reply.unwrap().body == spoken.as_bytes()));
    }
}

#[tokio::test]
async fn one_connection_finds_out_for_all_who_begin_together() {
    let server = Secure::start(&[b"h2"]).await;
    let client = client(server.config(HttpVersion::Auto));
    let request = get("/");
    let replies = soon(futures::future::join_all((0..32).map(|_| client.exchange(&request)))).await;
    assert!(replies.into_iter().all(|reply| reply.unwrap().body == b"HTTP/2.0"));
    assert_eq!(server.accepted.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn http2_that_is_not_spoken_is_told() {
    let server = Secure::start(&[]).await;
    let failed = soon(client(server.config(HttpVersion::Http2)).exchange(&get("/"))).await.unwrap_err();
    assert_failed(&failed, ErrorClass::Protocol, Applied::No);
    assert!(failed.failure.message.ends_with("does not speak HTTP/2 over TLS (target.http.version is http2)"));
}

#[tokio::test]
async fn a_handshake_that_stalls_is_timed_out() {
    let server = Server::start(|_, mut stream| async move {
        // Takes whatever comes and never says a word.
        let _ = tokio::io::copy(&mut stream, &mut tokio::io::sink()).await;
    })
    .await;
    let other = Secure::start(&[]).await;
    let mut config = other.config(HttpVersion::Auto);
    config.url = server.url.replace("http:", "https:").parse().unwrap();
    config.settings = ClientSettings { tls_timeout: SHORT, ..HttpProfile::Default.settings() };
    let client = client(config);
    let request = get("/");
    let (one, two) = soon(futures::future::join(client.exchange(&request), client.exchange(&request))).await;
    for failed in [one.unwrap_err(), two.unwrap_err()] {
        assert_failed(&failed, ErrorClass::TlsTimeout, Applied::No);
    }
    assert_eq!(server.accepted(), 1, "who waits for the first attempt shares its failure");
}

#[tokio::test]
async fn a_file_of_authorities_that_cannot_be_used_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("ca.pem");
    let refused = || {
        let config = batchsql::http::Config { ca_file: Some(file.clone()), ..config("https://localhost") };
        let Err(error) = batchsql::http::Client::new(config) else { panic!("refused") };
        error.to_string()
    };
    let named = |what: &str| format!("target.http.ca_file: {} {what}", file.display());
    assert!(refused().starts_with(&named("cannot be read")), "{}", refused());
    std::fs::write(&file, "no certificate").unwrap();
    assert!(refused().starts_with(&named("holds no certificate")), "{}", refused());
    std::fs::write(&file, "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n").unwrap();
    assert!(refused().starts_with(&named("holds what is no certificate")), "{}", refused());
}
