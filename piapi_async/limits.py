"""`Governor`: what all sessions of an account share, so that everything they send stays within what PiAPI bears."""

import asyncio
import math
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Literal

import attrs

from piapi_async import _checks, events
from piapi_async._allowance import Allowance, Kind, Limit
from piapi_async._gate import Announce, Gate, Place, Turn
from piapi_async._loop import PerLoop
from piapi_async._pace import SLACK
from piapi_async.account import Account
from piapi_async.errors import PiAPIError

ACCOUNT_LIFE = 600.0
"""Seconds for which the cap that the service told is believed."""

Ask = Callable[[], Awaitable[Account]]


def _check_cap(instance: object, attribute: "attrs.Attribute[Any]", value: object) -> None:
    if value is not None and value != "account":
        if isinstance(value, str):
            allowed = "a whole number >= 1, 'account' or None"
            raise _checks.refuse(ValueError, name=attribute.name, allowed=allowed, value=value)
        _checks.number(at_least=1, integer=True)(instance, attribute, value)


def calm() -> float:
    """No urgency."""
    return 0.0


@attrs.define(kw_only=True, eq=False, repr=False)
class Governor:
    """Keeps every request of an account within what the server bears. One object may serve several sessions.

    PiAPI publishes no rate. The governor begins without one, learns from each 429, and spreads requests evenly over
    time at a rate which grows back slowly. Submits and looks have a budget each, and one for both; they take turns, so
    that neither starves. A 429 makes everybody pause for as long as it says, for 1 s when it does not.

    Where submits are refused while tasks are in flight, it learns how many of these the server bears, and lets a new
    one go when one ends.

    What it learned outlasts the event loop. It is not made for several threads.

    Args:
        requests_per_second: The most requests a second, of all kinds but downloads; `None` for what the server bears.

        burst: How many requests may go at once after a pause, at least 1; by default 1 and what a tenth of a second
            allows. In no stretch of time more than its seconds times `requests_per_second`, plus this, go out.

        max_in_flight: How many tasks `Session.run` keeps submitted and not over at once; `"account"` for what the
            service says the account may have (`Account.max_concurrent_tasks`), asked for at the first `run` and every
            10 minutes, where an answer that fails or says nothing leaves the cap as it was, at first none; `None` for
            no cap.

    Raises:
        TypeError: An argument is no number.
        ValueError: An argument is out of its range, or `burst` is given without `requests_per_second`.
    """

    requests_per_second: float | None = attrs.field(
        default=None, validator=_checks.optional(_checks.number(above=0)), on_setattr=attrs.setters.frozen
    )
    burst: float | None = attrs.field(
        default=None, validator=_checks.optional(_checks.number(at_least=1)), on_setattr=attrs.setters.frozen
    )
    max_in_flight: int | Literal["account"] | None = attrs.field(
        default=None, validator=_check_cap, on_setattr=attrs.setters.frozen
    )
    _allowance: Allowance = attrs.field(init=False)
    _gates: PerLoop[Gate] = attrs.field(init=False)
    _last: Gate | None = attrs.field(default=None, init=False)
    _asking: PerLoop[asyncio.Lock] = attrs.field(factory=lambda: PerLoop(asyncio.Lock), init=False)
    _asked_at: float = attrs.field(default=-math.inf, init=False)
    _places: float = attrs.field(default=math.inf, init=False)

    def __attrs_post_init__(self) -> None:
        ceiling, slack = self.requests_per_second or math.inf, SLACK
        if self.burst is not None:
            if self.requests_per_second is None:
                raise ValueError(f"burst needs requests_per_second beside it, got burst={self.burst!r} alone")
            slack = (self.burst - 1) / ceiling
        self._allowance = Allowance(ceiling=ceiling, slack=slack)
        self._gates = PerLoop(self._make_gate)
        if isinstance(self.max_in_flight, int):
            self._places = self.max_in_flight

    def turn(
        self,
        kind: Kind = "look",
        *,
        patience: float = math.inf,
        urgency: Callable[[], float] = calm,
        place: Place | None = None,
        announce: Announce | None = None,
    ) -> Turn:
        """The right to send one request, to be held with `async with` from before it is sent until it is answered.

        A `RateLimitError` that ends the `with` is what the governor learns from.

        Args:
            kind: `"submit"`, or `"look"` for all that costs nothing.

            patience: Seconds; a pause that lasts longer is a `RateLimitError` at once, not a long silence.

            urgency: Which look goes first, asked for when it has to wait: one with an urgency of 5 goes before those
                with 0 that came up to 5 s earlier.

            place: The place in flight of the task that is submitted.

            announce: Told of limits that were learned from this request.
        """
        return Turn(
            gate=self._gates.get(), kind=kind, patience=patience, urgency=urgency, place=place, announce=announce
        )

    def slot(self, *, ask: Ask | None = None, announce: Announce | None = None) -> Place:
        """One of the places in flight, to be held with `async with`; given in order of arrival.

        Args:
            ask: Asks the service about the account, for `max_in_flight="account"`.

            announce: Told of what the service said.
        """
        before = None
        if ask is not None and self.max_in_flight == "account":
            before = partial(self._know_places, ask, announce)
        return Place(gate=self._gates.get(), before=before)

    def pause(self, seconds: float | None) -> None:
        """Close the gate for everybody, for that many seconds from now; a longer pause under way stays.

        Args:
            seconds: What the server asked for, or `None` when it did not say.
        """
        self._gates.get().close(seconds)

    def _make_gate(self) -> Gate:
        began = 0.0 if self._last is None else self._last.now()
        self._last = Gate(self._allowance, began=began, places=lambda: self._places)
        return self._last

    async def _know_places(self, ask: Ask, announce: Announce | None) -> None:
        """Ask the service for the cap, unless somebody did so lately; those who come meanwhile wait for the answer."""
        gate = self._gates.get()
        if gate.now() - self._asked_at >= ACCOUNT_LIFE:
            async with self._asking.get():
                if gate.now() - self._asked_at >= ACCOUNT_LIFE:
                    told = await _most_in_flight(ask)
                    self._set_places(told or self._places, announce=announce)
                    self._asked_at = gate.now()
                    gate.give_places()

    def _set_places(self, places: float, *, announce: Announce | None) -> None:
        is_news = places != self._places or math.isinf(places)
        self._places = places
        if is_news and announce is not None:
            announce(events.LimitLearned(limit="tasks in flight", value=places))

    def __repr__(self) -> str:
        now = 0.0 if self._last is None else self._last.now()
        limits: tuple[Limit, ...] = ("requests", "submits", "looks")
        rates = {limit: self._allowance.bears(limit, now=now) for limit in limits}
        parts = [f"{limit} {rate:.3g}/s" for limit, rate in rates.items() if rate < math.inf]
        cap = self._allowance.cap
        most = min(self._places, cap.limit if cap.is_certain else math.inf)
        if most < math.inf:
            parts.append(f"{most:g} tasks in flight")
        if self._last is not None:
            parts += self._last.describe()
        return f"<Governor {', '.join(parts) or 'no limits'}>"


async def _most_in_flight(ask: Ask) -> int | None:
    try:
        told = (await ask()).max_concurrent_tasks
    except PiAPIError:
        return None
    return told if told is not None and told >= 1 else None
