//! Locks, deadlocks, killed sessions, timeouts: what a failure says, and that a connection in doubt is never used again.

use std::collections::BTreeSet;
use std::time::Duration;

use batchsql::scenario::{self, units::Time};
use batchsql::table::{Row, Table};
use batchsql::target::{Applied, Conflict, ErrorClass, Method};

use crate::on_each_server;
use crate::server::{ALL, Found, Kind, Server, User, auto, pair, plan, send, stored, text, times, write};

on_each_server!(
    a_deadlock_is_told_and_rolled_back,
    a_lock_timeout_rolls_the_whole_batch_back,
    a_session_killed_in_mid_statement_is_in_doubt,
    a_statement_that_takes_too_long_is_in_doubt,
    a_write_that_is_abandoned_does_not_soil_the_pool,
    quiesce_waits_for_sessions_and_names_those_left,
    a_full_pool_is_told_as_a_timeout,
);

/// A user in an open transaction that holds key 2: whoever inserts it waits.
async fn holder_of_two(server: &Server) -> User {
    let mut user = server.user().await;
    user.execute("BEGIN").await;
    // Many changes: where a deadlock is broken by size, the other side gives way.
    let name = server.quoted(&server.table);
    for id in 100..200 {
        user.execute(&format!("INSERT INTO {name} VALUES ({id}, 'theirs')")).await;
    }
    user.execute(&format!("INSERT INTO {name} VALUES (2, 'theirs')")).await;
    user
}

async fn a_deadlock_is_told_and_rolled_back(server: Server) {
    let target = server.connect().await;
    let table = server.small_table();
    target.create(&table, "run").await.unwrap();
    let plan = auto(&*target, &table, Conflict::Error);
    let mut holder = holder_of_two(&server).await;
    if server.kind == Kind::Postgres {
        // Who looks first gives way.
        holder.execute("SET LOCAL deadlock_timeout = '1min'").await;
    }
    let mut watcher = server.user().await;
    let mut session = target.acquire().await.unwrap();
    let id = session.id();
    let writing = tokio::spawn(async move { (send(&mut session, &plan, &[pair(1, "ours"), pair(2, "ours")]).await, session.id()) });
    watcher.wait_until_blocked(id).await;
    holder.execute(&format!("INSERT INTO {} VALUES (1, 'theirs')", server.quoted(&server.table))).await;
    let (outcome, _) = writing.await.unwrap();
    let failure = outcome.unwrap_err();
    assert_eq!((failure.class, failure.applied), (ErrorClass::Deadlock, Applied::No), "{failure}");
    holder.execute("ROLLBACK").await;
    assert!(stored(&*target, &table, ALL).await.is_empty());
}

async fn a_lock_timeout_rolls_the_whole_batch_back(server: Server) {
    let target = server.connect().await;
    let table = server.small_table();
    target.create(&table, "run").await.unwrap();
    let name = server.quoted(&server.table);
    let mut user = server.user().await;
    // The server's own answer to a lock not had in time, at the last row of the third statement.
    match server.kind {
        Kind::Postgres => {
            user.execute(
                "CREATE OR REPLACE FUNCTION lock_timeout_at_70000() RETURNS trigger LANGUAGE plpgsql AS \
                 $$ BEGIN IF NEW.id = 70000 THEN RAISE EXCEPTION 'lock' USING ERRCODE = '55P03'; END IF; RETURN NEW; END $$",
            )
            .await;
            user.execute(&format!(
                "CREATE TRIGGER lock_timeout BEFORE INSERT ON {name} FOR EACH ROW EXECUTE FUNCTION lock_timeout_at_70000()"
            ))
            .await;
        }
        Kind::Mysql => {
            user.execute(&format!(
                "CREATE TRIGGER lock_timeout BEFORE INSERT ON {name} FOR EACH ROW \
                 IF NEW.id = 70000 THEN SIGNAL SQLSTATE 'HY000' SET MYSQL_ERRNO = 1205, MESSAGE_TEXT = 'lock'; END IF"
            ))
            .await;
        }
    }
    let rows: Vec<Row> = (0..=70_000).map(|id| pair(id, "x")).collect();
    let mut session = target.acquire().await.unwrap();
    let failure = send(&mut session, &plan(&table, Conflict::Error, Method::Values), &rows).await.unwrap_err();
    assert_eq!((failure.class, failure.applied), (ErrorClass::LockTimeout, Applied::No), "{failure}");
    assert!(stored(&*target, &table, ALL).await.is_empty());
    // The same session goes on.
    send(&mut session, &auto(&*target, &table, Conflict::Error), &[pair(1, "y")]).await.unwrap();
    assert_eq!(stored(&*target, &table, ALL).await, [[Found::Int(1), text("y")]]);
}

async fn a_session_killed_in_mid_statement_is_in_doubt(server: Server) {
    let target = server.connect_with(&scenario::Pool::default(), 1).await;
    let table = server.small_table();
    target.create(&table, "run").await.unwrap();
    let plan = auto(&*target, &table, Conflict::Error);
    let mut holder = holder_of_two(&server).await;
    let mut user = server.user().await;
    let mut session = target.acquire().await.unwrap();
    let killed = session.id();
    let again = plan.clone();
    let writing = tokio::spawn(async move { send(&mut session, &plan, &[pair(1, "ours"), pair(2, "ours")]).await });
    user.wait_until_blocked(killed).await;
    user.end_session(killed).await;
    let failure = writing.await.unwrap().unwrap_err();
    // MySQL may still say that the statement was interrupted, which is an answer: not applied.
    match failure.class {
        ErrorClass::Connection => assert_eq!(failure.applied, Applied::Unknown, "{failure}"),
        class => assert_eq!((class, failure.applied), (ErrorClass::Cancelled, Applied::No), "{failure}"),
    }
    holder.execute("ROLLBACK").await;
    // The only place of the pool holds another connection now, which works.
    let mut session = loop {
        let mut session = target.acquire().await.unwrap();
        if session.id() != killed {
            break session;
        }
        let failure = send(&mut session, &again, &[pair(9, "x")]).await.unwrap_err();
        assert_eq!(failure.class, ErrorClass::Connection, "{failure}");
    };
    send(&mut session, &again, &[pair(3, "ours")]).await.unwrap();
    assert_eq!(stored(&*target, &table, ALL).await, [[Found::Int(3), text("ours")]]);
}

async fn a_statement_that_takes_too_long_is_in_doubt(server: Server) {
    let target = server.connect_with(&times(Duration::from_millis(300)), 1).await;
    let table = server.small_table();
    target.create(&table, "run").await.unwrap();
    let plan = auto(&*target, &table, Conflict::Error);
    let mut holder = holder_of_two(&server).await;
    let mut session = target.acquire().await.unwrap();
    let slow = session.id();
    let failure = send(&mut session, &plan, &[pair(2, "ours")]).await.unwrap_err();
    assert_eq!((failure.class, failure.applied), (ErrorClass::Timeout, Applied::Unknown), "{failure}");
    assert!(failure.message.contains("target.pool.statement_timeout"), "{failure}");
    drop(session);
    let mut session = target.acquire().await.unwrap();
    assert_ne!(session.id(), slow);
    send(&mut session, &plan, &[pair(3, "ours")]).await.unwrap();
    // The server still tries: once the lock is free the row may be there after all, and waiting shows it.
    holder.execute("ROLLBACK").await;
    drop(session);
    assert_eq!(target.quiesce(&BTreeSet::from([slow]), Duration::from_secs(20)).await.unwrap(), BTreeSet::new());
    let found = stored(&*target, &table, ALL).await;
    assert_eq!(found.last().unwrap(), &[Found::Int(3), text("ours")]);
}

async fn a_write_that_is_abandoned_does_not_soil_the_pool(server: Server) {
    let target = server.connect_with(&scenario::Pool::default(), 1).await;
    let table = server.small_table();
    target.create(&table, "run").await.unwrap();
    let plan = auto(&*target, &table, Conflict::Error);
    let mut holder = holder_of_two(&server).await;
    let mut session = target.acquire().await.unwrap();
    assert_eq!((target.pool().active, target.pool().max), (1, 1));
    let abandoned = session.id();
    let blocked = plan.clone();
    let writing = tokio::spawn(async move { send(&mut session, &blocked, &[pair(2, "ours")]).await });
    server.user().await.wait_until_blocked(abandoned).await;
    writing.abort();
    assert!(writing.await.unwrap_err().is_cancelled());
    assert_eq!(target.pool().active, 0);
    let mut session = target.acquire().await.unwrap();
    assert_ne!(session.id(), abandoned);
    send(&mut session, &plan, &[pair(3, "ours")]).await.unwrap();
    // A connection in good order is used again.
    let kept = session.id();
    drop(session);
    assert_eq!(target.acquire().await.unwrap().id(), kept);
    holder.execute("ROLLBACK").await;
}

async fn quiesce_waits_for_sessions_and_names_those_left(server: Server) {
    let target = server.connect().await;
    let table: Table = server.small_table();
    target.create(&table, "run").await.unwrap();
    let plan = auto(&*target, &table, Conflict::Error);
    let mut holder = holder_of_two(&server).await;
    let mut session = target.acquire().await.unwrap();
    let id = session.id();
    let blocked = plan.clone();
    let writing = tokio::spawn(async move { send(&mut session, &blocked, &[pair(2, "ours")]).await });
    server.user().await.wait_until_blocked(id).await;
    let sessions = BTreeSet::from([id]);
    assert_eq!(target.quiesce(&sessions, Duration::from_millis(200)).await.unwrap(), sessions);
    let (left, _) = tokio::join!(target.quiesce(&sessions, Duration::from_secs(20)), async {
        holder.execute("ROLLBACK").await;
        // The session's own end: its batch is written, and the pool, closed, does not keep it.
        writing.await.unwrap().unwrap();
    });
    assert_eq!(left.unwrap(), BTreeSet::new());
    assert_eq!(stored(&*target, &table, ALL).await, [[Found::Int(2), text("ours")]]);
    assert_eq!(target.owner(&table.name).await.unwrap().as_deref(), Some("run"));
}

async fn a_full_pool_is_told_as_a_timeout(server: Server) {
    let times = scenario::Pool { acquire_timeout: Time::millis(50), ..scenario::Pool::default() };
    let target = server.connect_with(&times, 1).await;
    let held = target.acquire().await.unwrap();
    let failure = target.acquire().await.err().unwrap();
    assert_eq!((failure.class, failure.applied), (ErrorClass::Timeout, Applied::No));
    assert!(failure.message.contains("target.pool.acquire_timeout"), "{failure}");
    drop(held);
    let table = server.small_table();
    target.create(&table, "run").await.unwrap();
    write(&*target, &auto(&*target, &table, Conflict::Error), &[pair(1, "a")]).await.unwrap();
}
