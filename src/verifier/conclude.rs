//! From findings to a verdict: batches that were not acknowledged are judged whole, the counts are checked against each other, and
//! nothing read is inconclusive, never a pass.

use std::collections::HashMap;

use super::expect::Expectation;
use super::harm::Rows;
use super::range::{Findings, StoredPart, anomaly};
use crate::ledger::Outcome;
use crate::report::{Anomaly, Integrity, IntegrityVerdict};

impl Expectation {
    /// The verdict on everything that was read. `seconds`: how long reading took.
    ///
    /// # Panics
    /// If the counts contradict each other (distinct stored = must be there + recovered + phantom + resurrected − lost): a defect of
    /// the verifier, which must not be mistaken for a result.
    #[must_use]
    pub fn conclude(&self, mut findings: Findings, seconds: f64) -> Integrity {
        let by_batch = Rows::of(&findings);
        let partial_batches = self.judge_batches(&mut findings);
        let accounted = findings.must_be_there + findings.recovered_keys + findings.phantom_keys + findings.resurrected_keys;
        assert_eq!(findings.distinct + findings.lost_keys, accounted, "the verifier's counts contradict each other: {findings:?}");
        swapped(&mut findings.examples);
        let [acknowledged, ..] = self.ledger.totals();
        let anomalies = findings.lost
            + findings.duplicated
            + findings.corrupted
            + findings.phantom
            + findings.resurrected
            + findings.stale
            + partial_batches;
        let (verdict, reason) = if anomalies > 0 {
            (IntegrityVerdict::Violated, Some(summary(&findings, partial_batches)))
        } else if acknowledged == 0 {
            (IntegrityVerdict::Inconclusive, Some("nothing was acknowledged, so there was nothing to check".to_owned()))
        } else {
            (IntegrityVerdict::Holds, None)
        };
        findings.examples.sort_by(|a, b| (&a.class, a.key).cmp(&(&b.class, b.key)));
        Integrity {
            verdict,
            reason,
            method: "full".to_owned(),
            rate: (findings.must_be_there > 0).then(|| findings.right as f64 / findings.must_be_there as f64),
            checked: findings.checked,
            must_be_there: findings.must_be_there,
            lost: findings.lost,
            duplicated: findings.duplicated,
            surplus_copies: findings.surplus,
            corrupted: findings.corrupted,
            phantom: findings.phantom,
            resurrected: findings.resurrected,
            stale: findings.stale,
            recovered: findings.recovered,
            partial_batches,
            examples: findings.examples,
            duration_seconds: seconds,
            by_fault: self.harm(&by_batch),
            ..Integrity::inconclusive(String::new())
        }
    }

    /// Judges the batches that were not acknowledged and of which something is stored; returns how many are stored in part.
    fn judge_batches(&self, findings: &mut Findings) -> u64 {
        let mut parts: Vec<(u32, StoredPart)> = findings.unacknowledged.drain().collect();
        parts.sort_unstable_by_key(|(batch, _)| *batch);
        let sizes = self.own_keys(parts.iter().map(|(batch, _)| *batch));
        let mut partial = 0;
        for (batch, part) in parts {
            let size = sizes[&batch];
            if part.stored < size {
                partial += 1;
                // Their keys are in the conservation law although the rows are in no class.
                findings.recovered_keys += part.stored;
                let expected = Some(format!("all {size} rows of the batch, or none"));
                let found = Some(format!("{} of {size} rows", part.stored));
                let key = part.keys.first().copied().unwrap_or_default();
                findings.example(Anomaly { expected, found, ..anomaly("partial_batch", key) });
            } else if self.outcome(batch) == Outcome::Unknown {
                findings.recovered_keys += part.stored;
                findings.recovered += part.stored - part.duplicated - part.corrupted_count;
                findings.corrupted += part.corrupted_count;
                part.corrupted.into_iter().for_each(|anomaly| findings.example(anomaly));
            } else {
                findings.resurrected_keys += part.stored;
                findings.resurrected += part.stored - part.duplicated;
                part.keys.iter().for_each(|key| findings.example(anomaly("resurrected", *key)));
            }
        }
        partial
    }

    /// For each of these batches, its rows whose key no other operation wrote.
    pub(super) fn own_keys(&self, batches: impl Iterator<Item = u32>) -> HashMap<u32, u64> {
        let mut sizes: HashMap<u32, u64> = batches.map(|batch| (batch, 0)).collect();
        if sizes.is_empty() {
            return sizes;
        }
        for run in &self.ledger.runs {
            if let Some(size) = sizes.get_mut(&run.batch) {
                let indexes = run.start..run.start + u64::from(run.len);
                *size += indexes.filter(|index| self.generator.slot(*index) == *index && !self.is_shared(*index)).count() as u64;
            }
        }
        sizes
    }

    fn is_shared(&self, slot: u64) -> bool {
        self.shared.binary_search_by_key(&slot, |op| op.slot).is_ok()
    }
}

fn summary(findings: &Findings, partial_batches: u64) -> String {
    let counts = [
        (findings.lost, "lost"),
        (findings.duplicated, "duplicated"),
        (findings.corrupted, "corrupted"),
        (findings.phantom, "phantom"),
        (findings.resurrected, "resurrected"),
        (findings.stale, "stale"),
        (partial_batches, "batches stored in part"),
    ];
    let words: Vec<String> = counts.iter().filter(|(count, _)| *count > 0).map(|(count, what)| format!("{count} {what}")).collect();
    words.join(", ")
}

/// Two corrupted rows that hold each other's value of a column were swapped.
fn swapped(examples: &mut [Anomaly]) {
    for a in 0..examples.len() {
        for b in a + 1..examples.len() {
            // A value whose type alone is wrong looks like its own and any other of the same kind.
            let crosswise = |x: &Anomaly, y: &Anomaly| {
                x.class == "corrupted" && x.column == y.column && x.found == y.expected && x.sub_kind.as_deref() != Some("type")
            };
            if crosswise(&examples[a], &examples[b]) && crosswise(&examples[b], &examples[a]) {
                for row in [a, b] {
                    examples[row].sub_kind = Some("swapped".to_owned());
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn corrupted(column: &str, expected: &str, found: &str) -> Anomaly {
        let (column, expected, found) = (Some(column.to_owned()), Some(expected.to_owned()), Some(found.to_owned()));
        Anomaly { column, expected, found, sub_kind: Some("other".to_owned()), ..anomaly("corrupted", 1) }
    }

    #[test]
    fn only_values_that_lie_crosswise_in_one_column_were_swapped() {
        let called = |mut examples: Vec<Anomaly>| {
            swapped(&mut examples);
            examples.iter().map(|example| example.sub_kind.as_deref() == Some("swapped")).collect::<Vec<_>>()
        };
        assert_eq!(called(vec![corrupted("a", "1", "2"), corrupted("a", "x", "y"), corrupted("a", "2", "1")]), [true, false, true]);
        assert_eq!(called(vec![corrupted("a", "1", "2"), corrupted("b", "2", "1")]), [false; 2], "another column");
        assert_eq!(called(vec![corrupted("a", "1", "2"), corrupted("a", "2", "3")]), [false; 2], "one way");
        assert_eq!(called(vec![corrupted("a", "3", "2"), corrupted("a", "2", "1")]), [false; 2], "the other way");
        // Two long values that are shown up to where they differ.
        assert_eq!(called(vec![corrupted("a", "long…", "long…")]), [false], "with itself");
        let stale = |expected, found| Anomaly { class: "stale".to_owned(), ..corrupted("a", expected, found) };
        assert_eq!(called(vec![corrupted("a", "1", "2"), stale("2", "1")]), [false; 2], "another class");
        assert_eq!(called(vec![stale("1", "2"), corrupted("a", "2", "1")]), [false; 2], "another class");
    }
}
