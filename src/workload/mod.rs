//! What is done to a target, as pure functions of (seed, index): nothing here knows time, sockets or outcomes.

pub mod batch_insert;
pub mod proxy_request;
pub mod reply;
