"""Waiting for one task: polls, with the pauses that the policy decides, until it is over or the time is up.

tenacity drives the loop: one `AsyncRetrying` serves all waits, since one made for each would hold 6 kB for as long as
the task takes. Sharing is safe because its parts are plain functions, between which nothing is awaited, and what
belongs to one wait, the `Poller`, travels in the call's arguments (`RetryCallState.args[0]`).

"Not over yet" and "this poll failed" are both reasons to poll again, so a failed poll is never a failed task.
"""

import asyncio
import math
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import attrs
import tenacity

from piapi_async import errors
from piapi_async._asyncio import Clock
from piapi_async.polling import Backoff, Learned, Polling, TaskWait
from piapi_async.polling._durations import lasted
from piapi_async.retry import (
    MAX_PAUSE_SECONDS,
    MISTAKES,
    RETRY_POLL,
    ask_stop,
    ask_wait,
    error_of,
    retry_after,
    warn_of,
)
from piapi_async.task import TaskInfo, TaskStatus

LAST_POLL = 5.0
"""Every poll of a wait gets this many seconds for its answer, also one that begins when the time is up."""

VISIBLE_AFTER = 10.0
"""For this many seconds after a submit, "no such task" means "not visible yet"."""

OUTPUT_PAUSE = 1.0
"""Seconds between two polls of a task that is completed and has no output so far."""

URGENT = 30.0
"""Where polls are scarce, one that surely shows the end goes this many seconds before one that surely does not."""

DOUBTFUL = 900.0
"""A task that is older than this many seconds by what the service and this machine say, and is not over, has rather
been dated by clocks that disagree."""

PASSING = (*RETRY_POLL, errors.APIError)
"""What a poll may meet and yet be repeated. These are our own errors: a cancellation, or a bug, ends the wait."""

_TICK = 0.001  # timers may fire a clock tick early
_FALLBACK = Backoff()


def learn(polling: Polling, info: TaskInfo, *, began: float | None, least: float, most: float) -> None:
    """Let a policy that learns take in a task that is over.

    A failure tells as much of when to poll as a success: tasks that fail at once should be seen to at once. A cancelled
    task tells only when somebody cancelled it.

    Args:
        polling: The policy.

        info: The task.

        began: When it was submitted, on the clock; `None` when it was not submitted here.

        least: How old it was, by the clock here, when it was last seen not to be over.

        most: How old it was when it was first seen to be.
    """
    if isinstance(polling.wait, Learned) and info.status in (TaskStatus.COMPLETED, TaskStatus.FAILED):
        between = None if began is None else (least, most)
        try:
            seconds, queued = lasted(info)
            polling.wait.observe((info.model, info.task_type), seconds, queued=queued, began=began, between=between)
        except MISTAKES as error:  # whatever it is, it must not cost the task that was just seen to end
            warn_of(polling.wait, error, instead="learning nothing from this task")


def is_young(submitted_at: float | None, *, clock: Clock) -> bool:
    """Whether a task was submitted so lately that the service may not show it yet; `None` is not here, so no."""
    return submitted_at is not None and clock.monotonic() - submitted_at < VISIBLE_AFTER


@attrs.define(kw_only=True)
class Poller(TaskWait):
    """One wait: polls one task until it is as wanted, the time is up, or the service refuses to show it.

    Args:
        poll: Makes one poll, a single request, given what tells its priority; gives what the service said, and raises
            what went wrong.

        take_in: Takes in what a poll by this policy showed, and gives the task as it is known now.

        until: Whether a task as seen ends the wait. One that is over and does not end it lacks its output still, and is
            polled every `OUTPUT_PAUSE` seconds.

        polling: The policy.

        timeout: Seconds for this wait, in place of the policy's; `None` for no limit.

        clock: Where time comes from.

        max_pause: The longest `Retry-After` that is obeyed, in seconds: `Governor.max_pause`.

        known: The task as last seen, if it was: it stands in for the first poll.

        seen_at: When that was, on the clock.

        submitted_at: When the task was submitted, on the clock; `None` when it was not submitted here.

    Attributes:
        info: The task as the last poll showed it; `None` when that one failed.

        is_refused: Whether the last poll failed since the service refuses to show the task, and that is to be believed.

        error: What the last poll met, when the time was up while polls failed.
    """

    poll: Callable[[Callable[[], float]], Awaitable[TaskInfo]]
    take_in: Callable[[TaskInfo, Polling], TaskInfo]
    until: Callable[[TaskInfo], bool]
    polling: Polling
    timeout: float | None
    clock: Clock
    max_pause: float = MAX_PAUSE_SECONDS
    known: TaskInfo | None = None
    seen_at: float = 0.0
    submitted_at: float | None = None
    info: TaskInfo | None = attrs.field(default=None, init=False)
    is_refused: bool = attrs.field(default=False, init=False)
    error: BaseException | None = attrs.field(default=None, init=False)
    _begun: float | None = attrs.field(default=None, init=False)
    _failing_since: float | None = attrs.field(default=None, init=False)
    _refusals: int = attrs.field(default=0, init=False)
    _seen: TaskInfo | None = attrs.field(default=None, init=False)

    def run(self) -> Coroutine[Any, Any, TaskInfo | None]:
        """The task as wanted, or `None` when the time was up first.

        Raises:
            PiAPIError: The service refuses to show the task: at once one that was never seen, and one that was after
                `Polling.max_errors` refusals in a row.
        """
        return _RETRYING(_attempt, self)

    @property
    def waited(self) -> float:
        """Seconds since the wait began."""
        return 0.0 if self._begun is None else self.clock.monotonic() - self._begun

    @property
    def left(self) -> float:
        """Seconds of the wait's time that are left."""
        return math.inf if self.timeout is None else self.timeout - self.waited

    def priority(self) -> float:
        """By how many seconds the next poll goes before others where polls are scarce: by what it should show."""
        wait, seen = self.polling.wait, self._seen
        if seen is None or self.submitted_at is None or not isinstance(wait, Learned):
            return 0.0
        age, since = self.clock.monotonic() - self.submitted_at, self.polled_at - self.submitted_at
        try:
            return URGENT * wait.urgency((seen.model, seen.task_type), age, since=since)
        except MISTAKES as error:
            warn_of(wait, error, instead="polling without priority")
            return 0.0

    def begin(self) -> TaskInfo | None:
        """Set the time running, once; what is known already, if anything, is what the first attempt has seen."""
        if self._begun is None:
            self._begun = self.clock.monotonic()
            if self.known is not None:
                self.saw(self.known, at=self.seen_at)
                return self.known
        self.known = None
        return None

    def saw(self, info: TaskInfo, *, at: float) -> None:
        """Note a poll that succeeded."""
        self.info = self._seen = info
        self.polled_at, self._refusals, self.is_refused = at, 0, False
        self.failing_for, self._failing_since = 0.0, None
        if self.submitted_at is not None:
            self.age = at - self.submitted_at
            return
        # By what the service and this machine say, if that can be: their clocks may disagree.
        since = self.clock.monotonic() - at
        told = 0.0 if info.created_at is None else self.clock.now() - since - info.created_at.timestamp()
        self.age = max(self.waited - since, told if told < DOUBTFUL else 0.0)

    def failed(self, error: errors.PiAPIError) -> None:
        """Note a poll that failed."""
        self.info = None
        now = self.clock.monotonic()
        self._failing_since = now if self._failing_since is None else self._failing_since
        self.failing_for = now - self._failing_since
        self.is_refused = self._counts_as_refused(error)

    def _counts_as_refused(self, error: errors.PiAPIError) -> bool:
        """Count a poll that failed, if it is a refusal; whether the service refuses for good to show the task.

        A 4xx that does not have PiAPI's form is the word of something in front of it: Cloudflare that wants to see a
        browser, a router that knows no route. But a 401 is about the key, whoever says it.
        """
        if not isinstance(error, errors.APIError) or isinstance(error, RETRY_POLL):
            return False  # no answer, or one that will be another one later
        if isinstance(error, errors.NotFoundError) and is_young(self.submitted_at, clock=self.clock):
            return False  # not visible yet
        is_of_piapi = error.is_enveloped or error.status == 401  # noqa: PLR2004
        if self._seen is not None and not is_of_piapi:
            return False  # the task is there: this passes like an outage
        if is_of_piapi and self._seen is None:
            return True  # nothing speaks for a task that was never seen
        self._refusals += 1
        return self._refusals >= self.polling.max_errors

    def is_over_time(self, state: tenacity.RetryCallState) -> bool:
        """Whether no further poll may begin; one is made in any case, also of a task that was known before."""
        if self.known is not None:
            return False
        if self.left < _TICK:
            return True
        if self.polling.stop is None:
            return False
        # A stop that counts seconds counts those of this wait, on the event loop's clock.
        now = self.clock.monotonic()
        state.start_time, state.outcome_timestamp = now - self.waited, now
        return ask_stop(self.polling.stop, state)


async def _attempt(poller: Poller) -> TaskInfo | None:
    """Poll; `None` when the time was up before an answer came."""
    if (known := poller.begin()) is not None:
        return known
    limit = asyncio.timeout(None if poller.timeout is None else max(poller.left, LAST_POLL))
    try:
        async with limit:
            info = poller.take_in(await poller.poll(poller.priority), poller.polling)
    except errors.PiAPIError as error:
        poller.failed(error)
        raise
    except TimeoutError:
        if not limit.expired():
            raise
        poller.info = None
        return None
    poller.saw(info, at=poller.clock.monotonic())
    return info


def _goes_on(state: tenacity.RetryCallState) -> bool:
    """Whether to poll again, if there is time."""
    poller: Poller = state.args[0]
    error = error_of(state)
    if error is not None:
        return isinstance(error, PASSING)
    return poller.info is not None and not poller.until(poller.info)


def _pause(state: tenacity.RetryCallState) -> float:
    """Seconds until the next poll, which is at the latest when the time is up."""
    poller: Poller = state.args[0]
    if poller.info is not None and poller.info.is_terminal:
        pause = OUTPUT_PAUSE
    else:
        pause = ask_wait(poller.polling.wait, state, fallback=_FALLBACK)
    if poller.info is None:
        pause = max(pause, retry_after(error_of(state), max_pause=poller.max_pause))
    if poller.known is not None:
        pause -= poller.clock.monotonic() - poller.seen_at
    return max(0.0, min(pause, poller.left))


def _is_enough(state: tenacity.RetryCallState) -> bool:
    poller: Poller = state.args[0]
    return poller.is_refused or poller.is_over_time(state)


def _give_up(state: tenacity.RetryCallState) -> None:
    """Raise the refusal, or note what polls met when the time was up; in place of tenacity's `RetryError`."""
    poller: Poller = state.args[0]
    error = error_of(state)
    if error is not None and poller.is_refused:
        raise error
    poller.error = error


_RETRYING = tenacity.AsyncRetrying(
    sleep=Clock().sleep,
    retry=_goes_on,
    wait=_pause,
    stop=_is_enough,
    before=None,  # type: ignore[arg-type] # as tenacity allows: what does nothing costs 1 µs a pass, too
    after=None,  # type: ignore[arg-type]
    retry_error_callback=_give_up,
)
