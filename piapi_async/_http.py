"""The only door to the network: aiohttp behind one `send`, its errors turned into ours."""

import asyncio
import math
import re
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from urllib.parse import urljoin, urlsplit

import aiohttp
import attrs
from aiohttp.abc import AbstractStreamWriter
from yarl import URL

from piapi_async import _checks, errors
from piapi_async._calls import Call
from piapi_async._content import Content
from piapi_async._loop import PerLoop
from piapi_async._wire import Answer

CONNECTIONS = 100
"""API requests under way at once, and submits in memory. More wait for their turn; their time limits begin with it."""

DOWNLOADS = 16
"""Downloads under way at once, besides those."""

LARGE = 8
"""Submits and uploads of local pictures under way at once: each holds its pictures in memory until it is answered."""

ANSWER_MAX = 64 * 2**20
"""The longest answer that is read, in bytes; a picture may be inside it."""

DEFAULT_TIMEOUT = aiohttp.ClientTimeout(total=120, sock_connect=10, sock_read=45)
"""Time limits of one request, in seconds. Cloudflare, before the service, cuts every request at 120 s.

Silence ends a request sooner, so that `RetryPolicy.timeout` leaves room for another look.
"""

REDIRECTS = 5
"""How many redirects a download follows."""

_REDIRECTED = (301, 302, 303, 307, 308)
_VALID_URL = re.compile(r"(?:[\w.~:/?#\[\]@!$&'()*+,;=-]|%[0-9A-Fa-f]{2})*", re.ASCII)  # RFC 3986
_CHUNK = 2**16


class Body(aiohttp.payload.Payload):
    """A request body that knows whether its sending began: before that, the server cannot have acted on it."""

    begun: bool = False

    def __init__(self, content: Content) -> None:
        super().__init__(content, content_type="application/json")
        self._size = content.size

    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        """The body as text, which aiohttp asks of every payload."""
        return b"".join(self._value.pieces()).decode(encoding, errors)

    async def write(self, writer: AbstractStreamWriter) -> None:
        """Send the body piece by piece, so that a large one does not hold up the event loop."""
        self.begun = True
        for piece in self._value.pieces():
            await writer.write(piece)
            await asyncio.sleep(0)  # a fast connection takes every piece at once, and others want their turns


@attrs.frozen
class Download:
    """An answer under way, its body still to come."""

    url: str
    response: aiohttp.ClientResponse

    async def read(self) -> bytes:
        """The next piece of the body, empty at its end.

        Raises:
            TransportError: It broke off.
        """
        with _translated(self.url, body=None):
            return await self.response.content.read(4 * _CHUNK)


@attrs.define
class _Open:
    lifeline: AsyncGenerator[aiohttp.ClientSession, None]
    session: aiohttp.ClientSession


class Transport:
    """HTTP for one `Session`.

    Args:
        http: A client session of the user's, which is never closed here, or `None` to keep one's own, one for each
            event loop.

        timeout: The time limits of one request.
    """

    def __init__(self, *, http: aiohttp.ClientSession | None, timeout: aiohttp.ClientTimeout) -> None:
        self._borrowed = http
        self._timeout = timeout
        self._brief = _brief(timeout)
        self._own: dict[asyncio.AbstractEventLoop, _Open] = {}
        self._closed = False
        self._slots = PerLoop(lambda: asyncio.Semaphore(CONNECTIONS))
        self._downloads = PerLoop(lambda: asyncio.Semaphore(DOWNLOADS))
        self._small = PerLoop(lambda: asyncio.Semaphore(CONNECTIONS))
        self._large = PerLoop(lambda: asyncio.Semaphore(LARGE))

    @property
    def is_open(self) -> bool:
        """Whether a client session of our own waits to be closed."""
        return bool(self._own)

    def reopen(self) -> None:
        """Allow requests again after `aclose`."""
        self._closed = False

    async def aclose(self) -> None:
        """Close what is ours and open in this event loop, and forget what closed loops left."""
        self._closed = True
        mine = self._own.pop(asyncio.get_running_loop(), None)
        self._forget_closed_loops()
        if mine is not None:
            await mine.lifeline.aclose()

    def slot(self) -> asyncio.Semaphore:
        """The right to have one API request under way, to be held with `async with`."""
        return self._slots.get()

    def in_memory(self, *, large: bool) -> asyncio.Semaphore:
        """The right to have a submit or an upload in memory, to be held with `async with` from before it is made."""
        return (self._large if large else self._small).get()

    async def send(self, call: Call) -> Answer:
        """Make one request that costs nothing.

        Raises:
            TransportError: No usable answer came.
            UnexpectedResponseError: The answer is too long.
        """
        async with self.slot():
            return await self.exchange(call, body=None if call.body is None else Body(call.body))

    async def exchange(self, call: Call, *, body: Body | None) -> Answer:
        """Make one request, at once; the errors are those of `send`. The caller holds a `slot`."""
        session = await self._session()
        with _translated(call.url, body=body):
            # Redirects are not followed: they would carry the API key to wherever they point.
            async with session.request(
                call.method,
                call.url,
                headers=call.headers,
                data=body,
                allow_redirects=False,
                raise_for_status=False,
                timeout=self._brief if body is None or (body.size or 0) < _CHUNK else self._timeout,
            ) as response:
                return Answer(status=response.status, headers=response.headers, body=await _read(response))

    @asynccontextmanager
    async def download(self, url: str, *, headers: Mapping[str, str]) -> AsyncIterator["Download"]:
        """Open a result's URL, without the API key.

        Redirects are followed here: aiohttp would spell their targets anew, which breaks signed links.

        Args:
            url: Where it is.

            headers: What is asked for beyond it: a range, say.

        Raises:
            TransportError: No answer came, or one redirect too many.
        """
        async with self._downloads.get():
            session, target = await self._session(), url
            for _ in range(1 + REDIRECTS):
                with _translated(target, body=None):
                    response = await session.get(
                        _as_it_is(target),
                        headers=headers,
                        allow_redirects=False,
                        raise_for_status=False,
                        timeout=_untimed(self._timeout),
                    )
                try:
                    location = response.headers.get("Location", "") if response.status in _REDIRECTED else ""
                    if not location:
                        yield Download(url, response)
                        return
                finally:
                    response.release()
                target = location if _checks.is_http_url(location) else urljoin(target, location)
                if not _checks.is_http_url(target):
                    raise _no_answer(url, f"it redirects to {_checks.short(location)}, which is not an http(s) URL")
            raise _no_answer(url, f"it redirects more than {REDIRECTS} times")

    async def _session(self) -> aiohttp.ClientSession:
        if self._closed:
            raise errors.ConfigurationError("this session is closed; 'async with session' opens it again")
        if self._borrowed is not None:
            if self._borrowed.closed:
                raise errors.ConfigurationError("the aiohttp session passed as http= is closed")
            return self._borrowed
        loop = asyncio.get_running_loop()
        opened = self._own.get(loop)
        if opened is None or opened.session.closed:
            self._forget_closed_loops()
            lifeline = _lifeline()
            opened = self._own[loop] = _Open(lifeline, await anext(lifeline))
        return opened.session

    def _forget_closed_loops(self) -> None:
        self._own = {loop: opened for loop, opened in self._own.items() if not loop.is_closed()}


def _brief(timeout: aiohttp.ClientTimeout) -> aiohttp.ClientTimeout:
    """The limits of a request that is short, as is its answer: one timer, where silence and slowness have one each."""
    if not (timeout.sock_connect and timeout.sock_read):
        return timeout
    total = min(timeout.total or math.inf, timeout.sock_connect + timeout.sock_read)
    return aiohttp.ClientTimeout(total=total, connect=timeout.connect, sock_connect=timeout.sock_connect)


def _no_answer(url: str, why: str) -> errors.TransportError:
    return errors.TransportError(f"no usable HTTP answer from {urlsplit(url).hostname}: {why}")


def _untimed(timeout: aiohttp.ClientTimeout) -> aiohttp.ClientTimeout:
    """The limits of a download: however slow a line is, it gets its picture as long as something moves.

    What would limit the whole limits each silence instead, where nothing else does.
    """
    return aiohttp.ClientTimeout(
        total=None,
        connect=timeout.connect,
        sock_connect=timeout.sock_connect or timeout.total,
        sock_read=timeout.sock_read or timeout.total,
    )


def _as_it_is(url: str) -> URL:
    """A URL as it is given: links may be signed over their exact spelling. Only what is not a valid one is quoted."""
    return URL(url, encoded=_VALID_URL.fullmatch(url) is not None)


async def _lifeline() -> AsyncGenerator[aiohttp.ClientSession, None]:
    """A client session that its event loop closes.

    `asyncio.run` finishes all async generators before it closes the loop, so a `Session` that outlives its first loop
    leaves no sockets behind in it.
    """
    connector = aiohttp.TCPConnector(limit=CONNECTIONS + DOWNLOADS)
    async with aiohttp.ClientSession(
        connector=connector, cookie_jar=aiohttp.DummyCookieJar(), headers={"User-Agent": user_agent()}
    ) as session:
        yield session


def user_agent() -> str:
    """How this package names itself to servers."""
    from importlib.metadata import PackageNotFoundError, version  # noqa: PLC0415 - slow, and needed only here

    try:
        return f"piapi_async/{version('piapi_async')}"
    except PackageNotFoundError:
        return "piapi_async"


async def _read(response: aiohttp.ClientResponse) -> bytes:
    if "Content-Encoding" not in response.headers and (response.content_length or math.inf) <= ANSWER_MAX:
        return await response.read()
    body = bytearray()
    async for chunk in response.content.iter_any():
        body += chunk
        if len(body) > ANSWER_MAX:
            response.close()
            raise errors.UnexpectedResponseError(
                f"PiAPI's answer is longer than {ANSWER_MAX} bytes", status=response.status
            )
    return bytes(body)


@contextmanager
def _translated(url: str, *, body: Body | None) -> Iterator[None]:
    try:
        yield
    except (aiohttp.ClientError, OSError, ValueError) as error:
        if isinstance(error, errors.PiAPIError):
            raise
        _forget_key(error)
        raise translate(error, url=url, unsent=body is not None and not body.begun) from error


def _forget_key(error: Exception) -> None:
    """Take the API key out of an aiohttp error that carries the request's headers, and shows them in its `repr`."""
    if isinstance(error, aiohttp.ClientResponseError):
        headers = error.request_info.headers.copy()
        headers.popall("X-API-Key", None)
        error.request_info = error.request_info._replace(headers=type(error.request_info.headers)(headers))
        error.args = (error.request_info, error.history)


def translate(error: Exception, *, url: str, unsent: bool) -> errors.TransportError:
    """Our error for one of aiohttp's.

    Args:
        error: What aiohttp raised.

        url: Where the request went; only its host is told.

        unsent: Whether it is certain that the request did not begin to be sent.
    """
    host = urlsplit(url).hostname
    connecting = aiohttp.ClientConnectorError | aiohttp.ConnectionTimeoutError
    if unsent or isinstance(error, connecting):
        return errors.ConnectError(f"cannot connect to {host}: {_words(error)}; nothing was sent")
    if isinstance(error, TimeoutError):
        return errors.RequestTimeoutError(f"no answer from {host} in time: {_words(error)}")
    if isinstance(error, aiohttp.ClientConnectionError | aiohttp.ClientPayloadError | OSError):
        return errors.ConnectionLostError(f"lost the connection to {host}: {_words(error)}")
    return errors.TransportError(f"no usable HTTP answer from {host}: {_words(error)}")


def _words(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
