"""The life of tasks, computed when somebody asks.

A task waits `queue_seconds` after it was accepted, then for a free place, then works for `work_seconds`. All of it is
known when the task is accepted, so no timer runs: two heaps hold what happens next, and `advance` plays the events
that lie between the last call and now, in their order. A task whose seconds are infinite waits for `start` or `end`.
A call with nothing to play costs two comparisons, so 20,000 tasks are as calm as one.

Times are seconds on any clock that does not go back; nothing here reads one.
"""

import heapq
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import attrs

Status = Literal["pending", "processing", "completed", "failed", "canceled"]


@attrs.frozen(kw_only=True)
class Failure:
    """Why a task fails when its work is done."""

    reason: str
    where: Literal["error", "logs"] = "error"
    """`error` puts the reason in `error.message`; `logs` only there, as PiAPI often does."""
    code: int = 10000


@attrs.define(kw_only=True, eq=False)
class Task:
    """What the server holds of one task."""

    index: int
    task_id: str
    model: str
    task_type: str
    input: Mapping[str, Any] = attrs.field(repr=False)
    config: Mapping[str, Any] = attrs.field(repr=False)
    price: int
    result_ids: Sequence[str] = attrs.field(repr=False)
    has_guide: bool = False
    """Whether the last of the results is the preprocessed control picture."""
    failure: Failure | None
    created_at: float
    queue_seconds: float
    work_seconds: float
    status: Status = "pending"
    started_at: float | None = None
    ended_at: float | None = None
    polls: int = 0
    last_poll: int | None = None
    """The poll that ends the task; None when time or somebody does."""
    staged: bool = False
    """Accepted beyond the concurrency, and shown as `staged` while it is pending."""
    cost: int = 0
    """Points really taken; 0 until the task is over."""

    @property
    def ready_at(self) -> float:
        """When the task may start, if there is a place."""
        return self.created_at + self.queue_seconds

    @property
    def shown_status(self) -> str:
        """`staged`, or the status."""
        return "staged" if self.staged and self.status == "pending" else self.status

    @property
    def changed_at(self) -> float:
        """When its status became what it is."""
        times = (self.ended_at, self.started_at, self.created_at)
        return next(time for time in times if time is not None)


Watcher = Callable[[Task], None]
Waker = Callable[[], None]


class Lifecycle:
    """Tasks on their way from `pending` to their end.

    Args:
        concurrency: How many may be `processing` at once.

        changed: Told of every task that has just started, ended or been canceled, in the order of these events.
    """

    def __init__(self, *, concurrency: int, changed: Watcher = lambda _task: None) -> None:
        self._places = concurrency
        self._changed = changed
        self._waiting: list[tuple[float, int, Task]] = []
        self._running: list[tuple[float, int, Task]] = []
        self._free_since = float("-inf")

    def add(self, task: Task) -> None:
        """Accept a task. `advance` must have been called for its `created_at` before."""
        if task.ready_at < math.inf:
            heapq.heappush(self._waiting, (task.ready_at, task.index, task))

    def advance(self, now: float) -> list[Task]:
        """Play everything up to *now*; returns the tasks that ended, in order."""
        ended = []
        self._start_ready(now)
        while self._running and self._running[0][0] <= now:
            ended.append(self._end_first())
            self._start_ready(now)
        return ended

    def resize(self, concurrency: int, *, now: float) -> None:
        """Change how many may be `processing` at once; those that are stay. `advance` must have been called before."""
        if concurrency != self._places:
            self._places, self._free_since = concurrency, now

    def start(self, task: Task, *, now: float) -> None:
        """Start a task that is still `pending`, whether there is a place or not; its turn is skipped later."""
        self._begin(task, at=now)

    def end(self, task: Task, *, now: float) -> None:
        """Let a task that is not over be so at the next `advance`, which must be for the same time."""
        if task.status == "pending":
            self._begin(task, at=now)
        place = next(place for place, entry in enumerate(self._running) if entry[2] is task)
        self._running[place] = (now, task.index, task)
        heapq.heapify(self._running)

    def cancel(self, task: Task, *, now: float) -> None:
        """End a task that is still `pending`; its place in the queue is skipped later."""
        task.status, task.ended_at = "canceled", now
        self._changed(task)

    def next_change(self) -> float:
        """No task changes before that time; infinity when nothing is to come."""
        coming = self._running[:1]
        if len(self._running) < self._places:
            coming += self._waiting[:1]
        return min((time for time, _, _ in coming), default=float("inf"))

    def _start_ready(self, now: float) -> None:
        while self._waiting and len(self._running) < self._places:
            horizon = min(now, self._running[0][0]) if self._running else now
            if self._waiting[0][0] > horizon:
                return
            task = heapq.heappop(self._waiting)[2]
            if task.status == "pending":
                self._begin(task, at=max(task.ready_at, self._free_since))

    def _begin(self, task: Task, *, at: float) -> None:
        task.status, task.started_at = "processing", at
        heapq.heappush(self._running, (at + task.work_seconds, task.index, task))
        self._changed(task)

    def _end_first(self) -> Task:
        self._free_since, _, task = heapq.heappop(self._running)
        task.ended_at = self._free_since
        task.status = "failed" if task.failure else "completed"
        self._changed(task)
        return task
