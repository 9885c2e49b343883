//! An answer whose head has come and whose body is coming: becomes a [`Reply`], or what is left of one in a [`Failed`].

use std::time::Instant;

use super::intake::Intake;
use super::{Config, Failed, Headers, Kind, Reply, Request};
use crate::target::Failure;

/// One request on its way, as the connections see it.
pub(super) struct Call<'a> {
    pub(super) config: &'a Config,
    pub(super) request: &'a Request,
    /// Goes in front of the request's path.
    pub(super) prefix: &'a str,
    /// Host and port as the `host` header gives them.
    pub(super) host: &'a str,
    /// When the first request of a chain of redirects was sent, if this is not the first.
    pub(super) began: Option<Instant>,
}

impl Call<'_> {
    /// Whether a stream was asked for: as OpenAI's interface does, by `"stream": true` in the body.
    pub(super) fn asks_for_stream(&self) -> bool {
        let body = &self.request.body;
        self.request.kind == Kind::Chat
            && [&b"\"stream\":true"[..], b"\"stream\": true"].iter().any(|key| memchr::memmem::find(body, key).is_some())
    }
}

/// What has come of an answer.
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) headers: Headers,
    pub(super) intake: Intake,
    pub(super) sent: Instant,
    pub(super) first_byte: Instant,
    pub(super) bytes_sent: u64,
    pub(super) bytes_received: u64,
}

impl Answer {
    /// The answer whose last byte came at `done`, judged.
    pub(super) fn finish(self, done: Instant) -> Result<Reply, Failed> {
        let Self { status, headers, intake, sent, first_byte, bytes_sent, bytes_received } = self;
        let (body, chat, ended) = intake.finish(done);
        let reply = Reply { status, headers, body, chat, sent, first_byte, done, bytes_sent, bytes_received };
        match ended {
            Ok(()) => Ok(reply),
            Err(failure) => Err(Failed { failure, sent: Some(sent), partial: Some(Box::new(reply)) }),
        }
    }

    /// The answer that failed on the way.
    pub(super) fn fail(self, failure: Failure) -> Failed {
        let Self { status, headers, intake, sent, first_byte, bytes_sent, bytes_received } = self;
        let (body, chat) = intake.into_parts();
        let reply = Reply { status, headers, body, chat, sent, first_byte, done: Instant::now(), bytes_sent, bytes_received };
        Failed { failure, sent: Some(sent), partial: Some(Box::new(reply)) }
    }
}
