//! What only MySQL and MariaDB do: warnings instead of errors, dates that are none.

use batchsql::table::{Column, ColumnType, Row, Table, Value};
use batchsql::target::{Applied, Conflict, ErrorClass};

use crate::server::{ALL, Found, Server, auto, column, pair, stored, text, write};

macro_rules! on_mysql_and_mariadb {
    ($($name:ident),+ $(,)?) => {
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

on_mysql_and_mariadb!(
    truncation_is_a_warning_among_any_number_of_duplicates,
    the_servers_mode_stands,
    zero_dates_are_shown_as_text,
    a_user_of_one_database_is_enough
);

async fn a_user_of_one_database_is_enough(server: Server) {
    let mut url = url::Url::parse(&server.url).unwrap();
    let mut admin = server.user().await;
    admin.execute("CREATE USER IF NOT EXISTS 'ordinary'@'%' IDENTIFIED BY 'ordinary-password'").await;
    admin.execute(&format!("GRANT ALL ON {}.* TO 'ordinary'@'%'", &url.path()[1..])).await;
    url.set_username("ordinary").unwrap();
    url.set_password(Some("ordinary-password")).unwrap();
    let ordinary = Server { url: url.to_string(), ..server };
    let target = ordinary.connect().await;
    let table = ordinary.small_table();
    target.create(&table, "run").await.unwrap();
    write(&*target, &auto(&*target, &table, Conflict::Error), &[pair(1, "x")]).await.unwrap();
    assert_eq!(stored(&*target, &table, ALL).await, [[Found::Int(1), text("x")]]);
}

async fn truncation_is_a_warning_among_any_number_of_duplicates(server: Server) {
    let target = server.connect().await;
    let table = server.small_table();
    target.create(&table, "run").await.unwrap();
    server.user().await.execute(&format!("ALTER TABLE {} MODIFY v VARCHAR(5)", server.quoted(&server.table))).await;
    let failure = write(&*target, &auto(&*target, &table, Conflict::Error), &[pair(1, "toolong")]).await.unwrap_err();
    assert_eq!((failure.class, failure.applied), (ErrorClass::Data, Applied::No), "{failure}");
    let ignore = auto(&*target, &table, Conflict::Ignore);
    let mut rows: Vec<Row> = (0..500).map(|id| pair(id, "x")).collect();
    assert_eq!(write(&*target, &ignore, &rows).await.unwrap().warnings, 0);
    assert_eq!(write(&*target, &ignore, &rows).await.unwrap().warnings, 0, "500 duplicates, as asked for");
    rows.push(pair(500, "toolong"));
    assert_eq!(write(&*target, &ignore, &rows).await.unwrap().warnings, 1);
    assert_eq!(stored(&*target, &table, ALL).await[500], [Found::Int(500), text("toolo")]);
}

async fn the_servers_mode_stands(server: Server) {
    let target = server.connect().await;
    let mode = target.info().settings.iter().find(|(name, _)| name == "sql_mode").map(|(_, value)| value.clone()).unwrap();
    let same = server.user().await.number(&format!("SELECT @@global.sql_mode = '{mode}'")).await;
    assert_eq!(same, 1, "{mode}");
}

async fn zero_dates_are_shown_as_text(server: Server) {
    let target = server.connect().await;
    let at = Column { nullable: true, ..column("at", ColumnType::Timestamp, true, 0) };
    let table = Table { columns: vec![column("id", ColumnType::Int64, false, 0), at], ..server.small_table() };
    target.create(&table, "run").await.unwrap();
    write(
        &*target,
        &auto(&*target, &table, Conflict::Error),
        &[vec![Value::Int(1), Value::Timestamp(7)], vec![Value::Int(2), Value::Null]],
    )
    .await
    .unwrap();
    let mut user = server.user().await;
    user.execute("SET SESSION sql_mode = ''").await;
    user.execute(&format!("UPDATE {} SET at = '0000-00-00' WHERE id = 1", server.quoted(&server.table))).await;
    let found = stored(&*target, &table, ALL).await;
    assert_eq!(found, [[Found::Int(1), text("0000-00-00 00:00:00.000000")], [Found::Int(2), Found::Null]]);
}
