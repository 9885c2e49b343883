//! What was sent and what came of it, written down as it happens: for every batch its members, its database sessions, and its
//! outcome. No row is stored; rows are regenerated from the seed.
//!
//! The intent is written before a batch is sent and the outcome after its answer, each as one `write` to the page cache: the ledger
//! survives a crash of the harness, not of the machine. The order of records is the order of events, so no clock is needed: one batch
//! lies wholly after another if its intent stands behind the other's outcome. Faults that begin or are healed leave marks among them.
//!
//! File: records of `length: u32, crc32(length): u32, crc32(payload): u32, payload`, little-endian; the first payload is the
//! [`Header`] as JSON. A tail that was cut in mid-record is recognised by a sound length that reaches past the end of the file;
//! anything else that does not add up is damage.

mod reader;
pub mod requests;
mod writer;

use serde::{Deserialize, Serialize};

pub use reader::{BatchRecord, Ledger, LedgerError, Member, Outcome, Run};
pub use writer::LedgerWriter;

/// A fault of the scenario began, or was healed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    /// Its place in the scenario's `faults`, from 0.
    pub fault: u32,
    /// False where it began.
    pub healed: bool,
}

/// The header of the ledger at `path`, of whichever workload.
///
/// # Errors
/// When the file cannot be read or does not begin with one.
pub fn header(path: &std::path::Path) -> Result<Header, LedgerError> {
    reader::header_of(path)
}

/// Name of the ledger in a run's folder.
pub const FILE: &str = "ledger";

/// Says which run a ledger belongs to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// Version of the record format.
    pub version: u32,
    /// The run.
    pub run_id: String,
    /// The seed its rows come from.
    pub seed: u64,
}

/// Version of the record format.
pub const VERSION: u32 = 1;

/// Bytes before each payload.
const FRAME: usize = 12;

/// No payload is longer (a batch of a million rows in no order takes about 10 MB).
const MAX_PAYLOAD: usize = 64 << 20;

/// No batch has more operations: what `flush_size` allows.
const MAX_MEMBERS: u32 = 1_000_000;

/// First byte of a payload.
mod kind {
    pub(super) const HEADER: u8 = 0;
    pub(super) const INTENT: u8 = 1;
    pub(super) const ATTEMPT: u8 = 2;
    pub(super) const OUTCOME: u8 = 3;
    pub(super) const CLOSED: u8 = 4;
    pub(super) const REQUESTS: u8 = 5;
    pub(super) const ANSWERS: u8 = 6;
    pub(super) const REPLY: u8 = 7;
    pub(super) const MARK: u8 = 8;
}

/// LEB128, as in protobuf and DWARF.
fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn take_varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

/// Small signed numbers as small unsigned ones.
fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)) as u64
}

fn unzigzag(value: u64) -> i64 {
    (value >> 1) as i64 ^ -((value & 1) as i64)
}

#[cfg(test)]
mod tests;
