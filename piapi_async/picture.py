"""`Picture`: a finished picture in memory, which notebooks show."""

from pathlib import Path
from typing import TYPE_CHECKING

import attrs

from piapi_async import _atomic, _html, _media, _validators
from piapi_async._images import integrity, pillow

if TYPE_CHECKING:
    from PIL import Image as PillowImage


def _bytes(data: bytes | bytearray | memoryview) -> bytes:
    return bytes(data) if isinstance(data, bytearray | memoryview) else data


def _sniffed(picture: "Picture") -> str:
    data: object = picture.data  # not checked yet
    known = _media.sniff(data[: _media.SNIFF_BYTES]) if isinstance(data, bytes) else None
    return known or "application/octet-stream"


@attrs.frozen(repr=False)
class Picture:
    """A picture, as its bytes. `Session.fetch` gives one. Pictures with the same bytes are equal.

    Attributes:
        data: The bytes, as they came.

        media_type: What kind of picture they are, e.g. `"image/png"`; by default what the first bytes show.

        url: Where they came from, or empty.

    Raises:
        TypeError: A field has the wrong type.
    """

    data: bytes = attrs.field(converter=_bytes, validator=_validators.instance_of(bytes, allowed="bytes"))
    media_type: str = attrs.field(
        default=attrs.Factory(_sniffed, takes_self=True),
        kw_only=True,
        eq=False,
        validator=_validators.instance_of(str, allowed="a string"),
    )
    url: str = attrs.field(
        default="", kw_only=True, eq=False, validator=_validators.instance_of(str, allowed="a string")
    )

    @property
    def suffix(self) -> str:
        """The ending that a file of this kind gets, e.g. `".png"`; empty for a kind that is not known."""
        return _media.MEDIA_TYPES.get(self.media_type, "")

    @property
    def size_bytes(self) -> int:
        """How many bytes it has."""
        return len(self.data)

    @property
    def width(self) -> int | None:
        """Its width in pixels, by the header of a PNG, JPEG, WebP or GIF; `None` for others and for broken ones."""
        size = integrity.dimensions(self.data)
        return size and size[0]

    @property
    def height(self) -> int | None:
        """Its height in pixels; as `width`."""
        size = integrity.dimensions(self.data)
        return size and size[1]

    def save(self, path: str | Path, *, overwrite: bool = False) -> Path:
        """Write the bytes to a file, whole or not at all. This blocks; in a coroutine use `asyncio.to_thread`.

        Args:
            path: The file, named as given; its directory is made if missing. `suffix` is the fitting ending.

            overwrite: Whether an existing file may be replaced.

        Returns:
            The file written.

        Raises:
            FileExistsError: The file exists and may not be replaced.
            OSError: The disk refuses.
            TypeError: `path` is not a path.
        """
        path = _validators.path(path, name="path")
        _atomic.write(path, self.data, overwrite=overwrite)
        return path

    def to_pil(self) -> "PillowImage.Image":
        """The picture as a Pillow image, decoded.

        Raises:
            ConfigurationError: Pillow is not installed.
            OSError: Pillow cannot read it.
        """
        return pillow.open_picture(self.data, media_type=self.media_type, what="Picture.to_pil()")

    def _repr_html_(self) -> str:
        return _html.picture(self.data, media_type=self.media_type)

    def __repr__(self) -> str:
        size = integrity.dimensions(self.data)
        parts = [self.media_type[:40]] if size is None else [self.media_type[:40], "{}x{}".format(*size)]
        parts += [f"{self.size_bytes} bytes", *([_validators.short(self.url)] if self.url else [])]
        return f"<Picture {' '.join(parts)}>"
