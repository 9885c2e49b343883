//! How sure one pair of runs is within itself: a block bootstrap over the seconds of both. Seconds follow from each other, so whole
//! blocks of them are drawn. It says nothing of how two runs of the same thing differ; only more pairs do.

use rand::{RngExt as _, SeedableRng as _};
use rand_xoshiro::Xoshiro256PlusPlus;
use statrs::distribution::{ContinuousCDF as _, StudentsT};

use super::stats::median;

/// Fewer seconds have no interval.
pub(crate) const LEAST: usize = 10;
/// Drawn anew this often.
const DRAWS: usize = 1_000;

/// The 95 % interval of the ratio of the medians of two series of seconds.
pub(crate) fn ratio(before: &[f64], after: &[f64], seed: u64) -> Option<(f64, f64)> {
    if before.len() < LEAST || after.len() < LEAST {
        return None;
    }
    let logarithm = |values: &[f64]| median(values).filter(|value| *value > 0.0).map(f64::ln);
    let found = logarithm(after)? - logarithm(before)?;
    let (long_before, long_after) = (block(before), block(after));
    let mut random = Xoshiro256PlusPlus::seed_from_u64(seed);
    let mut draw = |values: &[f64], long: usize| -> Option<f64> {
        let mut drawn = Vec::with_capacity(values.len() + long);
        while drawn.len() < values.len() {
            let from = random.random_range(0..values.len());
            // The end goes on with the beginning, so that no second is drawn less often than another.
            drawn.extend((from..from + long).map(|place| values[place % values.len()]));
        }
        drawn.truncate(values.len());
        logarithm(&drawn)
    };
    let mut off: Vec<f64> =
        (0..DRAWS).map(|_| Some(draw(after, long_after)? - draw(before, long_before)? - found)).collect::<Option<_>>()?;
    off.sort_by(f64::total_cmp);
    // A few blocks know little of their own noise: as much wider as Student's t is than the normal distribution.
    let blocks = (before.len() / long_before).min(after.len() / long_after);
    let wider = StudentsT::new(0.0, 1.0, blocks.saturating_sub(1).max(1) as f64).ok()?.inverse_cdf(0.975) / 1.96;
    let (low, high) = (off[DRAWS * 25 / 1000] * wider, off[DRAWS * 975 / 1000] * wider);
    Some(((found + low).exp(), (found + high).exp()))
}

/// How many seconds hang together: until their correlation is lost in noise, and at least the cube root of their number (the
/// length that grows as theory asks); never more than a fifth, or there would be no blocks to draw from.
fn block(values: &[f64]) -> usize {
    let count = values.len();
    let mean = values.iter().sum::<f64>() / count as f64;
    let covariance = |lag: usize| values.iter().zip(&values[lag..]).map(|(a, b)| (a - mean) * (b - mean)).sum::<f64>();
    let noise = 2.0 / (count as f64).sqrt();
    let variance = covariance(0);
    let hangs = |lag: &usize| variance > 0.0 && covariance(*lag) / variance > noise;
    let lags = (1..count / 5).take_while(hangs).count();
    (2 * lags).max((count as f64).cbrt().ceil() as usize).min(count / 5).max(1)
}

#[cfg(test)]
mod tests {
    use super::super::simulate::normal;
    use super::*;

    /// Seconds around 1 of which each keeps a share of the one before.
    fn seconds(random: &mut Xoshiro256PlusPlus, count: usize, keeps: f64) -> Vec<f64> {
        let mut state = 0.0;
        let mut next = || {
            state = keeps * state + (1.0 - keeps * keeps).sqrt() * normal(random);
            (0.1 * state).exp()
        };
        (0..50).for_each(|_| {
            next();
        });
        (0..count).map(|_| next()).collect()
    }

    #[test]
    fn the_interval_holds_the_truth_also_where_seconds_follow_from_each_other() {
        let mut random = Xoshiro256PlusPlus::seed_from_u64(3);
        for (count, keeps) in [(30, 0.0), (60, 0.5), (120, 0.7)] {
            let inside = (0..100).filter(|round| {
                let (before, after) = (seconds(&mut random, count, keeps), seconds(&mut random, count, keeps));
                let (low, high) = ratio(&before, &after, *round).unwrap();
                low <= 1.0 && 1.0 <= high
            });
            let inside = inside.count();
            assert!(inside >= 88, "{inside} of 100 hold the truth at {count} seconds that keep {keeps}");
        }
    }

    #[test]
    fn a_great_change_is_seen_and_few_seconds_say_nothing() {
        let mut random = Xoshiro256PlusPlus::seed_from_u64(4);
        let before = seconds(&mut random, 60, 0.3);
        let after: Vec<f64> = seconds(&mut random, 60, 0.3).iter().map(|value| value * 1.5).collect();
        let (low, high) = ratio(&before, &after, 1).unwrap();
        assert!(low > 1.3 && high < 1.7, "{low} to {high}");
        assert_eq!(ratio(&before[..9], &after, 1), None);
        assert_eq!(ratio(&[0.0; 20], &[1.0; 20], 1), None, "there is no ratio to nothing");
        let (low, high) = ratio(&[5.0; 20], &[10.0; 20], 1).unwrap();
        assert!((low - 2.0).abs() < 1e-9 && (high - 2.0).abs() < 1e-9, "no variance, no width");
    }
}
