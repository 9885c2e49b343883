//! The program of proof: each file is a part of it. `cargo nextest run --test proof` does a fast share of each;
//! `scripts/prove` sets BATCHSQL_PROOF, does all of it, and makes one table of what the parts wrote.

#[path = "../common/mod.rs"]
mod common;
mod controls;
#[path = "../program/database.rs"]
#[expect(dead_code, reason = "the program's own tests use the rest")]
mod database;
mod due;
#[path = "../program/place.rs"]
#[expect(dead_code, reason = "the program's own tests use the rest")]
mod place;
mod recovery;
#[path = "../common/servers.rs"]
mod servers;
mod tally;
