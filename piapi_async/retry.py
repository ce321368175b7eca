"""How a request that failed is tried again: `RetryPolicy`, driven by tenacity.

One `tenacity.AsyncRetrying` serves all calls of all policies: made anew for each call it would cost 6 kB and a third
more CPU. Sharing is safe because its parts are plain functions, between which nothing is awaited, and what belongs to
one call travels with the function that is called (`RetryCallState.fn`).

Which errors may be retried is not a matter of policy but of money, and stands here as two functions:

- a submit is sent again only when the server certainly did not accept it, and may accept it later: no connection, be it
  from here or from Cloudflare, or a clear 429;
- a poll costs nothing and is repeated whenever no usable answer came.
"""

import asyncio
import inspect
import math
import numbers
import reprlib
import traceback
import warnings
from collections import deque
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, Final, TypeVar

import attrs
import tenacity

from piapi_async import _media, _validators, errors
from piapi_async._asyncio import Clock, chance
from piapi_async.events import logger

T = TypeVar("T")

WaitStrategy = Callable[[tenacity.RetryCallState], float]
"""Seconds to wait after an attempt: any of tenacity's waits, or a plain function like them."""

StopStrategy = Callable[[tenacity.RetryCallState], bool]
"""Whether to give up after an attempt: any of tenacity's stops, or a plain function like them."""

RETRY_SUBMIT = (errors.ConnectError, errors.RateLimitError)
"""After these a submit is sent again: nothing was accepted, and it may go through later."""

RETRY_POLL = (
    errors.TransportError,
    errors.RateLimitError,
    errors.ServerError,
    errors.UnexpectedResponseError,
)
"""After these a poll is repeated."""

ERRORS_ONLY: Final[Any] = getattr(tenacity, "wait_exception", ())
"""Waits that decide by an exception, and fail where there is none; tenacity before 9.1 has no such."""

MAX_PAUSE_SECONDS = 120.0
"""The longest `Retry-After` that is obeyed where `Governor.max_pause` does not say otherwise. Cloudflare, before the
service, gives up on a request after as long; an hour or a day, as misconfigured proxies ask for, would end every wait.
"""

Retriable = tuple[type[errors.PiAPIError], ...] | Callable[[errors.PiAPIError], bool]
"""After which errors another attempt may be made: their classes, or what tells it of each."""


def may_submit_again(error: errors.PiAPIError) -> bool:
    """Whether a submit may be sent again by itself: after `RETRY_SUBMIT`, and where Cloudflare did not reach PiAPI.

    Never where a task may exist, whatever the class of the error: also a 429 may name one.
    """
    is_unreached = isinstance(error, errors.ServerError) and error.status in errors.ORIGIN_NOT_REACHED
    return error.safe_to_resubmit and (isinstance(error, RETRY_SUBMIT) or is_unreached)


def may_poll_again(error: errors.PiAPIError) -> bool:
    """Whether a free request may be made again: after `RETRY_POLL`, and where Cloudflare did not let it through."""
    return isinstance(error, RETRY_POLL) or error.hint is errors.Hint.CLIENT_BLOCKED


@attrs.frozen(kw_only=True)
class RetryPolicy:
    """How often, how long and how patiently a request is tried again. Waits are in seconds.

    The pause before attempt *n* + 1 is `min(wait_max, wait_initial * wait_exp_base**(n - 1) + jitter)`, with the jitter
    drawn from 0 to `wait_jitter`; a longer `Retry-After` of the server wins, up to `Governor.max_pause`.

    Args:
        attempts: How many attempts in all, the first one included; at least 1.

        timeout: No further attempt begins when it would begin later than this many seconds after the first.

        wait_initial: The first pause.

        wait_max: The longest pause.

        wait_jitter: The most that is added at random.

        wait_exp_base: What each pause is multiplied by, at least 1.

        wait: A wait of tenacity's, or a plain function like it, in place of the four numbers above. What it raises, and
            what it returns that is not a number of seconds, costs one warning, and those four numbers hold.

        stop: A stop of tenacity's that ends the attempts earlier than `attempts` and `timeout` do. What it raises, and
            what it returns that is neither `True` nor `False`, costs one warning, and counts as `False`.

    Raises:
        TypeError: A field has the wrong type.
        ValueError: A field is out of its range.
    """

    attempts: int = attrs.field(default=4, validator=_validators.number(at_least=1, integer=True))
    timeout: float = attrs.field(default=60.0, validator=_validators.number(at_least=0))
    wait_initial: float = attrs.field(default=0.5, validator=_validators.number(at_least=0))
    wait_max: float = attrs.field(default=20.0, validator=_validators.number(at_least=0))
    wait_jitter: float = attrs.field(default=1.0, validator=_validators.number(at_least=0))
    wait_exp_base: float = attrs.field(default=2.0, validator=_validators.number(at_least=1))
    wait: WaitStrategy | None = attrs.field(default=None, validator=_validators.optional(_validators.callable_))
    stop: StopStrategy | None = attrs.field(default=None, validator=_validators.optional(_validators.callable_))

    def call(
        self,
        act: Callable[[], Coroutine[Any, Any, T]],
        *,
        on: Retriable,
        before_sleep: Callable[[int, float, BaseException | None], None],
        excluded_time: Callable[[], float] = float,
        max_pause: float = MAX_PAUSE_SECONDS,
    ) -> Coroutine[Any, Any, T]:
        """Do `act` until it succeeds, fails with another error than those in `on`, or the policy is exhausted.

        Args:
            act: Makes one attempt; a coroutine function.

            on: The errors after which another attempt may be made: classes, or a function that tells of each. They are
                ours, so that a cancellation, which is an exception too, is never retried.

            before_sleep: Told of each pause: attempts made, seconds to wait, and what the last attempt met.

            excluded_time: Tells for how many seconds the attempts waited for their turn, which is not counted as time.

            max_pause: The longest `Retry-After` that is obeyed, in seconds: `Governor.max_pause`.

        Raises:
            PiAPIError: What the last attempt met.
        """
        # A plain function, so that no frame stands between the caller's and the attempt's.
        call = _Call(act)
        call.policy, call.on, call.before_sleep = self, on, before_sleep
        call.excluded_time, call.max_pause, call.begun = excluded_time, max_pause, _CLOCK.monotonic()
        return _RETRYING(call)


class _Call(partial[Any]):
    """One call of a policy: makes an attempt, and holds what belongs to the call; tenacity's `RetryCallState.fn`.

    A `partial`, because tenacity awaits what one of a coroutine function returns, without a frame of ours between.
    """

    policy: RetryPolicy
    on: Retriable
    before_sleep: Callable[[int, float, BaseException | None], None]
    excluded_time: Callable[[], float]
    max_pause: float
    begun: float


def _call(state: tenacity.RetryCallState) -> _Call:
    assert isinstance(state.fn, _Call)
    return state.fn


def _may_retry(state: tenacity.RetryCallState) -> bool:
    error, on = error_of(state), _call(state).on
    if not isinstance(error, errors.PiAPIError):
        return False  # a cancellation, say, must pass at once
    return bool(on(error)) if callable(on) else isinstance(error, on)


def _usual_pause(state: tenacity.RetryCallState) -> float:
    own = _call(state).policy
    return exponential(
        state, initial=own.wait_initial, base=own.wait_exp_base, maximum=own.wait_max, jitter=own.wait_jitter
    )


def _pause(state: tenacity.RetryCallState) -> float:
    call = _call(state)
    wait = call.policy.wait
    pause = _usual_pause(state) if wait is None else ask_wait(wait, state, fallback=_usual_pause)
    return max(pause, retry_after(error_of(state), max_pause=call.max_pause))


def _is_exhausted(state: tenacity.RetryCallState) -> bool:
    call = _call(state)
    policy, now = call.policy, _CLOCK.monotonic()
    # A stop that counts seconds counts the event loop's, as all else here does.
    state.start_time, state.outcome_timestamp = call.begun, now
    return (
        state.attempt_number >= policy.attempts
        or now + state.upcoming_sleep - call.begun - call.excluded_time() > policy.timeout
        or (policy.stop is not None and ask_stop(policy.stop, state))
    )


def _tell(state: tenacity.RetryCallState) -> None:
    _call(state).before_sleep(state.attempt_number, state.upcoming_sleep, error_of(state))


def raise_last(state: tenacity.RetryCallState) -> None:
    """Raise what the last attempt met, in place of tenacity's `RetryError`."""
    error = error_of(state)
    assert error is not None
    raise error


_CLOCK = Clock()
_RETRYING = tenacity.AsyncRetrying(
    sleep=_CLOCK.sleep,
    retry=_may_retry,
    wait=_pause,
    stop=_is_exhausted,
    before=None,  # type: ignore[arg-type] # as tenacity allows: what does nothing costs 1 µs a pass, too
    after=None,  # type: ignore[arg-type]
    before_sleep=_tell,
    retry_error_callback=raise_last,
)


def error_of(state: tenacity.RetryCallState) -> BaseException | None:
    """What the last attempt met, or `None` when it succeeded."""
    assert state.outcome is not None
    return state.outcome.exception()


def exponential(state: tenacity.RetryCallState, *, initial: float, base: float, maximum: float, jitter: float) -> float:
    """Exponential growth plus jitter, bounded, also for huge counts of attempts."""
    # Not tenacity's wait_exponential_jitter, whose arguments have other names from one release to the next. The base is
    # a float since a whole number to the power of a million takes seconds; a float overflows, as tenacity expects.
    grown = tenacity.wait_exponential(multiplier=initial, exp_base=float(base), max=maximum)
    return min(maximum, grown(state) + jitter * chance())


def retry_after(met: object, *, max_pause: float) -> float:
    """Seconds to wait since the server asked for it, at most `max_pause`; 0 when it asked for nothing."""
    return min(getattr(met, "retry_after", None) or 0.0, max_pause)


# Strategies of users, and `Learned`, are code that may be wrong; a task that is paid for must not be lost over it.

MISTAKES: Final = (Exception, asyncio.CancelledError)
"""What a strategy may raise. Nothing is awaited in one, so that a cancel out of it is nobody's, and ends no wait."""

_BROKEN: deque[object] = deque(maxlen=100)
"""The strategies that were warned of, so that each is warned of once. They are compared by identity: a strategy need
not be hashable, and two that are equal may be two mistakes."""


def ask_wait(wait: WaitStrategy, state: tenacity.RetryCallState, *, fallback: WaitStrategy) -> float:
    """Seconds to wait by a strategy; by another, with one warning for each strategy, where that one fails.

    Args:
        wait: The strategy.

        state: The attempts so far.

        fallback: What is asked where `wait` raises, or returns anything but a finite number >= 0.
    """
    if isinstance(wait, ERRORS_ONLY) and error_of(state) is None:
        return fallback(state)
    try:
        pause: Any = wait(state)
        if _is_seconds(pause):
            return float(pause)
        if inspect.iscoroutine(pause):
            pause.close()  # or Python warns, whenever it is collected, that it was never awaited
        what = f"returned {reprlib.repr(pause)}, which is not a number of seconds >= 0"
    except MISTAKES as error:
        what = _raised(error)
    _warn(wait, what, instead="waiting with exponential backoff in its place")
    return fallback(state)


def ask_stop(stop: StopStrategy, state: tenacity.RetryCallState) -> bool:
    """Whether a strategy says to stop; where it raises, or says anything but yes or no, it does not.

    Then there is one warning for each strategy.
    """
    try:
        is_enough: Any = _media.python_scalar(stop(state))
        if isinstance(is_enough, bool):
            return is_enough
        if inspect.iscoroutine(is_enough):
            is_enough.close()
        what = f"returned {reprlib.repr(is_enough)}, which is neither True nor False"
    except MISTAKES as error:
        what = _raised(error)
    _warn(stop, what, instead="continuing without it")
    return False


def warn_of(strategy: object, error: BaseException, *, instead: str) -> None:
    """Warn, once for each strategy, of what it raised, and tell what is done instead."""
    _warn(strategy, _raised(error), instead=instead)


def _is_seconds(value: Any) -> bool:
    is_number = isinstance(value, numbers.Real) and not isinstance(value, bool)
    return is_number and 0 <= float(value) < math.inf


def _raised(error: BaseException) -> str:
    # Unlike str(), this bears an exception whose own __str__ fails.
    return f"raised {traceback.format_exception_only(error)[-1].strip()}"


def _warn(strategy: object, what: str, *, instead: str) -> None:
    if any(strategy is one for one in _BROKEN):
        return
    _BROKEN.append(strategy)
    text = f"{reprlib.repr(strategy)} {what}; {instead}"
    try:
        warnings.warn(text, RuntimeWarning, stacklevel=2)
    except RuntimeWarning:  # a filter made it an error, which would end the wait after all
        logger.warning("%s", text)
