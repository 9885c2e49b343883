//! When a failed attempt is tried again, and after how long.

use std::time::Duration;

use rand::{Rng as _, SeedableRng as _};
use rand_xoshiro::Xoshiro256PlusPlus;

use crate::scenario::Retry;
use crate::target::{Applied, Failure};

/// Whether attempt number `attempt` (from 1), which ended in `failure`, is followed by another.
///
/// `maybe_applied`: whether this or an earlier attempt's outcome is unknown. Such a batch is sent again only where the table's
/// unique key keeps it from being stored twice, or where the scenario accepts that.
#[must_use]
pub fn again(policy: &Retry, attempt: u32, failure: &Failure, maybe_applied: bool, unique_key: bool) -> bool {
    failure.class.is_transient() && attempt < policy.attempts && (!maybe_applied || unique_key || policy.allow_duplicates)
}

/// The wait after attempt `attempt` (from 1): exponential, capped, with jitter drawn from (seed, batch, attempt).
#[must_use]
pub fn backoff(policy: &Retry, seed: u64, batch: u64, attempt: u32) -> Duration {
    let exponent = i32::try_from(attempt.saturating_sub(1)).unwrap_or(i32::MAX);
    let wait = (policy.base.0.as_secs_f64() * policy.factor.powi(exponent)).min(policy.max.0.as_secs_f64());
    let mut rng = Xoshiro256PlusPlus::seed_from_u64(seed ^ batch.rotate_left(20) ^ u64::from(attempt));
    let unit = (rng.next_u64() >> 11) as f64 / (1u64 << 53) as f64;
    Duration::from_secs_f64((wait * (1.0 + policy.jitter.0 * (2.0 * unit - 1.0))).max(0.0))
}

/// Whether the failure leaves open if the rows are stored.
#[must_use]
pub fn is_unknown(failure: &Failure) -> bool {
    failure.applied == Applied::Unknown
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::units::{Share, Time};
    use crate::target::ErrorClass;

    fn failure(class: ErrorClass, applied: Applied) -> Failure {
        Failure { class, applied, message: String::new() }
    }

    #[test]
    fn waits_double_up_to_the_cap() {
        let policy = Retry { jitter: Share(0.0), base: Time::millis(20), max: Time::millis(100), ..Retry::default() };
        let waits: Vec<u128> = (1..=5).map(|attempt| backoff(&policy, 1, 1, attempt).as_millis()).collect();
        assert_eq!(waits, [20, 40, 80, 100, 100]);
    }

    #[test]
    fn jitter_stays_within_its_share_and_differs_by_batch() {
        let policy = Retry::default();
        let waits: Vec<Duration> = (0..100).map(|batch| backoff(&policy, 7, batch, 1)).collect();
        assert!(waits.iter().all(|w| (16..=24).contains(&w.as_millis())), "{waits:?}");
        assert!(waits.windows(2).any(|w| w[0] != w[1]));
        assert_eq!(backoff(&policy, 7, 3, 1), backoff(&policy, 7, 3, 1));
    }

    #[test]
    fn only_transient_failures_that_cannot_duplicate_are_tried_again() {
        let policy = Retry::default();
        let deadlock = failure(ErrorClass::Deadlock, Applied::No);
        assert!(again(&policy, 1, &deadlock, false, true));
        assert!(!again(&policy, 5, &deadlock, false, true), "attempts are bounded");
        assert!(!again(&policy, 1, &failure(ErrorClass::Constraint, Applied::No), false, true));
        let cut = failure(ErrorClass::Connection, Applied::Unknown);
        assert!(again(&policy, 1, &cut, true, true));
        assert!(!again(&policy, 1, &cut, true, false), "without a unique key it could be stored twice");
        assert!(again(&Retry { allow_duplicates: true, ..policy }, 1, &cut, true, false));
    }

    #[test]
    fn jitter_uses_every_bit_of_seed_batch_and_attempt() {
        let policy = Retry { factor: 1.0, ..Retry::default() };
        let distinct = |waits: Vec<Duration>| waits.iter().collect::<std::collections::HashSet<_>>().len();
        assert_eq!(distinct((1..50).map(|attempt| backoff(&policy, u64::MAX, 3, attempt)).collect()), 49);
        assert_eq!(distinct((0..50).map(|batch| backoff(&policy, u64::MAX, batch, 1)).collect()), 50);
        assert_eq!(distinct((0..50).map(|seed| backoff(&policy, seed, u64::MAX, 1)).collect()), 50);
        let waits: Vec<f64> = (0..10_000).map(|batch| backoff(&policy, 7, batch, 1).as_secs_f64() * 1e3).collect();
        assert!(waits.iter().all(|wait| (16.0..=24.0).contains(wait)));
        assert!(waits.iter().any(|wait| *wait < 16.1) && waits.iter().any(|wait| *wait > 23.9), "the whole share is used");
    }
}
