//! Prometheus, Alertmanager and VictoriaMetrics, started by a test on free ports, and plain HTTP to talk to them.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use serde_json::Value;

use crate::place::{Place, Running, until};

/// A server of others; it ends with the test at the latest.
pub(super) struct Part {
    child: Child,
    pub(super) address: SocketAddr,
}

impl Part {
    /// The server of `program` with a free port in its arguments for `PORT`, once it answers at `path`; nothing if it is not installed.
    fn start(place: &Place, names: &[&str], arguments: &[&str], path: &str) -> Option<Self> {
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let arguments: Vec<_> = arguments.iter().map(|argument| argument.replace("PORT", &address.port().to_string())).collect();
        let log = || File::create(place.path(&format!("{}.log", names[0]))).unwrap();
        let spawn = |name: &&str| {
            let mut command = Command::new(name);
            command.args(&arguments).stdin(Stdio::null()).stdout(log()).stderr(log()).spawn().ok()
        };
        let Some(child) = names.iter().find_map(spawn) else {
            println!("left out: {} is not installed", names[0]);
            return None;
        };
        let part = Self { child, address };
        until(names[0], || (TcpStream::connect(address).is_ok() && request(address, "GET", path, &[], "").status == 200).then_some(()));
        Some(part)
    }

    pub(super) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(super) fn get(&self, path: &str) -> String {
        request(self.address, "GET", path, &[], "").body
    }

    pub(super) fn stop(mut self) -> ExitStatus {
        self.child.kill().unwrap();
        self.child.wait().unwrap()
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        // Both fail when it has ended already, which is what is wanted.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Prometheus with the configuration in `config`, a path.
pub(super) fn prometheus(place: &Place, config: &str) -> Option<Part> {
    let (config, data) = (format!("--config.file={config}"), format!("--storage.tsdb.path={}", place.name("prometheus")));
    let more = ["--web.listen-address=127.0.0.1:PORT", "--web.enable-lifecycle"];
    Part::start(place, &["prometheus"], &[&config, &data, more[0], more[1]], "/-/ready")
}

pub(super) fn alertmanager(place: &Place, config: &str) -> Option<Part> {
    let (config, data) = (format!("--config.file={config}"), format!("--storage.path={}", place.name("alertmanager")));
    let more = ["--web.listen-address=127.0.0.1:PORT", "--cluster.listen-address="];
    Part::start(place, &["prometheus-alertmanager", "alertmanager"], &[&config, &data, more[0], more[1]], "/-/ready")
}

pub(super) fn victoriametrics(place: &Place) -> Option<Part> {
    let data = format!("-storageDataPath={}", place.name("victoriametrics"));
    Part::start(place, &["victoria-metrics"], &["-httpListenAddr=127.0.0.1:PORT", &data, "-search.latencyOffset=0s"], "/health")
}

/// An answer.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    /// In small letters.
    pub(super) head: String,
    pub(super) body: String,
}

impl Answer {
    pub(super) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

/// One request; HTTP/1.0, so that nobody answers in chunks.
pub(super) fn request(address: SocketAddr, method: &str, path: &str, headers: &[&str], body: &str) -> Answer {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let headers: String = headers.iter().map(|header| format!("{header}\r\n")).collect();
    let length = body.len();
    let head = format!("{method} {path} HTTP/1.0\r\nHost: {address}\r\nContent-Length: {length}\r\n{headers}\r\n");
    // A server may answer, and hang up, before it has read all of a body that is too large.
    let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body.as_bytes()));
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    let answer = String::from_utf8(answer).unwrap();
    let Some((head, body)) = answer.split_once("\r\n\r\n") else { return Answer { status: 0, head: String::new(), body: answer } };
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    Answer { status, head: head.to_ascii_lowercase(), body: body.to_owned() }
}

/// `batchsql serve` of this place's reports, and where it listens.
pub(super) fn serve(place: &Place, more: &[&str], token: Option<&str>) -> (Running, SocketAddr) {
    let mut command = place.command(&["serve", "--listen", "127.0.0.1:0", "--report-dir", "reports"]);
    command.args(more).env_remove("BATCHSQL_SERVE_TOKEN");
    command.envs(token.map(|token| ("BATCHSQL_SERVE_TOKEN", token)));
    let mut running = place.spawn(command);
    let address = running.until("serve's address", |it| {
        let said = it.said();
        let (_, after) = said.split_once("listening on http://")?;
        after.split_once(['\n', ';'])?.0.parse().ok()
    });
    (running, address)
}
