//! Where a series moved: E-divisive with means of energy distances and a permutation test (Matteson and James 2014, *Journal of the
//! American Statistical Association* 109, 334–345), seeded. What each setting is for stands in `docs/methods.md`.

use rand::SeedableRng as _;
use rand::seq::SliceRandom as _;
use rand_xoshiro::Xoshiro256PlusPlus;

/// Runs that are looked at, the newest.
pub(crate) const MOST: usize = 100;
/// Fewest runs on either side of a change.
const LEAST: usize = 3;
/// Most changes in a series.
const MOST_CHANGES: usize = 10;
/// A change is called one when chance alone does as well in at most this share of permutations.
const ALPHA: f64 = 0.01;
const PERMUTATIONS: usize = 299;

/// One change: the first value of the new level.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Change {
    pub(crate) at: usize,
    /// The median from the change before to this one.
    pub(crate) before: f64,
    /// The median from here to the next change.
    pub(crate) after: f64,
}

/// The changes of `values`, in order.
pub(crate) fn changes(values: &[f64], seed: u64) -> Vec<Change> {
    let skipped = values.len().saturating_sub(MOST);
    let values = &values[skipped..];
    let mut random = Xoshiro256PlusPlus::seed_from_u64(seed);
    let mut bounds = vec![0, values.len()];
    while bounds.len() < MOST_CHANGES + 2 {
        let Some((strength, at)) = strongest(values, &bounds) else { break };
        if by_chance(values, &bounds, strength, &mut random) > ALPHA {
            break;
        }
        bounds.push(at);
        bounds.sort_unstable();
    }
    let median = |from: usize, to: usize| median(&values[from..to]).unwrap_or_default();
    bounds.windows(3).map(|b| Change { at: skipped + b[1], before: median(b[0], b[1]), after: median(b[1], b[2]) }).collect()
}

/// The strongest split of any of the segments between `bounds`, and where.
fn strongest(values: &[f64], bounds: &[usize]) -> Option<(f64, usize)> {
    let splits = bounds.windows(2).filter_map(|b| split(&values[b[0]..b[1]]).map(|(strength, at)| (strength, b[0] + at)));
    splits.max_by(|a, b| a.0.total_cmp(&b.0))
}

/// The share of permutations within segments whose strongest split is as strong.
fn by_chance(values: &[f64], bounds: &[usize], strength: f64, random: &mut Xoshiro256PlusPlus) -> f64 {
    let mut shuffled = values.to_vec();
    let as_strong = (0..PERMUTATIONS).filter(|_| {
        bounds.windows(2).for_each(|b| shuffled[b[0]..b[1]].shuffle(random));
        strongest(&shuffled, bounds).is_some_and(|(found, _)| found >= strength * (1.0 - 1e-12))
    });
    (as_strong.count() + 1) as f64 / (PERMUTATIONS + 1) as f64
}

/// The split of one segment with the greatest divergence between the values before it and those after it, up to any later place:
/// a level that is left again must not hide where it was entered.
fn split(values: &[f64]) -> Option<(f64, usize)> {
    let count = values.len();
    if count < 2 * LEAST {
        return None;
    }
    let sums = distances(values);
    let sum = |i: usize, j: usize| sums[i * (count + 1) + j];
    let mut best: Option<(f64, usize)> = None;
    for at in LEAST..=count - LEAST {
        for end in at + LEAST..=count {
            let (m, n) = (at as f64, (end - at) as f64);
            let between = 2.0 * (sum(at, end) - sum(at, at)) / (m * n);
            let within_first = sum(at, at) / (m * (m - 1.0));
            let within_second = (sum(end, end) - 2.0 * sum(at, end) + sum(at, at)) / (n * (n - 1.0));
            let strength = m * n / (m + n) * (between - within_first - within_second);
            if best.is_none_or(|(found, _)| strength > found) {
                best = Some((strength, at));
            }
        }
    }
    best
}

/// Sums of the distances of all values before i to all before j, for every i and j.
fn distances(values: &[f64]) -> Vec<f64> {
    let width = values.len() + 1;
    let mut sums = vec![0.0; width * width];
    for (i, a) in values.iter().enumerate() {
        let mut row = 0.0;
        for (j, b) in values.iter().enumerate() {
            row += (a - b).abs();
            sums[(i + 1) * width + j + 1] = sums[i * width + j + 1] + row;
        }
    }
    sums
}

/// The median; `None` of nothing.
pub(crate) fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let half = sorted.len() / 2;
    match sorted.len() {
        0 => None,
        odd if odd % 2 == 1 => Some(sorted[half]),
        _ => Some((sorted[half - 1] + sorted[half]) / 2.0),
    }
}

#[cfg(test)]
mod tests {
    use rand::RngExt as _;

    use super::*;

    /// Around `level`, give or take about five percent.
    fn noise(random: &mut Xoshiro256PlusPlus, level: f64, count: usize) -> Vec<f64> {
        let mut normal = || (0..12).map(|_| random.random::<f64>()).sum::<f64>() - 6.0;
        (0..count).map(|_| level * (1.0 + 0.05 * normal())).collect()
    }

    #[test]
    fn a_planted_change_is_found_where_it_is() {
        let mut random = Xoshiro256PlusPlus::seed_from_u64(1);
        let mut near = 0;
        for round in 0..20 {
            let series = [noise(&mut random, 100.0, 15), noise(&mut random, 80.0, 10)].concat();
            let found = changes(&series, round);
            near += usize::from(found.len() == 1 && found[0].at.abs_diff(15) <= 1);
        }
        assert!(near >= 18, "{near} of 20");
        let series = [noise(&mut random, 100.0, 12), noise(&mut random, 150.0, 12), noise(&mut random, 100.0, 12)].concat();
        let found = changes(&series, 1);
        assert_eq!(found.iter().map(|change| change.at).collect::<Vec<_>>(), [12, 24], "{found:?}");
        assert!((found[0].after / found[0].before - 1.5).abs() < 0.1 && found[1].before == found[0].after, "{found:?}");
    }

    #[test]
    fn a_flat_series_has_none_more_often_than_chance_allows() {
        let mut random = Xoshiro256PlusPlus::seed_from_u64(2);
        let wrong = (0..100).filter(|round| !changes(&noise(&mut random, 100.0, 30), *round).is_empty()).count();
        assert!(wrong <= 4, "{wrong} of 100");
        assert!(changes(&[5.0; 40], 1).is_empty(), "no variance, no change");
        assert!(changes(&[1.0, 1.0, 1.0, 9.0, 9.0], 1).is_empty(), "too few");
        assert!(changes(&[], 1).is_empty());
    }

    #[test]
    fn the_same_seed_finds_the_same_and_places_count_from_the_whole_series() {
        let mut random = Xoshiro256PlusPlus::seed_from_u64(3);
        let series = [noise(&mut random, 100.0, 120), noise(&mut random, 130.0, 20)].concat();
        let found = changes(&series, 7);
        assert_eq!(found, changes(&series, 7));
        assert_eq!(found.len(), 1);
        assert!(found[0].at.abs_diff(120) <= 1, "{found:?}");
    }
}
