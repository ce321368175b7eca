"""`Session.find` and the history: the task of a submit whose answer was lost is found again, and no other."""

import asyncio
import base64
import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from batch.test_batch import bears, errors_of, session_on, short
from PIL import Image as Picture
from support.raw_server import PNG, RawServer, answer, task

from piapi_async import Batch, Img2Img, RetryPolicy, Session, TaskStatus, Txt2Img, WebhookConfig, errors
from piapi_async._asyncio import Clock
from piapi_async._candidates import REMEMBERED, OwnTasks
from piapi_async.emulator import Emulator
from piapi_async.task import Submittable

BEAR = bears(1)[0]


async def lost(session: Session, request: Submittable = BEAR, **given: Any) -> errors.SubmissionInDoubtError:
    """The doubt that a submit ended in."""
    with pytest.raises(errors.SubmissionInDoubtError) as raised:
        await session.run(request, **given)
    assert raised.value.request is request
    return raised.value


@asynccontextmanager
async def losing(
    count: int = 1, *, fault: str = "cut-after-accept", **given: Any
) -> AsyncIterator[tuple[Emulator, Session]]:
    """An emulator that loses so many answers, and a session on it."""
    async with short() as emulator, session_on(emulator, **given) as session:
        emulator.faults.next("create", fault, times=count)
        yield emulator, session


async def test_the_task_is_found_and_not_paid_for_again() -> None:
    """After a lost answer `find` gives the task as a handle, once the history had its time; one POST in all."""
    async with losing() as (emulator, session):
        doubt = await lost(session)
        begun = asyncio.get_running_loop().time()
        handle = await session.find(BEAR, since=doubt.since)
        assert 119 <= asyncio.get_running_loop().time() - begun < 125
        assert handle is not None
        assert (await handle).task_id == next(iter(emulator.tasks))
        emulator.check.exactly(1, "create")
        assert await session.find(BEAR, since=doubt.since) is None  # it is the one submit's, and no other's


async def test_where_no_task_was_made_none_is_found() -> None:
    """A submit that the service never saw has no task; other tasks of that time are not taken for it."""
    async with losing(fault="cut-before-accept") as (emulator, session):
        doubt = await lost(session)
        async with session_on(emulator) as other:
            await other.run(bears(1, first=7)[0])
            await other.run(Txt2Img(prompt="bear 0", width=32, height=32, guidance_scale=3.0, model="Qubico/flux1-dev"))
            await other.run(Txt2Img(prompt="bear 0", width=64, height=32))
        assert await session.find(BEAR, since=doubt.since, within=10) is None


async def test_what_the_session_submitted_itself_is_not_it() -> None:
    """Equal tasks whose answers came are known to be of other submits, also of one that was cancelled."""
    async with short() as emulator, session_on(emulator) as session:
        await asyncio.gather(*(session.run(BEAR) for _ in range(3)))
        emulator.faults.next("create", "slow-headers", seconds=3)
        cancelled = asyncio.create_task(session.run(BEAR))
        await asyncio.sleep(1)
        cancelled.cancel()
        with suppress(asyncio.CancelledError):
            await cancelled
        emulator.faults.next("create", "cut-after-accept")
        doubt = await lost(session)
        handle = await session.find(BEAR, since=doubt.since)
        assert handle is not None
        assert handle.task_id == list(emulator.tasks)[-1]


async def test_several_that_fit_are_told() -> None:
    """Where an equal task is somebody else's, neither is taken: both ids are in the error, and `known` settles it."""
    async with losing() as (emulator, session):
        doubt = await lost(session)
        async with session_on(emulator) as other:
            theirs = await other.run(BEAR)
        with pytest.raises(errors.SubmissionInDoubtError, match="2 tasks fit") as raised:
            await session.find(BEAR, since=doubt.since)
        assert set(raised.value.candidates) == set(emulator.tasks)
        assert raised.value.request is BEAR
        assert not raised.value.safe_to_resubmit
        handle = await session.find(BEAR, since=doubt.since, known=[theirs.task_id])
        assert handle is not None
        assert handle.task_id != theirs.task_id


async def test_a_task_of_an_equal_submit_under_way_is_not_taken() -> None:
    """While an equal submit waits for its answer, the one task listed may be its own; afterwards it certainly is."""
    async with losing(fault="cut-before-accept") as (emulator, session):
        doubt = await lost(session)
        emulator.faults.next("create", "slow-headers", seconds=30)
        submitting = asyncio.create_task(session.submit(BEAR))
        await asyncio.sleep(5)
        with pytest.raises(errors.SubmissionInDoubtError, match="another submit") as raised:
            await session.find(BEAR, since=doubt.since, within=0)
        assert raised.value.candidates == tuple(emulator.tasks)
        assert (await submitting).task_id == raised.value.candidates[0]
        assert await session.find(BEAR, since=doubt.since, within=0) is None


async def test_a_task_that_fits_another_doubt_is_not_taken() -> None:
    """A task that shows links fits two doubts with different local pictures: neither gets it."""
    red, blue = (
        Img2Img(prompt="a", image=Picture.new("RGB", (64, 64), color), model="Qubico/flux1-dev")
        for color in ("red", "blue")
    )
    async with short(plan="pro") as emulator, session_on(emulator, local_images="upload") as session:
        emulator.faults.next("create", "cut-before-accept")
        doubts = [await lost(session, red)]
        emulator.faults.next("create", "cut-after-accept")
        doubts.append(await lost(session, blue))
        for request, doubt in zip((red, blue), doubts, strict=True):
            with pytest.raises(errors.SubmissionInDoubtError, match="another submit"):
                await session.find(request, since=doubt.since)


async def test_two_that_poll_at_once_do_not_get_the_same() -> None:
    """One task is one submit's, however many look for it at the same time."""
    async with losing(1) as (emulator, session):
        doubt = await lost(session)
        found = await asyncio.gather(*(session.find(BEAR, since=doubt.since) for _ in range(3)))
        assert sorted(handle.task_id for handle in found if handle is not None) == list(emulator.tasks)


async def test_too_early_it_says_when_to_ask_again() -> None:
    """Where the wait is longer than `timeout` nothing is asked of the service, and the error says how long it is."""
    async with losing() as (emulator, session):
        doubt = await lost(session)
        for timeout in (0, 100):
            with pytest.raises(errors.SubmissionInDoubtError, match=r"too early .* in 120 s"):
                await session.find(BEAR, since=doubt.since, timeout=timeout)
        emulator.check.exactly(0, "history")
        assert await session.find(BEAR, since=doubt.since, timeout=121) is not None
        emulator.check.exactly(1, "history")


@pytest.mark.parametrize("local_images", ["data-uri", "upload"])
async def test_a_local_picture_is_known_by_its_bytes(tmp_path: Path, local_images: Any) -> None:
    """A picture is compared as it was sent, scaled and converted; an equal request with another one is not taken."""
    paths = [tmp_path / f"{color}.bmp" for color in ("red", "blue")]
    for path in paths:
        Picture.new("RGB", (400, 300), path.stem).save(path)
    mine, theirs = (Img2Img(prompt="a", image=path, model="Qubico/flux1-dev") for path in paths)
    async with short(plan="pro") as emulator:
        async with session_on(emulator, max_pixels=1000, local_images=local_images) as session:
            emulator.faults.next("create", "cut-after-accept")
            doubt = await lost(session, mine)
            if local_images == "data-uri":  # a link cannot be compared
                async with session_on(emulator, max_pixels=1000) as other:
                    await other.run(theirs)
            handle = await session.find(mine, since=doubt.since)
            assert handle is not None
            assert handle.task_id == next(iter(emulator.tasks))
            paths[0].unlink()
            with pytest.raises(OSError, match=r"red\.bmp"):
                await session.find(mine, since=doubt.since)


async def test_the_urls_of_webhooks_tell_tasks_apart() -> None:
    """Of equal tasks the one that shows the webhook's URL is it, and one that shows another URL is not."""
    hook = WebhookConfig("https://example.com/hook?token=7", secret="s3cret")
    async with short(webhooks="never") as emulator, session_on(emulator) as session:
        emulator.faults.next("create", "cut-after-accept")
        doubt = await lost(session, webhook=hook)
        async with session_on(emulator) as other:
            await other.run(BEAR)
            await other.run(BEAR, webhook=WebhookConfig("https://example.com/hook?token=77"))
        with pytest.raises(errors.SubmissionInDoubtError, match="3 tasks fit"):
            await session.find(BEAR, since=doubt.since)
        handle = await session.find(BEAR, since=doubt.since, webhook=hook)
        assert handle is not None
        assert handle.task_id == next(iter(emulator.tasks))
        other_hook = WebhookConfig("https://example.com/hook?token=8")
        handle = await session.find(BEAR, since=doubt.since, webhook=other_hook)  # one that shows none may be it
        assert handle is not None
        assert handle.task_id == list(emulator.tasks)[1]


async def test_a_job_of_a_batch_can_be_found_as_well() -> None:
    """The doubt of a batch without a ledger has what `find` needs."""
    async with losing() as (emulator, session):
        (outcome,) = await Batch(session, on_doubt="skip").gather([BEAR])
        assert errors_of([outcome]) == [errors.SubmissionInDoubtError]
        assert isinstance(outcome.error, errors.SubmissionInDoubtError)  # type: ignore[union-attr]
        handle = await session.find(outcome.request, since=outcome.error.since)  # type: ignore[union-attr]
        assert handle is not None
        assert handle.task_id == next(iter(emulator.tasks))


@pytest.mark.parametrize(
    ("given", "kind"),
    [
        ({"since": 0}, ValueError),
        ({"since": float("inf")}, ValueError),
        ({"since": None}, TypeError),
        ({"since": True}, TypeError),
        ({"within": -1}, ValueError),
        ({"within": float("nan")}, ValueError),
        ({"timeout": -1}, ValueError),
        ({"timeout": "1"}, TypeError),
        ({"known": "t-1"}, TypeError),
        ({"webhook": "https://example.com"}, TypeError),
        ({"request": None}, TypeError),
    ],
)
async def test_wrong_arguments_are_refused(given: dict[str, Any], kind: type[Exception]) -> None:
    """What cannot be right is refused before anything is sent."""
    async with Session("key", base_url="http://127.0.0.1:9") as session:
        with pytest.raises(kind, match=next(iter(given))):
            await session.find(given.pop("request", BEAR), **{"since": 1e9, **given})


# Answers of any kind.

NO_WAIT: dict[str, Any] = {"since": 1e9, "within": 0}
ECHO = {"model": BEAR.model, "task_type": BEAR.task_type, "input": dict(BEAR.input)}


def listing(*task_ids: str, **numbers: Any) -> bytes:
    """A page of the history."""
    return answer({"code": 200, "data": {"data": [{"task_id": task_id} for task_id in task_ids], **numbers}})


def raw(server: RawServer) -> Session:
    """A session that asks once."""
    return Session("key", base_url=server.url, retry=RetryPolicy(attempts=1))


async def test_an_answer_about_another_task_is_not_believed() -> None:
    """A task that was asked for by one id and comes with another is never taken for the one that is looked for."""
    async with RawServer(listing("t-1", total=1), task("t-2", **ECHO)) as server, raw(server) as session:
        with suppress(errors.UnexpectedResponseError):
            assert await session.find(BEAR, **NO_WAIT) is None


async def test_a_task_that_is_listed_and_gone_is_passed_over() -> None:
    """A task that the service no longer knows cannot be waited for, and is left out."""
    replies = listing("t-1", "t-2", total=2), answer(b"", status=404), task("t-2", **ECHO)
    async with RawServer(*replies) as server, raw(server) as session:
        handle = await session.find(BEAR, **NO_WAIT)
        assert handle is not None
        assert handle.task_id == "t-2"


async def test_what_cannot_be_read_leaves_the_doubt() -> None:
    """A candidate, or a history, that cannot be read may hide the task: that is an error, never "no task"."""
    for replies in ([answer(b"", status=503)], [listing("t-1", total=1), answer(b"", status=503)]):
        async with RawServer(*replies) as server, raw(server) as session:
            with pytest.raises(errors.ServerError):
                await session.find(BEAR, **NO_WAIT)


@pytest.mark.parametrize("created_at", ["2001-09-09T01:46:40Z", "2001-09-09T01:51:40Z", "", None, 7])
async def test_a_task_of_that_time_or_of_no_time_fits(created_at: Any) -> None:
    """A task that was made within five minutes is compared, and one that does not say when it was made."""
    reply = task("t-1", **ECHO, meta={"created_at": created_at})
    async with RawServer(listing("t-1", total=1), reply) as server, raw(server) as session:
        assert await session.find(BEAR, **NO_WAIT) is not None


async def test_a_task_of_another_time_does_not_fit() -> None:
    """A task that was made long before or after is another's, even where the history lists it."""
    reply = task("t-1", **ECHO, meta={"created_at": "2001-09-09T01:51:42Z"})
    async with RawServer(listing("t-1", total=1), reply) as server, raw(server) as session:
        assert await session.find(BEAR, **NO_WAIT) is None


URI = "data:image/png;base64," + base64.b64encode(PNG).decode()


@pytest.mark.parametrize(
    ("shown", "fits"),
    [
        (URI, True),
        ({"sha256": hashlib.sha256(PNG).hexdigest(), "bytes": len(PNG)}, True),
        ({"sha256": hashlib.sha256(PNG[1:]).hexdigest(), "bytes": len(PNG) - 1}, False),
        ({"text_sha256": hashlib.sha256(b"base64").hexdigest(), "characters": 6}, True),
        ("data:image/png;base64,iVBORw0KGgo=", False),
        ("https://storage.theapi.app/1.png", True),
    ],
)
async def test_how_a_picture_may_be_shown(shown: Any, fits: bool) -> None:
    """The echo may hold the picture, or its digest where it was too long to be kept; a link or base64 says nothing."""
    request = Img2Img(prompt="a", image=URI)
    echo = {"model": request.model, "task_type": request.task_type, "input": {"prompt": "a", "image": shown}}
    async with RawServer(listing("t-1", total=1), task("t-1", **echo)) as server, raw(server) as session:
        assert (await session.find(request, **NO_WAIT) is not None) is fits


@pytest.mark.parametrize("is_mine", [True, False])
async def test_how_a_long_prompt_may_be_shown(is_mine: bool) -> None:
    """A text that was too long to be kept is compared by its digest."""
    request = Txt2Img(prompt="a bear, " * 5000)
    digest = hashlib.sha256((request.prompt + " " * (not is_mine)).encode()).hexdigest()
    echo = {"prompt": {"text_sha256": digest, "characters": 40000}}
    reply = task("t-1", **{**ECHO, "input": echo})
    async with RawServer(listing("t-1", total=1), reply) as server, raw(server) as session:
        assert (await session.find(request, **NO_WAIT) is not None) is is_mine


# The history.


def pages(*found: list[str], **numbers: Any) -> list[bytes]:
    """Pages of the history with these tasks."""
    return [listing(*page, **numbers) for page in found]


def ids(first: int, count: int) -> list[str]:
    """So many ids."""
    return [f"t-{number}" for number in range(first, first + count)]


@pytest.mark.parametrize(
    ("replies", "expected", "requests"),
    [
        (pages(ids(0, 100)), 100, 2),
        (pages(ids(0, 100), total=100), 100, 2),
        (pages(ids(0, 50), total=1000), 50, 2),
        (pages(ids(0, 7)), 7, 2),
        (pages(ids(0, 100), ids(90, 100), ids(180, 20), []), 200, 4),
        (pages(ids(0, 100), ids(0, 100)[::-1], ids(100, 40), []), 140, 4),
        (pages(ids(0, 10), ids(10, 10), ids(20, 3), total=23), 23, 3),
        (pages(ids(0, 10), ids(10, 10), ids(20, 3), size=10), 23, 3),
        (pages(ids(0, 10), ids(10, 10), ids(20, 3), []), 23, 4),
        (pages(ids(0, 3), size=10), 3, 1),
        (pages(ids(0, 3), size="many", total="all"), 3, 2),
        (pages(ids(0, 3), size=0, total=True), 3, 2),
        (pages(ids(0, 5) * 2, total=10), 5, 1),
        (pages(["", ".", " "]), 0, 2),
        (pages(ids(0, 2), ids(1, 1), ids(0, 1), ids(1, 1)), 2, 4),
        (pages(ids(0, 1), ids(0, 2), ids(2, 1), []), 3, 4),
    ],
    ids=str,
)
async def test_the_history_ends(replies: list[bytes], expected: int, requests: int) -> None:
    """Whatever the service does with pages, each task is told once, none is left out, and there is an end.

    It may ignore the page, put fewer on one than it was asked for, say how many there are or not, and while it is read
    new tasks push older ones on to the next page.
    """
    async with RawServer(*replies) as server, raw(server) as session:
        found = [task_id async for task_id in session.history(start=0, end=1)]
        assert found == list(dict.fromkeys(found))
        assert (len(found), len(server.received)) == (expected, requests)
        assert [received.line.split("&")[0][-1] for received in server.received] == list("1234"[:requests])


async def test_past_tasks_tell_what_they_cost_and_gave(tmp_path: Path) -> None:
    """A past task comes with its status, cost and pictures, which can be saved, and `history` still tells ids."""
    async with short() as emulator, session_on(emulator) as session:
        emulator.faults.next("create", "task-fails", reason="no bears today")
        with pytest.raises(errors.TaskFailedError):
            await session.run(BEAR)
        info = await session.run(BEAR)
        now = Clock().now()
        done, failed = [past async for past in session.past_tasks(start=now - 60, end=now + 60)]
        assert (done.status, failed.status) == (TaskStatus.COMPLETED, TaskStatus.FAILED)
        assert (done.task_id, done.model, done.task_type) == (info.task_id, info.model, info.task_type)
        assert (done.images, done.usage) == (info.images, info.usage)
        assert done.created_at == info.created_at
        assert done.raw["status"] == "finished"
        (path,) = await session.save(done, tmp_path)
        assert path.exists()
        assert [task_id async for task_id in session.history(start=now - 60, end=now + 60)] == list(emulator.tasks)[
            ::-1
        ]
        assert [past async for past in session.past_tasks(start=now - 60, end=now + 60, model="kling")] == []


@pytest.mark.parametrize(
    ("usage", "points"),
    [(15000, 15000), (15000.0, 15000), (0, 0), (None, None), (-1, None), (10**30, None), (True, None)],
)
async def test_an_unknown_cost_is_not_zero(usage: Any, points: int | None) -> None:
    """A record that tells no cost that can be read has none, which is not 0."""
    record = {"task_id": "t-1", "task_model": "flux", "action": "img2img", "status": "odd", "detail": 7, "usage": usage}
    async with RawServer(answer({"data": [record], "total": 1})) as server, raw(server) as session:
        (info,) = [past async for past in session.past_tasks(start=0, end=1)]
    assert (info.usage.consume if info.usage else None) == points
    assert (info.model, info.task_type, info.status) == ("flux", "img2img", TaskStatus.UNKNOWN)
    assert info.raw == record


def test_own_tasks_are_bounded() -> None:
    """A session that runs for months remembers the last ten thousand of its tasks."""
    own = OwnTasks()
    for number in range(3 * REMEMBERED):
        own.add(f"t-{number}")
    assert "t-0" not in own
    assert f"t-{2 * REMEMBERED - 1}" not in own
    assert f"t-{2 * REMEMBERED}" in own
