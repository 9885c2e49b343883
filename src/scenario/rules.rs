//! What no type can refuse: settings that exclude each other, names that cannot be quoted, loads that offer nothing.
//! Each with the path it is about and the mend. Strict on purpose: a setting without effect is refused, not ignored.

use std::collections::BTreeSet;
use std::time::Duration;

use super::database_url::{method_fits, name_of, server_problem, word};
use super::units::Time;
use super::{
    Arrivals, BatchInsert, Charset, ColumnConfig, Executor, Load, Pragma, PragmaValue, Saturation, Scenario, SizeRange, SqliteConfig,
};
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

/// Everything that is impossible in `scenario`, as (path, message); an empty path is the scenario as a whole.
#[must_use]
pub fn check(scenario: &Scenario) -> Vec<(String, String)> {
    let mut rules = Rules::default();
    let database = scenario.target.database();
    rules.names(scenario);
    rules.target(scenario);
    rules.columns(&scenario.workload.batch_insert, database);
    rules.writing(&scenario.workload.batch_insert, database);
    rules.pipeline(&scenario.workload.batch_insert);
    rules.load(&scenario.load, scenario.workload.batch_insert.rows);
    let flush_size = scenario.workload.batch_insert.pipeline.flush_size as u64;
    rules.when(scenario.load.max_in_flight.is_some_and(|m| m < flush_size), "load.max_in_flight", || {
        format!("is below pipeline.flush_size ({flush_size}), so that no batch could ever fill; raise it")
    });
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
            "names files too: 1 to 100 characters, no slash, backslash or control character, no dot at its beginning".to_owned()
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
        let kinds = [("sqlite", target.sqlite.is_some()), ("postgres", target.postgres.is_some()), ("mysql", target.mysql.is_some())];
        let set: Vec<&str> = kinds.into_iter().filter(|(_, set)| *set).map(|(kind, _)| kind).collect();
        self.when(set.is_empty(), "target", || "has no database; add one of sqlite: {}, postgres: {url: …} or mysql: {url: …}".to_owned());
        self.when(set.len() > 1, "target", || format!("has {}; keep one of them", set.join(" and ")));
        for (database, server) in [(Database::Postgres, &target.postgres), (Database::Mysql, &target.mysql)] {
            let problem = server.as_ref().and_then(|server| server_problem(database, &server.url, &target.allow_hosts));
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

    fn load(&mut self, load: &Load, rows: Option<u64>) {
        self.settings_of_executor(load, rows);
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
    fn settings_of_executor(&mut self, load: &Load, rows: Option<u64>) {
        use Executor::{ConstantArrivalRate, ConstantVus, RampingArrivalRate, RampingVus, SharedIterations};
        let open = load.executor.is_open();
        let fixed = matches!(load.executor, SharedIterations | ConstantVus);
        let table: [(&str, bool, &[Executor], bool); 8] = [
            ("load.duration", load.duration.is_some(), &[ConstantVus, ConstantArrivalRate], true),
            ("load.rate", load.rate.is_some(), &[ConstantArrivalRate], load.executor != RampingArrivalRate),
            ("load.stages", !load.stages.is_empty(), &[RampingVus, RampingArrivalRate], true),
            ("workload.batch_insert.rows", rows.is_some(), &[SharedIterations], false),
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
