//! Whatever changes something passes here: limited by address and by user, with a bearer token, and written down.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::Json;
use axum::extract::{ConnectInfo, Request, State};
use axum::http::header::{RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderValue, Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::json;

use super::lines::Lines;
use crate::http::served::has_token;
use crate::runner::say;

/// Most requests that change something.
const PER_ADDRESS: (u32, Duration) = (100, Duration::from_mins(1));
const PER_USER: (u32, Duration) = (1000, Duration::from_hours(1));
/// Most addresses that are counted apart; what comes from others meanwhile is refused.
const MOST_ADDRESSES: usize = 10_000;
/// Longest path in the audit.
const LONGEST_PATH: usize = 256;

pub(super) struct Guard {
    token: Option<String>,
    addresses: Limit<IpAddr>,
    /// There is one token, so there is one user.
    users: Limit<()>,
    audit: Lines,
}

#[derive(Serialize)]
struct Audited<'a> {
    time: String,
    address: IpAddr,
    method: &'a str,
    path: &'a str,
    status: u16,
    outcome: &'static str,
}

impl Guard {
    pub(super) fn new(token: Option<String>, audit: Lines) -> Self {
        Self { token, addresses: Limit::new(PER_ADDRESS), users: Limit::new(PER_USER), audit }
    }

    /// The answer to a request that may not go on.
    fn refusal(&self, address: IpAddr, request: &Request) -> Option<Refusal> {
        let now = Instant::now();
        if let Err(full) = self.addresses.take(address, now) {
            return Some(Refusal::TooMany(full, "of this address"));
        }
        let Some(token) = &self.token else { return Some(Refusal::Closed) };
        if !has_token(request.headers(), token) {
            return Some(Refusal::Unknown);
        }
        self.users.take((), now).err().map(|full| Refusal::TooMany(full, "with this token"))
    }
}

enum Refusal {
    Closed,
    Unknown,
    TooMany(Full, &'static str),
}

impl Refusal {
    fn outcome(&self) -> &'static str {
        match self {
            Refusal::Closed => "closed",
            Refusal::Unknown => "wrong token",
            Refusal::TooMany(..) => "too many",
        }
    }

    /// Of requests turned away by a limit one is written down each time it fills, or they would push out everything else.
    fn is_audited(&self) -> bool {
        !matches!(self, Refusal::TooMany(Full { first: false, .. }, _))
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let answer = |status, message: String| (status, Json(json!({"error": message}))).into_response();
        match self {
            Refusal::Closed => {
                let mend = "closed: no token is configured; start serve with --token-file FILE or BATCHSQL_SERVE_TOKEN";
                answer(StatusCode::FORBIDDEN, mend.to_owned())
            }
            Refusal::Unknown => {
                let mut answer = answer(StatusCode::UNAUTHORIZED, "the token of serve is expected: Authorization: Bearer TOKEN".to_owned());
                answer.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
                answer
            }
            Refusal::TooMany(full, whose) => {
                let seconds = full.wait.as_secs().max(1);
                let mut answer =
                    answer(StatusCode::TOO_MANY_REQUESTS, format!("too many requests {whose}; ask again in {seconds} seconds"));
                answer.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
                answer
            }
        }
    }
}

/// Lets through what only reads; the rest has to be allowed, and is written down.
pub(super) async fn guarded(
    State(guard): State<Arc<Guard>>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    request: Request,
    next: Next,
) -> Response {
    if matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS) {
        return next.run(request).await;
    }
    let address = peer.ip().to_canonical();
    let (method, path) = (request.method().clone(), request.uri().path().chars().take(LONGEST_PATH).collect::<String>());
    let (response, outcome, audited) = match guard.refusal(address, &request) {
        Some(refusal) => {
            let (outcome, audited) = (refusal.outcome(), refusal.is_audited());
            (refusal.into_response(), outcome, audited)
        }
        None => {
            let response = next.run(request).await;
            let outcome = if response.status().is_success() { "done" } else { "refused" };
            (response, outcome, true)
        }
    };
    if audited {
        let (time, status) = (jiff::Timestamp::now().to_string(), response.status().as_u16());
        let line = Audited { time, address, method: method.as_str(), path: &path, status, outcome };
        if let Err(error) = guard.audit.append(&[line]) {
            say(&format!("[SYS] audit.jsonl cannot be written: {error}; {method} {path} from {address}: {outcome}"));
        }
    }
    response
}

/// So many in each window of time, by key.
struct Limit<K> {
    most: u32,
    window: Duration,
    taken: Mutex<HashMap<K, Window>>,
}

struct Window {
    began: Instant,
    count: u32,
}

/// A limit that is reached.
#[derive(Debug, PartialEq, Eq)]
struct Full {
    /// Until the next window begins.
    wait: Duration,
    /// Whether this is the first that was turned away.
    first: bool,
}

impl<K: std::hash::Hash + Eq> Limit<K> {
    fn new((most, window): (u32, Duration)) -> Self {
        Self { most, window, taken: Mutex::default() }
    }

    fn take(&self, key: K, now: Instant) -> Result<(), Full> {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if taken.len() >= MOST_ADDRESSES && !taken.contains_key(&key) {
            taken.retain(|_, window| now.duration_since(window.began) < self.window);
            if taken.len() >= MOST_ADDRESSES {
                return Err(Full { wait: self.window, first: false });
            }
        }
        let window = taken.entry(key).or_insert(Window { began: now, count: 0 });
        let age = now.duration_since(window.began);
        if age >= self.window {
            *window = Window { began: now, count: 0 };
        }
        window.count = window.count.saturating_add(1);
        if window.count <= self.most {
            return Ok(());
        }
        Err(Full { wait: self.window.saturating_sub(age), first: window.count == self.most + 1 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_fills_at_its_number_and_empties_with_its_window() {
        let limit = Limit::new((3, Duration::from_secs(60)));
        let began = Instant::now();
        for _ in 0..3 {
            assert_eq!(limit.take("a", began), Ok(()));
        }
        assert_eq!(limit.take("a", began + Duration::from_secs(20)), Err(Full { wait: Duration::from_secs(40), first: true }));
        assert_eq!(limit.take("a", began + Duration::from_secs(59)), Err(Full { wait: Duration::from_secs(1), first: false }));
        assert_eq!(limit.take("b", began), Ok(()), "each has its own");
        assert_eq!(limit.take("a", began + Duration::from_secs(60)), Ok(()));
    }

    #[test]
    fn addresses_are_bounded_and_old_ones_make_room() {
        let limit = Limit::new((1, Duration::from_secs(60)));
        let began = Instant::now();
        for key in 0..MOST_ADDRESSES {
            assert_eq!(limit.take(key, began), Ok(()));
        }
        assert!(limit.take(MOST_ADDRESSES, began).is_err());
        assert_eq!(limit.take(MOST_ADDRESSES, began + Duration::from_secs(60)), Ok(()));
        assert_eq!(limit.taken.lock().unwrap().len(), 1);
    }
}
