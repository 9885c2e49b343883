//! Whether a series grows: Theil–Sen's slope and the exact one-sided Mann–Kendall test, for what piles up within a step.

/// Points that are looked at; a longer series is averaged down to so many.
const MOST: usize = 60;

/// What a series does over time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Trend {
    /// Theil–Sen: the median of the slopes between all pairs of points, a second.
    pub(super) slope: f64,
    /// The median of the values.
    pub(super) median: f64,
    /// How probable so much growth, or more, is in a series that does not grow (Mann–Kendall). Ties make it larger than it is.
    pub(super) p_value: f64,
}

/// The trend of a value a second; `None` for less than three.
pub(super) fn trend(values: &[f64]) -> Option<Trend> {
    let width = values.len().div_ceil(MOST).max(1);
    let points: Vec<f64> = values.chunks_exact(width).map(|part| part.iter().sum::<f64>() / width as f64).collect();
    if points.len() < 3 {
        return None;
    }
    let mut slopes = Vec::new();
    let mut score = 0_i64;
    for (later, value) in points.iter().enumerate() {
        for (earlier, before) in points[..later].iter().enumerate() {
            slopes.push((value - before) / ((later - earlier) * width) as f64);
            score += i64::from(value > before) - i64::from(value < before);
        }
    }
    Some(Trend { slope: median(&mut slopes), median: median(&mut points.clone()), p_value: p_value(points.len(), score) })
}

/// The middle value; the mean of the two middle ones.
///
/// # Panics
/// When there is none.
pub(crate) fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    if values.len().is_multiple_of(2) { f64::midpoint(values[middle - 1], values[middle]) } else { values[middle] }
}

/// Share of the orders of `points` different values whose Kendall score is at least `score`: a score of S leaves (most − S) / 2 pairs
/// out of order, and how many orders have so many is counted by adding one value after the other (Mahonian numbers).
fn p_value(points: usize, score: i64) -> f64 {
    let pairs = points * (points - 1) / 2;
    let mut shares = vec![1.0];
    for value in 2..=points {
        let mut next = vec![0.0; shares.len() + value - 1];
        for (inversions, share) in shares.iter().enumerate() {
            for more in 0..value {
                next[inversions + more] += share / value as f64;
            }
        }
        shares = next;
    }
    let most = (pairs as i64 - score) / 2;
    shares.iter().take((most + 1).max(0) as usize).sum::<f64>().min(1.0)
}

#[cfg(test)]
mod tests {
    use rand::{RngExt as _, SeedableRng as _};
    use rand_xoshiro::Xoshiro256PlusPlus;

    use super::*;

    #[test]
    fn the_test_has_its_published_values() {
        // Hollander and Wolfe, table A.30: P(K >= k) of Kendall's statistic.
        for (points, score, expected) in [(4, 6, 0.042), (5, 10, 0.008), (5, 8, 0.042), (8, 16, 0.031), (10, 23, 0.023), (10, 45, 2.8e-7)] {
            let found = p_value(points, score);
            assert!((found - expected).abs() <= 0.001_f64.min(expected / 2.0), "{points} {score}: {found}");
        }
        assert!((p_value(7, -21) - 1.0).abs() < 1e-12);
    }

    #[test]
    fn a_line_has_its_slope_and_an_outlier_does_not_turn_it() {
        let mut values: Vec<f64> = (0..10).map(|second| 5.0 + 3.0 * f64::from(second)).collect();
        let straight = trend(&values).unwrap();
        assert!((straight.slope - 3.0).abs() < 1e-12 && straight.p_value < 1e-6, "{straight:?}");
        values[4] = 1000.0;
        let bent = trend(&values).unwrap();
        assert!((bent.slope - 3.0).abs() < 0.7 && bent.p_value < 0.01, "{bent:?}");
        assert_eq!(trend(&[1.0, 2.0]), None);
        let flat = trend(&[7.0; 10]).unwrap();
        assert_eq!((flat.slope, flat.median), (0.0, 7.0));
        assert!(flat.p_value > 0.4, "{flat:?}");
        let long: Vec<f64> = (0..600).map(f64::from).collect();
        assert!((trend(&long).unwrap().slope - 1.0).abs() < 1e-9);
    }

    #[test]
    fn noise_is_called_growth_as_seldom_as_promised() {
        let mut random = Xoshiro256PlusPlus::seed_from_u64(42);
        let alarms = (0..10_000)
            .filter(|_| {
                let values: Vec<f64> = (0..10).map(|_| random.random::<f64>()).collect();
                trend(&values).unwrap().p_value <= 0.01
            })
            .count();
        assert!((30..=110).contains(&alarms), "{alarms} of 10,000");
    }
}
