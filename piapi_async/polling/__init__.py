"""When to poll a task next: `Polling`, and its wait strategies `Learned`, `Backoff` and all of tenacity's.

The policies are here; `_poller` is the loop that tenacity drives by them.
"""

import enum
import math
from collections.abc import Hashable
from functools import partial
from typing import Final, Self

import attrs
import tenacity

from piapi_async import _validators
from piapi_async._asyncio import chance as draw
from piapi_async.polling._durations import MOST, Memory, phase, sample
from piapi_async.retry import StopStrategy, WaitStrategy, exponential
from piapi_async.task import TaskInfo

TOGETHER: Final = 0.1
"""Polls that may as well be a little earlier or later are at common moments, this many seconds apart: to wake up for
one poll costs about as much as the poll."""

_STEPS = 200  # so many pauses of a prior that hardly grows are told apart


class Unset(enum.Enum):
    """The type of `UNSET`."""

    UNSET = "not given"

    def __repr__(self) -> str:
        return "UNSET"


UNSET: Final = Unset.UNSET
"""Not given: the policy's own value holds. `None`, by contrast, is "no limit"."""


@attrs.frozen(kw_only=True)
class Backoff:
    """Poll ever less often: pauses in seconds that grow by a factor up to a maximum, plus chance.

    Args:
        initial: The first pause.

        factor: What each pause is multiplied by, at least 1.

        maximum: The longest pause.

        jitter: The most that is added at random, so that tasks submitted together are not looked at together.

    Raises:
        TypeError: A field is no number.
        ValueError: A field is out of its range.
    """

    initial: float = attrs.field(default=1.0, validator=_validators.number(above=0))
    factor: float = attrs.field(default=1.5, validator=_validators.number(at_least=1))
    maximum: float = attrs.field(default=15.0, validator=_validators.number(above=0))
    jitter: float = attrs.field(default=0.5, validator=_validators.number(at_least=0))

    def __call__(self, state: tenacity.RetryCallState) -> float:
        """Seconds to wait after the attempt that `state` describes, as tenacity asks for it."""
        return exponential(state, initial=self.initial, base=self.factor, maximum=self.maximum, jitter=self.jitter)

    def after(self, elapsed: float, *, chance: float = 0.5) -> float:
        """Seconds to wait when the task is so old, and was polled by this schedule from the start.

        Args:
            elapsed: Seconds since the start, at least 0.

            chance: Where in the range of the jitter, from 0 to 1; a half is its mean.
        """
        pause, before, poll = self.initial, 0.0, self.initial + self.jitter / 2
        for _ in range(_STEPS):
            longer = min(self.maximum, pause * self.factor)
            if longer == pause or 2 * elapsed < before + poll:
                break
            pause, before, poll = longer, poll, poll + longer + self.jitter / 2
        return min(self.maximum, pause + self.jitter * chance)


@attrs.define(kw_only=True)
class TaskWait:
    """What belongs to one wait, for a strategy that wants to know more than tenacity tells: `RetryCallState.args[0]`.

    Attributes:
        age: How many seconds after the task was accepted the last poll that succeeded was made.

        polled_at: When that was, on the event loop's clock.

        failing_for: Seconds from the first to the last of the polls that failed since.
    """

    age: float = attrs.field(default=0.0, init=False)
    polled_at: float = attrs.field(default=0.0, init=False)
    failing_for: float = attrs.field(default=0.0, init=False)


@attrs.define(kw_only=True, eq=False)
class Learned:
    """Poll when it is likely to pay, as learned from the tasks that are over. It is the default.

    A poll costs 1, and each second between a task's end and the poll that shows it costs `price`. The polls that cost
    least on average (Barlow, Hunter and Proschan 1963) follow from how long such tasks take, which the service tells
    exactly (`ended_at - created_at`), for each (model, task_type). It also tells whether a task still queues or since
    when it runs (`started_at`), and that is used as well.

    Until the first task of its kind is over, a task is polled by `prior`. The latest 200 durations of each of the
    latest 64 kinds are kept; when tasks begin to take longer or shorter, those from before are forgotten within a dozen
    tasks or two after the first that were accepted since then have had the time to end. Tasks that failed are learned
    from like those that completed; those that were cancelled or given up are not. Where the service does not tell when
    a task ended, or stamps it with the time at which it was asked, a duration is taken to be the middle between the
    last poll before the end and the first one after it.

    It is a wait of tenacity's: it reads the last outcome, a `TaskInfo`, from the `RetryCallState`. One object may serve
    many sessions, and learns from all of them; two are equal only if they are the same. It does no I/O and reads no
    clock, and is not made for several threads. `to_json` and `from_json` carry what was learned to a new process.

    Args:
        price: How many polls a second of lateness is worth, 0.001 to 1000. With 2, the default, a task is polled once
            more to know of its end half a second earlier.

        prior: How to poll while nothing is known, and after a poll that failed.

    Raises:
        TypeError: A field has the wrong type.
        ValueError: `price` is out of its range.
    """

    price: float = attrs.field(
        default=2.0, validator=_validators.number(at_least=0.001, at_most=1000), on_setattr=attrs.setters.frozen
    )
    prior: Backoff = attrs.field(
        factory=Backoff,
        validator=_validators.instance_of(Backoff, allowed="a Backoff"),
        on_setattr=attrs.setters.frozen,
    )
    _memory: Memory = attrs.field(init=False, repr=False)

    def __attrs_post_init__(self) -> None:
        self._memory = Memory(self.price)

    def __call__(self, state: tenacity.RetryCallState) -> float:
        """Seconds to wait after the poll that `state` describes; those of `prior` when it did not show a task.

        The age of the task is that of the wait (`TaskWait`), or what has passed since the first attempt where somebody
        else than this package drives the attempts.
        """
        wait = next((one for one in state.args if isinstance(one, TaskWait)), None)
        info = None if state.outcome is None or state.outcome.failed else state.outcome.result()
        if not isinstance(info, TaskInfo):
            return self.prior(state) if wait is None else self.prior.after(wait.failing_for, chance=draw())
        if wait is None:
            age, polled_at = state.seconds_since_start or 0.0, state.outcome_timestamp or 0.0
        else:
            age, polled_at = wait.age, wait.polled_at
        queued, running_for = phase(info, elapsed=age)
        plan = partial(self.delay, (info.model, info.task_type), age, queued=queued, running_for=running_for)
        return _at_common_moment(plan(chance=0.0), plan(chance=1.0), since=polled_at)

    def observe(
        self,
        key: Hashable,
        seconds: float | None,
        *,
        queued: float | None = None,
        began: float | None = None,
        between: tuple[float, float] | None = None,
    ) -> None:
        """Learn from one task that is over.

        Args:
            key: The kind of task: for a session, (model, task_type).

            seconds: From acceptance to end, as the service tells it; `None` when it does not. What cannot be (nothing,
                less, more than 30 days) is taken for not told.

            queued: How many of them it waited for a worker, if that is known.

            began: When it was accepted, in seconds on a clock that does not go back. Needed where tasks go side by
                side: of those accepted together the quick ones end first, and nothing may be concluded from them alone.

            between: Its ages at the last poll that showed it going on, and at the one that showed it over. The middle
                of them stands in for `seconds` where those are not told, contradict them by more than 5 s, or have
                turned out to be nothing but the time of that poll.
        """
        told = None if seconds is None else sample(seconds, queued=queued)
        began = began if began is not None and math.isfinite(began) else None
        self._memory.observe(key, told, began=began, between=between)

    def delay(
        self,
        key: Hashable,
        elapsed: float,
        *,
        queued: bool | None = None,
        running_for: float | None = None,
        chance: float = 0.5,
    ) -> float:
        """Seconds from now until the next poll of a task that is not over.

        Args:
            key: The kind of task.

            elapsed: Seconds since it was accepted.

            queued: Whether it is known to wait for a worker still.

            running_for: For how many seconds it has run, if that is known.

            chance: From 0 to 1: where in a small range around the best moment, so that tasks submitted together are
                not polled together; a half is the best moment itself.

        Returns:
            More than 0; at most 70 s or a little more than `elapsed`, and never over 690 s, unless `prior` says so.
        """
        kind = self._memory.known(key)
        if kind is None:
            return self.prior.after(_age(elapsed), chance=chance)
        running_for = None if running_for is None else _age(running_for)
        pause = kind.pause(_age(elapsed), queued=queued, running_for=running_for, chance=chance)
        return pause if kind.is_trusted else min(pause, self.prior.maximum)

    def urgency(self, key: Hashable, elapsed: float, *, since: float) -> float:
        """How likely a task that was not over when it was `since` seconds old is over now, from 0 to 1.

        Where polls are scarce, those of the likeliest tasks gain most.

        Args:
            key: The kind of task.

            elapsed: Seconds since it was accepted.

            since: How many of them had passed at the last poll.
        """
        elapsed, since = _age(elapsed), min(_age(since), _age(elapsed))
        kind = self._memory.known(key)
        if kind is None:
            return (elapsed - since) / (elapsed + self.prior.initial)
        curve = kind.fit.curve
        return (curve.share(elapsed) - curve.share(since)) / (1 - curve.share(since))

    def to_json(self) -> str:
        """What was learned, as JSON. Keys must be strings, numbers or tuples of such.

        Raises:
            TypeError: A key is something else.
        """
        return self._memory.dump()

    @classmethod
    def from_json(cls, text: str | bytes, *, price: float = 2.0, prior: Backoff | None = None) -> Self:
        """A new object that knows what another one had learned.

        Args:
            text: What `to_json` gave.

            price: As for the class; it need not be what it was.

            prior: As for the class.

        Raises:
            ValueError: This is nothing that `to_json` gave.
        """
        learned = cls(price=price, prior=Backoff() if prior is None else prior)
        try:
            learned._memory.load(text)
        except ValueError as error:
            raise _validators.refuse(
                ValueError, name="text", allowed="what Learned.to_json gave", value=text
            ) from error
        return learned


def _age(seconds: float) -> float:
    """A number of seconds as an age: never negative, and not beyond what tasks can take."""
    return min(seconds, MOST) if seconds > 0 else 0.0


def _at_common_moment(earliest: float, latest: float, *, since: float) -> float:
    """A pause within bounds, by chance; it ends at a common moment if one of them can be reached."""
    first, last = math.ceil((since + earliest) / TOGETHER), math.floor((since + latest) / TOGETHER)
    if first > last:
        return earliest + draw() * (latest - earliest)
    # What is added to a large reading of the clock, and taken off again, may come out a hair too early.
    return max(earliest, (first + math.floor(draw() * (last - first + 1))) * TOGETHER - since)


@attrs.frozen(kw_only=True)
class Polling:
    """How a task is waited for.

    Args:
        wait: When to poll next: `Learned`, a `Backoff`, or any wait of tenacity's. `RetryCallState.outcome` holds the
            task as last seen, or what the last poll met. A longer `Retry-After` of the server wins, up to
            `Governor.max_pause`. What a strategy raises, and what it returns that is not a number of seconds, costs one
            warning, and the wait goes on as `Backoff()` has it. Not given, it is a `Learned` of this policy's own,
            shared by all that use the policy.

        timeout: Seconds that the whole wait may take, 0 for a single poll, or `None` for no limit. The wait ends with
            a poll at that very moment. It is what ends a wait: a poll that failed is never a failed task.

        max_errors: After this many refusals (401, 404 and other 4xx of PiAPI's own) without a poll that shows the task
            between them, the wait gives up with the last of them; at least 1. Outages, time-outs, 429s and pages of
            something in front of PiAPI do not count.

        stop: A stop of tenacity's that ends the wait earlier than `timeout` does, with the same `WaitTimeoutError`.
            What it raises, and what it returns that is neither `True` nor `False`, costs one warning, and counts as
            `False`.

    Raises:
        TypeError: A field has the wrong type.
        ValueError: A field is out of its range.
    """

    wait: WaitStrategy = attrs.field(factory=Learned, validator=_validators.callable_)
    timeout: float | None = attrs.field(default=900.0, validator=_validators.optional(_validators.number(at_least=0)))
    max_errors: int = attrs.field(default=10, validator=_validators.number(at_least=1, integer=True))
    stop: StopStrategy | None = attrs.field(default=None, validator=_validators.optional(_validators.callable_))
