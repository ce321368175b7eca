"""Pillow, which is optional and loaded when first needed: whether it is there, and what it makes of a picture."""

import importlib.util
import io
from typing import TYPE_CHECKING, BinaryIO

from piapi_async import errors

if TYPE_CHECKING:
    from PIL import Image

_FORMATS = {
    "image/png": "PNG",
    "image/jpeg": "JPEG",
    "image/webp": "WEBP",
    "image/gif": "GIF",
    "image/bmp": "BMP",
    "image/tiff": "TIFF",
    "image/avif": "AVIF",
}
_LIBRARIES = {"image/jpeg": "jpg", "image/webp": "webp", "image/avif": "avif"}


def is_installed() -> bool:
    """Whether there is a Pillow to import."""
    return importlib.util.find_spec("PIL") is not None


def need(what: str) -> None:
    """Make sure that there is a Pillow; `what` needs it.

    Raises:
        ConfigurationError: There is none.
    """
    if not is_installed():
        raise errors.ConfigurationError(f"{what} needs Pillow: pip install 'piapi_async[images]'")


def open_picture(data: bytes, *, what: str) -> "Image.Image":
    """A picture as a Pillow image, with its pixels read.

    Args:
        data: The picture.

        what: What needs it, for the error.

    Raises:
        ConfigurationError: Pillow is not installed.
        OSError: Pillow cannot read it.
    """
    need(what)
    from PIL import Image  # noqa: PLC0415 - optional

    image = Image.open(io.BytesIO(data))
    image.load()
    return image


def verify(file: BinaryIO, *, media_type: str, pixels_max: int) -> None:
    """Decode a picture, and forget it. Does nothing where Pillow, or its part for this kind of picture, is missing.

    A JPEG is decoded at an eighth of its size. A PNG is opened only: `_structure` has inflated it, in less memory than
    a decoded picture takes. Takes long; for use in a thread.

    Args:
        file: The picture.

        media_type: Its kind, as its first bytes show it.

        pixels_max: How many pixels it may have.

    Raises:
        ValueError: It is broken, or too large; the message says how.
    """
    try:
        from PIL import Image, features  # noqa: PLC0415 - optional
    except ImportError:
        return
    library = _LIBRARIES.get(media_type)
    if library is not None and not (library in features.modules | features.codecs and features.check(library)):
        return
    file.seek(0)
    try:
        with Image.open(file, formats=[_FORMATS[media_type]]) as image:
            if image.width * image.height <= pixels_max and media_type != "image/png":
                image.draft("L", (1, 1))
                image.load()
            width, height = image.size
    except Exception as error:  # Pillow's decoders raise all kinds of errors at what is broken
        raise ValueError(f"it cannot be decoded: {' '.join(str(error).split())}") from error
    if width * height > pixels_max:
        raise ValueError(f"it has {width} x {height} pixels, more than {pixels_max}")
