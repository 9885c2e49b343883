//! The mock upstream and the reference gateway as programs of their own, and scenarios of requests to them.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;

use batchsql::workload::reply;
use serde_json::{Value, json};

use crate::place::{Place, Running};

/// An upstream and a gateway before it, in a place of their own.
pub(crate) struct Gateway {
    pub(crate) proxy: Running,
    _upstream: Running,
    pub(crate) address: SocketAddr,
    pub(crate) upstream_ledger: PathBuf,
    pub(crate) log: PathBuf,
}

impl Gateway {
    /// Starts both; `batch` is the gateway's `log.batch`, `variables` its environment.
    pub(crate) fn start(place: &Place, batch: &Value, variables: &[(&str, &str)]) -> Self {
        let (upstream, upstream_address) = upstream(place);
        let (upstream_ledger, log) = (place.path("upstream.jsonl"), place.path("gateway.db"));
        let config = json!({
            "channels": [{"name": "upstream", "url": format!("http://{upstream_address}")}],
            "users": [{"name": "ann", "key": "sk-ann"}],
            "log": {"database": {"sqlite": {"path": log}}, "batch": batch},
            "access_log": false,
        });
        let config = place.write("gateway.yaml", &config.to_string());
        let mut command = place.command(&["proxy", "--config", &config, "--listen", "127.0.0.1:0"]);
        command.envs(variables.iter().copied());
        let (proxy, address) = proxy(place, command);
        Self { proxy, _upstream: upstream, address, upstream_ledger, log }
    }

    /// A scenario of chats with it, every fifth of them streamed, reconciled; `requests` in all.
    pub(crate) fn scenario(&self, requests: Option<u64>, load: Value, verify: Value) -> Value {
        let mut scenario = json!({
            "name": "gateway",
            "target": {"http": {"url": format!("http://{}", self.address)}},
            "workload": {"proxy_request": {
                "replies": "mock",
                "users": [{"name": "ann", "key": "sk-ann"}],
                "mix": [{"weight": 4, "chat": {"max_tokens": 8}}, {"name": "stream", "weight": 1, "chat": {"stream": true, "max_tokens": 8}}],
            }},
            "load": load,
            "verify": verify,
            "reconcile": {"database": {"sqlite": {"path": self.log}}, "wait": "20s"},
        });
        if let Some(requests) = requests {
            scenario["workload"]["proxy_request"]["requests"] = json!(requests);
        }
        scenario["verify"]["upstream_ledger"] = json!(self.upstream_ledger);
        scenario
    }

    /// The operations that have a row in its log.
    pub(crate) fn logged(&self) -> BTreeSet<i64> {
        let file = rusqlite::Connection::open(&self.log).unwrap();
        let mut statement = file.prepare("SELECT request_id FROM request_logs").unwrap();
        let ids = statement.query_map([], |row| row.get::<_, String>(0)).unwrap();
        ids.map(|id| reply::parse_id(&id.unwrap()).unwrap().1 as i64).collect()
    }

    /// Somebody else does this to its log.
    pub(crate) fn execute(&self, sql: &str) {
        let file = rusqlite::Connection::open(&self.log).unwrap();
        file.busy_timeout(std::time::Duration::from_secs(30)).unwrap();
        file.execute_batch(sql).unwrap();
    }
}

/// `batchsql upstream` with its ledger in `upstream.jsonl`, and where it listens.
pub(crate) fn upstream(place: &Place) -> (Running, SocketAddr) {
    let config = place.write("upstream.yaml", &json!({"ledger": place.path("upstream.jsonl")}).to_string());
    let mut upstream = place.spawn(place.command(&["upstream", "--listen", "127.0.0.1:0", "--config", &config]));
    let address = upstream.until("the upstream's address", |it| address(&it.printed(), "listens on http://"));
    (upstream, address)
}

/// `batchsql proxy`, and where it listens.
pub(crate) fn proxy(place: &Place, command: Command) -> (Running, SocketAddr) {
    let mut proxy = place.spawn(command);
    let address = proxy.until("the gateway's address", |it| address(&it.said(), "listening on http://"));
    (proxy, address)
}

/// The address that a whole line of `said` names after `words`.
fn address(said: &str, words: &str) -> Option<SocketAddr> {
    said.split_once(words)?.1.split_once('\n')?.0.parse().ok()
}
