//! The protocol of MySQL and MariaDB: packets of a length, a number and a payload; a packet with number 0 begins a command. What a
//! command that writes is answered with is one packet, OK or ERR; an OK says what became of the transaction.

use std::collections::HashMap;

use super::{HELD, Piece, Reader, Request, Silent, Statement, statement};

const HEADER: usize = 4;
/// A payload of this length goes on in the next packet.
const FULL: usize = 0xff_ffff;
/// A client that wishes TLS sends these 32 bytes before its login.
const SSL_REQUEST: (usize, u32) = (32, 0x800);
const IN_TRANSACTION: u16 = 1;
const AUTOCOMMIT: u16 = 2;
/// Prepared statements that are kept in mind; clients have far fewer.
const MOST: usize = 4096;

const QUERY: u8 = 0x03;
const PREPARE: u8 = 0x16;
const EXECUTE: u8 = 0x17;
const CLOSE: u8 = 0x19;

/// What is being read of one direction.
#[derive(Clone, Copy, Default)]
struct Packet {
    /// Bytes of it that are yet to come.
    left: usize,
    /// The payload goes on in the next packet.
    more: bool,
    part: bool,
    ends: bool,
    failed: bool,
}

/// What the next packet of the server answers.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Awaited {
    #[default]
    Nothing,
    Write,
    Other,
    Prepared(Statement),
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Phase {
    #[default]
    Login,
    Commands,
    Dark,
}

pub(super) struct Mysql {
    phase: Phase,
    client: Packet,
    server: Packet,
    statements: HashMap<u32, Statement>,
    awaited: Awaited,
    /// As the last OK said it.
    status: u16,
}

impl Default for Mysql {
    fn default() -> Self {
        Self {
            phase: Phase::Login,
            client: Packet::default(),
            server: Packet::default(),
            statements: HashMap::new(),
            awaited: Awaited::Nothing,
            status: AUTOCOMMIT,
        }
    }
}

impl Reader for Mysql {
    fn client(&mut self, bytes: &[u8]) -> Option<Piece> {
        if self.phase == Phase::Dark {
            return Silent.client(bytes);
        }
        if let Some(piece) = rest(&mut self.client, bytes) {
            return Some(piece);
        }
        let len = payload(bytes)?;
        if self.phase == Phase::Login {
            return self.login(len, bytes);
        }
        if self.client.more || bytes[3] != 0 {
            let Packet { part, ends, .. } = self.client;
            let goes_on = self.client.more;
            return Some(begin(&mut self.client, len, Packet { part: part && goes_on, ends: ends && goes_on, ..Packet::default() }, None));
        }
        self.command(len, bytes)
    }

    fn server(&mut self, bytes: &[u8]) -> Option<Piece> {
        if self.phase == Phase::Dark {
            return Silent.server(bytes);
        }
        if let Some(piece) = rest(&mut self.server, bytes) {
            return Some(piece);
        }
        let len = payload(bytes)?;
        let first = if len == 0 { None } else { Some(*bytes.get(HEADER)?) };
        if self.phase == Phase::Login {
            if first == Some(0) {
                self.phase = Phase::Commands;
            }
            return Some(begin(&mut self.server, len, Packet::default(), None));
        }
        self.answer(len, first, bytes)
    }
}

/// The length of the payload that begins here.
fn payload(bytes: &[u8]) -> Option<usize> {
    let header = bytes.first_chunk::<HEADER>()?;
    Some(usize::from(header[0]) | usize::from(header[1]) << 8 | usize::from(header[2]) << 16)
}

fn number(bytes: &[u8]) -> Option<u32> {
    bytes.first_chunk::<4>().map(|bytes| u32::from_le_bytes(*bytes))
}

/// Goes on with a packet that has begun.
fn rest(packet: &mut Packet, bytes: &[u8]) -> Option<Piece> {
    if packet.left == 0 {
        return None;
    }
    let len = packet.left.min(bytes.len());
    packet.left -= len;
    Some(piece(packet, len, None))
}

/// Begins a packet of `payload` bytes with its header.
fn begin(packet: &mut Packet, payload: usize, new: Packet, begins: Option<Request>) -> Piece {
    *packet = Packet { left: payload, more: payload == FULL, ..new };
    piece(packet, HEADER, begins)
}

fn piece(packet: &Packet, len: usize, begins: Option<Request>) -> Piece {
    let last = packet.left == 0 && !packet.more;
    Piece { len, begins, part: packet.part, ends: packet.ends && last, failed: packet.failed && last }
}

impl Mysql {
    fn login(&mut self, len: usize, bytes: &[u8]) -> Option<Piece> {
        let wish = number(bytes.get(HEADER..)?);
        if len == SSL_REQUEST.0 && wish? & SSL_REQUEST.1 != 0 {
            self.phase = Phase::Dark;
            return Silent.client(bytes);
        }
        Some(begin(&mut self.client, len, Packet::default(), None))
    }

    fn command(&mut self, len: usize, bytes: &[u8]) -> Option<Piece> {
        let body = &bytes[HEADER..bytes.len().min(HEADER + len)];
        let (&command, rest) = body.split_first()?;
        let whole = body.len() == len;
        let does = match command {
            QUERY => Some(statement(rest, whole)?),
            PREPARE => {
                let does = statement(rest, whole)?;
                self.awaited = Awaited::Prepared(does);
                return Some(begin(&mut self.client, len, Packet::default(), None));
            }
            EXECUTE => Some(self.statements.get(&number(rest)?).copied().unwrap_or(Statement::Other)),
            CLOSE => {
                self.statements.remove(&number(rest)?);
                None
            }
            _ => None,
        };
        let begins = does.and_then(|does| self.begins(does));
        self.awaited = match begins {
            Some(_) => Awaited::Write,
            None if does.is_some() => Awaited::Other,
            None => Awaited::Nothing,
        };
        let writes = begins.is_some();
        Some(begin(&mut self.client, len, Packet { part: writes, ends: writes, ..Packet::default() }, begins))
    }

    fn begins(&self, does: Statement) -> Option<Request> {
        let inside = self.status & IN_TRANSACTION != 0;
        match does {
            Statement::Rows => Some(Request { commits: !inside && self.status & AUTOCOMMIT != 0 }),
            Statement::Commit => Some(Request { commits: inside }),
            Statement::Copy | Statement::Other => None,
        }
    }

    fn answer(&mut self, len: usize, first: Option<u8>, bytes: &[u8]) -> Option<Piece> {
        let body = &bytes[HEADER..bytes.len().min(HEADER + len)];
        let (ok, failed) = (first == Some(0), first == Some(0xff));
        match self.awaited {
            Awaited::Write | Awaited::Other if ok => {
                if body.len() < len && bytes.len() < HELD {
                    return None;
                }
                self.status = status(body).unwrap_or(self.status);
            }
            Awaited::Prepared(does) if ok => {
                let id = number(body.get(1..)?)?;
                if self.statements.len() >= MOST {
                    self.phase = Phase::Dark;
                    return Silent.server(bytes);
                }
                self.statements.insert(id, does);
            }
            _ => {}
        }
        let writes = self.awaited == Awaited::Write;
        self.awaited = Awaited::Nothing;
        Some(begin(&mut self.server, len, Packet { part: writes, ends: writes, failed, ..Packet::default() }, None))
    }
}

/// The status in an OK: behind two numbers of variable length.
fn status(ok: &[u8]) -> Option<u16> {
    let mut at = 1;
    for _ in 0..2 {
        at += match ok.get(at)? {
            0xfc => 3,
            0xfd => 4,
            0xfe => 9,
            _ => 1,
        };
    }
    ok.get(at..at + 2)?.try_into().ok().map(u16::from_le_bytes)
}
