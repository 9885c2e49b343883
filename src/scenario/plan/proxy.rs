//! The plan of a scenario of requests.

use super::super::database_url::word;
use super::super::http::HttpTarget;
use super::super::proxy::{Mix, ProxyRequest, Replies};
use super::super::{Scenario, VerifyMethod};
use super::grouped;

pub(super) fn service(http: &HttpTarget) -> String {
    let version = if http.version == Default::default() { String::new() } else { format!(", {}", word(&http.version)) };
    let direct = http.direct_url.as_ref().map(|url| format!("; paired with {url}")).unwrap_or_default();
    format!("HTTP: {}{version}{direct}", http.url)
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
    if scenario.verify.upstream_ledger.is_some() {
        lines.push("every request must have reached the upstream once".to_owned());
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
