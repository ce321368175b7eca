"""Points: frozen when a task is accepted, taken when it completes, given back when it does not."""

from piapi_async.emulator._service.lifecycle import Task
from piapi_async.emulator.records import Charge

POINTS_PER_IMAGE = {
    "Qubico/flux1-schnell": 15_000,
    "Qubico/flux1-dev": 150_000,
    "Qubico/flux1-dev-advanced": 200_000,
}
"""0.0015, 0.015 and 0.02 USD (piapi.ai/flux-api, 2026-09), at 10,000,000 points per USD."""


class Wallet:
    """An account's balance and what was taken from it.

    Args:
        points: The balance at the start.
    """

    def __init__(self, points: int) -> None:
        self.free = points
        self.frozen = 0
        self.used = 0
        self.charges: list[Charge] = []

    def freeze(self, points: int) -> bool:
        """Set points aside; False, and nothing done, when there are too few."""
        if points > self.free:
            return False
        self.free -= points
        self.frozen += points
        return True

    def settle(self, task: Task, *, failures: str = "refunded") -> None:
        """Take the frozen points of a completed task, or give them back; failed ones as `Options.failed_tasks` says."""
        self.frozen -= task.price
        if task.status == "completed" or (task.status == "failed" and failures == "charged"):
            self._take(task)
        else:
            self.free += task.price

    def _take(self, task: Task) -> None:
        assert task.ended_at is not None
        task.cost = task.price
        self.used += task.price
        self.charges.append(
            Charge(
                task_id=task.task_id,
                model=task.model,
                task_type=task.task_type,
                points=task.price,
                time=task.ended_at,
            )
        )
