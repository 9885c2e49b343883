"""The board of what is below: the harness, the machine, and the databases as their exporters see them."""

from .pieces import CPU, FULL, NONE, PERCENT, board, last, stat, table, timeseries
from .shared import ENV, NO_EXPORTER, NO_RUN, POOL, RUN, UP, harness_memory, run_variables


def machine():
    disk = 'fstype!~"tmpfs|overlay|squashfs|ramfs"'
    return [
        timeseries(
            "CPU",
            "Time not idle, of all cores.",
            "percent",
            ('100 * (1 - avg by (instance) (rate(node_cpu_seconds_total{mode="idle"}[$__rate_interval])))', "{{instance}}"),
            w=8,
            steps=CPU,
            color={"mode": "palette-classic"},
            none=NO_EXPORTER,
            **PERCENT,
        ),
        timeseries(
            "内存 / Memory",
            "Memory that is not available.",
            "percent",
            ("100 * (1 - node_memory_MemAvailable_bytes / node_memory_MemTotal_bytes)", "{{instance}}"),
            w=8,
            steps=FULL,
            color={"mode": "palette-classic"},
            none=NO_EXPORTER,
            **PERCENT,
        ),
        timeseries(
            "磁盘 / Disk",
            "Space used, by file system.",
            "percent",
            (f"100 * (1 - node_filesystem_avail_bytes{{{disk}}} / node_filesystem_size_bytes{{{disk}}})", "{{instance}} {{mountpoint}}"),
            w=8,
            steps=[("green", 0), ("yellow", 85), ("red", 90)],
            color={"mode": "palette-classic"},
            none=NO_EXPORTER,
            **PERCENT,
        ),
        timeseries(
            "磁盘忙 / Disk busy",
            "Share of time in which a request was under way.",
            "percentunit",
            ("rate(node_disk_io_time_seconds_total[$__rate_interval])", "{{instance}} {{device}}"),
            w=8,
            none=NO_EXPORTER,
            max=1,
        ),
        timeseries(
            "网络 / Network",
            "Bytes received and sent a second, loopback left out.",
            "Bps",
            ('sum by (instance) (rate(node_network_receive_bytes_total{device!="lo"}[$__rate_interval]))', "in {{instance}}"),
            ('sum by (instance) (rate(node_network_transmit_bytes_total{device!="lo"}[$__rate_interval]))', "out {{instance}}"),
            w=8,
            none=NO_EXPORTER,
        ),
        timeseries(
            "负载 / Load",
            "Tasks that run or wait, over one minute, a core.",
            "short",
            ('node_load1 / on (instance) count by (instance) (node_cpu_seconds_total{mode="idle"})', "{{instance}}"),
            w=8,
            none=NO_EXPORTER,
        ),
    ]


def postgres():
    own = 'datname!~"template.*"'

    def per_second(*names):
        return [
            (f"sum by (instance) (rate(pg_stat_database_{name}{{{own}}}[$__rate_interval]))", f"{name} {{{{instance}}}}") for name in names
        ]

    hit, read = (f"sum by (instance) (rate(pg_stat_database_blks_{kind}{{{own}}}[$__rate_interval]))" for kind in ("hit", "read"))
    return [
        timeseries(
            "事务 / Transactions",
            "Committed and rolled back a second.",
            "ops",
            *per_second("xact_commit", "xact_rollback"),
            w=8,
            none=NO_EXPORTER,
        ),
        timeseries(
            "行 / Rows written",
            "Rows inserted, updated and deleted a second.",
            "rowsps",
            *per_second("tup_inserted", "tup_updated", "tup_deleted"),
            w=8,
            none=NO_EXPORTER,
        ),
        timeseries(
            "连接 / Connections",
            "Sessions by state, and the most there may be.",
            "short",
            (f"sum by (instance, state) (pg_stat_activity_count{{{own}}})", "{{state}} {{instance}}"),
            ("max by (instance) (pg_settings_max_connections)", "most {{instance}}"),
            w=8,
            none=NO_EXPORTER,
        ),
        timeseries(
            "缓存命中 / Cache hits",
            "Share of blocks found in the server's own cache.",
            "percentunit",
            (f"{hit} / ({hit} + {read})", "{{instance}}"),
            w=8,
            none=NO_EXPORTER,
            max=1,
        ),
        timeseries(
            "锁与死锁 / Locks and deadlocks",
            "Locks held or awaited; deadlocks a second.",
            "short",
            (f"sum by (instance) (pg_locks_count{{{own}}})", "locks {{instance}}"),
            *per_second("deadlocks"),
            w=8,
            none=NO_EXPORTER,
        ),
        timeseries(
            "大小 / Size",
            "Of each database.",
            "bytes",
            (f"pg_database_size_bytes{{{own}}}", "{{datname}} {{instance}}"),
            w=8,
            none=NO_EXPORTER,
        ),
    ]


def mysql():
    def per_second(name, legend):
        return (f"rate(mysql_global_status_{name}[$__rate_interval])", legend)

    commands = 'commands_total{command=~"insert|replace|update|delete|commit|rollback"}'
    return [
        timeseries(
            "命令 / Commands",
            "Statements a second, by kind.",
            "ops",
            per_second(commands, "{{command}} {{instance}}"),
            w=8,
            none=NO_EXPORTER,
        ),
        timeseries(
            "行 / Rows written",
            "Rows written, updated and deleted a second, as the storage engine counts them.",
            "rowsps",
            per_second('handlers_total{handler=~"write|update|delete"}', "{{handler}} {{instance}}"),
            w=8,
            none=NO_EXPORTER,
        ),
        timeseries(
            "连接 / Connections",
            "Threads connected and running, and the most there may be.",
            "short",
            ("mysql_global_status_threads_connected", "connected {{instance}}"),
            ("mysql_global_status_threads_running", "running {{instance}}"),
            ("mysql_global_variables_max_connections", "most {{instance}}"),
            w=8,
            none=NO_EXPORTER,
        ),
        timeseries(
            "InnoDB 缓存未命中 / Buffer pool misses",
            "Share of page reads that had to go to disk.",
            "percentunit",
            (
                "rate(mysql_global_status_innodb_buffer_pool_reads[$__rate_interval]) / rate(mysql_global_status_innodb_buffer_pool_read_requests[$__rate_interval])",
                "{{instance}}",
            ),
            w=8,
            none=NO_EXPORTER,
        ),
        timeseries(
            "行锁等待与慢查询 / Row lock waits and slow queries",
            "A second.",
            "ops",
            per_second("innodb_row_lock_waits", "lock waits {{instance}}"),
            per_second("slow_queries", "slow {{instance}}"),
            w=8,
            none=NO_EXPORTER,
        ),
        timeseries(
            "流量 / Traffic",
            "Bytes received and sent a second.",
            "Bps",
            per_second("bytes_received", "in {{instance}}"),
            per_second("bytes_sent", "out {{instance}}"),
            w=8,
            none=NO_EXPORTER,
        ),
    ]


def system():
    rows = [
        (
            "采集目标 / Scrape targets",
            6,
            [
                table(
                    "目标 / Targets",
                    "Whether the last scrape of each target succeeded.",
                    "short",
                    "sum by (job, instance) (up)",
                    "up",
                    w=12,
                    hide=("Time",),
                    mappings=UP,
                ),
                stat(
                    "数据库 / Databases",
                    "As their exporters see them.",
                    "short",
                    ("max(pg_up) by (job)", "{{job}}"),
                    ("max(mysql_up) by (job)", "{{job}}"),
                    w=6,
                    instant=True,
                    mappings=UP,
                    none=NO_EXPORTER,
                ),
                stat(
                    "丢弃的序列 / Series refused",
                    "Series of the harness beyond its limit; what they count is not shown.",
                    "short",
                    (f"sum({last('batchsql_series_dropped_total', ENV)})", "series"),
                    w=6,
                    instant=True,
                    steps=NONE,
                    none=NO_RUN,
                ),
            ],
        ),
        (
            "harness",
            8,
            [
                harness_memory(8),
                timeseries(
                    "连接 / Connections",
                    "Connections of the pool in use, and the most there may be.",
                    "short",
                    (f"batchsql_active_connections{{{POOL}}}", "in use {{database}}"),
                    (f"batchsql_max_connections{{{POOL}}}", "most {{database}}"),
                    w=8,
                ),
                timeseries(
                    "并发 / Concurrency",
                    "Workers that offer load (closed executors have them), and batches or requests in flight.",
                    "short",
                    (f"sum(batchsql_concurrent_workers{{{RUN}}}) by (test_name)", "workers {{test_name}}"),
                    (f"sum(batchsql_inflight_batches{{{RUN}}}) by (test_name)", "in flight {{test_name}}"),
                    w=8,
                ),
            ],
        ),
        ("机器 / Machine", 8, machine()),
        ("Postgres", 8, postgres()),
        ("MySQL / MariaDB", 8, mysql()),
    ]
    return board(
        "batchsql-system", "系统 / System", "The harness, the machine and the databases' own counters.", run_variables(), RUN, rows
    )
