"""For your tests: an event loop whose time jumps, a list of what happened, and a ledger in memory.

On a `VirtualTimeLoop` a wait of ten minutes takes milliseconds, real sockets included, and it takes exactly ten minutes
of the loop's time, however busy the machine is.

```python
from piapi_async.testing import run_in_virtual_time

run_in_virtual_time(main())
```
"""

import asyncio
import math
import os
import queue
import selectors
import socket
import sys
import threading
import time
import weakref
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import Executor, thread
from contextlib import contextmanager, suppress
from contextvars import Context
from pathlib import Path
from types import FrameType
from typing import Any, TypeVar, TypeVarTuple, Unpack

from piapi_async.events import Event
from piapi_async.ledger import SQLiteLedger
from piapi_async.ledger._sqlite import MEMORY

__all__ = ["EventLog", "MemoryLedger", "VirtualTimeLoop", "run_in_virtual_time"]

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

_Ready = list[tuple[selectors.SelectorKey, int]]

_READING_SECONDS = 1e-9  # what each reading of the clock adds, so that timers go off in the order they were set
_SAME_MOMENT_SECONDS = 1e-6  # timers this close together go off in one jump
_SETTLE_SECONDS = 0.0005  # what one socket of this machine sent arrives at another within this time
_CHECK_SECONDS = 0.01  # how often to check whether outside work has ended, as it need not wake the loop
_GIVE_UP_SECONDS = 0.5  # with no timer set and nothing at work, nothing more comes after this time
_SPIN_SECONDS = 1.0
_SPIN_TURNS = 1000


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """An event loop whose time passes only while everything waits, and then at once.

    Code takes no time on this loop's clock, however long it takes on the machine's. As soon as everything waits, the
    clock jumps to the next timer: `asyncio.sleep(600)` ends at once, and `loop.time()` is 600 s later.

    The clock does not jump while something outside the loop is at work, because the loop cannot know when that ends:

    - a job in an executor: `asyncio.to_thread`, `loop.run_in_executor`, the lookup of a host name;
    - a thread that began after the loop was made, such as a `threading.Timer` or the thread of an open `aiosqlite`
      connection; idle workers of a `ThreadPoolExecutor` and threads that wait in `queue.Queue.get` do not count;
    - a child process that began after the loop was made (a `subprocess.Popen` is noticed on Linux only);
    - a connection to a peer that is not in this loop, from connecting until it is closed: a database, another
      service, a client in another process;
    - whatever is marked by `with loop.busy():`.

    In the meantime the loop waits in real time. If the work ends before the next timer is due, it has taken no time on
    the loop's clock; otherwise the timer goes off after its full real delay. So a time limit on a server that never
    answers takes as long as it says.

    Code that never waits, such as `while loop.time() < deadline: await asyncio.sleep(0)`, would not end. After a second
    of work without a wait the clock follows the machine's until the next wait.

    What does not jump: `time.monotonic()`, `time.time()` and `datetime.now()`. A deadline based on them
    (`tenacity.stop_after_delay`, `while time.monotonic() < deadline: await asyncio.sleep(5)`) sees no time pass during
    a jump; such a loop ends when the machine's clock says so, after very many rounds. Nor does the time of other
    processes: both ends of a connection have to live in this loop.

    Raises:
        RuntimeError: From `run_until_complete`, and so from `asyncio.run`: no timer is set and nothing outside is at
            work, so that nothing could wake the loop. An ordinary loop would hang.
    """

    _scheduled: list[asyncio.TimerHandle]  # the base class's timers, a heap

    def __init__(self) -> None:
        self._now = time.monotonic()
        self._epoch = time.time() - self._now
        self._under_way = 0
        self._awaited = False
        self._waited = 0.0  # in real time since the clock last moved
        self._waited_before: dict[int, float] = {}  # how much of it is older than a timer, by the timer's id
        self._turns = 0  # since the last wait
        self._spin_began = 0.0
        self._counted_until = 0.0
        self._older_threads = weakref.WeakSet(threading.enumerate())
        self._older_children = _running_children()
        self._connections = _Connections(wait=self._wait, work=self._work)
        super().__init__(self._connections)

    def time(self) -> float:
        """Seconds on the loop's clock; a nanosecond later at each reading.

        It starts at what `time.monotonic()` says.
        """
        self._now = max(self._now + _READING_SECONDS, math.nextafter(self._now, math.inf))
        return self._now

    def wall_time(self) -> float:
        """Seconds since 1970 (UTC) on the loop's clock, which starts at what `time.time()` says."""
        return self._epoch + self.time()

    @contextmanager
    def busy(self) -> Iterator[None]:
        """Wait in real time, as if something outside were at work, until the block ends.

        For work that the loop cannot see: a thread older than the loop that will call back, or a file that another
        program is going to write.

        ```python
        with loop.busy():
            await result_from_an_older_thread
        ```
        """
        self._under_way += 1
        try:
            yield
        finally:
            self._under_way -= 1

    def call_at(
        self, when: float, callback: "Callable[[Unpack[Ts]], object]", *args: *Ts, context: Context | None = None
    ) -> asyncio.TimerHandle:
        """As in any loop."""
        timer = super().call_at(when, callback, *args, context=context)
        if self._waited:
            self._waited_before[id(timer)] = self._waited
        return timer

    def run_in_executor(
        self, executor: Executor | None, func: "Callable[[Unpack[Ts]], T]", *args: *Ts
    ) -> "asyncio.Future[T]":
        """As in any loop; the clock does not jump until the job is done."""
        future = super().run_in_executor(executor, func, *args)
        self._under_way += 1
        future.add_done_callback(self._job_done)
        return future

    def _job_done(self, _future: "asyncio.Future[Any]") -> None:
        self._under_way -= 1

    def run_until_complete(self, future: Any) -> Any:
        """As in any loop, but an error when nothing is left that could complete the future."""
        self._awaited = True
        try:
            return super().run_until_complete(future)
        finally:
            self._awaited = False

    def _work(self) -> None:
        """Begin a turn in which there is something to do: time stands still, unless it has been so for too long."""
        now = time.monotonic()
        if self._turns == 0:
            self._spin_began = now
        elif self._turns >= _SPIN_TURNS and now - self._spin_began > _SPIN_SECONDS:
            self._now += now - self._counted_until
        self._turns += 1
        self._counted_until = now

    def _wait(self, poll: Callable[[float | None], _Ready]) -> _Ready:
        """Wait until a timer is due, or until there is something to do."""
        self._turns = 0
        # What was sent inside this process is usually there at once, but on a busy machine it can take a moment.
        if ready := poll(_SETTLE_SECONDS if self._connections.any() else 0):
            return ready
        while self._is_at_work():
            left, when = self._next_in_real_time()
            if left <= 0:
                self._pass_time_until(when)
                return []
            began = time.monotonic()
            ready = poll(min(left, _CHECK_SECONDS))
            self._waited += time.monotonic() - began
            if ready:
                return ready
        # What was at work may have woken the loop in its last moment, after the poll.
        if ready := poll(0):
            return ready
        when = self._scheduled[0].when() if self._scheduled else math.inf
        if when < math.inf:
            self._pass_time_until(when)
            return []
        ready = poll(_GIVE_UP_SECONDS if self._awaited else None)
        if not ready:
            raise RuntimeError(self._nothing_to_wait_for())
        return ready

    def _next_in_real_time(self) -> tuple[float, float]:
        """The real seconds that are left until the next timer is due, and the time at which it is."""
        timers = self._scheduled
        if timers and id(timers[0]) not in self._waited_before:
            timers = timers[:1]  # no other can be before it; otherwise one that has waited for longer can
        return min(
            (
                (timer.when() - self._now - self._waited + self._waited_before.get(id(timer), 0.0), timer.when())
                for timer in timers
            ),
            default=(math.inf, math.inf),
        )

    def _pass_time_until(self, when: float) -> None:
        """Put the clock ahead to a timer, and to those that are due in the same moment."""
        positions, last = [0], when
        while positions:
            position = positions.pop()
            if position < len(self._scheduled) and self._scheduled[position].when() <= when + _SAME_MOMENT_SECONDS:
                last = max(last, self._scheduled[position].when())
                positions += (2 * position + 1, 2 * position + 2)  # its children in the heap
        self._now = max(self._now, last)
        self._waited = 0.0
        self._waited_before.clear()

    def _is_at_work(self) -> bool:
        """Whether something that is not in this loop can have something to say to it."""
        return (
            self._under_way > 0
            or self._connections.any_leads_out()
            or self._has_working_threads()
            or not _running_children() <= self._older_children
        )

    def _has_working_threads(self) -> bool:
        me = threading.current_thread()
        younger = [one for one in threading.enumerate() if one is not me and one not in self._older_threads]
        frames = sys._current_frames() if younger else {}  # noqa: SLF001 - documented, in spite of its name
        # One without a frame begins or ends at this moment.
        return any((frame := frames.get(one.ident or 0)) is None or not _waits_for_work(frame) for one in younger)

    def _nothing_to_wait_for(self) -> str:
        tasks = "\n".join(sorted(map(repr, asyncio.all_tasks(self))))
        return (
            "the event loop would wait forever: no timer is set, and no thread, child process or connection is at work "
            f"that could wake it; mark work that the loop cannot see by 'with loop.busy():'. What waits:\n{tasks}"
        )


class _Connections(selectors.DefaultSelector):
    """The selector of a loop, which knows the connections that it watches.

    Args:
        wait: What the loop does when there is nothing to do but to wait; it is given what polls for so many seconds.

        work: What it does when there is something else to do.
    """

    def __init__(self, *, wait: Callable[[Callable[[float | None], _Ready]], _Ready], work: Callable[[], None]) -> None:
        super().__init__()
        self._wait = wait
        self._work = work
        self._watched: dict[int, tuple[object, object]] = {}
        # A connection that is not read from just now is not watched, and is in this loop all the same.
        self._seen: set[tuple[object, object]] = set()

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        key = super().register(fileobj, events, data)
        if (ends := _ends(key.fd, events=events)) is not None:
            self._watched[key.fd] = ends
            self._seen.add(ends)
        return key

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        key = super().unregister(fileobj)
        self._watched.pop(key.fd, None)
        return key

    def select(self, timeout: float | None = None) -> _Ready:
        if timeout is not None and timeout <= 0:
            self._work()
            return super().select(timeout)
        return self._wait(super().select)

    def any(self) -> bool:
        """Whether there is a connection at all."""
        return bool(self._watched)

    def any_leads_out(self) -> bool:
        """Whether there is one whose other end is not in this loop."""
        return any((there, here) not in self._seen for here, there in self._watched.values())


def _ends(number: int, *, events: int) -> tuple[object, object] | None:
    """The addresses of both ends of a connection; that of the other is None while it is being made.

    None is for what is not a connection: a pipe, a listening socket, an unconnected UDP socket, and a pair of sockets
    without names as every loop has for waking itself.
    """
    try:
        end = socket.socket(fileno=number)
    except OSError:
        return None
    try:
        here, there = _address(end.getsockname()), None
        with suppress(OSError):
            there = _address(end.getpeername())
    finally:
        end.detach()
    if here == there or (there is None and not events & selectors.EVENT_WRITE):
        return None
    return here, there


def _address(name: Any) -> object:
    """An address as both ends tell it: an IPv6 socket has another form of an IPv4 address."""
    return (name[0].removeprefix("::ffff:"), name[1]) if isinstance(name, tuple) else name


def _waits_for_work(frame: FrameType) -> bool:
    """Whether a thread is certain to do nothing until it is given something to do."""
    if frame.f_code is _POOL_WORKER:
        return frame.f_locals.get("work_item") is None and bool(frame.f_locals["work_queue"].empty())
    caller = frame.f_back
    if caller is None or frame.f_code is not _CONDITION_WAIT or caller.f_code is not _QUEUE_GET:
        return False
    return bool(caller.f_locals["self"].empty())  # else it was given something a moment ago


_POOL_WORKER = thread._worker.__code__  # noqa: SLF001 - the one way to know that a worker is idle
_CONDITION_WAIT = threading.Condition.wait.__code__
_QUEUE_GET = queue.Queue.get.__code__


def _running_children() -> set[int]:
    """The ids of the child processes that have not ended, as far as the system tells."""
    no_wait = 0
    try:
        no_wait = os.WEXITED | os.WNOHANG | os.WNOWAIT
        os.waitid(os.P_ALL, 0, no_wait)
    except (AttributeError, ChildProcessError):  # not on this system; none at all
        return set()
    running = set()
    for listed in Path("/proc/self/task").glob("*/children"):
        with suppress(OSError):  # a thread or a child ended meanwhile
            running |= {
                child for child in map(int, listed.read_text().split()) if os.waitid(os.P_PID, child, no_wait) is None
            }
    return running


def run_in_virtual_time(main: Coroutine[Any, Any, T]) -> T:
    """`asyncio.run`, in virtual time."""
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        return runner.run(main)


class EventLog(list[Event]):
    """An observer that keeps what it is told: `Session(observers=[log := EventLog()])`."""

    def __call__(self, event: Event) -> None:
        """Keep one event."""
        self.append(event)

    def of(self, kind: type[T]) -> list[T]:
        """The events of one kind, in order."""
        return [event for event in self if isinstance(event, kind)]


class MemoryLedger(SQLiteLedger):
    """A ledger without a file, in all else the real one: `Batch(session, ledger=MemoryLedger())`.

    What it holds is gone when it is closed. Only its own process can use it.
    """

    def __init__(self) -> None:
        super().__init__(MEMORY)
