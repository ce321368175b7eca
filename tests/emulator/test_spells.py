"""Faults by chance and for a time: `always`, `often` and chaos."""

from collections import Counter
from typing import Any

import aiohttp
import pytest
from support.rig import Api, MakeApi, img2img

from piapi_async.emulator import Faults
from piapi_async.emulator.faults import CHAOS, ENDPOINTS, KINDS


def names(faults: Faults, *, endpoint: str, times: int) -> list[str | None]:
    """What so many requests of an endpoint suffer."""
    taken = [faults.take(endpoint) for _ in range(times)]
    return [fault and fault.name for fault in taken]


def test_a_spell_lasts_as_long_as_its_block() -> None:
    """Every request inside suffers, none before and none behind, and none of another endpoint."""
    faults = Faults()
    with faults.always("get", "503"):
        assert names(faults, endpoint="get", times=3) == ["503"] * 3
        assert names(faults, endpoint="create", times=1) == [None]
    assert names(faults, endpoint="get", times=1) == [None]


def test_the_inner_spell_counts_and_the_script_goes_before_both() -> None:
    """The latest thing said is the most special one; `next` is more special still."""
    faults = Faults()
    with faults.always("get", "503"), faults.always("get", "html"):
        faults.next("get", "empty")
        assert names(faults, endpoint="get", times=2) == ["empty", "html"]
    assert names(faults, endpoint="get", times=1) == [None]


def test_a_spell_without_a_block_lasts_until_its_end() -> None:
    """`end` may be called twice, and after `clear`."""
    faults = Faults()
    spell = faults.always("get", "429", retry_after=None)
    taken = faults.take("get")
    assert taken is not None
    assert taken.options["retry_after"] is None
    faults.clear()
    spell.end()
    assert names(faults, endpoint="get", times=1) == [None]


def test_often_is_as_often_as_it_says() -> None:
    """A third of a thousand, more or less; the others are well."""
    taken = Counter(names(Faults(seed=1), endpoint="get", times=1000))
    assert taken == {None: 1000}
    faults = Faults(seed=1)
    with faults.often("get", "503", probability=1 / 3):
        taken = Counter(names(faults, endpoint="get", times=1000))
    assert 290 < taken["503"] < 380
    assert taken.keys() == {"503", None}


@pytest.mark.parametrize("probability", [-0.1, 1.1])
def test_what_is_no_probability_is_refused(probability: float) -> None:
    """Between 0 and 1."""
    with pytest.raises(ValueError, match=f"probability is {probability}, it must lie between 0 and 1"):
        Faults().often("get", "503", probability=probability)


def chaotic(seed: int = 0, probability: float = 0.2) -> Faults:
    """Faults with nothing but chaos."""
    return Faults(seed, chaos=lambda: probability)


def test_chaos_depends_on_seed_endpoint_and_number_alone() -> None:
    """The same seed gives the same faults, another seed others; endpoints do not disturb each other."""
    calm, busy = chaotic(), chaotic()
    expected = names(calm, endpoint="get", times=200)
    found = []
    for _ in range(200):
        found += names(busy, endpoint="get", times=1)
        names(busy, endpoint="create", times=3)
    assert found == expected
    assert names(chaotic(1), endpoint="get", times=200) != expected


def test_a_scripted_fault_does_not_shift_chaos() -> None:
    """It stands in for one request, and the next one suffers what it would have suffered without."""
    scripted, plain = chaotic(), chaotic()
    scripted.next("get", "stall", times=3)
    expected = names(plain, endpoint="get", times=100)
    assert names(scripted, endpoint="get", times=100) == ["stall"] * 3 + expected[3:]


def test_chaos_is_as_frequent_as_it_says_and_knows_many_faults() -> None:
    """A fifth of the requests suffer, from all that may be drawn."""
    for endpoint in ENDPOINTS:
        taken = names(chaotic(), endpoint=endpoint, times=5000)
        assert 900 < sum(name is not None for name in taken) < 1100
        assert set(taken) - {None} == {fault.name for fault in CHAOS[endpoint]}


def test_chaos_keeps_no_client_waiting_for_ever_and_tells_no_lies() -> None:
    """The faults without a star in the documentation are not drawn; a task may fail, but not stall."""
    drawn = {fault.name for faults in CHAOS.values() for fault in faults}
    assert set(KINDS) - drawn == {"404", "redirect-away", "stall", "task-stalls", "expired", "redirect", "oversized"}
    assert all(fault.options.get("seconds", 0) <= 3600 for faults in CHAOS.values() for fault in faults)
    assert {f.options["retry_after"] for f in CHAOS["get"] if f.name == "429"} == {1, "date", None}


async def test_chaos_is_an_option_that_can_change(make_api: MakeApi) -> None:
    """At 1 every request suffers, at 0 none; a path that PiAPI does not have never does."""
    api = await make_api(chaos=1.0)
    await api.send("GET", "/nowhere")
    for _ in range(30):
        await attempt(api)
    assert [record.fault for record in api.emulator.requests].count(None) == 1
    api.emulator.set(chaos=0.0)
    await api.create()
    assert api.emulator.requests[-1].fault is None


async def test_the_same_seed_gives_the_same_chaos(make_api: MakeApi) -> None:
    """Two emulators, request by request."""
    one, other = await make_api(7, chaos=0.3), await make_api(7, chaos=0.3)
    for api in (one, other):
        for _ in range(60):
            await attempt(api)
    faults = [[record.fault for record in api.emulator.requests] for api in (one, other)]
    assert faults[0] == faults[1]
    assert len(set(faults[0])) > 5


async def attempt(api: Api) -> Any:
    """One create, whatever becomes of it."""
    try:
        return await api.send("POST", "/api/v1/task", json=img2img())
    except (aiohttp.ClientError, ValueError):
        return None


def test_what_is_planned_can_be_shown() -> None:
    """The script and the spells, as a page shows them."""
    faults = Faults()
    faults.next("create", "html")
    faults.often("get", "503", probability=0.5)
    assert faults.planned() == [
        {"endpoint": "create", "name": "html", "probability": None},
        {"endpoint": "get", "name": "503", "probability": 0.5},
    ]
    assert repr(faults) == "<Faults next={'create': ['html']}, spells=['503']>"
