//! One direction of a connection: bytes go through the conversation, wait as long as the weather asks for, and are written in pieces
//! that are paced. What is read ahead is bounded: a slow reader makes the writer wait, as without us.

use std::collections::VecDeque;
use std::io;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bytes::{Buf as _, Bytes, BytesMut};
use rand::Rng as _;
use rand_xoshiro::Xoshiro256PlusPlus;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use super::Weather;
use super::cut::Talk;

/// Most bytes that are under way in one direction.
const AHEAD: usize = 1 << 20;
/// Bytes read at once.
const READ: usize = 64 << 10;

/// How a direction ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// The side that was read closed it, and all of it was passed on.
    Closed,
    /// It was cut on purpose.
    Cut,
}

/// Which side is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Client,
    Server,
}

/// Bytes that are under way.
struct Line {
    pieces: VecDeque<(Instant, Bytes)>,
    bytes: usize,
    /// When the next piece may be written, by bandwidth and slices.
    free: Instant,
    rng: Xoshiro256PlusPlus,
}

impl Line {
    fn push(&mut self, bytes: Bytes, weather: &Weather) {
        if bytes.is_empty() {
            return;
        }
        let jitter = weather.jitter.mul_f64((self.rng.next_u64() >> 11) as f64 / (1u64 << 53) as f64);
        let due = Instant::now() + weather.latency + jitter;
        // Nothing overtakes what was sent before it.
        let due = self.pieces.back().map_or(due, |(before, _)| due.max(*before));
        self.bytes += bytes.len();
        self.pieces.push_back((due, bytes));
    }

    /// Writes the next piece once it may be written. Nothing is lost if this is given up before it ends.
    async fn step(&mut self, to: &mut WriteHalf<'_>, weather: &Weather) -> io::Result<()> {
        let Some((due, front)) = self.pieces.front_mut() else { return std::future::pending().await };
        let at = (*due).max(self.free);
        if at > Instant::now() {
            sleep_until(at).await;
        }
        let len = front.len().min(weather.piece());
        let written = to.write(&front[..len]).await?;
        if written == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        front.advance(written);
        if front.is_empty() {
            self.pieces.pop_front();
        }
        self.bytes -= written;
        let pause = weather.pause(written);
        if !pause.is_zero() {
            self.free = at.max(Instant::now() - pause.min(Duration::from_millis(10))) + pause;
        }
        Ok(())
    }
}

/// Passes everything from `from` to `to` until one of them ends or the conversation is cut.
pub(super) async fn pump(
    side: Side,
    from: &mut ReadHalf<'_>,
    to: &mut WriteHalf<'_>,
    talk: &Mutex<Talk>,
    mut weather: watch::Receiver<Weather>,
    rng: Xoshiro256PlusPlus,
) -> io::Result<End> {
    let mut line = Line { pieces: VecDeque::new(), bytes: 0, free: Instant::now(), rng };
    let mut buffer = BytesMut::new();
    let (mut cut, mut closed) = (false, false);
    loop {
        let now = *weather.borrow_and_update();
        if now.hole {
            changed(&mut weather).await?;
            continue;
        }
        if line.pieces.is_empty() && (cut || closed) {
            if closed && !cut {
                to.write_all(&buffer).await?;
                to.shutdown().await?;
            }
            return Ok(if cut { End::Cut } else { End::Closed });
        }
        buffer.reserve(READ);
        let reads = !cut && !closed && line.bytes < AHEAD;
        tokio::select! {
            biased;
            changed = changed(&mut weather) => changed?,
            written = line.step(to, &now), if !line.pieces.is_empty() => written?,
            read = from.read_buf(&mut buffer), if reads => {
                closed = read? == 0;
                let passed = {
                    let mut talk = talk.lock().unwrap_or_else(PoisonError::into_inner);
                    if side == Side::Client { talk.client(&mut buffer) } else { talk.server(&mut buffer) }
                };
                cut = passed.cut;
                line.push(passed.bytes, &now);
            }
        }
    }
}

/// Waits for another weather; an error once there will be none.
async fn changed(weather: &mut watch::Receiver<Weather>) -> io::Result<()> {
    weather.changed().await.map_err(|_| io::ErrorKind::NotConnected.into())
}
