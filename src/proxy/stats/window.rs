//! What happened since the last reset: the figures of `/api/metrics/`, and the requests of the last minutes for the dashboard.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::proxy::seen::Seen;
use crate::recorder::Latency;

/// Width of a step of [`Recent`].
const STEP: Duration = Duration::from_secs(5);
/// Steps kept: five minutes.
const STEPS: usize = 60;

/// `data` of `GET /api/metrics/`; names and shapes are what existing clients read.
#[derive(Debug, PartialEq, Serialize)]
pub(super) struct Figures {
    total_requests: u64,
    failed_requests: u64,
    /// Percent, cut after two places so that one failure in many never reads 100; 0 while nothing was asked.
    success_rate: f64,
    average_duration: String,
    p50_latency: String,
    p95_latency: String,
    p99_latency: String,
    db_query_count: u64,
    db_avg_duration: String,
    streaming_requests: u64,
    avg_ttft: String,
}

/// Everything since `began`.
pub(super) struct Window {
    began: Instant,
    /// How long until it starts anew; `None`: only when told.
    length: Option<Duration>,
    counts: Counts,
}

#[derive(Default)]
struct Counts {
    failed: u64,
    streaming: u64,
    duration: Latency,
    first_token: Latency,
    queries: u64,
    query_time: Duration,
}

impl Window {
    pub(super) fn new(began: Instant, length: Duration) -> Self {
        Self { began, length: Some(length).filter(|length| !length.is_zero()), counts: Counts::default() }
    }

    pub(super) fn record(&mut self, seen: &Seen, now: Instant) {
        let counts = self.current(now);
        counts.failed += u64::from(!seen.success);
        counts.streaming += u64::from(seen.protocol == "sse");
        counts.duration.record(seen.duration);
        seen.first_token.into_iter().for_each(|after| counts.first_token.record(after));
    }

    pub(super) fn query(&mut self, took: Duration, now: Instant) {
        let counts = self.current(now);
        counts.queries += 1;
        counts.query_time += took;
    }

    pub(super) fn reset(&mut self, now: Instant) {
        self.began = now;
        self.counts = Counts::default();
    }

    pub(super) fn figures(&mut self, now: Instant) -> Figures {
        let counts = self.current(now);
        let total = counts.duration.count();
        let quantile = |q| written(counts.duration.roughly(q));
        Figures {
            total_requests: total,
            failed_requests: counts.failed,
            success_rate: ((total - counts.failed) * 10_000).checked_div(total).unwrap_or(0) as f64 / 100.0,
            average_duration: written(counts.duration.mean()),
            p50_latency: quantile(0.5),
            p95_latency: quantile(0.95),
            p99_latency: quantile(0.99),
            db_query_count: counts.queries,
            db_avg_duration: written(Duration::from_secs_f64(counts.query_time.as_secs_f64() / counts.queries.max(1) as f64)),
            streaming_requests: counts.streaming,
            avg_ttft: written(counts.first_token.mean()),
        }
    }

    fn current(&mut self, now: Instant) -> &mut Counts {
        if self.length.is_some_and(|length| now.duration_since(self.began) >= length) {
            self.reset(now);
        }
        &mut self.counts
    }
}

/// `145ms`; below 10 ms with up to two places.
fn written(time: Duration) -> String {
    let ms = time.as_secs_f64() * 1000.0;
    if ms >= 10.0 { format!("{ms:.0}ms") } else { format!("{}ms", (ms * 100.0).round() / 100.0) }
}

/// Requests by steps of five seconds.
pub(super) struct Recent {
    began: Instant,
    /// Which step each is, counted from `began`, and its requests; steps without any are left out.
    steps: VecDeque<(u64, u64)>,
}

impl Recent {
    pub(super) fn new(began: Instant) -> Self {
        Self { began, steps: VecDeque::new() }
    }

    pub(super) fn record(&mut self, now: Instant) {
        let step = self.step(now);
        match self.steps.back_mut() {
            // Whoever took the time first may get here second.
            Some((last, requests)) if *last >= step => *requests += 1,
            _ => self.steps.push_back((step, 1)),
        }
        while self.steps.front().is_some_and(|(first, _)| first + STEPS as u64 <= step) {
            self.steps.pop_front();
        }
    }

    /// Requests a second in each whole step of the last five minutes, oldest first.
    pub(super) fn per_second(&self, now: Instant) -> Vec<f64> {
        let current = self.step(now);
        let first = current.saturating_sub(STEPS as u64);
        let mut rates = vec![0.0; (current - first) as usize];
        for (step, requests) in &self.steps {
            if let Some(rate) = step.checked_sub(first).and_then(|at| rates.get_mut(at as usize)) {
                *rate = *requests as f64 / STEP.as_secs_f64();
            }
        }
        rates
    }

    fn step(&self, now: Instant) -> u64 {
        now.saturating_duration_since(self.began).as_secs() / STEP.as_secs()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_written_in_milliseconds() {
        for (micros, expected) in
            [(0, "0ms"), (4, "0ms"), (350, "0.35ms"), (1_000, "1ms"), (9_876, "9.88ms"), (145_320, "145ms"), (2_000_000, "2000ms")]
        {
            assert_eq!(written(Duration::from_micros(micros)), expected);
        }
    }

    fn seen(millis: u64) -> Seen {
        Seen {
            request_id: "r".to_owned(),
            user: "ann".to_owned(),
            channel: "main".to_owned(),
            model: "small".to_owned(),
            protocol: "sse",
            status: 200,
            success: true,
            duration: Duration::from_millis(millis),
            header_after: Duration::from_millis(1),
            first_token: Some(Duration::from_millis(millis / 2)),
            gaps: Vec::new(),
            prompt_tokens: 0,
            completion_tokens: 0,
            request_bytes: 0,
            response_bytes: 0,
        }
    }

    #[test]
    fn figures_begin_anew_with_every_interval_and_by_hand() {
        let began = Instant::now();
        let at = |seconds| began + Duration::from_secs(seconds);
        let mut window = Window::new(began, Duration::from_secs(60));
        window.record(&seen(100), at(1));
        window.query(Duration::from_millis(30), at(2));
        window.query(Duration::from_millis(10), at(2));
        let nothing = Window::new(began, Duration::ZERO).figures(began);
        assert_eq!((nothing.total_requests, nothing.success_rate, nothing.p99_latency.as_str()), (0, 0.0, "0ms"));
        let figures = window.figures(at(59));
        assert_eq!((figures.total_requests, figures.streaming_requests, figures.db_query_count), (1, 1, 2));
        assert_eq!((figures.avg_ttft.as_str(), figures.db_avg_duration.as_str()), ("50ms", "20ms"));
        assert_eq!(window.figures(at(60)), nothing);
        window.record(&seen(100), at(119));
        assert_eq!(window.figures(at(119)).total_requests, 1, "the second interval began at 60 s");
        window.reset(at(119));
        assert_eq!(window.figures(at(119)), nothing);
        window.record(&seen(100), at(170));
        assert_eq!(window.figures(at(178)).total_requests, 1, "the third began with the reset");
        let mut endless = Window::new(began, Duration::ZERO);
        endless.record(&seen(100), began);
        assert_eq!(endless.figures(at(1_000_000)).total_requests, 1);
    }

    #[test]
    fn one_failure_in_many_never_reads_as_none() {
        let mut window = Window::new(Instant::now(), Duration::ZERO);
        for failing in 0..12_450 {
            window.record(&Seen { success: failing >= 23, ..seen(1) }, window.began);
        }
        assert_eq!(window.figures(window.began).success_rate, 99.81);
    }

    #[test]
    fn recent_requests_are_shown_by_whole_steps() {
        let began = Instant::now();
        let at = |seconds| began + Duration::from_secs(seconds);
        let mut recent = Recent::new(began);
        assert!(recent.per_second(at(4)).is_empty());
        for second in [0, 1, 4, 10, 12, 11] {
            recent.record(at(second));
        }
        assert_eq!(recent.per_second(at(14)), [0.6, 0.0]);
        assert_eq!(recent.per_second(at(15)), [0.6, 0.0, 0.6]);
        recent.record(at(1_000));
        assert_eq!(recent.steps.len(), 1);
        let rates = recent.per_second(at(1_005));
        assert_eq!((rates.len(), rates[59], rates[58]), (60, 0.2, 0.0));
    }
}
