"""Pictures made fit to be sent, by Pillow: upright, no larger than asked for, of a format that the service takes."""

import io
import math
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from PIL.Image import Image

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

_KEPT_MODES = ("L", "LA", "RGB", "RGBA")
_DEEP_MODES = ("I", "I;16", "I;16B", "I;16L", "I;16N")

# Opening and lazy loading change an object's own state, and one picture may be shared by many submits at once.
_lock = threading.Lock()


def fit(data: bytes, *, is_jpeg: bool, may_stay: bool, max_pixels: int | None) -> bytes:
    """A picture's file as it is to be sent: upright, and of so many pixels at most.

    Args:
        data: The file. It is given back untouched where nothing has to be changed.

        is_jpeg: Whether it is a JPEG, and to stay one. Others become PNG.

        may_stay: Whether its format can be sent.

        max_pixels: The most pixels, or `None`.

    Raises:
        ValueError: Pillow cannot read it, or decoding it would take too much memory.
    """
    from PIL import Image  # noqa: PLC0415 - optional, and slow

    bombs = (Image.DecompressionBombError, Image.DecompressionBombWarning)
    try:
        with _lock:
            image = Image.open(io.BytesIO(data))
            is_right = may_stay and _orientation(image) == 1 and not _is_larger(image, max_pixels)
    except Exception as error:
        if may_stay and max_pixels is None and not isinstance(error, bombs):
            return data  # nothing was asked for: what to make of it is for the service to say
        raise _unreadable(error) from error
    if is_right:
        return data
    with _reading():
        return _encoded(image, kind="JPEG" if is_jpeg else "PNG", max_pixels=max_pixels)


def encode(picture: Any, *, max_pixels: int | None) -> bytes:
    """A Pillow image or a NumPy array of bytes as a PNG, upright and of so many pixels at most.

    Raises:
        ValueError: Pillow cannot read it.
    """
    from PIL import Image  # noqa: PLC0415 - optional, and slow

    with _reading():
        if isinstance(picture, Image.Image):
            with _lock:
                picture = picture.copy()
        else:
            picture = Image.fromarray(picture[:, :, 0] if picture.shape[2:] == (1,) else picture)
        return _encoded(picture, kind="PNG", max_pixels=max_pixels)


@contextmanager
def _reading() -> Iterator[None]:
    try:
        yield
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


def _encoded(image: "Image", *, kind: str, max_pixels: int | None) -> bytes:
    from PIL.Image import Resampling, Transpose  # noqa: PLC0415 - optional, and slow

    image.load()
    turn = _TURNS.get(_orientation(image))
    plain = _plain(image)
    profile = image.info.get("icc_profile") if plain.mode.startswith(image.mode[:3]) else None
    if turn is not None:
        plain = plain.transpose(Transpose[turn])
    if max_pixels is not None and _is_larger(plain, max_pixels):
        plain = plain.resize(_smaller(plain.size, max_pixels), Resampling.LANCZOS)
    file = io.BytesIO()
    plain.save(file, kind, icc_profile=profile, **({"quality": 95} if kind == "JPEG" else {}))
    return file.getvalue()


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
