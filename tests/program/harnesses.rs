//! Several harnesses at once, told apart by prefix, scraped by a real Prometheus with the shipped configuration.

use std::net::{SocketAddr, TcpListener};
use std::process::{Child, Command, Stdio};

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::database::Database;
use crate::place::{Place, Running, get, until};

/// The shipped configuration, with these targets of the harness, asked more often.
fn configuration(targets: &[SocketAddr]) -> String {
    let root = env!("CARGO_MANIFEST_DIR");
    let shipped = std::fs::read_to_string(format!("{root}/config/prometheus/prometheus.yml")).unwrap();
    let (head, job) = shipped.split_once("job_name: batchsql\n").unwrap();
    let (before, line) = job.split_once("targets: [").unwrap();
    let (_, after) = line.split_once(']').unwrap();
    let targets = targets.iter().map(|target| format!("\"{target}\"")).collect::<Vec<_>>().join(", ");
    let rules = format!("{root}/config/prometheus/rules");
    let head = head.replace("scrape_interval: 5s", "scrape_interval: 1s").replace("rules/*.yml", &format!("{rules}/*.yml"));
    format!("{head}job_name: batchsql\n{before}targets: [{targets}]{after}")
}

struct Prometheus {
    child: Child,
    address: SocketAddr,
}

impl Prometheus {
    fn start(place: &Place, targets: &[SocketAddr]) -> Option<Self> {
        let config = place.write("prometheus.yml", &configuration(targets));
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let mut command = Command::new("prometheus");
        command.args([&format!("--config.file={config}"), &format!("--storage.tsdb.path={}", place.name("tsdb"))]);
        command.args([&format!("--web.listen-address={address}"), "--log.level=error"]);
        let Ok(child) = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn() else {
            println!("left out: prometheus is not installed");
            return None;
        };
        Some(Self { child, address })
    }

    /// What a query returns now: each result's labels and value; nothing while it does not answer yet.
    fn query(&self, query: &str) -> Vec<(Value, f64)> {
        if std::net::TcpStream::connect(self.address).is_err() {
            return Vec::new();
        }
        let query: String = url::form_urlencoded::byte_serialize(query.as_bytes()).collect();
        let Ok(answer) = crate::place::ask(self.address, &format!("/api/v1/query?query={query}")) else { return Vec::new() };
        let answer: Value = serde_json::from_str(&answer).unwrap();
        let results = answer["data"]["result"].as_array().unwrap().iter();
        results.map(|result| (result["metric"].clone(), result["value"][1].as_str().unwrap().parse().unwrap())).collect()
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn prometheus_puts_the_prefixes_of_three_harnesses_back_into_a_label() {
    let place = Place::new();
    let places = [Place::new(), Place::new(), Place::new()];
    let start = |(at, (env, rows)): (&Place, (&str, u64))| -> (Running, SocketAddr) {
        let prefix = format!("{env}_");
        let flags = ["--metrics-listen", "127.0.0.1:0", "--metrics-linger", "10m", "--metrics-prefix", &prefix];
        let mut running = at.start(&Database::sqlite(at, "metered").rows(rows), &flags);
        let address = running.metrics_address();
        running.until("the report", |it| it.printed().ends_with('\n').then_some(()));
        (running, address)
    };
    let harnesses: Vec<_> = places.iter().zip([("prod", 300), ("staging", 200), ("dev", 100)]).map(start).collect();
    assert!(get(harnesses[0].1, "/metrics").contains("\nprod_batchsql_records_processed_total{"));
    let targets: Vec<_> = harnesses.iter().map(|(_, address)| *address).collect();
    let Some(prometheus) = Prometheus::start(&place, &targets) else { return };
    let by_env = until("three environments in Prometheus", || {
        let found = prometheus.query("sort(sum by (env) (batchsql_records_processed_total))");
        (found.len() == 3).then_some(found)
    });
    let by_env: Vec<_> = by_env.iter().map(|(labels, rows)| (labels["env"].as_str().unwrap(), *rows)).collect();
    assert_eq!(by_env, [("dev", 100.0), ("staging", 200.0), ("prod", 300.0)]);
    let prefixed = prometheus.query(r#"{__name__=~"(prod|staging|dev)_.*"}"#);
    assert!(prefixed.is_empty(), "no name keeps its prefix: {prefixed:?}");
    for (running, _) in harnesses {
        running.signal(Signal::SIGTERM);
        running.end().json(0);
    }
}
