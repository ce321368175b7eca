"""What each fault of the service costs: at most one paid task, and none is lost unnoticed.

One test for each row of the matrix by which the peers were compared, most of which pay twice or lose the task.
"""

import asyncio
from email.utils import formatdate
from typing import Any

import aiohttp
import pytest
from support.raw_server import PNG, RawServer, answer, closing, cut, refusing, stall, task

from piapi_async import Img2Img, RetryPolicy, Session, SubmissionInDoubtError, TaskFailedError, events
from piapi_async._asyncio import Clock
from piapi_async.emulator import Constant, Emulator
from piapi_async.errors import (
    APIError,
    ConnectError,
    InsufficientCreditsError,
    NotFoundError,
    RateLimitError,
    RequestTimeoutError,
    ServerError,
)
from piapi_async.testing import EventLog

BEAR = Img2Img(prompt="a bear", image="https://example.com/a.jpg")
PATIENT = aiohttp.ClientTimeout(total=1)


def emulator(**options: Any) -> Emulator:
    """An emulator whose tasks wait one second and work for three."""
    return Emulator(queue_delay=Constant(1.0), durations=Constant(3.0), **options)


def asked(server: Emulator, endpoint: str) -> list[float]:
    """When an endpoint was asked, in seconds."""
    return [record.time for record in server.requests if record.endpoint == endpoint]


@pytest.mark.parametrize(
    ("fault", "options"),
    [
        ("cut-after-accept", {}),
        ("503-after-accept", {}),
        ("500-after-accept", {}),
        ("502-after-accept", {}),
        ("504-after-accept", {}),
        ("522-after-accept", {}),
        ("html", {}),
        ("empty", {}),
        ("slow-headers", {"seconds": 5}),
        ("stall", {}),
    ],
)
async def test_accepted_submit_without_an_answer_is_in_doubt(fault: str, options: dict[str, Any]) -> None:
    """A task was made and its answer lost: one task exists, the caller is told what is in doubt, so is an observer."""
    log = EventLog()
    async with (
        emulator() as server,
        Session(server.api_key, base_url=server.url, timeout=PATIENT, observers=[log]) as session,
    ):
        server.faults.next("create", fault, **options)
        before = Clock().now()
        with pytest.raises(SubmissionInDoubtError) as caught:
            await session.run(BEAR)
        assert len(server.tasks) == 1
        assert len(asked(server, "create")) == 1
        assert asked(server, "get") == []
        assert before <= caught.value.since <= Clock().now()
    assert caught.value.request is BEAR
    assert caught.value.safe_to_resubmit is False
    assert [event.error for event in log.of(events.SubmissionInDoubt)] == [caught.value]
    assert log.of(events.Retrying) == []


@pytest.mark.parametrize(("fault", "options"), [("garbled", {}), ("truncated", {}), ("slow-body", {"seconds": 5})])
async def test_accepted_submit_whose_answer_breaks_off_keeps_its_task(fault: str, options: dict[str, Any]) -> None:
    """Where the answer breaks off, or breaks, after the task's id, the task is known, and is waited for."""
    log = EventLog()
    async with (
        emulator() as server,
        Session(server.api_key, base_url=server.url, timeout=PATIENT, observers=[log]) as session,
    ):
        server.faults.next("create", fault, **options)
        info = await session.run(BEAR)
        assert [info.task_id] == list(server.tasks)
        assert len(asked(server, "create")) == 1
    assert (info.status, len(info.images)) == ("completed", 1)
    assert log.of(events.SubmissionInDoubt) == []


@pytest.mark.parametrize("fault", ["cut-before-accept", "500", "502", "503", "504", "522"])
async def test_submit_that_may_have_been_accepted_is_not_sent_again(fault: str) -> None:
    """A submit the service did not accept, but might have for all the client can see, is in doubt as well."""
    async with emulator() as server, Session(server.api_key, base_url=server.url) as session:
        server.faults.next("create", fault)
        with pytest.raises(SubmissionInDoubtError):
            await session.submit(BEAR)
        assert len(server.tasks) == 0
        assert len(asked(server, "create")) == 1


async def test_doubt_keeps_what_the_answer_was() -> None:
    """The error under a doubt is the cause, so that nothing about the lost answer is hidden."""
    async with emulator() as server, Session(server.api_key, base_url=server.url, timeout=PATIENT) as session:
        for fault, kind in (("503-after-accept", ServerError), ("stall", RequestTimeoutError)):
            server.faults.next("create", fault)
            with pytest.raises(SubmissionInDoubtError) as caught:
                await session.submit(BEAR)
            assert isinstance(caught.value.__cause__, kind)
            assert str(caught.value.__cause__) in str(caught.value)


async def test_408_leaves_a_submit_in_doubt() -> None:
    """A 408 is an answer about time, not about acceptance: the submit is not sent again."""
    async with RawServer(answer({"code": 408, "message": "slow"}, status=408)) as server:
        async with Session("k", base_url=server.url) as session:
            with pytest.raises(SubmissionInDoubtError) as caught:
                await session.submit(BEAR)
        assert len(server.received) == 1
    assert isinstance(caught.value.__cause__, RequestTimeoutError)


async def test_submit_is_sent_again_after_the_seconds_of_a_429() -> None:
    """A 429 with `Retry-After: 2` is no acceptance: the submit goes out again two seconds later, one task is made."""
    log = EventLog()
    async with emulator() as server, Session(server.api_key, base_url=server.url, observers=[log]) as session:
        server.faults.next("create", "429", retry_after=2)
        info = await session.run(BEAR)
        first, second = asked(server, "create")
        assert second - first == pytest.approx(2.0, abs=0.1)
        assert [info.task_id] == list(server.tasks)
    (retrying,) = log.of(events.Retrying)
    assert (retrying.action, retrying.attempt) == ("submit", 1)
    assert retrying.wait == pytest.approx(2.0, abs=0.01)
    assert isinstance(retrying.error, RateLimitError)


async def test_submit_is_sent_again_at_the_date_of_a_429() -> None:
    """A `Retry-After` may be an HTTP date; it counts from the server's own `Date`, however wrong that is."""
    dates = {"Date": formatdate(1e9, usegmt=True), "Retry-After": formatdate(1e9 + 2, usegmt=True)}
    async with RawServer(answer(status=429, headers=dates), task()) as server, Session("k", base_url=server.url) as s:
        loop = asyncio.get_running_loop()
        begun = loop.time()
        await s.submit(BEAR)
        assert loop.time() - begun == pytest.approx(2.0, abs=0.1)
        assert len(server.received) == 2


async def test_date_of_the_emulators_429_is_kept() -> None:
    """The emulator's own date form is understood too; dates are whole seconds, so up to one is lost."""
    async with emulator() as server, Session(server.api_key, base_url=server.url) as session:
        server.faults.next("create", "429", retry_after="date", seconds=4.0)
        await session.submit(BEAR)
        first, second = asked(server, "create")
        assert 2.9 <= second - first <= 5.1
        assert len(server.tasks) == 1


async def test_endless_429_ends_as_what_it_is() -> None:
    """After all attempts the caller holds the `RateLimitError`, which is safe to submit again, and not a doubt."""
    async with (
        emulator() as server,
        Session(server.api_key, base_url=server.url, retry=RetryPolicy(attempts=3)) as session,
    ):
        server.faults.next("create", "429", times=3, retry_after=1)
        with pytest.raises(RateLimitError) as caught:
            await session.submit(BEAR)
        assert len(asked(server, "create")) == 3
        assert len(server.tasks) == 0
    assert caught.value.safe_to_resubmit is True
    assert caught.value.retry_after == 1.0


async def test_refused_connection_is_tried_again_and_then_told() -> None:
    """Nobody listens: the submit is tried as often as the policy says, then `ConnectError` says nothing was sent."""
    log = EventLog()
    async with (
        refusing() as url,
        Session("k", base_url=url, retry=RetryPolicy(attempts=3), observers=[log]) as session,
    ):
        with pytest.raises(ConnectError, match="nothing was sent") as caught:
            await session.submit(BEAR)
    assert caught.value.safe_to_resubmit is True
    assert [event.attempt for event in log.of(events.Retrying)] == [1, 2]
    assert log.of(events.SubmissionInDoubt) == []


class NoSuchHost(aiohttp.abc.AbstractResolver):
    """A resolver that never finds anybody, and counts how often it was asked."""

    def __init__(self) -> None:
        self.asked = 0

    async def resolve(self, host: str, port: int = 0, family: int = 0) -> list[aiohttp.abc.ResolveResult]:
        """Fail."""
        self.asked += 1
        raise OSError(None, f"no such host {host}:{port} {family}")

    async def close(self) -> None:
        """Nothing to close."""


async def test_unknown_host_is_tried_again_and_then_told() -> None:
    """A name that does not resolve is a refused connection: tried again, then `ConnectError` with the host's name."""
    resolver = NoSuchHost()
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(resolver=resolver)) as http:
        async with Session("k", base_url="http://piapi.example", http=http, retry=RetryPolicy(attempts=3)) as session:
            with pytest.raises(ConnectError, match=r"piapi\.example"):
                await session.submit(BEAR)
    assert resolver.asked == 3


async def test_failed_tls_handshake_is_tried_again_and_then_told() -> None:
    """Where TLS does not come about, not a byte of the request was sent: the submit may be tried again."""
    async with RawServer(closing(b"no TLS here")) as server:
        url = server.url.replace("http:", "https:")
        async with Session("k", base_url=url, retry=RetryPolicy(attempts=2)) as session:
            with pytest.raises(ConnectError, match="nothing was sent"):
                await session.submit(BEAR)
        assert server.received == []


async def test_connection_that_does_not_come_about_in_time_was_not_sent() -> None:
    """A handshake that stalls ends with the connect time limit, as `ConnectError`: nothing was sent."""
    limit = aiohttp.ClientTimeout(total=30, sock_connect=2)
    async with RawServer(stall) as server:
        url = server.url.replace("http:", "https:")
        loop = asyncio.get_running_loop()
        begun = loop.time()
        async with Session("k", base_url=url, timeout=limit, retry=RetryPolicy(attempts=1)) as session:
            with pytest.raises(ConnectError, match="nothing was sent"):
                await session.submit(BEAR)
        assert 2.0 <= loop.time() - begun <= 3.1


async def test_submit_goes_through_when_the_server_comes_up() -> None:
    """A connection refused at first does not lose the submit: a later attempt makes the one task."""
    async with refusing() as url:
        port = int(url.rpartition(":")[2])
    async with Session("emulator-key", base_url=url) as session:
        submitting = asyncio.ensure_future(session.submit(BEAR))
        await asyncio.sleep(0.1)
        async with emulator(port=port) as server:
            handle = await submitting
            assert list(server.tasks) == [handle.task_id]


@pytest.mark.parametrize("status", [400, 401, 402, 403, 404, 409, 413, 422])
async def test_refused_submit_is_raised_at_once(status: int) -> None:
    """Another 4xx is a clear no: raised after one request, safe to submit again once mended."""
    async with RawServer(answer({"code": status, "message": "no"}, status=status)) as server:
        async with Session("k", base_url=server.url) as session:
            with pytest.raises(APIError) as caught:
                await session.submit(BEAR)
        assert len(server.received) == 1
    assert caught.value.status == status
    assert caught.value.safe_to_resubmit is True


@pytest.mark.parametrize("transport", ["status", "code", "error", "description"])
async def test_refusal_is_understood_in_every_dialect(transport: str) -> None:
    """However PiAPI words "not enough credits", it is that error, after one request and without a task."""
    async with emulator(credits=1, error_transport=transport) as server:
        async with Session(server.api_key, base_url=server.url) as session:
            with pytest.raises(InsufficientCreditsError) as caught:
                await session.submit(BEAR)
        assert len(asked(server, "create")) == 1
        assert len(server.tasks) == 0
    assert caught.value.safe_to_resubmit is True


async def test_maintenance_inside_a_200_was_not_accepted() -> None:
    """A 200 that says in PiAPI's words that it made no task is a no: raised, not in doubt, not sent again."""
    async with RawServer(answer({"code": 500, "message": "Service is under maintenance"})) as server:
        async with Session("k", base_url=server.url) as session:
            with pytest.raises(ServerError, match="maintenance") as caught:
                await session.submit(BEAR)
        assert len(server.received) == 1
    assert caught.value.safe_to_resubmit is True


@pytest.mark.parametrize(
    ("fault", "options"),
    [
        ("429", {"retry_after": 2}),
        ("429", {"retry_after": None}),
        ("429", {"retry_after": "date"}),
        ("500", {}),
        ("502", {}),
        ("503", {}),
        ("504", {}),
        ("522", {}),
        ("cut-before-accept", {}),
        ("cut-after-accept", {}),
        ("html", {}),
        ("empty", {}),
        ("garbled", {}),
        ("truncated", {}),
        ("404", {}),
        ("slow-headers", {"seconds": 5}),
        ("slow-body", {"seconds": 5}),
        ("stall", {}),
    ],
)
async def test_spoiled_poll_does_not_harm_the_task(fault: str, options: dict[str, Any]) -> None:
    """One bad poll a paid task is told to observers and repeated; the wait ends with the completed task."""
    log = EventLog()
    async with (
        emulator() as server,
        Session(server.api_key, base_url=server.url, timeout=PATIENT, observers=[log]) as session,
    ):
        server.faults.next("get", fault, times=2, **options)
        info = await session.run(BEAR)
        assert info.status == "completed"
        assert len(info.images) == 1
        assert len(asked(server, "create")) == 1
        assert len(asked(server, "get")) >= 3
    assert log.of(events.PollFailed)
    assert {event.task_id for event in log.of(events.PollFailed)} == {info.task_id}


async def test_poll_waits_as_long_as_a_429_asks() -> None:
    """After a 429 with `Retry-After: 20` no poll comes before its time, however soon the backoff wants one."""
    async with emulator() as server, Session(server.api_key, base_url=server.url) as session:
        server.faults.next("get", "429", retry_after=20)
        await session.run(BEAR)
        first, second = asked(server, "get")
        assert second - first == pytest.approx(20.0, abs=0.2)


async def test_task_unknown_long_after_its_submit_is_an_error() -> None:
    """404 means "not visible yet" for ten seconds after the submit; later, told ten times, it is the truth."""
    async with RawServer(task(), answer({"code": 404, "message": "task not found"}, status=404)) as server:
        async with Session("k", base_url=server.url) as session:
            loop = asyncio.get_running_loop()
            begun = loop.time()
            with pytest.raises(NotFoundError) as caught:
                await session.run(BEAR)
            assert 10.0 <= loop.time() - begun < 200.0
    assert caught.value.task_id == "t-1"
    assert not hasattr(caught.value, "__notes__")  # no task is left behind


async def test_task_from_elsewhere_that_is_unknown_is_an_error_at_once() -> None:
    """A task that was not submitted here has no time to become visible: one poll, one error."""
    async with emulator() as server, Session(server.api_key, base_url=server.url) as session:
        with pytest.raises(NotFoundError):
            await session.task("0000").wait()
        assert len(asked(server, "get")) == 1


@pytest.mark.parametrize("where", ["error", "logs"])
async def test_failed_task_tells_its_reason(where: str) -> None:
    """A task that fails raises `TaskFailedError` with the service's reason, also when that stands in the logs only."""
    async with emulator() as server, Session(server.api_key, base_url=server.url) as session:
        server.faults.next("create", "task-fails", reason="the source picture is gone", where=where)
        with pytest.raises(TaskFailedError, match="the source picture is gone") as caught:
            await session.run(BEAR)
        assert caught.value.info is not None
        assert caught.value.info.status == "failed"
        assert [caught.value.info.task_id] == list(server.tasks)
    assert caught.value.safe_to_resubmit is False


async def _cancel_during_wait(server: Emulator, session: Session, *, after: float = 0.5) -> tuple[str, float]:
    """Submit, cancel the wait, and tell the task's id and how long the cancelled wait took to end."""
    handle = await session.submit(BEAR)
    waiting = asyncio.ensure_future(handle.wait())
    await asyncio.sleep(after)
    loop = asyncio.get_running_loop()
    begun = loop.time()
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert list(server.tasks) == [handle.task_id]
    return handle.task_id, loop.time() - begun


async def test_detach_leaves_the_task_alone() -> None:
    """With `on_cancel="detach"` a cancelled wait sends nothing, and says that the task goes on."""
    log = EventLog()
    async with emulator() as server, Session(server.api_key, base_url=server.url, observers=[log]) as session:
        task_id, took = await _cancel_during_wait(server, session)
        assert asked(server, "cancel") == []
        assert took < 0.5
        await asyncio.sleep(10)
        assert server.tasks[task_id].status == "completed"
    assert [event.task_id for event in log.of(events.WaitAbandoned)] == [task_id]


async def test_cancel_cancels_the_task() -> None:
    """With `on_cancel="cancel"` a cancelled wait sends one DELETE, and the task costs nothing."""
    log = EventLog()
    async with (
        emulator() as server,
        Session(server.api_key, base_url=server.url, on_cancel="cancel", observers=[log]) as session,
    ):
        task_id, took = await _cancel_during_wait(server, session)
        assert len(asked(server, "cancel")) == 1
        assert server.tasks[task_id].status == "canceled"
        assert server.charges == ()
        assert took < 0.5
    assert log.of(events.WaitAbandoned) == []


async def test_refused_cancel_is_told() -> None:
    """A task that runs already cannot be cancelled: one DELETE, then an event says that it goes on."""
    log = EventLog()
    async with (
        emulator() as server,
        Session(server.api_key, base_url=server.url, on_cancel="cancel", observers=[log]) as session,
    ):
        task_id, _ = await _cancel_during_wait(server, session, after=2.0)
        assert len(asked(server, "cancel")) == 1
        assert server.tasks[task_id].status == "processing"
    assert [event.task_id for event in log.of(events.WaitAbandoned)] == [task_id]


async def test_cancel_of_a_stalling_server_is_bounded() -> None:
    """A server that does not answer the DELETE holds the cancelled wait for ten seconds, no longer, and it is told."""
    log = EventLog()
    async with (
        emulator() as server,
        Session(server.api_key, base_url=server.url, on_cancel="cancel", observers=[log]) as session,
    ):
        server.faults.next("cancel", "stall", times=9)
        task_id, took = await _cancel_during_wait(server, session)
        assert took == pytest.approx(10.0, abs=0.5)
        assert len(asked(server, "cancel")) == 1
    assert [event.task_id for event in log.of(events.WaitAbandoned)] == [task_id]


@pytest.mark.parametrize("stalls", [True, False])
async def test_second_cancel_does_not_break_off_the_first(*, stalls: bool) -> None:
    """Cancelled again while it cancels the task, the wait still sends one DELETE and still ends within its bound."""
    async with emulator() as server, Session(server.api_key, base_url=server.url, on_cancel="cancel") as session:
        server.faults.next("cancel", "stall" if stalls else "slow-headers", **({} if stalls else {"seconds": 3.0}))
        waiting = asyncio.ensure_future(session.run(BEAR))
        await asyncio.sleep(0.5)
        loop = asyncio.get_running_loop()
        begun = loop.time()
        for _ in range(3):
            waiting.cancel()
            await asyncio.sleep(0.7)
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert loop.time() - begun == pytest.approx(10.0 if stalls else 3.0, abs=0.5)
        assert len(asked(server, "cancel")) == 1
        assert [view.status for view in server.tasks.values()] == ["canceled"]


async def test_lost_answer_of_a_poll_alone_is_repeated() -> None:
    """`get_task` repeats a poll that was cut, and gives the task."""
    async with RawServer(cut, cut, task("t-7", "processing")) as server, Session("k", base_url=server.url) as session:
        assert (await session.get_task("t-7")).status == "processing"


async def test_download_after_faults_gives_the_picture(tmp_path: Any) -> None:
    """A result host that fails at first is asked again, and the picture arrives whole."""
    replies = (answer(status=503), answer(PNG[:20], headers={"Content-Length": "67"}), answer(PNG))
    async with RawServer(answer(status=429), closing(replies[1]), replies[0], replies[2]) as server:
        async with Session("k", base_url=server.url) as session:
            path = await session.download(f"{server.url}/a.png", tmp_path)
    assert path.read_bytes() == PNG
