"""The body of a request: a JSON text in pieces, whose pictures become base64 only while they are sent."""

import binascii
import hashlib
import json
from collections.abc import Iterator
from secrets import token_hex

import attrs

_PIECE = 3 * 2**14
"""Bytes that are encoded at a time: 64 KiB of base64, a fraction of a millisecond of work."""


@attrs.frozen(eq=False)
class Base64:
    """Bytes that stand in a JSON text as a string of base64, with a head before it, such as that of a data URI."""

    data: bytes = attrs.field(repr=False)
    head: str = attrs.field(default="", kw_only=True)

    def __len__(self) -> int:
        return (len(self.data) + 2) // 3 * 4

    def pieces(self) -> Iterator[bytes]:
        """The base64, piece by piece."""
        view = memoryview(self.data)
        for start in range(0, len(view), _PIECE):
            yield binascii.b2a_base64(view[start : start + _PIECE], newline=False)


@attrs.define(eq=False)
class Content:
    """A JSON text that can be written many times, and takes no more room than what it was made of."""

    parts: tuple[bytes | Base64, ...] = attrs.field(repr=False)

    @property
    def size(self) -> int:
        """How many bytes it is."""
        return sum(map(len, self.parts))

    @property
    def digests(self) -> tuple[str, ...]:
        """The SHA-256 of what stands in it as base64, in order; a picture takes milliseconds."""
        return tuple(hashlib.sha256(part.data).hexdigest() for part in self.parts if isinstance(part, Base64))

    def release(self) -> None:
        """Forget the text, once nobody writes it any longer.

        An error's traceback keeps every frame that it came through, and with them this, for as long as it is kept.
        """
        self.parts = ()

    def pieces(self) -> Iterator[bytes]:
        """The text, in pieces of at most 64 KiB."""
        for part in self.parts:
            if isinstance(part, Base64):
                yield from part.pieces()
            else:
                yield from (part[start : start + 2**16] for start in range(0, len(part), 2**16))


def as_json(value: object) -> Content:
    """A value as JSON, with every `Base64` inside it as a string.

    Raises:
        TypeError: It holds something that is no JSON value.
        ValueError: It holds a number that JSON does not have (NaN, infinity), or itself.
    """
    mark = token_hex(16)  # where the bytes belong in the text; nothing that was given can foresee it
    found: list[Base64] = []

    def note(item: object) -> str:
        if not isinstance(item, Base64):
            raise TypeError(f"object of type {type(item).__name__} is no JSON value")
        found.append(item)
        return item.head + mark

    first, *others = json.dumps(value, allow_nan=False, default=note).encode().split(mark.encode())
    return Content((first, *(part for pair in zip(found, others, strict=True) for part in pair)))
