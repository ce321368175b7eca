"""The service's three calls: what is told to observers, in which order, and what a cancel leaves behind."""

import asyncio
from typing import Any

import aiohttp
import pytest
from support.raw_server import RawServer, answer, cut, holding, refusing, stall, task

from piapi_async import Backoff, Governor, Img2Img, Polling, RetryPolicy, Session, SubmissionInDoubtError, events
from piapi_async._asyncio import Clock
from piapi_async.emulator import Constant, Emulator
from piapi_async.errors import ConnectError, RateLimitError, ServerError
from piapi_async.testing import EventLog

BEAR = Img2Img(prompt="a bear", image="https://example.com/a.jpg")
LIMITED = answer(status=429, headers={"Retry-After": "1"})


async def test_a_run_is_told_from_beginning_to_end() -> None:
    """A run tells its acceptance and each poll, with the task as it then was."""
    log = EventLog()
    async with RawServer(task("t", "pending"), task("t", "processing"), task("t", "completed")) as server:
        async with Session("k", base_url=server.url, observers=[log]) as session:
            await session.run(BEAR)
    assert [type(event) for event in log] == [events.Submitted, events.Polled, events.Polled]
    assert [event.info.raw_status for event in log] == ["pending", "processing", "completed"]  # type: ignore[union-attr]


async def test_submit_after_a_429_can_still_be_in_doubt() -> None:
    """Each attempt is judged by itself: a clear 429, then a lost answer, is in doubt, and nothing more is sent."""
    log = EventLog()
    async with RawServer(LIMITED, cut, task()) as server:
        async with Session("k", base_url=server.url, observers=[log]) as session:
            with pytest.raises(SubmissionInDoubtError) as caught:
                await session.submit(BEAR)
        assert len(server.received) == 2
    assert [type(event) for event in log] == [events.Paused, events.Retrying, events.SubmissionInDoubt]
    assert caught.value.key is None


async def test_time_of_a_doubt_is_that_of_its_own_attempt() -> None:
    """`since` is when the request in doubt was sent, not when the first attempt was."""
    slow = answer(status=429, headers={"Retry-After": "50"})
    async with RawServer(slow, cut) as server, Session("k", base_url=server.url) as session:
        begun = Clock().now()
        with pytest.raises(SubmissionInDoubtError) as caught:
            await session.submit(BEAR)
    assert caught.value.since - begun == pytest.approx(50.0, abs=0.5)


async def test_429_of_a_cancel_is_waited_out() -> None:
    """`DELETE` obeys `Retry-After` like the rest."""
    replies = (LIMITED, answer({"code": 200, "message": "task t canceled"}), task("t", "canceled"))
    async with RawServer(*replies) as server, Session("k", base_url=server.url) as session:
        loop = asyncio.get_running_loop()
        begun = loop.time()
        assert (await session.cancel_task("t")).status == "canceled"
        assert 1.0 <= loop.time() - begun < 3.0
        assert [received.line[:6] for received in server.received] == ["DELETE", "DELETE", "GET /a"]


async def test_attempts_that_are_used_up_raise_the_last_error() -> None:
    """A poll fails as often as the policy allows, tells each failure and each pause, and raises the last error."""
    log = EventLog()
    retry = RetryPolicy(attempts=3, wait_initial=1, wait_exp_base=2, wait_jitter=0)
    replies = (answer(status=500), answer(b"<html>"), answer(status=503, headers={"Retry-After": "3"}), stall)
    async with RawServer(*replies) as server:
        async with Session("k", base_url=server.url, retry=retry, observers=[log]) as session:
            with pytest.raises(ServerError, match="503") as caught:
                await session.get_task("t")
    assert caught.value.retry_after == 3.0
    assert [event.wait for event in log.of(events.Retrying)] == [1.0, 2.0]
    assert [event.action for event in log.of(events.Retrying)] == ["poll", "poll"]
    assert [event.error for event in log.of(events.PollFailed)][-1] is caught.value
    assert len(log.of(events.PollFailed)) == 3


async def test_policy_without_patience_tries_once() -> None:
    """`attempts=1` is one attempt, for a submit that was not sent as well."""
    async with refusing() as url, Session("k", base_url=url, retry=RetryPolicy(attempts=1)) as session:
        with pytest.raises(ConnectError):
            await session.submit(BEAR)


async def test_retry_after_beyond_the_policys_time_is_not_waited_for() -> None:
    """A `Retry-After` beyond the policy's time limit ends the call at once; the error keeps the server's wish."""
    async with RawServer(answer(status=429, headers={"Retry-After": "600"})) as server:
        async with Session("k", base_url=server.url) as session:
            loop = asyncio.get_running_loop()
            begun = loop.time()
            with pytest.raises(RateLimitError) as caught:
                await session.submit(BEAR)
            assert loop.time() - begun < 0.5
    assert caught.value.retry_after == 600.0


@pytest.mark.parametrize("status", [429, 503])
async def test_the_governor_bounds_every_retry_after(status: int) -> None:
    """With `Governor(max_pause=5)` no attempt at a submit, and no poll of a wait, is put off by two minutes."""
    slow = answer(status=status, headers={"Retry-After": "600"})
    polling = Polling(wait=Backoff(initial=1, maximum=1, jitter=0))
    submitting = (answer(status=429, headers={"Retry-After": "600"}), task("t"))
    async with RawServer(*submitting, slow, task("t"), slow, task("t", "completed")) as server:
        async with Session("k", base_url=server.url, governor=Governor(max_pause=5), polling=polling) as session:
            loop = asyncio.get_running_loop()
            begun = loop.time()
            handle = await session.submit(BEAR)
            assert loop.time() - begun == pytest.approx(5, abs=0.5)
            await handle.refresh()
            assert loop.time() - begun == pytest.approx(10, abs=0.5)
            await handle
            assert loop.time() - begun == pytest.approx(16, abs=1)
    assert len(server.received) == 6


async def test_pause_beyond_the_policys_time_is_not_sat_out() -> None:
    """During a pause that is longer than `retry.timeout` every call fails at once, sends nothing, and says how long."""
    async with RawServer(answer(status=429, headers={"Retry-After": "600"}), task()) as server:
        async with Session("k", base_url=server.url) as session:
            loop = asyncio.get_running_loop()
            begun = loop.time()
            for act in (
                lambda: session.submit(BEAR),
                lambda: session.submit(BEAR),
                lambda: session.get_task("t"),
                lambda: session.cancel_task("t"),
            ):
                with pytest.raises(RateLimitError) as caught:
                    await act()
                assert caught.value.retry_after in (600, pytest.approx(120, abs=1))
            assert loop.time() - begun < 1
            assert len(server.received) == 1
            await asyncio.sleep(65)
            await session.get_task("t")
            assert loop.time() - begun == pytest.approx(120, abs=1)


@pytest.mark.parametrize(("moment", "begun"), [("on_request_start", False), ("on_request_end", True)])
async def test_mistake_in_a_borrowed_sessions_trace_is_told_as_what_it_means(moment: str, *, begun: bool) -> None:
    """A foreign error after the POST began leaves a doubt, with the error behind it; before, it passes as it is."""
    log, trace = EventLog(), aiohttp.TraceConfig()

    async def oops(*_: object) -> None:
        raise RuntimeError("oops")

    getattr(trace, moment).append(oops)
    async with RawServer(task("t")) as server, aiohttp.ClientSession(trace_configs=[trace]) as http:
        async with Session("k", base_url=server.url, http=http, observers=[log]) as session:
            with pytest.raises((SubmissionInDoubtError, RuntimeError), match="oops") as caught:
                await session.submit(BEAR)
        assert begun or server.received == []
    assert isinstance(caught.value, SubmissionInDoubtError) is begun
    assert [event.error for event in log.of(events.SubmissionInDoubt)] == [caught.value] * begun


async def test_cancelled_submit_settles_within_ten_seconds_in_all() -> None:
    """The wait for the answer and the cancelling of the task share one limit, and who is left behind is told."""
    log, go = EventLog(), asyncio.Event()
    async with RawServer(holding(task("t"), until=go), stall) as server:
        async with Session("k", base_url=server.url, on_cancel="cancel", observers=[log]) as session:
            submitting = asyncio.ensure_future(session.submit(BEAR))
            await asyncio.sleep(1)
            loop = asyncio.get_running_loop()
            begun = loop.time()
            submitting.cancel()
            await asyncio.sleep(7)
            go.set()
            with pytest.raises(asyncio.CancelledError):
                await submitting
            assert loop.time() - begun == pytest.approx(10, abs=0.5)
        assert [received.line for received in server.received] == ["POST /api/v1/task", "DELETE /api/v1/task/t"]
    assert [event.task_id for event in log.of(events.WaitAbandoned)] == ["t"]


async def test_cancelled_task_is_not_told_as_going_on() -> None:
    """Once the service took the cancel, nothing says that the task goes on, even if no poll of it succeeds any more."""
    log = EventLog()
    canceled = answer({"code": 200, "message": "task t canceled"})
    async with RawServer(task("t"), canceled, answer(status=500)) as server:
        async with Session("k", base_url=server.url, on_cancel="cancel", observers=[log]) as session:
            running = asyncio.ensure_future(session.run(BEAR))
            await asyncio.sleep(0.5)
            running.cancel()
            with pytest.raises(asyncio.CancelledError):
                await running
    assert log.of(events.WaitAbandoned) == []


async def test_lost_answer_to_a_cancel_is_tried_again() -> None:
    """A cancelled wait whose first DELETE fails in transit sends a second within its ten seconds."""
    log = EventLog()
    async with Emulator(queue_delay=Constant(600.0)) as server:
        async with Session(server.api_key, base_url=server.url, on_cancel="cancel", observers=[log]) as session:
            running = asyncio.ensure_future(session.run(BEAR))
            await asyncio.sleep(0.5)
            server.faults.next("cancel", "502")
            running.cancel()
            with pytest.raises(asyncio.CancelledError):
                await running
        assert [view.status for view in server.tasks.values()] == ["canceled"]
    assert log.of(events.WaitAbandoned) == []


@pytest.mark.parametrize("on_cancel", ["detach", "cancel"])
async def test_slow_end_of_a_broken_request_hides_nothing(on_cancel: Any) -> None:
    """A borrowed session whose tracing holds up its end: a cancel still comes out as a cancel, and is told."""
    log = EventLog()
    trace = aiohttp.TraceConfig()

    async def slowly(*_: object) -> None:
        await asyncio.sleep(30)

    trace.on_request_exception.append(slowly)
    async with RawServer(stall) as server, aiohttp.ClientSession(trace_configs=[trace]) as http:
        async with Session("k", base_url=server.url, http=http, on_cancel=on_cancel, observers=[log]) as session:
            for act in (lambda: session.submit(BEAR), lambda: session.task("t").wait()):
                running = asyncio.ensure_future(act())
                await asyncio.sleep(1)
                running.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await running
        await asyncio.sleep(60)
    assert len(log.of(events.SubmissionInDoubt)) == 1
    assert [event.task_id for event in log.of(events.WaitAbandoned)] == ["t"]


async def test_cancel_whose_answer_was_lost_is_a_cancel() -> None:
    """A task that an earlier DELETE of the same call has cancelled is cancelled, whatever the second DELETE says."""
    async with Emulator(queue_delay=Constant(600.0)) as server:
        async with Session(server.api_key, base_url=server.url) as session:
            handle = await session.submit(BEAR)
            server.faults.next("cancel", "503-after-accept")
            assert (await handle.cancel()).status == "canceled"


async def test_cancelled_submit_of_a_task_that_failed_at_once_is_told() -> None:
    """A cancelled submit answered with a task is told with that task, however it stands."""
    log, go = EventLog(), asyncio.Event()
    async with RawServer(holding(task("t", "failed"), until=go)) as server:
        async with Session("k", base_url=server.url, observers=[log]) as session:
            submitting = asyncio.ensure_future(session.submit(BEAR))
            await asyncio.sleep(1)
            submitting.cancel()
            await asyncio.sleep(1)
            assert not submitting.done()
            go.set()
            with pytest.raises(asyncio.CancelledError):
                await submitting
    assert [event.info.status for event in log.of(events.Submitted)] == ["failed"]


async def test_polls_that_fail_are_told_one_by_one() -> None:
    """Every failed poll of a wait is an event with the task and the error; the wait itself goes on."""
    log = EventLog()
    # aiohttp repeats a GET that was cut by itself, so it takes two cuts to fail one poll.
    replies = (answer(status=500), cut, cut, answer(b""), task("t", "completed"))
    async with RawServer(*replies) as server:
        async with Session("k", base_url=server.url, polling=Polling(max_errors=4), observers=[log]) as session:
            await session.task("t")
    failed = log.of(events.PollFailed)
    assert [type(event.error).__name__ for event in failed] == [
        "ServerError",
        "ConnectionLostError",
        "UnexpectedResponseError",
    ]
    assert {event.task_id for event in failed} == {"t"}
    assert log.of(events.Retrying) == []
