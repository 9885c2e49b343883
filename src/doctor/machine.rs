//! This machine: the disk under the reports, and the clock.

use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use nix::sys::statvfs::statvfs;

use super::{Finding, signals};

/// Less than this is ill, however large the disk is.
const LEAST_FREE_BYTES: u64 = 1 << 30;
/// How long wall and monotonic clock are compared at least, and how far they may part in that time.
const TICK: Duration = Duration::from_millis(500);
const DRIFT: f64 = 0.1;
/// How far another machine's clock may be off: its answers tell whole seconds, and travel.
const SKEW: f64 = 3.0;

/// The disk under the report folder, or under the nearest folder that exists.
pub(super) fn disk(report_dir: &Path) -> Finding {
    let absolute = std::path::absolute(report_dir).unwrap_or_else(|_| report_dir.to_owned());
    let Some(folder) = absolute.ancestors().find(|folder| folder.exists()) else {
        return Finding::ill("disk", format!("{} does not exist", absolute.display()), "name another --report-dir");
    };
    match statvfs(folder) {
        Ok(disk) => {
            let unit = disk.fragment_size();
            space(folder, (disk.blocks() - disk.blocks_free()) * unit, disk.blocks_available() * unit)
        }
        Err(error) => Finding::ill("disk", format!("{}: {error}", folder.display()), "name another --report-dir"),
    }
}

fn space(folder: &Path, used: u64, free: u64) -> Finding {
    // As df counts: what is kept for root is neither used nor free.
    let percent = used as f64 / (used + free).max(1) as f64 * 100.0;
    let found = format!("{}: {:.1} GiB free, {percent:.0} % used", folder.display(), free as f64 / f64::from(1 << 30));
    if percent > signals::DISK.critical || free < LEAST_FREE_BYTES {
        return Finding::ill("disk", found, "remove old runs, or name a --report-dir on another disk");
    }
    Finding::well("disk", found)
}

/// How far the wall clock got away from the monotonic one since they were read.
pub(super) async fn tick(instant: Instant, wall: SystemTime) -> f64 {
    tokio::time::sleep(TICK.saturating_sub(instant.elapsed())).await;
    let (passed, since) = (instant.elapsed().as_secs_f64(), SystemTime::now().duration_since(wall));
    since.map_or_else(|back| -back.duration().as_secs_f64(), |since| since.as_secs_f64()) - passed
}

/// The clock: whether it jumps, and how far those of the services are away.
pub(super) fn clock(drift: f64, skews: &[f64]) -> Finding {
    let worst = skews.iter().copied().max_by(|a, b| a.abs().total_cmp(&b.abs()));
    let mend = "let a time service (chrony, systemd-timesyncd) keep the clocks of all machines";
    if drift.abs() > DRIFT {
        return Finding::ill("clock", format!("the wall clock moved {drift:+.3} s against the monotonic one"), mend);
    }
    match worst {
        Some(worst) if worst.abs() > SKEW => Finding::ill("clock", format!("a service's clock is {worst:+.0} s away from this one"), mend),
        Some(_) => Finding::well("clock", format!("steady, and those of {} services agree within {SKEW:.0} s", skews.len())),
        None => Finding::well("clock", "steady; no service to compare it with"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::State;

    #[test]
    fn a_disk_is_ill_above_its_share_or_below_its_bytes() {
        let gib = 1_u64 << 30;
        let state = |used, free| space(Path::new("/x"), used, free).state;
        assert_eq!(state(90 * gib, 10 * gib), State::Well, "90 % is the limit itself");
        assert_eq!(state(90 * gib + (1 << 20), 10 * gib), State::Ill);
        assert_eq!((state(0, gib), state(0, gib - 1), state(0, 0)), (State::Well, State::Ill, State::Ill));
        assert_eq!(disk(Path::new("no/such/folder")).state, disk(Path::new(".")).state);
    }

    #[test]
    fn clocks_may_differ_by_their_resolution_and_no_more() {
        assert_eq!(clock(0.0, &[]).state, State::Well);
        assert_eq!(clock(0.1, &[3.0, -3.0]).state, State::Well);
        assert_eq!(clock(-0.11, &[]).state, State::Ill);
        let away = clock(0.0, &[0.2, -3.1, 1.0]);
        assert_eq!((away.state, away.found.contains("-3 s")), (State::Ill, true), "{}", away.found);
    }
}
