//! What a scenario of requests cannot be.

use url::Url;

use super::super::database_url::is_loopback;
use super::super::http::{HttpTarget, Start, UPSTREAM};
use super::super::proxy::{Checks, LogDatabase, Mix, PlainRequest, ProxyRequest, Replies};
use super::super::{Scenario, units::Time};
use super::{Rules, kinds};
use crate::scenario::database_url::server_problem;
use crate::target::Database;

const AT: &str = "workload.proxy_request";

/// The placeholders of templates.
const PLACEHOLDERS: [&str; 7] = ["id", "index", "user", "key", "model", "channel", "prompt"];

impl Rules {
    pub(super) fn http_target(&mut self, scenario: &Scenario) {
        let target = &scenario.target;
        for kind in kinds(target) {
            self.when(true, &format!("target.{kind}"), || "is for workload.batch_insert; write http: {url: …}".to_owned());
        }
        let Some(http) = &target.http else {
            return self.when(kinds(target).is_empty(), "target", || "has no HTTP service; add http: {url: …}".to_owned());
        };
        let started = http.start.is_some();
        self.when(started && !http.url.is_empty(), "target.http.url", || "is what target.http.start starts; remove one of them".to_owned());
        let given = |url: &&String| !(started && (url.is_empty() || url.as_str() == UPSTREAM));
        for (path, url) in [("target.http.url", Some(&http.url)), ("target.http.direct_url", http.direct_url.as_ref())] {
            let url = url.filter(given);
            let problem = url.and_then(|url| url_problem(url, &target.allow_hosts, target.insecure_tls));
            self.found.extend(problem.map(|problem| (path.to_owned(), problem)));
        }
        if let Some(start) = &http.start {
            self.start(http, start);
        }
        let client = &http.client;
        let waits: [(&str, Option<Time>); 8] = [
            ("client.keep_alive", client.keep_alive),
            ("client.connect_timeout", client.connect_timeout),
            ("client.tls_timeout", client.tls_timeout),
            ("client.response_header_timeout", client.response_header_timeout),
            ("client.idle_timeout", client.idle_timeout),
            ("timeouts.first_token", Some(http.timeouts.first_token)),
            ("timeouts.between_tokens", Some(http.timeouts.between_tokens)),
            ("timeouts.total", Some(http.timeouts.total)),
        ];
        for (key, time) in waits {
            if let Some(time) = time {
                self.wait(&format!("target.http.{key}"), time);
            }
        }
    }

    fn start(&mut self, http: &HttpTarget, start: &Start) {
        const AT: &str = "target.http.start";
        self.when(start.upstream.is_none() && start.gateway.is_none(), AT, || "starts nothing; add upstream: {} or gateway: {}".to_owned());
        if let Some(upstream) = &start.upstream {
            self.found.extend(upstream.check().err().map(|error| (format!("{AT}.upstream"), format!("{error:#}"))));
            self.when(upstream.ledger.is_some(), &format!("{AT}.upstream.ledger"), || {
                "lies in the run's folder here; remove it".to_owned()
            });
        }
        let lonely = start.gateway.as_ref().is_some_and(|gateway| gateway.channels.is_empty()) && start.upstream.is_none();
        self.when(lonely, &format!("{AT}.gateway.channels"), || {
            format!("has nobody to lead to; name a channel, or add {AT}.upstream: {{}}")
        });
        let unpaired = http.direct_url.as_deref() == Some(UPSTREAM) && start.upstream.is_none();
        self.when(unpaired, "target.http.direct_url", || format!("`{UPSTREAM}` needs {AT}.upstream"));
    }

    pub(super) fn proxy(&mut self, proxy: &ProxyRequest) {
        self.when(proxy.prompt.min == 0 || proxy.prompt.max > 10_000, &format!("{AT}.prompt"), || {
            "a prompt has 1 to 10000 words".to_owned()
        });
        self.size(&format!("{AT}.prompt"), proxy.prompt);
        let header = &proxy.id.header;
        self.when(!header.is_empty() && header.parse::<http::HeaderName>().is_err(), &format!("{AT}.id.header"), || {
            format!("{header:?} is no header's name")
        });
        for (index, user) in proxy.users.iter().enumerate() {
            let path = format!("{AT}.users.{index}");
            self.when(user.name.trim().is_empty() || user.name.len() > 100, &format!("{path}.name"), || "1 to 100 bytes".to_owned());
            let broken = user.key.as_ref().is_some_and(|key| key.is_empty() || http::HeaderValue::from_str(key).is_err());
            self.when(broken, &format!("{path}.key"), || "is empty or has characters that no header can carry".to_owned());
        }
        for (index, mix) in proxy.mix.iter().enumerate() {
            self.mix(&format!("{AT}.mix.{index}"), mix, proxy);
        }
    }

    fn mix(&mut self, at: &str, mix: &Mix, proxy: &ProxyRequest) {
        let set = [mix.chat.is_some(), mix.http.is_some(), mix.websocket.is_some()].iter().filter(|set| **set).count();
        self.when(set != 1, at, || format!("has {set} of chat, http and websocket; write exactly one"));
        let paths = [
            ("chat", mix.chat.as_ref().map(|chat| &chat.path)),
            ("http", mix.http.as_ref().map(|http| &http.path)),
            ("websocket", mix.websocket.as_ref().map(|socket| &socket.path)),
        ];
        for (kind, path) in paths {
            let broken = path.is_some_and(|path| !path.starts_with('/') || path.contains(char::is_whitespace));
            self.when(broken, &format!("{at}.{kind}.path"), || "begins with `/` and has no blanks".to_owned());
        }
        if let Some(chat) = &mix.chat {
            for (name, value) in &chat.headers {
                self.header(&format!("{at}.chat.headers"), name, value, proxy);
            }
        }
        if let Some(plain) = &mix.http {
            self.plain(&format!("{at}.http"), plain, proxy);
        }
        self.checks(&format!("{at}.checks"), &mix.checks, proxy);
    }

    fn plain(&mut self, at: &str, plain: &PlainRequest, proxy: &ProxyRequest) {
        let known = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];
        self.when(!known.contains(&plain.method.as_str()), &format!("{at}.method"), || {
            format!("{:?} is none of {}", plain.method, known.join(", "))
        });
        for (name, value) in &plain.headers {
            self.header(&format!("{at}.headers"), name, value, proxy);
        }
        let texts = plain.query.values().map(|value| ("query", value)).chain([("path", &plain.path), ("body", &plain.body)]);
        for (key, text) in texts {
            self.template(&format!("{at}.{key}"), text, proxy);
        }
    }

    fn header(&mut self, at: &str, name: &str, value: &str, proxy: &ProxyRequest) {
        let broken = name.parse::<http::HeaderName>().is_err() || http::HeaderValue::from_str(value).is_err();
        self.when(broken, &format!("{at}.{name}"), || "is no header: names have letters, digits and `-`, values no line breaks".to_owned());
        let ours = ["host", "content-length", "transfer-encoding", "connection"];
        self.when(ours.contains(&name.to_ascii_lowercase().as_str()), &format!("{at}.{name}"), || {
            "is set by the client; remove it".to_owned()
        });
        self.template(&format!("{at}.{name}"), value, proxy);
    }

    fn checks(&mut self, at: &str, checks: &Checks, proxy: &ProxyRequest) {
        let broken = checks.status.iter().any(|status| !(100..=599).contains(status));
        self.when(broken, &format!("{at}.status"), || "statuses are 100 to 599".to_owned());
        for pointer in checks.json.keys() {
            self.when(!pointer.is_empty() && !pointer.starts_with('/'), &format!("{at}.json.{pointer}"), || {
                "is no JSON pointer; write e.g. /choices/0/message/role".to_owned()
            });
        }
        for (key, text) in [("body_contains", &checks.body_contains), ("body", &checks.body)] {
            if let Some(text) = text {
                self.template(&format!("{at}.{key}"), text, proxy);
            }
        }
    }

    fn template(&mut self, at: &str, text: &str, proxy: &ProxyRequest) {
        for piece in text.split("{{").skip(1) {
            let name = piece.split_once("}}").map_or(piece, |(name, _)| name);
            self.when(!PLACEHOLDERS.contains(&name), at, || {
                format!("`{{{{{name}}}}}` is no placeholder; known: {}", PLACEHOLDERS.map(|known| format!("{{{{{known}}}}}")).join(", "))
            });
            self.when(name == "channel" && proxy.channels.is_empty(), at, || format!("{{{{channel}}}} needs {AT}.channels"));
        }
    }

    /// The gateway's log and what may be missing in it.
    pub(super) fn log(&mut self, scenario: &Scenario) {
        if let Some(reconcile) = &scenario.reconcile {
            self.wait("reconcile.wait", reconcile.wait);
            self.when(reconcile.columns.id.is_empty(), "reconcile.columns.id", || "names no column; it is needed".to_owned());
            self.when(reconcile.query.trim().is_empty(), "reconcile.query", || "is empty; write a SELECT".to_owned());
            match &reconcile.database {
                Some(database) => self.log_database(database, &scenario.target.allow_hosts),
                None => self.when(!starts_gateway(scenario), "reconcile.database", || {
                    "is missing; say where the gateway keeps its log: sqlite: {path: …}, postgres: {url: …} or mysql: {url: …}".to_owned()
                }),
            }
        }
        if let Some(allowed) = scenario.verify.allow_lost {
            self.wait("verify.allow_lost.within", allowed.within);
            self.when(scenario.reconcile.is_none(), "verify.allow_lost", || {
                "needs reconcile, for it is about the gateway's log".to_owned()
            });
        }
        let mock = matches!(&scenario.workload, super::Workload::ProxyRequest(proxy) if proxy.replies == Replies::Mock);
        self.when(scenario.verify.upstream_ledger.is_some() && !mock, "verify.upstream_ledger", || {
            format!("is the mock upstream's; write {AT}.replies: mock, or remove it")
        });
    }

    fn log_database(&mut self, database: &LogDatabase, allow_hosts: &[String]) {
        const AT: &str = "reconcile.database";
        let set = [database.sqlite.is_some(), database.postgres.is_some(), database.mysql.is_some()].iter().filter(|set| **set).count();
        self.when(set != 1, AT, || format!("has {set} of sqlite, postgres and mysql; write exactly one"));
        let unnamed = database.sqlite.as_ref().is_some_and(|sqlite| sqlite.path.is_none());
        self.when(unnamed, &format!("{AT}.sqlite.path"), || "is missing; name the file".to_owned());
        for (kind, server) in [(Database::Postgres, &database.postgres), (Database::Mysql, &database.mysql)] {
            let problem = server.as_ref().and_then(|server| server_problem(kind, &server.url, allow_hosts));
            self.found.extend(problem.map(|problem| (format!("{AT}.{}.url", kind.as_str()), problem)));
        }
    }
}

/// Whether the scenario starts a gateway of its own.
fn starts_gateway(scenario: &Scenario) -> bool {
    let start = scenario.target.http.as_ref().and_then(|http| http.start.as_ref());
    start.is_some_and(|start| start.gateway.is_some())
}

/// Says what is wrong with the URL of a service, if anything.
fn url_problem(url: &str, allow_hosts: &[String], insecure_tls: bool) -> Option<String> {
    let shape = "write http://host:port or https://host:port";
    let parsed = match Url::parse(url) {
        Ok(parsed) => parsed,
        Err(error) => return Some(format!("is no URL ({error}); {shape}")),
    };
    if !matches!(parsed.scheme(), "http" | "https") {
        return Some(format!("begins with `{}:`; {shape}", parsed.scheme()));
    }
    if !parsed.username().is_empty() || parsed.password().is_some() {
        return Some(format!("carries a login; {shape}, and give keys in {AT}.users"));
    }
    if parsed.query().is_some() || parsed.fragment().is_some() {
        return Some(format!("has a query or a fragment; {shape}, and write queries in {AT}.mix"));
    }
    let host = parsed.host_str().unwrap_or_default();
    if is_loopback(host) {
        return None;
    }
    if !allow_hosts.iter().any(|allowed| allowed.eq_ignore_ascii_case(host)) {
        return Some(format!(
            "host `{host}` is beyond loopback; if it may be put under load, add it to target.allow_hosts or give --allow-host {host}"
        ));
    }
    (parsed.scheme() == "http" && !insecure_tls)
        .then(|| "goes beyond loopback without TLS; write https://, or pass --insecure-tls (target.insecure_tls: true)".to_owned())
}
