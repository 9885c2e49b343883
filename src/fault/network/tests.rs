//! The proxy between real sockets: every kind of fault of whole connections, and the traffic that is left alone.

use std::net::SocketAddr;
use std::time::Instant;

use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpSocket;

use super::*;

/// A server that says everything back, the proxy before it, and where that listens.
struct Stage {
    front: InFront,
    faults: Vec<Fault>,
    address: SocketAddr,
}

impl Stage {
    async fn new(faults: serde_json::Value) -> Self {
        let echo = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", echo.local_addr().unwrap());
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = echo.accept().await {
                tokio::spawn(async move {
                    let (mut from, mut to) = stream.split();
                    let _ = tokio::io::copy(&mut from, &mut to).await;
                });
            }
        });
        let scenario: Scenario = serde_json::from_value(json!({
            "name": "x", "target": {"http": {"url": url, "version": "http2"}}, "load": {"executor": "shared-iterations"},
            "workload": {"proxy_request": {"requests": 1, "mix": [{"http": {"path": "/"}}]}}, "faults": faults
        }))
        .unwrap();
        let mut target = scenario.target.clone();
        let front = InFront::of(&scenario, &mut target).await.unwrap();
        Self { front, address: target.http.unwrap().via.unwrap(), faults: scenario.faults.clone() }
    }

    fn fault(&self, number: u32) -> Arc<dyn Act> {
        self.front.fault(number, &self.faults[number as usize])
    }

    async fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        stream
    }
}

/// Sends `text` and waits for as much to come back; how long that took.
async fn round(stream: &mut TcpStream, text: &[u8]) -> std::io::Result<Duration> {
    let began = Instant::now();
    stream.write_all(text).await?;
    let mut back = vec![0; text.len()];
    stream.read_exact(&mut back).await?;
    assert_eq!(back, text);
    Ok(began.elapsed())
}

/// Whether nothing comes for a while.
async fn is_silent(stream: &mut TcpStream) -> bool {
    tokio::time::timeout(Duration::from_millis(200), stream.read_u8()).await.is_err()
}

async fn ends_with(stream: &mut TcpStream) -> std::io::ErrorKind {
    let read = tokio::time::timeout(Duration::from_secs(20), stream.read_u8()).await.expect("the connection ends");
    read.unwrap_err().kind()
}

#[tokio::test]
async fn latency_holds_back_each_way_and_keeps_the_order() {
    let stage = Stage::new(json!([{"at": "0s", "for": "1s", "kind": "latency", "latency": "60ms", "jitter": "40ms"}])).await;
    let mut stream = stage.connect().await;
    round(&mut stream, b"warm").await.unwrap();
    let latency = stage.fault(0);
    latency.begin().await.unwrap();
    let took = round(&mut stream, b"one").await.unwrap();
    assert!((Duration::from_millis(120)..Duration::from_secs(5)).contains(&took), "{took:?}");
    // A hundred pieces under way at once, each with a jitter of its own, come back in order.
    for number in 0..100u8 {
        stream.write_all(&[number]).await.unwrap();
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let mut back = [0; 100];
    stream.read_exact(&mut back).await.unwrap();
    assert!(back.iter().copied().eq(0..100));
    latency.heal().await.unwrap();
    assert_eq!(latency.struck(), None);
    let fastest = {
        let mut fastest = Duration::MAX;
        for _ in 0..20 {
            fastest = fastest.min(round(&mut stream, b"two").await.unwrap());
        }
        fastest
    };
    assert!(fastest < Duration::from_millis(60), "{fastest:?}");
}

#[tokio::test]
async fn bandwidth_lets_so_much_pass_in_a_second() {
    let stage = Stage::new(json!([{"at": "0s", "for": "1s", "kind": "bandwidth", "bytes_per_second": 100_000}])).await;
    let mut stream = stage.connect().await;
    let bandwidth = stage.fault(0);
    bandwidth.begin().await.unwrap();
    // Half a second each way, side by side.
    let took = round(&mut stream, &[7; 50_000]).await.unwrap();
    assert!((Duration::from_millis(480)..Duration::from_secs(5)).contains(&took), "{took:?}");
    bandwidth.heal().await.unwrap();
    let took = round(&mut stream, &[7; 50_000]).await.unwrap();
    assert!(took < Duration::from_millis(480), "{took:?}");
}

#[tokio::test]
async fn slices_are_no_longer_than_asked_for() {
    let stage = Stage::new(json!([{"at": "0s", "for": "1s", "kind": "slice", "bytes": 10, "pause": "20ms"}])).await;
    let mut stream = stage.connect().await;
    stage.fault(0).begin().await.unwrap();
    stream.write_all(&[7; 100]).await.unwrap();
    let began = Instant::now();
    let mut first = [0; 100];
    let read = stream.read(&mut first).await.unwrap();
    assert_eq!(read, 10);
    stream.read_exact(&mut first[10..]).await.unwrap();
    assert!(began.elapsed() >= Duration::from_millis(150), "{:?}", began.elapsed());
}

#[tokio::test]
async fn a_reset_ends_every_connection_and_new_ones_until_it_is_healed() {
    let stage = Stage::new(json!([{"at": "0s", "for": "1s", "kind": "reset"}])).await;
    let (mut one, mut two) = (stage.connect().await, stage.connect().await);
    round(&mut one, b"a").await.unwrap();
    round(&mut two, b"a").await.unwrap();
    let reset = stage.fault(0);
    reset.begin().await.unwrap();
    assert_eq!(reset.struck(), Some(2));
    assert_eq!(
        (ends_with(&mut one).await, ends_with(&mut two).await),
        (std::io::ErrorKind::ConnectionReset, std::io::ErrorKind::ConnectionReset)
    );
    let mut late = stage.connect().await;
    assert_eq!(ends_with(&mut late).await, std::io::ErrorKind::ConnectionReset);
    reset.heal().await.unwrap();
    assert_eq!(reset.struck(), Some(3));
    round(&mut stage.connect().await, b"b").await.unwrap();
}

#[tokio::test]
async fn in_a_black_hole_nothing_passes_and_all_of_it_comes_later() {
    let stage = Stage::new(json!([{"at": "0s", "for": "1s", "kind": "black_hole"}])).await;
    let mut old = stage.connect().await;
    round(&mut old, b"a").await.unwrap();
    let hole = stage.fault(0);
    hole.begin().await.unwrap();
    let mut new = stage.connect().await;
    old.write_all(b"late").await.unwrap();
    new.write_all(b"later").await.unwrap();
    assert!(is_silent(&mut old).await && is_silent(&mut new).await);
    hole.heal().await.unwrap();
    assert_eq!(hole.struck(), Some(2));
    let (mut late, mut later) = ([0; 4], [0; 5]);
    old.read_exact(&mut late).await.unwrap();
    new.read_exact(&mut later).await.unwrap();
    assert_eq!((&late, &later), (b"late", b"later"));
}

#[tokio::test]
async fn half_open_connections_are_silent_and_new_ones_are_not() {
    let stage = Stage::new(json!([{"at": "0s", "for": "1s", "kind": "half_open"}])).await;
    let mut old = stage.connect().await;
    round(&mut old, b"a").await.unwrap();
    let half = stage.fault(0);
    half.begin().await.unwrap();
    old.write_all(b"nobody hears").await.unwrap();
    assert!(is_silent(&mut old).await);
    round(&mut stage.connect().await, b"b").await.unwrap();
    half.heal().await.unwrap();
    assert_eq!(half.struck(), Some(1));
    assert_eq!(ends_with(&mut old).await, std::io::ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn a_cut_at_a_byte_lets_exactly_so_many_pass() {
    let faults = json!([{"at": "0s", "for": "1s", "kind": "cut", "when": "at_byte", "bytes": 1000, "most": 2}]);
    let stage = Stage::new(faults).await;
    let mut old = stage.connect().await;
    round(&mut old, &[1; 700]).await.unwrap();
    let cut = stage.fault(0);
    cut.begin().await.unwrap();
    let mut new = stage.connect().await;
    // Counted from its beginning on, or from the fault's.
    for stream in [&mut old, &mut new] {
        round(stream, &[2; 400]).await.unwrap();
        stream.write_all(&[3; 700]).await.unwrap();
        let mut rest = Vec::new();
        // What had passed may come back, or the end may overtake it.
        let _ = stream.read_to_end(&mut rest).await;
        assert!(rest.len() <= 600, "{}", rest.len());
    }
    assert_eq!(cut.struck(), Some(2));
    round(&mut stage.connect().await, &[4; 5000]).await.unwrap();
    cut.heal().await.unwrap();
}

#[tokio::test]
async fn a_server_that_resets_or_is_not_there_is_passed_on_and_ends_are_too() {
    let stage = Stage::new(json!([{"at": "0s", "kind": "reset"}])).await;
    let mut stream = stage.connect().await;
    stream.write_all(b"bye").await.unwrap();
    stream.shutdown().await.unwrap();
    let mut all = Vec::new();
    stream.read_to_end(&mut all).await.unwrap();
    assert_eq!(all, b"bye", "half of a connection may end before the other");
    // A port that is bound and on which nobody listens.
    let nobody = TcpSocket::new_v4().unwrap();
    nobody.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let network = Arc::new(Network {
        spoken: Spoken::Bytes,
        seed: 1,
        leads_to: OnceLock::from(("127.0.0.1".to_owned(), nobody.local_addr().unwrap().port())),
        cuts: Arc::default(),
        weather: watch::Sender::new(Weather::default()),
        state: Mutex::default(),
    });
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let end = CancellationToken::new();
    tokio::spawn(accept(listener, network, end.clone()));
    let mut stream = TcpStream::connect(address).await.unwrap();
    assert_eq!(ends_with(&mut stream).await, std::io::ErrorKind::ConnectionReset);
    end.cancel();
}

#[tokio::test]
async fn a_slow_reader_stops_the_writer() {
    let stage = Stage::new(json!([{"at": "0s", "kind": "reset"}])).await;
    let mut stream = stage.connect().await;
    let block = vec![5; 1 << 20];
    let mut written = 0;
    // Nobody reads what comes back: sooner or later nothing more goes.
    while tokio::time::timeout(Duration::from_millis(500), stream.write_all(&block)).await.is_ok() {
        written += 1;
        assert!(written < 200, "200 MiB are under way and nobody reads");
    }
}
