"""Traps of asyncio, aiohttp and tenacity that were found by experiment, each with the test that keeps us out of it."""

import asyncio
import json
import pickle
import subprocess
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from support.raw_server import (
    PNG,
    RawServer,
    answer,
    closing,
    cut,
    holding,
    refusing,
    stall,
    stalling_after,
    strangers,
    task,
)

from piapi_async import Backoff, Governor, Image, Img2Img, Polling, RetryPolicy, Session, WaitTimeoutError, events
from piapi_async.emulator import Constant, Emulator
from piapi_async.errors import ConnectionLostError, PiAPIError, RateLimitError, RequestTimeoutError
from piapi_async.testing import EventLog

BEAR = Img2Img(prompt="a bear", image="https://example.com/a.jpg")


async def cancel(doing: Coroutine[Any, Any, Any], *, after: float) -> float:
    """Run something for a while, cancel it, see it end by that; how long the end took."""
    running = asyncio.ensure_future(doing)
    await asyncio.sleep(after)
    assert not running.done()
    loop = asyncio.get_running_loop()
    begun = loop.time()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    return loop.time() - begun


async def quiet(server: RawServer) -> None:
    """See that nothing of ours still runs, and that no connection is in use."""
    await asyncio.sleep(0.01)
    assert strangers() == []
    assert server.busy == set()


# Trap 1: one cancel must end what it meets, whatever is awaited at that moment.


async def test_cancel_while_submit_waits_for_its_place() -> None:
    """Cancelled before its turn, a `run` sends nothing, tells nothing, and leaves its place to others."""
    log, governor = EventLog(), Governor(max_in_flight=1)
    async with RawServer(task(), task(status="completed")) as server:
        async with Session("k", base_url=server.url, governor=governor, observers=[log]) as session:
            async with governor.slot():
                assert await cancel(session.run(BEAR), after=1) < 0.5
                await quiet(server)
            assert server.received == []
            assert log == []
            assert (await session.run(BEAR)).status == "completed"


async def test_cancel_while_submit_waits_for_a_connection() -> None:
    """Cancelled while a hundred others are under way, a submit was not sent, and the places are free afterwards."""
    log, go = EventLog(), asyncio.Event()
    async with RawServer(holding(task(status="completed"), until=go)) as server:
        async with Session("k", base_url=server.url, observers=[log]) as session:
            others = [asyncio.ensure_future(session.get_task("t-1")) for _ in range(100)]
            assert await cancel(session.submit(BEAR), after=1) < 0.5
            assert len(server.received) == 100
            assert log.of(events.SubmissionInDoubt) == []
            go.set()
            await asyncio.gather(*others)
            assert (await session.submit(BEAR)).task_id == "t-1"


async def test_cancel_while_connecting() -> None:
    """Cancelled during the TLS handshake, a submit ends at once, was not sent, and leaves no connection."""
    log = EventLog()
    async with RawServer(stall) as server:
        async with Session("k", base_url=server.url.replace("http:", "https:"), observers=[log]) as session:
            assert await cancel(session.submit(BEAR), after=1) < 0.5
            await quiet(server)
    assert server.received == []
    assert log == []


async def test_cancel_while_the_gate_is_closed() -> None:
    """Cancelled while a 429 makes everybody wait, a submit ends at once and is not sent."""
    log = EventLog()
    async with RawServer(answer(status=429, headers={"Retry-After": "30"}), task()) as server:
        async with Session("k", base_url=server.url, observers=[log]) as session:
            assert await cancel(session.submit(BEAR), after=5) < 0.5
            assert len(server.received) == 1
    assert [type(event) for event in log] == [events.Paused, events.Retrying]


async def test_cancel_between_two_attempts() -> None:
    """Cancelled in the pause before a further attempt, a submit ends at once, and nothing was sent."""
    log = EventLog()
    retry = RetryPolicy(wait_initial=20, wait_max=20)
    async with refusing() as url, Session("k", base_url=url, retry=retry, observers=[log]) as session:
        assert await cancel(session.submit(BEAR), after=5) < 0.5
    assert [type(event) for event in log] == [events.Retrying]
    assert strangers() == []


async def test_cancel_while_the_post_is_under_way() -> None:
    """Cancelled while the answer is on its way, a submit waits for it and tells which task goes on; it still ends."""
    log, go = EventLog(), asyncio.Event()
    async with RawServer(holding(task("paid"), until=go)) as server:
        async with Session("k", base_url=server.url, observers=[log]) as session:
            asyncio.get_running_loop().call_later(4, go.set)
            assert await cancel(session.submit(BEAR), after=1) == pytest.approx(3.0, abs=0.2)
        await quiet(server)
        assert len(server.received) == 1
    assert [event.info.task_id for event in log.of(events.Submitted)] == ["paid"]
    assert [event.task_id for event in log.of(events.WaitAbandoned)] == ["paid"]


async def test_cancelled_post_is_cancelled_at_the_service() -> None:
    """With `on_cancel="cancel"` the task that a cancelled submit turns out to have made is cancelled there."""
    log = EventLog()
    async with Emulator(queue_delay=Constant(60.0)) as server:
        async with Session(server.api_key, base_url=server.url, on_cancel="cancel", observers=[log]) as session:
            server.faults.next("create", "slow-headers", seconds=3.0)
            await cancel(session.run(BEAR), after=1)
            assert [view.status for view in server.tasks.values()] == ["canceled"]
            assert [record.endpoint for record in server.requests] == ["create", "cancel"]
    assert log.of(events.WaitAbandoned) == []


async def test_cancelled_post_without_an_answer_is_in_doubt() -> None:
    """If the answer does not come within ten seconds of the cancel, an event says that a task may exist."""
    log = EventLog()
    async with RawServer(stall) as server:
        async with Session("k", base_url=server.url, observers=[log]) as session:
            assert 9.0 <= await cancel(session.submit(BEAR), after=1) <= 10.2
            await quiet(server)
    (told,) = log.of(events.SubmissionInDoubt)
    assert "may be billed" in str(told)
    assert log.of(events.Submitted) == []


@pytest.mark.parametrize("reply", [cut, answer(status=503), answer(b"<html>")])
async def test_cancelled_post_with_a_lost_answer_is_in_doubt(reply: Any) -> None:
    """A cancelled submit whose answer is then lost is told as in doubt, as one that was not cancelled."""
    log, go = EventLog(), asyncio.Event()

    async def late(received: Any, writer: asyncio.StreamWriter) -> None:
        await go.wait()
        await (cut(received, writer) if callable(reply) else holding(reply, until=go)(received, writer))

    async with RawServer(late) as server, Session("k", base_url=server.url, observers=[log]) as session:
        asyncio.get_running_loop().call_later(2, go.set)
        await cancel(session.submit(BEAR), after=1)
    assert len(log.of(events.SubmissionInDoubt)) == 1


async def test_cancelled_post_that_was_refused_leaves_nothing_to_tell() -> None:
    """A cancelled submit that the service then refuses made no task, and nobody is frightened by an event."""
    log, go = EventLog(), asyncio.Event()
    async with RawServer(holding(answer({"code": 402, "message": "no"}, status=402), until=go)) as server:
        async with Session("k", base_url=server.url, observers=[log]) as session:
            asyncio.get_running_loop().call_later(2, go.set)
            await cancel(session.submit(BEAR), after=1)
    assert log == []


async def test_cancel_storm_during_a_post() -> None:
    """Cancelled again at every turn of the event loop, a stalled submit still ends as a cancel, and tells its doubt."""
    log = EventLog()
    loop = asyncio.get_running_loop()
    async with RawServer(stall) as server, Session("k", base_url=server.url, observers=[log]) as session:
        submitting = asyncio.ensure_future(session.submit(BEAR))
        await asyncio.sleep(1)
        submitting.cancel()
        begun = loop.time()
        await asyncio.sleep(9.999)
        while not submitting.done() and loop.time() < begun + 11:
            submitting.cancel()
            await asyncio.sleep(0)
        with pytest.raises(asyncio.CancelledError):
            await submitting
        await quiet(server)
    assert len(log.of(events.SubmissionInDoubt)) == 1


async def test_cancel_storm_during_an_abandoned_wait() -> None:
    """The same while the wait cancels its task at a server that stalls: it ends as a cancel, and says what goes on."""
    log = EventLog()
    loop = asyncio.get_running_loop()
    async with RawServer(task(), stall) as server:
        async with Session("k", base_url=server.url, on_cancel="cancel", observers=[log]) as session:
            waiting = asyncio.ensure_future(session.run(BEAR))
            await asyncio.sleep(0.5)
            waiting.cancel()
            begun = loop.time()
            await asyncio.sleep(9.999)
            while not waiting.done() and loop.time() < begun + 11:
                waiting.cancel()
                await asyncio.sleep(0)
            with pytest.raises(asyncio.CancelledError):
                await waiting
            await asyncio.sleep(0.01)
            assert strangers() == []
    assert [event.task_id for event in log.of(events.WaitAbandoned)] == ["t-1"]


async def test_cancel_between_two_polls() -> None:
    """Cancelled in the pause between two polls, a wait ends at once and says that the task goes on."""
    log = EventLog()
    polling = Polling(wait=Backoff(initial=20, maximum=20))
    async with RawServer(task("paid")) as server:
        async with Session("k", base_url=server.url, polling=polling, observers=[log]) as session:
            assert await cancel(session.run(BEAR), after=5) < 0.5
            assert strangers() == []
            assert len(server.received) == 1
    assert [event.task_id for event in log.of(events.WaitAbandoned)] == ["paid"]


async def test_cancel_during_a_poll() -> None:
    """Cancelled while a poll is under way, a wait ends at once, the connection is gone, and the task is told of."""
    log = EventLog()
    async with RawServer(stall) as server, Session("k", base_url=server.url, observers=[log]) as session:
        assert await cancel(session.task("paid").wait(), after=5) < 0.5
        await quiet(server)
    assert [event.task_id for event in log.of(events.WaitAbandoned)] == ["paid"]


async def test_cancelled_run_gives_its_place_back() -> None:
    """Cancelled while it waits for its task, a `run` leaves its place in flight to the next."""
    replies = (task("one"), task("two"), task("two", "completed"))
    async with RawServer(*replies) as server, Session("k", base_url=server.url, max_in_flight=1) as session:
        await cancel(session.run(BEAR), after=0.5)
        assert (await session.run(BEAR)).task_id == "two"


@pytest.mark.parametrize("part", [b"", PNG[:30]])
async def test_cancel_during_a_download(tmp_path: Path, part: bytes) -> None:
    """Cancelled before or amid its bytes, a download leaves neither a file nor a connection."""
    head = answer(PNG)[: -len(PNG)]
    async with RawServer(stalling_after(head + part) if part else stall) as server:
        async with Session("k", base_url=server.url) as session:
            assert await cancel(session.download(f"{server.url}/a.png", tmp_path), after=1) < 0.5
            await quiet(server)
    assert list(tmp_path.iterdir()) == []


async def test_cancel_during_a_save(tmp_path: Path) -> None:
    """Cancelled at the second picture, a save keeps the first one whole and leaves nothing of the second."""
    async with RawServer(closing(answer(PNG)), stall) as server, Session("k", base_url=server.url) as session:
        urls = [f"{server.url}/{number}.png" for number in (1, 2)]
        async with RawServer(task("t", "completed", output={"image_urls": urls})) as api:
            async with Session("k", base_url=api.url) as other:
                info = await other.get_task("t")
        assert await cancel(session.save(info, tmp_path), after=1) < 0.5
        await quiet(server)
    assert [path.name for path in tmp_path.iterdir()] == ["t-1.png"]
    assert (tmp_path / "t-1.png").read_bytes() == PNG


async def test_cancelled_downloads_give_their_places_back(tmp_path: Path) -> None:
    """Any number of cancelled downloads leaves room for the next."""
    async with RawServer(stall) as server, Session("k", base_url=server.url) as session:
        doing = [asyncio.ensure_future(session.download(f"{server.url}/{n}.png", tmp_path)) for n in range(20)]
        await asyncio.sleep(1)
        assert len(server.received) == 16
        for one in doing:
            one.cancel()
        await asyncio.gather(*doing, return_exceptions=True)
        server.replies = [answer(PNG)]
        assert (await session.download(f"{server.url}/a.png", tmp_path)).read_bytes() == PNG


@pytest.mark.parametrize("point", range(12))
async def test_cancel_at_any_turn_of_the_loop_loses_nothing(point: int) -> None:
    """Wherever a cancel falls between the first byte and the answer: a task that exists is always told of."""
    log = EventLog()
    async with RawServer(task("paid")) as server, Session("k", base_url=server.url, observers=[log]) as session:
        submitting = asyncio.ensure_future(session.submit(BEAR))
        for _ in range(point):
            await asyncio.sleep(0)
        submitting.cancel()
        done = await asyncio.gather(submitting, return_exceptions=True)
    told = {type(event) for event in log}
    if isinstance(done[0], asyncio.CancelledError) and server.received:
        assert told in ({events.Submitted, events.WaitAbandoned}, {events.SubmissionInDoubt})
    else:
        assert told == ({events.Submitted} if server.received else set())


async def test_task_cancelled_from_within_the_loop_leaves_a_doubt() -> None:
    """Even when every task of the loop is cancelled at once, as at Ctrl-C, an event tells of the submit under way."""
    log = EventLog()
    async with RawServer(stall) as server, Session("k", base_url=server.url, observers=[log]) as session:
        submitting = asyncio.ensure_future(session.submit(BEAR))
        await asyncio.sleep(1)
        for one in strangers():
            one.cancel()
        with pytest.raises(asyncio.CancelledError):
            await submitting
    assert len(log.of(events.SubmissionInDoubt)) == 1


async def test_timeout_of_the_caller_is_a_timeout() -> None:
    """`asyncio.timeout` round a submit or a wait ends it with `TimeoutError`: the cancel was not swallowed."""
    async with RawServer(stall) as server, Session("k", base_url=server.url, on_cancel="cancel") as session:
        for doing in (session.submit(BEAR), session.task("t").wait(), session.get_task("t")):
            with pytest.raises(TimeoutError) as caught:
                async with asyncio.timeout(1):
                    await doing
            assert not isinstance(caught.value, PiAPIError)


# Trap 2: one policy, many tasks.


async def test_one_policy_serves_many_calls_at_once() -> None:
    """Twenty calls that share a session, and each fail once, all get their own answer."""

    def reply() -> Callable[..., Coroutine[Any, Any, None]]:
        seen: set[str] = set()

        async def step(received: Any, writer: asyncio.StreamWriter) -> None:
            task_id = received.line.rpartition("/")[2]
            again = task_id in seen
            seen.add(task_id)
            writer.write(task(task_id, "processing") if again else answer(status=500))

        return step

    async with RawServer(reply()) as server, Session("k", base_url=server.url) as session:
        infos = await asyncio.gather(*(session.get_task(f"t-{n}") for n in range(20)))
        assert [info.task_id for info in infos] == [f"t-{n}" for n in range(20)]
        assert len(server.received) == 40


# Trap 3: time limits follow the loop's clock, not the machine's.


async def test_retry_timeout_follows_the_loops_clock() -> None:
    """A policy of 30 s ends after at most 30 s of the loop's time, with what the last attempt met."""
    retry = RetryPolicy(attempts=1000, timeout=30.0, wait_initial=7, wait_max=7, wait_jitter=0)
    async with RawServer(answer(status=500)) as server, Session("k", base_url=server.url, retry=retry) as session:
        loop = asyncio.get_running_loop()
        begun = loop.time()
        with pytest.raises(PiAPIError, match="500"):
            await session.get_task("t")
        assert loop.time() - begun == pytest.approx(28.0, abs=0.5)
        assert len(server.received) == 5


# Trap 4: a wait that runs out is our error, not tenacity's.


async def test_wait_that_runs_out_is_our_error() -> None:
    """A task that never ends gives `WaitTimeoutError` with a clean context, not tenacity's `RetryError`."""
    async with RawServer(task(status="processing")) as server, Session("k", base_url=server.url) as session:
        with pytest.raises(WaitTimeoutError) as caught:
            await session.run(BEAR)
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None


async def test_poll_that_fails_for_good_is_our_error() -> None:
    """After all attempts the last one's own error comes out, with aiohttp's as its cause and no other round it."""
    async with RawServer(cut) as server, Session("k", base_url=server.url) as session:
        with pytest.raises(ConnectionLostError) as caught:
            await session.get_task("t")
    assert isinstance(caught.value.__cause__, aiohttp.ClientError)


# Trap 5: a request that is sent again is sent whole.


@pytest.mark.parametrize("size", [10, 3_000_000])
async def test_retried_submit_sends_the_whole_body_again(size: int) -> None:
    """Each attempt of a submit carries the same body, a large local picture included."""
    picture = PNG + bytes(size)
    limited = answer(status=429, headers={"Retry-After": "0"})
    async with RawServer(limited, limited, task()) as server, Session("k", base_url=server.url) as session:
        await session.submit(Img2Img(prompt="a bear", image=picture))
        first, second, third = (received.body for received in server.received)
    assert first == second == third
    assert len(first) > len(picture)
    assert json.loads(first)["input"]["prompt"] == "a bear"


# Trap 7: aiohttp itself repeats a GET once when a connection that was kept open is cut.


async def test_get_repeated_by_aiohttp_is_one_poll() -> None:
    """The second GET, which aiohttp sends by itself, is no second poll: the service sees it, observers do not."""
    log = EventLog()
    polled = task("t", "processing")
    async with RawServer(polled, cut, polled) as server, Session("k", base_url=server.url, observers=[log]) as session:
        await session.get_task("t")
        await session.get_task("t")
        assert len(server.received) == 3
    assert [type(event) for event in log] == [events.Polled, events.Polled]


async def test_post_is_never_repeated_by_aiohttp() -> None:
    """A POST on a kept connection that is then cut is sent once, and is in doubt."""
    log = EventLog()
    async with RawServer(task("t", "processing"), cut) as server:
        async with Session("k", base_url=server.url, observers=[log]) as session:
            await session.get_task("t")
            with pytest.raises(PiAPIError):
                await session.submit(BEAR)
            assert [received.line for received in server.received] == ["GET /api/v1/task/t", "POST /api/v1/task"]
    assert len(log.of(events.SubmissionInDoubt)) == 1


# Trap 8: some of aiohttp's time-outs are no `ClientError`.


@pytest.mark.parametrize("limit", [aiohttp.ClientTimeout(total=3), aiohttp.ClientTimeout(total=None, sock_read=3)])
async def test_every_time_limit_is_our_error(limit: aiohttp.ClientTimeout) -> None:
    """A total limit and a limit between two reads both end a request as `RequestTimeoutError`, a `TimeoutError`."""
    retry = RetryPolicy(attempts=1)
    async with RawServer(stall) as server, Session("k", base_url=server.url, timeout=limit, retry=retry) as session:
        with pytest.raises(RequestTimeoutError, match=r"127\.0\.0\.1") as caught:
            await session.get_task("t")
    assert isinstance(caught.value, TimeoutError)


async def test_time_limit_holds_for_the_body_too() -> None:
    """An answer that stops in the middle of its body ends by the same limit, as the same error."""
    retry, limit = RetryPolicy(attempts=1), aiohttp.ClientTimeout(total=3)
    async with RawServer(stalling_after(task("t")[:-5])) as server:
        async with Session("k", base_url=server.url, timeout=limit, retry=retry) as session:
            with pytest.raises(RequestTimeoutError):
                await session.get_task("t")


# Trap 9: errors travel between processes.


async def test_errors_survive_pickling() -> None:
    """What real failures raise can be pickled, and keeps its words and its facts."""
    caught: list[PiAPIError] = []
    replies = (
        cut,
        answer(b"<html>"),
        answer(status=429),
        answer(status=503),
        task("t", "failed"),
        task("t", "pending"),
    )
    async with RawServer(*replies) as server:
        async with Session("k", base_url=server.url, retry=RetryPolicy(attempts=1)) as session:
            for _ in range(4):
                with pytest.raises(PiAPIError) as one:
                    await session.submit(BEAR)
                caught.append(one.value)
            for limit in (5, 0):
                with pytest.raises(PiAPIError) as one:
                    await session.task("t").wait(timeout=limit)
                caught.append(one.value)
    names = ["SubmissionInDoubtError"] * 2 + ["RateLimitError", "SubmissionInDoubtError"]
    assert [type(error).__name__ for error in caught] == [*names, "TaskFailedError", "WaitTimeoutError"]
    for error in caught:
        twin = pickle.loads(pickle.dumps(error))
        assert (type(twin), str(twin), twin.safe_to_resubmit) == (type(error), str(error), error.safe_to_resubmit)
        assert twin.__dict__.keys() == error.__dict__.keys()
    assert isinstance(caught[2], RateLimitError)


# Traps 11 and 12: virtual time, real sockets, and threads.


async def test_an_hour_passes_in_an_instant() -> None:
    """In virtual time a task of an hour is waited for through real sockets, within the test's patience."""
    async with Emulator(queue_delay=Constant(0.0), durations=Constant(3600.0)) as server:
        polling = Polling(wait=Backoff(maximum=900), timeout=None)
        async with Session(server.api_key, base_url=server.url, polling=polling) as session:
            info = await session.run(BEAR)
    assert info.started_at is not None
    assert info.ended_at is not None
    assert (info.ended_at - info.started_at).total_seconds() == pytest.approx(3600)


async def test_time_does_not_jump_over_work_in_threads(tmp_path: Path) -> None:
    """A large picture is encoded, sent, fetched and written under a time limit of seconds, without a false alarm."""
    big = tmp_path / "big.png"
    big.write_bytes(PNG + bytes(8 * 2**20))
    async with RawServer(task(), answer(big.read_bytes())) as server:
        async with Session("k", base_url=server.url, timeout=aiohttp.ClientTimeout(total=5)) as session:
            async with asyncio.timeout(5):
                await session.submit(Img2Img(prompt="a bear", image=big))
                path = await session.download(Image(f"{server.url}/a.png"), tmp_path / "out")
    assert path.stat().st_size == big.stat().st_size


# Trap 14: what an import costs.


def test_import_loads_only_what_it_needs() -> None:
    """`import piapi_async` loads no web server, no command line, no Pillow, no database."""
    code = "import sys, piapi_async; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    unwanted = {"aiohttp.web", "argparse", "click", "rich", "PIL", "sqlite3", "opentelemetry", "ray", "pytest"}
    assert unwanted & set(loaded) == set()
    assert not [name for name in loaded if name.startswith("piapi_async.emulator")]


async def test_cancel_in_the_middle_of_an_answer_passes_at_once() -> None:
    """A free request whose answer has begun is broken off by a cancel."""
    async with RawServer(stalling_after(task("t-1")[:-10])) as server:
        async with Session("k", base_url=server.url) as session:
            assert await cancel(session.get_task("t-1"), after=1) == pytest.approx(0, abs=0.2)
