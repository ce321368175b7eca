"""For your tests: an event loop whose time jumps, a list of what happened, and a ledger in memory.

With `virtual_time_loop` a wait of ten minutes takes milliseconds, real sockets included: whenever nothing is left to do
but to wait for a timer, the loop's time jumps to it.

```python
from piapi_async.testing import run_in_virtual_time

run_in_virtual_time(main())
```
"""

import asyncio
import selectors
from collections.abc import Callable, Coroutine
from concurrent.futures import Executor
from typing import Any, TypeVar, TypeVarTuple, Unpack

from piapi_async._sqlite import MEMORY
from piapi_async.events import Event
from piapi_async.ledger import SQLiteLedger

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

_SETTLE = 0.0005  # seconds in which bytes on their way through the loopback interface arrive


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """An event loop that jumps over idle time.

    It does not jump while work runs in threads (`asyncio.to_thread`), because their end cannot be foreseen. Both ends
    of a connection have to live in this loop: the time of other processes does not jump along.
    """

    def __init__(self) -> None:
        self._ahead = 0.0
        self._threads = 0
        super().__init__(_JumpingSelector(self))

    def time(self) -> float:
        """Seconds on the loop's clock, ahead of the machine's by all that was jumped over."""
        return super().time() + self._ahead

    def run_in_executor(
        self, executor: Executor | None, func: "Callable[[Unpack[Ts]], T]", *args: *Ts
    ) -> "asyncio.Future[T]":
        """As in any loop, and count the work under way."""
        future = super().run_in_executor(executor, func, *args)
        self._threads += 1
        future.add_done_callback(self._thread_done)
        return future

    async def shutdown_default_executor(self, *args: Any, **limits: Any) -> None:
        """As in any loop; the time does not jump while its threads are joined."""
        self._threads += 1
        try:
            await super().shutdown_default_executor(*args, **limits)
        finally:
            self._threads -= 1

    def _thread_done(self, _future: "asyncio.Future[Any]") -> None:
        self._threads -= 1

    def jump(self, seconds: float) -> bool:
        """Put the loop's time ahead, unless threads are at work; whether it was done."""
        if self._threads == 0:
            self._ahead += seconds
        return self._threads == 0


class _JumpingSelector(selectors.DefaultSelector):
    def __init__(self, loop: VirtualTimeLoop) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None or timeout <= _SETTLE:
            return super().select(timeout)
        ready = super().select(_SETTLE)
        if ready or self._loop.jump(timeout):
            return ready
        return super().select(timeout)


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
