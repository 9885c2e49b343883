//! The statistics of `/stats`, reduced from samples of the `aiproxy_*` series. Both sources, a time-series database and this
//! process's memory, deliver samples, so that both answer alike.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::metrics::aiproxy::Sample;
use crate::metrics::names;

/// What happened, in all and by channel, user and model, since the counters began.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Summary {
    /// Requests that have ended.
    pub totals: Totals,
    /// Their tokens.
    pub tokens: Tokens,
    /// What they cost, in the currency of the configured prices.
    pub cost: Cost,
    /// How long they took.
    pub latency: Times,
    /// From a request to its first token.
    pub ttft: Times,
    /// Largest first.
    pub channels: Vec<Group>,
    /// Largest first.
    pub users: Vec<Group>,
    /// Largest first.
    pub models: Vec<Group>,
}

/// Requests by how they ended.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Totals {
    /// All of them.
    pub requests: u64,
    /// Those that ended well.
    pub success: u64,
    /// Those that did not.
    pub errors: u64,
    /// Percent; absent while there are none.
    pub success_rate: Option<f64>,
}

/// Tokens by kind.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Tokens {
    /// Of prompts.
    pub prompt: u64,
    /// Of completions.
    pub completion: u64,
    /// Both.
    pub total: u64,
}

/// Cost by kind.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Cost {
    /// Of prompts.
    pub prompt: f64,
    /// Of completions.
    pub completion: f64,
    /// Both.
    pub total: f64,
}

/// Milliseconds; the percentiles are interpolated within the histogram's buckets, as Prometheus does it. Absent while there are
/// none.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Times {
    /// How many.
    pub count: u64,
    /// The mean.
    pub avg_ms: Option<f64>,
    /// The median.
    pub p50_ms: Option<f64>,
    /// 95 of 100 were faster.
    pub p95_ms: Option<f64>,
    /// 99 of 100 were faster.
    pub p99_ms: Option<f64>,
}

/// The requests of one channel, user or model.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Group {
    /// Whose.
    pub name: String,
    /// How they ended.
    #[serde(flatten)]
    pub totals: Totals,
    /// Their tokens; of a user not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tokens: Option<Tokens>,
    /// What they cost; of a user not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cost: Option<Cost>,
    /// How long they took; of a user not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub latency: Option<Times>,
}

impl Summary {
    /// Of these samples.
    #[must_use]
    pub fn of(samples: &[Sample]) -> Self {
        let all: Vec<&Sample> = samples.iter().collect();
        Self {
            totals: Totals::of(&all),
            tokens: Tokens::of(&all),
            cost: Cost::of(&all),
            latency: Times::of(&all, names::AI_RESPONSE_TIME.name),
            ttft: Times::of(&all, names::AI_FIRST_TOKEN.name),
            channels: groups(&all, "channel"),
            users: groups(&all, "user_name"),
            models: groups(&all, "model"),
        }
    }
}

fn groups(samples: &[&Sample], label: &str) -> Vec<Group> {
    let mut by_name: BTreeMap<&str, Vec<&Sample>> = BTreeMap::new();
    for &sample in samples {
        if let Some(name) = sample.labels.get(label) {
            by_name.entry(name).or_default().push(sample);
        }
    }
    let requests_only = label == "user_name";
    let group = |(name, samples): (&str, Vec<&Sample>)| Group {
        name: name.to_owned(),
        totals: Totals::of(&samples),
        tokens: (!requests_only).then(|| Tokens::of(&samples)),
        cost: (!requests_only).then(|| Cost::of(&samples)),
        latency: (!requests_only).then(|| Times::of(&samples, names::AI_RESPONSE_TIME.name)),
    };
    let mut groups: Vec<Group> = by_name.into_iter().map(group).collect();
    groups.sort_by_key(|group| std::cmp::Reverse(group.totals.requests)); // stable: then by name
    groups
}

/// The sum of a metric's samples, of those whose `label` is `value`.
fn sum(samples: &[&Sample], name: &str, label: &str, value: &str) -> f64 {
    let matching = samples.iter().filter(|sample| sample.name == name && sample.labels.get(label).is_some_and(|found| found == value));
    matching.map(|sample| sample.value).sum()
}

impl Totals {
    fn of(samples: &[&Sample]) -> Self {
        let count = |status| sum(samples, names::AI_REQUESTS.name, "status", status) as u64;
        let (success, errors) = (count("success"), count("error"));
        let requests = success + errors;
        Self { requests, success, errors, success_rate: (requests > 0).then(|| success as f64 / requests as f64 * 100.0) }
    }
}

impl Tokens {
    fn of(samples: &[&Sample]) -> Self {
        let count = |kind| sum(samples, names::AI_TOKENS.name, "kind", kind) as u64;
        let (prompt, completion) = (count("prompt"), count("completion"));
        Self { prompt, completion, total: prompt + completion }
    }
}

impl Cost {
    fn of(samples: &[&Sample]) -> Self {
        // Sums of binary fractions: what both sources add up in another order is the same to a millionth.
        let cost = |kind| (sum(samples, names::AI_COST.name, "kind", kind) * 1e6).round() / 1e6;
        let (prompt, completion) = (cost("prompt"), cost("completion"));
        Self { prompt, completion, total: ((prompt + completion) * 1e6).round() / 1e6 }
    }
}

impl Times {
    fn of(samples: &[&Sample], histogram: &str) -> Self {
        let (mut seconds, mut count) = (0.0, 0.0);
        let mut buckets: Vec<(f64, f64)> = Vec::new();
        for sample in samples {
            match sample.name.strip_prefix(histogram) {
                Some("_sum") => seconds += sample.value,
                Some("_count") => count += sample.value,
                Some("_bucket") => {
                    let Some(bound) = sample.labels.get("le").and_then(|le| le.parse::<f64>().ok()) else { continue };
                    match buckets.iter_mut().find(|(known, _)| *known == bound) {
                        Some((_, total)) => *total += sample.value,
                        None => buckets.push((bound, sample.value)),
                    }
                }
                _ => {}
            }
        }
        buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
        let ms = |seconds: f64| (seconds * 1e6).round() / 1e3;
        let quantile = |q| quantile(&buckets, q).map(ms);
        Self {
            count: count as u64,
            avg_ms: (count > 0.0).then(|| ms(seconds / count)),
            p50_ms: quantile(0.5),
            p95_ms: quantile(0.95),
            p99_ms: quantile(0.99),
        }
    }
}

/// What Prometheus' `histogram_quantile` says of cumulative buckets in order, the last of which is `+Inf`.
fn quantile(buckets: &[(f64, f64)], quantile: f64) -> Option<f64> {
    let total = buckets.last().map(|(_, count)| *count).filter(|total| *total > 0.0)?;
    let rank = quantile * total;
    let at = buckets.iter().position(|(_, count)| *count >= rank)?;
    let (bound, count) = buckets[at];
    let (below, before) = if at == 0 { (0.0, 0.0) } else { buckets[at - 1] };
    // Beyond the last bound nothing is known but that bound.
    Some(if bound.is_infinite() { below } else { below + (bound - below) * (rank - before) / (count - before) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_interpolated_within_their_bucket() {
        let buckets = [(0.1, 10.0), (0.2, 10.0), (0.5, 30.0), (1.0, 38.0), (f64::INFINITY, 40.0)];
        for (q, expected) in [(0.125, 0.05), (0.25, 0.1), (0.5, 0.35), (0.95, 1.0), (0.99, 1.0)] {
            let found = quantile(&buckets, q);
            assert!(found.is_some_and(|found| (found - expected).abs() < 1e-9), "{q}: {found:?}, not {expected}");
        }
        assert_eq!(quantile(&[(0.1, 0.0), (f64::INFINITY, 0.0)], 0.5), None);
        assert_eq!(quantile(&[], 0.5), None);
    }

    #[test]
    fn nothing_sampled_is_nothing_known() {
        let summary = Summary::of(&[]);
        assert_eq!((summary.totals.success_rate, summary.latency.avg_ms, summary.latency.p99_ms), (None, None, None));
    }
}
