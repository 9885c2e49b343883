//! The batch pipeline as a library: rows of a table of your own into SQLite, watched by the Prometheus exporter and by an observer
//! of your own.
//!
//! ```sh
//! cargo run --example pipeline
//! ```
//!
//! It needs no server, serves its metrics on a free loopback port while it runs, and deletes its database file.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use batchsql::metrics::{Pipeline as PipelineSizes, PrometheusMetrics, PrometheusMetricsReporter};
use batchsql::pipeline::observer::{BatchInfo, BatchOutcome, Observer};
use batchsql::pipeline::{Pipeline, Submission};
use batchsql::scenario::{PipelineConfig, SqliteConfig, TargetConfig};
use batchsql::table::{Column, ColumnType, Row, Table, Value};
use batchsql::target::{self, Conflict, Context, Method, WritePlan};

const ROWS: i64 = 10_000;

/// Counts what was written and remembers the slowest batch. Observers run in the hot path: atomics, no locks, no I/O.
#[derive(Default)]
struct Slowest {
    batches: AtomicU64,
    slowest_micros: AtomicU64,
}

impl Observer for Slowest {
    fn finished(&self, batch: &BatchInfo<'_>, outcome: &BatchOutcome, took: Duration) {
        match outcome {
            BatchOutcome::Acknowledged { .. } => {
                self.batches.fetch_add(1, Relaxed);
                self.slowest_micros.fetch_max(took.as_micros() as u64, Relaxed);
            }
            // Definitely not stored, or nobody can say: two things that must never be mixed up.
            BatchOutcome::Rejected(failure) => eprintln!("batch {} was not stored: {failure}", batch.id),
            BatchOutcome::Unknown(failure) => eprintln!("batch {} may be stored: {failure}", batch.id),
        }
    }
}

/// A table of two columns; exactly one `int64` column is the key.
fn events() -> Table {
    let column = |name: &str, ty, max_len| Column { name: name.to_owned(), ty, nullable: false, index: false, max_len };
    Table {
        name: "events".to_owned(),
        columns: vec![column("id", ColumnType::Int64, 0), column("what", ColumnType::Text, 40)],
        key: 0,
        unique_key: true,
    }
}

fn event(id: i64) -> Row {
    vec![Value::Int(id), Value::Text(format!("event number {id}"))]
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    // Deleted with all that is in it when it goes out of scope.
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("events.db").display().to_string();

    // The same configuration a scenario has under `target:`; a server would be `postgres: Some(ServerConfig { url })`.
    let config = TargetConfig { sqlite: Some(SqliteConfig { path: Some(file), ..Default::default() }), ..Default::default() };
    let context = Context { run_id: "example", scenario_name: "example", report_dir: folder.path(), concurrency: None, create: true };
    let target = target::connect(&config, &context).await?;
    println!("{} {}", target.info().name, target.info().version);

    let plan = WritePlan { table: events(), conflict: Conflict::Error, method: Method::Auto };
    target.create(&plan.table, context.run_id).await?;

    // The exporter, with a counter of our own beside its metrics.
    let metrics = PrometheusMetrics::new();
    let address = metrics.start_server(([127, 0, 0, 1], 0).into()).await?;
    println!("metrics: http://{address}/metrics");
    let submitted = metrics.register_counter("batchsql_custom_operations_total", "Events submitted", &[])?.with(&[]);

    let settings = PipelineConfig { flush_size: 500, ..PipelineConfig::default() };
    let sizes = PipelineSizes { buffer_size: settings.buffer_size, flush_size: settings.flush_size, concurrency: 1 };
    let reporter = PrometheusMetricsReporter::new(&metrics, target.database().as_str(), "example", sizes);
    let slowest = Arc::new(Slowest::default());
    let observers: Vec<Arc<dyn Observer>> = vec![Arc::new(reporter), Arc::<Slowest>::clone(&slowest)];

    let pipeline = Pipeline::builder(target).table(plan).config(settings).with_metrics_reporter(Arc::new(observers)).start()?;
    for id in 0..ROWS {
        // Waits when the queue is full: memory stays bounded however slow the database is.
        pipeline.submit(Submission::now(id as u64, event(id))).await?;
        submitted.inc();
    }
    // Returns when every submitted row has its outcome.
    let totals = pipeline.close().await;
    println!("acknowledged {}, rejected {}, unknown {}", totals.acknowledged, totals.rejected, totals.unknown);
    println!("{} batches, the slowest took {} µs", slowest.batches.load(Relaxed), slowest.slowest_micros.load(Relaxed));

    let shown = ["batchsql_records_processed_total{", "batchsql_batch_size_count{", "batchsql_custom_operations_total "];
    for line in metrics.render().lines().filter(|line| shown.iter().any(|name| line.starts_with(name))) {
        println!("{line}");
    }
    metrics.stop_server().await;
    anyhow::ensure!(totals.acknowledged == ROWS as u64, "every event must be stored: {totals:?}");
    Ok(())
}
