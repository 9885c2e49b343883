"""What Grafana's boards are put together from: each function returns a piece of a board's JSON."""

SOURCE = {"type": "prometheus", "uid": "${datasource}"}
NO_DATA = "无数据 / no data"
# A share of rows or requests that are right, in percent.
RIGHT = [("red", 0), ("yellow", 95), ("green", 99)]
# Golden signals of a machine, in percent.
CPU = [("green", 0), ("yellow", 80), ("red", 90)]
FULL = [("green", 0), ("yellow", 85), ("red", 95)]
# What should never have happened.
NONE = [("green", 0), ("red", 1)]
PERCENT = {"min": 0, "max": 100}


# Queries


def rate(metric, by, which):
    return f"sum by ({by}) (rate({metric}{{{which}}}[$__rate_interval]))"


def quantile(q, histogram, by, which):
    return f"histogram_quantile({q}, sum by (le, {by}) (rate({histogram}_bucket{{{which}}}[$__rate_interval])))"


def quantiles(histogram, by, which, legend):
    """P99, P95 and P50 of a histogram, each with its legend."""
    return [(quantile(q, histogram, by, which), f"{name} {legend}") for name, q in (("P99", 0.99), ("P95", 0.95), ("P50", 0.5))]


def last(metric, which):
    """The last value of each series in the range shown, also of a run that has ended: exact, where increase() extrapolates."""
    return f"last_over_time({metric}{{{which}}}[$__range])"


def zero(label, value):
    """What stands for nothing: a series at 0 with one label."""
    return f'label_replace(vector(0), "{label}", "{value}", "", "")'


# Panels


def thresholds(steps):
    base = [{"color": steps[0][0], "value": None}]
    return {"mode": "absolute", "steps": base + [{"color": color, "value": value} for color, value in steps]}


def panel(
    kind, title, description, unit, queries, width, options, custom=None, steps=None, none=NO_DATA, instant=False, overrides=(), **defaults
):
    targets = [
        {
            "datasource": SOURCE,
            "expr": expr,
            "legendFormat": legend,
            "refId": chr(ord("A") + number),
            "editorMode": "code",
            "range": not instant,
            "instant": instant,
        }
        for number, (expr, legend) in enumerate(queries)
    ]
    return {
        "type": kind,
        "title": title,
        "description": description,
        "datasource": SOURCE,
        "gridPos": {"w": width},
        "targets": targets,
        "fieldConfig": {
            "defaults": {
                "unit": unit,
                "noValue": none,
                "custom": custom or {},
                "color": {"mode": "thresholds" if steps else "palette-classic"},
                "thresholds": thresholds(steps) if steps else {"mode": "absolute", "steps": [{"color": "green", "value": None}]},
                **defaults,
            },
            "overrides": list(overrides),
        },
        "options": options,
    }


def timeseries(title, description, unit, *queries, w=12, stacked=False, **more):
    custom = {"drawStyle": "line", "lineWidth": 1, "fillOpacity": 10, "showPoints": "auto", "spanNulls": False}
    if stacked:
        custom |= {"fillOpacity": 40, "stacking": {"mode": "normal", "group": "A"}}
    more = {"min": 0} | more
    if more["min"] is None:
        del more["min"]
    legend = {"displayMode": "table", "placement": "bottom", "calcs": ["mean", "max", "lastNotNull"], "showLegend": True}
    options = {"legend": legend, "tooltip": {"mode": "multi", "sort": "desc"}}
    return panel("timeseries", title, description, unit, queries, w, options, custom, **more)


def reduce():
    return {"calcs": ["lastNotNull"], "fields": "", "values": False}


def stat(title, description, unit, *queries, w=6, **more):
    options = {
        "colorMode": "value",
        "graphMode": "none" if more.get("instant") else "area",
        "justifyMode": "auto",
        "orientation": "auto",
        "percentChangeColorMode": "standard",
        "reduceOptions": reduce(),
        "showPercentChange": False,
        "textMode": "auto",
        "wideLayout": True,
    }
    return panel("stat", title, description, unit, queries, w, options, **more)


def bargauge(title, description, unit, *queries, w=12, **more):
    options = {
        "displayMode": "basic",
        "legend": {"calcs": [], "displayMode": "list", "placement": "bottom", "showLegend": False},
        "maxVizHeight": 300,
        "minVizHeight": 16,
        "minVizWidth": 8,
        "namePlacement": "auto",
        "orientation": "horizontal",
        "reduceOptions": reduce(),
        "showUnfilled": True,
        "sizing": "auto",
        "valueMode": "color",
    }
    return panel("bargauge", title, description, unit, queries, w, options, instant=True, min=0, **more)


def table(
    title,
    description,
    unit,
    query,
    value,
    w=12,
    hide=("Time", "job", "instance", "__name__"),
    matrix=None,
    mappings=None,
    overrides=(),
    **more,
):
    """One instant query as a table. `value`: the heading of its values; `matrix`: (rows, columns), two labels to span a matrix."""
    custom = {
        "align": "auto",
        "cellOptions": {"type": "color-background", "mode": "basic"} if "steps" in more else {"type": "auto"},
        "inspect": False,
    }
    made = panel(
        "table",
        title,
        description,
        unit,
        [(query, "")],
        w,
        {"showHeader": True, "cellHeight": "sm", "frameIndex": 0},
        custom,
        instant=True,
        **more,
    )
    made["targets"][0]["format"] = "table"
    if mappings:
        made["fieldConfig"]["defaults"]["mappings"] = mappings
    plain = {"matcher": {"id": "byType", "options": "string"}, "properties": [{"id": "custom.cellOptions", "value": {"type": "auto"}}]}
    made["fieldConfig"]["overrides"] = [plain, *overrides]
    if matrix:
        rows, columns = matrix
        made["transformations"] = [{"id": "groupingToMatrix", "options": {"rowField": rows, "columnField": columns, "valueField": "Value"}}]
    else:
        hidden = {name: True for name in hide}
        made["transformations"] = [{"id": "organize", "options": {"excludeByName": hidden, "renameByName": {"Value": value}}}]
    return made


def heatmap(title, description, unit, histogram, which, w=12):
    queries = [(f"sum by (le) (increase({histogram}_bucket{{{which}}}[$__rate_interval]))", "{{le}}")]
    options = {
        "calculate": False,
        "cellGap": 1,
        "cellValues": {"unit": "short"},
        "color": {
            "mode": "scheme",
            "scheme": "Oranges",
            "scale": "exponential",
            "exponent": 0.5,
            "fill": "dark-orange",
            "reverse": False,
            "steps": 64,
        },
        "exemplars": {"color": "rgba(255,0,255,0.7)"},
        "filterValues": {"le": 1e-9},
        "legend": {"show": True},
        "rowsFrame": {"layout": "auto"},
        "showValue": "never",
        "tooltip": {"mode": "single", "yHistogram": False},
        "yAxis": {"axisPlacement": "left", "unit": unit},
    }
    made = panel("heatmap", title, description, unit, queries, w, options)
    made["targets"][0]["format"] = "heatmap"
    return made


# Boards


def variable(name, label, query, several=True):
    """A variable of a label's values; without `several` exactly one is chosen."""
    made = {
        "name": name,
        "label": label,
        "type": "query",
        "datasource": SOURCE,
        "definition": query,
        "query": {"query": query, "refId": "v", "qryType": 1},
        "includeAll": several,
        "multi": several,
        "refresh": 2,
        "sort": 1,
        "hide": 0,
        "options": [],
        "regex": "",
    }
    if several:
        made |= {"allValue": ".*", "current": {"selected": True, "text": ["All"], "value": ["$__all"]}}
    return made


def datasource():
    return {
        "name": "datasource",
        "label": "数据源 / Data source",
        "type": "datasource",
        "query": "prometheus",
        "current": {"selected": False, "text": "Prometheus", "value": "prometheus"},
        "hide": 0,
        "includeAll": False,
        "multi": False,
        "options": [],
        "refresh": 1,
        "regex": "",
    }


def annotation(name, color, expr, title, tags):
    return {
        "name": name,
        "datasource": SOURCE,
        "enable": True,
        "hide": False,
        "iconColor": color,
        "target": {"expr": expr, "refId": "Anno", "interval": "5s"},
        "titleFormat": title,
        "textFormat": "",
        "tagKeys": tags,
    }


def annotations(which):
    return [
        annotation("阶段 / Phases", "blue", f"max_over_time(batchsql_run_phase{{{which}}}[15s]) == 1", "{{test_name}}: {{phase}}", "database,phase"),
        annotation(
            "判定 / Verdicts",
            "purple",
            f"sum by (database, test_name, result) (increase(batchsql_tests_run_total{{{which}}}[$__rate_interval])) > 0",
            "{{test_name}}: {{result}}",
            "database,result",
        ),
    ]


def board(uid, title, description, variables, which, rows):
    """A board of rows (title, height, panels); `which` selects the runs whose phases and verdicts are marked."""
    panels, y = [], 0
    for heading, height, members in rows:
        panels.append({"type": "row", "title": heading, "collapsed": False, "gridPos": {"x": 0, "y": y, "w": 24, "h": 1}, "panels": []})
        x, y = 0, y + 1
        for member in members:
            if x + member["gridPos"]["w"] > 24:
                x, y = 0, y + height
            member["gridPos"] = {"x": x, "y": y, "w": member["gridPos"]["w"], "h": height}
            x += member["gridPos"]["w"]
            panels.append(member)
        y += height
    link = {
        "type": "dashboards",
        "title": "batchsql",
        "tags": ["batchsql"],
        "icon": "external link",
        "tooltip": "",
        "asDropdown": True,
        "includeVars": True,
        "keepTime": True,
        "targetBlank": False,
    }
    return {
        "uid": uid,
        "title": f"batchsql {title}",
        "description": description,
        "tags": ["batchsql"],
        "timezone": "browser",
        "schemaVersion": 39,
        "version": 1,
        "editable": True,
        "graphTooltip": 1,
        "refresh": "5s",
        "time": {"from": "now-15m", "to": "now"},
        "annotations": {"list": annotations(which)},
        "links": [link],
        "templating": {"list": [datasource(), *variables]},
        "panels": [{"id": number, **made} for number, made in enumerate(panels, 1)],
    }
