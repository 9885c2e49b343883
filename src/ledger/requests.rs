//! The ledger of requests: which were about to be sent, and what came back of each. The same file of checked records as for batches,
//! with one difference that speed asks for: intents are written for a block of operations at a time, answers a few at a time. What a
//! crash takes with it was then unknown, never wrong.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use super::reader::{each_record, header, no_header, open};
use super::writer::Frames;
use super::{Header, LedgerError, Mark, Outcome, kind, put_varint, take_varint};
use crate::workload::reply::fnv1a;

/// Operations whose intent is written at once.
const BLOCK: u64 = 256;

/// Replies kept whole because they were not the right ones.
const KEPT_REPLIES: usize = 1_000;

/// Most bytes kept of a reply.
pub const KEPT_BYTES: usize = 64 << 10;

/// What came of one request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// The operation.
    pub index: u64,
    /// [`digest`] of the text that came back, if its content matters.
    pub digest: Option<u64>,
    /// `usage` as the reply told it: tokens of the prompt, of the completion.
    pub usage: Option<(u32, u32)>,
    /// When the answer had come, in milliseconds from the run's first intended start.
    pub at_ms: u32,
    /// Status; 0 without an answer.
    pub status: u16,
    /// What it is counted as.
    pub outcome: Option<Outcome>,
    /// Whether it came as a stream.
    pub streamed: bool,
    /// Whether the reply said that it was whole (`finish_reason`, and on a stream `[DONE]`).
    pub ended: bool,
    /// Whether the reply was held against a condition of the scenario.
    pub checked: bool,
}

/// 64 bits that stand for a text.
#[must_use]
pub fn digest(text: &str) -> u64 {
    fnv1a(text.as_bytes())
}

/// An open ledger of requests.
pub struct RequestWriter {
    /// Operations below it may be sent.
    intended: AtomicU64,
    frames: Mutex<Frames>,
    replies: AtomicU64,
}

impl RequestWriter {
    /// Makes a new ledger; a file that exists is never touched.
    ///
    /// # Errors
    /// When the file exists or cannot be written.
    pub fn create(path: &Path, header: &Header) -> io::Result<Self> {
        let frames = Mutex::new(Frames::create(path, header)?);
        Ok(Self { intended: AtomicU64::new(0), frames, replies: AtomicU64::new(0) })
    }

    fn append(&self, kind: u8, fill: impl FnOnce(&mut Vec<u8>)) -> io::Result<()> {
        self.frames.lock().unwrap_or_else(PoisonError::into_inner).append(kind, fill)
    }

    /// Says that operation `index` is about to be sent, unless its block has said so.
    ///
    /// # Errors
    /// When the record cannot be written; then the request must not be sent.
    pub fn intend(&self, index: u64) -> io::Result<()> {
        if index < self.intended.load(Ordering::Acquire) {
            return Ok(());
        }
        let mut frames = self.frames.lock().unwrap_or_else(PoisonError::into_inner);
        let from = self.intended.load(Ordering::Acquire);
        if index < from {
            return Ok(());
        }
        let to = (index / BLOCK + 1) * BLOCK;
        frames.append(kind::REQUESTS, |payload| {
            put_varint(payload, from);
            put_varint(payload, to - from);
        })?;
        self.intended.store(to, Ordering::Release);
        Ok(())
    }

    /// Writes down what came of some requests, encoded by [`encode`].
    ///
    /// # Errors
    /// When the record cannot be written; then they count as unknown.
    pub fn answers(&self, encoded: &[u8]) -> io::Result<()> {
        if encoded.is_empty() { Ok(()) } else { self.append(kind::ANSWERS, |payload| payload.extend_from_slice(encoded)) }
    }

    /// Keeps the text of a reply that was not the right one, so that what is wrong with it can be told; bounded in number and size.
    ///
    /// # Errors
    /// When the record cannot be written.
    pub fn reply(&self, index: u64, text: &str) -> io::Result<()> {
        if self.replies.fetch_add(1, Ordering::Relaxed) >= KEPT_REPLIES as u64 {
            return Ok(());
        }
        let mut end = text.len().min(KEPT_BYTES);
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        self.append(kind::REPLY, |payload| {
            put_varint(payload, index);
            payload.extend_from_slice(&text.as_bytes()[..end]);
        })
    }

    /// Says that a fault begins or is healed, `at_ms` milliseconds after the run's first intended start. Answers wait for each other
    /// before they are written: it is their times, not the order of records, that say which came first.
    ///
    /// # Errors
    /// When the record cannot be written.
    pub fn mark(&self, mark: Mark, at_ms: u32) -> io::Result<()> {
        self.append(kind::MARK, |payload| {
            put_varint(payload, u64::from(mark.fault));
            payload.push(u8::from(mark.healed));
            put_varint(payload, u64::from(at_ms));
        })
    }

    /// Says that every request that was sent has its answer, and that operations from `sent` on were never begun.
    ///
    /// # Errors
    /// When the record cannot be written.
    pub fn close(&self, sent: u64) -> io::Result<()> {
        self.append(kind::CLOSED, |payload| put_varint(payload, sent))
    }
}

/// Appends an answer to those that are yet to be written.
pub fn encode(out: &mut Vec<u8>, answer: &Answer) {
    let outcome = answer.outcome.map_or(2, |outcome| outcome as u8);
    let flags = [answer.streamed, answer.ended, answer.checked, answer.usage.is_some(), answer.digest.is_some()];
    out.push(flags.iter().enumerate().fold(outcome, |byte, (place, set)| byte | u8::from(*set) << (place + 2)));
    put_varint(out, answer.index);
    put_varint(out, u64::from(answer.at_ms));
    put_varint(out, u64::from(answer.status));
    if let Some((prompt, completion)) = answer.usage {
        put_varint(out, u64::from(prompt));
        put_varint(out, u64::from(completion));
    }
    if let Some(digest) = answer.digest {
        out.extend_from_slice(&digest.to_le_bytes());
    }
}

fn decode(bytes: &mut &[u8]) -> Option<Answer> {
    let (&flags, rest) = bytes.split_first()?;
    *bytes = rest;
    let set = |place: u8| flags >> (place + 2) & 1 == 1;
    let outcome = [Outcome::Acknowledged, Outcome::Rejected, Outcome::Unknown].get(usize::from(flags & 3)).copied()?;
    let index = take_varint(bytes)?;
    let at_ms = u32::try_from(take_varint(bytes)?).ok()?;
    let status = u16::try_from(take_varint(bytes)?).ok()?;
    let mut tokens = || u32::try_from(take_varint(bytes)?).ok();
    let usage = if set(3) { Some((tokens()?, tokens()?)) } else { None };
    let digest = if set(4) {
        let (digest, rest) = bytes.split_first_chunk::<8>()?;
        *bytes = rest;
        Some(u64::from_le_bytes(*digest))
    } else {
        None
    };
    Some(Answer { index, digest, usage, at_ms, status, outcome: Some(outcome), streamed: set(0), ended: set(1), checked: set(2) })
}

/// Everything a ledger of requests says.
#[derive(Debug)]
pub struct RequestLedger {
    /// Whose it is.
    pub header: Header,
    /// One more than the greatest operation that may have been sent.
    pub end: u64,
    /// The answers, ordered by operation.
    pub answers: Vec<Answer>,
    /// The replies that were kept, by operation.
    pub replies: HashMap<u64, String>,
    /// Where faults began and were healed: the time as in [`Answer::at_ms`], and the mark.
    pub marks: Vec<(u32, Mark)>,
    /// Whether the run wrote that every request has its answer.
    pub closed: bool,
    /// Whether the last record was cut off, as a crash of the harness leaves it.
    pub torn: bool,
}

impl RequestLedger {
    /// Reads a ledger.
    ///
    /// # Errors
    /// When the file cannot be read or is damaged. A torn tail is no error.
    pub fn read(path: &Path) -> Result<Self, LedgerError> {
        let (input, size) = open(path)?;
        Self::read_from(input, size, path)
    }

    /// [`RequestLedger::read`] for `size` bytes that are already there; `path` is the name that errors show.
    pub(crate) fn read_from(input: impl io::Read, size: u64, path: &Path) -> Result<Self, LedgerError> {
        let mut begun: Option<Self> = None;
        let tail = each_record(input, size, path, |payload| match &mut begun {
            None => {
                let header = header(payload)?;
                begun = Some(Self {
                    header,
                    end: 0,
                    answers: Vec::new(),
                    replies: HashMap::new(),
                    marks: Vec::new(),
                    closed: false,
                    torn: false,
                });
                Ok(())
            }
            Some(ledger) => ledger.record(payload).ok_or_else(|| "a record cannot be read".to_owned()),
        })?;
        let mut ledger = begun.ok_or_else(|| no_header(path))?;
        ledger.answers.sort_unstable_by_key(|answer| answer.index);
        if ledger.answers.windows(2).any(|pair| pair[0].index == pair[1].index) {
            let what = "a request has two answers".to_owned();
            return Err(LedgerError::Damaged { path: path.display().to_string(), offset: 0, what });
        }
        ledger.torn = tail.torn;
        Ok(ledger)
    }

    fn record(&mut self, payload: &[u8]) -> Option<()> {
        let (&kind, mut bytes) = payload.split_first()?;
        match kind {
            kind::REQUESTS => self.end = take_varint(&mut bytes)?.checked_add(take_varint(&mut bytes)?)?,
            kind::ANSWERS => {
                while !bytes.is_empty() {
                    let answer = decode(&mut bytes)?;
                    (answer.index < self.end).then(|| self.answers.push(answer))?;
                }
            }
            kind::REPLY => {
                let index = take_varint(&mut bytes)?;
                self.replies.insert(index, String::from_utf8_lossy(bytes).into_owned());
            }
            kind::MARK => {
                let fault = u32::try_from(take_varint(&mut bytes)?).ok()?;
                let (&healed, rest) = bytes.split_first()?;
                bytes = rest;
                let at_ms = u32::try_from(take_varint(&mut bytes)?).ok()?;
                self.marks.push((at_ms, Mark { fault, healed: healed != 0 }));
            }
            kind::CLOSED => {
                self.end = self.end.min(take_varint(&mut bytes)?);
                self.closed = true;
            }
            _ => return None,
        }
        Some(())
    }

    /// What came of operation `index`: `None` if it was never sent; unknown if it may have been and nothing is written of it.
    #[must_use]
    pub fn outcome(&self, index: u64) -> Option<Outcome> {
        match self.answer(index) {
            Some(answer) => answer.outcome,
            // A ledger that was closed has the answer of everything that was sent: what has none was dropped.
            None if self.closed || index >= self.end => None,
            None => Some(Outcome::Unknown),
        }
    }

    /// The answer to operation `index`.
    #[must_use]
    pub fn answer(&self, index: u64) -> Option<&Answer> {
        self.position(index).map(|position| &self.answers[position])
    }

    /// Where in [`RequestLedger::answers`] the answer to operation `index` is.
    #[must_use]
    pub fn position(&self, index: u64) -> Option<usize> {
        self.answers.binary_search_by_key(&index, |answer| answer.index).ok()
    }

    /// Answers by outcome.
    #[must_use]
    pub fn totals(&self) -> BTreeMap<u8, u64> {
        let mut totals = BTreeMap::new();
        for answer in &self.answers {
            *totals.entry(answer.outcome.map_or(2, |outcome| outcome as u8)).or_default() += 1;
        }
        totals
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn header() -> Header {
        Header { version: crate::ledger::VERSION, run_id: "r".into(), seed: 1 }
    }

    fn answer(index: u64) -> Answer {
        Answer {
            index,
            digest: index.is_multiple_of(2).then_some(index << 32),
            usage: index.is_multiple_of(3).then_some((7, index as u32)),
            at_ms: 1_000_000,
            status: 200,
            outcome: Some([Outcome::Acknowledged, Outcome::Rejected, Outcome::Unknown][(index % 3) as usize]),
            streamed: index.is_multiple_of(5),
            ended: index.is_multiple_of(7),
            checked: index % 2 == 1,
        }
    }

    #[test]
    fn what_was_written_is_read_and_blocks_are_intended_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ledger");
        let ledger = RequestWriter::create(&path, &header()).unwrap();
        let before = std::fs::metadata(&path).unwrap().len();
        ledger.intend(0).unwrap();
        let once = std::fs::metadata(&path).unwrap().len();
        ledger.intend(255).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().len(), once);
        assert!(once > before);
        ledger.intend(300).unwrap();
        let mut encoded = Vec::new();
        for index in [3, 0, 299] {
            encode(&mut encoded, &answer(index));
        }
        ledger.answers(&encoded).unwrap();
        ledger.reply(3, "häh?").unwrap();
        let open = RequestLedger::read(&path).unwrap();
        assert_eq!((open.end, open.closed, open.torn), (512, false, false));
        assert_eq!(open.answers, [answer(0), answer(3), answer(299)]);
        assert_eq!((open.outcome(1), open.outcome(511), open.outcome(512)), (Some(Outcome::Unknown), Some(Outcome::Unknown), None));
        assert_eq!(open.replies, HashMap::from([(3, "häh?".to_owned())]));
        let marks = [(500, Mark { fault: 0, healed: false }), (1_000_000, Mark { fault: 0, healed: true })];
        marks.iter().for_each(|(at_ms, mark)| ledger.mark(*mark, *at_ms).unwrap());
        ledger.close(301).unwrap();
        let closed = RequestLedger::read(&path).unwrap();
        assert_eq!(closed.marks, marks);
        assert_eq!((closed.end, closed.closed, closed.outcome(1), closed.outcome(0)), (301, true, None, Some(Outcome::Acknowledged)));
    }

    #[test]
    fn a_torn_tail_leaves_its_requests_unknown_and_two_answers_are_damage() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ledger");
        let ledger = RequestWriter::create(&path, &header()).unwrap();
        ledger.intend(0).unwrap();
        let mut encoded = Vec::new();
        encode(&mut encoded, &answer(0));
        ledger.answers(&encoded).unwrap();
        let whole = std::fs::read(&path).unwrap();
        std::fs::write(&path, &whole[..whole.len() - 1]).unwrap();
        let torn = RequestLedger::read(&path).unwrap();
        assert_eq!((torn.torn, torn.outcome(0)), (true, Some(Outcome::Unknown)));
        std::fs::write(&path, &whole).unwrap();
        let again = RequestWriter { frames: Mutex::new(reopen(&path)), intended: AtomicU64::new(256), replies: AtomicU64::new(0) };
        again.answers(&encoded).unwrap();
        assert!(RequestLedger::read(&path).unwrap_err().to_string().contains("two answers"));
    }

    #[test]
    fn what_is_kept_of_a_reply_is_bounded_and_stays_text() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ledger");
        let ledger = RequestWriter::create(&path, &header()).unwrap();
        ledger.reply(0, &format!("{}é", "x".repeat(KEPT_BYTES - 1))).unwrap();
        ledger.reply(1, &"x".repeat(KEPT_BYTES + 1)).unwrap();
        (2..KEPT_REPLIES as u64 + 1).for_each(|index| ledger.reply(index, "y").unwrap());
        let read = RequestLedger::read(&path).unwrap();
        assert_eq!(read.replies.len(), KEPT_REPLIES);
        assert_eq!((read.replies[&0].len(), read.replies[&1].len()), (KEPT_BYTES - 1, KEPT_BYTES));
    }

    #[test]
    fn answers_are_of_requests_that_were_about_to_be_sent_and_are_counted_by_outcome() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ledger");
        let ledger = RequestWriter::create(&path, &header()).unwrap();
        ledger.intend(0).unwrap();
        let write = |indexes: &[u64]| {
            let mut encoded = Vec::new();
            indexes.iter().for_each(|index| encode(&mut encoded, &answer(*index)));
            ledger.answers(&encoded).unwrap();
        };
        write(&[0, 3, 6, 1, 4, 255]);
        assert_eq!(RequestLedger::read(&path).unwrap().totals(), BTreeMap::from([(0, 4), (1, 2)]));
        write(&[256]);
        assert!(RequestLedger::read(&path).unwrap_err().to_string().contains("a record cannot be read"));
    }

    #[test]
    fn texts_are_told_apart_by_a_known_hash() {
        assert_eq!([digest(""), digest("a")], [0xcbf2_9ce4_8422_2325, 0xaf63_dc4c_8601_ec8c]);
    }

    fn reopen(path: &Path) -> Frames {
        Frames::append_to(std::fs::OpenOptions::new().append(true).open(path).unwrap())
    }

    proptest! {
        #[test]
        fn every_answer_survives_its_encoding(index in 0u64..1 << 60, at_ms: u32, status: u16, usage: Option<(u32, u32)>, digest: Option<u64>, bits: u8) {
            let outcome = [Outcome::Acknowledged, Outcome::Rejected, Outcome::Unknown][usize::from(bits % 3)];
            let answer = Answer {
                index, digest, usage, at_ms, status, outcome: Some(outcome),
                streamed: bits & 8 != 0, ended: bits & 16 != 0, checked: bits & 32 != 0,
            };
            let mut encoded = Vec::new();
            encode(&mut encoded, &answer);
            let mut bytes = encoded.as_slice();
            prop_assert_eq!(decode(&mut bytes), Some(answer));
            prop_assert!(bytes.is_empty());
        }
    }
}
