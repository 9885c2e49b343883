//! `batchsql`: load for databases and gateways that proves what it was told is stored, and says how fast it honestly was.
pub mod environment;
pub mod gate;
pub mod metrics;
pub mod pipeline;
pub mod report;
pub mod scenario;
pub mod table;
pub mod target;
