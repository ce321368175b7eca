"""`TaskHandle`: waiting, looking, several waiters, and what the errors keep."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp
import numpy as np
import pytest
import tenacity
from support.raw_server import RawServer, answer, cut, holding, stall, task

from piapi_async import (
    Backoff,
    Governor,
    Img2Img,
    Learned,
    Polling,
    RetryPolicy,
    Session,
    TaskFailedError,
    WaitTimeoutError,
    events,
)
from piapi_async.emulator import Constant, Emulator
from piapi_async.errors import (
    AuthenticationError,
    ConfigurationError,
    InvalidRequestError,
    NoOutputError,
    NotFoundError,
    PiAPIError,
    RequestTimeoutError,
    ServerError,
    TaskCanceledError,
)
from piapi_async.handle import OUTPUT_DELAY, TaskHandle
from piapi_async.testing import EventLog

BEAR = Img2Img(prompt="a bear", image="https://example.com/a.jpg")
EACH_SECOND = Polling(wait=Backoff(initial=1, maximum=1, jitter=0.0))


async def test_submitted_handle_knows_its_task() -> None:
    """A handle from `submit` holds the task as it was accepted, and shows it in one line."""
    async with RawServer(task("t-1", "Pending")) as server, Session("k", base_url=server.url) as session:
        handle = await session.submit(BEAR)
    assert handle.task_id == "t-1"
    assert handle.info is not None
    assert (handle.info.status, handle.info.raw_status) == ("pending", "Pending")
    assert repr(handle) == "<TaskHandle t-1 Pending>"


async def test_handle_from_elsewhere_knows_only_the_name() -> None:
    """`session.task` sends nothing; the first poll fills the handle in."""
    async with RawServer(task("t-1", "processing")) as server, Session("k", base_url=server.url) as session:
        handle = session.task("t-1")
        assert (handle.task_id, handle.info, repr(handle)) == ("t-1", None, "<TaskHandle t-1 not seen yet>")
        assert server.received == []
        info = await handle.refresh()
        assert handle.info is info
        assert repr(handle) == "<TaskHandle t-1 processing>"


async def test_awaiting_a_handle_is_waiting() -> None:
    """`await handle` gives what `await handle.wait()` gives."""
    async with Emulator(queue_delay=Constant(1.0), durations=Constant(2.0)) as server:
        async with Session(server.api_key, base_url=server.url) as session:
            handle = await session.submit(BEAR)
            info = await handle
            assert info is await handle.wait()
    assert info.status == "completed"


async def test_finished_handle_answers_without_a_request() -> None:
    """Once a task was seen to be over, waiting, polling and updates cost nothing, also with the session closed."""
    async with RawServer(task("t-1", "completed")) as server:
        async with Session("k", base_url=server.url) as session:
            handle = session.task("t-1")
            info = await handle
        assert await handle is info
        assert await handle.wait(timeout=0) is info
        assert await handle.refresh() is info
        assert [seen async for seen in handle.updates()] == [info]
        assert len(server.received) == 1


@pytest.mark.parametrize(
    ("status", "fields", "kind", "words"),
    [
        ("failed", {"error": {"code": 10000, "message": "out of memory"}}, TaskFailedError, "failed: out of memory"),
        ("failed", {"error": {"raw_message": "upstream gone"}}, TaskFailedError, "failed: upstream gone"),
        ("failed", {"error": {"message": ""}, "logs": ["", "no face found", " "]}, TaskFailedError, "no face found"),
        ("failed", {"error": {"message": "task failed"}, "logs": ["no face"]}, TaskFailedError, "task failed: no face"),
        ("Failed", {}, TaskFailedError, "task t-1 failed: no reason given"),
        ("cancelled", {}, TaskCanceledError, "task t-1 was cancelled"),
    ],
)
async def test_task_that_is_over_without_a_picture_raises(
    status: str, fields: dict[str, Any], kind: type[Exception], words: str
) -> None:
    """A failed and a cancelled task raise their own error, again and again, without a further request."""
    async with RawServer(task("t-1", status, **fields)) as server, Session("k", base_url=server.url) as session:
        handle = session.task("t-1")
        for _ in range(2):
            with pytest.raises(kind, match=words) as caught:
                await handle
            assert caught.value.info is handle.info  # type: ignore[attr-defined]
            assert caught.value.safe_to_resubmit is False  # type: ignore[attr-defined]
        assert len(server.received) == 1
        assert (await handle.refresh()).raw_status == status


@pytest.mark.parametrize("status", ["success", "completed"])
@pytest.mark.parametrize("output", [None, {}, {"image_url": "", "image_urls": []}])
async def test_task_that_stays_without_output_raises(status: str, output: dict[str, Any] | None) -> None:
    """A task that completed without output is polled for five seconds more; then that is final, and costs nothing."""
    async with RawServer(task("t-1", status, output=output)) as server, Session("k", base_url=server.url) as session:
        handle = session.task("t-1")
        loop = asyncio.get_running_loop()
        begun = loop.time()
        for _ in range(2):
            with pytest.raises(NoOutputError, match="t-1") as caught:
                await handle
            assert caught.value.info is handle.info
            assert caught.value.safe_to_resubmit is False
            assert loop.time() - begun == pytest.approx(OUTPUT_DELAY, abs=0.5)
        assert len(server.received) == 6
        assert (await handle.refresh()).raw_status == status
        assert [info.raw_status async for info in handle.updates()] == [status]
        assert len(server.received) == 6


EMPTY = task("t-1", "completed", output=None)


async def test_output_that_comes_late_is_found() -> None:
    """The status may be written before the output: `wait`, `run`, `refresh` and `updates` all find the picture."""
    done = task("t-1", "completed")
    for call in (TaskHandle.wait, last_update):
        async with RawServer(EMPTY, EMPTY, done) as server, Session("k", base_url=server.url) as session:
            handle = session.task("t-1")
            assert len((await call(handle)).images) == 1
            assert handle.info is await handle
            assert len(server.received) == 3
    async with RawServer(task("t-1"), EMPTY, done) as server, Session("k", base_url=server.url) as session:
        assert len((await session.run(BEAR)).images) == 1
    async with RawServer(EMPTY, done) as server, Session("k", base_url=server.url) as session:
        handle = session.task("t-1")
        assert [len((await handle.refresh()).images) for _ in range(3)] == [0, 1, 1]
        assert len(server.received) == 2


async def test_task_without_output_may_turn_out_to_go_on() -> None:
    """What a poll shows after "completed" without output is believed, whatever it is."""
    replies = (EMPTY, task("t-1", "processing"), task("t-1", "failed"))
    async with RawServer(*replies) as server, Session("k", base_url=server.url) as session:
        with pytest.raises(TaskFailedError):
            await session.task("t-1")


async def test_no_time_for_the_output_is_no_output() -> None:
    """A wait whose time is up while the output is awaited says that there was none; the next one polls again."""
    async with RawServer(EMPTY, EMPTY, task("t-1", "completed")) as server:
        async with Session("k", base_url=server.url) as session:
            handle = session.task("t-1")
            for _ in range(2):
                with pytest.raises(NoOutputError):
                    await handle.wait(timeout=0)
            assert len((await handle.wait(timeout=0)).images) == 1


async def test_output_other_than_pictures_is_output() -> None:
    """A completed task of another model, with something in `output` that is no picture, is not an error."""
    async with RawServer(task("t-1", "completed", output={"video": "x"})) as server:
        async with Session("k", base_url=server.url) as session:
            info = await session.task("t-1")
    assert info.images == ()
    assert info.raw["output"] == {"video": "x"}


async def test_several_waiters_all_get_the_task() -> None:
    """Ten coroutines may wait on one handle; each gets the task, and cancelling one leaves the others waiting."""
    async with Emulator(queue_delay=Constant(1.0), durations=Constant(5.0)) as server:
        async with Session(server.api_key, base_url=server.url) as session:
            handle = await session.submit(BEAR)
            waiting = [asyncio.ensure_future(handle.wait()) for _ in range(10)]
            await asyncio.sleep(1)
            waiting[0].cancel()
            done = await asyncio.gather(*waiting, return_exceptions=True)
    assert isinstance(done[0], asyncio.CancelledError)
    assert [getattr(info, "status", None) for info in done[1:]] == ["completed"] * 9


async def test_late_answer_does_not_undo_the_end() -> None:
    """A poll whose answer comes late, after another saw the task completed, does not make it unfinished again."""
    go = asyncio.Event()
    replies = (holding(task("t-1", "processing"), until=go), task("t-1", "completed"))
    async with RawServer(*replies) as server, Session("k", base_url=server.url) as session:
        handle = session.task("t-1")
        late = asyncio.ensure_future(handle.refresh())
        await asyncio.sleep(0.1)
        assert (await handle).status == "completed"
        go.set()
        await late
        assert handle.info is not None
        assert handle.info.status == "completed"


async def test_updates_yield_changes_only() -> None:
    """`updates` gives the task as it is known, then each change once, however often it is looked at, then ends."""
    async with Emulator(queue_delay=Constant(5.0), durations=Constant(7.0)) as server:
        async with Session(server.api_key, base_url=server.url, polling=EACH_SECOND) as session:
            handle = await session.submit(BEAR)
            seen = [info.status.value async for info in handle.updates()]
        assert len([record for record in server.requests if record.endpoint == "get"]) >= 12
    assert seen == ["pending", "processing", "completed"]


async def test_updates_tell_a_failure_and_do_not_raise_it() -> None:
    """The last update of a failed task is that task."""
    async with Emulator(queue_delay=Constant(1.0), durations=Constant(1.0)) as server:
        async with Session(server.api_key, base_url=server.url) as session:
            server.faults.next("create", "task-fails", reason="bad luck")
            handle = await session.submit(BEAR)
            last = [info async for info in handle.updates()][-1]
    assert (last.status, last.reason) == ("failed", "bad luck")


async def test_updates_of_a_handle_from_elsewhere_begin_with_a_poll() -> None:
    """Where nothing is known yet, the first update is the first poll; an unchanged poll is no update."""
    replies = (task("t", "pending"), task("t", "pending"), cut, task("t", "pending"), task("t", "completed"))
    async with RawServer(*replies) as server, Session("k", base_url=server.url, polling=EACH_SECOND) as session:
        assert [info.status.value async for info in session.task("t").updates()] == ["pending", "completed"]


async def test_updates_time_out_between_two_changes() -> None:
    """Where nothing changes for as long as `timeout`, `updates` raises, and says how long it was."""
    async with RawServer(task("t", "processing")) as server, Session("k", base_url=server.url) as session:
        updates = session.task("t").updates(timeout=30, polling=EACH_SECOND)
        assert (await anext(updates)).status == "processing"
        with pytest.raises(WaitTimeoutError, match="still processing after 30 s"):
            await anext(updates)
        assert 29 <= len(server.received) <= 33


async def test_no_time_means_one_poll() -> None:
    """`timeout=0` makes exactly one poll, whatever was known before, and the error keeps what was seen."""
    async with RawServer(task("t-1", "processing")) as server, Session("k", base_url=server.url) as session:
        handle = session.task("t-1")
        for polls in (1, 2, 3):
            with pytest.raises(WaitTimeoutError) as caught:
                await handle.wait(timeout=0)
            assert len(server.received) == polls
        assert caught.value.handle is handle
        assert caught.value.info is handle.info


async def test_no_time_is_enough_for_a_finished_task() -> None:
    """`timeout=0` right after a submit sees a task that is over by now."""
    async with RawServer(task("t-1", "pending"), task("t-1", "completed")) as server:
        async with Session("k", base_url=server.url) as session:
            handle = await session.submit(BEAR)
            assert (await handle.wait(timeout=0)).status == "completed"


async def test_wait_without_a_limit_goes_on() -> None:
    """`timeout=None` is no limit: hours later the wait still goes on, and ends with the task."""
    slowly = Polling(wait=Backoff(initial=60, maximum=60, jitter=0.0), timeout=5.0)
    async with Emulator(queue_delay=Constant(0.0), durations=Constant(3600.0)) as server:
        async with Session(server.api_key, base_url=server.url, polling=slowly) as session:
            handle = await session.submit(BEAR)
            assert (await handle.wait(timeout=None)).status == "completed"


async def test_wait_timeout_says_what_to_do() -> None:
    """The error names the task, where it stands, how long was waited and how to go on; it keeps handle and task."""
    async with RawServer(task("t-1", "Processing")) as server, Session("k", base_url=server.url) as session:
        handle = await session.submit(BEAR)
        loop = asyncio.get_running_loop()
        begun = loop.time()
        with pytest.raises(WaitTimeoutError) as caught:
            await handle.wait(timeout=20)
        assert loop.time() - begun == pytest.approx(20.0, abs=0.2)
    error = caught.value
    assert str(error) == "task t-1 still Processing after 20 s; resume with session.task('t-1').wait()"
    assert error.handle is handle
    assert error.info is handle.info
    assert isinstance(error, TimeoutError)
    assert error.safe_to_resubmit is False


async def test_wait_goes_on_after_its_timeout() -> None:
    """The handle in a `WaitTimeoutError` goes on watching the same task."""
    async with Emulator(queue_delay=Constant(1.0), durations=Constant(30.0)) as server:
        async with Session(server.api_key, base_url=server.url) as session:
            with pytest.raises(WaitTimeoutError) as caught:
                await session.run(BEAR, timeout=10)
            assert caught.value.handle is not None
            assert (await caught.value.handle).status == "completed"
        assert len(server.tasks) == 1


async def test_wait_for_a_task_that_was_never_seen_times_out_in_words() -> None:
    """Where no poll succeeded within the time, the error says so and has no task."""
    async with RawServer(answer(status=503)) as server, Session("k", base_url=server.url) as session:
        with pytest.raises(WaitTimeoutError, match="task t-1 not seen yet after 3 s") as caught:
            await session.task("t-1").wait(timeout=3)
    assert caught.value.info is None


async def test_policys_timeout_holds_where_none_is_given() -> None:
    """Without `timeout` the session's policy decides, and a policy given for this wait decides before it."""
    async with RawServer(task("t-1", "processing")) as server:
        async with Session("k", base_url=server.url, polling=Polling(timeout=50.0)) as session:
            with pytest.raises(WaitTimeoutError, match="after 50 s"):
                await session.task("t-1")
            with pytest.raises(WaitTimeoutError, match="after 7 s"):
                await session.task("t-1").wait(polling=Polling(timeout=7.0))


async def test_stalling_last_poll_is_bounded() -> None:
    """A poll that stalls at the end of the time holds the wait for five seconds more, not for its own time limit."""
    async with RawServer(task("t-1", "processing"), stall) as server, Session("k", base_url=server.url) as session:
        handle = await session.submit(BEAR)
        loop = asyncio.get_running_loop()
        begun = loop.time()
        with pytest.raises(WaitTimeoutError):
            await handle.wait(timeout=10, polling=Polling(wait=Backoff(initial=60, maximum=60)))
        assert loop.time() - begun == pytest.approx(15.0, abs=0.2)


@pytest.mark.parametrize("limit", [-1, -0.001, float("nan")])
async def test_negative_timeout_is_refused(limit: float) -> None:
    """A time limit below zero is refused before any poll."""
    async with RawServer(task()) as server, Session("k", base_url=server.url) as session:
        with pytest.raises(ValueError, match="timeout must be seconds >= 0, or None for no limit, got"):
            await session.task("t-1").wait(timeout=limit)
        assert server.received == []


REFUSAL = answer({"code": 400, "message": "no"}, status=400)


async def test_many_refusals_in_a_row_end_the_wait() -> None:
    """After `max_errors` refused polls the wait raises the last one, with a note that says how to go on."""
    policy = Polling(max_errors=4)
    async with RawServer(task("t-1"), REFUSAL) as server:
        async with Session("k", base_url=server.url, polling=policy) as session:
            with pytest.raises(InvalidRequestError) as caught:
                await session.run(BEAR)
        assert len(server.received) == 5
    assert caught.value.__notes__ == ["task t-1 may go on and be billed; resume with session.task('t-1').wait()"]


@pytest.mark.parametrize("odd", [cut, stall, answer(status=502), answer(b"<html>"), answer(b"<html>", status=403)])
async def test_outage_of_many_minutes_is_waited_out(odd: Any) -> None:
    """However many polls fail, the wait goes on while it has time, and finds the task."""
    loop = asyncio.get_running_loop()
    back = loop.time() + 600

    async def step(received: Any, writer: asyncio.StreamWriter) -> None:
        reply = task("t-1", "completed") if loop.time() > back else odd
        if callable(reply):
            await reply(received, writer)
        else:
            writer.write(reply)

    async with RawServer(task("t-1"), step) as server, Session("k", base_url=server.url) as session:
        assert (await session.run(BEAR)).status == "completed"
        assert loop.time() == pytest.approx(back + 70, abs=70)


async def test_wait_that_ends_during_an_outage_tells_of_it() -> None:
    """When the time is up while polls fail, the error tells how the last one failed, and keeps it as its cause."""
    async with RawServer(task("t-1"), answer(status=502)) as server, Session("k", base_url=server.url) as session:
        with pytest.raises(WaitTimeoutError, match=r"still pending after 100 s.*502.*resume") as caught:
            await session.run(BEAR, timeout=100)
    assert isinstance(caught.value.__cause__, ServerError)


async def test_stop_of_tenacity_s_ends_a_wait() -> None:
    """A policy's stop ends a wait without a limit as a time-out, which says after how long."""
    policy = Polling(wait=tenacity.wait_fixed(10), timeout=None, stop=tenacity.stop_after_delay(25))
    async with RawServer(task("t-1")) as server, Session("k", base_url=server.url, polling=policy) as session:
        with pytest.raises(WaitTimeoutError, match=r"after 30(\.\d+)? s"):
            await session.run(BEAR)


async def test_a_poll_that_succeeds_forgives_the_refusals() -> None:
    """Only refusals in a row count: a wait with every other poll refused goes on to the end."""
    good = task("t-1", "processing")
    replies = (task("t-1"), *([REFUSAL, good] * 10), REFUSAL, task("t-1", "completed"))
    async with RawServer(*replies) as server:
        async with Session("k", base_url=server.url, polling=Polling(max_errors=2)) as session:
            assert (await session.run(BEAR)).status == "completed"


async def test_unknown_status_is_not_the_end_and_told_once() -> None:
    """A status word nobody knows is kept as it came, is not terminal, and is told once per handle and word."""
    log = EventLog()
    words = ("dreaming", "dreaming", "waking", "dreaming", "completed")
    async with RawServer(*(task("t-1", word) for word in words)) as server:
        async with Session("k", base_url=server.url, observers=[log]) as session:
            handle = session.task("t-1")
            seen = [info.raw_status async for info in handle.updates()]
    assert seen == ["dreaming", "waking", "dreaming", "completed"]
    assert [event.raw_status for event in log.of(events.UnknownStatus)] == ["dreaming", "waking"]


async def test_refresh_polls_again_after_a_failure() -> None:
    """`refresh` repeats a poll by the retry policy, and gives a failed task like any other."""
    async with RawServer(cut, cut, answer(status=503), task("t-1", "failed")) as server:
        async with Session("k", base_url=server.url) as session:
            assert (await session.task("t-1").refresh()).status == "failed"
        assert len(server.received) == 4


async def test_cancel_tells_how_the_task_stands() -> None:
    """`cancel` asks the service, polls the task, and leaves a handle that is over."""
    async with Emulator(queue_delay=Constant(60.0)) as server:
        async with Session(server.api_key, base_url=server.url) as session:
            handle = await session.submit(BEAR)
            info = await handle.cancel()
            assert info.status == "canceled"
            assert handle.info is info
            with pytest.raises(TaskCanceledError):
                await handle
        assert [record.endpoint for record in server.requests] == ["create", "cancel", "get"]
        assert server.charges == ()


async def test_refused_cancel_is_raised() -> None:
    """A task that works already is not cancelled; the service's words come out, and the handle stays as it was."""
    async with Emulator(queue_delay=Constant(0.0), durations=Constant(60.0)) as server:
        async with Session(server.api_key, base_url=server.url) as session:
            handle = await session.submit(BEAR)
            await asyncio.sleep(1)
            with pytest.raises(InvalidRequestError, match="only a pending task can be canceled"):
                await handle.cancel()
            assert handle.info is not None
            assert handle.info.status == "pending"


async def test_cancel_is_tried_again() -> None:
    """A cancel that fails in transit is sent again by the retry policy, and told as such."""
    log = EventLog()
    async with Emulator(queue_delay=Constant(600.0)) as server:
        async with Session(server.api_key, base_url=server.url, observers=[log]) as session:
            handle = await session.submit(BEAR)
            server.faults.next("cancel", "503")
            assert (await handle.cancel()).status == "canceled"
    assert [event.action for event in log.of(events.Retrying)] == ["cancel"]


async def test_cancelled_updates_tell_that_the_task_goes_on() -> None:
    """Cancelling who iterates `updates` is cancelling a wait: the event names the task."""
    log = EventLog()
    async with RawServer(task("t-1", "processing")) as server:
        async with Session("k", base_url=server.url, observers=[log]) as session:

            async def watch() -> None:
                async for _ in session.task("t-1").updates():
                    pass

            watching = asyncio.ensure_future(watch())
            await asyncio.sleep(5)
            watching.cancel()
            with pytest.raises(asyncio.CancelledError):
                await watching
    assert [event.task_id for event in log.of(events.WaitAbandoned)] == ["t-1"]


async def test_updates_that_are_left_early_ask_no_more() -> None:
    """Leaving the loop over `updates` is the end of the polling."""
    async with RawServer(task("t-1", "processing")) as server, Session("k", base_url=server.url) as session:
        updates = session.task("t-1").updates()
        assert (await anext(updates)).status == "processing"
        await updates.aclose()  # type: ignore[attr-defined]
        await asyncio.sleep(60)
        assert len(server.received) == 1


async def test_refresh_of_a_new_task_polls_until_it_is_visible() -> None:
    """404 right after the submit means "not visible yet" to `refresh` as well; ten seconds later it is the truth."""
    unknown = answer({"code": 404, "message": "task not found"}, status=404)
    async with RawServer(task("t"), unknown, task("t", "processing"), unknown) as server:
        async with Session("k", base_url=server.url) as session:
            handle = await session.submit(BEAR)
            assert (await handle.refresh()).status == "processing"
            await asyncio.sleep(11)
            with pytest.raises(NotFoundError):
                await handle.refresh()


async def test_refresh_of_a_task_from_elsewhere_believes_a_404() -> None:
    """A handle whose task was not submitted here asks once: "no such task" is the truth, and names the task."""
    async with RawServer(answer(status=404)) as server, Session("k", base_url=server.url) as session:
        with pytest.raises(NotFoundError) as caught:
            await session.task("t").refresh()
        assert len(server.received) == 1
    assert (caught.value.task_id, caught.value.safe_to_resubmit) == ("t", False)


# What an error of a task that was paid for says.


async def last_update(handle: TaskHandle) -> Any:
    """The last of a handle's updates."""
    return [info async for info in handle.updates()][-1]


CALLS: dict[str, Callable[[TaskHandle], Awaitable[Any]]] = {
    "wait": TaskHandle.wait,
    "refresh": TaskHandle.refresh,
    "updates": last_update,
    "cancel": TaskHandle.cancel,
}


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("elsewhere", [True, False])
async def test_error_of_a_task_names_it_and_forbids_to_pay_again(call: str, *, elsewhere: bool) -> None:
    """A refusal that would be safe after a submit is not once there is a task, whichever call of a handle meets it."""
    async with RawServer(task("t-1"), answer(status=401)) as server, Session("k", base_url=server.url) as session:
        submitted = await session.submit(BEAR)
        handle = session.task("t-1") if elsewhere else submitted
        with pytest.raises(AuthenticationError) as caught:
            await CALLS[call](handle)
    assert (caught.value.task_id, caught.value.safe_to_resubmit) == ("t-1", False)


@pytest.mark.parametrize("call", CALLS)
async def test_closed_session_does_not_make_paying_again_safe(call: str) -> None:
    """Also "this session is closed" is about a task that was paid for."""
    async with RawServer(task("t-1")) as server:
        async with Session("k", base_url=server.url) as session:
            handle = await session.submit(BEAR)
        with pytest.raises(ConfigurationError) as caught:
            await CALLS[call](handle)
    assert (caught.value.task_id, caught.value.safe_to_resubmit) == ("t-1", False)


@pytest.mark.parametrize(
    "reply", [answer(status=401), answer(status=404), task("t-1", "failed"), task("t-1", "processing")]
)
async def test_error_of_a_run_names_the_task_after_its_submit_only(reply: bytes) -> None:
    """A `run` refused at its submit has no task; refused, failed or timed out later, it names it and is not safe."""
    async with RawServer(answer(status=401), task("t-1"), reply) as server:
        async with Session("k", base_url=server.url) as session:
            with pytest.raises(AuthenticationError) as refused:
                await session.run(BEAR)
            with pytest.raises(PiAPIError) as caught:
                await session.run(BEAR, timeout=20)
    assert (refused.value.task_id, refused.value.safe_to_resubmit) == (None, True)
    assert (caught.value.task_id, caught.value.safe_to_resubmit) == ("t-1", False)


UNKNOWN = answer({"code": 404, "message": "task not found"}, status=404)
UNAUTHORIZED = answer({"code": 401, "message": "invalid key"}, status=401)


@pytest.mark.parametrize(
    ("replies", "elsewhere", "kind", "is_told"),
    [
        ((task("t-1"), UNAUTHORIZED), False, AuthenticationError, True),
        ((task("t-1"), REFUSAL), False, InvalidRequestError, True),
        ((task("t-1"), UNKNOWN), False, NotFoundError, False),
        ((task("t-1"), UNKNOWN), True, NotFoundError, False),
        ((UNAUTHORIZED,), True, AuthenticationError, False),
        ((UNKNOWN,), True, NotFoundError, False),
        ((REFUSAL,), True, InvalidRequestError, False),
    ],
)
async def test_wait_that_breaks_off_tells_of_a_task_that_may_live(
    replies: tuple[bytes, ...], elsewhere: bool, kind: type[PiAPIError], is_told: bool
) -> None:
    """A note and an event name the task where one was seen to go on; where there may be none, there is no alarm."""
    log = EventLog()
    async with RawServer(*replies) as server, Session("k", base_url=server.url, observers=[log]) as session:
        with pytest.raises(kind) as caught:
            await (session.task("t-1").wait() if elsewhere else session.run(BEAR))
    notes = ["task t-1 may go on and be billed; resume with session.task('t-1').wait()"] if is_told else []
    assert getattr(caught.value, "__notes__", []) == notes
    assert [event.task_id for event in log.of(events.WaitAbandoned)] == ["t-1"] * is_told


async def test_closed_session_is_told_of_a_task_that_was_never_seen() -> None:
    """A wait that breaks off for a reason of ours says nothing of the task, which may well go on."""
    async with RawServer(task("t-1")) as server:
        async with Session("k", base_url=server.url) as session:
            handle = session.task("t-1")
        with pytest.raises(ConfigurationError, match="task t-1 may go on"):
            await handle


class _BrokenGovernor(Governor):
    """A governor with a mistake in it."""

    def turn(self, *others: Any, **more: Any) -> Any:
        """Let nobody through."""
        raise LookupError(others, more)


async def test_bug_in_a_wait_names_the_task() -> None:
    """What is not ours, such as a mistake in a governor of one's own, ends the wait with a note that names the task."""
    async with RawServer(task("t-1")) as server:
        async with Session("k", base_url=server.url, governor=_BrokenGovernor()) as session:
            with pytest.raises(LookupError) as caught:
                await session.task("t-1")
    assert len(caught.value.__notes__) == 1


@pytest.mark.parametrize("field", ["wait", "stop"])
@pytest.mark.parametrize("mistake", [ZeroDivisionError, asyncio.CancelledError])
async def test_strategy_that_breaks_loses_no_task(field: str, mistake: type[BaseException]) -> None:
    """A mistake in a strategy of one's own costs one warning; the task that was paid for comes home."""

    def broken(_state: tenacity.RetryCallState) -> Any:
        raise mistake

    polling, log = Polling(**{"wait": EACH_SECOND.wait, field: broken}), EventLog()
    async with RawServer(task("t-1"), task("t-1"), cut, task("t-1", "completed")) as server:
        options: dict[str, Any] = {"on_cancel": "cancel", "observers": [log]}
        async with Session("k", base_url=server.url, polling=polling, **options) as session:
            with pytest.warns(RuntimeWarning, match=mistake.__name__) as told:
                assert (await session.run(BEAR)).status == "completed"
    assert len(told) == 1
    assert not log.of(events.WaitAbandoned)
    assert not [received for received in server.received if received.line.startswith("DELETE")]


# A service that does not answer.


@pytest.mark.parametrize("timeout", [0, 2, 40])
async def test_updates_keep_to_their_limit_on_a_silent_service(timeout: float) -> None:
    """`updates` gives up after its `timeout`, also where not even the first poll is answered, and keeps the handle."""
    async with RawServer(stall) as server, Session("k", base_url=server.url) as session:
        handle, loop = session.task("t-1"), asyncio.get_running_loop()
        begun = loop.time()
        with pytest.raises(WaitTimeoutError, match="not seen yet") as caught:
            await anext(handle.updates(timeout=timeout))
        assert loop.time() - begun == pytest.approx(max(timeout, 5), abs=0.5)
    assert caught.value.handle is handle


@pytest.mark.parametrize(("limit", "after"), [({}, 30), ({"timeout": 2}, 2), ({"timeout": 0.5}, 0.5)])
async def test_refresh_keeps_to_its_limit_on_a_silent_service(limit: dict[str, float], after: float) -> None:
    """`refresh` gives up after 30 s, or its `timeout`; the error says whose limit that was, and keeps the handle."""
    async with RawServer(stall) as server, Session("k", base_url=server.url) as session:
        handle, loop = session.task("t-1"), asyncio.get_running_loop()
        begun = loop.time()
        with pytest.raises(WaitTimeoutError, match=r"refresh.*resume with") as caught:
            await handle.refresh(**limit)
        assert loop.time() - begun == pytest.approx(after, abs=0.3)
    assert caught.value.handle is handle
    assert (caught.value.task_id, caught.value.safe_to_resubmit) == ("t-1", False)
    assert caught.value.__cause__ is None


async def test_refresh_without_a_limit_leaves_it_to_the_others() -> None:
    """With `timeout=None` the limits of each request and of the retry policy hold, and their error comes out."""
    options: dict[str, Any] = {"timeout": aiohttp.ClientTimeout(total=3), "retry": RetryPolicy(attempts=2)}
    async with RawServer(stall) as server, Session("k", base_url=server.url, **options) as session:
        with pytest.raises(RequestTimeoutError):
            await session.task("t-1").refresh(timeout=None)


@pytest.mark.parametrize("limit", [-1, 0, 0.0, float("nan"), True, "3"])
async def test_limit_of_refresh_is_checked(limit: Any) -> None:
    """What is no number of seconds, and no time at all, in which no answer could come, is refused before a request."""
    async with RawServer(task()) as server, Session("k", base_url=server.url) as session:
        with pytest.raises((TypeError, ValueError), match=r"^timeout must be seconds > 0, or None for no limit, got "):
            await session.task("t-1").refresh(timeout=limit)
        assert server.received == []


async def test_endless_is_no_limit() -> None:
    """`math.inf` is as good as `None`."""
    async with RawServer(task("t-1", "completed")) as server, Session("k", base_url=server.url) as session:
        assert (await session.task("t-1").refresh(timeout=float("inf"))).status == "completed"
        assert (await session.task("t-1").wait(timeout=float("inf"))).status == "completed"


async def test_last_waiter_takes_the_task_along() -> None:
    """With `on_cancel="cancel"` and two waiters, one who leaves leaves the task alone; the last one cancels it."""
    log = EventLog()
    async with Emulator(queue_delay=Constant(600.0)) as server:
        async with Session(server.api_key, base_url=server.url, on_cancel="cancel", observers=[log]) as session:
            handle = await session.submit(BEAR)
            waiting = [asyncio.ensure_future(handle.wait()) for _ in range(2)]
            await asyncio.sleep(1)
            for waiter, status in zip(waiting, ("pending", "canceled"), strict=True):
                waiter.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await waiter
                assert server.tasks[handle.task_id].status == status
        assert [record.endpoint for record in server.requests].count("cancel") == 1
    assert log.of(events.WaitAbandoned) == []


async def test_waiters_count_for_their_task_by_whichever_handle() -> None:
    """One who leaves does not take along the task that another waits for by a handle of its own; the last one does."""
    log = EventLog()
    async with Emulator(queue_delay=Constant(600.0)) as server:
        async with Session(server.api_key, base_url=server.url, on_cancel="cancel", observers=[log]) as session:
            handle = await session.submit(BEAR)
            other = await session.submit(BEAR)
            handles = [handle, session.task(handle.task_id), session.task(handle.task_id), other]
            first, second, third, apart = [asyncio.ensure_future(handle.wait()) for handle in handles]
            await asyncio.sleep(1)
            first.cancel()
            await asyncio.gather(first, return_exceptions=True)
            assert server.tasks[handle.task_id].status == "pending"
            second.cancel()
            third.cancel()
            await asyncio.gather(second, third, return_exceptions=True)
            assert server.tasks[handle.task_id].status == "canceled"
            assert server.tasks[other.task_id].status == "pending"
            apart.cancel()
            await asyncio.gather(apart, return_exceptions=True)
            assert server.tasks[other.task_id].status == "canceled"
        assert [record.endpoint for record in server.requests].count("cancel") == 2
    assert log.of(events.WaitAbandoned) == []


@pytest.mark.parametrize("limit", [True, "30", b"30"])
async def test_timeout_of_the_wrong_type_is_refused(limit: Any) -> None:
    """A time limit that is no number is refused before any poll."""
    async with RawServer(task()) as server, Session("k", base_url=server.url) as session:
        with pytest.raises(TypeError, match=r"^timeout must be seconds >= 0, or None for no limit, got"):
            await session.task("t-1").wait(timeout=limit)
        assert server.received == []


class _BrokenLearned(Learned):
    """A learner with mistakes in it."""

    mistake: type[BaseException]

    def observe(self, *others: Any, **more: Any) -> None:  # noqa: ARG002 - as it is called
        """Learn nothing."""
        raise self.mistake("observe")

    def urgency(self, *others: Any, **more: Any) -> float:  # noqa: ARG002 - as it is called
        """Know nothing."""
        raise self.mistake("urgency")


@pytest.mark.parametrize("mistake", [KeyError, asyncio.CancelledError])
async def test_a_mistake_in_what_learns_costs_one_warning(mistake: type[BaseException]) -> None:
    """Whatever goes wrong while a policy learns, or says which poll matters most, the finished task is seen."""
    polling = Polling(wait=_BrokenLearned(prior=EACH_SECOND.wait))
    polling.wait.mistake = mistake  # type: ignore[attr-defined]
    governor = Governor(requests_per_second=1)  # so that polls wait for their turn, and are asked how urgent they are
    polled = [task("t-1", "processing"), task("t-2", "processing"), *[task(None, "completed")] * 4]
    async with RawServer(task("t-1"), task("t-2"), *polled) as server:
        async with Session("k", base_url=server.url, governor=governor) as session:
            handles = [await session.submit(BEAR), await session.submit(BEAR)]
            with pytest.warns(RuntimeWarning) as told:
                infos = await asyncio.gather(*(handle.wait(polling=polling) for handle in handles))
            assert [info.status for info in infos] == ["completed"] * 2
            assert await handles[0] is infos[0]
    assert len(told) == 1


PAGE = answer(b"<html>Attention Required! | Cloudflare</html>", status=403)


def enveloped(status: int) -> bytes:
    """An error in PiAPI's form."""
    return answer({"code": status, "data": None, "message": "no"}, status=status)


@pytest.mark.parametrize("then", [503, 500, 429])
async def test_an_outage_after_a_page_of_something_in_front_passes(then: int) -> None:
    """What ends a wait is a refusal, not an outage that follows what looked like one; also of a task never seen."""
    async with RawServer(PAGE, enveloped(then), task("t-1", "completed")) as server:
        async with Session("k", base_url=server.url) as session:
            assert (await session.task("t-1").wait(polling=EACH_SECOND)).status == "completed"


class _Awaitable:
    """What can be awaited, and need not be."""

    def __await__(self) -> Any:
        """Give nothing."""
        return iter(())


async def _stop(_state: object) -> bool:
    return True


@pytest.mark.parametrize("stop", [_stop, lambda _state: _Awaitable()])
async def test_a_stop_that_is_asynchronous_ends_nothing(stop: Any) -> None:
    """It would be true at the first poll; it costs one warning, and the wait continues."""
    polling = Polling(wait=EACH_SECOND.wait, stop=stop)
    async with RawServer(task("t-1", "processing"), task("t-1", "completed")) as server:
        async with Session("k", base_url=server.url) as session:
            with pytest.warns(RuntimeWarning, match="neither True nor False"):
                assert (await session.task("t-1").wait(polling=polling)).status == "completed"


async def test_seconds_that_no_clock_has_are_refused_before_anything_is_paid() -> None:
    """A number beyond a float's range is told as such; NumPy's numbers are numbers."""
    async with RawServer(task("t-1", "completed")) as server:
        async with Session("k", base_url=server.url, timeout=np.int64(30)) as session:  # type: ignore[arg-type]
            with pytest.raises(ValueError, match="timeout"):
                await session.run(BEAR, timeout=10**400)
            with pytest.raises(ValueError, match=r"^timeout must be seconds >= 0, or None for no limit, got 1000"):
                await session.find(BEAR, since=1.0, timeout=10**400)
            assert (await session.task("t-1").wait(timeout=np.float32(5))).status == "completed"  # type: ignore[arg-type]
        assert len(server.received) == 1
    with pytest.raises(ValueError, match="timeout"):
        Session("k", timeout=10**400)
