//! Takes in the body of an answer as it comes: decompresses it, bounds it, and keeps it or reads its events.

use std::io::{self, Write};
use std::time::Instant;

use flate2::write::{MultiGzDecoder, ZlibDecoder};

use super::deadline::{Deadlines, Until};
use super::failure::{protocol, quoted, too_large};
use super::{Chat, Kind, chat};
use crate::scenario::http::ReplyLimits;
use crate::target::Failure;

/// Most bytes that are set aside because a head promises them.
const RESERVED_BYTES: usize = 1 << 20;

/// How a body is compressed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum Encoding {
    #[default]
    Identity,
    Gzip,
    Deflate,
    /// Something that was not asked for.
    Other(String),
}

impl Encoding {
    /// The value of a `content-encoding` header.
    pub(super) fn parse(value: &[u8]) -> Self {
        match value.trim_ascii() {
            b"" => Encoding::Identity,
            value if value.eq_ignore_ascii_case(b"identity") => Encoding::Identity,
            value if value.eq_ignore_ascii_case(b"gzip") || value.eq_ignore_ascii_case(b"x-gzip") => Encoding::Gzip,
            value if value.eq_ignore_ascii_case(b"deflate") => Encoding::Deflate,
            value => Encoding::Other(quoted(&String::from_utf8_lossy(value))),
        }
    }
}

/// What the head says of the body.
pub(super) struct About {
    pub(super) status: u16,
    pub(super) encoding: Encoding,
    pub(super) event_stream: bool,
    /// Its length as sent, if the head tells.
    pub(super) length: Option<u64>,
}

/// Whether a `content-type` is that of an event stream.
pub(super) fn is_event_stream(content_type: &[u8]) -> bool {
    let essence = content_type.split(|byte| *byte == b';').next().unwrap_or_default();
    essence.trim_ascii().eq_ignore_ascii_case(b"text/event-stream")
}

/// A body that is being read.
pub(super) struct Intake {
    inflate: Option<Inflate>,
    content: Content,
    body_bytes: usize,
    /// Whether the body is a chat answer in JSON.
    json_chat: bool,
}

enum Content {
    Body(Vec<u8>),
    Events(Box<chat::Stream>),
}

enum Inflate {
    Gzip(Box<MultiGzDecoder<Bounded>>),
    Deflate(Box<ZlibDecoder<Bounded>>),
}

impl Intake {
    /// A body still to come.
    pub(super) fn new(about: &About, kind: &Kind, limits: &ReplyLimits, now: Instant) -> Self {
        let room = || Bounded { bytes: Vec::new(), limit: limits.body_bytes, full: false };
        let inflate = match about.encoding {
            Encoding::Gzip => Some(Inflate::Gzip(Box::new(MultiGzDecoder::new(room())))),
            Encoding::Deflate => Some(Inflate::Deflate(Box::new(ZlibDecoder::new(room())))),
            Encoding::Identity | Encoding::Other(_) => None,
        };
        // An error answer is no chat answer, whatever was asked for.
        let chat = *kind == Kind::Chat && (200..300).contains(&about.status);
        let content =
            if chat && about.event_stream { Content::Events(Box::new(chat::Stream::new(limits, now))) } else { Content::Body(Vec::new()) };
        Self { inflate, content, body_bytes: limits.body_bytes, json_chat: chat && !about.event_stream }
    }

    /// Refuses a body that cannot be taken in, before any of it is read, and makes room for one that can.
    pub(super) fn expect(&mut self, about: &About) -> Result<(), Failure> {
        if about.length == Some(0) {
            return Ok(());
        }
        if let Encoding::Other(name) = &about.encoding {
            return Err(protocol(format!("the reply has content-encoding {name:?}; the client decodes gzip and deflate, ask for these")));
        }
        if let (Content::Body(body), Some(length)) = (&mut self.content, about.length) {
            if length > self.body_bytes as u64 {
                return Err(too_large("the body", self.body_bytes, "limits.body_bytes"));
            }
            body.reserve_exact((length as usize).min(RESERVED_BYTES));
        }
        Ok(())
    }

    /// Takes bytes that came at `now`.
    pub(super) fn push(&mut self, bytes: &[u8], now: Instant) -> Result<(), Failure> {
        match &mut self.inflate {
            None => self.accept(bytes, now),
            Some(inflate) => {
                let inflated = inflate.push(bytes, self.body_bytes)?;
                self.accept(&inflated, now)
            }
        }
    }

    fn accept(&mut self, bytes: &[u8], now: Instant) -> Result<(), Failure> {
        match &mut self.content {
            Content::Events(stream) => stream.push(bytes, now),
            Content::Body(body) if body.len() + bytes.len() > self.body_bytes => {
                Err(too_large("the body", self.body_bytes, "limits.body_bytes"))
            }
            Content::Body(body) => {
                body.extend_from_slice(bytes);
                Ok(())
            }
        }
    }

    /// How long to wait for more.
    pub(super) fn until(&self, deadlines: &Deadlines<'_>) -> Until {
        match &self.content {
            Content::Body(_) => deadlines.whole(),
            Content::Events(stream) => deadlines.event(stream.last_event()),
        }
    }

    /// Judges a body that has ended as its framing says, and gives what it was, also of one that is not right.
    pub(super) fn finish(mut self, now: Instant) -> (Vec<u8>, Option<Chat>, Result<(), Failure>) {
        let ended = self.end(now);
        let json_chat = self.json_chat;
        match (self.into_parts(), ended) {
            ((body, None), Ok(())) if json_chat => match chat::parse(&body) {
                Ok(chat) => (body, Some(chat), Ok(())),
                Err(failure) => (body, None, Err(failure)),
            },
            ((body, chat), ended) => (body, chat, ended),
        }
    }

    fn end(&mut self, now: Instant) -> Result<(), Failure> {
        if let Some(inflate) = &mut self.inflate {
            let rest = inflate.finish(self.body_bytes)?;
            self.accept(&rest, now)?;
        }
        match &self.content {
            Content::Events(stream) => stream.finish(),
            Content::Body(_) => Ok(()),
        }
    }

    /// What has come so far.
    pub(super) fn into_parts(self) -> (Vec<u8>, Option<Chat>) {
        match self.content {
            Content::Body(body) => (body, None),
            Content::Events(stream) => (Vec::new(), Some(stream.into_chat())),
        }
    }
}

impl Inflate {
    /// What `bytes` inflate to, at most `limit` bytes: who sends a bomb is stopped while it goes off.
    fn push(&mut self, bytes: &[u8], limit: usize) -> Result<Vec<u8>, Failure> {
        let written = match self {
            // The flush brings out what the decoder would keep for later, e.g. an event of a stream.
            Inflate::Gzip(decoder) => decoder.write_all(bytes).and_then(|()| decoder.flush()),
            Inflate::Deflate(decoder) => decoder.write_all(bytes).and_then(|()| decoder.flush()),
        };
        self.take(written, limit)
    }

    fn finish(&mut self, limit: usize) -> Result<Vec<u8>, Failure> {
        let finished = match self {
            Inflate::Gzip(decoder) => decoder.try_finish(),
            Inflate::Deflate(decoder) => decoder.try_finish(),
        };
        self.take(finished, limit)
    }

    fn take(&mut self, written: io::Result<()>, limit: usize) -> Result<Vec<u8>, Failure> {
        let room = match self {
            Inflate::Gzip(decoder) => decoder.get_mut(),
            Inflate::Deflate(decoder) => decoder.get_mut(),
        };
        match written {
            Ok(()) => Ok(std::mem::take(&mut room.bytes)),
            Err(_) if room.full => Err(too_large("the decompressed body", limit, "limits.body_bytes")),
            Err(error) => Err(protocol(format!("the body cannot be decompressed: {error}"))),
        }
    }
}

/// Room for what one piece inflates to.
struct Bounded {
    bytes: Vec<u8>,
    limit: usize,
    full: bool,
}

impl Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.bytes.len() + bytes.len() > self.limit {
            self.full = true;
            return Err(io::Error::other("larger than the limit"));
        }
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use flate2::Compression;
    use flate2::write::{GzEncoder, ZlibEncoder};

    use super::*;
    use crate::target::ErrorClass;

    fn intake(encoding: Encoding, kind: &Kind, event_stream: bool) -> Intake {
        let limits = ReplyLimits { body_bytes: 4096, ..ReplyLimits::default() };
        Intake::new(&About { status: 200, encoding, event_stream, length: None }, kind, &limits, Instant::now())
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn compressed_bodies_come_out_as_they_were_however_they_are_cut() {
        let text: Vec<u8> = (0..4000u32).map(|n| (n * n % 251) as u8).collect();
        let mut zlib = ZlibEncoder::new(Vec::new(), Compression::fast());
        zlib.write_all(&text).unwrap();
        for (encoding, sent) in [(Encoding::Gzip, gzip(&text)), (Encoding::Deflate, zlib.finish().unwrap())] {
            for size in [1, 7, sent.len()] {
                let mut intake = intake(encoding.clone(), &Kind::Plain, false);
                sent.chunks(size).for_each(|piece| intake.push(piece, Instant::now()).unwrap());
                let (body, chat, ended) = intake.finish(Instant::now());
                ended.unwrap();
                assert_eq!((body, chat), (text.clone(), None), "{encoding:?} by {size}");
            }
        }
    }

    #[test]
    fn a_bomb_is_stopped_with_little_kept() {
        let bomb = gzip(&vec![0; 64 << 20]);
        let mut intake = intake(Encoding::Gzip, &Kind::Plain, false);
        let failure = intake.push(&bomb, Instant::now()).unwrap_err();
        assert_eq!(failure.class, ErrorClass::TooLarge);
        let Some(Inflate::Gzip(decoder)) = &intake.inflate else { panic!("inflates") };
        assert!(decoder.get_ref().bytes.capacity() <= 8192);
    }

    #[test]
    fn what_is_cut_or_no_compression_is_told() {
        let sent = gzip(b"some text");
        let mut cut = intake(Encoding::Gzip, &Kind::Plain, false);
        cut.push(&sent[..sent.len() - 9], Instant::now()).unwrap();
        assert_eq!(cut.finish(Instant::now()).2.unwrap_err().class, ErrorClass::Protocol);
        let mut plain = intake(Encoding::Gzip, &Kind::Plain, false);
        let failed = plain.push(b"this is no gzip at all", Instant::now()).and_then(|()| plain.finish(Instant::now()).2);
        assert_eq!(failed.unwrap_err().class, ErrorClass::Protocol);
    }

    #[test]
    fn events_come_out_of_a_compressed_stream_at_once() {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(b"data: {\"choices\":[{\"delta\":{\"content\":\"hi\"}}]}\n\n").unwrap();
        encoder.flush().unwrap();
        let mut intake = intake(Encoding::Gzip, &Kind::Chat, true);
        intake.push(encoder.get_ref(), Instant::now()).unwrap();
        assert_eq!(intake.into_parts().1.unwrap().content, "hi");
    }

    #[test]
    fn headers_are_understood() {
        assert_eq!(Encoding::parse(b" GZip "), Encoding::Gzip);
        assert_eq!(Encoding::parse(b"identity"), Encoding::Identity);
        assert_eq!(Encoding::parse(b"br"), Encoding::Other("br".to_owned()));
        assert!(is_event_stream(b"Text/Event-Stream; charset=utf-8"));
        assert!(!is_event_stream(b"text/event-streams"));
    }
}
