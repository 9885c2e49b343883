"""The board of batch inserts: every stage of the pipeline."""

from .pieces import board, heatmap, quantile, quantiles, rate, timeseries
from .shared import BATCH, buffer_use, errors, failed_batches, run_variables


def batch():
    by, legend = "database, test_name", "{{database}} {{test_name}}"

    def stage(title, description, metric):
        return timeseries(title, description, "s", *quantiles(metric, by, BATCH, legend), w=8)

    def mean(metric):
        return f"{rate(metric + '_sum', 'test_name', BATCH)} / {rate(metric + '_count', 'test_name', BATCH)}"

    stages = {
        "assemble": "batchsql_batch_assemble_duration_seconds",
        "pool wait": "batchsql_pool_wait_seconds",
        "execute": "batchsql_execute_duration_seconds",
    }
    service = "batchsql_batch_execution_duration_ms"
    rows = [
        (
            "吞吐 / Throughput",
            8,
            [
                timeseries(
                    "行结局 / Rows by outcome",
                    "Rows acknowledged, rejected and of unknown outcome a second.",
                    "rowsps",
                    (rate("batchsql_records_outcome_total", "database, outcome", BATCH), "{{database}} {{outcome}}"),
                    w=8,
                ),
                timeseries(
                    "批次 / Batches per second",
                    "Batches that were acknowledged, and those that were not.",
                    "ops",
                    (rate("batchsql_batch_success_total", "database", BATCH), "acknowledged {{database}}"),
                    (rate("batchsql_batch_failed_total", "database", BATCH), "failed {{database}}"),
                    w=8,
                ),
                timeseries(
                    "批次大小 P95 / P50 / Batch size",
                    "Rows in a batch: below the flush size, the interval flushes first.",
                    "short",
                    (quantile(0.95, "batchsql_batch_size", by, BATCH), f"P95 {legend}"),
                    (quantile(0.5, "batchsql_batch_size", by, BATCH), f"P50 {legend}"),
                    w=8,
                ),
            ],
        ),
        (
            "1 队列 / Queue",
            8,
            [
                stage(
                    "入队等待 / Enqueue",
                    "Wait of a row for room in the queue: grows when the database is the slower side.",
                    "batchsql_enqueue_latency_seconds",
                ),
                buffer_use(8),
                timeseries(
                    "生产者与队列 / Producers and queue",
                    "Workers that offer rows (closed executors have them); rows that wait in the queue.",
                    "short",
                    (f"sum(batchsql_concurrent_workers{{{BATCH}}}) by (test_name)", "workers {{test_name}}"),
                    (f"sum(batchsql_pipeline_queue_length{{{BATCH}}}) by (test_name)", "rows {{test_name}}"),
                    w=8,
                ),
            ],
        ),
        (
            "2 组批 → 等连接 → 执行 / Assemble, pool wait, execute",
            8,
            [
                stage("组批 / Assemble", "From a batch's first row to its being complete, by size or by interval.", stages["assemble"]),
                stage(
                    "等待连接 / Pool wait",
                    "Wait of a batch for a connection: grows when the pool is smaller than the concurrency.",
                    stages["pool wait"],
                ),
                stage("执行 / Execute", "One attempt from send to answer.", stages["execute"]),
                timeseries(
                    "各阶段均值 / Mean time of each stage",
                    "Stacked: where a batch's time goes.",
                    "s",
                    *[(mean(metric), f"{name} {{{{test_name}}}}") for name, metric in stages.items()],
                    stacked=True,
                ),
                timeseries(
                    "在途批次 / Batches in flight",
                    "Batches sent and not yet answered, and the most there may be.",
                    "short",
                    (f"sum(batchsql_inflight_batches{{{BATCH}}}) by (test_name)", "in flight {{test_name}}"),
                    (f"sum(batchsql_executor_concurrency{{{BATCH}}}) by (test_name)", "most {{test_name}}"),
                ),
            ],
        ),
        (
            "3 重试与失败 / Retries and failures",
            8,
            [
                errors(8, "重试 / Retries", "retry:.*", "Attempts that failed and were tried again, by class."),
                errors(8, "最终错误 / Final errors", "final:.*", "What batches ended with, by class."),
                failed_batches(8),
            ],
        ),
        (
            "4 响应时间与服务时间 / Response time against service time",
            9,
            [
                timeseries(
                    "响应时间 / Response time",
                    "From a row's intended start to its acknowledgement: what users wait.",
                    "s",
                    *quantiles("batchsql_response_time_seconds", by, BATCH, legend),
                    w=8,
                ),
                timeseries(
                    "服务时间 / Service time",
                    "From the send of a batch to its acknowledgement, retries included: what the database takes.",
                    "ms",
                    *quantiles(service, by, BATCH, legend),
                    w=8,
                ),
                timeseries(
                    "排队份额 P95 / Share of queueing",
                    "Response over service time: far above 1, rows wait longer than they are served.",
                    "short",
                    (
                        f"{quantile(0.95, 'batchsql_response_time_seconds', by, BATCH)} / ({quantile(0.95, service, by, BATCH)} / 1000)",
                        legend,
                    ),
                    w=8,
                ),
                heatmap(
                    "响应时间分布 / Response time, spread",
                    "Rows by response time, over time.",
                    "s",
                    "batchsql_response_time_seconds",
                    BATCH,
                ),
                heatmap(
                    "执行时间分布 / Execution, spread", "Attempts by duration, over time.", "s", "batchsql_execute_duration_seconds", BATCH
                ),
            ],
        ),
    ]
    return board(
        "batchsql-batch",
        "批量写入 / Batch inserts",
        "Every stage of the batch pipeline, from a full queue to the database's answer.",
        run_variables('database!="http"'),
        BATCH,
        rows,
    )
