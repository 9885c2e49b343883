//! Connections are kept, shared and let go of as the settings say.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use batchsql::scenario::http::{ClientSettings, HttpProfile};
use batchsql::scenario::units::Time;
use batchsql::target::{Applied, ErrorClass};
use tokio::io::AsyncWriteExt as _;
use tokio::sync::Notify;

use super::server::{Server, chunk, ok, request};
use super::{SHORT, assert_failed, client, config, get, soon};

#[tokio::test]
async fn one_connection_carries_one_request_after_the_other() {
    let server = Server::answering(ok("", "hello")).await;
    let client = client(config(&server.url));
    for _ in 0..100 {
        let reply = soon(client.exchange(&get("/"))).await.unwrap();
        assert_eq!((reply.status, reply.body.as_slice()), (200, &b"hello"[..]));
        assert_eq!(reply.bytes_received, ok("", "hello").len() as u64);
        assert_eq!(reply.bytes_sent, format!("GET / HTTP/1.1\r\nhost: {}\r\n\r\n", server.authority).len() as u64);
        assert!(reply.sent <= reply.first_byte && reply.first_byte <= reply.done);
    }
    assert_eq!(server.accepted(), 1);
    client.close().await;
    soon(client.exchange(&get("/"))).await.unwrap();
    assert_eq!(server.accepted(), 2, "close() lets idle connections go");
}

#[tokio::test]
async fn every_framing_is_read_and_interim_answers_are_skipped() {
    let chunked = format!("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n{}{}0\r\n\r\n", chunk("hel"), chunk("lo"));
    let cases = [
        (String::from_utf8(ok("", "hello")).unwrap(), 1),
        (chunked, 1),
        (
            format!(
                "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n{}",
                String::from_utf8(ok("", "hello")).unwrap()
            ),
            1,
        ),
        (String::from_utf8(ok("connection: close\r\n", "hello")).unwrap(), 2),
        ("HTTP/1.0 200 OK\r\ncontent-length: 5\r\n\r\nhello".to_owned(), 2),
    ];
    for (answer, connections) in cases {
        let server = Server::answering(answer.clone()).await;
        let client = client(config(&server.url));
        for _ in 0..2 {
            assert_eq!(soon(client.exchange(&get("/"))).await.unwrap().body, b"hello", "{answer:?}");
        }
        assert_eq!(server.accepted(), connections, "{answer:?}");
    }
    let server = Server::closing_after("HTTP/1.1 200 OK\r\n\r\nhello").await;
    assert_eq!(soon(client(config(&server.url)).exchange(&get("/"))).await.unwrap().body, b"hello", "to the connection's end");
}

#[tokio::test]
async fn there_are_never_more_connections_than_allowed() {
    let (now, most, go) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)), Arc::new(Notify::new()));
    let server = Server::start({
        let (now, most, go) = (Arc::clone(&now), Arc::clone(&most), Arc::clone(&go));
        move |_, mut stream| {
            let (now, most, go) = (Arc::clone(&now), Arc::clone(&most), Arc::clone(&go));
            async move {
                while !request(&mut stream).await.is_empty() {
                    let running = now.fetch_add(1, Ordering::Relaxed) + 1;
                    most.fetch_max(running, Ordering::Relaxed);
                    if running == 3 {
                        go.notify_waiters();
                        go.notify_one();
                    }
                    if most.load(Ordering::Relaxed) < 3 {
                        go.notified().await;
                    }
                    now.fetch_sub(1, Ordering::Relaxed);
                    stream.write_all(&ok("", "hello")).await.unwrap();
                }
            }
        }
    })
    .await;
    let settings = ClientSettings { max_per_host: Some(3), ..HttpProfile::Default.settings() };
    let client = client(super::Config { settings, ..config(&server.url) });
    let request = get("/");
    let replies = soon(futures::future::join_all((0..50).map(|_| async {
        let reply = client.exchange(&request).await;
        assert!(client.pool().active <= 3 && client.pool().max == 3);
        reply
    })))
    .await;
    assert!(replies.iter().all(|reply| reply.as_ref().unwrap().status == 200));
    assert_eq!((server.accepted(), most.load(Ordering::Relaxed), client.pool().active), (3, 3, 0));
}

#[tokio::test]
async fn only_so_many_connections_stay_idle() {
    let server = Server::answering(ok("", "hello")).await;
    let settings = ClientSettings { max_idle_per_host: 2, ..HttpProfile::Default.settings() };
    let client = client(super::Config { settings, ..config(&server.url) });
    let request = get("/");
    for accepted in [8, 14] {
        let replies = soon(futures::future::join_all((0..8).map(|_| client.exchange(&request)))).await;
        assert!(replies.iter().all(Result::is_ok));
        assert_eq!(server.accepted(), accepted, "two of eight were kept");
    }
}

#[tokio::test]
async fn a_connection_that_was_idle_for_too_long_is_not_used() {
    let server = Server::answering(ok("", "hello")).await;
    let settings = ClientSettings { idle_timeout: Time::default(), ..HttpProfile::Default.settings() };
    let client = client(super::Config { settings, ..config(&server.url) });
    for accepted in 1..4 {
        soon(client.exchange(&get("/"))).await.unwrap();
        assert_eq!(server.accepted(), accepted);
    }
}

#[tokio::test]
async fn a_connection_that_the_server_closed_meanwhile_is_not_used() {
    let closed = Arc::new(Notify::new());
    let server = Server::start({
        let closed = Arc::clone(&closed);
        move |_, mut stream| {
            let closed = Arc::clone(&closed);
            async move {
                request(&mut stream).await;
                stream.write_all(&ok("", "hello")).await.unwrap();
                drop(stream);
                closed.notify_one();
            }
        }
    })
    .await;
    let client = client(config(&server.url));
    for accepted in 1..20 {
        assert_eq!(soon(client.exchange(&get("/"))).await.unwrap().status, 200);
        soon(closed.notified()).await;
        assert_eq!(server.accepted(), accepted);
    }
}

#[tokio::test]
async fn a_connection_closed_while_the_runtime_was_busy_elsewhere_is_not_used() {
    use std::io::{Read as _, Write as _};
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let client = client(config(&format!("http://{}", listener.local_addr().unwrap())));
    let (answered, close) = std::sync::mpsc::channel();
    let (closed, gone) = std::sync::mpsc::channel();
    let server = std::thread::spawn(move || {
        for _ in 0..2 {
            let (mut stream, _) = listener.accept().unwrap();
            assert_ne!(stream.read(&mut [0; 1024]).unwrap(), 0);
            stream.write_all(&ok("", "hello")).unwrap();
            close.recv().unwrap();
            drop(stream);
            closed.send(()).unwrap();
        }
    });
    let reply = soon(client.exchange(&get("/"))).await.unwrap();
    // Nothing is awaited here: no one has told the client of the close.
    answered.send(()).unwrap();
    gone.recv().unwrap();
    while reply.done.elapsed() < std::time::Duration::from_millis(2) {
        std::hint::spin_loop();
    }
    assert_eq!(soon(client.exchange(&get("/"))).await.unwrap().status, 200);
    answered.send(()).unwrap();
    server.join().unwrap();
}

#[tokio::test]
async fn an_answer_that_nobody_asked_for_is_nobodys() {
    let server = Server::start(|number, mut stream| async move {
        while !request(&mut stream).await.is_empty() {
            let mut answer = ok("", "hello");
            if number == 0 {
                answer.extend_from_slice(b"HTTP/1.1 500 Surprise\r\ncontent-length: 0\r\n\r\n");
            }
            stream.write_all(&answer).await.unwrap();
        }
    })
    .await;
    let client = client(config(&server.url));
    for _ in 0..3 {
        assert_eq!(soon(client.exchange(&get("/"))).await.unwrap().status, 200);
    }
    assert_eq!(server.accepted(), 2, "the connection with more on it than was asked for is dropped");
}

#[tokio::test]
async fn a_connection_whose_exchange_was_given_up_is_not_used_again() {
    let server = Server::stalling_after("HTTP/1.1 200 OK\r\n").await;
    let client = client(config(&server.url));
    for accepted in 1..3 {
        assert!(tokio::time::timeout(SHORT.0, client.exchange(&get("/"))).await.is_err());
        assert_eq!((server.accepted(), client.pool().active), (accepted, 0));
    }
}

#[tokio::test]
async fn paths_and_hosts_are_written_as_they_should() {
    let listener = tokio::net::TcpListener::bind("[::1]:0").await;
    let Ok(listener) = listener else { return };
    let address = listener.local_addr().unwrap();
    let served = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let seen = request(&mut stream).await;
        stream.write_all(&ok("", "hello")).await.unwrap();
        seen
    });
    soon(client(config(&format!("http://{address}/api/v2/"))).exchange(&get("/x?y=z"))).await.unwrap();
    assert_eq!(served.await.unwrap(), format!("GET /api/v2/x?y=z HTTP/1.1\r\nhost: {address}\r\n\r\n"));
    let failed = soon(client(config("http://127.0.0.1:1")).exchange(&get("/a b"))).await.unwrap_err();
    assert_failed(&failed, ErrorClass::Data, Applied::No);
}
