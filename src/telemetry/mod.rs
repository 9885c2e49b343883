//! What leaves the program beside its reports: pushed, never in the way of a run. Whatever fails here is said once and changes
//! neither verdict nor exit code.

pub mod exports;
mod otlp;
mod push;
mod remote_write;
pub(crate) mod trace;
