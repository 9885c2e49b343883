//! The mock model server as a client meets it: what goes over the wire, and what its ledger says of it.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use batchsql::proxy::running::Running;
use batchsql::proxy::upstream::config::{Config, Latency, Stalls};
use batchsql::proxy::upstream::ledger::{Ended, UpstreamRecord, read};
use batchsql::proxy::upstream::start;
use batchsql::scenario::units::{Share, Time};
use batchsql::workload::reply;
use futures::{SinkExt as _, StreamExt as _};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_tungstenite::tungstenite::Message;
use tokio_util::sync::CancellationToken;

const ANY: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0);

async fn upstream(config: Config) -> Running {
    start(config, ANY, CancellationToken::new()).await.unwrap()
}

fn with_ledger(folder: &Path) -> Config {
    Config { ledger: Some(folder.join("upstream.jsonl")), ..Config::default() }
}

fn records(config: &Config) -> Vec<UpstreamRecord> {
    read(config.ledger.as_ref().unwrap()).unwrap().map(Result::unwrap).collect()
}

/// Header and body of a reply as they came, to the end of the connection.
async fn exchange(address: SocketAddr, request: &str) -> (String, String) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut all = Vec::new();
    stream.read_to_end(&mut all).await.unwrap();
    let all = String::from_utf8(all).unwrap();
    let (head, body) = all.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no header in {all:?}"));
    (head.to_owned(), body.to_owned())
}

async fn post(address: SocketAddr, headers: &str, body: &str) -> (String, String) {
    let length = body.len();
    let head = format!("POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {length}\r\n{headers}\r\n");
    exchange(address, &(head + body)).await
}

async fn get(address: SocketAddr, path: &str) -> (String, String) {
    exchange(address, &format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")).await
}

fn ask(prompt: &str, more: Value) -> String {
    let mut body = json!({"model": "m", "messages": [{"role": "user", "content": prompt}]});
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    body.to_string()
}

async fn plain(address: SocketAddr, headers: &str, body: &str) -> Value {
    let (head, body) = post(address, headers, body).await;
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}\n{body}");
    serde_json::from_str(&body).unwrap()
}

fn said(reply: &Value) -> &str {
    reply["choices"][0]["message"]["content"].as_str().unwrap()
}

/// What stands in the chunks of a body, and whether the last chunk was there.
fn dechunk(mut body: &str) -> (String, bool) {
    let mut text = String::new();
    while let Some((size, rest)) = body.split_once("\r\n") {
        let size = usize::from_str_radix(size, 16).unwrap();
        if size == 0 {
            return (text, true);
        }
        text += &rest[..size];
        body = &rest[size + 2..];
    }
    (text, false)
}

/// The events' data.
fn events(stream: &str) -> Vec<&str> {
    stream.split_terminator("\n\n").map(|event| event.strip_prefix("data: ").unwrap()).collect()
}

/// The tokens that the events bring.
fn streamed(events: &[&str]) -> String {
    let parsed = events.iter().filter_map(|event| serde_json::from_str::<Value>(event).ok());
    parsed.filter_map(|event| event["choices"][0]["delta"]["content"].as_str().map(str::to_owned)).collect()
}

#[tokio::test]
async fn a_plain_reply_is_the_right_one_wherever_its_id_stands() {
    let folder = tempfile::tempdir().unwrap();
    let config = with_ledger(folder.path());
    let server = upstream(config.clone()).await;
    let id = |index| reply::request_id(9, index);
    let from_prompt = plain(server.address, "", &ask(&format!("one two {} four", id(1)), json!({"max_tokens": 5}))).await;
    assert_eq!(said(&from_prompt), reply::text(&id(1), 5));
    assert_eq!(from_prompt["usage"], json!({"prompt_tokens": 4, "completion_tokens": 5, "total_tokens": 9}));
    assert_eq!((&from_prompt["object"], &from_prompt["model"]), (&json!("chat.completion"), &json!("m")));
    let from_header = plain(server.address, &format!("x-request-id: {}\r\n", id(2)), &ask("hi", json!({"user": id(3)}))).await;
    assert_eq!(said(&from_header), reply::text(&id(2), reply::DEFAULT_TOKENS));
    let from_user = plain(server.address, "", &ask("hi", json!({"user": id(3), "max_completion_tokens": 2}))).await;
    assert_eq!(said(&from_user), reply::text(&id(3), 2));
    plain(server.address, "", &ask("hi", json!({"user": id(3)}))).await;
    server.stop().await;
    let told: Vec<_> = records(&config).into_iter().map(|r| (r.id, r.n, r.user, r.model, r.stream, r.status, r.tokens, r.ended)).collect();
    let line = |index, n, user: Option<u64>, tokens| (id(index), n, user.map(id), Some("m".to_owned()), false, 200, tokens, Ended::Whole);
    assert_eq!(told, [line(1, 1, None, 5), line(2, 1, Some(3), 32), line(3, 1, Some(3), 2), line(3, 2, Some(3), 32)]);
    let again = upstream(config.clone()).await;
    plain(again.address, "", &ask("hi", json!({"user": id(3)}))).await;
    again.stop().await;
    assert_eq!(records(&config).last().unwrap().n, 3, "a ledger that is continued remembers");
}

#[tokio::test]
async fn a_stream_is_the_right_one_event_by_event() {
    let folder = tempfile::tempdir().unwrap();
    let config = with_ledger(folder.path());
    let server = upstream(config.clone()).await;
    let id = reply::request_id(9, 1);
    let more = json!({"max_tokens": 3, "stream": true, "stream_options": {"include_usage": true}});
    let (head, body) = post(server.address, "", &ask(&id, more)).await;
    assert!(head.contains("content-type: text/event-stream") && head.contains("transfer-encoding: chunked"), "{head}");
    let (text, whole) = dechunk(&body);
    assert!(whole, "{body}");
    let events = events(&text);
    assert_eq!(events.len(), 7, "role, 3 tokens, finish, usage, end: {events:#?}");
    let parsed: Vec<Value> = events[..6].iter().map(|event| serde_json::from_str(event).unwrap()).collect();
    assert_eq!(parsed[0]["choices"][0]["delta"], json!({"role": "assistant", "content": ""}));
    let tokens: Vec<&str> = parsed[1..4].iter().map(|event| event["choices"][0]["delta"]["content"].as_str().unwrap()).collect();
    assert_eq!(tokens, reply::tokens(&id, 3).collect::<Vec<_>>());
    assert_eq!(parsed[4]["choices"], json!([{"index": 0, "delta": {}, "finish_reason": "stop"}]));
    assert_eq!(parsed[5]["usage"], json!({"prompt_tokens": 1, "completion_tokens": 3, "total_tokens": 4}));
    assert_eq!(events[6], "[DONE]");
    // Whoever has the whole reply finds its line, without the server having to end first.
    let [record] = &records(&config)[..] else { panic!("one line") };
    assert_eq!((record.stream, record.tokens, record.ended), (true, 3, Ended::Whole));
    server.stop().await;
}

#[tokio::test]
async fn other_paths_and_bad_requests_are_told() {
    let folder = tempfile::tempdir().unwrap();
    let config = with_ledger(folder.path());
    let server = upstream(config.clone()).await;
    assert_eq!(get(server.address, "/health").await.1, r#"{"status":"ok"}"#);
    let models: Value = serde_json::from_str(&get(server.address, "/v1/models").await.1).unwrap();
    assert_eq!(models["data"][0]["object"], "model");
    assert!(get(server.address, "/v2").await.0.starts_with("HTTP/1.1 404"));
    assert!(get(server.address, "/v1/realtime").await.0.starts_with("HTTP/1.1 400"));
    let (head, body) = post(server.address, "x-request-id: bq-00000009-1\r\n", "{").await;
    assert!(head.starts_with("HTTP/1.1 400"), "{head}");
    let error: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(error["error"]["type"], "invalid_request_error");
    let (head, _) =
        exchange(server.address, "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: 99999999\r\n\r\n")
            .await;
    assert!(head.starts_with("HTTP/1.1 413"), "{head}");
    server.stop().await;
    let told: Vec<_> = records(&config).into_iter().map(|r| (r.path, r.id, r.status, r.ended)).collect();
    let line = |path: &str, id: &str, status| (path.to_owned(), id.to_owned(), status, Ended::Error);
    let (chat, fixed) = ("/v1/chat/completions", "bq-00000000-0");
    assert_eq!(told, [line("/v2", fixed, 404), line("/v1/realtime", fixed, 400), line(chat, "bq-00000009-1", 400), line(chat, fixed, 413)]);
}

/// How each of 2,000 requests ended, and how many tokens it got; every second one is a stream.
async fn fates(config: Config) -> BTreeMap<String, (Ended, u32)> {
    let server = upstream(config.clone()).await;
    for index in 0..2000 {
        let body = ask(&reply::request_id(9, index), json!({"stream": index % 2 == 0, "max_tokens": 4}));
        post(server.address, "", &body).await;
    }
    server.stop().await;
    let fates: BTreeMap<_, _> = records(&config).into_iter().map(|r| (r.id, (r.ended, r.tokens))).collect();
    assert_eq!(fates.len(), 2000);
    fates
}

#[tokio::test]
async fn errors_and_cuts_are_as_frequent_as_asked_and_hit_the_same_requests_again() {
    let folder = tempfile::tempdir().unwrap();
    let config =
        |name| Config { seed: 3, errors: Share(0.1), cuts: Share(0.1), ledger: Some(folder.path().join(name)), ..Config::default() };
    let first = fates(config("first")).await;
    let count = |ended| first.values().filter(|(e, _)| *e == ended).count();
    // Five standard deviations; of what does not fail, a tenth is cut.
    assert!(count(Ended::Error).abs_diff(200) < 68, "{}", count(Ended::Error));
    assert!(count(Ended::Cut).abs_diff(180) < 64, "{}", count(Ended::Cut));
    assert_eq!(count(Ended::Whole), 2000 - count(Ended::Error) - count(Ended::Cut));
    assert_eq!(first, fates(config("second")).await);
    assert_ne!(first, fates(Config { seed: 4, ..config("third") }).await);
}

#[tokio::test]
async fn a_cut_reply_is_a_right_beginning_without_an_end() {
    let folder = tempfile::tempdir().unwrap();
    let config = Config { cuts: Share(1.0), ..with_ledger(folder.path()) };
    let server = upstream(config.clone()).await;
    for index in 0..20 {
        let id = reply::request_id(9, index);
        let (head, body) = post(server.address, "", &ask(&id, json!({"max_tokens": 8, "stream": true}))).await;
        assert!(head.starts_with("HTTP/1.1 200"), "{head}");
        let (text, whole) = dechunk(&body);
        assert!(!whole && !text.contains("[DONE]"), "{body}");
        let sent = records(&config).last().unwrap().clone();
        assert_eq!((sent.id.as_str(), sent.ended), (id.as_str(), Ended::Cut));
        assert!((1..=8).contains(&sent.tokens));
        assert_eq!(streamed(&events(&text)), reply::text(&id, sent.tokens));
    }
    let (head, body) = post(server.address, "", &ask("bq-00000009-99", json!({}))).await;
    let length: usize = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap().parse().unwrap();
    assert_eq!(body.len(), length / 2, "half of what was announced");
    assert_eq!(records(&config).last().unwrap().ended, Ended::Cut);
    server.stop().await;
}

#[tokio::test]
async fn replies_take_the_time_asked_for() {
    let latency = Some(Latency { median: Time::millis(30), p99: Some(Time::millis(90)) });
    let server = upstream(Config { latency, ..Config::default() }).await;
    let mut requests = JoinSet::new();
    for index in 0..101 {
        let (address, body) = (server.address, ask(&reply::request_id(9, index), json!({"max_tokens": 1})));
        requests.spawn(async move {
            let begin = Instant::now();
            plain(address, "", &body).await;
            begin.elapsed()
        });
    }
    let mut times = requests.join_all().await;
    times.sort();
    assert!((22..120).contains(&times[50].as_millis()), "{:?}", times[50]);
    assert!(times[100] > times[50], "they differ");
    server.stop().await;
    let stalls = Some(Stalls { share: Share(1.0), length: Time::millis(150) });
    let server = upstream(Config { stalls, token_interval: Time::millis(20), ..Config::default() }).await;
    let begin = Instant::now();
    let (_, body) = post(server.address, "", &ask("bq-00000009-1", json!({"max_tokens": 6, "stream": true}))).await;
    let (text, whole) = dechunk(&body);
    assert!(whole && streamed(&events(&text)) == reply::text("bq-00000009-1", 6));
    // Five intervals and the stall.
    assert!(begin.elapsed() >= Duration::from_millis(250), "{:?}", begin.elapsed());
    let begin = Instant::now();
    plain(server.address, "", &ask("bq-00000009-1", json!({}))).await;
    assert!(begin.elapsed() >= Duration::from_millis(150), "{:?}", begin.elapsed());
    server.stop().await;
}

#[tokio::test]
async fn a_client_that_leaves_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let config = Config { token_interval: Time::secs(60), ..with_ledger(folder.path()) };
    let server = upstream(config.clone()).await;
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    let body = ask("bq-00000009-1", json!({"stream": true}));
    let head = format!("POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n", body.len());
    stream.write_all((head + &body).as_bytes()).await.unwrap();
    let mut received = String::new();
    while !received.contains("bq-00000009-1\"}") {
        let mut bytes = [0; 4096];
        let count = stream.read(&mut bytes).await.unwrap();
        assert!(count > 0, "ended after {received}");
        received += std::str::from_utf8(&bytes[..count]).unwrap();
    }
    drop(stream);
    let begin = Instant::now();
    while records(&config).is_empty() {
        assert!(begin.elapsed() < Duration::from_secs(20), "nothing was told");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let [record] = &records(&config)[..] else { panic!("one line") };
    assert_eq!((record.tokens, record.ended), (1, Ended::Gone));
    server.stop().await;
}

#[tokio::test]
async fn stopping_lets_a_slow_stream_end_whole() {
    let server = upstream(Config { token_interval: Time::secs(60), ..Config::default() }).await;
    let address = server.address;
    let body = ask("bq-00000009-1", json!({"stream": true, "max_tokens": 4}));
    let mut stream = TcpStream::connect(address).await.unwrap();
    let head = format!("POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n", body.len());
    stream.write_all((head + &body).as_bytes()).await.unwrap();
    let mut first = [0];
    stream.read_exact(&mut first).await.unwrap();
    server.stop().await;
    let mut rest = String::new();
    stream.read_to_string(&mut rest).await.unwrap();
    let (text, whole) = dechunk(rest.split_once("\r\n\r\n").unwrap().1);
    assert!(whole, "{rest}");
    assert_eq!(streamed(&events(&text)), reply::text("bq-00000009-1", 4));
    assert!(TcpStream::connect(address).await.is_err(), "nobody listens any more");
}

#[tokio::test]
async fn websocket_messages_come_back() {
    let folder = tempfile::tempdir().unwrap();
    let config = with_ledger(folder.path());
    let server = upstream(config.clone()).await;
    let stream = TcpStream::connect(server.address).await.unwrap();
    let (mut socket, response) = tokio_tungstenite::client_async(format!("ws://{}/v1/realtime", server.address), stream).await.unwrap();
    assert_eq!(response.status(), 101);
    for message in [Message::text("bq-00000009-1 hello"), Message::binary(vec![0u8, 255, 7]), Message::text("bq-00000009-1 hello")] {
        socket.send(message.clone()).await.unwrap();
        assert_eq!(socket.next().await.unwrap().unwrap(), message);
    }
    let stopping = tokio::spawn(server.stop());
    assert!(matches!(socket.next().await.unwrap().unwrap(), Message::Close(Some(_))), "stopping says so");
    drop(socket);
    stopping.await.unwrap();
    let told: Vec<_> = records(&config).into_iter().map(|r| (r.id, r.n, r.path, r.status, r.ended)).collect();
    let line = |id: &str, n| (id.to_owned(), n, "/v1/realtime".to_owned(), 101, Ended::Whole);
    assert_eq!(told, [line("bq-00000009-1", 1), line("bq-00000000-0", 1), line("bq-00000009-1", 2)]);
}

#[test]
fn the_command_says_where_it_listens_and_ends_on_a_signal() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("upstream.yaml"), "ledger: sub/upstream.jsonl\n").unwrap();
    let command = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_batchsql"));
        command.arg("upstream").args(arguments).current_dir(folder.path()).stdin(Stdio::null());
        command
    };
    let arguments = ["--listen", "127.0.0.1:0", "--config", "upstream.yaml"];
    let mut child = command(&arguments).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let address = line.trim().strip_prefix("upstream listens on http://").unwrap_or_else(|| panic!("{line}"));
    assert!(folder.path().join("sub/upstream.jsonl").is_file());
    let second = command(&["--listen", address]).output().unwrap();
    let error = String::from_utf8(second.stderr).unwrap();
    assert_eq!(second.status.code(), Some(2));
    assert_eq!(
        error.trim(),
        format!("batchsql: upstream: {address} is in use; end what listens there, or choose another address with --listen")
    );
    kill(Pid::from_raw(child.id().try_into().unwrap()), Signal::SIGTERM).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
    std::fs::write(folder.path().join("upstream.yaml"), "latencies: 1s\n").unwrap();
    let refused = command(&arguments).output().unwrap();
    assert_eq!(refused.status.code(), Some(2));
    let error = String::from_utf8(refused.stderr).unwrap();
    assert!(error.starts_with("batchsql: upstream.yaml: unknown field `latencies`, expected one of"), "{error}");
}
