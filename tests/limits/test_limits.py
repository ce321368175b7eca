"""`Governor`: pauses for everybody, a rate that is kept and learned, and a limit on tasks in flight."""

import asyncio
import math
import re
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack, suppress
from random import Random
from typing import Any, TypeVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from piapi_async import Account, Governor, PiAPIError, events
from piapi_async.errors import ConnectError, RateLimitError
from piapi_async.limits._adaptive import DEFAULT_PAUSE_SECONDS, Kind
from piapi_async.limits._queue import MAX_UNDER_WAY, Permit
from piapi_async.task import TaskInfo, TaskStatus
from piapi_async.testing import EventLog, VirtualTimeLoop, run_in_virtual_time

T = TypeVar("T")


def now() -> float:
    """The loop's time."""
    return asyncio.get_running_loop().time()


async def passed(governor: Governor, *, begun: float, max_wait: float = math.inf) -> int:
    """Pass the gate, and tell at which second."""
    async with governor.turn(max_wait=max_wait):
        return round(now() - begun)


# The gate.


async def test_the_gate_is_open_at_first() -> None:
    """Without a pause nobody waits."""
    assert await passed(Governor(), begun=now()) == 0


async def test_a_pause_holds_everybody_up() -> None:
    """One pause stops all that come, until it is over, however late they come; then the gate is open."""
    governor, begun = Governor(), now()
    governor.pause(30)
    first = [asyncio.create_task(passed(governor, begun=begun)) for _ in range(50)]
    await asyncio.sleep(20)
    later = [asyncio.create_task(passed(governor, begun=begun)) for _ in range(50)]
    assert await asyncio.gather(*first, *later) == [30] * 100
    assert await passed(governor, begun=begun) == 30


@pytest.mark.parametrize(("first", "second"), [(30, 5), (5, 30), (30, None), (30, 0)])
async def test_the_longer_pause_stays(first: float, second: float | None) -> None:
    """Of two pauses the one that ends later counts, for those who wait already and for those who come later."""
    governor, begun = Governor(), now()
    governor.pause(first)
    waiting = asyncio.create_task(passed(governor, begun=begun))
    await asyncio.sleep(1)
    governor.pause(second)
    late = asyncio.create_task(passed(governor, begun=begun))
    expected = max(first, 1 + (DEFAULT_PAUSE_SECONDS if second is None else second))
    assert set(await asyncio.gather(waiting, late)) == {expected}
    assert await passed(governor, begun=begun) == expected


async def test_a_pause_that_does_not_say_how_long() -> None:
    """A 429 without a time closes the gate for `DEFAULT_PAUSE_SECONDS`; one with 0 does not close it."""
    governor, begun = Governor(), now()
    governor.pause(0)
    assert await passed(governor, begun=begun) == 0
    governor.pause(None)
    assert await passed(governor, begun=begun) == DEFAULT_PAUSE_SECONDS == 1


async def test_a_gate_that_stays_closed_too_long_is_an_error_at_once() -> None:
    """Who has less max_wait than the gate stays closed is told at once how long it is; who has more waits."""
    governor, begun = Governor(), now()
    governor.pause(30)
    with pytest.raises(RateLimitError, match=r"^PiAPI asked for a pause that lasts 30 s more$") as caught:
        async with governor.turn(max_wait=29):
            pytest.fail("the gate is closed")
    assert caught.value.retry_after == pytest.approx(30, abs=0.5)
    assert caught.value.safe_to_resubmit is True
    assert now() - begun < 0.5
    async with governor.turn(max_wait=30):
        pass
    assert now() - begun == pytest.approx(30, abs=0.5)


async def test_a_pause_that_grows_beyond_the_max_wait_ends_the_waiting() -> None:
    """Who waits already is told at once when the gate closes for longer than the max_wait; who has more waits on."""
    governor, begun = Governor(), now()
    governor.pause(10)
    waits = [asyncio.create_task(passed(governor, begun=begun, max_wait=max_wait)) for max_wait in (20, 20, 200)]
    await asyncio.sleep(5)
    governor.pause(100)
    for waiting in waits[:2]:
        with pytest.raises(RateLimitError, match="100 s more"):
            await waiting
    assert now() - begun == pytest.approx(5, abs=0.5)
    assert await waits[2] == 105


@pytest.mark.parametrize("is_cancelled_first", [False, True])
async def test_a_waiter_that_is_sent_away_and_cancelled_at_once_is_gone_once(*, is_cancelled_first: bool) -> None:
    """Told that the pause is too long in the moment in which it is cancelled, a waiter is counted out once."""
    governor = Governor()
    governor.pause(10)
    waits = [asyncio.create_task(passed(governor, begun=0, max_wait=max_wait)) for max_wait in (20, 200)]
    await asyncio.sleep(1)
    if is_cancelled_first:
        waits[0].cancel()
    governor.pause(100)
    waits[0].cancel()
    with pytest.raises(asyncio.CancelledError):
        await waits[0]
    assert "1 waiting" in repr(governor)
    await waits[1]


async def test_a_waiter_that_is_cancelled_at_the_moment_of_its_turn_is_passed_over() -> None:
    """What one leaves goes to the next who waits, not to one whose cancel is on its way."""
    governor = Governor()
    under_way = [governor.turn() for _ in range(MAX_UNDER_WAY)]
    for permit in under_way:
        await permit.__aenter__()
    first, second = (asyncio.ensure_future(governor.turn().__aenter__()) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()
    await under_way[0].__aexit__(None, None, None)
    assert await second
    assert first.cancelled()


async def test_waiting_at_the_gate_can_be_cancelled() -> None:
    """Who is cancelled at the gate leaves at once."""
    governor, begun = Governor(), now()
    governor.pause(3600)
    waiting = asyncio.create_task(passed(governor, begun=begun))
    await asyncio.sleep(1)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert now() - begun < 2


# The cap.


class Flight:
    """Counts those who hold a place at the same time."""

    def __init__(self, governor: Governor) -> None:
        self.governor = governor
        self.now = self.most = self.landed = 0

    async def fly(self, seconds: float) -> None:
        """Hold a place for so long."""
        async with self.governor.slot():
            self.now += 1
            self.most = max(self.most, self.now)
            try:
                await asyncio.sleep(seconds)
                self.landed += 1
            finally:
                self.now -= 1


@given(
    cap=st.integers(1, 5),
    flights=st.lists(st.tuples(st.integers(0, 3), st.integers(1, 9), st.none() | st.integers(0, 9)), max_size=12),
)
def test_the_cap_is_never_exceeded(cap: int, flights: list[tuple[int, int, int | None]]) -> None:
    """However they come, stay and are cancelled, never more than the cap hold a place, and none gets lost."""
    flight = Flight(Governor(max_in_flight=cap))

    async def one(start: int, stay: int, cancel: int | None) -> None:
        await asyncio.sleep(start)
        flying = asyncio.create_task(flight.fly(stay))
        if cancel is not None:
            await asyncio.sleep(cancel)
            flying.cancel()
        await asyncio.gather(flying, return_exceptions=True)

    async def everyone() -> None:
        await asyncio.gather(*(one(*each) for each in flights))
        before = flight.landed
        await asyncio.gather(*(flight.fly(1) for _ in range(cap)))
        assert flight.landed == before + cap

    run_in_virtual_time(everyone())
    assert flight.now == 0
    assert flight.most <= cap
    assert flight.landed >= sum(cancel is None for *_, cancel in flights)


async def test_the_cap_is_used_up_to_its_number() -> None:
    """Ten tasks of ten seconds on three places take four rounds, three at a time."""
    flight, begun = Flight(Governor(max_in_flight=3)), now()
    await asyncio.gather(*(flight.fly(10) for _ in range(10)))
    assert flight.most == 3
    assert now() - begun == pytest.approx(40, abs=0.5)


async def test_places_are_given_in_order_of_arrival() -> None:
    """Who came first flies first."""
    governor, order = Governor(max_in_flight=1), list[int]()

    async def fly(number: int) -> None:
        async with governor.slot():
            order.append(number)
            await asyncio.sleep(Random().random())

    await asyncio.gather(*map(fly, range(20)))
    assert order == list(range(20))


async def test_a_cancelled_waiter_frees_its_place() -> None:
    """Of three that wait, one who leaves does not keep a place from the others."""
    flight = Flight(Governor(max_in_flight=1))
    flights = [asyncio.create_task(flight.fly(10)) for _ in range(3)]
    await asyncio.sleep(1)
    flights[1].cancel()
    await asyncio.gather(*flights, return_exceptions=True)
    assert (flight.most, flight.landed) == (1, 2)


async def test_those_who_left_are_not_counted_among_those_who_wait() -> None:
    """Of a thousand that wait for a place nothing is left when they are cancelled."""
    governor = Governor(max_in_flight=1)
    flight = Flight(governor)
    async with governor.slot():
        flights = [asyncio.create_task(flight.fly(10)) for _ in range(1000)]
        await asyncio.sleep(1)
        assert "1000 waiting for a slot" in repr(governor)
        for one in flights[1:]:
            one.cancel()
        await asyncio.sleep(1)
        assert repr(governor) == "<Governor at most 1 tasks in flight, 1 waiting for a slot>"
    await flights[0]


async def test_a_failure_in_flight_frees_its_place() -> None:
    """An error while a place is held gives it back."""
    governor = Governor(max_in_flight=1)
    for _ in range(3):
        with pytest.raises(ValueError, match="crash"):
            async with governor.slot():
                raise ValueError("crash")


async def test_no_cap_is_no_cap() -> None:
    """Without a number any number flies at once."""
    flight, begun = Flight(Governor()), now()
    await asyncio.gather(*(flight.fly(10) for _ in range(500)))
    assert flight.most == 500
    assert now() - begun == pytest.approx(10, abs=1)


@pytest.mark.parametrize("loops", [2, 3])
def test_a_governor_works_on_a_second_event_loop(loops: int) -> None:
    """One governor keeps its cap in each of several runs, one after the other, and its places are free in each."""
    governor = Governor(max_in_flight=2)

    async def fly() -> int:
        flight = Flight(governor)
        await asyncio.wait_for(asyncio.gather(*(flight.fly(1) for _ in range(6))), 60)
        return flight.most

    for _ in range(loops):
        assert run_in_virtual_time(fly()) == 2


def test_the_places_of_a_loop_that_broke_off_are_free_in_the_next() -> None:
    """A run that ends in the middle of a flight leaves no place taken for the next run."""
    governor = Governor(max_in_flight=1)

    async def crash() -> None:
        flying = asyncio.create_task(Flight(governor).fly(1000))
        await asyncio.sleep(1)
        assert not flying.done()

    async def fly() -> None:
        await asyncio.wait_for(Flight(governor).fly(1), 60)

    run_in_virtual_time(crash())
    run_in_virtual_time(fly())


@pytest.mark.parametrize("number", [0, -1])
def test_a_cap_below_one_is_refused(number: int) -> None:
    """A cap that lets nobody fly is a mistake, and is said to be one."""
    with pytest.raises(ValueError, match=rf"^max_in_flight must be a whole number >= 1, got {number}$"):
        Governor(max_in_flight=number)


@pytest.mark.parametrize(
    ("given_", "error", "words"),
    [
        ({"requests_per_second": 0}, ValueError, "requests_per_second must be a finite number > 0, got 0"),
        ({"requests_per_second": "20"}, TypeError, "requests_per_second must be a finite number > 0, got '20'"),
        ({"requests_per_second": 1, "burst": 0.5}, ValueError, "burst must be a finite number >= 1, got 0.5"),
        ({"burst": 5}, ValueError, "burst needs requests_per_second beside it, got burst=5 alone"),
        (
            {"max_in_flight": "acount"},
            ValueError,
            "max_in_flight must be a whole number >= 1, 'account' or None, got 'acount'",
        ),
        ({"max_in_flight": 2.5}, TypeError, "max_in_flight must be a whole number >= 1, got 2.5"),
    ],
)
def test_a_bad_limit_is_refused(given_: Any, error: type[Exception], words: str) -> None:
    """Each argument is checked at once, and the sentence names it, the value and what is allowed."""
    with pytest.raises(error, match=f"^{re.escape(words)}$"):
        Governor(**given_)


# The pace that was told.


async def served(governor: Governor, kind: Kind = "poll", *, seconds: float = 0.0, **options: Any) -> float:
    """Hold a turn for so long; when it was let go."""
    async with governor.turn(kind, **options):
        time = now()
        await asyncio.sleep(seconds)
    return time


ARRIVALS = st.lists(
    st.tuples(
        st.floats(0, 20),
        st.sampled_from(["submit", "poll"]),
        st.none() | st.floats(0, 10),
        st.none() | st.floats(0, 5),
        st.floats(0, 2),
    ),
    max_size=40,
)
"""Requests: when, of which kind, after how long cancelled, with which `Retry-After` refused, and how long they take."""


@given(rate=st.floats(0.5, 20), burst=st.none() | st.floats(1, 10), arrivals=ARRIVALS)
@settings(max_examples=60)
def test_the_told_pace_is_never_exceeded_and_everybody_gets_a_turn(
    rate: float, burst: float | None, arrivals: list[tuple[float, Kind, float | None, float | None, float]]
) -> None:
    """In any stretch of time at most rate x seconds + burst go, whatever is refused and cancelled; none is lost."""
    governor = Governor(requests_per_second=rate, burst=burst)
    went: list[float] = []

    async def request(kind: Kind, refusal: float | None, seconds: float) -> None:
        with suppress(RateLimitError):
            async with governor.turn(kind):
                went.append(now())
                await asyncio.sleep(seconds)
                if refusal is not None:
                    raise RateLimitError("slow down", retry_after=refusal)

    async def one(start: float, kind: Kind, cancel: float | None, refusal: float | None, seconds: float) -> None:
        await asyncio.sleep(start)
        asked = asyncio.ensure_future(request(kind, refusal, seconds))
        if cancel is not None:
            await asyncio.sleep(cancel)
            asked.cancel()
        await asyncio.gather(asked, return_exceptions=True)

    async def everyone() -> None:
        await asyncio.wait_for(asyncio.gather(*(one(*arrival) for arrival in arrivals)), 36_000)

    run_in_virtual_time(everyone())
    assert len(went) >= sum(cancel is None for _, _, cancel, _, _ in arrivals)
    most = 1 + 0.1 * rate if burst is None else burst
    for first, start in enumerate(went):
        for last in range(first, len(went)):
            assert last - first + 1 <= rate * (went[last] - start) + most + 1e-3
    assert "waiting" not in repr(governor)


async def test_requests_are_spread_evenly() -> None:
    """At 10 a second two may go at once, by default; after that one goes each tenth of a second."""
    governor, begun = Governor(requests_per_second=10), now()
    times = await asyncio.gather(*(served(governor) for _ in range(32)))
    assert all(time - begun > 0.1 * number - 0.101 for number, time in enumerate(times))
    assert times[1] - begun < 0.09
    assert times[-1] - begun == pytest.approx(3.0, abs=0.2)


async def test_the_burst_that_was_told_goes_at_once() -> None:
    """With `burst=20` twenty go at once, and none more before its time."""
    governor, begun = Governor(requests_per_second=10, burst=20), now()
    times = await asyncio.gather(*(served(governor) for _ in range(25)))
    assert times[19] - begun < 0.09
    assert all(time - begun > 0.1 * number - 0.001 for number, time in enumerate(times[20:], start=1))
    assert times[-1] - begun == pytest.approx(0.5, abs=0.2)


class LateLoop(VirtualTimeLoop):
    """An event loop that is held up for 50 ms whenever a timer is due."""

    def _pass_time_until(self, when: float) -> None:
        super()._pass_time_until(when + 0.05)


def test_a_late_timer_loses_nothing() -> None:
    """An event loop that is held up for 50 ms at a time keeps the rate all the same."""

    async def main() -> float:
        governor, begun = Governor(requests_per_second=50), now()
        await asyncio.gather(*(served(governor) for _ in range(50)))
        return now() - begun

    with asyncio.Runner(loop_factory=LateLoop) as runner:
        assert 0.8 < runner.run(main()) < 1.2


# Order.


async def test_submits_and_polls_take_turns() -> None:
    """Where both wait, two submits go, then a poll; neither kind waits for the other's queue to be empty."""
    governor, order = Governor(requests_per_second=10, burst=1), list[Kind]()

    async def ask(kind: Kind) -> None:
        await served(governor, kind)
        order.append(kind)

    await asyncio.gather(*(ask("submit") for _ in range(12)), *(ask("poll") for _ in range(12)))
    assert order[:9] == ["submit", "submit", "poll"] * 3
    assert order[18:] == ["poll"] * 6


async def test_urgent_polls_go_first_and_nobody_starves() -> None:
    """A poll goes before those that came less earlier than it is more urgent; equals go in order of arrival."""
    governor, order = Governor(requests_per_second=1, burst=1), list[str]()

    async def ask(name: str, after: float, urgency: float) -> None:
        await asyncio.sleep(after)
        await served(governor, priority=lambda: urgency)
        order.append(name)

    first = [ask("at once", 0, 0), ask("a", 0.1, 0), ask("b", 0.2, 0), ask("urgent", 0.3, 5), ask("more so", 0.4, 9)]
    later = [ask(f"flood {n}", 0.5 + n, 3.0) for n in range(9)]
    await asyncio.gather(*first, *later)
    assert order[:3] == ["at once", "more so", "urgent"]
    assert order.index("a") < order.index("b") < order.index("flood 4")


async def test_submits_go_in_order_of_arrival_and_a_further_attempt_keeps_its_place() -> None:
    """A turn that is held again, after a refusal, goes before those that came after its first time."""
    governor, order = Governor(requests_per_second=10, burst=1), list[int]()

    async def ask(number: int) -> None:
        turn = governor.turn("submit")
        for attempt in range(2):
            with suppress(RateLimitError):
                async with turn:
                    order.append(number)
                    if number == attempt == 0:
                        raise RateLimitError("slow down", retry_after=1)
                    return

    await asyncio.gather(*map(ask, range(6)))
    assert order == [0, 0, 1, 2, 3, 4, 5]


async def test_a_cancelled_waiter_eats_no_turn() -> None:
    """Of 1,000 that wait, 990 are cancelled, some in the moment of their turn: the other ten go as if alone."""
    governor, begun = Governor(requests_per_second=10, burst=1), now()
    asked = [asyncio.create_task(served(governor)) for _ in range(1001)]
    await asyncio.sleep(0.05)
    for one in asked[1:991]:
        one.cancel()
    times = await asyncio.gather(*asked[991:])
    assert 0.99 < max(times) - begun < 5


async def test_a_turn_that_comes_in_the_moment_of_the_cancel_goes_to_the_next() -> None:
    """Cancelled after it was let go and before it was sent, a request gives its permit, and its slot, back."""
    governor = Governor(requests_per_second=1000, burst=500)
    async with governor.slot() as slot, AsyncExitStack() as others:
        for _ in range(MAX_UNDER_WAY - 1):
            await others.enter_async_context(governor.turn())
        last = governor.turn()
        await last.__aenter__()
        asked = asyncio.create_task(served(governor, "submit", slot=slot))
        after = asyncio.create_task(served(governor, "submit"))
        await asyncio.sleep(1)
        await last.__aexit__(None, None, None)
        assert slot.is_sent
        asked.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asked
        assert not slot.is_sent
        assert now() - await after < 0.5


async def test_one_that_goes_ahead_and_is_cancelled_in_that_moment_holds_nobody_up() -> None:
    """After a pause one request goes ahead; cancelled before it could go, it leaves the way to the next at once."""
    governor = Governor()
    with pytest.raises(RateLimitError):
        async with governor.turn():
            raise RateLimitError("too many", retry_after=5)
    begun = now()
    ahead = asyncio.create_task(served(governor))
    following = asyncio.create_task(passed(governor, begun=begun))
    await asyncio.sleep(0)
    asyncio.get_running_loop().call_at(begun + 5, ahead.cancel)
    assert await following == 5
    assert ahead.cancelled()


async def test_a_place_that_comes_in_the_moment_of_the_cancel_goes_to_the_next() -> None:
    """Cancelled in the moment in which it gets its place in flight, a run leaves it to the next."""
    governor = Governor(max_in_flight=1)
    flight, holder = Flight(governor), governor.slot()
    await holder.__aenter__()
    first, second = (asyncio.create_task(flight.fly(1)) for _ in range(2))
    await asyncio.sleep(1)
    await holder.__aexit__(None, None, None)
    first.cancel()
    await asyncio.gather(first, second, return_exceptions=True)
    assert (flight.most, flight.landed) == (1, 1)


async def test_no_more_than_a_hundred_are_under_way() -> None:
    """A closed gate can hold back only what has not gone: so no more go at once than there are connections."""
    governor, begun = Governor(), now()
    times = await asyncio.gather(*(served(governor, seconds=1) for _ in range(250)))
    assert Counter(round(time - begun) for time in times) == {0: 100, 1: 100, 2: 50}


async def test_ten_thousand_wait_calmly() -> None:
    """10,000 waiters and their cancel cost little each, and one timer serves them all."""
    governor = Governor(requests_per_second=1)
    began = time.process_time()
    waits = [asyncio.create_task(served(governor)) for _ in range(10_000)]
    await asyncio.sleep(0.01)
    assert len(asyncio.get_running_loop()._scheduled) < 5  # type: ignore[attr-defined] # asyncio's own list
    assert re.search("999[0-9] waiting", repr(governor))
    for wait in waits:
        wait.cancel()
    await asyncio.gather(*waits, return_exceptions=True)
    assert "waiting" not in repr(governor)
    assert time.process_time() - began < 8.0


# The pace that is learned.


class Server:
    """A server with limits: answers requests after a while, or refuses them.

    Args:
        limits: By kind, or for `"all"`: seconds to wait at a time, 0 when the request is borne.

        cap: Tasks it has at once.

        lag: Seconds until an answer comes, on average.

        says: Whether it says how long to wait.

        random: Which part of all requests it refuses whatever their rate.
    """

    def __init__(
        self,
        limits: Mapping[str, Callable[[float], float]],
        *,
        cap: float = math.inf,
        lag: float = 0.2,
        says: bool = True,
        random: float = 0.0,
    ) -> None:
        self.limits, self.cap, self.lag, self.says, self.random = limits, cap, lag, says, random
        self.chance = Random(7)
        self.alive = self.tasks = 0
        self.log: list[tuple[float, bool]] = []

    async def ask(self, permit: Permit) -> None:
        """One request."""
        async with permit:
            await asyncio.sleep(self.lag * self.chance.uniform(0.2, 0.8))
            wait = self.limits.get(permit.kind, self.limits.get("all", lambda _now: 0.0))(now())
            if self.chance.random() < self.random:
                wait = 0.5
            is_over = wait == 0 and permit.kind == "submit" and self.alive >= self.cap
            self.log.append((now(), wait > 0 or is_over))
            self.alive += permit.kind == "submit" and wait == 0 and not is_over
            await asyncio.sleep(self.lag * self.chance.uniform(0.2, 0.8))
            if wait > 0 or is_over:
                pause = 12.0 if is_over else float(max(1, math.ceil(wait)))
                raise RateLimitError("slow down", retry_after=pause if self.says else None)
            if permit.slot is not None:
                self.tasks += 1
                permit.slot.accepted(TaskInfo(task_id=str(self.tasks), status=TaskStatus.PENDING))

    async def run(self, governor: Governor) -> None:
        """One task, from its submit, repeated until it is accepted, to the poll that sees its end."""
        async with governor.slot() as slot:
            submit = governor.turn("submit", slot=slot)
            while slot.task_id is None:
                with suppress(RateLimitError):
                    await self.ask(submit)
        task_id = slot.task_id
        governor.watch(task_id, by=1)
        end, pause = now() + self.chance.uniform(4, 12), 1.0
        asyncio.get_running_loop().call_at(end, self.over)
        is_seen = False
        while not is_seen:
            await asyncio.sleep(pause + self.chance.uniform(0, 0.5))
            pause = min(15.0, 1.5 * pause)
            is_over = now() >= end
            with suppress(RateLimitError):
                await self.ask(governor.turn())
                is_seen = is_over
        governor.seen(TaskInfo(task_id=task_id, status=TaskStatus.COMPLETED))

    async def submit(self, governor: Governor) -> None:
        """One task's submit, repeated until it is accepted."""
        submit = governor.turn("submit")
        while True:
            with suppress(RateLimitError):
                return await self.ask(submit)

    def over(self) -> None:
        """A task ends."""
        self.alive -= 1


def bucket(rate: float, size: float) -> Callable[[float], float]:
    """A token bucket."""
    full = -math.inf

    def take(time: float) -> float:
        nonlocal full
        filled = max(full, time) + 1 / rate
        wait = max(0.0, filled - time - size / rate - 1e-9)
        full = full if wait else filled
        return wait

    return take


def window(number: int, seconds: float) -> Callable[[float], float]:
    """So many in any stretch of so many seconds."""
    times: deque[float] = deque(maxlen=number)

    def take(time: float) -> float:
        wait = times[0] + seconds - time if len(times) == number else 0.0
        if wait <= 0:
            times.append(time)
        return max(0.0, wait)

    return take


@pytest.mark.parametrize(
    ("server", "rate", "ratio"),
    [
        pytest.param(lambda: Server({"all": bucket(20, 20)}), 20, 1.10, id="a bucket of a second"),
        pytest.param(lambda: Server({"all": bucket(20, 20)}, says=False), 20, 1.10, id="one that says no time"),
        pytest.param(lambda: Server({"all": bucket(20, 5)}), 20, 1.20, id="a small bucket"),
        pytest.param(lambda: Server({"all": window(20, 1)}), 20, 1.40, id="a window of a second"),
        pytest.param(lambda: Server({"all": bucket(100, 100)}, lag=0.5), 100, 1.30, id="a large bucket"),
    ],
)
def test_a_rate_that_nobody_told_is_found(server: Callable[[], Server], rate: float, ratio: float) -> None:
    """After 20 s few of the requests are refused, and a thousand tasks take little more than the ideal time."""
    limited, governor = server(), Governor()

    async def everything() -> float:
        begun = now()
        await asyncio.gather(*(limited.run(governor) for _ in range(1000)))
        limited.log = [(time - begun, is_refused) for time, is_refused in limited.log]
        return now() - begun

    seconds = run_in_virtual_time(everything())
    late = [is_refused for time, is_refused in limited.log if time > 20]
    assert sum(late) <= 0.02 * len(late)
    assert seconds <= ratio * sum(not is_refused for _, is_refused in limited.log) / rate


def test_a_limit_on_submits_alone_is_found() -> None:
    """A server that bears 5 submits a second, and 50 polls, gets its tasks in at most twice their ideal time."""
    limited, governor = Server({"submit": bucket(5, 5), "poll": bucket(50, 50)}), Governor()

    async def everything() -> float:
        begun = now()
        await asyncio.gather(*(limited.run(governor) for _ in range(500)))
        return now() - begun

    assert run_in_virtual_time(everything()) < 2.2 * 500 / 5
    assert sum(is_refused for _, is_refused in limited.log) < 300


def test_a_limit_on_tasks_in_flight_is_found() -> None:
    """A server that refuses the 31st task gets its thousand tasks nevertheless, few refusals, and is kept busy."""
    limited, governor = Server({}, cap=30), Governor()

    async def everything() -> float:
        begun = now()
        await asyncio.gather(*(limited.run(governor) for _ in range(300)))
        return now() - begun

    seconds = run_in_virtual_time(everything())
    assert seconds < 3 * 300 * 8 / 30
    assert sum(is_refused for _, is_refused in limited.log) < 150


def test_a_minute_without_a_word_is_waited_out() -> None:
    """A server that bears 60 a minute, and does not say so, is asked ever less often while it refuses everything."""
    limited, governor = Server({"all": window(60, 60)}, says=False), Governor()

    async def everything() -> None:
        await asyncio.gather(*(limited.run(governor) for _ in range(60)))

    run_in_virtual_time(everything())
    first = min(time for time, is_refused in limited.log if is_refused)
    assert sum(is_refused for time, is_refused in limited.log if first + 1 < time < first + 60) <= 8


@pytest.mark.parametrize("says", [True, False])
def test_random_refusals_cost_little(says: bool) -> None:
    """Where 5 % of all requests are refused whatever their rate, everybody else goes on, and no limit is learned."""

    async def everything(share: float) -> tuple[float, str]:
        limited, governor, begun = Server({}, random=share, says=says), Governor(), now()
        await asyncio.gather(*(limited.submit(governor) for _ in range(1000)))
        return now() - begun, repr(governor)

    (ideal, _), (seconds, learned) = run_in_virtual_time(everything(0.0)), run_in_virtual_time(everything(0.05))
    assert learned == "<Governor no limits>"
    assert seconds < 1.5 * ideal + 4  # those that are refused at the end wait a second, some of them twice


def test_random_refusals_beside_a_limit_do_not_ruin_the_rate() -> None:
    """5 % of random refusals on top of a limit on the rate leave at least a third of it."""
    limited, governor = Server({"all": bucket(20, 20)}, random=0.05), Governor()

    async def everything() -> float:
        begun = now()
        await asyncio.gather(*(limited.run(governor) for _ in range(300)))
        return now() - begun

    seconds = run_in_virtual_time(everything())
    assert seconds < 3 * sum(not is_refused for _, is_refused in limited.log) / 20


async def test_what_was_learned_is_told() -> None:
    """A burst that was refused in great part is one pause and one event, with a half of what was sent."""
    governor, log = Governor(), EventLog()

    async def ask(number: int) -> None:
        with suppress(RateLimitError):
            async with governor.turn(announce=log):
                await asyncio.sleep(0.1 + number / 1000)
                if number < 80:
                    raise RateLimitError("slow down", retry_after=3)

    await asyncio.gather(*map(ask, range(100)))
    (pause,) = log.of(events.Paused)
    assert (pause.seconds, pause.asked) == (pytest.approx(3), 3)
    (event,) = log.of(events.LimitLearned)
    assert (event.limit, event.value) == ("requests", pytest.approx(80, abs=1))
    assert governor._hosts[""].rate.limit == 50


async def test_one_refusal_is_no_rate() -> None:
    """Single 429s, where little was asked, make everybody pause, and nothing more."""
    governor = Governor()
    for _ in range(3):
        with suppress(RateLimitError):
            async with governor.turn():
                raise RateLimitError("slow down", retry_after=1)
        await served(governor)
    await served(governor)
    assert repr(governor) == "<Governor no limits>"


async def refused(governor: Governor, *, asked: float | None, **options: Any) -> None:
    """Send one request, and be refused."""
    with suppress(RateLimitError):
        async with governor.turn(**options):
            raise RateLimitError("slow down", retry_after=asked)


@pytest.mark.parametrize("max_pause", [120, 10])
async def test_a_pause_without_reason_is_cut_short(max_pause: float) -> None:
    """A `Retry-After` of an hour is obeyed for `max_pause`; then one request goes, the others after its answer."""
    governor, log = Governor(max_pause=max_pause), EventLog()
    await refused(governor, asked=3600, announce=log)
    begun = now()
    times = await asyncio.gather(*(served(governor, seconds=2) for _ in range(20)))
    after = [time - begun - max_pause for time in times]
    assert after[0] == pytest.approx(0, abs=0.1)
    assert after[1:] == [pytest.approx(2, abs=0.1)] * 19
    assert [str(event) for event in log] == [
        f"answered 429, pausing for {max_pause:.1f} s, the server asked for 3600 s"
    ]


async def test_a_probe_that_is_not_answered_holds_nobody_up_for_long() -> None:
    """The others wait 5 s for it, and not at all for one that is lost; refused again, all pause once more."""
    governor = Governor(max_pause=10)
    await refused(governor, asked=3600)
    begun = now()
    hanging = asyncio.create_task(served(governor, seconds=60))
    await asyncio.sleep(1)
    assert await served(governor) - begun == pytest.approx(15, abs=0.1)
    await hanging
    await refused(governor, asked=3600)
    begun = now()
    with pytest.raises(ConnectError):
        async with governor.turn():
            raise ConnectError("lost")
    assert now() - begun == pytest.approx(10, abs=0.1)
    await refused(governor, asked=3600)
    assert await served(governor) - begun == pytest.approx(20, abs=0.1)


async def test_a_single_refusal_among_many_requests_holds_up_itself_alone() -> None:
    """Where a second's other requests are accepted, one that is refused for a second is tried again alone."""
    governor, begun = Governor(), now()
    submit = governor.turn("submit")

    async def one() -> float:
        with suppress(RateLimitError):
            async with submit:
                await asyncio.sleep(0.1)
                raise RateLimitError("try again")
        async with submit:
            return now() - begun

    async def other(number: int) -> float:
        await asyncio.sleep(number / 100)
        return await served(governor, seconds=0.1)

    alone, *others = await asyncio.gather(one(), *map(other, range(50)))
    assert alone == pytest.approx(1.1, abs=0.05)
    assert max(others) - begun == pytest.approx(0.49, abs=0.05)


async def test_a_refusal_that_asks_for_longer_holds_everybody_up_among_however_many() -> None:
    """One 429 that asks for 2 s makes everybody pause, also where hundreds of requests are accepted."""
    governor, begun = Governor(), now()

    async def other(number: int) -> float:
        await asyncio.sleep(number / 100)
        return await served(governor)

    others = [asyncio.create_task(other(number)) for number in range(300)]
    await asyncio.sleep(0.5)
    await refused(governor, asked=2)
    times = [await one - begun for one in others]
    assert not [time for time in times if 0.51 < time < 2.5]


async def test_hosts_have_limits_of_their_own() -> None:
    """A pause of one host, and its rate, says nothing of another."""
    governor, begun = Governor(requests_per_second=1, burst=1), now()
    await refused(governor, asked=60, host="upload.example.com")
    assert [await served(governor) - begun for _ in range(2)] == [pytest.approx(0, abs=0.1), pytest.approx(1, abs=0.1)]
    assert await served(governor, host="storage.example.com") - begun == pytest.approx(1, abs=0.1)
    assert await served(governor, host="upload.example.com") - begun == pytest.approx(60, abs=0.1)


async def test_room_is_waited_for_while_there_are_tasks_that_make_some() -> None:
    """A refused submit waits for room as long as an accepted task is in flight, and no longer."""
    governor = Governor()
    told = []
    async with governor.slot() as slot, governor.turn("submit", slot=slot):
        slot.accepted(TaskInfo(task_id="t", status=TaskStatus.PENDING))
    told.append(await is_told_to_wait(governor))
    governor.seen(TaskInfo(task_id="t", status=TaskStatus.COMPLETED))
    told.append(await is_told_to_wait(governor))
    assert told == [True, False]


async def is_told_to_wait(governor: Governor) -> bool:
    """Whether a submit that is refused should wait for room."""
    submit = governor.turn("submit")
    with suppress(RateLimitError):
        async with submit:
            raise RateLimitError("no room", retry_after=1)
    return submit.waits_for_room


def test_the_time_between_two_event_loops_counts() -> None:
    """What the first `asyncio.run` sent does not hold up the second when it comes later."""
    governor = Governor(requests_per_second=1, burst=1)

    async def send(count: int, *, rest: float) -> float:
        begun = now()
        times = await asyncio.gather(*(served(governor) for _ in range(count)))
        await asyncio.sleep(rest)
        return times[0] - begun

    run_in_virtual_time(send(5, rest=60))
    assert run_in_virtual_time(send(1, rest=0)) < 0.5


def test_what_was_learned_outlasts_the_event_loop() -> None:
    """The second `asyncio.run` begins with the rate, and the pause, that the first one learned."""
    governor = Governor()

    async def learn() -> None:
        await asyncio.gather(*(one(number) for number in range(100)))

    async def one(number: int) -> None:
        with suppress(RateLimitError):
            async with governor.turn():
                await asyncio.sleep(0.1)
                if number < 90:
                    raise RateLimitError("slow down", retry_after=10)

    async def use() -> list[float]:
        begun = now()
        times = await asyncio.gather(*(served(governor) for _ in range(101)))
        return [time - begun for time in times]

    run_in_virtual_time(learn())
    times = run_in_virtual_time(use())
    assert times[0] == pytest.approx(10, abs=0.5)
    assert times[-1] - times[0] == pytest.approx(100 / 50, abs=0.2)


def test_tasks_in_flight_outlast_the_event_loop() -> None:
    """A task that was accepted in one `asyncio.run` has its slot in the next, until it is seen to be over."""
    governor = Governor(max_in_flight=1)

    async def submit() -> None:
        async with governor.slot() as slot, governor.turn("submit", slot=slot):
            slot.accepted(TaskInfo(task_id="t", status=TaskStatus.PENDING))

    async def use() -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(Flight(governor).fly(1), 60)
        governor.seen(TaskInfo(task_id="t", status=TaskStatus.COMPLETED))
        await asyncio.wait_for(Flight(governor).fly(1), 60)

    run_in_virtual_time(submit())
    run_in_virtual_time(use())


# The account's own cap.


class Office:
    """Answers what the account may have, after a second."""

    def __init__(self, *told: int | PiAPIError | None) -> None:
        self.told = list(told)
        self.asked = 0

    async def ask(self) -> Account:
        """One question."""
        self.asked += 1
        await asyncio.sleep(1)
        told = self.told.pop(0)
        if isinstance(told, PiAPIError):
            raise told
        return Account(max_concurrent_tasks=told)


async def fly(governor: Governor, office: Office, log: EventLog) -> float:
    """Hold a place for ten seconds; when it was given."""
    async with governor.slot(ask=office.ask, announce=log):
        given_at = now()
        await asyncio.sleep(10)
    return given_at


async def test_the_account_is_asked_once() -> None:
    """A hundred that come at once ask once, and keep to the number; it is asked again after ten minutes."""
    governor, office, log, begun = Governor(max_in_flight="account"), Office(50, 25), EventLog(), now()
    times = await asyncio.gather(*(fly(governor, office, log) for _ in range(100)))
    assert Counter(round(time - begun) for time in times) == {1: 50, 11: 50}
    await fly(governor, office, log)
    assert (office.asked, [str(event) for event in log]) == (1, ["PiAPI seems to bear 50 tasks in flight"])
    await asyncio.sleep(600)
    begun = now()
    times = await asyncio.gather(*(fly(governor, office, log) for _ in range(50)))
    assert Counter(round(time - begun) for time in times) == {1: 25, 11: 25}
    assert repr(governor) == "<Governor at most 25 tasks in flight>"


async def test_a_cancelled_question_is_asked_by_the_next() -> None:
    """Whoever asks may be cancelled: the others are not, and the next of them asks."""
    governor, office, log = Governor(max_in_flight="account"), Office(2, 2), EventLog()
    flights = [asyncio.create_task(fly(governor, office, log)) for _ in range(5)]
    await asyncio.sleep(0.5)
    flights[0].cancel()
    await asyncio.gather(*flights, return_exceptions=True)
    assert office.asked == 2
    assert len(log) == 1


@pytest.mark.parametrize("told", [None, 0, PiAPIError("no answer")], ids=str)
async def test_an_account_that_does_not_say_is_no_cap(told: int | PiAPIError | None) -> None:
    """Without a number, or without an answer, there is no cap, and one event says so."""
    governor, office, log, begun = Governor(max_in_flight="account"), Office(told), EventLog(), now()
    times = await asyncio.gather(*(fly(governor, office, log) for _ in range(100)))
    assert {round(time - begun) for time in times} == {1}
    assert [str(event) for event in log] == ["no limit on tasks in flight is known"]


async def test_a_cap_that_was_known_stays_when_the_account_is_silent() -> None:
    """Asked again, an account that does not answer has the cap that it had."""
    governor, office = Governor(max_in_flight="account"), Office(5, PiAPIError("no answer"))
    await fly(governor, office, EventLog())
    await asyncio.sleep(600)
    log = EventLog()
    async with governor.slot(ask=office.ask):
        assert repr(governor) == "<Governor at most 5 tasks in flight>"
    assert log == []


# What it shows.


async def test_what_a_governor_shows() -> None:
    """The `repr` fits a line, and says what holds up whom."""
    assert repr(Governor()) == "<Governor no limits>"
    assert (
        repr(Governor(requests_per_second=20, max_in_flight=3)) == "<Governor 20 requests/s, at most 3 tasks in flight>"
    )
    governor = Governor(max_in_flight=1)
    governor.pause(30)
    async with governor.slot():
        waits = [asyncio.create_task(served(governor)) for _ in range(3)]
        waits.append(asyncio.create_task(Flight(governor).fly(1)))
        await asyncio.sleep(1)
        shown = "<Governor at most 1 tasks in flight, 1 waiting for a slot, 3 waiting, paused for 29.0 s>"
        assert repr(governor) == shown
    await asyncio.gather(*waits)
