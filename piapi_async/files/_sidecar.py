"""Side-cars: what was asked, what came of it and what it cost, as JSON beside the pictures. Values in, bytes out."""

import hashlib
import json
import math
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import attrs

from piapi_async import _media, _validators
from piapi_async.task import Submittable, TaskInfo

_TEXT_MAX = 10_000  # characters; a longer one is a picture in disguise
_URI_MAX = 200


@attrs.frozen(kw_only=True)
class Entry:
    """What a side-car tells of one picture.

    Attributes:
        file: Its name, relative to the side-car, with `/`.

        url: Where it came from.

        media_type: What kind of picture it is.

        size: Its bytes.

        sha256: Their digest, in hexadecimal.

        width: In pixels, or `None`.

        height: In pixels, or `None`.
    """

    file: str
    url: str
    media_type: str
    size: int
    sha256: str
    width: int | None
    height: int | None


def asked(request: Submittable) -> dict[str, Any]:
    """A request as JSON values; local pictures by their path, or by size and digest.

    Raises:
        ValueError: It holds itself.
    """
    fields = ("model", "task_type", "service_mode", "input")
    try:
        return {name: _plain(getattr(request, name)) for name in fields}
    except RecursionError:
        raise ValueError("request must hold JSON values, but it holds itself or is nested too deep") from None


def record(info: TaskInfo, *, entries: Iterable[Entry], request: Mapping[str, Any] | None) -> bytes:
    """The side-car of a completed task.

    Args:
        info: The task.

        entries: Its pictures.

        request: What was asked, from `asked`. Without it the service's echo stands under `echoed_input`: the echo is
            no proof of what was asked.
    """
    usage = info.usage
    content = {
        "task_id": info.task_id,
        "model": info.model,
        "task_type": info.task_type,
        "status": str(info.status),
        "created_at": _time(info.created_at),
        "started_at": _time(info.started_at),
        "ended_at": _time(info.ended_at),
        "seconds": _seconds(info),
        "usage": usage and {"type": usage.type, "consume": usage.consume, "usd": usage.usd},
        "files": [
            {
                "file": entry.file,
                "media_type": entry.media_type,
                "width": entry.width,
                "height": entry.height,
                "bytes": entry.size,
                "sha256": entry.sha256,
                "url": _without_secrets(entry.url),
            }
            for entry in entries
        ],
        **({"request": request} if request is not None else {"echoed_input": _echo(info)}),
    }
    # A lone surrogate, which UTF-8 does not have, is spelt as JSON spells it.
    return (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode(errors="backslashreplace")


def _echo(info: TaskInfo) -> Any:
    try:
        return _plain(info.raw.get("input"))
    except RecursionError:
        return "(nested too deep)"  # the pictures are there: a strange echo does not take them away


def _time(time: datetime | None) -> str | None:
    if time is None:
        return None
    return (time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)).isoformat()


def _seconds(info: TaskInfo) -> float | None:
    if info.created_at is None or info.ended_at is None:
        return None
    return (info.ended_at - info.created_at).total_seconds()


def _without_secrets(url: str) -> str:
    """A URL without user, query and fragment, where signatures stand; a data URI without its data."""
    if not _validators.is_http_url(url):
        return _shortened(url, at_most=_URI_MAX)
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def _plain(value: Any) -> Any:
    """A value as JSON that is small and holds no webhook secret."""
    if isinstance(value, Mapping):
        return {str(key): "***" if str(key).lower() == "secret" else _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, bytes):
        return {"bytes": len(value), "sha256": hashlib.sha256(value).hexdigest()}
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, Path):
        return {"path": str(value)}
    is_number = isinstance(value, int | float) and math.isfinite(value)
    return value if value is None or is_number else str(value)


def _text(value: str) -> Any:
    if _media.is_data_uri(value) and len(value) > _URI_MAX:
        try:
            return _plain(_media.decode_data_uri(value))
        except ValueError:
            return _shortened(value, at_most=_URI_MAX)
    return _shortened(value, at_most=_TEXT_MAX)


def _shortened(text: str, *, at_most: int) -> str:
    return text if len(text) <= at_most else f"{text[:64]}… ({len(text)} characters)"
