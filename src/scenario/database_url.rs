//! Database URLs: what one must say, and `--database-url` put in the place of a scenario's target.

use std::net::IpAddr;

use serde::Serialize;
use url::Url;

use super::proxy::LogDatabase;
use super::{PragmaProfile, Scenario, ServerConfig, SqliteConfig, TargetConfig, Workload, rules};
use crate::redact::{percent_decode, redact, redact_url, secrets_of_url};
use crate::target::{Database, Method};

/// What a URL on the command line means for a container.
const NOT_STARTED: &str = "ignored: target.container; no container is started, the URL says what is driven";

impl TargetConfig {
    /// The kind of database, if exactly one is set.
    #[must_use]
    pub fn database(&self) -> Option<Database> {
        match (&self.sqlite, &self.postgres, &self.mysql) {
            (Some(_), None, None) => Some(Database::Sqlite),
            (None, Some(_), None) => Some(Database::Postgres),
            (None, None, Some(_)) => Some(Database::Mysql),
            _ => None,
        }
    }
}

fn scheme_of(database: Database) -> &'static [&'static str] {
    match database {
        Database::Sqlite => &["sqlite"],
        Database::Postgres => &["postgres", "postgresql"],
        Database::Mysql => &["mysql", "mariadb"],
    }
}

/// Says what is wrong with the URL of a server, if anything.
pub(super) fn server_problem(database: Database, url: &str, allow_hosts: &[String]) -> Option<String> {
    let schemes = scheme_of(database);
    let shape = format!("write {}://user@host:port/database", schemes[0]);
    if url.is_empty() {
        return Some(format!("is missing; {shape}"));
    }
    let parsed = match Url::parse(url) {
        Ok(parsed) => parsed,
        Err(error) => return Some(format!("is no URL ({error}); {shape}, special characters of the password as %XX")),
    };
    if !schemes.contains(&parsed.scheme()) {
        return Some(format!("begins with `{}:`; {shape}", parsed.scheme()));
    }
    let database_name = parsed.path().trim_start_matches('/');
    if database_name.is_empty() || database_name.contains('/') {
        return Some(format!("names no database; {shape}"));
    }
    let Some(host) = host_of(&parsed) else { return Some(format!("names no host; {shape}")) };
    let allowed = host.starts_with('/') || is_loopback(&host) || allow_hosts.iter().any(|allowed| allowed.eq_ignore_ascii_case(&host));
    (!allowed).then(|| {
        format!("host `{host}` is beyond loopback; if it may be put under load, add it to target.allow_hosts or give --allow-host {host}")
    })
}

/// Where a URL leads: a host, or the path of a socket.
pub(crate) fn host_of(url: &Url) -> Option<String> {
    // A host in the query would replace the one everybody sees.
    let is_host = |key: &str| is_database(url) && matches!(key, "host" | "hostaddr" | "socket");
    let socket = url.query_pairs().find(|(key, _)| is_host(key)).map(|(_, value)| value.into_owned());
    socket.or_else(|| url.host_str().map(percent_decode)).filter(|host| !host.is_empty())
}

fn is_database(url: &Url) -> bool {
    [Database::Postgres, Database::Mysql].into_iter().any(|database| scheme_of(database).contains(&url.scheme()))
}

/// Whether `host` is this machine by its very name.
pub(crate) fn is_loopback(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    host.eq_ignore_ascii_case("localhost") || bare.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// Puts `url` in the place of the database that is read to judge a run (the scenario's target, or the gateway's log) and checks it.
///
/// # Errors
/// When the URL is of no kind that can be driven, or the scenario cannot be had on it; without the URL's password.
pub fn apply_database_url(scenario: &mut Scenario, url: &str) -> Result<Vec<String>, String> {
    // What else is hidden in a run's folder, e.g. keys, is no fault of the URL.
    let (notes, judged) = match scenario.workload {
        Workload::BatchInsert(_) => (replace_database(scenario, url)?, ""),
        Workload::ProxyRequest(_) => (replace_log(scenario, url)?, "reconcile.database"),
    };
    let problems = rules::check(scenario).into_iter().filter(|(path, _)| path.starts_with(judged));
    let problems: Vec<String> = problems.map(|(path, message)| format!("--database-url: {path}: {message}")).collect();
    if problems.is_empty() { Ok(notes) } else { Err(redact(&problems.join("\n"), &secrets_of_url(url))) }
}

/// Puts `url` in the place of the scenario's target. Pool and hosts stay; what only the former kind of database has is dropped,
/// and each such thing is a note.
///
/// # Errors
/// When the URL is of no kind that can be driven; without its password.
pub(super) fn replace_database(scenario: &mut Scenario, url: &str) -> Result<Vec<String>, String> {
    let database = kind_of(url)?;
    let Workload::BatchInsert(insert) = &mut scenario.workload else {
        return Err("--database-url: this scenario sends requests; give --target-url".to_owned());
    };
    let mut notes = Vec::new();
    let target = &mut scenario.target;
    let former = target.sqlite.take();
    (target.postgres, target.mysql) = (None, None);
    notes.extend(target.container.take().map(|_| NOT_STARTED.to_owned()));
    let server = ServerConfig { url: url.to_owned() };
    match database {
        Database::Sqlite => {
            let (path, query) = sqlite_path(url);
            notes.extend(query.then(|| "ignored: what follows `?` in the URL; pragmas belong into target.sqlite.pragmas".to_owned()));
            target.sqlite = Some(SqliteConfig { path: Some(path), ..former.clone().unwrap_or_default() });
        }
        Database::Postgres => target.postgres = Some(server),
        Database::Mysql => target.mysql = Some(server),
    }
    if database != Database::Sqlite {
        notes.extend(former.iter().flat_map(sqlite_settings).map(|key| format!("ignored: target.sqlite.{key} is for SQLite")));
    }
    if !method_fits(insert.method, database) {
        let method = word(&insert.method);
        notes.push(format!("ignored: workload.batch_insert.method `{method}` is not for {}; auto is used", name_of(database)));
        insert.method = Method::Auto;
    }
    Ok(notes)
}

/// The target that a database URL names, everything else as usual.
///
/// # Errors
/// When the URL is of no kind that can be driven; without its password.
pub(crate) fn target_of(url: &str) -> Result<TargetConfig, String> {
    let server = Some(ServerConfig { url: url.to_owned() });
    Ok(match kind_of(url)? {
        Database::Sqlite => TargetConfig {
            sqlite: Some(SqliteConfig { path: Some(sqlite_path(url).0), ..SqliteConfig::default() }),
            ..TargetConfig::default()
        },
        Database::Postgres => TargetConfig { postgres: server, ..TargetConfig::default() },
        Database::Mysql => TargetConfig { mysql: server, ..TargetConfig::default() },
    })
}

fn kind_of(url: &str) -> Result<Database, String> {
    let scheme = url.split_once(':').map_or("", |(scheme, _)| scheme).to_ascii_lowercase();
    let database = [Database::Sqlite, Database::Postgres, Database::Mysql].into_iter().find(|d| scheme_of(*d).contains(&scheme.as_str()));
    database.ok_or_else(|| format!("--database-url {}: write sqlite://path, postgres://… or mysql://… (mariadb://…)", redact_url(url)))
}

/// Puts `url` in the place of the database where the gateway keeps its log.
fn replace_log(scenario: &mut Scenario, url: &str) -> Result<Vec<String>, String> {
    let database = kind_of(url)?;
    let Some(reconcile) = &mut scenario.reconcile else {
        return Err("--database-url: this run reads no database (it has no `reconcile`); leave the flag out".to_owned());
    };
    let log = reconcile.database.insert(LogDatabase::default());
    let server = ServerConfig { url: url.to_owned() };
    match database {
        Database::Sqlite => log.sqlite = Some(SqliteConfig { path: Some(sqlite_path(url).0), ..SqliteConfig::default() }),
        Database::Postgres => log.postgres = Some(server),
        Database::Mysql => log.mysql = Some(server),
    }
    Ok(Vec::new())
}

/// Puts `url` in the place of the service that requests go to.
///
/// # Errors
/// When the scenario sends no requests.
pub(super) fn replace_service(scenario: &mut Scenario, url: &str) -> Result<Vec<String>, String> {
    if scenario.workload.batch_insert().is_some() {
        return Err("--target-url: this scenario inserts rows; give --database-url".to_owned());
    }
    let http = scenario.target.http.get_or_insert_default();
    (http.url, http.start) = (url.to_owned(), None);
    Ok(scenario.target.container.take().map(|_| NOT_STARTED.to_owned()).into_iter().collect())
}

/// The settings of `config` that say anything.
fn sqlite_settings(config: &SqliteConfig) -> Vec<&'static str> {
    let said =
        [("path", config.path.is_some()), ("profile", config.profile != PragmaProfile::Default), ("pragmas", !config.pragmas.is_empty())];
    said.into_iter().filter(|(_, said)| *said).map(|(key, _)| key).collect()
}

/// The file that a `sqlite:` URL names (`sqlite://relative.db`, `sqlite:///absolute.db`), and whether a query was cut off.
fn sqlite_path(url: &str) -> (String, bool) {
    let rest = url.split_once(':').map_or(url, |(_, rest)| rest);
    let rest = rest.strip_prefix("//").unwrap_or(rest);
    let (path, query) = rest.split_once('?').map_or((rest, None), |(path, query)| (path, Some(query)));
    (percent_decode(path), query.is_some())
}

/// Whether rows can travel to `database` by `method`.
pub(super) fn method_fits(method: Method, database: Database) -> bool {
    match method {
        Method::Auto | Method::Values => true,
        Method::Unnest | Method::Copy => database == Database::Postgres,
        Method::Prepared => database == Database::Sqlite,
    }
}

/// The name people know it by.
pub(super) fn name_of(database: Database) -> &'static str {
    match database {
        Database::Sqlite => "SQLite",
        Database::Postgres => "Postgres",
        Database::Mysql => "MySQL and MariaDB",
    }
}

/// A setting's value as a scenario writes it.
pub(super) fn word<T: Serialize>(value: &T) -> String {
    serde_json::to_value(value).ok().and_then(|v| v.as_str().map(str::to_owned)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scenario(target: serde_json::Value, method: &str) -> Scenario {
        let value = serde_json::json!({
            "name": "t", "target": target, "workload": {"batch_insert": {"rows": 10, "method": method}}, "load": {"executor": "shared-iterations"}
        });
        serde_json::from_value(value).unwrap()
    }

    fn sqlite(method: &str) -> Scenario {
        scenario(
            serde_json::json!({"sqlite": {"path": "a.db", "profile": "off", "pragmas": {"cache_size": -1000}}, "pool": {"size": 3}}),
            method,
        )
    }

    #[test]
    fn what_only_sqlite_has_is_dropped_with_a_note() {
        let mut scenario = sqlite("prepared");
        let url = "postgres://bob:s3cret@127.0.0.1:5432/x";
        assert_eq!(
            apply_database_url(&mut scenario, url).unwrap(),
            [
                "ignored: target.sqlite.path is for SQLite",
                "ignored: target.sqlite.profile is for SQLite",
                "ignored: target.sqlite.pragmas is for SQLite",
                "ignored: workload.batch_insert.method `prepared` is not for Postgres; auto is used",
            ]
        );
        assert_eq!(scenario.target.database(), Some(Database::Postgres));
        assert_eq!(scenario.target.postgres.as_ref().unwrap().url, url);
        assert_eq!((scenario.target.pool.size, scenario.workload.batch_insert().unwrap().method), (Some(3), Method::Auto));
        assert_eq!(apply_database_url(&mut scenario, "mariadb://root@localhost/x").unwrap(), Vec::<String>::new());
        assert_eq!(scenario.target.database(), Some(Database::Mysql));
    }

    #[test]
    fn a_sqlite_url_names_a_file_and_keeps_the_pragmas() {
        for (url, path) in [("sqlite://b c.db", "b c.db"), ("sqlite:///tmp/b%20c.db", "/tmp/b c.db"), ("sqlite:b.db", "b.db")] {
            let mut scenario = sqlite("auto");
            assert_eq!(apply_database_url(&mut scenario, url).unwrap(), Vec::<String>::new());
            let config = scenario.target.sqlite.unwrap();
            assert_eq!((config.path.as_deref(), config.profile), (Some(path), PragmaProfile::Off));
        }
        let notes = apply_database_url(&mut sqlite("auto"), "sqlite://x.db?mode=rwc").unwrap();
        assert_eq!(notes, ["ignored: what follows `?` in the URL; pragmas belong into target.sqlite.pragmas"]);
        assert!(apply_database_url(&mut sqlite("auto"), "sqlite::memory:").unwrap_err().contains("in memory"));
    }

    #[test]
    fn a_url_stands_in_for_a_container() {
        let mut scenario = scenario(serde_json::json!({"postgres": {}, "container": {"image": "postgres:17"}}), "auto");
        assert_eq!(rules::check(&scenario), []);
        assert_eq!(apply_database_url(&mut scenario, "mysql://root@127.0.0.1/x").unwrap(), [NOT_STARTED]);
        assert_eq!((scenario.target.database(), &scenario.target.container), (Some(Database::Mysql), &None));
    }

    #[test]
    fn a_url_that_cannot_be_used_is_refused_without_its_password() {
        let error = |url: &str| apply_database_url(&mut sqlite("auto"), url).unwrap_err();
        assert_eq!(
            error("oracle://bob:s3cret@h/x"),
            "--database-url oracle://bob:***@h/x: write sqlite://path, postgres://… or mysql://… (mariadb://…)"
        );
        assert_eq!(
            error("postgres://bob:s3cret@db.example.org/x"),
            "--database-url: target.postgres.url: host `db.example.org` is beyond loopback; if it may be put under load, add it to target.allow_hosts or give --allow-host db.example.org"
        );
        assert_eq!(
            error("mysql://bob:s3cret@localhost"),
            "--database-url: target.mysql.url: names no database; write mysql://user@host:port/database"
        );
        assert!(error("postgres://bob:s3cret@127.0.0.1:99999/x").contains("is no URL (invalid port number)"));
        assert!(error("postgres:///x").contains("names no host"));
    }

    #[test]
    fn the_host_that_counts_is_the_one_that_is_connected_to() {
        let problem =
            |url: &str, hosts: &[&str]| server_problem(Database::Postgres, url, &hosts.iter().map(|&h| h.to_owned()).collect::<Vec<_>>());
        for fine in [
            "postgres://127.0.0.1/x",
            "postgres://[::1]:5432/x",
            "postgresql://LOCALHOST/x",
            "postgres:///x?host=/run/postgresql",
            "postgres://%2Frun/x",
        ] {
            assert_eq!(problem(fine, &[]), None, "{fine}");
        }
        assert!(
            problem("postgres://127.0.0.1/x?host=evil.example.org", &[]).unwrap().starts_with("host `evil.example.org` is beyond loopback")
        );
        assert_eq!(problem("postgres://db.lan/x", &["DB.lan"]), None);
        assert!(problem("mysql://127.0.0.1/x", &[]).unwrap().starts_with("begins with `mysql:`"));
    }
}
