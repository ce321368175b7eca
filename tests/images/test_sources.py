"""Pictures in, from every source: what is sent is upright, small enough, and otherwise what was given."""

import asyncio
import base64
import gc
import io
import itertools
import json
import os
import struct
import sys
import time
import traceback
import tracemalloc
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageCms, ImageOps, PngImagePlugin
from pillow_heif import register_heif_opener
from support.raw_server import PNG, RawServer, answer, task

from piapi_async import (
    ControlNet,
    FillInpaint,
    Img2Img,
    Kontext,
    LoRA,
    Picture,
    RetryPolicy,
    Session,
    TaskRequest,
    Txt2Img,
)
from piapi_async._client.body import Base64, as_json
from piapi_async._images.prepare import _smaller
from piapi_async._images.sources import FILE_MAX
from piapi_async.errors import ConfigurationError
from piapi_async.prices import PRICES

PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


async def posted(*images: Any, **options: Any) -> list[str]:
    """What travels as `image` when each of these is submitted by one session."""
    async with RawServer(task()) as server, Session("k", base_url=server.url, **options) as session:
        for image in images:
            await session.submit(TaskRequest(model="m", task_type="t", input={"image": image}))
        return [json.loads(received.body)["input"]["image"] for received in server.received]


async def sent(image: Any, **options: Any) -> bytes:
    """The file that is sent for a picture."""
    (uri,) = await posted(image, **options)
    head, _, data = uri.partition(";base64,")
    file = base64.b64decode(data, validate=True)
    assert head == f"data:{Image.MIME[opened(file).format or '']}"
    return file


def opened(data: bytes) -> Image.Image:
    """The picture in a file."""
    return Image.open(io.BytesIO(data))


def written(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    """A picture as a file."""
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def drawing(mode: str = "RGB", size: tuple[int, int] = (48, 32)) -> Image.Image:
    """A picture no two corners of which look the same."""
    image = Image.radial_gradient("L").crop((0, 0, 90, 60)).resize(size).convert("RGB")
    image.paste((255, 0, 0), (0, 0, size[0] // 2, size[1] // 3))
    return image.convert(mode)


def turned(orientation: int, kind: str, **options: Any) -> bytes:
    """A file whose EXIF data say that it lies on a side."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    return written(drawing(), kind, exif=exif, **options)


def closeness(one: Image.Image, other: Image.Image) -> float:
    """The mean difference of two pictures of one size, in steps of 255."""
    assert one.size == other.size
    return float(np.abs(np.asarray(one.convert("RGB"), int) - np.asarray(other.convert("RGB"), int)).mean())


# Files.


class Download:
    """A file-like object with no more than `read`, as `urllib` and others give."""

    def __init__(self, data: Any) -> None:
        self._data = data

    def read(self, _size: int = -1) -> Any:
        """All of it, once."""
        data, self._data = self._data, type(self._data)()
        return data


async def test_open_file_is_read_when_the_request_is_made(tmp_path: Path) -> None:
    """A file may be closed, or gone, once the request exists, and the request can be sent many times."""
    path = tmp_path / "a.png"
    path.write_bytes(PNG)
    with path.open("rb") as file:
        requests = [Img2Img(prompt="p", image=file)]
    requests += [Img2Img(prompt="p", image=source) for source in (io.BytesIO(PNG), Download(bytearray(PNG)))]
    path.unlink()
    async with RawServer(task()) as server, Session("k", base_url=server.url) as session:
        for request in requests * 2:
            await session.submit(request)
        images = {json.loads(received.body)["input"]["image"] for received in server.received}
    assert images == {f"data:image/png;base64,{base64.b64encode(PNG).decode()}"}


async def test_open_files_at_any_depth_are_read(tmp_path: Path) -> None:
    """Control and LoRA pictures and whatever lies deep in a plain request may be open files; the rest is not copied."""
    assert ControlNet("depth", image=io.BytesIO(PNG)).image == LoRA("mjv6", image=io.BytesIO(PNG)).image == PNG
    given: dict[str, Any] = {"a": [{"b": (io.BytesIO(PNG), 1)}], "c": {"d": tmp_path}}
    request = TaskRequest(model="m", task_type="t", input=given)
    assert request.input == {"a": [{"b": [PNG, 1]}], "c": {"d": tmp_path}}
    assert request.input["c"] is given["c"]
    assert TaskRequest(model="m", task_type="t", input=given["c"]).input is given["c"]
    given["again"] = given
    assert TaskRequest(model="m", task_type="t", input=given).input is given


def test_file_is_read_from_where_it_stands() -> None:
    """Reading begins where the file stands, as with any reader of files."""
    file = io.BytesIO(b"head" + PNG)
    file.seek(4)
    assert Img2Img(prompt="p", image=file).image == PNG


class Asynchronous:
    """A file of a library whose `read` has to be awaited."""

    async def read(self, _size: int = -1) -> bytes:
        """Never called."""
        raise AssertionError


@pytest.mark.parametrize("make", [lambda: io.StringIO("text"), lambda: Download("text"), Asynchronous])
def test_file_that_gives_no_bytes_is_refused(make: Callable[[], Any]) -> None:
    """A file in text mode, and one whose `read` is asynchronous, are refused in one sentence."""
    with pytest.raises(TypeError, match=r"^image must be a file opened for reading bytes \('rb'\), got <"):
        Img2Img(prompt="p", image=make())


def test_file_of_something_else_is_refused() -> None:
    """What is in an open file is looked at like bytes."""
    with pytest.raises(ValueError, match=r"^image must be the bytes of a picture .* got b'<html>'"):
        Img2Img(prompt="p", image=io.BytesIO(b"<html>"))


async def test_very_large_file_is_not_read(tmp_path: Path) -> None:
    """A file that could not be held in memory is refused by its size alone."""
    path = tmp_path / "a.png"
    with path.open("wb") as file:
        file.truncate(FILE_MAX + 1)
    with pytest.raises(ValueError, match=rf"^image '.*a.png' must be .* at most {FILE_MAX} bytes"):
        await posted(path, max_pixels=100)


# Pillow images and arrays.


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA", "P", "1", "CMYK"])
async def test_pillow_image_is_sent_as_png(mode: str) -> None:
    """An image in memory travels as PNG, to the pixel, its transparency included."""
    image = drawing("RGBA" if mode == "LA" else mode).convert(mode)
    if "A" in mode:
        image.putalpha(Image.linear_gradient("L").resize(image.size))
    got = opened(await sent(image))
    expected = image if mode in ("L", "LA", "RGB", "RGBA") else image.convert("L" if mode == "1" else "RGB")
    assert got.format == "PNG"
    assert (got.mode, got.tobytes()) == (expected.mode, expected.tobytes())


async def test_pillow_image_is_turned_upright() -> None:
    """An image that Pillow opened, and whose EXIF data say that it lies on a side, is sent upright."""
    data = turned(6, "JPEG")
    assert closeness(opened(await sent(opened(data))), ImageOps.exif_transpose(opened(data))) == 0


class Slow(Image.Image):
    """An image that takes its time to load, and knows how many load it at once."""

    now = most = 0

    def load(self) -> Any:
        """Load, slowly."""
        self.now += 1
        self.most = max(self.most, self.now)
        time.sleep(0.01)
        self.now -= 1
        return super().load()


async def test_lazy_image_is_shared_by_many_submits() -> None:
    """An image that is not loaded yet can be in many submits at once: it is loaded by one at a time, and sent whole."""
    lazy, slow = opened(written(drawing(), "BMP")), Slow()
    slow.__setstate__(drawing().__getstate__())  # type: ignore[no-untyped-call]
    for image in (lazy, slow):
        async with RawServer(task()) as server, Session("k", base_url=server.url) as session:
            request = Img2Img(prompt="p", image=image)
            await asyncio.gather(*(session.submit(request) for _ in range(6)))
            (uri,) = {json.loads(received.body)["input"]["image"] for received in server.received}
        assert opened(base64.b64decode(uri.partition(",")[2])).tobytes() == drawing().tobytes()
    assert slow.most == 1


async def test_image_that_cannot_be_loaded_any_more_is_refused(tmp_path: Path) -> None:
    """An image whose file was closed before it was loaded is answered in one sentence."""
    path = tmp_path / "a.png"
    path.write_bytes(written(drawing()))
    with Image.open(path) as image:
        pass
    with pytest.raises(ValueError, match=r"^image must be a picture that can be decoded; Pillow cannot read it: "):
        await posted(image)


@pytest.mark.parametrize(
    ("shape", "mode"), [((3, 5), "L"), ((3, 5, 1), "L"), ((3, 5, 3), "RGB"), ((3, 5, 4), "RGBA"), ((1, 1), "L")]
)
@pytest.mark.parametrize("layout", ["whole", "flipped", "Fortran"])
async def test_array_is_sent_as_png(shape: tuple[int, ...], mode: str, layout: str) -> None:
    """An array of bytes travels as PNG, to the pixel, however it lies in memory."""
    array = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    array = {"whole": array, "flipped": array[::-1, ::-1], "Fortran": np.asfortranarray(array)}[layout]
    got = opened(await sent(array))
    assert (got.format, got.mode) == ("PNG", mode)
    assert np.array_equal(np.asarray(got).reshape(shape), array)


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (np.zeros((3, 5, 3)), r"TypeError: image must be an array of uint8 .*, got <array float64 \(3, 5, 3\)>"),
        (np.zeros((3, 5), bool), r"TypeError: image must be an array of uint8 .*, got <array bool \(3, 5\)>"),
        (np.zeros((3, 5, 2), np.uint8), r"ValueError: .*shape \(height, width\), .*, got <array uint8 \(3, 5, 2\)>"),
        (np.zeros(3, np.uint8), r"ValueError: .*, got <array uint8 \(3,\)>"),
        (np.zeros((1, 3, 5, 3), np.uint8), r"ValueError: .*, got <array uint8 \(1, 3, 5, 3\)>"),
        (np.zeros((0, 5), np.uint8), r"ValueError: .*, got <array uint8 \(0, 5\)>"),
    ],
)
async def test_other_arrays_are_refused(array: Any, words: str) -> None:
    """An array that is no picture is refused with its type and shape, at once or in a plain request when submitted."""
    for act in (lambda: Img2Img(prompt="p", image=array), None):
        with pytest.raises((TypeError, ValueError)) as caught:
            act() if act else await posted(array)
        pattern = pytest.RaisesExc(caught.type, match=rf"^{words.partition(': ')[2]}$")
        assert pattern.matches(caught.value)
        assert caught.typename == words.partition(":")[0]


def test_requests_with_pictures_of_other_libraries_stay_values() -> None:
    """They can be compared, hashed and shown on a line: such a picture equals itself alone."""
    array, image = np.zeros((30, 50), np.uint8), drawing()
    for picture, other in ((array, array.copy()), (image, image.copy()), (PNG, b"\x89PNG\r\n\x1a\n")):
        one, same = (FillInpaint(prompt="p", image=picture) for _ in range(2))
        assert one == same
        assert hash(one) == hash(same)
        assert one != FillInpaint(prompt="p", image=other)
        assert "\n" not in repr(one)
    assert repr(FillInpaint(prompt="p", image=array)).startswith(
        "FillInpaint(prompt='p', image=<array uint8 (30, 50)>,"
    )


# Upright, small enough, of a format that is taken.


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
@pytest.mark.parametrize("orientation", [0, 1, 9])
async def test_upright_picture_travels_to_the_byte(tmp_path: Path, kind: str, orientation: int) -> None:
    """PNG, JPEG and WebP that stand upright and are small enough are not touched, whatever they come in."""
    data = turned(orientation, kind)
    path = tmp_path / "a"
    path.write_bytes(data)
    uri = f"data:{Image.MIME[kind]};base64,{base64.b64encode(data).decode()}"
    for image, limit in itertools.product((data, path, uri), (None, 48 * 32)):
        assert await sent(image, max_pixels=limit) == data


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
@pytest.mark.parametrize("orientation", range(2, 9))
async def test_picture_on_its_side_is_turned_upright(kind: str, orientation: int) -> None:
    """What EXIF data say of a picture's orientation is done to its pixels; JPEG stays JPEG, with its colour profile."""
    options = {"lossless": True} if kind == "WEBP" else {}
    data = turned(orientation, kind, icc_profile=PROFILE, **options)
    got, expected = opened(await sent(data)), ImageOps.exif_transpose(opened(data))
    assert got.format == ("JPEG" if kind == "JPEG" else "PNG")
    assert closeness(got, expected) < (2 if kind == "JPEG" else 0.001)
    assert got.info["icc_profile"] == PROFILE
    assert got.getexif().get(0x0112, 1) == 1


@pytest.mark.parametrize("kind", ["GIF", "BMP", "TIFF"])
async def test_other_formats_become_png(kind: str) -> None:
    """Formats that the service's upload does not take are converted, without loss."""
    data = written(drawing(), kind)
    got = opened(await sent(data))
    assert got.format == "PNG"
    assert closeness(got, opened(data)) == 0


async def test_tiff_is_turned_once() -> None:
    """A TIFF, which Pillow turns by itself when it loads it, is not turned again."""
    data = turned(6, "TIFF")
    got = opened(await sent(data))
    assert got.size == (32, 48)
    assert closeness(got, drawing().transpose(Image.Transpose.ROTATE_270)) == 0


async def test_animation_is_sent_whole_or_as_its_first_frame() -> None:
    """An animated GIF is sent as its first frame; animated PNG and WebP travel as they are unless they are scaled."""
    frames = [Image.new("RGB", (40, 30), colour) for colour in ("red", "green", "blue")]
    for kind in ("GIF", "PNG", "WEBP"):
        data = written(frames[0], kind, save_all=True, append_images=frames[1:], duration=100)
        got = await sent(data)
        assert (got == data) is (kind != "GIF")
        small = opened(await sent(data, max_pixels=300))
        assert getattr(small, "n_frames", 1) == 1
        assert small.size == (20, 15)
        red, green, blue = np.asarray(small.convert("RGB"), int).mean(axis=(0, 1))
        assert red > 250
        assert max(green, blue) < 5


@pytest.mark.parametrize("size", [(300, 200), (200, 300), (1, 3000), (3000, 1)])
@pytest.mark.parametrize("limit", [1, 7, 6000])
async def test_larger_picture_is_scaled_down(size: tuple[int, int], limit: int) -> None:
    """With `max_pixels` no picture has more, from whichever source."""
    image = drawing(size=size)
    for source in (image, np.asarray(image), written(image), written(image, "JPEG"), written(image, "BMP")):
        got = opened(await sent(source, max_pixels=limit))
        expected = size if size[0] * size[1] <= limit else _smaller(size, limit)
        assert got.size == expected
        assert got.width * got.height <= limit or got.size == size


@given(st.integers(1, 10**5), st.integers(1, 10**5), st.data())
def test_scaled_size_is_the_largest_of_its_shape(width: int, height: int, data: st.DataObject) -> None:
    """A scaled size stays within the limit, within the picture, and keeps the shape to the pixel where it can."""
    limit = data.draw(st.integers(1, width * height))
    small = _smaller((width, height), limit)
    assert 1 <= small[0] <= width
    assert 1 <= small[1] <= height
    assert small[0] * small[1] <= limit
    if min(small) > 1:
        assert abs(small[0] - small[1] * width / height) <= 1 + width / height
        assert (small[0] + 1) * (small[1] + 1) > limit * 0.99


async def test_scaling_turns_too() -> None:
    """A picture on its side that is scaled as well is upright afterwards."""
    got = opened(await sent(turned(6, "JPEG"), max_pixels=24 * 16))
    assert got.size == (16, 24)
    assert closeness(got, drawing().transpose(Image.Transpose.ROTATE_270).resize((16, 24))) < 12


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
async def test_deep_picture_keeps_its_shades(kind: str) -> None:
    """A grey picture of 16 bits that is encoded anew has the same shades in 8 bits, and is not clipped to white."""
    shades = (np.arange(40 * 30, dtype=np.uint16).reshape(30, 40) * 54).astype(np.uint16)
    data = written(Image.fromarray(shades), kind)
    if kind == "PNG":
        assert await sent(data) == data
    got = opened(await sent(data, max_pixels=30 * 40 if kind == "TIFF" else 299))
    assert got.mode == "L"
    assert np.abs(np.asarray(got, int).mean() - shades.mean() / 256) < 1
    assert np.asarray(got).min() < 6
    assert np.asarray(got).max() > 240


async def test_print_colours_become_screen_colours() -> None:
    """A CMYK JPEG that is encoded anew becomes RGB, without the profile that was for ink."""
    data = written(drawing("CMYK"), "JPEG", icc_profile=b"ink", quality=95)
    assert await sent(data) == data
    got = opened(await sent(data, max_pixels=24 * 16))
    assert (got.format, got.mode, got.info.get("icc_profile")) == ("JPEG", "RGB", None)
    assert closeness(got, drawing().resize((24, 16))) < 12


@pytest.mark.parametrize("mode", ["P", "RGBA", "LA", "RGB"])
async def test_transparency_is_kept(mode: str) -> None:
    """What shows through still does after scaling: in palettes, in channels, and of one colour."""
    image = Image.new("RGBA", (40, 40), (255, 0, 0, 255))
    image.paste((0, 0, 0, 0), (0, 0, 20, 40))
    options = {"transparency": (0, 0, 0)} if mode == "RGB" else {}
    data = written(image.quantize() if mode == "P" else image.convert(mode), **options)
    got = opened(await sent(data, max_pixels=100))
    alpha = np.asarray(got.getchannel("A"))
    assert alpha[:, :4].max() < 60
    assert alpha[:, -4:].min() > 200


async def test_white_stays_white() -> None:
    """The pure white region that stands for a mask is the same in a picture that is converted."""
    image = drawing()
    image.paste((255, 255, 255), (10, 10, 30, 20))
    for kind in ("PNG", "BMP"):
        got = opened(await sent(written(image, kind)))
        assert got.convert("RGB").tobytes() == image.tobytes()


async def test_limit_holds_for_what_is_sent(tmp_path: Path) -> None:
    """`max_image_bytes` counts the bytes that leave: a large file that is made small enough goes through."""
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (200, 200, 3), np.uint8))
    path = tmp_path / "a.png"
    path.write_bytes(written(noise))
    with pytest.raises(ValueError, match=r"max_image_bytes\), got 1\d{5}; Session\(max_pixels=...\) makes pictures"):
        await posted(path, max_image_bytes=20_000)
    assert len(await sent(path, max_image_bytes=20_000, max_pixels=2500)) < 20_000
    flat = written(Image.new("RGB", (200, 200)), "BMP")
    assert len(flat) > 100_000
    assert len(await sent(flat, max_image_bytes=20_000)) < 20_000


# Broken and hostile pictures.


def bomb(width: int = 2**15, height: int = 2**15) -> bytes:
    """A small PNG that says that it is huge."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


@pytest.mark.parametrize("limit", [None, 100])
async def test_decompression_bomb_is_refused(limit: int | None) -> None:
    """A picture that would take gigabytes once decoded is refused in one sentence, and not decoded."""
    words = (
        r"^image must be a picture that can be decoded; it has 32768 x 32768 pixels, and decoding it would take"
        r" 4096 MiB of memory, more than 1024; make it smaller first$"
    )
    with pytest.raises(ValueError, match=words):
        await posted(bomb(), max_pixels=limit)


def large(kind: str, width: int, height: int) -> bytes:
    """A grey picture of that size and of few bytes, as a camera of many megapixels makes it."""
    return written(Image.new("L", (width, height), 99), kind)


@pytest.mark.parametrize("width", [12_000, 20_000])
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "BMP"])
async def test_our_own_bound_decides_on_large_photographs(kind: str, width: int) -> None:
    """108 and 200 megapixels are sent, turned, converted and scaled, whatever Pillow would say, and with no warning."""
    data = large(kind, width, 10_000)
    assert opened(await sent(data, max_pixels=300 * 250)).size[1] < 400
    if kind in ("JPEG", "PNG"):
        (uri,) = await posted(data)
        assert base64.b64decode(uri.partition(",")[2]) == data


@pytest.mark.parametrize("width", [12_000, 20_000])
async def test_what_pillow_itself_refuses_is_told_in_our_words(width: int) -> None:
    """Pillow's reader of TIFF keeps its bound, as an error or, where warnings are errors, as a warning."""
    data = large("TIFF", width, 10_000)
    words = rf"^image .*; it has {width} x 10000 pixels, more than Pillow decodes of a TIFF; send it as PNG or JPEG$"
    with pytest.raises(ValueError, match=words):
        await posted(data)


async def test_users_bound_of_pillow_holds_for_users_images(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a program sets in Pillow counts for `to_pil`, which is Pillow's, and not for what is sent."""
    data = written(drawing(size=(60, 40)))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    assert await posted(data)
    with pytest.raises(Image.DecompressionBombError):
        Picture(data).to_pil()


@pytest.mark.parametrize("data", [b"RIFF\x1c\x00\x00\x00WEBPVP8 " + bytes(24), b"\xff\xd8\xff\xd9"])
async def test_what_pillow_does_not_know_travels_unless_it_is_to_be_changed(data: bytes) -> None:
    """Pillow is no judge of what the service takes; but what cannot be read cannot be made smaller either."""
    (uri,) = await posted(data)
    assert base64.b64decode(uri.partition(",")[2]) == data
    with pytest.raises(ValueError, match=r"^image must be a picture that can be decoded; Pillow cannot read it: "):
        await posted(data, max_pixels=100)


@pytest.mark.parametrize("kind", ["GIF", "BMP", "TIFF"])
async def test_broken_picture_that_must_be_converted_is_refused(kind: str) -> None:
    """A file that is cut short is refused in one sentence before anything is paid for."""
    with pytest.raises(ValueError, match=r"^image must be a picture that can be decoded; Pillow cannot read it: "):
        await posted(written(drawing(), kind)[:40])


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "AVIF"])
@pytest.mark.parametrize("limit", [None, 100])
async def test_half_a_photograph_is_refused_before_it_is_paid_for(
    tmp_path: Path, kind: str, limit: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that ends amid its pixels is refused, lying or upright, with or without Pillow; nothing is sent."""
    async with RawServer(task()) as server, Session("k", base_url=server.url, max_pixels=limit) as session:
        for data in (written(drawing(size=(400, 400)), kind), turned(6, kind)):
            half = data[: len(data) // 2]
            path = tmp_path / "half"
            path.write_bytes(half)
            uri = f"data:image/x;base64,{base64.b64encode(half).decode()}"
            for image in (half, path, uri, io.BytesIO(half)):
                with pytest.raises(
                    ValueError, match=r"^image .*must be a whole picture, got \d+ bytes of .*: it ends early"
                ):
                    await session.submit(Img2Img(prompt="p", image=image))
        monkeypatch.setitem(sys.modules, "PIL", None)
        with pytest.raises(ValueError, match="it ends early"):
            await session.submit(Img2Img(prompt="p", image=half))
        assert server.received == []


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
@pytest.mark.parametrize(
    "exif",
    [
        b"garbage without a meaning",
        b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x02\0\0\0\x04abcd\0\0\0\0",
    ],
)
async def test_broken_exif_data_are_as_good_as_none(kind: str, exif: bytes) -> None:
    """A picture with EXIF data that nobody can read travels as it is, and can be scaled."""
    data = written(drawing(), kind, exif=b"Exif\0\0" + exif)
    assert await sent(data) == data
    assert opened(await sent(data, max_pixels=24 * 16)).size == (24, 16)


# Data URIs.


async def test_data_uri_is_treated_like_its_bytes() -> None:
    """The picture in a data URI is turned and converted like any other; one that is right travels with its own head."""
    for data in (turned(6, "JPEG"), written(drawing(), "BMP")):
        uri = f"data:image/x;base64,{base64.b64encode(data).decode()}"
        assert await sent(uri) == await sent(data)
    wrapped = f"data:image/x-odd;a=b;base64,{base64.encodebytes(PNG).decode()}"
    assert await posted(wrapped) == [f"data:image/x-odd;a=b;base64,{base64.b64encode(PNG).decode()}"]


async def test_broken_data_uri_of_a_picture_is_refused() -> None:
    """Base64 that is cut short is refused with its field."""
    with pytest.raises(ValueError, match=r"^image must be a picture's data URI: its base64 is broken"):
        await posted(f"data:image/png;base64,{base64.b64encode(PNG).decode()[:-2]}")


async def test_other_data_uris_travel_to_the_letter() -> None:
    """Models that are not about pictures get their data as they are, up to the same size."""
    sound = "data:audio/wav;base64," + base64.b64encode(b"RIFF\0\0\0\0WAVE" + bytes(1000)).decode()
    assert await posted(sound, "data:,hello", local_images="upload") == [sound, "data:,hello"]
    with pytest.raises(ValueError, match=r"^image must be .* at most 1000 bytes .* got 1012"):
        await posted(sound, max_image_bytes=1000)


# Without Pillow.

FILES = {"turned": turned(6, "JPEG"), "plain": written(drawing()), "bomb": bomb()}


@pytest.fixture
def no_pillow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pillow cannot be imported."""
    monkeypatch.setitem(sys.modules, "PIL", None)
    monkeypatch.delitem(sys.modules, "PIL.Image")


@pytest.mark.usefixtures("no_pillow")
async def test_without_pillow_pictures_travel_as_they_are() -> None:
    """PNG, JPEG and WebP need no Pillow; what EXIF data say is then left to the service."""
    for name in ("turned", "plain", "bomb"):
        data = FILES[name]
        (uri,) = await posted(data)
        assert base64.b64decode(uri.partition(",")[2]) == data


@pytest.mark.usefixtures("no_pillow")
@pytest.mark.parametrize("make", [lambda: b"GIF89a" + bytes(9), lambda: b"II*\0", lambda: np.zeros((2, 2), np.uint8)])
async def test_without_pillow_what_needs_it_is_refused(make: Callable[[], Any]) -> None:
    """Other formats, and arrays, are refused in one sentence that says what to install; nothing is sent."""
    with pytest.raises(ConfigurationError, match=r"^image .* needs Pillow: pip install pillow$"):
        await posted(make())


@pytest.mark.usefixtures("no_pillow")
def test_without_pillow_nothing_can_be_scaled() -> None:
    """`max_pixels` is refused when the session is made."""
    with pytest.raises(ConfigurationError, match=r"^max_pixels needs Pillow: pip install pillow$"):
        Session("k", max_pixels=100)


# The body.


@given(
    st.recursive(
        st.text(max_size=9) | st.integers() | st.none() | st.binary(max_size=300),
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    ),
    st.text(max_size=9),
)
def test_body_is_the_json_it_stands_for(value: Any, head: str) -> None:
    """Bytes anywhere in a body come out as base64 behind their head, its size is exact, and it can be read twice."""

    def mapped(value: Any, of_bytes: Callable[[bytes], Any]) -> Any:
        if isinstance(value, dict):
            return {key: mapped(item, of_bytes) for key, item in value.items()}
        if isinstance(value, list):
            return [mapped(item, of_bytes) for item in value]
        return of_bytes(value) if isinstance(value, bytes) else value

    content = as_json(mapped(value, lambda data: Base64(data, head=head)))
    text = b"".join(content.pieces())
    assert json.loads(text) == mapped(value, lambda data: head + base64.b64encode(data).decode())
    assert (len(text), text) == (content.size, b"".join(content.pieces()))


@pytest.mark.parametrize("size", [3 * 2**14 - 1, 3 * 2**14, 3 * 2**14 + 1, 200_000])
def test_pieces_of_a_picture_fit_together(size: int) -> None:
    """Base64 in pieces is the base64 of the whole, no piece is over 64 KiB, and the size is exact."""
    data = Base64(bytes(range(256)) * (size // 256) + bytes(size % 256))
    pieces = list(data.pieces())
    assert b"".join(pieces) == base64.b64encode(data.data)
    assert len(data) == sum(map(len, pieces))
    assert max(map(len, pieces)) <= 2**16


async def test_body_is_the_same_when_it_is_sent_again() -> None:
    """A submit that was not accepted is sent again with its picture whole."""
    busy = answer({"code": 429, "message": "slow down"}, status=429)
    async with RawServer(busy, task()) as server, Session("k", base_url=server.url) as session:
        await session.submit(Img2Img(prompt="p", image=PNG + bytes(200_000)))
        first, second = server.received
    assert first.body == second.body
    assert len(json.loads(first.body)["input"]["image"]) > 200_000 * 4 / 3


@pytest.mark.parametrize("value", [0, -1, True, 1.5, "9"])
def test_bad_limit_of_pixels_is_refused(value: Any) -> None:
    """`max_pixels` is a whole number from 1."""
    with pytest.raises((TypeError, ValueError), match=r"^max_pixels must be "):
        Session("k", max_pixels=value)


async def test_request_without_pictures_needs_nothing_of_this() -> None:
    """Plain values pass by all of it."""
    async with RawServer(task()) as server, Session("k", base_url=server.url, local_images="upload") as session:
        await session.submit(Txt2Img(prompt="p"))
        assert json.loads(server.received[0].body)["input"] == {"prompt": "p"}


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
async def test_pipes_and_devices_are_refused_at_once(tmp_path: Path) -> None:
    """A pipe that nobody writes to, or a device that never ends, is refused in one sentence and blocks nothing."""
    pipe = tmp_path / "pipe.png"
    os.mkfifo(pipe)
    for path in (pipe, Path("/dev/zero")):
        with pytest.raises(OSError, match=rf"^image must be a readable picture, '{path}' is not: Neither a file"):
            await posted(path)


@pytest.mark.parametrize("mode", ["closed", "wb"])
def test_file_that_cannot_be_read_is_refused(mode: str, tmp_path: Path) -> None:
    """A file that is closed, or open for writing only, is refused in the same sentence as one in text mode."""
    path = tmp_path / "picture.png"
    path.write_bytes(PNG)
    with path.open("rb" if mode == "closed" else mode) as file:
        if mode == "closed":
            file.close()
        with pytest.raises(TypeError, match=r"^image must be a file opened for reading bytes \('rb'\), got <"):
            Img2Img(prompt="p", image=file)


async def test_whole_numbers_of_a_byte_keep_their_brightness() -> None:
    """A picture of wide integers that hold bytes is sent as those; one of floating-point numbers is refused."""
    image = drawing("L")
    assert opened(await sent(image.convert("I"))).tobytes() == image.tobytes()
    with pytest.raises(ValueError, match="floating-point numbers; convert it first"):
        await sent(image.convert("F"))


# Photographs as phones and others make them.

EVERY_LOSSY = ["HEIF", "AVIF", "JPEG2000", "WEBP", "MPO", "TIFF"]


def photograph(kind: str, *, size: tuple[int, int] = (1200, 900), **options: Any) -> bytes:
    """A photograph: soft shapes, some noise, and compressed with loss."""
    register_heif_opener()
    image = Image.radial_gradient("L").resize(size)
    image = Image.merge(
        "RGB", (image, image.transpose(Image.Transpose.ROTATE_180), Image.linear_gradient("L").resize(size))
    )
    image = Image.blend(image, Image.effect_noise(size, 30).convert("RGB"), 0.15)
    own: dict[str, dict[str, Any]] = {
        "TIFF": {"compression": "jpeg"},
        "JPEG2000": {"quality_layers": [20]},
        "HEIF": {"quality": 50},
    }
    how = own.get(kind, {"quality": 75})
    return written(image, kind, **how, **options)


@pytest.mark.parametrize("kind", ["HEIF", "AVIF", "JPEG2000", "TIFF"])
async def test_lossy_photograph_becomes_a_jpeg(tmp_path: Path, kind: str) -> None:
    """A photograph in a format that is not taken is sent as a JPEG that looks the same, and not many times its size."""
    data = photograph(kind)
    path = tmp_path / "photo"
    path.write_bytes(data)
    for image in (data, path, f"data:image/x;base64,{base64.b64encode(data).decode()}"):
        got = opened(await sent(image))
        assert got.format == "JPEG"
        assert closeness(got, opened(data)) < 3
    assert len(await sent(data)) < 2 * len(data)
    assert len(written(opened(data))) > 4 * len(data)  # as a PNG


@pytest.mark.parametrize("kind", ["JPEG", "WEBP", "MPO", "AVIF"])
async def test_photograph_on_its_side_keeps_its_size(kind: str) -> None:
    """A photograph that is only turned stays lossy, upright, and about as large as it was."""
    exif = Image.Exif()
    exif[0x0112] = 8
    data = photograph(kind, exif=exif)
    got = await sent(data)
    assert opened(got).format == ("WEBP" if kind == "WEBP" else "JPEG")
    assert opened(got).size == (900, 1200)
    assert closeness(opened(got), ImageOps.exif_transpose(opened(data))) < 3
    assert len(got) < (1.2 if kind in ("JPEG", "MPO") else 2) * len(data)


@pytest.mark.parametrize("kind", ["WEBP", "AVIF"])
async def test_transparent_photograph_becomes_a_webp(kind: str) -> None:
    """Where a lossy photograph is transparent, it becomes a lossy WebP, which can be that."""
    image = opened(photograph("JPEG")).convert("RGBA")
    image.putalpha(Image.linear_gradient("L").resize(image.size))
    data = written(image, kind, quality=75)
    got = opened(await sent(data, max_pixels=300 * 400))
    assert (got.format, got.mode) == ("WEBP", "RGBA")
    assert len(await sent(data, max_pixels=300 * 400)) < len(data)


async def test_progressive_and_grey_jpeg_are_turned() -> None:
    """A progressive JPEG, one that is grey, and one of the finest sampling are turned without becoming larger."""
    exif = Image.Exif()
    exif[0x0112] = 3
    grey = written(opened(photograph("JPEG")).convert("L"), "JPEG", exif=exif)
    for data in (grey, photograph("JPEG", progressive=True, exif=exif), photograph("JPEG", subsampling=0, exif=exif)):
        got = await sent(data)
        assert opened(got).mode == opened(data).mode
        assert closeness(opened(got), ImageOps.exif_transpose(opened(data))) < 3
        assert len(got) < 1.25 * len(data)


@pytest.mark.parametrize("kind", ["ICO", "TGA", "PPM"])
async def test_what_pillow_opens_is_sent(tmp_path: Path, kind: str) -> None:
    """A file of a format that is not known here is left to Pillow, and sent as a PNG, to the pixel."""
    image = drawing("RGBA" if kind == "ICO" else "RGB", size=(32, 32))
    path = tmp_path / "picture"
    path.write_bytes(written(image, kind))
    got = opened(await sent(path))
    assert got.format == "PNG"
    assert got.tobytes() == image.tobytes()


async def test_programs_are_not_run(tmp_path: Path) -> None:
    """An EPS is a program, which Pillow would let another one run: it is not a picture here."""
    path = tmp_path / "a.eps"
    path.write_bytes(written(drawing(), "EPS"))
    with pytest.raises(ValueError, match=r"must be a picture \(PNG, .*, got b'%!PS-Adobe"):
        await posted(path)


async def test_without_pillow_heif_a_photograph_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """An iPhone's photograph needs one package more, which is named, with a command that works, where it is missing."""
    data = photograph("HEIF")
    Image.init()
    monkeypatch.delitem(Image.OPEN, "HEIF")
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    words = r"^image of type image/heic needs pillow-heif: pip install pillow-heif$"
    with pytest.raises(ConfigurationError, match=words):
        await posted(data)
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(ConfigurationError, match=words):
        await posted(data)
    monkeypatch.undo()
    monkeypatch.delitem(Image.OPEN, "HEIF")
    assert opened(await sent(data)).format == "JPEG"


async def test_large_text_in_a_png_does_not_keep_it_from_being_scaled() -> None:
    """A PNG with a workflow of megabytes, which Pillow refuses to open, is sent as it is, or scaled without it."""
    texts = PngImagePlugin.PngInfo()
    texts.add_text("workflow", "x" * 2_000_000, zip=True)
    data = written(drawing(), pnginfo=texts)
    with pytest.raises(ValueError, match="Decompressed data too large"):
        opened(data)
    assert await posted(data) == [f"data:image/png;base64,{base64.b64encode(data).decode()}"]
    assert opened(await sent(data, max_pixels=24 * 16)).size == (24, 16)


def flat_webp(width: int, height: int) -> bytes:
    """A lossless WebP of one colour: a few bytes, of any size."""
    small = written(Image.new("RGB", (1, 1)), "WEBP", lossless=True)
    start = small.index(b"VP8L") + 9
    bits = int.from_bytes(small[start : start + 4], "little") >> 28 << 28 | (height - 1) << 14 | (width - 1)
    return small[:start] + bits.to_bytes(4, "little") + small[start + 4 :]


@pytest.mark.parametrize("as_image", [False, True])
async def test_picture_that_takes_too_much_memory_is_refused(*, as_image: bool) -> None:
    """A WebP of a few bytes whose decoding would take gigabytes is refused by its header, and not decoded."""
    data = flat_webp(10_000, 8000)
    assert len(data) < 100
    source = opened(data) if as_image else data
    with pytest.raises(ValueError, match=r"10000 x 8000 .* decoding it would take 1220 MiB of memory, more than 1024;"):
        await posted(source, max_pixels=100)


async def test_large_jpeg_is_scaled_while_it_is_decoded() -> None:
    """A JPEG is decoded with no more detail than its scaled size needs, and looks the same."""
    data = photograph("JPEG", size=(3000, 2000))
    got = opened(await sent(data, max_pixels=150 * 100))
    assert got.size == (150, 100)
    assert closeness(got, opened(data).resize((150, 100), Image.Resampling.LANCZOS)) < 4


# What else is taken for a picture, or a number.


@pytest.mark.parametrize("make", [bytearray, memoryview, lambda data: memoryview(bytearray(data + b"x"))[:-1]])
async def test_bytes_in_other_clothes_are_bytes(make: Callable[[bytes], Any]) -> None:
    """`bytearray` and `memoryview` are taken as the bytes that they hold when the request is made."""
    source = make(PNG)
    request = Img2Img(prompt="p", image=source)
    assert request.image == PNG
    assert TaskRequest(model="m", task_type="t", input={"a": [{"b": source}]}).input == {"a": [{"b": PNG}]}
    assert Picture(source).data == PNG
    with pytest.raises(ValueError, match=r"^image must be the bytes of a picture"):
        Img2Img(prompt="p", image=make(b"<html>"))


async def test_numpy_scalars_travel_as_numbers() -> None:
    """NumPy's numbers are sent as JSON numbers, in typed and plain requests, and are the limits of a session too."""
    typed = Kontext(prompt="p", image="https://example.com/a.jpg", width=np.int64(512), seed=np.int32(-1))
    plain = {"a": [np.float32(0.1), {"b": np.bool_(1)}], "n": np.uint8(7)}
    options: dict[str, Any] = {
        "max_image_bytes": np.int64(1000),
        "max_pixels": np.int64(1000),
        "max_spend_usd": np.float32(0.5),
        "prices": PRICES.override({"m": np.float32(0.01)}),
        "retry": RetryPolicy(attempts=np.int64(2), timeout=np.float32(3)),  # type: ignore[arg-type]
    }
    async with RawServer(task()) as server, Session("k", base_url=server.url, **options) as session:
        for request in (typed, TaskRequest(model="m", task_type="t", input=plain)):
            await session.submit(request)
        (first, second) = (received.body for received in server.received)
    assert b'"width": 512, "seed": -1' in first
    assert json.loads(second)["input"] == {"a": [0.1, {"b": True}], "n": 7}
    assert b"[0.1," in second


@pytest.mark.parametrize("upload", [False, True])
async def test_kontext_takes_bare_base64(*, upload: bool) -> None:
    """For `kontext` base64 without a header is taken, as documented: it travels so, unless it has to be changed."""
    link = answer({"code": 200, "data": {"url": "https://storage.example.com/a.png"}})
    upright = written(drawing(size=(200, 100)))
    async with RawServer(*([link] * upload), task()) as server:
        async with Session("k", base_url=server.url, local_images="upload" if upload else "data-uri") as session:
            await session.submit(Kontext(prompt="p", image=base64.encodebytes(upright).decode()))
        image = json.loads(server.received[-1].body)["input"]["image"]
    assert image == ("https://storage.example.com/a.png" if upload else base64.b64encode(upright).decode())


async def test_bare_base64_is_made_fit_like_any_picture() -> None:
    """Base64 without a header is turned, and refused where it is broken or half a picture."""
    (text,) = await posted(base64.b64encode(turned(6, "JPEG")).decode())
    assert opened(base64.b64decode(text, validate=True)).size == (32, 48)
    whole = base64.b64encode(written(drawing(size=(200, 100)))).decode()
    with pytest.raises(ValueError, match="it ends early"):
        await posted(whole[:400])
    with pytest.raises(ValueError, match="its base64 is broken"):
        await posted(whole[:401])


@pytest.mark.parametrize("text", ["a bear", "iVBORw0KGgo=", base64.b64encode(b"x" * 99).decode(), "photo.jpg"])
def test_other_texts_are_not_pictures_for_kontext(text: str) -> None:
    """Only base64 that begins as a picture does is taken for one, and for `kontext` alone."""
    with pytest.raises(ValueError, match=r"^image must be an http\(s\) URL"):
        Kontext(prompt="p", image=text)
    with pytest.raises(ValueError, match=r"^image must be an http\(s\) URL"):
        Img2Img(prompt="p", image=base64.b64encode(written(drawing())).decode())


async def test_broken_jpeg_2000_is_refused() -> None:
    """A file whose own lengths are wrong, which Pillow says in a way of its own, is refused in the same sentence."""
    data = written(drawing(size=(64, 64)), "JPEG2000")
    start = data.index(b"\xff\x4f\xff\x51") + 4
    with pytest.raises(ValueError, match=r"^image must be a picture that can be decoded; Pillow cannot read it: "):
        await posted(data[:start] + bytes(40))


# What an error keeps.

LARGE = 1_000_000


def unfit() -> dict[str, Callable[[Path], Any]]:
    """Pictures of megabytes that are refused, each in a way of its own; they are made when asked for."""

    def noise(kind: str = "PNG", **options: Any) -> bytes:
        return written(Image.frombytes("RGB", (600, 600), os.urandom(600 * 600 * 3)), kind, **options)

    def at(path: Path, data: bytes) -> Path:
        path.write_bytes(data)
        return path

    return {
        "too large, bytes": lambda _: noise(),
        "too large, path": lambda path: at(path, noise()),
        "too large, pillow": lambda _: opened(noise()),
        "too large, array": lambda _: np.random.default_rng(0).integers(0, 255, (600, 600, 3), np.uint8),
        "half": lambda path: at(path, noise()[: -LARGE // 20]),
        "broken tiff": lambda path: at(path, noise("TIFF", compression="tiff_lzw")[: -LARGE // 4]),
        "no picture": lambda path: at(path, b"no picture" + bytes(LARGE)),
        "broken uri": lambda _: "data:image/png;base64," + base64.b64encode(noise()).decode()[:-2],
        "uri that is not ascii": lambda _: "data:image/png;base64," + base64.b64encode(noise()).decode() + "é",
    }


async def kept_by(act: Callable[[], Any]) -> int:
    """How many bytes of memory the error of a call keeps, beside what is in use anyway."""
    with pytest.raises((TypeError, ValueError)):  # what is imported, and cached, the first time
        await act()
    gc.collect()
    tracemalloc.start()
    try:
        caught: BaseException | None = None
        try:
            await act()
        except (TypeError, ValueError) as error:
            caught = error
        await asyncio.sleep(0)  # until then the loop holds what woke this up
        gc.collect()
        assert caught is not None
        return tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("case", unfit())
@pytest.mark.parametrize("how", ["submit", "run", "upload"])
async def test_the_error_of_a_refused_picture_does_not_keep_it(tmp_path: Path, case: str, how: str) -> None:
    """Who keeps the error, to log it or to report it, keeps no picture."""
    make = unfit()[case]
    async with RawServer(task()) as server, Session("k", base_url=server.url, max_image_bytes=LARGE) as session:

        async def act() -> None:
            if how == "upload":
                await session.upload(make(tmp_path / "a"))
            else:
                given = {"image": make(tmp_path / "a")}
                waiting = getattr(session, how)(TaskRequest(model="m", task_type="t", input=given))
                del given
                await waiting

        assert await kept_by(act) < 500_000
        assert server.received == []


async def test_the_error_of_an_input_that_is_no_json_keeps_no_picture(tmp_path: Path) -> None:
    """The same where it is something else in the input that is refused."""
    path = tmp_path / "a"
    path.write_bytes(written(Image.frombytes("RGB", (600, 600), os.urandom(600 * 600 * 3))))
    async with Session("k", base_url="http://127.0.0.1:9") as session:
        request = TaskRequest(model="m", task_type="t", input={"image": path, "other": object()})
        assert await kept_by(lambda: session.submit(request)) < 500_000


async def test_errors_that_the_caller_deals_with_keep_their_variables() -> None:
    """The frames of an error in whose handler a picture is refused are the caller's own, and stay as they are."""

    def fail() -> None:
        clue = "a clue"
        raise KeyError(clue)

    async def refused(session: Session) -> None:
        try:
            fail()
        except KeyError:
            await session.submit(Img2Img(prompt="p", image=written(drawing())[:-20]))

    async with Session("k", base_url="http://127.0.0.1:9") as session:
        with pytest.raises(ValueError, match="whole picture") as caught:
            await refused(session)
    context: BaseException | None = caught.value
    while not isinstance(context, KeyError):
        assert context is not None
        context = context.__context__
    frames = [frame for frame, _ in traceback.walk_tb(context.__traceback__)]
    assert frames[-1].f_locals == {"clue": "a clue"}
