"""What the server bears, learned from its refusals. No I/O.

PiAPI publishes no request rate. The limit that is known is on tasks in flight: 1, 5 or 30 by plan. A 429 does not say
which limit it means, so each part of this learns from what only its own limit explains:

- a 429 makes everybody pause (`HostLimits`), but for a single one among many accepted requests that asks for no more
  than a second: a crowded gateway gives such at random, and the others go on meanwhile;
- three submits refused in a row, with none accepted beside as many tasks, are a limit on tasks in flight
  (`AdaptiveConcurrency`);
- a rate is too high when a substantial share of what was sent at it is refused, or when single refusals end as it falls
  a little (`AdaptiveRate`).

Times are seconds on any clock that does not go back.
"""

import math
from collections import deque
from contextlib import suppress
from typing import Literal

import attrs

Kind = Literal["submit", "poll"]
"""A paid submit, or anything that costs nothing."""

Limit = Literal["requests", "tasks in flight"]

Sent = tuple[float, bool]
"""When a request was sent, and whether that was as soon as the rate allowed."""

SLACK_SECONDS = 0.1
"""By how much a request may be ahead of its time, so that timers which fire late lose nothing."""

SUBSTANTIAL_SHARE, SUBSTANTIAL_NUMBER = 0.2, 3
"""Refusals among the requests of a second, in part and in number, that show a rate too high. Where 5 % are refused at
random, about 1 of 100 seconds with twenty requests looks so, and hardly one with a hundred."""

ISOLATED_AMONG = 10
"""A smaller part is isolated where at least so many others were not refused in that second."""

SINGLE_FALL, MAX_SINGLE_FALLS = 0.85, 3
"""What is left of a learned rate when a single request is refused that was sent as soon as it allowed; and how often in
a row."""

RANDOM_SHARE = 0.1
"""Where that many falls did not help, and a smaller part than this was refused meanwhile, the rate is not the cause."""

IGNORE_SECONDS = 30.0
"""How long single refusals are ignored then."""

MIN_RATE = 0.02
"""Requests a second that are always tried."""

GROWTH_SECONDS = 45.0
"""Time in which a rate that fell doubles, if the refusal cost a pause of 1 s or less; it grows with the pause, up to
ten times. Its first third hardly changes the rate, so that a limit that was just found is kept to for a while."""

DEFAULT_PAUSE_SECONDS = 1.0
"""The pause after a 429 that does not say how long."""

MAX_DEFAULT_PAUSE_SECONDS = 32.0
"""The same, when 429 follows 429 and nothing is accepted: the pause is doubled each time up to this."""

PROBE_SECONDS = 5.0
"""How long the others wait for the answer to a probe."""

REFUSALS_IN_A_ROW = 3
"""Submits refused in a row that only a limit on tasks in flight explains."""

CONCURRENCY_PROBE_SECONDS, MAX_CONCURRENCY_PROBE_SECONDS = 5.0, 300.0
"""Time until one task more is tried after the learned limit has refused one, doubled each time; and the longest."""


@attrs.define(kw_only=True, eq=False)
class AdaptiveRate:
    """How many requests a second may be sent, evenly spread.

    In any stretch of time no more than `ceiling` times its seconds, and 1 + `ceiling` times `slack`, pass.

    Args:
        ceiling: The rate that the user set; infinite when none was.

        slack: Seconds by which a request may be ahead of its time.

    Attributes:
        limit: The learned rate when it fell last; infinite as long as it never did.
    """

    ceiling: float = math.inf
    slack: float = SLACK_SECONDS
    limit: float = attrs.field(default=math.inf, init=False)
    _sent_since: int = attrs.field(default=0, init=False)
    _refused_since: int = attrs.field(default=0, init=False)
    _single_falls: int = attrs.field(default=0, init=False)
    _before_falls: float = attrs.field(default=math.inf, init=False)
    _ignore_until: float = attrs.field(default=-math.inf, init=False)
    _fell_at: float = attrs.field(default=-math.inf, init=False)
    _growth: float = attrs.field(default=GROWTH_SECONDS, init=False)
    _step: float = attrs.field(default=0.0, init=False)
    _due: float = attrs.field(default=-math.inf, init=False)
    # When the requests of the last second were sent, as far as they were not refused, and were.
    _accepted: deque[float] = attrs.field(factory=deque, init=False)
    _refused: deque[float] = attrs.field(factory=deque, init=False)

    def rate(self, now: float) -> float:
        """Requests a second at that time."""
        if self.limit == math.inf:
            return self.ceiling
        return min(self.ceiling, self.limit * (1.0 + ((now - self._fell_at) / self._growth) ** 3))

    @property
    def opens(self) -> float:
        """When the next request may be sent."""
        return self._due - self.slack

    def take(self, now: float) -> Sent:
        """Send one request. `opens` must not lie ahead."""
        self._accepted.append(now)
        self._sent_since += 1
        sent = now, now < self._due + self.slack
        self._step = 1.0 / self.rate(now)
        self._due = max(self._due, now) + self._step
        self._forget_before(now - 1.0)
        return sent

    def _forget_before(self, time: float) -> None:
        for times in (self._accepted, self._refused):
            while times and times[0] <= time:
                times.popleft()

    def give_back(self, sent: Sent, *, now: float) -> None:
        """Undo a `take`: the request was not sent."""
        self._forget(sent)
        self._due -= min(self._step, 1.0 / self.rate(now))

    def _forget(self, sent: Sent) -> None:
        with suppress(ValueError):  # it was longer ago
            self._accepted.remove(sent[0])

    def count_refusal(self, sent: Sent) -> None:
        """A request was refused, for whatever reason."""
        self._forget(sent)
        self._refused.append(sent[0])
        self._refused_since += 1

    @property
    def is_isolated(self) -> bool:
        """Whether refusals are few among many requests of the last second."""
        return len(self._accepted) >= ISOLATED_AMONG and not self._is_substantial

    @property
    def _is_substantial(self) -> bool:
        accepted, refused = len(self._accepted), len(self._refused)
        return refused >= SUBSTANTIAL_NUMBER and refused >= SUBSTANTIAL_SHARE * (accepted + refused)

    def refused(self, *, sent: Sent, now: float, pause: float) -> bool:
        """Learn from a refusal, which was counted, that may be due to the rate.

        Args:
            sent: When it was sent. What was under way when the rate fell belongs to the round that it fell for: it
                tells more exactly how much was accepted of that, and is no further fall.

            now: When the refusal came.

            pause: How long it asks to pause.

        Returns:
            Whether the rate fell.
        """
        is_new = sent[0] > self._fell_at
        if self._is_substantial:
            # Never by more than a half at once: what was accepted tells little where few answers are in.
            accepted, refused = len(self._accepted), len(self._refused)
            self.limit = max(MIN_RATE, accepted, (accepted + refused) / 2)
            self._single_falls = 0
        elif self.limit < math.inf and sent[1] and sent[0] > self._fell_at + 1.0 and now >= self._ignore_until:
            if now - self._fell_at > self._growth / 3:
                self._single_falls = 0
            if self._single_falls == 0:
                self._before_falls, self._sent_since, self._refused_since = self.rate(now), 0, 0
            self._single_falls += 1
            self.limit = max(MIN_RATE, SINGLE_FALL * self.rate(now))
            if self._single_falls > MAX_SINGLE_FALLS and self._refused_since < RANDOM_SHARE * self._sent_since:
                self.limit, self._ignore_until, self._single_falls = self._before_falls, now + IGNORE_SECONDS, 0
                is_new = False
        else:
            return False
        self._fell_at = now
        self._growth = GROWTH_SECONDS * min(max(1.0, pause), 10.0)
        return is_new


@attrs.define(kw_only=True, eq=False)
class AdaptiveConcurrency:
    """How many tasks may be in flight, where the server refuses more.

    It is what was in flight at the last refusal, so that each task that ends lets one go. More is tried from time to
    time: one task first, twice as many each time that they are accepted, and after an ever longer pause when they are
    refused. So a limit that was suspected wrongly is gone after a few round trips.

    Attributes:
        limit: The limit; infinite as long as none was met.
    """

    limit: float = attrs.field(default=math.inf, init=False)
    _in_a_row: int = attrs.field(default=0, init=False)
    _suspected: int = attrs.field(default=0, init=False)
    _extra: int = attrs.field(default=1, init=False)
    _pause: float = attrs.field(default=0.0, init=False)
    _probe_at: float = attrs.field(default=-math.inf, init=False)
    _learned_at: float = attrs.field(default=-math.inf, init=False)

    @property
    def is_certain(self) -> bool:
        """Whether the limit was met more than once."""
        return self._pause > 0.0

    def opens(self, in_flight: int) -> float:
        """When one more may be submitted beside so many; infinity when one of these has to end first."""
        if in_flight < self.limit:
            return -math.inf
        return self._probe_at if in_flight < self.limit + self._extra else math.inf

    def accepted(self, tasks: int, *, now: float) -> None:
        """A submit was accepted, and with it so many tasks are not over."""
        if tasks > self._suspected:
            self._in_a_row = 0
        if tasks > self.limit:
            self.limit = tasks
            self._extra *= 2
            self._pause = self._pause / 2 if self._pause > 1.0 else 0.0
            self._probe_at = now + self._pause

    def refused(self, tasks: int, *, sent: float, now: float) -> bool:
        """Learn that a submit was refused.

        Args:
            tasks: How many were accepted and are not over. Where answers overtake each other they may be fewer than the
                server has; the acceptances that come then correct it.

            sent: When it was sent.

            now: When the refusal came.

        Returns:
            Whether this confirmed the limit.
        """
        if self._in_a_row == 0 or tasks < self._suspected:  # beside fewer it is another suspicion
            self._in_a_row, self._suspected = 0, tasks
        self._in_a_row += 1
        if self._in_a_row < REFUSALS_IN_A_ROW or self._suspected == 0:
            return False
        # The first round that is refused raises a suspicion, which one more submit tests at once.
        is_confirmed = self.limit < math.inf and sent > self._learned_at
        if is_confirmed:
            self._pause = min(max(2 * self._pause, CONCURRENCY_PROBE_SECONDS), MAX_CONCURRENCY_PROBE_SECONDS)
        if self.limit == math.inf or is_confirmed:
            self._learned_at = now
        self.limit, self._extra = min(self.limit, self._suspected), 1
        self._probe_at = now + self._pause
        return is_confirmed


@attrs.define(kw_only=True, eq=False)
class HostLimits:
    """The limits of one host, as they are known. They outlast the event loop.

    Args:
        rate: How many requests a second may be sent.

        max_pause: The longest pause that a 429 is obeyed for, in seconds.

    Attributes:
        closed_until: Nothing is sent before that time.

        concurrency: How many tasks may be in flight.
    """

    rate: AdaptiveRate = attrs.field(factory=AdaptiveRate)
    max_pause: float = math.inf
    closed_until: float = attrs.field(default=-math.inf, init=False)
    concurrency: AdaptiveConcurrency = attrs.field(factory=AdaptiveConcurrency, init=False)
    _refused_at: float = attrs.field(default=-math.inf, init=False)
    _in_a_row: int = attrs.field(default=0, init=False)
    _is_accepting: bool = attrs.field(default=True, init=False)
    _needs_probe: bool = attrs.field(default=False, init=False)
    _probe_until: float = attrs.field(default=-math.inf, init=False)

    def opens(self, kind: Kind, *, in_flight: int) -> float:
        """When a request may be sent, beside so many tasks in flight; infinity when one of these has to end first."""
        opens = max(self.closed_until, self._probe_until, self.rate.opens)
        return max(opens, self.concurrency.opens(in_flight)) if kind == "submit" else opens

    def take(self, now: float) -> Sent:
        """Send a request."""
        if self._needs_probe:
            self._probe_until = now + PROBE_SECONDS
        return self.rate.take(now)

    def give_back(self, sent: Sent, *, now: float) -> None:
        """The request was not sent."""
        self.rate.give_back(sent, now=now)
        self.answered(sent, is_accepted=False)

    def answered(self, sent: Sent, *, is_accepted: bool) -> None:
        """A request was not refused: it was accepted, or there is no telling."""
        if sent[0] > self._refused_at:
            self._probe_until = -math.inf
            if is_accepted:
                self._is_accepting, self._needs_probe = True, False

    def pause(self, seconds: float, *, now: float) -> None:
        """Send nothing for that long; a longer pause stays."""
        self.closed_until = max(self.closed_until, now + seconds)

    def refused(
        self, kind: Kind, *, sent: Sent, now: float, asked: float | None, tasks: int
    ) -> tuple[float, tuple[Limit, ...]]:
        """Learn from a 429, and pause for everybody unless it is isolated.

        Args:
            kind: What was refused.

            sent: When it was sent.

            now: When the answer came.

            asked: For how long the server asks to pause, or `None` when it does not say.

            tasks: How many tasks were accepted and are not over.

        Returns:
            For how long that request has to pause, and the limits that were learned.
        """
        if sent[0] > self._refused_at:
            self._in_a_row = 0 if self._is_accepting else self._in_a_row + 1
            self._refused_at, self._is_accepting, self._probe_until = now, False, -math.inf
        unsaid = min(DEFAULT_PAUSE_SECONDS * 2.0**self._in_a_row, MAX_DEFAULT_PAUSE_SECONDS)
        seconds = min(unsaid if asked is None else asked, self.max_pause)
        self.rate.count_refusal(sent)
        if seconds > DEFAULT_PAUSE_SECONDS or not self.rate.is_isolated:
            self.pause(seconds, now=now)
        learned: list[Limit] = []
        # Refused right after a pause, with nothing accepted between, it was the pause that was too short.
        if self._in_a_row == 0 and self.rate.refused(sent=sent, now=now, pause=seconds):
            learned.append("requests")
        if kind == "submit" and self.concurrency.refused(tasks, sent=sent[0], now=now):
            learned.append("tasks in flight")
        # Where many would be refused once more, one request goes ahead when the pause is over.
        if self._in_a_row or not self.rate.is_isolated or (asked or 0.0) > self.max_pause:
            self._needs_probe = True
        return seconds, tuple(learned)
