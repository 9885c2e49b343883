//! What the instrument costs in all: recorder, ledger and Prometheus reporter together, called as a run calls them. The bound is
//! 150 ns a row at batches of 100 and more.

use std::time::{Duration, Instant};

use batchsql::ledger::{Header, LedgerWriter, Outcome, VERSION};
use batchsql::metrics::{Pipeline, PrometheusMetrics, PrometheusMetricsReporter};
use batchsql::pipeline::observer::{BatchInfo, BatchOutcome, Entry, Observer as _};
use batchsql::recorder::Recorder;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};

struct Instrument {
    recorder: Recorder,
    ledger: LedgerWriter,
    reporter: PrometheusMetricsReporter,
}

impl Instrument {
    /// One batch from its first row to its outcome.
    fn batch(&self, id: u64, entries: &[Entry]) {
        let took = Duration::from_millis(1);
        for _ in entries {
            self.reporter.enqueued(Duration::ZERO);
        }
        let batch = BatchInfo { id, table: "integration_test", rows: entries.len(), entries, attempt: 1, session: 1 };
        self.reporter.assembled(batch.table, batch.rows, took);
        self.reporter.connection_acquired(Duration::from_micros(1));
        self.ledger.intent(id, 1, entries.iter().map(|entry| entry.id)).expect("written");
        self.reporter.executed(&batch, took);
        let now = Instant::now();
        self.ledger.outcome(id, Outcome::Acknowledged, false).expect("written");
        self.recorder.answered(id, entries.iter().map(|entry| entry.due), Outcome::Acknowledged, now, took);
        let times: Vec<Duration> = entries.iter().map(|entry| now.saturating_duration_since(entry.due)).collect();
        self.reporter.observe_responses(&times);
        self.reporter.finished(&batch, &BatchOutcome::Acknowledged { warnings: 0, after_unknown: false }, took);
    }
}

fn instrument(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("instrument");
    for size in [100u64, 200, 1_000] {
        let folder = tempfile::tempdir().expect("a folder");
        let header = Header { version: VERSION, run_id: "bench".into(), seed: 42 };
        let metrics = PrometheusMetrics::new();
        let sizes = Pipeline { buffer_size: 5_000, flush_size: size as usize, concurrency: 1 };
        let instrument = Instrument {
            recorder: Recorder::new(Instant::now(), Duration::ZERO, Vec::new(), 1),
            ledger: LedgerWriter::create(&folder.path().join("ledger"), &header).expect("a ledger"),
            reporter: PrometheusMetricsReporter::new(&metrics, "sqlite", "bench", sizes),
        };
        let mut next = 0;
        group.throughput(Throughput::Elements(size));
        group.bench_function(BenchmarkId::from_parameter(size), |bencher| {
            bencher.iter(|| {
                let due = Instant::now();
                let entries: Vec<Entry> =
                    (0..size).map(|row| Entry { id: next * size + row, due: due + Duration::from_nanos(row) }).collect();
                instrument.batch(next, &entries);
                next += 1;
            });
        });
    }
    group.finish();
}

criterion_group!(benches, instrument);
criterion_main!(benches);
