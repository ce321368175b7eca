"""How long emulated tasks take.

A duration is anything that turns a `random.Random` into seconds. The three classes here print well and are enough for
most tests; a plain function does as well.
"""

import math
import random
from collections.abc import Callable, Mapping

import attrs
from attrs import validators

Duration = Callable[[random.Random], float]
"""Draws a number of seconds from the given source of randomness."""

DurationKey = str | tuple[str, str]
"""A model, or a (model, task_type)."""

_not_negative = validators.ge(0)


@attrs.frozen
class Constant:
    """Always the same.

    Args:
        seconds: 0 or more.
    """

    seconds: float = attrs.field(validator=_not_negative)

    def __call__(self, _rng: random.Random) -> float:
        """The seconds; no randomness is used."""
        return self.seconds


def _not_below_low(uniform: "Uniform", _attribute: object, high: float) -> None:
    if high < uniform.low:
        raise ValueError(f"high is {high}, less than low, which is {uniform.low}")


@attrs.frozen
class Uniform:
    """Anything between two bounds, all equally likely.

    Args:
        low: The least, in seconds, 0 or more.

        high: The most, in seconds, not less than *low*.
    """

    low: float = attrs.field(validator=_not_negative)
    high: float = attrs.field(validator=_not_below_low)

    def __call__(self, rng: random.Random) -> float:
        """One draw, in seconds."""
        return rng.uniform(self.low, self.high)


@attrs.frozen
class LogNormal:
    """Mostly near the median, now and then much longer, as machines shared with others are.

    Args:
        median: Half of the draws are below it; seconds, more than 0.

        sigma: Spread of the logarithm, 0 or more; two thirds of the draws lie between `median / exp(sigma)` and
            `median * exp(sigma)`.
    """

    median: float = attrs.field(validator=validators.gt(0))
    sigma: float = attrs.field(validator=_not_negative)

    def __call__(self, rng: random.Random) -> float:
        """One draw, in seconds."""
        return rng.lognormvariate(math.log(self.median), self.sigma)


USUAL: Mapping[DurationKey, Duration] = {
    "Qubico/flux1-schnell": LogNormal(median=4.0, sigma=0.25),
    "Qubico/flux1-dev": LogNormal(median=9.0, sigma=0.25),
    "Qubico/flux1-dev-advanced": LogNormal(median=14.0, sigma=0.3),
}
"""Work time by model. PiAPI publishes none for img2img: schnell follows third-party notes (3 to 6 s), dev and
dev-advanced lie between those and the 31 s of the documented kontext example."""

USUAL_QUEUE: Duration = LogNormal(median=1.0, sigma=0.3)
"""Time between acceptance and start: 1.2 s in the documented kontext example."""


def duration_for(durations: Duration | Mapping[DurationKey, Duration], *, model: str, task_type: str) -> Duration:
    """The entry for (model, task_type), else for the model, else the usual one."""
    if callable(durations):
        return durations
    for key in ((model, task_type), model):
        if key in durations:
            return durations[key]
    return USUAL[model]
