//! What no type can refuse: settings that exclude each other, names that cannot be quoted, loads that offer nothing.
//! Each with the path it is about and the mend. Strict on purpose: a setting without effect is refused, not ignored.

mod guard;
mod proxy;

use std::collections::BTreeSet;
use std::time::Duration;

use super::container;
use super::database_url::{method_fits, name_of, server_problem, word};
use super::fault;
use super::units::Time;
use super::{
    Arrivals, BatchInsert, Charset, ColumnConfig, Executor, Load, Pragma, PragmaValue, Saturation, Scenario, SizeRange, SqliteConfig,
    TargetConfig, Workload,
};
use crate::gate::Metric;
use crate::table::{ColumnType, SURROGATE_KEY};
use crate::target::{Conflict, Database, Method};

/// The table that says whose a table is.
pub const OWNER_TABLE: &str = "batchsql_owner";
/// Longest phase or stage.
const MAX_LOAD: Duration = Duration::from_secs(30 * 86_400);
/// Longest wait for anything.
const MAX_WAIT: Duration = Duration::from_secs(86_400);
/// Most bytes that the pipeline's queue may come to hold.
const MAX_QUEUE_BYTES: u64 = 1 << 30;
/// InnoDB keys have at most 3072 bytes: 768 characters of utf8mb4.
const MYSQL_INDEX_BYTES: u64 = 3072;
/// A Postgres B-tree entry has at most 2704 bytes, header included.
const POSTGRES_INDEX_BYTES: u64 = 2680;

/// The kinds of database that are set.
fn kinds(target: &TargetConfig) -> Vec<&'static str> {
    let kinds = [("sqlite", target.sqlite.is_some()), ("postgres", target.postgres.is_some()), ("mysql", target.mysql.is_some())];
    kinds.into_iter().filter(|(_, set)| *set).map(|(kind, _)| kind).collect()
}

/// Everything that is impossible in `scenario`, as (path, message); an empty path is the scenario as a whole.
#[must_use]
pub fn check(scenario: &Scenario) -> Vec<(String, String)> {
    let mut rules = Rules::default();
    rules.names(scenario);
    match &scenario.workload {
        Workload::BatchInsert(insert) => {
            rules.target(scenario);
            let database = scenario.target.database();
            rules.columns(insert, database);
            rules.writing(insert, database);
            rules.pipeline(insert);
            rules.load(&scenario.load, "workload.batch_insert.rows", insert.rows);
            let flush_size = insert.pipeline.flush_size as u64;
            rules.when(scenario.load.max_in_flight.is_some_and(|m| m < flush_size), "load.max_in_flight", || {
                format!("is below pipeline.flush_size ({flush_size}), so that no batch could ever fill; raise it")
            });
        }
        Workload::ProxyRequest(proxy) => {
            rules.http_target(scenario);
            rules.proxy(proxy);
            rules.log(scenario);
            rules.load(&scenario.load, "workload.proxy_request.requests", proxy.requests);
        }
    }
    rules.gates(scenario);
    if let Some(guard) = &scenario.guard {
        rules.guard(guard);
    }
    rules.found.extend(container::problems(scenario));
    rules.found.extend(fault::problems(scenario));
    rules.found
}

#[derive(Default)]
struct Rules {
    found: Vec<(String, String)>,
}

impl Rules {
    fn when(&mut self, wrong: bool, path: &str, message: impl FnOnce() -> String) {
        if wrong {
            self.found.push((path.to_owned(), message()));
        }
    }

    fn names(&mut self, scenario: &Scenario) {
        let name = &scenario.name;
        // It names files.
        let unfit = |c: char| matches!(c, '/' | '\\') || c.is_control();
        self.when(name.trim().is_empty() || name.chars().count() > 100 || name.starts_with('.') || name.contains(unfit), "name", || {
            format!("{name:?} cannot name files too; write 1 to 100 characters without slash, backslash or control character, no dot first")
        });
        let prefix = &scenario.metrics.prefix;
        let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let is_prefix = prefix.chars().all(word) && !prefix.starts_with(|c: char| c.is_ascii_digit()) && prefix.len() <= 64;
        self.when(!is_prefix, "metrics.prefix", || {
            format!("{prefix:?} cannot begin a metric's name; use letters, digits and `_`, e.g. staging_")
        });
        let env = &scenario.metrics.env;
        self.when(env.len() > 100 || env.contains(char::is_control), "metrics.env", || {
            "at most 100 bytes without control characters".to_owned()
        });
        self.wait("verify.quiesce_timeout", scenario.verify.quiesce_timeout);
    }

    fn target(&mut self, scenario: &Scenario) {
        let target = &scenario.target;
        let set = kinds(target);
        self.when(target.http.is_some(), "target.http", || "is for workload.proxy_request; remove it".to_owned());
        for (path, given) in [
            ("reconcile", scenario.reconcile.is_some()),
            ("verify.upstream_ledger", scenario.verify.upstream_ledger.is_some()),
            ("verify.allow_lost", scenario.verify.allow_lost.is_some()),
        ] {
            self.when(given, path, || "is for workload.proxy_request; remove it".to_owned());
        }
        self.when(set.is_empty(), "target", || "has no database; add one of sqlite: {}, postgres: {url: …} or mysql: {url: …}".to_owned());
        self.when(set.len() > 1, "target", || format!("has {}; keep one of them", set.join(" and ")));
        for (database, server) in [(Database::Postgres, &target.postgres), (Database::Mysql, &target.mysql)] {
            let server = server.as_ref().filter(|server| target.container.is_none() || !server.url.is_empty());
            let problem = server.and_then(|server| server_problem(database, &server.url, &target.allow_hosts));
            self.found.extend(problem.map(|problem| (format!("target.{}.url", database.as_str()), problem)));
        }
        if let Some(sqlite) = &target.sqlite {
            self.sqlite(sqlite);
        }
        let pool = &target.pool;
        self.wait("target.pool.connect_timeout", pool.connect_timeout);
        self.wait("target.pool.acquire_timeout", pool.acquire_timeout);
        self.wait("target.pool.statement_timeout", pool.statement_timeout);
    }

    fn sqlite(&mut self, sqlite: &SqliteConfig) {
        if let Some(path) = &sqlite.path {
            self.when(path.trim().is_empty() || path.contains('\0'), "target.sqlite.path", || {
                "is no path; name a file, or remove the key".to_owned()
            });
            self.when(path.contains(":memory:"), "target.sqlite.path", || {
                "is in memory, where every connection has a database of its own; name a file".to_owned()
            });
        }
        for (pragma, value) in &sqlite.pragmas {
            if let Some(expected) = pragma_problem(*pragma, value) {
                self.found.push((format!("target.sqlite.pragmas.{}", word(pragma)), format!("is {}; write {expected}", written(value))));
            }
        }
    }

    /// Gates on what the workload does not have.
    fn gates(&mut self, scenario: &Scenario) {
        let requests = scenario.workload.batch_insert().is_none();
        for (index, gate) in scenario.gates.iter().enumerate() {
            let path = format!("gates.{index}");
            self.when(gate.relative, &path, || {
                format!("`{}` needs another side; give it to batchsql compare as --gate, or write a limit here", gate.text)
            });
            match gate.metric {
                Metric::RowsPerSecond if requests => {
                    self.when(true, &path, || "rows_per_second is of batch inserts; write requests_per_second".to_owned());
                }
                Metric::RequestsPerSecond if !requests => {
                    self.when(true, &path, || "requests_per_second is of requests; write rows_per_second".to_owned());
                }
                Metric::Latency(clock, _) if clock.is_of_requests() && !requests => {
                    self.when(true, &path, || format!("{} is of requests; write response or service", gate.metric));
                }
                _ => {}
            }
        }
    }

    fn columns(&mut self, insert: &BatchInsert, database: Option<Database>) {
        const AT: &str = "workload.batch_insert";
        if let Some(problem) = identifier_problem(&insert.table, database) {
            self.found.push((format!("{AT}.table"), problem));
        }
        let table = insert.table.to_lowercase();
        self.when(table == OWNER_TABLE || table.starts_with("sqlite_"), &format!("{AT}.table"), || {
            "is a reserved name; choose another".to_owned()
        });
        let keys = insert.columns.iter().filter(|c| c.key).count();
        self.when(keys != 1, &format!("{AT}.columns"), || format!("has {keys} keys; mark exactly one int64 column with key: true"));
        let mut names = BTreeSet::new();
        for (index, column) in insert.columns.iter().enumerate() {
            let at = format!("{AT}.columns.{index}");
            if let Some(problem) = identifier_problem(&column.name, database) {
                self.found.push((format!("{at}.name"), problem));
            }
            // SQLite and MySQL do not tell `Id` from `id`.
            let name = column.name.to_lowercase();
            self.when(name == SURROGATE_KEY, &format!("{at}.name"), || "is a reserved name; choose another".to_owned());
            self.when(!names.insert(name), &format!("{at}.name"), || {
                format!("`{}` is there already (case does not count); choose another", column.name)
            });
            self.when(column.key && column.ty.0 != ColumnType::Int64, &format!("{at}.type"), || "is the key's; write int64".to_owned());
            self.when(column.key && column.nullable, &format!("{at}.nullable"), || "a key cannot be null; remove it".to_owned());
            self.column_size(insert, column, &at, database);
        }
        self.size(&format!("{AT}.content.size"), insert.content.size);
        let nullable = insert.columns.iter().any(|c| c.nullable);
        self.when(insert.content.nulls.0 > 0.0 && !nullable, &format!("{AT}.content.nulls"), || {
            "no column is nullable; add nullable: true to one, or remove this".to_owned()
        });
    }

    fn column_size(&mut self, insert: &BatchInsert, column: &ColumnConfig, at: &str, database: Option<Database>) {
        let sized = matches!(column.ty.0, ColumnType::Text | ColumnType::Bytes);
        self.when(column.size.is_some() && !sized, &format!("{at}.size"), || "only text and bytes have a size; remove it".to_owned());
        if let Some(size) = column.size {
            self.size(&format!("{at}.size"), size);
        }
        if !sized || !column.index {
            return;
        }
        let longest = u64::from(column.size.unwrap_or(insert.content.size).max);
        // MySQL reserves for the widest character, Postgres stores what is there.
        let width = match (column.ty.0, database, insert.content.charset) {
            (ColumnType::Bytes, ..) | (_, Some(Database::Postgres), Charset::Ascii) => 1,
            _ => 4,
        };
        let limit = match database {
            Some(Database::Mysql) => MYSQL_INDEX_BYTES,
            Some(Database::Postgres) => POSTGRES_INDEX_BYTES,
            _ => return,
        };
        self.when(longest * width > limit, &format!("{at}.index"), || {
            let name = database.map_or("", name_of);
            format!(
                "values of up to {longest} are too long for an index of {name} (at most {}); lower size.max or remove the index",
                limit / width
            )
        });
    }

    fn size(&mut self, path: &str, size: SizeRange) {
        self.when(size.min > size.max, path, || format!("min {} is above max {}; exchange them", size.min, size.max));
    }

    fn writing(&mut self, insert: &BatchInsert, database: Option<Database>) {
        const AT: &str = "workload.batch_insert";
        self.when(insert.duplicate_keys.0 > 0.0 && !insert.unique_key, &format!("{AT}.duplicate_keys"), || {
            "needs a unique key to clash with; remove unique_key: false, or this".to_owned()
        });
        self.when(insert.conflict != Conflict::Error && !insert.unique_key, &format!("{AT}.conflict"), || {
            format!("`{}` never happens without a unique key; remove unique_key: false, or write conflict: error", word(&insert.conflict))
        });
        self.when(insert.method == Method::Copy && insert.conflict != Conflict::Error, &format!("{AT}.method"), || {
            format!("`copy` knows only conflict: error, not `{}`; write method: auto", word(&insert.conflict))
        });
        let fits = database.is_none_or(|database| method_fits(insert.method, database));
        self.when(!fits, &format!("{AT}.method"), || {
            format!("`{}` is not for {}; write method: auto", word(&insert.method), database.map_or("", name_of))
        });
    }

    fn pipeline(&mut self, insert: &BatchInsert) {
        const AT: &str = "workload.batch_insert.pipeline";
        let pipeline = &insert.pipeline;
        self.when(pipeline.flush_size > pipeline.buffer_size, &format!("{AT}.flush_size"), || {
            format!(
                "{} rows never fit into a buffer_size of {}; raise buffer_size or lower flush_size",
                pipeline.flush_size, pipeline.buffer_size
            )
        });
        let row = insert.mean_row_bytes().ceil() as u64;
        self.when(row.saturating_mul(pipeline.buffer_size as u64) > MAX_QUEUE_BYTES, &format!("{AT}.buffer_size"), || {
            format!("{} rows of about {row} bytes are more than 1 GiB of memory; lower it", pipeline.buffer_size)
        });
        self.wait(&format!("{AT}.flush_interval"), pipeline.flush_interval);
        let retry = &pipeline.retry;
        self.wait(&format!("{AT}.retry.max"), retry.max);
        self.when(retry.base > retry.max, &format!("{AT}.retry.base"), || {
            format!("{} is above retry.max ({}); lower it", word(&retry.base), word(&retry.max))
        });
    }

    /// A wait of nothing or of days is a slip.
    fn wait(&mut self, path: &str, time: Time) {
        self.when(time.0 < Duration::from_millis(1) || time.0 > MAX_WAIT, path, || format!("is {}; write 1ms to 1day", word(&time)));
    }

    fn load(&mut self, load: &Load, cap_path: &str, cap: Option<u64>) {
        self.settings_of_executor(load, cap_path, cap);
        if let Some(duration) = load.duration {
            self.span("load.duration", duration);
        }
        for (index, stage) in load.stages.iter().enumerate() {
            self.span(&format!("load.stages.{index}.duration"), stage.duration);
            let broken = load.executor == Executor::RampingVus && (stage.target.fract() != 0.0 || stage.target > 100_000.0);
            self.when(broken, &format!("load.stages.{index}.target"), || {
                format!("{} is no number of workers; write 0 to 100000", stage.target)
            });
        }
        let nothing = !load.stages.is_empty() && load.stages.iter().all(|s| s.target <= 0.0) && load.rate.is_none();
        self.when(nothing, "load.stages", || "every target is 0, which offers nothing; raise one".to_owned());
        let silent = load.executor == Executor::RampingArrivalRate && load.rate.is_none() && !load.warmup.0.is_zero();
        self.when(silent, "load.warmup", || {
            "the ramp starts from 0, so that a warm-up offers nothing; add load.rate, or remove it".to_owned()
        });
        self.when(load.warmup.0 > MAX_LOAD, "load.warmup", || format!("is {}; write at most 30days", word(&load.warmup)));
        self.when(load.think_time.0 > MAX_WAIT, "load.think_time", || format!("is {}; write at most 1day", word(&load.think_time)));
        self.wait("load.lag_limit", load.lag_limit);
    }

    fn span(&mut self, path: &str, time: Time) {
        self.when(time.0 < Duration::from_millis(1) || time.0 > MAX_LOAD, path, || format!("is {}; write 1ms to 30days", word(&time)));
    }

    /// Which settings each executor needs and which it has no use for.
    fn settings_of_executor(&mut self, load: &Load, cap_path: &str, cap: Option<u64>) {
        use Executor::{ConstantArrivalRate, ConstantVus, RampingArrivalRate, RampingVus, SharedIterations};
        let open = load.executor.is_open();
        let fixed = matches!(load.executor, SharedIterations | ConstantVus);
        let table: [(&str, bool, &[Executor], bool); 8] = [
            ("load.duration", load.duration.is_some(), &[ConstantVus, ConstantArrivalRate], true),
            ("load.rate", load.rate.is_some(), &[ConstantArrivalRate], load.executor != RampingArrivalRate),
            ("load.stages", !load.stages.is_empty(), &[RampingVus, RampingArrivalRate], true),
            (cap_path, cap.is_some(), &[SharedIterations], false),
            ("load.vus", load.vus.is_some(), &[], !fixed),
            ("load.think_time", load.think_time != Time::default(), &[], open),
            ("load.arrivals", load.arrivals != Arrivals::default(), &[], !open),
            ("load.saturation", load.saturation != Saturation::default(), &[], !open),
        ];
        for (path, given, needed_by, useless) in table {
            let needed = needed_by.contains(&load.executor);
            let key = path.rsplit('.').next().unwrap_or(path);
            self.when(needed && !given, path, || format!("is missing; {} needs {key}", word(&load.executor)));
            self.when(given && useless && !needed, path, || format!("{} has no use for {key}; remove it", word(&load.executor)));
        }
    }
}

/// Says what is wrong with a name, if anything. Quoting carries every character but these.
fn identifier_problem(name: &str, database: Option<Database>) -> Option<String> {
    let problem = if name.is_empty() {
        "is empty"
    } else if name.len() > 63 {
        "is longer than 63 bytes"
    } else if name.contains(char::is_control) {
        "has a control character"
    } else if name.trim() != name {
        "begins or ends with a blank"
    } else if database == Some(Database::Mysql) && name.chars().any(|c| c > '\u{ffff}') {
        "has a character beyond U+FFFF, which MySQL has not in names"
    } else {
        return None;
    };
    Some(format!("{name:?} {problem}; choose another name"))
}

fn written(value: &PragmaValue) -> String {
    match value {
        PragmaValue::Number(number) => number.to_string(),
        PragmaValue::Word(word) => format!("{word:?}"),
    }
}

/// What a pragma takes, if `value` is not that.
fn pragma_problem(pragma: Pragma, value: &PragmaValue) -> Option<&'static str> {
    let is_word = |words: &[&str]| matches!(value, PragmaValue::Word(word) if words.iter().any(|w| w.eq_ignore_ascii_case(word)));
    let within = |from: i64, to: i64| matches!(value, PragmaValue::Number(number) if (from..=to).contains(number));
    let (fits, expected) = match pragma {
        Pragma::JournalMode => {
            (is_word(&["delete", "truncate", "persist", "memory", "wal", "off"]), "DELETE, TRUNCATE, PERSIST, MEMORY, WAL or OFF")
        }
        Pragma::Synchronous => (is_word(&["off", "normal", "full", "extra"]) || within(0, 3), "OFF, NORMAL, FULL or EXTRA"),
        Pragma::TempStore => (is_word(&["default", "file", "memory"]) || within(0, 2), "DEFAULT, FILE or MEMORY"),
        Pragma::ForeignKeys => (is_word(&["on", "off"]) || within(0, 1), "ON or OFF"),
        Pragma::CacheSize => (within(-0x7fff_ffff, 0x7fff_ffff), "pages, or KiB as a negative number"),
        Pragma::MmapSize => (within(0, 1 << 46), "bytes, 0 or more"),
        Pragma::BusyTimeout => (within(0, 3_600_000), "milliseconds, 0 to 3600000"),
        Pragma::WalAutocheckpoint => (within(0, 0x7fff_ffff), "pages, 0 or more"),
        Pragma::MaxPageCount => (within(1, 0xffff_fffe), "pages, 1 or more"),
        Pragma::PageSize => (
            matches!(value, PragmaValue::Number(n) if (512..=65_536).contains(n) && n.count_ones() == 1),
            "a power of two from 512 to 65536",
        ),
    };
    (!fits).then_some(expected)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    /// What the rules say of quickstart's like with `changes` (pointer, value) made.
    fn told(changes: &[(&str, Value)]) -> Vec<(String, String)> {
        let mut scenario = json!({
            "name": "t", "target": {"sqlite": {}}, "workload": {"batch_insert": {"rows": 10, "pipeline": {}, "content": {}}},
            "load": {"executor": "shared-iterations"}, "metrics": {}, "verify": {}
        });
        for (pointer, value) in changes {
            let (parent, key) = pointer.rsplit_once('/').unwrap();
            scenario.pointer_mut(parent).unwrap()[key] = value.clone();
        }
        check(&serde_json::from_value(scenario).unwrap())
    }

    fn one(changes: &[(&str, Value)]) -> String {
        let told = told(changes);
        assert_eq!(told.len(), 1, "{told:?}");
        format!("{}: {}", told[0].0, told[0].1)
    }

    const INSERT: &str = "/workload/batch_insert";

    #[test]
    fn a_sound_scenario_passes() {
        assert_eq!(told(&[]), []);
    }

    #[test]
    fn a_target_is_exactly_one_database() {
        assert_eq!(one(&[("/target", json!({}))]), "target: has no database; add one of sqlite: {}, postgres: {url: …} or mysql: {url: …}");
        let both = json!({"sqlite": {}, "mysql": {"url": "mysql://u@localhost/x"}});
        assert_eq!(one(&[("/target", both)]), "target: has sqlite and mysql; keep one of them");
        assert!(
            one(&[("/target", json!({"postgres": {"url": "postgres://u@db.lan/x"}}))])
                .starts_with("target.postgres.url: host `db.lan` is beyond")
        );
        assert!(one(&[("/target", json!({"sqlite": {"path": ":memory:"}}))]).starts_with("target.sqlite.path: is in memory"));
        let pool = json!({"sqlite": {}, "pool": {"acquire_timeout": "0s"}});
        assert_eq!(one(&[("/target", pool)]), "target.pool.acquire_timeout: is 0s; write 1ms to 1day");
    }

    #[test]
    fn pragmas_take_what_sqlite_takes() {
        let pragma = |name: &str, value: Value| told(&[("/target", json!({"sqlite": {"pragmas": {name: value}}}))]);
        for (name, value) in
            [("journal_mode", json!("wal")), ("synchronous", json!(1)), ("page_size", json!(4096)), ("foreign_keys", json!("ON"))]
        {
            assert_eq!(pragma(name, value), [], "{name}");
        }
        assert_eq!(
            pragma("journal_mode", json!("fast")),
            [(
                "target.sqlite.pragmas.journal_mode".to_owned(),
                "is \"fast\"; write DELETE, TRUNCATE, PERSIST, MEMORY, WAL or OFF".to_owned()
            )]
        );
        for (name, value) in
            [("page_size", json!(5000)), ("busy_timeout", json!(-1)), ("max_page_count", json!(0)), ("temp_store", json!("disk"))]
        {
            assert_eq!(pragma(name, value).len(), 1, "{name}");
        }
    }

    #[test]
    fn each_executor_has_its_own_settings() {
        let load = |load: Value, rows: Value| {
            let changes = [("/load", load), ("/workload/batch_insert/rows", rows)];
            told(&changes).into_iter().map(|(path, message)| format!("{path}: {message}")).collect::<Vec<_>>()
        };
        let none = Vec::<String>::new();
        let stages = json!([{"duration": "1s", "target": 5}]);
        assert_eq!(load(json!({"executor": "constant-vus", "vus": 3, "duration": "1s", "think_time": "1ms"}), Value::Null), none);
        assert_eq!(load(json!({"executor": "ramping-vus", "stages": stages}), json!(5)), none);
        assert_eq!(
            load(json!({"executor": "constant-arrival-rate", "rate": 5, "duration": "1s", "saturation": "drop"}), Value::Null),
            none
        );
        assert_eq!(
            load(json!({"executor": "ramping-arrival-rate", "rate": 5, "stages": stages, "arrivals": "poisson"}), Value::Null),
            none
        );
        assert_eq!(
            load(
                json!({"executor": "shared-iterations", "duration": "1s", "rate": 5, "stages": stages, "arrivals": "poisson"}),
                Value::Null
            ),
            [
                "load.duration: shared-iterations has no use for duration; remove it",
                "load.rate: shared-iterations has no use for rate; remove it",
                "load.stages: shared-iterations has no use for stages; remove it",
                "workload.batch_insert.rows: is missing; shared-iterations needs rows",
                "load.arrivals: shared-iterations has no use for arrivals; remove it",
            ]
        );
        assert_eq!(
            load(json!({"executor": "ramping-arrival-rate", "vus": 2, "think_time": "1s", "duration": "1s"}), Value::Null),
            [
                "load.duration: ramping-arrival-rate has no use for duration; remove it",
                "load.stages: is missing; ramping-arrival-rate needs stages",
                "load.vus: ramping-arrival-rate has no use for vus; remove it",
                "load.think_time: ramping-arrival-rate has no use for think_time; remove it",
            ]
        );
        assert_eq!(
            load(json!({"executor": "ramping-vus", "vus": 1, "stages": [{"duration": "0s", "target": 1.5}]}), Value::Null),
            [
                "load.vus: ramping-vus has no use for vus; remove it",
                "load.stages.0.duration: is 0s; write 1ms to 30days",
                "load.stages.0.target: 1.5 is no number of workers; write 0 to 100000",
            ]
        );
        assert_eq!(
            load(json!({"executor": "ramping-arrival-rate", "warmup": "1s", "stages": [{"duration": "1s", "target": 0}]}), Value::Null),
            [
                "load.stages: every target is 0, which offers nothing; raise one",
                "load.warmup: the ramp starts from 0, so that a warm-up offers nothing; add load.rate, or remove it",
            ]
        );
    }

    #[test]
    fn a_table_has_one_key_and_names_that_can_be_quoted() {
        let columns = |columns: Value| one(&[("/workload/batch_insert/columns", columns)]);
        let key = json!({"name": "id", "type": "int64", "key": true});
        assert!(columns(json!([{"name": "a", "type": "text"}])).starts_with("workload.batch_insert.columns: has 0 keys; mark exactly one"));
        assert!(columns(json!([key, {"name": "b", "type": "int64", "key": true}])).contains("has 2 keys"));
        assert!(
            columns(json!([{"name": "a", "type": "text", "key": true}])).starts_with("workload.batch_insert.columns.0.type: is the key's")
        );
        assert!(columns(json!([{"name": "a", "type": "int64", "key": true, "nullable": true}])).contains("cannot be null"));
        assert!(
            columns(json!([key, {"name": "ID", "type": "text"}]))
                .starts_with("workload.batch_insert.columns.1.name: `ID` is there already")
        );
        assert!(columns(json!([key, {"name": "batchsql_row", "type": "text"}])).contains("is a reserved name"));
        assert!(
            columns(json!([key, {"name": "n", "type": "bool", "size": {"min": 1, "max": 2}}])).contains("only text and bytes have a size")
        );
        assert!(columns(json!([key, {"name": "n", "type": "text", "size": {"min": 3, "max": 2}}])).contains("min 3 is above max 2"));
        for (name, why) in [
            ("", "is empty"),
            ("a\0b", "has a control character"),
            (" a", "begins or ends with a blank"),
            (&"x".repeat(64), "is longer than 63"),
        ] {
            let table = one(&[("/workload/batch_insert/table", json!(name))]);
            assert!(table.starts_with("workload.batch_insert.table: ") && table.contains(why), "{table}");
        }
        assert_eq!(told(&[("/workload/batch_insert/table", json!("we\"ird `t'able"))]), []);
        assert!(one(&[("/workload/batch_insert/table", json!("BatchSQL_owner"))]).contains("is a reserved name"));
        assert!(one(&[("/workload/batch_insert/content", json!({"nulls": 0.5}))]).contains("no column is nullable"));
    }

    #[test]
    fn indexed_values_fit_into_an_index() {
        let with = |target: Value, charset: &str, ty: &str, max: u32| {
            let columns = json!([{"name": "id", "type": "int64", "key": true}, {"name": "t", "type": ty, "index": true, "size": {"min": 0, "max": max}}]);
            let content = json!({"charset": charset});
            told(&[("/target", target), ("/workload/batch_insert/columns", columns), ("/workload/batch_insert/content", content)]).len()
        };
        let mysql = || json!({"mysql": {"url": "mysql://u@localhost/x"}});
        let postgres = || json!({"postgres": {"url": "postgres://u@localhost/x"}});
        assert_eq!((with(mysql(), "ascii", "text", 768), with(mysql(), "ascii", "text", 769)), (0, 1));
        assert_eq!((with(mysql(), "ascii", "bytes", 3072), with(mysql(), "ascii", "bytes", 3073)), (0, 1));
        assert_eq!((with(postgres(), "ascii", "text", 2680), with(postgres(), "ascii", "text", 2681)), (0, 1));
        assert_eq!((with(postgres(), "unicode", "text", 670), with(postgres(), "unicode", "text", 671)), (0, 1));
        assert_eq!(with(json!({"sqlite": {}}), "unicode", "text", 5_000), 0);
    }

    #[test]
    fn writing_needs_a_method_and_a_conflict_that_go_together() {
        let insert = |key: &str, value: Value| (format!("{INSERT}/{key}"), value);
        let with = |changes: &[(String, Value)]| one(&changes.iter().map(|(p, v)| (p.as_str(), v.clone())).collect::<Vec<_>>());
        let not_unique = insert("unique_key", json!(false));
        assert!(
            with(&[not_unique.clone(), insert("duplicate_keys", json!(0.1))])
                .starts_with("workload.batch_insert.duplicate_keys: needs a unique key")
        );
        assert!(
            with(&[not_unique, insert("conflict", json!("ignore"))]).starts_with("workload.batch_insert.conflict: `ignore` never happens")
        );
        assert_eq!(
            with(&[insert("method", json!("unnest"))]),
            "workload.batch_insert.method: `unnest` is not for SQLite; write method: auto"
        );
        let postgres = ("/target".to_owned(), json!({"postgres": {"url": "postgres://u@localhost/x"}}));
        let copy = [postgres.clone(), insert("method", json!("copy")), insert("conflict", json!("update"))];
        assert_eq!(with(&copy), "workload.batch_insert.method: `copy` knows only conflict: error, not `update`; write method: auto");
        assert!(with(&[postgres, insert("method", json!("prepared"))]).contains("`prepared` is not for Postgres"));
    }

    #[test]
    fn a_batch_can_fill_and_the_queue_has_a_bound() {
        let pipeline = |value: Value| one(&[("/workload/batch_insert/pipeline", value)]);
        assert!(
            pipeline(json!({"flush_size": 6000}))
                .starts_with("workload.batch_insert.pipeline.flush_size: 6000 rows never fit into a buffer_size of 5000")
        );
        assert!(
            one(&[("/workload/batch_insert/content/size", json!({"min": 1_000_000, "max": 1_000_000}))])
                .contains("more than 1 GiB of memory")
        );
        assert_eq!(
            pipeline(json!({"retry": {"base": "3s"}})),
            "workload.batch_insert.pipeline.retry.base: 3s is above retry.max (2s); lower it"
        );
        assert_eq!(
            one(&[("/load/max_in_flight", json!(100))]),
            "load.max_in_flight: is below pipeline.flush_size (200), so that no batch could ever fill; raise it"
        );
    }

    #[test]
    fn names_reach_files_and_metrics_safely() {
        for name in ["", "a/b", "..", "a\\b", "a\nb"] {
            assert!(one(&[("/name", json!(name))]).starts_with("name: "), "{name:?}");
        }
        assert_eq!(told(&[("/name", json!("批量 1"))]), []);
        assert!(one(&[("/metrics/prefix", json!("9-x"))]).starts_with("metrics.prefix: \"9-x\" cannot begin"));
    }
}
