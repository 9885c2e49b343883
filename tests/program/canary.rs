//! Secrets go where they must and nowhere else: every one that the program can be given is a canary, every command is run, and then
//! everything that was written, printed, served or sent is searched for them, as they are, percent-encoded, in base64 and compressed.

use std::collections::BTreeSet;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use serde_json::{Value, json};

use crate::database::{Database, Kind};
use crate::place::{Place, get, meet, rendezvous, until};
use crate::recorder::Recorder;

/// What every secret of these tests begins with, and nothing else holds.
const CANARY: &str = "canary-";

/// The parts of the base64 of something that holds the canary which do not depend on what stands around it, for each of the three
/// ways it can lie.
fn in_base64() -> Vec<String> {
    let whole = |shift: usize| {
        let encoded = STANDARD_NO_PAD.encode(["x".repeat(shift).as_str(), CANARY].concat());
        // The first and the last characters mix with the neighbours.
        let (first, last) = ([0, 2, 3][shift], (shift + CANARY.len()) * 8 / 6);
        encoded[first..last].to_owned()
    };
    (0..3).map(whole).collect()
}

/// How the canary is found in `bytes`, if it is: by name of the disguise.
fn disguise(bytes: &[u8]) -> Option<&'static str> {
    let text = String::from_utf8_lossy(bytes).to_lowercase();
    if text.contains(CANARY) {
        return Some("as it is");
    }
    if url::form_urlencoded::parse(format!("x={text}").as_bytes()).any(|(_, value)| value.to_lowercase().contains(CANARY)) {
        return Some("percent-encoded");
    }
    let text = String::from_utf8_lossy(bytes).replace(['-', '_'], "+");
    if in_base64().iter().any(|part| text.contains(part.as_str())) {
        return Some("in base64");
    }
    None
}

/// As [`disguise`], also inside what is compressed: streams of gzip and zlib, raw or in base64, and Snappy.
fn found(bytes: &[u8]) -> Option<&'static str> {
    let unpacked = |bytes: &[u8]| {
        let mut starts =
            (0..bytes.len().saturating_sub(2)).filter(|at| matches!(bytes[*at..], [0x1f, 0x8b, 8, ..] | [0x78, 0x01 | 0x9c | 0xda, ..]));
        starts.any(|at| {
            let mut plain = Vec::new();
            // What follows the stream, or is none, ends it.
            let _ = if bytes[at] == 0x78 {
                flate2::read::ZlibDecoder::new(&bytes[at..]).take(16 << 20).read_to_end(&mut plain)
            } else {
                flate2::read::GzDecoder::new(&bytes[at..]).take(16 << 20).read_to_end(&mut plain)
            };
            disguise(&plain).is_some()
        })
    };
    let text = String::from_utf8_lossy(bytes);
    let runs = text.split(|c: char| !(c.is_ascii_alphanumeric() || "+/".contains(c))).filter(|run| run.len() >= 24);
    let decoded = |run: &str| STANDARD_NO_PAD.decode(&run[..run.len() - usize::from(run.len() % 4 == 1)]).unwrap_or_default();
    disguise(bytes)
        .or_else(|| unpacked(bytes).then_some("compressed"))
        .or_else(|| runs.map(decoded).any(|bytes| unpacked(&bytes)).then_some("compressed, in base64"))
        .or_else(|| snap::raw::Decoder::new().decompress_vec(bytes).ok().and_then(|plain| disguise(&plain)).and(Some("in Snappy")))
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

/// The files below `place` that hold a canary, and how.
fn leaks(place: &Place) -> BTreeSet<String> {
    let told = |path: PathBuf| found(&std::fs::read(&path).unwrap()).map(|how| format!("{}: {how}", path.display()));
    files(&place.path("")).into_iter().filter_map(told).collect()
}

#[test]
fn the_search_finds_a_canary_in_every_disguise() {
    use std::io::Write as _;
    let place = Place::new();
    let secret = "canary-p@ss/w%rd";
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    packed.write_all(format!("before {secret} after").as_bytes()).unwrap();
    let packed = packed.finish().unwrap();
    let mut deflated = flate2::write::ZlibEncoder::new(vec![1, 2, 3, 4], flate2::Compression::best());
    deflated.write_all(secret.as_bytes()).unwrap();
    let deflated = deflated.finish().unwrap();
    let basic =
        |user: &str| format!("authorization: Basic {}", base64::engine::general_purpose::STANDARD.encode(format!("{user}:{secret}")));
    let hidden: Vec<(&str, Vec<u8>)> = vec![
        ("as it is", [b"\0\xff\xfe".as_slice(), secret.as_bytes()].concat()),
        ("as it is", b"postgres://u:CANARY-p%40ss@h/x".to_vec()),
        ("percent-encoded", b"?q=%63%61%6E%61ry-x".to_vec()),
        ("in base64", basic("u").into_bytes()),
        ("in base64", basic("us").into_bytes()),
        ("in base64", basic("usr").into_bytes()),
        ("compressed", [b"head".as_slice(), &packed, b"tail"].concat()),
        ("compressed, in base64", format!("\"{}\"", base64::engine::general_purpose::STANDARD.encode(&deflated)).into_bytes()),
        (
            "in Snappy",
            snap::raw::Encoder::new().compress_vec(&[b"x".repeat(9).as_slice(), b"canary-", &b"canary-".repeat(9)].concat()).unwrap(),
        ),
    ];
    let names: Vec<&str> = hidden.iter().map(|(how, _)| *how).collect();
    let told: Vec<Option<&str>> = hidden.iter().map(|(_, bytes)| found(bytes)).collect();
    // Snappy copies its first literal as it is.
    assert_eq!(told[..8].to_vec(), names[..8].iter().map(|how| Some(*how)).collect::<Vec<_>>());
    assert!(told[8].is_some());
    assert_eq!(found(b"canaries and Y2Fu; nothing else"), None);
    assert_eq!(leaks(&place), BTreeSet::new());
    std::fs::create_dir(place.path("deep")).unwrap();
    std::fs::write(place.path("deep/ledger"), &packed).unwrap();
    assert_eq!(leaks(&place).len(), 1);
}

/// What a receiver was sent must hold a secret in its header alone, and must hold it there.
fn assert_sent(receiver: &Recorder, what: &str) {
    let requests = until(what, || Some(receiver.requests()).filter(|requests| !requests.is_empty()));
    for request in requests {
        assert_eq!((found(request.target.as_bytes()), found(&request.body)), (None, None), "{what}: {}", request.target);
        let (secret, open): (Vec<&str>, Vec<&str>) =
            request.head.lines().partition(|line| line.starts_with("authorization: ") || line.starts_with("x-consul-token: "));
        assert_eq!(secret.len(), 1, "{what}: {}", request.head);
        assert_eq!(found(open.join("\n").as_bytes()), None, "{what}");
    }
}

const PASSWORD: &str = "canary-p@ss/w%rd";

/// A database of a user whose password is a canary.
fn hushed(db: &Database) -> Database {
    let own = db.own_database("hushed", "hushed");
    let mut admin = db.user();
    if db.kind == Kind::Postgres {
        admin.execute("DO $$ BEGIN CREATE ROLE hush LOGIN; EXCEPTION WHEN duplicate_object THEN NULL; END $$");
        admin.execute(&format!("ALTER ROLE hush PASSWORD '{PASSWORD}'"));
        admin.execute("ALTER DATABASE hushed OWNER TO hush");
    } else {
        admin.execute("DROP USER IF EXISTS hush");
        admin.execute(&format!("CREATE USER hush IDENTIFIED BY '{PASSWORD}'"));
        admin.execute("GRANT ALL ON hushed.* TO hush");
    }
    let mut url = url::Url::parse(&own.url).unwrap();
    url.set_username("hush").unwrap();
    url.set_password(Some(PASSWORD)).unwrap();
    Database { url: url.to_string(), ..own }
}

/// Every command of rows, on a server; `folder` is what is searched, `inputs` where the secrets are given.
fn every_command_of_rows(place: &Place, inputs: &Place, db: &Database) {
    let (rw, otlp, consul) = (Recorder::answering("200 OK"), Recorder::answering("200 OK"), Recorder::answering("200 OK"));
    let mut scenario = db.rows(400);
    scenario["target"] = json!({db.target().as_object().unwrap().keys().next().unwrap(): {"url": "${HUSH_URL}"}});
    scenario["description"] = json!("an explanation with ${HUSH_WORD}");
    scenario["guard"] = json!({"up": {"prometheus": "http://u:canary-of-prometheus@127.0.0.1:9", "query": "up", "for": "1m"}});
    let by_environment = inputs.write("environment.yaml", &scenario.to_string());
    scenario["target"] = db.target();
    let in_the_file = inputs.write("file.yaml", &scenario.to_string());
    let command = |arguments: &[&str]| {
        let mut command = place.command(&[arguments, &["--log-file", "all.log"]].concat());
        command.env("HUSH_URL", &db.url).env("HUSH_WORD", "canary-of-a-word").env("CONSUL_HTTP_TOKEN", "canary-of-consul");
        command.env("BATCHSQL_GRAFANA_URL", "http://admin:canary-of-grafana@127.0.0.1:9").env("GITHUB_ACTIONS", "true");
        command.env("GITHUB_STEP_SUMMARY", place.path("summary.md"));
        command
    };
    let end = |code: i32, arguments: &[&str]| {
        let ended = place.spawn(command(arguments)).end();
        assert_eq!(ended.code(), Some(code), "{arguments:?}: {}{}", ended.stdout, ended.stderr);
        ended
    };
    // A run with everything that watches it.
    let login = |receiver: &Recorder, secret: &str| format!("http://u:{secret}@{}", receiver.address);
    let hook = rendezvous(place);
    let watched = [
        "run",
        "--json",
        "--log-format",
        "json",
        "--metrics-listen",
        "127.0.0.1:0",
        "--remote-write",
        &login(&rw, "canary-of-rw"),
        "--otlp",
        &login(&otlp, "canary-of-otlp"),
        "--consul",
        &format!("http://{}", consul.address),
        "--otlp-sample",
        "100%",
        "--before-verify",
        &hook,
        &by_environment,
    ];
    let mut running = place.spawn(command(&watched));
    let said = running.until("the metrics' address", |it| {
        it.said().split_once("metrics are on http://").map(|(_, after)| after.to_owned()).filter(|after| after.contains("/metrics"))
    });
    let address = said.split_once("/metrics").unwrap().0.parse().unwrap();
    meet(place, &mut running);
    place.write("metrics.txt", &get(address, "/metrics"));
    place.write("go", "");
    let first = running.end().json(0)["run_id"].as_str().unwrap().to_owned();
    for (receiver, what) in [(&rw, "remote write"), (&otlp, "OTLP"), (&consul, "Consul")] {
        assert_sent(receiver, what);
    }
    // The same by other ways, and what is done with runs.
    end(0, &["run", "--no-metrics", &in_the_file]);
    let url = db.url.as_str();
    let second =
        end(0, &["run", "--no-metrics", "--json", "--database-url", url, &by_environment]).json(0)["run_id"].as_str().unwrap().to_owned();
    end(0, &["check", &by_environment]);
    end(0, &["check", &in_the_file, "--database-url", url]);
    end(0, &["verify", &second, "--database-url", url]);
    end(2, &["verify", &second]);
    end(2, &["verify", &first, "--database-url", url]);
    end(0, &["baseline", "save", "kept"]);
    end(0, &["baseline", "list"]);
    end(0, &["baseline", "show", "kept"]);
    place.spawn(command(&["baseline", "check", "kept", &second])).end();
    for arguments in [
        &["compare", &format!("reports/{first}"), &format!("reports/{second}")][..],
        &["compare", &in_the_file, "--aa", "--pairs", "2"],
        &["sweep", &in_the_file, "--vary", "workload.batch_insert.pipeline.flush_size=50,100"],
        &["doctor", &in_the_file, "--database-url", url],
        &["doctor", "--json", "--database-url", url],
    ] {
        let ended = place.spawn(command(arguments)).end();
        assert!(matches!(ended.code(), Some(0 | 1 | 3)), "{arguments:?}: {}{}", ended.stdout, ended.stderr);
    }
    if db.kind == Kind::Postgres {
        // The first step of a search, and a report of it.
        let steps = || files(&place.path("reports")).iter().filter(|path| path.ends_with("ledger")).count();
        let before = steps();
        let mut search = place.spawn(command(&["search", &in_the_file, "--while", "error_rate < 1%", "--step-duration", "5s"]));
        search.until("a step", |_| (steps() > before).then_some(()));
        search.signal(nix::sys::signal::Signal::SIGINT);
        assert_eq!(search.end().code(), Some(130));
    }
    end(0, &["history"]);
    end(0, &["history", "hushed", "--json"]);
    end(0, &["report", "--since", "1day"]);
    end(0, &["report", "--incident", &first]);
    for help in [["doctor", "--help"], ["run", "--help"]] {
        end(0, &help);
    }
    // Whatever is wrong with a URL, it is told without its password.
    let wrong =
        url::Url::parse(url).map(|mut url| url.set_password(Some("canary-that-is-wrong")).map(|()| url.to_string()).unwrap()).unwrap();
    let unreachable = url::Url::parse(url).map(|mut url| url.set_port(Some(9)).map(|()| url.to_string()).unwrap()).unwrap();
    let [nobody, beyond] = [url.replace("127.0.0.1", "nobody.invalid"), url.replace("127.0.0.1", "192.0.2.1")];
    for url in
        [&wrong, &unreachable, &nobody, &beyond, "postgres://u:canary-@@h/x/y", "oracle://u:canary-of-oracle@h/x", "mysql://u:canary-/@"]
    {
        end(2, &["run", "--no-metrics", "--database-url", url, &by_environment]);
        end(2, &["run", "--no-metrics", "--set", &format!("target.postgres.url={url}"), &in_the_file]);
        end(2, &["verify", &second, "--database-url", url]);
    }
    for flag in ["--remote-write", "--otlp", "--consul"] {
        end(2, &["run", flag, "ftp://u:canary-of-ftp@h", &in_the_file]);
        if db.kind == Kind::Postgres {
            place
                .spawn(command(&[
                    "run",
                    "--metrics-listen",
                    "127.0.0.1:0",
                    flag,
                    "http://u:canary-of-a-receiver@127.0.0.1:9",
                    &in_the_file,
                ]))
                .end();
        }
    }
    end(2, &["run", "--database-url", url, "--target-url", url, &in_the_file]);
}

/// Nothing of what [`every_command_of_rows`] leaves holds a secret, and everything that it should leave was searched.
fn assert_hushed(db: Option<Database>) {
    let Some(db) = db else { return };
    let (place, inputs) = (Place::new(), Place::new());
    every_command_of_rows(&place, &inputs, &hushed(&db));
    assert_eq!(leaks(&place), BTreeSet::new());
    let seen: Vec<_> = files(&place.path("")).iter().map(|path| path.file_name().unwrap().to_str().unwrap().to_owned()).collect();
    for name in ["ledger", "history.db", "report.html", "junit.xml", "all.log", "summary.md", "comparison.html", "sweep.json", "kept.json"]
    {
        assert!(seen.iter().any(|file| file == name), "{name} was not searched: {seen:?}");
    }
}

#[test]
fn no_secret_of_rows_on_postgres_is_in_anything_that_is_written_printed_or_sent() {
    assert_hushed(Database::postgres("hushed"));
}

#[test]
fn no_secret_of_rows_on_mariadb_is_in_anything_that_is_written_printed_or_sent() {
    assert_hushed(Database::mariadb("hushed"));
}

/// A program that listens, and where.
fn listening(place: &Place, arguments: &[&str], variables: &[(&str, &str)]) -> (crate::place::Running, std::net::SocketAddr) {
    let mut command = place.command(arguments);
    command.envs(variables.iter().copied());
    let mut running = place.spawn(command);
    let address = running.until("an address", |it| {
        let said = it.said() + &it.printed();
        let (_, after) = said.split_once("http://")?;
        after.split_once(|c: char| !(c.is_ascii_digit() || ".:".contains(c)))?.0.parse().ok()
    });
    (running, address)
}

/// What was asked, the answer with its header, kept among what is searched.
fn keep(place: &Place, number: usize, address: std::net::SocketAddr, method: &str, path: &str, token: &str, body: &str) -> String {
    use std::io::Write as _;
    let mut stream = std::net::TcpStream::connect(address).unwrap();
    let length = body.len();
    write!(stream, "{method} {path} HTTP/1.0\r\nHost: {address}\r\nAuthorization: Bearer {token}\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}").unwrap();
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    let answer = String::from_utf8_lossy(&answer).into_owned();
    place.write(&format!("answer-{number}.txt"), &answer);
    answer
}

#[test]
fn no_key_of_a_gateway_an_upstream_or_serve_is_in_anything_that_is_written_printed_or_served() {
    let (place, inputs) = (Place::new(), Place::new());
    let (upstream, behind) = listening(&place, &["upstream", "--listen", "127.0.0.1:0"], &[]);
    let config = inputs.write(
        "gateway.yaml",
        &json!({
            "channels": [{"name": "up", "url": format!("http://{behind}"), "api_key": "${CHANNEL_KEY}"}, {"name": "gone", "url": "http://127.0.0.1:9", "api_key": "canary-of-gone", "models": ["gone"]}],
            "users": [{"name": "ann", "key": "canary-of-ann"}, {"name": "bob", "key": "${BOB_KEY}", "quota": 1}],
            "metrics": {"admin_token": "canary-of-admin", "vm_url": "http://u:canary-of-vm@127.0.0.1:9"},
        })
        .to_string(),
    );
    let variables = [("CHANNEL_KEY", "canary-of-a-channel"), ("BOB_KEY", "canary-of-bob")];
    let (gateway, address) =
        listening(&place, &["proxy", "--config", &config, "--listen", "127.0.0.1:0", "--log-file", "gateway.log"], &variables);
    let chat = |model: &str| json!({"model": model, "messages": [{"role": "user", "content": "hello"}]}).to_string();
    let mut statuses = Vec::new();
    for (number, (method, path, token, body)) in [
        ("POST", "/v1/chat/completions", "canary-of-ann", chat("m")),
        ("POST", "/v1/chat/completions", "canary-of-ann", chat("gone")),
        ("POST", "/v1/chat/completions", "canary-of-bob", chat("m")),
        ("POST", "/v1/chat/completions", "canary-of-bob", chat("m")),
        ("POST", "/v1/chat/completions", "canary-of-nobody", chat("m")),
        ("GET", "/metrics", "canary-of-admin", String::new()),
        ("GET", "/stats", "canary-of-admin", String::new()),
        ("GET", "/health/vm", "", String::new()),
        ("GET", "/dashboard", "", String::new()),
        ("POST", "/api/metrics/reset", "canary-of-nobody", String::new()),
        ("POST", "/api/metrics/reset", "canary-of-admin", String::new()),
    ]
    .into_iter()
    .enumerate()
    {
        let answer = keep(&place, number, address, method, path, token, &body);
        statuses.push(answer.split(' ').nth(1).unwrap_or_default().to_owned());
    }
    assert_eq!(
        (statuses[0].as_str(), statuses[4].as_str(), statuses[9].as_str(), statuses[10].as_str()),
        ("200", "401", "401", "200"),
        "{statuses:?}"
    );
    assert!(gateway.said().contains("[SYS] POST /api/metrics/reset: refused\n[SYS] POST /api/metrics/reset: done\n"), "{}", gateway.said());
    // A run of requests through it, with every kind of key, and what is done with it.
    let scenario = json!({
        "name": "hushed",
        "target": {"http": {"url": format!("http://{address}")}},
        "workload": {"proxy_request": {"requests": 50, "users": [{"name": "ann", "key": "${ANN_KEY}"}], "mix": [
            {"chat": {"headers": {"x-copy": "{{key}}", "x-api-key": "canary-in-a-header"}}},
            {"http": {"path": "/health", "query": {"api_key": "canary-in-a-query"}, "headers": {"authorization": "Basic canary-basic"}}},
        ]}},
        "load": {"executor": "shared-iterations", "vus": 2},
        "gates": ["error_rate < 100%"],
    });
    let file = inputs.write("requests.yaml", &scenario.to_string());
    for arguments in [
        &["check", &file][..],
        &["run", "--metrics-listen", "127.0.0.1:0", "--log-file", "all.log", &file],
        &["run", "--no-metrics", "--json", "--set", "workload.proxy_request.users.0.key=canary-of-nobody", &file],
        &["run", "--no-metrics", "--target-url", "http://u:canary-in-a-url@127.0.0.1:9", &file],
        &["run", "--no-metrics", "--target-url", "http://127.0.0.1:9/?key=canary-in-a-query", &file],
    ] {
        let mut command = place.command(arguments);
        command.env("ANN_KEY", "canary-of-ann");
        let ended = place.spawn(command).end();
        assert_eq!(ended.code() == Some(2), arguments.contains(&"--target-url"), "{arguments:?}: {}{}", ended.stdout, ended.stderr);
    }
    // And a gateway of the scenario's own, as a process beside the run.
    let mut own = scenario.clone();
    own["target"] = json!({"http": {"start": {"own_process": true, "upstream": {}, "gateway": {
        "users": [{"name": "ann", "key": "${ANN_KEY}"}, {"name": "eve", "key": "canary-of-eve"}], "metrics": {"admin_token": "canary-of-admin"},
    }}}});
    own["reconcile"] = json!({});
    own["workload"]["proxy_request"]["mix"] = json!([{"chat": {}}]);
    let file = inputs.write("own.yaml", &own.to_string());
    let mut command = place.command(&["run", "--no-metrics", "--log-format", "json", &file]);
    command.env("ANN_KEY", "canary-of-ann");
    assert_eq!(place.spawn(command).end().code(), Some(0));
    // Serve shows all of it.
    let token = [("BATCHSQL_SERVE_TOKEN", "canary-of-serve")];
    let (serve, shown) = listening(&place, &["serve", "--listen", "127.0.0.1:0"], &token);
    let run = place.run_folders()[0].file_name().unwrap().to_str().unwrap().to_owned();
    let alert: Value = json!({"version": "4", "groupKey": "g", "status": "firing", "receiver": "serve", "alerts": []});
    for (number, (method, path, token)) in [
        ("GET", "/".to_owned(), ""),
        ("GET", format!("/api/runs/{run}"), ""),
        ("GET", "/metrics".to_owned(), "canary-of-serve"),
        ("POST", "/api/alerts".to_owned(), "canary-of-nobody"),
        ("POST", "/api/alerts".to_owned(), "canary-of-serve"),
    ]
    .into_iter()
    .enumerate()
    {
        keep(&place, 100 + number, shown, method, &path, token, &alert.to_string());
    }
    assert!(files(&place.path("reports")).iter().any(|file| file.ends_with("audit.jsonl")), "the audit is searched too");
    for program in [gateway, upstream, serve] {
        program.signal(nix::sys::signal::Signal::SIGTERM);
        assert_eq!(program.end().code(), Some(0));
    }
    assert_eq!(leaks(&place), BTreeSet::new());
}
