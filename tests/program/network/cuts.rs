//! Connections cut at each place of a batch, on each database, with and without retries.

use serde_json::{Value, json};

use super::{ended, harm, number, once, outcomes, scenario, servers};
use crate::database::{Database, Kind};
use crate::place::{Place, assert_anomalies};

/// Two cuts at this place.
fn cut(when: &str) -> Value {
    json!({"kind": "cut", "when": when, "most": 2})
}

#[test]
fn what_was_cut_after_its_commit_is_unknown_and_found_stored() {
    for db in servers("cut_after_commit") {
        let methods: &[&str] = if db.kind == Kind::Postgres { &["values", "unnest", "copy"] } else { &["values"] };
        for method in methods {
            let insert = json!({"method": method, "pipeline": once()});
            let (report, fault) = ended(&Place::new(), &scenario(&db, insert, cut("after_commit")), 0, &[]);
            assert_eq!((number(&fault["struck"]), outcomes(&report), harm(&fault)), (2, [600, 0, 200], [0, 200, 0, 0]), "{method}");
            let integrity = &report["integrity"];
            assert_eq!(
                (&integrity["recovered"], &integrity["checked"], &integrity["must_be_there"]),
                (&json!(200), &json!(800), &json!(600))
            );
            assert_eq!(db.number("SELECT count(*) FROM {table}"), 800);
            assert!(fault["recovery_seconds"].as_f64().is_some(), "{fault}");
        }
    }
}

#[test]
fn a_transaction_of_several_statements_is_cut_at_its_commit() {
    for db in servers("cut_transaction") {
        let mut columns = vec![json!({"name": "id", "type": "int64", "key": true})];
        columns.extend((1..100).map(|number| json!({"name": format!("c{number}"), "type": "int64"})));
        // 65,535 values make 655 rows of a statement: a batch of 700 is two.
        let insert = json!({"method": "values", "columns": columns, "pipeline": once()});
        let mut scenario = scenario(&db, insert, cut("after_commit"));
        let insert = &mut scenario["workload"]["batch_insert"];
        (insert["rows"], insert["pipeline"]["flush_size"], insert["pipeline"]["concurrency"]) = (json!(3500), json!(700), json!(1));
        (scenario["load"]["rate"], scenario["load"]["duration"]) = (json!(1000), json!("3500ms"));
        (scenario["target"]["pool"]["statement_timeout"], scenario["faults"][0]["for"]) = (json!("30s"), json!("3s"));
        let (report, fault) = ended(&Place::new(), &scenario, 0, &[]);
        assert_eq!((number(&fault["struck"]), outcomes(&report), harm(&fault)), (2, [2100, 0, 1400], [0, 1400, 0, 0]));
        assert_eq!(db.number("SELECT count(*) FROM {table}"), 3500);
    }
}

#[test]
fn a_retry_meets_its_own_rows_and_stays_unknown_or_replaces_them() {
    for db in servers("cut_and_retry") {
        let (report, fault) = ended(&Place::new(), &scenario(&db, json!({}), cut("after_commit")), 0, &[]);
        assert_eq!((outcomes(&report), harm(&fault), &fault["retries"]), ([600, 0, 200], [0, 200, 0, 0], &json!(2)), "its own key");
        for conflict in ["ignore", "replace", "update"] {
            let (report, fault) = ended(&Place::new(), &scenario(&db, json!({"conflict": conflict}), cut("after_commit")), 0, &[]);
            assert_eq!((outcomes(&report), harm(&fault), &fault["retries"]), ([800, 0, 0], [0; 4], &json!(2)), "{conflict}");
            assert_eq!((&report["integrity"]["recovered"], number(&fault["struck"])), (&json!(0), 2));
        }
    }
}

#[test]
fn without_a_key_a_retry_would_store_twice_and_is_found_where_it_is_asked_for() {
    for db in servers("cut_without_key") {
        let keyless = json!({"unique_key": false});
        let (report, fault) = ended(&Place::new(), &scenario(&db, keyless, cut("after_commit")), 0, &[]);
        assert_eq!((outcomes(&report), harm(&fault), &fault["retries"]), ([600, 0, 200], [0, 200, 0, 0], &json!(0)));
        let dangerous = json!({"unique_key": false, "pipeline": {"retry": {"unsafe": true}}});
        let report = Place::new().run(&scenario(&db, dangerous, cut("after_commit")), &[]).json(4);
        let (fault, duplicated) = (&report["faults"][0], number(&report["integrity"]["duplicated"]));
        // The second cut may strike another batch, or the first one's retry, which is stored three times then.
        assert!(duplicated == 200 || duplicated == 100, "{duplicated}");
        assert_anomalies(&report["integrity"], &[("duplicated", duplicated)]);
        assert_eq!((outcomes(&report), harm(fault), &fault["retries"]), ([800, 0, 0], [0, 0, 0, duplicated], &json!(2)));
        assert_eq!(report["integrity"]["surplus_copies"], 200);
        assert_eq!(db.number("SELECT count(*) FROM {table}"), 1000);
    }
}

#[test]
fn what_was_cut_before_its_end_is_not_stored() {
    for db in servers("cut_before") {
        for when in ["before_request", "within_request"] {
            let insert = json!({"pipeline": once()});
            let (report, fault) = ended(&Place::new(), &scenario(&db, insert, cut(when)), 0, &[]);
            assert_eq!((number(&fault["struck"]), outcomes(&report), harm(&fault)), (2, [600, 0, 200], [0, 0, 200, 0]), "{when}");
            assert_eq!(db.number("SELECT count(*) FROM {table}"), 600);
            let (report, fault) = ended(&Place::new(), &scenario(&db, json!({}), cut(when)), 0, &[]);
            assert_eq!((outcomes(&report), harm(&fault), &fault["retries"]), ([800, 0, 0], [0; 4], &json!(2)), "{when}");
        }
    }
}

#[test]
fn what_was_cut_within_its_answer_is_stored() {
    for db in servers("cut_answer") {
        let insert = json!({"pipeline": once()});
        let (report, fault) = ended(&Place::new(), &scenario(&db, insert, cut("within_answer")), 0, &[]);
        assert_eq!((number(&fault["struck"]), outcomes(&report), harm(&fault)), (2, [600, 0, 200], [0, 200, 0, 0]));
    }
}

#[test]
fn what_was_cut_elsewhere_is_stored_or_not_and_never_in_part() {
    for db in servers("cut_elsewhere") {
        for fault in [cut("after_request"), json!({"kind": "cut", "when": "at_byte", "bytes": 9000, "most": 2})] {
            let (report, fault) = ended(&Place::new(), &scenario(&db, json!({"pipeline": once()}), fault), 0, &[]);
            let ([acknowledged, rejected, unknown], [lost, stored, absent, _]) = (outcomes(&report), harm(&fault));
            assert!((1..=2).contains(&number(&fault["struck"])) && unknown > 0, "{fault}");
            assert_eq!((stored + absent, lost, stored % 100), (unknown, 0, 0));
            assert_eq!(report["integrity"]["recovered"], stored);
            assert_eq!((db.number("SELECT count(*) FROM {table}") as u64, rejected % 100), (acknowledged + stored, 0));
        }
    }
}

#[test]
fn the_share_of_cuts_comes_from_the_seed() {
    let Some(db) = Database::postgres("cut_share") else { return };
    let fault = json!({"kind": "cut", "when": "after_commit", "share": 0.5});
    let mut one_at_a_time = scenario(&db, json!({"pipeline": {"retry": {"attempts": 1}}}), fault);
    one_at_a_time["workload"]["batch_insert"]["pipeline"]["concurrency"] = json!(1);
    one_at_a_time["faults"][0]["for"] = json!("10s");
    let (report, fault) = ended(&Place::new(), &one_at_a_time, 0, &[]);
    let struck = number(&fault["struck"]);
    assert!((1..8).contains(&struck), "a half of eight: {struck}");
    assert_eq!((outcomes(&report)[2], harm(&fault)), (struck * 100, [0, struck * 100, 0, 0]));
}

#[test]
fn within_tls_requests_cannot_be_cut_and_that_is_said() {
    for db in servers("cut_tls") {
        let tls = if db.kind == Kind::Postgres { "sslmode=require" } else { "ssl-mode=REQUIRED" };
        let mut scenario = scenario(&db, json!({}), cut("after_commit"));
        let kind = if db.kind == Kind::Postgres { "postgres" } else { "mysql" };
        scenario["target"][kind]["url"] = json!(format!("{}?{tls}", db.url));
        let place = Place::new();
        let ended = place.run(&scenario, &[]);
        ended.refused(&["faults.0", "within TLS", "within_request", "without TLS"]);
        assert!(place.run_folders().is_empty());
    }
}
