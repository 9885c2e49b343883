//! A WebSocket session on a connection of its own: each message is sent once the one before has come back.

use std::time::{Duration, Instant};

use futures::{SinkExt as _, StreamExt as _};
use http::Uri;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::error::{CapacityError, Error, ProtocolError};
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{Message, handshake::client};

use super::answer::Call;
use super::codec;
use super::connect::{Connector, Stream};
use super::deadline::{Alarm, Deadlines, Until};
use super::failure::{protocol, too_large, unknown, unsent};
use super::{Chat, Failed, Headers, Reply};
use crate::target::{ErrorClass, Failure};

/// How long a goodbye may take.
const GOODBYE: Duration = Duration::from_millis(100);

/// Sends `messages` over `stream` and takes what comes back. An answer that is no WebSocket is a reply without a chat.
pub(super) async fn session(stream: Stream, call: &Call<'_>, connector: &Connector, messages: &[String]) -> Result<Reply, Failed> {
    let handshake = handshake(call, connector).map_err(|failure| Failed { failure, sent: None, partial: None })?;
    let limits = &call.config.limits;
    let settings = WebSocketConfig::default()
        .read_buffer_size(16_384)
        .write_buffer_size(0)
        .max_message_size(Some(limits.event_bytes))
        .max_frame_size(Some(limits.event_bytes));
    let sent = Instant::now();
    let deadlines = Deadlines::new(call.config, sent, sent);
    let mut alarm = Alarm::default();
    let until = deadlines.head(false);
    let opening = tokio_tungstenite::client_async_with_config(handshake, stream, Some(settings));
    let (mut socket, answer) = match alarm.within(until.at, opening).await {
        Some(Ok((socket, answer))) => (Some(socket), answer.map(Option::unwrap_or_default)),
        Some(Err(Error::Http(answer))) => (None, (*answer).map(Option::unwrap_or_default)),
        Some(Err(error)) => return Err(Failed { failure: classify(error, call), sent: Some(sent), partial: None }),
        None => return Err(Failed { failure: deadlines.missed(until), sent: Some(sent), partial: None }),
    };
    let now = Instant::now();
    let (head, body) = answer.into_parts();
    let (status, headers) = (head.status.as_u16(), Headers::Map(head.headers));
    let mut reply = Reply { status, headers, body, chat: None, sent, first_byte: now, done: now, bytes_sent: 0, bytes_received: 0 };
    let Some(socket) = &mut socket else { return Ok(reply) };
    reply.chat = Some(Chat { streamed: true, ..Chat::default() });
    let mut talk = Talk { socket, call, alarm, until: deadlines.whole(), deadlines };
    let told = talk.all(messages, &mut reply).await;
    let _ = tokio::time::timeout(GOODBYE, socket.close(None)).await;
    match told {
        Ok(()) => Ok(reply),
        Err(failure) => Err(Failed { failure, sent: Some(sent), partial: Some(Box::new(reply)) }),
    }
}

struct Talk<'a> {
    socket: &'a mut WebSocketStream<Stream>,
    call: &'a Call<'a>,
    deadlines: Deadlines<'a>,
    alarm: Alarm,
    until: Until,
}

impl Talk<'_> {
    async fn all(&mut self, messages: &[String], reply: &mut Reply) -> Result<(), Failure> {
        let most = self.call.config.limits.body_bytes;
        let chat = reply.chat.get_or_insert_default();
        for message in messages {
            let asked = Instant::now();
            let echo = match self.alarm.within(self.until.at, one(self.socket, message)).await {
                Some(echo) => echo.map_err(|error| classify(error, self.call))?,
                None => return Err(self.deadlines.missed(self.until)),
            };
            if chat.content.len() + echo.len() + 1 > most {
                return Err(too_large("what came back over the WebSocket", most, "limits.body_bytes"));
            }
            reply.done = Instant::now();
            reply.bytes_sent += message.len() as u64;
            reply.bytes_received += echo.len() as u64;
            chat.content.push_str(&echo);
            chat.content.push('\n');
            chat.events += 1;
            chat.first_token.get_or_insert(reply.done);
            chat.gaps.push(reply.done.saturating_duration_since(asked));
        }
        chat.done = true;
        Ok(())
    }
}

/// Sends a message and waits for the next that comes.
async fn one(socket: &mut WebSocketStream<Stream>, message: &str) -> Result<String, Error> {
    socket.send(Message::text(message)).await?;
    loop {
        match socket.next().await.ok_or(Error::ConnectionClosed)?? {
            Message::Text(text) => return Ok(text.as_str().to_owned()),
            Message::Binary(bytes) => return Ok(String::from_utf8_lossy(&bytes).into_owned()),
            Message::Close(_) => return Err(Error::ConnectionClosed),
            Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => {}
        }
    }
}

fn handshake(call: &Call<'_>, connector: &Connector) -> Result<client::Request, Failure> {
    let scheme = if connector.is_tls() { "wss" } else { "ws" };
    let uri = format!("{scheme}://{}{}{}", call.host, call.prefix, call.request.target);
    let wrong = |why: String| unsent(ErrorClass::Data, format!("no WebSocket handshake can be made for this path: {why}"));
    let uri = Uri::try_from(uri).map_err(|error| wrong(error.to_string()))?;
    let mut request = uri.into_client_request().map_err(|error| wrong(error.to_string()))?;
    for (name, value) in &call.request.headers {
        if !codec::is_ours(name) {
            request.headers_mut().append(name, value.clone());
        }
    }
    Ok(request)
}

fn classify(error: Error, call: &Call<'_>) -> Failure {
    let limits = &call.config.limits;
    match error {
        Error::Io(_)
        | Error::ConnectionClosed
        | Error::AlreadyClosed
        | Error::Protocol(ProtocolError::ResetWithoutClosingHandshake | ProtocolError::HandshakeIncomplete) => {
            unknown(ErrorClass::Connection, format!("the WebSocket broke off: {error}"))
        }
        Error::Capacity(CapacityError::TooManyHeaders) => codec::too_many_headers(),
        Error::Capacity(_) => too_large("a message of the WebSocket", limits.event_bytes, "limits.event_bytes"),
        error => protocol(format!("the WebSocket breaks its rules: {error}")),
    }
}
