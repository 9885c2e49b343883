//! A database of one test's own, gateways on it, and a client.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use batchsql::proxy::gateway::{self, Config};
use batchsql::proxy::running::Running;
use batchsql::workload::reply;
use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _, Row as _};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_util::sync::CancellationToken;

use crate::common::server_url;
use crate::model::Model;

/// Longest wait for anything in these tests.
const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) struct Place {
    folder: TempDir,
    /// The log's database, as the configuration names it.
    database: Value,
}

/// A row of `request_logs`.
#[derive(Debug)]
pub(crate) struct LogRow {
    pub(crate) id: i64,
    pub(crate) request_id: String,
    pub(crate) user_name: String,
    pub(crate) channel: String,
    pub(crate) model: String,
    pub(crate) stream: bool,
    pub(crate) status: i64,
    pub(crate) prompt_tokens: i64,
    pub(crate) completion_tokens: i64,
    pub(crate) duration_ms: f64,
}

const ROWS: &str = "SELECT id, request_id, user_name, channel, model, stream, status, prompt_tokens, completion_tokens, duration_ms \
                    FROM request_logs ORDER BY id";

macro_rules! log_row {
    ($row:expr) => {
        LogRow {
            id: $row.get(0),
            request_id: $row.get(1),
            user_name: $row.get(2),
            channel: $row.get(3),
            model: $row.get(4),
            stream: $row.get(5),
            status: $row.get(6),
            prompt_tokens: $row.get(7),
            completion_tokens: $row.get(8),
            duration_ms: $row.get(9),
        }
    };
}

impl Place {
    pub(crate) fn sqlite() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let database = json!({"sqlite": {"path": folder.path().join("gateway.db")}});
        Self { folder, database }
    }

    /// SQLite, and a database named after the test on each server there is.
    pub(crate) async fn on_each_database(test: &str) -> Vec<Self> {
        let mut places = vec![Self::sqlite()];
        let name = format!("gateway_{test}");
        if let Some(url) = server_url("BATCHSQL_TEST_POSTGRES") {
            let mut server = sqlx::PgConnection::connect(&url).await.unwrap();
            for sql in [format!("DROP DATABASE IF EXISTS {name}"), format!("CREATE DATABASE {name}")] {
                sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut server).await.unwrap();
            }
            places.push(Self { folder: tempfile::tempdir().unwrap(), database: json!({"postgres": {"url": renamed(&url, &name)}}) });
        }
        for variable in ["BATCHSQL_TEST_MARIADB", "BATCHSQL_TEST_MYSQL"] {
            if let Some(url) = server_url(variable) {
                let mut server = sqlx::MySqlConnection::connect(&url).await.unwrap();
                for sql in [format!("DROP DATABASE IF EXISTS {name}"), format!("CREATE DATABASE {name}")] {
                    sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut server).await.unwrap();
                }
                places.push(Self { folder: tempfile::tempdir().unwrap(), database: json!({"mysql": {"url": renamed(&url, &name)}}) });
            }
        }
        places
    }

    /// A gateway before `models`, of which the first has weight 1, the second 2 and so on.
    pub(crate) async fn start(&self, settings: Value, models: &[&Model]) -> Running {
        let models: Vec<(&Model, &[&str])> = models.iter().map(|model| (*model, &[][..])).collect();
        self.start_with_models(settings, &models).await
    }

    /// A gateway before upstreams that serve the named models only.
    pub(crate) async fn start_with_models(&self, settings: Value, models: &[(&Model, &[&str])]) -> Running {
        self.try_start(settings, models).await.unwrap()
    }

    pub(crate) async fn try_start(&self, mut settings: Value, models: &[(&Model, &[&str])]) -> anyhow::Result<Running> {
        let channels = models.iter().enumerate().map(|(index, (model, names))| {
            json!({"name": model.name, "url": format!("http://{}", model.address), "api_key": "up-key", "weight": index + 1, "models": names})
        });
        settings["channels"] = channels.collect();
        settings["log"]["database"] = self.database.clone();
        settings["access_log"] = json!(false);
        if settings["users"].is_null() {
            settings["users"] = json!([{"name": "alice", "key": "sk-alice"}]);
        }
        let config: Config = serde_json::from_value(settings).unwrap();
        gateway::start(config, "127.0.0.1:0".parse().unwrap(), CancellationToken::new()).await
    }

    /// Somebody else does this to the SQLite file.
    pub(crate) fn execute(&self, sql: &str) {
        self.file().execute_batch(sql).unwrap();
    }

    /// A file in the test's folder.
    pub(crate) fn path(&self, name: &str) -> std::path::PathBuf {
        self.folder.path().join(name)
    }

    fn file(&self) -> rusqlite::Connection {
        rusqlite::Connection::open(self.folder.path().join("gateway.db")).unwrap()
    }

    pub(crate) async fn rows(&self) -> Vec<LogRow> {
        if let Some(url) = self.database["postgres"]["url"].as_str() {
            let mut connection = sqlx::PgConnection::connect(url).await.unwrap();
            return sqlx::query(ROWS).fetch_all(&mut connection).await.unwrap().iter().map(|row| log_row!(row)).collect();
        }
        if let Some(url) = self.database["mysql"]["url"].as_str() {
            let mut connection = url.parse::<sqlx::mysql::MySqlConnectOptions>().unwrap().connect().await.unwrap();
            return sqlx::query(ROWS).fetch_all(&mut connection).await.unwrap().iter().map(|row| log_row!(row)).collect();
        }
        let connection = self.file();
        let mut statement = connection.prepare(ROWS).unwrap();
        struct Row<'a>(&'a rusqlite::Row<'a>);
        impl Row<'_> {
            fn get<T: rusqlite::types::FromSql>(&self, index: usize) -> T {
                self.0.get(index).unwrap()
            }
        }
        statement.query_map([], |row| Ok(Row(row)).map(|row| log_row!(row))).unwrap().map(Result::unwrap).collect()
    }

    /// What a user has used, by the database.
    pub(crate) async fn used(&self, name: &str) -> i64 {
        let sql = format!("SELECT used FROM users WHERE name = '{name}'");
        if let Some(url) = self.database["postgres"]["url"].as_str() {
            let mut connection = sqlx::PgConnection::connect(url).await.unwrap();
            return sqlx::query_scalar(AssertSqlSafe(sql)).fetch_one(&mut connection).await.unwrap();
        }
        if let Some(url) = self.database["mysql"]["url"].as_str() {
            let mut connection = url.parse::<sqlx::mysql::MySqlConnectOptions>().unwrap().connect().await.unwrap();
            return sqlx::query_scalar(AssertSqlSafe(sql)).fetch_one(&mut connection).await.unwrap();
        }
        self.file().query_row(&sql, [], |row| row.get(0)).unwrap()
    }

    /// Bytes of SQLite's write-ahead log.
    pub(crate) fn wal_bytes(&self) -> u64 {
        std::fs::metadata(self.folder.path().join("gateway.db-wal")).map_or(0, |file| file.len())
    }
}

fn renamed(url: &str, database: &str) -> String {
    let mut url = url::Url::parse(url).unwrap();
    url.set_path(database);
    url.to_string()
}

/// Waits until `condition` holds.
pub(crate) async fn until(condition: impl AsyncFn() -> bool) {
    let began = Instant::now();
    while !condition().await {
        assert!(began.elapsed() < PATIENCE, "the condition never held");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// What came back.
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: String,
    /// The model's words.
    pub(crate) text: String,
    /// Whether the reply ended as HTTP and, for a stream, the model have it.
    pub(crate) whole: bool,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers[name].to_str().unwrap()
    }
}

/// A reply that is read piece by piece; dropping it ends the connection.
pub(crate) struct Open {
    reply: http::Response<Incoming>,
    connection: tokio::task::JoinHandle<()>,
}

impl Drop for Open {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

impl Open {
    pub(crate) async fn chunk(&mut self) -> Option<String> {
        let frame = self.reply.body_mut().frame().await?;
        Some(String::from_utf8(frame.unwrap().into_data().unwrap().to_vec()).unwrap())
    }
}

async fn send(address: SocketAddr, request: Request<Full<Bytes>>) -> Open {
    let stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    let connection = tokio::spawn(async move { drop(connection.await) });
    let reply = tokio::time::timeout(PATIENCE, sender.send_request(request)).await.expect("a header in time").unwrap();
    Open { reply, connection }
}

/// A streamed chat, its header read.
pub(crate) async fn open(gateway: &Running, key: &str, id: &str, model: &str, tokens: u32) -> Open {
    send(gateway.address, chat_request(key, id, model, tokens, true)).await
}

fn chat_request(key: &str, id: &str, model: &str, tokens: u32, stream: bool) -> Request<Full<Bytes>> {
    let body = json!({
        "model": model, "stream": stream, "max_tokens": tokens,
        "messages": [{"role": "user", "content": format!("please answer {id}")}],
    });
    let mut request = Request::post("/v1/chat/completions").header("host", "gateway").header("content-type", "application/json");
    if !key.is_empty() {
        request = request.header("authorization", format!("Bearer {key}"));
    }
    request.header("x-request-id", id).body(Full::from(body.to_string())).unwrap()
}

/// A chat, to its end.
pub(crate) async fn chat(gateway: &Running, key: &str, id: &str, model: &str, tokens: u32, stream: bool) -> Answer {
    chat_at(gateway.address, key, id, model, tokens, stream).await
}

/// [`chat`] with a gateway in another process.
pub(crate) async fn chat_at(gateway: SocketAddr, key: &str, id: &str, model: &str, tokens: u32, stream: bool) -> Answer {
    let mut open = send(gateway, chat_request(key, id, model, tokens, stream)).await;
    let (status, headers) = (open.reply.status(), open.reply.headers().clone());
    let (mut bytes, mut whole) = (Vec::new(), true);
    while let Some(frame) = tokio::time::timeout(PATIENCE, open.reply.body_mut().frame()).await.expect("a frame in time") {
        match frame {
            Ok(frame) => bytes.extend_from_slice(&frame.into_data().unwrap()),
            Err(_) => whole = false,
        }
    }
    let body = String::from_utf8(bytes).unwrap();
    let events = body.split("\n\n").filter_map(|event| event.strip_prefix("data: ")).filter(|data| *data != "[DONE]");
    let text = if headers.get("content-type").is_some_and(|kind| kind == "text/event-stream") {
        whole &= body.ends_with("data: [DONE]\n\n");
        let contents = events.filter_map(|data| serde_json::from_str::<Value>(data).ok());
        contents.filter_map(|event| event["choices"][0]["delta"]["content"].as_str().map(str::to_owned)).collect()
    } else {
        let value: Value = serde_json::from_str(&body).unwrap_or_default();
        value["choices"][0]["message"]["content"].as_str().unwrap_or_default().to_owned()
    };
    assert!(reply::parse_id(id).is_some());
    Answer { status, headers, body, text, whole }
}

/// A JSON page of the gateway.
pub(crate) async fn get(gateway: &Running, path: &str) -> Value {
    serde_json::from_str(&text(gateway, path).await).unwrap()
}

/// A page of the gateway.
pub(crate) async fn text(gateway: &Running, path: &str) -> String {
    let request = Request::get(path).header("host", "gateway").body(Full::default()).unwrap();
    let mut open = send(gateway.address, request).await;
    let bytes = open.reply.body_mut().collect().await.unwrap().to_bytes();
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// What comes back to these bytes, until the gateway closes the connection.
pub(crate) async fn raw(gateway: &Running, bytes: &str) -> String {
    let mut stream = tokio::net::TcpStream::connect(gateway.address).await.unwrap();
    stream.write_all(bytes.as_bytes()).await.unwrap();
    let mut reply = String::new();
    tokio::time::timeout(PATIENCE, stream.read_to_string(&mut reply)).await.expect("an end in time").unwrap();
    reply
}
