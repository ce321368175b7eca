"""What became of a job, as a value."""

from collections.abc import Iterable
from pathlib import Path

import attrs

from piapi_async import errors
from piapi_async.task import Submittable, TaskInfo


class InternalError(errors.PiAPIError):
    """A job met an exception that nobody foresaw: a bug in this package, or in code that was passed to it.

    The exception is its `__cause__`, with the traceback. `task_id` names the task where one had been made by then;
    with a ledger the next run waits for it.
    """

    def __init__(self, text: str, *, task_id: str | None = None) -> None:
        # Where a task may exist, and is not known, it is a doubt, never this.
        super().__init__(text, safe_to_resubmit=task_id is None, task_id=task_id)


@attrs.frozen(kw_only=True)
class Succeeded:
    """A job whose task completed, and whose pictures are on disk where that was asked for.

    Attributes:
        key: The job's name in the ledger.

        request: What was asked for.

        info: The task; from a ledger without its input.

        paths: The pictures, in the order of `info.images`; empty without `save_to`.
    """

    key: str
    request: Submittable
    info: TaskInfo
    paths: tuple[Path, ...] = ()


@attrs.frozen(kw_only=True)
class Failed:
    """A job that did not give what was asked.

    Attributes:
        key: The job's name in the ledger, or `None` when it did not get that far.

        request: What was asked for.

        error: What went wrong. `error.safe_to_resubmit` tells whether trying again may pay twice; what a ledger knows
            to be unfinished goes on in the next run all the same, and is not paid for again.

        info: The task as last seen, or `None`.
    """

    key: str | None
    request: Submittable
    error: Exception
    info: TaskInfo | None = None


Outcome = Succeeded | Failed


def raise_failures(outcomes: Iterable[Outcome]) -> None:
    """Raise what went wrong, all together; do nothing when nothing did.

    Args:
        outcomes: What a batch gave.

    Raises:
        ExceptionGroup: The errors of the jobs that failed, in order.
    """
    outcomes = list(outcomes)
    failures = [outcome.error for outcome in outcomes if isinstance(outcome, Failed)]
    if failures:
        raise ExceptionGroup(f"{len(failures)} of {len(outcomes)} jobs failed", failures)
