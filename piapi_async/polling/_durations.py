"""What was seen of tasks that are over, and the plans that follow: plain machines, bounded in memory and time."""

import json
import math
from bisect import bisect_left, bisect_right
from collections.abc import Hashable, Iterable, Iterator, Sequence
from datetime import datetime
from functools import cached_property
from itertools import accumulate
from typing import Any, Final, Self

import attrs

from piapi_async.polling._samples import Past, Sample
from piapi_async.polling._schedule import Curve, Plan, estimate, plan, plan_queued
from piapi_async.task import TaskInfo, TaskStatus

KINDS: Final = 64
"""So many kinds of task are known, the latest ones seen to end."""

BRIEFEST: Final = 0.001
MOST: Final = 30 * 86400.0
"""What is outside of these seconds is no duration."""

TRUSTED: Final = 3
"""Fewer durations than these may be exceptions."""

CHECKED_EVERY: Final = 8
SURPRISE: Final = 4.3
"""After how many durations a change is looked for, and how many standard deviations a rank sum must be off: for that it
takes seven durations on each side. Where nothing changes, it happens about once in 50,000 tasks."""

SLACK: Final = 5.0
"""By so many seconds a duration as the service tells it may lie outside of what was seen from here."""

STAMPED: Final = 0.35
STAMPED_WEIGHT: Final = 0.1
"""A service that stamps a task's end when it is asked tells that each ended just as it was polled. Taken at its word,
the next poll is planned for later, finds a later end, and so on without bound. So the time between end and poll is
compared with what the distribution of durations lets one expect. Of an honest service the two are equal on average,
whether its tasks are spread or all alike; when their mean ratio, moving by this weight, falls below the first number,
the ends are not believed. That takes ten such tasks."""


def sample(seconds: float, *, queued: float | None = None) -> Sample | None:
    """One duration, or `None` when it cannot be one; a time in the queue that cannot be is left out."""
    if not BRIEFEST <= seconds <= MOST:
        return None
    return float(seconds), float(queued) if queued is not None and 0 <= queued < seconds else None


@attrs.define(eq=False, slots=False)
class Fit:
    """The best polls by some durations; each part is made when it is first asked for, since most are not."""

    samples: list[Sample]
    price: float

    @cached_property
    def curve(self) -> Curve:
        """How long the tasks take."""
        return estimate([seconds for seconds, _ in self.samples])

    @cached_property
    def whole(self) -> Plan:
        """The best polls of tasks of which no more is known."""
        return plan(self.curve, price=self.price)

    @cached_property
    def works(self) -> Curve | None:
        """How long the tasks run; `None` while too little is known of that."""
        works = [max(seconds - queued, BRIEFEST) for seconds, queued in self.samples if queued is not None]
        return estimate(works) if 2 * len(works) > len(self.samples) else None

    @cached_property
    def running(self) -> Plan | None:
        """The best polls of tasks that run, by the time they do so; `None` while too little is known of that."""
        return None if self.works is None else plan(self.works, price=self.price)

    @cached_property
    def queued(self) -> Plan | None:
        """The best polls of tasks that wait for a worker; `None` while too little is known of that."""
        if self.running is None:
            return None
        waits = [max(queued, BRIEFEST) for _, queued in self.samples if queued is not None]
        return plan_queued(estimate(waits), totals=self.curve, running=self.running)

    def follow(self, other: "Fit") -> bool:
        """Make one of the plans that another has, the others at other times; whether all of them are made."""
        missing = [name for name in ("running", "queued", "whole") if name in vars(other) and name not in vars(self)]
        if missing:
            getattr(self, missing[0])
        return len(missing) <= 1


@attrs.define(eq=False)
class Kind:
    """One kind of task: the durations seen, and the best polls by them."""

    price: float
    past: Past = attrs.field(factory=Past)
    _new: int = 0
    _unchecked: int = 0
    _fit: Fit | None = None
    _next: Fit | None = None
    _promptness: float = 1.0
    _judged: float = -math.inf

    @classmethod
    def of(cls, samples: Iterable[Sample], *, price: float) -> Self:
        """What was seen before, elsewhere."""
        return cls(price, Past.of(samples))

    def observe(self, told: Sample | None, *, began: float | None, between: tuple[float, float] | None) -> None:
        """Take in one task that is over.

        Args:
            told: How long it took, as the service tells it.

            began: When it was accepted.

            between: Its age when it was last seen going on, and when it was first seen to be over.
        """
        if between is None:
            seen = told if self._is_believed else None
        else:
            least, most = between
            if told is not None and not least - SLACK <= told[0] <= most + SLACK:
                told = None  # a clock that jumped, or the time of something else
            # Tasks that go side by side are polled side by side: of those, one tells as much as all of them.
            if told is not None and not (began is not None and abs(began - self._judged) < most):
                self._judged = -math.inf if began is None else began
                self._judge(told, least=least, most=most)
            seen = told if told is not None and self._is_believed else sample((least + most) / 2)
        if seen is None:
            return
        more = self.past.add(seen, began=began)
        self._new += more
        self._unchecked += more
        if self._unchecked >= CHECKED_EVERY:
            self._unchecked = 0
            self._forget(change([seconds for seconds, _ in self.past.samples]))

    @property
    def _is_believed(self) -> bool:
        """Whether the ends that the service tells are those of its tasks."""
        return self._promptness >= STAMPED

    def _judge(self, told: Sample, *, least: float, most: float) -> None:
        """Compare how long before the poll the task ended with what was to be expected; see `STAMPED`."""
        if not self.past:
            return
        (end, queued), curve = told, self.fit.curve
        if queued is not None and self.fit.works is not None:
            # Where the start is known, polls are planned from there on, and hit much better than by the age alone.
            end, least, most, curve = end - queued, max(0.0, least - queued), most - queued, self.fit.works
        expected = curve.lateness(least, most)
        if expected < BRIEFEST:
            return
        was_believed = self._is_believed
        self._promptness += STAMPED_WEIGHT * (min(max((most - end) / expected, 0.0), 2.0) - self._promptness)
        if was_believed and not self._is_believed:
            self.past, self._fit, self._next = Past(), None, None  # it holds the times of polls

    def _forget(self, count: int) -> None:
        self.past.forget(count)
        if count:
            self._fit = self._next = None

    @property
    def fit(self) -> Fit:
        """The best polls, anew when a quarter more durations count than they follow from, and after a change."""
        if self._fit is None:
            self._fit, self._new = Fit(self.past.samples, self.price), 0
        elif self._next is None and self._new > len(self._fit.samples) // 4:
            self._next, self._new = Fit(self.past.samples, self.price), 0
        if self._next is not None and self._next.follow(self._fit):
            self._fit, self._next = self._next, None
        return self._fit

    @property
    def is_trusted(self) -> bool:
        """Whether enough is known to leave a task alone for longer than one would without."""
        return len(self.past) >= TRUSTED and not self.past.is_first_burst

    def pause(self, elapsed: float, *, queued: bool | None, running_for: float | None, chance: float) -> float:
        """Seconds until the next poll."""
        fit = self.fit
        if running_for is not None and fit.running is not None:
            return fit.running.spread(running_for, chance=chance)
        plan = fit.queued if queued and running_for is None else None
        return (plan or fit.whole).spread(elapsed, chance=chance)


@attrs.define(eq=False)
class Memory:
    """All kinds of task that are known, the one seen last at the end."""

    price: float
    kinds: dict[Hashable, Kind] = attrs.field(factory=dict)

    def known(self, key: Hashable) -> Kind | None:
        """A kind of task of which a duration counts."""
        kind = self.kinds.get(key)
        return kind if kind is not None and len(kind.past) else None

    def observe(
        self, key: Hashable, told: Sample | None, *, began: float | None, between: tuple[float, float] | None
    ) -> None:
        """Take in one task that is over; the arguments are those of `Kind.observe`."""
        kind = self.kinds.pop(key, None) or Kind(self.price)
        kind.observe(told, began=began, between=between)
        if kind.past.known:
            self.kinds[key] = kind
        if len(self.kinds) > KINDS:
            del self.kinds[next(iter(self.kinds))]

    def dump(self) -> str:
        """Everything, as JSON."""
        kinds = [{"key": key, "seconds": kind.past.known} for key, kind in self.kinds.items()]
        return json.dumps({"version": 1, "kinds": kinds})

    def load(self, text: str | bytes) -> None:
        """Take over what `dump` gave.

        Raises:
            ValueError: This is something else.
        """
        try:
            self.kinds.update((key, Kind.of(samples, price=self.price)) for key, samples in _read(json.loads(text)))
        except (TypeError, LookupError, RecursionError) as error:
            raise ValueError("not the state of a memory") from error


def _read(state: Any) -> Iterator[tuple[Hashable, list[Sample]]]:
    if state["version"] != 1:
        raise ValueError("of another version")
    for kind in state["kinds"][-KINDS:]:
        key, samples = kind["key"], [sample(seconds, queued=queued) for seconds, queued in kind["seconds"]]
        yield _key(key), _complete(samples)


def _key(read: Any) -> Hashable:
    return tuple(map(_key, read)) if isinstance(read, list) else read


def _complete(samples: list[Sample | None]) -> list[Sample]:
    found = [seen for seen in samples if seen is not None]
    if not found or len(found) < len(samples):
        raise ValueError("no durations")
    return found


def change(values: Sequence[float]) -> int:
    """Where the values from there on differ most from those before, if by more than chance; otherwise 0.

    It is told by Wilcoxon's rank sum of those before, for every place, in standard deviations.
    """
    count = len(values)
    ordered = sorted(values)
    middle, scale = count / 2, (count + 1) / 12
    sums = accumulate((bisect_left(ordered, value) + bisect_right(ordered, value)) / 2 - middle for value in values)
    surprises = (
        (abs(total) / math.sqrt(at * (count - at) * scale), at) for at, total in enumerate(sums, start=1) if at < count
    )
    surprise, at = max(surprises, default=(0.0, 0))
    return at if surprise > SURPRISE else 0


def lasted(info: TaskInfo) -> tuple[float | None, float | None]:
    """How long a task that is over took, and for how much of that it queued, by the service's own times."""
    return _seconds(info.created_at, info.ended_at), _seconds(info.created_at, info.started_at)


def phase(info: TaskInfo, *, elapsed: float) -> tuple[bool, float | None]:
    """Whether a task waits for a worker, and for how many seconds one has run it, as far as that can be told.

    The service's clock and the one here may differ, so the time in the queue is taken from the one, and the task's age
    from the other.
    """
    waited = _seconds(info.created_at, info.started_at)
    if info.status is TaskStatus.PROCESSING and waited is not None:
        return False, max(0.0, elapsed - waited)
    return info.status in (TaskStatus.PENDING, TaskStatus.STAGED), None


def _seconds(begin: datetime | None, end: datetime | None) -> float | None:
    """From one of the service's times to another, unless one is missing or they are in the wrong order."""
    if begin is None or end is None or end < begin:
        return None
    return (end - begin).total_seconds()
