//! Which hosts may be put under load: those of loopback, and those that were named.
//!
//! The rules of a scenario look at names alone. This looks again once a name has become addresses: what is called `localhost` may
//! lead elsewhere. A name that was allowed is followed wherever it leads.

use std::net::IpAddr;
use std::time::Duration;

use tokio::time::timeout;
use url::Url;

use super::TargetError;
use crate::redact::redact_url;
use crate::scenario::TargetConfig;
use crate::scenario::database_url::host_of;
use crate::scenario::http::UPSTREAM;

/// Longest wait for a name's addresses.
const LOOKUP: Duration = Duration::from_secs(10);

/// Makes sure that the database or service of `target` is where it may be.
///
/// # Errors
/// When it leads beyond loopback and was not allowed to, or nowhere.
pub(crate) async fn check(target: &TargetConfig) -> Result<(), TargetError> {
    let http = target.http.as_ref();
    let urls = [
        ("target.postgres.url", target.postgres.as_ref().map(|server| &server.url)),
        ("target.mysql.url", target.mysql.as_ref().map(|server| &server.url)),
        ("target.http.url", http.map(|http| &http.url)),
        ("target.http.direct_url", http.and_then(|http| http.direct_url.as_ref()).filter(|url| *url != UPSTREAM)),
    ];
    for (key, url) in urls {
        if let Some(url) = url.filter(|url| !url.is_empty()) {
            check_url(key, url, &target.allow_hosts).await?;
        }
    }
    // The load goes on through a gateway that is started for it.
    let Some(gateway) = http.and_then(|http| http.start.as_ref()?.gateway.as_ref()) else { return Ok(()) };
    for channel in &gateway.channels {
        check_url("target.http.start.gateway.channels", &channel.url, &target.allow_hosts).await?;
    }
    let log = &gateway.log.database;
    for server in [&log.postgres, &log.mysql].into_iter().flatten() {
        check_url("target.http.start.gateway.log.database", &server.url, &target.allow_hosts).await?;
    }
    Ok(())
}

/// Makes sure that `url`, the value of `key`, leads where it may.
///
/// # Errors
/// As of [`check`].
pub(crate) async fn check_url(key: &str, url: &str, allow_hosts: &[String]) -> Result<(), TargetError> {
    let host = Url::parse(url).ok().and_then(|url| host_of(&url));
    let host = host.ok_or_else(|| TargetError::Unreachable(format!("{key}: {} names no host", redact_url(url))))?;
    let host = host.trim_matches(['[', ']']);
    // The path of a socket.
    if host.starts_with('/') || allow_hosts.iter().any(|allowed| allowed.trim_matches(['[', ']']).eq_ignore_ascii_case(host)) {
        return Ok(());
    }
    let nowhere = |why: String| TargetError::Unreachable(format!("{key}: the host's name {host:?} has no address ({why}); correct it"));
    let found = timeout(LOOKUP, tokio::net::lookup_host((host, 0))).await.map_err(|_| nowhere(format!("no answer within {LOOKUP:?}")))?;
    let addresses: Vec<IpAddr> = found.map_err(|error| nowhere(error.to_string()))?.map(|address| address.ip()).collect();
    beyond(host, &addresses, allow_hosts).map_or(Ok(()), |problem| Err(TargetError::Unreachable(format!("{key}: {problem}"))))
}

/// The first of a host's addresses that may not be put under load, if there is one.
fn beyond(host: &str, addresses: &[IpAddr], allow_hosts: &[String]) -> Option<String> {
    let may = |address: &&IpAddr| {
        let address = address.to_canonical();
        address.is_loopback() || allow_hosts.iter().any(|allowed| allowed.trim_matches(['[', ']']).parse() == Ok(address))
    };
    let address = addresses.iter().find(|address| !may(address))?.to_canonical();
    Some(format!(
        "host `{host}` leads to {address}, beyond loopback; if it may be put under load, add it to target.allow_hosts or give --allow-host {address}"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_address_of_a_host_must_be_allowed() {
        let beyond = |addresses: &[&str], allowed: &[&str]| {
            let addresses: Vec<IpAddr> = addresses.iter().map(|address| address.parse().unwrap()).collect();
            let allowed: Vec<String> = allowed.iter().map(|&host| host.to_owned()).collect();
            super::beyond("localhost", &addresses, &allowed)
        };
        assert_eq!(beyond(&["127.0.0.1", "::1", "127.9.9.9", "::ffff:127.0.0.1"], &[]), None);
        assert_eq!(
            beyond(&["127.0.0.1", "203.0.113.9"], &[]).unwrap(),
            "host `localhost` leads to 203.0.113.9, beyond loopback; if it may be put under load, add it to target.allow_hosts or give \
             --allow-host 203.0.113.9"
        );
        assert_eq!(beyond(&["203.0.113.9", "2001:db8::1"], &["203.0.113.9", "[2001:db8::1]"]), None);
        assert!(beyond(&["203.0.113.9", "203.0.113.10"], &["203.0.113.9"]).unwrap().contains("leads to 203.0.113.10"));
        assert!(beyond(&["::ffff:203.0.113.9", "0.0.0.0"], &[]).unwrap().contains("203.0.113.9"));
        assert!(beyond(&["0.0.0.0"], &[]).is_some(), "an address of no interface is not loopback");
    }

    #[tokio::test]
    async fn a_name_is_followed_and_one_that_was_allowed_is_not_asked_for() {
        let check = async |url: &str, allowed: &[String]| check_url("target.http.url", url, allowed).await.map_err(|e| e.to_string());
        assert_eq!(check("http://localhost:1/x", &[]).await, Ok(()));
        assert_eq!(check("http://[::1]:1", &[]).await, Ok(()));
        assert_eq!(check("postgres://u:p@h.invalid/db?host=/run/postgresql", &[]).await, Ok(()));
        assert!(check("postgres://u:p@localhost/db?host=203.0.113.9", &[]).await.unwrap_err().contains("leads to 203.0.113.9"));
        assert_eq!(check("http://nowhere.invalid", &["NOWHERE.invalid".to_owned()]).await, Ok(()));
        assert!(check("http://nowhere.invalid", &[]).await.unwrap_err().contains("\"nowhere.invalid\" has no address"));
        let unreadable = check("db://u:secret@", &[]).await.unwrap_err();
        assert_eq!(unreadable, "target.http.url: db://u:***@ names no host");
    }
}
