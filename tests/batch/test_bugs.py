"""What nobody foresaw, in one job of a batch: it is that job's failure, and a few in a row stop the batch in order."""

import asyncio
import hashlib
import json
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp
import attrs
import click
import pytest
from batch.test_batch import QUICK, bears, errors_of, session_on, short
from click.testing import CliRunner
from support.ground import CAT, Ground

from piapi_async import Batch, RetryPolicy, Session, TaskStatus, Txt2Img, errors
from piapi_async._text import unforeseen
from piapi_async.batch import Failed, InternalError, Outcome, Succeeded
from piapi_async.batch._runner import BUGS
from piapi_async.cli._errors import Program
from piapi_async.emulator import Emulator
from piapi_async.ledger import JobState, SQLiteLedger


class SilentError(Exception):
    """An exception that cannot even be told."""

    def __str__(self) -> str:
        raise RuntimeError("no words")


KINDS: list[Callable[[], Exception]] = [
    partial(KeyError, "style"),
    partial(AttributeError, "style"),
    AssertionError,
    partial(RecursionError, "too deep"),
    MemoryError,
    partial(ZeroDivisionError, "by zero"),
    partial(ExceptionGroup, "several", [KeyError("style")]),
    SilentError,
]


@attrs.frozen(eq=False)
class Odd:
    """A request of the user's own, one of whose properties raises."""

    make: Callable[[], Exception]
    where: str = "input"

    @property
    def model(self) -> str:
        """The model, or an error."""
        return self._told("model", "Qubico/flux1-schnell")

    @property
    def task_type(self) -> str:
        """The kind of task, or an error."""
        return self._told("task_type", "txt2img")

    @property
    def service_mode(self) -> str | None:
        """The mode, or an error."""
        return self._told("service_mode", None)

    @property
    def input(self) -> Mapping[str, Any]:
        """The fields, or an error."""
        return self._told("input", {"prompt": "odd", "width": 32, "height": 32})

    def _told(self, where: str, value: Any) -> Any:
        if where == self.where:
            raise self.make()
        return value


@pytest.fixture
def db(tmp_path: Path) -> Path:
    """Where a ledger may be."""
    return tmp_path / "jobs.db"


def bug(outcome: Outcome) -> InternalError:
    """The error of a job that met what nobody foresaw."""
    assert isinstance(outcome, Failed)
    assert isinstance(outcome.error, InternalError)
    assert outcome.error.__cause__ is not None
    assert "report" in str(outcome.error)
    return outcome.error


@pytest.mark.parametrize("make", KINDS)
@pytest.mark.parametrize("is_noted", [True, False])
async def test_it_is_the_jobs_own_failure(db: Path, make: Callable[[], Exception], is_noted: bool) -> None:
    """Whatever a request's `input` raises fails that job alone, with the exception as the cause and where it was."""
    requests = [*bears(2), Odd(make), *bears(2, first=2)]
    async with short() as emulator, session_on(emulator) as session:
        outcomes = await Batch(session, ledger=db if is_noted else None, max_in_flight=1).gather(requests)
        emulator.check.exactly(4, "create")
    error = bug(outcomes[2])
    assert type(error.__cause__) is type(make())
    assert error.safe_to_resubmit
    assert error.task_id is None
    assert type(make()).__name__ in str(error)
    assert "test_bugs.py:" in str(error)
    assert errors_of(outcomes[:2] + outcomes[3:]) == [None] * 4


@pytest.mark.parametrize("where", ["model", "task_type", "service_mode"])
async def test_any_property_of_a_request_may_raise(db: Path, where: str) -> None:
    """A property that raises does not keep the other jobs from being added, iterated over and done."""
    async with short() as emulator, session_on(emulator) as session:
        async with Batch(session, ledger=db) as batch:
            batch.add(Odd(lambda: KeyError("x"), where))
            batch.add_many([*bears(2), Odd(lambda: KeyError("x"), where)])
            outcomes = [outcome async for outcome in batch]
        emulator.check.exactly(2, "create")
    assert sorted(map(str, errors_of(outcomes)))[:2] == [str(InternalError)] * 2
    assert errors_of(outcomes).count(None) == 2


ENDING = """
import asyncio
from piapi_async import Batch, Session

class Ending:
    model, task_type, service_mode = "m", "txt2img", None

    @property
    def input(self):
        raise {interrupt}

async def main():
    async with Session("key", base_url="http://127.0.0.1:9") as session:
        await Batch(session).gather([Ending()])

asyncio.run(main())
"""


@pytest.mark.parametrize(("interrupt", "code"), [("KeyboardInterrupt", {130, -2}), ("SystemExit(7)", {7})])
def test_what_ends_the_program_goes_through(interrupt: str, code: set[int]) -> None:
    """What is not an `Exception` is nobody's failure, and ends the program."""
    script = ENDING.replace("{interrupt}", interrupt)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode in code
    assert "InternalError" not in done.stderr


@pytest.mark.parametrize("is_noted", [True, False])
async def test_a_few_in_a_row_stop_the_batch(db: Path, is_noted: bool, caplog: pytest.LogCaptureFixture) -> None:
    """After three with no success between them no more begin; jobs not begun stay planned, and the next run goes on.

    The log has one traceback, that of the first.
    """
    ledger = db if is_noted else None
    odd = [Odd(lambda: KeyError("x")) for _ in range(BUGS + 2)]
    async with short() as emulator, session_on(emulator) as session:
        outcomes = await Batch(session, ledger=ledger, max_in_flight=1).gather([*odd, *bears(3)])
        assert errors_of(outcomes) == [InternalError] * BUGS + [errors.BatchStoppedError] * 5
        assert outcomes[-1].error.__cause__ is outcomes[BUGS - 1].error  # type: ignore[union-attr]
        emulator.check.exactly(0, "create")
        assert len([record for record in caplog.records if record.exc_info]) == 1
        async with Batch(session, ledger=ledger, max_in_flight=1) as batch:
            batch.add_many([*odd, *bears(3)])
            with pytest.raises(InternalError):
                [outcome async for outcome in batch]
        assert errors_of(await Batch(session, ledger=ledger).gather(bears(3))) == [None] * 3
        emulator.check.exactly(3, "create")


async def test_a_success_between_them_goes_on(db: Path) -> None:
    """Bugs of a few odd jobs among many good ones do not stop a batch."""
    requests = [job for n in range(4) for job in (Odd(lambda: KeyError("x")), Odd(lambda: KeyError("x")), bears(9)[n])]
    async with short() as emulator, session_on(emulator) as session:
        outcomes = await Batch(session, ledger=db, max_in_flight=1).gather(requests)
    assert errors_of(outcomes) == [InternalError, InternalError, None] * 4


# Code of the user's that is called while a task exists, or may: a trace of a borrowed client session.


@asynccontextmanager
async def traced(emulator: Emulator, signal: str, *, method: str, path: str) -> AsyncIterator[Session]:
    """A session on a client session whose trace raises at a moment of some requests."""
    trace = aiohttp.TraceConfig()

    async def raising(_session: object, _context: object, params: Any) -> None:
        if params.method == method and path in str(params.url):
            raise KeyError("a bug in a trace")

    getattr(trace, signal).append(raising)
    async with aiohttp.ClientSession(trace_configs=[trace]) as http:
        async with Session(emulator.api_key, base_url=emulator.url, http=http, polling=QUICK) as session:
            yield session


@pytest.mark.parametrize("is_noted", [True, False])
async def test_a_task_that_was_made_is_named(db: Path, is_noted: bool) -> None:
    """What breaks a wait leaves the task: the error names it, and the next run of a ledger waits for it."""
    ledger = db if is_noted else None
    async with short() as emulator:
        async with traced(emulator, "on_request_start", method="GET", path="/api/v1/task/") as session:
            (outcome,) = await Batch(session, ledger=ledger).gather(bears(1))
        assert bug(outcome).task_id == next(iter(emulator.tasks))
        assert not bug(outcome).safe_to_resubmit
        assert str(bug(outcome).task_id) in str(bug(outcome))
        if is_noted:
            async with session_on(emulator) as session:
                assert errors_of(await Batch(session, ledger=ledger).gather(bears(1))) == [None]
            emulator.check.exactly(1, "create")


@pytest.mark.parametrize("is_noted", [True, False])
async def test_what_was_paid_for_is_fetched_by_the_next_run(db: Path, tmp_path: Path, is_noted: bool) -> None:
    """What breaks a save leaves a completed task, with its info; with a ledger the next run fetches it."""
    ledger = db if is_noted else None
    async with short() as emulator:
        async with traced(emulator, "on_request_start", method="GET", path=".png") as session:
            (outcome,) = await Batch(session, ledger=ledger, save_to=tmp_path / "out").gather(bears(1))
        assert outcome.info is not None
        assert bug(outcome).task_id == outcome.info.task_id
        if is_noted:
            async with SQLiteLedger(db) as rows:
                assert (await rows.counts())[JobState.COMPLETED] == 1
            async with session_on(emulator) as session:
                (again,) = await Batch(session, ledger=ledger, save_to=tmp_path / "out").gather(bears(1))
            assert isinstance(again, Succeeded)
            assert again.paths[0].exists()
            emulator.check.exactly(1, "create")


@pytest.mark.parametrize("is_noted", [True, False])
async def test_nothing_was_sent_where_it_broke_before(db: Path, is_noted: bool) -> None:
    """What breaks a submit before its first byte is a failure that is safe to submit again."""
    async with short() as emulator:
        async with traced(emulator, "on_request_start", method="POST", path="/api/v1/task") as session:
            (outcome,) = await Batch(session, ledger=db if is_noted else None).gather(bears(1))
        assert bug(outcome).safe_to_resubmit
        emulator.check.exactly(0, "create")


@pytest.mark.parametrize("is_noted", [True, False])
async def test_where_a_task_may_exist_it_is_a_doubt(db: Path, is_noted: bool) -> None:
    """What hides the answer to a submit is a doubt, and three of those stop the batch: each may be paid for."""
    async with short() as emulator:
        async with traced(emulator, "on_request_end", method="POST", path="/api/v1/task") as session:
            batch = Batch(session, ledger=db if is_noted else None, max_in_flight=1, on_doubt="skip")
            outcomes = await batch.gather(bears(BUGS + 3))
        assert errors_of(outcomes) == [errors.SubmissionInDoubtError] * BUGS + [errors.BatchStoppedError] * 3
        emulator.check.exactly(BUGS, "create")


class Broken(SQLiteLedger):
    """A ledger one of whose methods raises."""

    def __init__(self, path: Path, *, name: str, error: Exception) -> None:
        super().__init__(path)
        self._name, self._raised = name, error
        self._holders: set[str] = set()

    def _maybe(self, name: str) -> None:
        if name == self._name:
            raise self._raised

    async def refused(self, key: str, **given: Any) -> None:
        """As in the class, or an error."""
        self._maybe("refused")
        await super().refused(key, **given)

    async def release(self, key: str, **given: Any) -> None:
        """As in the class, or an error."""
        self._maybe("release")
        await super().release(key, **given)

    async def hold(self, owner: str) -> None:
        """As in the class, or an error after the first time."""
        await super().hold(owner)
        if owner in self._holders:
            self._maybe("hold")
        self._holders.add(owner)


async def test_a_refusal_that_cannot_be_written_is_a_doubt(db: Path) -> None:
    """A job whose refusal is not in the ledger cannot be told from one whose task exists, so it is let go in doubt."""
    async with short() as emulator, session_on(emulator, retry=RetryPolicy(attempts=1)) as session:
        emulator.faults.next("create", "429")
        async with Broken(db, name="refused", error=errors.LedgerError("the disk is full")) as ledger:
            await Batch(session, ledger=ledger, on_doubt="skip").gather(bears(1))
            assert (await ledger.counts())[JobState.IN_DOUBT] == 1
        (outcome,) = await Batch(session, ledger=db, on_doubt="skip").gather(bears(1))
        assert errors_of([outcome]) == [errors.SubmissionInDoubtError]


async def test_a_bug_beside_the_jobs_stops_the_batch_in_order(db: Path) -> None:
    """What the batch itself meets where it cannot say whose it is ends the batch with that error, and loses nothing."""
    async with short() as emulator, session_on(emulator) as session:
        emulator.faults.next("create", "cut-after-accept")
        async with Broken(db, name="release", error=KeyError("x")) as ledger:
            outcomes = await Batch(session, ledger=ledger, on_doubt="skip", max_in_flight=1).gather(bears(3))
            assert errors_of(outcomes) == [errors.BatchStoppedError] * 3
            assert isinstance(outcomes[0].error.__cause__, KeyError)  # type: ignore[union-attr]
        again = await Batch(session, ledger=db, on_doubt="reconcile", max_in_flight=1).gather(bears(3))
        assert errors_of(again) == [None] * 3
        emulator.check.exactly(3, "create")


async def test_a_heartbeat_that_fails_harms_nobody(db: Path) -> None:
    """A sign of life that cannot be given is given the next time; a lease that was lost is found out before paying."""
    async with short() as emulator, session_on(emulator) as session:
        async with Broken(db, name="hold", error=KeyError("x")) as ledger:
            outcomes = await Batch(session, ledger=ledger, max_in_flight=1).gather(bears(40))
    assert errors_of(outcomes) == [None] * 40


async def test_observers_that_raise_harm_nobody(db: Path) -> None:
    """An observer that raises at every event is logged, and the jobs are done."""

    def observer(_event: object) -> None:
        raise KeyError("x")

    async with short() as emulator, session_on(emulator, observers=[observer]) as session:
        assert errors_of(await Batch(session, ledger=db).gather(bears(3))) == [None] * 3


@pytest.mark.parametrize("is_noted", [True, False])
async def test_a_failed_task_comes_as_it_was_last_seen(db: Path, is_noted: bool) -> None:
    """The info of a job whose task failed is the failed task, with its reason, not the one that was accepted."""
    async with short() as emulator, session_on(emulator) as session:
        emulator.faults.next("create", "task-fails", reason="no bears today")
        (outcome,) = await Batch(session, ledger=db if is_noted else None).gather(bears(1))
    assert outcome.info is not None
    assert outcome.info.status is TaskStatus.FAILED
    assert outcome.info.reason == "no bears today"


# Streams.


async def stream(*, before: int, error: Exception | None, at_close: Exception | None = None) -> AsyncIterator[Txt2Img]:
    """Requests, and then an error; or one when it is closed."""
    try:
        for request in bears(before):
            yield request
        if error is not None:
            raise error
        yield bears(1, first=99)[0]
    finally:
        if at_close is not None:
            raise at_close


async def test_a_stream_that_breaks_names_what_was_paid_for() -> None:
    """`gather` raises what an async generator raised, when what was begun is over, and names the tasks."""
    async with short() as emulator, session_on(emulator) as session:
        with pytest.raises(KeyError, match="x") as raised:
            await Batch(session).gather(stream(before=3, error=KeyError("x")))
        (note,) = raised.value.__notes__
        assert all(task_id in note for task_id in emulator.tasks)
        with pytest.raises(KeyError) as raised:
            await Batch(session).gather(stream(before=0, error=KeyError("x")))
        assert not hasattr(raised.value, "__notes__")
    emulator.check.exactly_tasks(3)


async def test_a_stream_that_breaks_when_it_is_closed_costs_no_outcome(db: Path) -> None:
    """Iteration gives every outcome first, and then raises what an async generator raised when it was closed."""
    async with short() as emulator, session_on(emulator) as session:
        async with Batch(session, ledger=db, max_in_flight=1) as batch:
            batch.add_many(stream(before=3, error=None, at_close=KeyError("x")))
            found = []
            with pytest.raises(KeyError):  # noqa: PT012 - the loop is what raises
                async for outcome in batch:
                    found.append(outcome)
                    batch.stop()
    assert set(errors_of(found)) == {None}
    assert found


async def test_a_stream_that_breaks_when_it_is_closed_names_what_was_paid_for() -> None:
    """`gather` raises what an async generator raised when it was closed, and names the tasks there are."""
    async with short() as emulator, session_on(emulator) as session:
        batch = Batch(session, max_in_flight=1)
        asyncio.get_running_loop().call_later(0.5, batch.stop)
        with pytest.raises(KeyError) as raised:
            await batch.gather(stream(before=3, error=None, at_close=KeyError("x")))
        assert next(iter(emulator.tasks)) in raised.value.__notes__[0]


def late(count: int) -> Iterator[Txt2Img]:
    """Requests, and then an error."""
    yield from bears(count)
    raise KeyError("x")


async def test_a_stream_that_was_not_reached_may_break_as_well() -> None:
    """What is left in a stream is read to be told as not begun; where that raises, the tasks there are are named."""
    async with short() as emulator, session_on(emulator) as session:
        batch = Batch(session, max_in_flight=1)
        batch.add_many(late(5))
        asyncio.get_running_loop().call_later(0.5, batch.stop)
        with pytest.raises(KeyError) as raised:
            await batch.gather()
        assert next(iter(emulator.tasks)) in raised.value.__notes__[0]


# The command line.


def test_the_command_tells_it_in_one_line(ground: Ground, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """`piapi-async batch` shows one line for such a job and no traceback, and does the others."""
    real = hashlib.file_digest

    def broken(file: Any, *given: Any) -> Any:
        if file.name.endswith("odd.jpg"):
            raise KeyError("odd")
        return real(file, *given)

    monkeypatch.setattr(hashlib, "file_digest", broken)
    for name in ("odd", "even"):
        (tmp_path / f"{name}.jpg").write_bytes(Path(CAT).read_bytes())
    lines = [{"prompt": "a bear", "image": f"{name}.jpg"} for name in ("odd", "even")]
    (tmp_path / "jobs.jsonl").write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    result = ground("batch", "jobs.jsonl", "--out", "out", "--json")
    (told,) = [line for line in result.stderr.splitlines() if "unforeseen" in line]
    assert "KeyError: 'odd' (test_bugs.py:" in told
    assert "report this line" in told
    assert "Traceback" not in result.stderr
    assert result.exit_code == 1
    assert json.loads(result.stdout)["completed"] == 1


@pytest.mark.parametrize("make", KINDS)
def test_any_command_tells_it_in_one_line(make: Callable[[], Exception]) -> None:
    """A bug in a command is one line on stderr with where it was, exit code 1, and no traceback."""

    def broken() -> None:
        raise make()

    result = CliRunner().invoke(Program("piapi-async", commands={"go": click.Command("go", callback=broken)}), ["go"])
    (told,) = result.stderr.splitlines()
    assert type(make()).__name__ in told
    assert "test_bugs.py:" in told
    assert result.exit_code == 1


def test_an_exception_that_was_never_raised_has_no_place() -> None:
    """Without a traceback there is the exception alone."""
    assert unforeseen(KeyError("x")) == "KeyError: 'x'"
