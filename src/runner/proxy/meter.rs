//! The `aiproxy_*` metrics of a run: its requests as the client sees them.

use std::collections::HashMap;
use std::time::Duration;

use crate::http::{Headers, Reply};
use crate::metrics::PrometheusMetrics;
use crate::metrics::aiproxy::{AiProxyMetrics, LocalSeries, Request};
use crate::scenario::proxy::{Mix, ProxyRequest};
use crate::workload::proxy_request::Operation;

/// What stands for a label that a request does not have.
const NONE: &str = "-";

/// Combinations of labels that are shown at zero before their first request, so that `rate()` sees it.
const MOST_EXPECTED: usize = 100;

/// The labels of a run's requests. The lanes share it and count in a [`Counted`] of their own.
pub(super) struct Meter {
    metrics: AiProxyMetrics,
    workload: ProxyRequest,
    routes: Vec<RouteLabels>,
}

/// What the requests of a route are counted under.
struct RouteLabels {
    protocol: &'static str,
    /// Whether they name a model, and a channel.
    model: bool,
    channel: bool,
}

/// What one lane has counted: by the numbers of route, channel, user and model.
#[derive(Default)]
pub(super) struct Counted(HashMap<[usize; 4], LocalSeries>);

/// A request that has ended.
pub(super) struct Ended<'a> {
    pub(super) acknowledged: bool,
    pub(super) took: Duration,
    /// Bytes of the request's body.
    pub(super) body: u64,
    /// What came back, as far as it did.
    pub(super) reply: Option<&'a Reply>,
}

impl Meter {
    pub(super) fn new(metrics: &PrometheusMetrics, workload: &ProxyRequest, url: &str) -> Self {
        let plain = if url.starts_with("https:") { "https" } else { "http" };
        let routes = workload.mix.iter().map(|mix| RouteLabels::new(mix, plain)).collect();
        let meter = Self { metrics: AiProxyMetrics::new(metrics), workload: workload.clone(), routes };
        meter.expect();
        meter
    }

    fn expect(&self) {
        let numbers = |list: usize| 0..list.max(1);
        let places = numbers(self.routes.len()).flat_map(|route| {
            let models = numbers(self.workload.models.len());
            models.flat_map(move |model| numbers(self.workload.channels.len()).map(move |channel| (route, channel, model)))
        });
        let all =
            places.flat_map(|(route, channel, model)| numbers(self.workload.users.len()).map(move |user| [route, channel, user, model]));
        for place in all.take(MOST_EXPECTED) {
            let [channel, user, model, protocol] = self.labels(place);
            self.metrics.expect(channel, user, model, protocol);
        }
    }

    fn place(&self, operation: &Operation) -> [usize; 4] {
        let route = &self.routes[operation.route];
        let named = |is: bool, number: usize| if is { number } else { 0 };
        [operation.route, named(route.channel, operation.channel), operation.user, named(route.model, operation.model)]
    }

    fn labels(&self, [route, channel, user, model]: [usize; 4]) -> [&str; 4] {
        let (labels, workload) = (&self.routes[route], &self.workload);
        let channel = if labels.channel { workload.channels.get(channel).map_or(NONE, String::as_str) } else { NONE };
        let model = if labels.model { &workload.models[model] } else { NONE };
        [channel, &workload.users[user].name, model, labels.protocol]
    }
}

impl RouteLabels {
    fn new(mix: &Mix, plain: &'static str) -> Self {
        let protocol = match (&mix.chat, &mix.websocket) {
            (Some(chat), _) if chat.stream => "sse",
            (_, Some(_)) => "websocket",
            _ => plain,
        };
        Self { protocol, model: mix.chat.is_some() || has(mix, "{{model}}"), channel: has(mix, "{{channel}}") }
    }
}

/// Whether a template of this kind of request has `placeholder`.
fn has(mix: &Mix, placeholder: &str) -> bool {
    let chat = mix.chat.iter().flat_map(|chat| chat.headers.values());
    let plain = mix.http.iter().flat_map(|http| http.query.values().chain(http.headers.values()).chain([&http.path, &http.body]));
    chat.chain(plain).any(|text| text.contains(placeholder))
}

impl Counted {
    /// Counts a request. Only the first of its labels takes a lock.
    pub(super) fn count(&mut self, meter: &Meter, operation: &Operation, ended: &Ended<'_>) {
        let place = meter.place(operation);
        let labels @ [channel, user_name, model, protocol] = meter.labels(place);
        let series = self.0.entry(place).or_insert_with(|| {
            let [channel, user_name, model, protocol] = labels;
            meter.metrics.local(channel, user_name, model, protocol)
        });
        let chat = ended.reply.and_then(|reply| reply.chat.as_ref());
        let (prompt, completion) = chat.and_then(|chat| chat.usage).unwrap_or_default();
        let stream = chat.filter(|chat| chat.streamed && protocol == "sse");
        series.record(&Request {
            channel,
            user_name,
            model,
            protocol,
            success: ended.acknowledged,
            response_time: ended.took,
            first_token: ended.reply.zip(stream).and_then(|(reply, chat)| Some(chat.first_token?.saturating_duration_since(reply.sent))),
            gaps: stream.map_or(&[], |chat| &chat.gaps),
            tokens: [prompt, completion],
            cost: [0.0; 2], // prices are the gateway's
            request_bytes: ended.body,
            response_bytes: ended.reply.map_or(0, body_bytes),
        });
    }

    /// Shows what was counted.
    pub(super) fn flush(&self) {
        self.0.values().for_each(LocalSeries::flush);
    }
}

/// Bytes of a reply's body as they came.
fn body_bytes(reply: &Reply) -> u64 {
    match &reply.headers {
        Headers::Raw(head) => reply.bytes_received.saturating_sub(head.len() as u64),
        Headers::Map(_) => reply.bytes_received,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::workload::proxy_request::Generator;

    #[test]
    fn a_request_is_counted_under_what_it_names() {
        let workload: ProxyRequest = serde_json::from_value(json!({
            "users": [{"name": "ann"}, {"name": "bob"}], "models": ["small", "large"], "channels": ["east", "west"],
            "mix": [
                {"chat": {"stream": true}}, {"chat": {"headers": {"x-channel": "{{channel}}"}}}, {"websocket": {}},
                {"http": {}}, {"http": {"path": "/{{channel}}", "body": "{{model}}"}}
            ]
        }))
        .unwrap();
        let exporter = PrometheusMetrics::new();
        let meter = Meter::new(&exporter, &workload, "https://127.0.0.1:1");
        let generator = Generator::new(1, "r", &workload);
        let labels = |route| {
            let wanted = |o: &Operation| (o.route, o.user, o.model, o.channel) == (route, 1, 1, 1);
            meter.labels(meter.place(&(0..).map(|index| generator.operation(index)).find(wanted).unwrap()))
        };
        assert_eq!(labels(0), ["-", "bob", "large", "sse"]);
        assert_eq!(labels(1), ["west", "bob", "large", "https"]);
        assert_eq!(labels(2), ["-", "bob", "-", "websocket"]);
        assert_eq!(labels(3), ["-", "bob", "-", "https"]);
        assert_eq!(labels(4), ["west", "bob", "large", "https"]);
        let shown = exporter.render();
        // 2 users: 2 models; 2 models by 2 channels (of which routes 1 and 4 share theirs); nothing; nothing.
        assert_eq!(shown.matches("status=\"success\"").count(), 2 * (2 + 4 + 1 + 1), "{shown}");
        assert!(!shown.contains("time_to_first_token"), "nothing was counted yet");
    }
}
