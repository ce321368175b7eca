"""Tasks in flight: every way to submit and to wait keeps to the limit, and none of them waits for ever."""

import asyncio
import math
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress

import pytest

from piapi_async import Backoff, Governor, Img2Img, Polling, Session, TaskHandle, TaskInfo
from piapi_async.emulator import Constant, Emulator
from piapi_async.errors import InvalidRequestError, NotFoundError, WaitTimeoutError
from piapi_async.polling._poller import VISIBLE_AFTER
from piapi_async.task import TaskStatus
from piapi_async.testing import VirtualTimeLoop

BEAR = Img2Img(prompt="a bear", image="https://example.com/a.jpg")
POLLING = Polling(wait=Backoff(initial=1, maximum=1, jitter=0))


def now() -> float:
    """The loop's time."""
    return asyncio.get_running_loop().time()


def most_at_once(server: Emulator) -> int:
    """How many tasks the service had at the same time, at most."""
    views = server.tasks.values()
    steps = sorted([(view.ended_at or math.inf, -1) for view in views] + [(view.created_at, 1) for view in views])
    most = current = 0
    for _, step in steps:
        current += step
        most = max(most, current)
    return most


def polls(server: Emulator) -> int:
    """How many polls the service answered."""
    return sum(request.endpoint == "get" for request in server.requests)


async def gather_of_run(session: Session) -> None:
    """A hundred lines of an app."""
    await asyncio.gather(*(session.run(BEAR) for _ in range(9)))


async def gather_of_submit_and_await(session: Session) -> None:
    """The README's first example, side by side."""

    async def one() -> TaskInfo:
        handle = await session.submit(BEAR)
        return await handle

    await asyncio.gather(*(one() for _ in range(9)))


async def submit_all_then_await_all(session: Session) -> None:
    """One after the other; nobody waits for the first while the others are submitted."""
    handles = [await session.submit(BEAR) for _ in range(9)]
    for handle in handles:
        await handle


async def drop_the_handles(session: Session) -> None:
    """As where a webhook reports the tasks."""
    for _ in range(9):
        await session.submit(BEAR)


async def keep_the_ids(session: Session) -> None:
    """Each task is found again by its id, and waited for while the next is submitted."""
    waits = []
    for _ in range(9):
        task_id = (await session.submit(BEAR)).task_id
        waits.append(asyncio.ensure_future(session.task(task_id).wait()))
    await asyncio.gather(*waits)


async def give_the_waits_up(session: Session) -> None:
    """Each wait ends long before its task, by time or by a cancel."""
    for number in range(9):
        if number % 2:
            with pytest.raises(WaitTimeoutError):
                await session.run(BEAR, timeout=1)
        else:
            waiting = asyncio.ensure_future((await session.submit(BEAR)).wait())
            await asyncio.sleep(2)
            waiting.cancel()
            await asyncio.wait({waiting})


WAYS = [
    gather_of_run,
    gather_of_submit_and_await,
    submit_all_then_await_all,
    drop_the_handles,
    keep_the_ids,
    give_the_waits_up,
]


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
async def test_the_limit_that_was_told_is_never_exceeded(way: Callable[[Session], Awaitable[None]]) -> None:
    """With `max_in_flight=3` no more than three tasks exist at once, no submit is refused, and all nine are made."""
    async with Emulator(over_limit="429", concurrency=3, queue_delay=Constant(0.5), durations=Constant(20)) as server:
        async with Session(server.api_key, base_url=server.url, polling=POLLING, max_in_flight=3) as session:
            begun = now()
            await way(session)
            assert now() - begun < 3 * 20 * 1.4
        assert len(server.tasks) == 9
        assert most_at_once(server) == 3
        assert {request.status for request in server.requests} == {200}


@pytest.mark.parametrize("way", WAYS[:5], ids=lambda way: way.__name__)
async def test_the_limit_that_nobody_told_is_learned(way: Callable[[Session], Awaitable[None]]) -> None:
    """A service that refuses the fourth task gets all nine, however they are waited for."""
    async with Emulator(over_limit="429", concurrency=3, queue_delay=Constant(0.5), durations=Constant(20)) as server:
        async with Session(server.api_key, base_url=server.url, polling=POLLING) as session:
            begun = now()
            await way(session)
            assert now() - begun < 3 * 20 * 2
        assert len(server.tasks) == 9
        assert sum(request.status == 429 for request in server.requests) < 20


async def test_what_somebody_waits_for_is_polled_by_nobody_else() -> None:
    """While submits wait for room, tasks that are awaited are polled as often as otherwise."""
    async with Emulator(queue_delay=Constant(0.5), durations=Constant(20)) as server:
        async with Session(server.api_key, base_url=server.url, polling=Polling(wait=Backoff(initial=30))) as session:
            await session.run(BEAR)
            alone = polls(server)
        governor = Governor(max_in_flight=1)
        waits = Polling(wait=Backoff(initial=30, jitter=0))
        async with Session(server.api_key, base_url=server.url, polling=waits, governor=governor) as session:
            await asyncio.gather(*(session.run(BEAR) for _ in range(5)))
        assert polls(server) - alone == 5 * alone


async def test_whatever_sees_the_end_frees_the_slot() -> None:
    """`refresh`, `get_task`, `cancel_task` and another handle's poll each tell that a task is over."""
    governor = Governor(max_in_flight=1)
    async with Emulator(queue_delay=Constant(0.5), durations=Constant(5)) as server:
        async with Session(server.api_key, base_url=server.url, governor=governor) as session:
            ways: list[Callable[[TaskHandle], Awaitable[object]]] = [
                lambda handle: handle.refresh(),
                lambda handle: session.get_task(handle.task_id),
                lambda handle: session.cancel_task(handle.task_id),
                lambda handle: session.task(handle.task_id).wait(),
            ]
            for see in ways:
                handle = await session.submit(BEAR)
                assert "1 in flight" in repr(governor)
                await asyncio.sleep(10)
                before = polls(server)
                with suppress(InvalidRequestError):  # a finished task is not cancelled, but seen
                    await see(handle)
                assert repr(governor) == "<Governor at most 1 tasks in flight>"
                assert polls(server) - before <= 1


async def test_a_session_that_is_closed_holds_nobody_up() -> None:
    """Tasks of a closed session, which can no longer be asked about, leave their slots to another session's."""
    governor = Governor(max_in_flight=2)
    async with Emulator(queue_delay=Constant(0.5), durations=Constant(3000)) as server:
        async with Session(server.api_key, base_url=server.url, governor=governor) as one:
            for _ in range(2):
                await one.submit(BEAR)
        begun = now()
        async with Session(server.api_key, base_url=server.url, governor=governor) as other:
            await other.submit(BEAR)
        assert now() - begun < 5


async def test_a_task_that_never_ends_holds_others_up_for_a_quarter_of_an_hour() -> None:
    """Whether polls show no end or fail: after 15 minutes a task that nobody waits for no longer counts."""
    for fault in (None, "503"):
        async with Emulator(queue_delay=Constant(0.5), durations=Constant(10**5)) as server:
            async with Session(server.api_key, base_url=server.url, max_in_flight=1) as session:
                await session.submit(BEAR)
                if fault is not None:
                    server.faults.always("get", fault)
                begun = now()
                await session.submit(BEAR)
                assert now() - begun == pytest.approx(900, abs=15)
            assert polls(server) < 120


async def test_tasks_of_which_nobody_asks_do_not_pile_up() -> None:
    """Submitted without a limit and never polled, tasks are let go after 15 minutes."""
    governor = Governor()
    async with Emulator(queue_delay=Constant(0.5), durations=Constant(5)) as server:
        async with Session(server.api_key, base_url=server.url, governor=governor) as session:
            await asyncio.gather(*(session.submit(BEAR) for _ in range(50)))
            assert "50 in flight" in repr(governor)
            await asyncio.sleep(900)
            await session.submit(BEAR)
            assert repr(governor) == "<Governor 1 in flight>"
        assert polls(server) == 0


async def test_the_same_task_twice_is_one_task() -> None:
    """A service that answers two submits with one id leaves no slot taken."""
    governor = Governor(max_in_flight=2)
    pending, completed = (TaskInfo(task_id="t", status=status) for status in (TaskStatus.PENDING, TaskStatus.COMPLETED))
    for _ in range(2):
        async with governor.slot() as slot, governor.turn("submit", slot=slot):
            slot.accepted(pending)
    assert "1 in flight" in repr(governor)
    governor.seen(completed)
    assert repr(governor) == "<Governor at most 2 tasks in flight>"


async def test_a_task_that_is_over_at_once_takes_no_slot() -> None:
    """A submit that is answered with a finished task leaves the slot free, also when its wait goes on."""
    governor = Governor(max_in_flight=1)
    for status in (TaskStatus.COMPLETED, TaskStatus.FAILED):
        async with governor.slot() as slot, governor.turn("submit", slot=slot):
            slot.accepted(TaskInfo(task_id="t", status=status))
        for by in (1, -1):
            governor.watch("t", by=by)
            assert repr(governor) == "<Governor at most 1 tasks in flight>"


async def test_a_bug_in_a_poll_ends_no_wait(caplog: pytest.LogCaptureFixture) -> None:
    """Should a poll raise something unforeseen, that is logged once, and the task is polled again."""
    governor, seen = Governor(max_in_flight=1), Counter[str]()

    async def poll(task_id: str) -> None:
        seen.update([task_id])
        if seen[task_id] <= 2:
            raise ZeroDivisionError
        governor.seen(TaskInfo(task_id=task_id, status=TaskStatus.COMPLETED))

    async with governor.slot(poll=poll) as slot, governor.turn("submit", slot=slot):
        slot.accepted(TaskInfo(task_id="t", status=TaskStatus.PENDING))
    async with asyncio.timeout(60), governor.slot():
        assert seen["t"] == 3
    assert [record.message for record in caplog.records] == ["polling task t failed; it is polled again"]


async def test_a_poll_that_is_not_answered_holds_up_no_other() -> None:
    """Tasks that nobody waits for are polled side by side: one that is silent does not hide the end of the others."""
    governor = Governor(max_in_flight=3)

    async def poll(task_id: str) -> None:
        if task_id == "silent":
            await asyncio.Event().wait()
        governor.seen(TaskInfo(task_id=task_id, status=TaskStatus.COMPLETED))

    for task_id in ("silent", "a", "b"):
        async with governor.slot(poll=poll) as slot, governor.turn("submit", slot=slot):
            slot.accepted(TaskInfo(task_id=task_id, status=TaskStatus.PENDING))
    async with asyncio.timeout(5), governor.slot(), governor.slot():
        pass


@pytest.mark.parametrize("is_enveloped", [True, False])
async def test_a_task_that_the_service_does_not_know_is_not_in_flight(*, is_enveloped: bool) -> None:
    """It frees its slot once it would be visible, if it is PiAPI that says so, and not a page of something in front."""
    governor, begun = Governor(max_in_flight=1), now()

    async def poll(_task_id: str) -> None:
        raise NotFoundError("no such task", status=404, is_enveloped=is_enveloped)

    async with governor.slot(poll=poll) as slot, governor.turn("submit", slot=slot):
        slot.accepted(TaskInfo(task_id="t", status=TaskStatus.PENDING))
    async with governor.slot():
        assert (VISIBLE_AFTER <= now() - begun < 25) is is_enveloped


def test_loops_that_take_turns_do_not_wait_for_each_other() -> None:
    """The tasks in flight go to the loop that runs next; the one before it, when run again, does not count them."""
    governor = Governor(max_in_flight=1)

    async def submit(task_id: str) -> None:
        async with asyncio.timeout(30), governor.slot(poll=poll) as slot, governor.turn("submit", slot=slot):
            slot.accepted(TaskInfo(task_id=task_id, status=TaskStatus.PENDING))

    async def poll(task_id: str) -> None:
        governor.seen(TaskInfo(task_id=task_id, status=TaskStatus.COMPLETED))

    with asyncio.Runner(loop_factory=VirtualTimeLoop) as first, asyncio.Runner(loop_factory=VirtualTimeLoop) as second:
        first.run(submit("a"))
        second.run(submit("b"))
        first.run(submit("c"))
        second.run(submit("d"))
