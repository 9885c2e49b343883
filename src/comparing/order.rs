//! In which order the sides run: in blocks of two pairs that mirror each other (ABBA or BAAB, by the seed), so that a drift of the
//! machine hits both sides alike.

use rand::{RngExt as _, SeedableRng as _};
use rand_xoshiro::Xoshiro256PlusPlus;

/// 0 for the first side, 1 for the second, two a pair.
pub(super) fn order(pairs: usize, seed: u64) -> Vec<usize> {
    let mut random = Xoshiro256PlusPlus::seed_from_u64(seed);
    let mut order = Vec::with_capacity(pairs * 2 + 2);
    while order.len() < pairs * 2 {
        let first = usize::from(random.random::<bool>());
        order.extend([first, 1 - first, 1 - first, first]);
    }
    order.truncate(pairs * 2);
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_pair_has_both_sides_and_two_pairs_mirror_each_other() {
        for seed in 0..20 {
            let order = order(10, seed);
            assert_eq!(order.len(), 20);
            assert!(order.chunks(2).all(|pair| pair[0] + pair[1] == 1), "{order:?}");
            assert!(order.chunks(4).all(|block| block[0] == block[3]), "{order:?}");
        }
        assert_eq!(order(3, 7), order(3, 7), "the seed decides");
        assert_eq!(order(3, 7)[..], order(10, 7)[..6], "more pairs go on from fewer");
        assert!((0..20).any(|seed| order(10, seed) != order(10, 0)));
        assert_eq!(order(1, 3).len(), 2);
    }
}
