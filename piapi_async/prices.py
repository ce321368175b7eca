"""What tasks cost: a dated table, for estimates. What a task did cost is in `TaskInfo.usage`.

Prices change, so every table can be overridden:

    prices = PRICES.override({"Qubico/flux1-schnell": 0.002, "vendor/other-model": 0.05})
    request.estimate(prices=prices)
"""

import datetime as dt
import math
from collections.abc import Mapping
from decimal import Decimal
from typing import TYPE_CHECKING

import attrs

from piapi_async import _media, _validators, errors

if TYPE_CHECKING:
    from piapi_async.task import Submittable

POINTS_PER_USD = 10_000_000
"""Points that make a US dollar: measured by others and in agreement with the documented examples, not documented."""

MAX_POINTS = 10**15
"""The most that one task counts for, 100,000,000 USD: sums of absurd numbers stay numbers that can be stored."""


def dollars(points: int) -> str:
    """Points as US dollars for people, to the hundredth of a cent; any number a server may send has its text."""
    return f"{Decimal(points) / POINTS_PER_USD:,.4f}"


def _check_prices(_instance: object, _attribute: object, value: object) -> None:
    if not isinstance(value, Mapping):
        raise _validators.refuse(
            TypeError, name="usd_per_image", allowed="a mapping of model to US dollars", value=value
        )
    for model, given in value.items():
        usd = _media.python_scalar(given)
        if isinstance(usd, bool) or not isinstance(usd, int | float):
            raise _validators.refuse(TypeError, name=f"price of {model!r}", allowed="US dollars >= 0", value=usd)
        if not 0 <= usd < math.inf:
            raise _validators.refuse(ValueError, name=f"price of {model!r}", allowed="US dollars >= 0", value=usd)


@attrs.frozen(kw_only=True)
class PriceList:
    """Prices of a day.

    Args:
        as_of: The day.

        usd_per_image: US dollars for each picture, by model.

    Raises:
        TypeError: A price is not a number.
        ValueError: A price is negative or not finite.
    """

    as_of: dt.date
    usd_per_image: Mapping[str, float] = attrs.field(validator=_check_prices, hash=False)
    _points_per_image: Mapping[str, int] = attrs.field(init=False, eq=False, repr=False)

    def __attrs_post_init__(self) -> None:
        # Here and once: whatever asyncio task first divides by `Decimal` keeps a context of 400 bytes for it. It is the
        # decimal number that was written, not the binary one next to it, which may be a hair more.
        points = {model: math.ceil(Decimal(str(usd)) * POINTS_PER_USD) for model, usd in self.usd_per_image.items()}
        object.__setattr__(self, "_points_per_image", points)

    def override(self, usd_per_image: Mapping[str, float], *, as_of: dt.date | None = None) -> "PriceList":
        """The same prices but for these."""
        _check_prices(None, None, usd_per_image)
        return PriceList(as_of=as_of or self.as_of, usd_per_image={**self.usd_per_image, **usd_per_image})

    def points(self, request: "Submittable") -> int | None:
        """What a request is expected to cost, in points; `None` when there is no price for its model."""
        points = self._points_per_image.get(request.model)
        return None if points is None else min(points * _images(request), MAX_POINTS)

    def estimate(self, request: "Submittable") -> float:
        """What a request is expected to cost, in US dollars.

        Raises:
            ConfigurationError: There is no price for its model.
        """
        points = self.points(request)
        if points is None:
            raise errors.ConfigurationError(
                f"no price is known for model {request.model!r}; give one with PRICES.override({{model: usd}})"
            )
        return points / POINTS_PER_USD


def _images(request: "Submittable") -> int:
    """How many pictures are ordered: each is charged (https://piapi.ai/docs/flux-api/image-to-image)."""
    count = request.input.get("batch_size")
    if isinstance(count, float) and math.isfinite(count):
        count = math.ceil(count)
    return max(1, count) if isinstance(count, int) else 1


PRICES = PriceList(
    as_of=dt.date(2026, 9, 22),
    usd_per_image={
        "Qubico/flux1-schnell": 0.0015,
        "Qubico/flux1-dev": 0.015,
        "Qubico/flux1-dev-advanced": 0.02,
    },
)
"""PiAPI's prices for Flux (https://piapi.ai/flux-api and its blog), as PiAPI checked them on that day."""
