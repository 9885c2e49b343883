//! What happens to one request, drawn from (seed, id, how often the id was seen): the same requests always fare the same, whatever
//! their order, and a retry fares anew.

use std::time::Duration;

use rand::{Rng as _, SeedableRng as _};
use rand_xoshiro::Xoshiro256PlusPlus;

use super::config::{Config, Latency};
use crate::workload::reply;

/// The 99th percentile of the standard normal distribution.
const Z99: f64 = 2.326_347_874_040_841;

/// What happens to one request.
pub(super) struct Plan {
    /// Wait before the first byte.
    pub(super) latency: Duration,
    /// Answer with status 500.
    pub(super) error: bool,
    /// How long the reply stops, and before which token, from 0.
    pub(super) stall: Option<(u32, Duration)>,
    /// After how many tokens the connection is cut, at least one.
    pub(super) cut: Option<u32>,
    draw: Draw,
    interval: f64,
    jitter: f64,
}

impl Plan {
    /// The plan for the `seen`-th request of `id`, whose reply has `tokens`.
    pub(super) fn new(config: &Config, id: &str, seen: u32, tokens: u32) -> Self {
        let mut draw = Draw::new(config.seed, id, seen);
        // Everything is drawn always, so that changing one setting does not change what the others do.
        let (error, stall, cut) = (draw.unit() < config.errors.0, draw.unit(), draw.unit() < config.cuts.0);
        let (stall_at, cut_after) = (draw.below(tokens), 1 + draw.below(tokens));
        let normal = draw.normal();
        Self {
            latency: config.latency.map_or(Duration::ZERO, |latency| log_normal(latency, normal)),
            error,
            stall: config.stalls.filter(|s| stall < s.share.0).map(|s| (stall_at, s.length.0)),
            cut: cut.then_some(cut_after),
            draw,
            interval: config.token_interval.0.as_secs_f64(),
            jitter: config.token_jitter.0,
        }
    }

    /// The time from one token to the next.
    pub(super) fn next_interval(&mut self) -> Duration {
        let stray = if self.jitter > 0.0 { self.jitter * (2.0 * self.draw.unit() - 1.0) } else { 0.0 };
        seconds(self.interval * (1.0 + stray))
    }
}

fn log_normal(latency: Latency, normal: f64) -> Duration {
    let median = latency.median.0.as_secs_f64();
    let Some(p99) = latency.p99.map(|p99| p99.0.as_secs_f64()) else { return latency.median.0 };
    seconds((median * (normal * (p99 / median).ln() / Z99).exp()).min(10.0 * p99))
}

/// No time at all for what is no time.
fn seconds(seconds: f64) -> Duration {
    Duration::try_from_secs_f64(seconds).unwrap_or_default()
}

struct Draw(Xoshiro256PlusPlus);

impl Draw {
    fn new(seed: u64, id: &str, seen: u32) -> Self {
        let mixed = (seed ^ reply::fnv1a(id.as_bytes())).wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(u64::from(seen));
        Self(Xoshiro256PlusPlus::seed_from_u64(mixed))
    }

    /// From 0 up to 1, 1 excluded.
    fn unit(&mut self) -> f64 {
        (self.0.next_u64() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Below `bound`, or 0.
    fn below(&mut self, bound: u32) -> u32 {
        (self.unit() * f64::from(bound)) as u32
    }

    /// From the standard normal distribution (Box and Muller, 1958).
    fn normal(&mut self) -> f64 {
        let radius = (-2.0 * (1.0 - self.unit()).ln()).sqrt();
        radius * (std::f64::consts::TAU * self.unit()).cos()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::upstream::config::Stalls;
    use crate::scenario::units::{Share, Time};

    const TOKENS: u32 = 32;

    fn plans(config: &Config) -> Vec<Plan> {
        (0..2000).map(|index| Plan::new(config, &reply::request_id(7, index), 1, TOKENS)).collect()
    }

    #[test]
    fn shares_are_near_what_was_asked_and_the_same_each_time() {
        let stalls = Some(Stalls { share: Share(0.2), length: Time::secs(3) });
        let config = Config { seed: 5, errors: Share(0.1), stalls, cuts: Share(0.3), ..Config::default() };
        let fate = |plan: &Plan| (plan.error, plan.stall, plan.cut);
        let all = plans(&config);
        let count = |is: fn(&Plan) -> bool| all.iter().filter(|plan| is(plan)).count();
        // Five standard deviations.
        assert!(count(|p| p.error).abs_diff(200) < 68, "{}", count(|p| p.error));
        assert!(count(|p| p.stall.is_some()).abs_diff(400) < 90, "{}", count(|p| p.stall.is_some()));
        assert!(count(|p| p.cut.is_some()).abs_diff(600) < 103, "{}", count(|p| p.cut.is_some()));
        assert!(all.iter().filter_map(|p| p.stall).all(|(at, length)| at < TOKENS && length == Duration::from_secs(3)));
        assert!(all.iter().filter_map(|p| p.cut).all(|after| (1..=TOKENS).contains(&after)));
        assert!(all.iter().map(fate).eq(plans(&config).iter().map(fate)));
        assert!(!all.iter().map(fate).eq(plans(&Config { seed: 6, ..config.clone() }).iter().map(fate)), "the seed decides");
        let without_stalls = plans(&Config { stalls: None, ..config.clone() });
        assert!(all.iter().map(|p| (p.error, p.cut)).eq(without_stalls.iter().map(|p| (p.error, p.cut))), "settings are independent");
        let again = (0..2000).filter(|&i| Plan::new(&config, &reply::request_id(7, i), 2, TOKENS).error && all[i as usize].error).count();
        assert!(again < 60, "a retry fares anew, {again} failed twice");
    }

    #[test]
    fn latencies_have_the_median_and_the_p99_asked_for() {
        let latency = Some(Latency { median: Time::millis(20), p99: Some(Time::millis(200)) });
        let mut all: Vec<Duration> = plans(&Config { latency, ..Config::default() }).iter().map(|p| p.latency).collect();
        all.sort();
        assert!((18..23).contains(&all[1000].as_millis()), "{:?}", all[1000]);
        assert!((150..270).contains(&all[1980].as_millis()), "{:?}", all[1980]);
        assert!(all[1999] <= Duration::from_secs(2));
        let steady = Some(Latency { median: Time::millis(20), p99: None });
        assert!(plans(&Config { latency: steady, ..Config::default() }).iter().all(|p| p.latency == Duration::from_millis(20)));
        assert!(plans(&Config::default()).iter().all(|p| p.latency.is_zero() && !p.error && p.stall.is_none() && p.cut.is_none()));
    }

    #[test]
    fn intervals_stray_as_far_as_asked() {
        let config = Config { token_interval: Time::millis(10), token_jitter: Share(0.5), ..Config::default() };
        let mut plan = Plan::new(&config, "bq-00000000-1", 1, TOKENS);
        let all: Vec<f64> = (0..1000).map(|_| plan.next_interval().as_secs_f64() * 1e3).collect();
        assert!(all.iter().all(|ms| (5.0..15.0).contains(ms)));
        assert!(all.iter().any(|ms| *ms < 6.0) && all.iter().any(|ms| *ms > 14.0));
        assert!((all.iter().sum::<f64>() / 1000.0 - 10.0).abs() < 0.5);
    }
}
