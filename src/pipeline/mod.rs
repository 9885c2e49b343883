//! The batch writer: rows in, batches out, every batch with an outcome.

pub mod observer;
