"""When to look at a task next: `Polling`, and its wait strategies `Learned`, `Backoff` and all of tenacity's.

The policies are here; `_watch` is the loop that asks them.
"""

import enum
import math
from collections.abc import Callable, Hashable
from typing import Final, Self

import attrs
import tenacity

from piapi_async import _checks
from piapi_async._clock import chance
from piapi_async._learning import MOST, Memory, sample
from piapi_async.retry import exponential
from piapi_async.task import TaskInfo

_STEPS = 200  # so many pauses of a prior that hardly grows are told apart
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

    def after(self, elapsed: float, *, chance: float = 0.5) -> float:
        """Seconds to wait when the task is so old, and was looked at by this schedule from the start.

        Args:
            elapsed: Seconds since the start, at least 0.

            chance: Where in the range of the jitter, from 0 to 1; a half is its mean.
        """
        pause, before, look = self.initial, 0.0, self.initial + self.jitter / 2
        for _ in range(_STEPS):
            longer = min(self.maximum, pause * self.factor)
            if longer == pause or 2 * elapsed < before + look:
                break
            pause, before, look = longer, look, look + longer + self.jitter / 2
        return min(self.maximum, pause + self.jitter * chance)


@attrs.define(kw_only=True, eq=False)
class Learned:
    """Look when it is likely to pay, as learned from the tasks that are over. It is the default.

    A look costs 1, and each second between a task's end and the look that shows it costs `price`. The looks that cost
    least on average (Barlow, Hunter and Proschan 1963) follow from how long such tasks take, which the service tells
    exactly (`ended_at - created_at`), for each (model, task_type). It also tells whether a task still queues or since
    when it runs (`started_at`), and that is used as well.

    Until the first task of its kind is over, a task is looked at by `prior`. The latest 200 durations of each of the
    latest 64 kinds are kept; when tasks begin to take longer or shorter, those from before are forgotten within a dozen
    tasks or two after the first that were accepted since then have had the time to end. Durations of tasks that failed,
    were cancelled or were given up are not learned from.

    One object may serve many sessions, and learns from all of them; two are equal only if they are the same. It does no
    I/O and reads no clock, and is not made for several threads. `to_json` and `from_json` carry what was learned to a
    new process.

    Args:
        price: How many looks a second of lateness is worth, 0.001 to 1000. With 2, the default, a task is looked at
            once more to know of its end half a second earlier.

        prior: How to look while nothing is known, and after a look that failed.

    Raises:
        TypeError: A field has the wrong type.
        ValueError: `price` is out of its range.
    """

    price: float = attrs.field(
        default=2.0, validator=_checks.number(at_least=0.001, at_most=1000), on_setattr=attrs.setters.frozen
    )
    prior: Backoff = attrs.field(
        factory=Backoff,
        validator=_checks.instance_of(Backoff, allowed="a Backoff"),
        on_setattr=attrs.setters.frozen,
    )
    _memory: Memory = attrs.field(init=False, repr=False)

    def __attrs_post_init__(self) -> None:
        self._memory = Memory(self.price)

    def __call__(self, state: tenacity.RetryCallState) -> float:
        """Seconds to wait when no more is known than how often it was tried: those of `prior`."""
        return self.prior(state)

    def observe(
        self, key: Hashable, seconds: float, *, queued: float | None = None, began: float | None = None
    ) -> None:
        """Learn from one task that is over.

        Args:
            key: The kind of task: for a session, (model, task_type).

            seconds: From acceptance to end. What cannot be (nothing, less, more than 30 days) is passed over.

            queued: How many of them it waited for a worker, if that is known.

            began: When it was accepted, in seconds on a clock that does not go back. Needed where tasks go side by
                side: of those accepted together the quick ones end first, and nothing may be concluded from them alone.
        """
        seen = sample(seconds, queued=queued)
        if seen is not None:
            self._memory.observe(key, seen, began=began if began is not None and math.isfinite(began) else None)

    def delay(
        self,
        key: Hashable,
        elapsed: float,
        *,
        queued: bool | None = None,
        running_for: float | None = None,
        chance: float = 0.5,
    ) -> float:
        """Seconds from now until the next look at a task that is not over.

        Args:
            key: The kind of task.

            elapsed: Seconds since it was accepted.

            queued: Whether it is known to wait for a worker still.

            running_for: For how many seconds it has run, if that is known.

            chance: From 0 to 1: where in a small range around the best moment, so that tasks submitted together are
                not looked at together; a half is the best moment itself.

        Returns:
            More than 0; at most 70 s or a little more than `elapsed`, and never over 690 s, unless `prior` says so.
        """
        kind = self._memory.kinds.get(key)
        if kind is None:
            return self.prior.after(_age(elapsed), chance=chance)
        running_for = None if running_for is None else _age(running_for)
        pause = kind.pause(_age(elapsed), queued=queued, running_for=running_for, chance=chance)
        return pause if kind.is_trusted else min(pause, self.prior.maximum)

    def urgency(self, key: Hashable, elapsed: float, *, since: float) -> float:
        """How likely a task that was not over when it was `since` seconds old is over now, from 0 to 1.

        Where looks are scarce, those at the likeliest tasks gain most.

        Args:
            key: The kind of task.

            elapsed: Seconds since it was accepted.

            since: How many of them had passed at the last look.
        """
        elapsed, since = _age(elapsed), min(_age(since), _age(elapsed))
        kind = self._memory.kinds.get(key)
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
            raise _checks.refuse(ValueError, name="text", allowed="what Learned.to_json gave", value=text) from error
        return learned


def _age(seconds: float) -> float:
    """A number of seconds as an age: never negative, and not beyond what tasks can take."""
    return min(seconds, MOST) if seconds > 0 else 0.0


@attrs.frozen(kw_only=True)
class Polling:
    """How a task is waited for.

    Args:
        wait: When to look next: `Learned`, a `Backoff`, or any wait of tenacity's. A longer `Retry-After` of the server
            wins. Not given, it is a `Learned` of this policy's own, shared by all that use the policy.

        timeout: Seconds that the whole wait may take, 0 for a single look, or `None` for no limit. The wait ends with
            a look at that very moment.

        max_errors: After so many failed looks in a row the wait gives up with what the last one met; at least 1.

    Raises:
        TypeError: A field has the wrong type.
        ValueError: A field is out of its range.
    """

    wait: Callable[[tenacity.RetryCallState], float] = attrs.field(factory=Learned, validator=_checks.callable_)
    timeout: float | None = attrs.field(default=900.0, validator=_checks.optional(_checks.number(at_least=0)))
    max_errors: int = attrs.field(default=10, validator=_checks.number(at_least=1, integer=True))


@attrs.define
class Attempts:
    """The looks of one wait so far, as tenacity's waits read them."""

    _state: tenacity.RetryCallState | None = None

    def after(self, seen: TaskInfo | Exception) -> tenacity.RetryCallState:
        """The state after one more, which showed or met that."""
        if self._state is None:
            # tenacity's AsyncRetrying would drive the loop too, but costs 3 KB a waiting task.
            self._state = tenacity.RetryCallState(_RETRYING, None, (), {})
        else:
            self._state.prepare_for_next_attempt()
        if isinstance(seen, Exception):
            self._state.set_exception((type(seen), seen, None))
        else:
            self._state.set_result(seen)
        return self._state

    def forget(self) -> None:
        """Begin to count anew."""
        self._state = None
