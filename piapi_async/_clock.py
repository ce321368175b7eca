"""Time, sleep and randomness, handed in by argument so that tests choose them."""

import asyncio
import random
import time
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any

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
