"""What kind of picture some bytes are, and data URIs. Values in, values out."""

import base64
import binascii
import re

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

_DATA_URI = re.compile(r"data:(?P<type>[\w.+-]+/[\w.+-]+)(?:;[\w.+-]+=[^;,]*)*;base64,", re.ASCII | re.IGNORECASE)


def sniff(head: bytes) -> str | None:
    """The media type that the first bytes of a file show, or `None` when they are no known picture."""
    return next((media for media, signature in _SIGNATURES if signature.match(head)), None)


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


def encode_data_uri(data: bytes, *, media_type: str) -> str:
    """Bytes as a base64 data URI."""
    return f"data:{media_type};base64,{base64.b64encode(data).decode('ascii')}"


def decode_data_uri(text: str) -> bytes:
    """The bytes inside a base64 data URI.

    Raises:
        ValueError: The text is no base64 data URI.
    """
    header = _DATA_URI.match(text)
    if header is None:
        raise ValueError("not a base64 data URI")
    try:
        return base64.b64decode(text[header.end() :], validate=True)
    except binascii.Error as error:
        raise ValueError(f"the base64 of the data URI is broken: {error}") from error
