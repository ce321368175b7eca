"""A server of raw bytes: it keeps what it was sent, to the letter, and answers with whatever a test likes."""

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager, suppress
from typing import Any, Self, TypeVar
from urllib.parse import unquote

import attrs

T = TypeVar("T")

_NAME = "raw server"

PNG = bytes.fromhex(
    "89504e470d0a1a0a0000000d49484452000000010000000108060000001f15c4890000000b49444154789c63600002000005"
    "00017a5eab3f0000000049454e44ae426082"
)
JPEG = bytes.fromhex(
    "ffd8ffe000104a46494600010100000100010000ffdb004300a06e788c7864a08c828cb4aaa0bef0fffff0dcdcf0ffffffff"
    "ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffc0000b08000100010101"
    "1100ffc40014000100000000000000000000000000000000ffc40014100100000000000000000000000000000000ffda0008"
    "010100003f003fffd9"
)


@attrs.frozen
class Received:
    """One request, as it came."""

    head: bytes
    body: bytes

    @property
    def line(self) -> str:
        """The request line without the HTTP version."""
        return self.head.split(b"\r\n", 1)[0].rpartition(b" ")[0].decode()

    @property
    def headers(self) -> list[tuple[str, str]]:
        """Names and values, as they were written."""
        pairs = (line.partition(": ") for line in self.head.decode("latin-1").split("\r\n")[1:])
        return [(name, value) for name, _, value in pairs]


Step = Callable[[Received, asyncio.StreamWriter], Coroutine[Any, Any, None]]
Reply = bytes | Step


class RawServer:
    """Answers requests with the given replies, one after the other; the last one stays.

    Attributes:
        url: Where it listens.

        received: What it was sent.

        busy: The connections that are open at this moment.
    """

    def __init__(self, *replies: Reply) -> None:
        self.replies = list(replies)
        self.received: list[Received] = []
        self.busy: set[asyncio.StreamWriter] = set()
        self.url = ""
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> Self:
        """Listen on a free port."""
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", 0, limit=2**25)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        """Stop, and cut what is open."""
        assert self._server is not None
        self._server.close()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._serve(reader, writer), name=_NAME)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.busy.add(writer)
        try:
            with suppress(asyncio.IncompleteReadError, ConnectionError):
                while True:
                    await self._exchange(await _receive(reader), reader, writer)
        finally:
            self.busy.discard(writer)
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()

    async def _exchange(self, received: Received, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.received.append(received)
        reply = self.replies.pop(0) if len(self.replies) > 1 else self.replies[0]
        if isinstance(reply, AnyTask) and not received.line.startswith("POST "):
            reply = reply.called(unquote(received.line.rpartition("/")[2]))
        if isinstance(reply, bytes):
            writer.write(reply)
            await writer.drain()
            return
        # A client that goes away ends the step, as a long one would otherwise not notice.
        step = asyncio.create_task(reply(received, writer), name=_NAME)
        gone = asyncio.create_task(reader.read(1), name=_NAME)
        try:
            await asyncio.wait({step, gone}, return_when=asyncio.FIRST_COMPLETED)
            if step.done():
                await step
        finally:
            step.cancel()
            gone.cancel()
            await asyncio.gather(step, gone, return_exceptions=True)
        if writer.is_closing() or (gone.done() and not gone.cancelled()):
            raise ConnectionError


async def _receive(reader: asyncio.StreamReader) -> Received:
    head = (await reader.readuntil(b"\r\n\r\n"))[:-4]
    lengths = [line.partition(b":")[2] for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
    return Received(head, await reader.readexactly(int(lengths[0])) if lengths else b"")


async def stall(_received: Received, _writer: asyncio.StreamWriter) -> None:
    """Never answer."""
    await asyncio.Event().wait()


async def cut(_received: Received, writer: asyncio.StreamWriter) -> None:
    """Close the connection without an answer."""
    writer.close()


def closing(answer: bytes) -> Step:
    """These bytes, then the end of the connection."""

    async def step(_received: Received, writer: asyncio.StreamWriter) -> None:
        writer.write(answer)
        await writer.drain()
        writer.close()

    return step


def holding(answer: bytes, *, until: asyncio.Event) -> Step:
    """These bytes, once an event has come."""

    async def step(_received: Received, writer: asyncio.StreamWriter) -> None:
        await until.wait()
        writer.write(answer)
        await writer.drain()

    return step


def stalling_after(answer: bytes) -> Step:
    """These bytes, then nothing for ever."""

    async def step(_received: Received, writer: asyncio.StreamWriter) -> None:
        writer.write(answer)
        await asyncio.Event().wait()

    return step


def answer(
    body: bytes | Mapping[str, Any] = b"",
    *,
    status: int = 200,
    headers: Mapping[str, str] | None = None,
) -> bytes:
    """A well-formed HTTP answer; a mapping travels as JSON."""
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    fields = {"Content-Length": str(len(raw)), **(headers or {})}
    lines = [f"HTTP/1.1 {status} Status", *(f"{name}: {value}" for name, value in fields.items())]
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + raw


class AnyTask(bytes):
    """The answer for a task, whichever is asked for."""

    called: Callable[[str], bytes]


def task(task_id: str | None = None, status: str = "pending", **fields: Any) -> bytes:
    """The answer of PiAPI for a task; a completed one has a picture, unless `output` says otherwise.

    Without an id it is that of the task that is asked for, and `t-1` after a submit.
    """
    output = {"image_url": "https://img.example.com/1.png"} if status == "completed" else None
    data = {"model": "m", "task_type": "img2img", "status": status, "output": output, **fields}

    def called(name: str) -> bytes:
        return answer({"code": 200, "data": {"task_id": name, **data}, "message": "success"})

    if task_id is not None:
        return called(task_id)
    reply = AnyTask(called("t-1"))
    reply.called = called
    return reply


def strangers() -> list["asyncio.Task[Any]"]:
    """The loop's tasks that are neither the current one nor a server of this module."""
    return [one for one in asyncio.all_tasks() if one is not asyncio.current_task() and one.get_name() != _NAME]


@contextmanager
def in_thread(server: AbstractAsyncContextManager[T]) -> Iterator[T]:
    """Run a server in a thread of its own, on an ordinary event loop, while several others come and go here."""
    loop, ready, box = asyncio.new_event_loop(), threading.Event(), []
    stop = asyncio.Event()

    async def main() -> None:
        async with server as running:
            box.append(running)
            ready.set()
            await stop.wait()

    def target() -> None:
        with asyncio.Runner(loop_factory=lambda: loop) as runner:
            runner.run(main())

    thread = threading.Thread(target=target)
    thread.start()
    assert ready.wait(5)
    try:
        yield box[0]
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(5)


@asynccontextmanager
async def refusing() -> AsyncIterator[str]:
    """A URL where nobody listens."""
    server = await asyncio.start_server(lambda _reader, _writer: None, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    server.close()
    await server.wait_closed()
    yield f"http://127.0.0.1:{port}"
