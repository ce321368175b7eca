"""How long emulated tasks take."""

import random
import statistics

import pytest

from piapi_async.emulator.durations import USUAL, Constant, LogNormal, Uniform, duration_for

SCHNELL = "Qubico/flux1-schnell"


def test_constant_is_always_the_same() -> None:
    """Constant uses no randomness."""
    rng = random.Random(1)
    before = rng.getstate()
    assert Constant(2.5)(rng) == 2.5
    assert rng.getstate() == before


def test_uniform_stays_within_its_bounds() -> None:
    """Draws lie between low and high and fill the range."""
    draws = [Uniform(2.0, 4.0)(random.Random(i)) for i in range(300)]
    assert 2.0 <= min(draws) < 2.2
    assert 3.8 < max(draws) <= 4.0


def test_log_normal_has_the_median_it_was_given() -> None:
    """Half of the draws are below the median, two thirds within a factor exp(sigma) of it."""
    draws = [LogNormal(4.0, 0.5)(random.Random(i)) for i in range(2000)]
    assert statistics.median(draws) == pytest.approx(4.0, rel=0.05)
    within = sum(4.0 / 1.6487 <= draw <= 4.0 * 1.6487 for draw in draws)
    assert within / len(draws) == pytest.approx(0.683, abs=0.03)


def test_bounds_may_be_equal() -> None:
    """A range of one value is a range."""
    assert Uniform(2.0, 2.0)(random.Random(1)) == 2.0


def test_usual_durations_follow_the_evidence() -> None:
    """5 (T): schnell takes 3 to 6 s; the slower models take longer, one after the other."""
    draws = [USUAL[SCHNELL](random.Random(i)) for i in range(500)]
    assert sum(3 <= draw <= 6 for draw in draws) > 400
    medians = [statistics.median(each(random.Random(i)) for i in range(200)) for each in USUAL.values()]
    assert medians == sorted(medians)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Constant(-1.0),
        lambda: Uniform(-1.0, 2.0),
        lambda: Uniform(3.0, 2.0),
        lambda: LogNormal(0.0, 1.0),
        lambda: LogNormal(1.0, -0.1),
    ],
)
def test_impossible_durations_are_refused(make: object) -> None:
    """Negative times, bounds in the wrong order and a median of zero are mistakes."""
    assert callable(make)
    with pytest.raises(ValueError, match=r"must be|less than low"):
        make()


def test_the_most_special_entry_counts() -> None:
    """(model, task_type) beats model, model beats the usual duration, one callable stands for all."""
    durations = {SCHNELL: Constant(1.0), (SCHNELL, "img2img"): Constant(2.0)}
    assert duration_for(durations, model=SCHNELL, task_type="img2img") == Constant(2.0)
    assert duration_for(durations, model=SCHNELL, task_type="other") == Constant(1.0)
    assert duration_for({}, model=SCHNELL, task_type="img2img") is USUAL[SCHNELL]
    assert duration_for(Constant(3.0), model="any", task_type="any") == Constant(3.0)
