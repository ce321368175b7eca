"""What the bytes of a picture tell without Pillow: how large it is, and whether all of it is there.

- PNG: every critical chunk has its checksum, and `IEND` ends it. Nothing is inflated: what has its checksums is what
  the service sent, and what stands in other chunks (texts, times, profiles) is not the picture.
- JPEG: its segments and scans are walked to the marker at the end, past thumbnails that have an end of their own.
- WebP: the size that it gives for itself. AVIF and HEIC: the sizes of its boxes.
- Others are only measured (GIF), or left to Pillow.

Everything goes in small steps that hold little memory, so that it can run in a thread without being noticed.
"""

import re
import struct
import zlib
from collections.abc import Callable, Iterator, Mapping

_WINDOW = 2**16
_PARTS_MAX = 100_000  # chunks or segments; more are no picture but an attempt to keep us busy
_MARKER = re.compile(rb"\xff([\x01-\xcf\xd8-\xfe])")
_JPEG_ALONE = frozenset({0x01, 0xD8})
_JPEG_END = 0xD9
_JPEG_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_PNG_TEXTS = (b"tEXt", b"zTXt", b"iTXt")
_ENDS_EARLY = "it ends early"

Bytes = bytes | memoryview


def dimensions(data: Bytes) -> tuple[int, int] | None:
    """Width and height in pixels, from the header of a PNG, JPEG, WebP or GIF; `None` when it does not tell."""
    head = bytes(data[:32])
    for signature, measure in _MEASURES.items():
        if signature.match(head):
            try:
                width, height = measure(data)
            except (struct.error, LookupError):
                return None
            return (width, height) if width and height else None
    return None


def _png_size(data: Bytes) -> tuple[int, int]:
    kind, width, height = struct.unpack(">4sII", data[12:24])
    return (width, height) if kind == b"IHDR" else (0, 0)


def _gif_size(data: Bytes) -> tuple[int, int]:
    width, height = struct.unpack("<HH", data[6:10])
    return width, height


def _webp_size(data: Bytes) -> tuple[int, int]:
    return _WEBP_SIZES[bytes(data[12:16])](bytes(data[20:30]))


def _vp8_size(head: bytes) -> tuple[int, int]:
    code, width, height = struct.unpack("<3x3sHH", head)
    return (width & 0x3FFF, height & 0x3FFF) if code == b"\x9d\x01\x2a" else (0, 0)


def _vp8l_size(head: bytes) -> tuple[int, int]:
    code, bits = struct.unpack("<BI", head[:5])
    return ((bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1) if code == 0x2F else (0, 0)  # noqa: PLR2004 - its mark


def _vp8x_size(head: bytes) -> tuple[int, int]:
    wide, wider, high, higher = struct.unpack("<4xHBHB", head)
    return (wide | wider << 16) + 1, (high | higher << 16) + 1


_WEBP_SIZES = {b"VP8 ": _vp8_size, b"VP8L": _vp8l_size, b"VP8X": _vp8x_size}


def _jpeg_size(data: Bytes) -> tuple[int, int]:
    for kind, place in _segments(data):
        if kind in _JPEG_FRAMES:
            height, width = struct.unpack(">3xHH", data[place : place + 7])
            return width, height
    return 0, 0


def _segments(data: Bytes) -> Iterator[tuple[int, int]]:
    """The markers of a JPEG, each with where its content begins; those in the content of others do not count."""
    place = 0
    for _ in range(_PARTS_MAX):
        marker = _next_marker(data, place)
        if marker is None:
            return
        kind, place = marker
        yield kind, place
        if kind not in _JPEG_ALONE:
            place += int.from_bytes(data[place : place + 2], "big")


def _next_marker(data: Bytes, place: int) -> tuple[int, int] | None:
    # In windows, because a search holds up all other threads while it lasts.
    while place < len(data):
        found = _MARKER.search(data, place, place + _WINDOW)
        if found:
            return found[1][0], found.end()
        place += _WINDOW - 1
    return None


_MEASURES: Mapping[re.Pattern[bytes], Callable[[Bytes], tuple[int, int]]] = {
    re.compile(rb"\x89PNG\r\n\x1a\n"): _png_size,
    re.compile(rb"\xff\xd8\xff"): _jpeg_size,
    re.compile(rb"RIFF.{4}WEBP", re.DOTALL): _webp_size,
    re.compile(rb"GIF8[79]a"): _gif_size,
}


def fault(data: Bytes, *, media_type: str | None) -> str | None:
    """Why a picture is not whole, in a few words, or `None`. Of a kind that is not in `KINDS` no fault is seen."""
    find = _FAULTS.get(media_type or "")
    return find(data) if find else None


def _png_fault(data: Bytes) -> str | None:
    for kind, content, checksum in _chunks(data):
        is_critical = not kind[0] & 0x20
        if is_critical and zlib.crc32(content, zlib.crc32(kind)) != checksum:
            return "a part of it is damaged"
        if kind == b"IEND":
            return None
    return _ENDS_EARLY


def _chunks(data: Bytes) -> Iterator[tuple[bytes, memoryview, int]]:
    """The chunks of a PNG that are there in whole: kind, content, checksum."""
    view, place = memoryview(data), 8
    for _ in range(_PARTS_MAX):
        length = int.from_bytes(view[place : place + 4], "big")
        end = place + 12 + length
        if end > len(view):
            return
        yield bytes(view[place + 4 : place + 8]), view[place + 8 : end - 4], int.from_bytes(view[end - 4 : end], "big")
        place = end


def without_texts(data: bytes) -> bytes:
    """A PNG without the texts that are written into it."""
    kept, place = [data[:8]], 8
    for kind, content, _ in _chunks(data):
        end = place + 12 + len(content)
        if kind not in _PNG_TEXTS:
            kept.append(data[place:end])
        place = end
    return b"".join([*kept, data[place:]])


def _jpeg_fault(data: Bytes) -> str | None:
    return None if any(kind == _JPEG_END for kind, _ in _segments(data)) else _ENDS_EARLY


def _webp_fault(data: Bytes) -> str | None:
    return None if 8 + int.from_bytes(data[4:8], "little") <= len(data) else _ENDS_EARLY


def is_lossy_webp(data: Bytes) -> bool:
    """Whether a WebP, or the first frame of an animated one, is of the lossy kind."""
    place = 12
    for _ in range(_PARTS_MAX):
        kind = bytes(data[place : place + 4])
        if kind in (b"VP8 ", b"VP8L", b""):
            return kind == b"VP8 "
        # A frame (`ANMF`) has a header of 16 bytes before the chunks that are in it.
        size = int.from_bytes(data[place + 4 : place + 8], "little")
        place += 24 if kind == b"ANMF" else 8 + size + size % 2
    return False


def _box_fault(data: Bytes) -> str | None:
    place, missing = 0, {b"meta", b"mdat"}  # what the picture is made of, and its compressed pixels
    for _ in range(_PARTS_MAX):
        if not missing:
            return None
        size, kind = int.from_bytes(data[place : place + 4], "big"), bytes(data[place + 4 : place + 8])
        if size == 1:
            size = int.from_bytes(data[place + 8 : place + 16], "big")
        elif size == 0:  # the last box may reach to wherever the file ends
            size = len(data) - place
        if size < 8 or place + size > len(data):  # noqa: PLR2004 - the length of a box's own header
            break
        missing.discard(kind)
        place += size
    return _ENDS_EARLY


_FAULTS: Mapping[str, Callable[[Bytes], str | None]] = {
    "image/png": _png_fault,
    "image/jpeg": _jpeg_fault,
    "image/webp": _webp_fault,
    "image/avif": _box_fault,
    "image/heic": _box_fault,
}

KINDS = frozenset(_FAULTS)
"""The kinds of picture that are seen here to be whole, or not."""

MEASURED = frozenset({"image/png", "image/jpeg", "image/webp", "image/gif"})
"""The kinds of picture whose `dimensions` are known here, unless they are broken."""
