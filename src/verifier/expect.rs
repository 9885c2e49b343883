//! What may be stored under each key, from the ledger and the generator.

use std::path::Path;

use crate::ledger::{BatchRecord, Ledger, LedgerError, Member, Outcome, Run};
use crate::table::Table;
use crate::target::{Conflict, KeyRange};
use crate::workload::batch_insert::Generator;

/// Everything the verifier holds what is stored against.
pub struct Expectation {
    pub(super) table: Table,
    pub(super) conflict: Conflict,
    pub(super) generator: Generator,
    pub(super) ledger: Ledger,
    /// The attempted operations on every key that more than one may have written, ordered by (slot, operation).
    pub(super) shared: Vec<SharedOp>,
}

/// An operation on a key that others write too.
#[derive(Clone, Copy, Debug)]
pub(super) struct SharedOp {
    pub(super) slot: u64,
    pub(super) index: u64,
    pub(super) batch: u32,
    /// Place in the batch: later rows of a batch take effect later.
    pub(super) position: u32,
}

/// The attempted operations on one key.
#[derive(Clone, Copy, Debug)]
pub(super) enum Ops<'a> {
    None,
    One { index: u64, batch: u32 },
    Many(&'a [SharedOp]),
}

impl Ops<'_> {
    /// The batch of the last of them.
    pub(super) fn last_batch(self) -> Option<u32> {
        match self {
            Ops::None => None,
            Ops::One { batch, .. } => Some(batch),
            Ops::Many(ops) => ops.last().map(|op| op.batch),
        }
    }
}

impl Expectation {
    /// Reads the ledger and finds the keys that several operations share.
    ///
    /// # Errors
    /// When the ledger cannot be read or is damaged.
    pub fn read(ledger: &Path, table: Table, conflict: Conflict, generator: Generator) -> Result<Self, LedgerError> {
        let mut shared = Vec::new();
        let keep = |shared: &mut Vec<SharedOp>, slot, member: Member| {
            shared.push(SharedOp { slot, index: member.index, batch: member.batch, position: member.position });
        };
        let path = ledger;
        let ledger = Ledger::read(path, |member| {
            let slot = generator.slot(member.index);
            if slot != member.index {
                keep(&mut shared, slot, member);
            }
        })?;
        if !shared.is_empty() {
            // The first writers of those keys are known only now; a second pass finds their places.
            let mut slots: Vec<u64> = shared.iter().map(|op| op.slot).collect();
            slots.sort_unstable();
            slots.dedup();
            Ledger::read(path, |member| {
                if slots.binary_search(&member.index).is_ok() && generator.slot(member.index) == member.index {
                    keep(&mut shared, member.index, member);
                }
            })?;
            shared.sort_unstable_by_key(|op| (op.slot, op.index));
        }
        Ok(Self { table, conflict, generator, ledger, shared })
    }

    /// The ledger it was made from.
    #[must_use]
    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// The table that is read back.
    #[must_use]
    pub fn table(&self) -> &Table {
        &self.table
    }

    /// Splits all keys into `parts` ranges of about equal work; the outer ones are open, so that rows nobody attempted are read too.
    #[must_use]
    pub fn ranges(&self, parts: usize) -> Vec<KeyRange> {
        let end = self.ledger.end();
        let parts = (parts.max(1) as u64).min(end.max(1));
        let bound = |part: u64| (part > 0 && part < parts).then(|| Generator::key(end * part / parts));
        (0..parts).map(|part| KeyRange { from: bound(part), to: bound(part + 1) }).collect()
    }

    pub(super) fn batch(&self, batch: u32) -> &BatchRecord {
        &self.ledger.batches[batch as usize]
    }

    pub(super) fn outcome(&self, batch: u32) -> Outcome {
        self.batch(batch).outcome
    }

    /// Whether the stored version `op` is legal beside the other operations on its key: no acknowledged write may lie wholly after it
    /// (for `ignore`, and for `error`, which stores only the first too: wholly before it).
    pub(super) fn is_legal(&self, op: &SharedOp, all: &[SharedOp]) -> bool {
        self.outcome(op.batch) != Outcome::Rejected
            && !all.iter().any(|other| {
                other.index != op.index
                    && self.outcome(other.batch) == Outcome::Acknowledged
                    && match self.conflict {
                        Conflict::Replace | Conflict::Update => self.wholly_after(other, op),
                        Conflict::Ignore => self.wholly_after(op, other),
                        // Only one plain INSERT of a key can succeed; a second acknowledged one was not stored.
                        Conflict::Error => true,
                    }
            })
    }

    fn wholly_after(&self, later: &SharedOp, earlier: &SharedOp) -> bool {
        if later.batch == earlier.batch {
            return later.position > earlier.position;
        }
        let first = self.batch(earlier.batch);
        // An attempt that may still have been under way has no end. Under `ignore` the acknowledgement of `earlier` is what
        // counts: from then on the key was taken, whichever attempt took it.
        let open = first.answered == u32::MAX || first.outcome == Outcome::Unknown;
        let open = open || (first.after_unknown && self.conflict != Conflict::Ignore);
        !open && self.batch(later.batch).sent > first.answered
    }
}

/// Walks the slots upwards and tells the operations of each.
pub(super) struct Cursor<'a> {
    expectation: &'a Expectation,
    run: usize,
    shared: usize,
}

impl<'a> Cursor<'a> {
    pub(super) fn new(expectation: &'a Expectation, from: u64) -> Self {
        let run = expectation.ledger.runs.partition_point(|run| run.start + u64::from(run.len) <= from);
        let shared = expectation.shared.partition_point(|op| op.slot < from);
        Self { expectation, run, shared }
    }

    /// The operations on `slot`, which must not lie before the slot asked for last.
    pub(super) fn ops(&mut self, slot: u64) -> Ops<'a> {
        let Expectation { shared, ledger, generator, .. } = self.expectation;
        while shared.get(self.shared).is_some_and(|op| op.slot < slot) {
            self.shared += 1;
        }
        let same = shared[self.shared..].iter().take_while(|op| op.slot == slot).count();
        if same > 0 {
            return Ops::Many(&shared[self.shared..self.shared + same]);
        }
        let ends = |run: &Run| run.start + u64::from(run.len);
        while ledger.runs.get(self.run).is_some_and(|run| ends(run) <= slot) {
            self.run += 1;
        }
        match ledger.runs.get(self.run) {
            Some(run) if run.start <= slot && generator.slot(slot) == slot => Ops::One { index: slot, batch: run.batch },
            _ => Ops::None,
        }
    }
}
