"""The limits that are learned, as mathematics: a rate, a number of tasks in flight, and pauses."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from piapi_async.limits._adaptive import (
    CONCURRENCY_PROBE_SECONDS,
    GROWTH_SECONDS,
    MAX_CONCURRENCY_PROBE_SECONDS,
    REFUSALS_IN_A_ROW,
    AdaptiveConcurrency,
    AdaptiveRate,
    HostLimits,
    Sent,
)


def send(rate: AdaptiveRate, *, number: int, at: float, spread: float = 0.0) -> list[Sent]:
    """Send so many requests."""
    return [rate.take(at + spread * n) for n in range(number)]


def refuse(rate: AdaptiveRate, *sent: Sent, now: float, pause: float = 1.0) -> list[bool]:
    """Refuse these requests."""
    fell = []
    for one in sent:
        rate.count_refusal(one)
        fell.append(rate.refused(sent=one, now=now, pause=pause))
    return fell


STEPS = st.lists(
    st.tuples(st.sampled_from([0.0, 0.0, 0.01, 0.3, 3.0, 40.0]), st.sampled_from(["wait", "give back", "refuse"])),
    max_size=60,
)


@given(ceiling=st.floats(0.1, 50), slack=st.floats(0, 2), steps=STEPS)
def test_the_ceiling_holds_in_any_stretch_of_time(ceiling: float, slack: float, steps: list[tuple[float, str]]) -> None:
    """Whatever is learned and given back, no more than 1 + ceiling x (seconds + slack) requests are sent."""
    rate, now, went = AdaptiveRate(ceiling=ceiling, slack=slack), 0.0, list[float]()
    for seconds, what in steps:
        now = max(now + seconds, rate.opens)
        sent = rate.take(now)
        if what == "give back":
            rate.give_back(sent, now=now)
            continue
        went.append(now)
        if what == "refuse":
            refuse(rate, sent, now=now)
        assert 0 < rate.rate(now) <= ceiling
    for first, start in enumerate(went):
        for last in range(first, len(went)):
            assert last - first + 1 <= 1 + ceiling * (went[last] - start + slack) + 1e-6


def test_a_request_that_was_not_sent_leaves_its_time_to_the_next() -> None:
    """Given back, a permit opens the rate as if it had not been taken."""
    rate = AdaptiveRate(ceiling=1.0, slack=0.0)
    rate.take(0.0)
    rate.give_back(rate.take(1.0), now=1.0)
    assert rate.opens == 1.0


@pytest.mark.parametrize(("refused", "limit"), [(19, math.inf), (20, 80), (40, 60), (50, 50), (80, 50), (100, 50)])
def test_a_rate_falls_to_what_was_accepted_by_a_half_at_most(refused: int, limit: float) -> None:
    """Of 100 requests in a second a fifth has to be refused before it falls, once, and never by more than a half."""
    rate = AdaptiveRate()
    fell = refuse(rate, *send(rate, number=100, at=5.0)[:refused], now=5.2)
    assert sum(fell) == (limit < math.inf)
    assert rate.limit == limit


def test_a_rate_that_fell_grows_back_slowly_first_and_quickly_then() -> None:
    """After 15 s it is 4 % above, after 45 s twice, after 120 s twenty times; later where the pause was longer."""
    for pause, slower in ((0.0, 1), (1.0, 1), (3.0, 3), (100.0, 10)):
        rate = AdaptiveRate()
        refuse(rate, *send(rate, number=40, at=0.0)[20:], now=0.0, pause=pause)
        grown = [rate.rate(slower * seconds) / 20 for seconds in (0, 15, GROWTH_SECONDS, 120)]
        assert grown == pytest.approx([1, 1.037, 2, 20], rel=0.01)


def falling(*, refused_at: list[float], rate: int) -> list[tuple[float, float]]:
    """The rate before and after single refusals, where it fell to so much first, and as much is sent as it allows."""
    learned, limits, now = AdaptiveRate(), list[tuple[float, float]](), 0.0
    refuse(learned, *send(learned, number=2 * rate, at=0.0)[rate:], now=0.0)
    for time in refused_at:
        sent = 0.0, False
        while now < time or sent[0] == 0.0:
            now = max(now, learned.opens)
            sent = learned.take(now)
        before = learned.rate(now)
        refuse(learned, sent, now=now)
        limits.append((before, learned.rate(now)))
    return limits


def test_single_refusals_at_full_speed_let_it_fall_a_little() -> None:
    """A server that refuses one request now and then at a rate slightly too high is met with 85 % of it."""
    limits = falling(refused_at=[10, 30, 60, 90, 120, 150], rate=20)
    assert [after / before for before, after in limits] == [pytest.approx(0.85)] * 6


def test_falls_that_do_not_help_are_undone() -> None:
    """Where one in twenty is refused however much the rate falls, it is back after the fourth, and stays so a while."""
    limits = [after for _, after in falling(refused_at=[10, 11.1, 12.2, 13.3, 14.4, 20], rate=20)]
    assert limits[:3] == [pytest.approx(20 * 0.85**n, rel=0.05) for n in (1, 2, 3)]
    assert limits[3:] == [pytest.approx(20, rel=0.05)] * 3


def test_falls_that_do_not_help_go_on_where_much_is_refused() -> None:
    """Where a tenth and more is refused it goes on falling, down to a rate that is always tried."""
    limits = [after for _, after in falling(refused_at=[1.1 * n for n in range(1, 61)], rate=3)]
    assert limits[9] < 1.1
    assert limits[-1] < 0.1


def test_a_refusal_far_below_the_limit_teaches_nothing() -> None:
    """What is refused while less is sent than the rate allows is not refused for the rate."""
    rate = AdaptiveRate()
    refuse(rate, *send(rate, number=40, at=0.0)[20:], now=0.0)
    assert refuse(rate, *send(rate, number=1, at=10.0), now=10.1) == [False]
    assert rate.limit == 20


def refused(limit: AdaptiveConcurrency, tasks: int, *, number: int = REFUSALS_IN_A_ROW, now: float) -> list[bool]:
    """Refuse so many submits in a row, beside so many tasks."""
    return [limit.refused(tasks, sent=now, now=now + 0.1) for _ in range(number)]


def test_the_limit_is_what_was_in_flight_when_three_were_refused_in_a_row() -> None:
    """Refused beside 30 tasks, one more is submitted when one ends, or when it is tried; ever more rarely in vain."""
    limit = AdaptiveConcurrency()
    assert limit.opens(10**6) == -math.inf
    assert refused(limit, 30, number=2, now=0.0) == [False, False]
    assert limit.opens(30) == -math.inf
    assert limit.refused(30, sent=0.0, now=1.0) is False
    assert (limit.opens(29), limit.opens(30), limit.opens(31)) == (-math.inf, 1.0, math.inf)
    now, waits = 1.0, []
    for _ in range(9):
        assert limit.refused(30, sent=now + 0.1, now=now + 1)
        now += 1
        waits.append(limit.opens(30) - now)
        now = limit.opens(30)
    assert waits == [CONCURRENCY_PROBE_SECONDS * 2**n for n in range(6)] + [MAX_CONCURRENCY_PROBE_SECONDS] * 3


def test_an_acceptance_beside_as_many_refutes_the_suspicion() -> None:
    """Refused at random, submits are soon accepted beside as many tasks: that is not a limit."""
    limit = AdaptiveConcurrency()
    for _ in range(9):
        refused(limit, 30, number=2, now=0.0)
        limit.accepted(31, now=0.0)
    assert limit.limit == math.inf
    refused(limit, 30, number=2, now=0.0)
    limit.accepted(30, now=0.0)
    refused(limit, 30, number=1, now=0.0)
    assert limit.limit == 30


def test_beside_fewer_tasks_it_is_another_suspicion() -> None:
    """Refused beside 30, 29 and 28 tasks, none of these is taken for the limit, nor is 0."""
    limit = AdaptiveConcurrency()
    for tasks in (30, 29, 28):
        refused(limit, tasks, number=2, now=0.0)
    assert limit.limit == math.inf
    refused(limit, 0, number=9, now=0.0)
    assert limit.limit == math.inf


def test_a_limit_that_was_wrongly_suspected_is_gone_soon() -> None:
    """Each time that more is accepted twice as many more are tried: 1, 2, 4, 8..."""
    limit, tasks, rounds = AdaptiveConcurrency(), 30, 0
    refused(limit, tasks, now=0.0)
    while tasks < 1000:
        more = tasks
        while limit.opens(more) <= 1.0:
            more += 1
        for number in range(tasks + 1, more + 1):
            limit.accepted(number, now=1.0)
        tasks, rounds = more, rounds + 1
    assert rounds <= 10
    assert not limit.is_certain


def test_a_limit_that_was_certain_is_tried_further_when_it_gives_way() -> None:
    """One more that is accepted, where it was refused before, halves the pause until the next is tried."""
    limit = AdaptiveConcurrency()
    refused(limit, 30, now=0.0)
    refused(limit, 30, now=1.0)
    assert limit.is_certain
    for tasks, now, pause in ((31, 10.0, 10.0), (32, 20.0, 5.0), (33, 30.0, 2.5)):
        limit.accepted(tasks, now=now)
        assert limit.opens(tasks) <= now + pause
    for tasks in range(34, 40):
        limit.accepted(tasks, now=40.0)
    assert limit.opens(39) == 40.0
    assert not limit.is_certain
    limit.accepted(20, now=50.0)
    assert limit.limit == 39


def test_pauses_of_an_unsaid_length_double_while_nothing_is_accepted() -> None:
    """Refused after each pause, with nothing accepted between, they last 1, 2, 4… 32 s, and no rate falls for it."""
    limits, now, pauses = HostLimits(), 0.0, []
    for _ in range(7):
        sent = limits.take(now)
        limits.refused("poll", sent=sent, now=now + 0.1, asked=None, tasks=0)
        pauses.append(limits.closed_until - now - 0.1)
        now = limits.opens("poll", in_flight=0)
    assert pauses == pytest.approx([1, 2, 4, 8, 16, 32, 32])
    assert limits.rate.limit == math.inf
    limits.answered(limits.take(now), is_accepted=True)
    limits.refused("poll", sent=limits.take(now + 1), now=now + 1.1, asked=None, tasks=0)
    assert limits.closed_until - now - 1.1 == pytest.approx(1)
