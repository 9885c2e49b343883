//! Every query of every board, asked where data is: each must answer, and with numbers.

use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::Value;

use crate::board::{boards, list, queries, text};
use crate::monitoring::{self, ask};
use crate::place::{Place, until};
use crate::runs::{Gateway, Runs};

/// Queries that users have beside the boards.
const USERS: [&str; 14] = [
    "sum(batchsql_current_rps) by (database)",
    "sum(batchsql_records_processed_total)",
    "batchsql_data_integrity_rate * 100",
    "histogram_quantile(0.95, sum by (le, database) (rate(batchsql_batch_execution_duration_ms_bucket[5m])))",
    "rate(batchsql_batch_failed_total[5m]) / (rate(batchsql_batch_success_total[5m]) + rate(batchsql_batch_failed_total[5m]))",
    "batchsql_memory_usage_bytes / 1024 / 1024",
    "avg(batchsql_buffer_utilization) by (database, test_name)",
    "batchsql_active_connections / on(instance, database) group_left() batchsql_max_connections",
    "batchsql_data_integrity_rate < 0.99",
    "delta(batchsql_data_integrity_rate[1h])",
    "sum(rate(aiproxy_requests_total[5m]))",
    "sum(rate(aiproxy_requests_total{status=\"success\"}[5m])) by (channel) / sum(rate(aiproxy_requests_total[5m])) by (channel) * 100",
    "histogram_quantile(0.95, sum by (le) (rate(aiproxy_response_time_seconds_bucket[5m])))",
    "topk(10, sum(increase(aiproxy_requests_total[1h])) by (user_name))",
];

/// Where the exporters' metrics begin, and one that each of them has.
const EXPORTERS: [(&str, &str); 3] = [("node_", "node_load1"), ("pg_", "pg_up"), ("mysql_", "mysql_up")];

/// A source of data, what it can be asked, and for which time.
struct Source<'a> {
    base: &'a str,
    start: f64,
    end: f64,
    step: &'a str,
    rate_interval: &'a str,
    /// Beginnings of metrics that it has not, each said aloud.
    absent: Vec<&'a str>,
}

fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64()
}

impl<'a> Source<'a> {
    fn new(base: &'a str, start: f64, step: &'a str, rate_interval: &'a str) -> Self {
        let mut source = Self { base, start, end: now(), step, rate_interval, absent: Vec::new() };
        for (beginning, one) in EXPORTERS {
            if source.answer(one, true) != Ok(true) {
                println!("left out: panels of {beginning}*, no exporter is scraped");
                source.absent.push(beginning);
            }
        }
        source
    }

    /// Whether a query answers with at least one number.
    fn answer(&self, expr: &str, instant: bool) -> Result<bool, String> {
        let (start, end) = (self.start.to_string(), self.end.to_string());
        let data = if instant {
            ask(self.base, "query", &[("query", expr), ("time", &end)])?
        } else {
            ask(self.base, "query_range", &[("query", expr), ("start", &start), ("end", &end), ("step", self.step)])?
        };
        let number = |sample: &Value| sample[1].as_str().unwrap().parse::<f64>().unwrap().is_finite();
        Ok(list(&data, "/result").iter().any(|series| {
            let samples = series["values"].as_array();
            samples.map_or_else(|| number(&series["value"]), |samples| samples.iter().any(number))
        }))
    }

    /// What `label_values(metric, label)` gives.
    fn values(&self, query: &str, chosen: &BTreeMap<String, String>) -> Vec<String> {
        let inside = query.strip_prefix("label_values(").and_then(|rest| rest.strip_suffix(')')).unwrap_or_else(|| panic!("{query}"));
        let (metric, label) = inside.rsplit_once(", ").unwrap();
        let (start, end) = (self.start.to_string(), self.end.to_string());
        let parameters = [("match[]", &*filled(metric, chosen)), ("start", &start), ("end", &end)];
        let data = ask(self.base, &format!("label/{label}/values"), &parameters).unwrap_or_else(|error| panic!("{query}: {error}"));
        data.as_array().unwrap().iter().map(|value| value.as_str().unwrap().to_owned()).collect()
    }

    /// A value for each variable of a board: all that there are, or one of those that must be one.
    fn choose(&self, name: &str, board: &Value, problems: &mut Vec<String>) -> BTreeMap<String, String> {
        let batches =
            self.values("label_values(batchsql_batch_execution_duration_ms_count{database!=\"http\"}, test_name)", &BTreeMap::new());
        let range = format!("{}s", (self.end - self.start).ceil());
        let mut chosen = BTreeMap::from([("__rate_interval".to_owned(), self.rate_interval.to_owned()), ("__range".to_owned(), range)]);
        for variable in list(board, "/templating/list").iter().filter(|variable| variable["type"] == "query") {
            let variable_name = text(variable, "/name");
            let values = self.values(text(variable, "/query/query"), &chosen);
            if values.is_empty() {
                problems.push(format!("{name}: variable {variable_name} has no value"));
            }
            let value = match variable_name {
                "test_a" => batches.first().cloned().unwrap_or_default(),
                "test_b" => batches.last().cloned().unwrap_or_default(),
                // Most series have none: everything is what is chosen at first.
                "env" => ".*".to_owned(),
                _ => format!("({})", values.join("|")),
            };
            chosen.insert(variable_name.to_owned(), value);
        }
        chosen
    }

    /// Every query that does not answer with numbers, and every variable without a value.
    fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        let mut asked = 0;
        for (name, board) in boards() {
            let chosen = self.choose(&name, &board, &mut problems);
            for query in queries(&name, &board) {
                let missing = self.absent.iter().any(|beginning| query.expr.contains(beginning));
                if missing {
                    continue;
                }
                asked += 1;
                let expr = filled(&query.expr, &chosen);
                match self.answer(&expr, query.instant) {
                    Ok(true) => {}
                    Ok(false) => problems.push(format!("{}: no data: {expr}", query.of)),
                    Err(error) => problems.push(format!("{}: {error}: {expr}", query.of)),
                }
            }
        }
        assert!(asked > 100, "only {asked} queries were asked");
        problems
    }
}

/// A query with its variables replaced; none may be left.
fn filled(expr: &str, chosen: &BTreeMap<String, String>) -> String {
    // The longest name first: one may begin another.
    let mut names: Vec<_> = chosen.keys().collect();
    names.sort_by_key(|name| std::cmp::Reverse(name.len()));
    let filled = names.into_iter().fold(expr.to_owned(), |expr, name| expr.replace(&format!("${name}"), &chosen[name]));
    assert!(!filled.contains('$'), "{filled}");
    filled
}

#[test]
fn every_panel_and_variable_answers_on_prometheus_and_victoria_metrics() {
    let place = Place::new();
    let exporters = monitoring::exporters(&place);
    let victoria = monitoring::victoria_metrics(&place);
    let gateway = Gateway::start(&place);
    // Known before there is anything to scrape, so that Prometheus sees the runs begin.
    let harness: Vec<_> = std::iter::repeat_with(monitoring::free_address).take(Runs::MOST).collect();
    let mut targets: BTreeMap<_, _> = exporters.iter().map(|(name, server)| (*name, vec![server.address])).collect();
    targets.extend([("batchsql", harness.clone()), ("gateway", vec![gateway.address])]);
    let Some(prometheus) = monitoring::prometheus(&place, &targets, victoria.as_ref()) else { return };
    let start = now();
    let mut runs = Runs::start(&place, gateway.address, &harness);
    runs.meddle_and_await(&place);

    let bases: Vec<_> = [&prometheus].into_iter().chain(&victoria).map(monitoring::Server::url).collect();
    for base in &bases {
        let judged = runs.count().to_string();
        until("all verdicts, and the gauge of integrity a third time: the last step of a range is up to a second ago", || {
            let verdicts = ask(base, "query", &[("query", "sum(batchsql_tests_run_total)")]).unwrap();
            let rates = ask(base, "query", &[("query", "sum(count_over_time(batchsql_data_integrity_rate[1m]) > bool 2)")]).unwrap();
            let value = |data: &Value| data.pointer("/result/0/value/1").cloned();
            (value(&verdicts) == Some(judged.as_str().into()) && value(&rates) == Some(judged.as_str().into())).then_some(())
        });
        let source = Source::new(base, start, "1s", "10s");
        for nothing in ["batchsql_records_total", "vector(0) / 0"] {
            assert_eq!(source.answer(nothing, true), Ok(false), "{nothing}");
        }
        let mut problems = source.problems();
        problems.extend(USERS.iter().filter(|query| source.answer(query, true) != Ok(true)).map(|query| format!("no data: {query}")));
        assert!(problems.is_empty(), "{base}:\n{}", problems.join("\n"));
    }
    let staging = ask(&prometheus.url(), "query", &[("query", "batchsql_data_integrity_rate{env=\"staging\"}")]).unwrap();
    assert_eq!(list(&staging, "/result").len(), 1, "the prefix is a label again: {staging}");
    runs.end();
}

/// A Prometheus inside a stack, after runs of rows and of requests.
#[test]
fn every_panel_and_variable_answers_inside_a_stack() {
    let Some(base) = std::env::var("BATCHSQL_TEST_STACK_PROMETHEUS").ok().filter(|base| !base.is_empty()) else {
        println!("left out: BATCHSQL_TEST_STACK_PROMETHEUS is not set");
        return;
    };
    let source = Source::new(&base, now() - 1800.0, "5s", "1m");
    let mut problems = source.problems();
    // Whether a run there has an environment, and whether one was damaged, is its own affair.
    problems.retain(|problem| !problem.ends_with("variable env has no value"));
    // The runs may be over: what counts is that there was an answer.
    let users = USERS.iter().filter(|query| !query.ends_with("< 0.99") && source.answer(query, false) != Ok(true));
    problems.extend(users.map(|query| format!("no data: {query}")));
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}
