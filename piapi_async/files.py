"""Finished pictures out: streamed to a temporary name, checked, and renamed, so that a final name is always whole."""

import asyncio
import hashlib
import os
import re
import secrets
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, suppress
from pathlib import Path
from urllib.parse import unquote, urlsplit

from piapi_async import _checks, _media, errors
from piapi_async._http import Download, Transport
from piapi_async.task import Image

OUTPUT_MAX = 100 * 2**20
"""The largest finished picture that is written to disk, in bytes."""

# Without the names that Windows keeps for devices, with or without an ending.
_SAFE_NAME = re.compile(r"(?!(?i:con|prn|aux|nul|com\d|lpt\d)(?:\.|$))[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


def safe_name(name: str) -> str:
    """A name for a file, from a text that a server chose: no separators, no leading dot, at most 100 characters."""
    if _SAFE_NAME.fullmatch(name):
        return name
    return "file-" + hashlib.sha256(name.encode(errors="replace")).hexdigest()[:16]


def is_directory(to: str | Path) -> bool:
    """Whether a user means a directory: one that exists, or a text that ends in a slash."""
    return Path(to).is_dir() or str(to).endswith(("/", os.sep))


def name_of(image: Image) -> str:
    """A name for an image that has none, from its URL, without an ending."""
    if image.is_inline or not _checks.is_http_url(image.url):
        return safe_name(image.url)
    return safe_name(Path(unquote(urlsplit(image.url).path)).stem)


async def fetch_to(
    image: Image, *, directory: Path, name: str, transport: Transport, overwrite: bool, suffix: bool
) -> Path:
    """Bring a finished picture to disk, whole or not at all.

    Args:
        image: What to fetch.

        directory: Where to; made if missing.

        name: The file's name.

        transport: The way to the result host.

        overwrite: Whether an existing file may be replaced.

        suffix: Whether to add the ending that the picture's content calls for.

    Raises:
        FileExistsError: The file exists and may not be replaced.
        OSError: The disk refuses.
        OutputError: What came is no picture, too large, or gone.
        TransportError: The way to the result host broke.
    """
    await asyncio.to_thread(directory.mkdir, parents=True, exist_ok=True)
    if not (suffix or overwrite):
        _refuse_existing(directory / name)
    temporary = directory / f".{secrets.token_hex(8)}.part"
    try:
        async with aclosing(_pieces(image, transport=transport)) as pieces:
            media_type = await _fill(temporary, pieces, url=image.url)
        path = directory / (name + _media.MEDIA_TYPES[media_type] if suffix else name)
        await asyncio.to_thread(_publish, temporary, path, overwrite=overwrite)
    except BaseException:
        with suppress(OSError):
            temporary.unlink()
        raise
    return path


async def _fill(path: Path, pieces: AsyncIterator[bytes], *, url: str) -> str:
    """Write what comes to a new file, within bounds, and tell what kind of picture it is."""
    size, head = 0, b""
    with path.open("xb") as file:
        async for piece in pieces:
            size += len(piece)
            head = head if len(head) >= _media.SNIFF_BYTES else head + piece[: _media.SNIFF_BYTES]
            if size > OUTPUT_MAX:
                raise errors.OutputError(f"{_shown(url)} is larger than {OUTPUT_MAX} bytes", url=url)
            await asyncio.to_thread(file.write, piece)
    media_type = _media.sniff(head)
    if media_type is None:
        raise errors.OutputError(
            f"{_shown(url)} gave {size} bytes that are no picture; a result link dies after 3 days", url=url
        )
    return media_type


def _publish(temporary: Path, path: Path, *, overwrite: bool) -> None:
    if not overwrite:
        _refuse_existing(path)
    temporary.replace(path)


def _refuse_existing(path: Path) -> None:
    if path.exists():
        raise FileExistsError(f"{str(path)!r} exists; pass overwrite=True to replace it")


async def _pieces(image: Image, *, transport: Transport) -> AsyncGenerator[bytes, None]:
    if image.is_inline:
        yield await asyncio.to_thread(_decoded, image.url)
        return
    if not _checks.is_http_url(image.url):
        raise errors.OutputError(f"the result's URL {_shown(image.url)} is no http(s) URL", url=image.url)
    async with transport.download(image.url) as download:
        _check_status(download)
        async for piece in download.chunks():
            yield piece


def _decoded(url: str) -> bytes:
    try:
        return _media.decode_data_uri(url)
    except ValueError as error:
        raise errors.OutputError(f"the picture inside the answer is broken: {error}", url=url) from error


def _check_status(download: Download) -> None:
    status = download.response.status
    if status in (429, 408) or status >= 500:  # noqa: PLR2004 - statuses that pass
        raise errors.TransportError(f"the result host answered {status} for {_shown(download.url)}")
    if status != 200:  # noqa: PLR2004 - OK
        raise errors.OutputError(
            f"{_shown(download.url)} answered {status}; a result link dies after 3 days", url=download.url
        )


def _shown(url: str) -> str:
    return _checks.short(url)
