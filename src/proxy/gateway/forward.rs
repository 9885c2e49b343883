//! A request to a model: who asks, what for, which upstream it goes to, and how what comes back is passed on.

use std::io::ErrorKind;
use std::sync::Arc;

use axum::Extension;
use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use futures::TryStreamExt as _;
use http::header::{AUTHORIZATION, CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, HOST, UPGRADE};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use http_body_util::Full;
use hyper::body::{Body as _, Incoming};
use serde::Deserialize;
use tokio::sync::OwnedSemaphorePermit;

use super::accounts::Account;
use super::config::Channel;
use super::outbound::Trouble;
use super::refusal::Refusal;
use super::relay::Relay;
use super::scan::Scanner;
use super::ticket::Ticket;
use super::{Arrival, Gateway, websocket};

/// Most bytes of a request's body: it is read whole, because it names the model.
const MAX_REQUEST_BYTES: usize = 32 << 20;
/// A reply that is no stream and not larger is read whole before it goes on, so that its header tells the whole time.
const MAX_WHOLE_BYTES: u64 = 1 << 20;
/// Headers that are for one hop only.
const HOP: [HeaderName; 8] = [
    CONNECTION,
    HeaderName::from_static("keep-alive"),
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    UPGRADE,
];

/// A reply's header, and what is held until it has ended.
pub(super) struct Answer {
    pub(super) reply: http::Response<Incoming>,
    pub(super) permit: Option<OwnedSemaphorePermit>,
    /// The asker's side, if a WebSocket was asked for.
    pub(super) upgrade: Option<hyper::upgrade::OnUpgrade>,
}

/// Passes a request on, and its reply back.
pub(super) async fn forward(State(gateway): State<Arc<Gateway>>, Extension(arrival): Extension<Arrival>, request: Request) -> Response {
    let line = format!("{} {}", request.method(), request.uri().path());
    let mut ticket = Ticket::new(Arc::clone(&gateway), arrival.began, arrival.request_id.clone(), line);
    let answer = tokio::select! {
        answer = exchange(&gateway, &mut ticket, &arrival, request) => answer,
        () = gateway.kill.cancelled() => Err(Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "stopping", "the gateway is stopping")),
    };
    match answer {
        Ok(answer) if answer.reply.status() == StatusCode::SWITCHING_PROTOCOLS => websocket::pass(&gateway, ticket, answer),
        Ok(answer) => pass(&gateway, ticket, answer).await,
        Err(refusal) => {
            ticket.end(refusal.status.as_u16(), false, None).await;
            refusal.into_response()
        }
    }
}

async fn exchange(gateway: &Gateway, ticket: &mut Ticket, arrival: &Arrival, request: Request) -> Result<Answer, Refusal> {
    let (mut parts, body) = request.into_parts();
    let account = admit(gateway, &parts.headers).await?;
    ticket.note(|seen| seen.user.clone_from(&account.user.name));
    ticket.account = Some(Arc::clone(&account));
    if account.is_spent() {
        let message = format!("user {} has used up the quota; raise it in the gateway's configuration", account.user.name);
        return Err(Refusal::new(StatusCode::TOO_MANY_REQUESTS, "insufficient_quota", message));
    }
    let upgrade = websocket::is_asked_for(&parts).then(|| parts.extensions.remove()).flatten();
    let body = if upgrade.is_some() { Bytes::new() } else { whole(body).await? };
    let model = model_of(&parts, &body)?;
    ticket.request = body.clone();
    ticket.note(|seen| {
        seen.request_bytes = body.len() as u64;
        seen.model = model.clone().unwrap_or_else(|| "-".to_owned());
        if upgrade.is_some() {
            seen.protocol = "websocket";
        }
    });
    let Some(index) = gateway.channels.choose(&account.user, model.as_deref()) else {
        let model = model.unwrap_or_else(|| "without a model".to_owned());
        let message = format!("no channel of user {} serves model {model:?}; name it in channels.models", account.user.name);
        return Err(Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "no_channel", message));
    };
    let channel = gateway.channels.get(index);
    ticket.note(|seen| seen.channel.clone_from(&channel.name));
    let request = outgoing(parts, body, channel, &arrival.request_id, upgrade.is_some())?;
    match gateway.outbound.send(index, request).await {
        Ok((reply, permit)) => {
            ticket.note(|seen| seen.header_after = arrival.began.elapsed());
            Ok(Answer { reply, permit, upgrade })
        }
        Err(trouble) => Err(refused(channel, trouble)),
    }
}

/// Whose key the request shows.
async fn admit(gateway: &Gateway, headers: &HeaderMap) -> Result<Arc<Account>, Refusal> {
    let shown = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok()).and_then(|value| value.split_once(' '));
    let Some((_, key)) = shown.filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer")) else {
        return Err(Refusal::new(StatusCode::UNAUTHORIZED, "missing_api_key", "no API key; send `Authorization: Bearer KEY`"));
    };
    match gateway.accounts.find(key.trim()).await {
        Ok(Some(account)) => Ok(account),
        Ok(None) => Err(Refusal::new(StatusCode::UNAUTHORIZED, "invalid_api_key", "the API key is not known here")),
        Err(error) => {
            crate::telemetry::log::warn(&format!("[SYS] users: {error:#}"));
            Err(Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "database", "the gateway's database does not answer; try again later"))
        }
    }
}

async fn whole(body: Body) -> Result<Bytes, Refusal> {
    let too_large = body.size_hint().lower() > MAX_REQUEST_BYTES as u64;
    let message = format!("the body is longer than {MAX_REQUEST_BYTES} bytes, or did not come whole; send less");
    let refusal = Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", message);
    if too_large {
        return Err(refusal);
    }
    to_bytes(body, MAX_REQUEST_BYTES).await.map_err(|_| refusal)
}

/// The model that the request names: in its JSON, or for a WebSocket in the query.
fn model_of(parts: &Parts, body: &[u8]) -> Result<Option<String>, Refusal> {
    #[derive(Deserialize)]
    struct Named {
        model: Option<String>,
    }
    if body.is_empty() {
        let query = url::form_urlencoded::parse(parts.uri.query().unwrap_or_default().as_bytes());
        return Ok(query.into_iter().find(|(name, _)| name == "model").map(|(_, model)| model.into_owned()));
    }
    // A body of another type (a recording, a file) names no model that could be read.
    if !parts.headers.get(CONTENT_TYPE).is_none_or(|kind| kind.as_bytes().windows(4).any(|part| part.eq_ignore_ascii_case(b"json"))) {
        return Ok(None);
    }
    let named = serde_json::from_slice::<Named>(body);
    let refuse =
        |error| Refusal::new(StatusCode::BAD_REQUEST, "invalid_json", format!("the body is no JSON object with a text `model`: {error}"));
    named.map(|named| named.model).map_err(refuse)
}

/// The request as the upstream gets it: same path, body and headers, but the channel's key instead of the user's.
fn outgoing(parts: Parts, body: Bytes, channel: &Channel, request_id: &str, upgrade: bool) -> Result<http::Request<Full<Bytes>>, Refusal> {
    let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
    let mut request = http::Request::new(Full::new(body));
    let bad = |_| Refusal::new(StatusCode::BAD_REQUEST, "invalid_url", "the request's path cannot be passed on");
    *request.uri_mut() = format!("{}{path}", channel.url.trim_end_matches('/')).parse().map_err(bad)?;
    *request.method_mut() = parts.method;
    let mut headers = parts.headers;
    strip_hop(&mut headers);
    // The client writes its own; and what is not compressed can be read on the side.
    for name in [HOST, CONTENT_LENGTH, AUTHORIZATION, header::ACCEPT_ENCODING, header::EXPECT] {
        headers.remove(name);
    }
    if let Some(value) = channel.api_key.as_ref().and_then(|key| HeaderValue::try_from(format!("Bearer {key}")).ok()) {
        headers.insert(AUTHORIZATION, value);
    }
    if let Ok(value) = HeaderValue::try_from(request_id) {
        headers.insert("x-request-id", value);
    }
    if upgrade {
        websocket::ask(&mut headers);
    }
    *request.headers_mut() = headers;
    Ok(request)
}

/// Takes out what is for one hop only, and what its `Connection` header names.
pub(super) fn strip_hop(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    for name in named.iter().chain(&HOP) {
        headers.remove(name);
    }
}

fn refused(channel: &Channel, trouble: Trouble) -> Refusal {
    let name = &channel.name;
    match trouble {
        Trouble::Failed(reason) => {
            Refusal::new(StatusCode::BAD_GATEWAY, "upstream_failed", format!("channel {name} does not answer: {reason}"))
        }
        Trouble::Late(limit) => {
            let message = format!("channel {name} sent no header within {limit:?} (response_header_timeout)");
            Refusal::new(StatusCode::GATEWAY_TIMEOUT, "upstream_timeout", message)
        }
        Trouble::Busy => {
            let message = format!("none of channel {name}'s connections became free in time (max_per_host)");
            Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "upstream_busy", message)
        }
    }
}

/// Passes the reply back: a stream as it comes, another one whole if it is not too long for that.
async fn pass(gateway: &Gateway, mut ticket: Ticket, answer: Answer) -> Response {
    let (mut parts, body) = answer.reply.into_parts();
    strip_hop(&mut parts.headers);
    let events = parts.headers.get(CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"text/event-stream"));
    if events {
        ticket.note(|seen| seen.protocol = "sse");
    }
    ticket.passing = events || body.size_hint().exact().is_none_or(|bytes| bytes > MAX_WHOLE_BYTES);
    let passing = ticket.passing;
    let scanner = Scanner::new(events, ticket.began());
    let (status, kill, permit) = (parts.status.as_u16(), gateway.kill.clone(), answer.permit);
    let chunks = Relay { body, scanner, ticket, status, _permit: permit, kill }.chunks();
    if passing {
        return Response::from_parts(parts, Body::from_stream(chunks));
    }
    let together = |mut body: Vec<u8>, chunk: Bytes| async move {
        body.extend_from_slice(&chunk);
        Ok(body)
    };
    match chunks.try_fold(Vec::new(), together).await {
        Ok(body) => Response::from_parts(parts, Body::from(body)),
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => {
            Refusal::new(StatusCode::BAD_GATEWAY, "upstream_broken", error.to_string()).into_response()
        }
        Err(error) => Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, "log_failed", error.to_string()).into_response(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(uri: &str, headers: &[(&'static str, &str)]) -> Parts {
        let mut request = http::Request::builder().uri(uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap().into_parts().0
    }

    #[test]
    fn the_model_stands_in_the_body_or_the_query() {
        let json = [("content-type", "application/json; charset=utf-8")];
        assert_eq!(model_of(&parts("/v1/x", &json), br#"{"a":[{}],"model":"m\u00e9"}"#), Ok(Some("m\u{e9}".to_owned())));
        assert_eq!(model_of(&parts("/v1/x", &json), br#"{"a":1}"#), Ok(None));
        assert_eq!(model_of(&parts("/v1/realtime?a=b&model=m%201", &[]), b""), Ok(Some("m 1".to_owned())));
        assert_eq!(model_of(&parts("/v1/x", &[("content-type", "audio/wav")]), b"RIFF"), Ok(None));
        for wrong in [&b"{"[..], b"[]", br#"{"model":1}"#] {
            assert_eq!(model_of(&parts("/v1/x", &json), wrong).unwrap_err().status, StatusCode::BAD_REQUEST);
        }
    }

    #[test]
    fn the_upstream_gets_its_own_key_and_no_header_of_another_hop() {
        let asked = [
            ("authorization", "Bearer user-key"),
            ("connection", "close, x-private"),
            ("x-private", "1"),
            ("accept-encoding", "gzip"),
            ("x-kept", "2"),
            ("expect", "100-continue"),
            ("transfer-encoding", "chunked"),
        ];
        let mut channel =
            Channel { name: "c".into(), url: "http://h:1/base/".into(), api_key: Some("up".into()), weight: 1, models: Vec::new() };
        let request = outgoing(parts("/v1/x?y=1", &asked), Bytes::from_static(b"{}"), &channel, "id-1", false).unwrap();
        assert_eq!(request.uri(), "http://h:1/base/v1/x?y=1");
        let mut names: Vec<_> = request.headers().iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect();
        names.sort();
        assert_eq!(names, ["authorization: Bearer up", "x-kept: 2", "x-request-id: id-1"]);
        channel.api_key = None;
        let request = outgoing(parts("/v1/x", &asked), Bytes::new(), &channel, "id-1", true).unwrap();
        assert_eq!(request.headers().get(AUTHORIZATION), None, "a user's key goes to no upstream");
        assert_eq!(
            (&request.headers()[CONNECTION], &request.headers()[UPGRADE]),
            (&"upgrade".parse().unwrap(), &"websocket".parse().unwrap())
        );
    }
}
