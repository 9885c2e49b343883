//! Appending to a ledger.

use std::collections::HashSet;
use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use super::{Header, Mark, kind, put_varint, zigzag};
use crate::ledger::reader::Outcome;

/// An open ledger. One lock a record keeps the order of records the order of events.
pub struct LedgerWriter {
    inner: Mutex<Inner>,
}

struct Inner {
    frames: Frames,
    /// Batches whose intent is written and whose outcome is not.
    open: HashSet<u64>,
}

impl LedgerWriter {
    /// Makes a new ledger; a file that exists is never touched.
    ///
    /// # Errors
    /// When the file exists or cannot be written.
    pub fn create(path: &Path, header: &Header) -> io::Result<Self> {
        Ok(Self { inner: Mutex::new(Inner { frames: Frames::create(path, header)?, open: HashSet::new() }) })
    }

    /// Says that batch `batch`, made of the operations `members` in this order, is about to be sent on `session` (0: none). Called
    /// again for a retry, which only adds the session.
    ///
    /// # Errors
    /// When the record cannot be written; then the batch must not be sent.
    pub fn intent(&self, batch: u64, session: u64, members: impl Iterator<Item = u64>) -> io::Result<()> {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        if inner.open.contains(&batch) {
            return inner.frames.append(kind::ATTEMPT, |payload| {
                put_varint(payload, batch);
                put_varint(payload, session);
            });
        }
        inner.frames.append(kind::INTENT, |payload| {
            put_varint(payload, batch);
            put_varint(payload, session);
            put_members(payload, members);
        })?;
        inner.open.insert(batch);
        Ok(())
    }

    /// Says what became of a batch; `after_unknown` if an earlier attempt may have been applied too.
    ///
    /// # Errors
    /// When the record cannot be written; then the batch counts as unknown.
    pub fn outcome(&self, batch: u64, outcome: Outcome, after_unknown: bool) -> io::Result<()> {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner.frames.append(kind::OUTCOME, |payload| {
            put_varint(payload, batch);
            payload.push(outcome as u8);
            payload.push(u8::from(after_unknown));
        })?;
        inner.open.remove(&batch);
        Ok(())
    }

    /// Says that a fault begins or is healed.
    ///
    /// # Errors
    /// When the record cannot be written.
    pub fn mark(&self, mark: Mark) -> io::Result<()> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner).frames.append(kind::MARK, |payload| {
            put_varint(payload, u64::from(mark.fault));
            payload.push(u8::from(mark.healed));
        })
    }

    /// Says that every batch has its outcome and nothing more will be sent.
    ///
    /// # Errors
    /// When the record cannot be written.
    pub fn close(&self) -> io::Result<()> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner).frames.append(kind::CLOSED, |_| {})
    }
}

/// A file of checked records.
pub(super) struct Frames {
    file: File,
    frame: Vec<u8>,
}

impl Frames {
    /// Makes a new file with its header; one that exists is never touched.
    pub(super) fn create(path: &Path, header: &Header) -> io::Result<Self> {
        let file = OpenOptions::new().write(true).create_new(true).open(path)?;
        let mut frames = Self { file, frame: Vec::new() };
        let json = serde_json::to_vec(header)?;
        frames.append(kind::HEADER, |payload| payload.extend_from_slice(&json))?;
        Ok(frames)
    }

    #[cfg(test)]
    pub(super) fn append_to(file: File) -> Self {
        Self { file, frame: Vec::new() }
    }

    /// Appends one record, as one write.
    pub(super) fn append(&mut self, kind: u8, fill: impl FnOnce(&mut Vec<u8>)) -> io::Result<()> {
        self.frame.clear();
        self.frame.resize(super::FRAME, 0);
        self.frame.push(kind);
        fill(&mut self.frame);
        let length = (self.frame.len() - super::FRAME) as u32;
        let payload = crc32fast::hash(&self.frame[super::FRAME..]);
        self.frame[0..4].copy_from_slice(&length.to_le_bytes());
        self.frame[4..8].copy_from_slice(&crc32fast::hash(&length.to_le_bytes()).to_le_bytes());
        self.frame[8..12].copy_from_slice(&payload.to_le_bytes());
        self.file.write_all(&self.frame)
    }
}

/// Members as runs of consecutive numbers: the distance from the end of the run before, and the length.
fn put_members(out: &mut Vec<u8>, members: impl Iterator<Item = u64>) {
    let mut end = 0u64;
    let mut run: Option<(u64, u64)> = None;
    let mut flush = |out: &mut Vec<u8>, (start, len): (u64, u64)| {
        put_varint(out, zigzag(start.wrapping_sub(end) as i64));
        put_varint(out, len);
        end = start + len;
    };
    for member in members {
        match &mut run {
            Some((start, len)) if *start + *len == member => *len += 1,
            _ => {
                if let Some(done) = run.replace((member, 1)) {
                    flush(out, done);
                }
            }
        }
    }
    if let Some(done) = run {
        flush(out, done);
    }
}
