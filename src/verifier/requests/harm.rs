//! What each fault did to the requests of a run, by the times of its marks and of the answers.
//!
//! The same rule as for rows: a request that was acknowledged and has no row in the log is counted to the first fault that was healed
//! after its answer (RPO), a request of unknown outcome and one that was logged twice to the fault that began last before its answer.
//! "Stored" is a row in the gateway's log, and without a log a record of the upstream's; with neither nothing can be told of them.

use super::Requests;
use crate::ledger::Outcome;
use crate::report::FaultHarm;
use crate::verifier::harm::of_marks;

impl Requests<'_> {
    /// One for each fault that left a mark, in the scenario's order.
    pub(super) fn harm(&self) -> Vec<FaultHarm> {
        let mut harm = of_marks(self.ledger.marks.iter().map(|(_, mark)| mark));
        for index in &self.unlogged {
            let answered = self.ledger.answer(*index).map_or(0, |answer| answer.at_ms);
            if let Some(harm) = self.over_after(answered).and_then(|fault| harm.get_mut(&fault)) {
                harm.lost += 1;
            }
        }
        for (answer, stored) in self.sights.iter().flat_map(|sights| self.ledger.answers.iter().zip(&sights.of_answers)) {
            let Some(harm) = self.begun_before(answer.at_ms).and_then(|fault| harm.get_mut(&fault)) else { continue };
            harm.duplicated += u64::from(*stored > 1);
            if answer.outcome == Some(Outcome::Unknown) {
                harm.unknown_stored += u64::from(*stored > 0);
                harm.unknown_absent += u64::from(*stored == 0);
            }
        }
        harm.into_values().collect()
    }

    /// The first fault that was healed after `at_ms`.
    fn over_after(&self, at_ms: u32) -> Option<u32> {
        let healed = self.ledger.marks.iter().find(|(at, mark)| mark.healed && *at >= at_ms);
        healed.map(|(_, mark)| mark.fault)
    }

    /// The fault that began last before `at_ms`.
    fn begun_before(&self, at_ms: u32) -> Option<u32> {
        let begun = self.ledger.marks.iter().rfind(|(at, mark)| !mark.healed && *at <= at_ms);
        begun.map(|(_, mark)| mark.fault)
    }
}
