//! The pipeline's clock: the machine's, unless the model of the pipeline drives one of its own.

use std::time::Instant;

/// Now.
pub(super) fn now() -> Instant {
    #[cfg(test)]
    if let Some(now) = driven::now() {
        return now;
    }
    Instant::now()
}

/// Waits until `due`.
pub(super) async fn sleep_until(due: Instant) {
    #[cfg(test)]
    if driven::sleep_until(due).await {
        return;
    }
    tokio::time::sleep_until(due.into()).await;
}

/// A clock of this thread that stands still until it is told to go on.
#[cfg(test)]
pub(super) mod driven {
    use std::cell::RefCell;
    use std::sync::{Arc, Mutex};
    use std::time::Instant;

    use tokio::sync::watch;

    thread_local! {
        static CLOCK: RefCell<Option<Arc<Clock>>> = const { RefCell::new(None) };
    }

    struct Clock {
        now: watch::Sender<Instant>,
        /// What is slept for.
        sleeps: Mutex<Vec<Instant>>,
    }

    /// One sleep; over when dropped, whether its time has come or not.
    struct Sleep(Arc<Clock>, Instant);

    impl Drop for Sleep {
        fn drop(&mut self) {
            let mut sleeps = self.0.sleeps.lock().unwrap();
            let at = sleeps.iter().position(|due| *due == self.1).expect("it was put there");
            sleeps.swap_remove(at);
        }
    }

    fn clock() -> Option<Arc<Clock>> {
        CLOCK.with_borrow(Clone::clone)
    }

    /// From here on this thread's pipelines go by a clock that shows `now`.
    pub(in crate::pipeline) fn begin(now: Instant) {
        CLOCK.set(Some(Arc::new(Clock { now: watch::Sender::new(now), sleeps: Mutex::default() })));
    }

    /// The first instant to come that is slept for.
    pub(in crate::pipeline) fn next() -> Option<Instant> {
        let (clock, now) = (clock()?, now()?);
        clock.sleeps.lock().unwrap().iter().filter(|due| **due > now).min().copied()
    }

    /// Goes on to `now`.
    pub(in crate::pipeline) fn advance(now: Instant) {
        if let Some(clock) = clock() {
            clock.now.send_replace(now);
        }
    }

    pub(in crate::pipeline) fn now() -> Option<Instant> {
        clock().map(|clock| *clock.now.borrow())
    }

    pub(super) async fn sleep_until(due: Instant) -> bool {
        let Some(clock) = clock() else { return false };
        let mut now = clock.now.subscribe();
        clock.sleeps.lock().unwrap().push(due);
        let _sleep = Sleep(clock, due);
        now.wait_for(|now| *now >= due).await.is_ok()
    }
}
