//! What tells others of a run while it goes on: logs, profiles, registrations. Off it costs nothing, and failing it disturbs no run.

pub(crate) mod beside;
pub(crate) mod consul;
pub(crate) mod log;
pub(crate) mod profile;
pub(crate) mod pyroscope;
