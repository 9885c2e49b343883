//! Statistics of two independent samples, exact for as many values as a comparison has: the Mann–Whitney test, the Hodges–Lehmann
//! shift with the interval that belongs to it, what could have been found, and corrections for several questions at once. Sources:
//! `docs/methods.md`.

use statrs::distribution::{ContinuousCDF as _, StudentsT};

/// Most values a sample may have, so that the exact distributions stay cheap.
pub(crate) const MOST: usize = 50;

/// Wanted chance to find a difference, for [`detectable`].
const POWER: f64 = 0.9;
/// Efficiency of the test of ranks beside the t-test under normal noise.
const EFFICIENCY: f64 = 3.0 / std::f64::consts::PI;

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

/// In how many ways `choose` of `ranks` add up to each sum.
fn sums(ranks: &[usize], choose: usize) -> Vec<f64> {
    let most: usize = ranks.iter().sum();
    let mut ways = vec![vec![0.0; most + 1]; choose + 1];
    ways[0][0] = 1.0;
    let mut reached = 0;
    for (number, rank) in ranks.iter().enumerate() {
        reached += rank;
        for taken in (1..=choose.min(number + 1)).rev() {
            let (fewer, more) = ways.split_at_mut(taken);
            for (more, fewer) in more[0][*rank..=reached].iter_mut().zip(&fewer[taken - 1]) {
                *more += fewer;
            }
        }
    }
    ways.swap_remove(choose)
}

/// The ranks of all values together, doubled so that those of ties are whole.
fn doubled_ranks(values: &[f64]) -> Vec<usize> {
    let below = |value: f64| values.iter().filter(|other| **other < value).count();
    let equal = |value: f64| values.iter().filter(|other| **other == value).count();
    values.iter().map(|value| 2 * below(*value) + equal(*value) + 1).collect()
}

/// The two-sided p-value of the Mann–Whitney test, exact, ties included; `None` without values on both sides.
pub(crate) fn mann_whitney(before: &[f64], after: &[f64]) -> Option<f64> {
    if before.is_empty() || after.is_empty() || before.len() > MOST || after.len() > MOST {
        return None;
    }
    let ranks = doubled_ranks(&[before, after].concat());
    let found: usize = ranks[..before.len()].iter().sum();
    let expected = ranks.iter().sum::<usize>() as f64 * before.len() as f64 / ranks.len() as f64;
    let ways = sums(&ranks, before.len());
    let as_far = |sum: usize| (sum as f64 - expected).abs() >= (found as f64 - expected).abs() - 1e-9;
    let far: f64 = ways.iter().enumerate().filter(|(sum, _)| as_far(*sum)).map(|(_, ways)| ways).sum();
    Some((far / ways.iter().sum::<f64>()).min(1.0))
}

/// How many of the smallest values of the statistic (from 0) are refused at a two-sided error of at most `alpha`, and the error that this
/// really is. `None` where so few values can show nothing.
fn critical(before: usize, after: usize, alpha: f64) -> Option<(usize, f64)> {
    let ranks: Vec<usize> = (1..=before + after).collect();
    let ways = sums(&ranks, before);
    let all: f64 = ways.iter().sum();
    let least = before * (before + 1) / 2;
    let (mut below, mut count, mut error) = (0.0, 0, 0.0);
    for ways in &ways[least..] {
        below += ways / all;
        if 2.0 * below > alpha {
            break;
        }
        count += 1;
        error = 2.0 * below;
    }
    (count > 0).then_some((count, error))
}

/// A difference with its interval, which is missing where there are too few values for one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Shift {
    pub(crate) estimate: f64,
    pub(crate) interval: Option<(f64, f64)>,
}

/// How far `after` lies above `before`: the median of all differences (Hodges–Lehmann), and the interval of all shifts that the
/// Mann–Whitney test would not refuse at `alpha`.
pub(crate) fn shift(before: &[f64], after: &[f64], alpha: f64) -> Option<Shift> {
    if before.len() > MOST || after.len() > MOST {
        return None;
    }
    let mut differences: Vec<f64> = after.iter().flat_map(|after| before.iter().map(move |before| after - before)).collect();
    differences.sort_by(f64::total_cmp);
    let estimate = median(&differences)?;
    let interval = critical(before.len(), after.len(), alpha);
    // With as many differences at or below it, a shift is no longer refused.
    let interval = interval.map(|(refused, _)| (differences[refused - 1], differences[differences.len() - refused]));
    Some(Shift { estimate, interval })
}

/// The smallest shift that these many values with this much noise show at the error `alpha` nine times in ten. `None` where no shift,
/// however large, can be shown.
pub(crate) fn detectable(before: &[f64], after: &[f64], alpha: f64) -> Option<f64> {
    let (_, error) = critical(before.len().min(MOST), after.len().min(MOST), alpha)?;
    let freedom = (before.len() + after.len()).checked_sub(2).filter(|freedom| *freedom > 0)? as f64;
    let noise = ((squares(before) + squares(after)) / freedom).sqrt();
    let t = StudentsT::new(0.0, 1.0, freedom).ok()?;
    let values = 1.0 / before.len() as f64 + 1.0 / after.len() as f64;
    Some((t.inverse_cdf(1.0 - error / 2.0) + t.inverse_cdf(POWER)) * noise * (values / EFFICIENCY).sqrt())
}

/// The fewest values a side with which a difference can be shown at `alpha` at all.
pub(crate) fn fewest(alpha: f64) -> usize {
    (1..=MOST).find(|values| critical(*values, *values, alpha).is_some()).unwrap_or(MOST)
}

fn squares(values: &[f64]) -> f64 {
    let mean = values.iter().sum::<f64>() / values.len().max(1) as f64;
    values.iter().map(|value| (value - mean).powi(2)).sum()
}

/// Holm's correction: each p-value such that deciding all of them at `alpha` errs anywhere with at most that probability.
pub(crate) fn holm(p: &[f64]) -> Vec<f64> {
    let mut least: f64 = 0.0;
    let mut corrected = vec![0.0; p.len()];
    for (place, index) in ascending(p).into_iter().enumerate() {
        least = least.max(p[index] * (p.len() - place) as f64).min(1.0);
        corrected[index] = least;
    }
    corrected
}

/// Benjamini and Hochberg's correction: of what is called different at `alpha`, at most that share is not, on average; and where
/// nothing differs, anything is called different with at most that probability.
pub(crate) fn benjamini_hochberg(p: &[f64]) -> Vec<f64> {
    let mut most: f64 = 1.0;
    let mut corrected = vec![0.0; p.len()];
    for (place, index) in ascending(p).into_iter().enumerate().rev() {
        most = most.min(p[index] * p.len() as f64 / (place + 1) as f64);
        corrected[index] = most;
    }
    corrected
}

fn ascending(p: &[f64]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..p.len()).collect();
    order.sort_by(|a, b| p[*a].total_cmp(&p[*b]));
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(found: f64, wanted: f64) -> bool {
        (found - wanted).abs() < 1e-9
    }

    #[test]
    fn p_values_are_those_of_the_tables() {
        let five: Vec<f64> = (1..=5).map(f64::from).collect();
        let beyond: Vec<f64> = (6..=10).map(f64::from).collect();
        assert!(close(mann_whitney(&five, &beyond).unwrap(), 2.0 / 252.0), "complete separation of 5 and 5");
        assert!(close(mann_whitney(&beyond, &five).unwrap(), 2.0 / 252.0), "either way");
        assert!(close(mann_whitney(&five, &five).unwrap(), 1.0), "ties throughout");
        assert!(close(mann_whitney(&[7.0; 6], &[7.0; 6]).unwrap(), 1.0), "no variance at all");
        assert!(close(mann_whitney(&[7.0; 5], &[8.0; 5]).unwrap(), 2.0 / 252.0), "two constants that differ");
        // By hand: ranks 1, 2.5, 2.5, 4; of the six ways to choose two, {1, 2.5} twice and {2.5, 4} twice lie as far out.
        assert!(close(mann_whitney(&[1.0, 2.0], &[2.0, 3.0]).unwrap(), 4.0 / 6.0));
        assert_eq!(mann_whitney(&[], &[1.0]), None);
        assert!(close(mann_whitney(&[1.0], &[2.0]).unwrap(), 1.0), "one pair shows nothing");
    }

    /// Every way to deal the values out, counted one by one: slow, and with nothing in common with the arithmetic above.
    fn dealt(before: &[f64], after: &[f64]) -> f64 {
        let all = [before, after].concat();
        let wins = |first: u32| {
            let of = |side: bool| (0..all.len()).filter(move |place| (first >> place & 1 == 1) == side);
            let score = |a: f64, b: f64| if a < b { 2.0 } else { f64::from(u8::from(a == b)) };
            of(true).flat_map(|b| of(false).map(move |a| (b, a))).map(|(b, a)| score(all[b], all[a])).sum::<f64>()
        };
        let middle = (before.len() * after.len()) as f64;
        let found = (wins((1 << before.len()) - 1) - middle).abs();
        let deals: Vec<u32> = (0..1u32 << all.len()).filter(|deal| deal.count_ones() as usize == before.len()).collect();
        deals.iter().filter(|deal| (wins(**deal) - middle).abs() >= found).count() as f64 / deals.len() as f64
    }

    #[test]
    fn p_values_are_those_of_counting_every_deal() {
        let before = [0.11, 0.52, 0.93, 0.24, 0.75, 0.36];
        for after in [vec![0.41, 0.62, 1.13, 1.04, 0.95, 0.16, 1.27], vec![0.11, 0.52, 0.52, 0.75, 2.0], vec![0.93; 4]] {
            assert!(close(mann_whitney(&before, &after).unwrap(), dealt(&before, &after)), "{after:?}");
        }
    }

    #[test]
    fn the_interval_is_what_the_test_does_not_refuse() {
        assert_eq!(critical(5, 5, 0.05).map(|(count, error)| (count, close(error, 8.0 / 252.0))), Some((3, true)));
        // Of the published tables for 10 and 10: U ≤ 23 is significant at 5 %.
        assert_eq!(critical(10, 10, 0.05).unwrap().0, 24);
        assert_eq!(critical(3, 3, 0.05), None, "three and three cannot reach 5 %");
        assert_eq!((fewest(0.05), fewest(0.05 / 7.0), fewest(0.05 / 3.0)), (4, 6, 5));
        let before: Vec<f64> = (0..10).map(f64::from).collect();
        for moved in [0.5, 3.5, 4.5, 7.5, 30.5] {
            let after: Vec<f64> = before.iter().map(|value| value + moved).collect();
            let shift = shift(&before, &after, 0.05).unwrap();
            let (low, high) = shift.interval.unwrap();
            assert!(close(shift.estimate, moved) && low <= moved && moved <= high, "{shift:?}");
            assert_eq!(low > 0.0, mann_whitney(&before, &after).unwrap() <= 0.05, "{moved}: {low}");
        }
        // A hundred samples of no pattern: the interval leaves nought out exactly where the test refuses it.
        for seed in 0..100_u64 {
            let value = |place: u64| ((seed * 97 + place * 31) * 7919 % 10_007) as f64;
            let before: Vec<f64> = (0..7).map(value).collect();
            let after: Vec<f64> = (7..15).map(|place| value(place) + seed as f64 * 60.0).collect();
            let (low, high) = shift(&before, &after, 0.05).unwrap().interval.unwrap();
            assert_eq!(low > 0.0 || high < 0.0, mann_whitney(&before, &after).unwrap() <= 0.05, "{before:?} {after:?}");
        }
        let four = shift(&[1.0, 2.0, 3.0, 4.0], &[11.0, 12.0, 13.0, 14.0], 0.05).unwrap();
        assert_eq!(four.interval, Some((7.0, 13.0)), "of four and four only the extremes are sure enough");
        assert_eq!(shift(&[1.0], &[2.0], 0.05), Some(Shift { estimate: 1.0, interval: None }));
        assert_eq!(shift(&[4.0; 6], &[4.0; 6], 0.05).unwrap().interval, Some((0.0, 0.0)), "no variance, no width");
        assert_eq!(shift(&[], &[2.0], 0.05), None);
    }

    #[test]
    fn what_could_be_found_shrinks_with_pairs_and_grows_with_noise() {
        let noisy = |values: usize, noise: f64| -> Vec<f64> { (0..values).map(|n| noise * (n as f64 % 2.0 * 2.0 - 1.0)).collect() };
        let found = |values, noise| detectable(&noisy(values, noise), &noisy(values, noise), 0.05).unwrap();
        assert!(found(20, 1.0) < found(10, 1.0) && close(found(10, 2.0), 2.0 * found(10, 1.0)));
        assert!(close(found(6, 0.0), 0.0));
        assert_eq!(detectable(&[1.0, 2.0, 3.0], &[1.0, 2.0, 3.0], 0.05), None);
        assert_eq!(detectable(&[1.0], &[2.0], 0.05), None);
    }

    #[test]
    fn corrections_are_those_of_the_textbook() {
        let p = [0.01, 0.04, 0.03, 0.005];
        let holm: Vec<f64> = holm(&p).iter().map(|p| (p * 1000.0).round() / 1000.0).collect();
        assert_eq!(holm, [0.03, 0.06, 0.06, 0.02]);
        let bh: Vec<f64> = benjamini_hochberg(&p).iter().map(|p| (p * 1000.0).round() / 1000.0).collect();
        assert_eq!(bh, [0.02, 0.04, 0.04, 0.02]);
        assert!(super::holm(&[]).is_empty());
        assert_eq!((median(&[]), median(&[3.0, 1.0, 2.0]), median(&[4.0, 1.0])), (None, Some(2.0), Some(2.5)));
    }
}
