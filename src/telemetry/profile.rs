//! A CPU profile of this program, be it gateway or harness, on a loopback port of its own, as `go tool pprof` reads it.
//!
//! Nothing is sampled unless somebody asks. There is one profiler a process, so one profile at a time.

use std::io::Write as _;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use axum::Router;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::http::header::{CONTENT_DISPOSITION, CONTENT_TYPE};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::get;
use flate2::Compression;
use flate2::write::GzEncoder;
use pprof::protos::Message as _;
use pprof::{ProfilerGuard, ProfilerGuardBuilder};
use serde::Deserialize;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// Samples a second of CPU time: no multiple of anything that ticks by tens.
const FREQUENCY_HZ: i32 = 99;
const DEFAULT_SECONDS: u64 = 30;
const MOST_SECONDS: u64 = 300;

const INDEX: &str = "<!doctype html><title>/debug/pprof/</title><h1>/debug/pprof/</h1>\
    <p><a href=\"profile?seconds=30\">profile</a>: CPU, for <code>go tool pprof</code>; <code>seconds</code> from 1 to 300.\
    <p>heap, goroutine, block, mutex: not to be had here, each says why.";

/// What a profile of this program cannot be, and why.
const MISSING: [(&str, &str); 4] = [
    ("heap", "the allocator keeps no record of allocations"),
    ("goroutine", "this is no Go program: its tasks have no stacks of their own to list"),
    ("block", "waiting tasks are not sampled; the latencies in /metrics show the waiting"),
    ("mutex", "contention on locks is not sampled; the CPU profile shows spinning"),
];

/// Serves profiles on this address of loopback (port 0: any free one) until `stop`; `setting` is what asked for it.
///
/// # Errors
/// When the address is not loopback, or in use.
pub(crate) async fn start(asked: SocketAddr, setting: &str, stop: CancellationToken) -> Result<SocketAddr> {
    ensure!(asked.ip().is_loopback(), "{setting}: profiles are for this machine alone; name an address of loopback, e.g. 127.0.0.1:6060");
    let listener = TcpListener::bind(asked).await;
    let listener = listener.with_context(|| format!("{setting}: cannot listen on {asked}; name a free port, or leave profiles off"))?;
    let address = listener.local_addr()?;
    let service = axum::serve(listener, router(stop.clone())).with_graceful_shutdown(stop.cancelled_owned());
    tokio::spawn(async move {
        // Accept errors are retried inside; nothing else ends it but `stop`.
        let _ = service.await;
    });
    Ok(address)
}

fn router(stop: CancellationToken) -> Router {
    let mut router = Router::new().route("/debug/pprof/", get(Html(INDEX))).route("/debug/pprof/profile", get(profile));
    for (name, reason) in MISSING {
        let answer = (StatusCode::NOT_IMPLEMENTED, format!("no {name} profile: {reason}\n"));
        router = router.route(&format!("/debug/pprof/{name}"), get(move || async move { answer }));
    }
    router.with_state(stop)
}

#[derive(Deserialize)]
struct Asked {
    seconds: Option<String>,
}

async fn profile(State(stop): State<CancellationToken>, Query(asked): Query<Asked>) -> Response {
    let seconds = match asked.seconds.as_deref().map_or(Ok(DEFAULT_SECONDS), str::parse) {
        Ok(seconds @ 1..=MOST_SECONDS) => seconds,
        _ => return (StatusCode::BAD_REQUEST, format!("seconds: a whole number from 1 to {MOST_SECONDS} is expected\n")).into_response(),
    };
    match sample(Duration::from_secs(seconds), &stop).await {
        Ok(profile) => {
            let headers = [(CONTENT_TYPE, "application/octet-stream"), (CONTENT_DISPOSITION, "attachment; filename=\"profile.pb.gz\"")];
            (headers, profile).into_response()
        }
        Err(error) => (StatusCode::SERVICE_UNAVAILABLE, format!("{error:#}\n")).into_response(),
    }
}

/// Samples for so long. Whoever hangs up before stops it, because this future is dropped then.
async fn sample(length: Duration, stop: &CancellationToken) -> Result<Vec<u8>> {
    let sampling = Sampling::begin().await?;
    tokio::select! {
        () = tokio::time::sleep(length) => {}
        () = stop.cancelled() => bail!("the program is stopping"),
    }
    sampling.end().await
}

/// The profiler, sampling until it is dropped.
pub(super) struct Sampling(ProfilerGuard<'static>);

impl Sampling {
    pub(super) async fn begin() -> Result<Self> {
        // The first time it reads what a stack needs to be unwound, which takes a while.
        tokio::task::spawn_blocking(Self::begin_now).await.context("the profiler cannot start")?
    }

    fn begin_now() -> Result<Self> {
        // The C library's own frames are left out: unwinding from inside it can deadlock.
        let builder = ProfilerGuardBuilder::default().frequency(FREQUENCY_HZ).blocklist(&["libc", "libgcc", "pthread", "vdso"]);
        builder.build().map(Self).map_err(|error| match error {
            pprof::Error::Running => anyhow!("a profile is being taken; ask again when it is done"),
            other => anyhow!("the profiler cannot start: {other}"),
        })
    }

    /// What was sampled so far, as gzip of a protobuf.
    pub(super) async fn end(self) -> Result<Vec<u8>> {
        // Names of functions are read from the program's file, which takes a while.
        tokio::task::spawn_blocking(move || encode(&self.0)).await.context("the profile could not be written")?
    }
}

fn encode(guard: &ProfilerGuard<'_>) -> Result<Vec<u8>> {
    let profile = guard.report().frames_post_processor(without_the_profiler).build()?.pprof()?;
    let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
    gzip.write_all(&profile.encode_to_vec())?;
    Ok(gzip.finish()?)
}

/// Leaves out the frames that took the sample, or every sample would seem to be spent in them.
fn without_the_profiler(frames: &mut pprof::Frames) {
    let of_the_profiler =
        |symbol: &pprof::Symbol| ["pprof::backtrace", "backtrace::backtrace"].iter().any(|own| symbol.name().contains(own));
    let own = frames.frames.iter().take_while(|symbols| symbols.iter().any(of_the_profiler)).count();
    frames.frames.drain(..own);
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;
    use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

    use flate2::read::GzDecoder;
    use pprof::protos::Profile;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpStream;

    use super::*;

    const ANY: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0);

    /// Status and body.
    async fn get(address: SocketAddr, path: &str) -> (u16, Vec<u8>) {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let request = format!("GET /debug/pprof/{path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.unwrap();
        let body = memchr::memmem::find(&answer, b"\r\n\r\n").unwrap() + 4;
        (std::str::from_utf8(&answer[9..12]).unwrap().parse().unwrap(), answer.split_off(body))
    }

    #[inline(never)]
    fn busy_as_a_bee(stop: &AtomicBool) -> u64 {
        let mut sum = 0_u64;
        while !stop.load(Relaxed) {
            sum = std::hint::black_box(sum.wrapping_mul(31).wrapping_add(7));
        }
        sum
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_profile_names_the_function_that_is_busy_and_there_is_one_at_a_time() {
        let stop = CancellationToken::new();
        let address = start(ANY, "PPROF_PORT 0", stop.clone()).await.unwrap();
        assert!(address.ip().is_loopback());
        let idle = AtomicBool::new(false);
        let runtime = tokio::runtime::Handle::current();
        let (first, second) = std::thread::scope(|scope| {
            scope.spawn(|| busy_as_a_bee(&idle));
            let both = tokio::task::block_in_place(|| {
                runtime.block_on(async { tokio::join!(get(address, "profile?seconds=2"), get(address, "profile?seconds=2")) })
            });
            idle.store(true, Relaxed);
            both
        });
        let ((status, profile), (refused, why)) = if first.0 == 200 { (first, second) } else { (second, first) };
        assert_eq!((status, refused), (200, 503));
        assert!(String::from_utf8(why).unwrap().contains("a profile is being taken"));
        assert_eq!(profile[..2], [0x1f, 0x8b], "gzip");
        let mut bytes = Vec::new();
        GzDecoder::new(profile.as_slice()).read_to_end(&mut bytes).unwrap();
        let profile = Profile::decode(bytes.as_slice()).unwrap();
        let text = |at: i64| profile.string_table[usize::try_from(at).unwrap()].as_str();
        let types: Vec<_> = profile.sample_type.iter().map(|kind| (text(kind.ty), text(kind.unit))).collect();
        assert_eq!(types, [("samples", "count"), ("cpu", "nanoseconds")]);
        let busy = profile.function.iter().find(|function| text(function.name).contains("busy_as_a_bee")).unwrap().id;
        let within = |sample: &&pprof::protos::Sample| sample.location_id.contains(&busy);
        let samples: i64 = profile.sample.iter().filter(within).map(|sample| sample.value[0]).sum();
        assert!(samples > 10, "{samples} samples of a loop that ran for two seconds");
        assert!(profile.duration_nanos >= 2_000_000_000);
        // Of the busy thread alone: other tests of this process may be taking backtraces of their own.
        let seen: Vec<u64> = profile.sample.iter().filter(within).flat_map(|sample| sample.location_id.clone()).collect();
        let functions = profile.function.iter().filter(|function| seen.contains(&function.id));
        let own =
            functions.map(|function| text(function.name)).find(|name| name.contains("pprof::") || name.contains("backtrace::backtrace"));
        assert_eq!(own, None, "the profiler shows itself");
        stop.cancel();
        let error = sample(Duration::from_secs(300), &stop).await.unwrap_err().to_string();
        assert_eq!(error, "the program is stopping", "no profile holds a stop up");
    }

    #[tokio::test]
    async fn what_cannot_be_had_says_why() {
        let stop = CancellationToken::new();
        let address = start(ANY, "PPROF_PORT 0", stop.clone()).await.unwrap();
        for (name, reason) in MISSING {
            let (status, body) = get(address, name).await;
            assert_eq!((status, String::from_utf8(body).unwrap().contains(reason)), (501, true), "{name}");
        }
        for wrong in ["0", "301", "-1", "1.5", "x", ""] {
            let (status, body) = get(address, &format!("profile?seconds={wrong}")).await;
            assert_eq!((status, String::from_utf8(body).unwrap().contains("from 1 to 300")), (400, true), "{wrong}");
        }
        let (status, body) = get(address, "").await;
        assert_eq!((status, String::from_utf8(body).unwrap().contains("profile?seconds=30")), (200, true));
        let error = format!("{:#}", start(address, &format!("PPROF_PORT {}", address.port()), stop.clone()).await.unwrap_err());
        assert!(error.contains(&format!("PPROF_PORT {}", address.port())) && error.contains("in use"), "{error}");
        let error = start("0.0.0.0:0".parse().unwrap(), "--pprof-listen 0.0.0.0:0", stop.clone()).await.unwrap_err().to_string();
        assert_eq!(
            error,
            "--pprof-listen 0.0.0.0:0: profiles are for this machine alone; name an address of loopback, e.g. 127.0.0.1:6060"
        );
        stop.cancel();
    }
}
