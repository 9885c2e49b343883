//! Requests are offered as the executor says, each of them once, and what could not be started is said.

use std::fs;

use serde_json::{Value, json};

use crate::load::{LATE_IS_FINE, adds_up, number, seconds};
use crate::place::{Ended, Place};

/// Runs chats, streamed and not, before an upstream that takes 20 ms for each.
fn run(place: &Place, load: Value, requests: Option<u64>, gates: &[&str]) -> Ended {
    let mut scenario = json!({
        "name": "offered",
        "target": {"http": {"start": {"upstream": {"latency": {"median": "20ms"}}}}},
        "workload": {"proxy_request": {"replies": "mock", "mix": [
            {"weight": 3, "chat": {"max_tokens": 4}}, {"weight": 1, "chat": {"stream": true, "max_tokens": 4}}
        ]}},
        "load": load,
        "gates": gates,
    });
    if let Some(requests) = requests {
        scenario["workload"]["proxy_request"]["requests"] = json!(requests);
    }
    place.run(&scenario, &[])
}

/// The report of a run in which everything went well, of which the upstream saw as much as was acknowledged.
fn passed(load: Value, requests: Option<u64>) -> Value {
    let place = Place::new();
    let open = load["executor"].as_str().unwrap().contains("arrival");
    let report = run(&place, load, requests, if open { &LATE_IS_FINE } else { &[] }).json(0);
    adds_up(&report);
    let outcomes = &report["outcomes"];
    assert_eq!((&outcomes["offered"], &report["integrity"]["verdict"]), (&outcomes["acknowledged"], &json!("holds")));
    assert_eq!(number(&report["integrity"]["checked"]), 2 * number(&outcomes["acknowledged"]), "replies and upstream");
    let seen = fs::read_to_string(place.run_folders()[0].join("upstream.jsonl")).unwrap();
    assert_eq!(seen.lines().count() as u64, number(&outcomes["acknowledged"]));
    report
}

fn offered(report: &Value) -> u64 {
    number(&report["outcomes"]["offered"])
}

#[test]
fn shared_iterations_send_exactly_the_requests() {
    let report = passed(json!({"executor": "shared-iterations", "vus": 7}), Some(333));
    assert_eq!(offered(&report), 333);
    assert_eq!(report["latency"]["service"]["count"], 333);
    let routes = report["http"]["routes"].as_array().unwrap();
    assert_eq!(routes.iter().map(|route| number(&route["outcomes"]["acknowledged"])).sum::<u64>(), 333);
}

#[test]
fn constant_vus_send_as_many_as_replies_let_them_until_their_time_is_over() {
    let load = json!({"executor": "constant-vus", "vus": 4, "duration": "1s"});
    let report = passed(load.clone(), None);
    // Four workers, 20 ms a reply; the last of each may begin when the second is nearly over.
    assert!((4..=204).contains(&offered(&report)), "{}", report["outcomes"]);
    let took = seconds(&report["phases"][0]["duration_seconds"]);
    assert!((0.9..3.0).contains(&took), "{took}");
    assert_eq!(offered(&passed(load, Some(30))), 30, "the requests are a cap");
}

#[test]
fn ramping_vus_follow_their_stages() {
    let stages = json!([{"duration": "500ms", "target": 4}, {"duration": "500ms", "target": 0}]);
    let report = passed(json!({"executor": "ramping-vus", "stages": stages}), None);
    // At most half of what four workers could send in that second.
    assert!((1..=110).contains(&offered(&report)), "{}", report["outcomes"]);
}

#[test]
fn a_constant_arrival_rate_offers_rate_times_duration_warm_up_apart() {
    let report = passed(json!({"executor": "constant-arrival-rate", "rate": 300, "duration": "1s", "warmup": "500ms"}), None);
    let phase = |place: usize| (report["phases"][place]["name"].clone(), report["phases"][place]["outcomes"]["offered"].clone());
    assert_eq!((phase(0), phase(1)), ((json!("warmup"), json!(150)), (json!("main"), json!(300))));
    assert_eq!((offered(&report), &report["latency"]["response"]["count"]), (450, &json!(300)));
    let capped = passed(json!({"executor": "constant-arrival-rate", "rate": 300, "duration": "10s"}), Some(77));
    assert_eq!(offered(&capped), 77, "the requests are a cap");
}

#[test]
fn a_ramping_arrival_rate_offers_the_area_under_its_stages() {
    let stages = json!([{"duration": "500ms", "target": 600}, {"duration": "500ms", "target": 600}]);
    let report = passed(json!({"executor": "ramping-arrival-rate", "stages": stages}), None);
    assert!((449..=451).contains(&offered(&report)), "150 + 300: {}", report["outcomes"]);
}

#[test]
fn poisson_arrivals_come_from_the_seed() {
    let load = json!({"executor": "constant-arrival-rate", "rate": 300, "duration": "1s", "arrivals": "poisson"});
    let [first, second] = [passed(load.clone(), None), passed(load, None)];
    assert_eq!(offered(&first), offered(&second));
    assert!((220..=380).contains(&offered(&first)), "300 in the mean: {}", offered(&first));
}

/// Twice what ten places can serve: 1,000 a second for a second, 20 ms each.
fn saturated(place: &Place, saturation: &str, gates: &[&str]) -> Ended {
    let load = json!({
        "executor": "constant-arrival-rate", "rate": 1000, "duration": "1s", "max_in_flight": 10, "saturation": saturation
    });
    run(place, load, None, &[&LATE_IS_FINE, gates].concat())
}

#[test]
fn saturation_drop_leaves_out_what_finds_no_place_and_says_so() {
    let report = saturated(&Place::new(), "drop", &[]).json(3);
    adds_up(&report);
    let (offered, dropped) = (offered(&report), number(&report["outcomes"]["dropped"]));
    // Ten places, each free again after 20 ms at the earliest.
    assert!(offered == 1000 && (490..1000).contains(&dropped), "{}", report["outcomes"]);
    assert_eq!(report["reasons"], json!([format!("dropped == 0: {dropped} of 1,000 operations could not be started")]));
    assert_eq!(report["integrity"]["verdict"], "holds");
    saturated(&Place::new(), "drop", &["dropped > 0"]).json(0);
    saturated(&Place::new(), "drop", &["dropped == 0"]).json(1);
}

#[test]
fn saturation_queue_sends_them_all_later_and_counts_the_wait() {
    let report = saturated(&Place::new(), "queue", &[]).json(0);
    adds_up(&report);
    assert_eq!((offered(&report), &report["outcomes"]["acknowledged"]), (1000, &json!(1000)));
    // Request k is due after k ms and can be sent after 2 k ms at the earliest: the median waits half a second.
    let p50 = |clock: &str| seconds(&report["latency"][clock]["p50_ms"]);
    assert!(p50("response") >= 480.0, "{}", p50("response"));
    assert!((20.0..400.0).contains(&p50("service")), "{}", p50("service"));
    assert!(p50("lag") < 100.0, "the wait is the target's, not the generator's: {}", p50("lag"));
}

#[test]
fn saturation_abort_stops_the_load() {
    let report = saturated(&Place::new(), "abort", &[]).json(3);
    adds_up(&report);
    // Each thread of load may find that there is no place before the other has stopped it.
    let cores = std::thread::available_parallelism().unwrap().get() as u64;
    assert!((1..=cores).contains(&number(&report["outcomes"]["dropped"])), "{}", report["outcomes"]);
    assert!(offered(&report) < 1000);
    let reason = "the load was not offered as asked: load.max_in_flight requests are unanswered, and load.saturation is abort";
    assert!(report["reasons"].as_array().unwrap().contains(&json!(reason)), "{}", report["reasons"]);
}
