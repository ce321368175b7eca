"""What the server is believed to bear, as mathematics: a pace that is learned, and a cap that is learned. No I/O.

Nobody says how many requests a second PiAPI bears. A `Pace` begins without a limit, or with the one it was told, falls
on a refusal to a little less than what was accepted in the second before, and grows back as TCP CUBIC does: quickly
while it is far below the rate that failed, very slowly round it, and ever faster beyond it. Requests are spread evenly
at that pace, since a burst meets a limit that the same number of requests, spread, would have kept.

Times are seconds on any clock that does not go back.
"""

import math
from collections import deque
from contextlib import suppress

import attrs

Sent = tuple[float, float]
"""When a request went: the time, and the time without what was spent in pauses."""

PLATEAU = 15.0
"""Seconds after the first fall until the pace that failed is reached again; twice as many after each further one."""

PLATEAU_MAX = 60.0
"""The most of them, if a refusal costs a pause of 1 s or less."""

DEAR = 5.0
"""Where it costs more, they grow with it, up to so many times."""

FALL = 0.07
"""How much of the accepted rate is given up at a fall."""

CREDIT_SECONDS = (10.0, 150.0)
"""The least and the most seconds over which a mean rate tells something of it."""

CREDIT = 0.7
"""A mean rate below this part of the last second's shows that the server gives credit, which is used up."""

SLOWEST = 0.02
"""Requests a second that are always tried."""

SLACK = 0.1
"""Seconds by which a request may be ahead of its time, so that timers which fire late lose nothing."""

FEW = 3.0
"""Requests in a second up to which one refusal says nothing of the pace; a second one soon after it does."""

SOON = 60.0
"""Seconds within which two refusals belong together."""

STRIKES = 2
"""After so many refusals a further one is certain to be due to the cap; each task more that is accepted undoes some."""

PROBE = 5.0
"""Seconds until one task more is tried after the cap has refused one; doubled each time up to `PROBE_MAX`."""

PROBE_MAX = 300.0


@attrs.define(kw_only=True, eq=False)
class Pace:
    """How many requests a second may go.

    In any stretch of time no more than `ceiling` times its seconds, and 1 + `ceiling` times `slack`, pass.

    Args:
        ceiling: The most there may ever be.

        slack: Seconds by which a request may be ahead of its time.

    Attributes:
        knee: The rate that was refused last, as far as it was accepted; infinite as long as none was.
    """

    ceiling: float = math.inf
    slack: float = SLACK
    knee: float = attrs.field(default=math.inf, init=False)
    _fell_at: float = attrs.field(default=-math.inf, init=False)
    _refused_at: float = attrs.field(default=-math.inf, init=False)
    _plateau: float = attrs.field(default=PLATEAU / 2, init=False)
    _before: float = attrs.field(default=math.inf, init=False)
    _mean: float = attrs.field(default=math.inf, init=False)
    _accepted: int = attrs.field(default=0, init=False)
    _recent: deque[float] = attrs.field(factory=deque, init=False)
    _step: float = attrs.field(default=0.0, init=False)
    _due: float = attrs.field(default=-math.inf, init=False)

    def rate(self, now: float) -> float:
        """Requests a second at that time."""
        if self.knee == math.inf:
            return self.ceiling
        way = (now - self._fell_at) / self._plateau - 1.0
        return min(self.ceiling, self.knee * (1.0 + FALL * way**3))

    @property
    def opens(self) -> float:
        """When the next request may go."""
        return self._due - self.slack

    @property
    def is_near(self) -> bool:
        """Whether about as much is being sent as is known to be the limit."""
        return self._level >= 0.8 * self.knee

    def was_refused(self, now: float) -> bool:
        """Whether this pace met a refusal lately."""
        return now - self._refused_at < SOON

    def take(self, sent: Sent) -> None:
        """Let one request go. `opens` must not lie ahead."""
        now, beat = sent
        while self._recent and self._recent[0] <= beat - 1.0:
            self._recent.popleft()
        self._recent.append(beat)
        self._accepted += 1
        self._step = 1.0 / self.rate(now)
        self._due = max(self._due, now) + self._step

    def give_back(self, sent: Sent, *, now: float) -> None:
        """Undo a `take`: the request did not go."""
        self._forget(sent)
        self._due -= min(self._step, 1.0 / self.rate(now))

    def _forget(self, sent: Sent) -> None:
        self._accepted -= 1
        with suppress(ValueError):  # it was longer ago
            self._recent.remove(sent[1])

    @property
    def _level(self) -> int:
        """How many requests went in the last second in which any could, without those refused."""
        return len(self._recent)

    @property
    def is_fast(self) -> bool:
        """Whether the pace is not far from what was refused before, as far as that is known."""
        return self.knee == math.inf or self._level >= 0.5 * self.knee

    def refused(self, *, sent: Sent, now: float, pause: float, is_cause: bool, by_mean: bool = False) -> bool:
        """Learn that a request was refused.

        Args:
            sent: When it went. What went before the last fall belongs to the burst that the fall was for, and only
                tells how much of it was accepted.

            now: When the refusal came.

            pause: For how long everybody pauses.

            is_cause: Whether this pace was too high; otherwise it only learns that the request was not accepted.

            by_mean: Whether the server may count by the minute.

        Returns:
            Whether the pace has fallen.
        """
        is_new = sent[0] > self._fell_at
        is_second = self._refused_at < sent[0] and self.was_refused(now)
        is_sure = self._level > FEW or is_second or not is_new
        self._refused_at = now
        self._forget(sent)
        if not (is_cause and is_sure):
            return False
        if is_new:
            seconds = now - self._fell_at
            is_telling = by_mean and CREDIT_SECONDS[0] <= seconds <= CREDIT_SECONDS[1]
            self._mean = self._accepted / seconds if is_telling else math.inf
            self._before, self._accepted, self._fell_at = self.rate(now), 0, now
            self._plateau = min(2 * self._plateau, PLATEAU_MAX * min(max(1.0, pause), DEAR))
        seen = min(self._before, max(self._level, 1.0))
        # A server that counts by the minute lets much go at once, and nothing for the rest of the minute.
        self.knee = max(SLOWEST, 0.5 * seen, self._mean if self._mean < CREDIT * seen else seen)
        return is_new

    def lift(self) -> None:
        """No limit but the ceiling: what was refused, was refused for another reason."""
        self.knee = math.inf


@attrs.define(kw_only=True, eq=False)
class Cap:
    """How many tasks may be in flight, where the server refuses more.

    It is what was in flight at the last refusal, so that each task that ends lets one go. More is tried from time to
    time: one first, twice as many each time they are accepted, after an ever longer pause when they are refused.

    Attributes:
        limit: The cap; infinite as long as nothing was refused.
    """

    limit: float = attrs.field(default=math.inf, init=False)
    _strikes: float = attrs.field(default=0.0, init=False)
    _extra: int = attrs.field(default=1, init=False)
    _pause: float = attrs.field(default=0.0, init=False)
    _probe_at: float = attrs.field(default=-math.inf, init=False)
    _refused_at: float = attrs.field(default=-math.inf, init=False)

    @property
    def is_hit(self) -> bool:
        """Whether one more refusal is certain to be due to the cap."""
        return self._strikes >= STRIKES

    @property
    def is_certain(self) -> bool:
        """Whether this is a cap, and not just the suspicion of one."""
        return self._pause > 0.0

    def opens(self, in_flight: int) -> float:
        """When one more may go, beside so many; infinity when first one has to end."""
        if in_flight < self.limit:
            return -math.inf
        return self._probe_at if in_flight < self.limit + self._extra else math.inf

    def accepted(self, in_flight: int, *, now: float) -> None:
        """So many are in flight, the one just accepted included."""
        if in_flight > self.limit:
            self.limit = in_flight
            self._extra += 1
            self._strikes *= 0.8
            self._pause = self._pause / 2 if self._pause > 1.0 else 0.0
            self._probe_at = now + self._pause

    def refused(self, in_flight: int, *, sent: float, now: float, is_cause: bool) -> bool:
        """Learn that one more than so many was refused.

        Args:
            in_flight: How many are in flight without it.

            sent: When it went.

            now: When the refusal came.

            is_cause: Whether that is certain to be the reason; otherwise one more is tried at once.

        Returns:
            Whether the cap has become certain, or lower.
        """
        is_new = sent > self._refused_at
        self._strikes += is_new
        is_cause = is_new and is_cause
        if is_cause:
            self._pause = min(max(2 * self._pause, PROBE), PROBE_MAX)
        self.limit, self._extra = max(1, min(self.limit, in_flight)), 1
        self._refused_at, self._probe_at = now, now + self._pause
        return is_cause
