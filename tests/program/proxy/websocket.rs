//! WebSocket sessions: messages that come back as they were hold, and what came back otherwise is told.

use futures::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

use super::server::Server;
use super::{assert_outcomes, requests};
use crate::place::{Place, assert_anomalies};

const REQUESTS: u64 = 40;

fn sessions(url: &str) -> Value {
    requests(url, REQUESTS, &json!([{"websocket": {"messages": 3}}]))
}

/// A server that sends back what `answer` makes of each message; without one it breaks off.
async fn echo(answer: fn(&str) -> Option<String>) -> Server {
    Server::start(move |_, stream| async move {
        let mut socket = tokio_tungstenite::accept_async(stream).await.unwrap();
        while let Some(Ok(Message::Text(text))) = socket.next().await {
            let Some(answer) = answer(text.as_str()) else { return };
            let _ = socket.send(Message::text(answer)).await;
        }
    })
    .await
}

#[test]
fn messages_that_come_back_through_the_reference_gateway_hold() {
    let mut scenario = sessions("");
    scenario["target"]["http"] = json!({"start": {"upstream": {}, "gateway": {"access_log": false}}});
    let report = Place::new().run(&scenario, &[]).json(0);
    assert_outcomes(&report, [REQUESTS, 0, 0]);
    assert_anomalies(&report["integrity"], &[]);
    assert_eq!(report["integrity"]["checked"], 4 * REQUESTS, "replies, and the upstream's records, one a message");
    assert_eq!(report["integrity"]["must_be_there"], REQUESTS);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn messages_that_come_back_otherwise_are_told() {
    // The second message of session 7 alone.
    type Answer = fn(&str) -> Option<String>;
    let cases: [(Answer, &str, Option<&str>); 3] = [
        (|text| Some(if text.starts_with("1 ") { text.replace("-7 ", "-8 ") } else { text.to_owned() }), "corrupted", Some("altered")),
        (|text| Some(text.replace("-7 ", "-8 ")), "corrupted", Some("crosstalk")),
        (|text| Some(text.replace("-7 ", "-999999 ")), "phantom", None),
    ];
    for (answer, class, sub_kind) in cases {
        let server = echo(answer).await;
        let report = Place::new().run(&sessions(&server.url), &[]).json(4);
        assert_outcomes(&report, [REQUESTS, 0, 0]);
        assert_anomalies(&report["integrity"], &[(class, 1)]);
        let example = &report["integrity"]["examples"][0];
        assert_eq!((&example["sub_kind"], &example["key"], &example["column"]), (&json!(sub_kind), &json!(7), &json!("reply.content")));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_session_that_breaks_off_is_unknown() {
    let server = echo(|text| (!text.starts_with("2 ")).then(|| text.to_owned())).await;
    let report = Place::new().run(&sessions(&server.url), &[]).json(1);
    assert_outcomes(&report, [0, 0, REQUESTS]);
    assert_eq!(report["errors"], json!({"final:connection": REQUESTS}));
}
