"""Two things asyncio leaves to its users: state that belongs to one event loop, and work that outlasts a cancel."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Generic, TypeVar

T = TypeVar("T")


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


async def outlast(task: "asyncio.Task[Any]", *, seconds: float) -> None:
    """Wait for a task that must not be broken off, also while being cancelled again, but no longer than that.

    Afterwards the task is done, or has been cancelled. What it met is left in it. For use in a handler of
    `CancelledError` that raises it anew.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + seconds
    while not task.done() and (left := deadline - loop.time()) > 0:
        try:
            await asyncio.wait({task}, timeout=left)
        except asyncio.CancelledError:  # the first cancel is being obeyed already, in bounded time
            continue
    if not task.done():
        task.cancel()
        with suppress(asyncio.CancelledError):
            await asyncio.wait({task}, timeout=1.0)
