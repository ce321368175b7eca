"""Waiting for one task: looks, with the pauses that the policy decides, until it is over or the time is up.

One loop serves a whole wait: "not over yet" and "this look failed in transit" are both reasons to look again, so a
failed look is never a failed task.
"""

import asyncio
import math
from collections.abc import Awaitable, Callable
from functools import partial

import attrs

from piapi_async import errors
from piapi_async._clock import Clock
from piapi_async._learning import lasted, phase
from piapi_async.polling import Attempts, Learned, Polling
from piapi_async.retry import RETRY_LOOK, retry_after
from piapi_async.task import TaskInfo, TaskStatus

LAST_LOOK = 5.0
"""The look at the end of a wait's time may take this many seconds beyond it."""

VISIBLE_AFTER = 10.0
"""For this many seconds after a submit, "no such task" means "not visible yet"."""

URGENT = 30.0
"""Where looks are scarce, a look that surely shows the end goes so many seconds before one that surely does not."""

DOUBTFUL = 900.0
"""A task that is older than so many seconds by what the service and this machine say, and is not over, has rather been
dated by clocks that disagree."""

TOGETHER = 0.1
"""Looks that may as well be a little earlier or later are at common moments, so many seconds apart: to wake up for one
look costs about as much as the look."""

_TICK = 0.001  # timers may fire a clock tick early


def learn(polling: Polling, info: TaskInfo, *, began: float | None, least: float, most: float) -> None:
    """Let a policy that learns take in a task that is over; `least` and `most` are as for `lasted`."""
    if isinstance(polling.wait, Learned) and info.status is TaskStatus.COMPLETED:
        seen = lasted(info, least=least, most=most)
        if seen is not None:
            polling.wait.observe((info.model, info.task_type), seen[0], queued=seen[1], began=began)


def urgency(polling: Polling, info: TaskInfo, *, age: float, seen_ago: float) -> float:
    """By how many seconds a look goes before others where looks are scarce: by what it can be expected to show.

    Args:
        polling: The policy that planned it.

        info: The task as last seen.

        age: Seconds since the submit.

        seen_ago: Seconds since it was last seen.
    """
    if not isinstance(polling.wait, Learned):
        return 0.0
    return URGENT * polling.wait.urgency((info.model, info.task_type), age, since=age - seen_ago)


def is_young(submitted_at: float | None, *, clock: Clock) -> bool:
    """Whether a task was submitted so lately that the service may not show it yet; `None` is not here, so no."""
    return submitted_at is not None and clock.monotonic() - submitted_at < VISIBLE_AFTER


@attrs.define(kw_only=True)
class Watch:
    """One wait: looks at one task until it is as wanted, or until the time or the patience with errors is used up.

    Args:
        look: Makes one look, a single request.

        until: Whether a task as seen ends the wait.

        polling: The policy.

        timeout: Seconds for this wait, in place of the policy's; `None` for no limit.

        clock: Where time and sleep come from.

        known: The task as last seen, if it was: it stands in for the first look.

        seen_at: When that was, on the clock.

        submitted_at: When the task was submitted, on the clock; `None` when it was not submitted here.
    """

    look: Callable[[], Awaitable[TaskInfo]]
    until: Callable[[TaskInfo], bool]
    polling: Polling
    timeout: float | None
    clock: Clock
    known: TaskInfo | None = None
    seen_at: float = 0.0
    submitted_at: float | None = None
    _attempts: Attempts = attrs.field(factory=Attempts, init=False)
    _errors: int = attrs.field(default=0, init=False)
    _begun: float = attrs.field(default=0.0, init=False)

    async def run(self) -> TaskInfo | None:
        """The task as wanted, or `None` when time ran out first.

        Raises:
            PiAPIError: What a look met that looking again does not mend, or the last of too many failures in a row.
        """
        self._begun = self.clock.monotonic()
        while True:
            seen = self.known or await self._attempt()
            if isinstance(seen, TaskInfo) and self.until(seen):
                return seen
            if seen is None or (self._left() < _TICK and self.known is None):
                return None
            # Ten thousand tasks wait just here: neither a coroutine nor a time limit is held meanwhile.
            ringing, alarm = self.clock.alarm(self._pause(seen))
            try:
                await ringing
            finally:
                alarm.cancel()

    async def _attempt(self) -> TaskInfo | errors.PiAPIError | None:
        """Look; `None` when the time was up before an answer came. What looking again does not mend is raised."""
        limit = asyncio.timeout(None if self.timeout is None else self._left() + LAST_LOOK)
        try:
            async with limit:
                info = await self.look()
        except errors.PiAPIError as error:
            return self._passing(error)
        except TimeoutError:
            if limit.expired():
                return None
            raise
        self._errors = 0
        return info

    def _passing(self, error: errors.PiAPIError) -> errors.PiAPIError:
        """The error, if looking again may mend it.

        Raises:
            PiAPIError: It does not, or there were too many in a row.
        """
        if not self._may_pass(error):
            raise error
        self._errors += not isinstance(error, errors.NotFoundError)
        if self._errors >= self.polling.max_errors:
            raise error
        return error

    def _may_pass(self, error: errors.PiAPIError) -> bool:
        if isinstance(error, errors.NotFoundError):
            return is_young(self.submitted_at, clock=self.clock)
        return isinstance(error, RETRY_LOOK)

    def _pause(self, seen: TaskInfo | errors.PiAPIError) -> float:
        """Seconds until the next look."""
        wait = self.polling.wait
        if isinstance(wait, Learned) and isinstance(seen, TaskInfo):
            pause = self._planned(wait, seen)
        else:
            pause = max(wait(self._attempts.after(seen)), retry_after(seen))
        if self.known is not None:
            pause -= self.clock.monotonic() - self.seen_at
            self.known = None
        return max(0.0, min(pause, self._left()))

    def _planned(self, wait: Learned, info: TaskInfo) -> float:
        """A pause by chance within the plan's room: tasks submitted together are looked at over a while."""
        self._attempts.forget()
        elapsed = self._age(info)
        queued, running_for = phase(info, elapsed=elapsed)
        plan = partial(wait.delay, (info.model, info.task_type), elapsed, queued=queued, running_for=running_for)
        return _between(plan(chance=0.0), plan(chance=1.0), since=self._seen(), chance=self.clock.random())

    def _seen(self) -> float:
        """When what is known was seen, on the clock."""
        return self.clock.monotonic() if self.known is None else self.seen_at

    def _age(self, info: TaskInfo) -> float:
        """How old the task was when it was seen so: since the submit, or by what the service and this machine say."""
        seen_at = self._seen()
        if self.submitted_at is not None:
            return seen_at - self.submitted_at
        since = self.clock.monotonic() - seen_at
        told = 0.0 if info.created_at is None else self.clock.now() - since - info.created_at.timestamp()
        return max(seen_at - self._begun, told if told < DOUBTFUL else 0.0)

    def _left(self) -> float:
        return math.inf if self.timeout is None else self._begun + self.timeout - self.clock.monotonic()


def _between(earliest: float, latest: float, *, since: float, chance: float) -> float:
    """A pause within bounds, by chance (0 to 1); it ends at a common moment if one of them can be reached."""
    first, last = math.ceil((since + earliest) / TOGETHER), math.floor((since + latest) / TOGETHER)
    if first > last:
        return earliest + chance * (latest - earliest)
    return (first + math.floor(chance * (last - first + 1))) * TOGETHER - since
