"""`RetryPolicy`: how often, how long and how patiently; and that it eats nothing."""

import asyncio
import math
from typing import Any

import pytest
import tenacity
from hypothesis import given
from hypothesis import strategies as st

from piapi_async import RetryPolicy, errors
from piapi_async.retry import RETRY_POLL, RETRY_SUBMIT, exponential, retry_after

Pause = tuple[int, float, BaseException | None]


class Act:
    """Something to try: meets these errors one after the other, then gives `"done"`; each try takes some seconds.

    Attributes:
        at: When each try began, in seconds since the first.
    """

    def __init__(self, *met: BaseException, seconds: float = 0.0) -> None:
        self.met = list(met)
        self.at: list[float] = []
        self.seconds = seconds
        self.begun: float | None = None

    @property
    def tried(self) -> int:
        """The number of tries."""
        return len(self.at)

    async def attempt(self) -> str:
        """One attempt."""
        now = asyncio.get_running_loop().time()
        self.begun = now if self.begun is None else self.begun
        self.at.append(round(now - self.begun, 2))
        await asyncio.sleep(self.seconds)
        if self.met:
            raise self.met.pop(0)
        return "done"


def ignore(_attempt: int, _wait: float, _error: BaseException | None) -> None:
    """Take no notice of a pause."""


def refused(count: int) -> list[errors.PiAPIError]:
    """That many different errors after which a submit may be sent again."""
    return [errors.ConnectError(f"refused {number}") for number in range(count)]


def attempt(number: int) -> tenacity.RetryCallState:
    """What tenacity hands a wait strategy after that many attempts."""
    state = tenacity.RetryCallState(tenacity.AsyncRetrying(), None, (), {})
    state.attempt_number = number
    return state


@given(st.integers(1, 60), st.floats(0, 100), st.floats(1, 10), st.floats(0, 1000), st.floats(0, 10))
def test_the_pause_is_the_documented_formula(
    number: int, initial: float, base: float, maximum: float, jitter: float
) -> None:
    """A pause is `min(wait_max, wait_initial * wait_exp_base**(n - 1) + jitter)`; the jitter has its range."""
    pause = exponential(attempt(number), initial=initial, base=base, maximum=maximum, jitter=jitter)
    grown = initial * base ** (number - 1)
    least, most = min(maximum, grown), min(maximum, grown + jitter)
    assert least - 1e-9 * least <= pause <= most + 1e-9 * most


def test_the_jitter_is_drawn_anew() -> None:
    """Pauses of the same attempt differ, over all of the range of the jitter."""
    pauses = [exponential(attempt(1), initial=1.0, base=2.0, maximum=20.0, jitter=1.0) for _ in range(500)]
    assert min(pauses) < 1.1
    assert max(pauses) > 1.9


@given(st.integers(1, 10**6), st.integers(0, 9) | st.floats(0, 9), st.integers(1, 9) | st.floats(1, 9), st.floats(0, 9))
def test_the_pause_never_passes_its_maximum(number: int, initial: float, base: float, jitter: float) -> None:
    """However many attempts were made, and whether numbers are whole or not, the pause stays within bounds."""
    assert 0 <= exponential(attempt(number), initial=initial, base=base, maximum=15, jitter=jitter) <= 15


@pytest.mark.parametrize("initial", [1, 1.0])
@pytest.mark.parametrize("base", [2, 2.0])
def test_the_pause_after_a_thousand_attempts_is_the_maximum(initial: float, base: float) -> None:
    """A wait of many hours does not break on numbers too large for a float."""
    pauses = [
        exponential(attempt(n), initial=initial, base=base, maximum=15, jitter=0) for n in (1, 2, 1023, 1025, 5000)
    ]
    assert pauses == [1, 2, 15, 15, 15]


def test_the_defaults() -> None:
    """The defaults are the design's."""
    assert repr(RetryPolicy()) == (
        "RetryPolicy(attempts=4, timeout=60.0, wait_initial=0.5, wait_max=20.0, wait_jitter=1.0, wait_exp_base=2.0,"
        " wait=None, stop=None)"
    )


@pytest.mark.parametrize(
    ("field", "least"),
    [
        ("attempts", 1),
        ("timeout", 0),
        ("wait_initial", 0),
        ("wait_max", 0),
        ("wait_jitter", 0),
        ("wait_exp_base", 1),
    ],
)
def test_each_number_has_its_least_value(field: str, least: int) -> None:
    """Every number of the policy may be as small as documented, no smaller, and has to be a finite number."""
    kind: Any = RetryPolicy
    assert getattr(kind(**{field: least}), field) == least
    for bad in (least - 1, -math.inf):
        with pytest.raises((ValueError, TypeError), match=rf"^{field} must be a .* number >= {least}, got "):
            kind(**{field: bad})
    with pytest.raises(TypeError, match=rf"^{field} must be a .* number >= {least}, got '4'$"):
        kind(**{field: "4"})


STEADY = {"wait_jitter": 0.0}


async def test_what_succeeds_is_not_tried_again() -> None:
    """A first success is returned at once."""
    act = Act()
    assert await RetryPolicy().call(act.attempt, on=RETRY_SUBMIT, before_sleep=ignore) == "done"
    assert act.at == [0]


async def test_the_schedule_of_the_pauses() -> None:
    """Pauses grow by the base, and each is told before it begins: attempt, seconds and error."""
    met, pauses = refused(3), list[Pause]()
    act = Act(*met)
    await RetryPolicy(**STEADY).call(act.attempt, on=RETRY_SUBMIT, before_sleep=lambda *pause: pauses.append(pause))
    assert act.at == [0, 0.5, 1.5, 3.5]
    assert pauses == [(1, 0.5, met[0]), (2, 1.0, met[1]), (3, 2.0, met[2])]


@pytest.mark.parametrize(("asked", "pause"), [(7.0, 7.0), (30.0, 30.0), (0.1, 0.5), (0.0, 0.5), (None, 0.5)])
async def test_a_longer_retry_after_wins(asked: float | None, pause: float) -> None:
    """The server's `Retry-After` wins over the policy's pause when it is longer, even over `wait_max`."""
    act = Act(errors.RateLimitError("slow down", retry_after=asked))
    await RetryPolicy(**STEADY).call(act.attempt, on=RETRY_SUBMIT, before_sleep=ignore)
    assert act.at == [0, pause]


@pytest.mark.parametrize("attempts", [1, 2, 4])
async def test_exhaustion_raises_what_the_last_attempt_met(attempts: int) -> None:
    """When the attempts are used up, the very error of the last one comes out, never tenacity's, nor beside another."""
    met = refused(9)
    act, last = Act(*met), met[attempts - 1]
    with pytest.raises(errors.ConnectError) as caught:
        await RetryPolicy(attempts=attempts).call(act.attempt, on=RETRY_SUBMIT, before_sleep=ignore)
    assert caught.value is last
    assert caught.value.__context__ is None
    assert act.tried == attempts


@pytest.mark.parametrize(
    ("timeout", "seconds", "tried"),
    [(4.05, 0.0, 3), (3.99, 0.0, 2), (0.0, 0.0, 1), (4.05, 1.0, 2), (5.05, 1.0, 2), (7.05, 1.0, 3)],
)
async def test_no_attempt_begins_after_the_timeout(timeout: float, seconds: float, tried: int) -> None:
    """An attempt that would begin later than `timeout` on the loop's clock is not made, nor waited for."""
    act = Act(*refused(99), seconds=seconds)
    policy = RetryPolicy(attempts=99, timeout=timeout, wait_initial=2.0, wait_exp_base=1.0, wait_jitter=0.0)
    begun = asyncio.get_running_loop().time()
    with pytest.raises(errors.ConnectError):
        await policy.call(act.attempt, on=RETRY_SUBMIT, before_sleep=ignore)
    assert act.at == [number * (2.0 + seconds) for number in range(tried)]
    assert asyncio.get_running_loop().time() - begun == pytest.approx(act.at[-1] + seconds, abs=0.01)


async def test_a_retry_after_beyond_the_timeout_ends_it_at_once() -> None:
    """A pause that the policy has no time for is not begun: the refusal comes out with what the server asked."""
    act = Act(errors.RateLimitError("slow down", retry_after=3600.0))
    with pytest.raises(errors.RateLimitError) as caught:
        await RetryPolicy(timeout=60.0).call(act.attempt, on=RETRY_SUBMIT, before_sleep=ignore)
    assert (caught.value.retry_after, act.at) == (3600.0, [0])


async def test_waits_and_stops_of_tenacity_s() -> None:
    """A wait of tenacity's stands in for the four numbers, and a stop ends the attempts, by the loop's clock."""
    act = Act(*refused(9))
    policy = RetryPolicy(attempts=99, wait=tenacity.wait_fixed(3), stop=tenacity.stop_after_delay(7))
    with pytest.raises(errors.ConnectError):
        await policy.call(act.attempt, on=RETRY_SUBMIT, before_sleep=ignore)
    assert act.at == [0, 3, 6, 9]
    act = Act(*refused(9))
    with pytest.raises(errors.ConnectError):
        await RetryPolicy(stop=tenacity.stop_after_attempt(2)).call(act.attempt, on=RETRY_SUBMIT, before_sleep=ignore)
    assert act.tried == 2


async def test_a_wait_that_is_wrong_costs_one_warning() -> None:
    """Where the wait raises, or returns no number of seconds, the four numbers hold."""
    act = Act(*refused(2))
    policy = RetryPolicy(wait=lambda _: -1.0, **STEADY)
    with pytest.warns(RuntimeWarning, match="-1") as caught:
        await policy.call(act.attempt, on=RETRY_SUBMIT, before_sleep=ignore)
    assert act.at == [0, 0.5, 1.5]
    assert len(caught) == 1


@pytest.mark.parametrize("field", ["wait", "stop"])
def test_a_strategy_must_be_callable(field: str) -> None:
    """What cannot be called is refused when the policy is made."""
    kind: Any = RetryPolicy
    with pytest.raises(TypeError, match=rf"^{field} must be a callable"):
        kind(**{field: 3})
    with pytest.raises(
        TypeError, match=rf"^{field} must be a callable, such as stop_after_delay\(...\), not the class"
    ):
        kind(**{field: tenacity.stop_after_delay})


@pytest.mark.parametrize(
    "met",
    [
        errors.RequestTimeoutError("in doubt"),
        errors.ServerError("in doubt", status=500),
        errors.InvalidRequestError("no"),
        ValueError("a bug"),
        TimeoutError("a bug"),
        asyncio.CancelledError(),
    ],
)
async def test_other_errors_are_raised_at_once(met: BaseException) -> None:
    """What is not named by `on` comes out as it is, from the first attempt, and so it does from a later one."""
    for before in ([], refused(2)):
        act = Act(*before, met)
        with pytest.raises(type(met)) as caught:
            await RetryPolicy().call(act.attempt, on=RETRY_SUBMIT, before_sleep=ignore)
        assert caught.value is met
        assert act.tried == len(before) + 1


@pytest.mark.parametrize("on", [RETRY_SUBMIT, RETRY_POLL])
@pytest.mark.parametrize("moment", [0.5, 1.5, 2.5, 3.5])
async def test_cancelling_stops_at_once(moment: float, on: tuple[type[errors.PiAPIError], ...]) -> None:
    """A cancel during an attempt or during a pause ends the call there and then; it is never eaten."""
    tried: list[float] = []
    loop = asyncio.get_running_loop()
    begun = loop.time()

    async def act() -> None:
        tried.append(loop.time() - begun)
        await asyncio.sleep(1.0)
        raise errors.ConnectError("refused")

    policy = RetryPolicy(attempts=9, wait_initial=1.0, wait_exp_base=1.0, wait_jitter=0.0)
    calling = asyncio.create_task(policy.call(act, on=on, before_sleep=ignore))
    await asyncio.sleep(moment)
    calling.cancel()
    with pytest.raises(asyncio.CancelledError):
        await calling
    assert loop.time() - begun == pytest.approx(moment, abs=0.2)
    assert len(tried) == (1 if moment < 2 else 2)


async def test_one_policy_serves_many_calls_at_once() -> None:
    """Two hundred calls that share a policy do not mix up their attempts: each gets its own result or error."""
    policy = RetryPolicy(attempts=4, wait_jitter=0.0)

    async def call(number: int) -> tuple[int, int]:
        tried = 0

        async def act() -> int:
            nonlocal tried
            tried += 1
            await asyncio.sleep(0.01)
            if tried <= number % 6:
                raise errors.ConnectError(f"call {number}")
            return number

        try:
            return await policy.call(act, on=RETRY_SUBMIT, before_sleep=ignore), tried
        except errors.ConnectError as error:
            assert str(error) == f"call {number}"  # noqa: PT017 - both outcomes are right, each for its calls
            return -1, tried

    found = await asyncio.gather(*map(call, range(200)))
    assert found == [(n, n % 6 + 1) if n % 6 < 4 else (-1, 4) for n in range(200)]


async def test_long_pauses_pass_on_the_loop_s_clock() -> None:
    """The timeout counts the loop's time, which here is virtual."""
    loop = asyncio.get_running_loop()
    begun, act = loop.time(), Act(*refused(99))
    policy = RetryPolicy(attempts=99, timeout=3600.0, wait_initial=600.0, wait_max=600.0, wait_jitter=0.0)
    with pytest.raises(errors.ConnectError):
        await policy.call(act.attempt, on=RETRY_SUBMIT, before_sleep=ignore)
    assert act.tried == 6
    assert loop.time() - begun == pytest.approx(3000, abs=1)


@pytest.mark.parametrize(
    ("error", "seconds"),
    [
        (None, 0.0),
        (ValueError("x"), 0.0),
        (errors.ConnectError("x"), 0.0),
        (errors.RateLimitError("x"), 0.0),
        (errors.ServerError("x", retry_after=2.5), 2.5),
    ],
)
def test_what_the_server_asked_for(error: BaseException | None, seconds: float) -> None:
    """An error without a `Retry-After` asks for no pause, and none is longer than it may be."""
    assert retry_after(error, max_pause=120.0) == seconds
    assert retry_after(error, max_pause=1.0) == min(seconds, 1.0)
