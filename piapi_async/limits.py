"""What all sessions of an account share: a gate that one 429 closes for everybody, and a cap on tasks in flight."""

import asyncio
from contextlib import AbstractAsyncContextManager, nullcontext

from piapi_async._clock import Clock
from piapi_async._loop import PerLoop

PAUSE_UNSAID = 1.0
"""Seconds that everybody pauses after a 429 that does not say how long."""


class Governor:
    """Keeps every request of an account within what the server bears. One object may serve several sessions.

    Args:
        max_in_flight: How many tasks `Session.run` keeps submitted and not over at once; `None` for no cap.

    Raises:
        ValueError: `max_in_flight` is below 1.
    """

    def __init__(self, *, max_in_flight: int | None = None) -> None:
        if max_in_flight is not None and max_in_flight < 1:
            raise ValueError(f"max_in_flight must be at least 1 or None, got {max_in_flight}")
        self.max_in_flight = max_in_flight
        self._closed_until = 0.0
        self._slots = PerLoop(lambda: asyncio.Semaphore(max_in_flight or 1))

    def pause(self, seconds: float | None, *, clock: Clock) -> None:
        """Close the gate for everybody, for that many seconds from now; a longer pause under way stays.

        Args:
            seconds: What the server asked for, or `None` when it did not say.

            clock: The clock to count on.
        """
        until = clock.monotonic() + (PAUSE_UNSAID if seconds is None else seconds)
        self._closed_until = max(self._closed_until, until)

    async def ready(self, *, clock: Clock) -> None:
        """Return when the gate is open."""
        while (left := self._closed_until - clock.monotonic()) > 0:
            await clock.sleep(left)

    def slot(self) -> AbstractAsyncContextManager[None]:
        """One of the places in flight, to be held with `async with`; given in order of arrival."""
        return nullcontext() if self.max_in_flight is None else self._slots.get()

    def __repr__(self) -> str:
        return f"<Governor max_in_flight={self.max_in_flight}>"
