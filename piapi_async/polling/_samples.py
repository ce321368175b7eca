"""The durations that are decided by, in the order in which their tasks began. A plain machine, bounded in memory.

Of tasks that are accepted together the quick ones end first. Taken in as they end, a thousand of them look as if the
service became slower all the time, and the latest 200 to end are all slow ones. So it is the latest to begin that are
kept, and a duration counts only when nearly all tasks that began with it have had the time to end; until then it is
young, and would tell of the quick ones alone.
"""

import math
from bisect import insort
from collections.abc import Iterable
from typing import Final, Self

import attrs

KEPT: Final = 200
"""So many durations count, and as many more may be young."""

NEARLY_ALL: Final = 0.9
"""A duration counts when, at the newest end, its task would be older than this share of the known durations."""

TOGETHER: Final = 5.0
"""Tasks that began in the same so many seconds count as begun together: a queue that grows behind them is no change."""

HAIR: Final = 0.0005
"""Seconds by which two sums of clock readings may differ and yet be equal. A machine that is up for ten years reads its
clock to 0.06 microseconds, and no duration is shorter than a millisecond."""

SCATTER: Final = 1000 * (1 + math.sqrt(5))
"""Scatters durations, also such as are whole seconds or milliseconds."""

Sample = tuple[float, float | None]
"""Seconds from acceptance to end, and those of them in the queue, if known."""

_Place = tuple[float, float, float]
_Entry = tuple[_Place, float, Sample]
"""Where a duration stands in the order, when its task began, and the duration."""


@attrs.define(eq=False)
class Past:
    """Durations of one kind of task."""

    _ripe: list[_Entry] = attrs.field(factory=list, init=False)
    _young: list[_Entry] = attrs.field(factory=list, init=False)
    _newest_end: float = attrs.field(default=-math.inf, init=False)
    _first_end: float = attrs.field(default=math.inf, init=False)
    _newest: float = attrs.field(default=-math.inf, init=False)
    _usual: float = attrs.field(default=0.0, init=False)
    _usual_for: int = attrs.field(default=0, init=False)
    _since: _Place = attrs.field(default=(-math.inf, 0.0, 0.0), init=False)

    @classmethod
    def of(cls, samples: Iterable[Sample]) -> Self:
        """What was seen before, elsewhere, by another clock: whatever comes began later."""
        past = cls()
        for seen in samples:
            past.add(seen, began=None)
        return past

    def __reduce__(self) -> tuple[object, ...]:
        """A copy may come to another machine, whose clock is another."""
        return type(self).of, (self.known,)

    def __len__(self) -> int:
        """How many durations count."""
        return len(self._ripe)

    @property
    def is_first_burst(self) -> bool:
        """Whether all that is known is of tasks that went side by side: the others of them may wait for their turn."""
        return self._first_end > self._newest

    @property
    def samples(self) -> list[Sample]:
        """The durations that count."""
        return [seen for *_, seen in self._ripe]

    @property
    def known(self) -> list[Sample]:
        """The latest durations, those that do not count yet among them."""
        return [seen for *_, seen in (*self._ripe, *self._young)][-KEPT:]

    def add(self, seen: Sample, *, began: float | None) -> int:
        """Take in one duration.

        Args:
            seen: The duration.

            began: When the task did, on a clock that does not go back. `None` is after all that count, and such a
                duration counts at once.

        Returns:
            How many more count.
        """
        self._first_end = min(self._first_end, math.inf if began is None else began + seen[0])
        self._newest = max(self._newest, math.inf if began is None else began)
        if began is None:
            return self._count([(self._ripe[-1][0] if self._ripe else self._since, -math.inf, seen)])
        # Where it stands among those that began together must have nothing to do with how long it took.
        place = (began // TOGETHER, seen[0] * SCATTER % 1.0, seen[0])
        insort(self._young, (place, began, seen), key=_place)
        del self._young[:-KEPT]
        self._newest_end = max(self._newest_end, began + seen[0])
        return self._count(self._ripened())

    def forget(self, count: int) -> None:
        """Let the oldest that count go; what began before those that stay will not count either."""
        if count:
            self._since = self._ripe[count][0]
            del self._ripe[:count]

    def _ripened(self) -> list[_Entry]:
        self._usual_for -= 1
        if self._usual_for < 0:  # one more among hundreds changes little
            seconds = sorted(entry[2][0] for entry in (*self._ripe, *self._young))
            self._usual = seconds[int(NEARLY_ALL * (len(seconds) - 1))]
            self._usual_for = len(seconds) // 20
        # The task that ended last is as old as it took, but (began + seconds) - seconds may be less than began.
        before = self._newest_end - self._usual + HAIR
        ripened = [entry for entry in self._young if entry[1] <= before]
        if ripened:
            self._young = [entry for entry in self._young if entry[1] > before]
        return ripened

    def _count(self, ripened: list[_Entry]) -> int:
        counting = [entry for entry in ripened if _place(entry) >= self._since]
        for entry in counting:
            insort(self._ripe, entry, key=_place)
        del self._ripe[:-KEPT]
        return len(counting)


def _place(entry: _Entry) -> _Place:
    return entry[0]
