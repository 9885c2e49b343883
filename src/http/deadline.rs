//! When a wait of an exchange ends: what the limits say, and one timer a connection that is armed rarely. A limit is usually met
//! long before its time, so the timer is left as it is while it fires before the deadline, and armed again only once it has fired.

use std::future::Future;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tokio::time::Sleep;

use super::Config;
use super::failure::unknown;
use crate::target::{ErrorClass, Failure};

/// A limit nobody waits out: keeps the arithmetic of instants from overflowing.
const LONGEST: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// When a wait ends, and what it is then counted as.
#[derive(Clone, Copy, Debug)]
pub(super) struct Until {
    pub(super) at: Instant,
    class: ErrorClass,
}

impl Until {
    fn new(from: Instant, limit: Duration, class: ErrorClass) -> Self {
        Self { at: from + limit.min(LONGEST), class }
    }

    fn or(self, other: Self) -> Self {
        if other.at < self.at { other } else { self }
    }
}

/// The limits of one exchange.
#[derive(Clone, Copy)]
pub(super) struct Deadlines<'a> {
    config: &'a Config,
    sent: Instant,
    total: Until,
}

impl<'a> Deadlines<'a> {
    /// `began` is when the first request of a chain of redirects was sent; the limit on the whole counts from there.
    pub(super) fn new(config: &'a Config, began: Instant, sent: Instant) -> Self {
        Self { config, sent, total: Until::new(began, config.timeouts.total.0, ErrorClass::TotalTimeout) }
    }

    /// For the request to be sent, and for a body.
    pub(super) fn whole(&self) -> Until {
        self.total
    }

    /// For the answer's head. Who asked for a stream waits for its first token from the send on.
    pub(super) fn head(&self, stream: bool) -> Until {
        let until = match self.config.settings.response_header_timeout {
            Some(limit) => self.total.or(Until::new(self.sent, limit.0, ErrorClass::HeaderTimeout)),
            None => self.total,
        };
        if stream { until.or(self.first_token()) } else { until }
    }

    /// For more of a stream whose last event after its first token came at `last`, if that has come.
    pub(super) fn event(&self, last: Option<Instant>) -> Until {
        self.total.or(match last {
            Some(last) => Until::new(last, self.config.timeouts.between_tokens.0, ErrorClass::TokenGapTimeout),
            None => self.first_token(),
        })
    }

    fn first_token(&self) -> Until {
        Until::new(self.sent, self.config.timeouts.first_token.0, ErrorClass::FirstTokenTimeout)
    }

    /// The failure of a wait that ended at `until`.
    pub(super) fn missed(&self, until: Until) -> Failure {
        let timeouts = &self.config.timeouts;
        let header = self.config.settings.response_header_timeout.unwrap_or_default();
        let (what, limit, key) = match until.class {
            ErrorClass::HeaderTimeout => ("no header of a reply", header, "client.response_header_timeout"),
            ErrorClass::FirstTokenTimeout => ("no token with content", timeouts.first_token, "timeouts.first_token"),
            ErrorClass::TokenGapTimeout => ("no further event of the stream", timeouts.between_tokens, "timeouts.between_tokens"),
            _ => ("no whole reply", timeouts.total, "timeouts.total"),
        };
        unknown(until.class, format!("{what} within {} (target.http.{key})", humantime::format_duration(limit.0)))
    }
}

/// One timer, kept over many waits.
#[derive(Default)]
pub(super) struct Alarm(Option<Pin<Box<Sleep>>>);

impl Alarm {
    /// Ready once `at` has passed.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>, at: Instant) -> Poll<()> {
        let at = tokio::time::Instant::from_std(at);
        let sleep = self.0.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(at)));
        if at < sleep.deadline() {
            sleep.as_mut().reset(at);
        }
        while sleep.as_mut().poll(cx).is_ready() {
            if at <= sleep.deadline() {
                return Poll::Ready(());
            }
            sleep.as_mut().reset(at);
        }
        Poll::Pending
    }

    /// What `future` gives, or `None` if it has given nothing by `at`.
    pub(super) async fn within<F: Future>(&mut self, at: Instant, future: F) -> Option<F::Output> {
        let mut future = pin!(future);
        std::future::poll_fn(|cx| match future.as_mut().poll(cx) {
            Poll::Ready(output) => Poll::Ready(Some(output)),
            Poll::Pending => self.poll(cx, at).map(|()| None),
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn one_alarm_serves_later_and_earlier_deadlines() {
        let mut alarm = Alarm::default();
        for millis in [20, 50, 10, 30] {
            let at = Instant::now() + Duration::from_millis(millis);
            assert_eq!(alarm.within(at, std::future::pending::<()>()).await, None);
            assert!(Instant::now() >= at, "{millis} ms are waited for");
            // Arms it for much later: the next round must bring that forward.
            let far = Instant::now() + LONGEST;
            assert_eq!(alarm.within(far, tokio::task::yield_now()).await, Some(()));
        }
    }
}
