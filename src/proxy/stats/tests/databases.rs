//! Real time-series databases scrape the gateway; what they answer must be what memory answers.

use std::path::Path;
use std::process::{Child, Command, Stdio};

use super::*;

/// A database of this test's own; gone with it.
struct Database(Child);

impl Drop for Database {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn start(program: &str, arguments: &[String]) -> Option<Database> {
    let child = Command::new(program).args(arguments).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    if child.is_err() {
        println!("left out: {program} is not installed");
    }
    child.ok().map(Database)
}

/// Asks until the answer is as wanted.
async fn until(address: SocketAddr, wanted: impl Fn(&Value) -> bool) -> Value {
    let began = Instant::now();
    loop {
        let answer = json(address, "/stats").await;
        if wanted(&answer) {
            return answer;
        }
        assert!(began.elapsed() < Duration::from_secs(60), "still {answer:#}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// An answer without what differs between two of them: the source, and what time changes.
fn figures(mut answer: Value) -> Value {
    for differing in ["source", "uptime_seconds", "requests_per_second"] {
        answer.as_object_mut().unwrap().remove(differing).unwrap();
    }
    answer
}

/// `arguments` are given configuration, data folder and port.
async fn agrees(program: &str, arguments: impl Fn(&Path, &Path, u16) -> Vec<String>) {
    let folder = tempfile::tempdir().unwrap();
    let port = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
    let vm_url = Some(format!("http://127.0.0.1:{port}"));
    let stats = Stats::new(Settings { vm_url, ..settings() }).unwrap();
    feed(&stats);
    let gateway = serve(routes(stats.clone())).await;
    // A load client that saw the same requests: no part of the gateway's statistics.
    let client = PrometheusMetrics::new();
    let theirs = AiProxyMetrics::new(&client);
    theirs.expect("main", "ann", "small", "http");
    let client = client.start_server("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let configuration = folder.path().join("scrape.yml");
    let job = |name, at| format!("  - job_name: {name}\n    static_configs: [{{targets: [\"{at}\"]}}]\n");
    let jobs = format!("global: {{scrape_interval: 1s}}\nscrape_configs:\n{}{}", job("gateway", gateway), job("client", client));
    std::fs::write(&configuration, jobs).unwrap();

    let arguments = arguments(&configuration, &folder.path().join("data"), port);
    let Some(database) = start(program, &arguments) else { return };
    let all = |answer: &Value| answer["source"] == "victoriametrics" && answer["totals"]["requests"] == 120;
    let answered = until(gateway, all).await;
    assert_eq!(figures(answered), figures(json(gateway, "/stats/legacy").await), "{program}");
    assert_eq!(json(gateway, "/health/vm").await["status"], "ok");
    let quantile = "histogram_quantile(0.95,sum(aiproxy_response_time_seconds_bucket)by(le))";
    let theirs = json(SocketAddr::from(([127, 0, 0, 1], port)), &format!("/api/v1/query?query={quantile}")).await;
    let seconds: f64 = theirs["data"]["result"][0]["value"][1].as_str().unwrap().parse().unwrap();
    assert!((seconds - 0.94).abs() < 1e-6, "{program} itself says P95 is {seconds} s");

    drop(database);
    let alone = json(gateway, "/stats").await;
    assert_eq!((&alone["source"], &alone["fallback"]), (&json!("memory"), &json!(true)), "{alone:#}");
    assert_eq!(ask(gateway, "GET /health/vm", "").await.0, 503);
    feed(&stats);
    let _again = start(program, &arguments).unwrap();
    let back = until(gateway, |answer| answer["source"] == "victoriametrics" && answer["totals"]["requests"] == 240).await;
    assert_eq!(figures(back), figures(json(gateway, "/stats/legacy").await), "{program}, started again");
}

#[tokio::test]
async fn prometheus_and_memory_agree() {
    agrees("prometheus", |configuration, data, port| {
        vec![
            format!("--config.file={}", configuration.display()),
            format!("--storage.tsdb.path={}", data.display()),
            format!("--web.listen-address=127.0.0.1:{port}"),
        ]
    })
    .await;
}

#[tokio::test]
async fn victoria_metrics_and_memory_agree() {
    agrees("victoria-metrics", |configuration, data, port| {
        vec![
            format!("-promscrape.config={}", configuration.display()),
            format!("-storageDataPath={}", data.display()),
            format!("-httpListenAddr=127.0.0.1:{port}"),
            "-retentionPeriod=12".to_owned(),
            "-search.latencyOffset=0s".to_owned(),
        ]
    })
    .await;
}
