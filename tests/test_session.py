"""`Session`: how it begins and ends, what it sends, and a thousand tasks at once."""

import asyncio
import gc
import json
import random
import tracemalloc
import weakref
from collections import Counter
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from support.raw_server import PNG, RawServer, answer, closing, holding, in_thread, stall, task

from piapi_async import (
    Backoff,
    Governor,
    Img2Img,
    LoRA,
    Polling,
    RetryPolicy,
    Session,
    TaskRequest,
    WebhookConfig,
    events,
)
from piapi_async.emulator import Constant, Emulator, Uniform
from piapi_async.errors import (
    APIError,
    AuthenticationError,
    ConfigurationError,
    Hint,
    NotFoundError,
    PiAPIError,
    RateLimitError,
    SubmissionInDoubtError,
)
from piapi_async.testing import EventLog

BEAR = Img2Img(prompt="a bear", image="https://example.com/a.jpg")
QUICK = Polling(wait=Backoff(initial=0.01, maximum=0.01, jitter=0.0))
LOOKS = Polling(wait=Backoff(initial=0.5, maximum=0.5, jitter=0.0))


def short(**options: Any) -> Emulator:
    """An emulator whose tasks are over at once."""
    return Emulator(queue_delay=Constant(0.0), durations=Constant(0.0), **options)


# What goes over the wire.


async def test_the_documented_request_goes_over_the_wire_as_documented() -> None:
    """The example of PiAPI's image-to-image page is sent as it stands there: the same JSON, the same headers."""
    request = Img2Img(prompt="a bear", image="https://i.ibb.co/J7ZNgSG/01.jpg")
    async with RawServer(task()) as server, Session("the-key", base_url=server.url) as session:
        await session.submit(request, webhook=WebhookConfig("https://webhook.site/xxxx"))
        (received,) = server.received
    assert received.line == "POST /api/v1/task"
    assert json.loads(received.body) == {
        "model": "Qubico/flux1-schnell",
        "task_type": "img2img",
        "input": {"prompt": "a bear", "image": "https://i.ibb.co/J7ZNgSG/01.jpg"},
        "config": {"webhook_config": {"endpoint": "https://webhook.site/xxxx", "secret": ""}},
    }
    assert received.headers.count(("X-API-Key", "the-key")) == 1
    assert received.headers.count(("Content-Type", "application/json")) == 1
    assert ("Content-Length", str(len(received.body))) in received.headers
    names = Counter(name.lower() for name, _ in received.headers)
    assert names["content-type"] == names["x-api-key"] == names["content-length"] == 1
    assert not {"authorization", "cookie", "expect", "transfer-encoding"} & names.keys()


async def test_a_poll_and_a_cancel_go_over_the_wire_as_documented() -> None:
    """`GET` and `DELETE` carry the key and no body."""
    replies = (task("t-1", "pending"), answer({"code": 200, "message": "task t-1 canceled"}), task("t-1", "canceled"))
    async with RawServer(*replies) as server, Session("the-key", base_url=server.url) as session:
        await session.get_task("t-1")
        assert (await session.cancel_task("t-1")).status == "canceled"
        lines = [received.line for received in server.received]
        assert lines == ["GET /api/v1/task/t-1", "DELETE /api/v1/task/t-1", "GET /api/v1/task/t-1"]
        for received in server.received:
            assert ("X-API-Key", "the-key") in received.headers
            assert received.body == b""
            assert "content-type" not in {name.lower() for name, _ in received.headers}


async def test_client_names_itself() -> None:
    """The `User-Agent` says which package asks, and not which HTTP library."""
    async with RawServer(task()) as server, Session("k", base_url=server.url) as session:
        await session.get_task("t-1")
        agents = [value for name, value in server.received[0].headers if name == "User-Agent"]
    assert len(agents) == 1
    assert agents[0].startswith("piapi_async")


@pytest.mark.parametrize(
    ("task_id", "path"),
    [
        ("../../account/info", "..%2F..%2Faccount%2Finfo"),
        ("a/b?c=d#e", "a%2Fb%3Fc=d%23e"),
        ("%2e%2e", "%252e%252e"),
        ("ä ö", "%C3%A4%20%C3%B6"),
        ("a\r\nX-Evil: 1", "a%0D%0AX-Evil:%201"),
        ("\ud800", "%3F"),
    ],
)
async def test_task_id_cannot_leave_its_place_in_the_path(task_id: str, path: str) -> None:
    """Whatever a task is called, its name stays one piece of the path, on the wire as well."""
    async with RawServer(task()) as server, Session("k", base_url=server.url) as session:
        await session.get_task(task_id)
        assert server.received[0].line == f"GET /api/v1/task/{path}"


@pytest.mark.parametrize("task_id", ["", " ", ".", "..", "\n", None, 7, b"t"])
async def test_impossible_task_id_is_refused_before_anything_is_sent(task_id: Any) -> None:
    """An empty name, one of dots only and a wrong type are refused in a sentence with the value."""
    kind = ValueError if isinstance(task_id, str) else TypeError
    async with RawServer(task()) as server, Session("k", base_url=server.url) as session:
        with pytest.raises(kind, match=r"^task_id must be a task's id.*, got "):
            session.task(task_id)
        for call in (session.get_task, session.cancel_task):
            with pytest.raises(kind, match=r"^task_id must be a task's id.*, got "):
                await call(task_id)
        assert server.received == []


async def test_a_handle_in_place_of_an_id_is_told_as_such() -> None:
    """`session.task(handle)` says that it wants an id, and that the handle is there already."""
    async with Session("k") as session:
        handle: Any = session.task("t-1")
        for call in (session.task, session.get_task, session.cancel_task):
            with pytest.raises(TypeError) as caught:
                await call(handle)
            words = (
                "task_id must be a task's id, a string; you already have the handle, got <TaskHandle t-1 not seen yet>"
            )
            assert str(caught.value) == words


async def test_slash_at_the_end_of_base_url_does_no_harm() -> None:
    """`base_url` may end in a slash, and may have a path of its own."""
    async with RawServer(task()) as server, Session("k", base_url=f"{server.url}/proxy/") as session:
        await session.get_task("t")
        assert server.received[0].line == "GET /proxy/api/v1/task/t"


async def test_request_of_any_class_can_be_submitted() -> None:
    """What has `model`, `task_type`, `input` and `service_mode` is a request; what is not set is not sent."""
    request = TaskRequest(model="x/y", task_type="txt2img", input={"prompt": "p", "n": 1.5}, service_mode="public")
    async with RawServer(task()) as server, Session("k", base_url=server.url) as session:
        await session.submit(request)
        body = json.loads(server.received[0].body)
    expected = {"model": "x/y", "task_type": "txt2img", "input": {"prompt": "p", "n": 1.5}}
    assert body == {**expected, "config": {"service_mode": "public"}}


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
async def test_redirect_of_the_api_never_carries_the_key_away(status: int, method: str) -> None:
    """The API answering with a redirect to another host is not followed: that host is not even contacted.

    It is told at once, with the address: nothing was accepted, and asking again would not help.
    """
    async with RawServer(task()) as other:
        elsewhere = answer(status=status, headers={"Location": f"{other.url}/api/v1/task/t"})
        async with RawServer(elsewhere) as server:
            async with Session("k", base_url=server.url) as session:
                doing = {"GET": session.get_task, "DELETE": session.cancel_task}.get(method)
                with pytest.raises(APIError, match=f"{status}.*{other.url}") as caught:
                    await (session.submit(BEAR) if doing is None else doing("t"))
            assert len(server.received) == 1
        assert caught.value.safe_to_resubmit
        assert caught.value.hint is Hint.CHECK_BASE_URL
        assert other.received == []


@pytest.mark.parametrize("call", ["submit", "get_task", "account", "history"])
async def test_a_path_that_is_not_found_may_be_a_wrong_base_url(call: str) -> None:
    """A page of 404 names the URL that was asked for, without a key in it, and says that `base_url` may be wrong."""
    async with Emulator() as emulator:
        async with Session("s3cret", base_url=f"{emulator.url}/api/v1") as session:
            act: dict[str, Any] = {
                "submit": lambda: session.submit(BEAR),
                "get_task": lambda: session.get_task("s3cret"),
                "account": session.account,
                "history": lambda: anext(session.past_tasks(start=0, end=9)),
            }
            with pytest.raises(
                NotFoundError, match=rf"404.*; the request went to {emulator.url}/api/v1/.*; base_url"
            ) as caught:
                await act[call]()
    assert caught.value.hint is Hint.CHECK_BASE_URL
    assert "s3cret" not in str(caught.value)
    assert "?" not in str(caught.value)


async def test_a_task_that_is_not_found_is_not_about_the_base_url() -> None:
    """What PiAPI itself says of a task leads nobody astray, and a 404 of the upload is not about `base_url`."""
    unknown = answer({"code": 404, "message": "task not found"}, status=404)
    async with RawServer(unknown, answer(b"404 page not found", status=404)) as server:
        async with Session("k", base_url=server.url) as session:
            with pytest.raises(NotFoundError, match=r"^PiAPI answered 404: task not found$") as caught:
                await session.get_task("t")
            assert caught.value.hint is None
            with pytest.raises(
                NotFoundError, match=rf"; the request went to {server.url}/api/ephemeral_resource$"
            ) as caught:
                await session.upload(PNG)
    assert caught.value.hint is None


async def test_wrong_key_is_an_error_at_once() -> None:
    """A key the service does not know is told after one request, with what to check."""
    async with short() as server, Session("wrong", base_url=server.url) as session:
        with pytest.raises(AuthenticationError, match="PIAPI_API_KEY"):
            await session.run(BEAR)
        assert len(server.requests) == 1


# How a session is set up.


def test_key_and_url_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """`PIAPI_API_KEY` and `PIAPI_BASE_URL` hold where no argument is given; an argument wins."""
    monkeypatch.setenv("PIAPI_API_KEY", "from-outside")
    monkeypatch.setenv("PIAPI_BASE_URL", "http://localhost:1/")
    assert repr(Session()) == "<Session http://localhost:1>"
    assert repr(Session(base_url="http://localhost:2")) == "<Session http://localhost:2>"
    monkeypatch.delenv("PIAPI_BASE_URL")
    assert repr(Session()) == "<Session https://api.piapi.ai>"


async def test_key_from_the_environment_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    """The key in the environment is the one that is sent, unless an argument says otherwise."""
    monkeypatch.setenv("PIAPI_API_KEY", "from-outside")
    async with RawServer(task()) as server:
        async with Session(base_url=server.url) as session, Session("given", base_url=server.url) as other:
            await session.get_task("t")
            await other.get_task("t")
        assert [dict(received.headers)["X-API-Key"] for received in server.received] == ["from-outside", "given"]


@pytest.mark.parametrize("key", [None, ""])
def test_missing_key_is_one_clear_sentence(key: str | None) -> None:
    """Without a key there is no session, and the error says how to get one."""
    with pytest.raises(ConfigurationError, match="no API key: pass api_key= or set PIAPI_API_KEY"):
        Session(key)


@pytest.mark.parametrize("key", ["two words", "line\n", "tab\t", "schlüssel", "nul\0", "a\r\nX-Evil: 1"])
def test_key_that_cannot_be_sent_is_refused_without_being_shown(key: str) -> None:
    """A key that no header can carry is refused, and the error does not repeat it."""
    with pytest.raises(ConfigurationError, match="printable ASCII") as caught:
        Session(key)
    assert key not in str(caught.value)
    assert caught.value.safe_to_resubmit is True


@pytest.mark.parametrize(
    "url",
    [
        "piapi.ai",
        "ftp://piapi.ai",
        "http://",
        "http://[::1",
        "http://h:port",
        "http://a b",
        "http://h/?a",
        "http://h?",
        "http://h/#a",
    ],
)
def test_bad_base_url_is_one_clear_sentence(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A `base_url` that is no http(s) URL is refused with its value, wherever it came from."""
    with pytest.raises(ConfigurationError, match=r"^base_url must be an http\(s\) URL without") as caught:
        Session("k", base_url=url)
    assert repr(url) in str(caught.value)
    monkeypatch.setenv("PIAPI_BASE_URL", url)
    with pytest.raises(ConfigurationError, match="base_url"):
        Session("k")


@pytest.mark.parametrize("url", ["http://u:hush@h", "http://hush@h", "ftp://u:hush@h", "http://u:hush@h:port"])
def test_password_in_base_url_is_refused_without_being_shown(url: str) -> None:
    """A user or password in `base_url` is refused, and the error repeats neither."""
    with pytest.raises(ConfigurationError, match=r"^base_url must be .* got one with a user") as caught:
        Session("k", base_url=url)
    assert "hush" not in str(caught.value)


@pytest.mark.parametrize("given", [{"api_key": 5}, {"api_key": b"k"}, {"base_url": 5}, {"base_url": b"http://h"}])
def test_key_or_url_that_is_no_text_is_refused(given: dict[str, Any]) -> None:
    """A key or a URL of the wrong type is the same clear sentence as a bad one, and names the argument."""
    with pytest.raises(ConfigurationError, match=rf"^{next(iter(given))} must be"):
        Session(**{"api_key": "k", **given})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("http", "http://h"),
        ("retry", 3),
        ("polling", 2.5),
        ("governor", 8),
        ("max_image_bytes", "10"),
        ("max_image_bytes", 1e6),
        ("max_image_bytes", True),
        ("max_image_bytes", None),
    ],
)
def test_argument_of_the_wrong_type_is_refused(name: str, value: Any) -> None:
    """An argument of the wrong type is refused when the session is made, with its name, its type and the value."""
    with pytest.raises(TypeError, match=rf"^{name} must be of type \w.*, got ") as caught:
        Session("k", **{name: value})
    assert str(caught.value).endswith(f"got {value!r}")


def test_a_class_in_place_of_an_argument_is_told_as_such() -> None:
    """`Session(polling=Polling)` says that it wants one of its objects."""
    with pytest.raises(
        TypeError, match=r"^polling must be of type .*, such as Polling\(...\), not the class itself, got"
    ):
        Session("k", polling=Polling)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"^polling must be of type [^,]*, got <class 'int'>$"):
        Session("k", polling=int)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["base_url", "upload_url"])
@pytest.mark.parametrize(
    "url",
    ["http://api.piapi.ai", "HTTP://api.piapi.ai", "http://example.com:8080/x", "http://8.8.8.8", "http://[2600::1]"],
)
def test_a_key_is_not_sent_unencrypted_unless_that_is_asked_for(
    name: str, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A plain `http://` URL of a public host is refused before anything is sent, wherever it comes from."""
    with pytest.raises(ConfigurationError, match=rf"^{name} .* unencrypted; .*allow_http=True"):
        Session("k", **{name: url})
    assert Session("k", allow_http=True, **{name: url})
    monkeypatch.setenv(f"PIAPI_{name.upper()}", url)
    with pytest.raises(ConfigurationError, match="unencrypted"):
        Session("k")


@pytest.mark.parametrize(
    ("url", "is_told"),
    [
        ("http://localhost:8080", False),
        ("http://127.0.0.2", False),
        ("http://[::1]:8080", False),
        ("https://example.com", False),
        ("http://emulator:8000", True),
        ("http://api.internal", True),
        ("http://piapi.local.", True),
        ("http://10.0.0.5", True),
        ("http://192.168.1.5", True),
        ("http://[fd00::1]", True),
    ],
)
def test_a_network_of_ones_own_may_do_without_encryption(
    url: str, caplog: pytest.LogCaptureFixture, *, is_told: bool
) -> None:
    """What cannot be a public host is used, with a warning unless it is this machine; so containers find each other."""
    assert Session("k", base_url=url)
    assert ("unencrypted" in caplog.text) is is_told


@pytest.mark.parametrize(("value", "kind"), [("30", TypeError), (None, TypeError), (True, TypeError)])
def test_a_time_limit_is_seconds_or_aiohttps(value: Any, kind: type[Exception]) -> None:
    """`timeout=30` means seconds; what is neither a number above 0 nor aiohttp's is refused with its value."""
    with pytest.raises(kind, match=r"^timeout must be seconds > 0, or an aiohttp.ClientTimeout, got "):
        Session("k", timeout=value)
    for number in (0, -1, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="seconds > 0"):
            Session("k", timeout=number)
    for number in (1, 0.5, 300, aiohttp.ClientTimeout()):
        assert Session("k", timeout=number)


@pytest.mark.parametrize("value", [0, -1])
def test_a_limit_that_no_picture_keeps_is_refused(value: int) -> None:
    """Bytes below one are refused when the session is made, not with the first picture."""
    with pytest.raises(ValueError, match=rf"^max_image_bytes must be a whole number >= 1, got {value}$"):
        Session("k", max_image_bytes=value)


def test_one_observer_alone_is_refused() -> None:
    """An observer in place of a list of them would be silent, where it is a list itself; it is refused."""
    kind: Any = EventLog
    for observer, words in (
        (print, "a list of plain functions that take one event, also for a single one: observers=[...], got <"),
        (EventLog(), "a list of plain functions that take one event, also for a single one: observers=[...], got ["),
        (kind, "a list of plain functions that take one event, such as EventLog(...), not the class itself, got <"),
        ("log", "a list of plain functions that take one event, got 'log'"),
    ):
        with pytest.raises(TypeError) as caught:
            Session("k", observers=observer)
        assert str(caught.value).startswith(f"observers must be {words}")


async def _told(event: events.Event) -> None:
    """Never awaited."""


async def _tells(event: events.Event) -> Any:
    yield event


class _Called:
    async def __call__(self, event: events.Event) -> None:
        """Never awaited."""


@pytest.mark.parametrize(
    ("observer", "words"),
    [
        *((one, ", got") for one in (5, "log", None)),
        *((one, ", not of coroutine functions, got") for one in (_told, _tells, _Called(), partial(_told))),
        (EventLog, r", such as EventLog\(...\), not the class itself, got <class "),
    ],
)
def test_an_observer_is_a_plain_function(observer: Any, words: str) -> None:
    """What cannot be called, or what would have to be awaited, is refused in one sentence, with what it is."""
    with pytest.raises(TypeError, match=rf"^observers must be a list of plain functions that take one event{words}"):
        Session("k", observers=[print, observer])
    with pytest.raises(TypeError, match=r"^observers must be a list of plain functions"):
        Session("k", observers=observer)


def test_observers_of_any_kind_and_number() -> None:
    """Functions, methods, partial functions and objects that can be called are observers; an iterator is read once."""
    seen: list[events.Event] = []
    for observers in ([seen.append, EventLog(), partial(print), lambda _: None], iter([print]), (), {print}):
        assert Session("k", observers=observers)


@pytest.mark.parametrize("kind", [Img2Img, TaskRequest])
async def test_a_class_in_place_of_a_request_is_told_as_such(kind: Any) -> None:
    """`submit(Img2Img)` says that it wants an instance."""
    async with RawServer(task()) as server, Session("k", base_url=server.url) as session:
        with pytest.raises(TypeError, match=rf"^request must be a request, such as {kind.__name__}\(.*not the class"):
            await session.submit(kind)
        assert server.received == []


async def test_what_is_no_request_is_refused_before_anything_is_sent() -> None:
    """A mapping, a text or nothing in place of a request, or a URL in place of a webhook, is a `TypeError`."""
    wrong: Any
    async with RawServer(task()) as server, Session("k", base_url=server.url) as session:
        for doing in (session.submit, session.run):
            for wrong in ({"prompt": "a bear"}, "a bear", None):
                with pytest.raises(TypeError, match=r"^request must be a request such as Img2Img or TaskRequest, got"):
                    await doing(wrong)
            wrong = "https://example.com/hook"
            with pytest.raises(TypeError, match=r"^webhook must be of type .*WebhookConfig .*, got 'https"):
                await doing(BEAR, webhook=wrong)
        assert server.received == []


def test_contradictions_are_refused() -> None:
    """A governor of one's own and a number for another contradict each other; `on_cancel` has two values."""
    with pytest.raises(ConfigurationError, match="governor= or max_in_flight="):
        Session("k", governor=Governor(), max_in_flight=3)
    with pytest.raises(ConfigurationError, match="'detach' or 'cancel', got 'stop'"):
        Session("k", on_cancel="stop")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="max_in_flight"):
        Session("k", max_in_flight=0)


def test_session_needs_no_event_loop_to_be_made() -> None:
    """A session is made, shown and thrown away outside any event loop, without a warning."""
    session = Session("k", base_url="http://localhost:9")
    assert repr(session) == "<Session http://localhost:9>"
    assert repr(session.task("t-1")) == "<TaskHandle t-1 not seen yet>"
    del session
    gc.collect()


# How a session ends, and begins again.


async def test_closed_session_is_one_clear_error() -> None:
    """After `aclose` every call is the same sentence and sends nothing; closing again does nothing."""
    async with RawServer(task()) as server:
        session = Session("k", base_url=server.url)
        handle = session.task("t")
        await session.get_task("t")
        await session.aclose()
        await session.aclose()
        calls = [
            lambda: session.submit(BEAR),
            lambda: session.run(BEAR),
            lambda: session.get_task("t"),
            lambda: session.cancel_task("t"),
            lambda: session.download("http://localhost/a.png", "nowhere.png"),
            handle.wait,
            handle.refresh,
        ]
        for call in calls:
            with pytest.raises(ConfigurationError, match="this session is closed; 'async with session' opens it again"):
                await call()
        assert len(server.received) == 1


async def test_closed_session_opens_again() -> None:
    """`async with` opens a session that was closed, as often as wanted."""
    async with RawServer(task()) as server:
        session = Session("k", base_url=server.url)
        for _ in range(3):
            async with session as same:
                assert same is session
                assert (await session.get_task("t")).task_id == "t"


async def test_closing_frees_the_connections() -> None:
    """After `async with` no connection to the server is open."""
    async with RawServer(task()) as server:
        async with Session("k", base_url=server.url) as session:
            await asyncio.gather(*(session.get_task("t") for _ in range(5)))
            assert len(server.busy) == 5
        await asyncio.sleep(0.01)
        assert server.busy == set()


async def test_forgotten_session_warns() -> None:
    """A session that was used and not closed says so when it goes, with what to do, and its connections go with it."""
    async with RawServer(task()) as server:
        session = Session("k", base_url=server.url)
        await session.get_task("t")
        gc.collect()  # what the call left behind holds the session in a circle
        with pytest.warns(ResourceWarning, match="was not closed; use 'async with' or 'await session.aclose"):
            del session
        await asyncio.sleep(0.05)
        assert server.busy == set()


async def test_borrowed_client_session_is_never_closed() -> None:
    """`http=` is used and left open, its headers are sent along, and forgetting the session does not warn."""
    async with RawServer(task()) as server, aiohttp.ClientSession(headers={"X-Mine": "1"}) as http:
        async with Session("k", base_url=server.url, http=http) as session:
            await session.get_task("t")
        assert not http.closed
        other = Session("k", base_url=server.url, http=http)
        await other.get_task("t")
        del other
        gc.collect()
        assert not http.closed
        assert [dict(received.headers)["X-Mine"] for received in server.received] == ["1", "1"]


async def test_borrowed_client_session_that_is_closed_is_told() -> None:
    """A borrowed session that its owner has closed is one clear error, and nothing is in doubt."""
    http = aiohttp.ClientSession()
    await http.close()
    log = EventLog()
    async with Session("k", base_url="http://localhost:9", http=http, observers=[log]) as session:
        with pytest.raises(ConfigurationError, match="passed as http= is closed"):
            await session.submit(BEAR)
    assert log == []


async def test_borrowed_client_session_may_raise_for_status() -> None:
    """An owner who set `raise_for_status=True` for his own requests does not change what a 429 means here."""
    limited = answer(status=429, headers={"Retry-After": "2"})
    async with RawServer(limited, task()) as server, aiohttp.ClientSession(raise_for_status=True) as http:
        async with Session("k", base_url=server.url, http=http) as session:
            assert (await session.submit(BEAR)).task_id == "t-1"
        assert len(server.received) == 2


async def test_borrowed_client_session_with_few_connections_is_enough() -> None:
    """A borrowed session that has one connection serves twenty calls, one after the other."""
    connector = aiohttp.TCPConnector(limit=1)
    async with RawServer(task()) as server, aiohttp.ClientSession(connector=connector) as http:
        async with Session("k", base_url=server.url, http=http) as session:
            handles = await asyncio.gather(*(session.submit(BEAR) for _ in range(20)))
        assert len(handles) == len(server.received) == 20


async def test_closing_during_a_submit_leaves_a_doubt() -> None:
    """A session closed while a submit is under way: the submit ends, and says that a task may exist."""
    log = EventLog()
    async with RawServer(stall) as server:
        session = Session("k", base_url=server.url, observers=[log])
        submitting = asyncio.ensure_future(session.submit(BEAR))
        await asyncio.sleep(1)
        await session.aclose()
        with pytest.raises(SubmissionInDoubtError):
            await submitting
    assert len(log.of(events.SubmissionInDoubt)) == 1


@pytest.mark.parametrize("closes", [True, False])
def test_session_lives_through_several_event_loops(*, closes: bool) -> None:
    """One session serves one `asyncio.run` after the other, closed in between or not, and leaves no socket behind."""
    with in_thread(RawServer(task(status="completed"))) as server:
        session = Session("k", base_url=server.url, polling=QUICK, max_in_flight=2)

        async def use() -> list[str]:
            infos = await asyncio.gather(*(session.run(BEAR) for _ in range(4)))
            if closes:
                await session.aclose()
            return [info.task_id for info in infos]

        async def reopen_and_use() -> list[str]:
            async with session:
                return await use()

        for _ in range(2):
            assert asyncio.run(reopen_and_use() if closes else use()) == ["t-1"] * 4
        asyncio.run(session.aclose())


def test_session_lets_closed_event_loops_go() -> None:
    """A session that is never closed keeps nothing of the event loops it has outlived, but of the last."""
    loops: weakref.WeakSet[asyncio.AbstractEventLoop] = weakref.WeakSet()
    with in_thread(RawServer(task())) as server:
        session = Session("k", base_url=server.url, max_in_flight=2)

        async def use() -> None:
            loops.add(asyncio.get_running_loop())
            await session.get_task("t")

        for _ in range(5):
            asyncio.run(use())
        gc.collect()
        assert len(loops) == 1
        asyncio.run(session.aclose())


def test_handle_lives_through_several_event_loops() -> None:
    """A handle from one `asyncio.run` is waited for in the next."""
    with in_thread(RawServer(task(), task(status="processing"), task(status="completed"))) as server:
        session = Session("k", base_url=server.url, polling=QUICK)
        handle = asyncio.run(session.submit(BEAR))
        assert asyncio.run(handle.wait()).status == "completed"
        asyncio.run(session.aclose())


def test_loop_that_ends_closes_what_was_forgotten() -> None:
    """At the end of `asyncio.run` no connection stays open, though the session was not closed; dropping it warns."""
    with in_thread(RawServer(task())) as server:
        session = Session("k", base_url=server.url)
        asyncio.run(session.get_task("t"))
        for _ in range(100):
            if not server.busy:
                break
            asyncio.run(asyncio.sleep(0.001))
        assert server.busy == set()
        gc.collect()
        with pytest.warns(ResourceWarning, match="was not closed"):
            del session


# Many tasks at once.


async def test_thousand_tasks_are_submitted_once_each() -> None:
    """A thousand `run` in one `gather` make a thousand tasks, one each, and all are waited for."""
    polling = Polling(wait=Backoff(initial=6, maximum=6, jitter=1))
    async with Emulator(queue_delay=Constant(1.0), durations=Uniform(1.0, 3.0), concurrency=1000) as server:
        async with Session(server.api_key, base_url=server.url, polling=polling) as session:
            asked = [Img2Img(prompt=f"bear {n}", image="https://example.com/a.jpg") for n in range(1000)]
            infos = await asyncio.gather(*map(session.run, asked))
        assert len(server.tasks) == len(server.charges) == 1000
        assert [server.tasks[info.task_id].input["prompt"] for info in infos] == [one.prompt for one in asked]
        assert Counter(record.endpoint for record in server.requests)["create"] == 1000


async def test_submits_that_wait_for_their_turn_hold_no_bodies() -> None:
    """Of a thousand submits of 20 kB each, no more are in memory than can be under way."""
    request = Img2Img(prompt="a bear " * 3000, image="https://example.com/a.jpg")
    async with RawServer(stall) as server, Session("key", base_url=server.url) as session:
        tracemalloc.start()
        submits = [asyncio.create_task(session.submit(request)) for _ in range(1000)]
        await asyncio.sleep(1)
        held, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        for submit in submits:
            submit.cancel()
        await asyncio.gather(*submits, return_exceptions=True)
    assert held < 12_000_000


async def test_cap_in_flight_is_kept_and_used() -> None:
    """`max_in_flight=7` is never passed by the tasks that are submitted and not over, and is made use of."""
    async with Emulator(queue_delay=Constant(0.5), durations=Uniform(1.0, 3.0)) as server:
        async with Session(server.api_key, base_url=server.url, polling=LOOKS, max_in_flight=7) as session:
            await asyncio.gather(*(session.run(BEAR) for _ in range(60)))
        views = list(server.tasks.values())
    assert len(views) == 60
    assert _most_at_once(views) == 7


def _most_at_once(views: Any) -> int:
    steps = sorted([(view.ended_at, -1) for view in views] + [(view.created_at, 1) for view in views])
    most = now = 0
    for _, step in steps:
        now += step
        most = max(most, now)
    return most


async def test_one_governor_serves_two_sessions() -> None:
    """Two sessions that share a governor share its cap."""
    governor = Governor(max_in_flight=3)
    async with Emulator(queue_delay=Constant(0.5), durations=Constant(1.0)) as server:
        one = Session(server.api_key, base_url=server.url, polling=LOOKS, governor=governor)
        two = Session(server.api_key, base_url=server.url, polling=LOOKS, governor=governor)
        async with one, two:
            await asyncio.gather(*(session.run(BEAR) for session in (one, two) for _ in range(10)))
        views = list(server.tasks.values())
    assert len(views) == 20
    assert _most_at_once(views) == 3


async def test_failed_run_gives_its_place_back() -> None:
    """A `run` that raises, before or after its submit, leaves its place to the next."""
    async with short() as server:
        async with Session(server.api_key, base_url=server.url, max_in_flight=1) as session:
            server.faults.next("create", "404")
            server.faults.next("create", "cut-after-accept")
            server.faults.next("create", "task-fails")
            for _ in range(3):
                with pytest.raises(PiAPIError):
                    await session.run(BEAR)
            assert (await session.run(BEAR)).status == "completed"


async def test_one_429_pauses_everybody() -> None:
    """After one task's 429 no request of any task, in either session of the governor, goes out before its time."""
    governor = Governor()
    async with Emulator(queue_delay=Constant(0.5), durations=Constant(30.0)) as server:
        one = Session(server.api_key, base_url=server.url, polling=LOOKS, governor=governor)
        two = Session(server.api_key, base_url=server.url, polling=LOOKS, governor=governor)
        async with one, two:
            doing = [asyncio.ensure_future(session.run(BEAR)) for session in (one, two) for _ in range(5)]
            await asyncio.sleep(5.2)
            server.faults.next("get", "429", retry_after=8)
            await asyncio.gather(*doing)
    times = [record.time for record in server.requests]
    (limited,) = [record.time for record in server.requests if record.status == 429]
    after = [time for time in times if time > limited + 0.1]
    assert min(after) >= limited + 8.0
    assert min(after) < limited + 9.0
    # Those that were on their way in the same instant could not be held back; nobody else got through.
    assert len([time for time in times if limited < time <= limited + 0.1]) < 10


async def test_one_429_pauses_submits_too() -> None:
    """A submit that begins while the gate is closed waits for it to open, like everything else."""
    async with RawServer(answer(status=429, headers={"Retry-After": "8"}), task()) as server:
        async with Session("k", base_url=server.url) as session:
            loop = asyncio.get_running_loop()
            begun = loop.time()
            first = asyncio.ensure_future(session.submit(BEAR))
            await asyncio.sleep(1)
            others = [asyncio.ensure_future(session.submit(BEAR)) for _ in range(3)]
            await asyncio.sleep(6)
            assert len(server.received) == 1
            await asyncio.gather(first, *others)
            assert loop.time() - begun == pytest.approx(8.0, abs=0.2)
            assert len(server.received) == 5


async def test_an_hour_of_retry_after_ends_no_wait() -> None:
    """One poll of twenty tasks is answered with `Retry-After: 3600`: all complete two minutes later, as do new ones."""
    log = EventLog()
    async with Emulator(queue_delay=Constant(0.5), durations=Constant(10.0)) as server:
        async with Session(server.api_key, base_url=server.url, observers=[log]) as session:
            begun = asyncio.get_running_loop().time()
            doing = [asyncio.ensure_future(session.run(BEAR)) for _ in range(20)]
            await asyncio.sleep(1)
            server.faults.next("get", "429", retry_after=3600)
            await asyncio.gather(*doing)
            assert asyncio.get_running_loop().time() - begun < 180
            await session.run(BEAR)
    assert [event.asked for event in log.of(events.Paused)] == [3600]


@pytest.mark.parametrize("is_one_host", [False, True])
async def test_429_of_the_upload_says_nothing_of_the_api(*, is_one_host: bool) -> None:
    """The upload is another host, and its pause its own; where one host serves both, the pause is for both."""
    limited = answer(status=429, headers={"Retry-After": "3600"})
    async with RawServer(limited) as upload, RawServer(task(), task(status="completed")) as api:
        options = {"base_url": upload.url} if is_one_host else {"base_url": api.url, "upload_url": upload.url}
        async with Session("k", **options) as session:  # type: ignore[arg-type] # as named
            for _ in range(2):
                with pytest.raises(RateLimitError):
                    await session.upload(PNG)
            assert len(upload.received) == 1
            if is_one_host:
                with pytest.raises(RateLimitError):
                    await session.get_task("t-1")
            else:
                await session.submit(BEAR)
                assert (await session.get_task("t-1")).status == "completed"
        assert len(upload.received) == 1


async def test_429_of_a_result_host_says_nothing_of_the_api(tmp_path: Path) -> None:
    """A result host that refuses a download makes no request to the API wait."""
    limited = answer(status=429, headers={"Retry-After": "3600"})
    async with RawServer(limited) as results, RawServer(task(status="completed")) as api:
        async with Session("k", base_url=api.url) as session:
            with pytest.raises(PiAPIError):
                await session.download(f"{results.url}/a.png", tmp_path)
            begun = asyncio.get_running_loop().time()
            await session.get_task("t-1")
            assert asyncio.get_running_loop().time() - begun < 1


async def test_429_of_an_unsaid_length_pauses_for_a_second() -> None:
    """A 429 without `Retry-After` still makes everybody pause."""
    async with RawServer(answer(status=429), task()) as server:
        retry = RetryPolicy(wait_initial=0, wait_jitter=0)
        async with Session("k", base_url=server.url, retry=retry) as session:
            loop = asyncio.get_running_loop()
            begun = loop.time()
            await session.get_task("t")
            assert loop.time() - begun == pytest.approx(1.0, abs=0.1)


async def test_a_thousand_runs_come_through_a_limit_on_tasks_in_flight() -> None:
    """Where tasks beyond the account's concurrency are refused, a thousand `run` without a cap complete, once each."""
    polling, log = Polling(wait=Backoff(initial=4, maximum=4)), EventLog()
    async with Emulator(
        over_limit="429", concurrency=90, queue_delay=Constant(0.5), durations=Uniform(1.0, 3.0)
    ) as server:
        async with Session(server.api_key, base_url=server.url, polling=polling, observers=[log]) as session:
            infos = await asyncio.gather(*(session.run(BEAR) for _ in range(1000)))
        assert len({info.task_id for info in infos}) == len(server.tasks) == 1000
        refused = sum(record.status == 429 for record in server.requests)
    assert refused < 150
    assert log.of(events.LimitLearned)


async def test_refused_submits_end_when_nothing_of_ours_is_in_flight() -> None:
    """A server that refuses every submit is left after the policy's attempts, also by those who tried together."""
    async with RawServer(answer(status=429, headers={"Retry-After": "1"})) as server:
        async with Session("k", base_url=server.url) as session:
            done = await asyncio.gather(*(session.run(BEAR) for _ in range(5)), return_exceptions=True)
        assert {type(one) for one in done} == {RateLimitError}
        assert len(server.received) == 5 * 4


async def test_a_submit_that_is_refused_beside_a_task_in_flight_waits_for_its_end() -> None:
    """With `concurrency=1` and 429 a second `run` is not lost over its four attempts, however long the first takes."""
    async with Emulator(over_limit="429", concurrency=1, queue_delay=Constant(0.5), durations=Constant(300)) as server:
        async with Session(server.api_key, base_url=server.url, polling=LOOKS) as session:
            first = asyncio.ensure_future(session.run(BEAR))
            await asyncio.sleep(1)
            second = await session.run(BEAR)
            assert first.done()
            assert second.status == "completed"


async def test_the_account_says_how_many_tasks_may_be_in_flight() -> None:
    """`max_in_flight="account"` asks once, for both sessions of a governor, and no task is refused."""
    governor = Governor(max_in_flight="account")
    async with Emulator(over_limit="429", plan="creator", queue_delay=Constant(0.5), durations=Constant(2)) as server:
        one = Session(server.api_key, base_url=server.url, polling=LOOKS, governor=governor)
        two = Session(server.api_key, base_url=server.url, polling=LOOKS, governor=governor)
        async with one, two:
            await asyncio.gather(*(session.run(BEAR) for session in (one, two) for _ in range(20)))
        assert _most_at_once(list(server.tasks.values())) == 5
        server.check.exactly(1, "account")
        assert {record.status for record in server.requests} == {200}


async def test_an_account_that_cannot_be_asked_is_no_cap() -> None:
    """When the account does not answer, `run` goes on without a cap, and says so once."""
    log = EventLog()
    async with Emulator(queue_delay=Constant(0.5), durations=Constant(2)) as server:
        async with Session(
            server.api_key, base_url=server.url, polling=LOOKS, max_in_flight="account", observers=[log]
        ) as session:
            server.faults.next("account", "404")
            await asyncio.gather(*(session.run(BEAR) for _ in range(50)))
    assert [str(event) for event in log.of(events.LimitLearned)] == ["no limit on tasks in flight is known"]


async def test_a_told_rate_is_kept_by_all_requests() -> None:
    """With `requests_per_second` no request is refused by a server that bears as many."""
    governor = Governor(requests_per_second=20)
    async with Emulator(requests_per_second=20, queue_delay=Constant(0.5), durations=Constant(2)) as server:
        async with Session(server.api_key, base_url=server.url, governor=governor) as session:
            await asyncio.gather(*(session.run(BEAR) for _ in range(100)), session.account())
        assert {record.status for record in server.requests} == {200}


async def test_the_time_that_a_submit_waits_for_its_turn_is_no_failure() -> None:
    """A submit that has waited longer than `RetryPolicy.timeout` for its turn is still tried again."""
    governor, retry = Governor(requests_per_second=1), RetryPolicy(timeout=10)
    limited = answer(status=429, headers={"Retry-After": "1"})
    async with RawServer(*[task()] * 20, limited, task()) as server:
        async with Session("k", base_url=server.url, governor=governor, retry=retry) as session:
            handles = await asyncio.gather(*(session.submit(BEAR) for _ in range(21)))
        assert len(handles) == 21
        assert len(server.received) == 22


async def test_random_faults_never_make_a_second_task() -> None:
    """Whatever goes wrong in two hundred runs, no request has more than one task, and each failure is accounted for."""
    chance = random.Random(7)
    names = ["cut-after-accept", "503-after-accept", "500", "429", "html", "empty", "truncated", "cut-before-accept"]
    log = EventLog()
    async with Emulator(queue_delay=Constant(0.5), durations=Constant(1.0), concurrency=200) as server:
        for _ in range(100):
            server.faults.next("create", chance.choice(names))
            server.faults.next("get", chance.choice([*names, "404"]))
        async with Session(server.api_key, base_url=server.url, observers=[log]) as session:
            asked = [Img2Img(prompt=f"bear {n}", image="https://example.com/a.jpg") for n in range(200)]
            done = await asyncio.gather(*map(session.run, asked), return_exceptions=True)
        made = Counter(view.input["prompt"] for view in server.tasks.values())
    assert max(made.values()) == 1
    doubts = [one for one in done if isinstance(one, SubmissionInDoubtError)]
    assert len(doubts) == len(log.of(events.SubmissionInDoubt))
    assert all(isinstance(one, SubmissionInDoubtError) or one.status == "completed" for one in done)
    known = {prompt for one, prompt in zip(done, (r.prompt for r in asked), strict=True) if one in doubts}
    completed = {r.prompt for r, one in zip(asked, done, strict=True) if one not in doubts}
    assert made.keys() - known == completed


async def test_bad_timeout_of_run_is_refused_before_it_costs_anything() -> None:
    """A time limit that is none is refused before the submit, not after the task was paid for."""
    async with RawServer(task()) as server, Session("k", base_url=server.url) as session:
        for limit in (-1, float("nan")):
            with pytest.raises(ValueError, match="timeout must be seconds >= 0"):
                await session.run(BEAR, timeout=limit)
        wrong: Any
        for wrong in (True, "30"):
            with pytest.raises(TypeError, match=r"^timeout must be seconds >= 0"):
                await session.run(BEAR, timeout=wrong)
        assert server.received == []


async def test_bad_input_is_refused_before_anything_is_sent() -> None:
    """What JSON cannot hold is refused as `ValueError` or `TypeError` in one sentence, and nothing is sent."""
    endless: dict[str, Any] = {}
    endless["again"] = endless
    cases: list[tuple[Any, type[Exception]]] = [
        ({"x": float("nan")}, ValueError),
        ({"x": {1}}, TypeError),
        ({"x": object()}, TypeError),
        ({"x": datetime.now(UTC)}, TypeError),
        ({"x": {(1, 2): 3}}, TypeError),
        ({"x": float("inf"), "y": "z" * 70_000}, ValueError),
    ]
    async with RawServer(task()) as server, Session("k", base_url=server.url) as session:
        for given, kind in cases:
            with pytest.raises(kind, match=r"^input must hold JSON values and pictures only: "):
                await session.submit(TaskRequest(model="m", task_type="t", input=given))
        with pytest.raises(ValueError, match=r"^input must be JSON values, but it holds itself"):
            await session.submit(TaskRequest(model="m", task_type="t", input=endless))
        assert server.received == []


@pytest.mark.parametrize("mistake", [RuntimeError, asyncio.CancelledError])
async def test_observer_that_raises_breaks_nothing(
    mistake: type[BaseException], caplog: pytest.LogCaptureFixture
) -> None:
    """An observer's mistake is logged; the run goes on, and the other observers are told."""

    def broken(_event: events.Event) -> None:
        raise mistake("oops")

    log = EventLog()
    async with short() as server, Session(server.api_key, base_url=server.url, observers=[broken, log]) as session:
        await session.run(BEAR)
    assert [type(event) for event in log] == [events.Submitted, events.Polled]
    assert "oops" in caplog.text


async def test_task_in_an_error_answer_is_not_lost() -> None:
    """An answer that carries a task is a task whatever its status, since the service sends both together."""
    body = {"code": 500, "data": {"task_id": "t-9", "status": "pending"}, "message": "failed to log"}
    async with RawServer(answer(body, status=500)) as server, Session("k", base_url=server.url) as session:
        assert (await session.submit(BEAR)).task_id == "t-9"


async def test_lora_request_runs_on_the_emulator() -> None:
    """A typed request of another kind is accepted by a server that validates it as the documentation says."""
    from piapi_async import ControlNet, ControlNetLora, Img2ImgLora

    url = "https://example.com/a.jpg"
    asked = [
        Img2ImgLora(prompt="p", image=url, lora=LoRA("mjv6", strength=0.8)),
        ControlNetLora(prompt="p", control_net=ControlNet("depth", image=url, strength=0.5), lora=LoRA("anime")),
        Img2Img(prompt="p", image=url, denoise=0.5, guidance_scale=2.5, batch_size=3, negative_prompt="n"),
    ]
    async with short() as server, Session(server.api_key, base_url=server.url) as session:
        infos = [await session.run(one) for one in asked]
        assert [record.refusal for record in server.requests if record.refusal] == []
    assert [len(info.images) for info in infos] == [1, 1, 3]


async def test_answers_are_read_while_others_wait() -> None:
    """More than a hundred requests at once wait for their turn, and none is lost or timed out by the wait."""
    go = asyncio.Event()
    limit = aiohttp.ClientTimeout(total=5)
    async with RawServer(holding(task("t"), until=go)) as server:
        async with Session("k", base_url=server.url, timeout=limit) as session:
            doing = [asyncio.ensure_future(session.get_task("t")) for _ in range(250)]
            await asyncio.sleep(4)
            assert len(server.received) == 100
            go.set()
            assert len(await asyncio.gather(*doing)) == 250


async def test_server_that_closes_each_connection_is_served() -> None:
    """A server without keep-alive costs a connection a request and nothing else."""
    async with RawServer(closing(task(status="completed"))) as server, Session("k", base_url=server.url) as session:
        infos = await asyncio.gather(*(session.run(BEAR) for _ in range(20)))
        assert len(infos) == len(server.received) == 20
