//! Pragma profiles: which values they have, setting them on a connection, and reading them back on that same connection (from
//! any other, only journal_mode would tell the truth).

use rusqlite::Connection;

use crate::scenario::{Pragma, PragmaProfile, PragmaValue, SqliteConfig};

impl Pragma {
    /// SQLite's name for it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Pragma::JournalMode => "journal_mode",
            Pragma::Synchronous => "synchronous",
            Pragma::CacheSize => "cache_size",
            Pragma::MmapSize => "mmap_size",
            Pragma::TempStore => "temp_store",
            Pragma::BusyTimeout => "busy_timeout",
            Pragma::WalAutocheckpoint => "wal_autocheckpoint",
            Pragma::ForeignKeys => "foreign_keys",
            Pragma::PageSize => "page_size",
            Pragma::MaxPageCount => "max_page_count",
        }
    }
}

/// In the order in which they are set: the page size before the journal mode, which writes the first page.
const ORDER: [Pragma; 10] = [
    Pragma::PageSize,
    Pragma::BusyTimeout,
    Pragma::JournalMode,
    Pragma::Synchronous,
    Pragma::CacheSize,
    Pragma::MmapSize,
    Pragma::TempStore,
    Pragma::WalAutocheckpoint,
    Pragma::ForeignKeys,
    Pragma::MaxPageCount,
];

impl PragmaProfile {
    /// What the profile sets; everything else stays as SQLite has it.
    #[must_use]
    pub fn value(self, pragma: Pragma) -> Option<PragmaValue> {
        let number = |n| Some(PragmaValue::Number(n));
        let word = |w: &str| Some(PragmaValue::Word(w.to_owned()));
        match (self, pragma) {
            (PragmaProfile::Off, Pragma::JournalMode) => word("DELETE"),
            (PragmaProfile::Off, Pragma::Synchronous) => word("FULL"),
            (PragmaProfile::Off, _) => None,
            (_, Pragma::JournalMode) => word("WAL"),
            (_, Pragma::Synchronous) => word("NORMAL"),
            (PragmaProfile::Conservative, Pragma::CacheSize) => number(-32_000),
            (PragmaProfile::Default, Pragma::CacheSize) => number(-64_000),
            (PragmaProfile::Aggressive, Pragma::CacheSize) => number(-128_000),
            (PragmaProfile::Aggressive, Pragma::MmapSize) => number(536_870_912),
            (_, Pragma::MmapSize) => number(268_435_456),
            (_, Pragma::TempStore) => word("MEMORY"),
            (_, Pragma::BusyTimeout) => number(5_000),
            (_, Pragma::WalAutocheckpoint) => number(1_000),
            (_, Pragma::ForeignKeys) => number(0),
            (_, Pragma::PageSize | Pragma::MaxPageCount) => None,
        }
    }
}

/// Sets the profile's pragmas and the single ones over them.
pub(super) fn set(connection: &Connection, config: &SqliteConfig) -> rusqlite::Result<()> {
    set_each(connection, config, ORDER)
}

/// As [`set`], without what is kept in the file.
pub(super) fn set_of_connection(connection: &Connection, config: &SqliteConfig) -> rusqlite::Result<()> {
    set_each(connection, config, ORDER.into_iter().filter(|pragma| !matches!(pragma, Pragma::PageSize | Pragma::JournalMode)))
}

fn set_each(connection: &Connection, config: &SqliteConfig, pragmas: impl IntoIterator<Item = Pragma>) -> rusqlite::Result<()> {
    for pragma in pragmas {
        let value = config.pragmas.get(&pragma).cloned().or_else(|| config.profile.value(pragma));
        // Some pragmas answer with a row and some do not; both are read to their end.
        let ignore = |_: &rusqlite::Row<'_>| Ok(());
        match value {
            Some(PragmaValue::Number(number)) => connection.pragma(None, pragma.name(), number, ignore)?,
            Some(PragmaValue::Word(word)) => connection.pragma(None, pragma.name(), word, ignore)?,
            None => {}
        }
    }
    Ok(())
}

/// Every pragma as the connection has it now, numbers that stand for words as the words.
pub(super) fn read_back(connection: &Connection) -> rusqlite::Result<Vec<(String, String)>> {
    ORDER
        .into_iter()
        .map(|pragma| {
            let mut found = String::new();
            connection.pragma_query(None, pragma.name(), |row| {
                found = match row.get_ref(0)? {
                    rusqlite::types::ValueRef::Integer(number) => words(pragma, number),
                    other => other.as_str().unwrap_or_default().to_uppercase(),
                };
                Ok(())
            })?;
            Ok((pragma.name().to_owned(), found))
        })
        .collect()
}

fn words(pragma: Pragma, number: i64) -> String {
    let words: &[&str] = match pragma {
        Pragma::Synchronous => &["OFF", "NORMAL", "FULL", "EXTRA"],
        Pragma::TempStore => &["DEFAULT", "FILE", "MEMORY"],
        _ => &[],
    };
    usize::try_from(number).ok().and_then(|index| words.get(index)).map_or_else(|| number.to_string(), |word| (*word).to_owned())
}
