//! What the program says: lines of text on standard error, or JSON objects that a tailer can ship, there or in a file.
//!
//! One place for the whole process, because it is one process that speaks. A line that cannot be written disturbs nothing.

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use anyhow::Context as _;
use serde_json::{Map, Value, json};

use crate::redact;
use crate::report::format;

/// How grave a line is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Level {
    /// What goes on.
    Info,
    /// What is not as asked, and does not stop anything.
    Warn,
    /// What stops a command, or is lost.
    Error,
}

impl Level {
    fn as_str(self) -> &'static str {
        match self {
            Level::Info => "info",
            Level::Warn => "warn",
            Level::Error => "error",
        }
    }
}

/// Where lines go; text on standard error until [`begin`].
#[derive(Debug, Default)]
struct Log {
    /// Whether standard error takes JSON.
    json: bool,
    file: Option<(PathBuf, File)>,
    failed: AtomicBool,
}

/// What lines are said of.
#[derive(Debug)]
struct Known {
    run: Option<Run>,
    /// What must not be shown.
    secrets: Vec<String>,
}

#[derive(Debug)]
struct Run {
    id: String,
    test_name: String,
    phase: Option<String>,
}

static LOG: OnceLock<Log> = OnceLock::new();
static KNOWN: Mutex<Known> = Mutex::new(Known { run: None, secrets: Vec::new() });

/// Says where lines go from now on: `json` is what standard error takes, `file` takes JSON in any case, appended.
///
/// # Errors
/// When the file cannot be opened for appending.
pub(crate) fn begin(json: bool, file: Option<&Path>) -> anyhow::Result<()> {
    let open = |path: &Path| {
        let file = File::options().create(true).append(true).open(path);
        let file =
            file.with_context(|| format!("--log-file {}: cannot be appended to; name a file that can be written", path.display()))?;
        anyhow::Ok((path.to_owned(), file))
    };
    let log = Log { json, file: file.map(open).transpose()?, failed: AtomicBool::new(false) };
    // Only the first call of a process decides.
    let _ = LOG.set(log);
    Ok(())
}

/// Whether standard error takes JSON, where nothing may be redrawn.
pub(crate) fn is_json() -> bool {
    LOG.get().is_some_and(|log| log.json)
}

/// Lines are about this run until [`run_ended`].
pub(crate) fn run_began(id: &str, test_name: &str) {
    known().run = Some(Run { id: id.to_owned(), test_name: test_name.to_owned(), phase: None });
}

/// Lines are about no run.
pub(crate) fn run_ended() {
    known().run = None;
}

/// The phase the run is in.
pub(crate) fn in_phase(phase: Option<&str>) {
    if let Some(run) = &mut known().run {
        run.phase = phase.map(str::to_owned);
    }
}

/// From now on `secrets` are in no line of JSON.
pub(crate) fn hide(secrets: &[String]) {
    secrets.clone_into(&mut known().secrets);
}

fn known() -> MutexGuard<'static, Known> {
    KNOWN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Says what goes on. Whether anybody listens any more (`2>&1 | head`) changes nothing for the run.
pub(crate) fn say(line: &str) {
    line_of(Level::Info, line);
}

/// Says what is not as asked, and does not stop anything.
pub(crate) fn warn(line: &str) {
    line_of(Level::Warn, line);
}

/// Says what stops a command, or is lost.
pub(crate) fn error(line: &str) {
    line_of(Level::Error, line);
}

fn line_of(level: Level, line: &str) {
    if !is_json() {
        stderr(line);
    }
    event(level, line, Value::Null);
}

/// Tells of something that people see otherwise (a summary, a bar), so that it is in JSON alone. `fields` is an object, or null.
pub(crate) fn event(level: Level, message: &str, fields: Value) {
    let Some(log) = LOG.get().filter(|log| log.json || log.file.is_some()) else { return };
    let line = object(level, message, fields);
    if log.json {
        stderr(&line);
    }
    if let Some((path, file)) = &log.file
        && let Err(error) = { file }.write_all((line + "\n").as_bytes())
        && !log.failed.swap(true, Relaxed)
    {
        // Not by `warn`, which would come back here.
        let message = format!("batchsql: --log-file {} cannot be written ({error}); lines are missing in it", path.display());
        stderr(&if log.json { object(Level::Warn, &message, Value::Null) } else { message });
    }
}

fn stderr(line: &str) {
    // A file's name, a server's answer or a body may hold what a terminal obeys.
    let line = format::lines(line);
    let _ = writeln!(std::io::stderr().lock(), "{line}");
}

/// One line of JSON.
fn object(level: Level, message: &str, mut fields: Value) -> String {
    let message = message.strip_prefix("batchsql: ").unwrap_or(message);
    let mut line = Map::new();
    line.insert("timestamp".to_owned(), json!(jiff::Timestamp::now().to_string()));
    line.insert("level".to_owned(), json!(level.as_str()));
    let known = known();
    line.insert("message".to_owned(), json!(redact::redact(message, &known.secrets)));
    if let Some(run) = &known.run {
        line.insert("run_id".to_owned(), json!(run.id));
        line.insert("test_name".to_owned(), json!(run.test_name));
        line.extend(run.phase.iter().map(|phase| ("phase".to_owned(), json!(phase))));
    }
    redact::redact_value(&mut fields, &known.secrets);
    if let Value::Object(fields) = fields {
        line.extend(fields);
    }
    format::json(&Value::Object(line).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_one_object_with_what_is_known_and_without_secrets() {
        run_began("r-1", "quick");
        hide(&["hunter22".to_owned()]);
        in_phase(Some("main"));
        let line = object(Level::Warn, "batchsql: two\nlines at pg://u:p@h, hunter22", json!({"rows": 3}));
        run_ended();
        assert!(!line.contains('\n'), "{line}");
        let line: Value = serde_json::from_str(&line).unwrap();
        line["timestamp"].as_str().unwrap().parse::<jiff::Timestamp>().unwrap();
        let expected = json!({
            "timestamp": line["timestamp"], "level": "warn", "message": "two\nlines at pg://u:***@h, ***",
            "run_id": "r-1", "test_name": "quick", "phase": "main", "rows": 3
        });
        assert_eq!(line, expected);
        let keys: Vec<_> =
            serde_json::from_str::<Value>(&object(Level::Info, "x", Value::Null)).unwrap().as_object().unwrap().keys().cloned().collect();
        assert_eq!(keys, ["timestamp", "level", "message"], "nothing is known of a run");
    }

    #[test]
    fn a_file_that_cannot_be_opened_is_named() {
        let error = format!("{:#}", begin(false, Some(Path::new("/nowhere/x.log"))).unwrap_err());
        assert!(
            error.starts_with("--log-file /nowhere/x.log: cannot be appended to; name a file") && error.contains("No such file"),
            "{error}"
        );
    }
}
