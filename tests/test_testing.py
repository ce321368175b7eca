"""The public help for tests: virtual time, with real sockets and threads, the event log, a ledger in memory."""

import asyncio
import http.server
import math
import queue
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import aiohttp
import pytest

from piapi_async import Batch, Session, TaskInfo, TaskStatus, Txt2Img
from piapi_async.batch import Succeeded
from piapi_async.emulator import Emulator
from piapi_async.events import Event, Polled, Saved, Submitted, WaitAbandoned
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
    assert run_in_virtual_time(sleep()) == pytest.approx(30 * 86400 + 3600, abs=1e-6)
    assert time.monotonic() - begun < 30


async def test_timers_go_off_in_order() -> None:
    """Sleepers wake in the order of their times, each at its own, and not before."""
    woken: list[float] = []
    begun = now()

    async def sleep(seconds: float) -> None:
        await asyncio.sleep(seconds)
        woken.append(seconds)
        assert seconds <= now() - begun < seconds + 1e-6

    await asyncio.gather(*map(sleep, (50, 1, 3600, 0.2, 7, 49.9)))
    assert woken == [0.2, 1, 7, 49.9, 50, 3600]


async def test_time_outs_go_off_in_virtual_time() -> None:
    """`asyncio.timeout` counts the loop's time."""
    begun = now()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(600):
            await asyncio.Event().wait()
    assert now() - begun == pytest.approx(600, abs=1e-6)


async def test_work_takes_no_time() -> None:
    """However long code takes on the machine, the loop's clock does not move; nor does its time of day."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualTimeLoop)
    begun, day = loop.time(), loop.wall_time()
    time.sleep(0.05)  # noqa: ASYNC251 - stands for work
    await asyncio.sleep(1)
    assert loop.time() - begun == pytest.approx(1, abs=1e-6)
    assert loop.wall_time() - day == pytest.approx(1, abs=1e-5)
    assert abs(day - time.time()) < 3600


async def test_timers_for_the_same_moment_go_off_as_they_were_set() -> None:
    """A thousand timers of one delay go off in the order in which they were set, and in one moment."""
    woken: list[int] = []
    loop, begun = asyncio.get_running_loop(), now()
    for number in range(1000):
        loop.call_later(5, woken.append, number)
    await asyncio.sleep(5)
    assert woken == list(range(1000))
    assert now() - begun == pytest.approx(5, abs=1e-5)


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
    assert now() - begun == pytest.approx(5 * 4200, abs=1e-3)


def of_a_job() -> Awaitable[object]:
    """The end of a job in an executor."""
    return asyncio.to_thread(time.sleep, 0.05)


def of_a_pool() -> Awaitable[object]:
    """The end of a job in an executor that the loop knows nothing of."""
    with ThreadPoolExecutor() as pool:
        return asyncio.wrap_future(pool.submit(time.sleep, 0.05))


def of_a_thread() -> Awaitable[object]:
    """A call from a thread."""
    loop, event = asyncio.get_running_loop(), asyncio.Event()
    threading.Timer(0.05, loop.call_soon_threadsafe, [event.set]).start()
    return event.wait()


async def of_a_queue() -> None:
    """A call from a thread that is given work by a queue, and waits for more."""
    loop, event = asyncio.get_running_loop(), asyncio.Event()
    work = queue.Queue[float | None]()

    def do() -> None:
        while (seconds := work.get()) is not None:
            time.sleep(seconds)
            loop.call_soon_threadsafe(event.set)

    thread = threading.Thread(target=do)
    thread.start()
    begun = now()
    await asyncio.sleep(3600)
    assert now() - begun == pytest.approx(3600, abs=1e-5)
    work.put(0.05)
    async with asyncio.timeout(30):
        await event.wait()
    work.put(None)
    thread.join()


async def of_a_child() -> None:
    """The output of a child process, and its end."""
    code = "import time; time.sleep(0.05); print(1)"
    child = await asyncio.create_subprocess_exec(sys.executable, "-c", code, stdout=subprocess.PIPE)
    assert (await child.communicate())[0] == b"1\n"
    assert await child.wait() == 0


async def of_a_child_of_the_process() -> None:
    """The end of a child process that is not the loop's."""
    child = subprocess.Popen(["sleep", "0.05"])  # noqa: ASYNC220 - it does not wait
    while child.poll() is None:  # noqa: ASYNC110 - nothing tells when it ends
        await asyncio.sleep(0.5)
    await asyncio.sleep(3600)


async def of_a_server_elsewhere() -> None:
    """The answer of a server in another thread that is older than the loop."""
    async with aiohttp.ClientSession() as http, http.get(ELSEWHERE[0]) as response:
        assert await response.read() == b"ok"


ELSEWHERE: list[str] = []


class Slow(http.server.BaseHTTPRequestHandler):
    """Answers after 50 ms; to `/never` it does not."""

    def do_GET(self) -> None:
        """Answer."""
        STOP.wait(30 if self.path == "/never" else 0.05)
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"ok")

    def log_message(self, *_: object) -> None:
        """Say nothing."""


STOP = threading.Event()


@pytest.fixture(scope="module")
def elsewhere() -> Iterator[str]:
    """The address of a server that is not in the test's loop."""
    server = http.server.HTTPServer(("127.0.0.1", 0), Slow)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    ELSEWHERE[:] = [f"http://127.0.0.1:{server.server_port}/"]
    yield ELSEWHERE[0]
    STOP.set()
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.usefixtures("elsewhere")
@pytest.mark.parametrize(
    "end",
    [of_a_job, of_a_pool, of_a_thread, of_a_queue, of_a_child, of_a_child_of_the_process, of_a_server_elsewhere],
)
async def test_no_jump_before_the_end(end: Callable[[], Awaitable[object]]) -> None:
    """A time limit does not go off before the end of work outside the loop."""
    async with asyncio.timeout(30 if end not in (of_a_queue, of_a_child_of_the_process) else 8000):
        await end()
    begun = time.monotonic()
    await asyncio.sleep(3600)
    assert time.monotonic() - begun < 60  # and afterwards it jumps again


async def test_quick_work_takes_no_time() -> None:
    """Work outside that ends before a timer is due does not move the clock, also when there was much of it."""
    begun = now()
    for _ in range(5):
        async with asyncio.timeout(2):
            await asyncio.to_thread(time.sleep, 0.5)
    assert now() - begun == pytest.approx(0, abs=1e-5)
    await asyncio.sleep(1)
    assert now() - begun == pytest.approx(1, abs=1e-5)


async def test_a_limit_on_work_outside_is_real(elsewhere: str) -> None:
    """A server that never answers is given up after as many real seconds as the limit says."""
    begun = now(), time.monotonic()
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=0.5)) as http:
        with pytest.raises(TimeoutError):
            await http.get(f"{elsewhere}never")
    assert now() - begun[0] == pytest.approx(0.5, abs=0.01)
    assert time.monotonic() - begun[1] > 0.45


async def test_an_older_timer_has_waited_for_longer() -> None:
    """A limit on all goes off in time though each step of the work sets and clears a shorter one of its own."""

    async def work() -> None:
        for _ in range(100):
            async with asyncio.timeout(0.9):
                await asyncio.to_thread(time.sleep, 0.1)

    begun = time.monotonic(), now()
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(work(), 1)
    assert time.monotonic() - begun[0] > 0.85
    assert now() - begun[1] < 1.1


async def test_what_is_marked_as_busy_is_waited_for() -> None:
    """Within `busy` time passes as outside, whatever the loop sees, and after it time jumps again."""
    loop, begun = asyncio.get_running_loop(), time.monotonic()
    assert isinstance(loop, VirtualTimeLoop)
    with loop.busy(), loop.busy():
        await asyncio.sleep(0.3)
    assert time.monotonic() - begun > 0.25
    await asyncio.sleep(3600)
    assert time.monotonic() - begun < 60


async def test_spinning_ends() -> None:
    """Code that waits for a time to come without ever waiting gets there, as time passes after a while."""
    begun = time.monotonic()
    asyncio.get_running_loop().call_later(0.2, (event := asyncio.Event()).set)
    while not event.is_set():  # noqa: ASYNC110 - the spinning is what this is about
        await asyncio.sleep(0)
    assert time.monotonic() - begun > 1


def test_nothing_to_wait_for_is_an_error() -> None:
    """Where nothing could ever wake the loop, `run` raises and names what waits; so it does beside an endless sleep."""

    async def wait_for_ever() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(asyncio.sleep(math.inf))
            await asyncio.Event().wait()

    with pytest.raises(RuntimeError, match=r"(?s)busy.*wait_for_ever"):
        run_in_virtual_time(wait_for_ever())


def test_a_loop_that_runs_forever_may_have_nothing_to_do() -> None:
    """A loop that serves another thread waits for that thread, for as long as it takes."""
    loop = VirtualTimeLoop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    time.sleep(0.7)
    assert asyncio.run_coroutine_threadsafe(asyncio.sleep(3600, "done"), loop).result(30) == "done"
    loop.call_soon_threadsafe(loop.stop)
    thread.join(30)
    loop.close()


async def test_connections_in_the_loop_are_told_from_others(tmp_path: Path) -> None:
    """The ends of a connection find each other by TCP over IPv4, by an IPv6 socket, and by a named socket."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.close()

    both = socket.socket(socket.AF_INET6)
    both.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    both.bind(("::", 0))
    port = both.getsockname()[1]
    begun = time.monotonic()
    async with (
        await asyncio.start_server(serve, sock=both),
        await asyncio.start_unix_server(serve, tmp_path / "socket"),
    ):
        for opening in (
            asyncio.open_connection("127.0.0.1", port),
            asyncio.open_connection("::1", port),
            asyncio.open_unix_connection(tmp_path / "socket"),
        ):
            reader, writer = await opening
            await asyncio.sleep(3600)
            writer.write(b"x")
            assert await reader.read() == b""
            writer.close()
            await writer.wait_closed()
    assert time.monotonic() - begun < 60


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
    assert time.monotonic() - begun < 60


async def test_looking_up_a_name_holds_time() -> None:
    """The lookup of a host, which the loop does in a thread, is not overtaken by a time-out."""
    async with asyncio.timeout(1):
        assert await asyncio.get_running_loop().getaddrinfo("127.0.0.1", 80)


async def test_a_wake_up_from_outside_arrives() -> None:
    """A loop without timers waits for other threads, as any loop does."""
    loop, event = asyncio.get_running_loop(), asyncio.Event()
    threading.Timer(0.05, loop.call_soon_threadsafe, [event.set]).start()
    await event.wait()


async def test_the_last_act_of_a_thread_is_heard(monkeypatch: pytest.MonkeyPatch) -> None:
    """A thread that wakes the loop and ends just before the loop looks for threads at work comes before a timer."""
    loop, event, go, alive = asyncio.get_running_loop(), asyncio.Event(), threading.Event(), threading.enumerate

    def work() -> None:
        assert go.wait(30)
        loop.call_soon_threadsafe(event.set)

    def alive_afterwards() -> list[threading.Thread]:
        go.set()
        thread.join(30)
        return alive()

    thread = threading.Thread(target=work)
    thread.start()
    monkeypatch.setattr(threading, "enumerate", alive_afterwards)
    async with asyncio.timeout(3600):
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
    events: list[Event] = [Submitted(info=INFO), Polled(info=INFO), WaitAbandoned(task_id="3f2a"), Polled(info=INFO)]
    for event in events:
        log(event)
    assert log == events
    assert log.of(Polled) == [events[1], events[3]]
    assert log.of(Saved) == []


def test_time_does_not_jump_while_threads_are_joined() -> None:
    """A thread that nobody awaits any more is waited for, and no timer goes off early meanwhile."""
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

    assert run_in_virtual_time(leave()) < 3600


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
