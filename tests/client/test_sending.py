"""What is known of a submit that was not sent in full, of connections that may be dead, of answers that are late."""

import asyncio
import gzip
import socket
import time
from typing import Any, Self

import aiohttp
import pytest
from client.test_transport import Pieces
from support.raw_server import PNG, RawServer, Received, answer, stall, task

from piapi_async import Img2Img, RetryPolicy, Session, Txt2Img, events
from piapi_async._asyncio import Lasting, Limit
from piapi_async._client.body import as_json
from piapi_async._client.transport import Body
from piapi_async.errors import (
    ConfigurationError,
    ConnectError,
    RequestTimeoutError,
    SubmissionInDoubtError,
    TransportError,
    UnexpectedResponseError,
)
from piapi_async.task import Image
from piapi_async.testing import EventLog

ONCE = RetryPolicy(attempts=1)
BEAR = Txt2Img(prompt="a bear")
LARGE = Img2Img(prompt="p", image=PNG + bytes(7 * 2**20))


# How far a body came.


class Refusing(Pieces):
    """A writer that takes so many pieces, and meets an error with the next."""

    def __init__(self, error: BaseException, *, after: int) -> None:
        super().__init__()
        self._error = error
        self._after = after

    async def write(self, chunk: bytes | bytearray | memoryview) -> None:
        """Keep a piece, or fail."""
        if len(self.pieces) == self._after:
            raise self._error
        await super().write(chunk)


@pytest.mark.parametrize(
    ("error", "after", "handed_over"),
    [
        (ConnectionResetError("gone"), 0, False),
        (ConnectionResetError("gone"), 3, False),
        (RuntimeError("a trace of the user's"), 3, False),
        (asyncio.CancelledError(), 2, False),
        (asyncio.CancelledError(), 3, True),  # it may be in the connection's buffer, which a close still sends
    ],
)
async def test_a_body_knows_whether_it_was_handed_over(error: BaseException, after: int, *, handed_over: bool) -> None:
    """Before the last piece was taken the server cannot have a whole request; after that it may."""
    body, writer = Body(as_json({"text": "x" * 250_000})), Refusing(error, after=after)
    with pytest.raises(type(error)):
        await body.write(writer)
    assert len(writer.pieces) == after
    assert (body.begun, body.handed_over) == (True, handed_over)


async def test_a_body_that_was_given_up_is_not_sent() -> None:
    """One that is stopped in time hands nothing over; one that has begun cannot be stopped."""
    body, writer = Body(as_json({})), Pieces()
    assert body.stop()
    with pytest.raises(ConnectionError):
        await body.write(writer)
    assert (writer.pieces, body.begun, body.handed_over) == ([], False, False)
    other = Body(as_json({}))
    await other.write(writer)
    assert not other.stop()
    assert (other.begun, other.handed_over) == (True, True)


class Breaking:
    """A server that ends the first connections in the middle of a request's body, and answers the others."""

    def __init__(self, *, times: int, how: str) -> None:
        self.left = times
        self.how = how
        self.whole = 0
        self.url = ""
        self._server: asyncio.Server | None = None
        self._writers: list[asyncio.StreamWriter] = []

    async def __aenter__(self) -> Self:
        """Listen."""
        listening = socket.socket()
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2**16)  # so that not all of it is on its way at once
        listening.bind(("127.0.0.1", 0))
        self._server = await asyncio.start_server(self._serve, sock=listening)
        self.url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        """Stop."""
        assert self._server is not None
        self._server.close()
        for writer in self._writers:
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.append(writer)
        head = await reader.readuntil(b"\r\n\r\n")
        self.left -= 1
        if self.left >= 0:
            await reader.readexactly(2**20)
            if self.how == "abort":
                writer.transport.abort()
            elif self.how == "close":
                writer.close()
            return  # or stop reading
        length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
        await reader.readexactly(int(length.partition(b":")[2]))
        self.whole += 1
        writer.write(task())


@pytest.mark.real_time
@pytest.mark.parametrize("how", ["close", "abort"])
async def test_a_submit_that_broke_off_half_way_is_sent_again(how: str) -> None:
    """A server that had one part of the body has accepted nothing: the policy sends it again, without a doubt."""
    log = EventLog()
    quick = RetryPolicy(attempts=3, wait_initial=0.0, wait_jitter=0.0)
    async with Breaking(times=2, how=how) as server:
        async with Session("k", base_url=server.url, retry=quick, observers=[log]) as session:
            assert (await session.submit(LARGE)).task_id == "t-1"
        assert server.whole == 1
    assert [type(event.error) for event in log.of(events.Retrying)] == [ConnectError, ConnectError]
    assert not log.of(events.SubmissionInDoubt)


@pytest.mark.real_time
async def test_a_body_that_is_never_taken_was_not_sent() -> None:
    """Where the time is up while the server takes no more of a large body, nothing was accepted."""
    limit = aiohttp.ClientTimeout(total=0.5, sock_connect=0.5)
    async with Breaking(times=1, how="stop reading") as server:
        async with Session("k", base_url=server.url, retry=ONCE, timeout=limit) as session:
            with pytest.raises(ConnectError, match="before all of it was sent") as caught:
                await session.submit(LARGE)
    assert caught.value.safe_to_resubmit


async def test_what_a_trace_says_before_the_body_is_taken_is_told_and_safe() -> None:
    """A foreign error while the body is handed over is no doubt, and its words are in the message."""
    trace = aiohttp.TraceConfig()

    async def oops(*_: object) -> None:
        raise RuntimeError("oops")

    trace.on_request_chunk_sent.append(oops)
    async with RawServer(task()) as server, aiohttp.ClientSession(trace_configs=[trace]) as http:
        async with Session("k", base_url=server.url, http=http, retry=ONCE) as session:
            with pytest.raises(ConnectError, match="oops"):
                await session.submit(BEAR)
        assert server.received == []


# Connections that may be dead.


class Counting(RawServer):
    """A server that counts its connections."""

    def __init__(self, *replies: Any) -> None:
        super().__init__(*replies)
        self.connections = 0

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        super()._connected(reader, writer)


@pytest.mark.parametrize("client", ["own", "borrowed"])
async def test_a_connection_that_the_server_closed_is_not_used_for_a_submit(client: str) -> None:
    """The end of a connection that nobody had the time to read is read before a submit takes the connection."""
    async with Counting(task()) as server, aiohttp.ClientSession() as http:
        given = {} if client == "own" else {"http": http}
        async with Session("k", base_url=server.url, **given) as session:
            for _ in range(3):
                await session.submit(BEAR)
                for writer in list(server.busy):
                    writer.transport.abort()  # its last bytes lie in our socket from now on, unread
            assert (await session.submit(BEAR)).task_id == "t-1"
        assert (server.connections, len(server.received)) == (4, 4)


@pytest.mark.real_time
async def test_a_connection_that_is_idle_for_long_is_not_used_for_a_submit() -> None:
    """A burst of submits goes by one connection; after two seconds of silence a submit takes a new one, a poll not."""
    async with Counting(task()) as server, Session("k", base_url=server.url) as session:
        for _ in range(20):
            await session.submit(BEAR)
        assert server.connections == 1
        await session.get_task("t-1")
        await asyncio.sleep(2.2)
        await session.get_task("t-1")
        assert server.connections == 2
        await session.submit(BEAR)
        assert server.connections == 3


# Answers that are late, or seem so.


@pytest.mark.real_time
async def test_an_answer_that_has_come_is_read_before_the_limit_is_judged() -> None:
    """A loop that was held up for longer than the limit finds the answer in the socket, and believes it."""
    limit = aiohttp.ClientTimeout(total=0.3, sock_connect=0.3, sock_read=0.3)

    async def hold_up(_received: Received, writer: asyncio.StreamWriter) -> None:
        writer.write(task("t-77"))
        time.sleep(0.6)  # noqa: ASYNC251 - somebody's work that holds up the loop, ours and the server's

    async with RawServer(hold_up) as server, Session("k", base_url=server.url, timeout=limit) as session:
        assert (await session.submit(BEAR)).task_id == "t-77"


async def test_a_submit_without_an_answer_ends_by_silence_or_in_all() -> None:
    """The time limits of a submit hold: by default it is 45 s for the answer, and 120 s in all."""
    loop = asyncio.get_running_loop()
    for limit, expected in [
        (aiohttp.ClientTimeout(total=120, sock_connect=10, sock_read=45), 45),
        (aiohttp.ClientTimeout(total=30, sock_read=45), 30),
        (aiohttp.ClientTimeout(total=7), 7),
        (5, 5),
    ]:
        async with RawServer(stall) as server:
            async with Session("k", base_url=server.url, retry=ONCE, timeout=limit) as session:
                began = loop.time()
                with pytest.raises(SubmissionInDoubtError, match="in time"):
                    await session.submit(BEAR)
                assert loop.time() - began == pytest.approx(expected, abs=1.0)


async def test_a_limit_is_shortened_never_lengthened() -> None:
    """The earlier of two ends counts; a limit that was not reached leaves nothing behind; no limit is none."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    with pytest.raises(TimeoutError), Limit(10.0) as limit:  # noqa: PT012 - the block is what raises
        limit.shorten(3.0)
        limit.shorten(5.0)
        await asyncio.sleep(60)
    assert loop.time() - began == pytest.approx(3.5, abs=0.2)
    with Limit(1.0):
        pass
    with Limit(None):
        await asyncio.sleep(5)


async def test_a_cancel_is_not_taken_for_the_end_of_a_limit() -> None:
    """Who is cancelled when the time is up is cancelled."""

    async def limited() -> None:
        with Limit(1.0):
            await asyncio.sleep(60)

    task_ = asyncio.ensure_future(limited())
    await asyncio.sleep(0.1)
    asyncio.get_running_loop().call_later(1.4, task_.cancel)
    with pytest.raises((asyncio.CancelledError, TimeoutError)):
        await task_
    lasting = Lasting(limited(), holds=lambda: True, seconds=0.2)
    await asyncio.sleep(0.1)
    lasting.cancel()
    with pytest.raises(TimeoutError):
        await lasting


async def test_a_poll_has_its_own_limit() -> None:
    """What costs nothing ends by the time limit of a request as well."""
    async with RawServer(stall) as server, Session("k", base_url=server.url, retry=ONCE, timeout=3) as session:
        with pytest.raises(RequestTimeoutError):
            await session.get_task("t")


# What the other side, or a session of the user's, does otherwise.


@pytest.mark.parametrize("size", [9_000, 60_000])
@pytest.mark.parametrize("client", ["own", "borrowed"])
async def test_a_long_header_does_not_make_an_answer_unreadable(size: int, client: str) -> None:
    """Polls, submits and downloads take header lines of many kilobytes."""
    body = task("t-1", "completed").partition(b"\r\n\r\n")[2]
    more = {"Content-Security-Policy": "img-src https://" + "a" * size}

    async def reply(received: Received, writer: asyncio.StreamWriter) -> None:
        writer.write(answer(PNG if "png" in received.line else body, headers=more))

    async with RawServer(reply) as server, aiohttp.ClientSession() as http:
        given = {} if client == "own" else {"http": http}
        async with Session("k", base_url=server.url, retry=ONCE, **given) as session:
            assert (await session.get_task("t-1")).task_id == "t-1"
            assert (await session.submit(BEAR)).task_id == "t-1"
            assert (await session.fetch(Image(f"{server.url}/a.png"))).data == PNG


@pytest.mark.parametrize(
    "raw", [b"HTTP/1.1 " + b"9" * 60_000 + b"\r\n\r\n", b"the-key is no HTTP\r\n\r\n", b"\0" * 5000]
)
async def test_words_of_transport_errors_are_short_and_show_no_secret(raw: bytes) -> None:
    """A malformed answer, which aiohttp quotes in full, is shortened and redacted, in the causes as well."""

    async def reply(_received: Received, writer: asyncio.StreamWriter) -> None:
        writer.write(raw)
        await writer.drain()
        writer.close()

    async with RawServer(reply) as server, Session("the-key", base_url=server.url, retry=ONCE) as session:
        for call in (session.get_task("t"), session.submit(BEAR)):
            with pytest.raises((ConnectionError, Exception)) as caught:
                await call
            error: BaseException | None = caught.value
            while error is not None:
                assert len(str(error)) < 500
                assert error is not caught.value or "the-key" not in str(error)
                error = error.__cause__ or error.__context__


async def test_borrowed_session_that_does_not_decompress_is_read_all_the_same() -> None:
    """Compressed answers are unpacked whatever a borrowed session does by itself."""
    packed = gzip.compress(task("t-1").partition(b"\r\n\r\n")[2])
    async with RawServer(answer(packed, headers={"Content-Encoding": "gzip"})) as server:
        async with aiohttp.ClientSession(auto_decompress=False) as http:
            async with Session("k", base_url=server.url, http=http, retry=ONCE) as session:
                assert (await session.submit(BEAR)).task_id == "t-1"
                assert (await session.get_task("t-1")).task_id == "t-1"


async def test_borrowed_session_of_another_loop_is_refused_before_anything_is_sent() -> None:
    """It cannot be used here; the error says so, and submitting again is safe."""

    async def make() -> aiohttp.ClientSession:
        return aiohttp.ClientSession()

    other = asyncio.new_event_loop()
    http = await asyncio.to_thread(other.run_until_complete, make())
    async with RawServer(task()) as server, Session("k", base_url=server.url, http=http) as session:
        for call in (session.submit(BEAR), session.get_task("t"), session.fetch(Image(f"{server.url}/a.png"))):
            with pytest.raises(ConfigurationError, match="another event loop"):
                await call
        assert server.received == []
    await asyncio.to_thread(other.run_until_complete, http.close())
    other.close()


@pytest.mark.parametrize("how", ["ours", "borrowed"])
@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
async def test_an_answer_that_is_not_in_its_encoding_is_an_error_of_ours(encoding: str, how: str) -> None:
    """A body that claims an encoding and is not in it is no task and no picture, and no connection that was lost."""
    http = aiohttp.ClientSession(auto_decompress=False) if how == "borrowed" else None
    headers = {"Content-Encoding": encoding}
    lies = answer(b'{"code":200,"data":{"task_id":"t"}}', headers=headers)
    async with RawServer(lies, lies, answer(PNG, headers=headers)) as server:
        async with Session("k", base_url=server.url, http=http, retry=ONCE) as session:
            with pytest.raises(TransportError, match=f"no usable HTTP answer .*{encoding}") as caught:
                await session.get_task("t")
            assert type(caught.value) is TransportError
            with pytest.raises(SubmissionInDoubtError, match=encoding):
                await session.submit(BEAR)
            with pytest.raises(TransportError, match=f"no usable HTTP answer .*{encoding}"):
                await session.fetch(Image(f"{server.url}/a.png"))
        assert len(server.received) == 3
    if http is not None:
        await http.close()


async def test_an_answer_that_does_not_tell_its_encoding_is_an_error_of_ours() -> None:
    """Bytes in gzip that are not said to be so are an unexpected answer, and a submit that gets them is in doubt."""
    async with RawServer(answer(gzip.compress(b'{"code":200,"data":{"task_id":"t"}}'))) as server:
        async with Session("k", base_url=server.url, retry=ONCE) as session:
            with pytest.raises(UnexpectedResponseError):
                await session.get_task("t")
            with pytest.raises(SubmissionInDoubtError):
                await session.submit(BEAR)


@pytest.mark.parametrize("theirs", [None, "my-app/1.0"])
async def test_borrowed_session_has_a_user_agent(theirs: str | None) -> None:
    """Ours is sent where theirs is not set: Cloudflare blocks some of those that libraries send."""
    headers = {} if theirs is None else {"User-Agent": theirs}
    async with RawServer(task(), answer(PNG)) as server:
        async with aiohttp.ClientSession(headers=headers) as http, Session("k", base_url=server.url, http=http) as one:
            await one.submit(BEAR)
            await one.fetch(Image(f"{server.url}/a.png"))
        for received in server.received:
            (sent,) = [value for name, value in received.headers if name == "User-Agent"]
            assert sent == theirs or (theirs is None and sent.startswith("piapi_async/"))


async def test_borrowed_session_with_settings_of_its_own_is_used_as_ours() -> None:
    """Its `base_url`, `raise_for_status`, time limits and cookies do not change what our requests mean."""
    settings: dict[str, Any] = {
        "base_url": "https://example.com/elsewhere/",
        "raise_for_status": True,
        "timeout": aiohttp.ClientTimeout(total=0.001),
        "cookies": {"a": "b"},
    }

    async def late(_received: Received, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(1)
        writer.write(task())

    refusal = answer({"code": 401, "message": "no"}, status=401)
    async with RawServer(late, refusal) as server, aiohttp.ClientSession(**settings) as http:
        async with Session("k", base_url=server.url, http=http) as session:
            assert (await session.submit(BEAR)).task_id == "t-1"
            with pytest.raises(Exception, match="PiAPI answered 401: no"):
                await session.get_task("t-1")
