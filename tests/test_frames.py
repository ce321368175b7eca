"""The API key and the webhook's secret are in no local variable as plain text, so that no error reporter ships them."""

import asyncio
import copy
import pickle
import reprlib
import traceback
from collections.abc import Awaitable, Callable, Iterator, Mapping
from typing import Any

import aiohttp
import pytest
from support.raw_server import RawServer, Reply, answer, closing, cut, refusing, stall, task

from piapi_async import RetryPolicy, Session, TaskRequest, Txt2Img, WebhookConfig
from piapi_async._text import Secret, masked
from piapi_async.errors import ConfigurationError, PiAPIError

KEY, HOOK = "sk-live-SECRETSECRETSECRET", "whsec-HOOKHOOKHOOK"
ONCE = RetryPolicy(attempts=1)
BEAR = Txt2Img(prompt="a bear")
Act = Callable[[Session], Awaitable[Any]]


def shown(value: object, *, depth: int = 4) -> Iterator[str]:
    """A value as error reporters show it: by its `repr`, and those of what is in it, which they walk as well."""
    try:
        yield repr(value)
    except Exception:  # noqa: BLE001 - as they do
        return
    if depth and isinstance(value, Mapping):
        for pair in value.items():
            yield from shown(list(pair), depth=depth - 1)
    elif depth and isinstance(value, list | tuple | set):
        for one in value:
            yield from shown(one, depth=depth - 1)


def leaks(error: BaseException | None) -> list[str]:
    """Where a secret is shown by the local variables of the frames of an error and its causes, by their words or so."""
    found, seen = [], set()
    errors = [error]
    while errors:
        one = errors.pop()
        if one is None or id(one) in seen:
            continue
        seen.add(id(one))
        errors += [one.__cause__, one.__context__]
        texts = {f"{type(one).__name__}: ": [str(one), repr(one), *map(repr, vars(one).values())]}
        trace = one.__traceback__
        while trace is not None:
            code = trace.tb_frame.f_code
            if "/tests/" not in code.co_filename:
                for name, value in trace.tb_frame.f_locals.items():
                    texts[f"{code.co_filename}:{code.co_name}:{name}"] = list(shown(value))
            trace = trace.tb_next
        found += [where for where, lines in texts.items() if any(KEY in line or HOOK in line for line in lines)]
    return found


async def submit(session: Session) -> None:
    """A submit with a webhook."""
    await session.submit(BEAR, webhook=WebhookConfig("https://example.com/hook", secret=HOOK))


async def poll(session: Session) -> None:
    """A poll, and more of what costs nothing."""
    await session.get_task("t")


async def cancel(session: Session) -> None:
    """A DELETE."""
    await session.cancel_task("t")


async def history(session: Session) -> None:
    """A page of the history."""
    assert [one async for one in session.history(start=0, end=9)]


async def upload(session: Session) -> None:
    """A free request with a body."""
    await session.upload(b"RIFF....WAVE", filename="a.wav")


async def unwritable(session: Session) -> None:
    """An input that is not JSON."""
    request = TaskRequest(model="m", task_type="t", input={"a": {1, 2}})
    await session.submit(request, webhook=WebhookConfig("https://example.com/hook", secret=HOOK))


REPLIES: dict[str, Reply] = {
    "refused": answer({"code": 401, "message": f"failed to verify {KEY}"}, status=401),
    "html": answer(b"<html>", headers={"Content-Type": "text/html"}),
    "cut": cut,
    "silent": stall,
    "garbage": closing(f"{KEY} is not HTTP\r\n\r\n".encode()),
    "error": answer(b"oops", status=500),
    "not found": answer(b"404 page not found", status=404),
    "elsewhere": answer(status=301, headers={"Location": f"https://example.com/{KEY}"}),
    "too long": closing(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf"),
    "compressed": answer(b"nonsense", headers={"Content-Encoding": "gzip"}),
}


@pytest.mark.parametrize("reply", REPLIES)
@pytest.mark.parametrize("act", [submit, poll, cancel, history, upload, unwritable])
@pytest.mark.parametrize("client", ["own", "borrowed"])
async def test_no_frame_of_an_error_shows_a_secret(act: Act, reply: str, client: str) -> None:
    """Whatever goes wrong, no local variable of ours, and none of aiohttp's that we hand on, shows one."""
    async with RawServer(REPLIES[reply]) as server, aiohttp.ClientSession() as http:
        given = {} if client == "own" else {"http": http}
        async with Session(KEY, base_url=server.url, retry=ONCE, timeout=3, **given) as session:
            with pytest.raises((PiAPIError, TypeError)) as caught:
                await act(session)
    assert leaks(caught.value) == []


@pytest.mark.parametrize("act", [submit, poll])
async def test_no_frame_shows_a_secret_where_nobody_listens(act: Act) -> None:
    """The same where no connection comes about."""
    async with refusing() as url, Session(KEY, base_url=url, retry=ONCE) as session:
        with pytest.raises(PiAPIError) as caught:
            await act(session)
    assert leaks(caught.value) == []


async def test_no_frame_of_a_cancel_shows_a_secret() -> None:
    """The frames of a wait, and of a submit, that is cancelled in the middle of a request."""
    async with RawServer(stall) as server, Session(KEY, base_url=server.url, timeout=2) as session:
        for act in (submit, poll):
            doing = asyncio.ensure_future(act(session))
            await asyncio.sleep(1)
            doing.cancel()
            with pytest.raises(asyncio.CancelledError) as caught:
                await doing
            assert leaks(caught.value) == []


@pytest.mark.parametrize(
    ("given", "kind"),
    [
        ({"api_key": f"{KEY} {KEY}"}, ConfigurationError),
        ({"api_key": KEY, "timeout": -1}, ValueError),
        ({"api_key": KEY, "base_url": "nonsense"}, ConfigurationError),
        ({"api_key": KEY, "max_spend_usd": "1"}, TypeError),
        ({"api_key": KEY, "observers": 5}, TypeError),
        ({"base_url": "nonsense"}, ConfigurationError),
    ],
)
def test_a_session_that_cannot_be_made_shows_no_key(
    given: dict[str, Any], kind: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither the constructor's own argument nor the environment's value is shown by a frame."""
    monkeypatch.setenv("PIAPI_API_KEY", KEY)
    with pytest.raises(kind) as caught:
        Session(**given)
    assert leaks(caught.value) == []


@pytest.mark.parametrize("endpoint", ["nonsense", 5])
def test_a_webhook_that_cannot_be_made_shows_no_secret(endpoint: Any) -> None:
    """The same for a webhook's secret; what is not a string is refused as such."""
    with pytest.raises((TypeError, ValueError)) as caught:
        WebhookConfig(endpoint, secret=HOOK)
    assert leaks(caught.value) == []
    with pytest.raises(TypeError, match="secret"):
        WebhookConfig("https://example.com", secret=5)  # type: ignore[arg-type]


def test_the_walk_through_frames_finds_what_is_there() -> None:
    """A plain key in a dictionary of a frame outside of the tests is found, so the other tests see something."""

    def fails(_: object) -> str:
        raise KeyError("oops")

    with pytest.raises(KeyError) as caught:
        sorted([KEY], key=fails)
    assert leaks(caught.value) == []
    with pytest.raises(KeyError) as caught:
        reprlib.recursive_repr()(fails)({"headers": KEY})
    assert any("reprlib" in where for where in leaks(caught.value))


def test_a_secret_is_a_text_that_is_not_shown() -> None:
    """It equals, formats and travels as the text; alone and in anything else its `repr` is masked."""
    secret = Secret("hush")
    assert (secret == "hush", f"{secret}", str(secret), len(secret)) == (True, "hush", "hush", 4)
    assert (repr(secret), repr({"a": [secret]}), repr(Secret())) == ("'***'", "{'a': ['***']}", "''")
    for other in (pickle.loads(pickle.dumps(secret)), copy.deepcopy(secret)):
        assert (other == "hush", repr(other)) == (True, "'***'")
    assert (masked(None), masked(5)) == (None, 5)


async def test_the_webhooks_secret_is_sent_as_it_is() -> None:
    """What is masked where it is shown goes over the wire, and can be compared and formatted."""
    webhook = WebhookConfig("https://example.com/hook", secret=HOOK)
    assert webhook == WebhookConfig("https://example.com/hook", secret=HOOK)
    assert webhook != WebhookConfig("https://example.com/hook")
    assert f"{webhook.secret}" == webhook.secret == HOOK
    async with RawServer(task()) as server, Session(KEY, base_url=server.url) as session:
        await session.submit(BEAR, webhook=webhook)
        (received,) = server.received
    assert HOOK.encode() in received.body
    assert ("X-API-Key", KEY) in received.headers


@pytest.mark.parametrize("reply", ["cut", "garbage", "too long", "silent"])
async def test_the_causes_of_an_error_have_no_frames_of_aiohttp(reply: str) -> None:
    """Those hold the request's bytes, with the key in them, and the picture that was to be sent."""
    async with RawServer(REPLIES[reply]) as server:
        async with Session(KEY, base_url=server.url, retry=ONCE, timeout=3) as session:
            with pytest.raises(PiAPIError) as caught:
                await submit(session)
    error: BaseException | None = caught.value
    kinds = []
    while error is not None:
        kinds.append(type(error))
        frames = traceback.extract_tb(error.__traceback__)
        assert not [frame for frame in frames if "/aiohttp/" in frame.filename]
        error = error.__cause__
    assert len(kinds) > 2
