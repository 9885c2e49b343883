//! Prometheus with the shipped configuration, VictoriaMetrics behind it, and the exporters, on ports of the test's own.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};

use crate::board::root;
use crate::common::server_url;
use crate::place::{Place, until};
use crate::yaml;

/// A server that ends with the test.
pub(crate) struct Server {
    child: Child,
    pub(crate) address: SocketAddr,
}

impl Drop for Server {
    fn drop(&mut self) {
        // Both fail when it has ended already, which is what is wanted.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// An address that nobody listens on now.
pub(crate) fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

impl Server {
    /// Starts what is installed and waits until it answers; `None`, said aloud, if it is not installed.
    fn start(
        place: &Place,
        program: &str,
        arguments: impl FnOnce(SocketAddr) -> Vec<String>,
        variables: &[(&str, String)],
    ) -> Option<Self> {
        let address = free_address();
        let log = place.path(&format!("{program}.log"));
        let (out, err) = (File::create(&log).unwrap(), File::options().append(true).open(&log).unwrap());
        let mut command = Command::new(program);
        command.args(arguments(address)).envs(variables.iter().map(|(name, value)| (name, value)));
        let Ok(child) = command.stdin(Stdio::null()).stdout(out).stderr(err).spawn() else {
            println!("left out: {program} is not installed");
            return None;
        };
        let mut server = Self { child, address };
        until(program, || {
            let ended = server.child.try_wait().unwrap();
            assert!(ended.is_none(), "{program} ended: {}", fs::read_to_string(&log).unwrap());
            TcpStream::connect(address).ok()
        });
        Some(server)
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }
}

/// The exporters that can be had, by the name of their job.
pub(crate) fn exporters(place: &Place) -> BTreeMap<&'static str, Server> {
    let listen = |address: SocketAddr| vec![format!("--web.listen-address={address}")];
    let mut all = BTreeMap::new();
    all.extend(Server::start(place, "prometheus-node-exporter", listen, &[]).map(|server| ("node", server)));
    if let Some(url) = server_url("BATCHSQL_TEST_POSTGRES") {
        let source = [("DATA_SOURCE_NAME", format!("{url}?sslmode=disable"))];
        all.extend(Server::start(place, "prometheus-postgres-exporter", listen, &source).map(|server| ("postgres", server)));
    }
    if let Some(url) = server_url("BATCHSQL_TEST_MARIADB") {
        let url = url::Url::parse(&url).unwrap();
        let (host, port, user, password) = (url.host_str().unwrap(), url.port().unwrap(), url.username(), url.password().unwrap());
        let login = format!("[client]\nhost = {host}\nport = {port}\nuser = {user}\npassword = {password}\n");
        let file = place.write("mysqld-exporter.cnf", &login);
        let with_login = |address| [listen(address), vec![format!("--config.my-cnf={file}")]].concat();
        all.extend(Server::start(place, "prometheus-mysqld-exporter", with_login, &[]).map(|server| ("mysql", server)));
    }
    all
}

/// An empty VictoriaMetrics that shows at once what it was sent.
pub(crate) fn victoria_metrics(place: &Place) -> Option<Server> {
    let storage = place.name("victoria");
    let arguments = |address| {
        let flags = [format!("-storageDataPath={storage}"), format!("-httpListenAddr={address}"), "-search.latencyOffset=0s".to_owned()];
        flags.to_vec()
    };
    Server::start(place, "victoria-metrics", arguments, &[])
}

/// Prometheus with the shipped configuration, its targets where they are in this test, scraped every second.
pub(crate) fn prometheus(place: &Place, targets: &BTreeMap<&str, Vec<SocketAddr>>, written_to: Option<&Server>) -> Option<Server> {
    let folder = place.path("prometheus");
    fs::create_dir_all(folder.join("rules")).unwrap();
    for file in fs::read_dir(root().join("config/prometheus/rules")).unwrap() {
        let file = file.unwrap();
        fs::copy(file.path(), folder.join("rules").join(file.file_name())).unwrap();
    }
    let shipped = yaml::to_json(&fs::read_to_string(root().join("config/prometheus/prometheus.yml")).unwrap());
    let config = place.write("prometheus/prometheus.yml", &rewritten(shipped, targets, written_to).to_string());
    let data = place.name("prometheus/data");
    let arguments = |address| {
        let flags = [format!("--config.file={config}"), format!("--storage.tsdb.path={data}"), format!("--web.listen-address={address}")];
        flags.to_vec()
    };
    Server::start(place, "prometheus", arguments, &[])
}

/// Jobs keep everything but where their targets are; those that have none here are left out, and exporters that are not shipped as
/// jobs are added.
fn rewritten(mut config: Value, targets: &BTreeMap<&str, Vec<SocketAddr>>, written_to: Option<&Server>) -> Value {
    let mut missing: BTreeMap<&str, &Vec<SocketAddr>> = targets.iter().map(|(name, at)| (*name, at)).collect();
    let mut jobs = Vec::new();
    for mut job in config["scrape_configs"].as_array().unwrap().iter().cloned() {
        let name = job["job_name"].as_str().unwrap().to_owned();
        let Some(at) = targets.keys().find(|target| name.starts_with(**target)).and_then(|target| missing.remove(target)) else { continue };
        let keys = job.as_object_mut().unwrap();
        keys.retain(|key, _| !key.ends_with("_configs") || key == "metric_relabel_configs");
        keys.remove("scrape_interval");
        job["static_configs"] = json!([{"targets": at}]);
        jobs.push(job);
    }
    jobs.extend(missing.iter().map(|(name, at)| json!({"job_name": name, "static_configs": [{"targets": at}]})));
    assert!(jobs[0]["job_name"] == "batchsql" && jobs[0]["metric_relabel_configs"].is_array(), "{jobs:?}");
    config["scrape_configs"] = jobs.into();
    config["global"]["scrape_interval"] = "1s".into();
    config["global"]["evaluation_interval"] = "1s".into();
    let keys = config.as_object_mut().unwrap();
    keys.remove("alerting");
    keys.remove("remote_write");
    if let Some(server) = written_to {
        keys.insert("remote_write".to_owned(), json!([{"url": format!("{}/api/v1/write", server.url())}]));
    }
    config
}

/// What the API of Prometheus answers: its `data`, or its error.
pub(crate) fn ask(base: &str, path: &str, parameters: &[(&str, &str)]) -> Result<Value, String> {
    let base = url::Url::parse(base).unwrap();
    let address = (base.host_str().unwrap(), base.port_or_known_default().unwrap());
    let query: String = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(parameters).finish();
    let path = format!("{}/api/v1/{path}?{query}", base.path().trim_end_matches('/'));
    let mut stream = TcpStream::connect(address).map_err(|error| error.to_string())?;
    // 1.0: the answer is not chunked, and ends with the connection.
    write!(stream, "GET {path} HTTP/1.0\r\nHost: {}\r\n\r\n", address.0).map_err(|error| error.to_string())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).map_err(|error| error.to_string())?;
    let (_, body) = answer.split_once("\r\n\r\n").ok_or("no answer")?;
    let mut body: Value = serde_json::from_str(body).map_err(|error| format!("{error}: {body}"))?;
    if body["status"] == "success" { Ok(body["data"].take()) } else { Err(body["error"].to_string()) }
}
