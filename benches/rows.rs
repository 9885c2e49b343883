//! What making a row costs: the seven default columns, ASCII and Unicode, into a fresh row and into one that is used again.

use std::hint::black_box;

use batchsql::scenario::BatchInsert;
use batchsql::table::Row;
use batchsql::workload::batch_insert::Generator;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use serde_json::json;

fn rows(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("rows");
    group.throughput(Throughput::Elements(1));
    for charset in ["ascii", "unicode"] {
        let workload: BatchInsert = serde_json::from_value(json!({"content": {"charset": charset}})).expect("a workload");
        let generator = Generator::new(42, &workload);
        let mut index = 0;
        group.bench_function(format!("{charset}/fresh"), |bencher| {
            bencher.iter(|| {
                index += 1;
                black_box(generator.row(index))
            });
        });
        let mut row = Row::new();
        group.bench_function(format!("{charset}/used again"), |bencher| {
            bencher.iter(|| {
                index += 1;
                generator.fill(index, black_box(&mut row));
            });
        });
    }
    group.finish();
}

criterion_group!(benches, rows);
criterion_main!(benches);
