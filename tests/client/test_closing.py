"""Leaving a session: nothing that was paid for is lost, whoever cancels what, and what was not sent is not sent."""

import asyncio
import random
import threading
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import aiohttp
import pytest
from support.raw_server import RawServer, Received, Reply, answer, holding, in_thread, stall, task

from piapi_async import Backoff, Img2Img, Polling, Session, TaskHandle, events
from piapi_async._asyncio import Lasting, to_the_end
from piapi_async._client.api import Journal
from piapi_async._client.body import Content
from piapi_async.errors import ConfigurationError, InvalidRequestError, SubmissionInDoubtError
from piapi_async.testing import EventLog

BEAR = Img2Img(prompt="a bear", image="https://example.com/a.jpg")
BAD = Img2Img(prompt="bad", image="https://example.com/a.jpg")
SLOWLY = Polling(wait=Backoff(initial=5.0, maximum=5.0, jitter=0.0))
Program = Callable[[Session, "Service"], Awaitable[None]]

LATER = 0.2
"""Seconds that the service takes to answer a submit, from when it may."""


class Service:
    """Accepts tasks at once, answers later, and keeps which; bad requests it refuses when `first` tasks were made.

    Attributes:
        made: The tasks.

        canceled: Those that it was asked to cancel.

        go: Set when it may answer the submits.
    """

    def __init__(self, *, later: float = LATER, first: int = 0) -> None:
        self.later = later
        self.first = first
        self.made: list[str] = []
        self.canceled: list[str] = []
        self.go = threading.Event()
        self.keep: asyncio.Future[None] | None = None

    async def has_made(self, number: int) -> None:
        """Wait, in any loop, until there are so many tasks."""
        while len(self.made) < number:  # noqa: ASYNC110 - the other side may be in another thread
            await asyncio.sleep(0.01)

    async def __call__(self, received: Received, writer: asyncio.StreamWriter) -> None:
        """One answer."""
        method, path = received.line.split(" ")
        reply = task(path.rpartition("/")[2], "processing")
        if method == "POST" and b'"bad"' in received.body:
            await self.has_made(self.first)
            reply = answer({"code": 400, "message": "bad prompt"}, status=400)
        elif method == "POST":
            self.made.append(f"t-{len(self.made) + 1}")
            reply = task(self.made[-1])
            while self.later and not self.go.is_set():  # noqa: ASYNC110 - the same
                await asyncio.sleep(0.01)
            await asyncio.sleep(self.later)
        elif method == "DELETE":
            self.canceled.append(path.rpartition("/")[2])
        writer.write(reply)
        await writer.drain()


def ids(log: EventLog, kind: type[events.Submitted] | type[events.WaitAbandoned]) -> list[str]:
    """The tasks that events of one kind name."""
    found = log.of(kind)
    return sorted(one.info.task_id if isinstance(one, events.Submitted) else one.task_id for one in found)


@pytest.mark.parametrize("on_cancel", ["detach", "cancel"])
@pytest.mark.parametrize("call", ["run", "submit"])
async def test_one_of_a_gather_fails_while_the_others_are_being_submitted(
    call: str, on_cancel: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """The POSTs under way are waited for, their tasks named or cancelled, and none is in doubt."""
    service, log = Service(first=5), EventLog()
    service.go.set()
    async with RawServer(service) as server:
        with pytest.raises(InvalidRequestError):
            async with Session("k", base_url=server.url, on_cancel=on_cancel, observers=[log]) as session:
                await asyncio.gather(*(getattr(session, call)(one) for one in [BEAR] * 5 + [BAD]))
        assert len(service.made) == 5
        assert ids(log, events.Submitted) == sorted(service.made)
        assert not log.of(events.SubmissionInDoubt)
        left, canceled = (service.made, []) if on_cancel == "detach" else ([], service.made)
        assert ids(log, events.WaitAbandoned) == sorted(left)
        assert sorted(service.canceled) == sorted(canceled)
        assert all(name in caplog.text for name in left)


MEETINGS = ["cancel, leave", "leave, cancel", "cancel, leave, cancel", "end, cancel", "leave, end, cancel"]


@pytest.mark.parametrize("on_cancel", ["detach", "cancel"])
@pytest.mark.parametrize("meeting", MEETINGS)
async def test_a_cancelled_submit_whose_session_is_left_is_let_go_once(meeting: str, on_cancel: Any) -> None:
    """Whichever is first, and whether the answer is in between: its task is named, or cancelled, exactly once."""
    service, log = Service(), EventLog()
    steps = meeting.split(", ")

    def end(event: events.Event) -> None:
        if "end" in steps and isinstance(event, events.Submitted):
            submitting.cancel()  # the answer is read, and nobody has the handle yet

    async with RawServer(service) as server:
        session = Session("k", base_url=server.url, on_cancel=on_cancel, observers=[log, end])
        submitting = asyncio.ensure_future(session.submit(BEAR))
        leaving: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        await service.has_made(1)
        for step in steps if "end" not in steps else steps[:-2]:
            if step == "leave":
                leaving = asyncio.ensure_future(session.aclose())
            else:
                submitting.cancel()
            await asyncio.sleep(0.1)
        service.go.set()
        with pytest.raises(asyncio.CancelledError):
            await submitting
        if "leave" in steps:
            await leaving
        await session.aclose()
        assert ids(log, events.Submitted) == ["t-1"]
        assert ids(log, events.WaitAbandoned) == (["t-1"] if on_cancel == "detach" else [])
        assert service.canceled == ([] if on_cancel == "detach" else ["t-1"])
        kinds = [type(event) for event in log if isinstance(event, events.Submitted | events.WaitAbandoned)]
        assert kinds[0] is events.Submitted


async def test_a_submit_whose_session_is_left_gives_its_handle() -> None:
    """Whoever still waits for a submit that had begun gets the handle, and can go on in the session opened again."""
    service = Service()
    async with RawServer(service) as server:
        session = Session("k", base_url=server.url)
        async with session:
            submitting = asyncio.ensure_future(session.submit(BEAR))
            await service.has_made(1)
            service.go.set()
        handle = await submitting
        assert handle.task_id == "t-1"
        async with session:
            assert not (await handle.refresh()).is_terminal


@pytest.mark.parametrize("way", ["gather", "group"])
async def test_waits_of_a_left_session_end_and_their_tasks_are_cancelled_if_asked_for(way: str) -> None:
    """With `on_cancel="cancel"` the others' tasks are cancelled at the service, for `gather` as for a task group."""
    service = Service(later=0.0)

    async def fails() -> None:
        await asyncio.sleep(2)
        raise InvalidRequestError("one of them")

    async with RawServer(service) as server:
        with suppress(InvalidRequestError, BaseExceptionGroup):
            async with Session("k", base_url=server.url, polling=SLOWLY, on_cancel="cancel") as session:
                if way == "gather":
                    await asyncio.gather(*(session.run(BEAR) for _ in range(3)), fails())
                else:
                    async with asyncio.TaskGroup() as group:
                        for one in (session.run(BEAR), session.run(BEAR), session.run(BEAR), fails()):
                            group.create_task(one)
        assert sorted(service.canceled) == ["t-1", "t-2", "t-3"]


@pytest.mark.parametrize("call", ["wait", "updates"])
async def test_a_wait_whose_session_is_closed_names_its_task(call: str) -> None:
    """It ends at once with an error that names the task and does not make paying again safe; nothing more is sent."""
    log = EventLog()
    async with RawServer(Service(later=0.0)) as server:
        session = Session("k", base_url=server.url, polling=SLOWLY, observers=[log])
        handle = await session.submit(BEAR)

        async def updates() -> None:
            async for _ in handle.updates():
                pass

        waiting = asyncio.ensure_future(handle.wait() if call == "wait" else updates())
        await asyncio.sleep(1)
        await session.aclose()
        with pytest.raises(ConfigurationError, match=r"closed.*session\.task\('t-1'\)") as caught:
            await waiting
        assert (caught.value.task_id, caught.value.safe_to_resubmit) == ("t-1", False)
        assert ids(log, events.WaitAbandoned) == ["t-1"]
        assert [received.line for received in server.received] == ["POST /api/v1/task"]


async def test_several_waits_for_one_task_all_end() -> None:
    """Each of them gets the error; the task is named once."""
    log = EventLog()
    async with RawServer(Service(later=0.0)) as server:
        session = Session("k", base_url=server.url, polling=SLOWLY, observers=[log])
        handle = await session.submit(BEAR)
        waiting = [asyncio.ensure_future(handle.wait()) for _ in range(3)]
        await asyncio.sleep(1)
        await session.aclose()
        ends = await asyncio.gather(*waiting, return_exceptions=True)
        assert [type(end) for end in ends] == [ConfigurationError] * 3
        assert ids(log, events.WaitAbandoned) == ["t-1"]


async def test_a_wait_that_is_cancelled_as_its_session_closes_is_cancelled() -> None:
    """A cancel by somebody else is not taken for the session's."""
    async with RawServer(Service(later=0.0)) as server:
        session = Session("k", base_url=server.url, polling=SLOWLY)
        waiting = asyncio.ensure_future(session.run(BEAR))
        await asyncio.sleep(1)
        closing = asyncio.ensure_future(session.aclose())
        asyncio.get_running_loop().call_soon(waiting.cancel)
        await closing
        with pytest.raises(asyncio.CancelledError):
            await waiting


class Held(Journal):
    """A journal that keeps each submit back until it is let go."""

    def __init__(self) -> None:
        self.go = asyncio.Event()
        self.told: list[str] = []

    async def sending(self, body: Content) -> None:  # noqa: ARG002 - the signature is the package's
        """Wait."""
        self.told.append("sending")
        await self.go.wait()

    async def refused(self) -> None:
        """Note it."""
        self.told.append("refused")


async def test_a_submit_that_has_not_begun_is_not_sent() -> None:
    """One that is still being noted when the session closes ends at once, is safe to submit again, and says why."""
    log = EventLog()
    async with RawServer(task()) as server:
        session, journal = Session("k", base_url=server.url, observers=[log]), Held()
        submitting = asyncio.ensure_future(session.submit(BEAR, journal=journal))
        await asyncio.sleep(1)
        await session.aclose()
        with pytest.raises(ConfigurationError, match="this session is closed") as caught:
            await submitting
        assert caught.value.safe_to_resubmit
        assert journal.told == ["sending", "refused"]
        assert server.received == log == []


async def test_a_submit_that_waits_for_a_connection_is_not_sent() -> None:
    """One that has no connection yet when the session closes is not sent, though it had gone as far as aiohttp."""
    connector = aiohttp.TCPConnector(limit=1)
    async with RawServer(stall) as server, aiohttp.ClientSession(connector=connector) as http:
        busy = asyncio.ensure_future(http.get(server.url))
        session = Session("k", base_url=server.url, http=http)
        submitting = asyncio.ensure_future(session.submit(BEAR))
        await asyncio.sleep(1)
        await session.aclose()
        with pytest.raises(ConfigurationError, match="this session is closed"):
            await submitting
        busy.cancel()
        assert len(server.received) == 1


@pytest.mark.parametrize("turns", range(12))
async def test_a_submit_is_sent_whole_or_not_at_all_at_any_moment(turns: int) -> None:
    """However far a submit has come when its session closes, it is a task with its handle, or was not sent."""
    service = Service()
    service.go.set()
    async with RawServer(service) as server:
        session = Session("k", base_url=server.url)
        await session.get_task("t")
        submitting = asyncio.ensure_future(session.submit(BEAR))
        for _ in range(turns):
            await asyncio.sleep(0)
        await session.aclose()
        (end,) = await asyncio.gather(submitting, return_exceptions=True)
        if isinstance(end, ConfigurationError):
            assert end.safe_to_resubmit
        else:
            assert end.task_id == "t-1"
        assert len(server.received) == 1 + (not isinstance(end, ConfigurationError))


async def test_leaving_takes_ten_seconds_at_most() -> None:
    """A service that does not answer is waited for, for 10 s; then the submit is in doubt, and told as such."""
    log, loop = EventLog(), asyncio.get_running_loop()
    async with RawServer(stall) as server:
        session = Session("k", base_url=server.url, on_cancel="cancel", observers=[log])
        submitting = asyncio.ensure_future(session.submit(BEAR))
        await asyncio.sleep(1)
        begun = loop.time()
        await session.aclose()
        assert 9 <= loop.time() - begun <= 10.5
        with pytest.raises(SubmissionInDoubtError) as caught:
            await submitting
        assert [event.error for event in log.of(events.SubmissionInDoubt)] == [caught.value]


class Endless(Journal):
    """A journal that never comes to an end with what it was told."""

    async def accepted(self, info: object) -> None:  # noqa: ARG002 - the same
        """Note nothing, for ever."""
        await asyncio.Event().wait()


async def test_leaving_does_not_wait_for_a_journal_that_hangs() -> None:
    """What keeps a submit after its answer is given up as well, after 10 s."""
    loop = asyncio.get_running_loop()
    async with RawServer(task()) as server:
        session = Session("k", base_url=server.url)
        submitting = asyncio.ensure_future(session.submit(BEAR, journal=Endless()))
        await asyncio.sleep(1)
        begun = loop.time()
        await session.aclose()
        assert loop.time() - begun == pytest.approx(10, abs=1.5)
        assert (await submitting).task_id == "t-1"  # what the service said counts, not the record of it


async def test_leaving_holds_out_against_a_cancel() -> None:
    """`aclose` that is cancelled, twice, waits for the POST all the same, and is cancelled then."""
    service = Service()
    async with RawServer(service) as server:
        session = Session("k", base_url=server.url)
        submitting = asyncio.ensure_future(session.submit(BEAR))
        await service.has_made(1)
        closing = asyncio.ensure_future(session.aclose())
        for _ in range(2):
            await asyncio.sleep(LATER)
            closing.cancel()
        service.go.set()
        with pytest.raises(asyncio.CancelledError):
            await closing
        assert (await submitting).task_id == "t-1"
        with pytest.raises(ConfigurationError, match="this session is closed"):
            await session.account()


async def everything(session: Session, service: Service) -> None:
    """Three runs in tasks of their own, in the middle of which the program ends by an error."""
    runs = [asyncio.ensure_future(session.run(BEAR)) for _ in range(3)]
    await service.has_made(3)
    assert not any(run.done() for run in runs)


async def in_a_group(session: Session, service: Service) -> None:
    """The same in a task group."""
    async with asyncio.TaskGroup() as group:
        for _ in range(3):
            group.create_task(session.run(BEAR))
        await service.has_made(3)
        service.go.set()
        raise KeyError("a bug")


async def in_another_task(session: Session, service: Service) -> None:
    """The session is left in a task that `asyncio.run` cancels, as it cancels all that is in it."""

    async def use() -> None:
        async with session:
            await asyncio.gather(*(session.run(BEAR) for _ in range(3)))

    service.keep = asyncio.ensure_future(use())
    await service.has_made(3)


async def while_leaving(session: Session, service: Service) -> None:
    """`asyncio.run` ends while another task is in the middle of leaving the session."""

    async def use() -> None:
        async with session:
            await asyncio.gather(*(session.run(BEAR) for _ in range(3)), session.run(BAD))

    service.keep = asyncio.ensure_future(use())
    await service.has_made(3)
    with pytest.raises(ConfigurationError, match="closed"):  # noqa: PT012 - until it is
        while True:
            with suppress(InvalidRequestError):
                await session.submit(BAD)


async def cancelled_twice(session: Session, service: Service) -> None:
    """Everything is cancelled, in any order and twice, before `asyncio.run` does so once more."""
    runs = [asyncio.ensure_future(session.run(BEAR)) for _ in range(3)]
    await service.has_made(3)
    for _ in range(2):
        others = list(asyncio.all_tasks() - {asyncio.current_task()})
        random.shuffle(others)
        for one in others:
            one.cancel()
        await asyncio.sleep(0.05)
    assert not any(run.done() for run in runs)


@pytest.mark.parametrize("on_cancel", ["detach", "cancel"])
@pytest.mark.parametrize("program", [everything, in_a_group, in_another_task, while_leaving, cancelled_twice])
def test_the_end_of_asyncio_run_loses_no_task(
    program: Callable[[Session, Service], Awaitable[None]], on_cancel: Any
) -> None:
    """Whatever is cancelled in whichever order: each task that was made is named, or cancelled, and none in doubt."""
    service, log = Service(first=3), EventLog()
    with in_thread(RawServer(service)) as server:
        session = Session("k", base_url=server.url, on_cancel=on_cancel, observers=[log])

        async def main() -> None:
            await program(session, service)
            service.go.set()
            raise KeyError("a bug")

        with pytest.raises((KeyError, BaseExceptionGroup)):
            asyncio.run(main())
        asyncio.run(session.aclose())
    assert len(service.made) == 3
    assert ids(log, events.Submitted) == sorted(service.made)
    assert not log.of(events.SubmissionInDoubt)
    gone = set(service.canceled) if on_cancel == "cancel" else set(ids(log, events.WaitAbandoned))
    assert gone == set(service.made)


async def test_a_cancelling_that_is_cancelled_is_asked_for_again() -> None:
    """A DELETE that is broken off by whoever cancels all tasks is sent again, in the time that is left."""
    go, sent = asyncio.Event(), asyncio.Event()

    async def first(_received: Received, _writer: asyncio.StreamWriter) -> None:
        sent.set()
        await asyncio.Event().wait()

    replies: list[Reply] = [task("t-1"), first, task("t-1", "cancelled")]
    async with RawServer(*replies) as server:
        async with Session("k", base_url=server.url, polling=SLOWLY, on_cancel="cancel") as session:
            running = asyncio.ensure_future(session.run(BEAR))
            await asyncio.sleep(1)
            ours = asyncio.all_tasks()
            running.cancel()
            await sent.wait()
            for one in asyncio.all_tasks() - ours:
                if one.get_name() != "raw server":
                    one.cancel()
            go.set()
            with pytest.raises(asyncio.CancelledError):
                await running
        assert [received.line.split()[0] for received in server.received] == ["POST", "DELETE", "DELETE"]


async def test_a_task_that_lasts_is_cancelled_where_it_does_not_hold() -> None:
    """Before it must not be broken off, and when somebody insists, it is a task like any other."""
    holds = False
    task_ = Lasting(asyncio.sleep(5, "done"), holds=lambda: holds, seconds=1.0)
    await asyncio.sleep(0)
    holds = True
    assert not task_.cancel()
    holds = False
    assert task_.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task_
    with pytest.raises(asyncio.CancelledError):
        await to_the_end(task_)


async def test_an_answer_that_comes_while_the_session_closes_is_not_late() -> None:
    """An answer 8 s after the session was left is taken."""
    go, log = asyncio.Event(), EventLog()
    async with RawServer(holding(task("t-1"), until=go)) as server:
        session = Session("k", base_url=server.url, observers=[log])
        submitting = asyncio.ensure_future(session.submit(BEAR))
        await asyncio.sleep(1)
        asyncio.get_running_loop().call_later(8, go.set)
        await session.aclose()
        assert (await submitting).task_id == "t-1"
        assert ids(log, events.WaitAbandoned) == ["t-1"]


async def test_a_session_that_is_entered_twice_is_closed_by_the_last_who_leaves() -> None:
    """What is under way in another `async with` of the same session is not touched."""
    service = Service(later=2.0)
    service.go.set()
    async with RawServer(service) as server:
        session = Session("k", base_url=server.url)

        async def use(*, after: float) -> str:
            await asyncio.sleep(after)
            async with session:
                return (await session.submit(BEAR)).task_id

        assert sorted(await asyncio.gather(use(after=0), use(after=1))) == ["t-1", "t-2"]
        with pytest.raises(ConfigurationError, match="closed"):
            await session.submit(BEAR)


async def test_a_session_that_is_entered_while_it_is_being_left_stays_open() -> None:
    """Whoever comes while submits under way are waited for keeps the connections; nothing is in doubt."""
    service = Service(later=2.0)
    service.go.set()
    async with RawServer(service) as server:
        session = Session("k", base_url=server.url)

        async def left_in_the_middle() -> "asyncio.Task[TaskHandle]":
            async with session:
                submitting = asyncio.create_task(session.submit(BEAR))
                await asyncio.sleep(1)
                return submitting

        leaving = asyncio.create_task(left_in_the_middle())
        await asyncio.sleep(1.5)
        async with session:
            assert (await session.submit(BEAR)).task_id == "t-2"
        assert (await (await leaving)).task_id == "t-1"
