"""The API key and the webhook secret stay where they belong, also when the server tells them to everybody."""

import asyncio
import logging
import traceback
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from support.raw_server import PNG, RawServer, answer, closing, cut, refusing, stall, task

from piapi_async import Img2Img, Polling, RetryPolicy, Session, WebhookConfig
from piapi_async.errors import APIError, PiAPIError
from piapi_async.testing import EventLog

KEY = "sk-0123456789-the-key"
SECRETS = ["hush-the-secret", 'quo"ted-\\secret', "sécret-ключ", "a&b<secret>"]
BEAR = Img2Img(prompt="a bear", image="https://example.com/a.jpg")
ONCE = RetryPolicy(attempts=2, wait_initial=0, wait_jitter=0)


def chain(error: BaseException) -> Iterator[BaseException]:
    """An error and all that stand behind it."""
    seen: list[BaseException] = []
    waiting: list[BaseException | None] = [error]
    while waiting:
        one = waiting.pop()
        if one is not None and one not in seen:
            seen.append(one)
            waiting += [one.__cause__, one.__context__]
    return iter(seen)


def shown(error: BaseException) -> str:
    """All that somebody who prints, logs or stores an error gets to see of it."""
    parts = traceback.format_exception(error)
    for one in chain(error):
        parts += [str(one), repr(one), repr(one.args), repr(one.__dict__), repr(getattr(one, "__notes__", ()))]
    return "\n".join(parts)


def locals_of(error: BaseException, *, package: str = "piapi_async") -> str:
    """The local variables of the package's frames, as an error reporter would send them along."""
    report = traceback.TracebackException.from_exception(error, capture_locals=True)
    found, waiting = [], [report]
    while waiting:
        one = waiting.pop()
        frames = [frame for frame in one.stack if Path(frame.filename).parent.name == package]
        found += [f"{frame.name}: {name}={text}" for frame in frames for name, text in (frame.locals or {}).items()]
        waiting += [behind for behind in (one.__cause__, one.__context__) if behind is not None]
    return "\n".join(found)


def replies(secret: str, *, spoken: str = "") -> dict[str, Any]:
    """The ways a server can fail and give away what it was told, in the field for it and in its own words."""
    hook = {"webhook_config": {"endpoint": "https://example.com/hook", "secret": secret}}
    told = {"code": 400, "message": f"bad key {KEY} {spoken}", "config": hook}
    loud = {"X-Echo": KEY}
    return {
        "refusal": answer(told, status=400, headers=loud),
        "unauthorized": answer({"error": f"wrong key {KEY}"}, status=401),
        "in a 200": answer(told),
        "limited": answer(told, status=429, headers=loud | {"Retry-After": "0"}),
        "broken": answer(told, status=503, headers=loud),
        "page": answer(f"<html>X-API-Key: {KEY} {spoken}</html>".encode(), status=502),
        "no json": answer(f"{KEY} {spoken}".encode()),
        "timeout": answer(told, status=408),
        "half a task": task("t", config=hook)[:-60],
        "redirect": answer(f"see {KEY}".encode(), status=302, headers={"Location": f"http://localhost/?k={KEY}"}),
        "no http": closing(b"garbage\r\n\r\n"),
        "cut": cut,
        "stall": stall,
        "failed task": task("t", "failed", config=hook, error={"message": "oops"}),
    }


async def caught(doing: Awaitable[Any]) -> PiAPIError:
    """What something raises."""
    with pytest.raises(PiAPIError) as info:
        await doing
    return info.value


Act = Callable[[Session, WebhookConfig], Awaitable[Any]]
ACTS: dict[str, Act] = {
    "submit": lambda session, webhook: session.submit(BEAR, webhook=webhook),
    "run": lambda session, webhook: session.run(BEAR, webhook=webhook),
    "poll": lambda session, _: session.get_task("t-1"),
    "cancel": lambda session, _: session.cancel_task("t-1"),
    "wait": lambda session, _: session.task("t-1").wait(polling=Polling(max_errors=2)),
    "download": lambda session, _: session.download(f"{session!r}"[9:-1] + "/a.png", "/nowhere/a.png"),
}


@pytest.mark.parametrize("secret", SECRETS)
@pytest.mark.parametrize("name", replies(""))
async def test_nothing_that_is_shown_holds_a_secret(name: str, secret: str, caplog: pytest.LogCaptureFixture) -> None:
    """Errors with all their causes, their attributes and tracebacks, events and logs: none shows key or secret."""
    caplog.set_level(logging.DEBUG)
    log = EventLog()
    limit = aiohttp.ClientTimeout(total=2)
    webhook = WebhookConfig("https://example.com/hook", secret=secret)
    texts = [repr(webhook), str(webhook)]
    # A submit knows its webhook's secret; a poll of a task from elsewhere knows the field where it stands.
    paying, polling = replies(secret, spoken=secret)[name], replies(secret)[name]
    async with RawServer(paying) as server:
        async with Session(KEY, base_url=server.url, timeout=limit, retry=ONCE, observers=[log]) as session:
            for act in ("submit", "run", "poll", "cancel", "wait"):
                server.replies = [paying if act in ("submit", "run") else polling]
                try:
                    value = await ACTS[act](session, webhook)
                except PiAPIError as error:
                    texts.append(shown(error))
                else:
                    texts += [repr(value), str(value), repr(getattr(value, "info", None))]
            texts += [repr(session), repr(session.task("t")), repr(session.__dict__), repr(vars(session).values())]
    texts += [repr(log), *map(str, log), caplog.text, *(repr(record.__dict__) for record in caplog.records)]
    everything = "\n".join(texts)
    assert KEY not in everything
    assert secret not in everything
    assert log


async def test_key_is_not_shown_when_nobody_answers(caplog: pytest.LogCaptureFixture) -> None:
    """A refused connection shows the host and not the key."""
    caplog.set_level(logging.DEBUG)
    async with refusing() as url, Session(KEY, base_url=url, retry=ONCE) as session:
        texts = [shown(await caught(session.submit(BEAR))), shown(await caught(session.get_task("t")))]
    assert KEY not in "\n".join([*texts, caplog.text])


async def test_key_is_not_shown_by_a_failed_download(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Neither key nor password leaks when a result cannot be fetched; the key was not even sent."""
    caplog.set_level(logging.DEBUG)
    texts = []
    for reply in (answer(b"<html>"), answer(status=404), cut, closing(b"garbage\r\n\r\n")):
        async with RawServer(reply) as server, Session(KEY, base_url=server.url, retry=ONCE) as session:
            texts.append(shown(await caught(session.download(f"{server.url}/a.png", tmp_path))))
            assert not any(KEY.encode() in received.head for received in server.received)
    assert KEY not in "\n".join([*texts, caplog.text])


async def test_server_that_shows_the_key_in_its_headers_is_not_repeated() -> None:
    """The headers that an `APIError` keeps are cleaned like its body."""
    reply = answer({"code": 400, "message": "no"}, status=400, headers={"X-Echo": f"key={KEY}", "X-Other": "1"})
    async with RawServer(reply) as server, Session(KEY, base_url=server.url) as session:
        error = await caught(session.get_task("t"))
    assert isinstance(error, APIError)
    assert error.headers["x-echo"] == "key=***"
    assert error.headers["x-other"] == "1"


async def test_redacted_error_still_tells_its_reason() -> None:
    """What is not secret in the server's words stays."""
    reply = answer({"code": 400, "message": f"key {KEY} has no plan for flux"}, status=400)
    async with RawServer(reply) as server, Session(KEY, base_url=server.url) as session:
        error = await caught(session.submit(BEAR))
    assert isinstance(error, APIError)
    assert error.message == "key *** has no plan for flux"
    assert "no plan for flux" in error.body


async def test_cancelled_submit_shows_no_secret(caplog: pytest.LogCaptureFixture) -> None:
    """What a cancelled submit tells in its events and its logs holds no secret either."""
    caplog.set_level(logging.DEBUG)
    log = EventLog()
    webhook = WebhookConfig("https://example.com/hook", secret=SECRETS[0])
    async with RawServer(stall) as server, Session(KEY, base_url=server.url, observers=[log]) as session:
        submitting = asyncio.ensure_future(session.submit(BEAR, webhook=webhook))
        await asyncio.sleep(1)
        submitting.cancel()
        with pytest.raises(asyncio.CancelledError) as info:
            await submitting
    text = "\n".join([shown(info.value), repr(log), *map(str, log), caplog.text])
    assert KEY not in text
    assert SECRETS[0] not in text
    assert log


async def test_saved_picture_tells_no_secret(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A run that goes well logs at DEBUG what it did, without key or secret."""
    caplog.set_level(logging.DEBUG)
    log = EventLog()
    webhook = WebhookConfig("https://example.com/hook", secret=SECRETS[0])
    echoed = {"webhook_config": {"endpoint": webhook.endpoint, "secret": webhook.secret}}
    async with RawServer(answer(PNG)) as host:
        done = task("t", "completed", config=echoed, output={"image_url": f"{host.url}/a.png"})
        async with RawServer(task("t", config=echoed), done) as server:
            async with Session(KEY, base_url=server.url, observers=[log]) as session:
                info = await session.run(BEAR, webhook=webhook)
                await session.save(info, tmp_path)
        assert not any(KEY.encode() in received.head for received in host.received)
    text = "\n".join([repr(info), repr(log), *map(str, log), caplog.text])
    assert "saved" in caplog.text
    assert KEY not in text
    assert SECRETS[0] not in text
    assert info.raw["config"] == echoed
