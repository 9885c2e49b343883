//! The `aiproxy_*` metrics of requests to models: as a gateway's clients see them, or as the gateway itself does.
//!
//! Names of channels, users and models come from requests, so each label is bounded: what exceeds its bound is counted as `other`.

use std::cell::{Cell, OnceCell};
use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock};
use std::time::{Duration, Instant};

use prometheus::local::{LocalCounter, LocalHistogram, LocalIntCounter};
use prometheus::proto::{Metric, MetricFamily, MetricType};
use prometheus::{Counter, Gauge, Histogram, IntCounter};

use super::names::{self, Spec};
use super::series::{Handle, Shape};
use super::{PrometheusMetrics, Tick, lock};

/// Channels, users and models told apart by name, of each; any further one is counted as [`OTHER`].
pub const MOST_VALUES: usize = 100;

/// What stands for everything beyond a bound.
pub const OTHER: &str = "other";

/// Combinations of labels kept with their handles; any further one is counted as [`OTHER`] in every label.
const MOST_COMBINATIONS: usize = 10_000;

/// One request that has ended.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Request<'a> {
    /// The upstream it went to.
    pub channel: &'a str,
    /// Whose it was. Never a key.
    pub user_name: &'a str,
    /// The model asked for.
    pub model: &'a str,
    /// `http`, `https`, `sse` or `websocket`.
    pub protocol: &'a str,
    /// Whether its reply came whole and well.
    pub success: bool,
    /// From the request to the end of its reply.
    pub response_time: Duration,
    /// From the request to the first token with content (streams).
    pub first_token: Option<Duration>,
    /// From each token to the next (streams).
    pub gaps: &'a [Duration],
    /// Tokens of the prompt and of the completion.
    pub tokens: [u64; 2],
    /// What they cost.
    pub cost: [f64; 2],
    /// Bytes of the request's body.
    pub request_bytes: u64,
    /// Bytes of the reply's body.
    pub response_bytes: u64,
}

/// One line of `/metrics`: what any source of metrics can tell.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// Its name; of a histogram with `_bucket`, `_sum` or `_count`.
    pub name: String,
    /// Its labels.
    pub labels: HashMap<String, String>,
    /// Its value.
    pub value: f64,
}

/// Feeds [`PrometheusMetrics`] from requests. Clones share everything.
#[derive(Clone)]
pub struct AiProxyMetrics {
    state: Arc<State>,
}

struct State {
    metrics: PrometheusMetrics,
    began: Instant,
    uptime: Gauge,
    bounds: Mutex<Bounds>,
    /// By the labels, joined.
    combinations: RwLock<HashMap<String, Arc<Combination>>>,
}

/// The channels, users and models seen so far.
#[derive(Default)]
struct Bounds([BTreeSet<String>; 3]);

/// Every series that one combination of channel, user, model and protocol touches.
struct Combination {
    channel: String,
    model: String,
    success: IntCounter,
    error: IntCounter,
    response_time: Histogram,
    tokens: [IntCounter; 2],
    cost: [Counter; 2],
    last_bytes: [Gauge; 2],
    bytes: [Histogram; 2],
    websockets: Option<IntCounter>,
    /// Time to the first token, and the gaps after it: shown once there is a stream.
    stream: OnceLock<[Histogram; 2]>,
}

impl AiProxyMetrics {
    /// Feeds `metrics` from now on.
    #[must_use]
    pub fn new(metrics: &PrometheusMetrics) -> Self {
        let state = Arc::new(State {
            metrics: metrics.clone(),
            began: Instant::now(),
            uptime: series(metrics, &names::AI_UPTIME, &[]).gauge(),
            bounds: Mutex::default(),
            combinations: RwLock::default(),
        });
        let ticking: Arc<dyn Tick> = state.clone();
        lock(&metrics.shared.reporters).push(Arc::downgrade(&ticking));
        Self { state }
    }

    /// How many API keys there are. A gateway says so, its clients do not: it tells whose series are the server's.
    pub fn set_api_keys(&self, keys: usize) {
        series(&self.state.metrics, &names::AI_API_KEYS, &[]).gauge().set(keys as f64);
    }

    /// How long SQLite's write-ahead log is. Only a gateway that writes to SQLite says so.
    pub fn set_wal_bytes(&self, bytes: u64) {
        series(&self.state.metrics, &names::AI_WAL_BYTES, &[]).gauge().set(bytes as f64);
    }

    /// Shows the counters of these labels at zero before their first request.
    pub fn expect(&self, channel: &str, user_name: &str, model: &str, protocol: &str) {
        self.state.combination(channel, user_name, model, protocol);
    }

    /// Counts a request.
    pub fn record(&self, request: &Request<'_>) {
        let state = &*self.state;
        let to = state.combination(request.channel, request.user_name, request.model, request.protocol);
        if request.success { &to.success } else { &to.error }.inc();
        to.response_time.observe(request.response_time.as_secs_f64());
        for kind in 0..2 {
            to.tokens[kind].inc_by(request.tokens[kind]);
            to.cost[kind].inc_by(request.cost[kind].max(0.0)); // a counter never falls
            let bytes = [request.request_bytes, request.response_bytes][kind] as f64;
            to.last_bytes[kind].set(bytes);
            to.bytes[kind].observe(bytes);
        }
        if let Some(sessions) = &to.websockets {
            sessions.inc();
        }
        if let Some(first) = request.first_token {
            let [first_token, inter_token] = to.stream(&state.metrics);
            first_token.observe(first.as_secs_f64());
            let local = inter_token.local();
            request.gaps.iter().for_each(|gap| local.observe(gap.as_secs_f64()));
        } // dropping `local` adds it up
    }

    /// The same series for one thread alone, of requests that have these labels.
    #[must_use]
    pub fn local(&self, channel: &str, user_name: &str, model: &str, protocol: &str) -> LocalSeries {
        let to = self.state.combination(channel, user_name, model, protocol);
        LocalSeries {
            metrics: self.state.metrics.clone(),
            success: to.success.local(),
            error: to.error.local(),
            response_time: to.response_time.local(),
            tokens: [to.tokens[0].local(), to.tokens[1].local()],
            cost: [to.cost[0].local(), to.cost[1].local()],
            last_bytes: Cell::new(None),
            bytes: [to.bytes[0].local(), to.bytes[1].local()],
            websockets: to.websockets.as_ref().map(IntCounter::local),
            stream: OnceCell::new(),
            to,
        }
    }

    /// All `aiproxy_*` counters and histograms as they are now.
    #[must_use]
    pub fn samples(&self) -> Vec<Sample> {
        let families = self.state.metrics.shared.series.gather();
        families.iter().filter(|family| family.name().starts_with("aiproxy_")).flat_map(samples).collect()
    }
}

impl State {
    /// The handles of these labels. Only the first request of a combination takes the lock for itself.
    fn combination(&self, channel: &str, user: &str, model: &str, protocol: &str) -> Arc<Combination> {
        let key = |channel, user, model| [channel, user, model, protocol].join("\0");
        if let Some(known) = self.known(&key(channel, user, model)) {
            return known;
        }
        let [channel, user, model] = lock(&self.bounds).within([channel, user, model]);
        if let Some(known) = self.known(&key(channel, user, model)) {
            return known;
        }
        let mut combinations = self.combinations.write().unwrap_or_else(PoisonError::into_inner);
        let full = combinations.len() >= MOST_COMBINATIONS;
        let [channel, user, model] = if full { [OTHER; 3] } else { [channel, user, model] };
        let new = || Arc::new(Combination::new(&self.metrics, channel, user, model, protocol));
        combinations.entry(key(channel, user, model)).or_insert_with(new).clone()
    }

    fn known(&self, key: &str) -> Option<Arc<Combination>> {
        self.combinations.read().unwrap_or_else(PoisonError::into_inner).get(key).cloned()
    }
}

impl Tick for State {
    fn tick(&self, now: Instant) {
        self.uptime.set(now.duration_since(self.began).as_secs_f64());
    }
}

impl Bounds {
    fn within<'a>(&mut self, mut values: [&'a str; 3]) -> [&'a str; 3] {
        for (seen, value) in self.0.iter_mut().zip(&mut values) {
            if !seen.contains(*value) && (seen.len() >= MOST_VALUES || !seen.insert((*value).to_owned())) {
                *value = OTHER;
            }
        }
        values
    }
}

impl Combination {
    fn new(metrics: &PrometheusMetrics, channel: &str, user: &str, model: &str, protocol: &str) -> Self {
        let requests = |status| series(metrics, &names::AI_REQUESTS, &[channel, user, model, status, protocol]).counter();
        let kinds = ["prompt", "completion"];
        Self {
            channel: channel.to_owned(),
            model: model.to_owned(),
            success: requests("success"),
            error: requests("error"),
            response_time: series(metrics, &names::AI_RESPONSE_TIME, &[channel, model, protocol]).histogram(),
            tokens: kinds.map(|kind| series(metrics, &names::AI_TOKENS, &[channel, model, kind]).counter()),
            cost: kinds.map(|kind| series(metrics, &names::AI_COST, &[channel, model, kind]).sum()),
            last_bytes: [names::AI_REQUEST_SIZE, names::AI_RESPONSE_SIZE].map(|spec| series(metrics, &spec, &[channel, user]).gauge()),
            bytes: [names::AI_REQUEST_BODY, names::AI_RESPONSE_BODY].map(|spec| series(metrics, &spec, &[channel]).histogram()),
            websockets: (protocol == "websocket").then(|| series(metrics, &names::AI_WEBSOCKETS, &[channel]).counter()),
            stream: OnceLock::new(),
        }
    }

    fn stream(&self, metrics: &PrometheusMetrics) -> &[Histogram; 2] {
        let made = |spec| series(metrics, &spec, &[&self.channel, &self.model]).histogram();
        self.stream.get_or_init(|| [names::AI_FIRST_TOKEN, names::AI_INTER_TOKEN].map(made))
    }
}

/// What one thread counts of one combination of labels, without touching what others touch: several threads that count into the
/// same cache lines wait for each other. Nothing of it is shown before [`Self::flush`].
pub struct LocalSeries {
    metrics: PrometheusMetrics,
    to: Arc<Combination>,
    success: LocalIntCounter,
    error: LocalIntCounter,
    response_time: LocalHistogram,
    tokens: [LocalIntCounter; 2],
    cost: [LocalCounter; 2],
    last_bytes: Cell<Option<[u64; 2]>>,
    bytes: [LocalHistogram; 2],
    websockets: Option<LocalIntCounter>,
    stream: OnceCell<[LocalHistogram; 2]>,
}

impl LocalSeries {
    /// Counts a request that has the labels this was made for.
    pub fn record(&self, request: &Request<'_>) {
        if request.success { &self.success } else { &self.error }.inc();
        self.response_time.observe(request.response_time.as_secs_f64());
        let bytes = [request.request_bytes, request.response_bytes];
        for (kind, bytes) in bytes.iter().enumerate() {
            self.tokens[kind].inc_by(request.tokens[kind]);
            self.cost[kind].inc_by(request.cost[kind].max(0.0)); // a counter never falls
            self.bytes[kind].observe(*bytes as f64);
        }
        self.last_bytes.set(Some(bytes));
        if let Some(sessions) = &self.websockets {
            sessions.inc();
        }
        if let Some(first) = request.first_token {
            let [first_token, inter_token] = self.stream.get_or_init(|| {
                let [first_token, inter_token] = self.to.stream(&self.metrics);
                [first_token.local(), inter_token.local()]
            });
            first_token.observe(first.as_secs_f64());
            request.gaps.iter().for_each(|gap| inter_token.observe(gap.as_secs_f64()));
        }
    }

    /// Adds up what was counted since the last time. Costs next to nothing if that is nothing.
    pub fn flush(&self) {
        let Some(last) = self.last_bytes.take() else { return };
        self.to.last_bytes.iter().zip(last).for_each(|(gauge, bytes)| gauge.set(bytes as f64));
        [&self.success, &self.error].into_iter().chain(&self.tokens).chain(&self.websockets).for_each(LocalIntCounter::flush);
        self.cost.iter().for_each(LocalCounter::flush);
        let streams = self.stream.get().into_iter().flatten();
        self.bytes.iter().chain(streams).chain([&self.response_time]).for_each(LocalHistogram::flush);
    }
}

fn series(metrics: &PrometheusMetrics, spec: &Spec, values: &[&str]) -> Handle {
    debug_assert_eq!(spec.labels.len(), values.len(), "{}", spec.name);
    let labels: Vec<_> = spec.labels.iter().copied().zip(values.iter().copied()).collect();
    metrics.shared.series.get(spec.name, spec.help, &labels, Shape::of(spec, 0))
}

/// The lines of `/metrics` that a family makes.
pub(crate) fn samples(family: &MetricFamily) -> Vec<Sample> {
    let labels = |metric: &Metric| metric.get_label().iter().map(|label| (label.name().to_owned(), label.value().to_owned())).collect();
    let one = |suffix: &str, labels, value| Sample { name: format!("{}{suffix}", family.name()), labels, value };
    let mut samples = Vec::new();
    for metric in family.get_metric() {
        match family.get_field_type() {
            MetricType::COUNTER => samples.push(one("", labels(metric), metric.get_counter().get_value())),
            MetricType::GAUGE => samples.push(one("", labels(metric), metric.get_gauge().get_value())),
            _ => {
                let histogram = metric.get_histogram();
                let bounds = histogram.get_bucket().iter().map(|bucket| (bucket.upper_bound().to_string(), bucket.cumulative_count()));
                for (bound, count) in bounds.chain([("+Inf".to_owned(), histogram.get_sample_count())]) {
                    let mut labels: HashMap<String, String> = labels(metric);
                    labels.insert("le".to_owned(), bound);
                    samples.push(one("_bucket", labels, count as f64));
                }
                samples.push(one("_sum", labels(metric), histogram.get_sample_sum()));
                samples.push(one("_count", labels(metric), histogram.get_sample_count() as f64));
            }
        }
    }
    samples
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    const STREAM: Request<'_> = Request {
        channel: "main",
        user_name: "ann",
        model: "small",
        protocol: "sse",
        success: true,
        response_time: Duration::from_millis(800),
        first_token: Some(Duration::from_millis(200)),
        gaps: &[Duration::from_millis(4), Duration::from_millis(40)],
        tokens: [12, 30],
        cost: [0.5, 0.25],
        request_bytes: 700,
        response_bytes: 5_000,
    };
    /// A request that touches every series.
    pub(in crate::metrics) const WEBSOCKET: Request<'_> = Request { protocol: "websocket", ..STREAM };

    /// The value of a series written as `name{label="value",…}`, labels in alphabetical order.
    fn value(metrics: &AiProxyMetrics, series: &str) -> Option<f64> {
        let written = |sample: &Sample| {
            let mut labels: Vec<_> = sample.labels.iter().map(|(label, value)| format!("{label}={value}")).collect();
            labels.sort();
            format!("{}{{{}}}", sample.name, labels.join(","))
        };
        metrics.samples().iter().find(|sample| written(sample) == series).map(|sample| sample.value)
    }

    #[test]
    fn every_metric_has_its_value_and_labels() {
        let exporter = PrometheusMetrics::new();
        let metrics = AiProxyMetrics::new(&exporter);
        metrics.record(&STREAM);
        metrics.record(&Request { success: false, first_token: None, gaps: &[], request_bytes: 90, tokens: [1, 0], ..STREAM });
        metrics.record(&Request { protocol: "websocket", model: "large", user_name: "bob", ..STREAM });
        metrics.set_api_keys(3);
        for (series, expected) in [
            ("aiproxy_requests_total{channel=main,model=small,protocol=sse,status=success,user_name=ann}", 1.0),
            ("aiproxy_requests_total{channel=main,model=small,protocol=sse,status=error,user_name=ann}", 1.0),
            ("aiproxy_requests_total{channel=main,model=large,protocol=websocket,status=error,user_name=bob}", 0.0),
            ("aiproxy_response_time_seconds_count{channel=main,model=small,protocol=sse}", 2.0),
            ("aiproxy_response_time_seconds_sum{channel=main,model=small,protocol=sse}", 1.6),
            ("aiproxy_response_time_seconds_bucket{channel=main,le=0.5,model=small,protocol=sse}", 0.0),
            ("aiproxy_response_time_seconds_bucket{channel=main,le=1,model=small,protocol=sse}", 2.0),
            ("aiproxy_response_time_seconds_bucket{channel=main,le=+Inf,model=small,protocol=sse}", 2.0),
            ("aiproxy_time_to_first_token_seconds_sum{channel=main,model=small}", 0.2),
            ("aiproxy_time_to_first_token_seconds_count{channel=main,model=small}", 1.0),
            ("aiproxy_inter_token_latency_seconds_count{channel=main,model=small}", 2.0),
            ("aiproxy_inter_token_latency_seconds_bucket{channel=main,le=0.005,model=small}", 1.0),
            ("aiproxy_tokens_total{channel=main,kind=prompt,model=small}", 13.0),
            ("aiproxy_tokens_total{channel=main,kind=completion,model=small}", 30.0),
            ("aiproxy_cost_total{channel=main,kind=prompt,model=small}", 1.0),
            ("aiproxy_cost_total{channel=main,kind=completion,model=large}", 0.25),
            ("aiproxy_request_size_bytes{channel=main,user_name=ann}", 90.0),
            ("aiproxy_response_size_bytes{channel=main,user_name=ann}", 5000.0),
            ("aiproxy_request_body_bytes_sum{channel=main}", 1490.0),
            ("aiproxy_request_body_bytes_bucket{channel=main,le=100}", 1.0),
            ("aiproxy_response_body_bytes_count{channel=main}", 3.0),
            ("aiproxy_websocket_connections_total{channel=main}", 1.0),
            ("aiproxy_api_keys_total{}", 3.0),
        ] {
            assert_eq!(value(&metrics, series), Some(expected), "{series}");
        }
        assert!(exporter.render().contains("aiproxy_cost_total{channel=\"main\",kind=\"prompt\",model=\"small\"} 1\n"));
    }

    #[test]
    fn what_threads_count_on_their_own_adds_up_once_flushed() {
        let (exporter, together) = (PrometheusMetrics::new(), PrometheusMetrics::new());
        let (metrics, expected) = (AiProxyMetrics::new(&exporter), AiProxyMetrics::new(&together));
        let local = |request: &Request<'_>| metrics.local(request.channel, request.user_name, request.model, request.protocol);
        let failed = Request { success: false, first_token: None, gaps: &[], request_bytes: 90, tokens: [1, 0], ..STREAM };
        let threads = [local(&STREAM), local(&STREAM), local(&WEBSOCKET)];
        for (thread, requests) in threads.iter().zip([&[STREAM, failed][..], &[STREAM], &[WEBSOCKET, WEBSOCKET]]) {
            for request in requests {
                thread.record(request);
                expected.record(request);
            }
        }
        let count = "aiproxy_requests_total{channel=main,model=small,protocol=sse,status=success,user_name=ann}";
        assert_eq!(value(&metrics, count), Some(0.0));
        threads.iter().for_each(LocalSeries::flush);
        threads.iter().for_each(LocalSeries::flush);
        assert_eq!(value(&metrics, count), Some(2.0));
        let all = |metrics: &AiProxyMetrics| {
            let counted = metrics.samples().into_iter().filter(|sample| sample.name != "aiproxy_uptime_seconds");
            counted
                .map(|sample| {
                    format!("{} {:?} {:.9}", sample.name, sample.labels.iter().collect::<std::collections::BTreeMap<_, _>>(), sample.value)
                })
                .collect::<Vec<_>>()
        };
        assert_eq!(all(&metrics), all(&expected));
    }

    #[test]
    fn users_beyond_the_hundredth_are_counted_as_other() {
        let metrics = AiProxyMetrics::new(&PrometheusMetrics::with_series_limit(10_000));
        for user in 0..150 {
            metrics.record(&Request { user_name: &format!("u{user}"), ..STREAM });
        }
        let requests = |user: &str| {
            value(&metrics, &format!("aiproxy_requests_total{{channel=main,model=small,protocol=sse,status=success,user_name={user}}}"))
        };
        assert_eq!((requests("u99"), requests("u100"), requests(OTHER)), (Some(1.0), None, Some(50.0)));
    }

    #[test]
    fn series_and_combinations_are_bounded_and_what_did_not_fit_is_counted() {
        let exporter = PrometheusMetrics::new();
        let metrics = AiProxyMetrics::new(&exporter);
        let name = |n: usize| format!("n{}", n % 90);
        for n in 0..MOST_COMBINATIONS + 500 {
            metrics.record(&Request { channel: &name(n), user_name: &name(n / 90), model: &name(n / 8_100), ..STREAM });
        }
        let text = exporter.render();
        let lines = text.lines().filter(|line| !line.starts_with('#')).count();
        assert_eq!((lines, metrics.state.combinations.read().unwrap().len()), (1000, MOST_COMBINATIONS + 1));
        let dropped = text.lines().find_map(|line| line.strip_prefix("batchsql_series_dropped_total ")).unwrap();
        assert!(dropped.parse::<u64>().unwrap() > 10_000, "{dropped}");
    }

    #[test]
    fn uptime_is_that_of_the_scrape_and_ends_with_its_owner() {
        let exporter = PrometheusMetrics::new();
        let metrics = AiProxyMetrics::new(&exporter);
        metrics.state.tick(metrics.state.began + Duration::from_secs(90));
        assert_eq!(value(&metrics, "aiproxy_uptime_seconds{}"), Some(90.0));
        let _ = exporter.render();
        assert!(value(&metrics, "aiproxy_uptime_seconds{}").unwrap() < 60.0);
    }

    #[test]
    fn promtool_complains_of_the_excused_name_alone() {
        let exporter = PrometheusMetrics::new();
        let metrics = AiProxyMetrics::new(&exporter);
        metrics.set_api_keys(3);
        metrics.record(&WEBSOCKET);
        let Some(said) = crate::metrics::tests::promtool(&exporter.render()) else { return };
        assert!(said.starts_with("aiproxy_api_keys_total ") && said.trim().lines().count() == 1, "{said}");
    }
}
