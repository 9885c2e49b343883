//! `batchsql proxy` as a program: the environment over `.env` over the file, what it says, and how it stops.

use std::net::SocketAddr;
use std::process::{ExitStatus, Stdio};

use batchsql::workload::reply;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::io::{AsyncBufReadExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStderr, Command};

use crate::id;
use crate::model::Model;
use crate::place::{Place, chat_at};

struct Program {
    child: Child,
    lines: Lines<BufReader<ChildStderr>>,
    said: Vec<String>,
}

impl Program {
    fn start(place: &Place, config: &str, variables: &[(&str, &str)]) -> Self {
        std::fs::write(place.path("gateway.yaml"), config).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_batchsql"));
        command.args(["proxy", "--config", "gateway.yaml", "--listen", "127.0.0.1:0"]).current_dir(place.path(""));
        command.envs(variables.iter().copied()).stdin(Stdio::null()).stderr(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().unwrap();
        let lines = BufReader::new(child.stderr.take().unwrap()).lines();
        Self { child, lines, said: Vec::new() }
    }

    /// Reads until a line holds `part`.
    async fn says(&mut self, part: &str) -> String {
        loop {
            let line = self.lines.next_line().await.unwrap().unwrap_or_else(|| panic!("no {part:?} in {:#?}", self.said));
            self.said.push(line.clone());
            if line.contains(part) {
                return line;
            }
        }
    }

    async fn ends(mut self) -> (ExitStatus, Vec<String>) {
        while let Some(line) = self.lines.next_line().await.unwrap() {
            self.said.push(line);
        }
        (self.child.wait().await.unwrap(), self.said)
    }
}

fn config(place: &Place, model: &Model) -> String {
    format!(
        "channels: [{{name: a, url: 'http://{}'}}]\nusers: [{{name: alice, key: '${{ALICE_KEY}}'}}]\nslow_request: 1us\n\
         log: {{database: {{sqlite: {{path: '{}', profile: conservative}}}}, batch: {{flush_interval: 1h}}}}\n",
        model.address,
        place.path("gateway.db").display()
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn it_reads_the_environment_says_what_it_does_and_writes_everything_when_told_to_stop() {
    let place = Place::sqlite();
    let model = Model::start("a").await;
    std::fs::write(place.path(".env"), "ALICE_KEY=sk-of-alice\nSQLITE_SYNCHRONOUS=OFF\nSQLITE_BUSY_TIMEOUT=1234\n").unwrap();
    let mut program = Program::start(&place, &config(&place, &model), &[("SQLITE_SYNCHRONOUS", "FULL")]);
    let listening = program.says("listening on http://").await;
    let address: SocketAddr = listening.rsplit("//").next().unwrap().parse().unwrap();
    for line in ["journal_mode = WAL", "cache_size = -32000", "synchronous = FULL", "busy_timeout = 1234"] {
        let line = format!("[SYS] SQLite PRAGMA: {line}");
        assert!(program.said.contains(&line), "{line} is not in {:#?}", program.said);
    }
    let answer = chat_at(address, "sk-of-alice", &id(1), "m1", 5, true).await;
    assert_eq!((answer.text, answer.whole), (reply::text(&id(1), 5), true));
    let line = program.says(&id(1)).await;
    assert!(
        line.starts_with("slow request bq-") && line.contains(" 200 POST /v1/chat/completions user=alice channel=a model=m1 "),
        "{line}"
    );
    assert!(line.strip_suffix("ms").is_some_and(|line| line.rsplit(' ').next().unwrap().parse::<f64>().is_ok()), "{line}");
    kill(Pid::from_raw(program.child.id().unwrap() as i32), Signal::SIGTERM).unwrap();
    let (status, said) = program.ends().await;
    assert_eq!((status.code(), said.last().map(String::as_str)), (Some(0), Some("[SYS] stopped")), "{said:#?}");
    assert!(said.iter().all(|line| !line.contains("sk-of-alice")), "{said:#?}");
    assert_eq!(place.rows().await.into_iter().map(|row| row.request_id).collect::<Vec<_>>(), [id(1)]);
    assert_eq!(place.used("alice").await, 3 + 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_is_told_at_once() {
    let place = Place::sqlite();
    let model = Model::start("a").await;
    let wrong = [("ALICE_KEY", "sk"), ("LOG_BATCH_SIZE", "many"), ("HTTP_KEEPALIVE", "-1")];
    let (status, said) = Program::start(&place, &config(&place, &model), &wrong).ends().await;
    assert_eq!(
        (status.code(), said),
        (
            Some(2),
            vec![
                "batchsql: environment variable HTTP_KEEPALIVE: found \"-1\"; write seconds: a whole number from 0 to 86400".to_owned(),
                "environment variable LOG_BATCH_SIZE: found \"many\"; write a whole number from 1 to 100000".to_owned(),
            ]
        )
    );
    let (status, said) = Program::start(&place, "channels: 3\nusers: 5\n", &[]).ends().await;
    assert_eq!(
        (status.code(), said),
        (
            Some(2),
            vec![
                "batchsql: gateway.yaml:1:11: channels: expected a list, found the number 3".to_owned(),
                "gateway.yaml:2:8: users: expected a list, found the number 5".to_owned(),
            ]
        )
    );
    let (status, said) = Program::start(&place, "channels: []\n", &[]).ends().await;
    assert_eq!(status.code(), Some(2));
    for key in ["channels", "users"] {
        assert!(said.iter().any(|line| line.ends_with(&format!("{key}: has nobody; name at least one"))), "{said:?}");
    }
    let (status, said) = Program::start(&place, &config(&place, &model), &[("ALICE_KEY", "sk"), ("PPROF_ENABLED", "maybe")]).ends().await;
    assert_eq!((status.code(), said.len()), (Some(2), 1), "{said:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn upstreams_by_tls_are_verified_and_a_handshake_has_its_limit() {
    let place = Place::sqlite();
    let model = Model::start("a").await;
    let ((trusted, pem), (untrusted, _)) = (model.by_tls().await, model.by_tls().await);
    // Takes connections and never says anything.
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut config = "users: [{name: alice, key: sk}]\nhttp: {client: {tls_timeout: 200ms}}\nchannels:\n".to_owned();
    for (name, port) in [("trusted", trusted), ("untrusted", untrusted), ("silent", silent.local_addr().unwrap().port())] {
        config.push_str(&format!("  - {{name: {name}, url: 'https://localhost:{port}', models: [{name}]}}\n"));
    }
    let authorities = place.path("authorities.pem");
    std::fs::write(&authorities, pem).unwrap();
    let mut program = Program::start(&place, &config, &[("SSL_CERT_FILE", authorities.to_str().unwrap())]);
    let address: SocketAddr = program.says("listening on http://").await.rsplit("//").next().unwrap().parse().unwrap();
    let answer = chat_at(address, "sk", &id(1), "trusted", 5, true).await;
    assert_eq!((answer.text, answer.whole), (reply::text(&id(1), 5), true), "{}", answer.body);
    for (name, reason) in [("untrusted", "certificate"), ("silent", "no TLS session within 200ms")] {
        let answer = chat_at(address, "sk", &id(2), name, 5, true).await;
        assert!(answer.status == 502 && answer.body.contains(reason), "{}", answer.body);
    }
    assert_eq!(model.seen(), [id(1)]);
}
