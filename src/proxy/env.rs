//! The gateway's settings from the environment: each optimisation by the variable that operators of the source system know, over
//! what the configuration file says.

use crate::proxy::gateway::Config;
use crate::scenario::units::Time;
use crate::scenario::{Pragma, PragmaProfile, PragmaValue};

/// A variable and what it does.
type Variable = (&'static str, fn(&mut Config, &str) -> Result<(), String>);

/// Every variable. Switches that roll others back come after them.
pub const VARIABLES: [Variable; 32] = [
    ("SQLITE_JOURNAL_MODE", |c, v| word(c, Pragma::JournalMode, v, &["DELETE", "TRUNCATE", "PERSIST", "MEMORY", "WAL", "OFF"])),
    ("SQLITE_SYNCHRONOUS", |c, v| word(c, Pragma::Synchronous, v, &["OFF", "NORMAL", "FULL", "EXTRA"])),
    ("SQLITE_CACHE_SIZE", |c, v| number(v, i64::MIN..=i64::MAX).map(|n| pragma(c, Pragma::CacheSize, PragmaValue::Number(n)))),
    ("SQLITE_MMAP_SIZE", |c, v| number(v, 0..=i64::MAX).map(|n| pragma(c, Pragma::MmapSize, PragmaValue::Number(n)))),
    ("SQLITE_TEMP_STORE", |c, v| word(c, Pragma::TempStore, v, &["DEFAULT", "FILE", "MEMORY"])),
    ("SQLITE_BUSY_TIMEOUT", |c, v| number(v, 0..=3_600_000).map(|n| pragma(c, Pragma::BusyTimeout, PragmaValue::Number(n)))),
    ("SQLITE_WAL_AUTO_CHECKPOINT", |c, v| {
        number(v, 0..=i64::from(i32::MAX)).map(|n| pragma(c, Pragma::WalAutocheckpoint, PragmaValue::Number(n)))
    }),
    ("SQLITE_FOREIGN_KEYS", |c, v| flag(v).map(|on| pragma(c, Pragma::ForeignKeys, PragmaValue::Number(i64::from(on))))),
    ("SQLITE_MAX_OPEN_CONNS", |c, v| number(v, 2..=1000).map(|n| c.log.database.max_open = n as u32)),
    ("SQLITE_MAX_IDLE_CONNS", |c, v| number(v, 0..=1000).map(|n| c.log.database.max_idle = n as u32)),
    ("SQLITE_OPTIMIZE_ENABLED", |c, v| flag(v).map(|on| optimize(c, on))),
    ("HTTP_KEEPALIVE", |c, v| seconds(v, 0).map(|time| c.http.client.keep_alive = Some(time))),
    ("HTTP_MAX_IDLE_CONNS", |c, v| number(v, 0..=100_000).map(|n| c.http.client.max_idle = Some(n as usize))),
    ("HTTP_MAX_IDLE_CONNS_PER_HOST", |c, v| number(v, 0..=100_000).map(|n| c.http.client.max_idle_per_host = Some(n as usize))),
    ("HTTP_MAX_CONNS_PER_HOST", |c, v| number(v, 1..=100_000).map(|n| c.http.client.max_per_host = Some(n as usize))),
    ("HTTP_DIAL_TIMEOUT", |c, v| seconds(v, 1).map(|time| c.http.client.connect_timeout = Some(time))),
    ("HTTP_TLS_TIMEOUT", |c, v| seconds(v, 1).map(|time| c.http.client.tls_timeout = Some(time))),
    ("HTTP_RESPONSE_HEADER_TIMEOUT", |c, v| seconds(v, 1).map(|time| c.http.client.response_header_timeout = Some(time))),
    ("HTTP_IDLE_CONN_TIMEOUT", |c, v| seconds(v, 1).map(|time| c.http.client.idle_timeout = Some(time))),
    ("LOG_BATCH_ENABLED", |c, v| flag(v).map(|on| c.log.batch.enabled = on)),
    ("LOG_BATCH_SIZE", |c, v| number(v, 1..=100_000).map(|n| c.log.batch.size = n as usize)),
    ("LOG_BATCH_FLUSH_INTERVAL", |c, v| seconds(v, 1).map(|time| c.log.batch.flush_interval = time)),
    ("LOG_CONSUME_ENABLED", |c, v| flag(v).map(|on| c.log.consume = on)),
    ("LOCAL_CACHE_ENABLED", |c, v| flag(v).map(|on| c.cache.enabled = on)),
    ("LOCAL_CACHE_TTL", |c, v| seconds(v, 1).map(|time| c.cache.ttl = time)),
    ("BATCH_UPDATE_ENABLED", |c, v| flag(v).map(|on| c.quota_updates.batched = on)),
    ("BATCH_UPDATE_INTERVAL", |c, v| seconds(v, 1).map(|time| c.quota_updates.interval = time)),
    ("PPROF_ENABLED", |c, v| flag(v).map(|on| c.pprof.enabled = on)),
    ("PPROF_PORT", |c, v| number(v, 1..=65_535).map(|n| c.pprof.port = n as u16)),
    ("METRICS_ENABLED", |c, v| flag(v).map(|on| c.metrics.enabled = on)),
    ("METRICS_RESET_INTERVAL", |c, v| seconds(v, 0).map(|time| c.metrics.reset_interval = time)),
    ("VM_URL", |c, v| {
        c.metrics.vm_url = Some(v.to_owned());
        Ok(())
    }),
];

/// `config` with what the environment says over it; an empty variable says nothing.
///
/// # Errors
/// Every variable whose value does not fit, with what was found and what is expected.
pub fn apply(mut config: Config, lookup: &dyn Fn(&str) -> Option<String>) -> Result<Config, Vec<String>> {
    let mut problems = Vec::new();
    for (name, set) in VARIABLES {
        let Some(value) = lookup(name).map(|value| value.trim().to_owned()).filter(|value| !value.is_empty()) else { continue };
        if let Err(expected) = set(&mut config, &value) {
            problems.push(format!("environment variable {name}: found {value:?}; write {expected}"));
        }
    }
    if problems.is_empty() { Ok(config) } else { Err(problems) }
}

/// Sets one pragma; on a server there is none to set.
fn pragma(config: &mut Config, pragma: Pragma, value: PragmaValue) {
    if let Some(sqlite) = config.log.database.sqlite_mut() {
        sqlite.pragmas.insert(pragma, value);
    }
}

/// Off is SQLite as it comes, whatever else is set: the whole rollback by one switch.
fn optimize(config: &mut Config, on: bool) {
    let Some(sqlite) = config.log.database.sqlite_mut() else { return };
    if !on {
        sqlite.profile = PragmaProfile::Off;
        sqlite.pragmas.clear();
    } else if sqlite.profile == PragmaProfile::Off {
        sqlite.profile = PragmaProfile::Default;
    }
}

fn word(config: &mut Config, which: Pragma, value: &str, words: &[&str]) -> Result<(), String> {
    let word = value.to_ascii_uppercase();
    if !words.contains(&word.as_str()) {
        return Err(format!("one of {}", words.join(", ")));
    }
    pragma(config, which, PragmaValue::Word(word));
    Ok(())
}

fn flag(value: &str) -> Result<bool, String> {
    match value.to_ascii_lowercase().as_str() {
        "true" | "1" | "yes" | "on" => Ok(true),
        "false" | "0" | "no" | "off" => Ok(false),
        _ => Err("true or false".to_owned()),
    }
}

fn number(value: &str, range: std::ops::RangeInclusive<i64>) -> Result<i64, String> {
    let expected = || format!("a whole number from {} to {}", range.start(), range.end());
    value.parse().ok().filter(|number| range.contains(number)).ok_or_else(expected)
}

fn seconds(value: &str, least: i64) -> Result<Time, String> {
    number(value, least..=86_400).map(|seconds| Time::secs(seconds.unsigned_abs())).map_err(|expected| format!("seconds: {expected}"))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn config() -> Config {
        serde_json::from_value(json!({"channels": [], "users": []})).unwrap()
    }

    fn with(variables: &[(&str, &str)]) -> Result<Config, Vec<String>> {
        apply(config(), &|name| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned()))
    }

    #[test]
    fn each_variable_alone_has_its_effect_and_no_other() {
        let effects = [
            ("SQLITE_JOURNAL_MODE", "truncate", "/log/database/sqlite/pragmas/journal_mode", json!("TRUNCATE")),
            ("SQLITE_SYNCHRONOUS", "FULL", "/log/database/sqlite/pragmas/synchronous", json!("FULL")),
            ("SQLITE_CACHE_SIZE", "-32000", "/log/database/sqlite/pragmas/cache_size", json!(-32000)),
            ("SQLITE_MMAP_SIZE", "0", "/log/database/sqlite/pragmas/mmap_size", json!(0)),
            ("SQLITE_TEMP_STORE", "FILE", "/log/database/sqlite/pragmas/temp_store", json!("FILE")),
            ("SQLITE_BUSY_TIMEOUT", "250", "/log/database/sqlite/pragmas/busy_timeout", json!(250)),
            ("SQLITE_WAL_AUTO_CHECKPOINT", "10", "/log/database/sqlite/pragmas/wal_autocheckpoint", json!(10)),
            ("SQLITE_FOREIGN_KEYS", "true", "/log/database/sqlite/pragmas/foreign_keys", json!(1)),
            ("SQLITE_OPTIMIZE_ENABLED", "false", "/log/database/sqlite/profile", json!("off")),
            ("SQLITE_MAX_OPEN_CONNS", "9", "/log/database/max_open", json!(9)),
            ("SQLITE_MAX_IDLE_CONNS", "7", "/log/database/max_idle", json!(7)),
            ("HTTP_KEEPALIVE", "61", "/http/client/keep_alive", json!("1m 1s")),
            ("HTTP_MAX_IDLE_CONNS", "51", "/http/client/max_idle", json!(51)),
            ("HTTP_MAX_IDLE_CONNS_PER_HOST", "3", "/http/client/max_idle_per_host", json!(3)),
            ("HTTP_MAX_CONNS_PER_HOST", "4", "/http/client/max_per_host", json!(4)),
            ("HTTP_DIAL_TIMEOUT", "5", "/http/client/connect_timeout", json!("5s")),
            ("HTTP_TLS_TIMEOUT", "6", "/http/client/tls_timeout", json!("6s")),
            ("HTTP_RESPONSE_HEADER_TIMEOUT", "7", "/http/client/response_header_timeout", json!("7s")),
            ("HTTP_IDLE_CONN_TIMEOUT", "8", "/http/client/idle_timeout", json!("8s")),
            ("LOG_BATCH_ENABLED", "false", "/log/batch/enabled", json!(false)),
            ("LOG_BATCH_SIZE", "100", "/log/batch/size", json!(100)),
            ("LOG_BATCH_FLUSH_INTERVAL", "2", "/log/batch/flush_interval", json!("2s")),
            ("LOG_CONSUME_ENABLED", "0", "/log/consume", json!(false)),
            ("LOCAL_CACHE_ENABLED", "off", "/cache/enabled", json!(false)),
            ("LOCAL_CACHE_TTL", "120", "/cache/ttl", json!("2m")),
            ("BATCH_UPDATE_ENABLED", "no", "/quota_updates/batched", json!(false)),
            ("BATCH_UPDATE_INTERVAL", "9", "/quota_updates/interval", json!("9s")),
            ("PPROF_ENABLED", "true", "/pprof/enabled", json!(true)),
            ("PPROF_PORT", "6061", "/pprof/port", json!(6061)),
            ("METRICS_ENABLED", "false", "/metrics/enabled", json!(false)),
            ("METRICS_RESET_INTERVAL", "60", "/metrics/reset_interval", json!("1m")),
            ("VM_URL", "http://127.0.0.1:8428", "/metrics/vm_url", json!("http://127.0.0.1:8428")),
        ];
        assert!(VARIABLES.iter().all(|(name, _)| effects.iter().any(|(known, ..)| known == name)));
        assert_eq!(effects.len(), VARIABLES.len());
        for (name, value, pointer, expected) in effects {
            let mut plain = serde_json::to_value(with(&[]).unwrap()).unwrap();
            if name.starts_with("SQLITE_") && !name.contains("MAX") {
                plain["log"]["database"]["sqlite"] = json!({"profile": "default", "pragmas": {}});
            }
            let changed = serde_json::to_value(with(&[(name, value)]).unwrap()).unwrap();
            assert_ne!(plain.pointer(pointer), Some(&expected), "{name} changes nothing");
            assert_eq!(changed.pointer(pointer), Some(&expected), "{name}");
            // With the one value put in by hand both are the same.
            let (parent, key) = pointer.rsplit_once('/').unwrap();
            plain.pointer_mut(parent).and_then(Value::as_object_mut).unwrap().insert(key.to_owned(), expected);
            assert_eq!(plain, changed, "{name}");
        }
    }

    #[test]
    fn every_bad_value_is_told_at_once() {
        let bad = [("SQLITE_JOURNAL_MODE", "WALL"), ("LOG_BATCH_SIZE", "0"), ("LOCAL_CACHE_TTL", "1m"), ("PPROF_ENABLED", "maybe")];
        assert_eq!(
            with(&bad).unwrap_err(),
            [
                "environment variable SQLITE_JOURNAL_MODE: found \"WALL\"; write one of DELETE, TRUNCATE, PERSIST, MEMORY, WAL, OFF",
                "environment variable LOG_BATCH_SIZE: found \"0\"; write a whole number from 1 to 100000",
                "environment variable LOCAL_CACHE_TTL: found \"1m\"; write seconds: a whole number from 1 to 86400",
                "environment variable PPROF_ENABLED: found \"maybe\"; write true or false",
            ]
        );
        assert_eq!(with(&[("LOG_BATCH_SIZE", " ")]).unwrap(), config(), "an empty variable says nothing");
    }

    #[test]
    fn one_switch_rolls_all_of_sqlite_back() {
        let rolled = with(&[("SQLITE_OPTIMIZE_ENABLED", "false"), ("SQLITE_CACHE_SIZE", "-1"), ("SQLITE_JOURNAL_MODE", "WAL")]).unwrap();
        let sqlite = rolled.log.database.sqlite.unwrap();
        assert_eq!((sqlite.profile, sqlite.pragmas.len()), (PragmaProfile::Off, 0));
    }
}
