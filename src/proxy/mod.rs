//! The reference AI gateway and its mock upstream: small and real, so that proxy scenarios run on a fresh machine.

pub mod profile;
pub mod seen;
pub mod stats;
