//! The mutants, as `cargo mutants --list --json` names them; what is left out of them, and why, stands in `.cargo/mutants.toml`.

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use serde::Deserialize;

/// One change of the program that a test should notice.
#[derive(Deserialize)]
pub struct Mutant {
    /// Its file, from the package's root.
    pub file: String,
    /// Its place and what it changes.
    pub name: String,
    pub genre: String,
    pub replacement: String,
    pub span: Span,
    /// From 1: how it is switched on.
    #[serde(skip)]
    pub number: u32,
}

impl Mutant {
    /// The module that its file belongs to: the first name of its path.
    pub fn module(&self) -> &str {
        self.file.trim_start_matches("src/").split(['/', '.']).next().unwrap_or_default()
    }
}

#[derive(Deserialize)]
pub struct Span {
    pub start: Position,
    pub end: Position,
}

/// Both from 1, columns in characters.
#[derive(Deserialize)]
pub struct Position {
    pub line: usize,
    pub column: usize,
}

/// All mutants of the package in `root`.
pub fn list(root: &Path) -> Result<Vec<Mutant>> {
    let told = Command::new("cargo").args(["mutants", "--list", "--json"]).current_dir(root).output();
    let told = told.context("cargo mutants cannot be run; install it: cargo install --locked cargo-mutants")?;
    ensure!(told.status.success(), "cargo mutants --list failed: {}", String::from_utf8_lossy(&told.stderr));
    let mut mutants: Vec<Mutant> = serde_json::from_slice(&told.stdout).context("cargo mutants --list --json gave no such list")?;
    (1..).zip(&mut mutants).for_each(|(number, mutant)| mutant.number = number);
    Ok(mutants)
}
