"""The path of a call: few functions of ours stand between `Session.run` and aiohttp, for a POST and for a GET."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from support.raw_server import RawServer, Received, task

import piapi_async
from piapi_async import Backoff, Polling, Session, Txt2Img

PACKAGE = str(Path(piapi_async.__file__).parent)


def frames(work: "asyncio.Task[Any]") -> Iterator[str]:
    """The functions of the package that a task is in, from the outermost one to what it awaits."""
    awaited: Any = work.get_coro()
    while awaited is not None:
        frame = getattr(awaited, "cr_frame", None) or getattr(awaited, "gi_frame", None)
        if frame is not None and frame.f_code.co_filename.startswith(PACKAGE):
            yield frame.f_code.co_qualname
        awaited = getattr(awaited, "cr_await", None) or getattr(awaited, "gi_yieldfrom", None)


async def test_five_functions_from_run_to_the_socket() -> None:
    """`Session.run` reaches aiohttp through `submit` and `send`, and through `wait`, a poll and `send`."""
    seen: dict[str, list[str]] = {}

    async def service(received: Received, writer: asyncio.StreamWriter) -> None:
        # The POST is a task of its own, begun by the one that waits for it.
        works = [
            work for work in asyncio.all_tasks() if next(frames(work), "").startswith(("Session.run", "Api._post"))
        ]
        works.sort(key=lambda work: next(frames(work)) != "Session.run")
        seen[received.line.split()[0]] = [name for work in works for name in frames(work)]
        writer.write(task("t-1", "completed" if received.line.startswith("GET") else "pending"))

    polling = Polling(wait=Backoff(initial=0.01, jitter=0))
    async with RawServer(service) as server, Session("k", base_url=server.url, polling=polling) as session:
        await session.run(Txt2Img(prompt="a bear"))
    assert seen == {
        "POST": ["Session.run", "Session.submit", "Api.create.<locals>.attempt", "Api._post", "Transport.send"],
        "GET": ["Session.run", "TaskHandle.wait", "_attempt", "Api.poll", "Transport.send"],
    }
