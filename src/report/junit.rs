//! `junit.xml`: one test case a gate, for what shows test results. A missed gate is a failure, one that could not be judged an
//! error.

use std::time::Duration;

use quick_junit::{NonSuccessKind, Report as Suites, TestCase, TestCaseStatus, TestSuite};

use super::{Report, Verdict, format, words};

/// The file's text.
///
/// # Errors
/// Never in practice: memory takes all of it.
pub fn xml(report: &Report) -> anyhow::Result<String> {
    let name = words::scenario(report);
    let mut suite = TestSuite::new(name.as_str());
    // A clock that ran backwards must not cost the report.
    suite.set_time(Duration::try_from_secs_f64(report.duration_seconds).unwrap_or_default());
    for (property, value) in properties(report) {
        suite.add_property((property, value.as_str()));
    }
    for gate in &report.gates {
        suite.add_test_case(case(&name, &format::plain(&gate.gate), gate.verdict, std::slice::from_ref(&gate.message)));
    }
    // A run can fail, or not be judged, for a reason that is no gate's: not offered as asked, interrupted.
    let gates = report.gates.iter().map(|gate| gate.verdict).max().unwrap_or(Verdict::Pass);
    if report.verdict > gates || report.gates.is_empty() {
        suite.add_test_case(case(&name, "verdict", report.verdict, &report.reasons));
    }
    let mut suites = Suites::new("batchsql");
    suites.add_test_suite(suite);
    Ok(suites.to_string()?)
}

fn properties(report: &Report) -> Vec<(&'static str, String)> {
    let target = &report.environment.target;
    let speed = report.throughput.rate.per_second();
    vec![
        ("run_id", report.run_id.clone()),
        ("started_at", report.started_at.clone()),
        ("seed", report.seed.to_string()),
        ("batchsql_version", report.environment.batchsql_version.clone()),
        ("target", format!("{} {}", target.name, target.version)),
        ("verdict", words::verdict(report.verdict).to_lowercase()),
        (
            if report.throughput.rate.unit() == "rows" { "rows_per_second" } else { "requests_per_second" },
            speed.map_or_else(String::new, |speed| format!("{speed:.0}")),
        ),
        ("throughput_valid", report.throughput.valid.to_string()),
        ("integrity", words::integrity(&report.integrity).join("; ")),
        ("reproduce", report.reproduce.clone()),
    ]
}

fn case(class: &str, name: &str, verdict: Verdict, messages: &[String]) -> TestCase {
    let kind = match verdict {
        Verdict::Pass => None,
        Verdict::Fail => Some(NonSuccessKind::Failure),
        Verdict::Inconclusive => Some(NonSuccessKind::Error),
    };
    let mut status = kind.map_or_else(TestCaseStatus::success, TestCaseStatus::non_success);
    let messages: Vec<_> = messages.iter().map(|message| format::plain(message)).collect();
    status.set_message(messages.join("; "));
    status.set_type(words::verdict(verdict).to_lowercase());
    let mut case = TestCase::new(name, status);
    case.set_classname(class);
    case
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::sample;

    #[test]
    fn missed_gates_fail_and_unjudged_ones_err() {
        let report = sample::violated();
        let text = xml(&report).unwrap();
        let read = Suites::deserialize_from_str(&text).unwrap();
        assert_eq!((read.tests, read.failures, read.errors), (4, 2, 1), "{text}");
        let names: Vec<_> = read.test_suites[0].test_cases.iter().map(|case| case.name.as_str().to_owned()).collect();
        assert_eq!(names, ["integrity holds", "error_rate < 0.1%", "response.p99 < 50ms", "response.p999 < 80ms"]);
        assert!(text.contains(r#"<property name="seed" value="42"/>"#), "{text}");
    }

    #[test]
    fn a_verdict_that_no_gate_explains_is_a_case_of_its_own() {
        let mut report = sample::passed();
        report.verdict = Verdict::Inconclusive;
        report.reasons = vec!["the load was not offered as asked: lag <p99> 41 ms\u{1b}[0m".to_owned()];
        let text = xml(&report).unwrap();
        let read = Suites::deserialize_from_str(&text).unwrap();
        assert_eq!((read.failures, read.errors), (0, 1));
        assert!(text.contains(r#"name="verdict""#) && text.contains("lag &lt;p99&gt; 41 ms") && !text.contains('\u{1b}'), "{text}");
    }

    #[test]
    fn requests_are_called_requests() {
        let text = xml(&sample::garbled()).unwrap();
        assert!(text.contains(r#"<property name="requests_per_second" value="4124"/>"#), "{text}");
        assert!(text.contains("2,000 log rows") && !text.contains("rows_per_second"), "{text}");
    }

    #[test]
    fn a_pass_is_all_green() {
        let read = Suites::deserialize_from_str(&xml(&sample::passed()).unwrap()).unwrap();
        assert_eq!((read.tests, read.failures, read.errors), (3, 0, 0));
    }
}
