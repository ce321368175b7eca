"""Which durations are kept, and when they begin to count."""

import copy
import pickle
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from piapi_async.polling._samples import KEPT, Past, Sample

STARTS = st.floats(0, 1e5)
SECONDS = st.floats(0.01, 500)


def after(*tasks: tuple[float, float]) -> Past:
    """What is left of tasks by when they began and how long they took, seen as they ended."""
    past = Past()
    for began, seconds in sorted(tasks, key=sum):
        past.add((seconds, None), began=began)
    return past


def seconds(samples: list[Sample]) -> list[float]:
    """The durations alone."""
    return [one for one, _ in samples]


@given(st.lists(st.tuples(STARTS, SECONDS), max_size=30), st.randoms())
def test_the_order_in_which_tasks_are_seen_does_not_matter(
    tasks: list[tuple[float, float]], rng: random.Random
) -> None:
    """Once the last that began has had its time, the same durations count, in the same order, however they came."""
    known = []
    for _ in range(2):
        past = Past()
        for began, one in tasks:
            past.add((one, None), began=began)
        past.add((1.0, None), began=1e6)
        past.add((501.0, None), began=1e6)
        known.append(past.samples)
        rng.shuffle(tasks)
    assert known[0] == known[1]
    assert len(known[0]) >= len(tasks)


@pytest.mark.parametrize("step", [1.0, 0.5, 0.01, 0.001])
def test_the_latest_to_begin_are_kept_not_the_latest_to_end(step: float) -> None:
    """Of a thousand tasks that began together 200 are kept, and these are as quick and as slow as all of them."""
    known = [one / step for one in seconds(after(*((0.0, step * number) for number in range(1, 1001))).samples)]
    assert len(known) == KEPT
    assert 450 < sum(known) / KEPT < 550
    assert min(known) < 40
    assert max(known) > 960


def test_the_quick_ones_of_many_do_not_count_alone() -> None:
    """Of tasks that began together the quick ones count when nearly all of them could be over."""
    past = after(*((0.0, 10.0 + number / 10) for number in range(50)))
    assert past.add((10.5, None), began=100.0) == 0
    assert past.add((12.5, None), began=100.0) == 0
    assert len(past) == 50
    assert past.known[-2:] == [(10.5, None), (12.5, None)]
    assert past.add((14.6, None), began=100.0) == 3
    assert max(seconds(past.samples)) == 14.9


def test_a_duration_without_a_beginning_counts_at_once() -> None:
    """It is taken to have begun after all that count."""
    past = after((0.0, 3.0))
    assert past.add((2.0, 1.0), began=None) == 1
    assert past.samples == [(3.0, None), (2.0, 1.0)]


def test_what_was_forgotten_does_not_come_back() -> None:
    """A slow task that began before those that stay, and ends after them, does not count."""
    past = after((0.0, 9.0), (100.0, 9.0), (200.0, 9.0))
    past.forget(2)
    past.forget(0)
    assert past.add((250.0, None), began=99.0) == 0
    assert past.samples == [(9.0, None)]
    assert past.add((9.0, None), began=340.0) == 1


def test_bounded() -> None:
    """Never more than 200 count, and never more than 200 are young."""
    past = after(*((0.0, 5000.0),) * 300)
    assert len(past) == KEPT
    for number in range(900):
        assert past.add((1.0 + number / 900, None), began=1e4) == 0
    assert max(seconds(past.known)) < 5000
    assert past.add((1.0, None), began=1e6) == KEPT - 1
    assert len(past) == KEPT


def test_a_copy_forgets_the_clock() -> None:
    """What is copied or pickled keeps all durations, and takes in those of a clock that began anew."""
    past = after(*((1e6, 9.0 + number / 10) for number in range(KEPT)))
    past.add((9.5, None), began=2e6)
    for other in (copy.deepcopy(past), pickle.loads(pickle.dumps(past))):
        assert other.known == past.known
        assert other.add((50.0, None), began=1.0) == 1
        assert other.samples[-1] == (50.0, None)
