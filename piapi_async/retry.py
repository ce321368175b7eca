"""How a request that failed is tried again: `RetryPolicy`.

The loop is a few lines of its own: tenacity's, which drove it first, made a submit half as costly again.

Which errors may be retried is not a matter of policy but of money, and stands here as two functions:

- a submit is sent again only when the server certainly did not accept it, and may accept it later: no connection, be it
  from here or from Cloudflare, or a clear 429;
- a look costs nothing and is repeated whenever no usable answer came.
"""

from collections.abc import Awaitable, Callable
from typing import TypeVar

import attrs

from piapi_async import _checks, errors
from piapi_async._clock import Clock

T = TypeVar("T")

RETRY_SUBMIT = (errors.ConnectError, errors.RateLimitError)
"""After these a submit is sent again: nothing was accepted, and it may go through later."""

RETRY_LOOK = (
    errors.TransportError,
    errors.RateLimitError,
    errors.ServerError,
    errors.UnexpectedResponseError,
)
"""After these a look is repeated."""

MAX_PAUSE_SECONDS = 120.0
"""The longest `Retry-After` that is obeyed by default. Cloudflare, before the service, gives up on a request after as
long; an hour or a day, as misconfigured proxies ask for, would end every wait."""

Retriable = tuple[type[errors.PiAPIError], ...] | Callable[[errors.PiAPIError], bool]
"""After which errors another attempt may be made: their classes, or what tells it of each."""


def may_submit_again(error: errors.PiAPIError) -> bool:
    """Whether a submit may be sent again by itself: after `RETRY_SUBMIT`, and where Cloudflare did not reach PiAPI."""
    is_unreached = isinstance(error, errors.ServerError) and error.status in errors.ORIGIN_NOT_REACHED
    return isinstance(error, RETRY_SUBMIT) or (is_unreached and error.safe_to_resubmit)


def may_look_again(error: errors.PiAPIError) -> bool:
    """Whether a free request may be made again: after `RETRY_LOOK`, and where Cloudflare did not let it through."""
    return isinstance(error, RETRY_LOOK) or error.hint is errors.Hint.CLIENT_BLOCKED


@attrs.frozen(kw_only=True)
class RetryPolicy:
    """How often, how long and how patiently a request is tried again. Waits are in seconds.

    The pause before attempt *n* + 1 is `min(wait_max, wait_initial * wait_exp_base**(n - 1) + jitter)`, with the jitter
    drawn from 0 to `wait_jitter`; a longer `Retry-After` of the server wins.

    Args:
        attempts: How many attempts in all, the first one included; at least 1.

        timeout: No further attempt begins when it would begin later than this many seconds after the first.

        wait_initial: The first pause.

        wait_max: The longest pause.

        wait_jitter: The most that is added at random.

        wait_exp_base: What each pause is multiplied by, at least 1.

    Raises:
        TypeError: A field is no number.
        ValueError: A field is out of its range.
    """

    attempts: int = attrs.field(default=4, validator=_checks.number(at_least=1, integer=True))
    timeout: float = attrs.field(default=60.0, validator=_checks.number(at_least=0))
    wait_initial: float = attrs.field(default=0.5, validator=_checks.number(at_least=0))
    wait_max: float = attrs.field(default=20.0, validator=_checks.number(at_least=0))
    wait_jitter: float = attrs.field(default=1.0, validator=_checks.number(at_least=0))
    wait_exp_base: float = attrs.field(default=2.0, validator=_checks.number(at_least=1))

    def pause(self, attempt: int, *, random: Callable[[], float]) -> float:
        """Seconds to wait after the given attempt, counted from 1."""
        return exponential(
            attempt,
            initial=self.wait_initial,
            base=self.wait_exp_base,
            maximum=self.wait_max,
            jitter=self.wait_jitter * random(),
        )

    async def call(
        self,
        act: Callable[[], Awaitable[T]],
        *,
        on: Retriable,
        clock: Clock,
        before_sleep: Callable[[int, float, BaseException | None], None],
        held_up: Callable[[], float] = float,
    ) -> T:
        """Do `act` until it succeeds, fails with another error than those in `on`, or the policy is exhausted.

        Args:
            act: Makes one attempt.

            on: The errors after which another attempt may be made: classes, or a function that tells of each.

            clock: Where time, sleep and chance come from.

            before_sleep: Told of each pause: attempts made, seconds to wait, and what the last attempt met.

            held_up: Tells for how many seconds the attempts waited for their turn, which is not counted as time.

        Raises:
            PiAPIError: What the last attempt met.
        """
        begun, attempt = clock.monotonic(), 0
        while True:
            attempt += 1
            try:
                return await act()
            except errors.PiAPIError as error:
                if not (on(error) if callable(on) else isinstance(error, on)):
                    raise
                wait = max(self.pause(attempt, random=clock.random), retry_after(error))
                late = clock.monotonic() + wait - begun - held_up() > self.timeout
                if late or attempt >= self.attempts:
                    raise
                before_sleep(attempt, wait, error)
            await clock.sleep(wait)


def exponential(attempt: int, *, initial: float, base: float, maximum: float, jitter: float) -> float:
    """The pause after an attempt, counted from 1: exponential growth plus jitter, bounded, also for huge counts."""
    try:
        return min(maximum, initial * float(base) ** (attempt - 1) + jitter)
    except OverflowError:
        return maximum


def retry_after(met: object) -> float:
    """Seconds to wait since the server asked for it, up to `MAX_PAUSE_SECONDS`; 0 when it asked for nothing."""
    return min(getattr(met, "retry_after", None) or 0.0, MAX_PAUSE_SECONDS)
