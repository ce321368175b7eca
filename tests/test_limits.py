"""`Governor`: one gate for everybody, and a cap on tasks in flight."""

import asyncio
import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from piapi_async import Governor
from piapi_async._clock import Clock
from piapi_async.errors import RateLimitError
from piapi_async.limits import PAUSE_UNSAID
from piapi_async.testing import run_in_virtual_time

CLOCK = Clock()


def now() -> float:
    """The loop's time."""
    return asyncio.get_running_loop().time()


async def passed(governor: Governor, *, begun: float) -> int:
    """Pass the gate, and tell at which second."""
    await governor.ready(clock=CLOCK)
    return round(now() - begun)


# The gate.


async def test_the_gate_is_open_at_first() -> None:
    """Without a pause nobody waits."""
    assert await passed(Governor(), begun=now()) == 0


async def test_a_pause_holds_everybody_up() -> None:
    """One pause stops all that come, until it is over, however late they come; then the gate is open."""
    governor, begun = Governor(), now()
    governor.pause(30, clock=CLOCK)
    first = [asyncio.create_task(passed(governor, begun=begun)) for _ in range(50)]
    await asyncio.sleep(20)
    later = [asyncio.create_task(passed(governor, begun=begun)) for _ in range(50)]
    assert await asyncio.gather(*first, *later) == [30] * 100
    assert await passed(governor, begun=begun) == 30


@pytest.mark.parametrize(("first", "second"), [(30, 5), (5, 30), (30, None), (30, 0)])
async def test_the_longer_pause_stays(first: float, second: float | None) -> None:
    """Of two pauses the one that ends later counts, for those who wait already and for those who come later."""
    governor, begun = Governor(), now()
    governor.pause(first, clock=CLOCK)
    waiting = asyncio.create_task(passed(governor, begun=begun))
    await asyncio.sleep(1)
    governor.pause(second, clock=CLOCK)
    late = asyncio.create_task(passed(governor, begun=begun))
    expected = max(first, 1 + (PAUSE_UNSAID if second is None else second))
    assert set(await asyncio.gather(waiting, late)) == {expected}
    assert await passed(governor, begun=begun) == expected


async def test_a_pause_that_does_not_say_how_long() -> None:
    """A 429 without a time closes the gate for `PAUSE_UNSAID`; one with 0 does not close it."""
    governor, begun = Governor(), now()
    governor.pause(0, clock=CLOCK)
    assert await passed(governor, begun=begun) == 0
    governor.pause(None, clock=CLOCK)
    assert await passed(governor, begun=begun) == PAUSE_UNSAID == 1


async def test_a_gate_that_stays_closed_too_long_is_an_error_at_once() -> None:
    """Who has less patience than the gate stays closed is told at once how long it is; who has more waits."""
    governor, begun = Governor(), now()
    governor.pause(30, clock=CLOCK)
    with pytest.raises(RateLimitError, match=r"^PiAPI asked for a pause that lasts 30 s more$") as caught:
        await governor.ready(clock=CLOCK, patience=29)
    assert caught.value.retry_after == pytest.approx(30, abs=0.5)
    assert caught.value.safe_to_resubmit is True
    assert now() - begun < 0.5
    await governor.ready(clock=CLOCK, patience=30)
    assert now() - begun == pytest.approx(30, abs=0.5)


async def test_a_pause_that_grows_beyond_the_patience_ends_the_waiting() -> None:
    """Who waits already is told when the gate, instead of opening, closes for longer than the patience."""
    governor, begun = Governor(), now()
    governor.pause(10, clock=CLOCK)
    waiting = asyncio.create_task(governor.ready(clock=CLOCK, patience=20))
    await asyncio.sleep(5)
    governor.pause(100, clock=CLOCK)
    with pytest.raises(RateLimitError):
        await waiting
    assert now() - begun == pytest.approx(10, abs=0.5)


async def test_waiting_at_the_gate_can_be_cancelled() -> None:
    """Who is cancelled at the gate leaves at once."""
    governor, begun = Governor(), now()
    governor.pause(3600, clock=CLOCK)
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
            await asyncio.sleep(random.random())

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


def test_what_a_governor_shows() -> None:
    """The `repr` holds the one number that was set."""
    governors: list[Any] = [Governor(), Governor(max_in_flight=3)]
    assert list(map(repr, governors)) == ["Governor(max_in_flight=None)", "Governor(max_in_flight=3)"]
