//! What the program does not do to its user: reach where it was not sent, speak in the clear beyond this machine, or let what it read
//! speak to the terminal.

use std::io::copy;
use std::net::{IpAddr, Shutdown, TcpListener, TcpStream, UdpSocket};
use std::process::Command;
use std::thread::spawn;

use serde_json::json;

use crate::database::Database;
use crate::place::{Place, assert_anomalies, run_and_meddle};

/// An address of this machine that is not loopback; nothing is sent to find it.
fn own_address() -> Option<IpAddr> {
    let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
    let own = socket.connect("192.0.2.200:9").and_then(|()| socket.local_addr()).map(|address| address.ip());
    let own = own.ok().filter(|address| !address.is_loopback() && !address.is_unspecified());
    if own.is_none() {
        println!("left out: this machine has no address but loopback");
    }
    own
}

/// Leads from `address` to the port on loopback; it ends with the test's process.
fn lead_to(address: IpAddr, port: u16) -> u16 {
    let listener = TcpListener::bind((address, 0)).unwrap();
    let leads_from = listener.local_addr().unwrap().port();
    spawn(move || {
        for client in listener.incoming() {
            let (client, server) = (client.unwrap(), TcpStream::connect(("127.0.0.1", port)).unwrap());
            for (from, to) in [(&client, &server), (&server, &client)] {
                let (mut from, mut to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
                spawn(move || {
                    let _ = copy(&mut from, &mut to);
                    let _ = to.shutdown(Shutdown::Write);
                });
            }
        }
    });
    leads_from
}

#[test]
fn a_database_beyond_loopback_must_be_allowed_and_be_spoken_to_in_secret() {
    let Some(own) = own_address() else { return };
    let (allowed, place) = (own.to_string(), Place::new());
    for db in [Database::postgres("safety_tls"), Database::mariadb("safety_tls")].into_iter().flatten() {
        let mut url = url::Url::parse(&db.url).unwrap();
        let port = lead_to(own, url.port().unwrap());
        url.set_ip_host(own).unwrap();
        url.set_port(Some(port)).unwrap();
        let run = |more: &[&str]| place.run(&db.rows(100), &[&["--database-url", url.as_str()], more].concat());
        run(&[]).refused(&[&format!("host `{own}` is beyond loopback"), &format!("--allow-host {own}")]);
        run(&["--insecure-tls"]).refused(&[&format!("host `{own}` is beyond loopback")]);
        // The servers of the tests have no certificate.
        run(&["--allow-host", &allowed]).refused(&[&format!("at {own}:{port}"), "--insecure-tls"]);
        let report = run(&["--allow-host", &allowed, "--insecure-tls"]).json(0);
        assert_eq!(report["outcomes"]["acknowledged"], 100);
    }
}

#[test]
fn a_name_of_loopback_that_leads_elsewhere_is_not_followed() {
    let place = Place::new();
    place.write("hosts", "192.0.2.1 localhost\n");
    let unshared = |arguments: &[&str]| {
        let mut command = place.command_of("unshare".as_ref(), &["-m", "sh", "-c", "mount --bind hosts /etc/hosts && exec \"$0\" \"$@\""]);
        command.arg(env!("CARGO_BIN_EXE_batchsql")).args(arguments);
        command
    };
    let may = Command::new("unshare").args(["-m", "sh", "-c", "mount --bind /etc/hosts /etc/hosts"]).output();
    if !may.is_ok_and(|output| output.status.success()) {
        println!("left out: this user may not give a program an /etc/hosts of its own");
        return;
    }
    let rows = Database::sqlite(&place, "safety_name").rows(10);
    let requests = json!({
        "name": "led_on",
        "target": {"http": {"url": "http://localhost:9"}},
        "workload": {"proxy_request": {"requests": 1, "mix": [{"chat": {}}]}},
        "load": {"executor": "shared-iterations"},
    });
    let mut led_on = requests.clone();
    led_on["target"]["http"] = json!({"start": {"gateway": {"channels": [{"name": "up", "url": "http://localhost:9"}]}}});
    let (rows, requests, led_on) = (
        place.write("rows.yaml", &rows.to_string()),
        place.write("requests.yaml", &requests.to_string()),
        place.write("led_on.yaml", &led_on.to_string()),
    );
    for (arguments, key) in [
        (&["--database-url", "postgres://u@localhost:9/x", &rows][..], "target.postgres.url"),
        (&["--database-url", "mysql://u@localhost:9/x", &rows], "target.mysql.url"),
        (&[&requests], "target.http.url"),
        (&[&led_on], "target.http.start.gateway.channels"),
    ] {
        let ended = place.spawn(unshared(&[&["run", "--no-metrics"], arguments].concat())).end();
        ended.refused(&[&format!("{key}: host `localhost` leads to 192.0.2.1, beyond loopback"), "--allow-host 192.0.2.1"]);
    }
    let kept = place.path("reports").read_dir().map(|entries| entries.count()).unwrap_or(0);
    assert_eq!(kept, 0, "a run that never began leaves nothing");
}

/// What a terminal obeys, or what turns the direction of reading; line breaks are the program's own.
fn obeyed(text: &str) -> String {
    text.chars()
        .filter(|c| (c.is_control() && !"\n\t".contains(*c)) || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}'))
        .collect()
}

#[test]
fn what_is_read_does_not_speak_to_the_terminal() {
    const EVIL: &str = "\u{1b}]0;owned\u{7}\u{9b}2J\u{202e}<script>";
    let place = Place::new();
    let db = Database::sqlite(&place, "turned\u{202e}table");
    let mut scenario = db.rows(300);
    scenario["description"] = json!(EVIL);
    scenario["name"] = json!("name \u{202e}<b>");
    scenario["gates"] = json!(["rejected == 0"]);
    // A stored value, and a message of the database.
    let report = run_and_meddle(&place, &scenario, || {
        let user = rusqlite::Connection::open(db.url.trim_start_matches("sqlite://")).unwrap();
        let changed = user.execute(&format!("UPDATE {} SET data = ?1 WHERE id IN (1, 2, 3)", db.quoted()), [EVIL]).unwrap();
        assert_eq!(changed, 3);
    });
    assert_eq!(obeyed(&report.stdout), "", "JSON");
    let report = report.json(4);
    assert_anomalies(&report["integrity"], &[("corrupted", 3)]);
    let found = report["integrity"]["examples"][0]["found"].as_str().unwrap();
    assert!(found.contains("owned"), "what was found is shown, in its way: {found:?}");
    let run = place.run_folders().remove(0);
    let file = place.write("evil \u{1b}[2J.yaml", &scenario.to_string());
    let hook = format!("printf '%s' '{}'", EVIL.replace('\u{7}', ""));
    let folder = run.to_str().unwrap();
    let mut told = 0;
    for arguments in [
        &["verify", folder][..],
        &["verify", "--json", folder],
        &["check", &file],
        &["check", &place.name("no \u{1b}[2J such.yaml")],
        &["run", "--no-metrics", "--before-verify", &hook, "--log-file", "evil.log", &file],
        &["run", "--no-metrics", "--log-format", "json", "--before-verify", &hook, &file],
        &[
            "run",
            "--no-metrics",
            "--quiet",
            "--set",
            &format!("target.sqlite.path={}", place.name("no\u{202e}\u{9b}/such/folder.db")),
            &file,
        ],
        &["compare", folder, folder],
        &["baseline", "save", "evil", "--run", folder],
        &["baseline", "list"],
        &["history"],
        &["history", "--json"],
        &["report", "--incident", folder],
        &["doctor", &file],
    ] {
        let ended = place.batchsql(arguments);
        assert_eq!((obeyed(&ended.stdout), obeyed(&ended.stderr)), (String::new(), String::new()), "{arguments:?}");
        told += usize::from((ended.stdout + &ended.stderr).contains("owned"));
    }
    assert!(told >= 3, "what is hidden would pass too: {told}");
    for name in ["report.md", "report.html", "junit.xml"] {
        let page = std::fs::read_to_string(run.join(name)).unwrap();
        // The page's own scripts stand in it as they are.
        assert_eq!(
            (obeyed(&page), page.contains("owned\u{7}"), page.contains("\\u{202e}<script>")),
            (String::new(), false, false),
            "{name}"
        );
    }
    assert_eq!(obeyed(&std::fs::read_to_string(place.path("evil.log")).unwrap()), "", "the log file");
}
