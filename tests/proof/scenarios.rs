//! Seeded scenarios of many kinds, and what their reports must say.

use serde_json::{Value, json};

use crate::database::{Database, Kind};
use crate::place::Ended;
use crate::random::Random;

/// A small scenario on `database`: columns, contents, conflict strategies, batches and executors as the seed has them. `paced`: its
/// load takes a while, so that something can happen to it.
pub(crate) fn scenario(random: &mut Random, database: &Database, paced: bool) -> Value {
    let size = random.below(20);
    let size = json!({"min": size, "max": size + random.below(40)});
    let content = json!({
        "charset": random.one(&["ascii", "unicode"]), "index_order": random.one(&["ascending", "random"]), "size": size,
        "nulls": *random.one(&[0.0, 0.1, 0.5]), "extremes": *random.one(&[0.0, 0.05, 0.5]),
    });
    let conflict = *random.one(&["error", "error", "ignore", "replace", "update"]);
    let mut insert = json!({
        "rows": random.between(1, 400),
        "columns": columns(random),
        "content": content,
        "conflict": conflict,
        "unique_key": conflict != "error" || random.percent(70),
        "duplicate_keys": if conflict == "error" { 0.0 } else { *random.one(&[0.0, 0.1, 0.4]) },
        "method": method(random, database.kind, conflict),
        "pipeline": pipeline(random),
    });
    let load = if paced {
        insert["rows"] = json!(random.between(300, 900));
        json!({"executor": "constant-arrival-rate", "rate": random.between(1000, 2500), "duration": "400ms", "lag_limit": "10s"})
    } else {
        load(random)
    };
    let mut scenario = database.scenario(insert, load);
    scenario["seed"] = json!(random.below(u64::MAX));
    scenario["verify"] = json!({"readers": random.between(1, 6)});
    scenario["gates"] = json!(["error_rate <= 100%"]);
    scenario
}

fn columns(random: &mut Random) -> Value {
    let nullable = json!({"name": "maybe", "type": "text", "nullable": true});
    let mut columns = vec![json!({"name": "id", "type": "int64", "key": true}), nullable];
    let types = ["int64", "float64", "decimal(12,3)", "bool", "text", "bytes", "timestamp", "uuid"];
    for number in 0..random.between(1, 9) {
        let ty = *random.one(&types);
        columns.push(json!({"name": format!("column {number}"), "type": ty, "nullable": random.percent(40)}));
    }
    // The key may stand anywhere.
    json!(random.shuffled(columns))
}

fn method(random: &mut Random, kind: Kind, conflict: &str) -> &'static str {
    let methods: &[&str] = match kind {
        Kind::Sqlite => &["auto", "prepared", "values"],
        Kind::Mysql => &["auto", "values"],
        Kind::Postgres if conflict == "error" => &["auto", "values", "unnest", "copy"],
        Kind::Postgres => &["auto", "values", "unnest"],
    };
    random.one::<&str>(methods)
}

fn pipeline(random: &mut Random) -> Value {
    let flush_size = random.between(1, 60);
    json!({
        "flush_size": flush_size, "flush_interval": format!("{}ms", random.between(5, 40)),
        "buffer_size": flush_size + random.below(500), "concurrency": random.between(1, 4),
        "retry": {"attempts": random.between(1, 5), "base": "5ms", "max": "40ms"}
    })
}

fn load(random: &mut Random) -> Value {
    match random.below(10) {
        0 => json!({"executor": "constant-vus", "vus": random.between(1, 4), "duration": "80ms"}),
        1 => json!({"executor": "constant-arrival-rate", "rate": 3000, "duration": "80ms", "arrivals": "poisson", "lag_limit": "10s"}),
        _ => json!({"executor": "shared-iterations", "vus": random.between(1, 5)}),
    }
}

/// What one run was judged.
#[derive(Debug)]
pub(crate) struct Judged {
    /// Whether nothing was found wrong, and as much proven as could be.
    pub(crate) right: bool,
    /// Whether something went wrong on the way.
    pub(crate) faulted: bool,
    pub(crate) report: String,
}

/// Reads the verdict of a run in which nothing was lost.
pub(crate) fn judged(ended: &Ended) -> Judged {
    let report: Value = serde_json::from_str(&ended.stdout).unwrap_or_else(|error| panic!("{error}: {}{}", ended.stdout, ended.stderr));
    let integrity = &report["integrity"];
    let classes = ["lost", "duplicated", "corrupted", "phantom", "resurrected", "stale", "partial_batches"];
    let nothing_wrong = classes.iter().all(|class| integrity[class] == 0);
    let nothing_acknowledged = report["outcomes"]["acknowledged"] == 0;
    let verdict = if nothing_acknowledged { "inconclusive" } else { "holds" };
    Judged {
        right: nothing_wrong && integrity["verdict"] == verdict && ended.code() != Some(4),
        faulted: report["errors"].as_object().is_some_and(|errors| !errors.is_empty()),
        report: json!({
            "integrity": integrity, "outcomes": report["outcomes"], "errors": report["errors"], "scenario": report["scenario"]
        })
        .to_string(),
    }
}

/// Does `run` for each number below `count`, a few at a time, and returns what they came to.
pub(crate) fn several(count: u64, at_once: u64, run: impl Fn(u64) -> Judged + Sync) -> Vec<Judged> {
    std::thread::scope(|scope| {
        let run = &run;
        let workers: Vec<_> = (0..at_once)
            .map(|worker| scope.spawn(move || (worker..count).step_by(at_once as usize).map(run).collect::<Vec<_>>()))
            .collect();
        workers.into_iter().flat_map(|worker| worker.join().unwrap()).collect()
    })
}
