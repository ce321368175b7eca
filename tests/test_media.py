"""Recognising pictures by their first bytes, and data URIs."""

import base64
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, features

from piapi_async import _media

FORMATS = {
    "PNG": ("image/png", ".png"),
    "JPEG": ("image/jpeg", ".jpg"),
    "WEBP": ("image/webp", ".webp"),
    "GIF": ("image/gif", ".gif"),
    "BMP": ("image/bmp", ".bmp"),
    "TIFF": ("image/tiff", ".tiff"),
    "AVIF": ("image/avif", ".avif"),
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
def test_no_text_breaks_the_look_into_a_data_uri(content: str) -> None:
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
