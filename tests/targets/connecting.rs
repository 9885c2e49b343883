//! What is learnt when connecting, and what is said when it fails.

use batchsql::scenario;
use batchsql::target::{TargetError, mysql, postgres};

use crate::on_each_server;
use crate::server::{Kind, Server};

on_each_server!(
    the_server_is_named_with_its_settings,
    a_wrong_password_is_told_and_not_printed,
    a_missing_database_is_told_with_the_mend,
    a_server_that_is_not_there_is_told,
);

async fn refusal(server: &Server, url: &str) -> String {
    let pool = scenario::Pool::default();
    let error = match server.kind {
        Kind::Postgres => postgres::connect(url, &pool, 1, "run", false).await.err(),
        Kind::Mysql => mysql::connect(url, &pool, 1, "run", false).await.err(),
    };
    match error {
        Some(TargetError::Unreachable(message)) => message,
        other => panic!("expected unreachable, found {other:?}"),
    }
}

fn changed(server: &Server, change: impl Fn(&mut url::Url)) -> String {
    let mut url = url::Url::parse(&server.url).unwrap();
    change(&mut url);
    url.to_string()
}

async fn the_server_is_named_with_its_settings(server: Server) {
    let target = server.connect().await;
    let info = target.info();
    let setting = |name: &str| info.settings.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str());
    assert_eq!(info.max_binds, 65_535);
    assert!(info.version.starts_with(|c: char| c.is_ascii_digit()), "{}", info.version);
    match server.kind {
        Kind::Postgres => {
            assert_eq!(info.name, "PostgreSQL");
            assert_eq!((setting("fsync"), setting("synchronous_commit")), (Some("on"), Some("on")));
        }
        Kind::Mysql => {
            assert_eq!(info.name == "MariaDB", info.version.contains("MariaDB"));
            assert_eq!(setting("innodb_flush_log_at_trx_commit"), Some("1"));
            let packet = server.user().await.number("SELECT @@max_allowed_packet").await;
            assert_eq!(info.max_bytes as i64, packet);
        }
    }
}

async fn a_wrong_password_is_told_and_not_printed(server: Server) {
    let message = refusal(&server, &changed(&server, |url| url.set_password(Some("canary-0451")).unwrap())).await;
    assert!(message.contains("refused the login") && message.contains("127.0.0.1") && message.contains("\"batchsql\""), "{message}");
    assert!(!message.contains("canary"), "{message}");
}

async fn a_missing_database_is_told_with_the_mend(server: Server) {
    let message = refusal(&server, &changed(&server, |url| url.set_path("/not_there"))).await;
    assert!(
        message.contains("no such database") && message.contains(&format!("CREATE DATABASE {}", server.quoted("not_there"))),
        "{message}"
    );
}

async fn a_server_that_is_not_there_is_told(server: Server) {
    // Bound and closed: nobody listens on it.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let message = refusal(&server, &changed(&server, |url| url.set_port(Some(port)).unwrap())).await;
    assert!(message.contains(&format!("127.0.0.1:{port}")) && message.contains("start the server"), "{message}");
    assert!(!message.contains("batchsql-test"), "{message}");
}
