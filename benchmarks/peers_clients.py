"""The clients of `peers.py`, each as its own documentation has it used: submit a task, and wait for it.

Run in a process of its own: `python peers_clients.py NAME URL TASKS SECONDS`.
"""

import asyncio
import gc
import importlib
import json
import os
import resource
import sys
import time
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import aiohttp
from overhead import wait_bare

Job = Callable[[], Awaitable[str]]
"""Submits one task, waits for it, and gives its id."""


def _ours(price: float) -> Callable[[str], AbstractAsyncContextManager[Job]]:
    @asynccontextmanager
    async def ours(url: str) -> AsyncIterator[Job]:
        package = importlib.import_module("piapi_async")
        request = package.Img2Img(prompt="a bear", image="https://example.com/a.jpg")
        polling = package.Polling(wait=package.Learned(price=price))
        async with package.Session("key", base_url=url, polling=polling) as session:

            async def job() -> str:
                return str((await session.run(request)).task_id)

            yield job

    return ours


@asynccontextmanager
async def bare(url: str) -> AsyncIterator[Job]:
    """A loop over plain aiohttp, by the pauses of `Backoff()`."""
    async with aiohttp.ClientSession(headers={"X-API-Key": "key"}) as http:

        async def job() -> str:
            return (await wait_bare(http, url=url))[0]

        yield job


@asynccontextmanager
async def fal(url: str) -> AsyncIterator[Job]:
    """fal-client, every 0.1 s."""
    package = importlib.import_module("fal_client")
    importlib.import_module("fal_client.client").QUEUE_URL_FORMAT = f"{url}/"  # type: ignore[attr-defined]
    client = package.AsyncClient(key="key")

    async def job() -> str:
        handle = await client.submit("owner/app", {"prompt": "a bear"})
        await handle.get()
        return str(handle.request_id)

    yield job


@asynccontextmanager
async def replicate(url: str) -> AsyncIterator[Job]:
    """replicate, every 0.5 s."""
    client = importlib.import_module("replicate").Client(api_token="key", base_url=url)

    async def job() -> str:
        prediction = await client.predictions.async_create(version="v" * 64, input={"prompt": "a bear"})
        await prediction.async_wait()
        return str(prediction.id)

    yield job


@asynccontextmanager
async def comfy(url: str) -> AsyncIterator[Job]:
    """comfy-sdk, 0.5 s growing to 5 s."""
    os.environ["COMFY_BASE_URL"] = os.environ["COMFY_ROUTER_BASE_URL"] = url
    async with importlib.import_module("comfy_sdk").AsyncComfy(api_key="key") as client:

        async def job() -> str:
            handle = await client.models.submit("p/m", {"prompt": "a bear"})
            await handle.get()
            return str(handle.request_id)

        yield job


@asynccontextmanager
async def openai(url: str) -> AsyncIterator[Job]:
    """openai, every 1 s."""
    warnings.simplefilter("ignore", DeprecationWarning)
    async with importlib.import_module("openai").AsyncOpenAI(api_key="key", base_url=f"{url}/oa") as client:

        async def job() -> str:
            return str((await client.videos.create_and_poll(model="m", prompt="a bear")).id)

        yield job


@asynccontextmanager
async def runpod(url: str) -> AsyncIterator[Job]:
    """Runpod's asynchronous endpoint, every 1 s."""
    package = importlib.import_module("runpod")
    package.endpoint_url_base, package.api_key = f"{url}/x", "key"  # type: ignore[attr-defined]
    async with importlib.import_module("runpod.http_client").AsyncClientSession() as http:
        endpoint = importlib.import_module("runpod.endpoint").AsyncioEndpoint("e", http)

        async def job() -> str:
            made = await endpoint.run({"prompt": "a bear"})
            await made.output(timeout=3600)
            return str(made.job_id)

        yield job


CLIENTS: dict[str, Callable[[str], AbstractAsyncContextManager[Job]]] = {
    "bare aiohttp": bare,
    "piapi_async": _ours(2.0),
    "piapi_async, price 8": _ours(8.0),
    "piapi_async, price 20": _ours(20.0),
    "piapi_async, price 200": _ours(200.0),
    "runpod": runpod,
    "openai": openai,
    "fal-client": fal,
    "replicate": replicate,
    "comfy-sdk": comfy,
}
MODULES = {"fal-client": "fal_client", "comfy-sdk": "comfy_sdk", **{n: n for n in ("runpod", "openai", "replicate")}}
"""What has to be installed for a client."""


async def measure(name: str, *, url: str, tasks: int, seconds: float) -> dict[str, Any]:
    """All tasks at once, for at most that many seconds: when each was told to be over, and what it cost here.

    One task goes before them: what a process pays but once is no cost of a task.
    """
    async with CLIENTS[name](url) as job:
        await job()
        gc.collect()
        before = resource.getrusage(resource.RUSAGE_SELF)
        begun = time.monotonic()
        told: dict[str, float] = {}

        async def one() -> None:
            task_id = await job()
            told[task_id] = time.monotonic()

        jobs = [asyncio.create_task(one()) for _ in range(tasks)]
        _, late = await asyncio.wait(jobs, timeout=seconds)
        wall = time.monotonic() - begun
        after = resource.getrusage(resource.RUSAGE_SELF)
        for task in late:
            task.cancel()
        await asyncio.gather(*jobs, return_exceptions=True)
    return {
        "told": told,
        "wall": wall,
        "cpu": after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
        "memory": (after.ru_maxrss - before.ru_maxrss) / 1024,
    }


def main() -> None:
    """Measure one client, as the command line says, and print it as JSON."""
    name, url, tasks, seconds = sys.argv[1:]
    importlib.import_module(MODULES.get(name, "piapi_async"))
    print(json.dumps(asyncio.run(measure(name, url=url, tasks=int(tasks), seconds=float(seconds)))), flush=True)
    os._exit(0)  # what did not end in time need not be tidied up


if __name__ == "__main__":
    main()
