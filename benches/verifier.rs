//! What checking a row that was read back costs: making it again and comparing it, from blocks as a scan gives them.

use std::sync::Arc;

use batchsql::ledger::{Header, LedgerWriter, Outcome, VERSION};
use batchsql::scenario::BatchInsert;
use batchsql::table::{Cell, RowBlock, Table, Value, write_decimal};
use batchsql::target::Conflict;
use batchsql::verifier::{Expectation, RangeCheck};
use batchsql::workload::batch_insert::Generator;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use serde_json::json;

const ROWS: u64 = 51_200;
const BATCH: u64 = 200;

fn check(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("verifier");
    group.throughput(Throughput::Elements(ROWS));
    for charset in ["ascii", "unicode"] {
        let workload: BatchInsert = serde_json::from_value(json!({"content": {"charset": charset}})).expect("a workload");
        let generator = Generator::new(42, &workload);
        let blocks = blocks(&workload.table(), &generator);
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("ledger");
        write_ledger(&path);
        let expectation = Expectation::read(&path, workload.table(), Conflict::Error, generator).expect("a sound ledger");
        let expectation = Arc::new(expectation);
        group.bench_function(charset, |bencher| {
            bencher.iter(|| {
                let mut check = RangeCheck::new(Arc::clone(&expectation), expectation.ranges(1)[0]);
                blocks.iter().for_each(|block| check.block(block));
                assert_eq!(check.finish().checked(), ROWS);
            });
        });
    }
    group.finish();
}

fn write_ledger(path: &std::path::Path) {
    let writer = LedgerWriter::create(path, &Header { version: VERSION, run_id: "bench".into(), seed: 42 }).expect("a ledger");
    for batch in 0..ROWS / BATCH {
        writer.intent(batch, 1, batch * BATCH..(batch + 1) * BATCH).expect("written");
        writer.outcome(batch, Outcome::Acknowledged, false).expect("written");
    }
    writer.close().expect("written");
}

/// The rows as a database gives them back.
fn blocks(table: &Table, generator: &Generator) -> Vec<RowBlock> {
    let mut blocks = vec![RowBlock::new(table.columns.len())];
    for index in 0..ROWS {
        if blocks.last().is_some_and(RowBlock::is_full) {
            blocks.push(RowBlock::new(table.columns.len()));
        }
        let block = blocks.last_mut().expect("never empty");
        for value in &generator.row(index) {
            let mut decimal = String::new();
            block.push(match value {
                Value::Int(number) => Cell::Int(*number),
                Value::Text(text) => Cell::Text(text.as_bytes()),
                Value::Bool(flag) => Cell::Bool(*flag),
                Value::Timestamp(micros) => Cell::Timestamp(*micros),
                Value::Decimal(unscaled) => {
                    write_decimal(&mut decimal, *unscaled, 2);
                    Cell::Text(decimal.as_bytes())
                }
                other => panic!("no default column holds {other:?}"),
            });
        }
    }
    blocks
}

criterion_group!(benches, check);
criterion_main!(benches);
