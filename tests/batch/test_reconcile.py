"""Doubt: a submit whose answer was lost is never paid for again by itself, and its task is found where it can be."""

import asyncio
import base64
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import pytest
from batch.test_batch import PRICE, Failing, bears, errors_of, session_on, short
from PIL import Image as Picture
from support.raw_server import RawServer, answer

from piapi_async import Batch, Img2Img, RetryPolicy, Session, TaskRequest, Txt2Img, WebhookConfig, errors
from piapi_async._client.responses import parse_task
from piapi_async._fingerprint import Content, content_of
from piapi_async._process import new_owner
from piapi_async.batch import Failed
from piapi_async.batch._reconcile import clusters, match
from piapi_async.batch._runner import OnDoubt
from piapi_async.emulator import Constant
from piapi_async.ledger import JobState, Row, SQLiteLedger
from piapi_async.task import TaskInfo

PNG = b"\x89PNG\r\n\x1a\n" + b"0" * 40
LOST = ("cut-after-accept", "cut-before-accept", "500", "html", "empty", "502-after-accept")


@pytest.fixture
def db(tmp_path: Path) -> Path:
    """Where a ledger may be."""
    return tmp_path / "jobs.db"


def why(outcome: Any) -> str:
    """What the error of a job in doubt says."""
    assert isinstance(outcome, Failed)
    assert isinstance(outcome.error, errors.SubmissionInDoubtError)
    assert outcome.error.key == outcome.key
    assert outcome.error.request == outcome.request
    assert outcome.error.since > 0
    return str(outcome.error)


@pytest.mark.parametrize("fault", LOST)
@pytest.mark.parametrize("is_noted", [True, False])
async def test_raise_stops_at_the_first_doubt(db: Path, fault: str, is_noted: bool) -> None:
    """`on_doubt="raise"`, the default: nothing more is submitted, what is in flight is given, and the doubt raised."""
    async with short() as emulator, session_on(emulator) as session:
        emulator.faults.next("create", fault)
        async with Batch(session, ledger=db if is_noted else None, max_in_flight=1) as batch:
            batch.add_many(bears(5))
            found = []
            with pytest.raises(errors.SubmissionInDoubtError) as raised:  # noqa: PT012 - the loop is what raises
                async for outcome in batch:
                    found.append(outcome)  # noqa: PERF401 - what came before the error counts
        assert isinstance(found[0], Failed)
        assert raised.value is found[0].error
        assert errors_of(found) == [errors.SubmissionInDoubtError]
        emulator.check.exactly(1, "create")


async def test_skip_goes_on_and_never_pays_again(db: Path) -> None:
    """`on_doubt="skip"`: the job is reported as failed in this run and in every other, the others are done."""
    async with short() as emulator, session_on(emulator) as session, SQLiteLedger(db) as ledger:
        emulator.faults.next("create", "cut-after-accept")
        for _ in range(3):
            outcomes = await Batch(session, ledger=ledger, max_in_flight=1, on_doubt="skip").gather(bears(3))
            assert "a task may exist and may be billed" in why(outcomes[0])
            assert errors_of(outcomes)[1:] == [None, None]
        emulator.check.exactly(3, "create")
        assert (await ledger.counts())[JobState.IN_DOUBT] == 1
        assert await ledger.spent() == pytest.approx(3 * PRICE)


@pytest.mark.parametrize("listed", ["ended", "all"])
@pytest.mark.parametrize("shape", ["enveloped", "bare"])
async def test_reconcile_finds_the_task(db: Path, tmp_path: Path, listed: str, shape: str) -> None:
    """`on_doubt="reconcile"`: the task is found in the history, waited for and saved; nothing is paid for twice."""
    async with short(history_lists=listed, history_shape=shape, history_lag=30.0) as emulator:
        async with session_on(emulator) as session:
            emulator.faults.next("create", "cut-after-accept", times=2)
            batch = Batch(session, ledger=db, save_to=tmp_path / "out", on_doubt="reconcile", max_in_flight=3)
            outcomes = await batch.gather(bears(6))
        emulator.check.exactly(6, "create")
        assert {outcome.info.task_id for outcome in outcomes if outcome.info} == set(emulator.tasks)
    assert errors_of(outcomes) == [None] * 6
    assert len(list((tmp_path / "out").iterdir())) == 6


async def test_a_doubt_that_a_batch_settled_is_one_no_longer(db: Path) -> None:
    """What the session remembers of it goes: it does not make the task of somebody else's submit ambiguous."""
    async with short() as emulator, session_on(emulator) as session, session_on(emulator) as other:
        emulator.faults.next("create", "cut-after-accept", times=2)
        since = datetime.now(UTC).timestamp()
        outcomes = await Batch(session, ledger=db, on_doubt="skip").gather(bears(1))
        assert why(outcomes[0])
        await asyncio.sleep(130)
        assert errors_of(await Batch(session, ledger=db, on_doubt="reconcile").gather(bears(2))) == [None] * 2
        theirs = await other.run(bears(1)[0])
        found = await session.find(Txt2Img(prompt="bear 0"), since=since + 130)
    assert found is not None
    assert found.task_id == theirs.task_id


async def test_a_doubt_whose_picture_is_gone_stays(db: Path, tmp_path: Path) -> None:
    """What a doubt asked for cannot be told without its picture: others are settled all the same."""
    picture = tmp_path / "a.png"
    Picture.new("RGB", (32, 32)).save(picture)
    async with short() as emulator, session_on(emulator) as session:
        emulator.faults.next("create", "cut-after-accept", times=2)
        with pytest.raises(errors.SubmissionInDoubtError):
            await session.submit(Img2Img(prompt="a", image=picture))
        picture.unlink()
        assert errors_of(await Batch(session, ledger=db, on_doubt="reconcile").gather(bears(1))) == [None]


async def test_no_task_found_is_not_no_task(db: Path) -> None:
    """What is not in the history in time stays in doubt, is not paid for again, and may be found by a later run."""
    async with short(history_lag=500.0) as emulator, session_on(emulator) as session:
        emulator.faults.next("create", "cut-after-accept")
        begun = asyncio.get_running_loop().time()
        (outcome,) = await Batch(session, ledger=db, on_doubt="reconcile").gather(bears(1))
        assert 120 <= asyncio.get_running_loop().time() - begun < 140
        assert "no task of it is listed, which does not prove that there is none" in why(outcome)
        assert "'resubmit', which pays again" in why(outcome)
        await asyncio.sleep(500)
        assert errors_of(await Batch(session, ledger=db, on_doubt="reconcile").gather(bears(1))) == [None]
        emulator.check.exactly(1, "create")


async def test_why_a_doubt_stays_is_noted_also_when_nobody_asks_for_the_job(db: Path) -> None:
    """What a run finds out about the doubts that others left is in the ledger, for whoever asks why."""
    async with short() as emulator, session_on(emulator) as session, SQLiteLedger(db) as ledger:
        emulator.faults.next("create", "cut-before-accept")
        (outcome,) = await Batch(session, ledger=ledger, on_doubt="skip").gather(bears(1))
        assert "(the answer to its submit was lost: lost the connection to " in why(outcome)
        await asyncio.sleep(200)
        assert await Batch(session, ledger=ledger, on_doubt="reconcile").gather() == []
        (row,) = [row async for row in ledger.rows(JobState.IN_DOUBT)]
        assert row.error == "no task of it is listed, which does not prove that there is none"


async def test_resubmit_polls_first_and_pays_again_once(db: Path) -> None:
    """`on_doubt="resubmit"`: a task that is found is not paid for again; what is not found is, once in a run."""
    async with short() as emulator, session_on(emulator) as session, SQLiteLedger(db) as ledger:
        emulator.faults.next("create", "cut-after-accept")
        emulator.faults.next("create", "cut-before-accept")
        batch = Batch(session, ledger=ledger, on_doubt="resubmit", max_in_flight=1)
        assert errors_of(await batch.gather(bears(2))) == [None] * 2
        emulator.check.exactly(3, "create")
        emulator.check.exactly_tasks(2)
        assert await ledger.spent() == pytest.approx(3 * PRICE)
        emulator.faults.next("create", "cut-before-accept", times=9)
        (outcome,) = await Batch(session, ledger=ledger, on_doubt="resubmit").gather(bears(1, first=5))
        assert "lost" in why(outcome) or "listed" in why(outcome)
        emulator.check.exactly(5, "create")


@pytest.mark.parametrize("is_twin_there", [False, True])
async def test_a_picture_that_was_made_fit_is_known_again(db: Path, is_twin_there: bool) -> None:
    """The service shows a picture as it went out: scaled, converted or turned. It is the job's all the same.

    A task of another picture with the same prompt is not taken for it.
    """
    bear, other = (
        Img2Img(prompt="a", image=Picture.new("RGB", (40, 30), color), model="Qubico/flux1-dev")
        for color in ("red", "blue")
    )
    async with short() as emulator, session_on(emulator, max_pixels=100) as session:
        emulator.faults.next("create", "cut-after-accept")
        await Batch(session, ledger=db, on_doubt="skip").gather([bear])
        if is_twin_there:
            await session.run(other)
        (outcome,) = await Batch(session, ledger=db, on_doubt="reconcile").gather([bear])
        assert errors_of([outcome]) == [None]
        assert outcome.info is not None
        assert outcome.info.task_id == next(iter(emulator.tasks))


async def test_equal_jobs_share_what_is_found(db: Path) -> None:
    """Twins in doubt are interchangeable: each gets a task of its own, and the one without a task stays in doubt."""
    twins = [bears(1)[0]] * 3
    async with short() as emulator, session_on(emulator) as session:
        for fault in ("cut-after-accept", "cut-after-accept", "cut-before-accept"):
            emulator.faults.next("create", fault)
        outcomes = await Batch(session, ledger=db, on_doubt="reconcile", reconcile_within=30).gather(twins)
        assert sorted(map(str, errors_of(outcomes)))[1:] == ["None"] * 2
        assert len({outcome.info.task_id for outcome in outcomes if outcome.info}) == 2
        emulator.check.exactly_tasks(2)


@pytest.mark.parametrize("on_doubt", ["reconcile", "resubmit"])
async def test_equal_jobs_are_given_up_together(db: Path, on_doubt: OnDoubt) -> None:
    """Twins wait for the later attempt, though another job is told between; the history is read as seldom as can be.

    Decided one by one, the earlier would be given up as too early to tell, or be paid for anew though it has a task.
    """
    bear, other = bears(2)
    jobs = [(bear, "early"), (other, "between"), (bear, "late")]
    async with short() as emulator, session_on(emulator) as session:
        emulator.faults.next("create", "cut-after-accept", times=3)
        for job in jobs:
            await Batch(session, ledger=db, on_doubt="skip").gather([job])
            await asyncio.sleep(5)
        batch = Batch(session, ledger=db, on_doubt=on_doubt, reconcile_within=30)
        assert errors_of(await batch.gather(reversed(jobs))) == [None] * 3
        emulator.check.exactly(3, "create")
        emulator.check.exactly(2, "history")


async def test_a_task_that_may_be_somebody_elses_is_not_taken(db: Path) -> None:
    """When more tasks fit than were asked for, none is adopted, and the error says so."""
    async with short() as emulator, session_on(emulator) as session:
        await session.run(bears(1)[0])
        emulator.faults.next("create", "cut-after-accept")
        (outcome,) = await Batch(session, ledger=db, on_doubt="reconcile", reconcile_within=20).gather(bears(1))
        assert "2 tasks fit, for 1 such jobs" in why(outcome)


async def test_a_run_that_begins_soon_after_does_not_jump_to_a_conclusion(db: Path) -> None:
    """Right after the attempt only somebody else's equal task is listed; it is not adopted, then or later."""
    async with short(durations=Constant(10.0)) as emulator, session_on(emulator) as session:
        await session.run(bears(1)[0])
        emulator.faults.next("create", "cut-after-accept")
        await Batch(session, ledger=db, on_doubt="skip").gather(bears(1))
        (outcome,) = await Batch(session, ledger=db, on_doubt="reconcile", reconcile_within=30).gather(bears(1))
        assert "2 tasks fit, for 1 such jobs" in why(outcome)


async def test_a_token_in_the_webhook_tells_for_certain(db: Path) -> None:
    """With a webhook each attempt has a token in its URL, by which its task is known among equal ones."""
    webhook = WebhookConfig("https://example.com/hook?a=1", secret="s3cret")
    async with short(webhooks="never") as emulator, session_on(emulator) as session:
        await session.run(bears(1)[0], webhook=webhook)
        emulator.faults.next("create", "cut-after-accept")
        (outcome,) = await Batch(session, ledger=db, on_doubt="reconcile", webhook=webhook).gather(bears(1))
        assert errors_of([outcome]) == [None]
        endpoints = [view.config["webhook_config"]["endpoint"] for view in emulator.tasks.values()]
        assert outcome.info is not None
        assert outcome.info.task_id == list(emulator.tasks)[1]
        assert errors_of(await Batch(session, webhook=webhook).gather(bears(1))) == [None]
    assert endpoints[0] == webhook.endpoint
    assert endpoints[1].startswith("https://example.com/hook?a=1&piapi_attempt=")


async def test_a_history_that_cannot_be_read_is_told(db: Path) -> None:
    """The doubt stays, with the reason; the batch goes on with the rest."""
    async with short() as emulator, session_on(emulator, retry=RetryPolicy(attempts=1)) as session:
        emulator.faults.next("create", "cut-after-accept")
        with emulator.faults.always("history", "503"):
            batch = Batch(session, ledger=db, on_doubt="reconcile", max_in_flight=1, reconcile_within=20)
            outcomes = await batch.gather(bears(2))
        assert "the history could not be read: PiAPI answered 503" in why(outcomes[0])
        assert errors_of(outcomes)[1:] == [None]


async def test_a_listed_task_that_is_gone_is_passed_over(db: Path) -> None:
    """A poll that says "no such task" leaves that one out; the next run may find it."""
    async with short() as emulator, session_on(emulator) as session:
        emulator.faults.next("create", "cut-after-accept")
        emulator.faults.next("get", "404")
        (outcome,) = await Batch(session, ledger=db, on_doubt="reconcile").gather(bears(1))
        assert "no task of it is listed" in why(outcome)
        assert errors_of(await Batch(session, ledger=db, on_doubt="reconcile").gather(bears(1))) == [None]


async def test_stopped_in_doubt_it_reports_at_once(db: Path) -> None:
    """`stop` ends the looking; the job stays in doubt, and the next run settles it before anything else."""
    async with short(history_lag=60.0) as emulator, session_on(emulator) as session:
        emulator.faults.next("create", "cut-after-accept")
        batch = Batch(session, ledger=db, on_doubt="resubmit")
        asyncio.get_running_loop().call_later(15.0, batch.stop)
        (outcome,) = await batch.gather(bears(1))
        assert "lost" in why(outcome)
        await asyncio.sleep(120)
        async with Batch(session, ledger=db, on_doubt="reconcile") as again:
            assert [found async for found in again] == []
        async with SQLiteLedger(db) as ledger:
            assert (await ledger.counts())[JobState.COMPLETED] == 1
        emulator.check.exactly(1, "create")


async def test_many_pages_of_history_are_read(db: Path) -> None:
    """The history comes a hundred at a time, and the task is on the last page."""
    async with short() as emulator, session_on(emulator) as session:
        emulator.faults.next("create", "cut-after-accept")
        outcomes = await Batch(session, ledger=db, on_doubt="skip", max_in_flight=1).gather(bears(1))
        assert errors_of(outcomes) == [errors.SubmissionInDoubtError]
        await asyncio.gather(*(session.run(request) for request in bears(230, first=1)))
        assert errors_of(await Batch(session, ledger=db, on_doubt="reconcile").gather(bears(1))) == [None]
        emulator.check.exactly(3, "history")


async def test_doubts_far_apart_are_looked_for_apart(db: Path) -> None:
    """The history is read round each attempt, not over the days between them."""
    async with short(history_lag=1e6) as emulator, session_on(emulator) as session:
        for first in range(2):
            emulator.faults.next("create", "cut-after-accept")
            await Batch(session, ledger=db, on_doubt="skip").gather(bears(1, first=first))
            await asyncio.sleep(5000)
        emulator.set(history_lag=0.0)
        assert errors_of(await Batch(session, ledger=db, on_doubt="reconcile").gather(bears(2))) == [None] * 2
        emulator.check.exactly(2, "history")


async def test_while_an_equal_job_is_being_submitted_nothing_is_adopted(db: Path) -> None:
    """A task of a twin that is under way in another process may be that one's; it is waited for."""
    async with short() as emulator, session_on(emulator) as session, SQLiteLedger(db) as ledger:
        emulator.faults.next("create", "cut-after-accept")
        await Batch(session, ledger=ledger, on_doubt="skip").gather(bears(1))
        other, twin = new_owner(), await content_of(bears(1)[0])
        await ledger.hold(other)
        await ledger.claim(twin, key="twin", owner=other, save=False)
        await ledger.send("twin", owner=other, token=None, points=0, limit=None)
        batch = Batch(session, ledger=ledger, on_doubt="reconcile", reconcile_within=30)
        (outcome,) = await batch.gather(bears(1))
        assert "an equal job is being submitted at this moment" in why(outcome)
        await ledger.refused("twin", owner=other)
        assert errors_of(await Batch(session, ledger=ledger, on_doubt="reconcile").gather(bears(1))) == [None]


# A ledger that fails.


async def test_what_cannot_be_noted_is_not_sent(db: Path) -> None:
    """A full disk before the POST: nothing is posted, the batch stops, and goes on when there is room."""
    ledger = Failing(db, name="send", times=1)
    async with short() as emulator, session_on(emulator) as session, ledger:
        async with Batch(session, ledger=ledger, max_in_flight=1) as batch:
            batch.add_many(bears(3))
            with pytest.raises(errors.LedgerError, match="the disk is full"):
                [outcome async for outcome in batch]
        emulator.check.exactly(0, "create")
        assert errors_of(await Batch(session, ledger=ledger).gather(bears(3))) == [None] * 3
        emulator.check.exactly(3, "create")


@pytest.mark.parametrize("times", [1, 5])
async def test_what_was_paid_for_is_kept_in_memory(
    db: Path, tmp_path: Path, times: int, caplog: pytest.LogCaptureFixture
) -> None:
    """A full disk after the POST: it is tried again, then told, and the task is brought home all the same."""
    ledger = Failing(db, name="accepted", times=times)
    async with short(durations=Constant(10.0)) as emulator, session_on(emulator) as session, ledger:
        outcomes = await Batch(session, ledger=ledger, max_in_flight=1, save_to=tmp_path).gather(bears(2))
        assert errors_of(outcomes)[0] is None
        assert errors_of(outcomes)[1] is (None if times == 1 else errors.BatchStoppedError)
        task_id = next(iter(emulator.tasks))
        assert any(task_id in message for message in caplog.messages) == (times == 5)
        assert errors_of(await Batch(session, ledger=ledger, save_to=tmp_path).gather(bears(2))) == [None] * 2
        emulator.check.exactly(2, "create")


async def test_an_end_that_cannot_be_noted_is_seen_again(db: Path, tmp_path: Path) -> None:
    """A full disk at the end of a job: its outcome is given, the batch stops, and the next run only polls."""
    ledger = Failing(db, name="finished", times=1)
    async with short() as emulator, session_on(emulator) as session, ledger:
        outcomes = await Batch(session, ledger=ledger, max_in_flight=1, save_to=tmp_path).gather(bears(2))
        assert errors_of(outcomes) == [None, errors.BatchStoppedError]
        assert errors_of(await Batch(session, ledger=ledger, save_to=tmp_path).gather(bears(2))) == [None] * 2
        emulator.check.exactly(2, "create")


async def test_a_ledger_that_cannot_be_opened_is_told(tmp_path: Path) -> None:
    """The error comes out of the iteration, and is the cause of every outcome of `gather`; nothing is sent."""
    async with short() as emulator, session_on(emulator) as session:
        async with Batch(session, ledger=tmp_path / "none" / "jobs.db") as batch:
            batch.add_many(bears(2))
            with pytest.raises(errors.LedgerError, match="unable to open"):
                await anext(batch)
        outcomes = await Batch(session, ledger=tmp_path / "none" / "jobs.db").gather(bears(2))
        assert errors_of(outcomes) == [errors.BatchStoppedError] * 2
        emulator.check.exactly(0, "create")


@pytest.mark.parametrize(("name", "fault"), [("hold", None), ("resubmit", "cut-before-accept")])
async def test_other_trouble_with_the_ledger(db: Path, name: str, fault: str | None) -> None:
    """Whatever else cannot be written stops the batch with that error, and leaves doubts as they are."""
    ledger = Failing(db, name=name, times=1)
    async with short() as emulator, session_on(emulator) as session, ledger:
        if fault is not None:
            emulator.faults.next("create", fault)
        outcomes = await Batch(session, ledger=ledger, on_doubt="resubmit", reconcile_within=10).gather(bears(1))
        assert errors_of(outcomes) == [errors.BatchStoppedError if fault is None else errors.SubmissionInDoubtError]
        assert errors_of(await Batch(session, ledger=ledger, on_doubt="resubmit").gather(bears(1))) == [None]


async def test_a_task_that_cannot_be_adopted_stays_in_doubt(db: Path) -> None:
    """When the ledger refuses what was found, the job stays in doubt and says why; the next run tries again."""
    ledger = Failing(db, name="accepted", times=1)
    async with short() as emulator, session_on(emulator) as session, ledger:
        emulator.faults.next("create", "cut-after-accept")
        (outcome,) = await Batch(session, ledger=ledger, on_doubt="reconcile").gather(bears(1))
        assert "the disk is full" in why(outcome)
        assert errors_of(await Batch(session, ledger=ledger, on_doubt="reconcile").gather(bears(1))) == [None]
        emulator.check.exactly(1, "create")


# What fits.


def doubtful(key: str, content: Content, *, since: float = 1000.0, token: str | None = None) -> Row:
    """A job in doubt."""
    return Row(
        id=1,
        key=key,
        state=JobState.IN_DOUBT,
        content=content,
        attempts=1,
        since=since,
        sent=(),
        token=token,
        task_id=None,
        points=1,
        info=None,
        paths=None,
        error=None,
        owner=None,
        changed_at=since,
    )


def made(task_id: str, *, at: float | None, prompt: str = "a", endpoint: Any = None) -> TaskInfo:
    """A task that was made at some time."""
    info = shown({"prompt": prompt})
    created = None if at is None else datetime.fromtimestamp(at, UTC)
    config = {"webhook_config": {"endpoint": endpoint}} if endpoint is not None else None
    return attrs.evolve(info, task_id=task_id, created_at=created, raw={**info.raw, "config": config})


async def test_whose_task_is_it() -> None:
    """Time, tokens and what can be compared decide; what may be two jobs' is nobody's."""
    plain = await content_of(asked(prompt="a"))
    first, second = [await content_of(asked(prompt="a", image=PNG + bytes([n]))) for n in range(2)]
    early, late = doubtful("early", plain), doubtful("late", plain, since=2000.0)

    def found(rows: list[Row], infos: list[TaskInfo]) -> tuple[dict[str, str], dict[str, str]]:
        finding = match(rows, infos, busy=set(), ripe={row.key: True for row in rows})
        return dict(finding.tasks), dict(finding.reasons)

    assert found([early, late], [made("t", at=2100.0)])[0] == {"late": "t"}
    assert found([early, late], [made("t", at=None)])[0] == {"early": "t"}
    assert found([early, late], [made("t", at=950.0), made("u", at=1100.0)])[0] == {"early": "t"}
    assert found([early], [made("t", at=1400.0)])[0] == {}
    tasks, reasons = found([doubtful("a", first), doubtful("b", second)], [made("t", at=1000.0)])
    assert tasks == {}
    assert reasons["a"] == "a task fits that may be of job 'b' as well"
    marked = doubtful("a", plain, token="tok")
    assert found([marked], [made("t", at=1000.0, endpoint="https://e.com/?x=tok")])[0] == {"a": "t"}
    assert found([marked], [made("t", at=1000.0, endpoint="https://e.com/?x=other")])[0] == {}
    assert found([marked], [made("t", at=1000.0, endpoint=7)])[0] == {"a": "t"}
    assert list(clusters([])) == []
    assert list(clusters([late, early])) == [[early], [late]]


def shown(task_input: Any, *, model: str = "Qubico/flux1-dev", task_type: str = "img2img") -> TaskInfo:
    """A task as the service shows it."""
    return parse_task(
        {"task_id": "t", "model": model, "task_type": task_type, "status": "pending", "input": task_input}
    )


def asked(**task_input: Any) -> TaskRequest:
    """A request with that input."""
    return TaskRequest(model="Qubico/flux1-dev", task_type="img2img", input=task_input)


async def test_a_task_fits_when_nothing_differs(tmp_path: Path) -> None:
    """Zeros that were added, fields left out and links for pictures do no harm; another value or picture does."""
    path = tmp_path / "bear.png"
    path.write_bytes(PNG)
    content = await content_of(asked(prompt="a", image=path, steps=4, lora_settings=[{"lora_type": "anime"}]))
    echo = {"prompt": "a", "image": "https://example.com/1.png", "steps": 4, "width": 0}
    assert content.fits(shown(echo))
    assert content.fits(shown({"prompt": "a"}))
    assert content.fits(shown({**echo, "lora_settings": [{"lora_type": "anime", "lora_strength": 1}]}))
    for other in (
        shown({**echo, "prompt": "b"}),
        shown({**echo, "steps": 5}),
        shown({"image": "x"}),
        shown({**echo, "lora_settings": []}),
        shown({**echo, "image": "data:image/png;base64,iVBORw0KGgo="}),
        shown(None),
        shown(echo, model="Qubico/flux1-schnell"),
        shown(echo, task_type="txt2img"),
    ):
        assert not content.fits(other)


async def test_a_task_fits_by_the_digests_of_what_its_echo_held(tmp_path: Path) -> None:
    """Of a large picture, and of another endless text, the echo keeps digests: they tell equal ones from others."""
    path = tmp_path / "bear.png"
    path.write_bytes(PNG * 500)
    bare = base64.b64encode(PNG * 500).decode()
    uri = f"data:image/png;base64,{bare}"
    for given, echoed in ((path, uri), (uri, uri), (PNG * 500, uri), (bare, bare), (path, bare), ("data:" + bare,) * 2):
        for prompt in ("a", "a" * 20_000):
            content = await content_of(asked(prompt=prompt, image=given))
            assert content.fits(shown({"prompt": prompt, "image": echoed}))
            assert not content.fits(shown({"prompt": prompt + "b", "image": echoed}))
            other = shown({"prompt": prompt, "image": echoed[:-8] + "AAAAAAAA"})
            assert content.fits(other) is (given is path and echoed is bare)  # not to be compared


async def test_a_picture_counts_by_its_bytes(tmp_path: Path) -> None:
    """The same picture as a file, as bytes or as a data URI is the same request; another one is another."""
    path = tmp_path / "bear.png"
    path.write_bytes(PNG)
    uri = "data:image/png;base64," + base64.b64encode(PNG).decode()
    same = [await content_of(asked(prompt="a", image=image)) for image in (path, PNG, uri)]
    assert len({content.fingerprint for content in same}) == 1
    others = [
        await content_of(asked(prompt="a", image=image)) for image in (PNG + b"1", "data:broken", "https://e.com/a")
    ]
    assert len({content.fingerprint for content in [*same, *others]}) == 4
    assert (await content_of(Txt2Img(prompt="a"))).fingerprint != (
        await content_of(Txt2Img(prompt="a", width=1))
    ).fingerprint


async def test_pixels_count_as_they_are() -> None:
    """Pillow images and arrays with the same pixels are the same request, others are not."""
    image, other = Picture.new("RGB", (2, 1)), Picture.new("RGB", (1, 2))
    pairs = [(image, image.copy()), (np.asarray(image), np.array(image))]
    for one, same in pairs:
        assert await content_of(asked(prompt="a", image=one)) == await content_of(asked(prompt="a", image=same))
    contents = [await content_of(asked(prompt="a", image=each)) for each in (image, other, np.asarray(other))]
    assert len({content.fingerprint for content in contents}) == 3


EMPTY = (
    b"[]",
    b'{"data": []}',
    b'{"data": null, "page": 1, "size": 100, "total": 0}',
    b'{"code": 200, "data": null}',
    b'{"code": 200, "data": {"data": null, "total": 0}}',
)


@pytest.mark.parametrize(
    "body", [b"", b"{}", b"null", b'{"data": {"data": 7}}', b"[" * 100_000, b'{"code": 200, "data": {}}', *EMPTY]
)
async def test_an_answer_that_is_no_history_is_an_error(body: bytes) -> None:
    """Whatever comes in place of a history is one of our errors; an empty one, which Go spells `null`, has no tasks."""
    reply = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)
    async with RawServer(reply) as server:
        async with Session("k", base_url=server.url, retry=RetryPolicy(attempts=1)) as session:
            if body in EMPTY:
                assert [task_id async for task_id in session.history(start=0, end=1)] == []
                return
            with pytest.raises(errors.UnexpectedResponseError, match="no history"):
                [task_id async for task_id in session.history(start=0, end=1)]


async def test_the_history_goes_over_the_wire_as_documented() -> None:
    """Pages of a hundred, times in whole seconds, the family of models, and the key."""
    async with RawServer(answer({"data": [{"task_id": "t-1"}, {"task_id": 7}, 7], "total": 3})) as server:
        async with Session("the-key", base_url=server.url) as session:
            assert [task_id async for task_id in session.history(start=1.5, end=2.5)] == ["t-1"]
            assert [task_id async for task_id in session.history(start=1, end=2, model=None)] == ["t-1"]
    first, second = server.received
    assert first.line == ("GET /api/open/tasks/histories?page=1&page_size=100&start_time=1&end_time=3&model=flux")
    assert second.line == "GET /api/open/tasks/histories?page=1&page_size=100&start_time=1&end_time=2"
    assert ("X-API-Key", "the-key") in first.headers
