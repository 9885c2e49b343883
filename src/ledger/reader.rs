//! Reading a ledger back, whole or as a crash left it.

use std::collections::{BTreeSet, HashMap};
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::Path;

use super::{FRAME, Header, MAX_MEMBERS, MAX_PAYLOAD, Mark, VERSION, kind, take_varint, unzigzag};

/// What became of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Outcome {
    /// The target confirmed it.
    Acknowledged = 0,
    /// Definitely not applied.
    Rejected = 1,
    /// Nobody can say; also what an intent without an outcome means.
    Unknown = 2,
}

/// One batch of the ledger. Positions are record numbers: the order of events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchRecord {
    /// Record of its intent.
    pub sent: u32,
    /// Record of its outcome; `u32::MAX` if there is none.
    pub answered: u32,
    /// What became of it.
    pub outcome: Outcome,
    /// Whether an attempt before the last may have been applied too, at any time.
    pub after_unknown: bool,
}

/// Consecutive operations of one batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// First operation.
    pub start: u64,
    /// How many.
    pub len: u32,
    /// Position of the batch in [`Ledger::batches`].
    pub batch: u32,
}

/// One operation of a batch that the caller of [`Ledger::read`] asked to see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member {
    /// The operation.
    pub index: u64,
    /// Position of its batch in [`Ledger::batches`].
    pub batch: u32,
    /// Its place in the batch.
    pub position: u32,
}

/// Everything a ledger says. Memory is proportional to batches (and to how disordered their members are), not to rows.
#[derive(Debug)]
pub struct Ledger {
    /// Whose it is.
    pub header: Header,
    /// The batches, in the order of their intents.
    pub batches: Vec<BatchRecord>,
    /// Every operation that was attempted, ordered by operation.
    pub runs: Vec<Run>,
    /// The database sessions that batches were sent on.
    pub sessions: BTreeSet<u64>,
    /// Where faults began and were healed: the record's number, and the mark.
    pub marks: Vec<(u32, Mark)>,
    /// Whether the run wrote that every batch has its outcome.
    pub closed: bool,
    /// Whether the last record was cut off, as a crash of the harness leaves it.
    pub torn: bool,
    /// Bytes up to the end of the last whole record.
    pub sound_bytes: u64,
}

/// Why a ledger cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// It cannot be read.
    #[error("ledger {path} cannot be read: {error}")]
    Io {
        /// The file.
        path: String,
        /// Why.
        error: io::Error,
    },
    /// A record does not match its checksum, or makes no sense.
    #[error("ledger {path} is damaged at byte {offset}: {what}; nothing can be proven from it, run the scenario again")]
    Damaged {
        /// The file.
        path: String,
        /// Where.
        offset: u64,
        /// What does not add up.
        what: String,
    },
}

impl Ledger {
    /// Reads a ledger. `watch` is called for every operation with its batch and place; it may keep what it needs.
    ///
    /// # Errors
    /// When the file cannot be read or is damaged. A torn tail is no error.
    pub fn read(path: &Path, watch: impl FnMut(Member)) -> Result<Self, LedgerError> {
        let (input, size) = open(path)?;
        Self::read_from(input, size, path, watch)
    }

    /// [`Ledger::read`] for `size` bytes that are already there; `path` is the name that errors show.
    pub(crate) fn read_from(input: impl Read, size: u64, path: &Path, mut watch: impl FnMut(Member)) -> Result<Self, LedgerError> {
        let mut building: Option<Building> = None;
        let tail = each_record(input, size, path, |payload| match &mut building {
            None => Building::new(payload).map(|begun| building = Some(begun)),
            Some(building) => building.record(payload, &mut watch).map_err(str::to_owned),
        })?;
        let building = building.ok_or_else(|| no_header(path))?;
        Ok(building.finish(tail.torn, tail.sound_bytes))
    }

    /// The batch that operation `index` was attempted in.
    #[must_use]
    pub fn batch_of(&self, index: u64) -> Option<u32> {
        let after = self.runs.partition_point(|run| run.start <= index);
        let run = self.runs.get(after.checked_sub(1)?)?;
        (index < run.start + u64::from(run.len)).then_some(run.batch)
    }

    /// One more than the greatest operation attempted.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.runs.last().map_or(0, |run| run.start + u64::from(run.len))
    }

    /// Operations attempted, by outcome: acknowledged, rejected, unknown.
    #[must_use]
    pub fn totals(&self) -> [u64; 3] {
        let mut totals = [0; 3];
        for run in &self.runs {
            totals[self.batches[run.batch as usize].outcome as usize] += u64::from(run.len);
        }
        totals
    }
}

pub(super) fn no_header(path: &Path) -> LedgerError {
    LedgerError::Damaged { path: path.display().to_string(), offset: 0, what: "it has no header".to_owned() }
}

/// How a ledger ends.
pub(super) struct Tail {
    /// Whether the last record was cut off.
    pub(super) torn: bool,
    /// Bytes up to the end of the last whole record.
    pub(super) sound_bytes: u64,
}

/// A ledger's file and its size.
pub(super) fn open(path: &Path) -> Result<(BufReader<File>, u64), LedgerError> {
    let io = |error| LedgerError::Io { path: path.display().to_string(), error };
    let file = File::open(path).map_err(io)?;
    let size = file.metadata().map_err(io)?.len();
    Ok((BufReader::with_capacity(1 << 16, file), size))
}

/// Calls `each` with the payload of every record, in order.
pub(super) fn each_record(
    mut input: impl Read,
    size: u64,
    path: &Path,
    mut each: impl FnMut(&[u8]) -> Result<(), String>,
) -> Result<Tail, LedgerError> {
    let shown = || path.display().to_string();
    let io = |error| LedgerError::Io { path: shown(), error };
    let mut offset = 0u64;
    let mut payload = Vec::new();
    loop {
        let damaged = |what: String| LedgerError::Damaged { path: shown(), offset, what };
        match next_record(&mut input, size - offset, &mut payload).map_err(io)? {
            Next::Record => {}
            Next::End => return Ok(Tail { torn: false, sound_bytes: offset }),
            Next::Torn => return Ok(Tail { torn: true, sound_bytes: offset }),
            Next::Damaged(what) => return Err(damaged(what.to_owned())),
        }
        each(&payload).map_err(damaged)?;
        offset += (FRAME + payload.len()) as u64;
    }
}

/// The header of a file.
pub(super) fn header_of(path: &Path) -> Result<Header, LedgerError> {
    let (mut input, size) = open(path)?;
    let mut payload = Vec::new();
    let io = |error| LedgerError::Io { path: path.display().to_string(), error };
    let damaged = |what: String| LedgerError::Damaged { path: path.display().to_string(), offset: 0, what };
    match next_record(&mut input, size, &mut payload).map_err(io)? {
        Next::Record => header(&payload).map_err(damaged),
        Next::Damaged(what) => Err(damaged(what.to_owned())),
        Next::End | Next::Torn => Err(no_header(path)),
    }
}

/// The header that a ledger begins with.
pub(super) fn header(payload: &[u8]) -> Result<Header, String> {
    let [kind::HEADER, json @ ..] = payload else { return Err("it does not begin with a header".to_owned()) };
    let header: Header = serde_json::from_slice(json).map_err(|e| format!("its header cannot be read ({e})"))?;
    if header.version != VERSION {
        return Err(format!("it has version {}, this program reads version {VERSION}", header.version));
    }
    Ok(header)
}

enum Next {
    Record,
    End,
    Torn,
    Damaged(&'static str),
}

fn next_record(input: &mut impl Read, left: u64, payload: &mut Vec<u8>) -> io::Result<Next> {
    if left == 0 {
        return Ok(Next::End);
    }
    if left < FRAME as u64 {
        return Ok(Next::Torn);
    }
    let mut frame = [0; FRAME];
    input.read_exact(&mut frame)?;
    let word = |at: usize| u32::from_le_bytes([frame[at], frame[at + 1], frame[at + 2], frame[at + 3]]);
    if crc32fast::hash(&frame[0..4]) != word(4) {
        return Ok(Next::Damaged("the length of a record does not match its checksum"));
    }
    let length = word(0) as usize;
    if length > MAX_PAYLOAD || length == 0 {
        return Ok(Next::Damaged("a record has an impossible length"));
    }
    if length as u64 > left - FRAME as u64 {
        return Ok(Next::Torn);
    }
    payload.resize(length, 0);
    input.read_exact(payload)?;
    Ok(if crc32fast::hash(payload) == word(8) { Next::Record } else { Next::Damaged("a record does not match its checksum") })
}

/// A ledger while it is read.
struct Building {
    header: Header,
    batches: Vec<BatchRecord>,
    runs: Vec<Run>,
    sessions: BTreeSet<u64>,
    /// Batches without an outcome yet: the pipeline's number to the position here.
    open: HashMap<u64, u32>,
    records: u32,
    marks: Vec<(u32, Mark)>,
    closed: bool,
}

impl Building {
    fn new(payload: &[u8]) -> Result<Self, String> {
        Ok(Self {
            header: header(payload)?,
            batches: Vec::new(),
            runs: Vec::new(),
            sessions: BTreeSet::new(),
            open: HashMap::new(),
            records: 1,
            marks: Vec::new(),
            closed: false,
        })
    }

    fn record(&mut self, payload: &[u8], watch: &mut impl FnMut(Member)) -> Result<(), &'static str> {
        let position = self.records;
        self.records = self.records.checked_add(1).ok_or("it has too many records")?;
        let (&kind, mut bytes) = payload.split_first().ok_or("a record is empty")?;
        match kind {
            kind::INTENT => self.intent(position, &mut bytes, watch),
            kind::ATTEMPT => {
                let batch = take_varint(&mut bytes).ok_or("an attempt is cut short")?;
                let session = take_varint(&mut bytes).ok_or("an attempt is cut short")?;
                self.open.get(&batch).ok_or("an attempt has no intent")?;
                self.sessions.insert(session);
                Ok(())
            }
            kind::OUTCOME => {
                let batch = take_varint(&mut bytes).ok_or("an outcome is cut short")?;
                let &[outcome, after_unknown] = bytes else { return Err("an outcome has a wrong length") };
                let at = self.open.remove(&batch).ok_or("an outcome has no intent")?;
                let record = &mut self.batches[at as usize];
                record.answered = position;
                record.outcome = match outcome {
                    0 => Outcome::Acknowledged,
                    1 => Outcome::Rejected,
                    2 => Outcome::Unknown,
                    _ => return Err("an outcome is none of the three"),
                };
                record.after_unknown = after_unknown != 0;
                Ok(())
            }
            kind::MARK => {
                let fault = take_varint(&mut bytes).and_then(|fault| u32::try_from(fault).ok()).ok_or("a mark is cut short")?;
                let &[healed] = bytes else { return Err("a mark has a wrong length") };
                self.marks.push((position, Mark { fault, healed: healed != 0 }));
                Ok(())
            }
            kind::CLOSED => {
                self.closed = true;
                Ok(())
            }
            _ => Err("a record is of an unknown kind"),
        }
    }

    fn intent(&mut self, position: u32, bytes: &mut &[u8], watch: &mut impl FnMut(Member)) -> Result<(), &'static str> {
        let number = take_varint(bytes).ok_or("an intent is cut short")?;
        self.sessions.insert(take_varint(bytes).ok_or("an intent is cut short")?);
        let batch = self.batches.len() as u32;
        self.batches.push(BatchRecord { sent: position, answered: u32::MAX, outcome: Outcome::Unknown, after_unknown: false });
        if self.open.insert(number, batch).is_some() {
            return Err("a batch has two intents");
        }
        let (mut end, mut place) = (0u64, 0u32);
        while !bytes.is_empty() {
            let distance = take_varint(bytes).ok_or("an intent is cut short")?;
            let len = take_varint(bytes).and_then(|len| u32::try_from(len).ok()).ok_or("an intent is cut short")?;
            let start = end.wrapping_add(unzigzag(distance) as u64);
            end = start.checked_add(u64::from(len)).ok_or("an operation's number is out of range")?;
            if len > MAX_MEMBERS - place {
                return Err("a batch has more operations than any can");
            }
            for index in start..end {
                watch(Member { index, batch, position: place });
                place += 1;
            }
            self.runs.push(Run { start, len, batch });
        }
        Ok(())
    }

    fn finish(mut self, torn: bool, sound_bytes: u64) -> Ledger {
        self.runs.sort_unstable_by_key(|run| run.start);
        // Members of a batch were out of order at most by what producers overtook each other: joined, in place, few runs remain.
        self.runs.dedup_by(|next, last| {
            let joins = last.batch == next.batch && last.start + u64::from(last.len) == next.start;
            last.len += if joins { next.len } else { 0 };
            joins
        });
        self.runs.shrink_to_fit();
        self.sessions.remove(&0);
        let Self { header, batches, runs, sessions, marks, closed, .. } = self;
        Ledger { header, batches, runs, sessions, marks, closed, torn, sound_bytes }
    }
}
