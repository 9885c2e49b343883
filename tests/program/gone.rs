//! A server whose connections are cut in the middle of a run, for a moment or for good: what was on its way is unknown until looked at.

use std::io::copy;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread::spawn;

use batchsql::ledger::Ledger;
use serde_json::{Value, json};

use crate::database::Database;
use crate::place::{Ended, Place, assert_anomalies};

/// A way to the server that can be cut; it ends with the test's process.
pub(crate) struct Way {
    pub(crate) url: String,
    cut: Arc<Mutex<Cut>>,
}

#[derive(Default)]
struct Cut {
    open: Vec<TcpStream>,
    for_good: bool,
}

impl Way {
    pub(crate) fn to(db: &Database) -> Self {
        let mut url = url::Url::parse(&db.url).unwrap();
        let server: SocketAddr = format!("127.0.0.1:{}", url.port().unwrap()).parse().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        url.set_port(Some(listener.local_addr().unwrap().port())).unwrap();
        let cut = Arc::<Mutex<Cut>>::default();
        let shared = Arc::clone(&cut);
        spawn(move || {
            for client in listener.incoming() {
                let (client, server) = (client.unwrap(), TcpStream::connect(server).unwrap());
                let mut cut = shared.lock().unwrap();
                if cut.for_good {
                    continue;
                }
                for (from, to) in [(&client, &server), (&server, &client)] {
                    let (mut from, mut to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
                    spawn(move || {
                        // Ends when either side closes, or is cut.
                        let _ = copy(&mut from, &mut to);
                        let _ = to.shutdown(Shutdown::Write);
                    });
                }
                cut.open.extend([client, server]);
            }
        });
        Self { url: url.to_string(), cut }
    }

    /// Cuts every connection, in mid-word if need be; new ones are let through unless it is for good.
    pub(crate) fn cut(&self, for_good: bool) {
        let mut cut = self.cut.lock().unwrap();
        cut.for_good = for_good;
        for stream in cut.open.drain(..) {
            // One that has ended already is as good as cut.
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    /// Lets new connections through again.
    pub(crate) fn open(&self) {
        self.cut.lock().unwrap().for_good = false;
    }
}

fn servers(table: &str) -> impl Iterator<Item = (Place, Database)> {
    let servers = [Database::postgres(table), Database::mariadb(table), Database::mysql(table)];
    servers.into_iter().flatten().map(|db| (Place::new(), db))
}

/// 2,000 rows by a worker that pauses after each, so that the run lasts until the cuts are made.
fn through(place: &Place, db: &Database, way: &Way, gates: &[&str], cut: impl FnOnce(&mut crate::place::Running)) -> Ended {
    let load = json!({"executor": "shared-iterations", "vus": 4, "think_time": "1ms"});
    let pipeline = json!({"flush_size": 10, "buffer_size": 20, "retry": {"attempts": 3, "base": "5ms"}});
    let mut scenario = db.scenario(json!({"rows": 2000, "pipeline": pipeline}), load);
    scenario["gates"] = json!(gates);
    let mut running = place.start(&scenario, &["--database-url", &way.url]);
    cut(&mut running);
    running.end()
}

fn count(report: &Value, outcome: &str) -> u64 {
    report["outcomes"][outcome].as_u64().unwrap()
}

#[test]
fn cut_connections_are_opened_again_and_nothing_is_lost_or_stored_twice() {
    for (place, db) in servers("cut") {
        let way = Way::to(&db);
        let ended = through(&place, &db, &way, &["rejected == 0"], |running| {
            for bytes in [1000, 2500, 4000, 5500] {
                running.until_ledger_has(bytes);
                way.cut(false);
            }
        });
        let report = ended.json(0);
        assert_anomalies(&report["integrity"], &[]);
        assert!(report["errors"]["retry:connection"].as_u64().unwrap() >= 4, "{}", report["errors"]);
        // A batch whose answer was cut off met its own rows when it was sent again.
        let recovered = report["integrity"]["recovered"].as_u64().unwrap();
        assert_eq!((count(&report, "acknowledged") + count(&report, "unknown"), recovered), (2000, count(&report, "unknown")));
        assert_eq!(report["integrity"]["checked"], 2000);
    }
}

#[test]
fn a_server_that_is_gone_for_good_leaves_a_ledger_to_verify_by() {
    for (place, db) in servers("gone") {
        let way = Way::to(&db);
        let ended = through(&place, &db, &way, &[], |running| {
            running.until_ledger_has(2000);
            way.cut(true);
        });
        let report = ended.json(3);
        assert_eq!((&report["integrity"]["verdict"], &report["throughput"]["valid"]), (&json!("inconclusive"), &json!(false)));
        assert_eq!(report["integrity"]["lost"], 0);
        assert!(count(&report, "acknowledged") > 0 && count(&report, "rejected") > 0, "{}", report["outcomes"]);
        // The server itself is well; only the way to it was cut.
        let run = place.run_folders().remove(0);
        let integrity = place.verify(&run, &["--database-url", &db.url]).json(0);
        assert_anomalies(&integrity, &[]);
        let totals = Ledger::read(&run.join("ledger"), |_| {}).unwrap().totals();
        assert_eq!(totals, ["acknowledged", "rejected", "unknown"].map(|outcome| count(&report, outcome)));
        let recovered = integrity["recovered"].as_u64().unwrap();
        assert!(recovered <= totals[2]);
        assert_eq!(integrity["checked"], totals[0] + recovered);
    }
}
