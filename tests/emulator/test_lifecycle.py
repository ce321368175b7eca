"""The life of tasks as a pure machine: time goes in by argument."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from piapi_async.emulator._service.lifecycle import Failure, Lifecycle, Task


def task(index: int = 0, *, created_at: float = 0.0, queue: float = 1.0, work: float = 10.0, **more: Any) -> Task:
    """A task that waits one second and works ten."""
    return Task(
        index=index,
        task_id=str(index),
        model="m",
        task_type="t",
        input={},
        config={},
        price=1,
        result_ids=(),
        failure=more.get("failure"),
        created_at=created_at,
        queue_seconds=queue,
        work_seconds=work,
    )


@pytest.mark.parametrize(
    ("now", "status"),
    [(0.0, "pending"), (0.99, "pending"), (1.0, "processing"), (10.99, "processing"), (11.0, "completed")],
)
def test_goes_from_pending_over_processing_to_completed(now: float, status: str) -> None:
    """A task is pending until its queue delay is over, then processing until its work is done."""
    lifecycle, one = Lifecycle(concurrency=1), task()
    lifecycle.add(one)
    lifecycle.advance(now)
    assert one.status == status


def test_times_are_those_of_the_events_and_not_of_the_poll() -> None:
    """Polling late does not make a task longer."""
    lifecycle, one = Lifecycle(concurrency=1), task()
    lifecycle.add(one)
    assert lifecycle.advance(500.0) == [one]
    assert (one.started_at, one.ended_at) == (1.0, 11.0)


def test_a_task_with_a_failure_fails_when_its_work_is_done() -> None:
    """Failing takes as long as completing."""
    lifecycle, one = Lifecycle(concurrency=1), task(failure=Failure(reason="no"))
    lifecycle.add(one)
    lifecycle.advance(10.0)
    assert one.status == "processing"
    lifecycle.advance(11.0)
    assert one.status == "failed"


def test_tasks_over_the_concurrency_stay_pending_in_order() -> None:
    """A place that becomes free goes to the task that has been ready for longest, at that very moment."""
    lifecycle, tasks = Lifecycle(concurrency=2), [task(i) for i in range(4)]
    for each in tasks:
        lifecycle.add(each)
    lifecycle.advance(5.0)
    assert [each.status for each in tasks] == ["processing", "processing", "pending", "pending"]
    assert lifecycle.advance(100.0) == tasks
    assert [each.started_at for each in tasks] == [1.0, 1.0, 11.0, 11.0]


def test_a_long_task_does_not_hold_up_those_in_other_places() -> None:
    """Ends come in order of time, not of acceptance."""
    lifecycle, slow, quick = Lifecycle(concurrency=2), task(0, work=50.0), task(1, work=5.0)
    lifecycle.add(slow)
    lifecycle.add(quick)
    assert lifecycle.advance(100.0) == [quick, slow]


def test_a_free_place_is_not_used_before_its_task_is_ready() -> None:
    """A task that comes after the queue ran dry starts after its own delay, not when the place became free."""
    lifecycle, first = Lifecycle(concurrency=1), task(0)
    lifecycle.add(first)
    lifecycle.advance(50.0)
    late = task(1, created_at=50.0)
    lifecycle.add(late)
    lifecycle.advance(100.0)
    assert late.started_at == 51.0


def test_a_canceled_task_gives_its_turn_to_the_next() -> None:
    """Cancelling while pending ends a task at once, and its turn costs no time."""
    lifecycle, tasks = Lifecycle(concurrency=1), [task(i) for i in range(3)]
    for each in tasks:
        lifecycle.add(each)
    lifecycle.advance(2.0)
    lifecycle.cancel(tasks[1], now=2.0)
    assert lifecycle.advance(100.0) == [tasks[0], tasks[2]]
    assert (tasks[1].status, tasks[1].started_at, tasks[1].ended_at) == ("canceled", None, 2.0)
    assert tasks[2].started_at == 11.0


JOBS = st.lists(
    st.tuples(st.floats(0, 5), st.floats(0, 3), st.floats(0, 10)).map(lambda job: tuple(map(round, job))),
    max_size=30,
)


@given(JOBS, st.integers(1, 4), st.lists(st.integers(0, 40), max_size=10))
def test_never_more_than_the_allowed_number_work_at_once(
    jobs: list[tuple[int, int, int]], places: int, polls: list[int]
) -> None:
    """For any tasks and any polls: no more than the concurrency overlap, and nobody waits beside a free place."""
    lifecycle, now, tasks = Lifecycle(concurrency=places), 0.0, []
    for index, (gap, queue, work) in enumerate(jobs):
        now += gap
        lifecycle.advance(now)
        tasks.append(task(index, created_at=now, queue=queue, work=work))
        lifecycle.add(tasks[-1])
    for poll in sorted(polls):
        lifecycle.advance(now + poll)
    lifecycle.advance(10_000.0)
    spans = [(each.started_at or 0.0, each.ended_at or 0.0) for each in tasks]
    for each, (start, end) in zip(tasks, spans, strict=True):
        assert each.status == "completed"
        assert end == start + each.work_seconds
        assert sum(a <= start < b for a, b in spans) <= places
        if start > each.ready_at:
            assert start in {b for _, b in spans}
            assert sum(a <= each.ready_at < b for a, b in spans) == places
