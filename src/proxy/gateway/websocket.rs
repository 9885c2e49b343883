//! WebSockets are passed through: the upstream answers the handshake, and bytes go both ways until one side ends.

use axum::body::Body;
use axum::response::Response;
use http::header::{CONNECTION, UPGRADE};
use http::request::Parts;
use http::{HeaderMap, HeaderValue};
use hyper_util::rt::TokioIo;
use tokio::io::copy_bidirectional;

use super::Gateway;
use super::forward::{Answer, strip_hop};
use super::ticket::Ticket;

/// Whether the request asks for a WebSocket.
pub(super) fn is_asked_for(parts: &Parts) -> bool {
    parts.headers.get(UPGRADE).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"websocket"))
}

/// Puts what asks for, or grants, a WebSocket into a header.
pub(super) fn ask(headers: &mut HeaderMap) {
    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
}

/// Passes the upstream's consent back and then every byte, both ways.
pub(super) fn pass(gateway: &Gateway, mut ticket: Ticket, answer: Answer) -> Response {
    let Answer { reply, permit, upgrade } = answer;
    let mut headers = reply.headers().clone();
    strip_hop(&mut headers);
    ask(&mut headers);
    let mut consent = Response::new(Body::empty());
    *consent.status_mut() = reply.status();
    *consent.headers_mut() = headers;
    ticket.passing = true;
    let kill = gateway.kill.clone();
    gateway.tasks.spawn(async move {
        let session = async {
            let asker = upgrade.ok_or("the upstream changed to a protocol that nobody asked for")?;
            let asker = asker.await.map_err(|_| "the asker left")?;
            let upstream = hyper::upgrade::on(reply).await.map_err(|_| "the upstream left")?;
            copy_bidirectional(&mut TokioIo::new(asker), &mut TokioIo::new(upstream)).await.map_err(|_| "one side broke off")
        };
        let ended = tokio::select! {
            ended = session => ended,
            () = kill.cancelled() => Err("the gateway is stopping"),
        };
        if let Ok((sent, received)) = ended {
            ticket.note(|seen| (seen.request_bytes, seen.response_bytes) = (sent, received));
        }
        ticket.end(101, ended.is_ok(), None).await;
        drop(permit);
    });
    consent
}
