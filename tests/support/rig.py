"""A clock that is moved by hand, and a plain HTTP client: what the tests of the emulator look at it with."""

import base64
import io
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp
import attrs
from PIL import Image

from piapi_async._asyncio import Clock
from piapi_async.emulator import Emulator


class HandClock(Clock):
    """Time passes when the test says so; whoever sleeps moves it along."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def monotonic(self) -> float:
        """What the test has set."""
        return self.seconds

    def now(self) -> float:
        """The same, from the date of the documented example on."""
        return 1_727_250_008.0 + self.seconds

    async def sleep(self, seconds: float) -> None:
        """Do not wait."""
        self.seconds += seconds


@attrs.frozen
class Reply:
    """What came back, read to its end."""

    status: int
    headers: Any
    body: bytes
    json: Any


@attrs.frozen
class Api:
    """An emulator, its clock, and a client that knows nothing but HTTP."""

    emulator: Emulator
    clock: HandClock
    http: aiohttp.ClientSession

    async def send(self, method: str, path: str, **options: Any) -> Reply:
        """One request with the right key, unless `headers` says otherwise."""
        options.setdefault("headers", {"X-API-Key": self.emulator.api_key})
        url = path if path.startswith("http") else self.emulator.url + path
        async with self.http.request(method, url, allow_redirects=False, **options) as response:
            body = await response.read()
            json = await response.json() if response.content_type == "application/json" and body else None
            return Reply(response.status, response.headers, body, json)

    async def create(self, task: dict[str, Any] | None = None) -> Any:
        """Create a task; its `data`."""
        reply = await self.send("POST", "/api/v1/task", json=task or img2img())
        assert reply.status == 200, reply
        return reply.json["data"]

    async def get(self, task_id: str) -> Any:
        """Poll a task; its `data`."""
        return (await self.send("GET", f"/api/v1/task/{task_id}")).json["data"]

    async def finished(self, task: dict[str, Any] | None = None) -> Any:
        """Create a task and come back when it is over."""
        data = await self.create(task)
        self.clock.seconds += 3600
        return await self.get(data["task_id"])


MakeApi = Callable[..., Awaitable[Api]]


def img2img(model: str = "Qubico/flux1-schnell", **given: Any) -> dict[str, Any]:
    """The documented example, and more input."""
    image = "https://i.ibb.co/J7ZNgSG/01.jpg"
    return {"model": model, "task_type": "img2img", "input": {"prompt": "a bear", "image": image, **given}}


def picture(size: tuple[int, int] = (6, 4), colour: str = "teal", kind: str = "PNG") -> bytes:
    """A small picture."""
    buffer = io.BytesIO()
    Image.new("RGB", size, colour).save(buffer, kind)
    return buffer.getvalue()


def data_uri(raw: bytes) -> str:
    """The bytes as a data URI."""
    return "data:image/png;base64," + base64.b64encode(raw).decode()
