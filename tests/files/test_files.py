"""Pictures in, as data URIs, and pictures out, whole or not at all and nowhere but where they belong."""

import asyncio
import base64
import io
import json
import os
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from PIL import Image as PillowImage
from support.raw_server import JPEG, PNG, RawServer, answer, closing, cut, holding, stalling_after, strangers, task

from piapi_async import (
    ControlNet,
    ControlNetLora,
    Image,
    Img2Img,
    LoRA,
    RetryPolicy,
    Session,
    TaskRequest,
    events,
    files,
)
from piapi_async.emulator import Constant, Emulator
from piapi_async.errors import ConnectionLostError, NoOutputError, OutputError, TransportError
from piapi_async.testing import EventLog


def made(kind: str, **options: Any) -> bytes:
    """A small picture of some kind."""
    buffer = io.BytesIO()
    PillowImage.new("RGB", (3, 2), "red").save(buffer, kind, **options)
    return buffer.getvalue()


PICTURES = {"png": PNG, "jpg": JPEG} | {kind: made(kind) for kind in ("webp", "gif", "bmp", "tiff", "avif")}


def uri(data: bytes, media_type: str = "image/png") -> str:
    """A data URI, made without the package."""
    return f"data:{media_type};base64,{base64.b64encode(data).decode()}"


async def sent(request: Any, **options: Any) -> dict[str, Any]:
    """The `input` that goes over the wire for a request."""
    async with RawServer(task()) as server, Session("k", base_url=server.url, **options) as session:
        await session.submit(request)
        return json.loads(server.received[0].body)["input"]


# Pictures in.


@pytest.mark.parametrize(("ending", "data"), list(PICTURES.items())[:3])
async def test_local_picture_travels_as_a_data_uri(tmp_path: Path, ending: str, data: bytes) -> None:
    """A `Path` and its bytes are sent as the same data URI, with the type that the content shows, not the name."""
    path = tmp_path / "picture.txt"
    path.write_bytes(data)
    media_type = {"jpg": "image/jpeg"}.get(ending, f"image/{ending}")
    for image in (path, data):
        assert (await sent(Img2Img(prompt="p", image=image)))["image"] == uri(data, media_type)


@pytest.mark.parametrize("image", ["https://example.com/a.jpg?sig=%2F", uri(PNG), uri(JPEG, "image/x-odd")])
async def test_links_and_data_uris_travel_as_they_are(image: str) -> None:
    """A URL and a data URI are the service's to read; they are sent to the letter."""
    assert (await sent(Img2Img(prompt="p", image=image)))["image"] == image


async def test_pictures_at_any_depth_travel(tmp_path: Path) -> None:
    """Control pictures, LoRA pictures and whatever lies deeper in a plain request are sent alike."""
    path = tmp_path / "a.png"
    path.write_bytes(PNG)
    lora = LoRA("mjv6", image=PNG)
    typed = ControlNetLora(prompt="p", image=JPEG, control_net=ControlNet("depth", image=path), lora=lora)
    given = await sent(typed)
    assert given["image"] == uri(JPEG, "image/jpeg")
    assert given["control_net_settings"][0]["control_image"] == uri(PNG)
    assert given["lora_settings"][0]["lora_image"] == uri(PNG)
    deep = {"list": [{"pair": (path, JPEG)}], "n": 1}
    given = await sent(TaskRequest(model="m", task_type="t", input=deep))
    assert given == {"list": [{"pair": [uri(PNG), uri(JPEG, "image/jpeg")]}], "n": 1}
    assert deep["list"][0]["pair"][0] is path  # type: ignore[index]


async def test_emulator_accepts_local_pictures() -> None:
    """The documented validation of the emulator takes what we make of a local picture."""
    async with Emulator(queue_delay=Constant(0.0), durations=Constant(0.0)) as server:
        async with Session(server.api_key, base_url=server.url) as session:
            info = await session.run(Img2Img(prompt="p", image=PNG))
        assert server.tasks[info.task_id].input["image"] == uri(PNG)


def _missing(path: Path) -> Path:
    return path / "missing.png"


def _directory(path: Path) -> Path:
    return path


def _text(path: Path) -> Path:
    (path / "page.png").write_text("<html>")
    return path / "page.png"


def _empty(path: Path) -> Path:
    (path / "empty.png").touch()
    return path / "empty.png"


def _large(path: Path) -> Path:
    (path / "large.png").write_bytes(PNG + bytes(1000))
    return path / "large.png"


@pytest.mark.parametrize(
    ("make", "kind", "words"),
    [
        (_missing, FileNotFoundError, "must be a readable picture"),
        (_directory, IsADirectoryError, "must be a readable picture"),
        (_text, ValueError, r"must be a picture \(PNG, .*\), got b'<html>'"),
        (_empty, ValueError, r"must be a picture .* got b''"),
        (_large, ValueError, r"must be a picture of at most 1000 bytes \(max_image_bytes\), got 10\d\d"),
    ],
)
@pytest.mark.parametrize("field", ["image", "control_image", "deep"])
async def test_bad_file_is_refused_before_anything_is_sent(
    tmp_path: Path, make: Callable[[Path], Path], kind: type[Exception], words: str, field: str
) -> None:
    """A file that cannot be sent is told with its field, its path and what is allowed; the server hears nothing."""
    path = make(tmp_path)
    request = {
        "image": lambda: Img2Img(prompt="p", image=path),
        "control_image": lambda: ControlNetLora(prompt="p", control_net=ControlNet("depth", image=path)),
        "deep": lambda: TaskRequest(model="m", task_type="t", input={"a": [{"deep": path}]}),
    }[field]()
    async with Emulator() as server:
        async with Session(server.api_key, base_url=server.url, max_image_bytes=1000) as session:
            for doing in (session.submit, session.run):
                with pytest.raises(kind, match=words) as caught:
                    await doing(request)
                assert str(caught.value).startswith(f"{field} ")
                assert repr(str(path)) in str(caught.value)
        assert server.requests == ()


@pytest.mark.parametrize("image", [PNG + bytes(1000), uri(PNG + bytes(1000))])
async def test_large_bytes_are_refused_before_anything_is_sent(image: str | bytes) -> None:
    """Bytes and data URIs are held to the same size, counted in bytes of the picture."""
    async with Emulator() as server:
        async with Session(server.api_key, base_url=server.url, max_image_bytes=1000) as session:
            with pytest.raises(ValueError, match=r"^image must be a picture of at most 1000 bytes .* got 10\d\d"):
                await session.submit(Img2Img(prompt="p", image=image))
        assert server.requests == ()


@pytest.mark.parametrize("size", [1000, 1001])
async def test_size_limit_includes_its_bound(tmp_path: Path, size: int) -> None:
    """A picture of exactly `max_image_bytes` is sent whole, one byte more is not; a file, bytes and a URI alike."""
    data = PNG + bytes(size - len(PNG))
    path = tmp_path / "a.png"
    path.write_bytes(data)
    for image in (path, data, uri(data)):
        doing = sent(Img2Img(prompt="p", image=image), max_image_bytes=1000)
        if size == 1000:
            assert (await doing)["image"] == uri(data)
        else:
            with pytest.raises(ValueError, match="at most 1000 bytes"):
                await doing


async def test_bytes_that_are_no_picture_are_refused() -> None:
    """In a plain request too: bytes are pictures or an error that names the field."""
    with pytest.raises(ValueError, match=r"^mask must be a picture"):
        await sent(TaskRequest(model="m", task_type="t", input={"mask": b"abc"}))


class Spy(dict[str, Any]):
    """A mapping that remembers which threads read its items."""

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self.threads: set[int] = set()

    def items(self) -> Any:
        """The items; the thread is noted."""
        self.threads.add(threading.get_ident())
        return super().items()


@pytest.mark.parametrize(
    ("value", "heavy"),
    [(PNG, True), ([[PNG]], True), ("x" * 70_000, True), ("x", False), ([1, {"a": None}], False)],
)
async def test_heavy_input_is_encoded_off_the_event_loop(value: Any, *, heavy: bool) -> None:
    """Pictures and long texts are encoded in a thread; small input is not worth one."""
    spy = Spy({"value": value})
    await sent(TaskRequest(model="m", task_type="t", input=spy))
    assert spy.threads
    assert (threading.get_ident() not in spy.threads) is heavy


@pytest.mark.parametrize("image", [uri(b"no picture at all"), uri(b""), "data:image/png;base64,\u00e9"])
def test_data_uri_of_no_picture_is_refused_at_once(image: str) -> None:
    """A data URI is looked into when the request is made, as bytes are; nothing that is no picture gets further."""
    with pytest.raises(ValueError, match=r"^image must be an http\(s\) URL, a picture's data URI, "):
        Img2Img(prompt="p", image=image)


async def test_few_submits_hold_pictures_in_memory(tmp_path: Path) -> None:
    """Forty submits of local pictures are under way eight at a time; one without a picture does not wait for them."""
    path = tmp_path / "a.png"
    path.write_bytes(PNG)
    go = asyncio.Event()
    async with RawServer(holding(task(), until=go)) as server, Session("k", base_url=server.url) as session:
        images: list[Any] = [path] * 40
        doing = [asyncio.ensure_future(session.submit(Img2Img(prompt="p", image=image))) for image in images]
        await asyncio.sleep(5)
        assert len(server.received) == 8
        doing.append(asyncio.ensure_future(session.submit(Img2Img(prompt="p", image="https://example.com/a.jpg"))))
        await asyncio.sleep(5)
        assert len(server.received) == 9
        go.set()
        await asyncio.gather(*doing)
        assert len(server.received) == 41


async def test_never_more_than_eight_pictures_are_under_way(tmp_path: Path) -> None:
    """From the first to the last of forty submits the bound is kept, and made use of."""
    path = tmp_path / "a.png"
    path.write_bytes(PNG)
    now = most = 0

    async def slowly(_received: Any, writer: asyncio.StreamWriter) -> None:
        nonlocal now, most
        now += 1
        most = max(most, now)
        await asyncio.sleep(1)
        now -= 1
        writer.write(task())

    async with RawServer(slowly) as server, Session("k", base_url=server.url) as session:
        await asyncio.gather(*(session.submit(Img2Img(prompt="p", image=path)) for _ in range(40)))
        assert len(server.received) == 40
    assert most == 8


# Pictures out.


async def saved(tmp_path: Path, reply: Any, **options: Any) -> Path:
    """Download what a server replies into a directory."""
    async with RawServer(reply) as server:
        async with Session("k", base_url=server.url, retry=RetryPolicy(attempts=1)) as session:
            return await session.download(f"{server.url}/a.bin", tmp_path, **options)


@pytest.mark.parametrize(("ending", "data"), PICTURES.items())
async def test_content_names_the_ending(tmp_path: Path, ending: str, data: bytes) -> None:
    """In a directory the URL names the file and the content its ending, whatever the server calls it."""
    path = await saved(tmp_path, answer(data, headers={"Content-Type": "text/html"}))
    assert path == tmp_path / f"a.{ending}"
    assert path.read_bytes() == data


async def test_given_file_name_is_kept(tmp_path: Path) -> None:
    """A file name is taken as given, its directory made if missing, and the event tells of it."""
    log = EventLog()
    async with RawServer(answer(JPEG)) as server, Session("k", base_url=server.url, observers=[log]) as session:
        to = tmp_path / "new" / "dir" / "bear.png"
        assert await session.download(Image(f"{server.url}/a.bin"), to) == to
        assert await session.download(f"{server.url}/a.bin", str(tmp_path / "text.jpg")) == tmp_path / "text.jpg"
    assert to.read_bytes() == JPEG
    assert [path.name for path in to.parent.iterdir()] == ["bear.png"]
    assert [event.path for event in log.of(events.Saved)] == [str(to), str(tmp_path / "text.jpg")]


async def test_existing_file_is_kept_unless_told_otherwise(tmp_path: Path) -> None:
    """An existing file is replaced only with `overwrite=True`, and then at once and whole."""
    path = tmp_path / "a.png"
    path.write_bytes(b"mine")
    with pytest.raises(FileExistsError, match="pass overwrite=True to replace it") as caught:
        await saved(tmp_path, answer(PNG))
    assert repr(str(path)) in str(caught.value)
    assert path.read_bytes() == b"mine"
    assert await saved(tmp_path, answer(PNG), overwrite=True) == path
    assert path.read_bytes() == PNG
    assert list(tmp_path.iterdir()) == [path]


async def test_existing_file_is_refused_before_it_is_fetched(tmp_path: Path) -> None:
    """Where the name is given, nothing is fetched that could not be kept."""
    path = tmp_path / "a.png"
    path.write_bytes(b"mine")
    async with RawServer(answer(PNG)) as server, Session("k", base_url=server.url) as session:
        with pytest.raises(FileExistsError, match="pass overwrite=True"):
            await session.download(f"{server.url}/b.png", path)
        assert server.received == []
        assert await session.download(f"{server.url}/b.png", path, overwrite=True) == path
    assert path.read_bytes() == PNG


async def test_slash_at_the_end_means_a_directory(tmp_path: Path) -> None:
    """A text that ends in a slash is a directory, made if missing; without the slash it is a file."""
    new = tmp_path / "new"
    assert await saved(new, answer(PNG)) == new
    assert new.is_file()
    async with RawServer(answer(PNG)) as server, Session("k", base_url=server.url) as session:
        path = await session.download(f"{server.url}/a.bin", f"{tmp_path}/other/deep/")
    assert path == tmp_path / "other" / "deep" / "a.png"
    assert path.read_bytes() == PNG


@pytest.mark.parametrize("name", ["CON", "con", "CON.png", "aux.tar.gz", "nul", "PRN", "com1", "LPT9.jpg"])
def test_names_of_devices_are_no_names_of_files(name: str) -> None:
    """What Windows takes for a device, with or without an ending, is hashed, the same each time."""
    assert files.safe_name(name).startswith("file-")
    assert files.safe_name(name) == files.safe_name(name)


@pytest.mark.parametrize("name", ["console", "con-1", "a.con", "COM", "com10", "auxiliary.png", "t-1"])
def test_names_like_those_of_devices_are_kept(name: str) -> None:
    """Only the very names of devices are special."""
    assert files.safe_name(name) == name


FAILURES: dict[str, tuple[Any, type[Exception], str]] = {
    "html": (answer(b"<!DOCTYPE html>" + bytes(99)), OutputError, "gave 114 bytes that are no picture"),
    "empty": (answer(b""), OutputError, "gave 0 bytes that are no picture"),
    "short": (answer(PNG[:7]), OutputError, "gave 7 bytes that are no picture"),
    "gone": (answer(status=410), OutputError, "answered 410; a result link dies after 3 days"),
    "missing": (
        answer(status=404),
        OutputError,
        "answered 404; a result link dies after 3 days, .*: fetch it again, or fetch info.images",
    ),
    "forbidden": (answer(b"<Error/>", status=403), OutputError, "answered 403"),
    "partial": (answer(PNG, status=206), OutputError, "answered 206"),
    "busy": (answer(status=503), TransportError, "the result host answered 503"),
    "limited": (answer(status=429), TransportError, "the result host answered 429"),
    "slow": (answer(status=408), TransportError, "the result host answered 408"),
    "cut": (cut, ConnectionLostError, "lost the connection to 127.0.0.1"),
    "truncated": (closing(answer(PNG, headers={"Content-Length": "999"})), ConnectionLostError, "lost the connection"),
    "stalled": (stalling_after(answer(PNG, headers={"Content-Length": "999"})), TransportError, "in time"),
    "no http": (closing(b"ssh-2.0\r\n\r\n"), TransportError, "no usable HTTP answer"),
    "bad gzip": (answer(PNG, headers={"Content-Encoding": "gzip"}), TransportError, "no usable HTTP answer"),
    "loop": (answer(status=302, headers={"Location": "/a.bin"}), TransportError, "no usable HTTP answer"),
    "file": (answer(status=302, headers={"Location": "file:///etc/passwd"}), TransportError, "no usable HTTP answer"),
}


@pytest.mark.parametrize("name", FAILURES)
async def test_failed_download_leaves_nothing_behind(tmp_path: Path, name: str) -> None:
    """Whatever a result host does wrong is one clear error, and neither a file nor a part of one is left."""
    reply, kind, words = FAILURES[name]
    with pytest.raises(kind, match=words):
        await saved(tmp_path, reply)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["gone", "html"])
async def test_dead_link_is_not_asked_again(tmp_path: Path, name: str) -> None:
    """What no repetition mends is asked for once, and the error keeps the URL."""
    async with RawServer(FAILURES[name][0]) as server, Session("k", base_url=server.url) as session:
        with pytest.raises(OutputError) as caught:
            await session.download(f"{server.url}/a.bin", tmp_path)
        assert len(server.received) == 1
        assert caught.value.url == f"{server.url}/a.bin"
    assert caught.value.safe_to_resubmit is False


async def test_expired_link_of_the_emulator_is_told(tmp_path: Path) -> None:
    """Three days after its task the link is dead, and the error says that this is how it is."""
    async with Emulator(queue_delay=Constant(0.0), durations=Constant(0.0), max_pixels=100) as server:
        async with Session(server.api_key, base_url=server.url) as session:
            info = await session.run(Img2Img(prompt="p", image="https://example.com/a.jpg"))
            await asyncio.sleep(3 * 24 * 3600 + 1)
            with pytest.raises(OutputError, match="404; a result link dies after 3 days"):
                await session.save(info, tmp_path)
    assert list(tmp_path.iterdir()) == []


async def test_picture_without_end_is_bounded(tmp_path: Path) -> None:
    """A result larger than 100 MiB is broken off, and nothing of it stays on the disk."""

    async def endless(_received: Any, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + PNG)
        zeros = bytes(2**20)
        while True:
            writer.write(zeros)
            await writer.drain()

    async with RawServer(endless) as server, Session("k", base_url=server.url) as session:
        with pytest.raises(OutputError, match=f"is larger than {100 * 2**20} bytes"):
            await session.download(f"{server.url}/a.png", tmp_path)
        await asyncio.sleep(0.01)
        assert strangers() == []
        assert server.busy == set()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1/../../etc/passwd",
        "http://127.0.0.1/%2e%2e%2f%2e%2e%2fevil.png",
        "http://127.0.0.1/..%5c..%5cevil",
        "http://127.0.0.1/",
        "http://127.0.0.1/.hidden.png",
        "http://127.0.0.1/a%00b.png",
        "http://127.0.0.1/" + "x" * 300 + ".png",
        "http://127.0.0.1/%F0%9F%90%BB.png",
        "http://127.0.0.1/-rf.png",
    ],
)
async def test_hostile_url_stays_in_the_directory(tmp_path: Path, url: str) -> None:
    """Whatever a URL's path looks like, one visible file with a harmless name appears in the directory given."""
    directory = tmp_path / "inner"
    directory.mkdir()
    async with RawServer(answer(PNG)) as server, Session("k", base_url=server.url) as session:
        path = await session.download(url.replace("http://127.0.0.1", server.url), directory)
    assert path.parent == directory
    assert list(directory.iterdir()) == [path]
    assert list(tmp_path.iterdir()) == [directory]
    assert path.name.isascii()
    assert path.name[0].isalnum()
    assert len(path.name) <= 110


@pytest.mark.parametrize("task_id", ["../evil", "/etc/passwd", "..", "a/b", "a\0b", "x" * 300, "CON:", "ä", ".a"])
async def test_hostile_task_id_stays_in_the_directory(tmp_path: Path, task_id: str) -> None:
    """Whatever a task is called, its pictures land in the directory given, and each time under the same name."""
    directory = tmp_path / "inner"
    output = {"image_url": uri(PNG)}
    async with RawServer(task(task_id, "completed", output=output)) as server:
        async with Session("k", base_url=server.url) as session:
            info = (await session.submit(Img2Img(prompt="p", image="https://e.com/a.png"))).info
            assert info is not None
            assert info.task_id == task_id
            (path,) = await session.save(info, directory)
            assert await session.save(info, directory) == (path,)
    assert path.parent == directory
    assert list(directory.iterdir()) == [path]
    assert list(tmp_path.iterdir()) == [directory]


@pytest.mark.parametrize(
    "url", ["http://[::1/a.png", "ftp://127.0.0.1/a.png", "file:///etc/passwd", "a.png", "http://"]
)
async def test_url_that_is_none_is_an_output_error(tmp_path: Path, url: str) -> None:
    """A result's URL is the server's text; one that leads nowhere is an `OutputError` like any other bad output."""
    async with Session("k") as session:
        for to in (tmp_path, tmp_path / "a.png"):
            with pytest.raises(OutputError, match=r"is no http\(s\) URL"):
                await session.download(url, to)
    assert list(tmp_path.iterdir()) == []


async def test_one_picture_is_named_by_its_task(tmp_path: Path) -> None:
    """`save` names the only picture by the task, in a directory that it makes, and saving again replaces it."""
    async with Emulator(queue_delay=Constant(0.0), durations=Constant(0.0), max_pixels=100) as server:
        async with Session(server.api_key, base_url=server.url) as session:
            info = await session.run(Img2Img(prompt="p", image="https://example.com/a.jpg"))
            (path,) = await session.save(info, tmp_path / "out")
            assert path == tmp_path / "out" / f"{info.task_id}.png"
            path.write_bytes(b"old")
            assert await session.save(info, str(tmp_path / "out")) == (path,)
        results = [record for record in server.requests if record.endpoint == "result"]
        assert [record.had_key for record in results] == [False, False]
    assert path.read_bytes().startswith(b"\x89PNG")
    assert list(path.parent.iterdir()) == [path]


async def test_several_pictures_are_numbered(tmp_path: Path) -> None:
    """Two pictures are called -1 and -2, in the order in which the service names them."""
    async with RawServer(answer(PNG), answer(JPEG)) as host:
        urls = [f"{host.url}/x/first", f"{host.url}/x/second"]
        async with RawServer(task("t", "completed", output={"image_urls": urls})) as server:
            async with Session("k", base_url=server.url) as session:
                paths = await session.save(await session.get_task("t"), tmp_path)
        assert [received.line for received in host.received] == ["GET /x/first", "GET /x/second"]
    assert [path.name for path in paths] == ["t-1.png", "t-2.jpg"]
    assert [path.read_bytes() for path in paths] == [PNG, JPEG]


async def test_one_bad_picture_does_not_keep_the_others(tmp_path: Path) -> None:
    """All pictures of a task are tried; those that come are on disk when the first failure is raised."""
    async with RawServer(answer(status=410), answer(PNG), answer(b"<html>"), answer(JPEG)) as host:
        urls = [f"{host.url}/{number}" for number in range(4)]
        async with RawServer(task("t", "completed", output={"image_urls": urls})) as server:
            async with Session("k", base_url=server.url) as session:
                with pytest.raises(OutputError, match="answered 410") as caught:
                    await session.save(await session.get_task("t"), tmp_path)
        assert len(host.received) == 4
    assert caught.value.url == urls[0]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["t-2.png", "t-4.jpg"]


async def test_task_without_pictures_cannot_be_saved(tmp_path: Path) -> None:
    """`save` of a task that has no pictures is one clear error, and makes no directory."""
    async with RawServer(task("t-1", "processing")) as server, Session("k", base_url=server.url) as session:
        info = await session.get_task("t-1")
        with pytest.raises(NoOutputError, match="task t-1 is processing and has no pictures") as caught:
            await session.save(info, tmp_path / "out")
    assert caught.value.info is info
    assert not (tmp_path / "out").exists()


async def test_picture_inside_the_answer_is_saved_without_a_request(tmp_path: Path) -> None:
    """A picture that came as base64, with or without its header, is written from there."""
    for number, text in enumerate((base64.b64encode(PNG).decode(), uri(PNG)), start=1):
        async with RawServer(task(f"t{number}", "completed", output={"image_base64": text})) as server:
            async with Session("k", base_url=server.url) as session:
                (path,) = await session.save(await session.get_task(f"t{number}"), tmp_path)
            assert len(server.received) == 1
        assert path == tmp_path / f"t{number}.png"
        assert path.read_bytes() == PNG


async def test_inline_picture_can_be_downloaded(tmp_path: Path) -> None:
    """A data URI can be downloaded too; in a directory its content names it, the same each time."""
    async with Session("k") as session:
        path = await session.download(uri(JPEG, "image/png"), tmp_path)
        assert await session.download(Image(uri(JPEG, "image/png")), tmp_path, overwrite=True) == path
    assert path.suffix == ".jpg"
    assert path.read_bytes() == JPEG
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("text", ["data:image/png;base64,!!!!", "data:image/png,abc", uri(b"<html>"), "data:"])
async def test_broken_inline_picture_is_an_output_error(tmp_path: Path, text: str) -> None:
    """A data URI that cannot be read, or holds no picture, is an `OutputError`, and leaves nothing behind."""
    async with Session("k") as session:
        with pytest.raises(OutputError):
            await session.download(text, tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_redirect_of_a_result_is_followed_without_the_key(tmp_path: Path, status: int) -> None:
    """A result may move to another host; neither host sees the key, a cookie or any authorization."""
    async with RawServer(answer(PNG)) as other:
        headers = {"Location": f"{other.url}/b.png", "Set-Cookie": "spy=1"}
        async with RawServer(answer(status=status, headers=headers)) as first:
            async with Session("the-key", base_url=first.url) as session:
                path = await session.download(f"{first.url}/a.png", tmp_path)
            received = first.received + other.received
    assert path == tmp_path / "a.png"
    assert len(received) == 2
    for one in received:
        assert b"the-key" not in one.head
        assert not {name.lower() for name, _ in one.headers} & {"x-api-key", "authorization", "cookie"}


async def test_scripted_faults_of_the_emulators_results_are_survived(tmp_path: Path) -> None:
    """Results that are slow, redirected, wrongly labelled or fail in passing arrive whole all the same."""
    async with Emulator(queue_delay=Constant(0.0), durations=Constant(0.0), max_pixels=100) as server:
        async with Session(server.api_key, base_url=server.url) as session:
            info = await session.run(Img2Img(prompt="p", image="https://example.com/a.jpg"))
            (path,) = await session.save(info, tmp_path)
            whole = path.read_bytes()
            for fault in ("redirect", "wrong-type", "slow-body", "503", "truncated", "cut-before-accept"):
                path.unlink()
                server.faults.next("result", fault)
                assert await session.save(info, tmp_path) == (path,)
                assert path.read_bytes() == whole
        assert not any(record.had_key for record in server.requests if record.endpoint == "result")


async def test_download_is_seen_only_when_it_is_whole(tmp_path: Path) -> None:
    """While a picture is on its way its final name does not exist, and the temporary one is hidden."""
    go = asyncio.Event()

    async def slow(_received: Any, writer: asyncio.StreamWriter) -> None:
        whole = answer(PNG)
        writer.write(whole[:-10])
        await writer.drain()
        await go.wait()
        writer.write(whole[-10:])
        await writer.drain()

    async with RawServer(slow) as server, Session("k", base_url=server.url) as session:
        doing = asyncio.ensure_future(session.download(f"{server.url}/a.png", tmp_path))
        await asyncio.sleep(1)
        (part,) = tmp_path.iterdir()
        assert part.name.startswith(".")
        go.set()
        path = await doing
    assert list(tmp_path.iterdir()) == [path]


async def test_download_onto_a_directory_or_below_a_file_is_an_os_error(tmp_path: Path) -> None:
    """Where the disk refuses, the disk's own error comes out, and nothing is left."""
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="file"):
        await saved(tmp_path / "file" / "a.png", answer(PNG))
    (tmp_path / "a.png").mkdir()
    with pytest.raises(OSError, match="directory"):
        await saved(tmp_path, answer(PNG), overwrite=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.png", "file"]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 64 KiB, where this user may mount one."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if (
        os.geteuid() != 0
        or subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", disk], capture_output=True, check=False
        ).returncode
    ):
        pytest.skip("mounting a small disk needs root")
    yield disk
    subprocess.run(["umount", disk], check=True)


async def test_full_disk_is_an_os_error_and_leaves_nothing(small_disk: Path) -> None:
    """A disk that is full ends the download with its own error, the part is removed, and what was there stays."""
    (small_disk / "a.png").write_bytes(b"mine")
    for size in (200_000, 66_000):
        with pytest.raises(OSError, match="No space left"):
            await saved(small_disk, answer(PNG + bytes(size)), overwrite=True)
    assert [path.name for path in small_disk.iterdir()] == ["a.png"]
    assert (small_disk / "a.png").read_bytes() == b"mine"


async def test_borrowed_client_session_may_raise_for_status(tmp_path: Path) -> None:
    """An owner who set `raise_for_status=True` for his own requests does not change what a dead link means here."""
    async with RawServer(answer(status=410)) as server, aiohttp.ClientSession(raise_for_status=True) as http:
        async with Session("k", base_url=server.url, http=http) as session:
            with pytest.raises(OutputError, match="answered 410"):
                await session.download(f"{server.url}/a.png", tmp_path)
        assert len(server.received) == 1


@pytest.mark.parametrize(
    "secrets",
    [
        {"headers": {"Authorization": "Bearer 5ecret"}},
        {"headers": {"x-api-key": "5ecret", "Cookie": "c=5ecret", "X-Gateway": "5ecret"}},
        {"cookies": {"c": "5ecret"}},
        {"auth": ("me", "5ecret")},
    ],
)
@pytest.mark.filterwarnings("ignore:.*auth.* deprecated:DeprecationWarning")
async def test_what_a_borrowed_client_session_adds_does_not_go_to_other_hosts(secrets: dict[str, Any]) -> None:
    """Its headers, login and cookies go to the API alone; its `User-Agent` and middlewares hold for pictures, too."""
    headers = {"User-Agent": "mine/1.0", "accept-encoding": "gzip", **secrets.get("headers", {})}
    auth = aiohttp.BasicAuth(*secrets["auth"]) if "auth" in secrets else None
    settings = {**secrets, "headers": headers, "auth": auth}
    asked: list[str] = []
    jar = aiohttp.CookieJar(unsafe=True)  # which sends them to bare addresses, too

    async def middleware(request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
        asked.append(request.method)
        return await handler(request)

    async with RawServer(answer(PNG)) as far, RawServer(task("t")) as api:
        near = answer(status=302, headers={"Location": f"{far.url.replace('127.0.0.1', 'localhost')}/b.png"})
        async with (
            RawServer(near) as host,
            aiohttp.ClientSession(**settings, middlewares=[middleware], cookie_jar=jar) as http,
            Session("k", base_url=api.url, http=http) as session,
        ):
            await session.get_task("t")
            assert (await session.fetch(f"{host.url}/a.png")).data == PNG
    sent = [dict(one.headers) for server in (api, host, far) for one in server.received]
    assert [" ".join(one.values()).count("5ecret") > 0 or "Authorization" in one for one in sent] == [
        True,
        False,
        False,
    ]
    assert not {"cookie", "x-api-key", "x-gateway"} & {name.lower() for one in sent[1:] for name in one}
    assert [one["User-Agent"] for one in sent] == ["mine/1.0"] * 3
    assert [one["Accept-Encoding"] for one in sent[1:]] == ["identity"] * 2
    assert asked == ["GET"] * 3


async def test_many_downloads_take_turns(tmp_path: Path) -> None:
    """Forty downloads at once use sixteen connections at a time, and all arrive."""
    go = asyncio.Event()
    async with RawServer(holding(answer(PNG), until=go)) as server, Session("k", base_url=server.url) as session:
        doing = [asyncio.ensure_future(session.download(f"{server.url}/{n}.png", tmp_path)) for n in range(40)]
        await asyncio.sleep(1)
        assert len(server.received) == 16
        go.set()
        await asyncio.gather(*doing)
    assert len(list(tmp_path.iterdir())) == 40
