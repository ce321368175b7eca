"""The tasks that may have come of a submit whose answer was lost: listed by the history, read, and compared.

The service has no idempotency key (https://piapi.ai/blogs/piapi-retry-safe-tasks asks to look before one pays again).
Its history lists the tasks of a time (https://piapi.ai/docs/piapi-user-history-query), without their inputs; each task
shows its input when it is read. `batch._reconcile` settles doubts of a ledger so, `Session.find` everybody else's.
"""

import asyncio
from collections import OrderedDict, deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import attrs

from piapi_async import errors, events
from piapi_async._fingerprint import Content, content_of
from piapi_async.task import Submittable, TaskInfo

APART = 300.0
"""Seconds by which the service's clock and ours may differ, and which a submit may take."""

LISTED_WITHIN = 120.0
"""Seconds for which a task may be missing from the history. PiAPI does not say how far that lags behind."""

TOGETHER = 8
"""Candidates that are read at once."""

REMEMBERED = 10_000
"""A session's own tasks whose ids are remembered."""

DOUBTS = 100
"""A session's submits in doubt that are remembered; their pictures may be in memory."""


@attrs.define(kw_only=True)
class Candidates:
    """Reads the tasks of a time; each is read once.

    Args:
        history: Lists the ids of the account's tasks; as `Session.history`.

        read: Polls a task once; as `Session.get_task`.
    """

    history: Callable[..., AsyncIterator[str]]
    read: Callable[[str], Awaitable[TaskInfo]]
    _known: dict[str, TaskInfo] = attrs.field(factory=dict, init=False)

    async def between(
        self,
        start: float,
        end: float,
        *,
        models: Sequence[str],
        unknown: Callable[[list[str]], Awaitable[list[str]]],
    ) -> list[TaskInfo]:
        """The tasks that were made between two times, give or take `APART`.

        Args:
            start: Seconds since 1970 (UTC).

            end: The same.

            models: The models that they may be of.

            unknown: Those of the listed ids that are not known to be of another submit; the others are not read.

        Raises:
            PiAPIError: The history or a task could not be read. A task that is listed and cannot be read may be the
                one that is looked for, so that nothing can be told without it.
        """
        family = "flux" if all("flux" in model for model in models) else None
        listed = [task_id async for task_id in self.history(start=start - APART, end=end + APART, model=family)]
        task_ids = await unknown(listed)
        new = [task_id for task_id in task_ids if task_id not in self._known]
        for first in range(0, len(new), TOGETHER):
            infos = await asyncio.gather(*map(self._read, new[first : first + TOGETHER]))
            self._known |= {info.task_id: info for info in infos if info is not None}
        return [self._known[task_id] for task_id in task_ids if task_id in self._known]

    async def _read(self, task_id: str) -> TaskInfo | None:
        try:
            return await self.read(task_id)
        except errors.NotFoundError:
            return None  # it is in the history, and no longer among the tasks: nobody can wait for it


class OwnTasks:
    """The tasks that a session submitted, and its submits whose tasks are not known; an observer.

    The last `REMEMBERED` tasks are kept, by their ids, and the last `DOUBTS` doubts, with their requests.
    """

    def __init__(self) -> None:
        self._ids: OrderedDict[str, None] = OrderedDict()
        self._under_way: dict[asyncio.Task[Any] | None, Submittable] = {}
        self._doubts: deque[tuple[Submittable, float]] = deque(maxlen=DOUBTS)

    @contextmanager
    def submitting(self, request: Submittable) -> Iterator[None]:
        """Hold this while the current asyncio task submits that request."""
        task = asyncio.current_task()
        self._under_way[task] = request
        try:
            yield
        finally:
            del self._under_way[task]

    async def may_be_of_another(self, info: TaskInfo, content: Content) -> bool:
        """Whether a task that fits a content may be that of a submit under way, or of a doubt of other content.

        Equal doubts are interchangeable. A submit under way will learn its own task, even if it is equal.
        """
        # Contents are worked out here, where few ask, and not at each submit: pictures are read for them.
        doubts = [request for request, since in self._doubts if is_near(info, since=since)]
        for request, is_doubt in [(one, False) for one in self._under_way.values()] + [(one, True) for one in doubts]:
            other = await content_of(request)
            if other.fits(info) and not (is_doubt and other == content):
                return True
        return False

    async def adopt(self, task_id: str, content: Content, *, since: float) -> None:
        """Remember a task that was found; a doubt of that content, the nearest in time, is one no longer."""
        self.add(task_id)
        settled = [doubt for doubt in tuple(self._doubts) if await _asks_for(doubt[0], content)]
        for doubt in sorted(settled, key=lambda doubt: abs(doubt[1] - since))[:1]:
            with suppress(ValueError):  # it was left meanwhile
                self._doubts.remove(doubt)

    def __call__(self, event: events.Event) -> None:
        """Remember a task whose submit was answered, or the doubt, also when the submit had been cancelled by then."""
        if isinstance(event, events.Submitted):
            self.add(event.info.task_id)
        elif isinstance(event, events.SubmissionInDoubt):
            assert isinstance(event.error, errors.SubmissionInDoubtError)
            assert event.error.request is not None
            self._doubts.append((event.error.request, event.error.since))

    def add(self, task_id: str) -> None:
        """Remember a task."""
        self._ids[task_id] = None
        while len(self._ids) > REMEMBERED:
            self._ids.popitem(last=False)

    def __contains__(self, task_id: object) -> bool:
        return task_id in self._ids


async def _asks_for(request: Submittable, content: Content) -> bool:
    """Whether a request has a content; one whose pictures are gone has none that could be told."""
    with suppress(OSError):
        return await content_of(request) == content
    return False


def is_near(info: TaskInfo, *, since: float) -> bool:
    """Whether a task was made at the time of a submit, as far as it says."""
    return info.created_at is None or abs(info.created_at.timestamp() - since) <= APART


def endpoint(info: TaskInfo) -> str:
    """The webhook's URL that a task shows, or an empty text."""
    config: Any = info.raw.get("config")
    webhook: Any = config.get("webhook_config") if isinstance(config, dict) else None
    url = webhook.get("endpoint") if isinstance(webhook, dict) else None
    return url if isinstance(url, str) else ""
