"""The mathematics of looking: distributions from few durations, and the polls that cost least."""

import itertools
import math
import random
from collections.abc import Iterator, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from piapi_async.polling._schedule import (
    LONG,
    LONGEST,
    SHORTEST,
    Curve,
    Plan,
    estimate,
    plan,
    plan_queued,
    sparse,
)

DURATIONS = st.lists(st.floats(0.001, 2.6e6), min_size=1, max_size=90)
PRICES = st.floats(0.001, 1000)


def curve(over: Sequence[float], *, step: float = 1.0) -> Curve:
    """A distribution by the shares at even times, 0 at 0."""
    return Curve([step * number for number in range(len(over) + 1)], [0.0, *over])


def polls(plan: Plan, *, until: float) -> Iterator[float]:
    """The moments at which a task is polled that goes on."""
    moment = 0.0
    while moment < until:
        moment += plan.pause(moment)
        yield moment


def cost(plan: Plan, durations: Sequence[float]) -> float:
    """What polling by a plan costs, on average."""
    moments = list(polls(plan, until=max(durations)))
    late = [next((n, moment - one) for n, moment in enumerate(moments, 1) if moment >= one) for one in durations]
    return sum(number + plan.price * seconds for number, seconds in late) / len(late)


def cheapest(curve: Curve, *, price: float) -> float:
    """The cost of the best of all ways to look at the times of a curve, tried one by one."""
    last = len(curve.times) - 1
    inner = range(1, last)
    ways = (way for size in range(last) for way in itertools.combinations(inner, size))
    return min(summed(curve, (0, *way, last), price=price) for way in ways)


def summed(curve: Curve, way: Sequence[int], *, price: float) -> float:
    """The polls and the lateness of one way, and what is to come after it."""
    total = 0.0
    for begin, end in itertools.pairwise(way):
        total += 1 - curve.over[begin]
        for at in range(begin, end):
            ended = (curve.over[at] + curve.over[at + 1]) / 2 - curve.over[begin]
            total += price * ended * (curve.times[at + 1] - curve.times[at])
    return total + (1 - curve.over[-1]) * (2 + math.sqrt(2 * price * curve.times[-1]))


@given(st.lists(st.floats(0, 0.999), min_size=2, max_size=8, unique=True), st.floats(0.05, 20), st.floats(0.1, 9))
def test_no_way_to_poll_is_cheaper(over: list[float], price: float, step: float) -> None:
    """The plan's cost is that of the best of all ways to look at the times of the grid."""
    known = curve(sorted(over), step=step)
    assert plan(known, price=price).costs[0] == pytest.approx(cheapest(known, price=price), rel=1e-9)


@pytest.mark.parametrize("price", [0.5, 2.0, 8.0])
@pytest.mark.parametrize("mean", [2.0, 20.0])
def test_a_memoryless_end_is_looked_for_evenly(price: float, mean: float) -> None:
    """For an exponential distribution the best pause d is always the same: exp(d/m) = 1 + d/m + 1/(m p)."""
    step = mean / 40
    best = plan(curve([1 - math.exp(-step * n / mean) for n in range(1, 400)], step=step), price=price)
    wanted = next(
        d for d in (n / 1000 for n in range(1, 90000)) if math.expm1(d / mean) > d / mean + 1 / (mean * price)
    )
    for elapsed in (0.0, 0.33 * mean, mean, 2.1 * mean):
        assert best.pause(elapsed) == pytest.approx(wanted, rel=0.03)


@pytest.mark.parametrize("price", [0.5, 2.0, 8.0])
def test_few_durations_come_close_to_all(price: float) -> None:
    """Polling by 50 durations costs at most 15 % more than polling by 5,000 from the same log-normal distribution."""
    rng = random.Random(5)
    durations = [rng.lognormvariate(1.5, 0.3) for _ in range(5000)]
    all_known = plan(estimate(durations), price=price)
    for begin in range(0, 500, 50):
        few = plan(estimate(durations[begin : begin + 50]), price=price)
        assert cost(few, durations) < 1.15 * cost(all_known, durations)


def test_two_modes_are_looked_at_and_the_gap_is_not() -> None:
    """Where tasks take 4 or 20 s, those not over after 5 s are not looked at again before 18 s."""
    rng = random.Random(1)
    known = plan(estimate([rng.gauss(rng.choice((4, 20)), 0.2) for _ in range(100)]), price=2.0)
    moments = list(polls(known, until=20))
    assert any(4 < moment < 5.5 for moment in moments)
    assert not any(6.5 < moment < 18 for moment in moments)


def test_where_the_polls_leap_over_a_gap_none_is_planned_into_it() -> None:
    """Between two times with far polls, the next one is that of either time, and not one between."""
    known = Plan([0.0, 1.0, 2.0], [2.0, 9.0, 10.0], [0.0] * 3, [3.0, 2.0, 1.0], 2.0)
    assert [age + known.pause(age) for age in (0.0, 0.4, 0.6, 1.0)] == pytest.approx([2.0, 2.0, 9.0, 9.0])
    assert 1.5 + known.pause(1.5) == pytest.approx(9.5)


def test_what_never_varies_is_looked_at_once() -> None:
    """Tasks that always take 12 s are polled within 0.3 s after that."""
    assert 12 < plan(estimate([12.0] * 50), price=2.0).pause(0.0) < 12.3


@given(DURATIONS)
def test_a_distribution_rises(durations: list[float]) -> None:
    """Any durations make a curve of rising times and shares, from 0 to nearly 1, that goes on beyond its end."""
    known = estimate(durations)
    assert (known.times[0], known.over[0]) == (0, 0)
    assert all(before < after for before, after in itertools.pairwise(known.times))
    assert all(before <= after for before, after in itertools.pairwise(known.over))
    assert known.over[-1] < 1
    beyond = known.times[-1]
    assert known.over[-1] == known.share(beyond) < known.share(2 * beyond) < 1


def test_a_distribution_is_that_of_the_durations() -> None:
    """With many durations the curve is near the shares counted, everywhere."""
    rng = random.Random(2)
    durations = sorted(rng.gammavariate(4, 5) for _ in range(200))
    known = estimate(durations)
    assert all(abs(known.share(one) - (n + 0.5) / 200) < 0.03 for n, one in enumerate(durations))


@given(DURATIONS, PRICES, st.floats(0, 2.6e6), st.floats(0, 1))
def test_pauses_are_bounded(durations: list[float], price: float, elapsed: float, chance: float) -> None:
    """For any durations, price and age the pause is within its limits, and chance moves it by no more than allowed."""
    known = plan(estimate(durations), price=price)
    pause = known.pause(elapsed)
    assert SHORTEST <= pause <= min(LONGEST, max(LONG, elapsed))
    assert abs(known.spread(elapsed, chance=chance) - pause) <= 0.1501 * pause
    assert known.spread(elapsed, chance=0.5) == pause


def test_chance_costs_next_to_nothing() -> None:
    """Spreading the polls makes them dearer by at most 1.5 % on average."""
    rng = random.Random(3)
    for name in ("lognormvariate", "gauss"):
        durations = [max(0.1, getattr(rng, name)(2, 0.2)) for _ in range(300)]
        known = plan(estimate(durations), price=2.0)
        bare = spread = 0.0
        for one in durations * 20:
            for jitter in (False, True):
                moment, number = 0.0, 0
                while moment < one:
                    moment += known.spread(moment, chance=rng.random() if jitter else 0.5)
                    number += 1
                paid = number + 2 * (moment - one)
                bare, spread = (bare, spread + paid) if jitter else (bare + paid, spread)
        assert spread < 1.015 * bare


def test_polls_beyond_all_that_was_seen_become_rare() -> None:
    """Far beyond the longest duration the pauses grow with the root of the age, up to the longest."""
    known = plan(estimate([5.0] * 20), price=2.0)
    assert known.pause(1e4) == sparse(1e4, price=2.0) == 100
    assert known.pause(2.5e6) == LONGEST


def test_a_plan_does_not_put_everything_on_one_card() -> None:
    """However long tasks took, the first poll is made within `LONG` seconds: it may have changed."""
    assert plan(estimate([500.0] * 100), price=2.0).pause(0.0) == LONG


# With the status.


def with_status(queued: Plan, running: Plan, waits: Sequence[tuple[float, float]]) -> float:
    """What polling costs, on average, when each poll tells whether a task queues or since when it runs."""
    paid = 0.0
    for wait, work in waits:
        moment = 0.0
        while moment < wait + work:
            moment += queued.pause(moment) if moment < wait else running.pause(moment - wait)
            paid += 1
        paid += running.price * (moment - wait - work)
    return paid / len(waits)


@pytest.mark.parametrize("price", [0.5, 2.0, 8.0])
def test_the_status_saves_polls(price: float) -> None:
    """Where a third of the tasks queue, plans that use the status cost at least 15 % less than the best without."""
    rng = random.Random(4)
    waits = [(rng.choice((0.5, 0.5, rng.uniform(20, 60))), rng.gauss(12, 1)) for _ in range(1000)]
    totals = estimate([wait + work for wait, work in waits])
    running = plan(estimate([work for _, work in waits]), price=price)
    queued = plan_queued(estimate([wait for wait, _ in waits]), totals=totals, running=running)
    blind = cost(plan(totals, price=price), [wait + work for wait, work in waits])
    assert with_status(queued, running, waits) < 0.85 * blind


def test_without_a_queue_the_status_changes_nothing() -> None:
    """When tasks start at once, those said to queue are first polled when those that run are."""
    rng = random.Random(6)
    works = estimate([rng.lognormvariate(2, 0.3) for _ in range(200)])
    running = plan(works, price=2.0)
    queued = plan_queued(estimate([0.001] * 200), totals=works, running=running)
    assert queued.pause(0.0) == pytest.approx(running.pause(0.0), rel=0.05)


@pytest.mark.parametrize("others", [[], [float(wait) for wait in range(30, 80)]])
def test_a_steady_queue_is_waited_out(others: list[float]) -> None:
    """When most tasks queue for six seconds and then run for ten, the first poll comes when both are over."""
    waits = [6.0] * 1000 + others * 10
    running = plan(estimate([10.0] * 50), price=2.0)
    queued = plan_queued(estimate(waits), totals=estimate([wait + 10 for wait in waits]), running=running)
    assert 15.9 < queued.pause(0.0) < 16.6


@settings(max_examples=40)
@given(st.lists(st.tuples(st.floats(0.001, 1e5), st.floats(0.001, 1e5)), min_size=1, max_size=40), PRICES)
def test_any_queue_can_be_planned_for(waits: list[tuple[float, float]], price: float) -> None:
    """For any times of waiting and working the pauses of a queued task are within their limits."""
    running = plan(estimate([work for _, work in waits]), price=price)
    totals = estimate([wait + work for wait, work in waits])
    queued = plan_queued(estimate([wait for wait, _ in waits]), totals=totals, running=running)
    for elapsed in (0.0, 0.1, 10.0, 1e4, 2.5e6):
        assert SHORTEST <= queued.pause(elapsed) <= LONGEST


@given(DURATIONS, PRICES, st.floats(0, 1e6))
def test_costs_between_the_times_of_the_grid(durations: list[float], price: float, beyond: float) -> None:
    """Costs are those of the grid on it, between two of them in between, and grow by the price beyond it."""
    known = plan(estimate(durations), price=price)
    assert known.costs_at(known.times) == known.costs
    (middle,) = known.costs_at([(known.times[3] + known.times[4]) / 2])
    assert middle == pytest.approx((known.costs[3] + known.costs[4]) / 2)
    (after,) = known.costs_at([known.times[-1] + beyond])
    assert after == pytest.approx(known.costs[-1] + price * beyond, rel=1e-6)


# How late a poll is.


@given(DURATIONS, st.floats(0, 3e6), st.floats(0, 3e6))
def test_lateness_is_within_the_time_between_two_polls(seconds: list[float], one: float, other: float) -> None:
    """The time since an end that is to be expected is never negative, nor longer than since the poll before it."""
    least, most = sorted((one, other))
    assert 0 <= estimate(seconds).lateness(least, most) <= most - least
    assert estimate(seconds).lateness(most, least) == 0


@pytest.mark.parametrize(("least", "most"), [(0.0, 9.0), (0.0, 12.0), (8.0, 10.0), (9.0, 9.5), (11.0, 40.0)])
def test_lateness_is_what_it_is_on_average(least: float, most: float) -> None:
    """Over many tasks that end between two polls, the mean lateness is the one that is expected, to a sixth."""
    rng = random.Random(1)
    durations = [rng.lognormvariate(math.log(9), 0.25) for _ in range(3000)]
    found = [most - one for one in durations if least < one <= most]
    assert estimate(durations[:200]).lateness(least, most) == pytest.approx(sum(found) / len(found), rel=1 / 6)
