"""What a session spends: reserved before a task is paid for, settled when the task is over. No I/O.

Everything is counted in whole points, and nothing is awaited between check and reservation, so that a limit holds to
the point however many coroutines submit at once.
"""

from collections import OrderedDict
from types import TracebackType
from typing import Final, Self

import attrs

from piapi_async import errors
from piapi_async.prices import POINTS_PER_USD, PriceList, dollars
from piapi_async.task import Submittable, TaskInfo

TASKS_MAX: Final = 50_000
"""Tasks whose ends are awaited: those of an app that submits and never polls would otherwise pile up for as long as it
lives. Beyond them the oldest stay at what they were expected to cost: unknown is not free."""


@attrs.define(kw_only=True, eq=False)
class Budget:
    """The spending of one session.

    Args:
        prices: What tasks are expected to cost.

        limit: The most points that may be spent; `None` for no limit.

    Attributes:
        points: What the tasks that are over cost, and what those in flight or in doubt are expected to.
    """

    prices: PriceList
    limit: int | None = None
    points: int = attrs.field(default=0, init=False)
    _in_flight: OrderedDict[str, int] = attrs.field(factory=OrderedDict, init=False, repr=False)

    def reserve(self, request: Submittable) -> "Reservation":
        """Set aside what a request is expected to cost.

        Raises:
            ConfigurationError: There is a limit, and no price for the request's model.
            SpendLimitError: It would go beyond the limit.
        """
        points = self.prices.points(request)
        if self.limit is not None:
            self._check(request, points=points, limit=self.limit)
        self.points += points or 0
        return Reservation(budget=self, points=points or 0)

    def _check(self, request: Submittable, *, points: int | None, limit: int) -> None:
        if points is None:
            self.prices.estimate(request)  # says that there is no price, and what to do
        elif self.points + points > limit:
            raise errors.SpendLimitError(
                f"this task costs about {dollars(points)} USD, and {dollars(self.points)} USD"
                f" of max_spend_usd={limit / POINTS_PER_USD:g} are spent or in flight; nothing was sent"
            )

    def accepted(self, info: TaskInfo, *, points: int) -> None:
        """A task exists: its points stay set aside until it is seen to be over, or for good when that is never seen."""
        self._in_flight[info.task_id] = points
        if len(self._in_flight) > TASKS_MAX:
            self._in_flight.popitem(last=False)
        self.settle(info)

    def settle(self, info: TaskInfo) -> None:
        """Count what the service says it charged, once for each task of this session, when the task is over.

        Of a failed or cancelled task that is what the service reports too: whether it charges for those is not public.
        Where it reports nothing that can be read (`usage` is `None`) the estimate stays: unknown is not free.
        """
        expected = self._in_flight.pop(info.task_id, None) if info.is_terminal else None
        if expected is not None and info.usage is not None:
            self.points += info.usage.consume - expected


@attrs.define(kw_only=True, eq=False)
class Reservation:
    """Points set aside for one submit; given back at the end of the `with` unless the task exists, or may exist."""

    budget: Budget
    points: int
    _is_kept: bool = attrs.field(default=False, init=False)

    def accepted(self, info: TaskInfo) -> None:
        """The task exists."""
        self.keep()
        self.budget.accepted(info, points=self.points)

    def keep(self) -> None:
        """The task may exist."""
        self._is_kept = True

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if not self._is_kept:
            self.budget.points -= self.points
