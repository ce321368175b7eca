"""Finished tasks on disk and in memory: all at once, examined, named as asked, with a side-car."""

import asyncio
import base64
import datetime as dt
import functools
import hashlib
import io
import json
import re
import struct
import sys
import time
import zlib
from pathlib import Path
from typing import Any

import pytest
from PIL import Image as PillowImage
from support.raw_server import (
    JPEG,
    PNG,
    RawServer,
    Received,
    answer,
    closing,
    holding,
    in_thread,
    stall,
    strangers,
    task,
)
from support.strategies import DEEP

from piapi_async import (
    Batch,
    Image,
    Img2Img,
    Picture,
    RetryPolicy,
    Session,
    TaskInfo,
    TaskRequest,
    TaskStatus,
    events,
    files,
)
from piapi_async.emulator import Constant, Emulator
from piapi_async.errors import NoOutputError, OutputError, PiAPIError
from piapi_async.testing import EventLog

ONCE = RetryPolicy(attempts=1)
META = {
    "created_at": "2026-11-24T14:25:30.5Z",
    "started_at": "2026-11-24T15:25:31+01:00",
    "ended_at": "2026-11-24T14:25:40Z",
    "usage": {"type": "point", "frozen": 0, "consume": 150_000},
}


def done(*urls: str, **fields: Any) -> TaskInfo:
    """A completed task with these pictures."""
    return TaskInfo(task_id="t", status=TaskStatus.COMPLETED, images=tuple(map(Image, urls)), **fields)


def photo(kind: str, *, side: int = 64) -> bytes:
    """A picture of some kind."""
    buffer = io.BytesIO()
    PillowImage.radial_gradient("L").resize((side, side)).convert("RGB").save(buffer, kind)
    return buffer.getvalue()


def bomb() -> bytes:
    """A PNG of a few bytes that says it has ten billion pixels."""
    header = b"IHDR" + struct.pack(">IIBBBBB", 100_000, 100_000, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header)) + PNG[33:]


async def test_all_pictures_are_fetched_at_once(tmp_path: Path) -> None:
    """Four pictures are asked for before one has come, and come in the task's order whichever is first."""
    go = asyncio.Event()
    async with RawServer(holding(answer(PNG), until=go)) as server, Session("k", base_url=server.url) as session:
        doing = asyncio.ensure_future(session.save(done(*(f"{server.url}/{n}" for n in range(4))), tmp_path))
        await asyncio.sleep(1)
        assert len(server.received) == 4
        go.set()
        paths = await doing
    assert [path.name for path in paths] == ["t-1.png", "t-2.png", "t-3.png", "t-4.png"]


async def test_hundreds_of_pictures_do_not_use_up_the_files_of_a_process(tmp_path: Path) -> None:
    """Three hundred downloads at once have 64 files open at a time, and all arrive."""
    go = asyncio.Event()
    async with RawServer(holding(answer(PNG), until=go)) as server, Session("k", base_url=server.url) as session:
        doing = [asyncio.ensure_future(session.download(f"{server.url}/{n}", tmp_path)) for n in range(300)]
        await asyncio.sleep(1)
        assert len(list(tmp_path.glob(".*.part"))) == 64
        go.set()
        await asyncio.gather(*doing)
    assert len(list(tmp_path.iterdir())) == 300


@pytest.mark.parametrize("bad", [answer(b"<html>"), answer(status=503)])
async def test_failure_tells_what_was_saved(tmp_path: Path, bad: bytes) -> None:
    """The first failure is raised when all have ended; it names the task, and the files that are there all the same."""

    async def reply(received: Received, writer: asyncio.StreamWriter) -> None:
        writer.write(bad if received.line.endswith("/1") else answer(PNG))
        await writer.drain()

    async with RawServer(reply) as server, Session("k", base_url=server.url, retry=ONCE) as session:
        with pytest.raises(PiAPIError) as caught:
            await session.save(done(*(f"{server.url}/{n}" for n in range(3))), tmp_path, sidecar=True)
    saved = (tmp_path / "t-1.png", tmp_path / "t-3.png")
    assert caught.value.saved == saved
    assert caught.value.task_id == "t"
    assert caught.value.__notes__ == [f"saved all the same: {saved[0]}, {saved[1]}"]
    assert sorted(tmp_path.iterdir()) == sorted(saved)


async def test_failure_of_the_disk_tells_what_was_saved(tmp_path: Path) -> None:
    """An error that is none of ours has the note; where nothing was saved there is none."""
    (tmp_path / "t-1.png").mkdir()
    uri = "data:image/png;base64," + base64.b64encode(PNG).decode()
    async with Session("k") as session:
        with pytest.raises(IsADirectoryError) as caught:
            await session.save(done(uri, uri), tmp_path)
        assert caught.value.__notes__ == [f"saved all the same: {tmp_path / 't-2.png'}"]
        (tmp_path / "1-t.png").mkdir()
        with pytest.raises(IsADirectoryError) as caught:
            await session.save(done(uri), tmp_path, name="1-{task_id}")
    assert not hasattr(caught.value, "__notes__")


@pytest.mark.parametrize("name", ["../{n}", "{user}", "/tmp/x", "{task_id}.png"])
async def test_bad_template_is_refused_before_anything_is_fetched(tmp_path: Path, name: str) -> None:
    """A template that leads out, or names what is not there, is refused before all else; also without pictures."""
    async with RawServer(answer(PNG)) as server, Session("k", base_url=server.url) as session:
        for info in (done(f"{server.url}/a"), done()):
            with pytest.raises(ValueError, match=r"^name must be a relative path"):
                await session.save(info, tmp_path / "out", name=name)
        assert server.received == []
    assert list(tmp_path.iterdir()) == []


async def test_template_makes_folders(tmp_path: Path) -> None:
    """A slash in the template makes a folder; the content gives the ending."""
    async with RawServer(answer(JPEG)) as server, Session("k", base_url=server.url) as session:
        info = done(f"{server.url}/a", f"{server.url}/b", model="Qubico/flux1-dev")
        paths = await session.save(info, tmp_path, name="{model}/{n:03}", sidecar=True)
        alike = await session.save(info, tmp_path / "alike", name="x", sidecar=True)
    assert paths == (tmp_path / "Qubico-flux1-dev/001.jpg", tmp_path / "Qubico-flux1-dev/002.jpg")
    content = json.loads((tmp_path / "Qubico-flux1-dev/001.json").read_text())
    assert [one["file"] for one in content["files"]] == ["001.jpg", "002.jpg"]
    assert [path.name for path in alike] == ["x-1.jpg", "x-2.jpg"]
    assert (tmp_path / "alike/x.json").exists()


async def test_sidecar_tells_the_whole_story(tmp_path: Path) -> None:
    """Task, times, cost, files and request: everything in one JSON file, and nothing that is secret or large."""
    data = photo("PNG")
    local = tmp_path / "photo.png"
    local.write_bytes(data)
    request = TaskRequest(
        model="Qubico/flux1-dev",
        task_type="img2img",
        input={
            "prompt": "ein Bär \ud800",
            "image": local,
            "control": [data, "data:image/png;base64," + base64.b64encode(data).decode()],
            "broken": "data:image/png;base64," + "!" * 300,
            "long": "x" * 20_000,
            "webhook": {"Secret": "hush"},
            "odd": {1: float("nan"), "b": True, "none": None, "half": 0.5, "set": {1}},
        },
    )
    async with RawServer(answer(data)) as host:
        url = f"{host.url}/a.png"
        signed = url.replace("//", "//user:password@") + "?signature=hush#hush"
        fields = {"model": "Qubico/flux1-dev", "meta": META, "output": {"image_url": signed}}
        fields |= {"input": {"prompt": "echo"}, "config": {"webhook_config": {"secret": "hush"}}}
        async with RawServer(task("t", "completed", **fields)) as server:
            async with Session("k", base_url=server.url) as session:
                info = await session.get_task("t")
                (path,) = await session.save(info, tmp_path / "out", sidecar=True, request=request)
                text = (tmp_path / "out/t.json").read_text(encoding="utf-8")
                await session.save(info, tmp_path / "out", sidecar=True)
                echoed = json.loads((tmp_path / "out/t.json").read_text(encoding="utf-8"))
    digest = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    assert json.loads(text) == {
        "task_id": "t",
        "model": "Qubico/flux1-dev",
        "task_type": "img2img",
        "status": "completed",
        "created_at": "2026-11-24T14:25:30.500000+00:00",
        "started_at": "2026-11-24T14:25:31+00:00",
        "ended_at": "2026-11-24T14:25:40+00:00",
        "seconds": 9.5,
        "usage": {"type": "point", "consume": 150_000, "usd": 0.015},
        "files": [{"file": "t.png", "media_type": "image/png", "width": 64, "height": 64, **digest, "url": url}],
        "request": {
            "model": "Qubico/flux1-dev",
            "task_type": "img2img",
            "service_mode": None,
            "input": {
                "prompt": "ein Bär \ud800",
                "image": {"path": str(local)},
                "control": [digest, digest],
                "broken": "data:image/png;base64," + "!" * 42 + "… (322 characters)",
                "long": "x" * 64 + "… (20000 characters)",
                "webhook": {"Secret": "***"},
                "odd": {"1": "nan", "b": True, "none": None, "half": 0.5, "set": "{1}"},
            },
        },
    }
    assert "hush" not in text
    assert "ein Bär" in text
    assert "request" not in echoed
    assert echoed["echoed_input"] == {"prompt": "echo"}
    assert sorted(one.name for one in path.parent.iterdir()) == ["t.json", "t.png"]


async def test_sidecar_of_a_task_that_tells_nothing(tmp_path: Path) -> None:
    """What the service did not say is null; a picture from within the answer has its URL cut short."""
    uri = "data:image/bmp;base64," + base64.b64encode(photo("BMP")).decode()
    info = done(uri, created_at=None)
    naive = done(uri, created_at=dt.datetime(2026, 11, 24, 14, 25, 30))  # noqa: DTZ001 - that is the point
    async with Session("k") as session:
        await session.save(info, tmp_path, sidecar=True)
        content = json.loads((tmp_path / "t.json").read_text())
        await session.save(naive, tmp_path, sidecar=True)
    times = ("created_at", "started_at", "ended_at", "seconds", "usage", "echoed_input")
    assert [content[name] for name in times] == [None] * 6
    (file,) = content["files"]
    assert (file["width"], file["height"], len(file["url"]) < 100) == (None, None, True)
    assert json.loads((tmp_path / "t.json").read_text())["created_at"] == "2026-11-24T14:25:30+00:00"


async def test_request_that_cannot_be_told_is_refused_first(tmp_path: Path) -> None:
    """What is no request, or holds itself, is refused before anything is fetched."""
    deep: dict[str, Any] = {}
    deep["deep"] = deep
    async with RawServer(answer(PNG)) as server, Session("k", base_url=server.url) as session:
        info = done(f"{server.url}/a")
        with pytest.raises(TypeError, match=r"^request must be a request"):
            await session.save(info, tmp_path, sidecar=True, request={"a": 1})  # type: ignore[arg-type]
        request = TaskRequest(model="m", task_type="t", input=deep)
        with pytest.raises(ValueError, match=r"^request must hold JSON values"):
            await session.save(info, tmp_path, sidecar=True, request=request)
        assert server.received == []


async def test_sidecar_of_an_endless_echo(tmp_path: Path) -> None:
    """An echo that is nested too deep is left out of the side-car: the pictures are there, and so is the rest."""
    async with RawServer(answer(PNG)) as server, Session("k", base_url=server.url) as session:
        echo: list[object] = functools.reduce(lambda inner, _: [inner], range(DEEP), [])
        info = done(f"{server.url}/a", raw={"input": echo})
        assert await session.save(info, tmp_path, sidecar=True) == (tmp_path / "t.png",)
    assert json.loads((tmp_path / "t.json").read_text())["echoed_input"] == "(nested too deep)"


async def test_sidecar_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    """The pictures are there when the disk refuses the side-car; the note says so."""
    (tmp_path / "t.json").mkdir()
    async with RawServer(answer(PNG)) as server, Session("k", base_url=server.url) as session:
        with pytest.raises(IsADirectoryError) as caught:
            await session.save(done(f"{server.url}/a"), tmp_path, sidecar=True)
    assert caught.value.__notes__ == [f"saved all the same: {tmp_path / 't.png'}"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["t.json", "t.png"]


BROKEN = {
    "png": (photo("PNG")[:-20], "broken image/png: it ends early"),
    "jpeg": (photo("JPEG")[:-2], "broken image/jpeg: it ends early"),
    "webp": (photo("WEBP")[:-2], "broken image/webp: it ends early"),
    "jpeg without an end": (photo("JPEG")[:400], "broken image/jpeg: "),
    "bomb": (bomb(), "it has 100000 x 100000 pixels, more than 178956970"),
    "gif bomb": (b"GIF89a" + b"\xff" * 4 + bytes(20), "it has 65535 x 65535 pixels"),
}


@pytest.mark.parametrize("pillow", [True, False])
@pytest.mark.parametrize("name", BROKEN)
async def test_broken_picture_is_never_kept(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch, *, pillow: bool
) -> None:
    """Cut short without a length, or far too large: found out with and without Pillow, and told once."""
    if not pillow:
        monkeypatch.setitem(sys.modules, "PIL", None)
    data, words = BROKEN[name]
    reply = closing(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + data)
    async with RawServer(reply) as server, Session("k", base_url=server.url) as session:
        for doing in (session.download(f"{server.url}/a", tmp_path), session.fetch(f"{server.url}/a")):
            with pytest.raises(OutputError, match=words) as caught:
                await doing
            assert caught.value.url == f"{server.url}/a"
            cause = caught.value.__cause__
            assert cause is None or cause.__traceback__ is None  # its frames would keep the whole file alive
        assert len(server.received) == 2
    assert list(tmp_path.iterdir()) == []


async def test_what_only_decoding_shows_is_never_kept(tmp_path: Path) -> None:
    """A JPEG that begins and ends as it should, with a table that cannot be, is found out where Pillow is installed."""
    table = JPEG.index(b"\xff\xc4") + 5
    broken = JPEG[:table] + b"\xff" * 16 + JPEG[table + 16 :]
    async with RawServer(answer(broken)) as server, Session("k", base_url=server.url) as session:
        with pytest.raises(OutputError, match="broken image/jpeg: it cannot be decoded"):
            await session.download(f"{server.url}/a", tmp_path)
    assert list(tmp_path.iterdir()) == []


async def test_fetched_picture_is_in_memory() -> None:
    """`fetch` gives the bytes, what they are and where they came from; the key is not sent along."""
    async with RawServer(answer(PNG)) as server, Session("the-key", base_url=server.url) as session:
        picture = await session.fetch(Image(f"{server.url}/a"))
        assert b"the-key" not in server.received[0].head
    assert picture == Picture(PNG)
    assert (picture.media_type, picture.url, picture.width) == ("image/png", f"{server.url}/a", 1)
    async with Session("k") as session:
        inline = await session.fetch("data:image/x;base64," + base64.b64encode(JPEG).decode())
        assert (inline.data, inline.media_type) == (JPEG, "image/jpeg")
        with pytest.raises(OutputError, match=r"is no http\(s\) URL"):
            await session.fetch("file:///etc/passwd")


@pytest.mark.parametrize("status", [401, 403, 404, 410])
async def test_dead_link_is_told(status: int) -> None:
    """A link that does not lead to a picture any more is one clear error."""
    async with RawServer(answer(status=status)) as server, Session("k", base_url=server.url) as session:
        with pytest.raises(OutputError, match=f"answered {status}; a result link dies after 3 days"):
            await session.fetch(f"{server.url}/a")
        assert len(server.received) == 1


async def test_cancelled_save_leaves_no_part(tmp_path: Path) -> None:
    """Cancelled while three pictures are on their way, a save leaves nothing, and nothing runs on."""
    async with RawServer(stall) as server, Session("k", base_url=server.url) as session:
        doing = asyncio.ensure_future(session.save(done(*(f"{server.url}/{n}" for n in range(3))), tmp_path))
        await asyncio.sleep(1)
        doing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await doing
        await asyncio.sleep(0.01)
        assert strangers() == []
        assert server.busy == set()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.real_time
@pytest.mark.parametrize("turns", range(0, 60, 4))
async def test_cancel_at_any_turn_leaves_whole_files_only(tmp_path: Path, turns: int) -> None:
    """Wherever a cancel falls, into the work of threads too: what is there is whole, and nothing else is there."""
    async with RawServer(answer(PNG)) as server, Session("k", base_url=server.url) as session:
        doing = asyncio.ensure_future(session.save(done(f"{server.url}/a", f"{server.url}/b"), tmp_path, sidecar=True))
        for _ in range(turns):
            await asyncio.sleep(0.0003 if turns % 8 else 0)
        doing.cancel()
        await asyncio.gather(doing, return_exceptions=True)
        await asyncio.to_thread(time.sleep, 0.02)  # a thread that could not be stopped has ended
    names = {path.name for path in tmp_path.iterdir()}
    assert names <= {"t-1.png", "t-2.png", "t.json"}
    assert all(path.read_bytes() == PNG for path in tmp_path.glob("*.png"))
    assert "t.json" not in names or json.loads((tmp_path / "t.json").read_text())["task_id"] == "t"


async def test_file_that_appears_meanwhile_is_kept(tmp_path: Path) -> None:
    """A file made while the picture is on its way is not replaced: the name is taken in one step with the check."""
    go = asyncio.Event()
    async with RawServer(holding(answer(PNG), until=go)) as server, Session("k", base_url=server.url) as session:
        doing = asyncio.ensure_future(session.download(f"{server.url}/a", tmp_path / "a.png"))
        await asyncio.sleep(1)
        (tmp_path / "a.png").write_bytes(b"mine")
        go.set()
        with pytest.raises(FileExistsError, match="pass overwrite=True"):
            await doing
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"mine"]


async def test_only_one_of_many_gets_the_name(tmp_path: Path) -> None:
    """Twenty downloads to one name: one file, nineteen errors, nothing else on disk."""
    async with RawServer(answer(PNG)) as server, Session("k", base_url=server.url) as session:
        doing = [session.download(f"{server.url}/{n}", tmp_path / "a.png") for n in range(20)]
        ends = await asyncio.gather(*doing, return_exceptions=True)
    assert sorted(type(end).__name__ for end in ends) == ["FileExistsError"] * 19 + [type(tmp_path).__name__]
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


def test_session_saves_and_fetches_in_a_second_run(tmp_path: Path) -> None:
    """One session saves in one `asyncio.run` and again in the next."""
    with in_thread(RawServer(answer(PNG))) as server:
        session = Session("k", base_url=server.url)

        async def main() -> tuple[Path, ...]:
            async with session:
                assert (await session.fetch(f"{server.url}/a")).data == PNG
                return await session.save(done(f"{server.url}/a"), tmp_path, sidecar=True)

        assert asyncio.run(main()) == asyncio.run(main()) == (tmp_path / "t.png",)


async def test_task_of_the_emulator_is_saved_with_its_story(tmp_path: Path) -> None:
    """A real run: the side-car has the picture's size, the cost and the request; every picture is told as an event."""
    log = EventLog()
    async with Emulator(queue_delay=Constant(1.0), durations=Constant(4.0), max_pixels=10_000) as server:
        async with Session(server.api_key, base_url=server.url, observers=[log]) as session:
            request = Img2Img(prompt="a bear", image=PNG, batch_size=2)
            info = await session.run(request)
            paths = await session.save(info, tmp_path, name="{date}-{n}", sidecar=True, request=request)
            pictures = [await session.fetch(image) for image in info.images]
    content = json.loads(next(tmp_path.glob("*-1.json")).read_text())
    assert content["request"]["input"]["prompt"] == "a bear"
    assert content["request"]["input"]["image"]["bytes"] == len(PNG)
    assert content["seconds"] == pytest.approx(5, abs=0.5)
    assert [(one["width"], one["sha256"]) for one in content["files"]] == [
        (picture.width, hashlib.sha256(picture.data).hexdigest()) for picture in pictures
    ]
    assert [path.read_bytes() for path in paths] == [picture.data for picture in pictures]
    assert {event.path for event in log.of(events.Saved)} == set(map(str, paths))


async def test_task_without_pictures_is_told_as_such(tmp_path: Path) -> None:
    """With all options, too, a task without pictures is `NoOutputError`."""
    async with Session("k") as session:
        with pytest.raises(NoOutputError):
            await session.save(done(), tmp_path / "out", name="{n}", sidecar=True)
    assert list(tmp_path.iterdir()) == []
    assert files.PIXELS_MAX_OUT == 178_956_970


async def test_another_tasks_picture_is_not_replaced(tmp_path: Path) -> None:
    """With a name that two tasks share, the second is refused and the first one's picture stays."""
    async with RawServer(answer(PNG)) as server, Session("k", base_url=server.url) as session:
        (first,) = await session.save(done(f"{server.url}/a"), tmp_path, name="bear")
        first.write_bytes(JPEG)
        with pytest.raises(FileExistsError, match=r"bear\.png' exists; pass .* \{task_id\}"):
            await session.save(done(f"{server.url}/a"), tmp_path, name="bear")
        assert first.read_bytes() == JPEG
        (kept,) = await session.save(done(f"{server.url}/a"), tmp_path, name="bear-{task_id}")
        assert (await session.save(done(f"{server.url}/a"), tmp_path, name="bear-{task_id}")) == (kept,)


@pytest.mark.parametrize(
    "call", ["save a handle", "save an image", "save a list", "fetch", "fetch nothing", "download"]
)
async def test_what_is_not_meant_is_refused_in_one_sentence(tmp_path: Path, call: str) -> None:
    """A handle, a task or a picture in the place of another is named, with what is wanted; nothing is asked for."""
    async with RawServer(task("t-1", "completed")) as server, Session("k", base_url=server.url) as session:
        handle = session.task("t-1")
        info = await handle.refresh()
        (image,) = info.images
        given: dict[str, tuple[Any, str]] = {
            "save a handle": (session.save(handle, tmp_path), "info must be a TaskInfo, .*, got <TaskHandle t-1"),  # type: ignore[arg-type]
            "save an image": (session.save(image, tmp_path), "info must be a TaskInfo, .*, got Image"),  # type: ignore[arg-type]
            "save a list": (session.save([info], tmp_path), r"info must be a TaskInfo, .*, got \[<TaskInfo"),  # type: ignore[arg-type]
            "fetch": (session.fetch(info), r"image must be an Image or its URL, such as info.images\[0\]"),  # type: ignore[arg-type]
            "fetch nothing": (session.fetch(None), "image must be an Image or its URL, .*, got None"),  # type: ignore[arg-type]
            "download": (session.download(handle, tmp_path), "image must be an Image or its URL, .*, got <TaskHandle"),  # type: ignore[arg-type]
        }
        for name, (doing, words) in given.items():
            if name == call:
                with pytest.raises(TypeError, match=words):
                    await doing
            else:
                doing.close()
        assert len(server.received) == 1
    assert list(tmp_path.iterdir()) == []


async def test_what_is_no_directory_is_refused_in_one_sentence(tmp_path: Path) -> None:
    """`None`, a NUL, a file, or a place below one: told in a sentence of ours, and nothing is fetched."""
    file = tmp_path / "file"
    file.write_text("kept")
    async with RawServer(answer(PNG)) as server, Session("k", base_url=server.url) as session:
        info = done(f"{server.url}/a")
        words = "must be a path, as a string or a pathlib.Path, got None"
        for doing in (session.save(info, None), session.download(info.images[0], None)):  # type: ignore[arg-type]
            with pytest.raises(TypeError, match=f"^(directory|to) {words}$"):
                await doing
        with pytest.raises(TypeError, match=f"^path {words}$"):
            Picture(PNG).save(None)  # type: ignore[arg-type]
        with pytest.raises(TypeError, match=r"^save_to must be a path, .* got 5$"):
            Batch(session, save_to=5)  # type: ignore[arg-type]
        with pytest.raises(ValueError, match=r"^directory must be a path without NUL, got 'a\\x00b'$"):
            await session.save(info, "a\0b")
        for place in (file, file / "below", file / "below" / "deep"):
            words = f"^{re.escape(repr(str(place)))} must be a directory, but {re.escape(repr(str(file)))} is a file$"
            with pytest.raises(NotADirectoryError, match=words):
                await session.save(info, place)
            with pytest.raises(NotADirectoryError, match=words):
                await session.download(info.images[0], place / "a.png")
            with pytest.raises(NotADirectoryError, match=words):
                Picture(PNG).save(place / "a.png")
        assert server.received == []
    assert file.read_text() == "kept"
    with pytest.raises(TypeError, match=r"^url must be an http\(s\) URL or a data URI, got None$"):
        Image(None)  # type: ignore[arg-type]
