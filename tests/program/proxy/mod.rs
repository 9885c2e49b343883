//! Runs of requests, as their users meet them: the real binary before the mock upstream, before a gateway that does wrong on demand,
//! and before servers that do everything a server must not.

mod double;
mod planted;
