"""Time, sleep and randomness, handed in by argument so that tests choose them."""

import asyncio
import random
import time
from collections.abc import Callable, Coroutine
from typing import Any


def chance() -> float:
    """A number from 0 up to, but not including, 1."""
    return random.random()  # noqa: S311 - to spread requests, not a secret


def _ring(ringing: "asyncio.Future[None]") -> None:
    if not ringing.done():
        ringing.set_result(None)


class Clock:
    """The clocks of the running event loop.

    All three readings follow the loop's own time. On a loop whose time runs ahead of the machine's (the virtual-time
    loop of `piapi_async.testing`) hours therefore pass here too, on an ordinary loop nothing differs from `time`.
    """

    def monotonic(self) -> float:
        """Seconds that never go back, from an arbitrary start."""
        return asyncio.get_running_loop().time()

    def now(self) -> float:
        """Seconds since 1970 (UTC), ahead of the machine's clock by as much as the loop is."""
        # A virtual-time loop knows best: between two readings of the machine's clocks a busy machine loses time.
        wall_time: Callable[[], float] = getattr(asyncio.get_running_loop(), "wall_time", time.time)
        return wall_time()

    def sleep(self, seconds: float) -> Coroutine[Any, Any, None]:
        """Wait that many seconds of the loop's time; none at all when the number is not positive."""
        # Not a coroutine of its own: ten thousand waiting tasks hold one each.
        return asyncio.sleep(max(0.0, seconds))

    def alarm(self, seconds: float) -> tuple["asyncio.Future[None]", asyncio.TimerHandle]:
        """What is done after so many seconds of the loop's time, and the timer to cancel when nobody waits any longer.

        It takes half the memory that `sleep` takes.
        """
        loop = asyncio.get_running_loop()
        ringing = loop.create_future()
        return ringing, loop.call_later(max(0.0, seconds), _ring, ringing)

    def random(self) -> float:
        """A number from 0 up to, but not including, 1."""
        return chance()
