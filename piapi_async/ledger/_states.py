"""What may become of a job: the states of the ledger, as a table.

Read this before you change it. The table is short, and every line of it is about somebody's money.

A *job* is a request with a key. The service cannot be told that key: it has no idempotency key, and two equal requests
are two tasks and two charges (https://piapi.ai/blogs/piapi-retry-safe-tasks). So the one thing that can go wrong for
good is a task that exists and that nobody knows of, and the one instant in which it can go wrong is between the first
byte of the POST and the moment its answer is on disk. All else is looking, which costs nothing and can be done again.

The rules:

1. Before the first byte of a POST the job is `submitting`, on disk, flushed. Whatever kills the process from then on,
   the next one finds `submitting` and knows that a task may exist.
2. The task's id goes to disk as the next act after the answer was read: `submitted`. From here on nothing can be lost;
   whoever reads the ledger can poll the task.
3. A job leaves `submitting` for `planned` only when the server certainly holds no task of it: nothing was sent, or the
   answer was a clear refusal. "Probably not" is `in_doubt`.
4. Only `planned` leads to a POST. There is no arrow from `in_doubt` to `submitting`; who wants to pay again has to say
   so (`RESUBMIT`), and then the job is planned anew.
5. `completed`, `failed` and `canceled` are for ever. A failed task may have been charged, so it is not submitted again
   by itself either; `forget` its key to do that.

Two things are less obvious.

*Permission and facts are different.* To send, a process has to hold the job's lease, and that is checked in the very
transaction that writes `submitting`: a process that was stopped for a minute and lost its lease finds out before it
pays. That a task exists, and what became of it, are facts, and they are taken from whoever brings them, in whatever
state they find the job: a late `ACCEPTED` settles a doubt, and makes a resubmission that is only planned unnecessary.
Facts told twice change nothing.

*`saved` is no state.* Whether a completed task's pictures are on disk is a column of its own (`paths`): a picture that
cannot be fetched today does not make the task less completed, or less paid for.

The owner of `submitting` can be gone: killed, or out of its lease. Whoever takes the job over says `LOST` first.
"""

import enum
from collections.abc import Mapping

from piapi_async.errors import LedgerError


class JobState(enum.StrEnum):
    """Where a job stands."""

    PLANNED = "planned"
    """Nothing of it is at the service, certainly."""
    SUBMITTING = "submitting"
    """Its POST may be under way."""
    IN_DOUBT = "in_doubt"
    """The answer to its POST was lost: a task may exist, and may be billed."""
    SUBMITTED = "submitted"
    """There is a task, and its id is known."""
    COMPLETED = "completed"
    """The task is over, with output."""
    FAILED = "failed"
    """The task is over, without."""
    CANCELED = "canceled"
    """The task is over, on request."""

    @property
    def is_over(self) -> bool:
        """Whether the job stays as it is for ever."""
        return self in _OVER


_OVER = frozenset({JobState.COMPLETED, JobState.FAILED, JobState.CANCELED})


class JobEvent(enum.StrEnum):
    """What can happen to a job."""

    SEND = "send"
    """Its POST is about to begin."""
    REFUSED = "refused"
    """Nothing was sent, or the service said no: there is certainly no task."""
    LOST = "lost"
    """The answer was lost, or the process that waited for it."""
    ACCEPTED = "accepted"
    """A task of it exists: the answer said so, or it was found."""
    RESUBMIT = "resubmit"
    """The user would rather pay again than stay in doubt."""
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELED = "canceled"


TABLE: Mapping[tuple[JobState, JobEvent], JobState] = {
    (JobState.PLANNED, JobEvent.SEND): JobState.SUBMITTING,
    (JobState.PLANNED, JobEvent.REFUSED): JobState.PLANNED,
    (JobState.PLANNED, JobEvent.ACCEPTED): JobState.SUBMITTED,
    (JobState.SUBMITTING, JobEvent.REFUSED): JobState.PLANNED,
    (JobState.SUBMITTING, JobEvent.LOST): JobState.IN_DOUBT,
    (JobState.SUBMITTING, JobEvent.ACCEPTED): JobState.SUBMITTED,
    (JobState.IN_DOUBT, JobEvent.LOST): JobState.IN_DOUBT,
    (JobState.IN_DOUBT, JobEvent.ACCEPTED): JobState.SUBMITTED,
    (JobState.IN_DOUBT, JobEvent.RESUBMIT): JobState.PLANNED,
    (JobState.SUBMITTED, JobEvent.ACCEPTED): JobState.SUBMITTED,
    (JobState.SUBMITTED, JobEvent.COMPLETED): JobState.COMPLETED,
    (JobState.SUBMITTED, JobEvent.FAILED): JobState.FAILED,
    (JobState.SUBMITTED, JobEvent.CANCELED): JobState.CANCELED,
    (JobState.COMPLETED, JobEvent.COMPLETED): JobState.COMPLETED,
    (JobState.FAILED, JobEvent.FAILED): JobState.FAILED,
    (JobState.CANCELED, JobEvent.CANCELED): JobState.CANCELED,
}
"""Every change there is. What is not here cannot happen."""


def after(state: JobState, event: JobEvent, *, key: str) -> JobState:
    """The state that an event leads to.

    Raises:
        LedgerError: It cannot happen in that state.
    """
    try:
        return TABLE[state, event]
    except KeyError:
        raise LedgerError(f"job {key!r} is {state}: '{event}' cannot happen to it") from None
