//! Known requests in, every number out; databases that fail, and real ones.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use axum::http::header::AUTHORIZATION;

use super::*;

mod databases;

/// Serves on a free port for as long as the test runs.
async fn serve(router: Router) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, router).await });
    address
}

/// Status, head and body of a request.
async fn ask(address: SocketAddr, request: &str, header: &str) -> (u16, String, String) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("{request} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{header}\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), head.to_lowercase(), body.to_owned())
}

async fn json(address: SocketAddr, path: &str) -> Value {
    let (status, _, body) = ask(address, &format!("GET {path}"), "").await;
    assert_eq!(status, 200, "{path}: {body}");
    serde_json::from_str(&body).unwrap()
}

fn settings() -> Settings {
    let prices = [("small".to_owned(), Price { prompt_per_1k: 0.5, completion_per_1k: 1.5 })];
    Settings { admin_token: Some("s3cret".to_owned()), prices: prices.into(), ..Settings::default() }
}

fn seen(channel: &str, user: &str, model: &str, millis: u64) -> Seen {
    Seen {
        request_id: format!("{user}-{millis}"),
        user: user.to_owned(),
        channel: channel.to_owned(),
        model: model.to_owned(),
        protocol: "http",
        status: 200,
        success: true,
        duration: Duration::from_millis(millis),
        header_after: Duration::from_millis(millis),
        first_token: None,
        gaps: Vec::new(),
        prompt_tokens: 10,
        completion_tokens: 20,
        request_bytes: 300,
        response_bytes: 900,
    }
}

/// 100 requests of ann (10 ms, 20 ms, … 1 s; ten of them failed), 20 streams of bob.
fn feed(stats: &Stats) {
    for n in 1..=100 {
        stats.record(&Seen { success: n % 10 != 0, status: if n % 10 == 0 { 502 } else { 200 }, ..seen("main", "ann", "small", n * 10) });
    }
    for _ in 0..20 {
        let gaps = vec![Duration::from_millis(30); 4];
        stats.record(&Seen { protocol: "sse", first_token: Some(Duration::from_millis(200)), gaps, ..seen("spare", "bob", "large", 400) });
    }
    stats.database_query(Duration::from_millis(10));
    stats.database_query(Duration::from_millis(14));
}

#[tokio::test]
async fn the_administrator_sees_every_figure_and_resets_them() {
    let stats = Stats::new(settings()).unwrap();
    feed(&stats);
    let address = serve(routes(stats)).await;
    let admin = "Authorization: Bearer s3cret\r\n";
    let (status, _, body) = ask(address, "GET /api/metrics/", admin).await;
    assert_eq!(status, 200, "{body}");
    let expected = r#"{"success":true,"data":{"total_requests":120,"failed_requests":10,"success_rate":91.66,"average_duration":"487ms","p50_latency":"400ms","p95_latency":"940ms","p99_latency":"990ms","db_query_count":2,"db_avg_duration":"12ms","streaming_requests":20,"avg_ttft":"200ms"}}"#;
    assert_eq!(body, expected);
    assert_eq!(ask(address, "GET /api/metrics", admin).await.2, expected, "with or without the last slash");
    let (status, _, body) = ask(address, "POST /api/metrics/reset", admin).await;
    assert_eq!((status, serde_json::from_str::<Value>(&body).unwrap()["success"].clone()), (200, json!(true)));
    let data = serde_json::from_str::<Value>(&ask(address, "GET /api/metrics/", admin).await.2).unwrap()["data"].clone();
    assert_eq!((&data["total_requests"], &data["p99_latency"], &data["db_query_count"]), (&json!(0), &json!("0ms"), &json!(0)));
    assert_eq!(json(address, "/stats").await["totals"]["requests"], 120, "what is not of the window goes on");
}

#[tokio::test]
async fn nobody_else_sees_or_resets_them() {
    let address = serve(routes(Stats::new(settings()).unwrap())).await;
    for request in ["GET /api/metrics/", "POST /api/metrics/reset"] {
        for header in [
            "",
            "Authorization: Bearer s3cre\r\n",
            "Authorization: Bearer s3crets\r\n",
            "Authorization: Bearer S3cret\r\n",
            "Authorization: Bearer \r\n",
            "Authorization: s3cret\r\n",
            "Authorization: Basic s3cret\r\n",
        ] {
            let (status, head, body) = ask(address, request, header).await;
            assert_eq!((status, head.contains("www-authenticate: bearer")), (401, true), "{request} {header}");
            assert!(body.contains(r#""success":false"#) && !body.contains("s3cret"), "{body}");
        }
        assert_eq!(ask(address, request, "authorization: bearer s3cret\r\n").await.0, 200, "the scheme's case does not matter");
    }
    assert_eq!(ask(address, "GET /api/metrics/reset", "Authorization: Bearer s3cret\r\n").await.0, 405);
    for admin_token in [None, Some(String::new())] {
        let closed = serve(routes(Stats::new(Settings { admin_token, ..settings() }).unwrap())).await;
        let (status, _, body) = ask(closed, "GET /api/metrics/", "Authorization: Bearer \r\n").await;
        assert_eq!((status, body.contains("admin_token")), (403, true), "{body}");
    }
}

#[tokio::test]
async fn memory_tells_every_number() {
    let stats = Stats::new(settings()).unwrap();
    feed(&stats);
    let address = serve(routes(stats)).await;
    let mut answer = json(address, "/stats/legacy").await;
    assert!(answer["uptime_seconds"].as_f64().unwrap() >= 0.0);
    answer.as_object_mut().unwrap().remove("uptime_seconds");
    let group = |name: &str, requests: u64, errors: u64, rate: f64| json!({"name": name, "requests": requests, "success": requests - errors, "errors": errors, "success_rate": rate});
    let whole = |mut group: Value, tokens: [u64; 2], cost: [f64; 2], latency: Value| {
        group["tokens"] = json!({"prompt": tokens[0], "completion": tokens[1], "total": tokens[0] + tokens[1]});
        group["cost"] = json!({"prompt": cost[0], "completion": cost[1], "total": cost[0] + cost[1]});
        group["latency"] = latency;
        group
    };
    // 10, 20, … 1,000 ms evenly: interpolation within the buckets finds the percentiles; 400 ms twenty times lies between 300 and 500.
    let even = json!({"count": 100, "avg_ms": 505.0, "p50_ms": 500.0, "p95_ms": 950.0, "p99_ms": 990.0});
    let same = json!({"count": 20, "avg_ms": 400.0, "p50_ms": 400.0, "p95_ms": 490.0, "p99_ms": 498.0});
    let small = |name| whole(group(name, 100, 10, 90.0), [1000, 2000], [0.5, 3.0], even.clone());
    let large = |name| whole(group(name, 20, 0, 100.0), [200, 400], [0.0, 0.0], same.clone());
    assert_eq!(
        answer,
        json!({
            "source": "memory", "fallback": false, "reason": null, "requests_per_second": [],
            "totals": {"requests": 120, "success": 110, "errors": 10, "success_rate": 110.0 / 120.0 * 100.0},
            "tokens": {"prompt": 1200, "completion": 2400, "total": 3600},
            "cost": {"prompt": 0.5, "completion": 3.0, "total": 3.5},
            "latency": {"count": 120, "avg_ms": 487.5, "p50_ms": 450.0, "p95_ms": 940.0, "p99_ms": 988.0},
            "ttft": {"count": 20, "avg_ms": 200.0, "p50_ms": 175.0, "p95_ms": 197.5, "p99_ms": 199.5},
            "channels": [small("main"), large("spare")],
            "users": [group("ann", 100, 10, 90.0), group("bob", 20, 0, 100.0)],
            "models": [small("small"), large("large")],
        })
    );
    let mut live = json(address, "/stats").await;
    live.as_object_mut().unwrap().remove("uptime_seconds");
    assert_eq!(live, answer, "without VM_URL memory is the source, and no fallback");
    let (status, _, body) = ask(address, "GET /health/vm", "").await;
    assert_eq!((status, body.contains("VM_URL is not set")), (503, true), "{body}");
}

#[tokio::test]
async fn metrics_are_prometheus_text() {
    let stats = Stats::new(settings()).unwrap();
    feed(&stats);
    stats.set_api_keys(7);
    let (_, head, body) = ask(serve(routes(stats)).await, "GET /metrics", "").await;
    assert!(head.contains("content-type: text/plain; version=0.0.4; charset=utf-8"), "{head}");
    for line in [
        r#"aiproxy_requests_total{channel="main",model="small",protocol="http",status="error",user_name="ann"} 10"#,
        r#"aiproxy_requests_total{channel="spare",model="large",protocol="sse",status="success",user_name="bob"} 20"#,
        r#"aiproxy_inter_token_latency_seconds_count{channel="spare",model="large"} 80"#,
        r#"aiproxy_cost_total{channel="main",kind="completion",model="small"} 3"#,
        "aiproxy_api_keys_total 7",
        "batchsql_series_dropped_total 0",
    ] {
        assert!(body.lines().any(|found| found == line || float_close(found, line)), "{line}\n{body}");
    }
}

/// The same series with the same value but for the last bits of a sum.
fn float_close(a: &str, b: &str) -> bool {
    let split = |line: &str| line.rsplit_once(' ').map(|(series, value)| (series.to_owned(), value.parse::<f64>().unwrap_or(f64::NAN)));
    matches!((split(a), split(b)), (Some((a, x)), Some((b, y))) if a == b && (x - y).abs() < 1e-9)
}

#[tokio::test]
async fn switched_off_nothing_is_counted_or_shown() {
    let stats = Stats::new(Settings { enabled: false, ..settings() }).unwrap();
    feed(&stats);
    assert_eq!(stats.memory().summary, Summary::default());
    let address = serve(routes(stats)).await;
    for path in ["/metrics", "/stats", "/stats/legacy", "/dashboard", "/health/vm", "/api/metrics/"] {
        assert_eq!(ask(address, &format!("GET {path}"), "Authorization: Bearer s3cret\r\n").await.0, 404, "{path}");
    }
}

#[test]
fn requests_of_many_threads_are_all_counted() {
    let stats = Stats::new(settings()).unwrap();
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let stats = stats.clone();
            scope.spawn(move || {
                (0..1000).for_each(|n| stats.record(&seen("main", &format!("u{}", (n + thread) % 5), "small", n)));
            });
        }
    });
    let summary = stats.memory().summary;
    assert_eq!((summary.totals.requests, summary.tokens.total, summary.latency.count), (4000, 120_000, 4000));
    assert!(summary.users.iter().all(|user| user.totals.success == 800), "{:?}", summary.users);
}

#[test]
fn an_address_that_is_none_is_refused_without_its_password() {
    for url in ["", "localhost:8428", "ftp://127.0.0.1", "http://ann:s3cret@[::1"] {
        let error = format!("{:#}", Stats::new(Settings { vm_url: Some(url.to_owned()), ..settings() }).err().unwrap());
        assert!(error.contains("VM_URL") && error.contains("http://127.0.0.1:8428") && !error.contains("s3cret"), "{error}");
    }
}

#[tokio::test]
async fn whatever_is_wrong_with_the_database_memory_answers_and_says_so() {
    let garbage = serve(Router::new().route("/api/v1/query", get(async || "<html>"))).await;
    let broken = serve(Router::new().route("/api/v1/query", get(async || StatusCode::INTERNAL_SERVER_ERROR))).await;
    let empty = serve(Router::new().route("/api/v1/query", get(async || r#"{"data":{"result":[]}}"#))).await;
    let wrong = serve(Router::new().route("/api/v1/query", get(async || r#"{"data":{"result":[{"metric":{},"value":[1,"x"]}]}}"#))).await;
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    for (at, reason) in [
        (garbage, "none of a time-series database"),
        (broken, "it answered 500"),
        (empty, "no aiproxy_* series"),
        (wrong, "\"x\" for a number"),
        (silent.local_addr().unwrap(), "no answer within 1s"),
        (nobody, "refused"),
    ] {
        let vm_url = Some(format!("http://ann:s3cret@{at}"));
        let stats = Stats::new(Settings { vm_url, ..settings() }).unwrap();
        feed(&stats);
        let address = serve(routes(stats)).await;
        let began = Instant::now();
        let answer = json(address, "/stats").await;
        assert!(began.elapsed() < Duration::from_secs(5), "{reason}: {:?}", began.elapsed());
        assert_eq!((&answer["source"], &answer["fallback"]), (&json!("memory"), &json!(true)), "{reason}");
        let said = answer["reason"].as_str().unwrap();
        assert!(said.contains(reason) && said.contains(&at.to_string()) && !said.contains("s3cret"), "{reason}: {said}");
        assert_eq!(answer["totals"]["requests"], 120, "{reason}");
    }
}

#[tokio::test]
async fn a_database_that_is_back_answers_again_with_the_login_it_was_given() {
    static ASKED: AtomicU64 = AtomicU64::new(0);
    let flaky = get(async |headers: HeaderMap| {
        if headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok()) != Some("Basic YW5uOnMzQGNyZXQ=") {
            return Err(StatusCode::UNAUTHORIZED);
        }
        if ASKED.fetch_add(1, Relaxed) == 0 {
            return Err(StatusCode::BAD_GATEWAY);
        }
        let labels =
            json!({"__name__": "aiproxy_requests_total", "channel": "main", "user_name": "ann", "model": "small", "status": "success"});
        Ok(Json(json!({"data": {"result": [{"metric": labels, "value": [1.5, "41"]}]}})))
    });
    let database = serve(Router::new().route("/behind/api/v1/query", flaky)).await;
    let vm_url = Some(format!("http://ann:s3%40cret@{database}/behind/"));
    let address = serve(routes(Stats::new(Settings { vm_url, ..settings() }).unwrap())).await;
    assert_eq!(json(address, "/stats").await["source"], "memory");
    let back = json(address, "/stats").await;
    assert_eq!((&back["source"], &back["fallback"], &back["reason"]), (&json!("victoriametrics"), &json!(false), &Value::Null));
    assert_eq!((&back["totals"]["requests"], &back["channels"][0]["success"]), (&json!(41), &json!(41)));
    assert_eq!(json(address, "/stats/legacy").await["totals"]["requests"], 0);
    let health = json(address, "/health/vm").await;
    assert_eq!(health, json!({"status": "ok", "url": format!("http://{database}/behind/")}));
}

#[tokio::test]
async fn the_dashboard_needs_nothing_from_elsewhere_and_escapes_what_it_shows() {
    let stats = Stats::new(settings()).unwrap();
    feed(&stats);
    stats.record(&seen("main", "<img src=x onerror=alert(1)>", "\"&", 5));
    let (status, head, page) = ask(serve(routes(stats)).await, "GET /dashboard", "").await;
    assert_eq!(status, 200);
    assert!(head.contains("content-type: text/html; charset=utf-8") && head.contains("default-src 'none'"), "{head}");
    for needed in ["<noscript><meta http-equiv=\"refresh\" content=\"5\"></noscript>", "fetch(\"stats\"", "prefers-color-scheme: dark"] {
        assert!(page.contains(needed), "{needed}");
    }
    assert!(!page.contains("://") && !page.contains("src=\"") && !page.contains("@import"), "it asks for something from elsewhere");
    assert!(page.contains("<td>&lt;img src=x onerror=alert(1)&gt;<td>1<td>0</tr>") && page.contains("<td>&quot;&amp;<td>1"), "{page}");
    assert!(page.contains("121 requests, 10 errors, success 91.74 %") && !page.contains("<img"), "{page}");
    assert!(!page.contains("innerHTML"), "values go in as text");
}
