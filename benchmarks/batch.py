"""What a batch costs: its makespan beside the best there is, CPU for the ledger, and memory over a long stream.

    python benchmarks/batch.py [--jobs 2000] [--stream 100000] [--only makespan,commits]

The emulator is in the same process. The bound for the makespan, in virtual time, is list scheduling of the same tasks
on as many places as the service has, each the moment one is free. The ledger's cost, in real time, is that of its
four commits a job alone; and the difference in CPU seconds of the process between batches with and without it,
medians of five that take turns, with one job at a time, which shares no flush with another, with four and with forty.
Memory, in virtual time, is the resident set while a stream is worked on that is never in memory as a whole; the
emulator keeps a thousand tasks.
"""

import argparse
import asyncio
import gc
import heapq
import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from piapi_async import Backoff, Batch, Polling, Session, Txt2Img
from piapi_async._client.responses import parse_task
from piapi_async._fingerprint import content_of
from piapi_async._process import new_owner
from piapi_async.emulator import Emulator
from piapi_async.emulator.durations import Constant, LogNormal
from piapi_async.ledger import SQLiteLedger
from piapi_async.testing import run_in_virtual_time

PLACES = 20


def requests(count: int) -> Iterator[Txt2Img]:
    """Requests, one at a time."""
    return (Txt2Img(prompt=f"bear {number}", width=64, height=64) for number in range(count))


def bound(seconds: list[float], *, places: int) -> float:
    """The makespan of tasks that are done in this order, each on the first free place."""
    free = [0.0] * places
    for each in seconds:
        heapq.heapreplace(free, free[0] + each)
    return max(free)


async def run(jobs: int, *, ledger: Path | None) -> tuple[float, float]:
    """Makespan and bound of one batch, in seconds."""
    async with Emulator(
        durations=LogNormal(median=9.0, sigma=0.25), queue_delay=Constant(0.0), concurrency=PLACES
    ) as emulator:
        async with Session(emulator.api_key, base_url=emulator.url) as session:
            outcomes = await Batch(session, ledger=ledger, max_in_flight=2 * PLACES).gather(requests(jobs))
        assert len(outcomes) == len(emulator.charges) == jobs
        views = list(emulator.tasks.values())
    assert all(view.ended_at is not None and view.started_at is not None for view in views)
    work = [(view.ended_at or 0.0) - (view.started_at or 0.0) for view in views]
    return max(view.ended_at or 0.0 for view in views) - views[0].created_at, bound(work, places=PLACES)


def makespan(*, jobs: int) -> None:
    """Print how long a batch takes, beside the bound."""
    with tempfile.TemporaryDirectory() as home:
        took, best = run_in_virtual_time(run(jobs, ledger=Path(home) / "jobs.db"))
    print(f"makespan: {jobs} jobs, {PLACES} places: {took:.0f} s, bound {best:.0f} s, ratio {took / best:.3f}")


async def spent(jobs: int, *, at_once: int, ledger: Path | None) -> float:
    """CPU seconds of a batch whose tasks are over at once, in real time."""
    polling = Polling(wait=Backoff(initial=0.01, maximum=0.01, jitter=0.0))
    async with (
        Emulator(progress="at-once", concurrency=10**6, credits=10**15) as emulator,
        Session(emulator.api_key, base_url=emulator.url, polling=polling) as session,
    ):
        begun = time.process_time()
        await Batch(session, ledger=ledger, max_in_flight=at_once).gather(requests(jobs))
        return time.process_time() - begun


def ledger(*, jobs: int) -> None:
    """Print what the ledger adds to the CPU time of a job."""
    for at_once in (1, 4, 40):
        sides: dict[bool, list[float]] = {True: [], False: []}
        for is_noted in (False, True) * 5:
            with tempfile.TemporaryDirectory() as home:
                path = Path(home) / "jobs.db" if is_noted else None
                sides[is_noted].append(asyncio.run(spent(jobs, at_once=at_once, ledger=path)))
        without, with_it = (1000 * statistics.median(sides[is_noted]) / jobs for is_noted in (False, True))
        print(
            f"ledger: {jobs} jobs, {at_once} at once: {without:.2f} ms of CPU a job without, {with_it:.2f} with it:"
            f" {with_it - without:.2f} more"
        )


async def noted(jobs: int, *, at_once: int, home: Path) -> float:
    """CPU seconds for what the ledger does of some jobs, so many at once, in real time."""
    owner, room = new_owner(), asyncio.Semaphore(at_once)

    async def one(number: int, request: Txt2Img) -> None:
        task_id = f"t-{number}"
        output = {"image_url": f"https://example.com/{number}.png"}
        info = parse_task({"task_id": task_id, "status": "completed", "output": output})
        async with room:
            claim = await book.claim(await content_of(request), key=None, owner=owner, save=True)
            await book.send(claim.row.key, owner=owner, token=None, points=1, limit=None)
            await book.accepted(claim.row.key, task_id=task_id)
            await book.finished(claim.row.key, info=info, owner=owner)

    async with SQLiteLedger(home / "jobs.db") as book:
        await book.hold(owner)
        begun = time.process_time()
        await asyncio.gather(*(one(number, request) for number, request in enumerate(requests(jobs))))
        return time.process_time() - begun


def commits(*, jobs: int) -> None:
    """Print what the ledger's four commits cost a job."""
    for at_once in (1, 4, 40):
        with tempfile.TemporaryDirectory() as home:
            spent = asyncio.run(noted(jobs, at_once=at_once, home=Path(home)))
        print(f"commits: {jobs} jobs, {at_once} at once: {1000 * spent / jobs:.2f} ms of CPU a job")


async def stream(jobs: int, *, home: Path) -> None:
    """Work on a stream, and print the resident set on the way."""
    marks = {mark for mark in (1_000, 10_000, 20_000, 50_000, 100_000) if mark <= jobs}
    async with (
        Emulator(
            progress="at-once", concurrency=10**6, keep_tasks=1000, keep_requests=1000, credits=10**15
        ) as emulator,
        Session(emulator.api_key, base_url=emulator.url) as session,
        Batch(session, ledger=home / "jobs.db", max_in_flight=50) as batch,
    ):
        batch.add_many(requests(jobs))
        done = 0
        async for _ in batch:
            done += 1
            if done % 1000 == 0:
                emulator._service.wallet.charges.clear()  # noqa: SLF001 - the one thing it keeps of every task
            if done in marks:
                gc.collect()
                print(f"memory: after {done:7} jobs {resident() / 2**20:.1f} MiB", flush=True)


def memory(*, jobs: int) -> None:
    """Print the memory of a long stream."""
    begun = time.perf_counter()
    with tempfile.TemporaryDirectory() as home:
        run_in_virtual_time(stream(jobs, home=Path(home)))
    print(f"memory: {jobs} jobs in {time.perf_counter() - begun:.0f} s")


def resident() -> int:
    """This process's resident set, in bytes."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def main() -> None:
    """Read the arguments and do what they say."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=2000)
    parser.add_argument("--stream", type=int, default=100_000)
    parser.add_argument("--only", default="makespan,commits,ledger,memory")
    given = parser.parse_args()
    only = given.only.split(",")
    if "makespan" in only:
        makespan(jobs=given.jobs)
    if "commits" in only:
        commits(jobs=given.jobs)
    if "ledger" in only:
        ledger(jobs=given.jobs // 4)
    if "memory" in only:
        memory(jobs=given.stream)


if __name__ == "__main__":
    main()
