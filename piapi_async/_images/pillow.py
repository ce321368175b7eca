"""Pillow, which is optional and loaded when first needed: whether it is there, and what it reads."""

import importlib.util
import io
import struct
import threading
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, BinaryIO

from piapi_async import errors
from piapi_async._images import integrity

if TYPE_CHECKING:
    from PIL import Image

HEIC = "image/heic"

_FORMATS = {
    "image/png": "PNG",
    "image/jpeg": "JPEG",
    "image/webp": "WEBP",
    "image/gif": "GIF",
    "image/bmp": "BMP",
    "image/tiff": "TIFF",
    "image/avif": "AVIF",
    "image/jp2": "JPEG2000",
    HEIC: "HEIF",
}
_LIBRARIES = {"image/jpeg": "jpg", "image/webp": "webp", "image/avif": "avif", "image/jp2": "jpg_2000"}
_PIXEL_BYTES = {"PNG": 4, "JPEG": 4, "MPO": 4, "GIF": 4, "BMP": 4, "TIFF": 4, "WEBP": 16, "AVIF": 16, "HEIF": 16}
_PIXEL_BYTES_MAX = 20
_PROGRESSIVE_BYTES = 6

_loading = threading.Lock()


class CostlyError(ValueError):
    """Decoding a picture would take too much memory."""


def is_installed() -> bool:
    """Whether there is a Pillow to import."""
    return importlib.util.find_spec("PIL") is not None


def need(what: str) -> None:
    """Make sure that there is a Pillow; `what` needs it.

    Raises:
        ConfigurationError: There is none.
    """
    if not is_installed():
        raise errors.ConfigurationError(f"{what} needs Pillow: pip install pillow")


def load() -> None:
    """Import Pillow with all the formats it knows; what reads or writes pictures here calls this first.

    Raises:
        ImportError: It is missing.
    """
    # Pillow registers its formats step by step, while pictures are opened, and one that is opened in another thread
    # meanwhile "cannot be identified". So only one thread at a time does that, and all of it.
    with _loading:
        from PIL import Image  # noqa: PLC0415 - optional, and slow

        Image.init()


def load_heif() -> bool:
    """Teach Pillow to read HEIC, by pillow-heif; whether it can."""
    load()
    with _loading:
        from PIL import Image  # noqa: PLC0415 - optional, and slow

        if "HEIF" not in Image.OPEN:
            try:
                import pillow_heif  # noqa: PLC0415 - optional, and slow
            except ImportError:
                return False
            pillow_heif.register_heif_opener()
        return True


def decoding_bytes(kind: str | None, pixels: int, *, all_pixels: int = 0) -> int:
    """About how much memory decoding a picture takes, as measured with Pillow 13.

    Four bytes a pixel for most formats; sixteen for WebP, whose decoder keeps two canvases of its own.

    Args:
        kind: Pillow's name of the format, `None` for a picture in memory.

        pixels: How many pixels are decoded.

        all_pixels: How many the file has, for a progressive JPEG: all its coefficients are kept until the last scan.
    """
    return pixels * _PIXEL_BYTES.get(kind or "PNG", _PIXEL_BYTES_MAX) + all_pixels * _PROGRESSIVE_BYTES


def open_lazily(data: bytes, *, media_type: str | None) -> "Image.Image":
    """A picture as a Pillow image, its pixels not read yet, and however many there are: see `refuse_costly`.

    Args:
        data: The picture.

        media_type: Its kind, as its first bytes show it.

    Raises:
        Exception: Pillow cannot read it, in any of the ways that Pillow has of saying so.
    """
    load()
    return _open(data, media_type=media_type, by=identified)


def _open(data: bytes, *, media_type: str | None, by: "Callable[[BinaryIO], Image.Image]") -> "Image.Image":
    if media_type == HEIC:
        load_heif()
    try:
        return by(io.BytesIO(data))
    except ValueError:
        if media_type != "image/png":
            raise
        # Pillow refuses texts that become large, such as the workflow that ComfyUI writes into its pictures.
        return by(io.BytesIO(integrity.without_texts(data)))


def identified(file: BinaryIO, *, formats: Collection[str] = ()) -> "Image.Image":
    """`Image.open` without its bound on pixels, so that ours decides.

    Pillow's own, `Image.MAX_IMAGE_PIXELS`, belongs to the program and counts for all of its threads; and its warning
    beyond that can only be kept away for all threads, too.

    Args:
        file: The picture, at its beginning.

        formats: Pillow's names of the formats that it may have; all by default.

    Raises:
        Exception: As `Image.open`.
    """
    from PIL import Image, UnidentifiedImageError  # noqa: PLC0415 - optional

    start = file.read(16)
    for kind in formats or Image.ID:
        factory, accept = Image.OPEN[kind]
        found = accept is None or accept(start)
        if found and not isinstance(found, str):  # a text says what Pillow lacks for this format
            file.seek(0)
            try:
                return factory(file, "")
            except (SyntaxError, IndexError, TypeError, struct.error):
                continue  # not of this format after all, which is how Pillow's readers say it
    raise UnidentifiedImageError("its format is not known, or its header is broken")


def refuse_costly(image: "Image.Image", *, full: tuple[int, int] | None = None, at_most: int) -> None:
    """Refuse a picture that takes too much memory to decode.

    Args:
        image: The picture, not decoded yet.

        full: Width and height as the file has it, where `Image.draft` chose to decode less of it.

        at_most: How many bytes it may take.

    Raises:
        CostlyError: It takes more.
    """
    width, height = full or image.size
    all_pixels = width * height if image.info.get("progressive") else 0
    needed = decoding_bytes(image.format, image.width * image.height, all_pixels=all_pixels)
    refuse_large((width, height), needed=needed, at_most=at_most)


def refuse_large(size: tuple[int, int], *, needed: int, at_most: int) -> None:
    """Refuse a picture of that size, if decoding it needs more bytes of memory than it may.

    Raises:
        CostlyError: It does.
    """
    if needed > at_most:
        raise CostlyError(
            f"it has {size[0]} x {size[1]} pixels, and decoding it would take {needed >> 20} MiB of memory, more than"
            f" {at_most >> 20}; make it smaller first"
        )


def open_picture(data: bytes, *, media_type: str | None, what: str) -> "Image.Image":
    """A picture as a Pillow image, with its pixels read, if it has no more of them than Pillow is set to take.

    Args:
        data: The picture.

        media_type: Its kind, as its first bytes show it.

        what: What needs it, for the error.

    Raises:
        ConfigurationError: Pillow is not installed.
        OSError: Pillow cannot read it.
    """
    need(what)
    load()
    from PIL import Image  # noqa: PLC0415 - optional

    image = _open(data, media_type=media_type, by=Image.open)
    image.load()
    return image


def verify(file: BinaryIO, *, media_type: str, at_most: int) -> None:
    """Decode a picture, and forget it, to see whether its pixels are all there.

    Nothing is verified where Pillow, or its part for this kind of picture, is missing, and where decoding takes too
    much memory: a picture that was paid for is not lost over that. Takes long; for use in a thread.

    Args:
        file: The picture.

        media_type: Its kind, as its first bytes show it.

        at_most: How many bytes of memory decoding it may take.

    Raises:
        ValueError: It is broken; the message says how.
    """
    try:
        load()
        from PIL import features  # noqa: PLC0415 - optional
    except ImportError:
        return
    kind, library = _FORMATS[media_type], _LIBRARIES.get(media_type)
    if media_type == HEIC and not load_heif():
        return
    if library is not None and not (library in features.modules | features.codecs and features.check(library)):
        return
    file.seek(0)
    try:
        image = identified(file, formats=[kind])
    except Exception as error:  # Pillow's decoders raise all kinds of errors at what is broken
        if media_type in integrity.KINDS:
            return  # it has been found whole: what Pillow stumbles over is a note beside the pixels
        raise _broken(error) from error
    with image:
        all_pixels = image.width * image.height if image.info.get("progressive") else 0
        image.draft("L", (1, 1))  # a JPEG at an eighth of its size
        if decoding_bytes(image.format, image.width * image.height, all_pixels=all_pixels) > at_most:
            return
        try:
            image.load()
        except Exception as error:
            raise _broken(error) from error


def _broken(error: Exception) -> ValueError:
    return ValueError(f"it cannot be decoded: {' '.join(str(error).split())}")
