//! What passes between a client and a server, read along far enough to know where a request that writes begins and ends, and where
//! its answer does. Nothing is altered here. What cannot be understood passes as bytes without a meaning.

mod http1;
mod mysql;
mod postgres;
#[cfg(test)]
mod tests;

/// Most bytes that are held back to find out what they begin. What needs more is no longer understood.
pub(super) const HELD: usize = 64 << 10;

/// What is spoken on a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Spoken {
    Postgres,
    Mysql,
    Http1,
    /// TLS, HTTP/2: bytes to us. Who speaks after the other begins a request, or an answer.
    Bytes,
}

impl Spoken {
    pub(super) fn reader(self) -> Box<dyn Reader> {
        match self {
            Spoken::Postgres => Box::<postgres::Postgres>::default(),
            Spoken::Mysql => Box::<mysql::Mysql>::default(),
            Spoken::Http1 => Box::<http1::Http1>::default(),
            Spoken::Bytes => Box::<Turns>::default(),
        }
    }
}

/// Follows one connection; it is told of every byte once, in order.
pub(super) trait Reader: Send {
    /// What the first of `bytes` from the client are; `None`: more of them are needed to tell.
    fn client(&mut self, bytes: &[u8]) -> Option<Piece>;

    /// The same for `bytes` from the server.
    fn server(&mut self, bytes: &[u8]) -> Option<Piece>;
}

/// Some bytes that belong together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Piece {
    /// How many; at least one.
    pub(super) len: usize,
    /// A request that writes begins with them (from the client).
    pub(super) begins: Option<Request>,
    /// They are of a request that writes, or of its answer.
    pub(super) part: bool,
    /// Its last byte is among them.
    pub(super) ends: bool,
    /// The answer that ends here is an error.
    pub(super) failed: bool,
}

/// A request that writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Request {
    /// Whether everything it wrote is committed once it is answered.
    pub(super) commits: bool,
}

/// Bytes without a meaning.
pub(super) struct Silent;

impl Reader for Silent {
    fn client(&mut self, bytes: &[u8]) -> Option<Piece> {
        Some(Piece { len: bytes.len(), ..Piece::default() })
    }

    fn server(&mut self, bytes: &[u8]) -> Option<Piece> {
        Some(Piece { len: bytes.len(), ..Piece::default() })
    }
}

/// Bytes of which only the direction is known.
#[derive(Default)]
struct Turns {
    clients: bool,
}

impl Reader for Turns {
    fn client(&mut self, bytes: &[u8]) -> Option<Piece> {
        let first = !std::mem::replace(&mut self.clients, true);
        Some(Piece { len: bytes.len(), begins: first.then_some(Request { commits: false }), part: true, ..Piece::default() })
    }

    fn server(&mut self, bytes: &[u8]) -> Option<Piece> {
        self.clients = false;
        Some(Piece { len: bytes.len(), part: true, ..Piece::default() })
    }
}

/// What a statement does, as far as it matters here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Statement {
    Rows,
    Copy,
    Commit,
    Other,
}

/// The first word of `text` says it; `None`: more of the text is needed. `whole`: whether this is all of it.
fn statement(text: &[u8], whole: bool) -> Option<Statement> {
    let word = text.trim_ascii_start();
    let len = word.iter().take_while(|byte| byte.is_ascii_alphabetic()).count();
    if len == word.len() && len < 16 && !whole {
        return None;
    }
    let known = [
        (&b"INSERT"[..], Statement::Rows),
        (b"REPLACE", Statement::Rows),
        (b"UPDATE", Statement::Rows),
        (b"DELETE", Statement::Rows),
        (b"COPY", Statement::Copy),
        (b"COMMIT", Statement::Commit),
    ];
    let found = known.into_iter().find(|(name, _)| word[..len].eq_ignore_ascii_case(name));
    Some(found.map_or(Statement::Other, |(_, statement)| statement))
}
