"""Local pictures in: read, made fit to be sent and laid into the request, off the event loop."""

import asyncio
import errno
import os
import stat
import sys
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import attrs

from piapi_async import _media, _validators, errors
from piapi_async._asyncio import PerLoop
from piapi_async._client import requests
from piapi_async._client.body import Base64, Content
from piapi_async._images import integrity, pillow, prepare
from piapi_async.task import Submittable, WebhookConfig

IMAGE_MAX = 10 * 2**20
"""The largest local picture that is sent unless the session says otherwise, in bytes.

The service publishes no limit for a data URI ("task input too large" exists); its upload takes 10 MB.
"""

FILE_MAX = 200 * 2**20
"""The largest file that is read at all, in bytes: it may become small enough once it is made fit."""

THREADS = 2
"""Threads that read and encode at once. More take the processor, and the memory's locks, away from the event loop."""

T = TypeVar("T")
Upload = Callable[[bytes], Awaitable[str]]
"""Brings the bytes of a picture to where the service can fetch them, and gives the link."""


_threads = PerLoop(lambda: asyncio.Semaphore(THREADS))


async def off_loop(work: Callable[[], T]) -> T:
    """Do work on pictures in a thread, when it is its turn."""
    async with _threads.get():
        return await asyncio.to_thread(work)


@attrs.frozen(kw_only=True)
class Rules:
    """What holds for the local pictures of a session.

    Args:
        max_bytes: The most bytes of a picture as it is sent.

        max_pixels: The most pixels; a larger picture is made smaller. `None` for no limit.
    """

    max_bytes: int
    max_pixels: int | None = attrs.field(validator=_validators.optional(_validators.number(at_least=1, integer=True)))


async def encode_submit(
    request: Submittable, *, webhook: WebhookConfig | None, rules: Rules, upload: Upload | None
) -> Content:
    """The JSON body of a submit, local pictures included.

    Args:
        request: What is asked for.

        webhook: Where it is to be reported.

        rules: What holds for local pictures.

        upload: Brings them to where the service can fetch them; `None` lets them travel as data URIs.

    Raises:
        ConfigurationError: A picture needs Pillow, and it is missing.
        OSError: A local picture cannot be read.
        TypeError: The input holds something that is neither JSON nor a picture.
        ValueError: A local picture is too large or no picture.
    """
    with Forgetting():
        try:
            return await _encoded(request, webhook=webhook, rules=rules, upload=upload)
        finally:
            del request


@attrs.define(eq=False)
class Forgetting:
    """Let no refusal that leaves the block keep a picture alive: neither it nor its causes keep their frames.

    Emptying the frames would not do, as each keeps its function, and with that what a closure holds.
    """

    _outer: BaseException | None = None

    def __enter__(self) -> None:
        self._outer = sys.exception()  # what the caller deals with becomes a context of the refusal, and is not ours

    def __exit__(self, _kind: object, error: BaseException | None, _traceback: object) -> None:
        if isinstance(error, TypeError | ValueError | OSError | errors.PiAPIError):
            seen: set[BaseException | None] = {None, self._outer}
            todo: list[BaseException | None] = [error]
            while todo:
                one = todo.pop()
                if one is not None and one not in seen:
                    seen.add(one)
                    one.__traceback__ = None
                    todo += [one.__cause__, one.__context__]


async def _encoded(
    request: Submittable, *, webhook: WebhookConfig | None, rules: Rules, upload: Upload | None
) -> Content:
    given = request.input

    def inline() -> Mapping[str, Any]:
        inlined: Mapping[str, Any] = _inline(given, field="input", rules=rules)
        return inlined

    try:
        task_input = await off_loop(inline) if is_heavy(given) else inline()
        if upload is not None:
            task_input = await _linked(task_input, upload=upload)
        return await _json(request, task_input=task_input, webhook=webhook)
    except RecursionError:
        raise ValueError("input must be JSON values, but it holds itself or is nested too deep") from None


async def _json(request: Submittable, *, task_input: Mapping[str, Any], webhook: WebhookConfig | None) -> Content:
    def encode() -> Content:
        return requests.encode_body(request, task_input=task_input, webhook=webhook)

    try:
        return await off_loop(encode) if is_heavy(task_input) else encode()
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
    if isinstance(value, str):
        return len(value) > 2**16 or _media.is_data_uri(value) or _media.is_picture_base64(value)
    return isinstance(value, Path | bytes) or _media.is_pillow(value) or _media.is_array(value)


def _inline(value: Any, *, field: str, rules: Rules) -> Any:
    """The value with every local picture in it fit to be sent; `field` names its place for error messages."""
    if isinstance(value, Mapping):
        return {key: _inline(item, field=str(key), rules=rules) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_inline(item, field=field, rules=rules) for item in value]
    if isinstance(value, str):
        return _inline_text(value, field=field, rules=rules)
    if isinstance(value, Path | bytes) or _media.is_pillow(value) or _media.is_array(value):
        return _as_data_uri(picture(value, field=field, rules=rules))
    return value


def _inline_text(text: str, *, field: str, rules: Rules) -> str | Base64:
    if _media.is_picture_base64(
        text
    ):  # as PiAPI documents it for `kontext`, and as it stays, but for what has to change
        return Base64(_fit(_decoded(text, field=field), field=field, rules=rules))
    if not _media.is_data_uri(text):
        return text
    if not _media.is_picture_data_uri(text):  # for models that take other things than pictures
        _check_size(_media.data_uri_size(text), field=field, most=rules.max_bytes)
        return text
    given = _decoded(text, field=field)
    data = _fit(given, field=field, rules=rules)
    return Base64(data, head=text[: text.index(",") + 1]) if data is given else _as_data_uri(data)


def _as_data_uri(data: bytes) -> Base64:
    return Base64(data, head=f"data:{_media.sniff(data)};base64,")


async def _linked(value: Any, *, upload: Upload) -> Any:
    """The value with every picture in it uploaded, and its link in its place."""
    if isinstance(value, dict):
        return {key: await _linked(item, upload=upload) for key, item in value.items()}
    if isinstance(value, list):
        return [await _linked(item, upload=upload) for item in value]
    return await upload(value.data) if isinstance(value, Base64) else value


def picture(source: Any, *, field: str, rules: Rules) -> bytes:
    """The file of a local picture, as it is to be sent.

    Args:
        source: A `Path`, bytes, a data URI, a Pillow image or a NumPy array.

        field: Its name in error messages.

        rules: What holds for it.

    Raises:
        ConfigurationError: It needs Pillow, and that is missing.
        OSError: It cannot be read.
        ValueError: It is too large or no picture.
    """
    if isinstance(source, Path):
        return _fit(read(source, field=field), field=f"{field} {str(source)!r}", rules=rules)
    if isinstance(source, bytes):
        return _fit(source, field=field, rules=rules)
    if isinstance(source, str):
        return _fit(_decoded(source, field=field), field=field, rules=rules)
    pillow.need(f"{field} as a NumPy array")
    _validators.picture(source, name=field)  # in a plain request nobody has looked at it yet
    return _sized(lambda: prepare.encode(source, max_pixels=rules.max_pixels), field=field, rules=rules)


def read(path: Path, *, field: str) -> bytes:
    """The bytes of a file.

    Raises:
        OSError: It cannot be read.
        ValueError: It is far too large.
    """
    try:
        _refuse_endless(path)
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size > FILE_MAX:
                raise ValueError(f"{field} {str(path)!r} must be a file of at most {FILE_MAX} bytes, got {size}")
            return file.read(FILE_MAX)
    except OSError as error:
        raise type(error)(f"{field} must be a readable picture, {str(path)!r} is not: {error.strerror}") from error


def _refuse_endless(path: Path) -> None:
    """Refuse pipes and devices: opening or reading one may take for ever, and hold up the pictures of others."""
    mode = path.stat().st_mode
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):  # of a directory the system says so itself
        raise OSError(errno.EINVAL, "Neither a file nor a link to one")


def _decoded(text: str, *, field: str) -> bytes:
    content = "".join(text.split())  # lines may be wrapped anywhere
    try:
        return _media.decode_data_uri(content) if _media.is_data_uri(content) else _media.decode_base64(content)
    except ValueError as error:
        raise ValueError(f"{field} must be a picture's data URI: {error}") from error


def _fit(data: bytes, *, field: str, rules: Rules) -> bytes:
    media_type = _media.sniff(data[: _media.SNIFF_BYTES])
    is_taken = media_type in _media.TAKEN
    if media_type is None and not (pillow.is_installed() and prepare.can_open(data)):
        raise _validators.refuse(ValueError, name=field, allowed=f"a picture ({_media.KNOWN_FORMATS})", value=data[:16])
    # Half a photograph, as a download that broke off leaves it, is paid for like a whole one.
    fault = integrity.fault(data, media_type=media_type)
    if fault is not None:
        raise ValueError(f"{field} must be a whole picture, got {len(data)} bytes of {media_type}: {fault}")
    if media_type == pillow.HEIC and not (pillow.is_installed() and pillow.load_heif()):  # it brings Pillow along
        raise errors.ConfigurationError(f"{field} of type {media_type} needs pillow-heif: pip install pillow-heif")
    if not is_taken:
        pillow.need(f"{field} of type {media_type}, to be converted,")

    def fit() -> bytes:
        if not pillow.is_installed():
            return data
        return prepare.fit(data, media_type=media_type, may_stay=is_taken, max_pixels=rules.max_pixels)

    return _sized(fit, field=field, rules=rules)


def _sized(make: Callable[[], bytes], *, field: str, rules: Rules) -> bytes:
    try:
        data = make()
    except ValueError as error:
        raise ValueError(f"{field} must be a picture that can be decoded; {error}") from error
    _check_size(len(data), field=field, most=rules.max_bytes)
    return data


def _check_size(size: int, *, field: str, most: int) -> None:
    if size > most:
        raise ValueError(
            f"{field} must be a picture of at most {most} bytes (max_image_bytes), got {size};"
            " Session(max_pixels=...) makes pictures smaller"
        )
