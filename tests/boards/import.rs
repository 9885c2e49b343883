//! `scripts/import-dashboards`, before a server that keeps what it is sent.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::process::{Command, Output};
use std::thread::{self, JoinHandle};

use serde_json::{Value, json};

use crate::board::{boards, root};

/// The head and the body of each of `count` requests, each answered with `status`.
fn grafana(count: usize, status: &'static str) -> (SocketAddr, JoinHandle<Vec<(String, String)>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let serve = move || {
        let mut requests = Vec::new();
        while requests.len() < count {
            let (stream, _) = listener.accept().unwrap();
            let (mut reader, mut head) = (BufReader::new(&stream), String::new());
            while !head.ends_with("\r\n\r\n") {
                assert!(reader.read_line(&mut head).unwrap() > 0, "{head}");
            }
            if head.contains("Expect: 100-continue") {
                (&stream).write_all(b"HTTP/1.1 100 Continue\r\n\r\n").unwrap();
            }
            let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: ")).unwrap();
            let mut body = vec![0; length.parse().unwrap()];
            reader.read_exact(&mut body).unwrap();
            write!(&stream, "HTTP/1.1 {status}\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{{}}").unwrap();
            requests.push((head, String::from_utf8(body).unwrap()));
        }
        requests
    };
    (address, thread::spawn(serve))
}

fn import(url: &str, variables: &[(&str, &str)]) -> Output {
    let mut command = Command::new(root().join("scripts/import-dashboards"));
    for variable in ["GRAFANA_TOKEN", "GRAFANA_USER", "GRAFANA_PASSWORD"] {
        command.env_remove(variable);
    }
    let output = command.arg(url).envs(variables.iter().copied()).output().unwrap();
    for (name, secret) in variables.iter().filter(|(name, _)| *name != "GRAFANA_USER") {
        let said = String::from_utf8([output.stdout.clone(), output.stderr.clone()].concat()).unwrap();
        assert!(!said.contains(secret), "{name} is shown: {said}");
    }
    output
}

fn has_curl() -> bool {
    let has = Command::new("curl").arg("--version").output().is_ok();
    if !has {
        println!("left out: curl is not installed");
    }
    has
}

#[test]
fn every_board_is_sent_as_the_api_takes_it() {
    if !has_curl() {
        return;
    }
    let boards = boards();
    let logins: [(&[(&str, &str)], &str); 2] = [
        (&[("GRAFANA_TOKEN", "glsa_a\"b\\c")], "Authorization: Bearer glsa_a\"b\\c"),
        // admin:pa"ss\word
        (&[("GRAFANA_PASSWORD", "pa\"ss\\word")], "Authorization: Basic YWRtaW46cGEic3Ncd29yZA=="),
    ];
    for (variables, header) in logins {
        let (address, served) = grafana(boards.len(), "200 OK");
        let output = import(&format!("http://{address}/"), variables);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let requests = served.join().unwrap();
        for ((head, body), (name, board)) in requests.iter().zip(&boards) {
            assert!(head.starts_with("POST /api/dashboards/db HTTP/1.1\r\n"), "{head}");
            assert!(head.lines().any(|line| line == header), "{header} is not in {head}");
            assert!(head.contains("Content-Type: application/json\r\n"), "{head}");
            assert_eq!(serde_json::from_str::<Value>(body).unwrap(), json!({"dashboard": board, "overwrite": true}), "{name}");
        }
        let said = String::from_utf8(output.stdout).unwrap();
        assert_eq!(said.lines().count(), boards.len(), "{said}");
    }
}

#[test]
fn a_refusal_says_the_mend() {
    if !has_curl() {
        return;
    }
    let token = [("GRAFANA_TOKEN", "glsa_secret")];
    for (status, mend) in
        [("401 Unauthorized", "set GRAFANA_TOKEN, or GRAFANA_USER and GRAFANA_PASSWORD"), ("403 Forbidden", "role Editor")]
    {
        let (address, served) = grafana(1, status);
        let output = import(&format!("http://{address}"), &token);
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains("batchsql-batch.json") && said.contains(&status[..3]) && said.contains(mend), "{said}");
        served.join().unwrap();
    }
    let nowhere = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let said = import(&format!("http://{nowhere}"), &token);
    assert_eq!(said.status.code(), Some(1));
    assert!(String::from_utf8(said.stderr).unwrap().contains("does not answer: is this Grafana's address?"));
    let without = import("http://127.0.0.1:3000", &[]);
    assert_eq!(without.status.code(), Some(2));
    assert!(String::from_utf8(without.stderr).unwrap().contains("set GRAFANA_TOKEN"));
}
