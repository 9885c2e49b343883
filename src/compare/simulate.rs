//! Comparisons whose truth is known: what the verdicts are worth. Tests hold a fast share of them to their limits, and
//! `cargo bench --bench comparison` prints the whole table.

use rand::{Rng, RngExt as _, SeedableRng as _};
use rand_xoshiro::Xoshiro256PlusPlus;

use super::{Better, Finding, judge};

/// How the runs of a machine scatter.
#[derive(Clone, Copy, Debug)]
pub struct Noise {
    /// Standard deviation of the logarithm of a run's figure: 0.05 is 5 %.
    pub runs: f64,
    /// How far the machine drifts from the first run to the last, as a logarithm; both sides of a pair feel it alike.
    pub drift: f64,
    /// The share of runs that something else on the machine makes half as slow again.
    pub disturbed: f64,
}

impl Noise {
    /// Runs that scatter by `runs` and nothing else.
    #[must_use]
    pub fn plain(runs: f64) -> Self {
        Self { runs, drift: 0.0, disturbed: 0.0 }
    }
}

/// How often each verdict was given.
#[derive(Clone, Copy, Debug, Default)]
#[expect(missing_docs, reason = "the names are the documentation")]
pub struct Tally {
    pub rounds: u32,
    pub worse: u32,
    pub better: u32,
    pub too_noisy: u32,
    /// The interval holds the true ratio.
    pub covered: u32,
}

impl Tally {
    /// `number` as a share of all rounds.
    #[must_use]
    pub fn share(&self, number: u32) -> f64 {
        f64::from(number) / f64::from(self.rounds.max(1))
    }
}

/// A value of the normal distribution around 0 with deviation 1.
pub(super) fn normal(random: &mut impl Rng) -> f64 {
    let (radius, angle): (f64, f64) = (random.random(), random.random());
    (-2.0 * (1.0 - radius).ln()).sqrt() * (std::f64::consts::TAU * angle).cos()
}

/// Compares `pairs` pairs of a throughput that the second side truly has `ratio` times, `rounds` times over.
#[must_use]
pub fn throughput(pairs: usize, noise: Noise, ratio: f64, rounds: u32, seed: u64) -> Tally {
    let mut random = Xoshiro256PlusPlus::seed_from_u64(seed);
    let mut tally = Tally { rounds, ..Tally::default() };
    for _ in 0..rounds {
        let mut value = |pair: usize, ratio: f64| {
            let drift = noise.drift * pair as f64 / pairs.max(2) as f64;
            let slow = if random.random::<f64>() < noise.disturbed { 1.5 } else { 1.0 };
            1000.0 * ratio * (drift + noise.runs * normal(&mut random)).exp() / slow
        };
        let (before, after): (Vec<f64>, Vec<f64>) = (0..pairs).map(|pair| (value(pair, 1.0), value(pair, ratio))).unzip();
        let found = judge::sides(&before, &after, 1);
        let finding = judge::finding(&found, found.p_value, Better::Higher, judge::DETECT).0;
        tally.worse += u32::from(finding == Finding::Worse);
        tally.better += u32::from(finding == Finding::Better);
        tally.too_noisy += u32::from(finding == Finding::TooNoisyToSay);
        let change =
            found.change.filter(|change| change.low.is_none_or(|low| low <= ratio) && change.high.is_none_or(|high| ratio <= high));
        tally.covered += u32::from(change.is_some());
    }
    tally
}
