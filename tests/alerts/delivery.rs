//! One alert on its whole way: rows lost in a run, the run's series in a real Prometheus with the shipped rules, the shipped routes
//! in a real Alertmanager, and the webhook at the end of it.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::place::{Place, meet, rendezvous, until};
use crate::{read, root, yaml};

/// Longest way from the end of a run to the webhook: two scrapes and evaluations, the alert's `for: 1m`, and a busy machine.
const LONGEST: Duration = Duration::from_secs(150);
const TOKEN: &str = "token-of-the-test";

/// A program that ends with the test.
struct Server {
    child: Child,
    address: SocketAddr,
}

impl Server {
    /// Starts the first of `programs` that is installed, with the flag that takes its address, and waits until it is ready.
    fn start(place: &Place, programs: &[&str], arguments: &[String]) -> Option<Self> {
        let address = free_address();
        for program in programs {
            let log = fs::File::create(place.path(&format!("{program}.log"))).unwrap();
            let mut command = Command::new(program);
            command.args(arguments).arg(format!("--web.listen-address={address}"));
            let Ok(child) = command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log).spawn() else { continue };
            let server = Self { child, address };
            until(program, || get(address, "/-/ready").map(|_| ()));
            return Some(server);
        }
        println!("left out: {} is not installed", programs[0]);
        None
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Both fail when it has ended already, which is what is wanted.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// The body of an answer 200.
fn get(address: SocketAddr, path: &str) -> Option<String> {
    let mut stream = TcpStream::connect(address).ok()?;
    write!(stream, "GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    head.starts_with("HTTP/1.0 200 ").then(|| body.to_owned())
}

/// What the webhook was sent.
struct Notification {
    path: String,
    authorization: String,
    body: Value,
}

/// A webhook that takes everything and keeps it.
fn webhook() -> (SocketAddr, Receiver<Notification>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (sender, received) = channel();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            if sender.send(take(stream.unwrap())).is_err() {
                return;
            }
        }
    });
    (address, received)
}

fn take(mut stream: TcpStream) -> Notification {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut head = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        if line.trim().is_empty() {
            break;
        }
        head.push(line.trim().to_owned());
    }
    let header = |name: &str| {
        let fields = head.iter().filter_map(|line| line.split_once(": "));
        fields.filter(|(field, _)| field.eq_ignore_ascii_case(name)).map(|(_, value)| value.to_owned()).next().unwrap_or_default()
    };
    let mut body = vec![0; header("content-length").parse().unwrap()];
    reader.read_exact(&mut body).unwrap();
    stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").unwrap();
    let path = head[0].split(' ').nth(1).unwrap().to_owned();
    Notification { path, authorization: header("authorization"), body: serde_json::from_slice(&body).unwrap() }
}

/// Alertmanager as shipped, but for where the webhook is, its token, and a group's first wait.
fn alertmanager(place: &Place, webhook: SocketAddr) -> Option<Server> {
    let token = place.write("token", TOKEN);
    let config = read("config/alertmanager/alertmanager.yml")
        .replace("http://serve:3009", &format!("http://{webhook}"))
        .replace("/run/alertmanager/serve-token", &token)
        .replace("group_wait: 30s", "group_wait: 1s");
    assert!(config.contains(&webhook.to_string()) && config.contains(&token) && config.contains("group_wait: 1s"));
    let file = place.write("alertmanager.yml", &config);
    let arguments =
        [format!("--config.file={file}"), format!("--storage.path={}", place.name("alertmanager")), "--cluster.listen-address=".to_owned()];
    Server::start(place, &["prometheus-alertmanager", "alertmanager"], &arguments)
}

/// Prometheus as shipped, but for whom it tells; it asks nobody, the run pushes.
fn prometheus(place: &Place, alertmanager: SocketAddr) -> Option<Server> {
    let mut config = yaml("config/prometheus/prometheus.yml");
    config["rule_files"] = json!([root().join("config/prometheus/rules/*.yml")]);
    config["alerting"] = json!({"alertmanagers": [{"static_configs": [{"targets": [alertmanager]}]}]});
    config.as_object_mut().unwrap().remove("remote_write");
    config["scrape_configs"] = json!([]);
    let file = place.write("prometheus.yml", &config.to_string()); // JSON is YAML
    let arguments = [
        format!("--config.file={file}"),
        format!("--storage.tsdb.path={}", place.name("prometheus")),
        "--web.enable-remote-write-receiver".to_owned(),
        "--rules.alert.resend-delay=3s".to_owned(),
    ];
    Server::start(place, &["prometheus"], &arguments)
}

#[test]
fn lost_rows_of_a_run_that_is_over_reach_the_webhook() {
    let place = Place::new();
    let (address, received) = webhook();
    let Some(alertmanager) = alertmanager(&place, address) else { return };
    let Some(prometheus) = prometheus(&place, alertmanager.address) else { return };

    let pushed_to = format!("http://{}/api/v1/write", prometheus.address);
    let database = place.name("delivered.db");
    let scenario = json!({
        "name": "delivered", "target": {"sqlite": {"path": database}}, "load": {"executor": "shared-iterations"},
        "workload": {"batch_insert": {"rows": 1000, "pipeline": {"flush_size": 100}}},
    });
    let meddling = rendezvous(&place);
    let mut running = place.start(&scenario, &["--no-metrics", "--remote-write", &pushed_to, "--before-verify", &meddling]);
    meet(&place, &mut running);
    rusqlite::Connection::open(&database).unwrap().execute("DELETE FROM integration_test WHERE id <= 100", []).unwrap();
    place.write("go", "");
    let report = running.end().json(4);
    assert_eq!((&report["integrity"]["lost"], &report["integrity"]["rate"]), (&json!(100), &json!(0.9)));

    let judged = Instant::now();
    let told = loop {
        let left = LONGEST.checked_sub(judged.elapsed()).expect("the alert did not arrive in time");
        let told = received.recv_timeout(left).expect("the alert did not arrive in time");
        if told.body["commonLabels"]["alertname"] == "BatchSQLLowDataIntegrity" {
            break told;
        }
    };
    assert!(judged.elapsed() >= Duration::from_secs(50), "it came before its minute had passed");
    assert_told(&told);
    assert_rules_hold(&prometheus);
}

/// What the one who is told can read.
fn assert_told(told: &Notification) {
    assert_eq!((told.path.as_str(), told.authorization.as_str()), ("/api/alerts", format!("Bearer {TOKEN}").as_str()));
    let body = &told.body;
    assert_eq!((&body["status"], &body["receiver"]), (&json!("firing"), &json!("critical")), "{body:#}");
    assert_eq!(body["groupLabels"], json!({"service": "batchsql", "severity": "critical"}), "{body:#}");
    let [alert] = body["alerts"].as_array().unwrap().as_slice() else { panic!("{body:#}") };
    for (label, value) in [
        ("alertname", "BatchSQLLowDataIntegrity"),
        ("severity", "critical"),
        ("service", "batchsql"),
        ("test_name", "delivered"),
        ("database", "sqlite"),
    ] {
        assert_eq!(alert["labels"][label], value, "{alert:#}");
    }
    let says = |annotation: &str| alert["annotations"][annotation].as_str().unwrap().to_owned();
    assert_eq!(says("description"), "90% of the rows that must be there were found right (limit 95 %).");
    assert!(says("summary").starts_with("delivered on sqlite: rows are missing or wrong"), "{alert:#}");
    assert!(says("action").contains("integrity.examples"), "{alert:#}");
    assert!(says("dashboard").starts_with("http://127.0.0.1:3000/d/"), "{alert:#}");
    assert_eq!(says("runbook"), "docs/operations.md#batchsqllowdataintegrity");
}

/// No shipped rule fails on a real Prometheus.
fn assert_rules_hold(prometheus: &Server) {
    let rules: Value = serde_json::from_str(&get(prometheus.address, "/api/v1/rules").unwrap()).unwrap();
    let groups = rules["data"]["groups"].as_array().unwrap();
    let all: Vec<_> = groups.iter().flat_map(|group| group["rules"].as_array().unwrap()).collect();
    assert!(all.len() >= 50, "{}", all.len());
    for rule in all {
        // The slow tiers may not have had their first turn.
        assert!(rule["health"] == "ok" || rule["health"] == "unknown", "{rule:#}");
        assert!(rule["lastError"].is_null() || rule["lastError"] == "", "{rule:#}");
    }
}
