"""Which tasks are in flight: the slots that submits take, and that are free again when the tasks are seen to be over.

A slot is taken before a task is submitted. From its acceptance on the slot belongs to the task, by its id, whoever
polls it: a handle that is awaited, `refresh`, another handle of the same task. Handles may also be dropped, or be
awaited only after all were submitted. So while a submit waits for a slot, the tasks that nobody waits for are polled
here; polls are free. A task that is still not over after `GIVE_UP_SECONDS` no longer counts, nor does one that cannot
be asked about since its session is closed: nobody waits for ever.
"""

import asyncio
import math
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Self

import attrs

from piapi_async import errors
from piapi_async.events import logger
from piapi_async.polling._poller import VISIBLE_AFTER
from piapi_async.task import TaskInfo

Poll = Callable[[str], Awaitable[object]]
"""Polls a task once, by its id."""

GIVE_UP_SECONDS = 900.0
"""How long a task counts that nobody waits for, as long as a wait lasts by default (`Polling.timeout`)."""

MIN_POLL_SECONDS, MAX_POLL_SECONDS, AGE_PER_POLL = 1.0, 10.0, 5.0
"""Such a task is polled each time it is a fifth older, but not more often than each second, nor less than each ten."""

MAX_POLLS = 10
"""How many such tasks are polled once."""


@attrs.define(eq=False, kw_only=True)
class Slot:
    """A place among the tasks in flight, given in order of arrival.

    To be held with `async with` round a submit. At its end the slot is free, unless a task was accepted: then it is
    free when that is over.

    Attributes:
        pool: Where it is taken from.

        task_id: The task that was accepted, if one was.

        is_held: Whether the slot is taken.

        is_sent: Whether a submit was sent and not refused.

        is_counted: Whether the task is among those beside which others are accepted or refused.

        watchers: How many coroutines wait for the task.
    """

    pool: "SlotPool"
    task_id: str | None = None
    is_held: bool = False
    is_sent: bool = False
    is_counted: bool = False
    watchers: int = 0
    accepted_at: float = 0.0
    polled_at: float = 0.0
    _poll: Poll | None = attrs.field(default=None, alias="poll")
    _before: Callable[[], Awaitable[None]] | None = attrs.field(default=None, alias="before")

    async def __aenter__(self) -> Self:
        if self._before is not None:
            await self._before()
        await self.pool.take(self)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self.task_id is None:
            self.pool.release(self)

    def accepted(self, info: TaskInfo) -> None:
        """The submit was accepted: the slot is the task's."""
        self.pool.accepted(self, info)

    async def poll(self) -> None:
        """Poll the task once; whoever is interested sees the answer."""
        assert self._poll is not None
        assert self.task_id is not None
        await self._poll(self.task_id)


class SlotPool:
    """The slots of one event loop.

    Args:
        size: Tells how many slots there are.

        before: The pool of the event loop before, whose accepted tasks are still in flight.

    Attributes:
        tasks: The slots of accepted tasks, by their ids.

        held: How many slots are taken.

        in_flight: On how many of them a submit was sent, and not refused.

        accepted_tasks: On how many of them it was accepted, by the answers in the order in which they were dealt with.

        on_change: Called when fewer tasks are in flight.

        is_blocked: Tells whether submits wait for tasks in flight to end, besides those that wait for a slot.
    """

    def __init__(self, *, size: Callable[[], float], before: "SlotPool | None") -> None:
        self._size = size
        self._loop = asyncio.get_running_loop()
        self._waiters: OrderedDict[asyncio.Future[None], Slot] = OrderedDict()
        self.tasks: dict[str, Slot] = {}
        self._unwatched = 0
        self._poller: asyncio.Task[None] | None = None
        self._is_bug_told = False
        self.held: int = 0
        self.in_flight: int = 0
        self.accepted_tasks: int = 0
        self.on_change: Callable[[], None] = lambda: None
        self.is_blocked: Callable[[], bool] = lambda: False
        if before is not None:
            self.tasks = before.hand_over()
            for slot in self.tasks.values():
                slot.pool, slot.watchers, slot.is_counted = self, 0, True
                slot.accepted_at = slot.polled_at = self._loop.time()
            self.held = self.in_flight = self.accepted_tasks = self._unwatched = len(self.tasks)

    def hand_over(self) -> dict[str, Slot]:
        """Give the tasks to another event loop's pool; this one's loop may run again, and must not count them then."""
        tasks, self.tasks = self.tasks, {}
        for slot in tasks.values():
            self.held -= slot.is_held
            self.in_flight -= slot.is_sent
            self.accepted_tasks -= slot.is_counted
        self._unwatched = 0
        return tasks

    @property
    def waiting(self) -> int:
        """How many submits wait for a slot."""
        return len(self._waiters)

    async def take(self, slot: Slot) -> None:
        """Wait for a slot."""
        if self.held >= self._size() or self._waiters:
            future = self._loop.create_future()
            self._waiters[future] = slot
            self.give()
            try:
                await future
            except asyncio.CancelledError:
                self._waiters.pop(future, None)
                self.release(slot)  # it may have been given in the same moment
                raise
        else:
            self._hold(slot)

    def _hold(self, slot: Slot) -> None:
        slot.is_held = True
        self.held += 1

    def give(self) -> None:
        """Give away the slots that are free."""
        while self._waiters and self.held < self._size():
            future, slot = self._waiters.popitem(last=False)
            if not future.done():
                self._hold(slot)
                future.set_result(None)
        self.poll_unwatched()

    def sent(self, slot: Slot) -> None:
        """A submit is sent."""
        slot.is_sent = True
        self.in_flight += 1

    def count(self, slot: Slot) -> None:
        """The submit was answered: its task, if it is not over already, counts from now on."""
        slot.is_counted = slot.task_id is not None
        self.accepted_tasks += slot.is_counted

    def refused(self, slot: Slot) -> None:
        """No task came of the submit, as far as is known."""
        if slot.is_sent and slot.task_id is None:
            slot.is_sent = False
            self.in_flight -= 1

    def accepted(self, slot: Slot, info: TaskInfo) -> None:
        """A task came of the submit."""
        now = self._loop.time()
        # Whoever is told by webhooks never polls: what is that old is let go here, so that it does not pile up.
        while (oldest := next(iter(self.tasks.values()), None)) and _is_given_up(oldest, now=now):
            self.release(oldest)
        if info.task_id not in self.tasks:
            slot.task_id, slot.accepted_at = info.task_id, now
            self.tasks[info.task_id] = slot
            self._unwatched += 1
            self.seen(info)
            self.poll_unwatched()

    def seen(self, info: TaskInfo) -> None:
        """A task was seen: if it is over, its slot is free."""
        slot = self.tasks.get(info.task_id)
        if slot is not None:
            slot.polled_at = self._loop.time()
            if info.is_terminal:
                self.release(slot)

    def release(self, slot: Slot) -> None:
        """The slot is free, whatever became of its task."""
        if slot.task_id is not None:
            del self.tasks[slot.task_id]
            self._unwatched -= slot.watchers == 0
            slot.task_id = None
        self.refused(slot)
        self.held -= slot.is_held
        self.accepted_tasks -= slot.is_counted
        slot.is_held = slot.is_counted = False
        self.give()
        self.on_change()

    def watch(self, task_id: str, *, by: int) -> None:
        """One coroutine more, or fewer, waits for a task and polls it."""
        # No context manager: ten thousand waiting tasks would hold one each.
        slot = self.tasks.get(task_id)
        if slot is not None:
            before, slot.watchers = slot.watchers, max(0, slot.watchers + by)
            self._unwatched += (slot.watchers == 0) - (before == 0)
            self.poll_unwatched()

    def poll_unwatched(self) -> None:
        """See to it that the tasks nobody waits for are polled while submits wait for some of them to end."""
        is_wanted = self._unwatched > 0 and (bool(self._waiters) or self.is_blocked())
        if is_wanted and (self._poller is None or self._poller.done()):
            self._poller = self._loop.create_task(self._poll_unwatched())
        if not is_wanted and self._poller is not None:
            self._poller.cancel()
            self._poller = None

    async def _poll_unwatched(self) -> None:
        """Poll them side by side, so that one whose answer does not come holds up no other."""
        polls: dict[asyncio.Task[None], Slot] = {}
        try:
            while True:  # until `poll_unwatched` cancels it
                now = self._loop.time()
                unwatched = [slot for slot in self.tasks.values() if slot.watchers == 0]
                for slot in unwatched:
                    if _is_given_up(slot, now=now):
                        self.release(slot)
                idle = sorted(set(unwatched) & set(self.tasks.values()) - set(polls.values()), key=_due)
                for slot in idle[: MAX_POLLS - len(polls)]:
                    if _due(slot) <= now:
                        slot.polled_at = now
                        polls[self._loop.create_task(self._poll(slot))] = slot
                next_due = min((_due(slot) for slot in idle if slot not in polls.values()), default=math.inf)
                pause = max(0.0, min(next_due - now, MAX_POLL_SECONDS))
                if polls:
                    done, _ = await asyncio.wait(polls, timeout=pause, return_when=asyncio.FIRST_COMPLETED)
                    for poll in done:
                        del polls[poll]
                else:
                    await asyncio.sleep(pause)
        finally:
            for poll in polls:
                poll.cancel()

    async def _poll(self, slot: Slot) -> None:
        try:
            await slot.poll()
        except errors.ConfigurationError:  # its session is closed
            self.release(slot)
        except errors.NotFoundError as error:
            is_visible = self._loop.time() - slot.accepted_at >= VISIBLE_AFTER
            if error.is_enveloped and is_visible and slot.task_id is not None:
                self.release(slot)  # the service knows no such task, so that it will never be seen to end
        except errors.PiAPIError:
            pass
        except Exception:  # noqa: BLE001 - a bug of a middleware, say, must not hold up submits for good
            if not self._is_bug_told:
                logger.exception("polling task %s failed; it is polled again", slot.task_id)
            self._is_bug_told = True


def _due(slot: Slot) -> float:
    """When to poll it next."""
    age = slot.polled_at - slot.accepted_at
    return slot.polled_at + min(max(MIN_POLL_SECONDS, age / AGE_PER_POLL), MAX_POLL_SECONDS)


def _is_given_up(slot: Slot, *, now: float) -> bool:
    return slot.watchers == 0 and now - slot.accepted_at >= GIVE_UP_SECONDS
