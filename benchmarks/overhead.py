"""What the SDK costs beside a bare aiohttp loop that makes the same requests: CPU and memory.

    python benchmarks/overhead.py [--tasks 1000] [--runs 5]

The emulator runs in a process of its own; its tasks take 1 to 3 s. The two clients take turns, each in a fresh process,
submit all tasks at once, and look at each by the same schedule (`Backoff()`). CPU seconds count from after the imports
to the last result. Memory is the slope of the client's resident set between two numbers of waiting tasks.
"""

import argparse
import asyncio
import gc
import json
import os
import random
import statistics
import subprocess
import sys
import time
from pathlib import Path

import aiohttp

from piapi_async import Backoff, Img2Img, Polling, Session
from piapi_async.emulator import Emulator
from piapi_async.emulator.durations import Constant, Uniform
from piapi_async.events import Polled

KEY = "benchmark"
POLLING = Polling(wait=Backoff())
BODY = {
    "model": "Qubico/flux1-schnell",
    "task_type": "img2img",
    "input": {"prompt": "a bear", "image": "https://example.com/a.jpg"},
}


async def ours(url: str, *, tasks: int) -> dict[str, float]:
    """All tasks through `Session.run`."""
    polls = 0

    def count(event: object) -> None:
        nonlocal polls
        polls += isinstance(event, Polled)

    request = Img2Img(prompt="a bear", image="https://example.com/a.jpg")
    async with Session(KEY, base_url=url, polling=POLLING, observers=[count]) as session:
        infos = await asyncio.gather(*(session.run(request) for _ in range(tasks)))
    return {"completed": len(infos), "ids": len({info.task_id for info in infos}), "polls": polls}


async def bare(url: str, *, tasks: int) -> dict[str, float]:
    """The same requests with aiohttp alone."""
    async with aiohttp.ClientSession(headers={"X-API-Key": KEY}) as http:
        ends = await asyncio.gather(*(wait_bare(http, url=url) for _ in range(tasks)))
    ids = [task_id for task_id, _ in ends]
    return {"completed": len(ids), "ids": len(set(ids)), "polls": sum(polls for _, polls in ends)}


async def wait_bare(http: aiohttp.ClientSession, *, url: str) -> tuple[str, int]:
    """Submit one task and poll until it is over, by the pauses of `Backoff()`: its id, and how many looks it took."""
    async with http.post(f"{url}/api/v1/task", json=BODY) as response:
        task = (await response.json())["data"]
    pause, polls = 1.0, 0
    while task["status"] != "completed":
        await asyncio.sleep(min(15.0, pause + 0.5 * random.random()))
        pause *= 1.5
        async with http.get(f"{url}/api/v1/task/{task['task_id']}") as response:
            task = (await response.json())["data"]
        polls += 1
    return str(task["task_id"]), polls


async def memory(url: str, *, tasks: int) -> dict[str, float]:
    """Resident bytes for each waiting task, between `tasks` and five times as many."""
    request = Img2Img(prompt="a bear", image="https://example.com/a.jpg")
    async with Session(KEY, base_url=url) as session:
        waits: list[asyncio.Task[object]] = []
        sizes = []
        for number in (tasks, 5 * tasks):
            waits += [asyncio.create_task(session.run(request)) for _ in range(number - len(waits))]
            await asyncio.sleep(4.0 * number / 1000 + 1.0)
            gc.collect()
            sizes.append(resident())
        for wait in waits:
            wait.cancel()
        await asyncio.gather(*waits, return_exceptions=True)
    return {"per_task": (sizes[1] - sizes[0]) / (4 * tasks)}


def resident() -> int:
    """This process's resident set, in bytes."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


async def serve() -> None:
    """The emulator, until its input is closed; then how many tasks it was asked for."""
    work = Constant(3600.0) if "--forever" in sys.argv else Uniform(1.0, 3.0)
    async with Emulator(durations=work, queue_delay=Constant(0.0), concurrency=10**6, api_key=KEY) as emulator:
        print(emulator.url, flush=True)
        await asyncio.to_thread(sys.stdin.read)
        print(len(emulator.tasks), flush=True)


def client(role: str, *, tasks: int) -> dict[str, float]:
    """One run of one client against a fresh emulator, both in processes of their own."""
    extra = ["--forever"] * (role == "memory")
    server = subprocess.Popen(
        [sys.executable, __file__, "--role", "serve", *extra],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert server.stdout is not None
    url = server.stdout.readline().strip()
    command = [sys.executable, __file__, "--role", role, "--url", url, "--tasks", str(tasks)]
    result: dict[str, float] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    result["submitted"] = int(server.communicate("")[0])
    return result


def measured(role: str, *, url: str, tasks: int) -> None:
    """Run one client in this process and print what it cost."""
    work = {"ours": ours, "bare": bare, "memory": memory}[role]
    cpu, wall = time.process_time(), time.perf_counter()
    result = asyncio.run(work(url, tasks=tasks))
    print(json.dumps(result | {"cpu": time.process_time() - cpu, "wall": time.perf_counter() - wall}))


def report(*, tasks: int, runs: int) -> None:
    """Alternate the two sides, then print medians and the median of the ratios."""
    rounds = [{role: client(role, tasks=tasks) for role in ("ours", "bare")} for _ in range(runs)]
    print(f"{tasks} tasks of 1 to 3 s, {runs} rounds, medians")
    for role in ("ours", "bare"):
        middle = {name: statistics.median(one[role][name] for one in rounds) for name in rounds[0][role]}
        print(
            f"  {role:5} {middle['completed']:.0f} completed, {middle['submitted']:.0f} tasks at the server, "
            f"{middle['polls'] / tasks:.2f} polls a task, CPU {middle['cpu']:.2f} s, wall {middle['wall']:.1f} s"
        )
    ratio = statistics.median(one["ours"]["cpu"] / one["bare"]["cpu"] for one in rounds)
    print(f"  CPU ours / bare: {ratio:.2f}")
    print(f"  memory for each waiting task: {client('memory', tasks=tasks)['per_task'] / 1024:.1f} KiB")


def main() -> None:
    """Read the arguments and do what they say."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", type=int, default=1000)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--role", choices=("serve", "ours", "bare", "memory"), help=argparse.SUPPRESS)
    parser.add_argument("--url", help=argparse.SUPPRESS)
    parser.add_argument("--forever", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.role == "serve":
        asyncio.run(serve())
    elif given.role:
        measured(given.role, url=given.url, tasks=given.tasks)
    else:
        report(tasks=given.tasks, runs=given.runs)


if __name__ == "__main__":
    main()
