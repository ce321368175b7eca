"""The public help for tests: virtual time, with real sockets and threads, the event log, a ledger in memory."""

import asyncio
import threading
import time
from pathlib import Path

import pytest

from piapi_async import Batch, Session, TaskInfo, TaskStatus, Txt2Img
from piapi_async.batch import Succeeded
from piapi_async.emulator import Emulator
from piapi_async.events import Detached, Event, Looked, Saved, Submitted
from piapi_async.testing import EventLog, MemoryLedger, VirtualTimeLoop, run_in_virtual_time

INFO = TaskInfo(task_id="3f2a", status=TaskStatus.PENDING)


def now() -> float:
    """The loop's time."""
    return asyncio.get_running_loop().time()


async def test_async_tests_run_in_virtual_time() -> None:
    """The suite's async tests are on the loop under test, unless they are marked `real_time`."""
    assert isinstance(asyncio.get_running_loop(), VirtualTimeLoop)


@pytest.mark.real_time
async def test_a_mark_gives_real_time() -> None:
    """`real_time` puts a test on an ordinary loop, where time passes as outside."""
    assert not isinstance(asyncio.get_running_loop(), VirtualTimeLoop)
    begun = time.monotonic()
    await asyncio.sleep(0.02)
    assert time.monotonic() - begun > 0.015


def test_an_hour_passes_in_no_time() -> None:
    """A sleep of an hour, and of a month, takes milliseconds outside and its whole time inside."""

    async def sleep() -> float:
        begun = now()
        await asyncio.sleep(3600)
        await asyncio.sleep(30 * 86400)
        return now() - begun

    begun = time.monotonic()
    assert run_in_virtual_time(sleep()) == pytest.approx(30 * 86400 + 3600, abs=1)
    assert time.monotonic() - begun < 0.5


async def test_timers_go_off_in_order() -> None:
    """Sleepers wake in the order of their times, each at its own, and not before."""
    woken: list[float] = []
    begun = now()

    async def sleep(seconds: float) -> None:
        await asyncio.sleep(seconds)
        woken.append(seconds)
        assert seconds <= now() - begun < seconds + 0.5

    await asyncio.gather(*map(sleep, (50, 1, 3600, 0.2, 7, 49.9)))
    assert woken == [0.2, 1, 7, 49.9, 50, 3600]


async def test_time_outs_go_off_in_virtual_time() -> None:
    """`asyncio.timeout` counts the loop's time."""
    begun = now()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(600):
            await asyncio.Event().wait()
    assert now() - begun == pytest.approx(600, abs=1)


async def test_real_sockets_work() -> None:
    """Client and server in the same loop talk over TCP, with long pauses on both sides; no time-out goes off early."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            await asyncio.sleep(600)
            writer.write(line * 1000)
            await writer.drain()
        writer.close()

    async def talk(port: int, number: int) -> bool:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        right = True
        for turn in range(5):
            line = f"{number} {turn}\n".encode()
            writer.write(line)
            async with asyncio.timeout(601):
                right &= await reader.readexactly(1000 * len(line)) == line * 1000
            await asyncio.sleep(3600)
        writer.close()
        await writer.wait_closed()
        return right

    begun = now()
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        assert all(await asyncio.gather(*(talk(port, number) for number in range(20))))
    assert now() - begun == pytest.approx(5 * 4200, rel=0.01)


async def test_no_jump_while_a_thread_works() -> None:
    """A time-out of five seconds does not go off over a thread's work of a moment."""
    async with asyncio.timeout(5):
        assert await asyncio.to_thread(threading.Event().wait, 0.05) is False


async def test_no_jump_while_one_of_several_threads_works() -> None:
    """As long as any thread is at work time does not jump; afterwards it does again."""
    begun, release = now(), threading.Event()
    asyncio.get_running_loop().call_later(3600, release.set)
    waiting = asyncio.gather(asyncio.to_thread(time.time), asyncio.to_thread(release.wait))
    await asyncio.to_thread(time.sleep, 0.05)
    assert now() - begun < 1
    release.set()
    assert (await waiting)[1] is True
    await asyncio.sleep(3600)
    assert now() - begun >= 3600


async def test_a_thread_that_fails_is_done() -> None:
    """Time jumps again after work in a thread that ended with an error."""
    with pytest.raises(ZeroDivisionError):
        await asyncio.to_thread(lambda: 1 / 0)
    begun = time.monotonic()
    await asyncio.sleep(3600)
    assert time.monotonic() - begun < 0.5


async def test_looking_up_a_name_holds_time() -> None:
    """The lookup of a host, which the loop does in a thread, is not overtaken by a time-out."""
    async with asyncio.timeout(1):
        assert await asyncio.get_running_loop().getaddrinfo("127.0.0.1", 80)


async def test_a_wake_up_from_outside_arrives() -> None:
    """A loop without timers waits for other threads, as any loop does."""
    loop, event = asyncio.get_running_loop(), asyncio.Event()
    threading.Timer(0.05, loop.call_soon_threadsafe, [event.set]).start()
    await event.wait()


def test_running_gives_the_result_and_the_errors() -> None:
    """`run_in_virtual_time` returns what the coroutine does, raises what it raises, and may be used again."""

    async def give(value: object) -> object:
        return value

    async def fail() -> None:
        raise ValueError("x")

    assert run_in_virtual_time(give(5)) == 5
    with pytest.raises(ValueError, match="x"):
        run_in_virtual_time(fail())
    assert run_in_virtual_time(give(6)) == 6


def test_an_event_log_keeps_what_it_is_told() -> None:
    """The log is a list of events in order, and `of` picks those of one kind."""
    log = EventLog()
    events: list[Event] = [Submitted(info=INFO), Looked(info=INFO), Detached(task_id="3f2a"), Looked(info=INFO)]
    for event in events:
        log(event)
    assert log == events
    assert log.of(Looked) == [events[1], events[3]]
    assert log.of(Saved) == []


def test_time_does_not_jump_while_threads_are_joined() -> None:
    """The end of a run waits for a thread that nobody awaits any more, and no timer goes off early meanwhile."""
    started = threading.Event()

    def work() -> None:
        started.set()
        time.sleep(0.05)

    async def leave() -> float:
        loop = asyncio.get_running_loop()
        working = loop.run_in_executor(None, work)
        assert started.wait(5)
        working.cancel()
        timer = loop.call_later(3600, lambda: None)
        await asyncio.sleep(0)
        begun = now()
        await loop.shutdown_default_executor()
        timer.cancel()
        return now() - begun

    assert 0.02 < run_in_virtual_time(leave()) < 5


async def test_a_ledger_in_memory_is_the_real_one_without_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Batches share it as they share a file; nothing comes to be on disk, and closing forgets."""
    monkeypatch.chdir(tmp_path)
    async with Emulator() as emulator, Session(emulator.api_key, base_url=emulator.url) as session:
        async with MemoryLedger() as ledger:
            for _ in range(2):
                outcomes = await Batch(session, ledger=ledger).gather([Txt2Img(prompt="a bear")] * 2)
                assert [type(outcome) for outcome in outcomes] == [Succeeded, Succeeded]
        emulator.check.exactly(2, "create")
        assert sum((await ledger.counts()).values()) == 0
        await ledger.aclose()
    assert list(tmp_path.iterdir()) == []
