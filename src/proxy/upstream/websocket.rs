//! WebSocket echo at `/v1/realtime`: every message comes back as it was sent.

use std::sync::Arc;

use bytes::Bytes;
use futures::{SinkExt as _, StreamExt as _};
use http_body_util::{Either, Full};
use hyper::body::Incoming;
use hyper::header::{CONNECTION, HeaderMap, HeaderName, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, UPGRADE};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error, Message};

use super::chat;
use super::ledger::Ended;
use super::service::{MAX_BYTES, Service, request_id};
use super::stream::Body;
use crate::workload::reply;

/// Answers a handshake, and echoes from then on; each message is a request to the ledger.
pub(super) fn upgrade(service: &Arc<Service>, mut request: Request<Incoming>) -> Response<Body> {
    let key = asks_for_websocket(request.headers()).then(|| request.headers().get(SEC_WEBSOCKET_KEY)).flatten();
    let Some(accept) = key.map(|key| derive_accept_key(key.as_bytes())) else {
        let message = "no WebSocket handshake: the headers connection: upgrade, upgrade: websocket and sec-websocket-key are needed";
        return service.refuse(&request, StatusCode::BAD_REQUEST, message);
    };
    let (upgraded, header) = (hyper::upgrade::on(&mut request), request_id(request.headers()).map(str::to_owned));
    service.tasks.spawn(serve(Arc::clone(service), upgraded, header, request.uri().path().to_owned()));
    let mut response = Response::new(Either::Left(Full::new(Bytes::new())));
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(SEC_WEBSOCKET_ACCEPT, HeaderValue::from_str(&accept).expect("base64 fits a header"));
    response
}

fn asks_for_websocket(headers: &HeaderMap) -> bool {
    let says = |name: HeaderName, word: &str| {
        let values = headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok());
        values.flat_map(|value| value.split(',')).any(|part| part.trim().eq_ignore_ascii_case(word))
    };
    says(CONNECTION, "upgrade") && says(UPGRADE, "websocket")
}

async fn serve(service: Arc<Service>, upgraded: OnUpgrade, header: Option<String>, path: String) {
    // A client that is gone before the handshake is over sent no message.
    let Ok(upgraded) = upgraded.await else { return };
    let config = WebSocketConfig::default().max_message_size(Some(MAX_BYTES)).max_frame_size(Some(MAX_BYTES));
    let mut socket = WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Server, Some(config)).await;
    loop {
        let message = tokio::select! {
            message = socket.next() => message,
            () = service.stop.cancelled() => break close(&service, &mut socket).await,
        };
        // Pings are answered by the library, and so is a close.
        match message {
            Some(Ok(message @ (Message::Text(_) | Message::Binary(_)))) => {
                if echo(&service, &mut socket, message, header.as_deref(), &path).await.is_err() {
                    break;
                }
            }
            Some(Ok(_)) => {}
            Some(Err(_)) | None => break,
        }
    }
}

async fn echo(
    service: &Service,
    socket: &mut WebSocketStream<TokioIo<Upgraded>>,
    message: Message,
    header: Option<&str>,
    path: &str,
) -> Result<(), Error> {
    let text = message.to_text().ok().and_then(reply::find_id);
    let mut entry = service.entry(chat::id_of(&[text, header]), path);
    entry.record.stream = true;
    entry.record.status = StatusCode::SWITCHING_PROTOCOLS.as_u16();
    entry.end(Ended::Whole);
    tokio::select! {
        sent = socket.send(message) => sent,
        () = service.end.cancelled() => Err(Error::ConnectionClosed),
    }
}

async fn close(service: &Service, socket: &mut WebSocketStream<TokioIo<Upgraded>>) {
    let frame = CloseFrame { code: CloseCode::Away, reason: "the server stops".into() };
    tokio::select! {
        // A client that is gone needs no farewell.
        _ = socket.close(Some(frame)) => {}
        () = service.end.cancelled() => {}
    }
}
