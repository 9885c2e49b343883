//! The servers of a proof: a database of each test's own on them.

use crate::database::{Database, Kind};

/// The password `proof` as Postgres keeps it after a single round of hashing. The usual 4,096 take a debug build 50 ms a connection,
/// and each verification opens seven.
const QUICK_PASSWORD: &str =
    "SCRAM-SHA-256$1:YmF0Y2hzcWwtcHJvb2YhIQ==$KkdCrd9Gn76CQEYTmZDdRoXzNYKLuF5e5+POnb22XEI=:w37wLzUP5TI2HBXBKJuVtTFliKJGJd0f0snDZwwDFvs=";

/// A new database of this name, whose connections cost little: on Postgres a login of its own, on MySQL without TLS, whose handshake
/// waits 40 ms for want of TCP_NODELAY in the driver.
pub(crate) fn own(server: &Database, name: &str) -> Database {
    let mut database = server.own_database(name, name);
    let mut url = url::Url::parse(&database.url).unwrap();
    match database.kind {
        Kind::Sqlite => return database,
        Kind::Mysql => drop(url.query_pairs_mut().append_pair("ssl-mode", "DISABLED")),
        Kind::Postgres => {
            let mut user = server.user();
            user.execute(&format!("DROP ROLE IF EXISTS {name}"));
            user.execute(&format!("CREATE ROLE {name} LOGIN SUPERUSER PASSWORD '{QUICK_PASSWORD}'"));
            url.set_username(name).unwrap();
            url.set_password(Some("proof")).unwrap();
        }
    }
    database.url = url.to_string();
    database
}
