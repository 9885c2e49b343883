//! HTTP/2: streams share connections, and what a server says of a stream it ends decides what is known of the request.

use std::convert::Infallible;
use std::sync::Arc;

use batchsql::http::Config;
use batchsql::scenario::http::{ClientSettings, HttpProfile, HttpVersion, ReplyLimits, ReplyTimeouts};
use batchsql::target::{Applied, ErrorClass};
use bytes::Bytes;
use http::header;
use http_body_util::{BodyExt as _, Full};
use hyper::service::service_fn;
use hyper::{Request, Response, body::Incoming};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::Barrier;

use super::server::{Server, token};
use super::{AMPLE, SHORT, ask, assert_failed, client, config, get, soon};

fn http2(url: &str) -> Config {
    Config { version: HttpVersion::Http2, ..config(url) }
}

/// A server by hyper.
async fn serving<F, S>(answer: F) -> Server
where
    F: Fn(Request<Incoming>) -> S + Clone + Send + Sync + 'static,
    S: Future<Output = Response<Full<Bytes>>> + Send + 'static,
{
    Server::start(move |_, stream| {
        let answer = answer.clone();
        let service = service_fn(move |request| {
            let answer = answer(request);
            async move { Ok::<_, Infallible>(answer.await) }
        });
        async move {
            let _ = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                .max_concurrent_streams(1000)
                .serve_connection(TokioIo::new(stream), service)
                .await;
        }
    })
    .await
}

#[tokio::test]
async fn requests_and_replies_go_over_http2() {
    let server = serving(|request: Request<Incoming>| async move {
        let told = format!("{} {} {:?}", request.method(), request.uri(), request.headers().get(header::AUTHORIZATION));
        let body = request.into_body().collect().await.unwrap().to_bytes();
        Response::new(Full::new([told.as_bytes(), &body].concat().into()))
    })
    .await;
    let mut request = ask("hello");
    request.kind = batchsql::http::Kind::Plain;
    request.headers.push((header::AUTHORIZATION, "Bearer x".parse().unwrap()));
    request.headers.push((header::CONNECTION, "keep-alive".parse().unwrap()));
    let reply = soon(client(http2(&format!("{}/api", server.url))).exchange(&request)).await.unwrap();
    let expected = format!("POST {}/api/v1/chat/completions Some(\"Bearer x\")hello", server.url);
    assert_eq!(String::from_utf8(reply.body).unwrap(), expected);
    assert_eq!((reply.status, reply.bytes_sent, reply.bytes_received), (200, 5, expected.len() as u64));
    assert_eq!(reply.headers.get("Content-Length"), Some(expected.len().to_string().as_str()));
}

#[tokio::test]
async fn as_few_connections_as_will_do_carry_the_streams() {
    let together = Arc::new(Barrier::new(150));
    let server = serving(move |_| {
        let together = Arc::clone(&together);
        async move {
            together.wait().await;
            Response::new(Full::new(Bytes::from_static(b"hello")))
        }
    })
    .await;
    let client = client(http2(&server.url));
    let request = get("/");
    for _ in 0..2 {
        let replies = soon(futures::future::join_all((0..150).map(|_| client.exchange(&request)))).await;
        assert!(replies.into_iter().all(|reply| reply.unwrap().body == b"hello"));
        assert_eq!((server.accepted(), client.pool().active), (2, 0));
    }
    client.close().await;
}

#[tokio::test]
async fn streams_beyond_the_bound_wait() {
    let server = serving(|_| async { Response::new(Full::new(Bytes::from_static(b"hello"))) }).await;
    let settings = ClientSettings { max_per_host: Some(1), ..HttpProfile::Default.settings() };
    let client = client(Config { settings, ..http2(&server.url) });
    let request = get("/");
    let replies = soon(futures::future::join_all((0..400).map(|_| client.exchange(&request)))).await;
    assert!(replies.into_iter().all(|reply| reply.unwrap().body == b"hello"));
    assert_eq!((server.accepted(), client.pool().max), (1, 1));
}

#[tokio::test]
async fn a_stream_of_events_and_the_limits_hold_over_http2() {
    let server = serving(|request: Request<Incoming>| async move {
        let response = Response::builder();
        match request.uri().path() {
            "/v1/chat/completions" => {
                let events = format!("data: {}\n\ndata: {}\n\ndata: [DONE]\n\n", token("one"), token(" two"));
                response.header(header::CONTENT_TYPE, "text/event-stream").body(Full::new(events.into())).unwrap()
            }
            "/large" => response.body(Full::new(vec![b'x'; 2 << 20].into())).unwrap(),
            "/headers" => {
                let response = (0..10_000).fold(response, |response, number| response.header(format!("x-{number}"), "y"));
                response.body(Full::default()).unwrap()
            }
            "/few-large" => response.header("x", "y".repeat(70_000)).body(Full::default()).unwrap(),
            _ => std::future::pending().await,
        }
    })
    .await;
    let limits = ReplyLimits { body_bytes: 1 << 20, ..ReplyLimits::default() };
    let timeouts = ReplyTimeouts { total: AMPLE, first_token: AMPLE, between_tokens: AMPLE };
    let settings = ClientSettings { response_header_timeout: Some(SHORT), ..HttpProfile::Default.settings() };
    let client = client(Config { limits, timeouts, ..http2(&server.url) });
    let chat = soon(client.exchange(&ask("{}"))).await.unwrap().chat.unwrap();
    assert_eq!((chat.content.as_str(), chat.events, chat.done), ("one two", 2, true));
    for path in ["/large", "/headers", "/few-large"] {
        let failed = soon(client.exchange(&get(path))).await.unwrap_err();
        assert_failed(&failed, ErrorClass::TooLarge, Applied::Unknown);
    }
    soon(client.exchange(&ask("{}"))).await.unwrap();
    assert_eq!(server.accepted(), 1, "a stream's failure is not its connection's");
    let client = super::client(Config { settings, ..http2(&server.url) });
    let failed = soon(client.exchange(&get("/never"))).await.unwrap_err();
    assert_failed(&failed, ErrorClass::HeaderTimeout, Applied::Unknown);
}

const NO_ERROR: u32 = 0;
const INTERNAL_ERROR: u32 = 2;
const REFUSED_STREAM: u32 = 7;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

fn go_away(last: u32, reason: u32) -> Vec<u8> {
    frame(7, 0, 0, &[last.to_be_bytes(), reason.to_be_bytes()].concat())
}

/// `:status: 200`, with or without a body to come.
fn head(stream: u32, end: bool) -> Vec<u8> {
    frame(1, if end { 5 } else { 4 }, stream, &[0x88])
}

/// Speaks HTTP/2 up to the next request and gives its stream.
async fn next_stream(stream: &mut TcpStream, first: bool) -> std::io::Result<u32> {
    if first {
        stream.read_exact(&mut [0; 24]).await?;
        stream.write_all(&frame(4, 0, 0, &[])).await?;
    }
    loop {
        let mut header = [0; 9];
        stream.read_exact(&mut header).await?;
        let length = u32::from_be_bytes([0, header[0], header[1], header[2]]);
        stream.read_exact(&mut vec![0; length as usize]).await?;
        match (header[3], header[4]) {
            (4, 0) => stream.write_all(&frame(4, 1, 0, &[])).await?,
            (1, _) => return Ok(u32::from_be_bytes([header[5], header[6], header[7], header[8]])),
            _ => {}
        }
    }
}

#[tokio::test]
async fn what_a_server_says_of_a_stream_decides_whether_it_was_served() {
    let reset = |reason: u32| frame(3, 0, 1, &reason.to_be_bytes());
    let data = frame(0, 0, 1, b"half");
    let cases = [
        ("gone away before the stream", go_away(0, NO_ERROR), Applied::No, None),
        ("gone away in trouble before the stream", go_away(0, INTERNAL_ERROR), Applied::No, None),
        ("gone away after the stream", go_away(1, NO_ERROR), Applied::Unknown, None),
        ("gone away in trouble after the stream", go_away(1, INTERNAL_ERROR), Applied::Unknown, None),
        ("refused", reset(REFUSED_STREAM), Applied::No, None),
        ("reset", reset(INTERNAL_ERROR), Applied::Unknown, None),
        ("closed", Vec::new(), Applied::Unknown, None),
        ("closed in the midst of the body", [head(1, false), data.clone()].concat(), Applied::Unknown, Some("half")),
        ("reset in the midst of the body", [head(1, false), data, reset(REFUSED_STREAM)].concat(), Applied::Unknown, Some("half")),
    ];
    for (what, frames, applied, kept) in cases {
        let server = Server::start(move |_, mut stream| {
            let frames = frames.clone();
            async move {
                next_stream(&mut stream, true).await.unwrap();
                stream.write_all(&frames).await.unwrap();
                stream.shutdown().await.unwrap();
                let _ = tokio::io::copy(&mut stream, &mut tokio::io::sink()).await;
            }
        })
        .await;
        let failed = soon(client(http2(&server.url)).exchange(&get("/"))).await.unwrap_err();
        assert_eq!((failed.failure.class, failed.failure.applied), (ErrorClass::Connection, applied), "{what}: {}", failed.failure.message);
        assert_eq!(failed.partial.map(|reply| String::from_utf8(reply.body).unwrap()).as_deref(), kept, "{what}");
    }
}

#[tokio::test]
async fn a_connection_that_goes_away_after_its_answer_is_followed_by_another() {
    let server = Server::start(|_, mut stream| async move {
        let Ok(id) = next_stream(&mut stream, true).await else { return };
        stream.write_all(&[head(id, true), go_away(id, NO_ERROR)].concat()).await.unwrap();
        let _ = tokio::io::copy(&mut stream, &mut tokio::io::sink()).await;
    })
    .await;
    let client = client(http2(&server.url));
    for accepted in 1..10 {
        assert_eq!(soon(client.exchange(&get("/"))).await.unwrap().status, 200);
        assert_eq!(server.accepted(), accepted);
    }
}

#[tokio::test]
async fn a_server_that_speaks_something_else_is_told() {
    let server = Server::start(|_, mut stream| async move {
        stream.read_exact(&mut [0; 24]).await.unwrap();
        stream.write_all(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n").await.unwrap();
        let _ = tokio::io::copy(&mut stream, &mut tokio::io::sink()).await;
    })
    .await;
    let failed = soon(client(http2(&server.url)).exchange(&get("/"))).await.unwrap_err();
    assert_failed(&failed, ErrorClass::Protocol, Applied::Unknown);
}
