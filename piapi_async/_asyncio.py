"""What asyncio leaves to us: a clock on loop time, state of each loop, work that outlasts a cancel."""

import asyncio
import random
import sys
import time
from collections import deque
from collections.abc import Callable, Coroutine
from contextlib import AbstractContextManager, nullcontext, suppress
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

OFFSETS = 5
"""How many of the last readings of a server's clock count."""

OFFSET_MAX = 30 * 86400.0
"""Seconds; a difference to a server's clock beyond this is not believed. TLS would fail long before."""


def chance() -> float:
    """A number from 0 up to, but not including, 1."""
    return random.random()  # noqa: S311 - to spread requests, not a secret


def _wall_time() -> float:
    # A virtual-time loop knows best: between two readings of the machine's clocks a busy machine loses time.
    wall_time: Callable[[], float] = getattr(asyncio.get_running_loop(), "wall_time", time.time)
    return wall_time()


class Clock:
    """The clocks of the running event loop.

    All three readings follow the loop's own time. On a loop whose time runs ahead of the machine's (the virtual-time
    loop of `piapi_async.testing`) hours therefore pass here too, on an ordinary loop nothing differs from `time`.

    The machine's wall clock may be wrong by hours (a dual boot, a container, a manual setting), while what the service
    says of its tasks is by the service's clock. So the difference is learned from the `Date` of its answers.

    Attributes:
        offset: Seconds by which the service's clock is ahead of the machine's; 0 until several answers say otherwise.
    """

    offset: float = 0.0
    _offsets: "deque[float] | None" = None

    def monotonic(self) -> float:
        """Seconds that never go back, from an arbitrary start."""
        return asyncio.get_running_loop().time()

    def now(self) -> float:
        """Seconds since 1970 (UTC) by the service's clock, as far as its answers tell it."""
        return _wall_time() + self.offset

    def learn(self, date: float, *, took: float) -> None:
        """Learn from a server's clock, as it stood at some moment of a request that was answered just now.

        Args:
            date: What the clock said, in whole seconds since 1970 (UTC), rounded down.

            took: Seconds since the request was sent.
        """
        now = _wall_time()
        # The smallest difference that explains the reading: a right clock is not set wrong by latency and rounding.
        offset = max(date - now, min(0.0, date + 1 - (now - took)))
        if abs(offset) <= OFFSET_MAX:
            if self._offsets is None:
                # The machine has a vote, so that one odd answer changes nothing.
                self._offsets = deque([0.0], maxlen=OFFSETS)
            self._offsets.append(offset)
            ordered, last = sorted(self._offsets), len(self._offsets) - 1
            self.offset = min(ordered[last // 2], ordered[(last + 1) // 2], key=abs)  # the median

    def sleep(self, seconds: float) -> Coroutine[Any, Any, None]:
        """Wait that many seconds of the loop's time; none at all when the number is not positive."""
        # Not a coroutine of its own: ten thousand waiting tasks hold one each.
        return asyncio.sleep(max(0.0, seconds))


T = TypeVar("T")

READ_FIRST = 0.5
"""Seconds after a time limit in which what has arrived meanwhile is still read."""


class PerLoop(Generic[T]):
    """One value for each event loop, made when first asked for; values of closed loops are let go.

    This is what lets an object live on through a second `asyncio.run`.
    """

    def __init__(self, make: Callable[[], T]) -> None:
        self._make = make
        self._values: dict[asyncio.AbstractEventLoop, T] = {}

    def get(self) -> T:
        """The running loop's value."""
        loop = asyncio.get_running_loop()
        if loop not in self._values:
            self._values = {loop: value for loop, value in self._values.items() if not loop.is_closed()}
            self._values[loop] = self._make()
        return self._values[loop]


class Lasting(asyncio.Task[T]):
    """A task that takes a cancel as a time limit while it must not be broken off.

    `asyncio.run` cancels every task at its end, in any order, those of libraries included, and then waits for them. A
    request that is paid for must not be broken off by it, so shielding the task that waits for the answer is not
    enough: the task that reads it has to hold out as well.

    Args:
        work: What it does.

        holds: Asked at each cancel whether it must not be broken off at this moment; if not, it is cancelled as any.

        seconds: How long the work under a `Limit` may still take after a cancel; what comes after it is brief, and
            comes to its end.

    Attributes:
        let_go_at: When it was first cancelled and held out, on the event loop's clock; `None` if it never was.
    """

    def __init__(self, work: Coroutine[Any, Any, T], *, holds: Callable[[], bool], seconds: float) -> None:
        self._holds = holds
        self._seconds = seconds
        self.limit: Limit | None = None
        self.let_go_at: float | None = None
        super().__init__(work, loop=asyncio.get_running_loop())

    def cancel(self, msg: Any = None) -> bool:
        """Cancel it, or shorten its limit where it must not be broken off."""
        if self.done() or not self._holds():
            return super().cancel(msg)
        if self.let_go_at is None:
            self.let_go_at = self.get_loop().time()
        if self.limit is not None:
            self.limit.shorten(self._seconds)
        return False

    def break_off(self) -> None:
        """Cancel it in any case."""
        super().cancel()


class Limit:
    """A time limit for the current task, as `asyncio.timeout`, that reads what has arrived before it is believed.

    Where something held up the event loop, a timer is due before the loop had a turn to read an answer that has been
    in the socket for long. So the time is up only `READ_FIRST` seconds after the limit.

    Args:
        seconds: How long the block may take, `None` for no limit.

    Raises:
        TimeoutError: At the end of the block, the time was up.
    """

    def __init__(self, seconds: float | None) -> None:
        self._seconds = seconds
        self._timer: asyncio.TimerHandle | None = None
        self._is_over = False

    def __enter__(self) -> Self:
        task = asyncio.current_task()
        assert task is not None
        self._task, self._cancelling = task, task.cancelling()
        if isinstance(task, Lasting):
            task.limit = self
        if self._seconds is not None:
            self.shorten(self._seconds)
        return self

    def shorten(self, seconds: float) -> None:
        """End the block in so many seconds from now, unless it ends sooner."""
        loop = self._task.get_loop()
        when = loop.time() + seconds
        if self._timer is None or when < self._timer.when():
            self._stop()
            self._timer = loop.call_at(when, self._due)

    @property
    def is_over(self) -> bool:
        """Whether the time was up, so that a cancel inside the block is this limit's."""
        return self._is_over

    def undo(self) -> None:
        """Undo the cancel that was caught inside the block, which goes on."""
        self._is_over = False
        self._task.uncancel()

    def _due(self) -> None:
        self._timer = self._task.get_loop().call_later(READ_FIRST, self._over)

    def _over(self) -> None:
        self._is_over = True
        break_off(self._task)

    def _stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stop()
        if isinstance(self._task, Lasting):
            self._task.limit = None
        if self._is_over and kind is asyncio.CancelledError and self._task.uncancel() <= self._cancelling:
            raise TimeoutError from error


def break_off(task: "asyncio.Task[Any]") -> None:
    """Cancel a task, also one that holds out against a cancel."""
    if isinstance(task, Lasting):
        task.break_off()
    else:
        task.cancel()


async def to_the_end(task: "asyncio.Task[T]") -> T:
    """What a task gives, which is waited for also while the waiting is cancelled; the cancel is raised afterwards."""
    cancel: asyncio.CancelledError | None = None
    while not task.done():
        try:
            with _cancelled_once():
                await asyncio.wait({task})
        except asyncio.CancelledError as error:
            cancel = error
    if cancel is not None:
        raise cancel
    return task.result()


async def outlast(task: "asyncio.Task[Any]", *, seconds: float) -> None:
    """Wait for a task that must not be broken off, also while being cancelled again, but no longer than that.

    Afterwards the task is done, or has been cancelled. What it met is left in it. For use in a handler of
    `CancelledError` that raises it anew.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + seconds
    while not task.done() and (left := deadline - loop.time()) > 0:
        try:
            with _cancelled_once():
                await asyncio.wait({task}, timeout=left)
        except asyncio.CancelledError:  # the first cancel is being obeyed already, in bounded time
            continue
    if not task.done():
        break_off(task)
        with suppress(asyncio.CancelledError), _cancelled_once():
            await asyncio.wait({task}, timeout=1.0)


def _cancelled_once() -> AbstractContextManager[object]:
    """Where the program uses anyio: keeps its scopes from cancelling this task again in each turn of the event loop.

    They do so until the task leaves them, and the processor would be busy with nothing else. Leaving this block lets
    them continue. A cancel of asyncio's own comes through.
    """
    scope = getattr(sys.modules.get("anyio"), "CancelScope", None)
    return nullcontext() if scope is None else scope(shield=True)
