//! How the proxy comes in front of a target: what is spoken there, where it leads, and what the load is told instead.

use std::net::SocketAddr;

use anyhow::{Context as _, bail, ensure};
use url::Url;

use super::protocol::Spoken;
use crate::scenario::fault::{CutWhen, Fault};
use crate::scenario::http::HttpVersion;
use crate::scenario::{ServerConfig, TargetConfig, database_url};

/// Parameters of a database's URL that say where it is, or how TLS is spoken.
const HOSTS: [&str; 4] = ["host", "hostaddr", "socket", "port"];
const TLS: [&str; 2] = ["sslmode", "ssl-mode"];

/// What is spoken with `target`.
pub(super) fn spoken(target: &TargetConfig) -> anyhow::Result<Spoken> {
    let server =
        |server: &ServerConfig, spoken| anyhow::Ok(if is_encrypted(&server.url, target.insecure_tls)? { Spoken::Bytes } else { spoken });
    if let Some(postgres) = &target.postgres {
        return server(postgres, Spoken::Postgres);
    }
    if let Some(mysql) = &target.mysql {
        return server(mysql, Spoken::Mysql);
    }
    let http = target.http.as_ref().context("faults of the network need a server")?;
    let bytes = http.version == HttpVersion::Http2 || http.url.starts_with("https:");
    Ok(if bytes { Spoken::Bytes } else { Spoken::Http1 })
}

/// Refuses cuts that need requests to be seen where there are only bytes.
pub(super) fn refuse_unseen(faults: &[Fault]) -> anyhow::Result<()> {
    for (number, fault) in faults.iter().enumerate() {
        if let Some(CutWhen::BeforeRequest | CutWhen::AfterRequest | CutWhen::AfterCommit) = fault.when {
            bail!(
                "faults.{number}: requests cannot be told apart within TLS or HTTP/2; cut `when: within_request`, `within_answer` or \
                 `at_byte`, or speak to the target without TLS and with HTTP/1.1"
            );
        }
    }
    Ok(())
}

/// Lets `target` lead to `address`; where it led before, if that is known yet.
pub(super) fn put(address: SocketAddr, target: &mut TargetConfig) -> anyhow::Result<Option<(String, u16)>> {
    if let Some(http) = &mut target.http {
        // Its URL stays: the Host header and the name in the certificate are those of the service.
        http.via = Some(address);
        return if http.start.is_some() || http.url.is_empty() { Ok(None) } else { place_of(&http.url).map(Some) };
    }
    let insecure = target.insecure_tls;
    let server = target.postgres.as_mut().or(target.mysql.as_mut()).context("faults of the network need a server")?;
    let place = place_of(&server.url)?;
    ensure!(
        insecure || database_url::is_loopback(&place.0),
        "the fault proxy would stand between TLS and the name in the certificate of {}; run this beside the database, or pass --insecure-tls",
        place.0
    );
    let encrypted = is_encrypted(&server.url, insecure)?;
    server.url = led_to(&server.url, address, encrypted)?;
    Ok(Some(place))
}

/// Host and port of a URL.
pub(super) fn place_of(url: &str) -> anyhow::Result<(String, u16)> {
    let url = Url::parse(url).context("the target's URL cannot be read")?;
    let said = |name: &str| url.query_pairs().find(|(key, _)| key == name).map(|(_, value)| value.into_owned());
    let host = said("hostaddr").or_else(|| said("host")).or_else(|| url.host_str().map(str::to_owned)).unwrap_or_default();
    ensure!(
        !host.is_empty() && !host.starts_with('/') && !host.starts_with("%2F") && !host.starts_with("%2f") && said("socket").is_none(),
        "faults of the network need a TCP address, and the target's URL names a socket; write host and port"
    );
    let default = match url.scheme() {
        "mysql" | "mariadb" => 3306,
        "http" => 80,
        "https" => 443,
        _ => 5432,
    };
    let port = said("port").and_then(|port| port.parse().ok()).or(url.port()).unwrap_or(default);
    Ok((host.trim_matches(['[', ']']).to_owned(), port))
}

/// Whether TLS is spoken with a database: where the URL asks for it, and beyond loopback.
fn is_encrypted(url: &str, insecure_tls: bool) -> anyhow::Result<bool> {
    let (host, _) = place_of(url)?;
    let parsed = Url::parse(url)?;
    let mode = parsed.query_pairs().find(|(key, _)| TLS.contains(&key.as_ref())).map(|(_, mode)| mode.to_ascii_lowercase());
    Ok(match mode.as_deref() {
        Some("disable" | "disabled") => !insecure_tls && !database_url::is_loopback(&host),
        None | Some("prefer" | "preferred" | "allow") => !database_url::is_loopback(&host),
        Some(_) => true,
    })
}

/// The URL with the proxy's address. Without TLS the proxy understands what passes, so it is not even tried where it need not be.
fn led_to(url: &str, address: SocketAddr, encrypted: bool) -> anyhow::Result<String> {
    let mut url = Url::parse(url)?;
    let kept: Vec<(String, String)> = url
        .query_pairs()
        .filter(|(key, _)| !HOSTS.contains(&key.as_ref()) && (encrypted || !TLS.contains(&key.as_ref())))
        .map(|(key, value)| (key.into_owned(), value.into_owned()))
        .collect();
    url.set_query(None);
    let off = if url.scheme().starts_with("postgres") { "disable" } else { "DISABLED" };
    let off = (!encrypted).then(|| ("ssl-mode".to_owned(), off.to_owned()));
    for (key, value) in kept.into_iter().chain(off) {
        url.query_pairs_mut().append_pair(&key, &value);
    }
    let led = url.set_host(Some(&address.ip().to_string())).is_ok() && url.set_port(Some(address.port())).is_ok();
    ensure!(led, "the target's URL cannot be led through the fault proxy");
    Ok(url.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_led_to_the_proxy_and_keeps_what_else_it_says() {
        let address: SocketAddr = "127.0.0.1:9999".parse().unwrap();
        let cases = [
            ("postgres://me:s%40t@localhost:6000/db?options=-cx", "postgres://me:s%40t@127.0.0.1:9999/db?options=-cx&ssl-mode=disable"),
            ("postgres://me@x/db?host=::1&port=7&sslmode=prefer", "postgres://me@127.0.0.1:9999/db?ssl-mode=disable"),
            ("mysql://me@127.0.0.1/db", "mysql://me@127.0.0.1:9999/db?ssl-mode=DISABLED"),
        ];
        for (url, led) in cases {
            assert_eq!(led_to(url, address, is_encrypted(url, false).unwrap()).unwrap(), led);
        }
        let encrypted = "mysql://me@localhost/db?ssl-mode=REQUIRED";
        assert!(is_encrypted(encrypted, false).unwrap());
        assert_eq!(led_to(encrypted, address, true).unwrap(), "mysql://me@127.0.0.1:9999/db?ssl-mode=REQUIRED");
    }

    #[test]
    fn places_are_found_and_sockets_refused() {
        let place = |url: &str| place_of(url).map_err(|error| error.to_string());
        assert_eq!(place("postgres://me@[::1]/db"), Ok(("::1".to_owned(), 5432)));
        assert_eq!(place("mariadb://me@h/db"), Ok(("h".to_owned(), 3306)));
        assert_eq!(place("https://h/v1"), Ok(("h".to_owned(), 443)));
        assert_eq!(place("postgres://me@x/db?host=y&port=7"), Ok(("y".to_owned(), 7)));
        for socket in ["postgres://%2Frun%2Fpg/db", "postgres://me@x/db?host=/run/pg", "mysql://me@x/db?socket=/run/my"] {
            assert!(place(socket).unwrap_err().contains("names a socket"), "{socket}");
        }
    }

    #[test]
    fn beyond_loopback_tls_is_not_taken_away_unasked() {
        let target = |url: &str, insecure_tls| TargetConfig {
            postgres: Some(ServerConfig { url: url.to_owned() }),
            insecure_tls,
            ..TargetConfig::default()
        };
        let address = "127.0.0.1:9999".parse().unwrap();
        let refused = put(address, &mut target("postgres://me@db.example/x?sslmode=disable", false)).unwrap_err();
        assert!(refused.to_string().contains("--insecure-tls"), "{refused}");
        let mut insecure = target("postgres://me@db.example/x", true);
        assert_eq!(spoken(&insecure).unwrap(), Spoken::Bytes);
        assert_eq!(put(address, &mut insecure).unwrap(), Some(("db.example".to_owned(), 5432)));
        assert_eq!(insecure.postgres.unwrap().url, "postgres://me@127.0.0.1:9999/x");
        assert_eq!(spoken(&target("postgres://me@db.example/x?sslmode=disable", true)).unwrap(), Spoken::Postgres);
    }
}
