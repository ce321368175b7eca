"""A local server that behaves, and misbehaves, like PiAPI: no key, no money, no network.

    async with Emulator() as emulator:
        session = Session(emulator.api_key, base_url=emulator.url)

It is written from PiAPI's documentation: the task endpoints with all Flux task types, the account's endpoints, the
history, uploads and webhooks. Where that is silent or contradicts itself, `Options` has a switch, its default first, or
a choice was made:

- An image that is neither a link nor a base64 picture is accepted; its task fails.
- A link to this machine is fetched when the picture is first downloaded, with a bound on size and time and without
  following redirects; one link is taken to be one picture. Webhooks are sent to this machine only, and in order for
  each task. No other machine is ever contacted; `Emulator.deliveries` shows what would have been sent there.
- Pictures are made by Pillow, in a thread, and depend on every field of the request; they are marked "emulated".
- A batch has all its links in `image_urls`, and an empty `image_url`.
- `usage.consume` of a task that failed or was canceled is what it cost; `Emulator.charges` tells what was really taken.
- A size of 1024 is taken where txt2img or kontext is not told one. What outpainting adds is checked as far as it can be
  told before the image is there.
- Uploads and results are served on the emulator's own host, under `/ephemeral/` and `/temp/`.
- A canceled task counts as failed in the history.

`piapi_async.emulator.faults` tells what can go wrong on purpose, `piapi_async.emulator.durations` how long tasks take,
`piapi_async.emulator.check` what can be asserted afterwards. Options change while it runs by `Emulator.set`, and all of
it can be reached over HTTP under `/_emulator/`, from this machine only; `_http.admin` has the list.
"""

from typing import TYPE_CHECKING

from piapi_async._renamed import renamed
from piapi_async.emulator._server import Emulator
from piapi_async.emulator.check import Check
from piapi_async.emulator.durations import Constant, LogNormal, Uniform
from piapi_async.emulator.faults import Fault, Faults, Outage
from piapi_async.emulator.options import Options
from piapi_async.emulator.records import Charge, Delivery, RequestRecord, TaskView

__all__ = [
    "Charge",
    "Check",
    "Constant",
    "Delivery",
    "Emulator",
    "Fault",
    "Faults",
    "LogNormal",
    "Options",
    "Outage",
    "RequestRecord",
    "TaskView",
    "Uniform",
]

if not TYPE_CHECKING:
    __getattr__ = renamed(__name__, {"Spell": "Outage"})
