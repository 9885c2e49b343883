//! HTTP/1.1 as bytes: writes a request's head, reads an answer's, and takes a body apart as its framing says. No socket here.

use std::mem::MaybeUninit;

use http::{Method, header};

use super::Request;
use super::failure::{protocol, too_large, unknown};
use super::intake::{self, About, Encoding};
use crate::scenario::http::ReplyLimits;
use crate::target::{ErrorClass, Failure};

/// Most headers of an answer.
pub(super) const HEADERS_MAX: usize = 256;

/// Longest line that announces a chunk, and most bytes of trailers: nobody needs either.
const CHUNK_LINE_BYTES: usize = 4096;
const TRAILER_BYTES: usize = 65_536;

/// Writes the head of a request: `prefix` goes in front of its path.
pub(super) fn write_head(out: &mut Vec<u8>, request: &Request, prefix: &str, host: &str) {
    let mut parts = |parts: &[&[u8]]| parts.iter().for_each(|part| out.extend_from_slice(part));
    parts(&[
        request.method.as_str().as_bytes(),
        b" ",
        prefix.as_bytes(),
        request.target.as_bytes(),
        b" HTTP/1.1\r\nhost: ",
        host.as_bytes(),
    ]);
    for (name, value) in &request.headers {
        if !is_ours(name) {
            parts(&[b"\r\n", name.as_str().as_bytes(), b": ", value.as_bytes()]);
        }
    }
    if !request.body.is_empty() || request.method == Method::POST || request.method == Method::PUT {
        parts(&[b"\r\ncontent-length: ", request.body.len().to_string().as_bytes()]);
    }
    parts(&[b"\r\n\r\n"]);
}

/// Headers that the client sets itself.
pub(super) fn is_ours(name: &header::HeaderName) -> bool {
    *name == header::HOST || *name == header::CONTENT_LENGTH || *name == header::TRANSFER_ENCODING
}

/// The head of an answer.
pub(super) struct Head {
    /// Its bytes.
    pub(super) bytes: usize,
    pub(super) about: About,
    pub(super) framing: Framing,
    /// Whether the server keeps the connection.
    pub(super) keep_alive: bool,
}

/// Where a body ends.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Framing {
    /// After so many more bytes.
    Length(u64),
    /// With its last chunk.
    Chunked(Chunks),
    /// With the connection.
    Close,
}

/// Reads the head that `bytes` begin with; `None` if more is to come.
///
/// # Errors
/// When it is no head of HTTP/1, or larger than is allowed.
pub(super) fn read_head(bytes: &[u8], method: &Method, limits: &ReplyLimits) -> Result<Option<Head>, Failure> {
    let mut headers = [const { MaybeUninit::uninit() }; HEADERS_MAX];
    let mut response = httparse::Response::new(&mut []);
    let parsed = httparse::ParserConfig::default().parse_response_with_uninit_headers(&mut response, bytes, &mut headers);
    let length = match parsed {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) if bytes.len() >= limits.header_bytes => return Err(header_too_large(limits)),
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(httparse::Error::TooManyHeaders) => return Err(too_many_headers()),
        Err(error) => return Err(protocol(format!("the answer is no HTTP/1.1: {error}"))),
    };
    if length > limits.header_bytes {
        return Err(header_too_large(limits));
    }
    interpret(&response, method, length).map(Some)
}

pub(super) fn header_too_large(limits: &ReplyLimits) -> Failure {
    too_large("the header of the reply", limits.header_bytes, "limits.header_bytes")
}

pub(super) fn too_many_headers() -> Failure {
    unknown(ErrorClass::TooLarge, format!("the reply has more than {HEADERS_MAX} headers"))
}

fn interpret(response: &httparse::Response<'_, '_>, method: &Method, bytes: usize) -> Result<Head, Failure> {
    let status = response.code.unwrap_or_default();
    let mut keep_alive = response.version == Some(1);
    let mut about = About { status, encoding: Encoding::default(), event_stream: false, length: None };
    let mut chunked = false;
    for field in response.headers.iter() {
        let (name, value) = (field.name, field.value);
        if name.eq_ignore_ascii_case("content-length") {
            let length = length_of(value)?;
            if about.length.is_some_and(|before| before != length) {
                return Err(protocol("the reply has two different content-lengths".to_owned()));
            }
            about.length = Some(length);
        } else if name.eq_ignore_ascii_case("transfer-encoding") {
            if !value.trim_ascii().eq_ignore_ascii_case(b"chunked") {
                let told = String::from_utf8_lossy(value);
                return Err(protocol(format!("the reply has transfer-encoding {:?}; only chunked is read", super::failure::quoted(&told))));
            }
            chunked = true;
        } else if name.eq_ignore_ascii_case("connection") {
            let said = |token: &[u8]| value.split(|byte| *byte == b',').any(|part| part.trim_ascii().eq_ignore_ascii_case(token));
            keep_alive = if keep_alive { !said(b"close") } else { said(b"keep-alive") };
        } else if name.eq_ignore_ascii_case("content-type") {
            about.event_stream = intake::is_event_stream(value);
        } else if name.eq_ignore_ascii_case("content-encoding") {
            about.encoding = Encoding::parse(value);
        }
    }
    let framing = if *method == Method::HEAD || status < 200 || status == 204 || status == 304 {
        about.length = Some(0);
        Framing::Length(0)
    } else if chunked {
        // A length beside chunks is a lie of one of them (RFC 9112, 6.3): the connection is not trusted with another answer.
        keep_alive &= about.length.take().is_none();
        Framing::Chunked(Chunks::default())
    } else {
        about.length.map_or(Framing::Close, Framing::Length)
    };
    keep_alive &= framing != Framing::Close;
    Ok(Head { bytes, about, framing, keep_alive })
}

fn length_of(value: &[u8]) -> Result<u64, Failure> {
    let digits = Some(value).filter(|value| value.iter().all(u8::is_ascii_digit));
    let length = digits.and_then(|digits| std::str::from_utf8(digits).ok()?.parse().ok());
    length.ok_or_else(|| protocol(format!("the reply has content-length {:?}, which is no number", String::from_utf8_lossy(value))))
}

impl Framing {
    /// Gives the body's part of `bytes` to `sink`; returns how many bytes were used and whether the body has ended.
    pub(super) fn take(&mut self, bytes: &[u8], mut sink: impl FnMut(&[u8]) -> Result<(), Failure>) -> Result<(usize, bool), Failure> {
        match self {
            Framing::Length(left) => {
                let used = bytes.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
                *left -= used as u64;
                if used > 0 {
                    sink(&bytes[..used])?;
                }
                Ok((used, *left == 0))
            }
            Framing::Chunked(chunks) => chunks.take(bytes, sink),
            Framing::Close => {
                sink(bytes)?;
                Ok((bytes.len(), false))
            }
        }
    }
}

/// A chunked body in its midst.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Chunks {
    /// Bytes of the current chunk still to come.
    left: u64,
    /// What is expected next.
    next: Next,
    /// The line so far: a chunk's size, the end of its data, a trailer.
    line: Vec<u8>,
    /// Bytes of trailers.
    trailer_bytes: usize,
}

#[derive(Debug, Default, PartialEq, Eq)]
enum Next {
    #[default]
    Size,
    Data,
    DataEnd,
    Trailer,
    Nothing,
}

impl Chunks {
    fn take(&mut self, bytes: &[u8], mut sink: impl FnMut(&[u8]) -> Result<(), Failure>) -> Result<(usize, bool), Failure> {
        let mut used = 0;
        while used < bytes.len() && self.next != Next::Nothing {
            let rest = &bytes[used..];
            if self.next == Next::Data {
                let length = rest.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
                sink(&rest[..length])?;
                used += length;
                self.left -= length as u64;
                if self.left == 0 {
                    self.next = Next::DataEnd;
                }
                continue;
            }
            let end = memchr::memchr(b'\n', rest);
            let piece = &rest[..end.map_or(rest.len(), |end| end + 1)];
            if self.line.len() + piece.len() > CHUNK_LINE_BYTES {
                return Err(protocol(format!("the chunked body has a line of more than {CHUNK_LINE_BYTES} bytes")));
            }
            self.line.extend_from_slice(piece);
            used += piece.len();
            if end.is_some() {
                self.end_line()?;
                self.line.clear();
            }
        }
        Ok((used, self.next == Next::Nothing))
    }

    fn end_line(&mut self) -> Result<(), Failure> {
        let wrong = || protocol("the chunked body breaks its framing".to_owned());
        let line = self.line.strip_suffix(b"\r\n").ok_or_else(wrong)?;
        self.next = match self.next {
            Next::Size => {
                self.left = size_of(line).ok_or_else(wrong)?;
                if self.left == 0 { Next::Trailer } else { Next::Data }
            }
            Next::DataEnd if line.is_empty() => Next::Size,
            Next::Trailer if line.is_empty() => Next::Nothing,
            Next::Trailer => {
                self.trailer_bytes += line.len();
                if self.trailer_bytes > TRAILER_BYTES {
                    return Err(unknown(ErrorClass::TooLarge, format!("the reply has more than {TRAILER_BYTES} bytes of trailers")));
                }
                Next::Trailer
            }
            _ => return Err(wrong()),
        };
        Ok(())
    }
}

/// The size that a chunk's first line gives, its extensions left aside.
fn size_of(line: &[u8]) -> Option<u64> {
    let size = line.split(|byte| *byte == b';').next()?.trim_ascii_end();
    let sound = (1..=16).contains(&size.len()) && size.iter().all(u8::is_ascii_hexdigit);
    if sound { u64::from_str_radix(std::str::from_utf8(size).ok()?, 16).ok() } else { None }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http::{HeaderName, HeaderValue};
    use proptest::prelude::*;

    use super::*;
    use crate::http::Kind;

    fn head(text: &str) -> Result<Option<Head>, Failure> {
        read_head(text.as_bytes(), &Method::GET, &ReplyLimits::default())
    }

    fn whole(text: &str) -> Head {
        head(text).unwrap().expect("whole")
    }

    #[test]
    fn a_request_is_written_as_http_1_1() {
        let header = |name: &'static str, value| (HeaderName::from_static(name), HeaderValue::from_static(value));
        let mut request = Request {
            method: Method::POST,
            target: "/v1?q=1".to_owned(),
            headers: vec![header("authorization", "Bearer x"), header("content-length", "999"), header("host", "elsewhere")],
            body: Bytes::from_static(b"hello"),
            kind: Kind::Plain,
        };
        let mut out = Vec::new();
        write_head(&mut out, &request, "/api", "[::1]:8080");
        let expected = "POST /api/v1?q=1 HTTP/1.1\r\nhost: [::1]:8080\r\nauthorization: Bearer x\r\ncontent-length: 5\r\n\r\n";
        assert_eq!(String::from_utf8(out).unwrap(), expected);
        request.method = Method::GET;
        request.body = Bytes::new();
        request.headers.clear();
        let mut out = Vec::new();
        write_head(&mut out, &request, "", "localhost");
        assert_eq!(String::from_utf8(out).unwrap(), "GET /v1?q=1 HTTP/1.1\r\nhost: localhost\r\n\r\n");
    }

    #[test]
    fn the_framing_follows_the_head() {
        let chunked = || Framing::Chunked(Chunks::default());
        let cases = [
            ("HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\nrest", Framing::Length(7), true),
            ("HTTP/1.1 200 OK\r\ncontent-length: 7\r\ncontent-length: 7\r\nconnection: Close\r\n\r\n", Framing::Length(7), false),
            ("HTTP/1.1 200 OK\r\nTRANSFER-ENCODING: Chunked\r\n\r\n", chunked(), true),
            ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ncontent-length: 3\r\n\r\n", chunked(), false),
            ("HTTP/1.1 200 OK\r\n\r\n", Framing::Close, false),
            ("HTTP/1.1 204 No Content\r\n\r\n", Framing::Length(0), true),
            ("HTTP/1.1 304 Not Modified\r\ncontent-length: 9\r\n\r\n", Framing::Length(0), true),
            ("HTTP/1.0 200 OK\r\ncontent-length: 1\r\n\r\n", Framing::Length(1), false),
            ("HTTP/1.0 200 OK\r\ncontent-length: 1\r\nconnection: keep-alive\r\n\r\n", Framing::Length(1), true),
            ("HTTP/1.1 200 OK\r\ncontent-length: 1\r\nconnection: x, close\r\n\r\n", Framing::Length(1), false),
        ];
        for (text, framing, keep_alive) in cases {
            let head = whole(text);
            assert_eq!((head.framing, head.keep_alive), (framing, keep_alive), "{text:?}");
            assert_eq!(head.bytes, text.find("\r\n\r\n").unwrap() + 4);
        }
        let head = read_head(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n", &Method::HEAD, &ReplyLimits::default());
        assert_eq!(head.unwrap().expect("whole").framing, Framing::Length(0));
    }

    #[test]
    fn heads_that_break_the_rules_are_refused() {
        let cases = [
            "HTP/1.1 200 OK\r\n\r\n",
            "HTTP/1.1 2x0 OK\r\n\r\n",
            "HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
            "HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n",
            "HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n",
            "HTTP/1.1 200 OK\r\ncontent-length: 99999999999999999999999\r\n\r\n",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\n",
        ];
        for text in cases {
            assert_eq!(head(text).map(|_| ()).unwrap_err().class, ErrorClass::Protocol, "{text:?}");
        }
        assert!(head("HTTP/1.1 200 OK\r\ncontent-len").unwrap().is_none());
    }

    #[test]
    fn heads_are_bounded() {
        let headers = |count| format!("HTTP/1.1 200 OK\r\n{}\r\n", "a: b\r\n".repeat(count));
        assert!(head(&headers(256)).unwrap().is_some());
        assert_eq!(head(&headers(10_000)).map(|_| ()).unwrap_err().class, ErrorClass::TooLarge);
        for end in ["", "\r\n\r\n"] {
            let long = format!("HTTP/1.1 200 OK\r\na: {}{end}", "x".repeat(65_536));
            assert_eq!(head(&long).map(|_| ()).unwrap_err().class, ErrorClass::TooLarge);
        }
    }

    fn body(pieces: &[&[u8]]) -> Result<(Vec<u8>, usize, bool), Failure> {
        let mut framing = Framing::Chunked(Chunks::default());
        let (mut body, mut total, mut ended) = (Vec::new(), 0, false);
        for piece in pieces {
            let (used, end) = framing.take(piece, |bytes| {
                body.extend_from_slice(bytes);
                Ok(())
            })?;
            total += used;
            ended = end;
        }
        Ok((body, total, ended))
    }

    #[test]
    fn chunks_are_put_together() {
        let sent = b"4;name=value\r\nWiki\r\n5 \r\npedia\r\n0A\r\n0123456789\r\n0\r\ntrailer: x\r\n\r\nnext";
        assert_eq!(body(&[sent]).unwrap(), (b"Wikipedia0123456789".to_vec(), sent.len() - 4, true));
        assert_eq!(body(&[b"4\r\nWiki\r\n"]).unwrap(), (b"Wiki".to_vec(), 9, false));
    }

    #[test]
    fn broken_chunks_are_refused() {
        let long = [b"1;", &[b'x'; 5000][..]].concat();
        let cases: [&[u8]; 7] = [b"x\r\n", b"\r\n", b"-1\r\n", b"4\nWiki\r\n", b"4\r\nWikipedia\r\n", b"11111111111111111\r\n", &long];
        for sent in cases {
            assert_eq!(body(&[sent]).unwrap_err().class, ErrorClass::Protocol, "{:?}", String::from_utf8_lossy(sent));
        }
        let endless = [b"0\r\n".to_vec(), b"trailer: value\r\n".repeat(10_000)].concat();
        assert_eq!(body(&[&endless]).unwrap_err().class, ErrorClass::TooLarge);
    }

    proptest! {
        #[test]
        fn chunks_may_be_cut_anywhere(text in prop::collection::vec(any::<u8>(), 0..300), size in 1usize..40, cut in 1usize..20) {
            let mut sent = Vec::new();
            for chunk in text.chunks(size) {
                sent.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
                sent.extend_from_slice(chunk);
                sent.extend_from_slice(b"\r\n");
            }
            sent.extend_from_slice(b"0\r\n\r\n");
            let pieces: Vec<&[u8]> = sent.chunks(cut).collect();
            prop_assert_eq!(body(&pieces).unwrap(), (text, sent.len(), true));
        }
    }
}
