//! The reference AI gateway and its mock upstream: small and real, so that proxy scenarios run on a fresh machine.

pub(crate) mod command;
pub mod env;
pub mod gateway;
pub mod running;
pub mod seen;
pub mod stats;
pub mod upstream;
