//! Runs of the built program that give every panel something to show: rows into SQLite (locked now and then, five of a hundred of
//! them taken away afterwards), Postgres and MariaDB, and requests through a gateway to an upstream that fails now and then.

use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use rusqlite::{OpenFlags, TransactionBehavior};
use serde_json::{Value, json};

use crate::common::server_url;
use crate::place::{Place, Running, meet, rendezvous, until};

/// How long rows and requests are offered.
const LOAD: Duration = Duration::from_secs(8);

/// The runs under way and what they need.
pub(crate) struct Runs {
    sqlite: Running,
    others: Vec<Running>,
}

/// An upstream that fails one request of twenty, and a gateway before it.
pub(crate) struct Gateway {
    _processes: [Running; 2],
    pub(crate) address: SocketAddr,
}

fn rows(name: &str, target: Value) -> Value {
    json!({
        "name": name,
        "target": target,
        "workload": {"batch_insert": {"table": name, "pipeline": {"flush_size": 50, "flush_interval": "20ms",
            "retry": {"attempts": 3, "base": "20ms", "max": "40ms"}}}},
        "load": {"executor": "constant-arrival-rate", "rate": 2000, "duration": format!("{}s", LOAD.as_secs()), "lag_limit": "10s"},
        // What goes wrong here is meant to.
        "gates": ["error_rate < 100%", "offered_rate > 0"],
    })
}

impl Runs {
    /// Most runs at once.
    pub(crate) const MOST: usize = 4;

    /// Starts them, each with its metrics on one of `metrics`.
    pub(crate) fn start(place: &Place, gateway: SocketAddr, metrics: &[SocketAddr]) -> Self {
        let mut metrics = metrics.iter().map(ToString::to_string);
        let mut start = |scenario: &Value, more: &[&str]| {
            let listen = metrics.next().unwrap();
            place.start(scenario, &[&["--metrics-listen", &listen, "--metrics-linger", "5m"], more].concat())
        };
        let pragmas = json!({"busy_timeout": 1, "synchronous": "OFF"});
        let mut scenario = rows("batch_sqlite", json!({"sqlite": {"path": place.path("batch.db"), "pragmas": pragmas}}));
        // The shipped configuration makes the prefix a label again.
        scenario["metrics"] = json!({"prefix": "staging_"});
        let sqlite = start(&scenario, &["--before-verify", &rendezvous(place)]);
        let mut others = Vec::new();
        for (variable, kind) in [("BATCHSQL_TEST_POSTGRES", "postgres"), ("BATCHSQL_TEST_MARIADB", "mysql")] {
            if let Some(url) = server_url(variable) {
                others.push(start(&rows(&format!("batch_{kind}"), json!({kind: {"url": url}})), &[]));
            }
        }
        others.push(start(&requests(gateway), &[]));
        Self { sqlite, others }
    }

    /// Locks the SQLite file again and again until its rows are written, deletes one of twenty, and waits until all runs are judged.
    pub(crate) fn meddle_and_await(&mut self, place: &Place) {
        let mut file = until("a row in SQLite", || {
            let file = rusqlite::Connection::open_with_flags(place.path("batch.db"), OpenFlags::SQLITE_OPEN_READ_WRITE).ok()?;
            file.query_row("SELECT id FROM batch_sqlite", [], |row| row.get::<_, i64>(0)).ok().map(|_| file)
        });
        file.busy_timeout(Duration::from_secs(30)).unwrap();
        let began = Instant::now();
        while began.elapsed() < LOAD {
            let lock = file.transaction_with_behavior(TransactionBehavior::Immediate).unwrap();
            thread::sleep(Duration::from_millis(150));
            drop(lock);
            thread::sleep(Duration::from_millis(300));
        }
        meet(place, &mut self.sqlite);
        let deleted = file.execute("DELETE FROM batch_sqlite WHERE id % 20 = 0", []).unwrap();
        assert!(deleted > 100, "{deleted}");
        place.write("go", "");
        for run in self.others.iter_mut().chain([&mut self.sqlite]) {
            run.until("its verdict", |run| run.said().contains("serving metrics for another").then_some(()));
        }
    }

    /// How many runs there are.
    pub(crate) fn count(&self) -> usize {
        1 + self.others.len()
    }

    /// Ends them and holds their reports against what was done to them.
    pub(crate) fn end(self) {
        let others = self.others.into_iter().map(|run| (run, 0));
        for (run, code) in others.chain([(self.sqlite, 4)]) {
            run.signal(Signal::SIGTERM);
            run.end().json(code);
        }
    }
}

impl Gateway {
    pub(crate) fn start(place: &Place) -> Self {
        let address = |said: &str, words: &str| -> Option<SocketAddr> { said.split_once(words)?.1.split_once('\n')?.0.parse().ok() };
        let config = place.write("upstream.yaml", &json!({"errors": 0.05}).to_string());
        let mut upstream = place.spawn(place.command(&["upstream", "--listen", "127.0.0.1:0", "--config", &config]));
        let at = upstream.until("the upstream's address", |it| address(&it.printed(), "listens on http://"));
        let config = json!({
            "channels": [{"name": "first", "url": format!("http://{at}"), "weight": 3}, {"name": "second", "url": format!("http://{at}")}],
            "users": [{"name": "ann", "key": "sk-ann"}, {"name": "bob", "key": "sk-bob"}],
            "log": {"database": {"sqlite": {"path": place.path("gateway.db")}}},
            "access_log": false,
        });
        let config = place.write("gateway.yaml", &config.to_string());
        let mut gateway = place.spawn(place.command(&["proxy", "--config", &config, "--listen", "127.0.0.1:0"]));
        let address = gateway.until("the gateway's address", |it| address(&it.said(), "listening on http://"));
        Self { _processes: [upstream, gateway], address }
    }
}

fn requests(gateway: SocketAddr) -> Value {
    json!({
        "name": "proxy_gateway",
        "target": {"http": {"url": format!("http://{gateway}")}},
        "workload": {"proxy_request": {
            "replies": "mock",
            "users": [{"name": "ann", "key": "sk-ann"}, {"name": "bob", "key": "sk-bob"}],
            "mix": [{"name": "chat", "weight": 2, "chat": {"max_tokens": 8}}, {"name": "stream", "chat": {"stream": true, "max_tokens": 8}},
                {"name": "session", "websocket": {"messages": 2}}],
        }},
        "load": {"executor": "constant-arrival-rate", "rate": 60, "duration": format!("{}s", LOAD.as_secs()), "lag_limit": "10s"},
        "gates": ["error_rate < 50%", "offered_rate > 0"],
    })
}
