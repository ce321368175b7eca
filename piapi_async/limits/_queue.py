"""Where requests wait until they may be sent: the asyncio side of the `Governor`.

A queue belongs to one event loop and one host. One timer serves all who wait; whoever is cancelled is gone at once, and
has used up nothing.
"""

import asyncio
import itertools
import math
from bisect import bisect_left, insort
from collections.abc import Callable
from types import TracebackType
from typing import Self

import attrs

from piapi_async import events
from piapi_async.errors import RateLimitError, TransportError
from piapi_async.limits._adaptive import HostLimits, Kind, Sent
from piapi_async.limits._slots import Slot, SlotPool

MAX_UNDER_WAY = 100
"""Requests sent and not answered, at most. A pause can hold back only what was not sent."""

SUBMITS_IN_A_ROW = 2
"""So many submits are sent, then a poll, where both wait: polls are worth more when more tasks had time to end."""

Announce = Callable[[events.Event], None]
"""Takes an event."""

_Entry = tuple[float, int, "Permit", "asyncio.Future[None]"]


@attrs.define(eq=False, kw_only=True)
class Permit:
    """The right to send one request, to be held with `async with` from before it is sent until it is answered.

    It may be held again for another attempt, and keeps its place in the order of arrival.

    Attributes:
        waited: Seconds that were spent in waiting.

        waits_for_room: Whether the request was refused while tasks are in flight that make room when they end.
    """

    kind: Kind
    max_wait: float
    priority: Callable[[], float]
    slot: Slot | None
    announce: Announce | None
    waited: float = 0.0
    waits_for_room: bool = False
    sent: Sent = (0.0, False)
    arrived: float | None = None
    not_before: float = -math.inf
    _queue: "RequestQueue" = attrs.field(alias="queue")

    async def __aenter__(self) -> Self:
        await self._queue.enter(self)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._queue.leave(self, error=error)


class RequestQueue:
    """Lets requests go one by one, as the limits allow.

    Submits go in order of arrival, polls by priority, and the two kinds take turns.

    Args:
        limits: What the host bears.

        slots: The tasks in flight.

        began: The limits' time at this moment.
    """

    def __init__(self, limits: HostLimits, *, slots: SlotPool, began: float) -> None:
        self._limits = limits
        self._slots = slots
        self._loop = asyncio.get_running_loop()
        self._offset = began - self._loop.time()
        self._waiting: dict[Kind, list[_Entry]] = {"submit": [], "poll": []}
        self._numbers = itertools.count()
        self._submits_in_a_row = 0
        self._under_way = 0
        self._timer: asyncio.TimerHandle | None = None

    def now(self) -> float:
        """The limits' time."""
        return self._loop.time() + self._offset

    @property
    def waiting(self) -> int:
        """How many requests wait."""
        return sum(map(len, self._waiting.values()))

    @property
    def is_full(self) -> bool:
        """Whether submits wait for tasks in flight to end."""
        return bool(self._waiting["submit"]) and self._slots.in_flight >= self._limits.concurrency.limit

    async def enter(self, permit: Permit) -> None:
        """Wait until a request may be sent.

        Raises:
            RateLimitError: There is a pause that ends later than the request may wait.
        """
        now = self.now()
        permit.arrived = now if permit.arrived is None else permit.arrived
        permit.waits_for_room = False
        if self._limits.closed_until - now > permit.max_wait:
            raise self._too_long(now)
        if permit.not_before > max(now, self._limits.closed_until):  # the others did not have to pause
            await asyncio.sleep(permit.not_before - now)
        if not self.waiting and self._opens(permit.kind) <= self.now():
            self._send(permit, now=self.now())
            permit.waited += self.now() - now
            return
        future = self._loop.create_future()
        entry = (permit.arrived - permit.priority(), next(self._numbers), permit, future)
        queue = self._waiting[permit.kind]
        insort(queue, entry)
        self.pump()
        try:
            await future
        except asyncio.CancelledError:
            if future.cancelled():
                place = bisect_left(queue, entry)
                del queue[place : place + (entry in queue[place : place + 1])]
                self.pump()
            elif future.exception() is None:  # it was let go in the same moment
                self._under_way -= 1
                self._land(permit)
                self._limits.give_back(permit.sent, now=self.now())
                self.pump()
            raise
        permit.waited += self.now() - now

    def leave(self, permit: Permit, *, error: BaseException | None) -> None:
        """A request is answered, or broke off."""
        self._under_way -= 1
        if error is not None:
            self._land(permit)
        if isinstance(error, RateLimitError):
            self._refused(permit, asked=error.retry_after)
        else:
            is_accepted = not isinstance(error, asyncio.CancelledError | TransportError)
            self._limits.answered(permit.sent, is_accepted=is_accepted)
            if error is None and permit.slot is not None:
                self._slots.count(permit.slot)
                self._limits.concurrency.accepted(self._slots.accepted_tasks, now=self.now())
        self.pump()

    def close(self, seconds: float) -> None:
        """Send nothing for that long; those who may not wait so long are told at once."""
        self._limits.pause(seconds, now=self.now())
        self._send_away(self.now())
        self.pump()

    def pump(self) -> None:
        """Send what may be sent now, and set the one timer to when the next may be."""
        now = self.now()
        while (kind := self._next_kind(now)) is not None:
            _, _, permit, future = self._waiting[kind].pop(0)
            if not future.done():
                self._send(permit, now=now)
                future.set_result(None)
        opens = min((self._opens(kind) for kind, queue in self._waiting.items() if queue), default=math.inf)
        when = opens - self._offset
        if self._timer is not None and self._timer.when() != when:
            self._timer.cancel()
            self._timer = None
        if self._timer is None and when < math.inf:
            self._timer = self._loop.call_at(when, self._ring)
        self._slots.poll_unwatched()

    def _ring(self) -> None:
        self._timer = None
        self.pump()

    def describe(self) -> list[str]:
        """How it stands, in a few words each, for a `repr`."""
        left = self._limits.closed_until - self.now()
        return [f"{self.waiting} waiting"] * bool(self.waiting) + [f"paused for {left:.1f} s"] * (left > 0)

    def _opens(self, kind: Kind) -> float:
        if self._under_way >= MAX_UNDER_WAY:
            return math.inf
        return self._limits.opens(kind, in_flight=self._slots.in_flight)

    def _next_kind(self, now: float) -> Kind | None:
        kinds: tuple[Kind, Kind] = (
            ("submit", "poll") if self._submits_in_a_row < SUBMITS_IN_A_ROW else ("poll", "submit")
        )
        return next((kind for kind in kinds if self._waiting[kind] and self._opens(kind) <= now), None)

    def _send(self, permit: Permit, *, now: float) -> None:
        permit.sent = self._limits.take(now)
        self._under_way += 1
        self._submits_in_a_row = self._submits_in_a_row + 1 if permit.kind == "submit" else 0
        if permit.slot is not None:
            self._slots.sent(permit.slot)

    def _land(self, permit: Permit) -> None:
        if permit.slot is not None:
            self._slots.refused(permit.slot)

    def _refused(self, permit: Permit, *, asked: float | None) -> None:
        limits, now = self._limits, self.now()
        before = limits.closed_until
        seconds, learned = limits.refused(
            permit.kind, sent=permit.sent, now=now, asked=asked, tasks=self._slots.accepted_tasks
        )
        permit.not_before = now + seconds
        permit.waits_for_room = permit.kind == "submit" and self._slots.accepted_tasks > 0
        if permit.announce is not None:
            # Of a burst that is refused, each answer makes the pause a moment longer: that is one pause.
            if limits.closed_until > max(now, before + 1.0):
                permit.announce(events.Paused(seconds=limits.closed_until - now, asked=asked))
            for limit in learned:
                value = limits.rate.rate(now) if limit == "requests" else limits.concurrency.limit
                permit.announce(events.LimitLearned(limit=limit, value=value))
        if limits.closed_until > before:
            self._send_away(now)

    def _send_away(self, now: float) -> None:
        """Tell those that the pause is longer than they may wait."""
        left = self._limits.closed_until - now
        for queue in self._waiting.values():
            for entry in [entry for entry in queue if entry[2].max_wait < left]:
                queue.remove(entry)
                if not entry[3].done():
                    entry[3].set_exception(self._too_long(now))

    def _too_long(self, now: float) -> RateLimitError:
        left = self._limits.closed_until - now
        return RateLimitError(f"PiAPI asked for a pause that lasts {left:.0f} s more", retry_after=left)
