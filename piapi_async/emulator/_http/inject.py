"""Where a scripted fault meets the HTTP answer.

One function per fault: it gets the request, the answer that would have been sent and the fault's options, and sends
what is left of it.
"""

import asyncio
import datetime as dt
import email.utils
import re
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import attrs
from aiohttp import web
from yarl import URL

from piapi_async._asyncio import Clock
from piapi_async.emulator._http.responses import NOT_FOUND, Answer, envelope, page
from piapi_async.emulator.faults import Fault

_TITLES = {
    502: "502 Bad Gateway",
    503: "503 Service Temporarily Unavailable",
    504: "504 Gateway Time-out",
    522: "522: Connection timed out",
}
_STATUSES = {"html": 200, "empty": 200, "garbled": 200, "redirect": 302, "redirect-away": 307}
_TIME = re.compile(rb'(?<=_at":")([1-9]\d{3}-\d\d-\d\dT\d\d:\d\d:\d\d)')
_CHUNK = bytes(64 * 1024)


@attrs.frozen
class _Exchange:
    request: web.Request
    answer: Answer
    options: Mapping[str, Any]
    clock: Clock


_Spoiler = Callable[[_Exchange], Awaitable[web.StreamResponse]]


async def send(answer: Answer, *, request: web.Request, fault: Fault | None, clock: Clock) -> web.StreamResponse:
    """Send an answer, or what a fault leaves of it."""
    spoiler = _SPOILERS.get(fault.name) if fault else None
    if fault is None or spoiler is None:
        response: web.StreamResponse = _whole(answer)
    else:
        response = await spoiler(_Exchange(request, answer, fault.options, clock))
    if not response.prepared:
        # By the clock that stamps the tasks, also where time jumps: clients compare the two.
        response.headers.setdefault("Date", email.utils.formatdate(clock.now(), usegmt=True))
    return response


def sent_status(answer: Answer, *, fault: Fault | None) -> int | None:
    """The HTTP status the client sees in spite of, or because of, a fault; None when it sees no answer."""
    name = fault.name if fault else ""
    if name in ("cut-before-accept", "cut-after-accept", "stall"):
        return None
    if name[:3].isdigit():
        return int(name[:3])
    if fault is not None and name == "expired":
        return 404 if fault.options["answer"] == "404" else 200
    return _STATUSES.get(name, answer.status)


def _whole(answer: Answer) -> web.Response:
    return web.Response(
        status=answer.status, body=answer.body, content_type=answer.content_type, headers=answer.headers
    )


async def _cut(exchange: _Exchange) -> web.Response:
    exchange.request.protocol.force_close()
    return web.Response()


def _status(status: int) -> _Spoiler:
    async def send(_exchange: _Exchange) -> web.Response:
        if status in _TITLES:
            return web.Response(status=status, body=page(_TITLES[status]), content_type="text/html")
        body = envelope(None, message="internal server error", code=status)
        return web.Response(status=status, body=body, content_type="application/json")

    return send


async def _too_many(exchange: _Exchange) -> web.Response:
    retry_after = exchange.options["retry_after"]
    if retry_after == "date":
        then = exchange.clock.now() + exchange.options["seconds"]
        retry_after = email.utils.formatdate(then, usegmt=True)
    headers = {}
    if retry_after is not None:
        headers["Retry-After"] = str(retry_after)
    body = envelope(None, message="rate limit exceeded", code=429)
    return web.Response(status=429, body=body, content_type="application/json", headers=headers)


async def _not_found(exchange: _Exchange) -> web.Response:
    if not exchange.request.path.startswith("/api/v1/task"):
        return _whole(NOT_FOUND)
    body = envelope(None, message="task not found", code=404)
    return web.Response(status=404, body=body, content_type="application/json")


async def _html(_exchange: _Exchange) -> web.Response:
    return web.Response(body=page("PiAPI"), content_type="text/html")


async def _empty(exchange: _Exchange) -> web.Response:
    return web.Response(body=b"", content_type=exchange.answer.content_type)


async def _garbled(exchange: _Exchange) -> web.Response:
    return _whole(attrs.evolve(exchange.answer, status=200, body=_half(exchange.answer)))


async def _slow_headers(exchange: _Exchange) -> web.Response:
    await exchange.clock.sleep(exchange.options["seconds"])
    return _whole(exchange.answer)


async def _slow_body(exchange: _Exchange) -> web.StreamResponse:
    response = await _begin(exchange, length=len(exchange.answer.body))
    half = _half(exchange.answer)
    await response.write(half)
    await exchange.clock.sleep(exchange.options["seconds"])
    await response.write(exchange.answer.body[len(half) :])
    return response


async def _stall(_exchange: _Exchange) -> web.Response:
    never: asyncio.Future[web.Response] = asyncio.Future()
    return await never


async def _truncated(exchange: _Exchange) -> web.StreamResponse:
    response = await _begin(exchange, length=len(exchange.answer.body))
    await response.write(_half(exchange.answer))
    exchange.request.protocol.force_close()
    return response


async def _wrong_type(exchange: _Exchange) -> web.Response:
    return _whole(attrs.evolve(exchange.answer, content_type=exchange.options["content_type"]))


async def _redirect(exchange: _Exchange) -> web.Response:
    to = exchange.options["to"] or exchange.request.path
    return web.Response(status=302, headers={"Location": to})


async def _redirect_away(exchange: _Exchange) -> web.Response:
    here = URL(f"http://{exchange.request.host}")
    away = here.with_host("127.0.0.1" if here.host == "localhost" else "localhost").origin()
    to = exchange.options["to"] or f"{away}{exchange.request.path_qs}"
    return web.Response(status=307, headers={"Location": to})


async def _expired(exchange: _Exchange) -> web.Response:
    kinds = {"404": _not_found, "html": _html, "empty": _empty}
    return await kinds[exchange.options["answer"]](exchange)


async def _clock_skew(exchange: _Exchange) -> web.Response:
    seconds = exchange.options["seconds"]
    body = exchange.answer.body
    if exchange.answer.content_type == "application/json":
        body = _TIME.sub(lambda found: _later(found[1], seconds), body)
    response = _whole(attrs.evolve(exchange.answer, body=body))
    response.headers["Date"] = email.utils.formatdate(exchange.clock.now() + seconds, usegmt=True)
    return response


def _later(text: bytes, seconds: float) -> bytes:
    then = dt.datetime.fromisoformat(text.decode()) + dt.timedelta(seconds=seconds)
    return then.isoformat(timespec="seconds").encode()


async def _oversized(exchange: _Exchange) -> web.StreamResponse:
    size, body = exchange.options["size"], exchange.answer.body
    response = await _begin(exchange, length=max(size, len(body)))
    await response.write(body)
    for start in range(len(body), size, len(_CHUNK)):
        await response.write(_CHUNK[: size - start])
    return response


async def _begin(exchange: _Exchange, *, length: int) -> web.StreamResponse:
    response = web.StreamResponse(status=exchange.answer.status)
    response.content_type = exchange.answer.content_type
    response.content_length = length
    await response.prepare(exchange.request)
    return response


def _half(answer: Answer) -> bytes:
    return answer.body[: len(answer.body) // 2]


_SPOILERS: Mapping[str, _Spoiler] = {
    "cut-before-accept": _cut,
    "cut-after-accept": _cut,
    **{str(status): _status(status) for status in (500, *_TITLES)},
    **{f"{status}-after-accept": _status(status) for status in (500, *_TITLES)},
    "429": _too_many,
    "404": _not_found,
    "html": _html,
    "empty": _empty,
    "garbled": _garbled,
    "slow-headers": _slow_headers,
    "slow-body": _slow_body,
    "stall": _stall,
    "truncated": _truncated,
    "wrong-type": _wrong_type,
    "redirect": _redirect,
    "redirect-away": _redirect_away,
    "expired": _expired,
    "clock-skew": _clock_skew,
    "oversized": _oversized,
}
