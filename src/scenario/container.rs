//! A target that is started for the run as a container: what is started, and what a database in it is called by.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::units::{Memory, Time};
use super::{Scenario, TargetConfig, Workload};
use crate::target::Database;

/// The database that is made if the environment names none.
const DATABASE: &str = "batchsql";

/// A container, started before the run and removed after it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Container {
    /// The image with its tag or digest, e.g. `postgres:17-alpine`.
    #[schemars(length(min = 1, max = 500))]
    pub image: String,
    /// The container's environment; a password that it lacks is made at random.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// What follows the image in `docker run`, e.g. the server's settings.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100))]
    pub args: Vec<String>,
    /// Folders that are kept in memory, as for `docker run --tmpfs`: `/var/lib/mysql` or `/var/lib/mysql:size=1g`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 20))]
    pub tmpfs: Vec<String>,
    /// Most memory; by default what the machine has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<Memory>,
    /// Most cores, e.g. 1.5; by default what the machine has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = 1024), extend("exclusiveMinimum" = 0))]
    pub cpus: Option<f64>,
    /// Where the service listens inside; by default 5432 (Postgres), 3306 (MySQL) or 80 (HTTP).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub port: Option<u16>,
    /// The port of this machine that leads there; by default any that is free.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub host_port: Option<u16>,
    /// HTTP: the path whose GET must be answered, with a status below 500, before the run begins; by default `/`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ready: Option<String>,
    /// Longest wait for the first answer once it was started.
    #[serde(default = "default_ready_timeout")]
    pub ready_timeout: Time,
}

fn default_ready_timeout() -> Time {
    Time::secs(60)
}

/// How a database in a container is logged into.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Login {
    pub(crate) user: String,
    pub(crate) password: String,
    pub(crate) database: String,
}

impl Container {
    /// The image's name and its tag or digest, as `docker run` joins them by a colon.
    pub(crate) fn image_parts(&self) -> Option<(&str, &str)> {
        self.image.rsplit_once(':').filter(|(name, tag)| !name.is_empty() && !tag.is_empty() && !tag.contains('/'))
    }

    /// Where the service listens inside.
    pub(crate) fn port_inside(&self, database: Option<Database>) -> u16 {
        self.port.unwrap_or(match database {
            Some(Database::Postgres) => 5432,
            Some(Database::Mysql) => 3306,
            Some(Database::Sqlite) | None => 80,
        })
    }

    /// The environment with what a database needs and the scenario leaves out: a name, and `password`.
    pub(crate) fn completed_env(&self, database: Option<Database>, password: &str) -> BTreeMap<String, String> {
        let mut env = self.env.clone();
        let open = env.get("POSTGRES_HOST_AUTH_METHOD").is_some_and(|method| method == "trust")
            || env.keys().any(|name| name.ends_with("_ALLOW_EMPTY_PASSWORD") || name.ends_with("_ALLOW_EMPTY_ROOT_PASSWORD"));
        let (name, secret) = match database {
            Some(Database::Postgres) => ("POSTGRES_DB", "POSTGRES_PASSWORD"),
            Some(Database::Mysql) => ("MYSQL_DATABASE", "MYSQL_ROOT_PASSWORD"),
            Some(Database::Sqlite) | None => return env,
        };
        for (key, value, wanted) in [(name, DATABASE, true), (secret, password, !open)] {
            if wanted && read(&env, key).is_none() {
                env.insert(key.to_owned(), value.to_owned());
            }
        }
        env
    }
}

/// A variable of the official images; MariaDB's has two names.
fn read<'a>(env: &'a BTreeMap<String, String>, key: &str) -> Option<&'a String> {
    env.get(key).or_else(|| env.get(&key.replacen("MYSQL_", "MARIADB_", 1)))
}

/// How to log into `database` in a container of this environment.
pub(crate) fn login(database: Database, env: &BTreeMap<String, String>) -> Login {
    let value = |key: &str, default: &str| read(env, key).cloned().unwrap_or_else(|| default.to_owned());
    if database == Database::Postgres {
        let user = value("POSTGRES_USER", "postgres");
        return Login { password: value("POSTGRES_PASSWORD", ""), database: value("POSTGRES_DB", &user), user };
    }
    let (user, password) = match read(env, "MYSQL_USER") {
        Some(user) => (user.clone(), value("MYSQL_PASSWORD", "")),
        None => ("root".to_owned(), value("MYSQL_ROOT_PASSWORD", "")),
    };
    Login { user, password, database: value("MYSQL_DATABASE", DATABASE) }
}

/// The passwords and keys of a container's environment as written. One that is a user's name is none: the name is shown.
pub(super) fn secrets(env: &Value) -> Vec<String> {
    let written = || env.as_object().into_iter().flatten().filter_map(|(name, value)| Some((name.to_ascii_uppercase(), value.as_str()?)));
    let shown: Vec<&str> = written().filter(|(name, _)| name.ends_with("USER")).map(|(_, user)| user).chain(["postgres", "root"]).collect();
    let is_switch = |value: &str| ["yes", "no", "true", "false", ""].iter().any(|word| value.eq_ignore_ascii_case(word));
    let is_secret = |name: &str| ["PASSWORD", "SECRET", "TOKEN", "KEY"].iter().any(|word| name.ends_with(word));
    let found = written().filter(|(name, value)| is_secret(name) && !is_switch(value) && !shown.contains(value));
    found.map(|(_, value)| value.to_owned()).collect()
}

/// What is wrong with the container of `scenario`, as (path, message).
pub(super) fn problems(scenario: &Scenario) -> Vec<(String, String)> {
    let Some(container) = &scenario.target.container else { return Vec::new() };
    let target = &scenario.target;
    let requests = matches!(scenario.workload, Workload::ProxyRequest(_));
    let random = container.env.keys().find(|name| name.ends_with("_RANDOM_ROOT_PASSWORD"));
    let started = target.http.as_ref().is_some_and(|http| http.start.is_some());
    let mut found = given_urls(target);
    let mut when = |wrong: bool, path: &str, message: String| {
        if wrong {
            found.push((format!("target.{path}"), message));
        }
    };
    when(target.sqlite.is_some(), "container", "is no place for an embedded SQLite file; remove one of them".to_owned());
    when(started, "http.start", "starts a service, and so does target.container; remove one of them".to_owned());
    when(
        container.image_parts().is_none() || container.image.contains(char::is_whitespace),
        "container.image",
        format!("`{}` names no version; write e.g. postgres:17-alpine", container.image),
    );
    if let Some(name) = random {
        when(true, &format!("container.env.{name}"), "makes a password nobody knows; remove it: one is made at random anyway".to_owned());
    }
    for (name, value) in &container.env {
        let broken = name.is_empty() || name.contains(['=', '\0']) || value.contains('\0');
        when(broken, "container.env", format!("{name:?} cannot be the name of a variable, or its value has a NUL"));
    }
    for folder in container.tmpfs.iter().filter(|folder| !folder.starts_with('/')) {
        when(true, "container.tmpfs", format!("`{folder}` is no absolute path; write e.g. /var/lib/postgresql/data"));
    }
    when(container.ready.is_some() && !requests, "container.ready", "is of HTTP services; a database is asked a query".to_owned());
    let path = container.ready.as_deref().unwrap_or("/");
    when(!path.starts_with('/') || path.contains([' ', '?', '#']), "container.ready", "is no path; write e.g. /health".to_owned());
    found
}

/// The URLs of a target that is started.
fn given_urls(target: &TargetConfig) -> Vec<(String, String)> {
    let url = |server: &Option<super::ServerConfig>| server.as_ref().map(|server| server.url.clone());
    let http = target.http.as_ref().map(|http| http.url.clone());
    let urls = [("postgres", url(&target.postgres)), ("mysql", url(&target.mysql)), ("http", http)];
    let given = urls.into_iter().filter(|(_, url)| url.as_ref().is_some_and(|url| !url.is_empty()));
    given.map(|(kind, _)| (format!("target.{kind}.url"), "is what target.container starts; remove one of them".to_owned())).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn container(value: serde_json::Value) -> Container {
        serde_json::from_value(value).unwrap()
    }

    fn logged_in(database: Database, env: serde_json::Value) -> (String, String, String) {
        let container = container(json!({"image": "a:1", "env": env}));
        let Login { user, password, database } = login(database, &container.completed_env(Some(database), "random"));
        (user, password, database)
    }

    fn words(user: &str, password: &str, database: &str) -> (String, String, String) {
        (user.to_owned(), password.to_owned(), database.to_owned())
    }

    #[test]
    fn what_the_environment_leaves_out_is_made() {
        use Database::{Mysql, Postgres};
        assert_eq!(logged_in(Postgres, json!({})), words("postgres", "random", "batchsql"));
        let own = json!({"POSTGRES_USER": "u", "POSTGRES_PASSWORD": "p", "POSTGRES_DB": "d"});
        assert_eq!(logged_in(Postgres, own), words("u", "p", "d"));
        assert_eq!(logged_in(Postgres, json!({"POSTGRES_HOST_AUTH_METHOD": "trust"})), words("postgres", "", "batchsql"));
        assert_eq!(logged_in(Mysql, json!({})), words("root", "random", "batchsql"));
        assert_eq!(logged_in(Mysql, json!({"MARIADB_ROOT_PASSWORD": "p", "MARIADB_DATABASE": "d"})), words("root", "p", "d"));
        assert_eq!(logged_in(Mysql, json!({"MYSQL_ALLOW_EMPTY_PASSWORD": "yes"})), words("root", "", "batchsql"));
        assert_eq!(logged_in(Mysql, json!({"MYSQL_USER": "u", "MYSQL_PASSWORD": "p"})), words("u", "p", "batchsql"));
        assert_eq!(container(json!({"image": "a:1"})).completed_env(None, "random"), BTreeMap::new());
    }

    #[test]
    fn an_image_has_a_tag_or_a_digest() {
        let parts = |image: &str| container(json!({"image": image})).image_parts().map(|(name, tag)| (name.to_owned(), tag.to_owned()));
        assert_eq!(parts("postgres:17"), Some(("postgres".to_owned(), "17".to_owned())));
        assert_eq!(parts("localhost:5000/db:1"), Some(("localhost:5000/db".to_owned(), "1".to_owned())));
        assert_eq!(parts("a@sha256:0f"), Some(("a@sha256".to_owned(), "0f".to_owned())));
        for wrong in ["postgres", "localhost:5000/db", "postgres:", ":17"] {
            assert_eq!(parts(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn what_cannot_be_started_is_told() {
        let scenario = json!({
            "name": "t", "workload": {"batch_insert": {"rows": 1}}, "load": {"executor": "shared-iterations"},
            "target": {
                "mysql": {"url": "mysql://root@127.0.0.1/x"}, "sqlite": {},
                "container": {"image": "mysql", "env": {"MYSQL_RANDOM_ROOT_PASSWORD": "1"}, "tmpfs": ["data"], "ready": "/up"}
            }
        });
        let found = problems(&serde_json::from_value(scenario).unwrap());
        let paths: Vec<&str> = found.iter().map(|(path, _)| path.as_str()).collect();
        assert_eq!(
            paths,
            [
                "target.mysql.url",
                "target.container",
                "target.container.image",
                "target.container.env.MYSQL_RANDOM_ROOT_PASSWORD",
                "target.container.tmpfs",
                "target.container.ready"
            ]
        );
    }

    #[test]
    fn passwords_are_secret_and_switches_and_names_are_not() {
        let env = json!({
            "POSTGRES_PASSWORD": "hunter22", "OPENAI_API_KEY": "sk-1", "MYSQL_ALLOW_EMPTY_PASSWORD": "true", "MYSQL_USER": "bob",
            "MYSQL_PASSWORD": "bob", "A_SECRET": "postgres", "LEVEL": "high"
        });
        assert_eq!(secrets(&env), ["hunter22", "sk-1"]);
        assert!(secrets(&Value::Null).is_empty());
    }
}
