"""Where requests wait for their turn, and runs for a place in flight: the asyncio side of the `Governor`.

A gate belongs to one event loop. One timer serves all who wait; whoever is cancelled is gone at once, and has used up
nothing.
"""

import asyncio
import heapq
import math
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Self

import attrs

from piapi_async import events
from piapi_async._allowance import Allowance, Kind, Limit
from piapi_async._pace import Sent
from piapi_async.errors import RateLimitError, TransportError

UNDER_WAY = 100
"""Requests under way at once, as many as a `Transport` lets through. More wait for their turn."""

SUBMITS_IN_A_ROW = 2
"""So many submits go, then a look, where both wait: looks are worth more when more tasks had the time to end."""

Announce = Callable[[events.Event], None]
"""Takes an event."""

_Entry = tuple[float, int, "asyncio.Future[None]", "Turn"]


@attrs.define(eq=False, kw_only=True)
class Turn:
    """One request's right to go, to be held with `async with` from before it is sent until it is answered.

    It may be held again for another attempt, and keeps its place in the order of arrival.

    Attributes:
        waited: Seconds that were spent in waiting.

        waits_for_room: Whether the request was refused while tasks are in flight that make room when they end.
    """

    kind: Kind
    patience: float
    urgency: Callable[[], float]
    place: "Place | None"
    announce: Announce | None
    waited: float = 0.0
    waits_for_room: bool = False
    sent: Sent = (0.0, 0.0)
    arrived: float | None = None
    _gate: "Gate" = attrs.field(alias="gate")

    async def __aenter__(self) -> Self:
        await self._gate.enter(self)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._gate.leave(self, error=error)


@attrs.define(eq=False, kw_only=True)
class Place:
    """A task's place in flight, to be held with `async with`; given in order of arrival."""

    is_in_flight: bool = False
    is_accepted: bool = False
    _gate: "Gate" = attrs.field(alias="gate")
    _before: Callable[[], Awaitable[None]] | None = attrs.field(default=None, alias="before")

    async def __aenter__(self) -> Self:
        if self._before is not None:
            await self._before()
        await self._gate.take_place()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._gate.leave_place(self)


class Gate:
    """Lets requests go one by one, as the allowance has it.

    Submits go in order of arrival, looks by urgency, and the two kinds take turns.

    Args:
        allowance: What the account bears.

        began: The allowance's time at this moment.

        places: Tells how many places in flight there are.

    Attributes:
        waiting: How many requests wait.

        under_way: How many were sent and are not answered.

        held: How many places in flight are taken.

        in_flight: On how many of them a submit was sent, and not refused.

        accepted: On how many of them it was accepted.
    """

    def __init__(self, allowance: Allowance, *, began: float, places: Callable[[], float]) -> None:
        self._allowance = allowance
        self._places = places
        self._loop = asyncio.get_running_loop()
        self._offset = began - self._loop.time()
        self._queues: dict[Kind, list[_Entry]] = {"submit": [], "look": []}
        self._row = 0
        self._number = 0
        self._timer: asyncio.TimerHandle | None = None
        self._least_patience = math.inf
        self._for_places: OrderedDict[asyncio.Future[None], None] = OrderedDict()  # in order of arrival
        self._untold: dict[Limit, Announce] = {}
        self.waiting = self.under_way = self.held = self.in_flight = self.accepted = 0

    def now(self) -> float:
        """The allowance's time."""
        return self._loop.time() + self._offset

    @property
    def opens(self) -> float:
        """When the next of those who wait may go; infinity when that does not depend on time, or nobody waits."""
        return min((self._opens(kind) for kind in self._queues if self._has_waiter(kind)), default=math.inf)

    async def enter(self, turn: Turn) -> None:
        """Wait until a request may go.

        Raises:
            RateLimitError: The gate stays closed for longer than its patience.
        """
        now = self.now()
        turn.arrived = now if turn.arrived is None else turn.arrived
        turn.waits_for_room = False
        if self._allowance.closed_until - now > turn.patience:
            raise self._impatient(now)
        if self.waiting == 0 and self._opens(turn.kind) <= now:
            self._let_go(turn, now=now)
        else:
            await self._wait(turn)
            turn.waited += self.now() - now

    def leave(self, turn: Turn, *, error: BaseException | None) -> None:
        """A request is answered, or broke off."""
        self.under_way -= 1
        if error is not None:
            self._ground(turn.place)
        if isinstance(error, RateLimitError):
            self._refused(turn, pause=error.retry_after)
        else:
            is_accepted = not isinstance(error, asyncio.CancelledError | TransportError)
            self._allowance.answered(sent=turn.sent, is_accepted=is_accepted)
            if error is None and turn.place is not None:
                turn.place.is_accepted = True
                self.accepted += 1
                self._allowance.cap.accepted(self.in_flight, now=self.now())
        self._pump()

    def close(self, seconds: float | None) -> None:
        """Let nothing go for that long; those with less patience are told at once."""
        self._allowance.pause(seconds, now=self.now())
        self._closed()

    def _closed(self) -> None:
        now = self.now()
        if self._allowance.closed_until - now > self._least_patience:
            self._send_away(now)
        self._arm()

    async def take_place(self) -> None:
        """Wait for a place in flight."""
        if self.held < self._places() and not self._for_places:
            self.held += 1
            return
        future = self._loop.create_future()
        self._for_places[future] = None
        self.give_places()
        try:
            await future
        except asyncio.CancelledError:
            if _was_given(future):
                self._release()
            else:
                self._for_places.pop(future, None)
            raise

    def leave_place(self, place: Place) -> None:
        """A task is over, or was given up."""
        self._ground(place)
        self._release()
        self._pump()

    def give_places(self) -> None:
        """Give away the places that are free."""
        while self._for_places and self.held < self._places():
            future, _ = self._for_places.popitem(last=False)
            if not future.done():
                self.held += 1
                future.set_result(None)

    def describe(self) -> list[str]:
        """How it stands, in a few words each, for a `repr`."""
        now = self.now()
        left = max(self._allowance.closed_until, self.opens if self.opens < math.inf else -math.inf) - now
        counts = {"in flight": self.in_flight, "waiting": self.waiting, "waiting for a place": len(self._for_places)}
        return [f"{number} {what}" for what, number in counts.items() if number] + (
            [f"opens in {left:.1f} s"] if left > 0 else []
        )

    def _release(self) -> None:
        self.held -= 1
        self.give_places()

    def _ground(self, place: Place | None) -> None:
        if place is not None and place.is_in_flight:
            self.in_flight -= 1
            self.accepted -= place.is_accepted
            place.is_in_flight = place.is_accepted = False

    def _opens(self, kind: Kind) -> float:
        return math.inf if self.under_way >= UNDER_WAY else self._allowance.opens(kind, in_flight=self.in_flight)

    def _has_waiter(self, kind: Kind) -> bool:
        queue = self._queues[kind]
        while queue and queue[0][2].done():
            heapq.heappop(queue)
        return bool(queue)

    def _let_go(self, turn: Turn, *, now: float) -> None:
        turn.sent = self._allowance.take(turn.kind, now=now)
        self.under_way += 1
        self._row = self._row + 1 if turn.kind == "submit" else 0
        if turn.place is not None:
            turn.place.is_in_flight = True
            self.in_flight += 1
        while self._untold:
            limit, announce = self._untold.popitem()
            announce(events.LimitLearned(limit=limit, value=self._allowance.bears(limit, now=now)))

    async def _wait(self, turn: Turn) -> None:
        future = self._loop.create_future()
        assert turn.arrived is not None
        self._number += 1
        heapq.heappush(self._queues[turn.kind], (turn.arrived - turn.urgency(), self._number, future, turn))
        self.waiting += 1
        self._least_patience = min(self._least_patience, turn.patience)
        self._pump()
        try:
            await future
        except asyncio.CancelledError:
            if _was_given(future):
                self._take_back(turn)
            elif future.cancelled():
                self._gone()
                self._arm()
            raise

    def _take_back(self, turn: Turn) -> None:
        """A request that was let go in the same moment in which its sender was cancelled."""
        self.under_way -= 1
        self._ground(turn.place)
        self._allowance.give_back(turn.kind, sent=turn.sent, now=self.now())
        self._pump()

    def _gone(self) -> None:
        """One fewer waits; the queues keep those that are gone until they come to the front."""
        self.waiting -= 1
        if self.waiting == 0:
            self._least_patience = math.inf
            for queue in self._queues.values():
                queue.clear()

    def _pump(self) -> None:
        if self.waiting:
            now = self.now()
            while (kind := self._whose_turn(now)) is not None:
                _, _, future, turn = heapq.heappop(self._queues[kind])
                self._let_go(turn, now=now)
                future.set_result(None)
                self._gone()
            self._arm()

    def _whose_turn(self, now: float) -> Kind | None:
        kinds: tuple[Kind, Kind] = ("look", "submit") if self._row >= SUBMITS_IN_A_ROW else ("submit", "look")
        return next((kind for kind in kinds if self._has_waiter(kind) and self._opens(kind) <= now), None)

    def _arm(self) -> None:
        """Set the one timer to when the next may go."""
        when = self.opens - self._offset
        if self._timer is not None:
            if self._timer.when() == when and not self._timer.cancelled():
                return
            self._timer.cancel()
        self._timer = None if when == math.inf else self._loop.call_at(when, self._ring)

    def _ring(self) -> None:
        self._timer = None
        self._pump()

    def _refused(self, turn: Turn, *, pause: float | None) -> None:
        lower = self._allowance.refused(
            turn.kind, sent=turn.sent, now=self.now(), pause=pause, in_flight=self.in_flight
        )
        if turn.announce is not None:
            self._untold.update(dict.fromkeys(lower, turn.announce))
        turn.waits_for_room = turn.kind == "submit" and self.accepted > 0
        self._closed()

    def _send_away(self, now: float) -> None:
        left = self._allowance.closed_until - now
        for _, _, future, turn in [entry for queue in self._queues.values() for entry in queue]:
            if not future.done() and turn.patience < left:
                future.set_exception(self._impatient(now))
                self._gone()

    def _impatient(self, now: float) -> RateLimitError:
        left = self._allowance.closed_until - now
        return RateLimitError(f"PiAPI asked for a pause that lasts {left:.0f} s more", retry_after=left)


def _was_given(future: "asyncio.Future[None]") -> bool:
    """Whether what was waited for was given in the same moment in which the waiting was cancelled."""
    return future.done() and not future.cancelled() and future.exception() is None
