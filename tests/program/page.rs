//! `report.html` as people meet it: in a browser, from disk.

use std::fs;

use serde_json::{Value, json};

use crate::browser;
use crate::database::Database;
use crate::place::{Place, run_and_meddle};

/// The colours of the first and the second line in the light scheme.
const FIRST: [u8; 3] = [0x00, 0x72, 0xb2];
const SECOND: [u8; 3] = [0xd5, 0x5e, 0x00];

/// A run of four seconds with three rows taken away before verification, and the page of it.
fn violated(place: &Place) -> Value {
    let db = Database::sqlite(place, "page");
    let load = json!({"executor": "constant-arrival-rate", "rate": 500, "duration": "4s", "warmup": "1s"});
    let scenario = db.scenario(json!({"pipeline": {"flush_size": 10}}), load);
    run_and_meddle(place, &scenario, || db.execute("DELETE FROM {table} WHERE id IN (600, 777, 2000)")).json(4)
}

#[test]
fn the_page_draws_its_charts_and_says_what_the_report_says() {
    let place = Place::new();
    let report = violated(&place);
    let page = place.run_folders()[0].join("report.html");
    let Some(seen) = browser::open(&page, [1280, 3000]) else { return };
    assert_eq!(seen.console, Vec::<String>::new());
    for chart in ["throughput-over-time\" data-drawn=\"5", "latency-over-time\" data-drawn=\"4", "distribution\" data-drawn=\"3"] {
        assert!(seen.dom.contains(&format!("<figure id=\"{chart}\"")), "{chart}");
    }
    assert!(seen.pixels(FIRST) > 500 && seen.pixels(SECOND) > 500, "{} {}", seen.pixels(FIRST), seen.pixels(SECOND));
    let number = |pointer: &str| report.pointer(pointer).and_then(Value::as_f64);
    for (id, pointer) in [
        ("throughput", "/throughput/rows_per_second"),
        ("p50", "/latency/response/p50_ms"),
        ("p99", "/latency/response/p99_ms"),
        ("integrity", "/integrity/rate"),
        ("acknowledged", "/outcomes/acknowledged"),
    ] {
        assert_eq!(seen.value(id), number(pointer), "{id}");
        assert!(seen.value(id).is_some(), "{id}");
    }
    for words in ["void: integrity is violated", "<td>lost</td>", "<td>777</td>", "warmup", "--seed 42"] {
        assert!(seen.dom.contains(words), "{words}");
    }
}

#[test]
fn the_page_asks_the_network_for_nothing() {
    let place = Place::new();
    violated(&place);
    let page = fs::read_to_string(place.run_folders()[0].join("report.html")).unwrap();
    let addresses = page.split("http").skip(1).filter(|after| after.starts_with("://") || after.starts_with("s://"));
    // The comment at the head of the library, and the namespace of SVG if it has one.
    let foreign: Vec<_> = addresses.filter(|after| !after.contains("github.com/leeoniya/uPlot")).map(|after| &after[..30]).collect();
    assert_eq!(foreign, Vec::<&str>::new());
    assert!(page.contains("default-src 'none'"));
}
