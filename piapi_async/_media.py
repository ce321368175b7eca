"""What pictures come as: their first bytes, data URIs, open files, objects of libraries that are not imported."""

import base64
import binascii
import inspect
import io
import operator
import re
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
    "image/heic": ".heic",
    "image/jp2": ".jp2",
}
"""The picture formats that are recognised, with the ending their files get."""

SNIFF_BYTES = 32
"""How many leading bytes `sniff` looks at."""

TAKEN = ("image/png", "image/jpeg", "image/webp")
"""The formats that the service's upload takes (https://piapi.ai/docs/tools/file-upload)."""

KNOWN_FORMATS = "PNG, JPEG, WebP, GIF, BMP, TIFF, AVIF, HEIC or JPEG 2000"

_SIGNATURES = (
    ("image/png", re.compile(rb"\x89PNG\r\n\x1a\n")),
    ("image/jpeg", re.compile(rb"\xff\xd8\xff")),
    ("image/webp", re.compile(rb"RIFF.{4}WEBP", re.DOTALL)),
    ("image/gif", re.compile(rb"GIF8[79]a")),
    ("image/bmp", re.compile(rb"BM.{4}\x00\x00\x00\x00", re.DOTALL)),
    ("image/tiff", re.compile(rb"II\*\x00|MM\x00\*")),
    # Either names itself, or calls itself a picture in general (`mif1`) and then says what it is compatible with.
    ("image/avif", re.compile(rb".{4}ftyp(?:avi[fs]|m[is]f1.{4}(?:.{4}){0,3}avi[fs])", re.DOTALL)),
    ("image/heic", re.compile(rb".{4}ftyp(?:hei[cxms]|hev[cx]|m[is]f1)", re.DOTALL)),
    ("image/jp2", re.compile(rb"\0\0\0\x0cjP  \r\n\x87\n|\xff\x4f\xff\x51")),
)

_PIECE = 2**18  # characters that are decoded at a time, so that other threads get their turns

_BASE64_HEAD = re.compile(r"[A-Za-z0-9+/\r\n]{64}", re.ASCII)

_DATA_URI = re.compile(r"data:(?P<type>[\w.+-]+/[\w.+-]+)(?:;[\w.+-]+=[^;,]*)*;base64,", re.ASCII | re.IGNORECASE)


def sniff(head: bytes) -> str | None:
    """The media type that the first bytes of a file show, or `None` when they are no known picture."""
    return next((media for media, signature in _SIGNATURES if signature.match(head)), None)


def is_pillow(value: object) -> bool:
    """Whether a value is an image of Pillow, which is not imported for that."""
    return _is_a(value, "PIL.Image", "Image")


def is_array(value: object) -> bool:
    """Whether a value is an array of NumPy, which is not imported for that either."""
    return _is_a(value, "numpy", "ndarray")


def _is_a(value: object, module: str, name: str) -> bool:
    # The classes of a value exist, and tell their names, whatever becomes of their modules. `sys.modules` must not be
    # asked: it holds modules that another thread has only begun to import, and whose classes are not there yet.
    return any(kind.__name__ == name and kind.__module__ == module for kind in type(value).__mro__)


def python_scalar(value: Any) -> Any:
    """A NumPy scalar (`np.int64(512)`, `np.bool_(True)`) as a Python value; any other value as it is.

    A floating-point number becomes the shortest decimal that means it in its own precision: `np.float32(0.1)` is 0.1,
    as its owner wrote it, and not the 0.10000000149011612 that its bits are in double precision.
    """
    if not _is_a(value, "numpy", "generic"):
        return value
    return float(str(value)) if _is_a(value, "numpy", "floating") else value.item()


def as_kept(value: object) -> object:
    """A value as requests keep it: files, `bytearray` and `memoryview` as bytes, NumPy scalars as Python values."""
    if isinstance(value, bytearray | memoryview):
        return bytes(value)
    return python_scalar(_read_file(value))


def _read_file(value: object) -> object:
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


def all_as_kept(value: Mapping[str, Any]) -> Mapping[str, Any]:
    """JSON-like values with each of them `as_kept`; they are copied only where something changes."""
    try:
        kept: Mapping[str, Any] = _all_as_kept(value)
    except RecursionError:
        return value  # it holds itself: encoding it says so
    return kept


def _all_as_kept(value: Any) -> Any:
    if isinstance(value, Mapping):
        items = {key: _all_as_kept(value[key]) for key in value}
        return value if all(items[key] is value[key] for key in items) else items
    if isinstance(value, list | tuple):
        several = [_all_as_kept(item) for item in value]
        return value if all(map(operator.is_, several, value)) else several
    return as_kept(value)


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


def is_picture_base64(text: str) -> bool:
    """Whether a string is base64 without any header, of a picture: its first bytes decide."""
    head = _BASE64_HEAD.match(text)
    if head is None:
        return False
    content = "".join(head[0].split())
    return sniff(base64.b64decode(content[: len(content) // 4 * 4])) is not None


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
    return decode_base64(text, start=header.end())


def decode_base64(text: str, *, start: int = 0) -> bytes:
    """The bytes that base64 stands for.

    Args:
        text: What holds it, without white space.

        start: Where in the text it begins.

    Raises:
        ValueError: It is broken.
    """
    pieces = range(start, len(text), _PIECE)
    try:
        return b"".join(base64.b64decode(text[place : place + _PIECE], validate=True) for place in pieces)
    except binascii.Error as error:
        raise ValueError(f"its base64 is broken: {error}") from error
