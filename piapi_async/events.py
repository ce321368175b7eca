"""What happens, as frozen values, told to observers: logs, metrics, progress displays and tests are made from these.

An observer is any callable that takes one event. It is called in the event loop, at once; keep it short. What it
raises is logged and goes no further: watching a paid task must not break it.
"""

import asyncio
import logging
import math
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

import attrs

from piapi_async._renamed import renamed
from piapi_async.errors import PiAPIError
from piapi_async.task import Image, TaskInfo

logger: logging.Logger = logging.getLogger("piapi_async")


@attrs.frozen(kw_only=True)
class Submitted:
    """The service accepted a task."""

    level = logging.DEBUG
    info: TaskInfo

    def __str__(self) -> str:
        return f"task {self.info.task_id} submitted ({self.info.model} {self.info.task_type})"


@attrs.frozen(kw_only=True)
class Polled:
    """One poll of a task succeeded."""

    level = logging.DEBUG
    info: TaskInfo

    def __str__(self) -> str:
        return f"task {self.info.task_id} is {self.info.raw_status or self.info.status}"


@attrs.frozen(kw_only=True)
class PollFailed:
    """One poll of a task failed; the wait goes on unless its limits are reached."""

    level = logging.INFO
    task_id: str
    error: PiAPIError

    def __str__(self) -> str:
        return f"poll of task {self.task_id} failed: {self.error}"


@attrs.frozen(kw_only=True)
class UnknownStatus:
    """The service used a status word this version does not know; told once per handle and word."""

    level = logging.WARNING
    task_id: str
    raw_status: str

    def __str__(self) -> str:
        return f"task {self.task_id} has the unknown status {self.raw_status!r}, taken as not over"


@attrs.frozen(kw_only=True)
class Retrying:
    """A request failed without harm and is sent again after a pause.

    Attributes:
        action: What is tried: `"submit"`, `"poll"`, `"cancel"`, `"upload"`, `"history"`, `"account"` or `"download"`.

        attempt: How many attempts were made so far.

        wait: Seconds until the next.

        error: What the last one met.
    """

    level = logging.INFO
    action: str
    attempt: int
    wait: float
    error: BaseException | None

    def __str__(self) -> str:
        return f"{self.action} again in {self.wait:.1f} s, attempt {self.attempt} failed: {self.error}"


@attrs.frozen(kw_only=True)
class Paused:
    """A 429 makes everybody pause: until its end nothing more is sent to that host.

    Attributes:
        seconds: How long, at most `Governor.max_pause`.

        asked: How many seconds the server asked for; `None` when it did not say.
    """

    level = logging.INFO
    seconds: float
    asked: float | None

    def __str__(self) -> str:
        asked = "" if self.asked is None or self.asked <= self.seconds else f", the server asked for {self.asked:.0f} s"
        return f"answered 429, pausing for {self.seconds:.1f} s{asked}"


@attrs.frozen(kw_only=True)
class LimitLearned:
    """What PiAPI bears, as far as its refusals show, or the account says.

    Attributes:
        limit: `"requests"`, of which so many a second, or `"tasks in flight"`.

        value: How much that is; infinite when no limit is known.
    """

    level = logging.INFO
    limit: str
    value: float

    def __str__(self) -> str:
        if math.isinf(self.value):
            return f"no limit on {self.limit} is known"
        rate = "" if self.limit == "tasks in flight" else " a second"
        return f"PiAPI seems to bear {self.value:.3g} {self.limit}{rate}"


@attrs.frozen(kw_only=True)
class SubmissionInDoubt:
    """The answer to a submit was lost: a task may exist that nobody holds."""

    level = logging.ERROR
    error: PiAPIError

    def __str__(self) -> str:
        return str(self.error)


@attrs.frozen(kw_only=True)
class WaitAbandoned:
    """Nobody waits for this task any longer, as the waiting was cancelled or broke off; it may go on and be billed."""

    level = logging.WARNING
    task_id: str

    def __str__(self) -> str:
        return f"task {self.task_id} may go on and be billed; session.task({self.task_id!r}) finds it again"


@attrs.frozen(kw_only=True)
class Saved:
    """A finished picture is on disk, whole."""

    level = logging.DEBUG
    image: Image
    path: str

    def __str__(self) -> str:
        return f"saved {self.path}"


Event = (
    Submitted
    | Polled
    | PollFailed
    | UnknownStatus
    | Retrying
    | Paused
    | LimitLearned
    | SubmissionInDoubt
    | WaitAbandoned
    | Saved
)
Observer = Callable[[Event], None]

if not TYPE_CHECKING:
    __getattr__ = renamed(__name__, {"Looked": "Polled", "LookFailed": "PollFailed", "Detached": "WaitAbandoned"})


def log_event(event: Event) -> None:
    """The observer that every session has: one record of the logger `piapi_async` an event."""
    logger.log(event.level, "%s", event)


class Announcer:
    """Tells an event to the log and to all observers, none of which can harm the others."""

    def __init__(self, observers: Iterable[Observer]) -> None:
        self._observers = (log_event, *observers)

    def __call__(self, event: Event) -> None:
        """Tell one event."""
        for observer in self._observers:
            try:
                observer(event)
            except (Exception, asyncio.CancelledError):  # nothing is awaited here, so that a cancel is nobody's
                logger.exception("observer %r failed", observer)
