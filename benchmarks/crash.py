"""Does a batch that is killed pay twice, or lose what it paid for? It is killed many times, and asked.

    python benchmarks/crash.py [--quick] [--seed 0]

The emulator runs in a process of its own, with a history that lags and chaos in every tenth request, and outlives the
kills. The batch runs in a child that dies by SIGKILL: at random moments, or before or after its n-th commit. It is
started again until its jobs are done, and then new ones come, until there were enough kills. In the end the emulator
says what it charged, the ledger what it knows, and the disk what is there.

Every tenth job asks for the same as the one before it. A job whose POST was begun and made no task stays in doubt for
ever (the service cannot tell); that is neither a loss nor a charge, and is counted.
"""

import argparse
import asyncio
import itertools
import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from PIL import Image

from piapi_async import Backoff, Batch, Polling, RetryPolicy, Session, Txt2Img
from piapi_async.emulator import Emulator
from piapi_async.emulator.durations import Constant, Uniform
from piapi_async.errors import PiAPIError
from piapi_async.ledger import SQLiteLedger

KEY = "benchmark"
ACTS = ("hold", "claim", "take", "send", "refused", "lost", "accepted", "finished", "release", "let_go")
ANY = "any"
OUTCOMES = "outcomes"
FINAL = {"NoneType", "SubmissionInDoubtError", "TaskFailedError"}
"""The errors that another run does not mend, and none at all."""


class DyingLedger(SQLiteLedger):
    """A ledger whose process dies before or after the n-th commit of a kind.

    Args:
        path: The file.

        act: The kind; `ANY` for all of them.

        nth: The commit, from 1 on; 0 for never.

        when: `"before"` or `"after"`.

        witness: Where the name of the act is written down first.
    """

    def __init__(self, path: Path, *, act: str, nth: int, when: str, witness: Path) -> None:
        super().__init__(path)
        self._left = nth
        self._when = when
        self._witness = witness
        for name in ACTS if act == ANY else (act,):
            setattr(self, name, partial(self._counted, name, getattr(self, name)))

    async def _counted(self, name: str, act: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        self._left -= 1
        is_last = self._left == 0
        if is_last and self._when == "before":
            self._die(name)
        result = await act(*args, **kwargs)
        if is_last:
            self._die(name)
        return result

    def _die(self, name: str) -> None:
        with self._witness.open("a") as file:
            file.write(f"{self._when} {name}\n")
        os.kill(os.getpid(), signal.SIGKILL)


def requests(batch: int, *, jobs: int) -> list[Txt2Img]:
    """The jobs of a batch; every tenth is a twin."""
    prompts = [f"batch {batch} bear {number - (number % 10 == 9)}" for number in range(jobs)]
    return [Txt2Img(prompt=prompt, width=64, height=64) for prompt in prompts]


async def work(url: str, *, home: Path, batch: int, jobs: int, on_doubt: Any, act: str, nth: int, when: str) -> None:
    """One run of one batch, to its end or to its death."""
    polling = Polling(wait=Backoff(initial=0.1, factor=1.5, maximum=0.5, jitter=0.1), max_errors=50)
    retry = RetryPolicy(attempts=8, wait_initial=0.1, wait_max=1.0, wait_jitter=0.1)
    ledger = DyingLedger(home / "jobs.db", act=act, nth=nth, when=when, witness=home / "deaths")
    counts: Counter[str] = Counter()
    print("begun", flush=True)
    async with Session(KEY, base_url=url, polling=polling, retry=retry) as session, ledger:
        try:
            async with Batch(
                session,
                ledger=ledger,
                max_in_flight=50,
                on_doubt=on_doubt,
                save_to=home / "out",
                reconcile_within=4.0,
            ) as doing:
                doing.add_many(requests(batch, jobs=jobs))
                async for outcome in doing:
                    counts[type(getattr(outcome, "error", None)).__name__] += 1
        except (PiAPIError, OSError) as error:
            print(f"stopped: {error}", flush=True)
    print(OUTCOMES, json.dumps(counts), flush=True)


async def serve(*, chaos: float) -> None:
    """The emulator, until its input is closed; then what it knows."""
    async with Emulator(
        durations=Uniform(0.1, 0.4),
        queue_delay=Constant(0.0),
        concurrency=1000,
        api_key=KEY,
        chaos=chaos,
        history_lag=0.5,
        history_lists="all",
        keep_requests=1000,
    ) as emulator:
        print(emulator.url, flush=True)
        await asyncio.to_thread(sys.stdin.read)
        tasks = {task_id: (view.input["prompt"], view.status) for task_id, view in emulator.tasks.items()}
        print(json.dumps({"tasks": tasks, "charged": [charge.task_id for charge in emulator.charges]}))


@contextmanager
def server(*, chaos: float) -> Iterator[tuple[str, Callable[[], dict[str, Any]]]]:
    """An emulator, and a function that closes it and tells what it knows."""
    command = [sys.executable, __file__, "--role", "serve", "--chaos", str(chaos)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    url = process.stdout.readline().strip()

    def known() -> dict[str, Any]:
        found: dict[str, Any] = json.loads(process.communicate("")[0])
        return found

    try:
        yield url, known
    finally:
        process.kill()
        process.communicate()


class Trial:
    """Batches that are killed, and what became of them.

    Args:
        name: What it is called in the report.

        jobs: How many a batch has.

        on_doubt: The policy.

        home: Where ledger and pictures go.

        url: The emulator.
    """

    def __init__(self, name: str, *, jobs: int, on_doubt: str, home: Path, url: str) -> None:
        self.name = name
        self.jobs = jobs
        self.on_doubt = on_doubt
        self.home = home
        self.url = url
        self.batch = self.kills = self.runs = 0
        self.last: dict[str, int] = {}

    def start(self, *, act: str = "send", nth: int = 0, when: str = "before") -> "subprocess.Popen[str]":
        """One more run of the present batch."""
        command = [sys.executable, __file__, "--role", "work", "--url", self.url, "--home", str(self.home)]
        command += ["--batch", str(self.batch), "--jobs", str(self.jobs), "--on-doubt", self.on_doubt]
        command += ["--act", act, "--nth", str(nth), "--when", when]
        self.runs += 1
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert process.stdout is not None
        process.stdout.readline()
        return process

    def end(self, process: "subprocess.Popen[str]") -> bool:
        """Whether a run came to its end; it was killed otherwise."""
        out, err = process.communicate(timeout=300)
        if process.returncode == -signal.SIGKILL:
            self.kills += 1
            return False
        assert process.returncode == 0, err
        lines = [line for line in out.splitlines() if line.startswith(OUTCOMES)]
        self.last = json.loads(lines[-1].removeprefix(OUTCOMES))
        return True

    def finish(self) -> None:
        """Run the present batch to its end, and go on to the next."""
        while not self.end(self.start()) or self.last.keys() - FINAL:
            pass
        self.batch += 1

    def killed_at_random(self, *, kills: int, rng: random.Random, longest: float) -> None:
        """Kill runs at random moments, so often."""
        while self.kills < kills:
            process = self.start()
            time.sleep(longest * rng.random() ** 2)
            process.kill()
            self.batch += self.end(process)
        self.finish()

    def killed_at_commits(self, *, places: Sequence[int]) -> None:
        """Kill runs before and after some commits of each kind; one that has too few of them comes to its end."""
        for act, nth, when in itertools.product(ACTS, places, ("before", "after")):
            self.batch += self.end(self.start(act=act, nth=nth, when=when))
        self.finish()

    def killed_at_every_commit(self) -> None:
        """Kill a batch before, and another after, its first commit, its second, and so on to its last; finish each."""
        for when in ("before", "after"):
            for nth in itertools.count(1):
                if self.end(self.start(act=ANY, nth=nth, when=when)):
                    break  # it had fewer
                self.finish()
            self.batch += 1

    def settle(self) -> None:
        """Do all batches once more, and look for what was skipped in the account's history."""
        doubts = sum(row["state"] == "in_doubt" for row in ledger_rows(self.home / "jobs.db"))
        print(f"{doubts} jobs are in doubt after {self.kills} kills in {self.runs} runs; now they are reconciled")
        self.on_doubt = "reconcile"
        batches, self.batch = self.batch, 0
        while self.batch < batches:
            self.finish()

    def report(self, known: dict[str, Any]) -> None:
        """Compare what three sides say, and print it.

        Raises:
            AssertionError: Something was paid for twice, or lost.
        """
        rows = list(ledger_rows(self.home / "jobs.db"))
        charged, tasks = set(known["charged"]), known["tasks"]
        assert len(known["charged"]) == len(charged)
        wanted = Counter(request.prompt for batch in range(self.batch) for request in requests(batch, jobs=self.jobs))
        paid = Counter(tasks[task_id][0] for task_id in charged)
        twice = {prompt: count for prompt, count in paid.items() if count > wanted[prompt]}
        states = Counter(row["state"] for row in rows)
        mine = {row["task_id"]: row for row in rows if row["task_id"]}
        lost = charged - mine.keys()
        unsaved = [task_id for task_id in charged & mine.keys() if not mine[task_id]["paths"]]
        pictures = sum(decoded(self.home / "out" / Path(path).name) for row in rows for path in row["paths"] or ())
        deaths = self.home / "deaths"
        kinds = Counter(deaths.read_text().splitlines()) if deaths.exists() else {}
        print(
            f"{self.name}: {self.kills} kills in {self.runs} runs, {sum(wanted.values())} jobs\n"
            f"  tasks at the service {len(tasks)}, charged {len(charged)}, most charges for one job"
            f" {max(-(-count // wanted[prompt]) for prompt, count in paid.items())}\n"
            f"  ledger {dict(states)}, pictures decoded {pictures}, charged and not in the ledger {len(lost)},"
            f" charged and not on disk {len(unsaved)}"
        )
        if kinds:
            print(f"  deaths {dict(sorted(kinds.items()))}")
        assert not twice, twice
        assert not unsaved, unsaved
        assert not lost, lost
        assert states["submitting"] == states["submitted"] == 0, states


def ledger_rows(path: Path) -> Iterator[dict[str, Any]]:
    """What the ledger says, read without the package."""
    with sqlite3.connect(path) as db:
        for state, task_id, paths in db.execute("SELECT state, task_id, paths FROM jobs"):
            yield {"state": state, "task_id": task_id, "paths": json.loads(paths) if paths else None}
    db.close()


def decoded(path: Path) -> int:
    """1; a picture that is not whole raises."""
    with Image.open(path) as picture:
        picture.load()
    return 1


@contextmanager
def trial(name: str, *, jobs: int, on_doubt: str = "reconcile", chaos: float = 0.1) -> Iterator[Trial]:
    """A trial with an emulator and a directory of its own, judged at the end."""
    begun = time.perf_counter()
    with tempfile.TemporaryDirectory() as home, server(chaos=chaos) as (url, known):
        one = Trial(name, jobs=jobs, on_doubt=on_doubt, home=Path(home), url=url)
        yield one
        time.sleep(1.0)
        one.report(known())
    print(f"  {time.perf_counter() - begun:.0f} s", flush=True)


def two_processes(*, jobs: int, kills: int, rng: random.Random) -> None:
    """Two runs of the same batch at once on one ledger; now and then one of them is killed."""
    with trial("two processes on one ledger", jobs=jobs) as one:
        while one.kills < kills:
            pair = [one.start(), one.start()]
            time.sleep(1.5 * rng.random() ** 2)
            pair[0].kill()
            ends = [one.end(process) for process in pair]
            one.batch += all(ends) or ends[1]
        pair = [one.start(), one.start()]
        ends = [one.end(process) for process in pair]
        assert all(ends)
        one.finish()


def full_disk(*, jobs: int) -> None:
    """The ledger's disk is full, again and again; each time there is a little more room."""
    with trial("full disk", jobs=jobs) as one:
        one.home.joinpath("full").mkdir()
        mount = ["mount", "-t", "tmpfs", "-o", "size=200k", "tmpfs", str(one.home / "full")]
        is_mounted = subprocess.run(mount, check=False, capture_output=True).returncode == 0
        if not is_mounted:
            print("  no permission to mount a small disk; left out")
            one.finish()
            return
        home, one.home = one.home, one.home / "full"
        stops = 0
        try:
            for size in range(200, 4000, 100):
                grow = ["mount", "-o", f"remount,size={size}k", str(one.home)]
                subprocess.run(grow, check=True)
                process = one.start()
                out, err = process.communicate(timeout=300)
                assert process.returncode == 0, err
                stops += "stopped:" in out
                if "stopped:" not in out:
                    break
            one.finish()
            subprocess.run(["cp", "-r", f"{one.home}/.", str(home)], check=True)
        finally:
            subprocess.run(["umount", str(home / "full")], check=True)
        one.home = home
        print(f"  the disk was full {stops} times")


def report(*, is_quick: bool, seed: int) -> None:
    """All trials."""
    rng = random.Random(seed)
    jobs, kills, places = (20, 6, (1,)) if is_quick else (200, 100, (1, 5))
    with trial("at random moments", jobs=jobs) as one:
        one.killed_at_random(kills=kills, rng=rng, longest=1.5)
    with trial("at random moments, doubts skipped, and reconciled at the end", jobs=jobs, on_doubt="skip") as one:
        one.killed_at_random(kills=kills // 4, rng=rng, longest=1.5)
        one.settle()
    with trial("before and after each kind of commit", jobs=min(jobs, 60)) as one:
        one.killed_at_commits(places=places)
    with trial("before and after every commit", jobs=2 if is_quick else 8) as one:
        one.killed_at_every_commit()
    two_processes(jobs=jobs, kills=kills // 10, rng=rng)
    full_disk(jobs=jobs)


def main() -> None:
    """Read the arguments and do what they say."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--chaos", type=float, default=0.1)
    for name, kind in (("role", str), ("url", str), ("home", Path), ("on-doubt", str), ("act", str), ("when", str)):
        parser.add_argument(f"--{name}", type=kind, help=argparse.SUPPRESS)
    for name in ("batch", "jobs", "nth"):
        parser.add_argument(f"--{name}", type=int, help=argparse.SUPPRESS)
    given = vars(parser.parse_args())
    role, is_quick, seed, chaos = (given.pop(name) for name in ("role", "quick", "seed", "chaos"))
    if role == "serve":
        asyncio.run(serve(chaos=chaos))
    elif role == "work":
        asyncio.run(work(given.pop("url"), **given))
    else:
        report(is_quick=is_quick, seed=seed)


if __name__ == "__main__":
    main()
