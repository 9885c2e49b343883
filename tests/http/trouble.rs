//! Whatever a server does wrong ends as a class of its own, with bounded memory.

use std::io::Write as _;
use std::sync::{Arc, Mutex};

use batchsql::scenario::http::{ClientSettings, HttpProfile, ReplyLimits, ReplyTimeouts};
use batchsql::target::{Applied, ErrorClass};
use flate2::Compression;
use flate2::write::GzEncoder;
use http::{Method, header};
use tokio::io::AsyncWriteExt as _;

use super::server::{Server, chunk, ok, request, stream, token};
use super::{AMPLE, SHORT, ask, assert_failed, client, config, get, soon};

#[tokio::test]
async fn a_server_that_refuses_got_nothing() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let failed = soon(client(config(&url)).exchange(&get("/"))).await.unwrap_err();
    assert_failed(&failed, ErrorClass::Connection, Applied::No);
    assert!(failed.failure.message.starts_with("cannot connect to 127.0.0.1:"), "{}", failed.failure.message);
    assert!(failed.sent.is_none() && failed.partial.is_none());
}

#[tokio::test]
async fn a_server_that_does_not_take_the_connection_is_timed_out() {
    // A backlog that is full: the kernel answers no further handshake.
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener = socket.listen(0).unwrap();
    let address = listener.local_addr().unwrap();
    let mut held = Vec::new();
    while let Ok(connection) = tokio::time::timeout(SHORT.0, tokio::net::TcpStream::connect(address)).await {
        held.push(connection.unwrap());
    }
    let settings = ClientSettings { connect_timeout: SHORT, ..HttpProfile::Default.settings() };
    let client = client(super::Config { settings, ..config(&format!("http://{address}")) });
    let failed = soon(client.exchange(&get("/"))).await.unwrap_err();
    assert_failed(&failed, ErrorClass::ConnectTimeout, Applied::No);
    assert!(failed.failure.message.ends_with("within 100ms (target.http.client.connect_timeout)"), "{}", failed.failure.message);
}

#[tokio::test]
async fn a_cut_answer_is_unknown_and_keeps_what_came() {
    let cases: [(&str, Option<&str>); 5] = [
        ("", None),
        ("HTTP/1.1 200 OK\r\ncontent-le", None),
        ("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf", Some("half")),
        ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nhalf\r\n", Some("half")),
        ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nwhol\r\n0\r\n", Some("whol")),
    ];
    for (answer, kept) in cases {
        let server = Server::closing_after(answer).await;
        let failed = soon(client(config(&server.url)).exchange(&get("/"))).await.unwrap_err();
        assert_failed(&failed, ErrorClass::Connection, Applied::Unknown);
        let body = failed.partial.map(|reply| String::from_utf8(reply.body).unwrap());
        assert_eq!(body.as_deref(), kept, "{answer:?}");
    }
}

#[tokio::test]
async fn what_is_no_http_is_told() {
    for answer in ["SSH-2.0-OpenSSH\r\n", "HTTP/1.1 200 OK\r\nno colon\r\n\r\n", "HTTP/1.1 101 Switching Protocols\r\n\r\n"] {
        let server = Server::closing_after(answer).await;
        let failed = soon(client(config(&server.url)).exchange(&get("/"))).await.unwrap_err();
        assert_failed(&failed, ErrorClass::Protocol, Applied::Unknown);
    }
}

#[tokio::test]
async fn a_gigabyte_is_not_taken_in() {
    let limits = ReplyLimits { body_bytes: 1 << 20, ..ReplyLimits::default() };
    for head in ["content-length: 1073741824", "transfer-encoding: chunked", "connection: close"] {
        let server = Server::start(move |_, mut stream| async move {
            request(&mut stream).await;
            let head = format!("HTTP/1.1 200 OK\r\n{head}\r\n\r\n");
            stream.write_all(head.as_bytes()).await.unwrap();
            let piece = chunk(&"x".repeat(65_536));
            for _ in 0..16_384 {
                if stream.write_all(piece.as_bytes()).await.is_err() {
                    return;
                }
            }
        })
        .await;
        let failed = soon(client(super::Config { limits, ..config(&server.url) }).exchange(&get("/"))).await.unwrap_err();
        assert_failed(&failed, ErrorClass::TooLarge, Applied::Unknown);
        let reply = failed.partial.unwrap();
        assert!(reply.body.len() <= 1 << 20 && reply.body.capacity() <= 2 << 20, "{head}: {}", reply.body.capacity());
        assert!(reply.bytes_received <= (1 << 20) + 65_536, "{head}: {}", reply.bytes_received);
    }
}

#[tokio::test]
async fn ten_thousand_headers_are_too_many() {
    for header in ["a: b\r\n", "a-longer-name: and a longer value\r\n"] {
        let server = Server::closing_after(format!("HTTP/1.1 200 OK\r\n{}\r\n", header.repeat(10_000))).await;
        let failed = soon(client(config(&server.url)).exchange(&get("/"))).await.unwrap_err();
        assert_failed(&failed, ErrorClass::TooLarge, Applied::Unknown);
    }
    let server = Server::closing_after(format!("HTTP/1.1 200 OK\r\na: {}\r\n\r\n", "x".repeat(1 << 20))).await;
    let failed = soon(client(config(&server.url)).exchange(&get("/"))).await.unwrap_err();
    assert_failed(&failed, ErrorClass::TooLarge, Applied::Unknown);
    assert!(failed.failure.message.contains("target.http.limits.header_bytes"), "{}", failed.failure.message);
}

#[tokio::test]
async fn a_decompression_bomb_does_not_go_off() {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    for _ in 0..256 {
        encoder.write_all(&vec![0; 1 << 20]).unwrap();
    }
    let bomb = encoder.finish().unwrap();
    let server = Server::answering(ok("content-encoding: gzip\r\n", &bomb)).await;
    let limits = ReplyLimits { body_bytes: 1 << 20, ..ReplyLimits::default() };
    let failed = soon(client(super::Config { limits, ..config(&server.url) }).exchange(&get("/"))).await.unwrap_err();
    assert_failed(&failed, ErrorClass::TooLarge, Applied::Unknown);
    let reply = failed.partial.unwrap();
    assert!(reply.body.len() <= 1 << 20 && reply.bytes_received < bomb.len() as u64, "{} bytes", reply.body.len());
}

#[tokio::test]
async fn a_compressed_reply_is_decompressed_and_an_unknown_compression_told() {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(b"some text").unwrap();
    let server = Server::answering(ok("Content-Encoding: gzip\r\n", encoder.finish().unwrap())).await;
    assert_eq!(soon(client(config(&server.url)).exchange(&get("/"))).await.unwrap().body, b"some text");
    let server = Server::answering(ok("content-encoding: br\r\n", "?")).await;
    let failed = soon(client(config(&server.url)).exchange(&get("/"))).await.unwrap_err();
    assert_failed(&failed, ErrorClass::Protocol, Applied::Unknown);
}

#[tokio::test]
async fn each_wait_has_its_own_class() {
    let short = |change: fn(&mut ReplyTimeouts)| {
        let mut timeouts = ReplyTimeouts { first_token: AMPLE, between_tokens: AMPLE, total: AMPLE };
        change(&mut timeouts);
        timeouts
    };
    let role = "{\"choices\":[{\"delta\":{\"role\":\"assistant\",\"content\":\"\"}}]}";
    let a = token("a");
    let cases = [
        (stream(&[role]), short(|t| t.first_token = SHORT), ErrorClass::FirstTokenTimeout, Some("")),
        (Vec::new(), short(|t| t.first_token = SHORT), ErrorClass::FirstTokenTimeout, None),
        (stream(&[&a]), short(|t| t.between_tokens = SHORT), ErrorClass::TokenGapTimeout, Some("a")),
        (stream(&[&a, "[DONE]"]), short(|t| t.total = SHORT), ErrorClass::TotalTimeout, Some("a")),
        (Vec::new(), short(|t| t.total = SHORT), ErrorClass::TotalTimeout, None),
    ];
    for (answer, timeouts, class, content) in cases {
        let server = Server::stalling_after(answer).await;
        let client = client(super::Config { timeouts, ..config(&server.url) });
        let failed = soon(client.exchange(&ask("{\"stream\":true}"))).await.unwrap_err();
        assert_failed(&failed, class, Applied::Unknown);
        assert_eq!(failed.partial.map(|reply| reply.chat.unwrap().content).as_deref(), content, "{class:?}");
        assert!(failed.sent.unwrap().elapsed() >= SHORT.0);
    }
    let server = Server::stalling_after("HTTP/1.1 200 OK\r\n").await;
    let settings = ClientSettings { response_header_timeout: Some(SHORT), ..HttpProfile::Default.settings() };
    let failed = soon(client(super::Config { settings, ..config(&server.url) }).exchange(&get("/"))).await.unwrap_err();
    assert_failed(&failed, ErrorClass::HeaderTimeout, Applied::Unknown);
    assert!(failed.failure.message.ends_with("within 100ms (target.http.client.response_header_timeout)"), "{}", failed.failure.message);
}

#[tokio::test]
async fn a_stream_without_an_end_ends_with_the_total_limit() {
    let server = Server::start(|_, mut stream| async move {
        request(&mut stream).await;
        let mut answer = super::server::stream(&[&token("x")]);
        while stream.write_all(&answer).await.is_ok() {
            answer = chunk(&format!("data: {}\n\n", token(" y"))).into_bytes();
            tokio::task::yield_now().await;
        }
    })
    .await;
    let timeouts = ReplyTimeouts { total: SHORT, first_token: AMPLE, between_tokens: AMPLE };
    let failed = soon(client(super::Config { timeouts, ..config(&server.url) }).exchange(&ask("{}"))).await.unwrap_err();
    assert_failed(&failed, ErrorClass::TotalTimeout, Applied::Unknown);
    let chat = failed.partial.unwrap().chat.unwrap();
    assert!(chat.content.starts_with("x y") && !chat.done);
    assert_eq!(chat.gaps.len() as u64, chat.events - 1);
}

#[tokio::test]
async fn a_redirect_to_another_host_is_not_followed_and_tells_no_secret() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let other = Server::start({
        let seen = Arc::clone(&seen);
        move |_, mut stream| {
            let seen = Arc::clone(&seen);
            async move {
                let request = request(&mut stream).await;
                seen.lock().unwrap().push(request);
            }
        }
    })
    .await;
    let server = Server::answering(format!("HTTP/1.1 302 Found\r\nlocation: {}/\r\ncontent-length: 0\r\n\r\n", other.url)).await;
    let limits = ReplyLimits { redirects: 3, ..ReplyLimits::default() };
    let client = client(super::Config { limits, ..config(&server.url) });
    let mut request = get("/");
    request.headers.push((header::AUTHORIZATION, "Bearer secret".parse().unwrap()));
    request.headers.push((header::COOKIE, "a=secret".parse().unwrap()));
    let failed = soon(client.exchange(&request)).await.unwrap_err();
    assert_failed(&failed, ErrorClass::Redirect, Applied::Unknown);
    assert_eq!(failed.failure.message, format!("the reply redirects to another host, \"{}/\"", other.url));
    assert_eq!(failed.partial.unwrap().status, 302);
    assert_eq!((other.accepted(), seen.lock().unwrap().len()), (0, 0), "nothing reaches the other host");
    assert!(!failed.failure.message.contains("secret"));
}

#[tokio::test]
async fn redirects_on_the_same_host_are_followed_up_to_the_limit() {
    let server = Server::start(|_, mut stream| async move {
        loop {
            let request = request(&mut stream).await;
            let answer = match request.split(' ').nth(1) {
                None => return,
                Some("/api/a") => "HTTP/1.1 302 Found\r\nlocation: b?x=1\r\ncontent-length: 3\r\n\r\nsee".to_owned(),
                Some("/api/b?x=1") => "HTTP/1.1 308 Permanent Redirect\r\nlocation: /c\r\ncontent-length: 0\r\n\r\n".to_owned(),
                Some("/loop") => "HTTP/1.1 301 Moved\r\nlocation: /loop\r\ncontent-length: 0\r\n\r\n".to_owned(),
                Some(_) => String::from_utf8(ok("", request.replace("\r\n", "|"))).unwrap(),
            };
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
    })
    .await;
    let allowing = |redirects| super::Config {
        limits: ReplyLimits { redirects, ..ReplyLimits::default() },
        ..config(&format!("{}/api/", server.url))
    };
    let mut request = ask("{}");
    request.target = "/a".to_owned();
    request.kind = batchsql::http::Kind::Plain;
    request.headers.push((header::AUTHORIZATION, "Bearer x".parse().unwrap()));
    request.headers.push((header::CONTENT_TYPE, "application/json".parse().unwrap()));
    let reply = soon(client(allowing(2)).exchange(&request)).await.unwrap();
    let seen = String::from_utf8(reply.body).unwrap();
    assert_eq!(seen, format!("GET /c HTTP/1.1|host: {}|authorization: Bearer x||", server.authority), "a POST becomes a GET");
    assert_eq!(soon(client(allowing(0)).exchange(&request)).await.unwrap().status, 302, "where none is followed it is the reply");
    let failed = soon(client(allowing(1)).exchange(&request)).await.unwrap_err();
    assert_failed(&failed, ErrorClass::Redirect, Applied::Unknown);
    assert!(failed.failure.message.contains("more than 1 times (target.http.limits.redirects)"), "{}", failed.failure.message);
    let endless = super::Config { limits: ReplyLimits { redirects: 20, ..ReplyLimits::default() }, ..config(&server.url) };
    let failed = soon(client(endless).exchange(&get("/loop"))).await.unwrap_err();
    assert_failed(&failed, ErrorClass::Redirect, Applied::Unknown);
}

#[tokio::test]
async fn an_answer_before_the_whole_request_was_taken_is_a_reply() {
    let server = Server::start(|_, mut stream| async move {
        use tokio::io::AsyncReadExt as _;
        let mut head = [0; 1024];
        stream.read_exact(&mut head).await.unwrap();
        stream.write_all(b"HTTP/1.1 413 Payload Too Large\r\ncontent-length: 0\r\n\r\n").await.unwrap();
        stream.shutdown().await.unwrap();
        tokio::io::copy(&mut stream, &mut tokio::io::sink()).await.unwrap();
    })
    .await;
    let mut request = get("/");
    request.method = Method::POST;
    request.body = vec![b'x'; 8 << 20].into();
    assert_eq!(soon(client(config(&server.url)).exchange(&request)).await.unwrap().status, 413);
}

#[test]
fn urls_that_cannot_be_driven_are_refused() {
    let cases = [
        ("ftp://localhost", "target.http.url has the scheme \"ftp\""),
        ("http://user:pass@localhost", "target.http.url holds a user or a password"),
        ("http://user@localhost", "target.http.url holds a user or a password"),
        ("http://localhost/?key=secret", "target.http.url has a query"),
    ];
    for (url, message) in cases {
        let Err(error) = batchsql::http::Client::new(config(url)) else { panic!("{url} is refused") };
        assert!(error.to_string().starts_with(message), "{error}");
        assert!(!error.to_string().contains("pass@") && !error.to_string().contains("secret"), "{error}");
    }
}
