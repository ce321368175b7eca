"""An endpoint for webhooks that remembers what it got, and answers what the test wants."""

import asyncio
import json
from typing import Any, Self

import attrs
from aiohttp import web


@attrs.frozen
class Call:
    """One request that came in."""

    time: float
    headers: Any
    json: Any
    path: str


class Receiver:
    """A server on this machine.

    Attributes:
        answers: The statuses of the next answers; 200 when there are none left, and no answer at all for 0.
    """

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.answers: list[int] = []
        self.url = ""
        self._news = asyncio.Condition()
        self._runner: web.ServerRunner | None = None

    async def __aenter__(self) -> Self:
        self._runner = web.ServerRunner(web.Server(self._handle), shutdown_timeout=0.01)  # type: ignore[arg-type]
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}/hook"
        return self

    async def __aexit__(self, *_details: object) -> None:
        assert self._runner is not None
        await self._runner.cleanup()

    @property
    def statuses(self) -> list[str]:
        """The status in each body, in order of arrival."""
        return [call.json["data"]["status"] for call in self.calls]

    async def count(self, number: int) -> list[Call]:
        """The calls, once there are so many."""
        async with asyncio.timeout(3600), self._news:
            await self._news.wait_for(lambda: len(self.calls) >= number)
        return self.calls

    async def _handle(self, request: web.Request) -> web.Response:
        body = json.loads(await request.read())
        self.calls.append(Call(asyncio.get_running_loop().time(), request.headers, body, request.path_qs))
        async with self._news:
            self._news.notify_all()
        status = self.answers.pop(0) if self.answers else 200
        if status == 0:
            await asyncio.sleep(3600)
        return web.Response(status=status, headers={"Location": "/elsewhere"})
