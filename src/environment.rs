//! Where a run takes place and what it costs: the fingerprint two reports are compared by, and the harness's own use of CPU and
//! memory. What cannot be learnt is left empty; it never stops a run.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;
use sysinfo::{CpuRefreshKind, MemoryRefreshKind, Pid, ProcessRefreshKind, ProcessesToUpdate, RefreshKind, System};

use crate::report::{Calibration, Environment, Resources, TargetSeen};

/// This machine; `target` is left for the run to fill.
#[must_use]
pub fn fingerprint() -> Environment {
    let kinds = RefreshKind::nothing().with_cpu(CpuRefreshKind::nothing()).with_memory(MemoryRefreshKind::nothing().with_ram());
    let system = System::new_with_specifics(kinds).ok();
    let cpus = system.as_ref().map_or(&[][..], System::cpus);
    Environment {
        batchsql_version: env!("CARGO_PKG_VERSION").to_owned(),
        git_commit: git_commit(),
        cpu: cpus.first().map(|cpu| cpu.brand().trim().to_owned()).unwrap_or_default(),
        cores: std::thread::available_parallelism().map_or(cpus.len(), usize::from),
        memory_bytes: system.as_ref().map_or(0, System::total_memory),
        os: System::long_os_version().or_else(|_| System::name()).unwrap_or_default(),
        kernel: System::kernel_version().unwrap_or_default(),
        target: TargetSeen::default(),
        calibration: None,
    }
}

/// The commit of the working directory: what is under test is usually beside its scenarios.
fn git_commit() -> Option<String> {
    let output = Command::new("git").args(["rev-parse", "HEAD"]).stdin(Stdio::null()).stderr(Stdio::null()).output().ok()?;
    let commit = String::from_utf8(output.stdout).ok()?.trim().to_owned();
    (output.status.success() && !commit.is_empty()).then_some(commit)
}

/// What this process has used so far.
#[must_use]
pub fn resources() -> Resources {
    used(UsageWho::RUSAGE_SELF).unwrap_or_else(|| Resources { rss_bytes_max: rss_now(), ..Resources::default() })
}

/// A fixed piece of work, at most a fifth of a second of it: what this machine can do now. `folder` is where the disk is tried.
#[must_use]
pub fn calibrate(folder: &Path) -> Calibration {
    const TRIES: u32 = 8;
    const LOOPS: u32 = 1_000;
    let mut best = f64::INFINITY;
    for _ in 0..TRIES {
        let began = Instant::now();
        let mut value = std::hint::black_box(1_u64);
        for _ in 0..LOOPS {
            // Each needs the one before, so that a wider processor does not skip any.
            for step in 0..1_000_u64 {
                value = (value ^ step).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(7);
            }
        }
        std::hint::black_box(value);
        best = best.min(began.elapsed().as_secs_f64());
    }
    Calibration { cpu_loops_per_second: f64::from(LOOPS) / best, fsync_ms: fsync_ms(&folder.join("calibration.tmp")).ok().flatten() }
}

fn fsync_ms(path: &Path) -> std::io::Result<Option<f64>> {
    /// Whichever is reached first.
    const MOST: (usize, Duration) = (9, Duration::from_millis(100));
    let began = Instant::now();
    let mut file = File::create(path)?;
    let mut times = Vec::new();
    let mut measure = || {
        while times.len() < MOST.0 && began.elapsed() < MOST.1 {
            let began = Instant::now();
            file.write_all(&[0x5a; 4096])?;
            file.sync_all()?;
            times.push(began.elapsed().as_secs_f64() * 1e3);
        }
        Ok(())
    };
    let measured: std::io::Result<()> = measure();
    std::fs::remove_file(path)?;
    measured?;
    times.sort_by(f64::total_cmp);
    Ok(times.get(times.len() / 2).copied())
}

/// CPU time and greatest resident set of the child processes that were waited for.
#[must_use]
pub fn children() -> Resources {
    used(UsageWho::RUSAGE_CHILDREN).unwrap_or_default()
}

fn used(who: UsageWho) -> Option<Resources> {
    let usage = getrusage(who).ok()?;
    let micros = usage.user_time().num_microseconds() + usage.system_time().num_microseconds();
    // Kibibytes everywhere but on Apple's systems.
    let unit = if cfg!(target_vendor = "apple") { 1 } else { 1024 };
    Some(Resources { cpu_seconds: micros as f64 / 1e6, rss_bytes_max: usage.max_rss().unsigned_abs() * unit, ..Resources::default() })
}

/// Resident memory of this process now; 0 where it cannot be read.
#[must_use]
pub fn rss_now() -> u64 {
    // Kept between calls: a fresh one costs more than the reading.
    static SYSTEM: Mutex<Option<System>> = Mutex::new(None);
    let mut kept = SYSTEM.lock().unwrap_or_else(PoisonError::into_inner);
    if kept.is_none() {
        *kept = System::new().ok();
    }
    let pid = Pid::from_u32(std::process::id());
    kept.as_mut().map_or(0, |system| {
        system.refresh_processes_specifics(ProcessesToUpdate::Some(&[pid]), false, ProcessRefreshKind::nothing().with_memory());
        system.process(pid).map_or(0, sysinfo::Process::memory)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machine_is_described() {
        let here = fingerprint();
        assert_eq!(here.batchsql_version, env!("CARGO_PKG_VERSION"));
        assert!(here.cores >= 1);
        assert!(here.memory_bytes > 64 << 20, "{}", here.memory_bytes);
        assert!(!here.os.is_empty() && !here.kernel.is_empty(), "{here:?}");
        assert!(here.git_commit.is_none_or(|commit| commit.len() >= 40 && commit.bytes().all(|b| b.is_ascii_hexdigit())));
    }

    #[test]
    fn memory_in_use_is_seen_and_never_above_the_greatest() {
        let before = rss_now();
        let block = std::hint::black_box(vec![1_u8; 64 << 20]);
        let now = rss_now();
        assert!(now >= before + (48 << 20), "{before} → {now} with {} bytes more", block.len());
        let most = resources().rss_bytes_max;
        // The two are read by different ways, which may round differently.
        assert!(most + (4 << 20) >= now, "{most} < {now}");
    }

    #[test]
    fn a_machine_is_calibrated_and_nothing_stays() {
        let folder = tempfile::tempdir().unwrap();
        let found = calibrate(folder.path());
        assert!(found.cpu_loops_per_second > 1_000.0 && found.fsync_ms.is_some_and(|ms| ms > 0.0), "{found:?}");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
        assert_eq!(calibrate(&folder.path().join("missing")).fsync_ms, None);
    }

    #[test]
    fn work_costs_cpu_time() {
        let before = resources().cpu_seconds;
        while resources().cpu_seconds < before + 0.02 {
            std::hint::black_box((0..10_000_u64).sum::<u64>());
        }
        assert!(before > 0.0);
    }
}
