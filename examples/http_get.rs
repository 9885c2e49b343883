//! A bounded closed loop over the HTTP client and nothing else, to hold the client against other load generators on the same
//! target: CONNECTIONS tasks on one thread, each request timed. Prints requests a second, p50 and p99.
//!
//! `cargo run --release --example http_get -- URL CONNECTIONS SECONDS`

use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use batchsql::http::{Client, Config, Kind, Request};
use batchsql::scenario::http::{ClientSettings, HttpProfile, HttpVersion, ReplyLimits, ReplyTimeouts};
use bytes::Bytes;
use hdrhistogram::Histogram;
use tokio::task::LocalSet;

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [url, connections, seconds] = &arguments[..] else { bail!("usage: http_get URL CONNECTIONS SECONDS") };
    let connections: usize = connections.parse().context("CONNECTIONS is a number")?;
    let seconds: u64 = seconds.parse().context("SECONDS is a number")?;
    let profile = HttpProfile::Default.settings();
    let client = Rc::new(Client::new(Config {
        url: url.parse().context("URL is http://host:port")?,
        version: HttpVersion::Auto,
        ca_file: None,
        settings: ClientSettings { max_idle_per_host: connections, max_per_host: Some(connections), ..profile },
        timeouts: ReplyTimeouts::default(),
        limits: ReplyLimits::default(),
        via: None,
    })?);
    let began = Instant::now();
    let end = began + Duration::from_secs(seconds.min(60));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let times = runtime.block_on(LocalSet::new().run_until(async {
        let tasks: Vec<_> = (0..connections).map(|_| tokio::task::spawn_local(send(Rc::clone(&client), end))).collect();
        let mut all = Histogram::<u64>::new(3)?;
        for task in tasks {
            all.add(task.await??)?;
        }
        client.close().await;
        anyhow::Ok(all)
    }))?;
    let micros = |quantile| Duration::from_nanos(times.value_at_quantile(quantile)).as_secs_f64() * 1e6;
    println!("{:.0} requests/s, p50 {:.0} µs, p99 {:.0} µs", times.len() as f64 / began.elapsed().as_secs_f64(), micros(0.5), micros(0.99));
    Ok(())
}

async fn send(client: Rc<Client>, end: Instant) -> anyhow::Result<Histogram<u64>> {
    let mut times = Histogram::new(3)?;
    let request = Request { method: http::Method::GET, target: "/".to_owned(), headers: Vec::new(), body: Bytes::new(), kind: Kind::Plain };
    loop {
        let reply = client.exchange(&request).await.map_err(|failed| failed.failure)?;
        if reply.status != 200 {
            bail!("status {}", reply.status);
        }
        times.record((reply.done - reply.sent).as_nanos() as u64)?;
        if reply.done >= end {
            return Ok(times);
        }
    }
}
