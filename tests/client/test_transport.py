"""The door to the network: whatever comes through it, a value or one of our errors comes out."""

import asyncio
import gzip
import importlib.metadata
import json
import zlib
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import aiohttp
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from support.raw_server import PNG, RawServer, answer, closing, cut, stall, task

import piapi_async
from piapi_async import Img2Img, RetryPolicy, Session, SubmissionInDoubtError, TaskHandle, TaskInfo, events
from piapi_async._client.body import Base64, as_json
from piapi_async._client.transport import ANSWER_MAX, Body, Transport, translate, user_agent
from piapi_async.errors import (
    ConfigurationError,
    ConnectError,
    ConnectionLostError,
    PiAPIError,
    RequestTimeoutError,
    TransportError,
    UnexpectedResponseError,
)
from piapi_async.testing import EventLog, run_in_virtual_time

BEAR = Img2Img(prompt="a bear", image="https://example.com/a.jpg")
ONCE = RetryPolicy(attempts=1)
MODERATE = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))

# Any bytes from the server.

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=True) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
task_fields = st.sampled_from(
    ["task_id", "status", "model", "output", "meta", "error", "logs", "config", "task_result"]
)
tasks = st.dictionaries(task_fields, json_values, max_size=6)
envelopes = st.fixed_dictionaries(
    {}, optional={"code": json_values, "data": tasks | json_values, "message": json_values}
)
bodies = (
    st.binary(max_size=200)
    | (envelopes | tasks | json_values).map(lambda value: json.dumps(value).encode())
    | st.sampled_from([b"", b"<html>", b"[" * 100_000, b'{"data":' * 50_000, b"\xff\xfe", b"1" * 5000, b"null"])
)
header_values = st.text(st.characters(codec="latin-1", exclude_characters="\r\n\0"), max_size=30)
headers = st.dictionaries(
    st.sampled_from(
        ["Content-Type", "Set-Cookie", "Retry-After", "Location", "Date", "Connection", "WWW-Authenticate", "Link", "X"]
    ),
    header_values
    | st.sampled_from(
        ["close", "keep-alive", "Upgrade", "text/html; charset=nonsense", "Thu, 99 Foo 99999", "1e999", "nan"]
    ),
    max_size=4,
)
framings = st.sampled_from(
    [
        {},
        {"Content-Length": "0"},
        {"Content-Length": "99999"},
        {"Content-Length": "-1"},
        {"Content-Length": "two"},
        {"Transfer-Encoding": "chunked"},
        {"Transfer-Encoding": "gzip, chunked"},
        {"Content-Encoding": "gzip"},
        {"Content-Encoding": "deflate"},
        {"Content-Encoding": "br"},
        {"Content-Encoding": "zstd"},
        {"Content-Encoding": "nonsense"},
    ]
)
Act = Callable[[Session], Awaitable[Any]]


async def _met(reply: Any, act: Act) -> tuple[Any, list[Any]]:
    """What comes out of one call, and what observers were told."""
    log = EventLog()
    limit = aiohttp.ClientTimeout(total=5)
    async with RawServer(reply) as server, asyncio.timeout(600):
        async with Session("k", base_url=server.url, timeout=limit, retry=ONCE, observers=[log]) as session:
            try:
                return await act(session), log
            except PiAPIError as error:
                return error, log


def _check(reply: Any, *, tmp_path: Path | None = None) -> None:
    seen, _ = run_in_virtual_time(_met(reply, lambda session: session.get_task("t")))
    assert isinstance(seen, TaskInfo | PiAPIError)
    made, log = run_in_virtual_time(_met(reply, lambda session: session.submit(BEAR)))
    assert isinstance(made, TaskHandle | PiAPIError)
    if isinstance(made, PiAPIError) and not made.safe_to_resubmit:
        assert isinstance(made, SubmissionInDoubtError)
        assert [event.error for event in log if isinstance(event, events.SubmissionInDoubt)] == [made]
    canceled, _ = run_in_virtual_time(_met(reply, lambda session: session.cancel_task("t")))
    assert isinstance(canceled, TaskInfo | PiAPIError)
    if tmp_path is not None:
        _check_download(reply, tmp_path)


def _check_download(reply: Any, directory: Path) -> None:
    got, _ = run_in_virtual_time(
        _met(reply, lambda session: session.download(f"{session!r}"[9:-1] + "/a", directory, overwrite=True))
    )
    assert isinstance(got, Path | PiAPIError)
    assert not [path for path in directory.iterdir() if path.name.startswith(".")]


@MODERATE
@given(status=st.integers(0, 999), given_headers=headers, framing=framings, body=bodies)
@example(status=200, given_headers={}, framing={"Content-Encoding": "gzip"}, body=gzip.compress(b'{"code":200}'))
@example(status=200, given_headers={}, framing={"Content-Encoding": "deflate"}, body=zlib.compress(b"x" * 9999))
@example(status=101, given_headers={"Connection": "Upgrade"}, framing={}, body=b"x")
@example(status=204, given_headers={}, framing={"Content-Length": "99999"}, body=b"x")
def test_any_answer_is_a_value_or_our_error(
    status: int, given_headers: dict[str, str], framing: dict[str, str], body: bytes
) -> None:
    """Any status, headers and body give a task, or a `PiAPIError`, and a paid call in doubt is told as such."""
    fields = {"Content-Length": str(len(body)), **given_headers, **framing}
    if "Transfer-Encoding" in framing:
        del fields["Content-Length"]
    raw = answer(status=status, headers=fields).replace(b"Content-Length: 0\r\n", b"", 1) + body
    _check(closing(raw))


@MODERATE
@given(
    raw=st.binary(max_size=300)
    | st.builds(
        lambda a, b: a + b, st.sampled_from([b"HTTP/1.1 ", b"HTTP/1.1 200 OK\r\n", task()[:60]]), st.binary(max_size=60)
    )
)
@example(raw=b"")
@example(raw=b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 40_000)
@example(raw=b"HTTP/1.1 200 OK\r\nA: " + b"b" * 100_000 + b"\r\n\r\n")
@example(raw=b"HTTP/1.1 100 Continue\r\n\r\n" * 100)
@example(raw=b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nZZ\r\n")
@example(raw=b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\nx")
@example(raw=b"HTTP/1.1 200 OK\r\nSet-Cookie: \x01=\xff; =;;\r\nContent-Length: 0\r\n\r\n")
@example(raw=b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03")
def test_anything_else_than_http_is_our_error(raw: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Garbage in place of HTTP gives a `PiAPIError`, for downloads too, and nothing hangs."""
    _check(closing(raw), tmp_path=tmp_path_factory.mktemp("downloads"))


@pytest.mark.parametrize("reply", [cut, stall, closing(b"garbage\r\n\r\n"), answer(b"<html>", status=522)])
async def test_patience_is_bounded_by_default(reply: Any) -> None:
    """With every setting at its default a hopeless server ends each call within a few minutes."""
    async with RawServer(reply) as server, Session("k", base_url=server.url) as session, asyncio.timeout(300):
        with pytest.raises(PiAPIError):
            await session.get_task("t")
        with pytest.raises(SubmissionInDoubtError):
            await session.submit(BEAR)


async def test_compressed_answer_is_read() -> None:
    """An answer may come compressed."""
    body = gzip.compress(task("t-1").partition(b"\r\n\r\n")[2])
    async with RawServer(answer(body, headers={"Content-Encoding": "gzip"})) as server:
        async with Session("k", base_url=server.url) as session:
            assert (await session.get_task("t-1")).task_id == "t-1"


async def test_cookies_are_not_kept() -> None:
    """What a server sets as a cookie is not sent back: nothing is remembered between requests but the tasks."""
    cookie = task("t").replace(b"\r\n", b"\r\nSet-Cookie: spy=1; Path=/\r\n", 1)
    async with RawServer(cookie) as server:
        named = server.url.replace("127.0.0.1", "localhost")  # aiohttp keeps no cookies of hosts that are a number
        async with Session("k", base_url=named) as session:
            await session.get_task("t")
            await session.get_task("t")
        assert not any(b"spy" in received.head for received in server.received)


@pytest.mark.parametrize("compressed", [False, True])
async def test_answer_without_end_is_bounded(*, compressed: bool) -> None:
    """An answer of more than 64 MiB is broken off, packed or not; for a submit that leaves a doubt."""
    chunk = b" " * 2**22
    packed = gzip.compress(b" " * (ANSWER_MAX + 2**20), compresslevel=1) if compressed else b""
    encoding = b"Content-Encoding: gzip\r\n" if compressed else b""

    async def endless(_received: Any, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\n" + encoding + b"Connection: close\r\n\r\n" + packed)
        while not packed:
            writer.write(chunk)
            await writer.drain()
        await writer.drain()
        writer.close()

    async with RawServer(endless) as server, Session("k", base_url=server.url, retry=ONCE) as session:
        with pytest.raises(UnexpectedResponseError, match=f"longer than {ANSWER_MAX} bytes") as caught:
            await session.get_task("t")
        assert caught.value.status == 200
        if not compressed:
            with pytest.raises(SubmissionInDoubtError, match="longer than"):
                await session.submit(BEAR)
        await asyncio.sleep(0.01)
        assert server.busy == set()


class Pieces(aiohttp.abc.AbstractStreamWriter):
    """A writer that keeps what it is given, piece by piece."""

    def __init__(self) -> None:
        self.pieces: list[bytes] = []

    async def write(self, chunk: bytes | bytearray | memoryview) -> None:  # type: ignore[override]
        """Keep a piece."""
        self.pieces.append(bytes(chunk))

    async def write_eof(self, chunk: bytes = b"") -> None:
        """Not asked for."""

    async def drain(self) -> None:
        """Nothing waits."""

    def enable_compression(self, encoding: str = "deflate", strategy: int | None = None) -> None:
        """Not asked for."""

    def enable_chunking(self) -> None:
        """Not asked for."""

    async def write_headers(self, status_line: str, headers: Any) -> None:
        """Not asked for."""


async def test_large_body_is_sent_in_pieces() -> None:
    """A body goes out in pieces of 64 KiB, so that other work of the loop gets its turns in between."""
    writer, text = Pieces(), "x" * 250_000
    body = Body(as_json({"text": text, "picture": Base64(bytes(range(256)) * 1000)}))
    await body.write(writer)
    assert json.loads(b"".join(writer.pieces))["text"] == text
    assert max(map(len, writer.pieces)) == 2**16
    assert body.begun


async def test_large_body_arrives_whole() -> None:
    """Ten megabytes go through a real connection unchanged."""
    request = Img2Img(prompt="p", image=PNG + bytes(7 * 2**20))
    async with RawServer(task()) as server, Session("k", base_url=server.url) as session:
        await session.submit(request)
        (received,) = server.received
    assert ("Content-Length", str(len(received.body))) in received.headers
    assert len(json.loads(received.body)["input"]["image"]) > 9 * 2**20


async def test_wait_for_a_borrowed_connection_sent_nothing() -> None:
    """A submit whose time was up before it got a connection was not sent, and says so."""
    limit = aiohttp.ClientTimeout(total=2)
    connector = aiohttp.TCPConnector(limit=1)
    async with RawServer(stall) as server, aiohttp.ClientSession(connector=connector) as http:
        busy = asyncio.ensure_future(http.get(server.url))
        await asyncio.sleep(1)
        async with Session("k", base_url=server.url, http=http, timeout=limit, retry=ONCE) as session:
            with pytest.raises(ConnectError, match="nothing was sent"):
                await session.submit(BEAR)
        busy.cancel()
        assert len(server.received) == 1


async def test_host_that_cannot_be_a_host_is_our_error() -> None:
    """A name that no resolver takes fails like any other host that cannot be reached."""
    async with Session("k", base_url=f"http://{'a' * 64}.example", retry=ONCE) as session:
        with pytest.raises(ConnectError, match="nothing was sent"):
            await session.submit(BEAR)
        with pytest.raises(TransportError):
            await session.get_task("t")


def test_body_is_what_it_was_made_of() -> None:
    """A body knows its bytes and its size, and has not begun to be sent."""
    body = Body(as_json({"a": "ä"}))
    assert body.decode() == '{"a": "\\u00e4"}'
    assert body.size == 15
    assert body.content_type == "application/json"
    assert body.begun is False


KEY: Any = SimpleNamespace(host="p", port=8080, ssl=True)  # an `aiohttp.client_reqrep.ConnectionKey` as far as is read


@pytest.mark.parametrize(
    ("error", "unsent", "kind", "words"),
    [
        (
            aiohttp.ServerDisconnectedError(),
            True,
            ConnectError,
            "cannot connect to h: Server disconnected; nothing was",
        ),
        (aiohttp.ServerDisconnectedError(), False, ConnectionLostError, "lost the connection to h: Server disconn"),
        (
            aiohttp.ConnectionTimeoutError("Connection timeout to host h"),
            False,
            ConnectError,
            "h: no connection in time;",
        ),
        *(
            (error, False, ConnectError, rf"^cannot connect to h: {words}; nothing was sent$")
            for error, words in (
                (aiohttp.ClientConnectorError(KEY, OSError(111, "Connect call failed")), "Connect call failed"),
                (aiohttp.ClientConnectorError(KEY, OSError("two attempts failed")), "two attempts failed"),
                (aiohttp.ClientConnectorDNSError(KEY, OSError(None, "no such host")), "no such host"),
                (aiohttp.ClientConnectorCertificateError(KEY, ValueError("wrong host")), "wrong host"),
                (aiohttp.ClientProxyConnectionError(KEY, OSError(111, "refused")), "proxy p:8080: refused"),
            )
        ),
        (aiohttp.SocketTimeoutError("slow"), False, RequestTimeoutError, "no answer from h in time: slow"),
        (TimeoutError(), False, RequestTimeoutError, "no answer from h in time: TimeoutError"),
        (ConnectionResetError(104, "reset"), False, ConnectionLostError, "lost the connection to h: .* reset"),
        (aiohttp.ClientPayloadError("half"), False, ConnectionLostError, "lost the connection to h: half"),
        (aiohttp.InvalidURL("x"), False, TransportError, "no usable HTTP answer from h: x"),
        (ValueError("two\n  lines"), False, TransportError, "no usable HTTP answer from h: two lines"),
    ],
)
def test_every_error_of_aiohttp_has_one_of_ours(
    error: Exception, unsent: bool, kind: type[Exception], words: str
) -> None:
    """What aiohttp raises becomes the error that says whether something was sent, with the host and the words."""
    ours = translate(error, url="https://user:password@h:1/path?key=1", unsent=unsent)
    assert type(ours) is kind
    assert "password" not in str(ours)
    assert ours.safe_to_resubmit is (kind is ConnectError)
    with pytest.raises(kind, match=words):
        raise ours


async def test_errors_of_ours_pass_through_a_borrowed_session_unchanged() -> None:
    """What a middleware of the borrowed session raises, and is ours already, comes out as it is."""

    async def refuse(_request: aiohttp.ClientRequest, _handler: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
        raise ConfigurationError("the middleware says no")

    async with aiohttp.ClientSession(middlewares=[refuse]) as http:
        async with Session("k", base_url="http://localhost:9", http=http, retry=ONCE) as session:
            with pytest.raises(ConfigurationError, match=r"^the middleware says no$"):
                await session.get_task("t")


async def test_transport_closes_only_what_it_opened() -> None:
    """A transport that was not used has nothing to close, and says so."""
    transport = Transport(http=None, timeout=aiohttp.ClientTimeout())
    assert not transport.is_open
    await transport.aclose()
    assert not transport.is_open


def test_package_names_itself_installed_or_not(monkeypatch: pytest.MonkeyPatch) -> None:
    """The `User-Agent` holds the version, or no more than the name where the package runs from a plain directory."""
    assert user_agent() == f"piapi_async/{piapi_async.__version__}"

    def missing(name: str) -> str:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", missing)
    assert user_agent() == "piapi_async"
