"""Estimates before, and dollars after: points are whole, and the table is the reader's to change."""

import math
from typing import Any

import pytest

from piapi_async import Img2Img, TaskRequest, Usage, flux
from piapi_async.errors import ConfigurationError
from piapi_async.prices import POINTS_PER_USD, PRICES, PriceList

URL = "https://example.com/a.jpg"


@pytest.mark.parametrize(
    ("request_", "usd"),
    [
        (Img2Img(prompt="a", image=URL), 0.0015),
        (Img2Img(prompt="a", image=URL, batch_size=4), 0.006),
        (flux.Txt2Img(prompt="a", model=flux.DEV), 0.015),
        (flux.Kontext(prompt="a", image=URL), 0.02),
        (TaskRequest(model=flux.SCHNELL, task_type="txt2img", input={"batch_size": 3}), 0.0045),
        (TaskRequest(model=flux.SCHNELL, task_type="txt2img", input={"batch_size": 2.5}), 0.0045),
        (TaskRequest(model=flux.SCHNELL, task_type="txt2img", input={"batch_size": -3}), 0.0015),
        (TaskRequest(model=flux.SCHNELL, task_type="txt2img", input={"batch_size": math.nan}), 0.0015),
        (TaskRequest(model=flux.SCHNELL, task_type="txt2img", input={"batch_size": "3"}), 0.0015),
        (TaskRequest(model=flux.SCHNELL, task_type="txt2img", input={"batch_size": 10**400}), 1e8),
        (TaskRequest(model=flux.SCHNELL, task_type="txt2img", input={"batch_size": 1e300}), 1e8),
    ],
)
def test_a_request_tells_what_it_will_cost(request_: Any, usd: float) -> None:
    """PiAPI's price of the model for each picture ordered; nonsense for a number of pictures counts as one."""
    assert request_.estimate() == usd


def test_points_are_whole_although_dollars_are_not() -> None:
    """$0.0015, $0.015 and $0.02 are the 15000, 150000 and 200000 points of the documented examples."""
    requests = [TaskRequest(model=model, task_type="txt2img", input={}) for model in PRICES.usd_per_image]
    assert [PRICES.points(request) for request in requests] == [15_000, 150_000, 200_000]
    assert POINTS_PER_USD == 10_000_000


def test_a_model_without_a_price_is_said_with_the_way_out() -> None:
    """The sentence names the model; with a price of one's own it is estimated."""
    request = TaskRequest(model="kling", task_type="video", input={})
    with pytest.raises(
        ConfigurationError, match=r"^no price is known for model 'kling'; give one with PRICES.override"
    ):
        request.estimate()
    prices = PRICES.override({"kling": 0.3})
    assert request.estimate(prices=prices) == 0.3
    assert Img2Img(prompt="a", image=URL).estimate(prices=prices) == 0.0015
    assert prices.as_of == PRICES.as_of
    assert "kling" not in PRICES.usd_per_image


@pytest.mark.parametrize("price", [-1, math.nan, math.inf, True, "0.1", None])
def test_a_price_is_a_number_that_can_be_paid(price: Any) -> None:
    """Refused when the table is made, with the model's name."""
    with pytest.raises((TypeError, ValueError), match=r"price of 'm' must be US dollars >= 0"):
        PRICES.override({"m": price})


@pytest.mark.parametrize("price", [1e300, 1.7e308, 10**400])
def test_an_absurd_price_is_a_number_that_sums_bear(price: float) -> None:
    """Whatever the table says, an estimate is at most 100,000,000 USD, and nothing overflows."""
    request = TaskRequest(model="m", task_type="txt2img", input={"batch_size": 4})
    assert request.estimate(prices=PRICES.override({"m": price})) == 1e8


def test_a_table_is_a_mapping() -> None:
    """A list of prices is refused."""
    with pytest.raises(TypeError, match="usd_per_image must be a mapping of model to US dollars"):
        PriceList(as_of=PRICES.as_of, usd_per_image=[0.1])  # type: ignore[arg-type]


def test_usage_in_dollars() -> None:
    """The kontext example of PiAPI's page: 200000 points, $0.02."""
    assert Usage(type="llm", consume=200_000).usd == 0.02
