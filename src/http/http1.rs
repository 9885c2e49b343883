//! One connection that speaks HTTP/1.1, encrypted or not: an exchange after the other, over buffers that are kept.

use std::io;
use std::pin::Pin;
use std::task::{Context, Waker};
use std::time::Instant;

use tokio::io::{AsyncRead, AsyncWriteExt as _, ReadBuf};

use super::answer::{Answer, Call};
use super::codec::{self, Framing, Head};
use super::connect::Stream;
use super::deadline::{Alarm, Deadlines, Until};
use super::failure::{protocol, unknown, unsent};
use super::intake::Intake;
use super::{Failed, Headers, Reply};
use crate::target::{ErrorClass, Failure};

/// What is read at once, and the body that still goes into one write with its head.
const BUFFER_BYTES: usize = 16_384;

/// One connection.
pub(super) struct Connection {
    stream: Stream,
    /// Bytes read; `start..end` of them are not used yet.
    read: Vec<u8>,
    start: usize,
    end: usize,
    write: Vec<u8>,
    alarm: Alarm,
    /// Since when it has been idle.
    pub(super) idle_since: Instant,
}

/// An exchange's request, sent.
struct Sent {
    bytes: u64,
    /// Whether the server took all of it; one that did not may have answered all the same.
    whole: bool,
}

impl Connection {
    pub(super) fn new(stream: Stream) -> Self {
        let (read, write) = (vec![0; BUFFER_BYTES], Vec::with_capacity(1024));
        Self { stream, read, start: 0, end: 0, write, alarm: Alarm::default(), idle_since: Instant::now() }
    }

    /// Whether nothing has come since the last answer. Whatever comes that nobody asked for, most often the connection's end, means
    /// that it cannot be used.
    pub(super) fn is_quiet(&mut self) -> bool {
        let mut byte = [0];
        let mut cx = Context::from_waker(Waker::noop());
        self.start == self.end && Pin::new(&mut self.stream).poll_read(&mut cx, &mut ReadBuf::new(&mut byte)).is_pending()
    }

    /// Says goodbye.
    pub(super) async fn close(mut self) {
        let _ = self.stream.shutdown().await;
    }

    /// One request and its answer; also says whether the connection can be used again.
    pub(super) async fn exchange(&mut self, call: &Call<'_>, sent: Instant) -> Result<(Reply, bool), Failed> {
        let deadlines = Deadlines::new(call.config, call.began.unwrap_or(sent), sent);
        let request = self.send(call, &deadlines).await;
        let request = request.map_err(|failure| {
            let sent = (failure.applied == crate::target::Applied::Unknown).then_some(sent);
            Failed { failure, sent, partial: None }
        })?;
        let head = self.head(call, &deadlines).await;
        let (head, first_byte, now) = head.map_err(|failure| Failed { failure, sent: Some(sent), partial: None })?;
        let Head { bytes, about, framing, keep_alive } = head;
        let mut answer = Answer {
            status: about.status,
            headers: Headers::Raw(self.read[self.start..self.start + bytes].to_vec()),
            intake: Intake::new(&about, &call.request.kind, &call.config.limits, now),
            sent: call.began.unwrap_or(sent),
            first_byte,
            bytes_sent: request.bytes,
            bytes_received: bytes as u64,
        };
        self.start += bytes;
        let body = match answer.intake.expect(&about) {
            Ok(()) => self.body(framing, &mut answer, now, &deadlines).await,
            Err(failure) => Err(failure),
        };
        match body {
            Ok(done) => answer.finish(done).map(|reply| (reply, keep_alive && request.whole)),
            Err(failure) => Err(answer.fail(failure)),
        }
    }

    async fn send(&mut self, call: &Call<'_>, deadlines: &Deadlines<'_>) -> Result<Sent, Failure> {
        let body = &call.request.body;
        self.write.clear();
        codec::write_head(&mut self.write, call.request, call.prefix, call.host);
        let bytes = (self.write.len() + body.len()) as u64;
        let apart = if body.len() <= BUFFER_BYTES {
            self.write.extend_from_slice(body);
            &[][..]
        } else {
            body
        };
        let until = deadlines.whole();
        let mut taken = 0;
        let Self { stream, write, alarm, .. } = self;
        let written = alarm.within(until.at, write_all(stream, [write, apart], &mut taken)).await;
        match written.ok_or_else(|| deadlines.missed(until))? {
            Ok(()) => Ok(Sent { bytes, whole: true }),
            Err(error) if taken == 0 => Err(unsent(ErrorClass::Connection, format!("the connection was gone before the request: {error}"))),
            Err(_) => Ok(Sent { bytes: taken, whole: false }),
        }
    }

    /// The head of the final answer, when the answer's first byte came, and when what has come of its body did.
    async fn head(&mut self, call: &Call<'_>, deadlines: &Deadlines<'_>) -> Result<(Head, Instant, Instant), Failure> {
        let until = deadlines.head(call.asks_for_stream());
        let mut first_byte = None;
        loop {
            if self.fill(until, deadlines).await? == 0 {
                return Err(cut("before its answer's header had come whole"));
            }
            let now = Instant::now();
            let first_byte = *first_byte.get_or_insert(now);
            while let Some(head) = codec::read_head(&self.read[self.start..self.end], &call.request.method, &call.config.limits)? {
                match head.about.status {
                    101 => return Err(protocol("the server switches protocols, which the request did not ask for".to_owned())),
                    100..200 => self.start += head.bytes,
                    _ => return Ok((head, first_byte, now)),
                }
            }
        }
    }

    /// Reads the body, whose first bytes came at `now`, to its end and says when that came.
    async fn body(
        &mut self,
        mut framing: Framing,
        answer: &mut Answer,
        mut now: Instant,
        deadlines: &Deadlines<'_>,
    ) -> Result<Instant, Failure> {
        loop {
            let intake = &mut answer.intake;
            let (used, whole) = framing.take(&self.read[self.start..self.end], |piece| intake.push(piece, now))?;
            self.start += used;
            answer.bytes_received += used as u64;
            if whole {
                return Ok(now);
            }
            let came = self.fill(answer.intake.until(deadlines), deadlines).await?;
            now = Instant::now();
            match (came, &framing) {
                (0, Framing::Close) => return Ok(now),
                (0, _) => return Err(cut(&format!("in the midst of its answer, after {} bytes", answer.bytes_received))),
                _ => {}
            }
        }
    }

    /// Reads once; 0 bytes mean that the server has closed the connection.
    async fn fill(&mut self, until: Until, deadlines: &Deadlines<'_>) -> Result<usize, Failure> {
        let Self { stream, read, start, end, alarm, .. } = self;
        if *start == *end {
            (*start, *end) = (0, 0);
        } else if *end == read.len() {
            read.copy_within(*start..*end, 0);
            (*start, *end) = (0, *end - *start);
            // Only a head is kept whole, and heads are bounded.
            if *end == read.len() {
                read.resize(2 * *end, 0);
            }
        }
        let reading = std::future::poll_fn(|cx| {
            let mut buf = ReadBuf::new(&mut read[*end..]);
            Pin::new(&mut *stream).poll_read(cx, &mut buf).map_ok(|()| buf.filled().len())
        });
        match alarm.within(until.at, reading).await {
            Some(Ok(came)) => {
                *end += came;
                Ok(came)
            }
            Some(Err(error)) => Err(unknown(ErrorClass::Connection, format!("the connection broke while the answer was read: {error}"))),
            None => Err(deadlines.missed(until)),
        }
    }
}

fn cut(when: &str) -> Failure {
    unknown(ErrorClass::Connection, format!("the server closed the connection {when}"))
}

/// Writes all of `parts` and counts what was taken.
async fn write_all(stream: &mut Stream, parts: [&[u8]; 2], taken: &mut u64) -> io::Result<()> {
    for mut part in parts {
        while !part.is_empty() {
            let count = stream.write(part).await?;
            if count == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            *taken += count as u64;
            part = &part[count..];
        }
    }
    stream.flush().await
}
