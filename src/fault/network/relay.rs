//! One connection from its beginning to its end: accepted, led to the server, and struck by whatever strikes connections whole.

use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rand::SeedableRng as _;
use rand_xoshiro::Xoshiro256PlusPlus;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::timeout;

use super::cut::Talk;
use super::pump::{End, Side, pump};
use super::{Network, Weather};

/// Longest wait for the server to accept a connection.
const CONNECT: Duration = Duration::from_secs(10);

/// Relays `client` until one side ends it or a fault does. `number` is the connection's.
pub(super) async fn relay(mut client: TcpStream, network: Arc<Network>, number: u64) {
    let place = network.arrive();
    let mut weather = network.weather();
    let at_first = place.weather;
    if at_first.reset {
        return reset(&client);
    }
    // Accepted and silent, until it is healed.
    if weather.wait_for(|weather| !weather.hole).await.is_err() {
        return;
    }
    let Some(mut server) = connect(&network).await else { return reset(&client) };
    if client.set_nodelay(true).and_then(|()| server.set_nodelay(true)).is_err() {
        return;
    }
    let ended = tokio::select! {
        biased;
        ended = struck(&mut weather, &at_first) => ended,
        passed = both(&mut client, &mut server, &network, number) => match passed {
            Ok(()) => Ended::InOrder,
            // One side was reset or is gone; the other one learns it the same way.
            Err(_) => Ended::Reset,
        },
    };
    match ended {
        Ended::InOrder => {}
        Ended::Reset => {
            reset(&client);
            reset(&server);
        }
        Ended::Half => {
            drop(server);
            // The client's side stays open and silent until it is healed.
            let _ = weather.wait_for(|weather| !weather.half_open).await;
            reset(&client);
        }
    }
}

enum Ended {
    InOrder,
    Reset,
    Half,
}

async fn connect(network: &Network) -> Option<TcpStream> {
    let (host, port) = network.leads_to()?;
    timeout(CONNECT, TcpStream::connect((host.as_str(), port))).await.ok()?.ok()
}

/// Waits for what strikes every connection that was there before.
async fn struck(weather: &mut watch::Receiver<Weather>, at_first: &Weather) -> Ended {
    loop {
        let now = *weather.borrow_and_update();
        if now.resets != at_first.resets {
            return Ended::Reset;
        }
        if now.halves != at_first.halves {
            return Ended::Half;
        }
        if weather.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

/// Both directions, until both have ended or one was cut.
async fn both(client: &mut TcpStream, server: &mut TcpStream, network: &Arc<Network>, number: u64) -> io::Result<()> {
    let talk = Mutex::new(Talk::new(network.spoken(), network.cuts()));
    let (mut from_client, mut to_client) = client.split();
    let (mut from_server, mut to_server) = server.split();
    let rng = |direction| Xoshiro256PlusPlus::seed_from_u64(network.seed() ^ number.rotate_left(17) ^ direction);
    let mut up = std::pin::pin!(pump(Side::Client, &mut from_client, &mut to_server, &talk, network.weather(), rng(1)));
    let mut down = std::pin::pin!(pump(Side::Server, &mut from_server, &mut to_client, &talk, network.weather(), rng(2)));
    let first = tokio::select! {
        ended = &mut up => (ended?, Side::Client),
        ended = &mut down => (ended?, Side::Server),
    };
    // What was cut on the client's side has been written by now; what was cut on the server's side may not have been.
    match first {
        (End::Cut, _) => Ok(()),
        (End::Closed, Side::Client) => down.await.map(drop),
        (End::Closed, Side::Server) => up.await.map(drop),
    }
}

/// Lets the connection end with RST instead of FIN when it is dropped.
fn reset(stream: &TcpStream) {
    let _ = socket2::SockRef::from(stream).set_linger(Some(Duration::ZERO));
}
