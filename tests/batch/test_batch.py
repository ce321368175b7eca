"""`Batch`: many jobs, a bounded number in flight, each outcome a value; stopped, resumed, shared."""

import asyncio
import itertools
import json
import math
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from PIL import Image as Picture
from support.raw_server import RawServer, answer, task

from piapi_async import Backoff, Batch, Polling, RetryPolicy, Session, TaskRequest, Txt2Img, errors
from piapi_async.batch import Failed, Outcome, Succeeded, raise_failures
from piapi_async.emulator import Constant, Emulator, Uniform
from piapi_async.ledger import JobState, SQLiteLedger
from piapi_async.prices import PRICES

QUICK = Polling(wait=Backoff(initial=0.1, factor=1.3, maximum=5.0, jitter=0.0))
PRICE = 0.0015


def bears(count: int, *, first: int = 0) -> list[Txt2Img]:
    """Requests that differ in their prompts, for small pictures."""
    return [Txt2Img(prompt=f"bear {first + n}", width=32, height=32) for n in range(count)]


def session_on(emulator: Emulator, **given: Any) -> Session:
    """A session that polls often."""
    return Session(emulator.api_key, base_url=emulator.url, **{"polling": QUICK, **given})


def short(**options: Any) -> Emulator:
    """An emulator whose tasks take a second, and of which many run at once."""
    return Emulator(**{"queue_delay": Constant(0.0), "durations": Constant(1.0), "concurrency": 1000, **options})


def errors_of(outcomes: list[Outcome]) -> list[type[Exception] | None]:
    """What went wrong, by kind."""
    return [type(outcome.error) if isinstance(outcome, Failed) else None for outcome in outcomes]


class Failing(SQLiteLedger):
    """A ledger that cannot be written at some moments."""

    def __init__(self, path: Path, *, name: str, times: int) -> None:
        super().__init__(path)
        self._name, self._times = name, times

    async def _maybe(self, name: str) -> None:
        if name == self._name and self._times > 0:
            self._times -= 1
            raise errors.LedgerError("the disk is full")

    async def send(self, key: str, **given: Any) -> None:
        """As in the class, or not at all."""
        await self._maybe("send")
        await super().send(key, **given)

    async def accepted(self, key: str, **given: Any) -> None:
        """As in the class, or not at all."""
        await self._maybe("accepted")
        await super().accepted(key, **given)

    async def finished(self, key: str, **given: Any) -> None:
        """As in the class, or not at all."""
        await self._maybe("finished")
        await super().finished(key, **given)

    async def hold(self, owner: str) -> None:
        """As in the class, or not at all."""
        await self._maybe("hold")
        await super().hold(owner)

    async def resubmit(self, key: str) -> None:
        """As in the class, or not at all."""
        await self._maybe("resubmit")
        await super().resubmit(key)


@pytest.fixture
def db(tmp_path: Path) -> Path:
    """Where a ledger may be."""
    return tmp_path / "jobs.db"


# What it gives.


async def test_one_line_without_a_ledger() -> None:
    """`await Batch(session).gather(requests)` gives one outcome for each request, in their order."""
    requests = bears(20)
    async with short(durations=Uniform(0.0, 5.0)) as emulator, session_on(emulator) as session:
        outcomes = await Batch(session).gather(requests)
        emulator.check.exactly_tasks(20)
    assert [outcome.request for outcome in outcomes] == requests
    assert errors_of(outcomes) == [None] * 20
    raise_failures(outcomes)


async def test_outcomes_come_as_jobs_finish(db: Path, tmp_path: Path) -> None:
    """Iteration gives each outcome when its job is over, and its pictures are on disk by then."""
    async with short(durations=Uniform(0.0, 50.0)) as emulator, session_on(emulator) as session:
        async with Batch(session, ledger=db, save_to=tmp_path / "out") as batch:
            assert batch.ledger is not None
            batch.add_many(bears(8))
            outcomes = []
            async for outcome in batch:
                assert isinstance(outcome, Succeeded)
                with Picture.open(outcome.paths[0]) as picture:
                    picture.load()
                outcomes.append(outcome)
        ends = {task_id: view.ended_at or math.inf for task_id, view in emulator.tasks.items()}
    assert [outcome.request for outcome in outcomes] != bears(8)
    order = [ends[outcome.info.task_id] for outcome in outcomes]
    assert all(later > earlier - 10 for earlier, later in itertools.pairwise(order))


async def test_failures_are_values_and_can_be_raised_together(db: Path) -> None:
    """A task that failed is a `Failed` with its error and task; all of them make one group; it stays failed."""
    async with short() as emulator, session_on(emulator) as session:
        emulator.faults.next("create", "task-fails", reason="the bear ran away")
        outcomes = await Batch(session, ledger=db, max_in_flight=1).gather(bears(3))
        again = await Batch(session, ledger=db).gather(bears(3))
        emulator.check.exactly(3, "create")
    for found in (outcomes, again):
        assert errors_of(found) == [errors.TaskFailedError, None, None]
        assert isinstance(found[0], Failed)
        assert found[0].info is not None
        assert found[0].info.task_id == found[0].error.task_id
        with pytest.raises(ExceptionGroup, match="1 of 3 jobs failed") as raised:
            raise_failures(found)
        assert "the bear ran away" in str(raised.value.exceptions[0])


async def test_what_cannot_be_asked_for_fails_alone(db: Path, tmp_path: Path) -> None:
    """A local picture that cannot be read, or a value that is no JSON, fails its own job; the others are done."""
    odd = [
        TaskRequest(
            model="Qubico/flux1-dev", task_type="img2img", input={"prompt": "a", "image": tmp_path / "none.png"}
        ),
        TaskRequest(model="Qubico/flux1-dev", task_type="img2img", input={"prompt": "a", "n": math.nan}),
        TaskRequest(model="Qubico/flux1-dev", task_type="img2img", input={"prompt": "a", "n": {1}}),
    ]
    loop: dict[str, Any] = {"prompt": "a"}
    loop["loop"] = loop
    odd.append(TaskRequest(model="m", task_type="t", input=loop))
    expected = [FileNotFoundError, ValueError, TypeError, ValueError, None]
    async with short() as emulator, session_on(emulator) as session:
        assert errors_of(await Batch(session, ledger=db).gather([*odd, *bears(1)])) == expected
        assert errors_of(await Batch(session).gather([*odd, *bears(1)])) == expected


async def test_a_request_that_the_service_refuses_stays_planned(db: Path) -> None:
    """A clear refusal is an outcome; nothing was paid, so the next run may ask again."""
    odd = TaskRequest(model="Qubico/flux1-dev", task_type="txt2img", input={"prompt": 7})
    async with short() as emulator, session_on(emulator) as session, SQLiteLedger(db) as ledger:
        for _ in range(2):
            outcomes = await Batch(session, ledger=ledger).gather([odd, *bears(1)])
            assert errors_of(outcomes) == [errors.InvalidRequestError, None]
        assert (await ledger.counts())[JobState.PLANNED] == 1
        assert await ledger.spent() == PRICE
        emulator.check.exactly(3, "create")


async def test_output_that_is_no_picture_is_a_success_without_files(tmp_path: Path) -> None:
    """For models other than Flux there may be nothing to save."""
    text = task("t-1", "completed", output={"text": "a poem"})
    async with RawServer(text) as server, Session("k", base_url=server.url) as session:
        request = TaskRequest(model="m", task_type="t", input={})
        (outcome,) = await Batch(session, save_to=tmp_path).gather([request])
    assert isinstance(outcome, Succeeded)
    assert outcome.paths == ()


# Which jobs, and how many at once.


async def test_no_more_than_asked_are_in_flight() -> None:
    """With as many places as the service has, no submit is ever refused for their number, and none stays empty."""
    async with short(concurrency=5, over_limit="429", durations=Uniform(1.0, 9.0)) as emulator:
        async with session_on(emulator) as session:
            outcomes = await Batch(session, max_in_flight=5).gather(bears(40))
            emulator.check.exactly(40, "create")
        work = [view.ended_at - view.created_at for view in emulator.tasks.values() if view.ended_at]
        makespan = max(view.ended_at or 0.0 for view in emulator.tasks.values())
    assert errors_of(outcomes) == [None] * 40
    assert makespan <= sum(work) / 5 + max(work) + 40 / 5 * 0.2


async def test_a_stream_is_read_only_as_there_is_room(db: Path) -> None:
    """An endless iterable is no problem: what is read ahead is bounded by the jobs in flight, for slow readers too."""
    read = 0

    def endless() -> Iterator[Txt2Img]:
        nonlocal read
        for read in itertools.count(1):
            yield Txt2Img(prompt=f"bear {read}", width=32, height=32)

    async with short() as emulator, session_on(emulator) as session:
        async with Batch(session, ledger=db, max_in_flight=4) as batch:
            batch.add_many(endless())
            taken = 0
            async for _ in batch:
                taken += 1
                assert read <= taken + 2 * 4
                if taken == 20:
                    await asyncio.sleep(60)
                if taken == 40:
                    break
            assert read <= taken + 2 * 4


async def test_streams_may_be_async_and_have_keys(db: Path) -> None:
    """Async iterables are read as well, slow ones hold up nobody, and pairs name their jobs."""

    async def slow() -> AsyncIterator[tuple[Txt2Img, str]]:
        for number, request in enumerate(bears(3)):
            yield request, f"key {number}"
            await asyncio.sleep(100)

    async with short() as emulator, session_on(emulator) as session:
        async with Batch(session, ledger=db) as batch:
            batch.add_many(slow())
            loop = asyncio.get_running_loop()
            times = {outcome.key: loop.time() async for outcome in batch}
        outcomes = await Batch(session, ledger=db).gather(slow())
    assert list(times) == ["key 0", "key 1", "key 2"]
    assert times["key 1"] - times["key 0"] == pytest.approx(100, abs=5)
    assert [outcome.key for outcome in outcomes] == list(times)


async def test_jobs_can_be_added_while_it_runs() -> None:
    """A job may lead to more, also when it was the last one."""
    async with short() as emulator, session_on(emulator) as session, Batch(session) as batch:
        batch.add(bears(1)[0], key="first")
        keys = []
        async for outcome in batch:
            keys.append(outcome.key)
            if outcome.key == "first":
                batch.add_many(zip(bears(2), ["second", "third"], strict=True))
        assert [outcome.key async for outcome in batch] == []
        batch.add(bears(1)[0], key="late")
        keys += [outcome.key async for outcome in batch]
    assert keys[0] == "first"
    assert sorted(keys) == ["first", "late", "second", "third"]


async def test_two_readers_at_once_are_refused() -> None:
    """One of them would wait for ever; the other goes on. A reader that gives up for a while loses nothing."""
    async with short() as emulator, session_on(emulator) as session, Batch(session, max_in_flight=2) as batch:
        batch.add_many(bears(4))
        first = asyncio.ensure_future(anext(batch))
        await asyncio.sleep(0)
        with pytest.raises(RuntimeError, match="iterated over already"):
            await anext(batch)
        keys = {(await first).key}
        while len(keys) < 4:
            with suppress(TimeoutError):
                keys.add((await asyncio.wait_for(anext(batch), 0.1)).key)
        assert [outcome async for outcome in batch] == []


async def test_a_job_added_while_others_run_begins_at_once() -> None:
    """There is room, so it does not wait for those that are in flight."""
    async with short(durations=Uniform(50.0, 60.0)) as emulator, session_on(emulator) as session:
        async with Batch(session, max_in_flight=2) as batch:
            batch.add_many(bears(1))
            asyncio.get_running_loop().call_later(5.0, batch.add, bears(1, first=1)[0])
            assert len([outcome async for outcome in batch]) == 2
        made = [view.created_at for view in emulator.tasks.values()]
    assert made[1] - made[0] == pytest.approx(5, abs=1)


async def test_a_stream_that_breaks_is_told_in_the_end() -> None:
    """What a stream raises, or an item that is no request, ends the batch; what is in flight is given first."""

    def broken() -> Iterator[Any]:
        yield from bears(3)
        raise LookupError("line 4 of the table")

    async with short() as emulator, session_on(emulator) as session:
        for stream, kind in ((broken(), LookupError), (iter([*bears(3), "a bear"]), TypeError)):
            async with Batch(session) as batch:
                batch.add_many(stream)
                found = []
                with pytest.raises(kind):  # noqa: PT012 - the loop is what raises
                    async for outcome in batch:
                        found.append(outcome)  # noqa: PERF401 - what came before the error counts
                assert len(found) == 3
                assert [outcome async for outcome in batch] == []
        async with Batch(session) as batch:
            batch.add_many(broken())
            with pytest.raises(LookupError, match="line 4"):
                await batch.gather()


async def test_arguments_are_refused_before_anything_is_sent() -> None:
    """One sentence with the name, the value and what is allowed."""
    async with RawServer(task()) as server, Session("k", base_url=server.url) as session:
        for wrong, kind, words in (
            ({"max_in_flight": 0}, ValueError, "max_in_flight must be"),
            ({"max_in_flight": 1.5}, TypeError, "max_in_flight must be"),
            ({"on_doubt": "ignore"}, ValueError, "on_doubt must be one of 'raise', 'skip', 'resubmit', 'reconcile'"),
            ({"on_doubt": "reconcile"}, errors.ConfigurationError, "needs a ledger"),
            ({"deadline": -1}, ValueError, "deadline must be"),
            ({"reconcile_within": None}, TypeError, "reconcile_within must be"),
            ({"max_spend_usd": "1"}, TypeError, "max_spend_usd must be"),
            ({"ledger": 7}, TypeError, "ledger must be a SQLiteLedger or a path"),
            ({"webhook": "https://example.com"}, TypeError, "webhook must be"),
            ({"name": "{date}-{n}", "save_to": "out"}, ValueError, r"name must be a template with \{task_id\}"),
            ({"name": 7, "save_to": "out"}, TypeError, "name must be a relative path"),
            ({"name": "{task_id}"}, errors.ConfigurationError, "pass save_to= as well"),
            ({"sidecar": True}, errors.ConfigurationError, "pass save_to= as well"),
        ):
            with pytest.raises(kind, match=words):
                Batch(session, **wrong)  # type: ignore[arg-type]
        batch = Batch(session)
        for wrong_job in ("a bear", (bears(1)[0], 7)):
            with pytest.raises(TypeError, match="must be"):
                await batch.gather([wrong_job])  # type: ignore[list-item]
        for key in ("", " ", "\ud800", "a\nb"):
            with pytest.raises(ValueError, match="key must be a printable string"):
                batch.add(bears(1)[0], key=key)
        with pytest.raises(TypeError, match="requests must be an iterable"):
            batch.add_many(7)  # type: ignore[arg-type]
        with pytest.raises(RuntimeError, match="not open"):
            await anext(batch)
        async with batch:
            with pytest.raises(RuntimeError, match="open already"):
                await batch.__aenter__()
        assert server.received == []


# Again.


async def test_the_same_command_again_pays_nothing(db: Path, tmp_path: Path) -> None:
    """Run again with the same requests and ledger, everything is answered from disk, also equal requests."""
    requests = [*bears(3), *bears(3)]
    async with short() as emulator, session_on(emulator) as session:
        first = await Batch(session, ledger=db, save_to=tmp_path).gather(requests)
        again = await Batch(session, ledger=str(db), save_to=tmp_path).gather(requests)
        emulator.check.exactly(6, "create")
        emulator.check.exactly(6, "result")
    assert [outcome.key for outcome in again] == [outcome.key for outcome in first]
    assert len({outcome.key for outcome in first}) == 6
    assert errors_of(first) == errors_of(again) == [None] * 6


async def test_a_key_is_one_requests(db: Path) -> None:
    """A key that comes with another request is a failed outcome, and the first job is left alone; so in one run too."""
    async with short() as emulator, session_on(emulator) as session:
        outcomes = await Batch(session, ledger=db).gather([(bears(1)[0], "k"), (bears(2)[1], "k"), (bears(1)[0], "k")])
        emulator.check.exactly(1, "create")
    assert errors_of(outcomes) == [None, errors.LedgerConflictError, None]


async def test_a_deleted_picture_is_fetched_again(db: Path, tmp_path: Path) -> None:
    """What is no longer on disk is brought again, for nothing."""
    async with short() as emulator, session_on(emulator) as session:
        for _ in range(2):
            (outcome,) = await Batch(session, ledger=db, save_to=tmp_path).gather(bears(1))
            assert isinstance(outcome, Succeeded)
            outcome.paths[0].unlink()
        emulator.check.exactly(1, "create")
        emulator.check.exactly(2, "result")


async def test_what_is_finished_is_fetched_before_anything_is_submitted(db: Path, tmp_path: Path) -> None:
    """Pictures of an earlier run come first, whether they are asked for again or not."""
    async with short() as emulator, session_on(emulator) as session:
        await Batch(session, ledger=db).gather(bears(3))
        async with Batch(session, ledger=db) as batch:
            batch.add_many(bears(2, first=3))
            asyncio.get_running_loop().call_later(0.5, batch.stop)
            asyncio.get_running_loop().call_later(0.6, batch.stop)
            assert [outcome async for outcome in batch] == []
        emulator.check.exactly_tasks(5)
        outcomes = await Batch(session, ledger=db, save_to=tmp_path / "out", max_in_flight=1).gather(bears(1, first=9))
        order = [record.endpoint for record in emulator.requests if record.endpoint in ("result", "create")][5:]
    assert len(outcomes) == 1
    assert order == ["result"] * 5 + ["create", "result"]
    assert len(list((tmp_path / "out").iterdir())) == 6


@pytest.mark.parametrize("is_noted", [True, False])
async def test_pictures_are_named_and_told_of(db: Path, tmp_path: Path, is_noted: bool) -> None:
    """With `name` and `sidecar` each picture is where it was wanted, with what was asked beside it."""
    async with short() as emulator, session_on(emulator) as session:
        ledger = db if is_noted else None
        batch = Batch(session, ledger=ledger, save_to=tmp_path / "out", name="new/{task_id}-x", sidecar=True)
        (outcome,) = await batch.gather(bears(1))
    assert isinstance(outcome, Succeeded)
    (path,) = outcome.paths
    assert path == tmp_path / "out" / "new" / f"{outcome.info.task_id}-x.png"
    assert json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))["request"]["input"]["prompt"] == "bear 0"


async def test_what_was_being_saved_in_a_killed_run_is_saved_again(db: Path, tmp_path: Path) -> None:
    """A picture and a side-car that are on disk, though the ledger does not know it, are in nobody's way."""
    ledger = Failing(db, name="finished", times=1)
    async with short() as emulator, session_on(emulator) as session, ledger:
        out = tmp_path / "out"
        given: dict[str, Any] = {"ledger": ledger, "save_to": out, "name": "{n}-{task_id}", "sidecar": True}
        assert errors_of(await Batch(session, **given).gather(bears(1))) == [None]
        assert (await ledger.counts())[JobState.SUBMITTED] == 1
        (outcome,) = await Batch(session, **given).gather(bears(1))
        emulator.check.exactly(1, "create")
    assert isinstance(outcome, Succeeded)
    sidecar, picture = sorted(out.iterdir())
    assert (sidecar.suffix, picture.suffix) == (".json", ".png")
    assert json.loads(sidecar.read_text(encoding="utf-8"))["request"]["input"]["prompt"] == "bear 0"


async def test_a_result_that_expired_is_told_once_and_for_all(db: Path, tmp_path: Path) -> None:
    """After three days the pictures are gone: the error names the task, and the next run does not try again."""
    async with short() as emulator, session_on(emulator) as session:
        await Batch(session, ledger=db).gather(bears(1))
        await asyncio.sleep(3 * 24 * 3600)
        for _ in range(2):
            (outcome,) = await Batch(session, ledger=db, save_to=tmp_path).gather(bears(1))
            assert isinstance(outcome, Failed)
            assert isinstance(outcome.error, errors.OutputError)
            assert outcome.error.task_id in str(outcome.error)
            assert "they live 3 days" in str(outcome.error)
            assert outcome.error.task_id == next(iter(emulator.tasks))
        asked = [record for record in emulator.requests if record.endpoint == "result"]
        emulator.check.exactly(1, "create")
    assert len(asked) == 3


async def test_a_result_that_comes_as_no_picture_is_fetched_again_in_the_next_run(db: Path, tmp_path: Path) -> None:
    """While it may still be there, a result that could not be fetched is not given up, and not paid for again."""
    async with short() as emulator, session_on(emulator) as session:
        emulator.faults.next("result", "html", times=3)
        first = await Batch(session, ledger=db, save_to=tmp_path).gather(bears(1))
        emulator.faults.next("result", "html", times=2)
        again = await Batch(session, ledger=db, save_to=tmp_path).gather(bears(1))
        emulator.check.exactly(1, "create")
    assert errors_of(first) == [errors.OutputError]
    assert errors_of(again) == [None]


async def test_a_disk_that_takes_no_pictures_stops_the_batch(db: Path, tmp_path: Path) -> None:
    """No more are paid for when there is no place for them; those that are come when there is."""
    (tmp_path / "file").write_text("in the way")
    async with short() as emulator, session_on(emulator) as session:
        batch = Batch(session, ledger=db, save_to=tmp_path, name="file/{task_id}", max_in_flight=2)
        outcomes = await batch.gather(bears(9))
        emulator.check.at_most(4, "create")
        assert isinstance(outcomes[0], Failed)
        assert isinstance(outcomes[0].error, OSError)
        assert errors_of(outcomes)[-1] is errors.BatchStoppedError
        again = await Batch(session, ledger=db, save_to=tmp_path / "out").gather(bears(9))
        emulator.check.exactly(9, "create")
    assert errors_of(again) == [None] * 9


@pytest.mark.parametrize("is_noted", [True, False])
async def test_a_folder_that_cannot_be_made_is_found_out_before_anything_is_paid(
    db: Path, tmp_path: Path, is_noted: bool
) -> None:
    """Where pictures cannot go nothing is submitted, and the error says so."""
    (tmp_path / "file").write_text("in the way")
    async with short() as emulator, session_on(emulator) as session:
        batch = Batch(session, ledger=db if is_noted else None, save_to=tmp_path / "file" / "out")
        outcomes = await batch.gather(bears(2))
        emulator.check.exactly(0, "create")
    assert errors_of(outcomes) == [errors.BatchStoppedError] * 2
    assert isinstance(outcomes[0].error.__cause__, NotADirectoryError)  # type: ignore[union-attr] # it failed


# An end before the end.


async def test_stop_waits_for_what_is_in_flight(db: Path) -> None:
    """The first `stop` begins nothing more and gives what is in flight; the rest is planned, or not known."""
    async with short(durations=Constant(10.0)) as emulator, session_on(emulator) as session:
        async with Batch(session, ledger=db, max_in_flight=3) as batch:
            batch.add_many(bears(20))
            asyncio.get_running_loop().call_later(5.0, batch.stop)
            outcomes = [outcome async for outcome in batch]
            assert [outcome async for outcome in batch] == []
        assert errors_of(outcomes) == [None] * 3
        emulator.check.exactly(3, "create")
        emulator.check.charged_once_each()


async def test_stopped_again_it_detaches(db: Path) -> None:
    """The second `stop` lets go of what is in flight; its ids are in the ledger, and the next run only polls."""
    async with (
        short(durations=Constant(1000.0)) as emulator,
        session_on(emulator, polling=Polling(timeout=None)) as session,
    ):
        batch = Batch(session, ledger=db, max_in_flight=3)
        asyncio.get_running_loop().call_later(5.0, batch.stop)
        asyncio.get_running_loop().call_later(6.0, batch.stop)
        outcomes = await batch.gather(bears(5))
        assert errors_of(outcomes) == [errors.BatchStoppedError] * 5
        told = [outcome.error for outcome in outcomes if isinstance(outcome, Failed)]
        assert [getattr(error, "safe_to_resubmit", None) for error in told] == [False] * 3 + [True] * 2
        assert "may go on and be billed" in str(told[0])
        assert "was not begun" in str(told[-1])
        async with SQLiteLedger(db) as ledger:
            assert (await ledger.counts())[JobState.SUBMITTED] == 3
            assert [row.owner async for row in ledger.rows()] == [None] * 3
        emulator.check.exactly_tasks(3)
        assert errors_of(await Batch(session, ledger=db).gather(bears(5))) == [None] * 5
        emulator.check.exactly(5, "create")


async def test_a_stopped_batch_does_not_wait_for_a_stream() -> None:
    """A source that says nothing does not hold up the end."""

    async def silent() -> AsyncIterator[Txt2Img]:
        yield bears(1)[0]
        await asyncio.Event().wait()

    async with short() as emulator, session_on(emulator) as session, Batch(session) as batch:
        batch.add_many(silent())
        asyncio.get_running_loop().call_later(50.0, batch.stop)
        assert errors_of([outcome async for outcome in batch]) == [None]
    async with short() as emulator, session_on(emulator) as session, Batch(session) as batch:
        batch.add_many(silent())
        assert errors_of([await anext(batch)]) == [None]


async def test_leaving_early_detaches(db: Path) -> None:
    """After a `break`, or an error in the loop's body, nothing is submitted any more, and nothing is forgotten."""
    closed = []

    async def source() -> AsyncIterator[Txt2Img]:
        try:
            for request in bears(50):
                yield request
        finally:
            closed.append(True)

    async with short(durations=Uniform(1.0, 9.0)) as emulator, session_on(emulator) as session:
        with pytest.raises(ZeroDivisionError):  # noqa: PT012 - the loop is what raises
            async with Batch(session, ledger=db, max_in_flight=4) as batch:
                batch.add_many(source())
                async for _ in batch:
                    raise ZeroDivisionError
        made = len(emulator.tasks)
        assert made < 10
        assert closed == [True]
        await asyncio.sleep(100)
        assert len(emulator.tasks) == made
        await Batch(session, ledger=db).gather(bears(50))
        emulator.check.exactly(50, "create")


async def test_a_deadline_ends_the_batch(db: Path) -> None:
    """When time is up no task is waited for and none begun; the errors say so, and the next run goes on."""
    async with short(durations=Constant(100.0)) as emulator, session_on(emulator) as session:
        batch = Batch(session, ledger=db, max_in_flight=2, deadline=150.0)
        begun = asyncio.get_running_loop().time()
        outcomes = await batch.gather(bears(5))
        assert asyncio.get_running_loop().time() - begun < 160
        kinds = [None] * 2 + [errors.WaitTimeoutError] * 2 + [errors.BatchStoppedError]
        assert errors_of(outcomes) == kinds
        assert isinstance(outcomes[2], Failed)
        assert outcomes[2].error.__notes__ == ["the batch's deadline ended this wait"]
        async with Batch(session, ledger=db, deadline=1.0) as again:
            again.add_many(bears(5))
            with pytest.raises(errors.BatchStoppedError, match="deadline of 1 s passed"):
                [outcome async for outcome in again]
        assert errors_of(await Batch(session, ledger=db, deadline=1e6).gather(bears(5))) == [None] * 5
        emulator.check.exactly(5, "create")


@pytest.mark.parametrize("is_noted", [True, False])
async def test_a_deadline_that_passed_lets_nothing_begin(db: Path, is_noted: bool) -> None:
    """Neither with no time at all, nor when it passes while there is nothing to do."""
    async with short() as emulator, session_on(emulator) as session:
        ledger = db if is_noted else None
        assert (
            errors_of(await Batch(session, ledger=ledger, deadline=0).gather(bears(2)))
            == [errors.BatchStoppedError] * 2
        )
        async with Batch(session, ledger=ledger, deadline=50) as batch:
            assert len(await batch.gather(bears(1))) == 1
            await asyncio.sleep(60)
            assert errors_of(await batch.gather(bears(2, first=1))) == [errors.BatchStoppedError] * 2
        emulator.check.exactly(1, "create")


async def test_leaving_early_waits_for_the_answer_to_a_submit(db: Path) -> None:
    """What was being paid for is known, and on disk, when the `async with` is left."""
    async with short() as emulator, session_on(emulator) as session, SQLiteLedger(db) as ledger:
        async with Batch(session, ledger=ledger, max_in_flight=2) as batch:
            batch.add(bears(1)[0])
            await anext(batch)
            emulator.faults.next("create", "slow-headers", seconds=5.0)
            batch.add(bears(2)[1])
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(anext(batch), 1.0)
            assert (await ledger.counts())[JobState.SUBMITTING] == 1
        assert [row.state async for row in ledger.rows()] == [JobState.COMPLETED, JobState.SUBMITTED]


async def test_the_first_trouble_is_the_one_that_is_told(db: Path) -> None:
    """What goes wrong afterwards, with what is in flight, does not hide why the batch stopped."""
    ledger = Failing(db, name="finished", times=1)
    async with short(credits=15_000) as emulator, session_on(emulator) as session, ledger:
        async with Batch(session, ledger=ledger, max_in_flight=2) as batch:
            batch.add_many(bears(5))
            with pytest.raises(errors.InsufficientCreditsError):
                [outcome async for outcome in batch]
        assert (await ledger.counts())[JobState.SUBMITTED] == 1


async def test_no_credit_stops_the_batch(db: Path) -> None:
    """After a refusal for want of money nothing more is submitted; what is in flight is given; the rest is planned."""
    async with short(credits=45_000) as emulator, session_on(emulator) as session:
        async with Batch(session, ledger=db, max_in_flight=2) as batch:
            batch.add_many(bears(10))
            outcomes = []
            with pytest.raises(errors.InsufficientCreditsError):  # noqa: PT012 - the loop is what raises
                async for outcome in batch:
                    outcomes.append(outcome)  # noqa: PERF401 - what came before the error counts
        assert errors_of(outcomes).count(None) == 3
        emulator.check.at_most(5, "create")
        async with SQLiteLedger(db) as ledger:
            counts = await ledger.counts()
            assert await ledger.spent() == pytest.approx(3 * PRICE)
    assert counts[JobState.COMPLETED] == 3
    assert sum(counts.values()) == 3 + counts[JobState.PLANNED]


async def test_a_service_out_of_reach_stops_the_batch(db: Path) -> None:
    """Ten submits in a row that reach nobody are enough; all jobs stay planned, and are done when it is back."""
    async with short() as emulator:
        url, key = emulator.url, emulator.api_key
    once = RetryPolicy(attempts=1)
    async with Session(key, base_url=url, retry=once) as session:
        outcomes = await Batch(session, ledger=db, max_in_flight=3).gather(bears(50))
    kinds = errors_of(outcomes)
    assert 10 <= kinds.count(errors.ConnectError) <= 12
    assert kinds.count(errors.BatchStoppedError) == 50 - kinds.count(errors.ConnectError)


@pytest.mark.parametrize("is_noted", [True, False])
async def test_a_spend_limit_holds(db: Path, is_noted: bool) -> None:
    """Money for five is money for five; with a ledger also in the runs to come."""
    ledger = db if is_noted else None
    async with short() as emulator, session_on(emulator) as session:
        for _ in range(2):
            outcomes = await Batch(session, ledger=ledger, max_spend_usd=5 * PRICE).gather(bears(9))
            kinds = errors_of(outcomes)
            assert kinds.count(None) == 5
            assert kinds[5:] == [errors.BatchStoppedError] * 4
            stopped = [outcome.error for outcome in outcomes if isinstance(outcome, Failed)]
            assert all(isinstance(error.__cause__, errors.SpendLimitError) for error in stopped)
            assert all(error.safe_to_resubmit for error in stopped if isinstance(error, errors.PiAPIError))
            async with Batch(session, ledger=ledger, max_spend_usd=0.0) as batch:
                batch.add_many(bears(9, first=20))
                with pytest.raises(errors.SpendLimitError, match="nothing was sent"):
                    await anext(batch)
        emulator.check.exactly(5 if is_noted else 10, "create")
        assert errors_of(await Batch(session, ledger=ledger, max_spend_usd=9 * PRICE).gather(bears(9))) == [None] * 9


@pytest.mark.parametrize("is_noted", [True, False])
async def test_a_limit_needs_a_price(db: Path, is_noted: bool) -> None:
    """With a limit, a model without a price is refused before anything is sent; with the price it is done."""
    odd = TaskRequest(model="vendor/model", task_type="t", input={})
    done = task("t-1", "completed", output={"text": "x"})
    async with RawServer(done) as server:
        async with Session("k", base_url=server.url) as session:
            ledger = db if is_noted else None
            assert errors_of(await Batch(session, ledger=ledger, max_spend_usd=1.0).gather([odd])) == [
                errors.ConfigurationError
            ]
            assert server.received == []
        async with Session("k", base_url=server.url, prices=PRICES.override({"vendor/model": 0.5})) as session:
            assert errors_of(await Batch(session, ledger=ledger, max_spend_usd=1.0).gather([odd])) == [None]


async def test_a_wait_that_fails_is_gone_on_with(db: Path) -> None:
    """A job whose polls failed all the time is an outcome now, and in the next run a task to poll, not to pay for."""
    impatient = Polling(wait=QUICK.wait, timeout=5)
    async with short() as emulator, session_on(emulator, polling=impatient) as session:
        with emulator.faults.always("get", "503"):
            first = await Batch(session, ledger=db).gather(bears(1))
        assert errors_of(first) == [errors.WaitTimeoutError]
        assert errors_of(await Batch(session, ledger=db).gather(bears(1))) == [None]
        emulator.check.exactly(1, "create")


# Together.


async def test_two_batches_share_one_ledger(db: Path, tmp_path: Path) -> None:
    """Two runs of the same command at once submit each job once, share the work, and both give all outcomes."""
    async with short(durations=Uniform(1.0, 20.0)) as emulator, session_on(emulator) as session:
        batches = (Batch(session, ledger=db, max_in_flight=3, save_to=tmp_path / "out") for _ in range(2))
        both = await asyncio.gather(*(batch.gather([*bears(15), *bears(5)]) for batch in batches))
        emulator.check.exactly(20, "create")
        busy = max(view.ended_at or 0.0 for view in emulator.tasks.values())
    assert [errors_of(outcomes) for outcomes in both] == [[None] * 20] * 2
    assert both[0] == both[1]
    assert busy < 20 * 10.5 / 3


async def test_a_job_of_a_dead_batch_is_taken_over(db: Path) -> None:
    """A batch that vanished without a word is waited for no longer than its lease."""
    async with short(durations=Constant(500.0)) as emulator, session_on(emulator) as session:
        async with SQLiteLedger(db) as ledger:
            lost = Batch(session, ledger=ledger)
            doing = asyncio.ensure_future(lost.gather(bears(1)))
            await asyncio.sleep(5)
            (row,) = [row async for row in ledger.rows()]
            assert row.owner is not None
            waiting = asyncio.ensure_future(Batch(session, ledger=ledger).gather(bears(1)))
            await asyncio.sleep(100)
            assert not waiting.done()
            doing.cancel()
            with pytest.raises(asyncio.CancelledError):
                await doing
            assert errors_of(await waiting) == [None]
        emulator.check.exactly(1, "create")


async def test_a_stopped_batch_does_not_wait_for_others(db: Path) -> None:
    """A job in another batch's hands is left to that one when this one is stopped."""
    async with short(durations=Constant(500.0)) as emulator, session_on(emulator) as session:
        doing = asyncio.ensure_future(Batch(session, ledger=db).gather(bears(1)))
        await asyncio.sleep(5)
        waiting = Batch(session, ledger=db)
        asyncio.get_running_loop().call_later(20.0, waiting.stop)
        assert errors_of(await waiting.gather(bears(1))) == [errors.BatchStoppedError]
        assert errors_of(await doing) == [None]
        emulator.check.exactly(1, "create")


async def test_a_lease_lost_before_the_post_is_noticed(db: Path) -> None:
    """A batch that was taken for dead while it waited to submit does not pay; it takes what the other one got."""
    refusal = answer({"code": 429, "message": "slow down"}, status=429, headers={"Retry-After": "30"})
    done = task("t-1", "completed", output={"image_url": "https://example.com/a.png"})
    async with RawServer(refusal, done) as server, SQLiteLedger(db) as ledger:
        async with Session("k", base_url=server.url) as session:
            stalled = asyncio.ensure_future(Batch(session, ledger=ledger).gather(bears(1)))
            await asyncio.sleep(5)
            (row,) = [row async for row in ledger.rows()]
            assert row.owner is not None
            await ledger.let_go(row.owner)
            other = row.owner + "x"
            await ledger.hold(other)
            assert (await ledger.take(row, owner=other, save=False)).row.owner is None
            asyncio.get_running_loop().call_later(60.0, lambda: asyncio.ensure_future(ledger.let_go(other)))
            assert errors_of(await stalled) == [None]
            posts = [received for received in server.received if received.line.startswith("POST")]
    assert len(posts) == 2


def test_a_ledger_serves_several_event_loops(db: Path) -> None:
    """One ledger object, and one session, in two `asyncio.run` one after the other."""
    ledger = SQLiteLedger(db)

    async def main() -> list[Outcome]:
        async with short(durations=Constant(0.0)) as emulator, session_on(emulator) as session:
            return await Batch(session, ledger=ledger).gather(bears(2))

    assert errors_of(asyncio.run(main())) == [None] * 2
    assert errors_of(asyncio.run(main())) == [None] * 2
    asyncio.run(ledger.aclose())


@pytest.mark.parametrize("seed", range(4))
async def test_cancelled_at_any_moment_it_goes_on(db: Path, tmp_path: Path, seed: int) -> None:
    """Cancelled at any moment and run again, a batch pays for no job twice and loses none, chaos or not."""
    patient = {"retry": RetryPolicy(attempts=10), "polling": Polling(wait=QUICK.wait, max_errors=100)}
    async with short(seed=seed, chaos=0.1 * (seed % 2), history_lists="all") as emulator:
        async with session_on(emulator, **patient) as session:
            for moment in (0.0, 0.01 * seed, 0.1 * seed, 0.3 * seed, 2.0):
                batch = Batch(session, ledger=db, save_to=tmp_path, on_doubt="reconcile", max_in_flight=4)
                with suppress(TimeoutError):
                    async with asyncio.timeout(moment):
                        await batch.gather(bears(12))
            batch = Batch(session, ledger=db, save_to=tmp_path, on_doubt="reconcile")
            outcomes = await batch.gather(bears(12))
            assert set(errors_of(outcomes)) <= {None, errors.SubmissionInDoubtError, errors.TaskFailedError}
        prompts = [view.input["prompt"] for view in emulator.tasks.values()]
        assert len(prompts) == len(set(prompts))
        saved = {path.stem for path in tmp_path.glob("out/*")} | {path.stem for path in tmp_path.glob("*.png")}
        assert saved == {charge.task_id for charge in emulator.charges}


async def test_a_batch_can_be_stopped_before_it_begins(db: Path) -> None:
    """Then nothing is read but what has to be told, and nothing is sent."""

    async def stream() -> AsyncIterator[Txt2Img]:
        raise AssertionError
        yield

    async with short() as emulator, session_on(emulator) as session:
        batch = Batch(session, ledger=db)
        batch.add_many(stream())
        batch.add_many(iter(bears(2)))
        batch.add(bears(1)[0])
        batch.stop()
        batch.stop()
        assert errors_of(await batch.gather(bears(1))) == [errors.BatchStoppedError] * 4
        emulator.check.exactly(0, "create")


async def test_a_result_host_out_of_reach_fails_the_job_alone(db: Path, tmp_path: Path) -> None:
    """A picture that cannot be fetched for want of a connection comes in the next run; the others are not held up."""
    async with short() as emulator, session_on(emulator, retry=RetryPolicy(attempts=1)) as session:
        emulator.faults.next("result", "truncated")
        batch = Batch(session, ledger=db, save_to=tmp_path, max_in_flight=1)
        assert errors_of(await batch.gather(bears(2))) == [errors.ConnectionLostError, None]
        assert errors_of(await Batch(session, ledger=db, save_to=tmp_path).gather(bears(2))) == [None] * 2
        emulator.check.exactly(2, "create")
