"""Pictures made fit to be sent, by Pillow: upright, no larger than asked for, of a format that the service takes."""

import io
import math
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from piapi_async._images import integrity, pillow

if TYPE_CHECKING:
    from PIL.Image import Image

DECODED_MAX = 2**30
"""The most memory that decoding one picture may take, in bytes: a PNG or JPEG of 268 megapixels, a WebP of 67."""

_ORIENTATION = 0x0112
_TURNS = {
    2: "FLIP_LEFT_RIGHT",
    3: "ROTATE_180",
    4: "FLIP_TOP_BOTTOM",
    5: "TRANSPOSE",
    6: "ROTATE_270",
    7: "TRANSVERSE",
    8: "ROTATE_90",
}
"""Pillow's name of what makes a picture of that EXIF orientation upright."""

_LYING = (5, 6, 7, 8)
_KEPT_MODES = ("L", "LA", "RGB", "RGBA")
_DEEP_MODES = ("I", "I;16", "I;16B", "I;16L", "I;16N")
_JPEGS = ("JPEG", "MPO")
_LOSSY = (*_JPEGS, "AVIF", "HEIF", "JPEG2000")
_QUALITY = 90
"""Of photographs that were lossy in another format: about as large as they were, and no loss to be seen."""

# Opening and lazy loading change an object's own state, and one picture may be shared by many submits at once.
_lock = threading.Lock()


def can_open(data: bytes) -> bool:
    """Whether Pillow knows what kind of picture this is."""
    try:
        kind = pillow.open_lazily(data, media_type=None).format
    except Exception:  # noqa: BLE001 - Pillow's errors have no common root
        return False
    return kind != "EPS"  # a program, which Pillow lets another one run


def fit(data: bytes, *, media_type: str | None, may_stay: bool, max_pixels: int | None) -> bytes:
    """A picture's file as it is to be sent: upright, and of so many pixels at most.

    A photograph of a lossy format stays lossy: as a PNG it would be many times its size.

    Args:
        data: The file. It is given back untouched where nothing has to be changed.

        media_type: Its kind, as its first bytes show it; `None` for a kind that only Pillow may know.

        may_stay: Whether its format can be sent.

        max_pixels: The most pixels, or `None`.

    Raises:
        ValueError: Pillow cannot read it, or decoding it would take too much memory.
    """
    pillow.load()
    try:
        image = pillow.open_lazily(data, media_type=media_type)
        is_right = may_stay and _orientation(image) == 1 and not _is_larger(image, max_pixels)
    except Exception as error:
        if may_stay and max_pixels is None:
            return data  # it is whole, and nothing was asked for: what to make of it is for the service to say
        raise _unreadable(error) from error
    if is_right:
        # Whoever receives it has to decode it, at four bytes a pixel or more.
        pillow.refuse_large(image.size, needed=4 * image.width * image.height, at_most=DECODED_MAX)
        return data
    with _reading():
        return _encoded(image, is_lossy=_is_lossy(image, data), max_pixels=max_pixels)


def encode(picture: Any, *, max_pixels: int | None) -> bytes:
    """A Pillow image or a NumPy array of bytes as a PNG, upright and of so many pixels at most.

    Raises:
        ValueError: Pillow cannot read it, or decoding it would take too much memory.
    """
    pillow.load()
    from PIL import Image  # noqa: PLC0415 - optional, and slow

    with _reading():
        if isinstance(picture, Image.Image):
            with _lock:
                pillow.refuse_costly(picture, at_most=DECODED_MAX)
                picture = picture.copy()
        else:
            picture = Image.fromarray(picture[:, :, 0] if picture.shape[2:] == (1,) else picture)
        return _encoded(picture, is_lossy=False, max_pixels=max_pixels)


@contextmanager
def _reading() -> Iterator[None]:
    try:
        yield
    except pillow.CostlyError:
        raise
    except Exception as error:  # Pillow's errors have no common root
        raise _unreadable(error) from error


def _unreadable(error: Exception) -> ValueError:
    return ValueError(f"Pillow cannot read it: {error}")


def _orientation(image: "Image") -> int:
    if image.format == "PNG" and "exif" not in image.info:
        return 1  # Pillow would decode the whole picture to look for it behind the pixels
    try:
        found = image.getexif().get(_ORIENTATION)
    except Exception:  # noqa: BLE001 - broken EXIF data is as good as none
        return 1
    return found if found in _TURNS else 1


def _is_larger(image: "Image", max_pixels: int | None) -> bool:
    return max_pixels is not None and image.width * image.height > max_pixels


def _is_lossy(image: "Image", data: bytes) -> bool:
    """Whether the pixels of a file are only about what they were before it was written."""
    if image.format == "WEBP":
        return integrity.is_lossy_webp(data)
    return image.format in _LOSSY or image.info.get("compression") == "jpeg"  # the latter in a TIFF


def _encoded(image: "Image", *, is_lossy: bool, max_pixels: int | None) -> bytes:
    from PIL.Image import (  # noqa: PLC0415 - optional, and slow
        DecompressionBombError,
        DecompressionBombWarning,
        Resampling,
        Transpose,
    )

    size, full = None, image.size
    if max_pixels is not None and _is_larger(image, max_pixels):
        is_lying = _orientation(image) in _LYING
        size = _smaller((image.height, image.width) if is_lying else image.size, max_pixels)
        wide, high = reversed(size) if is_lying else size
        image.draft(None, (2 * wide, 2 * high))  # a JPEG is decoded at twice the detail that is kept, not at all it has
    pillow.refuse_costly(image, full=full, at_most=DECODED_MAX)
    try:
        image.load()
    except (
        DecompressionBombError,
        DecompressionBombWarning,
    ) as error:  # Pillow's reader of TIFF has a bound of its own
        wide, high = full
        raise pillow.CostlyError(
            f"it has {wide} x {high} pixels, more than Pillow decodes of a {image.format}; send it as PNG or JPEG"
        ) from error
    turn = _TURNS.get(_orientation(image))
    plain = _plain(image)
    profile = image.info.get("icc_profile") if plain.mode.startswith(image.mode[:3]) else None
    how = _how(image, plain, is_lossy=is_lossy, is_scaled=size is not None)
    if turn is not None:
        plain = plain.transpose(Transpose[turn])
    if size is not None:
        plain = plain.resize(size, Resampling.LANCZOS)
    file = io.BytesIO()
    plain.save(file, icc_profile=profile, **how)
    return file.getvalue()


def _how(image: "Image", plain: "Image", *, is_lossy: bool, is_scaled: bool) -> dict[str, Any]:
    """How a picture is written: Pillow's name of the format, and its options."""
    if not is_lossy:
        return {"format": "PNG"}
    if image.format == "WEBP" or plain.has_transparency_data:
        return {"format": "WEBP", "quality": _QUALITY, "method": 2}  # half the time of the default, 10 % larger
    if image.format not in _JPEGS:
        return {"format": "JPEG", "quality": _QUALITY}
    if is_scaled or plain is not image:
        return {"format": "JPEG", "quality": 95}
    from PIL.JpegImagePlugin import get_sampling  # noqa: PLC0415 - optional, and slow

    # Only turned: with its own tables it loses next to nothing, and stays as large as it was.
    return {
        "format": "JPEG",
        "qtables": image.quantization,  # type: ignore[attr-defined] # a JPEG has them
        "subsampling": get_sampling(image),
        "progressive": "progressive" in image.info,
    }


def _plain(image: "Image") -> "Image":
    """The picture with 8 bits a channel, grey or RGB, and its transparency if it has any."""
    if image.mode in _DEEP_MODES:
        deep = image.convert("I")
        is_shallow = deep.getextrema()[1] < 256  # type: ignore[operator] # noqa: PLR2004 - 8 bits in a wider home
        return (deep if is_shallow else deep.point(lambda value: value * (1 / 256))).convert("L")
    if image.mode == "F":
        raise ValueError("its pixels are floating-point numbers; convert it first, e.g. with image.convert('L')")
    if image.has_transparency_data:
        return image if image.mode in _KEPT_MODES[1::2] else image.convert("RGBA")
    if image.mode in _KEPT_MODES:
        return image
    return image.convert("L" if image.mode == "1" else "RGB")


def _smaller(size: tuple[int, int], max_pixels: int) -> tuple[int, int]:
    """The largest size of about the same shape that has so many pixels at most."""
    scale = math.sqrt(max_pixels / (size[0] * size[1]))
    width = max(1, min(int(size[0] * scale), max_pixels))
    return width, max(1, min(int(size[1] * scale), max_pixels // width))
