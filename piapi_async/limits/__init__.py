"""`Governor`: the limits of an account, those that the user sets and those that are learned, shared by its sessions."""

import asyncio
import math
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Literal

import attrs

from piapi_async import _validators, events
from piapi_async._asyncio import PerLoop
from piapi_async.account import Account
from piapi_async.errors import PiAPIError
from piapi_async.limits._adaptive import DEFAULT_PAUSE_SECONDS, SLACK_SECONDS, AdaptiveRate, HostLimits, Kind
from piapi_async.limits._queue import Announce, Permit, RequestQueue
from piapi_async.limits._slots import Poll, Slot, SlotPool
from piapi_async.retry import MAX_PAUSE_SECONDS
from piapi_async.task import TaskInfo

ACCOUNT_SECONDS = 600.0
"""How long the number of tasks in flight that the service told is believed."""

Ask = Callable[[], Awaitable[Account]]


def _check_cap(instance: object, attribute: "attrs.Attribute[Any]", value: object) -> None:
    if value is not None and value != "account":
        if isinstance(value, str):
            allowed = "a whole number >= 1, 'account' or None"
            raise _validators.refuse(ValueError, name=attribute.name, allowed=allowed, value=value)
        _validators.number(at_least=1, integer=True)(instance, attribute, value)


def no_priority() -> float:
    """The priority of requests that are sent in order of arrival."""
    return 0.0


@attrs.define(kw_only=True, eq=False, repr=False)
class Governor:
    """Keeps every request of an account within what the server bears. One object may serve several sessions.

    PiAPI publishes no request rate; what is known is a limit on tasks in flight (1, 5 or 30 by plan). So the governor
    begins without limits but those that it is given, and learns from each 429:

    - Everybody pauses for as long as it says, up to `max_pause`, and for 1 s when it does not say. Where many were
      refused, and after a pause that was cut short, one request goes ahead as a probe; the others follow its answer.
    - Where a substantial share of what was sent in a second is refused, the rate falls, by half at most, and grows
      back. A few 429s that have nothing to do with the rate leave it as it is.
    - Where submits are refused in a row while tasks are in flight, their number is the limit: a new one is submitted
      when one ends, and one more is tried from time to time.

    A pause is an event (`events.Paused`), and so is a limit that was learned (`events.LimitLearned`).

    Submits are sent in order of arrival, polls by priority, and the two kinds take turns, so that neither starves. A
    host other than the API's, such as the upload's, has a pause and a rate of its own.

    A task is in flight from its submit until it is seen to be over, by whichever poll: `await handle`, `refresh`,
    `get_task`, another handle with its id. While a submit waits for one to end, tasks in flight that nobody waits for
    are polled as well, so that submitting many and waiting afterwards, or dropping handles, works within the limit. A
    task that nobody waits for counts for at most 15 minutes.

    What was learned outlasts the event loop. It is not made for several threads.

    Args:
        requests_per_second: The most requests a second, of all kinds but downloads, to each host; `None` for what it
            bears.

        burst: How many requests may go at once after a pause, at least 1; by default 1 and what a tenth of a second
            allows. In no stretch of time more than its seconds times `requests_per_second`, plus this, go out.

        max_in_flight: How many tasks are kept submitted and not over at once; `"account"` for what the service says
            the account may have (`Account.max_concurrent_tasks`), asked for at the first submit and every 10 minutes,
            where an answer that fails or says nothing leaves the limit as it was, at first none; `None` for no limit
            but the learned one.

        max_pause: The longest `Retry-After` that is obeyed, in seconds: 120 s by default. It holds for the pauses after
            a 429, and for whatever is tried again after an error that asks to wait: submits, polls, uploads.

    Raises:
        TypeError: An argument is not a number.
        ValueError: An argument is out of its range, or `burst` is given without `requests_per_second`.
    """

    requests_per_second: float | None = attrs.field(
        default=None, validator=_validators.optional(_validators.number(above=0)), on_setattr=attrs.setters.frozen
    )
    burst: float | None = attrs.field(
        default=None, validator=_validators.optional(_validators.number(at_least=1)), on_setattr=attrs.setters.frozen
    )
    max_in_flight: int | Literal["account"] | None = attrs.field(
        default=None, validator=_check_cap, on_setattr=attrs.setters.frozen
    )
    max_pause: float = attrs.field(
        default=MAX_PAUSE_SECONDS, validator=_validators.number(at_least=0), on_setattr=attrs.setters.frozen
    )
    _hosts: dict[str, HostLimits] = attrs.field(factory=dict, init=False)
    _queues: PerLoop[dict[str, RequestQueue]] = attrs.field(factory=lambda: PerLoop(dict), init=False)
    _pools: PerLoop[SlotPool] = attrs.field(init=False)
    _last: tuple[RequestQueue, SlotPool] | None = attrs.field(default=None, init=False)
    _asking: PerLoop[asyncio.Lock] = attrs.field(factory=lambda: PerLoop(asyncio.Lock), init=False)
    _asked_at: float = attrs.field(default=-math.inf, init=False)
    _size: float = attrs.field(default=math.inf, init=False)

    def __attrs_post_init__(self) -> None:
        if self.burst is not None and self.requests_per_second is None:
            raise ValueError(f"burst needs requests_per_second beside it, got burst={self.burst!r} alone")
        if isinstance(self.max_in_flight, int):
            self._size = self.max_in_flight
        self._pools = PerLoop(self._make_pool)
        self._limits("")

    def turn(
        self,
        kind: Kind = "poll",
        *,
        host: str = "",
        max_wait: float = math.inf,
        priority: Callable[[], float] = no_priority,
        slot: Slot | None = None,
        announce: Announce | None = None,
    ) -> Permit:
        """The right to send one request, to be held with `async with` from before it is sent until it is answered.

        A `RateLimitError` that ends the `with` is what the governor learns from.

        Args:
            kind: `"submit"`, or `"poll"` for all that costs nothing.

            host: Which host is asked, where that is not the API's.

            max_wait: Seconds; a pause that lasts longer is a `RateLimitError` at once, not a long silence.

            priority: Which poll goes first, asked for when it has to wait: one with a priority of 5 goes before those
                with 0 that came up to 5 s earlier.

            slot: The slot of the task that is submitted.

            announce: Told of pauses, and of limits that were learned from this request.
        """
        return Permit(
            queue=self._queue(host), kind=kind, max_wait=max_wait, priority=priority, slot=slot, announce=announce
        )

    def slot(self, *, ask: Ask | None = None, poll: Poll | None = None, announce: Announce | None = None) -> Slot:
        """A place among the tasks in flight, to be held with `async with` round a submit; in order of arrival.

        Args:
            ask: Asks the service about the account, for `max_in_flight="account"`.

            poll: Polls a task that was accepted on it, while nobody waits for that and submits wait for room. What it
                sees is to be told to `seen`.

            announce: Told of what the service said.
        """
        before = None
        if ask is not None and self.max_in_flight == "account":
            before = partial(self._know_size, ask, announce)
        self._queue("")  # is told when a slot is free
        return Slot(pool=self._pools.get(), poll=poll, before=before)

    def seen(self, info: TaskInfo) -> None:
        """A task was polled: when it is over, its slot is free."""
        self._pools.get().seen(info)

    def watch(self, task_id: str, *, by: int) -> None:
        """One coroutine more (`by=1`) waits for a task and polls it, or one fewer (`by=-1`)."""
        self._pools.get().watch(task_id, by=by)

    def pause(self, seconds: float | None) -> None:
        """Send nothing to the API for that many seconds from now; a longer pause under way stays.

        Args:
            seconds: How long, however long `max_pause` is; `None` for as long as after a 429 that does not say, 1 s.
        """
        self._queue("").close(DEFAULT_PAUSE_SECONDS if seconds is None else seconds)

    def _limits(self, host: str) -> HostLimits:
        if host not in self._hosts:
            ceiling, slack = self.requests_per_second or math.inf, SLACK_SECONDS
            if self.burst is not None:
                slack = (self.burst - 1) / ceiling
            rate = AdaptiveRate(ceiling=ceiling, slack=slack)
            self._hosts[host] = HostLimits(rate=rate, max_pause=self.max_pause)
        return self._hosts[host]

    def _queue(self, host: str) -> RequestQueue:
        queues = self._queues.get()
        if host not in queues:
            began = 0.0 if self._last is None else self._last[0].now()
            slots = self._pools.get()
            queues[host] = RequestQueue(self._limits(host), slots=slots, began=began)
            if host == "":
                slots.on_change = queues[host].pump
                slots.is_blocked = lambda: queues[host].is_full
                self._last = queues[host], slots
        return queues[host]

    def _make_pool(self) -> SlotPool:
        return SlotPool(size=lambda: self._size, before=None if self._last is None else self._last[1])

    async def _know_size(self, ask: Ask, announce: Announce | None) -> None:
        """Ask the service for the limit, unless somebody just did; those who come meanwhile wait for the answer."""
        now = self._queue("").now
        if now() - self._asked_at >= ACCOUNT_SECONDS:
            async with self._asking.get():
                if now() - self._asked_at >= ACCOUNT_SECONDS:
                    told = await _most_in_flight(ask) or self._size
                    is_news = told != self._size or math.isinf(told)
                    self._size, self._asked_at = told, now()
                    if is_news and announce is not None:
                        announce(events.LimitLearned(limit="tasks in flight", value=told))
                    self._pools.get().give()

    def __repr__(self) -> str:
        api = self._hosts[""]
        rate = api.rate.rate(0.0 if self._last is None else self._last[0].now())
        parts = [f"{rate:.3g} requests/s"] * (rate < math.inf)
        most = min(self._size, api.concurrency.limit if api.concurrency.is_certain else math.inf)
        parts += [f"at most {most:g} tasks in flight"] * (most < math.inf)
        if self._last is not None:
            queue, slots = self._last
            parts += [f"{slots.in_flight} in flight"] * bool(slots.in_flight)
            parts += [f"{slots.waiting} waiting for a slot"] * bool(slots.waiting)
            parts += queue.describe()
        return f"<Governor {', '.join(parts) or 'no limits'}>"


async def _most_in_flight(ask: Ask) -> int | None:
    try:
        told = (await ask()).max_concurrent_tasks
    except PiAPIError:
        return None
    return told if told is not None and told >= 1 else None
