//! A reply as it goes out: at once, or token by token at the pace asked for, and cut where it is to be cut.

use std::time::Duration;

use bytes::Bytes;
use futures::stream::{self, BoxStream, StreamExt as _};
use http_body_util::{Either, Full, StreamBody};
use hyper::body::Frame;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::chat::{DONE, Reply};
use super::ledger::{Ended, Entry};
use super::plan::Plan;

/// What a reply consists of: bytes that are there, or those of a stream.
pub(super) type Body = Either<Full<Bytes>, StreamBody<BoxStream<'static, Result<Frame<Bytes>, Cut>>>>;

/// The end of a connection that is cut as asked for.
#[derive(Debug, thiserror::Error)]
#[error("cut as asked for")]
pub(super) struct Cut;

/// Waits, but not beyond the order to stop.
pub(super) async fn pause(length: Duration, stop: &CancellationToken) {
    if !length.is_zero() {
        until(Instant::now() + length, stop).await;
    }
}

async fn until(instant: Instant, stop: &CancellationToken) {
    tokio::select! {
        () = tokio::time::sleep_until(instant) => {}
        () = stop.cancelled() => {}
    }
}

/// Half of `bytes`, then the cut. Needs a length in the header, or half would look whole.
pub(super) fn half(bytes: &Bytes) -> Body {
    let half = bytes.slice(..bytes.len() / 2);
    let cut = stream::once(async {
        sent().await;
        Err(Cut)
    });
    Either::Right(StreamBody::new(stream::iter([Ok(Frame::data(half))]).chain(cut).boxed()))
}

/// Lets the connection send what it was given: what still lies with it when it is cut is lost.
async fn sent() {
    tokio::task::yield_now().await;
}

/// A stream under way; `entry` knows how many tokens went out.
pub(super) struct Streaming {
    pub(super) reply: Reply,
    pub(super) plan: Plan,
    pub(super) entry: Entry,
    pub(super) stop: CancellationToken,
    /// When the next token is due.
    due: Instant,
    next: Next,
}

/// The next event.
enum Next {
    Role,
    Token,
    Usage,
    Done,
    End,
}

impl Streaming {
    pub(super) fn new(reply: Reply, plan: Plan, entry: Entry, stop: CancellationToken) -> Self {
        Self { reply, plan, entry, stop, due: Instant::now(), next: Next::Role }
    }

    pub(super) fn into_body(self) -> Body {
        let frames = stream::unfold(self, async |mut streaming| {
            let event = streaming.next().await?;
            Some((event.map(Frame::data), streaming))
        });
        Either::Right(StreamBody::new(frames.boxed()))
    }

    async fn next(&mut self) -> Option<Result<Bytes, Cut>> {
        match self.next {
            Next::Role => {
                self.next = Next::Token;
                Some(Ok(self.reply.role()))
            }
            Next::Token => self.token().await,
            Next::Usage => {
                self.next = Next::Done;
                Some(Ok(self.reply.usage().unwrap_or_else(|| self.done())))
            }
            Next::Done => Some(Ok(self.done())),
            Next::End => None,
        }
    }

    /// The next token, or what stands in its place when all are out or the connection is to be cut.
    async fn token(&mut self) -> Option<Result<Bytes, Cut>> {
        let sent_tokens = self.entry.record.tokens;
        if self.plan.cut == Some(sent_tokens) {
            sent().await;
            self.entry.end(Ended::Cut);
            self.next = Next::End;
            return Some(Err(Cut));
        }
        if sent_tokens as usize == self.reply.tokens.len() {
            self.next = Next::Usage;
            return Some(Ok(self.reply.finish()));
        }
        self.pace(sent_tokens).await;
        self.entry.record.tokens += 1;
        Some(Ok(self.reply.token(sent_tokens as usize)))
    }

    /// Waits until token `number` is due. What a late timer takes is made up for, so that the pace is kept on the whole.
    async fn pace(&mut self, number: u32) {
        if number > 0 {
            self.due += self.plan.next_interval();
        }
        if let Some((_, length)) = self.plan.stall.filter(|(at, _)| *at == number) {
            self.due += length;
        }
        if self.due > Instant::now() {
            until(self.due, &self.stop).await;
        }
    }

    fn done(&mut self) -> Bytes {
        // Before the client can have it: who has the whole reply finds its line.
        self.entry.end(Ended::Whole);
        self.next = Next::End;
        DONE
    }
}
