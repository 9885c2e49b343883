//! What only Postgres does.

use batchsql::target::{Conflict, ErrorClass, Method};

use crate::server::{ALL, Found, Server, pair, plan, stored, text, write};

#[tokio::test]
async fn a_trigger_that_drops_rows_is_not_hidden() {
    let Some(server) = Server::postgres("a_trigger_that_drops_rows_is_not_hidden") else { return };
    let target = server.connect().await;
    let table = server.small_table();
    for method in server.methods(Conflict::Error) {
        target.create(&table, "run").await.unwrap();
        let mut user = server.user().await;
        user.execute("CREATE OR REPLACE FUNCTION drop_two() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN IF NEW.id = 2 THEN RETURN NULL; END IF; RETURN NEW; END $$").await;
        user.execute(&format!(
            "CREATE TRIGGER drop_two BEFORE INSERT ON {} FOR EACH ROW EXECUTE FUNCTION drop_two()",
            server.quoted(&server.table)
        ))
        .await;
        write(&*target, &plan(&table, Conflict::Error, method), &[pair(1, "a"), pair(2, "b")]).await.unwrap();
        assert_eq!(stored(&*target, &table, ALL).await, [[Found::Int(1), text("a")]], "{method:?}");
    }
}

#[tokio::test]
async fn values_that_do_not_fit_are_errors_of_the_data() {
    let Some(server) = Server::postgres("values_that_do_not_fit_are_errors_of_the_data") else { return };
    let target = server.connect().await;
    let table = server.small_table();
    target.create(&table, "run").await.unwrap();
    server.user().await.execute(&format!("ALTER TABLE {} ALTER v TYPE varchar(3)", server.quoted(&server.table))).await;
    for method in server.methods(Conflict::Error) {
        let failure = write(&*target, &plan(&table, Conflict::Error, method), &[pair(1, "long")]).await.unwrap_err();
        assert_eq!(failure.class, ErrorClass::Data, "{method:?}: {failure}");
    }
}

#[tokio::test]
async fn copy_is_for_large_batches_without_a_conflict_strategy() {
    let Some(server) = Server::postgres("copy_is_for_large_batches_without_a_conflict_strategy") else { return };
    let target = server.connect().await;
    let table = server.small_table();
    let refused = target.resolve(plan(&table, Conflict::Ignore, Method::Copy), 200).unwrap_err();
    assert!(refused.to_string().contains("method: unnest"), "{refused}");
    let resolved = |conflict, flush_size| target.resolve(plan(&table, conflict, Method::Auto), flush_size).unwrap().method;
    assert_eq!(resolved(Conflict::Error, 4_999), Method::Unnest);
    assert_eq!(resolved(Conflict::Error, 5_000), Method::Copy);
    assert_eq!(resolved(Conflict::Ignore, 5_000), Method::Unnest);
}
