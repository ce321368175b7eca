"""PiAPI in memory: tasks, credits and queue, without HTTP and without a clock."""

import random
import uuid
from typing import Any

from piapi_async.emulator._service.credits import POINTS_PER_IMAGE, Wallet
from piapi_async.emulator._service.lifecycle import Failure, Lifecycle, Task, Waker, Watcher
from piapi_async.emulator._service.progress import pace_for
from piapi_async.emulator._service.settings import Settings
from piapi_async.emulator._service.sources import problem
from piapi_async.emulator._service.texts import Texts
from piapi_async.emulator._service.validation import ADVANCED, Refusal, Submission
from piapi_async.emulator.faults import Fault
from piapi_async.emulator.options import Options

_MOST_STAGED = 50  # piapi.ai/docs/unified-api-schema
_RETRY_AFTER = {"Retry-After": "12"}  # the one sample that is known, a third party's


class Service:
    """What the server knows. Every method takes the time, in seconds that do not go back.

    Args:
        settings: How it behaves.

    Attributes:
        alive: The tasks that are not over.

        changed: Called with every task that started, ended or was canceled, as it happens.

        replanned: Called when the time of the next change may be another than it was.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.wallet = Wallet(self.options.credits)
        self.tasks: dict[str, Task] = {}
        self._results: dict[str, tuple[Task, int]] = {}
        self.alive: dict[str, Task] = {}
        self.changed: Watcher = lambda _task: None
        self.replanned: Waker = lambda: None
        self._lifecycle = Lifecycle(concurrency=self.options.places, changed=self._on_change)
        self._texts = Texts()
        self._accepted = 0

    @property
    def options(self) -> Options:
        """As they are now."""
        return self._settings.current

    def change(self, *, now: float, **changes: Any) -> None:
        """Replace some options from now on; what happened before, happened under the old ones.

        Raises:
            ValueError: A value out of range, or an option that cannot change.

            TypeError: There is no such option.
        """
        self.advance(now)
        self._settings.change(**changes)
        self._lifecycle.resize(self.options.places, now=now)
        self.replanned()

    def advance(self, now: float) -> None:
        """Bring every task up to date."""
        self._lifecycle.advance(now)

    def next_change(self) -> float:
        """No task changes before that time; infinity when nothing is to come."""
        return self._lifecycle.next_change()

    def create(self, submission: Submission, *, now: float, fault: Fault | None = None) -> Task:
        """Accept a task, with the end that a fault of `when="task"` gives it.

        Raises:
            Refusal: The plan is too low, there are too many tasks, or not enough credits.
        """
        self.advance(now)
        self._check_plan(submission.model)
        staged = self._over_limit()
        price = POINTS_PER_IMAGE[submission.model] * submission.images
        self._freeze(price)
        task = self._make(submission, price=price, now=now, fault=fault, staged=staged)
        self._hold(task)
        return task

    def poll(self, task_id: str, *, now: float) -> Task:
        """Read a task.

        Raises:
            Refusal: No such task, or it cannot be seen yet.
        """
        self.advance(now)
        task = self._find(task_id)
        if now < task.created_at + self.options.visible_after:
            raise _not_found()
        task.polls += 1
        if task.last_poll is not None and task.ended_at is None:
            self._step(task, now=now)
        return task

    def start(self, task_id: str, *, now: float) -> None:
        """Start a pending task by hand.

        Raises:
            ValueError: There is none.
        """
        self.advance(now)
        task = self._alive(task_id)
        if task.status != "pending":
            raise ValueError(f"task {task_id} is {task.status}, only a pending task can be started")
        self._lifecycle.start(task, now=now)
        self.replanned()

    def end(self, task_id: str, *, failure: Failure | None, now: float) -> None:
        """End a task by hand, well or with a failure, whatever it was going to come to.

        Raises:
            ValueError: There is none, or it is over.
        """
        self.advance(now)
        task = self._alive(task_id)
        task.failure = failure
        self._lifecycle.end(task, now=now)
        self.advance(now)
        self.replanned()

    def cancel(self, task_id: str, *, now: float) -> Task:
        """Cancel a task that is still pending, and give back its points.

        Raises:
            Refusal: No such task, it is no longer pending, or nothing can be canceled.
        """
        self.advance(now)
        if self.options.cancel == "405":
            raise Refusal(405, "method not allowed")
        task = self._find(task_id)
        if self.options.cancel == "404":
            raise _not_found()
        if task.status != "pending":
            raise Refusal(400, f"task {task_id} is {task.status}, only a pending task can be canceled")
        self._lifecycle.cancel(task, now=now)
        return task

    def result(self, result_id: str, *, now: float) -> tuple[Task, int] | None:
        """Which picture of which task a link stands for; None when there never was one, or not yet."""
        self.advance(now)
        found = self._results.get(result_id)
        return found if found and found[0].status == "completed" else None

    def is_expired(self, task: Task, *, now: float) -> bool:
        """Whether the pictures of a completed task are deleted."""
        assert task.ended_at is not None
        return now >= task.ended_at + self.options.result_life

    def _find(self, task_id: str) -> Task:
        try:
            return self.tasks[task_id]
        except KeyError:
            raise _not_found() from None

    def _alive(self, task_id: str) -> Task:
        if task_id not in self.tasks:
            raise ValueError(f"there is no task {task_id}")
        if task_id not in self.alive:
            raise ValueError(f"task {task_id} is {self.tasks[task_id].status} already")
        return self.alive[task_id]

    def _step(self, task: Task, *, now: float) -> None:
        assert task.last_poll is not None
        if task.polls >= task.last_poll:
            self._lifecycle.end(task, now=now)
            self.advance(now)
            self.replanned()
        elif task.status == "pending" and task.polls >= min(2, task.last_poll - 1):
            self._lifecycle.start(task, now=now)

    def _check_plan(self, model: str) -> None:
        if self.options.plan == "free" and model == ADVANCED:
            raise Refusal(403, f"{model} needs the creator plan or higher")

    def _over_limit(self) -> bool:
        """Whether the next task is staged."""
        options = self.options
        if options.over_limit == "pending" or len(self.alive) < options.places:
            return False
        if options.over_limit == "429":
            raise Refusal(429, "too many concurrent tasks", headers=_RETRY_AFTER)
        if len(self.alive) >= options.places + _MOST_STAGED:
            raise Refusal(429, "too many staged tasks", headers=_RETRY_AFTER)
        return True

    def _freeze(self, price: int) -> None:
        if self.wallet.freeze(price):
            return
        if self.options.out_of_credit == "200":
            raise Refusal(402, "failed to freeze point", transport="code")
        raise Refusal(int(self.options.out_of_credit), "failed to freeze point")

    def _on_change(self, task: Task) -> None:
        if task.ended_at is not None:
            self.wallet.settle(task, failures=self.options.failed_tasks)
            del self.alive[task.task_id]
        self.changed(task)

    def _make(self, submission: Submission, *, price: int, now: float, fault: Fault | None, staged: bool) -> Task:
        options, index = self.options, self._accepted
        rng = random.Random(f"{options.seed}/{index}")  # noqa: S311 - seeded on purpose
        self._accepted += 1
        task_id = _uuid(rng)
        extra = submission.wants_guide and self.options.preprocessed == "last"
        result_ids = tuple(_uuid(rng) for _ in range(submission.images + extra))
        stalls = fault is not None and fault.name == "task-stalls"
        model, task_type = submission.model, submission.task_type
        pace = pace_for(options, model=model, task_type=task_type, rng=rng, stalls=stalls)
        return Task(
            index=index,
            task_id=task_id,
            model=model,
            task_type=task_type,
            input=self._texts.shared(submission.input),
            config=submission.config,
            price=price,
            result_ids=result_ids,
            has_guide=extra,
            failure=self._failure(submission, fault),
            created_at=now,
            staged=staged,
            queue_seconds=pace.queue_seconds,
            work_seconds=pace.work_seconds,
            last_poll=pace.last_poll,
        )

    def _failure(self, submission: Submission, fault: Fault | None) -> Failure | None:
        if fault is not None and fault.name == "task-fails":
            return Failure(**fault.options)
        reason = problem(
            submission.input, unreachable=self.options.unreachable_images, inline_images=self.options.inline_images
        )
        return Failure(reason=reason) if reason else None

    def _hold(self, task: Task) -> None:
        self.tasks[task.task_id] = self.alive[task.task_id] = task
        self._lifecycle.add(task)
        for item, result_id in enumerate(task.result_ids):
            self._results[result_id] = (task, item)
        if len(self.tasks) > self.options.keep_tasks:
            # A living task holds a place and points, so it is kept, also beyond the bound.
            self._forget(next((over for over in self.tasks if over not in self.alive), None))

    def _forget(self, task_id: str | None) -> None:
        if task_id is None:
            return
        for result_id in self.tasks.pop(task_id).result_ids:
            del self._results[result_id]


def _not_found() -> Refusal:
    return Refusal(404, "task not found")


def _uuid(rng: random.Random) -> str:
    return str(uuid.UUID(int=rng.getrandbits(128), version=4))
