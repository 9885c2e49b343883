//! Verification by digests: a few workers take one stretch of keys after the other, ask the database for its sums while they compute
//! their own, and read in full what differs.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::task::JoinSet;

use super::verify::check_range;
use crate::target::digest::RangeDigest;
use crate::target::{KeyRange, Reader, TargetError};
use crate::telemetry::log;
use crate::verifier::{Expectation, Findings, LEAF, Piece, Stretch};

/// What the workers share.
pub(super) struct Digesting {
    reader: Arc<dyn Reader>,
    expectation: Arc<Expectation>,
    /// Those that nobody has taken yet, with their places.
    stretches: Mutex<std::vec::IntoIter<(usize, Stretch)>>,
    /// Set when the database cannot sum up; from then on everything is read.
    refused: AtomicBool,
    checked: Arc<AtomicU64>,
}

impl Digesting {
    pub(super) fn new(reader: Arc<dyn Reader>, expectation: &Arc<Expectation>, checked: Arc<AtomicU64>) -> Arc<Self> {
        let stretches: Vec<_> = Stretch::all(expectation, LEAF).into_iter().enumerate().collect();
        let stretches = Mutex::new(stretches.into_iter());
        Arc::new(Self { reader, expectation: Arc::clone(expectation), stretches, refused: AtomicBool::new(false), checked })
    }

    /// Checks everything with so many workers. Findings come in the order of keys, so that the examples are those of the least.
    pub(super) async fn all(self: Arc<Self>, workers: usize) -> Result<Findings, TargetError> {
        let mut running = JoinSet::new();
        for _ in 0..workers {
            running.spawn(Arc::clone(&self).worker());
        }
        let mut findings = BTreeMap::new();
        while let Some(done) = running.join_next().await {
            findings.extend(done.map_err(failed)??);
        }
        Ok(findings.into_values().fold(Findings::default(), Findings::merge))
    }

    async fn worker(self: Arc<Self>) -> Result<Vec<(usize, Findings)>, TargetError> {
        let mut findings = Vec::new();
        loop {
            let next = self.stretches.lock().unwrap_or_else(PoisonError::into_inner).next();
            let Some((place, stretch)) = next else { return Ok(findings) };
            findings.push((place, self.stretch(stretch).await?));
        }
    }

    async fn stretch(&self, stretch: Stretch) -> Result<Findings, TargetError> {
        let whole = stretch.whole();
        let (mut findings, ranges) =
            if self.refused.load(Ordering::Relaxed) { (Findings::default(), vec![whole]) } else { self.differing(stretch).await? };
        self.checked.fetch_add(findings.checked(), Ordering::Relaxed);
        for range in ranges {
            let found = check_range(Arc::clone(&self.reader), Arc::clone(&self.expectation), range, Arc::clone(&self.checked));
            findings = findings.merge(found.await?);
        }
        Ok(findings)
    }

    /// What agreed, and what must be read: all of it, if the database cannot sum it up.
    async fn differing(&self, mut stretch: Stretch) -> Result<(Findings, Vec<KeyRange>), TargetError> {
        let whole = stretch.whole();
        let mut pieces = stretch.pieces();
        let (reader, expectation) = (Arc::clone(&self.reader), Arc::clone(&self.expectation));
        let expected = tokio::task::spawn_blocking(move || {
            let mut scratch = Vec::new();
            stretch.expect(|row| reader.row_hash(expectation.table(), row, &mut scratch));
            stretch
        });
        let mut found = self.ask(&pieces).await;
        let mut stretch = expected.await.map_err(failed)?;
        loop {
            match found {
                Ok(digests) => pieces = stretch.judge(&pieces, &digests),
                Err(error) => {
                    self.refuse(&error);
                    return Ok((Findings::default(), vec![whole]));
                }
            }
            if pieces.is_empty() {
                return Ok(stretch.finish());
            }
            found = self.ask(&pieces).await;
        }
    }

    async fn ask(&self, pieces: &[Piece]) -> Result<Vec<RangeDigest>, TargetError> {
        let ranges: Vec<KeyRange> = pieces.iter().map(|piece| piece.range).collect();
        self.reader.digest(self.expectation.table(), &ranges).await
    }

    fn refuse(&self, error: &TargetError) {
        if !self.refused.swap(true, Ordering::Relaxed) {
            log::warn(&format!("every row is read back, because the database cannot digest them: {error}"));
        }
    }
}

fn failed(error: tokio::task::JoinError) -> TargetError {
    TargetError::Failed(format!("verification failed: {error}"))
}
