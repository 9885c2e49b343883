//! OpenAI-compatible answers: the JSON of one, and the events of a stream.

use std::borrow::Cow;
use std::time::Instant;

use serde::Deserialize;

use super::Chat;
use super::failure::{protocol, quoted, too_large, unknown};
use super::sse::Parser;
use crate::scenario::http::ReplyLimits;
use crate::target::{ErrorClass, Failure};

/// Most events with content in one stream; each keeps a gap.
const EVENTS_MAX: u64 = 1 << 20;

/// An answer, or one chunk of a stream: what of it counts.
#[derive(Deserialize)]
struct Chunk<'a> {
    #[serde(borrow, default)]
    choices: Option<Vec<Choice<'a>>>,
    #[serde(default)]
    usage: Option<Usage>,
    #[serde(default)]
    error: Option<serde_json::Value>,
}

#[derive(Deserialize)]
struct Choice<'a> {
    #[serde(default)]
    index: u64,
    #[serde(borrow, default)]
    message: Option<Message<'a>>,
    #[serde(borrow, default)]
    delta: Option<Message<'a>>,
    #[serde(borrow, default)]
    finish_reason: Option<Cow<'a, str>>,
}

#[derive(Deserialize)]
struct Message<'a> {
    #[serde(borrow, default)]
    content: Option<Cow<'a, str>>,
}

#[derive(Deserialize)]
struct Usage {
    #[serde(default)]
    prompt_tokens: u64,
    #[serde(default)]
    completion_tokens: u64,
}

/// What the JSON of a whole answer says.
///
/// # Errors
/// When it is no JSON of this shape, or says that something went wrong.
pub(super) fn parse(body: &[u8]) -> Result<Chat, Failure> {
    let mut chat = Chat::default();
    let choice = read(body, "the reply", &mut chat)?;
    let message = choice.and_then(|choice| choice.message).ok_or_else(|| protocol("the reply has no choices[0].message".to_owned()))?;
    chat.content = message.content.unwrap_or_default().into_owned();
    Ok(chat)
}

/// Takes over what `json` says beside its content, and gives its choice 0.
fn read<'a>(json: &'a [u8], what: &str, chat: &mut Chat) -> Result<Option<Choice<'a>>, Failure> {
    if json.trim_ascii_start().first() != Some(&b'{') {
        return Err(protocol(format!("{what} is no JSON object: {:?}", quoted(&String::from_utf8_lossy(&json[..json.len().min(1000)])))));
    }
    let chunk: Chunk<'a> = serde_json::from_slice(json).map_err(|error| protocol(format!("{what} is no chat completion: {error}")))?;
    if let Some(error) = chunk.error {
        let told = error.pointer("/message").unwrap_or(&error);
        let told = told.as_str().map_or_else(|| told.to_string(), str::to_owned);
        return Err(unknown(ErrorClass::Status, format!("{what} tells of an error: {}", quoted(&told))));
    }
    if let Some(usage) = chunk.usage {
        chat.usage = Some((usage.prompt_tokens, usage.completion_tokens));
    }
    let mut choice = chunk.choices.into_iter().flatten().find(|choice| choice.index == 0);
    if let Some(reason) = choice.as_mut().and_then(|choice| choice.finish_reason.take()) {
        chat.finish_reason = Some(quoted(&reason));
    }
    Ok(choice)
}

/// A stream of chunks as it comes.
pub(super) struct Stream {
    parser: Parser,
    content_bytes: usize,
    chat: Chat,
    events: u64,
    last_event: Instant,
    last_content: Instant,
}

impl Stream {
    pub(super) fn new(limits: &ReplyLimits, now: Instant) -> Self {
        Self {
            parser: Parser::new(limits.event_bytes),
            content_bytes: limits.body_bytes,
            chat: Chat { streamed: true, ..Chat::default() },
            events: 0,
            last_event: now,
            last_content: now,
        }
    }

    /// When the last event came, once the first token has.
    pub(super) fn last_event(&self) -> Option<Instant> {
        self.chat.first_token.map(|_| self.last_event)
    }

    /// Takes bytes that came at `now`.
    pub(super) fn push(&mut self, bytes: &[u8], now: Instant) -> Result<(), Failure> {
        let Self { parser, content_bytes, chat, events, last_event, last_content } = self;
        parser.push(bytes, |data| {
            *events += 1;
            *last_event = now;
            if data == b"[DONE]" {
                chat.done = true;
                return Ok(());
            }
            let delta = read(data, "an event of the stream", chat)?.and_then(|choice| choice.delta);
            let content = delta.and_then(|delta| delta.content).unwrap_or_default();
            if content.is_empty() {
                return Ok(());
            }
            if chat.content.len() + content.len() > *content_bytes {
                return Err(too_large("the content of the stream", *content_bytes, "limits.body_bytes"));
            }
            if chat.events == EVENTS_MAX {
                return Err(unknown(ErrorClass::TooLarge, format!("the stream has more than {EVENTS_MAX} events with content")));
            }
            chat.content.push_str(&content);
            chat.events += 1;
            match chat.first_token {
                Some(_) => chat.gaps.push(now.saturating_duration_since(*last_content)),
                None => chat.first_token = Some(now),
            }
            *last_content = now;
            Ok(())
        })
    }

    /// Judges a stream that has ended as its framing says.
    ///
    /// # Errors
    /// When it was no event stream at all. One that ends early is left to whoever knows what it should have said.
    pub(super) fn finish(&self) -> Result<(), Failure> {
        match self.parser.foreign_lines() {
            lines @ 1.. if self.events == 0 => Err(protocol(format!(
                "the reply says it is text/event-stream, but it has not one event and {lines} lines that are no field of one"
            ))),
            _ => Ok(()),
        }
    }

    pub(super) fn into_chat(self) -> Chat {
        self.chat
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn limits() -> ReplyLimits {
        ReplyLimits { body_bytes: 64, event_bytes: 1024, ..ReplyLimits::default() }
    }

    fn delta(content: &str) -> Vec<u8> {
        format!("data: {{\"choices\":[{{\"index\":0,\"delta\":{{\"content\":{content}}}}}]}}\n\n").into_bytes()
    }

    #[test]
    fn an_answer_gives_its_text_and_usage() {
        let chat = parse(
            br#"{"id":"x","choices":[{"index":1,"message":{"content":"no"}},{"index":0,"message":{"role":"assistant","content":"a\nb"},
            "finish_reason":"stop"}],"usage":{"prompt_tokens":3,"completion_tokens":2,"total_tokens":5}}"#,
        )
        .unwrap();
        let expected = Chat { content: "a\nb".to_owned(), usage: Some((3, 2)), finish_reason: Some("stop".to_owned()), ..Chat::default() };
        assert_eq!(chat, expected);
        let called = parse(b"{\"choices\":[{\"message\":{\"content\":null}}],\"usage\":null,\"error\":null}");
        assert_eq!(called.unwrap(), Chat::default(), "a tool call has no text");
    }

    #[test]
    fn what_is_no_answer_is_told_apart() {
        let cases = [
            ("{\"choices\":[", ErrorClass::Protocol, "the reply is no chat completion"),
            ("[]", ErrorClass::Protocol, "the reply is no JSON object: \"[]\""),
            ("", ErrorClass::Protocol, "the reply is no JSON object: \"\""),
            ("{\"choices\":[]}", ErrorClass::Protocol, "the reply has no choices[0].message"),
            ("{\"error\":{\"message\":\"overloaded\",\"code\":1}}", ErrorClass::Status, "the reply tells of an error: overloaded"),
            ("{\"error\":\"overloaded\"}", ErrorClass::Status, "the reply tells of an error: overloaded"),
            ("{\"error\":{\"code\":7}}", ErrorClass::Status, "the reply tells of an error: {\"code\":7}"),
        ];
        for (body, class, message) in cases {
            let failure = parse(body.as_bytes()).unwrap_err();
            assert_eq!(failure.class, class, "{body}");
            assert!(failure.message.starts_with(message), "{}", failure.message);
        }
        let long = parse(format!("{{\"error\":\"{}\"}}", "é".repeat(1000)).as_bytes()).unwrap_err();
        assert_eq!(long.message.matches('é').count(), 200);
    }

    #[test]
    fn tokens_count_from_the_first_with_content() {
        let start = Instant::now();
        let mut stream = Stream::new(&limits(), start);
        let at = |millis| start + Duration::from_millis(millis);
        stream.push(b"data: {\"choices\":[{\"delta\":{\"role\":\"assistant\"}}]}\n\n", at(1)).unwrap();
        stream.push(&delta("\"\""), at(2)).unwrap();
        stream.push(&delta("null"), at(3)).unwrap();
        assert_eq!(stream.last_event(), None);
        stream.push(&delta("\"a\""), at(10)).unwrap();
        stream.push(b"data: {\"choices\":[],\"usage\":{\"prompt_tokens\":1,\"completion_tokens\":2}}\n\n", at(12)).unwrap();
        assert_eq!(stream.last_event(), Some(at(12)));
        stream.push(&[delta("\" b\""), delta("\"c\"")].concat(), at(15)).unwrap();
        stream.push(b"data: {\"choices\":[{\"delta\":{},\"finish_reason\":\"stop\"}]}\n\ndata: [DONE]\n\n", at(16)).unwrap();
        stream.finish().unwrap();
        let expected = Chat {
            streamed: true,
            content: "a bc".to_owned(),
            events: 3,
            first_token: Some(at(10)),
            gaps: vec![Duration::from_millis(5), Duration::ZERO],
            usage: Some((1, 2)),
            finish_reason: Some("stop".to_owned()),
            done: true,
        };
        assert_eq!(stream.into_chat(), expected);
    }

    #[test]
    fn content_is_bounded() {
        let now = Instant::now();
        let mut stream = Stream::new(&limits(), now);
        stream.push(&delta(&format!("\"{}\"", "x".repeat(64))), now).unwrap();
        assert_eq!(stream.push(&delta("\"y\""), now).unwrap_err().class, ErrorClass::TooLarge);
        assert_eq!(stream.into_chat().content.len(), 64);
    }

    #[test]
    fn a_page_that_calls_itself_a_stream_is_none() {
        let now = Instant::now();
        let mut stream = Stream::new(&limits(), now);
        stream.push(b"<html>\n<body>502</body>\n", now).unwrap();
        assert_eq!(stream.finish().unwrap_err().class, ErrorClass::Protocol);
    }
}
