"""Local pictures in: they travel as data URIs, read and encoded off the event loop."""

import asyncio
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from piapi_async import _checks, _media, _wire
from piapi_async.task import Submittable, WebhookConfig

IMAGE_MAX = 10 * 2**20
"""The largest local picture that is sent unless the session says otherwise, in bytes.

The service publishes no limit for a data URI ("task input too large" exists); its upload takes 10 MB.
"""


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
