//! The database targets against real servers. Each test runs on every server whose URL is set; see `tests/common`.
#![allow(clippy::unwrap_used)]

#[path = "../common/mod.rs"]
mod common;
mod connecting;
mod faults;
mod mysql;
mod postgres;
mod server;
mod storing;

/// Makes one test a server of each function: `async fn(Server)`.
macro_rules! on_each_server {
    ($($name:ident),+ $(,)?) => {
        mod on_postgres {
            $(#[tokio::test]
            async fn $name() {
                if let Some(server) = crate::server::Server::postgres(stringify!($name)) { super::$name(server).await; }
            })+
        }
        mod on_mariadb {
            $(#[tokio::test]
            async fn $name() {
                if let Some(server) = crate::server::Server::mariadb(stringify!($name)) { super::$name(server).await; }
            })+
        }
        mod on_mysql {
            $(#[tokio::test]
            async fn $name() {
                if let Some(server) = crate::server::Server::mysql(stringify!($name)) { super::$name(server).await; }
            })+
        }
    };
}
pub(crate) use on_each_server;
