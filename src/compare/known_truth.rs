//! The verdicts held against comparisons whose truth is known, over noise and pairs.

use super::simulate::{Noise, throughput};

/// The bound with three standard errors of so many rounds.
fn at_most(share: f64, rounds: u32) -> f64 {
    share + 3.0 * (share * (1.0 - share) / f64::from(rounds)).sqrt()
}

#[test]
fn identical_sides_are_called_worse_in_at_most_one_of_twenty() {
    let disturbed = Noise { runs: 0.03, drift: 0.0, disturbed: 0.1 };
    let drifting = Noise { runs: 0.03, drift: 0.3, disturbed: 0.0 };
    for noise in [Noise::plain(0.01), Noise::plain(0.05), Noise::plain(0.2), disturbed, drifting] {
        // The exact tests of many pairs take their time; the benches go to 30.
        for (pairs, rounds) in [(4, 400), (5, 400), (7, 300), (10, 300), (20, 40)] {
            let tally = throughput(pairs, noise, 1.0, rounds, 11);
            // Both ways together keep the 5 %.
            let wrong = tally.share(tally.worse + tally.better);
            assert!(wrong <= at_most(0.05, rounds), "{wrong} of identical sides at {noise:?} with {pairs} pairs");
            assert!(tally.share(tally.covered) >= 1.0 - at_most(0.05, rounds), "{tally:?} at {noise:?} with {pairs} pairs");
        }
    }
}

#[test]
fn a_slowdown_of_ten_percent_is_found() {
    let found = |pairs, noise| {
        let tally = throughput(pairs, Noise::plain(noise), 0.9, 200, 12);
        assert_eq!(tally.better, 0);
        (tally.share(tally.worse), tally.share(tally.covered))
    };
    let (worse, covered) = found(10, 0.05);
    assert!(worse >= 0.9, "found in {worse} at 5 % noise with 10 pairs");
    assert!(covered >= 1.0 - at_most(0.05, 200), "{covered}");
    assert!(found(10, 0.02).0 > 0.999, "little noise");
    assert!(found(5, 0.05).0 < worse && found(16, 0.05).0 >= worse, "more pairs find more");
    assert!(found(10, 0.15).0 < 0.5, "much noise hides it");
}

#[test]
fn noise_that_would_hide_the_difference_is_named() {
    let noisy = throughput(10, Noise::plain(0.2), 1.0, 100, 13);
    assert!(noisy.share(noisy.too_noisy) > 0.9, "{noisy:?}");
    let quiet = throughput(10, Noise::plain(0.02), 1.0, 100, 13);
    assert_eq!(quiet.too_noisy, 0);
}

#[test]
fn what_it_says_it_could_have_found_it_finds_nine_times_in_ten() {
    use super::stats::detectable;
    // At 5 % noise the smallest change shown nine times in ten with 10 pairs, by the formula; then really tried.
    let values: Vec<f64> = (0..10).map(|n| if n % 2 == 0 { 0.05 } else { -0.05 } * (0.9f64).sqrt()).collect();
    let least = detectable(&values, &values, 0.05).unwrap();
    let tally = throughput(10, Noise::plain(0.05), (-least).exp(), 500, 14);
    let found = tally.share(tally.worse);
    assert!((0.86..=0.94).contains(&found), "{found} of changes by {least}");
}
