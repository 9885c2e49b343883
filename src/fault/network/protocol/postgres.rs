//! Postgres's protocol, version 3: messages of a type, a length and a body; a request ends with `Sync`, with the end of a simple
//! query, or with the end of the rows that a `COPY` takes; an answer ends with `ReadyForQuery`, which says what became of the
//! transaction.

use std::collections::{HashMap, VecDeque};

use super::{HELD, Piece, Reader, Request, Silent, Statement, statement};

const SSL_REQUEST: u32 = 80_877_103;
const GSS_REQUEST: u32 = 80_877_104;
const CANCEL_REQUEST: u32 = 80_877_102;
/// No message is longer.
const MAX_MESSAGE: u32 = 1 << 30;
/// Prepared statements, and requests without an answer, that are kept in mind; clients have far fewer.
const MOST: usize = 4096;

/// What is being read of one direction.
#[derive(Clone, Copy, Default)]
struct Message {
    /// Bytes of it that are yet to come.
    left: usize,
    part: bool,
    ends: bool,
    failed: bool,
}

/// A request that has no answer yet.
#[derive(Clone, Copy, Default)]
struct Sent {
    writes: bool,
    /// All of it has been sent.
    whole: bool,
    /// It goes on with rows once the server is ready for them.
    copies: bool,
    failed: bool,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Phase {
    /// Messages have no type yet.
    #[default]
    Startup,
    /// The answer to the wish for encryption is one byte.
    Encryption,
    Typed,
    /// Encrypted, or not understood.
    Dark,
}

#[derive(Default)]
pub(super) struct Postgres {
    phase: Phase,
    client: Message,
    server: Message,
    statements: HashMap<Vec<u8>, Statement>,
    /// The extended query under way writes.
    writing: bool,
    open: VecDeque<Sent>,
    /// As the last `ReadyForQuery` said it: `I` idle, `T` in a transaction, `E` in one that failed.
    transaction: u8,
}

impl Reader for Postgres {
    fn client(&mut self, bytes: &[u8]) -> Option<Piece> {
        if let Some(piece) = rest(&mut self.client, bytes) {
            return Some(piece);
        }
        match self.phase {
            Phase::Dark => Silent.client(bytes),
            Phase::Startup | Phase::Encryption => self.startup(bytes),
            Phase::Typed => self.request(bytes),
        }
    }

    fn server(&mut self, bytes: &[u8]) -> Option<Piece> {
        if let Some(piece) = rest(&mut self.server, bytes) {
            return Some(piece);
        }
        match self.phase {
            Phase::Encryption => {
                self.phase = if bytes[0] == b'S' || bytes[0] == b'G' { Phase::Dark } else { Phase::Startup };
                Some(Piece { len: 1, ..Piece::default() })
            }
            Phase::Typed => self.answer(bytes),
            Phase::Startup | Phase::Dark => Silent.server(bytes),
        }
    }
}

/// Goes on with a message that has begun.
fn rest(message: &mut Message, bytes: &[u8]) -> Option<Piece> {
    if message.left == 0 {
        return None;
    }
    let len = message.left.min(bytes.len());
    message.left -= len;
    let last = message.left == 0;
    Some(Piece { len, begins: None, part: message.part, ends: message.ends && last, failed: message.failed && last })
}

/// Begins a message with its first `len` bytes.
fn begin(message: &mut Message, len: usize, new: Message, begins: Option<Request>) -> Piece {
    *message = new;
    let last = new.left == 0;
    Piece { len, begins, part: new.part, ends: new.ends && last, failed: new.failed && last }
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4)?.try_into().ok().map(u32::from_be_bytes)
}

/// The text before the first NUL, and what follows it.
fn text(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = memchr::memchr(0, bytes)?;
    Some((&bytes[..end], &bytes[end + 1..]))
}

impl Postgres {
    fn dark(&mut self, bytes: &[u8]) -> Option<Piece> {
        self.phase = Phase::Dark;
        Silent.client(bytes)
    }

    fn startup(&mut self, bytes: &[u8]) -> Option<Piece> {
        let (length, code) = (word(bytes, 0)?, word(bytes, 4)?);
        if !(8..=MAX_MESSAGE).contains(&length) || code == CANCEL_REQUEST {
            return self.dark(bytes);
        }
        if code == SSL_REQUEST || code == GSS_REQUEST {
            self.phase = Phase::Encryption;
        } else {
            self.phase = Phase::Typed;
            // The server is ready for queries once the login has come to its end.
            self.open.push_back(Sent { whole: true, ..Sent::default() });
        }
        Some(begin(&mut self.client, 8, Message { left: length as usize - 8, ..Message::default() }, None))
    }

    /// A message from the client.
    fn request(&mut self, bytes: &[u8]) -> Option<Piece> {
        let length = word(bytes, 1)?;
        if !(4..=MAX_MESSAGE).contains(&length) || self.open.len() > MOST || self.statements.len() > MOST {
            return self.dark(bytes);
        }
        let left = length as usize - 4;
        let body = &bytes[5..bytes.len().min(5 + left)];
        let whole = body.len() == left;
        let mut message = Message { left, ..Message::default() };
        let mut begins = None;
        match bytes[0] {
            b'Q' => {
                let Some(does) = query(body, whole) else { return self.patience(bytes) };
                begins = self.begins(does);
                let copies = does == Statement::Copy;
                (message.part, message.ends) = (begins.is_some(), begins.is_some() && !copies);
                self.open.push_back(Sent { writes: begins.is_some(), whole: !copies, copies, failed: false });
            }
            b'P' => {
                let Some((name, does)) = parse(body, whole) else { return self.patience(bytes) };
                self.statements.insert(name, does);
                message.part = self.writing;
            }
            b'B' => {
                let name = text(body).and_then(|(_portal, rest)| text(rest)).map(|(name, _)| name);
                let Some(name) = name else { return self.patience(bytes) };
                let does = self.statements.get(name).copied().unwrap_or(Statement::Other);
                begins = self.begins(does).filter(|_| !self.writing);
                self.writing |= begins.is_some();
                message.part = self.writing;
            }
            b'C' if body.first().is_none_or(|what| *what == b'S') => {
                let Some((name, _)) = body.get(1..).and_then(text) else { return self.patience(bytes) };
                self.statements.remove(name);
                message.part = self.writing;
            }
            b'S' => {
                (message.part, message.ends) = (self.writing, self.writing);
                self.open.push_back(Sent { writes: self.writing, whole: true, ..Sent::default() });
                self.writing = false;
            }
            // Rows of a COPY, and their end.
            b'd' | b'c' | b'f' => {
                if let Some(sent) = self.open.back_mut().filter(|sent| sent.copies && !sent.whole) {
                    sent.whole = bytes[0] != b'd';
                    (message.part, message.ends) = (true, sent.whole);
                }
            }
            _ => message.part = self.writing,
        }
        Some(begin(&mut self.client, 5, message, begins))
    }

    /// More is needed, unless that was too much already.
    fn patience(&mut self, bytes: &[u8]) -> Option<Piece> {
        if bytes.len() < HELD { None } else { self.dark(bytes) }
    }

    fn begins(&self, does: Statement) -> Option<Request> {
        match does {
            Statement::Rows | Statement::Copy => Some(Request { commits: self.transaction == b'I' }),
            Statement::Commit => Some(Request { commits: self.transaction == b'T' }),
            Statement::Other => None,
        }
    }

    /// A message from the server.
    fn answer(&mut self, bytes: &[u8]) -> Option<Piece> {
        let length = word(bytes, 1)?;
        if !(4..=MAX_MESSAGE).contains(&length) {
            self.phase = Phase::Dark;
            return Silent.server(bytes);
        }
        let left = length as usize - 4;
        if bytes[0] != b'Z' {
            let part = self.open.front_mut().is_some_and(|sent| {
                sent.failed |= bytes[0] == b'E';
                sent.writes && sent.whole
            });
            return Some(begin(&mut self.server, 5, Message { left, part, ..Message::default() }, None));
        }
        self.transaction = *bytes.get(5)?;
        let sent = self.open.pop_front().unwrap_or_default();
        let part = sent.writes && sent.whole;
        Some(begin(&mut self.server, 5, Message { left, part, ends: part, failed: sent.failed }, None))
    }
}

/// What the text of a simple query does. Whether a COPY takes rows or gives them takes all of it.
fn query(body: &[u8], whole: bool) -> Option<Statement> {
    match statement(body, whole)? {
        Statement::Copy if !whole => None,
        Statement::Copy if memchr::memmem::find(&body.to_ascii_uppercase(), b"FROM STDIN").is_none() => Some(Statement::Other),
        does => Some(does),
    }
}

/// Name and doing of a statement that is prepared.
fn parse(body: &[u8], whole: bool) -> Option<(Vec<u8>, Statement)> {
    let (name, sql) = text(body)?;
    Some((name.to_vec(), statement(sql, whole)?))
}
