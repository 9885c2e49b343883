//! The mock model server's own ledger: what reached it, told by itself, one line of JSON a request. A line is appended with one write
//! when its request ends, so that whoever has the whole reply finds its line.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Once};

use anyhow::Context as _;
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

/// One request that reached the mock model server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UpstreamRecord {
    /// The request's id.
    pub id: String,
    /// How many times the id was seen until then, this one included.
    pub n: u32,
    /// The path asked for.
    pub path: String,
    /// The request's field `user`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// The request's field `model`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// Whether a stream was asked for.
    pub stream: bool,
    /// The reply's status.
    pub status: u16,
    /// Tokens of the reply that were sent.
    pub tokens: u32,
    /// How it ended.
    pub ended: Ended,
}

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ended {
    /// The whole reply was handed to the connection.
    Whole,
    /// The connection was cut in mid-reply, as asked for.
    Cut,
    /// The reply was an error.
    Error,
    /// The client was gone before the reply was whole.
    Gone,
}

/// Where records are appended.
pub(super) struct Ledger {
    path: PathBuf,
    file: File,
    failed: Once,
    /// Cancelled when the ledger cannot be written: a server whose ledger lacks requests would accuse others.
    stop: CancellationToken,
}

impl Ledger {
    /// Continues the ledger at `path`, after its last whole line; `seen` is told of each record that is there.
    pub(super) fn open(path: &Path, stop: CancellationToken, mut seen: impl FnMut(UpstreamRecord)) -> anyhow::Result<Self> {
        let cannot = || format!("ledger {} cannot be opened; give a file that can be written", path.display());
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).with_context(cannot)?;
        }
        let file = File::options().create(true).append(true).open(path).with_context(cannot)?;
        let mut records = read(path)?;
        for record in &mut records {
            seen(record?);
        }
        file.set_len(records.whole_bytes).with_context(cannot)?;
        Ok(Self { path: path.to_owned(), file, failed: Once::new(), stop })
    }

    fn append(&self, record: &UpstreamRecord) {
        let written = serde_json::to_vec(record).map_err(std::io::Error::from).and_then(|mut line| {
            line.push(b'\n');
            (&self.file).write_all(&line)
        });
        if let Err(error) = written {
            self.failed.call_once(|| {
                crate::telemetry::log::error(&format!(
                    "batchsql: ledger {} cannot be written ({error}); the upstream ends",
                    self.path.display()
                ));
                self.stop.cancel();
            });
        }
    }
}

/// A record that is appended once, at the latest when it is dropped, i.e. however its request ends.
pub(super) struct Entry {
    pub(super) record: UpstreamRecord,
    ledger: Option<Arc<Ledger>>,
}

impl Entry {
    pub(super) fn new(record: UpstreamRecord, ledger: Option<Arc<Ledger>>) -> Self {
        Self { record, ledger }
    }

    /// Appends the record: the request ended so.
    pub(super) fn end(&mut self, ended: Ended) {
        self.record.ended = ended;
        if let Some(ledger) = self.ledger.take() {
            ledger.append(&self.record);
        }
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.end(self.record.ended);
    }
}

/// The records of the ledger at `path`, in the order in which their requests ended. A last line that was not written to its end
/// does not count.
///
/// # Errors
/// The file cannot be opened; a record of the iterator is an error if the file cannot be read or a line is none of ours.
pub fn read(path: &Path) -> anyhow::Result<Records> {
    let file =
        File::open(path).with_context(|| format!("ledger {} cannot be opened; was the upstream given this path?", path.display()))?;
    Ok(Records { path: path.to_owned(), input: BufReader::new(file), line: Vec::new(), number: 0, whole_bytes: 0 })
}

/// The records of a ledger, see [`read`].
pub struct Records {
    path: PathBuf,
    input: BufReader<File>,
    line: Vec<u8>,
    /// Of the line, from 1.
    number: u64,
    /// Bytes of the lines that are whole.
    whole_bytes: u64,
}

impl Iterator for Records {
    type Item = anyhow::Result<UpstreamRecord>;

    fn next(&mut self) -> Option<Self::Item> {
        self.line.clear();
        self.number += 1;
        let place = || format!("ledger {}, line {}", self.path.display(), self.number);
        match self.input.read_until(b'\n', &mut self.line).with_context(place) {
            Err(error) => Some(Err(error)),
            Ok(_) if self.line.last() != Some(&b'\n') => None,
            Ok(bytes) => {
                self.whole_bytes += bytes as u64;
                Some(serde_json::from_slice(&self.line).with_context(|| format!("{}: no record of an upstream", place())))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(n: u32) -> UpstreamRecord {
        let (path, user) = ("/v1/chat/completions".to_owned(), Some("u\"1".to_owned()));
        UpstreamRecord { id: "bq-00000001-2".into(), n, path, user, model: None, stream: true, status: 200, tokens: 3, ended: Ended::Gone }
    }

    fn all(path: &Path) -> Vec<UpstreamRecord> {
        read(path).unwrap().map(Result::unwrap).collect()
    }

    #[test]
    fn a_torn_last_line_does_not_count_and_is_written_over() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("sub/upstream.jsonl");
        let open = || {
            let mut seen = Vec::new();
            let ledger = Ledger::open(&path, CancellationToken::new(), |record| seen.push(record.n)).unwrap();
            (ledger, seen)
        };
        let (ledger, seen) = open();
        assert!(seen.is_empty());
        ledger.append(&record(1));
        ledger.append(&record(2));
        drop(ledger);
        let text = std::fs::read_to_string(&path).unwrap();
        insta::assert_snapshot!(text.lines().next().unwrap());
        std::fs::write(&path, format!("{text}{}", &text[..40])).unwrap();
        assert_eq!(all(&path), [record(1), record(2)]);
        let (ledger, seen) = open();
        assert_eq!(seen, [1, 2]);
        ledger.append(&record(3));
        assert_eq!(all(&path), [record(1), record(2), record(3)]);
        std::fs::write(&path, format!("{text}{}\n{text}", &text[..40])).unwrap();
        let error = read(&path).unwrap().find_map(Result::err).unwrap();
        assert!(format!("{error:#}").contains("upstream.jsonl, line 3: no record of an upstream"), "{error:#}");
    }

    #[test]
    fn a_ledger_that_cannot_be_written_ends_the_server() {
        let stop = CancellationToken::new();
        // Opened for reading, it refuses every write.
        let file = File::open("Cargo.toml").unwrap();
        let ledger = Ledger { path: PathBuf::from("Cargo.toml"), file, failed: Once::new(), stop: stop.clone() };
        drop(Entry::new(record(1), Some(Arc::new(ledger))));
        assert!(stop.is_cancelled());
    }
}
