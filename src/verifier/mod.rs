//! What is stored, held against the ledger: every anomaly named with its keys. Plain and synchronous; the runner feeds it blocks.
//!
//! Method `full`: each key range is read in key order and merged with the ledger's operations in the same order, every row
//! regenerated from (seed, operation) and compared byte by byte. Nothing is sampled, so nothing is missed; memory is
//! proportional to batches. A row is in at most one class, in the order duplicated, phantom, resurrected, lost, stale,
//! corrupted; the rows of a batch that is stored in part are counted by batch and are in no other class.
//!
//! Method `digest`: what must be stored in a range of keys and what the database says is stored there are both summed up, and only
//! ranges in which the sums differ are read, by the same code.

mod compare;
mod conclude;
mod digest;
mod expect;
mod harm;
mod range;
pub mod requests;

pub(crate) use digest::{LEAF, Piece, Stretch};
pub use expect::Expectation;
pub use range::{Findings, RangeCheck};

/// Example keys kept for each class.
pub const EXAMPLES: usize = 20;

#[cfg(test)]
mod tests;
