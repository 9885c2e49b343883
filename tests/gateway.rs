//! The reference gateway as its users meet it: right replies, right rows, and no reply that looks whole and is not.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

#[path = "common/mod.rs"]
mod common;
#[path = "gateway/model.rs"]
mod model;
#[path = "gateway/place.rs"]
mod place;
#[path = "gateway/program.rs"]
mod program;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use batchsql::workload::reply;
use futures::{SinkExt as _, StreamExt as _};
use http::StatusCode;
use serde_json::json;
use tokio_tungstenite::tungstenite::Message;

use model::Model;
use place::{Place, chat, get};

fn id(number: u64) -> String {
    reply::request_id(0x0bad_cafe, number)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reply_and_its_row_are_right_streaming_and_not() {
    for place in Place::on_each_database("right").await {
        let model = Model::start("a").await;
        let gateway = place.start(json!({"log": {"batch": {"enabled": false}}}), &[&model]).await;
        for (number, stream) in [(1, false), (2, true)] {
            let answer = chat(&gateway, "sk-alice", &id(number), "m1", 12, stream).await;
            assert_eq!((answer.status, answer.whole), (StatusCode::OK, true));
            assert_eq!(answer.text, reply::text(&id(number), 12));
            assert_eq!(answer.header("x-request-id"), id(number));
            let time = answer.header("x-response-time-ms");
            assert!(time.parse::<f64>().is_ok_and(|ms| ms > 0.0 && ms < 10_000.0), "{time}");
            assert_eq!(time.split_once('.').unwrap().1.len(), 2, "{time}");
            // The row was there before the reply had ended.
            let rows = place.rows().await;
            assert_eq!(rows.len() as u64, number);
            let row = &rows[number as usize - 1];
            assert_eq!((row.id, row.request_id.as_str(), row.stream, row.status), (number as i64, id(number).as_str(), stream, 200));
            assert_eq!((row.user_name.as_str(), row.channel.as_str(), row.model.as_str()), ("alice", "a", "m1"));
            assert_eq!((row.prompt_tokens, row.completion_tokens), (3, 12));
            assert!(row.duration_ms > 0.0 && row.duration_ms < 10_000.0);
        }
        assert_eq!(model.seen(), [id(1), id(2)], "each request reached the upstream once, under its own id");
        assert_eq!(model.authorizations(), ["Bearer up-key", "Bearer up-key"]);
        gateway.stop().await;
        // Started again, it goes on behind the largest id, and knows what was used.
        let gateway = place.start(json!({"log": {"batch": {"enabled": false}}}), &[&model]).await;
        chat(&gateway, "sk-alice", &id(3), "m1", 1, false).await;
        let ids: Vec<i64> = place.rows().await.iter().map(|row| row.id).collect();
        assert_eq!(ids, [1, 2, 3]);
        gateway.stop().await;
        assert_eq!(place.used("alice").await, 3 + 12 + 3 + 12 + 3 + 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn batches_are_written_to_the_last_row_when_it_stops() {
    for place in Place::on_each_database("batches").await {
        let model = Model::start("a").await;
        // No batch fills up or grows old by itself.
        let batch = json!({"log": {"batch": {"size": 10_000, "flush_interval": "1h"}}, "quota_updates": {"interval": "1h"}});
        let gateway = place.start(batch, &[&model]).await;
        let requests = (0..300).map(|number| {
            let gateway = &gateway;
            async move { chat(gateway, "sk-alice", &id(number), "m1", 3, number % 2 == 0).await }
        });
        let answers: Vec<_> = futures::stream::iter(requests).buffer_unordered(20).collect().await;
        assert!(answers.iter().all(|answer| answer.whole && answer.status == 200));
        let health = get(&gateway, "/health").await;
        assert_eq!((&health["log"]["pending"], &health["log"]["lost"]), (&json!(300), &json!(0)));
        assert_eq!(place.rows().await.len(), 0);
        gateway.stop().await;
        let mut logged: Vec<String> = place.rows().await.into_iter().map(|row| row.request_id).collect();
        logged.sort();
        let mut asked: Vec<String> = (0..300).map(id).collect();
        asked.sort();
        assert_eq!(logged, asked);
        assert_eq!(place.used("alice").await, 300 * (3 + 3));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_it_refuses_it_says_in_openais_form() {
    let place = Place::sqlite();
    let (model, slow) = (Model::start("a").await, Model::start("slow").await);
    let gone = Model::start("gone").await;
    gone.stop().await;
    let settings = json!({
        "log": {"batch": {"enabled": false}},
        "http": {"client": {"response_header_timeout": "200ms"}},
        "users": [{"name": "alice", "key": "sk-alice"}, {"name": "poor", "key": "sk-poor", "quota": 10}, {"name": "slow", "key": "sk-slow", "channels": ["slow"]}],
    });
    let gateway = place.start_with_models(settings, &[(&model, &["m1"]), (&slow, &["late"]), (&gone, &["gone"])]).await;
    let mut expected = Vec::new();
    for (key, name, status, code) in [
        ("", "m1", 401, "missing_api_key"),
        ("sk-nobody", "m1", 401, "invalid_api_key"),
        ("sk-alice", "unknown", 503, "no_channel"),
        ("sk-slow", "m1", 503, "no_channel"),
        ("sk-alice", "gone", 502, "upstream_failed"),
        ("sk-alice", "late", 504, "upstream_timeout"),
        ("sk-poor", "m1", 200, ""),
        ("sk-poor", "m1", 429, "insufficient_quota"),
    ] {
        let answer = chat(&gateway, key, &id(status), name, 20, false).await;
        assert_eq!(answer.status.as_u16(), status as u16, "{name}: {}", answer.body);
        if status != 200 {
            let error = &serde_json::from_str::<serde_json::Value>(&answer.body).unwrap()["error"];
            assert_eq!(error["code"], code);
            assert!(error["message"].as_str().is_some_and(|message| !message.contains("sk-")) && error["type"].is_string(), "{error}");
        }
        assert!(answer.headers.contains_key("x-response-time-ms") && answer.header("x-request-id") == id(status));
        expected.push((id(status), status as i64));
    }
    let rows: Vec<_> = place.rows().await.into_iter().map(|row| (row.request_id, row.status)).collect();
    assert_eq!(rows, expected);
    assert_eq!((model.seen().len(), slow.seen().len()), (1, 1), "nothing is tried again");
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reply_that_is_cut_stays_cut() {
    let place = Place::sqlite();
    let model = Model::start("a").await;
    let gateway = place.start(json!({"log": {"batch": {"enabled": false}}}), &[&model]).await;
    let stream = chat(&gateway, "sk-alice", &id(1), "cut", 10, true).await;
    assert_eq!((stream.status, stream.whole), (StatusCode::OK, false));
    // What was on its way when the connection ended may be gone with it.
    let right = reply::text(&id(1), 10);
    assert!(right.starts_with(&stream.text) && stream.text != right, "{:?}", stream.text);
    let plain = chat(&gateway, "sk-alice", &id(2), "cut", 10, false).await;
    assert_eq!(plain.status, StatusCode::BAD_GATEWAY, "{}", plain.body);
    let rows: Vec<_> = place.rows().await.into_iter().map(|row| (row.request_id, row.status, row.completion_tokens)).collect();
    assert_eq!(rows, [(id(1), 502, 5), (id(2), 502, 0)]);
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_chunk_passes_on_as_it_comes() {
    let place = Place::sqlite();
    let model = Model::start("a").await;
    let gateway = place.start(json!({}), &[&model]).await;
    // The model sends the second half only once it is told that the first has arrived.
    let mut answer = place::open(&gateway, "sk-alice", &id(1), "gated", 10).await;
    let mut text = String::new();
    while !text.contains(" 4-") {
        text.push_str(&answer.chunk().await.expect("the first half"));
    }
    assert!(!text.contains(" 5-"));
    model.go_on();
    while let Some(chunk) = answer.chunk().await {
        text.push_str(&chunk);
    }
    assert!(text.contains(" 9-") && text.ends_with("data: [DONE]\n\n"));
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_leaves_is_logged_too() {
    let place = Place::sqlite();
    let model = Model::start("a").await;
    let gateway = place.start(json!({}), &[&model]).await;
    let mut answer = place::open(&gateway, "sk-alice", &id(1), "gated", 10).await;
    answer.chunk().await.unwrap();
    drop(answer);
    place::until(async || get(&gateway, "/health").await["log"]["pending"] == 1).await;
    gateway.stop().await;
    let rows: Vec<_> = place.rows().await.into_iter().map(|row| (row.request_id, row.status)).collect();
    assert_eq!(rows, [(id(1), 499)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_requests_hold_the_weights() {
    let place = Place::sqlite();
    let (first, second) = (Model::start("a").await, Model::start("b").await);
    let gateway = place.start(json!({}), &[&first, &second]).await;
    let requests = (0..1000).map(|number| {
        let gateway = &gateway;
        async move { chat(gateway, "sk-alice", &id(number), "m1", 1, false).await.text == reply::text(&id(number), 1) }
    });
    let right: Vec<bool> = futures::stream::iter(requests).buffer_unordered(20).collect().await;
    assert!(right.iter().all(|right| *right));
    let (metrics, legacy) = (place::text(&gateway, "/metrics").await, get(&gateway, "/stats/legacy").await);
    assert!(metrics.lines().any(|line| line == "aiproxy_api_keys_total 1"), "{metrics}");
    assert!(metrics.lines().any(|line| line.starts_with("aiproxy_sqlite_wal_bytes ")), "{metrics}");
    assert_eq!(legacy["totals"]["requests"], 1000, "{legacy}");
    // `place` gives the first channel weight 1, the second 2 and so on.
    assert!((333..=334).contains(&first.seen().len()) && first.seen().len() + second.seen().len() == 1000);
    gateway.stop().await;
    let mut counts = BTreeMap::new();
    for row in place.rows().await {
        *counts.entry(row.channel).or_insert(0) += 1;
    }
    assert_eq!((counts["a"], counts["b"]), (first.seen().len(), second.seen().len()));
}

#[tokio::test(flavor = "multi_thread")]
async fn web_sockets_pass_through() {
    let place = Place::sqlite();
    let model = Model::start("a").await;
    let gateway = place.start(json!({"log": {"batch": {"enabled": false}}}), &[&model]).await;
    let request = http::Request::builder()
        .uri(format!("ws://{}/v1/realtime?model=m1", gateway.address))
        .header("host", gateway.address.to_string())
        .header("connection", "Upgrade")
        .header("upgrade", "websocket")
        .header("sec-websocket-version", "13")
        .header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==")
        .header("authorization", "Bearer sk-alice")
        .header("x-request-id", id(1));
    let stream = tokio::net::TcpStream::connect(gateway.address).await.unwrap();
    let (mut socket, reply) = tokio_tungstenite::client_async(request.body(()).unwrap(), stream).await.unwrap();
    assert!(reply.headers().contains_key("x-response-time-ms"));
    for text in ["one", "two"] {
        socket.send(Message::text(text)).await.unwrap();
        assert_eq!(socket.next().await.unwrap().unwrap(), Message::text(text));
    }
    socket.close(None).await.unwrap();
    while socket.next().await.is_some() {}
    drop(socket);
    gateway.stop().await;
    let rows: Vec<_> = place.rows().await.into_iter().map(|row| (row.request_id, row.status, row.model)).collect();
    assert_eq!(rows, [(id(1), 101, "m1".to_owned())]);
}

#[tokio::test(flavor = "multi_thread")]
async fn successes_are_left_out_of_the_log_on_demand_and_failures_are_not() {
    let place = Place::sqlite();
    let model = Model::start("a").await;
    let gateway =
        place.start(json!({"log": {"consume": false}, "cache": {"enabled": false}, "quota_updates": {"batched": false}}), &[&model]).await;
    assert!(chat(&gateway, "sk-alice", &id(1), "m1", 1, false).await.whole);
    assert_eq!(place.used("alice").await, 4, "quota is written with each request");
    chat(&gateway, "sk-nobody", &id(2), "m1", 1, false).await;
    gateway.stop().await;
    let rows: Vec<_> = place.rows().await.into_iter().map(|row| (row.request_id, row.status, row.user_name)).collect();
    assert_eq!(rows, [(id(2), 401, "-".to_owned())]);
}

#[tokio::test(flavor = "multi_thread")]
async fn running_requests_end_before_it_does() {
    let place = Place::sqlite();
    let model = Model::start("a").await;
    let gateway = place.start(json!({}), &[&model]).await;
    let address = gateway.address;
    let mut answer = place::open(&gateway, "sk-alice", &id(1), "gated", 10).await;
    let mut text = answer.chunk().await.unwrap();
    let stopping = tokio::spawn(gateway.stop());
    // It listens no more.
    place::until(async || tokio::net::TcpStream::connect(address).await.is_err()).await;
    assert!(!stopping.is_finished());
    model.go_on();
    while let Some(chunk) = answer.chunk().await {
        text.push_str(&chunk);
    }
    drop(answer);
    let began = Instant::now();
    stopping.await.unwrap();
    assert!(began.elapsed() < Duration::from_secs(10));
    assert!(text.ends_with("data: [DONE]\n\n"));
    assert_eq!(place.rows().await[0].status, 200);
    assert_eq!(place.wal_bytes(), 0, "the write-ahead log is written back");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reply_whose_row_cannot_be_committed_does_not_end_well() {
    let place = Place::sqlite();
    let model = Model::start("a").await;
    let gateway = place.start(json!({"log": {"batch": {"enabled": false}}}), &[&model]).await;
    place.execute("DROP TABLE request_logs");
    let plain = chat(&gateway, "sk-alice", &id(1), "m1", 3, false).await;
    assert_eq!(plain.status, StatusCode::INTERNAL_SERVER_ERROR);
    assert!(plain.body.contains("log_failed"), "{}", plain.body);
    let stream = chat(&gateway, "sk-alice", &id(2), "m1", 3, true).await;
    // Tokens that came in one chunk with the end are held with it.
    assert!(!stream.whole && reply::text(&id(2), 3).starts_with(&stream.text), "{}", stream.body);
    assert!(!stream.body.contains("[DONE]"), "{}", stream.body);
    let health = get(&gateway, "/health").await;
    assert_eq!((&health["status"], &health["log"]["lost"], &health["log"]["pending"]), (&json!("degraded"), &json!(2), &json!(0)));
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_of_somebody_elses_is_refused() {
    let place = Place::sqlite();
    place.execute("CREATE TABLE request_logs (id INTEGER PRIMARY KEY, url TEXT)");
    let model = Model::start("a").await;
    let error = place.try_start(json!({}), &[(&model, &[])]).await.err().unwrap();
    let error = format!("{error:#}");
    assert!(
        error.starts_with("log.database: table request_logs is not the gateway's: it must have the columns id, request_id, "),
        "{error}"
    );
    place.execute("INSERT INTO request_logs VALUES (1, 'kept')");
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_to_an_upstream_are_bounded_and_used_again() {
    let place = Place::sqlite();
    let model = Model::start("a").await;
    let client = json!({"max_per_host": 1, "response_header_timeout": "300ms"});
    let gateway = place.start(json!({"http": {"client": client}}), &[&model]).await;
    for number in 0..10 {
        assert!(chat(&gateway, "sk-alice", &id(number), "m1", 2, number % 2 == 0).await.whole);
    }
    assert_eq!(model.connections(), 1, "ten requests went over one connection");
    let mut held = place::open(&gateway, "sk-alice", &id(10), "gated", 4).await;
    held.chunk().await.unwrap();
    let refused = chat(&gateway, "sk-alice", &id(11), "m1", 2, false).await;
    assert!(refused.status == 503 && refused.body.contains("upstream_busy"), "{}", refused.body);
    model.go_on();
    while held.chunk().await.is_some() {}
    assert!(chat(&gateway, "sk-alice", &id(12), "m1", 2, false).await.whole);
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_reply_passes_through_and_a_large_request_is_refused() {
    let place = Place::sqlite();
    let model = Model::start("a").await;
    let gateway = place.start(json!({}), &[&model]).await;
    let answer = chat(&gateway, "sk-alice", &id(1), "m1", 300_000, false).await;
    assert!(answer.whole && answer.body.len() > 3 << 20 && answer.text == reply::text(&id(1), 300_000));
    let head = "POST /v1/chat/completions HTTP/1.1\r\nhost: gateway\r\nauthorization: Bearer sk-alice\r\ncontent-length: 33554433\r\n\r\n";
    let refused = place::raw(&gateway, head).await;
    assert!(refused.starts_with("HTTP/1.1 413 "), "{refused}");
    gateway.stop().await;
    let rows: Vec<_> = place.rows().await.into_iter().map(|row| (row.status, row.completion_tokens)).collect();
    assert_eq!(rows, [(200, 300_000), (413, 0)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_is_written_when_it_is_full_or_old() {
    for batch in [json!({"size": 10, "flush_interval": "1h"}), json!({"size": 10_000, "flush_interval": "50ms"})] {
        let place = Place::sqlite();
        let model = Model::start("a").await;
        let gateway = place.start(json!({"log": {"batch": batch}}), &[&model]).await;
        for number in 0..20 {
            assert!(chat(&gateway, "sk-alice", &id(number), "m1", 1, false).await.whole);
        }
        place::until(async || place.rows().await.len() == 20).await;
        place::until(async || get(&gateway, "/health").await["log"]["pending"] == 0).await;
        gateway.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn quota_is_counted_however_it_is_remembered_and_written() {
    for (cached, batched) in [(true, true), (true, false), (false, true), (false, false)] {
        let place = Place::sqlite();
        let model = Model::start("a").await;
        let settings = json!({
            "users": [{"name": "poor", "key": "sk-poor", "quota": 20}],
            "cache": {"enabled": cached},
            "quota_updates": {"batched": batched, "interval": "1h"},
        });
        let gateway = place.start(settings.clone(), &[&model]).await;
        let mut statuses = Vec::new();
        for number in 0..4 {
            statuses.push(chat(&gateway, "sk-poor", &id(number), "m1", 7, true).await.status.as_u16());
        }
        assert_eq!(statuses, [200, 200, 429, 429], "10 tokens each; cached {cached}, batched {batched}");
        gateway.stop().await;
        assert_eq!(place.used("poor").await, 20);
        // What was used outlives the gateway, and a larger quota opens it again.
        let mut more = settings;
        let gateway = place.start(more.clone(), &[&model]).await;
        assert_eq!(chat(&gateway, "sk-poor", &id(5), "m1", 7, true).await.status, 429);
        gateway.stop().await;
        more["users"][0]["quota"] = json!(21);
        let gateway = place.start(more, &[&model]).await;
        assert_eq!(chat(&gateway, "sk-poor", &id(6), "m1", 7, true).await.status, 200);
        gateway.stop().await;
    }
}
