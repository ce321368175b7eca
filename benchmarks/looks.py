"""What one poll costs, and what one waiting task holds: from a thousand tasks to twenty thousand.

    python benchmarks/looks.py [--tasks 1000 5000 20000] [--runs 5]

Cost: so many tasks are waited for at once and never end, through all of `TaskHandle.wait`, at 1,000 polls a second in
all. Beside it, a bare aiohttp loop makes the same GETs and parses the same JSON. Both run in fresh processes, in turns;
processor seconds of the client are divided by the polls that the server counted.

Memory: what the resident set grows by for each further task that sleeps between two polls.
"""

import argparse
import asyncio
import gc
import json
import logging
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress

import aiohttp
import peers_server
from overhead import BODY, resident

from piapi_async import Backoff, Img2Img, Learned, Polling, Session, WaitTimeoutError
from piapi_async.events import Submitted

RATE = 1000
"""Polls a second, of all tasks together."""

ROUNDS = 10
"""Polls of each of a thousand tasks; fewer at each of more."""

REQUEST = Img2Img(prompt="a bear", image="https://example.com/a.jpg")


def each(pause: float) -> Polling:
    """The default policy, in whose eyes that is the pause of its choice."""
    return Polling(wait=Learned(prior=Backoff(initial=pause, maximum=pause, jitter=0.0)), timeout=10**6)


async def ours(url: str, *, tasks: int) -> float:
    """CPU seconds of many waits."""
    async with Session("key", base_url=url) as session:
        handles = await asyncio.gather(*(session.submit(REQUEST) for _ in range(tasks)))

        polling = each(tasks / RATE)

        async def wait(index: int) -> None:
            await asyncio.sleep(index / RATE)
            with suppress(WaitTimeoutError):
                await handles[index].wait(timeout=_seconds(tasks), polling=polling)

        return await _cost(wait, tasks=tasks)


async def bare(url: str, *, tasks: int) -> float:
    """CPU seconds of the same GETs with aiohttp alone."""
    async with aiohttp.ClientSession(headers={"X-API-Key": "key"}) as http:

        async def submit() -> str:
            async with http.post(f"{url}/api/v1/task", json=BODY) as response:
                return str((await response.json())["data"]["task_id"])

        ids = await asyncio.gather(*(submit() for _ in range(tasks)))

        async def poll(index: int) -> None:
            await asyncio.sleep(index / RATE)
            end = time.monotonic() + _seconds(tasks)
            while time.monotonic() < end:
                await asyncio.sleep(tasks / RATE)
                async with http.get(f"{url}/api/v1/task/{ids[index]}") as response:
                    assert (await response.json())["data"]["status"] == "processing"

        return await _cost(poll, tasks=tasks)


def _seconds(tasks: int) -> float:
    """How long each task is waited for."""
    return max(1.5 * tasks / RATE, ROUNDS * 1000 / RATE)


async def _cost(work: Callable[[int], Awaitable[None]], *, tasks: int) -> float:
    gc.collect()
    begun = time.process_time()
    await asyncio.gather(*map(work, range(tasks)))
    return time.process_time() - begun


async def memory(url: str, *, sizes: list[int]) -> list[float]:
    """Resident bytes with each number of sleeping tasks; a hundred go before them."""
    found = []
    accepted = asyncio.Semaphore(0)

    def count(event: object) -> None:
        if isinstance(event, Submitted):
            accepted.release()

    async with Session("key", base_url=url, polling=each(3600), observers=[count]) as session:
        waits: list[asyncio.Task[object]] = []
        for number in (100, *sizes):
            new = [asyncio.create_task(session.run(REQUEST)) for _ in range(number - len(waits))]
            waits += new
            for _ in new:
                await accepted.acquire()
            await asyncio.sleep(1.0)
            gc.collect()
            found.append(float(resident()))
        for wait in waits:
            wait.cancel()
        await asyncio.gather(*waits, return_exceptions=True)
    return found


def client(role: str, *sizes: int) -> tuple[list[float], int]:
    """What one role prints in a fresh process, and the polls that its server counted."""
    server = subprocess.Popen(
        [sys.executable, __file__, "--role", "serve"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert server.stdout is not None
    url = server.stdout.readline().strip()
    command = [sys.executable, __file__, "--role", role, "--url", url, "--tasks", *map(str, sizes)]
    figures: list[float] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    counted = json.loads(server.communicate("")[0])
    return figures, sum(polls for _, polls in counted.values())


def report(sizes: list[int], *, runs: int) -> None:
    """Alternate the two sides; print medians, ratios and what grows."""
    for tasks in sizes:
        rounds = []
        for _ in range(runs):
            each = [client(role, tasks) for role in ("ours", "bare")]
            rounds.append([1e6 * cpu[0] / polls for cpu, polls in each])
        mine, plain = (statistics.median(column) for column in zip(*rounds, strict=True))
        ratio = statistics.median(one / other for one, other in rounds)
        print(f"{tasks:6} tasks: {mine:4.0f} µs a poll, {plain:4.0f} µs bare, ratio {ratio:.2f}", flush=True)
    held, _ = client("memory", *sizes)
    numbers = [100, *sizes]
    for index in range(1, len(held)):
        slope = (held[index] - held[index - 1]) / (numbers[index] - numbers[index - 1])
        print(f"{numbers[index - 1]:6} to {numbers[index]:6} tasks: {slope:.0f} bytes for each waiting task")


def play(role: str, *, url: str, sizes: list[int]) -> None:
    """One role, in this process."""
    logging.disable(logging.CRITICAL)
    if role == "serve":
        peers_server.LATENCY = 0.0
        peers_server.SHORTEST = peers_server.LONGEST = 10**6
        asyncio.run(peers_server.main())
    elif role == "memory":
        print(json.dumps(asyncio.run(memory(url, sizes=sizes))))
    else:
        print(json.dumps([asyncio.run({"ours": ours, "bare": bare}[role](url, tasks=sizes[0]))]))


def main() -> None:
    """Read the arguments and do what they say."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", type=int, nargs="+", default=[1000, 5000, 20000])
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--role", choices=("serve", "ours", "bare", "memory"), help=argparse.SUPPRESS)
    parser.add_argument("--url", default="", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.role:
        play(given.role, url=given.url, sizes=given.tasks)
    else:
        report(given.tasks, runs=given.runs)


if __name__ == "__main__":
    main()
