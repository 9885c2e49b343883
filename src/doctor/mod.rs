//! How the stack around the runs is.
pub(crate) mod command;
