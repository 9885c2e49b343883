//! The plan of a scenario of requests.

use super::super::database_url::word;
use super::super::http::{HttpTarget, Start};
use super::super::proxy::{Mix, ProxyRequest, Replies};
use super::super::{Scenario, VerifyMethod};
use super::grouped;

/// `container`: what is started for it.
pub(super) fn service(http: &HttpTarget, container: Option<String>) -> String {
    let version = if http.version == Default::default() { String::new() } else { format!(", {}", word(&http.version)) };
    let direct = http.direct_url.as_ref().map(|url| format!("; each request paired with one to {url}")).unwrap_or_default();
    let place = match &http.start {
        Some(Start { upstream, gateway, own_process }) => {
            let each = [
                gateway.as_ref().map(|_| if *own_process { "the reference gateway in its own process" } else { "the reference gateway" }),
                upstream.as_ref().map(|_| "the mock upstream"),
            ];
            format!("{}, started for the run", each.into_iter().flatten().collect::<Vec<_>>().join(" before "))
        }
        None => container.unwrap_or_else(|| http.url.clone()),
    };
    format!("HTTP: {place}{version}{direct}")
}

pub(super) fn mix(proxy: &ProxyRequest) -> Vec<String> {
    let all: f64 = proxy.mix.iter().map(|mix| mix.weight).sum();
    proxy.mix.iter().map(|mix| format!("{:>5.1} % {}", mix.weight / all * 100.0, one(mix))).collect()
}

fn one(mix: &Mix) -> String {
    let checks = if mix.checks.any() { ", checked" } else { "" };
    let what = if let Some(chat) = &mix.chat {
        format!("POST {}, {}, {} tokens", chat.path, if chat.stream { "streamed" } else { "in one piece" }, chat.max_tokens)
    } else if let Some(http) = &mix.http {
        format!("{} {}", http.method, http.path)
    } else {
        mix.websocket.as_ref().map(|socket| format!("WebSocket {}, {} messages", socket.path, socket.messages)).unwrap_or_default()
    };
    let name = mix.name.as_ref().map(|name| format!("{name}: ")).unwrap_or_default();
    format!("{name}{what}{checks}")
}

pub(super) fn client(scenario: &Scenario) -> String {
    let Some(http) = &scenario.target.http else { return String::new() };
    let settings = http.client.over(http.profile);
    format!(
        "profile {}: {} connections a host, {} idle a host; first token within {}, gap {}, whole {}",
        word(&http.profile),
        settings.max_per_host.map_or_else(|| "any number of".to_owned(), |most| grouped(most as f64)),
        settings.max_idle_per_host,
        word(&http.timeouts.first_token),
        word(&http.timeouts.between_tokens),
        word(&http.timeouts.total)
    )
}

pub(super) fn verify(scenario: &Scenario, proxy: &ProxyRequest) -> Vec<String> {
    if scenario.verify.method == VerifyMethod::Off {
        return vec!["off: the run will be inconclusive".to_owned()];
    }
    let replies = match proxy.replies {
        Replies::Mock => "every reply is compared with the one right reply to its request",
        Replies::Any => "chats must be whole; replies are held against the checks",
    };
    let mut lines = vec![replies.to_owned()];
    let started = scenario.target.http.as_ref().and_then(|http| http.start.as_ref()?.upstream.as_ref());
    if scenario.verify.upstream_ledger.is_some() || started.is_some() {
        lines.push("every acknowledged chat must have reached the upstream once".to_owned());
    }
    if let Some(reconcile) = &scenario.reconcile {
        lines.push(format!(
            "every acknowledged request must have one right row in the gateway's log, waited for {} at most",
            word(&reconcile.wait)
        ));
    }
    if let Some(allowed) = scenario.verify.allow_lost {
        lines.push(format!("log rows of the last {} before the last answer may be missing", word(&allowed.within)));
    }
    lines
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::plan;

    #[test]
    fn a_gateway_of_ones_own_is_shown_without_its_keys() {
        let value = json!({
            "name": "gateway", "target": {"http": {
                "url": "https://127.0.0.1:8443/api", "direct_url": "http://127.0.0.1:3002", "version": "http2",
                "client": {"max_per_host": 200}, "profile": "aggressive", "timeouts": {"first_token": "5s"}
            }},
            "workload": {"proxy_request": {
                "users": [{"name": "ann", "key": "sk-s3cret"}], "replies": "mock",
                "mix": [
                    {"name": "chat", "weight": 3, "chat": {}}, {"chat": {"stream": true, "max_tokens": 64}, "weight": 2},
                    {"http": {"method": "POST", "path": "/v1/embeddings"}, "checks": {"status": [200]}, "weight": 2},
                    {"name": "echo", "websocket": {"messages": 9}}
                ]
            }},
            "load": {"executor": "constant-arrival-rate", "rate": 250, "duration": "30s", "max_in_flight": 500},
            "verify": {"upstream_ledger": "upstream.jsonl", "allow_lost": {"within": "5s"}},
            "reconcile": {"database": {"mysql": {"url": "mysql://bob:s3cret@127.0.0.1/log"}}, "wait": "1m"},
            "gates": ["time_to_first_token.p99 < 1s", "requests_per_second >= 240"]
        });
        let text = plan(&serde_json::from_value(value).unwrap(), &[]);
        assert!(!text.contains("s3cret"), "{text}");
        insta::assert_snapshot!(text);
    }

    #[test]
    fn what_a_scenario_starts_is_said() {
        let value = json!({
            "name": "quickstart", "target": {"http": {"start": {"upstream": {}, "gateway": {}}, "direct_url": "upstream"}},
            "workload": {"proxy_request": {"requests": 20_000, "mix": [{"chat": {}}]}},
            "load": {"executor": "shared-iterations", "vus": 16}, "reconcile": {}
        });
        insta::assert_snapshot!(plan(&serde_json::from_value(value).unwrap(), &[]));
    }
}
