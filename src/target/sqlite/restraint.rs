//! What a fault keeps the run's connections from: growing the file, or writing at all. Both are pragmas of a single connection, so no
//! rival could set them from outside.

use std::sync::atomic::{AtomicBool, Ordering};

use rusqlite::Connection;

use crate::scenario::{Pragma, PragmaValue, SqliteConfig};

/// SQLite's own bound on a file's pages.
const MAX_PAGES: i64 = 4_294_967_294;

/// What the connections to a file may not do for now.
#[derive(Debug, Default)]
pub struct Restraint {
    /// Whether some fault of the run restrains them at times; without one nothing is asked.
    pub(crate) planned: AtomicBool,
    /// The file may not grow.
    pub(crate) full: AtomicBool,
    /// Nothing may be written.
    pub(crate) read_only: AtomicBool,
}

/// Lets `connection` do what it may do now.
pub(super) fn apply(connection: &Connection, config: &SqliteConfig) -> rusqlite::Result<()> {
    let restraint = &config.restraint;
    if !restraint.planned.load(Ordering::Relaxed) {
        return Ok(());
    }
    connection.pragma_update(None, "query_only", restraint.read_only.load(Ordering::Relaxed))?;
    let pages = match config.pragmas.get(&Pragma::MaxPageCount) {
        // Fewer than there are already means as many as there are.
        _ if restraint.full.load(Ordering::Relaxed) => 1,
        Some(PragmaValue::Number(pages)) => *pages,
        _ => MAX_PAGES,
    };
    connection.pragma(None, "max_page_count", pages, |_| Ok(()))
}
