//! Requests on their way to one receiver: a bounded queue, one task that delivers them in order, waits that grow while it fails, and
//! a last chance at the end. Whoever sends never waits.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, StatusCode};
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::http::service::{Answer, Service};
use crate::metrics::IntCounter;
use crate::pipeline::retry::backoff;
use crate::redact::redact_url;
use crate::report::format::count;
use crate::runner::say;
use crate::scenario::Retry;
use crate::scenario::units::{Share, Time};

/// Most bytes that wait for a receiver. Beyond it the oldest request is given up.
const MOST_BYTES: usize = 16 << 20;
/// Longest wait for an answer.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);
/// A receiver that is ill for this long is told of.
const PATIENCE: Duration = Duration::from_secs(5);
/// Longest time at the end for what waits, and if the receiver has never answered.
const LAST_CHANCE: Duration = Duration::from_secs(10);
const LAST_CHANCE_OF_ABSENT: Duration = Duration::from_secs(2);
/// Longest wait between two attempts at the end.
const HURRIED: Duration = Duration::from_millis(250);
/// Characters that are shown of an answer.
const SHOWN: usize = 200;

/// Where requests go.
pub(super) struct Receiver {
    /// What this is, in messages and as label `destination`.
    pub(super) name: &'static str,
    /// What a request carries, in the plural.
    pub(super) values: &'static str,
    pub(super) service: Service,
    pub(super) path: &'static str,
    pub(super) headers: Vec<(HeaderName, HeaderValue)>,
    /// How long a delivered request is remembered, to be sent again to a receiver that was started anew: it may have lost what it
    /// had not written yet.
    pub(super) remember: Duration,
}

/// The way to one receiver.
pub(super) struct Push {
    shared: Arc<Shared>,
    task: Mutex<Option<JoinHandle<()>>>,
}

struct Shared {
    receiver: Receiver,
    queue: Mutex<Queue>,
    more: Notify,
    /// No more come: what is left is delivered without long waits.
    closing: CancellationToken,
    /// Whether the receiver has ever said anything.
    answered: AtomicBool,
    /// Why the last attempt failed.
    trouble: Mutex<String>,
    /// Values given up because the queue was full.
    overflown: AtomicU64,
    dropped: IntCounter,
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<Request>,
    bytes: usize,
    next: u64,
}

#[derive(Clone)]
struct Request {
    number: u64,
    body: Bytes,
    /// 0 if it was delivered before.
    values: u64,
}

/// Why a request was not delivered.
enum Failed {
    /// Another attempt may help.
    ForNow { reason: String, answered: bool },
    /// None would.
    ForGood(String),
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Push {
    /// `dropped` counts the values that were given up.
    pub(super) fn start(receiver: Receiver, dropped: IntCounter) -> Self {
        let shared = Arc::new(Shared {
            receiver,
            queue: Mutex::default(),
            more: Notify::new(),
            closing: CancellationToken::new(),
            answered: AtomicBool::new(false),
            trouble: Mutex::default(),
            overflown: AtomicU64::new(0),
            dropped,
        });
        let courier = Courier::new(Arc::clone(&shared));
        Self { shared, task: Mutex::new(Some(tokio::spawn(courier.work()))) }
    }

    /// Puts a request with so many values at the end of the queue.
    pub(super) fn send(&self, body: Bytes, values: u64) {
        let shared = &self.shared;
        let mut queue = lock(&shared.queue);
        queue.add(body, values, false);
        while queue.bytes > MOST_BYTES {
            let values = queue.remove_first();
            shared.dropped.inc_by(values);
            shared.overflown.fetch_add(values, Relaxed);
        }
        drop(queue);
        shared.more.notify_one();
    }

    /// Counts values that never became a request.
    pub(super) fn give_up(&self, values: u64) {
        self.shared.dropped.inc_by(values);
        self.shared.overflown.fetch_add(values, Relaxed);
    }

    #[cfg(test)]
    pub(super) fn given_up(&self) -> u64 {
        self.shared.overflown.load(Relaxed)
    }

    /// Delivers what waits, within a bound, and says what could not be delivered.
    pub(super) async fn finish(&self) {
        let Some(mut task) = lock(&self.task).take() else { return };
        let shared = &self.shared;
        shared.closing.cancel();
        let limit = if shared.answered.load(Relaxed) { LAST_CHANCE } else { LAST_CHANCE_OF_ABSENT };
        if tokio::time::timeout(limit, &mut task).await.is_err() {
            task.abort();
        }
        let waiting = lock(&shared.queue).waiting.iter().map(|request| request.values).sum::<u64>();
        let lost = waiting + shared.overflown.load(Relaxed);
        if lost > 0 {
            let trouble = lock(&shared.trouble).clone();
            let reason = if trouble.is_empty() { "it is too slow" } else { &trouble };
            shared.say(&format!("{reason}; {} {} were not delivered", count(lost), shared.receiver.values));
        }
    }
}

impl Queue {
    fn add(&mut self, body: Bytes, values: u64, first: bool) {
        self.bytes += body.len();
        let request = Request { number: self.next, body, values };
        self.next += 1;
        if first { self.waiting.push_front(request) } else { self.waiting.push_back(request) }
    }

    /// Returns how many values went with it.
    fn remove_first(&mut self) -> u64 {
        self.waiting.pop_front().map_or(0, |request| {
            self.bytes -= request.body.len();
            request.values
        })
    }

    /// Takes a request out, unless it was given up meanwhile.
    fn remove(&mut self, number: u64) {
        if self.waiting.front().is_some_and(|first| first.number == number) {
            self.remove_first();
        }
    }
}

impl Shared {
    fn say(&self, what: &str) {
        say(&format!("batchsql: {} to {}: {what}", self.receiver.name, self.receiver.service.shown()));
    }

    /// The first request, once there is one; nothing if no more come.
    async fn first(&self) -> Option<Request> {
        loop {
            if let Some(first) = lock(&self.queue).waiting.front() {
                return Some(first.clone());
            }
            tokio::select! {
                () = self.more.notified() => {}
                () = self.closing.cancelled() => return lock(&self.queue).waiting.front().cloned(),
            }
        }
    }

    async fn deliver(&self, body: Bytes) -> Result<Answer, Failed> {
        let Receiver { service, path, headers, .. } = &self.receiver;
        let answer = service.send(Method::POST, path, &[], headers, body, ANSWER_LIMIT).await;
        let answer = answer.map_err(|error| Failed::ForNow { reason: format!("{error:#}"), answered: false })?;
        self.answered.store(true, Relaxed);
        if answer.status.is_success() {
            return Ok(answer);
        }
        let reason = words(&answer);
        let may_pass =
            answer.status.is_server_error() || [StatusCode::TOO_MANY_REQUESTS, StatusCode::REQUEST_TIMEOUT].contains(&answer.status);
        Err(if may_pass { Failed::ForNow { reason, answered: true } } else { Failed::ForGood(reason) })
    }
}

/// What an answer that is no success says.
fn words(answer: &Answer) -> String {
    let body = String::from_utf8_lossy(&answer.body);
    let line: String = body.trim().lines().next().unwrap_or_default().chars().take(SHOWN).collect();
    let colon = if line.is_empty() { "" } else { ": " };
    format!("it answered {}{colon}{}", answer.status, redact_url(&line))
}

/// The task that delivers.
struct Courier {
    shared: Arc<Shared>,
    policy: Retry,
    /// What was delivered of late, with its time.
    delivered: VecDeque<(Instant, Bytes)>,
    /// The connection of the last delivery.
    connection: Option<SocketAddr>,
    /// Failed attempts since the last delivery.
    attempts: u32,
    ill_since: Option<Instant>,
    told_ill: bool,
    told_refused: bool,
}

impl Courier {
    fn new(shared: Arc<Shared>) -> Self {
        let policy = Retry { base: Time::millis(200), max: Time::secs(10), factor: 2.0, jitter: Share(0.3), ..Retry::default() };
        Self {
            shared,
            policy,
            delivered: VecDeque::new(),
            connection: None,
            attempts: 0,
            ill_since: None,
            told_ill: false,
            told_refused: false,
        }
    }

    async fn work(mut self) {
        while let Some(request) = self.shared.first().await {
            match self.shared.deliver(request.body.clone()).await {
                Ok(answer) => self.accepted(request, &answer),
                Err(Failed::ForGood(reason)) => self.refused(&request, reason),
                Err(Failed::ForNow { reason, answered }) => self.failed(reason, answered).await,
            }
        }
    }

    fn accepted(&mut self, request: Request, answer: &Answer) {
        (self.attempts, self.ill_since) = (0, None);
        lock(&self.shared.queue).remove(request.number);
        let before = std::mem::replace(&mut self.connection, answer.connection);
        if before.zip(self.connection).is_some_and(|(before, now)| before != now) {
            self.send_again();
        }
        let now = Instant::now();
        if request.values > 0 {
            self.delivered.push_back((now, request.body));
        }
        while self.delivered.front().is_some_and(|(at, _)| now.duration_since(*at) >= self.shared.receiver.remember) {
            self.delivered.pop_front();
        }
    }

    /// The receiver may have been started anew.
    fn send_again(&mut self) {
        let mut queue = lock(&self.shared.queue);
        for (_, body) in self.delivered.drain(..).rev() {
            queue.add(body, 0, true);
        }
    }

    fn refused(&mut self, request: &Request, reason: String) {
        (self.attempts, self.ill_since) = (0, None);
        lock(&self.shared.queue).remove(request.number);
        // What was delivered before may be refused as known.
        if request.values > 0 {
            self.shared.dropped.inc_by(request.values);
            if !std::mem::replace(&mut self.told_refused, true) {
                self.shared.say(&format!("{reason}; what it refuses is not sent again"));
            }
        }
    }

    async fn failed(&mut self, reason: String, answered: bool) {
        if !answered {
            self.connection = None;
            self.send_again();
        }
        self.attempts += 1;
        let ill = self.ill_since.get_or_insert_with(Instant::now).elapsed() >= PATIENCE;
        if ill && !std::mem::replace(&mut self.told_ill, true) {
            self.shared.say(&format!("{reason}; the run goes on, and what is not delivered is kept meanwhile"));
        }
        *lock(&self.shared.trouble) = reason;
        let wait = backoff(&self.policy, u64::from(std::process::id()), 0, self.attempts);
        if self.shared.closing.is_cancelled() {
            return tokio::time::sleep(wait.min(HURRIED)).await;
        }
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = self.shared.closing.cancelled() => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::Router;
    use axum::routing::post;

    use super::*;
    use crate::metrics::PrometheusMetrics;

    fn push(port: u16, metrics: &PrometheusMetrics) -> Push {
        let service = Service::new("--to", &format!("http://127.0.0.1:{port}"), "").unwrap();
        let remember = Duration::from_secs(30);
        let receiver = Receiver { name: "test", values: "samples", service, path: "/", headers: Vec::new(), remember };
        Push::start(receiver, metrics.push_dropped("test"))
    }

    /// A receiver that answers one status after the other, the last one for good, and keeps what it was sent.
    async fn receiver(statuses: &[u16]) -> (u16, Arc<Mutex<Vec<Bytes>>>) {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (seen, statuses): (Arc<Mutex<Vec<Bytes>>>, _) = (Arc::default(), statuses.to_vec());
        let kept = Arc::clone(&seen);
        let answer = move |body: Bytes| async move {
            let mut kept = lock(&kept);
            let status = statuses[kept.len().min(statuses.len() - 1)];
            kept.push(body);
            StatusCode::from_u16(status).unwrap()
        };
        tokio::spawn(axum::serve(listener, Router::new().route("/", post(answer))).into_future());
        (port, seen)
    }

    #[tokio::test]
    async fn what_may_pass_is_tried_again_in_order_and_what_will_not_is_given_up() {
        let (port, seen) = receiver(&[503, 429, 200, 400, 200]).await;
        let metrics = PrometheusMetrics::new();
        let push = push(port, &metrics);
        for body in ["a", "b", "c"] {
            push.send(Bytes::from(body), 2);
        }
        push.finish().await;
        assert_eq!(*lock(&seen), ["a", "a", "a", "b", "c"]);
        assert!(metrics.render().contains("batchsql_push_dropped_total{destination=\"test\"} 2\n"));
        assert_eq!(lock(&push.shared.queue).bytes, 0);
    }

    #[tokio::test]
    async fn beyond_the_bound_the_oldest_goes_and_is_counted() {
        let metrics = PrometheusMetrics::new();
        let push = push(9, &metrics);
        let block = Bytes::from(vec![0; MOST_BYTES / 4]);
        for values in 1..=6 {
            push.send(block.clone(), values);
        }
        let queue = lock(&push.shared.queue);
        assert_eq!(queue.waiting.iter().map(|request| request.values).collect::<Vec<_>>(), [3, 4, 5, 6]);
        assert_eq!((queue.bytes, push.given_up()), (MOST_BYTES, 3));
    }

    #[tokio::test]
    async fn another_connection_means_that_what_was_delivered_of_late_is_sent_again_once() {
        let (port, _) = receiver(&[200]).await;
        let push = push(port, &PrometheusMetrics::new());
        let mut courier = Courier::new(Arc::clone(&push.shared));
        let on = |port: u16| Answer {
            status: StatusCode::OK,
            headers: http::HeaderMap::new(),
            body: Bytes::new(),
            connection: Some(([127, 0, 0, 1], port).into()),
        };
        let request = |body: &'static str, values| Request { number: 0, body: Bytes::from(body), values };
        courier.accepted(request("a", 1), &on(1));
        courier.accepted(request("b", 1), &on(1));
        let waits = |push: &Push| lock(&push.shared.queue).waiting.iter().map(|r| r.body.clone()).collect::<Vec<_>>();
        assert_eq!(waits(&push), Vec::<Bytes>::new());
        courier.accepted(request("c", 1), &on(2));
        assert_eq!(waits(&push), ["a", "b"]);
        lock(&push.shared.queue).waiting.clear();
        courier.accepted(request("a", 0), &on(2));
        courier.accepted(request("d", 1), &on(3));
        assert_eq!(waits(&push), ["c"], "what was sent again is not a third time");
    }
}
