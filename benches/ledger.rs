//! What writing a batch down costs, intent and outcome, by the size of the batch and the order of its members.

use std::sync::atomic::{AtomicU64, Ordering};

use batchsql::ledger::{Header, LedgerWriter, Outcome, VERSION};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};

fn batches(criterion: &mut Criterion) {
    let folder = tempfile::tempdir().expect("a folder");
    let header = Header { version: VERSION, run_id: "bench".into(), seed: 42 };
    let writer = LedgerWriter::create(&folder.path().join("ledger"), &header).expect("a ledger");
    let batch = AtomicU64::new(0);
    let mut group = criterion.benchmark_group("ledger");
    for size in [100u64, 200, 1_000] {
        group.throughput(Throughput::Elements(size));
        // Several producers overtake each other; a swap of neighbours is the worst that the format meets.
        for (order, swap) in [("in order", 0), ("swapped", 1)] {
            group.bench_function(BenchmarkId::new(order, size), |bencher| {
                bencher.iter(|| {
                    let number = batch.fetch_add(1, Ordering::Relaxed);
                    let members = (0..size).map(|row| number * size + (row ^ swap));
                    writer.intent(number, 1, members).expect("written");
                    writer.outcome(number, Outcome::Acknowledged, false).expect("written");
                });
            });
        }
    }
    group.finish();
}

criterion_group!(benches, batches);
criterion_main!(benches);
