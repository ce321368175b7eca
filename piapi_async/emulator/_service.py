"""PiAPI in memory: tasks, credits and queue, without HTTP and without a clock."""

import random
import uuid

from piapi_async.emulator._credits import POINTS_PER_IMAGE, Wallet
from piapi_async.emulator._lifecycle import Failure, Lifecycle, Task
from piapi_async.emulator._sources import problem
from piapi_async.emulator._texts import Texts
from piapi_async.emulator._validation import Refusal, Submission
from piapi_async.emulator.durations import duration_for
from piapi_async.emulator.faults import Fault
from piapi_async.emulator.options import Options


class Service:
    """What the server knows. Every method takes the time, in seconds that do not go back.

    Args:
        options: How it behaves.
    """

    def __init__(self, options: Options) -> None:
        self.options = options
        self.wallet = Wallet(options.credits)
        self.tasks: dict[str, Task] = {}
        self._results: dict[str, tuple[Task, int]] = {}
        self._lifecycle = Lifecycle(concurrency=options.concurrency)
        self._texts = Texts()
        self._accepted = 0

    def advance(self, now: float) -> None:
        """Bring every task up to date."""
        for task in self._lifecycle.advance(now):
            self.wallet.settle(task)

    def create(self, submission: Submission, *, now: float, fault: Fault | None = None) -> Task:
        """Accept a task, with the end that a fault of `when="task"` gives it.

        Raises:
            Refusal: Not enough credits.
        """
        self.advance(now)
        price = POINTS_PER_IMAGE[submission.model] * submission.images
        if not self.wallet.freeze(price):
            raise Refusal(402, "failed to freeze point")
        task = self._make(submission, price=price, now=now, fault=fault)
        self._hold(task)
        return task

    def look(self, task_id: str, *, now: float) -> Task:
        """Read a task.

        Raises:
            Refusal: No such task.
        """
        self.advance(now)
        task = self._find(task_id)
        task.looks += 1
        return task

    def cancel(self, task_id: str, *, now: float) -> Task:
        """Cancel a task that is still pending, and give back its points.

        Raises:
            Refusal: No such task, or it is no longer pending.
        """
        self.advance(now)
        task = self._find(task_id)
        if task.status != "pending":
            raise Refusal(400, f"task {task_id} is {task.status}, only a pending task can be canceled")
        self._lifecycle.cancel(task, now=now)
        self.wallet.settle(task)
        return task

    def result(self, result_id: str, *, now: float) -> tuple[Task, int] | None:
        """Which picture of which task a link stands for; None when it is not there, yet or any more."""
        self.advance(now)
        found = self._results.get(result_id)
        if found is None:
            return None
        task = found[0]
        alive = task.ended_at is not None and now < task.ended_at + self.options.result_life
        return found if alive and task.status == "completed" else None

    def _find(self, task_id: str) -> Task:
        try:
            return self.tasks[task_id]
        except KeyError:
            raise Refusal(404, "task not found") from None

    def _make(self, submission: Submission, *, price: int, now: float, fault: Fault | None) -> Task:
        options, index = self.options, self._accepted
        rng = random.Random(f"{options.seed}/{index}")  # noqa: S311 - seeded on purpose
        self._accepted += 1
        task_id = _uuid(rng)
        result_ids = tuple(_uuid(rng) for _ in range(submission.images))
        work = duration_for(options.durations, model=submission.model, task_type=submission.task_type)
        stalls = fault is not None and fault.name == "task-stalls"
        return Task(
            index=index,
            task_id=task_id,
            model=submission.model,
            task_type=submission.task_type,
            input=self._texts.shared(submission.input),
            config=submission.config,
            price=price,
            result_ids=result_ids,
            failure=self._failure(submission, fault),
            created_at=now,
            queue_seconds=options.queue_delay(rng),
            work_seconds=float("inf") if stalls else work(rng),
        )

    def _failure(self, submission: Submission, fault: Fault | None) -> Failure | None:
        if fault is not None and fault.name == "task-fails":
            return Failure(**fault.options)
        reason = problem(submission.input, unreachable=self.options.unreachable_images)
        return Failure(reason=reason) if reason else None

    def _hold(self, task: Task) -> None:
        self.tasks[task.task_id] = task
        self._lifecycle.add(task)
        for item, result_id in enumerate(task.result_ids):
            self._results[result_id] = (task, item)
        if len(self.tasks) > self.options.keep_tasks:
            self._forget(next(iter(self.tasks)))

    def _forget(self, task_id: str) -> None:
        for result_id in self.tasks.pop(task_id).result_ids:
            del self._results[result_id]


def _uuid(rng: random.Random) -> str:
    return str(uuid.UUID(int=rng.getrandbits(128), version=4))
