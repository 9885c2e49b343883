//! The program of proof: each file is a part of it. `cargo nextest run --test proof` does a fast share of each;
//! `scripts/prove` sets BATCHSQL_PROOF, does all of it, and makes one table of what the parts wrote.
#![allow(clippy::unwrap_used)]

#[path = "../common/mod.rs"]
mod common;
mod cuts;
#[path = "../program/database.rs"]
#[expect(dead_code, reason = "the program's own tests use the rest")]
mod database;
#[path = "../program/place.rs"]
#[expect(dead_code, reason = "the program's own tests use the rest")]
mod place;
mod tally;
