"""`Polling`, `Backoff` and the poller: when a task is polled, and what ends a wait."""

import asyncio
import itertools
import math
import pickle
import random
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from typing import Any

import attrs
import numpy as np
import pytest
import tenacity
from hypothesis import given
from hypothesis import strategies as st

from piapi_async import Backoff, Image, Learned, Polling, TaskInfo, TaskStatus, errors
from piapi_async._asyncio import Clock
from piapi_async.polling import UNSET, Unset
from piapi_async.polling._poller import LAST_POLL, VISIBLE_AFTER, Poller
from piapi_async.testing import run_in_virtual_time

PENDING = TaskInfo(task_id="3f2a", status=TaskStatus.PENDING)
DONE = TaskInfo(task_id="3f2a", status=TaskStatus.COMPLETED)
EMPTY_NO_MORE = TaskInfo(task_id="3f2a", status=TaskStatus.COMPLETED, images=(Image("https://example.com/a.png"),))
LOST = errors.ConnectionLostError("lost")
MISSING = errors.NotFoundError("no such task", status=404, is_enveloped=True)
REFUSED = errors.APIError("no", status=418, is_enveloped=True)

Seen = TaskInfo | BaseException | float
"""What a poll gives or meets; a number is a stall of so many seconds."""

LEARNED = Learned()
EVEN = Backoff(initial=10, factor=1, maximum=10, jitter=0)
"""A poll every ten seconds."""


class Polls:
    """Polls with a script: each gives the next item, the last one for ever, and notes when it was."""

    def __init__(self, script: Sequence[Seen]) -> None:
        self.script = list(script)
        self.begun = asyncio.get_running_loop().time()
        self.at: list[int] = []

    @property
    def now(self) -> float:
        """Seconds since the start."""
        return asyncio.get_running_loop().time() - self.begun

    async def __call__(self, _priority: Callable[[], float]) -> TaskInfo:
        """One poll."""
        self.at.append(round(self.now))
        seen = self.script.pop(0) if len(self.script) > 1 else self.script[0]
        if isinstance(seen, float):
            await asyncio.sleep(seen)
            return PENDING
        if isinstance(seen, BaseException):
            raise seen
        return seen


def as_seen(info: TaskInfo, _polling: Polling) -> TaskInfo:
    """Takes in what a poll showed."""
    return info


def watch(polls: Polls, *, timeout: float | None = 900.0, polling: Polling | None = None, **fields: Any) -> Poller:
    """A wait until the task is over, with a poll every ten seconds unless said otherwise."""
    polling = polling or Polling(wait=EVEN)
    return Poller(poll=polls, take_in=as_seen, until=is_over, polling=polling, timeout=timeout, clock=Clock(), **fields)


def is_over(info: TaskInfo) -> bool:
    """Whether the task is over."""
    return info.is_terminal


def seen_ago(seconds: float) -> dict[str, Any]:
    """A pending task that was seen so long ago."""
    return {"known": PENDING, "seen_at": asyncio.get_running_loop().time() - seconds}


# The policy.


def test_the_defaults() -> None:
    """The defaults are the design's."""
    assert repr(Polling()) == (
        "Polling(wait=Learned(price=2.0, prior=Backoff(initial=1.0, factor=1.5, maximum=15.0, jitter=0.5)),"
        " timeout=900.0, max_errors=10, stop=None)"
    )


@pytest.mark.parametrize(
    ("kind", "field", "good", "bad"),
    [
        (Polling, "timeout", [None, 0, 0.5], [-1, math.nan, math.inf, "9"]),
        (Polling, "max_errors", [1, 99], [0, -1, 1.5, True, None]),
        (Polling, "wait", [LEARNED, Backoff(), tenacity.wait_fixed(3), len], [3, None, Learned, tenacity.wait_fixed]),
        (Polling, "stop", [None, tenacity.stop_after_attempt(3), len], [3, "x", tenacity.stop_after_attempt]),
        (Backoff, "initial", [0.001, 9], [0, -1, math.inf]),
        (Backoff, "factor", [1, 9.5], [0.99, 0, math.nan]),
        (Backoff, "maximum", [0.001, 9], [0, -1]),
        (Backoff, "jitter", [0, 9], [-0.1, "1"]),
    ],
)
def test_what_each_field_takes(kind: type[Any], field: str, good: list[Any], bad: list[Any]) -> None:
    """Each field takes its documented range, ends included, and refuses the rest in a sentence that names it."""
    assert [getattr(kind(**{field: value}), field) for value in good] == good
    for value in bad:
        with pytest.raises((TypeError, ValueError), match=rf"^{field} must be a "):
            kind(**{field: value})


def test_a_class_in_place_of_a_strategy_is_told_as_such() -> None:
    """The sentence says what to write in place of the class."""
    strategy: Any = Learned
    with pytest.raises(TypeError) as caught:
        Polling(wait=strategy)
    words = "wait must be a callable, such as Learned(...), not the class itself, got <class "
    assert str(caught.value).startswith(words)


def test_policies_are_values() -> None:
    """Policies are frozen and compare by value; one that learns is equal to itself alone."""
    assert Polling(wait=Backoff()) == Polling(wait=Backoff(initial=1))
    assert Polling() != Polling()
    policy: Any = Polling()
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        policy.timeout = 1


def test_not_given_is_a_word_of_its_own() -> None:
    """`UNSET` shows itself as such, differs from `None`, and stays itself when pickled."""
    assert repr(UNSET) == "UNSET"
    assert isinstance(UNSET, Unset)
    assert pickle.loads(pickle.dumps(UNSET)) is UNSET


def attempt(number: int) -> tenacity.RetryCallState:
    """What tenacity hands a wait strategy after that many attempts."""
    state = tenacity.RetryCallState(tenacity.AsyncRetrying(), None, (), {})
    state.attempt_number = number
    return state


def test_the_schedule_of_a_backoff() -> None:
    """Pauses grow by the factor up to the maximum."""
    backoff = Backoff(initial=1, factor=2, maximum=15, jitter=0)
    assert [backoff(attempt(number)) for number in (1, 2, 3, 4, 5, 6, 2000)] == [1, 2, 4, 8, 15, 15, 15]


@given(
    st.builds(
        Backoff,
        initial=st.floats(0.1, 9),
        factor=st.floats(1, 9),
        maximum=st.floats(0.1, 99),
        jitter=st.floats(0, 9),
    ),
    st.integers(1, 10**5),
    st.integers(),
)
def test_a_backoff_stays_between_its_bounds(backoff: Backoff, number: int, seed: int) -> None:
    """A pause is the growing one plus at most the jitter, and never above the maximum."""
    random.seed(seed)
    bare = attrs.evolve(backoff, jitter=0)(attempt(number))
    assert bare <= backoff(attempt(number)) <= min(backoff.maximum, bare + backoff.jitter)


@given(st.floats(1, 1.01), st.floats(0, 1e9), st.floats(0, 1))
def test_a_backoff_by_age_stays_between_its_bounds(factor: float, elapsed: float, chance: float) -> None:
    """However slowly it grows and however old the task is, the pause is between the first and the longest."""
    assert 2 <= Backoff(initial=2, factor=factor).after(elapsed, chance=chance) <= 15


def test_jitter_spreads_polls() -> None:
    """Tasks submitted together are not looked at together: pauses of the same attempt differ over the whole range."""
    random.seed(1)
    pauses = [Backoff(initial=1, jitter=1)(attempt(1)) for _ in range(500)]
    assert min(pauses) < 1.05
    assert max(pauses) > 1.95


# The wait.


async def test_a_task_that_is_over_at_the_first_poll() -> None:
    """The first poll is made at once, and none after it when the task is over."""
    polls = Polls([DONE])
    assert await watch(polls).run() is DONE
    assert polls.at == [0]


async def test_looking_goes_on_until_the_task_is_as_wanted() -> None:
    """Polls come after the policy's pauses until one shows what is wanted."""
    polls = Polls([PENDING, PENDING, DONE])
    policy = Polling(wait=Backoff(initial=1, factor=3, maximum=60, jitter=0))
    assert await watch(polls, polling=policy).run() is DONE
    assert polls.at == [0, 1, 4]


@pytest.mark.parametrize(
    "wait", [tenacity.wait_fixed(7), tenacity.wait_chain(*[tenacity.wait_fixed(7)]), lambda _: 7.0]
)
async def test_any_wait_of_tenacity_s_will_do(wait: Callable[[tenacity.RetryCallState], float]) -> None:
    """A strategy of tenacity's, and a plain function, decide when to look as well."""
    polls = Polls([PENDING, PENDING, DONE])
    await watch(polls, polling=Polling(wait=wait)).run()
    assert polls.at == [0, 7, 14]


async def test_the_strategy_sees_what_was_seen() -> None:
    """A strategy of one's own finds the attempt's number and its outcome in tenacity's state."""
    seen: list[tuple[int, Any]] = []

    def wait(state: tenacity.RetryCallState) -> float:
        assert state.outcome is not None
        seen.append((state.attempt_number, state.outcome.exception() or state.outcome.result()))
        return 1.0

    await watch(Polls([PENDING, LOST, DONE]), polling=Polling(wait=wait)).run()
    assert seen == [(1, PENDING), (2, LOST)]


async def test_the_last_poll_is_at_the_deadline() -> None:
    """When time is up the wait ends with a poll at that very moment, and gives `None` when even that shows no end."""
    polls = Polls([PENDING])
    assert await watch(polls, timeout=25).run() is None
    assert polls.at == [0, 10, 20, 25]
    assert polls.now == pytest.approx(25, abs=0.5)


async def test_the_last_poll_counts() -> None:
    """A task that is over at the deadline's poll is a success."""
    polls = Polls([PENDING, PENDING, PENDING, DONE])
    assert await watch(polls, timeout=25).run() is DONE


@pytest.mark.parametrize("timeout", [0, 0.0, 0.0005])
@pytest.mark.parametrize("known", [True, False])
async def test_no_time_is_one_poll(timeout: float, *, known: bool) -> None:
    """`timeout=0` is a single poll, whether or not the task was seen before, so that asking again and again works."""
    fields = seen_ago(3) if known else {}
    polls = Polls([PENDING])
    assert await watch(polls, timeout=timeout, **fields).run() is None
    assert polls.at == [0]
    assert await watch(Polls([DONE]), timeout=timeout, **fields).run() is DONE


async def test_no_limit_is_no_limit() -> None:
    """With `None` the polling goes on for a day, past any default."""
    polls = Polls([*[PENDING] * 24, DONE])
    policy = Polling(wait=tenacity.wait_fixed(3600))
    assert await watch(polls, timeout=None, polling=policy).run() is DONE
    assert polls.now == pytest.approx(86400, abs=10)


@pytest.mark.parametrize(("timeout", "end"), [(25, 25), (12, 15), (0, 5)])
async def test_a_stalled_poll_is_cut_at_the_deadline(timeout: float, end: float) -> None:
    """A poll that hangs ends with the wait's time, but every poll gets `LAST_POLL` seconds for its answer."""
    polls = Polls([PENDING, 1000.0] if timeout else [1000.0])
    assert await watch(polls, timeout=timeout).run() is None
    assert polls.now == pytest.approx(end, abs=0.5)
    assert LAST_POLL == 5


async def test_a_slow_poll_within_its_grace_counts() -> None:
    """A poll that begins at the deadline and answers within `LAST_POLL` is still heard."""
    polls = Polls([PENDING, 4.5, DONE])
    assert await watch(polls, timeout=10).run() is None
    assert polls.now == pytest.approx(14.5, abs=0.5)


async def test_what_polls_met_is_kept_when_the_time_is_up() -> None:
    """A wait that ends while polls fail knows with what, and one whose last poll succeeded has nothing to tell."""
    for script, met in (([PENDING, LOST], LOST), ([LOST, PENDING], None)):
        poller = watch(Polls(script), timeout=25)
        assert await poller.run() is None
        assert poller.error is met


# What is known already.


async def test_what_is_known_stands_in_for_the_first_poll() -> None:
    """A task seen just now is not looked at again at once, but after the first pause."""
    polls = Polls([PENDING, DONE])
    assert await watch(polls, **seen_ago(0)).run() is DONE
    assert polls.at == [10, 20]


async def test_what_is_known_may_be_enough() -> None:
    """No poll is made when the task as known is as wanted."""
    polls = Polls([PENDING])
    assert await watch(polls, known=DONE, seen_at=0.0).run() is DONE
    assert polls.at == []


@pytest.mark.parametrize(("age", "first"), [(0, 10), (4, 6), (10, 0), (500, 0)])
async def test_the_age_of_what_is_known_is_subtracted(age: float, first: int) -> None:
    """The first pause counts from when the task was seen; the second is whole."""
    polls = Polls([PENDING, DONE])
    await watch(polls, **seen_ago(age)).run()
    assert polls.at == [first, first + 10]


# Polls that fail.


@pytest.mark.parametrize(
    "error",
    [
        errors.ConnectError("refused"),
        LOST,
        errors.RequestTimeoutError("no answer"),
        errors.RateLimitError("slow", status=429),
        errors.ServerError("down", status=502),
        errors.UnexpectedResponseError("html"),
        errors.AuthenticationError("a page of Cloudflare's", status=403),
        errors.NotFoundError("a router's page", status=404),
        errors.APIError("a redirect", status=302),
    ],
)
async def test_an_outage_of_any_length_is_waited_out(error: errors.PiAPIError) -> None:
    """What is not PiAPI's word passes by itself: of a task that was seen, no number of such polls ends the wait."""
    polls = Polls([PENDING, *[error] * 50, DONE])
    assert await watch(polls).run() is DONE
    assert polls.at == list(range(0, 520, 10))


@pytest.mark.parametrize(
    "error",
    [
        errors.AuthenticationError("no", status=401),
        errors.AuthenticationError("no", status=403, is_enveloped=True),
        errors.InvalidRequestError("no", status=400, is_enveloped=True),
        errors.InvalidRequestError("no", status=200, code=400, is_enveloped=True),
        errors.InsufficientCreditsError("no", status=402, is_enveloped=True),
        MISSING,
        REFUSED,
    ],
)
async def test_refusals_that_do_not_go_away_are_raised(error: errors.PiAPIError) -> None:
    """PiAPI's own no, to a task that was seen, is believed after `max_errors` in a row; a task never seen, at once."""
    polls = Polls([PENDING, error, error, PENDING, error])
    with pytest.raises(type(error)) as caught:
        await watch(polls, polling=Polling(wait=EVEN, max_errors=3)).run()
    assert caught.value is error
    assert caught.value.__context__ is None
    assert polls.at == [0, 10, 20, 30, 40, 50, 60]
    polls = Polls([error])
    with pytest.raises(type(error)):
        await watch(polls).run()
    assert polls.at == [0]


async def test_a_page_in_place_of_a_task_that_was_never_seen_ends_the_wait() -> None:
    """Where no poll ever showed the task, a 4xx that is not PiAPI's is believed after `max_errors`: a wrong URL."""
    polls = Polls([errors.NotFoundError("404 page not found", status=404)])
    with pytest.raises(errors.NotFoundError):
        await watch(polls, polling=Polling(wait=EVEN, max_errors=3)).run()
    assert polls.at == [0, 10, 20]


@pytest.mark.parametrize("error", [errors.ConfigurationError("closed"), ValueError("a bug"), TimeoutError("a bug")])
async def test_what_polling_again_does_not_mend_is_raised(error: BaseException) -> None:
    """A closed session, or a bug, ends the wait with itself at once."""
    polls = Polls([PENDING, error])
    with pytest.raises(type(error)) as caught:
        await watch(polls).run()
    assert caught.value is error
    assert polls.at == [0, 10]


async def test_outages_do_not_hide_refusals() -> None:
    """A failure in between is not a poll that succeeded: the count of refusals goes on."""
    polls = Polls([PENDING, REFUSED, LOST, REFUSED])
    with pytest.raises(errors.APIError):
        await watch(polls, polling=Polling(wait=EVEN, max_errors=2)).run()
    assert polls.at == [0, 10, 20, 30]


async def test_a_poll_that_succeeds_restores_patience() -> None:
    """Only refusals in a row count: one poll that succeeds and the count begins anew."""
    polls = Polls([PENDING, REFUSED, REFUSED, PENDING, REFUSED, REFUSED, PENDING, REFUSED, REFUSED, DONE])
    assert await watch(polls, polling=Polling(wait=EVEN, max_errors=3)).run() is DONE


async def test_time_that_runs_out_among_errors_is_time_that_ran_out() -> None:
    """When the deadline comes before patience is over, the wait gives `None`."""
    polls = Polls([LOST])
    assert await watch(polls, timeout=25).run() is None
    assert polls.at == [0, 10, 20, 25]


async def test_an_hour_s_retry_after_is_bounded() -> None:
    """A `Retry-After` of an hour puts the next poll off by two minutes: the task may be over long before."""
    polls = Polls([PENDING, errors.ServerError("x", status=503, retry_after=3600), DONE])
    assert await watch(polls).run() is DONE
    assert polls.at == [0, 10, 130]


async def test_a_longer_retry_after_wins() -> None:
    """The server's `Retry-After` puts the next poll off, a shorter one does not hasten it, and the deadline holds."""
    slow, quick = errors.RateLimitError("slow", retry_after=30), errors.ServerError("x", status=503, retry_after=1)
    polls = Polls([slow, quick, slow, slow])
    assert await watch(polls, timeout=100).run() is None
    assert polls.at == [0, 30, 40, 70, 100]


async def test_a_task_just_submitted_may_not_be_visible_yet() -> None:
    """For `VISIBLE_AFTER` seconds after a submit, "no such task" is waited out."""
    polls = Polls([MISSING, MISSING, DONE])
    policy = Polling(wait=tenacity.wait_fixed(4))
    submitted_at = asyncio.get_running_loop().time()
    assert await watch(polls, polling=policy, submitted_at=submitted_at).run() is DONE
    assert polls.at == [0, 4, 8]


async def test_a_task_that_stays_missing_is_missing() -> None:
    """From `VISIBLE_AFTER` seconds on "no such task" is a refusal, also of a task of which nothing else is known."""
    polls = Polls([MISSING])
    submitted_at = asyncio.get_running_loop().time() - 1
    with pytest.raises(errors.NotFoundError):
        await watch(polls, polling=Polling(wait=tenacity.wait_fixed(4)), submitted_at=submitted_at).run()
    assert polls.at == [0, 4, 8, 12]
    assert VISIBLE_AFTER == 10


# Waits that learned.


MODEL = {"model": "m", "task_type": "t"}
CREATED = datetime(2026, 1, 1, tzinfo=UTC)
AT_ONCE = pytest.approx(0, abs=0.3)


def twelve_seconds(**fields: Any) -> Polling:
    """A policy that knows that such tasks wait for two seconds and run for ten, and spreads no polls."""
    learned = Learned(prior=Backoff(initial=3, factor=2, jitter=0), **fields)
    for _ in range(60):
        learned.observe(("m", "t"), 12.0, queued=2.0)
    return Polling(wait=learned)


def seen(status: TaskStatus, **fields: Any) -> TaskInfo:
    """A task of the kind that is known."""
    return TaskInfo(task_id="3f2a", status=status, **MODEL, **fields)


def around(seconds: float) -> Any:
    """A poll's time to within half a second of it or after."""
    return pytest.approx(seconds + 0.25, abs=0.4)


class ExactPolls(Polls):
    """Polls whose times are kept to the millisecond."""

    async def __call__(self, _priority: Callable[[], float]) -> TaskInfo:
        """One poll."""
        info = await super().__call__(_priority)
        self.at[-1] = self.now  # type: ignore[call-overload]
        return info


async def test_a_wait_that_learned_polls_when_the_task_is_over() -> None:
    """A task just submitted is left alone until its usual end, counted from the submit."""
    polls = ExactPolls([seen(TaskStatus.COMPLETED)])
    now = asyncio.get_running_loop().time()
    submitted = {"known": seen(TaskStatus.PENDING), "seen_at": now - 4, "submitted_at": now - 4}
    await watch(polls, polling=twelve_seconds(), **submitted).run()
    assert polls.at == [around(12 - 4)]


async def test_the_age_counts_from_the_submit_not_from_the_wait() -> None:
    """A wait that begins late, with a poll ten seconds ago, polls at once when the usual end has passed since."""
    polls = ExactPolls([seen(TaskStatus.COMPLETED)])
    now = asyncio.get_running_loop().time()
    submitted = {"known": seen(TaskStatus.PENDING), "seen_at": now - 30, "submitted_at": now - 31}
    await watch(polls, polling=twelve_seconds(), **submitted).run()
    assert polls.at == [AT_ONCE]


async def test_a_start_that_is_told_decides_the_next_poll() -> None:
    """A task seen to run since its twentieth second is polled ten seconds after that."""
    started = CREATED + timedelta(seconds=20)
    runs = seen(TaskStatus.PROCESSING, created_at=CREATED, started_at=started)
    polls = ExactPolls([runs, seen(TaskStatus.COMPLETED)])
    now = asyncio.get_running_loop().time()
    await watch(polls, polling=twelve_seconds(), submitted_at=now - 22).run()
    assert polls.at == [AT_ONCE, around(8)]


@pytest.mark.parametrize(
    ("age", "first"),
    [(9.0, 3), (None, 12), (-3600.0, 12), (40 * 86400.0, 12)],
)
async def test_the_age_of_a_task_from_elsewhere(age: float | None, first: float) -> None:
    """Its age is told by its creation, unless that lies ahead, or absurdly far back; then from its first poll on."""
    created = None if age is None else datetime.fromtimestamp(Clock().now() - age, UTC)
    polls = ExactPolls([seen(TaskStatus.PROCESSING, created_at=created), seen(TaskStatus.COMPLETED)])
    await watch(polls, polling=twelve_seconds()).run()
    assert polls.at == [AT_ONCE, around(first)]


async def test_a_task_from_elsewhere_that_was_seen_before() -> None:
    """The age is that at the look from which the pause counts."""
    created = datetime.fromtimestamp(Clock().now() - 9, UTC)
    polls = ExactPolls([seen(TaskStatus.COMPLETED)])
    known = seen(TaskStatus.PROCESSING, created_at=created)
    await watch(polls, polling=twelve_seconds(), known=known, seen_at=asyncio.get_running_loop().time() - 5).run()
    assert polls.at == [around(3)]


@pytest.mark.parametrize("hours", [1, 12, -3])
async def test_a_clock_that_is_wrong_by_hours_delays_nothing(hours: float) -> None:
    """A task that was not submitted here, and is dated hours ago, is polled as one that began with the wait."""
    created = datetime.fromtimestamp(Clock().now() - 3600 * hours, UTC)
    polls = ExactPolls([seen(TaskStatus.PROCESSING, created_at=created), seen(TaskStatus.COMPLETED)])
    await watch(polls, polling=twelve_seconds()).run()
    assert polls.at == [AT_ONCE, around(12)]


async def test_a_failed_poll_is_repeated_as_the_prior_says() -> None:
    """After failures in a row the pauses are the prior's, from its first one on; `Retry-After` wins; then it plans."""
    slow = errors.RateLimitError("slow", retry_after=30)
    done = seen(TaskStatus.COMPLETED)
    polls = Polls([LOST, LOST, LOST, seen(TaskStatus.PENDING), LOST, slow, done])
    policy = Polling(wait=Learned(prior=Backoff(initial=3, factor=2, jitter=0)))
    await watch(polls, polling=policy).run()
    at = polls.at
    assert [late - early for early, late in itertools.pairwise(at)] == [3, 6, 12, 15, 3, 30]


async def first_polls(durations: Iterable[float], *, tasks: int) -> list[float]:
    """When each of so many tasks that are submitted at once is polled first, on the loop's clock, in order."""
    learned = Learned()
    for seconds in durations:
        learned.observe(("m", "t"), seconds)
    everyone = [ExactPolls([seen(TaskStatus.COMPLETED)]) for _ in range(tasks)]
    now = asyncio.get_running_loop().time()
    fields = {"known": seen(TaskStatus.PENDING), "seen_at": now, "submitted_at": now}
    await asyncio.gather(*(watch(polls, polling=Polling(wait=learned), **fields).run() for polls in everyone))
    return sorted(now + polls.at[0] for polls in everyone)


async def test_polls_of_tasks_submitted_together_are_spread_over_common_moments() -> None:
    """A hundred tasks that began at once are polled over more than a quarter second, at few and round moments."""
    rng = random.Random(1)
    moments = await first_polls([rng.lognormvariate(2, 0.25) for _ in range(50)], tasks=100)
    assert moments[-1] - moments[0] > 0.25
    assert moments == [pytest.approx(round(10 * moment) / 10, abs=0.03) for moment in moments]
    assert 3 < len({round(10 * moment) for moment in moments}) < 20


async def test_no_poll_waits_for_a_common_moment_that_is_too_late() -> None:
    """Where it is known to a hundredth of a second when tasks end, the polls keep to that."""
    now = asyncio.get_running_loop().time()
    end = math.ceil(now) + 7 - now
    moments = await first_polls([end + 0.001 * step for step in range(-5, 6)] * 5, tasks=20)
    assert all(0.05 < moment - now - end < 0.09 for moment in moments)


# Being cancelled, and company.


@pytest.mark.parametrize(("moment", "looked"), [(0.5, [0]), (3.0, [0]), (10.5, [0, 10]), (13.0, [0, 10])])
async def test_cancelling_stops_the_looking_at_once(moment: float, looked: list[int]) -> None:
    """A cancel during a poll or a pause ends the wait there and then; it is neither eaten nor turned to `None`."""
    polls = Polls([1.0])
    policy = Polling(wait=tenacity.wait_fixed(9))
    waiting = asyncio.create_task(watch(polls, polling=policy).run())
    await asyncio.sleep(moment)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert polls.now == pytest.approx(moment, abs=0.3)
    await asyncio.sleep(100)
    assert polls.at == looked


async def test_a_cancelled_poll_is_not_a_failed_one() -> None:
    """A `CancelledError` out of the poll itself is passed on, not counted."""
    polls = Polls([asyncio.CancelledError()])
    with pytest.raises(asyncio.CancelledError):
        await watch(polls).run()
    assert polls.at == [0]


async def test_one_policy_serves_many_waits() -> None:
    """Two hundred waits that share a policy do not mix up their attempts."""
    policy = Polling(wait=EVEN)

    async def wait(number: int) -> tuple[bool, list[int]]:
        polls = Polls([PENDING] * (number % 5) + [DONE])
        return await watch(polls, polling=policy).run() is DONE, polls.at

    found = await asyncio.gather(*map(wait, range(200)))
    assert found == [(True, [10 * step for step in range(number % 5 + 1)]) for number in range(200)]


@given(st.lists(st.sampled_from([PENDING, LOST, REFUSED, DONE]), max_size=12), st.integers(0, 90), st.integers(1, 4))
def test_a_wait_ends_as_its_script_says(script: list[Seen], timeout: int, most: int) -> None:
    """For any run of polls, the wait gives the first end within its time, the last of too many refusals, or `None`."""

    async def run() -> TaskInfo | BaseException | None:
        polls = Polls([*script, PENDING])
        waiting = watch(polls, timeout=timeout, polling=Polling(wait=EVEN, max_errors=most), **seen_ago(99)).run()
        return (await asyncio.gather(waiting, return_exceptions=True))[0]

    assert run_in_virtual_time(run()) is model(script, polls=math.ceil(timeout / 10) + 1, most=most)


def model(script: list[Seen], *, polls: int, most: int) -> Seen | None:
    """What a wait with so many polls should come to."""
    row = 0
    for seen in script[:polls]:
        row = row + 1 if seen is REFUSED else row if seen is LOST else 0
        if seen is DONE or row == most:
            return seen
    return None


# Strategies of tenacity's, and such as are wrong.


async def test_a_thousand_interleaved_waits_keep_their_own_counts() -> None:
    """Waits that share a policy and tenacity's own random wait are each polled by their own count of attempts.

    Each pause is drawn from 0 to a limit that doubles with each attempt of that wait, up to a minute: draws by the
    counts of other waits would not keep within it.
    """
    polling = Polling(wait=tenacity.wait_random_exponential(multiplier=1, max=60))

    async def wait(number: int) -> tuple[bool, list[float]]:
        polls = ExactPolls([PENDING] * (number % 9) + [LOST] * (number % 2) + [DONE])
        await asyncio.sleep(number / 500)
        polls.begun = asyncio.get_running_loop().time()
        return await watch(polls, polling=polling).run() is DONE, [float(moment) for moment in polls.at]

    found = await asyncio.gather(*map(wait, range(1200)))
    for number, (is_done, moments) in enumerate(found):
        assert is_done
        assert len(moments) == number % 9 + number % 2 + 1
        pauses = [late - early for early, late in itertools.pairwise(moments)]
        assert all(pause < min(60, 2.0**attempt) + 1.5 for attempt, pause in enumerate(pauses))


class Hostile(Exception):  # noqa: N818 - it is not ours
    """An exception that cannot be shown."""

    def __str__(self) -> str:
        raise ValueError("no words")


class Unshowable:
    """An object that cannot be shown."""

    def __repr__(self) -> str:
        raise ValueError("no words")


async def _coroutine() -> float:
    return 1.0


def raising(error: BaseException) -> Callable[[Any], Any]:
    """A strategy that raises."""

    def wait(_state: Any) -> float:
        raise error

    return wait


def returning(make: Callable[[], Any]) -> Callable[[Any], float]:
    """A strategy that returns something."""
    return lambda _state: make()


BROKEN: dict[str, Callable[[], Callable[[Any], float]]] = {
    **{
        repr(error): (lambda error=error: raising(error))  # type: ignore[misc]
        for error in (ZeroDivisionError("x"), KeyError("x"), RecursionError(), tenacity.TryAgain(), AssertionError())
    },
    "cancelled": lambda: raising(asyncio.CancelledError()),
    "hostile": lambda: raising(Hostile()),
    **{
        repr(value): (lambda value=value: returning(lambda: value))  # type: ignore[misc]
        for value in (math.nan, -1, -0.001, None, "3", b"3", True, math.inf, -math.inf, 10**400, 1j, (), timedelta(1))
    },
    "unshowable": lambda: returning(Unshowable),
    "a coroutine": lambda: returning(_coroutine),
    "no arguments": lambda: lambda: 1.0,  # type: ignore[misc, return-value]
}


@pytest.mark.parametrize("name", BROKEN)
async def test_a_strategy_that_is_wrong_costs_one_warning(name: str) -> None:
    """Whatever a wait strategy raises or returns, the wait goes on as `Backoff()` has it, and is warned of once."""
    polling = Polling(wait=BROKEN[name]())
    both = [Polls([PENDING, LOST, PENDING, DONE]) for _ in range(2)]
    with pytest.warns(RuntimeWarning, match="exponential backoff") as caught:
        ends = [await watch(polls, polling=attrs.evolve(polling)).run() for polls in both]
    assert ends == [DONE, DONE]
    assert all(3 <= polls.at[-1] - polls.at[0] <= 7 for polls in both)
    assert len(caught) == 1


async def test_a_warning_that_is_an_error_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """Where warnings are errors, as in this suite, the wait goes on all the same, and the log says why."""
    polls = Polls([PENDING, PENDING, DONE])
    assert await watch(polls, polling=Polling(wait=raising(OSError("disk")))).run() is DONE
    assert ["disk" in record.message for record in caplog.records] == [True]


@pytest.mark.parametrize("value", [0, 2, 1.5, Fraction(3, 2), np.float32(1.5), np.int64(2)])
async def test_any_number_is_a_pause(value: Any) -> None:
    """Whole numbers, fractions and NumPy's scalars are seconds like any other."""
    polls = ExactPolls([PENDING, DONE])
    assert await watch(polls, polling=Polling(wait=returning(lambda: value))).run() is DONE
    assert polls.at[-1] == pytest.approx(float(value), abs=0.3)


@pytest.mark.skipif(not hasattr(tenacity, "wait_exception"), reason="tenacity before 9.1")
async def test_a_wait_that_reads_exceptions() -> None:
    """`tenacity.wait_exception` decides after a poll that failed, `Backoff()` after the others, without a warning."""
    wait = tenacity.wait_exception(lambda error: 40.0 if error is LOST else 20.0)
    polls = Polls([PENDING, LOST, PENDING, errors.ServerError("x", status=500), DONE])
    assert await watch(polls, polling=Polling(wait=wait)).run() is DONE
    pauses = [late - early for early, late in itertools.pairwise(polls.at)]
    assert pauses[1::2] == [pytest.approx(40, abs=1), pytest.approx(20, abs=1)]
    assert all(1 <= pause <= 5 for pause in pauses[::2])


async def test_a_stop_of_tenacity_s_ends_a_wait_early() -> None:
    """A stop by attempts or by seconds, which are the event loop's, ends the wait like its time limit."""
    for stop, at in (
        (tenacity.stop_after_attempt(3), [0, 10, 20]),
        (tenacity.stop_after_delay(35), [0, 10, 20, 30, 40]),
    ):
        polls = Polls([PENDING])
        assert await watch(polls, polling=Polling(wait=EVEN, stop=stop)).run() is None
        assert polls.at == at


@pytest.mark.parametrize(
    ("stop", "words"),
    [
        (raising(KeyError("x")), "raised KeyError"),
        (raising(asyncio.CancelledError()), "raised .*CancelledError"),
        *((returning(lambda value=value: value), "neither True nor False") for value in (None, 1, "no", 3.5, [0])),  # type: ignore[misc]
        (returning(Unshowable), "neither True nor False"),
        (returning(_coroutine), "neither True nor False"),
        (returning(lambda: np.array([True, True])), "neither True nor False"),
    ],
)
async def test_a_stop_that_is_wrong_stops_nothing(stop: Any, words: str) -> None:
    """What a stop raises, and an answer that is neither yes nor no, costs one warning, not the wait."""
    polls = Polls([PENDING, PENDING, DONE])
    with pytest.warns(RuntimeWarning, match=words) as caught:
        assert await watch(polls, polling=Polling(wait=EVEN, stop=stop)).run() is DONE
    assert len(caught) == 1


async def test_a_stop_may_answer_by_numpy() -> None:
    """What NumPy compares is an answer, too."""
    polls = Polls([PENDING])
    stop = returning(lambda: np.float64(2) > 1)
    assert await watch(polls, polling=Polling(wait=EVEN, stop=stop)).run() is None
    assert polls.at == [0]


async def test_learned_is_a_wait_of_tenacity_s() -> None:
    """Under tenacity alone, `Learned` reads the outcome, and takes the time since the first attempt for the age."""
    learned = twelve_seconds().wait
    state = tenacity.RetryCallState(tenacity.AsyncRetrying(), None, (), {})
    state.set_result(seen(TaskStatus.UNKNOWN))
    assert learned(state) == around(12)
    state.start_time -= 11
    assert learned(state) == around(1)
    state.set_result("not a task")
    assert learned(state) == 3


async def test_a_completed_task_without_output_is_polled_each_second() -> None:
    """A task that is over and not as wanted lacks its output: it comes soon, whatever the policy's pause."""
    polls = Polls([PENDING, DONE, DONE, EMPTY_NO_MORE])
    poller = Poller(
        poll=polls,
        take_in=as_seen,
        until=EMPTY_NO_MORE.__eq__,
        polling=Polling(wait=EVEN),
        timeout=900.0,
        clock=Clock(),
    )
    assert await poller.run() is EMPTY_NO_MORE
    assert polls.at == [0, 10, 11, 12]
