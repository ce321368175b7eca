"""The life of tasks, computed when somebody asks.

A task waits `queue_seconds` after it was accepted, then for a free place, then works for `work_seconds`. All of it is
known when the task is accepted, so no timer runs: two heaps hold what happens next, and `advance` plays the events
that lie between the last call and now, in their order. A call with nothing to play costs two comparisons, so
20,000 tasks are as calm as one.

Times are seconds on any clock that does not go back; nothing here reads one.
"""

import heapq
from collections.abc import Mapping, Sequence
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
    failure: Failure | None
    created_at: float
    queue_seconds: float
    work_seconds: float
    status: Status = "pending"
    started_at: float | None = None
    ended_at: float | None = None
    looks: int = 0

    @property
    def ready_at(self) -> float:
        """When the task may start, if there is a place."""
        return self.created_at + self.queue_seconds


class Lifecycle:
    """Tasks on their way from `pending` to their end.

    Args:
        concurrency: How many may be `processing` at once.
    """

    def __init__(self, *, concurrency: int) -> None:
        self._places = concurrency
        self._waiting: list[tuple[float, int, Task]] = []
        self._running: list[tuple[float, int, Task]] = []
        self._last_end = float("-inf")

    def add(self, task: Task) -> None:
        """Accept a task. `advance` must have been called for its `created_at` before."""
        heapq.heappush(self._waiting, (task.ready_at, task.index, task))

    def advance(self, now: float) -> list[Task]:
        """Play everything up to *now*; returns the tasks that ended, in order."""
        ended = []
        self._start_ready(now)
        while self._running and self._running[0][0] <= now:
            ended.append(self._end_first())
            self._start_ready(now)
        return ended

    def cancel(self, task: Task, *, now: float) -> None:
        """End a task that is still `pending`; its place in the queue is skipped later."""
        task.status, task.ended_at = "canceled", now

    def _start_ready(self, now: float) -> None:
        while self._waiting and len(self._running) < self._places:
            horizon = min(now, self._running[0][0]) if self._running else now
            if self._waiting[0][0] > horizon:
                return
            self._start(heapq.heappop(self._waiting)[2])

    def _start(self, task: Task) -> None:
        if task.status != "pending":
            return
        task.status = "processing"
        task.started_at = max(task.ready_at, self._last_end)
        heapq.heappush(self._running, (task.started_at + task.work_seconds, task.index, task))

    def _end_first(self) -> Task:
        self._last_end, _, task = heapq.heappop(self._running)
        task.ended_at = self._last_end
        task.status = "failed" if task.failure else "completed"
        return task
