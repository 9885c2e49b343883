//! What only requests have, measured by each lane on its own and merged at the end.

use std::time::Duration;

use crate::http::Reply;
use crate::ledger::Outcome;
use crate::recorder::Latency;
use crate::report::{HttpReport, LatencySummary, Outcomes, Route};

/// Pairs whose difference is kept.
const PAIRS: usize = 1_000_000;

/// The measurements of one lane.
#[derive(Default)]
pub(super) struct Measured {
    first_byte: Latency,
    first_token: Latency,
    gaps: Latency,
    stalls: Latency,
    server: Latency,
    network: Latency,
    /// Proxied less direct, in nanoseconds.
    overhead: Vec<i64>,
    streams: u64,
    prompt_tokens: u64,
    completion_tokens: u64,
    bytes_sent: u64,
    bytes_received: u64,
    routes: Vec<(Outcomes, Latency)>,
}

impl Measured {
    pub(super) fn new(routes: usize) -> Self {
        Self { routes: (0..routes).map(|_| (Outcomes::default(), Latency::default())).collect(), ..Self::default() }
    }

    /// What became of a request, warm-up included.
    pub(super) fn outcome(&mut self, route: usize, outcome: Outcome) {
        let outcomes = &mut self.routes[route].0;
        outcomes.offered += 1;
        outcomes.attempted += 1;
        match outcome {
            Outcome::Acknowledged => outcomes.acknowledged += 1,
            Outcome::Rejected => outcomes.rejected += 1,
            Outcome::Unknown => outcomes.unknown += 1,
        }
    }

    /// An acknowledged reply of phase `main`.
    pub(super) fn reply(&mut self, route: usize, reply: &Reply) {
        let since = |instant: std::time::Instant| instant.saturating_duration_since(reply.sent);
        self.routes[route].1.record_answer(since(reply.done));
        self.first_byte.record_answer(since(reply.first_byte));
        self.bytes_sent += reply.bytes_sent;
        self.bytes_received += reply.bytes_received;
        if let Some(ms) =
            reply.headers.get("x-response-time-ms").and_then(|text| text.parse::<f64>().ok()).filter(|ms| (0.0..1e9).contains(ms))
        {
            let server = Duration::from_secs_f64(ms / 1e3);
            self.server.record_answer(server);
            // On a stream the server counts to its header; on both sides that is what the first byte says.
            self.network.record_answer(since(reply.first_byte).saturating_sub(server));
        }
        let Some(chat) = &reply.chat else { return };
        if let Some((prompt, completion)) = chat.usage {
            self.prompt_tokens += prompt;
            self.completion_tokens += completion;
        }
        if !chat.streamed {
            return;
        }
        self.streams += 1;
        if let Some(first) = chat.first_token {
            self.first_token.record_answer(since(first));
        }
        for gap in &chat.gaps {
            self.gaps.record_answer(*gap);
        }
        if let Some(stall) = chat.gaps.iter().max() {
            self.stalls.record_answer(*stall);
        }
    }

    /// A pair of a proxied and a direct reply of phase `main`.
    pub(super) fn pair(&mut self, proxied: &Reply, direct: &Reply) {
        if self.overhead.len() < PAIRS {
            let nanos = |reply: &Reply| i64::try_from(reply.done.saturating_duration_since(reply.sent).as_nanos()).unwrap_or(i64::MAX);
            self.overhead.push(nanos(proxied) - nanos(direct));
        }
    }

    pub(super) fn merge(&mut self, other: Measured) {
        for (mine, theirs) in [
            (&mut self.first_byte, &other.first_byte),
            (&mut self.first_token, &other.first_token),
            (&mut self.gaps, &other.gaps),
            (&mut self.stalls, &other.stalls),
            (&mut self.server, &other.server),
            (&mut self.network, &other.network),
        ] {
            mine.merge(theirs);
        }
        self.overhead.extend(other.overhead);
        self.streams += other.streams;
        self.prompt_tokens += other.prompt_tokens;
        self.completion_tokens += other.completion_tokens;
        self.bytes_sent += other.bytes_sent;
        self.bytes_received += other.bytes_received;
        for ((outcomes, latency), (more, theirs)) in self.routes.iter_mut().zip(&other.routes) {
            outcomes.add(more);
            latency.merge(theirs);
        }
    }

    /// As the report shows it. `names`: of the routes; `seconds`: length of phase `main`.
    pub(super) fn report(mut self, names: Vec<String>, seconds: f64) -> HttpReport {
        self.overhead.sort_unstable();
        HttpReport {
            time_to_first_byte: self.first_byte.summary(),
            time_to_first_token: self.first_token.summary(),
            inter_token: self.gaps.summary(),
            longest_stall: self.stalls.summary(),
            server: self.server.summary(),
            network: self.network.summary(),
            overhead: overhead(&self.overhead),
            streams: self.streams,
            prompt_tokens: self.prompt_tokens,
            completion_tokens: self.completion_tokens,
            tokens_per_second: (seconds > 0.0 && self.completion_tokens > 0).then(|| self.completion_tokens as f64 / seconds),
            bytes_sent: self.bytes_sent,
            bytes_received: self.bytes_received,
            routes: names
                .into_iter()
                .zip(&self.routes)
                .map(|(name, (outcomes, latency))| Route { name, outcomes: *outcomes, service: latency.summary() })
                .collect(),
            time_to_first_token_histogram: if self.first_token.count() > 0 { self.first_token.encode() } else { String::new() },
        }
    }
}

/// `sorted` differences in nanoseconds. A percentile is shown when five pairs lie beyond it.
fn overhead(sorted: &[i64]) -> LatencySummary {
    let count = sorted.len();
    let ms = |nanos: i64| nanos as f64 / 1e6;
    let at = |share: f64| {
        let enough = count as f64 * (1.0 - share) + 1e-9 >= 5.0;
        enough.then(|| ms(sorted[((count - 1) as f64 * share).round() as usize]))
    };
    LatencySummary {
        count: count as u64,
        mean_ms: (count > 0).then(|| sorted.iter().map(|nanos| ms(*nanos)).sum::<f64>() / count as f64),
        p50_ms: at(0.5),
        p75_ms: at(0.75),
        p90_ms: at(0.9),
        p95_ms: at(0.95),
        p99_ms: at(0.99),
        p999_ms: at(0.999),
        max_ms: sorted.last().map(|nanos| ms(*nanos)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_overhead_is_that_of_pairs_and_may_be_negative() {
        let differences: Vec<i64> = (-1..=99).map(|ms| ms * 1_000_000).collect();
        let found = overhead(&differences);
        assert_eq!(
            (found.count, found.mean_ms, found.p50_ms, found.p90_ms, found.p95_ms),
            (101, Some(49.0), Some(49.0), Some(89.0), Some(94.0))
        );
        assert_eq!((found.p99_ms, found.max_ms), (None, Some(99.0)));
        assert_eq!(overhead(&[-2_000_000; 10]).p50_ms, Some(-2.0));
        assert_eq!(overhead(&[]), LatencySummary::default());
    }
}
