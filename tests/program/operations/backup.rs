//! `scripts/backup` and `scripts/restore`, on a copy of the repository's files.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use super::parts::{self, request};
use crate::place::{Place, until};

/// Scripts and configuration as users have them, with baselines and a history, in `place`.
fn copy(place: &Place) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    fs::create_dir_all(place.path("scripts")).unwrap();
    for script in ["backup", "restore"] {
        fs::copy(root.join("scripts").join(script), place.path("scripts").join(script)).unwrap();
    }
    for folder in ["config/prometheus/rules", "config/alertmanager", "grafana/dashboards", "reports/baselines"] {
        fs::create_dir_all(place.path(folder)).unwrap();
    }
    place.write("config/prometheus/prometheus.yml", "{rule_files: ['rules/*.yml']}");
    place.write("config/prometheus/rules/a.yml", "groups: [{name: kept, rules: [{record: kept, expr: vector(1)}]}]");
    place.write("config/alertmanager/alertmanager.yml", "{route: {receiver: kept}, receivers: [{name: kept}]}");
    place.write("grafana/dashboards/board.json", "{\"title\": \"kept\"}");
    place.write("reports/baselines/one.json", "{\"name\": \"one\"}");
    let history = rusqlite::Connection::open(place.path("reports/history.db")).unwrap();
    history.execute_batch("PRAGMA journal_mode = WAL; CREATE TABLE runs (id INTEGER); INSERT INTO runs VALUES (1), (2)").unwrap();
}

fn rows(place: &Place) -> i64 {
    let history = rusqlite::Connection::open(place.path("reports/history.db")).unwrap();
    history.query_row("SELECT count(*) FROM runs", [], |row| row.get(0)).unwrap()
}

/// A script in the copy; services that are not named are not there.
fn script(place: &Place, name: &str, archive: &str, services: &[(&str, &str)]) -> (bool, String) {
    let mut command = Command::new("bash");
    command.arg(place.path(&format!("scripts/{name}"))).arg(place.path(archive)).current_dir(place.path("."));
    for service in ["GRAFANA_URL", "PROMETHEUS_URL", "ALERTMANAGER_URL"] {
        command.env(service, "http://127.0.0.1:1");
    }
    let Output { status, stdout, stderr } = command.envs(services.iter().copied()).env_remove("REPORT_DIR").output().unwrap();
    (status.success(), String::from_utf8([stdout, stderr].concat()).unwrap())
}

fn read(place: &Place, name: &str) -> String {
    fs::read_to_string(place.path(name)).unwrap()
}

#[test]
fn what_was_kept_comes_back_and_the_servers_read_it_again() {
    let place = Place::new();
    copy(&place);
    // A reader that holds the history open, so that its last rows are in the write-ahead log alone.
    let open = rusqlite::Connection::open(place.path("reports/history.db")).unwrap();
    open.execute_batch("INSERT INTO runs VALUES (3)").unwrap();
    let (done, said) = script(&place, "backup", "b.tar.gz", &[]);
    assert!(done && said.contains("Grafana does not answer"), "{said}");
    drop(open);
    let prometheus = parts::prometheus(&place, &place.name("config/prometheus/prometheus.yml"));
    let alertmanager = parts::alertmanager(&place, &place.name("config/alertmanager/alertmanager.yml"));
    let (Some(prometheus), Some(alertmanager)) = (prometheus, alertmanager) else { return };
    let before = read(&place, "config/prometheus/rules/a.yml");
    place.write("config/prometheus/rules/a.yml", &before.replace("kept", "changed"));
    place.write("config/prometheus/rules/new.yml", "groups: [{name: new, rules: [{record: new, expr: vector(1)}]}]");
    place.write("config/alertmanager/alertmanager.yml", "{route: {receiver: changed}, receivers: [{name: changed}]}");
    place.write("reports/baselines/two.json", "{}");
    fs::remove_file(place.path("reports/baselines/one.json")).unwrap();
    rusqlite::Connection::open(place.path("reports/history.db")).unwrap().execute_batch("DELETE FROM runs").unwrap();
    for server in [&prometheus, &alertmanager] {
        assert_eq!(request(server.address, "POST", "/-/reload", &[], "").status, 200);
    }
    until("the changed rule", || prometheus.get("/api/v1/rules").contains("\"changed\"").then_some(()));
    let (one, two) = (prometheus.url(), alertmanager.url());
    let (done, said) = script(&place, "restore", "b.tar.gz", &[("PROMETHEUS_URL", &one), ("ALERTMANAGER_URL", &two)]);
    assert!(done && said.contains("Prometheus has read its files again") && said.contains("Alertmanager has read"), "{said}");
    assert_eq!(read(&place, "config/prometheus/rules/a.yml"), before);
    assert!(!place.path("config/prometheus/rules/new.yml").exists(), "it would be read as a rule");
    assert_eq!((read(&place, "reports/baselines/one.json").as_str(), rows(&place)), ("{\"name\": \"one\"}", 3));
    assert!(place.path("reports/baselines/two.json").exists(), "a baseline that came since stays");
    let rules = prometheus.get("/api/v1/rules");
    assert!(rules.contains("\"kept\"") && !rules.contains("\"changed\"") && !rules.contains("\"new\""), "{rules}");
    assert!(alertmanager.get("/api/v2/status").contains("receiver: kept"));
    let kept = fs::read_dir(place.path(".")).unwrap().map(|entry| entry.unwrap().path());
    let kept = kept.into_iter().find(|path| path.to_str().unwrap().contains("restore-kept-")).unwrap();
    for name in ["config/prometheus/rules/a.yml", "config/prometheus/rules/new.yml", "reports/history.db"] {
        assert!(kept.join(name).exists(), "{name} was replaced and not kept");
    }
    // Files that Prometheus refuses are a failure that is said.
    place.write("config/prometheus/prometheus.yml", "{nonsense: true}");
    assert!(script(&place, "backup", "bad.tar.gz", &[]).0);
    place.write("config/prometheus/prometheus.yml", "{}");
    let (done, said) = script(&place, "restore", "bad.tar.gz", &[("PROMETHEUS_URL", &one)]);
    assert!(!done && said.contains("Prometheus refuses its files"), "{said}");
}

#[test]
fn a_damaged_or_foreign_archive_is_refused_and_nothing_touched() {
    let place = Place::new();
    copy(&place);
    assert!(script(&place, "backup", "b.tar.gz", &[]).0);
    let whole = fs::read(place.path("b.tar.gz")).unwrap();
    fs::write(place.path("cut.tar.gz"), &whole[..whole.len() / 2]).unwrap();
    fs::write(place.path("text.tar.gz"), "no archive").unwrap();
    let make = |name: &str, change: &str| {
        let shell = format!(
            "set -e; rm -rf x; mkdir x; tar -C x -xzf b.tar.gz; cd x; {change}; tar -P -czf ../{name}.tar.gz $(ls -d batchsql-backup ../evil 2>/dev/null)"
        );
        let made = Command::new("bash").args(["-c", &shell]).current_dir(place.path(".")).output().unwrap();
        assert!(made.status.success(), "{name}: {made:?}");
    };
    make("changed", "echo >>batchsql-backup/files/config/prometheus/prometheus.yml");
    make("more", "echo >batchsql-backup/files/config/more.yml");
    make("less", "rm batchsql-backup/files/config/prometheus/prometheus.yml");
    make("linked", "ln -s /etc batchsql-backup/files/config/link");
    make("newer", "sed -i 's/backup 1/backup 2/' batchsql-backup/MANIFEST");
    make(
        "elsewhere",
        "cd batchsql-backup; mkdir files/scripts; echo >files/scripts/backup; \
         find . -type f ! -name SHA256SUMS -print0 | xargs -0 sha256sum >SHA256SUMS; cd ..",
    );
    make("outside", "echo >../evil");
    place.write("config/prometheus/prometheus.yml", "{global: {}}");
    for (name, why) in [
        ("cut", "damaged"),
        ("text", "damaged"),
        ("none", "no such file"),
        ("changed", "checksum"),
        ("more", "SHA256SUMS does not name"),
        ("less", "checksum"),
        ("linked", "links"),
        ("newer", "MANIFEST"),
        ("elsewhere", "other files"),
        ("outside", "it holds"),
    ] {
        let (done, said) = script(&place, "restore", &format!("{name}.tar.gz"), &[]);
        assert!(!done && said.contains(why) && said.contains("Nothing was touched"), "{name}: {said}");
        assert_eq!(read(&place, "config/prometheus/prometheus.yml"), "{global: {}}", "{name}");
    }
    assert_eq!(fs::read_dir(place.path("config")).unwrap().count(), 2);
}

/// Answers like Grafana's API, and keeps what is written to it.
fn grafana(written: Arc<Mutex<Vec<(String, Value)>>>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    // It ends with the test's process.
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut reader = BufReader::new(stream.try_clone().unwrap());
            let (mut first, mut length, mut login) = (String::new(), 0, false);
            reader.read_line(&mut first).unwrap();
            loop {
                let mut line = String::new();
                reader.read_line(&mut line).unwrap();
                let line = line.trim().to_ascii_lowercase();
                length = line.strip_prefix("content-length: ").map_or(length, |length| length.parse().unwrap());
                login |= line == "authorization: basic ywrtaw46cgfzcw==";
                if line.is_empty() {
                    break;
                }
            }
            let mut body = vec![0; length];
            reader.read_exact(&mut body).unwrap();
            let path = first.split(' ').take(2).collect::<Vec<_>>().join(" ");
            let board = |uid: &str, provisioned: bool| json!({"dashboard": {"id": 7, "uid": uid, "title": "mine"}, "meta": {"provisioned": provisioned, "folderUid": ""}});
            let answer = match path.as_str() {
                "GET /api/health" => json!({"database": "ok"}),
                _ if !login => json!(null),
                "GET /api/datasources" => json!([{"uid": "own", "name": "own", "readOnly": false}, {"uid": "file", "readOnly": true}]),
                "GET /api/search?type=dash-db&limit=5000" => json!([{"uid": "mine"}, {"uid": "file"}]),
                "GET /api/dashboards/uid/mine" => board("mine", false),
                "GET /api/dashboards/uid/file" => board("file", true),
                "POST /api/dashboards/db" | "PUT /api/datasources/uid/own" => {
                    written.lock().unwrap().push((path.clone(), serde_json::from_slice(&body).unwrap()));
                    json!({})
                }
                other => panic!("{other}"),
            };
            let (status, text) = if answer.is_null() { ("401 Unauthorized", String::new()) } else { ("200 OK", answer.to_string()) };
            let length = text.len();
            write!(stream, "HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{text}").unwrap();
        }
    });
    format!("http://{address}")
}

#[test]
fn boards_that_are_no_files_go_through_grafanas_api_and_come_back_wrapped() {
    if Command::new("jq").arg("--version").output().is_err() {
        println!("left out: jq is not installed");
        return;
    }
    let place = Place::new();
    copy(&place);
    let written = Arc::new(Mutex::new(Vec::new()));
    let url = grafana(Arc::clone(&written));
    let services = [("GRAFANA_URL", url.as_str()), ("GRAFANA_ADMIN_PASSWORD", "pass")];
    let (done, said) = script(&place, "backup", "b.tar.gz", &services);
    assert!(done, "{said}");
    let (done, said) = script(&place, "restore", "b.tar.gz", &services);
    assert!(done && said.contains("Grafana has the board mine"), "{said}");
    let written = written.lock().unwrap();
    let board = json!({"dashboard": {"id": null, "uid": "mine", "title": "mine"}, "folderUid": "", "overwrite": true});
    assert_eq!(
        *written,
        [
            ("PUT /api/datasources/uid/own".to_owned(), json!({"uid": "own", "name": "own", "readOnly": false})),
            ("POST /api/dashboards/db".to_owned(), board)
        ]
    );
    let (done, said) = script(&place, "backup", "c.tar.gz", &[("GRAFANA_URL", url.as_str()), ("GRAFANA_ADMIN_PASSWORD", "wrong")]);
    assert!(!done && said.contains("GRAFANA_ADMIN_PASSWORD") && !place.path("c.tar.gz").exists(), "{said}");
}
