//! `batchsql`: load for databases and gateways that proves what it was told is stored, and says how fast it honestly was.
pub mod gate;
pub mod redact;
pub mod report;
pub mod scenario;
pub mod table;
pub mod target;
