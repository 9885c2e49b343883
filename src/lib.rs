//! `batchsql`: load for databases and gateways that proves what it was told is stored, and says how fast it honestly was.
pub mod gate;
pub mod environment;
pub mod ledger;
pub mod metrics;
pub mod pipeline;
pub mod recorder;
pub mod report;
pub mod scenario;
pub mod schedule;
pub mod table;
pub mod target;
pub mod verifier;
pub mod workload;
