//! What people see while a run goes on: a line that is redrawn on a terminal, plain lines elsewhere. Always on standard error.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::telemetry::log::say;

/// Where progress goes.
#[derive(Clone, Debug)]
pub enum Progress {
    /// Nowhere.
    Off,
    /// One line every few seconds, for logs and pipes.
    Lines,
    /// A line that is redrawn.
    Terminal,
}

/// Progress of one phase.
#[derive(Clone)]
pub struct PhaseProgress {
    inner: Inner,
}

#[derive(Clone)]
enum Inner {
    Off,
    Lines { name: String, next: Arc<Mutex<(Instant, Duration)>> },
    Terminal(ProgressBar),
}

/// First wait between two plain lines; it grows, so that a log of a long run stays short.
const FIRST_LINE: Duration = Duration::from_secs(1);
const MOST_BETWEEN_LINES: Duration = Duration::from_secs(10);

impl Progress {
    /// Begins to show the phase `name`.
    #[must_use]
    pub fn phase(&self, name: &str) -> PhaseProgress {
        let inner = match self {
            Progress::Off => Inner::Off,
            Progress::Lines => {
                let next = Arc::new(Mutex::new((Instant::now() + FIRST_LINE, FIRST_LINE)));
                Inner::Lines { name: name.to_owned(), next }
            }
            Progress::Terminal => {
                let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
                let style = ProgressStyle::with_template("{spinner} {prefix:<8} {elapsed:>4}  {msg}").expect("the template is sound");
                bar.set_style(style);
                bar.set_prefix(name.to_owned());
                Inner::Terminal(bar)
            }
        };
        PhaseProgress { inner }
    }
}

impl PhaseProgress {
    /// Shows `message`; lines that come too soon after the last are left out.
    pub fn update(&self, message: impl FnOnce() -> String) {
        match &self.inner {
            Inner::Off => {}
            Inner::Terminal(bar) => {
                bar.set_message(message());
                bar.tick();
            }
            Inner::Lines { name, next } => {
                let mut next = next.lock().unwrap_or_else(PoisonError::into_inner);
                let now = Instant::now();
                if now >= next.0 {
                    next.1 = (next.1 + next.1 / 2).min(MOST_BETWEEN_LINES);
                    next.0 = now + next.1;
                    say(&format!("{name}: {}", message()));
                }
            }
        }
    }

    /// Another phase goes on in the same place.
    pub fn rename(&mut self, phase: &str) {
        match &mut self.inner {
            Inner::Off => {}
            Inner::Terminal(bar) => bar.set_prefix(phase.to_owned()),
            Inner::Lines { name, .. } => phase.clone_into(name),
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        if let Inner::Terminal(bar) = self {
            bar.finish_and_clear();
        }
    }
}
