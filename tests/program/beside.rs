//! What runs beside a run when it is asked for: Consul knows the metrics, profiles of the harness; and neither disturbs it.

use std::io::Read as _;
use std::net::{SocketAddr, TcpListener};
use std::time::{SystemTime, UNIX_EPOCH};

use flate2::read::GzDecoder;
use nix::sys::signal::Signal;
use pprof::protos::{Message as _, Profile};
use serde_json::{Value, json};

use crate::database::Database;
use crate::place::{Place, Running, get_bytes, meet, rendezvous, until};
use crate::recorder::{Recorded, Recorder};

/// An address at which nobody listens.
fn nobody() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// A run that is registered with `consul` and waits before it verifies.
fn registered(place: &Place, consul: &str) -> Running {
    let mut scenario = Database::sqlite(place, "rows").rows(100);
    scenario["name"] = json!("known");
    let file = place.write("known.yaml", &scenario.to_string());
    let hook = rendezvous(place);
    let listen = ["--metrics-listen", "127.0.0.1:0", "--report-dir", "reports", "--env", "ci"];
    let mut command = place.command(&[&["run", "--json"], &listen[..], &["--consul", consul, "--before-verify", &hook, &file]].concat());
    command.env("CONSUL_HTTP_TOKEN", "token-of-consul");
    place.spawn(command)
}

fn assert_put(request: &Recorded, target: &str) {
    assert_eq!((request.method.as_str(), request.target.as_str()), ("PUT", target));
    assert!(request.head.contains("x-consul-token: token-of-consul\r\n"), "{}", request.head);
}

#[test]
fn consul_knows_the_metrics_while_they_are_served() {
    for interrupt in [false, true] {
        let (place, consul) = (Place::new(), Recorder::answering("200 OK"));
        // Often the variable, and so the flag, has no scheme.
        let mut running = registered(&place, &consul.address.to_string());
        let address = running.metrics_address();
        meet(&place, &mut running);
        let register = until("the registration", || consul.requests().first().cloned());
        assert_put(&register, "/v1/agent/service/register");
        let service: Value = serde_json::from_slice(&register.body).unwrap();
        let id = service["ID"].as_str().unwrap();
        assert!(id.starts_with("batchsql-") && id.ends_with(&format!("-{}-{}", running.id(), address.port())), "{id}");
        let expected = json!({
            "ID": id, "Name": "batchsql", "Address": "127.0.0.1", "Port": address.port(), "Tags": ["env=ci", "test_name=known"],
            "Check": {"HTTP": format!("http://{address}/health"), "Interval": "10s", "Timeout": "5s", "DeregisterCriticalServiceAfter": "1m"}
        });
        assert_eq!(service, expected);
        assert_eq!(consul.requests().len(), 1);
        if interrupt {
            running.signal(Signal::SIGINT);
        }
        place.write("go", "");
        let ended = running.end();
        assert_eq!(ended.json(if interrupt { 130 } else { 0 })["integrity"]["verdict"], "holds");
        let requests = consul.requests();
        assert_eq!(requests.len(), 2, "{requests:?}");
        assert_put(&requests[1], &format!("/v1/agent/service/deregister/{id}"));
        assert!(requests[1].body.is_empty());
        assert!(!(ended.stderr + &place.everything_written()).contains("token-of-consul"));
    }
}

#[test]
fn a_consul_that_refuses_or_is_not_there_is_told_once_and_disturbs_nothing() {
    let forbidding = Recorder::answering("403 Forbidden");
    let cases = [
        (format!("http://{}", forbidding.address), "403 Forbidden; give a token with service:write in CONSUL_HTTP_TOKEN"),
        (format!("http://{}", nobody()), "not reachable"),
    ];
    for (url, reason) in cases {
        let place = Place::new();
        let mut running = registered(&place, &url);
        meet(&place, &mut running);
        place.write("go", "");
        let ended = running.end();
        ended.json(0);
        let told: Vec<_> = ended.stderr.lines().filter(|line| line.contains("--consul")).collect();
        assert_eq!(told.len(), 1, "{}", ended.stderr);
        assert!(told[0].starts_with(&format!("batchsql: --consul {url}/: the metrics are not registered: ")), "{told:?}");
        assert!(told[0].contains(reason), "{told:?}");
    }
    assert_eq!(forbidding.requests().len(), 1, "what was not registered is not taken out");
}

#[test]
fn addresses_that_are_none_are_refused_before_anything_begins() {
    let place = Place::new();
    let scenario = Database::sqlite(&place, "rows").rows(100);
    let listen = ["--metrics-listen", "127.0.0.1:0"];
    for (flag, value, words) in [
        ("--consul", "ftp://127.0.0.1", "no URL of an HTTP service"),
        ("--pyroscope", "pyroscope", "no URL of an HTTP service"),
        ("--pprof-listen", "0.0.0.0:6060", "name an address of loopback"),
    ] {
        place.run(&scenario, &[&listen[..], &[flag, value]].concat()).refused(&[flag, value, words]);
    }
    assert!(!place.path("reports").exists());
}

/// A profile that `go tool pprof` reads, and how many samples it has.
fn samples(profile: &[u8]) -> i64 {
    let mut bytes = Vec::new();
    GzDecoder::new(profile).read_to_end(&mut bytes).unwrap();
    let profile = Profile::decode(bytes.as_slice()).unwrap();
    let text = |at: i64| profile.string_table[usize::try_from(at).unwrap()].as_str();
    let types: Vec<_> = profile.sample_type.iter().map(|kind| (text(kind.ty), text(kind.unit))).collect();
    assert_eq!(types, [("samples", "count"), ("cpu", "nanoseconds")]);
    let names: Vec<_> = profile.function.iter().map(|function| text(function.name)).collect();
    assert!(names.iter().any(|name| name.contains("batchsql")), "no function of this program among {names:?}");
    profile.sample.iter().map(|sample| sample.value[0]).sum()
}

/// Rows without end: what is asked during it is asked during the load.
fn endless(place: &Place) -> Value {
    let mut scenario = Database::sqlite(place, "rows").rows(1_000_000_000);
    scenario["load"] = json!({"executor": "constant-vus", "duration": "10m"});
    scenario["name"] = json!("busy");
    scenario
}

#[test]
fn a_profile_is_taken_while_a_run_goes_on() {
    let place = Place::new();
    let mut running = place.start(&endless(&place), &["--pprof-listen", "127.0.0.1:0"]);
    let address = running.until("the address of profiles", |it| {
        it.said().split_once("profiles are on http://")?.1.split_once("/debug/pprof/\n")?.0.parse::<SocketAddr>().ok()
    });
    running.until_ledger_has(10_000);
    let profile = get_bytes(address, "/debug/pprof/profile?seconds=3");
    assert!(samples(&profile) > 5, "a harness that works is seen working");
    running.signal(Signal::SIGINT);
    running.end().json(130);
}

#[test]
fn profiles_of_a_run_arrive_at_pyroscope() {
    let (place, pyroscope) = (Place::new(), Recorder::answering("200 OK"));
    let url = format!("http://{}", pyroscope.address);
    let now = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let began = now();
    let mut running = place.start(&endless(&place), &["--pyroscope", &url, "--env", "ci"]);
    running.until_ledger_has(100_000);
    running.signal(Signal::SIGINT);
    running.end().json(130);
    let requests = pyroscope.requests();
    assert!(!requests.is_empty());
    for request in &requests {
        let asked = url::Url::parse(&format!("{url}{}", request.target)).unwrap();
        assert_eq!((request.method.as_str(), asked.path()), ("POST", "/ingest"));
        let value = |name: &str| asked.query_pairs().find(|(key, _)| key == name).unwrap().1.into_owned();
        assert_eq!((value("name").as_str(), value("format").as_str()), ("batchsql{env=ci,test_name=busy}", "pprof"));
        let [from, until] = ["from", "until"].map(|name| value(name).parse::<u64>().unwrap());
        assert!(began <= from && from < until && until <= now() + 1, "{began} {from} {until}");
    }
    assert!(requests.iter().map(|request| samples(&request.body)).sum::<i64>() > 5);
}

#[test]
fn a_pyroscope_that_is_not_there_is_told_once_and_disturbs_nothing() {
    let place = Place::new();
    let url = format!("http://{}", nobody());
    let ended = place.run(&Database::sqlite(&place, "rows").rows(1000), &["--pyroscope", &url]);
    ended.json(0);
    let told: Vec<_> = ended.stderr.lines().filter(|line| line.contains("--pyroscope")).collect();
    assert_eq!(told.len(), 1, "{}", ended.stderr);
    assert!(told[0].contains(&url) && told[0].contains("not reachable") && told[0].ends_with("the run goes on"), "{told:?}");
}
