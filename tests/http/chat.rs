//! Chat answers and WebSocket sessions over the wire.

use batchsql::http::Kind;
use batchsql::scenario::http::{ReplyLimits, ReplyTimeouts};
use batchsql::target::{Applied, ErrorClass};
use futures::{SinkExt as _, StreamExt as _};
use tokio::io::AsyncWriteExt as _;
use tokio_tungstenite::tungstenite::Message;

use super::server::{Server, chunk, ok, request, stream, token};
use super::{AMPLE, SHORT, ask, assert_failed, client, config, get, soon};

#[tokio::test]
async fn an_answer_is_read_and_its_body_kept() {
    let body = r#"{"choices":[{"message":{"content":"hello"},"finish_reason":"stop"}],"usage":{"prompt_tokens":2,"completion_tokens":1}}"#;
    let server = Server::answering(ok("content-type: application/json\r\n", body)).await;
    let reply = soon(client(config(&server.url)).exchange(&ask("{}"))).await.unwrap();
    assert_eq!(reply.body, body.as_bytes());
    let chat = reply.chat.unwrap();
    assert_eq!((chat.content.as_str(), chat.usage, chat.streamed), ("hello", Some((2, 1)), false));
    assert_eq!(reply.headers.get("Content-Type"), Some("application/json"));
}

#[tokio::test]
async fn a_stream_is_read_wherever_it_is_cut() {
    let mut sent = stream(&[&token("one"), ": no comment", "{\"choices\":[]}", &token(" two"), "[DONE]"]);
    let not_json = memchr::memmem::find(&sent, b": no comment").unwrap();
    sent[not_json..not_json + 12].copy_from_slice(b"{\"choices\":0");
    let broken = Server::closing_after([sent, b"0\r\n\r\n".to_vec()].concat()).await;
    let failed = soon(client(config(&broken.url)).exchange(&ask("{}"))).await.unwrap_err();
    assert_failed(&failed, ErrorClass::Protocol, Applied::Unknown);
    assert_eq!(failed.partial.unwrap().chat.unwrap().content, "one", "invalid JSON ends it");

    let sent = [stream(&[&token("one"), "{\"choices\":[]}", &token(" two"), "[DONE]"]), b"0\r\n\r\n".to_vec()].concat();
    let server = Server::start(move |_, mut stream| {
        let sent = sent.clone();
        async move {
            stream.set_nodelay(true).unwrap();
            while !request(&mut stream).await.is_empty() {
                for piece in sent.chunks(3) {
                    stream.write_all(piece).await.unwrap();
                    tokio::task::yield_now().await;
                }
            }
        }
    })
    .await;
    let client = client(config(&server.url));
    for _ in 0..2 {
        let reply = soon(client.exchange(&ask("{}"))).await.unwrap();
        let chat = reply.chat.unwrap();
        assert_eq!((chat.content.as_str(), chat.events, chat.gaps.len(), chat.done), ("one two", 2, 1, true));
        assert!(reply.sent <= reply.first_byte && reply.first_byte <= chat.first_token.unwrap() && chat.first_token.unwrap() <= reply.done);
        assert!(reply.body.is_empty());
    }
    assert_eq!(server.accepted(), 1, "a stream that was read to its end leaves the connection");
}

#[tokio::test]
async fn a_cut_stream_is_unknown_and_a_short_one_is_a_reply() {
    let cut = Server::closing_after(stream(&[&token("one")])).await;
    let failed = soon(client(config(&cut.url)).exchange(&ask("{}"))).await.unwrap_err();
    assert_failed(&failed, ErrorClass::Connection, Applied::Unknown);
    assert_eq!(failed.partial.unwrap().chat.unwrap().content, "one");

    let short = Server::answering([stream(&[&token("one")]), b"0\r\n\r\n".to_vec()].concat()).await;
    let chat = soon(client(config(&short.url)).exchange(&ask("{}"))).await.unwrap().chat.unwrap();
    assert_eq!((chat.content.as_str(), chat.done), ("one", false));
}

#[tokio::test]
async fn events_that_are_wrong_have_a_class() {
    let page = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n".to_owned();
    let page = page + &chunk("<html>502</html>\n") + "0\r\n\r\n";
    let error = stream(&["{\"error\":{\"message\":\"overloaded\",\"type\":\"server_error\"}}"]);
    let large = stream(&[&token(&"x".repeat(5000))]);
    let binary = [&stream(&[])[..], b"9\r\ndata: \xff\n\n\r\n"].concat();
    let cases = [
        (page.into_bytes(), ErrorClass::Protocol, "the reply says it is text/event-stream"),
        (stream(&["no json"]), ErrorClass::Protocol, "an event of the stream is no JSON object: \"no json\""),
        (binary, ErrorClass::Protocol, "an event of the stream is no JSON object"),
        (error, ErrorClass::Status, "an event of the stream tells of an error: overloaded"),
        (large, ErrorClass::TooLarge, "a line of the stream is larger than 4096 bytes"),
    ];
    for (answer, class, message) in cases {
        let server = Server::closing_after(answer).await;
        let limits = ReplyLimits { event_bytes: 4096, ..ReplyLimits::default() };
        let failed = soon(client(super::Config { limits, ..config(&server.url) }).exchange(&ask("{}"))).await.unwrap_err();
        assert_failed(&failed, class, Applied::Unknown);
        assert!(failed.failure.message.starts_with(message), "{}", failed.failure.message);
    }
}

#[tokio::test]
async fn an_error_answer_is_a_reply_and_not_parsed() {
    for kind in ["application/json", "text/event-stream"] {
        let answer = format!("HTTP/1.1 503 Service Unavailable\r\ncontent-type: {kind}\r\ncontent-length: 4\r\n\r\nbusy");
        let server = Server::answering(answer).await;
        let reply = soon(client(config(&server.url)).exchange(&ask("{}"))).await.unwrap();
        assert_eq!((reply.status, reply.body.as_slice(), reply.chat), (503, &b"busy"[..], None));
    }
}

fn talk(messages: &[&str]) -> batchsql::http::Request {
    let mut request = get("/ws");
    request.headers.push((http::header::AUTHORIZATION, "Bearer x".parse().unwrap()));
    request.kind = Kind::Echo(messages.iter().map(|&message| message.to_owned()).collect());
    request
}

/// A WebSocket server that sends each message back, up to `most`.
async fn echoing(most: usize) -> Server {
    Server::start(move |_, stream| async move {
        let mut socket = tokio_tungstenite::accept_async(stream).await.unwrap();
        let mut echoed = 0;
        while echoed < most {
            match socket.next().await {
                Some(Ok(message @ Message::Text(_))) => {
                    socket.send(Message::Ping("between".into())).await.unwrap();
                    socket.send(message).await.unwrap();
                    echoed += 1;
                }
                Some(Ok(Message::Pong(_))) => {}
                _ => return,
            }
        }
        // Takes no further message back and does not close.
        while let Some(Ok(_)) = socket.next().await {}
    })
    .await
}

#[tokio::test]
async fn messages_come_back_over_a_websocket() {
    let server = echoing(5).await;
    let client = client(config(&server.url));
    let reply = soon(client.exchange(&talk(&["one", "two", "three"]))).await.unwrap();
    let chat = reply.chat.unwrap();
    assert_eq!((chat.content.as_str(), chat.events, chat.gaps.len(), chat.done), ("one\ntwo\nthree\n", 3, 3, true));
    assert_eq!((reply.status, reply.bytes_sent, reply.bytes_received), (101, 11, 11));
    assert!(reply.first_byte <= chat.first_token.unwrap() && chat.first_token.unwrap() <= reply.done);
    soon(client.exchange(&talk(&["four"]))).await.unwrap();
    assert_eq!(server.accepted(), 2, "a session has a connection of its own");
    assert_eq!(client.pool().active, 0);
}

#[tokio::test]
async fn trouble_of_a_websocket_has_a_class() {
    let server = echoing(1).await;
    let timeouts = ReplyTimeouts { total: SHORT, first_token: AMPLE, between_tokens: AMPLE };
    let failed = soon(client(super::Config { timeouts, ..config(&server.url) }).exchange(&talk(&["one", "two"]))).await.unwrap_err();
    assert_failed(&failed, ErrorClass::TotalTimeout, Applied::Unknown);
    assert_eq!(failed.partial.unwrap().chat.unwrap().content, "one\n");

    let limits = ReplyLimits { event_bytes: 64, ..ReplyLimits::default() };
    let large = "x".repeat(65);
    let failed = soon(client(super::Config { limits, ..config(&server.url) }).exchange(&talk(&[&large]))).await.unwrap_err();
    assert_failed(&failed, ErrorClass::TooLarge, Applied::Unknown);

    let server = Server::answering("HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\n\r\n").await;
    let reply = soon(client(config(&server.url)).exchange(&talk(&["one"]))).await.unwrap();
    assert_eq!((reply.status, reply.chat), (403, None), "who refuses has answered");

    let server = Server::start(|_, stream| async move { drop(tokio_tungstenite::accept_async(stream).await.unwrap()) }).await;
    let failed = soon(client(config(&server.url)).exchange(&talk(&["one"]))).await.unwrap_err();
    assert_failed(&failed, ErrorClass::Connection, Applied::Unknown);
}
