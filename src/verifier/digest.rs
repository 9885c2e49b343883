//! Method `digest`: which ranges of keys the database is asked to sum up, what each sum must be, and which ranges must be read because
//! it is not so.
//!
//! Keys are taken in leaves of a fixed size. What must be stored in a leaf is known when the ledger leaves no choice: the one legal
//! version of each acknowledged row, and nothing else; rows of unknown outcome may be absent and are taken to be. Where several versions
//! of an acknowledged row are legal, no sum can be expected; such leaves are read in full. Of all others the sums are held against the
//! database's, first of many leaves at once; what differs is cut into eight, and those again, down to single leaves, and these are read
//! in full. So nothing but a sum that agrees keeps a row from being read.
//!
//! A range agrees when the number of rows, the least and greatest key and the sum of 64-bit hashes do. That one which is wrong agrees
//! all the same has a probability of about 2^-64: the hash of a row depends on every bit of its key and values, so that the error of
//! the sum is as good as random, whether one row differs or many do.

use std::ops::Range;
use std::sync::Arc;

use super::expect::{Cursor, Expectation, Ops, SharedOp};
use super::range::Findings;
use crate::ledger::Outcome;
use crate::table::Row;
use crate::target::KeyRange;
use crate::target::digest::RangeDigest;
use crate::workload::batch_insert::Generator;

/// Keys of one leaf: the least that is read where something differs.
pub(crate) const LEAF: u64 = 1024;
/// Leaves that are summed up at once, at most.
const PIECE: u64 = 64;
/// Pieces of one stretch.
const PIECES: u64 = 8;
/// Into how many parts a piece that differs is cut.
const CUT: u64 = 8;

/// A range of keys of which one sum is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Piece {
    /// The keys.
    pub(crate) range: KeyRange,
    /// Its leaves; none for the keys below and above all that were attempted.
    leaves: Range<u64>,
}

/// Some neighbouring leaves: small enough for progress to show, large enough for a connection of its own.
pub(crate) struct Stretch {
    expectation: Arc<Expectation>,
    leaf: u64,
    leaves: Range<u64>,
    /// Of each leaf, once it has been computed; without a sum where none can be expected.
    expected: Vec<Option<RangeDigest>>,
    findings: Findings,
    read: Vec<KeyRange>,
}

impl Stretch {
    /// All keys, in order, with leaves of `leaf` keys.
    #[must_use]
    pub(crate) fn all(expectation: &Arc<Expectation>, leaf: u64) -> Vec<Stretch> {
        let leaves = expectation.ledger.end().div_ceil(leaf);
        let stretch = |first: u64| Stretch {
            expectation: Arc::clone(expectation),
            leaf,
            leaves: first..leaves.min(first + PIECE * PIECES),
            expected: Vec::new(),
            findings: Findings::default(),
            read: Vec::new(),
        };
        // One at least, for the keys that nobody attempted.
        (0..leaves.max(1)).step_by((PIECE * PIECES) as usize).map(stretch).collect()
    }

    /// The pieces to begin with; leaves in which nothing can be expected are put down to be read.
    #[must_use]
    pub(crate) fn pieces(&mut self) -> Vec<Piece> {
        let mut pieces = Vec::new();
        if self.leaves.start == 0 {
            pieces.push(Piece { range: KeyRange { from: None, to: Some(Generator::key(0)) }, leaves: 0..0 });
        }
        for leaf in self.leaves.clone() {
            match pieces.last_mut() {
                _ if !self.is_known(leaf) => self.read.push(self.range(&(leaf..leaf + 1))),
                Some(last) if !last.leaves.is_empty() && last.leaves.end == leaf && leaf - last.leaves.start < PIECE => {
                    last.leaves.end += 1;
                    last.range = self.range(&last.leaves);
                }
                _ => pieces.push(self.piece(leaf..leaf + 1)),
            }
        }
        if self.leaves.end * self.leaf >= self.expectation.ledger.end() {
            let from = Some(Generator::key(self.expectation.ledger.end()));
            pieces.push(Piece { range: KeyRange { from, to: None }, leaves: self.leaves.end..self.leaves.end });
        }
        pieces
    }

    fn slots(&self, leaves: &Range<u64>) -> Range<u64> {
        let end = self.expectation.ledger.end();
        (leaves.start * self.leaf).min(end)..(leaves.end * self.leaf).min(end)
    }

    fn range(&self, leaves: &Range<u64>) -> KeyRange {
        let slots = self.slots(leaves);
        KeyRange { from: Some(Generator::key(slots.start)), to: Some(Generator::key(slots.end)) }
    }

    fn piece(&self, leaves: Range<u64>) -> Piece {
        Piece { range: self.range(&leaves), leaves }
    }

    /// Whether it is certain which rows must be stored in a leaf. What may be there or not is expected not to be: where it is, the
    /// sum differs, and it is read.
    fn is_known(&self, leaf: u64) -> bool {
        let slots = self.slots(&(leaf..leaf + 1));
        let shared = &self.expectation.shared;
        let [from, to] = [slots.start, slots.end].map(|slot| shared.partition_point(|op| op.slot < slot));
        shared[from..to].chunk_by(|a, b| a.slot == b.slot).all(|ops| self.expectation.settled(ops).is_some())
    }

    /// Computes what must be stored in each leaf: all the work of the processor that there is on this side.
    pub(crate) fn expect(&mut self, mut row_hash: impl FnMut(&Row) -> u64) {
        let mut row = Row::new();
        for leaf in self.leaves.clone() {
            let known = self.is_known(leaf).then(|| {
                let expectation = &*self.expectation;
                let slots = self.slots(&(leaf..leaf + 1));
                let mut cursor = Cursor::new(expectation, slots.start);
                let mut digest = RangeDigest::default();
                for slot in slots {
                    if let Some(index) = expectation.stored(cursor.ops(slot)) {
                        expectation.generator.fill(index, &mut row);
                        digest.add(Generator::key(slot), row_hash(&row));
                    }
                }
                digest
            });
            self.expected.push(known);
        }
    }

    /// Holds the database's sums of `pieces` against what was expected. What agrees is right; of what differs, the parts to ask for
    /// next are returned, and single leaves are put down to be read.
    #[must_use]
    pub(crate) fn judge(&mut self, pieces: &[Piece], found: &[RangeDigest]) -> Vec<Piece> {
        assert_eq!(pieces.len(), found.len(), "a sum for each piece");
        let mut next = Vec::new();
        for (piece, found) in pieces.iter().zip(found) {
            if self.expected(&piece.leaves).as_ref() == Some(found) {
                self.findings.add_digested(found.rows);
            } else if piece.leaves.end - piece.leaves.start <= 1 {
                self.read.push(piece.range);
            } else {
                let step = (piece.leaves.end - piece.leaves.start).div_ceil(CUT);
                let part = |first: u64| self.piece(first..piece.leaves.end.min(first + step));
                next.extend(piece.leaves.clone().step_by(step as usize).map(part));
            }
        }
        next
    }

    /// The sum of some leaves, if one can be expected in all of them.
    fn expected(&self, leaves: &Range<u64>) -> Option<RangeDigest> {
        let mut all = leaves.clone().map(|leaf| self.expected.get((leaf - self.leaves.start) as usize).copied().flatten());
        all.try_fold(RangeDigest::default(), |sum, leaf| Some(sum.join(&leaf?)))
    }

    /// What agreed, and what must be read in full: ranges in the order of keys, neighbours as one.
    #[must_use]
    pub(crate) fn finish(mut self) -> (Findings, Vec<KeyRange>) {
        self.read.sort_unstable_by_key(|range| range.from);
        self.read.dedup_by(|next, last| {
            let joins = last.to == next.from;
            last.to = if joins { next.to } else { last.to };
            joins
        });
        (self.findings, self.read)
    }

    /// All its keys: what must be read where the database cannot sum them up.
    #[must_use]
    pub(crate) fn whole(&self) -> KeyRange {
        let inner = self.range(&self.leaves);
        let last = self.leaves.end * self.leaf >= self.expectation.ledger.end();
        KeyRange { from: inner.from.filter(|_| self.leaves.start > 0), to: inner.to.filter(|_| !last) }
    }
}

impl Expectation {
    /// The operation whose row must be stored, of those on one key, where that is settled.
    fn stored(&self, ops: Ops<'_>) -> Option<u64> {
        match ops {
            Ops::None => None,
            Ops::One { index, batch } => (self.outcome(batch) == Outcome::Acknowledged).then_some(index),
            Ops::Many(ops) => self.settled(ops).flatten(),
        }
    }

    /// The one row that must be stored under a key which several operations share, or that none must; `None` if it is open which.
    fn settled(&self, ops: &[SharedOp]) -> Option<Option<u64>> {
        if !ops.iter().any(|op| self.outcome(op.batch) == Outcome::Acknowledged) {
            return Some(None);
        }
        let mut legal = ops.iter().filter(|op| self.is_legal(op, ops));
        match (legal.next(), legal.next()) {
            (Some(only), None) => Some(Some(only.index)),
            _ => None,
        }
    }
}
