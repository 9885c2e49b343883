//! Services that speak HTTP: each asked how it is by its own words.

use std::time::SystemTime;

use anyhow::Context as _;
use http::header::DATE;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::{Finding, LIMIT, Place};
use crate::http::service::{Answer, Service};

/// How to start what is not there.
const START: &str = "docker compose -f docker-compose.integration.yml up -d --wait";

/// What came of asking one service.
#[derive(Default)]
pub(super) struct Asked {
    pub(super) findings: Vec<Finding>,
    /// How many seconds its clock is ahead of ours.
    pub(super) skew: Option<f64>,
    /// Where queries can be asked.
    pub(super) query: Option<Service>,
}

/// A service that listens, and its first answer.
struct Met {
    service: Service,
    answer: Answer,
    skew: Option<f64>,
}

impl Met {
    fn found(self, finding: Finding) -> Asked {
        Asked { findings: vec![finding], skew: self.skew, query: None }
    }
}

/// Asks `path`; `Err` says how the part is if there is no answer to go on with.
async fn meet(part: &str, place: &Place, path: &str) -> Result<Met, Asked> {
    let only = |finding| Asked { findings: vec![finding], ..Asked::default() };
    let service = match Service::new(place.flag, &place.url, "http://127.0.0.1:9090") {
        Ok(service) => service,
        Err(error) => return Err(only(Finding::ill(part, format!("{error:#}"), format!("correct {}", place.flag)))),
    };
    match service.get(path, &[], LIMIT).await {
        Ok(answer) => {
            let skew = answer.headers.get(DATE).and_then(|date| date.to_str().ok()).and_then(ahead);
            Ok(Met { service, answer, skew })
        }
        Err(error) => {
            let mend = format!("start it, e.g. with {START}, or correct {}", place.flag);
            Err(only(Finding::missing(place.named, part, format!("{}: {error:#}", service.shown()), mend)))
        }
    }
}

/// How many seconds a clock that says `date` (as HTTP writes it, in whole seconds) is ahead.
fn ahead(date: &str) -> Option<f64> {
    let theirs = jiff::fmt::rfc2822::parse(date).ok()?.timestamp().as_second() as f64 + 0.5;
    let ours = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).ok()?.as_secs_f64();
    Some(theirs - ours)
}

/// Its answer as JSON, if it says yes.
fn read<T: DeserializeOwned>(answer: Answer) -> anyhow::Result<T> {
    serde_json::from_slice(&answer.success()?).context("its answer is not what such a service says; is it another one?")
}

async fn ask(service: &Service, path: &str, query: &[(&str, &str)]) -> anyhow::Result<Value> {
    read(service.get(path, query, LIMIT).await?)
}

fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

pub(super) async fn gateway(place: &Place) -> Asked {
    let met = match meet("gateway", place, "/health").await {
        Ok(met) => met,
        Err(asked) => return asked,
    };
    let shown = met.service.shown().to_owned();
    let finding = match read::<Value>(met.answer.clone()) {
        Ok(health) if text(&health, "/status") == "ok" => Finding::well("gateway", format!("{shown}: ok{}", log_of(&health))),
        Ok(health) => {
            let found = format!("{shown}: status {:?}, {} log rows lost", text(&health, "/status"), health["log"]["lost"]);
            Finding::ill("gateway", found, "read its output for why rows of its log were not written; mend the database, restart it")
        }
        Err(error) => Finding::ill("gateway", format!("{shown}: {error:#}"), "read its output, or correct --gateway-url"),
    };
    met.found(finding)
}

/// The database of a gateway of ours with its settings, as read back on its own connections.
fn log_of(health: &Value) -> String {
    let Some(settings) = health.pointer("/database/settings").and_then(Value::as_object) else { return String::new() };
    let settings: Vec<String> = settings.iter().map(|(name, value)| format!("{name} = {}", value.as_str().unwrap_or_default())).collect();
    let wal =
        health.pointer("/database/wal/bytes").and_then(Value::as_u64).map_or(String::new(), |b| format!("; write-ahead log {b} bytes"));
    let database = text(health, "/database/name");
    let settings = if database == "SQLite" { format!(": {}", settings.join(", ")) } else { String::new() };
    format!("; log in {database} {}{settings}{wal}", text(health, "/database/version"))
}

pub(super) async fn prometheus(place: &Place) -> Asked {
    let met = match meet("prometheus", place, "/-/ready").await {
        Ok(met) => met,
        Err(asked) => return asked,
    };
    let shown = met.service.shown().to_owned();
    if !met.answer.status.is_success() {
        let found = format!("{shown}: not ready, it answered {}", met.answer.status);
        return met.found(Finding::ill("prometheus", found, "wait until it has read its write-ahead log, or read its output"));
    }
    let (targets, rules) =
        tokio::join!(ask(&met.service, "/api/v1/targets", &[("state", "active")]), ask(&met.service, "/api/v1/rules", &[]));
    let mut findings = vec![match &rules {
        Ok(rules) => rules_of(&shown, rules),
        Err(error) => Finding::ill("prometheus", format!("{shown}: {error:#}"), "read its output, or correct --prometheus-url"),
    }];
    match targets {
        Ok(targets) => findings.extend(targets["data"]["activeTargets"].as_array().into_iter().flatten().map(target)),
        Err(error) => {
            findings.push(Finding::ill("prometheus targets", format!("{error:#}"), "read its output, or correct --prometheus-url"));
        }
    }
    Asked { findings, skew: met.skew, query: Some(met.service) }
}

/// Prometheus itself: whether its rules can be evaluated.
fn rules_of(shown: &str, answer: &Value) -> Finding {
    let groups = answer["data"]["groups"].as_array().into_iter().flatten();
    let rules: Vec<&Value> = groups.flat_map(|group| group["rules"].as_array().into_iter().flatten()).collect();
    let broken: Vec<String> = rules
        .iter()
        .filter(|rule| rule["health"] == "err")
        .map(|rule| format!("{} ({})", text(rule, "/name"), text(rule, "/lastError")))
        .collect();
    let firing: Vec<&str> = rules.iter().filter(|rule| rule["state"] == "firing").map(|rule| text(rule, "/name")).collect();
    if !broken.is_empty() {
        return Finding::ill("prometheus", format!("{shown}: rules fail: {}", broken.join(", ")), "correct them, then POST /-/reload");
    }
    let firing = if firing.is_empty() { "none fires".to_owned() } else { format!("firing: {}", firing.join(", ")) };
    Finding::well("prometheus", format!("{shown}: ready; {} rules, {firing}", rules.len()))
}

/// One thing that Prometheus scrapes. The harness is only there while it runs.
fn target(target: &Value) -> Finding {
    let job = text(target, "/labels/job");
    let part = format!("target {job} {}", text(target, "/labels/instance"));
    match text(target, "/health") {
        "up" => Finding::well(part, format!("up, scraped in {:.0} ms", target["lastScrapeDuration"].as_f64().unwrap_or_default() * 1e3)),
        "down" if job == "batchsql" => Finding::missing(false, part, "no run is under way", "none is needed"),
        "down" => {
            let mend =
                format!("start it, or correct its address in Prometheus's configuration; by hand: curl {}", text(target, "/scrapeUrl"));
            Finding::ill(part, text(target, "/lastError"), mend)
        }
        _ => Finding::well(part, "not scraped yet"),
    }
}

pub(super) async fn victoriametrics(place: &Place) -> Asked {
    let met = match meet("victoriametrics", place, "/health").await {
        Ok(met) => met,
        Err(asked) => return asked,
    };
    let shown = met.service.shown().to_owned();
    match ask(&met.service, "/api/v1/query", &[("query", "vector(1)")]).await {
        Ok(answer) if answer["status"] == "success" => {
            let finding = Finding::well("victoriametrics", format!("{shown}: answers queries"));
            Asked { findings: vec![finding], skew: met.skew, query: Some(met.service) }
        }
        Ok(_) => met.found(Finding::ill("victoriametrics", format!("{shown}: no such query is answered"), "correct --victoriametrics-url")),
        Err(error) => {
            let mend = "read its output (a full disk makes it read-only), or correct --victoriametrics-url";
            met.found(Finding::ill("victoriametrics", format!("{shown}: {error:#}"), mend))
        }
    }
}

pub(super) async fn grafana(place: &Place) -> Asked {
    let met = match meet("grafana", place, "/api/health").await {
        Ok(met) => met,
        Err(asked) => return asked,
    };
    let shown = met.service.shown().to_owned();
    let finding = match read::<Value>(met.answer.clone()) {
        Ok(health) if text(&health, "/database") == "ok" => {
            Finding::well("grafana", format!("{shown}: {}, database ok", text(&health, "/version")))
        }
        Ok(health) => {
            Finding::ill("grafana", format!("{shown}: database {:?}", text(&health, "/database")), "read its output and restart it")
        }
        Err(error) => Finding::ill("grafana", format!("{shown}: {error:#}"), "read its output, or correct --grafana-url"),
    };
    met.found(finding)
}

pub(super) async fn alertmanager(place: &Place) -> Asked {
    let met = match meet("alertmanager", place, "/api/v2/status").await {
        Ok(met) => met,
        Err(asked) => return asked,
    };
    let shown = met.service.shown().to_owned();
    let finding = match read::<Value>(met.answer.clone()) {
        Ok(status) if status["versionInfo"].is_object() => {
            let alerts = ask(&met.service, "/api/v2/alerts", &[("active", "true")]).await;
            let alerts = alerts.ok().and_then(|alerts| Some(alerts.as_array()?.len())).map_or("?".to_owned(), |n| n.to_string());
            Finding::well("alertmanager", format!("{shown}: {}, {alerts} alerts active", text(&status, "/versionInfo/version")))
        }
        Ok(_) => Finding::ill("alertmanager", format!("{shown}: this is no Alertmanager"), "correct --alertmanager-url"),
        Err(error) => Finding::ill("alertmanager", format!("{shown}: {error:#}"), "read its output, or correct --alertmanager-url"),
    };
    met.found(finding)
}

pub(super) async fn serve(place: &Place) -> Asked {
    let met = match meet("serve", place, "/health").await {
        Ok(met) => met,
        Err(asked) => return asked,
    };
    let shown = met.service.shown().to_owned();
    let finding = match read::<Value>(met.answer.clone()) {
        Ok(health) if text(&health, "/status") == "ok" => {
            let skipped = health["skipped"].as_u64().unwrap_or_default();
            Finding::well("serve", format!("{shown}: {} runs, {skipped} folders skipped", health["runs"]))
        }
        Ok(health) => Finding::ill("serve", format!("{shown}: status {:?}", text(&health, "/status")), "read its output"),
        Err(error) => Finding::ill("serve", format!("{shown}: {error:#}"), "read its output, or correct --serve-url"),
    };
    met.found(finding)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::doctor::State;

    #[test]
    fn a_target_is_as_prometheus_says_and_the_harness_may_be_away() {
        let of = |job: &str, health: &str| {
            target(
                &json!({"labels": {"job": job, "instance": "h:1"}, "health": health, "lastError": "refused", "scrapeUrl": "http://h:1/metrics"}),
            )
        };
        assert_eq!(of("node", "up").state, State::Well);
        assert_eq!(of("node", "unknown").state, State::Well);
        let down = of("node", "down");
        assert_eq!((down.state, down.part.as_str(), down.found.as_str()), (State::Ill, "target node h:1", "refused"));
        assert!(down.mend.unwrap().contains("curl http://h:1/metrics"));
        assert_eq!(of("batchsql", "down").state, State::Absent);
    }

    #[test]
    fn rules_that_fail_make_prometheus_ill_and_firing_ones_are_named() {
        let answer = |health: &str| json!({"data": {"groups": [{"rules": [{"name": "A", "health": "ok", "state": "firing"}, {"name": "B", "health": health, "lastError": "many"}]}]}});
        let well = rules_of("http://p", &answer("ok"));
        assert_eq!((well.state, well.found.as_str()), (State::Well, "http://p: ready; 2 rules, firing: A"));
        let ill = rules_of("http://p", &answer("err"));
        assert_eq!((ill.state, ill.found.as_str()), (State::Ill, "http://p: rules fail: B (many)"));
    }

    #[test]
    fn a_date_tells_how_far_a_clock_is_ahead() {
        let date = |second: i64| {
            let zoned = jiff::Timestamp::from_second(second).unwrap().to_zoned(jiff::tz::TimeZone::UTC);
            zoned.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string()
        };
        let now = jiff::Timestamp::now().as_second();
        assert!(ahead(&date(now)).unwrap().abs() < 3.0);
        assert!((ahead(&date(now + 100)).unwrap() - 100.0).abs() < 3.0);
        assert_eq!(ahead("yesterday"), None);
    }
}
