"""Local pictures in, finished pictures out.

In: a picture travels as a data URI, read and encoded off the event loop. Out: a picture is streamed to a temporary
name, checked, and renamed, so that a file with the final name is always whole.
"""

import asyncio
import hashlib
import os
import re
import secrets
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing, suppress
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from piapi_async import _checks, _media, _wire, errors
from piapi_async._http import Download, Transport
from piapi_async.task import Image, Submittable, WebhookConfig

IMAGE_MAX = 10 * 2**20
"""The largest local picture that is sent unless the session says otherwise, in bytes.

The service publishes no limit for a data URI ("task input too large" exists); its upload takes 10 MB.
"""

OUTPUT_MAX = 100 * 2**20
"""The largest finished picture that is written to disk, in bytes."""

# Without the names that Windows keeps for devices, with or without an ending.
_SAFE_NAME = re.compile(r"(?!(?i:con|prn|aux|nul|com\d|lpt\d)(?:\.|$))[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


async def encode_submit(request: Submittable, *, webhook: WebhookConfig | None, max_bytes: int) -> bytes:
    """The JSON body of a submit, local pictures included.

    Raises:
        OSError: A local picture cannot be read.
        TypeError: The input holds something that is neither JSON nor a picture.
        ValueError: A local picture is too large or no picture.
    """
    task_input = request.input

    def encode() -> bytes:
        inlined = _inline(task_input, field="input", max_bytes=max_bytes)
        return _json(request, task_input=inlined, webhook=webhook)

    try:
        return await asyncio.to_thread(encode) if is_heavy(task_input) else encode()
    except RecursionError:
        raise ValueError("input must be JSON values, but it holds itself or is nested too deep") from None


def _json(request: Submittable, *, task_input: Mapping[str, Any], webhook: WebhookConfig | None) -> bytes:
    try:
        return _wire.encode_body(request, task_input=task_input, webhook=webhook)
    except (TypeError, ValueError) as error:
        kind = TypeError if isinstance(error, TypeError) else ValueError
        raise kind(f"input must hold JSON values and pictures only: {error}") from error


def is_heavy(value: object) -> bool:
    """Whether encoding the value reads files or takes long enough to hold up the event loop."""
    try:
        return _holds_heavy(value)
    except RecursionError:
        return False  # it holds itself: encoding it says so


def _holds_heavy(value: object) -> bool:
    if isinstance(value, Mapping):
        return any(map(_holds_heavy, value.values()))
    if isinstance(value, list | tuple):
        return any(map(_holds_heavy, value))
    return isinstance(value, Path | bytes) or (isinstance(value, str) and len(value) > 2**16)


def _inline(value: Any, *, field: str, max_bytes: int) -> Any:
    """The value with every `Path` and `bytes` in it as a data URI; `field` names its place for error messages."""
    if isinstance(value, Mapping):
        return {key: _inline(item, field=str(key), max_bytes=max_bytes) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_inline(item, field=field, max_bytes=max_bytes) for item in value]
    if isinstance(value, Path):
        return _data_uri(_read(value, field=field, max_bytes=max_bytes), field=f"{field} {str(value)!r}")
    if isinstance(value, bytes):
        _check_size(len(value), field=field, max_bytes=max_bytes)
        return _data_uri(value, field=field)
    if isinstance(value, str) and _media.is_data_uri(value):
        _check_size(_media.data_uri_size(value), field=field, max_bytes=max_bytes)
    return value


def _read(path: Path, *, field: str, max_bytes: int) -> bytes:
    try:
        with path.open("rb") as file:
            _check_size(os.fstat(file.fileno()).st_size, field=f"{field} {str(path)!r}", max_bytes=max_bytes)
            return file.read(max_bytes)
    except OSError as error:
        raise type(error)(f"{field} must be a readable picture, {str(path)!r} is not: {error.strerror}") from error


def _check_size(size: int, *, field: str, max_bytes: int) -> None:
    if size > max_bytes:
        raise ValueError(f"{field} must be a picture of at most {max_bytes} bytes (max_image_bytes), got {size}")


def _data_uri(data: bytes, *, field: str) -> str:
    media_type = _media.sniff(data[: _media.SNIFF_BYTES])
    if media_type is None:
        raise _checks.refuse(ValueError, name=field, allowed=f"a picture ({_media.KNOWN_FORMATS})", value=data[:16])
    return _media.encode_data_uri(data, media_type=media_type)


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
