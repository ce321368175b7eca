"""A local server that behaves, and misbehaves, like PiAPI: no key, no money, no network.

    async with Emulator() as emulator:
        session = Session(emulator.api_key, base_url=emulator.url)

It is written from PiAPI's documentation. Where that is silent or contradicts itself, `Options` has a switch, or
a choice was made:

- An image that is neither a link nor a base64 picture is accepted; its task fails.
- A link to this machine is fetched when the picture is first downloaded, with a bound on size and time and without
  following redirects; one link is taken to be one picture. No other machine is ever contacted.
- Pictures are made by Pillow, in a thread, and depend on every field of the request; they are marked "emulated".
- A batch has all its links in `image_urls`, and an empty `image_url`.
- `usage.consume` shows the price from the beginning on, as in PiAPI's examples, and 0 for a task that failed or was
  canceled; `Emulator.charges` tells what was really taken.
- A create that cannot be paid is refused with 402, a task that is not pending any more refuses to be canceled with 400.
- The preprocessed control image is not returned: where it would be is not documented.

`piapi_async.emulator.faults` tells what can go wrong on purpose, `piapi_async.emulator.durations` how long tasks take.
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
