//! What recording the answer to a batch costs, by the size of the batch.

use std::time::{Duration, Instant};

use batchsql::ledger::Outcome;
use batchsql::recorder::Recorder;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};

fn answered(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("recorder");
    let epoch = Instant::now();
    for size in [100u32, 200, 1_000] {
        let recorder = Recorder::new(epoch, Duration::ZERO, Vec::new(), 1);
        let dues: Vec<Instant> = (0..size).map(|row| epoch + Duration::from_micros(u64::from(row) * 2)).collect();
        let at = epoch + Duration::from_millis(5);
        group.throughput(Throughput::Elements(u64::from(size)));
        group.bench_function(BenchmarkId::from_parameter(size), |bencher| {
            bencher.iter(|| recorder.answered(0, dues.iter().copied(), Outcome::Acknowledged, at, Duration::from_millis(1)));
        });
    }
    group.finish();
}

criterion_group!(benches, answered);
criterion_main!(benches);
