//! A server that stands still for a while: response times must say what those waited whose request was due meanwhile, not only what
//! those did that had been sent. A file of its own, so that no other test takes the processor from the generator.
#![allow(clippy::unwrap_used)]

#[path = "program/place.rs"]
#[allow(dead_code, reason = "most of it is for tests/program")]
mod place;

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use place::{Place, Running, until};

/// Seconds of load, and requests in each. When the server goes on, those that wait are served one after the other, which delays the
/// last of them by as much as that takes: a tenth of a millisecond each where the program is not optimised.
const SECONDS: u64 = 10;
const RATE: u64 = if cfg!(debug_assertions) { 100 } else { 500 };
/// When the server stops, and for how long.
const FREEZE_AT: Duration = Duration::from_secs(4);
const FREEZE: Duration = Duration::from_secs(2);
/// Of what arithmetic says.
const TOLERANCE: f64 = 0.02;

/// nginx as one process, so that stopping it stops everything.
fn nginx(place: &Place, program: &Path) -> (Running, SocketAddr) {
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let folder = place.name("nginx");
    std::fs::create_dir(&folder).unwrap();
    let temp: String =
        ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"].map(|kind| format!("{kind}_temp_path {folder}/{kind};\n")).concat();
    let config = format!(
        "daemon off;\nmaster_process off;\npid {folder}/pid;\nerror_log {folder}/error.log;\nevents {{ worker_connections 1024; }}\n\
         http {{\naccess_log off;\nkeepalive_requests 1000000;\n{temp}server {{ listen {address}; location / {{ return 200 'here\\n'; }} }}\n}}\n"
    );
    let config = place.write("nginx.conf", &config);
    let mut nginx = place.spawn(place.command_of(program, &["-e", &format!("{folder}/error.log"), "-p", &folder, "-c", &config]));
    nginx.until("nginx answers", |_| TcpStream::connect(address).ok());
    (nginx, address)
}

/// Runs the load, stops the server within it, and returns the report and how long the server stood still.
fn run_and_freeze(place: &Place, nginx: &Running, address: SocketAddr) -> (Value, Duration) {
    let scenario = json!({
        "name": "freeze",
        "target": {"http": {"url": format!("http://{address}")}},
        "workload": {"proxy_request": {"mix": [{"http": {"path": "/"}, "checks": {"status": [200], "body": "here\n"}}]}},
        "load": {"executor": "constant-arrival-rate", "rate": RATE, "duration": format!("{SECONDS}s")},
    });
    let mut running = place.start(&scenario, &[]);
    running.folder();
    thread::sleep(FREEZE_AT);
    let stopped = Instant::now();
    nginx.signal(Signal::SIGSTOP);
    thread::sleep(FREEZE);
    nginx.signal(Signal::SIGCONT);
    let frozen = stopped.elapsed();
    let ended = running.end();
    let code = ended.code().unwrap();
    (ended.json(code), frozen)
}

/// What the percentile `share` of the response times must be in milliseconds. Who is due u into a freeze of F waits F - u. Starts
/// are 1/RATE apart, so the n-th longest wait is F - (n - 1)/RATE, less what passed from the freeze to the first start in it: half of
/// 1/RATE, give or take as much. Above the percentile lie n - 1 = (1 - share) * RATE * SECONDS waits.
fn predicted(frozen: Duration, share: f64) -> f64 {
    (frozen.as_secs_f64() - (1.0 - share) * SECONDS as f64 - 0.5 / RATE as f64) * 1e3
}

#[test]
fn response_times_of_a_freeze_are_those_of_arithmetic() {
    let Some(program) = ["/usr/sbin/nginx", "/usr/bin/nginx", "/usr/local/sbin/nginx"].iter().map(Path::new).find(|path| path.exists())
    else {
        println!("left out: nginx is not installed");
        return;
    };
    let place = Place::new();
    let (nginx, address) = nginx(&place, program);
    let mut attempts = 0;
    let (report, frozen) = loop {
        attempts += 1;
        let (report, frozen) = run_and_freeze(&place, &nginx, address);
        println!("attempt {attempts}: frozen for {frozen:?}: {}", report["latency"]);
        // A generator that other work on this machine kept from its own proves nothing here.
        let latest_start = report["latency"]["lag"]["max_ms"].as_f64().unwrap();
        if report["verdict"] == "pass" && latest_start < 10.0 || attempts == 3 {
            break (report, frozen);
        }
        println!("the generator was disturbed (up to {latest_start} ms late): {}", report["reasons"]);
    };
    let all = json!(RATE * SECONDS);
    let outcomes = &report["outcomes"];
    assert_eq!((&outcomes["offered"], &outcomes["acknowledged"], &outcomes["dropped"]), (&all, &all, &json!(0)), "{outcomes}");
    assert_eq!((&report["verdict"], &report["integrity"]["verdict"]), (&json!("pass"), &json!("holds")), "{}", report["reasons"]);
    let latency = |which: &str, percentile: &str| report["latency"][which][percentile].as_f64().unwrap();
    for (percentile, share) in [("p90_ms", 0.9), ("p99_ms", 0.99)] {
        let (found, right) = (latency("response", percentile), predicted(frozen, share));
        assert!((found / right - 1.0).abs() <= TOLERANCE, "response {percentile} is {found} ms, arithmetic says {right} ms");
    }
    // What was sent was answered as fast as ever, but for the few that were under way.
    assert!(latency("service", "p50_ms") < 5.0, "{}", report["latency"]["service"]);
    assert!(latency("response", "p50_ms") < 5.0, "{}", report["latency"]["response"]);
    until("nginx still answers", || TcpStream::connect(address).ok());
}
