//! The program of proof: each file is a part of it. `cargo nextest run --test proof` does a fast share of each;
//! `scripts/prove` sets BATCHSQL_PROOF, does all of it, and makes one table of what the parts wrote.
#![allow(clippy::unwrap_used)]

mod classes;
mod clean;
#[path = "../common/mod.rs"]
mod common;
mod controls;
mod corrupt;
mod cuts;
#[path = "../program/database.rs"]
mod database;
mod digest;
mod due;
mod faulty;
mod kill;
mod legal;
#[path = "../program/place.rs"]
#[expect(dead_code, reason = "the program's own tests use the rest")]
mod place;
mod plants;
mod random;
mod recovery;
mod scenarios;
mod server;
#[path = "../common/servers.rs"]
mod servers;
mod tally;
mod torn;
mod world;
