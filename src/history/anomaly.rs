//! How unlike its own history a run is, 0 to 1: the robust z-score of each figure (Iglewicz and Hoaglin 1993), the greatest of them
//! made a score. Described in `docs/methods.md`.

use serde::Serialize;

use super::Entry;
use super::changes::median;
use crate::report::IntegrityVerdict;

/// Above this a run is shown.
pub(crate) const SHOWN: f64 = 0.8;
/// Runs before it that a run is held against, at least and at most.
const FEWEST: usize = 8;
const MOST: usize = 30;
/// The deviation at which the score is [`SHOWN`]: what Iglewicz and Hoaglin call an outlier.
const OUTLIER: f64 = 3.5;
/// From median absolute deviation to standard deviation, under normal noise.
const TO_DEVIATION: f64 = 1.4826;
/// Least noise that is believed: a share of the usual value, and of error rates an absolute one.
const LEAST_NOISE: f64 = 0.01;
const LEAST_ERRORS: f64 = 0.001;

/// What is unlike about a run.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Anomaly {
    /// 0 to 1.
    pub(crate) score: f64,
    pub(crate) run_id: String,
    pub(crate) scenario: String,
    pub(crate) started_at: String,
    /// The figure that is most unlike, or `integrity`.
    pub(crate) figure: String,
    /// What it is, and what it usually is.
    pub(crate) value: Option<f64>,
    pub(crate) usual: Option<f64>,
}

/// The score of every run that has one, in the order of `entries` (the oldest first).
pub(crate) fn scores(entries: &[Entry]) -> Vec<Anomaly> {
    entries.iter().enumerate().filter_map(|(place, entry)| score(entry, &entries[..place])).collect()
}

fn score(entry: &Entry, before: &[Entry]) -> Option<Anomaly> {
    let found = |score: f64, figure: &str, value, usual| Anomaly {
        score,
        run_id: entry.run_id.clone(),
        scenario: entry.scenario.clone(),
        started_at: entry.started_at.clone(),
        figure: figure.to_owned(),
        value,
        usual,
    };
    if entry.integrity == IntegrityVerdict::Violated {
        return Some(found(1.0, "integrity", entry.integrity_rate, Some(1.0)));
    }
    if !entry.counts() {
        return None;
    }
    let like: Vec<&Entry> = before.iter().rev().filter(|other| other.counts() && other.group() == entry.group()).take(MOST).collect();
    let judged = entry.figures.iter().filter_map(|(figure, value)| {
        let usual: Vec<f64> = like.iter().filter_map(|other| other.figures.get(figure).copied()).collect();
        let (deviation, usual) = deviation(figure, *value, &usual)?;
        Some(found(of_deviation(deviation), figure, Some(*value), Some(usual)))
    });
    judged.max_by(|a, b| a.score.total_cmp(&b.score))
}

/// How many robust standard deviations `value` lies from the median of `usual`, and that median.
fn deviation(figure: &str, value: f64, usual: &[f64]) -> Option<(f64, f64)> {
    if usual.len() < FEWEST {
        return None;
    }
    let middle = median(usual)?;
    let away: Vec<f64> = usual.iter().map(|other| (other - middle).abs()).collect();
    let least = if figure == "error_rate" { LEAST_ERRORS } else { LEAST_NOISE * middle.abs() };
    // Few runs know little of their own noise.
    let unsure = 1.0 + FEWEST as f64 / usual.len() as f64;
    let noise = (TO_DEVIATION * median(&away)?).max(least) * unsure;
    (noise > 0.0).then(|| ((value - middle).abs() / noise, middle))
}

/// 0 at none, 0.8 at [`OUTLIER`], towards 1 beyond.
fn of_deviation(deviation: f64) -> f64 {
    let square = deviation * deviation;
    square / (square + OUTLIER * OUTLIER * (1.0 / SHOWN - 1.0))
}

#[cfg(test)]
mod tests {
    use rand::{RngExt as _, SeedableRng as _};
    use rand_xoshiro::Xoshiro256PlusPlus;

    use super::*;
    use crate::report::sample;

    fn run(number: usize, factors: [f64; 3]) -> Entry {
        let mut entry = Entry::of(&sample::passed()).unwrap();
        entry.run_id = format!("run-{number}");
        entry.figures = [("rows_per_second", 1000.0), ("response.p50", 2.0), ("response.p99", 10.0)]
            .into_iter()
            .zip(factors)
            .map(|((name, value), factor)| (name.to_owned(), value * factor))
            .collect();
        entry
    }

    fn noise(random: &mut Xoshiro256PlusPlus) -> f64 {
        1.0 + 0.05 * ((0..12).map(|_| random.random::<f64>()).sum::<f64>() - 6.0)
    }

    #[test]
    fn the_score_is_shown_at_the_outliers_deviation() {
        assert_eq!(of_deviation(0.0), 0.0);
        assert!((of_deviation(OUTLIER) - SHOWN).abs() < 1e-9);
        assert!(of_deviation(1.0) < 0.3 && of_deviation(7.0) > 0.93 && of_deviation(1e9) <= 1.0);
    }

    #[test]
    fn a_planted_anomaly_is_shown_and_noise_is_not() {
        let mut random = Xoshiro256PlusPlus::seed_from_u64(5);
        let (mut shown, mut judged) = (0, 0);
        for _ in 0..20 {
            let mut runs: Vec<Entry> = (0..30).map(|n| run(n, [0, 1, 2].map(|_| noise(&mut random)))).collect();
            let scores = scores(&runs);
            judged += scores.len();
            shown += scores.iter().filter(|anomaly| anomaly.score > SHOWN).count();
            runs.push(run(30, [1.0, 1.0, 2.0]));
            let planted = super::scores(&runs).pop().unwrap();
            assert!(planted.score > 0.9 && planted.figure == "response.p99" && planted.run_id == "run-30", "{planted:?}");
            assert!((planted.usual.unwrap() - 10.0).abs() < 1.0 && planted.value == Some(20.0));
        }
        assert_eq!(judged, 20 * 22, "the first eight have nothing to be held against");
        assert!(shown * 50 <= judged, "{shown} of {judged} quiet runs are shown");
    }

    #[test]
    fn what_is_violated_is_an_anomaly_and_what_does_not_count_has_no_score() {
        let violated = Entry::of(&sample::violated()).unwrap();
        let found = scores(std::slice::from_ref(&violated));
        assert_eq!((found.len(), found[0].score, found[0].figure.as_str()), (1, 1.0, "integrity"));
        let mut runs: Vec<Entry> = (0..10).map(|n| run(n, [1.0; 3])).collect();
        runs.push(Entry { interrupted: true, ..run(10, [9.0; 3]) });
        runs.push(Entry { machine_hash: "another".to_owned(), ..run(11, [9.0; 3]) });
        assert_eq!(scores(&runs).len(), 2, "only the ninth and tenth have a history that counts");
    }
}
