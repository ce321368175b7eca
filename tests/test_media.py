"""Recognising pictures by their first bytes, and data URIs."""

import base64
import io
import math
import sys
import types
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, features
from pillow_heif import register_heif_opener

from piapi_async import _media

register_heif_opener()

FORMATS = {
    "PNG": ("image/png", ".png"),
    "JPEG": ("image/jpeg", ".jpg"),
    "WEBP": ("image/webp", ".webp"),
    "GIF": ("image/gif", ".gif"),
    "BMP": ("image/bmp", ".bmp"),
    "TIFF": ("image/tiff", ".tiff"),
    "AVIF": ("image/avif", ".avif"),
    "HEIF": ("image/heic", ".heic"),
    "JPEG2000": ("image/jp2", ".jp2"),
}
"""Pillow's names of the formats, with their media types and endings."""


def written(kind: str) -> bytes:
    """A small picture as Pillow writes it."""
    if kind in ("WEBP", "AVIF") and not features.check(kind.lower()):  # pragma: no cover - as Pillow was built
        pytest.skip(f"this Pillow writes no {kind}")
    file = io.BytesIO()
    Image.new("RGB", (9, 7), "teal").save(file, kind)
    return file.getvalue()


@pytest.mark.parametrize("kind", FORMATS)
def test_each_known_format_is_recognised_as_pillow_writes_it(kind: str) -> None:
    """A real file of each format is recognised from its first `SNIFF_BYTES`, and its ending is known."""
    media_type, ending = FORMATS[kind]
    assert _media.sniff(written(kind)[: _media.SNIFF_BYTES]) == media_type
    assert _media.MEDIA_TYPES[media_type] == ending


def test_every_media_type_can_be_recognised() -> None:
    """The endings' table and the formats that are recognised are the same."""
    assert set(_media.MEDIA_TYPES) == {media_type for media_type, _ in FORMATS.values()}


@pytest.mark.parametrize(
    ("head", "media_type"),
    [
        (b"\x89PNG\r\n\x1a\n", "image/png"),
        (b"\x89PNG\n\x1a\n", None),
        (b"\xff\xd8\xff", "image/jpeg"),
        (b"\xff\xd8", None),
        (b"GIF87a", "image/gif"),
        (b"GIF89a", "image/gif"),
        (b"GIF88a", None),
        (b"RIFF\n\n\n\nWEBP", "image/webp"),
        (b"RIFF\0\0\0\0WAVE", None),
        (b"BM\n\n\n\n\0\0\0\0", "image/bmp"),
        (b"BM is not a picture", None),
        (b"II*\0", "image/tiff"),
        (b"MM\0*", "image/tiff"),
        (b"MM*\0", None),
        (b"\0\0\0\nftypavif", "image/avif"),
        (b"\0\0\0\nftypavis", "image/avif"),
        (b"\0\0\0\nftypmif1\0\0\0\0avif", "image/avif"),
        (b"\0\0\0\nftypmif1\0\0\0\0mif1miafavif", "image/avif"),
        (b"\0\0\0\nftypheic", "image/heic"),
        (b"\0\0\0\nftypmif1\0\0\0\0mif1heic", "image/heic"),
        (b"\0\0\0\nftypmsf1", "image/heic"),
        (b"\0\0\0\x0cjP  \r\n\x87\n", "image/jp2"),
        (b"\xff\x4f\xff\x51", "image/jp2"),
        (b"\0\0\0\x20ftypisom", None),
        (b"<html>", None),
        (b" \x89PNG\r\n\x1a\n", None),
        (b"", None),
    ],
)
def test_what_the_first_bytes_show(head: bytes, media_type: str | None) -> None:
    """Only the exact signatures count, wherever a line feed falls among the bytes that may be anything."""
    assert _media.sniff(head) == media_type


@given(st.binary(max_size=40))
def test_the_first_bytes_are_enough(data: bytes) -> None:
    """Nothing after the first `SNIFF_BYTES` changes what a file is taken for."""
    assert _media.sniff(data) == _media.sniff(data[: _media.SNIFF_BYTES])


@given(st.binary(max_size=100), st.sampled_from(sorted(_media.MEDIA_TYPES)))
def test_a_data_uri_holds_its_bytes(data: bytes, media_type: str) -> None:
    """What is in a data URI comes out of it unchanged, and it is recognised as one."""
    uri = f"data:{media_type};base64,{base64.b64encode(data).decode()}"
    assert _media.is_data_uri(uri)
    assert _media.is_picture_data_uri(uri) is (_media.sniff(data) is not None)
    assert _media.decode_data_uri(uri) == data


@pytest.mark.parametrize(
    ("uri", "data"),
    [
        ("data:image/png;base64,AAAA", b"\0\0\0"),
        ("DATA:Image/PNG;BASE64,AAAA", b"\0\0\0"),
        ("data:image/svg+xml;charset=utf-8;base64,AAAA", b"\0\0\0"),
        ("data:image/png;base64,", b""),
    ],
)
def test_data_uris_in_other_spellings(uri: str, data: bytes) -> None:
    """Case and parameters of a base64 data URI do not matter."""
    assert _media.decode_data_uri(uri) == data


@pytest.mark.parametrize("uri", ["data:,hello", "data:image/png,AAAA", "data:;base64,AAAA", "data:", "AAAA", ""])
def test_other_data_uris_are_refused(uri: str) -> None:
    """A text that is no base64 data URI with a media type is refused in one sentence."""
    assert not _media.is_picture_data_uri(uri)
    with pytest.raises(ValueError, match=r"^not a base64 data URI$"):
        _media.decode_data_uri(uri)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("iVBORw0KGgo=", True),
        ("iVBORw0KGgoAAA", True),
        ("iVBO\nRw0K\r\n Ggo=", True),
        ("iVBORw0KGgo", False),
        ("PGh0bWw+", False),
        ("iVBOé", False),
        ("=AAA", False),
        ("A=AA", False),
        ("", False),
    ],
)
def test_what_is_the_data_uri_of_a_picture(content: str, *, expected: bool) -> None:
    """The first bytes decide, wherever lines are wrapped; what is no base64 is no picture and no other error."""
    assert _media.is_picture_data_uri(f"data:image/png;base64,{content}") is expected


@given(st.text())
def test_no_text_breaks_the_poll_into_a_data_uri(content: str) -> None:
    """Any content is a picture or is not; nothing is raised."""
    assert _media.is_picture_data_uri(f"data:image/png;base64,{content}") in (False, True)


@pytest.mark.parametrize("content", ["AAA", "A A A A", "AAAA!", "=", "AAAA\nAAAA", "é"])
def test_broken_base64_is_refused(content: str) -> None:
    """Base64 that is cut short, or has anything else in it, is no picture."""
    with pytest.raises(ValueError, match=r"base64|ASCII"):
        _media.decode_data_uri(f"data:image/png;base64,{content}")


@pytest.mark.parametrize(
    ("text", "expected"), [("data:x", True), ("Data:,", True), ("data", False), ("https://data:1", False), ("", False)]
)
def test_what_is_meant_as_a_data_uri(text: str, *, expected: bool) -> None:
    """The scheme alone, in any case, tells a data URI from a URL."""
    assert _media.is_data_uri(text) is expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (base64.b64encode(b"\x89PNG\r\n\x1a\n" + bytes(60)).decode(), True),
        (base64.encodebytes(b"\xff\xd8\xff" + bytes(90)).decode(), True),
        (base64.b64encode(b"<html>" + bytes(60)).decode(), False),
        (base64.b64encode(b"\x89PNG\r\n\x1a\n").decode(), False),
        ("/9j/" + "a bear in the snow, " * 9, False),
        ("https://example.com/a.png", False),
        ("", False),
    ],
)
def test_what_is_base64_of_a_picture(text: str, *, expected: bool) -> None:
    """Base64 without a header is known by the picture that it begins with; a text in words never is one."""
    assert _media.is_picture_base64(text) is expected


class Image2(Image.Image):
    """A class of a user's, made from Pillow's."""


class Impostor:
    """A class that has no more than the name of NumPy's."""


Impostor.__name__ = "ndarray"


def test_objects_of_other_libraries_are_known_by_their_classes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Images and arrays are told from all else while another thread has only begun to import what they are of."""
    import numpy as np

    images, arrays = [Image.new("L", (1, 1)), Image2()], [np.zeros((1, 1), np.uint8), np.ma.MaskedArray([1])]
    others = ["https://example.com/a.jpg", b"", None, 1, np.int64(1), Impostor()]
    for module in ("PIL.Image", "numpy"):
        monkeypatch.setitem(sys.modules, module, types.ModuleType(module))
    for value in images:
        assert (_media.is_pillow(value), _media.is_array(value)) == (True, False)
    for value in arrays:
        assert (_media.is_pillow(value), _media.is_array(value)) == (False, True)
    for value in others:
        assert (_media.is_pillow(value), _media.is_array(value)) == (False, False)


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda np: np.int64(512), 512),
        (lambda np: np.uint8(3), 3),
        (lambda np: np.float32(0.1), 0.1),
        (lambda np: np.float16(0.3), 0.3),
        (lambda np: np.float64(0.1) + np.float64(0.2), 0.1 + 0.2),
        (lambda np: np.longdouble("0.25"), 0.25),
        (lambda np: np.bool_(1), True),
        (lambda np: np.str_("a"), "a"),
        (lambda np: np.float32("nan"), math.nan),
    ],
)
def test_numpy_scalars_become_python_values(make: Callable[[Any], Any], expected: Any) -> None:
    """A NumPy scalar is the Python value that it means: the shortest decimal, in the precision that it has."""
    import numpy as np

    value = _media.python_scalar(make(np))
    assert type(value) is type(expected)
    assert value == expected or math.isnan(expected)


@pytest.mark.parametrize("value", [1, 0.1, True, None, "a", b"a", [1]])
def test_python_values_stay(value: object) -> None:
    """What is Python's own is not touched."""
    assert _media.python_scalar(value) is value
