"""Time, sleep and randomness, handed in by argument so that tests choose them."""

import asyncio
import random
import time
from collections.abc import Coroutine
from typing import Any


def chance() -> float:
    """A number from 0 up to, but not including, 1."""
    return random.random()  # noqa: S311 - to spread requests, not a secret


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
        return time.time() + self.monotonic() - time.monotonic()

    def sleep(self, seconds: float) -> Coroutine[Any, Any, None]:
        """Wait that many seconds of the loop's time; none at all when the number is not positive."""
        # Not a coroutine of its own: ten thousand waiting tasks hold one each.
        return asyncio.sleep(max(0.0, seconds))
