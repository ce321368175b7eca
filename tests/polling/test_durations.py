"""`Learned`: what it decides by, what it remembers, and what it cannot be confused by."""

import copy
import itertools
import json
import math
import pickle
import random
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import attrs
import pytest
import tenacity
from hypothesis import given
from hypothesis import strategies as st

from piapi_async import Backoff, Learned, TaskInfo, TaskStatus
from piapi_async.polling._durations import (
    KINDS,
    SLACK,
    TRUSTED,
    change,
    lasted,
    phase,
)
from piapi_async.polling._samples import KEPT

KEY = ("Qubico/flux1-dev", "img2img")
ANY_SECONDS = st.floats() | st.integers() | st.floats(0.5, 60)
NOW = datetime(2026, 1, 1, tzinfo=UTC)


def taught(*seconds: float, price: float = 2.0) -> Learned:
    """A policy that has seen such durations."""
    learned = Learned(price=price)
    for one in seconds:
        learned.observe(KEY, one)
    return learned


def lifelike(count: int, *, seed: int = 1, median: float = 9.0) -> list[float]:
    """Durations as they may well be."""
    rng = random.Random(seed)
    return [rng.lognormvariate(math.log(median), 0.25) for _ in range(count)]


def polls(learned: Learned, *, until: float, **said: Any) -> list[float]:
    """The moments at which a task is polled that goes on."""
    moments, moment = [], 0.0
    while moment < until:
        moment += learned.delay(KEY, moment, **said)
        moments.append(moment)
    return moments


def paid(moments: list[float], durations: list[float], *, price: float) -> float:
    """What such polls cost on average."""
    found = [next((n, moment - one) for n, moment in enumerate(moments, 1) if moment >= one) for one in durations]
    return sum(number + price * late for number, late in found) / len(found)


def test_the_defaults() -> None:
    """The defaults are the design's."""
    assert repr(Learned()) == "Learned(price=2.0, prior=Backoff(initial=1.0, factor=1.5, maximum=15.0, jitter=0.5))"


@pytest.mark.parametrize(
    ("field", "good", "bad"),
    [
        ("price", [0.001, 2, 1000], [0, 0.0009, 1001, -1, math.nan, "2", True, None]),
        ("prior", [Backoff(initial=3)], [None, 3.0, tenacity.wait_fixed(3)]),
    ],
)
def test_what_each_field_takes(field: str, good: list[Any], bad: list[Any]) -> None:
    """Each field takes its documented range, refuses the rest in a sentence that names it, and stays as it is."""
    assert [getattr(Learned(**{field: value}), field) for value in good] == good
    for value in bad:
        with pytest.raises((TypeError, ValueError), match=rf"^{field} must be a "):
            Learned(**{field: value})
    with pytest.raises(attrs.exceptions.FrozenAttributeError):
        setattr(Learned(), field, good[0])


# Before anything is known.


@given(
    st.builds(
        Backoff,
        initial=st.floats(0.1, 9),
        factor=st.floats(1.05, 9) | st.just(1),
        maximum=st.floats(9, 99),
        jitter=st.just(0.0),
    )
)
def test_a_cold_start_is_the_prior(prior: Backoff) -> None:
    """While nothing is known, a task is polled exactly when the prior would."""
    learned, moment = Learned(prior=prior), 0.0
    state = tenacity.RetryCallState(tenacity.AsyncRetrying(), None, (), {})
    for number in range(1, 30):
        state.attempt_number = number
        assert learned(state) == prior(state) == pytest.approx(learned.delay(KEY, moment))
        moment += prior(state)


@given(st.lists(st.floats(0, 1), min_size=12, max_size=12))
def test_a_cold_start_has_the_prior_s_jitter(chances: list[float]) -> None:
    """The pauses of `Backoff()` with its jitter, whatever the jitter was so far, are those of a cold start."""
    moment, bare = 0.0, 1.0
    for chance in chances:
        pause = min(15.0, bare + 0.5 * chance)
        assert Learned().delay(KEY, moment, chance=chance) == pytest.approx(pause)
        moment, bare = moment + pause, bare * 1.5


def test_one_exception_is_not_trusted() -> None:
    """After fewer than three durations no pause is longer than the prior's: a first task may have met a cold start."""
    assert TRUSTED == 3
    assert [learned.delay(KEY, 0.0) for learned in (taught(50), taught(50, 52))] == [15, 15]
    assert taught(50, 52, 51).delay(KEY, 0.0) > 40


# What is learned.


def test_after_the_first_burst_alone_no_task_is_left_alone_for_longer_than_by_the_prior() -> None:
    """Of tasks that went side by side the rest may wait for their turn; once one began later, the plan holds."""
    learned = Learned()
    for number in range(100):
        learned.observe(KEY, 100 + number % 7, began=number / 50)
    assert learned.delay(KEY, 0.0) == learned.prior.maximum
    learned.observe(KEY, 100.0, began=150.0)
    assert learned.delay(KEY, 0.0) > 2 * learned.prior.maximum


def test_the_first_poll_comes_when_tasks_are_over() -> None:
    """From the first task on, polls are where tasks end: none at its beginning, most around the middle."""
    for count in (1, 5, 50):
        first, *_ = moments = polls(taught(*lifelike(count)), until=20)
        assert first > 5
        assert sum(7 < moment < 13 for moment in moments) >= 2


@pytest.mark.parametrize("price", [0.5, 2.0, 8.0])
def test_learned_is_cheaper(price: float) -> None:
    """After 50 tasks, polls cost a fifth less than at the best of all fixed intervals, half of what `Backoff` takes."""
    durations = lifelike(2000, seed=7)
    ours = paid(polls(taught(*lifelike(50), price=price), until=100), durations, price=price)
    grid = [[step * number for number in range(1, 1000)] for step in (n / 10 for n in range(2, 300))]
    assert ours < 0.8 * min(paid(moments, durations, price=price) for moments in grid)
    assert ours < 0.55 * paid(polls(Learned(), until=100), durations, price=price)


def test_what_was_decided_by_is_brought_up_to_date() -> None:
    """With a quarter more durations than the last decision was made by, the next one is made by all of them."""
    learned = taught(*[9.0] * 20)
    before = learned.delay(KEY, 0.0)
    for number in range(6):
        assert learned.delay(KEY, 0.0) == before, number
        learned.observe(KEY, 5.0)
    assert learned.delay(KEY, 0.0) == taught(*[9.0] * 20, *[5.0] * 6).delay(KEY, 0.0) != before


def test_plans_are_brought_up_to_date_one_at_a_time() -> None:
    """Where tasks of both phases are polled, a decision makes one plan anew, and goes by the old ones until then."""

    def pauses(learned: Learned) -> tuple[float, float]:
        return learned.delay(KEY, 0.0, queued=True), learned.delay(KEY, 2.0, running_for=0.0)

    def add(learned: Learned, *, count: int, works: float) -> None:
        for _ in range(count):
            learned.observe(KEY, 2.0 + works, queued=2.0)

    learned, fresh = Learned(), Learned()
    add(learned, count=20, works=9.0)
    before = pauses(learned)
    add(learned, count=6, works=5.0)
    add(fresh, count=20, works=9.0)
    add(fresh, count=6, works=5.0)
    assert learned.delay(KEY, 0.0, queued=True) == before[0]
    assert pauses(learned) == pauses(fresh) != before


def test_kinds_are_apart() -> None:
    """What is learned of one kind of task says nothing of another."""
    learned = taught(*lifelike(20))
    assert learned.delay(("other", "img2img"), 0.0) == Learned().delay(KEY, 0.0)


def test_a_higher_price_buys_more_polls() -> None:
    """The more a second of lateness costs, the more polls are made."""
    counts = [len(polls(taught(*lifelike(50), price=price), until=15)) for price in (0.2, 2, 20)]
    assert counts == sorted(set(counts))


def test_chance_spreads_polls_around_the_best_moment() -> None:
    """Chance moves a poll evenly to both sides of the best moment, which is the middle."""
    learned = taught(*lifelike(50))
    low, middle, high = (learned.delay(KEY, 0.0, chance=chance) for chance in (0.0, 0.5, 1.0))
    assert middle == learned.delay(KEY, 0.0)
    assert high - middle == pytest.approx(middle - low)
    assert 0.2 < high - low < 2


@pytest.mark.parametrize("factor", [2.0, 0.5])
def test_a_change_is_forgotten_into(factor: float) -> None:
    """When tasks take twice or half as long from now on, 20 tasks later polls cost what they would without the past."""
    new = [factor * one for one in lifelike(2000, seed=3)]
    learned, fresh = Learned(), taught(*new[:20])
    for one in (*lifelike(200), *new[:20]):
        learned.delay(KEY, 0.0)
        learned.observe(KEY, one)
    costs = [paid(polls(one, until=200), new, price=2.0) for one in (learned, fresh)]
    assert costs[0] < 1.1 * costs[1]


def side_by_side(rounds: int, count: int, *, slower: float = 1.0, begin: float = 0.0) -> list[tuple[float, float]]:
    """When tasks began and how long they took, of some rounds of so many at a time, in the order of their ends."""
    tasks = []
    for number in range(rounds):
        began = begin + 100.0 * number
        durations = lifelike(count, seed=number + int(begin))
        tasks += sorted((began + at / 1000, slower * one) for at, one in enumerate(durations))
    return sorted(tasks, key=sum)


@pytest.mark.parametrize(("rounds", "count"), [(40, 20), (10, 100), (4, 500)])
def test_tasks_that_are_accepted_together_are_learned_from_as_one_by_one(rounds: int, count: int) -> None:
    """That the quick ones are seen first is no change, and makes the polls of the next ones no dearer."""
    learned = Learned()
    for began, one in side_by_side(rounds, count):
        learned.delay(KEY, 0.0)
        learned.observe(KEY, one, began=began)
    (kind,) = json.loads(learned.to_json())["kinds"]
    assert len(kind["seconds"]) > 0.9 * KEPT
    next_ones = lifelike(2000, seed=99)
    costs = [paid(polls(one, until=200), next_ones, price=2.0) for one in (learned, taught(*lifelike(200, seed=98)))]
    assert costs[0] < 1.1 * costs[1]


def test_a_queue_behind_tasks_that_were_accepted_together_is_no_change() -> None:
    """That each waits for those before it makes the later ones slower, and yet all of them are kept."""
    learned = Learned()
    for number in range(KEPT):
        learned.observe(KEY, 9.0 + number / 2, began=100.0 + number / 200)
    (kind,) = json.loads(learned.to_json())["kinds"]
    assert len(kind["seconds"]) == KEPT


@pytest.mark.parametrize("factor", [2.0, 0.5])
def test_a_change_between_rounds_is_forgotten_into(factor: float) -> None:
    """After two rounds of tasks that take twice or half as long, polls cost what they would without the past."""
    learned, fresh = Learned(), Learned()
    new = side_by_side(2, 100, slower=factor, begin=1000.0)
    for began, one in side_by_side(4, 100):
        learned.observe(KEY, one, began=began)
    for began, one in new:
        for policy in (learned, fresh):
            policy.delay(KEY, 0.0)
            policy.observe(KEY, one, began=began)
    next_ones = [factor * one for one in lifelike(2000, seed=99)]
    costs = [paid(polls(one, until=200), next_ones, price=2.0) for one in (learned, fresh)]
    assert costs[0] < 1.1 * costs[1]


@pytest.mark.parametrize("began", [math.nan, math.inf, -math.inf])
def test_a_beginning_that_cannot_be_is_none(began: float) -> None:
    """Such a task is learned from like one of which it is not known."""
    learned = taught(5.0, 5.0)
    learned.observe(KEY, 6.0, began=began)
    assert learned.to_json() == taught(5.0, 5.0, 6.0).to_json()


def test_steady_durations_are_kept() -> None:
    """Of durations that do not change the latest 200 are all kept, over thousands of tasks."""
    learned = taught(*lifelike(3000))
    (kind,) = json.loads(learned.to_json())["kinds"]
    assert [seconds for seconds, _ in kind["seconds"]] == lifelike(3000)[-KEPT:]


# The status.


def queued_and_run(learned: Learned, count: int) -> Learned:
    """Tasks that wait for one second or a minute, and then run for ten."""
    rng = random.Random(2)
    for _ in range(count):
        queued = rng.choice((1.0, 1.0, 60.0)) * rng.lognormvariate(0, 0.1)
        learned.observe(KEY, queued + rng.gauss(10, 0.3), queued=queued)
    return learned


def test_a_task_that_runs_is_looked_at_when_it_has_run() -> None:
    """Once it is known since when a task runs, the next poll comes when such work is over, however long it queued."""
    learned = queued_and_run(Learned(), 60)
    for elapsed in (5.0, 70.0, 500.0):
        assert 6 < learned.delay(KEY, elapsed, queued=False, running_for=4.0) < 7.5


def test_a_task_that_queues_is_not_expected_at_once() -> None:
    """A task that still queues long after most began to run is polled later than one of which nothing is known."""
    learned = queued_and_run(Learned(), 60)
    assert learned.delay(KEY, 9.5, queued=True) > 10 * learned.delay(KEY, 9.5)


@pytest.mark.parametrize("known", [0, 9])
def test_the_status_is_of_no_use_alone(known: int) -> None:
    """Where the time in the queue is known of less than half of the tasks, the status changes nothing."""
    learned = queued_and_run(taught(*lifelike(10)), known)
    plain = learned.delay(KEY, 3.0)
    assert learned.delay(KEY, 3.0, queued=True) == learned.delay(KEY, 3.0, running_for=1.0) == plain


# How urgent a poll is.


@given(st.lists(st.floats(1, 60), max_size=30), st.lists(st.floats(0, 1e5), min_size=3, max_size=3))
def test_urgency_is_a_probability(seconds: list[float], moments: list[float]) -> None:
    """It is between 0 and 1, 0 right after a poll, and grows the longer ago that was."""
    since, elapsed, later = sorted(moments)
    learned = taught(*seconds)
    first, second = (learned.urgency(KEY, moment, since=since) for moment in (elapsed, later))
    assert 0 <= first <= second + 1e-12 <= 1 + 1e-12
    assert learned.urgency(KEY, since, since=since) == learned.urgency(KEY, since, since=since + 1) == 0


def test_urgency_is_highest_where_tasks_end() -> None:
    """A second around the usual end is worth more than one before it."""
    learned = taught(*lifelike(50))
    early, usual = (learned.urgency(KEY, moment + 1, since=moment) for moment in (2.0, 8.5))
    assert early < 0.02
    assert usual > 0.1


# Anything at all.


@given(
    st.lists(st.tuples(ANY_SECONDS, st.none() | ANY_SECONDS), max_size=40),
    ANY_SECONDS,
    st.none() | st.booleans(),
    st.none() | ANY_SECONDS,
    st.floats(0, 1),
)
def test_any_past_and_any_age_give_a_pause(
    past: list[tuple[float, float | None]],
    elapsed: float,
    queued: bool | None,
    running_for: float | None,
    chance: float,
) -> None:
    """Whatever was observed, also what cannot be, each pause is above 0 and bounded, and the same when asked again."""
    learned = Learned()
    for seconds, waited in past:
        learned.observe(KEY, seconds, queued=waited)
    said: dict[str, Any] = {"queued": queued, "running_for": running_for, "chance": chance}
    pause = learned.delay(KEY, elapsed, **said)
    assert 0 < pause <= 690
    assert pause == learned.delay(KEY, elapsed, **said) == copy.deepcopy(learned).delay(KEY, elapsed, **said)


@pytest.mark.parametrize("seconds", [0, -3, 0.0009, math.nan, math.inf, -math.inf, 30 * 86400 + 1, 10**400])
def test_what_is_no_duration_is_passed_over(seconds: float) -> None:
    """Nothing is learned from a duration that cannot be, and nothing raised."""
    learned = Learned()
    learned.observe(KEY, seconds)
    assert json.loads(learned.to_json())["kinds"] == []


@pytest.mark.parametrize("queued", [-1, 5, 9, math.nan, math.inf])
def test_what_is_no_time_in_the_queue_is_left_out(queued: float) -> None:
    """A time in the queue that is negative or not below the whole is not kept; the duration is."""
    learned = Learned()
    learned.observe(KEY, 5.0, queued=queued)
    assert json.loads(learned.to_json())["kinds"][0]["seconds"] == [[5.0, None]]


def test_memory_is_bounded() -> None:
    """Of 64 kinds the latest 200 durations are kept: those that were not seen for longest are forgotten first."""
    learned = Learned()
    for number in range(KINDS + 6):
        for _ in range(KEPT + 50 if number == 7 else 1):
            learned.observe((f"model {number}", "t"), 5.0)
        learned.observe(("model 0", "t"), 5.0)
    kinds = json.loads(learned.to_json())["kinds"]
    assert [kind["key"][0] for kind in kinds] == [*(f"model {n}" for n in range(7, KINDS + 6)), "model 0"]
    assert max(len(kind["seconds"]) for kind in kinds) == KEPT


def test_a_change_is_seen_in_any_direction_and_not_in_chance() -> None:
    """The place where durations begin to be longer, or shorter, is found; in a steady series there is none."""
    for factor in (2.0, 0.5):
        assert abs(change([*lifelike(80), *(factor * one for one in lifelike(20, seed=2))]) - 80) <= 5
    assert not any(change(lifelike(100, seed=seed)) for seed in range(50))
    assert change([5.0] * 100) == change([]) == change([1.0] * 5 + [9.0] * 5) == 0


# From one process to the next.


@given(
    st.lists(
        st.tuples(
            st.sampled_from([KEY, "plain", 7, ("a", ("b", 3))]), st.floats(0.01, 100), st.none() | st.floats(0, 9)
        ),
        max_size=60,
    )
)
def test_what_was_learned_can_be_carried_over(past: list[tuple[Any, float, float | None]]) -> None:
    """A policy made from the JSON of another decides as it does, and gives the same JSON."""
    learned = Learned()
    for key, seconds, queued in past:
        learned.observe(key, seconds, queued=queued)
    other = Learned.from_json(learned.to_json())
    assert other.to_json() == learned.to_json()
    for (key, *_), elapsed in itertools.product(past[:5], (0.0, 3.0, 50.0)):
        assert other.delay(key, elapsed, queued=True) == learned.delay(key, elapsed, queued=True)


def test_price_and_prior_are_not_carried_over() -> None:
    """They are the new policy's own."""
    text = taught(*lifelike(50)).to_json()
    dear = Learned.from_json(text.encode(), price=20, prior=Backoff(initial=9))
    assert (dear.price, dear.prior.initial) == (20, 9)
    assert len(polls(dear, until=15)) > len(polls(Learned.from_json(text), until=15))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "3",
        '{"version": 2, "kinds": []}',
        '{"version": 1}',
        '{"version": 1, "kinds": 3}',
        '{"version": 1, "kinds": [{}]}',
        '{"version": 1, "kinds": [{"key": "a", "seconds": []}]}',
        '{"version": 1, "kinds": [{"key": "a", "seconds": [[0, null]]}]}',
        '{"version": 1, "kinds": [{"key": "a", "seconds": [["5", null]]}]}',
        '{"version": 1, "kinds": [{"key": "a", "seconds": [[5]]}]}',
        '{"version": 1, "kinds": [{"key": {}, "seconds": [[5, null]]}]}',
        '{"version": 1, "kinds": [{"key": [{}], "seconds": [[5, null]]}]}',
        b"\xff",
        "[" * 100_000,
    ],
)
def test_nonsense_is_refused_in_one_sentence(text: str | bytes) -> None:
    """What `to_json` never gave is refused, and the sentence says what is allowed."""
    with pytest.raises(ValueError, match=r"^text must be what Learned\.to_json gave, got "):
        Learned.from_json(text)


@pytest.mark.parametrize("prior", [0, "", ()])
def test_a_prior_must_be_one_also_for_what_was_carried_over(prior: Any) -> None:
    """Nothing but `None` stands for the usual one."""
    with pytest.raises(TypeError, match=r"^prior must be a Backoff, got "):
        Learned.from_json(Learned().to_json(), prior=prior)


def test_a_key_must_fit_into_json() -> None:
    """A key that JSON cannot hold is an error when it is to be written, not before."""
    learned = Learned()
    learned.observe(b"bytes", 5.0)
    with pytest.raises(TypeError):
        learned.to_json()


def test_a_policy_can_be_pickled() -> None:
    """It travels to another process as it is."""
    learned = taught(*lifelike(20))
    assert pickle.loads(pickle.dumps(learned)).delay(KEY, 3.0) == learned.delay(KEY, 3.0)


# What a task tells.


def told(status: TaskStatus, *, started: float | None = None, ended: float | None = None) -> TaskInfo:
    """A task with the service's times, in seconds after its creation."""
    after = [None if seconds is None else NOW + timedelta(seconds=seconds) for seconds in (started, ended)]
    return TaskInfo(task_id="t", status=status, created_at=NOW, started_at=after[0], ended_at=after[1])


def test_what_the_service_tells_of_a_duration() -> None:
    """It is the time between two of the service's times, whatever the clock here says; what is not told is `None`."""
    assert lasted(told(TaskStatus.COMPLETED, started=1.5, ended=8)) == (8.0, 1.5)
    assert lasted(told(TaskStatus.FAILED, ended=0)) == (0.0, None)
    assert lasted(told(TaskStatus.COMPLETED, started=9, ended=-5)) == (None, 9.0)
    assert lasted(TaskInfo(task_id="t", status=TaskStatus.COMPLETED, ended_at=NOW)) == (None, None)


def learned_of(seconds: float | None, *, between: tuple[float, float] | None) -> list[list[float | None]]:
    """What is kept of a task that queued for half a second, of which such a duration is told."""
    learned = Learned()
    learned.observe(KEY, seconds, queued=0.5, between=between)
    return [kind["seconds"] for kind in json.loads(learned.to_json())["kinds"]]


@pytest.mark.parametrize("seconds", [None, 0.0, -3.0, math.nan, 30 + SLACK + 0.1, 20 - SLACK - 0.1])
def test_times_that_cannot_be_give_way_to_what_was_seen(seconds: float | None) -> None:
    """A duration that is missing, or contradicts the polls before and after the end, is taken from those polls."""
    assert learned_of(seconds, between=(20.0, 30.0)) == [[[25.0, None]]]


@pytest.mark.parametrize("seconds", [20 - SLACK + 0.1, 25.0, 30 + SLACK - 0.1])
def test_the_service_may_count_a_little_longer_or_shorter(seconds: float) -> None:
    """Its times are believed up to a few seconds outside of what was seen: requests take time, and may be refused."""
    assert learned_of(seconds, between=(20.0, 30.0)) == [[[seconds, 0.5]]]


def test_a_task_from_elsewhere_without_times_teaches_nothing() -> None:
    """Without times of the service, and without a submit here, there is no duration."""
    assert learned_of(None, between=None) == []
    assert learned_of(5.0, between=None) == [[[5.0, 0.5]]]
    assert learned_of(None, between=(0.0, 0.0)) == []


# A service that stamps the end when it is asked.


class Life:
    """A policy in use: tasks one after another, each polled as it plans, and told of as the service does."""

    def __init__(self, *, seed: int) -> None:
        self.learned = Learned()
        self.rng = random.Random(seed)

    def run(self, seconds: float, *, stamped: bool, queued: float | None = None, latency: float = 0.05) -> float:
        """Wait for one task, and learn from it; the seconds between its end and the poll that shows it."""
        least, age, work = 0.0, 0.0, seconds - (queued or 0.0)
        while age < seconds:
            least = age
            running = None if queued is None or age < queued else age - queued
            said: dict[str, Any] = {} if queued is None else {"queued": running is None, "running_for": running}
            age += self.learned.delay(KEY, age, chance=self.rng.random(), **said) + latency * self.rng.random()
        end = age - latency * self.rng.random() if stamped else (queued or 0.0) + work
        self.learned.observe(KEY, end, queued=queued, between=(least, age))
        return age - seconds


SHAPES: dict[str, Callable[[random.Random], tuple[float, float | None]]] = {
    "spread": lambda rng: (rng.lognormvariate(math.log(9), 0.25), None),
    "nearly alike": lambda rng: (rng.gauss(12, 0.15), None),
    "all alike": lambda _: (7.0, None),
    "quick or slow": lambda rng: (rng.choice((0.2, 20.0)), None),
    "three sizes": lambda rng: (rng.choice((4.0, 7.2, 13.5)) * rng.lognormvariate(0, 0.06), None),
    "long tail": lambda rng: (6 * rng.paretovariate(1.8), None),
    "queued, work all alike": lambda rng: ((wait := rng.uniform(0, 60)) + 7.0, wait),
    "queued": lambda rng: ((wait := rng.expovariate(1 / 20)) + rng.lognormvariate(math.log(12), 0.1), wait),
}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("seed", range(3))
def test_an_honest_service_is_believed(shape: str, seed: int) -> None:
    """However well the polls hit, the ends that a service tells stay what is learned from: they are exact."""
    life = Life(seed=seed)
    for _ in range(400):
        seconds, queued = SHAPES[shape](life.rng)
        life.run(seconds, stamped=False, queued=queued)
        (kind,) = json.loads(life.learned.to_json())["kinds"]
        assert kind["seconds"][-1][0] > 0
        assert seconds in [one for one, _ in kind["seconds"]]


@pytest.mark.parametrize("late", [0.01, 0.1, 0.3])
def test_a_burst_of_tasks_that_are_all_alike_is_believed(late: float) -> None:
    """Tasks that go side by side and take the same time are all polled equally soon after their end: no sign of it."""
    learned = Learned()
    for burst in range(3):
        for number in range(60):
            began = 100.0 * burst + number / 1000
            learned.observe(KEY, 9.0, queued=2.0, began=began, between=(7.0, 9.0 + late))
    (kind,) = json.loads(learned.to_json())["kinds"]
    assert kind["seconds"] == [[9.0, 2.0]] * 180


@pytest.mark.parametrize("shape", ["spread", "nearly alike", "all alike", "quick or slow", "three sizes", "queued"])
@pytest.mark.parametrize("latency", [0.0, 0.1])
def test_ends_that_are_stamped_by_the_poll_do_not_drift(shape: str, latency: float) -> None:
    """Where each end is the time of the poll, polls do not come later and later: the last are no worse than the first.

    Taken at its word, such a service is told of 10 s late after 1,600 tasks of 5 s, and ever later.
    """
    life, late = Life(seed=1), []
    for _ in range(1500):
        seconds, queued = SHAPES[shape](life.rng)
        late.append(life.run(seconds, stamped=True, queued=None if queued is None else queued, latency=latency))
    assert sum(late[-500:]) / 500 < max(1.5, 1.5 * sum(late[:100]) / 100)


def test_a_service_that_is_no_longer_stamped_by_the_poll_is_believed_again() -> None:
    """When the ends lie before the polls again, they are what is learned from."""
    life = Life(seed=1)
    for _ in range(100):
        life.run(life.rng.lognormvariate(math.log(9), 0.25), stamped=True)
    for _ in range(50):
        last = life.rng.lognormvariate(math.log(9), 0.25)
        life.run(last, stamped=False)
    (kind,) = json.loads(life.learned.to_json())["kinds"]
    assert kind["seconds"][-1][0] == last


def test_a_task_from_elsewhere_teaches_nothing_where_ends_are_those_of_polls() -> None:
    """Of a task that was not submitted here there are no polls to go by, and its end is not believed either."""
    life = Life(seed=1)
    for _ in range(100):
        life.run(9.0, stamped=True)
    before = life.learned.to_json()
    life.learned.observe(KEY, 5000.0)
    assert life.learned.to_json() == before


# Any clock.


CLOCK = st.floats(0, 10 * 366 * 86400.0)
"""The uptime of a machine, up to ten years."""

TASK = st.tuples(
    st.floats(0, 600) | st.sampled_from([0.0, 1e-9, 1e-3, -1e-9, -5.0]) | st.floats(),  # since the last one began
    st.floats(0.001, 600) | st.sampled_from([33.3, 0.3, 1e-3, 86400.0 * 30]) | ANY_SECONDS,  # how long it took
    st.none() | st.floats(0, 600) | st.floats(),  # how long of that it queued
    st.none() | st.tuples(st.floats(0, 600), st.floats(0, 600)) | st.tuples(st.floats(), st.floats()),
)


@given(CLOCK, st.lists(TASK, min_size=1, max_size=40), st.booleans(), st.randoms())
def test_no_reading_of_any_clock_breaks_a_wait(uptime: float, tasks: list[Any], nanoseconds: bool, rng: Any) -> None:
    """Whatever the uptime, the durations, their order, bursts, gaps and nonsense: each pause is a number of seconds."""
    learned, began = Learned(), uptime
    for since, seconds, queued, between in tasks:
        began += since
        began = round(began, 9) if nanoseconds and math.isfinite(began) else began
        learned.observe(KEY, seconds, queued=queued, began=began, between=between)
        for elapsed in (0.0, 1.0, rng.uniform(0, 700), seconds):
            for said in ({}, {"queued": True}, {"running_for": rng.uniform(0, 700)}):
                assert 0 < learned.delay(KEY, elapsed, chance=rng.random(), **said) <= 690
            assert 0 <= learned.urgency(KEY, elapsed, since=rng.uniform(0, 700)) <= 1 + 1e-9
    assert Learned.from_json(learned.to_json()).to_json() == learned.to_json()


@given(CLOCK, st.floats(0.001, 86400), st.booleans())
def test_the_first_task_counts_whatever_the_clock_reads(uptime: float, seconds: float, nanoseconds: bool) -> None:
    """A sum of two readings loses a little, so that a task may seem younger at its end than it took to get there."""
    began = round(uptime, 9) if nanoseconds else uptime
    learned = Learned()
    learned.observe(KEY, seconds, began=began)
    assert learned.delay(KEY, 0.0) == min(taught(seconds).delay(KEY, 0.0), learned.prior.maximum)


def test_on_a_clock_too_coarse_to_tell_ages_the_prior_holds() -> None:
    """Where no duration counts yet, a kind of task is as good as unknown."""
    learned = Learned()
    learned.observe(KEY, 0.6, began=2.0**53)
    assert learned.delay(KEY, 0.0) == Learned().delay(KEY, 0.0)
    assert learned.urgency(KEY, 2.0, since=1.0) == Learned().urgency(KEY, 2.0, since=1.0)


@pytest.mark.parametrize(
    ("info", "expected"),
    [
        (told(TaskStatus.PENDING), (True, None)),
        (told(TaskStatus.STAGED), (True, None)),
        (told(TaskStatus.PROCESSING, started=4), (False, 6.0)),
        (told(TaskStatus.PROCESSING, started=12), (False, 0.0)),
        (told(TaskStatus.PROCESSING, started=-1), (False, None)),
        (told(TaskStatus.PROCESSING), (False, None)),
        (told(TaskStatus.RETRY, started=4), (False, None)),
        (told(TaskStatus.UNKNOWN), (False, None)),
    ],
)
def test_where_a_task_stands(info: TaskInfo, expected: tuple[bool, float | None]) -> None:
    """A task of ten seconds' age queues, or runs since its start on the service's clock, or no more is known."""
    assert phase(info, elapsed=10.0) == expected


def test_an_end_that_is_seen_at_once_tells_nothing_of_how_it_is_stamped() -> None:
    """Between two polls at the same moment there is no lateness to compare with."""
    learned = Learned()
    for began in range(0, 1000, 100):
        learned.observe("kind", 5.0, began=float(began), between=(5.0, 5.0))
    assert learned.delay("kind", 0.0) == pytest.approx(5.0, abs=1.0)
