"""What several boards share: which series they select, their variables, and panels."""

from .pieces import NONE, PERCENT, RIGHT, last, rate, stat, table, timeseries, variable, zero

ENV = 'env=~"$env"'
RUN = f'database=~"$database", test_name=~"$test_name", {ENV}'
TEST = f'test_name=~"$test_name", {ENV}'
# Of these batches are counted; of a service, requests.
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

RUNNING = [
    {"type": "value", "options": {"0": {"text": "空闲 / idle", "index": 0}, "1": {"text": "运行 / runs", "color": "green", "index": 1}}}
]
UP = [{"type": "value", "options": {"0": {"text": "down", "color": "red", "index": 0}, "1": {"text": "up", "color": "green", "index": 1}}}]


VERDICTS = {"pass": "green", "fail": "red", "inconclusive": "yellow"}


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
        "percent",
        f"{last('batchsql_data_integrity_rate', which)} * 100",
        "integrity %",
        w=width,
        steps=RIGHT,
        decimals=4,
        none=NOT_VERIFIED,
    )


def live_rps(width):
    return stat(
        "实时 RPS / Live rows per second",
        "Rows acknowledged over the last second, by database. Of a service, requests.",
        "short",
        (f"sum(batchsql_current_rps{{{RUN}}}) by (database)", "{{database}}"),
        w=width,
        none=NO_RUN,
    )


def acknowledged(width):
    return stat(
        "累计处理记录数 / Rows acknowledged",
        "All rows acknowledged by the latest runs in the range.",
        "short",
        (f"sum({last('batchsql_records_processed_total', RUN)})", "rows"),
        w=width,
        instant=True,
        none=NO_RUN,
    )


def run_active(width):
    return stat(
        "运行中 / Run active",
        "Whether phase main runs.",
        "short",
        (f"max(batchsql_run_active{{{RUN}}}) by (database)", "{{database}}"),
        w=width,
        none=NO_RUN,
        mappings=RUNNING,
    )


def rps(width):
    return timeseries(
        "RPS 趋势 / Rows per second over time",
        "Rows acknowledged a second, by database and table.",
        "short",
        (f"sum(batchsql_current_rps{{{RUN}}}) by (database, table)", "{{database}} {{table}}"),
        w=width,
    )


def error_rate(width):
    return timeseries(
        "错误率 / Error rate",
        "(rejected + unknown) / attempted rows over the last 10 s.",
        "percentunit",
        (f"batchsql_error_rate{{{RUN}}}", "{{database}} {{test_name}}"),
        w=width,
        max=1,
    )


def errors(width, title="错误分类 / Errors by class", kind=".*", description="retry: tried again; final: the batch ended with it."):
    classes = rate("batchsql_errors_total", "error_type", f'error_type=~"{kind}", {RUN}')
    return timeseries(title, description, "short", (f"{classes} > 0 or on() {zero('error_type', 'none')}", "{{error_type}}"), w=width)


def anomalies(width):
    return stat(
        "完整性异常 / Integrity anomalies",
        "What the verifier found in the latest runs, by class.",
        "short",
        (f"sum({last('batchsql_integrity_anomalies_total', RUN)}) by (kind)", "{{kind}}"),
        w=width,
        instant=True,
        steps=NONE,
        none=NOT_VERIFIED,
    )


def dropped(width):
    return stat(
        "丢弃的操作 / Dropped operations",
        "Operations the schedule asked for that could not start.",
        "short",
        (f"sum({last('batchsql_dropped_total', TEST)}) by (test_name)", "{{test_name}}"),
        w=width,
        instant=True,
        steps=NONE,
    )


def verdicts(width):
    return stat(
        "测试结果 / Runs by verdict",
        "Verdicts of the latest runs.",
        "short",
        (f"sum({last('batchsql_tests_run_total', RUN)}) by (result)", "{{result}}"),
        w=width,
        instant=True,
        none=NO_RUN,
        overrides=[
            {
                "matcher": {"id": "byName", "options": result},
                "properties": [{"id": "color", "value": {"mode": "fixed", "fixedColor": color}}],
            }
            for result, color in VERDICTS.items()
        ],
    )


def harness_memory(width):
    return timeseries(
        "内存 / Memory",
        "Resident set of the harness.",
        "mbytes",
        (f"batchsql_memory_usage_bytes{{{RUN}}} / 1024 / 1024", "{{database}} {{test_name}}"),
        w=width,
    )


def pool_use(width):
    return timeseries(
        "连接 / Connections",
        "Share of the pool in use.",
        "percentunit",
        (f"batchsql_active_connections{{{POOL}}} / on(instance, database) group_left() batchsql_max_connections{{{POOL}}}", "{{database}}"),
        w=width,
        max=1,
    )


def buffer_use(width):
    return timeseries(
        "缓冲区使用率 / Buffer use",
        "Queue length / buffer size.",
        "percentunit",
        (f"avg(batchsql_buffer_utilization{{{RUN}}}) by (database, test_name)", "{{database}} {{test_name}}"),
        w=width,
        max=1,
    )


def in_flight(width):
    return timeseries(
        "在途批次与队列 / In flight and queued",
        "Batches sent and not yet answered; rows waiting.",
        "short",
        (f"sum(batchsql_inflight_batches{{{RUN}}}) by (test_name)", "batches {{test_name}}"),
        (f"sum(batchsql_executor_concurrency{{{RUN}}}) by (test_name)", "most batches {{test_name}}"),
        (f"sum(batchsql_pipeline_queue_length{{{RUN}}}) by (test_name)", "rows {{test_name}}"),
        w=width,
    )


def failed_batches(width):
    failed, succeeded = (rate(f"batchsql_batch_{end}_total", "database", RUN) for end in ("failed", "success"))
    return timeseries(
        "批次失败率 / Failed batches",
        "Share of batches that were rejected or of unknown outcome.",
        "percentunit",
        (f"{failed} / ({succeeded} + {failed})", "{{database}}"),
        w=width,
        max=1,
    )


def success(title, description, width, which, by):
    right = rate("aiproxy_requests_total", by, f'status="success", {which}')
    legend = " ".join(f"{{{{{label}}}}}" for label in by.split(", "))
    return timeseries(
        title,
        description,
        "percent",
        (f"{right} / {rate('aiproxy_requests_total', by, which)} * 100", legend),
        w=width,
        none=NO_REQUESTS,
        **PERCENT,
    )


def requests(width, which, by="job, channel, protocol"):
    legend = " ".join(f"{{{{{label}}}}}" for label in by.split(", "))
    return timeseries(
        "请求速率 / Requests per second",
        f"Requests that have ended, by {by}.",
        "reqps",
        (rate("aiproxy_requests_total", by, which), legend),
        w=width,
        none=NO_REQUESTS,
    )
