//! HTTP/1.1: a head, and a body of a length or in chunks. Every request counts. What is upgraded, or is no HTTP/1.1, passes as bytes.

use std::collections::VecDeque;

use super::{HELD, Piece, Reader, Request, Silent};

/// Most lines of a head.
const HEADERS: usize = 200;
/// Requests without an answer that are kept in mind.
const MOST: usize = 1024;

/// What comes next in one direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Next {
    #[default]
    Head,
    /// So many bytes of the body.
    Body(u64),
    Chunk(Chunk),
    /// Everything until the connection ends.
    Rest,
}

/// A body in chunks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Chunk {
    /// A line with a chunk's length.
    Size,
    /// So many bytes of a chunk and the line's end behind it.
    Data(u64),
    /// Lines behind the last chunk.
    Trailer,
}

/// A request that has no answer yet.
#[derive(Clone, Copy)]
struct Sent {
    /// Its answer has no body, whatever its head says.
    head_only: bool,
}

#[derive(Default)]
pub(super) struct Http1 {
    client: Next,
    server: Next,
    open: VecDeque<Sent>,
    dark: bool,
}

impl Reader for Http1 {
    fn client(&mut self, bytes: &[u8]) -> Option<Piece> {
        if self.dark {
            return Silent.client(bytes);
        }
        if self.client != Next::Head {
            return step(&mut self.client, bytes).or_else(|| self.patience(bytes));
        }
        let mut lines = [httparse::EMPTY_HEADER; HEADERS];
        let mut request = httparse::Request::new(&mut lines);
        let len = match request.parse(bytes) {
            Ok(httparse::Status::Complete(len)) if self.open.len() < MOST => len,
            Ok(httparse::Status::Partial) => return self.patience(bytes),
            _ => return self.darken(bytes),
        };
        self.open.push_back(Sent { head_only: request.method == Some("HEAD") });
        self.client = body(request.headers).unwrap_or(Next::Body(0));
        let ends = ended(&mut self.client);
        Some(Piece { len, begins: Some(Request { commits: false }), part: true, ends, failed: false })
    }

    fn server(&mut self, bytes: &[u8]) -> Option<Piece> {
        if self.dark {
            return Silent.server(bytes);
        }
        if self.server != Next::Head {
            let piece = step(&mut self.server, bytes).or_else(|| self.patience(bytes))?;
            if piece.ends {
                self.open.pop_front();
            }
            return Some(piece);
        }
        let mut lines = [httparse::EMPTY_HEADER; HEADERS];
        let mut response = httparse::Response::new(&mut lines);
        let len = match response.parse(bytes) {
            Ok(httparse::Status::Complete(len)) => len,
            Ok(httparse::Status::Partial) => return self.patience(bytes),
            Err(_) => return self.darken(bytes),
        };
        let status = response.code.unwrap_or_default();
        match status {
            101 => self.dark = true,
            100..=199 => {}
            _ => {
                let head_only = self.open.front().is_some_and(|sent| sent.head_only);
                let none = head_only || status == 204 || status == 304;
                self.server = if none { Next::Body(0) } else { body(response.headers).unwrap_or(Next::Rest) };
            }
        }
        let ends = ended(&mut self.server);
        if ends {
            self.open.pop_front();
        }
        Some(Piece { len, begins: None, part: true, ends, failed: false })
    }
}

impl Http1 {
    fn darken(&mut self, bytes: &[u8]) -> Option<Piece> {
        self.dark = true;
        Silent.client(bytes)
    }

    /// More is needed, unless that was too much already.
    fn patience(&mut self, bytes: &[u8]) -> Option<Piece> {
        if bytes.len() < HELD { None } else { self.darken(bytes) }
    }
}

/// How long the body is that `headers` announce, if they do.
fn body(headers: &[httparse::Header<'_>]) -> Option<Next> {
    let find = |name: &str| headers.iter().find(|header| header.name.eq_ignore_ascii_case(name));
    if find("transfer-encoding").is_some_and(|header| header.value.to_ascii_lowercase().ends_with(b"chunked")) {
        return Some(Next::Chunk(Chunk::Size));
    }
    let length = std::str::from_utf8(find("content-length")?.value).ok()?;
    length.trim().parse().ok().map(Next::Body)
}

/// Whether nothing comes any more; then a head comes next.
fn ended(next: &mut Next) -> bool {
    let over = *next == Next::Body(0);
    if over {
        *next = Next::Head;
    }
    over
}

/// Goes on with a body.
fn step(next: &mut Next, bytes: &[u8]) -> Option<Piece> {
    let there = bytes.len() as u64;
    let (len, then) = match *next {
        Next::Head | Next::Rest => (there, Next::Rest),
        Next::Body(left) => (left.min(there), Next::Body(left - left.min(there))),
        Next::Chunk(Chunk::Data(left)) if left > there => (there, Next::Chunk(Chunk::Data(left - there))),
        Next::Chunk(Chunk::Data(left)) => (left, Next::Chunk(Chunk::Size)),
        Next::Chunk(Chunk::Size) => {
            let line = memchr::memchr(b'\n', bytes)?;
            let digits = bytes[..line].iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
            let size = std::str::from_utf8(&bytes[..digits]).ok().and_then(|digits| u64::from_str_radix(digits, 16).ok());
            let then = match size {
                Some(0) => Next::Chunk(Chunk::Trailer),
                Some(size) => Next::Chunk(Chunk::Data(size.saturating_add(2))),
                // No chunk: whatever it is, it is no end.
                None => Next::Rest,
            };
            (line as u64 + 1, then)
        }
        Next::Chunk(Chunk::Trailer) => {
            let line = memchr::memchr(b'\n', bytes)?;
            let empty = bytes[..line].iter().all(|byte| *byte == b'\r');
            (line as u64 + 1, if empty { Next::Body(0) } else { Next::Chunk(Chunk::Trailer) })
        }
    };
    *next = then;
    Some(Piece { len: len as usize, begins: None, part: true, ends: ended(next), failed: false })
}
