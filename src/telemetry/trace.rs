//! Traces to an OpenTelemetry collector: a span a run, a span a phase, and a span for a sample of its batches or requests.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, Status};
use prost::Message as _;

use super::otlp::{attribute, receiver, resource, scope, text};
use super::push::Push;
use crate::http::service::Service;
use crate::ledger::Outcome;
use crate::metrics::IntCounter;
use crate::pipeline::observer::{BatchInfo, BatchOutcome, Observer};
use crate::report::Verdict;
use crate::target::ErrorClass;

/// Label `destination` of what was given up.
pub(super) const NAME: &str = "otlp_traces";

/// Most spans that wait to be put into a request.
const MOST_SPANS: usize = 20_000;
/// Most spans of one request.
const SPANS_A_REQUEST: usize = 2_000;

/// The way to a collector, for traces.
pub(super) struct Traces {
    push: Push,
    resource: Resource,
    /// Of batches and requests.
    share: f64,
    waiting: Mutex<Vec<Span>>,
}

impl Traces {
    pub(super) fn start(service: Service, instance: &str, share: f64, dropped: IntCounter) -> Self {
        let push = Push::start(receiver(service, "OTLP traces", "spans", "/v1/traces"), dropped);
        Self { push, resource: resource(instance), share, waiting: Mutex::default() }
    }

    fn add(&self, span: Span) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.len() < MOST_SPANS {
            waiting.push(span);
        } else {
            self.push.give_up(1);
        }
    }

    /// Sends the spans that wait.
    pub(super) fn flush(&self) {
        let mut waiting = std::mem::take(&mut *self.waiting.lock().unwrap_or_else(PoisonError::into_inner));
        while !waiting.is_empty() {
            let rest = waiting.split_off(waiting.len().min(SPANS_A_REQUEST));
            let spans = std::mem::replace(&mut waiting, rest);
            let number = spans.len() as u64;
            let scope_spans = vec![ScopeSpans { scope: scope(), spans, ..ScopeSpans::default() }];
            let resource_spans = vec![ResourceSpans { resource: Some(self.resource.clone()), scope_spans, ..ResourceSpans::default() }];
            self.push.send(Bytes::from(ExportTraceServiceRequest { resource_spans }.encode_to_vec()), number);
        }
    }

    pub(super) async fn finish(&self) {
        self.flush();
        self.push.finish().await;
    }
}

/// The spans of one run.
pub(crate) struct RunTrace {
    traces: Arc<Traces>,
    id: u128,
    run_id: String,
    test_name: String,
    seed: u64,
    /// One instant by both clocks.
    epoch: Instant,
    epoch_nanos: u64,
    /// When phase `main` begins.
    main: Duration,
}

/// A request that has ended.
pub(crate) struct Request<'a> {
    pub(crate) index: u64,
    pub(crate) route: &'a str,
    /// 0 without an answer.
    pub(crate) status: u16,
    pub(crate) start: Instant,
    pub(crate) end: Instant,
    pub(crate) outcome: Outcome,
    pub(crate) error: Option<ErrorClass>,
}

/// Numbers of the spans that are no operations.
const RUN: u64 = 0;
const WARMUP: u64 = 1;
const MAIN: u64 = 2;
const FIRST_OPERATION: u64 = 16;

impl RunTrace {
    pub(super) fn new(traces: Arc<Traces>, run_id: &str, test_name: &str, seed: u64, epoch: Instant, main: Duration) -> Self {
        let epoch_nanos = unix_nanos().saturating_sub(epoch.elapsed().as_nanos() as u64);
        let (run_id, test_name) = (run_id.to_owned(), test_name.to_owned());
        Self { traces, id: trace_id(&run_id), run_id, test_name, seed, epoch, epoch_nanos, main }
    }

    /// Whether batch or request `number` is one of the sample: by the seed alone, so that the same ones are when a run is repeated.
    pub(crate) fn samples(&self, number: u64) -> bool {
        let unit = (mix(self.seed ^ mix(number)) >> 11) as f64 / (1u64 << 53) as f64;
        unit < self.traces.share
    }

    /// The span of a request: from its send to the end of its reply.
    pub(crate) fn request(&self, request: &Request<'_>) {
        let &Request { index, route, status, start, end, outcome, error } = request;
        let mut attributes = vec![attribute("index", whole(index)), attribute("route", text(route))];
        if status > 0 {
            attributes.push(attribute("http.response.status_code", whole(u64::from(status))));
        }
        self.operation("request", index, [start, end], (outcome, error), attributes);
    }

    fn operation(
        &self,
        name: &str,
        number: u64,
        [start, end]: [Instant; 2],
        (outcome, error): (Outcome, Option<ErrorClass>),
        mut attributes: Vec<KeyValue>,
    ) {
        let phase = if start.saturating_duration_since(self.epoch) < self.main { WARMUP } else { MAIN };
        let outcome_name = match outcome {
            Outcome::Acknowledged => "acknowledged",
            Outcome::Rejected => "rejected",
            Outcome::Unknown => "unknown",
        };
        attributes.push(attribute("outcome", text(outcome_name)));
        attributes.extend(error.map(|class| attribute("error.type", text(class.as_str()))));
        let good = outcome == Outcome::Acknowledged;
        let message = error.map_or("", ErrorClass::as_str);
        let span = self.span(name, FIRST_OPERATION + number, Some(phase), [self.at(start), self.at(end)], attributes);
        self.traces.add(Span { kind: SpanKind::Client.into(), status: Some(status(good, message)), ..span });
    }

    /// The spans of the run and its phases: warm-up, main, drain and verification, by when they ended.
    pub(crate) fn finish(&self, ends: [Duration; 3], verdict: Verdict) {
        let [load, drain, verify] = ends;
        let began = Duration::ZERO;
        let phases = [
            ("warmup", WARMUP, [began, self.main.min(load)]),
            ("main", MAIN, [self.main.min(load), load]),
            ("drain", 3, [load, drain]),
            ("verify", 4, [drain, verify]),
        ];
        for (name, number, times) in phases.into_iter().filter(|(name, _, [from, to])| *name != "warmup" || from < to) {
            let times = times.map(|time| self.at(self.epoch + time));
            self.traces.add(self.span(name, number, Some(RUN), times, Vec::new()));
        }
        let words = match verdict {
            Verdict::Pass => "pass",
            Verdict::Fail => "fail",
            Verdict::Inconclusive => "inconclusive",
        };
        let times = [began, verify].map(|time| self.at(self.epoch + time));
        let span = self.span("run", RUN, None, times, vec![attribute("verdict", text(words))]);
        self.traces.add(Span { status: Some(status(verdict == Verdict::Pass, words)), ..span });
    }

    fn at(&self, instant: Instant) -> u64 {
        self.epoch_nanos + instant.saturating_duration_since(self.epoch).as_nanos() as u64
    }

    fn span(&self, name: &str, number: u64, parent: Option<u64>, times: [u64; 2], mut attributes: Vec<KeyValue>) -> Span {
        attributes.push(attribute("run_id", text(&self.run_id)));
        attributes.push(attribute("test_name", text(&self.test_name)));
        // `mix` never gives two numbers the same; zero, which is no id, comes of one number among 2^64.
        let id = |number| mix(self.id as u64 ^ number).max(1).to_be_bytes().to_vec();
        Span {
            trace_id: self.id.to_be_bytes().to_vec(),
            span_id: id(number),
            parent_span_id: parent.map_or_else(Vec::new, id),
            name: name.to_owned(),
            kind: SpanKind::Internal.into(),
            start_time_unix_nano: times[0],
            end_time_unix_nano: times[1],
            attributes,
            ..Span::default()
        }
    }
}

/// A batch insert is a span from its first send to its outcome.
impl Observer for RunTrace {
    fn finished(&self, batch: &BatchInfo<'_>, outcome: &BatchOutcome, took: Duration) {
        if !self.samples(batch.id) {
            return;
        }
        let end = Instant::now();
        let (outcome, error) = match outcome {
            BatchOutcome::Acknowledged { .. } => (Outcome::Acknowledged, None),
            BatchOutcome::Rejected(failure) => (Outcome::Rejected, Some(failure.class)),
            BatchOutcome::Unknown(failure) => (Outcome::Unknown, Some(failure.class)),
        };
        let attributes = vec![
            attribute("seq", whole(batch.id)),
            attribute("rows", whole(batch.rows as u64)),
            attribute("attempts", whole(u64::from(batch.attempt))),
        ];
        let start = end.checked_sub(took).unwrap_or(end);
        self.operation("batch insert", batch.id, [start, end], (outcome, error), attributes);
    }
}

fn whole(number: u64) -> Value {
    Value::IntValue(i64::try_from(number).unwrap_or(i64::MAX))
}

fn status(good: bool, message: &str) -> Status {
    if good {
        Status { code: StatusCode::Ok.into(), message: String::new() }
    } else {
        Status { code: StatusCode::Error.into(), message: message.to_owned() }
    }
}

/// Nanoseconds since 1970.
pub(super) fn unix_nanos() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos() as u64
}

/// The trace of a run, from its id alone (FNV-1a).
fn trace_id(run_id: &str) -> u128 {
    let offset = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d_u128;
    run_id.bytes().fold(offset, |hash, byte| (hash ^ u128::from(byte)).wrapping_mul(0x0000_0000_0100_0000_0000_0000_0000_013b))
}

/// Scatters numbers (SplitMix64), each to a place of its own.
fn mix(number: u64) -> u64 {
    let mut z = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::PrometheusMetrics;
    use crate::target::{Applied, Failure};

    fn trace(share: f64) -> RunTrace {
        let service = Service::new("--otlp", "http://127.0.0.1:9", "").unwrap();
        let traces = Traces::start(service, "here", share, PrometheusMetrics::new().push_dropped(NAME));
        RunTrace::new(Arc::new(traces), "20260102-030405-t-1a2b", "t", 42, Instant::now(), Duration::from_secs(5))
    }

    fn spans(trace: &RunTrace) -> Vec<Span> {
        std::mem::take(&mut *trace.traces.waiting.lock().unwrap())
    }

    fn said(span: &Span, key: &str) -> Option<Value> {
        span.attributes.iter().find(|one| one.key == key)?.value.clone()?.value
    }

    #[tokio::test]
    async fn the_sample_is_a_matter_of_seed_and_share_alone() {
        let (none, all) = (trace(0.0), trace(1.0));
        assert!((0..10_000).all(|number| all.samples(number) && !none.samples(number)));
        let (once, again) = (trace(0.1), trace(0.1));
        let chosen: Vec<u64> = (0..10_000).filter(|number| once.samples(*number)).collect();
        assert!((800..1200).contains(&chosen.len()), "{}", chosen.len());
        assert!(chosen.iter().all(|number| again.samples(*number)));
    }

    #[tokio::test]
    async fn a_batch_is_a_span_below_its_phase_below_its_run() {
        let trace = trace(1.0);
        let batch = BatchInfo { id: 3, table: "t", rows: 200, entries: &[], attempt: 2, session: 0 };
        let failure = Failure { class: ErrorClass::Timeout, applied: Applied::Unknown, message: "secret".to_owned() };
        trace.finished(&batch, &BatchOutcome::Unknown(failure), Duration::from_millis(40));
        let seconds = Duration::from_secs;
        trace.finish([seconds(7), seconds(8), seconds(10)], Verdict::Fail);
        let spans = spans(&trace);
        let names: Vec<_> = spans.iter().map(|span| span.name.as_str()).collect();
        assert_eq!(names, ["batch insert", "warmup", "main", "drain", "verify", "run"]);
        let [batch, warmup, main, .., run] = spans.as_slice() else { panic!("{names:?}") };
        assert_eq!((&batch.parent_span_id, &warmup.parent_span_id, run.parent_span_id.len()), (&warmup.span_id, &run.span_id, 0));
        assert!(spans.iter().all(|span| span.trace_id == run.trace_id && span.trace_id.len() == 16 && span.span_id.len() == 8));
        assert_eq!((main.end_time_unix_nano - main.start_time_unix_nano) / 1_000_000, 2_000);
        assert_eq!((run.end_time_unix_nano - run.start_time_unix_nano) / 1_000_000, 10_000);
        assert!(run.start_time_unix_nano.abs_diff(unix_nanos()) < 60_000_000_000);
        assert_eq!((said(batch, "seq"), said(batch, "rows"), said(batch, "attempts")), (Some(whole(3)), Some(whole(200)), Some(whole(2))));
        assert_eq!((said(batch, "outcome"), said(batch, "error.type")), (Some(text("unknown")), Some(text("timeout"))));
        assert_eq!(said(batch, "run_id"), Some(text("20260102-030405-t-1a2b")));
        assert_eq!(batch.status, Some(Status { code: StatusCode::Error.into(), message: "timeout".to_owned() }));
        assert_eq!(run.status.as_ref().map(|status| status.message.as_str()), Some("fail"));
    }

    #[tokio::test]
    async fn spans_that_do_not_fit_are_counted() {
        let trace = trace(1.0);
        let now = Instant::now();
        let request = Request { index: 1, route: "chat", status: 200, start: now, end: now, outcome: Outcome::Acknowledged, error: None };
        (0..MOST_SPANS + 7).for_each(|_| trace.request(&request));
        assert_eq!((spans(&trace).len(), trace.traces.push.given_up()), (MOST_SPANS, 7));
    }
}
