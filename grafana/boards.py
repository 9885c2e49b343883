#!/usr/bin/env python3
"""The source of the boards in grafana/dashboards.

    python3 grafana/boards.py          writes them anew
    python3 grafana/boards.py --check  exit code 1 if a committed board is not what this file says
"""

import json
import pathlib
import sys

from panels import (
    CPU, FULL, NONE, PERCENT, RIGHT, bargauge, board, heatmap, last, quantile, quantiles, rate, stat, table, timeseries, variable, zero,
)

ENV = 'env=~"$env"'
RUN = f'database=~"$database", test_name=~"$test_name", {ENV}'
# Of these batches are counted; of a service, requests.
TEST = f'test_name=~"$test_name", {ENV}'
BATCH = f'database!="http", {RUN}'
HTTP = f'database="http", {TEST}'
POOL = f'database=~"$database", {ENV}'
# The client and the gateway count the same requests, each as a job of its own: never summed over jobs.
CHANNEL = f'job=~"$job", channel=~"$channel", {ENV}'
MODEL = f'{CHANNEL}, model=~"$model"'
USER = f'{CHANNEL}, user_name=~"$user_name"'
REQUEST = f'{USER}, model=~"$model"'

NOT_VERIFIED = "尚未校验 / not verified yet"
NO_RUN = "没有运行 / no run"
NO_REQUESTS = "没有请求 / no requests"
NOT_STREAMED = "没有流式请求 / nothing streamed"
NO_GATEWAY = "没有网关 / no gateway is scraped"
NO_EXPORTER = "没有 exporter / no exporter is scraped"

RUNNING = [{"type": "value", "options": {"0": {"text": "空闲 / idle", "index": 0}, "1": {"text": "运行 / runs", "color": "green", "index": 1}}}]
UP = [{"type": "value", "options": {"0": {"text": "down", "color": "red", "index": 0}, "1": {"text": "up", "color": "green", "index": 1}}}]


def run_variables(which=""):
    rows = f"batchsql_tests_run_total{{{which}}}" if which else "batchsql_tests_run_total"
    both = ", ".join(filter(None, [which, 'database=~"$database"']))
    return [
        variable("database", "数据库 / Database", f"label_values({rows}, database)"),
        variable("test_name", "测试 / Test", f"label_values(batchsql_tests_run_total{{{both}}}, test_name)"),
        env_variable(),
    ]


def env_variable():
    return variable("env", "环境 / Environment", "label_values(batchsql_tests_run_total, env)")


# Panels that several boards show

def integrity_table(width, which=RUN):
    return table(
        "数据完整性率 / Data integrity",
        "Rows found right / rows that must be there. Absent until a verification has finished.",
        "percent", f"{last('batchsql_data_integrity_rate', which)} * 100", "integrity %", w=width, steps=RIGHT, decimals=4, none=NOT_VERIFIED,
    )


def live_rps(width):
    return stat(
        "实时 RPS / Live rows per second", "Rows acknowledged over the last second, by database. Of a service, requests.", "short",
        (f"sum(batchsql_current_rps{{{RUN}}}) by (database)", "{{database}}"), w=width, none=NO_RUN,
    )


def acknowledged(width):
    return stat(
        "累计处理记录数 / Rows acknowledged", "All rows acknowledged by the latest runs in the range.", "short",
        (f"sum({last('batchsql_records_processed_total', RUN)})", "rows"), w=width, instant=True, none=NO_RUN,
    )


def run_active(width):
    return stat(
        "运行中 / Run active", "Whether phase main runs.", "short",
        (f"max(batchsql_run_active{{{RUN}}}) by (database)", "{{database}}"), w=width, none=NO_RUN, mappings=RUNNING,
    )


def rps(width):
    return timeseries(
        "RPS 趋势 / Rows per second over time", "Rows acknowledged a second, by database and table.", "short",
        (f"sum(batchsql_current_rps{{{RUN}}}) by (database, table)", "{{database}} {{table}}"), w=width,
    )


def error_rate(width):
    return timeseries(
        "错误率 / Error rate", "(rejected + unknown) / attempted rows over the last 10 s.", "percentunit",
        (f"batchsql_error_rate{{{RUN}}}", "{{database}} {{test_name}}"), w=width, max=1,
    )


def errors(width, title="错误分类 / Errors by class", kind=".*", description="retry: tried again; final: the batch ended with it."):
    classes = rate("batchsql_errors_total", "error_type", f'error_type=~"{kind}", {RUN}')
    return timeseries(title, description, "short", (f"{classes} > 0 or on() {zero('error_type', 'none')}", "{{error_type}}"), w=width)


def anomalies(width):
    return stat(
        "完整性异常 / Integrity anomalies", "What the verifier found in the latest runs, by class.", "short",
        (f"sum({last('batchsql_integrity_anomalies_total', RUN)}) by (kind)", "{{kind}}"), w=width, instant=True, steps=NONE, none=NOT_VERIFIED,
    )


def dropped(width):
    return stat(
        "丢弃的操作 / Dropped operations", "Operations the schedule asked for that could not start.", "short",
        (f"sum({last('batchsql_dropped_total', TEST)}) by (test_name)", "{{test_name}}"), w=width, instant=True, steps=NONE,
    )


def verdicts(width):
    return stat(
        "测试结果 / Runs by verdict", "Verdicts of the latest runs.", "short",
        (f"sum({last('batchsql_tests_run_total', RUN)}) by (result)", "{{result}}"), w=width, instant=True, none=NO_RUN,
    )


def harness_memory(width):
    return timeseries(
        "内存 / Memory", "Resident set of the harness.", "mbytes",
        (f"batchsql_memory_usage_bytes{{{RUN}}} / 1024 / 1024", "{{database}} {{test_name}}"), w=width,
    )


def pool_use(width):
    return timeseries(
        "连接 / Connections", "Share of the pool in use.", "percentunit",
        (f"batchsql_active_connections{{{POOL}}} / on(instance, database) group_left() batchsql_max_connections{{{POOL}}}", "{{database}}"),
        w=width, max=1,
    )


def buffer_use(width):
    return timeseries(
        "缓冲区使用率 / Buffer use", "Queue length / buffer size.", "percentunit",
        (f"avg(batchsql_buffer_utilization{{{RUN}}}) by (database, test_name)", "{{database}} {{test_name}}"), w=width, max=1,
    )


def in_flight(width):
    return timeseries(
        "在途批次与队列 / In flight and queued", "Batches sent and not yet answered; rows waiting.", "short",
        (f"sum(batchsql_inflight_batches{{{RUN}}}) by (test_name)", "batches {{test_name}}"),
        (f"sum(batchsql_executor_concurrency{{{RUN}}}) by (test_name)", "most batches {{test_name}}"),
        (f"sum(batchsql_pipeline_queue_length{{{RUN}}}) by (test_name)", "rows {{test_name}}"), w=width,
    )


def failed_batches(width):
    failed, succeeded = (rate(f"batchsql_batch_{end}_total", "database", RUN) for end in ("failed", "success"))
    return timeseries(
        "批次失败率 / Failed batches", "Share of batches that were rejected or of unknown outcome.", "percentunit",
        (f"{failed} / ({succeeded} + {failed})", "{{database}}"), w=width, max=1,
    )


def success(title, description, width, which, by):
    right = rate("aiproxy_requests_total", by, f'status="success", {which}')
    legend = " ".join(f"{{{{{label}}}}}" for label in by.split(", "))
    return timeseries(
        title, description, "percent", (f"{right} / {rate('aiproxy_requests_total', by, which)} * 100", legend), w=width, none=NO_REQUESTS, **PERCENT,
    )


def requests(width, which, by="job, channel, protocol"):
    legend = " ".join(f"{{{{{label}}}}}" for label in by.split(", "))
    return timeseries(
        "请求速率 / Requests per second", f"Requests that have ended, by {by}.", "reqps",
        (rate("aiproxy_requests_total", by, which), legend), w=width, none=NO_REQUESTS,
    )


# Boards

def overview():
    by = "database, test_name"
    rows = [
        ("判定与完整性 / Verdicts and integrity", 7, [
            table(
                "判定 / Verdicts", "How the latest runs of each test ended.", "short",
                f"sum by ({by}, result) ({last('batchsql_tests_run_total', RUN)}) > 0", "runs", w=8, none=NO_RUN,
            ),
            integrity_table(8),
            anomalies(8),
        ]),
        ("速度 / Speed", 8, [
            live_rps(6), acknowledged(6), run_active(6), verdicts(6), rps(12),
            timeseries(
                "响应时间 P95 / Response time", "From a row's or request's intended start to its acknowledgement.", "s",
                (quantile(0.95, "batchsql_response_time_seconds", by, RUN), "{{database}} {{test_name}}"),
            ),
        ]),
        ("错误与请求 / Errors and requests", 8, [
            error_rate(8),
            requests(8, ENV, "job, channel"),
            success("请求成功率 / Success", "Share of requests whose reply came whole and well.", 8, ENV, "job, channel"),
        ]),
        ("目标与 harness / Targets and the harness", 8, [
            table(
                "目标 / Targets", "Each target as it names itself.", "short",
                f"max by (database, name, version) ({last('batchsql_target_info', POOL)})", "seen", w=8, none=NO_RUN,
            ),
            harness_memory(8), pool_use(8),
        ]),
    ]
    return board(
        "batchsql-overview", "总览 / Overview", "Verdicts and integrity first, then speed: a run that lost a row has none.",
        run_variables(), RUN, rows,
    )


def performance():
    by, legend = "database", "{{database}}"
    stages = [("enqueue", "enqueue_latency"), ("assemble", "batch_assemble_duration"), ("pool wait", "pool_wait"), ("execute", "execute_duration")]
    duration = "batchsql_batch_execution_duration_ms"
    rows = [
        ("概览 / Overview", 6, [live_rps(6), acknowledged(6), integrity_table(8), run_active(4)]),
        ("速度 / Speed", 9, [
            rps(12),
            timeseries(
                "批次执行耗时 P95 / P50 / Batch execution time", "One batch from send to acknowledgement.", "ms",
                (quantile(0.95, duration, by, RUN), f"P95 {legend}"), (quantile(0.5, duration, by, RUN), f"P50 {legend}"),
            ),
            timeseries(
                "响应时间 P99 / P95 / P50 / Response time", "From a row's intended start to its acknowledgement.", "s",
                *quantiles("batchsql_response_time_seconds", by, RUN, legend),
            ),
            timeseries(
                "批次大小 P50 / Batch size", "Rows in a batch: below the flush size, the interval flushes first.", "short",
                (quantile(0.5, "batchsql_batch_size", by, RUN), f"P50 {legend}"),
            ),
        ]),
        ("流水线 / Pipeline stages", 9, [
            timeseries(
                "阶段耗时 P95 / Stages", "Where a row's time goes: room in the queue, filling the batch, a connection, the database.", "s",
                *[(quantile(0.95, f"batchsql_{metric}_seconds", "test_name", RUN), f"{name} {{{{test_name}}}}") for name, metric in stages],
            ),
            buffer_use(6), in_flight(6),
        ]),
        ("质量 / Quality", 8, [error_rate(8), failed_batches(8), errors(8), anomalies(12), dropped(6), verdicts(6)]),
        ("资源 / Resources", 8, [harness_memory(12), pool_use(12)]),
        ("请求 / Requests", 9, [
            requests(12, ENV),
            success("请求成功率 / Success", "Share of requests whose reply came whole and well.", 12, ENV, "job, channel"),
            timeseries(
                "请求耗时 P95 / Request time", "From a request to the end of its reply.", "s",
                (quantile(0.95, "aiproxy_response_time_seconds", "job, channel, protocol", ENV), "{{job}} {{channel}} {{protocol}}"), w=8, none=NO_REQUESTS,
            ),
            timeseries(
                "首个 token 耗时 P95 / Time to first token", "Streams: from a request to the first token with content.", "s",
                (quantile(0.95, "aiproxy_time_to_first_token_seconds", "job, channel, model", ENV), "{{job}} {{channel}} {{model}}"), w=8, none=NOT_STREAMED,
            ),
            timeseries(
                "token 间隔 P95 / Time between tokens", "Streams: every gap, pooled.", "s",
                (quantile(0.95, "aiproxy_inter_token_latency_seconds", "job, channel, model", ENV), "{{job}} {{channel}} {{model}}"), w=8, none=NOT_STREAMED,
            ),
        ]),
    ]
    return board(
        "batchsql-performance", "性能 / Performance", "Throughput, latency and integrity of batchsql runs.", run_variables(), RUN, rows,
    )


def batch():
    by, legend = "database, test_name", "{{database}} {{test_name}}"

    def stage(title, description, metric):
        return timeseries(title, description, "s", *quantiles(metric, by, BATCH, legend), w=8)

    def mean(metric):
        return f"{rate(metric + '_sum', 'test_name', BATCH)} / {rate(metric + '_count', 'test_name', BATCH)}"

    stages = {
        "assemble": "batchsql_batch_assemble_duration_seconds", "pool wait": "batchsql_pool_wait_seconds",
        "execute": "batchsql_execute_duration_seconds",
    }
    service = "batchsql_batch_execution_duration_ms"
    rows = [
        ("吞吐 / Throughput", 8, [
            timeseries(
                "行结局 / Rows by outcome", "Rows acknowledged, rejected and of unknown outcome a second.", "wps",
                (rate("batchsql_records_outcome_total", "database, outcome", BATCH), "{{database}} {{outcome}}"), w=8,
            ),
            timeseries(
                "批次 / Batches per second", "Batches that were acknowledged, and those that were not.", "ops",
                (rate("batchsql_batch_success_total", "database", BATCH), "acknowledged {{database}}"),
                (rate("batchsql_batch_failed_total", "database", BATCH), "failed {{database}}"), w=8,
            ),
            timeseries(
                "批次大小 P95 / P50 / Batch size", "Rows in a batch: below the flush size, the interval flushes first.", "short",
                (quantile(0.95, "batchsql_batch_size", by, BATCH), f"P95 {legend}"),
                (quantile(0.5, "batchsql_batch_size", by, BATCH), f"P50 {legend}"), w=8,
            ),
        ]),
        ("1 队列 / Queue", 8, [
            stage("入队等待 / Enqueue", "Wait of a row for room in the queue: grows when the database is the slower side.", "batchsql_enqueue_latency_seconds"),
            buffer_use(8),
            timeseries(
                "生产者与队列 / Producers and queue", "Workers that offer rows; rows that wait in the queue.", "short",
                (f"sum(batchsql_concurrent_workers{{{BATCH}}}) by (test_name)", "workers {{test_name}}"),
                (f"sum(batchsql_pipeline_queue_length{{{BATCH}}}) by (test_name)", "rows {{test_name}}"), w=8,
            ),
        ]),
        ("2 组批 → 等连接 → 执行 / Assemble, pool wait, execute", 8, [
            stage("组批 / Assemble", "From a batch's first row to its being complete, by size or by interval.", stages["assemble"]),
            stage("等待连接 / Pool wait", "Wait of a batch for a connection: grows when the pool is smaller than the concurrency.", stages["pool wait"]),
            stage("执行 / Execute", "One attempt from send to answer.", stages["execute"]),
            timeseries(
                "各阶段均值 / Mean time of each stage", "Stacked: where a batch's time goes.", "s",
                *[(mean(metric), f"{name} {{{{test_name}}}}") for name, metric in stages.items()], stacked=True,
            ),
            timeseries(
                "在途批次 / Batches in flight", "Batches sent and not yet answered, and the most there may be.", "short",
                (f"sum(batchsql_inflight_batches{{{BATCH}}}) by (test_name)", "in flight {{test_name}}"),
                (f"sum(batchsql_executor_concurrency{{{BATCH}}}) by (test_name)", "most {{test_name}}"),
            ),
        ]),
        ("3 重试与失败 / Retries and failures", 8, [
            errors(8, "重试 / Retries", "retry:.*", "Attempts that failed and were tried again, by class."),
            errors(8, "最终错误 / Final errors", "final:.*", "What batches ended with, by class."),
            failed_batches(8),
        ]),
        ("4 响应时间与服务时间 / Response time against service time", 9, [
            timeseries(
                "响应时间 / Response time", "From a row's intended start to its acknowledgement: what users wait.", "s",
                *quantiles("batchsql_response_time_seconds", by, BATCH, legend), w=8,
            ),
            timeseries(
                "服务时间 / Service time", "From the send of a batch to its acknowledgement, retries included: what the database takes.", "ms",
                *quantiles(service, by, BATCH, legend), w=8,
            ),
            timeseries(
                "排队份额 P95 / Share of queueing", "Response over service time: far above 1, rows wait longer than they are served.", "short",
                (f"{quantile(0.95, 'batchsql_response_time_seconds', by, BATCH)} / ({quantile(0.95, service, by, BATCH)} / 1000)", legend), w=8,
            ),
            heatmap("响应时间分布 / Response time, spread", "Rows by response time, over time.", "s", "batchsql_response_time_seconds", BATCH),
            heatmap("执行时间分布 / Execution, spread", "Attempts by duration, over time.", "s", "batchsql_execute_duration_seconds", BATCH),
        ]),
    ]
    return board(
        "batchsql-batch", "批量写入 / Batch inserts", "Every stage of the batch pipeline, from a full queue to the database's answer.",
        run_variables('database!="http"'), BATCH, rows,
    )


def integrity():
    rate_now = last("batchsql_data_integrity_rate", RUN)
    unknown = last("batchsql_records_outcome_total", f'outcome="unknown", {RUN}')
    rows = [
        ("结论 / Conclusion", 6, [
            stat(
                "最低完整性率 / Lowest integrity", "The worst of the latest verifications.", "percent",
                (f"min({rate_now}) * 100", "lowest"), w=6, instant=True, steps=RIGHT, decimals=4, none=NOT_VERIFIED,
            ),
            stat(
                "已校验 / Verified", "Runs whose verification has finished.", "short", (f"count({rate_now})", "tests"), w=6, instant=True,
                none=NOT_VERIFIED,
            ),
            stat(
                "异常总数 / Anomalies", "All anomalies of the latest runs.", "short",
                (f"sum({last('batchsql_integrity_anomalies_total', RUN)})", "anomalies"), w=6, instant=True, steps=NONE, none=NOT_VERIFIED,
            ),
            stat(
                "结局未知的行 / Rows of unknown outcome", "Sent, and never answered: they may be stored or not, and are no loss either way.", "short",
                (f"sum({unknown})", "rows"), w=6, instant=True, none=NO_RUN,
            ),
        ]),
        ("按测试 / By test", 8, [
            integrity_table(12),
            table(
                "异常明细 / Anomalies by test and kind", "What the verifier found in the latest run of each test.", "short",
                f"sum by (test_name, kind) ({last('batchsql_integrity_anomalies_total', RUN)})", "", matrix=("test_name", "kind"), steps=NONE,
                none=NOT_VERIFIED,
            ),
        ]),
        ("随时间 / Over time", 8, [
            timeseries(
                "完整性率 / Integrity over time", "One step for each verification that finished.", "percent",
                (f"batchsql_data_integrity_rate{{{RUN}}} * 100", "{{database}} {{test_name}}"), w=8, none=NOT_VERIFIED, min=None, max=100,
                steps=RIGHT, color={"mode": "palette-classic"},
            ),
            timeseries(
                "完整性变化 / Change of integrity", "Against an hour before: below zero, a later run lost rows that an earlier one kept.", "percentunit",
                (f"delta(batchsql_data_integrity_rate{{{RUN}}}[1h])", "{{database}} {{test_name}}"), w=8, none=NOT_VERIFIED, min=None,
            ),
            timeseries(
                "异常 / Anomalies by kind", "Found so far, by kind.", "short",
                (f"sum(batchsql_integrity_anomalies_total{{{RUN}}}) by (kind)", "{{kind}}"), w=8, none=NOT_VERIFIED,
            ),
        ]),
        ("为何不完整 / What goes with it", 8, [
            timeseries(
                "行结局 / Rows by outcome", "Rows acknowledged, rejected and of unknown outcome a second.", "wps",
                (rate("batchsql_records_outcome_total", "test_name, outcome", RUN), "{{test_name}} {{outcome}}"), w=8,
            ),
            error_rate(8),
            errors(8),
            dropped(12),
            verdicts(12),
        ]),
    ]
    return board(
        "batchsql-integrity", "完整性 / Integrity", "Whether everything that was acknowledged is stored once, whole and right.",
        run_variables(), RUN, rows,
    )


def proxy():
    by, legend = "job, channel", "{{job}} {{channel}}"
    total, seconds = "aiproxy_requests_total", "aiproxy_response_time_seconds"
    failed = rate(total, by, f'status="error", {REQUEST}')

    def streamed(title, description, metric):
        return timeseries(title, description, "s", *quantiles(metric, "job, channel, model", MODEL, f"{legend} {{{{model}}}}"), none=NOT_STREAMED)

    rows = [
        ("速率 · 错误 · 耗时 / Rate, errors, duration", 8, [
            requests(8, REQUEST),
            timeseries(
                "错误率 / Errors", "Share of requests that failed, or whose reply did not come whole.", "percent",
                (f"{failed} / {rate(total, by, REQUEST)} * 100", legend), w=8, none=NO_REQUESTS, **PERCENT,
            ),
            timeseries(
                "耗时 P99 / P95 / P50 / Duration", "From a request to the end of its reply.", "s", *quantiles(seconds, by, MODEL, legend), w=8,
                none=NO_REQUESTS,
            ),
            stat(
                "请求数 / Requests", "Requests of the latest run or gateway, by outcome.", "short",
                (f"sum({last(total, USER)}) by (job, status)", "{{job}} {{status}}"), w=8, instant=True, none=NO_REQUESTS,
            ),
            success("成功率 / Success", "Share of requests whose reply came whole and well.", 8, USER, by),
            timeseries(
                "耗时 P95 按协议 / Duration by protocol", "http, https, sse (streams), websocket.", "s",
                (quantile(0.95, seconds, "job, protocol", MODEL), "{{job}} {{protocol}}"), w=8, none=NO_REQUESTS,
            ),
        ]),
        ("流 / Streams", 9, [
            streamed("首个 token / Time to first token", "From a request to the first token with content.", "aiproxy_time_to_first_token_seconds"),
            streamed("token 间隔 / Time between tokens", "Every gap, pooled.", "aiproxy_inter_token_latency_seconds"),
        ]),
        ("token 与费用 / Tokens and cost", 8, [
            timeseries(
                "token 速率 / Tokens per second", "Tokens of prompts and of completions.", "short",
                (rate("aiproxy_tokens_total", f"{by}, kind", MODEL), f"{legend} {{{{kind}}}}"), w=8, stacked=True, none=NO_REQUESTS,
            ),
            bargauge(
                "token 总数 / Tokens by model", "Of the latest run or gateway.", "short",
                (f"sum({last('aiproxy_tokens_total', MODEL)}) by (job, model, kind)", "{{job}} {{model}} {{kind}}"), w=8, none=NO_REQUESTS,
            ),
            timeseries(
                "费用 / Cost per hour", "At the configured prices, in their currency.", "short",
                (f"{rate('aiproxy_cost_total', f'{by}, model', MODEL)} * 3600", f"{legend} {{{{model}}}}"), w=8, none=NO_REQUESTS,
            ),
        ]),
        ("用户与渠道 / Users and channels", 8, [
            bargauge(
                "请求最多的用户 / Busiest users", "Requests in the range shown, by user.", "short",
                (f"topk(10, sum(increase({total}{{{USER}}}[$__range])) by (job, user_name))", "{{job}} {{user_name}}"), w=8, decimals=0, none=NO_REQUESTS,
            ),
            success("用户成功率 / Success by user", "Share of requests whose reply came whole and well.", 8, USER, "job, user_name"),
            timeseries(
                "渠道速率 / Requests by channel", "How requests are shared out among the channels.", "reqps", (rate(total, by, USER), legend), w=8,
                stacked=True, none=NO_REQUESTS,
            ),
        ]),
        ("大小 / Sizes", 8, [
            timeseries(
                "请求体 P95 / P50 / Request bodies", "Bytes of the bodies of requests.", "bytes",
                *[(quantile(q, "aiproxy_request_body_bytes", by, CHANNEL), f"{p} {legend}") for p, q in (("P95", 0.95), ("P50", 0.5))], w=8, none=NO_REQUESTS,
            ),
            timeseries(
                "响应体 P95 / P50 / Response bodies", "Bytes of the bodies of replies.", "bytes",
                *[(quantile(q, "aiproxy_response_body_bytes", by, CHANNEL), f"{p} {legend}") for p, q in (("P95", 0.95), ("P50", 0.5))], w=8, none=NO_REQUESTS,
            ),
            timeseries(
                "最近大小 / Last sizes", "Body of the last request and of the last reply, by user.", "bytes",
                (f"max(aiproxy_request_size_bytes{{{USER}}}) by (job, user_name)", "request {{job}} {{user_name}}"),
                (f"max(aiproxy_response_size_bytes{{{USER}}}) by (job, user_name)", "reply {{job}} {{user_name}}"), w=8, none=NO_REQUESTS,
            ),
        ]),
        ("网关 / Gateway", 6, [
            stat(
                "运行时间 / Uptime", "Since the process began to count.", "s",
                (f'max(aiproxy_uptime_seconds{{job=~"$job", {ENV}}}) by (job)', "{{job}}"), w=6, none=NO_GATEWAY,
            ),
            stat(
                "API 密钥 / API keys", "Keys the gateway knows.", "short", (f"max({last('aiproxy_api_keys_total', ENV)}) by (job)", "{{job}}"), w=6,
                instant=True, none=NO_GATEWAY,
            ),
            stat(
                "WAL", "Write-ahead log of the gateway's SQLite file; 0 with another database.", "bytes",
                (f"max(aiproxy_sqlite_wal_bytes{{{ENV}}}) or vector(0)", "WAL"), w=6, none=NO_GATEWAY,
            ),
            stat(
                "WebSocket", "Sessions that have ended.", "short",
                (f"sum by (job) ({last('aiproxy_websocket_connections_total', CHANNEL)}) or on() {zero('job', 'none')}", "{{job}}"), w=6, instant=True, none=NO_REQUESTS,
            ),
        ]),
        ("运行 / The run behind it", 8, [
            timeseries(
                "响应时间 / Response time", "From a request's intended start to its acknowledgement.", "s",
                *quantiles("batchsql_response_time_seconds", "test_name", HTTP, "{{test_name}}"), w=8, none=NO_RUN,
            ),
            timeseries(
                "错误率 / Error rate", "(rejected + unknown) / attempted requests over the last 10 s.", "percentunit",
                (f"batchsql_error_rate{{{HTTP}}}", "{{test_name}}"), w=8, none=NO_RUN, max=1,
            ),
            integrity_table(8, HTTP),
        ]),
    ]
    variables = [
        variable("test_name", "测试 / Test", 'label_values(batchsql_tests_run_total{database="http"}, test_name)'),
        env_variable(),
        variable("job", "视角 / Seen by", f"label_values({total}, job)"),
        variable("channel", "渠道 / Channel", f'label_values({total}{{job=~"$job"}}, channel)'),
        variable("user_name", "用户 / User", f'label_values({total}{{job=~"$job", channel=~"$channel"}}, user_name)'),
        variable("model", "模型 / Model", f'label_values({total}{{job=~"$job", channel=~"$channel"}}, model)'),
    ]
    description = "Requests to gateways and models: as the client sees them (job batchsql) and as the gateway does."
    return board("batchsql-proxy", "代理 / Proxy", description, variables, HTTP, rows)


def compare():
    sides = [f'test_name="${name}", {ENV}' for name in ("test_a", "test_b")]

    def exact(q):
        return lambda which: f"histogram_quantile({q}, sum by (le) ({last('batchsql_response_time_seconds_bucket', which)}))"

    def speed(which):
        # A run shorter than a scrape is never seen at work: what was seen of it is its peak.
        rows = f"batchsql_current_rps{{{which}}}"
        return f"sum(avg_over_time(({rows} > 0)[$__range:5s]) or max_over_time({rows}[$__range]))"

    def failing(which):
        lost = last("batchsql_records_outcome_total", f'outcome!="acknowledged", {which}')
        return f"100 * sum({lost}) / sum({last('batchsql_records_outcome_total', which)})"

    def pair(title, description, unit, expr, better, **more):
        """A and B beside the change from one to the other; `better` is `up`, `down`, or None where shares are subtracted."""
        a, b = (expr(side) for side in sides)
        steps = [("red", -1e9), ("yellow", -5), ("green", 0)] if better == "up" else [("green", -1e9), ("yellow", 0), ("red", 5)]
        change = f"(({b}) / ({a}) - 1) * 100" if better else f"({b}) - ({a})"
        what = "B against A, in percent of A." if better else "B minus A, in percentage points."
        return [
            stat(title, description, unit, (a, "A $test_a"), (b, "B $test_b"), w=8, instant=True, **more),
            stat(f"{title.split(' / ')[0]} Δ / Change", what, "percent", (change, "B : A"), w=4, instant=True, decimals=2, steps=steps if better else None),
        ]

    def beside(title, description, unit, query, **more):
        return [
            timeseries(f"{name} · {title}", description, unit, *query(side), **more)
            for name, side in zip(("A $test_a", "B $test_b"), sides)
        ]

    rows = [
        ("总体 / In all", 5, [
            *pair("完整性率 / Integrity", "Rows found right, the latest runs.", "percent", lambda w: f"min({last('batchsql_data_integrity_rate', w)}) * 100", None, none=NOT_VERIFIED, decimals=4, steps=RIGHT),
            *pair("失败 / Failed", "Rows or requests rejected or of unknown outcome.", "percent", failing, None, none=NO_RUN),
            *pair("速度 / Rows per second", "Mean over the seconds in which rows or requests were acknowledged.", "short", speed, "up", none=NO_RUN),
            *pair("批次 P95 / Batch P95", "One batch from send to acknowledgement.", "ms", lambda w: f"histogram_quantile(0.95, sum by (le) ({last('batchsql_batch_execution_duration_ms_bucket', w)}))", "down", none=NO_RUN),
            *pair("响应 P50 / Response P50", "From intended start to acknowledgement, all of the latest runs.", "s", exact(0.5), "down", none=NO_RUN),
            *pair("响应 P95 / Response P95", "From intended start to acknowledgement, all of the latest runs.", "s", exact(0.95), "down", none=NO_RUN),
            *pair("响应 P99 / Response P99", "From intended start to acknowledgement, all of the latest runs.", "s", exact(0.99), "down", none=NO_RUN),
            *pair("内存 / Memory", "Most memory the harness had resident.", "bytes", lambda w: f"max(max_over_time(batchsql_memory_usage_bytes{{{w}}}[$__range]))", "down", none=NO_RUN),
        ]),
        ("并列 / Side by side", 8, [
            *beside("RPS / Rows per second", "Rows or requests acknowledged a second.", "short", lambda w: [(f"sum(batchsql_current_rps{{{w}}}) by (database)", "{{database}}")]),
            *beside("响应时间 / Response time", "From intended start to acknowledgement.", "s", lambda w: quantiles("batchsql_response_time_seconds", "database", w, "{{database}}")),
            *beside("服务时间 / Service time", "One attempt from send to answer.", "s", lambda w: quantiles("batchsql_execute_duration_seconds", "database", w, "{{database}}")),
            *beside("错误率 / Error rate", "(rejected + unknown) / attempted over the last 10 s.", "percentunit", lambda w: [(f"batchsql_error_rate{{{w}}}", "{{database}}")], max=1),
        ]),
    ]
    variables = [
        env_variable(),
        variable("test_a", "A", "label_values(batchsql_tests_run_total, test_name)", several=False),
        variable("test_b", "B", "label_values(batchsql_tests_run_total, test_name)", several=False),
    ]
    description = "Two tests side by side. It shows; whether a difference is more than noise, only repeated runs can tell."
    return board("batchsql-compare", "对比 / Compare", description, variables, f'test_name=~"$test_a|$test_b", {ENV}', rows)


def machine():
    disk = 'fstype!~"tmpfs|overlay|squashfs|ramfs"'
    return [
        timeseries(
            "CPU", "Time not idle, of all cores.", "percent",
            ('100 * (1 - avg by (instance) (rate(node_cpu_seconds_total{mode="idle"}[$__rate_interval])))', "{{instance}}"), w=8, steps=CPU,
            color={"mode": "palette-classic"}, none=NO_EXPORTER, **PERCENT,
        ),
        timeseries(
            "内存 / Memory", "Memory that is not available.", "percent",
            ("100 * (1 - node_memory_MemAvailable_bytes / node_memory_MemTotal_bytes)", "{{instance}}"), w=8, steps=FULL,
            color={"mode": "palette-classic"}, none=NO_EXPORTER, **PERCENT,
        ),
        timeseries(
            "磁盘 / Disk", "Space used, by file system.", "percent",
            (f"100 * (1 - node_filesystem_avail_bytes{{{disk}}} / node_filesystem_size_bytes{{{disk}}})", "{{instance}} {{mountpoint}}"), w=8,
            steps=[("green", 0), ("yellow", 85), ("red", 90)], color={"mode": "palette-classic"}, none=NO_EXPORTER, **PERCENT,
        ),
        timeseries(
            "磁盘忙 / Disk busy", "Share of time in which a request was under way.", "percentunit",
            ("rate(node_disk_io_time_seconds_total[$__rate_interval])", "{{instance}} {{device}}"), w=8, none=NO_EXPORTER, max=1,
        ),
        timeseries(
            "网络 / Network", "Bytes received and sent a second, loopback left out.", "Bps",
            ('sum by (instance) (rate(node_network_receive_bytes_total{device!="lo"}[$__rate_interval]))', "in {{instance}}"),
            ('sum by (instance) (rate(node_network_transmit_bytes_total{device!="lo"}[$__rate_interval]))', "out {{instance}}"), w=8, none=NO_EXPORTER,
        ),
        timeseries(
            "负载 / Load", "Tasks that run or wait, over one minute, a core.", "short",
            ('node_load1 / on (instance) count by (instance) (node_cpu_seconds_total{mode="idle"})', "{{instance}}"), w=8, none=NO_EXPORTER,
        ),
    ]


def postgres():
    own = 'datname!~"template.*"'

    def per_second(*names):
        return [(f"sum by (instance) (rate(pg_stat_database_{name}{{{own}}}[$__rate_interval]))", f"{name} {{{{instance}}}}") for name in names]

    hit, read = (f"sum by (instance) (rate(pg_stat_database_blks_{kind}{{{own}}}[$__rate_interval]))" for kind in ("hit", "read"))
    return [
        timeseries("事务 / Transactions", "Committed and rolled back a second.", "ops", *per_second("xact_commit", "xact_rollback"), w=8, none=NO_EXPORTER),
        timeseries("行 / Rows written", "Rows inserted, updated and deleted a second.", "wps", *per_second("tup_inserted", "tup_updated", "tup_deleted"), w=8, none=NO_EXPORTER),
        timeseries(
            "连接 / Connections", "Sessions by state, and the most there may be.", "short",
            (f"sum by (instance, state) (pg_stat_activity_count{{{own}}})", "{{state}} {{instance}}"),
            ("max by (instance) (pg_settings_max_connections)", "most {{instance}}"), w=8, none=NO_EXPORTER,
        ),
        timeseries("缓存命中 / Cache hits", "Share of blocks found in the server's own cache.", "percentunit", (f"{hit} / ({hit} + {read})", "{{instance}}"), w=8, none=NO_EXPORTER, max=1),
        timeseries(
            "锁与死锁 / Locks and deadlocks", "Locks held or awaited; deadlocks a second.", "short",
            (f"sum by (instance) (pg_locks_count{{{own}}})", "locks {{instance}}"), *per_second("deadlocks"), w=8, none=NO_EXPORTER,
        ),
        timeseries("大小 / Size", "Of each database.", "bytes", (f"pg_database_size_bytes{{{own}}}", "{{datname}} {{instance}}"), w=8, none=NO_EXPORTER),
    ]


def mysql():
    def per_second(name, legend):
        return (f"rate(mysql_global_status_{name}[$__rate_interval])", legend)

    commands = 'commands_total{command=~"insert|replace|update|delete|commit|rollback"}'
    return [
        timeseries("命令 / Commands", "Statements a second, by kind.", "ops", per_second(commands, "{{command}} {{instance}}"), w=8, none=NO_EXPORTER),
        timeseries(
            "行 / Rows written", "Rows written, updated and deleted a second, as the storage engine counts them.", "wps",
            per_second('handlers_total{handler=~"write|update|delete"}', "{{handler}} {{instance}}"), w=8, none=NO_EXPORTER,
        ),
        timeseries(
            "连接 / Connections", "Threads connected and running, and the most there may be.", "short",
            ("mysql_global_status_threads_connected", "connected {{instance}}"), ("mysql_global_status_threads_running", "running {{instance}}"),
            ("mysql_global_variables_max_connections", "most {{instance}}"), w=8, none=NO_EXPORTER,
        ),
        timeseries(
            "InnoDB 缓存未命中 / Buffer pool misses", "Share of page reads that had to go to disk.", "percentunit",
            ("rate(mysql_global_status_innodb_buffer_pool_reads[$__rate_interval]) / rate(mysql_global_status_innodb_buffer_pool_read_requests[$__rate_interval])", "{{instance}}"),
            w=8, none=NO_EXPORTER,
        ),
        timeseries(
            "行锁等待与慢查询 / Row lock waits and slow queries", "A second.", "ops",
            per_second("innodb_row_lock_waits", "lock waits {{instance}}"), per_second("slow_queries", "slow {{instance}}"), w=8, none=NO_EXPORTER,
        ),
        timeseries(
            "流量 / Traffic", "Bytes received and sent a second.", "Bps",
            per_second("bytes_received", "in {{instance}}"), per_second("bytes_sent", "out {{instance}}"), w=8, none=NO_EXPORTER,
        ),
    ]


def system():
    rows = [
        ("采集目标 / Scrape targets", 6, [
            table("目标 / Targets", "Whether the last scrape of each target succeeded.", "short", "sum by (job, instance) (up)", "up", w=12, mappings=UP),
            stat("数据库 / Databases", "As their exporters see them.", "short", ("max(pg_up) by (job)", "{{job}}"), ("max(mysql_up) by (job)", "{{job}}"), w=6, instant=True, mappings=UP, none=NO_EXPORTER),
            stat(
                "丢弃的序列 / Series refused", "Series of the harness beyond its limit; what they count is not shown.", "short",
                (f"sum({last('batchsql_series_dropped_total', ENV)})", "series"), w=6, instant=True, steps=NONE, none=NO_RUN,
            ),
        ]),
        ("harness", 8, [
            harness_memory(8),
            timeseries(
                "连接 / Connections", "Connections of the pool in use, and the most there may be.", "short",
                (f"batchsql_active_connections{{{POOL}}}", "in use {{database}}"), (f"batchsql_max_connections{{{POOL}}}", "most {{database}}"), w=8,
            ),
            timeseries(
                "并发 / Concurrency", "Workers that offer load, and batches or requests in flight.", "short",
                (f"sum(batchsql_concurrent_workers{{{RUN}}}) by (test_name)", "workers {{test_name}}"),
                (f"sum(batchsql_inflight_batches{{{RUN}}}) by (test_name)", "in flight {{test_name}}"), w=8,
            ),
        ]),
        ("机器 / Machine", 8, machine()),
        ("Postgres", 8, postgres()),
        ("MySQL / MariaDB", 8, mysql()),
    ]
    return board(
        "batchsql-system", "系统 / System", "The harness, the machine and the databases' own counters.", run_variables(), RUN, rows,
    )


BOARDS = [overview, performance, batch, integrity, proxy, compare, system]


def main():
    folder = pathlib.Path(__file__).parent / "dashboards"
    boards = [make() for make in BOARDS]
    wanted = {f"{made['uid']}.json": json.dumps(made, ensure_ascii=False, indent=2) + "\n" for made in boards}
    if sys.argv[1:] == ["--check"]:
        committed = {file.name: file.read_text(encoding="utf-8") for file in folder.glob("*.json")}
        stale = sorted(name for name in wanted.keys() | committed.keys() if wanted.get(name) != committed.get(name))
        if stale:
            sys.exit(f"grafana/dashboards: {', '.join(stale)} differ from what grafana/boards.py says; run python3 grafana/boards.py")
    else:
        for name, text in wanted.items():
            (folder / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
