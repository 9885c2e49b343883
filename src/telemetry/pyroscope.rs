//! CPU profiles of the harness, pushed to Pyroscope while a run goes on: what the load generator itself spends its time in.
//!
//! Window follows upon window; while one is sampled the one before is sent, once, and forgotten whatever becomes of it. So at most two
//! are held, and an end waits for one answer at the longest.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Result;
use bytes::Bytes;
use http::Method;
use http::header::{CONTENT_TYPE, HeaderValue};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::log::warn;
use super::profile::Sampling;
use crate::http::service::Service;

const WINDOW: Duration = Duration::from_secs(10);
/// Longest wait for an answer: less than a window.
const PATIENCE: Duration = Duration::from_secs(5);

/// Where profiles go. Clones share everything.
#[derive(Clone)]
pub(crate) struct Pyroscope {
    service: Service,
    failed: Arc<AtomicBool>,
}

/// Profiles of a run that goes on.
pub(crate) struct Profiles {
    stop: CancellationToken,
    task: JoinHandle<()>,
}

/// A window that was sampled.
struct Window {
    from: u64,
    until: u64,
    profile: Vec<u8>,
}

impl Pyroscope {
    /// # Errors
    /// When `url` is no URL of an HTTP service.
    pub(crate) fn new(url: &str) -> Result<Self> {
        Ok(Self { service: Service::new("--pyroscope", url, "http://127.0.0.1:4040")?, failed: Arc::default() })
    }

    /// Begins to sample.
    pub(crate) fn begin(&self, env: &str, test_name: &str) -> Profiles {
        let stop = CancellationToken::new();
        let task = tokio::spawn(self.clone().push(name(env, test_name), stop.clone()));
        Profiles { stop, task }
    }

    async fn push(self, name: String, stop: CancellationToken) {
        let mut before = None;
        while !stop.is_cancelled() {
            let (sampled, ()) = tokio::join!(window(&stop), self.send(&name, before.take()));
            match sampled {
                Ok(window) => before = Some(window),
                Err(error) => {
                    self.fail(&error);
                    let _ = tokio::time::timeout(WINDOW, stop.cancelled()).await;
                }
            }
        }
        self.send(&name, before).await;
    }

    async fn send(&self, name: &str, window: Option<Window>) {
        let Some(Window { from, until, profile }) = window else { return };
        let (from, until) = (from.to_string(), until.to_string());
        let query = [("name", name), ("from", &from), ("until", &until), ("format", "pprof"), ("spyName", "batchsql")];
        let headers = [(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"))];
        let answer = self.service.send(Method::POST, "/ingest", &query, &headers, Bytes::from(profile), PATIENCE).await;
        if let Err(error) = answer.and_then(crate::http::service::Answer::success) {
            self.fail(&error);
        }
    }

    fn fail(&self, error: &anyhow::Error) {
        if !self.failed.swap(true, Relaxed) {
            warn(&format!("batchsql: --pyroscope {}: profiles are missing there: {error:#}; the run goes on", self.service.shown()));
        }
    }
}

impl Profiles {
    /// Sends what was sampled last.
    pub(crate) async fn end(self) {
        self.stop.cancel();
        // It is bounded by its own patience; a panic in it has said so.
        let _ = self.task.await;
    }
}

async fn window(stop: &CancellationToken) -> Result<Window> {
    let sampling = Sampling::begin().await?;
    let from = unix_seconds();
    let _ = tokio::time::timeout(WINDOW, stop.cancelled()).await;
    // An empty window would be no window to Pyroscope.
    let until = unix_seconds().max(from + 1);
    Ok(Window { from, until, profile: sampling.end().await? })
}

fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// `batchsql{env=prod,test_name=quickstart}`, without what would end a label early.
fn name(env: &str, test_name: &str) -> String {
    let labels = [("env", env), ("test_name", test_name)].into_iter().filter(|(_, value)| !value.is_empty());
    let plain = |value: &str| value.replace(|c: char| !(c.is_alphanumeric() || "_-.:".contains(c)), "_");
    format!("batchsql{{{}}}", labels.map(|(label, value)| format!("{label}={}", plain(value))).collect::<Vec<_>>().join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_has_the_labels_that_are_there_and_cannot_be_broken_out_of() {
        assert_eq!(name("prod", "quickstart"), "batchsql{env=prod,test_name=quickstart}");
        assert_eq!(name("", "a, b}={"), "batchsql{test_name=a__b___}");
    }
}
