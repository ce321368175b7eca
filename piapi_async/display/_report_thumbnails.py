"""Pictures for the report page: small copies that are written into it, and what stands in the place of one."""

import base64
import hashlib
import io
import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import quote, urlsplit

import attrs

from piapi_async import _media, _validators
from piapi_async._images import pillow

SIDE = 160
"""The longest side of a small copy, in pixels."""

QUALITY = 60
"""Of a small copy, as WebP counts it: 1 to 5 KB each."""

DECODED_MAX = 256 * 2**20
"""The most memory that decoding one picture for its small copy may take, in bytes."""

PAPER = (236, 234, 229)
"""Stands behind what is transparent."""


@attrs.frozen(kw_only=True)
class Picture:
    """One picture of a row, as the page shows it.

    Attributes:
        name: What it is called, for people.

        href: Where the whole picture is; `None` where there is nothing to open.

        small: The number of its small copy; `None` where there is none.

        words: What is written in its place when there is no small copy.
    """

    name: str
    href: str | None = None
    small: int | None = None
    words: str = ""


class Pictures:
    """Makes the pictures of all rows, and the small copy of each file only once.

    Args:
        beside: The page's directory, to which links are relative.

        keep: Takes each small copy, a data URI, with its number; they come in the order of the numbers.
    """

    def __init__(self, *, beside: Path, keep: Callable[[int, str], None]) -> None:
        self._beside = beside
        self._keep = keep
        self._shrink = shrinker()
        self._known: dict[bytes, int | None] = {}
        self._next = 0

    @property
    def can_shrink(self) -> bool:
        """Whether Pillow is there."""
        return self._shrink is not None

    def prepare(self, sources: Iterable[Path | str]) -> None:
        """Make the small copies of some pictures, on all processors: Pillow lets go of the interpreter meanwhile."""
        new = {_identity(source): source for source in sources if not _is_remote(source)}
        for known in self._known.keys() & new.keys():
            del new[known]
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            for key, uri in zip(new, pool.map(self._attempt, new.values()), strict=True):
                self._known[key] = self._number(uri)

    def picture(self, source: Path | str) -> Picture:
        """What the page shows for a local file, an http(s) URL or a data URI; a broken one is no error.

        Its small copy is there if it was prepared.
        """
        if isinstance(source, str) and _is_remote(source):
            return Picture(name=source, href=source, words=urlsplit(source).hostname or "")
        small = self._known.get(_identity(source))
        instead = "" if small is not None else "not readable" if self.can_shrink else "no preview"
        if _is_inline(source):
            return Picture(name="a picture inside the request", small=small, words=instead)
        if not _is_file(Path(source)):
            return Picture(name=Path(source).name, words="missing")
        return Picture(name=Path(source).name, href=self._link(Path(source)), small=small, words=instead)

    def _attempt(self, source: Path | str) -> str | None:
        try:
            if self._shrink is None or not (_is_inline(source) or _is_file(Path(source))):
                return None
            return self._shrink(source)
        except Exception:  # noqa: BLE001 - of a broken file, Pillow's decoders raise almost anything
            return None

    def _number(self, uri: str | None) -> int | None:
        if uri is None:
            return None
        self._keep(self._next, uri)
        self._next += 1
        return self._next - 1

    def _link(self, path: Path) -> str:
        here, there = self._beside.absolute(), path.absolute()
        # Windows knows no way from drive to drive. A colon is quoted, too: it would read as a scheme.
        return quote(os.fsencode(_way(here, there))) if here.drive == there.drive else there.as_uri()


def _way(here: Path, there: Path) -> str:
    return Path(os.path.relpath(there, here)).as_posix()


def _identity(source: Path | str) -> bytes:
    text = str(source) if _is_inline(source) else str(Path(source).absolute())
    return hashlib.sha256(text.encode(errors="surrogatepass")).digest()


def _is_inline(source: Path | str) -> bool:
    return isinstance(source, str) and _media.is_data_uri(source)


def _is_remote(source: Path | str) -> bool:
    return isinstance(source, str) and _validators.is_http_url(source)


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # a name that no disk can hold
        return False


def shrinker() -> Callable[[Path | str], str] | None:
    """A function from a picture's file to a small copy as a data URI; `None` without Pillow."""
    try:
        pillow.load()
        from PIL import Image, ImageOps, features  # noqa: PLC0415 - the report does without it
    except ImportError:
        return None
    kind = "WEBP" if features.check("webp") else "JPEG"

    def shrink(source: Path | str) -> str:
        data = _media.decode_data_uri(str(source)) if _is_inline(source) else Path(source).read_bytes()
        media_type = _media.sniff(data[: _media.SNIFF_BYTES])
        with pillow.open_lazily(data, media_type=media_type) as image:
            full = image.size
            image.draft(None, (2 * SIDE, 2 * SIDE))  # a JPEG with no more detail than is shown
            pillow.refuse_costly(image, full=full, at_most=DECODED_MAX)
            image.thumbnail((SIDE, SIDE))
            small = ImageOps.exif_transpose(image)
        if small.has_transparency_data:
            behind = Image.new("RGBA", small.size, PAPER)
            small = Image.alpha_composite(behind, small.convert("RGBA"))
        buffer = io.BytesIO()
        small.convert("RGB").save(buffer, kind, quality=QUALITY, method=2)  # twice as fast, 5 % larger
        return f"data:image/{kind.lower()};base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"

    return shrink
