//! One key range: the stored rows, in key order, merged with the operations that may have written them.

use std::collections::HashMap;
use std::sync::Arc;

use super::EXAMPLES;
use super::compare::{self, difference};
use super::expect::{Cursor, Expectation, Ops, SharedOp};
use crate::ledger::Outcome;
use crate::report::Anomaly;
use crate::table::{Cell, Row, RowBlock};
use crate::target::KeyRange;
use crate::workload::batch_insert::Generator;

/// What was found in some ranges; findings of several ranges add up.
#[derive(Debug, Default)]
pub struct Findings {
    pub(super) checked: u64,
    /// Of those, rows whose digest agreed and that were not read.
    pub(super) digested: u64,
    pub(super) distinct: u64,
    pub(super) must_be_there: u64,
    pub(super) right: u64,
    pub(super) lost: u64,
    pub(super) duplicated: u64,
    pub(super) surplus: u64,
    pub(super) corrupted: u64,
    pub(super) phantom: u64,
    pub(super) resurrected: u64,
    pub(super) stale: u64,
    pub(super) recovered: u64,
    /// Keys that are stored without having to be, by why: for the conservation law, independent of the classes above.
    pub(super) phantom_keys: u64,
    pub(super) resurrected_keys: u64,
    pub(super) recovered_keys: u64,
    pub(super) lost_keys: u64,
    /// Rows lost, and keys duplicated, of single batches: what faults did is told by them.
    pub(super) lost_of: HashMap<u32, u64>,
    pub(super) duplicated_of: HashMap<u32, u64>,
    /// Rows stored of batches that were not acknowledged and whose keys nobody else wrote: judged when the batch is whole.
    pub(super) unacknowledged: HashMap<u32, StoredPart>,
    pub(super) examples: Vec<Anomaly>,
}

/// What is stored of one batch that was not acknowledged.
#[derive(Debug, Default)]
pub(super) struct StoredPart {
    pub(super) stored: u64,
    /// Of those, rows stored more than once: counted as duplicated already.
    pub(super) duplicated: u64,
    pub(super) corrupted: Vec<Anomaly>,
    pub(super) corrupted_count: u64,
    pub(super) keys: Vec<i64>,
}

impl Findings {
    pub(super) fn example(&mut self, anomaly: Anomaly) {
        if self.examples.iter().filter(|known| known.class == anomaly.class).count() < EXAMPLES {
            self.examples.push(anomaly);
        }
    }

    /// Adds what another range found.
    #[must_use]
    pub fn merge(mut self, other: Findings) -> Findings {
        self.checked += other.checked;
        self.digested += other.digested;
        self.distinct += other.distinct;
        self.must_be_there += other.must_be_there;
        self.right += other.right;
        self.lost += other.lost;
        self.duplicated += other.duplicated;
        self.surplus += other.surplus;
        self.corrupted += other.corrupted;
        self.phantom += other.phantom;
        self.resurrected += other.resurrected;
        self.stale += other.stale;
        self.recovered += other.recovered;
        self.phantom_keys += other.phantom_keys;
        self.resurrected_keys += other.resurrected_keys;
        self.recovered_keys += other.recovered_keys;
        self.lost_keys += other.lost_keys;
        for (mine, others) in [(&mut self.lost_of, other.lost_of), (&mut self.duplicated_of, other.duplicated_of)] {
            others.into_iter().for_each(|(batch, rows)| *mine.entry(batch).or_default() += rows);
        }
        for (batch, part) in other.unacknowledged {
            let mine = self.unacknowledged.entry(batch).or_default();
            mine.stored += part.stored;
            mine.duplicated += part.duplicated;
            mine.corrupted_count += part.corrupted_count;
            mine.corrupted.extend(part.corrupted);
            mine.corrupted.truncate(EXAMPLES);
            mine.keys.extend(part.keys);
            mine.keys.truncate(EXAMPLES);
        }
        other.examples.into_iter().for_each(|anomaly| self.example(anomaly));
        self
    }

    /// So many rows, all of them acknowledged, that a digest has shown to be stored once and right, and nothing else with them.
    pub(super) fn add_digested(&mut self, rows: u64) {
        for count in [&mut self.checked, &mut self.digested, &mut self.distinct, &mut self.must_be_there, &mut self.right] {
            *count += rows;
        }
    }

    /// Rows checked so far.
    #[must_use]
    pub fn checked(&self) -> u64 {
        self.checked
    }

    /// Of them, rows that were read back.
    #[must_use]
    pub fn read_back(&self) -> u64 {
        self.checked - self.digested
    }
}

/// What the first copy of a stored key turned out to be; counted when the next key shows that no copy follows.
enum Judged {
    Right,
    Recovered,
    Phantom,
    Resurrected,
    Wrong(Anomaly),
    Stale(Anomaly),
    /// Of a batch that was not acknowledged, with what differs.
    Part(u32, Option<Anomaly>),
}

struct Pending {
    key: i64,
    copies: u64,
    /// Whether an acknowledged operation wrote the key.
    owed: bool,
    /// The batch of its last operation.
    batch: Option<u32>,
    judged: Judged,
}

/// Checks one range; feed it every block of the range, in order.
pub struct RangeCheck {
    expectation: Arc<Expectation>,
    run_cursor: (u64, u64),
    state: State,
}

struct State {
    pending: Option<Pending>,
    scratch: Row,
    findings: Findings,
}

impl RangeCheck {
    /// A check of `range`, whose bounds must be keys of operations, as those of [`Expectation::ranges`] are.
    #[must_use]
    pub fn new(expectation: Arc<Expectation>, range: KeyRange) -> Self {
        let slot = |key: Option<i64>, open: u64| key.map_or(open, |key| (key - Generator::key(0)) as u64);
        let run_cursor = (slot(range.from, 0), slot(range.to, expectation.ledger.end()));
        Self { expectation, run_cursor, state: State { pending: None, scratch: Row::new(), findings: Findings::default() } }
    }

    /// Checks the rows of one block.
    pub fn block(&mut self, block: &RowBlock) {
        let expectation = Arc::clone(&self.expectation);
        let mut cursor = Cursor::new(&expectation, self.run_cursor.0);
        for row in 0..block.rows() {
            let Cell::Int(key) = block.cell(row, expectation.table.key) else {
                // The key column was altered into something that holds no integers: such a row is nobody's.
                self.state.findings.checked += 1;
                self.state.findings.phantom += 1;
                continue;
            };
            self.state.findings.checked += 1;
            if let Some(pending) = self.state.pending.as_mut().filter(|pending| pending.key == key) {
                pending.copies += 1;
                continue;
            }
            self.state.settle();
            let slot = key.checked_sub(Generator::key(0)).and_then(|slot| u64::try_from(slot).ok());
            let slot = slot.filter(|slot| *slot < self.run_cursor.1);
            let (batch, (owed, judged)) = match slot {
                None => (None, (false, Judged::Phantom)),
                Some(slot) => {
                    self.missing(&mut cursor, slot);
                    self.run_cursor.0 = slot + 1;
                    let ops = cursor.ops(slot);
                    (ops.last_batch(), self.state.judge(&expectation, ops, key, block, row))
                }
            };
            self.state.findings.distinct += 1;
            self.state.pending = Some(Pending { key, copies: 1, owed, batch, judged });
        }
    }

    /// Counts what is missing behind the last row and gives the findings.
    #[must_use]
    pub fn finish(mut self) -> Findings {
        self.state.settle();
        let expectation = Arc::clone(&self.expectation);
        let mut cursor = Cursor::new(&expectation, self.run_cursor.0);
        self.missing(&mut cursor, self.run_cursor.1);
        self.state.findings
    }

    /// The slots up to `until` have no stored row: lost, if one was acknowledged.
    fn missing(&mut self, cursor: &mut Cursor<'_>, until: u64) {
        for slot in self.run_cursor.0..until {
            let acknowledged = match cursor.ops(slot) {
                Ops::None => None,
                Ops::One { index, batch } => (self.expectation.outcome(batch) == Outcome::Acknowledged).then_some((index, batch)),
                Ops::Many(ops) => {
                    let acknowledged = |op: &&SharedOp| self.expectation.outcome(op.batch) == Outcome::Acknowledged;
                    ops.iter().rev().find(acknowledged).map(|op| (op.index, op.batch))
                }
            };
            if let Some((index, batch)) = acknowledged {
                let findings = &mut self.state.findings;
                findings.must_be_there += 1;
                findings.lost += 1;
                findings.lost_keys += 1;
                *findings.lost_of.entry(batch).or_default() += 1;
                let expected = Some(compare::show_row(&self.expectation.table, &self.expectation.generator.row(index)));
                findings.example(Anomaly { expected, ..anomaly("lost", Generator::key(slot)) });
            }
        }
        self.run_cursor.0 = until.max(self.run_cursor.0);
    }
}

pub(super) fn anomaly(class: &str, key: i64) -> Anomaly {
    Anomaly { class: class.to_owned(), sub_kind: None, key, column: None, expected: None, found: None }
}

impl State {
    fn judge(&mut self, expectation: &Expectation, ops: Ops<'_>, key: i64, block: &RowBlock, row: usize) -> (bool, Judged) {
        match ops {
            Ops::None => (false, Judged::Phantom),
            Ops::One { index, batch } => {
                expectation.generator.fill(index, &mut self.scratch);
                let wrong = difference(&expectation.table, &self.scratch, block, row).map(|diff| diff.anomaly(key));
                match expectation.outcome(batch) {
                    Outcome::Acknowledged => (true, wrong.map_or(Judged::Right, Judged::Wrong)),
                    Outcome::Rejected | Outcome::Unknown => (false, Judged::Part(batch, wrong)),
                }
            }
            Ops::Many(ops) => self.judge_shared(expectation, ops, key, block, row),
        }
    }

    /// Several operations share the key: the stored version is found by its content.
    fn judge_shared(&mut self, expectation: &Expectation, ops: &[SharedOp], key: i64, block: &RowBlock, row: usize) -> (bool, Judged) {
        let has = |outcome| ops.iter().any(|op| expectation.outcome(op.batch) == outcome);
        let owed = has(Outcome::Acknowledged);
        if !owed && !has(Outcome::Unknown) {
            return (false, Judged::Resurrected);
        }
        let good = || if owed { Judged::Right } else { Judged::Recovered };
        let mut stale = None;
        let mut wrong = None;
        for op in ops {
            expectation.generator.fill(op.index, &mut self.scratch);
            let legal = expectation.is_legal(op, ops);
            match difference(&expectation.table, &self.scratch, block, row) {
                None if legal => return (owed, good()),
                None => stale = Some(op),
                // Of several legal versions the one that differs least is what was meant; the last, where they tie.
                Some(diff) if legal && wrong.as_ref().is_none_or(|known: &compare::Difference| diff.columns <= known.columns) => {
                    wrong = Some(diff);
                }
                Some(_) => {}
            }
        }
        if let Some(op) = stale {
            let legal: Vec<String> = ops.iter().filter(|op| expectation.is_legal(op, ops)).map(|op| op.index.to_string()).collect();
            let expected = Some(format!("the version of operation {}", legal.join(" or ")));
            let found = Some(format!("the version of operation {}", op.index));
            return (owed, Judged::Stale(Anomaly { expected, found, ..anomaly("stale", key) }));
        }
        (owed, wrong.map_or(Judged::Resurrected, |diff| Judged::Wrong(diff.anomaly(key))))
    }

    /// Counts the pending key, now that all its copies are known.
    fn settle(&mut self) {
        let Some(Pending { key, copies, owed, batch, judged }) = self.pending.take() else { return };
        let findings = &mut self.findings;
        findings.must_be_there += u64::from(owed);
        match &judged {
            Judged::Phantom => findings.phantom_keys += 1,
            Judged::Resurrected => findings.resurrected_keys += u64::from(!owed),
            Judged::Part(batch, _) => {
                let part = findings.unacknowledged.entry(*batch).or_default();
                part.stored += 1;
                part.duplicated += u64::from(copies > 1);
                if part.keys.len() < EXAMPLES {
                    part.keys.push(key);
                }
            }
            Judged::Right | Judged::Recovered | Judged::Wrong(_) | Judged::Stale(_) => findings.recovered_keys += u64::from(!owed),
        }
        if copies > 1 {
            findings.duplicated += 1;
            findings.surplus += copies - 1;
            batch.into_iter().for_each(|batch| *findings.duplicated_of.entry(batch).or_default() += 1);
            let (expected, found) = (Some("1 row".to_owned()), Some(format!("{copies} rows")));
            findings.example(Anomaly { expected, found, ..anomaly("duplicated", key) });
            return;
        }
        match judged {
            Judged::Right => findings.right += 1,
            Judged::Recovered => findings.recovered += 1,
            Judged::Phantom => {
                findings.phantom += 1;
                findings.example(anomaly("phantom", key));
            }
            Judged::Resurrected => {
                findings.resurrected += 1;
                findings.example(anomaly("resurrected", key));
            }
            Judged::Wrong(anomaly) => {
                findings.corrupted += 1;
                findings.example(anomaly);
            }
            Judged::Stale(anomaly) => {
                findings.stale += 1;
                findings.example(anomaly);
            }
            Judged::Part(batch, wrong) => {
                if let Some(anomaly) = wrong {
                    let part = findings.unacknowledged.entry(batch).or_default();
                    part.corrupted_count += 1;
                    if part.corrupted.len() < EXAMPLES {
                        part.corrupted.push(anomaly);
                    }
                }
            }
        }
    }
}
