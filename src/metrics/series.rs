//! Every series by its name and labels, made once, under one hard limit.

use std::collections::HashMap;
use std::sync::Mutex;

use prometheus::core::Collector;
use prometheus::proto::MetricFamily;
use prometheus::{Counter, Gauge, Histogram, HistogramOpts, IntCounter, Opts, Registry};

use super::lock;
use super::names::{self, Kind, Spec};
use super::striped::StripedHistogram;

/// What a series is made as.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Shape {
    Counter,
    /// A counter of what is no whole number.
    Sum,
    Gauge,
    Histogram(Vec<f64>),
    /// A histogram for what happens once a row.
    Striped(Vec<f64>),
}

impl Shape {
    pub(super) fn of(spec: &Spec, largest_batch: usize) -> Self {
        match spec.kind {
            Kind::Counter if spec.name == names::AI_COST.name => Shape::Sum,
            Kind::Counter => Shape::Counter,
            Kind::Gauge => Shape::Gauge,
            Kind::Histogram(buckets) if spec.name == names::ENQUEUE_LATENCY.name => Shape::Striped(buckets.bounds(largest_batch)),
            Kind::Histogram(buckets) => Shape::Histogram(buckets.bounds(largest_batch)),
        }
    }

    /// Lines it takes in `/metrics`: a histogram has one a bucket, and `+Inf`, sum and count.
    fn lines(&self) -> usize {
        match self {
            Shape::Counter | Shape::Sum | Shape::Gauge => 1,
            Shape::Histogram(bounds) | Shape::Striped(bounds) => bounds.len() + 3,
        }
    }
}

/// One series, for writing.
#[derive(Clone)]
pub(super) enum Handle {
    Counter(IntCounter),
    Sum(Counter),
    Gauge(Gauge),
    Histogram(Histogram),
    Striped(StripedHistogram),
}

impl Handle {
    fn new(shape: &Shape, opts: Opts) -> prometheus::Result<Self> {
        Ok(match shape {
            Shape::Counter => Handle::Counter(IntCounter::with_opts(opts)?),
            Shape::Sum => Handle::Sum(Counter::with_opts(opts)?),
            Shape::Gauge => Handle::Gauge(Gauge::with_opts(opts)?),
            Shape::Histogram(bounds) => Handle::Histogram(Histogram::with_opts(HistogramOpts::from(opts).buckets(bounds.clone()))?),
            Shape::Striped(bounds) => Handle::Striped(StripedHistogram::with_opts(&HistogramOpts::from(opts).buckets(bounds.clone()))?),
        })
    }

    fn collector(&self) -> Box<dyn Collector> {
        match self {
            Handle::Counter(counter) => Box::new(counter.clone()),
            Handle::Sum(sum) => Box::new(sum.clone()),
            Handle::Gauge(gauge) => Box::new(gauge.clone()),
            Handle::Histogram(histogram) => Box::new(histogram.clone()),
            Handle::Striped(histogram) => Box::new(histogram.clone()),
        }
    }

    pub(super) fn counter(self) -> IntCounter {
        let Handle::Counter(counter) = self else { unreachable!("it was asked for as a counter") };
        counter
    }

    pub(super) fn sum(self) -> Counter {
        let Handle::Sum(sum) = self else { unreachable!("it was asked for as a sum") };
        sum
    }

    pub(super) fn gauge(self) -> Gauge {
        let Handle::Gauge(gauge) = self else { unreachable!("it was asked for as a gauge") };
        gauge
    }

    pub(super) fn histogram(self) -> Histogram {
        let Handle::Histogram(histogram) = self else { unreachable!("it was asked for as a histogram") };
        histogram
    }

    pub(super) fn striped(self) -> StripedHistogram {
        let Handle::Striped(histogram) = self else { unreachable!("it was asked for as a striped histogram") };
        histogram
    }
}

/// Name and label values.
type Key = (String, Vec<String>);

pub(super) struct Series {
    registry: Registry,
    known: Mutex<Known>,
    refused: IntCounter,
    limit: usize,
}

struct Known {
    /// Lines shown.
    lines: usize,
    series: HashMap<Key, (Shape, Handle)>,
    /// What the user's own metrics were declared as: labels, help and shape.
    declared: HashMap<String, (Vec<String>, String, Shape)>,
}

impl Series {
    pub(super) fn new(limit: usize) -> Self {
        let registry = Registry::new();
        let spec = names::SERIES_DROPPED;
        let refused = IntCounter::new(spec.name, spec.help).expect("a fixed valid name");
        registry.register(Box::new(refused.clone())).expect("the first metric");
        let known = Known { lines: 1, series: HashMap::new(), declared: HashMap::new() };
        Self { registry, known: Mutex::new(known), refused, limit }
    }

    pub(super) fn gather(&self) -> Vec<MetricFamily> {
        self.registry.gather()
    }

    /// Checks a user's metric once, so that [`Self::get`] cannot fail on it.
    pub(super) fn declare(&self, name: &str, help: &str, labels: &[&str], shape: &Shape) -> Result<(), String> {
        let opts = labels.iter().fold(Opts::new(name, help), |opts, label| opts.const_label(*label, ""));
        Handle::new(shape, opts).map_err(|error| error.to_string())?;
        if labels.iter().enumerate().any(|(position, label)| labels[..position].contains(label)) {
            return Err(format!("a label is named twice among {labels:?}"));
        }
        let declaration = (labels.iter().map(|&label| label.to_owned()).collect(), help.to_owned(), shape.clone());
        let mut known = lock(&self.known);
        let before = known.declared.entry(name.to_owned()).or_insert_with(|| declaration.clone());
        if *before == declaration { Ok(()) } else { Err("it is registered already with other labels, help or buckets".to_owned()) }
    }

    /// The series of these labels, made if there is none. Beyond the limit it works but is not shown.
    pub(super) fn get(&self, name: &str, help: &str, labels: &[(&str, &str)], shape: Shape) -> Handle {
        let key = (name.to_owned(), labels.iter().map(|(_, value)| (*value).to_owned()).collect());
        let mut known = lock(&self.known);
        if let Some((before, handle)) = known.series.get(&key) {
            if *before == shape {
                return handle.clone();
            }
            // Larger batches than before need other buckets.
            self.forget(&mut known, &key);
        }
        let opts = labels.iter().fold(Opts::new(name, help), |opts, (label, value)| opts.const_label(*label, *value));
        let handle = Handle::new(&shape, opts).expect("the name was checked when it was declared");
        if known.lines + shape.lines() > self.limit || self.registry.register(handle.collector()).is_err() {
            self.refused.inc();
            return handle;
        }
        known.lines += shape.lines();
        known.series.insert(key, (shape, handle.clone()));
        handle
    }

    /// Takes a series away, so that it is absent until it is asked for again.
    pub(super) fn remove(&self, name: &str, values: &[&str]) {
        let key = (name.to_owned(), values.iter().map(|&value| value.to_owned()).collect());
        self.forget(&mut lock(&self.known), &key);
    }

    fn forget(&self, known: &mut Known, key: &Key) {
        if let Some((shape, handle)) = known.series.remove(key) {
            known.lines -= shape.lines();
            // It is there: whatever is in `series` was registered.
            let _ = self.registry.unregister(handle.collector());
        }
    }
}
