"""Local files as links: uploaded once a day, before anything is paid for, and where the key belongs."""

import asyncio
import base64
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from support.raw_server import JPEG, PNG, RawServer, Received, answer, cut, in_thread, stall, task

from piapi_async import ControlNet, ControlNetLora, Img2Img, RetryPolicy, Session, TaskRequest, events
from piapi_async._images.uploads import FILE_MAX, LINKS_MAX
from piapi_async.emulator import Constant, Emulator
from piapi_async.errors import (
    AuthenticationError,
    ConfigurationError,
    PiAPIError,
    ServerError,
    SpendLimitError,
    UnexpectedResponseError,
)
from piapi_async.testing import EventLog

LINK = "https://storage.theapi.app/a.png"
ONCE = RetryPolicy(attempts=1)


def link(url: Any = LINK) -> bytes:
    """The answer of the upload."""
    return answer({"code": 200, "data": {"url": url}, "message": "success"})


def body(received: Received) -> Any:
    """What a request brought."""
    return json.loads(received.body)


def picture(number: int) -> bytes:
    """One of many small pictures."""
    return PNG + number.to_bytes(2)


async def uploaded(source: Any, *, filename: str | None = None, **options: Any) -> tuple[str, bytes]:
    """The name and the bytes that the upload gets for a source."""
    async with RawServer(link()) as server, Session("k", base_url=server.url, **options) as session:
        assert await session.upload(source, filename=filename) == LINK
        (received,) = server.received
    assert received.line == "POST /api/ephemeral_resource"
    assert ("X-API-Key", "k") in received.headers
    given = body(received)
    assert list(given) == ["file_name", "file_data"]
    return given["file_name"], base64.b64decode(given["file_data"], validate=True)


# A submit.


async def test_links_stand_for_local_pictures(tmp_path: Path) -> None:
    """With `local_images="upload"` every local picture, at any depth, is uploaded, and the task gets links to them."""
    path = tmp_path / "secret name.png"
    path.write_bytes(PNG)
    async with Emulator(queue_delay=Constant(0.0), durations=Constant(0.0), plan="creator") as server:
        async with Session(server.api_key, base_url=server.url, local_images="upload") as session:
            array = np.zeros((4, 4), np.uint8)
            control = ControlNet("depth", image=array)
            info = await session.run(ControlNetLora(prompt="p", image=path, control_net=control))
            assert info.images
        given = server.tasks[info.task_id].input
        links = given["image"], given["control_net_settings"][0]["control_image"]
        assert all(url.startswith(f"{server.url}/") for url in links)
        assert links[0] != links[1]
        assert [request.path for request in server.requests].count("/api/ephemeral_resource") == 2
        assert not any("secret" in str(request) for request in server.requests)


async def test_only_local_pictures_are_uploaded() -> None:
    """Links, numbers and texts stay, data URIs of pictures go; the task is submitted after all of its uploads."""
    uri = f"data:image/png;base64,{base64.b64encode(PNG).decode()}"
    deep = {"a": [{"b": (JPEG, 1)}, "https://example.com/a.jpg"], "c": uri, "d": "text"}
    replies = (link(f"{LINK}?1"), link(f"{LINK}?2"), task())
    async with RawServer(*replies) as server, Session("k", base_url=server.url, local_images="upload") as session:
        await session.submit(TaskRequest(model="m", task_type="t", input=deep))
        *_, posted = server.received
    given = body(posted)["input"]
    assert given == {"a": [{"b": [f"{LINK}?1", 1]}, "https://example.com/a.jpg"], "c": f"{LINK}?2", "d": "text"}


@pytest.mark.parametrize("reply", [answer(b"no", status=500), answer(b"no", status=400), cut, answer(b"<html>")])
async def test_failed_upload_costs_nothing(reply: Any) -> None:
    """When an upload fails the task is not submitted, and nothing of the limit is spent."""
    async with RawServer(reply) as server:
        options: dict[str, Any] = {"base_url": server.url, "retry": ONCE, "max_spend_usd": 0.0015}
        async with Session("k", local_images="upload", **options) as session:
            with pytest.raises(PiAPIError) as caught:
                await session.submit(Img2Img(prompt="p", image=PNG))
            assert caught.value.safe_to_resubmit
            assert session.spent == 0
            assert {received.line for received in server.received} == {"POST /api/ephemeral_resource"}
            server.replies = [link(), task()]
            await session.submit(Img2Img(prompt="p", image=PNG))
            assert session.spent == 0.0015


async def test_upload_is_repeated() -> None:
    """An upload costs nothing: it is sent again, whole, after whatever gave no usable answer, and that is told."""
    log = EventLog()
    replies = (answer(b"no", status=502), cut, answer(b"?"), answer({"code": 429}, status=429), link())
    async with RawServer(*replies) as server:
        policy = RetryPolicy(attempts=5)
        async with Session("k", base_url=server.url, retry=policy, observers=[log]) as session:
            assert await session.upload(PNG) == LINK
        assert len({received.body for received in server.received}) == 1
    assert [event.action for event in log.of(events.Retrying)] == ["upload"] * 4


# Once a day.


async def test_same_content_is_uploaded_once(tmp_path: Path) -> None:
    """One upload serves all that have the same content, from any source, also when they come at once."""
    path = tmp_path / "a.png"
    path.write_bytes(PNG)
    sources = [path, PNG, io.BytesIO(PNG), f"data:image/png;base64,{base64.b64encode(PNG).decode()}"]
    async with RawServer(link(), task()) as server:
        async with Session("k", base_url=server.url, local_images="upload") as session:
            requests = [Img2Img(prompt="p", image=source) for source in sources]
            await asyncio.gather(*map(session.submit, requests), *map(session.submit, requests))
            assert await session.upload(PNG) == LINK
            lines = [received.line for received in server.received]
            assert (len(lines), lines.count("POST /api/ephemeral_resource")) == (9, 1)
            server.replies = [link(f"{LINK}?other")]
            assert await session.upload(picture(1)) == f"{LINK}?other"


async def test_link_is_used_for_less_than_a_day() -> None:
    """A link is used for 23 of its 24 hours, so that a task which gets it last finds it alive."""
    async with RawServer(link("https://e.com/1"), link("https://e.com/2")) as server:
        async with Session("k", base_url=server.url) as session:
            assert await session.upload(PNG) == "https://e.com/1"
            await asyncio.sleep(23 * 3600 - 1)
            assert await session.upload(PNG) == "https://e.com/1"
            await asyncio.sleep(2)
            assert await session.upload(PNG) == "https://e.com/2"
            assert await session.upload(PNG) == "https://e.com/2"


async def test_links_that_are_remembered_are_bounded() -> None:
    """What was not used for the longest time is forgotten first, and uploaded again."""
    async with RawServer(link()) as server, Session("k", base_url=server.url) as session:
        for number in range(LINKS_MAX):
            await session.upload(picture(number))
        await session.upload(picture(0))
        assert len(server.received) == LINKS_MAX
        await session.upload(picture(LINKS_MAX))
        await session.upload(picture(0))
        assert len(server.received) == LINKS_MAX + 1
        await session.upload(picture(1))
        assert len(server.received) == LINKS_MAX + 2


@pytest.mark.parametrize("how", ["cancelled", "refused"])
async def test_others_are_not_harmed_when_the_first_fails(how: str) -> None:
    """Whoever waits for somebody else's upload makes its own when that one is cancelled or fails."""
    first_reply = stall if how == "cancelled" else answer(b"no", status=400)
    async with RawServer(first_reply, link()) as server, Session("k", base_url=server.url) as session:
        first, *others = (asyncio.ensure_future(session.upload(PNG)) for _ in range(4))
        await asyncio.sleep(1)
        if how == "cancelled":
            first.cancel()
        assert await asyncio.gather(*others) == [LINK] * 3
        with pytest.raises(asyncio.CancelledError if how == "cancelled" else PiAPIError):
            await first
        assert len(server.received) == 2


def test_links_outlive_an_event_loop() -> None:
    """What one `asyncio.run` uploaded the next one uses, and both may wait for each other's uploads."""
    with in_thread(RawServer(link())) as server:
        session = Session("k", base_url=server.url)

        async def go() -> set[str]:
            async with session:
                return set(await asyncio.gather(*(session.upload(PNG) for _ in range(5))))

        assert asyncio.run(go()) == asyncio.run(go()) == {LINK}
        assert len(server.received) == 1


# What is uploaded.


async def test_name_tells_no_more_than_the_kind(tmp_path: Path) -> None:
    """A file on disk is uploaded under a name that says what it is; a name that is given is used."""
    for data, ending in ((PNG, "png"), (JPEG, "jpg"), (b"RIFF\x18\x00\x00\x00WEBPVP8 " + bytes(16), "webp")):
        path = tmp_path / "private.bin"
        path.write_bytes(data)
        assert await uploaded(path) == (f"picture.{ending}", data)
    assert await uploaded(path, filename="Bear.PNG") == ("Bear.PNG", data)


async def test_uploaded_pictures_are_made_fit() -> None:
    """What is uploaded by hand goes the way of all local pictures: converted, turned, scaled."""
    image = Image.new("RGB", (40, 30), "red")
    file = io.BytesIO()
    image.save(file, "BMP")
    uri = f"data:image/bmp;base64,{base64.b64encode(file.getvalue()).decode()}"
    for source in (image, np.asarray(image), file.getvalue(), io.BytesIO(file.getvalue()), uri):
        name, data = await uploaded(source, max_pixels=300)
        assert name == "picture.png"
        assert Image.open(io.BytesIO(data)).size == (20, 15)


@pytest.mark.parametrize("name", ["a.mp4", "b.WAV", "c.mp3"])
async def test_other_files_are_uploaded_as_they_are(tmp_path: Path, name: str) -> None:
    """Films and sounds go up to the byte, from disk or from memory, when their name says what they are."""
    path = tmp_path / "x"
    path.write_bytes(b"film")
    for source in (path, b"film", io.BytesIO(b"film")):
        assert await uploaded(source, filename=name) == (name, b"film")


@pytest.mark.parametrize(
    ("source", "filename", "words"),
    [
        (
            "https://example.com/a.png",
            None,
            "ValueError: source must be a local file, a link needs no upload, got 'http",
        ),
        ("a.png", None, "ValueError: source must be .*; a local file is Path"),
        (b"film", None, r"ValueError: source must be the bytes of a picture \(.*\), got b'film'"),
        (b"film", "a.png", "ValueError: source must be the bytes of a picture"),
        (5, "a.png", "TypeError: source must be an http"),
        (
            PNG,
            "a.gif",
            r"ValueError: filename must be a name of at most 128 characters that ends in jpg, .*, got 'a.gif'",
        ),
        (PNG, "png", "ValueError: filename must be"),
        (PNG, "", "ValueError: filename must be"),
        (PNG, "x" * 125 + ".png", "ValueError: filename must be"),
        (PNG, 5, "TypeError: filename must be .* got 5"),
        (
            Image.new("L", (1, 1)),
            "a.mp4",
            "TypeError: source must be a Path or bytes where filename ends in mp4, wav, mp3",
        ),
        (
            bytes(FILE_MAX + 1),
            "a.mp4",
            f"ValueError: the upload takes files of at most {FILE_MAX} bytes, got {FILE_MAX + 1}",
        ),
    ],
)
async def test_what_cannot_be_uploaded_is_refused(source: Any, filename: Any, words: str) -> None:
    """A link, no picture, a bad name, too much: one sentence, and nothing is sent."""
    kind, _, pattern = words.partition(": ")
    async with RawServer(link()) as server, Session("k", base_url=server.url) as session:
        with pytest.raises((TypeError, ValueError), match=f"^{pattern}") as caught:
            await session.upload(source, filename=filename)
        assert caught.typename == kind
        assert server.received == []


async def test_longest_name_and_largest_file_are_taken() -> None:
    """Both limits include their bound, and the emulator, which keeps to the documentation, agrees."""
    async with Emulator(plan="creator") as server:
        async with Session(server.api_key, base_url=server.url) as session:
            url = await session.upload(bytes(FILE_MAX), filename="x" * 124 + ".mp4")
    assert url.startswith(f"{server.url}/")


async def test_missing_file_is_told(tmp_path: Path) -> None:
    """A file that is not there is the disk's error, with its path."""
    for filename in (None, "a.mp4"):
        with pytest.raises(FileNotFoundError, match=r"source must be a readable .*missing.png"):
            await uploaded(tmp_path / "missing.png", filename=filename)


# Answers.


@pytest.mark.parametrize("answered", [{"url": LINK}, {"code": 200, "data": None, "url": LINK}, {"data": {"url": LINK}}])
async def test_link_is_found_where_it_may_be(answered: Any) -> None:
    """The documentation has the link in `data`, PiAPI's own program at the top; both are taken."""
    async with RawServer(answer(answered)) as server, Session("k", base_url=server.url) as session:
        assert await session.upload(PNG) == LINK


@pytest.mark.parametrize("url", [None, "", 5, "a.png", "file:///etc/passwd", "https://e.com/a b"])
async def test_what_is_no_link_is_an_error(url: Any) -> None:
    """An answer without an http(s) link is unexpected, and its body is kept."""
    async with RawServer(link(url)) as server, Session("k", base_url=server.url, retry=ONCE) as session:
        with pytest.raises(UnexpectedResponseError, match="is not a link") as caught:
            await session.upload(PNG)
    assert '"url"' in caught.value.body


@pytest.mark.parametrize("status", [403, 200])
async def test_refusal_by_the_plan_says_what_to_do(status: int) -> None:
    """On the free plan the upload is refused; the error says so, and how to do without."""
    refusal = answer({"code": 403, "message": "upgrade"}, status=status)
    async with RawServer(refusal) as server, Session("k", base_url=server.url) as session:
        with pytest.raises(
            AuthenticationError, match=r"upgrade; uploads need .* Creator plan .*local_images='data-uri'"
        ):
            await session.upload(PNG)
        assert len(server.received) == 1
    async with Emulator(plan="free") as emulator:
        async with Session(emulator.api_key, base_url=emulator.url, local_images="upload") as session:
            with pytest.raises(AuthenticationError, match="creator plan"):
                await session.submit(Img2Img(prompt="p", image=PNG))
        assert not emulator.tasks


async def test_key_is_not_shown_by_a_failed_upload() -> None:
    """A server that repeats the key in its refusal is not repeated."""
    key = "sk-0123456789"
    async with RawServer(answer({"message": f"bad {key}"}, status=500)) as server:
        async with Session(key, base_url=server.url, retry=ONCE) as session:
            with pytest.raises(ServerError) as caught:
                await session.upload(PNG)
    assert key not in str(caught.value) + caught.value.body


# Where to.


@pytest.mark.parametrize(
    ("base_url", "upload_url", "environment", "expected"),
    [
        (None, None, {}, "https://upload.theapi.app"),
        ("https://api.piapi.ai/", None, {}, "https://upload.theapi.app"),
        ("http://localhost:1", None, {}, "http://localhost:1"),
        (None, None, {"PIAPI_BASE_URL": "http://localhost:2/"}, "http://localhost:2"),
        (None, None, {"PIAPI_UPLOAD_URL": "http://localhost:3/"}, "http://localhost:3"),
        ("http://localhost:1", None, {"PIAPI_UPLOAD_URL": "http://localhost:3"}, "http://localhost:3"),
        (None, "http://localhost:4/", {"PIAPI_UPLOAD_URL": "http://localhost:3"}, "http://localhost:4"),
    ],
)
def test_key_goes_where_it_belongs(
    base_url: str | None,
    upload_url: str | None,
    environment: dict[str, str],
    expected: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The real upload host is for the real service alone; every other service is its own, unless one says otherwise."""
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert Session("k", base_url=base_url, upload_url=upload_url)._api.upload_url == expected


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Session("k", upload_url="nonsense"), "upload_url must be an http"),
        (lambda: Session("k", upload_url="http://me:pass@host"), "upload_url .* with a user, which is not shown"),
        (lambda: Session("k", local_images="link"), "local_images must be 'data-uri' or 'upload', got 'link'"),  # type: ignore[arg-type]
    ],
)
def test_bad_arguments_are_refused(make: Callable[[], Session], words: str) -> None:
    """What a session cannot mean is refused when it is made."""
    with pytest.raises(ConfigurationError, match=f"^{words}") as caught:
        make()
    assert "pass@" not in str(caught.value)


async def test_nothing_is_uploaded_for_a_task_that_is_not_paid_for() -> None:
    """A submit beyond `max_spend_usd` is refused before its picture is read or uploaded: nothing at all is sent."""
    async with RawServer(link()) as server:
        async with Session("k", base_url=server.url, local_images="upload", max_spend_usd=0) as session:
            with pytest.raises(SpendLimitError, match="nothing was sent"):
                await session.submit(Img2Img(prompt="p", image=Path("nowhere.png")))
            assert session.spent == 0
        assert not server.received


async def test_a_picture_that_is_refused_gives_the_money_back() -> None:
    """What was set aside for a task is free again when its picture cannot be read, or its upload fails."""
    async with RawServer(answer({}, status=403), link(), task()) as server:
        async with Session("k", base_url=server.url, local_images="upload", max_spend_usd=0.0015) as session:
            with pytest.raises(FileNotFoundError):
                await session.submit(Img2Img(prompt="p", image=Path("nowhere.png")))
            with pytest.raises(AuthenticationError):
                await session.submit(Img2Img(prompt="p", image=PNG))
            assert session.spent == 0
            await session.submit(Img2Img(prompt="p", image=PNG))
