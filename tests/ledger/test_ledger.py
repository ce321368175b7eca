"""`SQLiteLedger`: against a model of it, on disk, between processes, and when the disk is full."""

import asyncio
import contextlib
import sqlite3
import subprocess
import sys
import tempfile
import threading
from collections.abc import AsyncIterator, Coroutine, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import attrs
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from piapi_async import Txt2Img
from piapi_async._client.responses import parse_task
from piapi_async._fingerprint import Content, content_of
from piapi_async._process import is_gone, new_owner
from piapi_async.errors import LedgerConflictError, LedgerError, SpendLimitError
from piapi_async.ledger import BURIED, LEASE, LOST, TABLE, JobEvent, JobState, LeaseLostError, SQLiteLedger
from piapi_async.ledger._schema import MIGRATIONS
from piapi_async.ledger._sqlite import BUSY, Door, log_ahead
from piapi_async.task import TaskInfo

KEYS = st.sampled_from(["a", "b", "c"])
HOLDERS = st.sampled_from([0, 1])
TASKS = st.sampled_from(["t-1", "t-2", "t-3"])
ENDS = st.sampled_from(["completed", "failed", "canceled"])


def content(prompt: str = "a bear") -> Content:
    """What a request for a bear asks for."""
    return asyncio.run(content_of(Txt2Img(prompt=prompt)))


BEAR = content()


def ended(task_id: str = "t-1", status: str = "completed", *, consume: int | None = 7) -> TaskInfo:
    """A task that is over."""
    usage = {} if consume is None else {"usage": {"type": "point", "consume": consume}}
    output = {"image_url": "https://example.com/r.png"} if status == "completed" else None
    return parse_task(
        {
            "task_id": task_id,
            "status": status,
            "input": {"prompt": "a bear", "image": "data:image/png;base64," + "A" * 1000},
            "config": {"webhook_config": {"endpoint": "https://example.com", "secret": "s3cret"}},
            "output": output,
            "meta": usage,
        }
    )


@attrs.define
class Model:
    """What the ledger should hold of one job."""

    state: JobState = JobState.PLANNED
    owner: str | None = None
    task_id: str | None = None
    points: int = 0
    why: str | None = None
    """Why it is in doubt."""
    sent: int = 0
    """POSTs that were allowed."""
    cleared: int = 0
    """How often it was certain, or wanted, that one may follow."""


class LedgerMachine(RuleBasedStateMachine):
    """Two holders do anything at all to three jobs, and the ledger does what the model says."""

    def __init__(self) -> None:
        super().__init__()
        self.home = tempfile.TemporaryDirectory()
        self.runner = asyncio.Runner()
        self.ledger = SQLiteLedger(Path(self.home.name) / "jobs.db")
        self.contents = {key: content(key) for key in "abc"}
        self.jobs: dict[str, Model] = {}
        self.total = 0
        self.owners = [new_owner(), new_owner()]
        for owner in self.owners:
            self.do(self.ledger.hold(owner))

    def teardown(self) -> None:
        """Close what was opened."""
        self.do(self.ledger.aclose())
        self.runner.close()
        self.home.cleanup()

    def do(self, act: Any) -> Any:
        """Wait for what the ledger does."""
        return self.runner.run(act)

    def refused(self, act: Any, *, kind: type[LedgerError] = LedgerError) -> None:
        """What the ledger has to refuse."""
        with pytest.raises(kind):
            self.do(act)

    def spend(self, job: Model, points: int) -> None:
        """Points change, and the total with them."""
        self.total += points - job.points
        job.points = points

    @rule(key=KEYS, holder=HOLDERS)
    def claim(self, key: str, holder: int) -> None:
        """A job is planned when it is new, and taken when it is free and not over."""
        job = self.jobs.setdefault(key, Model())
        owner = self.owners[holder]
        found = self.do(self.ledger.claim(self.contents[key], key=key, owner=owner, save=False))
        assert found.is_mine == (job.owner is None and not job.state.is_over)
        job.owner = owner if found.is_mine else job.owner

    @rule(key=KEYS, other=KEYS, holder=HOLDERS)
    def claim_with_another_request(self, key: str, other: str, holder: int) -> None:
        """A key stays its request's."""
        if key in self.jobs and other != key:
            act = self.ledger.claim(self.contents[other], key=key, owner=self.owners[holder], save=False)
            self.refused(act, kind=LedgerConflictError)

    @rule(key=KEYS, holder=HOLDERS)
    def send(self, key: str, holder: int) -> None:
        """Only the holder of a planned job may send it."""
        job, owner = self.jobs.get(key), self.owners[holder]
        act = self.ledger.send(key, owner=owner, token=None, points=10, limit=None)
        if job is None or job.owner != owner:
            self.refused(act, kind=LedgerError if job is None else LeaseLostError)
        elif job.state is not JobState.PLANNED:
            self.refused(act)
        else:
            self.do(act)
            job.state, job.sent = JobState.SUBMITTING, job.sent + 1
            self.spend(job, 10)

    @rule(key=KEYS, holder=HOLDERS, event=st.sampled_from([JobEvent.REFUSED, JobEvent.LOST]))
    def answer(self, key: str, holder: int, event: JobEvent) -> None:
        """What only the holder can know is believed of the holder alone."""
        job, owner = self.jobs.get(key), self.owners[holder]
        say = self.ledger.refused if event is JobEvent.REFUSED else self.ledger.lost
        if job is None or (job.owner == owner and (job.state, event) not in TABLE):
            self.refused(say(key, owner=owner))
            return
        self.do(say(key, owner=owner))
        if job.owner == owner and event is JobEvent.REFUSED:
            job.cleared += job.state is JobState.SUBMITTING
            self.spend(job, 0)
        if job.owner == owner:
            job.state = TABLE[job.state, event]
            job.why = LOST if event is JobEvent.LOST else job.why

    @rule(key=KEYS)
    def explain(self, key: str) -> None:
        """Of a doubt it can be said why it stays; of nothing else."""
        self.do(self.ledger.explain({key: "no task fits"}))
        if key in self.jobs and self.jobs[key].state is JobState.IN_DOUBT:
            self.jobs[key].why = "no task fits"

    def may_be(self, key: str, task_id: str) -> bool:
        """Whether a task can be a job's."""
        others = [job.task_id for name, job in self.jobs.items() if name != key]
        return key in self.jobs and self.jobs[key].task_id in (None, task_id) and task_id not in others

    @rule(key=KEYS, task_id=TASKS)
    def accepted(self, key: str, task_id: str) -> None:
        """That there is a task is believed of everybody; a job has one task, and a task is one job's."""
        if not self.may_be(key, task_id):
            self.refused(self.ledger.accepted(key, task_id=task_id))
            return
        self.do(self.ledger.accepted(key, task_id=task_id))
        job = self.jobs[key]
        if not job.state.is_over:
            job.state, job.task_id, job.why = JobState.SUBMITTED, task_id, None

    @rule(key=KEYS, holder=HOLDERS, task_id=TASKS, end=ENDS, consume=st.none() | st.integers(0, 20))
    def finished(self, key: str, holder: int, task_id: str, end: str, consume: int | None) -> None:
        """An end is believed of everybody, is for ever, and settles the cost."""
        owner, job = self.owners[holder], self.jobs.get(key)
        act = self.ledger.finished(key, info=ended(task_id, end, consume=consume), owner=owner)
        if job is None or not self.may_be(key, task_id) or (job.state.is_over and job.state != end):
            self.refused(act)
            return
        self.do(act)
        job.state, job.task_id, job.why = JobState(end), task_id, None
        job.owner = None if job.owner == owner else job.owner
        self.spend(job, job.points if consume is None else consume)

    @rule(key=KEYS)
    def resubmit(self, key: str) -> None:
        """Only a doubt can be paid for again, and what it may have cost stays counted."""
        job = self.jobs.get(key)
        if job is None or job.state is not JobState.IN_DOUBT:
            self.refused(self.ledger.resubmit(key))
            return
        self.do(self.ledger.resubmit(key))
        job.state, job.points, job.cleared, job.why = JobState.PLANNED, 0, job.cleared + 1, None

    @rule(key=KEYS, holder=HOLDERS)
    def release(self, key: str, holder: int) -> None:
        """A holder lets go of what is its own; a submit of which no verdict was written down is in doubt."""
        self.do(self.ledger.release(key, owner=self.owners[holder]))
        job = self.jobs.get(key)
        if job is not None and job.owner == self.owners[holder]:
            job.owner = None
            if job.state is JobState.SUBMITTING:
                job.state, job.why = JobState.IN_DOUBT, LOST

    @rule(holder=HOLDERS)
    def die(self, holder: int) -> None:
        """A holder is gone: its jobs are free, and what it was submitting is in doubt."""
        gone, self.owners[holder] = self.owners[holder], new_owner()
        self.do(self.ledger.let_go(gone))
        self.do(self.ledger.hold(self.owners[holder]))
        for job in self.jobs.values():
            if job.owner == gone:
                job.owner = None
                job.why = BURIED if job.state is JobState.SUBMITTING else job.why
                job.state = JobState.IN_DOUBT if job.state is JobState.SUBMITTING else job.state

    @rule(key=KEYS)
    def forget(self, key: str) -> None:
        """A job nobody works on can be forgotten; what it cost cannot."""
        job = self.jobs.get(key)
        if job is not None and job.owner is not None:
            self.refused(self.ledger.forget(key))
            return
        assert self.do(self.ledger.forget(key)) == (job is not None)
        self.jobs.pop(key, None)

    @rule()
    def reopen(self) -> None:
        """All of it is on disk."""
        self.do(self.ledger.aclose())

    @invariant()
    def agrees(self) -> None:
        """The ledger and the model tell the same, and no POST was allowed without a reason."""
        for key in "abc":
            row, job = self.do(self.ledger.get(key)), self.jobs.get(key)
            shown = None if row is None else (row.state, row.owner, row.task_id, row.points, row.attempts, row.error)
            held = None if job is None else (job.state, job.owner, job.task_id, job.points, job.sent, job.why)
            assert shown == held
            assert job is None or job.sent <= 1 + job.cleared
        assert self.do(self.ledger.points()) == self.total
        states = [job.state for job in self.jobs.values()]
        assert self.do(self.ledger.counts()) == {state: states.count(state) for state in JobState}


LedgerMachine.TestCase.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)
test_the_ledger_does_what_the_model_says = LedgerMachine.TestCase


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where a ledger may be."""
    return tmp_path / "jobs.db"


# Keys.


async def test_equal_requests_are_different_jobs_and_the_same_again(path: Path) -> None:
    """Asked for twice in one run, a request is two jobs; another run meets the same two, then a third."""
    async with SQLiteLedger(path) as ledger:
        first = [await ledger.claim(BEAR, key=None, owner=owner, save=True) for owner in [new_owner()] * 2]
        second = [await ledger.claim(BEAR, key=None, owner=owner, save=True) for owner in [new_owner()] * 3]
    keys = [claim.row.key for claim in first]
    assert keys == [BEAR.fingerprint, f"{BEAR.fingerprint}-2"]
    assert [claim.row.key for claim in second] == [*keys, f"{BEAR.fingerprint}-3"]
    assert [claim.is_mine for claim in second] == [False, False, True]


# What is in it.


async def test_rows_are_read_page_by_page_in_order(path: Path) -> None:
    """All rows come, in the order in which they were planned, also when there are more than a page of them."""
    owner = new_owner()
    async with SQLiteLedger(path) as ledger:
        await asyncio.gather(*(ledger.claim(BEAR, key=f"{n:04}", owner=owner, save=True) for n in range(1234)))
        rows = [row async for row in ledger.rows()]
        assert [row async for row in ledger.rows(JobState.SUBMITTED, JobState.FAILED)] == []
    assert [row.key for row in rows] == [f"{n:04}" for n in range(1234)]


async def test_a_cost_beyond_reason_is_capped(path: Path) -> None:
    """What a server says of a cost, or a price list expects, can be stored, whatever it is."""
    owner = new_owner()
    async with SQLiteLedger(path) as ledger:
        for key in "abc":
            await ledger.claim(BEAR, key=key, owner=owner, save=True)
            await ledger.send(key, owner=owner, token=None, points=10**40, limit=10**41)
        assert await ledger.points() == 3 * 10**15
        await ledger.finished("a", info=ended("t-a", consume=10**30), owner=owner)
        await ledger.finished("b", info=ended("t-b", consume=10**400), owner=owner)
        assert await ledger.points() == 3 * 10**15


@pytest.mark.parametrize(
    ("usage", "points"),
    [
        ({"consume": 7}, 7),
        ({"consume": 7.0}, 7),
        ({"consume": 0}, 0),
        ({"consume": 0.0}, 0),
        ({"frozen": 10}, 10),
        ({"consume": None}, 10),
        ({"consume": False}, 10),
        ({"consume": float("nan")}, 10),
        ({"consume": -5}, 10),
        ({}, 10),
        (None, 10),
        ("7", 10),
    ],
)
async def test_an_unknown_cost_is_not_zero(path: Path, usage: Any, points: int) -> None:
    """Where the service tells no cost that can be read, what was expected stays counted, and the limit holds."""
    owner = new_owner()
    info = attrs.evolve(ended(), usage=parse_task({"meta": {"usage": usage}}).usage, raw={"meta": {"usage": usage}})
    async with SQLiteLedger(path) as ledger:
        await ledger.claim(BEAR, key="a", owner=owner, save=True)
        await ledger.send("a", owner=owner, token=None, points=10, limit=15)
        await ledger.finished("a", info=info, owner=owner)
        assert await ledger.points() == points
        await ledger.claim(BEAR, key="b", owner=owner, save=True)
        with pytest.raises(SpendLimitError) if points == 10 else contextlib.nullcontext():
            await ledger.send("b", owner=owner, token=None, points=8, limit=15)


async def test_export_is_plain_and_holds_no_secret(path: Path) -> None:
    """A row as JSON values tells request, cost and files; neither it nor the file holds inputs or the secret."""
    owner = new_owner()
    async with SQLiteLedger(path) as ledger:
        await ledger.claim(BEAR, key="k", owner=owner, save=True)
        await ledger.finished("k", info=ended(consume=15000), owner=owner, paths=[Path("out/t-1.png")])
        (row,) = [row async for row in ledger.export()]
        assert await ledger.spent() == 0.0015
        assert "jobs.db" in repr(ledger)
    assert row.pop("changed_at") > 0
    assert row == {
        "key": "k",
        "state": "completed",
        "model": "Qubico/flux1-schnell",
        "task_type": "txt2img",
        "input": {"prompt": "a bear"},
        "service_mode": None,
        "attempts": 0,
        "since": None,
        "task_id": "t-1",
        "usd": 0.0015,
        "paths": ["out/t-1.png"],
        "error": None,
    }
    assert b"s3cret" not in path.read_bytes()
    assert b"AAAA" not in path.read_bytes()


# The spend limit.


async def test_a_limit_holds_for_all_jobs_that_ever_were(path: Path) -> None:
    """What was charged, is in flight, in doubt, or of a forgotten job counts; what was refused does not."""
    owner = new_owner()
    async with SQLiteLedger(path) as ledger:
        for key in "abcd":
            await ledger.claim(BEAR, key=key, owner=owner, save=True)
            await ledger.send(key, owner=owner, token=None, points=10, limit=40)
        await ledger.refused("a", owner=owner)
        await ledger.lost("b", owner=owner)
        await ledger.finished("c", info=ended(consume=5), owner=owner)
        assert await ledger.forget("c")
        assert await ledger.points() == 25
        with pytest.raises(SpendLimitError, match="nothing was sent"):
            await ledger.send("a", owner=owner, token=None, points=10, limit=34)
        await ledger.send("a", owner=owner, token=None, points=10, limit=35)


# Between processes.


async def test_a_lease_runs_out(path: Path) -> None:
    """A holder that says nothing for a minute loses its jobs to another, and then may not send them."""
    slow, quick = new_owner(), new_owner()
    async with SQLiteLedger(path) as ledger, SQLiteLedger(path) as other:
        await ledger.hold(slow)
        await ledger.claim(BEAR, key="k", owner=slow, save=True)
        assert not (await other.claim(BEAR, key="k", owner=quick, save=True)).is_mine
        await asyncio.sleep(LEASE - 1)
        assert not (await other.claim(BEAR, key="k", owner=quick, save=True)).is_mine
        await asyncio.sleep(2)
        assert (await other.claim(BEAR, key="k", owner=quick, save=True)).is_mine
        with pytest.raises(LeaseLostError, match="nothing was sent"):
            await ledger.send("k", owner=slow, token=None, points=1, limit=None)


async def test_whoever_lives_keeps_its_jobs(path: Path) -> None:
    """A holder that speaks up in time keeps its jobs for as long as it likes, and may be forgotten by nobody."""
    slow, quick = new_owner(), new_owner()
    async with SQLiteLedger(path) as ledger:
        await ledger.claim(BEAR, key="k", owner=slow, save=True)
        for _ in range(5):
            await ledger.hold(slow)
            await ledger.hold(quick)
            await asyncio.sleep(LEASE / 2)
        assert not (await ledger.claim(BEAR, key="k", owner=quick, save=True)).is_mine
        with pytest.raises(LedgerError, match="is being worked on"):
            await ledger.forget("k")
        await asyncio.sleep(LEASE)
        assert await ledger.forget("k")


DEAD = """
import asyncio, os, signal, sys
from piapi_async._fingerprint import content_of
from piapi_async._process import new_owner
from piapi_async import Txt2Img
from piapi_async.ledger import SQLiteLedger

async def main():
    owner, ledger = new_owner(), SQLiteLedger(sys.argv[1])
    await ledger.hold(owner)
    for key in ("planned", "submitting"):
        await ledger.claim(await content_of(Txt2Img(prompt="a bear")), key=key, owner=owner, save=True)
    await ledger.send("submitting", owner=owner, token="tok", points=3, limit=None)
    os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(main())
"""


async def test_what_a_killed_process_was_submitting_is_in_doubt(path: Path) -> None:
    """The next holder takes over at once from a process that is gone, without waiting for its lease."""
    done = await asyncio.to_thread(subprocess.run, [sys.executable, "-c", DEAD, str(path)], check=False)
    assert done.returncode == -9
    async with SQLiteLedger(path) as ledger:
        claims = {
            key: await ledger.claim(BEAR, key=key, owner=new_owner(), save=True) for key in ("planned", "submitting")
        }
    assert [claim.is_mine for claim in claims.values()] == [True, True]
    assert claims["planned"].row.state is JobState.PLANNED
    row = claims["submitting"].row
    assert (row.state, row.attempts, row.token, row.points) == (JobState.IN_DOUBT, 1, "tok", 3)
    assert row.error == "the process that submitted it ended before the answer came"


def test_who_is_gone() -> None:
    """This process lives; one that ended is gone, also when its number is used again; other machines are not known."""
    me = new_owner()
    machine, pid, _, _ = me.rsplit("/", 3)
    code = "from piapi_async._process import new_owner; print(new_owner())"
    ended_one = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    assert not is_gone(me)
    assert is_gone(ended_one)
    assert is_gone(f"{machine}/{pid}/1/other-start")
    assert not is_gone(f"other machine/{pid}/1/x")
    assert new_owner() != me


# On disk.


def test_it_outlives_an_event_loop(path: Path) -> None:
    """One object serves several `asyncio.run`, closed in between or not."""
    ledger = SQLiteLedger(path)
    owner = new_owner()
    asyncio.run(ledger.claim(BEAR, key="k", owner=owner, save=True))
    assert asyncio.run(ledger.counts())[JobState.PLANNED] == 1
    asyncio.run(ledger.aclose())
    asyncio.run(ledger.aclose())
    assert asyncio.run(ledger.forget("k"))
    assert not asyncio.run(ledger.forget("k"))
    asyncio.run(ledger.aclose())


@pytest.mark.parametrize("bad", [None, 7, b"jobs.db"])
def test_a_ledger_is_a_path(bad: Any) -> None:
    """Anything else is refused before anything is opened."""
    with pytest.raises(TypeError, match="ledger must be"):
        SQLiteLedger(bad)
    with pytest.raises(ValueError, match="ledger must be the path of a file, got ''"):
        SQLiteLedger("")


@pytest.mark.parametrize("name", ["a b?c#d%20.db", "file:jobs.db?mode=memory", "bären\n'\".db", "-x"])
async def test_any_name_is_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Whatever a file is called, it is that file, also when the process goes to another directory meanwhile."""
    monkeypatch.chdir(tmp_path)
    ledger = SQLiteLedger(name)
    for folder in (".", "elsewhere"):
        (tmp_path / folder).mkdir(exist_ok=True)
        monkeypatch.chdir(tmp_path / folder)
        await ledger.counts()
        await ledger.aclose()
    (tmp_path / "elsewhere").rmdir()
    assert [path.name for path in tmp_path.iterdir()] == [name]


async def test_a_file_that_is_no_ledger(path: Path) -> None:
    """A file of something else, a missing directory and a version of the future are told in one sentence."""
    path.write_bytes(b"not a database, but long enough to look like one" * 100)
    with pytest.raises(LedgerError, match=r"jobs\.db' cannot be read or written: file is not a database"):
        await SQLiteLedger(path).counts()
    with contextlib.closing(sqlite3.connect(path.with_name("other.db"))) as db:
        db.execute("CREATE TABLE customers (name)")
    before = path.with_name("other.db").read_bytes()
    with pytest.raises(LedgerError, match=r"other\.db' is a database of something else, no ledger; it was not changed"):
        await SQLiteLedger(path.with_name("other.db")).counts()
    assert path.with_name("other.db").read_bytes() == before
    with pytest.raises(LedgerError, match="unable to open database file"):
        await SQLiteLedger(path / "nowhere" / "jobs.db").counts()
    with contextlib.closing(sqlite3.connect(path.with_name("new.db"))) as db:
        db.execute("PRAGMA user_version = 99")
    with pytest.raises(LedgerError, match="has version 99, and this piapi_async knows 2; update the package"):
        await SQLiteLedger(path.with_name("new.db")).counts()


async def test_a_ledger_of_an_older_version_is_brought_up(path: Path) -> None:
    """A file of each version before this one is opened, and its jobs are what they were."""
    for version in range(1, len(MIGRATIONS)):
        older = path.with_name(f"{version}.db")
        door = Door(older, migrations=MIGRATIONS[:version])
        insert = "INSERT INTO jobs (key, fingerprint, request, changed_at) VALUES (?, ?, ?, 0)"
        await door.do(lambda db: db.execute(insert, ("k", BEAR.fingerprint, BEAR.text)))  # noqa: B023 - done at once
        await door.aclose()
        async with SQLiteLedger(older) as ledger:
            row = await ledger.get("k")
            assert row is not None
            assert (row.state, row.content, row.sent) == (JobState.PLANNED, BEAR, ())


async def test_opening_changes_nothing(path: Path) -> None:
    """A ledger that is looked into is not written to: that works on a full disk, too."""
    async with SQLiteLedger(path) as ledger:
        await ledger.counts()
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.execute("SELECT * FROM jobs")
        async with SQLiteLedger(path) as ledger:
            await ledger.counts()
        assert path.with_name("jobs.db-wal").stat().st_size == 0


async def test_what_money_depends_on_is_flushed(path: Path) -> None:
    """In WAL mode a POST, its task and a doubt are on disk before the call returns; the rest comes along later."""
    done: list[str] = []
    async with SQLiteLedger(path) as ledger:
        await ledger._door.do(lambda db: db.set_trace_callback(done.append))
        assert await ledger._door.do(lambda db: db.execute("PRAGMA journal_mode").fetchone()[0]) == "wal"

        async def is_flushed(act: Coroutine[Any, Any, object]) -> bool:
            done.clear()
            await act
            return done[0] == "PRAGMA synchronous = FULL"

        for key in ("a", "b", "c"):
            assert not await is_flushed(ledger.claim(BEAR, key=key, owner="me", save=False))
            assert await is_flushed(ledger.send(key, owner="me", token=None, points=1, limit=None))
        assert await is_flushed(ledger.accepted("a", task_id="t-1"))
        assert not await is_flushed(ledger.finished("a", info=ended(), owner="me"))
        assert await is_flushed(ledger.refused("b", owner="me"))
        assert await is_flushed(ledger.lost("c", owner="me"))
        assert await is_flushed(ledger.resubmit("c"))
        assert await is_flushed(ledger.let_go("me"))
        assert await is_flushed(ledger.forget("c"))


@pytest.fixture
def door(path: Path) -> Iterator[Door]:
    """A door to one table."""
    door = Door(path, migrations=("CREATE TABLE t (n INTEGER)",))
    yield door
    asyncio.run(door.aclose())


def insert(number: int) -> Any:
    """An act that adds a row."""
    return lambda db: db.execute("INSERT INTO t VALUES (?)", (number,)).lastrowid


def numbers(db: sqlite3.Connection) -> list[int]:
    """An act that reads all rows."""
    return [number for (number,) in db.execute("SELECT n FROM t ORDER BY rowid")]


@contextlib.asynccontextmanager
async def kept_busy(door: Door) -> AsyncIterator[None]:
    """Its thread has something to do until the end of this."""
    has_begun, is_free = threading.Event(), threading.Event()

    def keep_busy(_db: sqlite3.Connection) -> None:
        has_begun.set()
        is_free.wait(30)

    busy = asyncio.create_task(door.do(keep_busy))
    await asyncio.to_thread(has_begun.wait)
    yield
    is_free.set()
    await busy


async def together(door: Door, *acts: Any, flush: Sequence[bool] | None = None) -> list[Any]:
    """What becomes of acts that come while the thread is busy, and so share a turn."""
    flushes = flush or [True] * len(acts)
    async with asyncio.timeout(60):
        async with kept_busy(door):
            crowd = [asyncio.create_task(door.do(act, flush=flag)) for act, flag in zip(acts, flushes, strict=True)]
            await asyncio.sleep(0)
        return await asyncio.gather(*crowd, return_exceptions=True)


def test_those_who_come_while_the_disk_is_busy_share_a_flush(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    """A hundred changes are done in their order, cost one commit, and wake the loop once, all together."""
    turns = list[int]()
    take = door._take

    def counted(turn: Any) -> None:
        take(turn)
        turns.append(len(turn.errands))

    monkeypatch.setattr(door, "_take", counted)

    async def main() -> tuple[list[int], int]:
        await together(door, *map(insert, range(100)))
        with contextlib.closing(sqlite3.connect(door.path)) as other:
            _, frames, _ = other.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
        return await door.do(numbers), frames

    found, frames = asyncio.run(main())
    assert found == list(range(100))
    assert frames < 50
    assert turns == [1, 100, 1]


@pytest.mark.parametrize(("flush", "level"), [([True, False], 2), ([False, True], 2), ([False, False], 1)])
def test_who_needs_a_flush_gets_it_in_any_company(door: Door, flush: list[bool], level: int) -> None:
    """A transaction is flushed when anybody in it needs that, and is in the log when nobody does."""
    synchronous = lambda db: db.execute("PRAGMA synchronous").fetchone()  # noqa: E731
    assert asyncio.run(together(door, synchronous, synchronous, flush=flush)) == [(level,)] * 2


def test_who_cannot_write_for_another_is_told_so(door: Door) -> None:
    """What did not even begin is told as it is, and the next turn begins when the other is done."""

    async def main() -> list[int]:
        await door.do(lambda db: db.execute("PRAGMA busy_timeout = 10"))
        with contextlib.closing(sqlite3.connect(door.path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(LedgerError, match="database is locked"):
                await door.do(insert(1))
            other.execute("COMMIT")
        await door.do(insert(2))
        return await door.do(numbers)

    assert asyncio.run(main()) == [2]


def test_opening_does_not_wait_for_readers(door: Door) -> None:
    """While somebody reads what has changed since, the file is opened, and written to, at once."""

    async def main() -> list[int]:
        await door.do(insert(1))
        with contextlib.closing(sqlite3.connect(door.path, isolation_level=None)) as reader:
            reader.execute("BEGIN")
            numbers(reader)
            await door.do(insert(2))
            await door.aclose()
            async with asyncio.timeout(BUSY / 3):
                await door.do(insert(3))
        return await door.do(numbers)

    assert asyncio.run(main()) == [1, 2, 3]


def test_who_opens_waits_for_another_that_writes(path: Path) -> None:
    """Giving room back does not wait for others, and all else still does."""
    door, other_door = (Door(path, migrations=("CREATE TABLE t (n INTEGER)",)) for _ in range(2))

    has_begun = threading.Event()

    def take_time(_db: sqlite3.Connection) -> None:
        has_begun.set()
        threading.Event().wait(0.2)

    async def main() -> list[int]:
        await door.do(insert(1))
        await other_door.do(numbers)
        slowly = asyncio.create_task(door.do(take_time))
        await asyncio.to_thread(has_begun.wait)
        await other_door.do(insert(2))
        await slowly
        found = await door.do(numbers)
        await asyncio.gather(door.aclose(), other_door.aclose())
        return found

    assert asyncio.run(main()) == [1, 2]


def test_a_turn_begins_with_the_right_to_write(door: Door) -> None:
    """Another process cannot write between what an act reads and what it writes."""

    def meddled(db: sqlite3.Connection) -> None:
        numbers(db)
        with contextlib.closing(sqlite3.connect(door.path, timeout=0)) as other:
            other.execute("INSERT INTO t VALUES (1)")

    async def main() -> list[int]:
        with pytest.raises(LedgerError, match="database is locked"):
            await door.do(meddled)
        return await door.do(numbers)

    assert asyncio.run(main()) == []


def test_two_loops_share_a_door(door: Door) -> None:
    """Each is told in its own loop, whoever's turn comes first, and nothing is left out or done twice."""
    start = threading.Barrier(2)

    async def main(first: int) -> list[int]:
        start.wait()
        return list(await asyncio.gather(*(door.do(insert(number)) for number in range(first, first + 300))))

    ends: dict[int, list[int]] = {}
    work = lambda first: ends.update({first: asyncio.run(main(first))})  # noqa: E731
    threads = [threading.Thread(target=work, args=[first]) for first in (0, 300)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)
    assert sorted(ends[0] + ends[300]) == list(range(1, 601))
    assert sorted(asyncio.run(door.do(numbers))) == list(range(600))


def test_what_one_act_cannot_do_is_its_own_matter(door: Door) -> None:
    """A value that cannot be stored, or an interruption, undoes its own act, and those in its turn are done."""

    def interrupted(db: sqlite3.Connection) -> None:
        insert(8)(db)
        raise KeyboardInterrupt

    async def main() -> tuple[list[Any], list[int]]:
        acts = (insert(0), interrupted, insert(1), insert(10**30), insert(2))
        return await together(door, *acts), await door.do(numbers)

    ends, found = asyncio.run(main())
    assert [type(end) for end in ends] == [int, LedgerError, int, LedgerError, int]
    assert found == [0, 1, 2]


def test_nobody_is_told_that_something_was_done_that_was_not(door: Door) -> None:
    """Even if the error cannot be told, everybody gets one, and who comes later is served."""

    class UntellableError(sqlite3.OperationalError):
        def __str__(self) -> str:
            raise MemoryError

    def fail(_db: sqlite3.Connection) -> None:
        raise UntellableError

    async def main() -> tuple[list[Any], list[int]]:
        return await together(door, insert(0), fail), await door.do(numbers)

    ends, found = asyncio.run(main())
    assert [type(end) for end in ends] == [LedgerError, LedgerError]
    assert ends[0] is not ends[1]
    assert found == []


def test_nobody_waits_for_a_thread_that_was_stopped(door: Door) -> None:
    """Who waits for his turn when there will be none is told so, and so is whoever comes later."""

    async def main() -> list[int]:
        async with asyncio.timeout(30):
            async with kept_busy(door):
                waiting = asyncio.create_task(door.do(insert(1)))
                await asyncio.sleep(0)
                thread, door._thread = door._thread, ThreadPoolExecutor(1)
                thread.shutdown(wait=False, cancel_futures=True)
                with pytest.raises(LedgerError, match="was stopped"):
                    await waiting
            return await door.do(numbers)

    assert asyncio.run(main()) == []


def test_a_newer_ledger_is_refused_to_each_by_an_error_of_his_own(path: Path) -> None:
    """What is noted in one job's error, that it is paid for, does not turn up in another's."""
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA user_version = 99")
    door = Door(path, migrations=MIGRATIONS)

    async def main() -> list[Any]:
        crowd = [door.do(numbers) for _ in range(3)]
        return await asyncio.gather(*crowd, return_exceptions=True)

    ends = asyncio.run(main())
    assert all("has version 99" in str(end) for end in ends)
    assert len(set(map(id, ends))) == 3


def test_who_refuses_does_not_harm_the_others(door: Door) -> None:
    """An act that raises one of our errors gets it back; those in the same transaction are done."""

    def refuse(_db: sqlite3.Connection) -> None:
        raise LedgerConflictError("no")

    async def main() -> list[Any]:
        acts = (insert(1), refuse, insert(2))
        ends = await asyncio.gather(*(door.do(act) for act in acts), return_exceptions=True)
        return [ends, await door.do(numbers)]

    ends, found = asyncio.run(main())
    assert [type(end) for end in ends] == [int, LedgerConflictError, int]
    assert found == [1, 2]


def test_what_goes_wrong_with_the_file_undoes_all_that_was_in_it(door: Door) -> None:
    """An error of the database itself is told to everybody in the transaction, and nothing of it is done."""
    tries = 0

    def fail(db: sqlite3.Connection) -> None:
        nonlocal tries
        tries += 1
        db.execute("INSERT INTO nowhere VALUES (1)")

    async def main() -> tuple[list[Any], list[int]]:
        await door.do(insert(0))
        return await together(door, insert(1), fail), await door.do(numbers)

    ends, found = asyncio.run(main())
    assert tries == 1
    assert [type(end) for end in ends] == [LedgerError, LedgerError]
    assert found == [0]


def test_who_is_cancelled_is_done_all_the_same(door: Door) -> None:
    """A cancelled caller's act is done: what was paid for is written down. The others in its turn are told."""

    async def main() -> list[int]:
        async with asyncio.timeout(30):
            doing, other = (asyncio.create_task(door.do(insert(number))) for number in (1, 2))
            await asyncio.sleep(0)
            doing.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await doing
            assert await other == 2
            return await door.do(numbers)

    assert asyncio.run(main()) == [1, 2]


def test_where_shortening_the_log_made_room_all_is_done_anew(door: Door) -> None:
    """What met a full disk is tried a second time, everything in its turn, also what refused the first time."""
    full = sqlite3.OperationalError("database or disk is full")
    full.sqlite_errorname = "SQLITE_FULL"
    trouble = [LedgerConflictError("no"), full]

    def troubled(number: int) -> Any:
        def act(db: sqlite3.Connection) -> None:
            if trouble:
                raise trouble.pop(0)
            insert(number)(db)

        return act

    async def main() -> list[int]:
        assert await together(door, insert(0), troubled(1), troubled(2)) == [1, None, None]
        return await door.do(numbers)

    assert asyncio.run(main()) == [0, 1, 2]


def test_a_full_disk_is_told_and_left(door: Door) -> None:
    """When there is no room, even after the log was shortened, the error says so; with room again it goes on."""

    async def main() -> tuple[list[int], list[int]]:
        await door.do(lambda db: db.execute("PRAGMA max_page_count = 3"))
        fill = lambda db: db.execute("INSERT INTO t SELECT zeroblob(1000000)")  # noqa: E731
        with pytest.raises(LedgerError, match="database or disk is full"):
            await door.do(fill)
        before = await door.do(numbers)
        await door.do(lambda db: db.execute("PRAGMA max_page_count = 1000"))
        await door.do(insert(5))
        return before, await door.do(numbers)

    assert asyncio.run(main()) == ([], [5])


def test_a_log_that_others_read_cannot_be_shortened(door: Door) -> None:
    """While another process reads, a full disk is told without a second attempt."""

    async def main() -> None:
        await door.do(insert(1))
        with contextlib.closing(sqlite3.connect(door.path, isolation_level=None)) as other:
            other.execute("BEGIN")
            other.execute("SELECT * FROM t").fetchall()
            await door.do(lambda db: db.execute("PRAGMA busy_timeout = 10"))
            await door.do(lambda db: db.execute("PRAGMA max_page_count = 3"))
            with pytest.raises(LedgerError, match="database or disk is full"):
                await door.do(lambda db: db.execute("INSERT INTO t SELECT zeroblob(1000000)"))

    asyncio.run(main())


async def test_permission_is_the_holders_and_facts_are_everybodys(path: Path) -> None:
    """What only the holder can know is not believed of others; that there is a task is, once."""
    owner, other = new_owner(), new_owner()
    async with SQLiteLedger(path) as ledger:
        for key in ("a", "b"):
            await ledger.claim(BEAR, key=key, owner=owner, save=True)
            await ledger.send(key, owner=owner, token=None, points=1, limit=None)
            await ledger.refused(key, owner=other)
            await ledger.lost(key, owner=other)
        assert (await ledger.counts())[JobState.SUBMITTING] == 2
        await ledger.accepted("a", task_id="t-1")
        with pytest.raises(LedgerError, match="task t-1 is of job 'a', it cannot be of job 'b' too"):
            await ledger.accepted("b", task_id="t-1")
        with pytest.raises(LedgerError, match="job 'a' has task t-1 already; task t-2 was paid for as well") as raised:
            await ledger.accepted("a", task_id="t-2")
        assert raised.value.task_id == "t-2"
        with pytest.raises(LedgerError, match="the ledger has no job 'c'"):
            await ledger.lost("c", owner=owner)


def test_opening_waits_for_another_that_opens(path: Path) -> None:
    """A file that somebody else has for himself is waited for; what is no matter of waiting is raised at once."""
    first, second = (sqlite3.connect(path, isolation_level=None, timeout=0, check_same_thread=False) for _ in range(2))
    first.execute("BEGIN EXCLUSIVE")
    with pytest.raises(sqlite3.OperationalError, match="locked"):
        log_ahead(second, seconds=0.02)
    threading.Timer(0.05, first.execute, ["COMMIT"]).start()
    log_ahead(second)
    assert second.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    first.close()
    second.close()


def test_a_file_that_cannot_be_written_is_told_at_once(path: Path) -> None:
    """A ledger that may only be read is an error without a wait."""
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.execute("CREATE TABLE a (b)")
    with contextlib.closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as db:
        with pytest.raises(sqlite3.OperationalError, match="readonly"):
            log_ahead(db)
