//! What one intended start costs: the arithmetic of the arrival-rate executors.

use std::hint::black_box;

use batchsql::scenario::{Arrivals, Load};
use batchsql::schedule::Schedule;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use serde_json::json;

const STARTS: u64 = 10_000;

fn starts(criterion: &mut Criterion) {
    let constant = json!({"executor": "constant-arrival-rate", "rate": 10_000, "duration": "1s"});
    let ramp = json!({"executor": "ramping-arrival-rate", "rate": 5_000, "stages": [{"duration": "1s", "target": 15_000}]});
    let mut group = criterion.benchmark_group("schedule");
    group.throughput(Throughput::Elements(STARTS));
    for (name, load, arrivals) in
        [("uniform", &constant, Arrivals::Uniform), ("ramp", &ramp, Arrivals::Uniform), ("poisson", &constant, Arrivals::Poisson)]
    {
        let load: Load = serde_json::from_value(load.clone()).expect("a load");
        let Schedule::Arrivals(rate) = Schedule::new(&load) else { panic!("an arrival rate") };
        group.bench_function(name, |bencher| bencher.iter(|| rate.starts(arrivals, 42).take(STARTS as usize).map(black_box).count()));
    }
    group.finish();
}

criterion_group!(benches, starts);
criterion_main!(benches);
