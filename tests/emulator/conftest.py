"""Emulators to test, started and closed."""

from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
from support.rig import Api, HandClock, MakeApi

from piapi_async.emulator import Constant, Emulator


@pytest.fixture
async def make_api() -> AsyncIterator[MakeApi]:
    """Starts emulators on hand clocks, one second of queue and ten of work; closes them in the end."""
    apis: list[Api] = []

    async def make(seed: int = 0, **options: Any) -> Api:
        clock = HandClock()
        usual = {"durations": Constant(10.0), "queue_delay": Constant(1.0), "max_pixels": 4000}
        emulator = Emulator(seed, clock=clock, **{**usual, **options})
        await emulator.start()
        apis.append(Api(emulator, clock, aiohttp.ClientSession()))
        return apis[-1]

    yield make
    for api in apis:
        await api.http.close()
        await api.emulator.aclose()


@pytest.fixture
async def api(make_api: MakeApi) -> Api:
    """One emulator with the usual settings."""
    return await make_api()
