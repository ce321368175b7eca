"""The table of states: every change that can happen, and every one that cannot."""

import itertools

import pytest

from piapi_async.errors import LedgerError
from piapi_async.ledger._states import TABLE, JobEvent, JobState, after

PAIRS = list(itertools.product(JobState, JobEvent))


@pytest.mark.parametrize(("state", "event"), [pair for pair in PAIRS if pair in TABLE])
def test_what_can_happen(state: JobState, event: JobEvent) -> None:
    """Each line of the table leads where it says."""
    assert after(state, event, key="k") is TABLE[state, event]


@pytest.mark.parametrize(("state", "event"), [pair for pair in PAIRS if pair not in TABLE])
def test_what_cannot_happen(state: JobState, event: JobEvent) -> None:
    """Whatever is not in the table is refused, in a sentence with the job, its state and the event."""
    with pytest.raises(LedgerError, match=f"job 'k' is {state}: '{event}' cannot happen to it"):
        after(state, event, key="k")


def test_only_a_planned_job_is_sent() -> None:
    """No other state leads to a POST; a doubt least of all."""
    assert [state for state, event in TABLE if event is JobEvent.SEND] == [JobState.PLANNED]
    assert [pair for pair, to in TABLE.items() if to is JobState.SUBMITTING] == [(JobState.PLANNED, JobEvent.SEND)]


def test_a_job_becomes_planned_again_only_by_a_refusal_or_by_the_user() -> None:
    """What may have been paid for is planned anew only when it certainly was not, or when somebody wants that."""
    back = {pair for pair, to in TABLE.items() if to is JobState.PLANNED and pair[0] is not JobState.PLANNED}
    assert back == {(JobState.SUBMITTING, JobEvent.REFUSED), (JobState.IN_DOUBT, JobEvent.RESUBMIT)}


def test_what_is_over_stays_over() -> None:
    """The three ends lead nowhere but to themselves, and every job can get to one."""
    ends = {JobState.COMPLETED, JobState.FAILED, JobState.CANCELED}
    assert {state for state in JobState if state.is_over} == ends
    assert all(to is state for (state, _), to in TABLE.items() if state.is_over)
    assert {state for state, event in TABLE if event is JobEvent.ACCEPTED} == set(JobState) - ends


def test_a_task_that_exists_is_always_welcome() -> None:
    """That there is a task can be told in every state in which none is known, and leads to `submitted`."""
    for state in (JobState.PLANNED, JobState.SUBMITTING, JobState.IN_DOUBT):
        assert after(state, JobEvent.ACCEPTED, key="k") is JobState.SUBMITTED
