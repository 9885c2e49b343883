//! What fuzzing asserts of the HTTP client: the same bytes in other pieces are the same answer, and limits hold.

use std::time::Instant;

use http::Method;

use super::codec::{Head, read_head};
use super::intake::{About, Encoding, Intake};
use super::sse::Parser;
use super::{Chat, Kind};
use crate::fuzz::pieces;
use crate::scenario::http::ReplyLimits;
use crate::target::{ErrorClass, Failure};

const EVENT_BYTES: usize = 64;
const BODY_BYTES: usize = 4096;

/// An event stream: the same events, or the same refusal, however the bytes were cut; no event is larger than allowed.
///
/// # Panics
/// If that does not hold.
pub fn sse(input: &[u8]) {
    let (pieces, whole) = pieces(input);
    let events = |pieces: &[&[u8]]| {
        let mut parser = Parser::new(EVENT_BYTES);
        let mut events = Vec::new();
        let pushed = pieces.iter().try_for_each(|piece| {
            parser.push(piece, |event| {
                assert!(event.len() <= EVENT_BYTES);
                events.push(event.to_vec());
                Ok(())
            })
        });
        (events, parser.foreign_lines(), pushed.map_err(|failure| failure.class))
    };
    assert_eq!(events(&pieces), events(&[whole]));
}

/// An HTTP/1.1 answer: its head is read from the first bytes that hold it whole and its body comes out the same, however they were
/// cut; neither is larger than allowed.
///
/// # Panics
/// If that does not hold.
pub fn http(input: &[u8]) {
    let (pieces, whole) = pieces(input);
    let limits = ReplyLimits { body_bytes: BODY_BYTES, event_bytes: EVENT_BYTES, header_bytes: 1024, ..ReplyLimits::default() };
    let at_once = answer(&[whole], &limits);
    let in_pieces = answer(&pieces, &limits);
    assert_eq!(in_pieces, at_once);
    let Ok(Some(Answer { body, .. })) = at_once else { return };
    assert!(body.len() <= BODY_BYTES);
}

/// Content, events, usage.
type Told = (String, u64, Option<(u64, u64)>);

#[derive(Debug, PartialEq)]
struct Answer {
    status: u16,
    head_bytes: usize,
    keep_alive: bool,
    body: Vec<u8>,
    chat: Option<Told>,
    /// Without a class where the pieces decide what is seen first: of a compressed body that is broken and too large.
    ended: Result<(), Option<ErrorClass>>,
}

/// Reads an answer as the client does; `None` if its head is not whole. Of a head that is refused for two reasons the pieces decide
/// which is seen first, so none is told.
fn answer(pieces: &[&[u8]], limits: &ReplyLimits) -> Result<Option<Answer>, ()> {
    let mut bytes: Vec<u8> = Vec::new();
    let mut pieces = pieces.iter();
    let head = loop {
        let Some(piece) = pieces.next() else { return Ok(None) };
        bytes.extend_from_slice(piece);
        if let Some(head) = read_head(&bytes, &Method::GET, limits).map_err(drop)? {
            break head;
        }
    };
    let rest = bytes.split_off(head.bytes);
    let Head { about, mut framing, keep_alive, bytes: head_bytes } = head;
    let now = Instant::now();
    let mut intake = Intake::new(&about, &Kind::Chat, limits, now);
    let mut ended = intake.expect(&about).map(|()| false);
    for piece in std::iter::once(rest.as_slice()).chain(pieces.copied()) {
        if ended.as_ref().is_ok_and(|ended| !ended) {
            ended = framing.take(piece, |bytes| intake.push(bytes, now)).map(|(_, ended)| ended);
        }
    }
    let About { status, encoding, .. } = about;
    let class = |failure: Failure| (encoding == Encoding::Identity).then_some(failure.class);
    let told = |chat: Chat| (chat.content, chat.events, chat.usage);
    let answer = match ended {
        Ok(_) => {
            let (body, chat, ended) = intake.finish(now);
            Answer { status, head_bytes, keep_alive, body, chat: chat.map(told), ended: ended.map_err(class) }
        }
        // How much had come before it was refused depends on the pieces.
        Err(failure) => Answer { status, head_bytes, keep_alive, body: Vec::new(), chat: None, ended: Err(class(failure)) },
    };
    Ok(Some(answer))
}
