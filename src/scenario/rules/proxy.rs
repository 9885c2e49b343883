//! What a scenario of requests cannot be.

use url::Url;

use super::super::database_url::is_loopback;
use super::super::http::{HttpTarget, Start, UPSTREAM};
use super::super::proxy::{Checks, LogDatabase, Mix, PlainRequest, ProxyRequest, Replies};
use super::super::{Pool, Scenario, VerifyMethod, units::Time};
use super::{Rules, identifier_problem, kinds};
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
        self.when(target.pool != Pool::default(), "target.pool", || "is of databases; write target.http.client".to_owned());
        self.when(scenario.verify.readers.is_some(), "verify.readers", || "is for workload.batch_insert; remove it".to_owned());
        self.when(scenario.verify.method == VerifyMethod::Digest, "verify.method", || {
            "`digest` is for workload.batch_insert; write full".to_owned()
        });
        let Some(http) = &target.http else {
            return self.when(kinds(target).is_empty(), "target", || "has no HTTP service; add http: {url: …}".to_owned());
        };
        let started = http.start.is_some();
        self.when(started && !http.url.is_empty(), "target.http.url", || "is what target.http.start starts; remove one of them".to_owned());
        let given =
            |url: &&String| !(url.is_empty() && target.container.is_some()) && !(started && (url.is_empty() || url.as_str() == UPSTREAM));
        for (path, url) in [("target.http.url", Some(&http.url)), ("target.http.direct_url", http.direct_url.as_ref())] {
            let url = url.filter(given);
            let problem = url.and_then(|url| url_problem(url, &target.allow_hosts, target.insecure_tls));
            self.found.extend(problem.map(|problem| (path.to_owned(), problem)));
        }
        if let Some(start) = &http.start {
            self.start(http, start);
            self.beyond_the_gateway(scenario, start);
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
        self.when(start.own_process && start.gateway.is_none(), &format!("{AT}.own_process"), || {
            "is of the gateway; add gateway: {} or remove it".to_owned()
        });
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

    /// The load goes on through a gateway that the scenario starts: to its upstreams, and into its log.
    fn beyond_the_gateway(&mut self, scenario: &Scenario, start: &Start) {
        const AT: &str = "target.http.start.gateway";
        let (Some(gateway), target) = (&start.gateway, &scenario.target) else { return };
        for (index, channel) in gateway.channels.iter().enumerate() {
            let parsed = Url::parse(&channel.url).ok();
            let problem = parsed.and_then(|url| host_problem(&url, &target.allow_hosts, target.insecure_tls));
            self.found.extend(problem.map(|problem| (format!("{AT}.channels.{index}.url"), problem)));
        }
        let log = &gateway.log.database;
        for (kind, server) in [(Database::Postgres, &log.postgres), (Database::Mysql, &log.mysql)] {
            let problem = server.as_ref().and_then(|server| server_problem(kind, &server.url, &target.allow_hosts));
            self.found.extend(problem.map(|problem| (format!("{AT}.log.database.{}.url", kind.as_str()), problem)));
        }
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
            let Some((name, _)) = piece.split_once("}}") else {
                self.when(true, at, || "has `{{` without `}}`".to_owned());
                continue;
            };
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
            let columns = &reconcile.columns;
            let columns = [
                ("id", &columns.id),
                ("user", &columns.user),
                ("model", &columns.model),
                ("prompt_tokens", &columns.prompt_tokens),
                ("completion_tokens", &columns.completion_tokens),
                ("status", &columns.status),
            ];
            for (key, name) in columns {
                let problem = identifier_problem(name, None).filter(|_| !name.is_empty());
                self.found.extend(problem.map(|problem| (format!("reconcile.columns.{key}"), problem)));
            }
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
    host_problem(&parsed, allow_hosts, insecure_tls)
}

/// Says why a service may not be where it is, if it may not.
fn host_problem(parsed: &Url, allow_hosts: &[String], insecure_tls: bool) -> Option<String> {
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

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    /// What is told of a scenario of requests with some values replaced, by JSON pointer.
    fn told(changes: &[(&str, Value)]) -> Vec<String> {
        let mut scenario = json!({
            "name": "t", "target": {"http": {"url": "http://127.0.0.1:1", "client": {}, "timeouts": {}}},
            "workload": {"proxy_request": {"requests": 10, "replies": "mock", "users": [{"name": "ann"}], "id": {}, "mix": [{"chat": {}}]}},
            "load": {"executor": "shared-iterations"}, "verify": {},
            "reconcile": {"database": {"sqlite": {"path": "log.db"}}, "columns": {}}
        });
        for (pointer, value) in changes {
            let (parent, key) = pointer.rsplit_once('/').unwrap();
            scenario.pointer_mut(parent).unwrap_or_else(|| panic!("{pointer}"))[key] = value.clone();
        }
        let problems = super::super::check(&serde_json::from_value(scenario).unwrap());
        problems.into_iter().map(|(path, message)| format!("{path}: {message}")).collect()
    }

    /// Asserts that one change is refused by one message that begins as given.
    fn refused(pointer: &str, value: Value, begins: &str) {
        let told = told(&[(pointer, value)]);
        assert!(told.len() == 1 && told[0].starts_with(begins), "{pointer}: {told:?}\ninstead of {begins}");
    }

    const NONE: [String; 0] = [];

    #[test]
    fn a_gateway_of_the_scenarios_own_leads_only_where_load_may_go() {
        let told = |target: Value| {
            let scenario = json!({"name": "t", "target": target, "workload": {"proxy_request": {"requests": 1, "mix": [{"chat": {}}]}},
                "load": {"executor": "shared-iterations"}});
            super::super::check(&serde_json::from_value(scenario).unwrap())
                .into_iter()
                .map(|(path, message)| format!("{path}: {message}"))
                .collect::<Vec<_>>()
        };
        let gateway = json!({
            "channels": [{"name": "a", "url": "http://127.0.0.1:1"}, {"name": "b", "url": "https://api.example.com/v1"}],
            "log": {"database": {"postgres": {"url": "postgres://u:p@db.example.com/x"}}},
        });
        let beyond = "is beyond loopback; if it may be put under load, add it to target.allow_hosts or give --allow-host";
        assert_eq!(
            told(json!({"http": {"start": {"gateway": gateway}}})),
            [
                format!("target.http.start.gateway.channels.1.url: host `api.example.com` {beyond} api.example.com"),
                format!("target.http.start.gateway.log.database.postgres.url: host `db.example.com` {beyond} db.example.com"),
            ]
        );
        let allowed = ["api.example.com", "db.example.com"];
        assert_eq!(told(json!({"http": {"start": {"gateway": gateway}}, "allow_hosts": allowed})), [""; 0]);
    }

    #[test]
    fn columns_of_a_log_have_names_that_can_be_quoted() {
        let scenario = json!({"name": "t", "target": {"http": {"url": "http://127.0.0.1:1"}},
            "workload": {"proxy_request": {"requests": 1, "mix": [{"chat": {}}]}}, "load": {"executor": "shared-iterations"},
            "reconcile": {"database": {"sqlite": {"path": "x.db"}}, "columns": {"id": "a\u{0}b", "user": "", "model": "we\"ird"}}});
        let told = super::super::check(&serde_json::from_value(scenario).unwrap());
        assert_eq!(told, [("reconcile.columns.id".to_owned(), "\"a\\0b\" has a control character; choose another name".to_owned())]);
    }

    #[test]
    fn a_sound_scenario_passes() {
        assert_eq!(told(&[]), NONE);
        let start = json!({"start": {"upstream": {}, "gateway": {}}, "direct_url": "upstream"});
        assert_eq!(told(&[("/target/http", start), ("/reconcile", json!({}))]), NONE);
        let beyond = json!({"http": {"url": "https://example.com/api"}, "allow_hosts": ["EXAMPLE.com"]});
        assert_eq!(told(&[("/target", beyond)]), NONE);
        let plain = json!({"http": {"url": "http://example.com"}, "allow_hosts": ["example.com"], "insecure_tls": true});
        assert_eq!(told(&[("/target", plain)]), NONE);
    }

    #[test]
    fn requests_need_one_service_and_its_url() {
        let http = json!({"url": "http://127.0.0.1:1"});
        refused("/target", json!({"http": &http, "sqlite": {}}), "target.sqlite: is for workload.batch_insert; write http: {url: …}");
        refused("/target", json!({}), "target: has no HTTP service; add http: {url: …}");
        refused("/target", json!({"http": http, "pool": {"size": 3}}), "target.pool: is of databases; write target.http.client");
        refused("/verify/readers", json!(2), "verify.readers: is for workload.batch_insert; remove it");
        let url = "target.http.url: ";
        for (given, why) in [
            ("", "is no URL ("),
            ("127.0.0.1:80", "is no URL ("),
            ("ftp://127.0.0.1", "begins with `ftp:`; write http://host:port"),
            ("http://ann:pw@127.0.0.1", "carries a login; "),
            ("http://127.0.0.1/?a=1", "has a query or a fragment; "),
            ("http://127.0.0.1/#a", "has a query or a fragment; "),
            ("https://example.com", "host `example.com` is beyond loopback; "),
        ] {
            refused("/target/http/url", json!(given), &format!("{url}{why}"));
            refused("/target/http/direct_url", json!(given), &format!("target.http.direct_url: {why}"));
        }
        let plain = json!({"http": {"url": "http://example.com"}, "allow_hosts": ["example.com"]});
        refused("/target", plain, "target.http.url: goes beyond loopback without TLS; write https://");
    }

    #[test]
    fn waits_have_bounds() {
        for key in ["keep_alive", "connect_timeout", "tls_timeout", "response_header_timeout", "idle_timeout"] {
            refused(&format!("/target/http/client/{key}"), json!("0s"), &format!("target.http.client.{key}: is 0s; write "));
        }
        for key in ["first_token", "between_tokens", "total"] {
            refused(&format!("/target/http/timeouts/{key}"), json!("0s"), &format!("target.http.timeouts.{key}: is 0s; write "));
        }
        refused("/reconcile/wait", json!("0s"), "reconcile.wait: is 0s; write ");
        refused("/verify/allow_lost", json!({"within": "0s"}), "verify.allow_lost.within: is 0s; write ");
    }

    #[test]
    fn what_a_scenario_starts_hangs_together() {
        let start = |start: Value, begins: &str| refused("/target/http", json!({"start": start}), begins);
        let given = json!({"start": {"upstream": {}}, "url": "http://127.0.0.1:1"});
        refused("/target/http", given, "target.http.url: is what target.http.start starts; remove one of them");
        start(json!({}), "target.http.start: starts nothing; add upstream: {} or gateway: {}");
        let latency = json!({"latency": {"median": "1s", "p99": "1ms"}});
        start(json!({"upstream": latency}), "target.http.start.upstream: latency.p99 (1ms) is below latency.median (1s)");
        start(json!({"upstream": {"ledger": "x"}}), "target.http.start.upstream.ledger: lies in the run's folder here; remove it");
        start(json!({"gateway": {}}), "target.http.start.gateway.channels: has nobody to lead to; ");
        let channels = json!([{"name": "a", "url": "http://127.0.0.1:1"}]);
        let unpaired = json!({"start": {"gateway": {"channels": channels}}, "direct_url": "upstream"});
        refused("/target/http", unpaired, "target.http.direct_url: `upstream` needs target.http.start.upstream");
    }

    #[test]
    fn users_prompts_and_ids_can_be_sent() {
        let proxy = |key: &str, value: Value, begins: &str| {
            refused(&format!("/workload/proxy_request/{key}"), value, &format!("workload.proxy_request.{begins}"));
        };
        proxy("prompt", json!({"min": 0, "max": 5}), "prompt: a prompt has 1 to 10000 words");
        proxy("prompt", json!({"min": 1, "max": 10_001}), "prompt: a prompt has 1 to 10000 words");
        proxy("prompt", json!({"min": 6, "max": 5}), "prompt: min 6 is above max 5");
        proxy("id/header", json!("x y"), "id.header: \"x y\" is no header's name");
        proxy("users", json!([{"name": " "}]), "users.0.name: 1 to 100 bytes");
        proxy("users", json!([{"name": "x".repeat(101)}]), "users.0.name: 1 to 100 bytes");
        proxy("users", json!([{"name": "a", "key": ""}]), "users.0.key: is empty or has characters");
        proxy("users", json!([{"name": "a", "key": "a\nb"}]), "users.0.key: is empty or has characters");
        proxy("requests", Value::Null, "requests: is missing; shared-iterations needs requests");
    }

    #[test]
    fn a_kind_of_request_is_one_that_can_be_sent_and_checked() {
        for (mix, begins) in [
            (json!({}), ": has 0 of chat, http and websocket; write exactly one"),
            (json!({"chat": {}, "http": {}}), ": has 2 of chat, http and websocket; write exactly one"),
            (json!({"chat": {"path": "v1"}}), ".chat.path: begins with `/` and has no blanks"),
            (json!({"http": {"path": "/a b"}}), ".http.path: begins with `/` and has no blanks"),
            (json!({"websocket": {"path": ""}}), ".websocket.path: begins with `/` and has no blanks"),
            (json!({"chat": {"headers": {"a b": "c"}}}), ".chat.headers.a b: is no header: "),
            (json!({"http": {"headers": {"a": "b\nc"}}}), ".http.headers.a: is no header: "),
            (json!({"http": {"headers": {"Host": "x"}}}), ".http.headers.Host: is set by the client; remove it"),
            (json!({"chat": {"headers": {"a": "{{who}}"}}}), ".chat.headers.a: `{{who}}` is no placeholder; known: {{id}}, "),
            (json!({"http": {"method": "FETCH"}}), ".http.method: \"FETCH\" is none of GET, "),
            (json!({"http": {"path": "/{{x}}"}}), ".http.path: `{{x}}` is no placeholder"),
            (json!({"http": {"query": {"a": "{{x}}"}}}), ".http.query: `{{x}}` is no placeholder"),
            (json!({"http": {"body": "{{id"}}), ".http.body: has `{{` without `}}`"),
            (json!({"http": {"body": "{{channel}}"}}), ".http.body: {{channel}} needs workload.proxy_request.channels"),
            (json!({"chat": {}, "checks": {"status": [200, 99]}}), ".checks.status: statuses are 100 to 599"),
            (json!({"chat": {}, "checks": {"json": {"choices": 1}}}), ".checks.json.choices: is no JSON pointer; write e.g. /choices"),
            (json!({"chat": {}, "checks": {"body_contains": "{{x}}"}}), ".checks.body_contains: `{{x}}` is no placeholder"),
            (json!({"chat": {}, "checks": {"body": "{{x}}"}}), ".checks.body: `{{x}}` is no placeholder"),
        ] {
            refused("/workload/proxy_request/mix", json!([mix]), &format!("workload.proxy_request.mix.0{begins}"));
        }
    }

    #[test]
    fn a_log_is_in_one_database_and_has_an_id() {
        refused("/reconcile/columns/id", json!(""), "reconcile.columns.id: names no column; it is needed");
        refused("/reconcile/query", json!(" "), "reconcile.query: is empty; write a SELECT");
        refused("/reconcile/database", Value::Null, "reconcile.database: is missing; say where the gateway keeps its log");
        refused("/reconcile/database", json!({}), "reconcile.database: has 0 of sqlite, postgres and mysql; write exactly one");
        let two = json!({"sqlite": {"path": "a"}, "mysql": {"url": "mysql://a@localhost/b"}});
        refused("/reconcile/database", two, "reconcile.database: has 2 of sqlite, postgres and mysql; write exactly one");
        refused("/reconcile/database", json!({"sqlite": {}}), "reconcile.database.sqlite.path: is missing; name the file");
        let far = json!({"postgres": {"url": "postgres://a@example.com/b"}});
        refused("/reconcile/database", far, "reconcile.database.postgres.url: ");
        let lost = [("/reconcile", Value::Null), ("/verify/allow_lost", json!({"within": "5s"}))];
        assert_eq!(told(&lost), ["verify.allow_lost: needs reconcile, for it is about the gateway's log"]);
        let ledger = [("/workload/proxy_request/replies", json!("any")), ("/verify/upstream_ledger", json!("up.jsonl"))];
        let mend = "is the mock upstream's; write workload.proxy_request.replies: mock, or remove it";
        assert_eq!(told(&ledger), [format!("verify.upstream_ledger: {mend}")]);
    }

    #[test]
    fn rows_and_requests_have_their_own_settings_and_gates() {
        refused("/gates", json!(["rows_per_second > 1"]), "gates.0: rows_per_second is of batch inserts; write requests_per_second");
        let rows = [
            ("/workload", json!({"batch_insert": {"rows": 10}})),
            ("/target", json!({"sqlite": {}, "http": {"url": "http://127.0.0.1:1"}})),
            ("/verify", json!({"upstream_ledger": "x", "allow_lost": {"within": "1s"}})),
            ("/gates", json!(["requests_per_second > 1", "inter_token.p50 < 1s"])),
        ];
        let foreign = "is for workload.proxy_request; remove it";
        assert_eq!(
            told(&rows),
            [
                format!("target.http: {foreign}"),
                format!("reconcile: {foreign}"),
                format!("verify.upstream_ledger: {foreign}"),
                format!("verify.allow_lost: {foreign}"),
                "gates.0: requests_per_second is of requests; write rows_per_second".to_owned(),
                "gates.1: inter_token.p50 is of requests; write response or service".to_owned(),
            ]
        );
    }
}
