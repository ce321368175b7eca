"""State for each event loop, work that outlasts a cancel, and the clock."""

import asyncio
import gc
import time
import weakref

import anyio
import pytest

from piapi_async._asyncio import Clock, PerLoop, chance, outlast, to_the_end
from piapi_async.testing import run_in_virtual_time


async def work(seconds: float, *, stubborn: float = 0.0) -> str:
    """Take some seconds, and some more before giving in to a cancel."""
    try:
        await asyncio.sleep(seconds)
    except asyncio.CancelledError:
        await asyncio.sleep(stubborn)
        raise
    return "done"


def now() -> float:
    """The loop's time."""
    return asyncio.get_running_loop().time()


async def test_one_value_for_a_loop() -> None:
    """Within a loop the value is made once, when first asked for."""
    numbers = iter(range(9))
    values = PerLoop(lambda: next(numbers))
    assert [values.get(), values.get()] == [0, 0]
    assert next(numbers) == 1


def test_another_value_for_another_loop() -> None:
    """A second run gets a value of its own, and the value of the closed loop is let go."""
    values = PerLoop(asyncio.Lock)

    async def get() -> "weakref.ref[asyncio.Lock]":
        return weakref.ref(values.get())

    first = run_in_virtual_time(get())
    assert first() is not None
    second = run_in_virtual_time(get())
    gc.collect()
    assert first() is None
    assert second() is not None


def test_two_loops_at_the_same_time_keep_their_values() -> None:
    """While both loops are open each finds its own value again."""
    values = PerLoop(asyncio.Lock)

    async def get() -> asyncio.Lock:
        return values.get()

    with asyncio.Runner() as one, asyncio.Runner() as other:
        first, second = one.run(get()), other.run(get())
        assert first is not second
        assert one.run(get()) is first
        assert other.run(get()) is second


def test_there_is_no_value_without_a_loop() -> None:
    """Outside a loop there is nothing to ask for."""
    with pytest.raises(RuntimeError, match="no running event loop"):
        PerLoop(object).get()


async def test_work_that_ends_in_time_is_waited_for() -> None:
    """The task's end is the end of waiting, and its result stays in it."""
    begun, task = now(), asyncio.create_task(work(3))
    await outlast(task, seconds=10)
    assert task.result() == "done"
    assert now() - begun == pytest.approx(3, abs=0.2)


async def test_work_that_fails_keeps_its_error() -> None:
    """What the task met is not raised here."""

    async def fail() -> None:
        raise ValueError("x")

    task = asyncio.create_task(fail())
    await outlast(task, seconds=10)
    assert isinstance(task.exception(), ValueError)


@pytest.mark.parametrize("seconds", [0.0, 5.0])
async def test_work_that_takes_too_long_is_cancelled(seconds: float) -> None:
    """When the time is up the task is cancelled, at once when there is none."""
    begun, task = now(), asyncio.create_task(work(1000))
    await outlast(task, seconds=seconds)
    assert task.cancelled()
    assert now() - begun == pytest.approx(seconds, abs=0.2)


async def test_work_that_resists_is_left_after_a_second() -> None:
    """A task that does not give in is left behind cancelled, so that waiting stays bounded."""
    begun, task = now(), asyncio.create_task(work(1000, stubborn=30))
    await outlast(task, seconds=5)
    assert not task.done()
    assert task.cancelling() == 1
    assert now() - begun == pytest.approx(5 if task.cancelled() else 6, abs=0.2)
    await asyncio.gather(task, return_exceptions=True)


@pytest.mark.parametrize("cancels", [[1], [1, 2, 4], [5.5], [1, 5.5]])
async def test_being_cancelled_again_does_not_break_the_waiting(cancels: list[float]) -> None:
    """Further cancels, also at the very end, change neither what becomes of the task nor when waiting ends."""
    begun, task = now(), asyncio.create_task(work(1000, stubborn=0.6))
    waiting = asyncio.create_task(outlast(task, seconds=5))
    for moment in cancels:
        await asyncio.sleep(begun + moment - now())
        waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    assert not waiting.cancelled()
    assert now() - begun == pytest.approx(5.6, abs=0.2)
    await asyncio.gather(task, return_exceptions=True)
    assert task.cancelled()


@pytest.mark.real_time
@pytest.mark.parametrize("way", ["outlast", "break off", "to the end"])
async def test_a_scope_of_anyio_does_not_cancel_in_each_turn_of_the_loop(way: str) -> None:
    """The scope cancels what is in it in each turn, which keeps the processor busy; it does not while this waits.

    A cancel of asyncio's own comes through, and the scope has the last word.
    """
    task = asyncio.create_task(work(1000, stubborn=0.2) if way == "break off" else work(0.2))
    cancels = 0

    async def wait() -> None:
        nonlocal cancels
        waiting = asyncio.current_task()
        assert waiting is not None
        with anyio.CancelScope() as scope:
            scope.cancel()
            try:
                await asyncio.sleep(10)
            except asyncio.CancelledError:
                before = waiting.cancelling()
                if way != "break off":  # which is cut short by it
                    asyncio.get_running_loop().call_later(0.1, waiting.cancel)
                try:
                    await (to_the_end(task) if way == "to the end" else outlast(task, seconds=10 * (way == "outlast")))
                finally:
                    cancels = waiting.cancelling() - before
                raise

    await asyncio.gather(asyncio.create_task(wait()), return_exceptions=True)
    assert task.done()
    assert cancels == (way != "break off")


@pytest.mark.real_time
async def test_the_clock_is_the_machine_s_on_an_ordinary_loop() -> None:
    """On a loop like any other, `now` is `time.time` and `monotonic` the loop's."""
    clock = Clock()
    assert clock.now() == pytest.approx(time.time(), abs=0.1)
    assert clock.monotonic() == pytest.approx(time.monotonic(), abs=0.1)


async def test_the_clock_follows_virtual_time() -> None:
    """An hour of the loop's time is an hour on both readings of the clock."""
    clock = Clock()
    before = clock.now(), clock.monotonic()
    await clock.sleep(3600)
    assert clock.now() - before[0] == pytest.approx(3600, abs=1)
    assert clock.monotonic() - before[1] == pytest.approx(3600, abs=1)


@pytest.mark.parametrize("seconds", [0, -1, -1e9])
async def test_a_sleep_of_no_time_ends_at_once(seconds: float) -> None:
    """A time that is over is not slept for, and others get their turn meanwhile."""
    turn = asyncio.create_task(asyncio.sleep(0, "their turn"))
    begun = now()
    await Clock().sleep(seconds)
    await asyncio.sleep(0)
    assert turn.done()
    assert now() - begun < 0.2


def test_chance_is_between_zero_and_one() -> None:
    """The random numbers fill the range from 0 to below 1."""
    numbers = [chance() for _ in range(1000)]
    assert 0 <= min(numbers) < 0.1
    assert 0.9 < max(numbers) < 1
