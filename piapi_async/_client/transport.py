"""HTTP by aiohttp: one `send` for the API, one `download` for pictures, and aiohttp's errors turned into ours."""

import asyncio
import base64
import ipaddress
import math
import re
import urllib.request
from collections.abc import AsyncGenerator, AsyncIterator, Collection, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager, nullcontext
from urllib.parse import quote, urljoin, urlsplit

import aiohttp
import attrs
from aiohttp.abc import AbstractStreamWriter
from aiohttp.http_exceptions import ContentEncodingError
from yarl import URL

from piapi_async import _validators, errors
from piapi_async._asyncio import Clock, Limit, PerLoop
from piapi_async._client.body import Content
from piapi_async._client.requests import Call
from piapi_async._client.responses import Answer, http_date, told
from piapi_async._text import Secret

CONNECTIONS = 100
"""Submits in memory at once. More wait for their turn; their time limits begin with it."""

DOWNLOADS = 16
"""Downloads under way at once, besides those."""

LARGE = 8
"""Submits and uploads of local pictures under way at once: each holds its pictures in memory until it is answered."""

ANSWER_MAX = 64 * 2**20
"""The longest answer that is read, in bytes; a picture may be inside it."""

CONNECT, SILENCE = 10.0, 45.0
"""Seconds for a connection to come about, and for the next bytes of an answer to come, by default."""

DEFAULT_TIMEOUT = aiohttp.ClientTimeout(total=120, sock_connect=CONNECT, sock_read=SILENCE)
"""Time limits of one request, in seconds. Cloudflare, before the service, cuts every request at 120 s.

Silence ends a request sooner, so that `RetryPolicy.timeout` leaves room for another poll.
"""

HEADER_MAX = 2**18
"""The longest line of an answer's head, in bytes. Content policies and the cookies of firewalls pass aiohttp's 8 kB."""

KEPT_ALIVE = 2.0
"""Seconds after which an idle connection is not used for a submit any more.

Servers close theirs after 5 s and more; what is sent at that moment is in doubt, and a new one costs about 0.1 s.
"""

REDIRECTS = 5
"""How many redirects a download follows."""

_REDIRECTED = (301, 302, 303, 307, 308)
_NOT_OF_A_URL = re.compile(r"%(?![0-9A-Fa-f]{2})|[^\w.~:/?#\[\]@!$&'()*+,;=%-]", re.ASCII)  # RFC 3986
_CHUNK = 2**16


class Body(aiohttp.payload.Payload):
    """A request body that knows how far its sending came.

    Attributes:
        begun: Whether its first byte was handed over. Before that nothing was sent but, at most, the request's head.

        handed_over: Whether its last byte was. Before that the server has one part of a JSON text at most, and cannot
            have acted on it.

        limit: The request's time limit, if it has one of ours.

        patience: Seconds that the answer may take from when the body is handed over, in which `limit` ends then;
            `None` for no such limit.
    """

    begun: bool = False
    handed_over: bool = False
    limit: Limit | None = None
    patience: float | None = None
    _is_stopped: bool = False

    def __init__(self, content: Content) -> None:
        super().__init__(content, content_type="application/json")
        self._size = content.size

    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        """The body as text, which aiohttp asks of every payload."""
        return b"".join(self._value.pieces()).decode(encoding, errors)

    async def write(self, writer: AbstractStreamWriter) -> None:
        """Send the body piece by piece, so that a large one does not hold up the event loop."""
        if self._is_stopped:
            raise ConnectionError("the request was given up")
        self.begun = True
        left = self._value.size
        for piece in self._value.pieces():
            left -= len(piece)
            # From here on the last piece is in the connection's buffer, which is sent even where a cancel closes it.
            self.handed_over = left == 0
            try:
                # As a view of the bytes, which does not show them in the frames of a traceback.
                await writer.write(memoryview(piece))
            except Exception:
                # It was not taken, or the connection broke while more of it was in the buffer than lets us go on.
                self.handed_over = False
                raise
            if left:
                await asyncio.sleep(0)  # a fast connection takes every piece at once, and others want their turns
        if self.limit is not None and self.patience is not None:
            self.limit.shorten(self.patience)

    def stop(self) -> bool:
        """Keep it from being sent, if that has not begun; whether that is so."""
        self._is_stopped = not self.begun
        return self._is_stopped


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


@attrs.frozen
class _Clients:
    """The client sessions of one event loop: one for what costs nothing, and one for submits."""

    free: aiohttp.ClientSession
    paid: aiohttp.ClientSession


@attrs.frozen
class _Open:
    lifeline: AsyncGenerator[_Clients, None]
    clients: _Clients


class Transport:
    """HTTP for one `Session`.

    Args:
        http: A client session of the user's, which is never closed here, or `None` to keep one's own, one for each
            event loop.

        timeout: The time limits of one request.

        trust_env: Whether the environment's proxies are used, by client sessions of one's own.

        clock: Learns the service's time from its answers.
    """

    def __init__(
        self,
        *,
        http: aiohttp.ClientSession | None,
        timeout: aiohttp.ClientTimeout,
        trust_env: bool = True,
        clock: Clock | None = None,
    ) -> None:
        self._borrowed = http
        self._timeout = timeout
        self._trust_env = trust_env
        self._clock = clock or Clock()
        self._brief = _brief(timeout)
        self._own: dict[asyncio.AbstractEventLoop, _Open] = {}
        self._closed = False
        self._date = ""
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

    def in_memory(self, *, large: bool) -> asyncio.Semaphore:
        """The right to have a submit or an upload in memory, to be held with `async with` from before it is made."""
        return (self._large if large else self._small).get()

    async def send(self, call: Call, *, body: Body | None = None) -> Answer:
        """Make one request, at once; how many are under way is the governor's concern.

        Args:
            call: The request.

            body: Of a request that costs money, its body, by which the caller sees how far it came. Where the answer to
                it breaks off, that is not an error here but `Answer.cut`: what came may name a task that is paid for.

        Raises:
            ConnectError: It was not sent, or not to its last byte: nothing was accepted.
            TransportError: No usable answer came.
            UnexpectedResponseError: The answer is too long.
        """
        is_paid = body is not None
        client = await self._client(is_paid=is_paid)
        if body is None:
            body = None if call.body is None else Body(call.body)
            limit, timeout = None, self._brief if body is None or (body.size or 0) < _CHUNK else self._timeout
        else:
            # A connection that the server has closed meanwhile, while something held up the event loop, is known to be
            # so once the loop has had two turns: one to read what lies in the sockets, and one to act on it.
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            # aiohttp's own limits would cancel a task that holds out against it, and are believed before what has
            # arrived is read.
            limit = body.limit = Limit(self._timeout.total)
            body.patience = self._timeout.sock_read
            timeout = aiohttp.ClientTimeout(connect=self._timeout.connect, sock_connect=self._timeout.sock_connect)
        with _translated(call, body=body), limit or nullcontext():
            began = self._clock.monotonic()
            # Redirects are not followed: they would carry the API key to wherever they point. Some of this is said for
            # client sessions of the user's, which may be set up otherwise.
            async with client.request(
                call.method,
                call.url,
                headers={**_named(client), **call.headers},
                data=body,
                allow_redirects=False,
                raise_for_status=False,
                auto_decompress=True,
                max_line_size=HEADER_MAX,
                max_field_size=HEADER_MAX,
                timeout=timeout,
            ) as response:
                content, broken_by = await _read(response, limit=limit)
            self._learn(response.headers, took=self._clock.monotonic() - began)
        cut = None
        if broken_by is not None:
            _forget(broken_by, secrets=_secrets(call))
            cut = translate(broken_by, url=call.url, unsent=False, secrets=_secrets(call))
            cut.__cause__ = broken_by
            if not is_paid:
                raise cut
        return Answer(status=response.status, headers=response.headers, body=content, cut=cut, url=call.url)

    def _learn(self, headers: Mapping[str, str], *, took: float) -> None:
        """Learn the service's time from an answer; one a second is enough, and a copy of a cache tells an older one."""
        date = headers.get("Date", "")
        if date != self._date and "Age" not in headers:
            self._date = date
            seconds = http_date(date)
            if seconds is not None:
                self._clock.learn(seconds, took=took)

    @asynccontextmanager
    async def download(self, url: str, *, headers: Mapping[str, str]) -> AsyncIterator["Download"]:
        """Open a result's URL, without the API key, and without the headers and cookies of a borrowed client session.

        Redirects are followed here: aiohttp would spell their targets anew, which breaks signed links.

        Args:
            url: Where it is.

            headers: What is asked for beyond it: a range, say.

        Raises:
            TransportError: No answer came, or one redirect too many.
        """
        async with self._downloads.get():
            client, target = await self._client(), url
            for _ in range(1 + REDIRECTS):
                with _translated(target, body=None):
                    response = await client.get(
                        _as_it_is(target),
                        headers={**_named(client), **headers},
                        allow_redirects=False,
                        raise_for_status=False,
                        auto_decompress=True,
                        max_line_size=HEADER_MAX,
                        max_field_size=HEADER_MAX,
                        timeout=_untimed(self._timeout),
                        middlewares=None if self._borrowed is None else _without_defaults(client, own=headers),
                    )
                try:
                    location = response.headers.get("Location", "") if response.status in _REDIRECTED else ""
                    if not location:
                        yield Download(url, response)
                        return
                finally:
                    response.release()
                target = location if _validators.is_http_url(location) else urljoin(target, location)
                if not _validators.is_http_url(target):
                    raise _no_answer(url, f"it redirects to {_validators.short(location)}, which is not an http(s) URL")
            raise _no_answer(url, f"it redirects more than {REDIRECTS} times")

    async def _client(self, *, is_paid: bool = False) -> aiohttp.ClientSession:
        if self._closed:
            raise errors.ConfigurationError("this session is closed; 'async with session' opens it again")
        loop = asyncio.get_running_loop()
        if self._borrowed is not None:
            if self._borrowed.closed:
                raise errors.ConfigurationError("the aiohttp session passed as http= is closed")
            # aiohttp tells its loop by a deprecated property alone.
            if getattr(self._borrowed, "_loop", loop) is not loop:
                raise errors.ConfigurationError(
                    "the aiohttp session passed as http= belongs to another event loop; make it in the one that uses it"
                )
            return self._borrowed
        opened = self._own.get(loop)
        if opened is None or opened.clients.free.closed:
            self._forget_closed_loops()
            lifeline = _lifeline(trust_env=self._trust_env)
            opened = self._own[loop] = _Open(lifeline, await anext(lifeline))
        return opened.clients.paid if is_paid else opened.clients.free

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
    """A URL as it is given: links may be signed over their exact spelling. Only what no URL may hold is quoted."""
    scheme, _, rest = url.partition("://")
    host = re.match(r"[^/?#]*", rest)
    assert host is not None
    spelt = f"{scheme}://{host[0]}" + _NOT_OF_A_URL.sub(lambda found: quote(found[0]), rest[host.end() :])
    return URL(spelt, encoded=True) if host[0].isascii() else URL(url)


async def _lifeline(*, trust_env: bool) -> AsyncGenerator[_Clients, None]:
    """Client sessions that their event loop closes.

    `asyncio.run` finishes all async generators before it closes the loop, so a `Session` that outlives its first loop
    leaves no sockets behind in it.
    """
    # Not aiohttp's own `trust_env`, which reads passwords from .netrc as well, and sends them to the API.
    proxies = _proxies() if trust_env else {}

    def client(connector: aiohttp.TCPConnector) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={"User-Agent": user_agent()},
            middlewares=[_by_proxy(proxies)] if proxies else (),
        )

    async with (
        client(aiohttp.TCPConnector(limit=CONNECTIONS + DOWNLOADS)) as free,
        client(aiohttp.TCPConnector(limit=CONNECTIONS, keepalive_timeout=KEPT_ALIVE)) as paid,
    ):
        yield _Clients(free=free, paid=paid)


@attrs.frozen
class _Proxy:
    """A proxy of the environment; its password is in `authorization` alone."""

    url: URL
    authorization: str | None


def _proxies() -> dict[str, str]:
    """The proxies of the environment (`HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY`) or of the system, by a URL's scheme."""
    found = {scheme: Secret(text) for scheme, text in urllib.request.getproxies().items()}
    named = {scheme: found.get(scheme) or found.get("all") for scheme in ("http", "https")}
    return {scheme: text for scheme, text in named.items() if text}


def _proxy(text: str) -> _Proxy:
    """A proxy, read where a request is to go by it: one that cannot be used does no harm to what does not.

    Raises:
        ConfigurationError: It is neither an http nor an https proxy.
    """
    text = Secret(text if "://" in text else f"http://{text}")
    scheme = text.partition(":")[0].lower()
    if scheme not in ("http", "https") or not _validators.is_http_url(text):
        raise errors.ConfigurationError(
            f"the proxy that the environment names, one by {scheme}://, cannot be used; set HTTPS_PROXY to an http://"
            " or https:// URL, name the service in NO_PROXY, or pass Session(trust_env=False)"
        )
    url = URL(text)
    authorization = None
    if url.user is not None:
        login = f"{url.user}:{url.password or ''}".encode()
        authorization = Secret(f"Basic {base64.b64encode(login).decode()}")
    return _Proxy(url=url.origin(), authorization=authorization)


def _by_proxy(proxies: Mapping[str, str]) -> aiohttp.ClientMiddlewareType:
    """Sends requests, and where they are redirected to, by the proxies that the environment names for them."""

    async def send(request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
        named = proxies.get(request.url.scheme)
        if named is not None and await _is_proxied(request.url):
            proxy = _proxy(named)
            headers = {} if proxy.authorization is None else {"Proxy-Authorization": proxy.authorization}
            if request.url.scheme == "http":
                request.headers.update(headers)  # the proxy itself reads the request
            request.update_proxy(proxy.url, None, headers)
        return await handler(request)

    return send


async def _is_proxied(url: URL) -> bool:
    host = url.host or ""
    if is_loopback(host):
        return False
    where = f"{host}:{url.port}"
    bypass = urllib.request.proxy_bypass
    # Without the environment the settings of macOS and Windows are asked for, and these perhaps ask the network.
    return not (bypass(where) if urllib.request.getproxies_environment() else await asyncio.to_thread(bypass, where))


def is_loopback(host: str) -> bool:
    """Whether a host is this machine itself, by its name or address."""
    name = host.lower().strip("[]").rstrip(".")
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def _named(client: aiohttp.ClientSession) -> dict[str, str]:
    """The `User-Agent`, where a client session has none: Cloudflare refuses some of those that libraries send."""
    return {} if "User-Agent" in client.headers else {"User-Agent": user_agent()}


def _without_defaults(client: aiohttp.ClientSession, *, own: Collection[str]) -> Sequence[aiohttp.ClientMiddlewareType]:
    """The middlewares of a borrowed client session, after one that takes off what the session adds to every request.

    Its headers, its login and its cookies may be secrets of its owner: they are meant for the API, or for services that
    have nothing to do with it, and a picture may lie on any host. A middleware may add what it likes, host by host.

    Args:
        client: The client session.

        own: The headers of the request itself, which stay.
    """
    kept = {"host", "user-agent", *map(str.lower, own)}
    added = {"Cookie", *(name for name in client.headers if name.lower() not in kept)}
    if getattr(client, "auth", None) is not None:  # which aiohttp 4 is to drop
        added.add("Authorization")

    async def take_off(request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
        for name in added:
            request.headers.popall(name, None)
        return await handler(request)

    # aiohttp tells a session's own middlewares by a private attribute alone.
    return (take_off, *getattr(client, "_middlewares", ()))


def time_limits(given: object) -> aiohttp.ClientTimeout:
    """The time limits of one request: as they are given, or from seconds for all of it.

    Raises:
        TypeError: It is neither.
        ValueError: It is not above 0, or infinite.
    """
    if isinstance(given, aiohttp.ClientTimeout):
        return given
    total = _validators.seconds("timeout", given, above=0, other=", or an aiohttp.ClientTimeout")
    return aiohttp.ClientTimeout(total=total, sock_connect=min(total, CONNECT), sock_read=min(total, SILENCE))


def user_agent() -> str:
    """How this package names itself to servers."""
    from importlib.metadata import PackageNotFoundError, version  # noqa: PLC0415 - slow, and needed only here

    try:
        return f"piapi_async/{version('piapi_async')}"
    except PackageNotFoundError:
        return "piapi_async"


async def _read(response: aiohttp.ClientResponse, *, limit: Limit | None) -> tuple[bytes, Exception | None]:
    """An answer's body, or what came of it before it broke off, with what broke it off."""
    body = bytearray()
    try:
        async for chunk in response.content.iter_any():
            body += chunk
            if len(body) > ANSWER_MAX:
                response.close()
                raise errors.UnexpectedResponseError(
                    f"PiAPI's answer is longer than {ANSWER_MAX} bytes", status=response.status
                )
    except (aiohttp.ClientError, OSError, ValueError) as error:
        return bytes(body), error
    except asyncio.CancelledError:
        if limit is None or not limit.is_over:
            raise
        limit.undo()
        return bytes(body), TimeoutError()
    return bytes(body), None


@contextmanager
def _translated(call: Call | str, *, body: Body | None) -> Iterator[None]:
    url, secrets = (call, ()) if isinstance(call, str) else (call.url, _secrets(call))
    try:
        yield
    except (aiohttp.ClientError, OSError, ValueError) as error:
        if isinstance(error, errors.PiAPIError):
            raise
        _forget(error, secrets=secrets)
        unsent = body is not None and not body.handed_over
        partly = body is not None and body.begun
        raise translate(error, url=url, unsent=unsent, partly=partly, secrets=secrets) from error


def _secrets(call: Call) -> tuple[str, ...]:
    return (call.api_key, *call.secrets)


def _forget(error: BaseException, *, secrets: Collection[str]) -> None:
    """Take out of aiohttp's errors what is large or secret: its frames, whose variables are headers and bodies.

    The messages of a malformed answer hold all of it, and error reporters send local variables along.
    """
    seen: list[BaseException] = []
    cause: BaseException | None = error
    while cause is not None and cause not in seen:
        seen.append(cause)
        cause.__traceback__ = None
        cause = cause.__cause__ or cause.__context__
    if isinstance(error, aiohttp.ClientResponseError):
        error.__cause__ = error.__context__ = None  # the parser's, with the same words
        headers = error.request_info.headers.copy()
        headers.popall("X-API-Key", None)
        error.request_info = error.request_info._replace(headers=type(error.request_info.headers)(headers))
        error.args = (error.request_info, error.history)
        error.message = told(error.message, secrets=secrets)


def translate(
    error: Exception, *, url: str, unsent: bool, partly: bool = False, secrets: Collection[str] = ()
) -> errors.TransportError:
    """Our error for one of aiohttp's.

    Args:
        error: What aiohttp raised.

        url: Where the request went; only its host is told.

        unsent: Whether it is certain that the request was not sent to its last byte.

        partly: Whether a part of it was.

        secrets: Texts that must not appear in the message.
    """
    host = urlsplit(url).hostname
    if unsent and partly:
        cause = error.__cause__ or error  # aiohttp's own words come with all that it knows of the connection
        words = told(str(cause) or type(cause).__name__, secrets=secrets)
        return errors.ConnectError(f"the request to {host} broke off before all of it was sent: {words}")
    words = told(_words(error) or type(error).__name__, secrets=secrets)
    connecting = aiohttp.ClientConnectorError | aiohttp.ConnectionTimeoutError
    if unsent or isinstance(error, connecting):
        return errors.ConnectError(f"cannot connect to {host}: {words}; nothing was sent")
    if isinstance(error, TimeoutError):
        return errors.RequestTimeoutError(f"no answer from {host} in time: {words}")
    # The connection held where an answer came that is not in the encoding that it claims.
    is_garbled = isinstance(error.__cause__, ContentEncodingError)
    if isinstance(error, aiohttp.ClientConnectionError | aiohttp.ClientPayloadError | OSError) and not is_garbled:
        return errors.ConnectionLostError(f"lost the connection to {host}: {words}")
    return errors.TransportError(f"no usable HTTP answer from {host}: {words}")


def _words(error: Exception) -> str:
    """What happened, in words. Those of aiohttp's that say what and where could not be connected are not repeated."""
    if isinstance(error, aiohttp.ConnectionTimeoutError):
        return "no connection in time"
    if not isinstance(error, aiohttp.ClientConnectorError):
        return str(error)
    # An error about a certificate has no `os_error` in older versions of aiohttp.
    cause: Exception = (
        error.certificate_error if isinstance(error, aiohttp.ClientConnectorCertificateError) else error.os_error
    )
    words = getattr(cause, "strerror", None) or str(cause)
    return (
        f"proxy {error.host}:{error.port}: {words}" if isinstance(error, aiohttp.ClientProxyConnectionError) else words
    )
