#!/usr/bin/env python3
"""Writes the boards in grafana/dashboards; what they are is in grafana/source.

python3 grafana/boards.py          writes them anew
python3 grafana/boards.py --check  exit code 1 if a committed board is not what its source says
"""

import json
import pathlib
import sys

from source import batch, proxy, runs, system

BOARDS = [runs.overview, runs.performance, batch.batch, runs.integrity, proxy.proxy, runs.compare, system.system]


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
