"""The board of requests to gateways and models."""

from .pieces import PERCENT, bargauge, board, last, quantile, quantiles, rate, stat, timeseries, variable, zero
from .shared import (
    CHANNEL,
    ENV,
    HTTP,
    MODEL,
    NO_GATEWAY,
    NO_REQUESTS,
    NO_RUN,
    NOT_STREAMED,
    REQUEST,
    USER,
    env_variable,
    integrity_table,
    requests,
    success,
)


def proxy():
    by, legend = "job, channel", "{{job}} {{channel}}"
    total, seconds = "aiproxy_requests_total", "aiproxy_response_time_seconds"
    failed = rate(total, by, f'status="error", {REQUEST}')

    def streamed(title, description, metric):
        return timeseries(
            title, description, "s", *quantiles(metric, "job, channel, model", MODEL, f"{legend} {{{{model}}}}"), none=NOT_STREAMED
        )

    rows = [
        (
            "速率 · 错误 · 耗时 / Rate, errors, duration",
            8,
            [
                requests(8, REQUEST),
                timeseries(
                    "错误率 / Errors",
                    "Share of requests that failed, or whose reply did not come whole.",
                    "percent",
                    (f"{failed} / {rate(total, by, REQUEST)} * 100", legend),
                    w=8,
                    none=NO_REQUESTS,
                    **PERCENT,
                ),
                timeseries(
                    "耗时 P99 / P95 / P50 / Duration",
                    "From a request to the end of its reply.",
                    "s",
                    *quantiles(seconds, by, MODEL, legend),
                    w=8,
                    none=NO_REQUESTS,
                ),
                stat(
                    "请求数 / Requests",
                    "Requests of the latest run or gateway, by outcome.",
                    "short",
                    (f"sum({last(total, USER)}) by (job, status)", "{{job}} {{status}}"),
                    w=8,
                    instant=True,
                    none=NO_REQUESTS,
                ),
                success("成功率 / Success", "Share of requests whose reply came whole and well.", 8, USER, by),
                timeseries(
                    "耗时 P95 按协议 / Duration by protocol",
                    "http, https, sse (streams), websocket.",
                    "s",
                    (quantile(0.95, seconds, "job, protocol", MODEL), "{{job}} {{protocol}}"),
                    w=8,
                    none=NO_REQUESTS,
                ),
            ],
        ),
        (
            "流 / Streams",
            9,
            [
                streamed(
                    "首个 token / Time to first token",
                    "From a request to the first token with content.",
                    "aiproxy_time_to_first_token_seconds",
                ),
                streamed("token 间隔 / Time between tokens", "Every gap, pooled.", "aiproxy_inter_token_latency_seconds"),
            ],
        ),
        (
            "token 与费用 / Tokens and cost",
            8,
            [
                timeseries(
                    "token 速率 / Tokens per second",
                    "Tokens of prompts and of completions.",
                    "short",
                    (rate("aiproxy_tokens_total", f"{by}, kind", MODEL), f"{legend} {{{{kind}}}}"),
                    w=8,
                    stacked=True,
                    none=NO_REQUESTS,
                ),
                bargauge(
                    "token 总数 / Tokens by model",
                    "Of the latest run or gateway.",
                    "short",
                    (f"sum({last('aiproxy_tokens_total', MODEL)}) by (job, model, kind)", "{{job}} {{model}} {{kind}}"),
                    w=8,
                    none=NO_REQUESTS,
                ),
                timeseries(
                    "费用 / Cost per hour",
                    "At the configured prices, in their currency.",
                    "short",
                    (f"{rate('aiproxy_cost_total', f'{by}, model', MODEL)} * 3600", f"{legend} {{{{model}}}}"),
                    w=8,
                    none=NO_REQUESTS,
                ),
            ],
        ),
        (
            "用户与渠道 / Users and channels",
            8,
            [
                bargauge(
                    "请求最多的用户 / Busiest users",
                    "Requests in the range shown, by user.",
                    "short",
                    (f"topk(10, sum(increase({total}{{{USER}}}[$__range])) by (job, user_name))", "{{job}} {{user_name}}"),
                    w=8,
                    decimals=0,
                    none=NO_REQUESTS,
                ),
                success("用户成功率 / Success by user", "Share of requests whose reply came whole and well.", 8, USER, "job, user_name"),
                timeseries(
                    "渠道速率 / Requests by channel",
                    "How requests are shared out among the channels.",
                    "reqps",
                    (rate(total, by, USER), legend),
                    w=8,
                    stacked=True,
                    none=NO_REQUESTS,
                ),
            ],
        ),
        (
            "大小 / Sizes",
            8,
            [
                timeseries(
                    "请求体 P95 / P50 / Request bodies",
                    "Bytes of the bodies of requests.",
                    "bytes",
                    *[(quantile(q, "aiproxy_request_body_bytes", by, CHANNEL), f"{p} {legend}") for p, q in (("P95", 0.95), ("P50", 0.5))],
                    w=8,
                    none=NO_REQUESTS,
                ),
                timeseries(
                    "响应体 P95 / P50 / Response bodies",
                    "Bytes of the bodies of replies.",
                    "bytes",
                    *[(quantile(q, "aiproxy_response_body_bytes", by, CHANNEL), f"{p} {legend}") for p, q in (("P95", 0.95), ("P50", 0.5))],
                    w=8,
                    none=NO_REQUESTS,
                ),
                timeseries(
                    "最近大小 / Last sizes",
                    "Body of the last request and of the last reply, by user.",
                    "bytes",
                    (f"max(aiproxy_request_size_bytes{{{USER}}}) by (job, user_name)", "request {{job}} {{user_name}}"),
                    (f"max(aiproxy_response_size_bytes{{{USER}}}) by (job, user_name)", "reply {{job}} {{user_name}}"),
                    w=8,
                    none=NO_REQUESTS,
                ),
            ],
        ),
        (
            "网关 / Gateway",
            6,
            [
                stat(
                    "运行时间 / Uptime",
                    "Since the process began to count.",
                    "s",
                    (f'max(aiproxy_uptime_seconds{{job=~"$job", {ENV}}}) by (job)', "{{job}}"),
                    w=6,
                    none=NO_GATEWAY,
                ),
                stat(
                    "API 密钥 / API keys",
                    "Keys the gateway knows.",
                    "short",
                    (f"max({last('aiproxy_api_keys_total', ENV)}) by (job)", "{{job}}"),
                    w=6,
                    instant=True,
                    none=NO_GATEWAY,
                ),
                stat(
                    "WAL",
                    "Write-ahead log of the gateway's SQLite file; 0 with another database.",
                    "bytes",
                    (f"max(aiproxy_sqlite_wal_bytes{{{ENV}}}) or vector(0)", "WAL"),
                    w=6,
                    none=NO_GATEWAY,
                ),
                stat(
                    "WebSocket",
                    "Sessions that have ended.",
                    "short",
                    (f"sum by (job) ({last('aiproxy_websocket_connections_total', CHANNEL)}) or on() {zero('job', 'none')}", "{{job}}"),
                    w=6,
                    instant=True,
                    none=NO_REQUESTS,
                ),
            ],
        ),
        (
            "运行 / The run behind it",
            8,
            [
                timeseries(
                    "响应时间 / Response time",
                    "From a request's intended start to its acknowledgement.",
                    "s",
                    *quantiles("batchsql_response_time_seconds", "test_name", HTTP, "{{test_name}}"),
                    w=8,
                    none=NO_RUN,
                ),
                timeseries(
                    "错误率 / Error rate",
                    "(rejected + unknown) / attempted requests over the last 10 s.",
                    "percentunit",
                    (f"batchsql_error_rate{{{HTTP}}}", "{{test_name}}"),
                    w=8,
                    none=NO_RUN,
                    max=1,
                ),
                integrity_table(8, HTTP),
            ],
        ),
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
