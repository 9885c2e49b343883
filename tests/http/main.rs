//! The HTTP client against servers that do exactly what a test says: right, wrong, late or not at all.

#![allow(clippy::unwrap_used)]

mod chat;
mod connections;
mod http2;
mod server;
mod tls;
mod trouble;

use std::time::Duration;

use batchsql::http::{Client, Config, Failed, Kind, Request};
use batchsql::scenario::http::{ClientSettings, HttpProfile, HttpVersion, ReplyLimits, ReplyTimeouts};
use batchsql::scenario::units::Time;
use batchsql::target::{Applied, ErrorClass};
use bytes::Bytes;
use http::Method;

/// A limit that a right answer on this machine never comes near.
const AMPLE: Time = Time::secs(20);

/// A limit that is waited out.
const SHORT: Time = Time::millis(100);

fn config(url: &str) -> Config {
    Config {
        url: url.parse().unwrap(),
        version: HttpVersion::Auto,
        ca_file: None,
        settings: ClientSettings { response_header_timeout: Some(AMPLE), ..HttpProfile::Default.settings() },
        timeouts: ReplyTimeouts { first_token: AMPLE, between_tokens: AMPLE, total: AMPLE },
        limits: ReplyLimits::default(),
        via: None,
    }
}

fn client(config: Config) -> Client {
    Client::new(config).unwrap()
}

fn get(target: &str) -> Request {
    Request { method: Method::GET, target: target.to_owned(), headers: Vec::new(), body: Bytes::new(), kind: Kind::Plain }
}

fn ask(body: &'static str) -> Request {
    let target = "/v1/chat/completions".to_owned();
    Request { method: Method::POST, target, headers: Vec::new(), body: Bytes::from_static(body.as_bytes()), kind: Kind::Chat }
}

#[track_caller]
fn assert_failed(failed: &Failed, class: ErrorClass, applied: Applied) {
    assert_eq!((failed.failure.class, failed.failure.applied), (class, applied), "{}", failed.failure.message);
    assert!(failed.sent.is_some() || applied == Applied::No, "what may have been served was sent");
}

/// Fails a test that would hang.
async fn soon<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(Duration::from_secs(60), future).await.expect("ends by itself")
}
