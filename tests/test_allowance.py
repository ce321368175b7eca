"""What the account bears: the pace and the cap as mathematics, and which of them a refusal is put down to."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from piapi_async._allowance import Allowance, Kind
from piapi_async._pace import PROBE, PROBE_MAX, Cap, Pace


def send(pace: Pace, *, number: int, at: float, spread: float = 0.0) -> list[tuple[float, float]]:
    """Let so many requests go."""
    times = [at + spread * n for n in range(number)]
    for time in times:
        pace.take((time, time))
    return [(time, time) for time in times]


def refuse(pace: Pace, *sent: tuple[float, float], now: float, pause: float = 1.0) -> list[bool]:
    """Refuse these requests."""
    return [pace.refused(sent=one, now=now, pause=pause, is_cause=True) for one in sent]


STEPS = st.lists(
    st.tuples(st.sampled_from([0.0, 0.0, 0.01, 0.3, 3.0]), st.sampled_from(["wait", "give back", "refuse"])),
    max_size=60,
)


@given(ceiling=st.floats(0.1, 50), slack=st.floats(0, 2), steps=STEPS)
def test_the_ceiling_holds_in_any_stretch_of_time(ceiling: float, slack: float, steps: list[tuple[float, str]]) -> None:
    """Whatever is learned and given back, no more than 1 + ceiling x (seconds + slack) requests go."""
    pace, now, went = Pace(ceiling=ceiling, slack=slack), 0.0, list[float]()
    for seconds, what in steps:
        now = max(now + seconds, pace.opens)
        pace.take((now, now))
        if what == "give back":
            pace.give_back((now, now), now=now)
            continue
        went.append(now)
        if what == "refuse":
            pace.refused(sent=(now, now), now=now, pause=1.0, is_cause=True)
        assert 0 < pace.rate(now) <= ceiling
    for first, start in enumerate(went):
        for last in range(first, len(went)):
            assert last - first + 1 <= 1 + ceiling * (went[last] - start + slack) + 1e-6


def test_a_request_that_did_not_go_leaves_its_time_to_the_next() -> None:
    """Given back, a turn opens the pace as if it had not been taken."""
    pace = Pace(ceiling=1.0, slack=0.0)
    pace.take((0.0, 0.0))
    pace.take((1.0, 1.0))
    pace.give_back((1.0, 1.0), now=1.0)
    assert pace.opens == 1.0


def test_a_pace_falls_to_less_than_what_was_accepted() -> None:
    """Of 100 requests at once 80 are refused: that is one fall, to 93 % of the 20 that were accepted."""
    pace = Pace()
    sent = send(pace, number=100, at=5.0)
    assert refuse(pace, *sent[20:], now=5.2) == [True] + [False] * 79
    assert pace.knee == 20
    assert pace.rate(5.2) == pytest.approx(18.6)


def test_a_pace_grows_back_slowly_where_it_failed_and_quickly_beyond() -> None:
    """After a first fall it is back at what failed in 15 s, hardly above it 5 s later, and at twice that after 51 s."""
    pace = Pace()
    refuse(pace, *send(pace, number=21, at=0.0)[20:], now=0.0)
    rates = {seconds: pace.rate(seconds) / 20 for seconds in (0, 5, 15, 20, 30, 51)}
    assert rates[0] == pytest.approx(0.93)
    assert rates[15] == pytest.approx(1)
    assert rates[20] < 1.003
    assert rates[30] == pytest.approx(1.07)
    assert rates[51] == pytest.approx(2, abs=0.05)
    assert list(rates.values()) == sorted(rates.values())


def test_each_probe_is_later_than_the_last_and_later_where_it_is_dear() -> None:
    """The way back takes 15, 30 and 60 s after one fall and the next, and up to 5 times as long after long pauses."""
    for pause, most in ((1.0, 60.0), (3.0, 180.0), (100.0, 300.0)):
        pace, now, ways = Pace(), 0.0, []
        for _ in range(7):
            refuse(pace, *send(pace, number=21, at=now + 1)[20:], now=now + 1, pause=pause)
            now += 1
            knee, begun = pace.knee, now
            while pace.rate(now) < knee * 0.99999:
                now += 0.5
            ways.append(now - begun)
        assert ways == sorted(ways)
        assert ways[-1] == pytest.approx(most, rel=0.06)


def test_a_server_that_counts_by_the_minute_is_known_by_the_mean() -> None:
    """When far less was accepted since the last fall than the last second has it, it falls to that, or to a half."""
    pace = Pace()
    refuse(pace, *send(pace, number=101, at=0.0)[100:], now=0.0)
    sent = send(pace, number=61, at=60.0, spread=0.01)
    assert pace.refused(sent=sent[-1], now=61.0, pause=1.0, is_cause=True, by_mean=True)
    assert pace.knee == pytest.approx(30)


def test_what_is_not_its_fault_teaches_a_pace_nothing() -> None:
    """A refusal that another limit explains leaves the pace as it is; lifted, it is as it was at first."""
    pace = Pace(ceiling=50)
    sent = send(pace, number=40, at=0.0)
    assert not pace.refused(sent=sent[0], now=0.1, pause=1.0, is_cause=False)
    assert pace.rate(0.1) == 50
    refuse(pace, sent[1], now=0.1)
    assert pace.rate(0.1) < 50
    pace.lift()
    assert pace.rate(0.1) == 50


def test_a_refusal_that_comes_late_is_counted() -> None:
    """A request that went longer than a second ago is no longer among those that the rate is made of."""
    pace = Pace()
    early = send(pace, number=5, at=0.0)
    late = send(pace, number=11, at=2.0)
    refuse(pace, late[0], early[0], now=3.0)
    assert pace.knee == 10


def test_the_cap_is_what_was_in_flight() -> None:
    """Refused at 30 in flight, one more goes when one ends, or when it is tried; tried in vain, ever more rarely."""
    cap = Cap()
    assert cap.opens(10**6) == -math.inf
    assert not cap.refused(30, sent=0.0, now=1.0, is_cause=False)
    assert (cap.opens(29), cap.opens(30), cap.opens(31)) == (-math.inf, 1.0, math.inf)
    now, waits = 1.0, []
    for _ in range(9):
        assert cap.refused(30, sent=now + 0.1, now=now + 1, is_cause=True)
        now += 1
        waits.append(cap.opens(30) - now)
        now = cap.opens(30)
    assert waits == [PROBE * 2**n for n in range(6)] + [PROBE_MAX] * 3


def test_the_cap_that_was_wrongly_suspected_is_gone_soon() -> None:
    """Each task more that is accepted lets one more be tried beside it: 1, 2, 4, 8..."""
    cap, in_flight, rounds = Cap(), 30, 0
    cap.refused(in_flight, sent=0.0, now=1.0, is_cause=False)
    while in_flight < 1000:
        more = in_flight
        while cap.opens(more) <= 1.0:
            more += 1
        for number in range(in_flight + 1, more + 1):
            cap.accepted(number, now=1.0)
        in_flight, rounds = more, rounds + 1
    assert rounds <= 10


def test_a_cap_that_was_certain_is_tried_further_when_it_gives_way() -> None:
    """One more that is accepted, where it was refused before, halves the pause until the next is tried."""
    cap = Cap()
    cap.refused(30, sent=0.0, now=0.0, is_cause=True)
    cap.accepted(31, now=10.0)
    assert cap.opens(31) == 10.0 + PROBE / 2
    cap.accepted(32, now=20.0)
    cap.accepted(33, now=30.0)
    assert cap.opens(33) > 30.0
    cap.accepted(34, now=40.0)
    assert cap.opens(34) == 40.0
    cap.accepted(20, now=50.0)
    assert cap.limit == 34


class Account:
    """An account whose requests a test sends and refuses."""

    def __init__(self) -> None:
        self.allowance = Allowance()
        self.now = 0.0

    def send(self, kind: Kind) -> tuple[float, float]:
        """Let one go as soon as it may."""
        self.now = max(self.now, self.allowance.opens(kind, in_flight=0)) + 0.001
        return self.allowance.take(kind, now=self.now)

    def accept(self, kind: Kind, number: int) -> None:
        """Let so many go, one after the other, and answer them well."""
        for _ in range(number):
            self.allowance.answered(sent=self.send(kind), is_accepted=True)

    def refuse(self, kind: Kind, sent: tuple[float, float], *, in_flight: int = 0, pause: float | None = 1.0) -> object:
        """Answer one with 429."""
        self.now += 0.1
        return self.allowance.refused(kind, sent=sent, now=self.now, pause=pause, in_flight=in_flight)


def test_a_refusal_is_put_down_to_its_own_kind_first() -> None:
    """Where only looks were refused, only they become slower."""
    account = Account()
    account.accept("submit", 20)
    account.accept("look", 19)
    assert account.refuse("look", account.send("look")) == ("looks",)
    assert account.allowance.bears("looks", now=account.now) < 20
    assert account.allowance.bears("submits", now=account.now) == math.inf
    assert account.allowance.bears("requests", now=account.now) == math.inf


def test_refusals_of_both_kinds_are_put_down_to_all_requests() -> None:
    """Where the other kind was refused lately too, the limit is on both together, and those on each are lifted."""
    account = Account()
    for kind, lower in (("look", ("looks",)), ("submit", ("requests",))):
        account.accept(kind, 19)
        assert account.refuse(kind, account.send(kind)) == lower
        account.now += 5
    assert account.allowance.bears("looks", now=account.now) == math.inf
    assert account.allowance.bears("requests", now=account.now) < 40
    account.accept("look", 99)
    assert account.refuse("look", account.send("look")) == ("requests",)


def test_a_submit_refused_at_a_slow_pace_is_put_down_to_the_cap() -> None:
    """Far below the pace that was borne before, while tasks are in flight, it is their number that is too much."""
    account = Account()
    account.accept("submit", 30)
    assert account.refuse("submit", account.send("submit"), in_flight=30) == ("submits",)
    account.accept("look", 3)
    account.now += 20
    assert account.refuse("submit", account.send("submit"), in_flight=30) == ("tasks in flight",)
    assert account.allowance.bears("tasks in flight", now=account.now) == 30
    assert account.allowance.opens("submit", in_flight=31) == math.inf
    assert account.allowance.opens("look", in_flight=31) < math.inf


def test_the_third_submit_refused_in_a_row_is_put_down_to_the_cap() -> None:
    """Refused again and again at the same number of tasks in flight, it is that number, at whatever pace."""
    account = Account()
    found = []
    for _ in range(3):
        account.accept("submit", 19)
        found.append(account.refuse("submit", account.send("submit"), in_flight=30))
        account.now += 2
    assert found == [("submits",), ("submits",), ("tasks in flight",)]


def test_a_pause_too_short_is_no_pace_too_high() -> None:
    """Refused after each pause, with nothing accepted between, the pauses double up to 32 s, and no pace falls."""
    account = Account()
    account.accept("look", 49)
    account.refuse("look", account.send("look"), pause=None)
    rate, pauses = account.allowance.own["look"].knee, []
    for _ in range(7):
        assert account.refuse("look", account.send("look"), pause=None) == ()
        pauses.append(account.allowance.closed_until - account.now)
    assert pauses == pytest.approx([2, 4, 8, 16, 32, 32, 32])
    assert account.allowance.own["look"].knee == rate
    account.accept("look", 1)
    account.refuse("look", account.send("look"), pause=None)
    assert account.allowance.closed_until - account.now == pytest.approx(1)


def test_after_a_refusal_one_goes_ahead() -> None:
    """When the gate opens again one request goes, the others when it is accepted, or after two seconds."""
    account = Account()
    account.accept("look", 50)
    account.refuse("look", account.send("look"))
    scout = account.send("look")
    assert account.allowance.opens("look", in_flight=0) == pytest.approx(account.now + 2.0)
    account.allowance.answered(sent=(0.0, 0.0), is_accepted=True)
    assert account.allowance.opens("look", in_flight=0) == pytest.approx(account.now + 2.0)
    account.allowance.answered(sent=scout, is_accepted=False)
    assert account.allowance.opens("look", in_flight=0) < account.now + 0.1
    scout = account.send("look")
    assert account.allowance.opens("look", in_flight=0) == pytest.approx(account.now + 2.0)
    account.allowance.answered(sent=scout, is_accepted=True)
    account.send("look")
    assert account.allowance.opens("look", in_flight=0) < account.now + 0.1
