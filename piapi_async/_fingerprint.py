"""What a request asks for, in a form that two equal ones share: for its key, and to know its task again.

A picture counts by its bytes, whether it is a `Path`, `bytes` or a data URI, so that the same command meets the same
jobs although a file was moved, and a ledger does not hold pictures.
"""

import asyncio
import hashlib
import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import attrs

from piapi_async import _media
from piapi_async._client.responses import text_digest
from piapi_async._images.sources import is_heavy
from piapi_async.task import Submittable, TaskInfo, TaskRequest

_PICTURE = "sha256"


@attrs.frozen
class Content:
    """What one request asks for.

    Attributes:
        text: The request as JSON, its pictures by their hashes.
    """

    text: str

    @property
    def fingerprint(self) -> str:
        """The same for requests that ask for the same, and for no others; 32 characters."""
        return hashlib.sha256(self.text.encode()).hexdigest()[:32]

    def key(self, *, nth: int) -> str:
        """The name of the n-th job of one run that asks for this, n from 1 on, where the user gave it none."""
        return self.fingerprint if nth == 1 else f"{self.fingerprint}-{nth}"

    @property
    def model(self) -> str:
        """The service's name of the model."""
        return str(json.loads(self.text)["model"])

    @property
    def request(self) -> TaskRequest:
        """The request, its pictures by their hashes: to be told, not to be sent."""
        return TaskRequest(**json.loads(self.text))

    def fits(self, info: TaskInfo, *, sent: Collection[str] = ()) -> bool:
        """Whether a task can be of this request: it shows no field that differs from what was set.

        The service may leave fields out of its echo, and may have put a link where a picture was sent; what cannot be
        compared does not count. Model, kind of task and prompt have to be there.

        Args:
            info: The task.

            sent: The hashes of the request's pictures as they went out, if that differs from how they were given.
        """
        asked = json.loads(self.text)
        echo = info.raw.get("input")
        if (info.model, info.task_type) != (asked["model"], asked["task_type"]) or not isinstance(echo, dict):
            return False
        if "prompt" in asked["input"] and "prompt" not in echo:
            return False
        return _agrees(asked["input"], _plain(echo), sent=sent)


async def content_of(request: Submittable) -> Content:
    """The content of a request, its pictures read off the event loop.

    Raises:
        OSError: A local picture cannot be read.
        TypeError: The input holds something that is neither JSON nor a picture.
        ValueError: The input holds a number that JSON does not have, or itself.
    """
    task_input = request.input

    def read() -> Content:
        asked = {
            "model": request.model,
            "task_type": request.task_type,
            "input": _plain(task_input),
            "service_mode": request.service_mode,
        }
        return Content(json.dumps(asked, sort_keys=True, allow_nan=False, separators=(",", ":")))

    try:
        return await asyncio.to_thread(read) if is_heavy(task_input) else read()
    except RecursionError:
        raise ValueError("input must be JSON values, but it holds itself or is nested too deep") from None


def _plain(value: Any) -> Any:
    """The value with each picture in it as its hash."""
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, str) and _media.is_data_uri(value):
        return _picture_or_text(value)
    is_picture = isinstance(value, Path | bytes) or _media.is_pillow(value) or _media.is_array(value)
    return {_PICTURE: _digest(value)} if is_picture else value


def _digest(picture: Any) -> str:
    if isinstance(picture, Path):
        with picture.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    if isinstance(picture, bytes):
        return hashlib.sha256(picture).hexdigest()
    shape = (picture.mode, picture.size) if _media.is_pillow(picture) else (str(picture.dtype), picture.shape)
    return hashlib.sha256(repr(shape).encode() + picture.tobytes()).hexdigest()


def _picture_or_text(value: str) -> Any:
    try:
        return {_PICTURE: hashlib.sha256(_media.decode_data_uri(value)).hexdigest()}
    except ValueError:
        return value


def _agrees(asked: Any, shown: Any, *, sent: Collection[str]) -> bool:
    if isinstance(asked, dict) and isinstance(shown, dict):
        if _PICTURE in asked and shown.get(_PICTURE) in sent:
            return True
        return all(_agrees(item, shown[key], sent=sent) for key, item in asked.items() if key in shown)
    if isinstance(asked, list) and isinstance(shown, list):
        return len(asked) == len(shown) and all(_agrees(*pair, sent=sent) for pair in zip(asked, shown, strict=True))
    if isinstance(asked, str) and isinstance(shown, dict) and "text_sha256" in shown:
        return bool(text_digest(asked) == shown["text_sha256"])  # a long text of an echo is not kept
    if isinstance(asked, dict) and _PICTURE in asked:
        return True  # a link, or bare base64: not to be compared with a hash
    return bool(asked == shown)
