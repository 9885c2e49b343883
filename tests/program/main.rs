//! The program as its users meet it: the real binary, real databases, exit codes, reports and words.
#![allow(clippy::unwrap_used)]

mod baseline;
mod beside;
#[path = "../common/browser.rs"]
mod browser;
mod canary;
mod cli;
#[path = "../common/mod.rs"]
mod common;
mod compare;
mod costs;
mod database;
mod faults;
mod gone;
mod guard;
mod harnesses;
mod history;
mod integrity;
mod interrupt;
mod load;
mod log;
mod metrics;
mod network;
mod operations;
mod page;
mod place;
mod proxy;
mod push;
mod recorder;
mod safety;
mod search;
#[path = "../common/servers.rs"]
mod servers;
mod sweep;
mod trouble;

/// Makes one test a database of each function: `fn(&Place, &Database)`.
macro_rules! on_each_database {
    ($($name:ident),+ $(,)?) => {
        mod on_sqlite {
            $(#[test]
            fn $name() {
                let place = crate::place::Place::new();
                super::$name(&place, &crate::database::Database::sqlite(&place, stringify!($name)));
            })+
        }
        mod on_postgres {
            $(#[test]
            fn $name() {
                if let Some(database) = crate::database::Database::postgres(stringify!($name)) {
                    super::$name(&crate::place::Place::new(), &database);
                }
            })+
        }
        mod on_mariadb {
            $(#[test]
            fn $name() {
                if let Some(database) = crate::database::Database::mariadb(stringify!($name)) {
                    super::$name(&crate::place::Place::new(), &database);
                }
            })+
        }
        mod on_mysql {
            $(#[test]
            fn $name() {
                if let Some(database) = crate::database::Database::mysql(stringify!($name)) {
                    super::$name(&crate::place::Place::new(), &database);
                }
            })+
        }
    };
}
pub(crate) use on_each_database;
