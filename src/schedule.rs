//! When operations start, by arithmetic: the k-th start is a computed instant, and nothing that happens re-times it.

use std::time::Duration;

use rand::{Rng as _, SeedableRng as _};
use rand_xoshiro::Xoshiro256PlusPlus;

use crate::scenario::{Arrivals, Executor, Load};

/// How a run's operations are offered. Instants count from the run's start, warm-up first.
#[derive(Clone, Debug, PartialEq)]
pub enum Schedule {
    /// Closed: workers that start their next operation when the last one left them.
    Vus(Vus),
    /// Open: starts at computed instants, whatever the target does.
    Arrivals(Rate),
}

impl Schedule {
    /// The schedule of a scenario whose rules hold.
    #[must_use]
    pub fn new(load: &Load) -> Self {
        let vus = f64::from(load.vus.unwrap_or(1));
        let rate = load.rate.unwrap_or(0.0);
        let steady = |value: f64| vec![(load.duration.map_or(Duration::MAX, |duration| duration.0), value)];
        let ramps = || load.stages.iter().map(|stage| (stage.duration.0, stage.target)).collect::<Vec<_>>();
        let warmup = load.warmup.0;
        match load.executor {
            Executor::SharedIterations | Executor::ConstantVus => Schedule::Vus(Vus(Profile::new(warmup, vus, &steady(vus)))),
            Executor::RampingVus => Schedule::Vus(Vus(Profile::new(warmup, f64::from(load.vus.unwrap_or(0)), &ramps()))),
            Executor::ConstantArrivalRate => Schedule::Arrivals(Rate(Profile::new(warmup, rate, &steady(rate)))),
            Executor::RampingArrivalRate => Schedule::Arrivals(Rate(Profile::new(warmup, rate, &ramps()))),
        }
    }

    /// When the last operation may start; `None` if only the number of rows ends the run.
    #[must_use]
    pub fn end(&self) -> Option<Duration> {
        let (Schedule::Vus(Vus(profile)) | Schedule::Arrivals(Rate(profile))) = self;
        (profile.end < f64::from(u32::MAX)).then(|| Duration::from_secs_f64(profile.end))
    }
}

/// A value over time, in straight pieces.
#[derive(Clone, Debug, PartialEq)]
struct Profile {
    pieces: Vec<Piece>,
    end: f64,
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct Piece {
    start: f64,
    length: f64,
    from: f64,
    to: f64,
    /// The integral of all pieces before this one.
    before: f64,
}

impl Profile {
    /// Warm-up at the first load (the first target, for a ramp that begins at nothing), then the stages.
    fn new(warmup: Duration, first: f64, stages: &[(Duration, f64)]) -> Self {
        let mut profile = Self { pieces: Vec::new(), end: 0.0 };
        if !warmup.is_zero() {
            let steady = if first > 0.0 { first } else { stages.first().map_or(0.0, |stage| stage.1) };
            profile.push(warmup, steady, steady);
        }
        let mut from = first;
        for &(length, to) in stages {
            profile.push(length, from, to);
            from = to;
        }
        profile
    }

    fn push(&mut self, length: Duration, from: f64, to: f64) {
        let before = self.pieces.last().map_or(0.0, |piece| piece.before + piece.area());
        let length = length.as_secs_f64();
        self.pieces.push(Piece { start: self.end, length, from, to, before });
        self.end += length;
    }

    fn at(&self, seconds: f64) -> f64 {
        let piece = self.pieces.iter().find(|piece| seconds < piece.start + piece.length);
        piece.map_or(0.0, |piece| piece.from + (piece.to - piece.from) * (seconds - piece.start) / piece.length)
    }
}

impl Piece {
    fn area(&self) -> f64 {
        (self.from + self.to) / 2.0 * self.length
    }

    /// When the integral, counted from the piece's start, reaches `area`.
    fn inverse(&self, area: f64) -> f64 {
        let slope = (self.to - self.from) / self.length;
        let root = (self.from * self.from + 2.0 * area * slope).max(0.0).sqrt();
        // This form of the quadratic's solution also holds where the slope is 0.
        if self.from + root > 0.0 { 2.0 * area / (self.from + root) } else { 0.0 }
    }
}

/// Operations a second over time.
#[derive(Clone, Debug, PartialEq)]
pub struct Rate(Profile);

impl Rate {
    /// Operations a second at an instant.
    #[must_use]
    pub fn at(&self, at: Duration) -> f64 {
        self.0.at(at.as_secs_f64())
    }

    /// Operations between two instants (of a Poisson process: on average).
    #[must_use]
    pub fn operations(&self, from: Duration, to: Duration) -> f64 {
        self.integral(to.as_secs_f64()) - self.integral(from.as_secs_f64())
    }

    fn integral(&self, seconds: f64) -> f64 {
        self.0
            .pieces
            .iter()
            .map(|piece| {
                let inside = (seconds - piece.start).clamp(0.0, piece.length);
                inside * (piece.from + (piece.to - piece.from) * inside / piece.length / 2.0)
            })
            .sum()
    }

    /// The starts, in order: the k-th at the instant where k operations have been due (uniform), or where a Poisson process of unit
    /// rate, seeded, has its k-th event (Çinlar's time-scale transformation).
    #[must_use]
    pub fn starts(&self, arrivals: Arrivals, seed: u64) -> Starts<'_> {
        let rng = (arrivals == Arrivals::Poisson).then(|| Xoshiro256PlusPlus::seed_from_u64(seed ^ 0x6172_7269_7661_6c73));
        let last = self.0.pieces.last();
        // Rounding must not add an operation at the very end.
        let total = last.map_or(0.0, |piece| piece.before + piece.area()) - 1e-6;
        Starts { pieces: &self.0.pieces, next: 0, event: 0.0, total, rng }
    }
}

/// Iterator over intended starts.
pub struct Starts<'a> {
    pieces: &'a [Piece],
    next: u64,
    event: f64,
    total: f64,
    rng: Option<Xoshiro256PlusPlus>,
}

impl Iterator for Starts<'_> {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        let due = match &mut self.rng {
            None => self.next as f64,
            Some(rng) => {
                // 53 bits in (0, 1], so that the logarithm is finite.
                let unit = ((rng.next_u64() >> 11) + 1) as f64 / (1u64 << 53) as f64;
                self.event -= unit.ln();
                self.event
            }
        };
        self.next += 1;
        if due > self.total {
            return None;
        }
        while self.pieces.len() > 1 && due >= self.pieces[1].before {
            self.pieces = &self.pieces[1..];
        }
        let piece = self.pieces.first()?;
        Some(Duration::from_secs_f64(piece.start + piece.inverse(due - piece.before).min(piece.length)))
    }
}

/// Workers over time.
#[derive(Clone, Debug, PartialEq)]
pub struct Vus(Profile);

impl Vus {
    /// Most workers at any time.
    #[must_use]
    pub fn most(&self) -> u32 {
        self.0.pieces.iter().map(|piece| piece.from.max(piece.to)).fold(0.0, f64::max) as u32
    }

    /// Workers at an instant.
    #[must_use]
    pub fn at(&self, at: Duration) -> u32 {
        self.0.at(at.as_secs_f64()) as u32
    }

    /// The first instant at or after `at` when worker `vu` (from 0) works; `None` if it never will again.
    #[must_use]
    pub fn active_from(&self, vu: u32, at: Duration) -> Option<Duration> {
        let (at, needed) = (at.as_secs_f64(), f64::from(vu) + 1.0);
        for piece in self.0.pieces.iter().filter(|piece| at < piece.start + piece.length) {
            let begin = (at - piece.start).max(0.0);
            let now = piece.from + (piece.to - piece.from) * begin / piece.length;
            if now >= needed {
                return Some(Duration::from_secs_f64(piece.start + begin));
            }
            if piece.to >= needed {
                let crossing = (needed - piece.from) / (piece.to - piece.from) * piece.length;
                // One nanosecond on, where rounding would leave it a hair below.
                return Some(Duration::from_secs_f64(piece.start + crossing) + Duration::from_nanos(1));
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn load(json: serde_json::Value) -> Load {
        serde_json::from_value(json).unwrap()
    }

    fn rate(json: serde_json::Value) -> Rate {
        match Schedule::new(&load(json)) {
            Schedule::Arrivals(rate) => rate,
            Schedule::Vus(_) => panic!("an arrival rate"),
        }
    }

    fn vus(json: serde_json::Value) -> Vus {
        match Schedule::new(&load(json)) {
            Schedule::Vus(vus) => vus,
            Schedule::Arrivals(_) => panic!("workers"),
        }
    }

    #[test]
    fn a_constant_rate_starts_the_kth_operation_at_k_over_rate() {
        let rate = rate(serde_json::json!({"executor": "constant-arrival-rate", "rate": 8, "duration": "2s"}));
        let starts: Vec<Duration> = rate.starts(Arrivals::Uniform, 1).collect();
        assert_eq!(starts.len(), 16);
        for (k, start) in starts.iter().enumerate() {
            assert_eq!(*start, Duration::from_millis(125 * k as u64));
        }
    }

    #[test]
    fn a_ramp_from_nothing_starts_operations_where_the_area_reaches_k() {
        // 0 to 100/s over 2 s: t²·25 operations by t, 100 in all.
        let rate = rate(serde_json::json!({"executor": "ramping-arrival-rate", "stages": [{"duration": "2s", "target": 100}]}));
        let starts: Vec<Duration> = rate.starts(Arrivals::Uniform, 1).collect();
        assert_eq!(starts.len(), 100);
        for (k, start) in starts.iter().enumerate() {
            assert!((start.as_secs_f64() - (k as f64 / 25.0).sqrt()).abs() < 1e-9, "{k}: {start:?}");
        }
        assert!((rate.at(Duration::from_secs(1)) - 50.0).abs() < 1e-9);
    }

    #[test]
    fn warmup_comes_first_at_the_first_load() {
        let rate = rate(serde_json::json!({
            "executor": "ramping-arrival-rate", "rate": 10, "warmup": "1s",
            "stages": [{"duration": "1s", "target": 10}, {"duration": "1s", "target": 30}]
        }));
        let starts: Vec<f64> = rate.starts(Arrivals::Uniform, 1).map(|start| start.as_secs_f64()).collect();
        let between = |from: f64, to: f64| starts.iter().filter(|start| **start >= from - 1e-9 && **start < to - 1e-9).count();
        assert_eq!((between(0.0, 1.0), between(1.0, 2.0), between(2.0, 3.0)), (10, 10, 20));
        assert!((rate.operations(Duration::from_secs(1), Duration::from_secs(3)) - 30.0).abs() < 1e-9);
    }

    #[test]
    fn poisson_gaps_have_the_mean_and_the_spread_of_an_exponential() {
        let rate = rate(serde_json::json!({"executor": "constant-arrival-rate", "rate": 1000, "duration": "100s"}));
        let starts: Vec<f64> = rate.starts(Arrivals::Poisson, 42).map(|start| start.as_secs_f64()).collect();
        // 100,000 on average, with a standard deviation of 316.
        assert!((98_700..=101_300).contains(&starts.len()), "{}", starts.len());
        let gaps: Vec<f64> = starts.windows(2).map(|pair| pair[1] - pair[0]).collect();
        let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
        let deviation = (gaps.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>() / gaps.len() as f64).sqrt();
        assert!((mean - 0.001).abs() < 0.000_015 && (deviation / mean - 1.0).abs() < 0.02, "mean {mean}, deviation {deviation}");
        assert_eq!(starts, rate.starts(Arrivals::Poisson, 42).map(|start| start.as_secs_f64()).collect::<Vec<_>>());
        assert_ne!(starts[0], rate.starts(Arrivals::Poisson, 43).next().unwrap().as_secs_f64());
    }

    #[test]
    fn workers_come_and_go_where_the_ramp_crosses_their_number() {
        let vus = vus(serde_json::json!({
            "executor": "ramping-vus", "stages": [{"duration": "10s", "target": 10}, {"duration": "10s", "target": 0}]
        }));
        assert_eq!(vus.most(), 10);
        assert_eq!((vus.at(Duration::from_millis(4_500)), vus.at(Duration::from_secs(19))), (4, 1));
        let near = |found: Option<Duration>, seconds: f64| (found.unwrap().as_secs_f64() - seconds).abs() < 1e-6;
        assert!(near(vus.active_from(0, Duration::ZERO), 1.0));
        assert!(near(vus.active_from(4, Duration::ZERO), 5.0));
        assert!(near(vus.active_from(4, Duration::from_secs(7)), 7.0));
        assert_eq!(vus.active_from(4, Duration::from_secs(16)), None);
        assert_eq!(vus.active_from(10, Duration::ZERO), None);
    }

    #[test]
    fn shared_iterations_have_no_end_in_time() {
        let schedule = Schedule::new(&load(serde_json::json!({"executor": "shared-iterations", "vus": 3})));
        assert_eq!(schedule.end(), None);
        let Schedule::Vus(vus) = schedule else { panic!("workers") };
        assert_eq!(vus.active_from(2, Duration::from_secs(1_000_000)), Some(Duration::from_secs(1_000_000)));
        assert_eq!(vus.active_from(3, Duration::ZERO), None);
    }

    proptest! {
        #[test]
        fn starts_never_go_backwards_and_are_as_many_as_the_area(
            first in 0.0f64..50.0,
            stages in prop::collection::vec((1u64..5_000, 0.0f64..200.0), 1..5),
            poisson: bool,
        ) {
            let stages: Vec<_> = stages.into_iter().map(|(ms, target)| serde_json::json!({"duration": format!("{ms}ms"), "target": target})).collect();
            let rate = rate(serde_json::json!({"executor": "ramping-arrival-rate", "rate": first, "stages": stages}));
            let arrivals = if poisson { Arrivals::Poisson } else { Arrivals::Uniform };
            let starts: Vec<Duration> = rate.starts(arrivals, 1).collect();
            prop_assert!(starts.windows(2).all(|pair| pair[0] <= pair[1]));
            let end = Duration::from_secs_f64(rate.0.end);
            prop_assert!(starts.iter().all(|start| *start <= end));
            if !poisson {
                let area = rate.operations(Duration::ZERO, end);
                prop_assert!((starts.len() as f64 - area).abs() <= 1.0, "{} starts, area {}", starts.len(), area);
            }
        }
    }
}
