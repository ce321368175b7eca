"""Where images come from: data URIs, this machine, and nowhere else."""

import asyncio
import base64
import sys
from collections.abc import AsyncIterator

import pytest
from aiohttp import web
from support.rig import Api, MakeApi, data_uri, img2img, picture

from piapi_async import emulator
from piapi_async.emulator._art import fetch
from piapi_async.emulator._service.sources import inline, is_loopback

FOREIGN = "https://i.ibb.co/J7ZNgSG/01.jpg"


class FileServer:
    """Serves one body on this machine, and counts."""

    def __init__(self) -> None:
        self.url = ""
        self.body = picture(colour="red")
        self.status = 200
        self.served: list[str] = []

    async def handle(self, request: web.Request) -> web.Response:
        """Whatever was asked for, the same body."""
        self.served.append(request.path)
        return web.Response(status=self.status, body=self.body, headers={"Location": "/moved"})


@pytest.fixture
async def files() -> AsyncIterator[FileServer]:
    """A server of pictures next door."""
    server = FileServer()
    runner = web.ServerRunner(web.Server(server.handle))  # type: ignore[arg-type]
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    server.url = f"http://127.0.0.1:{runner.addresses[0][1]}/a.png"
    yield server
    await runner.cleanup()


async def result(api: Api, **given: object) -> bytes:
    """The finished picture of a task, empty when there is none."""
    data = await api.finished(img2img(**given))
    reply = await api.send("GET", data["output"]["image_url"])
    return reply.body if reply.status == 200 else b""


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "BMP"])
def test_the_picture_of_a_data_uri_is_found(kind: str) -> None:
    """2.6 (T, three sources): data URIs are sent for Flux; any common kind of picture will do."""
    raw = picture(kind=kind)
    assert inline(data_uri(raw)) == raw
    assert inline(base64.b64encode(raw).decode()) == raw


@pytest.mark.parametrize(
    "value",
    [
        "",
        "photo.jpg",
        "data:image/png;base64,***",
        "data:image/png;base64,é",
        "data:image/png," + base64.b64encode(picture()).decode(),
        "http;base64," + base64.b64encode(picture()).decode(),
        data_uri(b"GARBAGE"),
        data_uri(picture()) + "!!",
    ],
)
def test_what_is_no_picture_is_none(value: str) -> None:
    """Bad base64, no base64, and base64 of something else."""
    assert inline(value) is None


async def test_a_task_with_an_unusable_image_is_accepted_and_fails(api: Api) -> None:
    """4.4: the service takes the task and finds out later; the reason is told."""
    data = await api.finished(img2img(image=data_uri(b"GARBAGE")))
    assert data["status"] == "failed"
    assert data["error"]["message"] == "image download failed: neither a URL nor a base64 picture"


async def test_a_picture_in_a_data_uri_is_used(api: Api) -> None:
    """Different pictures in give different pictures out."""
    red, blue = [await result(api, image=data_uri(picture(colour=colour))) for colour in ("red", "blue")]
    assert red.startswith(b"\x89PNG")
    assert red != blue


@pytest.mark.parametrize(
    ("url", "loopback"),
    [
        ("http://127.0.0.1:8000/x", True),
        ("http://127.8.9.1/x", True),
        ("https://localhost/x", True),
        ("http://[::1]:80/x", True),
        ("http://127.0.0.1.evil.test/x", False),
        ("http://localhost@evil.test/x", False),
        ("http://10.0.0.1/x", False),
        ("http:///x", False),
        ("http://[::1/x", False),
    ],
)
def test_only_this_machine_is_loopback(url: str, loopback: bool) -> None:
    """By the spelling of the host, nothing is asked."""
    assert is_loopback(url) is loopback


@pytest.mark.parametrize(("setting", "status"), [("placeholder", "completed"), ("fail", "failed")])
async def test_an_image_elsewhere_is_a_placeholder_or_a_failure(make_api: MakeApi, setting: str, status: str) -> None:
    """No connection leaves the machine; the setting says what becomes of the task."""
    api = await make_api(unreachable_images=setting)
    data = await api.finished(img2img(image=FOREIGN))
    assert data["status"] == status
    assert (f"image download failed: {FOREIGN}" == data["error"]["message"]) == (status == "failed")


async def test_an_image_on_this_machine_is_fetched(api: Api, files: FileServer) -> None:
    """A loopback link is really read, once, and without the key."""
    red = await result(api, image=files.url)
    assert files.served == ["/a.png"]
    files.body = picture(colour="blue")
    assert await result(api, image=files.url + "?2") != red


@pytest.mark.parametrize(
    ("status", "body"), [(404, picture()), (302, picture()), (200, b"<html>")], ids=["missing", "moved", "page"]
)
async def test_an_image_that_cannot_be_had_after_all(
    make_api: MakeApi, files: FileServer, status: int, body: bytes
) -> None:
    """Errors, redirects and pages in place of a picture: a placeholder, or a link that leads nowhere."""
    files.status, files.body = status, body
    assert (await result(await make_api(), image=files.url)).startswith(b"\x89PNG")
    assert await result(await make_api(unreachable_images="fail"), image=files.url) == b""
    assert "/moved" not in files.served


async def test_fetching_has_bounds(files: FileServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody there, too much, and another machine all give nothing; proxies are passed by."""
    assert await fetch.fetch(files.url) == files.body
    assert await fetch.fetch("http://127.0.0.1:1/x") is None
    assert await fetch.fetch(FOREIGN) is None
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    assert await fetch.fetch(files.url) == files.body
    monkeypatch.setattr(fetch, "_MOST_BYTES", 10)
    assert await fetch.fetch(files.url) is None


async def test_a_picture_is_made_once_however_often_it_is_asked_for(api: Api, files: FileServer) -> None:
    """Twenty downloads at the same moment are one piece of work, and so is the same request again."""
    links = [(await api.finished(img2img(image=files.url)))["output"]["image_url"] for _ in range(2)]
    replies = await asyncio.gather(*(api.send("GET", link) for link in links * 10))
    assert len({reply.body for reply in replies}) == 1
    assert len(files.served) == 1


async def test_pictures_leave_memory_when_they_are_many(
    api: Api, files: FileServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The least recently used go first, and are made again, the same, when they are asked for."""
    monkeypatch.setattr("piapi_async.emulator._art.gallery._KEPT_BYTES", 1)
    first = await result(api, image=files.url)
    assert len(api.emulator._gallery._kept) == 0
    assert await result(api, image=files.url) == first
    assert len(files.served) == 2


async def test_the_last_used_picture_stays_longest(
    api: Api, files: FileServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With room for two, the third pushes out the one that was not looked at since."""
    links = [(await api.finished(img2img(image=f"{files.url}?{i}")))["output"]["image_url"] for i in range(3)]
    sizes = [len((await api.send("GET", link)).body) for link in links[:2]]
    monkeypatch.setattr("piapi_async.emulator._art.gallery._KEPT_BYTES", sum(sizes) + 100)
    for link in (links[0], links[2], links[0], links[2]):
        await api.send("GET", link)
    assert len(files.served) == 3


async def test_links_die_after_their_life(make_api: MakeApi) -> None:
    """5 (D): results are kept for three days and then deleted."""
    api = await make_api()
    link = (await api.finished())["output"]["image_url"]
    api.clock.seconds = 11 + 3 * 24 * 3600 - 1
    assert (await api.send("GET", link)).status == 200
    api.clock.seconds += 1
    assert (await api.send("GET", link)).status == 404


async def test_there_is_no_picture_before_the_task_is_done(api: Api) -> None:
    """A link that could be guessed leads nowhere until the task completes."""
    await api.create()
    name = next(iter(api.emulator._service._results))
    assert (await api.send("GET", f"/temp/{name}.png")).status == 404
    api.clock.seconds = 60
    assert (await api.send("GET", f"/temp/{name}.png")).status == 200


async def test_a_failed_task_has_no_picture(api: Api) -> None:
    """Nothing can be downloaded that was not paid."""
    api.emulator.faults.next("create", "task-fails")
    await api.finished()
    name = next(iter(api.emulator._service._results))
    assert (await api.send("GET", f"/temp/{name}.png")).status == 404


async def test_without_pillow_everything_works_but_pictures(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """One sentence with the command, where the picture would have been."""
    for name in [name for name in sys.modules if name.startswith("piapi_async.emulator._art.pictures")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "PIL", None)
    link = (await api.finished())["output"]["image_url"]
    reply = await api.send("GET", link)
    assert (reply.status, reply.json["message"]) == (501, "pictures need Pillow: pip install pillow")


def test_importing_the_emulator_does_not_import_pillow() -> None:
    """Pillow is loaded for the first picture, not before."""
    import subprocess

    code = f"import sys, {emulator.__name__}; sys.exit('PIL' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
