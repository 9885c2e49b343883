"""Boards of runs: overview, performance, integrity, and two tests beside each other."""

from .pieces import NONE, RIGHT, board, last, quantile, quantiles, rate, stat, table, timeseries, variable
from .shared import (
    BATCH,
    ENV,
    NO_REQUESTS,
    NO_RUN,
    NOT_STREAMED,
    NOT_VERIFIED,
    POOL,
    RUN,
    VERDICTS,
    acknowledged,
    anomalies,
    buffer_use,
    dropped,
    env_variable,
    error_rate,
    errors,
    failed_batches,
    harness_memory,
    in_flight,
    integrity_table,
    live_rps,
    pool_use,
    requests,
    rps,
    run_active,
    run_variables,
    success,
    verdicts,
)


def overview():
    by = "database, test_name"
    rows = [
        (
            "判定与完整性 / Verdicts and integrity",
            7,
            [
                table(
                    "判定 / Verdicts",
                    "How the latest runs of each test ended.",
                    "short",
                    f"sum by ({by}, result) ({last('batchsql_tests_run_total', RUN)}) > 0",
                    "runs",
                    w=8,
                    none=NO_RUN,
                    overrides=[
                        {
                            "matcher": {"id": "byName", "options": "result"},
                            "properties": [
                                {
                                    "id": "mappings",
                                    "value": [
                                        {"type": "value", "options": {result: {"color": color} for result, color in VERDICTS.items()}}
                                    ],
                                },
                                {"id": "custom.cellOptions", "value": {"type": "color-text"}},
                            ],
                        }
                    ],
                ),
                integrity_table(8),
                anomalies(8),
            ],
        ),
        (
            "速度 / Speed",
            8,
            [
                live_rps(6),
                acknowledged(6),
                run_active(6),
                verdicts(6),
                rps(12),
                timeseries(
                    "响应时间 P95 / Response time",
                    "From a row's or request's intended start to its acknowledgement.",
                    "s",
                    (quantile(0.95, "batchsql_response_time_seconds", by, RUN), "{{database}} {{test_name}}"),
                ),
            ],
        ),
        (
            "错误与请求 / Errors and requests",
            8,
            [
                error_rate(8),
                requests(8, ENV, "job, channel"),
                success("请求成功率 / Success", "Share of requests whose reply came whole and well.", 8, ENV, "job, channel"),
            ],
        ),
        (
            "目标与 harness / Targets and the harness",
            8,
            [
                table(
                    "目标 / Targets",
                    "Each target as it names itself.",
                    "short",
                    f"max by (database, name, version) ({last('batchsql_target_info', POOL)})",
                    "seen",
                    w=8,
                    none=NO_RUN,
                ),
                harness_memory(8),
                pool_use(8),
            ],
        ),
    ]
    return board(
        "batchsql-overview",
        "总览 / Overview",
        "Verdicts and integrity first, then speed: a run that lost a row has none.",
        run_variables(),
        RUN,
        rows,
    )


def performance():
    by, legend = "database", "{{database}}"
    stages = [
        ("enqueue", "enqueue_latency"),
        ("assemble", "batch_assemble_duration"),
        ("pool wait", "pool_wait"),
        ("execute", "execute_duration"),
    ]
    duration = "batchsql_batch_execution_duration_ms"
    rows = [
        ("概览 / Overview", 6, [live_rps(6), acknowledged(6), integrity_table(8), run_active(4)]),
        (
            "速度 / Speed",
            9,
            [
                rps(12),
                timeseries(
                    "批次执行耗时 P95 / P50 / Batch execution time",
                    "One batch from send to acknowledgement.",
                    "ms",
                    (quantile(0.95, duration, by, RUN), f"P95 {legend}"),
                    (quantile(0.5, duration, by, RUN), f"P50 {legend}"),
                ),
                timeseries(
                    "响应时间 P99 / P95 / P50 / Response time",
                    "From a row's intended start to its acknowledgement.",
                    "s",
                    *quantiles("batchsql_response_time_seconds", by, RUN, legend),
                ),
                timeseries(
                    "批次大小 P50 / Batch size",
                    "Rows in a batch: below the flush size, the interval flushes first.",
                    "short",
                    (quantile(0.5, "batchsql_batch_size", by, BATCH), f"P50 {legend}"),
                ),
            ],
        ),
        (
            "流水线 / Pipeline stages",
            9,
            [
                timeseries(
                    "阶段耗时 P95 / Stages",
                    "Where a row's time goes: room in the queue, filling the batch, a connection, the database.",
                    "s",
                    *[
                        (quantile(0.95, f"batchsql_{metric}_seconds", "test_name", BATCH), f"{name} {{{{test_name}}}}")
                        for name, metric in stages
                    ],
                ),
                buffer_use(6),
                in_flight(6),
            ],
        ),
        ("质量 / Quality", 8, [error_rate(8), failed_batches(8), errors(8), anomalies(12), dropped(6), verdicts(6)]),
        ("资源 / Resources", 8, [harness_memory(12), pool_use(12)]),
        (
            "请求 / Requests",
            9,
            [
                requests(12, ENV),
                success("请求成功率 / Success", "Share of requests whose reply came whole and well.", 12, ENV, "job, channel"),
                timeseries(
                    "请求耗时 P95 / Request time",
                    "From a request to the end of its reply.",
                    "s",
                    (quantile(0.95, "aiproxy_response_time_seconds", "job, channel, protocol", ENV), "{{job}} {{channel}} {{protocol}}"),
                    w=8,
                    none=NO_REQUESTS,
                ),
                timeseries(
                    "首个 token 耗时 P95 / Time to first token",
                    "Streams: from a request to the first token with content.",
                    "s",
                    (quantile(0.95, "aiproxy_time_to_first_token_seconds", "job, channel, model", ENV), "{{job}} {{channel}} {{model}}"),
                    w=8,
                    none=NOT_STREAMED,
                ),
                timeseries(
                    "token 间隔 P95 / Time between tokens",
                    "Streams: every gap, pooled.",
                    "s",
                    (quantile(0.95, "aiproxy_inter_token_latency_seconds", "job, channel, model", ENV), "{{job}} {{channel}} {{model}}"),
                    w=8,
                    none=NOT_STREAMED,
                ),
            ],
        ),
    ]
    return board(
        "batchsql-performance", "性能 / Performance", "Throughput, latency and integrity of batchsql runs.", run_variables(), RUN, rows
    )


def integrity():
    rate_now = last("batchsql_data_integrity_rate", RUN)
    unknown = last("batchsql_records_outcome_total", f'outcome="unknown", {RUN}')
    rows = [
        (
            "结论 / Conclusion",
            6,
            [
                stat(
                    "最低完整性率 / Lowest integrity",
                    "The worst of the latest verifications.",
                    "percent",
                    (f"min({rate_now}) * 100", "lowest"),
                    w=6,
                    instant=True,
                    steps=RIGHT,
                    decimals=4,
                    none=NOT_VERIFIED,
                ),
                stat(
                    "已校验 / Verified",
                    "Runs whose verification has finished.",
                    "short",
                    (f"count({rate_now})", "tests"),
                    w=6,
                    instant=True,
                    none=NOT_VERIFIED,
                ),
                stat(
                    "异常总数 / Anomalies",
                    "All anomalies of the latest runs.",
                    "short",
                    (f"sum({last('batchsql_integrity_anomalies_total', RUN)})", "anomalies"),
                    w=6,
                    instant=True,
                    steps=NONE,
                    none=NOT_VERIFIED,
                ),
                stat(
                    "结局未知的行 / Rows of unknown outcome",
                    "Sent, and never answered: they may be stored or not, and are no loss either way.",
                    "short",
                    (f"sum({unknown})", "rows"),
                    w=6,
                    instant=True,
                    none=NO_RUN,
                ),
            ],
        ),
        (
            "按测试 / By test",
            8,
            [
                integrity_table(12),
                table(
                    "异常明细 / Anomalies by test and kind",
                    "What the verifier found in the latest run of each test.",
                    "short",
                    f"sum by (test_name, kind) ({last('batchsql_integrity_anomalies_total', RUN)})",
                    "",
                    matrix=("test_name", "kind"),
                    steps=NONE,
                    none=NOT_VERIFIED,
                ),
            ],
        ),
        (
            "随时间 / Over time",
            8,
            [
                timeseries(
                    "完整性率 / Integrity over time",
                    "One step for each verification that finished.",
                    "percent",
                    (f"batchsql_data_integrity_rate{{{RUN}}} * 100", "{{database}} {{test_name}}"),
                    w=8,
                    none=NOT_VERIFIED,
                    min=None,
                    max=100,
                    steps=RIGHT,
                    color={"mode": "palette-classic"},
                ),
                timeseries(
                    "完整性变化 / Change of integrity",
                    "Against an hour before: below zero, a later run lost rows that an earlier one kept.",
                    "percentunit",
                    (f"delta(batchsql_data_integrity_rate{{{RUN}}}[1h])", "{{database}} {{test_name}}"),
                    w=8,
                    none=NOT_VERIFIED,
                    min=None,
                ),
                timeseries(
                    "异常 / Anomalies by kind",
                    "Found so far, by kind.",
                    "short",
                    (f"sum(batchsql_integrity_anomalies_total{{{RUN}}}) by (kind)", "{{kind}}"),
                    w=8,
                    none=NOT_VERIFIED,
                ),
            ],
        ),
        (
            "为何不完整 / What goes with it",
            8,
            [
                timeseries(
                    "行结局 / Rows by outcome",
                    "Rows acknowledged, rejected and of unknown outcome a second.",
                    "rowsps",
                    (rate("batchsql_records_outcome_total", "test_name, outcome", RUN), "{{test_name}} {{outcome}}"),
                    w=8,
                ),
                error_rate(8),
                errors(8),
                dropped(12),
                verdicts(12),
            ],
        ),
    ]
    return board(
        "batchsql-integrity",
        "完整性 / Integrity",
        "Whether everything that was acknowledged is stored once, whole and right.",
        run_variables(),
        RUN,
        rows,
    )


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
            stat(
                f"{title.split(' / ')[0]} Δ / Change",
                what,
                "percent",
                (change, "B : A"),
                w=4,
                instant=True,
                decimals=2,
                steps=steps if better else None,
            ),
        ]

    def beside(title, description, unit, query, **more):
        return [
            timeseries(f"{name} · {title}", description, unit, *query(side), **more)
            for name, side in zip(("A $test_a", "B $test_b"), sides)
        ]

    rows = [
        (
            "总体 / In all",
            5,
            [
                *pair(
                    "完整性率 / Integrity",
                    "Rows found right, the latest runs.",
                    "percent",
                    lambda w: f"min({last('batchsql_data_integrity_rate', w)}) * 100",
                    None,
                    none=NOT_VERIFIED,
                    decimals=4,
                    steps=RIGHT,
                ),
                *pair("失败 / Failed", "Rows or requests rejected or of unknown outcome.", "percent", failing, None, none=NO_RUN),
                *pair(
                    "速度 / Rows per second",
                    "Mean over the seconds in which rows or requests were acknowledged.",
                    "short",
                    speed,
                    "up",
                    none=NO_RUN,
                ),
                *pair(
                    "批次 P95 / Batch P95",
                    "One batch from send to acknowledgement.",
                    "ms",
                    lambda w: f"histogram_quantile(0.95, sum by (le) ({last('batchsql_batch_execution_duration_ms_bucket', w)}))",
                    "down",
                    none=NO_RUN,
                ),
                *pair(
                    "响应 P50 / Response P50",
                    "From intended start to acknowledgement, all of the latest runs.",
                    "s",
                    exact(0.5),
                    "down",
                    none=NO_RUN,
                ),
                *pair(
                    "响应 P95 / Response P95",
                    "From intended start to acknowledgement, all of the latest runs.",
                    "s",
                    exact(0.95),
                    "down",
                    none=NO_RUN,
                ),
                *pair(
                    "响应 P99 / Response P99",
                    "From intended start to acknowledgement, all of the latest runs.",
                    "s",
                    exact(0.99),
                    "down",
                    none=NO_RUN,
                ),
                *pair(
                    "内存 / Memory",
                    "Most memory the harness had resident.",
                    "bytes",
                    lambda w: f"max(max_over_time(batchsql_memory_usage_bytes{{{w}}}[$__range]))",
                    "down",
                    none=NO_RUN,
                ),
            ],
        ),
        (
            "并列 / Side by side",
            8,
            [
                *beside(
                    "RPS / Rows per second",
                    "Rows or requests acknowledged a second.",
                    "short",
                    lambda w: [(f"sum(batchsql_current_rps{{{w}}}) by (database)", "{{database}}")],
                ),
                *beside(
                    "响应时间 / Response time",
                    "From intended start to acknowledgement.",
                    "s",
                    lambda w: quantiles("batchsql_response_time_seconds", "database", w, "{{database}}"),
                ),
                *beside(
                    "服务时间 / Service time",
                    "One attempt from send to answer.",
                    "s",
                    lambda w: quantiles("batchsql_execute_duration_seconds", "database", w, "{{database}}"),
                ),
                *beside(
                    "错误率 / Error rate",
                    "(rejected + unknown) / attempted over the last 10 s.",
                    "percentunit",
                    lambda w: [(f"batchsql_error_rate{{{w}}}", "{{database}}")],
                    max=1,
                ),
            ],
        ),
    ]
    variables = [
        env_variable(),
        variable("test_a", "A", "label_values(batchsql_tests_run_total, test_name)", several=False),
        variable("test_b", "B", "label_values(batchsql_tests_run_total, test_name)", several=False),
    ]
    description = "Two tests side by side. It shows; whether a difference is more than noise, only repeated runs can tell."
    return board("batchsql-compare", "对比 / Compare", description, variables, f'test_name=~"$test_a|$test_b", {ENV}', rows)
