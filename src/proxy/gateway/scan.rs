//! What a reply says, read on the side while it passes: tokens, their times, usage, and the stream's end. Nothing here alters or
//! holds up a byte, and what does not fit the bounds is left unread.

use std::borrow::Cow;
use std::time::{Duration, Instant};

use serde::Deserialize;

/// Most bytes of one event, or of a body that is no stream, that are read.
const MAX_BYTES: usize = 4 << 20;
/// Most gaps that are kept.
const MAX_GAPS: usize = 10_000;

/// Reads one reply.
#[derive(Debug)]
pub(super) struct Scanner {
    began: Instant,
    events: bool,
    /// Bytes of an unfinished line, or of the body.
    kept: Vec<u8>,
    too_long: bool,
    last: Option<Instant>,
    pub(super) bytes: u64,
    pub(super) first_token: Option<Duration>,
    pub(super) gaps: Vec<Duration>,
    /// Events with content.
    pub(super) tokens: u64,
    usage: Option<Usage>,
    /// Whether `data: [DONE]` came.
    pub(super) done: bool,
}

#[derive(Clone, Copy, Debug, Deserialize)]
pub(super) struct Usage {
    #[serde(default)]
    pub(super) prompt_tokens: u64,
    #[serde(default)]
    pub(super) completion_tokens: u64,
}

#[derive(Deserialize)]
struct Body {
    usage: Option<Usage>,
}

#[derive(Deserialize)]
struct Event<'a> {
    #[serde(borrow, default)]
    choices: Vec<Choice<'a>>,
    usage: Option<Usage>,
}

#[derive(Deserialize)]
struct Choice<'a> {
    #[serde(borrow)]
    delta: Option<Delta<'a>>,
}

#[derive(Deserialize)]
struct Delta<'a> {
    #[serde(borrow)]
    content: Option<Cow<'a, str>>,
}

impl Scanner {
    /// `events` says whether the reply is an event stream; times count from `began`.
    pub(super) fn new(events: bool, began: Instant) -> Self {
        Self {
            began,
            events,
            kept: Vec::new(),
            too_long: false,
            last: None,
            bytes: 0,
            first_token: None,
            gaps: Vec::new(),
            tokens: 0,
            usage: None,
            done: false,
        }
    }

    /// Reads a chunk that came at `now`.
    pub(super) fn take(&mut self, chunk: &[u8], now: Instant) {
        self.bytes += chunk.len() as u64;
        if !self.events {
            return self.keep(chunk);
        }
        let mut rest = chunk;
        while let Some(end) = memchr::memchr(b'\n', rest) {
            let (line, after) = (&rest[..end], &rest[end + 1..]);
            rest = after;
            if self.kept.is_empty() && !self.too_long {
                self.line(line, now);
            } else {
                self.keep(line);
                let line = std::mem::take(&mut self.kept);
                if !std::mem::take(&mut self.too_long) {
                    self.line(&line, now);
                }
            }
        }
        self.keep(rest);
    }

    /// Usage as the upstream told it, once the reply has ended.
    pub(super) fn usage(&mut self) -> Option<Usage> {
        if !self.events && !self.too_long && self.usage.is_none() {
            self.usage = serde_json::from_slice::<Body>(&self.kept).ok().and_then(|body| body.usage);
        }
        self.usage
    }

    fn keep(&mut self, bytes: &[u8]) {
        self.too_long |= self.kept.len() + bytes.len() > MAX_BYTES;
        if self.too_long {
            self.kept = Vec::new();
        } else {
            self.kept.extend_from_slice(bytes);
        }
    }

    fn line(&mut self, line: &[u8], now: Instant) {
        let Some(data) = line.strip_prefix(b"data:").map(<[u8]>::trim_ascii) else { return };
        if data == b"[DONE]" {
            self.done = true;
            return;
        }
        // What is no event of a model's reply passes unread.
        let Ok(event) = serde_json::from_slice::<Event<'_>>(data) else { return };
        self.usage = event.usage.or(self.usage);
        let content = event.choices.first().and_then(|choice| choice.delta.as_ref()?.content.as_deref());
        if content.is_none_or(str::is_empty) {
            return;
        }
        self.tokens += 1;
        self.first_token.get_or_insert(now - self.began);
        if let Some(last) = self.last.replace(now).filter(|_| self.gaps.len() < MAX_GAPS) {
            self.gaps.push(now - last);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STREAM: &str = ": hello\r\ndata: {\"choices\":[{\"delta\":{\"role\":\"assistant\",\"content\":\"\"}}]}\r\n\r\ndata: {\"choices\":[{\"delta\":{\"content\":\"a\\n\"}}]}\n\ndata:{\"choices\":[{\"delta\":{\"content\":\"b\"}}]}\n\ndata: nonsense\n\ndata: {\"choices\":[],\"usage\":{\"prompt_tokens\":7,\"completion_tokens\":2}}\n\ndata: [DONE]\n\n";

    #[test]
    fn a_stream_is_read_however_it_is_cut_into_chunks() {
        for size in [1, 2, 3, 7, 50, STREAM.len()] {
            let began = Instant::now();
            let mut scanner = Scanner::new(true, began);
            for (number, chunk) in STREAM.as_bytes().chunks(size).enumerate() {
                scanner.take(chunk, began + Duration::from_millis(number as u64));
                let passed = (number * size + chunk.len()).min(STREAM.len());
                assert_eq!(scanner.done, STREAM[..passed].contains("[DONE]\n"), "{size}");
            }
            // The chunk in which a line ends.
            let ends = |line: &str| ((STREAM.find(line).unwrap() + line.len()) / size) as u64;
            let (first, second) = (ends("\"content\":\"a\\n\"}}]}"), ends("\"content\":\"b\"}}]}"));
            assert_eq!(scanner.first_token, Some(Duration::from_millis(first)), "{size}");
            assert_eq!(scanner.gaps, [Duration::from_millis(second - first)]);
            let usage = scanner.usage().unwrap();
            assert_eq!((scanner.tokens, usage.prompt_tokens, usage.completion_tokens, scanner.done), (2, 7, 2, true));
            assert_eq!(scanner.bytes, STREAM.len() as u64);
        }
    }

    #[test]
    fn usage_of_a_plain_body_is_read_at_its_end() {
        let mut scanner = Scanner::new(false, Instant::now());
        for chunk in
            br#"{"choices":[{"message":{"content":"x"}}],"usage":{"prompt_tokens":3,"completion_tokens":4,"total_tokens":7}}"#.chunks(10)
        {
            scanner.take(chunk, Instant::now());
        }
        let usage = scanner.usage().unwrap();
        assert_eq!((usage.prompt_tokens, usage.completion_tokens, scanner.first_token), (3, 4, None));
    }

    #[test]
    fn what_never_ends_takes_no_memory() {
        let now = Instant::now();
        for events in [true, false] {
            let mut scanner = Scanner::new(events, now);
            for _ in 0..100 {
                scanner.take(&[b'x'; 1 << 16], now);
            }
            assert!(scanner.kept.capacity() == 0 && scanner.usage().is_none());
            scanner.take(b"\ndata: {\"choices\":[{\"delta\":{\"content\":\"a\"}}]}\n", now);
            assert_eq!(scanner.tokens, u64::from(events), "after an event that is too long the next is read");
        }
    }
}
