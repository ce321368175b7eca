"""How many polls a second one emulator answers while it holds 20,000 tasks, beside a bare aiohttp.web handler.

    python benchmarks/emulator.py [--tasks 20000] [--looks 4000] [--rounds 5]

Both servers run in processes of their own, pinned to one core; the bare one answers every path with the same constant
body, as long as the emulator's. The client runs in a third process on another core and speaks HTTP over plain sockets,
64 connections kept alive, so that it is not what is measured. It loads the two in turns. Rates are told by the clock,
and by the CPU time of the server, which other work on the machine disturbs less.
"""

import argparse
import asyncio
import itertools
import json
import os
import statistics
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from aiohttp import web

from piapi_async.emulator import Constant, Emulator

KEY = "benchmark"
BODY = json.dumps(
    {
        "model": "Qubico/flux1-schnell",
        "task_type": "img2img",
        "input": {"prompt": "a bear", "image": "https://example.com/a.jpg"},
    }
).encode()
CONNECTIONS = 64
Servers = dict[str, tuple[str, int]]
"""By name: the address, and the process."""


async def serve_emulator() -> None:
    """The emulator, until its input is closed."""
    async with Emulator(durations=Constant(3600.0), concurrency=10**6, api_key=KEY) as emulator:
        print(emulator.url, flush=True)
        await asyncio.to_thread(sys.stdin.read)


async def serve_bare(size: int) -> None:
    """A handler that does nothing, until its input is closed."""
    body = b"x" * size

    async def handle(_request: web.Request) -> web.Response:
        return web.Response(body=body, content_type="application/json")

    app = web.Application()
    app.router.add_get("/api/v1/task/{task_id}", handle)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    print(f"http://127.0.0.1:{runner.addresses[0][1]}", flush=True)
    await asyncio.to_thread(sys.stdin.read)
    await runner.cleanup()


class Caller(asyncio.Protocol):
    """One connection: sends a request, waits for the whole answer, sends the next one."""

    def __init__(self, requests: Iterator[bytes], answers: list[bytes]) -> None:
        self._requests = requests
        self._answers = answers
        self._received = b""
        self._transport: asyncio.WriteTransport | None = None
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        assert isinstance(transport, asyncio.WriteTransport)
        self._transport = transport
        self._send()

    def data_received(self, data: bytes) -> None:
        """Go on when the answer is complete."""
        self._received += data
        head, blank, body = self._received.partition(b"\r\n\r\n")
        if blank and len(body) == int(head.partition(b"Content-Length: ")[2].split(b"\r\n", 1)[0]):
            assert head.startswith(b"HTTP/1.1 200"), head
            self._answers.append(body)
            self._received = b""
            self._send()

    def _send(self) -> None:
        request = next(self._requests, None)
        assert self._transport is not None
        if request is None:
            self._transport.close()
            self.done.set_result(None)
        else:
            self._transport.write(request)


async def call(url: str, requests: list[bytes]) -> list[bytes]:
    """Send all requests over some connections; the bodies that came back."""
    host, _, port = url.removeprefix("http://").partition(":")
    rest, answers = iter(requests), list[bytes]()
    loop = asyncio.get_running_loop()
    callers = [
        (await loop.create_connection(lambda: Caller(rest, answers), host, int(port)))[1] for _ in range(CONNECTIONS)
    ]
    await asyncio.gather(*(caller.done for caller in callers))
    return answers


def request(method: str, path: str, *, body: bytes = b"") -> bytes:
    """One HTTP request."""
    head = f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nX-API-Key: {KEY}\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


async def load(*, servers: Servers, tasks: int, polls: int, rounds: int) -> dict[str, list[list[float]]]:
    """Fill the emulator, then look here and there in turns; of each turn, the polls a second by clock and by CPU."""
    answers = await call(servers["emulator"][0], [request("POST", "/api/v1/task", body=BODY)] * tasks)
    ids = itertools.cycle([json.loads(answer)["data"]["task_id"] for answer in answers])
    rates: dict[str, list[list[float]]] = {name: [] for name in servers}
    for _ in range(rounds):
        for name, (url, process) in servers.items():
            requests = [request("GET", f"/api/v1/task/{next(ids)}") for _ in range(polls)]
            began, cpu = time.perf_counter(), cpu_seconds(process)
            assert len(await call(url, requests)) == polls
            spent = time.perf_counter() - began, cpu_seconds(process) - cpu
            rates[name].append([polls / seconds for seconds in spent])
    return rates


def pin(core: int) -> None:
    """Stay on one core, where the system lets us and has so many."""
    if hasattr(os, "sched_setaffinity"):
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {cores[core % len(cores)]})


@contextmanager
def server(*arguments: str) -> Iterator[tuple[str, int]]:
    """A server in a process of its own: its address, and the process."""
    command = [sys.executable, __file__, *arguments]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield process.stdout.readline().strip(), process.pid
        process.communicate("")


def cpu_seconds(process: int) -> float:
    """The CPU time a process has used, in steps of 10 ms."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def resident(process: int) -> float:
    """A process's resident set, in MB."""
    return int(Path(f"/proc/{process}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def answer_size(url: str) -> int:
    """How long the emulator's answer to a poll is."""

    def ask(path: str, body: bytes | None = None) -> bytes:
        asked = urllib.request.Request(url + path, data=body, headers={"X-API-Key": KEY})
        with urllib.request.urlopen(asked) as response:
            return bytes(response.read())

    task_id = json.loads(ask("/api/v1/task", BODY))["data"]["task_id"]
    return len(ask(f"/api/v1/task/{task_id}"))


def report(given: argparse.Namespace) -> None:
    """Run all of it and print medians."""
    with server("--role", "emulator") as ours:
        size, empty = answer_size(ours[0]), resident(ours[1])
        with server("--role", "bare", "--size", str(size)) as bare:
            work = {"tasks": given.tasks, "polls": given.polls, "rounds": given.rounds}
            command = [sys.executable, __file__, "--role", "load"]
            order = json.dumps({"servers": {"emulator": ours, "bare": bare}, **work})
            rates = json.loads(subprocess.run(command, check=True, input=order, capture_output=True, text=True).stdout)
        full = resident(ours[1])
    print(f"{given.tasks} tasks held, {given.rounds} rounds of {given.polls} polls, answers of {size} bytes, medians")
    for name, turns in rates.items():
        clock, cpu = (statistics.median(turn[kind] for turn in turns) for kind in (0, 1))
        print(f"  {name:8} {clock:6.0f} polls a second, {cpu:6.0f} a second of CPU")
    for kind, unit in enumerate(("clock", "CPU")):
        pairs = zip(rates["emulator"], rates["bare"], strict=True)
        print(f"  emulator / bare by {unit}: {statistics.median(one[kind] / other[kind] for one, other in pairs):.2f}")
    print(f"  the emulator's resident memory: {full:.0f} MB, {empty:.0f} MB when empty")


def main() -> None:
    """Read the arguments and do what they say."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", type=int, default=20_000)
    parser.add_argument("--looks", type=int, default=4000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--role", choices=("emulator", "bare", "load"), help=argparse.SUPPRESS)
    parser.add_argument("--size", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.role is None:
        report(given)
        return
    pin(1 if given.role == "load" else 0)
    if given.role == "load":
        print(json.dumps(asyncio.run(load(**json.load(sys.stdin)))))
    else:
        asyncio.run(serve_emulator() if given.role == "emulator" else serve_bare(given.size))


if __name__ == "__main__":
    main()
