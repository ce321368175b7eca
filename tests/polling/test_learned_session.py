"""A session learns from its tasks: what it takes in, how often, and what that saves."""

import asyncio
import json
from collections.abc import Sequence
from typing import Any

import pytest
from support.raw_server import RawServer, task

from piapi_async import Backoff, Governor, Img2Img, Learned, Polling, Session, TaskFailedError, TaskRequest
from piapi_async._asyncio import Clock
from piapi_async.emulator import Constant, Emulator, LogNormal
from piapi_async.errors import PiAPIError
from piapi_async.events import Polled
from piapi_async.testing import EventLog

BEAR = Img2Img(prompt="a bear", image="https://example.com/a.jpg")
EACH_SECOND = Backoff(initial=1, maximum=1, jitter=0.0)


def known(learned: Learned) -> dict[tuple[str, ...], list[Sequence[float | None]]]:
    """The durations a policy knows, by kind."""
    return {tuple(kind["key"]): kind["seconds"] for kind in json.loads(learned.to_json())["kinds"]}


def steady(**options: Any) -> Emulator:
    """An emulator whose tasks wait for two seconds and run for seven."""
    return Emulator(queue_delay=Constant(2.0), durations=Constant(7.0), **options)


async def test_what_a_session_learns() -> None:
    """A task that is over adds its exact duration, with its time in the queue, to its model and task type."""
    learned = Learned()
    async with steady() as server:
        async with Session(server.api_key, base_url=server.url, polling=Polling(wait=learned)) as session:
            await session.run(BEAR)
            await session.run(TaskRequest(model="Qubico/flux1-dev", task_type="txt2img", input={"prompt": "a bear"}))
    both = [("Qubico/flux1-schnell", "img2img"), ("Qubico/flux1-dev", "txt2img")]
    assert known(learned) == {key: [[pytest.approx(9.0, abs=0.01), pytest.approx(2.0, abs=0.01)]] for key in both}


async def test_a_task_is_learned_from_once() -> None:
    """Several waiters on a handle, a refresh and a later wait add one duration between them."""
    learned = Learned()
    async with steady() as server:
        async with Session(server.api_key, base_url=server.url, polling=Polling(wait=learned)) as session:
            handle = await session.submit(BEAR)
            await asyncio.gather(handle, handle.wait(), handle.wait(polling=Polling(wait=EACH_SECOND)))
            await handle.refresh()
            await handle
    assert [len(seconds) for seconds in known(learned).values()] == [1]


async def test_a_refresh_teaches_too() -> None:
    """The end of a task that `refresh` shows is learned from like one that a wait shows."""
    learned = Learned()
    async with steady() as server:
        async with Session(server.api_key, base_url=server.url, polling=Polling(wait=learned)) as session:
            handle = await session.submit(BEAR)
            await asyncio.sleep(30)
            await handle.refresh()
    assert [seconds for ((seconds, _),) in known(learned).values()] == [pytest.approx(9.0, abs=0.01)]


async def test_the_policy_of_the_wait_learns() -> None:
    """A wait with a policy of its own teaches that one as well as the session's."""
    ours, other = Learned(), Learned()
    async with steady() as server:
        async with Session(server.api_key, base_url=server.url, polling=Polling(wait=ours)) as session:
            handle = await session.submit(BEAR)
            await handle.wait(polling=Polling(wait=other))
    assert (len(known(ours)), len(known(other))) == (1, 1)


@pytest.mark.parametrize(("status", "taught"), [("failed", 1), ("completed", 1), ("canceled", 0)])
async def test_which_ends_teach(status: str, taught: int) -> None:
    """How long a task took to fail says when to poll the others; when one was cancelled says nothing."""
    learned = Learned()
    reply = task("t", status, meta={"created_at": "2026-01-01T00:00:00Z", "ended_at": "2026-01-01T00:00:01Z"})
    async with RawServer(reply) as server:
        async with Session("k", base_url=server.url, polling=Polling(wait=learned)) as session:
            await session.task("t").refresh()
    assert len(known(learned)) == taught


async def test_tasks_that_fail_at_once_are_found_out_at_once() -> None:
    """Where half of the tasks fail within a second and the others take 20, failures are not learned of 20 s late."""
    log, late = EventLog(), list[float]()
    async with Emulator(queue_delay=Constant(0.1), durations=Constant(20.0)) as server:
        async with Session(server.api_key, base_url=server.url, observers=[log]) as session:
            for number in range(40):
                begun = Clock().monotonic()
                handle = await session.submit(BEAR)
                if number % 2:
                    asyncio.get_running_loop().call_later(0.3, server.fail, handle.task_id)
                info = [info async for info in handle.updates()][-1]
                assert info.seconds is not None
                late.append(Clock().monotonic() - begun - info.seconds)
    assert sum(late[20:]) / 20 < 1.5
    assert len(log.of(Polled)) < 4 * 40


async def test_a_task_without_times_is_learned_from_by_its_polls() -> None:
    """Where the service tells no times, the duration is the middle between the polls before and after the end."""
    learned = Learned(prior=Backoff(initial=4, factor=1, maximum=4, jitter=0))
    done = task("t", "completed", output={"image_url": "https://example.com/a.png"})
    async with RawServer(task("t"), task("t"), task("t"), done) as server:
        async with Session("k", base_url=server.url, polling=Polling(wait=learned)) as session:
            await (await session.submit(BEAR))
    ((seen,),) = known(learned).values()
    assert seen == [pytest.approx(10.0, abs=0.2), None]


async def test_sessions_share_what_they_learn() -> None:
    """One policy in two sessions, one after the other, knows the tasks of both."""
    learned = Learned()
    polling = Polling(wait=learned)
    async with steady() as server:
        for _ in range(2):
            async with Session(server.api_key, base_url=server.url, polling=polling) as session:
                await session.run(BEAR)
    assert [len(seconds) for seconds in known(learned).values()] == [2]


async def polls(server: Emulator, *, tasks: int, polling: Polling | None = None) -> tuple[float, float]:
    """How many polls a task takes, and how late it is found to be over, of the last 60 of so many one after another."""
    late, before = 0.0, 0
    async with Session(server.api_key, base_url=server.url, polling=polling) as session:
        for number in range(tasks):
            if number == tasks - 60:
                before, late = len(server.requests), 0.0
            info = await session.run(BEAR)
            assert info.ended_at is not None
            late += Clock().now() - info.ended_at.timestamp()
    return (len(server.requests) - before) / 60 - 1, late / 60


async def test_a_session_learns_by_default() -> None:
    """A session of which nothing is said pays, in polls and lateness, less than 0.6 of what it does with `Backoff`."""
    found = []
    for polling in (None, Polling(wait=Backoff())):
        async with Emulator(queue_delay=LogNormal(1.0, 0.3), durations=LogNormal(9.0, 0.25), seed=3) as server:
            found.append(await polls(server, tasks=80, polling=polling))
    learned, usual = (number + 2 * late for number, late in found)
    assert learned < 0.6 * usual


async def test_chaos_is_survived() -> None:
    """Polls that fail in any way do not keep a session from learning or from its results."""
    learned = Learned()
    polling = Polling(wait=learned, max_errors=50)
    async with steady(chaos=0.2, seed=5) as server:
        async with Session(server.api_key, base_url=server.url, polling=polling) as session:
            found = await asyncio.gather(*(session.run(BEAR) for _ in range(40)), return_exceptions=True)
    over = [info for info in found if not isinstance(info, BaseException) or isinstance(info, TaskFailedError)]
    assert all(isinstance(one, PiAPIError) for one in found if isinstance(one, BaseException))
    assert [len(seconds) for seconds in known(learned).values()] == [len(over)]


async def test_scarce_polls_go_where_the_end_is_likely() -> None:
    """Of two polls that wait for their turn, the one at a task that is due goes before one that came first."""
    learned = Learned()
    for _ in range(20):
        learned.observe(("Qubico/flux1-schnell", "img2img"), 20.0)
    setting: dict[str, Any] = {"governor": Governor(requests_per_second=1, burst=1), "polling": Polling(wait=learned)}
    async with Emulator(durations=Constant(60.0)) as server:
        async with Session(server.api_key, base_url=server.url, **setting) as session:
            due = await session.submit(BEAR)
            await asyncio.sleep(22)
            fresh = await session.submit(BEAR)  # the next turn comes a second later
            waits = [handle.wait(timeout=0) for handle in (fresh, due)]
            await asyncio.gather(*waits, return_exceptions=True)
        polled = [request.task_id for request in server.requests if request.endpoint == "get"]
    assert polled == [due.task_id, fresh.task_id]


async def lateness(session: Session) -> float:
    """Seconds between a task's end and its news."""
    handle = await session.submit(BEAR)
    begun = Clock().monotonic()
    info = await handle
    assert info.created_at is not None
    assert info.ended_at is not None
    return Clock().monotonic() - begun - (info.ended_at - info.created_at).total_seconds()


async def test_tasks_that_are_waited_for_side_by_side_are_learned_from_like_others() -> None:
    """Polls a hundred tasks at once, and the lateness of their news, cost least in the rounds after the first."""
    learned, log, costs = Learned(), EventLog(), []
    async with Emulator(queue_delay=Constant(0.1), durations=LogNormal(9.0, 0.3), concurrency=100) as server:
        options: dict[str, Any] = {"polling": Polling(wait=learned), "observers": [log]}
        async with Session(server.api_key, base_url=server.url, **options) as session:
            for _ in range(4):
                late = await asyncio.gather(*(lateness(session) for _ in range(100)))
                costs.append(len(log.of(Polled)) / 100 + learned.price * sum(late) / 100)
                log.clear()
    assert max(costs[1:]) < costs[0]
