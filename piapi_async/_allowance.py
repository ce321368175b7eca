"""What the account is believed to bear: which request may go when, and what each refusal teaches. No I/O.

A 429 does not say what was too much: all requests together, submits or looks alone, or tasks in flight. So there is a
`Pace` for all, one for submits, one for looks, and a `Cap`, and a refusal goes to the one that explains it best:

- the cap, when a submit was refused while tasks are in flight, though far fewer requests went than were borne before,
  or when several submits in a row were refused at the same number of tasks in flight;
- else all requests, when they were about as many as were refused before, or the other kind was refused lately too;
- else its own kind.

Where tasks are in flight, a refused submit also sets the cap to their number at once, on suspicion: one more is tried
right after the pause, and twice as many each time that they are accepted, so that a wrong suspicion holds up little.

A wrong guess costs a few refusals more: the limit that was not meant grows back, and the next refusal meets the right
one.
"""

import math
from collections.abc import Mapping
from typing import Literal

import attrs

from piapi_async._pace import SLACK, Cap, Pace, Sent

Kind = Literal["submit", "look"]
Limit = Literal["requests", "submits", "looks", "tasks in flight"]

_OWN: Mapping[Kind, Limit] = {"submit": "submits", "look": "looks"}

PAUSE_UNSAID = 1.0
"""Seconds that everybody pauses after a 429 that does not say how long."""

SCOUT = 2.0
"""After a refusal one request goes ahead; the others follow when it is accepted, or after so many seconds."""

PAUSE_UNSAID_MAX = 32.0
"""The same, when 429 follows 429 and nothing is accepted."""


def other(kind: Kind) -> Kind:
    """The kind that it is not."""
    return "look" if kind == "submit" else "submit"


@attrs.define(kw_only=True, eq=False)
class Allowance:
    """The limits of one account, as they are known.

    Args:
        ceiling: Requests a second that are never exceeded.

        slack: Seconds by which a request may be ahead of its time.

    Attributes:
        closed_until: Nothing goes before that time.
    """

    ceiling: float = math.inf
    slack: float = SLACK
    closed_until: float = attrs.field(default=-math.inf, init=False)
    cap: Cap = attrs.field(factory=Cap, init=False)
    total: Pace = attrs.field(init=False)
    own: dict[Kind, Pace] = attrs.field(init=False)
    _strikes: int = attrs.field(default=0, init=False)
    _refused_at: float = attrs.field(default=-math.inf, init=False)
    _paused: float = attrs.field(default=0.0, init=False)
    _scout_until: float = attrs.field(default=-math.inf, init=False)
    _is_accepting: bool = attrs.field(default=True, init=False)

    def __attrs_post_init__(self) -> None:
        self.total = Pace(ceiling=self.ceiling, slack=self.slack)
        self.own = {"submit": Pace(), "look": Pace()}

    def opens(self, kind: Kind, *, in_flight: int) -> float:
        """When a request may go, beside so many tasks in flight; infinity when first one of these has to end."""
        opens = max(self.closed_until, self._scout_until, self.total.opens, self.own[kind].opens)
        return max(opens, self.cap.opens(in_flight)) if kind == "submit" else opens

    def take(self, kind: Kind, *, now: float) -> Sent:
        """Let a request go."""
        sent = (now, now - self._paused)
        if not self._is_accepting:
            self._scout_until = now + SCOUT
        self.total.take(sent)
        self.own[kind].take(sent)
        return sent

    def give_back(self, kind: Kind, *, sent: Sent, now: float) -> None:
        """The request did not go."""
        self.total.give_back(sent, now=now)
        self.own[kind].give_back(sent, now=now)
        self.answered(sent=sent, is_accepted=False)

    def pause(self, seconds: float | None, *, now: float) -> float:
        """Let nothing go for that long; a longer pause stays.

        Args:
            seconds: What the server asked for, or `None` when it did not say: a second then, twice as many each time
                nothing was accepted since the last pause.

            now: The time.

        Returns:
            The seconds.
        """
        seconds = min(PAUSE_UNSAID * 2.0**self._strikes, PAUSE_UNSAID_MAX) if seconds is None else seconds
        self._paused += max(0.0, now + seconds - max(now, self.closed_until))
        self.closed_until = max(self.closed_until, now + seconds)
        return seconds

    def answered(self, *, sent: Sent, is_accepted: bool) -> None:
        """A request was not refused: it was accepted, or there is no telling."""
        if sent[0] > self._refused_at:
            self._scout_until = -math.inf
            self._is_accepting = self._is_accepting or is_accepted

    def refused(self, kind: Kind, *, sent: Sent, now: float, pause: float | None, in_flight: int) -> tuple[Limit, ...]:
        """Learn from a 429.

        Args:
            kind: What was refused.

            sent: When it went.

            now: When the answer came.

            pause: For how long the server asks to pause, or `None` when it does not say.

            in_flight: How many tasks are in flight, the refused one not among them.

        Returns:
            The limits that are lower now.
        """
        if sent[0] > self._refused_at:
            self._strikes = 0 if self._is_accepting else self._strikes + 1
            self._refused_at, self._is_accepting, self._scout_until = now, False, -math.inf
        seconds = self.pause(pause, now=now)
        # Refused at once after a pause, without anything accepted, it was the pause that was too short.
        is_pace = self._strikes == 0
        was_near = self.total.is_near
        is_slow = not was_near and not self.own[kind].is_fast
        at_cap = kind == "submit" and in_flight > 0 and (is_slow or self.cap.is_hit)
        shared = is_pace and not at_cap and (was_near or self.own[other(kind)].was_refused(now))
        alone = is_pace and not at_cap and not shared
        fell = self.total.refused(sent=sent, now=now, pause=seconds, is_cause=shared, by_mean=kind == "look")
        own_fell = self.own[kind].refused(sent=sent, now=now, pause=seconds, is_cause=alone)
        if kind == "submit" and in_flight > 0:
            at_cap = self.cap.refused(in_flight, sent=sent[0], now=now, is_cause=at_cap)
        if fell and not was_near:
            for pace in self.own.values():
                pace.lift()
        found: dict[Limit, bool] = {"requests": fell, _OWN[kind]: own_fell, "tasks in flight": at_cap}
        return tuple(limit for limit, is_lower in found.items() if is_lower)

    def bears(self, limit: Limit, *, now: float) -> float:
        """How much of that is believed to be borne; infinite when there is no telling."""
        if limit == "tasks in flight":
            return self.cap.limit
        pace = self.total if limit == "requests" else self.own["submit" if limit == "submits" else "look"]
        return pace.rate(now)
