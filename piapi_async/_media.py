"""What pictures come as: their first bytes, data URIs, open files, objects of libraries that are not imported."""

import base64
import binascii
import inspect
import io
import operator
import re
import sys
from collections.abc import Mapping
from typing import Any

MEDIA_TYPES = {
    "image/png": ".png",
    "image/jpeg": ".jpg",
    "image/webp": ".webp",
    "image/gif": ".gif",
    "image/bmp": ".bmp",
    "image/tiff": ".tiff",
    "image/avif": ".avif",
}
"""The picture formats that are recognised, with the ending their files get."""

SNIFF_BYTES = 16
"""How many leading bytes `sniff` looks at."""

TAKEN = ("image/png", "image/jpeg", "image/webp")
"""The formats that the service's upload takes (https://piapi.ai/docs/tools/file-upload)."""

KNOWN_FORMATS = "PNG, JPEG, WebP, GIF, BMP, TIFF or AVIF"

_SIGNATURES = (
    ("image/png", re.compile(rb"\x89PNG\r\n\x1a\n")),
    ("image/jpeg", re.compile(rb"\xff\xd8\xff")),
    ("image/webp", re.compile(rb"RIFF.{4}WEBP", re.DOTALL)),
    ("image/gif", re.compile(rb"GIF8[79]a")),
    ("image/bmp", re.compile(rb"BM.{4}\x00\x00\x00\x00", re.DOTALL)),
    ("image/tiff", re.compile(rb"II\*\x00|MM\x00\*")),
    ("image/avif", re.compile(rb".{4}ftypavi[fs]", re.DOTALL)),
)

_PIECE = 2**18  # characters that are decoded at a time, so that other threads get their turns

_DATA_URI = re.compile(r"data:(?P<type>[\w.+-]+/[\w.+-]+)(?:;[\w.+-]+=[^;,]*)*;base64,", re.ASCII | re.IGNORECASE)


def sniff(head: bytes) -> str | None:
    """The media type that the first bytes of a file show, or `None` when they are no known picture."""
    return next((media for media, signature in _SIGNATURES if signature.match(head)), None)


def is_pillow(value: object) -> bool:
    """Whether a value is an image of Pillow, which is not imported for that: without it there are none."""
    pillow = sys.modules.get("PIL.Image")
    return pillow is not None and isinstance(value, pillow.Image)


def is_array(value: object) -> bool:
    """Whether a value is an array of NumPy, which is not imported for that either."""
    numpy = sys.modules.get("numpy")
    return numpy is not None and isinstance(value, numpy.ndarray)


def read_file(value: object) -> object:
    """The rest of a file that is open for reading bytes, as bytes; any other value as it is."""
    read = getattr(value, "read", None)
    if read is None or isinstance(value, io.TextIOBase) or inspect.iscoroutinefunction(read):
        return value
    if getattr(value, "closed", False) is True:
        return value
    try:
        data = read()
    except io.UnsupportedOperation:  # it is open for writing only
        return value
    return bytes(data) if isinstance(data, bytes | bytearray | memoryview) else value


def read_files(value: Mapping[str, Any]) -> Mapping[str, Any]:
    """JSON-like values with every file in them as bytes; they are copied only where there is one."""
    try:
        read: Mapping[str, Any] = _read_files(value)
    except RecursionError:
        return value  # it holds itself: encoding it says so
    return read


def _read_files(value: Any) -> Any:
    if isinstance(value, Mapping):
        items = {key: _read_files(value[key]) for key in value}
        return value if all(items[key] is value[key] for key in items) else items
    if isinstance(value, list | tuple):
        several = [_read_files(item) for item in value]
        return value if all(map(operator.is_, several, value)) else several
    return read_file(value)


def is_data_uri(text: str) -> bool:
    """Whether a string is meant as a data URI."""
    return text[:5].lower() == "data:"


def is_picture_data_uri(text: str) -> bool:
    """Whether a string is a base64 data URI whose first bytes are those of a picture."""
    header = _DATA_URI.match(text)
    if header is None:
        return False
    head = "".join(text[header.end() : header.end() + 64].split())  # lines may be wrapped anywhere
    try:
        return sniff(base64.b64decode(head[: len(head) // 4 * 4])) is not None
    except ValueError:  # also for text that is not ASCII
        return False


def data_uri_size(text: str) -> int:
    """About how many bytes a base64 data URI holds: exact, but for white space inside it."""
    content = text[text.find(",") + 1 :]
    return len(content) * 3 // 4 - content.count("=", -2)


def decode_data_uri(text: str) -> bytes:
    """The bytes inside a base64 data URI.

    Raises:
        ValueError: The text is no base64 data URI.
    """
    header = _DATA_URI.match(text)
    if header is None:
        raise ValueError("not a base64 data URI")
    pieces = range(header.end(), len(text), _PIECE)
    try:
        return b"".join(base64.b64decode(text[start : start + _PIECE], validate=True) for start in pieces)
    except binascii.Error as error:
        raise ValueError(f"the base64 of the data URI is broken: {error}") from error
