//! Faults of the network: a TCP proxy in this process between the load and its target. It reads along far enough to cut a connection
//! between a commit and its answer ([`protocol`], [`cut`]), holds back and paces what passes ([`pump`]), and strikes connections whole
//! ([`relay`]). Without a fault in force it passes everything on as it comes.

mod cut;
mod front;
mod protocol;
mod pump;
mod relay;

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use async_trait::async_trait;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::Act;
use crate::scenario::fault::{Fault, Kind};
use crate::scenario::{Scenario, TargetConfig};
use cut::{Cut, Cuts};
use protocol::Spoken;

/// Most connections at once; more are reset.
const CONNECTIONS: usize = 10_000;

/// What every connection goes through now.
#[derive(Clone, Copy, Debug, Default)]
struct Weather {
    latency: Duration,
    jitter: Duration,
    bytes_per_second: Option<u64>,
    slice: Option<(u64, Duration)>,
    hole: bool,
    /// New connections are reset.
    reset: bool,
    half_open: bool,
    /// How often all connections were reset, or lost their server's side.
    resets: u64,
    halves: u64,
}

impl Weather {
    /// Most bytes written at once.
    fn piece(&self) -> usize {
        // Fifty pieces a second are even enough.
        let paced = self.bytes_per_second.map_or(u64::MAX, |rate| (rate / 50).max(1));
        let sliced = self.slice.map_or(u64::MAX, |(bytes, _)| bytes);
        usize::try_from(paced.min(sliced)).unwrap_or(usize::MAX)
    }

    /// How long nothing may follow `written` bytes.
    fn pause(&self, written: usize) -> Duration {
        let paced = self.bytes_per_second.map_or(Duration::ZERO, |rate| Duration::from_secs_f64(written as f64 / rate as f64));
        paced.max(self.slice.map_or(Duration::ZERO, |(_, pause)| pause))
    }
}

/// The proxy and the faults that are in force on it. It ends when dropped.
struct Network {
    spoken: Spoken,
    seed: u64,
    leads_to: OnceLock<(String, u16)>,
    cuts: Arc<Cuts>,
    weather: watch::Sender<Weather>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Connections that are open.
    open: u64,
    /// Faults in force that count connections, by number.
    counting: BTreeMap<u32, Arc<AtomicU64>>,
    /// All faults in force.
    active: BTreeMap<u32, Fault>,
}

/// The proxy as the run holds it.
pub(crate) struct InFront {
    network: Arc<Network>,
    _end: DropGuard,
}

impl InFront {
    /// Starts the proxy and puts it in front of `target`.
    ///
    /// # Errors
    /// When the target cannot have one, or not with these faults.
    pub(crate) async fn of(scenario: &Scenario, target: &mut TargetConfig) -> anyhow::Result<Self> {
        let spoken = front::spoken(target)?;
        if spoken == Spoken::Bytes {
            front::refuse_unseen(&scenario.faults)?;
        }
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.context("the fault proxy cannot listen on loopback")?;
        let address = listener.local_addr()?;
        let leads_to = OnceLock::new();
        if let Some(place) = front::put(address, target)? {
            let _ = leads_to.set(place);
        }
        let network = Arc::new(Network {
            spoken,
            seed: scenario.seed,
            leads_to,
            cuts: Arc::default(),
            weather: watch::Sender::new(Weather::default()),
            state: Mutex::default(),
        });
        let end = CancellationToken::new();
        tokio::spawn(accept(listener, Arc::clone(&network), end.clone()));
        Ok(Self { network, _end: end.drop_guard() })
    }

    /// Says where requests go, of a service that was started after the proxy.
    ///
    /// # Errors
    /// When `url` names no place.
    pub(crate) fn leads_to(&self, url: &str) -> anyhow::Result<()> {
        let _ = self.network.leads_to.set(front::place_of(url)?);
        Ok(())
    }

    /// One fault of this network.
    pub(crate) fn fault(&self, number: u32, fault: &Fault) -> Arc<dyn Act> {
        let seed = self.network.seed ^ (u64::from(number) + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let counts = matches!(fault.kind, Kind::Reset | Kind::BlackHole | Kind::HalfOpen);
        Arc::new(Trouble {
            network: Arc::clone(&self.network),
            number,
            fault: fault.clone(),
            connections: counts.then(Arc::default),
            cut: (fault.kind == Kind::Cut).then(|| Arc::new(Cut::new(fault, seed))),
        })
    }
}

async fn accept(listener: TcpListener, network: Arc<Network>, end: CancellationToken) {
    let mut relays = JoinSet::new();
    let mut number = 0;
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(_) = relays.join_next() => continue,
            () = end.cancelled() => return,
        };
        match accepted {
            Ok((client, _)) if relays.len() < CONNECTIONS => {
                number += 1;
                relays.spawn(relay::relay(client, Arc::clone(&network), number));
            }
            Ok((client, _)) => too_many(client),
            // Out of file descriptors, most likely: some become free.
            Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    }
}

fn too_many(client: TcpStream) {
    let _ = socket2::SockRef::from(&client).set_linger(Some(Duration::ZERO));
}

/// A connection among those that are open.
struct Place {
    network: Arc<Network>,
    /// When it came.
    weather: Weather,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.network.state().open -= 1;
    }
}

impl Network {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A connection begins: whatever strikes connections from now on strikes it too.
    fn arrive(self: &Arc<Self>) -> Place {
        let mut state = self.state();
        state.open += 1;
        for (number, count) in &state.counting {
            // Those that are open already when a half-open fault begins are all that it strikes.
            if state.active.get(number).is_some_and(|fault| fault.kind != Kind::HalfOpen) {
                count.fetch_add(1, Ordering::Relaxed);
            }
        }
        Place { network: Arc::clone(self), weather: *self.weather.borrow() }
    }

    fn weather(&self) -> watch::Receiver<Weather> {
        self.weather.subscribe()
    }

    fn leads_to(&self) -> Option<(String, u16)> {
        self.leads_to.get().cloned()
    }

    fn spoken(&self) -> Spoken {
        self.spoken
    }

    fn cuts(&self) -> Arc<Cuts> {
        Arc::clone(&self.cuts)
    }

    fn seed(&self) -> u64 {
        self.seed
    }

    fn begin(&self, trouble: &Trouble) {
        if let Some(cut) = &trouble.cut {
            self.cuts.begin(cut);
        }
        let mut state = self.state();
        state.active.insert(trouble.number, trouble.fault.clone());
        if let Some(count) = &trouble.connections {
            count.fetch_add(state.open, Ordering::Relaxed);
            state.counting.insert(trouble.number, Arc::clone(count));
        }
        self.change(&state, Some(trouble.fault.kind));
    }

    fn heal(&self, trouble: &Trouble) {
        if let Some(cut) = &trouble.cut {
            self.cuts.heal(cut);
        }
        let mut state = self.state();
        state.active.remove(&trouble.number);
        state.counting.remove(&trouble.number);
        self.change(&state, None);
    }

    /// Makes the weather what the faults in force ask for. Those of one kind add up: the longest latency, the least bandwidth.
    fn change(&self, state: &State, begins: Option<Kind>) {
        let is = |kind: Kind| state.active.values().any(move |fault| fault.kind == kind);
        let of = |kind: Kind| state.active.values().filter(move |fault| fault.kind == kind);
        let longest = |times: &mut dyn Iterator<Item = Option<Duration>>| times.flatten().max().unwrap_or_default();
        self.weather.send_modify(|weather| {
            *weather = Weather {
                latency: longest(&mut of(Kind::Latency).map(|fault| fault.latency.map(|time| time.0))),
                jitter: longest(&mut of(Kind::Latency).map(|fault| fault.jitter.map(|time| time.0))),
                bytes_per_second: of(Kind::Bandwidth).filter_map(|fault| fault.bytes_per_second).min(),
                slice: of(Kind::Slice).filter_map(|fault| Some((fault.bytes?, fault.pause.map(|time| time.0).unwrap_or_default()))).min(),
                hole: is(Kind::BlackHole),
                reset: is(Kind::Reset),
                half_open: is(Kind::HalfOpen),
                resets: weather.resets + u64::from(begins == Some(Kind::Reset)),
                halves: weather.halves + u64::from(begins == Some(Kind::HalfOpen)),
            };
        });
    }
}

/// One fault of the network.
struct Trouble {
    network: Arc<Network>,
    number: u32,
    fault: Fault,
    /// How many it struck, of the kinds that strike connections whole.
    connections: Option<Arc<AtomicU64>>,
    cut: Option<Arc<Cut>>,
}

#[async_trait]
impl Act for Trouble {
    async fn begin(&self) -> Result<(), String> {
        self.network.begin(self);
        Ok(())
    }

    async fn heal(&self) -> Result<(), String> {
        self.network.heal(self);
        Ok(())
    }

    fn struck(&self) -> Option<u64> {
        let cuts = self.cut.as_ref().map(|cut| cut.struck());
        cuts.or_else(|| self.connections.as_ref().map(|count| count.load(Ordering::Relaxed)))
    }
}

#[cfg(test)]
mod tests;
