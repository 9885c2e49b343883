//! What leaves the program beside its reports: logs, metrics and traces that are pushed, profiles, registrations. Off it costs nothing;
//! whatever fails here is said once and changes neither verdict nor exit code.

pub(crate) mod beside;
pub(crate) mod consul;
pub mod exports;
pub(crate) mod log;
mod otlp;
pub(crate) mod profile;
mod push;
pub(crate) mod pyroscope;
mod remote_write;
pub(crate) mod trace;
