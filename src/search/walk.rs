//! Which rate is tried next: by what the steps so far showed, and nothing else. Doubling finds a rate that does not hold, halving (of
//! the ratio) closes in, and each end of the interval is decided by a sequential test over repeated steps.

/// Where to look.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Bounds {
    /// The lowest rate.
    pub(super) from: f64,
    /// The highest rate.
    pub(super) to: f64,
    /// The interval is narrow enough once its ends differ by this share of the lower.
    pub(super) precision: f64,
}

/// What one step showed of its rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Vote {
    Held,
    Failed,
    /// Nothing could be said: the load was not offered, or there was no data.
    Undecided,
}

/// What is known after some steps.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Next {
    /// Another step is needed, at this rate.
    Step(f64),
    /// No further step would change anything.
    Done(Found),
}

/// Between which rates the limit lies.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Found {
    /// The highest rate shown to hold.
    pub(super) held: Option<f64>,
    /// The lowest rate shown to fail.
    pub(super) failed: Option<f64>,
    /// A rate between them of which the steps did not agree, or could not say anything.
    pub(super) unsettled: Option<f64>,
}

/// A rate is decided when the steps of one kind are so many ahead: Wald's sequential test of "holds in 82 % of steps" against "holds
/// in 18 %" with an error of 5 % either way, for (0.82 / 0.18)² = 20.8 ≥ 0.95 / 0.05 = 19.
const LEAD: i64 = 2;
/// Steps at one rate; without a decision by then, there is none to be had.
pub(super) const MOST_AT_ONE_RATE: usize = 7;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Settled {
    Held,
    Failed,
    Never,
}

/// Replays the walk along `steps` (rate and vote, in order) to where it stands.
pub(super) fn next(bounds: &Bounds, steps: &[(f64, Vote)]) -> Next {
    let votes = |rate: f64| steps.iter().filter(move |(tried, _)| *tried == rate).map(|(_, vote)| *vote);
    let mut found = Found::default();
    // Up, as long as the first step at each rate holds.
    let mut climbed = vec![bounds.from];
    loop {
        let rate = climbed[climbed.len() - 1];
        let first = votes(rate).next();
        let Some(first) = first else { return Next::Step(rate) };
        if first == Vote::Held && rate < bounds.to && votes(rate).all(|vote| vote == Vote::Held) {
            climbed.push((rate * 2.0).min(bounds.to));
            continue;
        }
        match settled(votes(rate)) {
            None => return Next::Step(rate),
            Some(Settled::Held) if rate < bounds.to => climbed.push((rate * 2.0).min(bounds.to)),
            Some(Settled::Held) => return Next::Done(Found { held: Some(rate), ..found }),
            Some(Settled::Failed) => {
                found.failed = climbed.pop();
                break;
            }
            Some(Settled::Never) => {
                found.unsettled = climbed.pop();
                // It may have held at first, and have been repeated only because a higher one failed.
                let above = steps.iter().map(|(tried, _)| *tried).filter(|tried| *tried > rate);
                found.failed = above.filter(|tried| settled(votes(*tried)) == Some(Settled::Failed)).min_by(f64::total_cmp);
                break;
            }
        }
    }
    // Down, to one that holds not only once.
    while let Some(rate) = climbed.pop() {
        match settled(votes(rate)) {
            None => return Next::Step(rate),
            Some(Settled::Held) => {
                found.held = Some(rate);
                break;
            }
            Some(Settled::Failed) => (found.failed, found.unsettled) = (Some(rate), None),
            Some(Settled::Never) => found.unsettled = Some(rate),
        }
    }
    while let Found { held: Some(low), failed: Some(high), unsettled: None } = found
        && high / low - 1.0 > bounds.precision
    {
        let rate = between(low, high);
        match settled(votes(rate)) {
            None => return Next::Step(rate),
            Some(Settled::Held) => found.held = Some(rate),
            Some(Settled::Failed) => found.failed = Some(rate),
            Some(Settled::Never) => found.unsettled = Some(rate),
        }
    }
    Next::Done(found)
}

/// What a walk that was not ended has shown.
pub(super) fn so_far(steps: &[(f64, Vote)]) -> Found {
    let shown = |wanted: Settled| {
        let all = |rate: f64| settled(steps.iter().filter(move |(tried, _)| *tried == rate).map(|(_, vote)| *vote));
        steps.iter().map(|(rate, _)| *rate).filter(move |rate| all(*rate) == Some(wanted))
    };
    Found { held: shown(Settled::Held).max_by(f64::total_cmp), failed: shown(Settled::Failed).min_by(f64::total_cmp), unsettled: None }
}

/// What the steps at one rate show together; `None` if one more may decide it.
fn settled(votes: impl Iterator<Item = Vote>) -> Option<Settled> {
    let (mut held, mut failed, mut undecided) = (0_i64, 0, 0);
    for vote in votes {
        *match vote {
            Vote::Held => &mut held,
            Vote::Failed => &mut failed,
            Vote::Undecided => &mut undecided,
        } += 1;
    }
    match held - failed {
        lead if lead >= LEAD => Some(Settled::Held),
        lead if lead <= -LEAD => Some(Settled::Failed),
        // What says nothing twice will say nothing a third time.
        _ if undecided >= LEAD || held + failed + undecided >= MOST_AT_ONE_RATE as i64 => Some(Settled::Never),
        _ => None,
    }
}

/// The geometric middle: each half is as wide, as a ratio. Four digits are enough for every precision that may be asked for.
fn between(low: f64, high: f64) -> f64 {
    let middle = (low * high).sqrt();
    let unit = 10_f64.powi(middle.log10().floor() as i32 - 3);
    let rounded = (middle / unit).round() * unit;
    // 141.40000000000001 reads badly.
    let rounded = format!("{rounded:.6}").parse().unwrap_or(middle);
    if rounded > low && rounded < high { rounded } else { middle }
}

/// How many steps there will be at most, and how many there usually are.
pub(super) fn steps(bounds: &Bounds) -> (usize, usize) {
    let climbing = (bounds.to / bounds.from).log2().ceil().max(0.0) as usize + 1;
    let halvings = (2_f64.ln() / bounds.precision.ln_1p()).log2().ceil().max(0.0) as usize;
    // Every rate of the climb may have to be repeated on the way down.
    (MOST_AT_ONE_RATE * (climbing + halvings), climbing.div_ceil(2) + 2 * (halvings + 1))
}

#[cfg(test)]
mod tests {
    use rand::{RngExt as _, SeedableRng as _};
    use rand_xoshiro::Xoshiro256PlusPlus;

    use super::*;

    const BOUNDS: Bounds = Bounds { from: 100.0, to: 100_000.0, precision: 0.05 };

    /// Walks to the end, asking `target` at each step.
    fn walk(bounds: &Bounds, mut target: impl FnMut(f64) -> Vote) -> (Found, usize) {
        let mut steps = Vec::new();
        loop {
            match next(bounds, &steps) {
                Next::Done(found) => return (found, steps.len()),
                Next::Step(rate) => steps.push((rate, target(rate))),
            }
            assert!(steps.len() <= super::steps(bounds).0, "{steps:?}");
        }
    }

    fn limit(limit: f64) -> impl FnMut(f64) -> Vote {
        move |rate| if rate <= limit { Vote::Held } else { Vote::Failed }
    }

    #[test]
    fn a_sharp_limit_is_enclosed_within_the_precision() {
        for capacity in [100.0, 143.0, 999.0, 1_600.0, 31_415.9, 99_999.0] {
            let (found, steps) = walk(&BOUNDS, limit(capacity));
            let (held, failed) = (found.held.unwrap(), found.failed.unwrap());
            assert!(held <= capacity && capacity < failed && failed / held <= 1.05, "{capacity}: {found:?}");
            assert!(steps <= 24, "{capacity}: {steps} steps");
        }
    }

    #[test]
    fn the_ends_of_the_range_are_said() {
        assert_eq!(walk(&BOUNDS, limit(1e9)).0, Found { held: Some(100_000.0), ..Found::default() });
        let (none, steps) = walk(&BOUNDS, limit(50.0));
        assert_eq!((none, steps), (Found { failed: Some(100.0), ..Found::default() }, 2));
        let (silent, steps) = walk(&BOUNDS, |_| Vote::Undecided);
        assert_eq!((silent, steps), (Found { unsettled: Some(100.0), ..Found::default() }, 2));
    }

    #[test]
    fn what_the_harness_cannot_offer_is_no_limit_of_the_target() {
        let (found, _) = walk(&BOUNDS, |rate| if rate < 5_000.0 { Vote::Held } else { Vote::Undecided });
        assert_eq!(found, Found { held: Some(3_200.0), failed: None, unsettled: Some(6_400.0) });
    }

    #[test]
    fn a_walk_that_is_cut_short_keeps_what_was_decided() {
        use Vote::{Failed, Held};
        let steps = [(100.0, Held), (200.0, Held), (400.0, Failed), (400.0, Failed), (200.0, Held), (282.8, Held)];
        assert_eq!(so_far(&steps), Found { held: Some(200.0), failed: Some(400.0), unsettled: None });
        assert_eq!(so_far(&[]), Found::default());
    }

    #[test]
    fn one_bad_step_far_below_the_limit_stops_nothing() {
        let mut hiccup = true;
        let (found, _) = walk(&BOUNDS, |rate| {
            if rate == 400.0 && std::mem::take(&mut hiccup) {
                return Vote::Failed;
            }
            limit(3_000.0)(rate)
        });
        assert!(found.held.unwrap() <= 3_000.0 && found.failed.unwrap() > 3_000.0, "{found:?}");
    }

    /// Steps that hold with a probability that falls over a tenth of the limit, as they do on a busy machine.
    #[test]
    fn a_noisy_limit_is_enclosed_nearly_always() {
        const RUNS: u64 = 1_000;
        let (mut right, mut settled, mut steps) = (0, 0, 0);
        for seed in 0..RUNS {
            let mut random = Xoshiro256PlusPlus::seed_from_u64(seed);
            let capacity = 500.0 * 2_f64.powf(random.random::<f64>() * 5.0);
            let (found, taken) = walk(&BOUNDS, |rate| {
                let probability = 1.0 / (1.0 + ((rate / capacity - 1.0) / 0.01).exp());
                if random.random::<f64>() < probability { Vote::Held } else { Vote::Failed }
            });
            steps += taken;
            let (Some(held), Some(failed)) = (found.held, found.failed) else { panic!("{found:?}") };
            settled += u64::from(found.unsettled.is_none());
            // Where a step holds in at least 82 % (below) and at most 18 % (above) of all cases.
            right += u64::from(held <= capacity * 1.0152 && failed >= capacity * 0.9848);
        }
        assert!(right >= RUNS * 95 / 100, "{right} of {RUNS} right");
        assert!(settled >= RUNS * 90 / 100, "{settled} of {RUNS} settled");
        assert!(steps <= RUNS as usize * 22, "{} steps on average", steps as f64 / RUNS as f64);
    }
}
