//! The store: one SQLite file, a row a run. WAL, so that reading never waits for writing.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, ErrorCode, OpenFlags};

use super::{Entry, MOST};

/// Version of the tables, kept in the file's `user_version`.
const VERSION: i64 = 1;
/// How long another process is waited for.
const PATIENCE: Duration = Duration::from_secs(2);

/// Why a store cannot be used. The reports are whole whatever it is.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StoreError {
    /// Another process holds it.
    #[error("the history {0} is locked by another process; end it, and run `batchsql history` to catch up from the reports")]
    Locked(PathBuf),
    /// It is no SQLite file, or not a whole one.
    #[error("the history {0} is damaged ({1}); `batchsql history` puts it aside and makes a new one from the reports")]
    Damaged(PathBuf, String),
    /// A later version of this program made it.
    #[error("the history {0} has version {1}, this program knows {VERSION}; use the version that wrote it, or name another with --history")]
    Newer(PathBuf, i64),
    /// Anything else.
    #[error("the history {0} cannot be used: {1}; name a file that can be written with --history")]
    Unusable(PathBuf, String),
}

impl StoreError {
    fn of(file: &Path, error: &rusqlite::Error) -> Self {
        let file = file.to_owned();
        match error.sqlite_error_code() {
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => Self::Locked(file),
            Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt) => Self::Damaged(file, error.to_string()),
            _ => Self::Unusable(file, error.to_string()),
        }
    }
}

/// An open store.
pub(crate) struct Store {
    file: PathBuf,
    connection: Connection,
}

impl Store {
    /// Opens the store, made if there is none.
    pub(crate) fn open(file: &Path) -> Result<Self, StoreError> {
        let store = Self::connect(file, OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE)?;
        let made = store.connection.pragma_update(None, "journal_mode", "wal").and_then(|()| {
            store.connection.execute_batch(&format!(
                "BEGIN IMMEDIATE;
                 CREATE TABLE IF NOT EXISTS run (
                   run_id TEXT PRIMARY KEY,
                   started_at TEXT NOT NULL,
                   scenario TEXT NOT NULL,
                   entry TEXT NOT NULL,
                   response TEXT NOT NULL,
                   service TEXT NOT NULL
                 );
                 CREATE INDEX IF NOT EXISTS run_started_at ON run (started_at);
                 PRAGMA user_version = {VERSION};
                 COMMIT"
            ))
        });
        made.map_err(|error| StoreError::of(file, &error))?;
        Ok(store)
    }

    /// Opens a store that is there, to read it.
    pub(crate) fn read(file: &Path) -> Result<Self, StoreError> {
        Self::connect(file, OpenFlags::SQLITE_OPEN_READ_WRITE)
    }

    fn connect(file: &Path, flags: OpenFlags) -> Result<Self, StoreError> {
        let told = |error: rusqlite::Error| StoreError::of(file, &error);
        let connection = Connection::open_with_flags(file, flags | OpenFlags::SQLITE_OPEN_NO_MUTEX).map_err(told)?;
        connection.busy_timeout(PATIENCE).map_err(told)?;
        let version: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0)).map_err(told)?;
        if version > VERSION {
            return Err(StoreError::Newer(file.to_owned(), version));
        }
        Ok(Self { file: file.to_owned(), connection })
    }

    /// Reads every page: damage is found before it is met.
    pub(crate) fn check(&self) -> Result<(), StoreError> {
        let found: Result<String, _> = self.connection.pragma_query_value(None, "quick_check", |row| row.get(0));
        match found.map_err(|error| self.told(&error))?.as_str() {
            "ok" => Ok(()),
            damage => Err(StoreError::Damaged(self.file.clone(), damage.to_owned())),
        }
    }

    /// Adds runs, all or none; one that is there already is replaced.
    pub(crate) fn add(&mut self, entries: &[Entry]) -> Result<(), StoreError> {
        let added = self.connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate).and_then(|transaction| {
            for entry in entries {
                let text = serde_json::to_string(entry).map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()))?;
                let [response, service] = &entry.histograms;
                transaction.prepare_cached("INSERT OR REPLACE INTO run VALUES (?1, ?2, ?3, ?4, ?5, ?6)")?.execute((
                    &entry.run_id,
                    &entry.started_at,
                    &entry.scenario,
                    text,
                    response,
                    service,
                ))?;
            }
            transaction.commit()
        });
        added.map_err(|error| self.told(&error))
    }

    /// The newest runs; an entry that cannot be read any more is left to its report.
    pub(crate) fn entries(&self) -> Result<Vec<Entry>, StoreError> {
        let read = || {
            let mut statement =
                self.connection.prepare("SELECT entry, response, service FROM run ORDER BY started_at DESC, run_id DESC LIMIT ?1")?;
            let rows = statement.query_map([MOST as i64], |row| {
                let entry = serde_json::from_str::<Entry>(&row.get::<_, String>(0)?).ok();
                Ok(entry.map(|entry| Ok(Entry { histograms: [row.get(1)?, row.get(2)?], ..entry })))
            })?;
            rows.filter_map(Result::transpose).map(|entry| entry?).collect::<rusqlite::Result<Vec<Entry>>>()
        };
        read().map_err(|error| self.told(&error))
    }

    fn told(&self, error: &rusqlite::Error) -> StoreError {
        StoreError::of(&self.file, error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::sample;

    fn entry(id: &str) -> Entry {
        Entry { run_id: id.to_owned(), histograms: ["a".to_owned(), "b".to_owned()], ..Entry::of(&sample::passed()).unwrap() }
    }

    #[test]
    fn what_is_added_is_read_again_once() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("history.db");
        let mut store = Store::open(&file).unwrap();
        store.add(&[entry("one"), entry("two")]).unwrap();
        store.add(&[entry("two")]).unwrap();
        drop(store);
        let store = Store::read(&file).unwrap();
        store.check().unwrap();
        assert_eq!(store.entries().unwrap(), [entry("two"), entry("one")]);
    }

    #[test]
    fn each_trouble_has_its_name() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("history.db");
        Store::open(&file).unwrap().add(&[entry("one")]).unwrap();
        let other = Connection::open(&file).unwrap();
        other.execute_batch("BEGIN IMMEDIATE").unwrap();
        let mut store = Store::read(&file).unwrap();
        assert_eq!(store.entries().unwrap().len(), 1, "reading goes on");
        assert!(matches!(store.add(&[entry("two")]), Err(StoreError::Locked(_))));
        drop((store, other));
        let newer = Connection::open(&file).unwrap();
        newer.pragma_update(None, "user_version", 9).unwrap();
        drop(newer);
        assert!(matches!(Store::open(&file), Err(StoreError::Newer(_, 9))));
        std::fs::write(&file, vec![7; 8192]).unwrap();
        assert!(matches!(Store::open(&file), Err(StoreError::Damaged(..))));
        assert!(matches!(Store::open(&folder.path().join("no/history.db")), Err(StoreError::Unusable(..))));
    }
}
