//! What each fault did to the rows of a run, by its marks in the ledger.
//!
//! A row that is lost was acknowledged before the fault that took it was over: it is counted to the first fault that was healed after
//! its acknowledgement (RPO). What is unknown, or was tried again and stored twice, is counted to the fault that began last before its
//! outcome was known.

use std::collections::{BTreeMap, HashMap};

use super::expect::Expectation;
use super::range::Findings;
use crate::ledger::{BatchRecord, Mark, Outcome};
use crate::report::FaultHarm;

/// Nothing counted yet, for each fault that left a mark; in the scenario's order.
pub(super) fn of_marks<'a>(marks: impl Iterator<Item = &'a Mark>) -> BTreeMap<u32, FaultHarm> {
    marks.map(|mark| (mark.fault, FaultHarm { fault: mark.fault, ..FaultHarm::default() })).collect()
}

/// Rows of single batches, before batches that were not acknowledged are judged whole.
pub(super) struct Rows {
    lost: HashMap<u32, u64>,
    duplicated: HashMap<u32, u64>,
    stored: HashMap<u32, u64>,
}

impl Rows {
    pub(super) fn of(findings: &Findings) -> Self {
        let stored = findings.unacknowledged.iter().map(|(batch, part)| (*batch, part.stored)).collect();
        Self { lost: findings.lost_of.clone(), duplicated: findings.duplicated_of.clone(), stored }
    }
}

impl Expectation {
    /// One for each fault that left a mark, in the scenario's order.
    pub(super) fn harm(&self, rows: &Rows) -> Vec<FaultHarm> {
        let mut harm = of_marks(self.ledger.marks.iter().map(|(_, mark)| mark));
        if harm.is_empty() {
            return Vec::new();
        }
        let sizes = self.own_keys(rows.stored.keys().copied().chain(self.not_acknowledged()));
        for (batch, record) in (0u32..).zip(&self.ledger.batches) {
            let count = |rows: &HashMap<u32, u64>| rows.get(&batch).copied().unwrap_or_default();
            if let Some(harm) = self.over_after(record).and_then(|fault| harm.get_mut(&fault)) {
                harm.lost += count(&rows.lost);
            }
            let Some(harm) = self.begun_before(record).and_then(|fault| harm.get_mut(&fault)) else { continue };
            harm.duplicated += count(&rows.duplicated);
            if record.outcome == Outcome::Unknown {
                let stored = count(&rows.stored);
                harm.unknown_stored += stored;
                harm.unknown_absent += count(&sizes).saturating_sub(stored);
            }
        }
        harm.into_values().collect()
    }

    fn not_acknowledged(&self) -> impl Iterator<Item = u32> {
        let batches = (0u32..).zip(&self.ledger.batches);
        batches.filter(|(_, record)| record.outcome == Outcome::Unknown).map(|(batch, _)| batch)
    }

    /// The first fault that was healed after `record` was answered.
    fn over_after(&self, record: &BatchRecord) -> Option<u32> {
        let healed = self.ledger.marks.iter().find(|(position, mark)| mark.healed && *position > record.answered);
        healed.map(|(_, mark)| mark.fault)
    }

    /// The fault that began last before `record` was answered.
    fn begun_before(&self, record: &BatchRecord) -> Option<u32> {
        let begun = self.ledger.marks.iter().rfind(|(position, mark)| !mark.healed && *position < record.answered);
        begun.map(|(_, mark)| mark.fault)
    }
}
