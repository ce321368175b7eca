"""When to look at a task next: `Polling` and its wait strategies, which are tenacity's.

One loop serves a whole wait: "not over yet" and "this look failed in transit" are both reasons to look again, so a
failed look is never a failed task.
"""

import asyncio
import enum
import math
from collections.abc import Awaitable, Callable
from typing import Final

import attrs
import tenacity

from piapi_async import _checks, errors
from piapi_async._clock import Clock, chance
from piapi_async.retry import RETRY_LOOK, exponential, failure, retry_after
from piapi_async.task import TaskInfo

LAST_LOOK = 5.0
"""The look at the end of a wait's time may take this many seconds beyond it."""

VISIBLE_AFTER = 10.0
"""For this many seconds after a submit, "no such task" means "not visible yet"."""

_TICK = 0.001  # timers may fire a clock tick early
_RETRYING = tenacity.AsyncRetrying()


class Unset(enum.Enum):
    """The type of `UNSET`."""

    UNSET = "not given"

    def __repr__(self) -> str:
        return "UNSET"


UNSET: Final = Unset.UNSET
"""Not given: the policy's own value holds. `None`, by contrast, is "no limit"."""


@attrs.frozen(kw_only=True)
class Backoff:
    """Look ever less often: pauses in seconds that grow by a factor up to a maximum, plus chance.

    Args:
        initial: The first pause.

        factor: What each pause is multiplied by, at least 1.

        maximum: The longest pause.

        jitter: The most that is added at random, so that tasks submitted together are not looked at together.

    Raises:
        TypeError: A field is no number.
        ValueError: A field is out of its range.
    """

    initial: float = attrs.field(default=1.0, validator=_checks.number(above=0))
    factor: float = attrs.field(default=1.5, validator=_checks.number(at_least=1))
    maximum: float = attrs.field(default=15.0, validator=_checks.number(above=0))
    jitter: float = attrs.field(default=0.5, validator=_checks.number(at_least=0))

    def __call__(self, state: tenacity.RetryCallState) -> float:
        """Seconds to wait after the attempt that `state` describes, as tenacity asks for it."""
        jitter = self.jitter * chance()
        return exponential(
            state.attempt_number, initial=self.initial, base=self.factor, maximum=self.maximum, jitter=jitter
        )


@attrs.frozen(kw_only=True)
class Polling:
    """How a task is waited for.

    Args:
        wait: When to look next: a `Backoff`, or any wait of tenacity's. A longer `Retry-After` of the server wins.

        timeout: Seconds that the whole wait may take, 0 for a single look, or `None` for no limit. The wait ends with
            a look at that very moment.

        max_errors: After so many failed looks in a row the wait gives up with what the last one met; at least 1.

    Raises:
        TypeError: A field has the wrong type.
        ValueError: A field is out of its range.
    """

    wait: Callable[[tenacity.RetryCallState], float] = attrs.field(factory=Backoff, validator=_checks.callable_)
    timeout: float | None = attrs.field(default=900.0, validator=_checks.optional(_checks.number(at_least=0)))
    max_errors: int = attrs.field(default=10, validator=_checks.number(at_least=1, integer=True))


def is_young(submitted_at: float | None, *, clock: Clock) -> bool:
    """Whether a task was submitted so lately that the service may not show it yet; `None` is not here, so no."""
    return submitted_at is not None and clock.monotonic() - submitted_at < VISIBLE_AFTER


@attrs.define(kw_only=True)
class Watch:
    """One wait: looks at one task until it is as wanted, or until the time or the patience with errors is used up.

    Args:
        look: Makes one look, a single request.

        until: Whether a task as seen ends the wait.

        polling: The policy.

        timeout: Seconds for this wait, in place of the policy's; `None` for no limit.

        clock: Where time and sleep come from.

        known: The task as last seen, if it was: it stands in for the first look.

        seen_at: When that was, on the clock.

        submitted_at: When the task was submitted, on the clock; `None` when it was not submitted here.
    """

    look: Callable[[], Awaitable[TaskInfo]]
    until: Callable[[TaskInfo], bool]
    polling: Polling
    timeout: float | None
    clock: Clock
    known: TaskInfo | None = None
    seen_at: float = 0.0
    submitted_at: float | None = None
    _errors: int = attrs.field(default=0, init=False)
    _begun: float = attrs.field(default=0.0, init=False)

    async def run(self) -> TaskInfo | None:
        """The task as wanted, or `None` when time ran out first.

        Raises:
            PiAPIError: What a look met that looking again does not mend, or the last of too many failures in a row.
        """
        self._begun = self.clock.monotonic()
        # tenacity's waits read this state. Its AsyncRetrying would drive the loop too, but costs 3 KB a waiting task.
        state = tenacity.RetryCallState(_RETRYING, None, (), {})
        limit = asyncio.timeout(None if self.timeout is None else self.timeout + LAST_LOOK)
        try:
            async with limit:
                return await self._looks(state)
        except TimeoutError:
            if limit.expired():
                return None
            raise

    async def _looks(self, state: tenacity.RetryCallState) -> TaskInfo | None:
        while True:
            info = await self._attempt(state)
            if info is not None and self.until(info):
                return info
            if self._left() < _TICK and self.known is None:
                return None
            pause = self._pause(state)
            state.prepare_for_next_attempt()
            await self.clock.sleep(pause)

    async def _attempt(self, state: tenacity.RetryCallState) -> TaskInfo | None:
        """Look, and note in the state what came of it; what looking again does not mend is raised."""
        try:
            info = self.known or await self.look()
        except errors.PiAPIError as error:
            if not self._may_pass(error):
                raise
            self._errors += not isinstance(error, errors.NotFoundError)
            if self._errors >= self.polling.max_errors:
                raise
            state.set_exception((type(error), error, None))
            return None
        self._errors = 0
        state.set_result(info)
        return info

    def _may_pass(self, error: errors.PiAPIError) -> bool:
        if isinstance(error, errors.NotFoundError):
            return is_young(self.submitted_at, clock=self.clock)
        return isinstance(error, RETRY_LOOK)

    def _pause(self, state: tenacity.RetryCallState) -> float:
        pause = max(self.polling.wait(state), retry_after(failure(state)))
        if self.known is not None:
            pause -= self.clock.monotonic() - self.seen_at
            self.known = None
        return max(0.0, min(pause, self._left()))

    def _left(self) -> float:
        return math.inf if self.timeout is None else self._begun + self.timeout - self.clock.monotonic()
