"""A local server that behaves, and misbehaves, like PiAPI: no key, no money, no network.

    async with Emulator() as emulator:
        session = Session(emulator.api_key, base_url=emulator.url)

Everything it does is written from PiAPI's documentation; where that is silent, `Options` chooses. `faults` tells what
can go wrong on purpose, `durations` how long tasks take.
"""

from piapi_async.emulator._server import Emulator
from piapi_async.emulator.durations import Constant, LogNormal, Uniform
from piapi_async.emulator.faults import Fault, Faults
from piapi_async.emulator.options import Options
from piapi_async.emulator.records import Charge, RequestRecord, TaskView

__all__ = [
    "Charge",
    "Constant",
    "Emulator",
    "Fault",
    "Faults",
    "LogNormal",
    "Options",
    "RequestRecord",
    "TaskView",
    "Uniform",
]
