//! A file of JSON lines that never grows beyond its bounds: what does not fit makes the oldest lines go.

use std::collections::VecDeque;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead as _, BufReader, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use serde::Serialize;

/// Most lines and bytes in a file; the newer half is kept when either is exceeded.
const MOST_LINES: usize = 10_000;
const MOST_BYTES: u64 = 16 << 20;
/// Longest line that is kept; a longer one is none of ours.
pub(super) const LONGEST_LINE: usize = 1 << 20;

pub(super) struct Lines {
    path: PathBuf,
    most_lines: usize,
    most_bytes: u64,
    /// How many lines and bytes the file has; held while it is written.
    size: Mutex<(usize, u64)>,
}

impl Lines {
    /// The file at `path`, made if there is none.
    pub(super) fn open(path: PathBuf) -> io::Result<Self> {
        Self::bounded(path, MOST_LINES, MOST_BYTES)
    }

    fn bounded(path: PathBuf, most_lines: usize, most_bytes: u64) -> io::Result<Self> {
        let mut file = OpenOptions::new().read(true).append(true).create(true).open(&path)?;
        // A line that a crash tore must not swallow the next one.
        let bytes = file.metadata()?.len();
        if bytes > 0 {
            let mut last = [0];
            file.seek(SeekFrom::End(-1))?;
            file.read_exact(&mut last)?;
            if last != *b"\n" {
                file.write_all(b"\n")?;
            }
        }
        let lines = newest(&path, most_lines, most_bytes)?.len();
        let lines = Self { path, most_lines, most_bytes, size: Mutex::new((lines, bytes)) };
        // It may have grown under another version, or by hand.
        lines.append(&[] as &[()])?;
        Ok(lines)
    }

    /// Adds a line each.
    pub(super) fn append(&self, values: &[impl Serialize]) -> io::Result<()> {
        let mut text = Vec::new();
        for value in values {
            serde_json::to_writer(&mut text, value)?;
            text.push(b'\n');
        }
        let mut size = self.size.lock().unwrap_or_else(PoisonError::into_inner);
        OpenOptions::new().append(true).create(true).open(&self.path)?.write_all(&text)?;
        *size = (size.0 + values.len(), size.1 + text.len() as u64);
        if size.0 > self.most_lines || size.1 > self.most_bytes {
            *size = self.trim()?;
        }
        Ok(())
    }

    /// Keeps the newer half, or all of it if the file was interrupted by nothing: what is read is the old file or the new one.
    fn trim(&self) -> io::Result<(usize, u64)> {
        let kept = newest(&self.path, self.most_lines / 2, self.most_bytes / 2)?;
        let beside = self.path.with_extension("jsonl.new");
        let mut file = File::create(&beside)?;
        for line in &kept {
            file.write_all(line.as_bytes())?;
            file.write_all(b"\n")?;
        }
        fs::rename(&beside, &self.path)?;
        Ok((kept.len(), kept.iter().map(|line| line.len() as u64 + 1).sum()))
    }

    /// The newest lines that are JSON, the newest first.
    pub(super) fn recent(&self, most: usize) -> io::Result<Vec<serde_json::Value>> {
        let lines = newest(&self.path, self.most_lines, self.most_bytes)?;
        Ok(lines.iter().rev().filter_map(|line| serde_json::from_str(line).ok()).take(most).collect())
    }
}

/// The newest lines within both bounds, the oldest of them first.
fn newest(path: &Path, most_lines: usize, most_bytes: u64) -> io::Result<VecDeque<String>> {
    let mut kept = VecDeque::new();
    let mut bytes = 0;
    let mut reader = BufReader::new(File::open(path)?);
    let mut line = Vec::new();
    loop {
        line.clear();
        let read = reader.by_ref().take(LONGEST_LINE as u64 + 1).read_until(b'\n', &mut line)?;
        if read == 0 {
            return Ok(kept);
        }
        let text = String::from_utf8_lossy(&line).trim_end().to_owned();
        if text.is_empty() {
            continue;
        }
        bytes += text.len() as u64 + 1;
        kept.push_back(text);
        while kept.len() > most_lines || bytes > most_bytes {
            bytes -= kept.pop_front().map_or(0, |line: String| line.len() as u64 + 1);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn numbers(lines: &Lines, most: usize) -> Vec<u64> {
        lines.recent(most).unwrap().iter().map(|line| line["n"].as_u64().unwrap()).collect()
    }

    #[test]
    fn the_newest_lines_stay_within_the_bound_also_over_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.jsonl");
        let lines = Lines::bounded(path.clone(), 10, 1 << 20).unwrap();
        for n in 0..10 {
            lines.append(&[json!({"n": n})]).unwrap();
        }
        assert_eq!(numbers(&lines, 3), [9, 8, 7]);
        assert_eq!(numbers(&lines, 100).len(), 10, "exactly at the bound nothing goes");
        lines.append(&[json!({"n": 10})]).unwrap();
        assert_eq!(numbers(&lines, 100), [10, 9, 8, 7, 6]);
        let again = Lines::bounded(path.clone(), 10, 1 << 20).unwrap();
        assert_eq!(*again.size.lock().unwrap(), (5, fs::metadata(&path).unwrap().len()));
        let smaller = Lines::bounded(path, 4, 1 << 20).unwrap();
        smaller.append(&[json!({"n": 11})]).unwrap();
        assert_eq!(numbers(&smaller, 100), [11, 10]);
    }

    #[test]
    fn bytes_are_bounded_too() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.jsonl");
        let lines = Lines::bounded(path.clone(), 1000, 1000).unwrap();
        for n in 0..100 {
            lines.append(&[json!({"n": n, "text": "x".repeat(80)})]).unwrap();
            assert!(fs::metadata(&path).unwrap().len() <= 1000);
        }
        assert_eq!(numbers(&lines, 1), [99]);
    }

    #[test]
    fn a_torn_line_costs_itself_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.jsonl");
        fs::write(&path, "{\"n\":1}\n{\"n\":2,\"te").unwrap();
        let lines = Lines::open(path).unwrap();
        lines.append(&[json!({"n": 3})]).unwrap();
        assert_eq!(lines.recent(9).unwrap(), [json!({"n": 3}), json!({"n": 1})] as [Value; 2]);
    }
}
