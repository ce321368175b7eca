"""What all sessions of an account share: a gate that one 429 closes for everybody, and a cap on tasks in flight."""

import asyncio
import math
from contextlib import AbstractAsyncContextManager, nullcontext

import attrs

from piapi_async import _checks
from piapi_async._clock import Clock
from piapi_async._loop import PerLoop
from piapi_async.errors import RateLimitError

PAUSE_UNSAID = 1.0
"""Seconds that everybody pauses after a 429 that does not say how long."""


@attrs.define(kw_only=True, eq=False)
class Governor:
    """Keeps every request of an account within what the server bears. One object may serve several sessions.

    Args:
        max_in_flight: How many tasks `Session.run` keeps submitted and not over at once; `None` for no cap.

    Raises:
        TypeError: `max_in_flight` is no whole number.
        ValueError: `max_in_flight` is below 1.
    """

    max_in_flight: int | None = attrs.field(
        default=None,
        validator=_checks.optional(_checks.number(at_least=1, integer=True)),
        on_setattr=attrs.setters.frozen,
    )
    _closed_until: float = attrs.field(default=0.0, init=False, repr=False)
    _slots: PerLoop[asyncio.Semaphore] = attrs.field(init=False, repr=False)

    def __attrs_post_init__(self) -> None:
        self._slots = PerLoop(lambda: asyncio.Semaphore(self.max_in_flight or 1))

    def pause(self, seconds: float | None, *, clock: Clock) -> None:
        """Close the gate for everybody, for that many seconds from now; a longer pause under way stays.

        Args:
            seconds: What the server asked for, or `None` when it did not say.

            clock: The clock to count on.
        """
        until = clock.monotonic() + (PAUSE_UNSAID if seconds is None else seconds)
        self._closed_until = max(self._closed_until, until)

    async def ready(self, *, clock: Clock, patience: float = math.inf) -> None:
        """Return when the gate is open.

        Args:
            clock: The clock to count on.

            patience: Seconds; a gate that stays closed longer is an error at once, not a long silence.

        Raises:
            RateLimitError: It stays closed for longer than that.
        """
        while (left := self._closed_until - clock.monotonic()) > 0:
            if left > patience:
                raise RateLimitError(f"PiAPI asked for a pause that lasts {left:.0f} s more", retry_after=left)
            await clock.sleep(left)

    def slot(self) -> AbstractAsyncContextManager[None]:
        """One of the places in flight, to be held with `async with`; given in order of arrival."""
        return nullcontext() if self.max_in_flight is None else self._slots.get()
