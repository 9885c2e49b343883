//! What a scenario will do, from the scenario alone: nothing is connected to.

mod proxy;

use std::fmt::Write as _;
use std::time::Duration;

use super::container::Container;
use super::database_url::{name_of, word};
use super::fault::Fault;
use super::guard::{Action, Guard};
use super::{BatchInsert, Charset, ColumnConfig, Executor, Load, Scenario, VerifyMethod, Workload};
use crate::gate::{Gate, Metric};
use crate::redact::redact_url;
use crate::table::{Column, ColumnType, Table};

impl Executor {
    /// Whether operations start by the clock (arrival rates) and not when a worker is free.
    #[must_use]
    pub fn is_open(self) -> bool {
        matches!(self, Executor::ConstantArrivalRate | Executor::RampingArrivalRate)
    }
}

impl Load {
    /// Length of phase `main`, if the load itself says it.
    #[must_use]
    pub fn main_length(&self) -> Option<Duration> {
        match self.executor {
            Executor::SharedIterations => None,
            Executor::ConstantVus | Executor::ConstantArrivalRate => self.duration.map(|d| d.0),
            Executor::RampingVus | Executor::RampingArrivalRate => Some(self.stages.iter().map(|s| s.duration.0).sum()),
        }
    }

    /// Operations of warm-up and main, if the load itself says it (arrival rates).
    fn operations(&self) -> Option<f64> {
        if !self.executor.is_open() {
            return None;
        }
        let first = self.rate.unwrap_or(0.0);
        let warmup = first * self.warmup.0.as_secs_f64();
        let main = if self.executor == Executor::ConstantArrivalRate {
            first * self.duration.unwrap_or_default().0.as_secs_f64()
        } else {
            let steps = std::iter::once(first).chain(self.stages.iter().map(|s| s.target));
            steps.zip(&self.stages).map(|(from, stage)| (from + stage.target) / 2.0 * stage.duration.0.as_secs_f64()).sum()
        };
        Some(warmup + main)
    }
}

impl BatchInsert {
    /// The table to create and fill. The longest value of a text or byte column is its `size.max`, or `content.size.max`.
    #[must_use]
    pub fn table(&self) -> Table {
        let column = |config: &ColumnConfig| Column {
            name: config.name.clone(),
            ty: config.ty.0,
            nullable: config.nullable,
            index: config.index,
            max_len: if is_sized(config.ty.0) { config.size.unwrap_or(self.content.size).max } else { 0 },
        };
        Table {
            name: self.table.clone(),
            columns: self.columns.iter().map(column).collect(),
            // The rules let exactly one key pass.
            key: self.columns.iter().position(|c| c.key).unwrap_or(0),
            unique_key: self.unique_key,
        }
    }

    /// Bytes of values in a row, on average; extremes are taken for rare.
    #[must_use]
    pub fn mean_row_bytes(&self) -> f64 {
        // Characters of `unicode` have 1 to 4 bytes.
        let character = if self.content.charset == Charset::Unicode { 2.5 } else { 1.0 };
        let bytes = |column: &ColumnConfig| {
            let size = column.size.unwrap_or(self.content.size);
            let length = (f64::from(size.min) + f64::from(size.max)) / 2.0;
            let full = match column.ty.0 {
                ColumnType::Text => length * character,
                ColumnType::Bytes => length,
                ColumnType::Bool => 1.0,
                ColumnType::Uuid => 16.0,
                ColumnType::Int64 | ColumnType::Float64 | ColumnType::Decimal { .. } | ColumnType::Timestamp => 8.0,
            };
            if column.nullable { full * (1.0 - self.content.nulls.0) } else { full }
        };
        self.columns.iter().map(bytes).sum()
    }
}

fn is_sized(ty: ColumnType) -> bool {
    matches!(ty, ColumnType::Text | ColumnType::Bytes)
}

/// What `check` prints. `ddl` is what would create the table.
#[must_use]
pub fn plan(scenario: &Scenario, ddl: &[String]) -> String {
    let mut out = String::new();
    let mut line = |key: &str, text: String| {
        // Writing into a String cannot fail.
        let _ = writeln!(out, "{key:<13}{text}");
    };
    line("Scenario", format!("{} (seed {})", scenario.name, scenario.seed));
    line("Target", target(scenario));
    let load = load(&scenario.load, scenario.workload.unit());
    match &scenario.workload {
        Workload::BatchInsert(insert) => {
            let keys = if insert.unique_key { "" } else { ", key not unique" };
            line("Table", format!("{}, {} columns{keys}", insert.table, insert.columns.len()));
            for config in &insert.columns {
                line("", column(insert, config));
            }
            line("Rows", rows(scenario, insert));
            line("Load", load);
            line("Duration", duration(&scenario.load));
            line("Data", data(scenario, insert));
            line("Pipeline", pipeline(insert));
            line("Verify", verify(scenario));
        }
        Workload::ProxyRequest(proxy) => {
            line("Requests", operations(scenario));
            for mix in proxy::mix(proxy) {
                line("", mix);
            }
            line("Load", load);
            line("Duration", duration(&scenario.load));
            line("Client", proxy::client(scenario));
            for (index, check) in proxy::verify(scenario, proxy).into_iter().enumerate() {
                line(if index == 0 { "Verify" } else { "" }, check);
            }
        }
    }
    for (index, fault) in scenario.faults.iter().enumerate() {
        line(if index == 0 { "Faults" } else { "" }, self::fault(fault));
    }
    for (index, gate) in gates(scenario).into_iter().enumerate() {
        line(if index == 0 { "Gates" } else { "" }, gate);
    }
    if let Some(guard) = &scenario.guard {
        line("Guard", guarded(guard));
    }
    out.push_str(&stages(&scenario.load, scenario.workload.unit()));
    if !ddl.is_empty() {
        let _ = write!(out, "\nThe table would be created by:\n  {}\n", ddl.join(";\n").replace('\n', "\n  ") + ";");
    }
    out
}

fn target(scenario: &Scenario) -> String {
    let target = &scenario.target;
    let server = target.postgres.as_ref().or(target.mysql.as_ref()).map(|server| redact_url(&server.url));
    let started = target.container.as_ref().map(container);
    let file = target.sqlite.as_ref().map(|sqlite| {
        let path = sqlite.path.clone().unwrap_or_else(|| format!("<report-dir>/data/{}.db", scenario.name));
        let pragmas = if sqlite.pragmas.is_empty() { String::new() } else { format!(" and {} pragmas of its own", sqlite.pragmas.len()) };
        format!("{path}, profile {}{pragmas}", word(&sqlite.profile))
    });
    if let Some(http) = &target.http {
        return proxy::service(http, started);
    }
    format!("{}: {}", target.database().map_or("none", name_of), started.or(server).or(file).unwrap_or_default())
}

/// What would be started.
fn container(container: &Container) -> String {
    let mut text = format!("a container of {}, started for the run", container.image);
    let limits = [
        ("arguments", container.args.join(" ")),
        ("environment", container.env.keys().cloned().collect::<Vec<_>>().join(", ")),
        ("in memory", container.tmpfs.join(", ")),
        ("memory", container.memory.as_ref().map(word).unwrap_or_default()),
        ("cores", container.cpus.map(grouped).unwrap_or_default()),
        ("port", container.host_port.map(|port| port.to_string()).unwrap_or_default()),
    ];
    for (what, value) in limits.into_iter().filter(|(_, value)| !value.is_empty()) {
        let _ = write!(text, "; {what}: {value}");
    }
    text
}

fn column(insert: &BatchInsert, config: &ColumnConfig) -> String {
    let size = config.size.unwrap_or(insert.content.size);
    let unit = if config.ty.0 == ColumnType::Text { "characters" } else { "bytes" };
    let mut text = format!("{} {}", config.name, word(&config.ty));
    if is_sized(config.ty.0) {
        let _ = write!(text, ", {} to {} {unit}", size.min, size.max);
    }
    for (said, what) in [(config.key, ", key"), (config.nullable, ", nullable"), (config.index, ", index")] {
        text.push_str(if said { what } else { "" });
    }
    text
}

fn rows(scenario: &Scenario, insert: &BatchInsert) -> String {
    let mut text = operations(scenario);
    if insert.duplicate_keys.0 > 0.0 {
        let _ = write!(text, "; {} % of them on a key used before, conflict: {}", insert.duplicate_keys.0 * 100.0, word(&insert.conflict));
    }
    text
}

/// How many operations there will be, in words.
fn operations(scenario: &Scenario) -> String {
    let (cap, due) = (scenario.workload.operations(), scenario.load.operations());
    match (expected(scenario), cap, due) {
        (Some(rows), Some(cap), Some(due)) if due > cap as f64 => {
            format!("{} (the cap; the load alone would be {})", grouped(rows), grouped(due))
        }
        (Some(rows), ..) => format!("{}{}", grouped(rows), if scenario.load.warmup.0.is_zero() { "" } else { ", warm-up included" }),
        (None, Some(cap), _) => format!("as many as the target takes in the time, at most {}", grouped(cap as f64)),
        (None, ..) => "as many as the target takes in the time".to_owned(),
    }
}

/// Operations in all, where the scenario alone says it.
fn expected(scenario: &Scenario) -> Option<f64> {
    let cap = scenario.workload.operations().map(|rows| rows as f64);
    match (scenario.load.executor, scenario.load.operations()) {
        (Executor::SharedIterations, _) => cap,
        (_, Some(due)) => Some(cap.map_or(due, |cap| due.min(cap))),
        _ => None,
    }
}

fn load(load: &Load, unit: &str) -> String {
    let workers = if load.vus.unwrap_or(1) == 1 { "1 worker".to_owned() } else { format!("{} workers", load.vus.unwrap_or(1)) };
    let what = match load.executor {
        Executor::SharedIterations | Executor::ConstantVus => format!("{workers}, as fast as the target allows"),
        Executor::RampingVus => format!("workers by {} stages", load.stages.len()),
        Executor::ConstantArrivalRate => format!("{} {unit}/s, {} arrivals", grouped(load.rate.unwrap_or(0.0)), word(&load.arrivals)),
        Executor::RampingArrivalRate => {
            format!(
                "from {} {unit}/s by {} stages, {} arrivals",
                grouped(load.rate.unwrap_or(0.0)),
                load.stages.len(),
                word(&load.arrivals)
            )
        }
    };
    let mut text = format!("{}: {what}", word(&load.executor));
    if !load.think_time.0.is_zero() {
        let _ = write!(text, ", {} think time", word(&load.think_time));
    }
    if let Some(most) = load.max_in_flight {
        let _ = write!(text, ", at most {} in flight", grouped(most as f64));
    }
    if load.executor.is_open() {
        let _ = write!(text, "; saturation: {}", word(&load.saturation));
    }
    text
}

fn duration(load: &Load) -> String {
    let main =
        load.main_length().map_or("main as long as the target takes".to_owned(), |d| format!("main {}", humantime::format_duration(d)));
    let warmup = if load.warmup.0.is_zero() { String::new() } else { format!("warm-up {}, ", word(&load.warmup)) };
    format!("{warmup}{main}, then drain and verify")
}

fn data(scenario: &Scenario, insert: &BatchInsert) -> String {
    let row = insert.mean_row_bytes();
    let batch = insert.pipeline.flush_size as f64;
    let known = expected(scenario);
    let all = known.map_or(String::new(), |rows| {
        format!(", {} in all, {} batches if all are full", bytes(rows * row), grouped((rows / batch).ceil()))
    });
    format!("about {row:.0} bytes a row, {} a batch{all}", bytes(row * batch))
}

fn pipeline(insert: &BatchInsert) -> String {
    let pipeline = &insert.pipeline;
    format!(
        "queue {} rows, batches of {} or after {}, {} in flight, method {}, {} attempts",
        grouped(pipeline.buffer_size as f64),
        grouped(pipeline.flush_size as f64),
        word(&pipeline.flush_interval),
        pipeline.concurrency.map_or("by default 1 (SQLite) or 4 (servers)".to_owned(), |n| n.to_string()),
        word(&insert.method),
        pipeline.retry.attempts
    )
}

fn verify(scenario: &Scenario) -> String {
    match scenario.verify.method {
        VerifyMethod::Full => "full: every row is read back and compared byte by byte".to_owned(),
        VerifyMethod::Digest => {
            "digest: the database sums up ranges of rows; where a sum is not as expected, they are read back and compared".to_owned()
        }
        VerifyMethod::Off => "off: the run will be inconclusive".to_owned(),
    }
}

fn guarded(guard: &Guard) -> String {
    let window = word(&guard.window);
    let conditions = [
        guard.error_rate.map(|share| format!("{} % of the answers of the last {window} failed", grouped(share.0 * 100.0))),
        guard.p99.map(|p99| format!("the response p99 of the last {window} is {}", word(&p99))),
        guard.up.as_ref().map(|up| format!("{} is 0 for {} at {}", up.query, word(&up.lasts), redact_url(&up.prometheus))),
    ];
    let conditions = conditions.into_iter().flatten().collect::<Vec<_>>().join(", or ");
    match guard.action {
        Action::Stop => format!("stops the load once {conditions}"),
        Action::Hold => {
            format!("holds the load for {} once {conditions}; stops it after {} holds", word(&guard.cooldown), guard.max_holds)
        }
    }
}

/// When a fault begins, how long it lasts and what it is.
fn fault(fault: &Fault) -> String {
    let length = fault.length.map_or("once".to_owned(), |length| format!("for {}", word(&length)));
    format!("at {} {length}: {}", word(&fault.at), fault.words())
}

fn gates(scenario: &Scenario) -> Vec<String> {
    let named = |test: fn(Metric) -> bool| scenario.gates.iter().any(|gate| test(gate.metric));
    let mut lines = vec!["integrity holds (always)".to_owned()];
    if !named(|m| matches!(m, Metric::ErrorRate | Metric::Rejected | Metric::Unknown)) {
        lines.push("error_rate == 0 (unless a gate names error_rate, rejected or unknown)".to_owned());
    }
    if scenario.load.executor.is_open() {
        lines.push(format!("load offered as asked: lag.p99 <= {}, nothing dropped, rate within 1 %", word(&scenario.load.lag_limit)));
    }
    lines.extend(scenario.gates.iter().map(|gate: &Gate| {
        let window = gate.window.map_or(String::new(), |w| format!(", in every window of {}", humantime::format_duration(w)));
        let abort =
            gate.abort_after.map_or(String::new(), |a| format!(", stops the load when missed for {}", humantime::format_duration(a)));
        let stretch =
            if matches!(gate.metric, Metric::Integrity(_)) { "whole run".to_owned() } else { format!("phase {}", gate.phase.as_str()) };
        format!("{} ({stretch}{window}{abort})", gate.text)
    }));
    lines
}

/// A table of the ramp with a bar for the value at each stage's end.
fn stages(load: &Load, unit: &str) -> String {
    const WIDTH: f64 = 40.0;
    if load.stages.is_empty() {
        return String::new();
    }
    let unit = if load.executor == Executor::RampingVus { "workers".to_owned() } else { format!("{unit}/s") };
    let most = load.stages.iter().map(|s| s.target).chain(load.rate).fold(1.0, f64::max);
    let bar = |value: f64| "#".repeat((value / most * WIDTH).round() as usize);
    let mut out = format!("\n{:>12} {unit:>12}\n", "until");
    let mut row = |until: Duration, value: f64| {
        let line = format!("{:>12} {:>12} {}", humantime::format_duration(until).to_string(), grouped(value), bar(value));
        out.push_str(line.trim_end());
        out.push('\n');
    };
    row(Duration::ZERO, load.rate.unwrap_or(0.0));
    let mut until = Duration::ZERO;
    for stage in &load.stages {
        until += stage.duration.0;
        row(until, stage.target);
    }
    out
}

/// Thousands apart: `2,000,000`. Fractions keep up to three decimals.
fn grouped(value: f64) -> String {
    let text = format!("{value:.3}");
    let text = text.trim_end_matches('0').trim_end_matches('.');
    let (whole, fraction) = text.split_once('.').map_or((text, String::new()), |(whole, fraction)| (whole, format!(".{fraction}")));
    let mut out = String::new();
    for (index, digit) in whole.chars().enumerate() {
        if index > 0 && (whole.len() - index).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out + &fraction
}

/// Bytes in a unit that leaves at most four digits.
fn bytes(value: f64) -> String {
    let units = ["bytes", "kB", "MB", "GB", "TB"];
    let step = (0..units.len() - 1).find(|&n| value / 1000_f64.powi(n as i32) < 1000.0).unwrap_or(units.len() - 1);
    let value = value / 1000_f64.powi(step as i32);
    if step == 0 { format!("{value:.0} bytes") } else { format!("{value:.1} {}", units[step]) }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn scenario(value: Value) -> Scenario {
        serde_json::from_value(value).unwrap()
    }

    fn quickstart() -> Value {
        json!({
            "name": "quickstart", "target": {"sqlite": {}},
            "workload": {"batch_insert": {"rows": 200_000, "pipeline": {"flush_size": 1000}}},
            "load": {"executor": "shared-iterations"}, "gates": ["integrity.lost == 0"]
        })
    }

    #[test]
    fn a_closed_load_goes_as_fast_as_the_target_allows() {
        insta::assert_snapshot!(plan(&scenario(quickstart()), &["CREATE TABLE a (\n  id INTEGER\n)".into(), "CREATE INDEX b".into()]));
    }

    #[test]
    fn a_ramp_is_shown_as_a_table_and_passwords_are_not() {
        let value = json!({
            "name": "ramp", "target": {"postgres": {"url": "postgres://bob:s3cret@127.0.0.1/x"}},
            "workload": {"batch_insert": {"rows": 150_000, "duplicate_keys": 0.1, "conflict": "ignore"}},
            "load": {
                "executor": "ramping-arrival-rate", "rate": 2000, "arrivals": "poisson", "warmup": "5s", "saturation": "drop",
                "stages": [{"duration": "30s", "target": 4000}, {"duration": "30s", "target": 0}]
            },
            "gates": ["error_rate < 1%", {"gate": "response.p99 < 50ms", "window": "10s", "abort": true}]
        });
        insta::assert_snapshot!(plan(&scenario(value), &[]));
    }

    #[test]
    fn a_guard_is_told_without_a_password() {
        let told = |guard: Value| {
            let mut value = quickstart();
            value["guard"] = guard;
            let plan = plan(&scenario(value), &[]);
            plan.lines().find_map(|line| line.strip_prefix("Guard        ")).unwrap().to_owned()
        };
        let up = json!({"prometheus": "http://u:s3cret@127.0.0.1:9090", "query": "up", "for": "2m"});
        assert_eq!(
            told(json!({"error_rate": "12.5%", "p99": "2s", "up": up})),
            "holds the load for 10s once 12.5 % of the answers of the last 5s failed, or the response p99 of the last 5s is 2s, or up is 0 for 2m at \
             http://u:***@127.0.0.1:9090; stops it after 10 holds"
        );
        assert_eq!(told(json!({"p99": "1s", "action": "stop"})), "stops the load once the response p99 of the last 5s is 1s");
    }

    #[test]
    fn faults_are_shown_without_what_starts_a_server() {
        let mut value = quickstart();
        value["target"] = json!({"postgres": {"url": "postgres://bob@127.0.0.1/x"}});
        value["faults"] = json!([
            {"at": "1s", "for": "500ms", "kind": "cut", "when": "after_commit", "share": 0.5, "most": 3},
            {"at": "3s", "kind": "reset"}, {"at": "5s", "for": "1s", "kind": "kill", "pid_file": "/run/x", "start": "s3cret"}
        ]);
        let plan = plan(&scenario(value), &[]);
        let faults: Vec<&str> = plan.lines().skip_while(|line| !line.starts_with("Faults")).take(3).collect();
        let shown = [
            "Faults       at 1s for 500ms: cut (when after_commit, share 0.5, most 3)",
            "             at 3s once: reset",
            "             at 5s for 1s: kill",
        ];
        assert_eq!(faults, shown);
    }

    #[test]
    fn a_rows_bytes_and_longest_values_come_of_its_columns() {
        let insert = scenario(quickstart()).workload.batch_insert().unwrap().clone();
        // 3 texts of 12 to 40 characters, three values of 8 bytes, one boolean.
        assert_eq!(insert.mean_row_bytes(), 3.0 * 26.0 + 3.0 * 8.0 + 1.0);
        let table = insert.table();
        assert_eq!((table.name.as_str(), table.key, table.unique_key), ("integration_test", 0, true));
        assert_eq!(table.columns.iter().map(|c| c.max_len).collect::<Vec<_>>(), [0, 40, 40, 40, 0, 0, 0]);
        let mut value = quickstart();
        value["workload"]["batch_insert"]["columns"] = json!([
            {"name": "a", "type": "bytes", "size": {"min": 10, "max": 30}, "nullable": true}, {"name": "id", "type": "int64", "key": true}
        ]);
        value["workload"]["batch_insert"]["content"] = json!({"nulls": 0.5});
        let insert = scenario(value).workload.batch_insert().unwrap().clone();
        assert_eq!((insert.mean_row_bytes(), insert.table().key, insert.table().columns[0].max_len), (18.0, 1, 30));
    }

    #[test]
    fn numbers_are_written_for_people() {
        assert_eq!((grouped(2_000_000.0), grouped(999.0), grouped(1234.5)), ("2,000,000".into(), "999".into(), "1,234.5".into()));
        assert_eq!((bytes(999.0), bytes(1000.0), bytes(2.06e7)), ("999 bytes".into(), "1.0 kB".into(), "20.6 MB".into()));
    }
}
