//! Metrics to an OpenTelemetry collector, by OTLP over HTTP in protobuf, and what its traces share with them.

use std::time::Duration;

use bytes::Bytes;
use http::HeaderValue;
use http::header::{CONTENT_TYPE, USER_AGENT};
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue};
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::number_data_point::Value as Number;
use opentelemetry_proto::tonic::metrics::v1::{
    AggregationTemporality, Gauge, Histogram, HistogramDataPoint, Metric, NumberDataPoint, ResourceMetrics, ScopeMetrics, Sum,
};
use opentelemetry_proto::tonic::resource::v1::Resource;
use prost::Message as _;

use super::push::{Push, Receiver};
use crate::http::service::Service;
use crate::metrics::{IntCounter, MetricFamily, MetricType, Series};

/// Label `destination` of what was given up.
pub(super) const NAME: &str = "otlp_metrics";

/// The way to a collector, for metrics.
pub(super) struct OtlpMetrics {
    push: Push,
    resource: Resource,
    /// Since when everything counts, in nanoseconds since the epoch.
    began: u64,
}

/// A collector's endpoint for one signal.
pub(super) fn receiver(service: Service, name: &'static str, values: &'static str, path: &'static str) -> Receiver {
    let headers = vec![
        (CONTENT_TYPE, HeaderValue::from_static("application/x-protobuf")),
        (USER_AGENT, HeaderValue::from_static(concat!("batchsql/", env!("CARGO_PKG_VERSION")))),
    ];
    Receiver { name, values, service, path, headers, remember: Duration::ZERO }
}

/// Who sends.
pub(super) fn resource(instance: &str) -> Resource {
    let attributes = vec![
        attribute("service.name", text("batchsql")),
        attribute("service.version", text(env!("CARGO_PKG_VERSION"))),
        attribute("service.instance.id", text(instance)),
    ];
    Resource { attributes, ..Resource::default() }
}

pub(super) fn scope() -> Option<InstrumentationScope> {
    Some(InstrumentationScope { name: "batchsql".to_owned(), ..InstrumentationScope::default() })
}

pub(super) fn attribute(key: &str, value: Value) -> KeyValue {
    KeyValue { key: key.to_owned(), value: Some(AnyValue { value: Some(value) }), ..KeyValue::default() }
}

pub(super) fn text(value: &str) -> Value {
    Value::StringValue(value.to_owned())
}

impl OtlpMetrics {
    pub(super) fn start(service: Service, instance: &str, began: u64, dropped: IntCounter) -> Self {
        let receiver = receiver(service, "OTLP metrics", "data points", "/v1/metrics");
        Self { push: Push::start(receiver, dropped), resource: resource(instance), began }
    }

    /// Sends all families as they were at `now`, in nanoseconds since the epoch.
    pub(super) fn send(&self, families: &[MetricFamily], now: u64) {
        let points = families.iter().map(|family| family.get_metric().len() as u64).sum();
        let metrics = families.iter().map(|family| self.metric(family, now)).collect();
        let scope_metrics = vec![ScopeMetrics { scope: scope(), metrics, ..ScopeMetrics::default() }];
        let resource = Some(self.resource.clone());
        let resource_metrics = vec![ResourceMetrics { resource, scope_metrics, ..ResourceMetrics::default() }];
        self.push.send(Bytes::from(ExportMetricsServiceRequest { resource_metrics }.encode_to_vec()), points);
    }

    pub(super) async fn finish(&self) {
        self.push.finish().await;
    }

    fn metric(&self, family: &MetricFamily, now: u64) -> Metric {
        let aggregation_temporality = AggregationTemporality::Cumulative.into();
        let series = family.get_metric().iter();
        let data = match family.get_field_type() {
            MetricType::HISTOGRAM => {
                let data_points = series.map(|series| self.histogram(series, now)).collect();
                Data::Histogram(Histogram { data_points, aggregation_temporality })
            }
            MetricType::COUNTER => {
                let data_points = series.map(|series| self.number(series, series.get_counter().get_value(), now)).collect();
                Data::Sum(Sum { data_points, aggregation_temporality, is_monotonic: true })
            }
            _ => {
                let data_points = series.map(|series| self.number(series, series.get_gauge().get_value(), now)).collect();
                Data::Gauge(Gauge { data_points })
            }
        };
        Metric { name: family.name().to_owned(), description: family.help().to_owned(), data: Some(data), ..Metric::default() }
    }

    fn number(&self, series: &Series, value: f64, now: u64) -> NumberDataPoint {
        NumberDataPoint {
            attributes: attributes(series),
            start_time_unix_nano: self.began,
            time_unix_nano: now,
            value: Some(Number::AsDouble(value)),
            ..NumberDataPoint::default()
        }
    }

    fn histogram(&self, series: &Series, now: u64) -> HistogramDataPoint {
        let histogram = series.get_histogram();
        // There each bucket holds all below it too, here its own; and the last one has no bound.
        let up_to = histogram.get_bucket().iter().map(|bucket| bucket.cumulative_count()).chain([histogram.get_sample_count()]);
        HistogramDataPoint {
            attributes: attributes(series),
            start_time_unix_nano: self.began,
            time_unix_nano: now,
            count: histogram.get_sample_count(),
            sum: Some(histogram.get_sample_sum()),
            bucket_counts: up_to.scan(0, |below, all| Some(all.saturating_sub(std::mem::replace(below, all)))).collect(),
            explicit_bounds: histogram.get_bucket().iter().map(|bucket| bucket.upper_bound()).collect(),
            ..HistogramDataPoint::default()
        }
    }
}

fn attributes(series: &Series) -> Vec<KeyValue> {
    series.get_label().iter().map(|label| attribute(label.name(), text(label.value()))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::PrometheusMetrics;

    #[tokio::test]
    async fn families_become_sums_gauges_and_histograms() {
        let metrics = PrometheusMetrics::new();
        metrics.set_environment("ci");
        metrics.register_counter("imports_total", "Imports", &["kind"]).unwrap().with(&["nightly"]).inc_by(5);
        let times = metrics.register_histogram("import_seconds", "Imports", &[], &[1.0, 10.0]).unwrap().with(&[]);
        [0.5, 5.0, 6.0, 70.0].iter().for_each(|seconds| times.observe(*seconds));
        let service = Service::new("--otlp", "http://127.0.0.1:9", "").unwrap();
        let otlp = OtlpMetrics::start(service, "here", 7, metrics.push_dropped(NAME));
        let families = metrics.gather();
        let metric = |name: &str| otlp.metric(families.iter().find(|family| family.name() == name).unwrap(), 9);
        let Some(Data::Sum(sum)) = metric("imports_total").data else { panic!("no sum") };
        assert!(sum.is_monotonic && sum.aggregation_temporality() == AggregationTemporality::Cumulative);
        let [point] = sum.data_points.as_slice() else { panic!("{sum:?}") };
        assert_eq!((point.start_time_unix_nano, point.time_unix_nano, point.value), (7, 9, Some(Number::AsDouble(5.0))));
        assert_eq!(point.attributes, [attribute("kind", text("nightly")), attribute("env", text("ci"))]);
        let Some(Data::Histogram(histogram)) = metric("import_seconds").data else { panic!("no histogram") };
        let [point] = histogram.data_points.as_slice() else { panic!("{histogram:?}") };
        assert_eq!((point.count, point.sum), (4, Some(81.5)));
        assert_eq!((&point.bucket_counts[..], &point.explicit_bounds[..]), (&[1, 2, 1][..], &[1.0, 10.0][..]));
    }
}
