//! Metrics by Prometheus remote write 1.0, to Prometheus, VictoriaMetrics and whoever else takes it.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE, USER_AGENT};
use http::{HeaderName, HeaderValue};
use prost::Message as _;

use super::push::{Push, Receiver};
use crate::http::service::Service;
use crate::metrics::aiproxy::{Sample as Shown, samples};
use crate::metrics::{IntCounter, MetricFamily, MetricType};

/// Label `destination` of what was given up.
pub(super) const NAME: &str = "remote_write";

const JOB: &str = "batchsql";

/// A receiver that was killed may have lost what it took shortly before: VictoriaMetrics writes every 5 s.
const REMEMBER: Duration = Duration::from_secs(30);

/// The way to a remote-write receiver.
pub(super) struct RemoteWrite {
    push: Push,
    instance: String,
    written: Mutex<Written>,
}

/// What was written so far.
#[derive(Default)]
struct Written {
    /// Milliseconds since the epoch.
    last: Option<i64>,
    series: HashSet<Vec<Label>>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct WriteRequest {
    #[prost(message, repeated, tag = "1")]
    timeseries: Vec<TimeSeries>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct TimeSeries {
    #[prost(message, repeated, tag = "1")]
    labels: Vec<Label>,
    #[prost(message, repeated, tag = "2")]
    samples: Vec<Sample>,
}

#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Message)]
struct Label {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    value: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Sample {
    #[prost(double, tag = "1")]
    value: f64,
    #[prost(int64, tag = "2")]
    timestamp: i64,
}

impl RemoteWrite {
    pub(super) fn start(service: Service, instance: &str, dropped: IntCounter) -> Self {
        let header = |name: HeaderName, value| (name, HeaderValue::from_static(value));
        let headers = vec![
            header(CONTENT_TYPE, "application/x-protobuf"),
            header(CONTENT_ENCODING, "snappy"),
            header(USER_AGENT, concat!("batchsql/", env!("CARGO_PKG_VERSION"))),
            header(HeaderName::from_static("x-prometheus-remote-write-version"), "0.1.0"),
        ];
        // A bare address means the path that Prometheus and VictoriaMetrics share.
        let path = if service.path() == "/" { "/api/v1/write" } else { "" };
        let receiver = Receiver { name: "remote write", values: "samples", service, path, headers, remember: REMEMBER };
        Self { push: Push::start(receiver, dropped), instance: instance.to_owned(), written: Mutex::default() }
    }

    /// Sends all families as they were at `millis` since the epoch.
    pub(super) fn send(&self, families: &[MetricFamily], millis: i64) {
        let mut written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        let request = written.request(families, &self.instance, millis);
        let samples = request.timeseries.iter().map(|series| series.samples.len() as u64).sum();
        // Under the lock: the samples of a series travel in the order of time.
        match compress(&request) {
            Some(body) => self.push.send(body, samples),
            None => self.push.give_up(samples),
        }
    }

    pub(super) async fn finish(&self) {
        self.push.finish().await;
    }
}

/// Nothing if it is larger than snappy can say, 4 GiB.
fn compress(request: &WriteRequest) -> Option<Bytes> {
    snap::raw::Encoder::new().compress_vec(&request.encode_to_vec()).ok().map(Bytes::from)
}

impl Written {
    fn request(&mut self, families: &[MetricFamily], instance: &str, millis: i64) -> WriteRequest {
        // A clock that was set back must not make two samples of one series the same or older.
        let millis = self.last.map_or(millis, |last| millis.max(last + 1));
        let before = self.last.replace(millis);
        let mut timeseries = Vec::new();
        for family in families {
            let counts = family.get_field_type() != MetricType::GAUGE;
            for shown in samples(family) {
                let value = shown.value;
                let labels = labels(shown, instance);
                let mut series = TimeSeries { labels, samples: vec![Sample { value, timestamp: millis }] };
                if !self.series.contains(&series.labels) {
                    self.series.insert(series.labels.clone());
                    // What counts began at zero: without that sample rate() would miss all that came before the first one.
                    if let Some(before) = before.filter(|_| counts && value > 0.0) {
                        series.samples.insert(0, Sample { value: 0.0, timestamp: before });
                    }
                }
                timeseries.push(series);
            }
        }
        WriteRequest { timeseries }
    }
}

/// In the order of names, as the protocol wants them.
fn labels(shown: Shown, instance: &str) -> Vec<Label> {
    let given = [("__name__", shown.name), ("job", JOB.to_owned()), ("instance", instance.to_owned())];
    let mut labels: Vec<Label> = shown.labels.into_iter().map(|(name, value)| Label { name, value }).collect();
    for (name, value) in given {
        // A user's own label of that name says more than ours.
        if !labels.iter().any(|label| label.name == name) {
            labels.push(Label { name: name.to_owned(), value });
        }
    }
    labels.sort_unstable();
    labels
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::{PrometheusMetrics, PrometheusMetricsReporter};

    fn label<'a>(series: &'a TimeSeries, name: &str) -> &'a str {
        series.labels.iter().find(|label| label.name == name).map_or("", |label| &label.value)
    }

    fn of<'a>(request: &'a WriteRequest, name: &'a str) -> impl Iterator<Item = &'a TimeSeries> {
        request.timeseries.iter().filter(move |series| label(series, "__name__") == name)
    }

    fn samples_of(request: &WriteRequest, name: &str) -> Vec<(f64, i64)> {
        of(request, name).flat_map(|series| &series.samples).map(|sample| (sample.value, sample.timestamp)).collect()
    }

    #[test]
    fn what_is_sent_is_what_the_protocol_says() {
        let metrics = PrometheusMetrics::new();
        metrics.set_metrics_prefix("ci_").unwrap();
        let sizes = crate::metrics::Pipeline { buffer_size: 1, flush_size: 200, concurrency: 1 };
        let reporter = PrometheusMetricsReporter::new(&metrics, "sqlite", "t", sizes);
        reporter.dropped(3);
        let sent = compress(&Written::default().request(&metrics.gather(), "here", 1_000)).unwrap();
        let request = WriteRequest::decode(&*snap::raw::Decoder::new().decompress_vec(&sent).unwrap()).unwrap();
        assert_eq!(samples_of(&request, "ci_batchsql_dropped_total"), [(3.0, 1_000)]);
        let dropped = of(&request, "ci_batchsql_dropped_total").next().unwrap();
        assert_eq!(["job", "instance", "test_name"].map(|name| label(dropped, name)), ["batchsql", "here", "t"]);
        for series in &request.timeseries {
            assert!(series.labels.windows(2).all(|two| two[0].name < two[1].name), "{series:?}");
        }
        let bounds: Vec<_> = of(&request, "ci_batchsql_test_duration_seconds_bucket").map(|series| label(series, "le")).collect();
        assert_eq!((bounds.first(), bounds.last(), bounds.len()), (Some(&"1"), Some(&"+Inf"), 12));
    }

    #[test]
    fn what_counts_begins_at_zero_and_time_only_goes_on() {
        let metrics = PrometheusMetrics::new();
        let counter = metrics.register_counter("imports_total", "Imports", &["kind"]).unwrap();
        let mut written = Written::default();
        let mut send = |millis| samples_of(&written.request(&metrics.gather(), "here", millis), "imports_total");
        assert!(send(1_000).is_empty());
        let nightly = counter.with(&["nightly"]);
        nightly.inc_by(5);
        assert_eq!(send(3_000), [(0.0, 1_000), (5.0, 3_000)]);
        nightly.inc();
        assert_eq!(send(2_000), [(6.0, 3_001)], "the clock was set back");
    }
}
