"""Sixty-four pictures of 8 MB sent, waited for and saved, beside a bare aiohttp loop that makes the same requests.

    python benchmarks/pictures.py [--pictures 64] [--runs 3]

A plain server in a process of its own answers in the documented shapes, with one fixed picture of 8 MB as a result.
The two sides take turns, each in a fresh process: read the file, send it as a data URI, poll once after a second, bring
the result to disk. "ours, upload" sends the pictures by way of the upload instead. "send" and "save" do one half only.
A stall is how much later than asked a sleep of 5 ms on the event loop ends; "nothing" has no other work and shows what
the machine itself adds. Memory is the peak above what the imports and a first small request took.
"""

import argparse
import asyncio
import base64
import io
import json
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Literal

import aiohttp

from piapi_async import Backoff, Image, Img2Img, Polling, Session

KEY = "benchmark"
SIZE = 8 * 10**6
LOOK = Polling(wait=Backoff(initial=1.0, factor=1.0, jitter=0.0))


def picture(*, seed: int, width: int = 2000, height: int = SIZE // 6000) -> bytes:
    """A PNG of noise, which decodes, of 8 MB."""
    from PIL import Image as Pillow  # noqa: PLC0415 - only the process that makes the files needs it

    file = io.BytesIO()
    noise = random.Random(seed).randbytes(3 * width * height)
    Pillow.frombytes("RGB", (width, height), noise).save(file, "PNG", compress_level=1)
    return file.getvalue()


async def serve(directory: Path) -> None:
    """Answer in the documented shapes until the input is closed."""
    from aiohttp import web  # noqa: PLC0415 - a server's

    result = (directory / "0.png").read_bytes()
    tasks = uploads = 0

    def answer(task_id: str, status: str, output: dict[str, str] | None) -> web.Response:
        task = {"task_id": task_id, "model": "m", "task_type": "img2img", "status": status, "output": output}
        return web.json_response({"code": 200, "data": task, "message": "success"})

    async def create(request: web.Request) -> web.Response:
        nonlocal tasks
        async for _ in request.content.iter_any():
            pass
        tasks += 1
        return answer(f"t-{tasks}", "pending", None)

    async def poll(request: web.Request) -> web.Response:
        return answer(request.match_info["id"], "completed", {"image_url": f"http://{request.host}/result.png"})

    async def upload(request: web.Request) -> web.Response:
        nonlocal uploads
        async for _ in request.content.iter_any():
            pass
        uploads += 1
        return web.json_response({"code": 200, "data": {"url": f"http://{request.host}/{uploads}.png"}})

    async def fetch(_request: web.Request) -> web.Response:
        return web.Response(body=result, content_type="image/png")

    app = web.Application(client_max_size=2**30)
    app.add_routes([web.post("/api/v1/task", create), web.get("/api/v1/task/{id}", poll)])
    app.add_routes([web.post("/api/ephemeral_resource", upload), web.get("/result.png", fetch)])
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    print(f"http://127.0.0.1:{runner.addresses[0][1]}", flush=True)
    await asyncio.to_thread(sys.stdin.read)
    await runner.cleanup()


async def ours(
    url: str, files: list[Path], out: Path, *, local_images: Literal["data-uri", "upload"] = "data-uri"
) -> None:
    """Send, wait and save with this package."""
    async with Session(KEY, base_url=url, polling=LOOK, local_images=local_images) as session:

        async def one(path: Path) -> None:
            await session.save(await session.run(Img2Img(prompt="a bear", image=path)), out)

        await asyncio.gather(*map(one, files))


async def ours_upload(url: str, files: list[Path], out: Path) -> None:
    """The same by way of the upload."""
    await ours(url, files, out, local_images="upload")


async def ours_send(url: str, files: list[Path], _out: Path) -> None:
    """Send alone."""
    async with Session(KEY, base_url=url) as session:
        await asyncio.gather(*(session.submit(Img2Img(prompt="a bear", image=path)) for path in files))


async def ours_save(url: str, files: list[Path], out: Path) -> None:
    """Save alone."""
    async with Session(KEY, base_url=url) as session:
        await asyncio.gather(*(session.download(Image(f"{url}/result.png"), out / path.name) for path in files))


async def bare(url: str, files: list[Path], out: Path) -> None:
    """The same requests with aiohttp alone, eight pictures at a time."""
    few = asyncio.Semaphore(8)

    async def one(http: aiohttp.ClientSession, path: Path) -> None:
        async with few:
            # As such loops are written: the loop waits for the disk, and for the base64.
            image = "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode()  # noqa: ASYNC240
            body = {"model": "m", "task_type": "img2img", "input": {"prompt": "a bear", "image": image}}
            async with http.post(f"{url}/api/v1/task", json=body) as response:
                task = (await response.json())["data"]
        while task["status"] != "completed":
            await asyncio.sleep(1.0)
            async with http.get(f"{url}/api/v1/task/{task['task_id']}") as response:
                task = (await response.json())["data"]
        async with few, http.get(task["output"]["image_url"]) as response:
            with (out / f"{task['task_id']}.png").open("wb") as file:
                async for piece in response.content.iter_chunked(2**18):
                    file.write(piece)

    async with aiohttp.ClientSession(headers={"X-API-Key": KEY}) as http:
        await asyncio.gather(*(one(http, path) for path in files))


async def nothing(_url: str, _files: list[Path], _out: Path) -> None:
    """Let the ticker tick."""
    await asyncio.sleep(3.0)


SIDES: dict[str, Callable[[str, list[Path], Path], Awaitable[None]]] = {
    "ours": ours,
    "bare": bare,
    "ours, upload": ours_upload,
    "ours, send": ours_send,
    "ours, save": ours_save,
    "nothing": nothing,
}


@asynccontextmanager
async def ticking() -> AsyncIterator[list[float]]:
    """How late each sleep of 5 ms ended while this was open."""
    late = [0.0]

    async def tick() -> None:
        while True:
            begun = time.perf_counter()
            await asyncio.sleep(0.005)
            late.append(time.perf_counter() - begun - 0.005)

    ticker = asyncio.create_task(tick())
    try:
        yield late
    finally:
        ticker.cancel()


async def measured(side: str, *, url: str, directory: Path, pictures: int) -> dict[str, float]:
    """Run one side in this process."""
    files = [directory / f"{number}.png" for number in range(pictures)]
    with tempfile.TemporaryDirectory(dir=directory) as out:
        await SIDES[side](url, [directory / "small.png"], Path(out))
        before, begun = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.perf_counter()
        async with ticking() as late:
            await SIDES[side](url, files, Path(out))
            wall = time.perf_counter() - begun
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {"wall": wall, "stall": max(late), "memory": (peak - before) / 1024}


def client(side: str, *, directory: Path, pictures: int) -> dict[str, float]:
    """One run of one side against a fresh server, both in processes of their own."""
    common = [sys.executable, __file__, "--directory", str(directory), "--pictures", str(pictures)]
    server = subprocess.Popen([*common, "--role", "serve"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    url = server.stdout.readline().strip()
    done = subprocess.run([*common, "--role", side, "--url", url], check=True, stdout=subprocess.PIPE, text=True)
    server.communicate("")
    result: dict[str, float] = json.loads(done.stdout)
    return result


def report(*, pictures: int, runs: int) -> None:
    """Alternate the sides, then print medians and the median of the ratios."""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        for number in range(pictures):
            (directory / f"{number}.png").write_bytes(picture(seed=number))
        (directory / "small.png").write_bytes(picture(seed=0, width=1, height=1))
        rounds = [{side: client(side, directory=directory, pictures=pictures) for side in SIDES} for _ in range(runs)]
        size = sum((directory / f"{number}.png").stat().st_size for number in range(pictures)) / 1e6
    print(f"{pictures} pictures, {size:.0f} MB sent and as much saved, {runs} rounds; medians, the worst stall of all")
    for side in SIDES:
        wall, memory = (statistics.median(one[side][name] for one in rounds) for name in ("wall", "memory"))
        stall = max(one[side]["stall"] for one in rounds)
        print(
            f"  {side:12} {wall:5.2f} s, {pictures / wall:5.1f} pictures/s, stall {1000 * stall:4.0f} ms, "
            f"memory {memory:4.0f} MiB"
        )
    for side in ("ours", "ours, upload"):
        ratio = statistics.median(one["bare"]["wall"] / one[side]["wall"] for one in rounds)
        print(f"  throughput of {side!r} / bare: {ratio:.2f}")
    print(f"  allowed: {64 * 8 * 1.6:.0f} MB for 64 pictures; stalls of 50 ms; throughput of 0.8")


def main() -> None:
    """Read the arguments and do what they say."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=64)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--role", choices=("serve", *SIDES), help=argparse.SUPPRESS)
    parser.add_argument("--url", help=argparse.SUPPRESS)
    parser.add_argument("--directory", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.role == "serve":
        asyncio.run(serve(given.directory))
    elif given.role:
        result = asyncio.run(measured(given.role, url=given.url, directory=given.directory, pictures=given.pictures))
        print(json.dumps(result))
    else:
        report(pictures=given.pictures, runs=given.runs)


if __name__ == "__main__":
    main()
