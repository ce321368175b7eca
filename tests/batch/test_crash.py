"""A batch in a process of its own, killed and started again: a small run of `benchmarks/crash.py`."""

import random
import runpy
from pathlib import Path

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "crash.py"


def test_a_killed_batch_pays_for_nothing_twice_and_loses_nothing() -> None:
    """Killed after the permission to pay, before the id is on disk, at random: what was charged is on disk, once."""
    crash = runpy.run_path(str(BENCHMARK))
    with crash["trial"]("small", jobs=8, chaos=0.0) as one:
        assert not one.end(one.start(act="accepted", nth=2, when="before"))
        assert not one.end(one.start(act="finished", nth=1, when="after"))
        one.end(one.start(act="send", nth=1, when="after"))
        one.killed_at_random(kills=one.kills + 1, rng=random.Random(0), longest=0.3)
