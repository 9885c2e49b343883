//! Waiting for computed instants inside one thread's runtime. The runtime's own timer counts in milliseconds; here a late start would
//! be the generator's fault, so on Linux the kernel's timer wakes the thread, and the last microseconds are spent yielding.

use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

/// What is left of a wait when yielding takes over.
const SPIN: Duration = Duration::from_micros(20);

/// Longest sleep in one piece, so that a stop is seen.
const NAP: Duration = Duration::from_millis(50);

/// One thread's timer.
pub(super) struct Timer {
    alarm: alarm::Alarm,
}

impl Timer {
    pub(super) fn new() -> std::io::Result<Self> {
        Ok(Self { alarm: alarm::Alarm::new()? })
    }

    /// Waits until `due`; false if `stop` came first.
    pub(super) async fn until(&mut self, due: Instant, stop: &CancellationToken) -> bool {
        loop {
            if stop.is_cancelled() {
                return false;
            }
            let left = due.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return true;
            }
            if left <= SPIN {
                tokio::task::yield_now().await;
            } else {
                self.alarm.sleep((left - SPIN / 2).min(NAP)).await;
            }
        }
    }
}

#[cfg(target_os = "linux")]
mod alarm {
    use std::fs::File;
    use std::os::fd::AsFd as _;
    use std::time::Duration;

    use nix::sys::time::TimeSpec;
    use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
    use tokio::net::unix::pipe::Receiver;

    /// `timerfd_create(2)`, whose expirations are read as from a pipe.
    pub(super) struct Alarm {
        timer: TimerFd,
        expirations: Receiver,
    }

    impl Alarm {
        pub(super) fn new() -> std::io::Result<Self> {
            let timer = TimerFd::new(ClockId::CLOCK_MONOTONIC, TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC)?;
            let expirations = Receiver::from_file_unchecked(File::from(timer.as_fd().try_clone_to_owned()?))?;
            Ok(Self { timer, expirations })
        }

        pub(super) async fn sleep(&mut self, length: Duration) {
            let once = Expiration::OneShot(TimeSpec::from_duration(length));
            if self.timer.set(once, TimerSetTimeFlags::empty()).is_err() {
                return tokio::time::sleep(length).await;
            }
            loop {
                if self.expirations.readable().await.is_err() {
                    return tokio::time::sleep(length).await;
                }
                // Eight bytes: how often it has expired.
                match self.expirations.try_read(&mut [0; 8]) {
                    Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                    _ => return,
                }
            }
        }
    }
}

#[cfg(not(target_os = "linux"))]
mod alarm {
    use std::time::Duration;

    /// The runtime's timer, a millisecond early: the rest is spent yielding.
    pub(super) struct Alarm;

    impl Alarm {
        pub(super) fn new() -> std::io::Result<Self> {
            Ok(Self)
        }

        pub(super) async fn sleep(&mut self, length: Duration) {
            match length.checked_sub(Duration::from_millis(1)) {
                Some(length) => tokio::time::sleep(length).await,
                None => tokio::task::yield_now().await,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn it_wakes_after_the_instant_and_a_stop_ends_the_wait() {
        let mut timer = Timer::new().expect("a timer");
        let stop = CancellationToken::new();
        let begin = Instant::now();
        for step in 1..=20u32 {
            let due = begin + Duration::from_micros(300) * step;
            assert!(timer.until(due, &stop).await);
            assert!(Instant::now() >= due);
        }
        stop.cancel();
        assert!(!timer.until(Instant::now() + Duration::from_secs(3600), &stop).await);
    }
}
