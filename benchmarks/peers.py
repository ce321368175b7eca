"""Many tasks at once through ours, through other SDKs of its kind, and through a bare aiohttp loop: real HTTP.

    pip install -r benchmarks/peers.txt
    python benchmarks/peers.py [--tasks 50 200 1000 5000] [--runs 5] [--write]

The same seeded tasks of 1 to 3 s wait behind the wire format of each service (`peers_server.py`), in a process of its
own, with 30 ms of latency. Each client runs with its defaults, in a fresh process; they take turns, and the medians of
all runs are shown. Their aims differ, which is why there are two figures: polls made, and seconds by which the end was
learned late. Ours appears several times: the price says how many polls a second of lateness is worth.

A client that did not finish in `--seconds` is not run again, nor with more tasks. One that is not installed is left
out.
"""

import argparse
import importlib.util
import json
import platform
import statistics
import subprocess
import sys
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

from peers_clients import CLIENTS, MODULES

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "peers.md"
HEADINGS = ("client", "completed", "polls a task", "late, mean", "late, p95", "CPU ms a task", "peak MiB", "wall s")


def run(name: str, *, tasks: int, seconds: float) -> dict[str, float]:
    """One run of one client against a fresh server."""
    server = subprocess.Popen(
        [sys.executable, HERE / "peers_server.py"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert server.stdout is not None
    url = server.stdout.readline().strip()
    command = [sys.executable, str(HERE / "peers_clients.py"), name, url, str(tasks), str(seconds)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{name} failed: {done.stderr[-2000:]}")
    client = json.loads(done.stdout)
    return figures(client, json.loads(server.communicate("")[0]), tasks=tasks)


def figures(client: dict[str, Any], server: dict[str, Any], *, tasks: int) -> dict[str, float]:
    """What one run showed."""
    late = sorted(told - server[task_id][0] for task_id, told in client["told"].items()) or [float("nan")]
    return {
        "completed": len(client["told"]),
        "submitted": len(server) - 1,
        "polls": sum(polls for _, polls in list(server.values())[1:]) / tasks,
        "late": statistics.fmean(late),
        "p95": late[int(0.95 * len(late))],
        "cpu": 1000 * client["cpu"] / tasks,
        "memory": client["memory"],
        "wall": client["wall"],
    }


def rounds(names: list[str], *, tasks: int, runs: int, seconds: float) -> dict[str, list[dict[str, float]]]:
    """The clients in turns; one that does not finish has no second turn."""
    found: dict[str, list[dict[str, float]]] = {name: [] for name in names}
    for number in range(runs):
        for name in names:
            if all(one["completed"] == tasks for one in found[name]):
                found[name].append(run(name, tasks=tasks, seconds=seconds))
                print(f"  {tasks} tasks, round {number + 1}: {name} {found[name][-1]}", file=sys.stderr, flush=True)
    return found


def middle(runs: list[dict[str, float]]) -> dict[str, float]:
    """The median of each figure."""
    return {name: statistics.median(one[name] for one in runs) for name in runs[0]}


def row(name: str, one: dict[str, float], *, runs: int) -> str:
    """A line of the table."""
    cells = (
        name if runs > 1 else f"{name} (1 run)",
        f"{one['completed']:,.0f}",
        f"{one['polls']:.2f}",
        f"{one['late']:.3f} s",
        f"{one['p95']:.3f} s",
        f"{one['cpu']:.2f}",
        f"{one['memory']:.0f}",
        f"{one['wall']:.1f}",
    )
    return "| " + " | ".join(cells) + " |"


def tables(sizes: list[int], *, runs: int, seconds: float) -> Iterator[str]:
    """One table for each number of tasks."""
    names = [name for name in CLIENTS if importlib.util.find_spec(MODULES.get(name, "piapi_async"))]
    for tasks in sizes:
        found = rounds(names, tasks=tasks, runs=runs, seconds=seconds)
        yield f"\n{tasks:,} tasks at once\n"
        yield "| " + " | ".join(HEADINGS) + " |"
        yield "|---" + "|--:" * (len(HEADINGS) - 1) + "|"
        for name, results in found.items():
            yield row(name, middle(results), runs=len(results))
        names = [name for name in names if middle(found[name])["completed"] == tasks]


def main() -> None:
    """Read the arguments and do what they say."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", type=int, nargs="+", default=[50, 200, 1000, 5000])
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--write", action="store_true", help=f"write {RESULTS.relative_to(HERE.parent)} as well")
    given = parser.parse_args()
    head = f"Python {platform.python_version()}, {date.today()}, {given.runs} runs, medians; 30 ms of latency"  # noqa: DTZ011
    lines = [head]
    print(head)
    for line in tables(given.tasks, runs=given.runs, seconds=given.seconds):
        print(line, flush=True)
        lines.append(line)
    if given.write:
        RESULTS.parent.mkdir(exist_ok=True)
        RESULTS.write_text("# Ours beside its peers\n\n" + "\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
